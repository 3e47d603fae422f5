"""What seals cost: fastblets beside itself, without them and with them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from benches import data
from benches.jobs import MODES, Hit, Memoize, Miss
from benches.libraries import Library
from benches.timing import Effort, time_both

SECTION = "Seals"
#: Sealed entries may take so much longer.
AT_MOST = 1.15


@dataclass(frozen=True)
class Cost:
    """A job's times in seconds without seals and with them."""

    section: str
    job: str
    at_most: float
    unsealed: float
    sealed: float

    @property
    def ratio(self) -> float:
        """How many times as long it takes with seals."""
        return self.sealed / self.unsealed

    @property
    def missed(self) -> bool:
        """Whether that is too long."""
        return self.ratio > self.at_most


@dataclass(frozen=True)
class SealJob:
    """A job's name, and its work with the seals that it is told."""

    name: str
    kind: type[Memoize]
    value: object
    mode: str
    items: bool

    def make_work(self, *, seal: bool) -> Memoize:
        options = {**MODES[self.mode], "seal": seal}
        if not self.items:
            options["large_data"] = True
        return self.kind(self.value, options, items=self.items)


def all_jobs() -> Iterable[SealJob]:
    """Every job of which the seals' cost is measured."""
    for mode in ("compressed", "compressed+encrypted"):
        for name, value, items in (
            ("8 MB of text", data.source_text(8_000_000), False),
            ("60,000 records", data.record_list(60_000), True),
        ):
            for kind in (Hit, Miss):
                yield SealJob(f"{name}, {mode}, {kind.__name__.lower()}", kind, value, mode, items)


def measure_cost(job: SealJob, ours: Library, effort: Effort) -> Cost:
    """Compare a job without seals with the same job with them."""
    unsealed, sealed = (job.make_work(seal=seal) for seal in (False, True))
    unsealed.check(ours, ours)
    # A hit reads what was stored last, which is sealed. Without seals, nobody looks at them.
    sealed.check(ours, ours)
    times = time_both((unsealed, ours), (sealed, ours), effort)
    return Cost(SECTION, job.name, AT_MOST, *times)


def steps(ours: Library, effort: Effort) -> Iterable[tuple[str, partial[Cost]]]:
    """Each job's title, and what measures it."""
    for job in all_jobs():
        yield f"{SECTION}: {job.name}", partial(measure_cost, job, ours, effort)
