"""Values by hand: looking into the cache, storing and deleting without computing.

The functions take the keys and options of :func:`~fastblets.cache.backend.cache_memoize`, and read and store the same
entries. A key of the ``_many`` forms is a string or a tuple of strings.

- ``large_data``: whether the value is stored in chunks. An entry must be read as it was stored.
- ``compress_large_data``: whether the chunks are compressed.
- ``use_encryption``, ``encryption_key``, ``seal``, ``cache``, ``tags``: as for
  :func:`~fastblets.cache.backend.cache_memoize`. Looked up with tags, an entry that was stored without them, or with
  others, is missing; so is one that was invalidated. Looked up without tags, it is found.
- ``policy``: as for :func:`~fastblets.cache.backend.cache_memoize`. Looked up with a policy, a value that has expired
  is missing, though it may still be there. Looked up without one, it is found.

A cache that fails is logged, and what is looked for is missing, what was to be stored isn't. Only where that would be
misleading it is raised: deleting, and adding.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeVar

from fastblets.cache import batch
from fastblets.cache.errors import SiteUnavailableError
from fastblets.cache.failures import log_failure
from fastblets.cache.opening import open_entries
from fastblets.cache.options import UNSET
from fastblets.cache.stamped import StampedStorage
from fastblets.cache.transactions import wait_for_commit
from fastblets.signals import cache_event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    from fastblets.cache.options import Expiration, Tag, Unset
    from fastblets.cache.policy import CachePolicy
    from fastblets.cache.seals import Seal
    from fastblets.cache.storage import Storage


__all__ = [
    "cache_add",
    "cache_delete",
    "cache_delete_many",
    "cache_exists",
    "cache_expire",
    "cache_get",
    "cache_get_many",
    "cache_set",
    "cache_set_many",
]


_K = TypeVar("_K", bound="str | tuple[str, ...]")
_V = TypeVar("_V")

# Djblets' name, so that a project's logging settings go on to hold.
logger: logging.Logger = logging.getLogger("djblets.cache.backend")


def cache_get(
    key: str | Sequence[str],
    default: Any = None,
    *,
    allow_stale: bool = False,
    large_data: bool = False,
    compress_large_data: bool = True,
    use_encryption: bool | None = None,
    encryption_key: bytes | None = None,
    seal: Seal | None = None,
    cache: str | None = None,
    tags: Sequence[Tag] = (),
    policy: CachePolicy | None = None,
) -> Any:
    """Return a value from the cache. Nothing is computed or stored.

    An entry that can't be read is missing, and so is the count of a large entry that is read without ``large_data``.

    Args:
        key: The base key, as for :func:`~fastblets.cache.backend.make_cache_key`.
        default: Returned if there is no entry.
        allow_stale: Whether to return a value that has expired, but is still there, as its policy wants.

    The options are described at the top of this module.

    Raises:
        django.core.exceptions.ImproperlyConfigured: A seal is required of a small value that is not encrypted, or a
            setting has a value that makes no sense.
        TypeError: An argument is of a wrong type.
    """
    storages = _open_or_log(
        [key], UNSET, large_data, compress_large_data, use_encryption, encryption_key, seal, cache, tags, policy
    )

    return _load(storages, large_data, allow_stale).get(0, default)


def cache_get_many(
    keys: Iterable[_K],
    *,
    allow_stale: bool = False,
    large_data: bool = False,
    compress_large_data: bool = True,
    use_encryption: bool | None = None,
    encryption_key: bytes | None = None,
    seal: Seal | None = None,
    cache: str | None = None,
    tags: Sequence[Tag] = (),
    policy: CachePolicy | None = None,
) -> dict[_K, Any]:
    """Return the values that are in the cache, by their keys.

    One call of the cache fetches all small values, and one more each 64 chunks of large ones. Under older encryption
    keys it takes one call more for each.

    Args:
        keys: Base keys, each a string or a tuple of strings.
        allow_stale: As for :func:`cache_get`.

    The options are described at the top of this module.

    Raises:
        django.core.exceptions.ImproperlyConfigured: As for :func:`cache_get`.
        TypeError: An argument is of a wrong type.
    """
    wanted = _check_keys(keys)
    storages = _open_or_log(
        wanted, UNSET, large_data, compress_large_data, use_encryption, encryption_key, seal, cache, tags, policy
    )

    found = _load(storages, large_data, allow_stale)

    return {wanted[index]: value for index, value in found.items()}


def cache_set(
    key: str | Sequence[str],
    value: _V,
    *,
    expiration: Expiration | Callable[[_V], Expiration] | Unset = UNSET,
    large_data: bool = False,
    compress_large_data: bool = True,
    use_encryption: bool | None = None,
    encryption_key: bytes | None = None,
    seal: Seal | None = None,
    cache: str | None = None,
    tags: Sequence[Tag] = (),
    policy: CachePolicy | None = None,
) -> bool:
    """Store a value, whatever is there. Copies under older encryption keys are removed.

    Args:
        key: The base key, as for :func:`~fastblets.cache.backend.make_cache_key`.
        value: The value.
        expiration: As for :func:`~fastblets.cache.backend.cache_memoize`.

    The other options are described at the top of this module.

    Returns:
        Whether it was stored. Not, if the cache failed or refused it, or if it would expire at once.

    Raises:
        django.core.exceptions.ImproperlyConfigured: As for :func:`cache_get`.
        TypeError: An argument is of a wrong type.
        Exception: The function given as ``expiration`` raised it.
    """
    storages = _open_or_log(
        [key], expiration, large_data, compress_large_data, use_encryption, encryption_key, seal, cache, tags, policy
    )

    return _store(storages, [value] * len(storages), large_data) == [True]


def cache_set_many(
    values: Mapping[_K, _V],
    *,
    expiration: Expiration | Callable[[_V], Expiration] | Unset = UNSET,
    large_data: bool = False,
    compress_large_data: bool = True,
    use_encryption: bool | None = None,
    encryption_key: bytes | None = None,
    seal: Seal | None = None,
    cache: str | None = None,
    tags: Sequence[Tag] = (),
    policy: CachePolicy | None = None,
) -> list[_K]:
    """Store several values, whatever is there.

    One call of the cache stores all values that expire at the same time. Before large ones are stored, one call removes
    what is there, and one stores each 64 chunks, of whatever values they are. So besides the values and the chunks of
    the largest one, at most 64 chunks are in memory.

    Args:
        values: The values by their base keys, each a string or a tuple of strings.
        expiration: As for :func:`~fastblets.cache.backend.cache_memoize`. A function is called with each value.

    The other options are described at the top of this module.

    Returns:
        The keys whose values were not stored.

    Raises:
        django.core.exceptions.ImproperlyConfigured: As for :func:`cache_get`.
        TypeError: An argument is of a wrong type.
        Exception: The function given as ``expiration`` raised it.
    """
    keys = _check_keys(values)
    storages = _open_or_log(
        keys, expiration, large_data, compress_large_data, use_encryption, encryption_key, seal, cache, tags, policy
    )

    if not storages:
        return keys

    is_stored = _store(storages, [values[key] for key in keys], large_data)

    return [key for key, stored in zip(keys, is_stored, strict=True) if not stored]


def cache_add(
    key: str | Sequence[str],
    value: _V,
    *,
    expiration: Expiration | Callable[[_V], Expiration] | Unset = UNSET,
    use_encryption: bool | None = None,
    encryption_key: bytes | None = None,
    seal: Seal | None = None,
    cache: str | None = None,
) -> bool:
    """Store a small value if there is no entry.

    Of several callers at once only one succeeds on memcached, Redis and LocMem, but not in files, and not on a database
    where an expired row is still there. An entry under an older encryption key counts, but is looked for before. An
    entry that this transaction is going to delete counts, too: other callers still find it.

    Args:
        key: The base key, as for :func:`~fastblets.cache.backend.make_cache_key`.
        value: The value.
        expiration: As for :func:`~fastblets.cache.backend.cache_memoize`. If it is 0 or less, nothing is stored or
            removed.

    The other options are described at the top of this module.

    Returns:
        Whether it was stored.

    Raises:
        CacheRefusedError: The cache neither stored it nor has an entry.
        SiteUnavailableError: As for :func:`~fastblets.cache.backend.make_cache_key`.
        django.core.exceptions.ImproperlyConfigured: As for :func:`cache_get`.
        TypeError: An argument is of a wrong type.
        Exception: The cache failed, the value can't be pickled, or the function given as ``expiration`` raised it.
    """
    (storage,) = open_entries([key], expiration, False, True, use_encryption, encryption_key, seal, cache)
    # With FASTBLETS_POLICY it has a record, for those who look for one. But it goes when it expires.
    storage.options.policy = None

    try:
        is_added = batch.add(storage, value)
    except Exception:
        storage.tell("refused")
        raise

    if is_added:
        storage.tell("stored")

    return is_added


def cache_exists(
    key: str | Sequence[str],
    *,
    large_data: bool | None = None,
    use_encryption: bool | None = None,
    encryption_key: bytes | None = None,
    cache: str | None = None,
    tags: Sequence[Tag] = (),
    policy: CachePolicy | None = None,
) -> bool:
    """Return whether there is an entry, without reading the chunks of a large one. It may turn out to be unreadable.

    Args:
        key: The base key, as for :func:`~fastblets.cache.backend.make_cache_key`.
        large_data: Whether it must be a large entry (True) or a small one (False). Default: either.

    The other options are described at the top of this module.

    Raises:
        django.core.exceptions.ImproperlyConfigured: A setting has a value that makes no sense.
        TypeError: An argument is of a wrong type.
    """
    storages = _open_or_log([key], UNSET, True, True, use_encryption, encryption_key, False, cache, tags, policy)

    try:
        return any(batch.contains(storage, large=large_data) for storage in storages)
    except Exception as e:
        log_failure(logger, e, 'Error looking for data in cache for key "%s": %s', storages[0].entry.full_key, e)

        return False


def cache_delete(
    key: str | Sequence[str],
    *,
    large_data: bool | None = None,
    use_encryption: bool | None = None,
    encryption_key: bytes | None = None,
    cache: str | None = None,
    on_commit: bool | str = False,
) -> bool:
    """Remove an entry, with its chunks and its copies under older encryption keys.

    What a call with tags is computing meanwhile is not kept. A call without tags may store afterwards what it is
    computing.

    With ``on_commit`` the entry is removed after the transaction, at once if there is none, and not at all if it is
    rolled back. Until then, this transaction finds the entry missing, and the memoize functions compute without
    storing, also if they are computing already. What :func:`cache_set` or :func:`cache_add` stores meanwhile is removed
    with the entry, and stays after a rollback. An error after the transaction is logged.

    Args:
        key: The base key, as for :func:`~fastblets.cache.backend.make_cache_key`.
        large_data: Whether it is a large entry (True) or a small one (False), which saves a call of the cache. By
            default that is found out: a decimal text with a chunk beside it is the count of a large entry.
        on_commit: Whether to wait for the end of the transaction; the alias of its database, if that is not the
            default one.

    The other options are described at the top of this module.

    Returns:
        Whether there was something. False if it is to be removed after the transaction.

    Raises:
        CacheRefusedError: The cache did not delete it: a server is down. The entry may still be there.
        SiteUnavailableError: As for :func:`~fastblets.cache.backend.make_cache_key`.
        django.core.exceptions.ImproperlyConfigured: A setting has a value that makes no sense.
        TypeError: An argument is of a wrong type.
        Exception: The cache failed, with :class:`~fastblets.cache.errors.UnreachableError` if it can't be reached. The
            entry may still be there.
    """
    storages = open_entries([key], UNSET, True, True, use_encryption, encryption_key, False, cache, has_policy=False)

    return _delete(storages, large_data, on_commit) == [True]


def cache_delete_many(
    keys: Iterable[_K],
    *,
    large_data: bool | None = None,
    use_encryption: bool | None = None,
    encryption_key: bytes | None = None,
    cache: str | None = None,
    on_commit: bool | str = False,
) -> list[_K]:
    """Remove several entries, as :func:`cache_delete` does it.

    Args:
        keys: Base keys, each a string or a tuple of strings.
        large_data: As for :func:`cache_delete`, for all entries.
        on_commit: As for :func:`cache_delete`.

    The other options are described at the top of this module.

    Returns:
        The keys of which there was something. None of them if they are to be removed after the transaction.

    Raises:
        Exception: As for :func:`cache_delete`.
    """
    wanted = _check_keys(keys)
    storages = open_entries(wanted, UNSET, True, True, use_encryption, encryption_key, False, cache, has_policy=False)

    return [key for key, found in zip(wanted, _delete(storages, large_data, on_commit), strict=True) if found]


def cache_expire(
    key: str | Sequence[str],
    *,
    large_data: bool | None = None,
    use_encryption: bool | None = None,
    encryption_key: bytes | None = None,
    cache: str | None = None,
    policy: CachePolicy | None = None,
) -> bool:
    """Let an entry expire now. Other than after :func:`cache_delete`, a value that is being computed is kept.

    Calls with a policy go on to serve it as they serve what has expired. Without a policy, or with one that has no
    fence, the entry is removed.

    Args:
        key: The base key, as for :func:`~fastblets.cache.backend.make_cache_key`.
        large_data: As for :func:`cache_delete`.

    The other options are described at the top of this module.

    Returns:
        Whether there was something.

    Raises:
        Exception: As for :func:`cache_delete`.
    """
    (storage,) = open_entries([key], UNSET, True, True, use_encryption, encryption_key, False, cache, (), policy)

    if not (isinstance(storage, StampedStorage) and storage.stamps.fence_key is not None):
        return _remove([storage], large_data) == [True]

    was_there = batch.expire(storage, large=large_data)
    storage.tell("invalidated")

    return was_there


def _load(storages: list[Storage], large: bool, allow_stale: bool) -> dict[int, Any]:
    values = batch.load_batch(storages, large=large, allow_stale=allow_stale)

    if cache_event.receivers:
        for index, storage in enumerate(storages):
            if index not in values:
                storage.tell("miss")
            elif isinstance(storage, StampedStorage) and not storage.is_fresh():
                storage.tell("stale", storage.get_late_secs())
            else:
                storage.tell("hit")

    return values


def _store(storages: list[Storage], values: Sequence[object], large: bool) -> list[bool | None]:
    is_stored = batch.store_batch(storages, values, large=large)

    for storage, stored in zip(storages, is_stored, strict=True):
        if stored is not None:
            storage.tell("stored" if stored else "refused")

    return is_stored


def _remove(storages: list[Storage], large: bool | None) -> list[bool]:
    was_there = batch.delete_batch(storages, large=large)

    for storage in storages:
        storage.tell("invalidated")

    return was_there


def _delete(storages: list[Storage], large: bool | None, on_commit: bool | str) -> list[bool]:
    def delete() -> list[bool]:
        # First: what is computed from now on may be kept.
        batch.mark_deleted(storages)

        return _remove(storages, large)

    if storages and on_commit:
        full_keys = [storage.entry.full_key for storage in storages]

        if wait_for_commit(delete, storages[0].options.alias, full_keys, on_commit):
            return [False] * len(storages)

    return delete()


def _open_or_log(keys: Sequence[str | Sequence[str]], *options: Any) -> list[Storage]:
    """Return the entries; none, with an error logged, if their full keys can't be made."""
    try:
        return open_entries(keys, *options)
    except SiteUnavailableError as e:
        logger.error("No full cache keys can be made for %r. Nothing is read or stored. Error = %s", list(keys), e)

        return []


def _check_keys(keys: Iterable[_K]) -> list[_K]:
    """Return each key once.

    Raises:
        TypeError: One is neither a string nor a tuple, so that it can't be a key of the result.
    """
    if isinstance(keys, str):
        raise TypeError("keys must be an iterable of keys, not of type str.")

    found = list(keys)

    for key in found:
        if not isinstance(key, (str, tuple)):
            raise TypeError(f"keys must be strings or tuples of strings, not of type {type(key).__name__}.")

    return list(dict.fromkeys(found))
