"""Items of a stream that is not long are unpickled as they are decompressed: all of them, and nothing else."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import pytest

from fastblets import _native
from tests.everyday import one_on

KEY = b"0123456789abcdef"
MEGABYTE = 1_000_000
MODES = [pytest.param(compress, key, id=f"{compress=}-{key=}") for compress in (True, False) for key in (None, KEY)]


def written(items: Iterable[Any], compress: bool, key: bytes | None) -> list[bytes]:
    writer = _native.LargeWriter(compress, key, key)
    chunks: list[bytes] = []
    for item in items:
        if writer.write(item):
            chunks += writer.take_full_chunks()
    writer.finish()
    chunks += writer.take_full_chunks()
    last = writer.last_chunk()
    return chunks if last is None else [*chunks, last]


def noise(size: int) -> str:
    return random.Random(size).randbytes(size // 2).hex()


class Trap:
    """Tells when it is unpickled."""

    sprung = 0

    def __reduce__(self) -> Any:
        return Trap.spring, ()

    @staticmethod
    def spring() -> str:
        Trap.sprung += 1
        return "trap"


RECORDS = [{"id": number, "name": f"number {number}", "more": [number * 0.37, None]} for number in range(60_000)]
STREAMS = {
    "empty": [],
    "one": [1],
    "small": RECORDS,
    "large": [RECORDS[:30_000], RECORDS[30_000:]],
    "small, then large": [*RECORDS[:30_000], RECORDS, "x" * MEGABYTE],
    "large, then small": ["é\n" * MEGABYTE, *RECORDS[:30_000]],
    "of the size of a step": [noise(2**20 - 20), *RECORDS[:100], noise(2**16 - 20), *RECORDS[:100]],
    # Behind a first step that was worth it, about as many a step as it takes, and about one less.
    "17 a step": [*RECORDS[:3_000], *(noise(60_000) for _ in range(40))],
    "15 a step": [*RECORDS[:3_000], *(noise(68_000) for _ in range(40))],
    "not plain in between": [*RECORDS[:20_000], 1 + 2j, *RECORDS[:20_000], {1, 2}],
    "long": ["x" * MEGABYTE for _ in range(20)],
    "longer than it seems": [*(noise(50_000) for _ in range(40)), *("x" * MEGABYTE for _ in range(20))],
}


@pytest.mark.parametrize(("compress", "key"), one_on(MODES))
@pytest.mark.parametrize("name", STREAMS)
def test_all_items_come_in_their_order(name: str, compress: bool, key: bytes | None) -> None:
    items = _native.read_items(written(STREAMS[name], compress, key), compress, key)
    assert isinstance(items, _native.ItemStream) == name.startswith("long")
    assert list(items) == STREAMS[name]


@pytest.mark.parametrize("before", [0, 1, 50_000])
@pytest.mark.parametrize("key", [None, KEY])
def test_nothing_is_executed_before_the_checksum(before: int, key: bytes | None) -> None:
    chunks = written([*RECORDS[:before], Trap(), *RECORDS[:before]], True, key)
    Trap.sprung = 0
    for damaged in (
        [*chunks[:-1], chunks[-1][:-1]],
        [*chunks[:-1], chunks[-1][:-1] + bytes([chunks[-1][-1] ^ 1])],
        [*chunks, b"more"],
    ):
        with pytest.raises(ValueError):
            _native.read_items(damaged, True, key)
    assert Trap.sprung == 0
    assert list(_native.read_items(chunks, True, key)).count("trap") == 1
    assert Trap.sprung == 1


@pytest.mark.parametrize("cut", [1, 100, 2 * MEGABYTE])
def test_a_stream_that_is_cut_off(cut: int) -> None:
    whole = b"".join(written(RECORDS, False, None))
    with pytest.raises(ValueError):
        _native.read_items([whole[:-cut]], False, None)
    with pytest.raises(ValueError):
        _native.read_items([whole, b"\xff"], False, None)
