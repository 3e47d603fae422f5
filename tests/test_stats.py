"""Statistics of this process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.cache.backends.base import BaseCache

from fastblets import stats
from fastblets.cache.backend import cache_memoize
from fastblets.signals import cache_event, tell

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def collecting() -> Iterator[None]:
    stats.reset()
    stats.collect()
    yield
    stats.stop()
    stats.reset()


def counts(name: str) -> dict[str, int]:
    return {kind: found["count"] for kind, found in stats.snapshot()[name].items()}


def test_calls_are_counted(cache_backend: BaseCache) -> None:
    for number in range(3):
        for _ in range(2):
            cache_memoize(("report", str(number)), lambda: 1)
    cache_memoize("secret", lambda: 1, large_data=True)
    assert counts("report") == {"miss": 3, "computed": 3, "stored": 3, "hit": 3}
    assert counts("other") == {"miss": 1, "computed": 1, "stored": 1}
    assert stats.snapshot().keys() == {"report", "other"}
    assert stats.snapshot()["other"]["stored"]["chunks"] == 1
    assert stats.snapshot()["other"]["stored"]["bytes"] > 1


def test_times_and_sizes_are_added() -> None:
    tell("stored", "report", 2.0, 100, 1)
    tell("stored", "report", 5.0, 50)
    tell("stored", "report", 1.0)
    tell("hit", "report")
    assert stats.snapshot() == {
        "report": {
            "stored": {"count": 3, "seconds": 8.0, "longest": 5.0, "bytes": 150, "chunks": 1},
            "hit": {"count": 1, "seconds": 0.0, "longest": 0.0, "bytes": 0, "chunks": 0},
        }
    }


def test_a_snapshot_is_a_copy_and_can_be_written_as_json() -> None:
    tell("computed", "report", 1.5)
    first = stats.snapshot()
    assert json.loads(json.dumps(first)) == first
    tell("computed", "report", 1.5)
    assert first["report"]["computed"]["count"] == 1
    first["report"]["computed"]["count"] = 100
    first.clear()
    assert counts("report") == {"computed": 2}


def test_nothing_is_kept_after_a_reset() -> None:
    tell("hit", "report")
    stats.reset()
    assert stats.snapshot() == {}
    tell("hit", "report")
    assert counts("report") == {"hit": 1}


def test_nothing_is_counted_twice_or_after_the_end() -> None:
    stats.collect()
    tell("hit", "report")
    stats.stop()
    assert not cache_event.receivers
    tell("hit", "report")
    assert counts("report") == {"hit": 1}


def test_the_number_of_names_is_bounded() -> None:
    for number in range(stats.MOST_NAMES + 50):
        tell("hit", f"name {number}")
    tell("hit", "name 0")
    assert len(stats.snapshot()) == stats.MOST_NAMES + 1
    assert counts("other") == {"hit": 50}
    assert counts("name 0") == {"hit": 2}


def test_threads_lose_no_event() -> None:
    def work() -> None:
        for _ in range(2000):
            tell("computed", "report", 0.5)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert stats.snapshot()["report"]["computed"] == {
        "count": 8000,
        "seconds": 4000.0,
        "longest": 0.5,
        "bytes": 0,
        "chunks": 0,
    }


@pytest.mark.linux("fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_begins_anew() -> None:
    tell("hit", "report")
    # A thread may be counting when the process forks.
    with stats._mutex:
        pid = os.fork()
        if pid == 0:
            try:
                is_empty = stats.snapshot() == {}
                tell("miss", "report")
                os._exit(0 if is_empty and counts("report") == {"miss": 1} else 1)
            finally:
                os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert counts("report") == {"hit": 1}


PROJECT = """
import django
from django.conf import settings

settings.configure(
    CACHES={{"default": {{"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}}},
    INSTALLED_APPS=["fastblets"],
    {setting}
)
django.setup()
from fastblets import stats
from fastblets.cache.backend import cache_memoize

cache_memoize(("report", "17"), lambda: 1)
print(sorted(stats.snapshot().get("report", ())))
"""


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("FASTBLETS_STATS=True", ["computed", "miss", "stored"]),
        ("FASTBLETS_STATS=False", []),
        ("FASTBLETS_STATS='False'", []),
        ("", []),
    ],
)
def test_the_setting(setting: str, expected: list[Any]) -> None:
    code = PROJECT.format(setting=setting)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(expected)
