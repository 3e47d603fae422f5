"""When to look for an entry, wait for a lock, compute and store.

:meth:`Memoize.look` is the first look, for which there is nothing to wait. After a miss, :meth:`Memoize.find` says once
what is looked for and waited for: a generator that makes its cache calls itself and yields only what to wait for. A
driver such as :func:`find` does the waiting. The producer is called between these steps, so that it runs in its
caller's own context.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Final, Generic, ParamSpec, Protocol, TypeVar

from django.core.cache import DEFAULT_CACHE_ALIAS

from fastblets import _native
from fastblets.cache.arguments import check_lock, compute
from fastblets.cache.computing import Computation, find_computing
from fastblets.cache.entry import COUNT
from fastblets.cache.errors import ForeignValueError, UnreachableError
from fastblets.cache.failures import as_cache_error, is_unreachable, let_pass, log_failure
from fastblets.cache.keys import find_max_key_bytes
from fastblets.cache.options import UNSET
from fastblets.cache.transactions import pending
from fastblets.signals import cache_event, is_telling

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from typing import Any

    from fastblets.cache.computing import Place
    from fastblets.cache.options import Options, Unset
    from fastblets.cache.storage import Storage


_P = ParamSpec("_P")
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
        if isinstance(value, str):
            warn_if_big(call.storage, value)

        return call.store_small(value)


class LargeForm:
    """A value in chunks."""

    def load(self, storage: Storage) -> Any:
        """Return the value, UNSET if there is none."""
        return storage.load_only_item()

    def keep(self, call: Memoize, value: _T) -> _T:
        """Store the value and return it."""
        if call.settle_expiration(value):
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


class Waiting(Protocol):
    """Something to wait for."""

    def block(self) -> Any:
        """Wait for it, and return what comes of it."""


class Wait:
    """A lock to wait for.

    Attributes:
        lock: The lock.
        is_needless: Returns whether the wait has become needless. To be called when the lock has changed hands.
    """

    __slots__ = ("is_needless", "lock")

    def __init__(self, lock: Lock, is_needless: Callable[[], bool]) -> None:
        """Take both."""
        self.lock: Lock = lock
        self.is_needless: Callable[[], bool] = is_needless

    def block(self) -> None:
        """Acquire the lock, blocking the thread, unless that becomes needless.

        Raises:
            Exception: The lock raised it.
        """
        # Locks of Djblets' own class can't stop waiting before they have been acquired.
        acquire_unless = getattr(self.lock, "acquire_unless", None)

        if acquire_unless is None:
            self.lock.acquire()
        else:
            acquire_unless(self.is_needless)


class Memoize:
    """One call of a memoize function: its entry, the entry's form and the lock that the caller gave.

    Once the cache can't be reached, the call asks nothing more of it: each question would take the client's timeout.
    Only a lock that it holds is released.

    Attributes:
        hold_back: How many full chunks of a large entry wait until the entry is complete.
        is_stored: Whether a computed value is in the cache.
        storage: The entry in the cache.
    """

    __slots__ = (
        "_computation",
        "_failure",
        "_form",
        "_is_unstored",
        "_lock",
        "_lock_pid",
        "_overwrite",
        "hold_back",
        "is_stored",
        "storage",
    )

    hold_back: int
    is_stored: bool
    storage: Storage

    def __init__(self, storage: Storage, form: Form, lock: Lock | None, overwrite: bool) -> None:
        """Take the parts of the call. A lock without a key gets one.

        Args:
            storage: The entry in the cache.
            form: How the entry's value is loaded and kept.
            lock: The lock, None without one.
            overwrite: Whether to compute even if there is an entry.

        Raises:
            TypeError: The lock is none.
        """
        self.storage = storage
        self.hold_back = 0
        self.is_stored = False
        self._form = form
        self._lock = lock
        #: What stands for this call while it computes. Without a lock nobody waits for it.
        self._computation: Computation | None = None
        #: Whether what this call computes is not to be stored, as another one computes the same.
        self._is_unstored = False
        self._overwrite = overwrite
        #: The process in which this call acquires the lock, and has to release it. A forked child must not. 0 before.
        self._lock_pid = 0
        #: Why the last look failed, UnreachableError for good. The exception itself would keep all chunks that were
        #: read alive, through its traceback.
        self._failure: type[Exception] | None = None

        if lock is not None:
            check_lock(lock)

            if not lock.full_cache_key:
                lock.full_cache_key = storage.entry.make_lock_key(_find_lock_key_limit(lock, storage.options))

            self._computation = Computation(self.place, get_lease_secs(lock))

    def look(self) -> Any:
        """Return the stored value, UNSET if there is none or it is to be overwritten.

        Whatever goes wrong is logged and counts as a miss.
        """
        if self._overwrite or self._failure is UnreachableError:
            return UNSET

        self._failure = None

        try:
            value = self._form.load(self.storage)
        except Exception as e:
            # It has been logged.
            let_pass(e)
            self._failure = type(e)

            return UNSET

        return value if value is UNSET else self._judge(value, self.storage)

    def find(self) -> Generator[Waiting, Any, Any]:
        """Return the value that another caller stores meanwhile, or that an older key has. UNSET if there is none.

        To be called after the first look found nothing. Then the lock is held if it could be acquired.

        Yields:
            What to wait for. The driver sends what comes of it, or throws into the generator what it raises.
        """
        if self._overwrite:
            self._discard_older()
            self._stamp()

            return UNSET

        value: Any = UNSET
        lock = self._lock

        # A lock that the caller holds already stays the caller's. Djblets takes no lock to replace a foreign value, and
        # its tests insist on it.
        if (
            lock is not None
            and not is_held_by_caller(lock)
            and self._failure not in (ForeignValueError, UnreachableError)
            # The call whose event it is may hold the lock.
            and not is_telling()
        ):
            if self.place in find_computing():
                # The lock is held by the computation that asks for its own key.
                self._lock = None
                self._is_unstored = True
                self.storage.tell("miss")

                return UNSET

            value = yield from self._find_locked(lock)

        if value is UNSET and self._failure is None:
            value = self._migrate_from_older_key()
        elif value is UNSET:
            # An unreadable entry is newer than any entry under an older key.
            self._discard_older()

        if value is UNSET:
            log_miss(self.storage)
            self._stamp()

        return value

    def run(self, lookup_callable: Callable[[], Any]) -> Any:
        """Compute the value, store it if that is possible, and return it. To be called after a miss.

        Raises:
            TypeError: As for :func:`~fastblets.cache.arguments.compute`.
            Exception: What ``lookup_callable`` raised, or the function that was given as ``expiration``.
        """
        computation = self._computation

        if computation is None:
            return self.keep(compute_for(self.storage, lookup_callable))

        computation.begin()

        try:
            # Storing may run a function given as ``expiration``, and code of the value that pickles it.
            return self.keep(compute_for(self.storage, lookup_callable))
        finally:
            computation.end()

    def run_items(self, make_items: Callable[[], Iterator[Any]]) -> Iterator[Any]:
        """Return an iterator over computed items, which stores them on the way. To be called after a miss.

        Raises:
            Exception: What ``make_items`` raised.
        """
        if self._computation is not None:
            self._computation.begin_item()

        computed = watch_items(self.storage, make_items) if cache_event.receivers else make_items()
        items: Iterator[Any] = self.keep(computed)

        return items

    def keep(self, value: Any) -> Any:
        """Store a computed value, if that is possible, and return what the caller gets."""
        return self._form.keep(self, value)

    def store_small(self, value: _T) -> _T:
        """Store a small value, if that is possible, and return it."""
        if not self._stores_nothing and self.settle_expiration(value):
            error = try_to_store(self.storage, value, self._failure)

            if error is None:
                self.is_stored = True
            elif error is UnreachableError:
                self._failure = error

        return value

    def settle_expiration(self, value: object) -> bool:
        """Let a function that was given as ``expiration`` decide. Remove the entry if it is not to be kept.

        Returns:
            Whether the value is to be stored.

        Raises:
            Exception: As for :meth:`~fastblets.cache.options.Options.settle_expiration`.
        """
        is_kept = self._stores_nothing or self.storage.options.settle_expiration(value)

        if not is_kept:
            self._discard(self.storage)
            self.drop_older()

        return is_kept

    def drop_older(self) -> None:
        """Remove the entry under an older key, if the value was found there and is computed anew."""

    def store_items(self, items: Iterable[_T]) -> Iterator[_T]:
        """Yield the items, each before the next one is asked for, and store them on the way.

        Errors of storing are logged and do not stop the items. Unless everything was stored, the entry is missing
        afterwards; the same holds if the generator is not run to its end.

        Raises:
            Exception: What the items raised, or the function that was given as ``expiration``.
        """
        if self._stores_nothing:
            yield from items
            return

        try:
            write = _LargeWrite(self)
        except Exception as e:
            self._fail_to_store(e)
            yield from items
            return

        counted = None

        if self.storage.options.get_expiration is not None:
            items = counted = _Counted(items)

        computation = self._computation
        watch = None
        add, store_full_chunks, finish = write.add, write.store_full_chunks, write.finish

        if cache_event.receivers:
            watch = _Watch()
            add, store_full_chunks, finish = watch.time(add), watch.time(store_full_chunks), watch.time(finish)

        try:
            for item in items:
                has_full_chunks = add(item)
                yield item

                if computation is not None:
                    computation.begin_item()

                if has_full_chunks:
                    store_full_chunks()

            if counted is None or write.settle_expiration(counted.count):
                finish()
        finally:
            write.close()

        if watch is not None and self.is_stored:
            _tell_stored(self.storage, self._failure, watch.seconds, write.size, write.chunk_count)

    def end(self) -> None:
        """End the call: release the lock, if this call acquired it. Calling it again does no harm.

        An error is logged, since the lock ends by itself. A lock that had ended before it was released is logged, too.
        """
        if self._computation is not None:
            self._computation.end()

        lock = self._lock

        if lock is None or self._lock_pid == 0 or self._lock_pid != os.getpid() or not lock.locked():
            return

        try:
            lock.release()
        except Exception as e:
            if self._is_cut_off and is_unreachable(e):
                # The error itself has been logged.
                logger.warning("Cache lock %r is left to end by itself, as the cache can't be reached: %s", lock, e)
            else:
                log_failure(logger, e, "Error releasing cache lock %r: %s", lock, e)

            self.storage.tell("error")
        else:
            _ask(lock, "warn_if_lost")
        finally:
            # From here on, the caller may use the object, and this is called again.
            self._lock_pid = 0

    @property
    def place(self) -> Place:
        """Where the value is stored."""
        return self.storage.options.alias or DEFAULT_CACHE_ALIAS, self.storage.entry.full_key

    @property
    def _is_cut_off(self) -> bool:
        return self._failure is UnreachableError

    @property
    def _stores_nothing(self) -> bool:
        # Whoever computed the value, or takes its items, may have deleted the entry in its own transaction.
        return self._is_cut_off or self._is_unstored or self.storage.is_pending()

    def _judge(self, value: Any, storage: Any) -> Any:
        """Return a value that was found in an entry if it is to be served, else UNSET."""
        if cache_event.receivers:
            storage.tell("hit")

        return value

    def _look_again(self) -> Any:
        """Return what another call may have stored meanwhile, UNSET if there is nothing."""
        return self.look()

    def _look_while_waiting(self) -> Any:
        """Return what makes it needless to wait for the lock any longer, UNSET if nothing does."""
        return self.look()

    def _find_locked(self, lock: Lock) -> Generator[Waiting, Any, Any]:
        value: Any = UNSET
        start = seen = time.monotonic()

        def tell_wait() -> None:
            nonlocal seen
            now = time.monotonic()

            # A lock sleeps that long before it tries again. In less time there was nothing to wait for.
            if now - seen >= getattr(lock, "retry_secs", 0):
                self.storage.tell("lock_wait", now - seen)

            seen = now

        def is_needless() -> bool:
            nonlocal value
            tell_wait()
            value = self._look_while_waiting()

            return value is not UNSET or self._is_cut_off

        # Set before acquiring: an interrupt may arrive right after it.
        self._lock_pid = os.getpid()

        try:
            yield Wait(lock, is_needless)
        except Exception as e:
            if _ask(lock, "was_interrupted_asleep"):
                self._lock = None
                raise

            self._note(as_cache_error(e))

            if isinstance(e, TimeoutError) and not self._is_cut_off:
                logger.error("Timeout waiting on distributed cache lock %r", lock)
                self.storage.tell("lock_timeout", time.monotonic() - start)
            else:
                log_failure(logger, e, "Error acquiring cache lock %r: %s", lock, e)
                self.storage.tell("error")
                self._lock = None

                return value
        else:
            tell_wait()

        if not lock.locked():
            # From here on, another call may use the object, if it was given the same one.
            self._lock = None

        # While this call waited, another process may have stored the value.
        return self._look_again() if value is UNSET else value

    def _migrate_from_older_key(self) -> Any:
        for older in self.storage.get_older():
            value: Any = UNSET

            try:
                value = self._form.load(older)
            except Exception as e:
                # It has been logged. An unreadable entry is newer than those under even older keys.
                self._note(e)
                self._discard_older()
                break

            if value is not UNSET:
                return self._take_over(self._judge(value, older), older)

        return UNSET

    def _take_over(self, value: Any, older: Storage) -> Any:
        """Store a value that was found under an older key under the newest one, and return it."""
        # Otherwise the older entry would be served again once the new one is removed.
        self._discard(older)
        self.storage.stamp_as(older)

        return Memoize.keep(self, value)

    def _stamp(self) -> None:
        if not self._is_cut_off:
            try:
                self.storage.stamp()
            except Exception as e:
                # It has been logged. Nothing is kept then.
                self._note(e)

    def _discard_older(self) -> None:
        # Otherwise the entry under an older key would be served again once the new one expires.
        for older in self.storage.get_older():
            self._discard(older)

    def _discard(self, storage: Storage) -> None:
        if not self._is_cut_off and not storage.discard():
            self._failure = UnreachableError

    def _note(self, error: Exception) -> None:
        """Note an error that has been logged. A task's time limit is raised again."""
        let_pass(error)

        if isinstance(error, UnreachableError):
            self._failure = UnreachableError

    def _fail_to_store(self, error: Exception) -> None:
        self._note(error)
        self.storage.tell("refused")
        logger.error(
            'Failed to store or retrieve large or iterable cache data for key "%s". Newly-generated data will be '
            "returned but not cached. Error = %s",
            self.storage.entry.full_key,
            error,
        )

    def _extend_lock(self) -> None:
        lock = self._lock

        if lock is not None and lock.locked():
            try:
                lock.update_expiration()
            except Exception as e:
                log_failure(logger, e, "Error extending cache lock %r: %s", lock, e)
                self.storage.tell("error")

                # Nothing can be stored any more.
                if is_unreachable(e):
                    raise as_cache_error(e) from None


class _Counted(Generic[_T]):
    """An iterator that counts. Most calls don't need the number of items, and don't pay for it."""

    def __init__(self, items: Iterable[_T]) -> None:
        self._items = iter(items)
        self.count = 0

    def __iter__(self) -> Iterator[_T]:
        return self

    def __next__(self) -> _T:
        item = next(self._items)
        self.count += 1

        return item


class _LargeWrite:
    """One attempt to store a large entry. Its first error ends it and is logged; the items go on.

    Readers never see chunks of two writes mixed: the count is removed before the first chunk is overwritten, and stored
    last.

    Attributes:
        chunk_count: How many chunks were stored.
        size: How many bytes they hold.
    """

    __slots__ = ("_call", "_dirty", "_failed", "_held", "_id", "_pid", "_storage", "_writer", "chunk_count", "size")

    def __init__(self, call: Memoize) -> None:
        self._call = call
        self._storage = storage = call.storage
        self._writer = storage.make_writer()
        self._id = storage.make_write_id()
        self._failed = False
        #: Full chunks that wait until the entry is complete, so that the old one is served until then.
        self._held: list[bytes] = []
        #: A forked child goes on with a copy, but the entry is its parent's to store.
        self._pid = os.getpid()
        self.chunk_count = 0
        self.size = 0
        #: Whether there may be a count that would be wrong if the write ended here.
        self._dirty = call._overwrite

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

    def settle_expiration(self, count: int) -> bool:
        """Let the function that was given as ``expiration`` decide by the number of items.

        Returns:
            Whether the entry is to be finished. If not, :meth:`close` removes it.

        Raises:
            Exception: As for :meth:`~fastblets.cache.options.Options.settle_expiration`.
        """
        if not self._goes_on():
            return False

        # Even if no chunk was stored yet: the entry must not be kept if this raises.
        self._dirty = True

        is_kept = self._storage.options.settle_expiration(count, limited=True)

        if not is_kept:
            self._call.drop_older()

        return is_kept

    def finish(self) -> None:
        """Store the remaining chunks, then the count."""
        self._attempt(self._finish)

    def close(self) -> None:
        """Make sure that an entry that was not stored completely is missing."""
        if self._dirty and self._pid == os.getpid():
            self._call._discard(self._storage)

    def _goes_on(self) -> bool:
        """Return whether the write has not ended. It ends once this transaction is going to delete the entry."""
        if not self._failed and self._storage.is_pending():
            self._failed = True
            # An old entry stays for the others, until the end of the transaction.
            self._dirty = self.chunk_count > 0

        return not self._failed and not self._call._is_cut_off

    def _attempt(self, step: Callable[[], None]) -> None:
        if self._goes_on():
            try:
                if self._pid != os.getpid():
                    raise RuntimeError(f"it is being written by process {self._pid}, of which this one is a fork")

                step()
            except Exception as e:
                self._fail(e)

    def _fail(self, error: Exception) -> None:
        self._failed = True
        self._call._fail_to_store(error)

    def _store_full_chunks(self) -> None:
        chunks = self._held + self._writer.take_full_chunks()

        if len(chunks) <= self._call.hold_back:
            self._held = chunks
            return

        self._call.hold_back = 0
        self._held = []

        if chunks:
            self._begin()
            self._storage.store_chunks(self.chunk_count, chunks, self._id)
            self.chunk_count += len(chunks)
            self.size += sum(map(len, chunks))
            self._call._extend_lock()

    def _finish(self) -> None:
        self._writer.finish()
        self._call.hold_back = 0
        self._store_full_chunks()
        self._begin()
        last = self._writer.last_chunk()
        self.chunk_count = self._storage.store_last_chunk(self.chunk_count, last, self._id)
        self.size += len(last or b"")
        self._call._extend_lock()
        self._storage.store(str(self.chunk_count), COUNT)
        self._dirty = False
        self._call.is_stored = True

    def _begin(self) -> None:
        if self.chunk_count == 0:
            self._dirty = True
            self._storage.delete()


class _Watch:
    """A stopwatch for what is done bit by bit."""

    __slots__ = ("seconds",)

    def __init__(self) -> None:
        self.seconds = 0.0

    def time(self, function: Callable[_P, _T]) -> Callable[_P, _T]:
        """Return a function that does the same, while the watch runs."""

        def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            start = time.monotonic()

            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += time.monotonic() - start

        return call


def _find_lock_key_limit(lock: Lock, options: Options) -> int | None:
    # Djblets' own class knows the default cache only.
    alias: str | None = getattr(lock, "cache_alias", None)

    return options.max_key_bytes if alias == options.alias else find_max_key_bytes(alias)


def get_lease_secs(lock: Lock) -> float:
    """Return after how many seconds a lock ends by itself: 30, as by default, if it doesn't tell."""
    seconds: float = getattr(lock, "lock_expiration_secs", 30)

    return seconds


def is_held_by_caller(lock: Lock) -> bool:
    """Return whether the caller of a memoize function holds the lock that it has passed."""
    # If another thread holds it, acquire() says that it can't be shared.
    return lock.locked() and not _ask(lock, "is_held_by_other_thread")


def _ask(lock: Lock, name: str) -> Any:
    # Djblets' own class has none of these methods.
    method = getattr(lock, name, None)

    return None if method is None else method()


def find(call: Memoize) -> Any:
    """Return the stored value of a call, blocking the thread while there is something to wait for.

    Returns:
        The value, UNSET on a miss. Then the lock is held if it could be acquired.
    """
    value = call.look()

    if value is not UNSET:
        return value

    steps = call.find()

    try:
        wait = next(steps)

        while True:
            try:
                answer = wait.block()
            except Exception as e:
                wait = steps.throw(e)
            else:
                wait = steps.send(answer)
    except StopIteration as e:
        return e.value


def memoize_small(storage: Storage, lookup_callable: Callable[[], _T], overwrite: bool) -> _T:
    """Return a small value, or compute and store it: :class:`Memoize` without lock and older keys.

    This is what most calls are, so it has no generator, and no object more than it needs.

    Args:
        storage: The entry in the cache.
        lookup_callable: Computes the value.
        overwrite: Whether to compute even if there is an entry.

    Raises:
        TypeError: As for :func:`~fastblets.cache.arguments.compute`.
        Exception: What ``lookup_callable`` raised.
    """
    failure: type[Exception] | None = None

    if not overwrite:
        try:
            found: _T | Unset = storage.load()
        except Exception as e:
            # It has been logged.
            let_pass(e)
            found = UNSET
            failure = type(e)

        if found is not UNSET:
            if cache_event.receivers:
                storage.tell("hit")

            return found

        log_miss(storage)

    value = compute_for(storage, lookup_callable)

    if isinstance(value, str):
        warn_if_big(storage, value)

    if failure is not UnreachableError and not (pending and storage.is_pending()):
        options = storage.options

        if options.get_expiration is not None and not options.settle_expiration(value):
            storage.discard()
            return value

        try_to_store(storage, value, failure)

    return value


def try_to_store(storage: Storage, value: object, failure: type[Exception] | None) -> type[Exception] | None:
    """Store a small value, if that is possible.

    Args:
        storage: The entry in the cache.
        value: The value.
        failure: Why the entry could not be read before, None if it could, or was not there.

    Returns:
        Why it could not be stored, which has been logged. None if it was stored. Not the exception itself: its
        traceback would hold the caller's frame, and that the exception.

    Raises:
        Exception: A task's time limit.
    """
    start = time.monotonic()

    try:
        size = storage.store(value)
    except Exception as e:
        # It has been logged, and the caller has the value.
        let_pass(e)
        storage.tell("refused")

        return type(e)

    if cache_event.receivers:
        _tell_stored(storage, failure, time.monotonic() - start, size)

    return None


def _tell_stored(
    storage: Storage,
    failure: type[Exception] | None,
    seconds: float,
    size: int | None,
    chunks: int | None = None,
) -> None:
    storage.tell("stored", seconds, size, chunks)

    if failure is not None:
        storage.tell("healed")


def compute_for(storage: Storage, lookup_callable: Callable[[], _T]) -> _T:
    """Compute the value of an entry.

    Raises:
        TypeError: As for :func:`~fastblets.cache.arguments.compute`.
        Exception: What ``lookup_callable`` raised.
    """
    start = time.monotonic()
    value = compute(lookup_callable)

    if cache_event.receivers:
        storage.tell("computed", time.monotonic() - start)

    return value


def watch_items(storage: Storage, make_items: Callable[[], Iterator[_T]]) -> Iterator[_T]:
    """Return an iterator over computed items that tells, after the last one, how long computing them took.

    Raises:
        Exception: What ``make_items`` raised.
    """
    watch = _Watch()
    items = watch.time(make_items)()
    take = watch.time(lambda: next(items, UNSET))

    def iterate() -> Iterator[_T]:
        while (item := take()) is not UNSET:
            yield item

        storage.tell("computed", watch.seconds)

    return iterate()


def warn_if_big(storage: Storage, value: str) -> None:
    """Log a warning if a small text is longer than what memcached takes by default."""
    if len(value) >= _native.CACHE_CHUNK_SIZE:
        logger.warning(
            'Cache data for key "%s" (length %s) may be too big for the cache.',
            storage.entry.full_key,
            len(value),
        )


def log_miss(storage: Storage) -> None:
    """Log and tell that an entry is to be computed."""
    if logger.isEnabledFor(logging.DEBUG):
        logger.debug('Cache miss for key "%s"', storage.entry.full_key)

    storage.tell("miss")
