"""Processes whose threads call `cache_memoize()`, and what they saw.

All take part in the same phases, one after the other. In each phase the source works or fails. All times are those of
the machine's clock, which all processes share.
"""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from fastblets.cache.backend import cache_memoize
from fastblets.cache.policy import CachePolicy
from fastblets.protect.locks import CacheLock
from tests.workers import Worker, until, workers

#: How long an entry is fresh, in seconds. Memcached and Redis count no parts of a second.
EXPIRATION = 1
CODE = "from tests.load.traffic import Plan, work\nsay(work(Plan.parse(sys.argv[2])))"


class SourceDownError(Exception):
    """The source fails."""


@dataclass(frozen=True)
class Phase:
    """For how many seconds the callers call. They begin together.

    Attributes:
        seconds: How long.
        is_down: Whether the source fails.
        pause: For how many seconds nobody calls before.
    """

    seconds: float
    is_down: bool = False
    pause: float = 0


@dataclass(frozen=True)
class Plan:
    """What is done. Times are in seconds.

    Attributes:
        directory: Where the processes tell each other how far they are.
        phases: The phases.
        locked: Whether the calls have a `CacheLock`.
        policy: The fields of their policy, None without one.
        processes: How many processes there are.
        threads: How many threads each has.
        keys: How many keys there are.
        computing: How long computing takes, or failing.
        thinking: The longest time between two calls of one thread.
        is_thorough: Whether each thread asks for each key in each phase, however long that takes.
        number: Which of the processes this is.
    """

    directory: str
    phases: Sequence[Phase]
    locked: bool = False
    policy: dict[str, Any] | None = None
    processes: int = 4
    threads: int = 8
    keys: int = 20
    computing: float = 0.3
    thinking: float = 0.1
    is_thorough: bool = False
    number: int = 0

    @classmethod
    def parse(cls, text: str) -> Plan:
        """Return the plan of one process."""
        fields = json.loads(text)
        return cls(**{**fields, "phases": [Phase(**phase) for phase in fields["phases"]]})


class Call(NamedTuple):
    """A call: what it got, None if it got an error."""

    phase: int
    key: int
    begin: float
    end: float
    version: str | None

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.end - self.begin


class Attempt(NamedTuple):
    """A computation: what it made, None if it failed."""

    phase: int
    key: int
    begin: float
    end: float
    version: str | None


@dataclass
class Seen:
    """All calls and all computations, in the order in which they began."""

    calls: list[Call]
    attempts: list[Attempt]


class _Process:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._policy = None if plan.policy is None else CachePolicy(**plan.policy)
        self._versions = (f"{plan.number}.{count}" for count in range(10**9))
        self._phase = 0
        self.calls: list[Call] = []
        self.attempts: list[Attempt] = []

    def go_through(self) -> None:
        with ThreadPoolExecutor(self._plan.threads) as pool:
            for number, phase in enumerate(self._plan.phases):
                self._phase = number
                self._meet(f"phase {number}")
                time.sleep(phase.pause)
                for thread in [pool.submit(self._call_for, phase.seconds) for _ in range(self._plan.threads)]:
                    thread.result()

    def _meet(self, where: str) -> None:
        directory = Path(self._plan.directory)
        (directory / f"{where} {self._plan.number}").touch()
        until(lambda: all((directory / f"{where} {each}").exists() for each in range(self._plan.processes)))

    def _call_for(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        keys = random.sample(range(self._plan.keys), self._plan.keys) if self._plan.is_thorough else []
        while keys or time.monotonic() < end:
            self._call(keys.pop() if keys else random.randrange(self._plan.keys))
            time.sleep(random.uniform(0, self._plan.thinking))

    def _call(self, key: int) -> None:
        lock = CacheLock() if self._plan.locked else None
        version = None
        begin = time.time()
        with suppress(SourceDownError):
            version = cache_memoize(
                ["load", str(key)], partial(self._compute, key), expiration=EXPIRATION, lock=lock, policy=self._policy
            )
        self.calls.append(Call(self._phase, key, begin, time.time(), version))

    def _compute(self, key: int) -> str:
        begin = time.time()
        time.sleep(self._plan.computing)
        is_down = self._plan.phases[self._phase].is_down
        version = None if is_down else next(self._versions)
        self.attempts.append(Attempt(self._phase, key, begin, time.time(), version))
        if version is None:
            raise SourceDownError("the source fails")
        return version


def work(plan: Plan) -> tuple[list[Call], list[Attempt]]:
    """What one process does."""
    logging.disable(logging.CRITICAL)
    process = _Process(plan)
    process.go_through()
    return process.calls, process.attempts


def let_call(config: dict[str, Any], plan: Plan) -> Seen:
    """Start the processes, and return what they saw."""
    arguments = [json.dumps({**asdict(plan), "number": number}) for number in range(plan.processes)]
    seen = Seen([], [])
    with workers(config, CODE, arguments=arguments) as started, ThreadPoolExecutor(plan.processes) as pool:
        # All at once: a process whose pipe is full waits, and the others would wait for it.
        for ((calls, attempts),) in (words for (words,) in pool.map(Worker.end, started)):
            seen.calls += [Call(*each) for each in calls]
            seen.attempts += [Attempt(*each) for each in attempts]
    seen.calls.sort(key=lambda call: call.begin)
    seen.attempts.sort(key=lambda attempt: attempt.begin)
    return seen
