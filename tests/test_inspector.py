"""Looking at entries of every kind, on every backend, whatever has become of them."""

from __future__ import annotations

import datetime
import decimal
import json
import os
import pickle
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError
from importlib import import_module
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from django.core.cache.backends.base import BaseCache
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from fastblets import _native
from fastblets.cache.backend import CACHE_CHUNK_SIZE, cache_memoize, cache_memoize_iter, make_cache_key
from fastblets.cache.policy import CachePolicy
from fastblets.cache.values import cache_delete, cache_expire, cache_set
from fastblets.diagnostics.forget import forget_entry
from fastblets.diagnostics.inspector import inspect_entry
from fastblets.diagnostics.report import EntryReport
from fastblets.diagnostics.text import describe_entry
from fastblets.secrets.crypto import aes_encrypt
from tests import values
from tests.backends import use_cache
from tests.canary import songs
from tests.everyday import one_on
from tests.test_key_rotation import NEW, OLD, OLDEST, rotated
from tests.test_memoize import MODES
from tests.test_seals import DAMAGES, HARMLESS_IV_BYTES, Damaged

pytestmark = pytest.mark.django_db


Options = dict[str, Any]


#: Two and a bit chunks of noise, whatever the mode.
ITEMS = [{"id": number, "noise": os.urandom(150_000)} for number in range(15)]


def store(key: Any, items: list[Any], options: Options) -> None:
    assert list(cache_memoize_iter(key, items, **options)) == items


def look(key: Any, options: Options, **more: Any) -> EntryReport:
    return inspect_entry(key, use_encryption=options["use_encryption"], **more)


def chunk_key(number: int, options: Options, key: str = "key") -> str:
    return make_cache_key(f"{key}-{number}", use_encryption=options["use_encryption"])


class Report:
    def __init__(self, number: int) -> None:
        self.number = number


#: As pickles name it: `posix.mkdir`, and on Windows `nt.mkdir`.
MKDIR = f"{os.mkdir.__module__}.mkdir"


class Trap:
    """Whoever unpickles it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("options", MODES)
def test_a_whole_entry(cache_backend: BaseCache, options: Options) -> None:
    store("key", ITEMS, options)
    report = look("key", options, items=2)
    assert (report.state, report.problems, report.kind) == ("whole", (), "large")
    assert report.full_key == make_cache_key("key", use_encryption=options["use_encryption"])
    assert report.encrypted == options["use_encryption"]
    assert report.compressed == options["compress_large_data"]
    assert report.chunk_count == len(report.chunk_sizes) > 2
    assert set(report.chunk_sizes[:-1]) == {CACHE_CHUNK_SIZE}
    assert report.stored_bytes == sum(size or 0 for size in report.chunk_sizes)
    assert report.pickled_bytes == sum(len(pickle.dumps(item, 0)) for item in ITEMS)
    assert report.ratio == report.pickled_bytes / report.stored_bytes
    assert report.item_count == len(ITEMS)
    assert [item.size for item in report.items] == [len(pickle.dumps(item, 0)) for item in ITEMS[:2]]
    assert all(item.text.startswith(f"{{'id': {number}, 'noise': b'") for number, item in enumerate(report.items))
    assert report.names == ("_codecs.encode",)
    assert (report.sealed_chunks, report.seal) == (0, "none")
    assert report.fetch_seconds > 0 < report.read_seconds
    assert json.loads(json.dumps(report.to_dict()))["item_count"] == len(ITEMS)


@pytest.mark.parametrize("options", MODES)
def test_an_entry_of_djblets(cache_backend: BaseCache, options: Options) -> None:
    if find_spec("djblets") is None:
        pytest.skip("Djblets isn't installed")
    theirs = import_module("djblets.cache.backend")
    items = [{"id": number, "text": "é" * number} for number in range(100)]
    assert list(theirs.cache_memoize_iter(["a:b", "c"], lambda: iter(items), **options)) == items
    report = look(["a:b", "c"], options, items=2)
    assert (report.state, report.item_count) == ("whole", 100)
    assert [item.text for item in report.items] == [repr(item) for item in items[:2]]


@pytest.mark.parametrize("encrypt", [False, True], ids=["open", "encrypted"])
def test_a_small_entry(cache_backend: BaseCache, encrypt: bool) -> None:
    value = {"a": [1, 2.5, None], "b": ("x", True), "c": {1}}
    cache_memoize("key", lambda: value, use_encryption=encrypt)
    report = inspect_entry("key", use_encryption=encrypt)
    assert (report.state, report.kind, report.item_count) == ("whole", "small", 1)
    assert [item.text for item in report.items] == [repr(value)]
    assert report.stored_bytes == (len(pickle.dumps(value, 0)) + 16 if encrypt else None)
    assert bool(report.notes) == (not encrypt)


@pytest.mark.parametrize("options", MODES)
def test_nothing(cache_backend: BaseCache, options: Options) -> None:
    report = look("key", options)
    assert (report.state, report.kind, report.problems, report.items) == ("missing", None, (), ())


@pytest.mark.parametrize("options", one_on(MODES))
@pytest.mark.parametrize("number", [0, 1, -1])
def test_a_missing_chunk(cache_backend: BaseCache, options: Options, number: int) -> None:
    store("key", ITEMS, options)
    count = look("key", options).chunk_count
    assert count is not None
    number %= count
    cache_backend.delete(chunk_key(number, options))
    report = look("key", options)
    assert report.state == "damaged"
    assert report.problems == (f"chunk {number} is missing of {count}",)
    assert report.chunk_sizes[number] is None
    # What stands before it is shown.
    assert bool(report.items) == (number > 0)


@pytest.mark.parametrize("options", MODES)
def test_all_chunks_missing(cache_backend: BaseCache, options: Options) -> None:
    store("key", ITEMS, options)
    count = look("key", options).chunk_count
    assert count is not None
    cache_backend.delete_many([chunk_key(number, options) for number in range(count)])
    report = look("key", options)
    assert report.state == "damaged"
    assert "are missing" in report.problems[0]
    assert report.notes == (f'or it is a small value, the text "{count}"',)


@pytest.mark.parametrize("options", MODES)
@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda chunk: None, "no list that begins with bytes"),
        (lambda chunk: "text", "no list that begins with bytes"),
        (lambda chunk: [], "no list that begins with bytes"),
        (lambda chunk: [chunk[:-1]], f"has {CACHE_CHUNK_SIZE - 1:,} bytes, not {CACHE_CHUNK_SIZE:,}"),
        (lambda chunk: [b""], f"has 0 bytes, not {CACHE_CHUNK_SIZE:,}"),
    ],
    ids=["None", "text", "empty", "cut", "no bytes"],
)
def test_a_chunk_that_is_none(
    locmem: BaseCache, options: Options, damage: Callable[[bytes], Any], problem: str
) -> None:
    store("key", ITEMS, options)
    key = chunk_key(1, options)
    locmem.set(key, damage(locmem.get(key)[0]))
    report = look("key", options)
    assert report.state == "damaged"
    assert report.problems[0].startswith("chunk 1 ") and problem in report.problems[0]


@pytest.mark.parametrize("options", [mode for mode in MODES if "compressed" in str(mode.id)])
def test_damage_in_compressed_data(cache_backend: BaseCache, options: Options) -> None:
    store("key", ITEMS, options)
    count = look("key", options).chunk_count or 0
    key = chunk_key(count - 1, options)
    [last] = cache_backend.get(key)
    cache_backend.set(key, [last[:-1] + bytes([last[-1] ^ 1])])
    report = look("key", options)
    assert report.state == "damaged"
    assert report.problems == (
        f"The compressed data is damaged: its checksum is wrong (noticed in chunk {count - 1}, behind "
        f"{report.pickled_bytes:,} bytes of pickles)",
    )
    # What was inflated in the last step goes with it.
    assert len(ITEMS) - 1 <= (report.item_count or 0) <= len(ITEMS)
    cache_backend.set(key, [last[:-1]])
    assert "it ends too early" in look("key", options).problems[0]
    cache_backend.set(key, [last + b"x"])
    assert "data follows its end" in look("key", options).problems[0]


@pytest.mark.parametrize("options", [mode for mode in MODES if "plain" in str(mode.id)])
def test_damage_in_plain_data(cache_backend: BaseCache, options: Options) -> None:
    store("key", ITEMS, options)
    count = look("key", options).chunk_count or 0
    key = chunk_key(count - 1, options)
    [last] = cache_backend.get(key)
    cache_backend.set(key, [last[:-1]])
    report = look("key", options)
    assert "it ends in the middle of an item" in report.problems[0]
    assert report.item_count == len(ITEMS) - 1


@pytest.mark.parametrize("options", MODES)
@pytest.mark.parametrize("count", ["1000000000", "9999999999999999999"])
def test_a_huge_count_costs_one_batch(
    locmem: BaseCache, options: Options, count: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache_memoize("key", lambda: count, use_encryption=options["use_encryption"])
    asked = []
    get_many = locmem.get_many
    monkeypatch.setattr(locmem, "get_many", lambda keys: asked.append(len(keys)) or get_many(keys))
    report = look("key", options)
    assert asked == [64]
    assert report.state == "damaged"
    assert f"and nobody looked for the {int(count) - 64:,} behind" in report.problems[0]


def test_many_chunks_are_fetched_in_batches(locmem: BaseCache, monkeypatch: pytest.MonkeyPatch) -> None:
    store("key", ["x" * 1_000_000] * 70, {"compress_large_data": False})
    asked = []
    get_many = locmem.get_many
    monkeypatch.setattr(locmem, "get_many", lambda keys: asked.append(len(keys)) or get_many(keys))
    assert inspect_entry("key").state == "whole"
    assert asked == [64, 3]


def test_what_large_says(locmem: BaseCache) -> None:
    cache_memoize("text", lambda: "12")
    assert inspect_entry("text").state == "damaged"
    assert inspect_entry("text", large=False).state == "whole"
    cache_memoize("value", lambda: [1])
    assert inspect_entry("value").state == "whole"
    report = inspect_entry("value", large=True)
    assert (report.state, report.problems) == ("damaged", ("what is stored under its key is no count of chunks",))


@pytest.mark.parametrize("count", ["-1", "1.5", "٣", "", "x", 5, None, b"1"], ids=repr)
@pytest.mark.parametrize("encrypt", [False, True])
def test_what_is_no_count_is_a_small_value(locmem: BaseCache, count: Any, encrypt: bool) -> None:
    cache_memoize("key", lambda: count, use_encryption=encrypt)
    report = inspect_entry("key", use_encryption=encrypt)
    assert (report.state, report.kind) == ("whole", "small")


@pytest.mark.parametrize("options", MODES)
def test_an_empty_entry(locmem: BaseCache, options: Options) -> None:
    store("key", [], options)
    report = look("key", options)
    assert (report.state, report.kind, report.item_count, report.items) == ("whole", "large", 0, ())


def test_with_another_key_there_is_nothing(locmem: BaseCache) -> None:
    options = {"use_encryption": True, "encryption_key": b"k" * 32}
    list(cache_memoize_iter("key", ["a"], **options))  # type: ignore[arg-type]
    assert inspect_entry("key", use_encryption=True).state == "missing"
    assert inspect_entry("key", use_encryption=True, encryption_key=b"k" * 32).state == "whole"


@pytest.mark.parametrize("large", [False, True])
def test_what_another_key_encrypted(locmem: BaseCache, large: bool) -> None:
    for key, plain in (("key", pickle.dumps("1" if large else [1], 0)), ("key-0", b"x\x9c")):
        value = aes_encrypt(plain, key=b"k" * 16)
        locmem.set(make_cache_key(key, use_encryption=True), value if key == "key" else [value])
    if large:
        locmem.set(make_cache_key("key", use_encryption=True), aes_encrypt(pickle.dumps("1", 0)))
    report = inspect_entry("key", use_encryption=True)
    assert report.state == "damaged"
    assert "or it was encrypted with another key" in report.problems[0]


def test_encrypted_values_of_a_wrong_form(locmem: BaseCache) -> None:
    key = make_cache_key("key", use_encryption=True)
    for stored, problem in (
        ("text", "an encrypted value is stored as bytes, not as str"),
        (b"short", "ValueError: Invalid IV size (5) for CFB8"),
        (aes_encrypt(b"N.N."), "it holds 2 pickles instead of one"),
        (aes_encrypt(b""), "it holds 0 pickles instead of one"),
    ):
        locmem.set(key, stored)
        assert inspect_entry("key", use_encryption=True).problems == (problem,)


@pytest.mark.parametrize("size", [0, 15, 33])
def test_a_key_of_a_wrong_length(locmem: BaseCache, size: int) -> None:
    settings = override_settings(DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY=b"k" * size or None, SECRET_KEY="short")
    with settings, pytest.raises(ValueError, match="Invalid key size"):
        inspect_entry("key", use_encryption=True)
    with pytest.raises(AssertionError):
        inspect_entry("key", use_encryption=True, encryption_key="text")  # type: ignore[arg-type]


@pytest.mark.parametrize("options", MODES)
def test_no_pickle_is_executed(locmem: BaseCache, options: Options, tmp_path: Path) -> None:
    trap = Trap(tmp_path / "sprung")
    list(cache_memoize_iter("key", ["before", trap], **options))
    report = look("key", options)
    assert report.state == "whole"
    assert report.items[0].text == "'before'"
    assert MKDIR in report.items[1].text and "sprung" in report.items[1].text
    assert report.names == (MKDIR,)
    assert not trap.path.exists()
    list(cache_memoize_iter("key", [], **options))
    assert trap.path.exists(), "the trap does not work"


def test_no_small_encrypted_pickle_is_executed(locmem: BaseCache, tmp_path: Path) -> None:
    trap = Trap(tmp_path / "sprung")
    cache_memoize("key", lambda: trap, use_encryption=True)
    report = inspect_entry("key", use_encryption=True)
    assert MKDIR in report.items[0].text
    assert not trap.path.exists()


@pytest.mark.parametrize("options", MODES)
def test_items_of_both_protocols(locmem: BaseCache, options: Options) -> None:
    items = [
        "text",
        values.SafeString("<b>"),
        datetime.datetime(2023, 11, 5, 1, 30, fold=1),
        {"a": [1]},
        values.DataSlots([values.Masked("secret")]),
        10**5000,
        values.Plain(a=1),
    ]
    list(cache_memoize_iter("key", items, **options))
    report = look("key", options, items=len(items))
    assert (report.state, report.problems, report.item_count) == ("whole", (), len(items))
    texts = [
        "'text'",
        "<django.utils.safestring.SafeString('<b>')>",
        "<datetime.datetime 2023-11-05 01:30:00.000000 fold=1>",
        "{'a': [1]}",
        "<tests.values.DataSlots {'value': [<tests.values.Masked('secret')>]}>",
        "<a number of 2077 bytes>",
        "<tests.values.Plain {'a': 1}>",
    ]
    assert [item.text for item in report.items] == texts
    assert {"django.utils.safestring.SafeString", "tests.values.Masked", "tests.values.Plain"} <= set(report.names)


@pytest.mark.parametrize("seal", [False, True])
def test_encrypted_values_of_protocol_4(locmem: BaseCache, seal: bool) -> None:
    with override_settings(FASTBLETS_SEAL=seal):
        # Safe text of digits is no count of chunks.
        cache_memoize("key", lambda: values.SafeString("3"), use_encryption=True)
        report = inspect_entry("key", use_encryption=True)
        assert (report.kind, report.state, report.problems) == ("small", "whole", ())
        assert report.items[0].text == "<django.utils.safestring.SafeString('3')>"
        assert report.seal == ("valid" if seal else "none")


def test_objects_have_their_names(locmem: BaseCache) -> None:
    items = [
        Report(5),
        datetime.datetime(2024, 1, 2, 3, 4),
        decimal.Decimal("1.50"),
        [Report(1)] * 2,
        {datetime.date(2024, 1, 2): 1},
    ]
    list(cache_memoize_iter("key", items))
    report = inspect_entry("key")
    name = f"{__name__}.Report"
    assert [item.text for item in report.items] == [
        f"<{name} {{'number': 5}}>",
        "<datetime.datetime 2024-01-02 03:04:00.000000>",
        "<decimal.Decimal('1.50')>",
        f"[<{name} {{'number': 1}}>, <{name} {{'number': 1}}>]",
        "{<datetime.date 2024-01-02>: 1}",
    ]
    assert name in report.names


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_all_protocols(locmem: BaseCache, protocol: int) -> None:
    value = [1, -(2**40), 1.5, None, True, "é€😀\n'", b"\0\xff'", (), (1,), {"a": {1: 2}}, {3}, frozenset({4}), [[]]]
    value.append(value[-1])
    found = _native.inspect_chunks([pickle.dumps(value, protocol)], None, None, 1)
    assert found.damage is None
    assert found.items[0][1] == repr(value).replace('"é€😀\\n\'"', "'é€😀\\n\\''").replace(
        repr(b"\0\xff'"), "b'\\x00\\xff\\''"
    )


@pytest.mark.parametrize("options", [{}, {"use_encryption": True}, {"large_data": True}], ids=str)
def test_an_entry_with_a_policy(locmem: BaseCache, options: Options) -> None:
    policy = CachePolicy(stale_if_error=1000)
    where = {name: value for name, value in options.items() if name == "use_encryption"}
    assert cache_set("key", [1], policy=policy, expiration=100, **options)
    report = inspect_entry("key", **where)
    assert report.state == "whole"
    assert report.fresh_until is not None
    left = datetime.datetime.fromisoformat(report.fresh_until) - datetime.datetime.now(datetime.timezone.utc)
    assert 50 < left.total_seconds() <= 100
    assert any(re.match(r"fresh    until .* UTC, in 0:01:[34]", line) for line in describe_entry(report))
    # It is there, and may be served.
    assert cache_expire("key", policy=policy, **where)
    report = inspect_entry("key", **where)
    assert report.state == "whole"
    assert any(re.match(r"fresh    until .* UTC, (in 0:00:00|.* ago)$", line) for line in describe_entry(report))
    # It is not there for calls with a policy.
    stored = locmem.get_many([make_cache_key(key, **where) for key in ("key", "_state_:key", "key-0")])
    cache_delete("key", **where)
    locmem.set_many(stored)
    report = inspect_entry("key", **where)
    assert report.state == "invalid"
    assert "or a policy" in report.problems[0]


def test_a_huge_item_is_shown_short(locmem: BaseCache) -> None:
    value = [{"id": number, "text": "x" * number} for number in range(5000)]
    cache_memoize("key", lambda: value, large_data=True)
    [item] = inspect_entry("key").items
    assert item.text.startswith("[{'id': 0, 'text': ''}, {'id': 1, 'text': 'x'}, ")
    assert len(item.text) < 2100
    assert item.text.endswith(", …] (only its beginning was looked at)")


@pytest.mark.parametrize(
    "bomb",
    [
        b"(" * 1_000_000 + b"N" + b"t" * 1_000_000 + b".",
        b"I1\n" + b"2\x86" * 500_000 + b".",
        b"(lp0\n" + b"".join(b"0(g%d\ntp%d\n" % (n, n + 1) for n in range(50_000)) + b".",
        b"L" + b"9" * 5_000_000 + b"L\n.",
        b"I" + b"9" * 5_000_000 + b"\n.",
        b"(lp0\n" + b"g0\na" * 300_000 + b".",
    ],
    ids=["nested", "doubled", "chained", "digits", "int", "recursive"],
)
@pytest.mark.parametrize("compress", [False, True])
def test_bombs(locmem: BaseCache, bomb: bytes, compress: bool) -> None:
    data = zlib.compress(bomb) if compress else bomb
    chunks = [data[at : at + CACHE_CHUNK_SIZE] for at in range(0, len(data), CACHE_CHUNK_SIZE)]
    locmem.set_many({make_cache_key(f"key-{number}"): [chunk] for number, chunk in enumerate(chunks)})
    locmem.set(make_cache_key("key"), str(len(chunks)))
    report = inspect_entry("key")
    assert report.state == "whole"
    assert len(report.items[0].text) < 2100


SEAL_KEY = "a secret for seals, of 32 bytes or more"


SETTINGS = [pytest.param(True, id="sealed"), pytest.param("require", id="required")]


def required() -> Any:
    return override_settings(FASTBLETS_SEAL="require")


@pytest.mark.parametrize("seal_key", [None, SEAL_KEY], ids=["unkeyed", "keyed"])
@pytest.mark.parametrize("options", one_on(MODES))
def test_sealed_entries(cache_backend: BaseCache, options: Options, seal_key: str | None) -> None:
    with override_settings(FASTBLETS_SEAL_KEY=seal_key):
        store("key", ITEMS, options | {"seal": True})
        store("empty", [], options | {"seal": True})
        for (key, items), setting in product({"key": ITEMS, "empty": []}.items(), (False, True, "require")):
            with override_settings(FASTBLETS_SEAL=setting):
                report = look(key, options)
            assert (report.state, report.seal) == ("whole", "valid")
            assert report.item_count == len(items)
            assert report.sealed_chunks == report.chunk_count
            # A secret is the AES key or a key of its own.
            only_accidents = seal_key is None and not options["use_encryption"]
            assert [note.partition(":")[0] for note in report.notes] == [
                "its seals were made without a secret"
            ] * only_accidents


# The one that is not required is noticed by the same code.
@pytest.mark.parametrize("setting", [pytest.param(True, id="sealed", marks=pytest.mark.slow), *SETTINGS[1:]])
@pytest.mark.parametrize("options", one_on(MODES))
@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_a_miss_for_its_seal_is_damaged(
    locmem: BaseCache, options: Options, damage: Callable[[Damaged], Iterator[Any]], setting: Any
) -> None:
    entry = Damaged(locmem, options | {"seal": True})
    songs.clear()
    with override_settings(FASTBLETS_SEAL=setting):
        for _ in damage(entry):
            report = look("key", options)
            assert report.state == "damaged"
            assert report.seal != "valid"
            assert report.problems
            locmem.set_many(entry.stored)
        assert look("key", options).seal == "valid"
    assert not songs


@pytest.mark.parametrize("options", MODES)
def test_entries_without_seals(locmem: BaseCache, options: Options) -> None:
    store("key", ITEMS[:1], options)
    for setting in (False, True):
        with override_settings(FASTBLETS_SEAL=setting):
            report = look("key", options)
            assert (report.state, report.seal, report.sealed_chunks) == ("whole", "none", 0)
    with required():
        report = look("key", options)
        of_count = "its count and " if options["use_encryption"] else ""
        assert (report.state, report.seal) == ("damaged", "none")
        assert report.problems == (f"there is no seal on {of_count}its chunks",)
        assert list(cache_memoize_iter("key", ["a miss"], **options)) == ["a miss"]


def test_a_count_of_nothing_is_no_entry_where_there_are_seals(locmem: BaseCache) -> None:
    options = {"compress_large_data": False, "use_encryption": False}
    store("key", [], options)
    for setting, expected in ((False, "whole"), (True, "damaged"), ("require", "damaged")):
        with override_settings(FASTBLETS_SEAL=setting):
            assert (look("key", options).state, look("key", options).seal) == (expected, "none")


@pytest.mark.parametrize("setting", [False, True, "require"])
def test_seals_on_some_chunks_only(locmem: BaseCache, setting: Any) -> None:
    store("key", ITEMS, {"seal": True})
    locmem.set(make_cache_key("key-1"), locmem.get(make_cache_key("key-1"))[:1])
    with override_settings(FASTBLETS_SEAL=setting):
        report = inspect_entry("key")
    assert (report.state, report.seal, report.sealed_chunks) == ("damaged", "partial", 2)
    assert report.problems == ("there is no seal on 1 of its 3 chunks",)


@pytest.mark.parametrize("of_count", [False, True], ids=["chunks", "count"])
def test_seals_on_the_chunks_or_the_count_only(locmem: BaseCache, of_count: bool) -> None:
    options = {"compress_large_data": True, "use_encryption": True}
    lacking = "its chunks" if of_count else "its count"
    store("key", ["item"], options | {"seal": True})
    if of_count:
        locmem.set(chunk_key(0, options), locmem.get(chunk_key(0, options))[:1])
    else:
        locmem.set(make_cache_key("key", use_encryption=True), aes_encrypt(pickle.dumps("1", 0)))
    for setting in (False, True):
        with override_settings(FASTBLETS_SEAL=setting):
            report = look("key", options)
            assert (report.state, report.seal, report.notes) == (
                "whole",
                "partial",
                (f"there is no seal on {lacking}",),
            )
            assert list(cache_memoize_iter("key", ["a miss"], **options)) == ["item"]
    with required():
        report = look("key", options)
        assert (report.state, report.problems) == ("damaged", (f"there is no seal on {lacking}",))
        assert list(cache_memoize_iter("key", ["a miss"], **options)) == ["a miss"]


def test_seals_of_another_secret(locmem: BaseCache) -> None:
    with override_settings(FASTBLETS_SEAL_KEY=SEAL_KEY):
        list(cache_memoize_iter("key", ["a"], seal=True))
    report = inspect_entry("key")
    assert (report.state, report.seal) == ("damaged", "not valid")
    assert report.problems == (
        "The data's seal is not valid: it does not fit the data, or FASTBLETS_SEAL_KEY was another one",
    )


@pytest.mark.parametrize("value", [{"a": 1}, "12", None], ids=repr)
def test_a_sealed_value(locmem: BaseCache, value: Any) -> None:
    cache_memoize("key", lambda: value, use_encryption=True, seal=True)
    for setting in (False, True, "require"):
        with override_settings(FASTBLETS_SEAL=setting):
            report = inspect_entry("key", use_encryption=True)
        # A text of digits has a seal that says that it is no count.
        assert (report.state, report.kind, report.seal) == ("whole", "small", "valid")
        assert (report.items[0].text, report.notes) == (repr(value), ())
    key = make_cache_key("key", use_encryption=True)
    stored = locmem.get(key)
    for at in range(HARMLESS_IV_BYTES, len(stored)):
        locmem.set(key, stored[:at] + bytes([stored[at] ^ 1]) + stored[at + 1 :])
        report = inspect_entry("key", use_encryption=True, large=False)
        assert (report.state, report.seal != "valid") == ("damaged", True)
    locmem.set(key, stored)
    assert inspect_entry("key", use_encryption=True, large=True).state == "damaged"


def test_a_value_without_a_seal(locmem: BaseCache) -> None:
    for encrypt, expected in ((True, "damaged"), (False, "whole")):
        cache_memoize("key", lambda: [1], use_encryption=encrypt)
        for setting in (False, True):
            with override_settings(FASTBLETS_SEAL=setting):
                report = inspect_entry("key", use_encryption=encrypt)
                assert (report.state, report.seal) == ("whole", "none")
        with required():
            # One that isn't encrypted can't have a seal, and a call that says seal=False takes it.
            report = inspect_entry("key", use_encryption=encrypt)
            assert (report.state, report.seal) == (expected, "none")
            assert report.problems == (("there is no seal on its value",) if encrypt else ())


def test_seals_are_not_judged_where_chunks_are_missing(locmem: BaseCache) -> None:
    store("key", ITEMS, {"seal": True})
    locmem.delete(make_cache_key("key-1"))
    report = inspect_entry("key")
    assert (report.seal, report.sealed_chunks, report.problems) == (None, 2, ("chunk 1 is missing of 3",))
    cache_memoize("small", lambda: 1, use_encryption=True)
    locmem.set(make_cache_key("small", use_encryption=True), b"short")
    assert inspect_entry("small", use_encryption=True).seal is None


@pytest.mark.parametrize("name", ["FASTBLETS_SEAL", "FASTBLETS_SEAL_KEY", "FASTBLETS_ENCRYPTION_KEY_FALLBACKS"])
def test_a_wrong_setting_is_no_damage(locmem: BaseCache, name: str) -> None:
    list(cache_memoize_iter("key", ["a"], seal=True))
    with override_settings(**{name: "hush"}), pytest.raises(ImproperlyConfigured, match=name) as raised:
        inspect_entry("key", use_encryption=name.endswith("FALLBACKS"))
    assert "hush" not in str(raised.value)


@pytest.mark.parametrize("seal", [False, True])
@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
@pytest.mark.parametrize(("older", "number"), [(NEW, None), (OLD, 1), (OLDEST, 2)], ids=["new", "old", "oldest"])
def test_an_entry_under_an_older_key(
    locmem: BaseCache, older: bytes, number: int | None, large: bool, seal: bool
) -> None:
    with rotated(older):
        cache_memoize("key", lambda: {"a": 1}, use_encryption=True, large_data=large, seal=seal)
        full_key = make_cache_key("key", use_encryption=True)
    # The current one is older than none, wherever it is listed.
    with rotated(NEW, NEW, OLD, OLDEST):
        report = inspect_entry("key", use_encryption=True)
        assert (report.state, report.seal) == ("whole", "valid" if seal else "none")
        assert (report.older_key, report.full_key) == (number, full_key)
        assert report.items[0].text == "{'a': 1}"
        assert inspect_entry("key", use_encryption=True, encryption_key=b"k" * 16).state == "missing"
        assert inspect_entry("key", use_encryption=False).state == "missing"


def test_the_older_key_is_the_one_that_calls_take(locmem: BaseCache) -> None:
    def store_under(key: bytes) -> str:
        with rotated(key):
            cache_memoize("key", lambda: key.decode(), use_encryption=True)
            return make_cache_key("key", use_encryption=True)

    def found() -> tuple[str, int | None]:
        with rotated(NEW, OLD, OLDEST):
            report = inspect_entry("key", use_encryption=True)
            return report.state, report.older_key

    assert found() == ("missing", None)
    full_keys = {key: store_under(key) for key in (OLDEST, OLD)}
    assert found() == ("whole", 1)
    locmem.set(full_keys[OLD], b"damaged, of course")
    # What is there is newer than anything under an older key.
    assert found() == ("damaged", 1)
    with rotated(NEW, OLD, OLDEST):
        assert cache_memoize("key", lambda: "computed", use_encryption=True) == "computed"
        assert found() == ("whole", None)
        locmem.set(make_cache_key("key", use_encryption=True), b"damaged, of course")
    store_under(OLDEST)
    assert found() == ("damaged", None)


def test_what_the_client_cannot_unpickle(tmp_path: Path, db: None) -> None:
    backend = "django.core.cache.backends.locmem.LocMemCache"
    with use_cache({"BACKEND": backend, "LOCATION": "broken", "OPTIONS": {"MAX_ENTRIES": 1000}}) as cache:
        store("key", ITEMS, {})
        stored = vars(cache)["_cache"]
        stored[cache.make_key(make_cache_key("key-1"))] = b"no pickle"
        report = inspect_entry("key")
        assert report.problems == ("chunk 1 is no list that begins with bytes",)
        stored[cache.make_key(make_cache_key("key"))] = b"no pickle"
        report = inspect_entry("key")
        assert report.state == "damaged"
        assert report.problems[0].startswith("the cache's client can't unpickle what is stored: UnpicklingError")
        assert forget_entry("key", mark=False).chunks > 2
        assert not stored


def test_a_repr_that_fails_or_writes_to_the_terminal(locmem: BaseCache) -> None:
    cache_memoize("text", lambda: "\x1b[2J\u202e")
    assert inspect_entry("text").items[0].text == "'\\x1b[2J\\u202e'"
    cache_memoize("bad", lambda: BadRepr())
    assert inspect_entry("bad").items[0].text.startswith("<BadRepr instance at ")
    cache_memoize("escape", lambda: EscapingRepr())
    assert "\x1b" not in inspect_entry("escape").items[0].text


class BadRepr:
    def __repr__(self) -> str:
        raise RuntimeError("no")


class EscapingRepr:
    def __repr__(self) -> str:
        return "\x1b[2J"


def test_a_report_is_frozen(locmem: BaseCache) -> None:
    report = inspect_entry("key")
    with pytest.raises(FrozenInstanceError):
        report.state = "whole"  # type: ignore[misc]


@pytest.fixture
def down(locmem: BaseCache, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise ConnectionRefusedError("nobody there")

    for name in ("get", "get_many", "delete", "delete_many"):
        monkeypatch.setattr(locmem, name, fail)
    yield


def test_a_cache_that_is_down_is_no_missing_entry(down: None) -> None:
    for call in (inspect_entry, forget_entry):
        with pytest.raises(ConnectionRefusedError):
            call("key")
