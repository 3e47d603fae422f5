"""What was stored for the vectors: inputs without any library."""

from __future__ import annotations

import string
from collections import namedtuple
from collections.abc import Iterable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from functools import cache
from itertools import product
from typing import Any
from uuid import UUID, SafeUUID
from zoneinfo import ZoneInfo

CHUNK = 2**20 - 1024
IV = 16
AES_KEYS = [bytes(range(size)) for size in (16, 24, 32)]

_ALPHABET = string.ascii_letters + string.digits + "+/"
_BLOCK = 1 << 16

Point = namedtuple("Point", "x y")


class Masked(str):
    def __str__(self) -> str:
        return "****"


class Slots:
    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


@cache
def _block() -> str:
    state, characters = 1, []
    for _ in range(_BLOCK):
        state = (state * 1_664_525 + 1_013_904_223) % 2**32
        characters.append(_ALPHABET[state >> 26])
    return "".join(characters)


def noise(size: int) -> str:
    """A text that zlib can't make much smaller: what repeats is beyond its window."""
    return (_block() * (size // _BLOCK + 1))[:size]


def noise_pickled_to(size: int) -> str:
    """A noise whose protocol 0 pickle has that size."""
    return noise(size - len("V\np0\n."))


#: Text, parts, settings, options.
TEXTS = [
    "key",
    "",
    "a b",
    "\x00\t\n\x1f\x7f\x80\x85\xa0\u2028",
    "ключ 鍵 🔑",
    "100%:done",
    "%3A",
    *("a" * size for size in (227, 228, 229, 230)),
    *("д" * size for size in (228, 229)),
    *("🔑" * size for size in (228, 229)),
    "a" * 224 + "\n",
    "a" * 225 + "\n",
    "x" * 1000,
]
PARTS = [
    [],
    [""],
    ["one:%"],
    ["", ""],
    ["a:b", "c%d"],
    ["a", "b:c"],
    ["%3A", "%25", "\n"],
    ["users", "1", "ключ", "x" * 300],
    ["%" * 80, ":" * 80],
]
SETTINGS: list[dict[str, Any]] = [
    {},
    {"SITE_ROOT": "/"},
    {"SITE_ROOT": "/reviews: a%b/"},
    {"SITE_ROOT": ""},
    {"SITE_ID": 999},
    {"DJBLETS_CACHE_FORCE_ENCRYPTION": True},
    {"DJBLETS_CACHE_FORCE_ENCRYPTION": True, "SECRET_KEY": "ключ" * 20},
    {"DJBLETS_CACHE_FORCE_ENCRYPTION": True, "DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY": "ключ-ключ-"},
    {"DJBLETS_CACHE_FORCE_ENCRYPTION": True, "DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY": AES_KEYS[2]},
]
OPTIONS: list[dict[str, Any]] = [{"use_encryption": True, "encryption_key": key} for key in (*AES_KEYS, b"any size")]


def keyed_calls() -> Iterable[tuple[Any, dict[str, Any], dict[str, Any]]]:
    """Keys with settings and options."""
    for key in [*TEXTS, *PARTS]:
        yield key, {}, {}
        yield key, {}, {"use_encryption": True}
    for key, settings in product(["key", ["a:b", "c"], "k" * 300], SETTINGS[1:]):
        yield key, settings, {}
        yield key, settings, {"use_encryption": False}
    for key, options in product(["key", ["a:b", "c"]], OPTIONS):
        yield key, {}, options


_SHARED = ["shared"]
_MOMENT = datetime(2024, 2, 29, 12, 30, 59, 999999, tzinfo=timezone.utc)
_HOUR = timezone(timedelta(hours=1))
_VALUES: dict[str, Any] = {
    "none": None,
    "true": True,
    "integers": [0, -1, 255, 256, 65536, 2**31, -(2**63), 10**40],
    "floats": [1.5, -0.0, float("inf"), 1e100, 1e-5],
    "empty text": "",
    "text": "text",
    "awkward text": "\\u0041 \\\n\r\0\x1a\x7f\x80\xff\u2028 ключ 🔑 \ud800",
    "bytes": bytes(range(256)),
    "bytearray": bytearray(b"\0\xff"),
    "empty containers": [[], (), {}, set(), frozenset()],
    "tuples": [(1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
    "nested": {"a": [1, (2.5, None)], "b": {"c": {"d": ["deep"]}}, 1: b"x", None: False},
    "shared": [_SHARED, _SHARED, ("a", "a"), "a"],
    "long list": list(range(2500)),
    "long dict": {str(number): number for number in range(1500)},
    "datetime": datetime(2024, 2, 29, 12, 30, 59, 999999, tzinfo=timezone.utc),
    "decimal": Decimal("1.10"),
    "namedtuple": Point(1, "two"),
}
#: Each type that rows have, in the one mode that shows its pickle.
_ROW_VALUES: dict[str, Any] = {
    "dates and times": [
        _MOMENT,
        _MOMENT,
        date(2024, 10, 13),
        time(10, 13, 26),
        time(1, tzinfo=_HOUR),
        timedelta(-1, 2, 3),
    ],
    "time zones": [
        _HOUR,
        _HOUR.utcoffset(None),
        timezone(timedelta(hours=-3), "X"),
        _MOMENT.astimezone(ZoneInfo("UTC")),
        "UTC",
    ],
    "decimals": [Decimal(text) for text in ("1", "1", "-0", "1E+400", "1E-7", "NaN", "-Infinity", "123456789.10")],
    "uuids": [UUID(int=5), UUID(int=2**128 - 1), UUID(int=7, is_safe=SafeUUID.safe), "int", "is_safe"],
    "sets": [{1}, {"a"}, frozenset([_MOMENT]), [{None}, frozenset()], frozenset([frozenset([2])])],
    "complex numbers": [1j, complex(-0.0, 2.5)],
}
_ITEMS: dict[str, list[Any]] = {
    "no items": [],
    "one item": ["one"],
    "items": [None, "", [], "text", 5, {"a": (1,)}],
    "items that share": [_SHARED, _SHARED],
    "rows": [{"id": number, "name": f"row {number}", "even": number % 2 == 0} for number in range(60)],
    "rows of orders": [
        {
            "id": UUID(int=number << 64),
            "at": _MOMENT + timedelta(days=number),
            "on": date(2024, 1, 1 + number),
            "sum": Decimal(number) / 4,
        }
        for number in range(3)
    ],
}
MODES = [
    {"compress_large_data": compress, "use_encryption": encrypt}
    for compress, encrypt in product([False, True], repeat=2)
]

Case = dict[str, Any]


def memoize_calls() -> Iterable[Case]:
    """Calls: a name, which function, the items or value, the key, the options."""
    for name, value in _VALUES.items():
        yield _case(f"{name}, small", [value], use_encryption=False)
        yield _case(f"{name}, small, encrypted", [value], use_encryption=True)
        for mode in MODES:
            yield _case(f"{name}, large, {_mode(mode)}", [value], large_data=True, **mode)
    for name, value in _ROW_VALUES.items():
        yield _case(f"{name}, large, {_mode(MODES[0])}", [value], large_data=True, **MODES[0])
    for (name, items), mode in product(_ITEMS.items(), MODES):
        yield _case(f"{name}, {_mode(mode)}", items, is_iter=True, **mode)
    for key, mode in product(["a b", ["one"], ["a:b", "c%"], "k" * 300], MODES):
        yield _case(f"under the key {str(key)[:12]}, {_mode(mode)}", ["item"], key=key, is_iter=True, **mode)
    for aes_key in AES_KEYS:
        options = {"use_encryption": True, "encryption_key": aes_key}
        yield _case(f"under an AES key of {len(aes_key)} bytes", ["item"], large_data=True, **options)
    yield from _sized_entries()


#: Values that protocol 0 refuses or changes.
_WIDER: dict[str, Any] = {
    "fold": [datetime(2023, 11, 5, 1, 30, fold=1, tzinfo=timezone.utc), time(1, 30, fold=1)],
    "masked text": {"key": Masked("secret")},
    "slots": Slots([1, "two", b"3"]),
    "a long integer": -(10**5000),
    "a long one of them": [Masked("x"), noise(100_000), noise(70_000).encode()],
}


def wider_calls() -> Iterable[Case]:
    """As `memoize_calls()`, with the protocol of each item."""
    modes: list[dict[str, bool]] = [*MODES, {"use_encryption": True}]
    for (name, value), mode in product(_WIDER.items(), modes):
        large = "compress_large_data" in mode
        named = f"{name}, {_mode(mode) if large else 'small'}"
        yield _case(named, [value], large_data=large, **mode) | {"protocols": [4]}
    items = ["text", _WIDER["masked text"], {"a": [1]}, *_WIDER.values(), None]
    protocols = [0, 4, 0, *[4] * len(_WIDER), 0]
    for mode in MODES:
        yield _case(f"mixed items, {_mode(mode)}", items, is_iter=True, **mode) | {"protocols": protocols}


def _sized_entries() -> Iterable[Case]:
    for chunks, more, encrypt in product([1, 2], [-1, 0, 1], [False, True]):
        text = noise_pickled_to(chunks * CHUNK + more - IV * encrypt)
        mode = {"compress_large_data": False, "use_encryption": encrypt}
        yield _case(f"{chunks} chunks {more:+d}, {_mode(mode)}", [text], large_data=True, **mode)
    for mode in MODES:
        texts = [noise(size) for size in (5, 900_000, 1_800_000, 0, 700_000)]
        yield _case(f"sized items, {_mode(mode)}", texts, is_iter=True, **mode)


def _mode(mode: dict[str, bool]) -> str:
    return f"{'compressed' if mode['compress_large_data'] else 'plain'} {'encrypted' if mode['use_encryption'] else ''}"


def _case(name: str, items: list[Any], *, key: Any = "key", is_iter: bool = False, **options: Any) -> Case:
    return {"name": name.strip(), "items": items, "key": key, "is_iter": is_iter, "options": options}


def aes_inputs() -> Iterable[tuple[bytes, bytes]]:
    """AES keys and what is encrypted."""
    for key, size in product(AES_KEYS, [0, 1, 15, 16, 17, 31, 32, 33, 300]):
        yield key, bytes(index * 37 % 256 for index in range(size))
