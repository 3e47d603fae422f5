"""Removing an entry with all that belongs to it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fastblets.cache.batch import delete_keys, get_main_keys, mark_deleted
from fastblets.cache.entry import Entry
from fastblets.cache.options import UNSET, Options
from fastblets.cache.storage import FETCH_SIZE, UNREADABLE, Storage
from fastblets.diagnostics.fetch import UNPICKLING_ERRORS, fetch, get_chunk
from fastblets.diagnostics.report import Forgotten

if TYPE_CHECKING:
    from collections.abc import Sequence


__all__ = ["forget_entry"]


def forget_entry(
    key: str | Sequence[str],
    *,
    use_encryption: bool | None = None,
    encryption_key: bytes | None = None,
    cache: str | None = None,
    mark: bool = True,
) -> Forgotten:
    """Remove an entry with all its chunks, even if its count is missing or wrong.

    The count is removed first, so that no call reads the rest meanwhile. Then chunks are looked for, 64 at a time,
    until there are none. The same is done for the entry under each older default encryption key.

    Args:
        key: The base key, as for :func:`~fastblets.cache.backend.cache_memoize`.
        use_encryption: As for :func:`~fastblets.cache.backend.cache_memoize`.
        encryption_key: As for :func:`~fastblets.cache.backend.cache_memoize`.
        cache: The alias in ``CACHES`` of the cache. Default: the default cache.
        mark: Whether calls with tags that are computing the entry now must not keep it. The mark stays for a day.

    Raises:
        CacheRefusedError: The cache did not delete all of it: a server is down.
        Exception: The cache failed. The entry may still be there.
        ImproperlyConfigured: A setting has a wrong value.
    """
    options = Options(None, True, use_encryption, encryption_key, False, cache)
    storage = Storage(Entry(key, options, options.encryption_key), options)

    if mark:
        mark_deleted([storage])

    # Older ones first: a call that misses the entry copies what it finds under an older key.
    older = tuple(_forget(each) for each in storage.get_older())

    return replace(_forget(storage), older=older)


def _forget(storage: Storage) -> Forgotten:
    entry, cache = storage.entry, storage.options.get_cache()

    try:
        main = cache.get(entry.full_key, UNSET) is not UNSET
    except UNPICKLING_ERRORS:
        main = True

    delete_keys(storage, get_main_keys(storage))
    chunks = start = 0

    while True:
        stored = fetch(cache, entry.chunk_keys(start, start + FETCH_SIZE))
        # Nothing else: a chunk's key may be the full key of another entry.
        found = [key for key, chunk in stored.items() if chunk is UNREADABLE or get_chunk(chunk) is not None]

        if not found:
            return Forgotten(entry.full_key, main, chunks, encrypted=entry.encryption_key is not None)

        delete_keys(storage, found)
        chunks += len(found)
        start += FETCH_SIZE
