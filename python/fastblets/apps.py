"""fastblets as a Django app: system checks, and ``manage.py fastblets``. Everything else works without it."""

from __future__ import annotations

from django.apps import AppConfig


class FastbletsConfig(AppConfig):
    """The app."""

    name = "fastblets"
    verbose_name: str = "fastblets"

    def ready(self) -> None:
        """Register the checks, and begin to collect statistics if that is set."""
        from fastblets import stats
        from fastblets.cache.shortcuts import get_settings
        from fastblets.checks import register_checks

        register_checks()

        # A wrong value is reported by a check.
        if getattr(get_settings(), "FASTBLETS_STATS", False) is True:
            stats.collect()
