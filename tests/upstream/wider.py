"""Values that protocol 0 refuses or changes, and how any release of Djblets reads their entries.

``python -m tests.upstream.wider FOLDER`` reads, with the Djblets of that interpreter, the entries that fastblets has
stored in a file cache, and prints what it found. Nothing else of the tests is imported, nor is fastblets.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, time, timezone
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any
from zoneinfo import ZoneInfo

from django.utils.html import format_html
from django.utils.safestring import mark_safe


class Masked(str):
    def __str__(self) -> str:
        return "****"


class Percent(int):
    def __int__(self) -> int:
        return 0


class Rounded(float):
    def __float__(self) -> float:
        return super().__float__() // 1


class Doubled(list):  # type: ignore[type-arg]
    def __iter__(self) -> Iterator[Any]:
        return iter([item for item in super().__iter__() for _ in range(2)])


class Hidden(dict):  # type: ignore[type-arg]
    def __iter__(self) -> Iterator[Any]:
        return super().__iter__()

    def __getitem__(self, key: Any) -> Any:
        return "****"


@dataclass(slots=True)
class Slots:
    value: Any


class Plain:
    def __init__(self, value: Any) -> None:
        self.value = value


#: One of each. Each is stored alone, and inside of others.
VALUES: list[Any] = [
    datetime(2023, 11, 5, 1, 30, fold=1, tzinfo=ZoneInfo("America/New_York")),
    time(1, 30, fold=1, tzinfo=timezone.utc),
    Masked("secret"),
    Percent(5),
    Rounded(2.25),
    Doubled([1, [2]]),
    Hidden(a=1),
    mark_safe("<b>"),
    format_html("<b>{}</b>", "&"),
    Slots([1]),
    10**5000,
]

#: Whether it is an iterable, and the options of `cache_memoize()`.
MODES: list[tuple[bool, dict[str, bool]]] = [
    (False, {"use_encryption": True}),
    *(
        (is_iter, {"compress_large_data": compress, "use_encryption": encrypt})
        for is_iter, compress, encrypt in product([False, True], repeat=3)
    ),
]


def items() -> list[Any]:
    """Each of the values, alone and in others, and items of protocol 0 among them."""
    return [
        item
        for number, value in enumerate(VALUES)
        for item in ("text", value, [value, value], {"key": [value]}, Plain(value), Plain(number))
    ]


def memoize(backend: ModuleType, name: str, make: Callable[[], list[Any]]) -> Iterator[list[Any]]:
    """The items by each mode, all of one mode together."""
    for number, (is_iter, options) in enumerate(MODES):
        # The oldest release knows no keys of several parts.
        key = f"{name}.{number}"
        if is_iter:
            yield list(backend.cache_memoize_iter(key, lambda: iter(make()), **options))
        else:
            large = "compress_large_data" in options
            yield [
                backend.cache_memoize(f"{key}.{place}", lambda place=place: make()[place], large_data=large, **options)
                for place in range(len(items()))
            ]


def described(value: Any) -> str:
    """What a value holds, whatever its own methods say."""
    content: Any = ""
    if isinstance(value, str):
        content = str.__getnewargs__(value)
    elif isinstance(value, int):
        content = int.__format__(value, "x")
    elif isinstance(value, float):
        content = float.__getnewargs__(value)
    elif isinstance(value, (datetime, time)):
        content = value.isoformat(), value.fold, value.utcoffset()
    elif isinstance(value, list):
        content = [described(item) for item in value[:]]
    elif isinstance(value, dict):
        content = [(described(key), described(item)) for key, item in dict.items(value)]
    elif isinstance(value, (Slots, Plain)):
        content = described(value.value)
    return f"{type(value).__name__}({content})"


def main() -> None:
    import django
    from django.conf import settings

    from tests import settings as suite

    cache = {"BACKEND": "django.core.cache.backends.filebased.FileBasedCache", "LOCATION": sys.argv[1]}
    options = {"OPTIONS": {"MAX_ENTRIES": 10_000}}
    own = {name: value for name, value in vars(suite).items() if name.isupper()}
    settings.configure(**{**own, "CACHES": {"default": cache | options}})
    django.setup()

    import djblets
    from django.core.management import call_command
    from djblets.cache import backend

    call_command("migrate", verbosity=0)

    def never() -> list[Any]:
        raise LookupError("computed again")

    found = {
        name: [[described(item) for item in found] for found in memoize(backend, name, never)]
        for name in ("unsealed", "sealed")
    }
    Path(sys.argv[1], "found.json").write_text(json.dumps({"version": djblets.get_package_version(), "found": found}))


if __name__ == "__main__":
    # Pickles name the classes by this module, not by __main__.
    from tests.upstream import wider

    wider.main()
