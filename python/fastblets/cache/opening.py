"""The entries of a call: from its arguments to what asks the cache."""

from __future__ import annotations

import logging
from copy import copy
from typing import TYPE_CHECKING

from django.core.cache.backends.dummy import DummyCache

from fastblets.cache.entry import Entry
from fastblets.cache.errors import SiteUnavailableError
from fastblets.cache.options import Options
from fastblets.cache.stamped import StampedStorage, make_tag_keys
from fastblets.cache.storage import Storage
from fastblets.cache.transactions import pending

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from fastblets.cache.options import Expiration, Tag, Unset
    from fastblets.cache.policy import CachePolicy
    from fastblets.cache.seals import Seal


# Djblets' name, so that a project's logging settings go on to hold.
logger: logging.Logger = logging.getLogger("djblets.cache.backend")


def open_entry(
    key: str | Sequence[str],
    expiration: Expiration | Callable[[Any], Expiration] | Unset,
    compress: bool,
    use_encryption: bool | None,
    encryption_key: bytes | None,
    seal: Seal | None,
    cache: str | None,
    tags: Sequence[Tag] = (),
    policy: CachePolicy | None = None,
    name: str | None = None,
) -> Storage | None:
    """Return the entry of one call of a memoize function; None if it is neither to be read nor stored.

    That is so if its full key can't be made, which is logged, and if this transaction is going to delete the entry, or
    to invalidate one of its tags.

    For the arguments see :func:`~fastblets.cache.backend.cache_memoize`.

    Raises:
        Exception: As for :class:`~fastblets.cache.options.Options`, :class:`~fastblets.cache.entry.Entry` and
            :func:`~fastblets.cache.stamped.make_tag_keys`.
    """
    try:
        options = Options(expiration, compress, use_encryption, encryption_key, seal, cache, policy, name)
    except SiteUnavailableError as e:
        logger.error(
            'No full cache key can be made for "%s". Newly-generated data will be returned but not cached. Error = %s',
            key,
            e,
        )
        return None

    tag_keys = () if tags == () and options.policy is None else _prepare_tags(tags, options)
    storage = _open(Entry(key, options, options.encryption_key), options, tag_keys)

    return None if pending and storage.is_pending() else storage


def open_entries(
    keys: Sequence[str | Sequence[str]],
    expiration: Expiration | Callable[[Any], Expiration] | Unset,
    large: bool,
    compress: bool,
    use_encryption: bool | None,
    encryption_key: bytes | None,
    seal: Seal | None,
    cache: str | None,
    tags: Sequence[Tag] = (),
    policy: CachePolicy | None = None,
    *,
    has_policy: bool = True,
) -> list[Storage]:
    """Return the entries of one call of a function for values by hand.

    Args:
        large: Whether they are large entries.
        has_policy: Whether a policy matters to what is done with them.

    The others are those of :func:`open_entry`.

    Raises:
        SiteUnavailableError: No full key can be made.
        Exception: As for :func:`open_entry`.
    """
    options = Options(expiration, compress, use_encryption, encryption_key, seal, cache, policy)

    if not has_policy:
        options.policy = None

    tag_keys = _prepare_tags(tags, options)
    # A function may give each value another expiration, and chance another part of it.
    is_shared = options.get_expiration is None and (options.policy is None or not options.policy.jitter)
    storages = []

    for key in keys:
        own = options if is_shared else copy(options)
        entry = Entry(key, own, own.encryption_key)

        if not large:
            entry.refuse_unsealable()

        storages.append(_open(entry, own, tag_keys))

    return storages


def _prepare_tags(tags: Sequence[Tag], options: Options) -> Sequence[Sequence[str]]:
    """Return the full keys of the tags, and adapt the options. Without tags, there are none."""
    # Not by their truth: an argument of a wrong type may be false.
    tag_keys = () if tags == () else make_tag_keys(tags, options)

    if isinstance(options.cache, DummyCache):
        # It keeps no tokens, and no entries that could become invalid or stale.
        options.policy = None
        return ()

    if (tag_keys or options.policy is not None) and not options.compress and options.seal is False:
        # Otherwise old chunks of one write could stay unnoticed under the record of another: what is not compressed has
        # no checksum.
        options.seal = True

    return tag_keys


def _open(entry: Entry, options: Options, tag_keys: Sequence[Sequence[str]]) -> Storage:
    has_record = tag_keys or options.policy is not None

    return StampedStorage(entry, options, tag_keys) if has_record else Storage(entry, options)
