"""For how long entries are kept: seconds, a timedelta, or a function of the value or the number of items."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.core.cache.backends.base import BaseCache
from django.test import override_settings

from fastblets.cache.backend import cache_memoize, cache_memoize_iter, make_cache_key
from fastblets.cache.options import DEFAULT_EXPIRATION_TIME
from fastblets.protect.locks import CacheLock
from tests.backends import stored_bytes
from tests.vectors.cases import noise

pytestmark = pytest.mark.django_db

HOUR = 60 * 60


def iterate(key: Any, make: Callable[[], Any], **options: Any) -> list[Any]:
    return list(cache_memoize_iter(key, make, **options))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "small": cache_memoize,
    "encrypted": partial(cache_memoize, use_encryption=True),
    "locked": lambda *args, **options: cache_memoize(*args, lock=CacheLock(), **options),
    "large": partial(cache_memoize, large_data=True),
    "iter": iterate,
}
functions = pytest.mark.parametrize("memoize", FUNCTIONS.values(), ids=FUNCTIONS)


def never() -> Any:
    pytest.fail("computed again")


def make() -> list[int]:
    return [1, 2]


@pytest.fixture
def timeouts(locmem: BaseCache, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The timeout with which each key was stored last. Locks are left out."""
    found: dict[str, Any] = {}

    def spy(name: str) -> None:
        real = getattr(type(locmem), name)

        def call(self: Any, key: str, value: Any, timeout: Any = "default", **more: Any) -> Any:
            if "_lock_" not in key:
                found[key.rpartition(":")[2]] = timeout
            return real(self, key, value, timeout=timeout, **more)

        monkeypatch.setattr(type(locmem), name, call)

    spy("set")
    return found


@functions
@pytest.mark.parametrize(
    ("expiration", "seconds"),
    [
        (60, 60),
        (None, None),
        (timedelta(hours=1), HOUR),
        (timedelta(seconds=60, milliseconds=1), 61),
        (timedelta(microseconds=1), 1),
        (lambda _: 60, 60),
        (lambda _: 60.5, 60.5),
        (lambda _: timedelta(hours=1), HOUR),
    ],
    ids=["int", "None", "hour", "rounded", "tiny", "to int", "to float", "to timedelta"],
)
def test_each_kind(memoize: Callable[..., Any], expiration: Any, seconds: Any, timeouts: dict[str, Any]) -> None:
    assert memoize("key", make, expiration=expiration) == [1, 2]
    assert memoize("key", never, expiration=expiration) == [1, 2]
    assert set(timeouts.values()) <= {seconds, DEFAULT_EXPIRATION_TIME}
    main = [timeout for key, timeout in timeouts.items() if not key.endswith("-0")]
    assert main == [seconds]


@functions
def test_a_function_gets_the_value_or_the_number_of_items(memoize: Callable[..., Any], locmem: BaseCache) -> None:
    given: list[Any] = []
    memoize("key", make, expiration=lambda subject: given.append(subject) or 60)
    assert given == [2 if memoize is iterate else [1, 2]]
    # Nothing is computed by a hit.
    memoize("key", never, expiration=lambda subject: given.append(subject) or 60)
    assert len(given) == 1


@functions
@pytest.mark.parametrize(
    "expiration",
    [lambda _: 0, lambda _: -1, lambda _: float("nan"), lambda _: timedelta(), timedelta(), timedelta(seconds=-1)],
    ids=["0", "-1", "nan", "to timedelta", "timedelta", "negative"],
)
def test_nothing_is_stored_and_what_is_there_is_removed(
    memoize: Callable[..., Any], expiration: Any, locmem: BaseCache
) -> None:
    assert memoize("key", make, expiration=expiration) == [1, 2]
    assert stored_bytes(locmem) == {}
    memoize("key", lambda: [3])
    assert memoize("key", make, expiration=expiration, force_overwrite=True) == [1, 2]
    assert memoize("key", lambda: [4]) == [4]


@functions
def test_a_plain_0_is_given_to_the_cache(memoize: Callable[..., Any], timeouts: dict[str, Any]) -> None:
    memoize("key", make, expiration=0)
    assert set(timeouts.values()) == {0}


@functions
@pytest.mark.parametrize(
    ("expiration", "error"),
    [(lambda _: "60", TypeError), (lambda _: 1 // 0, ZeroDivisionError)],
    ids=["wrong type", "raises"],
)
def test_errors_of_a_function_reach_the_caller(
    memoize: Callable[..., Any], expiration: Any, error: type[Exception], locmem: BaseCache
) -> None:
    with pytest.raises(error):
        memoize("key", make, expiration=expiration)
    assert not [key for key in stored_bytes(locmem) if not key.endswith("-0")]


def test_the_error_says_what_is_wrong(locmem: BaseCache) -> None:
    expected = (
        r"^What the function passed as expiration returns must be a number of seconds, a timedelta or None, not of "
        r"type str\.$"
    )
    with pytest.raises(TypeError, match=expected):
        cache_memoize("key", make, expiration=lambda _: "60")  # type: ignore[arg-type, return-value]


def test_all_items_arrive_before_the_error(locmem: BaseCache) -> None:
    items = cache_memoize_iter("key", make, expiration=lambda _: 1 // 0)
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(ZeroDivisionError):
        next(items)


@pytest.mark.parametrize("setting", [100, None])
def test_an_iterable_is_not_kept_longer_than_its_first_chunks(timeouts: dict[str, Any], setting: Any) -> None:
    chunks = [noise(1_000_000)] * 3
    with override_settings(CACHE_EXPIRATION_TIME=setting):
        for expiration, expected in [(60, 60), (HOUR, setting or HOUR), (None, setting)]:
            timeouts.clear()
            options: dict[str, Any] = {"compress_large_data": False, "force_overwrite": True}
            assert len(iterate("key", lambda: chunks, expiration=lambda _, e=expiration: e, **options)) == 3
            assert timeouts["key"] == expected
            assert timeouts["key-0"] == setting


def test_one_large_value_is(timeouts: dict[str, Any]) -> None:
    with override_settings(CACHE_EXPIRATION_TIME=100):
        cache_memoize(
            "key", lambda: noise(2_500_000), large_data=True, compress_large_data=False, expiration=lambda _: HOUR
        )
    assert timeouts == dict.fromkeys(["key", "key-0", "key-1", "key-2"], HOUR)


def test_an_abandoned_iterable_asks_no_function(locmem: BaseCache) -> None:
    items = cache_memoize_iter("key", make, expiration=lambda _: pytest.fail("asked"))
    next(items)
    items.close()
    assert stored_bytes(locmem) == {}


def test_an_iterable_that_cannot_be_stored_asks_no_function(locmem: BaseCache) -> None:
    def unstorable() -> Iterator[Any]:
        yield lambda: 1

    assert len(iterate("key", unstorable, expiration=lambda _: pytest.fail("asked"))) == 1


@functions
def test_on_servers(memoize: Callable[..., Any], cache_backend: BaseCache) -> None:
    for expiration in (timedelta(minutes=1), lambda _: timedelta(minutes=1), lambda _: None):
        assert memoize("key", make, expiration=expiration, force_overwrite=True) == [1, 2]
        assert memoize("key", never, expiration=expiration) == [1, 2]
    assert memoize("key", make, expiration=lambda _: 0, force_overwrite=True) == [1, 2]
    assert make_cache_key("key") not in cache_backend
    assert memoize("key", lambda: [3], expiration=lambda _: 0) == [3]
    assert memoize("key", lambda: [4], expiration=lambda _: 0) == [4]


def test_short_for_none_and_only_if_complete(timeouts: dict[str, Any]) -> None:
    def expiration(user: str | None) -> int:
        return 60 if user is None else HOUR

    assert cache_memoize("found", lambda: "ann", expiration=expiration) == "ann"
    assert cache_memoize("none", lambda: None, expiration=expiration) is None
    assert timeouts == {"found": HOUR, "none": 60}
