"""The cache calls of an entry that has tags or a policy: as those of any entry, with its stamps in the same calls.

The order decides what a reader can get to see. Who computes takes the stamps before, and stores first the value, then
its record. Who reads asks for the record, then the value, in one call. Who deletes or invalidates sets a mark first.
After storing, the stamps are looked at once more: where a record lies beside its value, the value of another call may
have come between the two.
"""

from __future__ import annotations

import logging
import math
import os
import time
from typing import TYPE_CHECKING

from django.core.cache.backends.memcached import BaseMemcachedCache

from fastblets import _native
from fastblets.cache.entry import COUNT, VALUE, prefix_key
from fastblets.cache.errors import CacheRefusedError, UnstampedError
from fastblets.cache.failures import log_failure
from fastblets.cache.keys import get_encryption_key_fallbacks, resolve_encryption_key
from fastblets.cache.kinds import tells_refusals, unwrap
from fastblets.cache.options import UNSET
from fastblets.cache.shortcuts import get_settings
from fastblets.cache.state import FENCE_SECONDS, MOST_TAGS, Life, Record, Stamps, find_end, find_token, get_deletion
from fastblets.cache.storage import Storage, fetch
from fastblets.secrets.crypto import AES_BLOCK_SIZE
from fastblets.signals import tell_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any, Final

    from django.core.cache.backends.base import BaseCache

    from fastblets.cache.entry import Entry, Kind
    from fastblets.cache.options import Options, Tag


# Djblets' name, so that a project's logging settings go on to hold.
logger: logging.Logger = logging.getLogger("djblets.cache.backend")

#: How much longer than its value, in seconds, a record is kept that lies beside it.
_MARGIN: Final = 60


class StampedStorage(Storage):
    """An entry that has tags or a policy, in its cache.

    Attributes:
        cost: How long computing the value that is to be stored took, in seconds.
    """

    __slots__ = ("_found", "_last_chunk_key", "_now", "_record", "_stamps", "_state_key", "cost")

    cost: float

    def __init__(self, entry: Entry, options: Options, tag_keys: Sequence[Sequence[str]]) -> None:
        """Take the parts.

        Args:
            entry: The entry.
            options: How it is stored.
            tag_keys: The full keys of each tag, from :func:`make_tag_keys`.
        """
        super().__init__(entry, options)
        has_fence = bool(tag_keys) or options.policy is None or options.policy.fence
        self._stamps = Stamps(entry.make_fence_key() if has_fence else None, tag_keys)
        self.cost = 0
        #: Where the record of a small value is that is not encrypted.
        self._state_key = None if entry.encryption_key is not None else entry.make_state_key()
        #: The stamps as they were found last.
        self._now: Record | None = None
        #: The record of the entry that was found.
        self._found: Record | None = None
        #: The record of what is to be stored.
        self._record: Record | None = None
        #: Where this call stored the last chunk of a large entry.
        self._last_chunk_key: str | None = None

    @property
    def depends_on(self) -> list[str]:
        """The full keys of the entry and its tags."""
        return [self.entry.full_key, *self._stamps.keys]

    @property
    def head_keys(self) -> list[str]:
        """The full keys that are looked up first: the record before the value, and the stamps."""
        return self.depends_on if self._state_key is None else [self._state_key, *self.depends_on]

    @property
    def stamps(self) -> Stamps:
        """Where the stamps are."""
        return self._stamps

    @property
    def state(self) -> dict[str, str]:
        """What is to be stored beside a small value, by full key: its record, unless that lies within."""
        return {} if self._state_key is None else {self._state_key: self._begin_life().encode()}

    @property
    def may_outlive_its_record(self) -> bool:
        """Whether an old value must be deleted before a new one is stored.

        If storing the new one fails unseen, the new record would come to stand beside the old value.
        """
        return self._state_key is not None and not tells_refusals(self.options.get_cache())

    def get_older(self) -> Iterator[Storage]:
        """Return an iterator over the same entry under each older default encryption key, the latest first."""
        return (StampedStorage(entry, self.options, self._stamps.tag_keys) for entry in self.entry.get_older())

    def load(self, kind: Kind = VALUE) -> Any:
        """Return what is stored under the full key, UNSET if nothing valid is.

        Of a large entry this is the count; its record comes with the last chunk.

        Raises:
            Exception: The cache failed, or the value can't be decrypted or unpickled.
        """
        key = self.entry.full_key

        try:
            # The record of a large entry is beside its last chunk.
            keys = self.depends_on if kind is COUNT else self.head_keys
            cache = self.options.cache

            if cache is None:
                cache = self.options.get_cache()

            # Most caches answer that sooner.
            if len(keys) == 1:
                stored = cache.get(key, UNSET)
                found = {} if stored is UNSET else {key: stored}
            else:
                found = fetch(cache, keys)
        except Exception as e:
            log_failure(logger, e, 'Error fetching data from cache for key "%s": %s', key, e)
            raise tell_error(e, self.entry.name) from None

        return self.open_head(found, kind)

    def open_head(self, found: Mapping[str, Any], kind: Kind) -> Any:
        """Return the value or count in what was fetched under :attr:`head_keys`, UNSET if it is missing or not valid.

        Raises:
            Exception: The value can't be decrypted or unpickled.
        """
        # The record of an encrypted value comes with it.
        self._found = None if self._state_key is None else Record.parse(found.get(self._state_key))
        self.see(found)
        value = super().open_head(found, kind)

        return value if value is UNSET or kind is COUNT or self._is_valid() else UNSET

    def decode(self, stored: object, kind: Kind) -> Any:
        """Return a decrypted value or count. The record of a value is kept."""
        if kind is COUNT:
            return self.entry.decode(stored, kind)

        value, record = self.entry.decode_with_record(stored)
        self._found = Record.parse(record)

        return value

    def accepts(self, record: bytes) -> bool:
        """Return whether a large entry with this stored record is valid."""
        try:
            self._found = Record.parse(self.entry.decode_record(record)) if record else None
        except _native.CodecError:
            # Too short to hold anything.
            self._found = None

        return self._is_valid()

    def find_life(self) -> tuple[int | None, int | None, int]:
        """Return when the entry that was found was stored, until when it is fresh, and what computing it cost.

        All are milliseconds, the first two since 1970. None: not known, and for as long as it is there.
        """
        life = None if self._found is None else self._found.life
        end = None if self._now is None else find_end(self._found, self._now)

        return (None, end, 0) if life is None else (life.start, end, life.cost)

    def get_rest(self, now: int) -> int | None:
        """Return for how many seconds the entry that was found may still be there, None for ever.

        Args:
            now: The time, in milliseconds since 1970.
        """
        policy = self.options.policy
        assert policy is not None
        timeout = self.options.get_timeout()

        if self._found is not None:
            if self._found.life is None:
                return None

            timeout = math.ceil((self._found.life.end - now) / 1000 + policy.window)

        return None if timeout is None else max(timeout + _MARGIN, FENCE_SECONDS)

    def is_fresh(self) -> bool:
        """Return whether the entry that was found has not expired by its policy. Without one it never has."""
        return self.options.policy is None or self.get_late_secs() < 0

    def get_late_secs(self) -> float:
        """Return how many seconds ago the entry that was found has expired. Negative: it has not."""
        _, end, _ = self.find_life()

        return -math.inf if end is None else (get_milliseconds() - end) / 1000

    def see(self, found: Mapping[str, Any]) -> None:
        """Take the stamps out of what was fetched."""
        self._now = self._stamps.read(found)

    def stamp(self) -> None:
        """Take the stamps for a value that is going to be computed.

        Raises:
            Exception: The cache failed, which is logged.
        """
        if self._now is None:
            stamp([self])
        else:
            self._record = self._now

    def stamp_with(self, found: Mapping[str, Any]) -> None:
        """Take the stamps out of what was fetched, for a value that is going to be computed."""
        self.see(found)
        self._record = self._now

        if self._record is None:
            logger.error(
                'The tokens of the tags of cache key "%s" can\'t be stored. A server may be down. Newly-generated data '
                "will be returned but not cached.",
                self.entry.full_key,
            )

    def stamp_as(self, older: Storage) -> None:
        """Take over the record of the same entry under an older key. Without one it is fresh from now on."""
        assert isinstance(older, StampedStorage)
        self._record = older._found

        if self._record is None and not self._stamps.tag_keys:
            self._record = older._now

    def make_writer(self) -> _native.LargeWriter:
        """Return an object that turns items into chunks.

        Raises:
            _native.CodecError: The AES key has a wrong length.
            UnstampedError: The stamps are not known.
        """
        self._require_record()

        return super().make_writer()

    def close(self, value: object, kind: Kind) -> object:
        """Return what is to be stored for a value or count.

        Raises:
            Exception: The value can't be pickled or encrypted.
            UnstampedError: The stamps are not known.
        """
        self._require_record()

        return super().close(value, kind)

    def encode(self, value: object, kind: Kind, iv: bytes) -> bytes:
        """Return the stored form of a value, with its record, or of a count."""
        record = self._begin_life() if kind is VALUE else None

        return self.entry.encode(value, kind, iv, None if record is None else record.encode().encode())

    def encode_last_chunk(self, chunk: bytes | None, index: int, write_id: bytes) -> list[bytes] | None:
        """Return the stored form of the last chunk, with the record."""
        record = self.entry.encode_record(self._begin_life().encode().encode(), os.urandom(AES_BLOCK_SIZE))
        (self._last_chunk_key,) = self.entry.chunk_keys(index, index + 1)

        return self.entry.encode_last_chunk(chunk, index, write_id, record)

    def store(self, value: object, kind: Kind = VALUE) -> int | None:
        """Store a value or count, and remove it again if the stamps have changed meanwhile.

        Returns:
            How many bytes it has, None if it is for the backend to pickle it.

        Raises:
            Exception: The value can't be pickled or encrypted, or the cache failed.
            UnstampedError: The stamps are not known.
        """
        self._require_record()

        if kind is VALUE and self.may_outlive_its_record:
            self._delete_first()

        size = None

        try:
            if kind is VALUE and self._state_key is not None:
                self._set_surely(self.entry.full_key, value, self.options.get_timeout())
            else:
                size = super().store(value, kind)

            if kind is VALUE:
                self.store_state()

            outdated = find_outdated([self])
        except BaseException:
            # Nobody knows whether it is valid. Beside another call's record it would be taken for that call's value.
            self.discard()
            raise

        for each in outdated:
            each.discard()

        return size

    def store_state(self) -> None:
        """Store the record of a small value that was stored, unless it lies within.

        Raises:
            Exception: The cache failed, or refused it.
        """
        for key, record in self.state.items():
            self._set_surely(key, record, self.get_state_timeout())

    def discard(self) -> bool:
        """Remove the entry, and the last chunk if this call stored one. An error is logged.

        Another call may have stored its own chunks before, and store its count afterwards: the chunk of this call would
        then be taken for its.

        Returns:
            Whether the cache can be reached.
        """
        is_reachable = super().discard()

        if self._last_chunk_key is None or not is_reachable:
            return is_reachable

        return self._discard_key(self._last_chunk_key)

    def holds(self, found: Mapping[str, Any]) -> bool:
        """Return whether what was stored is valid, by the stamps that were fetched afterwards."""
        is_valid = self._require_record().holds(self._stamps.read(found))

        if not is_valid:
            self.log_outdated()

        return is_valid

    def get_state_timeout(self) -> int | None:
        """Return for how many seconds a record is stored that lies beside its value, None for ever."""
        timeout = self.options.get_timeout()

        return timeout if timeout is None or not timeout > 0 else timeout + _MARGIN

    def log_outdated(self) -> None:
        """Log that an entry is not valid."""
        logger.debug('Cache key "%s" was invalidated, or stored with other tags', self.entry.full_key)

    def _set_surely(self, key: str, value: object, timeout: int | None) -> None:
        cache = self.options.get_cache()

        if not isinstance(unwrap(cache), BaseMemcachedCache):
            self._set(key, value, cache, timeout)
            return

        # If a server is down, set() does nothing and says nothing. Then the old value would be there again, beside the
        # new record, once the server is back; or a value would be there without its record.
        try:
            refused = cache.set_many({key: value}, timeout=timeout)

            if refused:
                raise CacheRefusedError("the cache refused it. A server may be down, or the value too large.")
        except Exception as e:
            log_failure(logger, e, 'Error setting data in cache for key "%s": %s', key, e)
            raise tell_error(e, self.entry.name) from None

    def _delete_first(self) -> None:
        key = self.entry.full_key

        try:
            self._delete(key)
        except Exception as e:
            log_failure(logger, e, 'Error deleting cache key "%s": %s', key, e)
            raise

    def _is_valid(self) -> bool:
        now = self._now

        if self._found is not None:
            is_valid = self._found.holds(now)
        else:
            # A process that knows nothing of records stored it, or the record is not stored yet. The second may be a
            # value from before the last deletion.
            is_valid = not self._stamps.tag_keys and now is not None and get_deletion(now.fence) == ""

        if not is_valid:
            self.log_outdated()

        return is_valid

    def _begin_life(self) -> Record:
        """Return the record of what is being stored, with the life that begins now unless it has one."""
        record = self._require_record()

        if record.life is None:
            seconds = self.options.get_fresh_secs()

            if seconds is not None:
                now = get_milliseconds()
                life = Life(now, now + round(seconds * 1000), round(self.cost * 1000))
                self._record = record = Record(record.fence, record.tokens, life)

        return record

    def _require_record(self) -> Record:
        if self._record is None:
            raise UnstampedError("it is not known on what it depends, as the cache can't be asked or keeps no marks")

        return self._record


def make_tag_keys(tags: Sequence[Tag], options: Options) -> list[list[str]]:
    """Return the full keys of each tag: one, or one for each default encryption key where all keys are encrypted.

    Raises:
        TypeError: The tags are no sequence of strings and of sequences of strings.
        ValueError: There are more than :data:`~fastblets.cache.state.MOST_TAGS`.
    """
    if isinstance(tags, (str, bytes)) or not isinstance(tags, (list, tuple)):
        raise TypeError(f"tags must be a list or tuple of tags, not of type {type(tags).__name__}.")

    settings = get_settings()
    key = resolve_encryption_key(settings, None, None)
    ring = (None,) if key is None else (key, *get_encryption_key_fallbacks(settings, key))
    found: dict[str, list[str]] = {}

    for tag in tags:
        if not isinstance(tag, (str, list, tuple)):
            raise TypeError(
                f"A tag must be a string, or a list or tuple of strings, not of type {type(tag).__name__}: {tags!r}"
            )

        base = prefix_key("_tag_", tag)
        keys = [_native.make_full_key(options.prefix, base, each, options.max_key_bytes) for each in ring]
        found[keys[0]] = keys

    if len(found) > MOST_TAGS:
        raise ValueError(
            f"A call can have {MOST_TAGS} tags, not {len(found)}. Each is looked up whenever an entry is read."
        )

    return list(found.values())


def stamp(storages: Sequence[StampedStorage]) -> None:
    """Take the stamps for values that are going to be computed or stored. Tags that have no token get one.

    Args:
        storages: Entries that have the same tags.

    Raises:
        Exception: The cache failed, which is logged.
    """
    first = storages[0]
    tag_keys = first.stamps.tag_keys
    found = _fetch_stamps(storages)

    try:
        if _add_tokens(first.options.get_cache(), tag_keys, found):
            found |= fetch(first.options.get_cache(), [key for keys in tag_keys for key in keys])
    except Exception as e:
        raise _log(first, e) from None

    for storage in storages:
        storage.stamp_with(found)


def find_outdated(storages: Sequence[StampedStorage]) -> list[StampedStorage]:
    """Return which of the entries that were just stored are not valid, since their stamps have changed meanwhile.

    Args:
        storages: Entries that have the same tags.

    Raises:
        Exception: The cache failed, which is logged.
    """
    found = _fetch_stamps(storages)

    return [storage for storage in storages if not storage.holds(found)]


def get_milliseconds() -> int:
    """Return the time in milliseconds since 1970."""
    return int(time.time() * 1000)


def make_token() -> str:
    """Return a random token."""
    return os.urandom(12).hex()


def _fetch_stamps(storages: Sequence[StampedStorage]) -> dict[str, Any]:
    keys = dict.fromkeys(key for storage in storages for key in storage.stamps.keys)

    if not keys:
        return {}

    try:
        return fetch(storages[0].options.get_cache(), list(keys))
    except Exception as e:
        raise _log(storages[0], e) from None


def _log(storage: StampedStorage, error: Exception) -> Exception:
    log_failure(logger, error, 'Error looking up the tags of cache key "%s": %s', storage.entry.full_key, error)

    return tell_error(error, storage.entry.name)


def _add_tokens(cache: BaseCache, tag_keys: Sequence[Sequence[str]], found: Mapping[str, Any]) -> bool:
    """Give a token to each tag that has none that holds. Return whether there was one.

    Args:
        cache: The cache.
        tag_keys: The full keys of each tag.
        found: What is stored, by full key.

    Raises:
        Exception: The cache failed.
    """
    changed: dict[str, str] = {}
    has_added = False

    for keys in tag_keys:
        stored = [found.get(key) for key in keys]

        if find_token(stored) is not None:
            continue

        known = [other for other in stored if other is not None]
        token = find_token(known or [make_token()])

        if token is None or (known and stored[0] is None):
            # Invalidated by a process that doesn't know all keys. All know the default key, so that a token under
            # another one may be out of date if that under the default key was lost.
            changed.update(dict.fromkeys(keys, make_token()))
            continue

        has_added = True

        for key, other in zip(keys, stored, strict=True):
            if other is None:
                # Another call may come first.
                cache.add(key, token, timeout=None)

    if changed:
        cache.set_many(changed, timeout=None)

    return has_added or bool(changed)
