"""Instances of models: the codec's bytes and objects are those of CPython's pickle, which calls Django's code."""

from __future__ import annotations

import copy
import copyreg
import gc
import pickle
import random
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import date, datetime, timezone
from decimal import Decimal
from types import ModuleType
from typing import Any
from unittest.mock import patch
from uuid import UUID
from zoneinfo import ZoneInfo

import django
import pytest
from django.apps import apps
from django.apps.config import AppConfig
from django.contrib.auth.models import Group, User
from django.core.cache.backends.base import BaseCache
from django.db import models
from django.db.models import base
from django.db.models.options import Options
from django.db.models.signals import post_init, pre_init
from django.test import override_settings
from django.test.utils import isolate_apps
from django.utils.safestring import mark_safe
from hypothesis import given, settings
from hypothesis import strategies as st

from fastblets import _native
from fastblets.cache import backend
from fastblets.cache.classes import get_loads
from fastblets.cache.models import get_recipe
from tests.shop.models import Counted, Customer, Image, Made, Order, Reduced, Restored, Shown, Strange, Tag, Urgent
from tests.test_pickle_codec import FUZZ, check_written
from tests.test_pickle_instances import Plain, check_stream

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=timezone.utc)
VERSION = f"V{django.__version__}\n".encode()


class Wrapper:
    """Shows the attributes of a function, as decorators of some packages do."""

    def __init__(self, function: Any) -> None:
        self.__wrapped__ = function

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__wrapped__, name)

    def __call__(self, *args: Any) -> Any:
        return self.__wrapped__(*args)


def order(number: int = 1, **attributes: Any) -> Order:
    return Order(
        pk=number,
        number=f"N{number}",
        customer_id=7,
        reference=UUID(int=number),
        due=date(2026, 1, 2),
        **{"created": MOMENT, "total": Decimal(number) / 4, "note": "ключ é 🔑\n", **attributes},
    )


def loaded(model: Any, *values: Any) -> Any:
    """As a queryset makes it."""
    return model.from_db("default", [field.attname for field in model._meta.concrete_fields], values)


def with_related() -> Order:
    one = order()
    one.customer = loaded(Customer, 7, "Zürich", 3)
    return one


def recursive() -> Customer:
    """As a one-to-one relation is, whose ends know each other."""
    customer, one = loaded(Customer, 7, "Ærø", 3), order()
    one.customer = customer
    customer._state.fields_cache["order"] = one
    return customer


def with_state(**attributes: Any) -> Customer:
    customer = loaded(Customer, 7, "name", 3)
    vars(customer._state).update(attributes)
    return customer


def with_attributes(attributes: dict[Any, Any]) -> Customer:
    customer = loaded(Customer, 7, "name", 3)
    vars(customer).update(attributes)
    return customer


def without(name: str) -> Customer:
    customer = loaded(Customer, 7, "name", 3)
    vars(customer._state).pop(name, None)
    return customer


def sharing_state() -> list[Any]:
    one, other = loaded(Customer, 7, "name", 3), loaded(Customer, 8, "other", 4)
    other._state = one._state
    return [one, other]


def sharing_values() -> list[Any]:
    """What is one object, and what is met by two ways."""
    text, items = "".join(["sha", "red"]), ["".join(["it", "em"])]
    one, other = loaded(Customer, 7, text, 3), loaded(Customer, 8, text, items)
    return [vars(one), one, other, vars(other), items, [text], vars(one)]


def sharing_attributes() -> list[Any]:
    one, other = with_attributes({"text": "".join(["sha", "red"])}), Customer()
    other.__dict__ = one.__dict__
    return [one, other]


def sharing_related() -> list[Any]:
    one, other = with_related(), with_related()
    other._state.fields_cache = one._state.fields_cache
    return [one._state.fields_cache, one, other]


def unpickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value, protocol=0))


#: Written and read without calling Python.
NATIVE: dict[str, Callable[[], Any]] = {
    "unsaved": lambda: Customer(name="new"),
    "empty": Customer,
    "loaded": lambda: loaded(Customer, 7, "name", 3),
    "many fields": order,
    "many": lambda: [loaded(Customer, number, f"name {number}", number) for number in range(100)],
    "many with many fields": lambda: [order(number) for number in range(50)],
    "two models": lambda: [order(), loaded(Customer, 7, "name", 3), order(2), Customer()],
    "twice": lambda: [one := order(), one, {"one": one, "tuple": (one,)}],
    "related": with_related,
    "related in common": lambda: [customer := loaded(Customer, 7, "x", 1), order(1, customer=customer), customer],
    "recursive": recursive,
    "recursive twice": lambda: [recursive(), recursive()],
    "a proxy": lambda: [Shown(pk=1, name="x"), Customer(pk=1, name="x")],
    "by tables": lambda: Urgent(pk=1, order_ptr_id=1, hours=2, created=MOMENT, total=Decimal("1.5")),
    "abstract base and mixin": lambda: Tag(label="x"),
    "Django's own": lambda: [Group(pk=1, name="staff"), User(pk=1, username="é")],
    "deferred": lambda: Customer.from_db("default", ["id"], [7]),
    "a file": lambda: Image(pk=1, file="x.png"),
    "bytes": lambda: [Image(pk=1, data=b"\x00\xff"), Image(data=b"")],
    "unpickled": lambda: unpickled([order(), with_related()]),
    "deep-copied": lambda: copy.deepcopy([order(), with_related(), recursive()]),
    "copied": lambda: [one := order(), copy.copy(one)],
    "without related": lambda: without("fields_cache"),
    "without a database": lambda: without("db"),
    "an empty state": lambda: [customer := Customer(), vars(customer._state).clear()],
    "more attributes": lambda: with_attributes({"ключ": 1, "count": Decimal(1), "_private": [2], "": 3}),
    "prefetched": lambda: with_attributes({"_prefetched_objects_cache": {"orders": [order(), order(2)]}}),
    "another version in it": lambda: with_attributes({"_django_version": "1.0"}),
    "many attributes": lambda: with_attributes({f"attribute_{number}": number for number in range(200)}),
    "none left": lambda: [customer := with_attributes({}), [vars(customer).pop(name) for name in ("id", "name")]],
    "a state in common": sharing_state,
    "names in common": lambda: ["shop", "Customer", "id", "_state", Customer(), "db", "adding", django.__version__],
    "in a class's instance": lambda: Plain(order=order(), more=[Customer()]),
    "with texts of one character": lambda: ["a", Customer(name="a"), "é", Customer(name="é"), Customer(name="")],
    "long": lambda: Customer(name="x" * 100_000),
    "as a value": lambda: {"a": Customer(pk=1), 2: order(), (3, "x"): [Customer(pk=3)]},
}


def stripped(value: Any) -> Any:
    """Everything that there is to see, for objects that are equal if their keys are."""
    seen: dict[int, int] = {}

    def show(value: Any) -> Any:
        if id(value) in seen:
            return seen[id(value)]
        if isinstance(value, (models.Model, base.ModelState, Plain)):
            seen[id(value)] = len(seen)
            return type(value), [(name, show(item)) for name, item in vars(value).items()]
        if type(value) in (list, tuple):
            return type(value), [show(item) for item in value]
        if type(value) is dict:
            return [(show(key), show(item)) for key, item in value.items()]
        if type(value) is memoryview:
            return bytes(value)
        return type(value), repr(value) if type(value).__repr__ is not object.__repr__ else type(value)

    return show(value)


def check_read(data: bytes, *, fast: bool = True) -> None:
    read = _native.pickle_loads(data)
    assert (read is not None) == fast
    if read is None:
        (again,) = _native.read_items([data], False, None)
        read = (again,)
    expected = pickle.loads(data)
    assert stripped(read[0]) == stripped(expected)
    # With names that are in Django's code, and so one object with what is in it.
    names = ["id", "name", "_state", "db", "adding", "fields_cache", "_django_version", django.__version__]
    for protocol in (0, 2, 4):
        assert pickle.dumps([read[0], names], protocol) == pickle.dumps([expected, names], protocol)


def check(value: Any) -> None:
    check_read(check_written(value))


@pytest.mark.parametrize("make", NATIVE.values(), ids=list(NATIVE))
def test_native_instances(make: Callable[[], Any]) -> None:
    value = make()
    check(value)
    check([value, value])
    check({"key": value, "other": (make(), [value])})
    check([make(), value, make()])
    check_stream([value, value, "text", make(), [value]])


def test_all_of_them_at_once() -> None:
    values = [make() for make in NATIVE.values()]
    check(values)
    check_stream([*values, *values[::-1]] * 3)


def test_what_is_read_is_written_again() -> None:
    """The names of attributes are not those of the class then, and are in the memo by what they are."""
    for make in NATIVE.values():
        (read,) = _native.pickle_loads(pickle.dumps(make(), 0)) or [None]
        check([read, make(), "id", "name"])
        check([read, copy.deepcopy(read), copy.copy(read)])


def test_streams_share_no_instance() -> None:
    data = pickle.dumps(order(), 0)
    first, second = _native.read_items([data * 2], False, None)
    assert first is not second
    assert first._state is not second._state
    assert first._state.fields_cache is not second._state.fields_cache
    first.note = "changed"
    first._state.fields_cache["x"] = 1
    assert stripped(second) == stripped(unpickled(order()))


def test_as_what_is_in_a_set_or_a_key() -> None:
    """An instance is hashed by Python code: then it is pickle that reads it."""
    for value in ({Customer(pk=1)}, {Customer(pk=1): 2}, frozenset([Customer(pk=2)])):
        check_read(check_written(value), fast=False)


@pytest.mark.parametrize("depth", [10, 35, 60])
def test_depth(depth: int) -> None:
    customer = Customer(pk=0)
    for number in range(depth):
        other = Customer(pk=number)
        other._state.fields_cache["parent"] = customer
        customer = other
    check_stream([customer])
    assert (_native.pickle_dumps(customer) is not None) == (depth < 50)


# From a database


@pytest.fixture
def rows(db: None) -> list[Order]:
    customers = [Customer.objects.create(name=f"Customer {number}", score=number) for number in range(3)]
    for customer in customers:
        customer.tags.create(label="x")  # type: ignore[attr-defined]
    return [
        Order.objects.create(number=f"N{number}", customer=customers[number % 3], total=Decimal("1.25"), created=MOMENT)
        for number in range(9)
    ]


QUERIES: dict[str, Callable[[], Any]] = {
    "all": lambda: Order.objects.all(),
    "select_related": lambda: Order.objects.select_related("customer"),
    "defer": lambda: Order.objects.defer("note", "total"),
    "only": lambda: Order.objects.only("number").select_related(None),
    "annotate": lambda: Customer.objects.annotate(count=models.Count("orders"), last=models.Max("orders__created")),
    "proxy": lambda: Shown.objects.all(),
    "raw": lambda: Customer.objects.raw("SELECT id, name FROM shop_customer"),
    "reverse": lambda: Customer.objects.get(name="Customer 1").orders.all(),  # type: ignore[attr-defined]
}


@pytest.mark.parametrize("query", QUERIES.values(), ids=list(QUERIES))
def test_instances_of_a_query(rows: list[Order], query: Callable[[], Any]) -> None:
    check(list(query()))
    check_stream(list(query()))


def test_prefetched_by_querysets(rows: list[Order]) -> None:
    """A prefetched relation holds querysets, which Django pickles by a hook of its own."""
    value = list(Customer.objects.prefetch_related("orders", "tags"))
    assert value[0]._prefetched_objects_cache  # type: ignore[attr-defined]
    assert _native.pickle_dumps(value) is None
    assert dumped(value)[0] == dumped(value)[1]


def test_tables_of_tables(rows: list[Order]) -> None:
    Urgent.objects.create(customer_id=rows[0].customer_id, total=Decimal(1), created=MOMENT, hours=3)
    check(list(Urgent.objects.all()))
    urgent = Urgent.objects.select_related("order_ptr", "customer").get()
    assert urgent.order_ptr
    check([urgent, urgent.order_ptr])


@pytest.mark.skipif(django.VERSION < (6, 1), reason="Django has no modes of fetching")
def test_modes_of_fetching(rows: list[Order]) -> None:
    from django.db.models import fetch_modes

    for name in ("FETCH_ONE", "FETCH_PEERS", "FETCH_RAISE"):
        query = Order.objects.fetch_mode(getattr(fetch_modes, name)).select_related("customer")
        value = list(query)
        check(value)
        check([value, list(query), value[0]._state.peers == ()])
        read = _native.pickle_loads(pickle.dumps(value, 0))
        assert read is not None
        assert read[0][0]._state.fetch_mode is getattr(fetch_modes, name)


# What is pickle's


class StateOfMine(base.ModelState):
    pass


class Lazy:
    """An attribute of which everything is Python code."""

    @property
    def __class__(self) -> Any:  # type: ignore[override]
        return int


class PlainList(list):  # type: ignore[type-arg]
    pass


def with_another_state(state: Any) -> Customer:
    customer = Customer()
    customer._state = state
    return customer


def broken() -> Customer:
    customer = Customer()
    del customer._state
    return customer


OTHERS: dict[str, Callable[[], Any]] = {
    "memoryview": lambda: Image(pk=1, data=memoryview(b"\x00\xff")),
    "its own state": lambda: Counted(name="x"),
    "restored": lambda: Restored(name="x"),
    "reduced": lambda: Reduced(name="x"),
    "made": lambda: Made(name="x"),
    "strange": lambda: Strange(name="x"),
    "hook": lambda: with_attributes({"__getstate__": 1}),
    "hook of reduction": lambda: with_attributes({"__reduce_ex__": lambda protocol: (str, ("x",))}),
    "_meta": lambda: with_attributes({"_meta": Order._meta}),
    "names that are no texts": lambda: with_attributes({1: 2, (3,): 4}),
    "names of another class": lambda: with_attributes({type("Name", (str,), {})("x"): 4}),
    "another state": lambda: with_another_state(StateOfMine()),
    "no state": lambda: with_another_state(7),
    "a missing state": broken,
    "more in the state": lambda: with_state(mine=1),
    "names of the state's own": lambda: with_state(**{"".join(["a", "dding"]): False, "".join(["d", "b2"]): 1}),
    "related that are no dict": lambda: with_state(fields_cache=[]),
    "related in a dict of another class": lambda: with_state(fields_cache=type("D", (dict,), {})()),
    "lazy": lambda: with_attributes({"lazy": Lazy()}),
    "a list of another class": lambda: with_attributes({"list": PlainList([1])}),
    "values in common": sharing_values,
    "related objects in common": sharing_related,
    "a state's attributes in common": lambda: [vars((one := order())._state), one, order()],
    "attributes in common": sharing_attributes,
    "the state alone": lambda: [Customer(), base.ModelState()],
    "the class": lambda: [Customer, Customer()],
    "the function": lambda: [Customer(), base.model_unpickle],
    "a repeated hour": lambda: order(created=MOMENT.replace(fold=1)),
    "safe text": lambda: with_attributes({"text": mark_safe("x")}),
    "a queryset": lambda: [Customer(), Customer.objects.none()],
}


@pytest.mark.parametrize("make", OTHERS.values(), ids=list(OTHERS))
def test_what_is_the_c_picklers(make: Callable[[], Any]) -> None:
    value = make()
    assert _native.pickle_dumps(value) is None
    assert _native.pickle_dumps([order(), {"a": value}]) is None
    check_stream([order(), value, Customer(), [value, order()]])
    check_stream([value, value])


@pytest.mark.parametrize("name", ["its own state", "restored", "strange", "made", "memoryview"])
def test_what_is_read_by_pickle(name: str) -> None:
    check_read(pickle.dumps([order(), OTHERS[name](), order()], 0), fast=False)


def test_names_that_are_not_interned() -> None:
    """In the copy of a state, a name may be another object."""
    state = base.ModelState()
    vars(state).clear()
    vars(state).update({"".join(["d", "b"]): None, "".join(["add", "ing"]): True, "".join(["fields", "_cache"]): {}})
    check_stream([[with_another_state(state), "db", "adding", *vars(state)]])


def test_signals_are_not_sent() -> None:
    sent: list[Any] = []

    def receive(**_: Any) -> None:
        sent.append(1)

    pre_init.connect(receive, sender=Customer)
    post_init.connect(receive, sender=Customer)
    try:
        Customer()
        assert sent.pop() == sent.pop() == 1
        check([Customer.from_db("default", ["id"], [1])])
        sent.clear()
        assert _native.pickle_loads(pickle.dumps(unpickled(order()), 0))
        assert _native.pickle_loads(_native.pickle_dumps(unpickled(order())) or b"")
    finally:
        pre_init.disconnect(receive, sender=Customer)
        post_init.disconnect(receive, sender=Customer)
    assert sent == []


# Versions


@pytest.mark.parametrize("change", [lambda data: data.replace(VERSION, b"V1.0\n"), lambda data: forget_version(data)])
def test_another_version_warns(change: Callable[[bytes], bytes]) -> None:
    data = change(pickle.dumps([order(), with_related()], 0))
    assert _native.pickle_loads(data) is None
    with pytest.warns(RuntimeWarning) as expected:
        wanted = pickle.loads(data)
    with pytest.warns(RuntimeWarning) as warned:
        (read,) = _native.read_items([data], False, None)
    assert [str(warning.message) for warning in warned] == [str(warning.message) for warning in expected]
    assert stripped(read) == stripped(wanted)


def forget_version(data: bytes) -> bytes:
    return data.replace(b"V_django_version\n", b"V_another_name\n")


def test_the_version_of_now() -> None:
    with patch.object(django, "__version__", "9.9"):
        # As it was handed over, the version holds no longer.
        assert _native.pickle_dumps(order()) is None
        check_stream([order(), order()])
        data = pickle.dumps(order(), 0)
        assert b"V9.9\n" in data
        assert _native.pickle_loads(data) is None
    check(order())


def test_no_recipe_for_a_django_that_is_not_known() -> None:
    for version in ((4, 1), (6, 2), (7, 0)):
        with patch.object(django, "VERSION", (*version, 0, "final", 0)):
            assert get_recipe() is None
    assert get_recipe() is not None


@pytest.mark.parametrize(
    "change",
    [
        lambda: patch.object(base.Model, "__reduce__", lambda self: (str, ())),
        lambda: patch.object(base.ModelState, "__copy__", lambda self: self, create=True),
        lambda: patch.object(base, "model_unpickle", len),
        lambda: patch.object(base.Model, "__reduce__", Wrapper(base.Model.__reduce__)),
    ],
)
def test_no_recipe_for_code_of_somebody_else(change: Callable[[], AbstractContextManager[Any]]) -> None:
    with change():
        assert get_recipe() is None


def test_no_recipe_before_models_are_imported() -> None:
    with patch.dict("sys.modules"):
        import sys

        del sys.modules["django.db.models.base"]
        assert get_recipe() is None
        # Another thread has just begun to import it.
        sys.modules["django.db.models.base"] = ModuleType("django.db.models.base")
        assert get_recipe() is None


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Asia/Tokyo"])
def test_a_zone_before_a_model(zone: str) -> None:
    """Both are new to the walk. To have learned of the zone doesn't settle what the model is."""
    zoned = datetime(2026, 1, 2, tzinfo=ZoneInfo(zone))
    for value in ([zoned, with_related()], [with_related(), zoned], [zoned, Plain(), with_related(), zoned]):
        check_written(value)
        assert _native.pickle_dumps(value) is not None
    assert _native.pickle_dumps_all([[zoned], with_related(), [zoned]]) is not None


# What changes meanwhile


@contextmanager
def registered(cls: type) -> Iterator[None]:
    copyreg.pickle(cls, lambda value: (str, ("registered",)))  # type: ignore[arg-type,return-value]
    try:
        yield
    finally:
        del copyreg.dispatch_table[cls]


def _reduce(self: Any) -> Any:
    return str, ("changed",)


def _reduce_ex(self: Any, protocol: int) -> Any:
    return str, ("changed",)


def _make(model_id: Any) -> Any:
    return Group(name="made")


#: Changes of what Django does, by which other bytes are written.
CHANGES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "registered": lambda: registered(Customer),
    "a registered state": lambda: registered(base.ModelState),
    "__reduce__ of the model": lambda: patch.object(Customer, "__reduce__", _reduce),
    "__reduce_ex__ of the model": lambda: patch.object(Customer, "__reduce_ex__", _reduce_ex),
    "__getstate__ of the model": lambda: patch.object(Customer, "__getstate__", lambda self: {"changed": 1}),
    "__reduce__ of all": lambda: patch.object(base.Model, "__reduce__", _reduce),
    "__reduce_ex__ of all": lambda: patch.object(base.Model, "__reduce_ex__", _reduce_ex, create=True),
    "__getstate__ of all": lambda: patch.object(base.Model, "__getstate__", lambda self: {"changed": 1}),
    "__reduce__ of the state": lambda: patch.object(base.ModelState, "__reduce__", _reduce, create=True),
    "__copy__ of the state": lambda: patch.object(
        base.ModelState, "__copy__", lambda self: copy.deepcopy(StateOfMine()), create=True
    ),
    "__getstate__ of the state": lambda: patch.object(
        base.ModelState, "__getstate__", lambda self: {"adding": 5}, create=True
    ),
    "the copy": lambda: patch.object(base.copy, "copy", lambda value: StateOfMine()),
    "the module of copies": lambda: patch.object(base, "copy", Plain(copy=lambda value: StateOfMine())),
    "the name of the version": lambda: patch.object(base, "DJANGO_VERSION_PICKLE_KEY", "other"),
    "the label": lambda: patch.object(Customer._meta, "app_label", "auth"),
    "the name": lambda: patch.object(Customer._meta, "object_name", "Order"),
    "the options": lambda: patch.object(Customer, "_meta", Plain(app_label="auth", object_name="Group")),
    "others' options": lambda: patch.object(Customer, "_meta", Order._meta),
}


def dumped(value: Any) -> Any:
    """By the way that is taken, and by Python's alone."""

    def attempt(fast: bool) -> Any:
        was = _native.use_fast_paths(fast)
        try:
            writer = _native.LargeWriter(False, None, None)
            writer.write(value)
            writer.finish()
            return writer.last_chunk()
        except Exception as error:
            return type(error)
        finally:
            _native.use_fast_paths(was)

    return attempt(True), attempt(False)


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_what_writes_otherwise_is_seen(change: Callable[[], AbstractContextManager[Any]]) -> None:
    value = loaded(Customer, 7, "name", 3)
    check(value)
    usual, _ = dumped(value)
    with change():
        for item in (value, [1, value], [order(), value]):
            ours, theirs = dumped(item)
            assert ours == theirs
        assert dumped(value)[0] != usual
    check(value)


class OrderedApps(dict):  # type: ignore[type-arg]
    pass


def _get_model(label: str, name: str | None = None, require_ready: bool = True) -> Any:
    return Group


#: Changes of what Django makes of what is stored.
READ_CHANGES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "another model": lambda: patch.dict(apps.all_models["shop"], {"customer": Group}),
    "other models": lambda: patch.object(apps.get_app_config("shop"), "models", {"customer": Group}),
    "another app": lambda: patch.dict(apps.app_configs, {"shop": Plain(get_model=lambda *_, **__: Group)}),
    "apps in another dict": lambda: patch.object(
        apps, "app_configs", OrderedApps({**apps.app_configs, "shop": apps.get_app_config("auth")})
    ),
    "other apps": lambda: patch.object(apps, "app_configs", {}),
    "apps without the app": lambda: override_settings(
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes"]
    ),
    "apps that are not ready": lambda: patch.object(apps, "models_ready", False),
    "get_model": lambda: patch.object(apps, "get_model", _get_model),
    "get_model of the class": lambda: patch.object(type(apps), "get_model", lambda *_: Group),
    "get_model of the app": lambda: patch.object(apps.get_app_config("shop"), "get_model", _get_model),
    "get_model of apps": lambda: patch.object(AppConfig, "get_model", lambda *_, **__: Group),
    "get_app_config": lambda: patch.object(apps, "get_app_config", lambda _: apps.app_configs["auth"]),
    "the function": lambda: patch.object(base, "model_unpickle", _make),
    "the registry": lambda: patch.object(base, "apps", Plain(get_model=_get_model)),
    "__setstate__": lambda: patch.object(base.Model, "__setstate__", lambda self, state: vars(self).update(changed=1)),
    "__setstate__ of the model": lambda: patch.object(
        Customer, "__setstate__", lambda self, state: vars(self).update(changed=1)
    ),
    "__setstate__ of the state": lambda: patch.object(
        base.ModelState, "__setstate__", lambda self, state: vars(self).update(adding=5), create=True
    ),
}


@pytest.mark.parametrize("change", READ_CHANGES.values(), ids=list(READ_CHANGES))
def test_what_reads_otherwise_is_seen(change: Callable[[], AbstractContextManager[Any]]) -> None:
    data = pickle.dumps(loaded(Customer, 7, "name", 3), 0)
    stream = data * 3

    def attempt(fast: bool) -> Any:
        was = _native.use_fast_paths(fast)
        try:
            return [stripped(item) for item in _native.read_items([stream], False, None)]
        except Exception as error:
            return type(error), str(error)
        finally:
            _native.use_fast_paths(was)

    check_read(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with change():
            ours, theirs = attempt(True), attempt(False)
    assert ours == theirs
    assert ours != attempt(True)
    check_read(data)


def test_a_change_in_the_middle_of_a_stream() -> None:
    """What was found out for one item holds for that item alone."""
    stream = pickle.dumps([Customer(name="x" * 200)], 0) * 100_000
    items = _native.read_items([stream], False, None)
    found: list[type] = []
    for number in range(30):
        with patch.dict(apps.all_models["shop"], {"customer": Shown} if number % 10 == 5 else {}):
            found.append(type(next(items)[0]))
    assert found == [Shown if number % 10 == 5 else Customer for number in range(30)]

    writer = _native.LargeWriter(False, None, None)
    for number in range(30):
        if number == 10:
            copyreg.pickle(Customer, lambda value: (str, ("registered",)))  # type: ignore[arg-type,return-value]
        if number == 20:
            del copyreg.dispatch_table[Customer]
        writer.write([Customer(), order()])
    writer.finish()
    written = list(_native.read_items([writer.last_chunk() or b""], False, None))
    assert [type(item[0]) for item in written] == [Customer] * 10 + [str] * 10 + [Customer] * 10


@isolate_apps("tests.shop")
def test_a_model_that_is_not_registered() -> None:
    class Customer(models.Model):
        class Meta:
            app_label = "shop"

    # It is the registered one of that name that is read.
    value = [Customer(pk=1)]
    check_written(value)
    read = _native.pickle_loads(pickle.dumps(value, 0))
    assert read is not None
    assert type(read[0][0]) is apps.get_model("shop", "Customer")
    assert type(read[0][0]) is not Customer
    check_read(pickle.dumps(value, 0))


@isolate_apps("tests.shop")
def test_a_model_that_nobody_finds() -> None:
    class Nowhere(models.Model):
        class Meta:
            app_label = "shop"

    data = check_written(Nowhere(pk=1))
    for read in (pickle.loads, lambda data: list(_native.read_items([data], False, None))):
        with pytest.raises(LookupError, match="doesn't have a 'Nowhere' model"):
            read(data)


def test_names_in_other_letters() -> None:
    """Django doesn't care how the name of a model is written."""
    data = pickle.dumps([Customer(pk=1), order()], 0).replace(b"VCustomer\n", b"VcusTOMER\n")
    check_read(data)


def test_many_models() -> None:
    """More than are remembered."""
    with isolate_apps("tests.shop"):
        values = [
            type(
                f"Model{number}",
                (models.Model,),
                {"__module__": __name__, "Meta": type("Meta", (), {"app_label": "shop"})},
            )(pk=number)
            for number in range(100)
        ]
        check_stream(values[:10])
        ours, theirs = dumped(values)
        assert ours == theirs
        ours, theirs = dumped([values[:40], values[:40]])
        assert ours == theirs


def test_classes_are_let_go() -> None:
    with isolate_apps("tests.shop"):
        model = type("Gone", (models.Model,), {"__module__": __name__, "Meta": type("Meta", (), {"app_label": "shop"})})
        assert dumped([model(pk=1)])[0] == dumped([model(pk=1)])[1]
    count = len(gc.get_referrers(model))
    for _ in range(5):
        dumped([model(pk=1)])
    gc.collect()
    assert len(gc.get_referrers(model)) <= count


# Damage and malice

HEAD = b"cdjango.db.models.base\nmodel_unpickle\np0\n((Vshop\nVCustomer\ntt"
STATE = b"ccopy_reg\n_reconstructor\n(cdjango.db.models.base\nModelState\nc__builtin__\nobject\nNtR"

MALICE: dict[str, bytes] = {
    "no state": HEAD + b"R.",
    "no arguments": b"cdjango.db.models.base\nmodel_unpickle\n(tR.",
    "more arguments": b"cdjango.db.models.base\nmodel_unpickle\n((Vshop\nVCustomer\nttI1\nR.",
    "a class": b"cdjango.db.models.base\nmodel_unpickle\n(cdjango.db.models.base\nModelState\ntR.",
    "a label alone": b"cdjango.db.models.base\nmodel_unpickle\n((Vshop.Customer\nttR.",
    "numbers": b"cdjango.db.models.base\nmodel_unpickle\n((I1\nI2\nttR.",
    "no such app": b"cdjango.db.models.base\nmodel_unpickle\n((Vnowhere\nVCustomer\nttR.",
    "a state that is none": HEAD + b"RI1\nb.",
    "a list": HEAD + b"R(lb.",
    "nothing in it": HEAD + b"R(db.",
    "only the version": HEAD + b"R(dV_django_version\n" + VERSION + b"sb.",
    "no text": HEAD + b"R(dV_django_version\nI1\nsb.",
    "two states": HEAD + b"R(dV_django_version\n" + VERSION + b"sb(dV_django_version\n" + VERSION + b"sb.",
    "a hook": HEAD + b"R(dV_django_version\n" + VERSION + b"sV__setstate__\nI1\nsb(dVx\nI1\nsb.",
    "a hook alone": HEAD + b"R(dV_django_version\n" + VERSION + b"sV__setstate__\nI1\nsb.",
    "memoryviews": HEAD + b"R(dV_memoryview_attrs\n(l(Vdata\nVx\nta" + b"sV_django_version\n" + VERSION + b"sb.",
    "keys that are no names": HEAD + b"R(dI1\nI2\nsV_django_version\n" + VERSION + b"sb.",
    "a state that is shared": HEAD + b"R(dp9\nV_django_version\n" + VERSION + b"sbg9\n\x85.",
    "a shared state, later": b"(" + HEAD + b"R(dp1\nV_django_version\n" + VERSION + b"sbg1\nVx\nI1\nst.",
    "two of a state": b"(" + HEAD + b"R(dp1\nV_django_version\n" + VERSION + b"sbg0\n((Vshop\nVCustomer\nttRg1\nbt.",
    "made otherwise": STATE.replace(b"django.db.models.base\nModelState", b"tests.shop.models\nCustomer")
    + b"(dVx\nI1\nsb.",
    "a state that is dropped": STATE + b"0I1\n.",
    "a state in its place": STATE + b"p0\nVx\np0\n.",
    "many states that are dropped": b"(" + (STATE + b"0") * 50 + b"t.",
    "a state with related objects": STATE + b"(dVfields_cache\nI1\nsb0I1\n.",
}


@pytest.mark.parametrize("data", MALICE.values(), ids=list(MALICE))
@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_malice(data: bytes) -> None:
    def attempt(fast: bool) -> Any:
        was = _native.use_fast_paths(fast)
        try:
            return [stripped(item) for item in _native.read_items([data], False, None)]
        except Exception as error:
            return type(error)
        finally:
            _native.use_fast_paths(was)

    assert attempt(True) == attempt(False)


def _is_harmless(data: bytes) -> bool:
    allowed = {b"model_unpickle", b"ModelState", b"_reconstructor", b"object"}
    names = [line for line in data.split(b"\n") if b"c" in line]
    found = [data.split(b"\n")[place + 1] for place, line in enumerate(data.split(b"\n")[:-1]) if b"django.db" in line]
    return len(names) < 200 and all(name in allowed for name in found) and b"\x82" not in data


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_damage() -> None:
    samples = [Customer(pk=1, name="x"), [Customer(pk=number) for number in range(3)], recursive(), with_related()]
    rng = random.Random(14)
    pickles = [pickle.dumps(sample, 0) for sample in samples]
    same = 0
    for _ in range(FUZZ // 20):
        data = bytearray(rng.choice(pickles))
        for _ in range(rng.randint(1, 3)):
            place = rng.randrange(len(data))
            kind = rng.randrange(3)
            if kind == 0:
                data[place] = rng.choice(b"0123456789\n.()tRbspgVdN")
            elif kind == 1:
                del data[place : place + rng.randint(1, 4)]
            else:
                start = rng.randrange(len(data))
                data[place:place] = data[start : start + rng.randint(1, 30)]
        if not _is_harmless(bytes(data)):
            continue
        read = None
        try:
            read = _native.pickle_loads(bytes(data))
        except Exception:
            continue
        if read is not None:
            same += 1
            assert stripped(read[0]) == stripped(pickle.loads(bytes(data)))
    assert same > FUZZ // 1000


# Threads and the collector


def test_threads_that_change_it() -> None:
    """The walk lets no other thread in, so that what is written is whole."""
    value = [order(number) for number in range(200)]
    stop = threading.Event()

    def change() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            one = value[number % 200]
            one.note = str(number)
            one.extra = [number]  # type: ignore[attr-defined]
            del one.extra  # type: ignore[attr-defined]

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(30):
            data = _native.pickle_dumps(value)
            assert data is not None
            assert len(pickle.loads(data)) == 200
    finally:
        stop.set()
        thread.join()


def test_the_collector() -> None:
    data = pickle.dumps([recursive() for _ in range(200)], 0)
    threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for _ in range(5):
            read = _native.pickle_loads(data)
            assert read is not None
            assert _native.pickle_dumps(read[0]) == pickle.dumps(read[0], 0)
    finally:
        gc.set_threshold(*threshold)
    del read
    gc.collect()


# Mixed


@st.composite
def values(draw: st.DrawFn) -> Any:
    """Instances that hold each other, and all else that there is, in any order."""
    texts = st.text(max_size=5)
    shared: list[Any] = [draw(texts), Decimal(draw(st.integers(-99, 99))), MOMENT, date(2026, 1, 1), [1], {}, "name"]

    def instance(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        def make(model: Any, name: Any, related: Any, more: dict[str, Any], kind: int) -> Any:
            one = order(note=name, total=related) if model is Order else loaded(model, 1, name, 2)
            one._state.fields_cache.update(related=related)
            vars(one).update(more)
            shared.append(one)
            if kind == 0:
                return copy.deepcopy(one)
            if kind == 1:
                return unpickled(one)
            if kind == 2:
                del vars(one._state)["fields_cache"]
            if kind == 3:
                one.myself = [one, {"one": one}]
            return one

        return st.builds(
            make,
            st.sampled_from([Customer, Order, Shown]),
            st.one_of(texts, st.sampled_from(shared)),
            children,
            st.dictionaries(st.sampled_from(["a", "note", "ключ", "_django_version", "_x"]), children, max_size=3),
            st.integers(0, 8),
        )

    scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), texts, st.sampled_from(shared))
    return draw(
        st.recursive(
            scalars,
            lambda children: st.one_of(
                instance(children),
                st.lists(children, max_size=4),
                st.tuples(children, children),
                st.dictionaries(texts, children, max_size=3),
                st.builds(lambda child: [child, child, shared[-1]], children),
            ),
            max_leaves=25,
        )
    )


@given(values())
@settings(max_examples=max(50, FUZZ // 300), deadline=None)
def test_mixes(value: Any) -> None:
    check(value)


# Through the cache


@pytest.mark.parametrize("options", [{}, {"use_encryption": True}, {"compress_large_data": False}], ids=str)
@pytest.mark.parametrize("name", ["many fields", "related", "recursive", "deep-copied", "deferred", "a proxy"])
def test_beside_djblets(locmem: BaseCache, name: str, options: dict[str, Any]) -> None:
    djblets = pytest.importorskip("djblets.cache.backend")
    make = NATIVE[name]
    value = make()
    for writer, reader in ((djblets, backend), (backend, djblets)):
        key = f"models {writer.__name__}"
        writer.cache_memoize(key, lambda: value, large_data=True, **options)
        read = reader.cache_memoize(key, lambda: pytest.fail("it is there"), large_data=True, **options)
        assert stripped(read) == stripped(unpickled(value))
        list(writer.cache_memoize_iter(f"{key} items", lambda: iter([value, make()]), **options))
        again = list(reader.cache_memoize_iter(f"{key} items", lambda: pytest.fail("they are there"), **options))
        assert stripped(again) == stripped([unpickled(item) for item in (value, make())])


def test_small_and_encrypted(locmem: BaseCache) -> None:
    for _ in range(2):
        read = backend.cache_memoize("small", with_related, use_encryption=True)
        assert read.customer.name == "Zürich"


# Allow-list


@pytest.mark.parametrize(
    ("patterns", "allowed"),
    [
        (["django.db.models.base.model_unpickle", "django.db.models.base.ModelState"], True),
        (["django.db.models.base.model_unpickle"], False),
        (["django.db.models.base.*"], False),
        (["tests.shop.models.*"], False),
        ([], False),
    ],
)
def test_the_allow_list(patterns: list[str], allowed: bool) -> None:
    data = pickle.dumps([Customer(pk=1, name="x"), Customer(pk=2)], 0)
    if django.VERSION >= (6, 1):
        patterns = [*patterns, "django.db.models.fetch_modes.*"]
    with override_settings(FASTBLETS_PICKLE_CLASSES=patterns):
        from django.conf import settings as django_settings

        loads = get_loads(django_settings)
    for fast in (True, False):
        was = _native.use_fast_paths(fast)
        try:
            if allowed:
                (read,) = _native.read_items([data], False, None, loads)
                assert stripped(read) == stripped(pickle.loads(data))
            else:
                with pytest.raises(pickle.UnpicklingError, match="not allowed by FASTBLETS_PICKLE_CLASSES"):
                    list(_native.read_items([data], False, None, loads))
        finally:
            _native.use_fast_paths(was)


def test_the_recipe_is_of_djangos_code() -> None:
    """What the recipe says is what Django does, for the version that runs: a wrong fact would show in a wrong byte."""
    recipe = get_recipe()
    assert recipe is not None
    assert set(vars(with_state()._state)) <= {*recipe.state_attributes, *recipe.unpickled_attributes}
    assert recipe.version == django.__version__
    assert type(Customer._meta) is Options
