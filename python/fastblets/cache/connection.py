"""The default cache, as Django hands it out."""

from __future__ import annotations

import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, cast

from asgiref.local import Local
from django.core.cache import DEFAULT_CACHE_ALIAS, caches
from django.utils import connection as djangos

from fastblets.cache.fork import drop_parents_clients, same_process

if TYPE_CHECKING:
    from typing import Any, Final

    from django.core.cache.backends.base import BaseCache


#: Django's caches, with what its type stubs don't know of.
_caches: Final[Any] = caches

#: How Django looks a cache up. Somebody may put another way in its place.
_getitem: Final = djangos.BaseConnectionHandler.__getitem__

#: What was found last in this context: the state in which Django's caches were then, the thread, and the cache.
_found: Final[ContextVar[tuple[object, int, BaseCache] | None]] = ContextVar("fastblets.cache.connection", default=None)


def get_cache() -> BaseCache:
    """Return what ``caches["default"]`` is now, which is what ``django.core.cache.cache`` stands for.

    Django takes as long to find that as LocMem takes to find half a value. So it is asked only if anything may have
    changed since it was asked last.
    """
    if not same_process[0]:
        drop_parents_clients()

    found = _found.get()

    if (
        found is not None
        and found[0] is _get_state(_caches._connections)
        # Looked up now, since gevent may have put its own in there after the import.
        and found[1] == threading.get_ident()
        and type(caches).__getitem__ is _getitem
    ):
        return found[2]

    cache = caches[DEFAULT_CACHE_ALIAS]

    # To ask may have been a change.
    if _has_states and type(caches).__getitem__ is _getitem:
        state = _get_state(_caches._connections)
        _found.set(None if state is None else (state, threading.get_ident(), cache))

    return cache


class _Caches:
    def __getitem__(self, alias: str) -> BaseCache:
        return get_cache()


#: The same as ``django.core.cache.cache``, in each forked child too.
cache: Final[Any] = djangos.ConnectionProxy(cast("Any", _Caches()), DEFAULT_CACHE_ALIAS)


def _get_state(connections: Any) -> object:
    try:
        return connections._storage._data.get(None)
    except AttributeError:
        return None


def _find_out_whether_there_are_states() -> bool:
    # Django keeps its caches in one of asgiref's locals, of which each change leaves another object behind: since
    # asgiref 3.9.1. That is asgiref's own affair, so it is tried out.
    local = Local()
    states = [_get_state(local)]

    for value in (1, 2, 2):
        local.default = value
        states.append(_get_state(local))

    del local.default
    states.append(_get_state(local))

    try:
        is_djangos = _getitem.__code__.co_filename == djangos.__file__
    except AttributeError:
        # No function at all.
        is_djangos = False

    return is_djangos and type(_caches._connections) is type(local) and len(set(map(id, states))) == len(states)


_has_states: bool = _find_out_whether_there_are_states()
