"""What a project writes: slow reports, each cached by one call.

Start reading here. The rest of this folder finds the data, measures and prints.
"""

from __future__ import annotations

from collections.abc import Iterator

from fastblets.cache.backend import cache_memoize, cache_memoize_iter
from fastblets.protect.locks import CacheLock
from sources import PACKAGES, Module, parse_modules


def library_report() -> list[Module]:
    """A large value: stored compressed, in chunks small enough for any cache server."""
    return cache_memoize("library-report", lambda: list(parse_modules()), large_data=True)


def library_stream() -> Iterator[Module]:
    """An iterable: each module reaches the caller at once and is stored on the way."""
    return cache_memoize_iter("library-stream", parse_modules)


def private_report(encryption_key: bytes | None = None) -> list[Module]:
    """A secret: without the AES key, neither the entry's name nor its content can be read."""
    return cache_memoize(
        "private-report",
        lambda: list(parse_modules(["email"])),
        large_data=True,
        use_encryption=True,
        encryption_key=encryption_key,
    )


def busy_report() -> list[Module]:
    """A report that many processes want at once: one computes it, the others wait for it."""
    return cache_memoize(
        "busy-report",
        lambda: list(parse_modules(PACKAGES)),
        large_data=True,
        lock=CacheLock(),
    )


def stampede_report() -> list[Module]:
    """The same without the lock: whoever misses computes."""
    return cache_memoize(
        "stampede-report",
        lambda: list(parse_modules(PACKAGES)),
        large_data=True,
    )
