"""What counts as being computed, in which thread, task and time."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from typing import Any

from fastblets.cache import computing
from fastblets.cache.computing import Computation, find_computing

PLACE = ("default", "key")


def elsewhere(function: Any) -> Any:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def test_a_function() -> None:
    computation = Computation(PLACE, 30)
    assert find_computing() == set()
    computation.begin()
    inner = Computation(("other", "key"), 30)
    inner.begin()
    assert find_computing() == {PLACE, ("other", "key")}
    assert elsewhere(find_computing) == set()
    inner.end()
    assert find_computing() == {PLACE}
    computation.end()
    computation.end()
    assert find_computing() == set()


def test_what_a_function_starts() -> None:
    computation = Computation(PLACE, 30)
    computation.begin()
    context = contextvars.copy_context()

    async def child() -> Any:
        return find_computing(), await asyncio.to_thread(find_computing)

    async def parent() -> Any:
        return await asyncio.create_task(child())

    assert asyncio.run(parent()) == ({PLACE}, {PLACE})
    computation.end()
    # What goes on after it is over is not a part of it.
    assert context.run(find_computing) == set()


def test_it_may_end_in_another_context() -> None:
    computation = Computation(PLACE, 30)
    computation.begin()
    elsewhere(computation.end)
    assert find_computing() == set()
    Computation(PLACE, 30).end()


def test_a_stream() -> None:
    computation = Computation(PLACE, 30)
    computation.begin_item()
    assert find_computing() == {PLACE}
    assert elsewhere(find_computing) == set()
    # It goes on in another thread.
    elsewhere(computation.begin_item)
    assert find_computing() == set()
    computation.begin_item()
    assert find_computing() == {PLACE}
    computation.end()
    assert find_computing() == set()
    assert computing._streams == {}


def test_a_stream_that_nobody_reads() -> None:
    computation = Computation(PLACE, 0.05)
    computation.begin_item()
    assert find_computing() == {PLACE}
    time.sleep(0.06)
    # Its lock has ended.
    assert find_computing() == set()
    computation.end()
