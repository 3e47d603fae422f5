"""The pytest plugin inside each upstream run: who is being tested, and what came of each test."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from tests.upstream.settings import REPLACE

# One name of each module that has a replacement; Djblets 5 has no locks.
WITNESSES = {
    "djblets.cache.backend": "cache_memoize_iter",
    "djblets.cache.errors": "MissingChunkError",
    "djblets.cache.synchronizer": "GenerationSynchronizer",
    "djblets.protect.locks": "CacheLock",
    "djblets.secrets.crypto": "aes_encrypt_iter",
}

_outcomes: dict[str, str] = {}


def _sources() -> Iterator[tuple[str, str]]:
    for module, name in WITNESSES.items():
        try:
            witness = getattr(import_module(module), name)
        except ModuleNotFoundError:
            continue
        yield f"{module}.{name}", inspect.getfile(inspect.unwrap(witness))


def _impostors() -> list[str]:
    expected = import_module("fastblets" if REPLACE else "djblets")
    assert expected.__file__ is not None
    home = Path(expected.__file__).parent
    return [f"{witness} comes from {source}" for witness, source in _sources() if not Path(source).is_relative_to(home)]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--outcomes", type=Path, help="where to write the outcome of each test")


def pytest_sessionstart() -> None:
    # Without this, a replacement that replaces nothing would pass every test.
    if impostors := _impostors():
        pytest.exit("Not what was to be tested:\n" + "\n".join(impostors), returncode=3)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.failed:
        _outcomes[report.nodeid] = "failed"


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    # A test that fails in its setup or teardown has failed, whatever its body did.
    if report.failed or report.skipped:
        _outcomes[report.nodeid] = report.outcome
    elif report.when == "call":
        _outcomes.setdefault(report.nodeid, report.outcome)


def pytest_sessionfinish(session: pytest.Session) -> None:
    session.config.getoption("--outcomes").write_text(json.dumps(_outcomes))
