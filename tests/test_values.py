"""Values by hand: what is stored, read, looked for, added and removed, and how often the cache is asked for it."""

from __future__ import annotations

import pickle
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.core.cache import InvalidCacheBackendError, caches
from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.db import DatabaseCache
from django.core.cache.backends.memcached import BaseMemcachedCache
from django.core.exceptions import ImproperlyConfigured
from django.db.utils import OperationalError
from django.test import override_settings

from fastblets.cache.backend import CACHE_CHUNK_SIZE, cache_memoize, cache_memoize_iter, make_cache_key
from fastblets.cache.errors import CacheRefusedError, SiteUnavailableError, UnreachableError
from fastblets.cache.kinds import unwrap
from fastblets.cache.values import (
    cache_add,
    cache_delete,
    cache_delete_many,
    cache_exists,
    cache_get,
    cache_get_many,
    cache_set,
    cache_set_many,
)
from tests.backends import FORWARDED, stored_bytes, use_cache, without_marks
from tests.faults import failing, replaced
from tests.parity import Library, Parity
from tests.vectors.cases import noise

pytestmark = pytest.mark.django_db

OLDEST, OLD, NEW = b"the oldest key..", b"the old key of 24 bytes.", b"the newest key.."
SECRET = {"use_encryption": True}
LARGE: dict[str, Any] = {"large_data": True}
FORMS: dict[str, dict[str, Any]] = {
    "small": {},
    "encrypted": SECRET,
    "encrypted sealed": {**SECRET, "seal": "require"},
    "large": LARGE,
    "large plain": {**LARGE, "compress_large_data": False},
    "large encrypted": {**LARGE, **SECRET},
    "large sealed": {**LARGE, "seal": "require"},
    "large plain encrypted sealed": {**LARGE, **SECRET, "compress_large_data": False, "seal": True},
}
forms = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
MISSING = object()
#: Three chunks in each mode.
BIG = random.Random(3).randbytes(2_500_000)


def never() -> Any:
    pytest.fail("computed again")


def address(form: dict[str, Any]) -> dict[str, Any]:
    """The options that deleting and looking take."""
    return {name: value for name, value in form.items() if name in ("use_encryption", "encryption_key")}


def big_or_small(form: dict[str, Any]) -> Any:
    return {"bytes": BIG} if form.get("large_data") else {"a": [1, None]}


@contextmanager
def counted(cache: BaseCache) -> Iterator[list[str]]:
    """The calls of the cache, without those that it makes of itself."""
    calls: list[str] = []
    depth = 0

    def spy(name: str) -> Callable[..., Any]:
        real = getattr(cache, name)

        def call(*args: Any, **options: Any) -> Any:
            nonlocal depth
            if depth == 0:
                calls.append(name)
            depth += 1
            try:
                return real(*args, **options)
            finally:
                depth -= 1

        return call

    names = ("get", "set", "add", "delete", "get_many", "set_many", "delete_many", "has_key", "touch")
    with replaced(cache, **{name: spy(name) for name in names}):
        yield calls


@pytest.mark.every_backend
@forms
def test_a_life(form: dict[str, Any], cache_backend: BaseCache) -> None:
    value, where = big_or_small(form), address(form)
    large = form.get("large_data", False)
    assert cache_get("key", MISSING, **form) is MISSING
    assert not cache_exists("key", **where)
    assert cache_set("key", value, **form) is True
    assert cache_get("key", MISSING, **form) == value
    assert cache_memoize("key", never, **form) == value
    assert cache_exists("key", **where)
    assert cache_exists("key", large_data=large, **where)
    assert not cache_exists("key", large_data=not large, **where)
    assert cache_delete("key", **where) is True
    assert not cache_exists("key", **where)
    assert cache_get("key", MISSING, **form) is MISSING
    assert cache_delete("key", **where) is False
    # Stored by a memoize function, overwritten by hand.
    cache_memoize("key", lambda: value, **form)
    assert cache_get("key", **form) == value
    assert cache_set("key", None, **form) is True
    assert cache_get("key", MISSING, **form) is None


@forms
def test_many_lives(form: dict[str, Any], cache_backend: BaseCache) -> None:
    where = address(form)
    values: dict[Any, Any] = {("user", str(number)): number for number in range(5)}
    values["big"] = big_or_small(form)
    keys = [*values, "missing"]
    assert cache_get_many(keys, **form) == {}
    assert cache_set_many(values, **form) == []
    assert cache_get_many(keys, **form) == values
    assert cache_get("big", **form) == values["big"]
    assert cache_get(["user", "3"], **form) == 3
    assert cache_delete_many(["big", "missing", ("user", "1")], **where) == ["big", ("user", "1")]
    assert list(cache_get_many(keys, **form)) == [("user", str(number)) for number in (0, 2, 3, 4)]
    assert cache_delete_many(keys, **where) == [("user", str(number)) for number in (0, 2, 3, 4)]


@forms
def test_nothing_stays(form: dict[str, Any], locmem: BaseCache) -> None:
    for large_data in (None, form.get("large_data", False)):
        cache_set("key", big_or_small(form), **form)
        assert cache_delete("key", large_data=large_data, **address(form))
        assert without_marks(stored_bytes(locmem)) == {}
    cache_set("key", big_or_small(form), **form)
    cache_set("key", 1, **form, expiration=lambda _: 0)
    assert without_marks(stored_bytes(locmem)) == {}
    items = [noise(1_000_000)] * 3
    list(cache_memoize_iter("items", items, **address(form)))
    assert cache_delete("items", **address(form))
    assert without_marks(stored_bytes(locmem)) == {}


def test_without_keys(locmem: BaseCache) -> None:
    with counted(locmem) as calls:
        assert cache_get_many([]) == {}
        assert cache_set_many({}) == cache_delete_many([]) == []
    assert calls == []


@pytest.mark.parametrize("stored", FORMS)
@pytest.mark.parametrize("read", FORMS)
def test_other_options_are_a_miss_where_that_can_be_told(stored: str, read: str, locmem: BaseCache) -> None:
    def shape(name: str) -> set[str]:
        return set(name.split()) - {"sealed", "small"}

    value = ["value"]
    cache_set("key", value, **FORMS[stored])
    found = cache_get("key", MISSING, **FORMS[read])
    assert found in (value, MISSING)
    if shape(stored) != shape(read):
        assert found is MISSING
    elif "sealed" not in read or FORMS[stored].get("seal") == FORMS[read].get("seal"):
        assert found == value


@pytest.mark.parametrize("options", [{}, SECRET], ids=["clear", "encrypted"])
def test_a_count_is_no_value_and_a_value_no_count(options: dict[str, Any], cache_backend: BaseCache) -> None:
    cache_set("large", BIG, **LARGE, **options)
    assert cache_get("large", MISSING, **options) is MISSING
    assert cache_get_many(["large"], **options) == {}
    # As in Djblets.
    assert cache_memoize("large", never, **options) == "3"
    # And a text that looks like one is none.
    for text in ("3", "0"):
        cache_set("small", text, **options)
        assert cache_get("small", **options) == text
        assert cache_exists("small", large_data=False, **options)
        # "0" is also the count of an iterable without items.
        assert cache_exists("small", large_data=True, **options) is (text == "0")
    # Where there was a large entry, its chunks could make it one.
    cache_set("large", "3", **options)
    assert cache_get("large", **options) == "3"
    cache_set("large", BIG, **LARGE, **options)
    cache_backend.delete(make_cache_key("large", **options))
    assert cache_add("large", "2", **options)
    assert cache_get("large", **options) == "2"


def test_deleting_a_text_that_looks_like_a_count(locmem: BaseCache) -> None:
    # Those of other entries, by chance.
    cache_set("key-0", "mine")
    cache_set("key-1", "mine")
    cache_set("key", "2")
    assert cache_delete("key")
    assert cache_get_many(["key-0", "key-1"]) == {"key-0": "mine", "key-1": "mine"}


@pytest.mark.parametrize("fail", [False, True], ids=["", "failing"])
def test_a_last_chunk_that_is_full(fail: bool, locmem: BaseCache, caplog: pytest.LogCaptureFixture) -> None:
    plain: dict[str, Any] = {**LARGE, "compress_large_data": False}
    text = "x" * (2 * CACHE_CHUNK_SIZE - len(pickle.dumps("", 0)))
    cache_set("key", BIG, **plain)
    assert make_cache_key("key-2") in locmem
    if fail:
        with failing("delete_many", when=lambda keys: keys == [make_cache_key("key-2")]):
            assert cache_set("key", text, **plain) is False
        assert "Error deleting cache key" in caplog.text
        assert cache_get("key", MISSING, **plain) is MISSING
    assert cache_set("key", text, **plain) is True
    assert cache_get("key", **plain) == cache_memoize("key", never, **plain) == text
    assert make_cache_key("key-1") in locmem
    assert make_cache_key("key-2") not in locmem


def test_a_count_that_is_absurd(locmem: BaseCache) -> None:
    cache_set("key", BIG, **LARGE)
    locmem.set(make_cache_key("key"), "9" * 18)
    assert cache_get("key", MISSING, **LARGE) is MISSING
    with counted(locmem) as calls:
        assert cache_delete("key")
    assert len(calls) < 100
    assert without_marks(stored_bytes(locmem)) == {}


@forms
@pytest.mark.parametrize("older", [OLD, OLDEST], ids=["old", "oldest"])
def test_older_keys(form: dict[str, Any], older: bytes, locmem: BaseCache) -> None:
    form = {**form, **SECRET}
    value = big_or_small(form)

    def store() -> None:
        with override_settings(DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY=older):
            assert cache_set("key", value, **form)

    store()
    with override_settings(
        DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY=NEW,
        # Listed twice by mistake.
        FASTBLETS_ENCRYPTION_KEY_FALLBACKS=[OLD, OLD, OLDEST],
    ):
        before = stored_bytes(locmem)
        assert cache_get("key", **form) == value
        assert cache_get_many(["missing", "key"], **form) == {"key": value}
        assert cache_exists("key", **SECRET)
        assert not cache_add("key", 1, **SECRET)
        assert stored_bytes(locmem) == before
        assert cache_delete("key", **SECRET)
        assert without_marks(stored_bytes(locmem)) == {}
        store()
        assert cache_set("key", "new", **form)
        with override_settings(DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY=older, FASTBLETS_ENCRYPTION_KEY_FALLBACKS=[]):
            assert not cache_exists("key", **SECRET)
        assert cache_get("key", **form) == "new"
        assert cache_delete("key", **SECRET)
        assert not cache_exists("key", **SECRET)


def test_many_under_keys_of_several_ages(locmem: BaseCache) -> None:
    for key in (OLDEST, OLD, NEW):
        with override_settings(DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY=key):
            cache_set_many({"all": key, key.decode(): key}, **SECRET)
    with override_settings(DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY=NEW, FASTBLETS_ENCRYPTION_KEY_FALLBACKS=[OLD, OLDEST]):
        wanted = ["all", *(key.decode() for key in (OLDEST, OLD, NEW))]
        assert cache_get_many(wanted, **SECRET) == {
            "all": NEW,
            **{key.decode(): key for key in (OLDEST, OLD, NEW)},
        }
        assert cache_delete_many(wanted, **SECRET) == wanted
        assert without_marks(stored_bytes(locmem)) == {}


def test_an_unreadable_entry_is_newer_than_one_under_an_older_key(locmem: BaseCache) -> None:
    with override_settings(DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY=OLD):
        cache_set("key", "old", **SECRET)
    with override_settings(DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY=NEW, FASTBLETS_ENCRYPTION_KEY_FALLBACKS=[OLD]):
        locmem.set(make_cache_key("key", **SECRET), b"damaged")
        assert cache_get("key", MISSING, **SECRET) is MISSING
        assert not cache_exists("key", **SECRET)
        assert cache_delete("key", **SECRET)
        assert without_marks(stored_bytes(locmem)) == {}


def test_expirations(locmem: BaseCache, monkeypatch: pytest.MonkeyPatch) -> None:
    timeouts: dict[str, Any] = {}
    real = type(locmem).set

    def spy(self: Any, key: str, value: Any, timeout: Any = None, **more: Any) -> None:
        timeouts[key.rpartition(":")[2]] = timeout
        real(self, key, value, timeout=timeout, **more)

    monkeypatch.setattr(type(locmem), "set", spy)
    cache_set("a", 1, expiration=timedelta(minutes=1))
    cache_set("b", 1, expiration=lambda value: 60 + value)
    cache_set("c", BIG, expiration=lambda value: len(value), **LARGE)
    assert cache_set_many(
        {"d": 1, "e": 2, "f": 1, "g": 0}, expiration=lambda value: value and timedelta(hours=value)
    ) == ["g"]
    assert timeouts == {
        "a": 60,
        "b": 61,
        **dict.fromkeys(["c", "c-0", "c-1", "c-2"], len(BIG)),
        "d": 3600,
        "e": 7200,
        "f": 3600,
    }
    cache_set("a", 2)
    assert cache_set("a", 3, expiration=timedelta()) is False
    assert not cache_exists("a")
    cache_set("a", 2)
    assert cache_add("b", 5, expiration=lambda _: 0) is cache_add("z", 5, expiration=lambda _: 0) is False
    assert cache_get("b") == 1
    assert cache_set("a", 3, expiration=0) is False
    assert not cache_exists("a")
    assert cache_add("a", 3, expiration=0) is False
    for no_time in (float("nan"), lambda _: float("nan")):
        cache_set("a", 2)
        assert cache_set("a", 3, expiration=no_time) is cache_add("z", 3, expiration=no_time) is False  # type: ignore[arg-type]
        assert not cache_exists("z")
    with pytest.raises(ZeroDivisionError):
        cache_set("a", 1, expiration=lambda _: 1 // 0)


@pytest.mark.every_backend
@forms
@pytest.mark.parametrize("tags", [[], ["reports"]], ids=["", "tags"])
def test_what_is_over_at_once_is_gone(form: dict[str, Any], tags: list[str], cache_backend: BaseCache) -> None:
    where = address(form)
    for expiration in (0, -1, timedelta(), timedelta(seconds=-1), lambda _: 0, None):
        cache_set_many({"a": 1, "b": 2, "c": 3}, tags=tags, **form)
        # The setting for calls that say nothing.
        with override_settings(CACHE_EXPIRATION_TIME=0):
            over: Any = {} if expiration is None else {"expiration": expiration}
            assert cache_set("a", 4, tags=tags, **form, **over) is False
            assert cache_set_many({"b": 5, "d": 6}, tags=tags, **form, **over) == ["b", "d"]
        assert [cache_exists(key, **where) for key in "abcd"] == [False, False, True, False]
        assert cache_get_many(list("abcd"), tags=tags, **form) == {"c": 3}
        if "large_data" not in form:
            with override_settings(CACHE_EXPIRATION_TIME=0):
                assert cache_add("a", 7, **form, **over) is cache_add("c", 8, **form, **over) is False
            assert cache_get_many(["a", "c"], **form) == {"c": 3}


@pytest.mark.every_backend
@pytest.mark.parametrize("form", [FORMS["small"], FORMS["encrypted"]], ids=["small", "encrypted"])
def test_adding(form: dict[str, Any], cache_backend: BaseCache) -> None:
    assert cache_add("key", None, **form) is True
    assert cache_add("key", 2, **form) is False
    assert cache_get("key", MISSING, **form) is None
    cache_delete("key", **form)
    assert cache_add("key", 3, **form) is True
    assert cache_get("key", **form) == 3


def test_only_one_caller_adds(shared: dict[str, Any]) -> None:
    barrier = threading.Barrier(8)
    added: list[int] = []

    def add(number: int) -> None:
        barrier.wait()
        if cache_add("key", number):
            added.append(number)

    threads = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert added == [cache_get("key")]


#: The calls of the cache: on memcached, what deletes is a set_many().
CALLS: list[tuple[str, Callable[[], Any], list[str]]] = [
    ("get", lambda: cache_get("small"), ["get_many"]),
    ("get a large one", lambda: cache_get("large", **LARGE), ["get_many"] * 2),
    ("get many", lambda: cache_get_many(["small", "other", "missing"]), ["get_many"]),
    ("get many large ones", lambda: cache_get_many(["large", "large2"], **LARGE), ["get_many"] * 2),
    ("set", lambda: cache_set("small", 1), ["set_many"]),
    ("set many", lambda: cache_set_many({"a": 1, "b": 2}), ["set_many"]),
    ("set a large one", lambda: cache_set("large", BIG, **LARGE), ["delete_many", "set_many", "set_many"]),
    (
        "set many large ones",
        lambda: cache_set_many({"large": BIG, "large2": BIG, "new": 1}, **LARGE),
        ["delete_many", "set_many", "set_many"],
    ),
    ("exists", lambda: cache_exists("small"), ["get_many"]),
    ("exists, large", lambda: cache_exists("large"), ["get_many"]),
    ("add", lambda: cache_add("new", 1), ["add"]),
    ("delete", lambda: cache_delete("small"), ["set_many", "get_many", "delete_many"]),
    (
        "delete a large one",
        lambda: cache_delete("large"),
        ["set_many", "get_many", "delete_many", "get_many", "delete_many"],
    ),
    (
        "delete it as one",
        lambda: cache_delete("large", **LARGE),
        ["set_many", "get_many", "delete_many", "delete_many"],
    ),
    ("delete many", lambda: cache_delete_many(["small", "other"]), ["set_many", "get_many", "delete_many"]),
]


@pytest.mark.parametrize(("call", "expected"), [row[1:] for row in CALLS], ids=[row[0] for row in CALLS])
def test_round_trips(call: Callable[[], Any], expected: list[str], cache_backend: BaseCache) -> None:
    cache_set_many({"small": 1, "other": 2})
    cache_set_many({"large": BIG, "large2": BIG}, **LARGE)
    with counted(cache_backend) as calls:
        call()
    if isinstance(unwrap(cache_backend), BaseMemcachedCache):
        expected = ["set_many" if name == "delete_many" else name for name in expected]
    if isinstance(unwrap(cache_backend), DatabaseCache) and "delete_many" in expected and expected[0] == "set_many":
        # It doesn't tell what it could not store, so that the mark is read back.
        expected = ["set_many", "get_many", *expected[1:]]
    assert calls == expected


def test_chunks_are_fetched_by_64(locmem: BaseCache) -> None:
    big = noise(30 * 1_047_552)
    cache_set_many({"a": big, "b": big, "c": big}, **LARGE, compress_large_data=False)
    cache_set("d", 1, **LARGE)
    with counted(locmem) as calls:
        found = cache_get_many(["a", "b", "c", "d"], **LARGE)
    # 93 chunks and more, those of the compressed one too, which can't be read so.
    assert Counter(calls)["get_many"] == 1 + 2
    assert set(found) == {"d"}
    assert cache_get_many(["a", "b", "c"], **LARGE, compress_large_data=False) == {"a": big, "b": big, "c": big}


def test_chunks_are_stored_by_64(locmem: BaseCache) -> None:
    """Those of several values together, and never more than 64 are kept beside the values."""
    sizes: list[int] = []
    real = locmem.set_many

    def note(data: dict[str, Any], *args: Any, **options: Any) -> Any:
        sizes.append(len(data))
        return real(data, *args, **options)

    big = noise(30 * CACHE_CHUNK_SIZE)
    values = {"a": big, "b": 1, "c": big, "d": big, "e": 2}
    with replaced(locmem, set_many=note):
        assert cache_set_many(values, **LARGE) == []
    # 71 chunks, then the counts.
    assert sizes == [64, 3 * 23 + 2 - 64, 5]
    assert cache_get_many(values, **LARGE) == values
    del sizes[:]
    with replaced(locmem, set_many=note):
        assert cache_set_many(values, **LARGE, expiration=lambda value: 60 if value == big else 90) == []
    assert sizes == [64, 3 * 23 - 64, 3, 2, 2]
    assert cache_get_many(values, **LARGE) == values


@pytest.mark.parametrize("refused", ["a-0", "a-1", "b-0", "c-2"])
def test_a_chunk_that_is_refused_costs_no_other_entry(refused: str, locmem: BaseCache) -> None:
    real = locmem.set_many
    full_key = make_cache_key(refused)

    def refuse(data: dict[str, Any], *args: Any, **options: Any) -> list[str]:
        real({key: value for key, value in data.items() if key != full_key}, *args, **options)
        return [key for key in data if key == full_key]

    values = {"a": BIG, "b": [1], "c": BIG, "d": [2]}
    key = refused[0]
    cache_set_many(values, **LARGE)
    with replaced(locmem, set_many=refuse):
        assert cache_set_many(values, **LARGE) == [key]
    assert cache_get_many(values, **LARGE) == {name: value for name, value in values.items() if name != key}
    assert not cache_exists(key)


def test_one_bad_entry_costs_no_other_one(cache_backend: BaseCache, caplog: pytest.LogCaptureFixture) -> None:
    cache_set_many({"a": 1, "gone": Gone(), "b": 2})
    found = cache_get_many(["a", "gone", "b"])
    assert found.pop("gone", None) is None
    assert found == {"a": 1, "b": 2}
    assert cache_get("gone") is None
    assert cache_delete("gone")
    assert cache_delete_many(["a", "gone", "b"]) == ["a", "b"]
    # Large ones.
    values = {"a": BIG, "b": [2], "c": Gone(), "d": [4]}
    cache_set_many(values, **LARGE)
    cache_backend.delete(make_cache_key("a-1"))
    assert cache_get_many(list(values), **LARGE) == {"b": [2], "d": [4]}
    assert "1 of 3 chunks are missing" in caplog.text


class Gone:
    def __reduce__(self) -> Any:
        return (unpickle_on_tuesdays, ())


def unpickle_on_tuesdays() -> Any:
    raise AttributeError("no such name")


@forms
def test_what_cannot_be_pickled(form: dict[str, Any], locmem: BaseCache, caplog: pytest.LogCaptureFixture) -> None:
    values: dict[str, Any] = {"a": 1, "bad": lambda: 1, "b": 2}
    assert cache_set_many(values, **form) == ["bad"]
    assert cache_get_many(list(values), **form) == {"a": 1, "b": 2}
    assert cache_set("bad", lambda: 1, **form) is False
    assert "bad" in caplog.text or "Failed to serialize data" in caplog.text


METHODS = ("get", "set", "add", "delete", "get_many", "set_many", "delete_many", "has_key")


@forms
def test_a_cache_that_fails(form: dict[str, Any], locmem: BaseCache, caplog: pytest.LogCaptureFixture) -> None:
    cache_set("key", 1, **form)
    where = address(form)
    with failing(*METHODS):
        for call in (
            lambda: cache_get("key", MISSING, **form) is MISSING,
            lambda: cache_get_many(["key"], **form) == {},
            lambda: cache_set("key", 2, **form) is False,
            lambda: cache_set_many({"key": 2, "b": 3}, **form) == ["key", "b"],
            lambda: cache_exists("key", **where) is False,
        ):
            caplog.clear()
            assert call()
            assert "fails" in caplog.text
        for call in (
            lambda: cache_delete("key", **where),
            lambda: cache_delete_many(["key"], **where),
            lambda: cache_add("key", 1, **where),
        ):
            with pytest.raises(Exception, match="fails"):
                call()
    assert cache_get("key", **form) == 1


@pytest.mark.parametrize("step", range(6))
@pytest.mark.parametrize("form", [{}, LARGE], ids=["small", "large"])
def test_a_set_that_fails_at_any_call_leaves_no_mixture(step: int, form: dict[str, Any], locmem: BaseCache) -> None:
    cache_set("key", noise(3_000_000), **form)
    made = 0

    def fails(_: Any) -> bool:
        nonlocal made
        made += 1
        return made == step + 1

    with failing("set_many", "delete_many", when=fails):
        is_stored = cache_set("key", BIG, **form)
    # What fails for several chunks is tried again for each.
    expected = {"small": step > 0, "large": step not in (0, 2)}
    assert is_stored is expected["large" if form else "small"]
    assert cache_get("key", MISSING, **form) in ([BIG] if is_stored else [MISSING, noise(3_000_000)])


@pytest.mark.parametrize("backend", ["PyMemcacheCache", "PyLibMCCache"])
def test_a_memcached_that_is_down(backend: str, db: None, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("pylibmc" if "Lib" in backend else "pymemcache")
    config = {"BACKEND": f"django.core.cache.backends.memcached.{backend}", "LOCATION": "127.0.0.1:1"}
    with use_cache(config, empty=False):
        for _ in range(2):
            for form in ({}, LARGE):
                assert cache_set("key", 1, **form) is False
                assert cache_set_many({"a": 1, "b": 2}, **form) == ["a", "b"]
                assert cache_get("key", MISSING, **form) is MISSING
            assert not cache_exists("key")
            for call in (lambda: cache_delete("key"), lambda: cache_delete_many(["a", "b"]), lambda: cache_add("a", 1)):
                with pytest.raises((CacheRefusedError, UnreachableError)):
                    call()
        assert "Error setting data in cache" in caplog.text


def test_the_site_is_away(locmem: BaseCache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: Any) -> Any:
        raise SiteUnavailableError("no database")

    monkeypatch.setattr("fastblets.cache.options.get_key_prefix", fail)
    assert cache_get("key", MISSING) is MISSING
    assert cache_get_many(["key"]) == {}
    assert cache_set("key", 1) is cache_exists("key") is False
    assert cache_set_many({"key": 1}) == ["key"]
    assert len(caplog.records) == 5
    for call in (lambda: cache_delete("key"), lambda: cache_delete_many(["key"]), lambda: cache_add("key", 1)):
        with pytest.raises(OperationalError):
            call()


def test_arguments(locmem: BaseCache) -> None:
    for call in (cache_get_many, cache_delete_many):
        with pytest.raises(TypeError, match=r"^keys must be an iterable of keys, not of type str"):
            call("key")
        with pytest.raises(TypeError, match=r"^keys must be strings or tuples of strings, not of type list"):
            call([["a", "b"]])  # type: ignore[list-item]
        call(iter(["a", ("b", "c"), "a"]), cache=FORWARDED)
        with pytest.raises(InvalidCacheBackendError):
            call(["a"], cache="nothing")
    with pytest.raises(TypeError, match="keys must be strings or tuples"):
        cache_set_many({1: 2})  # type: ignore[dict-item]
    for small in (lambda: cache_get("key", seal="require"), lambda: cache_set("key", 1, seal="require")):
        with pytest.raises(ImproperlyConfigured):
            small()
    with pytest.raises(TypeError):
        cache_get({"key"})  # type: ignore[arg-type]


def test_another_cache(locmem: BaseCache) -> None:
    cache_set("key", 1, cache=FORWARDED)
    assert caches[FORWARDED].get(make_cache_key("key")) == 1
    assert not cache_exists("key")
    assert not cache_delete("key")
    assert cache_get("key", cache=FORWARDED) == 1
    assert cache_delete("key", cache=FORWARDED)
    assert cache_get("key", cache=FORWARDED) is None


@forms
def test_djblets_reads_it_and_its_entries_are_read(
    both: Parity, form: dict[str, Any], cache_backend: BaseCache
) -> None:
    theirs = {name: value for name, value in form.items() if name != "seal"}
    value = big_or_small(form)
    djblets = Library("djblets").backend
    cache_set("key", value, **form)
    assert djblets.cache_memoize("key", never, **theirs) == value
    cache_delete("key", **address(form))
    djblets.cache_memoize("key", lambda: value, **theirs)
    assert cache_get("key", **theirs) == value


@pytest.mark.parametrize("form", FORMS)
def test_the_bytes_are_those_of_the_memoize_functions(form: str, locmem: BaseCache, fixed_iv: Any) -> None:
    value = big_or_small(FORMS[form])
    cache_memoize("key", lambda: value, **FORMS[form])
    expected = stored_bytes(locmem)
    locmem.clear()
    fixed_iv.calls = 0
    cache_set("key", value, **FORMS[form])
    assert {key: len(stored) for key, stored in stored_bytes(locmem).items()} == {
        key: len(stored) for key, stored in expected.items()
    }
    if "sealed" not in form:
        assert sorted(stored_bytes(locmem)) == sorted(expected)
        if "encrypted" not in form:
            assert stored_bytes(locmem) == expected
