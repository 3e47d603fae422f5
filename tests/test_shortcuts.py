"""Django's own answers without their cost: always what Django would say at that moment, however it came about."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from importlib.metadata import version
from types import CodeType, FrameType, MethodType, SimpleNamespace
from typing import Any
from unittest.mock import Mock, patch

import django.conf
import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.apps import apps
from django.conf import LazySettings, settings
from django.contrib.sites import models
from django.contrib.sites.models import Site, SiteManager
from django.core.cache import CacheHandler, caches
from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.locmem import LocMemCache
from django.test import override_settings
from django.utils import connection
from django.utils.connection import BaseConnectionHandler

from fastblets.cache import shortcuts
from fastblets.cache.backend import cache_memoize, make_cache_key
from fastblets.cache.shortcuts import get_cache, get_settings
from fastblets.cache.sites import Sites, get_sites


@dataclass(frozen=True)
class Shortcut:
    """A shortcut, Django's way to the same, and the code of Django's that the shortcut passes by."""

    take: Callable[[], Any]
    ask: Callable[[], Any]
    code: CodeType


def take_domain() -> str:
    sites = get_sites()
    assert sites is not None
    return sites.get_domain(settings.SITE_ID)


def current_domain() -> str:
    return Site.objects.get_current().domain


SHORTCUTS = {
    "settings": Shortcut(
        lambda: getattr(get_settings(), "FASTBLETS_SEAL", "missing"),
        lambda: getattr(settings, "FASTBLETS_SEAL", "missing"),
        LazySettings.__getattr__.__code__,
    ),
    "cache": Shortcut(get_cache, lambda: caches["default"], BaseConnectionHandler.__getitem__.__code__),
    "site": Shortcut(take_domain, current_domain, SiteManager.get_current.__code__),
}

OTHER_CACHE = LocMemCache("another", {})
OTHER_SITE = Site(id=99, domain="tenant.example.com", name="tenant")


def other_setting(self: LazySettings, name: str) -> Any:
    return "another"


def other_cache(self: CacheHandler, alias: str) -> Any:
    return OTHER_CACHE


def other_site(self: SiteManager, request: Any = None) -> Site:
    return OTHER_SITE


def other_site_by_id(self: SiteManager, site_id: Any) -> Site:
    return OTHER_SITE


@contextmanager
def other_code(function: Any, other: Any) -> Iterator[None]:
    """Exchange what a function does, as kgb's spies do."""
    code, names = function.__code__, function.__globals__
    # The other code looks for its globals in Django's module.
    with patch.dict(names, OTHER_CACHE=OTHER_CACHE, OTHER_SITE=OTHER_SITE):
        function.__code__ = other.__code__
        try:
            yield
        finally:
            function.__code__ = code


@contextmanager
def other_wrapped() -> Iterator[None]:
    """Exchange the settings in force, as `override_settings` does it, by something of another kind."""
    wrapped = settings._wrapped
    settings._wrapped = SimpleNamespace(FASTBLETS_SEAL="another")
    try:
        yield
    finally:
        settings._wrapped = wrapped


@contextmanager
def other_default_cache() -> Iterator[None]:
    before = caches["default"]
    caches["default"] = OTHER_CACHE
    try:
        yield
    finally:
        caches["default"] = before


DUMMY = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}

#: What may be replaced in a project or by a test, by the shortcut that must notice it.
REPLACED: dict[str, dict[str, Callable[[], AbstractContextManager[Any]]]] = {
    "settings": {
        "function": lambda: patch.object(LazySettings, "__getattr__", other_setting),
        "mock": lambda: patch.object(LazySettings, "__getattr__", Mock(return_value="another")),
        "code": lambda: other_code(LazySettings.__getattr__, other_setting),
        "override_settings": lambda: override_settings(FASTBLETS_SEAL="another"),
        "attribute": lambda: patch.object(settings, "FASTBLETS_SEAL", "another", create=True),
        "storage": other_wrapped,
    },
    "cache": {
        "function": lambda: patch.object(BaseConnectionHandler, "__getitem__", other_cache),
        "method of the handler": lambda: patch.object(CacheHandler, "__getitem__", other_cache),
        "mock": lambda: patch.object(CacheHandler, "__getitem__", Mock(return_value=OTHER_CACHE)),
        "code": lambda: other_code(BaseConnectionHandler.__getitem__, other_cache),
        "override_settings": lambda: override_settings(CACHES=DUMMY),
        "cache": other_default_cache,
        "storage": lambda: patch.object(caches, "_connections", SimpleNamespace(default=OTHER_CACHE)),
    },
    "site": {
        "function": lambda: patch.object(SiteManager, "get_current", other_site),
        "mock": lambda: patch.object(SiteManager, "get_current", Mock(return_value=OTHER_SITE)),
        "code": lambda: other_code(SiteManager.get_current, other_site),
        "by id": lambda: patch.object(SiteManager, "_get_site_by_id", other_site_by_id),
        "code by id": lambda: other_code(SiteManager._get_site_by_id, other_site_by_id),
        "mock of the manager": lambda: patch.object(Site.objects, "get_current", Mock(return_value=OTHER_SITE)),
        "method of the manager": lambda: patch.object(
            Site.objects, "get_current", MethodType(other_site, Site.objects)
        ),
        "manager": lambda: patch.object(Site, "objects", Mock(get_current=Mock(return_value=OTHER_SITE))),
        "storage": lambda: patch.dict("django.contrib.sites.models.SITE_CACHE", {1: OTHER_SITE}),
    },
}


@pytest.fixture(params=["all models are loaded", "a model comes later"])
def taken(request: pytest.FixtureRequest, db: None) -> Iterator[None]:
    """All shortcuts have been taken before anything changes."""
    Site.objects.clear_cache()
    assert take_domain() == "example.com"
    if request.param == "a model comes later":
        # Which gives all models new managers.
        apps.clear_cache()
    for shortcut in SHORTCUTS.values():
        shortcut.take()
    yield
    Site.objects.clear_cache()


def runs(code: CodeType, call: Callable[[], object]) -> bool:
    """Whether a call runs that code."""
    seen: set[CodeType] = set()
    before = sys.getprofile()

    def note(frame: FrameType, event: str, argument: object) -> None:
        seen.add(frame.f_code)

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(before)
    return code in seen


def skip_without_states(name: str) -> None:
    if name == "cache" and not shortcuts._has_states:
        pytest.skip("this asgiref's locals have no states")


@pytest.mark.usefixtures("taken")
@pytest.mark.parametrize("name", SHORTCUTS)
def test_it_is_taken(name: str) -> None:
    skip_without_states(name)
    shortcut = SHORTCUTS[name]
    assert not runs(shortcut.code, shortcut.take)
    assert runs(shortcut.code, shortcut.ask)
    assert shortcut.take() == shortcut.ask()


@pytest.mark.usefixtures("taken")
@pytest.mark.parametrize(
    ("name", "replace"),
    [pytest.param(name, way, id=f"{name}-{key}") for name, ways in REPLACED.items() for key, way in ways.items()],
)
def test_django_is_asked_once_anything_is_replaced(
    name: str, replace: Callable[[], AbstractContextManager[Any]]
) -> None:
    shortcut = SHORTCUTS[name]
    before = shortcut.take()
    with replace():
        replaced = shortcut.take()
        assert shortcut.take() == shortcut.ask() == replaced != before
    assert shortcut.take() == shortcut.ask() != replaced


#: Where a project may have put something else before fastblets was imported, and what is known of Django's code then.
BEFORE: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "settings": lambda: patch.object(shortcuts, "_settings_code", None),
    "cache": lambda: patch.object(shortcuts, "_caches_code", None),
    "site": lambda: patch.object(get_sites(), "_code", None),
}


@pytest.mark.usefixtures("taken")
@pytest.mark.parametrize("name", SHORTCUTS)
def test_django_is_asked_each_time_if_its_code_was_not_known_at_import(name: str) -> None:
    shortcut = SHORTCUTS[name]
    with BEFORE[name]():
        assert runs(shortcut.code, shortcut.take)
        assert runs(shortcut.code, shortcut.take)
        assert shortcut.take() == shortcut.ask()


@pytest.mark.parametrize(
    ("module", "function"),
    [
        (django.conf, LazySettings.__getattr__),
        (connection, BaseConnectionHandler.__getitem__),
        (models, SiteManager.get_current),
        (models, SiteManager._get_site_by_id),
    ],
    ids=["settings", "cache", "site", "site by id"],
)
def test_only_the_code_in_djangos_own_module_is_known(module: Any, function: Any) -> None:
    assert shortcuts._get_code(module, function) is function.__code__
    for other in (other_site, lambda self, name: None, Mock(), None, getattr):
        assert shortcuts._get_code(module, other) is None
    with other_code(function, other_site):
        assert shortcuts._get_code(module, function) is None


@pytest.mark.parametrize("name", ["get_current", "_get_site_by_id"])
def test_a_manager_that_was_replaced_before(taken: None, name: str) -> None:
    with patch.object(SiteManager, name, other_site if name == "get_current" else other_site_by_id):
        sites = Sites(models)
        assert sites.get_domain(1) == "tenant.example.com"
    assert sites.get_domain(1) == "example.com"
    assert runs(SiteManager.get_current.__code__, lambda: sites.get_domain(1))
    with patch.object(models, "SiteManager", object()):
        assert Sites(models).get_domain(1) == "example.com"


def test_settings_that_are_not_there_yet() -> None:
    with patch.dict(shortcuts._lazy, _wrapped=shortcuts.empty):
        assert get_settings() is settings
    wrapped = shortcuts._lazy.pop("_wrapped")
    assert get_settings() is settings
    shortcuts._lazy["_wrapped"] = wrapped
    assert get_settings() is wrapped


# The site.


@pytest.mark.usefixtures("taken")
class TestSite:
    def test_a_site_that_was_saved_is_seen(self) -> None:
        site = Site.objects.get(id=1)
        site.domain = "renamed.example.com"
        site.save()
        assert make_cache_key("key") == "renamed.example.com:key"

    def test_a_cache_that_was_cleared_is_filled_again(self) -> None:
        Site.objects.filter(id=1).update(domain="renamed.example.com")
        assert make_cache_key("key") == "example.com:key"
        Site.objects.clear_cache()
        assert make_cache_key("key") == "renamed.example.com:key"

    def test_the_site_may_change(self) -> None:
        Site.objects.create(id=2, domain="second.example.com", name="second")
        with override_settings(SITE_ID=2):
            assert make_cache_key("key") == "second.example.com:key"
        with override_settings(SITE_ID=3):
            assert make_cache_key("key") == "key"
        with override_settings(SITE_ID=None):
            assert make_cache_key("key") == "key"
        assert make_cache_key("key") == "example.com:key"


# The default cache. `way`: the shortcut, and Django's own way in its place. A cache has been found already.


@pytest.fixture(params=["short", "Django's"])
def way(request: pytest.FixtureRequest) -> Iterator[str]:
    """The short way to the cache, and Django's own in its place. A cache has been found already."""
    way: str = request.param
    if way == "short" and not shortcuts._has_states:
        pytest.skip("this asgiref's locals have no states")
    token = shortcuts._found.set(None)
    with patch.object(shortcuts, "_has_states", way == "short"):
        assert get_cache() is caches["default"]
        yield way
    shortcuts._found.reset(token)


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


def test_threads_are_told_apart_as_they_are_now(monkeypatch: pytest.MonkeyPatch) -> None:
    # gevent puts its own function in there, perhaps after the import.
    if not shortcuts._has_states:
        pytest.skip("this asgiref's locals have no states")
    threads = iter(range(100))
    assert get_cache() is get_cache()
    monkeypatch.setattr(threading, "get_ident", lambda: next(threads))
    before = shortcuts._found.get()
    get_cache()
    assert shortcuts._found.get() is not before


class _Changing:
    """A local as asgiref might have it some day: changed in place."""

    def __init__(self) -> None:
        self._storage = self
        self._data = self

    def get(self, default: object) -> object:
        return self


class _Other:
    """A local as asgiref had it before 3.8: with other insides."""


@pytest.mark.usefixtures("way")
class TestCache:
    def test_django_is_asked_only_if_something_has_changed(self, way: str) -> None:
        before = caches["default"]
        with patch.object(shortcuts, "DEFAULT_CACHE_ALIAS", "another"):
            caches["another"] = another = DummyCache("", {})
            assert get_cache() is another
            caches["default"] = before
        assert get_cache() is before
        with patch.object(shortcuts, "DEFAULT_CACHE_ALIAS", "another"):
            assert get_cache() is (before if way == "short" else another)
        del caches["another"]
        check()

    def test_states_are_there_since_asgiref_3_9_1(self) -> None:
        numbers = tuple(map(int, version("asgiref").split(".")[:3]))
        assert shortcuts._find_out_whether_there_are_states() == (numbers >= (3, 9, 1))

    def test_another_cache_is_put_in_its_place(self, other: BaseCache) -> None:
        assert check() is other

    def test_it_is_taken_away(self) -> None:
        before = check()
        del caches["default"]
        assert check() is not before

    def test_the_settings_change(self) -> None:
        with override_settings(CACHES={"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}):
            assert isinstance(check(), DummyCache)
        assert not isinstance(check(), DummyCache)

    def test_each_thread_has_its_own(self) -> None:
        mine = check()
        with ThreadPoolExecutor(1) as pool:
            theirs = pool.submit(check).result()
            assert pool.submit(check).result() is theirs is not mine
        assert check() is mine

    def test_a_context(self, other: BaseCache) -> None:
        assert copy_context().run(check) is other

    def test_a_change_within_a_context(self) -> None:
        before = check()

        def change() -> None:
            caches["default"] = within = LocMemCache("within", {})
            assert check() is within

        copy_context().run(change)
        # Whose change it is is asgiref's affair.
        check()
        caches["default"] = before

    def test_a_context_in_another_thread(self) -> None:
        check()
        context = copy_context()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(context.run, check).result()
        check()

    def test_coroutines(self) -> None:
        async def coroutine() -> BaseCache:
            await asyncio.gather(*(asyncio.to_thread(check) for _ in range(3)))
            await sync_to_async(check)()
            await sync_to_async(check, thread_sensitive=False)()
            return check()

        check()
        asyncio.run(coroutine())
        async_to_sync(coroutine)()
        check()

    def test_a_project_has_its_own_way_to_a_cache(self, other: BaseCache) -> None:
        tenants = [LocMemCache(name, {}) for name in "ab"]
        current = iter(tenants)
        with patch.object(CacheHandler, "__getitem__", lambda self, alias: next(current)):
            assert [get_cache(), get_cache()] == tenants
        assert check() is other

    def test_what_holds_the_caches_is_exchanged(self, other: BaseCache) -> None:
        within = LocMemCache("within", {})
        with patch.object(caches, "_connections", SimpleNamespace(default=within)):
            assert check() is within
        assert check() is other

    @pytest.mark.django_db
    @pytest.mark.parametrize("encrypted", [False, True])
    def test_a_value_goes_where_it_was_looked_for(self, encrypted: bool, other: BaseCache) -> None:
        after = LocMemCache("after", {})

        def compute() -> int:
            caches["default"] = after
            return 1

        assert cache_memoize("key", compute, use_encryption=encrypted) == 1
        key = make_cache_key("key", use_encryption=encrypted)
        assert key in other
        assert key not in after

    @pytest.mark.parametrize("local", [_Changing, _Other])
    def test_locals_without_states_are_left_to_django(self, local: type) -> None:
        with patch.object(shortcuts, "Local", local), patch.object(caches, "_connections", local()):
            assert not shortcuts._find_out_whether_there_are_states()
