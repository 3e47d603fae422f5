"""What callers saw, as tables and a chart on the page about reliability."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles

from tests.load.chart import draw
from tests.load.traffic import Attempt, Call, Seen
from tools.pages import name_processor, replace_part

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "reliability.md"
CHART = DOCS / "load.svg"

#: From how many seconds on a call counts as slow.
SLOW = 0.2


@dataclass(frozen=True)
class Run:
    """One way to call on one server: what was seen while the source works, and with an outage in the middle."""

    server: str
    way: str
    works: Seen
    fails: Seen


#: The phase of a run in which the source fails.
OUTAGE = 1


def describe(load_before: Sequence[float]) -> str:
    """Where and with what it was measured."""
    found = {
        "Date": str(date.today()),
        "Processor": f"{name_processor()}, {os.cpu_count()} cores",
        "Load before and after": " and ".join(f"{load:.1f}" for load in (load_before[0], os.getloadavg()[0])),
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "Django": version("django"),
    }
    return _table(("", ""), found.items())


def tell_times(runs: Iterable[Run]) -> str:
    """How long callers waited while the source works."""
    columns = ("server", "", "calls", "over 0.2 s", "median", "99 %", "computed")
    return _table(columns, [(run.server, run.way, *_times(run.works.calls), _number(_made(run))) for run in runs])


def _times(calls: list[Call]) -> Sequence[str]:
    seconds = [call.seconds for call in calls]
    slow = sum(each > SLOW for each in seconds) / len(seconds)
    last = quantiles(seconds, n=100)[-1]
    return _number(len(calls)), f"{slow:.1%}", f"{median(seconds) * 1000:.1f} ms", f"{last * 1000:.0f} ms"


def _made(run: Run) -> int:
    return sum(attempt.version is not None for attempt in run.works.attempts)


def tell_errors(runs: Iterable[Run]) -> str:
    """What came of an outage."""
    columns = ("server", "", "calls meanwhile", "errors", "over 0.2 s", "tried")
    return _table(columns, [(run.server, run.way, *_errors(run.fails)) for run in runs])


def _errors(seen: Seen) -> Sequence[str]:
    calls = [call for call in seen.calls if call.phase == OUTAGE]
    errors = sum(call.version is None for call in calls)
    slow = sum(call.seconds > SLOW for call in calls) / len(calls)
    return _number(len(calls)), _number(errors), f"{slow:.1%}", _number(len(_failed(seen.attempts)))


def _failed(attempts: list[Attempt]) -> list[Attempt]:
    return [attempt for attempt in attempts if attempt.version is None]


def _number(number: int) -> str:
    return f"{number:,}"


def write_page(runs: Sequence[Run], load_before: Sequence[float]) -> Mapping[str, str]:
    """Put the results on the page, between its prose. Return them."""
    parts = {"load": describe(load_before), "load times": tell_times(runs), "load errors": tell_errors(runs)}
    page = PAGE.read_text(encoding="utf-8")
    for name, table in parts.items():
        page = replace_part(page, name, table)
    PAGE.write_text(page, encoding="utf-8")
    CHART.write_text(
        draw([(f"{run.server}, {run.way}".replace("`", ""), run.fails.calls) for run in runs], SLOW), encoding="utf-8"
    )
    return parts


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---", "---"] + ["---:"] * (len(columns) - 2), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
