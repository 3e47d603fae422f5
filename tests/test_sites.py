"""The site's part of a key where the database can't be used as usual: in event loops, in tests, when it fails."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.contrib.sites.models import Site
from django.core.cache import cache
from django.core.cache.backends.base import BaseCache
from django.db.utils import OperationalError

from fastblets.cache import shortcuts
from fastblets.cache.backend import cache_memoize, cache_memoize_iter, make_cache_key
from fastblets.cache.errors import SiteUnavailableError
from fastblets.cache.synchronizer import GenerationSynchronizer
from fastblets.protect.locks import CacheLock
from tests.backends import BACKENDS, Needs

ROOT = Path(__file__).parent.parent
SQLITE = "django.db.backends.sqlite3"

#: What each process begins with: a project with an async view, in this very module. No key has been made.
PREAMBLE = """
import asyncio, json, logging, os, sys, threading
import django
from django.conf import settings
from django.http import JsonResponse
from django.urls import path

messages = []

class Recorder(logging.Handler):
    def emit(self, record):
        messages.append(record.getMessage())

logging.getLogger("djblets").addHandler(Recorder())
logging.getLogger("djblets").setLevel(logging.WARNING)
options = json.loads(sys.argv[1])
options = {"INSTALLED_APPS": ["django.contrib.sites"], "SITE_ID": 1, "USE_TZ": True, **options}
settings.configure(SECRET_KEY="k" * 40, ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, MIDDLEWARE=[], **options)
django.setup()

from django.core.cache import cache
from fastblets.cache.backend import cache_memoize, cache_memoize_iter, make_cache_key
from fastblets.cache.synchronizer import GenerationSynchronizer
from fastblets.protect.locks import CacheLock

def attempt(function):
    try:
        return function()
    except Exception as e:
        return type(e).__name__

def describe():
    name = os.environ.get("NAME", "value")
    return {
        "key": attempt(lambda: make_cache_key("key")),
        "lock": attempt(lambda: CacheLock("key").full_cache_key),
        "synchronizer": attempt(lambda: GenerationSynchronizer("key").cache_key),
        "expired": GenerationSynchronizer("key").is_expired(),
        "value": cache_memoize("value", lambda: name),
        "large": cache_memoize("large", lambda: name, large_data=True, lock=CacheLock()),
        "items": list(cache_memoize_iter("items", lambda: [name])),
    }

async def view(request):
    return JsonResponse(describe())

urlpatterns = [path("", view)]

def fetch():
    from django.test import AsyncClient
    return json.loads(asyncio.run(AsyncClient().get("/")).content)

def say(result):
    print(json.dumps(result), flush=True)
"""
BOTH = [pytest.param("say([fetch(), messages])", id="async"), pytest.param("say([describe(), messages])", id="sync")]


def run(code: str, tmp_path: Path, **options: Any) -> Any:
    """What the code says in a fresh process. No connection to the database may be left open there."""
    options.setdefault("CACHES", file_cache(tmp_path))
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", PREAMBLE + code, json.dumps(options)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "unclosed database" not in done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def file_cache(tmp_path: Path) -> Any:
    backend = "django.core.cache.backends.filebased.FileBasedCache"
    return {"default": {"BACKEND": backend, "LOCATION": str(tmp_path / "c")}}


def database(tmp_path: Path, domain: str | None, *, table: bool = True) -> dict[str, str]:
    """The settings of a database with that Site."""
    file = tmp_path / f"{domain}.sqlite"
    with sqlite3.connect(file) as connection:
        if table:
            connection.execute("CREATE TABLE django_site (id integer primary key, domain text, name text)")
        if domain is not None:
            connection.execute("INSERT INTO django_site VALUES (1, ?, 'name')", (domain,))
    connection.close()
    return {"ENGINE": SQLITE, "NAME": str(file)}


def expected(prefix: str, name: str = "value") -> dict[str, Any]:
    return {
        "key": f"{prefix}key",
        "lock": f"{prefix}key",
        "synchronizer": f"{prefix}key",
        "expired": False,
        "value": name,
        "large": name,
        "items": [name],
    }


@pytest.mark.parametrize("backend", [pytest.param(b, id=b.name) for b in BACKENDS if b.name in ("file", "redis")])
def test_two_installations_share_a_cache(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, backend: Any, tmp_path: Path
) -> None:
    if not backend.installed:
        pytest.skip(f"{backend.module} isn't installed")
    needs = Needs(tmp_path / "cache", lambda: None, lambda: request.getfixturevalue("redis"))  # type: ignore[arg-type, return-value]
    caches = {"default": backend.config(needs)}
    for domain in ("one.example.com", "two.example.com"):
        monkeypatch.setenv("NAME", domain)
        databases = {"default": database(tmp_path, domain)}
        assert run("say([fetch(), messages])", tmp_path, CACHES=caches, DATABASES=databases) == [
            expected(f"{domain}:", domain),
            [],
        ]


@pytest.mark.linux("/proc")
def test_the_thread_and_its_connection_are_gone(tmp_path: Path) -> None:
    code = """
fetch()
files = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
threads = [thread.name for thread in threading.enumerate()]
say([[name for name in threads if "fastblets" in name], [file for file in files if file.endswith(".sqlite")]])
"""
    assert run(code, tmp_path, DATABASES={"default": database(tmp_path, "example.com")}) == [[], []]


def test_the_site_is_looked_up_once(tmp_path: Path) -> None:
    code = """
from django.db.backends.signals import connection_created
made = []
connection_created.connect(lambda **kwargs: made.append(1), weak=False)
fetch()
fetch()
say(len(made))
"""
    assert run(code, tmp_path, DATABASES={"default": database(tmp_path, "example.com")}) == 1


@pytest.mark.parametrize("code", BOTH)
def test_the_site_is_in_another_database(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    router = """
class Router:
    def db_for_read(self, model, **hints):
        return "sites" if model._meta.app_label == "sites" else "default"

settings.DATABASE_ROUTERS = [Router()]
"""
    away = {"ENGINE": SQLITE, "NAME": str(tmp_path / "no folder" / "away")}
    databases = {"default": away, "sites": database(tmp_path, "example.com")}
    assert run(router + code, tmp_path, DATABASES=databases) == [expected("example.com:"), []]


@pytest.mark.parametrize("code", BOTH)
@pytest.mark.parametrize("missing", ["site", "table", "SITE_ID", "databases", "app"])
def test_without_a_site_there_is_no_prefix(code: str, missing: str, tmp_path: Path) -> None:
    domain = None if missing in ("site", "table") else "example.com"
    options: dict[str, Any] = {"DATABASES": {"default": database(tmp_path, domain, table=missing != "table")}}
    if missing == "SITE_ID":
        options["SITE_ID"] = None
    if missing == "databases":
        options["DATABASES"] = {}
    if missing == "app":
        options["INSTALLED_APPS"] = []
    assert run(code, tmp_path, **options) == [expected(""), []]


@pytest.mark.parametrize("code", BOTH)
def test_a_database_that_fails(code: str, tmp_path: Path) -> None:
    databases = {"default": {"ENGINE": SQLITE, "NAME": str(tmp_path / "no folder" / "away")}}
    said, messages = run(code, tmp_path, DATABASES=databases)
    assert said == expected("") | {
        "key": "SiteUnavailableError",
        "lock": "SiteUnavailableError",
        "synchronizer": "",
        "expired": True,
    }
    assert not list((tmp_path / "c").glob("*.djcache"))
    unstored = [message for message in messages if message.startswith("No full cache key can be made for")]
    assert len(unstored) == 3
    assert "SITE_ID 1" in unstored[0] and "unable to open database file" in unstored[0]
    assert sum("synchronization state" in message for message in messages) == len(messages) - 3


@pytest.mark.parametrize("fetch", ["fetch()", "describe()"])
def test_a_database_that_comes_back(fetch: str, tmp_path: Path) -> None:
    there = database(tmp_path, "example.com")["NAME"]
    code = f"""
synchronizer = GenerationSynchronizer("key")
{fetch}
os.rename({there!r} + ".away", {there!r})
before = synchronizer.is_expired()
synchronizer.refresh()
say([{fetch}, before, synchronizer.is_expired(), synchronizer.cache_key])
"""
    Path(there).rename(there + ".away")
    # Not made anew while it is away.
    databases = {"default": {"ENGINE": SQLITE, "NAME": f"file:{there}?mode=rw", "OPTIONS": {"uri": True}}}
    assert run(code, tmp_path, DATABASES=databases) == [expected("example.com:"), True, False, "example.com:key"]


def test_a_database_that_fails_later(tmp_path: Path) -> None:
    there = database(tmp_path, "example.com")["NAME"]
    code = f"""
fetch()
from django.contrib.sites.models import Site
Site.objects.clear_cache()
os.rename({there!r}, {there!r} + ".away")
say([fetch(), messages])
"""
    databases = {"default": {"ENGINE": SQLITE, "NAME": f"file:{there}?mode=rw", "OPTIONS": {"uri": True}}}
    said, messages = run(code, tmp_path, DATABASES=databases)
    assert said == expected("example.com:")
    assert messages
    assert all(
        message.startswith("Error looking up the current Site for a cache key. Going on with its last known domain")
        for message in messages
    )


CASES = """
import unittest
from django.contrib.sites.models import Site
from django.test import SimpleTestCase, TestCase, TransactionTestCase
from django.test.utils import setup_databases, setup_test_environment, teardown_databases

def run_case(case, databases):
    setup_test_environment()
    old = setup_databases(verbosity=0, interactive=False, aliases=databases) if databases else None
    result = unittest.TestResult()
    Site.objects.clear_cache()
    messages.clear()
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    if old:
        teardown_databases(old, verbosity=0)
    assert result.wasSuccessful() and result.testsRun == 1, result.errors + result.failures
    say([seen, messages])

seen = []
"""


@pytest.mark.parametrize("kind", ["async ", ""])
def test_djangos_simple_test_case(kind: str, tmp_path: Path) -> None:
    code = f"""
class Case(SimpleTestCase):
    {kind}def test(self):
        seen.append(make_cache_key("key"))

run_case(Case, [])
"""
    databases = {"default": database(tmp_path, "not.to.be.seen")}
    assert run(CASES + code, tmp_path, DATABASES=databases) == [["key"], []]


@pytest.mark.parametrize("kind", ["async ", ""])
@pytest.mark.parametrize("name", ["memory", "file"])
@pytest.mark.parametrize("parent", ["TestCase", "TransactionTestCase"])
def test_djangos_test_cases(kind: str, name: str, parent: str, tmp_path: Path) -> None:
    code = f"""
class Case({parent}):
    def setUp(self):
        Site.objects.all().delete()
        Site.objects.create(pk=1, domain="own.example.com", name="own")

    {kind}def test(self):
        seen.append(make_cache_key("key"))

run_case(Case, ["default"])
"""
    test_name = None if name == "memory" else str(tmp_path / "test.sqlite")
    databases = {"default": {"ENGINE": SQLITE, "NAME": str(tmp_path / "db"), "TEST": {"NAME": test_name}}}
    seen, messages = run(CASES + code, tmp_path, DATABASES=databases)
    if kind == "" or parent == "TransactionTestCase":
        assert (seen, messages) == (["own.example.com:key"], [])
    elif name == "memory":
        # Locked by the transaction: nothing was ever seen.
        assert seen == ["key"]
        assert len(messages) == 1 and messages[0].startswith("Error looking up the current Site")
    else:
        # Committed when the database was made.
        assert (seen, messages) == (["example.com:key"], [])


def test_a_site_of_a_test_that_no_other_thread_sees(tmp_path: Path) -> None:
    code = """
class Case(TestCase):
    def setUp(self):
        Site.objects.create(pk=2, domain="own.example.com", name="own")

    async def test(self):
        with self.settings(SITE_ID=2):
            seen.append(make_cache_key("key"))

run_case(Case, ["default"])
"""
    databases = {"default": {"ENGINE": SQLITE, "NAME": "unused", "TEST": {"NAME": str(tmp_path / "test.sqlite")}}}
    seen, messages = run(CASES + code, tmp_path, DATABASES=databases)
    assert seen == ["key"]
    assert len(messages) == 1 and "Going on with no prefix" in messages[0]


@pytest.mark.parametrize("known", [True, False])
def test_a_database_in_the_memory_of_one_connection(known: bool, tmp_path: Path) -> None:
    code = f"""
from django.contrib.sites.models import Site
from django.core.management import call_command
call_command("migrate", verbosity=0)
if {known}:
    make_cache_key("key")
Site.objects.clear_cache()
say([fetch()["key"], set(messages) and sorted(set(messages))])
"""
    key, messages = run(code, tmp_path, DATABASES={"default": {"ENGINE": SQLITE, "NAME": ":memory:"}})
    assert key == ("example.com:key" if known else "key")
    assert len(messages) == 1 and "database in memory" in messages[0]


@pytest.mark.parametrize("known", [True, False])
def test_a_database_that_pytest_blocks(known: bool, caplog: pytest.LogCaptureFixture, monkeypatch: Any) -> None:
    monkeypatch.setattr(shortcuts, "_last_domains", {1: "seen.example.com"} if known else {})
    Site.objects.clear_cache()

    async def make() -> str:
        return make_cache_key("key")

    assert [make_cache_key("key"), asyncio.run(make())] == ["key", "key"]
    assert not caplog.messages


@pytest.fixture
def failing(locmem: BaseCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """No Site has been seen, and none can be."""

    def fail(*args: object) -> None:
        raise OperationalError("the server is away")

    monkeypatch.setattr(shortcuts, "_last_domains", {})
    monkeypatch.setattr(Site.objects, "get_current", fail)


def count_calls(cache: BaseCache, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    calls: list[str] = []
    for name in ("add", "get", "get_many", "set", "set_many", "delete", "touch"):
        monkeypatch.setattr(cache, name, lambda *args, name=name, **options: calls.append(name))
    return calls


@pytest.mark.usefixtures("failing")
def test_without_a_key_nothing_is_asked_of_the_cache(
    locmem: BaseCache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls = count_calls(locmem, monkeypatch)
    lock = CacheLock()
    lock.full_cache_key = "own"
    computed = iter(range(10))
    options: Any = {"lock": lock, "force_overwrite": True}
    assert [cache_memoize("key", lambda: next(computed), **options) for _ in range(2)] == [0, 1]
    assert cache_memoize("key", lambda: next(computed), large_data=True) == 2
    assert list(cache_memoize_iter("key", [1, 2], **options)) == [1, 2]
    assert list(cache_memoize_iter("key", lambda: iter([3]), **options)) == [3]
    assert calls == []
    assert not lock.locked()
    assert [record.levelname for record in caplog.records] == ["ERROR"] * 5
    assert caplog.messages[0].startswith('No full cache key can be made for "key".')


@pytest.mark.usefixtures("failing")
def test_errors_of_the_computation_are_its_own() -> None:
    def compute() -> Any:
        raise KeyError("mine")

    with pytest.raises(KeyError) as raised:
        cache_memoize("key", compute)
    assert raised.value.__context__ is None
    with pytest.raises(TypeError):
        list(cache_memoize_iter("key", 1))  # type: ignore[arg-type]


@pytest.mark.usefixtures("failing")
def test_the_error_says_what_is_wrong() -> None:
    for make in (make_cache_key, CacheLock):
        with pytest.raises(SiteUnavailableError, match=r"SITE_ID 1 can't be looked up.*the server is away") as raised:
            make("key")
        assert isinstance(raised.value, OperationalError)
        assert isinstance(raised.value.__cause__, OperationalError)


@pytest.mark.usefixtures("failing")
def test_a_synchronizer_without_a_key(
    locmem: BaseCache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls = count_calls(locmem, monkeypatch)
    synchronizer = GenerationSynchronizer(["a", "key"])
    assert synchronizer.is_expired()
    synchronizer.mark_updated()
    synchronizer.refresh()
    synchronizer.clear()
    assert synchronizer.is_expired()
    assert calls == []
    assert len(caplog.records) == 6
    assert "['a', 'key']" in caplog.messages[0]
    # A full key needs no Site.
    assert GenerationSynchronizer("own", normalize_cache_key=False).cache_key == "own"


def test_another_tenants_domain_is_not_the_last_known_one(locmem: BaseCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project's own lookup may depend on the request, not only on SITE_ID."""
    monkeypatch.setattr(shortcuts, "_last_domains", {})
    tenants = iter(["one.example.com"])

    def get_current(*args: object) -> Site:
        for domain in tenants:
            return Site(domain=domain)
        raise OperationalError("the server is away")

    monkeypatch.setattr(Site.objects, "get_current", get_current)
    assert cache_memoize("key", lambda: "one") == "one"
    assert cache_memoize("key", lambda: "two") == "two"
    assert cache.get("one.example.com:key") == "one"
