"""System checks, for ``manage.py check``. Each of them is explained in docs/operating.md, under its id.

No message holds a key, a secret or a part of one.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from difflib import get_close_matches
from typing import TYPE_CHECKING

from django.apps import apps
from django.conf import settings
from django.core.cache import InvalidCacheBackendError, caches
from django.core.cache.backends.base import MEMCACHE_MAX_KEY_LENGTH
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.cache.backends.memcached import BaseMemcachedCache
from django.core.checks import Error, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured

from fastblets import _native
from fastblets.cache.classes import get_loads
from fastblets.cache.failures import is_interval
from fastblets.cache.keys import get_default_encryption_key, get_encryption_key_fallbacks
from fastblets.cache.kinds import DIGEST_SIZE, fits, measure_max_key_bytes, unwrap
from fastblets.cache.options import get_expiration_time, is_number_of_threads
from fastblets.cache.policy import resolve_policy
from fastblets.cache.seals import get_seal_key, resolve_seal
from fastblets.cache.shortcuts import get_settings
from fastblets.conf import DOCUMENTATION, PREFIXES, RENAMED, SETTINGS
from fastblets.memcached import get_item_limit
from fastblets.replacement import MODULES
from fastblets.secrets.crypto import AES_KEY_SIZES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Final, TypeAlias

    from django.core.cache.backends.base import BaseCache
    from django.core.checks import CheckMessage

    from fastblets.cache.seals import Seal

    #: The ids, texts and hints of the messages of a check.
    Findings: TypeAlias = Iterator[tuple[str, str, str]]


__all__ = ["IDS", "register_checks"]


#: The ids of all checks.
IDS: Final = tuple(
    f"fastblets.{kind}{number:03}" for kind, count in (("E", 8), ("W", 16)) for number in range(1, count + 1)
)

#: The beginning of each SECRET_KEY that `startproject` writes. It has the length of an AES key.
_KEY_OF_STARTPROJECT: Final = b"django-insecure-"

#: The functions that read a setting in each call and refuse a wrong one, by the id of the check, with the consequence.
_READERS: Final[tuple[tuple[str, Callable[[Any], object], str], ...]] = (
    (
        "E003",
        lambda settings: get_encryption_key_fallbacks(settings, b""),
        "Each call with encryption under the default key raises ImproperlyConfigured.",
    ),
    ("E004", resolve_seal, "Each call raises ImproperlyConfigured."),
    ("E005", get_seal_key, "Each call that seals without encryption raises ImproperlyConfigured."),
    ("E006", get_loads, "Each call raises ImproperlyConfigured."),
    ("E007", get_expiration_time, "Only calls with an expiration of their own store anything."),
    ("E008", lambda settings: resolve_policy(settings, None), "Each call without policy= raises ImproperlyConfigured."),
)

#: The bytes that a chunk takes in a memcached beyond its own: its key, the list around it, and memcached's header.
_CHUNK_OVERHEAD: Final = 512

#: How similar a setting's name must be to one of ours to be taken for a misspelling of it.
_SIMILARITY: Final = 0.85

_checks: Final[list[tuple[Callable[..., list[CheckMessage]], tuple[str, ...], bool]]] = []


def register_checks() -> None:
    """Register all checks with Django."""
    for check, tags, deploy in _checks:
        register(check, *tags, deploy=deploy)


def _check(*tags: str, deploy: bool = False) -> Callable[[Callable[[], Findings]], Callable[..., list[CheckMessage]]]:
    """Make a system check of a function that yields findings.

    Args:
        tags: Django's tags for the check.
        deploy: Whether it runs with ``manage.py check --deploy`` only.
    """

    def decorate(find: Callable[[], Findings]) -> Callable[..., list[CheckMessage]]:
        def check(**kwargs: Any) -> list[CheckMessage]:
            return [_make_message(*finding) for finding in find()]

        # Not by wraps(): Django would look for **kwargs in what it wraps.
        check.__name__, check.__qualname__, check.__doc__ = find.__name__, find.__qualname__, find.__doc__
        _checks.append((check, tags, deploy))

        return check

    return decorate


def _make_message(check: str, text: str, hint: str) -> CheckMessage:
    kind = Error if check.startswith("E") else Warning
    hint = f"{hint} See {DOCUMENTATION}/operating.md#fastblets-{check.lower()}"

    return kind(text, hint=hint, id=f"fastblets.{check}")


@_check()
def check_settings() -> Findings:
    """Check the names of settings: W005, W006, W014."""
    # Django's defaults are not the project's mistakes.
    for name in sorted(name for name in dir(settings) if name.isupper() and settings.is_overridden(name)):  # type: ignore[misc]
        if name in SETTINGS:
            continue

        if name in RENAMED:
            new = RENAMED[name]
            hint = f"Remove it: {new} is set, so it is not read." if hasattr(settings, new) else f"Rename it to {new}."
            yield "W014", f"The setting {name} is called {new} now.", hint
            continue

        similar = get_close_matches(name, SETTINGS, 1, _SIMILARITY)

        if name.startswith(PREFIXES):
            similar = similar or get_close_matches(name, SETTINGS, 1)
            known = f"Did you mean {similar[0]}?" if similar else f"There are {', '.join(SETTINGS)}."
            yield "W005", f"There is no setting {name}.", known
        elif similar:
            yield "W006", f"Nothing here reads the setting {name}.", f"Did you mean {similar[0]}?"


@_check()
def check_values() -> Findings:
    """Check the values of settings that no call can do with if they are wrong: E003 to E008."""
    for check, read, effect in _READERS:
        try:
            read(get_settings())
        except ImproperlyConfigured as e:
            yield check, str(e), effect


@_check()
def check_traceback_interval() -> Findings:
    """Check that FASTBLETS_TRACEBACK_INTERVAL is a number: W012."""
    if not is_interval(getattr(get_settings(), "FASTBLETS_TRACEBACK_INTERVAL", 0)):
        yield (
            "W012",
            "FASTBLETS_TRACEBACK_INTERVAL is not a number of seconds: each error is logged with its traceback.",
            "Set it to the seconds between two tracebacks of the same error, 0 for all of them.",
        )


@_check()
def check_threads() -> Findings:
    """Check that FASTBLETS_THREADS is a number of threads: W015."""
    threads = getattr(get_settings(), "FASTBLETS_THREADS", None)

    if threads is not None and not is_number_of_threads(threads):
        yield (
            "W015",
            "FASTBLETS_THREADS is not a positive whole number: it has no effect.",
            "Set it to the most threads that may compress a large value, 1 for the calling thread alone, or remove it.",
        )


@_check()
def check_stats() -> Findings:
    """Check that FASTBLETS_STATS is True or False: W016."""
    stats = getattr(get_settings(), "FASTBLETS_STATS", False)

    if not isinstance(stats, bool):
        yield (
            "W016",
            f"FASTBLETS_STATS is of type {type(stats).__name__}: no statistics are collected.",
            "Set it to True to collect them, or remove it.",
        )


@_check(Tags.security)
def check_seal() -> Findings:
    """Check that values that must have a seal can have one: W009."""
    if _get_seal_of_unencrypted() == "require":
        yield (
            "W009",
            'FASTBLETS_SEAL is "require", but a small value that is not encrypted can\'t be sealed: each call for one '
            "raises ImproperlyConfigured.",
            "Set DJBLETS_CACHE_FORCE_ENCRYPTION = True.",
        )


@_check(Tags.security, deploy=True)
def check_seal_of_deployment() -> Findings:
    """Check that seals are made with a secret: W010."""
    if _get_seal_of_unencrypted() and getattr(get_settings(), "FASTBLETS_SEAL_KEY", None) is None:
        yield (
            "W010",
            "FASTBLETS_SEAL is set, but FASTBLETS_SEAL_KEY isn't: the seals of what is not encrypted notice accidents "
            "only, since everybody can make them.",
            "Set FASTBLETS_SEAL_KEY to random bytes of its own.",
        )


def _get_seal_of_unencrypted() -> Seal:
    """Return how entries are sealed that are not encrypted, in calls without options of their own."""
    if getattr(get_settings(), "DJBLETS_CACHE_FORCE_ENCRYPTION", None):
        return False

    try:
        return resolve_seal(get_settings())
    except ImproperlyConfigured:
        # Reported as E004.
        return False


@_check(Tags.security)
def check_encryption_key() -> Findings:
    """Check that the default encryption key is an AES key: E001, E002."""
    key = getattr(get_settings(), "DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY", None)

    if key and not isinstance(key, (bytes, str)):
        yield (
            "E001",
            f"DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY is of type {type(key).__name__}.",
            "Set it to 16, 24 or 32 bytes.",
        )
        return

    # Raised without a SECRET_KEY, which Django's own checks report.
    with suppress(ImproperlyConfigured, TypeError, AttributeError):
        size = len(get_default_encryption_key())

        if size in AES_KEY_SIZES:
            return

        useless = "An AES key has 16, 24 or 32: nothing that is to be encrypted will be cached."

        if key:
            yield (
                "E001",
                f"DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY has {size} bytes{' in UTF-8' if isinstance(key, str) else ''}. "
                f"{useless}",
                'Set it to what `python -c "import os; print(os.urandom(32))"` prints.',
            )
        else:
            yield (
                "E002",
                f"The first 16 characters of SECRET_KEY, which serve as the AES key, are {size} bytes in UTF-8. "
                f"{useless}",
                "Set DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY to a key of its own.",
            )


@_check(Tags.security, deploy=True)
def check_encryption_key_of_deployment() -> Findings:
    """Check that the encryption key doesn't come out of SECRET_KEY: W001, W007."""
    if getattr(get_settings(), "DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY", None):
        return

    with suppress(ImproperlyConfigured, TypeError, AttributeError):
        if get_default_encryption_key() == _KEY_OF_STARTPROJECT:
            yield (
                "W007",
                f'The AES key of all that is encrypted in the cache is "{_KEY_OF_STARTPROJECT.decode()}", the '
                "first 16 characters of each SECRET_KEY that `startproject` makes: everybody knows it.",
                "Set DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY to random bytes of its own.",
            )
            return

    yield (
        "W001",
        "DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY isn't set, so the first 16 characters of SECRET_KEY are the AES key of "
        "all that is encrypted in the cache.",
        "Set it to random bytes of its own: characters are easier to guess than bytes, and a new SECRET_KEY would make "
        "all encrypted entries unreadable.",
    )


@_check(Tags.caches)
def check_cache() -> Findings:
    """Check that the default cache stores anything: W002."""
    if isinstance(_get_default_cache(), DummyCache):
        yield (
            "W002",
            "The default cache is Django's DummyCache: everything is computed every time, and a CacheLock locks "
            "nothing out.",
            'Set CACHES["default"] to a cache that stores.',
        )


@_check(Tags.caches, deploy=True)
def check_cache_of_deployment() -> Findings:
    """Check that processes share the default cache: W008."""
    if isinstance(_get_default_cache(), LocMemCache):
        yield (
            "W008",
            "The default cache is Django's LocMemCache, of which each process has its own: CacheLock and "
            "GenerationSynchronizer don't reach other processes.",
            'Unless there is but one process, set CACHES["default"] to a cache that they share.',
        )


@_check(Tags.caches)
def check_answers() -> Findings:
    """Check that the memcached client waits for the server's answers: W011."""
    cache = _get_default_cache()

    if isinstance(cache, BaseMemcachedCache):
        # Django gives both clients their options from this dict, and pylibmc its own settings from one within it.
        options = cache._options  # type: ignore[attr-defined]
        behaviors = options.get("behaviors") or {}

        for name, given in (("default_noreply", options), ("_noreply", behaviors)):
            if given.get(name):
                yield (
                    "W011",
                    f"The default cache has the option {name}: the client doesn't wait for memcached's answers. A "
                    "CacheLock locks nothing out, and nothing is logged when the server refuses to store an entry.",
                    f'Remove {name} from the OPTIONS of CACHES["default"].',
                )
                return


@_check(Tags.caches)
def check_keys() -> Findings:
    """Check that keys of memcached can be made short enough: W013."""
    cache = _get_default_cache()
    refused = None

    # A KEY_FUNCTION that fails does so in each call.
    with suppress(Exception):
        if isinstance(cache, BaseMemcachedCache):
            refused = _find_refused_keys(cache)

    if refused:
        yield (
            "W013",
            f"memcached takes keys of up to {MEMCACHE_MAX_KEY_LENGTH} bytes, and refuses {refused}. What is to be "
            "stored under such keys is computed every time.",
            'Shorten the KEY_PREFIX of CACHES["default"], or what its KEY_FUNCTION returns.',
        )


def _find_refused_keys(cache: BaseMemcachedCache) -> str | None:
    most = measure_max_key_bytes(cache)

    if most == 0:
        return f"long ones, since KEY_PREFIX leaves less than {DIGEST_SIZE} bytes for a key"

    counts = range(1, (most or 4 * _native.MAX_KEY_SIZE) // 4 + 1)

    if not all(fits(cache, "\U0001f511" * count) for count in counts):
        return "long ones that are not ASCII, since KEY_FUNCTION makes keys of more bytes of them"

    return None


@_check(Tags.caches, deploy=True)
def check_memcached() -> Findings:
    """Check that the memcached servers take items of a chunk's size: W003. Unreachable servers are ignored."""
    cache = _get_default_cache()
    needed = _native.CACHE_CHUNK_SIZE + _CHUNK_OVERHEAD

    for server in cache.client_servers if isinstance(cache, BaseMemcachedCache) else ():
        limit = get_item_limit(str(server))

        if limit is not None and limit < needed:
            yield (
                "W003",
                f"The memcached at {server} takes items of up to {limit:,} bytes. The chunks of large entries need "
                f"{needed:,}: no entry of more than one chunk can be stored there.",
                "Start it with `-I 1m`, which is its default, or more.",
            )


@_check(Tags.compatibility)
def check_replacement() -> Findings:
    """Check that Djblets' caching isn't used beside ours: W004."""
    modules = [getattr(sys.modules.get(f"djblets.{name}"), "__name__", "") for name in MODULES]

    if any(module.startswith("fastblets.") for module in modules):
        return

    users = [f"the app {config.name}" for config in apps.get_app_configs() if f"{config.name}.".startswith("djblets.")]
    users += [f"the module {module}" for module in modules if module]

    if users:
        yield (
            "W004",
            f"Djblets is in use, and its caching is not replaced: {', '.join(sorted(users))}.",
            "Begin the settings module with `import fastblets` and `fastblets.replace_djblets()`.",
        )


def _get_default_cache() -> BaseCache | None:
    # Django's own checks report a cache that can't be imported.
    try:
        cache: BaseCache = unwrap(caches["default"])
    except (InvalidCacheBackendError, ImportError):
        return None

    return cache
