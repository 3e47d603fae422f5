"""Promise 1: the source fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tests.faults.experiment import experiment
from tests.faults.lab import MODES, Lab, Source, noise
from tests.faults.outcome import Finding, Outcome, check, compare

# Less than a chunk, and several chunks.
SIZES = (10, 1_500_000)


def _items(size: int) -> list[Any]:
    return [1, noise(size), (2, noise(size))]


def _left_behind(lab: Lab, lock: Any, options: dict[str, Any]) -> Finding:
    """Nothing may be published, and the lock must be free."""
    if lab.holds("key", **options):
        return Finding(Outcome.WRONG, "published")
    return check(not lock.locked() and lock.full_cache_key not in lab.cache, note="lock held")


def _consume(lab: Lab, source: Callable[[], Any], items: list[Any], error: type[BaseException]) -> Iterator[Finding]:
    for options in MODES:
        got = []
        lock = lab.lock()
        try:
            for item in lab.iterate("key", source, lock=lock, **options):
                got.append(item)
        except error:
            found = compare(got, items, None)
        else:
            found = Finding(Outcome.SHORT, "swallowed")
        yield found
        yield _left_behind(lab, lock, options)
        lab.cache.clear()


@experiment(1, "the source raises behind its items", djblets=Outcome.SHORT)
def raises_behind(lab: Lab) -> Iterator[Finding]:
    for size in SIZES:
        items = _items(size)
        yield from _consume(lab, Source(*items, error=ValueError("no more")), items, ValueError)


@experiment(1, "the source raises before its first item", djblets=Outcome.SHORT)
def raises_at_once(lab: Lab) -> Iterator[Finding]:
    yield from _consume(lab, Source(error=OSError("nothing")), [], OSError)


@experiment(1, "the callable raises", djblets=Outcome.RIGHT)
def callable_raises(lab: Lab) -> Iterator[Finding]:
    yield from _consume(lab, lambda: 1 // 0, [], ZeroDivisionError)


@experiment(1, "the callable returns None or a number", djblets=Outcome.SHORT)
def no_iterable(lab: Lab) -> Iterator[Finding]:
    for nothing in (None, 5):
        yield from _consume(lab, lambda nothing=nothing: nothing, [], TypeError)


@experiment(1, "Ctrl+C in the source", djblets=Outcome.RIGHT)
def interrupted(lab: Lab) -> Iterator[Finding]:
    for size in SIZES:
        items = _items(size)
        yield from _consume(lab, Source(*items, error=KeyboardInterrupt()), items, KeyboardInterrupt)


@experiment(1, "the consumer stops early", djblets=Outcome.RIGHT)
def abandoned(lab: Lab) -> Iterator[Finding]:
    for options in MODES:
        lock = lab.lock()
        closed = []

        def source(closed: list[bool] = closed) -> Iterator[Any]:
            try:
                yield from _items(1_500_000)
            finally:
                closed.append(True)

        items = lab.iterate("key", source, lock=lock, **options)
        next(items), next(items)
        items.close()
        yield check(closed == [True], note="source left open")
        yield _left_behind(lab, lock, options)
        lab.cache.clear()


@experiment(1, "the computation of one value raises", djblets={"*": Outcome.RIGHT})
def value_raises(lab: Lab) -> Iterator[Finding]:
    for large in (False, True):
        for error in (ValueError, KeyboardInterrupt):
            lock = lab.lock()
            try:
                lab.memoize("key", lambda error=error: _raise(error), large_data=large, lock=lock)
            except error:
                yield _left_behind(lab, lock, {})
            else:
                yield Finding(Outcome.SHORT, "swallowed")


def _raise(error: type[BaseException]) -> None:
    raise error("no value")
