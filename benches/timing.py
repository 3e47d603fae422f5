"""Timing two libraries in turns."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from time import perf_counter
from typing import TypeVar

from benches.jobs import Job, Work
from benches.libraries import Library

_T = TypeVar("_T")

#: In seconds: long enough for the clock, short enough for most samples not to be interrupted by the scheduler.
SAMPLE_TIME = 0.002
MOST_CALLS = 2000


@dataclass(frozen=True)
class Effort:
    """How often to measure: for so many seconds, but at least and at most so many rounds."""

    budget: float
    least: int
    most: int


THOROUGH = Effort(budget=8, least=9, most=301)
QUICK = Effort(budget=1, least=3, most=31)


@dataclass(frozen=True)
class Speed:
    """A job's times in seconds, and how they compare."""

    section: str
    job: str
    at_least: float
    djblets: float
    fastblets: float

    @property
    def ratio(self) -> float:
        """How many times as fast as Djblets fastblets is."""
        return self.djblets / self.fastblets

    @property
    def missed(self) -> bool:
        """Whether the target is missed."""
        return self.ratio < self.at_least


def time_job(job: Job, theirs: Library, ours: Library, effort: Effort) -> Speed:
    """Check a job and time it."""
    work = job.make_work()
    work.check(theirs, ours)
    return Speed(job.section, job.name, job.at_least, *time_both((work, theirs), (work, ours), effort))


def time_both(first: tuple[Work, Library], second: tuple[Work, Library], effort: Effort) -> tuple[float, float]:
    """Time two works, each with its library, in turns. The first says how many calls make a sample."""
    count = _calls_per_sample(*first)
    return in_turns(partial(_sample, *first, count), partial(_sample, *second, count), effort)


def in_turns(first: Callable[[], float], second: Callable[[], float], effort: Effort) -> tuple[float, float]:
    """Measure both again and again, the one that goes first changing from round to round. Returns their medians."""
    rounds: list[tuple[float, float]] = []
    end = perf_counter() + effort.budget

    while len(rounds) < effort.least or (perf_counter() < end and len(rounds) < effort.most):
        if len(rounds) % 2:
            b, a = second(), first()
        else:
            a, b = first(), second()
        rounds.append((a, b))

    return median(a for a, _ in rounds), median(b for _, b in rounds)


def collected(measure: Callable[[], _T]) -> _T:
    """Measure with the same state of the garbage collector every time; it stays on, as in an application."""
    gc.collect()
    return measure()


def _calls_per_sample(work: Work, library: Library) -> int:
    calls = 1
    while calls < MOST_CALLS and (duration := _sample(work, library, calls) * calls) < SAMPLE_TIME:
        calls = min(MOST_CALLS, max(2 * calls, int(calls * SAMPLE_TIME / duration)))
    return calls


def _sample(work: Work, library: Library, count: int) -> float:
    call = work.bind(library)
    arguments = work.prepare(count)
    return collected(partial(_time_calls, call, arguments)) / count


def _time_calls(call: Callable[[object], object], arguments: list[object]) -> float:
    result = None
    start = perf_counter()
    for argument in arguments:
        result = call(argument)
    duration = perf_counter() - start
    # Only now, so that large results don't end while the clock runs.
    del result
    return duration
