"""Arguments that can't be meant: the error names each of them."""

from __future__ import annotations

import threading
import warnings
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest
from django.core.cache.backends.base import BaseCache

from fastblets.cache.backend import cache_memoize, cache_memoize_iter
from fastblets.protect.locks import CacheLock
from tests.backends import stored_bytes

pytestmark = pytest.mark.usefixtures("locmem")


def iterate(key: Any, items: Any, **options: Any) -> list[Any]:
    return list(cache_memoize_iter(key, items, **options))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "small": cache_memoize,
    "large": partial(cache_memoize, large_data=True),
    "iter": iterate,
}
functions = pytest.mark.parametrize("memoize", FUNCTIONS.values(), ids=FUNCTIONS)


@functions
@pytest.mark.parametrize(
    ("lock", "found"),
    [(CacheLock, "not the class CacheLock"), (True, "not of type bool"), (threading.Lock(), "not of type lock")],
)
def test_what_is_no_lock(memoize: Callable[..., Any], lock: Any, found: str) -> None:
    with pytest.raises(TypeError, match=rf"^lock must be an instance of CacheLock, .*, {found}\.$"):
        memoize("key", list, lock=lock)


@functions
@pytest.mark.parametrize("expiration", ["1 day", "3600", [1]])
def test_what_is_no_expiration(memoize: Callable[..., Any], expiration: Any) -> None:
    expected = r"^expiration must be a number of seconds, a timedelta or None, not of type \w+\.$"
    with pytest.raises(TypeError, match=expected):
        memoize("key", list, expiration=expiration)


@pytest.mark.parametrize("expiration", [60, 60.5, None])
def test_what_is_one(expiration: Any) -> None:
    assert cache_memoize("key", lambda: 1, expiration=expiration) == cache_memoize("key", lambda: 2) == 1


async def coroutine() -> list[int]:
    return [1]


async def asynchronous_generator() -> AsyncIterator[int]:
    yield 1


class Service:
    async def load(self) -> list[int]:
        return [1]


@functions
@pytest.mark.parametrize(
    ("make", "declared", "instead"),
    [
        (lambda: coroutine, "coroutine", r"asgiref\.sync\.async_to_sync\(coroutine\), or a function"),
        (lambda: coroutine(), "coroutine", r"asgiref\.sync\.async_to_sync\(coroutine\), or a function"),
        (lambda: partial(coroutine), "coroutine", r"asgiref\.sync\.async_to_sync\(coroutine\), or a function"),
        (lambda: Service().load, r"Service\.load", r"asgiref\.sync\.async_to_sync\(load\), or a function"),
        (lambda: asynchronous_generator, "asynchronous_generator", "a function"),
        (lambda: asynchronous_generator(), "asynchronous_generator", "a function"),
    ],
    ids=["function", "object", "partial", "method", "generator function", "generator"],
)
@pytest.mark.filterwarnings("error")
def test_what_is_asynchronous(
    memoize: Callable[..., Any], make: Callable[[], Any], declared: str, instead: str, locmem: BaseCache
) -> None:
    argument = "items_or_callable" if memoize is iterate else "lookup_callable"
    expected = rf"^{argument} must be synchronous, but {declared}\(\) is declared with async def\. Pass {instead}"
    with warnings.catch_warnings():
        # One that was never awaited.
        warnings.simplefilter("error")
        with pytest.raises(TypeError, match=expected):
            memoize("key", make(), lock=CacheLock())
    # The lock is free again.
    assert stored_bytes(locmem) == {}


@pytest.mark.parametrize("large", [False, True])
def test_a_value_in_place_of_what_computes_it(large: bool) -> None:
    with pytest.raises(TypeError, match=r"^lookup_callable must be callable, not of type dict\.$"):
        cache_memoize("key", {"a": 1}, large_data=large)  # type: ignore[arg-type]
