"""The site's part of a key: always that of Django's own look-up, or of whatever a project has put in its place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import MethodType
from typing import Any
from unittest.mock import Mock, patch

import pytest
from django.apps import apps
from django.contrib.sites.models import Site, SiteManager
from django.test import override_settings

from fastblets.cache.backend import make_cache_key

pytestmark = pytest.mark.django_db

OTHER = Site(id=99, domain="tenant.example.com", name="tenant")


@pytest.fixture(autouse=True, params=["all models are loaded", "a model comes later"])
def found_already(request: pytest.FixtureRequest) -> Iterator[None]:
    """A project changes its mind when keys have been made."""
    Site.objects.clear_cache()
    assert make_cache_key("key") == "example.com:key"
    if request.param == "a model comes later":
        # Which gives all models new managers.
        apps.clear_cache()
    yield
    Site.objects.clear_cache()


def tenant(self: SiteManager, request: Any = None) -> Site:
    return OTHER


def by_id(self: SiteManager, site_id: Any) -> Site:
    return OTHER


@contextmanager
def other_code(function: Any, other: Any) -> Iterator[None]:
    """Exchange what a function does, as kgb's spies do."""
    code = function.__code__
    function.__code__ = other.__code__
    try:
        yield
    finally:
        function.__code__ = code


@pytest.mark.parametrize(
    "changed",
    [
        lambda: patch.object(SiteManager, "get_current", tenant),
        lambda: patch.object(SiteManager, "get_current", Mock(return_value=OTHER)),
        lambda: patch.object(SiteManager, "_get_site_by_id", by_id),
        lambda: patch.object(Site.objects, "get_current", Mock(return_value=OTHER)),
        lambda: patch.object(Site.objects, "get_current", MethodType(tenant, Site.objects)),
        lambda: patch.object(Site, "objects", Mock(get_current=Mock(return_value=OTHER))),
        lambda: other_code(SiteManager.get_current, tenant),
        lambda: patch.dict("django.contrib.sites.models.SITE_CACHE", {1: OTHER}),
    ],
    ids=["function", "mock", "by id", "mock of the manager", "method of the manager", "manager", "code", "cache"],
)
def test_what_a_project_puts_in_its_place_holds(changed: Any) -> None:
    context: AbstractContextManager[Any] = changed()
    # The code of a test's function would look for its globals in Django's module.
    with context, patch("django.contrib.sites.models.OTHER", OTHER, create=True):
        assert make_cache_key("key") == "tenant.example.com:key"
    assert make_cache_key("key") == "example.com:key"


def test_a_site_that_was_saved_is_seen() -> None:
    site = Site.objects.get(id=1)
    site.domain = "renamed.example.com"
    site.save()
    assert make_cache_key("key") == "renamed.example.com:key"


def test_a_cache_that_was_cleared_is_filled_again() -> None:
    Site.objects.filter(id=1).update(domain="renamed.example.com")
    assert make_cache_key("key") == "example.com:key"
    Site.objects.clear_cache()
    assert make_cache_key("key") == "renamed.example.com:key"


def test_the_site_may_change() -> None:
    Site.objects.create(id=2, domain="second.example.com", name="second")
    with override_settings(SITE_ID=2):
        assert make_cache_key("key") == "second.example.com:key"
    with override_settings(SITE_ID=3):
        assert make_cache_key("key") == "key"
    with override_settings(SITE_ID=None):
        assert make_cache_key("key") == "key"
    assert make_cache_key("key") == "example.com:key"
