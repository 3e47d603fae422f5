"""Measuring, checking and printing."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import sources


class Measured(NamedTuple):
    result: Any
    seconds: float
    files_parsed: int


def measure(call: Callable[[], Any]) -> Measured:
    before = len(sources.parsed)
    start = time.perf_counter()
    result = call()
    return Measured(result, time.perf_counter() - start, len(sources.parsed) - before)


def digest(value: Any) -> str:
    """Return what tells whether values in two processes are equal."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def claim(is_so: bool, what: str) -> None:
    """End the demo, with exit code 1, before it prints what isn't so."""
    if not is_so:
        raise SystemExit(f"NOT SO: {what}")


def heading(text: str) -> None:
    print(f"\n{text}", flush=True)


def line(label: str, figure: str = "", note: str = "") -> None:
    print(f"   {label:<18} {figure:>9}  {note}".rstrip(), flush=True)


def remark(text: str) -> None:
    print(f"   {text}", flush=True)


def duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"


def megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
