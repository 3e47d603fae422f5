"""A few seconds of load, on real servers: what must hold on any machine, however busy it is."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any
from xml.dom.minidom import parseString

import pytest

from tests.load.chart import draw
from tests.load.report import PAGE, SLOW, Run, tell_errors, tell_times
from tests.load.traffic import EXPIRATION, Attempt, Call, Phase, Plan, Seen, let_call
from tools.pages import replace_part

pytestmark = pytest.mark.linux("servers")

STALE = 0.4
RETRY_AFTER = 3
#: How long the servers' own clocks may lag behind: memcached counts whole seconds.
LAG = 2
#: The clock's milliseconds are cut off when they are stored.
MILLISECOND = 0.002

PROCESSES, THREADS = 2, 4
CALLERS = PROCESSES * THREADS
WORKS, COMES_BACK, FAILS = 0, 1, 2
PHASES = [
    Phase(0.7),
    # Longer than the old values may be served.
    Phase(0.4, pause=EXPIRATION + STALE + 0.1),
    # All values have expired by then.
    Phase(1.3, is_down=True, pause=EXPIRATION + 0.1),
]


def plan(directory: Path, **more: Any) -> Plan:
    few: dict[str, Any] = {"processes": PROCESSES, "threads": THREADS, "keys": 3, "computing": 0.1, "thinking": 0.04}
    # However busy the machine is.
    return Plan(str(directory), PHASES, is_thorough=True, **few, **more)


def of_each_key(rows: Sequence[Any]) -> list[list[Any]]:
    ordered = sorted(rows, key=lambda row: (row.key, row.begin))
    return [list(group) for _, group in groupby(ordered, key=lambda row: row.key)]


@pytest.fixture
def seen(shared: dict[str, Any], tmp_path: Path) -> Seen:
    policy = {"stale_while_revalidate": STALE, "stale_if_error": 600, "retry_after": RETRY_AFTER, "wait": None}
    return let_call(shared, plan(tmp_path, policy=policy))


def test_with_a_policy(seen: Seen) -> None:
    assert {call.phase for call in seen.calls} == {WORKS, COMES_BACK, FAILS}
    assert_no_error_reaches_a_caller(seen.calls)
    for attempts in of_each_key(seen.attempts):
        assert_computed_once_for_each_expiry(attempts)
        assert_not_tried_again_too_soon(attempts)
    assert_not_older_than_the_windows(seen.calls)


def assert_no_error_reaches_a_caller(calls: list[Call]) -> None:
    """All keys have had a value when the source begins to fail."""
    assert [call for call in calls if call.version is None] == []


def assert_computed_once_for_each_expiry(attempts: list[Attempt]) -> None:
    made = [attempt for attempt in attempts if attempt.version is not None]
    # Once in each phase at least, since the pauses are long enough.
    assert {attempt.phase for attempt in made} == {WORKS, COMES_BACK}
    # A value is fresh from when it is stored on, which is after it was made.
    assert [pair for pair in pairwise(made) if pair[1].begin < pair[0].end + EXPIRATION - MILLISECOND] == []


def assert_not_tried_again_too_soon(attempts: list[Attempt]) -> None:
    failed = [attempt for attempt in attempts if attempt.version is None]
    assert failed
    assert [pair for pair in pairwise(failed) if pair[1].begin < pair[0].end + RETRY_AFTER - LAG] == []


def assert_not_older_than_the_windows(calls: list[Call]) -> None:
    """While the source works. It is stored before the first call that returns it ends."""
    stored: dict[str, float] = {}
    for call in calls:
        assert call.version is not None
        stored[call.version] = min(call.end, stored.get(call.version, call.end))
    ages = [call.begin - stored[call.version] for call in calls if call.phase != FAILS and call.version]
    assert max(ages) < EXPIRATION + STALE + MILLISECOND
    # The oldest of all are served while the source fails.
    assert max(call.begin - stored[call.version] for call in calls if call.version) > EXPIRATION


@pytest.mark.slow
def test_without_a_policy_each_caller_gets_the_error(shared: dict[str, Any], tmp_path: Path) -> None:
    """What the test above would see, too, if the policy did nothing."""
    seen = let_call(shared, plan(tmp_path, locked=True))
    for calls, attempts in zip(of_each_key(seen.calls), of_each_key(seen.attempts), strict=True):
        for rows in (calls, attempts):
            assert sum(row.version is None for row in rows) >= CALLERS


def test_what_is_told_of_a_run() -> None:
    calls = [Call(phase, 0, second, second + took, version) for phase, second, took, version in ROWS]
    works = Seen(calls[:2], [Attempt(0, 0, 0, 0.3, "a")])
    run = Run("memcached", "`lock`", works, Seen(calls, [Attempt(1, 0, 2, 2.3, None)]))
    assert "| memcached | `lock` | 2 | 50.0% | 160.0 ms |" in tell_times([run])
    assert tell_errors([run]).endswith("| memcached | `lock` | 2 | 1 | 50.0% | 1 |")
    chart = parseString(draw([("memcached, lock", run.fails.calls)], SLOW))
    bars = [bar.getAttribute("class") for bar in chart.getElementsByTagName("rect")]
    assert bars == ["bar", "slower", "bar", "slower"]


#: Phase, begin, seconds and version of calls.
ROWS = [(0, 0.0, 0.3, "a"), (0, 1.0, 0.02, "a"), (1, 2.0, 0.3, None), (1, 2.5, 0.1, "a")]


def test_the_page_has_room_for_what_is_told() -> None:
    page = PAGE.read_text()
    for name in ("load", "load times", "load errors"):
        assert replace_part(page, name, "told").count("told") == 1 + page.count("told")
    with pytest.raises(ValueError, match="not exactly one part"):
        replace_part(page, "unknown", "told")
