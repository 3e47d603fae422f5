"""Promise 9: whatever an entry has become, it is right, rebuilt, or a clear error."""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from typing import Any

from tests.faults.damages import cut, flip, remove, replace, replace_bytes, splice, swap
from tests.faults.experiment import experiment
from tests.faults.lab import (
    CHUNK_SIZE,
    COMPRESSED,
    COMPRESSED_ENCRYPTED,
    MODES,
    NEW,
    OLD,
    PLAIN,
    Damage,
    Lab,
    Stored,
    generation,
)
from tests.faults.outcome import Finding, Outcome, judge
from tests.faults.subject import UNSEALED

OLD_GENERATION, ANOTHER_GENERATION = generation("old"), generation("another")
# A bit in front, in the middle and at the end of what is stored is enough for caches that only carry it.
FEW, MANY = 12, 150


def _positions(lab: Lab, length: int) -> list[int]:
    """Positions all over a length; many of them where a read is quick."""
    step = max(1, length // (MANY if lab.backend == "locmem" else FEW))
    return sorted({*range(0, length, step), *range(min(4, length)), length - 1})


def _harmless(found: Finding, *, same: bool) -> Finding:
    """Where the damage leaves the meaning alone, what was stored may be read."""
    return found if same or found.outcome is not Outcome.RIGHT else Finding(Outcome.WRONG, "damage ignored")


TYPES: tuple[Any, ...] = (
    None,
    5,
    1.5,
    True,
    "",
    "text",
    b"",
    [],
    [None],
    [5],
    ["text"],
    [[]],
    [memoryview],
    (),
    {},
    {0: None},
    {"0": b"x"},
    set(),
    object,
)


@experiment(9, "something else in the place of a chunk", djblets=Outcome.REBUILT, fastblets=Outcome.REBUILT)
def types(lab: Lab) -> Iterator[Finding]:
    for options in MODES:
        for value in TYPES:
            found = lab.survives(replace(0, value), options)
            note = f"{value!r}" if found.outcome.severity > Outcome.ERROR.severity else found.note
            yield Finding(found.outcome, note)


@experiment(9, "an empty chunk: plain", djblets=Outcome.SHORT, fastblets=Outcome.REBUILT)
def empty_chunk(lab: Lab) -> Finding:
    return lab.survives(replace_bytes(0, b""), PLAIN)


def _everywhere(lab: Lab, modes: list[dict[str, Any]], damage: Callable[[int], Damage]) -> Iterator[Finding]:
    """Do that damage at each position of the first chunk."""
    for options in modes:
        for position in _positions(lab, len(lab.store("key", OLD, **options).chunks[0])):
            yield lab.survives(damage(position), options)


@experiment(9, "a bit flipped: compressed", djblets=Outcome.REBUILT, fastblets=Outcome.REBUILT)
def flipped(lab: Lab) -> Iterator[Finding]:
    yield from _everywhere(lab, MODES[2:], flip)


@experiment(
    9,
    "a bit flipped: plain",
    djblets=(Outcome.WRONG, Outcome.SHORT),
    fastblets=(Outcome.WRONG, Outcome.SHORT),
    undetectable=UNSEALED,
)
def flipped_plain(lab: Lab) -> Iterator[Finding]:
    yield from _everywhere(lab, MODES[:2], flip)


@experiment(9, "a chunk cut short: compressed", djblets=Outcome.REBUILT, fastblets=Outcome.REBUILT)
def cut_compressed(lab: Lab) -> Iterator[Finding]:
    yield from _everywhere(lab, MODES[2:], cut)


def _item_ends() -> set[int]:
    """Where the pickles end: cut there, the entry looks whole."""
    lengths = [len(pickle.dumps(item, 0)) for item in OLD]
    return {sum(lengths[:count]) for count in range(len(OLD) + 1)}


def _cut_plain(lab: Lab, positions: Iterable[int]) -> Iterator[Finding]:
    for options in MODES[:2]:
        iv = 16 if options["use_encryption"] else 0
        for position in positions:
            yield lab.survives(cut(iv + position), options)


@experiment(9, "a chunk cut short within an item: plain", djblets=Outcome.SHORT, fastblets=Outcome.REBUILT)
def cut_within_item(lab: Lab) -> Iterator[Finding]:
    ends = _item_ends()
    yield from _cut_plain(lab, sorted({*range(1, max(ends))} - ends))


@experiment(
    9, "a chunk cut short behind an item: plain", djblets=Outcome.SHORT, fastblets=Outcome.SHORT, undetectable=UNSEALED
)
def cut_behind_item(lab: Lab) -> Iterator[Finding]:
    yield from _cut_plain(lab, sorted(_item_ends())[1:-1])


@experiment(9, "a full chunk cut short behind an item: plain", djblets=Outcome.WRONG, fastblets=Outcome.REBUILT)
def full_chunk_cut(lab: Lab) -> Iterator[Finding]:
    """A chunk that isn't the last has but one right length."""
    items = ["a" * (CHUNK_SIZE // 2), "b" * (CHUNK_SIZE // 2 - 12), "c" * 100]
    ends = len(pickle.dumps(items[0], 0)), len(pickle.dumps(items[0], 0)) + len(pickle.dumps(items[1], 0))
    assert ends[1] == CHUNK_SIZE
    for options in MODES[:1]:
        yield lab.survives(cut(ends[0]), options, items, NEW)
        yield lab.survives(replace_bytes(0, b""), options, items, NEW)


def _big_damages(stored: Stored) -> Iterator[Damage]:
    """One for each chunk: swapped, spliced from another key, cut, and gone."""
    for index, chunk in enumerate(stored.chunks):
        yield splice(index, ANOTHER_GENERATION)
        yield cut(len(chunk) // 2, index)
        yield replace(index, None)
        yield remove(index)
        if index:
            yield swap(index - 1, index)


def _all_big_damages(lab: Lab, modes: list[dict[str, Any]]) -> Iterator[Finding]:
    for options in modes:
        for damage in list(_big_damages(lab.store("key", OLD_GENERATION, **options))):
            found = lab.survives(damage, options, OLD_GENERATION, NEW)
            yield _harmless(found, same=False)


@experiment(
    9,
    "chunks swapped, spliced from another key, cut, gone: compressed",
    djblets=Outcome.REBUILT,
    fastblets=Outcome.REBUILT,
    seconds=60,
)
def big(lab: Lab) -> Iterator[Finding]:
    yield from _all_big_damages(lab, MODES[2:])


@experiment(
    9,
    "chunks swapped, spliced from another key, cut, gone: plain",
    djblets=(Outcome.WRONG, Outcome.SHORT),
    fastblets=(Outcome.WRONG, Outcome.SHORT),
    undetectable=UNSEALED,
    seconds=60,
)
def big_plain(lab: Lab) -> Iterator[Finding]:
    yield from _all_big_damages(lab, MODES[:2])


def _zlib_damages() -> Iterator[tuple[str, bytes]]:
    data = b"".join(pickle.dumps(item, 0) for item in OLD)
    whole = zlib.compress(data)
    raw = zlib.compressobj(wbits=-15)
    gzip = zlib.compressobj(wbits=31)
    dictionary = zlib.compressobj(zdict=b"old")
    flushed = zlib.compressobj()
    yield "checksum", whole[:-4] + b"\0\0\0\0"
    yield "no checksum", whole[:-4]
    yield "trailing data", whole + b"trailing"
    yield "a second stream", whole + zlib.compress(data)
    yield "a second empty stream", whole + zlib.compress(b"")
    yield "twice compressed", zlib.compress(whole)
    yield "no header", raw.compress(data) + raw.flush()
    yield "gzip", gzip.compress(data) + gzip.flush()
    yield "dictionary", dictionary.compress(data) + dictionary.flush()
    yield "not finished", flushed.compress(data) + flushed.flush(zlib.Z_SYNC_FLUSH)
    yield "empty", zlib.compress(b"")[:2]
    yield "nothing", b""


@experiment(
    9,
    "zlib streams of all the wrong kinds",
    djblets=Outcome.SHORT,
    fastblets=Outcome.REBUILT,
)
def zlib_streams(lab: Lab) -> Iterator[Finding]:
    for options in (COMPRESSED, COMPRESSED_ENCRYPTED):
        for name, stream in _zlib_damages():
            found = lab.survives(lambda stored, stream=stream: _set_one_chunk(stored, stream), options)
            # What follows a whole stream changes nothing about it.
            found = _harmless(found, same="second" in name or "trailing" in name)
            yield Finding(found.outcome, found.note and f"{name}: {found.note}")


def _set_one_chunk(stored: Stored, stream: bytes) -> None:
    if stream:
        stored.set_stream(stream)
    else:
        stored.set_chunks([b""])


# Arguments that make some opcodes valid, and others nearly so.
ARGUMENTS = (b"", b"\n", b"0\n", b"x\n", b"\0", b"\xff" * 9, b"1\n1\n", b"\x01\0\0\0a")
STACKS = (b"", b"N", b"(", b"(N", b"]", b"}NN", b"(NNN", b")\x81", b"cposix\nabc\n")


def _malformed() -> Iterator[bytes]:
    for stack in STACKS:
        for opcode in range(256):
            for argument in ARGUMENTS:
                yield stack + bytes([opcode]) + argument + b"."


@experiment(9, "malformed pickles", djblets=(Outcome.WRONG, Outcome.SHORT), fastblets=Outcome.REBUILT, seconds=90)
def opcodes(lab: Lab) -> Iterator[Finding]:
    everything = list(_malformed())
    step = 5 if lab.backend == "locmem" else 97
    for data in everything[::step]:
        yield _read_pickle(lab, data)


def _read_pickle(lab: Lab, data: bytes) -> Finding:
    """What Python's own reader reads, or a rebuild; what Python's reader refuses must be rebuilt."""
    Stored(lab, "key", PLAIN).set_chunks([data])
    expected = _load_all(data)
    # As texts: not all that comes of it can be compared.
    return judge(
        map(repr, lab.iterate("key", NEW, **PLAIN)),
        None if expected is None else list(map(repr, expected)),
        list(map(repr, NEW)),
    )


def _load_all(data: bytes) -> list[Any] | None:
    file, items = BytesIO(data), []
    try:
        while file.tell() < len(data):
            items.append(pickle.load(file))
    except Exception:
        return None
    return items


VALUES: tuple[Callable[[], Any], ...] = (
    lambda: {"a": [1, (2.5, None)], "b": "text", "c": b"bytes", 4: {True}},
    lambda: [10**30, "ä€😀", (), {}, [[]]],
)


@experiment(9, "a small pickle cut at every position", djblets=Outcome.SHORT, fastblets=Outcome.REBUILT)
def truncated(lab: Lab) -> Iterator[Finding]:
    protocols = range(6) if lab.backend == "locmem" else (0,)
    for make in VALUES:
        for protocol in protocols:
            data = pickle.dumps(make(), protocol)
            for length in range(1, len(data)):
                yield _read_pickle(lab, data[:length])


@experiment(
    9,
    "a small pickle with each byte changed",
    djblets=(Outcome.WRONG, Outcome.SHORT),
    fastblets=Outcome.REBUILT,
    seconds=90,
)
def changed(lab: Lab) -> Iterator[Finding]:
    """It means what Python's reader says it means, or nothing."""
    for make in VALUES:
        for protocol in (0, 2, 5) if lab.backend == "locmem" else (0,):
            data = pickle.dumps(make(), protocol)
            for position in range(len(data)):
                for byte in (0, data[position] ^ 1, data[position] ^ 0x80, ord(".")):
                    yield _read_pickle(lab, data[:position] + bytes([byte]) + data[position + 1 :])
