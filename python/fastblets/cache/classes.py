"""Which classes and functions a pickle from the cache may name."""

from __future__ import annotations

import io
import pickle
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from django.core.exceptions import ImproperlyConfigured

from fastblets.conf import get_setting

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Final


#: What pickle makes plain types of (``set``, ``bytes``, ...), and instances of allowed classes. Calling any of them
#: does nothing but that.
_ALWAYS_ALLOWED: Final = frozenset(
    {
        ("_codecs", "encode"),
        ("builtins", "bytearray"),
        ("builtins", "bytes"),
        ("builtins", "complex"),
        ("builtins", "frozenset"),
        ("builtins", "object"),
        ("builtins", "set"),
        ("copyreg", "__newobj__"),
        ("copyreg", "__newobj_ex__"),
        ("copyreg", "_reconstructor"),
    }
)


def get_loads() -> Callable[[bytes], Any] | None:
    """Return what unpickles in place of ``pickle.loads``, None if that does.

    That is so unless ``FASTBLETS_PICKLE_CLASSES`` is set: a list of patterns for what stored pickles may name, as
    ``"module.Class"``, in which ``*`` stands for anything.

    Raises:
        ImproperlyConfigured: The setting is no list of strings.
    """
    patterns: object = get_setting("FASTBLETS_PICKLE_CLASSES")

    if patterns is None:
        return None

    if not isinstance(patterns, (list, tuple)) or not all(isinstance(pattern, str) for pattern in patterns):
        raise ImproperlyConfigured(
            'FASTBLETS_PICKLE_CLASSES must be a list of patterns such as "reports.models.*", or None to allow all.'
        )

    allowed: Sequence[str] = patterns

    return lambda data: _Unpickler(data, allowed).load()


class _Unpickler(pickle.Unpickler):
    """Unpickles what is made of plain types and allowed classes alone."""

    def __init__(self, data: bytes, patterns: Sequence[str]) -> None:
        super().__init__(io.BytesIO(data))
        self._patterns = patterns

    def find_class(self, module: str, name: str) -> Any:
        """Return the class or function, which gets imported only if it is allowed.

        Raises:
            pickle.UnpicklingError: It is not.
        """
        # Protocols 0 to 2 go by the names of Python 2.
        home = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))

        if home in _ALWAYS_ALLOWED:
            return super().find_class(module, name)

        full_name = ".".join(home)

        # A dotted name would lead from an allowed module on into any that it has imported.
        if "." not in name and any(fnmatchcase(full_name, pattern) for pattern in self._patterns):
            found = super().find_class(module, name)

            # And so would the name of something that is at home elsewhere. Pickles name everything by its home.
            if (getattr(found, "__module__", None), getattr(found, "__qualname__", None)) == home:
                return found

        raise pickle.UnpicklingError(f"{full_name} is not allowed by FASTBLETS_PICKLE_CLASSES")
