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
        self.interval = lock.lock_expiration_secs / 3
        self.due = now + self.interval
        self.end = now + max_secs

    def renew(self) -> bool:
        """Renew the lock. Return whether it is to be renewed again."""
        lock = self._lock()

        # Asked right before: its owner may have released it a moment ago.
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
                thread = threading.Thread(target=self._run, name="fastblets-renewal", daemon=True)

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
        # Without the condition: nothing is to be woken, and an interrupt may have come while this thread had it.
        self._leases.pop(id(lock), None)

    def _run(self) -> None:
        while True:
            with self._changed:
                now = time.monotonic()
                leases = list(self._leases.items())

                if not leases and not self._changed.wait(_IDLE_SECS) and not self._leases:
                    self._thread = None
                    return

                due = min((lease.due for _, lease in leases), default=now)

                if due > now:
                    self._changed.wait(due - now)
                    continue

            for key, lease in leases:
                if lease.due <= now and not lease.renew() and self._leases.get(key) is lease:
                    self._leases.pop(key, None)

            # Another thread's connections: nobody else would close them.
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
