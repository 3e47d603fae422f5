"""Removing an entry with all that belongs to it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fastblets.cache.batch import mark_deleted
from fastblets.cache.entry import Entry
from fastblets.cache.options import UNSET, Options
from fastblets.cache.shortcuts import get_cache
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
    mark: bool = True,
) -> Forgotten:
    """Remove an entry with all its chunks, even if its count is missing or wrong.

    The count is removed first, so that no call reads the rest meanwhile. Then chunks are looked for, 64 at a time,
    until there are none. The same is done for the entry under each older default encryption key.

    Args:
        key: The base key, as for :func:`~fastblets.cache.backend.cache_memoize`.
        use_encryption: As for :func:`~fastblets.cache.backend.cache_memoize`.
        encryption_key: As for :func:`~fastblets.cache.backend.cache_memoize`.
        mark: Whether calls with tags that are computing the entry now must not keep it. The mark stays for a day.

    Raises:
        Exception: The cache failed, in the words of its client.
        ImproperlyConfigured: A setting has a wrong value.
    """
    options = Options(None, True, use_encryption, encryption_key, False)
    entry = Entry(key, options, options.encryption_key)

    if mark:
        mark_deleted([Storage(entry, options)])

    # Older ones first: a call that misses the entry copies what it finds under an older key.
    older = tuple(_forget(each) for each in entry.get_older())

    return replace(_forget(entry), older=older)


def _forget(entry: Entry) -> Forgotten:
    try:
        main = get_cache().get(entry.full_key, UNSET) is not UNSET
    except UNPICKLING_ERRORS:
        main = True

    get_cache().delete(entry.full_key)

    if entry.encryption_key is None:
        get_cache().delete(entry.make_state_key())

    chunks = start = 0

    while True:
        stored = fetch(entry.chunk_keys(start, start + FETCH_SIZE))
        # Nothing else: a chunk's key may be the full key of another entry.
        found = [key for key, chunk in stored.items() if chunk is UNREADABLE or get_chunk(chunk) is not None]

        if not found:
            return Forgotten(entry.full_key, main, chunks, encrypted=entry.encryption_key is not None)

        get_cache().delete_many(found)
        chunks += len(found)
        start += FETCH_SIZE
