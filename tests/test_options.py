"""The options of one call: resolved once, from its arguments and the settings of that moment."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.core.cache import InvalidCacheBackendError, caches
from django.core.cache.backends.base import BaseCache
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from fastblets.cache import arguments, shortcuts
from fastblets.cache.backend import DEFAULT_EXPIRATION_TIME, cache_memoize, cache_memoize_iter, make_cache_key
from fastblets.cache.options import UNSET, Options
from tests.backends import stored_bytes
from tests.test_arguments import functions

pytestmark = pytest.mark.usefixtures("locmem")


def make(**given: Any) -> Options:
    arguments = {"expiration": UNSET, "compress": True, "use_encryption": None, "encryption_key": None, "seal": None}
    return Options(**{**arguments, **given})


@pytest.mark.parametrize(("compress", "expected"), [(True, True), (False, False), (1, True), (0, False), ("", False)])
def test_compression_is_on_or_off(compress: Any, expected: bool) -> None:
    assert make(compress=compress).compress is expected


@pytest.mark.parametrize(
    ("expiration", "seconds", "is_asked"),
    [
        (UNSET, DEFAULT_EXPIRATION_TIME, False),
        (None, None, False),
        (60, 60, False),
        (True, True, False),
        (timedelta(seconds=1.5), 2, False),
        (lambda value: value, DEFAULT_EXPIRATION_TIME, True),
    ],
    ids=["default", "for ever", "seconds", "bool", "timedelta", "function"],
)
def test_what_an_expiration_comes_to(expiration: Any, seconds: Any, is_asked: bool) -> None:
    options = make(expiration=expiration)
    assert options.get_timeout() == seconds
    assert (options.get_expiration is not None) == is_asked


@pytest.mark.parametrize(
    ("returned", "limited", "kept", "seconds"),
    [
        (60, False, True, 60),
        (None, False, True, None),
        (timedelta(minutes=1), False, True, 60),
        (0, False, False, 5),
        (-1, False, False, 5),
        (float("nan"), False, False, 5),
        (60, True, True, 5),
        (3, True, True, 3),
        (None, True, True, 5),
    ],
    ids=repr,
)
def test_what_a_function_decides(returned: Any, limited: bool, kept: bool, seconds: Any) -> None:
    asked = []
    options = make(expiration=lambda subject: asked.append(subject) or returned)
    with override_settings(CACHE_EXPIRATION_TIME=5):
        assert options.settle_expiration("subject", limited=limited) == kept
        assert options.get_timeout() == seconds
        # It is asked once.
        assert options.settle_expiration("another")
    assert asked == ["subject"]


def test_a_timedelta_that_is_over_keeps_nothing() -> None:
    for over in (timedelta(), timedelta(seconds=-1)):
        assert not make(expiration=over).settle_expiration("value")
    # A plain 0 is the cache's to judge, as in Djblets.
    assert make(expiration=0).settle_expiration("value")


def test_a_named_cache_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    get = shortcuts.get_named_cache
    for module in (arguments, shortcuts):
        monkeypatch.setattr(module, "get_named_cache", lambda alias: asked.append(alias) or get(alias))
    assert make(alias="default").cache is caches["default"]
    assert asked == ["default"]
    assert make().cache is caches["default"]
    assert asked == ["default"]
    with pytest.raises(InvalidCacheBackendError, match=r'^cache must be an alias of CACHES, not "nowhere"'):
        make(alias="nowhere")


@pytest.mark.parametrize("alias", [None, "default"])
def test_a_cache_that_cannot_be_had_is_asked_for_where_it_is_used(
    monkeypatch: pytest.MonkeyPatch, alias: str | None
) -> None:
    def fail(*args: Any) -> Any:
        raise OSError("no")

    with monkeypatch.context() as patch:
        patch.setattr("fastblets.cache.options.get_cache", fail)
        patch.setattr("fastblets.cache.arguments.get_named_cache", fail)
        options = make(alias=alias)
    assert options.cache is None
    assert options.max_key_bytes is None
    assert options.get_cache() is caches["default"]


@pytest.mark.parametrize("value", [False, True, "require"])
def test_a_seal_is_what_the_call_says_and_else_the_setting(value: Any) -> None:
    assert make().seal is False
    assert make(seal=value).seal == value
    with override_settings(FASTBLETS_SEAL=value):
        assert make().seal == value
        assert make(seal=False).seal is False


@pytest.mark.parametrize("value", [None, 0, "", "yes"])
def test_a_setting_for_seals_that_is_none(value: Any) -> None:
    with override_settings(FASTBLETS_SEAL=value), pytest.raises(ImproperlyConfigured, match=r"^FASTBLETS_SEAL must be"):
        make()
    if value is not None:
        with pytest.raises(ValueError, match=r"^seal must be"):
            make(seal=value)


def test_classes_are_limited_by_the_setting_of_that_moment() -> None:
    assert make().loads is None
    with override_settings(FASTBLETS_PICKLE_CLASSES=[]):
        assert make().loads is not None
    with override_settings(FASTBLETS_PICKLE_CLASSES="datetime"), pytest.raises(ImproperlyConfigured, match="list of"):
        make()


def test_older_keys_belong_to_the_default_key() -> None:
    with override_settings(FASTBLETS_ENCRYPTION_KEY_FALLBACKS=[b"k" * 16]):
        assert make().older_keys == ()
        assert make(use_encryption=True).older_keys == [b"k" * 16]
        assert make(use_encryption=True, encryption_key=b"o" * 16).older_keys == ()


@functions
@pytest.mark.parametrize("setting", ["1 day", timedelta(days=1)])
def test_a_setting_that_is_no_expiration(
    memoize: Callable[..., Any], setting: Any, locmem: BaseCache, caplog: pytest.LogCaptureFixture
) -> None:
    with override_settings(CACHE_EXPIRATION_TIME=setting):
        assert memoize("key", lambda: [1]) == [1]
    assert "CACHE_EXPIRATION_TIME must be a number of seconds or None, not of type" in caplog.text
    assert stored_bytes(locmem) == {}


@functions
def test_an_encryption_key_of_text(memoize: Callable[..., Any]) -> None:
    for call in (partial(memoize, "key", list), partial(make_cache_key, "key")):
        # Djblets' class of error.
        with pytest.raises(AssertionError, match=r'^encryption_key must be of type "bytes"'):
            call(use_encryption=True, encryption_key="text")


@pytest.mark.parametrize("size", [1, 15, 17, 33])
def test_a_key_of_a_wrong_length_caches_nothing(locmem: BaseCache, size: int, caplog: pytest.LogCaptureFixture) -> None:
    options: Options = {"use_encryption": True, "encryption_key": b"k" * size}
    assert cache_memoize("key", lambda: 1, **options) == 1
    assert cache_memoize("key", lambda: 2, large_data=True, **options) == 2
    assert list(cache_memoize_iter("key", [3, 4], **options)) == [3, 4]
    assert f"Invalid key size ({size * 8}) for AES" in caplog.text
    assert "k" * size not in caplog.text.replace("key", "") or size == 1


@pytest.mark.parametrize("key", ["0123456789abcdef", bytearray(16), 5], ids=repr)
def test_a_key_of_a_wrong_type_is_refused(locmem: BaseCache, key: Any) -> None:
    for call in (
        lambda: cache_memoize("key", lambda: 1, use_encryption=True, encryption_key=key),
        lambda: next(cache_memoize_iter("key", [1], use_encryption=True, encryption_key=key)),
        lambda: make_cache_key("key", use_encryption=True, encryption_key=key),
    ):
        with pytest.raises(AssertionError, match='must be of type "bytes"'):
            call()


@pytest.mark.parametrize(
    ("settings", "expiration", "expected"),
    [
        ({}, {}, DEFAULT_EXPIRATION_TIME),
        ({"CACHE_EXPIRATION_TIME": 60}, {}, 60),
        ({"CACHE_EXPIRATION_TIME": 60}, {"expiration": 5}, 5),
        ({"CACHE_EXPIRATION_TIME": 60}, {"expiration": None}, None),
    ],
    ids=repr,
)
def test_expiration_is_read_at_call_time(
    locmem: BaseCache, monkeypatch: pytest.MonkeyPatch, settings: Options, expiration: Options, expected: int | None
) -> None:
    timeouts = []
    for name in ("set", "set_many"):
        monkeypatch.setattr(locmem, name, lambda _, *args, timeout: timeouts.append(timeout))
    with override_settings(**settings):
        cache_memoize("small", lambda: 1, **expiration)
        list(cache_memoize_iter("large", ["x" * 3_000_000], compress_large_data=False, **expiration))
    assert timeouts == [expected] * 4
