"""Promises 11 to 14: whoever can write to the cache, but has no key."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.test import override_settings

from tests.canary import Canary, songs
from tests.faults.damages import OTHER_GENERATION, OTHER_KEY, flip, splice, swap
from tests.faults.experiment import ONE, Expected, Run, experiment
from tests.faults.lab import (
    MODES,
    NEW,
    OLD,
    PLAIN,
    PLAIN_ENCRYPTED,
    Damage,
    Lab,
    Options,
    Stored,
    generation,
)
from tests.faults.outcome import Finding, Outcome, judge
from tests.faults.subject import ALL_OURS, LENIENT, UNSEALED
from tests.seal_verifier import seal_all

ENCRYPTED, CLEAR = MODES[1::2], MODES[::2]
# Of three chunks and more, whether they are compressed or not.
OLD_GENERATION, LONGER_GENERATION = generation("old", 10), generation("longer", 14)

GARBLED = (Outcome.WRONG, Outcome.SHORT)


def _same_for_all(promise: int, name: str, outcome: Expected, **exceptions: Any) -> Callable[[Run], Run]:
    """An experiment on what is stored, where every subject's outcome is the same but for those that are named."""
    subjects: dict[str, Any] = dict.fromkeys(("djblets", "fastblets", "sealed"), outcome)
    return experiment(promise, name, **{**subjects, "backends": ONE, **exceptions})


def _only_if_required(promise: int, name: str, outcome: Expected) -> Callable[[Run], Run]:
    """One that goes unnoticed unless a seal is required."""
    return _same_for_all(promise, name, outcome, required=Outcome.REBUILT, undetectable=LENIENT)


def _only_if_sealed(promise: int, name: str, outcome: Expected) -> Callable[[Run], Run]:
    """One that goes unnoticed unless the entry is sealed."""
    return _same_for_all(promise, name, outcome, sealed=Outcome.REBUILT, undetectable=UNSEALED)


def _noticed_by_the_list(name: str, djblets: Outcome) -> Callable[[Run], Run]:
    """One that a list of allowed classes notices, sealed or not. Djblets has no such list."""
    return experiment(13, name, djblets=djblets, fastblets=Outcome.REBUILT, backends=ONE)


def _change(stored: Stored) -> None:
    """Each flipped bit garbles the next 16 bytes, and no more, once they are decrypted."""
    for index, chunk in enumerate(stored.chunks):
        flip(len(chunk) // 2, index)(stored)


def _take_from_an_older_write(stored: Stored) -> None:
    older = stored.stored_chunks[1]
    stored.lab.store(stored.key, OTHER_GENERATION, **stored.options)
    stored.set_chunk(1, older)


def _take_count_of(key: str, items: list[Any]) -> Damage:
    """A count can't be made without the key, but there are other entries."""

    def take(stored: Stored) -> None:
        stored.put([], stored.lab.store(key, items, **stored.options).stored_count)

    return take


def _add(stored: Stored) -> None:
    longer = stored.lab.store(OTHER_KEY, LONGER_GENERATION, **stored.options)
    chunks = stored.stored_chunks
    stored.put(chunks + longer.stored_chunks[len(chunks) :], longer.stored_count)


def _replay(stored: Stored) -> None:
    other = stored.lab.store(OTHER_KEY, OTHER_GENERATION, **stored.options)
    stored.put(other.stored_chunks, other.stored_count)


ATTACKS: dict[str, Damage] = {
    "bytes of its chunks are changed": _change,
    "its chunks are swapped": swap(0, 1),
    "it is cut behind a chunk, and gets another entry's count": _take_count_of("short", ["short"]),
    "a chunk is added, and another entry's count": _add,
    "a chunk is put in that is another key's": splice(1),
    "a chunk is put in that was written earlier": _take_from_an_older_write,
    "all of it is put where another key's was": _replay,
}


def _attacked(lab: Lab, attacks: list[Damage], modes: list[Options]) -> Iterator[Finding]:
    for options in modes:
        for attack in attacks:
            lab.cache.clear()
            yield lab.survives(attack, options, OLD_GENERATION, NEW)


def _each_attack(attack: Damage) -> Callable[[Lab], Iterator[Finding]]:
    return lambda lab: _attacked(lab, [attack], ENCRYPTED)


# Compressed data has a checksum, which none but a whole entry fits.
for _name, _attack in ATTACKS.items():
    experiment(
        11,
        f"large: {_name}",
        djblets=(*GARBLED, Outcome.RIGHT),
        fastblets=(*GARBLED, Outcome.REBUILT),
        sealed=Outcome.REBUILT,
        backends=ONE,
        undetectable=UNSEALED,
    )(_each_attack(_attack))


def _stripped(attack: Damage) -> Damage:
    def strip(stored: Stored) -> None:
        attack(stored)
        for index, (chunk, *_) in enumerate(stored.stored_chunks):
            stored.set_chunk(index, [chunk])

    return strip


@_only_if_required(11, "large: any of these, and the seals are removed", GARBLED)
def stripped(lab: Lab) -> Iterator[Finding]:
    yield from _attacked(lab, [_stripped(attack) for attack in ATTACKS.values()], ENCRYPTED)


@_same_for_all(11, "large: one is made under another AES key", Outcome.REBUILT)
def made_under_another_key(lab: Lab) -> Iterator[Finding]:
    def make(stored: Stored) -> None:
        own = {**stored.options, "encryption_key": b"an attacker's own"[:16]}
        other = stored.lab.store(stored.key, ["planted"], **own)
        stored.put(other.stored_chunks[:1], other.stored_count)

    yield from _attacked(lab, [make], ENCRYPTED)


TEXT = "some text, long enough for a change in the midst of it. " * 5


def _attack_small(lab: Lab, attack: Callable[[bytes, int], bytes]) -> Iterator[Finding]:
    """What is garbled may be no text any more, so there are several tries."""
    for attempt in range(20):
        key = lab.full_key("small", **PLAIN_ENCRYPTED)
        lab.memoize("small", lambda: TEXT, force_overwrite=True, **PLAIN_ENCRYPTED)
        lab.cache.set(key, attack(lab.cache.get(key), attempt))
        yield judge(lab.value("small", lambda: "new", **PLAIN_ENCRYPTED), [TEXT], ["new"])


def _flip(data: bytes, attempt: int) -> bytes:
    at = 60 + attempt
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@_only_if_sealed(11, "small: its bytes are changed", Outcome.WRONG)
def small_changed(lab: Lab) -> Iterator[Finding]:
    yield from _attack_small(lab, _flip)


@_only_if_required(11, "small: its bytes are changed, and the seal is cut off", Outcome.WRONG)
def small_stripped(lab: Lab) -> Iterator[Finding]:
    size = 16 + len(pickle.dumps(TEXT, 0))
    yield from _attack_small(lab, lambda data, attempt: _flip(data, attempt)[:size])


def _small_replaced(lab: Lab, store: Callable[[Lab], str]) -> Finding:
    lab.memoize("small", lambda: TEXT, **PLAIN_ENCRYPTED)
    planted = lab.cache.get(store(lab))
    lab.cache.set(lab.full_key("small", **PLAIN_ENCRYPTED), planted)
    return judge(lab.value("small", lambda: "new", **PLAIN_ENCRYPTED), [TEXT], ["new"])


@_only_if_sealed(11, "small: it is put where another key's was", Outcome.WRONG)
def small_replayed(lab: Lab) -> Finding:
    def store(lab: Lab) -> str:
        lab.memoize(OTHER_KEY, lambda: "another", **PLAIN_ENCRYPTED)
        return lab.full_key(OTHER_KEY, **PLAIN_ENCRYPTED)

    return _small_replaced(lab, store)


@_only_if_sealed(11, "small: it is the count of what was a large entry of the same key", Outcome.WRONG)
def count_for_value(lab: Lab) -> Finding:
    return _small_replaced(lab, lambda lab: lab.store("small", OLD, **PLAIN_ENCRYPTED).main)


def _executed(lab: Lab, read: Iterator[Any], new: list[Any]) -> Finding:
    """Whether something was unpickled that has been planted."""
    songs.clear()
    found = judge(read, None, new)
    return Finding(Outcome.EXECUTED) if songs else found


def _planted(lab: Lab, make_chunks: Callable[[Stored, bytes], list[list[bytes]]]) -> Iterator[Finding]:
    for options in CLEAR:
        # What writes it is not the one that is attacked.
        made = lab.store("made", [Canary()], **options)
        stored = lab.store("key", OLD, **options)
        for index, chunk in enumerate(make_chunks(stored, made.chunks[0])):
            stored.set_chunk(index, chunk)
        yield _executed(lab, lab.iterate("key", NEW, **options), NEW)


@_only_if_required(12, "an object is planted, without a seal", Outcome.EXECUTED)
def planted(lab: Lab) -> Iterator[Finding]:
    yield from _planted(lab, lambda _, data: [[data]])


def _with_own_seal(stored: Stored, data: bytes) -> list[list[bytes]]:
    return seal_all(None, stored.main, b"an attacker's id", [data])


@_only_if_required(12, "an object is planted, with a seal that needs no key", Outcome.EXECUTED)
def planted_with_seal(lab: Lab) -> Iterator[Finding]:
    """Where there is no key, as in the column of entries that are merely sealed, everybody can make seals."""
    yield from _planted(lab, _with_own_seal)


@_only_if_sealed(12, "an object is planted, with a seal of another key's entry", Outcome.EXECUTED)
def planted_elsewhere(lab: Lab) -> Iterator[Finding]:
    for options in CLEAR:
        made = lab.store("made", [Canary()], **options)
        lab.store("key", OLD, **options).set_chunk(0, made.stored_chunks[0])
        yield _executed(lab, lab.iterate("key", NEW, **options), NEW)


class Allowed:
    """What a project would put on its list."""

    trusted = False


@contextmanager
def _allow_list() -> Iterator[None]:
    with override_settings(FASTBLETS_PICKLE_CLASSES=[f"{__name__}.Allowed"]):
        yield


@_noticed_by_the_list("an object is stored that is not on the list", Outcome.EXECUTED)
def not_allowed(lab: Lab) -> Iterator[Finding]:
    with _allow_list():
        for options in MODES:
            lab.store("key", [Canary()], **options)
            yield _executed(lab, lab.iterate("key", NEW, **options), NEW)
        lab.memoize("small", lambda: Canary(), **PLAIN_ENCRYPTED)
        yield _executed(lab, lab.value("small", lambda: "new", **PLAIN_ENCRYPTED), ["new"])


@_noticed_by_the_list("a class on the list is given other attributes", Outcome.WRONG)
def attributes_given(lab: Lab) -> Iterator[Finding]:
    crafted = b"c%s\nAllowed\n(N(dVtrusted\nI01\nstb." % __name__.encode()
    with _allow_list(), override_settings(FASTBLETS_SEAL=False):
        Stored(lab, "key", PLAIN).set_chunks([crafted])
        found = judge(lab.iterate("key", NEW, **PLAIN), None, NEW)
        yield found if not Allowed.trusted else Finding(Outcome.WRONG, "changed")


@_same_for_all(14, "an older entry of the same key is put back", Outcome.WRONG, undetectable=ALL_OURS)
def put_back(lab: Lab) -> Iterator[Finding]:
    for options in ENCRYPTED:
        older = lab.store("key", OLD, **options)
        chunks, count = older.stored_chunks, older.stored_count
        lab.store("key", ["current"], **options).put(chunks, count)
        yield judge(lab.iterate("key", NEW, **options), ["current"], NEW)


@_same_for_all(14, "an entry is removed", Outcome.REBUILT)
def removed(lab: Lab) -> Iterator[Finding]:
    for options in ENCRYPTED:
        yield lab.survives(lambda stored: lab.cache.delete(stored.main), options)


@experiment(
    14,
    "an object is planted that the cache's backend unpickles itself",
    djblets=Outcome.EXECUTED,
    fastblets=Outcome.EXECUTED,
    sealed=Outcome.EXECUTED,
    undetectable=ALL_OURS,
)
def planted_for_backend(lab: Lab) -> Iterator[Finding]:
    for options in ENCRYPTED:
        lab.cache.set(lab.full_key("key", **options), Canary())
        yield _executed(lab, lab.iterate("key", NEW, **options), NEW)


@_same_for_all(
    14, "an object is planted with a seal that needs no key, and none is set", Outcome.EXECUTED, undetectable=ALL_OURS
)
def planted_without_key(lab: Lab) -> Iterator[Finding]:
    with override_settings(FASTBLETS_SEAL_KEY=None):
        yield from _planted(lab, _with_own_seal)


@experiment(
    14,
    "a small value that is not encrypted is changed",
    djblets=Outcome.WRONG,
    fastblets=Outcome.WRONG,
    sealed=Outcome.WRONG,
    # To ask for what can't be had is an error from the start.
    required=Outcome.ERROR,
    backends=ONE,
    undetectable=LENIENT,
)
def small_clear(lab: Lab) -> Finding:
    lab.cache.set(lab.full_key("small"), "planted")
    return judge(lab.value("small", lambda: "new"), None, ["new"])
