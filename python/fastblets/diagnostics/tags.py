"""Looking at the token of a tag."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastblets.cache.options import UNSET, Options
from fastblets.cache.stamped import make_tag_keys
from fastblets.cache.state import find_token
from fastblets.cache.storage import fetch
from fastblets.diagnostics.report import TagReport

if TYPE_CHECKING:
    from fastblets.cache.options import Tag


__all__ = ["inspect_tag"]


def inspect_tag(tag: Tag, *, cache: str | None = None) -> TagReport:
    """Return what is stored for a tag.

    Args:
        tag: The tag, as for :func:`~fastblets.cache.backend.cache_memoize`.
        cache: The alias in ``CACHES`` of the cache. Default: the default cache.

    Raises:
        Exception: The cache failed, in the words of its client.
        ImproperlyConfigured: A setting has a wrong value.
    """
    options = Options(UNSET, True, False, None, False, cache)
    ((*keys,),) = make_tag_keys([tag], options)
    found = fetch(options.get_cache(), keys)

    return TagReport(
        tag if isinstance(tag, str) else ":".join(tag), tuple(keys), find_token([found.get(key) for key in keys])
    )
