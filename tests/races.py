"""Old values that are read after an invalidation has returned, counted with processes and threads on real caches.

The data is a number, its version. A process has threads that write and read: they call `cache_memoize()`, whose
producer reads the version and takes its time. Another only reads, by `cache_get()`. A thread of the first process
raises the version, invalidates, and notes that version as the promised one. Every thread looks at the promise before it
begins: an older version than that is an old value. The version and the promise are in a file that all processes have
mapped.

`python -m tests.races` prints a table for each cache and form. With a number behind it, each takes so many seconds.
"""

from __future__ import annotations

import json
import logging
import mmap
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from django.core.cache import caches
from django.core.management import call_command
from django.db import connections

from fastblets.cache.backend import cache_memoize, make_cache_key
from fastblets.cache.tags import invalidate_tags
from fastblets.cache.values import cache_delete, cache_get
from fastblets.protect.locks import CacheLock
from tests.workers import until, workers
from tools.servers import Memcached, Redis

Options = dict[str, Any]
#: By form and then by what is counted.
Counts = dict[str, Counter[str]]

TAGS = ["tag"]
#: More than one chunk, and less than two.
NOISE = random.Random(5).randbytes(1_100_000)
WITHOUT_LOCK, WITH_LOCK = "small, no lock", "small, with a lock"
BOUND: dict[str, Options] = {
    "encrypted": {"use_encryption": True},
    "large": {"large_data": True},
    "large, two chunks": {"large_data": True},
}
FORMS: dict[str, Options] = {WITHOUT_LOCK: {}, WITH_LOCK: {}, **BOUND}
MEMCACHED = "django.core.cache.backends.memcached.PyMemcacheCache"
BACKENDS = ("file", "database", "redis", "memcached", "three memcacheds")
PROCESSES = 2
#: How long a producer takes at most, and what is at most between two invalidations, in seconds.
COMPUTING, PAUSE = 0.002, 0.004


class Shared:
    """For each form the version of the data and the promised one, in memory that processes share."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        path = directory / "numbers"
        with path.open("r+b") as file:
            self._numbers = memoryview(mmap.mmap(file.fileno(), 0)).cast("q")

    def get_version(self, form: str) -> int:
        return self._numbers[2 * list(FORMS).index(form)]

    def raise_version(self, form: str) -> int:
        self._numbers[2 * list(FORMS).index(form)] += 1
        return self.get_version(form)

    def get_promised(self, form: str) -> int:
        return self._numbers[2 * list(FORMS).index(form) + 1]

    def promise(self, form: str, version: int) -> None:
        self._numbers[2 * list(FORMS).index(form) + 1] = version

    def say(self, word: str) -> None:
        (self.directory / word).touch()

    def wait_for(self, words: Iterable[str]) -> None:
        until(lambda: all((self.directory / word).exists() for word in words))


def write(shared: Shared, form: str, counts: Counter[str]) -> None:
    """Look for the value, and compute it if it isn't there."""
    promised = shared.get_promised(form)

    def compute() -> list[Any]:
        version = shared.get_version(form)
        counts["computed"] += 1
        time.sleep(random.uniform(0, COMPUTING))
        return [version, NOISE if "two chunks" in form else None]

    lock = {"lock": CacheLock(retry_secs=0.001)} if form == WITH_LOCK else {}
    version, noise = cache_memoize(form, compute, tags=TAGS, **FORMS[form], **lock)
    assert noise == (NOISE if "two chunks" in form else None)
    counts["read"] += 1
    counts["old"] += version < promised


def read(shared: Shared, form: str, counts: Counter[str]) -> None:
    """Look for the value."""
    promised = shared.get_promised(form)
    found = cache_get(form, tags=TAGS, **FORMS[form])
    counts["read"] += 1
    if found is not None:
        counts["found"] += 1
        counts["old"] += found[0] < promised


def invalidate(shared: Shared, form: str, counts: Counter[str]) -> None:
    """Raise the version, and promise that nobody sees an older one."""
    version = shared.raise_version(form)
    encrypted = "use_encryption" in FORMS[form]
    try:
        _ = invalidate_tags("tag") if version % 2 else cache_delete(form, use_encryption=encrypted)
    except Exception:
        # Nothing is promised. The next one may succeed.
        counts["failed"] += 1
    else:
        shared.promise(form, version)
        counts["invalidated"] += 1
    time.sleep(random.uniform(0, PAUSE))


def work(directory: str, number: int, seconds: float, forms: list[str]) -> Counts:
    """What one process does: it takes each form for some seconds."""
    logging.disable(logging.CRITICAL)
    path = Path(directory)
    connections.databases["default"]["NAME"] = str(path / "database.sqlite3")
    connections.databases["default"]["OPTIONS"] = {"timeout": 30}
    shared = Shared(path)
    if number == 0:
        call_command("createcachetable", verbosity=0)
        shared.say("prepared")
    shared.wait_for(["prepared"])
    shared.say(f"ready {number}")
    shared.wait_for(f"ready {other}" for other in range(PROCESSES))
    counts: Counts = {}
    roles = [write, write, read, *([invalidate] if number == 0 else [])]
    for form in forms:
        counts[form] = in_threads([_repeat(role, shared, form, time.monotonic() + seconds) for role in roles])
        shared.say(f"{form} {number}")
        shared.wait_for(f"{form} {other}" for other in range(PROCESSES))
        # What is left behind, when all have ended.
        found = cache_get(form, tags=TAGS, **FORMS[form])
        promised = shared.get_promised(form)
        if found is not None and found[0] < promised:
            counts[form]["stays"] += 1
            # Whoever looks into it needs to know why it is valid.
            keys = [make_cache_key(key) for key in ("_tag_:tag", f"_fence_:{form}", f"_state_:{form}")]
            keys.append(make_cache_key(f"_fence_:{form}", use_encryption=True))
            print(
                f"{form}: {found[0]} stays, {promised} was promised: {caches['default'].get_many(keys)}",
                file=sys.stderr,
            )
    return counts


def _repeat(
    role: Callable[[Shared, str, Counter[str]], None], shared: Shared, form: str, end: float
) -> Callable[[], Counter[str]]:
    def run() -> Counter[str]:
        counts: Counter[str] = Counter()
        try:
            while time.monotonic() < end:
                role(shared, form, counts)
        finally:
            # Django closes neither, but for requests.
            caches.close_all()
            connections.close_all()
        return counts

    return run


def in_threads(tasks: list[Callable[[], Counter[str]]]) -> Counter[str]:
    with ThreadPoolExecutor(len(tasks)) as pool:
        return sum((future.result() for future in [pool.submit(task) for task in tasks]), Counter())


def race(config: Options, directory: Path, seconds: float, forms: Iterable[str] = tuple(FORMS)) -> Counts:
    """Let processes race on a cache, each form for some seconds. Return what they counted."""
    code = "from tests.races import work\nsay(work(*json.loads(sys.argv[2])))"
    counts: Counts = {form: Counter() for form in forms}
    (directory / "numbers").write_bytes(bytes(16 * len(FORMS)))
    arguments = [json.dumps([str(directory), number, seconds, list(forms)]) for number in range(PROCESSES)]
    with workers(config, code, arguments=arguments) as started:
        for worker in started:
            ((found,),) = worker.end()
            for form, each in found.items():
                counts[form].update(each)
    return counts


def make_config(backend: str, directory: Path, start: Callable[[Any], Any]) -> Options:
    """The settings of a cache. Its servers are started."""
    match backend:
        case "file":
            base, location = "django.core.cache.backends.filebased.FileBasedCache", str(directory / "cache")
        case "database":
            base, location = "django.core.cache.backends.db.DatabaseCache", "cache_entries"
        case "redis":
            base, location = "django.core.cache.backends.redis.RedisCache", start(Redis()).url
        case _:
            count = 3 if backend.startswith("three") else 1
            base, location = MEMCACHED, [start(Memcached()).address for _ in range(count)]
    return {"BACKEND": base, "LOCATION": location}


def main(seconds: float) -> None:
    """Print a table of all."""
    columns = ("invalidated", "failed", "computed", "read", "old", "stays")
    print("| Backend | Form |", " | ".join(columns), "|")
    print("| --- | --- |", " | ".join(["---:"] * len(columns)), "|")
    for backend in BACKENDS:
        with ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            config = make_config(backend, directory, stack.enter_context)
            for form, counts in race(config, directory, seconds).items():
                print(f"| {backend} | {form} |", " | ".join(f"{counts[each]:,}" for each in columns), "|", flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 10)
