"""The domain of the current Site, with which full cache keys begin."""

from __future__ import annotations

import gc
import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from functools import cache as once
from typing import TYPE_CHECKING

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured, ObjectDoesNotExist, SynchronousOnlyOperation
from django.core.signals import setting_changed
from django.db import connections, router
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import DatabaseError
from django.dispatch import receiver

from fastblets.cache.errors import SiteUnavailableError
from fastblets.cache.failures import let_pass
from fastblets.cache.shortcuts import SiteLookup

if TYPE_CHECKING:
    from typing import Any


logger: logging.Logger = logging.getLogger("djblets.cache.backend")


class Sites(SiteLookup):
    """Django's sites, also where the database can't be used as usual."""

    __slots__ = ()

    def recover_domain(self, site_id: object, error: Exception) -> str | None:
        """Return the domain although :meth:`get_domain` failed, or None if there is no Site.

        Code that runs in an event loop may not use the database, so the Site is looked up in another thread then. If
        the lookup fails, the domain is the one last seen.

        Args:
            site_id: The Site's ID.
            error: The exception that :meth:`get_domain` raised.

        Raises:
            SiteUnavailableError: There may be a Site, but it can't be looked up and was never seen.
        """
        is_visible = True

        try:
            if isinstance(error, SynchronousOnlyOperation):
                domain, is_visible = self._look_up_in_thread(site_id)

                if domain is not None or is_visible:
                    return domain

                error = LookupError("it can't be seen from outside of the test's transaction, or database in memory")
            elif self._is_missing(error):
                return None
        except Exception as e:
            let_pass(e)
            error = e

        domain = self.get_last_domain(site_id)

        if domain is None and is_visible:
            raise SiteUnavailableError(
                f"The domain of the Site with SITE_ID {site_id!r} can't be looked up, and cache keys begin with it: "
                f"{error}"
            ) from error

        logger.warning(
            "Error looking up the current Site for a cache key. Going on with %s. Error = %s",
            "no prefix" if domain is None else f'its last known domain "{domain}"',
            error,
        )

        return domain

    def _look_up_in_thread(self, site_id: object) -> tuple[str | None, bool]:
        """Return the domain as another thread finds it, and whether that thread sees the same database."""
        # Before Django 5, a test case blocks the connections of its own thread only.
        if _is_test_run() and _has_blocked_connection(self._get_alias()):
            return None, True

        with ThreadPoolExecutor(1, "fastblets-site") as executor:
            return executor.submit(copy_context().run, self._look_up, site_id).result()

    def _look_up(self, site_id: object) -> tuple[str | None, bool]:
        try:
            is_in_memory = _is_in_memory(connections[self._get_alias()])

            try:
                return self.get_domain(site_id), True
            except Exception as e:
                # An in-memory database may be the other thread's alone, or is locked until its transaction ends.
                if self._is_missing(e) or (is_in_memory and "is locked" in str(e)):
                    is_blocked = _is_blocked(e) or isinstance(e, ImproperlyConfigured)

                    return None, is_blocked or not (is_in_memory or _is_test_run())

                raise
        finally:
            for connection in connections.all(initialized_only=True):
                if _is_in_memory(connection):
                    # SQLite's own method leaves it open, as it may be the only connection of a database in memory.
                    BaseDatabaseWrapper.close(connection)
                else:
                    connection.close()

    def _is_missing(self, error: Exception) -> bool:
        """Return whether the error means that there is no Site, rather than that it can't be looked up."""
        return (
            # No SITE_ID or no DATABASES; no such Site.
            isinstance(error, (ImproperlyConfigured, ObjectDoesNotExist))
            or _is_blocked(error)
            or self._has_no_table(error)
        )

    def _has_no_table(self, error: Exception) -> bool:
        # Anything else that fails here is the failure of the database over again.
        with suppress(Exception):
            if isinstance(error, DatabaseError):
                connection = connections[self._get_alias()]

                # If it could not connect, to try again would take as long again.
                return (
                    connection.connection is not None
                    and self._meta.db_table not in connection.introspection.table_names()
                )

        return False

    def _get_alias(self) -> str:
        return router.db_for_read(self._site)


@once
def get_sites() -> Sites | None:
    """Return Django's sites, None if the app is not installed."""
    # Not imported above: without the app in INSTALLED_APPS the module can't be, and not before Django is set up.
    apps.check_models_ready()

    if not apps.is_installed("django.contrib.sites"):
        return None

    from django.contrib.sites import models

    return Sites(models)


@receiver(setting_changed)
def _forget_sites(setting: str, **kwargs: object) -> None:
    # Only tests change it.
    if setting == "INSTALLED_APPS":
        get_sites.cache_clear()


def _is_in_memory(connection: Any) -> bool:
    return connection.vendor == "sqlite" and bool(connection.is_in_memory_db())


def _is_test_run() -> bool:
    utils: Any = sys.modules.get("django.test.utils")

    return hasattr(getattr(utils, "_TestState", None), "saved_data")


def _is_blocked(error: Exception) -> bool:
    """Return whether a test that must not use the database raised the error: Django's, or one of pytest-django."""
    return any(
        (parent.__module__, parent.__name__) == ("django.test.testcases", "DatabaseOperationForbidden")
        for parent in type(error).__mro__
    ) or (isinstance(error, RuntimeError) and str(error).startswith("Database access not allowed"))


def _has_blocked_connection(alias: str) -> bool:
    failure: Any = getattr(sys.modules.get("django.test.testcases"), "_DatabaseFailure", None)

    return failure is not None and any(
        type(found) is failure and found.wrapped.__self__.alias == alias for found in gc.get_referrers(failure)
    )
