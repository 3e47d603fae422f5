"""What docs/guide.md says beside its examples, which tests/test_docs.py runs."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import Any

import pytest
from django.core.cache import cache
from django.core.cache.backends.base import BaseCache

from fastblets.cache.backend import cache_memoize, cache_memoize_iter, make_cache_key
from fastblets.cache.synchronizer import GenerationSynchronizer
from fastblets.protect.locks import CacheLock
from tests.backends import locmem_config, use_cache
from tools.servers import Memcached

#: The last second that memcached can count to.
LAST_SECOND = datetime(2038, 1, 19, 3, 14, 7, tzinfo=timezone.utc).timestamp()
DAY = 24 * 60 * 60


def never() -> Any:
    pytest.fail("It is in the cache, but was computed")


def test_the_timeout_of_caches_is_not_used(db: None) -> None:
    with use_cache({**locmem_config(), "TIMEOUT": 0}):
        cache.set("theirs", "gone at once")
        assert cache.get("theirs") is None

        cache_memoize("small", lambda: 1)
        assert cache_memoize("small", never) == 1
        list(cache_memoize_iter("iterable", lambda: [1]))
        assert list(cache_memoize_iter("iterable", never)) == [1]
        with CacheLock("lock"):
            assert not CacheLock("lock", blocking=False).acquire()
        synchronizer = GenerationSynchronizer("state")
        synchronizer.mark_updated()
        assert not synchronizer.is_expired()


@pytest.mark.parametrize("kind", ["PyMemcacheCache", "PyLibMCCache"])
@pytest.mark.parametrize("form", ["small", "large"])
def test_what_memcached_keeps_beyond_2038(
    kind: str, form: str, db: None, memcached: Memcached, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip({"PyMemcacheCache": "pymemcache", "PyLibMCCache": "pylibmc"}[kind])
    left = int(LAST_SECOND - time.time())
    with use_cache({"BACKEND": f"django.core.cache.backends.memcached.{kind}", "LOCATION": memcached.address}):
        computed = []

        def times_computed(expiration: int | None) -> int:
            computed.clear()
            for _ in range(2):
                cache_memoize(
                    f"key {expiration}",
                    lambda: computed.append(1),
                    expiration=expiration,
                    large_data=form == "large",
                )
            return len(computed)

        assert times_computed(31 * DAY) == 1
        assert times_computed(left - DAY) == 1
        assert times_computed(None) == 1
        assert times_computed(left + DAY) == 2
        assert times_computed(100 * 365 * DAY) == 2

        with CacheLock("lock", lock_expiration_secs=left - DAY):
            assert not CacheLock("lock", blocking=False).acquire()
        with CacheLock("endless", lock_expiration_secs=left + DAY), CacheLock("endless", blocking=False) as other:
            assert other.locked()
    # Nothing says why, but that such a lock locks nothing is noticed at its release.
    messages = [record.getMessage() for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
    assert messages
    assert all("ended before its owner did" in message and ":endless" in message for message in messages)


def test_a_computation_that_asks_for_its_own_key_calls_itself(locmem: BaseCache) -> None:
    def compute() -> Any:
        return cache_memoize("key", compute)

    with pytest.raises(RecursionError):
        compute()


def test_with_a_lock_the_inner_call_waits_for_nobody(locmem: BaseCache, caplog: pytest.LogCaptureFixture) -> None:
    def compute() -> Any:
        lock = CacheLock(timeout_secs=60)
        return cache_memoize("key", lambda: "inner", lock=lock), lock.locked()

    assert cache_memoize("key", lambda: (compute(), cache.get(make_cache_key("key"))), lock=CacheLock()) == (
        ("inner", False),
        None,
    )
    assert caplog.text == ""
