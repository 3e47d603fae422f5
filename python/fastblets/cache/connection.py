"""The default cache, as Django hands it out."""

from __future__ import annotations

from contextvars import ContextVar
from threading import get_ident
from typing import TYPE_CHECKING

from asgiref.local import Local
from django.core.cache import DEFAULT_CACHE_ALIAS, caches

if TYPE_CHECKING:
    from typing import Any, Final

    from django.core.cache.backends.base import BaseCache


#: Django's caches, with what its type stubs don't know of.
_caches: Final[Any] = caches

#: What was found last in this context: the state in which Django's caches were then, the thread, and the cache.
_found: Final[ContextVar[tuple[object, int, BaseCache]]] = ContextVar("fastblets.cache.connection")


def get_cache() -> BaseCache:
    """Return what ``caches["default"]`` is now, which is what ``django.core.cache.cache`` stands for.

    Django takes as long to find that as LocMem takes to find half a value. So it is asked only if anything may have
    changed since it was asked last.
    """
    if _has_states:
        state = _get_state(_caches._connections)
        found = _found.get(None)

        if found is not None and found[0] is state and found[1] == get_ident():
            return found[2]

    cache = caches[DEFAULT_CACHE_ALIAS]

    # To ask may have been a change.
    if _has_states and (state := _get_state(_caches._connections)) is not None:
        _found.set((state, get_ident(), cache))

    return cache


def _get_state(connections: Any) -> object:
    return connections._storage._data.get(None)


def _find_out_whether_there_are_states() -> bool:
    # Django keeps its caches in one of asgiref's locals, of which each change leaves another object behind: since
    # asgiref 3.9. That is asgiref's own affair, so it is tried out.
    local = Local()

    try:
        states = [_get_state(local)]

        for value in (1, 2, 2):
            local.default = value
            states.append(_get_state(local))

        del local.default
        states.append(_get_state(local))

        return type(_caches._connections) is type(local) and len(set(map(id, states))) == len(states)
    except AttributeError:
        return False


_has_states: bool = _find_out_whether_there_are_states()
