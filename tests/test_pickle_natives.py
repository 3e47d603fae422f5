"""Values of the standard library that rows are made of: the codec's bytes and objects are those of CPython's pickle."""

from __future__ import annotations

import copyreg
import datetime as datetime_module
import decimal
import io
import pickle
import pickletools
import random
import re
import subprocess
import sys
import uuid
import zoneinfo
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch
from zoneinfo import ZoneInfo

import pytest
from django.test import override_settings
from hypothesis import given, settings
from hypothesis import strategies as st

from fastblets import _native
from fastblets.cache.classes import get_loads
from tests.test_pickle_codec import FUZZ, check_written, count_read
from tests.test_pickle_instances import Frozen, Plain, check_stream

UTC = timezone.utc
HOUR = timezone(timedelta(hours=1))
NAMED = timezone(-timedelta(hours=3, minutes=30), "X")
PARIS = ZoneInfo("Europe/Paris")
NEW_YORK = ZoneInfo("America/New_York")
MOMENT = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
ID = uuid.UUID(int=2**127 + 5)
#: Its node and its clock are right, or not: the platform says so.
SAFE = uuid.UUID(int=7, is_safe=uuid.SafeUUID.safe)
UNSAFE = uuid.UUID(int=8, is_safe=uuid.SafeUUID.unsafe)
#: Its state is full of what has to be escaped.
STATE = datetime(0x0A5C, 0xA, 0xD, 0xA, 0, 0x1A, 0x0D5C0A, tzinfo=UTC)


class Ordered(OrderedDict):  # type: ignore[type-arg]
    pass


class Default(defaultdict):  # type: ignore[type-arg]
    pass


class Deque(deque):  # type: ignore[type-arg]
    pass


class Fixed(tzinfo):
    """A zone of somebody's own."""

    def utcoffset(self, _: datetime | None) -> timedelta:
        return timedelta(0)


def moved() -> OrderedDict[str, int]:
    """Its order is not that of its dict."""
    value = OrderedDict(a=1, b=2, c=3)
    value.move_to_end("a")
    value["d"] = value.pop("b")
    value.move_to_end("d", last=False)
    return value


NATIVE: list[Any] = [
    datetime.min,
    datetime.max,
    MOMENT,
    STATE,
    MOMENT.replace(tzinfo=None),
    MOMENT.replace(tzinfo=HOUR),
    MOMENT.replace(tzinfo=NAMED),
    MOMENT.replace(tzinfo=PARIS),
    [MOMENT, MOMENT, [MOMENT]],
    [MOMENT + timedelta(days=number) for number in range(20)],
    [datetime(2026, 1, number, tzinfo=zone) for number in (1, 2) for zone in (UTC, PARIS, NEW_YORK, PARIS, None)],
    {"created": MOMENT, "day": MOMENT.date(), "time": MOMENT.timetz()},
    date.min,
    date.max,
    date(2026, 10, 13),
    [date(2026, 1, number) for number in range(1, 31)],
    time.min,
    time.max,
    time(10, 13, 26, 0x0D5C0A),
    time(1, tzinfo=UTC),
    time(1, tzinfo=PARIS),
    timedelta.min,
    timedelta.max,
    timedelta(0),
    timedelta(-1, 2, 3),
    UTC,
    timezone.min,
    timezone.max,
    [HOUR, HOUR.utcoffset(None), HOUR],
    [HOUR.utcoffset(None), HOUR],
    [UTC.utcoffset(None), UTC, timedelta(0)],
    [NAMED, "X", NAMED.tzname(None)],
    ["X", NAMED],
    timezone(timedelta(0), "zero"),
    timezone(timedelta(0), "é"),
    timezone(timedelta(0), "ключ"),
    timezone(timedelta(0), ""),
    PARIS,
    [PARIS, PARIS.key, NEW_YORK, PARIS],
    [PARIS.key, PARIS],
    ["_unpickle", PARIS],
    Decimal("1.10"),
    [Decimal(text) for text in ("0", "-0", "1E+400", "1e-7", "NaN", "sNaN", "-sNaN123", "Infinity", "-inf", "1" * 90)],
    [Decimal(1), "1", Decimal(1), Decimal("10"), "10", Decimal(10)],
    ["1", Decimal(1)],
    [Decimal(number) / 4 for number in range(30)],
    ID,
    [ID, ID, uuid.UUID(int=0), uuid.UUID(int=2**64 - 1), uuid.UUID(int=2**128 - 1)],
    [SAFE, UNSAFE, SAFE, ID],
    [ID, "int", {"int": 1, "is_safe": 2}, SAFE],
    ["is_safe", "int", UNSAFE],
    set(),
    frozenset(),
    [frozenset(), frozenset(), set()],
    {1, "a", b"b", 2.5, None, (1, "a")},
    frozenset(["a", frozenset([1])]),
    [{date(2026, 1, 1), MOMENT, timedelta(1), time(1), UTC, 1j}] * 2,
    {"ids": set(range(100)), "names": {str(number) for number in range(50)}},
    [1j, -0j, complex(0.1, float("inf")), complex("nan")],
    OrderedDict(),
    OrderedDict(a=1, b=[2], c="".join(["te", "xt"])),
    [ordered := OrderedDict((str(number), [number]) for number in range(20)), ordered, ordered["3"], "3"],
    moved(),
    defaultdict(None, a=1),
    defaultdict(None),
    [defaultdict(factory, {"a": factory()}) for factory in (list, int, dict, str, float, tuple, bool, set, frozenset)],
    [defaultdict(set, a={1}), {2}, defaultdict(list, {1: [2], (3, "x"): [4]}), defaultdict(list)],
    deque(),
    deque([1, "a", [2], "".join(["te", "xt"])]),
    [deque(maxlen=3), deque(range(10), 4), deque(maxlen=0), deque("abc", 2**40)],
    [deque([MOMENT, ID]), OrderedDict(a=Decimal(1)), defaultdict(list, b=[date.max])],
    Plain(counts=defaultdict(int, a=1, b=2), order=OrderedDict(x=deque([1]))),
    {MOMENT: 1, date(2026, 1, 1): 2, timedelta(1): 3, frozenset([1]): 4, 1j: 5, (MOMENT, "a"): 6},
    [Plain(at=MOMENT, price=Decimal("1.5"), id=ID), Plain(at=MOMENT, price=Decimal("2.5"), id=SAFE)],
    [b"\x07\xea\x01\x02", date(2026, 1, 2), b"ab", "latin1", date(2026, 1, 2), b"a", "a", MOMENT],
    ["latin1", "_codecs", date(2026, 1, 2)],
]


def check(value: Any) -> None:
    data = check_written(value)
    check_read(data)


def shown(value: Any) -> str:
    return re.sub(r"0x\w+", "", repr(value))


def check_read(data: bytes, *, fast: bool = True) -> None:
    """As it is seen when it is pickled again, and by `repr()`, which shows what equal pickles may hide."""
    read = _native.pickle_loads(data)
    assert read is not None or not fast
    if read is not None:
        expected = pickle.loads(data)
        assert type(read[0]) is type(expected)
        assert shown(read[0]) == shown(expected)
        for protocol in (0, 2, 4):
            assert pickle.dumps(read[0], protocol=protocol) == pickle.dumps(expected, protocol=protocol)


@pytest.mark.parametrize("value", NATIVE, ids=lambda value: type(value).__name__)
def test_native_values(value: Any) -> None:
    check(value)
    check([value, value])
    check({"key": value, "other": (value, [value])})
    check_stream([value, value, "text", [value]])


def test_all_of_them_at_once() -> None:
    check(NATIVE)
    check([NATIVE, NATIVE[::-1]])
    check_stream(NATIVE)
    check_stream([*NATIVE, *NATIVE[::-1]] * 5)


def test_what_nobody_else_holds() -> None:
    """An object with one reference has no place in the memo, and its number all the same."""
    check([datetime(2026, 1, day, tzinfo=timezone(timedelta(minutes=day))) for day in range(1, 30)])
    check([{number, str(number)} for number in range(30)])
    check([Decimal(number) for number in range(300)])
    check([{"id": uuid.UUID(int=number), "set": frozenset([str(number)])} for number in range(300)])
    assert _native.pickle_dumps({Decimal("".join(["1", "2"]))}) == pickle.dumps({Decimal(12)}, protocol=0)


@pytest.mark.parametrize("key", [Decimal("1.5"), ID, (1, ID), frozenset()], ids=repr)
def test_as_keys(key: Any) -> None:
    """A UUID is hashed, and a Decimal compared, by Python code: then it is pickle that reads it."""
    for value in ({key: 1}, {key}, frozenset([key]), [key, {key: key}]):
        check_read(check_written(value), fast=key == frozenset())


def test_containers_that_hold_themselves() -> None:
    ordered: Any = OrderedDict()
    default: Any = defaultdict(list)
    items: Any = deque()
    value = [ordered, default, items]
    ordered["me"] = default["me"] = [value, ordered, default, items]
    items.extend([value, items, ordered])
    check(value)
    check(ordered)
    check(default)
    check(items)


def with_attribute() -> OrderedDict[str, int]:
    value = OrderedDict(a=1)
    value.attribute = 1  # type: ignore[attr-defined]
    return value


@pytest.mark.parametrize(
    "value",
    [
        with_attribute(),
        OrderedDict({Frozen(1): 1}),
        OrderedDict({ID: 1}),
        OrderedDict({datetime(2026, 1, 1, tzinfo=Fixed()): 1}),
        defaultdict(Decimal, a=1),
        defaultdict(Plain, a=1),
        Counter("abca"),
        Ordered(a=1),
        Default(list, a=1),
        Deque([1]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_containers_that_are_the_c_picklers(value: Any) -> None:
    assert _native.pickle_dumps(value) is None
    check_read(pickle.dumps([value, OrderedDict(a=1)], protocol=0), fast=False)
    check_stream([MOMENT, value, deque([1]), [value]])


@pytest.mark.parametrize(
    "data",
    [
        b"ccollections\ndeque\n(I1\ntR.",
        b"ccollections\ndeque\n((tVx\ntR.",
        b"ccollections\ndeque\n((tI-1\ntR.",
        b"ccollections\ndeque\n((lI1\ntR.",
        b"ccollections\ndeque\n(tRI1\nI2\ns.",
        b"ccollections\ndeque\n((tI1\ntRI1\naI2\na.",
        b"ccollections\nOrderedDict\n((ltR.",
        b"ccollections\nOrderedDict\n(tRI1\na.",
        b"ccollections\nOrderedDict\n(tR(ltI1\ns.",
        b"ccollections\nOrderedDict\n(tR(dVa\nI1\nsb.",
        b"ccollections\nOrderedDict\n(tRVa\nI1\nsVb\nI2\nsVa\nI3\ns.",
        b"ccollections\ndefaultdict\n(I1\ntR.",
        b"ccollections\ndefaultdict\n(NtRI1\nI2\ns.",
        b"ccollections\ndefaultdict\n(c__builtin__\nlist\nI1\ntR.",
        b"ccollections\ndefaultdict\n(c__builtin__\nlist\ntRI1\na.",
        b"c__builtin__\nlist\n(tR.",
        b"c__builtin__\nlong\n(V7\ntR.",
        b"ccopy_reg\n_reconstructor\n(c__builtin__\nlong\nc__builtin__\nobject\nNtR.",
    ],
)
def test_containers_that_no_pickler_writes(data: bytes) -> None:
    check_stream_of(data)


def check_stream_of(data: bytes) -> None:
    def attempt(fast: bool) -> Any:
        was = _native.use_fast_paths(fast)
        try:
            return [shown(item) for item in _native.read_items([data], False, None)]
        except Exception as error:
            return type(error)
        finally:
            _native.use_fast_paths(was)

    assert attempt(True) == attempt(False)


def test_sets_that_hold_themselves() -> None:
    inside = Plain()
    inside.all = {inside}  # type: ignore[attr-defined]
    check_read(check_written(inside), fast=False)
    outside = inside.all  # type: ignore[attr-defined]
    # Saved in a form of its own.
    assert _native.pickle_dumps(outside) is None
    assert _native.pickle_dumps([frozenset([inside])]) == pickle.dumps([frozenset([inside])], protocol=0)
    frozen = Plain()
    frozen.all = frozenset([frozen])  # type: ignore[attr-defined]
    assert _native.pickle_dumps(frozen.all) is None  # type: ignore[attr-defined]
    check_stream([inside, outside, frozen])


@pytest.mark.parametrize("depth", [90, 250])
def test_nested_sets(depth: int) -> None:
    value: Any = frozenset()
    for _ in range(depth):
        value = frozenset([value])
    check_stream([value])
    assert (_native.pickle_dumps(value) is None) == (depth > 200)


# What is pickle's


class Day(date):
    pass


class Moment(datetime):
    pass


class Price(Decimal):
    pass


class Key(uuid.UUID):
    pass


class Members(set):  # type: ignore[type-arg]
    pass


class Zone(ZoneInfo):
    pass


@pytest.mark.parametrize(
    "value",
    [
        Day(2026, 1, 1),
        Moment(2026, 1, 1),
        Price(1),
        Key(int=1),
        Members([1]),
        Zone("Europe/Paris"),
        datetime(2026, 1, 1, tzinfo=Fixed()),
        datetime(2026, 1, 1, fold=1),
        time(1, fold=1),
        time(1, tzinfo=Zone("Europe/Paris")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_the_c_picklers(value: Any) -> None:
    assert _native.pickle_dumps(value) is None
    assert _native.pickle_dumps([MOMENT, {"a": value}]) is None
    check_read(pickle.dumps([MOMENT, value], protocol=0), fast=False)
    check_stream([MOMENT, value, ID, [value]])


def test_a_zone_of_its_own() -> None:
    """Each that is read is another one, so that pickle reads it."""
    zone = ZoneInfo.no_cache("Europe/Paris")
    check_read(check_written([zone, zone, PARIS]), fast=False)
    first, second = _native.read_items([pickle.dumps(zone, protocol=0) * 2], False, None)
    assert first is not second


def test_zones_from_files_are_refused_as_by_pickle() -> None:
    with open(next(path for path in map(_zone_file, zoneinfo.TZPATH) if path), "rb") as file:
        zone = ZoneInfo.from_file(file, key="Europe/Paris")
    assert _native.pickle_dumps([PARIS, zone]) is None
    with pytest.raises(pickle.PicklingError):
        _native.LargeWriter(False, None, None).write(MOMENT.replace(tzinfo=zone))


def _zone_file(folder: str) -> str | None:
    from pathlib import Path

    path = Path(folder, "Europe", "Paris")
    return str(path) if path.exists() else None


def test_many_zones() -> None:
    names = sorted(zoneinfo.available_timezones())[:60]
    check_stream([datetime(2026, 1, 1, tzinfo=ZoneInfo(name)) for name in names])
    check_stream([[datetime(2026, 1, 1, tzinfo=ZoneInfo(name)) for name in names]])


def test_a_zone_is_the_one_that_all_share_now() -> None:
    items = _native.read_items([pickle.dumps(MOMENT.replace(tzinfo=PARIS), protocol=0) * 20_000], False, None)
    for count, item in enumerate(items):
        assert item.tzinfo.key == "Europe/Paris"
        if count % 5000 == 0:
            ZoneInfo.clear_cache()
    ZoneInfo.clear_cache()
    (item,) = _native.read_items([pickle.dumps(MOMENT.replace(tzinfo=PARIS), protocol=0)], False, None)
    assert item.tzinfo is ZoneInfo("Europe/Paris")


def test_an_unknown_zone_is_pickles_error() -> None:
    data = pickle.dumps([PARIS], protocol=0).replace(b"Europe/Paris", b"Europe/Nowhere")
    with pytest.raises(zoneinfo.ZoneInfoNotFoundError):
        pickle.loads(data)
    with pytest.raises(zoneinfo.ZoneInfoNotFoundError):
        list(_native.read_items([data], False, None))


def test_the_text_of_a_decimal_is_that_of_the_context() -> None:
    with decimal.localcontext() as context:
        context.capitals = 0
        check_written(Decimal("1E+400"))
        context.prec = 3
        context.traps[decimal.Inexact] = True
        check([Decimal("1.23456789"), Decimal("1e+400")])


# Changed classes


@contextmanager
def registered(cls: type) -> Iterator[None]:
    before = copyreg.dispatch_table.get(cls)
    copyreg.pickle(cls, lambda value: (str, (f"registered {value}",)))  # type: ignore[arg-type,return-value]
    try:
        yield
    finally:
        if before is None:
            del copyreg.dispatch_table[cls]
        else:
            copyreg.dispatch_table[cls] = before


CHANGES: list[tuple[Any, Callable[[], Any]]] = [
    *(
        (value, lambda value=value: registered(type(value)))
        for value in (MOMENT, date.max, UTC, Decimal(1), ID, PARIS, 1j, deque([1]), OrderedDict(a=1), defaultdict(list))
    ),
    (HOUR, lambda: registered(timedelta)),
    (MOMENT, lambda: registered(timezone)),
    (ID, lambda: patch.object(uuid.UUID, "__getstate__", lambda self: {"int": self.int + 1})),
    (ID, lambda: patch.object(uuid.UUID, "__reduce__", lambda self: (str, (str(self),)), create=True)),
    (ID, lambda: patch.object(uuid.UUID, "__reduce_ex__", lambda self, _: (str, (str(self),)), create=True)),
    (ID, lambda: patch.object(uuid.UUID, "__getattribute__", lambda *_: 1 / 0, create=True)),
]


@pytest.mark.parametrize(("value", "change"), CHANGES)
def test_a_changed_class_is_the_c_picklers(value: Any, change: Callable[[], Any]) -> None:
    check_written(value)
    with change():
        assert _native.pickle_dumps(value) is None
        assert _native.pickle_dumps([1, value]) is None
        check_stream([value, [value]])
    check_written(value)


class Fake(datetime):
    """As freezegun puts in its place."""


@pytest.mark.parametrize(
    ("value", "module", "name"),
    [
        (MOMENT, datetime_module, "datetime"),
        (UTC, datetime_module, "timezone"),
        (ID, uuid, "UUID"),
        (Decimal(1), decimal, "Decimal"),
        (PARIS, zoneinfo, "ZoneInfo"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_another_class_under_the_name(value: Any, module: Any, name: str) -> None:
    with patch.object(module, name, Fake):
        assert _native.pickle_dumps(value) is None
        check_stream([value])
    check_written(value)


def test_another_class_is_read_under_the_name() -> None:
    data = pickle.dumps([MOMENT, MOMENT + timedelta(1)], protocol=0)
    with patch.object(datetime_module, "datetime", Fake):
        (read,) = _native.read_items([data], False, None)
        assert [type(moment) for moment in read] == [Fake, Fake]


def test_the_hooks_of_uuid_are_called_if_they_are_others() -> None:
    data = pickle.dumps([ID], protocol=0)

    def setstate(self: uuid.UUID, state: Any) -> None:
        object.__setattr__(self, "int", -state["int"])

    with patch.object(uuid.UUID, "__setstate__", setstate):
        assert _native.pickle_loads(data) is None
        ((read,),) = _native.read_items([data], False, None)
        assert read.int == -ID.int
    for name in ("int", "is_safe"):
        descriptor = vars(uuid.UUID)[name]
        with patch.object(uuid.UUID, name, property(descriptor.__get__, descriptor.__set__)):
            assert _native.pickle_loads(data) is None
            assert _native.pickle_dumps(ID) is None
    with patch.object(uuid, "SafeUUID", {0: "zero"}.__getitem__):
        assert _native.pickle_loads(data) is None
    check_read(data)


def test_a_change_in_the_middle_of_a_stream() -> None:
    """What was found out for one item holds for that item alone."""
    writer = _native.LargeWriter(False, None, None)
    for number in range(30):
        if number == 10:
            copyreg.pickle(Decimal, lambda value: (str, (f"registered {value}",)))  # type: ignore[arg-type,return-value]
        if number == 20:
            del copyreg.dispatch_table[Decimal]
        writer.write([Decimal(number), MOMENT])
    writer.finish()
    items = list(_native.read_items([writer.last_chunk() or b""], False, None))
    assert [type(item[0]) for item in items] == [Decimal] * 10 + [str] * 10 + [Decimal] * 10


# Allow-list


@pytest.mark.parametrize(
    ("value", "needed"),
    [
        (MOMENT, ["datetime.datetime", "datetime.timezone", "datetime.timedelta"]),
        (date.max, ["datetime.date"]),
        (Decimal("1.5"), ["decimal.Decimal"]),
        (ID, ["uuid.UUID"]),
        (PARIS, ["zoneinfo.ZoneInfo", "builtins.getattr"]),
        ([{1}, frozenset([1]), 1j], []),
        (deque([1]), ["collections.deque"]),
        (defaultdict(list, a=[1]), ["collections.defaultdict"]),
        (OrderedDict(a=1), ["collections.OrderedDict"]),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_the_list_of_allowed_classes_holds(value: Any, needed: list[str]) -> None:
    data = pickle.dumps(value, protocol=0)

    def read(patterns: list[str]) -> Any:
        with override_settings(FASTBLETS_PICKLE_CLASSES=patterns):
            from django.conf import settings as django_settings

            return list(_native.read_items([data * 2], False, None, get_loads(django_settings)))

    for missing in needed:
        with pytest.raises(pickle.UnpicklingError, match="is not allowed by FASTBLETS_PICKLE_CLASSES"):
            read([name for name in needed if name != missing])
    assert repr(read(needed)) == repr([value, value])


# Random values

zones = st.sampled_from([None, UTC, HOUR, NAMED, PARIS, NEW_YORK]) | st.integers(-1439, 1439).map(
    lambda minutes: timezone(timedelta(minutes=minutes))
)
moments = st.builds(datetime.replace, st.datetimes(), tzinfo=zones, fold=st.just(0))
plain_keys = (
    st.text(max_size=3) | st.integers() | st.dates() | moments | st.timedeltas() | st.binary(max_size=2) | st.booleans()
)
natives = st.one_of(
    moments,
    st.dates(),
    st.builds(time.replace, st.times(), tzinfo=zones, fold=st.just(0)),
    st.timedeltas(),
    zones,
    st.decimals(),
    st.decimals(allow_nan=False, places=2),
    st.integers(0, 12).map(Decimal),
    st.uuids(),
    st.builds(uuid.UUID, int=st.integers(0, 2**128 - 1), is_safe=st.sampled_from(uuid.SafeUUID)),
    st.complex_numbers(),
    st.sampled_from(["int", "is_safe", "latin1", "X", "Europe/Paris", PARIS.key, "_unpickle", "1", "", b"", b"1"]),
    st.text(max_size=2),
    st.binary(max_size=3),
)


@st.composite
def shared(draw: st.DrawFn, children: st.SearchStrategy[Any]) -> Any:
    members = draw(st.lists(children, min_size=1, max_size=4))
    order = draw(st.lists(st.sampled_from(members), max_size=6))
    return draw(st.sampled_from([list, tuple, lambda items: dict(enumerate(items)), lambda items: Plain(a=items)]))(
        order
    )


def containers(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return (
        st.lists(children, max_size=5)
        | st.dictionaries(plain_keys, children, max_size=4)
        | st.sets(plain_keys, max_size=4)
        | st.frozensets(plain_keys, max_size=4)
        | st.dictionaries(st.text(max_size=2) | st.integers(), children, max_size=4).map(OrderedDict)
        | st.dictionaries(plain_keys, children, max_size=4).map(partial(defaultdict, list))
        | st.builds(deque, st.lists(children, max_size=5), st.none() | st.integers(0, 4))
        | shared(children)
    )


@settings(max_examples=500, deadline=None)
@given(st.recursive(natives, containers, max_leaves=15))
def test_any_native_value(value: Any) -> None:
    check(value)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.recursive(natives, containers, max_leaves=6), max_size=25))
def test_any_stream(items: list[Any]) -> None:
    check_stream(items)


def test_any_recursive_value() -> None:
    rng = random.Random(5)
    for _ in range(FUZZ // 60):
        known: list[Any] = [MOMENT, UTC, HOUR, PARIS, ID, Decimal(1), frozenset([1]), "int"]
        for _ in range(rng.randrange(1, 12)):
            inner = rng.choice([*known, [], {}, Plain()])
            if type(inner) is list:
                inner.append(rng.choice(known))
            elif type(inner) is dict:
                inner[rng.choice([MOMENT, "a", 1, UTC])] = rng.choice(known)
            elif type(inner) is Plain:
                vars(inner)[rng.choice("abc")] = rng.choice([*known, {inner}])
            known.append(inner)
        rng.shuffle(known)
        assert _native.pickle_dumps(known) in {None, pickle.dumps(known, protocol=0)}
        check_read(pickle.dumps(known, protocol=0), fast=False)


# Damaged and unusual pickles

#: What a damaged pickle may name: to call it with anything does nothing.
NAMES = [
    b"cdatetime\ndatetime\n",
    b"cdatetime\ndate\n",
    b"cdatetime\ntime\n",
    b"cdatetime\ntimedelta\n",
    b"cdatetime\ntimezone\n",
    b"cdecimal\nDecimal\n",
    b"cuuid\nUUID\n",
    b"czoneinfo\nZoneInfo\n",
    b"ccopy_reg\n_reconstructor\n",
    b"c__builtin__\nobject\n",
    b"c__builtin__\nset\n",
    b"c__builtin__\nfrozenset\n",
    b"c__builtin__\ncomplex\n",
    b"c__builtin__\ngetattr\n",
    b"c_codecs\nencode\n",
    b"c__builtin__\nbytes\n",
]


def is_harmless(data: bytes) -> bool:
    """Whether it names nothing else, as far as that can be told."""
    file = io.BytesIO(data)
    try:
        for opcode, argument, _ in pickletools.genops(file):
            name = str(argument).replace(" ", "\n").encode()
            if opcode.name == "INST" or (opcode.name == "GLOBAL" and b"c" + name + b"\n" not in NAMES):
                return False
            if opcode.code in "\x82\x83\x84\x93":
                return False
    except Exception:
        return not any(opcode in data[file.tell() - 40 :] for opcode in b"ci\x82\x83\x84\x93")
    return True


def seen(read: Callable[[], Any]) -> Any:
    """What becomes of a pickle, as far as that can be seen."""
    try:
        value = read()
    except RecursionError:
        raise
    except Exception:
        return None
    try:
        return pickle.dumps(value, protocol=0)
    except Exception as error:
        return type(error)


def check_damaged(data: bytes) -> bool:
    """What is read from anything at all is what C reads. Whatever C refuses must not be read."""
    try:
        read = _native.pickle_loads(data)
    except Exception:
        # A name that can't be imported.
        assert seen(lambda: pickle.loads(data)) is None
        return False
    if read is not None:
        assert seen(lambda: read[0]) == seen(lambda: pickle.loads(data)) is not None, data
    return read is not None


SAMPLES = [
    [MOMENT, MOMENT + timedelta(1), date(2026, 1, 2), date(2026, 1, 3), time(1, 2, 3), time(2)],
    [MOMENT.replace(tzinfo=HOUR), timedelta(1), NAMED],
    [Decimal("1.5"), Decimal("2.5"), {1: {1, 2}, 2: frozenset(["a"])}, 1j],
    [ID, SAFE, uuid.UUID(int=3)],
    {"a": datetime(2026, 1, 1, tzinfo=PARIS), "b": PARIS},
]


def test_truncations() -> None:
    for sample in SAMPLES:
        data = pickle.dumps(sample, protocol=0)
        for length in range(len(data)):
            assert _native.pickle_loads(data[:length]) is None


@pytest.mark.filterwarnings("ignore:invalid")
def test_damage() -> None:
    assert count_read(11, SAMPLES, is_harmless, check_damaged) > FUZZ // 300


def test_random_opcodes() -> None:
    rng = random.Random(12)
    parts = [
        *NAMES * 2,
        *[b"(", b"t", b"R", b"N", b"(tR", b"tR", b"b", b"0", b"a", b"s", b"(l", b"(d"] * 2,
        *[
            b"p0\n",
            b"p1\n",
            b"p2\n",
            b"p3\n",
            b"g0\n",
            b"g1\n",
            b"g2\n",
            b"I1\n",
            b"I0\n",
            b"I-1\n",
            b"I01\n",
            b"F1.5\n",
        ],
        *[
            b"V1\n",
            b"Vab\n",
            b"Vlatin1\n",
            b"Vint\n",
            b"Vis_safe\n",
            b"V_unpickle\n",
            b"VEurope/Paris\n",
            b"V__class__\n",
        ],
        b"c_codecs\nencode\n(V\x07\xea\x01\x02\nVlatin1\ntR",
        b"c_codecs\nencode\n(V\x07\xea\x0d\x02\nVlatin1\ntR",
        b"c_codecs\nencode\n(V\x07\xea\x01\x02\x01\x02\x03\x01\x02\x03\nVlatin1\ntR",
        b"c_codecs\nencode\n(V\x07\xea\x81\x02\x01\x02\x03\x01\x02\x03\nVlatin1\ntR",
        b"c_codecs\nencode\n(V\x01\x02\x03\x01\x02\x03\nVlatin1\ntR",
        b"cdatetime\ntimedelta\n(I0\nI0\nI0\ntR",
        b"cdatetime\ntimezone\n(cdatetime\ntimedelta\n(I0\nI0\nI0\ntRtR",
        b"ccopy_reg\n_reconstructor\n(cuuid\nUUID\nc__builtin__\nobject\nNtR",
        b"(dVint\nI1\ns",
        b"(dVint\nI1\nsVis_safe\nI0\ns",
        b"(dVint\nI1\nsVis_safe\nI5\ns",
        b"c__builtin__\ngetattr\n(czoneinfo\nZoneInfo\nV_unpickle\ntR(VEurope/Paris\nI1\ntR",
    ]
    for _ in range(FUZZ // 2):
        check_damaged(b"".join(rng.choices(parts, k=rng.randrange(1, 15))) + b".")


@pytest.mark.parametrize(
    "state",
    [
        b"\x07\xea\x01\x02",
        b"\x07\xea\x00\x02",
        b"\x07\xea\x01\x00",
        b"\x00\x00\x01\x01",
        b"\x27\x10\x01\x01",
        b"\x07\xea\x02\x1e",
        b"\x07\xea\x01\x02\x19\x02\x03\x01\x02\x03",
        b"\x07\xea\x01\x02\x01\x02\x03\xff\xff\xff",
        b"\x07\xea\x81\x02\x01\x02\x03\x01\x02\x03",
        b"\x07\xea\x01\x02\x01\x02\x03\x01\x02\x03",
        b"\x07\xea\x01\x02\x01\x02\x03\x01\x02",
        b"\x07\xea\x01\x02\x01\x02\x03\x01\x02\x03\x04",
        b"\x17\x02\x03\x01\x02\x03",
        b"\x19\x02\x03\x01\x02\x03",
        b"\x81\x02\x03\x01\x02\x03",
        b"",
        b"1",
    ],
    ids=repr,
)
@pytest.mark.parametrize("cls", [date, datetime, time], ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("zone", [(), (None,), (UTC,), (PARIS,), ("text",), (1,), (UTC, UTC)], ids=repr)
def test_states(cls: type, state: bytes, zone: tuple[Any, ...]) -> None:
    """What is no date is what pickle makes of it: an error, or an odd object."""

    class Call:
        def __reduce__(self) -> Any:
            # Each a new one, as from a date.
            return cls, (bytes(bytearray(state)), *zone)

    for value in ([Call()], [b"ab", Call(), Call(), Call()]):
        check_damaged(pickle.dumps(value, protocol=0))


def test_a_part_of_a_date_that_is_asked_for_again() -> None:
    """No pickler does. Nothing is there that could be given out."""
    data = pickle.dumps([MOMENT, MOMENT + timedelta(1)], protocol=0)
    for number in range(40):
        check_damaged(data[:-1] + b"g%d\na." % number)


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"int": "1"},
        {"int": True},
        {"int": 1, "is_safe": None},
        {"int": 1, "is_safe": 2},
        {"int": 1, "a": 2},
        [1],
        None,
    ],
    ids=repr,
)
def test_states_of_uuids(state: Any) -> None:
    data = (
        b"ccopy_reg\n_reconstructor\n(cuuid\nUUID\nc__builtin__\nobject\nNtR"
        + pickle.dumps(state, protocol=0)[:-1]
        + b"b."
    )
    try:
        expected = pickle.dumps(pickle.loads(data), protocol=0)
    except Exception:
        assert _native.pickle_loads(data) is None
    else:
        read = _native.pickle_loads(data)
        assert read is None or pickle.dumps(read[0], protocol=0) == expected


def test_a_uuid_without_a_state() -> None:
    data = b"ccopy_reg\n_reconstructor\n(cuuid\nUUID\nc__builtin__\nobject\nNtR."
    read = _native.pickle_loads(data)
    assert read is not None
    assert not hasattr(read[0], "int")
    assert _native.pickle_dumps(read[0]) is None
    odd = uuid.UUID(int=1)
    object.__setattr__(odd, "int", "text")
    assert _native.pickle_dumps(odd) is None
    object.__setattr__(odd, "int", -(10**30))
    check_written(odd)


def test_nothing_leaks() -> None:
    broken_off = [pickle.dumps(sample, protocol=0)[:-2] + b"?" for sample in SAMPLES]
    before = 0
    for round_ in range(300):
        data = _native.pickle_dumps(SAMPLES)
        assert data is not None
        _native.pickle_loads(data)
        for broken in broken_off:
            assert _native.pickle_loads(broken) is None
        if round_ == 100:
            before = sys.getallocatedblocks()
    assert sys.getallocatedblocks() - before < 500


def test_no_python_code_runs_in_a_walk() -> None:
    """Once the types are known: nothing but what looks at `UUID`, which is C."""
    called: list[Any] = []
    writer = _native.LargeWriter(False, None, None)
    writer.write(SAMPLES)

    def profile(frame: Any, event: str, _: Any) -> None:
        if event == "call":
            called.append(frame.f_code)

    sys.setprofile(profile)
    try:
        writer.write(SAMPLES)
    finally:
        sys.setprofile(None)
    assert not called


# As a process begins


def in_a_new_process(code: str) -> str:
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    return run.stdout


@pytest.mark.parametrize(
    "value", ["Decimal('1.5')", "date(2020, 1, 2)", "complex(3, 1)", "UUID(int=5)", "datetime(2020, 1, 2)"]
)
def test_a_reducer_that_was_registered_before_counts(value: str) -> None:
    """Projects register theirs when they start, long before anything is cached."""
    code = f"""
import copyreg, pickle
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from uuid import UUID
value = {value}
copyreg.pickle(type(value), lambda _: (list, ("abc",)))
from fastblets import _native
assert pickle.loads(pickle.dumps([value], 0)) == [["a", "b", "c"]]
assert _native.pickle_dumps([value]) in (None, pickle.dumps([value], 0))
"""
    in_a_new_process(code)


def test_the_c_interface_of_datetime_is_there_from_the_beginning() -> None:
    """PyO3 looks for it when it is first used, which would be in the middle of a walk."""
    code = """
import sys, types, datetime as real
from fastblets import _native
fake = types.ModuleType("datetime")
fake.__dict__.update({name: value for name, value in vars(real).items() if name != "datetime_CAPI"})
sys.modules["datetime"] = fake
value = [real.datetime(2020, 1, 1), real.timedelta(1)]
stored = _native.encrypt_value(value, b"k" * 16, b"i" * 16, False, None)
assert _native.decrypt_value(stored, b"k" * 16, False, None, False, None) == value
"""
    in_a_new_process(code)


def test_what_a_signal_raises_while_a_zone_is_read_comes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    class Soft(Exception):
        pass

    raised = []

    def load_data(key: str) -> Any:
        # As a handler of a signal that comes now.
        raised.append(key)
        raise Soft

    data = _native.pickle_dumps([ZoneInfo("Asia/Tokyo")]) or pickle.dumps([ZoneInfo("Asia/Tokyo")], 0)
    ZoneInfo.clear_cache()
    monkeypatch.setattr("zoneinfo._common.load_data", load_data)
    with pytest.raises(Soft):
        pickle.loads(data)
    raised.clear()
    with pytest.raises(Soft):
        list(_native.read_items([data], False, None))
    assert len(raised) == 1
    monkeypatch.undo()
    assert list(_native.read_items([data], False, None)) == [[ZoneInfo("Asia/Tokyo")]]


def test_only_an_item_that_names_a_zone_fails_without_it(tmp_path: Path) -> None:
    if not (file := next((path for path in (Path(path, "UTC") for path in zoneinfo.TZPATH) if path.exists()), None)):
        pytest.skip("the system has no time zones of its own")
    mine = tmp_path / "Mine"
    mine.write_bytes(file.read_bytes())
    before = zoneinfo.TZPATH
    zoneinfo.reset_tzpath([str(tmp_path), *before])
    try:
        zone = [ZoneInfo("Mine")]
        # Long enough that the items are read one by one.
        items = [zone, *(["x" * 1_000_000, number] for number in range(20)), zone]
        data = b"".join(pickle.dumps(item, 0) for item in items)
        stream = iter(_native.read_items([data], False, None))
        assert next(stream) == zone
        ZoneInfo.clear_cache()
        mine.unlink()
        assert [next(stream)[1] for _ in range(20)] == list(range(20))
        with pytest.raises(zoneinfo.ZoneInfoNotFoundError):
            next(stream)
    finally:
        zoneinfo.reset_tzpath(before)


@pytest.mark.parametrize("seal", [False, True])
def test_a_record_after_a_pickle_that_looks_like_a_seal(seal: bool) -> None:
    """Protocol 4 pickles hold any bytes, and so what a seal begins with."""
    key, iv = b"k" * 16, b"i" * 16
    sealer = _native.Sealer(key, b"full key") if seal else None
    for size in range(40):
        value = [datetime(2020, 1, 1, fold=1), "a\0fb\x01" + "b" * size]
        for record in (None, b"1;;;;abc"):
            stored = _native.encrypt_value(value, key, iv, False, sealer, record)
            assert _native.decrypt_value_and_record(stored, key, False, sealer, seal, None) == (value, record)
            content, found, sealed = _native.split_value(_native.decrypt(stored, key))
            assert (pickle.loads(content), found, sealed) == (value, record, seal)
