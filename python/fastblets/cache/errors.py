"""Errors of the caching functions."""

from __future__ import annotations

from django.db.utils import OperationalError


class MissingChunkError(Exception):
    """A chunk of a large entry is not in the cache, so that the whole entry is worthless."""


class ForeignValueError(Exception):
    """The full key of a large entry holds something other than a count of chunks."""


class UnreachableError(Exception):
    """The cache can't be reached. The call asks nothing more of it."""


class CacheRefusedError(Exception):
    """The cache did not store or delete something, and its client doesn't say why: a server may be down."""


class UnstampedError(Exception):
    """An entry with tags can't be stored: it is not known on what it depends."""


class SiteUnavailableError(OperationalError):
    """The domain that full cache keys begin with can't be looked up, so that no key can be made."""
