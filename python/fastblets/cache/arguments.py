"""Checks of arguments, and their error messages."""

from __future__ import annotations

from datetime import timedelta
from numbers import Number
from types import AsyncGeneratorType, CoroutineType
from typing import TYPE_CHECKING

from django.core.cache import InvalidCacheBackendError

from fastblets.cache.failures import let_pass
from fastblets.cache.shortcuts import get_named_cache

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final, TypeVar

    from django.core.cache.backends.base import BaseCache

    _T = TypeVar("_T")


_SECOND: Final = timedelta(seconds=1)

#: The types of the results of functions that are declared with ``async def``.
_ASYNCHRONOUS: Final = (CoroutineType, AsyncGeneratorType)


def check_seconds(name: str, value: object) -> None:
    """Check that an argument is a number of seconds.

    Args:
        name: The argument's name.
        value: Its value.

    Raises:
        TypeError: It is not a number.
    """
    if not isinstance(value, Number):
        raise TypeError(f"{name} must be a number of seconds, not of type {type(value).__name__}.")


def to_seconds(name: str, value: object) -> int | None:
    """Return an expiration as the caches take it: a number of seconds, None for ever.

    Args:
        name: What the expiration is called in an error.
        value: A number of seconds, a :class:`~datetime.timedelta`, which is rounded up to whole seconds, or None.

    Raises:
        TypeError: It is none of these.
    """
    if isinstance(value, timedelta):
        return -(-value // _SECOND)

    if value is not None and not isinstance(value, Number):
        raise TypeError(f"{name} must be a number of seconds, a timedelta or None, not of type {type(value).__name__}.")

    return value  # type: ignore[return-value]


def check_alias(alias: object) -> BaseCache | None:
    """Check that an argument is the alias of a cache.

    Returns:
        The cache, None if it can't be had: its error is raised again where the cache is used.

    Raises:
        InvalidCacheBackendError: CACHES has no such alias, or its backend can't be imported.
        TypeError: It is not of type ``str``.
        Exception: A task's time limit.
    """
    if not isinstance(alias, str):
        raise TypeError(f"cache must be an alias of CACHES, not of type {type(alias).__name__}.")

    try:
        return get_named_cache(alias)
    except InvalidCacheBackendError as e:
        raise InvalidCacheBackendError(f'cache must be an alias of CACHES, not "{alias}": {e}') from None
    except Exception as e:
        let_pass(e)

        return None


def check_lock(lock: object) -> None:
    """Check that an argument is a lock that could be acquired.

    Raises:
        TypeError: It is not a lock.
    """
    if isinstance(lock, type) or not hasattr(lock, "full_cache_key"):
        found = f"the class {lock.__name__}" if isinstance(lock, type) else f"of type {type(lock).__name__}"

        raise TypeError(f"lock must be an instance of CacheLock, such as CacheLock(), not {found}.")


def compute(lookup_callable: Callable[[], _T]) -> _T:
    """Call a ``lookup_callable`` and return its result.

    Raises:
        TypeError: It can't be called, or it is asynchronous.
        Exception: The function raised it.
    """
    if not callable(lookup_callable):
        refuse_async("lookup_callable", lookup_callable)

        raise TypeError(f"lookup_callable must be callable, not of type {type(lookup_callable).__name__}.")

    value = lookup_callable()

    if isinstance(value, _ASYNCHRONOUS):
        refuse_async("lookup_callable", value)

    return value


def refuse_async(name: str, value: object) -> None:
    """Refuse a coroutine or an asynchronous generator: they can neither be stored nor used twice.

    Args:
        name: The name of the argument that is asynchronous, or returned the value.
        value: The argument or the returned value.

    Raises:
        TypeError: It is a coroutine or an asynchronous generator.
    """
    if isinstance(value, _ASYNCHRONOUS):
        instead = "a function that computes the same without await"

        if isinstance(value, CoroutineType):
            # Otherwise Python warns that it was never awaited.
            value.close()
            instead = f"asgiref.sync.async_to_sync({value.__name__}), or {instead}"

        raise TypeError(
            f"{name} must be synchronous, but {value.__qualname__}() is declared with async def. Pass {instead}."
        )
