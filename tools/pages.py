"""Pages with parts that a program writes: figures, and the machine on which they were measured."""

from __future__ import annotations

import platform
import re
from pathlib import Path


def replace_part(page: str, name: str, text: str) -> str:
    """Put a text between the marks of that name. There must be exactly one pair."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    pattern = f"({re.escape(begin)}\n).*?({re.escape(end)})"
    page, count = re.subn(pattern, lambda found: f"{found[1]}{text}\n{found[2]}", page, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"the page has not exactly one part {name!r}")
    return page


def name_processor() -> str:
    """What the processor is called."""
    try:
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()
