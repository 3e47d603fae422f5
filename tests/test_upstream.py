"""Djblets' own tests, as they are installed, on fastblets."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import pytest

from tests.upstream.run import SHORT, Run, compare, lost

MISSING = [name for name in ("djblets", "kgb") if find_spec(name) is None]


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")
def test_what_passes_on_djblets_passes_on_us() -> None:
    holds, report = compare(sys.executable, SHORT)
    assert holds, report


def test_a_lost_test_is_seen_in_whatever_way_it_was_lost() -> None:
    stock = {"a": "passed", "b": "passed", "c": "passed", "d": "passed", "e": "failed"}
    ours = {"a": "passed", "b": "failed", "c": "skipped", "e": "failed"}
    assert lost(stock, ours) == ["b  [failed]", "c  [skipped]", "d  [not run]"]


@pytest.mark.parametrize(
    ("run", "ended"),
    [
        (Run(0, {"a": "passed"}, ""), True),
        (Run(1, {"a": "passed", "b": "failed"}, ""), True),
        (Run(1, {"a": "failed"}, ""), False),
        (Run(0, {}, ""), False),
        (Run(2, {"a": "passed"}, ""), False),
        (Run(3, {"a": "passed"}, ""), False),
    ],
)
def test_a_run_counts_only_if_it_tested_something(run: Run, ended: bool) -> None:
    assert run.ended == ended
