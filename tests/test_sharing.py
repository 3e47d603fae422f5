"""Who leads, and what the others learn of it."""

from __future__ import annotations

import os
import threading
import time

import pytest

from fastblets.cache import sharing
from fastblets.cache.freshness import Follow
from fastblets.cache.sharing import Leader, Outcome, lead_or_follow

PLACE = ("default", "key of test_sharing")


def lead(*, is_stream: bool = False) -> Leader:
    leader = Leader(PLACE, is_stream)
    assert lead_or_follow(leader, 30) is leader
    return leader


def test_one_leads() -> None:
    leader = lead()
    assert lead_or_follow(Leader(PLACE, False), 30) is leader
    other = Leader(("other", PLACE[1]), True)
    assert lead_or_follow(other, 30) is other
    other.end(Outcome.FAILED)
    leader.end(Outcome.STORED)
    leader.end(Outcome.FAILED)
    assert leader.done.result() is Outcome.STORED
    # The next one leads.
    following = lead()
    # The old one doesn't end it, nor does one that never led.
    leader.end(Outcome.FAILED)
    Leader(PLACE, False).end(Outcome.FAILED)
    assert lead_or_follow(Leader(PLACE, False), 30) is following
    following.end(Outcome.NOT_STORED)


def test_a_stream_that_nobody_reads() -> None:
    stream = lead(is_stream=True)
    assert lead_or_follow(Leader(PLACE, False), 30) is stream
    # While it waits itself, it is waited for.
    assert Follow(stream, time.monotonic() + 0.05, 0).get_timeout() > 0
    stream.progress = time.monotonic() - 31
    other = lead()
    stream.end(Outcome.STORED)
    assert lead_or_follow(Leader(PLACE, False), 30) is other
    # A function computes for as long as it takes.
    other.progress = time.monotonic() - 1000
    assert lead_or_follow(Leader(PLACE, False), 30) is other
    other.end(Outcome.STORED)


def test_the_garbage_collector_ends_another_one() -> None:
    other = Leader(("other", PLACE[1]), True)
    assert lead_or_follow(other, 30) is other
    with sharing._mutex:
        other.end(Outcome.FAILED)
    assert other.done.done()


def test_threads() -> None:
    barrier = threading.Barrier(8)
    outcomes = []

    def run() -> None:
        barrier.wait(30)
        mine = Leader(PLACE, False)
        leader = lead_or_follow(mine, 30)
        if leader is mine:
            time.sleep(0.1)
            leader.end(Outcome.STORED)
        else:
            outcomes.append(Follow(leader, time.monotonic() + 30, 1).block())

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [Outcome.STORED] * 7


def test_waiting_has_an_end() -> None:
    leader = lead()
    try:
        assert Follow(leader, time.monotonic() + 0.05, 0).block() is None
        assert Follow(leader, time.monotonic() - 1, 0).block() is None
    finally:
        leader.end(Outcome.FAILED)


def test_a_stream_is_waited_for_while_it_goes_on() -> None:
    leader = lead(is_stream=True)
    leader.progress = time.monotonic()
    stopped = threading.Event()

    def produce() -> None:
        for _ in range(6):
            time.sleep(0.1)
            leader.progress = time.monotonic()
        stopped.set()

    thread = threading.Thread(target=produce)
    thread.start()
    try:
        assert Follow(leader, float("inf"), 0.5).block() is None
        assert stopped.is_set()
    finally:
        thread.join()
        leader.end(Outcome.FAILED)


@pytest.mark.linux("fork")
def test_a_child_has_no_leaders() -> None:
    leader = lead()
    child = os.fork()
    if child == 0:
        mine = Leader(PLACE, False)
        os._exit(0 if lead_or_follow(mine, 30) is mine else 1)
    _, status = os.waitpid(child, 0)
    leader.end(Outcome.FAILED)
    assert os.waitstatus_to_exitcode(status) == 0
