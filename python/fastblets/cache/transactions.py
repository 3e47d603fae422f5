"""Deletions that wait for the end of a database transaction.

Until then the transaction itself must not read the entries: they are older than what it sees. Nor must it store them
anew, since other processes would see what is not committed.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING
from weakref import ref

from django.core.cache import DEFAULT_CACHE_ALIAS
from django.db import DEFAULT_DB_ALIAS, connections, transaction

from fastblets.cache.failures import log_failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, Final


# Djblets' name, so that a project's logging settings go on to hold.
logger: logging.Logger = logging.getLogger("djblets.cache.backend")

#: The deletions in this process, of all threads, that may still be waiting. An empty list costs a hit next to nothing.
pending: Final[list[ref[_Deletion]]] = []


class _Deletion:
    """A callback after the transaction. Django drops it if the transaction or its savepoint is rolled back."""

    def __init__(self, delete: Callable[[], object], alias: str | None, full_keys: Iterable[str], error: str) -> None:
        self._delete = delete
        self._error = error
        self._alias = alias or DEFAULT_CACHE_ALIAS
        self._full_keys = frozenset(full_keys)
        self._reference: ref[_Deletion] | None = ref(self, pending.remove)
        pending.append(self._reference)

    def concerns(self, alias: str | None, full_keys: Iterable[str]) -> bool:
        return (alias or DEFAULT_CACHE_ALIAS) == self._alias and not self._full_keys.isdisjoint(full_keys)

    def __call__(self) -> None:
        full_keys = self._full_keys
        # Tests run callbacks that Django keeps in its list, and a log record may keep this object.
        self._full_keys = frozenset()

        if self._reference is not None:
            pending.remove(self._reference)
            self._reference = None

        try:
            self._delete()
        except Exception as e:
            # The transaction is committed, and its caller can't do anything about it.
            log_failure(
                logger,
                e,
                f"{self._error} %r after the transaction. Old entries may be served until they expire: %s",
                sorted(full_keys),
                e,
            )


def wait_for_commit(
    delete: Callable[[], object],
    alias: str | None,
    full_keys: Iterable[str],
    on_commit: bool | str,
    error: str = "Error deleting cache keys",
) -> bool:
    """Let something be deleted after the current transaction, if there is one.

    Args:
        delete: Deletes it. An error of it is logged.
        alias: The alias of the cache, None for the default cache.
        full_keys: The full keys of the entries, or of the tags.
        on_commit: The alias of the database, True for the default one.
        error: How the log record of an error begins.

    Returns:
        Whether there is a transaction.

    Raises:
        ConnectionDoesNotExist: There is no such database.
        TransactionManagementError: The connection is neither in an atomic block nor in autocommit mode.
    """
    using = DEFAULT_DB_ALIAS if on_commit is True else str(on_commit)
    connection = connections[using]

    if not connection.in_atomic_block and connection.get_autocommit():
        return False

    transaction.on_commit(_Deletion(delete, alias, full_keys, error), using=using)

    return True


def is_pending(alias: str | None, full_keys: Iterable[str]) -> bool:
    """Return whether a transaction of this thread is going to delete an entry, or to invalidate one of its tags.

    To be called where :data:`pending` is not empty.

    Args:
        alias: The alias of the cache, None for the default cache.
        full_keys: The full keys of the entry and its tags.
    """
    callbacks: list[Any] = [
        callback
        for connection in connections.all(initialized_only=True)
        for _, callback, *_ in connection.run_on_commit
    ]

    return any(isinstance(callback, _Deletion) and callback.concerns(alias, full_keys) for callback in callbacks)
