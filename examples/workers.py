"""What the demo runs in other processes."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from types import ModuleType
from typing import Any

import django

from show import digest, measure

# Each process gets one of these two when it starts.
together: Barrier
library: ModuleType

#: What a process of one library stores: by kind, what it read last.
held: dict[str, Any] = {}


def join_crowd(barrier: Barrier) -> None:
    global together
    django.setup()
    together = barrier


def ask_with_crowd(report: str) -> tuple[float, bool]:
    """Ask for a report when all others do; return the seconds and whether it was computed here."""
    # Cache keys need Django's models, which are there only after the setup.
    import reports

    together.wait(timeout=60)
    answer = measure(getattr(reports, report))
    return answer.seconds, answer.files_parsed > 0


def use_library(name: str) -> None:
    """Make this a process of Djblets or of fastblets: it imports only the one."""
    global library
    # Djblets uses a cipher mode that its crypto library has deprecated; not the subject here.
    warnings.simplefilter("ignore")
    django.setup()
    library = importlib.import_module(f"{name}.cache.backend")


def read(kind: str, key: str) -> tuple[float, str]:
    """Read an entry that must be there; return the seconds and the digest of what came."""
    held[kind], seconds, _ = measure(lambda: memoize(kind, key, refuse_to_compute))
    return seconds, digest(held[kind])


def write(kind: str, key: str) -> float:
    """Store what was last read of this kind; return the seconds."""
    return measure(lambda: memoize(kind, key, lambda: held[kind], force_overwrite=True)).seconds


def hold_report(key: str) -> int:
    """Hold the report, and its many small records as an iterable; return how many these are."""
    report = memoize("large value", key, refuse_to_compute)
    records = [definition for module in report for definition in module["definitions"]]
    held.update({"large value": report, "encrypted": report, "iterable": records})
    return len(records)


def memoize(kind: str, key: str, compute: Callable[[], Any], **options: bool) -> Any:
    if kind == "iterable":
        return list(library.cache_memoize_iter(key, compute, **options))
    encrypted = kind == "encrypted"
    return library.cache_memoize(key, compute, large_data=True, use_encryption=encrypted, **options)


def refuse_to_compute() -> Any:
    raise LookupError("NOT SO: the entry was in the cache and could be read")
