"""Instances: those of ordinary classes are pickled by the codec, and none is ever pickled otherwise than by CPython."""

from __future__ import annotations

import abc
import copyreg
import enum
import gc
import pickle
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import pytest

from fastblets import _native
from tests.test_pickle_codec import FUZZ, check_read, check_written, random_object


class Plain:
    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


class Child(Plain):
    """Has nothing of its own."""


class Other:
    shared = "on the class"


class Both(Child, Other):
    pass


@dataclass
class Data:
    number: int
    text: str


@dataclass(frozen=True)
class Frozen:
    """Its hash and its comparison are Python code."""

    value: Any


class Guarded(Plain):
    """Python code all over, none of which protocol 0 calls."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AssertionError

    def __eq__(self, other: object) -> bool:
        raise AssertionError

    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        raise AssertionError

    def __getnewargs__(self) -> Any:
        return ()

    def __getinitargs__(self) -> Any:
        raise AssertionError

    def __len__(self) -> int:
        raise AssertionError

    @property
    def computed(self) -> Any:
        raise AssertionError


SHARED = Plain(a="shared")


def recursive() -> Plain:
    value = Plain()
    value.me = value  # type: ignore[attr-defined]
    value.mine = [vars(value), {"value": value}]  # type: ignore[attr-defined]
    return value


def with_attributes(attributes: dict[Any, Any]) -> Plain:
    value = Plain()
    vars(value).update(attributes)
    return value


ORDINARY: list[Callable[[], Any]] = [
    Plain,
    lambda: Plain(a=1),
    lambda: Plain(text="text", number=1.5, items=[1, "text"], latin1=b"xyz", none=None),
    lambda: Child(a=Plain(b=Child())),
    lambda: Both(shared="on the instance"),
    lambda: Data(1, "text"),
    lambda: Frozen(("a", 1)),
    lambda: Guarded(a=1),
    lambda: Guarded(),
    lambda: with_attributes({"имя": 1, "é": 2, "_private": 3, "_": 4, "": 5, "a\nb": 6}),
    lambda: [SHARED, SHARED, vars(SHARED), Plain(a=SHARED)],
    lambda: [vars(SHARED), SHARED],
    lambda: {"a": SHARED, "b": (SHARED, SHARED)},
    lambda: [Plain(a=number, b=str(number)) for number in range(50)],
    lambda: [Plain(), Child(), Data(1, ""), b"", b"xy", Plain(), Child()],
    lambda: Plain(**{f"attribute_{number}": number for number in range(100)}),
    recursive,
    lambda: [recursive(), recursive()],
    lambda: (recursive(),),
]


@pytest.mark.parametrize("make", ORDINARY)
def test_ordinary_instances(make: Callable[[], Any]) -> None:
    value = make()
    data = check_written(value)
    check_read(data)
    check_written([value, value])
    # Nobody else holds it.
    assert _native.pickle_dumps(make()) == pickle.dumps(make(), protocol=0)
    check_read(check_written([make(), (make(),), {"key": make()}]))
    # As it is when pickle has been there.
    check_written(value)


def test_attributes_are_interned_and_keys_are_not() -> None:
    """A dict's key and an attribute's name are two strings, which is seen when both are pickled again."""
    name = "".join(["never_interned_", str(random.random())[2:]])
    values = [{name: 1}, Plain(**{name: 2}), {name: 3}, [{name: 4}, Plain(**{name: 5}), {name: 6}]]
    data = b"".join(pickle.dumps(value, protocol=0) for value in values)
    del values
    read = _native.pickle_loads_all(data)
    assert read is not None
    (attribute,) = vars(read[1])
    assert sys.intern(name) is attribute
    assert [next(iter(value)) is attribute for value in (read[0], read[2], read[3][0], read[3][2])] == [False] * 4
    assert next(iter(vars(read[3][1]))) is attribute


def test_random_instances() -> None:
    rng = random.Random(20240502)
    classes: list[Callable[[], Any]] = [Plain, Child, Other, Both, Guarded]
    written = 0
    rounds = FUZZ // 60
    for _ in range(rounds):
        known: list[Any] = []
        for _ in range(rng.randrange(1, 6)):
            instance = rng.choice(classes)()
            known.append(instance)
            for name in rng.sample(["a", "b", "name", "latin1", "имя"], rng.randrange(4)):
                vars(instance)["".join([name])] = random_object(rng, known, rng.randrange(4))
        value = known if rng.random() < 0.5 else known[0]
        del known
        expected = pickle.dumps(value, protocol=0)
        out = _native.pickle_dumps(value)
        assert out in {None, expected}
        written += out is not None
        read = _native.pickle_loads(expected)
        assert read is not None
        again = pickle.loads(expected)
        assert pickle.dumps(read[0], protocol=0) == pickle.dumps(again, protocol=0)
        assert pickle.dumps(read[0], protocol=2) == pickle.dumps(again, protocol=2)
    assert written > 0.8 * rounds


# Classes that are pickle's


class WithReduce(Plain):
    def __reduce__(self) -> Any:
        return WithReduce, (), vars(self)


class WithReduceEx(Plain):
    def __reduce_ex__(self, protocol: Any) -> Any:
        return WithReduceEx, (), vars(self)


class WithGetState(Plain):
    def __getstate__(self) -> Any:
        return {"state": list(vars(self))}


class WithSetState(Plain):
    def __setstate__(self, state: Any) -> None:
        vars(self)["state"] = state


class WithNew(Plain):
    def __new__(cls, *_: Any, **__: Any) -> WithNew:
        return super().__new__(cls)


class WithDel(Plain):
    ended: ClassVar[list[Any]] = []

    def __del__(self) -> None:
        self.ended.append(vars(self))


class WithGetAttr(Plain):
    def __getattr__(self, name: str) -> Any:
        if name == "__setstate__":
            return partial(vars(self).__setitem__, "state")
        raise AttributeError(name)


class WithGetAttribute(Plain):
    def __getattribute__(self, name: str) -> Any:
        if name == "__dict__":
            return {"not": "true"}
        return super().__getattribute__(name)


class WithClass(Plain):
    @property
    def __class__(self) -> Any:
        return Child

    @__class__.setter
    def __class__(self, value: Any) -> None:
        raise AssertionError


class WithDict(Plain):
    def __init__(self, **attributes: Any) -> None:
        self.state = attributes

    @property
    def __dict__(self) -> Any:
        return {"other": 1}


class WithSlotNames(Plain):
    __slotnames__: ClassVar[list[str]] = ["a"]


class EmptySlots:
    __slots__ = ()


class BelowEmptySlots(EmptySlots, Plain):
    pass


class Implementation(abc.ABC):  # noqa: B024
    pass


class Meta(type):
    def __getattribute__(cls, name: str) -> Any:
        return super().__getattribute__(name)


class WithMeta(metaclass=Meta):
    pass


class Color(enum.Enum):
    RED = "red"


class Point(NamedTuple):
    x: int


T = TypeVar("T")


class Generics(Generic[T]):
    pass


class Text(str):
    pass


class Number(int):
    pass


class Mapping(dict):  # type: ignore[type-arg]
    pass


class Listing(list):  # type: ignore[type-arg]
    pass


class Failure(Exception):
    pass


class Registered(Plain):
    pass


copyreg.pickle(Registered, lambda value: (Registered, (), vars(value)))  # type: ignore[arg-type,return-value]


class Outer:
    class Inner(Plain):
        pass


class Attributes(dict):  # type: ignore[type-arg]
    pass


def with_other_attributes() -> Plain:
    value = Plain()
    value.__dict__ = Attributes(a=1)
    return value


UNORDINARY: list[Callable[[], Any]] = [
    lambda: WithReduce(a=1),
    lambda: WithReduceEx(a=1),
    lambda: WithGetState(a=1),
    lambda: WithSetState(a=1),
    lambda: WithNew(a=1),
    lambda: WithDel(a=1),
    lambda: WithGetAttr(a=1),
    lambda: WithGetAttribute(a=1),
    lambda: WithClass(a=1),
    lambda: WithDict(a=1),
    lambda: WithSlotNames(a=1),
    BelowEmptySlots,
    Implementation,
    WithMeta,
    lambda: Color.RED,
    lambda: Point(1),
    lambda: Text("a"),
    lambda: Number(1),
    lambda: Mapping(a=1),
    lambda: Listing([1]),
    lambda: Failure("a"),
    lambda: Registered(a=1),
    lambda: Outer.Inner(a=1),
    with_other_attributes,
    lambda: Plain(__reduce_ex__=lambda _: (Plain, ())),
    lambda: Plain(__getstate__=dict),
    lambda: Plain(__setstate__=1),
    lambda: with_attributes({1: 2}),
    lambda: with_attributes({Text("a"): 2}),
]


@pytest.mark.parametrize("make", UNORDINARY)
def test_other_instances_are_the_c_picklers(make: Callable[[], Any]) -> None:
    value = make()
    try:
        data = pickle.dumps(value, protocol=0)
    except Exception:
        data = None
    assert _native.pickle_dumps(value) is None
    assert _native.pickle_dumps([Plain(a=1), value]) is None
    if data is not None:
        check_read(data, fast=False)
    # A deeper one, behind others that are ordinary.
    for items in ([Plain(), value, Plain()], [Plain(a=value)], [SHARED, {"key": value}]):
        check_stream(items)


def test_generics() -> None:
    """`Generic` has slots, or is C's and has none: that is Python's version's business."""
    value = Generics[int]()
    assert _native.pickle_dumps(value) in {None, pickle.dumps(value, protocol=0)}
    check_stream([value, Generics(), [value]])


class Unimportable(Plain):
    pass


Renamed = Unimportable
del Unimportable


def local_class() -> Any:
    class Local:
        pass

    return Local()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Renamed(a=1),
        local_class,
        type("Elsewhere", (Plain,), {"__module__": "no.such.module"}),
        type("Elsewhere", (Plain,), {"__module__": 1}),
        type("Plain", (Plain,), {"__module__": __name__}),
        type("名", (Plain,), {"__module__": __name__}),
    ],
)
def test_what_cannot_be_pickled_is_refused_by_pickle(make: Callable[[], Any]) -> None:
    with pytest.raises(Exception) as expected:
        pickle.dumps(make(), protocol=0)
    writer = _native.LargeWriter(False, None, None)
    with pytest.raises(expected.type):
        writer.write(make())
    writer.write("after")
    writer.finish()
    assert writer.last_chunk() == pickle.dumps("after", protocol=0)


# Streams, between whose items anything may happen


def stream(items: Any) -> bytes:
    writer = _native.LargeWriter(False, None, None)
    for item in items:
        writer.write(item)
    writer.finish()
    return b"".join([*writer.take_full_chunks(), writer.last_chunk() or b""])


def check_stream(items: list[Any]) -> None:
    """What is written and read, by whichever way, is the same as by pickle alone."""

    def attempt(*, fast: bool) -> Any:
        was = _native.use_fast_paths(fast)
        try:
            data = stream(items)
            return data, stream(_native.read_items([data], False, None))
        except Exception as error:
            return type(error)
        finally:
            _native.use_fast_paths(was)

    assert attempt(fast=True) == attempt(fast=False)


@pytest.fixture
def changing() -> Iterator[type[Plain]]:
    """A class that may be changed, importable under its name."""

    class Changing(Plain):
        pass

    Changing.__qualname__ = "Changing"
    globals()["Changing"] = Changing
    yield Changing
    copyreg.dispatch_table.pop(Changing, None)
    del globals()["Changing"]


CHANGES: list[Callable[[type[Plain]], None]] = [
    lambda cls: setattr(cls, "__reduce__", lambda self: (list, ([1],))),
    lambda cls: setattr(cls, "__reduce_ex__", lambda self, _: (list, ([1],))),
    lambda cls: setattr(cls, "__getstate__", lambda self: {"b": 2}),
    lambda cls: setattr(cls, "__getattribute__", object.__getattribute__),
    lambda cls: setattr(cls, "__slots__", ("a",)),
    lambda cls: setattr(cls, "__qualname__", "Plain"),
    lambda cls: setattr(cls, "__module__", "tests.values"),
    lambda cls: setattr(cls, "__bases__", (WithReduce,)),
    lambda cls: copyreg.pickle(cls, lambda value: (list, ([2],))),  # type: ignore[arg-type,return-value]
    lambda cls: globals().__setitem__("Changing", Plain),
    lambda cls: setattr(cls, "harmless", 1),
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_class_that_changes_while_its_instances_are_written(
    changing: type[Plain], change: Callable[[type[Plain]], None]
) -> None:
    values = [changing(a=number) for number in range(3)]
    writer = _native.LargeWriter(False, None, None)
    expected = b""
    for number, value in enumerate(values):
        if number == 1:
            change(changing)
        try:
            pickled = dumps(value)
        except Exception as error:
            with pytest.raises(type(error)):
                writer.write(value)
        else:
            writer.write(value)
            expected += pickled
    writer.finish()
    assert writer.last_chunk() == expected


def dumps(value: Any) -> bytes:
    """The pickle in protocol 0 or, if that refuses the value, in protocol 4."""
    try:
        return pickle.dumps(value, protocol=0)
    except TypeError:
        return pickle.dumps(value, protocol=4)


class Meddler(Plain):
    def __setstate__(self, state: Any) -> None:
        state["change"](globals()["Changing"])


def add_set_state(cls: type[Plain]) -> None:
    cls.__setstate__ = lambda self, state: vars(self).update(changed=state)  # type: ignore[attr-defined]


def test_a_class_that_changes_while_its_instances_are_read(changing: type[Plain]) -> None:
    data = stream([changing(a=1), Meddler(change=add_set_state), changing(a=2)])
    before, _, after = _native.read_items([data], False, None)
    assert vars(before) == {"a": 1}
    assert vars(after) == {"changed": {"a": 2}}


def test_a_module_is_imported_while_the_collector_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "module_of_a_pickle.py").write_text("import gc\nenabled = gc.isenabled()\nclass Class: pass\n")
    data = b"ccopy_reg\n_reconstructor\np0\n(cmodule_of_a_pickle\nClass\np1\nc__builtin__\nobject\np2\nNtp3\nRp4\n."
    assert gc.isenabled()
    with pytest.raises(ImportError):
        next(_native.read_items([data], False, None))
    monkeypatch.syspath_prepend(str(tmp_path))
    instance = next(_native.read_items([data], False, None))
    module = sys.modules.pop("module_of_a_pickle")
    assert isinstance(module, ModuleType)
    assert type(instance) is module.Class
    assert module.enabled


def test_names_are_those_that_pickle_finds() -> None:
    """Python 2's names, and builtins under either of their modules."""
    for name in (b"c__builtin__\nobject\n", b"cbuiltins\nobject\n"):
        for reconstructor in (b"ccopy_reg\n_reconstructor\n", b"ccopyreg\n_reconstructor\n"):
            data = reconstructor + b"(c" + __name__.encode() + b"\nPlain\n" + name + b"NtR(dVa\nI1\nsb."
            check_read(data)
            assert vars(_native.pickle_loads(data)[0]) == {"a": 1}  # type: ignore[index]


HEAD = b"ccopy_reg\n_reconstructor\n"
MINE = b"c" + __name__.encode() + b"\n"
BASE = b"c__builtin__\nobject\n"
INSTANCE = HEAD + b"(" + MINE + b"Plain\n" + BASE + b"NtR"


@pytest.mark.parametrize(
    "data",
    [
        INSTANCE + b"Nb.",
        INSTANCE + b"(db.",
        INSTANCE + b"(lb.",
        INSTANCE + b"(dI1\nI2\nsb.",
        INSTANCE + b"((dVa\nI1\ns(dVb\nI2\nstb.",
        INSTANCE + b"(dV__setstate__\nI1\nsb(dVa\nI1\nsb.",
        INSTANCE + b"(dV__class__\nI1\nsb.",
        INSTANCE + b"(dVa\nI1\nsb(dVb\nI2\nsb.",
        INSTANCE + b"(dVa\nI1\nsp0\nb0g0\n.",
        INSTANCE + b"p0\n(dVa\ng0\nsb.",
        INSTANCE + b"I1\na.",
        INSTANCE + b"Va\nI1\ns.",
        INSTANCE + b"(tR.",
        b"(d" + INSTANCE + b"I1\ns.",
        b"(d(" + INSTANCE + b"tI1\ns.",
        b"(dVa\nI1\nsp0\n" + INSTANCE + b"g0\nb(g0\nt.",
        HEAD + b"(" + BASE + BASE + b"NtR.",
        HEAD + b"(c__builtin__\nbytes\n" + BASE + b"NtR.",
        HEAD + b"(c__builtin__\ndict\n" + BASE + b"NtR.",
        HEAD + b"(" + MINE + b"Plain\n" + MINE + b"Plain\nNtR.",
        HEAD + b"(" + MINE + b"Plain\n" + BASE + b"(ltR.",
        HEAD + b"(" + MINE + b"Plain\n" + BASE + b"tR.",
        HEAD + b"(" + MINE + b"Plain\n" + BASE + b"NNtR.",
        HEAD + b"(" + MINE + b"Mapping\n" + BASE + b"NtR.",
        HEAD + b"(" + MINE + b"Mapping\nc__builtin__\ndict\n(dtR.",
        HEAD + b"(" + MINE + b"WithSetState\n" + BASE + b"NtR(dVa\nI1\nsb.",
        HEAD + b"(" + MINE + b"Outer.Inner\n" + BASE + b"NtR.",
        HEAD + b"(" + MINE + b"Missing\n" + BASE + b"NtR.",
        HEAD + b"(cno.such.module\nMissing\n" + BASE + b"NtR.",
        HEAD + b"(" + MINE + b"SHARED\n" + BASE + b"NtR.",
        HEAD + b"(V" + MINE + BASE + b"NtR.",
        HEAD + b"(lb.",
        HEAD + b".",
        BASE + b".",
        MINE + b"Plain\n.",
        MINE + b"Plain\n(dVa\nI1\nsb.",
        MINE + b"Plain\n(tR.",
        b"(d" + MINE + b"Plain\nI1\ns.",
        b"(dVa\nI1\ns(dVa\nI1\nsb.",
        b"Nb.",
        b"b.",
        b"(db.",
    ],
)
def test_unusual_pickles_of_instances(data: bytes) -> None:
    try:
        read = _native.pickle_loads(data)
    except Exception as error:
        with pytest.raises(type(error)):
            pickle.loads(data)
        return
    if read is None:
        return
    assert pickle.dumps(read[0], protocol=0) == pickle.dumps(pickle.loads(data), protocol=0)


def test_what_is_cut_off_is_not_read() -> None:
    data = pickle.dumps([Plain(a=1), Child(b=[2])], protocol=0)
    for length in range(len(data)):
        assert _native.pickle_loads(data[:length]) is None


def test_nothing_runs_for_what_is_half_built() -> None:
    WithDel.ended.clear()
    data = pickle.dumps(WithDel(a=1), protocol=0)
    WithDel.ended.clear()
    assert _native.pickle_loads(data) is None
    assert _native.pickle_loads(data[:-1] + b"?") is None
    assert not WithDel.ended


def test_more_classes_than_are_kept_in_mind(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [type(f"Made{number}", (Plain,), {"__module__": __name__}) for number in range(150)]
    for cls in made:
        monkeypatch.setattr(sys.modules[__name__], cls.__name__, cls, raising=False)
    check_stream([cls(a=1) for cls in made] * 2)
    check_stream([[cls(a=1) for cls in made]] * 2)
    check_stream([[cls(a=1) for cls in made[:50]]] * 2)


def test_nothing_leaks() -> None:
    values = [Plain(a=Child(b="x"), c=[SHARED]), WithReduce(a=1), recursive()]
    damaged = pickle.dumps(values[0], protocol=0)[:-2] + b"?"
    before = 0
    for round_ in range(400):
        data = stream(values)
        list(_native.read_items([data], False, None))
        assert _native.pickle_loads(damaged) is None
        if round_ == 200:
            gc.collect()
            before = sys.getallocatedblocks()
    gc.collect()
    assert sys.getallocatedblocks() - before < 500
