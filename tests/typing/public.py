"""What the type checkers make of the public functions. mypy and pyright read it in `make lint`; nothing runs it.

Each line that is to be refused carries an ignore comment, and both report an ignore comment that has nothing to ignore.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from typing import Any

from typing_extensions import assert_type

import fastblets
from fastblets import stats
from fastblets.cache.backend import (
    CACHE_CHUNK_SIZE,
    DEFAULT_EXPIRATION_TIME,
    MAX_KEY_SIZE,
    cache_memoize,
    cache_memoize_iter,
    make_cache_key,
)
from fastblets.cache.errors import MissingChunkError
from fastblets.cache.policy import CachePolicy
from fastblets.cache.synchronizer import GenerationSynchronizer
from fastblets.cache.tags import invalidate_tags
from fastblets.cache.values import (
    cache_add,
    cache_delete,
    cache_delete_many,
    cache_exists,
    cache_expire,
    cache_get,
    cache_get_many,
    cache_set,
    cache_set_many,
)
from fastblets.protect.locks import CacheLock
from fastblets.secrets.crypto import (
    AES_BLOCK_SIZE,
    aes_decrypt,
    aes_decrypt_base64,
    aes_decrypt_iter,
    aes_encrypt,
    aes_encrypt_base64,
    aes_encrypt_iter,
    get_default_aes_encryption_key,
)
from fastblets.signals import KINDS, EventKind, cache_event


def report() -> dict[str, list[int]]:
    return {}


def days(first: int, last: int = 7) -> Generator[datetime.date, None, None]:
    for ordinal in range(first, last):
        yield datetime.date.fromordinal(ordinal)


class Source:
    def load(self) -> Sequence[bytes]:
        return []


def values() -> None:
    assert_type(cache_memoize("key", report), dict[str, list[int]])
    assert_type(cache_memoize(["two", "parts"], report, large_data=True), dict[str, list[int]])
    assert_type(cache_memoize(("two", "parts"), lambda: 1.5), float)
    assert_type(cache_memoize("key", Source().load), Sequence[bytes])
    assert_type(cache_memoize(key="key", lookup_callable=partial(report)), dict[str, list[int]])
    assert_type(
        cache_memoize(
            "key",
            report,
            expiration=None,
            force_overwrite=True,
            large_data=True,
            compress_large_data=False,
            use_generator=False,
            use_encryption=None,
            encryption_key=b"0123456789abcdef",
            lock=CacheLock(),
            seal="require",
        ),
        dict[str, list[int]],
    )

    assert_type(cache_memoize("key", report, expiration=datetime.timedelta(hours=1)), dict[str, list[int]])
    assert_type(cache_memoize("key", report, expiration=lambda found: 60 if found else None), dict[str, list[int]])
    cache_memoize("key", report, expiration=lambda found: found.nothing)  # type: ignore[attr-defined]

    assert_type(cache_memoize("key", report, cache="other"), dict[str, list[int]])

    cache_memoize("key", report())  # type: ignore[arg-type]
    cache_memoize(1, report)  # type: ignore[arg-type]
    cache_memoize("key", report, expiration="1")  # type: ignore[arg-type]
    cache_memoize("key", report, encryption_key="0123456789abcdef")  # type: ignore[arg-type]
    cache_memoize("key", report, lock=True)  # type: ignore[arg-type]
    cache_memoize("key", report, seal="maybe")  # type: ignore[arg-type]
    cache_memoize("key", report, large=True)  # type: ignore[call-arg]
    # By position only at run time, with a warning.
    cache_memoize("key", report, 60)  # type: ignore[call-arg]


def iterables(rows: list[tuple[int, str]]) -> None:
    assert_type(cache_memoize_iter("key", rows), Generator[tuple[int, str], None, None])
    assert_type(cache_memoize_iter("key", iter(rows)), Generator[tuple[int, str], None, None])
    assert_type(cache_memoize_iter("key", (row[1] for row in rows)), Generator[str, None, None])
    assert_type(cache_memoize_iter("key", lambda: rows), Generator[tuple[int, str], None, None])
    assert_type(cache_memoize_iter("key", partial(days, 1)), Generator[datetime.date, None, None])
    assert_type(cache_memoize_iter("key", Source().load), Generator[bytes, None, None])
    assert_type(
        cache_memoize_iter("key", items_or_callable=days(1), expiration=60, lock=CacheLock("lock")),
        Generator[datetime.date, None, None],
    )

    assert_type(
        cache_memoize_iter("key", rows, expiration=lambda count: datetime.timedelta(hours=count)),
        Generator[tuple[int, str], None, None],
    )

    cache_memoize_iter("key", 1)  # type: ignore[arg-type]
    cache_memoize_iter("key", lambda: 1)  # type: ignore[arg-type, return-value]
    cache_memoize_iter("key", rows, large_data=True)  # type: ignore[call-arg]


def run(job: Callable[[], None]) -> None:
    job()


def policies() -> None:
    policy = CachePolicy(stale_if_error=datetime.timedelta(hours=1), stale_while_revalidate=1.5, wait=None, refresh=run)
    assert_type(cache_memoize("key", report, policy=policy), dict[str, list[int]])
    assert_type(cache_memoize_iter("key", lambda: days(1), policy=policy), Generator[datetime.date, None, None])
    assert_type(cache_set("key", 1, policy=policy), bool)
    assert_type(cache_expire("key", policy=policy), bool)
    assert_type(cache_get_many(["a"], policy=policy, allow_stale=True), dict[str, Any])
    print(cache_get("key", policy=policy, allow_stale=True).anything, CacheLock("key", max_lock_secs=60))

    CachePolicy(refresh="thread")  # type: ignore[arg-type]
    CachePolicy(30)  # type: ignore[call-arg]
    CachePolicy(ttl=30)  # type: ignore[call-arg]
    cache_memoize("key", report, policy={"wait": 30})  # type: ignore[arg-type]
    cache_add("key", 1, policy=policy)  # type: ignore[call-arg]


def by_hand(names: list[str], parts: list[tuple[str, str]]) -> None:
    assert_type(cache_set(["a", "b"], 1, expiration=lambda value: value * 60, large_data=True, seal=True), bool)
    assert_type(cache_set_many({("a", "b"): 1, ("c", "d"): 2}, cache="other"), list[tuple[str, str]])
    assert_type(cache_add("key", 1, expiration=datetime.timedelta(hours=1), use_encryption=True), bool)
    assert_type(cache_exists("key", large_data=None), bool)
    assert_type(cache_delete("key", encryption_key=b"0123456789abcdef"), bool)
    assert_type(cache_delete("key", on_commit=True), bool)
    assert_type(cache_expire("key", large_data=True), bool)
    assert_type(cache_memoize("key", lambda: 1, tags=["a", ("b", "c"), ["d"]]), int)
    assert_type(cache_get_many(names, tags=("a", ["b", "c"])), dict[str, Any])
    assert_type(invalidate_tags("a", ("b", "c"), cache="other", on_commit="other"), None)
    assert_type(cache_delete_many(names, on_commit="other"), list[str])
    print(cache_get("key", None).anything, cache_get_many(names)["key"].anything, cache_get_many(parts)["a", "b"])

    cache_get_many([["a", "b"]])  # type: ignore[type-var]
    cache_add("key", 1, large_data=True)  # type: ignore[call-arg]
    cache_set("key", "text", expiration=lambda value: value)  # type: ignore[arg-type, return-value]


def keys_and_locks() -> None:
    assert_type(make_cache_key("key"), str)
    assert_type(make_cache_key(["a", "b"], use_encryption=True, encryption_key=b"0123456789abcdef"), str)
    assert_type(CACHE_CHUNK_SIZE, int)
    assert_type(MAX_KEY_SIZE, int)
    assert_type(fastblets.replace_djblets(), None)
    assert_type(fastblets.__version__, str)
    print(fastblets.__versions__)  # type: ignore[attr-defined]

    assert_type(make_cache_key("key", cache="other"), str)
    assert_type(CacheLock(cache="other").cache_alias, str | None)
    assert_type(GenerationSynchronizer("key", cache="other").cache_alias, str | None)

    timeout: int = DEFAULT_EXPIRATION_TIME
    lock = CacheLock(["a", "b"], blocking=True, lock_expiration_secs=1.5, retry_secs=0.1, timeout_secs=-1)
    assert_type(lock.acquire(timeout=timeout), bool)
    assert_type(lock.full_cache_key, str)
    with lock as held:
        assert_type(held, CacheLock)

    synchronizer = GenerationSynchronizer("key", cache_expiration_secs=60)
    assert_type(synchronizer, GenerationSynchronizer)
    assert_type(synchronizer.is_expired(), bool)
    assert_type(synchronizer.sync_gen, int | None)
    assert_type(MissingChunkError("gone"), MissingChunkError)


def count(kind: EventKind, name: str, seconds: float | None, **_: Any) -> None:
    print(kind == "hit", name.upper(), seconds or 0.0)
    print(kind == "hits")  # type: ignore[comparison-overlap]


def events() -> None:
    cache_event.connect(count)
    assert_type(KINDS, tuple[EventKind, ...])
    assert_type(cache_memoize("key", report, name="reports"), dict[str, list[int]])
    cache_memoize("key", report, name=1)  # type: ignore[arg-type]

    assert_type(stats.collect(), None)
    assert_type(stats.snapshot(), dict[str, dict[str, stats.EventStats]])
    assert_type(stats.snapshot()["report"]["hit"]["count"], int)
    assert_type(stats.reset(), None)
    assert_type(stats.stop(), None)


def crypto() -> None:
    assert_type(AES_BLOCK_SIZE, int)
    assert_type(get_default_aes_encryption_key(), bytes)
    assert_type(aes_encrypt("text"), bytes)
    assert_type(aes_encrypt(bytearray(b"bytes"), key=b"0123456789abcdef"), bytes)
    assert_type(aes_decrypt(b""), bytes)
    assert_type(aes_encrypt_base64("text"), str)
    assert_type(aes_decrypt_base64("text"), str)
    assert_type(aes_encrypt_iter([b"a", "b"]), Iterator[bytes])
    assert_type(aes_decrypt_iter(iter([b"a"])), Iterator[bytes])

    aes_decrypt("text")  # type: ignore[arg-type]
