"""What Djblets stored once, byte for byte, without Djblets. `tests/vectors/record.py` recorded it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from django.core.cache.backends.base import BaseCache
from django.test import override_settings

from fastblets import _native
from fastblets.cache.backend import cache_memoize, cache_memoize_iter, make_cache_key
from fastblets.secrets.crypto import aes_decrypt, aes_encrypt
from tests import seal_verifier
from tests.faults import replaced
from tests.randomness import CountingIVs
from tests.values import same
from tests.vectors import cases, record_seals

pytestmark = pytest.mark.django_db

Vector = dict[str, Any]
HERE = Path(__file__).parent / "vectors"


def vectors(name: str) -> list[Vector]:
    found: list[Vector] = json.loads((HERE / f"{name}.json").read_text())["vectors"]
    assert found
    return found


def decode(value: Any) -> Any:
    if isinstance(value, dict):
        return bytes.fromhex(value["hex"]) if "hex" in value else {name: decode(item) for name, item in value.items()}
    return value


def assert_is(data: bytes, expected: Vector) -> None:
    if "hex" in expected:
        assert data.hex() == expected["hex"]
    else:
        assert (len(data), hashlib.sha256(data).hexdigest()) == (expected["size"], expected["sha256"])


@pytest.mark.parametrize("vector", vectors("keys"), ids=lambda vector: ascii(vector["key"])[:20])
def test_a_key(locmem: BaseCache, vector: Vector) -> None:
    with override_settings(**decode(vector["settings"])):
        assert make_cache_key(vector["key"], **decode(vector["options"])) == vector["full"]


@pytest.mark.parametrize("vector", vectors("crypto"), ids=lambda vector: f"{len(vector['plain']) // 2}")
def test_aes(fixed_iv: CountingIVs, vector: Vector) -> None:
    key, plain, encrypted = (bytes.fromhex(vector[name]) for name in ("key", "plain", "encrypted"))
    assert aes_encrypt(plain, key=key) == encrypted
    assert aes_decrypt(encrypted, key=key) == plain


ENTRIES = [
    pytest.param(case, vector, id=case["name"])
    for calls, name in ((cases.memoize_calls(), "entries"), (cases.wider_calls(), "wider"))
    for case, vector in zip(calls, vectors(name), strict=True)
]


def memoize(case: Vector, make: Callable[[], Iterable[Any]]) -> list[Any]:
    """All items; a value is the only one."""
    if case["is_iter"]:
        return list(cache_memoize_iter(case["key"], make, **case["options"]))
    return [cache_memoize(case["key"], lambda: next(iter(make())), **case["options"])]


@pytest.mark.parametrize(("case", "vector"), ENTRIES)
def test_an_entry_is_stored(locmem: BaseCache, fixed_iv: CountingIVs, case: Vector, vector: Vector) -> None:
    assert case["name"] == vector["name"]
    stored: list[tuple[str, Any]] = []

    def set_one(key: str, value: Any, **_: Any) -> None:
        stored.append((key, value))

    def set_many(values: dict[str, Any], **_: Any) -> list[str]:
        stored.extend(values.items())
        return []

    with replaced(locmem, set=set_one, set_many=set_many):
        memoize(case, lambda: case["items"])
    assert [key for key, _ in stored] == [entry["key"] for entry in vector["stored"]]
    for (_, value), entry in zip(stored, vector["stored"], strict=True):
        if "chunk" in entry:
            assert type(value) is list
            (chunk,) = value
            assert_is(chunk, entry["chunk"])
        elif "bytes" in entry:
            assert_is(value, entry["bytes"])
        else:
            # The backend is given the object itself.
            assert value == (entry["count"] if "count" in entry else case["items"][0])


def is_whole(vector: Vector) -> bool:
    """Whether its bytes were recorded, not digests of them only."""
    return not any("size" in entry.get("chunk", {}) or "size" in entry.get("bytes", {}) for entry in vector["stored"])


WHOLE = [entry for entry in ENTRIES if is_whole(entry.values[1])]  # type: ignore[arg-type]


@pytest.mark.parametrize(("case", "vector"), WHOLE)
def test_an_entry_is_read(locmem: BaseCache, case: Vector, vector: Vector) -> None:
    for entry in vector["stored"]:
        stored = entry.get("chunk") or entry.get("bytes")
        if stored is None:
            locmem.set(entry["key"], entry["count"] if "count" in entry else case["items"][0])
        else:
            data = bytes.fromhex(stored["hex"])
            locmem.set(entry["key"], [data] if "chunk" in entry else data)

    def never() -> Any:
        pytest.fail("computed again")

    assert same(memoize(case, never), case["items"])


SEALS: dict[str, list[Vector]] = json.loads((HERE / "seals.json").read_text())


@pytest.mark.parametrize("vector", SEALS["chunks"], ids=lambda vector: f"{len(vector['chunks'])}")
def test_seals_of_chunks(vector: Vector) -> None:
    secret, full_key = decode(vector["secret"]), bytes.fromhex(vector["full_key"])
    write_id = bytes.fromhex(vector["write_id"])
    chunks, seals = ([bytes.fromhex(text) for text in vector[name]] for name in ("chunks", "seals"))
    text = full_key.decode("utf-8", "surrogatepass")
    assert seal_verifier.seal_all(secret, text, write_id, chunks) == [
        list(pair) for pair in zip(chunks, seals, strict=True)
    ]
    sealer = _native.Sealer(secret, full_key)
    last = len(chunks) - 1
    assert [sealer.seal_chunk(write_id, at, at == last, chunk) for at, chunk in enumerate(chunks)] == seals
    sealer.check_chunks(chunks, seals)


@pytest.mark.parametrize("vector", SEALS["pickles"], ids=lambda vector: vector["kind"])
def test_seals_of_pickles(vector: Vector) -> None:
    secret, full_key = decode(vector["secret"]), bytes.fromhex(vector["full_key"])
    pickled, sealed = bytes.fromhex(vector["pickle"]), bytes.fromhex(vector["sealed"])
    is_count = vector["kind"] == "count"
    kind = seal_verifier.COUNT if is_count else seal_verifier.VALUE
    assert seal_verifier.check_pickle(secret, full_key.decode(), kind, sealed) == pickled
    sealer = _native.Sealer(secret, full_key)
    assert sealer.seal_pickle(pickled, is_count) == sealed
    assert _native.open_pickle(sealed, is_count, sealer, True) == pickled


def decode_stored(value: Any) -> Any:
    return [bytes.fromhex(part) for part in value] if isinstance(value, list) else decode(value)


SEALED = [
    pytest.param(decode(case), vector, id=f"{index}")
    for index, (case, vector) in enumerate(zip(record_seals.entry_cases(), SEALS["entries"], strict=True))
]


@pytest.mark.parametrize(("case", "vector"), SEALED)
def test_a_sealed_entry_is_stored(locmem: BaseCache, case: Vector, vector: Vector) -> None:
    with record_seals.recorded() as stored, sealing(case):
        record_seals.memoize(case, lambda: case["items"])
    assert stored == [(entry["key"], decode_stored(entry["value"])) for entry in vector["stored"]]


@pytest.mark.parametrize(("case", "vector"), SEALED)
def test_a_sealed_entry_is_read(locmem: BaseCache, case: Vector, vector: Vector) -> None:
    for entry in vector["stored"]:
        locmem.set(entry["key"], decode_stored(entry["value"]))

    def never() -> Any:
        pytest.fail("computed again")

    with sealing(case):
        assert record_seals.memoize(case, never) == case["items"]


def sealing(case: Vector) -> Any:
    return override_settings(FASTBLETS_SEAL="require", FASTBLETS_SEAL_KEY=case["seal_key"])


def test_the_vectors_are_small() -> None:
    assert sum(path.stat().st_size for path in HERE.glob("*.json")) < 300_000
