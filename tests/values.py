"""Values of every kind that a project may store, and strategies that draw them."""

from __future__ import annotations

import copyreg
import enum
import io
import operator
import sys
import threading
import uuid
from collections import Counter, OrderedDict, UserDict, defaultdict, deque, namedtuple
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from functools import partial
from pathlib import PurePosixPath
from types import BuiltinFunctionType, FunctionType, SimpleNamespace
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from django.contrib.auth.models import Group, User
from django.http import HttpResponse, QueryDict
from django.utils.datastructures import MultiValueDict
from django.utils.functional import SimpleLazyObject
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy
from hypothesis import strategies as st

from tests.differential import texts


class Color(enum.Enum):
    RED = "red"
    BOTH = ("a", 1)


class Number(enum.IntEnum):
    ONE = 1


class Mood(str, enum.Enum):
    GOOD = "good"


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: Any
    y: Any


Pair = namedtuple("Pair", "left right")


@dataclass
class Data:
    name: Any
    items: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class Frozen:
    value: Any


@dataclass(frozen=True, slots=True)
class FrozenSlots:
    """Has `__getstate__` and `__setstate__` by its decorator, so that protocol 0 takes it."""

    value: Any


class Plain:
    """Nothing of its own: pickled by its `__dict__`."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.__dict__!r})"


@dataclass(slots=True)
class DataSlots:
    """Without `frozen`, the decorator adds no `__getstate__`: protocol 0 refuses it."""

    value: Any


class Slots:
    """Protocol 0 refuses it."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        # Protocol 0 of Python 3.10 loses the value of a subclass.
        return f"Slots({getattr(self, 'value', None)!r})"


class SlotsWithState(Slots):
    __slots__ = ()

    def __getstate__(self) -> Any:
        return (self.value,)

    def __setstate__(self, state: Any) -> None:
        (self.value,) = state


class Reduced(Plain):
    """Uses all that a reduction may hold: arguments, state, list items, dict items."""

    def __init__(self, argument: Any = None) -> None:
        super().__init__(argument=argument)
        self.list: list[Any] = []
        self.dict: dict[Any, Any] = {}

    def append(self, item: Any) -> None:
        self.list.append(item)

    def extend(self, items: Any) -> None:
        self.list.extend(items)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.dict[key] = value

    def __reduce__(self) -> Any:
        state = {"state": self.__dict__.get("state")}
        return Reduced, (self.__dict__.get("argument"),), state, iter(self.list), iter(self.dict.items())


def _set_state(target: Plain, state: Any) -> None:
    target.__dict__["set"] = state


class ReducedWithSetter(Plain):
    def __reduce__(self) -> Any:
        return ReducedWithSetter, (), self.__dict__, None, None, _set_state


class ReducedByProtocol(Plain):
    def __reduce_ex__(self, protocol: Any) -> Any:
        return ReducedByProtocol._made, (int(protocol), self.__dict__)

    @staticmethod
    def _made(protocol: int, attributes: dict[str, Any]) -> ReducedByProtocol:
        return ReducedByProtocol(**attributes, protocol=protocol)


class ReducedToName(Plain):
    def __reduce__(self) -> str:
        return "SINGLETON"


SINGLETON = ReducedToName()


class NewArguments(int):
    def __new__(cls, *arguments: int) -> NewArguments:
        return super().__new__(cls, sum(arguments))

    def __getnewargs__(self) -> tuple[int, ...]:
        return (int(self), 0)


class Registered(Plain):
    pass


def _registered(attributes: dict[str, Any]) -> Registered:
    return Registered(**attributes)


copyreg.pickle(Registered, lambda value: (_registered, (value.__dict__,)))


class Raising(Plain):
    def __reduce__(self) -> Any:
        raise ValueError("not to be pickled")


class RaisingOnLoad(Plain):
    def __setstate__(self, state: Any) -> None:
        raise ValueError("not to be unpickled")


class Text(str):
    pass


class Whole(int):
    pass


class Real(float):
    pass


class Raw(bytes):
    pass


class Listing(list):  # type: ignore[type-arg]
    pass


class Mapping(dict):  # type: ignore[type-arg]
    pass


class Tupling(tuple):  # type: ignore[type-arg]
    pass


class Setting(set):  # type: ignore[type-arg]
    pass


class Masked(str):
    """What it shows is not what it holds; protocol 0 stores what it shows."""

    def __str__(self) -> str:
        return "****"


class Kept(str):
    """A conversion of its own, in which nothing gets lost."""

    def __str__(self) -> str:
        return "".join(self)


class Wrapped(str):
    """A conversion into another subclass, which is converted again when it is read."""

    def __str__(self) -> str:
        return Kept(str.__str__(self))


class Passing(str):
    """A reduction of its own, which is Python's in the end."""

    def __str__(self) -> str:
        return "****"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return super().__reduce_ex__(protocol)


class PassingMore(list):  # type: ignore[type-arg]
    """As above, with a state of its own, and items that it shows otherwise."""

    def __iter__(self) -> Any:
        return iter(())

    def __reduce_ex__(self, protocol: Any) -> Any:
        function, arguments, *_ = super().__reduce_ex__(protocol)
        return function, arguments, {"name": "state"}, iter(self[:]) if protocol >= 2 else None


class PassingMade(str):
    """As above, and what it says in protocol 4 is all its own."""

    def __new__(cls, first: str, second: str) -> PassingMade:
        return super().__new__(cls, first + second)

    def __str__(self) -> str:
        return "****"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return (PassingMade, (self[:], "")) if protocol >= 2 else super().__reduce_ex__(protocol)


class PassingNothing(str):
    """As above, in which nothing gets lost."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        return super().__reduce_ex__(protocol)


class Percent(int):
    def __int__(self) -> int:
        return 0


class Rounded(float):
    def __float__(self) -> float:
        return super().__float__() // 1


class Conjugated(complex):
    def __complex__(self) -> complex:
        return complex(self.real, -self.imag)


class Stripped(bytes):
    def __bytes__(self) -> bytes:
        return self[:].strip()


class Doubled(list):  # type: ignore[type-arg]
    """Every protocol pickles what iterating gives."""

    def __iter__(self) -> Any:
        return iter([item for item in super().__iter__() for _ in range(2)])


class Chained(list):  # type: ignore[type-arg]
    """An iteration of its own, over the items that it holds."""

    def __iter__(self) -> Any:
        return iter([*super().__iter__()])


class Numbered(list):  # type: ignore[type-arg]
    """Every protocol from 2 on fills it by its own methods; protocol 0 does not."""

    def append(self, item: Any) -> None:
        super().append((len(self), item))

    def extend(self, items: Any) -> None:
        for item in items:
            self.append(item)


class Hidden(dict):  # type: ignore[type-arg]
    def __iter__(self) -> Any:
        return super().__iter__()

    def __getitem__(self, key: Any) -> Any:
        return "****"


class Lowered(dict):  # type: ignore[type-arg]
    """What is set is changed: protocol 0 sets nothing, later ones do."""

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(str(key).lower(), value)


class Itemless(dict):  # type: ignore[type-arg]
    """Later protocols ask for its items; protocol 0 does not."""

    def items(self) -> Any:
        return dict.fromkeys(self, "****").items()


class Reversed(tuple):  # type: ignore[type-arg]
    def __iter__(self) -> Any:
        return reversed(self[:])


class Crossed(NamedTuple("Crossed", [("x", Any), ("y", Any)])):
    """Every protocol pickles what iterating gives."""

    def __iter__(self) -> Any:
        return iter((self.y, self.x))


class Made(str):
    """Can't be made from one argument, as protocols from 2 on do it."""

    def __new__(cls, first: str, second: str) -> Made:
        return super().__new__(cls, first + second)


class MadePlain(Plain):
    """Can't be made without arguments, as protocols from 2 on do it."""

    def __new__(cls, value: Any) -> MadePlain:
        return super().__new__(cls)

    def __init__(self, value: Any) -> None:
        super().__init__(value=value)


class MadeSlots:
    """Protocol 0 refuses it, and later ones can't make it."""

    __slots__ = ("value",)

    def __new__(cls, value: Any) -> MadeSlots:
        new = super().__new__(cls)
        new.value = value
        return new


class FalseState(Plain):
    """Its state may be false, which protocol 0 leaves out."""

    def __getstate__(self) -> Any:
        return self.__dict__["number"]

    def __setstate__(self, state: Any) -> None:
        self.__dict__["number"] = state


class Remade(FalseState):
    """Protocols from 2 on refuse it."""

    def __getnewargs__(self) -> Any:
        raise ValueError("not to be made")

    def __getstate__(self) -> Any:
        return None


class BelowSlots(Slots):
    """To protocol 0 of Python 3.10 it has no slots."""

    __slots__ = ()


class Moment(datetime):
    """Has a reduction of its own, which has no `fold` in any protocol."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Moment, (self.year, self.month, self.day)


class Instant(datetime):
    """Has the reduction of a datetime, and attributes."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        function, arguments, *_ = super().__reduce_ex__(protocol)
        return function, arguments, self.__dict__


class Outer:
    class Inner(Plain):
        pass


class Failure(Exception):
    pass


#: Protocol 0 has no names beyond ASCII.
名 = type("名", (Text,), {"__module__": __name__})


def function() -> None:
    """Pickled by its name."""


def shared_string() -> list[str]:
    text = "".join(["sha", "red"])
    return [text, text, "".join(["sha", "red"])]


def recursive_list() -> list[Any]:
    value: list[Any] = ["head"]
    value.append(value)
    return value


def recursive_dict() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["self"] = [value]
    return value


def recursive_tuple() -> tuple[Any, ...]:
    inner: list[Any] = []
    value = (inner, 1)
    inner.append(value)
    return value


def recursive_object() -> Plain:
    value = Plain()
    value.me = value  # type: ignore[attr-defined]
    return value


def recursive_set() -> Plain:
    value = Plain()
    value.me = {value}  # type: ignore[attr-defined]
    return value


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def reduced(items: list[Any]) -> Reduced:
    value = Reduced("argument")
    value.extend(items)
    value["items"] = items
    return value


#: One of each, made afresh for each use: they may be changed on the way.
ONE_OF_EACH: list[Any] = [
    *(lambda member=member: member for member in (*Color, *Number, *Mood, Access.READ, Access.READ | Access.WRITE)),
    lambda: datetime(2024, 2, 29, 12, 30, 59, 999999, tzinfo=timezone.utc),
    lambda: datetime(2024, 6, 1, tzinfo=ZoneInfo("UTC")),
    lambda: date.max,
    lambda: time(1, 2, tzinfo=timezone(timedelta(hours=-3))),
    lambda: timedelta(-1, 2, 3),
    lambda: [Decimal("1.10"), Decimal("NaN"), Decimal("-0")],
    lambda: Fraction(1, 3),
    lambda: uuid.UUID(int=7),
    lambda: PurePosixPath("/a/b"),
    lambda: [Text("\ud800"), Text("a\nb"), Text()],
    lambda: gettext_lazy("lazy"),
    lambda: SimpleLazyObject(lambda: Plain(lazy=True)),
    lambda: User(pk=1, username="дед", date_joined=datetime(2024, 1, 1, tzinfo=timezone.utc)),
    lambda: [Group(pk=1, name="one"), Group(pk=1, name="one")],
    lambda: OrderedDict([("b", 1), ("a", 2)]),
    lambda: defaultdict(list, {"a": [1]}),
    lambda: Counter("abca"),
    lambda: deque([1, 2], maxlen=3),
    lambda: UserDict({"a": 1}),
    lambda: [QueryDict("a=1&a=2&b="), MultiValueDict({"a": [1, 2]})],
    lambda: HttpResponse(b"text"),
    lambda: SimpleNamespace(a=1),
    lambda: range(1, 10, 3),
    lambda: slice(1, None),
    lambda: complex(1, -0.0),
    lambda: [Ellipsis, NotImplemented, type(None)],
    lambda: [len, operator.itemgetter(1), str.upper, function, Outer.Inner, int, Plain],
    lambda: Outer.Inner(a=1),
    # These two have no `__dict__` before somebody asks for it, and are pickled otherwise once they have one.
    lambda: [Failure("text", 1), Plain(error=Failure())],
    lambda: [partial(int, base=2)],
    lambda: ValueError("text"),
    lambda: SlotsWithState([1]),
    lambda: FrozenSlots([1]),
    lambda: ReducedWithSetter(a=1),
    lambda: [ReducedByProtocol(a=1)],
    lambda: [SINGLETON, SINGLETON],
    lambda: NewArguments(3),
    lambda: Registered(a=1),
    lambda: [Real(1.5), Raw(b"raw"), Whole(3), Tupling((1,)), Setting({1}), Mapping(a=1), Listing([1])],
    lambda: [True, 1, 1.0, "1", b"1"],
    lambda: [b"", b"\xff", bytearray(b""), bytearray(b"\0\xff")],
    shared_string,
    recursive_list,
    recursive_dict,
    recursive_tuple,
    recursive_object,
    lambda: nested(90),
]

NEW_YORK = ZoneInfo("America/New_York")


def recursive_listing() -> Listing:
    value = Listing(["head"])
    value.append(value)
    return value


def recursive_doubled() -> Doubled:
    value = Doubled(["head"])
    value.append(value)
    return value


def passing_more() -> PassingMore:
    value = PassingMore([1, [2]])
    value.name = "state"  # type: ignore[attr-defined]
    return value


def instant() -> Instant:
    value = Instant(2023, 11, 5, 1, 30, fold=1, tzinfo=NEW_YORK)
    value.name = "instant"  # type: ignore[attr-defined]
    return value


def response() -> HttpResponse:
    """Holds dicts with a `__setitem__()` of their own, which later protocols fill by it."""
    value = HttpResponse(format_html("<b>{}</b>", "&"), headers={"X-A": "b"})
    value.set_cookie("name", "a; b", max_age=60)
    value.title = SafeString("<b>")  # type: ignore[attr-defined]
    return value


#: What protocol 0 refuses, and a later one takes.
REFUSED: list[Any] = [
    lambda: Slots([1]),
    lambda: DataSlots([1]),
    lambda: MadeSlots(1),
    lambda: [Plain(a=Slots(1))],
    # Its str() is itself, which protocol 0 goes round and round.
    lambda: SafeString("<b>"),
    lambda: {"html": [format_html("<b>{}</b>", "&"), "text"]},
    lambda: [MadePlain(1), Numbered([1]), Lowered(A=1), Itemless(a=1), SafeString("<b>")],
    lambda: io.StringIO("text"),
    response,
    lambda: [QueryDict("a=1&a=2&b="), SafeString("<b>")],
    lambda: defaultdict(list, {Masked("a"): [Masked("b")]}),
    lambda: [Counter({SafeString("a"): 2}), OrderedDict(a=SafeString("b")), deque([SafeString("c")])],
    lambda: 10**5000,
    lambda: [-(10**5000), 1],
    lambda: 名("text"),
    recursive_listing,
    recursive_doubled,
]

#: What protocol 0 takes, and gives back with another value.
CHANGED: list[Any] = [
    lambda: datetime(2023, 11, 5, 1, 30, fold=1, tzinfo=NEW_YORK),
    lambda: datetime(1, 1, 1, fold=1),
    lambda: time(1, 30, fold=1),
    lambda: [{"at": Plain(at=time(1, 30, fold=1, tzinfo=timezone.utc))}],
    instant,
    lambda: Masked("secret"),
    lambda: {Masked("secret"): [Masked("other")]},
    lambda: Passing("secret"),
    passing_more,
    lambda: [PassingMade("a", "b"), PassingMade("c", "")],
    lambda: Percent(5),
    lambda: Rounded(2.25),
    lambda: Conjugated(1, 2),
    lambda: Stripped(b" raw "),
    lambda: Doubled([1, [2]]),
    lambda: Hidden(a=1, b=[2]),
    lambda: Reversed((1, [2])),
    lambda: Crossed(1, [2]),
    lambda: FalseState(number=0),
    lambda: [MadePlain(1), Masked("secret"), Made("a", "b"), Lowered(A=1), Numbered([1])],
    *([lambda: BelowSlots(1)] if sys.version_info < (3, 11) else []),
]

#: What has methods of its own, and loses nothing in protocol 0.
KEPT: list[Any] = [
    lambda: datetime(2023, 11, 5, 1, 30, tzinfo=NEW_YORK),
    lambda: Moment(2023, 11, 5, 1, 30, fold=1),
    lambda: [Kept("text"), Wrapped("text"), Kept("\ud800"), PassingNothing("text")],
    lambda: Passing("****"),
    lambda: [Percent(0), Rounded(2.0), Rounded("nan"), Conjugated(1, 0.0).real, Stripped(b"raw")],
    lambda: [Chained([1, [2], Plain(a=1)]), Doubled()],
    lambda: [Hidden(), Lowered(A=1), Itemless(a=1)],
    lambda: [Numbered([1]), Reversed((1,)), Crossed(1, 1)],
    lambda: [Made("a", "b"), MadePlain(1)],
    lambda: [FalseState(number=1), Remade(), SlotsWithState(0), FrozenSlots(None)],
    *([lambda: BelowSlots(1)] if sys.version_info >= (3, 11) else []),
]

_NOT_STORABLE: list[Any] = [
    lambda: Raising(),
    lambda: lambda: None,
    threading.Lock,
    lambda: [Plain(a=threading.Lock())],
    lambda: memoryview(b"x"),
]

storable_objects = st.sampled_from(ONE_OF_EACH).map(lambda make: make())
wider_objects = st.sampled_from(REFUSED + CHANGED).map(lambda make: make())
unstorable_objects = st.sampled_from(_NOT_STORABLE).map(lambda make: make())

_boundaries = [0, 1, -1, 9, 10, 255, 256, 65535, 65536, 2**31 - 1, 2**31, -(2**31), 2**63, -(2**63), 10**40, -(10**300)]
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers() | st.sampled_from(_boundaries),
    st.floats() | st.sampled_from([-0.0, 1e16, 1e-5, 5e-324]),
    texts,
    st.binary(max_size=20),
    st.binary(max_size=5).map(bytearray),
)
_moments = st.datetimes(timezones=st.none() | st.sampled_from([timezone.utc, timezone(timedelta(hours=-3)), NEW_YORK]))
#: What rows of a database have.
row_values = st.one_of(
    _moments.map(lambda moment: moment.replace(fold=0)),
    st.dates(),
    st.timedeltas(),
    st.decimals(allow_nan=False),
    st.uuids(),
)
_hashables = st.none() | st.booleans() | st.integers() | texts | st.binary(max_size=5) | st.tuples(texts, st.integers())


@st.composite
def _sharing(draw: st.DrawFn, children: st.SearchStrategy[Any]) -> Any:
    """Some objects, and a container that holds each of them more than once."""
    members = draw(st.lists(children, min_size=1, max_size=3))
    order = draw(st.lists(st.sampled_from(members), min_size=2, max_size=6))
    make = draw(st.sampled_from([list, tuple, lambda items: dict(enumerate(items)), reduced]))
    return make(order)


def _containers(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(children, max_size=5),
        st.lists(children, max_size=5).map(tuple),
        st.dictionaries(_hashables, children, max_size=4),
        st.sets(_hashables, max_size=4),
        st.frozensets(_hashables, max_size=4),
        _sharing(children),
        st.builds(Point, children, children),
        st.builds(Pair, children, children),
        st.builds(Data, children),
        st.builds(Frozen, children),
        st.builds(lambda value: Plain(value=value), children),
        st.builds(Listing, st.lists(children, max_size=3)),
        st.builds(reduced, st.lists(children, max_size=3)),
    )


#: What protocol 0 carries.
storable = st.recursive(scalars | row_values | storable_objects, _containers, max_leaves=12)
#: What it may refuse.
anything = storable | unstorable_objects | st.builds(lambda first, last: [first, last], storable, unstorable_objects)


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same all through, whatever the methods of their classes say."""
    known: dict[int, Any] = {}
    todo = [(one, other)]
    while todo:
        one, other = todo.pop()
        if isinstance(one, (type, FunctionType, BuiltinFunctionType)):
            if one is not other:
                return False
        elif id(one) not in known:
            known[id(one)] = other
            (content, parts), (other_content, other_parts) = _taken_apart(one), _taken_apart(other)
            if type(one) is not type(other) or content != other_content or len(parts) != len(other_parts):
                return False
            todo += zip(parts, other_parts, strict=True)
        elif known[id(one)] is not other and isinstance(one, (list, dict, Plain)):
            return False
    return True


def _taken_apart(value: Any) -> tuple[str, list[Any]]:
    """What a value holds: plain content, and other objects."""
    parts = [part for item in getattr(value, "__dict__", {}).items() for part in item]
    for cls in type(value).__mro__:
        parts += [getattr(value, name) for name in cls.__dict__.get("__slots__", ()) if hasattr(value, name)]
    if isinstance(value, int):
        # Python has no repr() of the longest.
        return int.__format__(value, "x"), parts
    for plain in (str, bytes, float, complex):
        if isinstance(value, plain):
            return repr(plain.__getnewargs__(value)), parts  # type: ignore[attr-defined]
    for moment in (datetime, time):
        if isinstance(value, moment):
            return repr(moment.__reduce_ex__(value, 4)[1]), parts
    if isinstance(value, dict):
        parts += [part for item in dict.items(value) for part in item]
    elif isinstance(value, (list, tuple)):
        base = list if isinstance(value, list) else tuple
        parts += base.__getitem__(value, slice(None))
    elif isinstance(value, (set, frozenset)):
        return repr(sorted(map(repr, value))), parts
    elif isinstance(value, io.StringIO):
        return value.getvalue(), []
    elif not parts:
        return repr(value), parts
    return "", parts
