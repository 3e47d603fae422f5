"""Removing entries of every kind, with all that belongs to them and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.core.cache.backends.base import BaseCache

from fastblets.cache.backend import cache_memoize, cache_memoize_iter, make_cache_key
from fastblets.cache.errors import CacheRefusedError
from fastblets.diagnostics.forget import forget_entry
from fastblets.diagnostics.inspector import inspect_entry
from tests.backends import FORWARDED, stored_bytes, use_cache, without_marks
from tests.faults import replaced
from tests.test_inspector import ITEMS, Options, chunk_key, look, store
from tests.test_key_rotation import NEW, OLD, OLDEST, rotated
from tests.test_memoize import MODES
from tools.servers import Memcached

pytestmark = pytest.mark.django_db


def test_forgetting_under_older_keys(locmem: BaseCache) -> None:
    full_keys = []
    for key in (NEW, OLDEST):
        with rotated(key):
            list(cache_memoize_iter("key", ITEMS, use_encryption=True))
    for key in (NEW, OLD, OLDEST):
        with rotated(key):
            full_keys.append(make_cache_key("key", use_encryption=True))
    with rotated(NEW, OLD, OLDEST):
        forgotten = forget_entry("key", use_encryption=True)
        assert [each.full_key for each in (forgotten, *forgotten.older)] == full_keys
        assert [(each.main, each.chunks) for each in (forgotten, *forgotten.older)] == [
            (True, 3),
            (False, 0),
            (True, 3),
        ]
        assert json.loads(json.dumps(forgotten.to_dict()))["older"][1]["chunks"] == 3
    assert without_marks(stored_bytes(locmem)) == {}


def test_the_older_ones_go_first(locmem: BaseCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a call in between would find them, and store the entry again."""
    deleted: list[str] = []
    monkeypatch.setattr(locmem, "delete_many", deleted.extend)
    with rotated(NEW, OLD):
        forget_entry("key", use_encryption=True)
        assert deleted[-1] == make_cache_key("key", use_encryption=True)
    assert len(deleted) == 2


@pytest.mark.parametrize("options", MODES)
def test_forgetting_removes_all(cache_backend: BaseCache, options: Options) -> None:
    store("other", ITEMS[:1], options)
    store("key", ITEMS, options)
    count = look("key", options).chunk_count or 0
    keys = [make_cache_key("key", use_encryption=options["use_encryption"])]
    keys += [chunk_key(number, options) for number in range(count)]
    assert len(cache_backend.get_many(keys)) == count + 1
    forgotten = forget_entry("key", use_encryption=options["use_encryption"])
    assert (forgotten.main, forgotten.chunks) == (True, count)
    assert cache_backend.get_many(keys) == {}
    assert forget_entry("key", use_encryption=options["use_encryption"]).to_dict() == {
        "full_key": keys[0],
        "main": False,
        "chunks": 0,
        "older": (),
        "encrypted": options["use_encryption"],
    }
    assert look("other", options).state == "whole"


@pytest.mark.parametrize("count", ["garbage", None, "1", "1000000000"])
def test_forgetting_what_has_a_wrong_count(locmem: BaseCache, count: str | None) -> None:
    store("key", ["x" * 1_000_000] * 70, {"compress_large_data": False})
    if count is None:
        locmem.delete(make_cache_key("key"))
    else:
        locmem.set(make_cache_key("key"), count)
    forgotten = forget_entry("key")
    assert (forgotten.main, forgotten.chunks) == (count is not None, 67)
    assert without_marks(stored_bytes(locmem)) == {}


def test_forgetting_spares_others(locmem: BaseCache) -> None:
    store("key", ["a"], {})
    for number in range(1, 4):
        cache_memoize(f"key-{number}", lambda: {"of": "others"})
    cache_memoize("key-5", lambda: "5")
    cache_memoize("key-6", lambda: None)
    assert forget_entry("key").chunks == 1
    assert len(without_marks(stored_bytes(locmem))) == 5


def test_the_count_goes_first(locmem: BaseCache, monkeypatch: pytest.MonkeyPatch) -> None:
    store("key", ITEMS, {})
    calls: list[Any] = []
    monkeypatch.setattr(locmem, "delete_many", calls.append)
    forget_entry("key")
    # With the record that a small value may have beside it. Then the chunks.
    assert calls == [
        [make_cache_key("key"), make_cache_key("_state_:key")],
        [make_cache_key(f"key-{number}") for number in range(3)],
    ]


@pytest.mark.parametrize("kind", ["PyMemcacheCache", "PyLibMCCache"])
@pytest.mark.parametrize("what", ["key", "key-1"])
def test_a_deletion_that_a_server_refuses_raises(kind: str, what: str, db: None, memcached: Memcached) -> None:
    """Of several servers one is down: a client says of its keys that they are not there."""
    pytest.importorskip({"PyMemcacheCache": "pymemcache", "PyLibMCCache": "pylibmc"}[kind])
    backend = f"django.core.cache.backends.memcached.{kind}"
    with use_cache({"BACKEND": backend, "LOCATION": memcached.address}) as cache:
        store("key", ITEMS, {})
        refused = make_cache_key(what)
        real = cache.set_many

        def refuse(data: dict[str, Any], **options: Any) -> Any:
            return [refused] if refused in data else real(data, **options)

        with (
            replaced(cache, set_many=refuse, delete=lambda _: False),
            pytest.raises(CacheRefusedError, match="did not delete 1 of"),
        ):
            forget_entry("key")


def test_forgetting_in_another_cache(locmem: BaseCache) -> None:
    for cache in (None, FORWARDED):
        list(cache_memoize_iter("key", ITEMS, cache=cache))
    assert forget_entry("key", cache=FORWARDED).chunks == 3
    assert inspect_entry("key", cache=FORWARDED).state == "missing"
    assert inspect_entry("key").state == "whole"
    assert forget_entry("key", cache="default").chunks == 3


def test_the_chunk_of_an_empty_sealed_entry_is_forgotten(locmem: BaseCache) -> None:
    # It holds nothing but is there, for its seal.
    assert list(cache_memoize_iter("key", [], compress_large_data=False, seal=True)) == []
    assert locmem.get(make_cache_key("key-0"))[0] == b""
    assert forget_entry("key").chunks == 1
    assert locmem.get(make_cache_key("key-0")) is None
