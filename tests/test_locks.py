"""What CacheLock promises: one owner, no wait without an end, and no lock that fails in silence."""

from __future__ import annotations

import copy
import gc
import logging
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.core.cache import cache
from django.core.cache.backends.base import BaseCache

from fastblets.cache.backend import cache_memoize, cache_memoize_iter, make_cache_key
from fastblets.protect.locks import CacheLock
from tests.backends import stored_bytes
from tests.parity import Parity
from tests.workers import PATIENCE, QUICK, in_threads, pause, workers

pytestmark = pytest.mark.django_db

#: Whole seconds: memcached and Redis know no others.
SHORT_LIFE = 1


def messages(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[str]:
    return [f"{record.levelname} {record.getMessage()}" for record in caplog.records if record.levelno >= level]


# Clocks.


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)


def test_a_wait_ends_though_the_clock_stands_still(locmem: BaseCache, frozen: None) -> None:
    with CacheLock("lock"), pytest.raises(TimeoutError):
        CacheLock("lock", timeout_secs=0.05, retry_secs=0.01).acquire()


def test_a_wait_ends_though_the_clock_goes_back(locmem: BaseCache, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(range(1_000_000, 0, -1))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(times)))
    with pytest.raises(TimeoutError), CacheLock("lock"):
        CacheLock("lock", timeout_secs=0.05, retry_secs=0.01).acquire()


def test_a_lock_that_nobody_has_is_given_up_though_the_clock_stands_still(
    locmem: BaseCache, frozen: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locmem, "add", lambda *args: False)
    with pytest.raises(TimeoutError):
        CacheLock("lock", lock_expiration_secs=0.05, retry_secs=0.01).acquire()


def test_the_clock_counts_where_it_is_ahead_of_the_sleep(locmem: BaseCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was suspended, say."""
    times = iter(range(0, 1_000_000, 100))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(times)))
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    cache.set(make_cache_key("lock"), "somebody else's")
    with pytest.raises(TimeoutError):
        CacheLock("lock", timeout_secs=150, retry_secs=1).acquire()
    assert len(slept) == 1


def test_freezegun(locmem: BaseCache) -> None:
    freezegun = pytest.importorskip("freezegun", reason="freezegun isn't installed")
    with freezegun.freeze_time("2026-01-01"), CacheLock("lock"):
        lock = CacheLock("lock", timeout_secs=0.05, retry_secs=0.01)
        with pytest.raises(TimeoutError):
            lock.acquire()
        assert cache_memoize("key", lambda: "value", lock=lock) == "value"
        # Not held for longer than it was made for, either.
        assert cache_memoize("other", lambda: "value", lock=CacheLock()) == "value"


# Threads.


def only(items: Iterator[Any]) -> Any:
    (item,) = items
    return item


CALLS: dict[str, Callable[..., Any]] = {
    "small": lambda compute, **options: cache_memoize("key", compute, **options),
    "large": lambda compute, **options: cache_memoize("key", compute, large_data=True, **options),
    "iterable": lambda compute, **options: only(cache_memoize_iter("key", lambda: [compute()], **options)),
}
calls = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@calls
def test_one_lock_for_many_threads_is_an_error(
    locmem: BaseCache, call: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    shared = CacheLock(retry_secs=0.01)
    computed = threading.Barrier(5)

    def compute() -> str:
        # The one that has the lock is not done before the others have found that out.
        computed.wait(PATIENCE)
        return "value"

    make_cache_key("key")
    assert in_threads(lambda _: call(compute, lock=shared), 5) == ["value"] * 5
    found = messages(caplog)
    assert len(found) == 4
    for message in found:
        assert message.startswith("ERROR Error acquiring cache lock")
        assert "make one for each call" in message
        assert "by another thread" in message
    # The one that had it has released it.
    assert not shared.locked()
    assert cache.get(shared.full_cache_key) is None


@calls
def test_one_lock_for_two_threads_that_wait(
    locmem: BaseCache, call: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """The second one leaves the first one's wait, token and lock alone."""
    shared = CacheLock("lock", retry_secs=0.01)
    with ThreadPoolExecutor(1) as pool:
        with CacheLock("lock"):
            waiting = pool.submit(call, lambda: "first", lock=shared)
            while shared._sleeper is None:
                time.sleep(0.001)
            token = shared.token
            assert cache_memoize("other", lambda: "second", lock=shared) == "second"
            assert shared.token == token
        assert waiting.result(PATIENCE) == "first"
    assert [message for message in messages(caplog) if "is being acquired by another thread" in message]
    assert len(messages(caplog)) == 1
    assert cache.get(shared.full_cache_key) is None


def test_who_shares_a_lock_is_told(locmem: BaseCache) -> None:
    lock = CacheLock("lock")
    with lock, ThreadPoolExecutor(1) as pool:
        with pytest.raises(RuntimeError, match="not reentrant"):
            lock.acquire()
        with pytest.raises(
            RuntimeError, match=r'"example.com:lock" is held by another thread\. .* make one for each call'
        ):
            pool.submit(lock.acquire).result(PATIENCE)
        assert lock.locked()
    # One after the other they may.
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lock.acquire).result(PATIENCE)
    lock.release()
    assert lock.acquire()
    lock.release()


def test_a_lock_can_be_had_after_all_that_went_wrong(locmem: BaseCache, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = CacheLock("lock", retry_secs=0.01)
    with CacheLock("lock"):
        assert not lock.acquire(blocking=False)
        with pytest.raises(TimeoutError):
            lock.acquire(timeout=0.01)
        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(time, "sleep", lambda secs: (_ for _ in ()).throw(KeyboardInterrupt()))
            lock.acquire()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lock.acquire).result(PATIENCE)
    lock.release()


def test_a_stream_may_go_on_in_another_thread(locmem: BaseCache, caplog: pytest.LogCaptureFixture) -> None:
    lock = CacheLock()
    items = ["x" * 1_100_000] * 4
    generator = cache_memoize_iter("key", lambda: iter(items), lock=lock, compress_large_data=False)
    got = [next(generator)]
    for _ in items[1:]:
        with ThreadPoolExecutor(1) as pool:
            got.append(pool.submit(next, generator).result(PATIENCE))
    assert lock.locked()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(next, generator, None).result(PATIENCE) is None
    assert got == items
    assert messages(caplog) == []
    assert not lock.locked()
    assert cache.get(lock.full_cache_key) is None
    assert list(cache_memoize_iter("key", [], compress_large_data=False)) == items


def test_a_call_without_the_lock_leaves_it_to_another_call(locmem: BaseCache) -> None:
    """What was not acquired is not released, nor extended, though by then the same object holds it for another call."""
    lock = CacheLock("lock", blocking=False)
    with CacheLock("lock"):
        generator = cache_memoize_iter("key", iter(["x" * 1_100_000] * 2), lock=lock, compress_large_data=False)
        next(generator)
    assert lock.acquire()
    lock._lock_expires_time = ends = time.monotonic() + 1000
    assert len(list(generator)) == 1
    assert lock.locked()
    assert lock._lock_expires_time == ends
    lock.release()


def test_a_lock_may_be_copied_and_pickled(locmem: BaseCache) -> None:
    for again in (copy.deepcopy, lambda lock: pickle.loads(pickle.dumps(lock))):
        lock: CacheLock = again(CacheLock("lock"))
        with lock:
            assert lock.locked()


# Locks that end early.


@calls
def test_a_lock_that_ends_before_the_computation_does(
    cache_backend: BaseCache, call: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    def compute() -> str:
        time.sleep(SHORT_LIFE + 0.3)
        return "value"

    assert call(compute, lock=CacheLock("lock", lock_expiration_secs=SHORT_LIFE)) == "value"
    found = [message for message in messages(caplog) if "its owner did" in message]
    assert len(found) == 1
    assert found[0].startswith('WARNING Cache lock "example.com:lock"')
    # Both times, and what to do.
    assert "held for 1." in found[0]
    assert "made for 1.0" in found[0]
    assert "lock_expiration_secs" in found[0]


@pytest.mark.parametrize("error", [None, ValueError("the block's own")], ids=repr)
def test_a_lock_that_ends_within_its_block(
    locmem: BaseCache, caplog: pytest.LogCaptureFixture, error: Exception | None
) -> None:
    def hold() -> None:
        with CacheLock("lock", lock_expiration_secs=0.01):
            time.sleep(0.05)
            if error is not None:
                raise error

    if error is None:
        hold()
    else:
        with pytest.raises(ValueError, match="the block's own"):
            hold()
    assert len(messages(caplog)) == 1
    assert "before its owner did" in caplog.text


@pytest.mark.parametrize("thief", [None, "somebody else's"])
def test_a_lock_that_was_thrown_away_or_stolen(
    locmem: BaseCache, caplog: pytest.LogCaptureFixture, thief: str | None
) -> None:
    def lose() -> str:
        cache.delete(lock.full_cache_key)
        if thief is not None:
            cache.set(lock.full_cache_key, thief)
        return "value"

    lock = CacheLock("lock")
    assert cache_memoize("key", lose, lock=lock) == "value"
    cache.delete(lock.full_cache_key)
    with lock:
        lose()
    assert ["held for 0.0 seconds, and made for 30.0" in message for message in messages(caplog)] == [True, True]
    assert cache.get(lock.full_cache_key) == thief


def test_a_lock_that_was_extended_has_not_ended(locmem: BaseCache, caplog: pytest.LogCaptureFixture) -> None:
    with CacheLock("lock", lock_expiration_secs=0.2) as lock:
        for _ in range(4):
            time.sleep(0.1)
            lock.update_expiration()
    assert messages(caplog) == []


def test_release_itself_says_what_it_says_in_djblets(locmem: BaseCache, caplog: pytest.LogCaptureFixture) -> None:
    lock = CacheLock("lock", lock_expiration_secs=0.01)
    lock.acquire()
    time.sleep(0.05)
    lock.release()
    assert messages(caplog) == []


def test_a_lock_that_ends_in_time_says_nothing(cache_backend: BaseCache, caplog: pytest.LogCaptureFixture) -> None:
    with CacheLock("lock"):
        pass
    for call in CALLS.values():
        cache.clear()
        assert call(lambda: "value", lock=CacheLock()) == "value"
    assert messages(caplog) == []


def test_a_lock_that_could_not_be_had_is_not_said_to_have_ended(
    locmem: BaseCache, caplog: pytest.LogCaptureFixture
) -> None:
    with CacheLock("lock"):
        assert cache_memoize("key", lambda: 1, lock=CacheLock("lock", blocking=False)) == 1
        list(cache_memoize_iter("items", iter([1]), lock=CacheLock("lock", timeout_secs=0.01, retry_secs=0.01)))
    assert [message for message in messages(caplog) if "its owner did" in message] == []


@pytest.fixture(autouse=True)
def no_lock_is_forgotten(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert "garbage collected" not in caplog.text


# Arguments.


@pytest.mark.parametrize("name", ["lock_expiration_secs", "retry_secs", "timeout_secs"])
@pytest.mark.parametrize("value", [None, "30", timedelta(seconds=30)])
def test_what_is_no_time_is_a_type_error(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=rf"^{name} must be a number of seconds, not of type {type(value).__name__}"):
        CacheLock("key", **{name: value})


def test_numbers_of_other_types_are_numbers() -> None:
    assert CacheLock("key", lock_expiration_secs=Decimal(30)).lock_expiration_secs == 30


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


def test_each_time_is_checked_by_itself() -> None:
    """None of the three lets another one pass."""
    for name in ("timeout_secs", "retry_secs", "lock_expiration_secs"):
        assert getattr(CacheLock("lock", **{name: 1.5}), name) == 1.5


def test_a_lock_that_is_not_held_is_neither_extended_nor_released(locmem: BaseCache) -> None:
    lock = CacheLock("lock")
    with pytest.raises(AssertionError, match=r"^Cannot extend a lock that has not been acquired\.$"):
        lock.update_expiration()
    with pytest.raises(RuntimeError, match=r"^Cannot release a lock that was not acquired\.$"):
        lock.release()
    assert stored_bytes(locmem) == {}


def test_a_lock_is_not_acquired_twice(locmem: BaseCache) -> None:
    with CacheLock("lock") as lock:
        for blocking in (False, True):
            with pytest.raises(RuntimeError, match=r"^acquire\(\) is not reentrant for CacheLock instance"):
                lock.acquire(blocking=blocking)
        assert lock.locked()
    assert not lock.locked()


# On real servers, with many processes and threads.

on_servers = pytest.mark.linux("servers, and SIGKILL")


@on_servers
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


@on_servers
def test_a_lock_that_ended_while_it_was_held_is_left_to_its_next_owner(shared: dict[str, Any]) -> None:
    first = CacheLock("lock", lock_expiration_secs=1)
    second = CacheLock("lock", lock_expiration_secs=60, **QUICK)
    first.acquire()
    assert second.acquire()
    first.release()
    assert cache.get(second.full_cache_key) == second.token
    second.release()
    assert cache.get(second.full_cache_key) is None


@on_servers
def test_a_stolen_lock_is_left_to_the_thief(shared: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    lock = CacheLock("lock")
    lock.acquire()
    cache.set(lock.full_cache_key, "somebody else's")
    lock.update_expiration()
    assert "no longer valid" in caplog.text
    lock.release()
    assert not lock.locked()
    assert cache.get(lock.full_cache_key) == "somebody else's"


@on_servers
def test_a_lock_is_waited_for_no_longer_than_said(shared: dict[str, Any]) -> None:
    with CacheLock("lock"):
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            CacheLock("lock", retry_secs=0.05).acquire(timeout=0.3)
        assert time.monotonic() - start >= 0.3


@on_servers
def test_a_lock_that_is_not_waited_for_says_so_at_once(shared: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with CacheLock("lock"):
        monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("it waits"))
        assert not CacheLock("lock", blocking=False).acquire()


@on_servers
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


@on_servers
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
