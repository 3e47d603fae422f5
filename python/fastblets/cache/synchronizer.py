"""Telling other processes, through the cache, that state has changed."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Final, cast

from fastblets.cache.arguments import check_alias, check_seconds
from fastblets.cache.errors import SiteUnavailableError
from fastblets.cache.failures import log_failure
from fastblets.cache.keys import make_full_key
from fastblets.cache.shortcuts import get_named_cache
from fastblets.deprecation import keyword_only

if TYPE_CHECKING:
    from collections.abc import Sequence


# Djblets' name, so that a project's logging settings go on to hold.
logger: logging.Logger = logging.getLogger("djblets.cache.synchronizer")


_DOING_INITIALLY: Final = 'checking for initial state in cached synchronization state key "%s"'


class GenerationSynchronizer:
    """A generation number that processes share through their cache.

    A process that has changed the state calls :meth:`mark_updated`. The others see by :meth:`is_expired` that theirs
    is old, load the state again, and call :meth:`refresh`.

    No method raises an error of the cache, or of the database that has the Site: each is logged. While they can't be
    read, all state is expired.

    Attributes:
        cache_alias: The alias in ``CACHES`` of the cache that has the number, None for the default cache.
        cache_expiration_secs: Seconds for which the number is kept in the cache.
        cache_key: The full cache key of the number. Empty while the Site's domain can't be looked up.
        sync_gen: The generation number that this instance last saw or made.
    """

    #: For how long, in seconds, the number is kept by default: a year.
    DEFAULT_EXPIRATION_SECS: Final[int] = 60 * 60 * 24 * 365

    cache_expiration_secs: int
    cache_key: str
    sync_gen: int | None

    cache_alias: str | None = None

    #: The base key while no full key could be made of it.
    _base_key: str | Sequence[str] | None = None

    @keyword_only
    def __init__(
        self,
        cache_key: str | Sequence[str],
        *,
        normalize_cache_key: bool = True,
        cache_expiration_secs: int = DEFAULT_EXPIRATION_SECS,
        cache: str | None = None,
    ) -> None:
        """Fetch the generation number, or make one.

        Args:
            cache_key: The base key of the number, as for :func:`~fastblets.cache.backend.make_cache_key`.
            normalize_cache_key: Whether to make a full key of the base key. If not, it must be a string, and is the
                full key.
            cache_expiration_secs: Seconds for which to keep the number in the cache.
            cache: The alias in ``CACHES`` of the cache that has the number. Default: the default cache.

        Raises:
            InvalidCacheBackendError: ``CACHES`` has no such alias.
            TypeError: The key or the expiration is of a wrong type.
            ValueError: A sequence was given for a key that is not to be normalized.
        """
        if cache_expiration_secs is not None:
            check_seconds("cache_expiration_secs", cache_expiration_secs)

        if not (normalize_cache_key or isinstance(cache_key, str)):
            raise ValueError("cache_key must be a string if setting normalize_cache_key=False.")

        if cache is not None:
            check_alias(cache)
            self.cache_alias = cache

        self.cache_expiration_secs = cache_expiration_secs
        self.sync_gen = None

        if normalize_cache_key:
            self.cache_key = ""
            self._base_key = cache_key
        else:
            self.cache_key = cast("str", cache_key)

        try:
            self._get_key()
        except SiteUnavailableError as e:
            self._log_error(_DOING_INITIALLY, e)
            return

        try:
            self._fetch_or_create_sync_gen()
        except Exception as e:
            self._log_error(_DOING_INITIALLY, e)

    def is_expired(self) -> bool:
        """Return whether the state has changed since this instance last saw it."""
        try:
            sync_gen = self._get_latest_sync_gen()
        except Exception as e:
            self._log_error('checking for expiration in cached synchronization state key "%s"', e)

            return True

        # Anything but the very number last seen, a missing or damaged one too, means that the state may be old.
        return type(sync_gen) is not int or sync_gen != self.sync_gen

    def refresh(self) -> None:
        """Take over the latest generation number, once the latest state has been loaded."""
        try:
            self._fetch_or_create_sync_gen()
        except Exception as e:
            self._log_error('refreshing cached synchronization state from key "%s"', e)

    def clear(self) -> None:
        """Remove the generation number, so that every process finds its state expired."""
        try:
            self._cache.delete(self._get_key())
        except Exception as e:
            self._log_error('clearing cached synchronization state key "%s"', e)

    def mark_updated(self) -> None:
        """Tell the other processes that the state has changed."""
        try:
            try:
                self._increment_sync_gen()
            except ValueError:
                # The number fell out of the cache.
                self._fetch_or_create_sync_gen()
        except Exception as e:
            self._log_error('marking cached synchronization state key "%s" as updated', e)

    @property
    def _cache(self) -> Any:
        return get_named_cache(self.cache_alias)

    def _increment_sync_gen(self) -> None:
        self.sync_gen = self._cache.incr(self._get_key())

    def _fetch_or_create_sync_gen(self) -> None:
        # In microseconds, where Djblets' numbers are in seconds: a number that was lost and made again, or counted up
        # meanwhile, must not come out the same.
        sync_gen = time.time_ns() // 1000

        key = self._get_key()

        try:
            stored = self._cache.add(key, sync_gen, timeout=self.cache_expiration_secs)
        except Exception:
            self.sync_gen = sync_gen
            raise

        if not stored:
            latest = self._get_latest_sync_gen()

            if type(latest) is int:
                sync_gen = latest
            else:
                # Left there, it would keep all state expired for ever.
                self._cache.set(key, sync_gen, timeout=self.cache_expiration_secs)

        self.sync_gen = sync_gen

    def _get_latest_sync_gen(self) -> int | None:
        sync_gen: int | None = self._cache.get(self._get_key())

        return sync_gen

    def _get_key(self) -> str:
        if self._base_key is not None:
            self.cache_key = make_full_key(self._base_key, alias=self.cache_alias)
            self._base_key = None

        return self.cache_key

    def _log_error(self, doing: str, error: Exception) -> None:
        message = f"Unexpected error {doing}. Is the cache server down? Error = %s"
        log_failure(logger, error, message, self.cache_key or self._base_key, error)
