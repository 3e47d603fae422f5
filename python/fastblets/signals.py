"""Events: what happens to values in the cache, as a Django signal.

``cache_event`` is sent with ``send_robust()``, ``sender=None`` and these keyword arguments:

- ``kind``: one of :data:`KINDS`. docs/events.md says when each is sent, and what its other arguments are.
- ``name``: what ``name=`` of the memoize functions says. Else the first part of a key that is a sequence of at least
  two strings, and ``"other"`` for any other key. Never a whole key: those are too many, and may hold secrets.
- ``seconds``: a float, or None.
- ``bytes``, ``chunks``: an int, or None.

Receivers run in the thread of the call, which waits for them. What they raise is logged and does not disturb the call,
except for a task's time limit, which ends it. What a receiver itself does with the cache sends no events.
"""

from __future__ import annotations

import logging
from contextvars import ContextVar
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from django.dispatch import Signal

from fastblets.cache.failures import as_cache_error, let_pass

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final


__all__ = ["KINDS", "OTHER", "EventKind", "cache_event"]


# Djblets' name, so that a project's logging settings go on to hold.
logger: logging.Logger = logging.getLogger("djblets.cache.backend")

#: The kind of an event.
EventKind: TypeAlias = Literal[
    "hit",
    "stale",
    "early",
    "miss",
    "computed",
    "stored",
    "refused",
    "healed",
    "error",
    "backoff",
    "lock_wait",
    "lock_timeout",
    "invalidated",
]

#: All kinds.
KINDS: Final[tuple[EventKind, ...]] = get_args(EventKind)

#: The name in the events of entries that have none of their own.
OTHER: Final = "other"

#: The signal.
cache_event: Final = Signal()

_is_telling: Final[ContextVar[bool]] = ContextVar("fastblets.signals", default=False)


def tell(
    kind: EventKind,
    name: str,
    seconds: float | None = None,
    bytes: int | None = None,
    chunks: int | None = None,
) -> None:
    """Send an event, if there are receivers.

    For the arguments see the top of this module.

    Raises:
        Exception: A task's time limit.
    """
    # A receiver that uses the cache would be called by itself.
    if not cache_event.receivers or _is_telling.get():
        return

    token = _is_telling.set(True)

    try:
        responses = cache_event.send_robust(
            sender=None, kind=kind, name=name, seconds=seconds, bytes=bytes, chunks=chunks
        )
    except Exception as e:
        # Django's own errors: an asynchronous receiver can't be called from within an event loop, and before Django 5 a
        # receiver without a name, such as a partial, can't be logged.
        let_pass(e)
        logger.exception("Error sending cache_event %r: %s", kind, e)
        return
    finally:
        _is_telling.reset(token)

    for _, response in responses:
        if isinstance(response, Exception):
            let_pass(response)


def is_telling() -> bool:
    """Return whether this is a call of a receiver. It must not wait for a computation: that may be waiting for it."""
    return _is_telling.get()


def tell_error(error: Exception, name: str) -> Exception:
    """Tell that a call of the cache has failed. Return the exception to raise for it.

    Args:
        error: What the call raised.
        name: The name in the event.

    Raises:
        Exception: The error, if it is a task's time limit.
    """
    failure = as_cache_error(error)
    tell("error", name)

    return failure


def make_name(key: str | Sequence[str]) -> str:
    """Return the name in events of a valid base key, or of a tag."""
    # A key of one part is the same as that part alone.
    return OTHER if isinstance(key, str) or len(key) < 2 else key[0] or OTHER
