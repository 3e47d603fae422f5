"""The tests' own tools: what they promise, the other tests rely on."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import cache as default_cache
from django.core.cache.backends.base import BaseCache

from tests.backends import stored_bytes, stored_entries
from tests.parity import Action, Library, Parity
from tests.randomness import CountingIVs
from tools.servers import HOST, Memcached, Redis, Server, missing_servers

PATIENCE = 10.0
ROOT = Path(__file__).parent.parent

SERVERS = [pytest.param(Memcached, id="memcached"), pytest.param(Redis, id="redis-server")]


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@contextmanager
def running(kind: type[Server]) -> Iterator[Server]:
    if kind.program in missing_servers():
        pytest.skip(f"{kind.program} isn't installed")
    with kind() as server:
        yield server


@pytest.mark.every_backend
def test_the_default_cache_is_the_backend_and_empty(cache_backend: BaseCache) -> None:
    assert default_cache.get("key") is None
    default_cache.set("key", ["value", b"\x00\xff"])
    assert cache_backend.get("key") == ["value", b"\x00\xff"]
    assert stored_entries(cache_backend, ["key", "other"]) == {"key": ["value", b"\x00\xff"]}


@pytest.mark.every_backend
def test_nothing_is_left_of_the_test_before(cache_backend: BaseCache) -> None:
    assert cache_backend.get("key") is None


def test_all_that_a_memory_cache_holds(locmem: BaseCache) -> None:
    assert stored_bytes(locmem) == {}
    default_cache.set_many({str(number): number for number in range(1000)})
    assert len(stored_bytes(locmem)) == 1000


def test_ivs_repeat_from_the_start(fixed_iv: CountingIVs) -> None:
    first = os.urandom(16), os.urandom(16)
    fixed_iv.calls = 0
    assert (os.urandom(16), os.urandom(16)) == first
    assert first[0] != first[1]


@pytest.mark.parametrize("kind", SERVERS)
def test_a_server_lives_as_long_as_its_block(kind: type[Server]) -> None:
    with running(kind) as server:
        pid, home = server.pid, server.home
        assert server.answers()
    assert gone(pid)
    assert not home.exists()
    assert not server.answers()


@pytest.mark.parametrize("kind", SERVERS)
def test_a_killed_server_comes_back_on_its_port(kind: type[Server]) -> None:
    with running(kind) as server:
        address = server.address
        server.kill()
        assert not server.answers()
        server.restart()
        assert server.address == address
        assert server.answers()


@pytest.mark.parametrize("kind", SERVERS)
def test_a_frozen_server_is_silent_until_thawed(kind: type[Server]) -> None:
    with running(kind) as server:
        server.freeze()
        assert not server.answers()
        server.thaw()
        assert eventually(server.answers)
        server.freeze()
        # And a frozen one is stopped like any other, at the end of the block.


@pytest.mark.parametrize("kind", SERVERS)
def test_a_server_listens_to_this_machine_only(kind: type[Server]) -> None:
    with running(kind) as server:
        assert server.address.startswith(f"{HOST}:")
        assert server.options()[1] == HOST


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv isn't installed")
@pytest.mark.parametrize("kind", SERVERS)
def test_a_server_dies_with_a_killed_test_run(kind: type[Server], tmp_path: Path) -> None:
    if kind.program in missing_servers():
        pytest.skip(f"{kind.program} isn't installed")
    script = (
        f"from tools.servers import {kind.__name__} as Server; import sys\n"
        "with Server() as server: print(server.port, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # The directory of a server whose owner was killed stays.
        env=os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)},
    ) as run:
        assert run.stdout is not None
        orphan = kind()
        orphan.port = int(run.stdout.readline())
        assert orphan.answers()
        run.kill()
        run.wait(PATIENCE)
    assert eventually(lambda: not orphan.answers())


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=1)


def _fail(error: Exception) -> None:
    raise error


def _yield_and_fail(text: str) -> Iterator[str]:
    yield text
    raise ValueError


DIFFERENCES: list[tuple[str, Action]] = [
    ("type", lambda library: [] if library.name == "djblets" else ()),
    ("result", lambda library: library.name),
    ("result", lambda library: _yield_and_fail(library.name)),
    ("error", lambda library: _fail(ValueError(library.name))),
    ("error", lambda library: _fail(KeyError() if library.name == "djblets" else IndexError())),
    ("log", lambda library: logging.getLogger("djblets.cache").debug(library.name)),
    ("warnings", lambda library: _warn(library.name)),
    ("cache calls", lambda library: default_cache.get(library.name)),
    ("cache calls", lambda library: default_cache.set("key", 1, timeout=len(library.name))),
    ("cache calls", lambda library: default_cache.get_many(["1", "2"][: len(library.name) - 7])),
    ("entries", lambda library: default_cache.set("key", library.name)),
]


@pytest.mark.parametrize(("aspect", "action"), DIFFERENCES)
def test_parity_sees_a_difference(both: Parity, aspect: str, action: Action) -> None:
    with pytest.raises(pytest.fail.Exception, match=f"^Not the same {aspect}:"):
        both(action)


def test_parity_may_overlook_texts(both: Parity) -> None:
    both(lambda library: _fail(ValueError(library.name)), texts=False)
    both(lambda library: _fail(ValueError(library.name)), ignoring="djblets|fastblets")


def test_parity_gives_each_an_empty_cache_and_the_same_ivs(both: Parity) -> None:
    def action(library: Library) -> tuple[Any, bytes]:
        found = default_cache.get("key")
        default_cache.set("key", "value")
        return found, os.urandom(16)

    assert both(action).value == (None, (1).to_bytes(16, "big"))


def test_parity_notes_each_call_of_the_cache_once(both: Parity) -> None:
    def action(library: Library) -> None:
        default_cache.set_many({"1": 1, "2": 2}, timeout=5)
        default_cache.get_many(["1", "2"])

    trial = both(action)
    assert trial.calls == ["set_many ['1', '2'] for 5 s", "get_many ['1', '2']"]
    assert trial.writes == trial.calls[:1]


def test_parity_sees_what_is_computed_again(both: Parity) -> None:
    with pytest.raises(pytest.fail.Exception, match="computes again"):
        both.crosswise(lambda library: default_cache.set("key", "value"))


def test_parity_sees_what_is_read_otherwise(both: Parity) -> None:
    runs = iter(range(4))
    with pytest.raises(pytest.fail.Exception, match="otherwise"):
        both.crosswise(lambda library: next(runs) // 2)


def test_parity_allows_what_is_declared_on_our_side_only(both: Parity) -> None:
    def withdraw_first(library: Library) -> None:
        if library.name == extra:
            default_cache.delete("key")
        default_cache.set("key", 1)

    extra = "fastblets"
    both(withdraw_first)
    extra = "djblets"
    with pytest.raises(pytest.fail.Exception, match="cache calls"):
        both(withdraw_first)
