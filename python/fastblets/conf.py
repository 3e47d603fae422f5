"""Reading Django's settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.conf import settings
from django.utils.functional import empty

if TYPE_CHECKING:
    from typing import Any


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
