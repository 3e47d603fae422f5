"""One entry of the cache, small or large: reading it, storing it, and the lock around that."""

from __future__ import annotations

import logging
import os
import pickle
from enum import Enum
from typing import TYPE_CHECKING, TypeVar

from django.core.cache import cache

from fastblets import _native
from fastblets.cache.errors import MissingChunkError
from fastblets.cache.keys import (
    get_key_prefix,
    make_full_key,
    resolve_encryption_key,
    split_key,
)
from fastblets.conf import get_setting
from fastblets.secrets.crypto import AES_BLOCK_SIZE, aes_decrypt, aes_encrypt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any, Final

    from fastblets.protect.locks import CacheLock


_T = TypeVar("_T")


logger: logging.Logger = logging.getLogger("djblets.cache.backend")


#: For how long, in seconds, entries are kept by default: 30 days. The setting ``CACHE_EXPIRATION_TIME`` changes it.
DEFAULT_EXPIRATION_TIME: Final = 60 * 60 * 24 * 30

#: How many chunks are fetched at a time. Their count comes from the cache, so it may be anything.
_FETCH_SIZE: Final = 64


class Unset(Enum):
    """The type of the sentinel for what was not given or not found, where None is a value."""

    UNSET = "UNSET"


UNSET: Final = Unset.UNSET


class _ForeignValueError(Exception):
    """The main key of a large entry holds something that is no count of chunks."""


class Entry:
    """An entry of the cache, for one call of a memoize function.

    A small entry is the value itself, under the full key; encrypted, it is pickled first. A large entry is a stream of
    pickles in chunks, each under a key of its own, with their count under the full key, which is stored last.
    """

    __slots__ = (
        "_compress",
        "_encryption_key",
        "_expiration",
        "_key",
        "_lock",
        "_prefix",
        "_releases_lock",
        "full_key",
    )

    full_key: str

    def __init__(
        self,
        key: str | Sequence[str],
        expiration: int | Unset | None,
        compress: bool,
        use_encryption: bool | None,
        encryption_key: bytes | None,
        lock: CacheLock | None,
    ) -> None:
        """Find out what the entry's full key is and how it is stored.

        For the arguments see :func:`~fastblets.cache.backend.cache_memoize`. A lock without a key gets one.
        """
        self._encryption_key = resolve_encryption_key(use_encryption, encryption_key)
        self._prefix = get_key_prefix()
        self._key = key
        self.full_key = make_full_key(key, self._encryption_key, self._prefix)
        self._compress = bool(compress)
        self._lock = lock = lock or None
        self._releases_lock = False

        self._expiration = expiration

        if lock is not None and not lock.full_cache_key:
            lock.full_cache_key = self._make_key(f"_lock_:{key}" if isinstance(key, str) else ("_lock_", *key))

    def read(self, load: Callable[[], Any]) -> Any:
        """Return what is found, or UNSET; then the lock is held, if there is one that could be had.

        Whatever goes wrong has been logged, and counts as not found.

        Args:
            load: One of the methods of this entry that load it.
        """
        lock = self._lock

        try:
            value = load()
        except _ForeignValueError:
            # Djblets takes no lock to replace what is no entry at all, and its tests insist on it.
            lock = None
            value = UNSET
        except Exception:
            value = UNSET

        # A lock that is held already is the caller's own business.
        if value is UNSET and lock is not None and not lock.locked():
            value = self._read_locked(lock, load)

        if value is UNSET:
            logger.debug('Cache miss for key "%s"', self.full_key)

        return value

    def load(self) -> Any:
        """Return the small value, or UNSET.

        Raises:
            Exception: The cache failed, or the value can't be decrypted or unpickled. It has been logged.
        """
        key = self.full_key

        try:
            value = cache.get(key, UNSET)
        except Exception as e:
            logger.exception('Error fetching data from cache for key "%s": %s', key, e)
            raise

        if value is UNSET or self._encryption_key is None:
            return value

        try:
            value = aes_decrypt(value, key=self._encryption_key)
        except Exception as e:
            logger.error("Failed to decrypt data from cache for key %s: %s.", key, e)
            raise

        try:
            return pickle.loads(value)
        except Exception as e:
            logger.warning("Failed to deserialize data from cache for key %s: %s.", key, e)
            raise

    def load_items(self) -> Any:
        """Return an iterator over the items of a large entry, or UNSET.

        The stream is known to be whole then.

        Raises:
            Exception: The entry can't be read. It has been logged.
        """
        try:
            count = self.load()
        except Exception as e:
            logger.error(
                'Failed to fetch large or iterable data entry count from cache for key "%s". '
                "Rebuilding data. Error = %s",
                self.full_key,
                e,
            )
            raise

        if count is UNSET:
            return UNSET

        try:
            chunks = self._fetch_chunks(_parse_count(count))

            # A compressed stream has a checksum. Of another one, chunks that are being written over make a whole, too.
            if not self._compress and self.load() != count:
                raise MissingChunkError("it is being written over")

            return self._read_items(chunks)
        except Exception as e:
            self._log_unreadable(e)
            raise

    def load_only_item(self) -> Any:
        """Return the one item of a large entry, or UNSET.

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

    def store(self, value: object) -> None:
        """Store a small value, or the count of a large entry's chunks.

        Raises:
            Exception: The value can't be pickled or encrypted, or the cache failed. It has been logged.
        """
        if self._encryption_key is not None:
            value = self._encrypt(value, self._encryption_key)

        self._set(self.full_key, value)

    def store_items(self, items: Iterable[_T], *, overwrite: bool) -> Iterator[_T]:
        """Yield the items, each before the next one is asked for, and store them on the way.

        Nothing that goes wrong with storing them stops the items: it has been logged. Unless everything was stored,
        the entry is missing afterwards; if the generator is not run to its end, too.

        Args:
            items: The items.
            overwrite: Whether there may be an entry under this key that must not survive.

        Raises:
            Exception: What the items raised.
        """
        try:
            write = _LargeWrite(self, self._make_writer(), overwrite=overwrite)
        except Exception as e:
            self.log_not_stored(e)
            yield from items
            return

        try:
            for item in items:
                write.add(item)
                yield item
                write.store_full_chunks()

            write.finish()
        finally:
            write.close()

    def store_chunks(self, start: int, chunks: list[bytes]) -> None:
        """Store several chunks at once, the first of which has the index ``start``."""
        values = {self._make_chunk_key(index): [chunk] for index, chunk in enumerate(chunks, start)}

        try:
            failed = cache.set_many(values, timeout=self._get_timeout())

            if failed:
                raise OSError(f"the cache refused {len(failed)} of them")
        except Exception as e:
            logger.exception("Unable to store cached data for keys %r: %s", sorted(values.keys()), e)
            raise

        self._extend_lock()

    def store_last_chunk(self, index: int, chunk: bytes) -> None:
        """Store the last chunk."""
        self._set(self._make_chunk_key(index), [chunk])
        self._extend_lock()

    def delete(self) -> None:
        """Remove the entry. Chunks without a count are nothing."""
        cache.delete(self.full_key)

    def discard(self) -> None:
        """Remove the entry, if it can be done."""
        try:
            self.delete()
        except Exception as e:
            logger.exception('Error deleting cache key "%s": %s', self.full_key, e)

    def log_not_stored(self, error: Exception) -> None:
        """Log that a large entry could not be stored."""
        logger.error(
            'Failed to store or retrieve large or iterable cache data for key "%s". Newly-generated data will be '
            "returned but not cached. Error = %s",
            self.full_key,
            error,
        )

    def release_lock(self) -> None:
        """Release the lock, if this entry acquired it. An error is logged: the lock ends by itself."""
        lock = self._lock

        if self._releases_lock and lock is not None and lock.locked():
            try:
                lock.release()
            except Exception as e:
                logger.exception("Error releasing cache lock %r: %s", lock, e)

    def _read_locked(self, lock: CacheLock, load: Callable[[], Any]) -> Any:
        value: Any = UNSET

        def is_needless() -> bool:
            nonlocal value
            value = _load_or_unset(load)

            return value is not UNSET

        # Said before, since an exception may come in right behind the acquisition.
        self._releases_lock = True

        try:
            # Locks of Djblets' own class can't stop waiting before they have been acquired.
            acquire_unless = getattr(lock, "acquire_unless", None)

            if acquire_unless is None:
                lock.acquire()
            else:
                acquire_unless(is_needless)
        except TimeoutError:
            logger.error("Timeout waiting on distributed cache lock %r", lock)
        except Exception as e:
            logger.exception("Error acquiring cache lock %r: %s", lock, e)

            return value

        # While waiting, another process may have stored the value.
        return _load_or_unset(load) if value is UNSET else value

    def _make_key(self, key: str | Sequence[str]) -> str:
        return make_full_key(key, self._encryption_key, self._prefix)

    def _make_chunk_key(self, index: int) -> str:
        if isinstance(self._key, str):
            return self._make_key(f"{self._key}-{index}")

        *parts, last = split_key(self._key)

        return self._make_key([*parts, f"{last}-{index}"])

    def _fetch_chunks(self, count: int) -> list[bytes]:
        chunks: list[bytes] = []

        while len(chunks) < count:
            end = min(len(chunks) + _FETCH_SIZE, count)
            keys = [self._make_chunk_key(index) for index in range(len(chunks), end)]
            found = cache.get_many(keys)

            if len(found) != len(keys):
                missing = [key for key in keys if key not in found]
                logger.debug("Cache miss for key(s): %s.", ", ".join(missing))

                raise MissingChunkError(f"{len(missing)} of {count} chunks are missing")

            # A chunk is stored in a list, so that no backend takes it for a string to convert.
            chunks += (found[key][0] for key in keys)

        _check_sizes(chunks)

        return chunks

    def _read_items(self, chunks: list[bytes]) -> Iterator[Any]:
        items = _native.read_items(chunks, self._compress, self._encryption_key)

        return items if items.ready else self._stream(items)

    def _stream(self, items: _native.ItemStream) -> Iterator[Any]:
        # Whole, but not yet unpickled: that may still fail.
        while True:
            try:
                item = next(items)
            except StopIteration:
                return
            except Exception as e:
                logger.error(
                    'Failed to return large or iterable cache data for key "%s". Something went wrong when returning '
                    "processed results to the caller. Error = %s",
                    self.full_key,
                    e,
                )
                self.discard()
                raise

            yield item

    def _encrypt(self, value: object, encryption_key: bytes) -> bytes:
        # The backend would pickle the value, but has to be given bytes if they are to be encrypted.
        try:
            pickled = pickle.dumps(value, protocol=0)
        except Exception as e:
            logger.error('Failed to serialize data for cache key "%s": %s', self.full_key, e)
            raise

        try:
            return aes_encrypt(pickled, key=encryption_key)
        except Exception as e:
            logger.error("Failed to encrypt data for cache for key %s: %s.", self.full_key, e)
            raise

    def _get_timeout(self) -> int | None:
        if self._expiration is not UNSET:
            return self._expiration

        timeout: int | None = get_setting("CACHE_EXPIRATION_TIME", DEFAULT_EXPIRATION_TIME)

        return timeout

    def _make_writer(self) -> _native.LargeWriter:
        if self._encryption_key is None:
            return _native.LargeWriter(self._compress, None, None)

        return _native.LargeWriter(self._compress, self._encryption_key, os.urandom(AES_BLOCK_SIZE))

    def _extend_lock(self) -> None:
        lock = self._lock

        if lock is not None and lock.locked():
            try:
                lock.update_expiration()
            except Exception as e:
                logger.exception("Error extending cache lock %r: %s", lock, e)

    def _set(self, key: str, value: object) -> None:
        try:
            cache.set(key, value, timeout=self._get_timeout())
        except Exception as e:
            logger.exception('Error setting data in cache for key "%s": %s', key, e)
            raise

    def _log_unreadable(self, error: Exception) -> None:
        logger.warning(
            'Failed to fetch large or iterable data from cache for key "%s": %s',
            self.full_key,
            error,
        )


class _LargeWrite:
    """One attempt to store a large entry. Its first error ends it, and is logged; the items go on.

    Readers never see two generations mixed: the count is removed before the first chunk is written over, and stored
    last.
    """

    def __init__(self, entry: Entry, writer: _native.LargeWriter, *, overwrite: bool) -> None:
        self._entry = entry
        self._writer = writer
        self._failed = False
        self._chunk_count = 0
        #: Whether there may be a count that would be wrong if it ended here.
        self._dirty = overwrite

    def add(self, item: object) -> None:
        """Pickle an item."""
        self._attempt(self._add, item)

    def store_full_chunks(self) -> None:
        """Store the chunks that are full by now."""
        self._attempt(self._store_full_chunks)

    def finish(self) -> None:
        """Store what is left, and last of all the count."""
        self._attempt(self._finish)

    def close(self) -> None:
        """Make sure that an entry that was not stored completely is missing."""
        if self._dirty:
            self._entry.discard()

    def _attempt(self, step: Callable[..., None], *args: object) -> None:
        if self._failed:
            return

        try:
            step(*args)
        except Exception as e:
            self._failed = True
            self._entry.log_not_stored(e)

    def _add(self, item: object) -> None:
        self._writer.write(item)

    def _store_full_chunks(self) -> None:
        chunks = self._writer.take_full_chunks()

        if chunks:
            self._begin()
            self._entry.store_chunks(self._chunk_count, chunks)
            self._chunk_count += len(chunks)

    def _finish(self) -> None:
        self._writer.finish()
        self._store_full_chunks()
        self._begin()
        last_chunk = self._writer.last_chunk()

        if last_chunk is not None:
            self._entry.store_last_chunk(self._chunk_count, last_chunk)
            self._chunk_count += 1

        self._entry.store(str(self._chunk_count))
        self._dirty = False

    def _begin(self) -> None:
        if self._chunk_count == 0:
            self._dirty = True
            self._entry.delete()


def _load_or_unset(load: Callable[[], Any]) -> Any:
    try:
        return load()
    except Exception:
        # It has been logged.
        return UNSET


def _check_sizes(chunks: list[bytes]) -> None:
    # What is not compressed has no checksum: cut between two items it would be taken for whole.
    sizes = [len(chunk) for chunk in chunks]

    if any(size != _native.CACHE_CHUNK_SIZE for size in sizes[:-1]) or not all(
        0 < size <= _native.CACHE_CHUNK_SIZE for size in sizes
    ):
        raise ValueError("its chunks are not of the size in which they are stored")


def _parse_count(value: object) -> int:
    # Nothing else is ever stored. int() would take negative and fractional numbers too, which read as an empty entry.
    if not (isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20):
        raise _ForeignValueError("what is stored under it is no count of chunks")

    return int(value)
