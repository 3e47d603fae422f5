"""Servers, backends and determinism for every test."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import cache
from django.core.cache.backends.base import BaseCache

from fastblets import _native
from fastblets.cache.backend import make_cache_key
from tests.backends import BACKENDS, CHOICE, EVERYDAY, Backend, Needs, chosen, locmem_config, use_cache
from tests.parity import Parity
from tests.randomness import CountingIVs
from tools.servers import AnyServer, Memcached, Redis, missing_servers

#: Backends on which a test is slow, unless it is marked `every_backend`.
RARE = [backend.name for backend in BACKENDS if backend.name not in EVERYDAY]
IN_CI = os.environ.get("CI", "").lower() == "true"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow-paths", action="store_true", help="leave all pickling to CPython's pickle, as a model")
    parser.addoption("--portable", action="store_true", help="only what runs on every system: no servers, no `linux`")


def pytest_configure(config: pytest.Config) -> None:
    _native.use_fast_paths(not config.getoption("--slow-paths"))
    for backend in BACKENDS:
        config.addinivalue_line("markers", f"{backend.name}: runs on that cache backend")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Of `-n auto`: one more than processors, as tests wait for frozen servers, and for the ends of locks."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return processors + 1


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    is_portable = config.getoption("--portable") or sys.platform != "linux"
    for item in items:
        # xdist runs tests by their names, which its workers must agree on.
        if " at 0x" in item.nodeid:
            raise pytest.UsageError(f"The id of a parameter must be the same in each process: {item.nodeid}")
        is_rare = CHOICE not in os.environ and any(item.get_closest_marker(name) for name in RARE)
        if is_rare and not item.get_closest_marker("every_backend"):
            item.add_marker(pytest.mark.slow)
        if is_portable and (mark := item.get_closest_marker("linux")):
            item.add_marker(pytest.mark.skip(reason=f"not portable: it needs {mark.args[0]}"))


def pytest_collection_finish(session: pytest.Session) -> None:
    # Thousands of tests are many objects. The collector need not look through them over and over.
    gc.collect()
    gc.freeze()


def pytest_sessionstart(session: pytest.Session) -> None:
    if IN_CI and not session.config.getoption("--portable") and (missing := missing_servers()):
        pytest.exit(f"Not installed, and CI tests everything: {', '.join(missing)}", returncode=1)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    # Behind pytest's own summary, where it is seen.
    yield
    if missing := missing_servers():
        terminalreporter.section("NOT ALL WAS TESTED", sep="!", red=True, bold=True)
        terminalreporter.line(f"Skipped, as it isn't installed, everything that needs: {', '.join(missing)}", red=True)
        terminalreporter.line("Install with: python -m tools.servers install", red=True)


@pytest.fixture(scope="session")
def start_server() -> Iterator[Callable[[AnyServer], AnyServer]]:
    """Starts a server that lives until the end of the session."""
    with ExitStack() as stack:

        def start(server: AnyServer) -> AnyServer:
            if server.program in missing_servers():
                pytest.skip(f"{server.program} isn't installed")
            stack.enter_context(server)
            return server

        yield start


@pytest.fixture(scope="session")
def memcached(start_server: Callable[[Memcached], Memcached]) -> Memcached:
    return start_server(Memcached())


@pytest.fixture(scope="session")
def redis(start_server: Callable[[Redis], Redis]) -> Redis:
    return start_server(Redis())


def get_needs(request: pytest.FixtureRequest, directory: Path) -> Needs:
    """What backends need: servers are started when they are asked for."""
    return Needs(
        directory=directory,
        memcached=lambda: request.getfixturevalue("memcached"),
        redis=lambda: request.getfixturevalue("redis"),
    )


@pytest.fixture(
    params=[pytest.param(backend, id=backend.name, marks=getattr(pytest.mark, backend.name)) for backend in chosen()]
)
def cache_backend(request: pytest.FixtureRequest, tmp_path: Path, db: None) -> Iterator[BaseCache]:
    """Django's default cache, empty, on each of the backends."""
    backend: Backend = request.param
    if not backend.installed:
        pytest.skip(f"{backend.module} isn't installed")
    with use_cache(backend.config(get_needs(request, tmp_path / "cache"))) as cache:
        yield cache


@pytest.fixture(
    params=[pytest.param(backend, id=backend.name) for backend in BACKENDS if backend.name in ("pymemcache", "redis")]
)
def shared(request: pytest.FixtureRequest, tmp_path: Path, db: None) -> Iterator[dict[str, Any]]:
    """The settings of a cache in a server, which is Django's default cache here, and empty."""
    backend: Backend = request.param
    if not backend.installed:
        pytest.skip(f"{backend.module} isn't installed")
    config = backend.config(get_needs(request, tmp_path))
    with use_cache(config):
        cache.set("computations", 0)
        # Threads have no part in the test's database: the site has to be known ahead.
        make_cache_key("key")
        yield config


@pytest.fixture
def locmem(db: None) -> Iterator[BaseCache]:
    """Django's default cache, empty, in memory."""
    with use_cache(locmem_config()) as cache:
        yield cache


@pytest.fixture
def fixed_iv(monkeypatch: pytest.MonkeyPatch) -> CountingIVs:
    """The same IVs in every run; set `calls` back to 0 to have them again."""
    ivs = CountingIVs()
    monkeypatch.setattr(os, "urandom", ivs)
    return ivs


@pytest.fixture
def both(db: None, fixed_iv: CountingIVs) -> Parity:
    """Runs an action through Djblets and through fastblets, and compares."""
    pytest.importorskip("djblets", reason="Djblets isn't installed")
    return Parity(fixed_iv)
