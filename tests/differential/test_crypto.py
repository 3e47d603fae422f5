"""AES on any input, split anywhere: Djblets' bytes, or Djblets' error."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate, pairwise
from typing import Any

import pytest
from django.test import override_settings
from hypothesis import example, given
from hypothesis import strategies as st

from tests.differential import aes_keys, characters, examples, texts, wrong_aes_keys
from tests.parity import Action, Library, Parity

IV = 16

byte_strings = st.binary(max_size=200)
buffers: list[Callable[[bytes], Any]] = [bytes, bytearray, memoryview]
data = st.builds(lambda make, data: make(data), st.sampled_from(buffers), byte_strings) | st.text(characters)
no_data = st.one_of(st.none(), st.integers(), st.floats(), st.just([b"x"]), st.just(object()))
keys = st.one_of(
    aes_keys,
    wrong_aes_keys,
    st.sampled_from([None, b"", "", "k" * 16, 16, 0, ["k"]]),
    aes_keys.map(bytearray),
    aes_keys.map(memoryview),
)
secrets = st.sampled_from(["s" * 50, "ключ" * 20, "short", "é" * 12]) | st.text(min_size=1, max_size=20)


@st.composite
def pieces(draw: st.DrawFn, whole: st.SearchStrategy[Any] = byte_strings) -> list[Any]:
    """A text of bytes or characters, cut anywhere, with nothing between some cuts."""
    value = draw(whole)
    cuts = draw(st.lists(st.integers(0, len(value)), max_size=6))
    make = draw(st.sampled_from(buffers)) if isinstance(value, bytes) else str
    return [make(value[start:end]) for start, end in pairwise(sorted([0, *cuts, len(value)]))]


def crypto(form: str, data: Any, **options: Any) -> Action:
    return lambda library: getattr(library.crypto, f"aes_{form}")(data, **options)


@examples
@given(data, keys, secrets)
@example("\ud800", b"k" * 16, "s" * 50)
@pytest.mark.parametrize("form", ["encrypt", "encrypt_base64"])
def test_encrypting_anything(both: Parity, form: str, data: Any, key: Any, secret: str) -> None:
    with override_settings(SECRET_KEY=secret):
        both(crypto(form, data, key=key), texts=False)


@examples
@given(data, keys, secrets)
@pytest.mark.parametrize("form", ["decrypt", "decrypt_base64"])
def test_decrypting_anything(both: Parity, form: str, data: Any, key: Any, secret: str) -> None:
    with override_settings(SECRET_KEY=secret):
        both(crypto(form, data, key=key), texts=False)


@examples
@given(no_data, aes_keys)
@pytest.mark.parametrize("form", ["encrypt", "encrypt_base64", "decrypt", "decrypt_base64"])
def test_what_is_no_data(both: Parity, form: str, data: Any, key: bytes) -> None:
    assert both(crypto(form, data, key=key), texts=False).error


@examples
@given(pieces(), keys)
@example([], b"k" * 16)
@example([b"", b""], b"k" * 16)
def test_encrypting_a_stream(both: Parity, pieces: list[Any], key: Any) -> None:
    both(crypto("encrypt_iter", pieces, key=key), texts=False)


@examples
# Without lone surrogates: the pieces ahead of an error arrive here, and not in Djblets.
@given(pieces(st.text(st.characters(codec="utf-8"))), aes_keys)
def test_encrypting_a_stream_of_texts(both: Parity, pieces: list[str], key: bytes) -> None:
    both(crypto("encrypt_iter", pieces, key=key))


@examples
@given(pieces(), keys)
@example([], b"k" * 16)
@example([b"i" * 16], b"k" * 16)
@example([b"i" * 15, b"v", b""], b"k" * 16)
@example([b"i" * 15, b"", b"v", b"", b"x"], b"k" * 16)
def test_decrypting_a_stream(both: Parity, pieces: list[Any], key: Any) -> None:
    both(crypto("decrypt_iter", pieces, key=key), texts=False)


@examples
@given(pieces(), aes_keys, st.lists(st.integers(0, 50), max_size=20))
def test_what_one_encrypts_the_other_decrypts(both: Parity, pieces: list[Any], key: bytes, sizes: list[int]) -> None:
    plain = b"".join(bytes(piece) for piece in pieces)
    for writer, reader in (both.libraries, both.libraries[::-1]):
        encrypted = b"".join(writer.crypto.aes_encrypt_iter(pieces, key=key))
        assert reader.crypto.aes_decrypt(encrypted, key=key) == plain
        cuts = [0, *(min(cut, len(encrypted)) for cut in accumulate(sizes)), len(encrypted)]
        cut = [encrypted[start:end] for start, end in pairwise(cuts)]
        assert b"".join(reader.crypto.aes_decrypt_iter(cut, key=key)) == plain


@examples
@given(texts, aes_keys)
def test_base64_both_ways(both: Parity, text: str, key: bytes) -> None:
    def there_and_back(library: Library) -> str:
        encrypted = library.crypto.aes_encrypt_base64(text, key=key)
        return str(library.crypto.aes_decrypt_base64(encrypted, key=key))

    both(there_and_back, texts=False)


@pytest.mark.parametrize("size", [0, 1, IV, 1000, 2047, 2048, 100_000])
@pytest.mark.parametrize("key_size", [16, 24, 32])
def test_sizes_below_and_above_where_the_gil_is_released(both: Parity, size: int, key_size: int) -> None:
    key = bytes(range(key_size))
    plain = bytes(index * 7 % 251 for index in range(size))
    encrypted = both(crypto("encrypt", plain, key=key)).value
    assert both(crypto("decrypt", encrypted, key=key)).value == plain
