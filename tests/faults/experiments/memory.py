"""Promise 6: memory is bounded."""

from __future__ import annotations

import pickle
import re
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests.faults.damages import remove
from tests.faults.experiment import ONE, experiment
from tests.faults.lab import COMPRESSED, MODES, NEW, OLD, PLAIN_ENCRYPTED, Lab
from tests.faults.outcome import Finding, Outcome, judge

INFLATED = 256_000_000
ALLOWED_MEGABYTES = 100


def _peak_megabytes() -> int:
    """The most address space that this process has had: asking for memory counts, not using it."""
    status = Path("/proc/self/status").read_text()
    peak = re.search(r"VmPeak:\s+(\d+) kB", status)
    assert peak is not None
    return int(peak[1]) // 1000


def _costs(read: Callable[[], Finding]) -> Finding:
    before = _peak_megabytes()
    found = read()
    spent = _peak_megabytes() - before
    if spent > ALLOWED_MEGABYTES and found.outcome.severity < Outcome.COSTLY.severity:
        return Finding(Outcome.COSTLY, f"{found.outcome.value}, for more than {ALLOWED_MEGABYTES} MB")
    return found


def _inflating(*parts: tuple[bytes, int]) -> bytes:
    """A zlib stream of repeated bytes, made without having them all in memory."""
    deflate = zlib.compressobj(9)
    data = b""
    for unit, times in parts:
        block = unit * min(times, 100_000)
        data += b"".join(deflate.compress(block) for _ in range(max(1, times // 100_000)))
    return data + deflate.flush()


def _survives_stream(lab: Lab, stream: bytes) -> Finding:
    lab.survives(remove(0), COMPRESSED)
    return _costs(lambda: lab.survives(lambda stored: stored.set_stream(stream), COMPRESSED))


@experiment(
    6,
    "a small chunk inflates to a quarter of a gigabyte of garbage",
    djblets=Outcome.SHORT,
    fastblets=Outcome.REBUILT,
)
def bomb(lab: Lab) -> Finding:
    return _survives_stream(lab, _inflating((b"\0", INFLATED)))


@experiment(6, "a small chunk inflates hugely behind good items", djblets=Outcome.WRONG, fastblets=Outcome.REBUILT)
def bomb_behind(lab: Lab) -> Finding:
    return _survives_stream(lab, _inflating((pickle.dumps("good", 0), 1), (b"\xff", INFLATED)))


@experiment(
    6, "a small chunk holds millions of small items", djblets=Outcome.COSTLY, sealed=Outcome.REBUILT, backends=ONE
)
def many_items(lab: Lab) -> Finding:
    """They are what was stored: the first few cost no more than those few."""
    stored = lab.store("key", OLD, **COMPRESSED)
    stored.set_stream(_inflating((b"N.", 60_000_000)))
    return _costs(lambda: judge(_first(lab, 3), [None] * 3, NEW[:3]))


def _first(lab: Lab, count: int) -> Iterator[object]:
    items = lab.iterate("key", NEW, **COMPRESSED)
    for _ in range(count):
        yield next(items)
    items.close()


LENGTH = 1_000_000_000
# Each claims that a gigabyte follows, or that a memo of that size is needed.
GREEDY = {
    "BINBYTES": b"B" + LENGTH.to_bytes(4, "little") + b"x.",
    "BINBYTES8": b"\x8e" + LENGTH.to_bytes(8, "little") + b"x.",
    "BYTEARRAY8": b"\x96" + LENGTH.to_bytes(8, "little") + b"x.",
    "BINSTRING": b"T" + LENGTH.to_bytes(4, "little") + b"x.",
    "BINUNICODE": b"X" + LENGTH.to_bytes(4, "little") + b"x.",
    "BINUNICODE8": b"\x8d" + LENGTH.to_bytes(8, "little") + b"x.",
    "LONG4": b"\x8b" + LENGTH.to_bytes(4, "little") + b"x.",
    "FRAME": b"\x80\x04\x95" + LENGTH.to_bytes(8, "little") + b"N.",
    "PUT": b"Np20000000\n.",
    "LONG_BINPUT": b"Nr" + (20_000_000).to_bytes(4, "little") + b".",
}


@experiment(6, "a damaged pickle claims a great length", djblets=Outcome.SHORT, fastblets=Outcome.REBUILT)
def greedy(lab: Lab) -> Iterator[Finding]:
    for options in MODES:
        for name, damaged in GREEDY.items():
            found = _costs(partial(lab.survives, lambda stored, damaged=damaged: stored.set_pickles(damaged), options))
            if found.outcome is Outcome.WRONG and "PUT" in name:
                # A valid pickle, only with an odd memo: None it says, and None it is.
                found = Finding(Outcome.REBUILT)
            yield _of_opcode(name, found)


def _of_opcode(name: str, found: Finding) -> Finding:
    return Finding(found.outcome, f"{name}: {found.note}") if found.note else found


@experiment(6, "a damaged small value claims a great length", djblets=Outcome.COSTLY, fastblets=Outcome.REBUILT)
def greedy_small(lab: Lab) -> Iterator[Finding]:
    key = lab.full_key("small", **PLAIN_ENCRYPTED)
    for name, greedy_pickle in GREEDY.items():
        encrypted = lab.library.crypto.aes_encrypt(greedy_pickle, key=PLAIN_ENCRYPTED["encryption_key"])
        lab.cache.set(key, encrypted)
        found = _costs(lambda: judge(lab.value("small", lambda: "new", **PLAIN_ENCRYPTED), [None], ["new"]))
        yield _of_opcode(name, found)
