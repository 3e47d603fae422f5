"""Randomness that isn't."""

from __future__ import annotations


class CountingIVs:
    """A stand-in for `os.urandom` that never repeats itself and always starts the same."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, size: int) -> bytes:
        self.calls += 1
        return self.calls.to_bytes(size, "big")
