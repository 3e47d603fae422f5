"""Where memory is short, there is a clear error or the right result, and nothing left behind for the next call."""

from __future__ import annotations

import pickle
import subprocess
import sys
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from fastblets import _native

_testcapi = pytest.importorskip("_testcapi", reason="not every CPython can be told to be short of memory")

KEY = b"0123456789abcdef"
ITEMS: list[Any] = [
    *({"id": number, "name": f"number {number}€", "more": ("ab", [1.5])} for number in range(20)),
    # Long enough to be read while other threads run: of one width, of two.
    "x" * 70_000 + "\n" + "y" * 1_000,
    "x" * 70_000 + "€",
    b"bytes",
]
PICKLES = b"".join(pickle.dumps(item, 0) for item in ITEMS)
VALUE = _native.encrypt_value(ITEMS, KEY, KEY, False, None)
CALLS: dict[str, Callable[[], Any]] = {
    "compressed": lambda: list(_native.read_items([zlib.compress(PICKLES)], True, None)),
    "plain": lambda: list(_native.read_items([PICKLES], False, None)),
    "value": lambda: _native.decrypt_value(VALUE, KEY, False, None, False, None),
}


@pytest.mark.parametrize("name", CALLS)
def test_an_allocation_that_fails(name: str) -> None:
    call = CALLS[name]
    assert call() == ITEMS
    for count in range(1_000):
        result = ITEMS
        try:
            _testcapi.set_nomemory(count, count + 1)
            result = call()
        except MemoryError:
            pass
        finally:
            # An exception that is left behind comes up in whatever is called next.
            _testcapi.remove_mem_hooks()
        assert result == ITEMS


HUGE = """
import pickle, resource, sys
from fastblets import _native

key = bytes(16)
text = {"text": "x" * (100 << 20)}
chunks = [pickle.dumps(text, 0)]
value = _native.encrypt_value(text, key, key, False, None)
del text
calls = {
    "items": lambda: next(_native.read_items(chunks, False, None)),
    "value": lambda: _native.decrypt_value(value, key, False, None, False, None),
    "decrypt": lambda: _native.decrypt(value, key),
    "encrypt": lambda: _native.encrypt(value, key, key),
}
call = calls[sys.argv[1]]
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
errors = 0
for more in range(0, 1_000, 40):
    resource.setrlimit(resource.RLIMIT_AS, (size + (more << 20), resource.RLIM_INFINITY))
    try:
        call()
        break
    except MemoryError:
        errors += 1
else:
    sys.exit("it takes more than there ever is")
print(errors)
"""


@pytest.mark.linux("limits of memory that hold")
@pytest.mark.parametrize("name", ["items", "value", "decrypt", "encrypt"])
def test_something_too_large_for_what_there_is(name: str) -> None:
    done = subprocess.run([sys.executable, "-c", HUGE, name], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 1
