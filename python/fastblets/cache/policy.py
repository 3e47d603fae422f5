"""How fresh a value has to be: :class:`CachePolicy`. It asks no cache and reads no clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from threading import TIMEOUT_MAX
from typing import TYPE_CHECKING, Literal, TypeAlias

from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

if TYPE_CHECKING:
    from typing import Any, Final


#: A time: a number of seconds, or a ``timedelta``.
Seconds: TypeAlias = float | timedelta

#: What computes a stale value anew, given a function without arguments that does it.
Runner: TypeAlias = Callable[[Callable[[], None]], object]

_TIMES: Final = ("stale_while_revalidate", "stale_if_error", "retry_after", "wait", "lock_secs", "max_lock_secs")

#: The times for which something is in the place of a lock.
_LOCK_TIMES: Final = ("retry_after", "lock_secs", "max_lock_secs")


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePolicy:
    """What happens when an entry expires, when computing it fails, and when many callers want it at once.

    Times are seconds or a :class:`~datetime.timedelta`. Both stale windows count from the moment at which the entry
    expires. A call without ``lock=`` gets a lock of its own, under the key that ``lock=CacheLock()`` would have.

    The names of the windows are those of RFC 5861.

    Attributes:
        stale_while_revalidate: For how long after its expiration the old value is returned while one caller computes
            the new one.
        stale_if_error: For how long after its expiration the old value is returned if computing the new one fails.
        retry_after: After computing has failed, nobody tries again for this long, as long as there is an old value.
        early: How likely an entry is computed anew before it expires, so that no caller ever finds it expired. 1 is the
            usual value, 0 turns it off; larger values compute earlier. It never happens in the first half of an entry's
            life. This is the beta of "Optimal Probabilistic Cache Stampede Prevention" (Vattani et al., 2015).
        jitter: The largest share of the expiration that is taken off at random, from 0 to 0.5, so that entries that
            were stored together don't expire together.
        wait: The longest time to wait for another caller's computation. The value is computed after it. None: no bound.
        lock_secs: After how long without news of its owner a lock ends. It is renewed while its owner computes.
        max_lock_secs: After how long a lock is not renewed any more.
        share: Whether the threads or tasks of one process share one computation.
        fence: Whether a value is dropped whose computation began before a
            :func:`~fastblets.cache.values.cache_delete`. It is one more key to look up.
        refresh: ``"inline"``: the caller that finds a value stale computes it. Or a function that lets a job be run
            elsewhere, such as in a thread. It is given the job, which takes no arguments; the caller gets the old
            value. A job that is not run leaves the value as it is until the lock ends.

    Raises:
        TypeError: A field is of a wrong type.
        ValueError: A time is negative or infinite, a lock's is less than a second, ``max_lock_secs`` is less than
            ``lock_secs``, or ``early`` or ``jitter`` is out of range.
    """

    stale_while_revalidate: Seconds = 0
    stale_if_error: Seconds = 0
    retry_after: Seconds = 10
    early: float = 0
    jitter: float = 0
    wait: Seconds | None = 30
    lock_secs: Seconds = 30
    max_lock_secs: Seconds = 300
    share: bool = True
    fence: bool = True
    refresh: Literal["inline"] | Runner = "inline"

    def __post_init__(self) -> None:
        """Check the fields, and turn times into numbers."""
        for name in _TIMES:
            value = getattr(self, name)

            if name == "wait" and value is None:
                continue

            seconds = value.total_seconds() if isinstance(value, timedelta) else value
            _check_number(name, seconds, "a number of seconds or a timedelta")

            # Written so that NaN is rejected too.
            if not 0 <= seconds <= TIMEOUT_MAX:
                raise ValueError(f"{name} must be 0 or positive, and finite, not {value!r}.")

            if name in _LOCK_TIMES and seconds < 1 and (seconds or name != "retry_after"):
                raise ValueError(f"{name} must be at least a second, not {value!r}: most caches count whole seconds.")

            object.__setattr__(self, name, seconds)

        if as_seconds(self.max_lock_secs) < as_seconds(self.lock_secs):
            raise ValueError("max_lock_secs must not be less than lock_secs.")

        for name, most in (("early", None), ("jitter", 0.5)):
            value = getattr(self, name)
            _check_number(name, value, "a number")

            if not value >= 0 or (most is not None and value > most):
                raise ValueError(f"{name} must be {'0 or positive' if most is None else 'from 0 to 0.5'}, not {value}.")

        for name in ("share", "fence"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} must be True or False, not {getattr(self, name)!r}.")

        if self.refresh != "inline" and not callable(self.refresh):
            raise TypeError(f'refresh must be "inline" or a function that is given a job, not {self.refresh!r}.')

    @property
    def window(self) -> float:
        """For how many seconds an entry is kept after it has expired."""
        return max(as_seconds(self.stale_while_revalidate), as_seconds(self.stale_if_error))


def as_seconds(value: Seconds) -> float:
    """Return a time in seconds."""
    return value.total_seconds() if isinstance(value, timedelta) else value


#: The last value of the setting, and the policy that it stands for.
_resolved: tuple[object, CachePolicy | None] = (None, None)


def resolve_policy(settings: Any, policy: object) -> CachePolicy | None:
    """Return the policy of a call: what it gives, else ``FASTBLETS_POLICY``. None without either.

    Raises:
        ImproperlyConfigured: The setting is not a policy.
        TypeError: ``policy`` is of a wrong type.
    """
    global _resolved

    if policy is not None:
        if not isinstance(policy, CachePolicy):
            raise TypeError(f"policy must be a CachePolicy, not of type {type(policy).__name__}.")

        return policy

    setting = getattr(settings, "FASTBLETS_POLICY", None)

    if setting is None:
        return None

    if _resolved[0] is not setting:
        _resolved = (setting, _parse(setting))

    return _resolved[1]


def _parse(setting: object) -> CachePolicy:
    try:
        found = import_string(setting) if isinstance(setting, str) else setting

        if isinstance(found, Mapping):
            names = {field.name for field in fields(CachePolicy)}
            unknown = sorted(str(name) for name in found if name not in names)

            if unknown:
                raise TypeError(f"CachePolicy has no field {', '.join(unknown)}.")

            found = CachePolicy(**found)
    except (ImportError, TypeError, ValueError) as e:
        raise ImproperlyConfigured(f"FASTBLETS_POLICY can't be used: {e}") from e

    if not isinstance(found, CachePolicy):
        raise ImproperlyConfigured(
            "FASTBLETS_POLICY must be a CachePolicy, a dict of its fields, or the dotted path of one, not of type "
            f"{type(found).__name__}."
        )

    return found


def _check_number(name: str, value: object, kind: str) -> None:
    # True would pass for one second.
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be {kind}, not of type {type(value).__name__}.")
