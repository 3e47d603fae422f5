"""Any value and any items: Djblets' entries to the byte, each library reading the other's."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db.models import QuerySet
from hypothesis import assume, example, given
from hypothesis import strategies as st

from tests import values
from tests.differential import declared_difference, examples, is_storable
from tests.parity import Action, Library, Parity

MODES = [
    pytest.param({"compress_large_data": compress, "use_encryption": encrypt}, id=f"{first}-{second}")
    for first, compress in (("plain", False), ("compressed", True))
    for second, encrypt in (("clear", False), ("encrypted", True))
]
Mode = dict[str, bool]

#: Where on the way down it was noticed differs, and Python words it after that.
RECURSION = r"(maximum recursion|Stack overflow|recursion limit).*"


def witness(value: Any) -> tuple[Any, bytes]:
    """A value and its pickle, which shows what its text doesn't: which of its parts are one object."""
    return value, pickle.dumps(value, protocol=0)


def store_and_read(value: Any, *, large: bool, **options: Any) -> Action:
    """Store a value; the result is what is read back then, so that a reader has the same to show as the writer."""

    def action(library: Library) -> Any:
        memoize = partial(library.backend.cache_memoize, "key", lambda: value, large_data=large, **options)
        memoize()
        return witness(memoize())

    return action


def store_and_read_items(items: list[Any], **options: Any) -> Action:
    def action(library: Library) -> Any:
        memoize = partial(library.backend.cache_memoize_iter, "key", lambda: iter(items), **options)
        list(memoize())
        return [witness(item) for item in memoize()]

    return action


@examples
@given(values.storable)
@example(values.shared_string())
@example(["\ud83d\ude00", "\\u0041", "\n\r\0\x1a", "\x80\xff\u2028"])
@example(values.recursive_tuple())
@example((values.recursive_tuple(),) * 2)
@example({"a": "a", "b": ["a"]})
@example([("a",), ("a",), ((),), ((), ())])
@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
@pytest.mark.parametrize("mode", MODES)
def test_any_value(both: Parity, mode: Mode, large: bool, value: Any) -> None:
    both.crosswise(store_and_read(value, large=large, **mode))


@examples
@given(st.lists(values.storable, max_size=5))
@pytest.mark.parametrize("mode", MODES)
def test_any_items(both: Parity, mode: Mode, items: list[Any]) -> None:
    # An empty entry has no chunks, for which Djblets asks the cache all the same.
    assume(items or any(mode.values()))
    both.crosswise(store_and_read_items(items, **mode))


@pytest.mark.parametrize("make", values.ONE_OF_EACH)
@pytest.mark.parametrize("mode", MODES)
def test_each_kind_of_value(both: Parity, mode: Mode, make: Callable[[], Any]) -> None:
    value = make()
    both.crosswise(store_and_read(value, large=True, **mode))
    both.crosswise(store_and_read(value, large=False, **mode))


@examples
@given(st.lists(values.anything, min_size=1, max_size=4))
@pytest.mark.parametrize("mode", MODES)
def test_items_that_may_not_be_storable(both: Parity, mode: Mode, items: list[Any]) -> None:
    def memoize(library: Library) -> Iterator[Any]:
        found: Iterator[Any] = library.backend.cache_memoize_iter("key", items, **mode)
        return found

    if declared_difference(items, large=True) is None:
        both(memoize)
    else:
        trial = both.run(both.fastblets, memoize)
        assert list(map(id, trial.value)) == list(map(id, items))
        assert not trial.stored
        assert [line for line in trial.logs if line.startswith("ERROR")]


@examples
@given(values.anything)
@pytest.mark.parametrize("encrypted", [False, True])
def test_a_small_value_that_may_not_be_storable(both: Parity, encrypted: bool, value: Any) -> None:
    trial = both(
        lambda library: library.backend.cache_memoize("key", lambda: value, use_encryption=encrypted),
        ignoring=RECURSION,
    )
    assert trial.value is value


@examples
@given(values.anything)
@pytest.mark.parametrize("mode", MODES)
def test_a_large_value_that_may_not_be_storable(both: Parity, mode: Mode, value: Any) -> None:
    assume(not is_storable(value))
    trial = both.run(
        both.fastblets,
        lambda library: library.backend.cache_memoize("key", lambda: value, large_data=True, **mode),
    )
    assert trial.value is value
    assert not trial.stored


def depth(value: Any) -> int:
    levels = 0
    while value:
        (value,) = value
        levels += 1
    return levels


@pytest.mark.parametrize("levels", [200, 100_000])
@pytest.mark.parametrize("encrypted", [False, True], ids=["clear", "encrypted"])
def test_nesting_that_is_too_deep_for_pickle_or_not(both: Parity, levels: int, encrypted: bool) -> None:
    value = values.nested(levels)

    def memoize(library: Library) -> list[int]:
        make = library.backend.cache_memoize
        return [depth(make("key", lambda: value, use_encryption=encrypted)) for _ in range(2)]

    trial = both(memoize, ignoring=RECURSION)
    assert trial.value == [levels] * 2


@pytest.mark.parametrize("mode", MODES)
def test_an_entry_that_cannot_be_unpickled_is_computed_again(both: Parity, mode: Mode) -> None:
    """As it is read as a whole first. Djblets has given out the items ahead by then, and stops there."""

    def memoize(library: Library) -> list[Any]:
        items = ["ahead", values.RaisingOnLoad(a=1), "behind"]
        make = library.backend.cache_memoize_iter
        return [list(map(str, make("key", items, **mode))) for _ in range(2)]

    theirs, ours = (both.run(library, memoize) for library in both.libraries)
    assert [len(items) for items in theirs.value] == [3, 1]
    assert [len(items) for items in ours.value] == [3, 3]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "query",
    [
        lambda groups: groups.values(),
        lambda groups: groups.values_list("name", flat=True),
        lambda groups: groups.values_list("id", "name", named=True),
        lambda groups: groups,
    ],
    ids=["values", "flat", "named", "models"],
)
def test_a_query(both: Parity, mode: Mode, query: Callable[[QuerySet[Group]], QuerySet[Any]]) -> None:
    Group.objects.bulk_create(Group(pk=number, name=f"группа {number}") for number in range(1, 30))

    def memoize(library: Library) -> Any:
        make = library.backend.cache_memoize_iter
        return list(make("key", lambda: query(Group.objects.order_by("pk")), **mode))

    both.crosswise(memoize)
