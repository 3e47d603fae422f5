"""Looking at an entry of the cache, in whatever state it is.

No pickle of an entry is executed here. The cache's client is another matter: it unpickles what it fetches, and with
that a small value that is not encrypted.
"""

from __future__ import annotations

import re
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from reprlib import Repr
from typing import TYPE_CHECKING

from fastblets import _native
from fastblets.cache.entry import Entry, get_chunk_sizes, get_record, must_have_seals, parse_count
from fastblets.cache.errors import ForeignValueError
from fastblets.cache.options import UNSET, Options
from fastblets.cache.seals import get_seal_key, resolve_seal
from fastblets.cache.shortcuts import get_settings
from fastblets.cache.stamped import make_tag_keys
from fastblets.cache.state import Record, Stamps, find_end, get_deletion
from fastblets.cache.storage import FETCH_SIZE
from fastblets.diagnostics.expiry import get_expiry
from fastblets.diagnostics.fetch import UNPICKLING_ERRORS, fetch, get_chunk
from fastblets.diagnostics.report import EntryReport, ItemReport
from fastblets.secrets.crypto import AES_BLOCK_SIZE, aes_decrypt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, Final, Literal

    from django.core.cache.backends.base import BaseCache

    from fastblets.cache.options import Tag
    from fastblets.cache.seals import Seal
    from fastblets.diagnostics.report import State


__all__ = ["inspect_entry"]


#: The longest list of chunks that is written out in a problem.
_MOST_NAMED: Final = 10

_repr = Repr()
_repr.maxlevel = 8
_repr.maxlist = _repr.maxtuple = _repr.maxset = _repr.maxfrozenset = _repr.maxdict = 20
_repr.maxstring = _repr.maxother = 200
_repr.maxlong = 100


def inspect_entry(
    key: str | Sequence[str],
    *,
    use_encryption: bool | None = None,
    encryption_key: bytes | None = None,
    compressed: bool | None = None,
    large: bool | None = None,
    items: int = 5,
    cache: str | None = None,
    tags: Sequence[Tag] = (),
) -> EntryReport:
    """Return what is known of an entry, in whatever state it is.

    If nothing is stored under the default encryption key, the entry is looked for under the older ones. Seals are
    verified, whether the setting ``FASTBLETS_SEAL`` asks for them or not; where it requires them, an entry without one
    is damaged.

    Chunks are fetched as a reader fetches them, and kept in memory as they are stored; of their contents no more than
    the largest item is kept.

    Args:
        key: The base key, as for :func:`~fastblets.cache.backend.cache_memoize`.
        use_encryption: As for :func:`~fastblets.cache.backend.cache_memoize`.
        encryption_key: As for :func:`~fastblets.cache.backend.cache_memoize`.
        compressed: Whether chunks are compressed. Default: as they say themselves.
        large: Whether it is a large entry. Default: it is one if a text of decimal digits is stored under the full key.
        items: How many items to show.
        cache: The alias in ``CACHES`` of the cache. Default: the default cache.
        tags: The tags of the calls that read it, as for :func:`~fastblets.cache.backend.cache_memoize`. Without them
            it can't be told whether an entry with tags was invalidated.

    Raises:
        Exception: The cache failed, in the words of its client.
        ImproperlyConfigured: A setting has a wrong value.
        TypeError: A tag is of a wrong type.
        ValueError: The encryption key has a wrong length, or there are more than 16 tags.
    """
    options = Options(None, True, use_encryption, encryption_key, False, cache)
    tag_keys = make_tag_keys(tags, options)
    entry = Entry(key, options, options.encryption_key)
    seal = resolve_seal(get_settings())

    if entry.encryption_key is not None:
        # Raised here, so that a key of a wrong length is not mistaken for damage.
        _native.Decryptor(entry.encryption_key, bytes(AES_BLOCK_SIZE))

    def inspect(each: Entry) -> EntryReport:
        return _Inspector(each, options.get_cache(), seal, compressed, items).inspect(large, tag_keys)

    report = inspect(entry)

    if report.state != "missing":
        return report

    older = (replace(inspect(each), older_key=number) for number, each in enumerate(entry.get_older(), 1))

    # What is there is newer than anything under an older key.
    return next((found for found in older if found.state != "missing"), report)


@dataclass(frozen=True)
class _Main:
    """What is stored under a full key.

    Attributes:
        content: The value of an entry that is not encrypted; of an encrypted one its text, if it is a text of digits.
        decrypted: The decrypted bytes, with their seal. None if the entry is not encrypted, or can't be decrypted.
        report: The report, if it is a small value.
    """

    content: object
    decrypted: bytes | None
    report: EntryReport


class _Inspector:
    """Looks at an entry under one encryption key, and fills in a report."""

    def __init__(self, entry: Entry, cache: BaseCache, seal: Seal, compressed: bool | None, show: int) -> None:
        self._entry = entry
        self._cache = cache
        self._seal = seal
        self._compressed = compressed
        self._show = show
        self._report = EntryReport(entry.full_key, "whole", entry.encryption_key is not None)

    def inspect(self, large: bool | None, tag_keys: Sequence[Sequence[str]]) -> EntryReport:
        """Return the report.

        Args:
            large: As for :func:`inspect_entry`.
            tag_keys: The full keys of each tag.
        """
        self._inspect(large)

        if self._report.state == "whole":
            self._check_stamps(Stamps(self._entry.make_fence_key(), tag_keys))

        return self._report

    def _inspect(self, large: bool | None) -> None:
        full_key = self._entry.full_key

        # Connects, whatever is stored: connecting is no part of the time.
        with suppress(*UNPICKLING_ERRORS):
            self._cache.has_key(full_key)

        try:
            with self._timing("fetch_seconds"):
                stored = self._cache.get(full_key, UNSET)
        except UNPICKLING_ERRORS as e:
            self._add_problem(f"the cache's client can't unpickle what is stored: {_describe(e)}")

            return

        if stored is UNSET:
            self._set(state="missing")

            return

        self._set(expires=get_expiry(self._cache, [full_key]))
        main = self._open(stored)
        count = _parse_count(main.content)

        if large is None and self._is_sealed_value(main):
            large = False

        if count is not None and large is not False:
            self._inspect_large(main, count, may_be_small=large is None)
        else:
            self._report = main.report

            if not self._report.encrypted:
                self._set(record=self._fetch_record())

            if large:
                self._set(kind="large")
                self._add_problem("what is stored under its key is no count of chunks")
            elif main.decrypted is not None or not self._report.encrypted:
                with self._timing("read_seconds"):
                    self._check_seals(main, "its value")

    def _check_stamps(self, stamps: Stamps) -> None:
        """Look whether calls with tags take the entry."""
        if self._report.record is None and not stamps.tag_keys:
            return

        record = Record.parse(self._report.record)
        now = stamps.read(fetch(self._cache, list(stamps.keys)))

        if record is None:
            self._add_problem("it was stored without tags, so that calls with tags don't take it", state="invalid")
        elif now is None or not set(now.tokens) <= set(record.tokens):
            self._add_problem(
                "it was stored with other tags or invalidated since, so that calls with these tags don't take it",
                state="invalid",
            )
        elif get_deletion(now.fence) not in ("", get_deletion(record.fence)):
            self._add_problem(
                "it was computed before it was deleted last, so that calls with tags or a policy don't take it",
                state="invalid",
            )
        else:
            end = find_end(record, now)
            fresh_until = None if end is None else datetime.fromtimestamp(end / 1000, timezone.utc).isoformat()
            self._set(unknown_tags=len(record.tokens) - len(now.tokens), fresh_until=fresh_until)

    def _open(self, stored: object) -> _Main:
        """Decrypt what is stored under the full key, and look at it as a small value."""
        if self._entry.encryption_key is None:
            small = replace(
                self._report,
                kind="small",
                item_count=1,
                items=(ItemReport(None, _safe_repr(stored)),)[: self._show],
                notes=("its value was unpickled by the cache's client",),
            )

            return _Main(stored, None, small)

        if not isinstance(stored, bytes):
            return self._fail_to_open(f"an encrypted value is stored as bytes, not as {type(stored).__name__}")

        start = time.perf_counter()

        try:
            decrypted = aes_decrypt(stored, key=self._entry.encryption_key)
        except ValueError as e:
            return self._fail_to_open(_describe(e), len(stored))

        pickled, record, _ = _native.split_value(decrypted)
        found = _native.inspect_chunks([pickled], False, None, max(self._show, 1))
        problem = ""

        if found.damage:
            problem = f"{_plain(found.damage[0])}, or it was encrypted with another key"
        elif found.count != 1:
            problem = f"it holds {found.count} pickles instead of one"

        small = replace(
            _with_contents(self._report, found),
            kind="small",
            state="damaged" if problem else "whole",
            problems=(problem,) if problem else (),
            stored_bytes=len(stored),
            record=None if record is None else record.decode("ascii"),
            read_seconds=time.perf_counter() - start,
        )
        # Not unpickled. A text is shown between quotes, and nothing else is.
        digits = None if problem else re.fullmatch("'([0-9]+)'", found.items[0][1])

        return _Main(digits and digits[1], decrypted, replace(small, items=small.items[: self._show]))

    def _fetch_record(self) -> str | None:
        """Return the record that lies beside a small value, None if there is none."""
        key = self._entry.make_state_key()

        return _parse_record(fetch(self._cache, [key]).get(key))

    def _fail_to_open(self, problem: str, size: int | None = None) -> _Main:
        report = replace(self._report, kind="small", state="damaged", problems=(problem,), stored_bytes=size)

        return _Main(None, None, report)

    def _is_sealed_value(self, main: _Main) -> bool:
        """Return whether there is a seal that says that this is a value, though it may look like a count."""
        return main.decrypted is not None and not self._check_seal(main.decrypted, is_count=False)

    def _inspect_large(self, main: _Main, count: int, *, may_be_small: bool) -> None:
        # Chunks are stored one after the other, and last of all the count. The first expires first.
        keys = [self._entry.full_key, *self._entry.chunk_keys(0, min(count, 1))]
        self._set(kind="large", chunk_count=count, expires=get_expiry(self._cache, keys))
        chunks, seals, record = self._fetch_chunks(count)

        if record:
            with suppress(ValueError):
                self._set(record=_parse_record(self._entry.decode_record(record)))

        if may_be_small and not chunks:
            self._add_note(f'or it is a small value, the text "{main.content}"')

        with self._timing("read_seconds"):
            self._check_seals(main, "its count", chunks, seals, record)
            self._read(chunks)

    def _fetch_chunks(self, count: int) -> tuple[list[bytes], list[bytes], bytes]:
        """Return the chunks up to the first that is missing, all seals, and the stored form of the record."""
        record = b""
        sizes: list[int | None] = []
        chunks: list[bytes] = []
        seals: list[bytes] = []
        foreign: list[int] = []

        while len(sizes) < count:
            keys = self._entry.chunk_keys(len(sizes), min(len(sizes) + FETCH_SIZE, count))

            with self._timing("fetch_seconds"):
                found = fetch(self._cache, keys)

            for key in keys:
                chunk = get_chunk(found.get(key))

                if chunk is None:
                    if key in found:
                        foreign.append(len(sizes))
                else:
                    record = get_record([found[key]])
                    # Anything but bytes is not a valid seal. An empty one stands before a record.
                    seals += [
                        seal if isinstance(seal, bytes) else b"?"
                        for seal in found[key][1:2]
                        if not (seal == b"" and record)
                    ]

                    if len(chunks) == len(sizes):
                        chunks.append(chunk)

                sizes.append(None if chunk is None else len(chunk))

            if not found:
                # The count may be any number.
                break

        self._set(chunk_sizes=tuple(sizes), sealed_chunks=len(seals), stored_bytes=sum(filter(None, sizes)))
        self._check_sizes(count, sizes, foreign, may_be_empty=bool(seals or record))

        return chunks, seals, record

    def _check_sizes(self, count: int, sizes: list[int | None], foreign: list[int], *, may_be_empty: bool) -> None:
        missing = [number for number, size in enumerate(sizes) if size is None and number not in foreign]

        if missing:
            more = count - len(sizes)
            rest = f", and nobody looked for the {more:,} behind" if more else ""
            self._add_problem(f"{_chunks_are(missing, 'missing')} of {count:,}{rest}")

        if foreign:
            self._add_problem(_chunks_are(foreign, "no list that begins with bytes"))

        for number, size in enumerate(sizes):
            allowed = get_chunk_sizes(number, count, may_be_empty=may_be_empty)

            if size is not None and size not in allowed:
                least = "" if len(allowed) == 1 else f"{allowed[0]:,} to "
                self._add_problem(f"chunk {number} has {size:,} bytes, not {least}{allowed[-1]:,}")

                # One wrong cut moves all that follow.
                break

    def _check_seals(
        self,
        main: _Main,
        name: str,
        chunks: Sequence[bytes] = (),
        seals: Sequence[bytes] = (),
        record: bytes | None = None,
    ) -> None:
        """Verify the seals of a value, or of a count and its chunks.

        Args:
            main: The value or the count. It can have a seal if it was encrypted.
            name: "its value" or "its count".
            chunks: The chunks up to the first that is missing.
            seals: The seals of all chunks.
            record: The stored form of the record beside the last chunk.
        """
        is_count = name == "its count"
        is_needed = self._seal == "require"
        has_seal = main.decrypted is not None and _native.split_value(main.decrypted)[2]
        # Otherwise the entry is damaged anyway, and the remaining chunks can't be verified.
        is_complete = len(chunks) == (self._report.chunk_count or 0)
        errors = []
        lacking = []

        if main.decrypted is not None:
            if has_seal:
                errors.append(self._check_seal(main.decrypted, is_count=is_count))
            else:
                lacking.append(name)

        if is_count and is_complete:
            if len(seals) < max(len(chunks), 1):
                lacking.append(f"{len(chunks) - len(seals):,} of its {len(chunks):,} chunks" if seals else "its chunks")
                # Seals are verified even where the setting doesn't ask for them.
                is_needed = must_have_seals(self._seal or bool(seals), chunks, seals)
            else:
                error = _get_error(self._entry.make_sealer().check_chunks, chunks, seals, record)
                hint = ", or FASTBLETS_SEAL_KEY was another one" if main.decrypted is None else ""
                errors.append(f"{error}{hint}" if error else "")

        if any(errors):
            self._set(seal="not valid")
            self._add_problem("; ".join(filter(None, errors)))
        elif is_complete:
            self._set(seal="none" if not (has_seal or seals) else "partial" if lacking else "valid")

        if lacking and is_needed:
            self._add_problem(f"there is no seal on {' and '.join(lacking)}")
        elif lacking and self._report.seal == "partial":
            self._add_note(f"there is no seal on {' and '.join(lacking)}")

        if self._report.seal == "valid" and main.decrypted is None and get_seal_key(get_settings()) is None:
            self._add_note("its seals were made without a secret: they notice accidents only")

    def _check_seal(self, decrypted: bytes, *, is_count: bool) -> str:
        """Return why this is not a count, or a value, with a valid seal; empty if it is."""
        return _get_error(_native.open_pickle, decrypted, is_count, self._entry.make_sealer(), True)

    def _read(self, chunks: list[bytes]) -> None:
        """Look through the stream of pickles."""
        found = _native.inspect_chunks(chunks, self._compressed, self._entry.encryption_key, self._show)
        self._report = replace(_with_contents(self._report, found), compressed=found.compressed if chunks else None)

        # If chunks are missing, the stream ends too early for a known reason.
        if found.damage and None not in self._report.chunk_sizes:
            what, number = found.damage
            is_noise = found.count == 0 and not found.compressed and self._entry.encryption_key is not None
            hint = ", or it was encrypted with another key" if is_noise else ""
            self._add_problem(
                f"{_plain(what)}{hint} (noticed in chunk {number}, behind {found.pickled:,} bytes of pickles)"
            )

        if not found.compressed and chunks and self._report.state == "whole" and self._report.seal != "valid":
            self._add_note("it is not compressed, so it has no checksum")

    @contextmanager
    def _timing(self, name: Literal["fetch_seconds", "read_seconds"]) -> Iterator[None]:
        start = time.perf_counter()

        try:
            yield
        finally:
            self._set(**{name: getattr(self._report, name) + time.perf_counter() - start})

    def _add_note(self, note: str) -> None:
        self._set(notes=(*self._report.notes, note))

    def _add_problem(self, problem: str, state: State = "damaged") -> None:
        self._set(state=state, problems=(*self._report.problems, problem))

    def _set(self, **changes: Any) -> None:
        self._report = replace(self._report, **changes)


def _with_contents(report: EntryReport, found: _native.Inspection) -> EntryReport:
    return replace(
        report,
        pickled_bytes=found.pickled,
        item_count=found.count,
        items=tuple(ItemReport(size, text) for size, text in found.items),
        names=tuple(found.names),
        more_names=found.more_names,
    )


def _parse_record(stored: object) -> str | None:
    record = Record.parse(stored)

    return None if record is None else record.encode()


def _parse_count(content: object) -> int | None:
    try:
        return parse_count(content)
    except ForeignValueError:
        return None


def _get_error(check: Callable[..., object], *args: object) -> str:
    """Return the error that a check raises, as a part of a sentence; empty if it raises none."""
    try:
        check(*args)
    except ValueError as e:
        return _plain(str(e))

    return ""


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
        # Raised by the object's own __repr__().
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
