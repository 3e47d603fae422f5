"""What `manage.py check` says of a project's caching."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from django.conf import settings
from django.core import checks as django_checks
from django.core.checks import CheckMessage
from django.core.exceptions import ImproperlyConfigured
from django.core.management.utils import get_random_secret_key
from django.test import override_settings

from fastblets import checks
from fastblets.cache import backend
from fastblets.cache.policy import CachePolicy
from fastblets.conf import DOCUMENTATION, RENAMED, SETTINGS
from fastblets.replacement import MODULES
from tests.backends import locmem_config
from tools.servers import Memcached, missing_servers

OPERATING = Path(__file__).parent.parent / "docs" / "operating.md"
MEMCACHED = "django.core.cache.backends.memcached"
FILES = "django.core.cache.backends.filebased.FileBasedCache"
KEY = b"k" * 32


@pytest.fixture(autouse=True)
def project(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """One in which there is nothing to say, without the Djblets that other tests have imported."""
    for name in MODULES:
        monkeypatch.delitem(sys.modules, f"djblets.{name}", raising=False)
    with override_settings(
        INSTALLED_APPS=[*settings.INSTALLED_APPS, "fastblets"],
        CACHES={"default": {"BACKEND": FILES, "LOCATION": str(tmp_path / "cache")}},
        DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY=KEY,
    ):
        yield


def found(*, deploy: bool = True) -> dict[str, CheckMessage]:
    """What our checks say, by id, as Django runs them."""
    messages = django_checks.run_checks(include_deployment_checks=deploy)
    ours = [message for message in messages if str(message.id).startswith("fastblets.")]
    for message in ours:
        assert message.id in checks.IDS
        anchor = str(message.id).replace(".", "-").lower()
        assert str(message.hint).endswith(f" See {DOCUMENTATION}/operating.md#{anchor}")
    return {str(message.id): message for message in ours}


def test_a_project_in_order() -> None:
    assert found() == {}


def test_the_pages_are_where_the_package_says() -> None:
    assert f'\nDocumentation = "{DOCUMENTATION}"\n' in (OPERATING.parent.parent / "pyproject.toml").read_text()


def test_each_check_is_explained() -> None:
    headings = re.findall(r"^#+ (fastblets[.-].*)$", OPERATING.read_text(), re.MULTILINE)
    assert sorted(headings) == sorted(name.replace(".", "-") for name in checks.IDS)


@pytest.mark.parametrize("size", [1, 15, 17, 31, 33])
@pytest.mark.parametrize("kind", [bytes, str])
def test_a_key_of_a_wrong_length(size: int, kind: type) -> None:
    with override_settings(DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY=b"q" * size if kind is bytes else "q" * size):
        messages = found(deploy=False)
    assert list(messages) == ["fastblets.E001"]
    assert f"has {size} bytes" in messages["fastblets.E001"].msg
    assert "qq" not in str(messages)


def test_a_key_whose_characters_are_more_bytes() -> None:
    with override_settings(DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY="é" * 16):
        assert found() == {}
    with override_settings(DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY="é" + "q" * 15):
        assert "has 17 bytes in UTF-8" in found()["fastblets.E001"].msg


def test_a_key_of_a_wrong_type() -> None:
    with override_settings(DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY=[1, 2]):
        assert "is of type list" in found()["fastblets.E001"].msg


@pytest.mark.parametrize("secret_key", ["short", "é" * 20])
def test_a_secret_key_that_makes_no_key(secret_key: str) -> None:
    with override_settings(DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY=None, SECRET_KEY=secret_key):
        messages = found(deploy=False)
    if secret_key == "é" * 20:
        # 32 bytes are a key, too.
        assert messages == {}
    else:
        assert list(messages) == ["fastblets.E002"]
        assert secret_key not in str(messages)


def test_a_key_out_of_the_secret_key() -> None:
    with override_settings(DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY=None):
        assert list(found()) == ["fastblets.W001"]
        assert settings.SECRET_KEY[:8] not in str(found())
        assert found(deploy=False) == {}


def test_a_key_that_everybody_knows() -> None:
    secret_key = get_random_secret_key()
    with override_settings(
        DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY=None,
        SECRET_KEY=django_checks.security.base.SECRET_KEY_INSECURE_PREFIX + secret_key,
    ):
        messages = found()
    assert list(messages) == ["fastblets.W007"]
    assert secret_key not in str(messages)


#: Wrong values of settings. Those that could be secrets begin with "hush".
WRONG = [
    (
        "E003",
        "FASTBLETS_ENCRYPTION_KEY_FALLBACKS",
        [[b"hush"], ["hush" * 4, b"hush" * 5], b"hush" * 4, [None], None],
    ),
    ("E004", "FASTBLETS_SEAL", ["hush, a key in the wrong place", "required", 1, None]),
    ("E005", "FASTBLETS_SEAL_KEY", ["hush", b"hush" * 3, "", 5, [b"hush" * 8]]),
    ("E006", "FASTBLETS_PICKLE_CLASSES", ["hush.*", [b"hush.*"], {"hush.*"}, 5]),
]


@pytest.mark.parametrize(
    ("check", "name", "value"), [(check, name, value) for check, name, values in WRONG for value in values]
)
def test_a_wrong_value_of_a_setting(check: str, name: str, value: Any) -> None:
    with override_settings(**{name: value}):
        messages = found()
        assert list(messages) == [f"fastblets.{check}"]
        # What the calls raise.
        with pytest.raises(ImproperlyConfigured) as raised:
            list(backend.cache_memoize_iter("key", [1], use_encryption=check != "E005", seal=check == "E005" or None))
    assert messages[f"fastblets.{check}"].msg == str(raised.value)
    assert "hush" not in str(messages)


def test_a_seal_that_cannot_be_had() -> None:
    with override_settings(FASTBLETS_SEAL="require", FASTBLETS_SEAL_KEY=KEY):
        assert list(found(deploy=False)) == ["fastblets.W009"]
        with override_settings(DJBLETS_CACHE_FORCE_ENCRYPTION=True):
            assert found() == {}


def test_seals_that_everybody_can_make() -> None:
    with override_settings(FASTBLETS_SEAL=True):
        assert list(found()) == ["fastblets.W010"]
        assert found(deploy=False) == {}
        for better in ({"FASTBLETS_SEAL_KEY": KEY}, {"DJBLETS_CACHE_FORCE_ENCRYPTION": True}):
            with override_settings(**better):
                assert found() == {}


def test_a_cache_that_stores_nothing() -> None:
    with override_settings(CACHES={"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}):
        assert list(found(deploy=False)) == ["fastblets.W002"]


def test_a_cache_of_one_process() -> None:
    with override_settings(CACHES={"default": locmem_config()}):
        assert list(found()) == ["fastblets.W008"]
        assert found(deploy=False) == {}


def test_a_cache_behind_a_forwarding_one() -> None:
    pytest.importorskip("djblets", reason="Djblets isn't installed")
    forwarding = {"BACKEND": "djblets.cache.forwarding_backend.ForwardingCacheBackend", "LOCATION": "other"}
    with override_settings(CACHES={"default": forwarding, "other": locmem_config()}):
        assert list(found()) == ["fastblets.W008"]


def test_a_cache_that_cannot_be_had() -> None:
    for name in ("nowhere.Cache", "django.core.cache.Missing"):
        with override_settings(CACHES={"default": {"BACKEND": name}}):
            # Django's own checks say it.
            assert checks.check_cache() == checks.check_memcached() == []


@pytest.mark.parametrize(
    ("kind", "options", "name"),
    [
        ("PyMemcacheCache", {}, None),
        ("PyMemcacheCache", {"default_noreply": False}, None),
        ("PyMemcacheCache", {"default_noreply": True}, "default_noreply"),
        ("PyLibMCCache", {"behaviors": None}, None),
        ("PyLibMCCache", {"behaviors": {"_noreply": 0}}, None),
        ("PyLibMCCache", {"behaviors": {"_noreply": 1}}, "_noreply"),
    ],
)
def test_a_client_that_does_not_wait_for_answers(kind: str, options: dict[str, Any], name: str | None) -> None:
    pytest.importorskip({"PyMemcacheCache": "pymemcache", "PyLibMCCache": "pylibmc"}[kind])
    caches = {"default": {"BACKEND": f"{MEMCACHED}.{kind}", "LOCATION": "127.0.0.1:1", "OPTIONS": options}}
    with override_settings(CACHES=caches):
        messages = found(deploy=False)
    assert list(messages) == ["fastblets.W011"] * (name is not None)
    assert not messages or f"the option {name}:" in messages["fastblets.W011"].msg


@pytest.mark.parametrize("kind", ["PyMemcacheCache", "PyLibMCCache"])
@pytest.mark.parametrize(("size", "expected"), [("512k", ["fastblets.W003"]), ("1m", []), ("2m", [])])
def test_the_limit_of_a_memcached(kind: str, size: str, expected: list[str]) -> None:
    if Memcached.program in missing_servers():
        pytest.skip("memcached isn't installed")
    with Memcached(item_size=size) as server:
        caches = {"default": {"BACKEND": f"{MEMCACHED}.{kind}", "LOCATION": server.address}}
        try:
            with override_settings(CACHES=caches):
                messages = found()
                assert list(messages) == expected
                assert found(deploy=False) == {}
        except ImportError:
            pytest.skip("no such client")
    if messages:
        assert f"{server.address} takes items of up to 524,288 bytes" in messages["fastblets.W003"].msg


def test_a_memcached_that_does_not_say_its_limit() -> None:
    locations = {"BACKEND": f"{MEMCACHED}.PyMemcacheCache", "LOCATION": "nowhere.invalid:11211"}
    with override_settings(CACHES={"default": locations}):
        assert found() == {}


@pytest.mark.parametrize("setting", ["1 day", timedelta(days=1), [1]])
def test_an_expiration_that_is_no_number(setting: Any) -> None:
    with override_settings(CACHE_EXPIRATION_TIME=setting):
        messages = found(deploy=False)
    assert list(messages) == ["fastblets.E007"]
    assert messages["fastblets.E007"].msg.startswith("CACHE_EXPIRATION_TIME must be a number of seconds or None")
    for right in (60, 0.5, None):
        with override_settings(CACHE_EXPIRATION_TIME=right):
            assert found() == {}


@pytest.mark.parametrize("setting", [30, {"ttl": 30}, {"wait": -1}, "nowhere.POLICY"])
def test_a_policy_that_is_none(setting: Any) -> None:
    with override_settings(FASTBLETS_POLICY=setting):
        messages = found(deploy=False)
    assert list(messages) == ["fastblets.E008"]
    assert messages["fastblets.E008"].msg.startswith("FASTBLETS_POLICY ")
    for right in (CachePolicy(), {"wait": 30}, None):
        with override_settings(FASTBLETS_POLICY=right):
            assert found() == {}


def quoted(key: str, prefix: str, version: int) -> str:
    return quote(f"{prefix}:{version}:{key}")


def by_characters(key: str, prefix: str, version: int) -> str:
    full_key = f"{prefix}:{version}:{key}"
    return full_key if len(full_key) <= 250 else str(hash(full_key))


def failing(key: str, prefix: str, version: int) -> str:
    raise LookupError


@pytest.mark.parametrize(
    ("config", "refused"),
    [
        ({}, None),
        ({"KEY_PREFIX": "p" * 183}, None),
        ({"KEY_PREFIX": "p" * 184}, "long ones, since KEY_PREFIX leaves less than 64 bytes"),
        ({"KEY_PREFIX": "п" * 92}, "long ones, since KEY_PREFIX leaves less than 64 bytes"),
        ({"KEY_FUNCTION": quoted}, "long ones that are not ASCII, since KEY_FUNCTION"),
        ({"KEY_FUNCTION": by_characters}, "long ones that are not ASCII, since KEY_FUNCTION"),
        ({"KEY_FUNCTION": lambda key, prefix, version: f"{hash(key)}"}, None),
        ({"KEY_FUNCTION": failing}, None),
    ],
)
@pytest.mark.parametrize("forwarding", [False, True])
def test_a_prefix_that_leaves_no_room_for_keys(config: dict[str, Any], refused: str | None, forwarding: bool) -> None:
    pytest.importorskip("pymemcache")
    caches = {"default": {"BACKEND": f"{MEMCACHED}.PyMemcacheCache", "LOCATION": "127.0.0.1:1", **config}}
    if forwarding:
        pytest.importorskip("djblets")
        caches["forwarded_backend"] = caches["default"]
        backend = "djblets.cache.forwarding_backend.ForwardingCacheBackend"
        caches["default"] = {"BACKEND": backend, "LOCATION": "forwarded_backend"}
    with override_settings(CACHES=caches):
        messages = found(deploy=False)
    messages.pop("fastblets.W004", None)
    assert list(messages) == (["fastblets.W013"] if refused else [])
    if refused:
        assert refused in messages["fastblets.W013"].msg
        assert "ppp" not in str(messages)


def test_djblets_that_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = ModuleType("djblets.cache.backend")
    monkeypatch.setitem(sys.modules, "djblets.cache.backend", theirs)
    messages = found(deploy=False)
    assert list(messages) == ["fastblets.W004"]
    assert "the module djblets.cache.backend" in messages["fastblets.W004"].msg
    monkeypatch.setitem(sys.modules, "djblets.cache.backend", backend)
    assert found() == {}


def test_an_app_of_djblets(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = [SimpleNamespace(name=name) for name in ("djblets.datagrid", "djbletsy", "mine")]
    monkeypatch.setattr(checks, "apps", SimpleNamespace(get_app_configs=lambda: installed))
    [message] = checks.check_replacement()
    assert message.msg == "Djblets is in use, and its caching is not replaced: the app djblets.datagrid."


@pytest.mark.parametrize(
    ("name", "similar"),
    [
        ("DJBLETS_CACHE_DEFAULT_ENCRYPTION_KY", "DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY"),
        ("DJBLETS_CACHE_FORCE_ENCRYPT", "DJBLETS_CACHE_FORCE_ENCRYPTION"),
        ("FASTBLETS_SEALS", "FASTBLETS_SEAL"),
        ("FASTBLETS_NOTHING_THAT_IS_KNOWN_HERE", None),
    ],
)
def test_a_setting_that_is_not_there(name: str, similar: str | None) -> None:
    with override_settings(**{name: "a value"}):
        messages = found(deploy=False)
    assert list(messages) == ["fastblets.W005"]
    assert messages["fastblets.W005"].msg == f"There is no setting {name}."
    expected = f"Did you mean {similar}?" if similar else "There are CACHE_EXPIRATION_TIME, "
    assert str(messages["fastblets.W005"].hint).startswith(expected)
    assert "a value" not in str(messages)


@pytest.mark.parametrize(
    ("name", "similar"),
    [
        ("DJBLET_CACHE_DEFAULT_ENCRYPTION_KEY", "DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY"),
        ("CACHE_EXPIRATION_TIMES", "CACHE_EXPIRATION_TIME"),
        ("CACHE_EXPIRATON_TIME", "CACHE_EXPIRATION_TIME"),
        ("FASTBLET_SEAL_KEY", "FASTBLETS_SEAL_KEY"),
    ],
)
def test_a_setting_that_is_misspelt(name: str, similar: str) -> None:
    with override_settings(**{name: 1}):
        messages = found(deploy=False)
    assert list(messages) == ["fastblets.W006"]
    assert f"Did you mean {similar}?" in str(messages["fastblets.W006"].hint)


@pytest.mark.parametrize(
    "name", [*SETTINGS, "SITE_ID", "SITE_NAME", "CACHE_MIDDLEWARE_SECONDS", "CACHE_TIMEOUT", "SITE_URL", "DJBLETS_X"]
)
def test_settings_that_are_right_or_of_others(name: str) -> None:
    right = {
        "FASTBLETS_ENCRYPTION_KEY_FALLBACKS": [KEY, "an older AES key"],
        "FASTBLETS_PICKLE_CLASSES": ["reports.models.*"],
        "FASTBLETS_POLICY": {"stale_if_error": 60},
        "FASTBLETS_SEAL": False,
        "FASTBLETS_STATS": True,
    }
    value = right.get(name, KEY if name.endswith("_KEY") else 1)
    with override_settings(**{name: value}):
        assert found() == {}


def test_a_setting_that_has_a_new_name() -> None:
    for old, new in RENAMED.items():
        with override_settings(**{old: [KEY]}):
            messages = found(deploy=False)
            assert list(messages) == ["fastblets.W014"]
            assert messages["fastblets.W014"].msg == f"The setting {old} is called {new} now."
            assert str(messages["fastblets.W014"].hint).startswith(f"Rename it to {new}. ")
            with override_settings(**{new: [KEY]}):
                messages = found(deploy=False)
                assert list(messages) == ["fastblets.W014"]
                assert str(messages["fastblets.W014"].hint).startswith("Remove it: ")
        assert new in SETTINGS and old not in SETTINGS


@pytest.mark.parametrize("value", [[b"hush"], None, b"hush" * 4], ids=repr)
def test_a_wrong_value_under_an_old_name(value: object) -> None:
    with override_settings(DJBLETS_CACHE_ENCRYPTION_KEY_FALLBACKS=value):
        messages = found(deploy=False)
    assert sorted(messages) == ["fastblets.E003", "fastblets.W014"]
    assert messages["fastblets.E003"].msg.startswith(
        "DJBLETS_CACHE_ENCRYPTION_KEY_FALLBACKS must be a list of AES keys"
    )
    assert "hush" not in str(messages)


@pytest.mark.parametrize("interval", [None, "60", -1, float("nan"), [60]], ids=repr)
def test_an_interval_that_is_no_number(interval: object) -> None:
    with override_settings(FASTBLETS_TRACEBACK_INTERVAL=interval):
        assert list(found(deploy=False)) == ["fastblets.W012"]


@pytest.mark.parametrize("interval", [0, 0.5, 3600])
def test_an_interval(interval: float) -> None:
    with override_settings(FASTBLETS_TRACEBACK_INTERVAL=interval):
        assert found() == {}


@pytest.mark.parametrize("threads", [0, -1, "2", 1.5, True, [2], 1 << 80], ids=repr)
def test_a_number_of_threads_that_is_none(threads: object) -> None:
    with override_settings(FASTBLETS_THREADS=threads):
        assert list(found(deploy=False)) == ["fastblets.W015"]


@pytest.mark.parametrize("value", ["True", 1, None, []], ids=repr)
def test_statistics_that_are_neither_on_nor_off(value: object) -> None:
    with override_settings(FASTBLETS_STATS=value):
        assert list(found(deploy=False)) == ["fastblets.W016"]


@pytest.mark.parametrize("threads", [None, 1, 4, 100])
def test_a_number_of_threads(threads: int | None) -> None:
    with override_settings(FASTBLETS_THREADS=threads):
        assert found() == {}
