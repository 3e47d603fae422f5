"""When entries expire, as far as the cache's backend can tell."""

from __future__ import annotations

import pickle
import time
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from math import inf
from typing import TYPE_CHECKING

from django.core.cache.backends.db import DatabaseCache
from django.core.cache.backends.filebased import FileBasedCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.cache.backends.redis import RedisCache
from django.db import connections, models, router
from django.utils.timezone import now

from fastblets.cache.kinds import unwrap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, Final


def get_expiry(cache: Any, full_keys: Iterable[str]) -> str | None:
    """Return when the first of some keys expires: a time of UTC in ISO 8601, or ``never``.

    None where the backend can't tell, as memcached, or doesn't want to. Keys that are not there don't count.

    Args:
        cache: The cache.
        full_keys: The full keys.
    """
    try:
        backend = unwrap(cache)
        ask = next((ask for kind, ask in _KINDS if isinstance(backend, kind)), _ask_for_ttl)
        left = [seconds for seconds in (ask(backend, key) for key in full_keys) if seconds is not None]

        if not left:
            return None

        first = min(left)

        return "never" if first == inf else (datetime.now(timezone.utc) + timedelta(seconds=first)).isoformat()
    except Exception:
        # The expiry is a hint, not worth an error, and it is read from private attributes, which may change.
        return None


def _ask_locmem(backend: Any, full_key: str) -> float | None:
    return _left(backend._expire_info.get(backend.make_key(full_key), -inf))


def _ask_files(backend: Any, full_key: str) -> float | None:
    with suppress(FileNotFoundError), open(backend._key_to_file(full_key), "rb") as file:
        # Django does the same to find out whether the file has expired. The value follows.
        return _left(pickle.load(file))

    return None


def _ask_database(backend: Any, full_key: str) -> float | None:
    connection = connections[router.db_for_read(backend.cache_model_class)]
    table = connection.ops.quote_name(backend._table)

    with connection.cursor() as cursor:
        cursor.execute(f"SELECT expires FROM {table} WHERE cache_key = %s", [backend.make_key(full_key)])
        row = cursor.fetchone()

    if row is None:
        return None

    # Databases have dates of types of their own.
    field = models.Expression(output_field=models.DateTimeField())
    expires = row[0]

    for converter in (*connection.ops.get_db_converters(field), *field.get_db_converters(connection)):
        expires = converter(expires, field, connection)

    return inf if expires.year == datetime.max.year else (expires - now()).total_seconds()


def _ask_redis(backend: Any, full_key: str) -> float | None:
    key = backend.make_key(full_key)
    milliseconds: int = backend._cache.get_client(key).pttl(key)

    # -2 is for a key that isn't there.
    return inf if milliseconds == -1 else milliseconds / 1000 if milliseconds >= 0 else None


def _ask_for_ttl(backend: Any, full_key: str) -> float | None:
    # django-redis: None for a key that never expires, 0 for one that is not there.
    seconds: float | None = backend.ttl(full_key)

    return inf if seconds is None else seconds or None


def _left(expires: float | None) -> float | None:
    return inf if expires is None else expires - time.time() if expires > 0 else None


_KINDS: Final[tuple[tuple[type, Callable[[Any, str], float | None]], ...]] = (
    (LocMemCache, _ask_locmem),
    (FileBasedCache, _ask_files),
    (DatabaseCache, _ask_database),
    (RedisCache, _ask_redis),
)
