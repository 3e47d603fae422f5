"""Sharing one computation among the threads of a process: the first caller leads, the others wait for it.

What the leader computes is not handed to the others. They look into the cache once it is there, so that each gets a
copy of its own. If the leader fails or is cancelled, one of the others leads.
"""

from __future__ import annotations

import math
import os
import threading
import time
from concurrent.futures import Future
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastblets.cache.computing import Place


class Outcome(Enum):
    """How a computation ended."""

    #: Its result is in the cache.
    STORED = "stored"

    #: It has a result, but that could not, or must not, be stored.
    NOT_STORED = "not stored"

    #: It failed, or was given up.
    FAILED = "failed"


class Leader:
    """The caller that computes.

    Attributes:
        done: Completed with the outcome.
        is_stream: Whether it computes items one by one, at the pace of whoever asks for them.
        place: Where the result is stored.
        progress: When it computed its last item, on the monotonic clock; infinite while it waits itself.
    """

    __slots__ = ("_pid", "done", "is_stream", "place", "progress")

    done: Future[Outcome]
    is_stream: bool
    place: Place
    progress: float

    def __init__(self, place: Place, is_stream: bool) -> None:
        """Take the parts. It does not lead yet."""
        self.place = place
        self.is_stream = is_stream
        self.progress = math.inf
        self._pid = os.getpid()
        self.done = Future()

    def end(self, outcome: Outcome) -> None:
        """Let the others go on. Calling it again does no harm."""
        if self._pid != os.getpid():
            # A forked child's copy, whose lock a thread of the parent may have held.
            return

        with _mutex:
            if _leaders.get(self.place) is self:
                del _leaders[self.place]

        if not self.done.done():
            self.done.set_result(outcome)


_leaders: dict[Place, Leader] = {}

#: Reentrant, since the garbage collector may end an abandoned stream while it is held, and so may a signal handler.
_mutex = threading.RLock()


def lead_or_follow(leader: Leader, lease_secs: float) -> Leader:
    """Let a leader lead, unless there is one already. Return the one that leads.

    Args:
        leader: The caller's. It is to be ended, whether it leads or not.
        lease_secs: After how many seconds without progress a stream leads no more: its client may have gone away.
    """
    with _mutex:
        current = _leaders.get(leader.place)

        if current is not None and not (current.is_stream and time.monotonic() - current.progress > lease_secs):
            return current

        _leaders[leader.place] = leader

        return leader


def _start_anew() -> None:
    # The leaders are threads of the parent, and one of them may have held the mutex.
    global _leaders, _mutex
    _leaders = {}
    _mutex = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)
