"""What options of fastblets' own cost: fastblets beside itself, without them and with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from django.core.cache import cache

from benches import data
from benches.jobs import KEY, MODES, Call, Hit, Miss, Work
from benches.libraries import Library
from benches.timing import Effort, time_both
from fastblets.cache.policy import CachePolicy
from fastblets.cache.values import cache_delete, cache_get

#: Sealed entries may take so much longer.
SEALS_AT_MOST = 1.15
TAGS = ["reports", ("user", "17")]
SMALL = {"id": 17, "name": "a small value", "tags": ["a", "b"]}
CHUNKS = 20


@dataclass(frozen=True)
class Cost:
    """A job's times in seconds, without and with what is measured."""

    section: str
    job: str
    #: How many times as long it may take; None for any number.
    at_most: float | None
    without: float
    with_it: float

    @property
    def ratio(self) -> float:
        """How many times as long it takes."""
        return self.with_it / self.without

    @property
    def missed(self) -> bool:
        """Whether that is too long."""
        return self.at_most is not None and self.ratio > self.at_most


@dataclass(frozen=True)
class CostJob:
    """A job's name, and its work without and with what is measured. The second one finds what the first one left."""

    section: str
    name: str
    at_most: float | None
    make_without: Callable[[], Work]
    make_with: Callable[[], Work]
    #: Whether it is worth a run on real cache servers too.
    on_servers: bool = False


class Get(Hit):
    """Reads a small value by hand."""

    def bind(self, library: Library) -> Call:
        return cache_get


class Delete(Work):
    """Deletes an entry of many chunks, all of it or, as Djblets' users do, its count alone."""

    def __init__(self, delete: Callable[[Library, str], object]) -> None:
        self._delete = delete

    def bind(self, library: Library) -> Call:
        return lambda key: self._delete(library, key)

    def prepare(self, count: int) -> list[Any]:
        keys = [f"{KEY}-{number}" for number in range(count)]
        for key in keys:
            self._store(key)
        return keys

    def check(self, theirs: Library, ours: Library) -> None:
        self._store(KEY)
        self._delete(ours, KEY)

    def _store(self, key: str) -> None:
        # Only the keys matter: a chunk by itself costs each backend what it costs.
        full_key = Library("fastblets").backend.make_cache_key
        for number in range(CHUNKS):
            cache.set(full_key(f"{key}-{number}"), [b"a chunk"])
        cache.set(full_key(key), str(CHUNKS))


def all_jobs() -> Iterable[CostJob]:
    """Every job of which the cost is measured."""
    for mode in ("compressed", "compressed+encrypted"):
        for name, value, items in (
            ("8 MB of text", data.source_text(8_000_000), False),
            ("60,000 records", data.record_list(60_000), True),
        ):
            for kind in (Hit, Miss):
                options = {**MODES[mode], **({} if items else {"large_data": True})}
                job = f"{name}, {mode}, {kind.__name__.lower()}"
                works = [partial(kind, value, {**options, "seal": seal}, items=items) for seal in (False, True)]
                yield CostJob("Seals", job, SEALS_AT_MOST, *works)
    plain = partial(Hit, SMALL, {}, items=False)
    yield CostJob(
        "Tags", "two tags, small hit", None, plain, partial(Hit, SMALL, {"tags": TAGS}, items=False), on_servers=True
    )
    encrypted = {"use_encryption": True}
    yield CostJob(
        "Tags",
        "two tags, small encrypted hit",
        None,
        partial(Hit, SMALL, encrypted, items=False),
        partial(Hit, SMALL, {**encrypted, "tags": TAGS}, items=False),
        on_servers=True,
    )
    large: dict[str, Any] = {"large_data": True}
    for fence, suffix in ((True, ""), (False, " without a fence")):
        policy = {"policy": CachePolicy(stale_while_revalidate=60, fence=fence)}
        for name, value, options in (
            ("small hit", SMALL, {}),
            ("small encrypted hit", SMALL, encrypted),
            ("10,000 records, hit", list(data.record_list(10_000)), large),
        ):
            works = [partial(Hit, value, {**options, **more}, items=False) for more in ({}, policy)]
            yield CostJob("Policies", f"a policy{suffix}, {name}", None, *works, on_servers=True)
    yield CostJob(
        "By hand", "`cache_get()`, beside `cache_memoize()`", None, plain, partial(Get, SMALL, {}, items=False), True
    )
    yield CostJob(
        "By hand",
        f"`cache_delete()` of {CHUNKS} chunks, beside deleting the count",
        None,
        partial(Delete, lambda library, key: cache.delete(library.backend.make_cache_key(key))),
        partial(Delete, lambda _, key: cache_delete(key)),
        on_servers=True,
    )


def on_server(job: CostJob, program: str) -> CostJob:
    """Return the same job for a run on a real cache server."""
    return replace(job, section=f"{job.section}, on {program}")


def measure_cost(job: CostJob, ours: Library, effort: Effort) -> Cost:
    """Compare a job without something with the same job with it."""
    without, with_it = job.make_without(), job.make_with()
    without.check(ours, ours)
    # A hit reads what was stored last. Without seals or tags, they are not looked at.
    with_it.check(ours, ours)
    times = time_both((without, ours), (with_it, ours), effort)
    return Cost(job.section, job.name, job.at_most, *times)


def steps(jobs: Iterable[CostJob], ours: Library, effort: Effort) -> Iterable[tuple[str, partial[Cost]]]:
    """Each job's title, and what measures it."""
    for job in jobs:
        yield f"{job.section}: {job.name}", partial(measure_cost, job, ours, effort)
