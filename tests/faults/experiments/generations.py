"""Promises 4 and 5: generations never mix, and a count of chunks is not to be trusted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from fastblets.secrets.crypto import AES_BLOCK_SIZE
from tests.faults import failing, replaced
from tests.faults.damages import remove
from tests.faults.experiment import LASTING, experiment
from tests.faults.lab import (
    CHUNK_SIZE,
    MODES,
    NEW,
    OLD,
    Lab,
    Options,
    Source,
    generation,
    kill_self,
)
from tests.faults.outcome import Finding, Outcome, check, compare, judge
from tests.faults.subject import UNSEALED

OLD_GENERATION = generation("old")
NEW_GENERATION = generation("new")
THIRD = ["third"]


def _after(lab: Lab, options: Options) -> Finding:
    """What a reader gets: one of the two generations, or a miss."""
    return _one_of(list(lab.iterate("key", THIRD, **options)), OLD_GENERATION, NEW_GENERATION, THIRD)


def _one_of(got: list[Any], *generations: list[Any]) -> Finding:
    if got == generations[-1]:
        return Finding(Outcome.REBUILT)
    found = [compare(got, each, None) for each in generations]
    return min(found, key=lambda finding: finding.outcome.severity)


def _overwrite(lab: Lab, options: Options, source: Any = None) -> Iterator[Any]:
    return lab.iterate("key", source or NEW_GENERATION, force_overwrite=True, **options)


@experiment(4, "an overwrite is abandoned", djblets=Outcome.WRONG, fastblets=Outcome.REBUILT)
def abandoned(lab: Lab) -> Iterator[Finding]:
    for options in MODES:
        for taken in (1, 4, 6):
            lab.store("key", OLD_GENERATION, **options)
            overwrite = _overwrite(lab, options)
            _take(overwrite, taken)
            overwrite.close()
            yield _after(lab, options)


@experiment(4, "an overwrite's source fails", djblets=Outcome.WRONG, fastblets=Outcome.REBUILT)
def source_fails(lab: Lab) -> Iterator[Finding]:
    for options in MODES:
        lab.store("key", OLD_GENERATION, **options)
        try:
            for _ in _overwrite(lab, options, Source(*NEW_GENERATION[:4], error=ValueError())):
                pass
        except ValueError:
            pass
        yield _after(lab, options)


@experiment(4, "an overwrite's process is killed", djblets=Outcome.WRONG, fastblets=Outcome.REBUILT, backends=LASTING)
def writer_killed(lab: Lab) -> Iterator[Finding]:
    for options in MODES:
        lab.store("key", OLD_GENERATION, **options)
        lab.kill_while(partial(_overwrite_until, lab, options, 4))
        yield _after(lab, options)


def _overwrite_until(lab: Lab, options: Options, items: int) -> None:
    for number, _ in enumerate(_overwrite(lab, options)):
        if number == items:
            kill_self()


@experiment(4, "an overwrite's item can't be pickled", djblets=Outcome.WRONG, fastblets=Outcome.REBUILT)
def unpicklable(lab: Lab) -> Iterator[Finding]:
    for options in MODES:
        lab.store("key", OLD_GENERATION, **options)
        list(_overwrite(lab, options, [*NEW_GENERATION[:4], (item for item in ())]))
        yield _after(lab, options)


@experiment(4, "one of an overwrite's writes fails", djblets=Outcome.WRONG, fastblets=Outcome.REBUILT)
def write_fails(lab: Lab) -> Iterator[Finding]:
    for options in MODES[::3]:
        for failing_call in range(6):
            calls = iter(range(100))
            lab.store("key", OLD_GENERATION, **options)
            with failing("set", "set_many", when=lambda _, calls=calls, n=failing_call: next(calls) == n):
                yield judge(_overwrite(lab, options), NEW_GENERATION, None)
            yield _after(lab, options)


@experiment(4, "nothing can be written, nor deleted", djblets=Outcome.RIGHT)
def nothing_works(lab: Lab) -> Iterator[Finding]:
    """The old generation stays whole, since nothing is written over it."""
    for options in MODES:
        lab.store("key", OLD_GENERATION, **options)
        with failing("delete", "set", "set_many"):
            yield judge(_overwrite(lab, options), NEW_GENERATION, None)
        yield _after(lab, options)


@experiment(4, "the cache refuses one of the chunks", djblets=Outcome.WRONG, fastblets=Outcome.REBUILT)
def refused(lab: Lab) -> Iterator[Finding]:
    cache = lab.cache
    set_many = cache.set_many

    def refuse_first(values: dict[str, Any], **options: Any) -> list[str]:
        first, *others = values
        set_many({key: values[key] for key in others}, **options)
        return [first]

    for options in MODES:
        lab.store("key", OLD_GENERATION, **options)
        with replaced(cache, set_many=refuse_first):
            yield judge(_overwrite(lab, options), NEW_GENERATION, None)
        yield _after(lab, options)


@experiment(4, "a read during an overwrite", djblets=Outcome.WRONG, fastblets=Outcome.REBUILT)
def read_during(lab: Lab) -> Iterator[Finding]:
    for options in MODES:
        for taken in (4, 6):
            lab.store("key", OLD_GENERATION, **options)
            overwrite = _overwrite(lab, options)
            _take(overwrite, taken)
            yield _after(lab, options)
            overwrite.close()


def _read_around(lab: Lab, options: Options, meanwhile: Callable[[], Any], *, backwards: bool = False) -> Finding:
    """Read, with something going on between the first chunk and the others, in whatever order they are read."""
    get_many = lab.cache.get_many

    def get_many_late(keys: list[str], *more: Any) -> dict[str, Any]:
        if len(keys) == 1:
            # The database cache gets single keys by it, too.
            return get_many(keys, *more)
        parts = [keys[:1], keys[1:]]
        first, then = reversed(parts) if backwards else parts
        found = get_many(first)
        meanwhile()
        return {**found, **get_many(then)}

    with replaced(lab.cache, get_many=get_many_late):
        return _after(lab, options)


def _overtaken(lab: Lab, modes: list[Options]) -> Iterator[Finding]:
    for options in modes:
        lab.store("key", OLD_GENERATION, **options)
        yield _read_around(lab, options, partial(list, _overwrite(lab, options)))


@experiment(
    4,
    "a whole overwrite between two chunks of one read: compressed",
    djblets=Outcome.REBUILT,
    fastblets=Outcome.REBUILT,
)
def overtaken_compressed(lab: Lab) -> Iterator[Finding]:
    yield from _overtaken(lab, MODES[2:])


@experiment(
    4,
    "a whole overwrite between two chunks of one read: plain",
    djblets=Outcome.WRONG,
    fastblets=Outcome.WRONG,
    undetectable=UNSEALED,
)
def overtaken_plain(lab: Lab) -> Iterator[Finding]:
    yield from _overtaken(lab, MODES[:2])


@experiment(
    4,
    "the start of an overwrite between two chunks of one read: plain",
    djblets=Outcome.WRONG,
    fastblets=Outcome.REBUILT,
)
def overtaken_by_start(lab: Lab) -> Iterator[Finding]:
    for options in MODES[:2]:
        lab.store("key", OLD_GENERATION, **options)
        overwrite = _overwrite(lab, options)

        yield _read_around(lab, options, partial(_take, overwrite, 5), backwards=True)
        overwrite.close()


def _take(items: Iterator[Any], count: int) -> None:
    for _ in range(count):
        next(items)


@experiment(5, "a count of a thousand million chunks", djblets=Outcome.HANG, fastblets=Outcome.REBUILT, seconds=6)
def huge_count(lab: Lab) -> Iterator[Finding]:
    asked: list[int] = []
    get_many = lab.cache.get_many

    def noting(keys: list[str], *more: Any) -> dict[str, Any]:
        asked.append(len(keys))
        return get_many(keys, *more)

    for options in MODES:
        for count in ("1000000000", "9" * 30):
            with replaced(lab.cache, get_many=noting):
                yield lab.survives(lambda stored, count=count: stored.set_count(count), options)
        yield check(max(asked) <= 64, Outcome.COSTLY, f"{max(asked)} keys at once")


COUNTS = ("-1", "", "x", " 3", "1e3", "٣", "0x1", None, 0, 2.5, [], {}, b"1", True)


@experiment(5, "a count that is no count", djblets=Outcome.SHORT, fastblets=Outcome.REBUILT)
def garbage_count(lab: Lab) -> Iterator[Finding]:
    for options in MODES:
        for count in COUNTS:
            found = lab.survives(lambda stored, count=count: stored.set_count(count), options)
            # Some of them are taken for what was meant.
            yield Finding(Outcome.REBUILT) if found.outcome is Outcome.RIGHT else found


@experiment(5, "a chunk is gone", djblets=Outcome.REBUILT, fastblets=Outcome.REBUILT)
def evicted(lab: Lab) -> Iterator[Finding]:
    for options in MODES:
        for index in range(2):
            yield lab.survives(remove(index), options, OLD_GENERATION, NEW_GENERATION)


@experiment(5, "the count is too high: compressed", djblets=Outcome.REBUILT, fastblets=Outcome.REBUILT)
def count_too_high(lab: Lab) -> Iterator[Finding]:
    for options in MODES[2:]:
        yield lab.survives(lambda stored: stored.set_count(str(stored.count + 1)), options)


@experiment(5, "the count is too low: compressed", djblets=Outcome.REBUILT, fastblets=Outcome.REBUILT)
def count_too_low(lab: Lab) -> Iterator[Finding]:
    for options in MODES[2:]:
        yield lab.survives(lambda stored: stored.set_count("1"), options, OLD_GENERATION, NEW_GENERATION)


@experiment(5, "the count is too low, at the end of an item: plain", djblets=Outcome.SHORT, fastblets=Outcome.REBUILT)
def count_too_low_plain(lab: Lab) -> Iterator[Finding]:
    for options, head in zip(MODES[:2], (0, AES_BLOCK_SIZE), strict=True):
        # A pickled text of this length fills the first chunk: V, the text, \np0\n.
        items = ["x" * (CHUNK_SIZE - head - 6), *OLD]
        yield lab.survives(lambda stored: stored.set_count("1"), options, items, NEW)
