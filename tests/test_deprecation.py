"""Options by position: they work, with a warning, and go where Djblets puts them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.cache.backends.base import BaseCache

from fastblets.cache.backend import cache_memoize, cache_memoize_iter, make_cache_key
from fastblets.deprecation import RemovedInDjblets80Warning, keyword_only


@keyword_only
def function(first: Any, second: Any = 2, *, third: Any = 3, fourth: Any = None) -> tuple[Any, ...]:
    """A function."""
    return first, second, third, fourth


@keyword_only
def generate(first: Any, *, second: Any = 2) -> Iterator[Any]:
    yield first
    yield second


class Base:
    def __init__(self, key: str) -> None:
        self.key = key


class Derived(Base):
    @keyword_only
    def __init__(self, key: str, *, size: int = 1) -> None:
        super().__init__(key)
        self.size = size


@pytest.mark.filterwarnings("error")
def test_by_keyword_nothing_is_said() -> None:
    assert function(1) == (1, 2, 3, None)
    assert function(1, 5) == (1, 5, 3, None)
    assert function(fourth=4, first=1) == (1, 2, 3, 4)
    assert list(generate(1, second=5)) == [1, 5]
    assert (Derived("key").size, Derived("key", size=2).size) == (1, 2)


@pytest.mark.parametrize(
    ("args", "kwargs", "expected", "moved"),
    [
        ((1, 2, 5), {}, (1, 2, 5, None), "third"),
        ((1, 2, 5, 6), {}, (1, 2, 5, 6), "third, fourth"),
        # The values go to the parameters that have none by keyword.
        ((1, 2, 6), {"third": 5}, (1, 2, 5, 6), "fourth"),
        ((2, 5, 6), {"first": 1}, (1, 2, 5, 6), "third, fourth"),
    ],
)
def test_by_position_it_is_said_which(args: Any, kwargs: Any, expected: Any, moved: str) -> None:
    with pytest.warns(RemovedInDjblets80Warning, match=rf"^function\(\) was given {moved} by position") as caught:
        assert function(*args, **kwargs) == expected
    # The caller's line.
    assert caught[0].filename == __file__


def test_methods_and_generators_too() -> None:
    with pytest.warns(RemovedInDjblets80Warning, match="size"):
        derived = Derived("key", 5)  # type: ignore[misc]
    assert (derived.key, derived.size) == ("key", 5)
    with pytest.warns(RemovedInDjblets80Warning, match="second"):
        assert list(generate(1, 5)) == [1, 5]  # type: ignore[misc]


def test_what_cannot_be_called_so() -> None:
    with pytest.raises(TypeError, match=r"function\(\) takes 4 arguments, but 5 were given"):
        function(1, 2, 3, 4, 5)  # type: ignore[misc]
    with pytest.raises(TypeError, match=r"function\(\) takes 4 arguments, but 5 were given"):
        function(1, 2, 3, 4, third=5)  # type: ignore[misc]
    with pytest.raises(TypeError, match=r"function\(\) missing 1 required positional argument: 'first'"):
        function()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"function\(\) got an unexpected keyword argument 'fifth'"):
        function(1, fifth=5)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"function\(\) got multiple values for argument 'first'"):
        function(1, first=5)  # type: ignore[misc]


def test_it_looks_like_the_function() -> None:
    assert function.__name__ == "function"
    assert function.__doc__ == "A function."
    kinds = [parameter.kind for parameter in inspect.signature(function).parameters.values()]
    assert kinds == [inspect.Parameter.POSITIONAL_OR_KEYWORD] * 2 + [inspect.Parameter.KEYWORD_ONLY] * 2
    assert inspect.isfunction(function)


def test_options_by_position_warn_and_work(locmem: BaseCache) -> None:
    with pytest.warns(DeprecationWarning, match="expiration, force_overwrite"):
        assert cache_memoize("key", lambda: 1, 60, True) == 1
    with pytest.warns(DeprecationWarning, match="expiration"):
        assert list(cache_memoize_iter("items", [1], 60)) == [1]
    with pytest.warns(DeprecationWarning, match="use_encryption"):
        assert make_cache_key("key", True) == make_cache_key("key", use_encryption=True)
    with pytest.warns(DeprecationWarning, match="use_generator"):
        assert cache_memoize("key", lambda: 2, use_generator=True) == 1
    with pytest.raises(TypeError):
        make_cache_key("key", True, b"key", 5)
