"""The pages that the experiments are for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


@dataclass(frozen=True)
class Page:
    """A page with tables: the promises that it tells of, and the subjects on which they are put to the test."""

    path: Path
    header: str
    promises: Mapping[int, str]
    subjects: tuple[str, ...]


RELIABILITY = Page(
    DOCS / "reliability.md",
    "What fails",
    {
        1: "The source fails",
        2: "An item can't be pickled",
        3: "An entry can't be read",
        4: "Generations never mix",
        5: "Counts of chunks are not to be trusted",
        6: "Memory is bounded",
        7: "Locks",
        8: "Keys",
        9: "Damage",
        10: "Servers",
        15: "Processes that compute under a policy",
    },
    ("djblets", "fastblets", "sealed"),
)
SECURITY = Page(
    DOCS / "security.md",
    "What is done",
    {
        11: "Entries that are encrypted",
        12: "Large entries that are not encrypted, under a key for seals",
        13: "An allow-list of classes",
        14: "What no seal can give",
    },
    ("djblets", "fastblets", "sealed", "required"),
)
PAGES = (RELIABILITY, SECURITY)


def page_of(promise: int) -> Page:
    return next(page for page in PAGES if promise in page.promises)
