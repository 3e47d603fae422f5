"""Looking at entries of the cache, and removing them, for those who run a site.

No pickle of an entry is executed here. What the cache's own client pickles around it is not in our hands: it unpickles
that before anyone can look at it, and a small value that isn't encrypted along with it.
"""

from __future__ import annotations

import pickle
import time
import zlib
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from reprlib import Repr
from typing import TYPE_CHECKING, TypeVar

from django.core.cache import cache

from fastblets import _native
from fastblets.cache.connection import get_cache
from fastblets.cache.entry import Entry, parse_count
from fastblets.cache.errors import ForeignValueError
from fastblets.cache.options import UNSET, Options
from fastblets.cache.seals import resolve_seal
from fastblets.cache.storage import FETCH_SIZE
from fastblets.conf import get_settings
from fastblets.expiry import get_expiry
from fastblets.secrets.crypto import AES_BLOCK_SIZE, aes_decrypt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Final, Literal

    from fastblets.cache.seals import Seal

    State = Literal["whole", "damaged", "missing"]
    Kind = Literal["small", "large"]
    SealState = Literal["valid", "not valid", "partial", "none"]


__all__ = ["EntryReport", "Forgotten", "ItemReport", "forget_entry", "inspect_entry"]


_T = TypeVar("_T")


#: What the clients of caches raise for data that they can't unpickle. What they raise for a server that is down is none
#: of these.
_UNPICKLING_ERRORS: Final = (
    pickle.UnpicklingError,
    zlib.error,
    ArithmeticError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    TypeError,
    ValueError,
)

#: Stands for what can't be unpickled.
_UNREADABLE: Final = object()

#: The states of entries, from the best one on.
_STATES: Final = ("whole", "damaged", "missing")

#: The longest list of chunks that is written out in a problem.
_MOST_NAMED: Final = 10

_repr = Repr()
_repr.maxlevel = 8
_repr.maxlist = _repr.maxtuple = _repr.maxset = _repr.maxfrozenset = _repr.maxdict = 20
_repr.maxstring = _repr.maxother = 200
_repr.maxlong = 100


@dataclass(frozen=True)
class ItemReport:
    """One item of an entry.

    Attributes:
        size: The bytes of its pickle. None for a small value that isn't encrypted.
        text: How it looks, shortened. Objects are shown as ``<module.Class …>``.
    """

    size: int | None
    text: str


@dataclass(frozen=True)
class EntryReport:
    """What is known of an entry.

    Attributes:
        full_key: The full cache key.
        state: Whether it is ``whole``, ``damaged`` or ``missing``.
        kind: Whether it is ``small`` or ``large``: a value by itself, or chunks and their count. None if missing.
        encrypted: Whether it was looked for as an encrypted entry.
        older_key: Which of the older default encryption keys it was found under: 1 for the latest of them. None if it
            is the current one.
        compressed: Whether its chunks are compressed. None for a small entry, or where there is no chunk to tell.
        chunk_count: The stored count of chunks. None for a small entry.
        chunk_sizes: The bytes of each chunk from the first, up to where they were fetched; None for one that is
            missing or no chunk.
        sealed_chunks: How many of these chunks are stored with a second element, a seal.
        seal: Whether all that can have a seal has one that is ``valid``, or there is one that is ``not valid``; whether
            only a part has seals, or nothing. None where that can't be told.
        stored_bytes: The bytes of all that is stored: chunks, or a small encrypted value.
        pickled_bytes: The bytes of the pickles in there, as far as they could be read.
        item_count: How many whole items there are, as far as they could be read.
        items: The first of the items.
        names: The classes and functions that the pickles name, sorted.
        more_names: Whether they name even more.
        problems: What is wrong with it.
        expires: When the first of what it needs ends: a time of UTC in ISO 8601, or ``never``. None where the backend
            can't tell.
        notes: What else is to be known of it.
        fetch_seconds: How long the cache took.
        read_seconds: How long it took to decrypt, decompress and look through all that was fetched.
    """

    full_key: str
    state: State
    encrypted: bool
    older_key: int | None = None
    kind: Kind | None = None
    compressed: bool | None = None
    chunk_count: int | None = None
    chunk_sizes: tuple[int | None, ...] = ()
    sealed_chunks: int = 0
    seal: SealState | None = None
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
        """How many bytes of pickles one stored byte stands for, None where that isn't known."""
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


def inspect_entry(
    key: str | Sequence[str],
    *,
    use_encryption: bool | None = None,
    encryption_key: bytes | None = None,
    compressed: bool | None = None,
    large: bool | None = None,
    items: int = 5,
) -> EntryReport:
    """Return what is known of an entry, whatever has become of it.

    If nothing is stored under the default encryption key, the entry is looked for under the older ones. Seals are
    verified, whether the setting ``FASTBLETS_SEAL`` asks for them or not; where it requires them, an entry without one
    is damaged.

    Chunks are fetched as a reader does it, and kept in memory as they are stored; of what is in them, no more than the
    largest item.

    Args:
        key: The base key, as for :func:`~fastblets.cache.backend.cache_memoize`.
        use_encryption: As for :func:`~fastblets.cache.backend.cache_memoize`.
        encryption_key: As for :func:`~fastblets.cache.backend.cache_memoize`.
        compressed: Whether chunks are compressed. Default: as they say themselves.
        large: Whether it is a large entry. Default: it is one if what is stored under the full key is a text of
            decimal digits.
        items: How many items to show.

    Raises:
        Exception: The cache failed, in the words of its client.
        ImproperlyConfigured: A setting has a wrong value.
        ValueError: The encryption key has a wrong length.
    """
    entry = _entry(key, use_encryption, encryption_key)

    if entry.encryption_key is not None:
        # A key of a wrong length is no damage of the entry.
        _native.Decryptor(entry.encryption_key, bytes(AES_BLOCK_SIZE))

    seal = resolve_seal(get_settings())
    report = _Look(entry, seal, compressed, items).take(large)

    if report.state != "missing":
        return report

    older = (
        replace(_Look(each, seal, compressed, items).take(large), older_key=number)
        for number, each in enumerate(entry.get_older(), 1)
    )

    # A call takes the first that it can read.
    return min([report, *older], key=lambda found: _STATES.index(found.state))


@dataclass
class _Look:
    entry: Entry
    setting: Seal
    compressed: bool | None
    show: int
    report: EntryReport = field(init=False)

    def take(self, large: bool | None) -> EntryReport:
        self.report = EntryReport(self.entry.full_key, "whole", self.entry.encryption_key is not None)

        # Whatever is stored, by then there is a connection, which is no part of the time.
        with suppress(*_UNPICKLING_ERRORS):
            cache.has_key(self.entry.full_key)

        try:
            value = self._timed("fetch_seconds", lambda: cache.get(self.entry.full_key, UNSET))
        except _UNPICKLING_ERRORS as e:
            self._damaged(f"the cache's client can't unpickle what is stored: {_describe(e)}")

            return self.report

        if value is UNSET:
            return replace(self.report, state="missing")

        self._set(expires=get_expiry(get_cache(), [self.entry.full_key]))
        small, content, plain = self._small(value)
        count = _count_of(content)

        # A text of digits may have a seal that tells.
        is_value = large is None and plain is not None and not self._open(plain, is_count=False)

        if count is None or large is False or is_value:
            self.report = small

            if large:
                self._set(kind="large")
                self._damaged("what is stored under its key is no count of chunks")
            elif plain is not None or not small.encrypted:
                self._timed("read_seconds", lambda: self._check_seals(plain, is_count=False))

            return self.report

        # The chunks are stored one after the other, and last of all the count.
        first = self.entry.chunk_keys(0, min(count, 1))
        self._set(kind="large", chunk_count=count, expires=get_expiry(get_cache(), [self.entry.full_key, *first]))
        chunks, seals = self._fetch(count)

        if large is None and not chunks:
            self._note(f'or it is a small value, the text "{content}"')

        self._timed("read_seconds", lambda: self._check_seals(plain, chunks, seals, is_count=True))
        self._timed("read_seconds", lambda: self._read(chunks))

        return self.report

    def _small(self, value: object) -> tuple[EntryReport, object, bytes | None]:
        """Return what is known if it is a small value, its text, if it is one, and what was encrypted."""
        aes_key = self.entry.encryption_key

        if aes_key is None:
            report = replace(
                self.report,
                kind="small",
                item_count=1,
                items=(ItemReport(None, _safe_repr(value)),)[: self.show],
                notes=("its value was unpickled by the cache's client",),
            )

            return report, value, None

        if not isinstance(value, bytes):
            problem = f"an encrypted value is stored as bytes, not as {type(value).__name__}"

            return replace(self.report, kind="small", state="damaged", problems=(problem,)), None, None

        report = replace(self.report, kind="small", stored_bytes=len(value))
        start = time.perf_counter()

        try:
            plain = aes_decrypt(value, key=aes_key)
        except ValueError as e:
            return replace(report, state="damaged", problems=(_describe(e),)), None, None

        pickled, _ = _native.split_seal(plain)
        found = _native.inspect_chunks([pickled], False, None, max(self.show, 1))
        problems = []

        if found.damage:
            problems.append(f"{_plain(found.damage[0])}, or it was encrypted with another key")
        elif found.count != 1:
            problems.append(f"it holds {found.count} pickles instead of one")

        report = replace(
            _with_contents(report, found),
            state="damaged" if problems else "whole",
            problems=tuple(problems),
            read_seconds=time.perf_counter() - start,
        )
        # Not unpickled for a look at it: as it is shown, a text stands between quotes, and nothing else does.
        text = "" if problems else found.items[0][1]
        content = text[1:-1] if text.startswith("'") and text.endswith("'") else None

        return replace(report, items=report.items[: self.show]), content, plain

    def _fetch(self, count: int) -> tuple[list[bytes], list[bytes]]:
        """Return the chunks up to the first that isn't there, and all seals."""
        sizes: list[int | None] = []
        chunks: list[bytes] = []
        seals: list[bytes] = []
        strange: set[int] = set()

        while len(sizes) < count:
            start = len(sizes)
            found = self._get_many(self.entry.chunk_keys(start, min(start + FETCH_SIZE, count)))

            for stored in found:
                chunk = _chunk_of(stored)

                if stored is not UNSET and chunk is None:
                    strange.add(len(sizes))

                if chunk is not None:
                    # What is no bytes is no seal, either.
                    seals += [seal if isinstance(seal, bytes) else b"" for seal in stored[1:2]]

                    if len(chunks) == len(sizes):
                        chunks.append(chunk)

                sizes.append(None if chunk is None else len(chunk))

            if all(stored is UNSET for stored in found):
                # A count may be any number: nobody asks for a million chunks that aren't there.
                break

        self._set(
            chunk_sizes=tuple(sizes),
            sealed_chunks=len(seals),
            stored_bytes=sum(size for size in sizes if size is not None),
        )
        self._check_chunks(count, strange)

        return chunks, seals

    def _get_many(self, keys: list[str]) -> list[Any]:
        found = self._timed("fetch_seconds", lambda: _get_each(keys))

        return [found.get(key, UNSET) for key in keys]

    def _check_chunks(self, count: int, strange: set[int]) -> None:
        sizes = self.report.chunk_sizes
        missing = [number for number, size in enumerate(sizes) if size is None and number not in strange]
        full = _native.CACHE_CHUNK_SIZE

        if missing:
            more = count - len(sizes)
            rest = f", and nobody looked for the {more:,} behind" if more else ""
            self._damaged(f"{_chunks_are(missing, 'missing')} of {count:,}{rest}")

        if strange:
            self._damaged(_chunks_are(sorted(strange), "no list that begins with bytes"))

        for number, size in enumerate(sizes):
            is_last = number == count - 1

            # An empty entry that is sealed has a chunk for its seal.
            least = 0 if count == 1 and self.report.sealed_chunks == 1 else 1

            if size is not None and not (least <= size <= full if is_last else size == full):
                expected = f"1 to {full:,}" if is_last else f"{full:,}"
                self._damaged(f"chunk {number} has {size:,} bytes, not {expected}")

                # One wrong cut moves all that follow.
                break

    def _check_seals(
        self, plain: bytes | None, chunks: Sequence[bytes] = (), seals: Sequence[bytes] = (), *, is_count: bool
    ) -> None:
        """Verify the seals of a count and its chunks, or of a value.

        Args:
            plain: What was encrypted. None if nothing was: then the count or value can't have a seal.
            chunks: The chunks.
            seals: Their seals.
            is_count: Whether there is a count.
        """
        of_main = plain is not None and _native.split_seal(plain)[1]
        errors = []
        lacking = []
        is_needed = self.setting == "require"

        if plain is not None and of_main:
            errors.append(self._open(plain, is_count=is_count))
        elif plain is not None:
            lacking.append("its count" if is_count else "its value")

        # If not, it is damaged anyway, and what is left of the chunks can't be verified.
        complete = None not in self.report.chunk_sizes and len(chunks) == (self.report.chunk_count or 0)

        if complete and is_count and len(seals) < max(len(chunks), 1):
            lacking.append(f"{len(chunks) - len(seals):,} of its {len(chunks):,} chunks" if seals else "its chunks")
            # Chunks with and without seals are of two writes. Without chunks, there is only the count to believe.
            is_needed = is_needed or bool(seals) or (not chunks and self.setting is True)
        elif complete and seals:
            error = _error_of(self.entry.make_sealer().check_chunks, chunks, seals)
            errors.append(f"{error}, or FASTBLETS_SEAL_KEY was another one" if error and plain is None else error)

        if any(errors):
            self._set(seal="not valid")
            self._damaged("; ".join(filter(None, errors)))
        elif complete:
            self._set(seal="none" if not (of_main or seals) else "partial" if lacking else "valid")

        if lacking and (is_needed or self.report.seal == "partial"):
            problem = f"there is no seal on {' and '.join(lacking)}"
            (self._damaged if is_needed else self._note)(problem)

        has_key = plain is not None or getattr(get_settings(), "FASTBLETS_SEAL_KEY", None) is not None

        if self.report.seal == "valid" and not has_key:
            self._note("its seals were made without a secret: they notice accidents only")

    def _open(self, plain: bytes, *, is_count: bool) -> str:
        """Return why what was encrypted isn't a count, or a value, with a valid seal; empty if it is."""
        return _error_of(_native.open_pickle, plain, is_count, self.entry.make_sealer(), True)

    def _read(self, chunks: list[bytes]) -> None:
        found = _native.inspect_chunks(chunks, self.compressed, self.entry.encryption_key, self.show)
        sizes = self.report.chunk_sizes
        self.report = replace(_with_contents(self.report, found), compressed=found.compressed if chunks else None)

        # Where chunks are missing it is known why it ends too early.
        if found.damage and None not in sizes:
            what, number = found.damage
            hint = ""

            if found.count == 0 and not found.compressed and self.entry.encryption_key is not None:
                hint = ", or it was encrypted with another key"

            self._damaged(
                f"{_plain(what)}{hint} (noticed in chunk {number}, behind {found.pickled:,} bytes of pickles)"
            )

        if not found.compressed and chunks and self.report.state == "whole" and self.report.seal != "valid":
            self._note("it is not compressed, so it has no checksum")

    def _timed(self, name: Literal["fetch_seconds", "read_seconds"], work: Callable[[], _T]) -> _T:
        start = time.perf_counter()

        try:
            return work()
        finally:
            self._set(**{name: getattr(self.report, name) + time.perf_counter() - start})

    def _note(self, note: str) -> None:
        self._set(notes=(*self.report.notes, note))

    def _damaged(self, problem: str) -> None:
        self._set(state="damaged", problems=(*self.report.problems, problem))

    def _set(self, **changes: Any) -> None:
        self.report = replace(self.report, **changes)


def forget_entry(
    key: str | Sequence[str],
    *,
    use_encryption: bool | None = None,
    encryption_key: bytes | None = None,
) -> Forgotten:
    """Remove an entry with all its chunks, also those of one whose count is gone or wrong.

    The count goes first, so that nobody reads what is left meanwhile. Then chunks are looked for, by 64 at a time,
    until there are none. The same goes for the entry under each older default encryption key.

    Args:
        key: The base key, as for :func:`~fastblets.cache.backend.cache_memoize`.
        use_encryption: As for :func:`~fastblets.cache.backend.cache_memoize`.
        encryption_key: As for :func:`~fastblets.cache.backend.cache_memoize`.

    Raises:
        Exception: The cache failed, in the words of its client.
        ImproperlyConfigured: A setting has a wrong value.
    """
    entry = _entry(key, use_encryption, encryption_key)
    # They go first: a call that misses the entry takes what it finds under an older key, and stores it again.
    older = tuple(_forget(each) for each in entry.get_older())

    return replace(_forget(entry), older=older)


def _forget(entry: Entry) -> Forgotten:
    try:
        main = cache.get(entry.full_key, UNSET) is not UNSET
    except _UNPICKLING_ERRORS:
        main = True

    cache.delete(entry.full_key)
    chunks = start = 0

    while True:
        keys = entry.chunk_keys(start, start + FETCH_SIZE)
        # Only what is stored as a chunk, or can't be read: another entry's own key may look like that of a chunk.
        found = [
            key for key, stored in _get_each(keys).items() if stored is _UNREADABLE or _chunk_of(stored) is not None
        ]

        if not found:
            return Forgotten(entry.full_key, main, chunks, encrypted=entry.encryption_key is not None)

        cache.delete_many(found)
        chunks += len(found)
        start += FETCH_SIZE


def _get_each(keys: list[str]) -> dict[str, Any]:
    """Return what is stored under the keys, ``_UNREADABLE`` for what can't be unpickled."""
    try:
        return cache.get_many(keys)
    except _UNPICKLING_ERRORS:
        # One of them. Which?
        found = {}

    for key in keys:
        try:
            value = cache.get(key, UNSET)
        except _UNPICKLING_ERRORS:
            value = _UNREADABLE

        if value is not UNSET:
            found[key] = value

    return found


def _entry(key: str | Sequence[str], use_encryption: bool | None, encryption_key: bytes | None) -> Entry:
    options = Options(None, True, use_encryption, encryption_key, False)

    return Entry(key, options, options.encryption_key)


def _with_contents(report: EntryReport, found: _native.Inspection) -> EntryReport:
    return replace(
        report,
        pickled_bytes=found.pickled,
        item_count=found.count,
        items=tuple(ItemReport(size, text) for size, text in found.items),
        names=tuple(found.names),
        more_names=found.more_names,
    )


def _error_of(check: Callable[..., object], *args: object) -> str:
    """Return what a check of ours raises, as a part of a sentence; empty if nothing."""
    try:
        check(*args)
    except ValueError as e:
        return _plain(str(e))

    return ""


def _chunk_of(stored: Any) -> bytes | None:
    if isinstance(stored, (list, tuple)) and stored and isinstance(stored[0], bytes):
        return stored[0]

    return None


def _count_of(stored: object) -> int | None:
    try:
        return parse_count(stored)
    except ForeignValueError:
        return None


def _chunks_are(numbers: list[int], what: str) -> str:
    if len(numbers) == 1:
        return f"chunk {numbers[0]} is {what}"

    named = ", ".join(str(number) for number in numbers[:_MOST_NAMED])
    more = f" and {len(numbers) - _MOST_NAMED:,} more" if len(numbers) > _MOST_NAMED else ""

    return f"chunks {named}{more} are {what}"


def _safe_repr(value: object) -> str:
    try:
        text = _repr.repr(value)
    except Exception as e:
        # An object's own __repr__().
        text = f"<{type(value).__module__}.{type(value).__qualname__}, whose repr() fails: {type(e).__name__}>"

    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def _describe(error: Exception) -> str:
    text = _plain(str(error))

    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _plain(text: str) -> str:
    """Return a sentence as a part of another one."""
    return text.rstrip(".")
