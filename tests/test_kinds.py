"""Keys on memcached, through backends that forward to it: short enough in bytes, and otherwise as everywhere."""

from __future__ import annotations

import enum
import gc
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import MagicMock, patch
from urllib.parse import quote

import pytest
from django.core.cache import CacheKeyWarning, caches
from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.cache.backends.memcached import PyMemcacheCache

from fastblets.cache.backend import cache_memoize, cache_memoize_iter, make_cache_key
from fastblets.cache.kinds import get_max_key_bytes, unwrap
from fastblets.cache.synchronizer import GenerationSynchronizer
from fastblets.diagnostics.forget import forget_entry
from fastblets.diagnostics.inspector import inspect_entry
from fastblets.protect.locks import CacheLock
from tests.backends import FORWARDED, use_cache
from tools.servers import Memcached

#: Values of three chunks.
LARGE = ["x" * 1_000_000] * 3

LONG_KEYS: dict[str, Any] = {
    "ascii": "x" * 300,
    "ascii that just fits": "x" * 240,
    "emoji": "😀" * 62,
    "cyrillic": "ключ-" * 26,
    "parts": ["ключ", "😀" * 50, "x" * 50],
    "surrogate": "a\ud800b",
    "surrogates": "\ud800" * 60,
    "controls": "\n " * 40,
    "short": "short",
}


#: Keys of every length about the limits, in characters of one byte to four.
ALL_LENGTHS = [character * count for character in "xя鍵😀" for count in range(40, 260)]


def quoted(key: str, prefix: str, version: int) -> str:
    return quote(f"{prefix}:{version}:{key}")


def doubled(key: str, prefix: str, version: int) -> str:
    return f"{prefix}:{version}:{key}{key}"


CONFIGS: dict[str, dict[str, Any]] = {
    "bare": {},
    "prefix": {"KEY_PREFIX": "a-project"},
    "long prefix": {"KEY_PREFIX": "p" * 120, "VERSION": 12},
    "longest prefix": {"KEY_PREFIX": "p" * 183},
    "unicode prefix": {"KEY_PREFIX": "проект"},
    "function": {"KEY_FUNCTION": doubled, "KEY_PREFIX": "twice"},
}


class Delegating:
    """A backend that forwards all that it hasn't itself, and is no BaseCache."""

    def __init__(self, location: str, params: dict[str, Any]) -> None:
        self._alias = location

    def __getattr__(self, name: str) -> Any:
        return getattr(caches[self._alias], name)


class Composed(BaseCache):
    """A backend that keeps another one, and names each method."""

    def __init__(self, location: str, params: dict[str, Any]) -> None:
        super().__init__(params)
        self._inner = caches[location]

    def get(self, *args: Any, **kwargs: Any) -> Any:
        return self._inner.get(*args, **kwargs)

    def set(self, *args: Any, **kwargs: Any) -> Any:
        return self._inner.set(*args, **kwargs)

    def add(self, *args: Any, **kwargs: Any) -> Any:
        return self._inner.add(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> Any:
        return self._inner.delete(*args, **kwargs)

    def touch(self, *args: Any, **kwargs: Any) -> Any:
        return self._inner.touch(*args, **kwargs)

    def clear(self) -> None:
        self._inner.clear()


class Twice(Composed):
    """Forwards to one that forwards."""

    def __init__(self, location: str, params: dict[str, Any]) -> None:
        super().__init__("djblets", params)


FORWARDING = {
    "": None,
    "djblets": "djblets.cache.forwarding_backend.ForwardingCacheBackend",
    "delegating": f"{__name__}.Delegating",
    "composed": f"{__name__}.Composed",
    "twice": f"{__name__}.Twice",
}


@contextmanager
def on_memcached(address: str, client: str, forwarding: str = "", **config: Any) -> Iterator[BaseCache]:
    """Django's default cache, on a memcached, perhaps behind another backend."""
    pytest.importorskip({"PyMemcacheCache": "pymemcache", "PyLibMCCache": "pylibmc"}[client])
    settings = {"BACKEND": f"django.core.cache.backends.memcached.{client}", "LOCATION": address, **config}
    backend = FORWARDING[forwarding]
    if backend is None:
        with use_cache(settings) as cache:
            yield cache
        return
    if "djblets" in backend or forwarding == "twice":
        pytest.importorskip("djblets")
    from django.test import override_settings

    outer = {"BACKEND": backend, "LOCATION": FORWARDED}
    more = {"djblets": {"BACKEND": FORWARDING["djblets"], "LOCATION": FORWARDED}}
    with override_settings(CACHES={"default": outer, FORWARDED: settings, **more}):
        caches[FORWARDED].clear()
        yield caches["default"]


CLIENTS = ["PyMemcacheCache", "PyLibMCCache"]


@pytest.fixture(autouse=True)
def database(db: None) -> None:
    """For the Site."""


def never() -> Any:
    pytest.fail("computed again")


def assert_is_cached(key: Any, **options: Any) -> None:
    """It is stored once, small, large and iterable, with locks, and can be looked at and removed."""
    for memoize in (
        lambda make: cache_memoize([*parts_of(key), "small"], make, lock=CacheLock(), **options),
        lambda make: cache_memoize(key, make, large_data=True, lock=CacheLock([*parts_of(key), "lock"]), **options),
        lambda make: list(cache_memoize_iter([*parts_of(key), "iter"], make, lock=CacheLock(), **options)),
    ):
        assert memoize(lambda: LARGE[:1]) == LARGE[:1]
        assert memoize(never) == LARGE[:1]
    options = {name: value for name, value in options.items() if name == "use_encryption"}
    assert inspect_entry(key, **options).state == "whole"
    assert inspect_entry(key, **options).full_key == make_cache_key(key, **options)
    assert forget_entry(key, **options).main
    synchronizer = GenerationSynchronizer(key)
    other = GenerationSynchronizer(key)
    assert not other.is_expired()
    synchronizer.mark_updated()
    assert other.is_expired()


def parts_of(key: Any) -> Any:
    return [key] if isinstance(key, str) else key


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("config", CONFIGS)
def test_memcached_takes_every_key(
    memcached: Memcached, caplog: pytest.LogCaptureFixture, client: str, config: str
) -> None:
    with on_memcached(memcached.address, client, **CONFIGS[config]), caplog.at_level(logging.WARNING):
        for key in LONG_KEYS.values():
            assert_is_cached(key)
        assert_is_cached(LONG_KEYS["emoji"], use_encryption=True)
    assert [record.getMessage() for record in caplog.records] == []


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("forwarding", list(FORWARDING)[1:])
def test_memcached_behind_another_backend_takes_every_key(
    memcached: Memcached, caplog: pytest.LogCaptureFixture, client: str, forwarding: str
) -> None:
    with on_memcached(memcached.address, client, forwarding, KEY_PREFIX="a-project") as cache:
        assert type(unwrap(cache)).__name__ == client
        assert get_max_key_bytes(cache) == 238
        with caplog.at_level(logging.WARNING):
            for name in ("ascii", "emoji", "cyrillic", "surrogate"):
                assert cache_memoize(LONG_KEYS[name], lambda: 1, lock=CacheLock()) == 1
                assert cache_memoize(LONG_KEYS[name], never) == 1
    assert [record.getMessage() for record in caplog.records] == []


@pytest.mark.parametrize("client", CLIENTS)
def test_keys_of_every_length(memcached: Memcached, client: str) -> None:
    with on_memcached(memcached.address, client, KEY_PREFIX="a-project") as cache:
        for key in ALL_LENGTHS:
            cache.set(make_cache_key(key), key)
        full_keys = [make_cache_key(key) for key in ALL_LENGTHS]
        assert len(set(full_keys)) == len(ALL_LENGTHS)
        assert [cache.get(full_key) for full_key in full_keys] == ALL_LENGTHS


def test_only_keys_that_memcached_refuses_are_others(memcached: Memcached, locmem: BaseCache) -> None:
    expected = {key: make_cache_key(key) for key in ALL_LENGTHS}
    with on_memcached(memcached.address, "PyMemcacheCache", KEY_PREFIX="a-project") as cache:
        changed = 0
        for key, full_key in expected.items():
            fits = len(cache.make_key(full_key).encode()) <= 250
            assert (make_cache_key(key) == full_key) == fits
            changed += not fits
    assert 100 < changed < len(expected) - 100


def test_djblets_finds_all_that_it_could_have_stored(memcached: Memcached) -> None:
    djblets = pytest.importorskip("djblets.cache.backend")
    with on_memcached(memcached.address, "PyMemcacheCache"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for key in ("x" * 300, ["a:b", "ключ"], "😀" * 58):
            assert djblets.cache_memoize(key, lambda: 1) == 1
            assert cache_memoize(key, never) == 1
        calls: list[int] = []
        for _ in range(2):
            djblets.cache_memoize("😀" * 62, lambda: calls.append(1))
        assert len(calls) == 2


def test_a_key_function_that_shortens_keys_itself_is_left_to_it(memcached: Memcached, locmem: BaseCache) -> None:
    expected = {key: make_cache_key(key) for key in ALL_LENGTHS}

    def shortening(key: str, prefix: str, version: int) -> str:
        full = f"{prefix}:{version}:{key}"
        return full if len(full.encode()) <= 250 else f"{hash(key):x}"

    with on_memcached(memcached.address, "PyMemcacheCache", KEY_FUNCTION=shortening) as cache:
        assert get_max_key_bytes(cache) is None
        assert {key: make_cache_key(key) for key in ALL_LENGTHS} == expected
        assert cache_memoize("😀" * 62, lambda: 1) == cache_memoize("😀" * 62, never) == 1


@pytest.mark.parametrize(
    "config",
    [
        {"KEY_PREFIX": "p" * 184},
        {"KEY_FUNCTION": lambda key, prefix, version: 1 // 0},
        {"KEY_FUNCTION": lambda key, prefix, version: key.encode()},
    ],
    ids=["no room", "fails", "bytes"],
)
def test_where_no_digest_helps_keys_stay_as_they_are(locmem: BaseCache, config: dict[str, Any]) -> None:
    expected = [make_cache_key(key) for key in ALL_LENGTHS]
    settings = {"BACKEND": "django.core.cache.backends.memcached.PyMemcacheCache", "LOCATION": "127.0.0.1:1"}
    pytest.importorskip("pymemcache")
    with patch.object(PyMemcacheCache, "clear"), use_cache({**settings, **config}):
        assert [make_cache_key(key) for key in ALL_LENGTHS] == expected


def test_the_prefix_of_the_client_counts(memcached: Memcached) -> None:
    with on_memcached(memcached.address, "PyMemcacheCache", OPTIONS={"key_prefix": b"client:"}) as cache:
        assert get_max_key_bytes(cache) == 240
        assert cache_memoize("😀" * 62, lambda: 1) == cache_memoize("😀" * 62, never) == 1


def test_a_cache_is_asked_once(memcached: Memcached) -> None:
    with on_memcached(memcached.address, "PyMemcacheCache") as cache:
        make_cache_key("key")
        with patch.object(type(cache), "make_key", side_effect=AssertionError):
            assert len(make_cache_key("😀" * 62).encode()) <= 247


def test_a_forwarded_cache_that_is_exchanged(memcached: Memcached, tmp_path: Any) -> None:
    with on_memcached(memcached.address, "PyMemcacheCache", "djblets") as cache:
        assert get_max_key_bytes(cache) == 247
        caches[FORWARDED] = LocMemCache("other", {})
        assert get_max_key_bytes(cache) is None
        cache.reset_backend()
        assert get_max_key_bytes(cache) == 247


def test_other_caches_get_the_same_keys(cache_backend: BaseCache) -> None:
    if "memcache" in type(unwrap(cache_backend)).__module__:
        pytest.skip("it is one")
    assert get_max_key_bytes(cache_backend) is None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheKeyWarning)
        for key in LONG_KEYS.values():
            assert_is_cached(key)
    assert make_cache_key("😀" * 228) == "example.com:" + "😀" * 228


@pytest.mark.skipif(sys.version_info < (3, 11), reason="attributes are always in a dict")
def test_the_attributes_of_a_cache_stay_where_cpython_finds_them_fastest() -> None:
    with use_cache({"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}):
        cache_memoize("key", lambda: 1, lock=CacheLock())
        # They are in a dict once somebody has looked at `__dict__`.
        found = [each for each in gc.get_referents(caches["default"]) if type(each) is dict]
        assert not [each for each in found if "_expire_info" in each]
        assert vars(caches["default"])["_fastblets_max_key_bytes"] is None


@pytest.mark.parametrize("make", [MagicMock, object])
def test_what_is_no_cache_at_all(make: Callable[[], Any]) -> None:
    before = caches["default"]
    caches["default"] = make()
    try:
        assert make_cache_key("😀" * 62) == "example.com:" + "😀" * 62
    finally:
        caches["default"] = before


def test_a_cache_that_cannot_be_had() -> None:
    with use_cache({"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}):
        before = caches["default"]
        with patch("fastblets.cache.keys.get_named_cache", side_effect=OSError):
            assert make_cache_key("key") == "example.com:key"
        assert caches["default"] is before


class Gone:
    def __reduce__(self) -> Any:
        return (getattr, (enum, "no such name"))


@pytest.mark.parametrize("forwarding", FORWARDING)
def test_what_a_client_cannot_unpickle_behind_another_backend(memcached: Memcached, forwarding: str) -> None:
    # pymemcache returns None for it.
    with on_memcached(memcached.address, "PyMemcacheCache", forwarding):
        cache_memoize("key", Gone, seal=True)
        assert cache_memoize("key", lambda: 1, seal=True) == 1
