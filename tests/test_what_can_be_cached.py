"""docs/what-can-be-cached.md: each example of its tables, in each form, on every backend."""

from __future__ import annotations

import re
import sys
import threading
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from fractions import Fraction
from functools import partial
from ipaddress import ip_address
from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth.models import Group
from django.core.cache.backends.base import BaseCache
from django.db.models import QuerySet
from django.utils.functional import Promise
from django.utils.html import format_html
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy

from fastblets.cache.backend import cache_memoize, cache_memoize_iter
from tests.test_docs import DOCS

PAGE = (DOCS / "what-can-be-cached.md").read_text(encoding="utf-8")


class Color(Enum):
    RED = 1


class Size(IntEnum):
    LARGE = 3


class Level(str, Enum):
    HIGH = "high"


Pair = namedtuple("Pair", "first second")


@dataclass
class Point:
    x: int
    y: int


@dataclass
class Slotted:
    __slots__ = ("x",)
    x: int


@dataclass(slots=True)
class DataSlotted:
    x: int


@dataclass(frozen=True, slots=True)
class FrozenSlotted:
    x: int


class Meters(int):
    pass


class Stack(list[Any]):
    pass


class Config(dict[str, Any]):
    pass


class Masked(str):
    def __str__(self) -> str:
        return "****"


class Percent(int):
    def __int__(self) -> int:
        return 0


def local_class() -> type:
    class Local:
        pass

    return Local


#: The names that the examples use.
NAMES = {
    **{name: value for name, value in globals().items() if not name.startswith("_")},
    **{item.__name__: item for item in (Counter, OrderedDict, defaultdict, deque, date, datetime, time, timedelta)},
    **{item.__name__: item for item in (Decimal, Fraction, UUID, ZoneInfo, PurePosixPath, SimpleNamespace)},
    **{"format_html": format_html, "gettext_lazy": gettext_lazy, "mark_safe": mark_safe},
    **{"ip_address": ip_address, "partial": partial},
    **{"re": re, "sys": sys, "threading": threading},
}

FORMS = {
    "small": lambda key, make: cache_memoize(key, make),
    "small, encrypted": lambda key, make: cache_memoize(key, make, use_encryption=True),
    "large": lambda key, make: cache_memoize(key, make, large_data=True),
    "large, plain": lambda key, make: cache_memoize(key, make, large_data=True, compress_large_data=False),
    "large, encrypted": lambda key, make: cache_memoize(key, make, large_data=True, use_encryption=True),
    "item": lambda key, make: next(iter(list(cache_memoize_iter(key, lambda: [make()])))),
}
#: The columns of the first table, from the third on, and the forms that each of them speaks of.
COLUMNS = [["small"], ["small, encrypted"], ["large", "large, plain", "large, encrypted", "item"]]


def table(heading: str) -> list[list[str]]:
    """The cells of the rows of the first table after a line that begins so."""
    rows = f"\n{PAGE}".partition(f"\n{heading}")[2].partition("\n| ")[2].partition("\n\n")[0]
    return [re.split(r" \| ", row.strip("| ")) for row in rows.splitlines()[2:]]


def examples(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


OUTCOMES = {
    (example, form): outcome
    for _, cell, *outcomes in table("# What can be cached")
    for example in examples(cell)
    for forms, outcome in zip(COLUMNS, outcomes, strict=True)
    for form in forms
}
#: What a backend's client does otherwise to a small value.
BY_CLIENT = {
    (client, example): outcome
    for client, cell, outcome in table("## What clients do to small values")
    for example in examples(cell)
}
#: These end the process: the page says so.
DEADLY = [("pylibmc", '"\\ud83d"'), ("pylibmc", "10**5000")]


def test_the_tables_are_read() -> None:
    assert len(OUTCOMES) > 250
    assert set(OUTCOMES.values()) == {"yes", "no"}
    assert {client for client, _ in BY_CLIENT} == {"pymemcache", "pylibmc", "redis", "django_redis"}
    assert {example for _, example in [*BY_CLIENT, *DEADLY]} <= {example for example, _ in OUTCOMES}


def is_equal(found: Any, value: Any) -> bool:
    if isinstance(value, Promise):
        # Each is of a class of its own.
        return isinstance(found, Promise) and str(found) == str(value)
    if type(found) is not type(value):
        return False
    if isinstance(value, QuerySet):
        return list(found) == list(value)
    if isinstance(value, datetime):
        # Equal, where the time zone is the same, even if the moment is not.
        return found.utcoffset() == value.utcoffset() and found == value
    if isinstance(value, (datetime, time)) and found.fold != value.fold:
        return False
    if isinstance(value, partial):
        return (found.func, found.args, found.keywords) == (value.func, value.args, value.keywords)
    return bool(found == value)


def outcome(example: str, form: str, caplog: pytest.LogCaptureFixture) -> str:
    """What becomes of an example, in the table's words."""
    computed = []

    def make() -> Any:
        computed.append(value := eval(example, NAMES))
        return value

    caplog.clear()
    first = FORMS[form](f"{form} {example!a}", make)
    again = FORMS[form](f"{form} {example!a}", make)
    logged = any(record.levelname == "ERROR" for record in caplog.records)

    assert first is computed[0], "not the value itself"
    if len(computed) == 2:
        assert again is computed[1], "not the value itself"
        assert logged, "computed again without a word"
        return "no"
    assert not logged
    if is_equal(again, first):
        return "yes"
    name = type(again).__name__
    return "changed" if type(again) is type(first) else f"{'an' if name[0] in 'aeiou' else 'a'} `{name}`"


@pytest.mark.parametrize("form", FORMS)
def test_the_tables(
    form: str, cache_backend: BaseCache, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    Group.objects.create(name="staff")
    backend = request.node.callspec.params["cache_backend"].name
    expected = {example: outcome for (example, of), outcome in OUTCOMES.items() if of == form}
    if form == "small":
        expected |= {example: outcome for (client, example), outcome in BY_CLIENT.items() if client == backend}
        for client, example in DEADLY:
            if client == backend:
                del expected[example]
    assert {example: outcome(example, form, caplog) for example in expected} == expected
