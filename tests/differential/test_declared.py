"""The declared differences from Djblets, one by one: what it does, and what fastblets does instead.

`docs/compatibility.md` lists them.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from django.contrib.sites.models import Site
from django.core.cache import cache, caches
from django.db.utils import OperationalError
from django.test import override_settings
from django.utils.functional import lazystr

from fastblets.cache import shortcuts
from fastblets.cache.errors import SiteUnavailableError
from tests.backends import Config, use_cache
from tests.faults import failing, replaced
from tests.parity import Action, Library, Parity
from tests.values import NEW_YORK, Masked, Raising, RaisingOnLoad, SafeString, Slots, same

PLAIN = {"compress_large_data": False}
OLD = ["old 0 " + "x" * 1_500_000, "old 1"]
NEW = ["new 0 " + "x" * 1_500_000, "new 1"]


def memoize_iter(items: Any, **options: Any) -> Action:
    return lambda library: library.backend.cache_memoize_iter("key", items, **options)


def both_ways(both: Parity, action: Action) -> list[Any]:
    """What comes of it in Djblets, and in fastblets: an error's type, or the value."""
    trials = [both.run(library, action) for library in both.libraries]
    return [type(trial.error) if trial.error else trial.value for trial in trials]


def test_an_error_of_the_items_arrives(both: Parity) -> None:
    def items() -> Iterator[str]:
        yield "one"
        raise KeyError("no more")

    trials = [both.run(library, memoize_iter(items)) for library in both.libraries]
    assert [trial.value for trial in trials] == [["one"]] * 2
    assert [type(trial.error) for trial in trials] == [type(None), KeyError]


def test_items_that_cannot_be_pickled_arrive(both: Parity) -> None:
    items = ["one", Raising(), "three"]
    assert both_ways(both, memoize_iter(items)) == [["one"], items]


def test_a_large_value_that_cannot_be_pickled_arrives(both: Parity) -> None:
    value = Raising()

    def memoize(library: Library) -> Any:
        return library.backend.cache_memoize("key", lambda: value, large_data=True)

    assert both_ways(both, memoize) == [AssertionError, value]


def never() -> Any:
    raise LookupError("computed again")


@pytest.mark.parametrize("value", [SafeString("<b>"), Slots(1), 10**5000], ids=["safe text", "slots", "a long int"])
def test_what_protocol_0_refuses_is_stored_in_protocol_4(both: Parity, value: Any) -> None:
    def memoize(library: Library) -> list[Any]:
        stored = library.backend.cache_memoize_iter("key", lambda: iter(["one", value, "three"]), **PLAIN)
        return [len(list(stored)), *library.backend.cache_memoize_iter("key", never, **PLAIN)]

    theirs, ours = both_ways(both, memoize)
    # It has stored nothing.
    assert theirs is LookupError
    assert ours[:2] == [3, "one"]
    assert same(ours[2], value)


@pytest.mark.parametrize("value", [Masked("secret"), datetime(2023, 11, 5, 1, 30, fold=1, tzinfo=NEW_YORK)])
@pytest.mark.parametrize("options", [{"large_data": True}, {"use_encryption": True}], ids=str)
def test_what_protocol_0_changes_is_stored_in_protocol_4(both: Parity, options: dict[str, bool], value: Any) -> None:
    def memoize(library: Library) -> Any:
        library.backend.cache_memoize("key", lambda: value, **options)
        return library.backend.cache_memoize("key", never, **options)

    theirs, ours = both_ways(both, memoize)
    assert not same(theirs, value)
    assert same(ours, value)


def test_keys_of_dicts_that_were_read_as_several_items_are_shared(both: Parity) -> None:
    rows = [{"name": number} for number in range(5)]

    def memoize(library: Library) -> tuple[list[Any], bytes]:
        list(library.backend.cache_memoize_iter("rows", lambda: iter(rows)))
        found = list(library.backend.cache_memoize_iter("rows", never))
        library.backend.cache_memoize("key", lambda: found, large_data=True, **PLAIN)
        return found, cache.get(library.backend.make_cache_key("key-0"))[0]

    (theirs, their_bytes), (ours, our_bytes) = both_ways(both, memoize)
    assert theirs == ours == pickle.loads(their_bytes) == pickle.loads(our_bytes) == rows
    assert their_bytes.count(b"Vname") == len(rows)
    assert our_bytes.count(b"Vname") < len(rows)
    assert our_bytes == pickle.dumps(ours, protocol=0)


def test_a_cache_that_fails_to_store_loses_no_items(both: Parity) -> None:
    def memoize(library: Library) -> list[Any]:
        with failing("set", "set_many"):
            return list(library.backend.cache_memoize_iter("key", NEW, **PLAIN))

    # Here Djblets loses none either: it is only told of the failure at the end.
    assert both_ways(both, memoize) == [NEW, NEW]


@pytest.mark.parametrize("count", ["0", " 0", "-0"])
def test_a_wrong_count_is_a_miss(both: Parity, count: str) -> None:
    def memoize(library: Library) -> list[Any]:
        list(library.backend.cache_memoize_iter("key", ["one"], **PLAIN))
        cache.set(library.backend.make_cache_key("key"), count)
        return list(library.backend.cache_memoize_iter("key", ["again"], **PLAIN))

    theirs, ours = both_ways(both, memoize)
    assert theirs == []
    # A count of 0 is what an empty entry has.
    assert ours == ([] if count == "0" else ["again"])


def test_an_entry_that_is_cut_off_is_a_miss(both: Parity) -> None:
    def memoize(library: Library) -> list[Any]:
        list(library.backend.cache_memoize_iter("key", ["one", "two"], **PLAIN))
        chunk_key = library.backend.make_cache_key("key-0")
        cache.set(chunk_key, [cache.get(chunk_key)[0][:-3]])
        return list(library.backend.cache_memoize_iter("key", ["again"], **PLAIN))

    assert both_ways(both, memoize) == [["one"], ["again"]]


def test_an_item_that_cannot_be_unpickled_makes_a_miss(both: Parity) -> None:
    def memoize(library: Library) -> list[str]:
        items = ["ahead", RaisingOnLoad(a=1), "behind"]
        list(library.backend.cache_memoize_iter("key", items))
        return [str(item) for item in library.backend.cache_memoize_iter("key", items)]

    theirs, ours = both_ways(both, memoize)
    assert (len(theirs), len(ours)) == (1, 3)


def test_an_overwrite_that_fails_leaves_no_mix(both: Parity) -> None:
    def memoize(library: Library) -> list[str]:
        def make(items: Any, **options: Any) -> list[Any]:
            return list(library.backend.cache_memoize_iter("key", items, **PLAIN, **options))

        make(OLD)
        with failing("set", when=lambda key: key.endswith("-1")):
            make(NEW, force_overwrite=True)
        return [item[:5] for item in make(["again"])]

    # The first chunk is of the new generation, the second one of the old.
    assert both_ways(both, memoize) == [["new 0", "old 1"], ["again"]]


def test_an_overwrite_that_is_dropped_leaves_no_mix(both: Parity) -> None:
    def memoize(library: Library) -> list[str]:
        def make(items: Any, **options: Any) -> Any:
            return library.backend.cache_memoize_iter("key", items, **PLAIN, **options)

        list(make(OLD))
        generator = make(NEW, force_overwrite=True)
        next(generator), next(generator)
        generator.close()
        return [item[:5] for item in make(["again"])]

    assert both_ways(both, memoize) == [["new 0", "old 1"], ["again"]]


def test_the_site_stays_known_while_it_cannot_be_looked_up(both: Parity) -> None:
    def make_keys(library: Library) -> list[str]:
        keys = [library.backend.make_cache_key("key")]
        with patch.object(Site.objects, "get_current", side_effect=OSError("the database is away")):
            keys.append(library.backend.make_cache_key("key"))
        return keys

    assert both_ways(both, make_keys) == [["example.com:key", "key"], ["example.com:key", "example.com:key"]]


def test_a_site_that_was_never_seen_makes_no_key(both: Parity, monkeypatch: pytest.MonkeyPatch) -> None:
    def memoize(library: Library) -> list[Any]:
        monkeypatch.setattr(shortcuts, "_last_domains", {})
        with patch.object(Site.objects, "get_current", side_effect=OSError("the database is away")):
            values = [library.backend.cache_memoize("key", lambda value=value: value) for value in (1, 2)]
            try:
                return [*values, library.backend.make_cache_key("key")]
            except OperationalError as e:
                return [*values, type(e)]

    assert both_ways(both, memoize) == [[1, 1, "key"], [1, 2, SiteUnavailableError]]


def test_the_domain_of_a_projects_own_lookup_is_not_the_last_known_one(both: Parity) -> None:
    def make_keys(library: Library) -> list[Any]:
        lookups = [Site(domain="tenant.example.com"), OSError("the database is away")]
        with (
            patch.object(Site.objects, "get_current", side_effect=lookups),
            patch.object(shortcuts, "_last_domains", {}),
        ):
            keys = [library.backend.make_cache_key("key")]
            try:
                return [*keys, library.backend.make_cache_key("key")]
            except OperationalError as e:
                return [*keys, type(e)]

    tenant = "tenant.example.com:key"
    assert both_ways(both, make_keys) == [[tenant, "key"], [tenant, SiteUnavailableError]]


def test_a_site_is_looked_up_in_an_event_loop(both: Parity) -> None:
    def make_key(library: Library) -> str:
        async def make() -> str:
            return library.backend.make_cache_key("key")

        Site.objects.clear_cache()
        return asyncio.run(make())

    assert both_ways(both, make_key) == ["key", "example.com:key"]


def fork(function: Callable[[], Any]) -> None:
    """Call a function in a child, which ends then, and wait for that."""
    pid = os.fork()
    if pid == 0:
        try:
            with suppress(Exception):
                function()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


@pytest.fixture
def files(tmp_path: Path) -> Config:
    """A cache that processes share."""
    return {"BACKEND": "django.core.cache.backends.filebased.FileBasedCache", "LOCATION": str(tmp_path)}


@pytest.mark.linux("fork")
def test_a_forked_child_leaves_a_lock_to_its_parent(both: Parity, files: Config) -> None:
    def is_still_held(library: Library) -> bool:
        with use_cache(files):
            lock = library.locks.CacheLock("lock")
            lock.acquire()
            fork(lock.release)
            return bool(cache.get(lock.full_cache_key) == lock.token)

    assert both_ways(both, is_still_held) == [False, True]


@pytest.mark.linux("fork")
def test_a_forked_child_leaves_an_open_stream_to_its_parent(both: Parity, files: Config) -> None:
    def memoize(library: Library) -> bool:
        with use_cache(files):
            items = (f"{os.getpid()} {number} " + "x" * 1_500_000 for number in range(2))
            stream = library.backend.cache_memoize_iter("key", items, **PLAIN)
            next(stream)
            fork(lambda: list(stream))
            # The parent has not gone on.
            return library.backend.make_cache_key("key") in cache

    assert both_ways(both, memoize) == [True, False]


def test_a_root_that_is_translated_late_is_part_of_the_key(both: Parity) -> None:
    with override_settings(SITE_ROOT=lazystr("/root/")):
        keys = both_ways(both, lambda library: library.backend.make_cache_key("key"))
    assert keys == ["key", "example.com:/root/:key"]


@pytest.mark.parametrize(
    ("key", "options", "theirs", "ours"),
    [
        ("\ud800", {}, "example.com:\ud800", "example.com:\\ud800"),
        (["a:", "\udfff "], {}, "example.com:a%3A:\udfff\\x20", "example.com:a%3A:\\udfff\\x20"),
        ("\ud800" * 300, {}, UnicodeEncodeError, str),
        ("\ud800", {"use_encryption": True}, UnicodeEncodeError, str),
    ],
)
def test_a_lone_surrogate_is_escaped_in_a_key(
    both: Parity, key: Any, options: dict[str, Any], theirs: Any, ours: Any
) -> None:
    made = both_ways(both, lambda library: library.backend.make_cache_key(key, **options))
    assert made[0] == theirs
    assert type(made[1]) is str if ours is str else made[1] == ours
    made[1].encode("utf-8")


@pytest.mark.parametrize(
    ("key", "theirs"),
    [
        ({"a": 1, "b": 2}, "example.com:a:b"),
        ({"one"}, "example.com:one"),
        (b"", "example.com"),
        (["a", 1], AttributeError),
        (iter("ab"), TypeError),
    ],
    ids=["dict", "set", "bytes", "number", "iterator"],
)
def test_what_is_no_sequence_of_strings_is_no_key(both: Parity, key: Any, theirs: Any) -> None:
    made = both_ways(both, lambda library: library.backend.make_cache_key(key))
    assert made[0] == theirs or made[0] == f"{theirs}:"
    assert made[1] is TypeError


class Masked(str):
    """As a secret's class may be."""

    def __format__(self, spec: str) -> str:
        return "****"


def test_a_string_key_counts_by_its_own_characters(both: Parity) -> None:
    def memoize(library: Library) -> list[Any]:
        return [
            list(library.backend.cache_memoize_iter(Masked(key), [f"of {key}"], force_overwrite=key == "b", **PLAIN))
            for key in "aba"
        ]

    # The second one's chunk lies over the first one's.
    theirs, ours = both_ways(both, memoize)
    assert theirs == [["of a"], ["of b"], ["of b"]]
    assert ours == [["of a"], ["of b"], ["of a"]]


def test_the_expiration_is_read_at_call_time(both: Parity) -> None:
    with override_settings(CACHE_EXPIRATION_TIME=5):
        trials = [
            both.run(library, lambda library: library.backend.cache_memoize("key", int)) for library in both.libraries
        ]
    assert [trial.writes for trial in trials] == [
        ["set example.com:key for 2592000 s"],
        ["set example.com:key for 5 s"],
    ]


def test_settings_are_left_alone(both: Parity) -> None:
    def read_setting(library: Library) -> Any:
        from django.conf import settings

        with override_settings(DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY="k" * 16):
            library.backend.make_cache_key("key", use_encryption=True)
            return settings.DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY

    assert both_ways(both, read_setting) == [b"k" * 16, "k" * 16]


def test_each_piece_is_given_out_before_the_next_is_asked_for(both: Parity) -> None:
    def asked(library: Library) -> list[int]:
        seen: list[int] = []
        counts: list[int] = []

        def pieces() -> Iterator[bytes]:
            for number in range(3):
                seen.append(number)
                yield b"piece"

        for _ in library.crypto.aes_encrypt_iter(pieces()):
            counts.append(len(seen))
        return counts

    assert both_ways(both, asked) == [[2, 3, 3], [1, 2, 3]]


def ask_a_dead_redis(library: Library, redis: Any, action: Action) -> list[str]:
    """What an action asks of a cache that can't be reached."""
    asked = []

    def refuse(name: str) -> Any:
        def ask(*args: Any, **kwargs: Any) -> Any:
            asked.append(name)
            raise redis.ConnectionError("no server")

        return ask

    names = ("get", "get_many", "add", "touch", "set", "set_many", "delete")
    with replaced(caches["default"], **{name: refuse(name) for name in names}), suppress(redis.ConnectionError):
        action(library)
    return asked


def test_a_cache_that_cannot_be_reached_is_asked_once(both: Parity) -> None:
    redis = pytest.importorskip("redis", reason="redis isn't installed")

    def memoize(library: Library) -> list[list[str]]:
        return [
            ask_a_dead_redis(library, redis, lambda library: library.backend.cache_memoize("key", int)),
            ask_a_dead_redis(library, redis, memoize_iter_all(["item"])),
            ask_a_dead_redis(library, redis, memoize_iter_all(["item"], force_overwrite=True)),
        ]

    assert both_ways(both, memoize) == [
        [["get", "set"], ["get", "set"], ["set"]],
        [["get"], ["get"], ["delete"]],
    ]


def memoize_iter_all(items: Any, **options: Any) -> Action:
    return lambda library: list(library.backend.cache_memoize_iter("key", items, **options))


def limited(library: Library, method: str, when: str, action: Action) -> Any:
    """Let a time limit come in while the cache is asked."""
    limit = type("JobTimeoutException", (Exception,), {"__module__": "rq.timeouts"})
    original = getattr(caches["default"], method)

    def ask(key: str, *args: Any, **kwargs: Any) -> Any:
        if when in key:
            raise limit("time is up")
        return original(key, *args, **kwargs)

    with replaced(caches["default"], **{method: ask}):
        try:
            return action(library)
        except limit:
            return "ended"


@pytest.mark.parametrize("method", ["get", "set"])
def test_a_time_limit_ends_the_task(both: Parity, method: str) -> None:
    def memoize(library: Library) -> Any:
        return limited(library, method, "key", lambda library: library.backend.cache_memoize("key", lambda: "computed"))

    assert both_ways(both, memoize) == ["computed", "ended"]


def test_a_lock_that_ended_early_is_warned_of(both: Parity) -> None:
    def memoize(library: Library) -> Any:
        lock = library.locks.CacheLock("lock", lock_expiration_secs=0.01)
        library.backend.cache_memoize("key", lambda: time.sleep(0.05), lock=lock)

    theirs, ours = (both.run(library, memoize).logs for library in both.libraries)
    assert [line for line in theirs if line.startswith("WARNING")] == []
    assert [line for line in theirs if "which already expired from cache" in line]
    assert ["ended before its owner did" in line for line in ours if line.startswith("WARNING")] == [True]


def test_threads_that_share_a_lock_are_told(both: Parity) -> None:
    def memoize(library: Library) -> str:
        lock = library.locks.CacheLock("lock", retry_secs=0.01, timeout_secs=0.1)
        lock.acquire()
        other = threading.Thread(
            target=library.backend.cache_memoize, args=("key", lambda: "value"), kwargs={"lock": lock}
        )
        library.backend.make_cache_key("key")
        other.start()
        other.join()
        held = lock.locked()
        if held:
            lock.release()
        return "held" if held else "released by the other"

    theirs, ours = (both.run(library, memoize) for library in both.libraries)
    assert [theirs.value, ours.value] == ["released by the other", "held"]
    assert [line for line in theirs.logs if line.startswith("ERROR")] == []
    assert ["is held by another thread" in line for line in ours.logs if line.startswith("ERROR")] == [True]


def test_a_wait_ends_though_the_clock_stands_still(both: Parity) -> None:
    def wait(library: Library) -> str:
        lock = library.locks.CacheLock("lock", timeout_secs=0.05, retry_secs=0.01)
        cache.set(lock.full_cache_key, "another owner's")
        naps = iter(range(100))
        nap = time.sleep

        def sleep(secs: float) -> None:
            if next(naps) > 50:
                raise InterruptedError("it would go on for ever")
            nap(secs)

        with patch.object(time, "monotonic", return_value=1.0), patch.object(time, "sleep", sleep):
            lock.acquire()
        return "acquired"

    assert both_ways(both, wait) == [InterruptedError, TimeoutError]
