"""What the memoize functions promise, on every backend."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest
from django.core.cache.backends.base import BaseCache

from fastblets.cache.backend import (
    CACHE_CHUNK_SIZE,
    cache_memoize,
    cache_memoize_iter,
    make_cache_key,
)
from fastblets.protect.locks import CacheLock
from tests.everyday import one_on
from tests.faults import METHODS, CacheDownError, failing

pytestmark = pytest.mark.django_db

Options = dict[str, Any]

MODES = [
    pytest.param(
        {"compress_large_data": compress, "use_encryption": encrypt},
        id=f"{'compressed' if compress else 'plain'}{'-encrypted' if encrypt else ''}",
    )
    for compress, encrypt in product([False, True], repeat=2)
]


class Source:
    """A callable that counts its calls, and what was asked of its iterator."""

    def __init__(self, *items: Any, error: BaseException | None = None) -> None:
        self.items = items
        self.error = error
        self.calls = 0
        self.asked = 0

    def __call__(self) -> Iterator[Any]:
        self.calls += 1
        return self.iterate()

    def iterate(self) -> Iterator[Any]:
        for item in self.items:
            self.asked += 1
            yield item
        if self.error is not None:
            raise self.error


def once(value: Any) -> Callable[[], Any]:
    source = iter([value])
    return lambda: next(source)


@pytest.mark.parametrize("options", MODES)
@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
@pytest.mark.parametrize("value", [None, "", "text", b"\0", 0, {"a": [1, (2.5, None)]}, {1, 2}], ids=repr)
def test_a_value_is_computed_once(cache_backend: BaseCache, options: Options, large: bool, value: Any) -> None:
    lookup = once(value)
    for _ in range(3):
        assert cache_memoize("key", lookup, large_data=large, **options) == value


@pytest.mark.every_backend
@pytest.mark.parametrize("encrypt", [False, True])
def test_a_stream_that_ends_with_a_full_chunk(cache_backend: BaseCache, encrypt: bool) -> None:
    options = {"compress_large_data": False, "use_encryption": encrypt}
    # A pickled text of this length fills a chunk: V, the text, \np0\n.
    full = "x" * (CACHE_CHUNK_SIZE - 6 - (16 if encrypt else 0))
    for items in ([full, "and more"], [full]):
        # The second time, the first one's last chunk is left.
        list(cache_memoize_iter("key", items, force_overwrite=True, **options))
        assert list(cache_memoize_iter("key", ["computed"], **options)) == items


@pytest.mark.parametrize("options", MODES)
@pytest.mark.parametrize("items", [[], [None], ["a", 1, None, [2], ""], ["x" * CACHE_CHUNK_SIZE, "y" * 100] * 2])
def test_items_are_computed_once(cache_backend: BaseCache, options: Options, items: list[Any]) -> None:
    source = Source(*items)
    for _ in range(3):
        assert list(cache_memoize_iter("key", source, **options)) == items
    assert source.calls == 1


@pytest.mark.parametrize("options", MODES)
def test_a_generator_that_does_nothing_before_it_is_asked(locmem: BaseCache, options: Options) -> None:
    source = Source(1)
    with failing(*METHODS):
        generator = cache_memoize_iter("key", source, **options)
    assert inspect.isgenerator(generator)
    assert source.calls == 0


@pytest.mark.parametrize("options", MODES)
def test_an_item_arrives_before_the_next_is_asked_for(locmem: BaseCache, options: Options) -> None:
    source = Source(*"abc")
    for number, item in enumerate(cache_memoize_iter("key", source, **options), 1):
        assert (source.asked, item) == (number, "abc"[number - 1])


@pytest.mark.parametrize(
    "items", [[1, 2], (1, 2), range(1, 3), {1: 0, 2: 0}, pytest.param(iter([1, 2]), id="iterator")], ids=repr
)
def test_an_iterable_needs_no_callable(locmem: BaseCache, items: Any) -> None:
    assert list(cache_memoize_iter("key", items)) == [1, 2]
    assert list(cache_memoize_iter("key", [])) == [1, 2]


@pytest.mark.parametrize("nothing", [None, 5, pytest.param(object(), id="object")], ids=repr)
def test_what_is_no_iterable_is_refused(locmem: BaseCache, nothing: Any) -> None:
    for items in (nothing, lambda: nothing):
        with pytest.raises(TypeError, match="needs an iterable"):
            list(cache_memoize_iter("key", items))
    assert list(cache_memoize_iter("key", [1])) == [1]


@pytest.mark.parametrize("options", one_on(MODES))
@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), EOFError(), SystemExit()], ids=repr)
def test_an_error_of_the_source_arrives_after_the_items_before_it(
    cache_backend: BaseCache, options: Options, error: BaseException
) -> None:
    got = []
    with pytest.raises(type(error)) as caught:
        for item in cache_memoize_iter("key", Source(1, "x" * 3_000_000, error=error), **options):
            got.append(item)
    assert caught.value is error
    assert got == [1, "x" * 3_000_000]
    assert list(cache_memoize_iter("key", Source(2), **options)) == [2]


def test_an_error_of_the_computation_arrives(locmem: BaseCache) -> None:
    for large in (False, True):
        with pytest.raises(ZeroDivisionError):
            cache_memoize("key", lambda: 1 // 0, large_data=large)


@pytest.mark.parametrize("options", MODES)
def test_a_generator_that_is_dropped_stores_nothing(cache_backend: BaseCache, options: Options) -> None:
    generator = cache_memoize_iter("key", Source(*["x" * 3_000_000] * 2), **options)
    next(generator)
    generator.close()
    assert list(cache_memoize_iter("key", Source(2), **options)) == [2]


@pytest.mark.parametrize("options", one_on(MODES))
@pytest.mark.parametrize("error", [None, ValueError()], ids=["dropped", "failed"])
def test_an_overwrite_that_does_not_end_leaves_nothing(
    cache_backend: BaseCache, options: Options, error: Exception | None
) -> None:
    old = ["old" * 1_000_000] * 2
    assert list(cache_memoize_iter("key", old, **options)) == old
    source = Source("new" * 1_000_000, error=error)
    generator = cache_memoize_iter("key", source, force_overwrite=True, **options)
    next(generator)
    if error is not None:
        with pytest.raises(ValueError):
            next(generator)
    generator.close()
    assert list(cache_memoize_iter("key", ["newest"], **options)) == ["newest"]


class Unpicklable:
    def __reduce__(self) -> Any:
        raise TypeError("not to be pickled")


@pytest.mark.parametrize("options", MODES)
def test_what_cannot_be_pickled_is_delivered(
    locmem: BaseCache, options: Options, caplog: pytest.LogCaptureFixture
) -> None:
    items = [1, Unpicklable(), "x" * 3_000_000, 2]
    assert list(cache_memoize_iter("key", items, **options)) == items
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "not to be pickled" in caplog.text
    assert list(cache_memoize_iter("key", [3], **options)) == [3]

    caplog.clear()
    assert cache_memoize("large", lambda: items[1], large_data=True, **options) is items[1]
    assert len(caplog.records) == 1


@pytest.mark.parametrize("options", one_on(MODES))
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("locked", [False, True], ids=["unlocked", "locked"])
def test_a_cache_that_fails_loses_nothing(locmem: BaseCache, options: Options, method: str, locked: bool) -> None:
    items = [1, "x" * 3_000_000, 2]

    def lock() -> CacheLock | None:
        return CacheLock() if locked else None

    for overwrite in (False, True):
        with failing(method):
            assert cache_memoize("s", lambda: 1, force_overwrite=overwrite, lock=lock(), **options) == 1
            assert (
                cache_memoize(
                    "l", lambda: "x" * 3_000_000, large_data=True, force_overwrite=overwrite, lock=lock(), **options
                )
                == "x" * 3_000_000
            )
            got = list(cache_memoize_iter("i", items, force_overwrite=overwrite, lock=lock(), **options))
            assert got == items
        assert list(cache_memoize_iter("i", items, **options)) == items


@pytest.mark.parametrize("options", MODES)
def test_a_second_generation_is_whole_or_missing(locmem: BaseCache, options: Options) -> None:
    """Whichever call of an overwrite fails, what is read afterwards is one generation."""
    old = [f"old {n}" + "x" * 700_000 for n in range(6)]
    new = [f"new {n}" + "y" * 700_000 for n in range(6)]
    for failing_call in range(12):
        calls = iter(range(100))
        list(cache_memoize_iter("key", old, force_overwrite=True, **options))
        with failing("set", "set_many", when=lambda _, calls=calls, n=failing_call: next(calls) == n):
            assert list(cache_memoize_iter("key", new, force_overwrite=True, **options)) == new
        assert list(cache_memoize_iter("key", ["missing"], **options)) in (old, new, ["missing"])


def test_parameters_may_be_named(locmem: BaseCache) -> None:
    assert cache_memoize(key="key", lookup_callable=lambda: 1) == 1
    assert list(cache_memoize_iter(key="items", items_or_callable=[1])) == [1]
    assert make_cache_key(key="key") == "example.com:key"


def test_a_fault_is_what_it_says(locmem: BaseCache) -> None:
    with failing("get"), pytest.raises(CacheDownError):
        locmem.get("key")
