"""Full keys: by the raw characters of their parts, and such that every cache takes them."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

import pytest
from django.core.cache.backends.base import BaseCache
from django.utils.safestring import mark_safe

from fastblets.cache.backend import cache_memoize, cache_memoize_iter, make_cache_key
from fastblets.cache.synchronizer import GenerationSynchronizer
from fastblets.protect.locks import CacheLock
from tests.backends import stored_bytes
from tests.parity import Library, Parity

PLAIN = {"compress_large_data": False}


#: Values of three chunks.
LARGE = ["x" * 1_000_000] * 3


def _kinds(*values: str) -> list[str]:
    """Members that are shown alike, of enums of the same name."""
    return [enum.Enum("Kind", {"DEFAULT": value}, type=str).DEFAULT for value in values]  # type: ignore[attr-defined]


class Masked(str):
    def __str__(self) -> str:
        return "****"

    def __format__(self, spec: str) -> str:
        return "****"

    def __repr__(self) -> str:
        return "****"

    def __add__(self, other: str) -> str:
        return "****"

    def __radd__(self, other: str) -> str:
        return "****"

    def encode(self, *args: Any) -> bytes:
        return b"****"


SUBCLASSES: dict[str, Callable[..., list[str]]] = {
    "enum": _kinds,
    "masked": lambda *values: [Masked(value) for value in values],
    "safe": lambda *values: [mark_safe(value) for value in values],
}


SHAPES: dict[str, Callable[[str], Any]] = {
    "alone": lambda part: part,
    "first": lambda part: [part, "x"],
    "last": lambda part: ["stats", part],
    "only": lambda part: (part,),
}


@pytest.mark.parametrize("kind", SUBCLASSES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("encrypted", [False, True])
def test_a_part_counts_by_its_own_characters(locmem: BaseCache, kind: str, shape: str, encrypted: bool) -> None:
    values = ("one", "two", "\ud800:%")
    items = [[f"item of {number}"] for number in range(len(values))]

    def memoize(parts: list[str]) -> list[list[str]]:
        return [
            list(cache_memoize_iter(SHAPES[shape](part), item, lock=CacheLock(), use_encryption=encrypted))
            for part, item in zip(parts, items, strict=True)
        ]

    assert memoize(SUBCLASSES[kind](*values)) == items
    assert memoize(list(values)) == memoize(SUBCLASSES[kind](*values)) == items
    stored = stored_bytes(locmem)
    locmem.clear()
    memoize(list(values))
    assert stored.keys() == stored_bytes(locmem).keys()


@pytest.mark.parametrize("kind", SUBCLASSES)
def test_djblets_finds_them(both: Parity, kind: str) -> None:
    keys = [["stats", part] for part in SUBCLASSES[kind]("one", "two")]

    def memoize(library: Library) -> list[Any]:
        return [list(library.backend.cache_memoize_iter(key, [f"of {at}"], **PLAIN)) for at, key in enumerate(keys)]

    if kind == "masked":
        # Its + is its own, by which Djblets adds the index.
        theirs, ours = (both.run(library, memoize) for library in both.libraries)
        assert (theirs.value, ours.value) == ([["of 0"], ["of 1"]], [["of 0"], ["of 1"]])
    else:
        assert both.crosswise(memoize).value == [["of 0"], ["of 1"]]


@pytest.mark.parametrize("kind", SUBCLASSES)
@pytest.mark.parametrize("shape", SHAPES)
def test_locks_and_generations_count_by_it_too(locmem: BaseCache, kind: str, shape: str) -> None:
    part, other = (SHAPES[shape](part) for part in SUBCLASSES[kind]("one", "two"))
    raw = SHAPES[shape]("one")
    locks = [CacheLock() for _ in range(3)]
    for lock, key in zip(locks, (part, other, raw), strict=True):
        cache_memoize(key, int, lock=lock)
    names = [lock.full_cache_key for lock in locks]
    assert names[0] == names[2] != names[1]
    assert names[0] == make_cache_key(f"_lock_:{raw}" if isinstance(raw, str) else ["_lock_", *raw])
    assert CacheLock(part).full_cache_key == CacheLock(raw).full_cache_key != CacheLock(other).full_cache_key
    keys = [GenerationSynchronizer(key).cache_key for key in (part, other, raw)]
    assert keys[0] == keys[2] != keys[1]
