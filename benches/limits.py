"""A figure that must not be too large."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limit:
    """What both libraries need of something, and how much of it is allowed."""

    section: str
    job: str
    unit: str
    #: None: it is shown, but not judged.
    at_most: float | None
    djblets: float
    fastblets: float

    @property
    def missed(self) -> bool:
        """Whether the limit is exceeded."""
        return self.at_most is not None and self.fastblets > self.at_most
