"""The cache calls of many entries at once, in their order: one for all full keys, and one for each 64 chunks.

The entries of a batch are of one call, so they have the same options and the same cache. Errors are logged where they
occur. An error that means that the cache can't be reached ends the batch: it is raised as
:class:`~fastblets.cache.errors.UnreachableError`.
"""

from __future__ import annotations

import logging
from itertools import islice
from typing import TYPE_CHECKING

from django.core.cache.backends.memcached import BaseMemcachedCache

from fastblets.cache.entry import COUNT, VALUE, get_record, is_full, parse_count
from fastblets.cache.errors import (
    CacheRefusedError,
    ForeignValueError,
    MissingChunkError,
    UnreachableError,
    UnstampedError,
)
from fastblets.cache.failures import is_unreachable, let_pass, log_failure
from fastblets.cache.kinds import tells_refusals, unwrap
from fastblets.cache.options import UNSET, is_over
from fastblets.cache.stamped import StampedStorage, find_outdated, get_milliseconds, make_token, stamp
from fastblets.cache.state import FENCE_SECONDS, make_expired
from fastblets.cache.storage import FETCH_SIZE, UNREADABLE, cut, fetch
from fastblets.signals import tell_error

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any, Final

    from django.core.cache.backends.base import BaseCache

    from fastblets.cache.storage import Storage


# Djblets' name, so that a project's logging settings go on to hold.
logger: logging.Logger = logging.getLogger("djblets.cache.backend")

#: How many chunks of one entry are deleted: 4 GB. The count comes from the cache and may be any number.
_MOST_CHUNKS: Final = 4096

#: How many keys are deleted at a time: 64 small values with the records beside them.
_DELETE_SIZE: Final = 2 * FETCH_SIZE

#: How often a mark is stored that is not there afterwards.
_MOST_TRIES: Final = 3


def load_batch(storages: Sequence[Storage], *, large: bool, allow_stale: bool = False) -> dict[int, Any]:
    """Return the values of those entries that can be read, by their index.

    What is missing is looked for under the older encryption keys.

    Args:
        storages: The entries.
        large: Whether they are large entries. If not, a count of chunks is not taken for a value.
        allow_stale: Whether entries count that have expired by their policy.

    Raises:
        Exception: A task's time limit.
    """
    values: dict[int, Any] = {}
    missing = {index: storage for index, storage in enumerate(storages) if not storage.is_pending()}
    older = [storage.get_older() for storage in storages]

    try:
        while missing:
            loaded, absent = _load_round(missing, large)
            values.update({index: loaded[index] for index in loaded if allow_stale or missing[index].is_fresh()})
            # Without those that are unreadable: they are newer than the entry under an older key.
            missing = {index: storage for index in absent for storage in islice(older[index], 1)}
    except UnreachableError:
        # It has been logged.
        pass

    return values


def contains(storage: Storage, *, large: bool | None, allow_stale: bool = False, allow_pending: bool = False) -> bool:
    """Return whether there is an entry, without reading the chunks of a large one.

    Args:
        storage: The entry.
        large: Whether it is to be a large one, None for either.
        allow_stale: Whether it counts if it has expired by its policy.
        allow_pending: Whether it counts if this transaction is going to delete it.

    Raises:
        Exception: The cache failed.
    """
    if not allow_pending and storage.is_pending():
        return False

    for each in (storage, *storage.get_older()):
        found = _fetch(each, each.head_keys)

        if each.entry.full_key not in found:
            continue

        kind = COUNT if large else VALUE

        try:
            if isinstance(each, StampedStorage):
                return _contains_stamped(each, found, large) and (allow_stale or each.is_fresh())

            value = each.open_head(found, kind)
        except Exception as e:
            # It has been logged. An unreadable entry is newer than those under an older key.
            let_pass(e)
            return False

        if large is None or value is UNSET:
            return value is not UNSET

        # An empty iterable may have no chunk, only its count.
        if large and value == "0":
            return True

        return bool(_find_counts({0: (each, value)})) is large

    return False


def store_batch(storages: Sequence[Storage], values: Sequence[object], *, large: bool) -> list[bool | None]:
    """Store values, and remove those that are not to be kept.

    Of large entries the old count is removed first, and the new one stored last. The copies under older encryption keys
    are removed.

    Args:
        storages: The entries. They must not share their options if a function was given as ``expiration``.
        values: The value of each.
        large: Whether they are stored in chunks.

    Returns:
        Of each, whether it was stored, None if it was not to be kept.

    Raises:
        Exception: The function that was given as ``expiration`` raised it, or a task's time limit.
        ImproperlyConfigured: ``CACHE_EXPIRATION_TIME`` is neither a number nor None.
    """
    is_kept = [storage.options.settle_expiration(value) for storage, value in zip(storages, values, strict=True)]
    dropped = [storage for storage, keep in zip(storages, is_kept, strict=True) if not keep]
    kept = {index: storages[index] for index, keep in enumerate(is_kept) if keep}
    stamped = {index: storage for index, storage in kept.items() if isinstance(storage, StampedStorage)}
    # By expiration, which a function may have made another one for each.
    groups: dict[int | None, dict[int, Storage]] = {}
    is_stored = [False if keep else None for keep in is_kept]

    for index, storage in kept.items():
        groups.setdefault(storage.options.get_timeout(), {})[index] = storage

    try:
        if dropped:
            delete_batch(dropped, large=None)

        _prepare(kept, values, large)
    except Exception as e:
        log_failure(logger, e, 'Error removing what is stored in cache for key "%s": %s', storages[0].entry.full_key, e)

        return is_stored

    try:
        if stamped:
            stamp(list(stamped.values()))
    except Exception as e:
        # It has been logged.
        let_pass(e)

        return is_stored

    try:
        for timeout, group in groups.items():
            for index in _store_group(group, values, timeout, large):
                is_stored[index] = not is_over(timeout)

        for index in _confirm({index: storage for index, storage in stamped.items() if is_stored[index]}, large):
            is_stored[index] = False
    except UnreachableError:
        # It has been logged.
        pass

    return is_stored


def add(storage: Storage, value: object) -> bool:
    """Store a small value if there is no entry, as atomically as the cache does it.

    Returns:
        Whether it was stored.

    Raises:
        CacheRefusedError: The cache neither stored it nor has anything else.
        Exception: The cache failed, or the value can't be pickled or encrypted.
    """
    if not storage.options.settle_expiration(value) or is_over(timeout := storage.options.get_timeout()):
        return False

    key = storage.entry.full_key
    older = [each.entry.full_key for each in storage.get_older()]

    if older and _fetch(storage, older):
        return False

    if isinstance(storage, StampedStorage):
        stamp([storage])

    stored = storage.close(value, VALUE)

    # An entry may expire between the two questions. Then it can be added.
    for _ in range(2):
        try:
            is_added = storage.options.get_cache().add(key, stored, timeout=timeout)
        except Exception as e:
            raise tell_error(e, storage.entry.name) from None

        if is_added:
            # Beside a chunk of an older entry, a decimal text would be taken for its count.
            if _find_counts({0: (storage, value)}):
                delete_keys(storage, storage.entry.chunk_keys(0, 1))

            if isinstance(storage, StampedStorage):
                storage.store_state()

            return True

        if key in _fetch(storage, [key]):
            return False

    raise CacheRefusedError(
        f'The cache did not store "{key}", and has nothing else for it. A server may be down, or the value too large.'
    )


def expire(storage: StampedStorage, *, large: bool | None) -> bool:
    """Let an entry that has a fence expire now, by its policy.

    Args:
        storage: The entry.
        large: Whether it is to be a large one, None for either.

    Returns:
        Whether there was something.

    Raises:
        CacheRefusedError: The cache did not store the mark.
        Exception: The cache failed.
    """
    if not contains(storage, large=large, allow_stale=True, allow_pending=True):
        return False

    cache = storage.options.get_cache()
    keys = [each.entry.make_fence_key() for each in (storage, *storage.get_older())]
    found = _fetch(storage, keys)
    now = get_milliseconds()
    token = make_token()
    marks = {key: make_expired(found.get(key, ""), token, now) for key in keys}
    set_marks(cache, marks, storage.get_rest(now), storage.entry.name)

    return True


def mark_deleted(storages: Sequence[Storage]) -> None:
    """Let no call keep in these entries what it began to compute before.

    To be called before the entries are deleted. It holds for calls that have tags.

    Raises:
        CacheRefusedError: The cache did not store the marks.
        Exception: The cache failed.
    """
    marks = {}

    for storage in storages:
        token = make_token()

        # A process that doesn't know the newest encryption key yet looks under an older one.
        for each in (storage, *storage.get_older()):
            marks[each.entry.make_fence_key()] = token

    if marks:
        set_marks(storages[0].options.get_cache(), marks, FENCE_SECONDS, storages[0].entry.name)


def delete_batch(storages: Sequence[Storage], *, large: bool | None) -> list[bool]:
    """Remove entries with their chunks, and their copies under older encryption keys.

    Args:
        storages: The entries.
        large: Whether they are large ones, None for whatever is there.

    Returns:
        Of each, whether there was something.

    Raises:
        CacheRefusedError: The cache did not delete a key.
        Exception: The cache failed.
    """
    if not storages:
        return []

    # Older ones first: a call that misses the entry copies what it finds under an older key.
    older = [(index, each) for index, storage in enumerate(storages) for each in storage.get_older()]
    newest = list(enumerate(storages))
    copies = older + newest
    found = _fetch(storages[0], [storage.entry.full_key for _, storage in copies])

    for step in (older, newest):
        delete_keys(storages[0], [key for _, storage in step for key in get_main_keys(storage, large)])

    if large is not False:
        heads: dict[int, tuple[Storage, Any]] = {}

        for number, (_, storage) in enumerate(copies):
            head = found.get(storage.entry.full_key, UNSET)

            if head is not UNSET and head is not UNREADABLE:
                heads[number] = (storage, _decode_quietly(storage, head))

        counts = _parse_counts(heads) if large else _find_counts(heads)
        delete_keys(
            storages[0],
            [
                key
                for number, count in counts.items()
                for key in heads[number][0].entry.chunk_keys(0, min(count, _MOST_CHUNKS))
            ],
        )

    was_there = {index for index, storage in copies if storage.entry.full_key in found}

    return [index in was_there for index in range(len(storages))]


def set_marks(cache: BaseCache, marks: dict[str, str], timeout: int | None, name: str) -> None:
    """Store tokens that make entries invalid, and make sure that they are stored.

    Args:
        cache: The cache.
        marks: The tokens by their full keys.
        timeout: For how many seconds, None for ever.
        name: The name in the event if the cache fails.

    Raises:
        CacheRefusedError: The cache did not store one.
        Exception: The cache failed.
    """
    for part in cut(marks):
        group = {key: marks[key] for key in part}

        for _ in range(_MOST_TRIES):
            try:
                refused: Any = cache.set_many(group, timeout=timeout)

                if not refused and not tells_refusals(cache):
                    found = cache.get_many(part)
                    # Another process may set a mark at the same time, so that a wrong one proves nothing at first.
                    refused = [key for key in part if found.get(key) != marks[key]]
            except Exception as e:
                raise tell_error(e, name) from None

            if not refused:
                break
        else:
            raise CacheRefusedError(
                f"The cache did not store {len(refused)} of {len(part)} marks, such as {refused[0]!r}. Is one of its "
                f"servers down? Invalidate again once it is back: old entries may be in it."
            )


def delete_keys(storage: Storage, keys: Iterable[str]) -> None:
    """Delete full keys from an entry's cache.

    Raises:
        CacheRefusedError: The cache did not delete a key.
        Exception: The cache failed.
    """
    for part in cut(keys, _DELETE_SIZE):
        try:
            cache = storage.options.get_cache()

            if not isinstance(unwrap(cache), BaseMemcachedCache):
                cache.delete_many(part)
                continue

            # With pymemcache, deleting from a server that is down looks like deleting a key that isn't there. Only
            # set_many() tells. memcached drops at once what is stored with this timeout.
            refused = cache.set_many(dict.fromkeys(part, ""), timeout=0)
        except Exception as e:
            raise tell_error(e, storage.entry.name) from None

        if refused:
            raise CacheRefusedError(
                f"The cache did not delete {len(refused)} of {len(part)} keys, such as {refused[0]!r}. Is one of its "
                f"servers down? Delete them again once it is back: old entries may be in it."
            )


def get_main_keys(storage: Storage, large: bool | None = None) -> Iterator[str]:
    """Yield the full keys of all that belongs to an entry but its chunks.

    Args:
        storage: The entry.
        large: Whether it is a large one, None for whatever is there.
    """
    yield storage.entry.full_key

    if storage.entry.encryption_key is None and not large:
        yield storage.entry.make_state_key()


def _contains_stamped(storage: StampedStorage, found: dict[str, Any], large: bool | None) -> bool:
    if large is not False:
        count = storage.open_head(found, COUNT)
        heads: dict[int, tuple[Storage, Any]] = {0: (storage, count)}
        # An empty iterable has a chunk, too, for its record.
        index = _find_counts(heads).get(0, 0) - 1

        if index >= 0:
            (key,) = storage.entry.chunk_keys(index, index + 1)
            last: Any = _fetch(storage, [key]).get(key)

            return _is_chunk(last) and storage.accepts(get_record([last]))

    return large is not True and storage.open_head(found, VALUE) is not UNSET


def _load_round(storages: dict[int, Storage], large: bool) -> tuple[dict[int, Any], list[int]]:
    """Return the values that are there, and the indices of those entries that are absent."""
    (first, *_) = storages.values()
    heads: dict[int, tuple[Storage, Any]] = {}
    absent = []

    try:
        # The record of a large entry is beside its last chunk.
        found = _fetch(
            first, [key for each in storages.values() for key in (each.depends_on if large else each.head_keys)]
        )
    except Exception as e:
        raise _log_fetch(first, e) from None

    for index, storage in storages.items():
        if storage.entry.full_key not in found:
            logger.debug('Cache miss for key "%s"', storage.entry.full_key)
            absent.append(index)
            continue

        value: Any = UNSET

        try:
            value = storage.open_head(found, COUNT if large else VALUE)
        except Exception as e:
            # It has been logged.
            let_pass(e)

        if value is not UNSET:
            heads[index] = (storage, value)

    if large:
        return _load_chunks(heads), absent

    try:
        counts = _find_counts(heads)
    except Exception as e:
        raise _log_fetch(first, e) from None

    return {index: value for index, (_, value) in heads.items() if index not in counts}, absent


def _confirm(storages: dict[int, StampedStorage], large: bool) -> Iterator[int]:
    """Store the records that lie beside their values, and look at the stamps once more.

    Returns:
        The indices of those entries that are not valid any more. They are removed.
    """
    if not storages:
        return

    records: dict[int | None, dict[str, object]] = {}

    if not large:
        for storage in storages.values():
            records.setdefault(storage.get_state_timeout(), {}).update(storage.state)

    refused = set()

    try:
        for timeout, group in records.items():
            refused |= _set_many(next(iter(storages.values())), group, timeout) if group else set()

        outdated = find_outdated(list(storages.values()))
    except Exception as e:
        # It has been logged. Nobody knows whether they are valid.
        outdated = list(storages.values())
        let_pass(e)

    for index, storage in storages.items():
        if storage in outdated or not refused.isdisjoint(storage.state):
            storage.discard()
            yield index


class _Chunks:
    """A large entry whose chunks are being fetched."""

    def __init__(self, storage: Storage, count: str) -> None:
        self.storage = storage
        self.text = count
        self.count = parse_count(count)
        self.stored: list[Any] = []

    def take_keys(self, most: int) -> list[str]:
        """Return the keys of the next chunks."""
        start = len(self.stored)

        return self.storage.entry.chunk_keys(start, min(start + most, self.count))


def _load_chunks(heads: dict[int, tuple[Storage, Any]]) -> dict[int, Any]:
    values: dict[int, Any] = {}
    waiting: list[tuple[int, _Chunks]] = []

    for index, (storage, count) in heads.items():
        try:
            waiting.append((index, _Chunks(storage, count)))
        except ForeignValueError as e:
            storage.log_unreadable(e)

    while waiting:
        # As many entries as have their next chunks in one call.
        parts: list[tuple[int, _Chunks, list[str]]] = []
        room = FETCH_SIZE

        for index, chunks in waiting:
            if room == 0:
                break

            keys = chunks.take_keys(room)
            room -= len(keys)
            parts.append((index, chunks, keys))

        del waiting[: len(parts)]
        wanted = [key for _, _, keys in parts for key in keys]

        try:
            found = _fetch(parts[0][1].storage, wanted) if wanted else {}
        except Exception as e:
            raise _log_fetch(parts[0][1].storage, e) from None

        again: list[tuple[int, _Chunks]] = []

        for index, chunks, keys in parts:
            missing = [key for key in keys if found.get(key, UNREADABLE) is UNREADABLE]

            if missing:
                logger.debug("Cache miss for key(s): %s.", ", ".join(missing))
                chunks.storage.log_unreadable(MissingChunkError(f"{len(missing)} of {chunks.count} chunks are missing"))
                continue

            chunks.stored += map(found.__getitem__, keys)

            if len(chunks.stored) < chunks.count:
                again.append((index, chunks))
                continue

            try:
                items = chunks.storage.open_items(chunks.text, chunks.stored)

                if items is not UNSET:
                    values[index] = chunks.storage.take_only_item(items)
            except UnreachableError:
                raise
            except Exception as e:
                # It has been logged.
                let_pass(e)

        waiting[:0] = again

    return values


def _prepare(storages: dict[int, Storage], values: Sequence[object], large: bool) -> None:
    """Remove what must not be there once the values are stored, or while they are."""
    if not storages:
        return

    (first, *_) = storages.values()
    keys = [older.entry.full_key for storage in storages.values() for older in storage.get_older()]

    if large:
        # Readers must never see chunks of two writes mixed.
        keys += [storage.entry.full_key for storage in storages.values()]
    else:
        # Beside a chunk of an older entry, a decimal text would be taken for its count.
        heads = {index: (storage, values[index]) for index, storage in storages.items()}
        keys += [heads[index][0].entry.chunk_keys(0, 1)[0] for index in _find_counts(heads)]
        keys += [
            storage.entry.full_key
            for storage in storages.values()
            if isinstance(storage, StampedStorage) and storage.may_outlive_its_record
        ]

    delete_keys(first, keys)


def _store_group(
    storages: dict[int, Storage], values: Sequence[object], timeout: int | None, large: bool
) -> Iterator[int]:
    """Store the values of entries that expire at the same time.

    Returns:
        The indices of those entries that the cache has taken.

    Raises:
        UnreachableError: The cache can't be reached.
    """
    (first, *_) = storages.values()
    contents = _store_chunks(storages, values, timeout) if large else {index: values[index] for index in storages}
    heads: dict[str, object] = {}

    for index, content in contents.items():
        try:
            heads[storages[index].entry.full_key] = storages[index].close(content, COUNT if large else VALUE)
        except Exception as e:
            # It has been logged.
            let_pass(e)

    refused = _set_many(first, heads, timeout) if heads else set()

    for index in contents:
        key = storages[index].entry.full_key

        if key in heads and key not in refused:
            yield index


def _store_chunks(storages: dict[int, Storage], values: Sequence[object], timeout: int | None) -> dict[int, str]:
    """Store the chunks of large values, 64 in one call, of whatever entries they are.

    Returns:
        The counts of those entries whose chunks are all stored.

    Raises:
        UnreachableError: The cache can't be reached.
    """
    (first, *_) = storages.values()
    counts: dict[int, str] = {}
    failed: set[int] = set()
    waiting: dict[str, object] = {}
    owners: dict[str, int] = {}

    def flush() -> None:
        if waiting:
            failed.update(owners[key] for key in _set_many(first, waiting, timeout))
            waiting.clear()
            owners.clear()

    for index, storage in storages.items():
        count = 0

        try:
            for key, stored in _make_chunks(storage, values[index]):
                waiting[key] = stored
                owners[key] = index
                count += 1

                if len(waiting) == FETCH_SIZE:
                    flush()

                if index in failed:
                    break
        except UnreachableError:
            raise
        except Exception as e:
            # It has been logged.
            let_pass(e)
            failed.add(index)

        counts[index] = str(count)

    flush()

    return {index: count for index, count in counts.items() if index not in failed}


def _make_chunks(storage: Storage, value: object) -> Iterator[tuple[str, object]]:
    """Yield the full keys of the chunks of a large value, and what is to be stored under them."""
    entry = storage.entry
    write_id = storage.make_write_id()
    index = 0

    try:
        writer = storage.make_writer()
        writer.write(value)
        writer.finish()
        full = writer.take_full_chunks()
        last = writer.last_chunk()
    except UnstampedError:
        # It has been logged.
        raise
    except Exception as e:
        let_pass(e)
        logger.error('Failed to serialize data for cache key "%s": %s', entry.full_key, e)
        raise

    while full:
        part, full = full[:FETCH_SIZE], full[FETCH_SIZE:]
        yield from storage.encode_chunks(index, part, write_id).items()
        index += len(part)

    stored = storage.encode_last_chunk(last, index, write_id)

    if stored is None:
        return

    key, next_key = entry.chunk_keys(index, index + 2)

    if is_full(stored[0]):
        # A chunk that a longer entry left behind would be taken for the end of this one.
        try:
            delete_keys(storage, [next_key])
        except Exception as e:
            log_failure(logger, e, 'Error deleting cache key "%s": %s', next_key, e)
            raise

    yield key, stored


def _set_many(storage: Storage, stored: dict[str, object], timeout: int | None) -> set[str]:
    """Store something under each full key. Return the keys for which the cache refused it, which is logged.

    Raises:
        UnreachableError: The cache can't be reached.
    """
    refused: set[str] = set()
    error: Exception | None = None

    try:
        refused = set(storage.options.get_cache().set_many(stored, timeout=timeout) or ())
    except Exception as e:
        if len(stored) == 1 or is_unreachable(e):
            log_failure(logger, e, "Error setting data in cache for keys %r: %s", sorted(stored), e)

        error = tell_error(e, storage.entry.name)

    if isinstance(error, UnreachableError):
        raise error

    if error is not None:
        if len(stored) == 1:
            return set(stored)

        # The error doesn't tell which of them it was.
        return {key for key in stored if _set_many(storage, {key: stored[key]}, timeout)}

    if refused:
        logger.error(
            "Error setting data in cache for keys %r: the cache refused them. A server may be down, or a value too "
            "large.",
            sorted(refused),
        )

    return refused


def _fetch(storage: Storage, keys: Iterable[str]) -> dict[str, Any]:
    """Return what is stored under full keys, UNREADABLE where the client can't unpickle it.

    Raises:
        Exception: The cache failed.
    """
    try:
        return fetch(storage.options.get_cache(), keys)
    except Exception as e:
        raise tell_error(e, storage.entry.name) from None


def _log_fetch(storage: Storage, error: Exception) -> Exception:
    log_failure(logger, error, 'Error fetching data from cache for key "%s": %s', storage.entry.full_key, error)

    return UnreachableError(str(error))


def _decode_quietly(storage: Storage, stored: object) -> object:
    """Return the value or count, None if it can't be read."""
    if storage.entry.encryption_key is None:
        return stored

    try:
        return storage.entry.peek(stored)
    except Exception as e:
        let_pass(e)

        return None


def _parse_counts(heads: dict[int, tuple[Storage, Any]]) -> dict[int, int]:
    """Return the numbers of chunks, where a head can be one."""
    counts: dict[int, int] = {}

    for index, (_, value) in heads.items():
        try:
            counts[index] = parse_count(value)
        except ForeignValueError:
            continue

    return counts


def _find_counts(heads: dict[int, tuple[Storage, Any]]) -> dict[int, int]:
    """Return the numbers of chunks, where a head is one: there is a first chunk beside it.

    Raises:
        Exception: The cache failed.
    """
    counts = _parse_counts(heads)
    first_keys = {index: heads[index][0].entry.chunk_keys(0, 1)[0] for index in counts}
    found: dict[str, Any] = {}

    for keys in cut(first_keys.values()):
        found.update(_fetch(heads[next(iter(counts))][0], keys))

    return {index: count for index, count in counts.items() if _is_chunk(found.get(first_keys[index]))}


def _is_chunk(stored: Any) -> bool:
    return isinstance(stored, (list, tuple)) and bool(stored) and isinstance(stored[0], bytes)
