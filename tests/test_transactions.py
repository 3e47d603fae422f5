"""Deletions that wait for the end of a transaction, and what the transaction itself reads meanwhile."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from django.db import transaction
from django.db.transaction import TransactionManagementError
from django.db.utils import ConnectionDoesNotExist
from django.test import TestCase

from fastblets.cache.backend import cache_memoize, cache_memoize_iter, make_cache_key
from fastblets.cache.tags import invalidate_tags
from fastblets.cache.transactions import pending
from fastblets.cache.values import (
    cache_add,
    cache_delete,
    cache_delete_many,
    cache_exists,
    cache_get,
    cache_get_many,
    cache_set,
)
from fastblets.protect.locks import CacheLock
from tests.backends import FORWARDED, locmem_config, stored_bytes, use_cache, without_marks
from tests.faults import failing
from tests.vectors.cases import noise

pytestmark = pytest.mark.django_db(transaction=True)

LARGE = {"large_data": True}
SECRET = {"use_encryption": True}
MISSING = object()


class Undo(Exception):
    """Rolls a transaction back."""


@pytest.fixture(autouse=True)
def cache(transactional_db: None) -> Iterator[BaseCache]:
    with use_cache(locmem_config()) as cache:
        caches[FORWARDED].clear()
        yield cache
    gc.collect()
    assert pending == []


def read(**options: Any) -> Any:
    return cache_memoize("key", lambda: "computed", **options)


@pytest.mark.parametrize("options", [{}, LARGE, SECRET, {**LARGE, **SECRET}], ids=["small", "large", "secret", "both"])
def test_after_the_transaction(cache: BaseCache, options: dict[str, Any]) -> None:
    secret = {name: value for name, value in options.items() if name in SECRET}
    cache_set("key", "old", **options)
    cache_set("other", "other", **options)
    before = stored_bytes(cache)
    with transaction.atomic():
        assert cache_delete("key", on_commit=True, **secret) is False
        # Others go on to read it.
        assert stored_bytes(cache) == before
        # The transaction itself computes, and stores nothing that isn't committed.
        assert read(**options) == "computed"
        assert read(**options, lock=CacheLock()) == "computed"
        assert read(**options, force_overwrite=True) == "computed"
        assert list(cache_memoize_iter("key", lambda: [1], **secret)) == [1]
        assert cache_get("key", MISSING, **options) is MISSING
        assert cache_get_many(["key", "other"], **options) == {"other": "other"}
        assert not cache_exists("key", **secret)
        assert stored_bytes(cache) == before
        assert cache_memoize("other", lambda: 1, **options) == "other"
    assert not cache_exists("key", **secret)
    assert cache_delete("other", **secret)
    assert without_marks(stored_bytes(cache)) == {}
    assert read(**options) == cache_get("key", **options) == "computed"


def test_at_once_outside_of_one(cache: BaseCache) -> None:
    cache_set("key", "old")
    assert cache_delete("key", on_commit=True) is True
    cache_set("key", "old")
    assert cache_delete_many(["key", "b"], on_commit="default") == ["key"]
    with failing("get_many", "delete_many"), pytest.raises(Exception, match="fails"):
        cache_delete("key", on_commit=True)


def test_many(cache: BaseCache) -> None:
    for key in ("a", "b", "c"):
        cache_set(key, "old")
    with transaction.atomic():
        assert cache_delete_many(["a", "b"], on_commit=True) == []
        assert cache_get_many(["a", "b", "c"]) == {"c": "old"}
        assert cache_delete_many([], on_commit=True) == []
    assert cache_get_many(["a", "b", "c"]) == {"c": "old"}


def test_a_rollback(cache: BaseCache) -> None:
    cache_set("key", "old")
    with pytest.raises(Undo), transaction.atomic():
        cache_delete("key", on_commit=True)
        assert read() == "computed"
        raise Undo
    assert read() == "old"
    with transaction.atomic():
        with pytest.raises(Undo), transaction.atomic():
            cache_delete("key", on_commit=True)
            assert read() == "computed"
            raise Undo
        # The savepoint took it back.
        assert read() == "old"
        with transaction.atomic():
            cache_delete("key", on_commit=True)
        assert read() == "computed"
    assert not cache_exists("key")


def test_another_thread_goes_on_to_read(cache: BaseCache) -> None:
    cache_set("key", "old")
    found: list[Any] = []
    # The site has to be known: the thread has no part in the transaction.
    make_cache_key("key")
    with transaction.atomic():
        cache_delete("key", on_commit=True)
        thread = threading.Thread(target=lambda: found.append(read()))
        thread.start()
        thread.join()
    assert found == ["old"]


def test_another_cache(cache: BaseCache) -> None:
    cache_set("key", "default")
    cache_set("key", "other", cache=FORWARDED)
    with transaction.atomic():
        cache_delete("key", on_commit=True, cache=FORWARDED)
        assert read() == read(cache="default") == "default"
        assert read(cache=FORWARDED) == "computed"
    assert cache_get("key", cache=FORWARDED) is None
    with transaction.atomic():
        cache_delete("key", on_commit=True)
        assert read(cache="default") == "computed"
    assert not cache_exists("key")


def test_a_failure_is_logged(cache: BaseCache, caplog: pytest.LogCaptureFixture) -> None:
    cache_set("key", "old")
    ran: list[int] = []
    with failing("delete", "delete_many"), transaction.atomic():
        cache_delete("key", on_commit=True)
        transaction.on_commit(lambda: ran.append(1))
    assert ran == [1]
    assert "Error deleting cache keys ['example.com:key'] after the transaction" in caplog.text
    assert read() == "old"


def test_databases_and_modes(cache: BaseCache) -> None:
    with pytest.raises(ConnectionDoesNotExist):
        cache_delete("key", on_commit="nothing")
    transaction.set_autocommit(False)
    try:
        with pytest.raises(TransactionManagementError):
            cache_delete("key", on_commit=True)
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)


def test_callbacks_that_a_test_runs_are_over(cache: BaseCache) -> None:
    cache_set("key", "old")
    with transaction.atomic():
        with TestCase.captureOnCommitCallbacks(execute=True) as callbacks:
            cache_delete("key", on_commit=True)
            assert read() == "computed"
        assert len(callbacks) == 1
        # Django keeps them in its list.
        assert read() == cache_get("key") == "computed"
        del callbacks


def test_other_callbacks_may_be_anything(cache: BaseCache) -> None:
    cache_set("key", "old")
    calls: list[Callable[[], object]] = [print, lambda: None]
    with transaction.atomic():
        for call in calls:
            transaction.on_commit(call)
        cache_delete("other", on_commit=True)
        assert read() == "old"


# What is running already


FORMS: dict[str, dict[str, Any]] = {"small": {}, "large": LARGE, "secret": SECRET, "tags": {"tags": ["reports"]}}
DELETIONS: list[Callable[[dict[str, Any]], object]] = [
    lambda options: cache_delete("key", on_commit=True, **{name: options[name] for name in SECRET if name in options}),
    lambda options: invalidate_tags("reports", on_commit=True),
]


@pytest.mark.parametrize("delete", DELETIONS, ids=["delete", "invalidate"])
@pytest.mark.parametrize("options", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("more", [{}, {"lock": True}, {"force_overwrite": True}, {"expiration": len}], ids=str)
def test_a_producer_that_deletes_its_own_entry(
    cache: BaseCache, delete: Callable[..., object], options: dict[str, Any], more: dict[str, Any]
) -> None:
    options = {**options, "tags": ["reports"]} if delete is DELETIONS[1] else options
    more = {"lock": CacheLock()} if "lock" in more else more
    cache_memoize("other", lambda: 1, tags=["reports"])
    if "force_overwrite" in more:
        cache_set("key", "old", **options)
    before = without_marks(stored_bytes(cache))

    def produce() -> str:
        delete(options)
        return "uncommitted"

    with pytest.raises(Undo), transaction.atomic():
        assert cache_memoize("key", produce, **options, **more) == "uncommitted"
        assert without_marks(stored_bytes(cache)) == before
        raise Undo
    # What was there is there again.
    assert without_marks(stored_bytes(cache)) == before


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    ("who", "position"), [("consumer", 0), ("consumer", 1), ("producer", 0), ("producer", 1), ("producer", 2)]
)
def test_a_stream_whose_entry_is_deleted_in_the_middle(
    cache: BaseCache, who: str, position: int, overwrite: bool
) -> None:
    if overwrite:
        cache_memoize("key", lambda: "old", **LARGE)
    # Something is stored after each.
    items = [noise(2_000_000), noise(2_000_001)]

    def delete(caller: str, number: int) -> None:
        if (caller, number) == (who, position):
            cache_delete("key", on_commit=True)

    def produce() -> Iterator[bytes]:
        for number, item in enumerate(items):
            delete("producer", number)
            yield item
        delete("producer", len(items))

    with pytest.raises(Undo), transaction.atomic():
        found = []
        for number, item in enumerate(cache_memoize_iter("key", produce, force_overwrite=overwrite)):
            delete("consumer", number)
            found.append(item)
        assert found == items
        raise Undo
    # Overwritten it is only if a chunk was stored before.
    assert cache_get("key", MISSING, **LARGE) == ("old" if overwrite and position == 0 else MISSING)


def test_values_by_hand_are_removed_with_the_rest(cache: BaseCache) -> None:
    for options in ({}, LARGE, SECRET):
        secret = {name: value for name, value in options.items() if name in SECRET}
        with transaction.atomic():
            cache_delete("key", on_commit=True, **secret)
            assert cache_set("key", "by hand", **options)
        assert not cache_exists("key", **secret)
    with transaction.atomic():
        cache_delete("key", on_commit=True)
        # The cache decides, and others use it.
        assert cache_add("key", "added")
        assert not cache_add("key", "again")
        assert not cache_exists("key")
    assert not cache_exists("key")


def test_a_failed_invalidation_is_logged_as_one(cache: BaseCache, caplog: pytest.LogCaptureFixture) -> None:
    with failing("set_many"), transaction.atomic():
        invalidate_tags("reports", on_commit=True)
    assert "Error invalidating tags ['example.com:_tag_:reports'] after the transaction" in caplog.text
    assert "deleting" not in caplog.text


def test_what_is_stored_by_hand_stays_after_a_rollback(cache: BaseCache) -> None:
    cache_set("old", 1)
    with pytest.raises(Undo), transaction.atomic():
        cache_delete_many(["old", "set", "add"], on_commit=True)
        assert cache_set("set", 2)
        assert cache_add("add", 3)
        assert not cache_add("old", 4)
        raise Undo
    assert cache_get_many(["old", "set", "add"]) == {"old": 1, "set": 2, "add": 3}
