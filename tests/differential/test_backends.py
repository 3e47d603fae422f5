"""On every backend: one library stores, the other one reads."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from django.core.cache.backends.base import BaseCache

from tests.backends import stored_entries
from tests.everyday import one_on
from tests.parity import Library, Parity

Options = dict[str, Any]
MODES = [
    pytest.param({"compress_large_data": compress, "use_encryption": encrypt}, id=f"{first}-{second}")
    for (first, compress), (second, encrypt) in product(
        [("plain", False), ("compressed", True)], [("clear", False), ("encrypted", True)]
    )
]
PAIRS = [
    pytest.param("djblets", "fastblets", id="djblets-first"),
    pytest.param("fastblets", "djblets", id="fastblets-first"),
]
NOISE = random.Random(3).randbytes(2_500_000)
VALUES = [None, "", "text", b"\0\xff", 5, {"a": [1, (2.5, None)], "b": {1, 2}}, "x" * 1_040_000]


def never() -> Any:
    pytest.fail("computed again")


def memoize(library: Library, make: Callable[[], Any], *, large: bool, **options: Any) -> Any:
    return library.backend.cache_memoize(["a b", "%:ключ"], make, large_data=large, **options)


@pytest.mark.every_backend
@pytest.mark.parametrize(("writer", "reader"), PAIRS)
@pytest.mark.parametrize("mode", one_on(MODES))
@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
def test_one_reads_the_others_values(
    both: Parity, cache_backend: BaseCache, writer: str, reader: str, mode: Options, large: bool
) -> None:
    for value in VALUES:
        cache_backend.clear()
        memoize(Library(writer), lambda value=value: value, large=large, **mode)
        assert memoize(Library(reader), never, large=large, **mode) == value


@pytest.mark.parametrize(("writer", "reader"), PAIRS)
@pytest.mark.parametrize("mode", one_on(MODES))
@pytest.mark.parametrize("items", [[], ["one", 2, None], [NOISE[:1000], NOISE, "x" * 3_000_000]], ids=len)
def test_one_reads_the_others_items(
    both: Parity, cache_backend: BaseCache, writer: str, reader: str, mode: Options, items: list[Any]
) -> None:
    list(Library(writer).backend.cache_memoize_iter("key", items, **mode))
    assert list(Library(reader).backend.cache_memoize_iter("key", never, **mode)) == items


@pytest.mark.parametrize("mode", one_on(MODES))
def test_both_store_the_same_objects(both: Parity, cache_backend: BaseCache, mode: Options) -> None:
    def stored(library: Library) -> dict[str, Any]:
        cache_backend.clear()
        both._ivs.calls = 0
        list(library.backend.cache_memoize_iter("key", [NOISE], **mode))
        make_key = library.backend.make_cache_key
        options = {"use_encryption": mode["use_encryption"]}
        return stored_entries(cache_backend, [make_key(key, **options) for key in ("key", "key-0", "key-1", "key-2")])

    theirs, ours = map(stored, both.libraries)
    assert len(ours) == 4
    assert ours == theirs


@pytest.mark.every_backend
@pytest.mark.parametrize(("holder", "waiter"), PAIRS)
def test_one_respects_the_others_lock(both: Parity, cache_backend: BaseCache, holder: str, waiter: str) -> None:
    held, wanted = (Library(name).locks.CacheLock("lock", retry_secs=0.01) for name in (holder, waiter))
    with held:
        assert not wanted.acquire(blocking=False)
        with pytest.raises(TimeoutError):
            wanted.acquire(timeout=0.05)
    assert wanted.acquire(blocking=False)
    assert not held.acquire(blocking=False)
    wanted.release()


@pytest.mark.every_backend
@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_one_sees_the_others_new_generation(both: Parity, cache_backend: BaseCache, first: str, second: str) -> None:
    one, other = (Library(name).synchronizer.GenerationSynchronizer("state") for name in (first, second))
    assert not other.is_expired()
    one.mark_updated()
    assert other.is_expired()
    other.refresh()
    assert not other.is_expired()
    assert not one.is_expired()
