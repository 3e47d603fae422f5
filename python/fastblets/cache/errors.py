"""Errors of the caching functions."""

from __future__ import annotations


class MissingChunkError(Exception):
    """A chunk of a large entry is not in the cache, so that the whole entry is worthless."""


class ForeignValueError(Exception):
    """The full key of a large entry holds something other than a count of chunks."""


class UnreachableError(Exception):
    """The cache can't be reached. The call asks nothing more of it."""
