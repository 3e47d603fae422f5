"""``manage.py fastblets``, as people run it."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import Any
from unittest.mock import patch

import pytest
from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from django.core.management import CommandError, call_command
from django.test import override_settings

from fastblets.cache.backend import cache_memoize, cache_memoize_iter, make_cache_key
from fastblets.cache.tags import invalidate_tags
from fastblets.cache.values import cache_delete
from fastblets.diagnostics.inspector import inspect_entry
from tests.backends import FORWARDED, stored_bytes, use_cache, without_marks
from tests.faults import replaced
from tests.test_key_rotation import NEW, OLD, rotated
from tests.test_measure import NAMES
from tools.servers import Memcached, Redis, missing_servers

pytestmark = pytest.mark.django_db

ITEMS = [{"id": number, "noise": os.urandom(150_000)} for number in range(15)]

DOWN = {
    "pymemcache": ("django.core.cache.backends.memcached.PyMemcacheCache", Memcached),
    "redis": ("django.core.cache.backends.redis.RedisCache", Redis),
}


@pytest.fixture(autouse=True)
def app() -> Iterator[None]:
    from django.conf import settings

    with override_settings(INSTALLED_APPS=[*settings.INSTALLED_APPS, "fastblets"]):
        yield


def run(*arguments: str) -> str:
    output = io.StringIO()
    call_command("fastblets", *arguments, stdout=output)
    return output.getvalue()


def fails(*arguments: str) -> tuple[str, str]:
    """What is printed, and the error."""
    output = io.StringIO()
    with pytest.raises(CommandError) as caught:
        call_command("fastblets", *arguments, stdout=output)
    return output.getvalue(), str(caught.value)


def lines(output: str) -> dict[str, str]:
    return {line[:9].strip(): line[9:] for line in output.splitlines() if line[:9].strip()}


@pytest.mark.parametrize("encrypt", [[], ["--encrypted"]], ids=["open", "encrypted"])
def test_inspect(cache_backend: BaseCache, encrypt: list[str]) -> None:
    list(cache_memoize_iter(["a:b", "c"], ITEMS, use_encryption=bool(encrypt)))
    output = run("inspect", "a:b", "c", "--items", "2", *encrypt)
    found = lines(output)
    assert found["key"] == make_cache_key(["a:b", "c"], use_encryption=bool(encrypt))
    assert found["state"] == "whole"
    assert found["form"] == f"large, {'' if encrypt else 'not '}encrypted, compressed"
    assert re.fullmatch(r"3: 2 of 1,047,552 and one of [\d,]+ bytes", found["chunks"])
    assert found["items"] == "15"
    assert found["names"] == "_codecs.encode"
    assert re.fullmatch(r"[\d.]+ ms to fetch, [\d.]+ ms to look through", found["took"])
    assert output.count("         [") == 2
    assert json.loads(run("inspect", "a:b", "c", "--json", *encrypt))["chunk_count"] == 3


def test_inspect_plain(locmem: BaseCache) -> None:
    list(cache_memoize_iter("key", ["x" * 10], compress_large_data=False))
    for arguments in ([], ["--plain"]):
        output = run("inspect", "key", *arguments)
        assert lines(output)["form"] == "large, not encrypted, not compressed"
        assert "         [0] 'xxxxxxxxxx' (16 bytes)\n" in output
        assert "it has no checksum" in output
    list(cache_memoize_iter("packed", ["x" * 10]))
    assert "damaged" in run("inspect", "packed", "--plain")


def test_inspect_what_is_damaged(locmem: BaseCache) -> None:
    list(cache_memoize_iter("key", ITEMS))
    locmem.delete(make_cache_key("key-1"))
    output = run("inspect", "key")
    assert lines(output)["state"] == "damaged"
    assert "         - chunk 1 is missing of 3\n" in output
    assert re.search(r"^chunks   3: 1,047,552, missing, [\d,]+ bytes$", output, re.MULTILINE)


def test_inspect_many_names(locmem: BaseCache) -> None:
    for count, expected in ((30, 30), (31, 31), (500, 31)):
        pickles = b"".join(b"cm\nf%d\n." % number for number in range(count))
        locmem.set_many({make_cache_key("key"): "1", make_cache_key("key-0"): [pickles]})
        names = lines(run("inspect", "key"))["names"].split(", ")
        assert len(names) == expected
        assert (names[-1] == "and more") == (count > 30)
    assert json.loads(run("inspect", "key", "--json"))["more_names"]


def test_inspect_nothing(cache_backend: BaseCache) -> None:
    output, error = fails("inspect", "key")
    assert output == ""
    assert error == "missing: nothing is stored under example.com:key (not encrypted)"
    _, error = fails("inspect", "key", "--encrypted")
    assert "with another AES key it would have another one" in error
    output, _ = fails("inspect", "key", "--json")
    assert json.loads(output)["state"] == "missing"


def test_encryption_is_on_where_the_project_says_so(locmem: BaseCache) -> None:
    with override_settings(DJBLETS_CACHE_FORCE_ENCRYPTION=True):
        cache_memoize("key", lambda: {"a": 1})
        assert lines(run("inspect", "key"))["form"] == "small, encrypted"


@pytest.mark.every_backend
def test_verify(cache_backend: BaseCache) -> None:
    cache_memoize("small", lambda: 1)
    list(cache_memoize_iter("large", ITEMS))
    assert run("verify", "small") == "small: whole, small\n"
    assert run("verify", "large") == "large: whole, large: 3 chunks, 15 items\n"
    cache_backend.delete(make_cache_key("large-2"))
    assert fails("verify", "large") == ("", "large: damaged: chunk 2 is missing of 3")
    assert fails("verify", "none") == ("", "none: missing: nothing is stored under example.com:none (not encrypted)")


def test_all_take_the_parts_of_a_key(cache_backend: BaseCache) -> None:
    for key in (["orders", "shop:1"], ["orders", "a b%", "ключ"]):
        list(cache_memoize_iter(key, ITEMS))
        assert lines(run("inspect", *key))["key"] == make_cache_key(key)
        assert run("verify", *key) == f"{' '.join(key)}: whole, large: 3 chunks, 15 items\n"
        assert run("forget", *key).startswith(f"{' '.join(key)}: deleted the count or value, 3 chunks (")
        for command in ("inspect", "verify", "forget"):
            assert f"missing: nothing is stored under {make_cache_key(key)} (not encrypted)" in fails(command, *key)[1]
    # As a string it is the same key.
    cache_memoize(["orders", "shop:1"], int)
    assert run("forget", "orders:shop%3A1").startswith("orders:shop%3A1: deleted the count or value, 0 chunks (")


def test_verify_what_kind_it_is(locmem: BaseCache) -> None:
    cache_memoize("key", lambda: "5")
    assert "chunks 0, 1, 2, 3, 4 are missing" in fails("verify", "key")[1]
    assert run("verify", "key", "--small") == "key: whole, small\n"
    cache_memoize("value", lambda: [])
    assert "no count of chunks" in fails("verify", "value", "--large")[1]


def test_seals(locmem: BaseCache) -> None:
    options = {"use_encryption": True}
    list(cache_memoize_iter("sealed", ITEMS, seal=True, **options))
    cache_memoize("open", lambda: 1, **options)
    assert lines(run("inspect", "sealed", "--encrypted"))["seal"] == "valid"
    assert lines(run("inspect", "open", "--encrypted"))["seal"] == "none"
    assert json.loads(run("inspect", "sealed", "--encrypted", "--json"))["seal"] == "valid"
    assert run("verify", "sealed", "--encrypted") == "sealed: whole, large: 3 chunks, 15 items, sealed\n"
    assert run("verify", "open", "--encrypted") == "open: whole, small\n"
    with override_settings(FASTBLETS_SEAL="require"):
        assert run("verify", "sealed", "--encrypted")
        assert fails("verify", "open", "--encrypted") == ("", "open: damaged: there is no seal on its value")
    key = make_cache_key("sealed-1", **options)
    chunk, seal = locmem.get(key)
    locmem.set(key, [chunk, bytes(len(seal))])
    error = fails("verify", "sealed", "--encrypted")[1]
    assert error == "sealed: damaged: The data's seal is not valid: it is none of fastblets'"
    assert lines(run("inspect", "sealed", "--encrypted"))["seal"] == "not valid"


def test_older_keys(locmem: BaseCache) -> None:
    older = override_settings(DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY=b"hush, an old one")
    with older:
        list(cache_memoize_iter("key", ITEMS, use_encryption=True))
        full_key = make_cache_key("key", use_encryption=True)
    with override_settings(FASTBLETS_ENCRYPTION_KEY_FALLBACKS=[b"hush, no such one", b"hush"]):
        assert "FALLBACKS must be" in fails("inspect", "key", "--encrypted")[1]
    with override_settings(FASTBLETS_ENCRYPTION_KEY_FALLBACKS=[b"hush, an old one"]):
        outputs = [run(*command, "key", "--encrypted") for command in (["inspect"], ["inspect", "--json"], ["verify"])]
        assert lines(outputs[0])["form"] == "large, encrypted under older key 1, compressed"
        assert json.loads(outputs[1])["older_key"] == 1
        assert outputs[2] == "key: whole, large: 3 chunks, 15 items, encrypted under older key 1\n"
        outputs.append(run("forget", "key", "--encrypted"))
        assert outputs[3] == f"key: deleted the count or value, 3 chunks ({full_key}) under older key 1\n"
        assert "missing: nothing is stored under" in fails("forget", "key", "--encrypted")[1]
    assert without_marks(stored_bytes(locmem)) == {}
    assert "hush" not in "".join(outputs)


TAGS = ["reports", ("user", "7")]
AS_TAGS = ["--tag", "reports", "--tag", "user", "7"]
FORMS: list[tuple[dict[str, Any], list[str]]] = [
    ({}, []),
    ({"use_encryption": True}, ["--encrypted"]),
    ({"large_data": True}, []),
    ({"large_data": True, "use_encryption": True}, ["--encrypted"]),
]
tagged = pytest.mark.parametrize(("form", "options"), FORMS, ids=["small", "encrypted", "large", "large encrypted"])


@tagged
def test_tags(form: dict[str, Any], options: list[str], cache_backend: BaseCache) -> None:
    cache_memoize("key", lambda: 1, tags=TAGS, **form)
    token = cache_backend.get(make_cache_key("_tag_:reports"))

    def state(*arguments: str) -> str:
        return lines(run("inspect", "key", *options, *arguments))["state"]

    # Without its tags nothing tells whether it is valid.
    assert state() == "whole, unless it was invalidated: it has 2 tags to give as --tag"
    assert state("--tag", "reports") == "whole, unless it was invalidated: it has a tag to give as --tag"
    assert state(*AS_TAGS) == "whole"
    assert f"tag      reports: {token}, as in the record\n" in run("inspect", "key", *options, *AS_TAGS)
    assert run("verify", "key", *options, *AS_TAGS).startswith("key: whole, ")
    assert state("--tag", "others") == "invalid"
    invalidate_tags("reports")
    assert state("--tag", "user", "7") == "whole, unless it was invalidated: it has a tag to give as --tag"
    output = run("inspect", "key", *options, *AS_TAGS)
    assert lines(output)["state"] == "invalid"
    assert "         - it was stored with other tags or invalidated since" in output
    assert ", not as in the record\n" in output
    assert fails("verify", "key", *options, *AS_TAGS)[1].startswith("key: invalid: it was stored with other tags or ")
    report = json.loads(run("inspect", "key", "--json", *options, *AS_TAGS))
    assert (report["state"], [tag["name"] for tag in report["tags"]]) == ("invalid", ["reports", "user:7"])
    # As the calls find it.
    assert cache_memoize("key", lambda: 2, tags=TAGS, **form) == 2
    assert state(*AS_TAGS) == "whole"
    cache_memoize("key", lambda: 3, force_overwrite=True, **form)
    if form:
        assert state() == "whole"
        assert state(*AS_TAGS) == "invalid"
    cache_backend.delete(make_cache_key("_state_:key"))
    assert state(*AS_TAGS) == "invalid"


@tagged
def test_what_was_computed_before_a_deletion(
    form: dict[str, Any], options: list[str], locmem: BaseCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is killed after it has stored leaves it."""
    monkeypatch.setattr("fastblets.cache.stamped.find_outdated", lambda _: [])
    secret = {name: value for name, value in form.items() if name == "use_encryption"}
    cache_memoize("key", lambda: str(cache_delete("key", **secret)), tags=TAGS, **form)
    for more in ([], AS_TAGS):
        output = run("inspect", "key", *options, *more)
        assert lines(output)["state"] == "invalid"
        assert "         - it was computed before it was deleted last" in output
        assert "key: invalid: it was computed before" in fails("verify", "key", *options, *more)[1]


def test_tags_alone(locmem: BaseCache) -> None:
    assert fails("inspect")[1] == "Give a KEY, or a --tag."
    assert run("inspect", "--tag", "user", "7") == "tag      user:7: no token, so that all entries with it are misses\n"
    cache_memoize("key", lambda: 1, tags=TAGS)
    token = locmem.get(make_cache_key("_tag_:user:7"))
    assert run("inspect", "--tag", "user", "7") == f"tag      user:7: {token}\n"
    # Also where there is no entry.
    output, error = fails("inspect", "nothing", "--tag", "user", "7")
    assert output == f"tag      user:7: {token}\n"
    assert error.startswith("missing: nothing is stored under example.com:nothing")
    output, _ = fails("inspect", "nothing", "--tag", "user", "7", "--json")
    assert [json.loads(output)["state"], json.loads(output)["tags"][0]["token"]] == ["missing", token]


def test_tags_under_older_keys(locmem: BaseCache) -> None:
    for large in (False, True):
        with rotated(OLD, NEW, DJBLETS_CACHE_FORCE_ENCRYPTION=True):
            cache_memoize("key", lambda: 1, tags=TAGS, large_data=large)
        with rotated(NEW, OLD, DJBLETS_CACHE_FORCE_ENCRYPTION=True):
            output = run("inspect", "key", *AS_TAGS)
            assert lines(output)["state"] == "whole"
            assert "under older key 1" in lines(output)["form"]
            invalidate_tags("reports")
            assert lines(run("inspect", "key", *AS_TAGS))["state"] == "invalid"
            run("forget", "key")


def test_another_cache(locmem: BaseCache) -> None:
    caches[FORWARDED].clear()
    where = ["--cache", FORWARDED]
    list(cache_memoize_iter("key", ITEMS, cache=FORWARDED, tags=TAGS))
    assert "missing" in fails("inspect", "key")[1]
    assert lines(run("inspect", "key", *where, *AS_TAGS))["state"] == "whole"
    invalidate_tags("reports")
    assert run("verify", "key", *where, *AS_TAGS) == "key: whole, large: 3 chunks, 15 items\n"
    assert run("inspect", "--tag", "reports") != run("inspect", "--tag", "reports", *where)
    assert "missing" in fails("forget", "key", "--cache", "default")[1]
    assert run("forget", "key", *where).startswith("key: deleted the count or value, 3 chunks (")
    assert without_marks(stored_bytes(caches[FORWARDED])) == without_marks(stored_bytes(locmem)) == {}
    for command in (["inspect", "key"], ["verify", "key"], ["forget", "key"], ["bench"]):
        assert "nothing" in fails(*command, "--cache", "nothing")[1]
    run("bench", "--records", "200", *where)


def test_a_deletion_that_is_refused_says_what_to_do(locmem: BaseCache) -> None:
    with replaced(locmem, set_many=lambda data, **_: list(data)):
        output, error = fails("forget", "key")
    assert output == ""
    assert error.startswith("The cache did not store 1 of 1 marks, such as 'example.com:_fence_:key'.")


def test_forget(locmem: BaseCache) -> None:
    list(cache_memoize_iter("key", ITEMS, use_encryption=True))
    full_key = make_cache_key("key", use_encryption=True)
    assert run("forget", "key", "--encrypted") == f"key: deleted the count or value, 3 chunks ({full_key})\n"
    assert without_marks(stored_bytes(locmem)) == {}
    assert fails("forget", "key", "--encrypted")[1].startswith(f"key: missing: nothing is stored under {full_key} (")
    # What is left of an entry is something.
    locmem.set(make_cache_key("rest-0"), [b"chunk"])
    assert run("forget", "rest").startswith("rest: deleted no count or value, 1 chunk (")


@pytest.mark.parametrize("encrypt", [[], ["--encrypted"]], ids=["open", "encrypted"])
def test_when_it_expires(locmem: BaseCache, encrypt: list[str]) -> None:
    options: dict[str, Any] = {"use_encryption": bool(encrypt)}
    cache_memoize("day", int, expiration=86_400, **options)
    cache_memoize("ever", int, expiration=None, **options)
    list(cache_memoize_iter("large", ITEMS, expiration=86_400, **options))
    list(cache_memoize_iter("large for ever", ITEMS, expiration=None, **options))
    for name in ("day", "large"):
        line = lines(run("inspect", name, *encrypt))["expires"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC, in (23:5\d:\d\d|1 day, 0:00:00)", line)
        report = json.loads(run("inspect", name, "--json", *encrypt))
        left = datetime.fromisoformat(report["expires"]) - datetime.now(timezone.utc)
        assert timedelta(hours=23) < left <= timedelta(days=1)
    for name in ("ever", "large for ever"):
        assert lines(run("inspect", name, *encrypt))["expires"] == "never"
    # The first of its keys counts.
    list(cache_memoize_iter("large", ITEMS, expiration=86_400, **options))
    locmem.touch(make_cache_key("large-0", **options), 3_600)
    report = json.loads(run("inspect", "large", "--json", *encrypt))
    assert datetime.fromisoformat(report["expires"]) - datetime.now(timezone.utc) < timedelta(hours=1)


def test_the_connection_is_no_part_of_the_time(locmem: BaseCache) -> None:
    cache_memoize("key", lambda: 1)
    get = type(locmem).get
    calls: list[str] = []

    def slow_at_first(self: BaseCache, *args: Any, **kwargs: Any) -> Any:
        if not calls:
            time.sleep(0.5)
        calls.append("get")
        return get(self, *args, **kwargs)

    with (
        patch.object(type(locmem), "get", slow_at_first),
        patch.object(type(locmem), "has_key", BaseCache.has_key),
    ):
        assert inspect_entry("key").fetch_seconds < 0.25
    assert len(calls) > 1


class Ascii(io.StringIO):
    encoding = "ascii"  # type: ignore[assignment]

    def write(self, text: str) -> int:
        text.encode(self.encoding)
        return super().write(text)


def test_a_terminal_without_those_characters(locmem: BaseCache) -> None:
    list(cache_memoize_iter("ключ", ["€", "x" * 3000]))
    for command in (["inspect"], ["inspect", "--json"], ["verify"], ["forget"]):
        output = Ascii()
        call_command("fastblets", *command, "ключ", stdout=output)
        assert "\\u043a\\u043b\\u044e\\u0447" in output.getvalue()


@pytest.mark.parametrize("encrypt", [[], ["--encrypted"]], ids=["open", "encrypted"])
def test_bench(cache_backend: BaseCache, encrypt: list[str]) -> None:
    cache_backend.set("mine", 1)
    rows = json.loads(run("bench", "--records", "200", "--json", *encrypt))
    assert [row["name"] for row in rows] == NAMES
    assert all(row["seconds"] > 0 for row in rows)
    assert [row["megabytes_per_second"] is not None for row in rows] == [False] * 3 + [True] * 4
    assert cache_backend.get("mine") == 1


def test_bench_leaves_nothing_and_prints_a_table(locmem: BaseCache) -> None:
    output = run("bench", "--records", "200")
    assert re.search(r"^large value, hit +[\d.]+ ms +\d+$", output, re.MULTILINE)
    assert without_marks(stored_bytes(locmem)) == {}


def test_bench_of_a_cache_that_stores_nothing(db: None) -> None:
    with use_cache({"BACKEND": "django.core.cache.backends.dummy.DummyCache"}):
        assert "doesn't give back small values" in fails("bench")[1]


@contextmanager
def killed(name: str) -> Iterator[None]:
    backend, kind = DOWN[name]
    if kind.program in missing_servers():
        pytest.skip(f"{kind.program} isn't installed")
    with kind() as server:
        location = server.url if isinstance(server, Redis) else server.address
        with use_cache({"BACKEND": backend, "LOCATION": location}):
            cache_memoize("key", lambda: 1)
            server.kill()
            yield


@pytest.mark.parametrize("name", DOWN)
@pytest.mark.parametrize("command", [["inspect", "key"], ["verify", "key"], ["forget", "key"], ["bench"]], ids=" ".join)
def test_a_server_that_is_down(name: str, command: list[str], db: None) -> None:
    with killed(name):
        output, error = fails(*command)
    assert output == ""
    assert re.match(r"The cache can't be asked: \w*(Error|Refused)|The cache did not store 1 of 1 marks", error)


def test_an_encryption_key_that_is_none(locmem: BaseCache) -> None:
    with override_settings(DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY=b"hush"):
        error = fails("inspect", "key", "--encrypted")[1]
    assert error.startswith("Invalid key size (32) for AES")
    assert "hush" not in error


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs manage.py of a new project with the app, its cache in files."""
    folder = tmp_path_factory.mktemp("project")
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    environment["PYTHONIOENCODING"] = "utf-8"

    def execute(
        *command: str, stdin: str | None = None, locale: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *command],
            cwd=folder,
            env=environment | (locale or {}),
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            timeout=60,
        )

    made = execute("-m", "django", "startproject", "mysite", ".")
    assert made.returncode == 0, made.stderr
    cache = {"BACKEND": "django.core.cache.backends.filebased.FileBasedCache", "LOCATION": str(folder / "cache")}
    with (folder / "mysite" / "settings.py").open("a") as settings:
        settings.write(f'\nINSTALLED_APPS += ["fastblets"]\nCACHES = {{"default": {cache!r}}}\n')
    return lambda *arguments, stdin=None, locale=None: execute("manage.py", *arguments, stdin=stdin, locale=locale)


FILL = """
from fastblets.cache.backend import cache_memoize_iter
list(cache_memoize_iter("lines", (f"line {n} \u20ac" for n in range(1000)), use_encryption=True))
"""


@pytest.mark.slow
def test_in_a_new_project(project: Callable[..., Any]) -> None:
    done = project("shell", stdin=FILL)
    assert (done.returncode, done.stderr) == (0, "")

    done = project("fastblets", "inspect", "lines", "--encrypted")
    assert (done.returncode, done.stderr) == (0, "")
    assert "[0] 'line 0 €' " in done.stdout

    done = project("fastblets", "verify", "lines", "--encrypted")
    assert (done.returncode, done.stdout) == (0, "lines: whole, large: 1 chunk, 1,000 items\n")

    done = project("fastblets", "verify", "lines")
    assert done.returncode == 1
    assert done.stderr.startswith("CommandError: lines: missing: nothing is stored under lines (not encrypted)")

    done = project("fastblets", "forget", "lines", "--encrypted")
    assert done.stdout.startswith("lines: deleted the count or value, 1 chunk (")

    done = project("fastblets", "bench", "--records", "100")
    assert (done.returncode, done.stderr) == (0, "")

    assert project("fastblets").returncode == 2
    assert "KEY" in project("fastblets", "inspect", "--help").stdout
    done = project("check")
    assert (done.returncode, done.stderr) == (0, "")


LOCALES = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "C": {"PYTHONIOENCODING": "", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
}


@pytest.mark.parametrize(
    "locale", [pytest.param(LOCALES["ascii"], id="ascii", marks=pytest.mark.slow), pytest.param(LOCALES["C"], id="C")]
)
def test_in_other_locales(project: Callable[..., Any], locale: dict[str, str]) -> None:
    fill = FILL.replace('"lines"', r'["orders", "\\u043a\\u043b:\\u044e\\u0447"]').replace("\\\\", "\\")
    done = project("shell", stdin=fill.encode("ascii", "backslashreplace").decode())
    assert (done.returncode, done.stderr) == (0, "")
    for command, expected in (
        ("inspect", "state    whole"),
        ("verify", ": whole, large: 1 chunk, 1,000 items"),
        ("forget", ": deleted the count or value, 1 chunk ("),
    ):
        done = project("fastblets", command, "orders", "кл:юч", "--encrypted", locale=locale)
        assert (done.returncode, done.stderr) == (0, "")
        assert expected in done.stdout
        done = project("fastblets", command, "orders", "nothing", "--encrypted", locale=locale)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("CommandError: ")
