"""What GenerationSynchronizer promises."""

from __future__ import annotations

import time
from typing import Any

import pytest
from django.core.cache.backends.base import BaseCache

from fastblets.cache.synchronizer import GenerationSynchronizer
from tests.faults import failing
from tests.workers import workers

pytestmark = pytest.mark.django_db


def pair() -> tuple[GenerationSynchronizer, GenerationSynchronizer]:
    return GenerationSynchronizer("key"), GenerationSynchronizer("key")


@pytest.mark.every_backend
def test_others_see_that_the_state_has_changed(cache_backend: BaseCache) -> None:
    mine, theirs = pair()
    assert mine.sync_gen == theirs.sync_gen
    assert not mine.is_expired()
    mine.mark_updated()
    assert not mine.is_expired()
    assert theirs.is_expired()
    theirs.refresh()
    assert not theirs.is_expired()


@pytest.mark.every_backend
def test_clearing_expires_all(cache_backend: BaseCache) -> None:
    mine, theirs = pair()
    mine.clear()
    assert mine.is_expired()
    assert theirs.is_expired()
    mine.mark_updated()
    assert not mine.is_expired()
    assert theirs.is_expired()


@pytest.mark.parametrize("damaged", ["text", None, 1.5, [], True], ids=repr)
def test_what_is_no_number_is_expired_and_replaced(locmem: BaseCache, damaged: Any) -> None:
    mine, theirs = pair()
    locmem.set(mine.cache_key, damaged)
    assert mine.is_expired()
    mine.refresh()
    assert not mine.is_expired()
    assert theirs.is_expired()


def test_a_number_made_again_in_the_same_second_is_another(locmem: BaseCache, monkeypatch: pytest.MonkeyPatch) -> None:
    start = time.time_ns()
    mine = GenerationSynchronizer("key")
    for _ in range(3):
        mine.mark_updated()
    locmem.clear()
    monkeypatch.setattr(time, "time_ns", lambda: start + 500_000_000)
    GenerationSynchronizer("key")
    assert mine.is_expired()


def test_a_cache_that_fails_expires_everything(locmem: BaseCache, caplog: pytest.LogCaptureFixture) -> None:
    mine, _ = pair()
    with failing("get", "add", "delete", "incr"):
        assert mine.is_expired()
        mine.refresh()
        mine.clear()
        mine.mark_updated()
        assert GenerationSynchronizer("key").is_expired()
    assert [record.getMessage().count("Is the cache server down?") for record in caplog.records] == [1] * 6


@pytest.mark.parametrize("key", [["a", "b"], ("a",)], ids=repr)
def test_a_key_that_is_no_string_must_be_normalized(locmem: BaseCache, key: Any) -> None:
    assert not GenerationSynchronizer(key).is_expired()
    with pytest.raises(ValueError, match="must be a string"):
        GenerationSynchronizer(key, normalize_cache_key=False)
    assert GenerationSynchronizer("own-key", normalize_cache_key=False).cache_key == "own-key"


def test_what_is_no_expiration_of_a_generation() -> None:
    with pytest.raises(TypeError, match=r"^cache_expiration_secs must be a number of seconds, not of type str"):
        GenerationSynchronizer("key", cache_expiration_secs="1 day")  # type: ignore[arg-type]
    GenerationSynchronizer("key", cache_expiration_secs=None)  # type: ignore[arg-type]


@pytest.mark.linux("servers, and SIGKILL")
def test_generations_meet_in_the_cache(shared: dict[str, Any]) -> None:
    code = """
from fastblets.cache.synchronizer import GenerationSynchronizer
state = GenerationSynchronizer("state")
say("ready")
while not state.is_expired():
    time.sleep(0.01)
say("expired")
state.refresh()
say(state.is_expired())
"""
    ours = GenerationSynchronizer("state", normalize_cache_key=False)
    with workers(shared, code, 2) as started:
        for worker in started:
            assert worker.hear() == ["ready"]
        ours.mark_updated()
        for worker in started:
            assert worker.end() == [["expired"], [False]]
