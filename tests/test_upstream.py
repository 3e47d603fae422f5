"""Djblets' own tests, as they are installed, on fastblets."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings

from fastblets.cache import backend
from tests.upstream import wider
from tests.upstream.run import INSTALLED, ROOT, SHORT, VERSIONS, Run, compare, environment, lost, prepare

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


@pytest.mark.django_db
@pytest.mark.skipif(find_spec("djblets") is None, reason="not installed: djblets")
@pytest.mark.parametrize(
    "version",
    # The others are installed first.
    [version if version == INSTALLED else pytest.param(version, marks=pytest.mark.slow) for version in VERSIONS],
)
def test_each_release_reads_what_is_written_in_protocol_4(version: str, tmp_path: Path, settings: Any) -> None:
    cache = {"BACKEND": "django.core.cache.backends.filebased.FileBasedCache", "LOCATION": str(tmp_path)}
    settings.CACHES = {"default": cache | {"OPTIONS": {"MAX_ENTRIES": 10_000}}}
    expected = {}
    for name, seal in (("unsealed", False), ("sealed", True)):
        with override_settings(FASTBLETS_SEAL=seal):
            stored = list(wider.memoize(backend, name, wider.items))
        expected[name] = [[wider.described(item) for item in items] for items in stored]
    reader = [prepare(version, None), "-m", "tests.upstream.wider", str(tmp_path)]
    subprocess.run(reader, check=True, cwd=ROOT, env=environment(replace=False), timeout=120)
    told = json.loads((tmp_path / "found.json").read_text())
    assert told["found"] == expected
    assert version in (told["version"], INSTALLED)
