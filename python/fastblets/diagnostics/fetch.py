"""Fetching what is stored, also where the cache's client can't unpickle it."""

from __future__ import annotations

import pickle
import zlib
from typing import TYPE_CHECKING

from fastblets.cache.options import UNSET
from fastblets.cache.storage import UNREADABLE

if TYPE_CHECKING:
    from typing import Any, Final

    from django.core.cache.backends.base import BaseCache


#: The exceptions that cache clients raise for data that they can't unpickle. Those for a server that is down are not
#: among them.
UNPICKLING_ERRORS: Final = (
    pickle.UnpicklingError,
    zlib.error,
    ArithmeticError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    TypeError,
    ValueError,
)


def fetch(cache: BaseCache, keys: list[str]) -> dict[str, Any]:
    """Return what is stored under the full keys, UNREADABLE where the client can't unpickle it.

    Raises:
        Exception: The cache failed.
    """
    try:
        return cache.get_many(keys)
    except UNPICKLING_ERRORS:
        # The error doesn't tell which of them it was.
        found = {key: _fetch_one(cache, key) for key in keys}

    return {key: stored for key, stored in found.items() if stored is not UNSET}


def get_chunk(stored: Any) -> bytes | None:
    """Return the chunk in what is stored under a chunk's key, None if there is none."""
    if isinstance(stored, (list, tuple)) and stored and isinstance(stored[0], bytes):
        return stored[0]

    return None


def _fetch_one(cache: BaseCache, key: str) -> Any:
    try:
        return cache.get(key, UNSET)
    except UNPICKLING_ERRORS:
        return UNREADABLE
