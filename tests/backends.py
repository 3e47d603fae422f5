"""The Django cache backends that the tests run on, and what is stored in them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.db import BaseDatabaseCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.management import call_command
from django.test import override_settings

from tools.servers import Memcached, Redis

Config = dict[str, Any]

# Limits what `cache_backend` runs on: locmem,file
CHOICE = "FASTBLETS_BACKENDS"
# One in memory and one for each kind of server. On the others, all but the tests of `every_backend` are slow.
EVERYDAY = ("locmem", "pymemcache", "redis")
FORWARDED = "forwarded_backend"
# Django's own caches throw entries away beyond 300.
ROOMY = {"MAX_ENTRIES": 100_000}


@dataclass(frozen=True)
class Needs:
    """What a backend may ask for; a server starts when it is asked for."""

    directory: Path
    memcached: Callable[[], Memcached]
    redis: Callable[[], Redis]


@dataclass(frozen=True)
class Backend:
    """A cache backend by its name in tests, and the module it wants if that may be missing."""

    name: str
    config: Callable[[Needs], Config]
    module: str | None = None

    @property
    def installed(self) -> bool:
        return self.module is None or find_spec(self.module) is not None


def locmem_config(name: str = "tests") -> Config:
    return {
        "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
        "LOCATION": name,
        "OPTIONS": ROOMY,
    }


def _file(needs: Needs) -> Config:
    return {
        "BACKEND": "django.core.cache.backends.filebased.FileBasedCache",
        "LOCATION": str(needs.directory),
        "OPTIONS": ROOMY,
    }


def _database(_: Needs) -> Config:
    return {
        "BACKEND": "django.core.cache.backends.db.DatabaseCache",
        "LOCATION": "cache_entries",
        "OPTIONS": ROOMY,
    }


def _memcached(kind: str) -> Callable[[Needs], Config]:
    backend = f"django.core.cache.backends.memcached.{kind}"
    return lambda needs: {"BACKEND": backend, "LOCATION": needs.memcached().address}


def _redis(backend: str) -> Callable[[Needs], Config]:
    return lambda needs: {"BACKEND": backend, "LOCATION": needs.redis().url}


def _forwarding(_: Needs) -> Config:
    backend = "djblets.cache.forwarding_backend.ForwardingCacheBackend"
    return {"BACKEND": backend, "LOCATION": FORWARDED}


BACKENDS = (
    Backend("locmem", lambda _: locmem_config()),
    Backend("file", _file),
    Backend("database", _database),
    Backend("pymemcache", _memcached("PyMemcacheCache"), "pymemcache"),
    Backend("pylibmc", _memcached("PyLibMCCache"), "pylibmc"),
    Backend("redis", _redis("django.core.cache.backends.redis.RedisCache"), "redis"),
    Backend("django_redis", _redis("django_redis.cache.RedisCache"), "django_redis"),
    Backend("forwarding", _forwarding, "djblets"),
)


def chosen() -> list[Backend]:
    """All backends, or those that the environment names."""
    names = {name.strip() for name in os.environ.get(CHOICE, "").split(",") if name.strip()}
    if unknown := names - {backend.name for backend in BACKENDS}:
        raise ValueError(f"{CHOICE} names unknown backends: {', '.join(sorted(unknown))}")
    return [backend for backend in BACKENDS if not names or backend.name in names]


@contextmanager
def use_cache(config: Config, *, empty: bool = True) -> Iterator[BaseCache]:
    """Make that Django's default cache, emptied first if it isn't to keep what it has.

    Django closes and forgets its connections when CACHES changes, on the way in and out.
    """
    with override_settings(CACHES={"default": config, FORWARDED: locmem_config("forwarded")}):
        cache = caches["default"]
        if isinstance(cache, BaseDatabaseCache):
            call_command("createcachetable", verbosity=0)
        if empty:
            cache.clear()
        yield cache


def real_cache(cache: BaseCache) -> BaseCache:
    """The cache that stores: the one behind a forwarding cache."""
    forwards = isinstance(getattr(type(cache), "backend", None), property)
    return caches[FORWARDED] if forwards else cache


def stored_entries(cache: BaseCache, keys: Iterable[str]) -> dict[str, Any]:
    """What the backend has under those full keys."""
    return dict(cache.get_many(list(keys)))


def stored_bytes(cache: BaseCache) -> dict[str, bytes]:
    """All that a LocMem cache holds, as its own pickles; keys with Django's version prefix."""
    real = real_cache(cache)
    if not isinstance(real, LocMemCache):
        raise TypeError(f"{type(real).__name__} can't list its entries")
    return dict(vars(real)["_cache"])


def without_marks(stored: dict[str, bytes]) -> dict[str, bytes]:
    """What a LocMem cache holds without the tokens that deleting leaves."""
    return {key: value for key, value in stored.items() if not re.search(rb"\x8c\x18[0-9a-f]{24}\x94\.$", value)}
