"""Promise 3: an entry can't be read."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from tests.faults.damages import remove, replace_bytes
from tests.faults.experiment import ALL, experiment
from tests.faults.lab import (
    CHUNK_SIZE,
    COMPRESSED,
    MODES,
    NEW,
    OLD,
    PLAIN,
    PLAIN_ENCRYPTED,
    Lab,
    Options,
    Stored,
    generation,
)
from tests.faults.outcome import Finding, Outcome, check, judge
from tests.faults.subject import UNSEALED

MODULE = "a_module_of_the_last_release"
# Its client logs what it can't unpickle, and returns None.
QUIET = "pymemcache"


class Stubborn:
    """Can be pickled, but no more unpickled."""

    def __getstate__(self) -> dict[str, int]:
        return {"version": 1}

    def __setstate__(self, state: dict[str, int]) -> None:
        raise ValueError("a state of the last release")


def _old_object() -> Any:
    """An object of a class that will be gone when it is read."""
    module = ModuleType(MODULE)
    cls = type("Gone", (), {"__module__": MODULE})
    module.Gone = cls  # type: ignore[attr-defined]
    sys.modules[MODULE] = module
    return cls()


def _forget_class(_: Stored) -> None:
    del sys.modules[MODULE]


def _nothing(_: Stored) -> None:
    pass


@experiment(3, "a class has moved: iterables", djblets=Outcome.SHORT, fastblets=Outcome.REBUILT)
def class_moved(lab: Lab) -> Iterator[Finding]:
    for options in MODES:
        yield lab.survives(_forget_class, options, ["first", _old_object(), "last"])


@experiment(3, "a class has moved: a large value", djblets=Outcome.ERROR, fastblets=Outcome.REBUILT)
def class_moved_large(lab: Lab) -> Iterator[Finding]:
    for options in MODES:
        yield lab.survives_alone(_forget_class, options, _old_object())


def _class_moved_small(lab: Lab, options: Options) -> Iterator[Finding]:
    item = _old_object()
    lab.memoize("small", lambda: item, **options)
    del sys.modules[MODULE]
    yield judge(lab.value("small", lambda: "new", **options), ["old"], ["new"])
    yield judge(lab.value("small", lambda: "third", **options), ["new"], None)


@experiment(3, "a class has moved: a small encrypted value", djblets=Outcome.REBUILT, fastblets=Outcome.REBUILT)
def class_moved_small_encrypted(lab: Lab) -> Iterator[Finding]:
    yield from _class_moved_small(lab, PLAIN_ENCRYPTED)


@experiment(
    3,
    "a class has moved: a small value, where the client takes it for None",
    djblets=Outcome.WRONG,
    fastblets=Outcome.WRONG,
    backends=(QUIET,),
    undetectable=UNSEALED,
)
@experiment(
    3,
    "a class has moved: a small value",
    djblets=Outcome.REBUILT,
    fastblets=Outcome.REBUILT,
    backends=tuple(name for name in ALL if name != QUIET),
)
def class_moved_small(lab: Lab) -> Iterator[Finding]:
    yield from _class_moved_small(lab, PLAIN)


@experiment(3, "__setstate__ raises", djblets=Outcome.SHORT, fastblets=Outcome.REBUILT)
def setstate_raises(lab: Lab) -> Iterator[Finding]:
    for options in MODES:
        yield lab.survives(_nothing, options, ["first", Stubborn(), "last"])


class Ending:
    """What can't be unpickled here looks like the end of an iterable."""

    def __getstate__(self) -> dict[str, int]:
        return {"version": 1}

    def __setstate__(self, state: dict[str, int]) -> None:
        raise StopIteration


@experiment(3, "__setstate__ raises StopIteration", djblets=Outcome.SHORT, fastblets=Outcome.REBUILT)
def setstate_stops(lab: Lab) -> Iterator[Finding]:
    for options in MODES:
        yield lab.survives(_nothing, options, ["first", Ending(), "last"])


@experiment(
    3,
    "__setstate__ raises in the midst of many megabytes",
    djblets=Outcome.SHORT,
    fastblets=Outcome.ERROR,
)
def setstate_raises_late(lab: Lab) -> Iterator[Finding]:
    many_megabytes = ["x" * 1_000_000] * 10
    for options in (PLAIN, COMPRESSED):
        for item in (Stubborn(), Ending()):
            yield lab.survives(_nothing, options, [*many_megabytes, item, *many_megabytes])


@experiment(3, "the last pickle is cut short", djblets=Outcome.SHORT, fastblets=Outcome.REBUILT)
def pickle_cut(lab: Lab) -> Iterator[Finding]:
    pickles = b"".join(pickle.dumps(item, 0) for item in OLD)
    for options in MODES:
        for length in (1, 10, len(pickles) // 2, len(pickles) - 1):
            yield lab.survives(lambda stored, length=length: stored.set_pickles(pickles[:length]), options)


@experiment(3, "foreign bytes in a chunk", djblets={"*": Outcome.SHORT}, fastblets=Outcome.REBUILT)
def foreign_bytes(lab: Lab) -> Iterator[Finding]:
    for options in MODES:
        for foreign in (b"\xff" * 100, b"<html>Bad gateway</html>", b"\0" * 50, b"{}"):
            yield lab.survives(replace_bytes(0, foreign), options)


@experiment(3, "a small encrypted value is foreign or damaged", djblets=Outcome.REBUILT, fastblets=Outcome.REBUILT)
def small_foreign(lab: Lab) -> Iterator[Finding]:
    options = MODES[1]
    for foreign in (b"", b"short", b"\xff" * 100, "text", None, 5, [b"x"], bytearray(40)):
        lab.memoize("small", lambda: "old", **options)
        lab.cache.set(lab.full_key("small", **options), foreign)
        yield judge(lab.value("small", lambda: "new", **options), ["old"], ["new"])
        yield judge(lab.value("small", lambda: "third", **options), ["new"], None)


def _transplant(lab: Lab, written: Options, read: Options) -> None:
    """Put an entry as one mode writes it where another looks for it."""
    source = lab.store("key", OLD, **written)
    target = Stored(lab, "key", read)
    chunks = source.stored_chunks
    clear = not source.encrypted and not target.encrypted
    target.put(chunks, str(len(chunks)) if clear else source.stored_count)


@experiment(3, "the flags were others when it was stored", djblets=Outcome.SHORT, fastblets=Outcome.REBUILT)
def flags_changed(lab: Lab) -> Iterator[Finding]:
    for written in MODES:
        for read in MODES:
            if written is not read:
                _transplant(lab, written, read)
                yield judge(lab.iterate("key", NEW, **read), OLD, NEW)
                yield judge(lab.iterate("key", ["third"], **read), NEW, None)
                lab.cache.clear()


@experiment(3, "the encryption key was another when it was stored", djblets=Outcome.REBUILT, fastblets=Outcome.REBUILT)
def other_encryption_key(lab: Lab) -> Iterator[Finding]:
    for read in MODES[1::2]:
        written = {**read, "encryption_key": b"another 16 bytes"}
        lab.store("key", OLD, **written)
        yield judge(lab.iterate("key", NEW, **read), OLD, NEW)
        _transplant(lab, written, read)
        yield judge(lab.iterate("key", NEW, **read), OLD, NEW)
        lab.cache.clear()


@experiment(3, "a large value's entry has another number of items", djblets=Outcome.ERROR, fastblets=Outcome.REBUILT)
def item_count(lab: Lab) -> Iterator[Finding]:
    for options in MODES:
        for items in ([], [1, 2], [1, 2, 3]):
            lab.store("key", items, **options)
            for new in ("new", "third"):
                yield judge(lab.value("key", lambda new=new: new, large_data=True, **options), None, ["new"])


def _break_last(stored: Stored) -> None:
    last = stored.count - 1
    stored.set_bytes(last, b"\xff" * 1000)


@experiment(3, "the last of several chunks is damaged", djblets=Outcome.SHORT, fastblets=Outcome.REBUILT)
def last_chunk(lab: Lab) -> Iterator[Finding]:
    old, new = generation("old"), generation("new")
    assert len(repr(old)) > 2 * CHUNK_SIZE
    for options in MODES:
        yield lab.survives(_break_last, options, old, new)


def _rebuilt_under_lock(lab: Lab, damage: Callable[[Stored], None]) -> Iterator[Finding]:
    for options in MODES:
        damage(lab.store("key", OLD, **options))
        lock = lab.lock()
        held = []

        def source(held: list[bool] = held, lock: Any = lock) -> list[Any]:
            held.append(lock.locked())
            return NEW

        yield judge(lab.iterate("key", source, lock=lock, **options), None, NEW)
        if held:
            yield check(held == [True], Outcome.REBUILT, "without the lock")
        yield check(not lock.locked(), note="lock held")


@experiment(3, "an unreadable entry is rebuilt under the lock", djblets=Outcome.SHORT, fastblets=Outcome.REBUILT)
def under_lock(lab: Lab) -> Iterator[Finding]:
    for damage in (remove(0), replace_bytes(0, b"\xff")):
        yield from _rebuilt_under_lock(lab, damage)


@experiment(3, "while waiting for the lock, another rebuilds the entry", djblets=Outcome.WRONG)
def reread_under_lock(lab: Lab) -> Iterator[Finding]:
    for options in MODES:
        remove(0)(lab.store("key", OLD, **options))
        lock = lab.lock()
        acquire = lock.acquire

        def acquire_late(*args: Any, options: Options = options, acquire: Any = acquire) -> bool:
            lab.store("key", NEW, **options)
            return bool(acquire(*args))

        lock.acquire = acquire_late
        source = ["computed once more"]
        yield judge(lab.iterate("key", source, lock=lock, **options), NEW, None)
