"""Djblets and fastblets side by side: `make bench`, or `python -m benches.memoize --help`."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from benches import costs, report, threads
from benches.costs import Cost
from benches.jobs import CheckError, Job, all_jobs
from benches.libraries import LIBRARIES, Library, set_up_django, use_cache
from benches.limits import Limit
from benches.memory import JOBS as MEMORY_JOBS
from benches.memory import RECORDS, can_measure, measure_memory
from benches.timing import QUICK, THOROUGH, Speed, time_job
from fastblets import _native
from tests.backends import locmem_config
from tools.servers import Memcached, Redis, Server, missing_servers

Row = Speed | Limit | Cost
#: A title, and what measures.
Step = tuple[str, Callable[[], Row]]

SERVERS: tuple[tuple[type[Server], str], ...] = (
    (Memcached, "django.core.cache.backends.memcached.PyMemcacheCache"),
    (Redis, "django.core.cache.backends.redis.RedisCache"),
)


def main(arguments: Sequence[str]) -> int:
    """Measure, print, write."""
    options = _parse(arguments)

    if _native.DEBUG_BUILD:
        print("This fastblets is a debug build, whose times say nothing. Build it with: make build", file=sys.stderr)
        return 2

    circumstances = report.describe_circumstances(quick=options.quick)
    set_up_django()

    try:
        rows = list(_run(_steps(quick=options.quick), options.only or ""))
    except CheckError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1

    results = report.Results(
        circumstances,
        [row for row in rows if isinstance(row, Speed)],
        [row for row in rows if isinstance(row, Limit)],
        [row for row in rows if isinstance(row, Cost)],
    )
    print("\n\n".join(["", *results.tables().values(), f"{results.missed} targets missed."]))

    # A part of the results would take the place of all of them.
    if options.write and not options.only:
        report.write_page(results)

    return 1 if options.check and results.missed else 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benches.memoize", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds, fewer records: a try")
    parser.add_argument("--only", metavar="PATTERN", help='a regular expression to be found in "section: job"')
    parser.add_argument("--no-write", dest="write", action="store_false", help="leave docs/performance.* as they are")
    parser.add_argument("--check", action="store_true", help="fail if a target is missed")
    return parser.parse_args(arguments)


def _run(steps: Iterator[Step], pattern: str) -> Iterator[Row]:
    for title, measure in steps:
        if not re.search(pattern, title, re.IGNORECASE):
            continue
        print(title, end=" ", flush=True)
        try:
            row = measure()
        except CheckError as error:
            raise CheckError(f"{title}: {error}") from error
        print(report.summarize(row), flush=True)
        yield row


def _steps(*, quick: bool) -> Iterator[Step]:
    """Everything there is to measure. Each step finds the cache that it needs when it is run in its turn."""
    theirs, ours = map(Library, LIBRARIES)
    effort = QUICK if quick else THOROUGH
    time = partial(time_job, theirs=theirs, ours=ours, effort=effort)

    use_cache(locmem_config("benches"))
    yield from _job_steps(all_jobs(), time)
    yield threads.TITLE, partial(threads.measure_threads, theirs, ours, effort)
    yield from costs.steps(costs.all_jobs(), ours, effort)
    yield from _server_steps(time, partial(costs.steps, ours=ours, effort=effort))
    yield from _memory_steps(RECORDS // 10 if quick else RECORDS)


def _job_steps(jobs: Sequence[Job], time: Callable[[Job], Speed]) -> Iterator[Step]:
    for job in jobs:
        yield f"{job.section}: {job.name}", partial(time, job)


def _server_steps(
    time: Callable[[Job], Speed], cost: Callable[[Iterator[costs.CostJob]], Iterable[Step]]
) -> Iterator[Step]:
    for server, backend in SERVERS:
        if server.program in missing_servers():
            print(f"Not measured, since {server.program} isn't installed")
            continue
        with server() as running:
            use_cache({"BACKEND": backend, "LOCATION": _location(running)})
            yield from _job_steps([_on_server(job, server.program) for job in all_jobs() if job.on_servers], time)
            yield from cost(costs.on_server(job, server.program) for job in costs.all_jobs() if job.on_servers)


def _location(server: Server) -> Any:
    return server.url if isinstance(server, Redis) else server.address


def _on_server(job: Job, program: str) -> Job:
    # A server takes its own time, so there is no target but not to be slower.
    return replace(job, section=f"On {program}", name=f"{job.section}: {job.name}", at_least=1)


def _memory_steps(count: int) -> Iterator[Step]:
    if not can_measure() or Memcached.program in missing_servers():
        print("Peak memory is not measured: that needs Linux and memcached")
        return
    for job in MEMORY_JOBS:
        yield f"Peak memory: {' '.join(job)}", partial(measure_memory, job, count)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
