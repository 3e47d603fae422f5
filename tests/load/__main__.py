"""Let callers call, and write what they saw into docs/reliability.md: ``python -m tests.load [SECONDS]``.

Each run takes so many seconds, 30 by default. With a number, the page stays as it is.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.load.report import Run, tell_errors, tell_times, write_page
from tests.load.traffic import Phase, Plan, Seen, let_call
from tests.races import make_config

SECONDS = 30
POLICY = {"stale_while_revalidate": 5, "stale_if_error": 30, "retry_after": 2}
#: What the plan has, by what stands in the table.
WAYS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "`lock=CacheLock()`": {"locked": True},
    "policy": {"policy": POLICY},
    "policy, `early=1`": {"policy": {**POLICY, "early": 1}},
}
SERVERS = {"memcached": "memcached", "Redis": "redis"}


def run_all(seconds: float) -> Iterator[Run]:
    """Each way on each server, first while the source works, then with an outage in the middle."""
    third = seconds / 3
    works = [Phase(seconds)]
    fails = [Phase(third), Phase(third, is_down=True), Phase(third)]
    for server, backend in SERVERS.items():
        for way, more in WAYS.items():
            yield Run(server, way, *(_run(backend, phases, more) for phases in (works, fails)))


def _run(backend: str, phases: Sequence[Phase], more: dict[str, Any]) -> Seen:
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        config = make_config(backend, directory, stack.enter_context)
        return let_call(config, Plan(str(directory), phases, **more))


def main(arguments: Sequence[str]) -> None:
    load_before = os.getloadavg()
    runs = []
    for run in run_all(float(arguments[0]) if arguments else SECONDS):
        runs.append(run)
        print(f"{run.server}, {run.way}", flush=True)
    if arguments:
        print(tell_times(runs), tell_errors(runs), sep="\n\n")
    else:
        print(*write_page(runs, load_before).values(), sep="\n\n")


if __name__ == "__main__":
    main(sys.argv[1:])
