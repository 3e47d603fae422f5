"""The names of the settings, and where they are documented."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Final


#: All settings that are read.
SETTINGS: Final = (
    "CACHE_EXPIRATION_TIME",
    "DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY",
    "DJBLETS_CACHE_FORCE_ENCRYPTION",
    "FASTBLETS_ENCRYPTION_KEY_FALLBACKS",
    "FASTBLETS_PICKLE_CLASSES",
    "FASTBLETS_POLICY",
    "FASTBLETS_SEAL",
    "FASTBLETS_SEAL_KEY",
    "FASTBLETS_STATS",
    "FASTBLETS_THREADS",
    "FASTBLETS_TRACEBACK_INTERVAL",
    "SITE_ROOT",
)

#: Settings with a new name. The old name is still read, unless the new one is set.
RENAMED: Final = {"DJBLETS_CACHE_ENCRYPTION_KEY_FALLBACKS": "FASTBLETS_ENCRYPTION_KEY_FALLBACKS"}

#: The prefixes of settings that only fastblets and Djblets read.
PREFIXES: Final = ("DJBLETS_CACHE_", "FASTBLETS_")

#: Where the pages of ``docs`` can be read without a copy of the repository.
DOCUMENTATION: Final = "https://github.com/fastblets/fastblets/tree/main/docs"
