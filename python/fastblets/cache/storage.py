"""The cache calls of an entry, in their order, with the log lines that Djblets writes for them."""

from __future__ import annotations

import logging
import os
from enum import Enum
from pickle import UnpicklingError
from typing import TYPE_CHECKING, cast

from django.core.cache.backends.memcached import PyMemcacheCache

from fastblets import _native
from fastblets.cache.entry import COUNT, VALUE, is_full, parse_count
from fastblets.cache.errors import MissingChunkError
from fastblets.cache.failures import is_unreachable, let_pass, log_failure
from fastblets.cache.kinds import unwrap
from fastblets.cache.options import UNSET
from fastblets.cache.transactions import is_pending, pending
from fastblets.secrets.crypto import AES_BLOCK_SIZE
from fastblets.signals import cache_event, tell, tell_error

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any, Final

    from django.core.cache.backends.base import BaseCache

    from fastblets.cache.entry import Entry, Kind
    from fastblets.cache.options import Options, Unset
    from fastblets.signals import EventKind


# Djblets' name, so that a project's logging settings go on to hold.
logger: logging.Logger = logging.getLogger("djblets.cache.backend")


#: How many chunks are fetched at a time. Their count comes from the cache and may be any number.
FETCH_SIZE: Final = 64


class Unreadable(Enum):
    """The type of the sentinel for what the client can't unpickle."""

    UNREADABLE = "UNREADABLE"


UNREADABLE: Final = Unreadable.UNREADABLE


class Storage:
    """An entry in its cache.

    Errors of the cache and of the codec are logged where they occur, then raised; :meth:`discard` only logs them. An
    error that means that the cache can't be reached is raised as
    :class:`~fastblets.cache.errors.UnreachableError`. A task's time limit propagates without a log record.

    Attributes:
        entry: The entry.
        options: How it is stored.
    """

    __slots__ = ("entry", "options")

    entry: Entry
    options: Options

    def __init__(self, entry: Entry, options: Options) -> None:
        """Take the entry and its options. No cache is asked yet."""
        self.entry = entry
        self.options = options

    def get_older(self) -> Iterator[Storage]:
        """Return an iterator over the same entry under each older default encryption key, the latest first."""
        return (Storage(entry, self.options) for entry in self.entry.get_older())

    def tell(
        self, kind: EventKind, seconds: float | None = None, bytes: int | None = None, chunks: int | None = None
    ) -> None:
        """Send an event of this entry, if there are receivers, as :func:`~fastblets.signals.tell` does."""
        if cache_event.receivers:
            tell(kind, self.entry.name, seconds, bytes, chunks)

    @property
    def depends_on(self) -> list[str]:
        """The full keys whose deletion makes the entry invalid."""
        return [self.entry.full_key]

    @property
    def head_keys(self) -> list[str]:
        """The full keys that are looked up first."""
        return [self.entry.full_key]

    def is_pending(self) -> bool:
        """Return whether this transaction is going to delete the entry, or to invalidate one of its tags."""
        return bool(pending) and is_pending(self.options.alias, self.depends_on)

    def load(self, kind: Kind = VALUE) -> Any:
        """Return what is stored under the full key, UNSET if nothing is.

        Raises:
            Exception: The cache failed, or the value can't be decrypted or unpickled.
        """
        entry = self.entry
        key = entry.full_key

        try:
            cache = self.options.cache

            if cache is None:
                cache = self.options.get_cache()

            stored = cache.get(key, UNSET)
        except Exception as e:
            log_failure(logger, e, 'Error fetching data from cache for key "%s": %s', key, e)
            raise tell_error(e, self.entry.name) from None

        if stored is UNSET or (stored is not None and entry.encryption_key is None):
            return stored

        return self.open(stored, kind, cache)

    def open_head(self, found: Mapping[str, Any], kind: Kind) -> Any:
        """Return the value or count in what :func:`fetch` found under :attr:`head_keys`, UNSET if nothing is there.

        Raises:
            Exception: The value can't be decrypted or unpickled.
        """
        stored = found.get(self.entry.full_key, UNSET)

        if stored is UNREADABLE:
            # It has been logged.
            self.tell("error")
            raise UnpicklingError("the cache's client can't unpickle it")

        if stored is UNSET or (stored is not None and self.entry.encryption_key is None):
            return stored

        return self.open(stored, kind, self.options.get_cache())

    def open(self, stored: object, kind: Kind, cache: BaseCache) -> Any:
        """Return the value or count in what was fetched from the full key, UNSET if it can't be told.

        Args:
            stored: What is stored.
            kind: What it should be.
            cache: The cache that returned it.

        Raises:
            Exception: The value can't be decrypted or unpickled.
        """
        entry = self.entry
        key = entry.full_key

        if stored is None and entry.sealer is not None and kind is VALUE and isinstance(unwrap(cache), PyMemcacheCache):
            # pymemcache returns None for values it cannot unpickle. Nothing tells that None from a stored one.
            return UNSET

        if entry.encryption_key is None:
            return stored

        try:
            return self.decode(stored, kind)
        except Exception as e:
            let_pass(e)

            if _is_about_encryption(e):
                logger.error("Failed to decrypt data from cache for key %s: %s.", key, e)
            else:
                logger.warning("Failed to deserialize data from cache for key %s: %s.", key, e)

            raise

    def decode(self, stored: object, kind: Kind) -> Any:
        """Return a decrypted value or count, as :meth:`~fastblets.cache.entry.Entry.decode` does."""
        return self.entry.decode(stored, kind)

    def encode(self, value: object, kind: Kind, iv: bytes) -> bytes:
        """Return the stored form of a value or count, as :meth:`~fastblets.cache.entry.Entry.encode` does."""
        return self.entry.encode(value, kind, iv)

    def encode_last_chunk(self, chunk: bytes | None, index: int, write_id: bytes) -> list[bytes] | None:
        """Return the stored form of the last chunk, as :meth:`~fastblets.cache.entry.Entry.encode_last_chunk` does."""
        return self.entry.encode_last_chunk(chunk, index, write_id)

    def accepts(self, record: bytes) -> bool:
        """Return whether a large entry with this stored record, empty if there is none, is valid."""
        return True

    def is_fresh(self) -> bool:
        """Return whether the entry that was found has not expired by its policy."""
        return True

    def stamp(self) -> None:
        """Note what a value depends on that is going to be computed."""

    def stamp_as(self, older: Storage) -> None:
        """Note that a value is going to be stored that was found in another entry."""

    def store(self, value: object, kind: Kind = VALUE) -> int | None:
        """Store a value or count under the full key.

        Returns:
            How many bytes it has, None if it is for the backend to pickle it.

        Raises:
            Exception: The value can't be pickled or encrypted, or the cache failed.
        """
        if self.entry.encryption_key is not None:
            value = self.close(value, kind)

        # A value goes where it was looked for. An iterable may go on in another thread, which has a cache object of its
        # own.
        self._set(self.entry.full_key, value, self.options.cache if kind is VALUE else None)

        return None if self.entry.encryption_key is None else len(cast("bytes", value))

    def close(self, value: object, kind: Kind) -> object:
        """Return what is to be stored for a value or count: the reverse of :meth:`open`.

        Raises:
            Exception: The value can't be pickled or encrypted.
        """
        entry = self.entry

        if entry.encryption_key is None:
            return value

        # The backend would pickle the value, but only bytes can be encrypted.
        try:
            return self.encode(value, kind, os.urandom(AES_BLOCK_SIZE))
        except Exception as e:
            let_pass(e)

            if _is_about_encryption(e):
                logger.error("Failed to encrypt data for cache for key %s: %s.", entry.full_key, e)
            else:
                logger.error('Failed to serialize data for cache key "%s": %s', entry.full_key, e)

            raise

    def load_items(self) -> Any:
        """Return an iterator over the items of a large entry whose stream is whole, UNSET if there is no entry.

        Raises:
            Exception: The entry can't be read.
        """
        try:
            count = self.load(COUNT)
        except Exception as e:
            let_pass(e)
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
            stored = self._fetch_chunks(parse_count(count))
        except Exception as e:
            let_pass(e)
            self.log_unreadable(e)
            raise

        return self.open_items(count, stored)

    def open_items(self, count: str, stored: list[Any]) -> Any:
        """Return an iterator over the items of a large entry whose stream is whole, UNSET if it is not valid.

        Args:
            count: The count that was fetched before the chunks.
            stored: What is stored under the chunks' keys. It is emptied, so that nothing else keeps the chunks alive.

        Raises:
            Exception: The entry can't be read.
        """
        try:
            chunks, record, is_checked = self.entry.decode_chunks(stored)
            stored.clear()

            if not self.accepts(record):
                return UNSET

            if not is_checked:
                self._check_count(count, chunks)

            items = self.entry.read_items(chunks)
        except Exception as e:
            let_pass(e)
            self.log_unreadable(e)
            raise

        return self._stream(items) if isinstance(items, _native.ItemStream) else items

    def load_only_item(self) -> Any:
        """Return the one item of a large entry, UNSET if there is no entry.

        Raises:
            Exception: As for :meth:`load_items`, or there is another number of items.
        """
        items = self.load_items()

        return UNSET if items is UNSET else self.take_only_item(items)

    def take_only_item(self, items: Iterator[Any]) -> Any:
        """Return the one item of a large entry.

        Raises:
            Exception: There is another number of items, or it can't be unpickled.
        """
        item = next(items, UNSET)

        if item is UNSET or next(items, UNSET) is not UNSET:
            raise self.log_unreadable(ValueError(f"it has {'less' if item is UNSET else 'more'} than one item"))

        return item

    def encode_chunks(self, start: int, chunks: list[bytes], write_id: bytes) -> dict[str, object]:
        """Return what is to be stored for several chunks, by full key. For the arguments see :meth:`store_chunks`."""
        keys = self.entry.chunk_keys(start, start + len(chunks))

        return {
            key: self.entry.encode_chunk(chunk, index, write_id, last=False)
            for index, (key, chunk) in enumerate(zip(keys, chunks, strict=True), start)
        }

    def store_chunks(self, start: int, chunks: list[bytes], write_id: bytes) -> None:
        """Store several chunks at once.

        Args:
            start: The number of the first one.
            chunks: The chunks, none of them the last of the entry.
            write_id: The identity of this write, from :meth:`make_write_id`.

        Raises:
            Exception: The cache failed, or refused some.
        """
        values = self.encode_chunks(start, chunks, write_id)

        try:
            failed = self.options.get_cache().set_many(values, timeout=self.options.get_timeout())

            if failed:
                raise OSError(f"the cache refused {len(failed)} of them")
        except Exception as e:
            log_failure(logger, e, "Unable to store cached data for keys %r: %s", sorted(values), e)
            raise tell_error(e, self.entry.name) from None

    def store_last_chunk(self, index: int, chunk: bytes | None, write_id: bytes) -> int:
        """Store the last chunk, if there is one.

        Args:
            index: Its number.
            chunk: The chunk, None if the stream has no more bytes.
            write_id: The identity of this write, from :meth:`make_write_id`.

        Returns:
            The number of chunks.

        Raises:
            Exception: The cache failed.
        """
        stored = self.encode_last_chunk(chunk, index, write_id)

        if stored is None:
            return index

        key, next_key = self.entry.chunk_keys(index, index + 2)

        if is_full(stored[0]):
            # A chunk that a longer entry left behind would be taken for the end of this one.
            self._delete(next_key)

        self._set(key, stored)

        return index + 1

    def make_writer(self) -> _native.LargeWriter:
        """Return an object that turns items into chunks.

        Raises:
            _native.CodecError: The AES key has a wrong length.
        """
        entry = self.entry

        return entry.make_writer(None if entry.encryption_key is None else os.urandom(AES_BLOCK_SIZE))

    def make_write_id(self) -> bytes:
        """Return a random identity that the chunks of one write share, empty if they are not sealed."""
        return b"" if self.entry.sealer is None else os.urandom(_native.WRITE_ID_SIZE)

    def delete(self) -> None:
        """Remove the entry. Chunks are unreachable without the count.

        Raises:
            Exception: The cache failed. This alone is not logged here.
        """
        self._delete(self.entry.full_key)

    def discard(self) -> bool:
        """Remove the entry. An error is logged.

        Returns:
            Whether the cache can be reached.
        """
        return self._discard_key(self.entry.full_key)

    def _discard_key(self, key: str) -> bool:
        try:
            self.options.get_cache().delete(key)
        except Exception as e:
            log_failure(logger, e, 'Error deleting cache key "%s": %s', key, e)
            self.tell("error")

            return not is_unreachable(e)

        return True

    def _fetch_chunks(self, count: int) -> list[Any]:
        stored: list[Any] = []

        while len(stored) < count:
            end = min(len(stored) + FETCH_SIZE, count)
            keys = self.entry.chunk_keys(len(stored), end)

            try:
                found = self.options.get_cache().get_many(keys)
            except Exception as e:
                raise tell_error(e, self.entry.name) from None

            if len(found) != len(keys):
                missing = [key for key in keys if key not in found]
                logger.debug("Cache miss for key(s): %s.", ", ".join(missing))

                raise MissingChunkError(f"{len(missing)} of {count} chunks are missing")

            stored += map(found.__getitem__, keys)

        return stored

    def _check_count(self, count: str, chunks: list[bytes]) -> None:
        # Chunks that are being overwritten may look like a whole stream.
        if Storage.load(self, COUNT) != count:
            raise MissingChunkError("it is being written over")

        # A count that is too low also looks complete if it ends at an item boundary. Then its last chunk is full, which
        # the last chunk of a stream is once in a million times.
        if chunks and is_full(chunks[-1]):
            (next_key,) = self.entry.chunk_keys(len(chunks), len(chunks) + 1)

            if self._contains(next_key):
                raise ValueError("it has more chunks than are counted")

    def _stream(self, items: _native.ItemStream) -> Iterator[Any]:
        # The stream is whole, but its items are yet to be unpickled, which may still fail.
        while True:
            try:
                item = next(items)
            except StopIteration:
                return
            except Exception as e:
                let_pass(e)
                logger.error(
                    'Failed to return large or iterable cache data for key "%s". Something went wrong when returning '
                    "processed results to the caller. Error = %s",
                    self.entry.full_key,
                    e,
                )
                self.discard()
                raise

            yield item

    def _set(
        self, key: str, value: object, cache: BaseCache | None = None, timeout: int | Unset | None = UNSET
    ) -> None:
        try:
            if cache is None:
                cache = self.options.get_cache()

            cache.set(key, value, timeout=self.options.get_timeout() if timeout is UNSET else timeout)
        except Exception as e:
            log_failure(logger, e, 'Error setting data in cache for key "%s": %s', key, e)
            raise tell_error(e, self.entry.name) from None

    def _contains(self, key: str) -> bool:
        try:
            return key in self.options.get_cache()
        except Exception as e:
            raise tell_error(e, self.entry.name) from None

    def _delete(self, key: str) -> None:
        try:
            self.options.get_cache().delete(key)
        except Exception as e:
            raise tell_error(e, self.entry.name) from None

    def log_unreadable(self, error: Exception) -> Exception:
        """Log why a large entry can't be read, and return the error."""
        logger.warning(
            'Failed to fetch large or iterable data from cache for key "%s": %s',
            self.entry.full_key,
            # As text: a handler that keeps the record would keep all chunks, through the exception's traceback.
            str(error),
        )

        return error


def fetch(cache: BaseCache, keys: Iterable[str]) -> dict[str, Any]:
    """Return what is stored under full keys, UNREADABLE where the client can't unpickle it.

    Raises:
        Exception: The cache failed.
    """
    unique = list(dict.fromkeys(keys))

    try:
        return cache.get_many(unique)
    except Exception as e:
        if is_unreachable(e):
            raise

        let_pass(e)

    # The error doesn't tell which of them it was.
    found = {key: _fetch_one(cache, key) for key in unique}

    return {key: stored for key, stored in found.items() if stored is not UNSET}


def cut(keys: Iterable[str], size: int = FETCH_SIZE) -> Iterator[list[str]]:
    """Return an iterator over lists of at most ``size`` keys, each key once."""
    unique = list(dict.fromkeys(keys))

    return (unique[start : start + size] for start in range(0, len(unique), size))


def _fetch_one(cache: BaseCache, key: str) -> Any:
    try:
        return cache.get(key, UNSET)
    except Exception as e:
        if is_unreachable(e):
            raise

        log_failure(logger, e, 'Error fetching data from cache for key "%s": %s', key, e)

        return UNREADABLE


def _is_about_encryption(error: Exception) -> bool:
    return isinstance(error, _native.CodecError) and error.kind == "cipher"
