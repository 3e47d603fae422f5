"""No old value after an invalidation has returned, counted on real caches with the processes of `tests/races.py`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.races import BACKENDS, BOUND, FORMS, WITH_LOCK, make_config, race
from tests.workers import workers
from tools.servers import AnyServer, missing_servers

pytestmark = pytest.mark.linux("servers, and SIGKILL")

#: Where a small value that isn't encrypted is safe under a lock. Two may get a lock in files, and several servers
#: answer in any order.
IN_ORDER = ("database", "redis", "memcached")


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with ExitStack() as stack:

        def start(server: AnyServer) -> AnyServer:
            if server.program in missing_servers():
                pytest.skip(f"{server.program} isn't installed")
            return stack.enter_context(server)

        yield request.param, make_config(request.param, tmp_path, start)


@pytest.mark.parametrize("seconds", [0.4, pytest.param(2, marks=pytest.mark.slow)])
def test_no_old_value_is_read_after_an_invalidation(
    backend: tuple[str, dict[str, Any]], seconds: float, tmp_path: Path
) -> None:
    name, config = backend
    counts = race(config, tmp_path, seconds)
    print(name, counts)
    assert list(counts) == list(FORMS)
    # On a busy machine a form may come too short.
    total = sum(counts.values(), Counter())
    assert total["read"] > total["computed"] > 0
    assert total["invalidated"]
    for form, each in counts.items():
        assert not each["stays"]
        if form in BOUND or (form == WITH_LOCK and name in IN_ORDER):
            assert not each["old"], form


def test_a_writer_is_killed_before_it_looks_again(shared: dict[str, Any]) -> None:
    """The old value is there, with its record, and is not found."""
    code = """
import signal
from fastblets.cache import stamped
from fastblets.cache.tags import invalidate_tags
from fastblets.cache.values import cache_delete, cache_exists, cache_get
from tests.races import BOUND, TAGS

def compute(name, how, where):
    _ = invalidate_tags(*TAGS) if how == "tags" else cache_delete(name, **where)
    return "old"

for form_name, form in {"small": {}, **BOUND}.items():
    where = {"use_encryption": "use_encryption" in form}
    for how in ("tags", "delete"):
        name = f"{how} {form_name}"
        if not (child := os.fork()):
            stamped.find_outdated = lambda _: os.kill(os.getpid(), signal.SIGKILL)
            cache_memoize(name, lambda: compute(name, how, where), tags=TAGS, **form)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        assert cache_exists(name, **where)
        assert cache_get(name, tags=TAGS, **form) is None
        assert cache_memoize(name, lambda: "new", tags=TAGS, **form) == "new"
        say(name)
"""
    with workers(shared, code, 1) as (worker,):
        assert len(worker.end()) == 2 * (1 + len(BOUND))
