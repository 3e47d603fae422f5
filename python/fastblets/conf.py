"""Reading Django's settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.conf import settings
from django.utils.functional import empty

if TYPE_CHECKING:
    from typing import Any, Final


#: All settings that are read.
SETTINGS: Final = (
    "CACHE_EXPIRATION_TIME",
    "DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY",
    "DJBLETS_CACHE_ENCRYPTION_KEY_FALLBACKS",
    "DJBLETS_CACHE_FORCE_ENCRYPTION",
    "FASTBLETS_PICKLE_CLASSES",
    "FASTBLETS_SEAL",
    "FASTBLETS_SEAL_KEY",
    "SITE_ROOT",
)

#: What settings begin with that can't be meant for anybody else.
PREFIXES: Final = ("DJBLETS_CACHE_", "FASTBLETS_")


def get_setting(name: str, default: Any = None) -> Any:
    """Return a setting as it is now, or a default.

    ``getattr(settings, name, default)`` does the same, but takes ten times as long where the setting is missing, which
    most of ours mostly are: it goes through two ``__getattr__`` and an exception.
    """
    # Past its own __getattribute__(), which is in Python.
    wrapped = object.__getattribute__(settings, "_wrapped")

    if wrapped is empty:
        return getattr(settings, name, default)

    return getattr(wrapped, name, default)
