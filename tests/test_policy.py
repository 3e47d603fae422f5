"""CachePolicy: its fields, and the setting."""

from __future__ import annotations

import pickle
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.core.cache.backends.base import BaseCache
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from fastblets.cache.backend import cache_memoize, cache_memoize_iter
from fastblets.cache.policy import CachePolicy, resolve_policy
from fastblets.cache.values import cache_set

PATH = CachePolicy(wait=7)


def test_times_are_numbers_or_timedeltas() -> None:
    policy = CachePolicy(stale_if_error=timedelta(minutes=2), wait=timedelta(seconds=0.5), lock_secs=2.5)
    assert (policy.stale_if_error, policy.wait, policy.lock_secs) == (120, 0.5, 2.5)
    assert policy == CachePolicy(stale_if_error=120, wait=0.5, lock_secs=2.5)
    assert CachePolicy(retry_after=0).retry_after == 0
    assert hash(policy) == hash(CachePolicy(stale_if_error=120, wait=0.5, lock_secs=2.5))
    assert CachePolicy(wait=None).wait is None


def test_the_window_is_the_larger_one() -> None:
    assert CachePolicy().window == 0
    assert CachePolicy(stale_while_revalidate=3, stale_if_error=timedelta(seconds=2)).window == 3
    assert CachePolicy(stale_while_revalidate=3, stale_if_error=5).window == 5


def test_it_can_be_pickled() -> None:
    assert pickle.loads(pickle.dumps(PATH)) == PATH


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("stale_while_revalidate", -1, ValueError),
        ("stale_if_error", timedelta(seconds=-1), ValueError),
        ("retry_after", float("nan"), ValueError),
        ("stale_if_error", "10", TypeError),
        ("stale_if_error", True, TypeError),
        ("stale_if_error", None, TypeError),
        ("stale_if_error", float("inf"), ValueError),
        ("stale_if_error", timedelta.max, ValueError),
        ("wait", float("inf"), ValueError),
        ("retry_after", 0.5, ValueError),
        ("lock_secs", 0.5, ValueError),
        ("wait", -0.1, ValueError),
        ("wait", "1", TypeError),
        ("lock_secs", 0, ValueError),
        ("max_lock_secs", timedelta(), ValueError),
        ("max_lock_secs", 29, ValueError),
        ("lock_secs", 301, ValueError),
        ("early", -1, ValueError),
        ("early", "much", TypeError),
        ("early", float("nan"), ValueError),
        ("jitter", 0.51, ValueError),
        ("jitter", -0.1, ValueError),
        ("jitter", None, TypeError),
        ("share", 1, TypeError),
        ("fence", None, TypeError),
        ("refresh", "thread", TypeError),
        ("refresh", None, TypeError),
    ],
)
def test_a_wrong_field(field: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=field):
        CachePolicy(**{field: value})


def test_there_is_no_other_field() -> None:
    with pytest.raises(TypeError):
        CachePolicy(ttl=10)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        CachePolicy(10)  # type: ignore[misc]


@pytest.mark.parametrize("setting", [PATH, {"wait": 7}, "tests.test_policy.PATH"])
def test_the_setting(setting: Any) -> None:
    with override_settings(FASTBLETS_POLICY=setting):
        assert resolve_policy(settings, None) == PATH
        assert resolve_policy(settings, None) is resolve_policy(settings, None)
        assert resolve_policy(settings, CachePolicy()) == CachePolicy()
    assert resolve_policy(settings, None) is None


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ({"ttl": 10}, "no field ttl"),
        ({"wait": -1}, "wait"),
        ({1: 2}, "no field 1"),
        ("tests.test_policy.nothing", "nothing"),
        ("nothing", "nothing"),
        ("tests.test_policy.pickle", "module"),
        (30, "int"),
        (CachePolicy, "type"),
    ],
)
@pytest.mark.django_db
def test_a_wrong_setting(setting: Any, text: str, locmem: BaseCache) -> None:
    with override_settings(FASTBLETS_POLICY=setting):
        with pytest.raises(ImproperlyConfigured, match=f"FASTBLETS_POLICY.*{text}"):
            cache_memoize("key", lambda: 1)
        with pytest.raises(ImproperlyConfigured, match="FASTBLETS_POLICY"):
            cache_set("key", 1)


@pytest.mark.parametrize("policy", [{"wait": 1}, 30, False, CachePolicy])
@pytest.mark.django_db
def test_a_wrong_argument(policy: Any, locmem: BaseCache) -> None:
    with pytest.raises(TypeError, match="policy must be a CachePolicy"):
        cache_memoize("key", lambda: 1, policy=policy)
    with pytest.raises(TypeError, match="policy must be a CachePolicy"):
        list(cache_memoize_iter("key", [1], policy=policy))
