"""Full cache keys: the site's prefix, the default encryption key, and what is made of them."""

from __future__ import annotations

import logging
from functools import cache as once
from typing import TYPE_CHECKING

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured, ObjectDoesNotExist
from django.core.signals import setting_changed
from django.dispatch import receiver

from fastblets import _native
from fastblets.conf import get_setting
from fastblets.secrets.crypto import get_default_aes_encryption_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.contrib.sites.models import SiteManager


logger: logging.Logger = logging.getLogger("djblets.cache.backend")


#: The domains of the sites seen so far in this process, by SITE_ID.
_last_domains: dict[object, str] = {}


def make_full_key(
    key: str | Sequence[str],
    encryption_key: bytes | None,
    prefix: str | None,
) -> str:
    """Make a full cache key.

    Args:
        key: The base key: a string, or a sequence of strings.
        encryption_key: The key to encrypt with, None for a key that is not encrypted.
        prefix: What :func:`get_key_prefix` returned.

    Raises:
        AttributeError: A part of the key is not a string.
        TypeError: The key is neither a string nor a sequence of strings.
        UnicodeEncodeError: The key needs a digest, but has none, since it holds a lone surrogate.
    """
    return _native.make_full_key(prefix, key if isinstance(key, str) else split_key(key), encryption_key)


def split_key(key: Sequence[str]) -> list[str]:
    """Return the parts of a base key that is no string."""
    if len(key) > 1:
        # Lazily translated strings have all methods of a string, this one to become one.
        return [part if isinstance(part, str) else part.replace("%", "%") for part in key]

    return list(key)


def get_key_prefix() -> str | None:
    """Return what all full keys of this site begin with, None without a Site.

    If the Site can't be looked up, though there may be one, what was last seen of it serves: without its prefix, two
    installations that share a cache would share keys.
    """
    sites = _get_sites()

    if sites is None:
        return None

    site_id = get_setting("SITE_ID")
    domain: str | None

    try:
        domain = sites.get_current().domain
    except (ImproperlyConfigured, ObjectDoesNotExist):
        return None
    except Exception as e:
        domain = _last_domains.get(site_id)
        logger.warning(
            "Error looking up the current Site for a cache key. Going on with %s. Error = %s",
            "no prefix" if domain is None else f'its last known domain "{domain}"',
            e,
        )

        if domain is None:
            return None
    else:
        _last_domains[site_id] = domain

    site_root = get_setting("SITE_ROOT")

    return f"{domain}:{site_root}" if site_root else domain


@once
def _get_sites() -> SiteManager | None:
    # Not imported above: without the app in INSTALLED_APPS the module can't be, and not before Django is set up.
    apps.check_models_ready()

    if not apps.is_installed("django.contrib.sites"):
        return None

    from django.contrib.sites.models import Site

    return Site.objects


@receiver(setting_changed)
def _forget_sites(setting: str, **kwargs: object) -> None:
    # Only tests change it.
    if setting == "INSTALLED_APPS":
        _get_sites.cache_clear()


def get_default_use_encryption() -> bool:
    """Return whether entries are encrypted where the caller doesn't say."""
    return bool(get_setting("DJBLETS_CACHE_FORCE_ENCRYPTION", False))


def get_default_encryption_key() -> bytes:
    """Return the AES key for entries where the caller gives none."""
    key = get_setting("DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY")

    if not key:
        return get_default_aes_encryption_key()

    return key if isinstance(key, bytes) else key.encode("utf-8")


def resolve_encryption_key(
    use_encryption: bool | None,
    encryption_key: bytes | None,
) -> bytes | None:
    """Return the AES key to use for a call's options, None if it does not encrypt.

    Raises:
        AssertionError: The key is not of type ``bytes``.
    """
    if use_encryption is None:
        use_encryption = get_default_use_encryption()

    if not use_encryption:
        return None

    if not encryption_key:
        return get_default_encryption_key()

    if not isinstance(encryption_key, bytes):
        raise AssertionError(f'encryption_key must be of type "bytes", not "{type(encryption_key)}".')

    return encryption_key
