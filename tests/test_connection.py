"""The default cache: always what Django hands out at that moment, however it came about."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from unittest.mock import patch

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.locmem import LocMemCache
from django.test import override_settings

from fastblets.cache import connection
from fastblets.cache.backend import cache_memoize
from fastblets.cache.connection import get_cache

pytestmark = pytest.mark.usefixtures("way")


@pytest.fixture(params=["short", "Django's"])
def way(request: pytest.FixtureRequest) -> Iterator[None]:
    """The short way to the cache, and Django's own in its place. A cache has been found already."""
    if request.param == "short" and not connection._has_states:
        pytest.skip("asgiref changes its locals in place before 3.9")
    with patch.object(connection, "_has_states", request.param == "short"):
        assert get_cache() is caches["default"]
        yield


@pytest.fixture
def other(request: pytest.FixtureRequest) -> Iterator[BaseCache]:
    """A cache that is put in the place of the default one, and taken out again."""
    before = caches["default"]
    caches["default"] = other = LocMemCache("other", {})
    yield other
    caches["default"] = before
    assert get_cache() is before


def check() -> BaseCache:
    """It is Django's when it is looked for and when it has been found."""
    cache = get_cache()
    assert cache is get_cache() is caches["default"]
    return cache


def test_another_cache_is_put_in_its_place(other: BaseCache) -> None:
    assert check() is other


def test_it_is_taken_away() -> None:
    before = check()
    del caches["default"]
    assert check() is not before


def test_the_settings_change() -> None:
    with override_settings(CACHES={"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}):
        assert isinstance(check(), DummyCache)
    assert not isinstance(check(), DummyCache)


def test_each_thread_has_its_own() -> None:
    mine = check()
    with ThreadPoolExecutor(1) as pool:
        theirs = pool.submit(check).result()
        assert pool.submit(check).result() is theirs is not mine
    assert check() is mine


def test_a_context(other: BaseCache) -> None:
    assert copy_context().run(check) is other


def test_a_change_within_a_context() -> None:
    before = check()

    def change() -> None:
        caches["default"] = within = LocMemCache("within", {})
        assert check() is within

    copy_context().run(change)
    # Whose change it is is asgiref's affair.
    check()
    caches["default"] = before


def test_a_context_in_another_thread() -> None:
    check()
    context = copy_context()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(context.run, check).result()
    check()


def test_coroutines() -> None:
    async def coroutine() -> BaseCache:
        await asyncio.gather(*(asyncio.to_thread(check) for _ in range(3)))
        await sync_to_async(check)()
        await sync_to_async(check, thread_sensitive=False)()
        return check()

    check()
    asyncio.run(coroutine())
    async_to_sync(coroutine)()
    check()


@pytest.mark.django_db
def test_a_value_goes_where_it_is_looked_for(other: BaseCache) -> None:
    assert cache_memoize("key", lambda: 1) == 1
    assert other.get("example.com:key") == 1
    del caches["default"]
    assert caches["default"].get("example.com:key") is None


class _Changing:
    """A local as asgiref might have it some day: changed in place."""

    def __init__(self) -> None:
        self._storage = self
        self._data = self

    def get(self, default: object) -> object:
        return self


class _Other:
    """A local as asgiref had it before 3.7: with other insides."""


@pytest.mark.parametrize("local", [_Changing, _Other])
def test_locals_without_states_are_left_to_django(local: type) -> None:
    with patch.object(connection, "Local", local), patch.object(caches, "_connections", local()):
        assert not connection._find_out_whether_there_are_states()
