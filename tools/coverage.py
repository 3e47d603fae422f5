"""Which lines of the package no test runs: ``python -m tools.coverage`` builds it instrumented, and tests that.

The tests are those of `make test`, but for the model's; of the Rust, those in Python run most. The reports: the lists
that it prints, and the pages in build/coverage/python and build/coverage/rust.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
HOME = ROOT / "build" / "coverage"
PACKAGE = HOME / "package"
DATA = HOME / "rust.profdata"
ENVIRONMENT = os.environ | {
    "CARGO_TARGET_DIR": str(ROOT / "target" / "coverage"),
    # Inlined over all crates, little would be left of a line.
    "CARGO_PROFILE_RELEASE_LTO": "off",
    "RUSTFLAGS": "-Cinstrument-coverage",
    # Processes add their counts to one of a few files.
    "LLVM_PROFILE_FILE": str(HOME / "counts" / "%4m.profraw"),
    "COVERAGE_FILE": str(HOME / "python.data"),
    "PYTHONPATH": str(PACKAGE),
}


def _run(*command: str | Path) -> None:
    subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, check=True)


def _llvm(tool: str) -> str:
    """LLVM's tool: rustup's, or one of the same version as the compiler's."""
    for name in (f"llvm-{tool}", f"llvm-{tool}-{os.environ.get('LLVM')}"):
        # One that has no number may be of any version, but for rustup's.
        if (path := shutil.which(name)) and ("rustlib" in path or name[-1].isdigit()):
            return path
    sys.exit(f"llvm-{tool} is missing: rustup component add llvm-tools, or install LLVM {os.environ.get('LLVM')}")


def _build() -> Path:
    _run(
        *(sys.executable, "-m", "maturin", "build", "--release", "--locked", "--quiet", "--auditwheel", "skip"),
        *("--interpreter", sys.executable, "--out", HOME),
    )
    (wheel,) = HOME.glob("*.whl")
    shutil.unpack_archive(wheel, PACKAGE, "zip")
    (library,) = PACKAGE.glob("fastblets/_native*.so")
    return library


def _rust_tests() -> Iterator[str]:
    """Run them; yields their programs."""
    command = ["cargo", "test", "--locked"]
    listed = subprocess.run(
        [*command, "--no-run", "--message-format=json"],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        check=True,
    )
    _run(*command, "--quiet")
    for line in listed.stdout.splitlines():
        message = json.loads(line)
        if message["reason"] == "compiler-artifact" and message["profile"]["test"] and message["executable"]:
            yield message["executable"]


def _report_python() -> None:
    coverage = (sys.executable, "-m", "coverage")
    _run(*coverage, "combine", "--quiet")
    _run(*coverage, "html", "--quiet", "--directory", HOME / "python")
    _run(*coverage, "report")


def _report_rust(programs: Iterable[str | Path]) -> None:
    _run(_llvm("profdata"), "merge", "--sparse", "--failure-mode=all", "--output", DATA, HOME / "counts")
    first, *others = programs
    chosen = [first, *(f"--object={other}" for other in others), f"--instr-profile={DATA}"]
    # What is not ours: the standard library and the crates.
    chosen += [r"--ignore-filename-regex=/rustc/|/registry/|/rustlib/"]
    _run(_llvm("cov"), "show", *chosen, "--format=html", f"--output-dir={HOME / 'rust'}")
    _run(_llvm("cov"), "report", *chosen)


def main() -> None:
    for tool in ("profdata", "cov"):
        _llvm(tool)
    library = _build()
    programs = [library, *_rust_tests()]
    _run(sys.executable, "-m", "coverage", "run", "-m", "pytest", "-q", "-n", "auto", "-m", "not slow")
    _report_python()
    _report_rust(programs)


if __name__ == "__main__":
    main()
