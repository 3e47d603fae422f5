"""One interpreter of a process can use the native half: a second one is told how to become the first."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

if sys.version_info >= (3, 13):
    pytest.importorskip("_interpreters")
else:
    pytest.importorskip("_xxsubinterpreters")

#: The same functions for all versions. Legacy interpreters are those that mod_wsgi makes.
PREPARE = """
import sys

if sys.version_info >= (3, 13):
    import _interpreters

    def create(legacy=True):
        return _interpreters.create("legacy" if legacy else "isolated")

    def run(interpreter, code):
        error = _interpreters.exec(interpreter, code)
        if error is not None:
            raise RuntimeError(error.formatted)

    destroy = _interpreters.destroy
else:
    import _xxsubinterpreters

    def create(legacy=True):
        return _xxsubinterpreters.create(isolated=not legacy)

    run = _xxsubinterpreters.run_string
    destroy = _xxsubinterpreters.destroy

USE = '''
from fastblets import _native

[again] = _native.read_items([_native.pickle_dumps({"key": ["value", 1.5]})], False, None)
assert again == {"key": ["value", 1.5]}
print("used", flush=True)
'''
TRY = '''
try:
    from fastblets import _native
except ImportError as error:
    print(error, flush=True)
else:
    print("let in", flush=True)
'''
"""

REFUSED = (
    "Another Python interpreter in this process uses fastblets already, and only one can. Under mod_wsgi, let the "
    'application run in the main interpreter: set "WSGIApplicationGroup %{GLOBAL}" in Apache\'s configuration, and '
    "give each further application a process group of its own (WSGIDaemonProcess, WSGIProcessGroup)."
)


def run(code: str) -> list[str]:
    """Run code in a process of its own, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", PREPARE + textwrap.dedent(code)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_a_second_interpreter_is_refused() -> None:
    assert run("""
        exec(USE)
        for _ in range(2):
            second = create()
            run(second, TRY)
            run(second, TRY)
        exec(USE)
        destroy(second)
        exec(USE)
    """) == ["used", REFUSED, REFUSED, REFUSED, REFUSED, "used", "used"]


def test_the_first_need_not_be_the_main_one() -> None:
    assert run("""
        first = create()
        run(first, USE)
        exec(TRY)
        run(create(), TRY)
        run(first, USE)
    """) == ["used", REFUSED, REFUSED, "used"]


def test_nobody_comes_after_an_interpreter_that_has_ended() -> None:
    assert run("""
        first = create()
        run(first, USE)
        destroy(first)
        exec(TRY)
        run(create(), TRY)
    """) == ["used", REFUSED, REFUSED]


def test_an_isolated_interpreter_is_refused() -> None:
    # From 3.12 on it has a GIL of its own, and CPython itself refuses.
    refused = REFUSED
    if sys.version_info >= (3, 12):
        refused = "module fastblets._native does not support loading in subinterpreters"
    assert run("""
        exec(USE)
        run(create(legacy=False), TRY)
        exec(USE)
    """) == ["used", refused, "used"]


def test_the_same_interpreter_may_import_it_again() -> None:
    assert run("""
        import importlib
        from fastblets import _native

        exec(USE)
        writer = _native.LargeWriter(True, None, None)
        assert importlib.reload(_native) is _native
        exec(USE)
        first = sys.modules.pop("fastblets._native")
        for name in [name for name in sys.modules if name.startswith("fastblets")]:
            del sys.modules[name]
        exec(USE)
        from fastblets import _native as second
        assert second is not first
        # What was made by the one is known to the other.
        assert isinstance(writer, second.LargeWriter)
        writer.write("item")
        writer.finish()
        assert list(second.read_items([writer.last_chunk()], True, None)) == ["item"]
        run(create(), TRY)
    """) == ["used", "used", "used", REFUSED]
