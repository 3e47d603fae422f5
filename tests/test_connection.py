"""The default cache: always what Django hands out at that moment, however it came about."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from importlib.metadata import version
from types import SimpleNamespace
from unittest.mock import Mock, patch

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.core.cache import CacheHandler, caches
from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.locmem import LocMemCache
from django.test import override_settings

from fastblets.cache import connection
from fastblets.cache.backend import cache_memoize, make_cache_key
from fastblets.cache.connection import get_cache

pytestmark = pytest.mark.usefixtures("way")


@pytest.fixture(params=["short", "Django's"])
def way(request: pytest.FixtureRequest) -> Iterator[str]:
    """The short way to the cache, and Django's own in its place. A cache has been found already."""
    way: str = request.param
    if way == "short" and not connection._has_states:
        pytest.skip("this asgiref's locals have no states")
    token = connection._found.set(None)
    with patch.object(connection, "_has_states", way == "short"):
        assert get_cache() is caches["default"]
        yield way
    connection._found.reset(token)


@pytest.fixture
def other() -> Iterator[BaseCache]:
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


def test_django_is_asked_only_if_something_has_changed(way: str) -> None:
    before = caches["default"]
    with patch.object(connection, "DEFAULT_CACHE_ALIAS", "another"):
        caches["another"] = another = DummyCache("", {})
        assert get_cache() is another
        caches["default"] = before
    assert get_cache() is before
    with patch.object(connection, "DEFAULT_CACHE_ALIAS", "another"):
        assert get_cache() is (before if way == "short" else another)
    del caches["another"]
    check()


def test_states_are_there_since_asgiref_3_9_1() -> None:
    numbers = tuple(map(int, version("asgiref").split(".")[:3]))
    assert connection._find_out_whether_there_are_states() == (numbers >= (3, 9, 1))


@pytest.mark.parametrize("getitem", [lambda self, alias: None, Mock()])
def test_what_somebody_put_in_djangos_place_before_is_asked_each_time(getitem: object) -> None:
    with patch.object(connection, "_getitem", getitem):
        assert not connection._find_out_whether_there_are_states()


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


def test_a_project_has_its_own_way_to_a_cache(other: BaseCache) -> None:
    tenants = [LocMemCache(name, {}) for name in "ab"]
    current = iter(tenants)
    with patch.object(CacheHandler, "__getitem__", lambda self, alias: next(current)):
        assert [get_cache(), get_cache()] == tenants
    assert check() is other


def test_what_holds_the_caches_is_exchanged(other: BaseCache) -> None:
    within = LocMemCache("within", {})
    with patch.object(caches, "_connections", SimpleNamespace(default=within)):
        assert check() is within
    assert check() is other


@pytest.mark.django_db
@pytest.mark.parametrize("encrypted", [False, True])
def test_a_value_goes_where_it_was_looked_for(encrypted: bool, other: BaseCache) -> None:
    after = LocMemCache("after", {})

    def compute() -> int:
        caches["default"] = after
        return 1

    assert cache_memoize("key", compute, use_encryption=encrypted) == 1
    key = make_cache_key("key", use_encryption=encrypted)
    assert key in other
    assert key not in after


class _Changing:
    """A local as asgiref might have it some day: changed in place."""

    def __init__(self) -> None:
        self._storage = self
        self._data = self

    def get(self, default: object) -> object:
        return self


class _Other:
    """A local as asgiref had it before 3.8: with other insides."""


@pytest.mark.parametrize("local", [_Changing, _Other])
def test_locals_without_states_are_left_to_django(local: type) -> None:
    with patch.object(connection, "Local", local), patch.object(caches, "_connections", local()):
        assert not connection._find_out_whether_there_are_states()
