"""Full cache keys: the site's prefix, the default encryption key, and what is made of them."""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import cache as once
from typing import TYPE_CHECKING

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured, ObjectDoesNotExist
from django.core.signals import setting_changed
from django.dispatch import receiver

from fastblets.cache.failures import let_pass
from fastblets.conf import get_settings
from fastblets.secrets.crypto import AES_KEY_SIZES, get_default_aes_encryption_key

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from django.contrib.sites.models import Site


logger: logging.Logger = logging.getLogger("djblets.cache.backend")


#: The domains of the sites seen so far in this process, by SITE_ID.
_last_domains: dict[object, str] = {}


def get_key_prefix(settings: Any) -> str | None:
    """Return what all full keys of this site begin with, None without a Site.

    If the Site can't be looked up, though there may be one, what was last seen of it serves: without its prefix, two
    installations that share a cache would share keys.
    """
    sites = _get_sites()

    if sites is None:
        return None

    site_id = getattr(settings, "SITE_ID", None)
    domain: str | None

    try:
        domain = sites.get_current(site_id).domain
    except (ImproperlyConfigured, ObjectDoesNotExist):
        return None
    except Exception as e:
        let_pass(e)
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

    site_root = getattr(settings, "SITE_ROOT", None)

    return f"{domain}:{site_root}" if site_root else domain


class _Sites:
    """Django's sites.

    ``Site.objects.get_current()`` takes longer than all else that makes a key, though it only looks into a dict. So
    that is done here, but only while the method is Django's own: projects with many sites put theirs in its place.
    """

    __slots__ = ("_attributes", "_code", "_code_by_id", "_meta", "_module", "_objects", "_site")

    def __init__(self, module: Any) -> None:
        self._module = module
        self._site = site = module.Site
        self._meta = site._meta
        self._attributes = vars(site)
        self._objects = self._attributes.get("objects")
        #: The code of Django's methods, since spies exchange that of the very function.
        self._code = self._code_by_id = None

        with suppress(AttributeError):
            code = module.SiteManager.get_current.__code__
            code_by_id = module.SiteManager._get_site_by_id.__code__

            if code.co_filename == code_by_id.co_filename == module.__file__:
                self._code, self._code_by_id = code, code_by_id

    def get_current(self, site_id: object) -> Site:
        """Return the current Site, which is that with this ID unless the project has ideas of its own.

        Raises:
            Exception: What ``get_current()`` raises.
        """
        # What `Site.objects` is by itself: another one each time that Django has forgotten how models are related.
        if self._attributes.get("objects") is self._objects:
            manager = self._meta.managers_map["objects"]
        else:
            manager = self._site.objects

        try:
            is_djangos = (
                manager.get_current.__code__ is self._code and manager._get_site_by_id.__code__ is self._code_by_id
            )
        except AttributeError:
            # No function at all.
            is_djangos = False

        if is_djangos and site_id:
            known: Site | None = self._module.SITE_CACHE.get(site_id)

            if known is not None:
                return known

        current: Site = manager.get_current()

        return current


@once
def _get_sites() -> _Sites | None:
    # Not imported above: without the app in INSTALLED_APPS the module can't be, and not before Django is set up.
    apps.check_models_ready()

    if not apps.is_installed("django.contrib.sites"):
        return None

    from django.contrib.sites import models

    return _Sites(models)


@receiver(setting_changed)
def _forget_sites(setting: str, **kwargs: object) -> None:
    # Only tests change it.
    if setting == "INSTALLED_APPS":
        _get_sites.cache_clear()


def get_default_encryption_key() -> bytes:
    """Return the AES key for entries where the caller gives none."""
    return _get_default_encryption_key(get_settings())


def get_encryption_key_fallbacks(settings: Any, key_in_use: bytes) -> Sequence[bytes]:
    """Return the older AES keys under which entries may still be stored, the latest first.

    Args:
        settings: Django's settings.
        key_in_use: The key that is older than none, wherever it is listed.

    Raises:
        ImproperlyConfigured: The setting is no list of AES keys.
    """
    setting: object = getattr(settings, "DJBLETS_CACHE_ENCRYPTION_KEY_FALLBACKS", ())

    if setting == ():
        return ()

    if isinstance(setting, (list, tuple)):
        keys = [key.encode("utf-8") if isinstance(key, str) else key for key in setting]

        if all(isinstance(key, bytes) and len(key) in AES_KEY_SIZES for key in keys):
            return [key for key in keys if key != key_in_use]

    raise ImproperlyConfigured(
        "DJBLETS_CACHE_ENCRYPTION_KEY_FALLBACKS must be a list of AES keys: text or bytes, each of 16, 24 or 32 bytes."
    )


def resolve_encryption_key(
    settings: Any,
    use_encryption: bool | None,
    encryption_key: bytes | None,
) -> bytes | None:
    """Return the AES key to use for a call's options, None if it does not encrypt.

    Raises:
        AssertionError: The key is not of type ``bytes``.
    """
    if use_encryption is None:
        use_encryption = getattr(settings, "DJBLETS_CACHE_FORCE_ENCRYPTION", False)

    if not use_encryption:
        return None

    if not encryption_key:
        return _get_default_encryption_key(settings)

    if not isinstance(encryption_key, bytes):
        raise AssertionError(f'encryption_key must be of type "bytes", not "{type(encryption_key)}".')

    return encryption_key


def _get_default_encryption_key(settings: Any) -> bytes:
    key = getattr(settings, "DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY", None)

    if not key:
        return get_default_aes_encryption_key()

    return key if isinstance(key, bytes) else key.encode("utf-8")
