"""Keys, values, iterables and AES: the same as in Djblets, to the byte."""

from __future__ import annotations

import base64
import pickle
import random
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

import pytest
from django.test import override_settings

from tests.parity import Action, Library, Parity

DOMAIN = "example.com:"
LONGEST = 240
CHUNK = 2**20 - 1024
IV = 16

AES_KEYS = [bytes(range(size)) for size in (16, 24, 32)]
WRONG_SIZES = [bytes(size) for size in (1, 15, 17, 31, 33, 56)]
# Falsy ones stand for the default key where a key is optional.
EMPTY_KEYS: list[Any] = [None, b"", "", 0, bytearray()]
WRONG_TYPES: list[Any] = ["k" * 16, bytearray(16), memoryview(bytes(16)), 16, ["k"]]

EVERY_BYTE = bytes(range(256))
LATIN_1 = EVERY_BYTE.decode("latin-1")
SURROGATES = "\ud83d\ude00 \udfff"
AWKWARD_TEXTS = [
    "",
    "\\",
    "\\u0041 \\x41 \\n",
    "line\nline\r\nline\u2028",
    "\x00\x1a\x85\xa0",
    LATIN_1,
    "ключ 鍵 🔑 e\u0301",
]


def length(text: str) -> str:
    """An id that keeps long parameters out of the tests' names."""
    return ascii(text) if len(text) < 30 else f"{text[:6]!a} x {len(text)}"


def shorthand(value: Any) -> str | None:
    if isinstance(value, str):
        return length(value)
    # An address would be another in each process, and every worker must know a test by the same name.
    return re.sub(r" at 0x[0-9a-f]+", "", ascii(value))[:40]


def texts_around_the_longest_key() -> list[str]:
    sizes = [LONGEST - len(DOMAIN) + more for more in (-1, 0, 1, 2)]
    # By characters, not by bytes; control characters take four.
    return [character * size for size in (*sizes, 1000) for character in "aд🔑"] + [
        "a" * (size - 4) + "\n" for size in sizes
    ]


KEYS: list[str | Sequence[str]] = [
    "key",
    "a b",
    "tab\tline\n\x00\x1f\x7f",
    "\x80\x85\xa0\u2028",
    "ключ 鍵 🔑",
    "%",
    ":",
    "%3A",
    "100%:done",
    *AWKWARD_TEXTS,
    *texts_around_the_longest_key(),
    [],
    [""],
    ["one"],
    ["100%:done"],
    ("one:",),
    ["a", "b"],
    ("a:b", "c%d"),
    ["", ""],
    ["%3A", "%25", ":", "%", "\n"],
    ("users", "1", "ключ", "🔑", "x" * 300),
    ["a" * 110, "b" * 117],
    ["a" * 110, "b" * 118],
    ["%" * 80, ":" * 80],
]


@pytest.mark.parametrize("key", KEYS, ids=shorthand)
@pytest.mark.parametrize("encrypted", [False, True, None])
def test_a_key(both: Parity, key: str | Sequence[str], encrypted: bool | None) -> None:
    both(lambda library: library.backend.make_cache_key(key, use_encryption=encrypted))


@pytest.mark.parametrize("site_root", ["/", "/reviews/", "/a b:c/", "", None, "/" + "r" * 300])
@pytest.mark.parametrize("key", ["key", ["a:b", "c"], "k" * 300], ids=shorthand)
def test_a_key_of_a_site_below_a_path(both: Parity, site_root: str | None, key: str | Sequence[str]) -> None:
    with override_settings(SITE_ROOT=site_root):
        trial = both(lambda library: library.backend.make_cache_key(key))
    assert trial.value is not None
    assert trial.value.startswith(DOMAIN)


@pytest.mark.parametrize("key", ["key", ["a:b", "c"], "k" * 300], ids=shorthand)
@pytest.mark.parametrize("encrypted", [False, True])
def test_a_key_without_a_site(both: Parity, key: str | Sequence[str], encrypted: bool) -> None:
    with override_settings(SITE_ID=999):
        trial = both(lambda library: library.backend.make_cache_key(key, use_encryption=encrypted))
    assert trial.value is not None
    assert not trial.value.startswith(DOMAIN)


@pytest.mark.parametrize("aes_key", [*AES_KEYS, *WRONG_SIZES, *EMPTY_KEYS, *WRONG_TYPES], ids=shorthand)
@pytest.mark.parametrize("encrypted", [False, True])
def test_a_key_under_an_aes_key(both: Parity, aes_key: Any, encrypted: bool) -> None:
    both(lambda library: library.backend.make_cache_key("key", use_encryption=encrypted, encryption_key=aes_key))


@pytest.mark.parametrize(
    "settings",
    [
        {"DJBLETS_CACHE_FORCE_ENCRYPTION": True},
        {"DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY": "ключ-ключ"},
        {"DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY": AES_KEYS[2]},
        {"DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY": ""},
        {"SECRET_KEY": "ключ" * 20},
        {"SECRET_KEY": "short"},
    ],
    ids=str,
)
@pytest.mark.parametrize("encrypted", [None, False, True])
def test_the_settings(both: Parity, settings: dict[str, Any], encrypted: bool | None) -> None:
    def memoize(library: Library) -> Any:
        key = library.backend.make_cache_key("key", use_encryption=encrypted)
        value = library.backend.cache_memoize("key", lambda: "value", use_encryption=encrypted)
        return key, value

    with override_settings(**settings):
        both(memoize)


MODES = [
    pytest.param({"compress_large_data": compress, "use_encryption": encrypt}, id=f"{first}-{second}")
    for first, compress in (("plain", False), ("compressed", True))
    for second, encrypt in (("clear", False), ("encrypted", True))
]
Mode = dict[str, bool]

_SHARED = ["shared"]
VALUES: list[Any] = [
    *AWKWARD_TEXTS,
    SURROGATES,
    None,
    True,
    0,
    -1,
    255,
    65536,
    2**31,
    -(2**63),
    10**60,
    1.5,
    float("inf"),
    float("nan"),
    -0.0,
    b"",
    EVERY_BYTE,
    bytearray(b"bytes"),
    [],
    {},
    (),
    set(),
    (1,),
    (1, 2, 3, 4, 5),
    [_SHARED, _SHARED, ("a", "a")],
    {"key": ["value", {"deep": (None, False, 1e100)}], 1: LATIN_1, None: b"\x80"},
    frozenset({"one"}),
    datetime(2024, 2, 29, 12, 30, tzinfo=timezone.utc),
    Decimal("1.10"),
    ["x" * 300] * 300,
]


def memoize(key: str | Sequence[str], make: Callable[[], Any], **options: Any) -> Action:
    return lambda library: library.backend.cache_memoize(key, make, **options)


def memoize_iter(key: str | Sequence[str], make: Any, **options: Any) -> Action:
    return lambda library: library.backend.cache_memoize_iter(key, make, **options)


@pytest.mark.parametrize("value", VALUES, ids=shorthand)
@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
@pytest.mark.parametrize("mode", MODES)
def test_a_value(both: Parity, value: Any, large: bool, mode: Mode) -> None:
    trial = both.crosswise(memoize("key", lambda: value, large_data=large, **mode))
    assert trial.writes


@pytest.mark.parametrize("key", [["a:b", "c%"], ("one",), "k" * 300, "a b"], ids=shorthand)
@pytest.mark.parametrize("mode", MODES)
def test_a_large_value_under_an_awkward_key(both: Parity, key: str | Sequence[str], mode: Mode) -> None:
    both.crosswise(memoize(key, lambda: "value", large_data=True, **mode))


@pytest.mark.parametrize("mode", MODES)
def test_an_overwritten_value(both: Parity, mode: Mode) -> None:
    def overwrite(library: Library) -> list[Any]:
        return [
            library.backend.cache_memoize(
                "key",
                lambda version=version: version,
                large_data=True,
                force_overwrite=True,
                **mode,
            )
            for version in ("old", "new")
        ]

    trial = both(overwrite)
    assert trial.value == ["old", "new"]


def text_pickled_to(size: int) -> str:
    """A text whose pickle has that size."""
    return "x" * (size - len(pickle.dumps("", protocol=0)))


@pytest.mark.parametrize("encrypted", [False, True], ids=["clear", "encrypted"])
@pytest.mark.parametrize("more", [-1, 0, 1])
@pytest.mark.parametrize("chunks", [1, 2, 3])
def test_a_value_of_about_so_many_chunks(both: Parity, chunks: int, more: int, encrypted: bool) -> None:
    stored = chunks * CHUNK + more
    value = text_pickled_to(stored - IV if encrypted else stored)
    trial = both.crosswise(
        memoize(
            "key",
            lambda: value,
            large_data=True,
            compress_large_data=False,
            use_encryption=encrypted,
        )
    )
    # And one more entry for their number.
    assert len(trial.stored) == chunks + (more > 0) + 1


@pytest.mark.parametrize("mode", MODES)
def test_a_value_of_several_chunks_in_every_mode(both: Parity, mode: Mode) -> None:
    noise = random.Random(1).randbytes(2 * CHUNK)
    trial = both.crosswise(memoize("key", lambda: noise, large_data=True, **mode))
    assert len(trial.stored) > 3


@pytest.mark.parametrize("size", [CHUNK - 1, CHUNK])
def test_a_warning_of_a_text_that_may_be_too_big(both: Parity, size: int) -> None:
    trial = both.crosswise(memoize("key", lambda: "x" * size))
    warned = any(line.startswith("WARNING") for line in trial.logs)
    assert warned == (size >= CHUNK)


ITEMS: list[list[Any]] = [
    [],
    [None],
    [""],
    [[]],
    ["one"],
    [*AWKWARD_TEXTS, SURROGATES],
    list(range(-300, 300)),
    [_SHARED, _SHARED, _SHARED],
    [("row", number, {"even": number % 2 == 0}) for number in range(2000)],
]


@pytest.mark.parametrize("items", ITEMS, ids=shorthand)
@pytest.mark.parametrize("mode", MODES)
def test_items(both: Parity, items: list[Any], mode: Mode) -> None:
    trial = both.crosswise(memoize_iter("key", lambda: iter(items), **mode))
    assert trial.value == items


@pytest.mark.parametrize("source", ["list", "tuple", "iterator", "callable", "generator function"])
def test_where_items_come_from(both: Parity, source: str) -> None:
    def generate() -> Iterator[str]:
        yield from ("one", "two")

    sources: dict[str, Callable[[], Any]] = {
        "list": lambda: ["one", "two"],
        "tuple": lambda: ("one", "two"),
        "iterator": lambda: iter(["one", "two"]),
        "callable": lambda: lambda: ["one", "two"],
        "generator function": lambda: generate,
    }
    trial = both.crosswise(lambda library: library.backend.cache_memoize_iter("key", sources[source]()))
    assert trial.value == ["one", "two"]


@pytest.mark.parametrize("mode", MODES)
def test_items_of_several_chunks(both: Parity, mode: Mode) -> None:
    noise = random.Random(2)
    items = [noise.randbytes(CHUNK // 3) for _ in range(6)]
    trial = both.crosswise(memoize_iter(["a:b", "c"], lambda: iter(items), **mode))
    assert len(trial.stored) > 2


@pytest.mark.parametrize("aes_key", [*AES_KEYS, *EMPTY_KEYS, *WRONG_TYPES], ids=shorthand)
@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
def test_memoizing_under_an_aes_key(both: Parity, aes_key: Any, large: bool) -> None:
    both(memoize("key", lambda: "value", large_data=large, use_encryption=True, encryption_key=aes_key))


@pytest.mark.parametrize("aes_key", WRONG_SIZES, ids=shorthand)
def test_a_value_under_an_aes_key_of_a_wrong_size_is_not_stored(both: Parity, aes_key: bytes) -> None:
    trial = both(memoize("key", lambda: "value", use_encryption=True, encryption_key=aes_key))
    assert trial.value == "value"
    assert not trial.stored


@pytest.mark.parametrize("aes_key", WRONG_SIZES, ids=shorthand)
def test_djblets_loses_a_large_value_to_an_aes_key_of_a_wrong_size(both: Parity, aes_key: bytes) -> None:
    action = memoize("key", lambda: "value", large_data=True, use_encryption=True, encryption_key=aes_key)
    theirs, ours = (both.run(library, action) for library in both.libraries)
    assert isinstance(theirs.error, AssertionError)
    assert ours.value == "value"
    for trial in (theirs, ours):
        assert not trial.stored
        assert any(line.startswith("ERROR") for line in trial.logs)


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
def test_an_entry_under_another_aes_key_is_not_found(both: Parity, large: bool) -> None:
    def memoize_twice(library: Library) -> list[Any]:
        return [
            library.backend.cache_memoize(
                "key",
                lambda size=size: size,
                large_data=large,
                use_encryption=True,
                encryption_key=bytes(size),
            )
            for size in (16, 32)
        ]

    # What is wrong with garbage is said in other words.
    assert both(memoize_twice, ignoring=r"(?<=deserialize).+|(?<=Rebuilding data).+").value == [16, 32]


DATA: list[Any] = [b"", b"x", EVERY_BYTE, "", "text", *AWKWARD_TEXTS]
BUFFERS: list[Callable[[], Any]] = [
    lambda: bytearray(EVERY_BYTE),
    lambda: memoryview(EVERY_BYTE),
    lambda: memoryview(EVERY_BYTE)[3:100],
    lambda: bytearray(),
]
NO_DATA: list[Any] = [None, 0, 1.5, ["x"]]
KEY_OPTIONS = [{}, {"key": None}, *({"key": key} for key in AES_KEYS)]
WRONG_KEYS = [{"key": key} for key in (*WRONG_SIZES, b"", "", 0, bytearray(), *WRONG_TYPES)]
ENCRYPTED = bytes(range(IV)) + EVERY_BYTE
FORMS = ["encrypt", "encrypt_base64", "decrypt", "decrypt_base64"]


def crypto(form: str, data: Any, options: dict[str, Any]) -> Action:
    return lambda library: getattr(library.crypto, f"aes_{form}")(data, **options)


@pytest.mark.parametrize("options", KEY_OPTIONS, ids=shorthand)
@pytest.mark.parametrize("data", DATA, ids=shorthand)
@pytest.mark.parametrize("form", FORMS[:2])
def test_encrypting(both: Parity, form: str, data: Any, options: dict[str, Any]) -> None:
    trial = both(crypto(form, data, options))
    expected = data.encode() if isinstance(data, str) else data
    for library in both.libraries:
        encrypted = base64.b64decode(trial.value) if "base64" in form else trial.value
        assert library.crypto.aes_decrypt(encrypted, **options) == expected


@pytest.mark.parametrize("make", BUFFERS)
@pytest.mark.parametrize("form", FORMS)
def test_buffers(both: Parity, form: str, make: Callable[[], Any]) -> None:
    both(crypto(form, make(), {}))


@pytest.mark.parametrize("data", [*NO_DATA, SURROGATES], ids=shorthand)
@pytest.mark.parametrize("form", FORMS)
def test_what_is_no_data(both: Parity, form: str, data: Any) -> None:
    # The texts of these errors are Python's and those of Djblets' AES, and change with them.
    assert both(crypto(form, data, {}), texts=False).error


@pytest.mark.parametrize("options", WRONG_KEYS, ids=shorthand)
@pytest.mark.parametrize("form", FORMS)
def test_wrong_keys(both: Parity, form: str, options: dict[str, Any]) -> None:
    data = base64.b64encode(ENCRYPTED) if "base64" in form else ENCRYPTED
    assert both(crypto(form, data, options)).error


@pytest.mark.parametrize("options", KEY_OPTIONS, ids=shorthand)
@pytest.mark.parametrize("size", [0, 1, IV - 1, IV, IV + 1, len(ENCRYPTED)])
def test_decrypting(both: Parity, size: int, options: dict[str, Any]) -> None:
    trial = both(crypto("decrypt", ENCRYPTED[:size], options))
    assert (trial.error is not None) == (size < IV)


@pytest.mark.parametrize("options", KEY_OPTIONS, ids=shorthand)
@pytest.mark.parametrize("kind", [bytes, bytes.decode])
@pytest.mark.parametrize("text", AWKWARD_TEXTS, ids=shorthand)
def test_decrypting_base64(
    both: Parity, text: str, kind: Callable[[bytes], bytes | str], options: dict[str, Any]
) -> None:
    encrypted = both.djblets.crypto.aes_encrypt_base64(text, **options)
    assert both(crypto("decrypt_base64", kind(encrypted.encode()), options)).value == text


@pytest.mark.parametrize("data", ["", "x", "====", "not base64!", "ключ", b"\xff"], ids=shorthand)
def test_decrypting_what_is_no_base64(both: Parity, data: Any) -> None:
    assert both(crypto("decrypt_base64", data, {})).error


def split(data: Any, *sizes: int) -> list[Any]:
    """Cut into pieces of these sizes, over and over, or into one."""
    pieces, at, turn = [], 0, 0
    while sizes and at < len(data):
        size = sizes[turn % len(sizes)]
        pieces.append(data[at : at + size])
        at, turn = at + size, turn + 1
    return pieces if sizes else [data]


SPLITS = [(), (1,), (3,), (7, 1), (0, 5), (15,), (16,), (17,), (0, 16), (100, 0, 0, 1)]


@pytest.mark.parametrize("options", KEY_OPTIONS, ids=shorthand)
@pytest.mark.parametrize("sizes", SPLITS, ids=str)
@pytest.mark.parametrize("data", [b"", b"x", EVERY_BYTE, "", LATIN_1], ids=shorthand)
def test_encrypting_a_stream(both: Parity, data: Any, sizes: tuple[int, ...], options: dict[str, Any]) -> None:
    pieces = split(data, *sizes)
    trial = both(crypto("encrypt_iter", pieces, options))
    whole = both(crypto("encrypt", data, options))
    assert b"".join(trial.value) == whole.value


@pytest.mark.parametrize("options", KEY_OPTIONS, ids=shorthand)
@pytest.mark.parametrize("sizes", SPLITS, ids=str)
@pytest.mark.parametrize("size", [0, 1, IV - 1, IV, IV + 1, len(ENCRYPTED)])
def test_decrypting_a_stream(both: Parity, size: int, sizes: tuple[int, ...], options: dict[str, Any]) -> None:
    pieces = split(ENCRYPTED[:size], *sizes)
    trial = both(crypto("decrypt_iter", pieces, options))
    if size < IV:
        assert isinstance(trial.error, ValueError)
    else:
        whole = both(crypto("decrypt", ENCRYPTED[:size], options))
        assert b"".join(trial.value) == whole.value


@pytest.mark.parametrize("form", ["encrypt_iter", "decrypt_iter"])
@pytest.mark.parametrize("pieces", [[b"x" * 20, 1], [b"x" * 20, ["x"]], [None]], ids=shorthand)
def test_streams_with_what_is_no_data(both: Parity, form: str, pieces: list[Any]) -> None:
    # Djblets is a piece behind, so that what comes ahead of the error differs.
    for library in both.libraries:
        trial = both.run(library, crypto(form, pieces, {}))
        assert isinstance(trial.error, TypeError), library


@pytest.mark.parametrize("options", WRONG_KEYS, ids=shorthand)
@pytest.mark.parametrize("form", ["encrypt_iter", "decrypt_iter"])
def test_streams_with_wrong_keys(both: Parity, form: str, options: dict[str, Any]) -> None:
    assert both(crypto(form, [ENCRYPTED], options)).error


def test_the_default_aes_key(both: Parity) -> None:
    both(lambda library: library.crypto.get_default_aes_encryption_key())
