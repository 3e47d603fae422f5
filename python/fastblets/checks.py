"""System checks, for ``manage.py check``. Each of them is explained in docs/operating.md, under its id.

No message holds a key, a secret or a part of one.
"""

from __future__ import annotations

import re
import socket
import sys
import time
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
from fastblets.cache.options import get_expiration_time
from fastblets.cache.seals import get_seal_key, resolve_seal
from fastblets.conf import DOCUMENTATION, PREFIXES, SETTINGS, get_settings
from fastblets.replacement import MODULES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, Final

    from django.core.cache.backends.base import BaseCache
    from django.core.checks import CheckMessage

    from fastblets.cache.seals import Seal


__all__ = ["IDS", "register_checks"]


#: The ids of all checks.
IDS: Final = (
    "fastblets.E001",
    "fastblets.E002",
    "fastblets.E003",
    "fastblets.E004",
    "fastblets.E005",
    "fastblets.E006",
    "fastblets.E007",
    "fastblets.W001",
    "fastblets.W002",
    "fastblets.W003",
    "fastblets.W004",
    "fastblets.W005",
    "fastblets.W006",
    "fastblets.W007",
    "fastblets.W008",
    "fastblets.W009",
    "fastblets.W010",
    "fastblets.W011",
    "fastblets.W012",
    "fastblets.W013",
)

#: What `startproject` puts in front of a SECRET_KEY. As it happens, it has just the length of an AES key.
_KEY_OF_STARTPROJECT: Final = b"django-insecure-"

#: The lengths in bytes that AES keys have.
_KEY_SIZES: Final = (16, 24, 32)

#: What reads a setting and refuses a wrong one, as each call does, the id of the check, and what comes of it.
_READERS: Final[tuple[tuple[str, Callable[[], object], str], ...]] = (
    (
        "E003",
        lambda: get_encryption_key_fallbacks(get_settings(), b""),
        "Each call with encryption under the default key raises ImproperlyConfigured.",
    ),
    ("E004", lambda: resolve_seal(get_settings()), "Each call raises ImproperlyConfigured."),
    (
        "E005",
        lambda: get_seal_key(get_settings()),
        "Each call that seals without encryption raises ImproperlyConfigured.",
    ),
    ("E006", lambda: get_loads(get_settings()), "Each call raises ImproperlyConfigured."),
    ("E007", lambda: get_expiration_time(get_settings()), "Only calls with an expiration of their own store anything."),
)

#: What a chunk takes in a memcached beyond its bytes: its key, the list around it, and memcached's own header.
_CHUNK_OVERHEAD: Final = 512

#: For how long, in seconds, a memcached is asked for its limit. One that is down is none of a check's business.
_PATIENCE: Final = 1.0

#: How similar a setting's name must be to one of ours to be taken for a misspelling of it.
_SIMILARITY: Final = 0.85


def register_checks() -> None:
    """Register all checks with Django."""
    register(check_settings)
    register(check_values)
    register(check_traceback_interval)
    register(check_seal, Tags.security)
    register(check_seal_of_deployment, Tags.security, deploy=True)
    register(check_encryption_key, Tags.security)
    register(check_encryption_key_of_deployment, Tags.security, deploy=True)
    register(check_cache, Tags.caches)
    register(check_keys, Tags.caches)
    register(check_cache_of_deployment, Tags.caches, deploy=True)
    register(check_answers, Tags.caches)
    register(check_memcached, Tags.caches, deploy=True)
    register(check_replacement, Tags.compatibility)


def check_encryption_key(**kwargs: Any) -> list[CheckMessage]:
    """Check that the default encryption key is an AES key: E001, E002."""
    key = getattr(get_settings(), "DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY", None)

    if not key:
        return list(_check_secret_key())

    if not isinstance(key, (bytes, str)):
        return [
            Error(
                f"DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY is of type {type(key).__name__}.",
                hint=_hint("E001", "Set it to 16, 24 or 32 bytes."),
                id="fastblets.E001",
            )
        ]

    size = len(get_default_encryption_key())

    if size in _KEY_SIZES:
        return []

    return [
        Error(
            f"DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY has {size} bytes{' in UTF-8' if isinstance(key, str) else ''}. An "
            "AES key has 16, 24 or 32: nothing that is to be encrypted will be cached.",
            hint=_hint("E001", 'Set it to what `python -c "import os; print(os.urandom(32))"` prints.'),
            id="fastblets.E001",
        )
    ]


def _check_secret_key() -> Iterator[CheckMessage]:
    # Django's own checks say what is to be said of a SECRET_KEY that is missing.
    with suppress(ImproperlyConfigured, TypeError, AttributeError):
        size = len(get_default_encryption_key())

        if size not in _KEY_SIZES:
            yield Error(
                f"The first 16 characters of SECRET_KEY, which serve as the AES key, are {size} bytes in UTF-8. An AES "
                "key has 16, 24 or 32: nothing that is to be encrypted will be cached.",
                hint=_hint("E002", "Set DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY to a key of its own."),
                id="fastblets.E002",
            )


def check_encryption_key_of_deployment(**kwargs: Any) -> list[CheckMessage]:
    """Check that the encryption key doesn't come out of SECRET_KEY: W001, W007."""
    if getattr(get_settings(), "DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY", None):
        return []

    with suppress(ImproperlyConfigured, TypeError, AttributeError):
        if get_default_encryption_key() == _KEY_OF_STARTPROJECT:
            return [
                Warning(
                    f'The AES key of all that is encrypted in the cache is "{_KEY_OF_STARTPROJECT.decode()}", the '
                    "first 16 characters of each SECRET_KEY that `startproject` makes: everybody knows it.",
                    hint=_hint("W007", "Set DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY to random bytes of its own."),
                    id="fastblets.W007",
                )
            ]

    return [
        Warning(
            "DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY isn't set, so the first 16 characters of SECRET_KEY are the AES key "
            "of all that is encrypted in the cache.",
            hint=_hint(
                "W001",
                "Set it to random bytes of its own: characters are easier to guess than bytes, and a new SECRET_KEY "
                "would make all encrypted entries unreadable.",
            ),
            id="fastblets.W001",
        )
    ]


def check_cache(**kwargs: Any) -> list[CheckMessage]:
    """Check that the default cache stores anything: W002."""
    if not isinstance(_default_cache(), DummyCache):
        return []

    return [
        Warning(
            "The default cache is Django's DummyCache: everything is computed every time, and a CacheLock locks "
            "nothing out.",
            hint=_hint("W002", 'Set CACHES["default"] to a cache that stores.'),
            id="fastblets.W002",
        )
    ]


def check_cache_of_deployment(**kwargs: Any) -> list[CheckMessage]:
    """Check that processes share the default cache: W008."""
    if not isinstance(_default_cache(), LocMemCache):
        return []

    return [
        Warning(
            "The default cache is Django's LocMemCache, of which each process has its own: CacheLock and "
            "GenerationSynchronizer don't reach other processes.",
            hint=_hint("W008", 'Unless there is but one process, set CACHES["default"] to a cache that they share.'),
            id="fastblets.W008",
        )
    ]


def check_answers(**kwargs: Any) -> list[CheckMessage]:
    """Check that the memcached client waits for the server's answers: W011."""
    cache = _default_cache()

    if not isinstance(cache, BaseMemcachedCache):
        return []

    # Django gives both clients their options from this dict, and pylibmc its own settings from one within it.
    options = cache._options  # type: ignore[attr-defined]
    behaviors = options.get("behaviors") or {}
    name = next(
        (name for name, given in (("default_noreply", options), ("_noreply", behaviors)) if given.get(name)), None
    )

    if name is None:
        return []

    return [
        Warning(
            f"The default cache has the option {name}: the client doesn't wait for memcached's answers. A CacheLock "
            "locks nothing out, and nothing is logged when the server refuses to store an entry.",
            hint=_hint("W011", f'Remove {name} from the OPTIONS of CACHES["default"].'),
            id="fastblets.W011",
        )
    ]


def check_keys(**kwargs: Any) -> list[CheckMessage]:
    """Check that keys of memcached can be made short enough: W013."""
    cache = _default_cache()

    # A KEY_FUNCTION that fails does so in each call.
    with suppress(Exception):
        if isinstance(cache, BaseMemcachedCache):
            return list(_check_keys(cache))

    return []


def _check_keys(cache: BaseMemcachedCache) -> Iterator[CheckMessage]:
    most = measure_max_key_bytes(cache)
    refused = None

    if most == 0:
        refused = f"long ones, since KEY_PREFIX leaves less than {DIGEST_SIZE} bytes for a key"
    elif not all(fits(cache, "\U0001f511" * count) for count in range(1, (most or 4 * _native.MAX_KEY_SIZE) // 4 + 1)):
        refused = "long ones that are not ASCII, since KEY_FUNCTION makes keys of more bytes of them"

    if refused:
        yield Warning(
            f"memcached takes keys of up to {MEMCACHE_MAX_KEY_LENGTH} bytes, and refuses {refused}. What is to be "
            "stored under such keys is computed every time.",
            hint=_hint("W013", 'Shorten the KEY_PREFIX of CACHES["default"], or what its KEY_FUNCTION returns.'),
            id="fastblets.W013",
        )


def check_memcached(**kwargs: Any) -> list[CheckMessage]:
    """Check that the memcached servers take items of a chunk's size: W003. A server that doesn't say is left alone."""
    cache = _default_cache()

    if not isinstance(cache, BaseMemcachedCache):
        return []

    needed = _native.CACHE_CHUNK_SIZE + _CHUNK_OVERHEAD
    messages: list[CheckMessage] = []

    for server in cache.client_servers:
        limit = _item_limit(str(server))

        if limit is not None and limit < needed:
            messages.append(
                Warning(
                    f"The memcached at {server} takes items of up to {limit:,} bytes. The chunks of large entries need "
                    f"{needed:,}: no entry of more than one chunk can be stored there.",
                    hint=_hint("W003", "Start it with `-I 1m`, which is its default, or more."),
                    id="fastblets.W003",
                )
            )

    return messages


def _item_limit(server: str) -> int | None:
    """Return a memcached's limit in bytes, None if it can't be asked.

    Not through the cache's client: each has another way of asking, and what it waits for is the project's to set.
    """
    deadline = time.monotonic() + _PATIENCE
    answer = b""

    try:
        with _connect(server) as connection:
            connection.sendall(b"stats settings\r\n")

            while not answer.endswith((b"END\r\n", b"ERROR\r\n")) and len(answer) < 65536:
                connection.settimeout(max(deadline - time.monotonic(), 0.001))
                piece = connection.recv(4096)

                if not piece:
                    break

                answer += piece
    except (OSError, ValueError):
        return None

    found = re.search(rb"^STAT item_size_max (\d{1,18})\r$", answer, re.MULTILINE)

    return int(found[1]) if found else None


def _connect(server: str) -> socket.socket:
    path = server.removeprefix("unix:")

    if path.startswith("/"):
        if not hasattr(socket, "AF_UNIX"):
            raise OSError("Windows has no sockets in files.")

        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(_PATIENCE)

        try:
            connection.connect(path)
        except OSError:
            connection.close()
            raise

        return connection

    host, _, port = server.rpartition(":")

    if not host:
        host, port = server, "11211"

    return socket.create_connection((host.strip("[]"), int(port)), _PATIENCE)


def check_replacement(**kwargs: Any) -> list[CheckMessage]:
    """Check that Djblets' caching isn't used beside ours: W004."""
    if any(_module_name(name).startswith("fastblets.") for name in MODULES):
        return []

    users = [f"the app {config.name}" for config in apps.get_app_configs() if f"{config.name}.".startswith("djblets.")]
    users += [f"the module {_module_name(name)}" for name in MODULES if _module_name(name)]

    if not users:
        return []

    return [
        Warning(
            f"Djblets is in use, and its caching is not replaced: {', '.join(sorted(users))}.",
            hint=_hint("W004", "Begin the settings module with `import fastblets` and `fastblets.replace_djblets()`."),
            id="fastblets.W004",
        )
    ]


def _module_name(name: str) -> str:
    """Return the name of the module that serves as Djblets' one, empty if none does yet."""
    return getattr(sys.modules.get(f"djblets.{name}"), "__name__", "")


def check_values(**kwargs: Any) -> list[CheckMessage]:
    """Check the values of settings that no call can do with if they are wrong: E003 to E007."""
    messages: list[CheckMessage] = []

    for check, read, effect in _READERS:
        try:
            read()
        except ImproperlyConfigured as e:
            hint = _hint(check, effect)
            messages.append(Error(str(e), hint=hint, id=f"fastblets.{check}"))

    return messages


def check_traceback_interval(**kwargs: Any) -> list[CheckMessage]:
    """Check that FASTBLETS_TRACEBACK_INTERVAL is a number: W012."""
    if is_interval(getattr(get_settings(), "FASTBLETS_TRACEBACK_INTERVAL", 0)):
        return []

    return [
        Warning(
            "FASTBLETS_TRACEBACK_INTERVAL is not a number of seconds: each error is logged with its traceback.",
            hint=_hint("W012", "Set it to the seconds between two tracebacks of the same error, 0 for all of them."),
            id="fastblets.W012",
        )
    ]


def check_seal(**kwargs: Any) -> list[CheckMessage]:
    """Check that what must have a seal can have one: W009."""
    if _seal_of_unencrypted() != "require":
        return []

    return [
        Warning(
            'FASTBLETS_SEAL is "require", but a small value that is not encrypted can\'t be sealed: each call for one '
            "raises ImproperlyConfigured.",
            hint=_hint("W009", "Set DJBLETS_CACHE_FORCE_ENCRYPTION = True."),
            id="fastblets.W009",
        )
    ]


def check_seal_of_deployment(**kwargs: Any) -> list[CheckMessage]:
    """Check that seals are made with a secret: W010."""
    if not _seal_of_unencrypted() or getattr(get_settings(), "FASTBLETS_SEAL_KEY", None) is not None:
        return []

    return [
        Warning(
            "FASTBLETS_SEAL is set, but FASTBLETS_SEAL_KEY isn't: the seals of what is not encrypted notice accidents "
            "only, since everybody can make them.",
            hint=_hint("W010", "Set FASTBLETS_SEAL_KEY to random bytes of its own."),
            id="fastblets.W010",
        )
    ]


def _seal_of_unencrypted() -> Seal:
    """Return how calls that say nothing seal what they don't encrypt."""
    if getattr(get_settings(), "DJBLETS_CACHE_FORCE_ENCRYPTION", None):
        return False

    try:
        return resolve_seal(get_settings())
    except ImproperlyConfigured:
        # E004 says it.
        return False


def check_settings(**kwargs: Any) -> list[CheckMessage]:
    """Check the names of settings: W005, W006."""
    messages: list[CheckMessage] = []

    for name in _set_by_project():
        if name in SETTINGS:
            continue

        similar = get_close_matches(name, SETTINGS, 1, _SIMILARITY)

        if name.startswith(PREFIXES):
            similar = similar or get_close_matches(name, SETTINGS, 1)
            known = f"Did you mean {similar[0]}?" if similar else f"There are {', '.join(SETTINGS)}."
            messages.append(Warning(f"There is no setting {name}.", hint=_hint("W005", known), id="fastblets.W005"))
        elif similar:
            messages.append(
                Warning(
                    f"Nothing here reads the setting {name}.",
                    hint=_hint("W006", f"Did you mean {similar[0]}?"),
                    id="fastblets.W006",
                )
            )

    return messages


def _set_by_project() -> Iterable[str]:
    # Django's defaults are nobody's mistakes.
    return sorted(name for name in dir(settings) if name.isupper() and settings.is_overridden(name))  # type: ignore[misc]


def _default_cache() -> BaseCache | None:
    # Django's own checks say what is to be said of a cache that can't be had.
    try:
        cache: BaseCache = unwrap(caches["default"])
    except (InvalidCacheBackendError, ImportError):
        return None

    return cache


def _hint(check: str, text: str) -> str:
    return f"{text} See {DOCUMENTATION}/operating.md#fastblets-{check.lower()}"
