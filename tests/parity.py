"""One action through Djblets and through fastblets, and whether anybody could tell the difference.

The two stand side by side in one process, neither replaced. An action is a function of the
library; its libraries have the modules that matter as attributes::

    def test_a_key(both: Parity) -> None:
        both(lambda library: library.backend.make_cache_key("key"))
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from inspect import signature
from itertools import islice
from types import ModuleType
from typing import Any

import pytest
from django.core.cache.backends.locmem import LocMemCache

from tests.backends import ROOMY, Config, stored_bytes, use_cache
from tests.randomness import CountingIVs

# An action that never ends mustn't take the machine's memory.
MOST_ITEMS = 1_000_000
KEY_SIZES = r" An AES encryption key must be \S+ \S+ or \S+ bytes long\."
# What fastblets says or does beyond Djblets on purpose: cut out of its side, aspect by aspect.
BEYOND_DJBLETS = {
    # It withdraws an old large entry before it touches the chunks, and what may pass for one behind a last chunk that
    # is full.
    "cache calls": r"(?m)^(?:delete .*\n)+(?=set)",
    # Where Djblets' errors say little or nothing, it says what is wrong.
    "error": rf'{KEY_SIZES}|encryption_key must be of type "bytes".+',
    "log": KEY_SIZES,
}
# It looks again at the count of an entry without a checksum, behind the chunks, and whether there are more. Cut from
# both, since what follows may be a read of the same entry, which begins with its count as well.
SECOND_LOOK = r"(?m)^(get_many .*)(?:\nget .*)+(?:\nhas_key .*)?$"
WRITES = ("set", "set_many", "add", "touch", "incr", "decr", "delete", "delete_many", "clear")
READS = ("get", "get_many", "has_key")


class RecordingCache(LocMemCache):
    """A LocMem cache that notes what it is asked: names, keys and timeouts, in order."""

    def __init__(self, name: str, parameters: dict[str, Any]) -> None:
        super().__init__(name, parameters)
        self.calls: list[str] = []
        self._inside = False

    @contextmanager
    def noting(self, name: str, arguments: dict[str, Any]) -> Iterator[None]:
        # Its methods call each other; only what came from outside counts.
        if self._inside:
            yield
            return
        keys = arguments.get("key") or list(arguments.get("keys") or arguments.get("data") or ())
        timeout = f" for {arguments['timeout']} s" if "timeout" in arguments else ""
        self.calls.append(f"{name} {keys}{timeout}")
        self._inside = True
        try:
            yield
        finally:
            self._inside = False


def _record(name: str) -> None:
    method = getattr(LocMemCache, name)
    parameters = signature(method)

    def recorded(self: RecordingCache, *args: Any, **kwargs: Any) -> Any:
        with self.noting(name, parameters.bind(self, *args, **kwargs).arguments):
            return method(self, *args, **kwargs)

    setattr(RecordingCache, name, recorded)


for _name in (*READS, *WRITES):
    _record(_name)


class Library:
    """One of the two implementations."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name

    def _module(self, path: str) -> Any:
        module: ModuleType = import_module(f"{self.name}.{path}")
        return module

    @property
    def backend(self) -> Any:
        return self._module("cache.backend")

    @property
    def synchronizer(self) -> Any:
        return self._module("cache.synchronizer")

    @property
    def locks(self) -> Any:
        return self._module("protect.locks")

    @property
    def crypto(self) -> Any:
        return self._module("secrets.crypto")


Action = Callable[[Library], Any]


@dataclass
class Trial:
    """All that can be seen of one run of an action."""

    value: Any = None
    kind: str = ""
    error: BaseException | None = None
    logs: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    stored: dict[str, bytes] = field(default_factory=dict)

    def aspects(self, *, texts: bool) -> dict[str, str]:
        """What must agree. As text: to it, True isn't 1, and NaN is NaN."""
        error = "" if self.error is None else type(self.error).__name__
        if self.error is not None and texts:
            error += f": {self.error}"
        return {
            "type": self.kind,
            "result": repr(self.value),
            "error": error,
            "log": "\n".join(self.logs),
            "warnings": "\n".join(self.warnings),
            "cache calls": "\n".join(self.calls),
            "entries": "\n".join(f"{key}: {value!r}" for key, value in sorted(self.stored.items())),
        }

    @property
    def writes(self) -> list[str]:
        return [call for call in self.calls if call.split()[0] in WRITES]


class _Logs(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__(logging.DEBUG)
        self.lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[0] if record.exc_info else None
        trace = f" [{error.__name__}]" if error else ""
        self.lines.append(f"{record.levelname} {record.name}: {record.getMessage()}{trace}")


@contextmanager
def _logs_of(name: str, lines: list[str]) -> Iterator[None]:
    logger = logging.getLogger(name)
    handler, level = _Logs(lines), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


@contextmanager
def _warnings(lines: list[str]) -> Iterator[None]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    lines += [
        f"{warning.category.__name__}: {warning.message}"
        for warning in caught
        # Djblets' AES is another package's, and that has its own worries.
        if warning.category.__name__ != "CryptographyDeprecationWarning"
    ]


def _config(name: str) -> Config:
    backend = f"{RecordingCache.__module__}.{RecordingCache.__name__}"
    return {"BACKEND": backend, "LOCATION": f"parity-{name}", "OPTIONS": ROOMY}


def _unrolled(value: Any, seen: list[Any]) -> Any:
    """The items of an iterator, also those ahead of an error."""
    if not isinstance(value, Iterator):
        return value
    for item in islice(value, MOST_ITEMS):
        seen.append(item)
    return seen


def difference(left: str, right: str, around: int = 60) -> str:
    """Where two texts part; whole, entries of megabytes would be of no use to anybody."""
    length = min(len(left), len(right))
    at = next((i for i in range(length) if left[i] != right[i]), length)
    start = max(0, at - around)
    return "\n".join(
        f"  {name:9} ({len(text)} characters, from {start}): {text[start : at + around]}"
        for name, text in (("djblets", left), ("fastblets", right))
    )


class Parity:
    """Runs actions through both libraries and fails the test where they differ."""

    def __init__(self, ivs: CountingIVs) -> None:
        self.djblets = Library("djblets")
        self.fastblets = Library("fastblets")
        self.libraries = (self.djblets, self.fastblets)
        self._ivs = ivs

    def __call__(self, action: Action, *, texts: bool = True, ignoring: str | None = None) -> Trial:
        """Run on a cache of its own for each, both empty, with the same IVs.

        Args:
            texts: Whether errors must have the same text, not the same type only.
            ignoring: What may differ in the result, logs and errors: a regular expression.
        """
        theirs, ours = (self.run(library, action) for library in self.libraries)
        self.compare(theirs, ours, texts=texts, ignoring=ignoring)
        return ours

    def crosswise(self, action: Action) -> Trial:
        """Run on both, and have each read what the other stored, computing nothing again."""
        written = self(action)
        for reader, writer in (
            (self.djblets, self.fastblets),
            (self.fastblets, self.djblets),
        ):
            read = self.run(reader, action, on=writer, empty=False)
            if read.writes or read.stored != written.stored:
                pytest.fail(f"{reader} computes again what {writer} stored: {read.writes}")
            if repr(read.value) != repr(written.value) or read.error:
                where = difference(repr(written.value), repr(read.value))
                pytest.fail(f"{reader} reads what {writer} stored otherwise: {read.error}\n{where}")
        return written

    def run(self, library: Library, action: Action, *, on: Library | None = None, empty: bool = True) -> Trial:
        """Run through one library, on the cache that is kept for it or for the other one."""
        trial: Trial = Trial()
        self._ivs.calls = 0
        with use_cache(_config((on or library).name), empty=empty) as cache:
            assert isinstance(cache, RecordingCache)
            cache.calls.clear()
            seen: list[Any] = []
            with _logs_of("djblets", trial.logs), _warnings(trial.warnings):
                try:
                    returned = action(library)
                    trial.kind = type(returned).__name__
                    trial.value = _unrolled(returned, seen)
                except Exception as error:
                    trial.value = seen or None
                    trial.error = error
            trial.calls = cache.calls
            trial.stored = stored_bytes(cache)
        return trial

    @staticmethod
    def compare(theirs: Trial, ours: Trial, *, texts: bool = True, ignoring: str | None = None) -> None:
        left, right = theirs.aspects(texts=texts), ours.aspects(texts=texts)
        for aspect in left:
            beyond = BEYOND_DJBLETS.get(aspect, "(?!)")
            sides = left[aspect], re.sub(beyond, "", right[aspect])
            if aspect == "cache calls":
                sides = re.sub(SECOND_LOOK, r"\1", sides[0]), re.sub(SECOND_LOOK, r"\1", sides[1])
            if ignoring is not None and aspect != "entries":
                sides = re.sub(ignoring, "…", sides[0]), re.sub(ignoring, "…", sides[1])
            if sides[0] != sides[1]:
                pytest.fail(f"Not the same {aspect}:\n{difference(*sides)}")
