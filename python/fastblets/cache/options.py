"""The options of one call, resolved once from its arguments and the settings."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from fastblets.cache.classes import get_loads
from fastblets.cache.keys import get_encryption_key_fallbacks, get_key_prefix, resolve_encryption_key
from fastblets.cache.seals import resolve_seal
from fastblets.conf import get_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Final

    from fastblets.cache.seals import Seal


#: For how long, in seconds, entries are kept by default: 30 days. The setting ``CACHE_EXPIRATION_TIME`` changes it.
DEFAULT_EXPIRATION_TIME: Final = 60 * 60 * 24 * 30


class Unset(Enum):
    """The type of the sentinel for an argument that was not given or an entry that was not found; None is a value."""

    UNSET = "UNSET"


UNSET: Final = Unset.UNSET


class Options:
    """How the entry of one call is stored.

    Attributes:
        compress: Whether the chunks of a large entry are compressed.
        encryption_key: The AES key, None if the entry is not encrypted.
        expiration: Seconds, None for ever, UNSET for what ``CACHE_EXPIRATION_TIME`` says when the entry is stored.
        loads: Unpickles instead of ``pickle.loads``; None if that does.
        older_keys: The older default AES keys under which the entry may still be stored, the latest first.
        prefix: What full keys of this site begin with, None without a Site.
        seal: Whether the entry is sealed, as :data:`~fastblets.cache.seals.Seal` says.
    """

    __slots__ = ("compress", "encryption_key", "expiration", "loads", "older_keys", "prefix", "seal")

    compress: bool
    encryption_key: bytes | None
    expiration: int | Unset | None
    loads: Callable[[bytes], Any] | None
    older_keys: Sequence[bytes]
    prefix: str | None
    seal: Seal

    def __init__(
        self,
        expiration: int | Unset | None,
        compress: bool,
        use_encryption: bool | None,
        encryption_key: bytes | None,
        seal: Seal | None,
    ) -> None:
        """Resolve the options.

        For the arguments see :func:`~fastblets.cache.backend.cache_memoize`. They are positional, since passing them by
        keyword builds a dict, which took a good part of a small value's time.

        Raises:
            AssertionError: The encryption key is not of type ``bytes``.
            ImproperlyConfigured: A setting has a value that makes no sense.
            ValueError: ``seal`` has a wrong value.
        """
        settings = get_settings()
        self.expiration = expiration
        self.compress = bool(compress)
        self.seal = resolve_seal(settings, seal)
        self.loads = get_loads(settings)
        self.encryption_key = key = resolve_encryption_key(settings, use_encryption, encryption_key)
        # The older keys belong to the default key. They say nothing about a caller's own key.
        self.older_keys = get_encryption_key_fallbacks(settings, key) if key and not encryption_key else ()
        self.prefix = get_key_prefix(settings)

    def get_timeout(self) -> int | None:
        """Return for how many seconds the entry is to be stored, None for ever."""
        if self.expiration is not UNSET:
            return self.expiration

        timeout: int | None = getattr(get_settings(), "CACHE_EXPIRATION_TIME", DEFAULT_EXPIRATION_TIME)

        return timeout
