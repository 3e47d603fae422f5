"""Seals: who reads them, what they notice, and what a second opinion says of them."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest
from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.memcached import PyMemcacheCache
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from hypothesis import given, settings
from hypothesis import strategies as st

from fastblets import _native
from fastblets.cache.backend import CACHE_CHUNK_SIZE, cache_memoize, cache_memoize_iter, make_cache_key
from fastblets.secrets.crypto import aes_decrypt, aes_encrypt, get_default_aes_encryption_key
from tests import seal_verifier
from tests.backends import stored_entries
from tests.canary import Canary, songs
from tests.everyday import one_on
from tests.parity import Library, Parity
from tests.seal_verifier import BadSealError
from tests.vectors.cases import noise

pytestmark = pytest.mark.django_db

Options = dict[str, Any]
Stored = dict[str, Any]

SEAL_KEY = b"a key for the seals of tests alone"
MODES = [
    pytest.param({"compress_large_data": compress, "use_encryption": encrypt}, id=f"{first}-{second}")
    for (first, compress), (second, encrypt) in product(
        [("plain", False), ("compressed", True)], [("clear", False), ("encrypted", True)]
    )
]
SEALS = [pytest.param(True, id="sealed"), pytest.param("require", id="required")]
KEYS = [pytest.param(None, id="unkeyed"), pytest.param(SEAL_KEY, id="keyed")]
SIZES = {"empty": [], "small": ["one", 2, None, {"a": b"\xff"}], "large": [noise(1_200_000), "x" * 10, noise(900_000)]}
ITEMS = [pytest.param(items, id=name) for name, items in SIZES.items()]


def never() -> Any:
    pytest.fail("computed again")


def store(items: list[Any], **options: Any) -> None:
    assert list(cache_memoize_iter("key", items, force_overwrite=True, **options)) == items


def read(**options: Any) -> list[Any]:
    """What is read; `["again"]` if it is a miss."""
    return list(cache_memoize_iter("key", ["again"], **options))


def chunk_keys(options: Options, count: int) -> list[str]:
    encryption = {"use_encryption": options["use_encryption"]}
    return [make_cache_key(f"key-{index}", **encryption) for index in range(count)]


def main_key(options: Options) -> str:
    return make_cache_key("key", use_encryption=options["use_encryption"])


def secret_of(options: Options, seal_key: bytes | None = None) -> bytes | None:
    return get_default_aes_encryption_key() if options["use_encryption"] else seal_key


def stored_count(cache: BaseCache, options: Options) -> bytes | str:
    """The count, decrypted, with its seal."""
    stored = cache.get(main_key(options))
    return aes_decrypt(stored) if options["use_encryption"] else stored


def verify(cache: BaseCache, options: Options, seal_key: bytes | None = None) -> list[bytes]:
    """The second opinion on a large entry."""
    secret, key, count = secret_of(options, seal_key), main_key(options), stored_count(cache, options)
    if isinstance(count, bytes):
        count = pickle.loads(seal_verifier.check_pickle(secret, key, seal_verifier.COUNT, count))
    keys = chunk_keys(options, int(count))
    found = stored_entries(cache, keys)
    return seal_verifier.check_chunks(secret, key, [found[key] for key in keys])


@pytest.mark.parametrize("seal", SEALS)
@pytest.mark.parametrize("mode", one_on(MODES))
@pytest.mark.parametrize("items", ITEMS)
def test_djblets_reads_sealed_items(
    both: Parity, cache_backend: BaseCache, items: list[Any], mode: Options, seal: Any
) -> None:
    store(items, seal=seal, **mode)
    assert list(Library("djblets").backend.cache_memoize_iter("key", never, **mode)) == items
    assert verify(cache_backend, mode)
    # And we do, whatever we ask of seals.
    for reading in (False, True, "require"):
        assert list(cache_memoize_iter("key", never, seal=reading, **mode)) == items


@pytest.mark.parametrize("seal", SEALS)
@pytest.mark.parametrize("mode", one_on(MODES))
@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
def test_djblets_reads_sealed_values(
    both: Parity, cache_backend: BaseCache, mode: Options, large: bool, seal: Any
) -> None:
    if seal == "require" and not large and not mode["use_encryption"]:
        pytest.skip("can't be sealed")
    for value in [None, "", "text", b"\0\xff", {"a": [1, (2.5, None)], "b": {1, 2}}, "x" * 1_040_000]:
        cache_backend.clear()
        cache_memoize("key", lambda value=value: value, large_data=large, seal=seal, **mode)
        memoize = Library("djblets").backend.cache_memoize
        assert memoize("key", never, large_data=large, **mode) == value
        if value is None and not large and not mode["use_encryption"] and isinstance(cache_backend, PyMemcacheCache):
            # Which may be what it makes of an error.
            never_none = cache_memoize("key", lambda: "again", seal=seal, **mode)
            assert never_none == "again"
            continue
        assert cache_memoize("key", never, large_data=large, seal=seal, **mode) == value


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("items", ITEMS)
def test_what_djblets_stored_is_read_unless_seals_are_required(
    both: Parity, locmem: BaseCache, mode: Options, items: list[Any]
) -> None:
    list(Library("djblets").backend.cache_memoize_iter("key", items, **mode))
    # No chunk at all is what a damaged count makes of any entry.
    has_chunks = items or mode["compress_large_data"] or mode["use_encryption"]
    assert read(seal=True, **mode) == (items if has_chunks else ["again"])
    locmem.clear()
    list(Library("djblets").backend.cache_memoize_iter("key", items, **mode))
    assert read(seal="require", **mode) == ["again"]
    assert list(cache_memoize_iter("key", never, seal="require", **mode)) == ["again"]


def test_a_small_value_of_djblets_is_read_unless_seals_are_required(both: Parity, locmem: BaseCache) -> None:
    Library("djblets").backend.cache_memoize("key", lambda: "theirs", use_encryption=True)
    assert cache_memoize("key", never, use_encryption=True, seal=True) == "theirs"
    assert cache_memoize("key", lambda: "ours", use_encryption=True, seal="require") == "ours"
    assert cache_memoize("key", never, use_encryption=True, seal="require") == "ours"


@pytest.mark.parametrize("seal_key", KEYS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("items", ITEMS)
def test_a_second_opinion(locmem: BaseCache, mode: Options, items: list[Any], seal_key: bytes | None) -> None:
    with override_settings(FASTBLETS_SEAL_KEY=seal_key):
        store(items, seal=True, **mode)
        assert verify(locmem, mode, seal_key)
        if not mode["use_encryption"]:
            with pytest.raises(BadSealError):
                verify(locmem, mode, b"another key")


@pytest.mark.parametrize("seal_key", KEYS)
@pytest.mark.parametrize("mode", MODES)
def test_what_the_second_opinion_sealed_is_read(locmem: BaseCache, mode: Options, seal_key: bytes | None) -> None:
    store(["here", "there"], **mode)
    key, (chunk_key,), count = main_key(mode), chunk_keys(mode, 1), stored_count(locmem, mode)
    secret = secret_of(mode, seal_key)
    locmem.set(chunk_key, seal_verifier.seal_all(secret, key, b"of a second mind", locmem.get(chunk_key))[0])
    if isinstance(count, bytes):
        count += seal_verifier.trailer(secret, key, seal_verifier.COUNT, count)
        locmem.set(key, aes_encrypt(count))
    with override_settings(FASTBLETS_SEAL="require", FASTBLETS_SEAL_KEY=seal_key):
        assert list(cache_memoize_iter("key", never, **mode)) == ["here", "there"]


#: The first byte of an IV makes but the first byte of keystream, the second two: by chance, they come out the same with
#: a bit flipped there, and nothing has changed.
HARMLESS_IV_BYTES = 2


def test_a_second_opinion_on_a_small_value(locmem: BaseCache) -> None:
    cache_memoize("key", lambda: "value", use_encryption=True, seal=True)
    key, secret = make_cache_key("key", use_encryption=True), get_default_aes_encryption_key()
    sealed = aes_decrypt(locmem.get(key))
    pickled = seal_verifier.check_pickle(secret, key, seal_verifier.VALUE, sealed)
    assert pickled == pickle.dumps("value", 0)
    for other in [(secret, key, seal_verifier.COUNT), (secret, "key", seal_verifier.VALUE), (None, key, b"\0")]:
        with pytest.raises(BadSealError):
            seal_verifier.check_pickle(*other, sealed)
    for at in range(len(sealed)):
        damaged = sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :]
        with pytest.raises(BadSealError):
            seal_verifier.check_pickle(secret, key, seal_verifier.VALUE, damaged)
        # A damaged mark is none, and then there is something behind the pickle.
        with pytest.raises(ValueError):
            _native.open_pickle(damaged, False, _native.Sealer(secret, key.encode()), False)


class Damaged:
    """A sealed entry of three chunks and a canary, with what can be done to it."""

    def __init__(self, cache: BaseCache, options: Options) -> None:
        self.cache, self.options = cache, options
        self.items = [Canary(), *SIZES["large"], noise(1_000_000)]
        self.earlier = self.store()
        self.stored = self.store()
        self.count = len(self.stored) - 1

    def store(self, key: str = "key", more: int = 0) -> Stored:
        items = [*self.items, *[noise(1_100_000)] * more]
        for _ in cache_memoize_iter(key, items, force_overwrite=True, **self.options):
            pass
        encryption = {"use_encryption": self.options["use_encryption"]}
        names = [make_cache_key(f"{key}-{index}", **encryption) for index in range(9)]
        return stored_entries(self.cache, [*names, make_cache_key(key, **encryption)])

    @property
    def keys(self) -> list[str]:
        return chunk_keys(self.options, self.count)

    def set(self, index: int, value: Any) -> None:
        self.cache.set(chunk_keys(self.options, index + 1)[index], value)

    def get(self, index: int) -> list[bytes]:
        return self.stored[self.keys[index]]

    def set_count(self, count: int) -> None:
        """Where the count is encrypted, with a seal that is its own: the chunks have to tell."""
        value: Any = str(count)
        if self.options["use_encryption"]:
            sealer = _native.Sealer(get_default_aes_encryption_key(), main_key(self.options).encode())
            value = aes_encrypt(sealer.seal_pickle(pickle.dumps(value, 0), True))
        self.cache.set(main_key(self.options), value)

    def changed(self) -> Iterator[Any]:
        for index, at in product(range(self.count), (0, 5000, -1)):
            data, seal = self.get(index)
            changed = bytearray(data)
            changed[at] ^= 1
            yield self.set(index, [bytes(changed), seal])

    def seal_changed(self) -> Iterator[Any]:
        for index, at in product(range(self.count), range(0, 49, 4)):
            data, seal = self.get(index)
            changed = bytearray(seal)
            changed[at] ^= 1
            yield self.set(index, [data, bytes(changed)])

    def seal_of_no_size(self) -> Iterator[Any]:
        for size in (0, 1, 48):
            data, seal = self.get(0)
            yield self.set(0, [data, seal[:size]])
        yield self.set(0, [*self.get(0)[:1], None])
        yield self.set(0, [*self.get(0)[:1], "text"])

    def cut(self) -> Iterator[Any]:
        for index in range(self.count):
            data, seal = self.get(index)
            yield self.set(index, [data[:-1], seal])
            yield self.set(index, [b"", seal])

    def swapped(self) -> Iterator[Any]:
        yield self.set(0, self.get(1)), self.set(1, self.get(0))

    def of_another_key(self) -> Iterator[Any]:
        other = self.store("other")
        encryption = {"use_encryption": self.options["use_encryption"]}
        for index in range(self.count):
            yield self.set(index, other[make_cache_key(f"other-{index}", **encryption)])
        for index in range(self.count):
            self.set(index, other[make_cache_key(f"other-{index}", **encryption)])
        yield

    def of_an_earlier_write(self) -> Iterator[Any]:
        for index in range(self.count):
            yield self.set(index, self.earlier[self.keys[index]])

    def missing(self) -> Iterator[Any]:
        for index in range(self.count):
            yield self.cache.delete(self.keys[index])

    def without_a_seal(self) -> Iterator[Any]:
        for index in range(self.count):
            yield self.set(index, self.get(index)[:1])

    def fewer(self) -> Iterator[Any]:
        for count in range(self.count):
            yield self.set_count(count)

    def more(self) -> Iterator[Any]:
        yield self.set_count(self.count + 1)
        longer = self.store("other", more=1)
        encryption = {"use_encryption": self.options["use_encryption"]}
        extra = longer[make_cache_key(f"other-{self.count}", **encryption)]
        yield self.set(self.count, extra), self.set_count(self.count + 1)
        yield self.set(self.count, self.get(self.count - 1)), self.set_count(self.count + 1)

    def count_changed(self) -> Iterator[Any]:
        stored = self.stored[main_key(self.options)]
        if isinstance(stored, bytes):
            for at in range(HARMLESS_IV_BYTES, len(stored)):
                yield self.cache.set(main_key(self.options), stored[:at] + bytes([stored[at] ^ 1]) + stored[at + 1 :])


DAMAGES = [
    pytest.param(damage, id=damage.__name__)
    for damage in (
        Damaged.changed,
        Damaged.seal_changed,
        Damaged.seal_of_no_size,
        Damaged.cut,
        Damaged.swapped,
        Damaged.of_another_key,
        Damaged.of_an_earlier_write,
        Damaged.missing,
        Damaged.without_a_seal,
        Damaged.fewer,
        Damaged.more,
        Damaged.count_changed,
    )
]


# The one that is not required is noticed by the same code.
@pytest.mark.parametrize("seal", [pytest.param(True, id="sealed", marks=pytest.mark.slow), *SEALS[1:]])
@pytest.mark.parametrize("mode", one_on(MODES))
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_noticed_before_anything_is_unpickled(
    locmem: BaseCache, mode: Options, damage: Callable[[Damaged], Iterator[Any]], seal: Any
) -> None:
    options = {**mode, "seal": seal}
    entry = Damaged(locmem, mode | {"seal": True})
    songs.clear()
    for _ in damage(entry):
        with pytest.raises((BadSealError, KeyError, TypeError)):
            verify(locmem, mode)
        assert read(**options) == ["again"]
        assert not songs
        locmem.set_many(entry.stored)
    # Nothing else was wrong with it.
    assert verify(locmem, mode)


def test_the_canary_sings(locmem: BaseCache) -> None:
    list(cache_memoize_iter("key", [Canary()], seal=True))
    songs.clear()
    assert list(cache_memoize_iter("key", never, seal="require")) == ["planted"]
    assert songs


@pytest.mark.parametrize("seal", SEALS)
def test_a_damaged_small_value_is_noticed_before_it_is_unpickled(locmem: BaseCache, seal: Any) -> None:
    def read_small(key: str = "key") -> Any:
        return cache_memoize(key, lambda: "again", use_encryption=True, seal=seal)

    key = make_cache_key("key", use_encryption=True)
    cache_memoize("key", lambda: Canary(), use_encryption=True, seal=seal)
    stored = locmem.get(key)
    songs.clear()
    for at in range(HARMLESS_IV_BYTES, len(stored)):
        locmem.set(key, stored[:at] + bytes([stored[at] ^ 1]) + stored[at + 1 :])
        assert read_small() == "again"
    for size in range(len(stored)):
        # Cut off behind the pickle, it is one without a seal: the one that was stored.
        if seal == "require" or size != len(stored) - 36:
            locmem.set(key, stored[:size])
            assert read_small() == "again"
    locmem.set(make_cache_key("other", use_encryption=True), stored)
    assert read_small("other") == "again"
    assert not songs
    locmem.set(key, stored)
    assert read_small() == "planted"


def test_a_count_is_no_value(locmem: BaseCache) -> None:
    list(cache_memoize_iter("key", ["item"], use_encryption=True, seal=True))
    assert cache_memoize("key", lambda: "computed", use_encryption=True, seal=True) == "computed"
    assert list(cache_memoize_iter("key", ["again"], use_encryption=True, seal=True)) == ["again"]


@pytest.mark.parametrize("mode", MODES)
def test_a_seal_of_another_kind_of_secret_is_none(locmem: BaseCache, mode: Options) -> None:
    with override_settings(FASTBLETS_SEAL_KEY=SEAL_KEY):
        store(["item"], seal=True, **mode)
    # The key of an encrypted entry is the AES key: this one is for all others.
    expected = ["item"] if mode["use_encryption"] else ["again"]
    assert read(seal=True, **mode) == expected


def test_an_empty_chunk_without_a_seal_is_damage(locmem: BaseCache) -> None:
    mode = {"compress_large_data": False, "use_encryption": False}
    store([], seal=True, **mode)
    (key,) = chunk_keys(mode, 1)
    for seal in (False, True, "require"):
        assert list(cache_memoize_iter("key", never, seal=seal, **mode)) == []
    locmem.set(key, [b""])
    for seal in (False, True, "require"):
        store([], seal=True, **mode)
        locmem.set(key, [b""])
        assert read(seal=seal, **mode) == ["again"]


@pytest.mark.every_backend
def test_the_largest_chunk_fits_with_its_seal(cache_backend: BaseCache) -> None:
    mode = {"compress_large_data": False, "use_encryption": False}
    store([noise(3 * CACHE_CHUNK_SIZE)], seal=True, **mode)
    assert len(verify(cache_backend, mode)) == 4


def test_a_sealed_entry_is_looked_at_once(locmem: BaseCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its chunks are of one write, so that nobody has to look at the count again."""
    mode = {"compress_large_data": False, "use_encryption": False}
    store(["item"], seal=True, **mode)
    get, asked = locmem.get, []
    monkeypatch.setattr(locmem, "get", lambda key, *more, **named: asked.append(key) or get(key, *more, **named))
    assert read(seal=True, **mode) == ["item"]
    assert asked.count(main_key(mode)) == 1


@pytest.mark.parametrize("make", [True, False], ids=["setting", "argument"])
def test_what_seals_are_is_said_clearly(locmem: BaseCache, make: bool) -> None:
    for wrong in (1, 0, "", "required", "True", b"require", []):
        error, settings, options = (
            (ImproperlyConfigured, {"FASTBLETS_SEAL": wrong}, {}) if make else (ValueError, {}, {"seal": wrong})
        )
        with override_settings(**settings), pytest.raises(error, match='False, True or "require"'):
            cache_memoize("key", never, **options)
        with override_settings(**settings), pytest.raises(error):
            list(cache_memoize_iter("key", never, **options))


def test_the_key_for_seals_is_checked_and_never_told(locmem: BaseCache) -> None:
    for wrong in ("too short", b"x" * 15, 5, [], ""):
        with override_settings(FASTBLETS_SEAL=True, FASTBLETS_SEAL_KEY=wrong):
            with pytest.raises(ImproperlyConfigured, match="FASTBLETS_SEAL_KEY must be") as raised:
                list(cache_memoize_iter("key", never))
            assert not wrong or str(wrong) not in str(raised.value).replace("16 bytes", "")
    # A key in the wrong place.
    with override_settings(FASTBLETS_SEAL="hunter2"), pytest.raises(ImproperlyConfigured) as raised:
        list(cache_memoize_iter("key", never))
    assert "hunter2" not in str(raised.value)


def test_a_small_value_that_is_not_encrypted_cannot_be_required_to_have_a_seal(locmem: BaseCache) -> None:
    with override_settings(FASTBLETS_SEAL="require"):
        with pytest.raises(ImproperlyConfigured, match="can't be sealed"):
            cache_memoize("key", never)
        assert cache_memoize("key", lambda: "value", seal=False) == "value"
        assert cache_memoize("key", lambda: "value", seal=True) == "value"
        assert cache_memoize("key", lambda: "large", large_data=True) == "large"


def test_text_and_bytes_are_one_key_for_seals(locmem: BaseCache) -> None:
    with override_settings(FASTBLETS_SEAL="require", FASTBLETS_SEAL_KEY="ключ для печатей"):
        store(["item"])
    with override_settings(FASTBLETS_SEAL="require", FASTBLETS_SEAL_KEY="ключ для печатей".encode()):
        assert read() == ["item"]


def test_an_invalid_seal_is_logged_with_its_key(locmem: BaseCache, caplog: pytest.LogCaptureFixture) -> None:
    mode = {"compress_large_data": True, "use_encryption": False}
    store(["item"], seal=True, **mode)
    (key,) = chunk_keys(mode, 1)
    data, seal = locmem.get(key)
    locmem.set(key, [data, seal[:-1] + b"?"])
    with caplog.at_level(logging.WARNING, "djblets"):
        assert read(seal=True, **mode) == ["again"]
    assert "example.com:key" in caplog.text
    assert "seal is not valid: it does not fit the data" in caplog.text


def test_no_secret_is_logged(locmem: BaseCache, caplog: pytest.LogCaptureFixture) -> None:
    aes_key = b"0123456789abcdef"
    with caplog.at_level(logging.DEBUG), override_settings(FASTBLETS_SEAL="require", FASTBLETS_SEAL_KEY=SEAL_KEY):
        for options in ({}, {"use_encryption": True, "encryption_key": aes_key}):
            names = [make_cache_key(name, **options) for name in ("key", "key-0")]
            for _ in range(3):
                list(cache_memoize_iter("key", ["item"], **options))
                locmem.set_many({name: [b"x" * 60, b"x" * 49] for name in names})
    assert "Failed to" in caplog.text
    for secret in (SEAL_KEY, aes_key):
        assert secret.decode() not in caplog.text
        assert secret.hex() not in caplog.text
    assert "0x" in repr(_native.Sealer(SEAL_KEY, b"key"))


secrets = st.none() | st.binary(min_size=1, max_size=40)
chunk_lists = st.lists(st.binary(max_size=8), min_size=1, max_size=4)


@given(secrets, st.text(max_size=8), chunk_lists, st.lists(st.tuples(*[st.integers(0, 60)] * 3), max_size=3))
@settings(max_examples=500, deadline=None, database=None)
def test_both_opinions_are_the_same_on_whatever_was_damaged(
    secret: bytes | None, key: str, chunks: list[bytes], damages: list[tuple[int, int, int]]
) -> None:
    stored = seal_verifier.seal_all(secret, key, b"an identity.....", chunks)
    before = [list(item) for item in stored]
    for kind, first, second in damages:
        a, b = first % len(stored), second % len(stored)
        if kind % 4 == 0:
            stored[a], stored[b] = stored[b], stored[a]
        elif kind % 4 == 1:
            stored = stored[:a] + stored[b:] or stored
        elif kind % 4 == 2:
            which = kind // 4 % 2
            part = bytearray(stored[a][which])
            if part:
                part[second % len(part)] ^= 1 << kind % 8
            stored[a] = [*stored[a][:which], bytes(part), *stored[a][which + 1 :]]
        else:
            stored[a] = seal_verifier.seal_all(secret, key, b"another identity", chunks)[a % len(chunks)]

    def native() -> None:
        sealer = _native.Sealer(secret, key.encode("utf-8", "surrogatepass"))
        sealer.check_chunks([item[0] for item in stored], [item[1] for item in stored])

    def verifier() -> None:
        seal_verifier.check_chunks(secret, key, stored)

    if stored == before:
        native()
        verifier()
        return
    accepted = []
    for opinion in (native, verifier):
        try:
            opinion()
            accepted.append(opinion)
        except (BadSealError, ValueError):
            pass
    # Another write in full is as good.
    assert len(accepted) in (0, 2)
