"""The codec, in Rust. Private."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Literal, final

__all__ = [
    "AES_BLOCK_SIZE",
    "CACHE_CHUNK_SIZE",
    "DEBUG_BUILD",
    "MAX_KEY_SIZE",
    "WRITE_ID_SIZE",
    "CodecError",
    "Decryptor",
    "Encryptor",
    "Inspection",
    "ItemStream",
    "LargeWriter",
    "Sealer",
    "count_walks",
    "decrypt",
    "decrypt_value",
    "decrypt_value_and_record",
    "encrypt",
    "encrypt_value",
    "inspect_chunks",
    "keep_forever",
    "make_chunk_keys",
    "make_full_key",
    "open_pickle",
    "pickle_dumps",
    "pickle_dumps_all",
    "pickle_loads",
    "pickle_loads_all",
    "pickle_scan",
    "read_items",
    "split_value",
    "use_fast_paths",
    "use_models",
]

AES_BLOCK_SIZE: Final[int]
CACHE_CHUNK_SIZE: Final[int]
DEBUG_BUILD: Final[bool]
MAX_KEY_SIZE: Final[int]
WRITE_ID_SIZE: Final[int]

class CodecError(ValueError):
    kind: Literal["cipher", "pickle", "seal", "zlib"]
    offset: int | None

def keep_forever(object: object, /) -> None: ...
def make_full_key(
    prefix: str | None, key: str | Sequence[str], encryption_key: bytes | None, max_bytes: int | None, /
) -> str: ...
def make_chunk_keys(
    prefix: str | None,
    key: str | Sequence[str],
    encryption_key: bytes | None,
    max_bytes: int | None,
    start: int,
    end: int,
    /,
) -> list[str]: ...
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
    def __new__(
        cls, compress: bool, key: bytes | None, iv: bytes | None, threads: int | None = None, /
    ) -> LargeWriter: ...
    def write(self, item: object, /) -> bool: ...
    def take_full_chunks(self) -> list[bytes]: ...
    def finish(self) -> None: ...
    def last_chunk(self) -> bytes | None: ...

@final
class ItemStream:
    def __iter__(self) -> ItemStream: ...
    def __next__(self) -> Any: ...

@final
class Inspection:
    @property
    def compressed(self) -> bool: ...
    @property
    def pickled(self) -> int: ...
    @property
    def count(self) -> int: ...
    @property
    def items(self) -> list[tuple[int, str]]: ...
    @property
    def names(self) -> list[str]: ...
    @property
    def more_names(self) -> bool: ...
    @property
    def damage(self) -> tuple[str, int] | None: ...

def inspect_chunks(chunks: Sequence[bytes], compressed: bool | None, key: bytes | None, show: int, /) -> Inspection: ...

@final
class Sealer:
    def __new__(cls, secret: bytes | None, full_key: bytes, /) -> Sealer: ...
    def seal_chunk(
        self, write_id: bytes, index: int, last: bool, chunk: bytes, record: bytes | None = None, /
    ) -> bytes: ...
    def check_chunks(self, chunks: Sequence[bytes], seals: Sequence[bytes], record: bytes | None = None, /) -> None: ...
    def seal_pickle(self, pickle: bytes, is_count: bool, /) -> bytes: ...

def open_pickle(data: bytes, is_count: bool, sealer: Sealer | None, required: bool, /) -> bytes: ...
def split_value(data: bytes, /) -> tuple[bytes, bytes | None, bool]: ...
def encrypt_value(
    value: object, key: bytes, iv: bytes, is_count: bool, sealer: Sealer | None, record: bytes | None = None, /
) -> bytes: ...
def decrypt_value(
    stored: object,
    key: bytes,
    is_count: bool,
    sealer: Sealer | None,
    required: bool,
    loads: Callable[[bytes], Any] | None,
    /,
) -> Any: ...
def decrypt_value_and_record(
    stored: object,
    key: bytes,
    is_count: bool,
    sealer: Sealer | None,
    required: bool,
    loads: Callable[[bytes], Any] | None,
    /,
) -> tuple[Any, bytes | None]: ...
def read_items(
    chunks: Sequence[bytes],
    compressed: bool,
    key: bytes | None,
    loads: Callable[[bytes], Any] | None = None,
    /,
) -> Iterator[Any]: ...
def use_fast_paths(enabled: bool, /) -> bool: ...
def use_models(provide: Callable[[], object], /) -> None: ...
def pickle_dumps(item: object, /) -> bytes | None: ...
def pickle_loads(pickle: bytes, /) -> tuple[Any] | None: ...
def pickle_dumps_all(items: Sequence[object], /) -> bytes | None: ...
def pickle_loads_all(data: bytes, /) -> list[Any] | None: ...
def count_walks() -> int: ...
def pickle_scan(data: bytes, /) -> list[int]: ...
