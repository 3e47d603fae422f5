"""The options of one call, resolved once from its arguments and the settings."""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Sequence
from datetime import timedelta
from enum import Enum
from numbers import Number
from typing import TYPE_CHECKING

from django.core.exceptions import ImproperlyConfigured

from fastblets.cache.arguments import check_alias, to_seconds
from fastblets.cache.classes import get_loads
from fastblets.cache.failures import let_pass
from fastblets.cache.keys import get_encryption_key_fallbacks, get_key_prefix, resolve_encryption_key
from fastblets.cache.kinds import get_max_key_bytes
from fastblets.cache.policy import resolve_policy
from fastblets.cache.seals import resolve_seal
from fastblets.cache.shortcuts import get_cache, get_named_cache, get_settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final, TypeAlias, TypeGuard

    from django.core.cache.backends.base import BaseCache

    from fastblets.cache.policy import CachePolicy
    from fastblets.cache.seals import Seal


#: For how long, in seconds, entries are kept by default: 30 days. The setting ``CACHE_EXPIRATION_TIME`` changes it.
DEFAULT_EXPIRATION_TIME: Final = 60 * 60 * 24 * 30


class Unset(Enum):
    """The type of the sentinel for an argument that was not given or an entry that was not found; None is a value."""

    UNSET = "UNSET"


UNSET: Final = Unset.UNSET


#: For how long an entry is kept: a number of seconds, a ``timedelta``, or None for ever.
Expiration: TypeAlias = int | timedelta | None


#: What entries can be invalidated by: a name, given as a cache key is.
Tag: TypeAlias = str | Sequence[str]


def _never_keep(_: object) -> int:
    return 0


class Options:
    """How the entry of one call is stored.

    Attributes:
        alias: The alias of the cache, None for the default cache.
        cache: The cache, as the thread has it that made the options. None if it can't be had.
        compress: Whether the chunks of a large entry are compressed.
        encryption_key: The AES key, None if the entry is not encrypted.
        expiration: Seconds, None for ever, UNSET for what ``CACHE_EXPIRATION_TIME`` says when the entry is stored.
        get_expiration: Tells the expiration from the value or the number of items, once these are known. None if
            ``expiration`` says it.
        loads: Unpickles instead of ``pickle.loads``; None if that does.
        max_key_bytes: The most bytes that a full key may have in the cache, None if the cache doesn't count them.
        policy: How fresh the value has to be, None if it is fresh for as long as it is there.
        name: What the call's events are called, None for what the key says.
        older_keys: The older default AES keys under which the entry may still be stored, the latest first.
        prefix: What full keys of this site begin with, None without a Site.
        seal: Whether the entry is sealed, as :data:`~fastblets.cache.seals.Seal` says.
    """

    __slots__ = (
        "_shortening",
        "alias",
        "cache",
        "compress",
        "encryption_key",
        "expiration",
        "get_expiration",
        "loads",
        "max_key_bytes",
        "name",
        "older_keys",
        "policy",
        "prefix",
        "seal",
    )

    alias: str | None
    cache: BaseCache | None
    compress: bool
    encryption_key: bytes | None
    expiration: int | Unset | None
    get_expiration: Callable[[Any], Expiration] | None
    loads: Callable[[bytes], Any] | None
    max_key_bytes: int | None
    name: str | None
    older_keys: Sequence[bytes]
    policy: CachePolicy | None
    prefix: str | None
    seal: Seal

    def __init__(
        self,
        expiration: Expiration | Callable[[Any], Expiration] | Unset,
        compress: bool,
        use_encryption: bool | None,
        encryption_key: bytes | None,
        seal: Seal | None,
        alias: str | None = None,
        policy: CachePolicy | None = None,
        name: str | None = None,
    ) -> None:
        """Resolve the options.

        For the arguments see :func:`~fastblets.cache.backend.cache_memoize`. They are positional, since passing them by
        keyword builds a dict, which took a good part of a small value's time.

        Raises:
            AssertionError: The encryption key is not of type ``bytes``.
            ImproperlyConfigured: A setting has a value that makes no sense.
            InvalidCacheBackendError: CACHES has no such alias.
            SiteUnavailableError: The Site's domain can't be looked up, and was not seen before.
            TypeError: ``expiration``, ``policy`` or ``name`` is of a wrong type.
            ValueError: ``seal`` has a wrong value.
        """
        self.get_expiration = None
        #: The share of the expiration that the policy's jitter takes off, None until it is drawn.
        self._shortening: float | None = None

        # An int is what most calls give, and is ready for use.
        if expiration is not UNSET and expiration is not None and type(expiration) is not int:
            if callable(expiration):
                self.get_expiration = expiration
                expiration = UNSET
            else:
                # A plain 0 is given to the cache, as in Djblets, whose callers can't pass a timedelta.
                if isinstance(expiration, timedelta) and expiration <= timedelta():
                    self.get_expiration = _never_keep

                expiration = to_seconds("expiration", expiration)

        if name is not None and not isinstance(name, str):
            raise TypeError(f"name must be a string, not of type {type(name).__name__}.")

        settings = get_settings()
        self.expiration = expiration
        # Most calls give a bool, for which bool() would take longer.
        self.compress = compress is True or bool(compress)
        # Most projects set neither, and a call would take as long as the lookup.
        is_unsealed = seal is None and getattr(settings, "FASTBLETS_SEAL", False) is False
        self.seal = False if is_unsealed else resolve_seal(settings, seal)
        self.loads = None if getattr(settings, "FASTBLETS_PICKLE_CLASSES", None) is None else get_loads(settings)
        self.encryption_key = key = resolve_encryption_key(settings, use_encryption, encryption_key)
        # The older keys belong to the default key. They say nothing about a caller's own key.
        self.older_keys = get_encryption_key_fallbacks(settings, key) if key and not encryption_key else ()
        self.prefix = get_key_prefix(settings)
        is_plain = policy is None and getattr(settings, "FASTBLETS_POLICY", None) is None
        self.policy = None if is_plain else resolve_policy(settings, policy)
        self.name = name
        self.alias = alias
        named = None if alias is None else check_alias(alias)

        try:
            self.cache = cache = get_cache() if alias is None else named
            self.max_key_bytes = None if cache is None else get_max_key_bytes(cache)
        except Exception as e:
            # It is raised again, and logged, where the entry is read.
            let_pass(e)
            self.cache = self.max_key_bytes = None

    def get_cache(self) -> BaseCache:
        """Return the cache, as this thread has it now."""
        return get_named_cache(self.alias)

    def settle_expiration(self, subject: object, *, limited: bool = False) -> bool:
        """Let the function that was given as ``expiration`` decide how long the entry is to be kept.

        Args:
            subject: The value, or the number of items.
            limited: Whether chunks may have been stored already, which are kept for ``CACHE_EXPIRATION_TIME``. The
                count is not kept longer than that.

        Returns:
            Whether the entry is to be kept. Always, if no function was given.

        Raises:
            ImproperlyConfigured: ``CACHE_EXPIRATION_TIME`` is neither a number nor None.
            TypeError: The function returned something else than an expiration.
            Exception: The function raised it.
        """
        if self.get_expiration is None:
            return True

        seconds = to_seconds("What the function passed as expiration returns", self.get_expiration(subject))
        # Not asked again with something else: a large value is stored as the only item of an iterable.
        self.get_expiration = None

        if is_over(seconds):
            return False

        limit = get_expiration_time(get_settings()) if limited else None

        if limit is not None:
            seconds = limit if seconds is None else min(seconds, limit)

        self.expiration = seconds

        return True

    def get_timeout(self) -> int | None:
        """Return for how many seconds the entry is to be stored, None for ever. With a policy, it may be stale then."""
        seconds = self._get_seconds()

        if self.policy is None or seconds is None or not seconds > 0:
            return seconds

        return math.ceil(self._shorten(seconds, self.policy) + self.policy.window)

    def get_fresh_secs(self) -> float | None:
        """Return for how many seconds the entry is fresh; None for as long as it is there."""
        seconds = self._get_seconds()

        return None if self.policy is None or seconds is None else self._shorten(seconds, self.policy)

    def _get_seconds(self) -> int | None:
        return get_expiration_time(get_settings()) if self.expiration is UNSET else self.expiration

    def _shorten(self, seconds: float, policy: CachePolicy) -> float:
        # Drawn once, since the parts of an entry have to expire together.
        if self._shortening is None:
            self._shortening = random.uniform(0, policy.jitter) if policy.jitter else 0.0

        return float(seconds) * (1 - self._shortening)


def is_over(seconds: float | None) -> bool:
    """Return whether a cache keeps nothing that is stored for so many seconds. None: for ever."""
    # Written as `not seconds > 0` so that NaN is rejected too.
    return seconds is not None and not seconds > 0


def get_expiration_time(settings: Any) -> int | None:
    """Return for how many seconds an entry is kept whose call doesn't say it, None for ever.

    Raises:
        ImproperlyConfigured: ``CACHE_EXPIRATION_TIME`` is neither a number nor None.
    """
    timeout: int | None = getattr(settings, "CACHE_EXPIRATION_TIME", DEFAULT_EXPIRATION_TIME)

    # Most often it is an int. To ask whether a class is registered as one of numbers takes longer.
    if timeout is not None and type(timeout) is not int and not isinstance(timeout, Number):
        raise ImproperlyConfigured(
            f"CACHE_EXPIRATION_TIME must be a number of seconds or None, not of type {type(timeout).__name__}."
        )

    return timeout


def get_threads(settings: Any) -> int | None:
    """Return how many threads may compress a large value: ``FASTBLETS_THREADS``, None for one for each processor.

    A wrong value is reported by a system check, and counts as None.
    """
    threads = getattr(settings, "FASTBLETS_THREADS", None)

    return threads if is_number_of_threads(threads) else None


def is_number_of_threads(value: object) -> TypeGuard[int]:
    """Return whether a value of FASTBLETS_THREADS is a positive whole number."""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= sys.maxsize
