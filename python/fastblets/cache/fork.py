"""Forked processes: a child gets cache clients of its own, and leaves those of its parent alone.

Two processes on one connection read each other's answers. Neither Django nor the clients for memcached notice that a
process was forked, so it is done here, for all of Django's caches.
"""

from __future__ import annotations

import atexit
import mmap
import os
import sys
import time
from contextlib import suppress
from contextvars import copy_context
from threading import local
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from asgiref.local import Local
from django.conf import settings
from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.memcached import BaseMemcachedCache

from fastblets import _native

if TYPE_CHECKING:
    from types import FrameType
    from typing import Any, Final


#: How many seconds a fork waits for threads that are inside a LocMem cache. They are for microseconds; only if the
#: forking thread is inside itself would the wait never end. It takes longer where a thread gets no processor.
LOCMEM_TIMEOUT: Final = 1.0

#: For `madvise()`, since Linux 4.14: a forked child gets the page filled with zeros. Python has no name for it.
_MADV_WIPEONFORK: Final = 18

#: Django's caches, including attributes that its type stubs don't declare.
_caches: Final[Any] = caches

#: The caches that Django made from CACHES, in all threads, by their ids.
_made: Final[WeakValueDictionary[int, BaseCache]] = WeakValueDictionary()


class _Pid:
    """The same as a page that is wiped, where the system can't do that."""

    def __init__(self) -> None:
        self._pid = os.getpid()

    def __getitem__(self, index: int) -> bool:
        return os.getpid() == self._pid

    def __setitem__(self, index: int, value: int) -> None:
        self._pid = os.getpid()


class _Fork:
    """A fork that is about to happen."""

    def __init__(self) -> None:
        #: The caches that a project put in the place of Django's, by their aliases.
        self.set_by_hand = _get_set_by_hand()

        #: References that keep the parent's clients alive. Before any hook runs in the child, CPython clears the
        #: contexts of other threads. A client of pylibmc that is destroyed then ends the parent's connection.
        self.clients = [*self.set_by_hand.values(), *_get_clients()]

        #: The names of the LocMem caches that the child unlocks: all but those that this thread unlocks itself.
        self.locmem = _wait_for_locmem()


class _Forks(local):
    """The forks that this thread is about to make: a signal handler may fork while another fork begins."""

    def __init__(self) -> None:
        self.begun: list[_Fork] = []


_forks: Final = _Forks()


def drop_parents_clients() -> None:
    """Let Django make new caches if this process was forked without Python's hooks.

    To be called where ``same_process[0]`` is false. ``os.fork()`` and :mod:`multiprocessing` run the hooks, and so
    should C code that forks; uWSGI doesn't by default.
    """
    if not same_process[0]:
        _start_anew(_get_clients(), {})


def _before() -> None:
    _forks.begun.append(_Fork())


def _after_in_parent() -> None:
    if _forks.begun:
        _forks.begun.pop()


def _after_in_child() -> None:
    if not _forks.begun:
        # C code may run this hook alone.
        drop_parents_clients()
        return

    fork = _forks.begun.pop()
    _unlock_locmem(fork.locmem)
    _start_anew(fork.clients, fork.set_by_hand)


def _start_anew(clients: list[object], set_by_hand: dict[str, BaseCache]) -> None:
    memcached = [vars(cache) for cache in clients if isinstance(cache, BaseMemcachedCache)]
    # Not destroyed even when the interpreter ends.
    _native.keep_forever([clients, [attributes.get("_cache") for attributes in memcached]])

    # For code that has kept such a cache itself: it makes another client then.
    for attributes in memcached:
        attributes.pop("_cache", None)

    # For all contexts of this process. Django's own may be locked by a thread that doesn't exist here.
    _caches._connections = connections = Local(_caches.thread_critical)

    for alias, cache in set_by_hand.items():
        setattr(connections, alias, cache)

    # Last: a thread that looks before comes here, too.
    same_process[0] = 1


def _create_connection(alias: str) -> BaseCache:
    cache: BaseCache = type(_caches).create_connection(_caches, alias)

    # Raised by a cache of a class with slots.
    with suppress(TypeError):
        _made[id(cache)] = cache

    return cache


def _get_clients() -> list[object]:
    """Return references that keep all known clients of this process alive. Waits for no lock."""
    return [*(reference() for reference in _made.valuerefs()), _caches._connections, copy_context()]


def _get_set_by_hand() -> dict[str, BaseCache]:
    found: dict[str, BaseCache] = {}

    # A project may have put anything in the place of Django's caches. It must not break a fork.
    with suppress(Exception):
        if settings.configured:
            for alias in _caches:
                cache = getattr(_caches._connections, alias, None)

                if cache is not None and _made.get(id(cache)) is not cache:
                    found[alias] = cache

    return found


def _wait_for_locmem() -> list[str]:
    names: list[str] = []
    locmem: Any = sys.modules.get("django.core.cache.backends.locmem")

    if locmem is not None:
        end = time.monotonic() + LOCMEM_TIMEOUT

        for name, lock in list(locmem._locks.items()):
            if lock.acquire(timeout=max(0, end - time.monotonic())):
                # Not held during the fork: hooks of the project may use the cache.
                lock.release()
                names.append(name)
            elif not _is_inside(lock):
                names.append(name)

    return names


def _is_inside(lock: object) -> bool:
    """Return whether this thread is inside the LocMem cache with that lock, of which it may be the holder."""
    frame: FrameType | None = sys._getframe()

    while frame is not None:
        this = frame.f_locals.get("self")

        # isinstance() would ask a lazy object of the project's for its class.
        if issubclass(type(this), BaseCache) and vars(this).get("_lock") is lock:
            return True

        frame = frame.f_back

    return False


def _unlock_locmem(names: list[str]) -> None:
    """Unlock the caches that another thread of the parent has locked: it doesn't exist here."""
    locmem: Any = sys.modules.get("django.core.cache.backends.locmem")

    for name in names:
        lock = locmem._locks[name]

        if lock.locked():
            # It may have been half changed.
            locmem._caches[name].clear()
            locmem._expire_info[name].clear()
            lock.release()


def _mark_process() -> Any:
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        page.madvise(_MADV_WIPEONFORK)
    except (AttributeError, OSError, ValueError):
        return _Pid()

    page[0] = 1

    return page


#: True at index 0, but false in a child that was forked without Python's hooks. Looking there takes a tenth of the time
#: of ``os.getpid()``, which every hit would pay for.
same_process: Any = [1]

if hasattr(os, "register_at_fork"):
    same_process = _mark_process()
    _caches.create_connection = _create_connection
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
    # A child that never asked for a cache would destroy the parent's clients when it ends.
    atexit.register(drop_parents_clients)
