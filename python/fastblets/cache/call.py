"""One call of a memoize function: reading the entry, storing what was missing, and the lock around that."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeVar

from fastblets.cache.entry import UNSET, Entry, ForeignValueError
from fastblets.cache.errors import UnreachableError
from fastblets.cache.failures import as_cache_error, is_unreachable, let_pass, log_failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any

    from fastblets import _native
    from fastblets.protect.locks import CacheLock


_T = TypeVar("_T")


logger: logging.Logger = logging.getLogger("djblets.cache.backend")


class MemoizeCall:
    """A call of a memoize function on an entry, with the lock that it was given.

    Once the cache can't be reached, the call asks nothing more of it, since each question would take the client's
    timeout. Only a lock that the call holds is released.
    """

    __slots__ = ("_failure", "_lock", "_releases_lock", "entry", "overwrite")

    entry: Entry
    overwrite: bool

    def __init__(self, entry: Entry, key: str | Sequence[str], lock: CacheLock | None, overwrite: bool) -> None:
        """Take entry and lock. A lock without a key gets one.

        Args:
            entry: The entry.
            key: Its base key.
            lock: The lock, if there is one.
            overwrite: Whether to store a new value even if there is one.
        """
        self.entry = entry
        self.overwrite = overwrite
        self._lock = lock = lock or None
        self._releases_lock = False
        #: Why the last look failed, UnreachableError for good. Not the exception: with its traceback it would keep
        #: all that was read of the entry, and in a circle.
        self._failure: type[Exception] | None = None

        if lock is not None and not lock.full_cache_key:
            lock.full_cache_key = entry.make_key(f"_lock_:{key}" if isinstance(key, str) else ("_lock_", *key))

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
                self.discard(older)

            return UNSET

        value = self._look(load)

        if value is not UNSET:
            return value

        lock = self._lock

        # A lock that is held already is the caller's own business. Djblets takes no lock to replace what is no entry at
        # all, and its tests insist on it.
        if (
            lock is not None
            and not _is_held_by_caller(lock)
            and self._failure is not ForeignValueError
            and self._failure is not UnreachableError
        ):
            value = self._read_locked(lock, load)

        # What is there and can't be read is newer than anything under an older key.
        if value is UNSET and self._failure is None and self.entry.older_keys:
            value = self._take_over(load, store)

        if value is UNSET and logger.isEnabledFor(logging.DEBUG):
            logger.debug('Cache miss for key "%s"', self.entry.full_key)

        return value

    def store(self, value: _T) -> _T:
        """Store a small value, if it can be done, and return it."""
        if self._failure is not UnreachableError:
            try:
                self.entry.store(value)
            except Exception as e:
                # It has been logged, and the caller has the value.
                self.note(e)

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
        if self.is_cut_off:
            yield from items
            return

        try:
            write = _LargeWrite(self, self.entry.make_writer())
        except Exception as e:
            self.fail_to_store(e)
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
        """Let the lock end later, if it is held. An error is logged: to store goes on.

        Raises:
            UnreachableError: Nothing can be stored any more.
        """
        lock = self._lock

        if lock is not None and lock.locked():
            try:
                lock.update_expiration()
            except Exception as e:
                log_failure(logger, e, "Error extending cache lock %r: %s", lock, e)

                if is_unreachable(e):
                    raise as_cache_error(e) from None

    def release_lock(self) -> None:
        """Release the lock, if this call acquired it. An error is logged: the lock ends by itself.

        A lock that had ended before is logged as well.
        """
        lock = self._lock

        if lock is None or not self._releases_lock or not lock.locked():
            return

        try:
            lock.release()
        except Exception as e:
            if self.is_cut_off and is_unreachable(e):
                # The error itself has been logged.
                logger.warning("Cache lock %r is left to end by itself, as the cache can't be reached: %s", lock, e)
            else:
                log_failure(logger, e, "Error releasing cache lock %r: %s", lock, e)
        else:
            _ask(lock, "warn_if_lost")

    @property
    def is_cut_off(self) -> bool:
        """Whether the cache can't be reached, and is to be asked nothing more."""
        return self._failure is UnreachableError

    def discard(self, entry: Entry) -> None:
        """Remove an entry, if it can be done. If not, that has been logged."""
        if not self.is_cut_off and not entry.discard():
            self._failure = UnreachableError

    def note(self, error: Exception) -> None:
        """Note an error of the cache that has been logged.

        Raises:
            Exception: The error, if it is none of the cache's but a time limit's.
        """
        let_pass(error)

        if isinstance(error, UnreachableError):
            self._failure = UnreachableError

    def fail_to_store(self, error: Exception) -> None:
        """Note and log that a large entry could not be stored.

        Raises:
            Exception: As for :meth:`note`.
        """
        self.note(error)
        logger.error(
            'Failed to store or retrieve large or iterable cache data for key "%s". Newly-generated data will be '
            "returned but not cached. Error = %s",
            self.entry.full_key,
            error,
        )

    def _look(self, load: Callable[[Entry], Any]) -> Any:
        try:
            return load(self.entry)
        except Exception as e:
            # It has been logged.
            let_pass(e)
            self._failure = type(e)

        return UNSET

    def _look_again(self, load: Callable[[Entry], Any]) -> Any:
        if self.is_cut_off:
            return UNSET

        self._failure = None

        return self._look(load)

    def _take_over(self, load: Callable[[Entry], Any], store: Callable[[MemoizeCall, Any], Any]) -> Any:
        for older in self.entry.get_older():
            value: Any = UNSET

            try:
                value = load(older)
            except Exception as e:
                # It has been logged.
                self.note(e)

            if value is not UNSET:
                # Else it would come back when the new one is removed.
                self.discard(older)

                return store(self, value)

            if self.is_cut_off:
                break

        return UNSET

    def _read_locked(self, lock: CacheLock, load: Callable[[Entry], Any]) -> Any:
        value: Any = UNSET

        def is_needless() -> bool:
            nonlocal value
            value = self._look_again(load)

            return value is not UNSET or self.is_cut_off

        # Said before, since an exception may come in right behind the acquisition.
        self._releases_lock = True

        try:
            # Locks of Djblets' own class can't stop waiting before they have been acquired.
            acquire_unless = getattr(lock, "acquire_unless", None)

            if acquire_unless is None:
                lock.acquire()
            else:
                acquire_unless(is_needless)
        except Exception as e:
            if _ask(lock, "was_interrupted_asleep"):
                self._lock = None
                raise

            self.note(as_cache_error(e))

            if isinstance(e, TimeoutError) and not self.is_cut_off:
                logger.error("Timeout waiting on distributed cache lock %r", lock)
            else:
                log_failure(logger, e, "Error acquiring cache lock %r: %s", lock, e)
                self._lock = None

                return value

        if not lock.locked():
            # From here on it may be another call's that was given the same object.
            self._lock = None

        # While waiting, another process may have stored the value.
        return self._look_again(load) if value is UNSET else value


def _is_held_by_caller(lock: CacheLock) -> bool:
    # If another thread holds it, acquire() says that it can't be shared.
    return lock.locked() and not _ask(lock, "is_held_by_other_thread")


def _ask(lock: CacheLock, name: str) -> Any:
    # Djblets' own class has none of these methods.
    method = getattr(lock, name, None)

    return None if method is None else method()


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
            self._call.discard(self._entry)

    def _attempt(self, step: Callable[[], None]) -> None:
        if not self._failed:
            try:
                step()
            except Exception as e:
                self._fail(e)

    def _fail(self, error: Exception) -> None:
        self._failed = True
        self._call.fail_to_store(error)

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
