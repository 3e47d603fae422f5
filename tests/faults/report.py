"""The tables of what came of the experiments."""

from __future__ import annotations

from collections.abc import Iterator

from tests.faults.experiment import ALL
from tests.faults.outcome import Finding
from tests.faults.page import PAGES, Page
from tests.faults.subject import SUBJECTS
from tests.faults.worker import EXPERIMENTS, Job

Results = dict[Job, Finding]
Row = tuple[str, ...]

BEGIN = "<!-- What follows is written by `make faults`. -->"
END = "<!-- Up to here. -->"


def as_table(results: Results, page: Page) -> str:
    """One table for each promise, backends with the same outcomes in one row."""
    parts = []
    for number, title in page.promises.items():
        rows = [
            row for name in EXPERIMENTS if EXPERIMENTS[name].promise == number for row in _rows(name, results, page)
        ]
        if rows:
            parts.append(f"### {number}. {title}\n\n{_markdown(rows, page)}\n")
    return "\n".join(parts)


def _rows(name: str, results: Results, page: Page) -> Iterator[Row]:
    experiment = EXPERIMENTS[name]
    same: dict[Row, list[str]] = {}
    for backend in experiment.backends:
        found = tuple(
            _cell(results.get(Job(name, backend, subject)), subject in experiment.undetectable)
            for subject in page.subjects
        )
        if any(found):
            same.setdefault(found, []).append(backend)
    for found, backends in same.items():
        everywhere = len(backends) == len(ALL)
        yield name, "all" if everywhere else ", ".join(backends), *found


def _cell(finding: Finding | None, undetectable: bool) -> str:
    if finding is None:
        return ""
    # Numbers and lists of cases differ from run to run: the outcome is what counts.
    text = finding.outcome.value
    return f"{text}, can't be noticed" if undetectable and finding.is_unnoticed else text


def _markdown(rows: list[Row], page: Page) -> str:
    header = (page.header, "Backend", *(SUBJECTS[subject].title for subject in page.subjects))
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def surprises(results: Results) -> Iterator[str]:
    """What isn't as the experiments say, be it better or worse."""
    for job, finding in results.items():
        expected = EXPERIMENTS[job.experiment].expected(job.subject, job.backend)
        if finding.outcome not in expected:
            names = " or ".join(sorted(outcome.value for outcome in expected))
            yield f"{job.subject} on {job.backend}: {job.experiment}: {finding}, expected {names}"


def failures(results: Results) -> list[str]:
    """What fastblets may not do."""
    return [
        f"{job.subject} on {job.backend}: {job.experiment}: {finding}"
        for job, finding in results.items()
        if SUBJECTS[job.subject].is_ours and not EXPERIMENTS[job.experiment].is_acceptable(finding.outcome, job.subject)
    ]


def update_documents(results: Results) -> None:
    """Write the tables into their pages, between the marks."""
    for page in PAGES:
        text = page.path.read_text()
        before, _, rest = text.partition(BEGIN)
        _, _, after = rest.partition(END)
        page.path.write_text(f"{before}{BEGIN}\n\n{as_table(results, page)}\n{END}{after}")
