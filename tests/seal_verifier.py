"""Seals in plain Python, written from docs/security.md: a second opinion on the native ones."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

LABEL = b"fastblets seal 1"
VERSION = b"\x01"
MARK = b"\x00fb\x01"
ID_SIZE = 16
TAG_SIZE = 32

VALUE, COUNT, CHUNK = b"\x00", b"\x01", b"\x02"


class BadSealError(Exception):
    """A seal that is missing, or not the data's."""


def tag(secret: bytes | None, full_key: str, kind: bytes, content: bytes) -> bytes:
    key = full_key.encode("utf-8", "surrogatepass")
    message = LABEL + number(len(key)) + key + kind + content
    if secret is None:
        return hashlib.sha256(message).digest()
    return hmac.digest(hkdf(secret), message, "sha256")


def hkdf(secret: bytes) -> bytes:
    """RFC 5869 with SHA-256, no salt, and one block of output."""
    extracted = hmac.digest(bytes(32), secret, "sha256")
    return hmac.digest(extracted, LABEL + b"\x01", "sha256")


def number(value: int) -> bytes:
    return value.to_bytes(8, "big")


def chunk_seal(secret: bytes | None, full_key: str, write_id: bytes, index: int, last: bool, chunk: bytes) -> bytes:
    content = write_id + number(index) + bytes([last]) + chunk
    return VERSION + write_id + tag(secret, full_key, CHUNK, content)


def seal_all(secret: bytes | None, full_key: str, write_id: bytes, chunks: Sequence[bytes]) -> list[list[bytes]]:
    """A large entry's chunks as they are stored."""
    last = len(chunks) - 1
    return [
        [chunk, chunk_seal(secret, full_key, write_id, index, index == last, chunk)]
        for index, chunk in enumerate(chunks)
    ]


def check_chunks(secret: bytes | None, full_key: str, stored: Sequence[Sequence[bytes]]) -> list[bytes]:
    """A large entry's chunks, if the seals are theirs."""
    if not stored:
        raise BadSealError("no chunk, no seal")
    ids = set()
    for index, item in enumerate(stored):
        if len(item) < 2:
            raise BadSealError(f"chunk {index} has no seal")
        chunk, seal = item[0], item[1]
        write_id = seal[1 : 1 + ID_SIZE]
        ids.add(write_id)
        expected = chunk_seal(secret, full_key, write_id, index, index + 1 == len(stored), chunk)
        if not hmac.compare_digest(seal, expected):
            raise BadSealError(f"the seal of chunk {index} is not its own")
    if len(ids) > 1:
        raise BadSealError("chunks of several writes")
    return [item[0] for item in stored]


def trailer(secret: bytes | None, full_key: str, kind: bytes, pickle: bytes) -> bytes:
    return MARK + tag(secret, full_key, kind, pickle)


def check_pickle(secret: bytes | None, full_key: str, kind: bytes, data: bytes) -> bytes:
    """A decrypted value's or count's pickle, if the seal behind it is its own."""
    at = len(data) - len(MARK) - TAG_SIZE
    if at < 0 or not data.startswith(MARK, at):
        raise BadSealError("no seal")
    if not hmac.compare_digest(data[at:], trailer(secret, full_key, kind, data[:at])):
        raise BadSealError("the seal is not the pickle's")
    return data[:at]
