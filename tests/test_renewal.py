"""Locks that are renewed while they are held."""

from __future__ import annotations

import gc
import os
import threading
import time
from typing import Any

import pytest
from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.locmem import LocMemCache

from fastblets.protect import renewal
from fastblets.protect.locks import CacheLock

pytestmark = pytest.mark.django_db


def wait_until(condition: Any, secs: float = 20) -> bool:
    end = time.monotonic() + secs
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return bool(condition())


def expiry(cache: LocMemCache, lock: CacheLock) -> float:
    found: float = vars(cache)["_expire_info"].get(f":1:{lock.full_cache_key}", 0.0)
    return found


def test_it_is_renewed_until_it_is_released(locmem: LocMemCache) -> None:
    lock = CacheLock("key", lock_expiration_secs=0.9, max_lock_secs=60)
    with lock:
        first = expiry(locmem, lock)
        assert wait_until(lambda: expiry(locmem, lock) > first)
        second = expiry(locmem, lock)
        assert wait_until(lambda: expiry(locmem, lock) > second)
    assert locmem.get(lock.full_cache_key) is None
    # One thread is enough for all.
    with CacheLock("a", max_lock_secs=60), CacheLock("b", max_lock_secs=60):
        assert [thread.name for thread in threading.enumerate()].count("fastblets-renewal") == 1


def test_a_lock_that_is_not_renewed(locmem: LocMemCache) -> None:
    with CacheLock("key", lock_expiration_secs=0.3) as lock:
        first = expiry(locmem, lock)
        time.sleep(0.3)
        assert expiry(locmem, lock) in (first, 0)


def test_not_beyond_its_limit(locmem: LocMemCache, caplog: pytest.LogCaptureFixture) -> None:
    with CacheLock("key", lock_expiration_secs=0.3, max_lock_secs=0.6) as lock:
        assert wait_until(lambda: locmem.get(lock.full_cache_key) is None)
    assert caplog.text.count("is not renewed any more") == 1


def test_another_owners_lock_is_left_alone(locmem: LocMemCache) -> None:
    lock = CacheLock("key", lock_expiration_secs=0.6, max_lock_secs=60)
    with lock:
        locmem.set(lock.full_cache_key, "another", 30)
        first = expiry(locmem, lock)
        time.sleep(0.5)
        assert expiry(locmem, lock) == first
    assert locmem.get(lock.full_cache_key) == "another"


def test_a_lock_that_was_dropped_is_not_renewed(locmem: LocMemCache, caplog: pytest.LogCaptureFixture) -> None:
    lock = CacheLock("key", lock_expiration_secs=0.3, max_lock_secs=60)
    key = lock.full_cache_key
    lock.acquire()
    del lock
    gc.collect()
    assert "garbage collected" in caplog.text
    assert wait_until(lambda: locmem.get(key) is None)


def test_an_error_does_not_end_it(
    locmem: LocMemCache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls = []
    real = CacheLock.update_expiration

    def update(self: CacheLock, secs: float | None = None) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise OSError("away")
        real(self, secs)

    monkeypatch.setattr(CacheLock, "update_expiration", update)
    with CacheLock("key", lock_expiration_secs=0.9, max_lock_secs=60):
        assert wait_until(lambda: len(calls) > 2)
    assert caplog.text.count("Error renewing cache lock") == 1


def test_no_thread_can_be_had(
    locmem: BaseCache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(renewal, "_renewer", renewal._Renewer())

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with CacheLock("key", max_lock_secs=60) as lock:
        assert locmem.get(lock.full_cache_key) == lock.token
    assert "can't be renewed" in caplog.text


def test_the_thread_ends(locmem: BaseCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renewal, "_IDLE_SECS", 0.05)
    renewer = renewal._Renewer()
    monkeypatch.setattr(renewal, "_renewer", renewer)
    for _ in range(2):
        # And begins again.
        with CacheLock("key", lock_expiration_secs=0.1, max_lock_secs=60):
            assert renewer._thread is not None
        assert wait_until(lambda: renewer._thread is None)


@pytest.mark.linux("fork")
def test_a_child_renews_its_own_locks(locmem: LocMemCache) -> None:
    with CacheLock("parent", max_lock_secs=60):
        child = os.fork()
        if child == 0:
            lock = CacheLock("child", lock_expiration_secs=0.9, max_lock_secs=60)
            lock.acquire()
            first = expiry(locmem, lock)
            is_renewed = wait_until(lambda: expiry(locmem, lock) > first)
            os._exit(0 if is_renewed else 1)
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.parametrize("secs", [0, 29, -1])
def test_a_limit_that_makes_no_sense(secs: float) -> None:
    with pytest.raises(ValueError, match="max_lock_secs"):
        CacheLock("key", max_lock_secs=secs)
    with pytest.raises(TypeError, match="max_lock_secs"):
        CacheLock("key", max_lock_secs="60")  # type: ignore[arg-type]


@pytest.mark.every_backend
def test_backing_off(cache_backend: BaseCache) -> None:
    lock = CacheLock("key")
    with pytest.raises(RuntimeError):
        lock.back_off(10)
    assert not lock.is_backed_off()
    lock.acquire()
    lock.back_off(10)
    assert not lock.acquired
    assert lock.is_backed_off()
    other = CacheLock("key")
    assert not other.acquire(blocking=False)
    other.end_backoff()
    assert other.acquire(blocking=False)
    # A lock that it has lost is another's to leave a mark in.
    lock._owner_pid = os.getpid()
    lock.back_off(10)
    assert not lock.is_backed_off()
    other.end_backoff()
    assert other.locked()
    other.release()


@pytest.mark.every_backend
def test_handing_over(cache_backend: BaseCache) -> None:
    lock = CacheLock("key")
    with pytest.raises(RuntimeError):
        lock.hand_over()
    lock.acquire()
    lock.hand_over()
    assert not lock.acquired
    assert not CacheLock("key").acquire(blocking=False)
    assert lock.take_over()
    assert lock.acquired
    lock.hand_over()
    cache_backend.delete(lock.full_cache_key)
    assert not lock.take_over()
    assert not lock.acquired
