"""When entries expire, as each backend tells it."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any
from unittest.mock import Mock

import pytest
from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.locmem import LocMemCache

from fastblets.diagnostics.expiry import get_expiry

#: The modules of the backends that can tell it. memcached doesn't.
KNOWN = ("locmem", "filebased", "db", "redis", "djblets")


def tells(cache: BaseCache) -> bool:
    return any(name in type(cache).__module__ for name in KNOWN)


def seconds_left(cache: Any, *full_keys: str) -> float:
    found = get_expiry(cache, full_keys)
    assert found is not None
    time = datetime.fromisoformat(found)
    assert time.utcoffset() == timedelta()
    return (time - datetime.now(timezone.utc)).total_seconds()


@pytest.mark.every_backend
def test_the_first_of_the_keys_counts(cache_backend: BaseCache) -> None:
    cache_backend.set("hour", 1, 3_600)
    cache_backend.set("day", 1, 86_400)
    cache_backend.set("ever", 1, None)
    if not tells(cache_backend):
        assert "memcached" in type(cache_backend).__module__
        assert get_expiry(cache_backend, ["hour"]) is None
        return
    assert 3_500 < seconds_left(cache_backend, "hour") <= 3_600
    assert 86_300 < seconds_left(cache_backend, "ever", "day") <= 86_400
    assert 3_500 < seconds_left(cache_backend, "day", "hour", "ever") <= 3_600
    assert get_expiry(cache_backend, ["ever"]) == "never"


@pytest.mark.every_backend
def test_keys_that_are_not_there_do_not_count(cache_backend: BaseCache) -> None:
    cache_backend.set("ever", 1, None)
    assert get_expiry(cache_backend, []) is None
    assert get_expiry(cache_backend, ["missing"]) is None
    assert get_expiry(cache_backend, ["missing", "ever"]) == ("never" if tells(cache_backend) else None)


def test_a_version_and_a_prefix_are_the_caches_own() -> None:
    cache = LocMemCache("expiry", {"KEY_PREFIX": "prefix", "VERSION": 5})
    cache.set("key", 1, 60)
    assert 50 < seconds_left(cache, "key") <= 60


@pytest.mark.parametrize("cache", [object(), Mock(side_effect=OSError), None], ids=["object", "mock", "None"])
def test_what_cannot_tell_is_no_error(cache: Any) -> None:
    assert get_expiry(cache, ["key"]) is None


def test_insides_that_have_changed_are_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = LocMemCache("expiry", {})
    cache.set("key", 1, 60)
    monkeypatch.delattr(cache, "_expire_info")
    assert get_expiry(cache, ["key"]) is None
