"""What the benchmarks store: the kinds of data that web applications cache."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

Record = dict[str, Any]

WORDS = ("façade", "naïve", "Ærø", "jalapeño", "résumé", "Zürich", "smörgåsbord")
TAGS = ("equal", "insert", "delete", "replace")


@dataclass
class Comment:
    """An instance of a class, which protocol 0 pickles through `copyreg`."""

    id: int
    author: str
    text: str
    line: int
    resolved: bool


def source_text(size: int) -> str:
    """That many characters of the standard library's own source, ASCII as most source is."""
    texts: list[str] = []
    missing = size

    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        text = path.read_text(encoding="utf-8")

        if text.isascii():
            texts.append(text)
            missing -= len(text)

        if missing <= 0:
            break

    # Some installations have only a few modules as files.
    text = "".join(texts)
    return (text * (size // len(text) + 1))[:size]


def records() -> Iterator[Record]:
    """Rows as an API lists them, without end."""
    number = 0

    while True:
        yield {
            "id": number,
            "name": f"User number {number}",
            "email": f"user{number}@example.com",
            "score": number * 0.37,
            "tags": [f"team-{number % 7}", f"office-{number % 11}", "staff"],
            "active": number % 3 == 0,
        }
        number += 1


def record_list(count: int) -> list[Record]:
    """The first so many of the records."""
    return list(islice(records(), count))


def opcodes(count: int) -> list[list[Any]]:
    """A diff's opcodes, as a diff viewer keeps them."""
    return [[TAGS[line % 4], line, line + line % 9, line + 3, line + 3 + line % 5] for line in range(count)]


def html_lines(count: int) -> list[str]:
    """Highlighted lines with accents."""
    return [
        f'<span class="k">return</span> <span class="s">&quot;{WORDS[line % 7]} {line}&quot;</span>'
        for line in range(count)
    ]


def comments(count: int) -> list[Comment]:
    """Instances of a class."""
    return [
        Comment(number, f"user{number % 50}", f"Comment number {number}", number % 900, number % 4 == 0)
        for number in range(count)
    ]
