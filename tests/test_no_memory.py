"""Where memory is short, there is a clear error or the right result, and nothing left behind for the next call."""

from __future__ import annotations

import pickle
import subprocess
import sys
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from fastblets import _native
from tests import short_memory

_testcapi = pytest.importorskip("_testcapi", reason="not every CPython can be told to be short of memory")

KEY = b"0123456789abcdef"
IV = b"an unlikely iv.."


class Ordinary:
    """An instance that has attributes, and nothing else of its own."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.name = f"name {number}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ordinary) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return self.number


ITEMS: list[Any] = [
    *({"id": number, "name": f"number {number}€", "more": ("ab", [1.5])} for number in range(20)),
    # Long enough to be read while other threads run: of one width, of two.
    "x" * 70_000 + "\n" + "y" * 1_000,
    "x" * 70_000 + "€",
    b"bytes",
    # More than CPython keeps free objects for.
    [[number * 0.5, {number * 1_000_000: [-(10**20) - number]}, (number, ())] for number in range(120)],
    [Ordinary(number) for number in range(5)],
]
PICKLES = b"".join(pickle.dumps(item, 0) for item in ITEMS)
VALUE = _native.encrypt_value(ITEMS, KEY, KEY, False, None)
SEALER = _native.Sealer(KEY, b"full key")
LONG_KEY = ["part", "user:17", "long and ünusual " * 20, "\ud800"]


def write(compress: bool, key: bytes | None) -> list[bytes]:
    """Return all chunks of the items."""
    writer = _native.LargeWriter(compress, key, key and IV)
    chunks = []
    for item in ITEMS:
        if writer.write(item):
            chunks += writer.take_full_chunks()
    writer.finish()
    chunks += writer.take_full_chunks()
    last = writer.last_chunk()
    return chunks if last is None else [*chunks, last]


def inspected() -> list[Any]:
    """Return what is found in the compressed items."""
    found = _native.inspect_chunks([zlib.compress(PICKLES)], None, None, 3)
    return [found.count, found.items, found.names, found.damage]


def written_in_the_middle() -> tuple[list[bytes], bytes]:
    """Return what a seal is made of, and the seal."""
    chunks = write(False, None)
    seals = [SEALER.seal_chunk(IV, 0, True, chunks[0])]
    SEALER.check_chunks(chunks, seals)
    return chunks, SEALER.seal_pickle(pickle.dumps("3", 0), True)


CALLS: dict[str, Callable[[], Any]] = {
    "compressed": lambda: list(_native.read_items([zlib.compress(PICKLES)], True, None)),
    "plain": lambda: list(_native.read_items([PICKLES], False, None)),
    "value": lambda: _native.decrypt_value(VALUE, KEY, False, None, False, None),
    "write": lambda: write(False, None),
    "write compressed": lambda: write(True, None),
    "write encrypted": lambda: write(False, KEY),
    "write compressed and encrypted": lambda: write(True, KEY),
    "encrypt value": lambda: _native.encrypt_value(ITEMS, KEY, IV, False, SEALER),
    "seals": written_in_the_middle,
    "encrypt": lambda: _native.encrypt(PICKLES, KEY, IV),
    "encrypt in pieces": lambda: _native.Encryptor(KEY, IV).update(PICKLES),
    "decrypt in pieces": lambda: _native.Decryptor(KEY, IV).update(PICKLES),
    "open": lambda: _native.split_value(_native.open_pickle(pickle.dumps(1, 0), False, None, False)),
    "key": lambda: _native.make_full_key("example.com", LONG_KEY[:3], None, None),
    "encrypted key": lambda: _native.make_full_key("example.com", LONG_KEY[:3], KEY, None),
    "key with a surrogate": lambda: _native.make_full_key("example.com", LONG_KEY[3], None, None),
    "inspect": inspected,
}


# The last one that any call here fails for was the 73rd, on CPython 3.11.
@pytest.mark.parametrize("most", [200, pytest.param(1_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", CALLS)
def test_an_allocation_that_fails(name: str, most: int) -> None:
    call = CALLS[name]
    expected = call()
    if name in {"compressed", "plain", "value"}:
        assert expected == ITEMS
    for count in range(most):
        result = expected
        try:
            _testcapi.set_nomemory(count, count + 1)
            result = call()
        except MemoryError:
            pass
        finally:
            # An exception that is left behind comes up in whatever is called next.
            _testcapi.remove_mem_hooks()
        assert result == expected


@pytest.mark.linux("limits of memory that hold")
@pytest.mark.parametrize("name", short_memory.CALLS)
def test_something_too_large_for_what_there_is(name: str) -> None:
    assert int(run(name)) > 1


@pytest.mark.linux("limits of memory that hold")
@pytest.mark.parametrize("name", short_memory.MEMOIZED)
def test_the_caller_has_the_value_where_there_is_no_memory_to_store_it(name: str) -> None:
    short, enough = run(name).splitlines()
    assert "ERROR" in short
    assert "ERROR" not in enough


def run(name: str) -> str:
    done = subprocess.run([sys.executable, "-m", "tests.short_memory", name], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout
