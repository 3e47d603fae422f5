"""Renewing locks while their owners are at work: one thread for all locks of the process.

It begins with the first lock that is to be renewed, and ends once there has been none for a while. A lock is renewed
when a third of its time has passed, and not beyond its owner's limit: an owner that hangs must not keep it for ever.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from contextlib import suppress
from contextvars import Context
from typing import TYPE_CHECKING, Protocol
from weakref import ref

from django.core.cache import caches
from django.db import connections

from fastblets.cache.failures import log_failure

if TYPE_CHECKING:
    from typing import Final


# Djblets' name, so that a project's logging settings go on to hold.
logger: logging.Logger = logging.getLogger("djblets.protect.locks")

#: After how many seconds without a lock the thread ends.
_IDLE_SECS: Final = 30

#: The longest wait at a time, in seconds. A system may not take any number.
_LONGEST_WAIT: Final = 3600


class Renewable(Protocol):
    """A lock that can be renewed."""

    full_cache_key: str
    lock_expiration_secs: float

    def locked(self) -> bool:
        """Return whether this object holds the lock."""

    def update_expiration(self) -> None:
        """Let the lock end later."""


class _Lease:
    """A lock that is being renewed. A lock that its owner has dropped is not kept alive."""

    def __init__(self, lock: Renewable, max_secs: float) -> None:
        now = time.monotonic()
        self._lock = ref(lock)
        #: Held while the lock is renewed. Reentrant, since the garbage collector may drop the lock meanwhile.
        self._mutex = threading.RLock()
        self._is_over = False
        self.interval = lock.lock_expiration_secs / 3
        self.due = now + self.interval
        self.end = now + max_secs

    def stop(self) -> None:
        """Wait for the end of a renewal, and let there be no other one."""
        self._is_over = True

        # Not for ever: at the interpreter's end, the thread may stand still in the middle of it.
        if self._mutex.acquire(timeout=self.interval):
            self._mutex.release()

    def renew(self) -> bool:
        """Renew the lock. Return whether it is to be renewed again."""
        with self._mutex:
            return not self._is_over and self._renew()

    def _renew(self) -> bool:
        lock = self._lock()

        if lock is None or not lock.locked():
            return False

        now = time.monotonic()

        if now >= self.end:
            logger.warning(
                'Cache lock "%s" is not renewed any more, and ends in %.1f seconds: its owner has held it for longer '
                "than max_lock_secs. Another owner may do the same work then.",
                lock.full_cache_key,
                lock.lock_expiration_secs - self.interval,
            )
            return False

        self.due = now + self.interval

        try:
            lock.update_expiration()
        except Exception as e:
            # Tried again when the next third has passed.
            log_failure(logger, e, 'Error renewing cache lock "%s": %s', lock.full_cache_key, e)

        return True


class _Renewer:
    """The leases of this process, and its thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._leases: dict[int, _Lease] = {}
        self._thread: threading.Thread | None = None

    def begin(self, lock: Renewable, max_secs: float) -> None:
        with self._changed:
            self._leases[id(lock)] = _Lease(lock, max_secs)

            if self._thread is None:
                # In a context of its own, so that its caches and their connections are its own, too.
                thread = threading.Thread(
                    target=Context().run, args=(self._run,), name="fastblets-renewal", daemon=True
                )

                try:
                    thread.start()
                except RuntimeError as e:
                    # There may be none, such as at the interpreter's end. The lock ends by itself then.
                    logger.warning('Cache lock "%s" can\'t be renewed: %s', lock.full_cache_key, e)
                    return

                self._thread = thread
            else:
                self._changed.notify()

    def end(self, lock: Renewable) -> None:
        lease = self._leases.pop(id(lock), None)

        if lease is not None:
            lease.stop()

    def _run(self) -> None:
        try:
            while self._renew_due():
                pass
        finally:
            # Whatever has ended it, the next lock begins another one.
            with self._changed:
                if self._thread is threading.current_thread():
                    self._thread = None

    def _renew_due(self) -> bool:
        """Wait until a lock is due, and renew it. Return whether to go on."""
        with self._changed:
            if not self._leases and not self._changed.wait(_IDLE_SECS) and not self._leases:
                # Here, since another thread may begin a lease as soon as the condition is free.
                self._thread = None
                return False

            now = time.monotonic()
            leases = list(self._leases.items())
            due = min((lease.due for _, lease in leases), default=now)

            if due > now:
                self._changed.wait(min(due - now, _LONGEST_WAIT))
                return True

        self._renew_all(leases, now)

        return True

    def _renew_all(self, leases: list[tuple[int, _Lease]], now: float) -> None:
        for key, lease in leases:
            if lease.due <= now and not lease.renew() and self._leases.get(key) is lease:
                self._leases.pop(key, None)

        # This thread's connections: nobody else would close them.
        with suppress(Exception):
            caches.close_all()
            connections.close_all()


_renewer = _Renewer()


def begin(lock: Renewable, max_secs: float) -> None:
    """Renew a lock from now on, until it is released.

    Args:
        lock: The lock, which is held.
        max_secs: After how many seconds it is not renewed any more.
    """
    _renewer.begin(lock, max_secs)


def end(lock: Renewable) -> None:
    """Don't renew a lock any more."""
    _renewer.end(lock)


def _start_anew() -> None:
    # The thread doesn't exist in a forked child, and the locks are its parent's.
    global _renewer
    _renewer = _Renewer()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)
