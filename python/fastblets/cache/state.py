"""What an entry depends on: its record, and the stamps that the record is compared with. No cache, no clock.

An entry with tags has a record. It says what the tags' tokens were, and the entry's fence, before the value was
computed. The entry is valid as long as they still are the same. Tokens are random, so that none ever comes back, and a
tag without a token makes its entries invalid: a cache may drop any key at any time.

A record is a text of five fields, separated by semicolons: the version 1, two fields for later versions, the fence, and
the tokens with commas between them. It is stored where no other write can part it from its value: beside the last chunk
of a large entry, behind the pickle of a small encrypted one. A small value that is not encrypted leaves no room for it,
so that it is stored under a key of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any, Final, TypeGuard


#: The most tags of one call. Each is one more key to look up with every hit.
MOST_TAGS: Final = 16

#: For how long, in seconds, a deletion is remembered: longer than any computation that began before it.
FENCE_SECONDS: Final = 24 * 60 * 60

_VERSION: Final = "1"

#: The longest token that is one.
_MOST_CHARACTERS: Final = 64


class Record:
    """The stamps of an entry, as they were before its value was computed.

    Attributes:
        fence: The token that says of which deletion the entry knows, empty if of none.
        tokens: The tokens of its tags, in alphabetical order.
    """

    __slots__ = ("fence", "tokens")

    fence: str
    tokens: Sequence[str]

    def __init__(self, fence: str, tokens: Iterable[str]) -> None:
        """Take both."""
        self.fence = fence
        self.tokens = sorted(tokens)

    def encode(self) -> str:
        """Return the text that is stored."""
        return f"{_VERSION};;;{self.fence};{','.join(self.tokens)}"

    @classmethod
    def parse(cls, stored: object) -> Record | None:
        """Return the record of which that is the text, None if it isn't one.

        Args:
            stored: What is stored: text, or bytes in ASCII.
        """
        if isinstance(stored, bytes):
            stored = stored.decode("ascii", "replace")

        fields = stored.split(";") if isinstance(stored, str) else ()

        if len(fields) != 5 or fields[0] != _VERSION:
            return None

        return cls(fields[3], filter(None, fields[4].split(",")))

    def holds(self, now: Record | None) -> bool:
        """Return whether an entry with this record is valid.

        Args:
            now: The record that an entry computed now would have, None if it can't have one.
        """
        # Without a fence nothing was deleted lately.
        return now is not None and self.tokens == now.tokens and now.fence in ("", self.fence)


class Stamps:
    """Where the stamps of an entry are.

    Attributes:
        fence_key: The full key of its fence.
        keys: All full keys.
        tag_keys: For each tag its full keys: more than one while the default encryption key is being changed.
    """

    __slots__ = ("fence_key", "keys", "tag_keys")

    fence_key: str
    keys: Sequence[str]
    tag_keys: Sequence[Sequence[str]]

    def __init__(self, fence_key: str, tag_keys: Sequence[Sequence[str]]) -> None:
        """Take the keys."""
        self.fence_key = fence_key
        self.tag_keys = tag_keys
        self.keys = [fence_key, *(key for keys in tag_keys for key in keys)]

    def read(self, found: Mapping[str, Any]) -> Record | None:
        """Return the record that an entry computed now has, None if a tag has no token that holds.

        Args:
            found: What is stored, by full key.
        """
        tokens = []

        for keys in self.tag_keys:
            token = find_token([found.get(key) for key in keys])

            if token is None:
                return None

            tokens.append(token)

        fence = found.get(self.fence_key, "")

        # Something else than a token marks a deletion, too: better a miss too many.
        return Record(fence if fence == "" or _is_token(fence) else "foreign", tokens)


def find_token(stored: Sequence[object]) -> str | None:
    """Return the token of a tag, None if it has none that holds.

    Args:
        stored: What is stored under each of its keys. If they differ, a process that doesn't know the newest encryption
            key yet has invalidated the tag.
    """
    token = stored[0]

    return token if _is_token(token) and all(other == token for other in stored[1:]) else None


def _is_token(stored: object) -> TypeGuard[str]:
    return isinstance(stored, str) and stored.isascii() and stored.isalnum() and len(stored) <= _MOST_CHARACTERS
