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
    "FASTBLETS_TRACEBACK_INTERVAL",
    "SITE_ROOT",
)

#: What settings begin with that can't be meant for anybody else.
PREFIXES: Final = ("DJBLETS_CACHE_", "FASTBLETS_")

#: Where the pages of ``docs`` can be read without a copy of the repository.
DOCUMENTATION: Final = "https://github.com/fastblets/fastblets/tree/main/docs"

#: What the lazy settings keep: under "_wrapped" the real ones, which may be exchanged at any time. Looked at past their
#: own ``__getattribute__()``, which is in Python.
_lazy: Final = object.__getattribute__(settings, "__dict__")


def get_settings() -> Any:
    """Return Django's settings as they are now, to be asked at once: ``getattr(get_settings(), name, default)``.

    ``django.conf.settings`` gives the same answers, but takes far longer where a setting is missing, which most of ours
    mostly are: it goes through two ``__getattr__`` and an exception.
    """
    # While another thread exchanges them there are none for a moment.
    wrapped = _lazy.get("_wrapped", empty)

    return settings if wrapped is empty else wrapped
