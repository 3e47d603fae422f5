"""Which classes, functions and instances a pickle from the cache may name."""

from __future__ import annotations

import copyreg
import io
import pickle
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from enum import Enum
from fnmatch import fnmatchcase
from functools import lru_cache
from types import BuiltinFunctionType, FunctionType
from typing import TYPE_CHECKING

from django.core.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ClassVar, Final


def _encode(text: str, encoding: str) -> bytes:
    # In protocol 0 bytes are a call of codecs.encode(), which knows many more encodings, and finds them by importing.
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"{encoding!r} is no encoding in which bytes are pickled")

    return text.encode("latin-1")


#: The functions and classes that pickles of plain types call, and those of allowed classes, which may be subclasses of
#: plain types. Calling them creates such an object and has no other effect.
_ALWAYS_ALLOWED: Final[dict[tuple[str, str], Any]] = {
    ("_codecs", "encode"): _encode,
    **{
        ("builtins", plain.__name__): plain
        for plain in (bool, bytearray, bytes, complex, dict, float, frozenset, int, list, object, set, str, tuple)
    },
    ("copyreg", "__newobj__"): copyreg.__newobj__,  # type: ignore[attr-defined]
    ("copyreg", "__newobj_ex__"): copyreg.__newobj_ex__,  # type: ignore[attr-defined]
    ("copyreg", "_reconstructor"): copyreg._reconstructor,  # type: ignore[attr-defined]
}

#: The first protocol with names of attributes of classes: ``Outer.Inner``.
_FIRST_WITH_DOTS: Final = 4

#: The types of objects that exist without the pickle, and that it must not change.
_SHARED: Final = (type, FunctionType, BuiltinFunctionType, Enum)


def get_loads(settings: Any) -> Callable[[bytes], Any] | None:
    """Return the function that unpickles, None for ``pickle.loads``.

    That is so unless ``FASTBLETS_PICKLE_CLASSES`` is set: a list of patterns for the classes that stored pickles may
    name, as ``"module.Class"``, in which ``*`` stands for anything. A function has to be spelled out.

    Raises:
        ImproperlyConfigured: The setting is not a list of strings.
    """
    patterns: object = getattr(settings, "FASTBLETS_PICKLE_CLASSES", None)

    if patterns is None:
        return None

    if not isinstance(patterns, (list, tuple)) or not all(isinstance(pattern, str) for pattern in patterns):
        raise ImproperlyConfigured(
            'FASTBLETS_PICKLE_CLASSES must be a list of patterns such as "reports.models.*", or None to allow all.'
        )

    allowed = tuple(patterns)

    return lambda data: _Unpickler(data, allowed).load()


# The unpickler in C looks up classes of registered extensions itself, and its handling of BUILD can't be overridden.
class _Unpickler(pickle._Unpickler):
    """Unpickles only objects of plain types and allowed classes."""

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {**pickle._Unpickler.dispatch}
    proto: int
    stack: list[Any]

    def __init__(self, data: bytes, patterns: tuple[str, ...]) -> None:
        super().__init__(io.BytesIO(data))
        self._patterns = patterns
        # The instances that the pickle names, and hasn't made.
        self._named: list[Any] = []

    def find_class(self, module: str, name: str) -> Any:
        """Return the class, function or instance, which gets imported only if it is allowed.

        Raises:
            pickle.UnpicklingError: It is not.
        """
        home = (module, name)

        # Protocols 0 to 2 go by the names of Python 2.
        if self.proto < 3:
            home = NAME_MAPPING.get(home, (IMPORT_MAPPING.get(module, module), name))

        if home in _ALWAYS_ALLOWED:
            return _ALWAYS_ALLOWED[home]

        full_name = ".".join(home)

        if _is_allowed(full_name, self._patterns):
            found = self._find(module, name, home)

            if isinstance(found, type):
                return found

            # An object that the pickle could call or change needs its exact name in the list.
            if found is not None and (full_name in self._patterns or _is_inert(found)):
                self._named.append(found)

                return found

        raise pickle.UnpicklingError(f"{full_name} is not allowed by FASTBLETS_PICKLE_CLASSES")

    def _find(self, module: str, name: str, home: tuple[str, str]) -> Any:
        """Return the object that is defined there, None if the name leads to an object that is defined elsewhere.

        Otherwise a name could lead from an allowed module into any module that it has imported. Pickles name each
        object by the module that defines it.
        """
        outer, _, _ = name.rpartition(".")

        if outer and self.proto < _FIRST_WITH_DOTS:
            return None

        # An object with a dotted name is an attribute of a class.
        if outer and not isinstance(self._find(module, outer, (home[0], outer)), type):
            return None

        found = super().find_class(module, name)

        if isinstance(found, type) or hasattr(found, "__qualname__"):
            own_home = getattr(found, "__module__", None), getattr(found, "__qualname__", None)
        elif type(found).__module__ == home[0]:
            # An instance, which has a name if it says so itself.
            own_home = home[0], found.__reduce_ex__(self.proto)
        else:
            return None

        return found if own_home == home else None

    def get_extension(self, code: int) -> None:
        """Refuse a registered extension: pickle caches its object for all pickles, allowed or not.

        Raises:
            pickle.UnpicklingError: Always.
        """
        raise pickle.UnpicklingError("codes of registered extensions are not allowed by FASTBLETS_PICKLE_CLASSES")

    def load_build(self) -> None:
        """Give an instance its state, if it is one that the pickle has made.

        Else a pickle could give an allowed class other attributes, or a member of an enumeration another value.

        Raises:
            pickle.UnpicklingError: It is not.
        """
        instance = self.stack[-2]

        if isinstance(instance, _SHARED) or any(instance is named for named in self._named):
            raise pickle.UnpicklingError(f"{instance!r} is not the pickle's own, so that it can't get a state")

        super().load_build()  # type: ignore[misc]

    dispatch[pickle.BUILD[0]] = load_build


def _is_inert(found: object) -> bool:
    """Return whether no opcode calls a method of it, other than BUILD, which is refused."""
    return not callable(found) and not any(hasattr(found, name) for name in ("__setitem__", "append", "extend", "add"))


@lru_cache(maxsize=1024)
def _is_allowed(full_name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(full_name, pattern) for pattern in patterns)
