"""Exceptions in the middle of a cache call: time limits propagate, and a failed call keeps no memory."""

from __future__ import annotations

import gc
import importlib
import logging
import signal
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from django.contrib.sites.models import Site
from django.core.cache import cache, caches
from django.core.cache.backends.base import BaseCache
from django.test import override_settings

from fastblets.cache import failures
from fastblets.cache.backend import cache_memoize, cache_memoize_iter, make_cache_key
from fastblets.cache.synchronizer import GenerationSynchronizer
from fastblets.protect.locks import CacheLock
from tests.faults import METHODS, failing, replaced

pytestmark = pytest.mark.django_db

NOISE = "".join(chr(33 + number * number % 89) for number in range(1_200_000))
SECRET = {"use_encryption": True}


# Time limits.


def imported(name: str) -> type[BaseException]:
    """An exception of another package: its own, or one of that name where it isn't installed."""
    module, _, kind = name.rpartition(".")
    try:
        found: type[BaseException] = getattr(importlib.import_module(module), kind)
    except ImportError:
        found = type(kind, (Exception,), {"__module__": module})
    return found


class DerivedLimit(imported("rq.timeouts.JobTimeoutException")):  # type: ignore[misc]
    """A project's own."""


LIMITS = [
    imported("billiard.exceptions.SoftTimeLimitExceeded"),
    imported("rq.timeouts.JobTimeoutException"),
    imported("huey.exceptions.TaskTimeout"),
    DerivedLimit,
]
limits = pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.__name__)


@pytest.mark.parametrize("name", sorted(failures._TIME_LIMITS))
def test_each_time_limit_exists(name: str) -> None:
    module, _, kind = name.rpartition(".")
    package = pytest.importorskip(module.partition(".")[0], reason="not installed")
    assert issubclass(getattr(importlib.import_module(module), kind), Exception), package


@pytest.mark.parametrize("name", sorted(failures._UNREACHABLE))
def test_each_error_of_a_client_exists(name: str) -> None:
    module, _, kind = name.rpartition(".")
    pytest.importorskip(module.partition(".")[0], reason="not installed")
    assert issubclass(getattr(importlib.import_module(module), kind), Exception)


@contextmanager
def alarm(error: type[BaseException], seconds: float = 0.1) -> Iterator[None]:
    """As task queues do it: an exception comes out of a signal handler, wherever the program is."""

    def handle(number: int, frame: object) -> None:
        raise error("time is up")

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def never() -> Any:
    pytest.fail("computed")


CALLS: dict[str, Callable[..., Any]] = {
    "small": lambda source, **options: cache_memoize("key", source, **options),
    "encrypted": lambda source, **options: cache_memoize("key", source, **SECRET, **options),
    "large": lambda source, **options: cache_memoize("key", source, large_data=True, **options),
    "iterable": lambda source, **options: list(cache_memoize_iter("key", lambda: [source()], **options)),
}
calls = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@pytest.mark.linux("SIGALRM")
@calls
@pytest.mark.parametrize("limit", [*LIMITS, TimeoutError, ValueError], ids=lambda limit: limit.__name__)
def test_an_exception_that_comes_while_a_lock_is_waited_for(
    locmem: BaseCache, call: Callable[..., Any], limit: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever its class: while it sleeps nothing is asked of the cache."""
    lock = CacheLock("lock", retry_secs=60)
    with CacheLock("lock") as holder:
        with pytest.raises(limit, match="time is up"), alarm(limit):
            call(never, lock=lock)
        assert cache.get(holder.full_cache_key) == holder.token
    assert not lock.locked()
    assert caplog.records == []
    # The same lock may be used again.
    assert call(lambda: "value", lock=lock) in ("value", ["value"])


@contextmanager
def interrupted(limit: type[Exception], method: str, when: Callable[[Any], bool] = lambda _: True) -> Iterator[None]:
    def interrupt(first: Any, *args: Any, **kwargs: Any) -> Any:
        if when(first):
            raise limit("time is up")
        return original(first, *args, **kwargs)

    original = getattr(cache, method)
    with replaced(caches["default"], **{method: interrupt}):
        yield


@limits
@pytest.mark.parametrize("method", METHODS)
@calls
def test_a_time_limit_within_any_call_of_the_cache(
    locmem: BaseCache,
    call: Callable[..., Any],
    method: str,
    limit: type[Exception],
    caplog: pytest.LogCaptureFixture,
) -> None:
    def run(*, overwrite: bool) -> None:
        with suppress(limit):
            call(lambda: NOISE, lock=CacheLock(), force_overwrite=overwrite, **options)
            assert method not in asked

    options = {} if call is CALLS["small"] or call is CALLS["encrypted"] else {"compress_large_data": False}
    asked: list[str] = []
    for overwrite in (False, True):
        with interrupted(limit, method, lambda _: not asked.append(method)):  # type: ignore[func-returns-value]
            run(overwrite=overwrite)
        call(lambda: NOISE, **options)
        asked.clear()
    assert [record.getMessage() for record in caplog.records if record.levelno > logging.WARNING] == []


@limits
@pytest.mark.parametrize("method", ["get", "touch", "delete"])
@calls
def test_a_time_limit_at_the_release_of_a_lock(
    locmem: BaseCache, call: Callable[..., Any], method: str, limit: type[Exception]
) -> None:
    held = []

    def compute() -> str:
        held.append(True)
        return "value"

    with pytest.raises(limit), interrupted(limit, method, lambda key: bool(held) and "lock" in key):
        call(compute, lock=CacheLock("lock"))
    with pytest.raises(limit), interrupted(limit, method, lambda key: "other" in key), CacheLock("other"):
        pass


class Interrupted:
    """Interrupted while it is pickled, or unpickled."""

    error: type[Exception] = ValueError
    when = "never"

    def __getstate__(self) -> dict[str, int]:
        if Interrupted.when == "pickled":
            raise self.error("time is up")
        return {"a": 1}

    def __setstate__(self, state: object) -> None:
        if Interrupted.when == "unpickled":
            raise self.error("time is up")


@limits
@calls
@pytest.mark.parametrize("when", ["pickled", "unpickled"])
def test_a_time_limit_while_pickling(
    locmem: BaseCache,
    call: Callable[..., Any],
    when: str,
    limit: type[Exception],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(Interrupted, "error", limit)
    if when == "unpickled":
        call(Interrupted)
    monkeypatch.setattr(Interrupted, "when", when)
    with pytest.raises(limit, match="time is up"):
        call(Interrupted)
    assert caplog.records == []


@limits
def test_a_time_limit_while_an_entry_of_many_megabytes_is_read(
    locmem: BaseCache, limit: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the items that are read ahead: the entry is as good as before."""
    items = [*("x" * 1_000_000 for _ in range(20)), Interrupted()]
    list(cache_memoize_iter("key", items))
    monkeypatch.setattr(Interrupted, "error", limit)
    monkeypatch.setattr(Interrupted, "when", "unpickled")
    with pytest.raises(limit):
        list(cache_memoize_iter("key", never))
    monkeypatch.setattr(Interrupted, "when", "never")
    assert len(list(cache_memoize_iter("key", never))) == len(items)


@limits
def test_a_time_limit_in_a_synchronizer(
    locmem: BaseCache, limit: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    synchronizer = GenerationSynchronizer("key")
    for method, ask in (
        ("add", lambda: GenerationSynchronizer("key")),
        ("get", synchronizer.is_expired),
        ("add", synchronizer.refresh),
        ("delete", synchronizer.clear),
        ("incr", synchronizer.mark_updated),
    ):
        with pytest.raises(limit), interrupted(limit, method):
            ask()
    assert caplog.records == []


@limits
def test_a_time_limit_while_the_site_is_looked_up(locmem: BaseCache, limit: type[Exception]) -> None:
    Site.objects.clear_cache()
    with pytest.raises(limit), pytest.MonkeyPatch.context() as patch:
        patch.setattr(Site.objects, "get_current", lambda: (_ for _ in ()).throw(limit()))
        make_cache_key("key")


@limits
def test_a_time_limit_while_looking_under_older_keys(locmem: BaseCache, limit: type[Exception]) -> None:
    with override_settings(FASTBLETS_ENCRYPTION_KEY_FALLBACKS=[b"o" * 16]):
        current = make_cache_key("key", **SECRET)
        for method in ("get", "delete"):
            with pytest.raises(limit), interrupted(limit, method, lambda key: key != current):
                cache_memoize("key", lambda: "value", force_overwrite=method == "delete", **SECRET)


# What a failed call leaves behind.


def damage_chunk(key: str = "key") -> None:
    cache.set(make_cache_key(f"{key}-0"), [b"damaged"])


def fail_in_many_ways() -> Iterator[tuple[str, Callable[[], object]]]:
    def store(items: list[Any] = [NOISE]) -> None:  # noqa: B006
        list(cache_memoize_iter("key", items, force_overwrite=True))

    def read(**options: Any) -> object:
        return list(cache_memoize_iter("key", ["new"], **options))

    def damaged() -> None:
        store()
        damage_chunk()
        read(lock=CacheLock())

    def missing_chunk() -> None:
        store()
        cache.delete(make_cache_key("key-0"))
        read()

    def foreign() -> None:
        cache.set(make_cache_key("key"), "no count")
        read(lock=CacheLock())

    def two_items() -> None:
        store([NOISE, 1])
        cache_memoize("key", lambda: "value", large_data=True)

    def unreadable_small() -> None:
        cache.set(make_cache_key("small", **SECRET), b"damaged" * 10)
        cache_memoize("small", lambda: "value", **SECRET)

    def fails(*methods: str, **options: Any) -> Callable[[], None]:
        def run() -> None:
            store()
            with failing(*methods):
                read(force_overwrite="get" not in methods, lock=CacheLock("lock"), **options)
                cache_memoize("small", lambda: "value", lock=CacheLock("lock"))

        return run

    def times_out() -> None:
        store()
        damage_chunk()
        with CacheLock("lock"):
            read(lock=CacheLock("lock", retry_secs=0.001, timeout_secs=0.001))

    def unpickled() -> None:
        store([Interrupted(), NOISE])
        Interrupted.when = "unpickled"
        try:
            read()
        finally:
            Interrupted.when = "never"

    def source() -> None:
        def items() -> Iterator[str]:
            yield NOISE
            raise ValueError

        with suppress(ValueError):
            list(cache_memoize_iter("other", items, force_overwrite=True))

    def abandoned() -> None:
        generator = cache_memoize_iter("other", iter([NOISE, NOISE]), force_overwrite=True, lock=CacheLock())
        next(generator)
        generator.close()

    def older() -> None:
        with override_settings(FASTBLETS_ENCRYPTION_KEY_FALLBACKS=[b"o" * 16]), failing("get"):
            cache_memoize("older", lambda: "value", large_data=True, **SECRET)

    def interrupted_wait() -> None:
        store()
        damage_chunk()
        with CacheLock("lock"), suppress(TimeoutError), alarm(TimeoutError, 0.01):
            read(lock=CacheLock("lock"))

    yield from locals().items()
    for method in METHODS:
        yield f"{method} fails", fails(method, compress_large_data=False)


LINUX = {"interrupted_wait": pytest.mark.linux("SIGALRM")}
WAYS = {name: way for name, way in fail_in_many_ways() if name not in ("store", "read", "fails")}


@pytest.fixture
def quiet() -> Iterator[None]:
    """A log record holds an exception, and pytest holds the records."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("name", [pytest.param(name, marks=LINUX.get(name, ())) for name in WAYS])
def test_a_failure_leaves_nothing_to_the_collector(
    locmem: BaseCache, quiet: None, no_collector: None, name: str
) -> None:
    """Objects in a circle live until the collector runs, and so does all that they hold: here, megabytes."""
    run = WAYS[name]
    # Some things are made the first time.
    run()
    gc.collect()
    run()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        kept = [repr(garbage)[:200] for garbage in gc.garbage]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    assert kept == []


@pytest.mark.parametrize("large", [False, True], ids=["iterable", "value"])
def test_failed_reads_keep_no_chunks(cache_backend: BaseCache, no_collector: None, large: bool) -> None:
    items = [NOISE] * 4
    tracemalloc.start()
    try:
        for number in range(7):
            list(cache_memoize_iter("key", items, force_overwrite=True, compress_large_data=False))
            damage_chunk()
            if large:
                cache_memoize("key", lambda: "value", large_data=True)
            else:
                list(cache_memoize_iter("key", ["value"]))
            if number == 0:
                before = tracemalloc.get_traced_memory()[0]
        kept = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    # Six times four chunks of a megabyte. LocMem keeps one entry's.
    assert kept < 4_000_000
