"""Run the experiments: ``python -m tests.faults``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec

from tests.backends import BACKENDS
from tests.faults.experiment import ALL
from tests.faults.page import PAGES
from tests.faults.report import Results, as_table, failures, surprises, update_documents
from tests.faults.runner import run_all
from tests.faults.subject import SUBJECTS
from tests.faults.worker import EXPERIMENTS, Job
from tools.servers import missing_servers

NEEDED = {"pymemcache": "memcached", "pylibmc": "memcached", "redis": "redis-server"}


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    backends = [name for name in options.backends.split(",") if _is_there(name)]
    jobs = [
        Job(name, backend, subject)
        for name, experiment in EXPERIMENTS.items()
        if options.only in name and not (options.short and experiment.slow)
        for backend in experiment.backends
        if backend in backends
        for subject in experiment.subjects
        if find_spec(SUBJECTS[subject].library)
    ]
    results = _run(jobs, options.workers)
    for page in PAGES:
        print(as_table(results, page))
    for line in surprises(results):
        print(f"not as expected: {line}")
    if not options.only and not options.short and set(backends) == set(ALL):
        update_documents(results)
    bad = failures(results)
    for line in bad:
        print(f"FAILED: {line}")
    return 1 if bad else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="What fails, and what comes of it.")
    parser.add_argument("--only", default="", metavar="TEXT", help="only experiments with this in their names")
    parser.add_argument("--backends", default=",".join(ALL), metavar="NAMES", help="default: %(default)s")
    parser.add_argument("--short", action="store_true", help="leave out what takes long")
    parser.add_argument("--workers", type=int, default=3, help="how many at a time; default: %(default)s")
    return parser.parse_args(arguments)


def _is_there(name: str) -> bool:
    backend = next((each for each in BACKENDS if each.name == name), None)
    if backend is None or name not in ALL:
        sys.exit(f"no such backend: {name}")
    there = backend.installed and NEEDED.get(name) not in missing_servers()
    if not there:
        print(f"Left out, as it isn't installed: {name}")
    return there


def _run(jobs: list[Job], workers: int) -> Results:
    start = time.monotonic()
    results: Results = {}
    for number, (job, finding) in enumerate(run_all(jobs, workers), 1):
        results[job] = finding
        seconds = time.monotonic() - start
        print(f"[{number}/{len(jobs)} {seconds:4.0f} s] {job.subject:9} {job.backend:10} {job.experiment}: {finding}")
        sys.stdout.flush()
    return results


if __name__ == "__main__":
    sys.exit(main())
