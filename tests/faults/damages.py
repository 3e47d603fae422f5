"""Ways to damage a stored entry, for whoever carries data badly and for whoever does it on purpose."""

from __future__ import annotations

from typing import Any

from tests.faults.lab import Damage, Stored, generation

OTHER_KEY = "another key"
OTHER_GENERATION = generation("other", 10)


def replace(index: int, value: Any) -> Damage:
    """Put any value in the place of a chunk, list and all."""
    return lambda stored: stored.set_chunk(index, value)


def replace_bytes(index: int, data: bytes) -> Damage:
    """Put other bytes into a chunk; its seal stays."""
    return lambda stored: stored.set_bytes(index, data)


def remove(index: int) -> Damage:
    """Evict a chunk."""
    return lambda stored: stored.delete_chunk(index)


def cut(length: int, index: int = 0) -> Damage:
    """Keep the first bytes of a chunk alone."""
    return lambda stored: stored.set_bytes(index, stored.chunks[index][:length])


def flip(position: int, index: int = 0) -> Damage:
    """Flip a bit of a chunk."""

    def damage(stored: Stored) -> None:
        data = bytearray(stored.chunks[index])
        data[position] ^= 1
        stored.set_bytes(index, bytes(data))

    return damage


def swap(first: int, second: int) -> Damage:
    """Let two chunks change places."""

    def damage(stored: Stored) -> None:
        chunks = stored.stored_chunks
        stored.set_chunk(first, chunks[second])
        stored.set_chunk(second, chunks[first])

    return damage


def splice(index: int, items: list[Any] = OTHER_GENERATION) -> Damage:
    """Put in the chunk with the same number of another key's entry."""

    def damage(stored: Stored) -> None:
        other = stored.lab.store(OTHER_KEY, items, **stored.options)
        stored.set_chunk(index, other.stored_chunks[index])

    return damage
