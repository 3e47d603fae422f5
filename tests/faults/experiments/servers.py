"""Promise 10: servers that die, freeze, forget, and are raced for."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from typing import Any

from tests.faults import replaced
from tests.faults.experiment import ALL, SERVERS, TIME_LIMIT, Run, experiment
from tests.faults.lab import COMPRESSED, MODES, NEW, PLAIN, Lab, Options, generation
from tests.faults.outcome import Finding, Outcome, compare, judge, of_error
from tests.faults.subject import UNSEALED
from tools.servers import Server

BIG = generation("big")
NEWER = generation("newer")


def get_server(lab: Lab) -> Server:
    assert lab.server is not None
    return lab.server


def _all_calls(lab: Lab, *, modes: list[Options] = MODES) -> Iterator[Finding]:
    """Everything that computes: small, large, items, each with and without a lock."""
    for options in modes:
        for make_lock in (lambda: None, lambda: lab.lock(lock_expiration_secs=2)):
            yield judge(lab.value("small", lambda: "value", lock=make_lock(), **options), ["value"], None)
            yield judge(lab.value("large", lambda: BIG, large_data=True, lock=make_lock(), **options), [BIG], None)
            yield judge(lab.iterate("items", lambda: BIG, lock=make_lock(), **options), BIG, None)


def _recovers(lab: Lab) -> Iterator[Finding]:
    """Once the server is back, entries are stored again."""
    # A client may keep away from a server for a while that has failed.
    time.sleep(2.5 if lab.backend == "pylibmc" else 0)
    lab.disconnect()
    for _ in range(2):
        list(lab.iterate("after", BIG, **COMPRESSED))
    yield judge(lab.iterate("after", NEW, **COMPRESSED), BIG, NEW)


@experiment(10, "the server is dead", djblets=Outcome.RIGHT, backends=SERVERS, client="impatient", seconds=60)
def dead(lab: Lab) -> Iterator[Finding]:
    lab.store("items", BIG)
    get_server(lab).kill()
    yield from _all_calls(lab)
    get_server(lab).restart()
    yield from _recovers(lab)


@experiment(10, "the server is frozen", djblets=Outcome.RIGHT, backends=SERVERS, client="impatient", seconds=90)
def frozen(lab: Lab) -> Iterator[Finding]:
    """Each call of the cache costs a time-out of the client, and there are few."""
    server = get_server(lab)
    list(lab.iterate("items", BIG))
    server.freeze()
    yield from _all_calls(lab, modes=[COMPRESSED])
    server.thaw()
    yield from _recovers(lab)


def _rebuilt_after(name: str, seconds: float = TIME_LIMIT) -> Callable[[Run], Run]:
    """A server that fails so that neither library can do better than to compute again."""
    return experiment(
        10,
        name,
        djblets=Outcome.REBUILT,
        fastblets=Outcome.REBUILT,
        backends=SERVERS,
        client="impatient",
        seconds=seconds,
    )


def _breaking_source(at: int, break_it: Callable[[], None]) -> Iterator[Any]:
    for number, item in enumerate(NEWER):
        if number == at:
            break_it()
        yield item


def _broken_writes(lab: Lab, break_it: Callable[[], None], repair: Callable[[], None]) -> Iterator[Finding]:
    for options in MODES:
        for at in (0, 4):
            lab.store("key", BIG, **options)
            source = _breaking_source(at, break_it)
            yield judge(lab.iterate("key", source, force_overwrite=True, **options), NEWER, None)
            repair()
            lab.disconnect()
            got = judge(lab.iterate("key", NEW, **options), NEWER, NEW)
            yield got if got.outcome is not Outcome.WRONG else judge(lab.iterate("key", []), BIG, None)


@_rebuilt_after("the server dies during a write, and comes back empty", seconds=60)
def dies_while_writing(lab: Lab) -> Iterator[Finding]:
    yield from _broken_writes(lab, get_server(lab).kill, get_server(lab).restart)


@_rebuilt_after("the server restarts during a write", seconds=60)
def restarts_while_writing(lab: Lab) -> Iterator[Finding]:
    yield from _broken_writes(lab, get_server(lab).restart, lambda: None)


@experiment(
    10,
    "a connection freezes during an overwrite, then thaws",
    djblets=(Outcome.WRONG, Outcome.REBUILT),
    fastblets=Outcome.REBUILT,
    backends=SERVERS,
    client="impatient",
    seconds=90,
)
def freezes_while_writing(lab: Lab) -> Iterator[Finding]:
    """What the frozen server was sent, it still does when it thaws."""
    server = get_server(lab)
    for options in (PLAIN, COMPRESSED):
        for at in (3, 5):
            lab.store("key", BIG, **options)
            source = _breaking_source(at, server.freeze)
            yield judge(lab.iterate("key", source, force_overwrite=True, **options), NEWER, None)
            server.thaw()
            time.sleep(0.3)
            lab.disconnect()
            yield _one_whole(lab, options)
            lab.disconnect()


def _one_whole(lab: Lab, options: Options) -> Finding:
    found = [judge(lab.iterate("key", NEW, **options), whole, NEW) for whole in (BIG, NEWER)]
    return min(found, key=lambda finding: finding.outcome.severity)


def _broken_reads(lab: Lab, break_it: Callable[[], None], repair: Callable[[], None]) -> Iterator[Finding]:
    for options in MODES:
        lab.store("key", BIG, **options)
        get_many = lab.cache.get_many

        def get_many_late(keys: list[str], get_many: Any = get_many, **more: Any) -> Any:
            break_it()
            return get_many(keys, **more)

        with replaced(lab.cache, get_many=get_many_late):
            yield judge(lab.iterate("key", NEW, **options), BIG, NEW)
        repair()
        lab.disconnect()


@_rebuilt_after("the server dies between the count and the chunks")
def dies_while_reading(lab: Lab) -> Iterator[Finding]:
    yield from _broken_reads(lab, get_server(lab).kill, get_server(lab).restart)


@_rebuilt_after("the server restarts between the count and the chunks")
def restarts_while_reading(lab: Lab) -> Iterator[Finding]:
    yield from _broken_reads(lab, get_server(lab).restart, lambda: None)


@_rebuilt_after("the server freezes between the count and the chunks", seconds=60)
def freezes_while_reading(lab: Lab) -> Iterator[Finding]:
    yield from _broken_reads(lab, get_server(lab).freeze, get_server(lab).thaw)


def _starve(lab: Lab) -> None:
    """Leave the server a few megabytes."""
    if lab.backend == "redis":
        client = lab.cache._cache.get_client()  # type: ignore[attr-defined]
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("maxmemory", "6mb")


def _read_and_write_much(lab: Lab, options: Options, seconds: float) -> Iterator[Finding]:
    """Entries of all sizes, more than there is room for, that tell what they are."""
    randomness = random.Random(1)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        more = {**options, "force_overwrite": randomness.random() < 0.3}
        yield _is_whole(lab, f"key {randomness.randrange(12)}", 1 + randomness.randrange(6), more)


def _is_whole(lab: Lab, key: str, count: int, options: Options) -> Finding:
    """Read an entry, or store it with so many items. Whatever their number was, they must be all there."""
    try:
        got = list(lab.iterate(key, lambda: _counted(key, count), **options))
    except BaseException as error:
        return of_error(error)
    if not got:
        return Finding(Outcome.SHORT)
    return compare(got, _counted(key, got[0]), None)


def _counted(key: str, count: int) -> list[Any]:
    return [count, *generation(f"{key} of {count}", count, 300_000)]


@experiment(10, "the server is short of memory: compressed", djblets=Outcome.RIGHT, backends=SERVERS, client="starved")
def starved(lab: Lab) -> Iterator[Finding]:
    _starve(lab)
    yield from _read_and_write_much(lab, COMPRESSED, 4)


@experiment(
    10,
    "the server is short of memory: plain",
    djblets=(Outcome.RIGHT, Outcome.WRONG, Outcome.SHORT),
    backends=SERVERS,
    client="starved",
)
def starved_plain(lab: Lab) -> Iterator[Finding]:
    _starve(lab)
    yield from _read_and_write_much(lab, PLAIN, 4)


@experiment(10, "the server is full, and refuses", djblets=Outcome.RIGHT, backends=("redis",))
def full(lab: Lab) -> Iterator[Finding]:
    client = lab.cache._cache.get_client()  # type: ignore[attr-defined]
    client.config_set("maxmemory", "2mb")
    yield from _all_calls(lab)


RACE_SECONDS = 2.0
WRITERS, READERS = 2, 2


def _race(lab: Lab, options: Options, *, locked: bool) -> Iterator[Finding]:
    """Writers and readers at one key. Each generation is of several chunks, and names itself in each item."""
    deadline = time.monotonic() + RACE_SECONDS
    findings = lab.directory / "findings"

    def note(finding: Finding) -> None:
        if finding.outcome is not Outcome.RIGHT:
            with findings.open("a") as file:
                file.write(f"{finding.outcome.name}\n")

    def lock() -> Any:
        return lab.lock("race", retry_secs=0.02) if locked else None

    def overwrite(items: list[Any], lock: Any = None) -> None:
        note(judge(lab.iterate("key", items, force_overwrite=True, lock=lock, **options), items, None))

    def write(writer: int) -> None:
        number = 0
        while time.monotonic() < deadline:
            number += 1
            items = generation(f"{writer}-{number}")
            if locked:
                with lock() as held:
                    overwrite(items, held)
            else:
                overwrite(items)

    def read() -> None:
        while time.monotonic() < deadline:
            note(_read_one(lab, options, lock()))

    lab.together(
        [*(lambda n=n: write(n) for n in range(WRITERS)), *(read for _ in range(READERS))],
    )
    yield Finding(Outcome.RIGHT)
    for name in findings.read_text().split() if findings.exists() else ():
        yield Finding(Outcome[name])


def _read_one(lab: Lab, options: Options, lock: Any) -> Finding:
    rebuilt = generation("rebuilt")
    try:
        got = list(lab.iterate("key", lambda: rebuilt, lock=lock, **options))
    except BaseException as error:
        return of_error(error)
    names = {item[0] for item in got if isinstance(item, tuple)}
    if len(names) != 1:
        return Finding(Outcome.WRONG if names else Outcome.SHORT)
    whole = generation(names.pop())
    if got == whole:
        return Finding(Outcome.RIGHT)
    return Finding(Outcome.SHORT if got == whole[: len(got)] else Outcome.WRONG)


def _register_race(text: str, options: Options, *, locked: bool) -> None:
    # Without a checksum or seal, what two writers leave may fit together.
    mixed = (Outcome.RIGHT, Outcome.WRONG, Outcome.SHORT) if options is PLAIN else Outcome.RIGHT
    experiment(
        10,
        f"writers and readers race{' under locks' * locked}: {text}",
        djblets=mixed,
        fastblets=mixed,
        sealed=Outcome.RIGHT,
        backends=ALL,
        undetectable=UNSEALED if options is PLAIN else (),
        slow=True,
    )(lambda lab: _race(lab, options, locked=locked))


for _text, _options in (("compressed", COMPRESSED), ("plain", PLAIN)):
    for _locked in (False, True):
        _register_race(_text, _options, locked=_locked)
