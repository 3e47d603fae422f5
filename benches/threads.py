"""Two threads that read at the same time: how far one keeps the other waiting."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier
from time import perf_counter

from benches.data import source_text
from benches.jobs import KEY, MODES, Hit
from benches.libraries import Library
from benches.limits import Limit
from benches.timing import Effort, collected, in_turns

SECTION = "Two threads"
JOB = "each reads 8 MB, compressed+encrypted"
TITLE = f"{SECTION}: {JOB}"
#: Two threads may take so much longer than one.
AT_MOST = 1.3
SIZE = 8_000_000


def measure_threads(theirs: Library, ours: Library, effort: Effort) -> Limit:
    """Compare one thread's time with that of two, for both libraries."""
    work = Hit(source_text(SIZE), {"large_data": True, **MODES["compressed+encrypted"]}, items=False)
    work.check(theirs, ours)
    djblets, fastblets = (_slowdown(partial(work.bind(library), KEY), effort) for library in (theirs, ours))
    return Limit(SECTION, JOB, "x one thread's time", AT_MOST, djblets, fastblets)


def _slowdown(call: Callable[[], object], effort: Effort) -> float:
    one, two = in_turns(
        partial(collected, partial(_time, call, 1)),
        partial(collected, partial(_time, call, 2)),
        effort,
    )
    return two / one


def _time(call: Callable[[], object], count: int) -> float:
    start = Barrier(count)

    def run() -> tuple[float, float]:
        # Once in vain: a new thread may have to wait some milliseconds on the processor of the one that started it.
        call()
        start.wait()
        began = perf_counter()
        call()
        return began, perf_counter()

    with ThreadPoolExecutor(count) as pool:
        times = [pool.submit(run) for _ in range(count)]
    began, ended = zip(*(time.result() for time in times), strict=True)
    return max(ended) - min(began)
