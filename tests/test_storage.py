"""The cache calls of an entry: what is asked for, in which order, and what is believed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.core.cache.backends.base import BaseCache

from fastblets.cache.backend import CACHE_CHUNK_SIZE, cache_memoize, cache_memoize_iter, make_cache_key
from fastblets.cache.errors import UnreachableError
from fastblets.cache.opening import open_entry
from fastblets.cache.options import UNSET
from fastblets.cache.storage import Storage
from tests.test_memoize import MODES

Options = dict[str, Any]


class _Unreachable(ConnectionError):
    """An error by which redis-py says that no server answers."""


_Unreachable.__module__, _Unreachable.__name__ = "redis.exceptions", "ConnectionError"


def open_plain(key: str = "key", **options: Any) -> Storage:
    """An entry that is not compressed, so that sizes of chunks are sizes of data."""
    storage = open_entry(key, UNSET, False, options.get("use_encryption"), None, options.get("seal"), None)
    assert storage is not None
    return storage


@pytest.fixture
def calls(locmem: BaseCache, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """The calls of the cache, with their first arguments."""
    made: list[tuple[str, Any]] = []
    running: list[str] = []

    def spy(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(first: Any, *args: Any, **kwargs: Any) -> Any:
            # LocMem's own calls don't count.
            if not running:
                made.append((name, first))
            running.append(name)
            try:
                return method(first, *args, **kwargs)
            finally:
                running.pop()

        return call

    for name in ("get", "set", "get_many", "set_many", "delete"):
        monkeypatch.setattr(locmem, name, spy(name, getattr(type(locmem), name).__get__(locmem)))
    return made


@pytest.mark.parametrize("encrypt", [False, True])
@pytest.mark.parametrize("value", [None, 0, "text"], ids=repr)
def test_a_value_is_one_call_each_way(calls: list[tuple[str, Any]], encrypt: bool, value: Any) -> None:
    storage = open_plain(use_encryption=encrypt)
    assert storage.load() is UNSET
    storage.store(value)
    assert open_plain(use_encryption=encrypt).load() == value
    key = storage.entry.full_key
    assert calls == [("get", key), ("set", key), ("get", key)]


def test_chunks_are_stored_before_their_count(calls: list[tuple[str, Any]]) -> None:
    # Two chunks and a bit.
    list(cache_memoize_iter("key", ["x" * 2_200_000], compress_large_data=False))
    storage = open_plain()
    key, first, second, third = storage.entry.full_key, *storage.entry.chunk_keys(0, 3)
    names = [(name, list(what) if isinstance(what, dict) else what) for name, what in calls]
    assert names == [("get", key), ("delete", key), ("set_many", [first, second]), ("set", third), ("set", key)]


def test_a_full_last_chunk_has_nothing_after_it(calls: list[tuple[str, Any]]) -> None:
    # What a longer entry left behind would be taken for the end of this one.
    storage = open_plain()
    second = storage.entry.chunk_keys(1, 2)[0]
    assert storage.store_last_chunk(0, b"x" * CACHE_CHUNK_SIZE, b"") == 1
    assert ("delete", second) in calls
    calls.clear()
    assert storage.store_last_chunk(0, b"x", b"") == 1
    assert ("delete", second) not in calls
    assert storage.store_last_chunk(1, None, b"") == 1


@pytest.mark.parametrize("method", ["get", "set", "get_many", "set_many", "delete"])
def test_an_unreachable_cache_is_told_from_another_error(
    locmem: BaseCache, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    def use(storage: Storage) -> None:
        {
            "get": storage.load,
            "set": lambda: storage.store(1),
            "get_many": lambda: storage._fetch_chunks(1),
            "set_many": lambda: storage.store_chunks(0, [b"x"], b""),
            "delete": storage.delete,
        }[method]()

    storage = open_plain()
    for error, expected in ((_Unreachable("down"), UnreachableError), (ValueError("broken"), ValueError)):

        def fail(*args: Any, error: Exception = error, **kwargs: Any) -> Any:
            raise error

        monkeypatch.setattr(locmem, method, fail)
        with pytest.raises(expected, match=str(error)):
            use(storage)
        assert storage.discard() == (method != "delete" or expected is ValueError)


def test_only_item_is_the_only_one(locmem: BaseCache) -> None:
    for items, found in (([], "less"), ([1, 2], "more")):
        list(cache_memoize_iter("key", items, compress_large_data=False, force_overwrite=True))
        with pytest.raises(ValueError, match=f"it has {found} than one item"):
            open_plain().load_only_item()
    list(cache_memoize_iter("key", [None], compress_large_data=False, force_overwrite=True))
    assert open_plain().load_only_item() is None
    assert open_plain("another").load_only_item() is UNSET


def test_refused_keys_are_a_failure(locmem: BaseCache, monkeypatch: pytest.MonkeyPatch) -> None:
    items = ["x" * 3_000_000]
    set_many = locmem.set_many

    def refuse(data: dict[str, Any], **kwargs: Any) -> list[str]:
        set_many(data, **kwargs)
        return list(data)[:1]

    monkeypatch.setattr(locmem, "set_many", refuse)
    assert list(cache_memoize_iter("key", items, compress_large_data=False)) == items
    assert make_cache_key("key") not in locmem


@pytest.mark.parametrize("options", MODES)
@pytest.mark.parametrize("count", ["1000000000", "-1", "99999999999999999999", "", "x", None, [], 2.5, 10**9], ids=repr)
def test_a_count_that_is_wrong_is_a_miss(locmem: BaseCache, options: Options, count: Any) -> None:
    cache_memoize("key", lambda: count, use_encryption=options["use_encryption"])
    assert list(cache_memoize_iter("key", ["new"], **options)) == ["new"]
    assert list(cache_memoize_iter("key", ["newer"], **options)) == ["new"]


def test_a_huge_count_costs_one_batch(locmem: BaseCache, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    get_many = locmem.get_many
    monkeypatch.setattr(locmem, "get_many", lambda keys: asked.append(list(keys)) or get_many(keys))
    locmem.set(make_cache_key("key"), "1000000000")
    assert list(cache_memoize_iter("key", ["new"])) == ["new"]
    assert [len(keys) for keys in asked] == [64]


def test_many_chunks_are_fetched_in_batches(locmem: BaseCache, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    get_many = locmem.get_many
    monkeypatch.setattr(locmem, "get_many", lambda keys: asked.append(list(keys)) or get_many(keys))
    items = ["x" * 1_000_000] * 70
    for _ in range(2):
        assert list(cache_memoize_iter("key", items, compress_large_data=False)) == items
    # 70 million bytes are a little more than 66 chunks.
    assert [len(keys) for keys in asked] == [64, 3]
