"""One entry: its address and its codec. It asks no cache, reads no clock and logs nothing."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from django.core.exceptions import ImproperlyConfigured

from fastblets import _native
from fastblets.cache.errors import ForeignValueError
from fastblets.cache.models import get_recipe
from fastblets.cache.options import get_threads
from fastblets.cache.seals import get_seal_key
from fastblets.cache.shortcuts import get_settings
from fastblets.signals import make_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any, Final

    from fastblets.cache.options import Options
    from fastblets.cache.seals import Seal

_native.use_models(get_recipe)


class Kind(Enum):
    """What is stored under an entry's full key."""

    #: The value of a small entry.
    VALUE = "value"

    #: The number of a large entry's chunks.
    COUNT = "count"


VALUE: Final = Kind.VALUE
COUNT: Final = Kind.COUNT


class Entry:
    """An entry of the cache: under which keys it is stored, and in which form.

    A small entry is the value itself, under the full key; if it is encrypted, it is pickled first. A large entry is a
    stream of pickles in chunks, each under a key of its own; the number of chunks is stored last, under the full key.

    Attributes:
        encryption_key: The AES key, None if the entry is not encrypted.
        full_key: The full cache key.
        sealer: Makes and checks the entry's seals, None if it has none.
    """

    __slots__ = ("_key", "_options", "encryption_key", "full_key", "sealer")

    encryption_key: bytes | None
    full_key: str
    sealer: _native.Sealer | None

    def __init__(self, key: str | Sequence[str], options: Options, encryption_key: bytes | None) -> None:
        """Make the full key.

        Args:
            key: The base key.
            options: How the entry is stored.
            encryption_key: The AES key: that of the options, or an older one.

        Raises:
            TypeError: The base key is neither a string nor a sequence of strings.
        """
        self._key = key
        self._options = options
        self.encryption_key = encryption_key
        self.full_key = _native.make_full_key(options.prefix, key, encryption_key, options.max_key_bytes)
        self.sealer = self.make_sealer() if options.seal else None

    def get_older(self) -> Iterator[Entry]:
        """Return an iterator over the same entry under each older default encryption key, the latest first."""
        return (Entry(self._key, self._options, key) for key in self._options.older_keys)

    @property
    def name(self) -> str:
        """What events call the entry. Never its whole key."""
        return self._options.name or make_name(self._key)

    def make_lock_key(self, max_key_bytes: int | None) -> str:
        """Return the full key of the lock for computing this entry.

        Args:
            max_key_bytes: The most bytes that it may have in the lock's cache, None if that doesn't count them.
        """
        key = self._key
        # As in Djblets, where a sequence of one part has another lock than the part by itself.
        lock_key = prefix_key("_lock_", key) if isinstance(key, str) else ("_lock_", *key)

        return _native.make_full_key(self._options.prefix, lock_key, self.encryption_key, max_key_bytes)

    def make_state_key(self) -> str:
        """Return the full key of the record of a small entry that is not encrypted."""
        return self._make_side_key("_state_")

    def make_fence_key(self) -> str:
        """Return the full key of the mark that says that this entry was deleted."""
        return self._make_side_key("_fence_")

    def _make_side_key(self, name: str) -> str:
        options = self._options

        return _native.make_full_key(
            options.prefix, prefix_key(name, self._key), self.encryption_key, options.max_key_bytes
        )

    def chunk_keys(self, start: int, end: int) -> list[str]:
        """Return the full keys of the chunks from the index ``start`` up to but without ``end``."""
        options = self._options

        return _native.make_chunk_keys(
            options.prefix, self._key, self.encryption_key, options.max_key_bytes, start, end
        )

    def make_sealer(self) -> _native.Sealer:
        """Return an object that makes and checks the seals of this entry.

        Seals are made with a secret, so that they prove who stored the entry, if there is one: the AES key of an
        encrypted entry, ``FASTBLETS_SEAL_KEY`` for any other.

        Raises:
            ImproperlyConfigured: ``FASTBLETS_SEAL_KEY`` is too short, or neither text nor bytes.
        """
        full_key = self.full_key.encode("utf-8")

        return _native.Sealer(self.encryption_key or get_seal_key(get_settings()), full_key)

    def refuse_unsealable(self) -> None:
        """Refuse a small value that must have a seal and can't have one.

        Raises:
            ImproperlyConfigured: A seal is required, and the value is not encrypted.
        """
        if self._options.seal == "require" and self.encryption_key is None:
            raise ImproperlyConfigured(
                "A small value that is not encrypted can't be sealed, as seal or FASTBLETS_SEAL requires. Pass "
                "use_encryption=True or large_data=True, or seal=False to do without a seal here."
            )

    def encode(self, value: object, kind: Kind, iv: bytes, record: bytes | None = None) -> bytes:
        """Return the stored form of a value or count of an encrypted entry. Any other entry stores the object itself.

        Args:
            value: The value, or the count as text.
            kind: Which of the two it is.
            iv: An initialization vector of 16 random bytes.
            record: The record of the value, if it has one.

        Raises:
            _native.CodecError: The AES key has a wrong length.
            Exception: Pickling the value failed.
        """
        assert self.encryption_key is not None

        return _native.encrypt_value(value, self.encryption_key, iv, kind is COUNT, self.sealer, record)

    def decode(self, stored: object, kind: Kind) -> Any:
        """Return the value or count that :meth:`encode` made ``stored`` of.

        Raises:
            _native.CodecError: It can't be decrypted, or is not one whole pickle with a valid seal.
            Exception: Unpickling it failed.
        """
        assert self.encryption_key is not None
        options = self._options

        return _native.decrypt_value(
            stored, self.encryption_key, kind is COUNT, self.sealer, options.seal == "require", options.loads
        )

    def decode_with_record(self, stored: object) -> tuple[Any, bytes | None]:
        """Return the value that :meth:`encode` made ``stored`` of, and its record if it has one.

        Raises:
            Exception: As for :meth:`decode`.
        """
        assert self.encryption_key is not None
        options = self._options

        return _native.decrypt_value_and_record(
            stored, self.encryption_key, False, self.sealer, options.seal == "require", options.loads
        )

    def peek(self, stored: object) -> Any:
        """Return the value or count that :meth:`encode` made ``stored`` of, whichever it is, without checking its seal.

        For entries that are to be removed: nothing that it returns may reach a caller.

        Raises:
            _native.CodecError: It can't be decrypted, or is not one whole pickle.
            Exception: Unpickling it failed.
        """
        assert self.encryption_key is not None

        return _native.decrypt_value(stored, self.encryption_key, False, None, False, self._options.loads)

    def make_writer(self, iv: bytes | None) -> _native.LargeWriter:
        """Return an object that turns items into chunks.

        Args:
            iv: An initialization vector of 16 random bytes if the entry is encrypted, else None.

        Raises:
            _native.CodecError: The AES key has a wrong length.
        """
        return _native.LargeWriter(self._options.compress, self.encryption_key, iv, get_threads(get_settings()))

    def encode_chunk(
        self, chunk: bytes, index: int, write_id: bytes, *, last: bool, record: bytes | None = None
    ) -> list[bytes]:
        """Return the stored form of a chunk: a list, which no backend takes for text, with the seal if there is one.

        Djblets reads the first element only. The record is the third one; without a seal an empty one stands before it.

        Args:
            chunk: The chunk.
            index: Its number, from 0 on.
            write_id: 16 random bytes that the chunks of one write share. Not used without seals.
            last: Whether it is the last chunk.
            record: The stored form of the entry's record, from :meth:`encode_record`. The last chunk alone has one.
        """
        seal = None if self.sealer is None else self.sealer.seal_chunk(write_id, index, last, chunk, record)

        if record:
            return [chunk, seal or b"", record]

        return [chunk] if seal is None else [chunk, seal]

    def encode_last_chunk(
        self, chunk: bytes | None, index: int, write_id: bytes, record: bytes | None = None
    ) -> list[bytes] | None:
        """Return the stored form of the last chunk; None if nothing is to be stored.

        An empty entry has no chunk, unless it is sealed or has a record: without chunks only the count would remain,
        and that may be unsealed, and has no place for a record.
        """
        if chunk is None:
            if self.sealer is None and not record:
                return None

            chunk = b""

        return self.encode_chunk(chunk, index, write_id, last=True, record=record)

    def encode_record(self, record: bytes, iv: bytes) -> bytes:
        """Return the stored form of the record beside the last chunk: encrypted if the chunks are.

        Args:
            record: The record.
            iv: An initialization vector of 16 random bytes, of its own. Not used if the entry is not encrypted.

        Raises:
            _native.CodecError: The AES key has a wrong length.
        """
        return record if self.encryption_key is None else _native.encrypt(record, self.encryption_key, iv)

    def decode_record(self, stored: bytes) -> bytes:
        """Return the record of which that is the stored form: something else if it was damaged.

        Raises:
            _native.CodecError: It can't be decrypted.
        """
        return stored if self.encryption_key is None else _native.decrypt(stored, self.encryption_key)

    def decode_chunks(self, stored: Sequence[Sequence[bytes]]) -> tuple[list[bytes], bytes, bool]:
        """Return the chunks, the record, and whether the stream can tell by itself that it is whole.

        A compressed stream has a checksum, and sealed chunks are known to be of one write. The record is in its stored
        form, empty if there is none.

        Args:
            stored: All stored chunks of the entry, in order.

        Raises:
            ValueError: A chunk has a size that it can't have.
            _native.CodecError: A seal is missing or not valid.
        """
        chunks = [chunk[0] for chunk in stored]
        # An empty one stands before a record, where there is no seal.
        seals = [chunk[1] for chunk in stored if len(chunk) > 1 and chunk[1] != b""]
        record = get_record(stored)
        options = self._options

        if self.sealer is not None and must_have_seals(options.seal, chunks, seals):
            self.sealer.check_chunks(chunks, seals, record)

            return chunks, record, True

        # An uncompressed stream has no checksum. Cut between two items it would look whole.
        for index, chunk in enumerate(chunks):
            if len(chunk) not in get_chunk_sizes(index, len(chunks), may_be_empty=bool(seals or record)):
                raise ValueError("its chunks are not of the size in which they are stored")

        return chunks, record, options.compress

    def read_items(self, chunks: list[bytes]) -> Iterator[Any]:
        """Return an iterator over the items of a stream that is known to be whole.

        Items of a long stream (:class:`_native.ItemStream`) are unpickled when they are asked for, which may fail.

        Raises:
            _native.CodecError: The stream is damaged.
            Exception: Unpickling an item failed.
        """
        return _native.read_items(chunks, self._options.compress, self.encryption_key, self._options.loads)


def is_full(chunk: bytes) -> bool:
    """Return whether a chunk has the size of all chunks but the last."""
    return len(chunk) == _native.CACHE_CHUNK_SIZE


def prefix_key(name: str, key: str | Sequence[str]) -> str | Sequence[str]:
    """Return the base key of something that belongs to a base key, or to a tag.

    A sequence of one part is the same key as the part by itself.

    Args:
        name: What belongs to it, between underscores. String keys must not begin so.
        key: The base key.
    """
    if not isinstance(key, str) and len(key) == 1:
        key = key[0]

    # Joined, since formatting may make other characters of a subclass of str than it holds.
    return "".join((name, ":", key)) if isinstance(key, str) else (name, *key)


def get_record(stored: Sequence[Sequence[bytes]]) -> bytes:
    """Return the stored form of the record beside the last chunk, empty if there is none.

    Args:
        stored: All stored chunks of the entry, in order.
    """
    record = stored[-1][2] if stored and len(stored[-1]) > 2 else b""

    return record if isinstance(record, bytes) else b""


def get_chunk_sizes(index: int, count: int, *, may_be_empty: bool) -> range:
    """Return the sizes in bytes that a stored chunk can have.

    Args:
        index: The chunk's number, from 0 on.
        count: The number of the entry's chunks.
        may_be_empty: Whether chunks are stored with seals, or the last one with a record.
    """
    full = _native.CACHE_CHUNK_SIZE

    if index < count - 1:
        return range(full, full + 1)

    # An empty entry that is sealed, or has a record, has one empty chunk.
    return range(0 if may_be_empty and count == 1 else 1, full + 1)


def must_have_seals(seal: Seal, chunks: Sequence[bytes], seals: Sequence[bytes]) -> bool:
    """Return whether each chunk of a large entry must have a seal.

    Args:
        seal: How the entry is sealed.
        chunks: Its chunks.
        seals: The seals that are stored with them.
    """
    # Chunks with and without seals are from two writes. Without chunks nothing tells an empty entry from a damaged
    # count.
    return bool(seal) and (seal == "require" or bool(seals) or not chunks)


def parse_count(value: object) -> int:
    """Return the number of chunks that a large entry's full key holds.

    Raises:
        ForeignValueError: The value is not such a number.
    """
    # int() also accepts negative and fractional numbers, which would read as an empty entry.
    if not (isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20):
        raise ForeignValueError("what is stored under it is no count of chunks")

    return int(value)
