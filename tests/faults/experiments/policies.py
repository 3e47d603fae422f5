"""Promise 15: processes that die, freeze, lose their server or tell another time, while they compute under a policy."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

from fastblets.cache.policy import CachePolicy
from fastblets.cache.values import cache_delete, cache_expire
from tests.faults.experiment import LASTING, SERVERS, experiment
from tests.faults.experiments.servers import get_server
from tests.faults.lab import COMPRESSED_ENCRYPTED, Lab, Options, kill_self, wait_until
from tests.faults.outcome import Finding, Outcome, check, judge

FORMS: dict[str, Options] = {
    "small": {},
    "encrypted": COMPRESSED_ENCRYPTED,
    "large": {"large_data": True},
}
#: Locks that end soon, and locks that don't end meanwhile.
SOON, LATE = 2, 60


def _policy(lock_secs: float, **more: Any) -> CachePolicy:
    return CachePolicy(stale_while_revalidate=300, stale_if_error=300, lock_secs=lock_secs, **more)


def _ask(lab: Lab, key: str, compute: Callable[[], Any], policy: CachePolicy, form: str, expiration: int = 300) -> Any:
    return lab.memoize(key, compute, policy=policy, expiration=expiration, **FORMS[form])


def _gets(lab: Lab, key: str, expected: str, policy: CachePolicy, form: str) -> Finding:
    """Ask for a value. If it has to be computed, it is "new"."""
    return judge(lab.value(key, lambda: "new", policy=policy, expiration=300, **FORMS[form]), [expected], None)


def _become_new(lab: Lab, keys: dict[str, str], policy: CachePolicy) -> Iterator[Finding]:
    """Ask for values, of which each form is given, until they are new. Each is computed once."""
    computed: list[str] = []

    def compute(key: str) -> str:
        computed.append(key)
        return "new"

    for key, form in keys.items():
        yield check(
            wait_until(lambda key=key, form=form: _ask(lab, key, lambda: compute(key), policy, form) == "new"),
            note="stays old",
        )
    yield check(sorted(computed) == sorted(keys), note="not computed once")


def _name(*names: str) -> list[dict[str, str]]:
    """For each name the keys of all forms, with their forms."""
    return [{f"{name} {form}": form for form in FORMS} for name in names]


def _make_stale(lab: Lab, *found: dict[str, str]) -> None:
    """Store old values, and let them expire."""
    for keys in found:
        for key, form in keys.items():
            _ask(lab, key, lambda: "old", _policy(LATE), form)
            cache_expire(key, policy=_policy(LATE), **_address(form))


def _address(form: str) -> Options:
    return {name: option for name, option in FORMS[form].items() if "encryption" in name}


@experiment(15, "a process is killed while it computes", djblets=None, backends=LASTING)
def killed(lab: Lab) -> Iterator[Finding]:
    """The lock stays until it ends. Meanwhile there is the old value, and without one the others wait."""
    late, soon, missing = _name("late", "soon", "missing")
    _make_stale(lab, late, soon)
    for keys, secs in ((late, LATE), (soon, SOON), (missing, SOON)):
        for key, form in keys.items():
            lab.kill_while(lambda key=key, form=form, secs=secs: _ask(lab, key, kill_self, _policy(secs), form))
    for key, form in late.items():
        yield _gets(lab, key, "old", _policy(LATE), form)
    yield from _become_new(lab, {**soon, **missing}, _policy(SOON))
    yield check(lab.logs.count("Timeout") == 0, note="computed without the lock")


def _freeze(lab: Lab, key: str, form: str, lock_secs: float) -> int:
    """Start a process that freezes while it computes a value."""

    def compute() -> str:
        os.kill(os.getpid(), signal.SIGSTOP)
        return "late"

    child = lab.fork(lambda: _ask(lab, key, compute, _policy(lock_secs), form))
    _, status = os.waitpid(child, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    return child


def _thaw(child: int) -> Finding:
    os.kill(child, signal.SIGCONT)
    return check(os.waitpid(child, 0)[1] == 0, Outcome.CRASH, "the process doesn't go on")


@experiment(15, "a process freezes while it computes, then thaws", djblets=None, backends=LASTING, seconds=60)
def frozen(lab: Lab) -> Iterator[Finding]:
    """It doesn't renew its lock. Its value is as good as any, unless there was a deletion."""
    late, soon, deleted = _name("late", "soon", "deleted")
    _make_stale(lab, late, soon, deleted)
    children = {
        key: _freeze(lab, key, form, secs)
        for keys, secs in ((late, LATE), (soon, SOON), (deleted, LATE))
        for key, form in keys.items()
    }
    for key, form in late.items():
        yield _gets(lab, key, "old", _policy(LATE), form)
    yield from _become_new(lab, soon, _policy(SOON))
    for key, form in deleted.items():
        cache_delete(key, **_address(form))
    for child in children.values():
        yield _thaw(child)
    lab.disconnect()
    for key, form in {**late, **soon}.items():
        yield _gets(lab, key, "late", _policy(LATE), form)
    for key, form in deleted.items():
        yield _gets(lab, key, "new", _policy(LATE), form)


@experiment(15, "a process freezes while it computes what is missing", djblets=None, backends=LASTING)
def frozen_on_a_miss(lab: Lab) -> Iterator[Finding]:
    """The others wait for so long as the policy says."""
    for form in FORMS:
        child = _freeze(lab, form, form, LATE)
        yield _gets(lab, form, "new", _policy(LATE, wait=0.5), form)
        yield _thaw(child)
        lab.disconnect()
        yield _gets(lab, form, "late", _policy(LATE), form)
    yield check(lab.logs.count("Timeout waiting") == len(FORMS), note="not logged")


@experiment(
    15,
    "the server restarts while a process computes",
    djblets=None,
    fastblets=Outcome.REBUILT,
    backends=SERVERS,
    client="impatient",
)
def server_restarts(lab: Lab) -> Iterator[Finding]:
    """Everything is gone, the lock as well. What the process has found before, it still has."""
    policy = _policy(LATE)

    def restart() -> str:
        get_server(lab).restart()
        return "new"

    def fail() -> str:
        get_server(lab).restart()
        raise LookupError("the source fails")

    for compute, expected in ((restart, "new"), (fail, "old")):
        for form in FORMS:
            key = f"{expected} {form}"
            _make_stale(lab, {key: form})
            yield judge(lab.value(key, compute, policy=policy, expiration=300, **FORMS[form]), [expected], None)
            lab.disconnect()
            yield judge(lab.value(key, lambda: "again", policy=policy, **FORMS[form]), ["new"], ["again"])


#: How much the clocks differ, and how long a value is fresh.
OFFSET, FRESH = 5, 100


@experiment(15, "the clocks of two processes differ by five seconds", djblets=None, backends=SERVERS)
def clocks_differ(lab: Lab) -> Iterator[Finding]:
    """A value is fresh for five seconds more or less, and nothing else changes. No clock goes on by itself here."""
    began = time.time()

    def get(key: str, seconds: float, new: str, offset: float = 0) -> str:
        with patch("time.time", lambda: began + seconds + offset):
            value: str = _ask(lab, key, lambda: new, _policy(LATE), key, expiration=FRESH)
        return value

    def get_elsewhere(key: str, seconds: float, new: str, offset: float) -> str:
        result = lab.directory / "result"
        os.waitpid(lab.fork(lambda: result.write_text(get(key, seconds, new, offset))), 0)
        return result.read_text()

    for form in FORMS:
        for offset in (OFFSET, -OFFSET):
            lab.cache.clear()
            found = [get(form, 0, "first")]
            # The other process takes it for older, or younger, than it is.
            found += [get_elsewhere(form, FRESH - offset + more, "second", offset) for more in (-1, 1)]
            # And so does this one with what the other has computed.
            computed = FRESH - offset + 1
            found += [get(form, computed + FRESH + offset + more, "third") for more in (-1, 1)]
            yield check(found == ["first", "first", "second", "second", "third"], note=str(found))
