"""Errors of the caching functions."""

from __future__ import annotations


class MissingChunkError(Exception):
    """A chunk of a large entry is not in the cache, so that the whole entry is worthless."""


class UnreachableError(Exception):
    """The cache can't be reached, so that the call asks nothing more of it."""
