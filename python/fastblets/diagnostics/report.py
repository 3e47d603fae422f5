"""What is known of an entry, and what was removed of one."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any, Literal

    State = Literal["whole", "invalid", "damaged", "missing"]
    Form = Literal["small", "large"]
    SealState = Literal["valid", "not valid", "partial", "none"]


__all__ = ["EntryReport", "Forgotten", "ItemReport", "TagReport"]


@dataclass(frozen=True)
class ItemReport:
    """One item of an entry.

    Attributes:
        size: The bytes of its pickle. None for a small value that is not encrypted.
        text: The item as text, shortened. Objects are shown as ``<module.Class …>``.
    """

    size: int | None
    text: str


@dataclass(frozen=True)
class EntryReport:
    """What is known of an entry.

    Attributes:
        full_key: The full cache key.
        state: Whether the entry is ``whole``, ``damaged`` or ``missing``; ``invalid`` if it is whole, but calls with
            tags, or a policy, don't take it.
        encrypted: Whether it was looked for as an encrypted entry.
        older_key: Which of the older default encryption keys it was found under: 1 for the latest of them. None if it
            is the current one.
        kind: Whether it is ``small`` or ``large``: a value by itself, or chunks and their count. None if missing.
        compressed: Whether its chunks are compressed. None for a small entry, or without a chunk to tell.
        chunk_count: The stored count of chunks. None for a small entry.
        chunk_sizes: The bytes of each chunk from the first, up to where they were fetched; None for one that is
            missing or no chunk.
        sealed_chunks: How many of these chunks are stored with a second element, a seal.
        seal: Whether all that can have a seal has one that is ``valid``, or there is one that is ``not valid``; whether
            only a part has seals, or nothing. None where that can't be told.
        record: What the entry depends on, if it was stored with tags or a policy: the version, the time for which it is
            fresh, the milliseconds that computing took, the fence, and the tokens of the tags.
        fresh_until: Until when calls with a policy take it as fresh: a time of UTC in ISO 8601. None for as long as it
            is there.
        unknown_tags: How many tags it was stored with that were not given. By these it may have been invalidated.
        stored_bytes: The bytes of all that is stored: chunks, or a small encrypted value.
        pickled_bytes: The bytes of the pickles in there, as far as they could be read.
        item_count: How many whole items there are, as far as they could be read.
        items: The first of the items.
        names: The classes and functions that the pickles name, sorted.
        more_names: Whether they name even more.
        problems: What is wrong with the entry.
        expires: When the first of its keys expires: a time of UTC in ISO 8601, or ``never``. None where the backend
            can't tell.
        notes: What else to know of it.
        fetch_seconds: How long the cache took.
        read_seconds: How long it took to decrypt, decompress and look through all that was fetched.
    """

    full_key: str
    state: State
    encrypted: bool
    older_key: int | None = None
    kind: Form | None = None
    compressed: bool | None = None
    chunk_count: int | None = None
    chunk_sizes: tuple[int | None, ...] = ()
    sealed_chunks: int = 0
    seal: SealState | None = None
    record: str | None = None
    fresh_until: str | None = None
    unknown_tags: int = 0
    stored_bytes: int | None = None
    pickled_bytes: int | None = None
    item_count: int | None = None
    items: tuple[ItemReport, ...] = ()
    names: tuple[str, ...] = ()
    more_names: bool = False
    problems: tuple[str, ...] = ()
    expires: str | None = None
    notes: tuple[str, ...] = ()
    fetch_seconds: float = 0.0
    read_seconds: float = 0.0

    @property
    def ratio(self) -> float | None:
        """How many bytes of pickles one stored byte stands for, None where that is not known."""
        if not self.stored_bytes or self.pickled_bytes is None:
            return None

        return self.pickled_bytes / self.stored_bytes

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, and the ratio, in types that JSON has."""
        return {**asdict(self), "ratio": self.ratio}


@dataclass(frozen=True)
class Forgotten:
    """What was removed of an entry.

    Attributes:
        full_key: The full cache key.
        main: Whether there was something under the full key: a small value, or the count of chunks.
        chunks: How many chunks there were.
        older: The same of the entry under each older default encryption key, the latest first.
        encrypted: Whether it was looked for as an encrypted entry.
    """

    full_key: str
    main: bool
    chunks: int
    older: tuple[Forgotten, ...] = ()
    encrypted: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return all of it in types that JSON has."""
        return asdict(self)


@dataclass(frozen=True)
class TagReport:
    """What is stored for a tag.

    Attributes:
        name: The tag, its parts joined by colons.
        full_keys: The full cache keys of its token: more than one while the default encryption key is being changed.
        token: The token that entries with this tag must have, None if there is none: then they are all invalid.
    """

    name: str
    full_keys: tuple[str, ...]
    token: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return all of it in types that JSON has."""
        return asdict(self)
