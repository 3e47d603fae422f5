"""Reading Django's settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.conf import settings
from django.utils.functional import empty

if TYPE_CHECKING:
    from typing import Any, Final


#: What the lazy settings keep: under "_wrapped" the real ones, which may be exchanged at any time. Looked at past their
#: own ``__getattribute__()``, which is in Python.
_lazy: Final = object.__getattribute__(settings, "__dict__")


def get_setting(name: str, default: Any = None) -> Any:
    """Return a setting as it is now, or a default.

    ``getattr(settings, name, default)`` does the same, but takes far longer where the setting is missing, which most of
    ours mostly are: it goes through two ``__getattr__`` and an exception.
    """
    wrapped = _lazy["_wrapped"]

    return getattr(settings if wrapped is empty else wrapped, name, default)
