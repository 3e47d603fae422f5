"""FASTBLETS_PICKLE_CLASSES: which classes and functions a pickle may name."""

from __future__ import annotations

import collections
import copyreg
import datetime
import decimal
import enum
import logging
import os
import pickle
import re
import signal
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import Group
from django.core.cache.backends.base import BaseCache
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from django.utils.safestring import mark_safe

from fastblets import _native
from fastblets.cache.backend import cache_memoize, cache_memoize_iter, make_cache_key
from fastblets.cache.classes import get_loads
from fastblets.secrets.crypto import aes_encrypt
from tests.canary import Canary, songs
from tests.test_docs import DOCS

pytestmark = pytest.mark.django_db

HERE = __name__


class Color(enum.Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    y: list[int] = field(default_factory=list)

    trusted = False


class Text(str):
    pass


class Singleton:
    """Pickled by the name that it has in its module, as some of Django's are."""

    value = "shared"

    def __init__(self, name: str = "SINGLETON") -> None:
        self._name = name

    def __reduce__(self) -> str:
        return self._name


class CallableSingleton(Singleton):
    def __call__(self) -> None:
        songs.append("called")


class ChangeableSingleton(Singleton):
    def append(self, item: Any) -> None:
        songs.append(item)


SINGLETON = Singleton()
CALLABLE = CallableSingleton("CALLABLE")
CHANGEABLE = ChangeableSingleton("CHANGEABLE")
ALIAS = SINGLETON
UNNAMED = Point(1)
ELSEWHERE = signal.SIGINT


class Outer:
    trusted = False

    @dataclass(slots=True)
    class Inner:
        x: int

    imported = os
    Alias = Point


class Masked(str):
    def __str__(self) -> str:
        return "****"


@dataclass(slots=True)
class Slots:
    value: Any


class Listing(list):  # type: ignore[type-arg]
    pass


Pair = collections.namedtuple("Pair", "left right")


def function(*arguments: Any) -> str:
    songs.append("called")
    return "called"


PLAIN = [
    None,
    True,
    -5,
    2**100,
    1.5,
    "text ключ \0",
    b"",
    b"\0\xff",
    bytearray(b"x"),
    bytearray(),
    complex(1, -2),
    {1, 2},
    set(),
    frozenset({"a"}),
    (),
    (1, (2,)),
    [[], {}],
    {"a": {1: None}},
]
INSTANCES = [
    (datetime.datetime(2024, 2, 29, 1, 2, tzinfo=datetime.timezone.utc), ["datetime.*"]),
    (datetime.timedelta(1), ["datetime.timedelta"]),
    (decimal.Decimal("1.10"), ["decimal.Decimal"]),
    (uuid.UUID(int=7), ["uuid.UUID"]),
    (Color.RED, [f"{HERE}.Color"]),
    (Point(1, [2]), [f"{HERE}.Point"]),
    (Text("text"), [f"{HERE}.T*"]),
    (Listing([1]), [f"{HERE}.Listing"]),
    (Pair(1, 2), [f"{HERE}.Pair"]),
    (collections.OrderedDict(a=1), ["collections.*"]),
    (
        Group(pk=1, name="group"),
        [
            "django.contrib.auth.models.Group",
            # A function has to be spelled out.
            "django.db.models.base.model_unpickle",
            "django.db.models.base.ModelState",
        ],
    ),
    ([SINGLETON, SINGLETON], [f"{HERE}.SINGLETON"]),
    ([SINGLETON], [f"{HERE}.S*"]),
    ([CALLABLE, CHANGEABLE], [f"{HERE}.CALLABLE", f"{HERE}.CHANGEABLE"]),
    (signal.SIGINT, ["signal.SIGINT", "signal.Signals"]),
    (Ellipsis, ["builtins.Ellipsis"]),
    # These are pickled in protocol 4.
    (Masked("secret"), [f"{HERE}.Masked"]),
    ([Slots([1]), "text"], [f"{HERE}.S*"]),
    (datetime.datetime(2023, 11, 5, 1, 30, fold=1, tzinfo=datetime.timezone.utc), ["datetime.*"]),
    (Outer.Inner(1), [f"{HERE}.Outer.Inner"]),
    ([mark_safe("<b>"), Slots(datetime.time(1, fold=1))], ["django.*", "datetime.time", f"{HERE}.Slots"]),
]
IDS = [type(value).__name__ for value, _ in INSTANCES]

# On the native path, through the scanner, and over many megabytes.
Store = Callable[[Any], None]
Read = Callable[[], Any]


@contextmanager
def small() -> Iterator[tuple[Store, Read]]:
    options = {"use_encryption": True}
    yield (
        lambda value: cache_memoize("key", lambda: value, force_overwrite=True, **options),
        lambda: cache_memoize("key", lambda: "a miss", **options),
    )


@contextmanager
def large() -> Iterator[tuple[Store, Read]]:
    yield (
        lambda value: cache_memoize("key", lambda: value, large_data=True, force_overwrite=True),
        lambda: cache_memoize("key", lambda: "a miss", large_data=True),
    )


@contextmanager
def without_fast_paths() -> Iterator[tuple[Store, Read]]:
    before = _native.use_fast_paths(False)
    try:
        with large() as ways:
            yield ways
    finally:
        _native.use_fast_paths(before)


@contextmanager
def long_stream() -> Iterator[tuple[Store, Read]]:
    much = "x" * 20_000_000

    def store(value: Any) -> None:
        for _ in cache_memoize_iter("key", [much, value], force_overwrite=True):
            pass

    yield store, lambda: list(cache_memoize_iter("key", lambda: ["", "a miss"]))[1]


WAYS = [pytest.param(way, id=way.__name__) for way in (small, large, without_fast_paths, long_stream)]


@pytest.mark.parametrize("way", WAYS[:3])
def test_plain_values_are_always_allowed(locmem: BaseCache, way: Any) -> None:
    with override_settings(FASTBLETS_PICKLE_CLASSES=[]), way() as (store, read):
        for value in PLAIN:
            store(value)
            assert repr(read()) == repr(value)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("value", "patterns"), INSTANCES, ids=IDS)
def test_an_instance_is_read_if_its_class_is_allowed(
    locmem: BaseCache, way: Any, value: Any, patterns: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with way() as (store, read):
        store(value)
        with override_settings(FASTBLETS_PICKLE_CLASSES=patterns):
            assert read() == value
        with override_settings(FASTBLETS_PICKLE_CLASSES=["reports.*"]), caplog.at_level(logging.WARNING, "djblets"):
            assert read() == "a miss"
    assert "is not allowed by FASTBLETS_PICKLE_CLASSES" in caplog.text


@pytest.mark.parametrize("way", WAYS)
def test_models_from_the_database_are_read_by_the_documented_list(locmem: BaseCache, way: Any) -> None:
    documented = re.findall(r'^    "(django\..*)",', (DOCS / "security.md").read_text(encoding="utf-8"), re.M)
    group = Group.objects.get(pk=Group.objects.create(name="group").pk)
    allowed = [*documented, "django.contrib.auth.models.Group"]
    with override_settings(FASTBLETS_PICKLE_CLASSES=allowed), way() as (store, read):
        store(group)
        assert read() == group


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_called_that_is_not_allowed(locmem: BaseCache, way: Any) -> None:
    with override_settings(FASTBLETS_PICKLE_CLASSES=["tests.*"]), way() as (store, read):
        store(Canary())
        songs.clear()
        # A pattern is for classes; this is a function.
        assert read() == "a miss"
        assert not songs


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_imported_that_is_not_allowed(locmem: BaseCache, way: Any) -> None:
    module = ModuleType("a_module_that_is_not_allowed")
    module.Gone = type("Gone", (), {"__module__": module.__name__})  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    found: list[str] = []

    class Finder:
        @staticmethod
        def find_spec(name: str, *more: Any) -> None:
            found.append(name)

    with override_settings(FASTBLETS_PICKLE_CLASSES=["reports.*"]), way() as (store, read):
        store(module.Gone())
        del sys.modules[module.__name__]
        sys.meta_path.insert(0, Finder)  # type: ignore[arg-type]
        try:
            assert read() == "a miss"
        finally:
            sys.meta_path.remove(Finder)  # type: ignore[arg-type]
    assert module.__name__ not in found


def load(pickled: bytes, *patterns: str) -> Any:
    with override_settings(FASTBLETS_PICKLE_CLASSES=list(patterns)):
        loads = get_loads(settings)
        assert loads is not None
        return loads(pickled)


def stack_global(module: str, name: str) -> bytes:
    texts = [b"X" + len(text).to_bytes(4, "little") + text.encode() for text in (module, name)]
    return b"\x80\x04" + b"".join(texts) + b"\x93."


def refuses(pickled: bytes, *patterns: str) -> bool:
    songs.clear()
    with pytest.raises((pickle.UnpicklingError, TypeError, AttributeError, ImportError)):
        load(pickled, *patterns)
    return not songs


@pytest.mark.parametrize(
    ("pickled", "patterns"),
    [
        pytest.param(b"cos\nsystem\n(S'true'\ntR.", ["reports.*"], id="GLOBAL"),
        pytest.param(b"(S'true'\nios\nsystem\n.", ["reports.*"], id="INST"),
        pytest.param(b"(cos\nsystem\nS'true'\no.", ["reports.*"], id="OBJ"),
        pytest.param(b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.", ["reports.*"], id="STACK_GLOBAL"),
        pytest.param(b"\x80\x02cos\nsystem\n)\x81.", ["reports.*"], id="NEWOBJ"),
        pytest.param(b"cposix\nsystem\n(S'true'\ntR.", ["os.*"], id="at home elsewhere"),
        pytest.param(b"clogging\nos\n.", ["logging.*"], id="an imported module"),
        pytest.param(b"clogging\nsys\n.", ["*"], id="a module"),
        pytest.param(
            b"\x80\x04\x8c\x07logging\x8c\x09os.system\x93\x8c\x04true\x85R.", ["logging.*"], id="a dotted name"
        ),
        pytest.param(b"clogging\nos.system\n.", ["logging.*", "logging.os.system"], id="a dotted name in protocol 0"),
        pytest.param(b"c__builtin__\ngetattr\n.", ["reports.*"], id="getattr"),
        pytest.param(b"c__builtin__\neval\n(S'1'\ntR.", ["reports.*"], id="eval"),
        pytest.param(b"ccopy_reg\nadd_extension\n.", ["reports.*"], id="copyreg"),
        pytest.param(b"ccommands\ngetoutput\n.", ["commands.*"], id="a name of Python 2"),
        pytest.param(b"\x80\x04\x8c\x0b__builtin__\x8c\x03set\x93.", [], id="a name of Python 2 in protocol 4"),
        pytest.param(b"Pid\n.", ["*"], id="PERSID"),
        pytest.param(b"Vid\nQ.", ["*"], id="BINPERSID"),
        pytest.param(b"c_codecs\nencode\n(Vx\nVrot13\ntR.", ["*"], id="another codec"),
        pytest.param(f"c{HERE}\nfunction\n(tR.".encode(), [f"{HERE}.*", "*"], id="a function by a pattern"),
        pytest.param(f"c{HERE}\nPoint\n(N(dVtrusted\nI01\nstb.".encode(), [f"{HERE}.Point"], id="BUILD on a class"),
        pytest.param(
            f"c{HERE}\nColor\n(Vred\ntR(dV_value_\nVblue\nsb.".encode(), [f"{HERE}.Color"], id="BUILD on a member"
        ),
        pytest.param(
            f"c{HERE}\nfunction\n(N(dV__defaults__\n(I1\ntstb.".encode(), [f"{HERE}.function"], id="BUILD on a function"
        ),
        pytest.param(f"c{HERE}\nCALLABLE\n(tR.".encode(), [f"{HERE}.*", "*"], id="an instance to call, by a pattern"),
        pytest.param(f"c{HERE}\nCHANGEABLE\nI1\na.".encode(), [f"{HERE}.*"], id="an instance to change, by a pattern"),
        pytest.param(f"c{HERE}\nALIAS\n.".encode(), [f"{HERE}.ALIAS", f"{HERE}.SINGLETON"], id="another name"),
        pytest.param(f"c{HERE}\nUNNAMED\n.".encode(), [f"{HERE}.UNNAMED"], id="an instance that has no name"),
        pytest.param(f"c{HERE}\nELSEWHERE\n.".encode(), [f"{HERE}.ELSEWHERE"], id="an instance from elsewhere"),
        pytest.param(f"c{HERE}\nHERE\n.".encode(), [f"{HERE}.HERE"], id="a str"),
        pytest.param(f"c{HERE}\nPLAIN\n(I1\ne.".encode(), [f"{HERE}.PLAIN"], id="a list"),
        pytest.param(
            f"c{HERE}\nSINGLETON\n(N(dVvalue\nVchanged\nstb.".encode(), [f"{HERE}.SINGLETON"], id="BUILD on an instance"
        ),
        pytest.param(stack_global(HERE, "Outer.imported.system"), [f"{HERE}.*"], id="through a class to a module"),
        pytest.param(stack_global(HERE, "Outer.imported"), [f"{HERE}.*"], id="a module in a class"),
        pytest.param(stack_global(HERE, "Outer.Alias"), [f"{HERE}.*"], id="a class that is at home elsewhere"),
        pytest.param(stack_global(HERE, "Outer.Inner.__init__"), [f"{HERE}.*"], id="a method by a pattern"),
        pytest.param(stack_global(HERE, "SINGLETON.value"), [f"{HERE}.*"], id="an instance's attribute"),
        pytest.param(b"ccopy_reg\n_reconstructor\n(N(dV__defaults__\n(I1\ntstb.", [], id="BUILD on copyreg's"),
    ],
)
def test_what_is_refused(pickled: bytes, patterns: list[str]) -> None:
    assert refuses(pickled, *patterns)
    assert Point.trusted is False
    assert Color.RED.value == "red"
    assert SINGLETON.value == "shared"
    assert function.__defaults__ is None


def test_a_function_has_to_be_spelled_out() -> None:
    songs.clear()
    assert load(f"c{HERE}\nfunction\n(tR.".encode(), f"{HERE}.function") == "called"
    assert songs


@pytest.mark.parametrize("opcode", [b"\x82\xf0", b"\x83\xf0\x00", b"\x84\xf0\x00\x00\x00"])
def test_an_extension_is_refused_even_if_somebody_else_has_found_it(opcode: bytes) -> None:
    copyreg.add_extension(os.system.__module__, "system", 0xF0)
    try:
        # This puts it into the cache.
        assert pickle.loads(b"\x80\x02" + opcode + b".") is os.system
        assert refuses(b"\x80\x02" + opcode + b".", "posix.*", "posix.system", "*")
    finally:
        copyreg.remove_extension(os.system.__module__, "system", 0xF0)
        copyreg.clear_extension_cache()


def test_a_name_of_several_lines_is_no_pickle_of_its_own(locmem: BaseCache) -> None:
    """What a long stream names is imported ahead, by the pickle of its name."""
    name = b"sing\n(tRc" + __name__.encode() + b"\nPoint"
    crafted = b"\x80\x04\x8c\x0ctests.canary\x8c" + bytes([len(name)]) + name + b"\x93."
    options = {"compress_large_data": False}
    for _ in cache_memoize_iter("key", ["x" * 1_000_000] * 20, **options):
        pass
    count = int(locmem.get(make_cache_key("key")))
    last = make_cache_key(f"key-{count - 1}")
    locmem.set(last, [locmem.get(last)[0] + crafted])
    songs.clear()
    assert list(cache_memoize_iter("key", ["a miss"], **options)) == ["a miss"]
    assert not songs


@pytest.mark.parametrize("wrong", ["datetime.*", 5, [None], {"a": 1}, [b"datetime.*"], True], ids=repr)
@pytest.mark.parametrize("function", [cache_memoize, cache_memoize_iter], ids=lambda function: function.__name__)
def test_wrong_settings_are_told(locmem: BaseCache, wrong: Any, function: Any) -> None:
    function_options: dict[str, Any] = {"use_encryption": True}
    with override_settings(FASTBLETS_PICKLE_CLASSES=wrong), pytest.raises(ImproperlyConfigured, match="a list of"):
        list(function("key", lambda: [1], **function_options))


def test_an_older_pickle_under_encryption_is_no_way_around(locmem: BaseCache) -> None:
    locmem.set(make_cache_key("key", use_encryption=True), aes_encrypt(pickle.dumps(Canary(), 0)))
    songs.clear()
    with override_settings(FASTBLETS_PICKLE_CLASSES=["reports.*"]):
        assert cache_memoize("key", lambda: "a miss", use_encryption=True) == "a miss"
    assert not songs
