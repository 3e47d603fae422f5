"""What the benchmarks store: the kinds of data that web applications cache."""

from __future__ import annotations

import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import UUID

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


def rows(make: Callable[[int], Record], count: int) -> list[Record]:
    """Rows of a table, as Django gives them."""
    return [make(number) for number in range(count)]


def row_with_datetimes(number: int) -> Record:
    """As Django has them under `USE_TZ`."""
    created = datetime(2024, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=977 * number, microseconds=7919 * number)
    return {"id": number, "created": created, "updated": created + timedelta(minutes=number % 1000)}


def row_with_dates(number: int) -> Record:
    """Two of them."""
    begin = date(2020, 1, 1) + timedelta(days=number % 2000)
    return {"id": number, "begin": begin, "end": begin + timedelta(days=number % 30)}


def row_with_decimals(number: int) -> Record:
    """As prices are."""
    return {"id": number, "net": Decimal(number * 37 % 100_000) / 100, "tax": Decimal(number * 7 % 100_000) / 100}


def row_with_uuids(number: int) -> Record:
    """A primary key and a foreign one."""
    return {
        "id": UUID(int=(number * 0x9E3779B97F4A7C15F39CC0605CEDC834 + 1) % 2**128),
        "owner": UUID(int=number % 97 << 96),
    }


def mixed_row(number: int) -> Record:
    """What `QuerySet.values()` gives of a table of orders."""
    return {
        "id": number,
        "customer": f"Customer number {number % 5000}",
        "created": datetime(2024, 1, 1, tzinfo=timezone.utc)
        + timedelta(seconds=977 * number, microseconds=number % 1000),
        "total": Decimal(number * 37 % 100_000) / 100,
        "paid": number % 3 == 0,
        "note": None if number % 4 else f"Note {number}",
    }


def instances(model: str, count: int) -> list[Any]:
    """Instances of a model of `tests.shop`, as a queryset gives them."""
    # Django's models can be had once Django is set up.
    from django.apps import apps

    found = apps.get_model("shop", model)
    names = [field.attname for field in found._meta.concrete_fields]
    return [found.from_db("default", names, [_column(name, number) for name in names]) for number in range(count)]


def _column(name: str, number: int) -> Any:
    row = {**mixed_row(number), **row_with_dates(number), **row_with_uuids(number)}
    return {
        "id": number,
        "name": row["customer"],
        "score": number * 7 % 1000,
        "number": f"2026-{number:06}",
        "customer_id": number % 5000,
        "reference": row["owner"],
        "total": row["total"],
        "paid": row["paid"],
        "created": row["created"],
        "due": row["begin"],
        "weight": number * 0.37,
        "pieces": number % 20,
        "note": row["note"] or "",
        "city": WORDS[number % 7],
    }[name]
