"""Full cache keys: the site's prefix, the default encryption key, and the key that is made with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.core.exceptions import ImproperlyConfigured

from fastblets import _native
from fastblets.cache.failures import let_pass
from fastblets.cache.kinds import get_max_key_bytes
from fastblets.cache.shortcuts import get_named_cache, get_settings
from fastblets.cache.sites import get_sites
from fastblets.secrets.crypto import AES_KEY_SIZES, get_default_aes_encryption_key

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Final


#: Stands for a setting that is not set.
_UNSET: Final = object()


def make_full_key(
    key: str | Sequence[str],
    use_encryption: bool | None = None,
    encryption_key: bytes | None = None,
    alias: str | None = None,
) -> str:
    """Return the full cache key for a base key, in the default cache or the one with this alias.

    For the arguments and errors see :func:`~fastblets.cache.backend.make_cache_key`.
    """
    settings = get_settings()

    return _native.make_full_key(
        get_key_prefix(settings),
        key,
        resolve_encryption_key(settings, use_encryption, encryption_key),
        find_max_key_bytes(alias),
    )


def find_max_key_bytes(alias: str | None) -> int | None:
    """Return the most bytes that a full key may have in the cache with this alias, None if it doesn't count bytes."""
    try:
        return get_max_key_bytes(get_named_cache(alias))
    except Exception as e:
        # A cache that can't be had tells nothing of its keys. Its error is raised where it is used.
        let_pass(e)

        return None


def get_key_prefix(settings: Any) -> str | None:
    """Return the prefix of all full keys of this site, None if there is no Site.

    Raises:
        SiteUnavailableError: The Site can't be looked up, and was not seen before. There may be one, and without its
            prefix two installations that share a cache would share keys.
    """
    sites = get_sites()

    if sites is None:
        return None

    site_id = getattr(settings, "SITE_ID", None)
    domain: str | None

    try:
        domain = sites.get_domain(site_id)
    except Exception as e:
        let_pass(e)
        domain = sites.recover_domain(site_id, e)

        if domain is None:
            return None

    site_root = getattr(settings, "SITE_ROOT", None)

    return f"{domain}:{site_root}" if site_root else domain


def get_default_encryption_key() -> bytes:
    """Return the AES key for entries where the caller gives none."""
    return _get_default_encryption_key(get_settings())


def get_encryption_key_fallbacks(settings: Any, key_in_use: bytes) -> Sequence[bytes]:
    """Return the older AES keys under which entries may still be stored, the latest first.

    Args:
        settings: Django's settings.
        key_in_use: The current key; skipped if it is also listed as a fallback.

    Raises:
        ImproperlyConfigured: The setting is not a list of AES keys.
    """
    name = "FASTBLETS_ENCRYPTION_KEY_FALLBACKS"
    setting: object = getattr(settings, "FASTBLETS_ENCRYPTION_KEY_FALLBACKS", _UNSET)

    if setting is _UNSET:
        name = "DJBLETS_CACHE_ENCRYPTION_KEY_FALLBACKS"
        setting = getattr(settings, "DJBLETS_CACHE_ENCRYPTION_KEY_FALLBACKS", _UNSET)

        if setting is _UNSET:
            return ()

    if isinstance(setting, (list, tuple)):
        keys = [key.encode("utf-8") if isinstance(key, str) else key for key in setting]

        if all(isinstance(key, bytes) and len(key) in AES_KEY_SIZES for key in keys):
            return [key for key in keys if key != key_in_use]

    raise ImproperlyConfigured(f"{name} must be a list of AES keys: text or bytes, each of 16, 24 or 32 bytes.")


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
