"""What an entry depends on: its record, and the stamps that the record is compared with. No cache, no clock.

An entry with tags or a policy has a record. It says what the tags' tokens were, and the entry's fence, before the value
was computed. The entry is valid as long as they still are the same. Tokens are random, so that none ever comes back,
and a tag without a token makes its entries invalid: a cache may drop any key at any time. A valid entry is fresh for as
long as its record says.

A record is a text of five fields, separated by semicolons: the version 1, the fresh life, the cost, the fence, and the
tokens with commas between them. The fresh life is two times with a hyphen between them, in milliseconds since 1970;
the cost is the milliseconds that computing took. Both are empty if the entry never becomes stale. The record is stored
where no other write can part it from its value: beside the last chunk of a large entry, behind the pickle of a small
encrypted one. A small value that is not encrypted leaves no room for it, so that it is stored under a key of its own.

A fence is the token of the last deletion. If the entry was made to expire since then, the token of that and its time in
milliseconds follow, with a colon before each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Final, TypeGuard


#: The most tags of one call. Each is one more key to look up with every hit.
MOST_TAGS: Final = 16

#: For how long, in seconds, a deletion is remembered: longer than any computation that began before it.
FENCE_SECONDS: Final = 24 * 60 * 60

_VERSION: Final = "1"

#: The longest token that is one.
_MOST_CHARACTERS: Final = 64

#: The longest time that is one, in digits: for 30 million years from 1970 on.
_MOST_DIGITS: Final = 18


class Life(NamedTuple):
    """For how long an entry is fresh, and how long computing it took. All are milliseconds.

    Attributes:
        start: When it was stored, since 1970.
        end: Until when it is fresh, since 1970.
        cost: How long computing took.
    """

    start: int
    end: int
    cost: int


class Record:
    """The stamps of an entry, as they were before its value was computed, and its life.

    Attributes:
        fence: The token that says of which deletion the entry knows, empty if of none.
        life: For how long it is fresh, None for as long as it is there.
        tokens: The tokens of its tags, in alphabetical order.
    """

    __slots__ = ("fence", "life", "tokens")

    fence: str
    life: Life | None
    tokens: Sequence[str]

    def __init__(self, fence: str, tokens: Sequence[str], life: Life | None = None) -> None:
        """Take the parts."""
        self.fence = fence
        # With a policy alone there are none.
        self.tokens = sorted(tokens) if tokens else ()
        self.life = life

    def encode(self) -> str:
        """Return the text that is stored."""
        life = self.life
        times = ";" if life is None else f"{life.start}-{life.end};{life.cost}"

        return f"{_VERSION};{times};{self.fence};{','.join(self.tokens)}"

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

        _, times, cost, fence, tokens = fields
        life = None

        if times or cost:
            try:
                start, end = times.split("-")
                life = Life(int(start), int(end), int(cost))
            except ValueError:
                return None

        return cls(fence, tokens.split(",") if tokens else (), life)

    def holds(self, now: Record | None) -> bool:
        """Return whether an entry with this record is valid.

        Args:
            now: The record that an entry computed now would have, None if it can't have one.
        """
        # Looked up without tags, an entry is found.
        if now is None or (now.tokens and self.tokens != now.tokens):
            return False

        # Without a fence nothing was deleted lately.
        return now.fence in ("", self.fence) or get_deletion(now.fence) in ("", get_deletion(self.fence))


def get_deletion(fence: str) -> str:
    """Return the token of the last deletion, empty if there was none."""
    return fence.partition(":")[0]


def make_expired(fence: object, token: str, now: int) -> str:
    """Return the fence of an entry that was made to expire.

    Args:
        fence: What is stored as its fence, empty if there is none.
        token: A random token.
        now: The time, in milliseconds since 1970.
    """
    # Another deletion may come between this and storing it. It removes what is there, but a computation that began
    # before it would be kept, as expired.
    return f"{get_deletion(_read_fence(fence))}:{token}:{now}"


def find_end(record: Record | None, now: Record) -> int | None:
    """Return until when a valid entry is fresh, in milliseconds since 1970; None for as long as it is there.

    Args:
        record: The entry's record, None if it has none.
        now: The record that an entry computed now would have.
    """
    end = None if record is None or record.life is None else record.life.end

    if ":" not in now.fence:
        return end

    expiry = now.fence.split(":")

    if len(expiry) != 3 or (record is not None and record.fence.split(":")[1:2] == expiry[1:2]):
        return end

    return int(expiry[2]) if end is None else min(end, int(expiry[2]))


class Stamps:
    """Where the stamps of an entry are.

    Attributes:
        fence_key: The full key of its fence, None if it has none.
        keys: All full keys.
        tag_keys: For each tag its full keys: more than one while the default encryption key is being changed.
    """

    __slots__ = ("fence_key", "keys", "tag_keys")

    fence_key: str | None
    keys: list[str]
    tag_keys: Sequence[Sequence[str]]

    def __init__(self, fence_key: str | None, tag_keys: Sequence[Sequence[str]]) -> None:
        """Take the keys."""
        self.fence_key = fence_key
        self.tag_keys = tag_keys
        self.keys = [] if fence_key is None else [fence_key]

        if tag_keys:
            self.keys += [key for keys in tag_keys for key in keys]

    def read(self, found: Mapping[str, Any]) -> Record | None:
        """Return the record that an entry computed now has, None if a tag has no token that holds.

        Args:
            found: What is stored, by full key.
        """
        tokens: list[str] = []

        for keys in self.tag_keys:
            token = find_token([found.get(key) for key in keys])

            if token is None:
                return None

            tokens.append(token)

        return Record("" if self.fence_key is None else _read_fence(found.get(self.fence_key, "")), tokens)


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


def _read_fence(stored: object) -> str:
    # Something else than a fence marks a deletion, too: better a miss too many.
    return stored if isinstance(stored, str) and (stored == "" or _is_fence(stored)) else "foreign"


def _is_fence(stored: str) -> bool:
    deletion, *expiry = stored.split(":")

    return (_is_token(deletion) or (deletion == "" and bool(expiry))) and (
        not expiry or (len(expiry) == 2 and _is_token(expiry[0]) and _is_time(expiry[1]))
    )


def _is_time(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS
