"""Putting fastblets' modules in the place of Djblets'."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from types import FunctionType, ModuleType

#: The modules that are replaced, by their names below ``djblets`` and below ``fastblets``.
MODULES = (
    "cache.backend",
    "cache.errors",
    "cache.synchronizer",
    "protect.locks",
    "secrets.crypto",
)

#: The versions of Djblets that are known: from the first, up to but without the second.
KNOWN_VERSIONS = ((5, 2), (8, 0))


def replace() -> None:
    """Replace Djblets' modules, as :func:`fastblets.replace_djblets` describes it."""
    _check_version()
    replaced: dict[int, object] = {}

    for name in MODULES:
        djblets_name = f"djblets.{name}"

        if _exists(djblets_name):
            old = sys.modules.get(djblets_name)
            new = import_module(f"fastblets.{name}")

            if old is not None and old is not new:
                replaced.update(_pair(old, new))

            sys.modules[djblets_name] = new
            package, _, attribute = djblets_name.rpartition(".")
            setattr(import_module(package), attribute, new)

    if replaced:
        _rebind(replaced)


def _check_version() -> None:
    try:
        import djblets
    except ImportError as e:
        raise ImportError(
            "fastblets.replace_djblets() needs Djblets, which is not installed. Without Djblets, import from "
            '"fastblets" what you would import from "djblets".'
        ) from e

    first, end = KNOWN_VERSIONS

    if not first <= djblets.VERSION[:2] < end:
        raise ImportError(
            f"fastblets.replace_djblets() knows Djblets {first[0]}.{first[1]} to {end[0] - 1}.x, but "
            f'{djblets.__version__} is installed. Look for a newer fastblets, or import from "fastblets" by name.'
        )


def _exists(name: str) -> bool:
    try:
        return name in sys.modules or find_spec(name) is not None
    except ModuleNotFoundError:
        # Its package doesn't exist either.
        return False


def _pair(old: ModuleType, new: ModuleType) -> dict[int, object]:
    """Return the replacement of the old module and of each of its objects, by their ids."""
    pairs: dict[int, object] = {id(old): new}

    for name, value in vars(old).items():
        if isinstance(value, (FunctionType, type)) and value.__module__ == old.__name__ and hasattr(new, name):
            pairs[id(value)] = getattr(new, name)

    return pairs


def _rebind(replaced: dict[int, object]) -> None:
    for module in list(sys.modules.values()):
        # Not vars(): a lazy module would be loaded, and not everything in there is a module.
        names = getattr(module, "__dict__", None)

        if not isinstance(module, ModuleType) or not isinstance(names, dict):
            continue

        for name, value in list(names.items()):
            if isinstance(value, (FunctionType, type, ModuleType)) and id(value) in replaced:
                names[name] = replaced[id(value)]
