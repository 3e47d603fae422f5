"""Django's file cache, fit for locks."""

from __future__ import annotations

import os
from typing import Any

from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django.core.cache.backends.filebased import FileBasedCache
from django.core.files import locks


class LockableFileCache(FileBasedCache):
    """A file cache whose `add` only one process can win, as with memcached and Redis.

    Django's own looks first and writes afterwards: in between, a second process would get the
    same lock.
    """

    def __init__(self, dir: str, params: dict[str, Any]) -> None:
        super().__init__(dir, params)
        self.gate = os.path.join(dir, "add.lock")

    def add(
        self,
        key: str,
        value: Any,
        timeout: float | None = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> bool:
        with open(self.gate, "ab") as gate:
            locks.lock(gate, locks.LOCK_EX)
            return super().add(key, value, timeout, version)
