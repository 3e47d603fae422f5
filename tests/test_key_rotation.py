"""Older encryption keys: what was stored under them is found, verified, and stored again under the newest."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from django.core.cache.backends.base import BaseCache
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from hypothesis import given, settings
from hypothesis import strategies as st

from fastblets import _native
from fastblets.cache.backend import cache_memoize, cache_memoize_iter, make_cache_key
from fastblets.cache.values import cache_get
from fastblets.protect.locks import CacheLock
from fastblets.secrets.crypto import aes_decrypt, aes_encrypt
from tests.backends import stored_bytes
from tests.canary import Canary, songs
from tests.faults import failing
from tests.vectors.cases import noise

pytestmark = pytest.mark.django_db

OLDEST, OLD, NEW = b"the oldest key..", b"the old key of 24 bytes.", b"the newest key.."
SEALS = [pytest.param(seal, id=f"seal-{seal}") for seal in (False, True, "require")]
KINDS = ["small", "large", "iter", "iter-plain", pytest.param("iter-long", marks=pytest.mark.slow)]


def rotated(key: bytes, *older: bytes, **more: Any) -> Any:
    return override_settings(DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY=key, FASTBLETS_ENCRYPTION_KEY_FALLBACKS=older, **more)


def never() -> Any:
    pytest.fail("computed again")


def memoize(kind: str, make: Callable[[], Any], **options: Any) -> Any:
    options = {"use_encryption": True, **options}
    if kind.startswith("iter"):
        return list(cache_memoize_iter("key", make, compress_large_data=kind != "iter-plain", **options))
    return cache_memoize("key", make, large_data=kind == "large", **options)


def value_of(kind: str) -> Any:
    if kind == "iter-long":
        return [noise(1_000_000)] * 18
    return ["one", {"two": 2}] if kind.startswith("iter") else {"a": [1, b"\xff"]}


@pytest.mark.parametrize("seal", SEALS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("older", [OLD, OLDEST], ids=["old", "oldest"])
@pytest.mark.parametrize("locked", [False, True], ids=["", "locked"])
def test_what_was_stored_under_an_older_key_moves(
    locmem: BaseCache, kind: str, seal: Any, older: bytes, locked: bool
) -> None:
    value = value_of(kind)
    with rotated(older):
        assert memoize(kind, lambda: value, seal=seal) == value
        older_key = make_cache_key("key", use_encryption=True)
    lock = CacheLock() if locked else None
    with rotated(NEW, OLD, OLDEST):
        assert memoize(kind, never, seal=seal, lock=lock) == value
        assert make_cache_key("key", use_encryption=True) in locmem
    assert older_key not in locmem
    assert lock is None or not lock.locked()
    with rotated(NEW):
        assert memoize(kind, never, seal=seal) == value


@pytest.mark.parametrize("kind", KINDS)
def test_it_moves_under_the_lock(locmem: BaseCache, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with rotated(OLD):
        memoize(kind, lambda: value_of(kind))
    lock = CacheLock("a lock")
    held: list[bool] = []

    def noting(method: Callable[..., Any]) -> Callable[..., Any]:
        def noted(what: Any, *args: Any, **kwargs: Any) -> Any:
            keys = what if isinstance(what, dict) else [what]
            held.extend(lock.locked() for key in keys if "lock" not in key)
            return method(what, *args, **kwargs)

        return noted

    for name in ("set", "set_many", "delete"):
        monkeypatch.setattr(locmem, name, noting(getattr(locmem, name)))
    with rotated(NEW, OLD):
        assert memoize(kind, never, lock=lock) == value_of(kind)
    assert held
    assert all(held)
    assert not lock.locked()


def test_a_lock_that_is_held_stays_held(locmem: BaseCache) -> None:
    with rotated(OLD):
        memoize("small", lambda: "value")
    with rotated(NEW, OLD), CacheLock("a lock") as lock:
        assert memoize("small", never, lock=lock) == "value"
        assert lock.locked()


def test_the_latest_of_the_older_keys_comes_first(locmem: BaseCache) -> None:
    for key in (OLDEST, OLD):
        with rotated(key):
            memoize("small", lambda key=key: key)
    with rotated(NEW, OLD, OLDEST):
        assert memoize("small", never) == OLD
        assert memoize("small", never) == OLD


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_overwritten_does_not_come_back(locmem: BaseCache, kind: str) -> None:
    with rotated(OLD):
        memoize(kind, lambda: value_of(kind))
    with rotated(NEW, OLD):
        memoize(kind, lambda: ["new"], force_overwrite=True)
        locmem.delete(make_cache_key("key", use_encryption=True))
        assert memoize(kind, lambda: ["newer"]) == ["newer"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("locked", [False, True], ids=["", "locked"])
def test_an_entry_that_cannot_be_read_does_not_give_way_to_an_older_one(
    locmem: BaseCache, kind: str, locked: bool
) -> None:
    for key in (OLD, NEW):
        with rotated(key):
            memoize(kind, lambda: value_of(kind))
            newest = make_cache_key("key", use_encryption=True)
    locmem.set(newest, b"damaged, of course")
    with rotated(NEW, OLD):
        assert memoize(kind, lambda: ["computed"], lock=CacheLock() if locked else None) == ["computed"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_kept", [False, True], ids=["not kept", "kept"])
def test_an_entry_that_cannot_be_read_takes_the_older_one_with_it(locmem: BaseCache, kind: str, is_kept: bool) -> None:
    for key in (OLD, OLDEST, NEW):
        with rotated(key):
            memoize(kind, lambda: value_of(kind))
            newest = make_cache_key("key", use_encryption=True)
    locmem.set(newest, b"damaged, of course")
    with rotated(NEW, OLD, OLDEST):
        assert memoize(kind, lambda: ["computed"], expiration=lambda _: 60 if is_kept else 0) == ["computed"]
        locmem.delete(newest)
        assert memoize(kind, lambda: ["new"]) == ["new"]


@pytest.mark.parametrize("kind", KINDS)
def test_nor_does_one_under_an_older_key(locmem: BaseCache, kind: str) -> None:
    for key in (OLDEST, OLD):
        with rotated(key):
            memoize(kind, lambda: value_of(kind))
            older = make_cache_key("key", use_encryption=True)
    locmem.set(older, b"damaged, of course")
    with rotated(NEW, OLD, OLDEST):
        assert cache_get("key", use_encryption=True, large_data=kind == "large") is None
        assert memoize(kind, lambda: ["computed"]) == ["computed"]
        locmem.delete(make_cache_key("key", use_encryption=True))
        assert memoize(kind, lambda: ["new"]) == ["new"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_valid_under_an_older_key_is_a_miss(locmem: BaseCache, kind: str) -> None:
    with rotated(OLD):
        memoize(kind, lambda: value_of(kind))
    with rotated(NEW, OLD, FASTBLETS_SEAL="require"):
        assert memoize(kind, lambda: ["computed"]) == ["computed"]
        assert memoize(kind, never) == ["computed"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_stored_again_is_returned_all_the_same(locmem: BaseCache, kind: str) -> None:
    value = value_of(kind)
    with rotated(OLD):
        memoize(kind, lambda: value)
    with rotated(NEW, OLD), failing("set", "set_many", "delete"):
        assert memoize(kind, never) == value


def test_a_key_of_the_call_has_no_older_ones(locmem: BaseCache) -> None:
    own = b"a key of my own."
    with rotated(OLD):
        memoize("small", lambda: "value")
    with rotated(own, OLD):
        assert memoize("small", lambda: "mine", encryption_key=own) == "mine"
    locmem.clear()
    memoize("small", lambda: "mine", encryption_key=OLD)
    with rotated(NEW, OLD):
        assert memoize("small", lambda: "theirs", encryption_key=own) == "theirs"


def test_what_is_not_encrypted_has_no_older_keys(locmem: BaseCache) -> None:
    with rotated(OLD):
        cache_memoize("key", lambda: "value", use_encryption=True)
    with rotated(NEW, OLD):
        assert cache_memoize("key", lambda: "clear", use_encryption=False) == "clear"


def test_nothing_more_is_asked_for_without_older_keys(locmem: BaseCache, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    get = locmem.get
    monkeypatch.setattr(locmem, "get", lambda key, *more, **named: asked.append(key) or get(key, *more, **named))
    for older, expected in (((), 1), ((NEW,), 1), ((NEW, OLD, OLDEST), 3)):
        asked.clear()
        locmem.clear()
        with rotated(NEW, *older):
            memoize("small", lambda: "value")
        assert len(asked) == expected


@pytest.mark.parametrize(
    "wrong", [b"sixteen bytes...", "sixteen bytes...", [b"short"], [b""], [None], [5], None, [b"x" * 17], 5], ids=repr
)
def test_wrong_settings_are_told(locmem: BaseCache, wrong: Any) -> None:
    with (
        override_settings(FASTBLETS_ENCRYPTION_KEY_FALLBACKS=wrong),
        pytest.raises(ImproperlyConfigured, match="must be a list of AES keys") as raised,
    ):
        memoize("small", never)
    assert "sixteen bytes" not in str(raised.value)


def test_the_settings_old_name_is_read_unless_the_new_one_is_set(locmem: BaseCache) -> None:
    with rotated(OLD):
        memoize("small", lambda: "value")
    current = override_settings(DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY=NEW)
    for newer in ([], (), [OLDEST]):
        with (
            current,
            override_settings(DJBLETS_CACHE_ENCRYPTION_KEY_FALLBACKS=[OLD], FASTBLETS_ENCRYPTION_KEY_FALLBACKS=newer),
        ):
            assert memoize("small", lambda: "computed", expiration=0) == "computed"
    locmem.delete(make_cache_key("key", use_encryption=True, encryption_key=NEW))
    with current, override_settings(DJBLETS_CACHE_ENCRYPTION_KEY_FALLBACKS=[OLD]):
        assert memoize("small", never) == "value"
    with (
        override_settings(DJBLETS_CACHE_ENCRYPTION_KEY_FALLBACKS="hush"),
        pytest.raises(ImproperlyConfigured, match=r"^DJBLETS_CACHE_ENCRYPTION_KEY_FALLBACKS must be a list"),
    ):
        memoize("small", never)


def test_text_is_encoded(locmem: BaseCache) -> None:
    with rotated("ключключ".encode()):
        memoize("small", lambda: "value")
    with override_settings(FASTBLETS_ENCRYPTION_KEY_FALLBACKS=["ключключ"]):
        assert memoize("small", never) == "value"


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children) | st.tuples(children, children),
    max_leaves=8,
)


@given(value=values)
@settings(max_examples=300, deadline=None, database=None)
def test_a_wrong_key_is_never_taken_for_the_right_one(value: Any) -> None:
    """But for None: two bytes of garbage are its pickle in one of 65,536 cases."""
    pickled = pickle.dumps(value, 0)
    if len(pickled) > 2:
        with pytest.raises(ValueError):
            opened = _native.open_pickle(aes_decrypt(aes_encrypt(pickled, key=OLD), key=NEW), False, None, False)
            pickle.loads(opened)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_planted_under_another_keys_name_is_a_miss(locmem: BaseCache, kind: str) -> None:
    """Its name was made with one key, it with another."""
    entries = {}
    for key in (OLD, NEW):
        locmem.clear()
        with rotated(key):
            memoize(kind, lambda: [Canary()])
            names = [make_cache_key(name, use_encryption=True) for name in ("key", "key-0")]
            entries[key] = names, [locmem.get(name) for name in names]
    names, _ = entries[NEW]
    _, planted = entries[OLD]
    songs.clear()
    locmem.clear()
    locmem.set_many({name: value for name, value in zip(names, planted, strict=True) if value is not None})
    with rotated(NEW, OLD):
        assert memoize(kind, lambda: ["computed"]) == ["computed"]
    assert not songs


def test_two_bytes_of_garbage_are_none_at_most() -> None:
    taken = []
    for first, second in product(range(256), repeat=2):
        try:
            taken.append(_native.open_pickle(bytes([first, second]), False, None, False))
        except ValueError:
            continue
    assert taken == [b"N."]


def test_all_that_protocol_0_writes_is_taken(locmem: BaseCache) -> None:
    from tests.values import ONE_OF_EACH

    for make in ONE_OF_EACH:
        pickled = pickle.dumps(make(), 0)
        assert _native.open_pickle(pickled, False, None, False) == pickled
    assert stored_bytes(locmem) == {}
