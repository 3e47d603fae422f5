"""Measuring a cache: what is measured, and that nothing of it stays."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from django.core.cache.backends.base import BaseCache

from fastblets.diagnostics import measure as module
from fastblets.diagnostics.measure import Measurement, NotStoredError, measure
from tests.backends import stored_bytes, use_cache

NAMES = [
    "round trip to the cache",
    "small value, miss",
    "small value, hit",
    "large value, miss",
    "large value, hit",
    "iterable, miss",
    "iterable, hit",
]


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SMALL_ROUNDS", 3)
    monkeypatch.setattr(module, "_LARGE_ROUNDS", 2)


@pytest.mark.parametrize("encrypt", [False, True])
def test_each_job_has_its_rounds(locmem: BaseCache, encrypt: bool) -> None:
    progress: list[tuple[int, int, str]] = []
    measured = measure(records=10, use_encryption=encrypt, progress=lambda *step: progress.append(step))
    assert [row.name for row in measured] == NAMES
    assert [row.rounds for row in measured] == [3] * 3 + [2] * 4
    assert [(done, total) for done, total, _ in progress] == [(done, 17) for done in range(17)]
    assert list(dict.fromkeys(name for _, _, name in progress)) == NAMES
    assert stored_bytes(locmem) == {}


def test_a_rate_is_bytes_of_pickles_by_the_median(locmem: BaseCache, monkeypatch: pytest.MonkeyPatch) -> None:
    # Each round takes half a second more than the one before.
    times = iter(time for number in range(100) for time in (0.0, number / 2))
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: next(times)))
    sizes = []
    inspect = module.inspect_entry
    monkeypatch.setattr(
        module, "inspect_entry", lambda *args, **kwargs: sizes.append(inspect(*args, **kwargs)) or sizes[-1]
    )
    measured = measure(records=10)
    assert [row.seconds for row in measured] == [0.5, 2.0, 3.5, 4.75, 5.75, 6.75, 7.75]
    large, iterable = (report.pickled_bytes / 1e6 for report in sizes)
    assert [row.megabytes_per_second for row in measured[3:]] == [
        large / 4.75,
        large / 5.75,
        iterable / 6.75,
        iterable / 7.75,
    ]
    assert [row.megabytes_per_second for row in measured[:3]] == [None] * 3


def test_a_row_is_plain_data() -> None:
    row = Measurement("a hit", 3, 0.5)
    assert row.to_dict() == {"name": "a hit", "rounds": 3, "seconds": 0.5, "megabytes_per_second": None}


@pytest.mark.parametrize("stop", [0, 5, 12])
def test_what_is_interrupted_leaves_nothing(locmem: BaseCache, stop: int) -> None:
    locmem.set("mine", 1)
    before = stored_bytes(locmem)

    def progress(done: int, total: int, name: str) -> None:
        if done == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(records=10, progress=progress)
    assert stored_bytes(locmem) == before


def test_a_cache_that_stores_nothing(db: None) -> None:
    dummy = use_cache({"BACKEND": "django.core.cache.backends.dummy.DummyCache"})
    with dummy, pytest.raises(NotStoredError, match="doesn't give back small values"):
        measure(records=10)


def test_a_cache_that_refuses_chunks(locmem: BaseCache, monkeypatch: pytest.MonkeyPatch) -> None:
    store = type(locmem).set

    def refuse(self: BaseCache, key: str, value: Any, *args: Any, **kwargs: Any) -> None:
        if not isinstance(value, list):
            store(self, key, value, *args, **kwargs)

    monkeypatch.setattr(type(locmem), "set", refuse)
    with pytest.raises(NotStoredError, match="doesn't give back large entries"):
        measure(records=10)
    assert stored_bytes(locmem) == {}
