"""The codec, in Rust. Private."""

from collections.abc import Sequence
from typing import Final, final

__all__ = [
    "AES_BLOCK_SIZE",
    "CACHE_CHUNK_SIZE",
    "MAX_KEY_SIZE",
    "Decryptor",
    "Encryptor",
    "LargeReader",
    "LargeWriter",
    "decrypt",
    "encrypt",
    "make_full_key",
]

AES_BLOCK_SIZE: Final[int]
CACHE_CHUNK_SIZE: Final[int]
MAX_KEY_SIZE: Final[int]

def make_full_key(prefix: str | None, parts: Sequence[str], encryption_key: bytes | None, /) -> str: ...
def encrypt(data: bytes, key: bytes, iv: bytes, /) -> bytes: ...
def decrypt(data: bytes, key: bytes, /) -> bytes: ...

@final
class Encryptor:
    def __new__(cls, key: bytes, iv: bytes, /) -> Encryptor: ...
    def update(self, data: bytes, /) -> bytes: ...

@final
class Decryptor:
    def __new__(cls, key: bytes, iv: bytes, /) -> Decryptor: ...
    def update(self, data: bytes, /) -> bytes: ...

@final
class LargeWriter:
    def __new__(cls, compress: bool, key: bytes | None, iv: bytes | None, /) -> LargeWriter: ...
    def write(self, pickle: bytes, /) -> None: ...
    def take_full_chunks(self) -> list[bytes]: ...
    def finish(self) -> None: ...
    def last_chunk(self) -> bytes | None: ...

@final
class LargeReader:
    def __new__(cls, chunks: Sequence[bytes], compressed: bool, key: bytes | None, /) -> LargeReader: ...
    def read_all(self) -> bytes: ...
