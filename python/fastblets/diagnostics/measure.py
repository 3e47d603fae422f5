"""Measuring the configured cache, for ``manage.py fastblets bench``."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING
from uuid import uuid4

from fastblets.cache.backend import cache_memoize, cache_memoize_iter, make_cache_key
from fastblets.cache.shortcuts import get_named_cache
from fastblets.diagnostics.forget import forget_entry
from fastblets.diagnostics.inspector import inspect_entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Final


__all__ = ["Measurement", "NotStoredError", "measure"]


#: How long, in seconds, an entry lives that could not be removed.
_EXPIRATION: Final = 300

#: How often a small call is measured, and a large one.
_SMALL_ROUNDS: Final = 200
_LARGE_ROUNDS: Final = 5


class NotStoredError(Exception):
    """The cache doesn't give back what was stored in it."""


@dataclass(frozen=True)
class Measurement:
    """How long one kind of call takes.

    Attributes:
        name: What was measured.
        rounds: How often.
        seconds: The median of all rounds.
        megabytes_per_second: Pickled data, a million bytes each. None for what has no size worth a rate.
    """

    name: str
    rounds: int
    seconds: float
    megabytes_per_second: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return all of it in types that JSON has."""
        return asdict(self)


def measure(
    *,
    records: int = 20_000,
    use_encryption: bool | None = None,
    cache: str | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, name: None,
) -> list[Measurement]:
    """Measure a cache of Django's, with the project's settings.

    It stores entries under random keys, and removes them at the end, also after an error.

    Args:
        records: How many records a large entry has. A thousand of them are pickled in about 0.15 MB.
        use_encryption: Whether entries are encrypted. Default: ``DJBLETS_CACHE_FORCE_ENCRYPTION``.
        cache: The alias in ``CACHES`` of the cache. Default: the default cache.
        progress: Called before each round with the rounds done, those of all, and what is measured.

    Raises:
        NotStoredError: The cache doesn't give back what was stored in it.
        Exception: The cache failed, in the words of its client.
    """
    run = _Run(f"fastblets-bench-{uuid4()}", records, {"use_encryption": use_encryption, "cache": cache}, progress)

    try:
        return list(run.measurements())
    finally:
        run.clean_up()


class _Source:
    """A callable that knows whether it was asked."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self.asked = False

    def __call__(self) -> Any:
        self.asked = True

        return self._make()


class _Run:
    def __init__(
        self,
        name: str,
        records: int,
        options: dict[str, Any],
        progress: Callable[[int, int, str], None],
    ) -> None:
        self._name = name
        self._records = records
        self._options = options
        self._progress = progress
        self._keys: list[str] = []
        self._done = 0
        self._total = 3 * _SMALL_ROUNDS + 4 * _LARGE_ROUNDS

    def measurements(self) -> Iterator[Measurement]:
        alias = self._options["cache"]
        absent = make_cache_key(self._key("absent"), **self._options)
        yield self._median("round trip to the cache", _SMALL_ROUNDS, lambda n: get_named_cache(alias).get(absent))

        yield self._median("small value, miss", _SMALL_ROUNDS, lambda n: self._small(f"small-{n}"))
        self._expect_hit("small values", lambda: self._small("small-0"))
        yield self._median("small value, hit", _SMALL_ROUNDS, lambda n: self._small(f"small-{n}"))

        yield from self._large("large value", self._large_value)
        yield from self._large("iterable", self._iterable)

    def clean_up(self) -> None:
        for key in self._keys:
            # An entry that can't be removed expires.
            with suppress(Exception):
                forget_entry(key, **self._options, mark=False)

    def _large(self, name: str, call: Callable[[str], bool]) -> Iterator[Measurement]:
        def key(number: int) -> str:
            return f"{name}-{number}".replace(" ", "-")

        miss = self._median(f"{name}, miss", _LARGE_ROUNDS, lambda n: call(key(n)))
        self._expect_hit("large entries", lambda: call(key(0)))
        hit = self._median(f"{name}, hit", _LARGE_ROUNDS, lambda n: call(key(n)))
        report = inspect_entry(self._full_name(key(0)), items=0, **self._options)

        for found in (miss, hit):
            rate = (report.pickled_bytes or 0) / 1e6 / found.seconds
            yield Measurement(found.name, found.rounds, found.seconds, rate)

    def _small(self, name: str) -> bool:
        source = _Source(lambda: {"id": 1, "name": "user-1"})
        cache_memoize(self._key(name), source, expiration=_EXPIRATION, **self._options)

        return source.asked

    def _large_value(self, name: str) -> bool:
        source = _Source(self._data)
        cache_memoize(self._key(name), source, large_data=True, expiration=_EXPIRATION, **self._options)

        return source.asked

    def _iterable(self, name: str) -> bool:
        source = _Source(self._data)

        for _ in cache_memoize_iter(self._key(name), source, expiration=_EXPIRATION, **self._options):
            pass

        return source.asked

    def _data(self) -> list[dict[str, object]]:
        return [
            {
                "id": number,
                "name": f"user-{number * 7919 % 100_003}",
                "score": number / 7,
                "tags": ["a", "b"],
                "on": True,
            }
            for number in range(self._records)
        ]

    def _expect_hit(self, what: str, call: Callable[[], bool]) -> None:
        if call():
            raise NotStoredError(f"The cache doesn't give back {what} that were stored a moment ago.")

    def _median(self, name: str, rounds: int, call: Callable[[int], object]) -> Measurement:
        seconds = []

        for number in range(rounds):
            self._progress(self._done, self._total, name)
            start = time.perf_counter()
            call(number)
            seconds.append(time.perf_counter() - start)
            self._done += 1

        return Measurement(name, rounds, median(seconds))

    def _key(self, name: str) -> str:
        key = self._full_name(name)

        if key not in self._keys:
            self._keys.append(key)

        return key

    def _full_name(self, name: str) -> str:
        return f"{self._name}-{name}"
