"""Caches that are down or frozen, on real servers: a call that has found that out asks nothing more."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.core.cache import cache, caches
from django.core.cache.backends.base import BaseCache
from django.test import override_settings

from fastblets.cache import failures
from fastblets.cache.backend import cache_memoize, cache_memoize_iter, make_cache_key
from fastblets.cache.errors import UnreachableError
from fastblets.protect.locks import CacheLock
from tests.backends import BACKENDS, Config, Needs, use_cache
from tests.faults import replaced
from tools.servers import Memcached, Redis, Server, missing_servers

pytestmark = pytest.mark.django_db

ASKED = ("get", "set", "add", "touch", "delete", "get_many", "set_many", "has_key")
PATIENCE = 0.3
OPTIONS: dict[str, dict[str, Any]] = {
    # Without them the client says nothing of the errors after the first.
    "pymemcache": {"timeout": PATIENCE, "connect_timeout": PATIENCE, "retry_attempts": 0, "dead_timeout": 0.1},
    "pylibmc": {
        "behaviors": {
            "connect_timeout": int(1000 * PATIENCE),
            "send_timeout": int(1_000_000 * PATIENCE),
            "receive_timeout": int(1_000_000 * PATIENCE),
            "retry_timeout": 1,
        }
    },
    "redis": {"socket_timeout": PATIENCE, "socket_connect_timeout": PATIENCE},
    "django_redis": {"SOCKET_TIMEOUT": PATIENCE, "SOCKET_CONNECT_TIMEOUT": PATIENCE},
}
SECRET = {"use_encryption": True}
PLAIN = {"compress_large_data": False}
#: As much as memcached takes in one item.
BIG = "x" * 900_000


@dataclass
class Shaky:
    """A server that fails when it is told to, and what it is asked."""

    server: Server
    name: str
    calls: list[str] = field(default_factory=list)

    def break_down(self, how: str) -> None:
        getattr(self.server, how)()
        if self.name == "pylibmc":
            # Its first question goes to the connection that is broken, and comes back as a miss.
            with suppress(Exception):
                cache.get("anything")
        self.calls.clear()

    def asked(self) -> list[str]:
        asked, self.calls[:] = list(self.calls), []
        return asked


@pytest.fixture(params=[pytest.param(name, marks=getattr(pytest.mark, name)) for name in OPTIONS])
def shaky(request: pytest.FixtureRequest) -> Iterator[Shaky]:
    (backend,) = [backend for backend in BACKENDS if backend.name == request.param]
    if not backend.installed:
        pytest.skip(f"{backend.module} isn't installed")
    server: Server = Redis() if "redis" in backend.name else Memcached()
    if server.program in missing_servers():
        pytest.skip(f"{server.program} isn't installed")
    needs: Any = Needs(directory=None, memcached=lambda: server, redis=lambda: server)  # type: ignore[arg-type]
    with server:
        config: Config = {**backend.config(needs), "OPTIONS": OPTIONS[backend.name]}
        with use_cache(config):
            shaky = Shaky(server, backend.name)
            with recorded(shaky.calls):
                yield shaky


@contextmanager
def recorded(calls: list[str]) -> Iterator[None]:
    real = caches["default"]

    def record(name: str) -> Callable[..., Any]:
        method = getattr(real, name)

        def recording(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            return method(*args, **kwargs)

        return recording

    with replaced(real, **{name: record(name) for name in ASKED}):
        yield


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The first lines of the errors that were logged. They must have one traceback at most, and that not chained."""
    found = [record for record in caplog.records if record.levelno >= logging.ERROR]
    handler = logging.Formatter()
    texts = [handler.format(record) for record in found]
    tracebacks = "\n".join(texts).count("Traceback (most recent call last)")
    assert tracebacks <= 1, texts
    caplog.clear()
    return [text.partition("\n")[0] for text in texts]


def only(items: Iterator[Any]) -> Any:
    (item,) = items
    return item


CALLS: dict[str, Callable[..., Any]] = {
    "small": lambda compute, **options: cache_memoize("key", compute, **options),
    "encrypted": lambda compute, **options: cache_memoize("key", compute, **SECRET, **options),
    "large": lambda compute, **options: cache_memoize("key", compute, large_data=True, **PLAIN, **options),
    "iterable": lambda compute, **options: only(cache_memoize_iter("key", lambda: [compute()], **PLAIN, **options)),
}
calls = pytest.mark.parametrize("call", CALLS)
down = pytest.mark.parametrize("how", ["kill", "freeze"])
locks = pytest.mark.parametrize("locked", [False, True], ids=["unlocked", "locked"])


def lock(locked: bool) -> CacheLock | None:
    return CacheLock("lock", lock_expiration_secs=1) if locked else None


def come_back(shaky: Shaky, how: str) -> None:
    if how == "kill":
        shaky.server.restart()
    else:
        shaky.server.thaw()
    # Clients keep away from a server for a moment that has failed. That is theirs; here it is new ones' turn.
    caches.close_all()
    del caches["default"]


@calls
@down
@locks
def test_a_cache_that_is_down_is_asked_once(
    shaky: Shaky, call: str, how: str, locked: bool, caplog: pytest.LogCaptureFixture
) -> None:
    cache_memoize("warm", lambda: 1)
    shaky.break_down(how)
    assert CALLS[call](lambda: BIG, lock=lock(locked)) == BIG
    assert shaky.asked() == ["get"]
    first, *others = errors(caplog)
    assert first.startswith("Error fetching data from cache for key")
    # As in Djblets, a second line says what comes of it; it has no traceback.
    assert len(others) == (1 if call in ("large", "iterable") else 0)
    come_back(shaky, how)
    assert CALLS[call](lambda: "again", lock=lock(locked)) == "again"
    assert CALLS[call](lambda: "never", lock=lock(locked)) == "again"
    assert errors(caplog) == []


@calls
@down
@locks
def test_an_overwrite_of_a_cache_that_is_down(
    shaky: Shaky, call: str, how: str, locked: bool, caplog: pytest.LogCaptureFixture
) -> None:
    assert CALLS[call](lambda: BIG) == BIG
    shaky.break_down(how)
    with override_settings(FASTBLETS_ENCRYPTION_KEY_FALLBACKS=[b"o" * 16, b"p" * 16]):
        assert CALLS[call](lambda: "new", lock=lock(locked), force_overwrite=True) == "new"
    # Of older keys there is an entry to remove first.
    assert shaky.asked() == ["set" if call == "small" else "delete"]
    assert len(errors(caplog)) == 1


@calls
@down
@locks
def test_a_cache_that_goes_down_while_something_is_computed(
    shaky: Shaky, call: str, how: str, locked: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def compute() -> str:
        shaky.break_down(how)
        return BIG

    held = CacheLock("lock") if locked else None
    assert CALLS[call](compute, lock=held) == BIG
    asked = shaky.asked()
    assert asked.pop(0) == ("delete" if call in ("large", "iterable") else "set")
    # A lock that is held is released, once, though that fails.
    assert asked == (["get"] if locked else [])
    assert held is None or not held.locked()
    assert len(errors(caplog)) == 1
    come_back(shaky, how)
    # What was sent to a frozen server is done once it can.
    assert CALLS[call](lambda: "again") in ("again", BIG)


@down
@pytest.mark.parametrize("at", range(4))
def test_a_cache_that_goes_down_in_the_middle_of_a_stream(
    shaky: Shaky, how: str, at: int, caplog: pytest.LogCaptureFixture
) -> None:
    items = [f"{number}" * 1_100_000 for number in range(4)]

    def source() -> Iterator[str]:
        for number, item in enumerate(items):
            if number == at:
                shaky.break_down(how)
            yield item

    list(cache_memoize_iter("key", ["old" * 1_000_000, "older"], **PLAIN))
    got = cache_memoize_iter("key", source, force_overwrite=True, **PLAIN)
    assert list(got) == items
    assert len(shaky.asked()) == 1
    assert len(errors(caplog)) in (1, 2)
    come_back(shaky, how)
    # One generation, or none.
    read = list(cache_memoize_iter("key", ["new"], **PLAIN))
    assert read in ([*items], ["old" * 1_000_000, "older"], ["new"])


@down
@calls
def test_a_cache_that_goes_down_between_the_look_and_the_lock(
    shaky: Shaky, call: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    add = caches["default"].add

    def add_late(*args: Any, **kwargs: Any) -> bool:
        shaky.break_down(how)
        return bool(add(*args, **kwargs))

    caches["default"].add = add_late  # type: ignore[method-assign]
    assert CALLS[call](lambda: "value", lock=CacheLock("lock")) == "value"
    assert shaky.asked() == ["add"]
    (error,) = errors(caplog)
    # Also where the client's exception is a TimeoutError: there was no wait for the lock.
    assert error.startswith("Error acquiring cache lock")


@down
@calls
def test_a_cache_that_goes_down_while_a_lock_is_waited_for(
    shaky: Shaky, call: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    make_cache_key("key")
    holder = CacheLock("lock")
    assert holder.acquire()
    waiting = CacheLock("lock", retry_secs=0.01)
    get = caches["default"].get

    def get_late(key: str, *args: Any) -> Any:
        if key == waiting.full_cache_key:
            # Somebody else's by now: what is waited for may be there.
            shaky.break_down(how)
        return get(key, *args)

    caches["default"].get = get_late  # type: ignore[method-assign]
    assert CALLS[call](lambda: "value", lock=waiting) == "value"
    assert shaky.asked() == ["get"]
    assert len(errors(caplog)) == 1
    holder.acquired = False


@down
def test_a_cache_that_goes_down_between_the_count_and_the_chunks(
    shaky: Shaky, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    list(cache_memoize_iter("key", [BIG, BIG], **PLAIN))
    get_many = caches["default"].get_many

    def get_many_late(*args: Any) -> Any:
        shaky.break_down(how)
        return get_many(*args)

    caches["default"].get_many = get_many_late  # type: ignore[method-assign]
    assert list(cache_memoize_iter("key", ["new"], lock=CacheLock("lock"), **PLAIN)) == ["new"]
    assert shaky.asked() == ["get_many"]
    come_back(shaky, how)
    # Nothing was wrong with the entry, unless the server forgot it.
    assert list(cache_memoize_iter("key", ["new"], **PLAIN)) == ([BIG, BIG] if how == "freeze" else ["new"])


def test_older_keys_are_not_looked_under(shaky: Shaky, caplog: pytest.LogCaptureFixture) -> None:
    get = caches["default"].get
    current = make_cache_key("key", **SECRET)

    def get_late(key: str, *args: Any) -> Any:
        if key != current and shaky.server._process is not None:
            shaky.break_down("kill")
        return get(key, *args)

    caches["default"].get = get_late  # type: ignore[method-assign]
    with override_settings(FASTBLETS_ENCRYPTION_KEY_FALLBACKS=[b"o" * 16, b"p" * 16]):
        assert cache_memoize("key", lambda: "value", **SECRET) == "value"
    assert shaky.asked() == ["get"]
    assert len(errors(caplog)) == 1


@down
def test_many_requests_log_one_error_each(shaky: Shaky, how: str, caplog: pytest.LogCaptureFixture) -> None:
    cache_memoize("warm", lambda: 1)
    shaky.break_down(how)
    lines = []
    for number in range(4):
        assert cache_memoize(f"key {number}", lambda: BIG, large_data=True, lock=CacheLock()) == BIG
        lines += [line for record in caplog.records for line in logging.Formatter().format(record).splitlines()]
        tracebacks = [record for record in caplog.records if record.exc_info]
        caplog.clear()
        assert len(tracebacks) == 1
    # Djblets' two records and the client's own frames, once: Python 3.13 marks more of them than 3.10.
    assert len(lines) < 4 * 100


# What is no such error.


class Raising:
    """Refuses its state, as one that asks a server itself may."""

    error: Exception | None = None

    def __getstate__(self) -> dict[str, int]:
        return {"a": 1}

    def __setstate__(self, state: object) -> None:
        if Raising.error is not None:
            raise Raising.error


def _client_errors() -> list[Exception]:
    found: list[Exception] = [TimeoutError("late"), ConnectionRefusedError(111, "refused"), OSError("no")]
    try:
        from redis.exceptions import ConnectionError
        from redis.exceptions import TimeoutError as RedisTimeoutError
    except ImportError:
        return found
    return [*found, ConnectionError("no"), RedisTimeoutError("late")]


@calls
@pytest.mark.parametrize("error", _client_errors(), ids=repr)
def test_what_cannot_be_unpickled_is_replaced(
    cache_backend: BaseCache, call: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    if call == "small" and type(cache_backend).__module__ not in _UNPICKLE_APART and "redis" in type(error).__module__:
        pytest.skip("there, what the cache unpickles can't be told from what its client says")
    CALLS[call](Raising)
    monkeypatch.setattr(Raising, "error", error)
    found = CALLS[call](lambda: "new")
    if found is None:
        pytest.skip("pymemcache takes it for None")
    assert found == "new"
    assert CALLS[call](lambda: "newer") == "new"


_UNPICKLE_APART = ("django.core.cache.backends.redis", "django_redis.cache")


@pytest.mark.parametrize("error", _client_errors(), ids=repr)
def test_an_error_of_the_same_class_while_pickling(
    locmem: BaseCache, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """It says nothing of the cache: what was there is removed as ever."""

    class Refusing:
        def __reduce__(self) -> Any:
            raise error

    list(cache_memoize_iter("key", ["old"], **PLAIN))
    items = [BIG, Refusing()]
    assert list(cache_memoize_iter("key", items, force_overwrite=True, **PLAIN)) == items
    assert make_cache_key("key") not in locmem


def test_an_answer_that_is_an_error(shaky: Shaky) -> None:
    """A server that refuses is there: all is as if it were another error."""
    if shaky.name not in ("redis", "django_redis"):
        pytest.skip("only Redis can be told to refuse")
    import redis

    redis.Redis(port=shaky.server.port).config_set("maxmemory", "1")
    assert cache_memoize("key", lambda: "value", large_data=True, lock=CacheLock("lock")) == "value"
    asked = shaky.asked()
    assert asked[:2] == ["get", "add"]
    assert asked[-2:] == ["set", "delete"]


def test_which_errors_mean_that_no_server_answers() -> None:
    for error in (ValueError(), TimeoutError(), ConnectionRefusedError(), OSError(), UnreachableError()):
        assert not failures.is_unreachable(error)


# Tracebacks that repeat.


@pytest.mark.parametrize(
    ("interval", "expected"), [(0, 3), (None, 3), (-1, 3), ("often", 3), (float("nan"), 3), (3600, 1)], ids=repr
)
def test_repeated_tracebacks_may_be_limited(
    locmem: BaseCache, interval: Any, expected: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "_last_tracebacks", {})

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise KeyError("no")

    with override_settings(FASTBLETS_TRACEBACK_INTERVAL=interval), replaced(caches["default"], get=fail):
        for _ in range(3):
            assert cache_memoize("key", lambda: "value") == "value"
        assert [bool(record.exc_info) for record in caplog.records].count(True) == expected
        assert len(caplog.records) == 3
        # Another failure has its own.
        with replaced(caches["default"], set=fail):
            assert cache_memoize("key", lambda: "value") == "value"
        assert caplog.records[-1].exc_info


def test_a_traceback_comes_again_in_time(
    locmem: BaseCache, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(failures, "_last_tracebacks", {})
    monkeypatch.setattr(failures.time, "monotonic", lambda: now)

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise KeyError("no")

    with override_settings(FASTBLETS_TRACEBACK_INTERVAL=10), replaced(caches["default"], get=fail):
        for later in (0.0, 9.0, 11.0, 12.0, 30.0):
            now = later
            cache_memoize("key", lambda: "value")
    assert [bool(record.exc_info) for record in caplog.records] == [True, False, True, False, True]


def test_records_name_the_place_that_failed(locmem: BaseCache, caplog: pytest.LogCaptureFixture) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise KeyError("no")

    with replaced(caches["default"], get=fail):
        cache_memoize("key", lambda: "value")
    assert [record.filename for record in caplog.records] == ["storage.py"]


def test_threads_may_fail_together(locmem: BaseCache, monkeypatch: pytest.MonkeyPatch) -> None:
    make_cache_key("key")

    def work() -> None:
        def fail(*args: Any, **kwargs: Any) -> Any:
            raise KeyError("no")

        with replaced(caches["default"], get=fail):
            for _ in range(50):
                assert cache_memoize("key", lambda: "value") == "value"

    with override_settings(FASTBLETS_TRACEBACK_INTERVAL=0.0001):
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
