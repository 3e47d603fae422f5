"""Caches that fail on demand, at the boundary of the backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.core.cache import caches
from django.core.cache.backends.base import BaseCache

METHODS = ("get", "set", "add", "touch", "delete", "get_many", "set_many")


class CacheDownError(Exception):
    """The cache could not be reached."""


@contextmanager
def failing(*methods: str, when: Callable[[Any], bool] = lambda _: True) -> Iterator[None]:
    """Let these methods of the default cache fail, where their first argument is as given."""
    cache = caches["default"]

    def fail(name: str) -> Callable[..., Any]:
        original = getattr(cache, name)

        def method(first: Any, *args: Any, **kwargs: Any) -> Any:
            if when(first):
                raise CacheDownError(f"{name} fails")
            return original(first, *args, **kwargs)

        return method

    with replaced(cache, **{name: fail(name) for name in methods}):
        yield


@contextmanager
def replaced(cache: BaseCache, **methods: Callable[..., Any]) -> Iterator[None]:
    """Replace methods of a cache for a while."""
    for name, method in methods.items():
        setattr(cache, name, method)
    try:
        yield
    finally:
        for name in methods:
            delattr(cache, name)
