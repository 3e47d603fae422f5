"""Calls with a policy: what is served in each state of an entry, and who computes."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.db import DatabaseCache
from django.core.cache.backends.locmem import LocMemCache
from django.db import connections, transaction
from django.test import override_settings

from fastblets.cache import batch, freshness, sharing, stamped
from fastblets.cache.backend import CACHE_CHUNK_SIZE, cache_memoize, cache_memoize_iter, make_cache_key
from fastblets.cache.policy import CachePolicy
from fastblets.cache.tags import invalidate_tags
from fastblets.cache.values import (
    cache_add,
    cache_delete,
    cache_exists,
    cache_expire,
    cache_get,
    cache_get_many,
    cache_set,
    cache_set_many,
)
from fastblets.protect.locks import CacheLock
from fastblets.signals import cache_event
from tests.backends import stored_bytes, use_cache
from tests.faults import replaced
from tests.test_values import BIG, FORMS, NEW, OLD, SECRET, address, counted
from tests.vectors.cases import noise

pytestmark = pytest.mark.django_db

ITEMS: dict[str, Any] = {"items": True}
ALL_FORMS: dict[str, dict[str, Any]] = {
    **FORMS,
    "items": ITEMS,
    "items encrypted": {**ITEMS, **SECRET},
    "items sealed": {**ITEMS, "seal": "require"},
}
all_forms = pytest.mark.parametrize("form", ALL_FORMS.values(), ids=ALL_FORMS)
FEW_FORMS = {name: ALL_FORMS[name] for name in ("small", "encrypted", "large", "items")}
few_forms = pytest.mark.parametrize("form", FEW_FORMS.values(), ids=FEW_FORMS)

LIFE = 100
POLICY = CachePolicy(stale_while_revalidate=1000, stale_if_error=5000)


class SourceError(Exception):
    """A source is down."""


class Clock:
    """The time that decides what is fresh. What the caches count by is left alone."""

    def __init__(self) -> None:
        self.offset = 0.0

    def __call__(self) -> int:
        return int((time.time() + self.offset) * 1000)

    def advance(self, secs: float) -> None:
        self.offset += secs


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (stamped, batch, freshness):
        monkeypatch.setattr(module, "get_milliseconds", clock)
    return clock


class Source:
    """A producer that gives another number each time."""

    def __init__(self, form: dict[str, Any] | None = None, *, during: Callable[[], object] = lambda: None) -> None:
        self.form = form or {}
        self.during = during
        self.calls = 0
        self.fails = False

    def __call__(self) -> Any:
        self.calls += 1
        number = self.calls
        if self.form.get("items"):
            return self.produce(number)
        self.run()
        return [number, BIG] if self.form.get("large_data") else [number]

    def produce(self, number: int) -> Iterator[Any]:
        self.run()
        yield number
        yield BIG

    def run(self) -> None:
        self.during()
        if self.fails:
            raise SourceError


def ask(source: Any, form: dict[str, Any], key: Any = "key", **options: Any) -> int:
    """The number that is served."""
    options = {"policy": POLICY, "expiration": LIFE, **form, **options}
    if options.pop("items", False):
        items = list(cache_memoize_iter(key, source, **options))
        assert items[1] == BIG
        number: int = items[0]
    else:
        number = cache_memoize(key, source, **options)[0]
    return number


def never() -> Any:
    pytest.fail("computed")


def lock_key(form: dict[str, Any]) -> str:
    return make_cache_key("_lock_:key", **address(form))


def need_threads() -> None:
    if isinstance(caches["default"], DatabaseCache):
        pytest.skip("threads have no part in the test's database")


@contextmanager
def in_thread(function: Callable[[], Any]) -> Iterator[Future[Any]]:
    """Run a function in another thread, and wait for it in the end."""
    need_threads()

    def run() -> Any:
        try:
            return function()
        finally:
            caches.close_all()
            connections.close_all()

    with ThreadPoolExecutor(1) as executor:
        yield executor.submit(run)


class Gate:
    """Something that a producer waits in until it may go on."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self) -> None:
        self.entered.set()
        assert self.opened.wait(30)


# What is served


@pytest.mark.every_backend
@all_forms
def test_a_life(form: dict[str, Any], cache_backend: BaseCache, clock: Clock) -> None:
    source = Source(form)
    assert [ask(source, form) for _ in range(3)] == [1, 1, 1]
    clock.advance(LIFE / 2)
    assert ask(source, form) == 1
    # Stale: this caller computes it.
    clock.advance(LIFE / 2 + 1)
    assert [ask(source, form) for _ in range(2)] == [2, 2]
    # Over.
    clock.advance(LIFE + 5000)
    assert [ask(source, form) for _ in range(2)] == [3, 3]
    # The lock is free again.
    assert cache_backend.get(lock_key(form)) is None


@all_forms
def test_others_get_the_old_value_meanwhile(form: dict[str, Any], cache_backend: BaseCache, clock: Clock) -> None:
    gate = Gate()
    source = Source(form)
    ask(source, form)
    clock.advance(LIFE + 900)
    source.during = gate
    with in_thread(lambda: ask(source, form)) as winner:
        assert gate.entered.wait(30)
        assert [ask(never, form) for _ in range(3)] == [1, 1, 1]
        gate.opened.set()
        assert winner.result(30) == 2
    assert ask(never, form) == 2


@pytest.mark.every_backend
@all_forms
def test_computing_fails(
    form: dict[str, Any], cache_backend: BaseCache, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    source = Source(form)
    ask(source, form)
    source.fails = True
    for secs, is_served in ((LIFE + 1, True), (998, True), (2, True), (3900, True), (200, False)):
        clock.advance(secs)
        cache_backend.delete(lock_key(form))
        caplog.clear()
        if is_served:
            assert ask(source, form) == 1
            (record,) = caplog.records
            assert record.levelname == "WARNING"
            assert "expired" in record.message and make_cache_key("key", **address(form)) in record.message
            assert record.exc_info
            # Nobody tries again, and nobody waits.
            calls = source.calls
            assert [ask(source, form) for _ in range(3)] == [1, 1, 1]
            assert source.calls == calls
            assert cache_backend.get(lock_key(form)).startswith("!")
        else:
            with pytest.raises(SourceError):
                ask(source, form)
            assert caplog.records == []
    source.fails = False
    cache_backend.delete(lock_key(form))
    assert ask(source, form) == source.calls


@few_forms
def test_an_error_without_a_window_for_errors(form: dict[str, Any], locmem: BaseCache, clock: Clock) -> None:
    policy = CachePolicy(stale_while_revalidate=1000)
    source = Source(form)
    ask(source, form, policy=policy)
    source.fails = True
    clock.advance(LIFE + 1)
    with pytest.raises(SourceError):
        ask(source, form, policy=policy)
    # Others get the old value, and don't try at once.
    assert ask(never, form, policy=policy) == 1
    clock.advance(1000)
    with pytest.raises(SourceError):
        ask(source, form, policy=policy)


@few_forms
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_is_no_failure_goes_through(
    form: dict[str, Any], error: type[BaseException], locmem: BaseCache, clock: Clock
) -> None:
    source = Source(form)
    ask(source, form)
    clock.advance(LIFE + 1)

    def interrupt() -> None:
        raise error

    source.during = interrupt
    with pytest.raises(error):
        ask(source, form)
    source.during = lambda: None
    # There is no backoff.
    assert ask(source, form) == 3


@few_forms
def test_a_miss_fails(form: dict[str, Any], locmem: BaseCache) -> None:
    source = Source(form)
    source.fails = True
    for _ in range(2):
        with pytest.raises(SourceError):
            ask(source, form)
    assert source.calls == 2
    assert stored_bytes(locmem).keys() == set()


@few_forms
def test_a_backoff_does_not_keep_a_miss_out(form: dict[str, Any], cache_backend: BaseCache, clock: Clock) -> None:
    source = Source(form)
    ask(source, form)
    clock.advance(LIFE + 1)
    source.fails = True
    ask(source, form)
    cache_delete("key", **address(form))
    source.fails = False
    start = time.monotonic()
    assert ask(source, form) == 3
    # Not the ten seconds of the mark.
    assert time.monotonic() - start < 9
    assert cache_backend.get(lock_key(form)) is None


@few_forms
def test_the_time_of_a_task_is_over(form: dict[str, Any], locmem: BaseCache, clock: Clock) -> None:
    soft = type("SoftTimeLimitExceeded", (Exception,), {"__module__": "billiard.exceptions"})
    source = Source(form)
    ask(source, form)
    clock.advance(LIFE + 1)

    def interrupt() -> None:
        raise soft

    source.during = interrupt
    with pytest.raises(soft):
        ask(source, form)


@few_forms
def test_overwriting(form: dict[str, Any], locmem: BaseCache, clock: Clock) -> None:
    source = Source(form)
    ask(source, form)
    assert ask(source, form, force_overwrite=True) == 2
    clock.advance(LIFE + 1)
    source.fails = True
    with pytest.raises(SourceError):
        ask(source, form, force_overwrite=True)
    # Under no lock.
    source.fails = False
    locmem.set(lock_key(form), "another")
    assert ask(source, form, force_overwrite=True) == 4
    assert ask(never, form) == 4


@all_forms
def test_no_expiration(form: dict[str, Any], locmem: BaseCache, clock: Clock) -> None:
    ask(Source(form), form, expiration=None)
    clock.advance(1e9)
    assert ask(never, form, expiration=None) == 1


@few_forms
@pytest.mark.parametrize("expiration", [0, timedelta(), lambda _: 0])
def test_nothing_is_kept(form: dict[str, Any], expiration: Any, locmem: BaseCache) -> None:
    source = Source(form)
    assert [ask(source, form, expiration=expiration) for _ in range(2)] == [1, 2]


@few_forms
def test_a_function_as_expiration(form: dict[str, Any], locmem: BaseCache, clock: Clock) -> None:
    source = Source(form)
    assert ask(source, form, expiration=lambda _: timedelta(seconds=70)) == 1
    clock.advance(30)
    assert ask(never, form, expiration=lambda _: 70) == 1
    clock.advance(41)
    assert ask(source, form, expiration=lambda _: 70) == 2


@all_forms
def test_an_entry_of_djblets(form: dict[str, Any], cache_backend: BaseCache, clock: Clock) -> None:
    source = Source(form)
    ask(source, form, policy=None)
    clock.advance(1e6)
    # It is fresh for as long as it is there.
    assert ask(never, form) == 1


@all_forms
def test_djblets_reads_it(form: dict[str, Any], cache_backend: BaseCache, clock: Clock) -> None:
    backend = pytest.importorskip("djblets.cache.backend")
    ask(Source(form), form)
    clock.advance(LIFE + 1)
    options = {name: value for name, value in form.items() if name not in ("items", "seal")}
    if form.get("items"):
        assert next(iter(backend.cache_memoize_iter("key", never, **options))) == 1
    else:
        assert backend.cache_memoize("key", never, **options)[0] == 1


@all_forms
def test_without_a_policy_it_is_fresh(form: dict[str, Any], locmem: BaseCache, clock: Clock) -> None:
    ask(Source(form), form)
    clock.advance(LIFE + 1)
    assert ask(never, form, policy=None) == 1


@few_forms
def test_what_is_stored_without_a_policy(form: dict[str, Any], locmem: BaseCache) -> None:
    ask(Source(form), form, policy=None)
    assert not any("_state_" in key or "_fence_" in key or "_lock_" in key for key in stored_bytes(locmem))


@few_forms
def test_an_unreadable_entry_is_not_served(form: dict[str, Any], locmem: BaseCache, clock: Clock) -> None:
    source = Source(form)
    ask(source, form)
    clock.advance(LIFE + 1)
    for key in stored_bytes(locmem):
        if "_" not in key.removeprefix(":1:") and form:
            locmem.set(key.removeprefix(":1:"), b"damaged")
    source.fails = True
    if not form:
        # A small plain value is what the cache returns.
        return
    with pytest.raises(SourceError):
        ask(source, form)


@few_forms
def test_the_physical_life(form: dict[str, Any], locmem: LocMemCache) -> None:
    before = time.time()
    ask(Source(form), form, expiration=60, policy=CachePolicy(stale_while_revalidate=5, stale_if_error=30))
    expire = {key: value for key, value in vars(locmem)["_expire_info"].items() if "_lock_" not in key}
    assert expire
    for key, end in expire.items():
        # A record that lies beside its value lives a little longer.
        extra = 60 if "_state_" in key else 0
        assert 90 <= end - extra - before < 100, key


@few_forms
def test_jitter(form: dict[str, Any], locmem: BaseCache, clock: Clock) -> None:
    policy = CachePolicy(jitter=0.5)
    for number in range(20):
        ask(Source(form), form, key=f"key {number}", policy=policy)
    # They are fresh for long enough, and expire at different times.
    clock.offset = 30
    assert [ask(never, form, key=f"key {n}", policy=policy) for n in range(20)] == [1] * 20
    clock.offset = 75
    fresh = 0
    for number in range(20):
        source = Source(form)
        ask(source, form, key=f"key {number}", policy=policy)
        fresh += source.calls == 0
    assert 0 < fresh < 20


# Computing early


@few_forms
def test_early(form: dict[str, Any], locmem: BaseCache, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = CachePolicy(early=1, stale_if_error=5000)
    drawn = [0.5]
    monkeypatch.setattr(freshness.random, "random", lambda: drawn[0])
    # Computing took 1,000 seconds, and -ln(1 - 0.5) is 0.69.
    life = 10_000
    real = time.monotonic
    source = Source(form, during=lambda: monkeypatch.setattr(time, "monotonic", lambda: real() + 1000))
    ask(source, form, policy=policy, expiration=life)
    monkeypatch.setattr(time, "monotonic", real)
    source.during = lambda: None
    clock.advance(life - 800)
    assert ask(never, form, policy=policy) == 1
    clock.advance(200)
    # Another caller computes it already.
    locmem.set(lock_key(form), "another")
    assert ask(never, form, policy=policy) == 1
    locmem.delete(lock_key(form))
    assert ask(source, form, policy=policy) == 2
    assert ask(never, form, policy=policy) == 2


@few_forms
def test_early_but_not_in_the_first_half(
    form: dict[str, Any], locmem: BaseCache, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = CachePolicy(early=1e9)
    monkeypatch.setattr(freshness.random, "random", lambda: 1 - 2**-53)
    source = Source(form, during=lambda: time.sleep(0.01))
    ask(source, form, policy=policy)
    clock.advance(LIFE / 4)
    assert ask(never, form, policy=policy) == 1
    clock.advance(LIFE / 4 + 1)
    assert ask(source, form, policy=policy) == 2


@few_forms
def test_early_fails(form: dict[str, Any], locmem: BaseCache, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    policy = CachePolicy(early=1e9)
    source = Source(form, during=lambda: time.sleep(0.01))
    ask(source, form, policy=policy)
    clock.advance(LIFE - 1)
    source.fails = True
    # The value is still fresh, so that there is no need for a window.
    assert [ask(source, form, policy=policy) for _ in range(3)] == [1, 1, 1]
    assert source.calls == 2
    assert "has not expired yet" in caplog.text


# Deleting and invalidating


@all_forms
def test_deleted_is_not_stale(form: dict[str, Any], cache_backend: BaseCache, clock: Clock) -> None:
    source = Source(form)
    ask(source, form)
    clock.advance(LIFE + 1)
    cache_delete("key", **address(form))
    source.fails = True
    with pytest.raises(SourceError):
        ask(source, form)


@all_forms
def test_a_deletion_while_it_is_computed(form: dict[str, Any], cache_backend: BaseCache) -> None:
    source = Source(form, during=lambda: cache_delete("key", **address(form)))
    assert ask(source, form) == 1
    source.during = lambda: None
    assert [ask(source, form) for _ in range(2)] == [2, 2]


@few_forms
def test_without_a_fence(form: dict[str, Any], cache_backend: BaseCache, clock: Clock) -> None:
    policy = CachePolicy(fence=False, stale_while_revalidate=1000)
    source = Source(form, during=lambda: cache_delete("key", **address(form)))
    assert ask(source, form, policy=policy) == 1
    source.during = lambda: None
    # As without a policy.
    assert ask(source, form, policy=policy) == 1
    clock.advance(LIFE + 1)
    assert ask(source, form, policy=policy) == 2


@few_forms
def test_tags_and_a_policy(form: dict[str, Any], cache_backend: BaseCache, clock: Clock) -> None:
    source = Source(form)
    for number in (1, 2):
        assert [ask(source, form, tags=["tag"]) for _ in range(2)] == [number] * 2
        invalidate_tags("tag")
    clock.advance(LIFE + 1)
    source.fails = True
    with pytest.raises(SourceError):
        ask(source, form, tags=["tag"])


def test_an_old_value_without_its_record(locmem: BaseCache) -> None:
    """A writer stores the value first. Until its record is there, nobody knows whether it was deleted meanwhile."""
    ask(Source(), {})
    cache_delete("key")
    locmem.set(make_cache_key("key"), [17])
    assert ask(Source(), {}) == 1


# Waiting


@few_forms
def test_one_computation_in_a_process(form: dict[str, Any], cache_backend: BaseCache) -> None:
    need_threads()
    make_cache_key("key")
    gate = Gate()
    source = Source(form, during=gate)
    with ThreadPoolExecutor(8) as executor:
        answers = [executor.submit(ask, source, form) for _ in range(8)]
        assert gate.entered.wait(30)
        time.sleep(0.1)
        gate.opened.set()
        assert [answer.result(30) for answer in answers] == [1] * 8
    assert source.calls == 1


@few_forms
@pytest.mark.parametrize("share", [True, False])
def test_a_leader_that_fails(form: dict[str, Any], share: bool, locmem: BaseCache) -> None:
    policy = CachePolicy(share=share)
    gate = Gate()
    source = Source(form, during=gate)
    source.fails = True
    with ThreadPoolExecutor(4) as executor:
        first = executor.submit(ask, source, form, policy=policy)
        assert gate.entered.wait(30)
        others = [executor.submit(ask, source, form, policy=policy) for _ in range(3)]
        time.sleep(0.1)
        source.fails = False

        def fail() -> None:
            pass

        source.during = fail
        gate.opened.set()
        # The first one has been let in already, and doesn't fail any more.
        answers = [first, *others]
        assert {answer.result(30) for answer in answers} == {1}


def test_what_is_not_stored_is_not_computed_one_by_one(locmem: BaseCache) -> None:
    barrier = threading.Barrier(3)
    gate = Gate()
    source = Source(during=gate)
    with ThreadPoolExecutor(4) as executor:
        first = executor.submit(ask, source, {}, expiration=lambda _: 0)
        assert gate.entered.wait(30)
        others = [
            executor.submit(ask, Source(during=lambda: barrier.wait(30)), {}, expiration=lambda _: 0) for _ in range(3)
        ]
        time.sleep(0.1)
        gate.opened.set()
        assert [answer.result(30) for answer in (first, *others)] == [1] * 4


@few_forms
def test_a_wait_has_an_end(form: dict[str, Any], cache_backend: BaseCache, caplog: pytest.LogCaptureFixture) -> None:
    cache_backend.set(lock_key(form), "another process")
    assert ask(Source(form), form, policy=CachePolicy(wait=0.3)) == 1
    assert [record.levelname for record in caplog.records if record.levelname != "DEBUG"] == ["WARNING", "ERROR"]
    assert ask(never, form) == 1


@few_forms
def test_no_wait_at_all(form: dict[str, Any], locmem: BaseCache) -> None:
    locmem.set(lock_key(form), "another process")
    start = time.monotonic()
    assert ask(Source(form), form, policy=CachePolicy(wait=0)) == 1
    assert time.monotonic() - start < 10


@few_forms
def test_past_its_window_a_value_is_waited_for(form: dict[str, Any], cache_backend: BaseCache, clock: Clock) -> None:
    policy = CachePolicy(stale_if_error=5000, share=False)
    source = Source(form)
    ask(source, form, policy=policy)
    clock.advance(LIFE + 1)
    gate = Gate()
    source.during = gate
    with in_thread(lambda: ask(source, form, policy=policy)) as winner:
        assert gate.entered.wait(30)
        with in_thread(lambda: ask(never, form, policy=policy)) as loser:
            time.sleep(0.3)
            assert not loser.done()
            gate.opened.set()
            assert loser.result(30) == winner.result(30) == 2


@few_forms
@pytest.mark.parametrize("share", [True, False])
def test_waiting_ends_if_the_winner_fails(
    form: dict[str, Any], share: bool, cache_backend: BaseCache, clock: Clock
) -> None:
    policy = CachePolicy(stale_if_error=5000, share=share)
    source = Source(form)
    ask(source, form, policy=policy)
    clock.advance(LIFE + 1)
    gate = Gate()
    source.during = gate
    source.fails = True
    with in_thread(lambda: ask(source, form, policy=policy)) as winner:
        assert gate.entered.wait(30)
        with in_thread(lambda: ask(never, form, policy=policy)) as loser:
            time.sleep(0.3)
            gate.opened.set()
            assert loser.result(30) == winner.result(30) == 1


def test_a_failure_right_before_the_wait(locmem: BaseCache, clock: Clock) -> None:
    policy = CachePolicy(stale_if_error=5000, share=False)
    ask(Source(), {}, policy=policy)
    clock.advance(LIFE + 1)
    locmem.set(lock_key({}), "another")
    real = freshness.FreshMemoize._wait_for_lock

    def wait(self: Any, lock: Any) -> Any:
        locmem.set(lock_key({}), "!another", 10)
        return real(self, lock)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(freshness.FreshMemoize, "_wait_for_lock", wait)
        assert ask(never, {}, policy=policy) == 1


@few_forms
def test_a_lock_of_the_callers_own(form: dict[str, Any], locmem: BaseCache, clock: Clock) -> None:
    source = Source(form)
    ask(source, form, lock=CacheLock("mine"))
    clock.advance(LIFE + 1)
    with CacheLock("mine"):
        assert ask(never, form, lock=CacheLock("mine")) == 1
    source.fails = True
    assert ask(source, form, lock=CacheLock("mine")) == 1
    assert locmem.get(make_cache_key("mine")).startswith("!")
    # One that the caller holds is left to it.
    locmem.clear()
    source.fails = False
    with CacheLock("mine") as lock:
        assert ask(source, form, lock=lock) == 3
        assert lock.locked()


def test_a_lock_of_djblets(locmem: BaseCache, clock: Clock) -> None:
    locks = pytest.importorskip("djblets.protect.locks")
    source = Source()
    ask(source, {}, lock=locks.CacheLock())
    clock.advance(LIFE + 1)
    source.fails = True
    assert ask(source, {}, lock=locks.CacheLock()) == 1
    # It can't leave a mark, but is released.
    assert locmem.get(lock_key({})) is None
    source.fails = False
    assert ask(source, {}, lock=locks.CacheLock()) == 3


# Recursion and nesting


@few_forms
@pytest.mark.parametrize("how", ["policy", "lock"])
def test_a_computation_asks_for_its_own_key(form: dict[str, Any], how: str, locmem: BaseCache) -> None:
    options: dict[str, Any] = {"policy": POLICY if how == "policy" else None}
    depth: list[int] = []

    def inner() -> None:
        if len(depth) < 2:
            depth.append(1)
            lock = {"lock": CacheLock()} if how == "lock" else {}
            depth.append(ask(source, form, **options, **lock))

    source = Source(form, during=inner)
    start = time.monotonic()
    assert ask(source, form, **options, **({"lock": CacheLock()} if how == "lock" else {})) == 1
    # Not the thirty seconds of the lock.
    assert time.monotonic() - start < 20
    assert depth[-1] == 2
    # What the inner one computed is not stored.
    assert ask(never, form, **options) == 1


@pytest.mark.parametrize("how", ["policy", "lock"])
def test_two_iterators_at_once(how: str, locmem: BaseCache) -> None:
    def read() -> Any:
        options: dict[str, Any] = {"policy": POLICY} if how == "policy" else {"lock": CacheLock()}
        return cache_memoize_iter("key", lambda: iter(range(5)), **options)

    start = time.monotonic()
    assert list(zip(read(), read(), strict=True)) == [(number, number) for number in range(5)]
    assert time.monotonic() - start < 20
    assert list(cache_memoize_iter("key", never)) == list(range(5))
    assert locmem.get(lock_key({})) is None


def test_two_that_need_each_other(cache_backend: BaseCache) -> None:
    make_cache_key("key")
    both = threading.Barrier(2)

    def compute(name: str, other: str) -> Any:
        def lookup() -> Any:
            if names.add(name) is None and len(names) <= 2:
                both.wait(30)
            return [cache_memoize(other, lambda: [name, "alone"], policy=POLICY)[0], name]

        return cache_memoize(name, lookup, policy=POLICY)

    names: set[str] = set()
    start = time.monotonic()
    with in_thread(lambda: compute("a", "b")) as first, in_thread(lambda: compute("b", "a")) as second:
        assert first.result(60)[1] == "a"
        assert second.result(60)[1] == "b"
    assert time.monotonic() - start < 20


def test_a_nested_call_waits_for_nobody(locmem: BaseCache) -> None:
    locmem.set(make_cache_key("_lock_:inner"), "another")
    source = Source()
    start = time.monotonic()
    assert cache_memoize("key", lambda: cache_memoize("inner", source, policy=POLICY), policy=POLICY) == [1]
    assert time.monotonic() - start < 20
    # It is stored all the same.
    assert cache_memoize("inner", never) == [1]


# Large entries and streams


@pytest.mark.every_backend
@pytest.mark.parametrize("encrypt", [False, True])
def test_an_old_stream_is_served_until_the_new_one_is_complete(
    encrypt: bool, cache_backend: BaseCache, clock: Clock
) -> None:
    chunk = noise(CACHE_CHUNK_SIZE)
    options: dict[str, Any] = {"policy": POLICY, "use_encryption": encrypt, "compress_large_data": False}

    def read(items: Any) -> list[Any]:
        return list(cache_memoize_iter("key", items, expiration=LIFE, **options))

    def produce() -> Iterator[Any]:
        for number in range(5):
            # Stored full chunks would be the old entry's end.
            assert [item[0] for item in read(never)] == ["old"] * 3
            yield "new", number, chunk

    read([("old", number, chunk) for number in range(3)])
    clock.advance(LIFE + 1)
    assert [item[0] for item in read(produce)] == ["new"] * 5
    assert [item[0] for item in read(never)] == ["new"] * 5


def test_a_long_stream_gives_up_the_old_entry(locmem: BaseCache, clock: Clock) -> None:
    chunk = noise(CACHE_CHUNK_SIZE)
    options: dict[str, Any] = {"expiration": LIFE, "policy": POLICY, "compress_large_data": False}
    list(cache_memoize_iter("key", ["old"], **options))
    clock.advance(LIFE + 1)
    held = []
    for _ in cache_memoize_iter("key", (chunk for _ in range(20)), **options):
        held.append(cache_exists("key"))
    assert held[:5] == [True] * 5
    assert held[-1] is False
    assert len(list(cache_memoize_iter("key", never, **options))) == 20


@pytest.mark.parametrize("chunks", [0, 3])
def test_an_abandoned_stream_leaves_the_old_entry(chunks: int, locmem: BaseCache, clock: Clock) -> None:
    source = Source(ITEMS)
    ask(source, ITEMS)
    clock.advance(LIFE + 1)
    stream = cache_memoize_iter("key", (noise(CACHE_CHUNK_SIZE) for _ in range(9)), expiration=LIFE, policy=POLICY)
    for _ in range(1 + chunks):
        next(stream)
    stream.close()
    assert locmem.get(lock_key({})) is None
    source.fails = True
    assert ask(source, ITEMS) == 1


def test_a_stream_that_fails_later(locmem: BaseCache, clock: Clock) -> None:
    def produce() -> Iterator[int]:
        yield 7
        raise SourceError

    ask(Source(ITEMS), ITEMS)
    clock.advance(LIFE + 1)
    stream = cache_memoize_iter("key", produce, expiration=LIFE, policy=POLICY)
    assert next(stream) == 7
    with pytest.raises(SourceError):
        next(stream)
    assert ask(Source(ITEMS), ITEMS) == 1


def test_an_empty_stream(locmem: BaseCache, clock: Clock) -> None:
    assert list(cache_memoize_iter("key", [], expiration=LIFE, policy=POLICY)) == []
    assert list(cache_memoize_iter("key", never, expiration=LIFE, policy=POLICY)) == []
    clock.advance(LIFE + 1)
    assert list(cache_memoize_iter("key", [1], expiration=LIFE, policy=POLICY)) == [1]


def test_a_slow_client_stalls_nobody(locmem: BaseCache) -> None:
    policy = CachePolicy(lock_secs=1.5, wait=None)
    slow = cache_memoize_iter("key", lambda: iter(range(3)), policy=policy)
    assert next(slow) == 0
    with in_thread(lambda: list(cache_memoize_iter("key", lambda: iter("abc"), policy=policy))) as other:
        assert other.result(30) == ["a", "b", "c"]
    # The other one didn't store its items.
    assert list(slow) == [1, 2]
    assert list(cache_memoize_iter("key", never, policy=policy)) == [0, 1, 2]


# The lock's life


@pytest.mark.parametrize("form", [{}, FORMS["large"], ITEMS], ids=["small", "large", "items"])
def test_a_lock_is_renewed_while_it_is_needed(form: dict[str, Any], shared: dict[str, Any]) -> None:
    # Servers count whole seconds, and this machine may be slow.
    policy = CachePolicy(lock_secs=4, max_lock_secs=60)
    seen = []

    def during() -> None:
        for _ in range(12):
            time.sleep(0.5)
            seen.append(caches["default"].get(lock_key({})))

    def slowly() -> Iterator[Any]:
        for number in range(12):
            time.sleep(0.5)
            seen.append(caches["default"].get(lock_key({})))
            yield number if number != 1 else BIG

    if form is ITEMS:
        assert len(list(cache_memoize_iter("key", slowly, policy=policy))) == 12
    else:
        assert ask(Source(form, during=during), form, policy=policy) == 1
    assert None not in seen and len(set(seen)) == 1
    assert caches["default"].get(lock_key({})) is None


def test_a_lock_is_not_renewed_for_ever(locmem: BaseCache, caplog: pytest.LogCaptureFixture) -> None:
    policy = CachePolicy(lock_secs=1, max_lock_secs=1.5)
    seen = []

    def during() -> None:
        for _ in range(35):
            time.sleep(0.1)
            seen.append(locmem.get(lock_key({})) is not None)

    ask(Source(during=during), {}, policy=policy)
    assert seen[:10] == [True] * 10
    assert seen[-1] is False
    assert "is not renewed any more" in caplog.text


# Failing caches, older keys, forks


@few_forms
def test_the_cache_is_down(form: dict[str, Any], locmem: BaseCache) -> None:
    with replaced(locmem, **_refusing()):
        source = Source(form)
        assert [ask(source, form) for _ in range(2)] == [1, 2]


def _refusing() -> dict[str, Any]:
    from django.db.utils import OperationalError

    def refuse(*args: Any, **options: Any) -> Any:
        raise OperationalError("down")

    return dict.fromkeys(("get", "get_many", "set", "set_many", "add", "delete", "delete_many", "touch"), refuse)


@pytest.mark.parametrize("name", ["encrypted", "large encrypted", "items encrypted"])
def test_an_older_encryption_key(name: str, cache_backend: BaseCache, clock: Clock) -> None:
    form = ALL_FORMS[name]
    source = Source(form)
    with override_settings(DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY=OLD):
        ask(source, form)
    rotated = override_settings(DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY=NEW, FASTBLETS_ENCRYPTION_KEY_FALLBACKS=[OLD])
    clock.advance(LIFE / 2)
    with rotated:
        # Its life goes on.
        assert ask(never, form) == 1
        clock.advance(LIFE / 2 + 1)
        gate = Gate()
        source.during = gate
        with in_thread(lambda: ask(source, form)) as winner:
            assert gate.entered.wait(30)
            assert ask(never, form) == 1
            gate.opened.set()
            assert winner.result(30) == 2
        assert ask(never, form) == 2


@pytest.mark.parametrize("name", ["encrypted", "large encrypted", "items encrypted"])
def test_a_stale_value_under_an_older_key(name: str, cache_backend: BaseCache, clock: Clock) -> None:
    form = ALL_FORMS[name]
    source = Source(form)
    with override_settings(DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY=OLD):
        ask(source, form)
    clock.advance(LIFE + 1)
    with override_settings(DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY=NEW, FASTBLETS_ENCRYPTION_KEY_FALLBACKS=[OLD]):
        source.fails = True
        assert ask(source, form) == 1
        source.fails = False
        cache_backend.delete(lock_key(form))
        assert ask(source, form) == 3
        assert ask(never, form) == 3
    # The old one is gone.
    with override_settings(DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY=OLD):
        assert cache_get("key", None, **{k: v for k, v in form.items() if k != "items"}) is None


@pytest.mark.linux("fork")
def test_a_fork_while_others_wait(locmem: BaseCache) -> None:
    gate = Gate()
    source = Source(during=gate)
    with in_thread(lambda: ask(source, {})) as leader:
        assert gate.entered.wait(30)
        child = os.fork()
        if child == 0:
            # Nobody leads here. The lock is the parent's.
            try:
                code = 0 if ask(Source(), {}, policy=CachePolicy(wait=0.2)) == 1 else 1
            except BaseException:
                code = 2
            os._exit(code)
        _, status = os.waitpid(child, 0)
        gate.opened.set()
        assert leader.result(30) == 1
    assert os.waitstatus_to_exitcode(status) == 0


# Runners


class Runner:
    """Keeps jobs."""

    def __init__(self) -> None:
        self.jobs: list[Callable[[], None]] = []

    def __call__(self, job: Callable[[], None]) -> None:
        self.jobs.append(job)


@few_forms
def test_a_runner(form: dict[str, Any], cache_backend: BaseCache, clock: Clock) -> None:
    runner = Runner()
    policy = CachePolicy(stale_while_revalidate=1000, stale_if_error=5000, refresh=runner)
    source = Source(form)
    # Not for a miss.
    assert ask(source, form, policy=policy) == 1
    assert runner.jobs == []
    clock.advance(LIFE + 1)
    assert [ask(never, form, policy=policy) for _ in range(3)] == [1] * 3
    (job,) = runner.jobs
    source.calls = 1
    # The job computes with the function of the call that handed it over.
    runner.jobs.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.test_freshness.never", source)
        cache_backend.delete(lock_key(form))
        assert ask(source, form, policy=policy) == 1
    (job,) = runner.jobs
    with in_thread(job) as done:
        done.result(30)
    assert ask(never, form, policy=policy) == 2
    assert cache_backend.get(lock_key(form)) is None
    assert len(runner.jobs) == 1


@few_forms
def test_a_job_that_fails(
    form: dict[str, Any], locmem: BaseCache, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    runner = Runner()
    source = Source(form)
    for window in (5000, 0):
        locmem.clear()
        source.fails = False
        policy = CachePolicy(stale_while_revalidate=1000, stale_if_error=window, refresh=runner)
        ask(source, form, policy=policy)
        clock.advance(LIFE + 1)
        source.fails = True
        number = ask(source, form, policy=policy)
        caplog.clear()
        runner.jobs.pop()()
        assert [record.levelname for record in caplog.records if record.levelname != "DEBUG"] == [
            "WARNING" if window else "ERROR"
        ]
        assert locmem.get(lock_key(form)).startswith("!")
        assert ask(never, form, policy=policy) == number


@few_forms
def test_a_job_that_comes_too_late(form: dict[str, Any], locmem: BaseCache, clock: Clock) -> None:
    runner = Runner()
    policy = CachePolicy(stale_while_revalidate=1000, refresh=runner)
    source = Source(form)
    ask(source, form, policy=policy)
    clock.advance(LIFE + 1)
    ask(source, form, policy=policy)
    # The lock has ended, and another call has computed it.
    locmem.delete(lock_key(form))
    assert ask(source, form, policy=POLICY) == 2
    runner.jobs.pop()()
    assert source.calls == 2


@few_forms
def test_a_runner_that_fails(
    form: dict[str, Any], locmem: BaseCache, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    def runner(_: Any) -> None:
        raise SourceError("no queue")

    policy = CachePolicy(stale_while_revalidate=1000, refresh=runner)
    ask(Source(form), form, policy=policy)
    clock.advance(LIFE + 1)
    assert [ask(never, form, policy=policy) for _ in range(2)] == [1, 1]
    assert "no queue" in caplog.text


def test_a_job_that_is_dropped(locmem: BaseCache, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    policy = CachePolicy(stale_while_revalidate=1000, refresh=lambda job: None)
    ask(Source(), {}, policy=policy)
    clock.advance(LIFE + 1)
    assert ask(never, {}, policy=policy) == 1
    assert caplog.records == []
    # The lock ends by itself.
    assert locmem.get(lock_key({})) is not None


@pytest.mark.parametrize("at_once", [True, False])
def test_a_job_leaves_the_old_stream_to_its_reader(at_once: bool, locmem: BaseCache, clock: Clock) -> None:
    runner = Runner()
    policy = CachePolicy(
        stale_while_revalidate=1000, stale_if_error=5000, refresh=(lambda job: job()) if at_once else runner
    )
    assert ask(Source(ITEMS), ITEMS, policy=policy) == 1
    clock.advance(LIFE + 1)
    source = Source(ITEMS)
    source.fails = True
    stream = cache_memoize_iter("key", source, expiration=LIFE, policy=policy)
    assert next(stream) == 1
    for job in runner.jobs:
        job()
    assert next(stream) == BIG
    assert source.calls == 1


# What is left behind


def test_an_outage_in_the_middle_of_a_stream(locmem: BaseCache) -> None:
    policy = CachePolicy(lock_secs=1)

    def produce() -> Iterator[int]:
        yield 0
        time.sleep(0.4)
        with replaced(locmem, **_refusing()):
            yield 1
            time.sleep(0.4)
            yield 2
        yield 3

    assert list(cache_memoize_iter("key", produce, policy=policy)) == [0, 1, 2, 3]
    assert not cache_exists("key")


def test_an_expiry_is_remembered_for_as_long_as_it_matters(locmem: LocMemCache) -> None:
    week = 7 * 24 * 3600
    policy = CachePolicy(stale_while_revalidate=week)
    for expiration, least in ((week, 2 * week), (60, week), (timedelta(days=30), 5 * week), (None, None)):
        ask(Source(), {}, policy=policy, expiration=expiration)
        cache_expire("key", policy=policy)
        end = vars(locmem)["_expire_info"][":1:" + make_cache_key("_fence_:key")]
        assert end is None if least is None else end > time.time() + least - 10
        cache_delete("key")


@few_forms
def test_tags_don_t_matter_to_who_gives_none(form: dict[str, Any], locmem: BaseCache, clock: Clock) -> None:
    source = Source(form)
    ask(source, form, tags=["tag"])
    assert ask(never, form) == 1
    assert cache_expire("key", policy=POLICY, **address(form)) is True
    clock.advance(0.1)
    assert ask(source, form, tags=["tag"]) == 2


@few_forms
def test_a_value_that_another_has_stored_is_not_held(form: dict[str, Any], locmem: BaseCache) -> None:
    """It was stored between the first look and the lock. Its reader may take its time."""
    source = Source(form)
    real = freshness.FreshMemoize._try_lock

    def try_lock(self: Any) -> bool:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(freshness.FreshMemoize, "_try_lock", real)
            ask(source, form, policy=CachePolicy(share=False))
        return real(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(freshness.FreshMemoize, "_try_lock", try_lock)
        if form is ITEMS:
            stream = cache_memoize_iter("key", never, policy=POLICY)
            assert next(stream) == 1
        else:
            assert ask(never, form) == 1
    assert locmem.get(lock_key(form)) is None
    assert sharing._leaders == {}


def test_a_stream_that_hangs_does_not_keep_others_from_storing(locmem: BaseCache) -> None:
    policy = CachePolicy(lock_secs=1, wait=None)
    hanging = cache_memoize_iter("key", lambda: iter(range(3)), policy=policy)
    next(hanging)
    with in_thread(lambda: time.sleep(1.2) or list(cache_memoize_iter("key", lambda: iter("ab"), policy=policy))) as f:
        assert f.result(30) == ["a", "b"]
    assert list(cache_memoize_iter("key", never, policy=policy)) == ["a", "b"]
    hanging.close()


def test_a_caller_with_the_lock_follows_nobody(locmem: BaseCache) -> None:
    make_cache_key("key")
    waiting = threading.Event()
    source = Source()
    with CacheLock("mine") as lock, ThreadPoolExecutor(1) as executor:
        real = CacheLock._sleep

        def sleep(self: CacheLock) -> float:
            waiting.set()
            return real(self)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(CacheLock, "_sleep", sleep)
            other = executor.submit(lambda: ask(source, {}, lock=CacheLock("mine")))
            assert waiting.wait(30)
            start = time.monotonic()
            assert ask(source, {}, lock=lock) == 1
            assert time.monotonic() - start < 20
        lock.release()
        assert other.result(30) == 1
        lock.acquire()


def test_a_lock_that_was_not_had_is_not_released(locmem: BaseCache, clock: Clock) -> None:
    ask(Source(ITEMS), ITEMS)
    clock.advance(LIFE + 1)
    lock = CacheLock("mine")
    locmem.set(lock.full_cache_key, "another")
    stream = cache_memoize_iter("key", never, expiration=LIFE, policy=POLICY, lock=lock)
    assert next(stream) == 1
    locmem.delete(lock.full_cache_key)
    lock.acquire()
    stream.close()
    assert lock.locked()
    lock.release()


def test_a_lock_that_was_released_is_the_callers_again(locmem: BaseCache) -> None:
    lock = CacheLock("mine")
    real = freshness.FreshMemoize._try_lock

    def try_lock(self: Any) -> bool:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(freshness.FreshMemoize, "_try_lock", real)
            ask(Source(ITEMS), ITEMS, policy=CachePolicy(share=False))
        return real(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(freshness.FreshMemoize, "_try_lock", try_lock)
        stream = cache_memoize_iter("key", never, policy=POLICY, lock=lock)
        assert next(stream) == 1
    # The stream goes on without it.
    lock.acquire()
    stream.close()
    assert lock.locked()
    lock.release()


@pytest.mark.linux("signals")
def test_an_alarm_while_waiting(locmem: BaseCache) -> None:
    def ring(*_: Any) -> None:
        raise TimeoutError("the caller's own")

    gate = Gate()
    with in_thread(lambda: ask(Source(during=gate), {})) as leader:
        assert gate.entered.wait(30)
        old = signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        try:
            with pytest.raises(TimeoutError, match="the caller's own"):
                ask(never, {})
        finally:
            signal.signal(signal.SIGALRM, old)
            gate.opened.set()
        assert leader.result(30) == 1


def test_an_abandoned_refresh_under_an_older_key(locmem: BaseCache, clock: Clock) -> None:
    form = ALL_FORMS["items encrypted"]
    with override_settings(DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY=OLD):
        ask(Source(form), form)
    clock.advance(LIFE + 1)
    with override_settings(DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY=NEW, FASTBLETS_ENCRYPTION_KEY_FALLBACKS=[OLD]):
        stream = cache_memoize_iter("key", iter(range(9)), expiration=LIFE, policy=POLICY, use_encryption=True)
        next(stream)
        stream.close()
        source = Source(form)
        source.fails = True
        assert ask(source, form) == 1


def test_the_old_value_is_not_kept_alive(locmem: BaseCache, clock: Clock) -> None:
    ask(Source(ITEMS), ITEMS)
    clock.advance(LIFE + 1)
    calls: list[Any] = []
    real = freshness.FreshMemoize.begin

    def begin(self: Any) -> Any:
        calls.append(self)
        return real(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(freshness.FreshMemoize, "begin", begin)
        stream = cache_memoize_iter("key", iter(range(9)), expiration=LIFE, policy=POLICY)
        next(stream)
    assert calls[0]._value is freshness.UNSET
    stream.close()


def test_a_lock_of_another_kind(locmem: BaseCache) -> None:
    class Lock:
        full_cache_key = "key"
        held = False

        def acquire(self, blocking: bool = True) -> bool:
            self.held = True
            return True

        def locked(self) -> bool:
            return self.held

        def release(self) -> None:
            self.held = False

        def update_expiration(self) -> None:
            pass

    lock: Any = Lock()
    for policy in (None, POLICY):
        assert ask(Source(), {}, lock=lock, policy=policy) == 1
        assert not lock.held
        cache_delete("key")


@few_forms
def test_a_decimal_expiration(form: dict[str, Any], locmem: BaseCache) -> None:
    expiration: Any = Decimal(30)
    ask(Source(form), form, expiration=expiration)
    assert ask(never, form) == 1


def test_an_alias_is_the_default_cache(locmem: BaseCache) -> None:
    source = Source()
    start = time.monotonic()
    assert cache_memoize("key", lambda: ask(source, {}, cache="default"), policy=POLICY) == 1
    assert time.monotonic() - start < 20


# Calls of the cache


@pytest.mark.parametrize(
    ("form", "options", "calls"),
    [
        ({}, {}, ["get_many"]),
        ({}, {"fence": False}, ["get_many"]),
        (SECRET, {}, ["get_many"]),
        (SECRET, {"fence": False}, ["get"]),
        (FORMS["large"], {}, ["get_many", "get_many"]),
        (FORMS["large"], {"fence": False}, ["get", "get_many"]),
        (ITEMS, {"fence": False}, ["get", "get_many"]),
    ],
)
def test_a_hit(form: dict[str, Any], options: dict[str, Any], calls: list[str], locmem: BaseCache) -> None:
    policy = CachePolicy(**options)
    ask(Source(form), form, policy=policy)
    with counted(locmem) as made:
        ask(never, form, policy=policy)
    assert made == calls


@few_forms
def test_a_policy_by_setting(form: dict[str, Any], locmem: BaseCache, clock: Clock) -> None:
    with override_settings(FASTBLETS_POLICY={"stale_if_error": 5000}):
        source = Source(form)
        ask(source, form, policy=None)
        clock.advance(LIFE + 1)
        source.fails = True
        assert ask(source, form, policy=None) == 1


def test_a_cache_that_keeps_nothing(db: None) -> None:
    with use_cache({"BACKEND": "django.core.cache.backends.dummy.DummyCache"}):
        source = Source()
        assert [ask(source, {}) for _ in range(2)] == [1, 2]


# Values by hand


BY_HAND = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


@BY_HAND
def test_by_hand(form: dict[str, Any], cache_backend: BaseCache, clock: Clock) -> None:
    policy = CachePolicy(stale_while_revalidate=1000, jitter=0.1)
    assert cache_set("key", [1], expiration=LIFE, policy=policy, **form)
    assert cache_set_many({"second": [1], "third": [1]}, expiration=LIFE, policy=policy, **form) == []
    keys = ["key", "second", "third"]
    assert cache_get_many(keys, policy=policy, **form) == {key: [1] for key in keys}
    assert cache_exists("key", policy=policy, **address(form))
    clock.advance(LIFE + 1)
    assert cache_get("key", "missing", policy=policy, **form) == "missing"
    assert cache_get_many(keys, policy=policy, **form) == {}
    assert not cache_exists("key", policy=policy, **address(form))
    assert cache_get("key", policy=policy, allow_stale=True, **form) == [1]
    assert cache_get_many(keys, policy=policy, allow_stale=True, **form) == {key: [1] for key in keys}
    # Without a policy, what is there is found.
    assert cache_get("key", **form) == [1]
    assert cache_exists("key", **address(form))
    # A call with the policy serves it, while another computes.
    cache_backend.set(lock_key(form), "another")
    assert cache_memoize("key", never, policy=policy, **form) == [1]


@all_forms
def test_expired_by_hand(form: dict[str, Any], cache_backend: BaseCache, clock: Clock) -> None:
    source = Source(form)
    assert cache_expire("key", policy=POLICY, **address(form)) is False
    ask(source, form)
    assert cache_expire("key", policy=POLICY, **address(form)) is True
    clock.advance(0.1)
    # The old value is served if computing fails, for as long after that as the policy says.
    source.fails = True
    assert [ask(source, form) for _ in range(2)] == [1, 1]
    clock.advance(5000)
    cache_backend.delete(lock_key(form))
    with pytest.raises(SourceError):
        ask(source, form)
    source.fails = False
    number = ask(source, form)
    assert ask(never, form) == number
    # Deleting is for good.
    assert cache_expire("key", policy=POLICY, **address(form)) is True
    cache_delete("key", **address(form))
    source.fails = True
    with pytest.raises(SourceError):
        ask(source, form)


@few_forms
def test_expired_while_it_is_computed(form: dict[str, Any], locmem: BaseCache, clock: Clock) -> None:
    source = Source(form)
    ask(source, form)
    clock.advance(LIFE + 1)
    source.during = lambda: cache_expire("key", policy=POLICY, **address(form))
    assert ask(source, form) == 2
    clock.advance(0.1)
    # It is kept, but as expired.
    source.during = lambda: None
    source.fails = True
    assert ask(source, form) == 2


@few_forms
def test_expired_and_deleted_while_it_is_computed(form: dict[str, Any], locmem: BaseCache, clock: Clock) -> None:
    source = Source(form)
    ask(source, form)
    clock.advance(LIFE + 1)

    def during() -> None:
        cache_delete("key", **address(form))
        ask(Source(form), form, force_overwrite=True)
        cache_expire("key", policy=POLICY, **address(form))

    source.during = during
    assert ask(source, form) == 2
    source.during = lambda: None
    source.fails = True
    # What the deletion came between is not served.
    with pytest.raises(SourceError):
        ask(source, form)


@BY_HAND
@pytest.mark.parametrize("policy", [None, CachePolicy(fence=False)])
def test_expired_without_a_fence(form: dict[str, Any], policy: CachePolicy | None, locmem: BaseCache) -> None:
    cache_set("key", [1], policy=policy, **form)
    assert cache_expire("key", policy=policy, **address(form)) is True
    assert cache_get("key", **form) is None


@few_forms
def test_adding_with_a_policy_by_setting(form: dict[str, Any], locmem: BaseCache) -> None:
    with override_settings(FASTBLETS_POLICY=CachePolicy(stale_if_error=10)):
        assert cache_add("key", [1], **address(form)) is True
        assert cache_add("key", [2], **address(form)) is False
        assert cache_get("key", **address(form)) == [1]
        assert cache_delete("key", **address(form)) is True


# Receivers of events, and other code that runs while a call leads


@few_forms
@pytest.mark.parametrize("how", ["policy", "lock"])
def test_a_receiver_asks_for_the_same_key(form: dict[str, Any], how: str, locmem: BaseCache) -> None:
    seen: list[str] = []

    def options() -> dict[str, Any]:
        return {"policy": POLICY} if how == "policy" else {"policy": None, "lock": CacheLock()}

    def receive(kind: str, **_: Any) -> None:
        if kind in ("miss", "computed", "stored"):
            seen.append(kind)
            ask(Source(form), form, **options())

    cache_event.connect(receive)
    try:
        start = time.monotonic()
        assert ask(Source(form), form, **options()) == 1
    finally:
        cache_event.disconnect(receive)
    # Not the thirty seconds of the lock, or of the policy.
    assert time.monotonic() - start < 20
    assert "miss" in seen


@pytest.mark.parametrize("how", ["policy", "lock"])
def test_an_expiration_function_asks_for_the_same_key(how: str, locmem: BaseCache) -> None:
    def options() -> dict[str, Any]:
        return {"policy": POLICY} if how == "policy" else {"policy": None, "lock": CacheLock()}

    def expire(_: Any) -> int:
        ask(Source(), {}, **options())
        return 60

    start = time.monotonic()
    assert ask(Source(), {}, expiration=expire, **options()) == 1
    assert time.monotonic() - start < 20


@pytest.mark.parametrize("form", [{}, SECRET], ids=["small", "encrypted"])
def test_a_flag_by_hand_with_a_policy_by_setting(form: dict[str, Any], cache_backend: BaseCache, clock: Clock) -> None:
    with override_settings(FASTBLETS_POLICY=CachePolicy(stale_if_error=1000)):
        cache_set("key", 5, **form)
        assert cache_delete("key", **form) is True
        assert cache_add("key", 1, expiration=60, **form) is True
        assert cache_exists("key", **form)
        assert cache_get("key", **form) == 1
        assert cache_add("key", 2, **form) is False
        # It goes when it expires: it is never served as stale.
        clock.advance(61)
        assert cache_get("key", **form) == 1


def test_a_flag_goes_when_it_expires(locmem: LocMemCache) -> None:
    with override_settings(FASTBLETS_POLICY=CachePolicy(stale_if_error=1000)):
        cache_add("key", 1, expiration=60)
    end = vars(locmem)["_expire_info"][":1:" + make_cache_key("key")]
    assert 50 < end - time.time() <= 60


def test_expired_in_a_transaction_that_deletes(locmem: BaseCache, clock: Clock) -> None:
    ask(Source(), {})

    class RollbackError(Exception):
        pass

    with pytest.raises(RollbackError), transaction.atomic():
        cache_delete("key", on_commit=True)
        assert cache_expire("key", policy=POLICY) is True
        raise RollbackError
    clock.advance(0.1)
    source = Source()
    source.fails = True
    # It is expired all the same.
    assert ask(source, {}) == 1
    assert source.calls == 1


def test_a_wrong_setting_does_not_leave_a_leader_behind(locmem: BaseCache) -> None:
    with override_settings(CACHE_EXPIRATION_TIME="a day"):
        for _ in range(2):
            start = time.monotonic()
            assert cache_memoize("key", lambda: 1, policy=POLICY) == 1
            assert time.monotonic() - start < 20
    assert sharing._leaders == {}


def test_a_stream_whose_leader_waits_itself_is_waited_for(locmem: BaseCache) -> None:
    make_cache_key("key")
    policy = CachePolicy(lock_secs=1, wait=20)
    locmem.set(lock_key({}), "another process", 30)
    with ThreadPoolExecutor(3) as executor:
        answers = [
            executor.submit(lambda: list(cache_memoize_iter("key", lambda: iter("ab"), policy=policy)))
            for _ in range(3)
        ]
        time.sleep(1.5)
        assert not any(answer.done() for answer in answers)
        locmem.delete(lock_key({}))
        assert [answer.result(30) for answer in answers] == [["a", "b"]] * 3
    assert list(cache_memoize_iter("key", never, policy=policy)) == ["a", "b"]


def test_a_lock_that_was_backed_off_is_the_callers_again(locmem: BaseCache, clock: Clock) -> None:
    ask(Source(ITEMS), ITEMS)
    clock.advance(LIFE + 1)
    source = Source(ITEMS)
    source.fails = True
    lock = CacheLock("mine")
    stream = cache_memoize_iter("key", source, expiration=LIFE, policy=POLICY, lock=lock)
    assert next(stream) == 1
    locmem.delete(lock.full_cache_key)
    lock.acquire()
    stream.close()
    assert lock.locked()
    lock.release()


@pytest.mark.parametrize("name", ["encrypted", "large encrypted", "items encrypted"])
def test_what_is_not_to_be_kept_goes_under_older_keys_too(name: str, locmem: BaseCache, clock: Clock) -> None:
    form = ALL_FORMS[name]
    with override_settings(DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY=OLD):
        ask(Source(form), form)
    clock.advance(LIFE + 1)
    with override_settings(DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY=NEW, FASTBLETS_ENCRYPTION_KEY_FALLBACKS=[OLD]):
        ask(Source(form), form, expiration=lambda _: 0)
        assert not cache_exists("key", use_encryption=True)


def test_an_interrupt_while_an_older_entry_is_removed(locmem: BaseCache, clock: Clock) -> None:
    form = ALL_FORMS["encrypted"]
    with override_settings(DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY=OLD):
        ask(Source(form), form)
    clock.advance(LIFE + 1)

    def interrupt(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with override_settings(DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY=NEW, FASTBLETS_ENCRYPTION_KEY_FALLBACKS=[OLD]):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(freshness.FreshMemoize, "drop_older", interrupt)
            with pytest.raises(KeyboardInterrupt):
                ask(Source(form), form)
        assert locmem.get(lock_key(form)) is None
