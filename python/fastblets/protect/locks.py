"""A lock that is kept in the cache."""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from typing import TYPE_CHECKING
from uuid import uuid4

from fastblets.cache.arguments import check_alias, check_seconds
from fastblets.cache.failures import log_failure
from fastblets.cache.keys import make_full_key
from fastblets.cache.shortcuts import get_named_cache
from fastblets.protect import renewal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Final, NoReturn

    from typing_extensions import Self


# Djblets' name, so that a project's logging settings go on to hold.
logger: logging.Logger = logging.getLogger("djblets.protect.locks")

#: What a mark begins with that stands in the place of a lock, so that nobody tries again for a while.
_BACKOFF: Final = "!"


class CacheLock:
    """A lock shared by processes and servers through their cache.

    Use it as a context manager, or pass it to :func:`~fastblets.cache.backend.cache_memoize` or
    :func:`~fastblets.cache.backend.cache_memoize_iter`, so that only one of many callers computes a missing value. It
    has the interface of :class:`threading.Lock`.

    It is a soft lock: a cache may drop it at any time, and it ends by itself after ``lock_expiration_secs``. Two owners
    at once are unlikely, not impossible. Threads must not share an instance: :meth:`acquire` raises an error if another
    thread uses it.

    Attributes:
        acquired: Whether this instance holds the lock, in this process.
        cache_alias: The alias in ``CACHES`` of the cache that has the lock, None for the default cache.
        full_cache_key: The cache key of the lock. If empty, it must be set before the lock is acquired; the memoize
            functions derive it from their own key.
        token: A random text that tells whose the lock in the cache is.
    """

    blocking: bool
    full_cache_key: str
    lock_expiration_secs: float
    retry_secs: float
    timeout_secs: float
    token: str

    cache_alias: str | None = None

    #: For how many seconds it is renewed while it is held, None if it isn't.
    max_lock_secs: float | None = None

    #: The process that holds the lock, 0 if none does. A forked child gets a copy of this object, but not the lock.
    _owner_pid: int = 0

    #: When the lock was acquired and when it ends by itself, on the monotonic clock.
    _acquired_time: float
    _lock_expires_time: float

    #: The thread that acquired the lock, and the one that sleeps until its next attempt.
    _owner: int | None
    _sleeper: int | None

    #: For how many seconds a lock was held that had ended when it was released, None if it had not.
    _lost_after: float | None

    #: By thread: called while waiting, to find out whether there is nothing left to wait for. Not an argument of
    #: :meth:`acquire`, which projects spy on and override as Djblets has it.
    _is_needless: dict[int, Callable[[], bool]]

    def __init__(
        self,
        key: str | Sequence[str] = "",
        *,
        blocking: bool = True,
        lock_expiration_secs: float = 30,
        retry_secs: float = 0.25,
        timeout_secs: float = -1,
        max_lock_secs: float | None = None,
        cache: str | None = None,
    ) -> None:
        """Make a lock, not yet acquired.

        Args:
            key: The lock's base key, as for :func:`~fastblets.cache.backend.make_cache_key`.
            blocking: Whether :meth:`acquire` waits for the lock.
            lock_expiration_secs: Seconds after which the lock ends by itself.
            retry_secs: Seconds between two attempts. Up to a quarter is added at random, so that waiting processes
                don't ask in step.
            timeout_secs: Seconds to wait for the lock, -1 for as long as it takes.
            max_lock_secs: Seconds for which a thread renews the lock while it is held, so that it ends soon after its
                process has died, but not while its owner is at work. Default: it is not renewed.
            cache: The alias in ``CACHES`` of the cache that has the lock. Default: the default cache.

        Raises:
            InvalidCacheBackendError: ``CACHES`` has no such alias.
            SiteUnavailableError: As for :func:`~fastblets.cache.backend.make_cache_key`.
            TypeError: One of the times is not a number. None is refused, too: a lock that never ends would stay if its
                process died.
            ValueError: One of the times is not positive, or ``max_lock_secs`` is less than ``lock_expiration_secs``.
        """
        check_seconds("timeout_secs", timeout_secs)
        check_seconds("retry_secs", retry_secs)
        check_seconds("lock_expiration_secs", lock_expiration_secs)

        # Written as `not x > 0` so that NaN is rejected too.
        if timeout_secs != -1 and not timeout_secs > 0:
            raise ValueError("timeout_secs must be -1 or a positive value.")

        if not retry_secs > 0:
            raise ValueError("retry_secs must be a positive value.")

        if not lock_expiration_secs > 0:
            raise ValueError("lock_expiration_secs must be a positive value.")

        if max_lock_secs is not None:
            check_seconds("max_lock_secs", max_lock_secs)

            if not max_lock_secs >= lock_expiration_secs:
                raise ValueError("max_lock_secs must not be less than lock_expiration_secs.")

            self.max_lock_secs = max_lock_secs

        if cache is not None:
            check_alias(cache)
            self.cache_alias = cache

        self.blocking = blocking
        self.lock_expiration_secs = lock_expiration_secs
        self.retry_secs = retry_secs
        self.timeout_secs = timeout_secs
        self.full_cache_key = make_full_key(key, alias=cache) if key else ""
        self.token = ""
        self._acquired_time = 0
        self._lock_expires_time = 0
        self._lost_after = None
        self._owner = None
        self._sleeper = None
        self._is_needless = {}

    @property
    def acquired(self) -> bool:
        """Whether this instance holds the lock. In a forked child it doesn't hold the parent's."""
        return self._owner_pid == os.getpid()

    @acquired.setter
    def acquired(self, acquired: bool) -> None:
        self._owner_pid = os.getpid() if acquired else 0

    def __del__(self) -> None:
        """Log an error if the lock was never released."""
        if self.acquired:
            logger.error(
                'Cache lock "%s" was garbage collected without being released! The caller must '
                "be careful to keep this lock around until it is released.",
                self.full_cache_key,
            )

    def locked(self) -> bool:
        """Return whether this instance holds the lock."""
        return self.acquired

    def acquire(
        self,
        blocking: bool | None = None,
        timeout: float | None = None,
    ) -> bool:
        """Acquire the lock, waiting for it if need be.

        Args:
            blocking: Whether to wait. Default: as the lock was made.
            timeout: Seconds to wait, -1 for as long as it takes. Default: as the lock was made.

        Returns:
            Whether the lock was acquired. False only if it is not to be waited for.

        Raises:
            RuntimeError: This instance holds the lock already, or is being acquired by another thread.
            TimeoutError: The lock was not to be had in time. Also raised after ``lock_expiration_secs`` without a
                trace of another owner: then it is the cache that doesn't work.
            ValueError: The lock has no key.
        """
        key = self.full_cache_key

        if not key:
            raise ValueError("A cache key for the lock must be provided.")

        if blocking is None:
            blocking = self.blocking

        if timeout is None:
            timeout = self.timeout_secs

        token = str(uuid4())

        # A child that is forked meanwhile gets a copy of the mark, which must not keep it from acquiring the lock.
        mark = f"_acquired_in_{os.getpid()}"

        # setdefault() is atomic: of two threads only one gets its own token back.
        if vars(self).setdefault(mark, token) is not token:
            raise RuntimeError(self._describe_sharing("is being acquired"))

        try:
            if self.acquired:
                raise RuntimeError(
                    self._describe_sharing("is held")
                    if self.is_held_by_other_thread()
                    else f"acquire() is not reentrant for {type(self).__name__} instance {id(self)}"
                )

            self.token = token
            self._sleeper = None

            return self._acquire(key, token, blocking, timeout)
        finally:
            vars(self).pop(mark, None)

    def _acquire(self, key: str, token: str, blocking: bool, timeout: float) -> bool:
        is_needless = self._is_needless.get(threading.get_ident())
        start = time.monotonic()
        slept = waited = last_seen = 0.0
        owner = None

        while not self._cache.add(key, token, self.lock_expiration_secs):
            if not blocking:
                return False

            # Tests freeze the clock: by the clock alone a wait would never end.
            waited = max(time.monotonic() - start, slept)

            if timeout != -1 and waited >= timeout:
                self._time_out(timeout)

            if owner is None:
                owner = self._cache.get(key)

                # It may have been left since the caller asked for it.
                if is_needless is not None and _is_backoff(owner) and is_needless():
                    return False

            if owner is not None:
                last_seen = waited
            elif waited - last_seen >= self.lock_expiration_secs:
                # add() keeps failing although no owner is visible: the cache is broken.
                self._time_out(self.lock_expiration_secs)

            slept += self._sleep()
            last_owner, owner = owner, self._cache.get(key)

            # The owner stores its value before it releases the lock. So the value is looked for when the owner has
            # changed, and before the next attempt: otherwise all waiting processes would acquire the lock one by one.
            if is_needless is not None and owner != last_owner and is_needless():
                return False

        self._hold(
            'Acquired cache lock "%s" with token "%s" for %s seconds (monotonic expiration = %s, '
            "estimated timestamp = %s)"
        )

        return True

    def acquire_unless(self, is_needless: Callable[[], bool]) -> bool:
        """Acquire the lock, unless it turns out to be needless while waiting for it.

        Args:
            is_needless: Called whenever the lock has changed hands while waiting. If it returns True, so that there
                is nothing left to do for an owner of the lock, the wait ends without the lock.

        Returns:
            Whether the lock was acquired.

        Raises:
            RuntimeError: As for :meth:`acquire`.
            TimeoutError: As for :meth:`acquire`.
            ValueError: As for :meth:`acquire`.
        """
        thread = threading.get_ident()
        self._is_needless[thread] = is_needless

        try:
            return self.acquire()
        finally:
            del self._is_needless[thread]

    def update_expiration(self, lock_expiration_secs: float | None = None) -> None:
        """Let the lock end later, or sooner.

        A lock that was lost meanwhile is not taken again: a warning is logged.

        Args:
            lock_expiration_secs: Seconds from now. Default: as the lock was made.

        Raises:
            AssertionError: This instance does not hold the lock.
        """
        if not self.acquired:
            raise AssertionError("Cannot extend a lock that has not been acquired.")

        if lock_expiration_secs is None:
            lock_expiration_secs = self.lock_expiration_secs

        if self._is_owner() and self._cache.touch(self.full_cache_key, lock_expiration_secs):
            self._set_expires_time(
                lock_expiration_secs,
                'Extended cache lock "%s" (token "%s") to %s seconds (monotonic expiration = %s, '
                "estimated timestamp = %s)",
            )
        else:
            logger.warning(
                'Cache lock "%s" (token "%s") fell out of cache. The lock is no longer valid.',
                self.full_cache_key,
                self.token,
            )

    def release(self) -> None:
        """Release the lock. If another owner has it by now, it is left alone.

        Raises:
            RuntimeError: This instance does not hold the lock.
        """
        self._let_go("release")
        now = time.monotonic()
        expired = now > self._lock_expires_time
        removed = False

        if not expired:
            owner = self._cache.get(self.full_cache_key)
            expired = owner is None

            if owner == self.token:
                # The lock may expire at any moment. Extending it first makes sure that no other process can acquire it
                # between the check of the owner and the removal.
                expired = not self._cache.touch(self.full_cache_key, self.lock_expiration_secs)

                if not expired and self._is_owner():
                    self._cache.delete(self.full_cache_key)
                    removed = True

        self._lost_after = None if removed else now - self._acquired_time

        logger.debug(
            'Released cache lock "%s" (token "%s"), which already expired from cache'
            if expired
            else 'Released cache lock "%s" (token "%s")',
            self.full_cache_key,
            self.token,
        )

    def back_off(self, secs: float) -> None:
        """Release the lock in such a way that nobody acquires it for a time, since its owner's work has failed.

        If another owner has it by now, it is left alone.

        Args:
            secs: For how many seconds.

        Raises:
            RuntimeError: This instance does not hold the lock.
        """
        self._let_go("release")
        self._lost_after = None
        key = self.full_cache_key

        # Extended first, for the reason that release() gives.
        if self._is_owner() and self._cache.touch(key, self.lock_expiration_secs) and self._is_owner():
            self._cache.set(key, _BACKOFF + self.token, secs)

    def is_backed_off(self) -> bool:
        """Return whether nobody is to try again for now, as :meth:`back_off` said."""
        return _is_backoff(self._cache.get(self.full_cache_key))

    def end_backoff(self) -> None:
        """Let callers acquire the lock again."""
        if self.is_backed_off():
            self._cache.delete(self.full_cache_key)

    def hand_over(self) -> None:
        """Leave the lock to another thread, which calls :meth:`take_over`. Until then it ends by itself.

        Raises:
            RuntimeError: This instance does not hold the lock.
        """
        self._let_go("hand over")

    def take_over(self) -> bool:
        """Hold the lock that another thread of this process has handed over. Return whether it is still there."""
        if not (self._is_owner() and self._cache.touch(self.full_cache_key, self.lock_expiration_secs)):
            return False

        self._hold(
            'Took over cache lock "%s" with token "%s" for %s seconds (monotonic expiration = %s, '
            "estimated timestamp = %s)"
        )

        return True

    def warn_if_lost(self) -> None:
        """Log a warning if the lock had already ended when it was released.

        Not a part of :meth:`release`, whose log records are Djblets'.
        """
        if self._lost_after is not None:
            logger.warning(
                'Cache lock "%s" (token "%s") ended before its owner did: it was held for %.1f seconds, and made for '
                "%.1f. Another owner may have done the same work. Raise lock_expiration_secs; if it is long enough, "
                "the cache dropped the lock.",
                self.full_cache_key,
                self.token,
                self._lost_after,
                self._lock_expires_time - self._acquired_time,
            )

    def was_interrupted_asleep(self) -> bool:
        """Return whether an exception ended this thread's :meth:`acquire` between two attempts.

        If so, the exception doesn't come from the cache, because no call to the cache was running.
        """
        return self._sleeper == threading.get_ident()

    def is_held_by_other_thread(self) -> bool:
        """Return whether this instance holds the lock because another thread acquired it."""
        return self.acquired and self._owner != threading.get_ident()

    def __enter__(self) -> Self:
        """Acquire the lock, as :meth:`acquire` does."""
        self.acquire()

        return self

    def __exit__(self, *args: object) -> None:
        """Release the lock, if it was acquired.

        An error of the cache is logged, not raised: it must neither hide an exception of the block nor lose its
        result, and the lock ends by itself. A lock that had ended before is logged, too.
        """
        if self.acquired:
            try:
                self.release()
            except Exception as e:
                log_failure(logger, e, 'Error releasing cache lock "%s": %s', self.full_cache_key, e)
            else:
                self.warn_if_lost()

    def __repr__(self) -> str:
        """Return the lock's key and token."""
        return (
            f"<{type(self).__name__}(blocking={self.blocking!r},"
            f" full_cache_key={self.full_cache_key!r},"
            f" token={self.token!r})>"
        )

    @property
    def _cache(self) -> Any:
        return get_named_cache(self.cache_alias)

    def _hold(self, message: str) -> None:
        self.acquired = True
        self._owner = threading.get_ident()
        self._acquired_time = time.monotonic()
        self._set_expires_time(self.lock_expiration_secs, message)

        if self.max_lock_secs is not None:
            renewal.begin(self, self.max_lock_secs)

    def _let_go(self, action: str) -> None:
        if not self.acquired:
            raise RuntimeError(f"Cannot {action} a lock that was not acquired.")

        # First: a renewal would find that the lock is not held.
        if self.max_lock_secs is not None:
            renewal.end(self)

        self.acquired = False

    def _sleep(self) -> float:
        """Wait for the next attempt, and return the seconds."""
        secs = self.retry_secs + random.uniform(0, self.retry_secs * 0.25)
        self._sleeper = threading.get_ident()
        time.sleep(secs)
        self._sleeper = None

        return secs

    def _describe_sharing(self, how: str) -> str:
        return (
            f'The lock "{self.full_cache_key}" {how} by another thread. Threads can\'t share a '
            f"{type(self).__name__}: make one for each call."
        )

    def _is_owner(self) -> bool:
        return bool(self._cache.get(self.full_cache_key) == self.token)

    def _set_expires_time(self, lock_expiration_secs: float, message: str) -> None:
        self._lock_expires_time = time.monotonic() + lock_expiration_secs

        logger.debug(
            message,
            self.full_cache_key,
            self.token,
            lock_expiration_secs,
            self._lock_expires_time,
            time.time() + lock_expiration_secs,
        )

    def _time_out(self, secs: float) -> NoReturn:
        logger.warning(
            'Timed out waiting for cache lock "%s" (token "%s") for %s seconds',
            self.full_cache_key,
            self.token,
            secs,
        )

        raise TimeoutError(f"Timed out waiting for lock: {self.full_cache_key}")


def _is_backoff(owner: object) -> bool:
    return isinstance(owner, str) and owner.startswith(_BACKOFF)
