"""Events: which are sent, in which order, and what receivers may do."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import django
import pytest
from django.core.cache import cache, caches
from django.core.cache.backends.base import BaseCache
from django.db import transaction
from django.db.utils import OperationalError
from django.test import override_settings

from fastblets.cache.backend import cache_memoize, cache_memoize_iter, make_cache_key
from fastblets.cache.errors import CacheRefusedError
from fastblets.cache.policy import CachePolicy
from fastblets.cache.tags import invalidate_tags
from fastblets.cache.values import (
    cache_add,
    cache_delete,
    cache_delete_many,
    cache_expire,
    cache_get,
    cache_get_many,
    cache_set,
    cache_set_many,
)
from fastblets.protect.locks import CacheLock
from fastblets.signals import KINDS, cache_event
from tests.faults import failing, replaced

pytestmark = pytest.mark.django_db

PAGE = (Path(__file__).parent.parent / "docs" / "events.md").read_text()
KEY = ("report", "17")
FULL_KEY = "example.com:report:17"


class Events(list[dict[str, Any]]):
    """The events that were sent."""

    def receive(self, sender: object, signal: object, **event: Any) -> None:
        assert sender is None
        assert event.keys() == {"kind", "name", "seconds", "bytes", "chunks"}
        self.append(event)

    def take(self) -> list[str]:
        """Return their kinds, and forget them."""
        kinds = [event["kind"] for event in self]
        self.clear()
        return kinds

    def only(self, kind: str) -> dict[str, Any]:
        (event,) = [event for event in self if event["kind"] == kind]
        return event


@pytest.fixture
def events() -> Iterator[Events]:
    found = Events()
    cache_event.connect(found.receive)
    yield found
    cache_event.disconnect(found.receive)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let so many seconds pass."""
    real, passed = time.time, 0.0

    def wait(seconds: float) -> None:
        nonlocal passed
        passed += seconds

    monkeypatch.setattr(time, "time", lambda: real() + passed)
    return wait


@dataclass(frozen=True)
class Form:
    """A form of entries, and options for it."""

    name: str
    options: dict[str, Any]
    is_stream: bool = False

    def memoize(self, produce: Callable[[], Any], key: Any = KEY, **options: Any) -> Any:
        if self.is_stream:
            (value,) = cache_memoize_iter(key, lambda: iter([produce()]), **options)
            return value
        return cache_memoize(key, produce, **self.options, **options)


SMALL = Form("small", {})
ENCRYPTED = Form("encrypted", {"use_encryption": True})
LARGE = Form("large", {"large_data": True})
STREAM = Form("stream", {}, is_stream=True)
FORMS = pytest.mark.parametrize("form", [SMALL, ENCRYPTED, LARGE, STREAM], ids=lambda form: form.name)

WAYS: dict[str, Callable[[], dict[str, Any]]] = {
    "alone": dict,
    "lock": lambda: {"lock": CacheLock()},
    "tags": lambda: {"tags": ["tag"]},
    "policy": lambda: {"policy": CachePolicy(stale_while_revalidate=60, stale_if_error=600)},
}
EVERY_WAY = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def fail() -> Any:
    raise ZeroDivisionError


def stale(**fields: Any) -> dict[str, Any]:
    """The options of a call whose value expires after 10 seconds."""
    return {"expiration": 10, "policy": CachePolicy(stale_while_revalidate=60, stale_if_error=600, **fields)}


# Which events


@FORMS
@EVERY_WAY
def test_a_value_is_computed_and_found(
    cache_backend: BaseCache, events: Events, form: Form, way: Callable[[], dict[str, Any]]
) -> None:
    for expected in (["miss", "computed", "stored"], ["hit"], ["hit"]):
        assert form.memoize(lambda: "value", **way()) == "value"
        assert {event["name"] for event in events} == {"report"}
        assert events.take() == expected


@FORMS
@EVERY_WAY
def test_what_events_tell(locmem: BaseCache, events: Events, form: Form, way: Callable[[], dict[str, Any]]) -> None:
    # Compressed, it has two chunks.
    text = "".join(random.Random(1).choices("0123456789abcdefghijklmnopqrstuvwxyz", k=1_600_000))

    def produce() -> str:
        time.sleep(0.02)
        return text

    form.memoize(produce, **way())
    computed, stored = events.only("computed"), events.only("stored")
    assert computed["seconds"] >= 0.02
    assert computed["bytes"] is computed["chunks"] is None
    assert stored["seconds"] > 0
    if form is SMALL:
        assert stored["bytes"] is stored["chunks"] is None
    elif form is ENCRYPTED:
        assert stored["bytes"] == len(cache.get(make_cache_key(KEY, use_encryption=True)))
        assert stored["chunks"] is None
    else:
        assert stored["chunks"] == 2
        held = sum(len(cache.get(f"{FULL_KEY}-{number}")[0]) for number in range(2))
        assert 1_000_000 < stored["bytes"] <= held < stored["bytes"] + 200
    miss = events.only("miss")
    assert miss["seconds"] is miss["bytes"] is miss["chunks"] is None


def test_a_stream_counts_neither_its_reader_nor_the_cache_as_computing(locmem: BaseCache, events: Events) -> None:
    def produce() -> Iterator[int]:
        for number in range(3):
            time.sleep(0.02)
            yield number

    for options in ({}, {"policy": CachePolicy()}):
        start = time.monotonic()
        for _ in cache_memoize_iter(("stream", str(options)), produce, **options):
            time.sleep(0.1)
        without_reader = time.monotonic() - start - 0.3
        computed, stored = events.only("computed")["seconds"], events.only("stored")["seconds"]
        assert computed >= 0.06
        assert computed + stored <= without_reader
        events.clear()


@EVERY_WAY
def test_a_stream_that_is_given_up(locmem: BaseCache, events: Events, way: Callable[[], dict[str, Any]]) -> None:
    stream = cache_memoize_iter(KEY, lambda: iter([1, 2]), **way())
    next(stream)
    stream.close()
    assert events.take() == ["miss"]


@FORMS
@EVERY_WAY
def test_computing_that_fails(locmem: BaseCache, events: Events, form: Form, way: Callable[[], dict[str, Any]]) -> None:
    with pytest.raises(ZeroDivisionError):
        form.memoize(fail, **way())
    assert events.take() == ["miss"]


@FORMS
@EVERY_WAY
def test_overwriting(locmem: BaseCache, events: Events, form: Form, way: Callable[[], dict[str, Any]]) -> None:
    for _ in range(2):
        form.memoize(lambda: 1, force_overwrite=True, **way())
        assert events.take() == ["computed", "stored"]


@FORMS
@EVERY_WAY
def test_a_value_that_is_not_to_be_kept(
    locmem: BaseCache, events: Events, form: Form, way: Callable[[], dict[str, Any]]
) -> None:
    form.memoize(lambda: 1, expiration=lambda _: 0, **way())
    assert events.take() == ["miss", "computed"]


class Unpicklable:
    def __reduce__(self) -> Any:
        raise TypeError("not to be pickled")


@FORMS
@EVERY_WAY
def test_a_value_that_cannot_be_pickled(
    locmem: BaseCache, events: Events, form: Form, way: Callable[[], dict[str, Any]]
) -> None:
    form.memoize(Unpicklable, **way())
    if form is STREAM:
        # Each item is pickled before the next is computed.
        assert events.take() == ["miss", "refused", "computed"]
    else:
        # A small value that is not encrypted is pickled in the call of the cache.
        assert events.take() == ["miss", "computed", *(["error"] if form is SMALL else []), "refused"]


@FORMS
@EVERY_WAY
def test_a_cache_that_cannot_be_read(
    locmem: BaseCache, events: Events, form: Form, way: Callable[[], dict[str, Any]]
) -> None:
    form.memoize(lambda: 1, **way())
    events.clear()
    with replaced(cache, get=partial(unreachable, "get"), get_many=partial(unreachable, "get_many")):
        assert form.memoize(lambda: 2, **way()) == 2
    # The call asks nothing more.
    assert events.take() == ["error", "miss", "computed"]


def unreachable(name: str, *args: Any, **kwargs: Any) -> Any:
    raise OperationalError(f"{name} fails")


@FORMS
@EVERY_WAY
def test_a_cache_that_cannot_be_written(
    locmem: BaseCache, events: Events, form: Form, way: Callable[[], dict[str, Any]]
) -> None:
    with failing("set", "set_many"):
        form.memoize(lambda: 1, **way())
    assert events.take() == ["miss", "computed", "error", "refused"]


def damage(form: Form) -> None:
    key = make_cache_key(KEY, use_encryption=form is ENCRYPTED)
    if form is SMALL:
        vars(caches["default"])["_cache"][f":1:{key}"] = b"no pickle"
    elif form is ENCRYPTED:
        cache.set(key, b"not encrypted")
    else:
        cache.delete(f"{key}-0")


@FORMS
@EVERY_WAY
def test_an_unreadable_entry_is_healed(
    locmem: BaseCache, events: Events, form: Form, way: Callable[[], dict[str, Any]]
) -> None:
    form.memoize(lambda: 1, **way())
    damage(form)
    events.clear()
    assert form.memoize(lambda: 2, **way()) == 2
    kinds = events.take()
    # A small value that is not encrypted is unpickled in the call of the cache. With a lock it is looked for twice.
    assert set(kinds[:-4]) == ({"error"} if form is SMALL else set())
    assert kinds[-4:] == ["miss", "computed", "stored", "healed"]
    form.memoize(fail, **way())
    assert events.take() == ["hit"]


@FORMS
def test_a_value_under_an_older_key(locmem: BaseCache, events: Events, form: Form) -> None:
    for number, options in enumerate(({}, {"policy": CachePolicy()})):
        key = ("report", str(number))
        with override_settings(DJBLETS_CACHE_FORCE_ENCRYPTION=True, DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY=b"o" * 16):
            form.memoize(lambda: 1, key, **options)
        events.clear()
        with override_settings(
            DJBLETS_CACHE_FORCE_ENCRYPTION=True,
            DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY=b"n" * 16,
            FASTBLETS_ENCRYPTION_KEY_FALLBACKS=[b"o" * 16],
        ):
            form.memoize(fail, key, **options)
            assert events.take() == ["hit", "stored"]
            form.memoize(fail, key, **options)
            assert events.take() == ["hit"]


# With a policy


@FORMS
def test_a_stale_value(locmem: BaseCache, events: Events, form: Form, later: Callable[[float], None]) -> None:
    form.memoize(lambda: "old", **stale())
    events.clear()
    later(15)

    # One call computes.
    assert form.memoize(lambda: form.memoize(fail, **stale()) + " and new", **stale()) == "old and new"
    assert 5 <= events.only("stale")["seconds"] < 60
    assert events.take() == ["miss", "stale", "computed", "stored"]


def test_a_stale_value_by_hand(locmem: BaseCache, events: Events, later: Callable[[float], None]) -> None:
    policy = CachePolicy(stale_if_error=60)
    cache_set(KEY, 1, expiration=10, policy=policy)
    assert events.take() == ["stored"]
    later(15)
    assert cache_get(KEY, policy=policy) is None
    assert cache_get(KEY, policy=policy, allow_stale=True) == 1
    assert cache_get(KEY) == 1
    assert events.take() == ["miss", "stale", "hit"]
    assert cache_expire(KEY, policy=policy)
    assert events.take() == ["invalidated"]


@FORMS
def test_a_stale_value_while_another_computes(
    locmem: BaseCache, events: Events, form: Form, later: Callable[[float], None]
) -> None:
    form.memoize(lambda: "old", **stale())
    events.clear()
    later(15)
    lock = CacheLock()
    lock.full_cache_key = make_cache_key(("_lock_", *KEY), use_encryption=form is ENCRYPTED)
    with lock:
        assert form.memoize(fail, **stale()) == "old"
    assert events.take() == ["stale"]


@FORMS
@pytest.mark.parametrize("seconds", [15, 200], ids=["stale", "expired"])
def test_computing_fails_and_the_old_value_is_served(
    locmem: BaseCache, events: Events, form: Form, later: Callable[[float], None], seconds: int
) -> None:
    form.memoize(lambda: "old", **stale())
    events.clear()
    later(seconds)
    assert form.memoize(fail, **stale()) == "old"
    assert seconds - 10.01 <= events.only("stale")["seconds"] < seconds + 50
    assert events.only("backoff")["seconds"] >= 0
    assert events.take() == ["miss", "backoff", "stale"]
    # Nobody tries again for a while.
    assert form.memoize(fail, **stale()) == "old"
    assert events.take() == ["stale"]


@FORMS
def test_computing_fails_and_the_old_value_is_too_old(
    locmem: BaseCache, events: Events, form: Form, later: Callable[[float], None]
) -> None:
    policy = CachePolicy(stale_while_revalidate=60)
    form.memoize(lambda: "old", expiration=10, policy=policy)
    events.clear()
    later(15)
    with pytest.raises(ZeroDivisionError):
        form.memoize(fail, expiration=10, policy=policy)
    assert events.take() == ["miss", "backoff"]


@FORMS
def test_computing_early(
    locmem: BaseCache, events: Events, form: Form, later: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.random", lambda: 1 - 1e-9)
    options = {"expiration": 1000, "policy": CachePolicy(early=1e6, stale_if_error=60)}
    form.memoize(lambda: time.sleep(0.01) or "old", **options)
    events.clear()
    later(800)
    assert form.memoize(fail, **options) == "old"
    assert 0 < events.only("early")["seconds"] <= 200
    assert events.take() == ["early", "backoff", "hit"]
    # The backoff holds for them, too.
    assert form.memoize(fail, **options) == "old"
    assert events.take() == ["hit"]

    cache.delete(make_cache_key(("_lock_", *KEY), use_encryption=form is ENCRYPTED))
    assert form.memoize(lambda: "new", **options) == "new"
    assert events.take() == ["early", "computed", "stored"]
    assert form.memoize(fail, **options) == "new"
    assert events.take() == ["hit"]


@FORMS
def test_a_runner_computes(locmem: BaseCache, events: Events, form: Form, later: Callable[[float], None]) -> None:
    jobs: list[Callable[[], None]] = []
    options = stale(refresh=jobs.append)
    form.memoize(lambda: "old", **options)
    events.clear()
    later(15)
    assert form.memoize(lambda: "new", **options) == "old"
    assert events.take() == ["miss", "stale"]
    jobs.pop()()
    assert events.take() == ["computed", "stored"]
    assert form.memoize(fail, **options) == "new"
    assert events.take() == ["hit"]


# Waiting


def run_beside(first: Callable[[threading.Event, threading.Event], Any], second: Callable[[], Any]) -> None:
    """Run the first in a thread. Run the second once the first says so, and let the first end a moment later."""
    has_begun, may_end = threading.Event(), threading.Event()
    thread = threading.Thread(target=first, args=(has_begun, may_end))
    thread.start()
    assert has_begun.wait(10)
    timer = threading.Timer(0.5, may_end.set)
    timer.start()
    try:
        second()
    finally:
        may_end.set()
        timer.join()
        thread.join()


@FORMS
@pytest.mark.parametrize("way", ["lock", "policy"])
def test_waiting_for_another_computation(locmem: BaseCache, events: Events, form: Form, way: str) -> None:
    make_cache_key("the site is known")
    by_thread: dict[int, list[str]] = {}
    waited: list[float] = []

    def sort(kind: str, seconds: float | None, **_: Any) -> None:
        by_thread.setdefault(threading.get_ident(), []).append(kind)
        if kind == "lock_wait":
            waited.append(seconds)  # type: ignore[arg-type]

    def first(has_begun: threading.Event, may_end: threading.Event) -> None:
        form.memoize(lambda: has_begun.set() or may_end.wait(10), **WAYS[way]())

    cache_event.connect(sort)
    try:
        run_beside(first, lambda: form.memoize(fail, **WAYS[way]()))
    finally:
        cache_event.disconnect(sort)
    assert by_thread.pop(threading.get_ident()) == ["lock_wait", "hit"]
    assert list(by_thread.values()) == [["miss", "computed", "stored"]]
    assert waited[0] > 0


@FORMS
def test_waiting_in_vain(locmem: BaseCache, events: Events, form: Form) -> None:
    lock = CacheLock()
    lock.full_cache_key = make_cache_key(("_lock_", *KEY), use_encryption=form is ENCRYPTED)
    with lock:
        form.memoize(lambda: 1, lock=CacheLock(timeout_secs=0.3))
        assert events.only("lock_timeout")["seconds"] >= 0.3
        assert events.take() == ["lock_timeout", "miss", "computed", "stored"]
        cache_delete(KEY, **({"use_encryption": True} if form is ENCRYPTED else {}))
        events.clear()
        form.memoize(lambda: 1, policy=CachePolicy(wait=0.3))
        assert events.only("lock_timeout")["seconds"] >= 0.3
        assert events.take() == ["lock_timeout", "miss", "computed", "stored"]


def test_waiting_in_vain_for_the_leader_of_this_process(locmem: BaseCache, events: Events) -> None:
    make_cache_key("the site is known")
    policy = CachePolicy(wait=0.1)

    def first(has_begun: threading.Event, may_end: threading.Event) -> None:
        cache_memoize(KEY, lambda: has_begun.set() or may_end.wait(10), policy=policy)

    def second() -> None:
        events.clear()
        cache_memoize(KEY, lambda: 1, policy=policy)
        assert events.only("lock_timeout")["seconds"] >= 0.1
        assert events.take() == ["lock_timeout", "miss", "computed", "stored"]

    run_beside(first, second)


@pytest.mark.parametrize("way", ["lock", "policy"])
@FORMS
def test_a_lock_that_is_free_is_no_wait(locmem: BaseCache, events: Events, form: Form, way: str) -> None:
    form.memoize(lambda: 1, **WAYS[way]())
    assert events.take() == ["miss", "computed", "stored"]


@FORMS
@pytest.mark.parametrize("way", ["lock", "policy"])
def test_a_lock_that_fails(locmem: BaseCache, events: Events, form: Form, way: str) -> None:
    with failing("add"):
        form.memoize(lambda: 1, **WAYS[way]())
    kinds = events.take()
    assert kinds[0] == "error"
    assert [kind for kind in kinds if kind != "error"] == ["miss", "computed", "stored"]


@pytest.mark.parametrize("way", ["lock", "policy"])
def test_a_computation_that_asks_for_its_own_key(locmem: BaseCache, events: Events, way: str) -> None:
    assert cache_memoize(KEY, lambda: cache_memoize(KEY, lambda: 1, **WAYS[way]()), **WAYS[way]()) == 1
    assert events.take() == ["miss", "miss", "computed", "computed", "stored"]


# By hand


@pytest.mark.parametrize("form", [SMALL, ENCRYPTED, LARGE], ids=lambda form: form.name)
def test_values_by_hand(cache_backend: BaseCache, events: Events, form: Form) -> None:
    options = form.options
    assert cache_get(KEY, **options) is None
    assert events.take() == ["miss"]
    assert cache_set(KEY, 1, **options)
    assert events.take() == ["stored"]
    assert cache_get(KEY, **options) == 1
    assert events.take() == ["hit"]
    assert not cache_set_many({("a", "1"): 1, ("b", "1"): 2}, **options)
    assert [event["name"] for event in events] == ["a", "b"]
    assert events.take() == ["stored", "stored"]
    assert len(cache_get_many([("a", "1"), ("c", "1"), ("b", "1")], **options)) == 2
    assert [event["name"] for event in events] == ["a", "c", "b"]
    assert events.take() == ["hit", "miss", "hit"]
    options = {name: option for name, option in options.items() if name == "use_encryption"}
    assert cache_delete(KEY, **options)
    assert events.take() == ["invalidated"]
    assert not cache_delete(KEY, **options)
    assert events.take() == ["invalidated"]
    assert cache_delete_many([("a", "1")], **options)
    assert events.take() == ["invalidated"]
    assert cache_expire(("b", "1"), **options)
    assert [event["name"] for event in events] == ["b"]
    assert events.take() == ["invalidated"]


def test_adding(locmem: BaseCache, events: Events) -> None:
    assert cache_add(KEY, 1)
    assert events.take() == ["stored"]
    assert not cache_add(KEY, 1)
    assert events.take() == []
    with replaced(cache, add=lambda *_, **__: False), pytest.raises(CacheRefusedError):
        cache_add("other", 1)
    assert events.take() == ["refused"]


@pytest.mark.parametrize("form", [SMALL, ENCRYPTED, LARGE], ids=lambda form: form.name)
def test_values_by_hand_that_are_not_stored(locmem: BaseCache, events: Events, form: Form) -> None:
    assert not cache_set(KEY, Unpicklable(), **form.options)
    assert [kind for kind in events.take() if kind != "error"] == ["refused"]
    with failing("set", "set_many"):
        assert not cache_set(KEY, 1, **form.options)
    assert events.take() == ["error", "refused"]
    assert not cache_set(KEY, 1, expiration=lambda _: 0, **form.options)
    assert events.take() == []
    with failing("get", "get_many"):
        assert cache_get(KEY, **form.options) is None
    kinds = events.take()
    assert (kinds[0], kinds[-1]) == ("error", "miss")


def test_invalidating_that_fails(locmem: BaseCache, events: Events) -> None:
    with failing("set", "set_many"):
        for invalidate in (lambda: cache_delete(KEY), lambda: invalidate_tags(KEY)):
            with pytest.raises(Exception, match="fails"):
                invalidate()
            assert events.only("error")["name"] == "report"
            assert events.take() == ["error"]


def test_invalidating_tags(locmem: BaseCache, events: Events) -> None:
    invalidate_tags("secret", ("user", "17"), ["alone"])
    assert [event["name"] for event in events] == ["other", "user", "other"]
    assert events.take() == ["invalidated"] * 3
    invalidate_tags()
    assert events.take() == []


@pytest.mark.django_db(transaction=True)
def test_invalidating_after_the_transaction(locmem: BaseCache, events: Events) -> None:
    with transaction.atomic():
        cache_delete(KEY, on_commit=True)
        invalidate_tags("tag", on_commit=True)
        assert events.take() == []
    assert events.take() == ["invalidated", "invalidated"]


# Names


@pytest.mark.parametrize(
    ("key", "name", "expected"),
    [
        ("secret", None, "other"),
        (["secret"], None, "other"),
        (("first", "secret"), None, "first"),
        (["first", "secret"], None, "first"),
        (["", "secret"], None, "other"),
        ("secret", "given", "given"),
        (["first", "secret"], "given", "given"),
    ],
)
def test_names(locmem: BaseCache, events: Events, key: Any, name: str | None, expected: str) -> None:
    cache_memoize(key, lambda: 1, name=name)
    list(cache_memoize_iter(key, lambda: [1], name=name, force_overwrite=True))
    assert {event["name"] for event in events} == {expected}
    assert len(events) == 5


@pytest.mark.parametrize("name", [1, b"name", ("name",)])
def test_a_name_of_a_wrong_type(locmem: BaseCache, name: Any) -> None:
    with pytest.raises(TypeError, match="name must be a string, not of type"):
        cache_memoize(KEY, lambda: 1, name=name)
    with pytest.raises(TypeError, match="name must be a string, not of type"):
        list(cache_memoize_iter(KEY, lambda: [1], name=name))


# Receivers


def connected(*receivers: Callable[..., Any]) -> ExitStack:
    stack = ExitStack()
    for receiver in receivers:
        cache_event.connect(receiver, weak=False)
        stack.callback(cache_event.disconnect, receiver)
    return stack


@FORMS
@EVERY_WAY
def test_a_receiver_that_raises_disturbs_nothing(
    locmem: BaseCache,
    events: Events,
    caplog: pytest.LogCaptureFixture,
    form: Form,
    way: Callable[[], dict[str, Any]],
) -> None:
    def receive(**_: Any) -> None:
        raise ValueError("a fault of the receiver")

    with connected(receive):
        for _ in range(2):
            assert form.memoize(lambda: 1, **way()) == 1
        cache_delete(KEY)
    assert events.take() == ["miss", "computed", "stored", "hit", "invalidated"]
    assert [record.levelno for record in caplog.records if "a fault of the receiver" in record.getMessage()] == [
        logging.ERROR
    ] * 5


def test_a_receiver_without_a_name_that_raises(locmem: BaseCache, caplog: pytest.LogCaptureFixture) -> None:
    """Before Django 5, Django itself fails to log it."""

    def receive(text: str, **_: Any) -> None:
        raise ValueError(text)

    with connected(partial(receive, "a fault")):
        assert cache_memoize(KEY, lambda: 1) == 1
        assert cache_memoize(KEY, fail) == 1
    assert caplog.records


def test_a_time_limit_in_a_receiver_ends_the_call(locmem: BaseCache, events: Events) -> None:
    class SoftTimeLimitExceeded(Exception):
        __module__ = "billiard.exceptions"

    def receive(kind: str, **_: Any) -> None:
        if kind == "hit":
            raise SoftTimeLimitExceeded

    cache_memoize(KEY, lambda: 1)
    with connected(receive), pytest.raises(SoftTimeLimitExceeded):
        cache_memoize(KEY, lambda: 1)
    # The next event is sent as usual.
    events.clear()
    cache_memoize(KEY, lambda: 1)
    assert events.take() == ["hit"]


def test_a_receiver_that_uses_the_cache(locmem: BaseCache, events: Events) -> None:
    seen = []

    def receive(kind: str, **_: Any) -> None:
        seen.append((kind, cache_memoize(("names", kind), lambda: f"text for {kind}")))
        cache_set("last", kind)

    with connected(receive):
        cache_memoize(KEY, lambda: 1)
    assert seen == [(kind, f"text for {kind}") for kind in ("miss", "computed", "stored")]
    # What the receiver did sent no events.
    assert events.take() == ["miss", "computed", "stored"]
    assert cache_get("last") == "stored"


@pytest.mark.skipif(django.VERSION < (5, 0), reason="asynchronous receivers came with Django 5")
def test_an_asynchronous_receiver(locmem: BaseCache) -> None:
    kinds = []

    async def receive(kind: str, **_: Any) -> None:
        await asyncio.sleep(0)
        cache_memoize("of the receiver", lambda: 1)
        kinds.append(kind)

    with connected(receive):
        cache_memoize(KEY, lambda: 1)
    assert kinds == ["miss", "computed", "stored"]


@pytest.mark.skipif(django.VERSION < (5, 0), reason="asynchronous receivers came with Django 5")
def test_an_asynchronous_receiver_of_a_call_in_an_event_loop(
    locmem: BaseCache, caplog: pytest.LogCaptureFixture
) -> None:
    async def receive(**_: Any) -> None:
        pytest.fail("it can't be called here")

    async def call() -> int:
        return cache_memoize(KEY, lambda: 1)

    make_cache_key("the site is known")
    with connected(receive):
        assert asyncio.run(call()) == 1
        gc.collect()
    assert any("Error sending cache_event" in record.getMessage() for record in caplog.records)


def test_nothing_is_sent_without_receivers(locmem: BaseCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even a name is made."""
    monkeypatch.setattr("fastblets.cache.entry.make_name", fail)
    for form in (SMALL, ENCRYPTED, LARGE, STREAM):
        for way in WAYS.values():
            for _ in range(2):
                form.memoize(lambda: 1, (form.name, str(way)), **way())
    cache_set(KEY, 1)
    cache_get(KEY)


def test_the_page_has_all_kinds() -> None:
    assert re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)[: len(KINDS)] == list(KINDS)
