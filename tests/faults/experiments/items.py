"""Promise 2: an item can't be pickled."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from tests.faults.experiment import experiment
from tests.faults.lab import MODES, Lab, noise
from tests.faults.outcome import Finding, Outcome, check, judge


class Unpicklable:
    def __reduce__(self) -> Any:
        raise TypeError("not to be pickled")


class Slotted:
    __slots__ = ("value",)


def _deep() -> list[Any]:
    outermost: list[Any] = []
    for _ in range(100_000):
        outermost = [outermost]
    return outermost


def _survives(lab: Lab, item: Any) -> Iterator[Finding]:
    """Items arrive as the very objects, nothing is cached, and one error is logged."""
    for options in MODES:
        for size in (10, 1_500_000):
            items = [1, item, noise(size), 2]
            lab.logs.records.clear()
            got = judge(map(id, lab.iterate("key", items, **options)), list(map(id, items)), None)
            yield got
            if got.outcome is Outcome.RIGHT:
                yield check(not lab.holds("key", **options), note="published")
                yield check(lab.logs.count(level=logging.ERROR) == 1, note="not one error logged")


def _survives_alone(lab: Lab, item: Any) -> Iterator[Finding]:
    for options in MODES:
        yield judge(map(id, lab.value("key", lambda: item, large_data=True, **options)), [id(item)], None)
        yield check(not lab.holds("key", **options), note="published")


@experiment(2, "one item can't be pickled", djblets=Outcome.SHORT)
def unpicklable(lab: Lab) -> Iterator[Finding]:
    yield from _survives(lab, Unpicklable())


@experiment(2, "one item has slots, which protocol 0 can't pickle", djblets=Outcome.SHORT)
def slotted(lab: Lab) -> Iterator[Finding]:
    for mode, options in enumerate(MODES):
        for size in (10, 1_500_000):
            key = f"key {mode} {size}"
            items = [1, Slotted(), noise(size), 2]
            got = judge(map(id, lab.iterate(key, items, **options)), list(map(id, items)), None)
            yield got
            if got.outcome is Outcome.RIGHT:
                yield check(lab.holds(key, **options), note="not published")


@experiment(2, "one item is nested too deeply", djblets=Outcome.SHORT)
def deep(lab: Lab) -> Iterator[Finding]:
    yield from _survives(lab, _deep())


@experiment(2, "a large value can't be pickled", djblets=Outcome.ERROR)
def value(lab: Lab) -> Iterator[Finding]:
    for item in (Unpicklable(), _deep()):
        yield from _survives_alone(lab, item)
