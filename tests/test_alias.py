"""`cache=`: entries, locks and generation numbers in another cache than the default one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import InvalidCacheBackendError, caches
from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.management import call_command
from django.test import override_settings

from fastblets.cache.backend import MAX_KEY_SIZE, cache_memoize, cache_memoize_iter, make_cache_key
from fastblets.cache.synchronizer import GenerationSynchronizer
from fastblets.protect.locks import CacheLock
from tests.backends import BACKENDS, FORWARDED, chosen, locmem_config, stored_bytes
from tests.conftest import get_needs
from tests.vectors.cases import noise

pytestmark = pytest.mark.django_db

OTHER = "other"


def iterate(key: Any, make: Callable[[], Any], **options: Any) -> list[Any]:
    return list(cache_memoize_iter(key, make, **options))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "small": cache_memoize,
    "encrypted": partial(cache_memoize, use_encryption=True),
    "locked": lambda *args, **options: cache_memoize(*args, lock=CacheLock(cache=OTHER), **options),
    "large": partial(cache_memoize, large_data=True, compress_large_data=False),
    "sealed": partial(cache_memoize, large_data=True, seal="require"),
    "iter": iterate,
}
functions = pytest.mark.parametrize("memoize", FUNCTIONS.values(), ids=FUNCTIONS)


def never() -> Any:
    pytest.fail("computed again")


class Forbidden(LocMemCache):
    """A cache that fails the test wherever it is asked."""

    def get(self, *args: Any, **options: Any) -> Any:
        pytest.fail("the default cache was asked")

    set = add = touch = delete = incr = has_key = get_many = set_many = get


@pytest.fixture(
    params=[
        pytest.param(backend, id=backend.name, marks=getattr(pytest.mark, backend.name))
        for backend in chosen()
        if backend.name != "forwarding"
    ]
)
def other(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BaseCache]:
    """A cache beside the default one, which must not be asked."""
    if not request.param.installed:
        pytest.skip(f"{request.param.module} isn't installed")
    config = request.param.config(get_needs(request, tmp_path / "cache"))
    forbidden = {"BACKEND": f"{__name__}.Forbidden"}
    with override_settings(CACHES={"default": forbidden, OTHER: config, FORWARDED: locmem_config("forwarded")}):
        call_command("createcachetable", verbosity=0)
        caches[OTHER].clear()
        yield caches[OTHER]


@functions
def test_entries(memoize: Callable[..., Any], other: BaseCache) -> None:
    value = [noise(1_000_000), noise(100_000)] if memoize is FUNCTIONS["large"] else [1, 2]
    assert memoize("key", lambda: value, cache=OTHER) == value
    assert memoize("key", never, cache=OTHER) == value
    assert memoize("key", lambda: [3], cache=OTHER, force_overwrite=True) == [3]
    assert memoize("key", lambda: [4], cache=OTHER, force_overwrite=True, expiration=lambda _: 0) == [4]
    assert memoize("key", lambda: [5], cache=OTHER) == [5]


def test_an_iterable_goes_on_in_another_thread(other: BaseCache, transactional_db: None) -> None:
    if not isinstance(other, LocMemCache):
        pytest.skip("one is enough")
    items = cache_memoize_iter("key", lambda: iter([1, 2]), cache=OTHER)
    next(items)
    rest: list[int] = []
    thread = threading.Thread(target=lambda: rest.extend(items))
    thread.start()
    thread.join()
    assert rest == [2]
    assert iterate("key", never, cache=OTHER) == [1, 2]


def test_locks(other: BaseCache) -> None:
    with CacheLock("lock", cache=OTHER) as lock:
        assert lock.cache_alias == OTHER
        assert not CacheLock("lock", cache=OTHER, blocking=False).acquire()
        lock.update_expiration(60)
        assert "lock" in lock.full_cache_key
        assert lock.full_cache_key in other
        with CacheLock("lock", cache=FORWARDED, blocking=False) as elsewhere:
            assert elsewhere.locked()
    assert lock.full_cache_key not in other


def test_synchronizers(other: BaseCache) -> None:
    mine, theirs = (GenerationSynchronizer("state", cache=OTHER) for _ in range(2))
    assert mine.cache_alias == OTHER
    assert not theirs.is_expired()
    mine.mark_updated()
    assert theirs.is_expired()
    theirs.refresh()
    assert not theirs.is_expired()
    theirs.clear()
    assert mine.is_expired()
    mine.mark_updated()
    assert mine.cache_key in other


CALLS: dict[str, Callable[..., Any]] = {
    **{name: partial(memoize, "key", lambda: [1]) for name, memoize in FUNCTIONS.items() if name != "locked"},
    "make_cache_key": partial(make_cache_key, "key"),
    "CacheLock": partial(CacheLock, "key"),
    "CacheLock without key": CacheLock,
    "GenerationSynchronizer": partial(GenerationSynchronizer, "key"),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_what_is_no_alias(call: Callable[..., Any], locmem: BaseCache) -> None:
    with pytest.raises(InvalidCacheBackendError, match=r'^cache must be an alias of CACHES, not "nothing": '):
        call(cache="nothing")
    with pytest.raises(TypeError, match=r"^cache must be an alias of CACHES, not of type LocMemCache\.$"):
        call(cache=locmem)
    call(cache="default")


class Broken(LocMemCache):
    def __init__(self, *_: Any) -> None:
        raise RuntimeError("no server")


def test_a_cache_that_cannot_be_made_is_logged(db: None, caplog: pytest.LogCaptureFixture) -> None:
    with override_settings(CACHES={"default": locmem_config(), OTHER: {"BACKEND": f"{__name__}.Broken"}}):
        caches["default"].clear()
        for name, memoize in FUNCTIONS.items():
            caplog.clear()
            assert memoize(name, lambda: [1], cache=OTHER) == [1]
            assert "no server" in caplog.text
        assert stored_bytes(caches["default"]) == {}


def test_the_entry_of_another_alias_is_another_one(locmem: BaseCache) -> None:
    cache_memoize("key", lambda: 1)
    assert cache_memoize("key", lambda: 2, cache=FORWARDED) == 2
    assert cache_memoize("key", never) == cache_memoize("key", never, cache="default") == 1


@pytest.mark.parametrize("lock_in", ["memcached", "default"])
def test_keys_fit_the_cache_that_they_are_for(request: pytest.FixtureRequest, tmp_path: Path, lock_in: str) -> None:
    (backend,) = [backend for backend in BACKENDS if backend.name == "pymemcache"]
    config = backend.config(get_needs(request, tmp_path))
    with override_settings(CACHES={"default": locmem_config(), "memcached": config}):
        for cache in caches.all(initialized_only=False):
            cache.clear()
        key = "\N{SNOWMAN}" * 200
        assert make_cache_key(key) == f"example.com:{key}"
        shortened = make_cache_key(key, cache="memcached")
        assert len(shortened) < MAX_KEY_SIZE < len(key.encode())
        # A lock without a key gets one for its own cache, not for the entry's.
        lock = CacheLock(cache=None if lock_in == "default" else lock_in)
        entry_in = "memcached" if lock_in == "default" else "default"
        assert cache_memoize(key, lambda: 1, cache=entry_in, lock=lock) == 1
        assert (lock.full_cache_key == f"example.com:_lock_:{key}") is (lock_in == "default")
        assert CacheLock(key, cache="memcached").full_cache_key == shortened
        assert GenerationSynchronizer(key, cache="memcached").cache_key == shortened
