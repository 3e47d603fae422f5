"""The demo's five steps. Each prints what it found once it has checked that it is so."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import pickle
import platform
import time
import zlib
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from itertools import count, takewhile
from statistics import median

import django
from django.core.cache import cache

import reports
import sources
import workers
from fastblets.cache.backend import make_cache_key
from show import Measured, claim, digest, duration, heading, line, measure, megabytes, remark
from sources import Module

CROWD = 6
ROUNDS = 5
WORD = "class EmailMessage"
ENTRIES = {
    "large value": "library-report",
    "iterable": "library-stream",
    "encrypted": "private-report",
}

# Fresh processes, not forks: they inherit no open connection and no imported library.
SPAWN = multiprocessing.get_context("spawn")


def run(kind: str) -> None:
    python = f"Python {platform.python_version()}, Django {django.__version__}"
    print(f"fastblets over Django's {kind} cache ({python}, {os.cpu_count()} processors)")
    print("The data: the source files of Python's own library, parsed with ast")
    report = show_report()
    show_stream(report)
    private = show_encryption()
    show_lock(kind)
    show_djblets(report, private)
    print("\nAll that is said above was checked in this run; times are as measured.")


def show_report() -> list[Module]:
    heading("1. A slow report: cache_memoize(..., large_data=True)")
    miss = measure(reports.library_report)
    hit = measure(reports.library_report)
    report: list[Module] = miss.result
    chunks = stored_chunks("library-report")
    counted = cache.get(make_cache_key("library-report"))
    pickled = pickle.dumps(report, protocol=0)
    stored = sum(map(len, chunks))

    claim(miss.files_parsed == len(report) > 0, "the miss parsed all files")
    claim(hit.files_parsed == 0, "the hit parsed no file")
    claim(hit.result == report, "the hit gave what the miss gave")
    claim(counted == str(len(chunks)), "the main entry is the number of chunks")
    claim(zlib.decompress(b"".join(chunks)) == pickled, "the chunks are the compressed pickle")

    definitions = sum(len(module["definitions"]) for module in report)
    line("miss", duration(miss.seconds), f"{miss.files_parsed} files parsed, the report stored")
    line("hit", duration(hit.seconds), "no file parsed, the result equal")
    line("report", f"{len(report)}", f"modules with {definitions:,} functions and classes")
    line("pickled", megabytes(len(pickled)))
    line("stored", megabytes(stored), f"in {len(chunks)} chunks: {len(pickled) / stored:.1f}x less")
    return report


def show_stream(report: list[Module]) -> None:
    heading("2. An iterable: cache_memoize_iter(...)")
    miss, first_of_miss = measure_stream()
    hit, first_of_hit = measure_stream()

    claim(miss.files_parsed == len(report), "the miss parsed all files")
    claim(hit.files_parsed == 0, "the hit parsed no file")
    claim(miss.result == hit.result == report, "miss and hit gave the same modules")

    line("miss, first item", duration(first_of_miss), "each item came before the next was begun")
    line("miss, last item", duration(miss.seconds), f"{miss.files_parsed} files parsed")
    line("hit, first item", duration(first_of_hit))
    line("hit, last item", duration(hit.seconds), "no file parsed, the items equal")


def show_encryption() -> list[Module]:
    heading("3. A secret: cache_memoize(..., use_encryption=True)")
    miss = measure(reports.private_report)
    hit = measure(reports.private_report)
    private: list[Module] = miss.result
    wrong = measure(lambda: reports.private_report(encryption_key=b"a wrong AES key."))
    plain_key = make_cache_key("private-report")
    secret_key = make_cache_key("private-report", use_encryption=True)
    plain = b"".join(stored_chunks("library-report"))
    secret = b"".join(stored_chunks("private-report", use_encryption=True))

    claim(any(WORD in module["source"] for module in private), "the secret has the word")
    claim(can_read(plain) and not can_read(secret), "the word can be read in the plain entry only")
    claim(cache.get(plain_key) is None, "nothing lies under the plain key")
    claim(len(bytes.fromhex(secret_key)) == 32, "the key in the cache is a SHA-256 HMAC")
    claim(hit.files_parsed == 0, "the hit parsed no file")
    claim(hit.result == private, "the hit gave what the miss gave")
    claim(wrong.files_parsed == miss.files_parsed > 0, "with a wrong AES key it is a miss")
    claim(wrong.result == private, "with a wrong AES key nothing garbled comes")

    line("miss", duration(miss.seconds), f"{miss.files_parsed} files parsed")
    line("hit", duration(hit.seconds), "no file parsed, the result equal")
    line("wrong AES key", duration(wrong.seconds), "a miss, computed again: nothing garbled")
    remark(f"key as given       {plain_key}")
    remark(f"key in the cache   {secret_key[:24]}... (an HMAC, {len(secret_key)} digits)")
    remark(f"bytes stored       {secret[:16].hex(' ')} ... ({len(secret):,})")
    remark(f'"{WORD}" is found in the entry of step 1, once unpacked, but not in this one')
    return private


def show_lock(kind: str) -> None:
    heading(f"4. {CROWD} processes miss at once: cache_memoize(..., lock=CacheLock())")
    with ProcessPoolExecutor(CROWD, SPAWN, workers.join_crowd, (SPAWN.Barrier(CROWD),)) as crowd:
        free = sorted(crowd.map(workers.ask_with_crowd, ["stampede_report"] * CROWD))
        locked = sorted(crowd.map(workers.ask_with_crowd, ["busy_report"] * CROWD))

    claim(number_computed(free) > 1, "without a lock, several compute")
    claim(number_computed(locked) == 1, "with a lock, exactly one computes")

    for label, answers in (("without a lock", free), ("with CacheLock", locked)):
        waits = " ".join(f"{seconds:6.2f}{'*' if here else ' '}" for seconds, here in answers)
        line(label, f"{number_computed(answers)} of {CROWD}", f"computed; seconds: {waits}")
    remark("(* computed the report itself; the others waited and read it)")
    if kind == "file":
        remark("(files need an add() that one process alone can win: see filecache.py)")


def show_djblets(report: list[Module], private: list[Module]) -> None:
    heading("5. Side by side with Djblets")
    if not importlib.util.find_spec("djblets"):
        remark("Left out, as Djblets is not installed; to get it: pip install djblets")
        return
    with process_of("djblets") as djblets, process_of("fastblets") as fastblets:
        show_exchange(djblets, report, private)
        show_times({"Djblets": djblets, "fastblets": fastblets})


def show_exchange(djblets: ProcessPoolExecutor, report: list[Module], private: list[Module]) -> None:
    cases = {
        "large value": (reports.library_report, report),
        "iterable": (lambda: list(reports.library_stream()), report),
        "encrypted": (reports.private_report, private),
    }
    for kind, (read_ours, expected) in cases.items():
        key = ENTRIES[kind]
        _, theirs = djblets.submit(workers.read, kind, key).result()
        claim(theirs == digest(expected), f"Djblets reads our entry: {kind}")

        # Without the main entry ours is gone, so what is read next can only be that of Djblets.
        cache.delete(make_cache_key(key, use_encryption=kind == "encrypted"))
        djblets.submit(workers.write, kind, key).result()
        read = measure(read_ours)
        claim(read.files_parsed == 0, f"we compute nothing that Djblets has stored: {kind}")
        claim(read.result == expected, f"we read the entry of Djblets: {kind}")
    line("Djblets reads ours", "3 of 3", f"nothing computed, equal ({', '.join(cases)})")
    line("we read theirs", "3 of 3", "nothing computed, equal (the same three)")


def show_times(rivals: dict[str, ProcessPoolExecutor]) -> None:
    for process in rivals.values():
        records = process.submit(workers.hold_report, ENTRIES["large value"]).result()
    times: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for _ in range(ROUNDS):
        for kind in ENTRIES:
            for name, process in rivals.items():
                key = f"{kind} by {name}"
                times[kind, "miss", name].append(process.submit(workers.write, kind, key).result())
                seconds, _ = process.submit(workers.read, kind, key).result()
                times[kind, "hit", name].append(seconds)

    for kind in ("large value", "iterable"):
        their_chunks, our_chunks = (stored_chunks(f"{kind} by {name}") for name in rivals)
        claim(their_chunks == our_chunks != [], f"both store the same bytes: {kind}")
    line("bytes stored", "identical", "by both, for the same value")

    print()
    line("", "Djblets", "fastblets  Djblets/fastblets")
    for kind in ENTRIES:
        for case in ("miss", "hit"):
            theirs, ours = (median(times[kind, case, name]) for name in rivals)
            ratio = f"{theirs / ours:.1f}x"
            line(f"{kind}, {case}", duration(theirs), f"{duration(ours):>9}  {ratio:>6}")
    remark(f"(large value, encrypted: the report of step 1; iterable: its {records:,} definitions.")
    remark(" A miss is the storing alone: computing takes either the same. The time that the cache")
    remark(f" itself takes is in all of them. Medians of {ROUNDS}, taken in turn, a process each.)")


def measure_stream() -> tuple[Measured, float]:
    """Measure the stream and its first item; check that no file is parsed before its turn."""
    parsed_before = len(sources.parsed)
    arrivals: list[float] = []

    def drain() -> list[Module]:
        modules = []
        for module in reports.library_stream():
            arrivals.append(time.perf_counter())
            modules.append(module)
            parsed = len(sources.parsed) - parsed_before
            claim(parsed in (0, len(modules)), "each item came before the next was begun")
        return modules

    start = time.perf_counter()
    measured = measure(drain)
    return measured, arrivals[0] - start


def stored_chunks(key: str, *, use_encryption: bool = False) -> list[bytes]:
    """Return the chunks as they lie in the cache."""
    values = (cache.get(make_cache_key(f"{key}-{i}", use_encryption=use_encryption)) for i in count())
    return [chunk for [chunk] in takewhile(lambda value: value is not None, values)]


def can_read(stored: bytes) -> bool:
    """Return whether someone who has only the bytes finds the word in them."""
    try:
        return WORD.encode() in zlib.decompress(stored)
    except zlib.error:
        return WORD.encode() in stored


def number_computed(answers: list[tuple[float, bool]]) -> int:
    return sum(computed for _, computed in answers)


def process_of(library: str) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, SPAWN, workers.use_library, (library,))
