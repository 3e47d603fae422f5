"""fastblets as a Django app: system checks, and ``manage.py fastblets``. Everything else works without it."""

from __future__ import annotations

from django.apps import AppConfig


class FastbletsConfig(AppConfig):
    """The app."""

    name = "fastblets"
    verbose_name: str = "fastblets"

    def ready(self) -> None:
        """Register the checks."""
        from fastblets.checks import register_checks

        register_checks()
