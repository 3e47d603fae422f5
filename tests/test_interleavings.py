"""No old value after an invalidation has returned, in all orders of the cache calls of writers, invalidator and reader.

The data is a number, its version. The invalidator raises it, invalidates, and promises from then on that nobody sees an
older version. A writer is a call of `cache_memoize()`: if it finds nothing it reads the version, which is a step of its
own, and stores it. Two writers and the invalidator take their steps in every possible order. Whoever begins to read
after the promise must not see an older version: neither the reader, which may find nothing at all, nor a writer that
finds an entry. When all have ended, nothing old may be left behind, even if the deletion has been forgotten by then.

What is promised differs by form. A large or encrypted entry has its record inside: no old version is ever seen. The
record of a small entry that isn't encrypted is beside it. If two writers have no lock, or it ends early, an old version
may be seen for a moment: while a writer that has stored it has not yet looked at the stamps again, and deleted it.

How all orders are tried is told in `tests/interleavings.py`. It is the real code that runs, on a simple cache.

Such a test is worth what it would find. So each precaution that the code takes is left out once, which must be found.
`pytest -s` shows how many states and orders there are, and the order in which what is broken fails.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
from django.core.cache import cache
from django.test import override_settings

from fastblets.cache import batch, freshness, stamped, tags
from fastblets.cache.backend import cache_memoize, cache_memoize_iter, make_cache_key
from fastblets.cache.entry import VALUE
from fastblets.cache.policy import CachePolicy
from fastblets.cache.stamped import StampedStorage
from fastblets.cache.storage import Storage
from fastblets.cache.tags import invalidate_tags
from fastblets.cache.values import cache_delete, cache_expire, cache_get
from fastblets.protect.locks import CacheLock
from tests.interleavings import (
    Contents,
    Exploration,
    Nodes,
    Process,
    Seen,
    ViolationError,
    evict,
    get_promised,
    get_version,
    promise,
    raise_database,
    read_database,
    run_alone,
    start,
    stepped_cache,
)
from tests.test_values import LARGE, NEW, OLD, SECRET, address

pytestmark = pytest.mark.django_db

Form = dict[str, Any]
Work = Callable[[], Seen]

TAGS = ["tag"]
SMALL: Form = {}
#: Those with the record inside.
BOUND: dict[str, Form] = {"encrypted": SECRET, "large": LARGE}
MORE_BOUND: dict[str, Form] = {
    "encrypted sealed": {**SECRET, "seal": "require"},
    "large encrypted": {**LARGE, **SECRET},
    "large plain": {**LARGE, "compress_large_data": False},
    "large sealed": {**LARGE, "seal": "require"},
}
HOW = pytest.mark.parametrize("how", ["tags", "delete"])
#: For what takes seconds: deleting has more steps.
HOW_AND_SLOWLY = pytest.mark.parametrize("how", ["tags", pytest.param("delete", marks=pytest.mark.slow)])
BOUND_FORMS = pytest.mark.parametrize(
    "form",
    [
        *(pytest.param(form, id=name) for name, form in BOUND.items()),
        *(pytest.param(form, id=name, marks=pytest.mark.slow) for name, form in MORE_BOUND.items()),
    ],
)
#: Whether a call for many keys is one step for the cache, as on Redis, or one for each key.
ATOMIC = pytest.mark.parametrize(
    "atomic", [pytest.param(True, id="at once"), pytest.param(False, id="one by one", marks=pytest.mark.slow)]
)


@pytest.fixture(autouse=True)
def stepped() -> Iterator[None]:
    with stepped_cache():
        yield


# The processes


def write(form: Form, *, lock: bool = False, **options: Any) -> Work:
    def work() -> Seen:
        promised = get_promised()
        locks = {"lock": CacheLock()} if lock else {}
        return [(promised, cache_memoize("key", read_database, **{"tags": TAGS, **form, **options}, **locks))]

    return work


def stream(form: Form) -> Work:
    def work() -> Seen:
        promised = get_promised()
        (version,) = cache_memoize_iter("key", lambda: (read_database() for _ in range(1)), tags=TAGS)
        return [(promised, version)]

    return work


def read(form: Form, **options: Any) -> Work:
    return lambda: [(get_promised(), cache_get("key", **{"tags": TAGS, **form, **options}))]


def invalidate(how: str, form: Form, *, times: int = 1) -> Work:
    def work() -> Seen:
        for version in range(1, times + 1):
            raise_database()
            if how == "tags":
                invalidate_tags("tag")
            else:
                cache_delete("key", **address(form))
            promise(version)
        return []

    return work


def lose(key: str) -> Work:
    """The cache, which may drop a key at any time: an end that came early, or an eviction."""

    def work() -> Seen:
        evict(make_cache_key(key))
        return []

    return work


def make_processes(form: Form, how: str, *, lock: bool = False, may_die: bool = False, **options: Any) -> list[Process]:
    return [
        Process("A", write(form, lock=lock, **options), may_die=may_die),
        Process("B", write(form, lock=lock, **options)),
        Process("I", invalidate(how, form)),
        Process("R", read(form, **options), after="I"),
    ]


# What the cache holds at first


def begin_with_tokens(form: Form) -> Contents:
    """The tag has a token, and that is all: the writers look, and then compute."""
    contents = begin_with_entry(form)
    return {key: stored for key, stored in contents.items() if key != make_cache_key("key", **address(form))}


def begin_with_entry(form: Form) -> Contents:
    """The first version has been stored."""
    return run_alone(Process("W", write(form)), start())[1]


# What has to hold


def is_about_to_look_again(nodes: Nodes) -> bool:
    """Whether a writer has stored a small value, and not yet come to its end."""
    key = make_cache_key("key")
    return any(node is not None and not node.ended and node.has_done("set", key) for node in nodes)


def check(
    processes: list[Process],
    contents: Contents,
    form: Form,
    how: str = "",
    *,
    atomic: bool = True,
    is_excused: Callable[[Nodes], bool] = lambda _: False,
    fence_may_end: bool = True,
    is_kept: bool = True,
    options: dict[str, Any] | None = None,
) -> None:
    """Go through all orders, and look at what is left behind.

    Args:
        how: How it is invalidated. After a deletion nothing old is left behind for calls without tags, either.
        atomic: As for an exploration.
        is_excused: As for an exploration.
        fence_may_end: Whether nothing old may be seen even after the fence has ended.
        is_kept: Whether in some order the new version is in the cache at last.
        options: The options of the calls, instead of their tags.
    """
    options = options or {}
    found = Exploration(processes, contents, atomic=atomic, is_excused=is_excused).run()
    print(f"{found.states:,} states, {found.orders:,} orders")
    fence = make_cache_key("_fence_:key", **address(form))
    settings = processes[-1].settings
    kept = 0
    for end, order in found.ends:
        version = get_version(end)
        readers = [read(form, **options)] + ([read(form, tags=())] if how == "delete" else [])
        for work in (*readers, write(form, **options)):
            for without in ("", fence) if fence_may_end else ("",):
                left = {key: stored for key, stored in end.items() if key != without}
                (seen,), _ = run_alone(Process("L", work, settings=settings), left)
                if seen[1] not in (None, version):
                    raise ViolationError(f"an old version stays: {seen}, {without=}\n{order}")
                kept += work is readers[0] and seen[1] == version
    assert not is_kept or kept


@HOW
@ATOMIC
@BOUND_FORMS
def test_with_the_record_inside(form: Form, how: str, atomic: bool) -> None:
    check(make_processes(form, how), begin_with_tokens(form), form, how, atomic=atomic)


@HOW
@pytest.mark.parametrize("form", BOUND.values(), ids=BOUND)
def test_an_old_entry(form: Form, how: str) -> None:
    check(make_processes(form, how), begin_with_entry(form), form, how)


@HOW
@ATOMIC
def test_small_with_a_lock(how: str, atomic: bool) -> None:
    check(make_processes(SMALL, how, lock=True), begin_with_tokens(SMALL), SMALL, how, atomic=atomic)


@HOW_AND_SLOWLY
def test_a_cache_that_does_not_say_what_it_refuses(how: str) -> None:
    """Marks are read back, and an old small value is deleted before it is replaced."""
    with stepped_cache("DoubtfulCache"):
        check(make_processes(SMALL, how, lock=True), begin_with_entry(SMALL), SMALL, how)
        check(make_processes(SECRET, how), begin_with_tokens(SECRET), SECRET, how)
        processes = make_processes(SMALL, how)
        check(processes, begin_with_tokens(SMALL), SMALL, how, is_excused=is_about_to_look_again)


# With a policy


def test_no_record_is_no_proof(later: Any) -> None:
    """A small value whose record is not stored yet may be from before a deletion."""

    def is_valid(self: StampedStorage) -> bool:
        return self._found is None or self._found.holds(self._now)

    with patch.object(StampedStorage, "_is_valid", is_valid), pytest.raises(ViolationError):
        check(make_processes(SMALL, "delete", **WITH_POLICY), start(), SMALL, options=WITH_POLICY)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets by how much time has gone on. Otherwise it stands still, so that equal states are equal."""
    offset = 0.0
    begin = time.time()

    def advance(secs: float) -> None:
        nonlocal offset
        offset += secs

    for module in (stamped, batch, freshness):
        monkeypatch.setattr(module, "get_milliseconds", lambda: int((begin + offset) * 1000))
    monkeypatch.setattr(freshness, "time", SimpleNamespace(monotonic=lambda: 0.0))
    return advance


#: Each call is alone in its process.
POLICY = CachePolicy(stale_while_revalidate=1000, stale_if_error=1000, share=False)
WITH_POLICY: dict[str, Any] = {"tags": (), "policy": POLICY}
WITH_BOTH: dict[str, Any] = {"tags": TAGS, "policy": POLICY}


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(SECRET, id="encrypted"),
        *(pytest.param(form, id=name, marks=pytest.mark.slow) for name, form in {"large": LARGE, **MORE_BOUND}.items()),
    ],
)
@ATOMIC
def test_a_miss_with_a_policy(form: Form, atomic: bool, later: Any) -> None:
    check(make_processes(form, "delete", **WITH_POLICY), start(), form, atomic=atomic, options=WITH_POLICY)


@ATOMIC
def test_a_small_miss_with_a_policy(atomic: bool, later: Any) -> None:
    check(make_processes(SMALL, "delete", **WITH_POLICY), start(), SMALL, atomic=atomic, options=WITH_POLICY)


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(SMALL, id="small", marks=pytest.mark.slow),
        pytest.param(SECRET, id="encrypted"),
        pytest.param(LARGE, id="large", marks=pytest.mark.slow),
    ],
)
def test_a_stale_entry(form: Form, later: Any) -> None:
    contents = run_alone(Process("W", write(form, expiration=100, **WITH_POLICY)), start())[1]
    later(101)
    check(make_processes(form, "delete", **WITH_POLICY), contents, form, options=WITH_POLICY)


@pytest.mark.slow
@HOW
@pytest.mark.parametrize("form", [SMALL, *BOUND.values()], ids=["small", *BOUND])
def test_a_stale_entry_with_tags(form: Form, how: str, later: Any) -> None:
    contents = run_alone(Process("W", write(form, expiration=100, **WITH_BOTH)), start())[1]
    later(101)
    check(make_processes(form, how, **WITH_BOTH), contents, form, options=WITH_BOTH)


@pytest.mark.parametrize("form", [SMALL, SECRET], ids=["small", "encrypted"])
def test_it_is_made_to_expire_meanwhile(form: Form, later: Any) -> None:
    """It may be served as stale then, unless it was deleted."""
    contents = run_alone(Process("W", write(form, expiration=100, **WITH_POLICY)), start())[1]

    def expire() -> Seen:
        cache_expire("key", policy=POLICY, **address(form))
        return []

    processes = make_processes(form, "delete", **WITH_POLICY)
    processes[1] = Process("E", expire)
    check(processes, contents, form, options=WITH_POLICY, fence_may_end=False)


@HOW_AND_SLOWLY
def test_an_old_small_entry(how: str) -> None:
    check(make_processes(SMALL, how, lock=True), begin_with_entry(SMALL), SMALL, how, atomic=False)


@HOW
def test_small_without_a_lock(how: str) -> None:
    processes, contents = make_processes(SMALL, how), begin_with_tokens(SMALL)
    check(processes, contents, SMALL, how, is_excused=is_about_to_look_again)
    # It takes two writers.
    check([processes[0], *processes[2:]], contents, SMALL, how)
    with pytest.raises(ViolationError, match="R saw an old version"):
        check(processes, contents, SMALL, how)


@pytest.mark.slow
@HOW
def test_small_with_a_lock_that_ends_early(how: str) -> None:
    processes = [*make_processes(SMALL, how, lock=True), Process("the cache", lose("_lock_:key"))]
    check(processes, begin_with_tokens(SMALL), SMALL, how, is_excused=is_about_to_look_again)


@pytest.mark.parametrize("form", BOUND.values(), ids=BOUND)
def test_from_an_empty_cache(form: Form) -> None:
    """The writers make the token, both at once."""
    check(make_processes(form, "tags"), start(), form)


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(SMALL, id="small"),
        pytest.param(SECRET, id="encrypted"),
        pytest.param(LARGE, id="large", marks=pytest.mark.slow),
    ],
)
def test_a_lost_token(form: Form) -> None:
    excuse = is_about_to_look_again if form == SMALL else lambda _: False
    processes = [*make_processes(form, "tags"), Process("the cache", lose("_tag_:tag"))]
    check(processes, begin_with_entry(form), form, is_excused=excuse)


@HOW
@pytest.mark.parametrize(
    "form",
    [
        pytest.param(SECRET, id="encrypted"),
        pytest.param(LARGE, id="large", marks=pytest.mark.slow),
    ],
)
def test_two_invalidations(form: Form, how: str) -> None:
    processes = make_processes(form, how)
    processes[2].work = invalidate(how, form, times=2)
    check(processes, begin_with_tokens(form), form, how)


def test_streams() -> None:
    processes = make_processes(LARGE, "tags")
    processes[0].work = processes[1].work = stream(LARGE)
    check(processes, begin_with_tokens(LARGE), LARGE)


@pytest.mark.parametrize("begin", [begin_with_tokens, begin_with_entry])
@HOW
def test_under_an_older_encryption_key(how: str, begin: Callable[[Form], Contents]) -> None:
    """One writer doesn't know the newest key yet. A writer that does may take over what is under the older one."""
    behind = {"DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY": OLD}
    ahead = {"DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY": NEW, "FASTBLETS_ENCRYPTION_KEY_FALLBACKS": [OLD]}
    processes = make_processes(SECRET, how)
    for process in processes:
        process.settings = ahead
    processes[0].settings = behind
    processes.insert(0, Process("S", read(SECRET), after="I", settings=behind))
    with override_settings(**behind):
        contents = begin(SECRET)
    with override_settings(**ahead):
        check(processes, contents, SECRET, how)


# Where nothing can be promised


@HOW
@pytest.mark.parametrize("form", BOUND.values(), ids=BOUND)
def test_a_writer_that_is_killed(form: Form, how: str) -> None:
    """What it left behind is not seen, but after a deletion only as long as the fence lives, which is a day."""
    processes, contents = make_processes(form, how, may_die=True), begin_with_tokens(form)
    # Calls without tags see it.
    check(processes, contents, form, fence_may_end=how == "tags")
    if how == "delete":
        with pytest.raises(ViolationError, match=r"an old version stays: \(1, 0\), without='[^']"):
            check(processes, contents, form)


@HOW_AND_SLOWLY
def test_a_writer_of_a_small_value_that_is_killed(how: str) -> None:
    """Alone, or under a lock that lasts, it does no harm. Else the old value may stay, beside another's record."""
    processes, contents = make_processes(SMALL, how, may_die=True), begin_with_tokens(SMALL)
    check([processes[0], *processes[2:]], contents, SMALL, fence_may_end=how == "tags", is_kept=False)
    with_lock = make_processes(SMALL, how, lock=True, may_die=True)
    check(with_lock, contents, SMALL, fence_may_end=how == "tags")
    with pytest.raises(ViolationError, match="an old version stays"):
        check(processes, contents, SMALL, fence_may_end=False, is_excused=lambda _: True)


@pytest.mark.parametrize("form", [SMALL, *BOUND.values()], ids=["small", *BOUND])
def test_a_writer_without_tags(form: Form) -> None:
    """As Djblets is one: what it stores has no record."""
    processes, contents = make_processes(form, "delete"), begin_with_tokens(form)
    untagged = write(form, tags=())
    # What it sees itself is not promised.
    processes[0].work = lambda: untagged()[:0]
    if form == SMALL:
        with pytest.raises(ViolationError):
            check(processes, contents, form, is_excused=lambda _: True)
    else:
        check(processes, contents, form)


# What would be found


def stamped_after_computing() -> Iterator[Any]:
    real = StampedStorage._require_record

    def require(self: StampedStorage) -> Any:
        if self._record is None:
            stamped.stamp([self])
        return real(self)

    yield patch.object(StampedStorage, "stamp", lambda _: None)
    yield patch.object(StampedStorage, "_require_record", require)


def record_before_value() -> Iterator[Any]:
    def store(self: StampedStorage, value: object, kind: Any = VALUE) -> None:
        for key, record in self.state.items():
            self._set(key, record, timeout=self.get_state_timeout())
        Storage.store(self, value, kind)
        for outdated in stamped.find_outdated([self]):
            outdated.discard()

    yield patch.object(StampedStorage, "store", store)


def value_read_before_record() -> Iterator[Any]:
    keys: Any = StampedStorage.head_keys
    yield patch.object(StampedStorage, "head_keys", property(lambda self: keys.fget(self)[::-1]))


def no_second_look() -> Iterator[Any]:
    yield patch.object(stamped, "find_outdated", lambda _: [])


def chunk_left_behind() -> Iterator[Any]:
    yield patch.object(StampedStorage, "discard", Storage.discard)


def deleted_before_marked() -> Iterator[Any]:
    mark, delete = batch.mark_deleted, batch.delete_batch

    def delete_batch(storages: Any, *, large: Any) -> Any:
        was_there = delete(storages, large=large)
        mark(storages)
        return was_there

    yield patch.object(batch, "mark_deleted", lambda _: None)
    yield patch.object(batch, "delete_batch", delete_batch)


def not_marked() -> Iterator[Any]:
    yield patch.object(batch, "mark_deleted", lambda _: None)


def counters() -> Iterator[Any]:
    """Instead of random tokens. What is lost begins again."""
    yield patch.object(stamped, "make_token", lambda: "1")
    yield patch.object(tags, "make_token", lambda: str(int(cache.get(make_cache_key("_tag_:tag"), "0")) + 1))


@pytest.mark.parametrize(
    ("break_it", "form", "how", "begin"),
    [
        (stamped_after_computing, SECRET, "tags", begin_with_tokens),
        (stamped_after_computing, LARGE, "delete", begin_with_tokens),
        (record_before_value, SMALL, "tags", begin_with_entry),
        (value_read_before_record, SMALL, "tags", begin_with_entry),
        (no_second_look, SMALL, "tags", begin_with_tokens),
        (no_second_look, SECRET, "delete", begin_with_tokens),
        (chunk_left_behind, LARGE, "delete", begin_with_tokens),
        (deleted_before_marked, SECRET, "delete", begin_with_tokens),
        (not_marked, SECRET, "delete", begin_with_tokens),
        (counters, SECRET, "tags", begin_with_tokens),
    ],
)
def test_what_is_broken_is_found(
    break_it: Callable[[], Iterator[Any]], form: Form, how: str, begin: Callable[[Form], Contents]
) -> None:
    is_without_lock = break_it is no_second_look
    processes = make_processes(form, how, lock=form == SMALL and not is_without_lock)
    if break_it is counters:
        processes.append(Process("the cache", lose("_tag_:tag")))
    is_excused = is_about_to_look_again if is_without_lock else lambda _: False

    def run() -> None:
        contents = begin(form)
        check(processes, contents, form, how, atomic=break_it is not value_read_before_record, is_excused=is_excused)

    run()
    with ExitStack() as stack:
        for change in break_it():
            stack.enter_context(change)
        with pytest.raises(ViolationError) as found:
            run()
    print(break_it.__name__, found.value)
