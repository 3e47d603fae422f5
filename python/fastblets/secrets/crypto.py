"""AES encryption as Djblets does it.

AES in CFB mode with an 8-bit shift register (NIST SP 800-38A, section 6.3), with a random initialization vector of
16 bytes in front of the result. It keeps data secret; it does not notice that data was changed.
"""

from __future__ import annotations

import base64
import os
from typing import TYPE_CHECKING

from django.conf import settings

from fastblets import _native
from fastblets.cache.shortcuts import get_settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Final

    from typing_extensions import Buffer


#: The size in bytes of AES' block, and so of an initialization vector.
AES_BLOCK_SIZE: int = _native.AES_BLOCK_SIZE

#: The sizes in bytes that an AES key can have.
AES_KEY_SIZES: Final = (16, 24, 32)


def get_default_aes_encryption_key() -> bytes:
    """Return the site's default AES key: the first 16 characters of ``SECRET_KEY``.

    It must encode to a valid key: 16, 24 or 32 bytes of UTF-8.
    """
    # If it is empty, Django's own settings raise the error.
    secret: str = getattr(get_settings(), "SECRET_KEY", "") or settings.SECRET_KEY

    return secret[:16].encode("utf-8")


def aes_encrypt(data: Buffer | str, *, key: bytes | None = None) -> bytes:
    """Encrypt data.

    Args:
        data: Bytes, or a string, which is encoded as UTF-8.
        key: An AES key of 16, 24 or 32 bytes. Default: :func:`get_default_aes_encryption_key`.

    Returns:
        The initialization vector and the encrypted data.

    Raises:
        TypeError: The key is not of type ``bytes``, or the data neither bytes nor a string.
        ValueError: The key has a wrong length.
    """
    if isinstance(data, str):
        data = data.encode("utf-8")

    return _native.encrypt(_as_bytes(data), _checked_key(key), os.urandom(AES_BLOCK_SIZE))


def aes_encrypt_base64(data: Buffer | str, *, key: bytes | None = None) -> str:
    """Encrypt data like :func:`aes_encrypt` and return it in Base64."""
    return base64.b64encode(aes_encrypt(data, key=key)).decode("ascii")


def aes_encrypt_iter(
    data_iter: Iterable[Buffer | str],
    *,
    key: bytes | None = None,
) -> Iterator[bytes]:
    """Encrypt a stream, piece by piece.

    The joined result equals that of :func:`aes_encrypt` for the joined input. Each piece is yielded before the next one
    is asked for. There is always at least one, since the initialization vector comes
    first.

    Args:
        data_iter: Pieces of bytes or strings.
        key: As for :func:`aes_encrypt`.

    Raises:
        TypeError: As for :func:`aes_encrypt`, at the first ``next()`` or that of the piece.
        ValueError: As for :func:`aes_encrypt`, at the first ``next()``.
    """
    head = os.urandom(AES_BLOCK_SIZE)
    encryptor = _native.Encryptor(_checked_key(key), head)

    for piece in data_iter:
        if isinstance(piece, str):
            piece = piece.encode("utf-8")

        yield head + encryptor.update(_as_bytes(piece))
        head = b""

    if head:
        yield head


def aes_decrypt(encrypted_data: bytes, *, key: bytes | None = None) -> bytes:
    """Decrypt the result of :func:`aes_encrypt`.

    Args:
        encrypted_data: The initialization vector and the encrypted data.
        key: The key that it was encrypted with. Default: :func:`get_default_aes_encryption_key`. A wrong key of a
            valid length is not noticed: the result is garbage.

    Raises:
        TypeError: The data or the key is not of type ``bytes``.
        ValueError: The key has a wrong length, or the data is shorter than an initialization vector.
    """
    if not isinstance(encrypted_data, bytes):
        raise TypeError(f'The data to decrypt must be of type "bytes", not "{type(encrypted_data)}"')

    return _native.decrypt(encrypted_data, _checked_key(key))


def aes_decrypt_base64(encrypted_data: bytes | str, *, key: bytes | None = None) -> str:
    """Decrypt the result of :func:`aes_encrypt_base64` into a string.

    Raises:
        TypeError: As for :func:`aes_decrypt`.
        ValueError: As for :func:`aes_decrypt`; or the data is not Base64, or what was encrypted is not UTF-8.
    """
    return aes_decrypt(base64.b64decode(encrypted_data), key=key).decode("utf-8")


def aes_decrypt_iter(
    encrypted_iter: Iterable[Buffer],
    *,
    key: bytes | None = None,
) -> Iterator[bytes]:
    """Decrypt a stream, piece by piece.

    The stream may be split anywhere, in its initialization vector too. Each piece is yielded before the next one is
    asked for.

    Args:
        encrypted_iter: The pieces of what :func:`aes_encrypt` or :func:`aes_encrypt_iter` made.
        key: As for :func:`aes_decrypt`.

    Raises:
        TypeError: The key is not of type ``bytes``, or a piece not bytes, at its ``next()``.
        ValueError: As for :func:`aes_decrypt`, at the first ``next()``.
    """
    pieces = iter(encrypted_iter)
    head = b""

    for piece in pieces:
        head += _as_bytes(piece)

        if len(head) >= AES_BLOCK_SIZE:
            break

    decryptor = _native.Decryptor(_checked_key(key), head[:AES_BLOCK_SIZE])
    head = head[AES_BLOCK_SIZE:]
    empty = not head

    if head:
        yield decryptor.update(head)

    for piece in pieces:
        yield decryptor.update(_as_bytes(piece))
        empty = False

    if empty:
        yield b""


def _checked_key(key: bytes | None) -> bytes:
    if key is None:
        key = get_default_aes_encryption_key()

    if not isinstance(key, bytes):
        raise TypeError(f'The encryption key must be of type "bytes", not "{type(key)}"')

    return key


def _as_bytes(data: Buffer) -> bytes:
    if isinstance(data, bytes):
        return data

    if isinstance(data, str):
        raise TypeError("Expected bytes, not a string. Did you mean to encode it?")

    view = memoryview(data)

    if not view.contiguous:
        raise BufferError("The buffer is not contiguous.")

    if view.itemsize != 1:
        raise TypeError(f"Expected a buffer of bytes, not of items of {view.itemsize} bytes.")

    return view.tobytes()
