"""The suite on every CPython that is here, with every Django that supports it.

``make matrix`` runs all pairs, ``make matrix-short`` the oldest Python with its oldest Django, and the newest with its
newest. One wheel is built for each Python; the tests run on it, installed, in an environment of
its own for each pair. Djblets is there as the oracle where its Django is.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nox

ROOT = Path(__file__).parent
WORK = ROOT / "build" / "matrix"
OLDEST_PYTHON = (3, 10)

#: The first and the last Python of each Django, by its own release notes.
DJANGOS = {
    "4.2": ((3, 8), (3, 12)),
    "5.2": ((3, 10), (3, 14)),
    "6.0": ((3, 12), (3, 14)),
}
#: Djblets 6.1 asks for it.
DJANGO_OF_DJBLETS = "4.2"

nox.options.default_venv_backend = "venv"
nox.options.sessions = ["matrix", "table"]
nox.options.reuse_existing_virtualenvs = True
nox.options.envdir = str(WORK / "environments")


@dataclass(frozen=True, order=True)
class Python:
    """An interpreter; a Python of one version, with the GIL or without, counts once."""

    version: tuple[int, int]
    without_gil: bool
    path: str

    @property
    def name(self) -> str:
        return "{}.{}".format(*self.version) + "t" * self.without_gil

    @property
    def djangos(self) -> list[str]:
        return [django for django, (first, last) in DJANGOS.items() if first <= self.version <= last]


_DESCRIBE = """
import json, platform, sys, sysconfig
version = sys.version_info
usable = platform.python_implementation() == "CPython" and version.releaselevel == "final"
print(json.dumps([usable, version[:2], bool(sysconfig.get_config_var("Py_GIL_DISABLED"))]))
"""


def _described(path: str) -> Python | None:
    found = subprocess.run([path, "-c", _DESCRIBE], capture_output=True, text=True, timeout=30)
    if found.returncode != 0:
        return None
    usable, (major, minor), without_gil = json.loads(found.stdout)
    return Python((major, minor), without_gil, path) if usable and (major, minor) >= OLDEST_PYTHON else None


def _paths() -> Iterator[str]:
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for path in sorted(pyenv.glob("versions/*/bin/python3"), reverse=True):
        yield str(path)
    for minor in range(OLDEST_PYTHON[1], 30):
        for suffix in ("", "t"):
            if path_found := shutil.which(f"python3.{minor}{suffix}"):
                yield path_found


@cache
def pythons() -> list[Python]:
    found: dict[str, Python] = {}
    for path in _paths():
        if python := _described(path):
            found.setdefault(python.name, python)
    return sorted(found.values())


Pair = tuple[Python, str]


def all_pairs() -> list[Pair]:
    return [(python, django) for python in pythons() for django in python.djangos]


def short_pairs() -> list[Pair]:
    pairs = all_pairs()
    return list(dict.fromkeys([pairs[0], pairs[-1]])) if pairs else []


_wheels: dict[Python, Path] = {}


def _wheel(session: nox.Session, python: Python) -> Path:
    """The wheel for that Python, built once a run, in release mode."""
    if python not in _wheels:
        _wheels[python] = _build(session, python)
    return _wheels[python]


def _build(session: nox.Session, python: Python) -> Path:
    directory = WORK / "wheels" / python.name
    shutil.rmtree(directory, ignore_errors=True)
    session.run(
        *(sys.executable, "-m", "maturin", "build", "--release", "--locked", "--quiet"),
        *("--interpreter", python.path, "--out", str(directory)),
        # Each Python's build stays beside the others', and what was compiled for it.
        env={"CARGO_TARGET_DIR": str(ROOT / "target" / "matrix" / python.name)},
        external=True,
    )
    (built,) = directory.glob("*.whl")
    return built


def _result(python: Python, django: str) -> Path:
    return WORK / "results" / f"{python.name}-{django}.xml"


def _environment(session: nox.Session, python: Python, django: str) -> str:
    """An environment with that Django, our wheel and all that the tests can use there; its interpreter."""
    home = WORK / "environments" / f"{python.name}-{django}"
    inside = str(home / "bin" / "python")
    if not Path(inside).exists():
        session.run(python.path, "-m", "venv", str(home), external=True)
    pip = [inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    requirements = ["-r", "requirements/test.txt"]
    if django == DJANGO_OF_DJBLETS:
        requirements += ["-r", "requirements/oracle.txt"]
    session.run(*pip, f"django~={django}.0", *requirements, external=True)
    # Not everywhere is there a wheel of it or a compiler; its tests are skipped then.
    session.run(*pip, "--prefer-binary", "pylibmc~=1.6", external=True, success_codes=[0, 1])
    session.run(*pip, "--force-reinstall", "--no-deps", str(_wheel(session, python)), external=True)
    return inside


def _test(session: nox.Session, python: Python, django: str) -> None:
    result = _result(python, django)
    result.parent.mkdir(parents=True, exist_ok=True)
    result.unlink(missing_ok=True)
    inside = _environment(session, python, django)
    session.run(
        *(inside, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={result}", *session.posargs),
        env={"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": ""},
        external=True,
    )


def _parameters(pairs: list[Pair]) -> list[object]:
    return [nox.param(*pair, id=f"{pair[0].name}-{pair[1]}") for pair in pairs]


@nox.session(python=False)
@nox.parametrize("python,django", _parameters(all_pairs()))
def matrix(session: nox.Session, python: Python, django: str) -> None:
    """Every pair."""
    _test(session, python, django)


@nox.session(name="matrix-short", python=False)
@nox.parametrize("python,django", _parameters(short_pairs()))
def matrix_short(session: nox.Session, python: Python, django: str) -> None:
    """The corners."""
    _test(session, python, django)


def _cell(python: Python, django: str) -> str:
    if django not in python.djangos:
        return "-"
    result = _result(python, django)
    if not result.exists():
        return "not run"
    (suite,) = ET.parse(result).getroot().iter("testsuite")
    count = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    failed = count["failures"] + count["errors"]
    passed = count["tests"] - failed - count["skipped"]
    return f"{passed} passed, {failed} failed, {count['skipped']} skipped"


@nox.session(python=False)
def table(session: nox.Session) -> None:
    """What came of the last run of each pair."""
    rows = [["Python", *(f"Django {django}" for django in DJANGOS)]]
    rows += [[python.name, *(_cell(python, django) for django in DJANGOS)] for python in pythons()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
