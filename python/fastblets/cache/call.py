"""One call of a memoize function: reading the entry, storing what was missing, and the lock around that."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from fastblets.cache.entry import UNSET, Entry, ForeignValueError
from fastblets.cache.options import check_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any

    from fastblets import _native
    from fastblets.protect.locks import CacheLock


_T = TypeVar("_T")


logger: logging.Logger = logging.getLogger("djblets.cache.backend")


class MemoizeCall:
    """A call of a memoize function on an entry, with the lock that it was given."""

    __slots__ = ("_error", "_lock", "_releases_lock", "entry", "overwrite")

    entry: Entry
    overwrite: bool

    def __init__(self, entry: Entry, key: str | Sequence[str], lock: CacheLock | None, overwrite: bool) -> None:
        """Take entry and lock. A lock without a key gets one.

        Args:
            entry: The entry.
            key: Its base key.
            lock: The lock, if there is one.
            overwrite: Whether to store a new value even if there is one.

        Raises:
            TypeError: The lock is none.
        """
        self.entry = entry
        self.overwrite = overwrite

        if lock is not None:
            check_lock(lock)

        self._lock = lock = lock or None
        self._releases_lock = False
        #: Why the entry that is there can't be read, if it is there.
        self._error: Exception | None = None

        if lock is not None and not lock.full_cache_key:
            # Joined, since a subclass of str may be formatted into other characters than its own.
            lock.full_cache_key = entry.make_key(
                "".join(("_lock_:", key)) if isinstance(key, str) else ("_lock_", *key)
            )

    def read(self, load: Callable[[Entry], Any], store: Callable[[MemoizeCall, Any], Any]) -> Any:
        """Return what is found, or UNSET; then the lock is held, if there is one that could be had.

        Whatever goes wrong has been logged, and counts as not found. So does what is to be overwritten.

        Args:
            load: The method of the entry that loads it.
            store: The method that stores what is found under an older encryption key, and returns it.
        """
        if self.overwrite:
            # It would come back as soon as the new one is gone.
            for older in self.entry.get_older():
                older.discard()

            return UNSET

        value = self._look(load)

        if value is not UNSET:
            return value

        lock = self._lock

        # A lock that is held already is the caller's own business. Djblets takes no lock to replace what is no entry at
        # all, and its tests insist on it.
        if lock is not None and not lock.locked() and not isinstance(self._error, ForeignValueError):
            value = self._read_locked(lock, load)

        # What is there and can't be read is newer than anything under an older key.
        if value is UNSET and self._error is None and self.entry.older_keys:
            value = self._take_over(load, store)

        if value is UNSET and logger.isEnabledFor(logging.DEBUG):
            logger.debug('Cache miss for key "%s"', self.entry.full_key)

        return value

    def store(self, value: _T) -> _T:
        """Store a small value, if it can be done, and return it."""
        # suppress() would take longer than all else here.
        try:  # noqa: SIM105
            self.entry.store(value)
        except Exception:
            # It has been logged, and the caller has the value.
            pass

        return value

    def store_only_item(self, value: _T) -> _T:
        """Store the one item of a large entry, if it can be done, and return it."""
        for _ in self.store_items([value]):
            pass

        return value

    def store_items(self, items: Iterable[_T]) -> Iterator[_T]:
        """Yield the items, each before the next one is asked for, and store them on the way.

        Nothing that goes wrong with storing them stops the items: it has been logged. Unless everything was stored,
        the entry is missing afterwards; if the generator is not run to its end, too.

        Raises:
            Exception: What the items raised.
        """
        try:
            write = _LargeWrite(self, self.entry.make_writer())
        except Exception as e:
            self.log_not_stored(e)
            yield from items
            return

        try:
            for item in items:
                has_full_chunks = write.add(item)
                yield item

                if has_full_chunks:
                    write.store_full_chunks()

            write.finish()
        finally:
            write.close()

    def extend_lock(self) -> None:
        """Let the lock end later, if it is held. An error is logged: to store goes on."""
        lock = self._lock

        if lock is not None and lock.locked():
            try:
                lock.update_expiration()
            except Exception as e:
                logger.exception("Error extending cache lock %r: %s", lock, e)

    def release_lock(self) -> None:
        """Release the lock, if this call acquired it. An error is logged: the lock ends by itself."""
        lock = self._lock

        if self._releases_lock and lock is not None and lock.locked():
            try:
                lock.release()
            except Exception as e:
                logger.exception("Error releasing cache lock %r: %s", lock, e)

    def log_not_stored(self, error: Exception) -> None:
        """Log that a large entry could not be stored."""
        logger.error(
            'Failed to store or retrieve large or iterable cache data for key "%s". Newly-generated data will be '
            "returned but not cached. Error = %s",
            self.entry.full_key,
            error,
        )

    def _look(self, load: Callable[[Entry], Any]) -> Any:
        self._error = None

        try:
            return load(self.entry)
        except Exception as e:
            # It has been logged.
            self._error = e

        return UNSET

    def _take_over(self, load: Callable[[Entry], Any], store: Callable[[MemoizeCall, Any], Any]) -> Any:
        for older in self.entry.get_older():
            value: Any = UNSET

            # An error has been logged.
            with suppress(Exception):
                value = load(older)

            if value is not UNSET:
                # Else it would come back when the new one is removed.
                older.discard()

                return store(self, value)

        return UNSET

    def _read_locked(self, lock: CacheLock, load: Callable[[Entry], Any]) -> Any:
        value: Any = UNSET

        def is_needless() -> bool:
            nonlocal value
            value = self._look(load)

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
        return self._look(load) if value is UNSET else value


class _LargeWrite:
    """One attempt to store a large entry. Its first error ends it, and is logged; the items go on.

    Readers never see two generations mixed: the count is removed before the first chunk is written over, and stored
    last.
    """

    def __init__(self, call: MemoizeCall, writer: _native.LargeWriter) -> None:
        self._call = call
        self._entry = call.entry
        self._writer = writer
        self._id = call.entry.make_write_id()
        self._failed = False
        self._chunk_count = 0
        #: Whether there may be a count that would be wrong if it ended here.
        self._dirty = call.overwrite

    def add(self, item: object) -> bool:
        """Pickle an item, and return whether there are full chunks to store."""
        if not self._failed:
            try:
                return self._writer.write(item)
            except Exception as e:
                self._fail(e)

        return False

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

    def _attempt(self, step: Callable[[], None]) -> None:
        if not self._failed:
            try:
                step()
            except Exception as e:
                self._fail(e)

    def _fail(self, error: Exception) -> None:
        self._failed = True
        self._call.log_not_stored(error)

    def _store_full_chunks(self) -> None:
        chunks = self._writer.take_full_chunks()

        if chunks:
            self._begin()
            self._entry.store_chunks(self._chunk_count, chunks, self._id)
            self._chunk_count += len(chunks)
            self._call.extend_lock()

    def _finish(self) -> None:
        self._writer.finish()
        self._store_full_chunks()
        self._begin()
        self._chunk_count = self._entry.store_last_chunk(self._chunk_count, self._writer.last_chunk(), self._id)
        self._call.extend_lock()
        self._entry.store_count(self._chunk_count)
        self._dirty = False

    def _begin(self) -> None:
        if self._chunk_count == 0:
            self._dirty = True
            self._entry.delete()
