"""The suite on every CPython that is here, with every Django that supports it; and the wheels for all of them.

``python -m tools.matrix all`` runs all pairs, ``short`` the oldest Python with its oldest Django, and the newest with
its newest. One wheel is built for each Python; the tests run on it, installed, in an environment of its own for each
pair. Djblets is there as the oracle where its Django is.

``wheels`` builds what is released, into dist: an sdist and, for each Python and processor, a manylinux wheel. They
are tested in the same way.

There is no one wheel for all Pythons (abi3): docs/how-it-works.md has what it would cost.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
WORK = ROOT / "build" / "matrix"
RELEASE = ROOT / "build" / "wheels"
DIST = ROOT / "dist"
OLDEST_PYTHON = (3, 10)

#: The first and the last Python of each Django, by its own release notes.
DJANGOS = {
    "4.2": ((3, 8), (3, 12)),
    "5.2": ((3, 10), (3, 14)),
    "6.0": ((3, 12), (3, 14)),
    "6.1": ((3, 12), (3, 15)),
}
#: CPython supports builds without a GIL from this version on; those before were experiments.
FIRST_WITHOUT_GIL = (3, 14)
#: Djblets 6.1 asks for it.
DJANGO_OF_DJBLETS = "4.2"


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


def supported() -> list[Python]:
    """Return every interpreter that one of the Djangos supports, whether it is here or not."""
    newest = max(last for _, last in DJANGOS.values())
    versions = [(3, minor) for minor in range(OLDEST_PYTHON[1], newest[1] + 1)]
    return sorted(
        Python(version, without_gil, "")
        for version in versions
        for without_gil in (False, True)
        if not without_gil or version >= FIRST_WITHOUT_GIL
    )


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


#: How pytest runs here, as in the Makefile.
PYTEST = ("-n", "auto", "--dist", "worksteal")
#: And which tests `make test` runs.
SHORT = ("-m", "not slow")

_wheels: dict[Python, Path] = {}


def _wheel(python: Python) -> Path:
    """The wheel for that Python, built once a run, in release mode."""
    if python not in _wheels:
        directory = WORK / "wheels" / python.name
        shutil.rmtree(directory, ignore_errors=True)
        # Each Python's build stays beside the others', and what was compiled for it.
        _wheels[python] = _build(f"matrix/{python.name}", directory, "--interpreter", python.path)
    return _wheels[python]


def _run(*command: str, env: dict[str, str] | None = None, may_fail: bool = False) -> None:
    subprocess.run(command, cwd=ROOT, env=os.environ | (env or {}), check=not may_fail)


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _build(target: str, directory: Path, *options: str) -> Path:
    there = set(directory.glob("*.whl"))
    _run(
        *(sys.executable, "-m", "maturin", "build", "--release", "--locked", "--quiet"),
        *("--out", str(directory), *options),
        env={
            "CARGO_TARGET_DIR": str(ROOT / "target" / target),
            # maturin looks for zig in the first Python on the path.
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        },
    )
    (built,) = set(directory.glob("*.whl")) - there
    return built


def _result(python: Python, django: str) -> Path:
    return WORK / "results" / f"{python.name}-{django}.xml"


def _environment(python: Python, django: str, home: Path, package: Path) -> str:
    """An environment with that Django, that package of ours and all that the tests can use; its interpreter."""
    inside = str(home / "bin" / "python")
    if not Path(inside).exists():
        _run(python.path, "-m", "venv", str(home))
    pip = [inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    requirements = ["-r", "requirements/test.txt"]
    if django == DJANGO_OF_DJBLETS:
        requirements += ["-r", "requirements/oracle.txt"]
    _run(*pip, f"django~={django}.0", *requirements)
    # Not everywhere is there a wheel of it or a compiler; its tests are skipped then.
    _run(*pip, "--prefer-binary", "pylibmc~=1.6", may_fail=True)
    _run(*pip, "--force-reinstall", "--no-deps", str(package))
    return inside


def _pytest(inside: str, *options: str) -> None:
    _run(
        *(inside, "-m", "pytest", "-q", "-p", "no:cacheprovider", *PYTEST, *options),
        env={"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": ""},
    )


def _test(pairs: list[Pair], *options: str) -> None:
    """Test each pair, go on when one fails, and show what came of them all."""
    failed = False
    for python, django in pairs:
        result = _result(python, django)
        result.parent.mkdir(parents=True, exist_ok=True)
        result.unlink(missing_ok=True)
        print(f"Python {python.name}, Django {django}", flush=True)
        try:
            home = WORK / "environments" / f"{python.name}-{django}"
            inside = _environment(python, django, home, _wheel(python))
            _pytest(inside, f"--junitxml={result}", *options)
        except subprocess.CalledProcessError as error:
            print(error)
            failed = True
    _print_results()
    if failed or not pairs:
        sys.exit(1)


def matrix() -> None:
    """Every pair, with every test."""
    _test(all_pairs())


def matrix_short() -> None:
    """The corners, with the tests of `make test`."""
    _test(short_pairs(), *SHORT)


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


def _print_results() -> None:
    """What came of the last run of each pair."""
    rows = [["Python", *(f"Django {django}" for django in DJANGOS)]]
    rows += [[python.name, *(_cell(python, django) for django in DJANGOS)] for python in pythons()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    here = {python.name for python in pythons()}
    for python in supported():
        if python.name not in here:
            print(
                f"NOT RUN: Python {python.name} with Django {', '.join(python.djangos)}. There is no such Python here."
            )


#: What the wheels for other Pythons than the one that this runs on are tested with: half a minute.
SMOKE = [f"tests/test_{name}.py" for name in ("memoize", "pickle_codec", "synchronizer", "vectors")]


def _can_build_for(processor: str) -> bool:
    """Whether Rust's library for that processor is here, or can be had."""
    rust = Path(_output("rustc", "--print", "sysroot")) / "lib" / "rustlib"
    target = f"{processor}-unknown-linux-gnu"
    if not (rust / target).exists() and shutil.which("rustup"):
        _run("rustup", "target", "add", target, may_fail=True)
    return (rust / target).exists()


def _ship(python: Python, processor: str) -> Path:
    native = processor == platform.machine()
    options = ["--target", f"{processor}-unknown-linux-gnu", "--zig", "--compatibility", "manylinux2014"]
    # For another processor maturin goes by the name alone.
    options += ["--interpreter", python.path if native else f"python{python.name}"]
    return _build("wheels", DIST, *options)


def _check(python: Python, django: str, package: Path, tests: list[str]) -> None:
    home = RELEASE / "environments" / f"{python.name}-{django}-{package.suffix[1:]}"
    shutil.rmtree(home, ignore_errors=True)
    _pytest(_environment(python, django, home, package), *tests)


def wheels() -> None:
    """What is released: built, then tested as it is installed.

    The whole suite runs on the wheel for the Python that this runs on, and a part of it on the others and on the sdist.
    """
    shutil.rmtree(DIST, ignore_errors=True)
    asked = os.environ.get("PROCESSORS", "x86_64 aarch64").split()
    processors = [processor for processor in asked if _can_build_for(processor)]
    usable = [python for python in pythons() if python.djangos]
    # One without a GIL stands behind the one with it.
    main = next((python for python in usable if python.version == sys.version_info[:2]), usable[-1])

    _run(sys.executable, "-m", "maturin", "sdist", "--out", str(DIST))
    (sdist,) = DIST.glob("*.tar.gz")
    _check(main, main.djangos[-1], sdist, SMOKE)
    tested = {sdist: f"Python {main.name}, Django {main.djangos[-1]}: a part"}

    for processor in processors:
        for python in usable:
            wheel = _ship(python, processor)
            if processor != platform.machine():
                tested[wheel] = "nothing: it is for another processor"
                continue
            # The oldest Django of the main Python has Djblets beside it.
            django, tests = (python.djangos[0], []) if python == main else (python.djangos[-1], SMOKE)
            _check(python, django, wheel, tests)
            tested[wheel] = f"Python {python.name}, Django {django}: {'a part' if tests else 'all'}"

    for package, what in tested.items():
        print(f"{package.stat().st_size / 1000:5.0f} kB  {package.name}; tested: {what}")
    for processor in asked:
        if processor not in processors:
            print(f"SKIPPED: no wheels for {processor}. `rustup target add {processor}-unknown-linux-gnu` fails here.")


COMMANDS = {"all": matrix, "short": matrix_short, "wheels": wheels}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.matrix", description=__doc__)
    parser.add_argument("what", choices=COMMANDS)
    COMMANDS[parser.parse_args().what]()


if __name__ == "__main__":
    main()
