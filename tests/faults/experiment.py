"""Experiments: what they are, and the list of them all."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from tests.faults.outcome import HARMLESS, UNNOTICED, AnyFinding, Finding, Outcome, as_finding, worst_of
from tests.faults.page import page_of

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
    """One way to fail, on some backends, and what is expected of each subject."""

    name: str
    promise: int
    run: Run
    expectations: Mapping[str, Expected]
    backends: tuple[str, ...] = ALL
    client: str = ""
    seconds: float = TIME_LIMIT
    undetectable: Collection[str] = ()
    slow: bool = False

    @property
    def subjects(self) -> Collection[str]:
        return self.expectations

    def conduct(self, lab: Lab) -> Finding:
        found = self.run(lab)
        return worst_of(found) if inspect.isgenerator(found) else as_finding(found)

    def expected(self, subject: str, backend: str) -> frozenset[Outcome]:
        return _resolve(self.expectations[subject], backend)

    def is_acceptable(self, outcome: Outcome, subject: str) -> bool:
        """Whether this outcome may be ours: what is harmless may, expected or not."""
        return subject in self.undetectable if outcome in UNNOTICED else outcome in HARMLESS


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
    djblets: Expected | None,
    fastblets: Expected = Outcome.RIGHT,
    sealed: Expected | None = None,
    required: Expected | None = None,
    backends: tuple[str, ...] = ALL,
    client: str = "",
    seconds: float = TIME_LIMIT,
    undetectable: Collection[str] = (),
    slow: bool = False,
) -> Callable[[Run], Run]:
    """Put a function on the list: it returns a finding, or yields many, of which the worst counts.

    Args:
        promise: The number of the promise that is put to the test.
        name: What fails.
        djblets: What Djblets 6.1 does. None, if it has nothing like that.
        fastblets: What fastblets does.
        sealed: What it does with entries that it sealed. Default: the same, or noticing what can't be noticed else.
        required: What it does where a seal is required. Default: as with entries that it sealed.
        backends: Where it can fail.
        client: What options the client is to have, by the name of a set of them.
        seconds: How long it may take; then it hangs.
        undetectable: Of which subjects the stored bytes don't tell.
        slow: Whether it is left out of the short list.
    """

    def register(run: Run) -> Run:
        if name in _experiments:
            raise ValueError(f"two experiments are called {name!r}")
        noticed = Outcome.REBUILT if "fastblets" in undetectable and "sealed" not in undetectable else fastblets
        when_sealed = noticed if sealed is None else sealed
        expectations = {
            **({} if djblets is None else {"djblets": djblets}),
            "fastblets": fastblets,
            "sealed": when_sealed,
            "required": when_sealed if required is None else required,
        }
        _experiments[name] = Experiment(
            name,
            promise,
            run,
            {subject: expectations[subject] for subject in page_of(promise).subjects if subject in expectations},
            backends,
            client,
            seconds,
            undetectable,
            slow,
        )
        return run

    return register


def experiments() -> dict[str, Experiment]:
    """All of them by name, in the order of the promises."""
    package = import_module("tests.faults.experiments")
    for module in iter_modules(package.__path__):
        import_module(f"{package.__name__}.{module.name}")
    return dict(sorted(_experiments.items(), key=lambda pair: pair[1].promise))
