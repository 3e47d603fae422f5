"""What docs/freshness.md says beside its examples, which tests/test_docs.py runs. See also tests/test_freshness.py."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from inspect import getsource
from types import ModuleType
from typing import Any
from unittest.mock import patch

import pytest
from django.core.cache import cache
from django.core.cache.backends.base import BaseCache

from fastblets.cache import freshness
from fastblets.cache.backend import cache_memoize, cache_memoize_iter, make_cache_key
from fastblets.cache.policy import CachePolicy
from fastblets.protect import renewal
from tests.backends import stored_bytes, use_cache
from tests.parity import RecordingCache
from tests.test_docs import DOCS

PAGE = DOCS / "freshness.md"
FRESH = 100
POLICY = CachePolicy(stale_while_revalidate=60, stale_if_error=60)


class SourceDownError(Exception):
    """The source fails."""


def ask(compute: Callable[[], Any], policy: CachePolicy | None = POLICY, **options: Any) -> Any:
    return cache_memoize("key", compute, expiration=FRESH, policy=policy, **options)


def never() -> Any:
    pytest.fail("computed")


def fail() -> Any:
    raise SourceDownError


@pytest.fixture
def later() -> Iterator[Callable[[float], None]]:
    """Lets the clock be so many seconds ahead. LocMem sees it, too."""
    now = time.time
    ahead = 0.0

    def advance(secs: float) -> None:
        nonlocal ahead
        ahead += secs

    with patch("time.time", lambda: now() + ahead):
        yield advance


def test_the_table_of_fields() -> None:
    section = PAGE.read_text().partition("## Choosing values")[2]
    rows = re.findall(r"^\| `(\w+)` \| (\S+) \|", section, re.MULTILINE)
    assert rows == [
        (field.name, f'"{field.default}"' if isinstance(field.default, str) else str(field.default))
        for field in fields(CachePolicy)
    ]


@pytest.mark.parametrize("module", [freshness, renewal], ids=lambda module: module.__name__)
def test_the_messages_of_a_policy_are_listed(module: ModuleType) -> None:
    logged = re.findall(r"""(?:logger\.\w+\(|log_failure\(logger, e,)\s*['"](.+?)["']""", getsource(module))
    assert len(logged) >= 2
    table = re.findall(r"^\| (`.+?`) \| ", (DOCS / "operating.md").read_text(), re.MULTILINE)
    listed = tuple(begin for row in table for begin in re.findall("`(.+?)`", row))
    assert [message for message in logged if not message.startswith(listed)] == []


@pytest.mark.parametrize(("retry_after", "tries"), [(0, 2), (30, 1)])
def test_retrying_at_once(retry_after: float, tries: int, locmem: BaseCache, later: Callable[[float], None]) -> None:
    policy = CachePolicy(stale_if_error=60, retry_after=retry_after)
    tried = []

    def compute() -> Any:
        tried.append(1)
        raise SourceDownError

    ask(lambda: "old", policy)
    later(FRESH + 1)
    assert [ask(compute, policy), ask(compute, policy)] == ["old", "old"]
    assert len(tried) == tries


@pytest.mark.parametrize("stale_if_error", [0, 60])
def test_the_source_is_left_alone(
    stale_if_error: float, locmem: BaseCache, later: Callable[[float], None], caplog: pytest.LogCaptureFixture
) -> None:
    policy = CachePolicy(stale_while_revalidate=60, stale_if_error=stale_if_error)
    ask(lambda: "old", policy)
    later(FRESH + 1)
    if stale_if_error:
        assert ask(fail, policy) == "old"
        assert "expired 1" in caplog.text
    else:
        with pytest.raises(SourceDownError):
            ask(fail, policy)
    assert ask(never, policy) == "old"


def test_a_task_that_fails(locmem: BaseCache, later: Callable[[float], None]) -> None:
    """Another process doesn't know of the lock, so that it can't leave a mark for `retry_after`."""
    queued = []
    policy = CachePolicy(stale_while_revalidate=60, refresh=queued.append)
    ask(lambda: "old", policy)
    later(FRESH + 1)
    assert ask(never, policy) == "old"
    with pytest.raises(SourceDownError):
        ask(fail, policy, force_overwrite=True)
    assert ask(never, policy) == "old"
    assert len(queued) == 1
    later(policy.lock_secs + 1)  # type: ignore[operator]
    assert ask(never, policy) == "old"
    assert len(queued) == 2


def test_overwriting_raises(locmem: BaseCache) -> None:
    ask(lambda: "old")
    with pytest.raises(SourceDownError):
        ask(fail, force_overwrite=True)
    assert ask(never) == "old"


@pytest.mark.parametrize(
    ("options", "more"),
    [({}, 2), ({"use_encryption": True}, 1), ({"large_data": True}, 1)],
    ids=["small", "enc", "large"],
)
def test_the_keys_of_a_hit(options: dict[str, Any], more: int, db: None) -> None:
    backend = f"{RecordingCache.__module__}.{RecordingCache.__name__}"
    with use_cache({"BACKEND": backend, "LOCATION": "freshness page"}) as recording:
        assert isinstance(recording, RecordingCache)
        ask(lambda: 1, **options)
        recording.calls.clear()
        ask(never, **options)
        assert recording.calls[0].count("'") == 2 * (1 + more)


def test_a_small_value_takes_two_entries(locmem: BaseCache) -> None:
    ask(lambda: 1)
    assert len(stored_bytes(locmem)) == 2


def test_a_series_that_nobody_reads_to_its_end(locmem: BaseCache) -> None:
    for number in range(2):
        items = cache_memoize_iter("key", lambda number=number: [number, "more"], policy=POLICY)  # type: ignore[misc]
        assert next(items) == number
        items.close()


def test_a_value_that_djblets_stores_over_another(locmem: BaseCache, later: Callable[[float], None]) -> None:
    """Without a policy the same is stored as by Djblets."""
    ask(lambda: "first")
    later(FRESH - 10)
    ask(lambda: "second", None, force_overwrite=True)
    assert ask(never) == "second"
    later(20)
    assert ask(lambda: "third") == "third"


@pytest.mark.parametrize("form", [{"large_data": True}, {"use_encryption": True}], ids=["large", "encrypted"])
def test_a_value_with_a_record_that_djblets_stores_over_another(
    form: dict[str, Any], locmem: BaseCache, later: Callable[[float], None]
) -> None:
    ask(lambda: "first", **form)
    later(FRESH - 10)
    ask(lambda: "second", None, force_overwrite=True, **form)
    later(20)
    assert ask(never, **form) == "second"
    later(FRESH - 20)
    assert ask(lambda: "third", **form) == "third"


def test_the_lock_is_the_one_of_a_cache_lock(locmem: BaseCache) -> None:
    held = []
    ask(lambda: held.append(cache.get(make_cache_key("_lock_:key"))))
    assert held[0]
    assert cache.get(make_cache_key("_lock_:key")) is None
