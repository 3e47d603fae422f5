"""Statistics: counts and times of what happens in the cache, for this process alone.

They are collected from the events of :data:`~fastblets.signals.cache_event`: once :func:`collect` was called, or with
the setting ``FASTBLETS_STATS = True`` if ``fastblets`` is one of the ``INSTALLED_APPS``. A forked process begins anew.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, TypedDict

from fastblets.signals import OTHER, cache_event

if TYPE_CHECKING:
    from typing import Any, Final


__all__ = ["MOST_NAMES", "EventStats", "collect", "reset", "snapshot", "stop"]


#: For how many names statistics are kept. All further ones are counted as ``"other"``.
MOST_NAMES: Final = 1000


class EventStats(TypedDict):
    """The events of one kind and name. Events without seconds, bytes or chunks add nothing to these."""

    #: How many there were.
    count: int

    #: The sum of their seconds.
    seconds: float

    #: The largest number of seconds.
    longest: float

    #: The sum of their bytes.
    bytes: int

    #: The sum of their chunks.
    chunks: int


_stats: dict[str, dict[str, EventStats]] = {}
_mutex = threading.RLock()


def collect() -> None:
    """Begin to collect. Calling it again does no harm."""
    cache_event.connect(_count, weak=False, dispatch_uid=__name__)


def stop() -> None:
    """End collecting. What was collected is kept."""
    cache_event.disconnect(dispatch_uid=__name__)


def snapshot() -> dict[str, dict[str, EventStats]]:
    """Return what was collected in this process since it began or :func:`reset` was called.

    Returns:
        By name, then by the kind of event. It is a copy, and can be written as JSON. Kinds that have not occurred are
        missing.
    """
    with _mutex:
        # Lists, since a signal handler may send an event meanwhile.
        return {
            name: {kind: stats.copy() for kind, stats in list(kinds.items())} for name, kinds in list(_stats.items())
        }


def reset() -> None:
    """Forget what was collected."""
    with _mutex:
        _stats.clear()


def _count(*, kind: str, name: str, seconds: float | None, bytes: int | None, chunks: int | None, **_: Any) -> None:
    with _mutex:
        if name not in _stats and len(_stats) >= MOST_NAMES:
            name = OTHER

        kinds = _stats.setdefault(name, {})
        stats = kinds.get(kind)

        if stats is None:
            kinds[kind] = stats = EventStats(count=0, seconds=0.0, longest=0.0, bytes=0, chunks=0)

        stats["count"] += 1

        if seconds is not None:
            stats["seconds"] += seconds
            stats["longest"] = max(stats["longest"], seconds)

        stats["bytes"] += bytes or 0
        stats["chunks"] += chunks or 0


def _start_anew() -> None:
    # The counts are the parent's, and one of its threads may have held the mutex.
    global _stats, _mutex
    _stats = {}
    _mutex = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)
