"""Any key, under any settings: Djblets' full key, or Djblets' error."""

from __future__ import annotations

from collections import UserList, deque
from collections.abc import Callable
from typing import Any

import pytest
from django.core.cache.backends.base import BaseCache
from django.test import override_settings
from django.utils.functional import lazystr
from django.utils.safestring import mark_safe
from hypothesis import assume, example, given
from hypothesis import strategies as st

from tests.differential import aes_keys, characters, examples, key_characters, key_texts, wrong_aes_keys
from tests.parity import Action, Library, Parity

#: "example.com:" is part of the key.
ROOM = 240 - len("example.com:")

#: Texts whose keys, in one mix of characters or other, end about where a digest begins.
long_texts = st.builds(
    lambda character, size, tail: character * size + tail,
    st.sampled_from("aд🔑\n"),
    st.sampled_from([ROOM, ROOM // 4]).flatmap(lambda size: st.integers(size - 3, size + 3)),
    st.text(key_characters, max_size=3),
)
single_keys = key_texts | long_texts
parts = st.lists(single_keys | st.sampled_from(["", "%", ":", "%3A", "%25"]), max_size=5)
sequences: list[Callable[[list[str]], Any]] = [list, tuple, deque, UserList]
lazy_parts = st.builds(lambda parts, last: [*parts, lazystr(last)], parts, key_texts)
no_texts = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.uuids(), st.dates(), st.binary(max_size=3)
)
unordered: list[Callable[[list[str]], Any]] = [set, frozenset, dict.fromkeys, lambda parts: dict.fromkeys(parts).keys()]
no_keys = st.one_of(
    no_texts,
    st.builds(lambda before, no_text, after: [*before, no_text, *after], parts, no_texts, parts),
    st.builds(lambda make, parts: make(parts), st.sampled_from([iter, *unordered]), parts),
    st.just(object()),
)
keys = st.one_of(
    single_keys,
    single_keys.map(mark_safe),
    st.builds(lambda make, parts: make(parts), st.sampled_from(sequences), parts),
    lazy_parts,
    key_texts.map(lazystr),
)

site_roots = st.sampled_from(["/", "/reviews/", "/a b:c%/", "", None, "/" + "r" * 230, "/ключ/"]) | key_texts
site_ids = st.sampled_from([1, 999, None])
site_settings = st.fixed_dictionaries({}, optional={"SITE_ROOT": site_roots, "SITE_ID": site_ids})
all_settings = st.fixed_dictionaries(
    {},
    optional={
        "SITE_ROOT": site_roots,
        "SITE_ID": site_ids,
        "SECRET_KEY": st.text(min_size=1, max_size=20) | st.just("ключ" * 20),
        "DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY": st.one_of(
            aes_keys, wrong_aes_keys, st.text(characters, max_size=20), st.sampled_from([None, "", b""])
        ),
        "DJBLETS_CACHE_FORCE_ENCRYPTION": st.sampled_from([True, False, None, 0, 1]),
    },
)
encryption = st.fixed_dictionaries(
    {},
    optional={
        "use_encryption": st.sampled_from([True, False, None, 0, 1]),
        "encryption_key": st.one_of(st.none(), aes_keys, wrong_aes_keys, st.sampled_from([b"", "", 0])),
    },
)


def under(settings: dict[str, Any], action: Action) -> Action:
    """That action under settings of its own: Djblets writes into some."""

    def run(library: Library) -> Any:
        with override_settings(**settings):
            return action(library)

    return run


def make_key(key: Any, options: dict[str, Any]) -> Action:
    return lambda library: library.backend.make_cache_key(key, **options)


@examples
@given(keys, all_settings, encryption)
@example("", {"SITE_ID": 999}, {})
@example([], {"SITE_ID": 999}, {"use_encryption": True})
@example("key", {}, {"use_encryption": True, "encryption_key": b""})
@example("key", {"DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY": "ключ"}, {"use_encryption": True})
@example("key", {"DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY": "\ud800"}, {"use_encryption": True})
def test_any_key(both: Parity, key: Any, settings: dict[str, Any], options: dict[str, Any]) -> None:
    # Of errors the type counts: their texts are Python's, and change with it.
    both(under(settings, make_key(key, options)), texts=False)


@examples
@given(single_keys | parts, st.sampled_from(["text", bytearray(16), memoryview(b"k" * 16), 5, ["k"]]), st.booleans())
def test_what_is_no_aes_key(both: Parity, key: Any, aes_key: Any, encrypted: bool) -> None:
    both(make_key(key, {"use_encryption": encrypted, "encryption_key": aes_key}), texts=False)


@examples
@given(no_keys, st.fixed_dictionaries({}, optional={"use_encryption": st.booleans(), "encryption_key": aes_keys}))
@example(b"", {})
@example([lazystr("only")], {})
def test_what_is_no_key(locmem: BaseCache, key: Any, options: dict[str, Any]) -> None:
    # Djblets takes some of them, and has errors of several types for others.
    from fastblets.cache import backend

    with pytest.raises(TypeError, match=r"^(A|Each part of a) cache key must be a string"):
        backend.make_cache_key(key, **options)
    with pytest.raises(TypeError, match=r"^(A|Each part of a) cache key must be a string"):
        backend.cache_memoize(key, int, **options)
    with pytest.raises(TypeError, match=r"^(A|Each part of a) cache key must be a string"):
        next(backend.cache_memoize_iter(key, [1], **options))


def memoize_under(key: Any, encrypted: bool) -> Action:
    return lambda library: list(library.backend.cache_memoize_iter(key, ["item"], use_encryption=encrypted))


@examples
@given(keys, site_settings, st.booleans())
def test_keys_of_large_entries(both: Parity, key: Any, settings: dict[str, Any], encrypted: bool) -> None:
    assume(isinstance(key, str) or len(key) > 0)
    both(under(settings, memoize_under(key, encrypted)), texts=False)


def test_no_key_at_all_has_no_place_for_chunks(both: Parity) -> None:
    for library in both.libraries:
        trial = both.run(library, memoize_under([], False))
        assert (trial.value, trial.stored) == (["item"], {})
        assert trial.logs[-1].startswith("ERROR")


@examples
@given(st.lists(key_texts, min_size=2, max_size=4), st.lists(key_texts, min_size=2, max_size=4))
@example(["a:b", "c"], ["a", "b:c"])
@example(["a%3Ab", "c"], ["a:b", "c"])
@example(["a", "b", ""], ["a", "b:"])
def test_several_parts_never_meet_others(both: Parity, parts: list[str], others: list[str]) -> None:
    # As long as no digest cuts them, and no character is escaped into what another part spells out.
    keys = [both.fastblets.backend.make_cache_key(key) for key in (parts, others)]
    if not any("\\" in part for part in parts + others):
        assert (keys[0] == keys[1]) == (parts == others)
