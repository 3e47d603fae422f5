"""One entry of the cache, small or large: how it is stored, and read back."""

from __future__ import annotations

import logging
import os
import pickle
from copy import copy
from enum import Enum
from typing import TYPE_CHECKING

from django.core.cache.backends.memcached import PyMemcacheCache
from django.core.exceptions import ImproperlyConfigured

from fastblets import _native
from fastblets.cache.classes import get_loads
from fastblets.cache.connection import get_cache
from fastblets.cache.errors import MissingChunkError
from fastblets.cache.keys import (
    get_encryption_key_fallbacks,
    get_key_prefix,
    resolve_encryption_key,
)
from fastblets.cache.kinds import get_max_key_bytes, unwrap
from fastblets.cache.options import check_seconds, get_expiration_time
from fastblets.cache.seals import make_sealer, resolve_seal
from fastblets.conf import get_settings
from fastblets.secrets.crypto import AES_BLOCK_SIZE, aes_decrypt, aes_encrypt

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any, Final

    from django.core.cache.backends.base import BaseCache

    from fastblets.cache.seals import Seal


logger: logging.Logger = logging.getLogger("djblets.cache.backend")


#: How many chunks are fetched at a time. Their count comes from the cache, so it may be anything.
FETCH_SIZE: Final = 64


class Unset(Enum):
    """The type of the sentinel for what was not given or not found, where None is a value."""

    UNSET = "UNSET"


UNSET: Final = Unset.UNSET


class ForeignValueError(Exception):
    """The main key of a large entry holds something that is no count of chunks."""


class Entry:
    """An entry of the cache, as a call's options say that it is stored.

    A small entry is the value itself, under the full key; encrypted, it is pickled first. A large entry is a stream of
    pickles in chunks, each under a key of its own, with their count under the full key, which is stored last.
    """

    __slots__ = (
        "_cache",
        "_compress",
        "_expiration",
        "_key",
        "_loads",
        "_max_key_bytes",
        "_prefix",
        "_sealer",
        "encryption_key",
        "full_key",
        "older_keys",
        "seal",
    )

    encryption_key: bytes | None
    full_key: str
    older_keys: Sequence[bytes]
    seal: Seal

    def __init__(
        self,
        key: str | Sequence[str],
        expiration: int | Unset | None,
        compress: bool,
        use_encryption: bool | None,
        encryption_key: bytes | None,
        seal: Seal | None,
    ) -> None:
        """Find out what the entry's full key is and how it is stored.

        For the arguments see :func:`~fastblets.cache.backend.cache_memoize`. They come by position: by keyword they
        would make a dict on their way here, which took a good part of a small value's time.

        Raises:
            TypeError: The base key or the expiration is of a wrong type.
            Exception: What the functions raise that work out the full key and read the settings. Were it to come up
                where the entry is read, it would pass for an entry that can't be.
        """
        if expiration is not UNSET and expiration is not None:
            check_seconds("expiration", expiration)

        #: Where a small value is looked for, and goes to.
        self._cache: BaseCache | None

        try:
            self._cache = cache = get_cache()
            self._max_key_bytes = max_key_bytes = get_max_key_bytes(cache)
        except Exception:
            # The cache's error, which is logged where the entry is read.
            self._cache = self._max_key_bytes = max_key_bytes = None

        self._key = key
        self._expiration = expiration
        self._compress = compress
        settings = get_settings()
        self.seal = resolve_seal(settings, seal)
        self._loads = get_loads(settings)
        key_in_use = resolve_encryption_key(settings, use_encryption, encryption_key)
        # They are the default key's; a caller with a key of its own has nothing to do with them.
        self.older_keys = (
            get_encryption_key_fallbacks(settings, key_in_use) if key_in_use and not encryption_key else ()
        )
        self._prefix = prefix = get_key_prefix(settings)
        self.encryption_key = key_in_use
        self.full_key = full_key = _native.make_full_key(prefix, key, key_in_use, max_key_bytes)
        self._sealer = make_sealer(full_key, key_in_use) if self.seal else None

    def make_key(self, key: str | Sequence[str]) -> str:
        """Make a full key as this entry's own was made, of another base key."""
        return _native.make_full_key(self._prefix, key, self.encryption_key, self._max_key_bytes)

    def get_older(self) -> Iterator[Entry]:
        """Return an iterator over the same entry under each older default encryption key, the latest first."""
        return map(self._under, self.older_keys)

    def refuse_unsealable(self) -> None:
        """Make sure that a small value gets the seal that it must have.

        Raises:
            ImproperlyConfigured: It can't have one.
        """
        if self.seal == "require" and self.encryption_key is None:
            raise ImproperlyConfigured(
                "A small value that is not encrypted can't be sealed, as seal or FASTBLETS_SEAL requires. Pass "
                "use_encryption=True or large_data=True, or seal=False to do without a seal here."
            )

    def load(self, *, is_count: bool = False) -> Any:
        """Return the small value, or UNSET.

        Args:
            is_count: Whether it is the number of a large entry's chunks.

        Raises:
            Exception: The cache failed, or the value can't be decrypted or unpickled. It has been logged.
        """
        key = self.full_key

        try:
            cache = self._cache

            if cache is None:
                self._cache = cache = get_cache()

            value = cache.get(key, UNSET)
        except Exception as e:
            logger.exception('Error fetching data from cache for key "%s": %s', key, e)
            raise

        if value is None and self._sealer is not None and not is_count and isinstance(unwrap(cache), PyMemcacheCache):
            # Of what this client can't unpickle it makes None. Nothing else would tell that from what was stored.
            return UNSET

        if value is UNSET or self.encryption_key is None:
            return value

        try:
            return _native.decrypt_value(
                value, self.encryption_key, is_count, self._sealer, self.seal == "require", self._loads
            )
        except Exception:
            # Step by step, it can be told what is wrong.
            return self._decrypt(value, self.encryption_key, is_count=is_count)

    def load_items(self) -> Any:
        """Return an iterator over the items of a large entry, or UNSET.

        The stream is known to be whole then.

        Raises:
            Exception: The entry can't be read. It has been logged.
        """
        try:
            count = self.load(is_count=True)
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
            chunks, sealed = self._fetch_chunks(parse_count(count))

            # A compressed stream has a checksum, sealed chunks are of one write.
            if not (self._compress or sealed):
                self._check_count(count, chunks)

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

    def store(self, value: object, *, is_count: bool = False) -> None:
        """Store a small value.

        Args:
            value: The value.
            is_count: Whether it is the number of a large entry's chunks.

        Raises:
            Exception: The value can't be pickled or encrypted, or the cache failed. It has been logged.
        """
        if self.encryption_key is not None:
            # The backend would pickle the value, but has to be given bytes if they are to be encrypted.
            try:
                value = _native.encrypt_value(
                    value, self.encryption_key, os.urandom(AES_BLOCK_SIZE), is_count, self._sealer
                )
            except Exception:
                # Step by step, it can be told what is wrong.
                value = self._encrypt(value, self.encryption_key, is_count=is_count)

        # An iterable may go on in another thread, which has a cache of its own.
        self._set(self.full_key, value, None if is_count else self._cache)

    def store_count(self, count: int) -> None:
        """Store the number of chunks, once they are stored.

        Raises:
            Exception: As for :meth:`store`.
        """
        self.store(str(count), is_count=True)

    def store_chunks(self, start: int, chunks: list[bytes], write_id: bytes) -> None:
        """Store several chunks at once.

        Args:
            start: The number of the first.
            chunks: What they hold.
            write_id: What this write's chunks have in common.

        Raises:
            Exception: The cache failed, or refused some. It has been logged.
        """
        keys = self.chunk_keys(start, start + len(chunks))
        values = {
            key: self._sealed(chunk, index, write_id, last=False)
            for index, (key, chunk) in enumerate(zip(keys, chunks, strict=True), start)
        }

        try:
            failed = get_cache().set_many(values, timeout=self._get_timeout())

            if failed:
                raise OSError(f"the cache refused {len(failed)} of them")
        except Exception as e:
            logger.exception("Unable to store cached data for keys %r: %s", sorted(values.keys()), e)
            raise

    def store_last_chunk(self, index: int, chunk: bytes | None, write_id: bytes) -> int:
        """Store the last chunk, if there is one, and return the number of chunks.

        Raises:
            Exception: The cache failed. It has been logged.
        """
        if chunk is None:
            if self._sealer is None:
                return index

            # Of no chunks the count alone would have to tell, which may have no seal.
            chunk = b""

        if _is_full(chunk):
            # One that was left by a longer entry would pass for the end of this one.
            get_cache().delete(self._make_chunk_key(index + 1))

        self._set(self._make_chunk_key(index), self._sealed(chunk, index, write_id, last=True))

        return index + 1

    def make_writer(self) -> _native.LargeWriter:
        """Return what turns items into chunks.

        Raises:
            ValueError: The encryption key has a wrong length.
        """
        if self.encryption_key is None:
            return _native.LargeWriter(bool(self._compress), None, None)

        return _native.LargeWriter(bool(self._compress), self.encryption_key, os.urandom(AES_BLOCK_SIZE))

    def chunk_keys(self, start: int, end: int) -> list[str]:
        """Return the full keys of the chunks from the index ``start`` up to but without ``end``."""
        return _native.make_chunk_keys(self._prefix, self._key, self.encryption_key, self._max_key_bytes, start, end)

    def delete(self) -> None:
        """Remove the entry. Chunks without a count are nothing."""
        get_cache().delete(self.full_key)

    def discard(self) -> None:
        """Remove the entry, if it can be done. If not, that has been logged."""
        try:
            self.delete()
        except Exception as e:
            logger.exception('Error deleting cache key "%s": %s', self.full_key, e)

    def make_write_id(self) -> bytes:
        """Return a random text that the chunks of one write have in common, none if they are not sealed."""
        return b"" if self._sealer is None else os.urandom(_native.WRITE_ID_SIZE)

    def _under(self, encryption_key: bytes) -> Entry:
        other = copy(self)
        other.encryption_key = encryption_key
        other.full_key = other.make_key(self._key)
        other._sealer = make_sealer(other.full_key, encryption_key) if self.seal else None

        return other

    def _make_chunk_key(self, index: int) -> str:
        return self.chunk_keys(index, index + 1)[0]

    def _decrypt(self, value: Any, encryption_key: bytes, *, is_count: bool) -> Any:
        try:
            value = aes_decrypt(value, key=encryption_key)
        except Exception as e:
            logger.error("Failed to decrypt data from cache for key %s: %s.", self.full_key, e)
            raise

        try:
            pickled = _native.open_pickle(value, is_count, self._sealer, self.seal == "require")

            return (self._loads or pickle.loads)(pickled)
        except Exception as e:
            logger.warning("Failed to deserialize data from cache for key %s: %s.", self.full_key, e)
            raise

    def _fetch_chunks(self, count: int) -> tuple[list[bytes], bool]:
        """Return the chunks, and whether their seals are known to be theirs."""
        stored: list[list[bytes]] = []

        while len(stored) < count:
            end = min(len(stored) + FETCH_SIZE, count)
            keys = self.chunk_keys(len(stored), end)
            found = get_cache().get_many(keys)

            if len(found) != len(keys):
                missing = [key for key in keys if key not in found]
                logger.debug("Cache miss for key(s): %s.", ", ".join(missing))

                raise MissingChunkError(f"{len(missing)} of {count} chunks are missing")

            stored += map(found.__getitem__, keys)

        # A chunk is stored in a list, so that no backend takes it for a string to convert; perhaps with its seal.
        chunks = [chunk[0] for chunk in stored]
        seals = [chunk[1] for chunk in stored if len(chunk) > 1]

        # Without chunks there is nothing that could have a seal, nor anything to tell from a count that was damaged.
        if self._sealer is not None and (seals or self.seal == "require" or not chunks):
            self._sealer.check_chunks(chunks, seals)

            return chunks, True

        # Sealed chunks are of the same sizes, but that there is an empty one where nothing was stored.
        if not (seals and chunks == [b""]):
            _check_sizes(chunks)

        return chunks, False

    def _check_count(self, count: str, chunks: list[bytes]) -> None:
        # Chunks that are being written over make a whole, too.
        if self.load(is_count=True) != count:
            raise MissingChunkError("it is being written over")

        # So do chunks of which the last are not counted, if an item ends there. But then the last that is counted is
        # full, which the last of a stream is once in a million times.
        if chunks and _is_full(chunks[-1]) and self._make_chunk_key(len(chunks)) in get_cache():
            raise ValueError("it has more chunks than are counted")

    def _read_items(self, chunks: list[bytes]) -> Iterator[Any]:
        items = _native.read_items(chunks, bool(self._compress), self.encryption_key, self._loads)

        return self._stream(items) if isinstance(items, _native.ItemStream) else items

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

    def _encrypt(self, value: object, encryption_key: bytes, *, is_count: bool) -> bytes:
        try:
            pickled = pickle.dumps(value, protocol=0)
        except Exception as e:
            logger.error('Failed to serialize data for cache key "%s": %s', self.full_key, e)
            raise

        if self._sealer is not None:
            pickled = self._sealer.seal_pickle(pickled, is_count)

        try:
            return aes_encrypt(pickled, key=encryption_key)
        except Exception as e:
            logger.error("Failed to encrypt data for cache for key %s: %s.", self.full_key, e)
            raise

    def _sealed(self, chunk: bytes, index: int, write_id: bytes, *, last: bool) -> list[bytes]:
        if self._sealer is None:
            return [chunk]

        return [chunk, self._sealer.seal_chunk(write_id, index, last, chunk)]

    def _get_timeout(self) -> int | None:
        if self._expiration is not UNSET:
            return self._expiration

        return get_expiration_time(get_settings())

    def _set(self, key: str, value: object, cache: BaseCache | None = None) -> None:
        try:
            if cache is None:
                cache = get_cache()

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


def _is_full(chunk: bytes) -> bool:
    return len(chunk) == _native.CACHE_CHUNK_SIZE


def _check_sizes(chunks: list[bytes]) -> None:
    # What is not compressed has no checksum: cut between two items it would be taken for whole.
    if not all(map(_is_full, chunks[:-1])) or not all(0 < len(chunk) <= _native.CACHE_CHUNK_SIZE for chunk in chunks):
        raise ValueError("its chunks are not of the size in which they are stored")


def parse_count(value: object) -> int:
    """Return the number of chunks that a large entry's main key holds.

    Raises:
        ForeignValueError: It is no such number.
    """
    # Nothing else is ever stored. int() would take negative and fractional numbers too, which read as an empty entry.
    if not (isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20):
        raise ForeignValueError("what is stored under it is no count of chunks")

    return int(value)
