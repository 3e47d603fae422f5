"""What can come of an experiment."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any


class Outcome(Enum):
    """From harmless to harmful: of several, the last counts."""

    RIGHT = "right"
    REBUILT = "rebuilt"
    ERROR = "error"
    COSTLY = "costly"
    SHORT = "short"
    WRONG = "wrong"
    EXECUTED = "executed"
    HANG = "hang"
    CRASH = "crash"

    @property
    def severity(self) -> int:
        return list(Outcome).index(self)


HARMLESS = frozenset({Outcome.RIGHT, Outcome.REBUILT, Outcome.ERROR})
# What a reader that can't notice a damage returns, or does.
UNNOTICED = frozenset({Outcome.SHORT, Outcome.WRONG, Outcome.EXECUTED})


@dataclass(frozen=True)
class Finding:
    """An outcome, and a few words about it."""

    outcome: Outcome
    note: str = ""

    @property
    def is_unnoticed(self) -> bool:
        return self.outcome in UNNOTICED

    def __str__(self) -> str:
        return f"{self.outcome.value} ({self.note})" if self.note else self.outcome.value


AnyFinding = Outcome | Finding


def as_finding(found: AnyFinding) -> Finding:
    return found if isinstance(found, Finding) else Finding(found)


def worst_of(found: Iterable[AnyFinding]) -> Finding:
    """The worst of several findings, and how many there are of it."""
    findings = [as_finding(each) for each in found]
    worst = max(findings, key=lambda finding: finding.outcome.severity)
    same = [finding for finding in findings if finding.outcome is worst.outcome]
    notes = list(dict.fromkeys(finding.note for finding in same if finding.note))
    if len(same) < len(findings):
        notes.insert(0, f"{len(same)} of {len(findings)}")
    return Finding(worst.outcome, ", ".join(notes[:3]))


def is_panic(error: BaseException) -> bool:
    return type(error).__name__ == "PanicException"


def of_error(error: BaseException) -> Finding:
    """The finding for an exception that a library raised where it should have returned something."""
    if is_panic(error):
        return Finding(Outcome.CRASH, "panic")
    if not isinstance(error, Exception):
        raise error
    return Finding(Outcome.ERROR, type(error).__name__)


def judge(items: Iterable[Any], old: list[Any] | None, new: list[Any] | None) -> Finding:
    """Read items, which nobody has asked for yet, and compare them with what was stored and what would be computed."""
    try:
        got = list(items)
    except BaseException as error:
        return of_error(error)
    return compare(got, old, new)


def compare(got: list[Any], old: list[Any] | None, new: list[Any] | None) -> Finding:
    if got == old:
        return Finding(Outcome.RIGHT)
    if got == new:
        return Finding(Outcome.REBUILT)
    if any(whole is not None and got == whole[: len(got)] for whole in (old, new)):
        return Finding(Outcome.SHORT)
    return Finding(Outcome.WRONG)


def check(right: bool, otherwise: Outcome = Outcome.WRONG, note: str = "") -> Finding:
    """Right, or something else that a note explains."""
    return Finding(Outcome.RIGHT) if right else Finding(otherwise, note)
