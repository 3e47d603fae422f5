"""The experiments on faults, in memory and on one real server: both libraries do what is said of them."""

from __future__ import annotations

from importlib.util import find_spec
from itertools import product

import pytest

from tests.backends import BACKENDS
from tests.faults.outcome import Finding, Outcome, compare, worst_of
from tests.faults.page import PAGES, RELIABILITY, Page, page_of
from tests.faults.report import BEGIN, END, as_table, failures
from tests.faults.runner import run
from tests.faults.subject import SUBJECTS
from tests.faults.worker import EXPERIMENTS, Job
from tools.servers import missing_servers

pytestmark = pytest.mark.linux("processes that are forked, and limits of their memory and time")

SERVER = "pymemcache"


def _jobs() -> list[object]:
    return [
        pytest.param(
            Job(name, backend, subject),
            id=f"{name}-{backend}-{subject}".replace(" ", "_"),
            marks=() if _is_everyday(Job(name, backend, subject)) else pytest.mark.slow,
        )
        for name, experiment in EXPERIMENTS.items()
        for backend in _backends(experiment.backends)
        for subject in experiment.subjects
        if not experiment.slow and not _is_long(Job(name, backend, subject))
    ]


def _backends(backends: tuple[str, ...]) -> list[str]:
    """In memory where that shows it all, and on the server what needs one."""
    there = [name for name in ("locmem", SERVER) if name in backends]
    return there if len(there) < 2 else there[:1]


def _is_everyday(job: Job) -> bool:
    """Djblets changes with its own releases. Seals repeat it where they make no difference."""
    expected = EXPERIMENTS[job.experiment].expected
    without_seals = expected("fastblets", job.backend)
    return SUBJECTS[job.subject].is_ours and (
        job.subject == "fastblets" or expected(job.subject, job.backend) != without_seals
    )


def _is_long(job: Job) -> bool:
    return Outcome.HANG in EXPERIMENTS[job.experiment].expected(job.subject, job.backend)


@pytest.mark.parametrize("job", _jobs())
def test_it_does_what_is_expected(job: Job) -> None:
    library = SUBJECTS[job.subject].library
    if find_spec(library) is None:
        pytest.skip(f"{library} isn't installed")
    if job.backend == SERVER and "memcached" in missing_servers():
        pytest.skip("memcached isn't installed")
    finding = run(job)
    assert finding.outcome in EXPERIMENTS[job.experiment].expected(job.subject, job.backend), str(finding)


def test_only_what_cannot_be_noticed_may_be_expected_of_us() -> None:
    for experiment in EXPERIMENTS.values():
        for backend, subject in product(experiment.backends, experiment.subjects):
            if SUBJECTS[subject].is_ours:
                for outcome in experiment.expected(subject, backend):
                    assert experiment.is_acceptable(outcome, subject), experiment.name


def test_backends_and_promises_exist() -> None:
    names = {backend.name for backend in BACKENDS}
    for experiment in EXPERIMENTS.values():
        assert names.issuperset(experiment.backends)
        # Djblets has no policies.
        assert set(page_of(experiment.promise).subjects) - set(experiment.subjects) <= {"djblets"}


def test_the_worst_counts() -> None:
    found = worst_of([Outcome.RIGHT, Finding(Outcome.SHORT, "why"), Outcome.REBUILT])
    assert found == Finding(Outcome.SHORT, "1 of 3, why")


@pytest.mark.parametrize(
    ("got", "outcome"),
    [
        ([1, 2], Outcome.RIGHT),
        ([3, 4], Outcome.REBUILT),
        ([1], Outcome.SHORT),
        ([], Outcome.SHORT),
        ([1, 4], Outcome.WRONG),
        ([1, 2, 3], Outcome.WRONG),
    ],
    ids=repr,
)
def test_what_is_read_is_judged(got: list[int], outcome: Outcome) -> None:
    assert compare(got, [1, 2], [3, 4]).outcome is outcome


def test_a_wrong_outcome_of_ours_is_a_failure() -> None:
    results = {Job("a chunk is gone", "locmem", subject): Finding(Outcome.SHORT) for subject in RELIABILITY.subjects}
    assert failures(results) == [f"{subject} on locmem: a chunk is gone: short" for subject in ("fastblets", "sealed")]
    assert "| a chunk is gone | locmem | short | short | short |" in as_table(results, RELIABILITY)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.path.stem)
def test_the_document_has_its_tables(page: Page) -> None:
    text = page.path.read_text()
    table = text[text.index(BEGIN) : text.index(END)]
    experiments = [name for name, experiment in EXPERIMENTS.items() if experiment.promise in page.promises]
    missing = [name for name in experiments if f"| {name} |" not in table]
    assert not missing, f"run `make faults`: {missing}"


def test_what_we_sealed_never_comes_out_wrong() -> None:
    of_reliability = [each for each in EXPERIMENTS.values() if each.promise in RELIABILITY.promises]
    assert not [each.name for each in of_reliability if "sealed" in each.undetectable]
