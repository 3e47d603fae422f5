"""Experiments: what they are, and the list of them all."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from tests.faults.outcome import HARMLESS, UNNOTICED, AnyFinding, Finding, Outcome, as_finding, worst_of

if TYPE_CHECKING:
    from tests.faults.lab import Lab

Run = Callable[["Lab"], AnyFinding | Iterator[AnyFinding]]
# One outcome, several that chance decides between, or those by backend, where "*" stands for the others.
Expected = Outcome | Collection[Outcome] | dict[str, "Expected"]

MEMCACHED = ("pymemcache", "pylibmc")
SERVERS = (*MEMCACHED, "redis")
LASTING = ("file", "database", *SERVERS)
ALL = ("locmem", *LASTING)
# Where what is stored is damaged, not how: the backend only carries it.
ONE = ("locmem",)

TIME_LIMIT = 40.0


@dataclass(frozen=True)
class Experiment:
    """One way to fail, on some backends, and what is expected of both libraries."""

    name: str
    promise: int
    run: Run
    djblets: Expected
    fastblets: Expected
    backends: tuple[str, ...] = ALL
    client: str = ""
    seconds: float = TIME_LIMIT
    undetectable: bool = False
    slow: bool = False

    def conduct(self, lab: Lab) -> Finding:
        found = self.run(lab)
        return worst_of(found) if inspect.isgenerator(found) else as_finding(found)

    def expected(self, library: str, backend: str) -> frozenset[Outcome]:
        return _resolve(self.djblets if library == "djblets" else self.fastblets, backend)

    def is_acceptable(self, outcome: Outcome, backend: str) -> bool:
        """Whether fastblets may have this outcome: what is harmless it may, expected or not."""
        return self.undetectable if outcome in UNNOTICED else outcome in HARMLESS


def _resolve(expected: Expected, backend: str) -> frozenset[Outcome]:
    if isinstance(expected, Outcome):
        return frozenset({expected})
    if isinstance(expected, dict):
        return _resolve(expected.get(backend, expected.get("*", ())), backend)
    return frozenset(expected)


_experiments: dict[str, Experiment] = {}


def experiment(
    promise: int,
    name: str,
    *,
    djblets: Expected,
    fastblets: Expected = Outcome.RIGHT,
    backends: tuple[str, ...] = ALL,
    client: str = "",
    seconds: float = TIME_LIMIT,
    undetectable: bool = False,
    slow: bool = False,
) -> Callable[[Run], Run]:
    """Put a function on the list: it returns a finding, or yields many, of which the worst counts.

    Args:
        promise: The number of the promise that is put to the test.
        name: What fails.
        djblets: What Djblets 6.1 does.
        fastblets: What fastblets does.
        backends: Where it can fail.
        client: What options the client is to have, by the name of a set of them.
        seconds: How long it may take; then it hangs.
        undetectable: Whether the stored bytes don't tell.
        slow: Whether it is left out of the short list.
    """

    def register(run: Run) -> Run:
        if name in _experiments:
            raise ValueError(f"two experiments are called {name!r}")
        _experiments[name] = Experiment(
            name, promise, run, djblets, fastblets, backends, client, seconds, undetectable, slow
        )
        return run

    return register


def experiments() -> dict[str, Experiment]:
    """All of them by name, in the order of the promises."""
    package = import_module("tests.faults.experiments")
    for module in iter_modules(package.__path__):
        import_module(f"{package.__name__}.{module.name}")
    return dict(sorted(_experiments.items(), key=lambda pair: pair[1].promise))
