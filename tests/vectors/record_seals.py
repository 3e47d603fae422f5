"""Records sealed entries: ``python -m tests.vectors.record_seals``.

These vectors are for whoever implements the seals of docs/security.md. They were recorded once with fastblets; the
plain Python in tests/seal_verifier.py and the Rust in tests/vectors.rs are held on them.
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Iterator
from itertools import product
from typing import Any
from unittest.mock import patch

import django

from tests.randomness import CountingIVs
from tests.vectors import cases
from tests.vectors.record import HERE, encode, recorded

SECRETS = [None, *cases.AES_KEYS, b"a key for the seals of tests alone", bytes(200)]
FULL_KEYS = ["example.com:key", "", "ключ 鍵 🔑", "\ud800".encode("utf-8", "surrogatepass"), "k" * 240]
CHUNKS = [[b""], [b"one"], [b"one", b"two", b""], [bytes(range(256)), b"x" * 700]]
WRITE_ID = bytes(range(100, 116))


def full_key_bytes(key: Any) -> bytes:
    return key if isinstance(key, bytes) else key.encode("utf-8")


def record_chunks() -> Iterator[dict[str, Any]]:
    from fastblets import _native

    for secret, (full_key, chunks) in product(SECRETS, zip(FULL_KEYS, [*CHUNKS, CHUNKS[2]], strict=True)):
        sealer = _native.Sealer(secret, full_key_bytes(full_key))
        last = len(chunks) - 1
        yield {
            "secret": encode(secret),
            "full_key": full_key_bytes(full_key).hex(),
            "write_id": WRITE_ID.hex(),
            "chunks": [chunk.hex() for chunk in chunks],
            "seals": [sealer.seal_chunk(WRITE_ID, at, at == last, chunk).hex() for at, chunk in enumerate(chunks)],
        }


def record_pickles() -> Iterator[dict[str, Any]]:
    from fastblets import _native

    for secret, (kind, value) in product(SECRETS, [("value", None), ("value", "text"), ("count", "3")]):
        pickled = pickle.dumps(value, 0)
        full_key = full_key_bytes(FULL_KEYS[0])
        yield {
            "secret": encode(secret),
            "full_key": full_key.hex(),
            "kind": kind,
            "pickle": pickled.hex(),
            "sealed": _native.Sealer(secret, full_key).seal_pickle(pickled, kind == "count").hex(),
        }


def entry_cases() -> Iterator[dict[str, Any]]:
    """Calls, with what they are given and how."""
    for seal_key, mode, items in product(SECRETS[:5:4], cases.MODES, [[], ["one", 2, None]]):
        yield {"seal_key": seal_key, "items": items, "options": mode, "large": True}
    for value in (None, "text", {"a": [1]}):
        yield {"seal_key": None, "items": [value], "options": {"use_encryption": True}, "large": False}


def memoize(case: dict[str, Any], make: Any) -> list[Any]:
    from fastblets.cache.backend import cache_memoize, cache_memoize_iter

    if case["large"]:
        return list(cache_memoize_iter("key", make, **case["options"]))
    return [cache_memoize("key", lambda: make()[0], **case["options"])]


def record_entries() -> Iterator[dict[str, Any]]:
    from django.test import override_settings

    from fastblets.secrets.crypto import get_default_aes_encryption_key

    for case in entry_cases():
        with recorded() as stored, override_settings(FASTBLETS_SEAL=True, FASTBLETS_SEAL_KEY=case["seal_key"]):
            memoize(case, lambda case=case: case["items"])
        yield encode(case) | {
            # AES's, which is the seals', too, where there is one.
            "aes_key": encode(get_default_aes_encryption_key() if case["options"]["use_encryption"] else None),
            "stored": [{"key": key, "value": encode_stored(value)} for key, value in stored],
        }


def encode_stored(value: Any) -> Any:
    return [part.hex() for part in value] if isinstance(value, list) else encode(value)


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()

    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    parts = []
    for name, record in (("chunks", record_chunks), ("pickles", record_pickles), ("entries", record_entries)):
        lines = ",\n".join(json.dumps(vector) for vector in record())
        parts.append(f'"{name}": [\n{lines}\n]')
    text = ",\n".join(['"recorded_with": "fastblets seal 1"', *parts])
    (HERE / "seals.json").write_text(f"{{{text}}}\n")


if __name__ == "__main__":
    with patch.object(os, "urandom", CountingIVs()):
        main()
