"""Promise 8: keys, and the number by which processes synchronize."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from django.contrib.sites.models import Site
from django.db import OperationalError, connection

from tests.faults import failing
from tests.faults.experiment import ONE, experiment
from tests.faults.lab import Lab
from tests.faults.outcome import Finding, Outcome, check, judge


def _break_queries(execute: Any, *args: Any) -> None:
    raise OperationalError("the database is gone")


@experiment(8, "the database fails while the Site is looked up", djblets=Outcome.WRONG, backends=ONE)
def site_lookup_fails(lab: Lab) -> Iterator[Finding]:
    before = lab.full_key("key")
    Site.objects.clear_cache()
    with connection.execute_wrapper(_break_queries):
        yield check(lab.full_key("key") == before, note="the prefix is gone")
    yield check(lab.full_key("key") == before)


@experiment(8, "two installations share a cache, and one's database fails", djblets=Outcome.WRONG, backends=ONE)
def shared_cache(lab: Lab) -> Iterator[Finding]:
    for domain in ("one.example.com", "two.example.com"):
        Site.objects.update(domain=domain)
        Site.objects.clear_cache()
        lab.full_key("key")
        Site.objects.clear_cache()
        with connection.execute_wrapper(_break_queries):
            yield judge(lab.value("secret", lambda domain=domain: domain), [domain], None)


@experiment(8, "the Site doesn't exist", djblets=Outcome.RIGHT, backends=ONE)
def no_site(lab: Lab) -> Iterator[Finding]:
    lab.full_key("key")
    Site.objects.all().delete()
    Site.objects.clear_cache()
    yield check(lab.full_key("key") == "key")
    yield judge(lab.value("key", lambda: "value"), ["value"], None)


def _synchronizer(lab: Lab) -> Any:
    return lab.library.synchronizer.GenerationSynchronizer("generation")


@experiment(8, "a generation number that is no number", djblets=Outcome.WRONG)
def no_number(lab: Lab) -> Iterator[Finding]:
    for damaged in ("x", b"\xff", [1], 1.5, True):
        synchronizer = _synchronizer(lab)
        lab.cache.set(synchronizer.cache_key, damaged)
        yield check(synchronizer.is_expired(), note="taken for the newest")


@experiment(8, "a generation number is lost, and made again within a second", djblets=Outcome.WRONG)
def made_again(lab: Lab) -> Iterator[Finding]:
    # Right after the tick of the clock: the whole second is before us.
    time.sleep(1.01 - time.time() % 1)
    synchronizer = _synchronizer(lab)
    lab.cache.delete(synchronizer.cache_key)
    _synchronizer(lab)
    yield check(synchronizer.is_expired(), note="the change goes unnoticed")


@experiment(8, "the generation number is lost", djblets=Outcome.RIGHT)
def number_lost(lab: Lab) -> Iterator[Finding]:
    synchronizer = _synchronizer(lab)
    synchronizer.clear()
    yield check(synchronizer.is_expired())
    synchronizer.refresh()
    yield check(not synchronizer.is_expired())


@experiment(8, "the generation number can't be read or written", djblets=Outcome.RIGHT)
def cache_fails(lab: Lab) -> Iterator[Finding]:
    with failing("get", "set", "add", "delete"):
        synchronizer = _synchronizer(lab)
        yield check(synchronizer.is_expired())
        synchronizer.refresh()
        synchronizer.clear()
        yield check(synchronizer.is_expired())
    synchronizer.refresh()
    yield check(not synchronizer.is_expired())
