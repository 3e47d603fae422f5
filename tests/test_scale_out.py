"""Caches of several servers, some of which fail: docs/scale-out.md, with the settings that stand there.

What is read must be what was stored, or computed anew. Everything in here is bounded in time.
"""

from __future__ import annotations

import random
import re
import socket
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Any
from unittest.mock import Mock

import pytest
from django.core.cache import cache, caches
from django.core.cache.backends.base import BaseCache
from django.test import override_settings

from fastblets.cache.backend import CACHE_CHUNK_SIZE, cache_memoize, cache_memoize_iter, make_cache_key
from fastblets.cache.errors import CacheRefusedError, UnreachableError
from fastblets.cache.options import Tag
from fastblets.cache.policy import CachePolicy
from fastblets.cache.tags import invalidate_tags
from fastblets.cache.values import (
    cache_add,
    cache_delete,
    cache_delete_many,
    cache_expire,
    cache_get_many,
    cache_set,
    cache_set_many,
)
from fastblets.protect.locks import CacheLock
from tests.backends import Config, use_cache
from tests.parity import RecordingCache
from tests.test_docs import DOCS, python_blocks
from tools.servers import HOST, Memcached, Redis, Sentinel, Server, free_port, missing_servers

PAGE = DOCS / "scale-out.md"
PATIENCE = 30.0

#: Noise, since it can't be compressed: several chunks.
NOISE = random.Random(11).randbytes(3 * CACHE_CHUNK_SIZE // 2)


def documented(*marks: str) -> dict[str, Any]:
    """The names that are set by the page's one block that has all these marks."""
    (block,) = [block for block in python_blocks(PAGE) if all(mark in block for mark in marks)]
    names: dict[str, Any] = {}
    exec(block, names)
    return names


def settings_for(*marks: str, location: object, **options: object) -> Config:
    config: Config = documented("CACHES", *marks)["CACHES"]["default"]
    return {**config, "LOCATION": location, "OPTIONS": {**config["OPTIONS"], **options}}


def patient(config: Config) -> Config:
    """The same for tests in which nothing is to fail, however busy the machine is."""

    def wait(options: dict[str, Any]) -> dict[str, Any]:
        return {
            name: wait(value) if isinstance(value, dict) else value * 40 if name.endswith("timeout") else value
            for name, value in options.items()
        }

    return {**config, "OPTIONS": wait(config["OPTIONS"])}


@contextmanager
def running(*servers: Server) -> Iterator[None]:
    for server in servers:
        if server.program in missing_servers():
            pytest.skip(f"{server.program} isn't installed")
    with ExitStack() as stack:
        for server in servers:
            stack.enter_context(server)
        yield


def ask(server: Server, *words: str) -> str:
    """What a server answers to a command, in its own words."""
    with socket.create_connection((HOST, server.port), timeout=5) as connection:
        connection.sendall((" ".join(words) + "\r\n").encode())
        answer = connection.recv(65536)
        # Of a long one, Redis says the length; memcached ends it with a word.
        if answer.startswith(b"$"):
            head = answer.index(b"\r\n")
            while len(answer) < head + 4 + int(answer[1:head]):
                answer += connection.recv(65536)
        while answer.startswith(b"STAT") and not answer.endswith(b"END\r\n"):
            answer += connection.recv(65536)
        return answer.decode()


def figure(server: Server, name: str, *words: str) -> int:
    found = re.search(rf"\b{name}[ :=](\d+)", ask(server, *words))
    return int(found[1]) if found else 0


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def is_up(replica: Redis) -> bool:
    return "master_link_status:up" in ask(replica, "INFO", "replication")


def never() -> Any:
    pytest.fail("It is in the cache, but was computed")


def generation(number: int) -> list[tuple[int, bytes]]:
    """Items that say of which generation they are: two chunks and a bit."""
    return [(number, NOISE[:CACHE_CHUNK_SIZE]), (number, NOISE[CACHE_CHUNK_SIZE:]), (number, b"end")]


def is_whole(items: list[tuple[int, bytes]]) -> bool:
    return items == generation(items[0][0])


def read(key: str, number: int, **options: Any) -> list[tuple[int, bytes]]:
    return list(cache_memoize_iter(key, lambda: generation(number), **options))


# Several memcached servers.


def pymemcache(servers: list[Memcached]) -> Config:
    pytest.importorskip("pymemcache", reason="pymemcache isn't installed")
    return settings_for("PyMemcacheCache", location=[server.address for server in servers], dead_timeout=1)


def pylibmc(servers: list[Memcached]) -> Config:
    pytest.importorskip("pylibmc", reason="pylibmc isn't installed")
    config = settings_for("PyLibMCCache", location=[server.address for server in servers])
    config["OPTIONS"]["behaviors"]["dead_timeout"] = 1
    return config


CLIENTS = pytest.mark.parametrize("client", [pymemcache, pylibmc])


@pytest.fixture
def three() -> Iterator[list[Memcached]]:
    servers = [Memcached() for _ in range(3)]
    with running(*servers):
        yield servers


@CLIENTS
def test_keys_are_spread_over_all_servers(client: Any, three: list[Memcached], db: None) -> None:
    with use_cache(patient(client(three))):
        for number in range(60):
            cache_memoize(f"key {number}", lambda number=number: number)  # type: ignore[misc]
        assert all(figure(server, "curr_items", "stats") >= 5 for server in three)
        assert [cache_memoize(f"key {number}", never) for number in range(60)] == list(range(60))
        for server in three:
            ask(server, "flush_all")

        # One entry, too.
        many = [NOISE[:CACHE_CHUNK_SIZE]] * 20
        list(cache_memoize_iter("large", many, compress_large_data=False))
        assert all(figure(server, "curr_items", "stats") >= 1 for server in three)
        assert list(cache_memoize_iter("large", never, compress_large_data=False)) == many


@CLIENTS
def test_deleting_while_a_server_is_down(client: Any, three: list[Memcached], db: None) -> None:
    names = [f"key {number}" for number in range(60)]
    with use_cache(patient(client(three))):
        assert cache_set_many(dict.fromkeys(names, "old")) == []
        assert cache_delete_many(names) == names
        assert cache_get_many(names) == {}
        assert cache_set_many(dict.fromkeys(names, "old")) == []
        three[0].stop()
        errors = 0

        def is_done() -> bool:
            nonlocal errors
            try:
                cache_delete_many(names)
            except (CacheRefusedError, UnreachableError):
                errors += 1
                return False
            return True

        # Until the client takes the server out, and others stand in.
        eventually(is_done)
        assert errors >= 1
        assert cache_get_many(names) == {}


class Traffic:
    """Threads that read, write and overwrite until they are told to stop, and note what is wrong."""

    def __init__(self) -> None:
        self.rounds = 0
        self.wrong: list[str] = []
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(seed,), daemon=True) for seed in range(2)]

    def __enter__(self) -> Traffic:
        # Threads have no part in the test's database: the site has to be known ahead.
        make_cache_key("key")
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(PATIENCE)
        assert not any(thread.is_alive() for thread in self._threads)
        assert self.wrong == []

    def goes_on(self) -> None:
        """Wait until each thread has been through everything a few times more."""
        goal = self.rounds + 20
        eventually(lambda: self.rounds >= goal)

    def _run(self, seed: int) -> None:
        choice = random.Random(seed)
        try:
            while not self._end.is_set():
                self._round(choice)
                self.rounds += 1
        except BaseException as error:
            self.wrong.append(repr(error))
        finally:
            cache.close()

    def _round(self, choice: random.Random) -> None:
        name = f"small {choice.randrange(30)}"
        self._check(name, cache_memoize(name, lambda: name) == name)
        name = f"secret {choice.randrange(30)}"
        self._check(name, cache_memoize(name, lambda: name, use_encryption=True) == name)
        name = f"large {choice.randrange(3)}"
        items = read(name, choice.randrange(1000), force_overwrite=choice.random() < 0.3)
        self._check(name, is_whole(items))
        name = f"locked {choice.randrange(3)}"
        lock = CacheLock(lock_expiration_secs=2, retry_secs=0.01, timeout_secs=5)
        self._check(name, is_whole(read(name, 0, lock=lock, use_encryption=True)))

    def _check(self, name: str, right: bool) -> None:
        if not right:
            self.wrong.append(name)


@CLIENTS
@pytest.mark.slow
def test_a_server_is_killed_and_comes_back_in_the_middle_of_it_all(
    client: Any, three: list[Memcached], db: None
) -> None:
    victim = three[1]
    with use_cache(client(three)), Traffic() as traffic:
        traffic.goes_on()
        assert figure(victim, "curr_items", "stats") > 0
        victim.kill()
        traffic.goes_on()
        victim.restart()
        # It is empty now, and gets its part again.
        eventually(lambda: figure(victim, "curr_items", "stats") > 0)
        traffic.goes_on()


@CLIENTS
@pytest.mark.slow
@pytest.mark.parametrize("position", range(3))
def test_a_server_dies_while_an_entry_is_overwritten(
    client: Any, position: int, three: list[Memcached], db: None
) -> None:
    def source() -> Iterator[tuple[int, bytes]]:
        for index, item in enumerate(generation(2)):
            if index == 1:
                three[position].kill()
            yield item

    with use_cache(client(three)):
        assert read("large", 1) == generation(1)
        assert list(cache_memoize_iter("large", source, force_overwrite=True)) == generation(2)
        eventually(is_cached)
        three[position].restart()
        # For longer than the client leaves it out.
        for _ in range(30):
            is_cached()
            time.sleep(0.05)
        eventually(is_cached)


@pytest.mark.parametrize(
    ("kind", "module", "options"),
    [
        ("PyMemcacheCache", "pymemcache", {"default_noreply": True}),
        ("PyLibMCCache", "pylibmc", {"behaviors": {"_noreply": True}}),
    ],
)
def test_a_client_that_does_not_wait_for_answers(
    kind: str, module: str, options: dict[str, Any], db: None, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip(module)
    config = {"BACKEND": f"django.core.cache.backends.memcached.{kind}", "OPTIONS": options}
    server = Memcached(item_size="512k")
    with running(server), use_cache({**config, "LOCATION": server.address}):
        with CacheLock("lock"), CacheLock("lock", blocking=False) as other:
            assert other.locked()
        for _ in range(2):
            source = Mock(return_value=NOISE)
            cache_memoize("large", source, large_data=True)
            source.assert_called_once()
    # That the chunks were refused, which is logged with any other client.
    assert not re.search("Unable to store|Error setting|Failed to store", caplog.text)


def test_the_answers_of_such_a_client_get_mixed_up(db: None) -> None:
    config = {"BACKEND": "django.core.cache.backends.memcached.PyMemcacheCache", "OPTIONS": {"default_noreply": True}}
    server = Memcached()
    with running(server), use_cache({**config, "LOCATION": server.address}):
        cache.set("good", 1)
        assert cache.get("good") == 1
        # The server refuses that.
        cache.set("bad", 1, sys.maxsize)
        with pytest.raises(Exception, match=r"get|bad command"):
            cache.get("good")


_numbers = count(100)


def is_cached() -> bool:
    """Whether an entry is read rather than computed; whole it must be anyway."""
    number = next(_numbers)
    items = read("large", number)
    assert is_whole(items)
    return items[0][0] != number


@CLIENTS
def test_a_frozen_server_costs_its_timeout(client: Any, three: list[Memcached], db: None) -> None:
    with use_cache(client(three)):
        for number in range(30):
            cache_memoize(f"key {number}", lambda number=number: number)  # type: ignore[misc]
        three[0].freeze()
        found = [cache_memoize(f"key {number}", lambda number=number: number) for number in range(30)]  # type: ignore[misc]
        assert found == list(range(30))
        three[0].thaw()


# Redis with a replica.


@contextmanager
def replicated() -> Iterator[tuple[Redis, Redis]]:
    primary = Redis()
    with running(primary):
        # Otherwise a primary waits for more replicas, for five seconds.
        ask(primary, "CONFIG SET repl-diskless-sync-delay 0")
        replica = Redis("--replicaof", HOST, str(primary.port))
        with running(replica):
            eventually(lambda: is_up(replica))
            yield primary, replica


def replicas_settings(primary: Redis, replica: Redis) -> Config:
    return settings_for("redis.RedisCache", location=[primary.url, replica.url])


@pytest.fixture
def pair(db: None) -> Iterator[tuple[Redis, Redis]]:
    """A primary and its replica, which are Django's default cache."""
    pytest.importorskip("redis", reason="redis isn't installed")
    with (
        replicated() as (primary, replica),
        use_cache(patient(replicas_settings(primary, replica))),
    ):
        yield primary, replica


def catch_up(primary: Redis, replica: Redis) -> None:
    written = figure(primary, "master_repl_offset", "INFO replication")
    eventually(lambda: figure(replica, "slave_repl_offset", "INFO replication") >= written)


def stop_replication(replica: Redis) -> None:
    """Let a replica stand still: it goes on to answer, with what it has by now."""
    ask(replica, "REPLICAOF NO ONE")


def test_reads_go_to_the_replica(pair: tuple[Redis, Redis]) -> None:
    primary, replica = pair
    read("large", 1)
    cache_memoize("small", lambda: 1)
    catch_up(primary, replica)
    for server in pair:
        ask(server, "CONFIG RESETSTAT")
    assert cache_memoize("small", never) == 1
    assert list(cache_memoize_iter("large", never)) == generation(1)
    assert figure(replica, "cmdstat_get:calls", "INFO commandstats") == 2
    assert figure(replica, "cmdstat_mget:calls", "INFO commandstats") == 1
    assert figure(primary, "cmdstat_m?get:calls", "INFO commandstats") == 0


@pytest.mark.parametrize("compress", [True, False])
def test_a_lagging_replica_gives_the_older_generation_whole(pair: tuple[Redis, Redis], compress: bool) -> None:
    primary, replica = pair
    read("large", 1, compress_large_data=compress)
    catch_up(primary, replica)
    stop_replication(replica)
    assert read("large", 2, force_overwrite=True, compress_large_data=compress) == generation(2)
    assert list(cache_memoize_iter("large", never, compress_large_data=compress)) == generation(1)
    # What it never got is a miss.
    assert read("new", 3, compress_large_data=compress) == generation(3)
    assert read("new", 4, compress_large_data=compress) == generation(4)


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("position", [1, 2])
def test_a_replica_that_stops_within_an_overwrite_gives_a_miss(
    pair: tuple[Redis, Redis], position: int, compress: bool
) -> None:
    primary, replica = pair

    def source() -> Iterator[tuple[int, bytes]]:
        for index, item in enumerate([*generation(2), *generation(2)]):
            if index == 2 * position:
                catch_up(primary, replica)
                stop_replication(replica)
            yield item

    read("large", 1, compress_large_data=compress)
    catch_up(primary, replica)
    assert len(list(cache_memoize_iter("large", source, force_overwrite=True, compress_large_data=compress))) == 6
    assert read("large", 3, compress_large_data=compress) == generation(3)


@pytest.mark.parametrize("fail", [Redis.kill, Redis.freeze])
def test_without_its_replica_everything_is_computed(pair: tuple[Redis, Redis], fail: Callable[[Redis], None]) -> None:
    read("large", 1)
    assert cache_memoize("small", lambda: 1) == 1
    catch_up(*pair)
    _, replica = pair
    fail(replica)
    with use_cache(replicas_settings(*pair), empty=False):
        assert cache_memoize("small", lambda: 2) == 2
        assert read("large", 2) == generation(2)


def test_a_lock_on_a_lagging_replica_ends_by_itself(pair: tuple[Redis, Redis]) -> None:
    primary, replica = pair
    stop_replication(replica)
    lock = CacheLock("lock", lock_expiration_secs=2)
    assert cache_memoize("small", lambda: 1, lock=lock) == 1
    assert not lock.locked()
    name = cache.make_key(lock.full_cache_key)
    assert ask(primary, "EXISTS", name) == ":1\r\n"
    # Who comes next waits for that, and no longer.
    assert cache_memoize("small", lambda: 2, lock=CacheLock("lock", lock_expiration_secs=2, retry_secs=0.05)) == 2


# Redis Sentinel.


@pytest.mark.slow
def test_sentinels_replace_the_primary_in_the_middle_of_it_all(db: None) -> None:
    pytest.importorskip("django_redis", reason="django-redis isn't installed")
    names = documented("SENTINELS")
    service = re.sub(r".*//|/.*", "", names["CACHES"]["default"]["LOCATION"])
    with ExitStack() as stack:
        primary, replica = stack.enter_context(replicated())
        sentinel = Sentinel(service, primary)
        stack.enter_context(running(sentinel))
        eventually(lambda: _knows(sentinel, replica))
        config = settings_for("SENTINELS", location=f"redis://{service}/0", SENTINELS=[(HOST, sentinel.port)])
        factory = names["DJANGO_REDIS_CONNECTION_FACTORY"]
        stack.enter_context(override_settings(DJANGO_REDIS_CONNECTION_FACTORY=factory))
        stack.enter_context(use_cache(config))
        traffic = stack.enter_context(Traffic())
        traffic.goes_on()
        primary.kill()
        traffic.goes_on()
        eventually(lambda: "role:master" in ask(replica, "INFO replication"))
        stored = figure(replica, "total_writes_processed", "INFO stats")
        eventually(lambda: figure(replica, "total_writes_processed", "INFO stats") > stored)
        traffic.goes_on()


def _knows(sentinel: Sentinel, replica: Redis) -> bool:
    return str(replica.port) in ask(sentinel, "SENTINEL REPLICAS", sentinel.service)


# Redis Cluster.


def clustered() -> list[Redis]:
    # The port for the servers' talk would else be their own and 10000, which may be too much.
    return [
        Redis("--cluster-enabled", "yes", "--cluster-port", str(free_port()), "--cluster-node-timeout", "1000")
        for _ in range(3)
    ]


def join(servers: list[Redis]) -> None:
    slots = 16384
    for index, server in enumerate(servers):
        first, last = slots * index // len(servers), slots * (index + 1) // len(servers) - 1
        assert "OK" in ask(server, f"CLUSTER ADDSLOTSRANGE {first} {last}")
        assert "OK" in ask(servers[0], "CLUSTER MEET", HOST, str(server.port), server.more[3])
    eventually(lambda: all("cluster_state:ok" in ask(server, "CLUSTER INFO") for server in servers))


def test_a_cluster_with_the_pages_client(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("django_redis", reason="django-redis isn't installed")
    servers = clustered()
    with running(*servers):
        join(servers)
        config = settings_for("ClusterClient", location=servers[0].url)
        module, _, name = config["OPTIONS"]["CLIENT_CLASS"].rpartition(".")
        for part in (module.partition(".")[0], module):
            monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
        setattr(sys.modules[module], name, documented(f"class {name}")[name])

        with use_cache(config):
            for number in range(30):
                cache_memoize(f"key {number}", lambda number=number: number)  # type: ignore[misc]
            assert [cache_memoize(f"key {number}", never) for number in range(30)] == list(range(30))
            assert read("large", 1) == generation(1)
            assert list(cache_memoize_iter("large", never)) == generation(1)
            assert read("large", 2, force_overwrite=True, use_encryption=True) == generation(2)
            with CacheLock("lock") as lock:
                assert not CacheLock("lock").acquire(blocking=False)
            assert not lock.locked()
            by_hand = {f"by hand {number}": number for number in range(30)}
            assert cache_set_many(by_hand) == []
            assert cache_get_many(by_hand) == by_hand
            assert cache_delete_many(by_hand) == list(by_hand)
            assert cache_get_many(by_hand) == {}
            assert all(ask(server, "DBSIZE") != ":0\r\n" for server in servers)


# What an operation costs.


@pytest.fixture
def recording(db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[RecordingCache]:
    # As a backend of Django's own, it is trusted to tell what it could not store, so that nothing is read back.
    for room in ("batch", "stamped"):
        monkeypatch.setattr(f"fastblets.cache.{room}.tells_refusals", lambda _: True)
    backend = f"{RecordingCache.__module__}.{RecordingCache.__name__}"
    with use_cache({"BACKEND": backend, "LOCATION": "scale-out", "OPTIONS": {"MAX_ENTRIES": 10_000}}) as recording:
        assert isinstance(recording, RecordingCache)
        yield recording


def chunks(number: int) -> bytes:
    """What takes so many chunks, uncompressed: a pickle has a little around it."""
    return b"x" * ((number - 1) * CACHE_CHUNK_SIZE + 1000)


TAGS: list[Tag] = ["reports", ("user", "7")]
POLICY = CachePolicy(stale_while_revalidate=60, stale_if_error=60)
UNFENCED = CachePolicy(fence=False)
PLAIN = {"large_data": True, "compress_large_data": False}
#: Each operation: what is done ahead, and what is counted.
OPERATIONS: dict[str, tuple[Callable[[], object], ...]] = {
    "small, hit": (lambda: cache_memoize("key", lambda: 1), lambda: cache_memoize("key", never)),
    "small, miss": (lambda: cache_memoize("key", lambda: 1),),
    "small, encrypted, hit": (
        lambda: cache_memoize("key", lambda: 1, use_encryption=True),
        lambda: cache_memoize("key", never, use_encryption=True),
    ),
    "large, hit, up to 64 chunks": (
        lambda: store_noise(3),
        lambda: list(cache_memoize_iter("key", never)),
    ),
    "large, hit, 65 to 128 chunks": (
        lambda: store_noise(80),
        lambda: list(cache_memoize_iter("key", never)),
    ),
    "large, not compressed, hit": (
        lambda: cache_memoize("key", lambda: chunks(3), **PLAIN),
        lambda: cache_memoize("key", never, **PLAIN),
    ),
    "large, miss, one chunk": (lambda: cache_memoize("key", lambda: chunks(1), **PLAIN),),
    "large, miss, three chunks": (lambda: cache_memoize("key", lambda: chunks(3), **PLAIN),),
    "iterable, miss, three chunks in one item each": (
        lambda: list(cache_memoize_iter("key", [chunks(2), chunks(2), b"end"], compress_large_data=False)),
    ),
    "small, miss, with a lock": (lambda: cache_memoize("key", lambda: 1, lock=CacheLock("lock")),),
    "small, hit, with a lock": (
        lambda: cache_memoize("key", lambda: 1),
        lambda: cache_memoize("key", never, lock=CacheLock("lock")),
    ),
    "`cache_get()`, `cache_exists()` of a small value; `cache_get_many()` of any number": (
        lambda: cache_set("key", 1),
        lambda: cache_get_many(["key", *map(str, range(100))]),
    ),
    "`cache_get_many()` of large values, up to 64 chunks together": (
        lambda: cache_set_many({"key": chunks(3), "other": chunks(2)}, large_data=True),
        lambda: cache_get_many(["key", "other"], large_data=True),
    ),
    "`cache_set()` of a small value; `cache_set_many()` of any number": (
        lambda: cache_set_many({str(number): number for number in range(100)}),
    ),
    "`cache_set()` of a large value; `cache_set_many()` of large ones, up to 64 chunks together": (
        lambda: cache_set_many({"key": chunks(3), "other": chunks(40), "third": chunks(21)}, **PLAIN),
    ),
    "`cache_add()`": (lambda: cache_add("key", 1),),
    "`cache_delete()` of a small value; `cache_delete_many()` of up to 64": (
        lambda: cache_set("0", 1),
        lambda: cache_delete_many(map(str, range(64))),
    ),
    "`cache_delete()` of a large value": (
        lambda: cache_set("key", chunks(3), **PLAIN),
        lambda: cache_delete("key"),
    ),
    "`cache_delete(large_data=True)`": (
        lambda: cache_set("key", chunks(3), **PLAIN),
        lambda: cache_delete("key", large_data=True),
    ),
    "small, with tags, hit": (
        lambda: cache_memoize("key", lambda: 1, tags=TAGS),
        lambda: cache_memoize("key", never, tags=TAGS),
    ),
    "small, with tags, miss": (lambda: know(TAGS), lambda: cache_memoize("key", lambda: 1, tags=TAGS)),
    "small, encrypted, with tags, miss": (
        lambda: know(TAGS),
        lambda: cache_memoize("key", lambda: 1, tags=TAGS, use_encryption=True),
    ),
    "large, with tags, hit, up to 64 chunks": (
        lambda: cache_memoize("key", lambda: chunks(3), large_data=True, tags=TAGS),
        lambda: cache_memoize("key", never, large_data=True, tags=TAGS),
    ),
    "large, with tags, miss, one chunk": (
        lambda: know(TAGS),
        lambda: cache_memoize("key", lambda: 1, large_data=True, tags=TAGS),
    ),
    "small, with two tags that nobody used before, miss": (lambda: cache_memoize("key", lambda: 1, tags=TAGS),),
    "`invalidate_tags()` of any number": (
        lambda: know(TAGS),
        lambda: invalidate_tags(*TAGS),
    ),
    "small, with a policy, hit": (
        lambda: cache_memoize("key", lambda: 1, policy=POLICY),
        lambda: cache_memoize("key", never, policy=POLICY),
    ),
    "small, encrypted, with a policy without a fence, hit": (
        lambda: cache_memoize("key", lambda: 1, policy=UNFENCED, use_encryption=True),
        lambda: cache_memoize("key", never, policy=UNFENCED, use_encryption=True),
    ),
    "large, with a policy, hit, up to 64 chunks": (
        lambda: cache_memoize("key", lambda: chunks(3), policy=POLICY, large_data=True),
        lambda: cache_memoize("key", never, policy=POLICY, large_data=True),
    ),
    "small, with a policy, miss": (lambda: cache_memoize("key", lambda: 1, policy=POLICY),),
    "small, encrypted, with a policy, miss": (
        lambda: cache_memoize("key", lambda: 1, policy=POLICY, use_encryption=True),
    ),
    "large, with a policy, miss, one chunk": (lambda: cache_memoize("key", lambda: 1, policy=POLICY, large_data=True),),
    "small, with a policy, expired, another caller computes": (
        lambda: expired(1),
        lambda: cache.add(make_cache_key("_lock_:key"), "the other caller"),
        lambda: cache_memoize("key", never, policy=POLICY),
    ),
    "small, with a policy, expired, this caller computes": (
        lambda: expired(1),
        lambda: cache_memoize("key", lambda: 2, policy=POLICY),
    ),
    "small, with a policy, expired, computing fails": (
        lambda: expired(1),
        lambda: cache_memoize("key", fail, policy=POLICY),
    ),
    "`cache_expire()` of a small value, with a policy": (
        lambda: cache_memoize("key", lambda: 1, policy=POLICY),
        lambda: cache_expire("key", policy=POLICY),
    ),
}


def fail() -> Any:
    raise LookupError("the source fails")


def expired(value: int) -> None:
    """Store a value that has expired."""
    cache_memoize("key", lambda: value, policy=POLICY)
    cache_expire("key", policy=POLICY)


def know(tags: list[Tag]) -> None:
    """Give the tags their tokens."""
    cache_memoize("another key", lambda: 1, tags=tags)


def store_noise(items: int) -> None:
    """A compressed entry of so many chunks and a few: noise keeps its size."""
    noise = random.Random(5).randbytes(CACHE_CHUNK_SIZE)
    list(cache_memoize_iter("key", (noise[index:] + noise[:index] for index in range(items))))


def documented_costs() -> dict[str, list[str]]:
    section = PAGE.read_text().partition("## What an operation costs")[2]
    rows = re.findall(r"^\| (.+?) \| (`.+`) \|$", section, re.MULTILINE)
    return {name: re.findall(r"`(\w+)`", calls) for name, calls in rows}


def test_each_operation_of_the_page_is_counted() -> None:
    assert list(documented_costs()) == list(OPERATIONS)


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_costs_what_the_page_says(name: str, recording: RecordingCache) -> None:
    *ahead, counted = OPERATIONS[name]
    for step in ahead:
        step()
    recording.calls.clear()
    counted()
    assert [call.partition(" ")[0] for call in recording.calls] == documented_costs()[name]


def test_the_default_cache_is_back() -> None:
    assert isinstance(caches["default"], BaseCache)
    assert not isinstance(caches["default"], RecordingCache)
