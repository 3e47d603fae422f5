"""When to look for an entry, wait for a lock, compute and store.

What is looked for and waited for stands once, in :meth:`Memoize.find`: a generator that makes its cache calls itself and
yields only what to wait for. A driver such as :func:`wait_for` does the waiting. The producer is called between these
steps, by the public functions, so that it runs in its caller's own context.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from fastblets import _native
from fastblets.cache.errors import ForeignValueError
from fastblets.cache.options import UNSET
from fastblets.cache.storage import LargeWrite, Storage

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from typing import Any, Final, TypeVar

    _T = TypeVar("_T")


logger: logging.Logger = logging.getLogger("djblets.cache.backend")


class Lock(Protocol):
    """What the memoize functions need of a lock: :class:`~fastblets.protect.locks.CacheLock`, or Djblets' own."""

    full_cache_key: str

    def acquire(self) -> bool:
        """Acquire the lock, waiting for it."""

    def locked(self) -> bool:
        """Return whether this object holds the lock."""

    def release(self) -> None:
        """Release the lock."""

    def update_expiration(self) -> None:
        """Let the lock end later."""


class Form(Protocol):
    """How a value is loaded and kept: as a small value, as one large one, or as items."""

    def load(self, storage: Storage) -> Any:
        """Return what is stored, UNSET if nothing is. Errors are logged and raised."""

    def keep(self, call: Memoize, value: Any) -> Any:
        """Store a computed value, if that is possible, and return what the caller gets."""


class SmallForm:
    """A value in one item of the cache."""

    def load(self, storage: Storage) -> Any:
        """Return the value, UNSET if there is none."""
        return storage.load()

    def keep(self, call: Memoize, value: _T) -> _T:
        """Store the value and return it."""
        return store_small(call.storage, value)


class LargeForm:
    """A value in chunks."""

    def load(self, storage: Storage) -> Any:
        """Return the value, UNSET if there is none."""
        return storage.load_only_item()

    def keep(self, call: Memoize, value: _T) -> _T:
        """Store the value and return it."""
        for _ in call.store_items([value]):
            pass

        return value


class ItemsForm:
    """Items in chunks."""

    def load(self, storage: Storage) -> Any:
        """Return an iterator over the items, UNSET if there is no entry."""
        return storage.load_items()

    def keep(self, call: Memoize, value: Iterable[_T]) -> Iterator[_T]:
        """Yield the items, and store them on the way."""
        return call.store_items(value)


SMALL: Final = SmallForm()
LARGE: Final = LargeForm()
ITEMS: Final = ItemsForm()


class Wait:
    """A lock to wait for.

    Attributes:
        lock: The lock.
        is_needless: Returns whether the wait has become needless. To be called when the lock has changed hands.
    """

    __slots__ = ("is_needless", "lock")

    def __init__(self, lock: Lock, is_needless: Callable[[], bool]) -> None:
        """Take both."""
        self.lock = lock
        self.is_needless = is_needless


class Memoize:
    """One call of a memoize function: its entry, the entry's form and the lock that the caller gave.

    Attributes:
        storage: The entry in the cache.
    """

    __slots__ = ("_error", "_form", "_lock", "_overwrite", "_releases_lock", "storage")

    storage: Storage

    def __init__(self, storage: Storage, form: Form, lock: Lock | None, overwrite: bool) -> None:
        """Take the parts of the call. A lock without a key gets one.

        Args:
            storage: The entry in the cache.
            form: How the entry's value is loaded and kept.
            lock: The lock, None without one.
            overwrite: Whether to compute even if there is an entry.
        """
        self.storage = storage
        self._form = form
        self._lock = lock = lock or None
        self._overwrite = overwrite
        self._releases_lock = False
        #: Why the entry can't be read, if it is there.
        self._error: Exception | None = None

        if lock is not None and not lock.full_cache_key:
            lock.full_cache_key = storage.entry.make_lock_key()

    def find(self) -> Generator[Wait, None, Any]:
        """Return the stored value, UNSET on a miss. On a miss, the lock is held if it could be acquired.

        Whatever goes wrong is logged and counts as a miss, and so does an entry that is to be overwritten.

        Yields:
            A lock to wait for. The driver throws into the generator what acquiring it raises.
        """
        if self._overwrite:
            # Otherwise the entry under an older key would be served again once the new one expires.
            for older in self.storage.get_older():
                older.discard()

            return UNSET

        value = self._look()

        if value is not UNSET:
            return value

        lock = self._lock

        # A lock that the caller holds already stays the caller's. Djblets takes no lock to replace a foreign value, and
        # its tests insist on it.
        if lock is not None and not lock.locked() and not isinstance(self._error, ForeignValueError):
            value = yield from self._find_locked(lock)

        # An unreadable entry is newer than any entry under an older key.
        if value is UNSET and self._error is None:
            value = self._migrate_from_older_key()

        if value is UNSET:
            log_miss(self.storage)

        return value

    def keep(self, value: Any) -> Any:
        """Store a computed value, if that is possible, and return what the caller gets."""
        return self._form.keep(self, value)

    def store_items(self, items: Iterable[_T]) -> Iterator[_T]:
        """Yield the items, each before the next one is asked for, and store them on the way.

        Errors of storing are logged and do not stop the items. Unless everything was stored, the entry is missing
        afterwards; the same holds if the generator is not run to its end.

        Raises:
            Exception: What the items raised.
        """
        storage = self.storage

        try:
            write = LargeWrite(storage, overwrite=self._overwrite, extend_lock=self._extend_lock)
        except Exception as e:
            storage.log_not_stored(e)
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

    def release_lock(self) -> None:
        """Release the lock, if this call acquired it. An error is logged: the lock ends by itself."""
        lock = self._lock

        if self._releases_lock and lock is not None and lock.locked():
            try:
                lock.release()
            except Exception as e:
                logger.exception("Error releasing cache lock %r: %s", lock, e)

    def _look(self) -> Any:
        self._error = None

        try:
            return self._form.load(self.storage)
        except Exception as e:
            # It has been logged.
            self._error = e

        return UNSET

    def _find_locked(self, lock: Lock) -> Generator[Wait, None, Any]:
        value: Any = UNSET

        def is_needless() -> bool:
            nonlocal value
            value = self._look()

            return value is not UNSET

        # Set before acquiring: an interrupt may arrive right after it.
        self._releases_lock = True

        try:
            yield Wait(lock, is_needless)
        except TimeoutError:
            logger.error("Timeout waiting on distributed cache lock %r", lock)
        except Exception as e:
            logger.exception("Error acquiring cache lock %r: %s", lock, e)

            return value

        # While this call waited, another process may have stored the value.
        return self._look() if value is UNSET else value

    def _migrate_from_older_key(self) -> Any:
        for older in self.storage.get_older():
            value: Any = UNSET

            # An error has been logged.
            with suppress(Exception):
                value = self._form.load(older)

            if value is not UNSET:
                # Otherwise the older entry would be served again once the new one is removed.
                older.discard()

                return self.keep(value)

        return UNSET

    def _extend_lock(self) -> None:
        lock = self._lock

        if lock is not None and lock.locked():
            try:
                lock.update_expiration()
            except Exception as e:
                logger.exception("Error extending cache lock %r: %s", lock, e)


def wait_for(steps: Generator[Wait, None, _T]) -> _T:
    """Run a call's steps, blocking the thread where there is something to wait for.

    Returns:
        What the steps return.
    """
    try:
        wait = next(steps)

        while True:
            try:
                _acquire(wait)
            except Exception as e:
                wait = steps.throw(e)
            else:
                wait = next(steps)
    except StopIteration as e:
        result: _T = e.value

        return result


def _acquire(wait: Wait) -> None:
    # Locks of Djblets' own class can't stop waiting before they have been acquired.
    acquire_unless = getattr(wait.lock, "acquire_unless", None)

    if acquire_unless is None:
        wait.lock.acquire()
    else:
        acquire_unless(wait.is_needless)


def load_small(storage: Storage) -> Any:
    """Return a small value, UNSET on a miss. This is :meth:`Memoize.find` without lock, older keys and overwriting."""
    try:
        value = storage.load()
    except Exception:
        # It has been logged.
        value = UNSET

    if value is UNSET:
        log_miss(storage)

    return value


def store_small(storage: Storage, value: _T) -> _T:
    """Store a small value, if that is possible, and return it."""
    if isinstance(value, str) and len(value) >= _native.CACHE_CHUNK_SIZE:
        logger.warning(
            'Cache data for key "%s" (length %s) may be too big for the cache.',
            storage.entry.full_key,
            len(value),
        )

    # contextlib.suppress() would take longer than everything else here.
    try:  # noqa: SIM105
        storage.store(value)
    except Exception:
        # It has been logged, and the caller has the value.
        pass

    return value


def log_miss(storage: Storage) -> None:
    """Log that an entry is to be computed."""
    if logger.isEnabledFor(logging.DEBUG):
        logger.debug('Cache miss for key "%s"', storage.entry.full_key)
