"""Invalidating by tags: all entries at once that have one of them, without knowing their keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastblets.cache.batch import set_marks
from fastblets.cache.options import UNSET, Options
from fastblets.cache.stamped import make_tag_keys, make_token
from fastblets.cache.transactions import wait_for_commit
from fastblets.signals import make_name, tell

if TYPE_CHECKING:
    from fastblets.cache.options import Tag


__all__ = ["invalidate_tags"]


def invalidate_tags(*tags: Tag, cache: str | None = None, on_commit: bool | str = False) -> None:
    """Make all entries misses that were stored with one of these tags, and what is being computed for them now.

    It takes one call of the cache, however many entries there are. They are not deleted: each is overwritten when it is
    computed again, or expires.

    Args:
        *tags: The tags, each a string, or a list or tuple of strings, as given to the functions that stored the
            entries.
        cache: The alias in ``CACHES`` of the cache that the entries are in. Default: the default cache.
        on_commit: Whether to wait for the end of the database transaction, and to do nothing if it is rolled back; or
            the alias of its database, if that is not the default one. Until then the memoize functions compute entries
            with these tags within this transaction without storing them, also if they are computing already. An error
            after the transaction is logged.

    Raises:
        CacheRefusedError: The cache did not store it: a server is down. Entries with these tags may still be valid.
        SiteUnavailableError: As for :func:`~fastblets.cache.backend.make_cache_key`.
        TypeError: A tag is of a wrong type.
        ValueError: There are more than 16.
        Exception: The cache failed, with :class:`~fastblets.cache.errors.UnreachableError` if it can't be reached.
            Entries with these tags may still be valid.
    """
    options = Options(UNSET, False, False, None, False, cache)
    tag_keys = make_tag_keys(tags, options)
    full_keys = [key for keys in tag_keys for key in keys]

    if not tags:
        return

    def invalidate() -> None:
        marks = {}

        for keys in tag_keys:
            marks.update(dict.fromkeys(keys, make_token()))

        set_marks(options.get_cache(), marks, None, make_name(tags[0]))

        for tag in tags:
            tell("invalidated", make_name(tag))

    if on_commit and wait_for_commit(invalidate, cache, full_keys, on_commit, "Error invalidating tags"):
        return

    invalidate()
