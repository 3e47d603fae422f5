"""Compression by several threads: the same bytes, no thread if none is wanted or available, no harm by a fork."""

from __future__ import annotations

import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import cache, caches
from django.test import override_settings

from fastblets import _native
from fastblets.cache.backend import cache_memoize, cache_memoize_iter, make_cache_key
from fastblets.secrets.crypto import aes_decrypt
from tests.backends import stored_bytes

pytestmark = [pytest.mark.usefixtures("locmem"), pytest.mark.linux("/proc, fork and setrlimit")]

ROOT = Path(__file__).parent.parent
TASKS = Path("/proc/self/task")
KEY = b"a key of 16 byte"


@lru_cache
def words(size: int) -> str:
    """Return text that compresses as text does."""
    chance = random.Random(1)
    vocabulary = [chance.randbytes(chance.randrange(1, 6)).hex() for _ in range(3000)]
    return " ".join(chance.choices(vocabulary, k=size // 6))[:size]


def records() -> Iterator[dict[str, Any]]:
    return ({"id": number, "name": words(1000)[number % 900 :][:60], "odd": number % 2} for number in range(20_000))


@lru_cache
def stock(of: Callable[..., Any], *arguments: int) -> bytes:
    """Compress what a function returns, or each of the items that it yields, as Djblets does."""
    compressor = zlib.compressobj()
    returned = of(*arguments)
    items = [returned] if isinstance(returned, str) else returned
    return b"".join(compressor.compress(pickle.dumps(item, 0)) for item in items) + compressor.flush()


def chunks() -> bytes:
    """Return what is stored of the only entry in the cache."""
    # LocMem puts the latest first.
    stored = [pickle.loads(value) for value in reversed(stored_bytes(caches["default"]).values())]
    cache.clear()
    return b"".join(chunk[0] for chunk in stored if isinstance(chunk, list))


def most_tasks(work: Callable[[], object]) -> int:
    """Return how many threads the system sees at most while the work is done, beyond those before."""
    stopped = threading.Event()
    counts: list[int] = []

    def count() -> None:
        while not stopped.is_set():
            counts.append(len(list(TASKS.iterdir())))

    counter = threading.Thread(target=count)
    counter.start()
    before = len(list(TASKS.iterdir()))
    try:
        work()
    finally:
        stopped.set()
        counter.join()
    # A thread of another test may end meanwhile.
    return max(max(counts) - before, 0)


@pytest.mark.parametrize("threads", [None, 1, 2, 4, "wrong"], ids=repr)
def test_the_stored_bytes_do_not_depend_on_it(threads: Any) -> None:
    text = words(5_000_000)
    expected = stock(words, 5_000_000)
    with override_settings(FASTBLETS_THREADS=threads):
        cache_memoize("text", lambda: text, large_data=True)
        assert chunks() == expected
        list(cache_memoize_iter("records", records))
        assert chunks() == stock(records)
        cache_memoize("secret", lambda: text, large_data=True, use_encryption=True, encryption_key=KEY)
        assert aes_decrypt(chunks(), key=KEY) == expected


@pytest.mark.parametrize(("threads", "more"), [(1, 0), (2, 1), (4, 3), (9, 3)])
def test_the_setting_is_the_most(threads: int, more: int) -> None:
    text = words(12_000_000)
    with override_settings(FASTBLETS_THREADS=threads):
        assert most_tasks(lambda: cache_memoize(f"text {threads}", lambda: text, large_data=True)) == more


def test_by_default_there_is_one_for_each_processor() -> None:
    text = words(12_000_000)
    allowed = os.sched_getaffinity(0)
    more = min(len(allowed), 4) - 1
    assert most_tasks(lambda: cache_memoize("text", lambda: text, large_data=True)) <= more
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert most_tasks(lambda: cache_memoize("on one", lambda: text, large_data=True)) == 0
    finally:
        os.sched_setaffinity(0, allowed)


def test_values_below_a_megabyte_start_none() -> None:
    def work() -> None:
        for number in range(30):
            cache_memoize(f"text {number}", lambda: words(1_000_000), large_data=True)

    words(1_000_000)
    with override_settings(FASTBLETS_THREADS=4):
        assert most_tasks(work) == 0


def test_the_native_writer_takes_a_positive_number() -> None:
    for threads in (0, -1):
        with pytest.raises((ValueError, OverflowError)):
            _native.LargeWriter(True, None, None, threads)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_forks_while_threads_compress_and_after() -> None:
    """The children, in which these threads are gone, compress by threads of their own."""
    text = words(12_000_000)
    expected = stock(words, 12_000_000)
    # A thread that looks up the site holds locks inside SQLite, which nobody releases in a child forked meanwhile.
    make_cache_key("key")
    before = {task.name for task in TASKS.iterdir()}

    def work() -> None:
        cache_memoize(f"text {os.getpid()} {threading.get_ident()}", lambda: text, large_data=True)

    def child() -> int:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                # Not pytest's.
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(60)
                cache.clear()
                cache_memoize("of the child", lambda: text, large_data=True)
                status = int(chunks() != expected)
            finally:
                os._exit(status)
        return pid

    with override_settings(FASTBLETS_THREADS=3):
        worker = threading.Thread(target=work)
        worker.start()
        children: list[int] = []
        while worker.is_alive() and len(children) < 3:
            if {task.name for task in TASKS.iterdir()} - before - {str(worker.native_id)}:
                children.append(child())
        worker.join()
        assert children, "no native thread was seen"
        children.append(child())
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0] * len(children)


def test_a_system_that_refuses_threads() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.test_threads"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "the same\n", "")


def write_without_threads() -> None:
    """Compress where no thread can be started."""
    import resource  # Not on Windows.

    text = words(5_000_000)
    expected = stock(words, 5_000_000)
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    if os.getuid() == 0:
        # The limit doesn't hold for root.
        os.setuid(65534)
    try:
        threading.Thread(target=int).start()
    except RuntimeError:
        writer = _native.LargeWriter(True, None, None, 4)
        writer.write(text)
        writer.finish()
        stored = b"".join([*writer.take_full_chunks(), writer.last_chunk() or b""])
        print("the same" if stored == expected else "different")
    else:
        print("a thread was started")


if __name__ == "__main__":
    write_without_threads()
