"""One entry by itself: its keys and its rules. No cache is asked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fastblets import _native
from fastblets.cache.entry import COUNT, VALUE, Entry, get_chunk_sizes, is_full, must_have_seals, parse_count
from fastblets.cache.errors import ForeignValueError
from fastblets.cache.options import Options
from tests.test_memoize import MODES

pytestmark = pytest.mark.django_db

FULL = _native.CACHE_CHUNK_SIZE


@pytest.fixture(autouse=True)
def no_cache_is_asked(locmem: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("add", "delete", "get", "get_many", "has_key", "set", "set_many"):
        monkeypatch.setattr(locmem, name, lambda *args, **options: pytest.fail("a cache is asked"))
    yield


def make_entry(key: Any = "key", *, seal: Any = False, **mode: Any) -> Entry:
    compress = mode.get("compress_large_data", True)
    options = Options(None, compress, mode.get("use_encryption"), None, seal)
    return Entry(key, options, options.encryption_key)


@pytest.mark.parametrize("seal", [False, True, "require"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("items", [[], [1, "text"], ["x" * (2 * FULL)]], ids=["empty", "small", "large"])
def test_what_is_encoded_is_decoded(mode: dict[str, Any], items: list[Any], seal: Any) -> None:
    entry = make_entry(seal=seal, **mode)
    writer = entry.make_writer(b"i" * 16 if entry.encryption_key else None)
    for item in items:
        writer.write(item)
    writer.finish()
    full = writer.take_full_chunks()
    stored = [entry.encode_chunk(chunk, index, b"w" * 16, last=False) for index, chunk in enumerate(full)]
    last = entry.encode_last_chunk(writer.last_chunk(), len(full), b"w" * 16)
    stored += [last] if last else []
    assert all(len(chunk) == (2 if seal else 1) for chunk in stored)
    chunks, record, is_checked = entry.decode_chunks(stored)
    assert record == b""
    assert is_checked == (bool(seal) or mode["compress_large_data"])
    assert list(entry.read_items(chunks)) == items


@pytest.mark.parametrize("kind", [VALUE, COUNT], ids=str)
@pytest.mark.parametrize("seal", [False, True, "require"])
def test_an_encrypted_value_is_decoded_as_what_it_was_encoded(kind: Any, seal: Any) -> None:
    entry = make_entry(use_encryption=True, seal=seal)
    stored = entry.encode("12", kind, b"i" * 16)
    assert entry.decode(stored, kind) == "12"
    if seal:
        with pytest.raises(_native.CodecError):
            entry.decode(stored, COUNT if kind is VALUE else VALUE)


def test_the_keys_of_an_entry() -> None:
    entry = make_entry(["a:b", "c"])
    assert entry.full_key == "example.com:a%3Ab:c"
    assert entry.chunk_keys(1, 3) == ["example.com:a%3Ab:c-1", "example.com:a%3Ab:c-2"]
    assert entry.chunk_keys(0, 0) == []
    assert entry.make_lock_key(None) == "example.com:_lock_:a%3Ab:c"
    assert make_entry("text").make_lock_key(None) == "example.com:_lock_:text"
    assert list(entry.get_older()) == []


@pytest.mark.parametrize(
    ("index", "count", "sealed", "allowed"),
    [
        (0, 2, False, range(FULL, FULL + 1)),
        (1, 2, False, range(1, FULL + 1)),
        (1, 2, True, range(1, FULL + 1)),
        (0, 1, False, range(1, FULL + 1)),
        (0, 1, True, range(FULL + 1)),
        (5, 10**18, True, range(FULL, FULL + 1)),
    ],
)
def test_the_sizes_of_chunks(index: int, count: int, sealed: bool, allowed: range) -> None:
    assert get_chunk_sizes(index, count, may_be_empty=sealed) == allowed


def test_a_full_chunk() -> None:
    assert is_full(bytes(FULL))
    assert not is_full(bytes(FULL - 1))


@pytest.mark.parametrize(
    ("seal", "chunks", "seals", "expected"),
    [
        (False, [b"a"], [b"s"], False),
        (False, [], [], False),
        (True, [b"a"], [], False),
        (True, [b"a", b"b"], [b"s"], True),
        (True, [], [], True),
        ("require", [b"a"], [], True),
        ("require", [], [], True),
    ],
)
def test_when_each_chunk_must_have_a_seal(seal: Any, chunks: list[bytes], seals: list[bytes], expected: bool) -> None:
    assert must_have_seals(seal, chunks, seals) is expected


def test_chunks_of_a_wrong_size() -> None:
    entry = make_entry()
    for stored in ([[b""]], [[b"a"], [b"b"]], [[bytes(FULL + 1)]]):
        with pytest.raises(ValueError, match="not of the size"):
            entry.decode_chunks(stored)


@pytest.mark.parametrize("count", ["-1", "1.5", "", " 1", "x", "٣", "1" * 20, 1, None, b"1", 1.0], ids=repr)
def test_what_is_no_count(count: object) -> None:
    with pytest.raises(ForeignValueError):
        parse_count(count)


@pytest.mark.parametrize("count", ["0", "1", "007", "9" * 19])
def test_a_count(count: str) -> None:
    assert parse_count(count) == int(count)
