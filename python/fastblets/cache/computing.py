"""What this thread or task is computing: so that a call never waits for a computation that waits for the call.

A computation that asks for its own key would wait for its own lock. Two that ask for each other's keys would wait for
each other.

A function counts as computing while it runs, in its own context and in those that are copied from it, such as its
child tasks' and those of :func:`asyncio.to_thread`. The items of a stream come from many calls of ``next()``; between
them the stream still holds its lock. So it counts as computing in the thread that asked for an item last, for as long
as its lock may live without another one.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextvars import Token
    from typing import Final, TypeAlias


#: The alias of a cache, and a full key in it.
Place: TypeAlias = tuple[str, str]


class Computation:
    """One computation.

    Attributes:
        is_running: Whether it has begun and not ended.
        place: Where its result is stored.
    """

    __slots__ = ("_end", "_lease_secs", "_thread", "_token", "is_running", "place")

    is_running: bool
    place: Place

    def __init__(self, place: Place, lease_secs: float) -> None:
        """Take the parts. It is not computing yet.

        Args:
            place: Where its result is stored.
            lease_secs: After how many seconds its lock ends by itself.
        """
        self.place = place
        self.is_running = False
        self._lease_secs = lease_secs
        self._end = 0.0
        self._thread = 0
        self._token: Token[tuple[Computation, ...]] | None = None

    def begin(self) -> None:
        """A function begins to run."""
        self.is_running = True
        self._token = _functions.set((*_functions.get(), self))

    def begin_item(self) -> None:
        """The next item of a stream is asked for."""
        self._thread = threading.get_ident()
        self._end = time.monotonic() + self._lease_secs

        if not self.is_running:
            self.is_running = True
            _streams[id(self)] = self

    def end(self) -> None:
        """The computation is over. Calling it again does no harm."""
        self.is_running = False
        _streams.pop(id(self), None)

        if self._token is not None:
            token, self._token = self._token, None

            # It may end in another context than it began in. The mark that stays there says that it is over.
            with suppress(ValueError):
                _functions.reset(token)

    @property
    def is_here(self) -> bool:
        """Whether a stream was asked for its last item by this thread, and not too long ago."""
        return self._thread == threading.get_ident() and time.monotonic() < self._end


#: The functions that run in this context, including those that are over by now.
_functions: Final[ContextVar[tuple[Computation, ...]]] = ContextVar("fastblets.cache.computing", default=())

#: The streams of all threads, by their ids.
_streams: Final[dict[int, Computation]] = {}


def find_computing() -> set[Place]:
    """Return the places of what is being computed here."""
    found = {computation.place for computation in _functions.get() if computation.is_running}

    if _streams:
        # A copy: other threads may begin and end streams meanwhile.
        found.update(computation.place for computation in list(_streams.values()) if computation.is_here)

    return found
