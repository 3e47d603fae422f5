"""Processes and threads that share a cache. Everything in here is bounded in time."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.core.cache import caches
from django.db import connections

ROOT = Path(__file__).parent.parent
# What a machine that has much else to do may take to start a few processes.
PATIENCE = 60.0
PROCESSES = 3
THREADS = 8
#: Small steps, so that nobody waits long.
QUICK = {"retry_secs": 0.01, "timeout_secs": PATIENCE}

#: What each worker process begins with. It works in this directory's tests' settings, on the cache it is given.
PREAMBLE = """
import json, os, sys, time
import django
from django.conf import settings
from tests import settings as base

config = json.loads(sys.argv[1])
names = ("SECRET_KEY", "USE_TZ", "DATABASES")
settings.configure(**{name: getattr(base, name) for name in names}, CACHES={"default": config})
django.setup()

from django.core.cache import cache
from fastblets.cache.backend import cache_memoize, cache_memoize_iter
from fastblets.protect.locks import CacheLock

def say(*words):
    print(json.dumps(words), flush=True)

def compute():
    # Counted, so that nobody can compute unseen; and slow enough to be met by the others.
    cache.incr("computations")
    time.sleep(0.3)
    return "value"
"""


class Worker:
    """A process that says things in lines of JSON."""

    def __init__(self, config: dict[str, Any], code: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PREAMBLE + code, json.dumps(config), *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def hear(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def end(self) -> list[Any]:
        """All that it said. It has to end by itself, and well."""
        output, errors = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0, errors
        return [json.loads(line) for line in output.splitlines()]

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.communicate(timeout=PATIENCE)


@contextmanager
def workers(
    config: dict[str, Any], code: str, count: int = PROCESSES, *, arguments: Sequence[str] | None = None
) -> Iterator[list[Worker]]:
    """Processes that run some code, each with its number or another argument."""
    started = [Worker(config, code, each) for each in arguments or map(str, range(count))]
    try:
        yield started
    finally:
        for worker in started:
            worker.kill()


def in_threads(work: Callable[[int], Any], count: int = THREADS) -> list[Any]:
    """Run in many threads that start at once, each with a connection to the cache of its own."""
    barrier = threading.Barrier(count)

    def run(number: int) -> Any:
        barrier.wait(PATIENCE)
        try:
            return work(number)
        finally:
            # Django closes neither, but for requests.
            caches.close_all()
            connections.close_all()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count), timeout=PATIENCE))


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


def pause() -> None:
    """Time for others to come along."""
    time.sleep(0.2)
