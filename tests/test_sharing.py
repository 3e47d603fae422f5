"""Who leads, and what the others learn of it."""

from __future__ import annotations

import os
import threading
import time

import pytest

from fastblets.cache.freshness import Follow
from fastblets.cache.sharing import Outcome, lead_or_follow

PLACE = (None, "key of test_sharing")


def test_one_leads() -> None:
    leader, is_mine = lead_or_follow(PLACE, False)
    assert is_mine
    assert lead_or_follow(PLACE, False) == (leader, False)
    other, is_mine = lead_or_follow(("other", PLACE[1]), True)
    assert is_mine and other.is_stream
    other.end(Outcome.FAILED)
    leader.end(Outcome.STORED)
    leader.end(Outcome.FAILED)
    assert leader.done.result() is Outcome.STORED
    # The next one leads.
    following, is_mine = lead_or_follow(PLACE, False)
    assert is_mine and following is not leader
    # The old one doesn't end it.
    leader.end(Outcome.FAILED)
    assert lead_or_follow(PLACE, False) == (following, False)
    following.end(Outcome.NOT_STORED)


def test_threads() -> None:
    barrier = threading.Barrier(8)
    outcomes = []

    def run() -> None:
        barrier.wait(30)
        leader, is_mine = lead_or_follow(PLACE, False)
        if is_mine:
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
    leader, _ = lead_or_follow(PLACE, False)
    try:
        assert Follow(leader, time.monotonic() + 0.05, 0).block() is None
        assert Follow(leader, time.monotonic() - 1, 0).block() is None
    finally:
        leader.end(Outcome.FAILED)


def test_a_stream_is_waited_for_while_it_goes_on() -> None:
    leader, _ = lead_or_follow(PLACE, True)
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
    leader, _ = lead_or_follow(PLACE, False)
    child = os.fork()
    if child == 0:
        os._exit(0 if lead_or_follow(PLACE, False)[1] else 1)
    _, status = os.waitpid(child, 0)
    leader.end(Outcome.FAILED)
    assert os.waitstatus_to_exitcode(status) == 0
