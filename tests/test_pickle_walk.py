"""Signals, the collector and hostile namespaces while an item is written or read: none of it is seen halfway."""

from __future__ import annotations

import copyreg
import gc
import itertools
import os
import pickle
import random
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.core.cache.backends.base import BaseCache

from fastblets import _native
from fastblets.cache.backend import cache_memoize_iter
from tests.test_pickle_codec import check, check_written
from tests.test_pickle_instances import Child, Plain, check_stream, stream

#: Enough that a signal comes in the middle.
MANY = 100_000


def read(data: bytes) -> list[Any]:
    return list(_native.read_items([data], False, None))


# As few walks as can be


def instances_of(count: int) -> list[Any]:
    """Instances of so many classes that can be imported and that no walk has met."""
    module = sys.modules[__name__]
    classes = []
    for number in range(count):
        name = f"Met{number}"
        classes.append(type(name, (Plain,), {"__module__": __name__}))
        setattr(module, name, classes[-1])
    return [cls(a=number) for number, cls in enumerate(classes)]


def walks(work: Callable[[], object]) -> int:
    before = _native.count_walks()
    work()
    return _native.count_walks() - before


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("ahead", [0, 1000])
def test_all_classes_of_an_item_are_learned_in_one_go(nested: bool, ahead: int) -> None:
    """A walk for each class would be as many times the time that the item takes."""
    written, read_in = set(), set()
    for count in (1, 60):
        item: list[Any] = [*range(ahead), *instances_of(count)]
        if nested:
            for instance, inner in itertools.pairwise(item[ahead:]):
                instance.inner = [inner]
        writer = _native.LargeWriter(False, None, None)
        written.add(walks(lambda writer=writer, item=item: writer.write(item)))
        writer.finish()
        data = writer.last_chunk() or b""
        assert data == pickle.dumps(item, protocol=0)
        read_in.add(walks(lambda data=data: read(data)))
    # One that meets the classes, and one that knows them; where it is read, plain items are looked for first.
    assert (written, read_in) == ({2}, {3})


# Every type


def test_no_type_is_made_otherwise_than_by_python() -> None:
    """In another process, which a wrong one would end."""
    program = [sys.executable, "-X", "faulthandler", "-m", "tests.types_of_python"]
    run = subprocess.run(program, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    assert int(run.stdout.split()[0]) > 50


@pytest.mark.linux("the posix module")
@pytest.mark.parametrize("state", [b"", b"(dVa\nI1\nsb"])
def test_iterators_that_cannot_be_made(state: bytes) -> None:
    """Protocol 0 writes them, and nobody can read them: what is stored of `os.scandir()` is never found."""
    data = b"ccopy_reg\n_reconstructor\n(cposix\nDirEntry\nc__builtin__\nobject\nNtR" + state + b"."
    with pytest.raises(TypeError, match="not safe"):
        pickle.loads(data)
    with pytest.raises(TypeError, match="not safe"):
        read(data)


def test_entries_of_a_folder_are_computed_again(locmem: BaseCache) -> None:
    for _ in range(3):
        entries = list(cache_memoize_iter("entries", lambda: os.scandir("/")))
        assert {entry.name for entry in entries} == set(os.listdir("/"))
        assert all(entry.stat(follow_symlinks=False) for entry in entries)


def test_abstract_classes_run_no_code(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []

    class Method(str):
        def __lt__(self, other: str) -> bool:
            ran.append(other)
            return str.__lt__(self, other)

    class Abstract(Plain):
        pass

    Abstract.__abstractmethods__ = frozenset([Method("a"), Method("b")])  # type: ignore[attr-defined]
    monkeypatch.setitem(globals(), "Abstract", Abstract)
    name = f"c{__name__}\nAbstract\n".encode()
    assert _native.pickle_loads(b"ccopy_reg\n_reconstructor\n(" + name + b"c__builtin__\nobject\nNtR.") is None
    assert not ran


# Signals


class TimeLimitError(Exception):
    """As those of task queues: no BaseException."""


@pytest.fixture
def alarm() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Has a function called in a moment, wherever the program is then."""
    before = signal.getsignal(signal.SIGALRM)

    def start(handle: Callable[[], None]) -> None:
        signal.signal(signal.SIGALRM, lambda *_: handle())
        signal.setitimer(signal.ITIMER_REAL, 0.002)

    yield start
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def long_ints() -> list[Any]:
    return [10**30 + number for number in range(MANY)]


def wait_for(condition: Callable[[], object]) -> None:
    while not condition():
        pass


@pytest.mark.linux("SIGALRM")
@pytest.mark.parametrize("error", [TimeLimitError, KeyboardInterrupt])
@pytest.mark.parametrize("make", [long_ints, lambda: [Plain(a=10**30 + number) for number in range(MANY // 10)]])
def test_no_exception_of_a_signal_is_lost(
    alarm: Callable[[Callable[[], None]], None], error: type[BaseException], make: Callable[[], Any]
) -> None:
    items = make()
    data = pickle.dumps(items, protocol=0)
    for work in [lambda: _native.pickle_dumps(items), lambda: stream([items]), lambda: _native.pickle_loads(data)]:
        came = []

        def handle(came: list[bool] = came) -> None:
            came.append(True)
            raise error

        for _ in range(20):
            before = len(came)
            with pytest.raises(error):
                alarm(handle)
                work()
                wait_for(lambda came=came, before=before: len(came) > before)
        assert len(came) == 20


@pytest.mark.linux("SIGALRM")
def test_what_a_signal_changes_is_written_before_or_after(alarm: Callable[[Callable[[], None]], None]) -> None:
    for number in range(30):
        items = long_ints()
        other = [[-(10**30) - number, str(number)] for number in range(1000)]
        before = pickle.dumps(items, protocol=0)
        after = pickle.dumps(other, protocol=0)
        changed = []

        def change(items: list[Any] = items, other: list[Any] = other, changed: list[bool] = changed) -> None:
            items[:] = other
            changed.append(True)

        alarm(change)
        written = stream([items]) if number % 2 else _native.pickle_dumps(items)
        wait_for(lambda changed=changed: changed)
        assert written in {before, after}


@pytest.fixture
def limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module during whose first import a signal comes, of which the handler raises an exception."""
    (tmp_path / "module_with_a_limit.py").write_text(
        "import pathlib, signal\n"
        "came = pathlib.Path(__file__).with_suffix('.came')\n"
        "if not came.exists():\n"
        "    came.touch()\n"
        "    signal.raise_signal(signal.SIGALRM)\n"
        "class Class: pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))

    def handle(*_: Any) -> None:
        raise TimeLimitError

    before = signal.signal(signal.SIGALRM, handle)
    yield "module_with_a_limit"
    signal.signal(signal.SIGALRM, before)
    sys.modules.pop("module_with_a_limit", None)


@pytest.mark.linux("SIGALRM")
def test_a_signal_while_a_class_is_imported(limited: str) -> None:
    data = f"ccopy_reg\n_reconstructor\n(c{limited}\nClass\nc__builtin__\nobject\nNtR.".encode()
    with pytest.raises(TimeLimitError):
        read(data)
    assert type(read(data)[0]).__name__ == "Class"


# Ints without repr()


def test_long_ints_of_every_length() -> None:
    rng = random.Random(20241125)
    for bits in [*range(60, 700), *range(700, 10_001, 93), 9_999, 10_000]:
        for value in (1 << bits - 1, (1 << bits) - 1, rng.getrandbits(bits) | 1 << bits - 1):
            check_written([value, -value, value])
    check([10**exponent - delta for exponent in range(18, 3000, 17) for delta in (0, 1)])


@pytest.mark.skipif(not hasattr(sys, "set_int_max_str_digits"), reason="This Python limits no digits")
def test_the_limit_of_digits_is_pythons() -> None:
    before = sys.get_int_max_str_digits()
    try:
        for limit in (640, 1000, 0):
            sys.set_int_max_str_digits(limit)
            for digits in (639, 640, 641, 999, 1000, 1001, 3000):
                for value in (10 ** (digits - 1), -(10 ** (digits - 1))):
                    refused = 0 < limit < digits
                    if refused:
                        with pytest.raises(ValueError, match="limit"):
                            pickle.dumps(value, protocol=0)
                    assert (_native.pickle_dumps([value]) is None) == refused
                    if not refused:
                        check([value])
    finally:
        sys.set_int_max_str_digits(before)


# The collector


class Cycle:
    def __init__(self, action: Callable[[], None]) -> None:
        self.action = action
        self.itself = self

    def __del__(self) -> None:
        self.action()


@pytest.mark.parametrize("how", ["finalizer", "weakref", "callback"])
def test_what_the_collector_runs_changes_nothing_halfway(how: str) -> None:
    """Instances whose dicts are made in the walk, and a collector that would run at each."""
    threshold = gc.get_threshold()
    try:
        for _ in range(20):
            # Instances without a dict yet, which the walk has made.
            items: list[Any] = [Plain() if number % 2 else Child() for number in range(300)]
            items += [[number] for number in range(300)]
            before = pickle.dumps(items, protocol=0)
            other = [[str(number)] for number in range(50)]
            after = pickle.dumps(other, protocol=0)
            data = pickle.dumps([list(range(10)) for _ in range(300)], protocol=0)

            def change(items: list[Any] = items, other: list[Any] = other) -> None:
                items[:] = other

            keep: list[Any] = []
            collected = lambda *_, change=change: change()  # noqa: E731
            gc.disable()
            if how == "callback":
                gc.callbacks.append(collected)
            elif how == "finalizer":
                Cycle(change)
            else:
                cycle = Cycle(lambda: None)
                keep.append(weakref.ref(cycle, collected))
                del cycle
            gc.set_threshold(1, 1, 1)
            gc.enable()
            written = _native.pickle_dumps(items)
            loaded = _native.pickle_loads(data)
            gc.set_threshold(*threshold)
            if how == "callback":
                gc.callbacks.remove(collected)
            assert written in {before, after}
            assert loaded == (pickle.loads(data),)
    finally:
        gc.callbacks[:] = [callback for callback in gc.callbacks if callback.__name__ != "<lambda>"]
        gc.set_threshold(*threshold)
        gc.enable()


# Hostile namespaces


class Hostile(str):
    """Equal to a str, and code to find that out."""

    change: Callable[[], None] = staticmethod(lambda: None)

    def __eq__(self, other: object) -> bool:
        Hostile.change()
        return str.__eq__(self, other)

    __hash__ = str.__hash__


@pytest.fixture
def victim() -> Iterator[type[Plain]]:
    """A class, importable under its name."""

    class Victim(Plain):
        pass

    Victim.__qualname__ = "Victim"
    globals()["Victim"] = Victim
    yield Victim
    Hostile.change = staticmethod(lambda: None)
    copyreg.dispatch_table.pop(Victim, None)
    for name in list(globals()):
        if name == "Victim":
            del globals()[name]


def hostile_class(cls: type[Plain]) -> type[Plain]:
    made = type("Victim", (Plain,), {"__module__": __name__, Hostile("__reduce__"): None, Hostile("__slots__"): ()})
    globals()["Victim"] = made
    return made


def hostile_module(cls: type[Plain]) -> type[Plain]:
    name = "hostile_module_of_a_pickle"
    module = ModuleType(name)
    vars(module)[Hostile("Victim")] = cls
    cls.__module__ = name
    sys.modules[Hostile(name)] = module
    return cls


def hostile_name(cls: type[Plain]) -> type[Plain]:
    cls.__qualname__ = Hostile("Victim")
    return cls


def hostile_module_name(cls: type[Plain]) -> type[Plain]:
    cls.__module__ = Hostile(cls.__module__)
    return cls


@pytest.mark.parametrize("harm", [hostile_class, hostile_module, hostile_name, hostile_module_name])
def test_a_namespace_that_runs_code(victim: type[Plain], harm: Callable[[type[Plain]], type[Plain]]) -> None:
    cls = harm(victim)
    try:
        found = outcome(lambda: written_twice(cls))
        was = _native.use_fast_paths(False)
        try:
            by_pickle = outcome(lambda: written_twice(cls))
        finally:
            _native.use_fast_paths(was)
        first, other = (outcome(lambda items=items: pickle.dumps(items, protocol=0)) for items in two_lists(cls))
        assert found == by_pickle or found in {first + first, first + other}
    finally:
        sys.modules.pop("hostile_module_of_a_pickle", None)


def two_lists(cls: type[Plain]) -> tuple[list[Any], list[Any]]:
    instance = cls(a=1)
    return [["first"], instance, ["last"]], [["other first"], instance, ["other last"]]


def written_twice(cls: type[Plain]) -> bytes:
    """The pickles of a list which code changes that runs during the second, when the class is known."""
    items, other = two_lists(cls)

    def change() -> None:
        Hostile.change = staticmethod(lambda: None)
        items[:] = other

    def twice() -> Iterator[Any]:
        yield items
        Hostile.change = staticmethod(change)
        yield items

    return stream(twice())


def outcome(write: Callable[[], bytes]) -> Any:
    try:
        return write()
    except Exception as error:
        return type(error)


def test_classes_that_come_and_go() -> None:
    """A class is looked at again only if it was met lately; every way there is leads to the same bytes."""
    rng = random.Random(5)
    items: list[Any] = []
    for cls in (Plain, Child):
        for gap in (1, 7, 8, 9, 30):
            items += [[number] for number in range(gap)]
            items.append(cls(a=[gap]))
    check_stream(items)
    for _ in range(20):
        check_stream([rng.choice([Plain, Child])(a=1) if rng.random() < 0.2 else "text" for _ in range(60)])
    long = "a\n" * 50_000
    check_stream([(long, Plain(a=1)), *["text"] * 20, (long, Plain(a=2))])
