"""What the experiments are made on: a library, and how it is set up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Subject:
    """A library with settings, and the title of its column."""

    library: str
    title: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_ours(self) -> bool:
        return self.library == "fastblets"


SEAL_KEY = "a key for the seals of tests alone"

SUBJECTS = {
    "djblets": Subject("djblets", "Djblets 6.1"),
    "fastblets": Subject("fastblets", "fastblets"),
    "sealed": Subject("fastblets", "fastblets, sealed", {"FASTBLETS_SEAL": True}),
    "required": Subject(
        "fastblets", "fastblets, seals required", {"FASTBLETS_SEAL": "require", "FASTBLETS_SEAL_KEY": SEAL_KEY}
    ),
}

# Which of ours can't notice something: those that don't seal, those that take what has no seal, all of them.
UNSEALED = frozenset({"fastblets"})
LENIENT = frozenset({"fastblets", "sealed"})
ALL_OURS = frozenset({"fastblets", "sealed", "required"})
