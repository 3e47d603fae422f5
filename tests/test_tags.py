"""Invalidating by tags, and the fence: what is valid, on each backend and in each form."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.conf import settings
from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.locmem import LocMemCache
from django.db import OperationalError, connection, transaction
from django.test import override_settings

from fastblets import _native
from fastblets.cache.backend import CACHE_CHUNK_SIZE, cache_memoize, cache_memoize_iter, make_cache_key
from fastblets.cache.errors import CacheRefusedError
from fastblets.cache.tags import invalidate_tags
from fastblets.cache.values import (
    cache_add,
    cache_delete,
    cache_delete_many,
    cache_exists,
    cache_expire,
    cache_get,
    cache_get_many,
    cache_set,
    cache_set_many,
)
from fastblets.protect.locks import CacheLock
from tests.backends import stored_bytes, use_cache, without_marks
from tests.faults import failing, replaced
from tests.test_values import (
    BIG,
    FORMS,
    LARGE,
    MISSING,
    NEW,
    OLD,
    OLDEST,
    SECRET,
    address,
    big_or_small,
    counted,
    forms,
)
from tests.vectors.cases import noise
from tools.servers import Memcached

pytestmark = pytest.mark.django_db

TAGS = ["reports", ("user", "7")]


class SwallowingCache(LocMemCache):
    """As of another package than Django, which may swallow errors."""


class Counter:
    """A producer that returns another value at each call."""

    def __init__(self, form: dict[str, Any], during: Callable[[], object] = lambda: None) -> None:
        self._value = big_or_small(form)
        self._during = during
        self.calls = 0
        self.is_done = False

    def __call__(self) -> Any:
        self.calls += 1
        number = self.calls
        self._during()
        return [number, self._value]


def memoize(producer: Counter, form: dict[str, Any], key: Any = "key", **options: Any) -> int:
    """The number of the call whose value is there."""
    number: int = cache_memoize(key, producer, **{"tags": TAGS, **form, **options})[0]
    return number


def find_record(cache: BaseCache) -> tuple[str, list[bytes]]:
    """The last chunk, with the record beside it, and its full key."""
    keys = [key.removeprefix(":1:") for key in stored_bytes(cache)]
    return next((key, chunk) for key, chunk in cache.get_many(keys).items() if type(chunk) is list and len(chunk) == 3)


# What is valid


@forms
def test_a_tag_is_invalidated(form: dict[str, Any], cache_backend: BaseCache) -> None:
    producer = Counter(form)
    assert [memoize(producer, form) for _ in range(3)] == [1, 1, 1]
    invalidate_tags(("user", "8"))
    assert memoize(producer, form) == 1
    for number, tag in enumerate([("user", "7"), "reports", ["user", "7"]], 2):
        invalidate_tags(tag)
        assert cache_get("key", MISSING, tags=TAGS, **form) is MISSING
        assert [memoize(producer, form) for _ in range(3)] == [number] * 3
        assert cache_get("key", tags=TAGS, **form)[0] == number


@pytest.mark.parametrize("encrypt", [False, True])
@pytest.mark.parametrize("seal", [False, True])
@pytest.mark.parametrize("items", [[], ["a", 1], [BIG, BIG]], ids=["none", "few", "many"])
def test_items(encrypt: bool, seal: bool, items: list[Any], cache_backend: BaseCache) -> None:
    calls = []

    def produce() -> list[Any]:
        calls.append(1)
        return items

    def read() -> list[Any]:
        return list(cache_memoize_iter("key", produce, tags=TAGS, use_encryption=encrypt, seal=seal))

    assert [read() for _ in range(3)] == [items] * 3
    assert len(calls) == 1
    # Others read it as it is.
    assert list(cache_memoize_iter("key", lambda: pytest.fail("computed"), use_encryption=encrypt)) == items
    assert cache_exists("key", use_encryption=encrypt)
    assert cache_exists("key", use_encryption=encrypt, tags=TAGS)
    invalidate_tags("reports")
    assert not cache_exists("key", use_encryption=encrypt, tags=TAGS)
    assert cache_exists("key", use_encryption=encrypt)
    assert [read() for _ in range(3)] == [items] * 3
    assert len(calls) == 2


@forms
def test_other_tags_are_another_entry(form: dict[str, Any], locmem: BaseCache) -> None:
    producer = Counter(form)
    assert memoize(producer, form) == 1
    # The order doesn't matter, nor how a tag is written.
    assert memoize(producer, form, tags=[["user", "7"], "reports", "reports"]) == 1
    assert memoize(producer, form, tags=("reports", "user:7")) == 1
    assert memoize(producer, form, tags=["reports"]) == 2
    assert memoize(producer, form, tags=["reports", ("user", "8")]) == 3
    # Without tags anything is found.
    assert memoize(producer, form, tags=()) == 3
    assert memoize(producer, form) == 4


@forms
def test_an_entry_without_tags_is_missing(form: dict[str, Any], locmem: BaseCache) -> None:
    producer = Counter(form)
    assert memoize(producer, form, tags=[]) == 1
    assert not cache_exists("key", tags=TAGS, **address(form))
    assert cache_get("key", MISSING, tags=TAGS, **form) is MISSING
    assert memoize(producer, form) == 2
    assert memoize(producer, form) == 2


@forms
def test_a_lost_token_invalidates(form: dict[str, Any], locmem: BaseCache) -> None:
    producer = Counter(form)
    for number in (1, 2):
        assert memoize(producer, form) == memoize(producer, form) == number
        locmem.delete(make_cache_key("_tag_:reports"))
    locmem.set(make_cache_key("_tag_:reports"), ["no token"])
    assert memoize(producer, form) == memoize(producer, form) == 3


@pytest.mark.parametrize("record", [None, "", "1;;;", "2;;;;", "1;;;;", b"\xff", ["1;;;;"], "1;;;;a,b;"], ids=repr)
def test_a_record_that_is_none(record: Any, locmem: BaseCache) -> None:
    producer = Counter({})
    memoize(producer, {})
    locmem.set(make_cache_key("_state_:key"), record)
    assert memoize(producer, {}) == memoize(producer, {}) == 2


def test_what_the_client_cannot_unpickle(locmem: BaseCache) -> None:
    stored = vars(locmem)["_cache"]
    producer = Counter({})
    number = 0
    for key in ("key", "_state_:key", "_tag_:reports", "_fence_:key"):
        number += 1
        assert memoize(producer, {}) == memoize(producer, {}) == number
        locmem.set(make_cache_key(key), "there")
        stored[locmem.make_key(make_cache_key(key))] = b"no pickle"
    assert memoize(producer, {}) == memoize(producer, {}) == number + 1


@forms
def test_the_seal_holds_the_record(form: dict[str, Any], locmem: BaseCache) -> None:
    """A record of another write under the same key."""
    if not form.get("large_data") or not form.get("seal"):
        pytest.skip("the record isn't beside a seal")
    producer = Counter(form)
    memoize(producer, form)
    key, chunk = find_record(locmem)
    invalidate_tags("reports")
    memoize(producer, form)
    _, newer = find_record(locmem)
    locmem.set(key, [*chunk[:2], newer[2]])
    assert memoize(producer, form) == 3


# The fence


@forms
def test_what_was_computed_from_before_is_not_kept(form: dict[str, Any], cache_backend: BaseCache) -> None:
    where = address(form)
    for invalidate in (
        lambda: cache_delete("key", **where),
        lambda: cache_delete_many(["other", "key"], **where),
        lambda: invalidate_tags("reports"),
    ):
        producer = Counter(form, during=invalidate)
        assert memoize(producer, form) == 1
        assert cache_get("key", MISSING, tags=TAGS, **form) is MISSING
        producer._during = lambda: None
        assert memoize(producer, form) == memoize(producer, form) == 2
        cache_delete("key", **where)


@pytest.mark.parametrize("form", [{}, SECRET, LARGE], ids=["small", "encrypted", "large"])
def test_nothing_outdated_stays(form: dict[str, Any], locmem: BaseCache) -> None:
    # Otherwise it would be served once the fence has ended.
    memoize(Counter(form, during=lambda: cache_delete("key", **address(form))), form)
    locmem.delete_many([make_cache_key("_fence_:key"), make_cache_key("_fence_:key", use_encryption=True)])
    assert cache_get("key", MISSING, tags=TAGS, **form) is MISSING


@pytest.mark.parametrize("form", [LARGE, {**LARGE, **SECRET}], ids=["large", "large encrypted"])
def test_no_outdated_chunk_stays_under_the_count_of_another(form: dict[str, Any], locmem: BaseCache) -> None:
    """It comes between the chunk and the count of a call that began after the deletion."""
    where = address(form)
    outdated = cache_memoize_iter("key", lambda: iter(["old"]), tags=TAGS, **where)
    assert next(outdated) == "old"
    cache_delete("key", **where)
    count_key = make_cache_key("key", **where)
    real = locmem.set
    waiting = [False, True]

    def let_it_end_first(key: str, value: Any, timeout: Any = None, **options: Any) -> None:
        if key == count_key and waiting.pop():
            assert list(outdated) == []
        real(key, value, timeout, **options)

    with replaced(locmem, set=let_it_end_first):
        assert cache_memoize("key", lambda: "new", tags=TAGS, **form) == "new"
    assert locmem.get(count_key) is not None
    locmem.delete(make_cache_key("_fence_:key", **where))
    assert [cache_get("key", MISSING, tags=tags, **form) for tags in (TAGS, [])] == [MISSING, MISSING]


@pytest.mark.parametrize("options", [{}, {"lock": True}, {"force_overwrite": True}], ids=str)
@forms
def test_also_with_a_lock_and_overwriting(form: dict[str, Any], options: dict[str, Any], locmem: BaseCache) -> None:
    if "lock" in options:
        options = {"lock": CacheLock()}
    producer = Counter(form, during=lambda: invalidate_tags("reports"))
    memoize(producer, form, **options)
    assert cache_get("key", MISSING, tags=TAGS, **form) is MISSING
    memoize(Counter(form), form, **options)
    assert cache_get("key", MISSING, tags=TAGS, **form) is not MISSING


@forms
def test_expiring_stops_no_computation(form: dict[str, Any], locmem: BaseCache) -> None:
    producer = Counter(form)
    assert memoize(producer, form) == 1
    assert cache_expire("key", **address(form)) is True
    assert cache_expire("key", **address(form)) is False
    producer._during = lambda: cache_expire("key", **address(form))
    assert memoize(producer, form) == memoize(producer, form) == 2


def test_a_stream_that_is_invalidated_in_the_middle(locmem: BaseCache) -> None:
    items = iter(cache_memoize_iter("key", lambda: iter(range(10)), tags=TAGS))
    assert next(items) == 0
    invalidate_tags("reports")
    assert list(items) == list(range(1, 10))
    assert not cache_exists("key", tags=TAGS)
    assert not cache_exists("key")


@forms
def test_stored_by_hand(form: dict[str, Any], locmem: BaseCache) -> None:
    assert cache_set("key", 1, tags=TAGS, **form)
    assert cache_get("key", MISSING, tags=TAGS, **form) == 1
    assert memoize(Counter(form), {**form, "tags": ()}, key="other") == 1
    assert cache_memoize("key", lambda: 2, tags=TAGS, **form) == 1
    invalidate_tags("reports")
    assert cache_get("key", MISSING, tags=TAGS, **form) is MISSING
    keys = ["a", "b", ("c", "d")]
    assert cache_set_many(dict.fromkeys(keys, 3), tags=TAGS, **form) == []
    assert cache_get_many([*keys, "key"], tags=TAGS, **form) == dict.fromkeys(keys, 3)
    cache_delete("b", **address(form))
    assert cache_get_many(keys, tags=TAGS, **form) == {"a": 3, ("c", "d"): 3}
    # Deleting is no reason to refuse what is stored then.
    assert cache_set("b", 4, tags=TAGS, **form)
    assert cache_get("b", tags=TAGS, **form) == 4
    invalidate_tags(("user", "7"))
    assert cache_get_many(keys, tags=TAGS, **form) == {}
    assert [cache_exists(key, tags=TAGS, **address(form)) for key in keys] == [False] * 3


@forms
def test_nothing_of_it_stays(form: dict[str, Any], locmem: BaseCache) -> None:
    memoize(Counter(form), form)
    assert cache_delete("key", **address(form))
    tokens = {locmem.make_key(make_cache_key(f"_tag_:{tag}")) for tag in ("reports", "user:7")}
    assert stored_bytes(locmem).keys() >= tokens
    assert without_marks(stored_bytes(locmem)) == {}


@pytest.mark.parametrize("form", [{}, SECRET, LARGE], ids=["small", "encrypted", "large"])
@pytest.mark.parametrize("names", [("a:b", ["a:b"]), (["a:b"], "a:b"), ("100%", ("100%",))], ids=str)
def test_a_sequence_of_one_part_is_that_part(names: Any, form: dict[str, Any], locmem: BaseCache) -> None:
    stored, deleted = names
    memoize(Counter(form, during=lambda: cache_delete(deleted, **address(form))), form, key=stored)
    assert cache_get(stored, MISSING, tags=TAGS, **form) is MISSING
    cache_set(stored, 1, tags=[stored], **form)
    assert cache_get(deleted, tags=[deleted], **form) == 1
    invalidate_tags(deleted)
    assert cache_get(stored, MISSING, tags=[stored], **form) is MISSING
    assert cache_delete(deleted, **address(form))
    assert not [key for key in stored_bytes(locmem) if "_state_" in key]


@pytest.mark.parametrize("call", ["set", "get_many"])
def test_an_error_after_storing_leaves_no_old_value(call: str, locmem: BaseCache) -> None:
    """An outdated value comes to stand beside the record of a newer one, and then the cache fails once."""
    redis_exceptions = pytest.importorskip("redis.exceptions")
    form: dict[str, Any] = {}
    newer = Counter(form)
    newer.calls = 1

    def overtake() -> None:
        invalidate_tags("reports")
        assert memoize(newer, form) == 2
        newer.is_done = True

    real = getattr(locmem, call)
    failed = []

    def fail_once(key: Any, *args: Any, **options: Any) -> Any:
        # The record of the outdated value, or the look at the stamps after it.
        if newer.is_done and not failed and (call == "get_many" or "_state_" in key):
            failed.append(key)
            raise redis_exceptions.TimeoutError("fails once")
        return real(key, *args, **options)

    outdated = Counter(form, during=overtake)
    with replaced(locmem, **{call: fail_once}):
        assert memoize(outdated, form) == 1
    assert failed
    found = cache_get("key", MISSING, tags=TAGS)
    assert found is MISSING or found[0] == 2


@pytest.mark.parametrize("form", [{}, SECRET, LARGE], ids=["small", "encrypted", "large"])
def test_an_error_after_storing_by_hand(form: dict[str, Any], locmem: BaseCache) -> None:
    cache_set("other", 1, tags=TAGS, **form)
    real, calls = locmem.get_many, []

    def fail_at_the_last(keys: Any, *args: Any, **options: Any) -> Any:
        calls.append(keys)
        if len(calls) == 2:
            raise RuntimeError("fails once")
        return real(keys, *args, **options)

    # The tokens are there, so that they are looked up before and after.
    with replaced(locmem, get_many=fail_at_the_last, get=lambda *args, **options: fail_at_the_last(args)):
        stored = cache_set("key", 2, tags=TAGS, **form)
    assert len(calls) >= 2
    assert stored is (cache_get("key", MISSING, tags=TAGS, **form) is not MISSING)


@pytest.mark.parametrize("form", [{}, SECRET, LARGE], ids=["small", "encrypted", "large"])
def test_tokens_that_cannot_be_looked_up_by_hand(
    form: dict[str, Any], locmem: BaseCache, caplog: pytest.LogCaptureFixture
) -> None:
    with failing("add"):
        assert cache_set("key", 1, tags=TAGS, **form) is False
    assert "Error looking up the tags of cache key" in caplog.text
    with replaced(locmem, add=lambda *args, **options: False):
        assert cache_set("key", 1, tags=TAGS, **form) is False
    assert "The tokens of the tags of cache key" in caplog.text
    assert len(caplog.records) == 2


@pytest.mark.parametrize("encrypt", [False, True])
@pytest.mark.parametrize("compress", [False, True])
def test_chunks_of_two_writes_are_told_apart(compress: bool, encrypt: bool, locmem: BaseCache) -> None:
    options = {"compress_large_data": compress, "use_encryption": encrypt, "tags": TAGS}
    rows = [noise(CACHE_CHUNK_SIZE // 20) for _ in range(60)]
    # The pickles of an old and a new row are of one size, so that chunks of both fit together.
    old = iter(cache_memoize_iter("key", lambda: (["old", row] for row in rows), **options))
    half = [next(old) for _ in range(15)]
    invalidate_tags("reports")
    new = iter(cache_memoize_iter("key", lambda: (["new", row] for row in rows), **options))
    half_new = [next(new) for _ in range(30)]
    half += [next(old) for _ in range(15)]
    assert {name for name, _ in [*half_new, *new]} == {"new"}
    assert {name for name, _ in half} == {"old"}
    read = list(cache_memoize_iter("key", lambda: [["computed", b""]], **options))
    assert {name for name, _ in read} <= {"new", "computed"}
    old.close()


def test_a_cache_that_keeps_nothing(db: None, caplog: pytest.LogCaptureFixture) -> None:
    with use_cache({"BACKEND": "django.core.cache.backends.dummy.DummyCache"}):
        producer = Counter({})
        for form in ({}, SECRET, LARGE):
            memoize(producer, form)
        list(cache_memoize_iter("key", lambda: [1], tags=TAGS))
        invalidate_tags("reports")
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


@pytest.mark.parametrize("kind", ["PyMemcacheCache", "PyLibMCCache"])
def test_a_value_that_memcached_refuses(kind: str, db: None, memcached: Memcached) -> None:
    pytest.importorskip({"PyMemcacheCache": "pymemcache", "PyLibMCCache": "pylibmc"}[kind])
    backend = f"django.core.cache.backends.memcached.{kind}"
    with use_cache({"BACKEND": backend, "LOCATION": memcached.address}) as cache:
        producer = Counter({})
        assert memoize(producer, {}) == 1
        real = cache.set_many

        def refuse(data: dict[str, Any], **options: Any) -> Any:
            # As of a server that is down.
            return [key for key in data if key.endswith(":key")] or real(data, **options)

        invalidate_tags("reports")
        with replaced(cache, set_many=refuse):
            assert memoize(producer, {}) == 2
        # The old value may be there, but not beside a record that is valid.
        assert cache_get("key", MISSING, tags=TAGS) is MISSING


# Keys


def ring(key: bytes, *others: bytes) -> Any:
    """The settings of a process that encrypts all keys, and knows other AES keys."""
    return override_settings(
        DJBLETS_CACHE_FORCE_ENCRYPTION=True,
        DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY=key,
        FASTBLETS_ENCRYPTION_KEY_FALLBACKS=others,
    )


#: How the AES key is changed: all processes learn the new one, before it becomes the default one.
STEPS = [(OLD,), (OLD, NEW), (NEW, OLD), (NEW,)]


def test_tags_under_encrypted_keys(locmem: BaseCache) -> None:
    """A tag's key says nothing, whatever key an entry has."""
    with ring(OLD):
        producer = Counter({})
        assert memoize(producer, {}) == memoize(producer, {}) == 1
        assert memoize(producer, {"encryption_key": OLDEST}) == 2
        assert all(re.fullmatch(r":1:[0-9a-f]{64}", key) for key in stored_bytes(locmem))
        invalidate_tags("reports")
        assert memoize(producer, {"encryption_key": OLDEST}) == 3
        assert memoize(producer, {}) == 4


@pytest.mark.parametrize("step", range(3))
def test_processes_at_two_steps_invalidate_for_each_other(step: int, locmem: BaseCache) -> None:
    producer = Counter({})
    for one, other in ((STEPS[step], STEPS[step + 1]), (STEPS[step + 1], STEPS[step])):
        for _ in range(2):
            with ring(*one):
                memoize(producer, {})
                number = memoize(producer, {})
            with ring(*other):
                invalidate_tags("reports")
            with ring(*one):
                assert cache_get("key", MISSING, tags=TAGS) is MISSING
                assert memoize(producer, {}) > number


@pytest.mark.parametrize("form", [{}, LARGE], ids=["small", "large"])
def test_nothing_is_computed_again_if_the_steps_are_taken(form: dict[str, Any], locmem: BaseCache) -> None:
    producer = Counter(form)
    for step in STEPS:
        with ring(*step):
            # Copies the tokens to the new key.
            cache_memoize("another key", lambda: 1, tags=TAGS, force_overwrite=True)
            assert memoize(producer, form) == memoize(producer, form) == 1
    with ring(NEW):
        invalidate_tags("reports")
        assert memoize(producer, form) == 2
    # Without them, all is. A token that is missing may have been lost.
    with ring(OLDEST, NEW):
        assert memoize(producer, form) == memoize(producer, form) == 3


@pytest.mark.parametrize("form", [{}, LARGE], ids=["small", "large"])
def test_while_keys_change_a_batch_is_looked_up_at_once(form: dict[str, Any], locmem: BaseCache) -> None:
    values = {f"key {number}": number for number in range(64)}
    with ring(OLD, NEW):
        assert cache_set_many(values, tags=TAGS, **form) == []
    with ring(OLD):
        assert cache_set("key 3", 3, tags=TAGS, **form)
    before = stored_bytes(locmem)
    for others in ([OLD], [OLD, OLDEST]):
        with ring(NEW, *others):
            with counted(locmem) as calls:
                found = cache_get_many([*values, "missing"], tags=TAGS, **form)
                assert cache_get("key 3", MISSING, tags=TAGS, **form) == found.get("key 3", MISSING)
                assert cache_exists("key 3", tags=TAGS) is ("key 3" in found)
                assert not cache_exists("missing", tags=TAGS)
            assert set(calls) == {"get_many"}
            assert len(calls) < 20
            # The tokens are missing under the oldest key.
            assert found == ({} if OLDEST in others else values)
            # Who reads writes nothing, not even a token.
            assert stored_bytes(locmem) == before
    with ring(NEW, OLD, OLDEST):
        with counted(locmem) as calls:
            assert cache_set_many(values, tags=TAGS, **form) == []
        # Before and after storing, and once more as there are new tokens.
        assert [calls.count(name) for name in ("add", "get_many")] == [len(TAGS), 3]
        assert cache_get_many(values, tags=TAGS, **form) == values


@pytest.mark.parametrize("step", range(3))
@pytest.mark.parametrize("is_behind", [False, True], ids=["ahead", "behind"])
@pytest.mark.parametrize("lost", [OLD, NEW])
def test_a_lost_token_never_makes_an_old_value_valid(
    lost: bytes, is_behind: bool, step: int, locmem: BaseCache
) -> None:
    """A process at the step before or after has invalidated the tag, and then one of its tokens is lost."""
    one, other = (STEPS[step + 1], STEPS[step]) if is_behind else (STEPS[step], STEPS[step + 1])
    producer = Counter({})
    with ring(*one):
        assert memoize(producer, {}) == memoize(producer, {}) == 1
    with ring(*other):
        invalidate_tags("reports")
    locmem.delete(make_cache_key("_tag_:reports", use_encryption=True, encryption_key=lost))
    for settings_of_both in (one, other):
        with ring(*settings_of_both):
            # Gives the tag a token where it has none.
            cache_memoize("another key", lambda: 1, tags=TAGS, force_overwrite=True)
            assert cache_get("another key", tags=TAGS) == 1
            assert cache_get("key", MISSING, tags=TAGS) is MISSING
    with ring(*one):
        assert memoize(producer, {}) == memoize(producer, {}) == 2


@pytest.mark.parametrize("other", STEPS[1:3], ids=["same", "next step"])
def test_two_calls_that_give_a_tag_its_first_token(other: Any, locmem: BaseCache) -> None:
    """One looks while the other has added the token under a part of the keys."""
    real, looked = locmem.add, []

    def look_between(key: str, *args: Any, **options: Any) -> Any:
        added = real(key, *args, **options)
        if not looked:
            looked.append(key)
            with ring(*other):
                assert cache_set("other", 2, tags=["reports"])
        return added

    with ring(*STEPS[1]), replaced(locmem, add=look_between):
        assert cache_set("key", 1, tags=["reports"])
        assert cache_get_many(["key", "other"], tags=["reports"]) == {"key": 1, "other": 2}
    assert looked


@pytest.mark.parametrize("form", [form for form in FORMS.values() if "use_encryption" in form], ids=str)
def test_an_entry_under_an_older_key(form: dict[str, Any], locmem: BaseCache) -> None:
    producer = Counter(form)
    new = {"DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY": NEW, "FASTBLETS_ENCRYPTION_KEY_FALLBACKS": [OLD, OLDEST]}
    for invalidate in (None, lambda: invalidate_tags("reports"), lambda: cache_delete("key", **address(form))):
        with override_settings(DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY=OLD):
            number = memoize(producer, form)
        with override_settings(**new):
            if invalidate is not None:
                invalidate()
            assert (
                cache_get("key", MISSING, tags=TAGS, **form)
                is (MISSING if invalidate else cache_get("key", tags=TAGS, **form))
                or invalidate is None
            )
            assert memoize(producer, form) == number + (invalidate is not None)
            # Taken over with its record.
            assert memoize(producer, form) == number + (invalidate is not None)
            invalidate_tags("reports")
            assert memoize(producer, form) == number + 1 + (invalidate is not None)
            cache_delete("key", **address(form))


def test_a_deletion_by_a_process_that_knows_older_keys_only(locmem: BaseCache) -> None:
    new = {"DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY": NEW, "FASTBLETS_ENCRYPTION_KEY_FALLBACKS": [OLD]}
    old = {"DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY": OLD, "FASTBLETS_ENCRYPTION_KEY_FALLBACKS": []}

    def delete() -> None:
        with override_settings(**new):
            cache_delete("key", **SECRET)

    with override_settings(**old):
        memoize(Counter(SECRET, during=delete), SECRET)
        assert cache_get("key", MISSING, tags=TAGS, **SECRET) is MISSING


def test_each_cache_has_its_own_tags(locmem: BaseCache) -> None:
    with override_settings(
        CACHES={
            name: {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": f"tags {name}"}
            for name in ("default", "other")
        }
    ):
        producer = Counter({})
        assert memoize(producer, {}) == 1
        assert memoize(producer, {"cache": "other"}) == 2
        invalidate_tags("reports", cache="other")
        assert memoize(producer, {}) == 1
        assert memoize(producer, {"cache": "other"}) == 3
        assert caches["other"].get(make_cache_key("_state_:key")).startswith("1;;;")


# Transactions


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("form", [{}, SECRET, LARGE], ids=["small", "encrypted", "large"])
def test_after_the_transaction(form: dict[str, Any], locmem: BaseCache) -> None:
    producer = Counter(form)
    assert memoize(producer, form) == 1
    before = stored_bytes(locmem)
    with transaction.atomic():
        invalidate_tags("reports", on_commit=True)
        assert memoize(producer, form) == 2
        assert cache_get("key", MISSING, tags=TAGS, **form) is MISSING
        assert cache_get_many(["key"], tags=TAGS, **form) == {}
        assert not cache_exists("key", tags=TAGS, **address(form))
        # Without the tag nothing of it is known.
        assert memoize(producer, form, tags=()) == 1
        assert stored_bytes(locmem) == before
    assert memoize(producer, form) == 3
    with pytest.raises(RuntimeError), transaction.atomic():
        invalidate_tags("reports", on_commit="default")
        assert memoize(producer, form) == 4
        raise RuntimeError
    assert memoize(producer, form) == 3
    invalidate_tags("reports", on_commit=True)
    assert memoize(producer, form) == 5


# What fails


def test_arguments(locmem: BaseCache) -> None:
    for tags in ("reports", b"reports", {"reports"}, None, 7, {"a": 1}):
        with pytest.raises(TypeError, match="tags must be a list or tuple of tags"):
            cache_memoize("key", lambda: 1, tags=tags)  # type: ignore[arg-type]
    for tag in (7, None, b"a", {"a"}, ["a", 7], ("user", None)):
        with pytest.raises(TypeError):
            cache_memoize("key", lambda: 1, tags=[tag])  # type: ignore[list-item]
        with pytest.raises(TypeError):
            invalidate_tags(tag)  # type: ignore[arg-type]
    many = [f"tag {number}" for number in range(17)]
    with pytest.raises(ValueError, match="can have 16 tags, not 17"):
        cache_memoize("key", lambda: 1, tags=many)
    assert cache_memoize("key", lambda: 1, tags=[*many[:16], many[0]]) == 1
    with pytest.raises(TypeError):
        cache_add("key", 1, tags=TAGS)  # type: ignore[call-arg]
    invalidate_tags()
    assert cache_get("key", tags=many[:16]) == 1


@forms
def test_a_cache_that_fails(form: dict[str, Any], locmem: BaseCache, caplog: pytest.LogCaptureFixture) -> None:
    producer = Counter(form)
    for calls in (["get_many", "get"], ["add"], ["set", "set_many"]):
        with failing(*calls):
            number = memoize(producer, form)
            assert memoize(producer, form) == number + 1
        cache_delete("key", **address(form))
        locmem.clear()
    assert memoize(producer, form) == producer.calls
    assert memoize(producer, form) == producer.calls


@pytest.mark.parametrize("form", [{}, SECRET, LARGE], ids=["small", "encrypted", "large"])
def test_tokens_that_cannot_be_stored(
    form: dict[str, Any], locmem: BaseCache, caplog: pytest.LogCaptureFixture
) -> None:
    """A dead memcached among several says False to add(), and nothing more."""
    producer = Counter(form)
    with replaced(locmem, add=lambda *args, **options: False):
        assert [memoize(producer, form) for _ in range(2)] == [1, 2]
        assert not cache_set("key", 3, tags=TAGS, **form)
    assert "tags" in caplog.text and "can't be stored" in caplog.text
    assert not cache_exists("key", **address(form))


def test_a_failed_invalidation_raises(locmem: BaseCache) -> None:
    producer = Counter({})
    memoize(producer, {})
    for call in (lambda: invalidate_tags("reports"), lambda: cache_delete("key"), lambda: cache_delete_many(["key"])):
        with failing("set_many"), pytest.raises(Exception, match="fails"):
            call()
        with replaced(locmem, set_many=lambda data, **options: list(data)), pytest.raises(CacheRefusedError):
            call()
    assert memoize(producer, {}) == 1


def test_marks_of_a_client_that_swallows_errors_are_read_back(db: None) -> None:
    with use_cache({"BACKEND": "tests.test_tags.SwallowingCache", "LOCATION": "swallowing"}) as cache:
        producer = Counter({})
        assert memoize(producer, {}) == 1
        invalidate_tags("reports")
        assert memoize(producer, {}) == 2
        with replaced(cache, set_many=lambda data, **options: None):
            with pytest.raises(CacheRefusedError, match="did not store 1 of 1 marks"):
                invalidate_tags("reports")
            with pytest.raises(CacheRefusedError):
                cache_delete("key")
        assert memoize(producer, {}) == 2


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_database_that_stores_nothing_and_does_not_tell(by_hand: bool, db: None) -> None:
    """Django's database cache swallows the database's errors: a lock that isn't to be had, a deadlock."""
    refused = "_tag_:"

    def refuse(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith(("INSERT", "UPDATE")) and any(str(each).endswith(refused) for each in params):
            raise OperationalError("database is locked")
        return execute(sql, params, many, context)

    def store(number: int) -> None:
        if by_hand:
            cache_set("key", number, tags=["reports"])
        else:
            cache_memoize("key", lambda: number, tags=["reports"])

    config = {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "cache_entries"}
    with use_cache(config):
        store(1)
        with connection.execute_wrapper(refuse):
            for refused in ("_tag_:reports", "_fence_:key"):
                with pytest.raises(CacheRefusedError, match="did not store 1 of 1 marks"):
                    _ = cache_delete("key") if "fence" in refused else invalidate_tags("reports")
            assert cache_get("key", tags=["reports"]) == 1
            invalidate_tags("reports")
            # The new value is not stored, but its record is.
            refused = "com:key"
            store(2)
        assert cache_get("key", MISSING, tags=["reports"]) is MISSING
        store(3)
        assert cache_get("key", tags=["reports"]) == 3


# What Djblets sees, and what it costs


@forms
def test_djblets_reads_it(form: dict[str, Any], locmem: BaseCache) -> None:
    djblets = pytest.importorskip("djblets.cache.backend")
    form = {name: value for name, value in form.items() if name != "seal"}
    value = big_or_small(form)
    for seal in (False, True):
        cache_set("key", value, tags=TAGS, seal=seal, **form)
        assert djblets.cache_memoize("key", lambda: pytest.fail("computed"), **form) == value


@pytest.mark.parametrize("form", [{}, SECRET, LARGE], ids=["small", "encrypted", "large"])
def test_round_trips(form: dict[str, Any], locmem: BaseCache) -> None:
    producer = Counter({})
    store = ["set", "set"] if not form else ["set"]
    if form.get("large_data"):
        # The old count goes first, the new one comes last.
        store = ["delete", "set", "set"]
    look = ["get_many"]
    with counted(locmem) as calls:
        memoize(producer, form)
    # Two tags get their tokens, once.
    assert calls == [*look, "get_many", "add", "add", "get_many", *store, "get_many"]
    invalidate_tags("reports")
    with counted(locmem) as calls:
        memoize(producer, form)
    miss = [*look, *(["get_many"] if form.get("large_data") else []), *store, "get_many"]
    assert calls == miss
    with counted(locmem) as calls:
        memoize(producer, form)
    assert calls == [*look, *(["get_many"] if form.get("large_data") else [])]
    with counted(locmem) as calls:
        invalidate_tags("reports", ("user", "7"))
    assert calls == ["set_many"]


def test_a_record_lives_a_minute_longer(locmem: BaseCache) -> None:
    timeouts: dict[str, Any] = {}
    real = locmem.set

    def note(key: str, value: Any, timeout: Any = None, **options: Any) -> Any:
        timeouts[key] = timeout
        return real(key, value, timeout, **options)

    with replaced(locmem, set=note):
        cache_memoize("key", lambda: 1, tags=TAGS, expiration=100)
        cache_memoize("other", lambda: 1, tags=TAGS, expiration=None)
    assert [timeouts[make_cache_key(key)] for key in ("key", "_state_:key")] == [100, 160]
    assert [timeouts[make_cache_key(key)] for key in ("other", "_state_:other")] == [None, None]


def test_chunks_of_the_largest_size(locmem: BaseCache) -> None:
    options = {"compress_large_data": False, "tags": TAGS}
    for size in (CACHE_CHUNK_SIZE - 1, CACHE_CHUNK_SIZE, CACHE_CHUNK_SIZE + 1):
        # A text's pickle: V…\np0\n.
        items = ["x" * (size - len(b"V\np0\n."))]
        assert list(cache_memoize_iter("key", lambda items=items: items, **options)) == items
        assert list(cache_memoize_iter("key", lambda: pytest.fail("computed"), **options)) == items
        invalidate_tags("reports")


def test_an_encrypted_record_says_nothing(locmem: BaseCache) -> None:
    memoize(Counter(LARGE), {**LARGE, **SECRET})
    token = locmem.get(make_cache_key("_tag_:reports"))
    _, (_, seal, record) = find_record(locmem)
    assert seal == b""
    assert token.encode() not in record
    assert token.encode() in _native.decrypt(record, settings.SECRET_KEY[:16].encode())
