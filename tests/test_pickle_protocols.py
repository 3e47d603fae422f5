"""Which items are stored in protocol 4, since protocol 0 refuses or changes them; they come back as they were."""

from __future__ import annotations

import copyreg
import os
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.cache.backends.base import BaseCache
from hypothesis import given
from hypothesis import strategies as st

from fastblets import _native
from fastblets.cache.backend import cache_memoize, cache_memoize_iter
from tests import values
from tests.differential import examples

PROTOCOL_4 = b"\x80\x04"
_KEY = bytes(range(16))

Make = Callable[[], Any]


@pytest.fixture(params=[True, False], ids=["fast", "slow"], autouse=True)
def paths(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whether plain values are pickled natively or, as all others, by CPython's pickler."""
    before = _native.use_fast_paths(request.param)
    yield
    _native.use_fast_paths(before)


def make_pickle(value: Any) -> bytes:
    """The pickle that is stored of a small encrypted value."""
    return _native.decrypt(_native.encrypt_value(value, _KEY, bytes(16), False, None), _KEY)


def by_djblets(value: Any) -> bytes | None:
    """The pickle that Djblets stores, if it is one that gives the value back."""
    try:
        pickled = pickle.dumps(value, protocol=0)
        read = pickle.loads(pickled)
    except Exception:
        return None
    return pickled if values.same(value, read) else None


@pytest.mark.parametrize("make", values.REFUSED + values.CHANGED)
def test_what_protocol_0_cannot_carry_is_written_in_protocol_4(make: Make) -> None:
    value = make()
    assert by_djblets(value) is None
    pickled = make_pickle(value)
    assert pickled.startswith(PROTOCOL_4)
    assert values.same(value, pickle.loads(pickled))


@pytest.mark.parametrize("make", values.ONE_OF_EACH + values.KEPT)
def test_all_else_is_written_as_djblets_does(make: Make) -> None:
    value = make()
    assert make_pickle(value) == pickle.dumps(value, protocol=0)


@pytest.mark.parametrize("make", values.KEPT)
def test_what_is_kept_comes_back(make: Make) -> None:
    value = make()
    pickled = make_pickle(value)
    assert values.same(pickle.loads(pickled), pickle.loads(pickle.dumps(value, protocol=0)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: values.SafeString("<b>"),
        lambda: values.DataSlots([1]),
        lambda: 10**5000,
        lambda: [values.datetime(2023, 11, 5, 1, 30, fold=1, tzinfo=values.NEW_YORK)],
        lambda: {"a": [values.Masked("secret"), values.Plain(a=1)]},
        lambda: values.SimpleLazyObject(lambda: values.SafeString("<b>")),
        lambda: [values.User(pk=1, username=values.SafeString("<b>"))],
        lambda: [values.SafeString("x" * 100_000), b"y" * 100_000, "z"],
    ],
)
def test_it_is_the_pickle_that_python_writes_in_protocol_4(make: Make) -> None:
    value = make()
    assert make_pickle(value) == pickle.dumps(value, protocol=4)


def test_a_stream_has_such_items_in_protocol_4_and_no_others() -> None:
    items = ["text", values.SafeString("<b>"), {"a": 1}, values.Plain(a=values.Masked("secret")), values.Plain(a=1)]
    written = _native.LargeWriter(False, None, None)
    for item in items:
        written.write(item)
    written.finish()
    protocols = [4 if index % 2 else 0 for index in range(5)]
    assert written.last_chunk() == b"".join(map(pickle.dumps, items, protocols))


def test_what_no_protocol_takes_has_the_error_that_djblets_logs() -> None:
    value = [values.SafeString("<b>"), lambda: None]
    with pytest.raises(Exception) as expected:
        pickle.dumps(value[1:], protocol=0)
    with pytest.raises(expected.type, match=r"pickle|local object"):
        make_pickle(value[1:])
    # The first object that protocol 0 would change ends the look at the item.
    with pytest.raises((AttributeError, pickle.PicklingError), match=r"pickle|local object"):
        make_pickle(value)


class Interrupted(Exception):
    """As what a signal handler raises when time is up."""


class Slow(values.Plain):
    pickled = 0

    def __reduce__(self) -> Any:
        Slow.pickled += 1
        raise Interrupted


def test_an_error_that_is_no_refusal_is_not_tried_again() -> None:
    Slow.pickled = 0
    with pytest.raises(Interrupted):
        make_pickle([Slow()])
    assert Slow.pickled == 1


class Counted(str):
    converted = 0

    def __str__(self) -> str:
        Counted.converted += 1
        return "".join(self)


def test_a_value_is_converted_once() -> None:
    Counted.converted = 0
    assert make_pickle(Counted("text")) == pickle.dumps(Counted("text"), protocol=0)
    # The model has converted its own.
    assert Counted.converted == 2


def test_what_copyreg_is_told_holds() -> None:
    def reduced(value: values.Masked) -> Any:
        return values.Text, ("".join(value),)

    items = [values.Masked("secret") for _ in range(2)]
    before = make_pickle(items)
    copyreg.pickle(values.Masked, reduced)  # type: ignore[arg-type]
    try:
        assert make_pickle(items) == pickle.dumps(items, protocol=0)
    finally:
        del copyreg.dispatch_table[values.Masked]
    assert make_pickle(items) == before == pickle.dumps(items, protocol=4)


def test_a_class_registered_between_two_items() -> None:
    class Local(values.Masked):
        pass

    writer = _native.LargeWriter(False, None, None)
    writer.write(values.Masked("secret"))
    copyreg.pickle(values.Masked, lambda value: (values.Text, ("".join(value),)))  # type: ignore[arg-type]
    try:
        writer.write(values.Masked("secret"))
    finally:
        del copyreg.dispatch_table[values.Masked]
    writer.finish()
    first = pickle.dumps(values.Masked("secret"), protocol=4)
    written = writer.last_chunk() or b""
    assert written.startswith(first + b"ctests.values\nText\n")


def test_nothing_is_held_of_an_item() -> None:
    import gc
    import weakref

    def write() -> list[weakref.ref[Any]]:
        kept = [values.Plain(a=values.Decimal(1)), values.Plain(a=values.SafeString("<b>"))]
        for value in kept:
            make_pickle([value, values.Decimal(1)])
        return list(map(weakref.ref, kept))

    kept = write()
    gc.collect()
    assert [reference() for reference in kept] == [None, None]


# Entries


def nested(value: Any) -> list[Any]:
    """The value, and others that hold it."""
    return [value, [value, value], {"key": (value,)}, values.Plain(value=value), values.DataSlots([value])]


FORMS = [
    pytest.param({"use_encryption": True}, id="small-encrypted"),
    *(
        pytest.param(
            {"large_data": True, "compress_large_data": compress, "use_encryption": encrypt}, id=f"{first}-{second}"
        )
        for first, compress in (("plain", False), ("compressed", True))
        for second, encrypt in (("clear", False), ("encrypted", True))
    ),
]


@pytest.fixture(params=[False, True, "require"], ids=["unsealed", "sealed", "required"])
def seal(request: pytest.FixtureRequest, settings: Any) -> None:
    settings.FASTBLETS_SEAL = request.param
    settings.FASTBLETS_SEAL_KEY = "a secret of more than 16 bytes"


def never() -> Any:
    pytest.fail("computed again")


@pytest.mark.usefixtures("seal")
@pytest.mark.django_db
@pytest.mark.parametrize("form", FORMS)
def test_each_comes_back_in_each_form(
    form: dict[str, bool], locmem: BaseCache, caplog: pytest.LogCaptureFixture
) -> None:
    for number, make in enumerate(values.REFUSED + values.CHANGED):
        for place, value in enumerate(nested(make())):
            key = [f"{number}", f"{place}"]
            assert cache_memoize(key, lambda value=value: value, **form) is value
            assert values.same(value, cache_memoize(key, never, **form))
    assert not caplog.records


@pytest.mark.usefixtures("seal")
@pytest.mark.django_db
@pytest.mark.parametrize("form", FORMS[1:])
def test_each_comes_back_among_other_items(
    form: dict[str, bool], locmem: BaseCache, caplog: pytest.LogCaptureFixture
) -> None:
    options = {name: value for name, value in form.items() if name != "large_data"}
    items = []
    for make in values.REFUSED + values.CHANGED:
        # The last one makes more than one chunk of them all.
        items += [*nested(make()), "text", values.Plain(a=1), os.urandom(40_000)]
    list(cache_memoize_iter("key", lambda: iter(items), **options))
    found = list(cache_memoize_iter("key", never, **options))
    assert len(found) == len(items)
    assert all(map(values.same, items, found))
    assert not caplog.records


@pytest.mark.django_db
def test_a_long_stream_is_read_ahead(locmem: BaseCache) -> None:
    """Such a stream is scanned as a whole before it is read, and imports what its pickles name."""
    items = [part for _ in range(20) for part in ("x" * 1_000_000, values.Masked("secret"), values.SafeString("<b>"))]
    list(cache_memoize_iter("key", lambda: iter(items)))
    assert all(map(values.same, items, cache_memoize_iter("key", never)))


# Random values of all these kinds


def _classes(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    lists = st.lists(children, max_size=3)
    keys = st.sampled_from(["a", "B", "c"]) | st.builds(values.Masked, st.sampled_from("ab"))
    dicts = st.dictionaries(keys, children, max_size=3)
    listings = (values.Listing, values.Doubled, values.Chained, values.Numbered)
    mappings = (values.Mapping, values.Hidden, values.Lowered, values.Itemless)
    tuples = (values.Tupling, tuple)
    return st.one_of(
        lists,
        dicts,
        *(lists.map(cls) for cls in listings),
        *(dicts.map(cls) for cls in mappings),
        *(lists.map(cls) for cls in tuples),
        # No two parts that they exchange are equal: to find that out of instances would run their own code.
        lists.map(lambda items: values.Reversed(enumerate(items))),
        children.map(lambda value: values.Crossed(value, [value])),
        *(st.builds(cls, children, children) for cls in (values.Point, values.Pair)),
        *(st.builds(cls, children) for cls in (values.Slots, values.DataSlots, values.MadeSlots, values.MadePlain)),
        *(st.builds(cls, children) for cls in (values.SlotsWithState, values.BelowSlots, values.FrozenSlots)),
        st.builds(lambda value: values.Plain(value=value), children),
        _shared(children),
    )


@st.composite
def _shared(draw: st.DrawFn, children: st.SearchStrategy[Any]) -> Any:
    """Objects that are held more than once, perhaps by themselves."""
    members = draw(st.lists(children, min_size=1, max_size=3))
    cls = draw(st.sampled_from([list, values.Listing, values.Doubled, values.Chained]))
    whole = cls(draw(st.lists(st.sampled_from(members), min_size=2, max_size=5)))
    if draw(st.booleans()):
        list.append(whole, whole)
    return whole


_texts = st.sampled_from(["", "a", "text", "\ud800", " \n"])
# Python has no repr() of the longest ints.
_numbers = st.integers(-3, 3) | st.booleans().map(lambda negative: -(10**5000) if negative else 10**5000)
_floats = st.sampled_from([0.0, -0.0, 1.0, 2.5, float("nan"), float("inf")])
_scalars = st.one_of(
    st.none() | st.booleans() | _numbers | _floats | _texts | st.binary(max_size=3),
    *(_texts.map(cls) for cls in (values.Text, values.Masked, values.Kept, values.Wrapped, values.SafeString)),
    *(_numbers.map(cls) for cls in (values.Whole, values.Percent)),
    *(_floats.map(cls) for cls in (values.Real, values.Rounded)),
    st.builds(values.Conjugated, _floats, _floats),
    *(st.sampled_from([b"", b"a", b" a "]).map(cls) for cls in (values.Raw, values.Stripped)),
    st.builds(values.Made, _texts, _texts),
    st.builds(lambda number: values.FalseState(number=number), st.integers(0, 1)),
    st.builds(lambda fold: values.datetime(2023, 11, 5, 1, 30, fold=fold, tzinfo=values.NEW_YORK), st.integers(0, 1)),
    st.builds(lambda fold: values.time(1, 30, fold=fold), st.integers(0, 1)),
)
#: Values in which anything may be what protocol 0 can't carry.
mixed = st.recursive(_scalars, _classes, max_leaves=10)


@examples
@given(mixed)
def test_any_value(value: Any) -> None:
    try:
        pickled = make_pickle(value)
    except RecursionError:
        # One that holds itself as its own argument: no protocol takes it.
        with pytest.raises(RecursionError):
            pickle.dumps(value, protocol=4)
        return
    expected = by_djblets(value)
    if expected is None:
        assert pickled.startswith(PROTOCOL_4)
        assert values.same(value, pickle.loads(pickled))
    else:
        assert pickled == expected


@examples
@given(st.lists(mixed, max_size=5))
def test_any_items(items: list[Any]) -> None:
    """What is kept from one item to the next changes nothing."""
    writer = _native.LargeWriter(False, None, None)
    stored, expected = [], b""
    for item in items:
        try:
            expected += make_pickle(item)
        except RecursionError:
            with pytest.raises(RecursionError):
                writer.write(item)
        else:
            writer.write(item)
            stored.append(item)
    writer.finish()
    chunks = [*writer.take_full_chunks(), *filter(None, [writer.last_chunk()])]
    assert b"".join(chunks) == expected
    found = list(_native.read_items(chunks, False, None))
    assert len(found) == len(stored)
    assert all(map(values.same, stored, found))
