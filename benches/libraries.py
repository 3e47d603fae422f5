"""Djblets and fastblets side by side in one process, on caches of our choice."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any
from unittest import mock

import django
from django.conf import settings
from django.core.cache import cache

from tests.randomness import CountingIVs

LIBRARIES = ("djblets", "fastblets")


@dataclass(frozen=True)
class Library:
    """One of the two; what is timed is looked up in it."""

    name: str

    @property
    def backend(self) -> Any:
        return import_module(f"{self.name}.cache.backend")

    @property
    def crypto(self) -> Any:
        return import_module(f"{self.name}.secrets.crypto")


def set_up_django() -> None:
    """Start Django with a site, whose domain begins every key."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    # pyca has deprecated CFB8. Filtered out, a warning costs Djblets the least.
    warnings.filterwarnings("ignore", message="CFB8")
    django.setup()

    from django.core.management import call_command

    call_command("migrate", verbosity=0)


def use_cache(config: dict[str, Any], *, empty: bool = True) -> None:
    """Make that Django's default cache, emptied first if it isn't to keep what it has.

    Not with `override_settings`: its settings object is slower, and settings are a good part of a small call's time.
    """
    # Its receivers are what reacts to a change of settings.
    from django.test.signals import setting_changed

    settings.CACHES = {"default": config}
    setting_changed.send(sender=settings, setting="CACHES", value=settings.CACHES, enter=True)
    if empty:
        cache.clear()


@contextmanager
def fixed_ivs() -> Iterator[None]:
    """Let the same initialization vectors come again, so that encrypted entries can be compared."""
    with mock.patch.object(os, "urandom", CountingIVs()):
        yield
