"""Django's own answers without their cost: the settings, the default cache, the domain of the current Site.

Asking Django takes longer than all else that a hit on LocMem does. Each shortcut looks where Django's code would look,
and all three keep to one rule:

1. At import, the functions of Django that are not asked are known to be Django's own: :func:`_get_code`.
2. In each call, these functions are still in place. Their code is compared, since spies exchange only that. What has
   no code, such as a mock, is no function of Django's.
3. Otherwise Django is asked.
"""

from __future__ import annotations

import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING

import django.conf
from asgiref.local import Local
from django.conf import LazySettings, settings
from django.core.cache import DEFAULT_CACHE_ALIAS, caches
from django.utils import connection
from django.utils.functional import empty

from fastblets.cache.fork import drop_parents_clients, same_process

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, ModuleType
    from typing import Any, Final, TypeAlias

    from django.contrib.sites.models import Site
    from django.core.cache.backends.base import BaseCache

    #: The object that holds Django's caches, the function that returns its state, the state, the thread, and the cache.
    _Found: TypeAlias = tuple[object, Callable[[None], object], object, int, BaseCache]


def _get_code(module: ModuleType, function: Any) -> CodeType | None:
    """Return the code of a function of Django's, None if another module defines it."""
    code: CodeType | None = getattr(function, "__code__", None)

    return code if code is not None and code.co_filename == module.__file__ else None


# The settings. A setting that is missing, as most of ours mostly are, costs two `__getattr__()` and an exception.

_settings_code: Final = _get_code(django.conf, LazySettings.__getattr__)

#: The attributes of the lazy settings, read past their `__getattribute__()`, which is in Python. Under "_wrapped" are
#: the settings in force, which may be exchanged at any time.
_lazy: Final = object.__getattribute__(settings, "__dict__")


def get_settings() -> Any:
    """Return Django's settings as they are now, to be asked at once: ``getattr(get_settings(), name, default)``."""
    try:
        wrapped = _lazy["_wrapped"]

        # While another thread exchanges them there are none for a moment.
        if LazySettings.__getattr__.__code__ is _settings_code and wrapped is not empty:
            return wrapped
    except (AttributeError, KeyError):
        pass

    return settings


# The default cache. Django looks it up in an asgiref local, which takes half as long as LocMem's get().

#: Django's caches, including attributes that its type stubs don't declare.
_caches: Final[Any] = caches

_caches_code: Final = _get_code(connection, connection.BaseConnectionHandler.__getitem__)

#: The result of the last lookup in this context.
_found: Final[ContextVar[_Found | None]] = ContextVar("fastblets.cache.shortcuts", default=None)


def get_cache() -> BaseCache:
    """Return the current ``caches["default"]``, the cache that ``django.core.cache.cache`` forwards to.

    Django is asked only if something may have changed since it was asked last.
    """
    if not same_process[0]:
        drop_parents_clients()

    found = _found.get()

    if found is not None:
        connections, get_state, state, thread, cache = found

        try:
            if (
                _caches._connections is connections
                and get_state(None) is state
                # Looked up now, since gevent may have put its own in there after the import.
                and threading.get_ident() == thread
                and _caches.__class__.__getitem__.__code__ is _caches_code
            ):
                return cache
        except AttributeError:
            pass

    cache = caches[DEFAULT_CACHE_ALIAS]

    if _has_states and getattr(type(caches).__getitem__, "__code__", cache) is _caches_code:
        # Only now: the lookup itself may have created a connection.
        connections = _caches._connections
        get_state = _find_get_state(connections)
        state = get_state(None)
        _found.set(None if state is None else (connections, get_state, state, threading.get_ident(), cache))

    return cache


def get_named_cache(alias: str | None) -> BaseCache:
    """Return the current ``caches[alias]``, the default cache for None."""
    if alias is None or alias == DEFAULT_CACHE_ALIAS:
        return get_cache()

    if not same_process[0]:
        drop_parents_clients()

    return caches[alias]


def _find_get_state(connections: Any) -> Callable[[None], object]:
    try:
        get_state: Callable[[None], object] = connections._storage._data.get
    except AttributeError:
        return lambda _: None

    return get_state


def _find_out_whether_there_are_states() -> bool:
    # Django keeps its caches in an asgiref local. Since asgiref 3.9.1, each change replaces its state by
    # another object. asgiref doesn't promise that, so it is tried out.
    local = Local()
    get_state = _find_get_state(local)
    states = [get_state(None)]

    for value in (1, 2, 2):
        local.default = value
        states.append(get_state(None))

    del local.default
    states.append(get_state(None))

    return type(_caches._connections) is type(local) and len(set(map(id, states))) == len(states)


_has_states: bool = _find_out_whether_there_are_states()


# The domain. Django looks the current Site up in a dict, but finds the manager through several descriptors before.


#: The domains that Django's own lookup gave in this process, by SITE_ID. A project's own may depend on more than that.
_last_domains: Final[dict[object, str]] = {}


class SiteLookup:
    """The lookup of the current Site's domain."""

    __slots__ = ("_attributes", "_code", "_code_by_id", "_meta", "_module", "_objects", "_site")

    def __init__(self, module: Any) -> None:
        """Take the module with Django's model."""
        manager = module.SiteManager
        self._module = module
        self._site = site = module.Site
        self._meta = site._meta
        self._attributes = vars(site)
        self._objects = self._attributes.get("objects")
        self._code = _get_code(module, getattr(manager, "get_current", None))
        self._code_by_id = _get_code(module, getattr(manager, "_get_site_by_id", None))

    def get_domain(self, site_id: object) -> str:
        """Return the domain of the current Site, which is that with this ID unless the project overrides the lookup.

        Raises:
            Exception: ``Site.objects.get_current()`` raised it.
        """
        # `Site.objects` returns this manager, too: a new one each time that Django clears its caches of relations.
        if self._attributes.get("objects") is self._objects:
            manager = self._meta.managers_map["objects"]
        else:
            manager = self._site.objects

        try:
            is_djangos = (
                manager.get_current.__code__ is self._code and manager._get_site_by_id.__code__ is self._code_by_id
            )
        except AttributeError:
            is_djangos = False

        if not is_djangos:
            return manager.get_current().domain  # type: ignore[no-any-return]

        current: Site | None = self._module.SITE_CACHE.get(site_id) if site_id else None

        if current is None:
            current = manager.get_current()

        _last_domains[site_id] = domain = current.domain

        return domain

    def get_last_domain(self, site_id: object) -> str | None:
        """Return the domain that Django's own lookup gave last, None if it gave none yet."""
        return _last_domains.get(site_id)
