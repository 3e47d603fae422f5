"""Many processes and threads on one key, on real memcached and Redis."""

from __future__ import annotations

import os
import random
import signal
import threading
from typing import Any

import pytest
from django.core.cache import cache

from fastblets.cache.backend import cache_memoize, cache_memoize_iter
from fastblets.protect.locks import CacheLock
from tests.workers import PROCESSES, QUICK, THREADS, in_threads, pause, workers

pytestmark = pytest.mark.linux("servers, and SIGKILL")

NOISE = random.Random(4).randbytes(450_000).hex()


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


def test_a_value_arrives_although_its_lock_was_not_to_be_had(shared: dict[str, Any]) -> None:
    with CacheLock("lock"):
        lock = CacheLock("lock", retry_secs=0.01, timeout_secs=0.1)
        assert cache_memoize("key", lambda: "value", lock=lock) == "value"
    assert cache_memoize("key", lambda: "other") == "value"
