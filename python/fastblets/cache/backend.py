"""Memoizing values and iterables in Django's cache, as Djblets does.

What is stored, and under which keys, is to the byte what Djblets 6.1 stores.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, TypeVar

from fastblets import _native
from fastblets.cache.arguments import check_alias, compute, refuse_async
from fastblets.cache.freshness import make_call
from fastblets.cache.keys import (
    get_default_encryption_key as _get_default_encryption_key,
)
from fastblets.cache.keys import make_full_key
from fastblets.cache.memoize import ITEMS, LARGE, SMALL, find, memoize_small
from fastblets.cache.opening import open_entry
from fastblets.cache.options import DEFAULT_EXPIRATION_TIME, UNSET, Unset
from fastblets.cache.storage import Storage
from fastblets.deprecation import RemovedInDjblets80Warning, keyword_only

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    from fastblets.cache.options import Expiration, Tag
    from fastblets.cache.policy import CachePolicy
    from fastblets.cache.seals import Seal
    from fastblets.protect.locks import CacheLock


__all__ = [
    "CACHE_CHUNK_SIZE",
    "DEFAULT_EXPIRATION_TIME",
    "MAX_KEY_SIZE",
    # Private, but Djblets' tests import it.
    "_get_default_encryption_key",
    "cache_memoize",
    "cache_memoize_iter",
    "make_cache_key",
]


_T = TypeVar("_T")

#: The size in bytes of a large entry's chunks: just under the largest item that memcached takes by default.
CACHE_CHUNK_SIZE: int = _native.CACHE_CHUNK_SIZE

#: The longest full cache key, in characters. memcached takes 250 bytes.
MAX_KEY_SIZE: int = _native.MAX_KEY_SIZE


@keyword_only
def cache_memoize(
    key: str | Sequence[str],
    lookup_callable: Callable[[], _T],
    *,
    expiration: Expiration | Callable[[_T], Expiration] | Unset = UNSET,
    force_overwrite: bool = False,
    large_data: bool = False,
    compress_large_data: bool = True,
    use_generator: bool = False,
    use_encryption: bool | None = None,
    encryption_key: bytes | None = None,
    lock: CacheLock | None = None,
    seal: Seal | None = None,
    cache: str | None = None,
    tags: Sequence[Tag] = (),
    policy: CachePolicy | None = None,
    name: str | None = None,
) -> _T:
    """Return a value from the cache, or compute and store it.

    An entry that can't be read counts as missing. A cache that fails costs no more than the computation: its errors
    are logged. So does a database that can't tell the Site's domain, which keys begin with: nothing is read or stored.

    Args:
        key: The base key, as for :func:`make_cache_key`.
        lookup_callable: Computes the value.
        expiration: For how long to keep the value: seconds, a :class:`~datetime.timedelta`, None for ever, or a
            function that is given the computed value and returns one of these. If the function returns 0 or less, or
            a timedelta is not positive, nothing is stored, and what is there is removed. Default:
            ``CACHE_EXPIRATION_TIME``, else :data:`DEFAULT_EXPIRATION_TIME`.
        force_overwrite: Whether to compute and store the value even if there is one.
        large_data: Whether to store the value in chunks, since it may be too large for one item of the cache.
        compress_large_data: Whether the chunks are compressed.
        use_generator: Ignored, deprecated.
        use_encryption: Whether key and value are encrypted. Default: ``DJBLETS_CACHE_FORCE_ENCRYPTION``.
        encryption_key: An AES key of 16, 24 or 32 bytes. Default: ``DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY``, else
            :func:`~fastblets.secrets.crypto.get_default_aes_encryption_key`.
        lock: A lock to hold while a missing value is computed and stored, so that of many callers only one does it.
        seal: Whether the entry is sealed: False, True, or ``"require"`` for an entry without a valid seal to be a miss.
            Default: ``FASTBLETS_SEAL``. Small values that are not encrypted have no seal.
        cache: The alias in ``CACHES`` of the cache to use. Default: the default cache. A lock has a cache of its own.
        tags: By what the entry can be invalidated, with :func:`~fastblets.cache.tags.invalidate_tags`: a list or tuple
            of at most 16 tags, each a string, or a list or tuple of strings. A value whose computation began before
            that, or before :func:`~fastblets.cache.values.cache_delete`, is not kept. An entry that was stored without
            these tags is missing.
        policy: What happens when the entry has expired, when computing it fails, and when many callers want it at once.
            Default: ``FASTBLETS_POLICY``, else nothing of that.
        name: What the call is called in :data:`events <fastblets.signals.cache_event>` and statistics. Default: the
            first part of a key that is a sequence of at least two strings, ``"other"`` for any other key.

    Raises:
        django.core.cache.InvalidCacheBackendError: ``CACHES`` has no such alias.
        django.core.exceptions.ImproperlyConfigured: A seal is required of a small value that is not encrypted, or a
            setting has a value that makes no sense.
        TypeError: An argument is of a wrong type, or ``lookup_callable`` is asynchronous.
        ValueError: There are more than 16 tags.
        Exception: What ``lookup_callable``, or a function given as ``expiration``, raised.
    """
    if use_generator:
        warnings.warn(
            "use_generator is deprecated and will be removed in Djblets 8.",
            RemovedInDjblets80Warning,
            stacklevel=3,
        )

    storage = open_entry(
        key, expiration, compress_large_data, use_encryption, encryption_key, seal, cache, tags, policy, name
    )

    if storage is None:
        return compute(lookup_callable)

    if not large_data:
        if storage.options.seal:
            storage.entry.refuse_unsealable()

        if lock is None and not storage.options.older_keys and type(storage) is Storage:
            return memoize_small(storage, lookup_callable, force_overwrite)

    call = make_call(storage, LARGE if large_data else SMALL, lock, force_overwrite)

    try:
        found: _T | Unset = find(call)

        return call.run(lookup_callable) if found is UNSET else found
    finally:
        call.end()


@keyword_only
def cache_memoize_iter(
    key: str | Sequence[str],
    items_or_callable: Callable[[], Iterable[_T]] | Iterable[_T],
    *,
    expiration: Expiration | Callable[[int], Expiration] | Unset = UNSET,
    force_overwrite: bool = False,
    compress_large_data: bool = True,
    use_encryption: bool | None = None,
    encryption_key: bytes | None = None,
    lock: CacheLock | None = None,
    seal: Seal | None = None,
    cache: str | None = None,
    tags: Sequence[Tag] = (),
    policy: CachePolicy | None = None,
    name: str | None = None,
) -> Generator[_T, None, None]:
    """Yield items from the cache, or compute and store them on the way.

    A generator: nothing happens before its first ``next()``. If the items have to be computed, each is yielded before
    the next one is asked for, and they are stored once the last one has been. Items that can't be stored are yielded
    all the same.

    Args:
        key: The base key, as for :func:`make_cache_key`.
        items_or_callable: An iterable, or a callable that returns one.
        expiration: As for :func:`cache_memoize`, but a function is given the number of items, once the last one has
            been yielded. The entry is not kept longer than ``CACHE_EXPIRATION_TIME`` then.

    The other options are those of :func:`cache_memoize`. The data is always stored in chunks.

    Raises:
        django.core.cache.InvalidCacheBackendError: ``CACHES`` has no such alias.
        TypeError: What should be an iterable is none, or another argument is of a wrong type.
        Exception: What the callable or the iterable raised, after the items before it, or what a function given as
            ``expiration`` raised, after all items.
    """
    storage = open_entry(
        key, expiration, compress_large_data, use_encryption, encryption_key, seal, cache, tags, policy, name
    )

    if storage is None:
        yield from _iterate(items_or_callable)
        return

    call = make_call(storage, ITEMS, lock, force_overwrite)

    try:
        found = find(call)

        if found is UNSET:
            found = call.run_items(lambda: _iterate(items_or_callable))

        yield from found
    finally:
        call.end()


def _iterate(items_or_callable: Callable[[], Iterable[_T]] | Iterable[_T]) -> Iterator[_T]:
    items = items_or_callable() if callable(items_or_callable) else items_or_callable
    refuse_async("items_or_callable", items)

    # Asked for once only: it may be a query, or work but once. And its own TypeErrors are its own.
    if not (hasattr(type(items), "__iter__") or hasattr(type(items), "__getitem__")):
        raise TypeError(
            f'cache_memoize_iter() needs an iterable or a callable that returns one, but got "{type(items)}".'
        )

    return iter(items)


@keyword_only
def make_cache_key(
    key: str | Sequence[str],
    *,
    use_encryption: bool | None = None,
    encryption_key: bytes | None = None,
    cache: str | None = None,
) -> str:
    """Return the full cache key for a base key.

    It begins with the site's domain and, if set, ``SITE_ROOT``, and is safe for every cache: control characters, spaces
    and lone surrogates are escaped, and what goes beyond :data:`MAX_KEY_SIZE` characters gives way to a digest. If the
    cache is on memcached, so does what goes beyond the bytes that it takes.

    Args:
        key: A string, which is taken as it is, or a sequence of strings. Those may come from users: where there are
            several, they are escaped, so that no two sequences give the same key.
        use_encryption: Whether to return an HMAC of the key, which tells nothing of it. Default:
            ``DJBLETS_CACHE_FORCE_ENCRYPTION``.
        encryption_key: The key to encrypt with. Default: as for :func:`cache_memoize`.
        cache: The alias in ``CACHES`` of the cache that the key is for. Default: the default cache. Only caches on
            memcached have keys of their own.

    Raises:
        AssertionError: The encryption key is not of type ``bytes``.
        django.core.cache.InvalidCacheBackendError: ``CACHES`` has no such alias.
        SiteUnavailableError: The Site's domain can't be looked up, and was not seen before.
        TypeError: The base key is neither a string nor a sequence of strings. Iterators can't be read twice, sets and
            mappings are in no order of their own.
    """
    if cache is not None:
        check_alias(cache)

    return make_full_key(key, use_encryption, encryption_key, cache)
