"""The cache calls of an entry, in their order, with the log lines that Djblets writes for them."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from django.core.cache.backends.memcached import PyMemcacheCache

from fastblets import _native
from fastblets.cache.connection import get_cache
from fastblets.cache.entry import COUNT, VALUE, Entry, is_full, parse_count
from fastblets.cache.errors import MissingChunkError
from fastblets.cache.options import UNSET
from fastblets.secrets.crypto import AES_BLOCK_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Final

    from django.core.cache.backends.base import BaseCache

    from fastblets.cache.entry import Kind
    from fastblets.cache.options import Options


# Djblets' name, so that a project's logging settings go on to hold.
logger: logging.Logger = logging.getLogger("djblets.cache.backend")


#: How many chunks are fetched at a time. Their count comes from the cache and may be any number.
FETCH_SIZE: Final = 64


class Storage:
    """An entry in the default cache.

    Errors of the cache and of the codec are logged where they occur, then raised; :meth:`discard` only logs them.

    Attributes:
        entry: The entry.
    """

    __slots__ = ("_cache", "_options", "entry")

    def __init__(self, entry: Entry, options: Options) -> None:
        """Take the entry and its options. No cache is asked yet."""
        self.entry = entry
        self._options = options
        #: Where a small value was looked for, and is stored.
        self._cache: BaseCache | None = None

    def get_older(self) -> Iterator[Storage]:
        """Return an iterator over the same entry under each older default encryption key, the latest first."""
        return (Storage(entry, self._options) for entry in self.entry.get_older())

    def load(self, kind: Kind = VALUE) -> Any:
        """Return what is stored under the full key, UNSET if nothing is.

        Raises:
            Exception: The cache failed, or the value can't be decrypted or unpickled.
        """
        entry = self.entry
        key = entry.full_key

        try:
            self._cache = cache = get_cache()
            stored = cache.get(key, UNSET)
        except Exception as e:
            logger.exception('Error fetching data from cache for key "%s": %s', key, e)
            raise

        if stored is None and entry.sealer is not None and kind is VALUE and isinstance(cache, PyMemcacheCache):
            # pymemcache returns None for values it cannot unpickle. Nothing tells that None from a stored one.
            return UNSET

        if stored is UNSET or entry.encryption_key is None:
            return stored

        try:
            return entry.decode(stored, kind)
        except Exception as e:
            if _is_about_encryption(e):
                logger.error("Failed to decrypt data from cache for key %s: %s.", key, e)
            else:
                logger.warning("Failed to deserialize data from cache for key %s: %s.", key, e)

            raise

    def store(self, value: object, kind: Kind = VALUE) -> None:
        """Store a value or count under the full key.

        Raises:
            Exception: The value can't be pickled or encrypted, or the cache failed.
        """
        entry = self.entry

        if entry.encryption_key is not None:
            # The backend would pickle the value, but only bytes can be encrypted.
            try:
                value = entry.encode(value, kind, os.urandom(AES_BLOCK_SIZE))
            except Exception as e:
                if _is_about_encryption(e):
                    logger.error("Failed to encrypt data for cache for key %s: %s.", entry.full_key, e)
                else:
                    logger.error('Failed to serialize data for cache key "%s": %s', entry.full_key, e)

                raise

        # An iterable may go on in another thread, which has a cache object of its own.
        self._set(entry.full_key, value, self._cache if kind is VALUE else None)

    def load_items(self) -> Any:
        """Return an iterator over the items of a large entry whose stream is whole, UNSET if there is no entry.

        Raises:
            Exception: The entry can't be read.
        """
        try:
            count = self.load(COUNT)
        except Exception as e:
            logger.error(
                'Failed to fetch large or iterable data entry count from cache for key "%s". '
                "Rebuilding data. Error = %s",
                self.entry.full_key,
                e,
            )
            raise

        if count is UNSET:
            return UNSET

        try:
            chunks, is_checked = self.entry.decode_chunks(self._fetch_chunks(parse_count(count)))

            if not is_checked:
                self._check_count(count, chunks)

            items = self.entry.read_items(chunks)
        except Exception as e:
            self._log_unreadable(e)
            raise

        return self._stream(items) if isinstance(items, _native.ItemStream) else items

    def load_only_item(self) -> Any:
        """Return the one item of a large entry, UNSET if there is no entry.

        Raises:
            Exception: As for :meth:`load_items`, or there is another number of items.
        """
        items = self.load_items()

        if items is UNSET:
            return UNSET

        item = next(items, UNSET)

        if item is UNSET or next(items, UNSET) is not UNSET:
            error = ValueError(f"it has {'less' if item is UNSET else 'more'} than one item")
            self._log_unreadable(error)
            raise error

        return item

    def delete(self) -> None:
        """Remove the entry. Chunks are unreachable without the count."""
        get_cache().delete(self.entry.full_key)

    def discard(self) -> None:
        """Remove the entry. An error is logged."""
        try:
            self.delete()
        except Exception as e:
            logger.exception('Error deleting cache key "%s": %s', self.entry.full_key, e)

    def log_not_stored(self, error: Exception) -> None:
        """Log that a large entry could not be stored."""
        logger.error(
            'Failed to store or retrieve large or iterable cache data for key "%s". Newly-generated data will be '
            "returned but not cached. Error = %s",
            self.entry.full_key,
            error,
        )

    def _fetch_chunks(self, count: int) -> list[Any]:
        stored: list[Any] = []

        while len(stored) < count:
            end = min(len(stored) + FETCH_SIZE, count)
            keys = self.entry.chunk_keys(len(stored), end)
            found = get_cache().get_many(keys)

            if len(found) != len(keys):
                missing = [key for key in keys if key not in found]
                logger.debug("Cache miss for key(s): %s.", ", ".join(missing))

                raise MissingChunkError(f"{len(missing)} of {count} chunks are missing")

            stored += map(found.__getitem__, keys)

        return stored

    def _check_count(self, count: str, chunks: list[bytes]) -> None:
        # Chunks that are being overwritten may look like a whole stream.
        if self.load(COUNT) != count:
            raise MissingChunkError("it is being written over")

        # A count that is too low also looks complete if it ends at an item boundary. Then its last chunk is full, which
        # the last chunk of a stream is once in a million times.
        if chunks and is_full(chunks[-1]):
            (next_key,) = self.entry.chunk_keys(len(chunks), len(chunks) + 1)

            if next_key in get_cache():
                raise ValueError("it has more chunks than are counted")

    def _stream(self, items: _native.ItemStream) -> Iterator[Any]:
        # The stream is whole, but its items are yet to be unpickled, which may still fail.
        while True:
            try:
                item = next(items)
            except StopIteration:
                return
            except Exception as e:
                logger.error(
                    'Failed to return large or iterable cache data for key "%s". Something went wrong when returning '
                    "processed results to the caller. Error = %s",
                    self.entry.full_key,
                    e,
                )
                self.discard()
                raise

            yield item

    def _set(self, key: str, value: object, cache: BaseCache | None = None) -> None:
        try:
            if cache is None:
                cache = get_cache()

            cache.set(key, value, timeout=self._options.get_timeout())
        except Exception as e:
            logger.exception('Error setting data in cache for key "%s": %s', key, e)
            raise

    def _set_many(self, values: dict[str, list[bytes]]) -> None:
        try:
            failed = get_cache().set_many(values, timeout=self._options.get_timeout())

            if failed:
                raise OSError(f"the cache refused {len(failed)} of them")
        except Exception as e:
            logger.exception("Unable to store cached data for keys %r: %s", sorted(values), e)
            raise

    def _log_unreadable(self, error: Exception) -> None:
        logger.warning(
            'Failed to fetch large or iterable data from cache for key "%s": %s',
            self.entry.full_key,
            error,
        )


class LargeWrite:
    """One attempt to store a large entry. Its first error ends it and is logged; nothing is raised.

    Readers never see chunks of two writes mixed: the count is removed before the first chunk is overwritten, and stored
    last.
    """

    __slots__ = ("_chunk_count", "_dirty", "_extend_lock", "_failed", "_id", "_storage", "_writer")

    def __init__(self, storage: Storage, *, overwrite: bool, extend_lock: Callable[[], None]) -> None:
        """Begin to write. Nothing is stored yet.

        Args:
            storage: Where to store the entry.
            overwrite: Whether an entry that is there is outdated, even if nothing is stored in its place.
            extend_lock: Called after chunks have been stored.

        Raises:
            _native.CodecError: The AES key has a wrong length.
        """
        entry = storage.entry
        self._storage = storage
        self._extend_lock = extend_lock
        self._writer = entry.make_writer(None if entry.encryption_key is None else os.urandom(AES_BLOCK_SIZE))
        self._id = b"" if entry.sealer is None else os.urandom(_native.WRITE_ID_SIZE)
        self._failed = False
        self._chunk_count = 0
        #: Whether there may be a count that would be wrong if the write ended here.
        self._dirty = overwrite

    def add(self, item: object) -> bool:
        """Pickle an item. Return whether there are full chunks to store."""
        if not self._failed:
            try:
                return self._writer.write(item)
            except Exception as e:
                self._fail(e)

        return False

    def store_full_chunks(self) -> None:
        """Store the chunks that are full."""
        self._attempt(self._store_full_chunks)

    def finish(self) -> None:
        """Store the remaining chunks, then the count."""
        self._attempt(self._finish)

    def close(self) -> None:
        """Make sure that an entry that was not stored completely is missing."""
        if self._dirty:
            self._storage.discard()

    def _attempt(self, step: Callable[[], None]) -> None:
        if not self._failed:
            try:
                step()
            except Exception as e:
                self._fail(e)

    def _fail(self, error: Exception) -> None:
        self._failed = True
        self._storage.log_not_stored(error)

    def _store_full_chunks(self) -> None:
        chunks = self._writer.take_full_chunks()

        if chunks:
            entry = self._storage.entry
            start = self._chunk_count
            end = start + len(chunks)
            stored = [
                entry.encode_chunk(chunk, index, self._id, last=False) for index, chunk in enumerate(chunks, start)
            ]
            self._begin()
            self._storage._set_many(dict(zip(entry.chunk_keys(start, end), stored, strict=True)))
            self._chunk_count = end
            self._extend_lock()

    def _finish(self) -> None:
        self._writer.finish()
        self._store_full_chunks()
        self._begin()
        self._store_last_chunk()
        self._extend_lock()
        self._storage.store(str(self._chunk_count), COUNT)
        self._dirty = False

    def _store_last_chunk(self) -> None:
        entry = self._storage.entry
        index = self._chunk_count
        stored = entry.encode_last_chunk(self._writer.last_chunk(), index, self._id)

        if stored is None:
            return

        key, next_key = entry.chunk_keys(index, index + 2)

        if is_full(stored[0]):
            # A chunk that a longer entry left behind would be taken for the end of this one.
            get_cache().delete(next_key)

        self._storage._set(key, stored)
        self._chunk_count = index + 1

    def _begin(self) -> None:
        if self._chunk_count == 0:
            self._dirty = True
            self._storage.delete()


def _is_about_encryption(error: Exception) -> bool:
    return isinstance(error, _native.CodecError) and error.kind == "cipher"
