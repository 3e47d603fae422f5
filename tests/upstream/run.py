"""Runs Djblets' own tests, as they are installed, on Djblets' code and then on ours.

Whatever passes there has to pass here. What Djblets fails in these surroundings by itself (tests
that want its Node.js tools, for one) counts for nobody.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
INSTALLED = "installed"
VERSIONS = ("6.1", "6.0", "5.2.2", INSTALLED)
SHORT = ("djblets/cache/tests", "djblets/protect/tests", "djblets/secrets/tests")
TIMEOUT = 1200

Outcomes = Mapping[str, str]


@dataclass(frozen=True)
class Run:
    """What one pytest process said."""

    returncode: int
    outcomes: Outcomes
    output: str

    @property
    def ended(self) -> bool:
        """Whether pytest came to its end, with failing tests or without."""
        return self.returncode in (0, 1) and "passed" in self.outcomes.values()

    def tail(self, lines: int = 40) -> str:
        return "\n".join(self.output.splitlines()[-lines:])


def site_packages(python: str) -> Path:
    where = "import djblets, pathlib; print(pathlib.Path(djblets.__file__).parent.parent)"
    found = subprocess.run([python, "-c", where], check=True, capture_output=True, text=True, timeout=60, cwd="/")
    return Path(found.stdout.strip())


def environment(*, replace: bool) -> dict[str, str]:
    foreign = ("PYTEST_", "DJANGO_", "FASTBLETS_", "COV_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return kept | {
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "FASTBLETS_REPLACE": str(int(replace)),
    }


def run_tests(python: str, paths: Iterable[str], *, replace: bool) -> Run:
    base = site_packages(python)
    with tempfile.TemporaryDirectory(prefix="fastblets-upstream-") as scratch:
        outcomes = Path(scratch, "outcomes.json")
        outcomes.write_text("{}")
        command = [python, "-m", "pytest", "-p", "tests.upstream.plugin"]
        command += ["-c", str(HERE / "upstream.ini"), "--rootdir", str(base)]
        command += ["--outcomes", str(outcomes)]
        command += [str(base / path) for path in paths if (base / path).exists()]
        done = subprocess.run(
            command,
            cwd=scratch,
            env=environment(replace=replace),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT,
        )
        return Run(done.returncode, json.loads(outcomes.read_text()), done.stdout)


def lost(stock: Outcomes, ours: Outcomes) -> list[str]:
    """The tests that pass on Djblets and don't on us."""
    return sorted(
        f"{test}  [{ours.get(test, 'not run')}]"
        for test, outcome in stock.items()
        if outcome == "passed" and ours.get(test) != "passed"
    )


def by_module(outcomes: Outcomes) -> dict[str, Counter[str]]:
    modules: dict[str, Counter[str]] = {}
    for test, outcome in outcomes.items():
        modules.setdefault(test.partition("::")[0], Counter())[outcome] += 1
    return modules


def table(stock: Outcomes, ours: Outcomes) -> str:
    sides = by_module(stock), by_module(ours)
    rows: list[tuple[str, ...]] = [
        ("", "stock", "", "ours", ""),
        ("test module", "passed", "failed", "passed", "failed"),
    ]
    for module in sorted({*sides[0], *sides[1]}):
        counts = (side.get(module, Counter[str]()) for side in sides)
        cells = (str(count[outcome]) for count in counts for outcome in ("passed", "failed"))
        rows.append((module, *cells))
    totals = (Counter(side.values()) for side in (stock, ours))
    sums = (str(total[outcome]) for total in totals for outcome in ("passed", "failed"))
    rows.append(("all", *sums))
    width = max(len(row[0]) for row in rows)
    return "\n".join(f"{row[0]:{width}}" + "".join(f"{cell:>8}" for cell in row[1:]) for row in rows)


def prepare(version: str, fastblets: Path | None) -> str:
    """The interpreter of an environment with that Djblets, made where it's missing."""
    if version == INSTALLED:
        return sys.executable
    home = ROOT / "build" / "upstream" / version
    python = str(home / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if not (home / "complete").exists():
        venv.create(home, with_pip=True, clear=True)
        requirements = str(HERE / "requirements.txt")
        subprocess.run([*pip, f"djblets=={version}", "-r", requirements], check=True)
        (home / "complete").touch()
    if fastblets is not None:
        # The version number stays the same from one build to the next.
        subprocess.run([*pip, "--force-reinstall", "--no-deps", str(fastblets)], check=True)
    return python


def compare(python: str, paths: Sequence[str]) -> tuple[bool, str]:
    """Run both sides; whether ours holds, and the report."""
    stock, ours = (run_tests(python, paths, replace=replace) for replace in (False, True))
    for name, run in (("stock", stock), ("ours", ours)):
        if not run.ended:
            return False, f"The {name} run ended with code {run.returncode}.\n{run.tail()}"
    report = table(stock.outcomes, ours.outcomes)
    if missed := lost(stock.outcomes, ours.outcomes):
        listed = "\n  ".join(missed)
        return False, f"{report}\n\nPassed on stock, not on ours:\n  {listed}\n\n{ours.tail()}"
    return True, report


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.upstream.run", description=__doc__)
    parser.add_argument("--version", choices=VERSIONS, default=INSTALLED)
    parser.add_argument("--all", action="store_true", help="every test of Djblets")
    parser.add_argument("--fastblets", type=Path, help="wheel or source tree to install beside that version")
    options = parser.parse_args(arguments)
    python = prepare(options.version, options.fastblets)
    holds, report = compare(python, ("djblets",) if options.all else SHORT)
    print(report)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
