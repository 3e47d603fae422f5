"""Promise 7: locks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from tests.faults import failing, replaced
from tests.faults.experiment import ALL, LASTING, experiment
from tests.faults.lab import MODES, NEW, Lab, kill_self, wait_until
from tests.faults.outcome import Finding, Outcome, check, judge

# Whole seconds: memcached and Redis know no others.
SHORT_LIFE = 1
LONG_LIFE = 60


def _on_locks(key: Any) -> bool:
    return "lock" in str(key)


def _calls(lab: Lab, make_lock: Callable[[], Any]) -> Iterator[Finding]:
    """A small value, a large value and items, each computed under a lock."""
    for options in MODES[::3]:
        for large in (False, True):
            yield judge(
                lab.value("value", lambda: NEW, large_data=large, lock=make_lock(), **options),
                [NEW],
                None,
            )
            lab.cache.clear()
        yield judge(lab.iterate("items", lambda: NEW, lock=make_lock(), **options), NEW, None)
        lab.cache.clear()


def _with_failing(lab: Lab, *methods: str) -> Iterator[Finding]:
    def make_lock() -> Any:
        return lab.lock("lock", lock_expiration_secs=SHORT_LIFE)

    with failing(*methods, when=_on_locks):
        yield from _calls(lab, make_lock)


@experiment(7, "the release fails", djblets=Outcome.ERROR)
def release_fails(lab: Lab) -> Iterator[Finding]:
    for method in ("touch", "delete"):
        yield from _with_failing(lab, method)


@experiment(7, "the release fails at its check of the owner", djblets=Outcome.ERROR)
def check_fails(lab: Lab) -> Iterator[Finding]:
    yield from _with_failing(lab, "get")


@experiment(7, "the lock can't be acquired for an error", djblets=Outcome.RIGHT)
def acquire_fails(lab: Lab) -> Iterator[Finding]:
    yield from _with_failing(lab, "add")


@experiment(7, "the release fails at the end of a block that raises", djblets=Outcome.WRONG)
def hides_exception(lab: Lab) -> Iterator[Finding]:
    for method in ("touch", "get", "delete"):
        try:
            with failing(method), lab.lock(f"lock {method}"):
                raise LookupError("the caller's own")
        except LookupError:
            yield Finding(Outcome.RIGHT)
        except Exception:
            yield Finding(Outcome.WRONG, "the caller's exception is hidden")


@experiment(7, "the lock can't be extended while chunks are stored", djblets=Outcome.WRONG)
def extend_fails(lab: Lab) -> Iterator[Finding]:
    for options in MODES:
        lock = lab.lock("lock")

        def extend(*args: Any) -> None:
            raise ConnectionError("the lock can't be extended")

        lock.update_expiration = extend
        yield judge(lab.iterate("key", NEW, lock=lock, **options), NEW, None)
        yield check(lab.holds("key", **options), note="not cached")


def _lose(lab: Lab, lock: Any) -> Any:
    """The lock falls out of the cache, and another owner takes it."""
    lab.cache.delete(lock.full_cache_key)
    other = lab.lock("lock", lock_expiration_secs=LONG_LIFE)
    assert other.acquire(blocking=False)
    return other


def _still_held(lab: Lab, other: Any) -> Finding:
    time.sleep(SHORT_LIFE + 1.1)
    held = lab.cache.get(other.full_cache_key) == other.token
    other.acquired = False
    return check(held, note="another's lock is gone")


@experiment(7, "a lost lock is released, which another has by now", djblets=Outcome.WRONG)
def release_lost(lab: Lab) -> Finding:
    lock = lab.lock("lock", lock_expiration_secs=SHORT_LIFE)
    lock.acquire()
    other = _lose(lab, lock)
    lock.release()
    return _still_held(lab, other)


@experiment(7, "a lost lock is extended, which another has by now", djblets=Outcome.WRONG)
def extend_lost(lab: Lab) -> Finding:
    lock = lab.lock("lock", lock_expiration_secs=LONG_LIFE)
    lock.acquire()
    other = _lose(lab, lock)
    lock.update_expiration(SHORT_LIFE)
    lock.acquired = False
    return _still_held(lab, other)


@experiment(7, "a lost lock is not extended, nor taken again", djblets=Outcome.RIGHT)
def extend_missing(lab: Lab) -> Finding:
    lock = lab.lock("lock")
    lock.acquire()
    lab.cache.delete(lock.full_cache_key)
    lock.update_expiration()
    lock.acquired = False
    return check(lock.full_cache_key not in lab.cache and lab.logs.count("fell out of cache") == 1)


def _refuse(*args: Any, **kwargs: Any) -> bool:
    return False


@experiment(7, "no lock is ever to be had, though nobody has it", djblets=Outcome.HANG, seconds=8)
def never_added(lab: Lab) -> Iterator[Finding]:
    """As behind a client that keeps its errors to itself."""
    with replaced(lab.cache, add=_refuse):
        lock = lab.lock("key", lock_expiration_secs=SHORT_LIFE)
        yield _times_out(lock)
        yield judge(
            lab.iterate("items", NEW, lock=lab.lock(lock_expiration_secs=SHORT_LIFE)),
            NEW,
            None,
        )


def _times_out(lock: Any) -> Finding:
    try:
        lock.acquire()
    except TimeoutError:
        return Finding(Outcome.RIGHT)
    return Finding(Outcome.WRONG, "acquired")


@experiment(
    7,
    "the server is down behind a client that keeps its errors to itself",
    djblets=Outcome.HANG,
    backends=("pymemcache",),
    client="silent",
    seconds=20,
)
def silent_client(lab: Lab) -> Iterator[Finding]:
    assert lab.server is not None
    lab.server.kill()
    yield from _calls(lab, lambda: lab.lock(lock_expiration_secs=SHORT_LIFE))


@experiment(7, "a lock that is to end at once, or never begin", djblets=Outcome.WRONG, backends=("locmem", "redis"))
def invalid_expiration(lab: Lab) -> Iterator[Finding]:
    for seconds in (0, -1, -0.5, float("nan")):
        try:
            lab.lock("lock", lock_expiration_secs=seconds)
        except ValueError:
            yield Finding(Outcome.RIGHT)
        else:
            yield Finding(Outcome.WRONG, f"{seconds} is accepted")


@experiment(7, "one lock in nested calls", djblets=Outcome.WRONG)
def nested(lab: Lab) -> Iterator[Finding]:
    for options in MODES:
        lock = lab.lock()
        held = []

        def outer(lock: Any = lock, held: list[bool] = held, options: dict[str, Any] = options) -> str:
            lab.memoize("inner", lambda: 1, lock=lock, **options)
            held.append(lock.locked())
            return "outer"

        yield judge(lab.value("outer", outer, lock=lock, **options), ["outer"], None)
        yield check(held == [True], note="released by the inner call")
        yield check(not lock.locked(), note="still held")
        lab.cache.clear()


@experiment(7, "one lock for two keys, one after the other", djblets=Outcome.RIGHT)
def reused(lab: Lab) -> Iterator[Finding]:
    lock = lab.lock()
    for key in ("first", "second"):
        yield judge(lab.value(key, lambda key=key: key, lock=lock), [key], None)
        yield check(not lock.locked() and lock.full_cache_key not in lab.cache, note="still held")


@experiment(7, "the caller has the lock already", djblets=Outcome.WRONG)
def already_held(lab: Lab) -> Iterator[Finding]:
    with lab.lock("lock") as lock:
        yield judge(lab.value("key", lambda: "new", lock=lock), ["new"], None)
        yield check(lock.locked(), note="the caller's lock is released")


WAITERS = 5


# Django's file cache looks first and adds then: two may get a lock at once.
ATOMIC = tuple(name for name in ALL if name != "file")


@experiment(7, "many wait for one computation", djblets=Outcome.RIGHT, backends=ATOMIC, seconds=60)
def herd(lab: Lab) -> Finding:
    def note(name: str) -> None:
        with (lab.directory / name).open("a") as file:
            file.write(f"{name}\n")

    def noted(name: str) -> int:
        return len((lab.directory / name).read_text().split())

    def compute() -> str:
        note("computed")
        time.sleep(1)
        return "value"

    def call() -> None:
        note(lab.memoize("key", compute, lock=lab.lock()))

    lab.together([call] * WAITERS)
    return check(noted("value") == WAITERS and noted("computed") == 1, note=f"computed {noted('computed')} times")


@experiment(7, "those who wait pass one by one, though the value is there", djblets=Outcome.COSTLY)
def queue(lab: Lab) -> Finding:
    """Once the value is stored and the lock has changed hands, nobody needs it any more."""
    first = lab.lock("lock")
    first.acquire()
    waiter = lab.lock("lock", retry_secs=0.05, lock_expiration_secs=5, timeout_secs=4)
    add = lab.cache.add

    def add_late(*args: Any, **kwargs: Any) -> bool:
        # The holder stores the value and releases the lock, and the next one who waits gets it.
        lab.memoize("key", lambda: "value")
        lab.cache.set(first.full_cache_key, "next in the queue", LONG_LIFE)
        return bool(add(*args, **kwargs))

    with replaced(lab.cache, add=lambda *args, **kwargs: False if _count(calls) == 0 else add_late(*args, **kwargs)):
        calls = iter(range(1000))
        found = judge(lab.value("key", lambda: "again", lock=waiter), ["value"], None)
    first.acquired = False
    if found.outcome is Outcome.RIGHT and lab.logs.count("Timeout waiting"):
        return Finding(Outcome.COSTLY, "waits for a lock it doesn't need")
    return found


def _count(calls: Iterator[int]) -> int:
    return next(calls)


@experiment(7, "the holder is killed", djblets=Outcome.RIGHT, backends=LASTING)
def holder_killed(lab: Lab) -> Iterator[Finding]:
    def hold() -> None:
        lab.memoize("key", kill_self, lock=lab.lock(lock_expiration_secs=2))

    lab.kill_while(hold)
    lock = lab.lock(lock_expiration_secs=2)
    yield judge(lab.value("key", lambda: "new", lock=lock), ["new"], None)
    yield check(lab.logs.count("Acquired cache lock") == 1, note="without the lock")


@experiment(7, "the lock ends while it is held", djblets=Outcome.RIGHT)
def ends_while_held(lab: Lab) -> Iterator[Finding]:
    others = []

    def compute() -> str:
        other = lab.lock(lock_expiration_secs=LONG_LIFE)
        other.full_cache_key = lock.full_cache_key
        assert wait_until(lambda: bool(other.acquire(blocking=False)))
        others.append(other)
        return "value"

    lock = lab.lock(lock_expiration_secs=SHORT_LIFE)
    yield judge(lab.value("key", compute, lock=lock), ["value"], None)
    [other] = others
    yield check(lab.cache.get(other.full_cache_key) == other.token, note="another's lock is removed")
    other.acquired = False


@experiment(7, "the lock is not to be had in time", djblets=Outcome.RIGHT, backends=ALL)
def not_in_time(lab: Lab) -> Iterator[Finding]:
    holder = lab.lock("lock", lock_expiration_secs=LONG_LIFE)
    holder.acquire()

    def make_lock() -> Any:
        return lab.lock("lock", timeout_secs=0.1, retry_secs=0.05)

    yield judge(lab.value("key", lambda: "new", lock=make_lock()), ["new"], None)
    yield judge(lab.iterate("items", NEW, lock=make_lock()), NEW, None)
    yield check(lab.cache.get(holder.full_cache_key) == holder.token, note="another's lock is removed")
    holder.acquired = False
