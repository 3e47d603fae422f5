"""What an exception in the middle of a cache call means, and how it is logged.

An ``except Exception`` around a cache call meets three kinds of exceptions. The time limit of a task is not an error of
the cache, and propagates. After an error that says that the cache can't be reached, the call doesn't ask it again. Any
other error concerns one key only.
"""

from __future__ import annotations

import logging
import time
from traceback import walk_tb
from typing import TYPE_CHECKING

from fastblets.cache.errors import UnreachableError
from fastblets.cache.shortcuts import get_settings

if TYPE_CHECKING:
    from typing import Any, Final


#: The exceptions by which task queues end a task that takes too long. A signal or another thread raises them, in the
#: middle of anything. Those of dramatiq, gevent, eventlet and asyncio are not listed: they don't derive from Exception.
_TIME_LIMITS: Final = frozenset(
    {
        "billiard.exceptions.SoftTimeLimitExceeded",
        "billiard.exceptions.Terminated",
        "billiard.exceptions.TimeLimitExceeded",
        "celery.exceptions.SoftTimeLimitExceeded",
        "huey.exceptions.TaskTimeout",
        "rq.exceptions.StopRequested",
        "rq.timeouts.BaseTimeoutException",
        "rq.timeouts.JobTimeoutException",
        "stopit.utils.TimeoutException",
        "timeout_decorator.timeout_decorator.TimeoutError",
    }
)

#: The exceptions by which clients of caches say that no server answers. An answer that is an error is not among them.
_UNREACHABLE: Final = frozenset(
    {
        "django.db.utils.InterfaceError",
        "django.db.utils.OperationalError",
        "pylibmc.ConnectionBindError",
        "pylibmc.ConnectionError",
        "pylibmc.HostLookupError",
        "pylibmc.NoServers",
        "pylibmc.ReadError",
        "pylibmc.ServerDead",
        "pylibmc.ServerDown",
        "pylibmc.SocketCreateError",
        "pylibmc.UnixSocketError",
        "pylibmc.UnknownReadFailure",
        "pylibmc.WriteError",
        "pymemcache.exceptions.MemcacheUnexpectedCloseError",
        "redis.exceptions.ClusterDownError",
        "redis.exceptions.ConnectionError",
        "redis.exceptions.RedisClusterException",
        "redis.exceptions.TimeoutError",
        "valkey.exceptions.ClusterDownError",
        "valkey.exceptions.ConnectionError",
        "valkey.exceptions.TimeoutError",
        "valkey.exceptions.ValkeyClusterException",
    }
)

#: The packages that raise OSErrors within a client's code.
_NETWORK: Final = frozenset({"eventlet", "gevent", "socket", "ssl"})

#: When an error was last logged with its traceback, by its class and the message around it.
_last_tracebacks: Final[dict[tuple[type[Exception], str], float]] = {}


def let_pass(error: Exception) -> None:
    """Raise an exception again if it is a task's time limit.

    Raises:
        Exception: The exception.
    """
    if not _TIME_LIMITS.isdisjoint(_names(error)):
        raise error


def is_unreachable(error: Exception) -> bool:
    """Return whether an error of a cache call means that the cache can't be reached.

    Args:
        error: The exception that the call raised, with its traceback.
    """
    if _UNREACHABLE.isdisjoint(_names(error)):
        return _is_unnamed(error)

    # Clients for Redis unpickle within the call, and an object that is unpickled may use a client itself.
    return all(frame.f_code.co_name != "loads" for frame, _ in walk_tb(error.__traceback__))


def as_cache_error(error: Exception) -> Exception:
    """Return the exception to raise for an error of a cache call: UnreachableError if it means that, else the error.

    Raises:
        Exception: The exception, if it is a task's time limit.
    """
    let_pass(error)

    return UnreachableError(str(error)) if is_unreachable(error) else error


def log_failure(logger: logging.Logger, error: Exception, message: str, *args: object) -> None:
    """Log an error of a cache call, with a traceback unless there are to be fewer.

    Args:
        logger: The caller's logger.
        error: The exception that is being handled.
        message: What failed.
        args: The arguments of the message.

    Raises:
        Exception: The exception, if it is a task's time limit.
    """
    let_pass(error)

    if is_unreachable(error):
        # Clients chain up to three exceptions that all say the same.
        error.__cause__ = error.__context__ = None

    logger.error(message, *args, exc_info=error if _is_traceback_due(error, message) else None, stacklevel=2)


def _names(error: Exception) -> list[str]:
    # By name, so that no package is imported that the project doesn't use.
    return [f"{kind.__module__}.{kind.__name__}" for kind in type(error).__mro__]


def _is_unnamed(error: Exception) -> bool:
    """Return whether a client says that no server answers by an exception that its class alone doesn't identify."""
    name = _names(error)[0]

    # For a timeout, libmemcached's 31, pylibmc has no class. pymemcache's base class stands for "All servers seem to be
    # down right now".
    if name in ("pylibmc.Error", "pymemcache.exceptions.MemcacheError"):
        return str(error).startswith(("error 31 ", "All servers"))

    if not isinstance(error, OSError):
        return False

    # pymemcache doesn't catch those of its socket. An object that is unpickled may raise one as well, but not in the
    # client's own code.
    modules = [str(frame.f_globals.get("__name__", "")) for frame, _ in walk_tb(error.__traceback__)]

    while modules and modules[-1].partition(".")[0] in _NETWORK:
        modules.pop()

    return bool(modules) and modules[-1].startswith("pymemcache.client.")


def is_interval(value: object) -> bool:
    """Return whether a value of FASTBLETS_TRACEBACK_INTERVAL is a number of seconds."""
    return isinstance(value, (int, float)) and value >= 0


def _is_traceback_due(error: Exception, message: str) -> bool:
    interval: Any = getattr(get_settings(), "FASTBLETS_TRACEBACK_INTERVAL", 0)

    # A wrong value is reported by a system check. An exception here would hide the error.
    if not is_interval(interval) or interval == 0:
        return True

    key = (type(error), message)
    now = time.monotonic()
    last = _last_tracebacks.get(key)

    if last is not None and 0 <= now - last < interval:
        return False

    _last_tracebacks[key] = now

    return True
