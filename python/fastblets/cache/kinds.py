"""The kind of a cache, found behind backends that forward to another one."""

from __future__ import annotations

from bisect import bisect_left
from contextlib import suppress
from typing import TYPE_CHECKING

from django.core.cache.backends.base import MEMCACHE_MAX_KEY_LENGTH, BaseCache
from django.core.cache.backends.memcached import BaseMemcachedCache

from fastblets import _native

if TYPE_CHECKING:
    from typing import Any, Final


#: The fewest bytes that a shortened key has, and so has the key of an encrypted entry: a digest's.
DIGEST_SIZE: Final = 64

#: The most bytes that a full key can have: four for each character.
_MOST_BYTES: Final = 4 * _native.MAX_KEY_SIZE

#: The names of the modules with Django's backends begin with this.
_DJANGOS: Final = "django.core.cache.backends."

#: How many backends may forward to each other.
_MOST_FORWARDS: Final = 8


def unwrap(cache: Any) -> Any:
    """Return the backend that stores, where a cache forwards to it; the cache itself if it stores.

    A backend forwards by looking attributes up in the other one, as Djblets' does, or keeps it in an attribute.
    """
    for _ in range(_MOST_FORWARDS):
        inner = _find_owner(cache)

        if isinstance(inner, BaseMemcachedCache):
            return inner

        if inner is None or inner is cache:
            # Django's own backends keep no other one. To look at the attributes of one would make it slower: CPython
            # moves them into a dict then, and LocMem takes a tenth longer to find a value.
            if type(cache).__module__.startswith(_DJANGOS):
                break

            kept = [getattr(cache, "backend", None), *getattr(cache, "__dict__", {}).values()]
            inner = next(filter(None, map(_find_owner, kept)), None)

        if inner is None:
            break

        cache = inner

    return cache


def _find_owner(cache: Any) -> BaseCache | None:
    """Return the backend whose methods a cache has: itself, or the one in which it looks attributes up."""
    owner = getattr(getattr(cache, "make_key", None), "__self__", None)

    return owner if isinstance(owner, BaseCache) else None


def tells_refusals(cache: Any) -> bool:
    """Return whether ``set_many()`` of a cache raises an error or returns the keys for what it could not store.

    Clients can be told to swallow errors, or not to wait for answers. Django's database cache swallows those of the
    database when it stores. Of other backends than Django's nobody knows.
    """
    backend = unwrap(cache)
    options = getattr(backend, "_options", None) or {}
    package = type(backend).__module__

    if package.startswith("django_redis."):
        return getattr(backend, "_ignore_exceptions", True) is False

    return (
        package.startswith(_DJANGOS)
        and package != f"{_DJANGOS}db"
        and not (isinstance(options, dict) and (options.get("default_noreply") or options.get("ignore_exc")))
    )


def get_max_key_bytes(cache: Any) -> int | None:
    """Return the most bytes that a full key may have in a cache, None if the cache doesn't count bytes.

    It is found out once for each cache object, and kept in an attribute of it, which is the quickest place. A backend
    that forwards attributes finds it in the other one.
    """
    try:
        size: int | None = cache._fastblets_max_key_bytes
    except AttributeError:
        return _find_max_key_bytes(unwrap(cache))

    # A mock of a cache has all attributes.
    return size if size is None or type(size) is int else None


def measure_max_key_bytes(cache: Any) -> int | None:
    """Return the most bytes that a full key may have so that memcached accepts it with the additions of its backend.

    Args:
        cache: A backend for memcached.

    Returns:
        The number, 0 if it is less than :data:`DIGEST_SIZE`. None if there is no such limit, since ``KEY_FUNCTION``
        shortens keys itself.

    Raises:
        Exception: The project's ``KEY_FUNCTION`` raised it.
    """
    if fits(cache, "x" * _MOST_BYTES):
        return None

    sizes = range(DIGEST_SIZE, _MOST_BYTES)
    fitting = bisect_left(sizes, True, key=lambda size: not fits(cache, "x" * size))

    return sizes[fitting - 1] if fitting else 0


def fits(cache: Any, full_key: str) -> bool:
    """Return whether memcached accepts a full key with the additions of its backend and client."""
    key: bytes = cache.make_key(full_key).encode("utf-8", "surrogatepass")
    # pymemcache can add a prefix of its own.
    prefix = cache._options.get("key_prefix", b"")

    return len(prefix) + len(key) <= MEMCACHE_MAX_KEY_LENGTH


def _find_max_key_bytes(backend: Any) -> int | None:
    try:
        # If a backend keeps this one without forwarding attributes, the size may be known already.
        size: int | None = object.__getattribute__(backend, "_fastblets_max_key_bytes")
    except AttributeError:
        size = None

        # A KEY_FUNCTION that fails here also fails for each key, where its error is logged.
        with suppress(Exception):
            if isinstance(backend, BaseMemcachedCache):
                # Without room for a digest there is nothing to be gained.
                size = measure_max_key_bytes(backend) or None

        with suppress(AttributeError):
            backend._fastblets_max_key_bytes = size

    return size
