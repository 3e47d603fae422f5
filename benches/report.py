"""The results as tables, on the terminal and on the page about performance."""

from __future__ import annotations

import os
import platform
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from itertools import groupby
from pathlib import Path

from benches.chart import draw
from benches.costs import Cost
from benches.limits import Limit
from benches.timing import Speed
from tools.pages import name_processor, replace_part

DOCS = Path(__file__).parent.parent / "docs"
PAGE = DOCS / "performance.md"
CHART = DOCS / "performance.svg"
MISSED = "**missed**"


@dataclass(frozen=True)
class Results:
    """All that one run has measured, and where."""

    circumstances: dict[str, str]
    speeds: Sequence[Speed]
    limits: Sequence[Limit]
    costs: Sequence[Cost]

    @property
    def missed(self) -> int:
        """How many targets were missed."""
        return sum(row.missed for row in (*self.speeds, *self.limits, *self.costs))

    def tables(self) -> dict[str, str]:
        """The page's generated parts by their names."""
        return {
            "circumstances": _table(("", ""), self.circumstances.items()),
            "speeds": _sections(("djblets", "fastblets", "ratio", "at least"), self.speeds),
            "limits": _sections(("djblets", "fastblets", "", "at most"), self.limits),
            "costs": _sections(("without", "with", "ratio", "at most"), self.costs),
        }


def describe_circumstances(*, quick: bool) -> dict[str, str]:
    """Where and with what it is measured."""
    from cryptography.hazmat.backends.openssl import backend as openssl

    return {
        "Date": f"{date.today()}{', a quick run' if quick else ''}",
        "Processor": f"{name_processor()}, {os.cpu_count()} cores",
        "Load before": ", ".join(f"{load:.1f}" for load in os.getloadavg()),
        "System": platform.platform(),
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "Django": version("django"),
        "asgiref": version("asgiref"),
        "Djblets": version("djblets"),
        "fastblets": version("fastblets"),
        "zlib (Python's, used by Djblets)": zlib.ZLIB_RUNTIME_VERSION,
        "OpenSSL (pyca's, used by Djblets)": openssl.openssl_version_text(),
        "cryptography": version("cryptography"),
    }


def write_page(results: Results) -> None:
    """Put the results on the page, between its prose."""
    page = PAGE.read_text(encoding="utf-8")
    for name, table in results.tables().items():
        page = replace_part(page, name, table)
    PAGE.write_text(page, encoding="utf-8")
    CHART.write_text(draw(results.speeds), encoding="utf-8")


def summarize(row: Speed | Limit | Cost) -> str:
    """A result on one line, behind its title."""
    _, *figures, mark = _cells(row)
    return f"{' | '.join(figures)}{' MISSED' if mark else ''}"


def _format_limit(at_most: float | None) -> str:
    return "" if at_most is None else f"{at_most:g}"


def _format_time(seconds: float) -> str:
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if seconds * factor >= 1 or unit == "µs":
            return f"{_three_digits(seconds * factor)} {unit}"
    raise AssertionError


def _three_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _sections(columns: Sequence[str], rows: Iterable[Speed | Limit | Cost]) -> str:
    tables = (
        f"**{section}**\n\n{_table(('job', *columns, ''), map(_cells, group))}"
        for section, group in groupby(rows, key=lambda row: row.section)
    )
    return "\n\n".join(tables)


def _cells(row: Speed | Limit | Cost) -> Sequence[str]:
    mark = MISSED if row.missed else ""
    if isinstance(row, Speed):
        times = _format_time(row.djblets), _format_time(row.fastblets)
        return row.job, *times, f"{row.ratio:.2f}", f"{row.at_least:g}", mark
    if isinstance(row, Cost):
        times = _format_time(row.without), _format_time(row.with_it)
        return row.job, *times, f"{row.ratio:.2f}", _format_limit(row.at_most), mark
    return row.job, f"{row.djblets:.3g}", f"{row.fastblets:.3g}", row.unit, _format_limit(row.at_most), mark


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] + ["---:"] * (len(columns) - 2) + ["---"], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
