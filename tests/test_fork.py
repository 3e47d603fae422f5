"""Forked processes, on real servers: a child uses no connection of its parent's, and ends nothing of its parent's."""

from __future__ import annotations

import ctypes
import json
import logging
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import cache, caches
from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.locmem import LocMemCache

from fastblets.cache import fork
from fastblets.cache.backend import cache_memoize, cache_memoize_iter, make_cache_key
from fastblets.cache.synchronizer import GenerationSynchronizer
from fastblets.protect.locks import CacheLock
from tests.backends import Backend, Config, Needs, chosen, use_cache

pytestmark = [
    pytest.mark.linux("fork"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded"),
]

ROOT = Path(__file__).parent.parent
PATIENCE = 30
PROCESSES = 3
ROUNDS = 100
SHARED = [backend for backend in chosen() if backend.name in ("pymemcache", "pylibmc", "redis", "django_redis")]
CHUNKS = ["a" * 1_500_000, "b" * 1_500_000, "c"]
# The client that a fork hurts most: it ends its parent's connection when it is destroyed.
EVERY_DAY_TOO = {"pylibmc": [pytest.mark.every_backend]}


@pytest.fixture(
    params=[
        pytest.param(b, id=b.name, marks=[getattr(pytest.mark, b.name), *EVERY_DAY_TOO.get(b.name, ())]) for b in SHARED
    ]
)
def config(request: pytest.FixtureRequest, tmp_path: Path, db: None) -> Config:
    """The settings of a cache in a server."""
    backend: Backend = request.param
    if not backend.installed:
        pytest.skip(f"{backend.module} isn't installed")
    needs = Needs(
        directory=tmp_path,
        memcached=lambda: request.getfixturevalue("memcached"),
        redis=lambda: request.getfixturevalue("redis"),
    )
    return backend.config(needs)


@pytest.fixture
def shared(config: Config) -> Iterator[BaseCache]:
    """That cache as the default one, empty, and with a connection that is in use."""
    with use_cache(config) as shared:
        make_cache_key("key")
        assert cache_memoize("warm", lambda: "up") == cache_memoize("warm", int) == "up"
        yield shared


def hidden_fork() -> int:
    """Fork as C code may that doesn't tell Python, such as uWSGI's."""
    return ctypes.CDLL(None).fork()


def half_hidden_fork() -> int:
    """Fork as C code may that only tells Python in the child, such as uWSGI's with py-call-osafterfork."""
    pid = hidden_fork()
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
    return pid


FORKS = [os.fork, hidden_fork]

# Python 3.13 ends such a child itself: "unlocking a recursive mutex that is not owned by the current thread".
if sys.version_info < (3, 13):
    FORKS.append(half_hidden_fork)


class Child:
    """A forked child that calls a function, says what comes of it, and ends at once."""

    def __init__(self, function: Callable[[], Any], way: Callable[[], int] = os.fork) -> None:
        sys.stdout.flush()
        self._reading, writing = os.pipe()
        self._pid = way()
        if self._pid:
            os.close(writing)
            return
        try:
            # Not pytest's.
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(PATIENCE)
            try:
                result = function()
            except BaseException as e:
                result = repr(e)
            os.write(writing, pickle.dumps(result))
        finally:
            os._exit(0)

    def result(self) -> Any:
        with os.fdopen(self._reading, "rb") as pipe:
            said = pipe.read()
        os.waitpid(self._pid, 0)
        assert said, "the child stood still"
        return pickle.loads(said)


def in_child(function: Callable[[], Any], way: Callable[[], int] = os.fork) -> Any:
    return Child(function, way).result()


def count_wrong(name: str, get: Callable[[str], Any], rounds: int = ROUNDS) -> int:
    """Ask for this process's own values only, and count what else comes back."""
    keys = [f"{name}-{number}" for number in range(10)]
    return sum(get(key) != key for _ in range(rounds // 10) for key in keys)


def memoize(key: str) -> Any:
    return cache_memoize(key, lambda: key)


def memoize_large(key: str) -> Any:
    return cache_memoize(key, lambda: key, large_data=True)


def ask_cache(key: str) -> Any:
    cache.set(key, key, 60)
    return cache.get(key)


def ask_lock(key: str) -> Any:
    with CacheLock(key) as lock:
        return key if cache.get(lock.full_cache_key) == lock.token else None


def ask_synchronizer(key: str) -> Any:
    synchronizer = GenerationSynchronizer(key)
    synchronizer.mark_updated()
    return key if cache.get(synchronizer.cache_key) == synchronizer.sync_gen else None


@pytest.mark.parametrize("way", FORKS)
@pytest.mark.parametrize("get", [memoize, memoize_large, ask_lock, ask_synchronizer])
def test_no_process_gets_what_another_asked_for(shared: BaseCache, get: Any, way: Any) -> None:
    rounds = ROUNDS if get is memoize else ROUNDS // 5
    children = [Child(lambda n=n: count_wrong(f"child-{n}", get, rounds), way) for n in range(PROCESSES)]
    mine = count_wrong("parent", get, rounds)
    assert [child.result() for child in children] == [0] * PROCESSES
    assert mine == 0


@pytest.mark.parametrize("alias", ["default", "other"])
def test_djangos_own_caches_do_not_either(config: Config, alias: str) -> None:
    with use_cache(config):
        from django.conf import settings

        settings.CACHES["other"] = config
        asked = caches[alias]
        asked.set("key", 1)
        context = copy_context()

        def ask(key: str) -> Any:
            caches[alias].set(key, key, 60)
            return caches[alias].get(key)

        def ask_kept(key: str) -> Any:
            asked.set(key, key, 60)
            return asked.get(key)

        children = [
            Child(lambda: count_wrong("child", ask)),
            Child(lambda: context.run(count_wrong, "context", ask)),
            Child(lambda: count_wrong("kept", ask_kept)),
        ]
        mine = count_wrong("parent", ask)
        assert [child.result() for child in children] == [0, 0, 0]
        assert mine == 0


def test_a_grandchild_does_not_either(shared: BaseCache) -> None:
    def child() -> list[int]:
        memoize("child")
        grandchild = Child(lambda: count_wrong("grandchild", memoize))
        return [count_wrong("child", memoize), grandchild.result()]

    assert in_child(child) == [0, 0]


def test_multiprocessing(shared: BaseCache) -> None:
    pool = multiprocessing.get_context("fork").Pool(PROCESSES)
    with pool:
        wrong = pool.starmap_async(count_wrong, [(f"child-{n}", memoize) for n in range(PROCESSES)])
        mine = count_wrong("parent", memoize)
        assert wrong.get(PATIENCE) == [0] * PROCESSES
        assert mine == 0


def test_a_child_that_comes_out_of_a_computation(shared: BaseCache) -> None:
    def compute() -> str:
        global forked
        forked = os.fork()
        return "child" if forked == 0 else "parent"

    parent = os.getpid()
    try:
        value = cache_memoize("forking", compute)
        wrong = count_wrong(value, memoize)
    finally:
        if os.getpid() != parent:
            os._exit(1 if wrong or value != "child" else 0)
    assert (value, wrong, os.waitpid(forked, 0)[1]) == ("parent", 0, 0)


# With half of the hooks CPython clears the other threads' contexts before anything of ours is called.
@pytest.mark.parametrize("way", [os.fork, hidden_fork])
def test_clients_of_other_threads_survive(shared: BaseCache, way: Any) -> None:
    begun, go = threading.Event(), threading.Event()
    found: list[Any] = []

    def work() -> None:
        # Django's cache alone, without us.
        cache.set("thread", "right")
        begun.set()
        go.wait(PATIENCE)
        with suppress(Exception):
            found.append(cache.get("thread"))

    thread = threading.Thread(target=work)
    thread.start()
    begun.wait(PATIENCE)
    assert in_child(lambda: memoize("child"), way) == "child"
    go.set()
    thread.join()
    assert found == ["right"]
    assert memoize("parent") == "parent"


SCRIPT = """
import ctypes, json, os, sys
from contextlib import suppress
import django
from django.conf import settings

config, way, end = json.loads(sys.argv[1])
settings.configure(CACHES={"default": config})
django.setup()

from django.core.cache import cache, caches
from fastblets.cache.backend import cache_memoize

def ask():
    return cache_memoize("key", lambda: "right")

ask()
ask()
pid = os.fork() if way == "os" else ctypes.CDLL(None).fork()

if pid == 0:
    if "asks" in end:
        ask()
    if "deletes" in end:
        with suppress(AttributeError):
            del caches["default"]
    sys.exit(0)

os.waitpid(pid, 0)
print(json.dumps([cache.get("key") for _ in range(3)]))
"""


@pytest.mark.parametrize(
    ("way", "end"),
    [
        *(("os", end) for end in ("ends", "asks", "asks, deletes", "deletes")),
        # Not "deletes": that is Django's own doing, before anything of ours is called.
        *(("hidden", end) for end in ("ends", "asks", "asks, deletes")),
    ],
)
def test_the_parents_connection_survives_the_childs_end(config: Config, way: str, end: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps([config, way, end])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (done.stdout, done.stderr) == (json.dumps(["right"] * 3) + "\n", "")


def test_caches_in_memory_keep_what_they_have(locmem: BaseCache) -> None:
    memoize("key")
    assert in_child(lambda: cache_memoize("key", lambda: "computed again")) == "key"
    assert in_child(lambda: cache.get(make_cache_key("key")) == "key")


def test_a_cache_that_was_set_by_hand_stays(locmem: BaseCache) -> None:
    caches["default"] = by_hand = LocMemCache("by hand", {})
    try:
        assert in_child(lambda: caches["default"] is by_hand)
    finally:
        caches["default"] = locmem


class Slow:
    """It is unpickled slowly, which LocMem does in its `incr()` while it is locked."""

    def __init__(self) -> None:
        self.value = 0

    def __setstate__(self, state: Any) -> None:
        inside.set()
        time.sleep(0.3)
        self.__dict__ = state

    def __add__(self, other: int) -> Slow:
        return self


class Forking(Slow):
    """It forks while it is counted up, and LocMem is locked by this very thread."""

    def __setstate__(self, state: Any) -> None:
        self.__dict__ = state

    def __add__(self, other: int) -> Any:
        global forked
        forked = os.fork()
        return self


inside = threading.Event()
forked = 0


def test_a_thread_inside_a_cache_in_memory_is_waited_for(locmem: BaseCache) -> None:
    cache.set("slow", Slow())
    cache.set("key", "kept")
    inside.clear()
    thread = threading.Thread(target=lambda: cache.incr("slow"))
    thread.start()
    inside.wait(PATIENCE)
    assert in_child(lambda: cache.get("key")) == "kept"
    thread.join()


def test_a_thread_that_stays_inside_a_cache_in_memory(locmem: BaseCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fork waits no longer. The child unlocks that cache, and empties it."""
    monkeypatch.setattr(fork, "LOCMEM_TIMEOUT", 0.1)
    cache.set("key", "value")
    entered, done = threading.Event(), threading.Event()

    def stay() -> None:
        with vars(locmem)["_lock"]:
            entered.set()
            done.wait(PATIENCE)

    thread = threading.Thread(target=stay)
    thread.start()
    entered.wait(PATIENCE)
    try:
        assert in_child(lambda: [cache.get("key"), ask_cache("key")]) == [None, "key"]
    finally:
        done.set()
        thread.join()
    assert cache.get("key") == "value"


def test_a_fork_inside_a_cache_in_memory(locmem: BaseCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fork, "LOCMEM_TIMEOUT", 0.1)
    cache.set("forking", Forking())
    try:
        cache.incr("forking")
        works = ask_cache("key") == "key"
    finally:
        if forked == 0:
            os._exit(0 if works else 1)
    assert works
    assert os.waitpid(forked, 0)[1] == 0


def test_a_thread_that_enters_at_the_last_moment(locmem: BaseCache) -> None:
    """The lock that it holds in the parent would never be released in the child."""
    cache.set("key", "value")
    lock = vars(locmem)["_lock"]

    def between() -> int:
        fork._before()
        lock.acquire()
        pid = hidden_fork()
        if pid == 0:
            fork._after_in_child()
        else:
            lock.release()
            fork._after_in_parent()
        return pid

    assert in_child(lambda: ask_cache("key"), between) == "key"
    assert cache.get("key") == "value"


def test_an_error_in_a_projects_caches_breaks_no_fork(locmem: BaseCache, capfd: pytest.CaptureFixture[str]) -> None:
    class Broken:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("broken")

    connections = caches._connections
    caches._connections = Broken()
    try:
        assert in_child(lambda: ask_cache("key")) == "key"
    finally:
        caches._connections = connections
    assert capfd.readouterr().err == ""


def test_without_pages_that_are_wiped_the_process_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fork, "_MADV_WIPEONFORK", -1)
    mark = fork._mark_process()
    assert isinstance(mark, fork._Pid)
    assert mark[0]

    def child() -> list[bool]:
        before = mark[0]
        mark[0] = 1
        return [before, mark[0]]

    assert in_child(child, hidden_fork) == [False, True]


@contextmanager
def recorded(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        messages: list[str] = []
        yield messages
        messages += caplog.messages


@pytest.mark.parametrize("way", [os.fork, hidden_fork])
@pytest.mark.parametrize("end", ["leaves", "raises", "collects", "releases", "extends"])
def test_a_lock_stays_its_parents(shared: BaseCache, caplog: pytest.LogCaptureFixture, end: str, way: Any) -> None:
    def child() -> Any:
        nonlocal lock
        with recorded(caplog) as messages:
            seen = [lock.acquired, lock.locked(), CacheLock("lock").acquire(blocking=False)]
            if end == "leaves":
                lock.__exit__(None, None, None)
            elif end == "raises":
                with suppress(SystemExit):
                    stack.throw(SystemExit)
            elif end == "collects":
                lock = None  # type: ignore[assignment]
                stack.close()
            elif end == "releases":
                with pytest.raises(RuntimeError):
                    lock.release()
            else:
                with pytest.raises(AssertionError):
                    lock.update_expiration()
        return [*seen, messages]

    def block() -> Iterator[CacheLock]:
        with CacheLock("lock") as lock:
            yield lock

    stack = block()
    lock = next(stack)  # type: ignore[call-overload]
    key, token = lock.full_cache_key, lock.token
    assert in_child(child, way) == [False, False, False, []]
    assert cache.get(key) == token
    assert lock.acquired
    stack.close()  # type: ignore[attr-defined]
    assert cache.get(key) is None
    assert not lock.acquired


def test_a_child_may_have_the_lock_after_its_parent(shared: BaseCache) -> None:
    lock = CacheLock("lock", retry_secs=0.01, timeout_secs=PATIENCE)

    def acquire() -> list[bool]:
        lock.acquire()
        acquired = lock.acquired
        lock.release()
        return [acquired, lock.acquired]

    lock.acquire()
    child = Child(acquire)
    lock.release()
    assert child.result() == [True, False]


@pytest.mark.parametrize("kind", ["fastblets", "djblets"])
@pytest.mark.parametrize("large", [False, True])
def test_a_child_of_a_computation_leaves_the_lock_to_its_parent(shared: BaseCache, kind: str, large: bool) -> None:
    lock = pytest.importorskip(f"{kind}.protect.locks").CacheLock("lock")
    parent = os.getpid()

    def compute() -> str:
        global forked
        forked = os.fork()
        if forked == 0:
            raise SystemExit
        os.waitpid(forked, 0)
        assert cache.get(lock.full_cache_key) == lock.token
        return "value"

    try:
        assert cache_memoize("key", compute, lock=lock, large_data=large) == "value"
    finally:
        if os.getpid() != parent:
            os._exit(0)
    assert cache.get(lock.full_cache_key) is None


@pytest.mark.parametrize("way", [os.fork, hidden_fork])
@pytest.mark.parametrize("end", ["closes", "collects", "goes on", "raises", "leaves open"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_an_open_stream_stays_its_parents(
    shared: BaseCache, caplog: pytest.LogCaptureFixture, end: str, overwrite: bool, way: Any
) -> None:
    def items() -> Iterator[str]:
        for chunk in CHUNKS:
            yield f"{os.getpid()} {chunk}"

    def child() -> Any:
        nonlocal stream
        os.read(reading, 1)
        with recorded(caplog) as messages:
            rest = []
            if end == "closes":
                stream.close()
            elif end == "collects":
                del stream
            elif end == "goes on":
                rest = [item.partition(" ")[2] for item in stream]
            elif end == "raises":
                with suppress(SystemExit):
                    stream.throw(SystemExit)
        return rest == (CHUNKS[2:] if end == "goes on" else []), len(messages)

    def memoize_iter() -> Any:
        options: Any = {"compress_large_data": False, "lock": CacheLock(), "force_overwrite": overwrite}
        return cache_memoize_iter("stream", items, **options)

    reading, writing = os.pipe()
    stream = memoize_iter()
    found = [next(stream), next(stream)]
    begun = Child(child, way)
    found += stream
    os.write(writing, b"x")
    # The child says once that it stores nothing.
    assert begun.result() == (True, 1 if end == "goes on" else 0)
    assert found == list(items())
    assert list(cache_memoize_iter("stream", lambda: ["computed again"], compress_large_data=False)) == found
    os.close(reading)
    os.close(writing)


def test_a_stream_that_a_child_reads_first(shared: BaseCache) -> None:
    """While the parent has not gone on, its entry is missing, whatever the child does."""
    stream = cache_memoize_iter("stream", lambda: iter(CHUNKS), compress_large_data=False)
    found = [next(stream), next(stream)]
    assert in_child(lambda: list(stream)) == CHUNKS[2:]
    assert cache.get(make_cache_key("stream")) is None
    found += stream
    assert list(cache_memoize_iter("stream", lambda: ["again"], compress_large_data=False)) == found == CHUNKS
