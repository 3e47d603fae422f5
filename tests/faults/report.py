"""The table of what came of the experiments."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.faults.experiment import ALL
from tests.faults.outcome import Finding
from tests.faults.worker import EXPERIMENTS, Job

Results = dict[Job, Finding]
Row = tuple[str, str, str, str]

DOCUMENT = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN = "<!-- What follows is written by `make faults`. -->"
END = "<!-- Up to here. -->"

PROMISES = {
    1: "The source fails",
    2: "An item can't be pickled",
    3: "An entry can't be read",
    4: "Generations never mix",
    5: "Counts of chunks are not to be trusted",
    6: "Memory is bounded",
    7: "Locks",
    8: "Keys",
    9: "Damage",
    10: "Servers",
}


def as_table(results: Results) -> str:
    """One table for each promise, backends with the same outcomes in one row."""
    parts = []
    for number, title in PROMISES.items():
        rows = [row for name in EXPERIMENTS if EXPERIMENTS[name].promise == number for row in _rows(name, results)]
        if rows:
            parts.append(f"### {number}. {title}\n\n{_markdown(rows)}\n")
    return "\n".join(parts)


def _rows(name: str, results: Results) -> Iterator[Row]:
    experiment = EXPERIMENTS[name]
    same: dict[tuple[str, str], list[str]] = {}
    for backend in experiment.backends:
        found = tuple(
            _cell(results.get(Job(name, backend, library)), library, experiment.undetectable)
            for library in ("djblets", "fastblets")
        )
        if any(found):
            same.setdefault((found[0], found[1]), []).append(backend)
    for (theirs, ours), backends in same.items():
        everywhere = len(backends) == len(ALL)
        yield name, "all" if everywhere else ", ".join(backends), theirs, ours


def _cell(finding: Finding | None, library: str, undetectable: bool) -> str:
    if finding is None:
        return ""
    # Numbers and lists of cases differ from run to run: the outcome is what counts.
    text = finding.outcome.value
    return f"{text}, can't be noticed" if undetectable and library == "fastblets" and finding.is_unnoticed else text


def _markdown(rows: list[Row]) -> str:
    header = ("What fails", "Backend", "Djblets 6.1", "fastblets")
    lines = [header, ("---",) * 4, *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def surprises(results: Results) -> Iterator[str]:
    """What isn't as the experiments say, be it better or worse."""
    for job, finding in results.items():
        expected = EXPERIMENTS[job.experiment].expected(job.library, job.backend)
        if finding.outcome not in expected:
            names = " or ".join(sorted(outcome.value for outcome in expected))
            yield f"{job.library} on {job.backend}: {job.experiment}: {finding}, expected {names}"


def failures(results: Results) -> list[str]:
    """What fastblets may not do."""
    return [
        f"{job.experiment} on {job.backend}: {finding}"
        for job, finding in results.items()
        if job.library == "fastblets" and not EXPERIMENTS[job.experiment].is_acceptable(finding.outcome, job.backend)
    ]


def update_document(results: Results) -> None:
    """Write the tables into the document, between the marks."""
    text = DOCUMENT.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{as_table(results)}\n{END}{after}")
