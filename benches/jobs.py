"""The jobs: what is timed, on which data, and how much faster than Djblets it has to be."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.core.cache import cache, caches
from django.core.cache.backends.locmem import LocMemCache

from benches import data
from benches.libraries import Library, fixed_ivs
from tests.backends import stored_bytes

KEY = "benchmark"
LONG_KEY = "long/" * 80
ENCRYPTION_KEY = b"0123456789abcdef"
MODES: dict[str, dict[str, Any]] = {
    "compressed": {},
    "plain": {"compress_large_data": False},
    "compressed+encrypted": {"use_encryption": True},
    "plain+encrypted": {"compress_large_data": False, "use_encryption": True},
}

Call = Callable[[Any], Any]


class CheckError(Exception):
    """The two libraries don't agree, so that their times don't matter."""


class Work(ABC):
    """One job's work: a call that is timed, and all around it that isn't."""

    @abstractmethod
    def bind(self, library: Library) -> Call:
        """The call to time."""

    @abstractmethod
    def prepare(self, count: int) -> list[Any]:
        """Make ready for that many calls in a row. Returns what each of them is given."""

    @abstractmethod
    def check(self, theirs: Library, ours: Library) -> None:
        """Compare what the libraries do, after which each of them is warm."""


@dataclass
class MakeKey(Work):
    """Makes a full cache key."""

    key: Any
    options: dict[str, Any]

    def bind(self, library: Library) -> Call:
        return partial(library.backend.make_cache_key, **self.options)

    def prepare(self, count: int) -> list[Any]:
        return [self.key] * count

    def check(self, theirs: Library, ours: Library) -> None:
        _expect_equal("keys", self.bind(theirs)(self.key), self.bind(ours)(self.key))


class Memoize(Work):
    """Reads or stores a value or, through `cache_memoize_iter`, its items."""

    def __init__(self, value: Any, options: dict[str, Any], *, items: bool) -> None:
        """Take the value as it is: it is computed before anything is timed."""
        self.value = value
        self.options = options
        self.items = items

    def store(self, library: Library) -> Call:
        """A call that finds nothing and stores the value."""
        if self.items:
            memoize = partial(library.backend.cache_memoize_iter, **self.options)
            return lambda key: _exhaust(memoize(key, lambda: self.value))
        return partial(library.backend.cache_memoize, lookup_callable=lambda: self.value, **self.options)

    def read(self, library: Library) -> Call:
        """A call that finds what is stored. Items are kept, as by a caller who wants them all."""
        if self.items:
            memoize = partial(library.backend.cache_memoize_iter, items_or_callable=_must_not_compute, **self.options)
            return lambda key: list(memoize(key))
        return partial(library.backend.cache_memoize, lookup_callable=_must_not_compute, **self.options)


class Hit(Memoize):
    """Reads what Djblets stored."""

    def bind(self, library: Library) -> Call:
        return self.read(library)

    def prepare(self, count: int) -> list[Any]:
        return [KEY] * count

    def check(self, theirs: Library, ours: Library) -> None:
        cache.clear()
        self.store(theirs)(KEY)
        for library in (theirs, ours):
            _expect_equal(f"what {library.name} reads", self.value, self.read(library)(KEY))


class Miss(Memoize):
    """Stores what is not there yet."""

    def bind(self, library: Library) -> Call:
        return self.store(library)

    def prepare(self, count: int) -> list[Any]:
        cache.clear()
        return [f"{KEY}-{number}" for number in range(count)]

    def check(self, theirs: Library, ours: Library) -> None:
        stored = [self._stored_by(library) for library in (theirs, ours)]
        _expect_equal("entries", *stored)
        _expect_equal(f"what {theirs.name} reads of {ours.name}'s", self.value, self.read(theirs)(KEY))

    def _stored_by(self, library: Library) -> dict[str, bytes]:
        cache.clear()
        with fixed_ivs():
            self.store(library)(KEY)
        # Other caches can't list what they have; the bytes that they are given are the same.
        real = caches["default"]
        return stored_bytes(real) if isinstance(real, LocMemCache) else {}


@dataclass
class Cipher(Work):
    """Encrypts or decrypts bytes."""

    function: str
    input: bytes

    def bind(self, library: Library) -> Call:
        return partial(getattr(library.crypto, self.function), key=ENCRYPTION_KEY)

    def prepare(self, count: int) -> list[Any]:
        return [self.input] * count

    def check(self, theirs: Library, ours: Library) -> None:
        with fixed_ivs():
            first = self.bind(theirs)(self.input)
        with fixed_ivs():
            second = self.bind(ours)(self.input)
        _expect_equal(f"results of {self.function}", first, second)


@dataclass(frozen=True)
class Job:
    """A job's name, the least ratio of Djblets' time to ours, and how its work is made."""

    section: str
    name: str
    at_least: float
    make_work: Callable[[], Work]
    #: Whether it is worth a run on real cache servers too.
    on_servers: bool = False


def all_jobs() -> list[Job]:
    """Every job that is timed by itself."""
    return [*_key_jobs(), *_small_jobs(), *_text_jobs(), *_record_jobs(), *_other_jobs(), *_row_jobs(), *_cipher_jobs()]


def _key_jobs() -> Iterable[Job]:
    for name, key, options in (
        ("a string", KEY, {}),
        ("a sequence", ("reviews", "user:17", "100%"), {}),
        ("400 characters", LONG_KEY, {}),
        ("encrypted", KEY, {"use_encryption": True}),
    ):
        yield Job("make_cache_key", name, 3, partial(MakeKey, key, options))


def _small_jobs() -> Iterable[Job]:
    value = {"id": 17, "name": "a small value", "tags": ["a", "b"]}
    for name, options, hit, miss in (
        ("plain", {}, 2, 1.7),
        ("encrypted", {"use_encryption": True}, 3, 2.5),
    ):
        yield from _hit_and_miss("A small value", name, value.copy, options, hit, miss, items=False, on_servers=True)


def _text_jobs() -> Iterable[Job]:
    make = partial(data.source_text, 8_000_000)
    least = {
        "compressed": (2, 1.1),
        "plain": (1.2, 1.3),
        "compressed+encrypted": (3, 1.3),
        "plain+encrypted": (8, 1.8),
    }
    for mode, (hit, miss) in least.items():
        options = {"large_data": True, **MODES[mode]}
        on_servers = mode == "compressed"
        yield from _hit_and_miss("8 MB of text", mode, make, options, hit, miss, items=False, on_servers=on_servers)


def _record_jobs() -> Iterable[Job]:
    make = partial(data.record_list, 60_000)
    least = {"compressed": 2.5, "plain": 4, "compressed+encrypted": 2.5, "plain+encrypted": 2.5}
    for mode, miss in least.items():
        on_servers = mode == "compressed"
        yield from _hit_and_miss("60,000 records", mode, make, MODES[mode], 7, miss, items=True, on_servers=on_servers)


def _other_jobs() -> Iterable[Job]:
    section = "Other data, compressed"
    large = {"large_data": True}
    records = partial(data.record_list, 60_000)
    yield from _hit_and_miss(section, "one list of 60,000 records", records, large, 5, 2.5, items=False)
    for name, make, hit, miss in (
        ("60,000 diff opcodes", partial(data.opcodes, 60_000), 5, 2),
        ("60,000 lines of HTML with accents", partial(data.html_lines, 60_000), 3, 1.3),
        ("20,000 instances of a class", partial(data.comments, 20_000), 1.5, 1.2),
    ):
        yield from _hit_and_miss(section, name, make, {}, hit, miss, items=True)


def _row_jobs() -> Iterable[Job]:
    for name, make, hit, miss in (
        ("two aware datetimes", data.row_with_datetimes, 4, 2.5),
        ("two dates", data.row_with_dates, 4, 2.5),
        ("two Decimals", data.row_with_decimals, 3, 2.5),
        ("two UUIDs", data.row_with_uuids, 3, 2.5),
        ("as QuerySet.values() gives them", data.mixed_row, 4, 2.5),
    ):
        rows = partial(data.rows, make, 20_000)
        yield from _hit_and_miss("20,000 rows, compressed", name, rows, {"large_data": True}, hit, miss, items=False)
    for fields, model in ((3, "customer"), (12, "order")):
        name = f"of a model of {fields} fields"
        instances = partial(data.instances, model, 10_000)
        section = "10,000 instances, compressed"
        yield from _hit_and_miss(section, name, instances, {"large_data": True}, 4, 2.5, items=False)


def _hit_and_miss(
    section: str,
    name: str,
    make: Callable[[], Any],
    options: dict[str, Any],
    hit: float,
    miss: float,
    *,
    items: bool,
    on_servers: bool = False,
) -> Iterable[Job]:
    for kind, work, least in (("hit", Hit, hit), ("miss", Miss, miss)):
        yield Job(section, f"{name}, {kind}", least, partial(_make, work, make, options, items), on_servers)


def _make(work: type[Memoize], make: Callable[[], Any], options: dict[str, Any], items: bool) -> Work:
    return work(make(), options, items=items)


def _cipher_jobs() -> Iterable[Job]:
    for name, size in (("30 bytes", 30), ("8 MB", 8_000_000)):
        for function in ("aes_encrypt", "aes_decrypt"):
            yield Job("The cipher alone", f"{function}, {name}", 1, partial(_make_cipher, function, size))


def _make_cipher(function: str, size: int) -> Work:
    return Cipher(function, data.source_text(size).encode())


def _exhaust(items: Iterable[Any]) -> None:
    deque(items, maxlen=0)


def _must_not_compute() -> Any:
    raise CheckError("an entry that should be there isn't")


def _expect_equal(what: str, first: Any, second: Any) -> None:
    if type(first) is not type(second) or first != second:
        raise CheckError(f"not the same: {what}")
