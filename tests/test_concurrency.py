"""Many processes and threads on one key, on real memcached and Redis. Everything in here is bounded in time."""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import cache, caches
from django.core.cache.backends.base import BaseCache
from django.db import connections

from fastblets.cache.backend import cache_memoize, cache_memoize_iter, make_cache_key
from fastblets.protect.locks import CacheLock
from tests.backends import BACKENDS, Backend, Needs, stored_bytes, use_cache
from tests.parity import Parity

pytestmark = pytest.mark.linux("servers, and SIGKILL")

ROOT = Path(__file__).parent.parent
# What a machine that has much else to do may take to start a few processes.
PATIENCE = 60.0
PROCESSES = 3
THREADS = 8
CACHES = [backend for backend in BACKENDS if backend.name in ("pymemcache", "redis")]
#: Small steps, so that nobody waits long.
QUICK = {"retry_secs": 0.01, "timeout_secs": PATIENCE}

NOISE = random.Random(4).randbytes(450_000).hex()

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


@pytest.fixture(params=[pytest.param(backend, id=backend.name) for backend in CACHES])
def shared(request: pytest.FixtureRequest, tmp_path: Path, db: None) -> Iterator[dict[str, Any]]:
    """The settings of a cache in a server, which is Django's default cache here, and empty."""
    backend: Backend = request.param
    if not backend.installed:
        pytest.skip(f"{backend.module} isn't installed")
    needs = Needs(
        directory=tmp_path,
        memcached=lambda: request.getfixturevalue("memcached"),
        redis=lambda: request.getfixturevalue("redis"),
    )
    config = backend.config(needs)
    with use_cache(config):
        cache.set("computations", 0)
        # Threads have no part in the test's database: the site has to be known ahead.
        make_cache_key("key")
        yield config


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
def workers(config: dict[str, Any], code: str, count: int = PROCESSES) -> Iterator[list[Worker]]:
    started = [Worker(config, code, str(number)) for number in range(count)]
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


def test_processes_with_a_lock_compute_once(shared: dict[str, Any]) -> None:
    code = """
options = {"retry_secs": 0.01, "timeout_secs": 60}
for large in (False, True):
    lock = CacheLock(**options)
    say(cache_memoize(f"key {large}", compute, large_data=large, lock=lock), lock.locked())
say(list(cache_memoize_iter("items", lambda: [compute()], lock=CacheLock(**options))))
"""
    with workers(shared, code) as started:
        said = [worker.end() for worker in started]
    assert said == [[["value", False], ["value", False], [["value"]]]] * PROCESSES
    assert cache.get("computations") == 3


def test_processes_without_a_lock_agree(shared: dict[str, Any]) -> None:
    code = """
items = [f"{index} " + "x" * 400_000 for index in range(8)]
found = list(cache_memoize_iter("key", lambda: (item for item in items), compress_large_data=False))
say(found == items)
"""
    with workers(shared, code) as started:
        assert [worker.end() for worker in started] == [[[True]]] * PROCESSES


def memoize_once(number: int, computed: list[int], **options: Any) -> Any:
    def compute() -> str:
        computed.append(number)
        pause()
        return "value"

    return cache_memoize("thread key", compute, lock=CacheLock(**QUICK), **options)


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
def test_threads_with_a_lock_compute_once(shared: dict[str, Any], large: bool) -> None:
    computed: list[int] = []
    assert in_threads(lambda number: memoize_once(number, computed, large_data=large)) == ["value"] * THREADS
    assert len(computed) == 1


@pytest.mark.slow
@pytest.mark.parametrize("encrypted", [False, True], ids=["clear", "encrypted"])
def test_readers_during_overwrites_see_one_generation(shared: dict[str, Any], encrypted: bool) -> None:
    """A compressed generation is whole, or it is a miss: its checksum holds for all of its chunks.

    Uncompressed ones have none. Who reads the count before an overwrite begins and the chunks after it has, may be
    given chunks of both. What is stored leaves no way to tell them apart.
    """
    options: dict[str, Any] = {"compress_large_data": True, "use_encryption": encrypted}
    ended = threading.Event()

    def generation(number: int) -> list[str]:
        return [f"{number} {index} {NOISE}" for index in range(4)]

    def write(number: int) -> None:
        for turn in range(3):
            items = generation(number * 100 + turn)
            assert list(cache_memoize_iter("key", items, force_overwrite=True, **options)) == items

    def read(number: int) -> int:
        hits = 0
        while not ended.is_set():
            found = list(cache_memoize_iter("key", lambda: iter(["missed"]), expiration=60, **options))
            if found != ["missed"]:
                assert len({item.split()[0] for item in found}) == 1
                assert [item.split()[1] for item in found] == [str(index) for index in range(4)]
                hits += 1
        return hits

    def work(number: int) -> int:
        if number > 0:
            return read(number)
        try:
            write(number)
        finally:
            ended.set()
        return 0

    in_threads(work, 3)


@pytest.mark.slow
def test_the_lock_of_a_killed_holder_ends_by_itself(shared: dict[str, Any]) -> None:
    code = """
lock = CacheLock("lock", lock_expiration_secs=2)
lock.acquire()
say("held")
time.sleep(60)
"""
    with workers(shared, code, 1) as (holder,):
        assert holder.hear() == ["held"]
        lock = CacheLock("lock", **QUICK)
        # Without a Site in the worker, its keys have no prefix.
        lock.full_cache_key = "lock"
        assert not lock.acquire(blocking=False)
        os.kill(holder.process.pid, signal.SIGKILL)
        assert lock.acquire()
        lock.release()


@pytest.mark.slow
def test_what_a_killed_process_was_computing_is_computed_by_another(shared: dict[str, Any]) -> None:
    code = """
def compute():
    if sys.argv[2] == "0":
        say("computing")
        time.sleep(60)
    return "value"

if sys.argv[2] == "1":
    while cache.get("go") is None:
        time.sleep(0.01)
say(cache_memoize("key", compute, lock=CacheLock(lock_expiration_secs=2, retry_secs=0.01, timeout_secs=60)))
"""
    with workers(shared, code, 2) as (first, second):
        assert first.hear() == ["computing"]
        cache.set("go", 1)
        os.kill(first.process.pid, signal.SIGKILL)
        assert second.end() == [["value"]]


def test_a_lock_that_ended_while_it_was_held_is_left_to_its_next_owner(shared: dict[str, Any]) -> None:
    first = CacheLock("lock", lock_expiration_secs=1)
    second = CacheLock("lock", lock_expiration_secs=60, **QUICK)
    first.acquire()
    assert second.acquire()
    first.release()
    assert cache.get(second.full_cache_key) == second.token
    second.release()
    assert cache.get(second.full_cache_key) is None


def test_a_stolen_lock_is_left_to_the_thief(shared: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    lock = CacheLock("lock")
    lock.acquire()
    cache.set(lock.full_cache_key, "somebody else's")
    lock.update_expiration()
    assert "no longer valid" in caplog.text
    lock.release()
    assert not lock.locked()
    assert cache.get(lock.full_cache_key) == "somebody else's"


def test_a_lock_is_waited_for_no_longer_than_said(shared: dict[str, Any]) -> None:
    with CacheLock("lock"):
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            CacheLock("lock", retry_secs=0.05).acquire(timeout=0.3)
        assert time.monotonic() - start >= 0.3


def test_a_lock_that_is_not_waited_for_says_so_at_once(shared: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with CacheLock("lock"):
        monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("it waits"))
        assert not CacheLock("lock", blocking=False).acquire()


def test_a_value_arrives_although_its_lock_was_not_to_be_had(shared: dict[str, Any]) -> None:
    with CacheLock("lock"):
        lock = CacheLock("lock", retry_secs=0.01, timeout_secs=0.1)
        assert cache_memoize("key", lambda: "value", lock=lock) == "value"
    assert cache_memoize("key", lambda: "other") == "value"


@pytest.mark.slow
def test_a_long_write_keeps_its_lock(shared: dict[str, Any]) -> None:
    """Each chunk that is stored gives the lock its whole time again."""
    lock = CacheLock(lock_expiration_secs=2)
    held = []

    def items() -> Iterator[str]:
        end = time.monotonic() + 3
        while time.monotonic() < end:
            yield "x" * 1_100_000
            held.append(cache.get(lock.full_cache_key) == lock.token)
            pause()

    list(cache_memoize_iter("key", items, compress_large_data=False, lock=lock))
    assert all(held)
    assert len(held) > 3
    assert cache.get(lock.full_cache_key) is None


def test_only_one_of_many_threads_has_the_lock(shared: dict[str, Any]) -> None:
    inside = 0
    most = 0

    def work(number: int) -> None:
        nonlocal inside, most
        with CacheLock("lock", **QUICK):
            inside += 1
            most = max(most, inside)
            time.sleep(0.01)
            inside -= 1

    in_threads(work)
    assert most == 1


def test_generations_meet_in_the_cache(shared: dict[str, Any]) -> None:
    code = """
from fastblets.cache.synchronizer import GenerationSynchronizer
state = GenerationSynchronizer("state")
say("ready")
while not state.is_expired():
    time.sleep(0.01)
say("expired")
state.refresh()
say(state.is_expired())
"""
    from fastblets.cache.synchronizer import GenerationSynchronizer

    ours = GenerationSynchronizer("state", normalize_cache_key=False)
    with workers(shared, code, 2) as started:
        for worker in started:
            assert worker.hear() == ["ready"]
        ours.mark_updated()
        for worker in started:
            assert worker.end() == [["expired"], [False]]


@pytest.mark.parametrize("seconds", [0, -0.5, -2, float("nan"), float("-inf")])
@pytest.mark.parametrize("name", ["timeout_secs", "retry_secs", "lock_expiration_secs"])
def test_a_lock_refuses_times_that_are_not_positive(name: str, seconds: float) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be (-1 or )?a positive value"):
        CacheLock("lock", **{name: seconds})


@pytest.mark.parametrize("name", ["retry_secs", "lock_expiration_secs"])
def test_only_a_timeout_may_be_without_end(locmem: BaseCache, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be a positive value"):
        CacheLock("lock", **{name: -1})
    with CacheLock("lock", timeout_secs=-1) as lock:
        assert lock.locked()


@pytest.mark.parametrize("key", ["", []])
def test_a_lock_without_a_key_cannot_be_acquired(locmem: BaseCache, key: Any) -> None:
    lock = CacheLock(key)
    for acquire in (lock.acquire, lock.__enter__):
        with pytest.raises(ValueError, match="cache key for the lock must be provided"):
            acquire()
    assert not lock.locked()
    assert stored_bytes(locmem) == {}


@pytest.mark.parametrize(
    "arguments",
    [{"timeout_secs": 0}, {"timeout_secs": -3}, {"retry_secs": 0}, {"key": ""}],
    ids=str,
)
def test_both_refuse_a_lock_with_the_same_words(
    both: Parity, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A lock that Djblets refuses to make fails again when it is collected, in here.
    monkeypatch.setattr("djblets.protect.locks.CacheLock.acquired", False, raising=False)
    trial = both(lambda library: library.locks.CacheLock(**{"key": "lock", **arguments}).acquire())
    assert isinstance(trial.error, ValueError)
    gc.collect()
