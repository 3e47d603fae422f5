"""Every type of this Python, taken apart by both readers. Run as a program of its own, since a wrong one of them dies.

usage: python -m tests.types_of_python
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.machinery
import importlib.util
import io
import pickle
import sys
import types
import warnings
from collections.abc import Iterator
from typing import Any

from fastblets import _native

#: What a pickle finds the types in, whether or not their own module has them.
FOUND = types.ModuleType("types_of_python_found")


def import_extension_modules() -> list[str]:
    """Imports the extension modules of the standard library, as far as they are here."""
    imported = []
    for name in sorted(sys.stdlib_module_names):
        with contextlib.suppress(ImportError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            spec = importlib.util.find_spec(name)
            if spec is not None and (
                spec.loader is importlib.machinery.BuiltinImporter
                or isinstance(spec.loader, importlib.machinery.ExtensionFileLoader)
            ):
                importlib.import_module(name)
                imported.append(name)
    return imported


def all_types() -> Iterator[type]:
    """Every type below `object`, those included that no module names, but not those that were written in Python."""
    seen: set[type] = set()
    todo: list[type] = [object]
    while todo:
        cls = todo.pop()
        if cls in seen:
            continue
        seen.add(cls)
        todo += type.__subclasses__(cls)
        if not any(isinstance(value, types.FunctionType) for value in vars(cls).values()):
            yield cls


def subclasses(cls: type) -> Iterator[type]:
    """Classes made below the type, as far as it lets them be made."""
    for bases in [(cls,), (FoundBase, cls)]:
        with contextlib.suppress(Exception):
            made = type("Made", bases, {"__module__": FOUND.__name__})
            yield made
            yield type("Made", (made,), {"__module__": FOUND.__name__})


class FoundBase:
    pass


RECONSTRUCTOR = b"ccopy_reg\n_reconstructor\n("
OBJECT = b"c__builtin__\nobject\n"


def pickles(name: str) -> Iterator[bytes]:
    """Pickles of an instance: as protocol 0 writes it, and as nobody would."""
    cls = f"c{FOUND.__name__}\n{name}\n".encode()
    plain = RECONSTRUCTOR + cls + OBJECT + b"NtR"
    yield plain + b"."
    yield plain + b"(dVa\nI1\nsb."
    yield plain + b"0N."
    yield b"(l" + plain + b"a" + plain + b"a."
    yield RECONSTRUCTOR + cls + OBJECT + b"V\ntR."
    yield RECONSTRUCTOR + cls + f"c{__name__}\nFoundBase\n".encode() + b"NtR."
    yield b"ccopyreg\n__newobj__\n(" + cls + b"tR."
    yield b"\x80\x02" + cls + b")\x81."


def described(value: Any) -> Any:
    """What can be said of an object that nobody has initialized, without using it."""
    if type(value) is list:
        return [described(item) for item in value]
    try:
        attributes = object.__getattribute__(value, "__dict__")
    except Exception:
        attributes = None
    return type(value), sorted(map(repr, attributes)) if type(attributes) is dict else None


def outcome(read: Any, data: bytes) -> Any:
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return described(read(data))
        except BaseException as error:
            return type(error)


def check(number: int, cls: type) -> None:
    name = f"Type{number}"
    setattr(FOUND, name, cls)
    for data in pickles(name):
        expected = outcome(pickle.loads, data)
        for read in (lambda data: (_native.pickle_loads(data) or (pickle.loads(data),))[0], read_stream):
            found = outcome(read, data)
            assert found == expected, (cls, data, found, expected)


def read_stream(data: bytes) -> Any:
    (item,) = _native.read_items([data], False, None)
    return item


def main() -> None:
    sys.modules[FOUND.__name__] = FOUND
    imported = import_extension_modules()
    found = list(all_types())
    number = 0
    for cls in found:
        for one in (cls, *subclasses(cls)):
            number += 1
            print(number, one, file=sys.stderr, flush=True)
            check(number, one)
    print(f"{len(imported)} modules, {len(found)} types, {number} with those below them")


if __name__ == "__main__":
    main()
