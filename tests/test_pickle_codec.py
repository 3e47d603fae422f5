"""The pickle codec against CPython's own: the same bytes out, the same objects in."""

from __future__ import annotations

import builtins
import io
import math
import os
import pickle
import pickletools
import random
import struct
import sys
from collections import Counter, OrderedDict, namedtuple
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastblets import _native

#: How many random objects the seeded fuzz pickles; CI takes the default, a nightly run more.
FUZZ = int(os.environ.get("FASTBLETS_FUZZ", "60000"))


def check_written(obj: Any, *, fast: bool = True) -> bytes:
    expected = pickle.dumps(obj, protocol=0)
    written = _native.pickle_dumps(obj)

    assert written == expected if fast else written is None
    return expected


def check_read(data: bytes, *, fast: bool = True) -> None:
    """What is read is indistinguishable from what C reads: values, types, sharing (the bytes when pickled again)."""
    read = _native.pickle_loads(data)

    if fast:
        assert read is not None
    if read is not None:
        expected = pickle.loads(data)
        assert type(read[0]) is type(expected)
        assert pickle.dumps(read[0], protocol=0) == pickle.dumps(expected, protocol=0)
        assert pickle.dumps(read[0], protocol=2) == pickle.dumps(expected, protocol=2)
        assert same_singletons(read[0], expected)


def same_singletons(a: Any, b: Any) -> bool:
    """Whether what CPython has one of each is that one; iterative, and blind to what it has seen."""
    seen = set()
    todo = [(a, b)]
    while todo:
        a, b = todo.pop()
        if id(a) in seen:
            continue
        seen.add(id(a))
        if type(a) is not type(b):
            return False
        if type(a) is dict:
            if len(a) != len(b):
                return False
            todo += zip(a.keys(), b.keys(), strict=True)
            todo += zip(a.values(), b.values(), strict=True)
        elif type(a) in {list, tuple}:
            if len(a) != len(b):
                return False
            todo += zip(a, b, strict=True)
        if type(a) in {str, bytes} and len(b) <= 1 and (a is b) != (b is pickle.loads(pickle.dumps(b, 2))):
            return False
        if type(a) is int and -5 <= b <= 256 and a is not b:
            return False
    return True


def check(obj: Any) -> None:
    data = check_written(obj)
    check_read(data)
    assert _native.pickle_scan(data) == [len(data)]


TEXTS = [
    "",
    "a",
    "é",
    "\x00",
    "\n",
    "\r",
    "\x1a",
    "\\",
    "\x7f",
    "\x80",
    "\xff",
    "\u0100",
    "€",
    "\uffff",
    "\U00010000",
    "\U0010ffff",
    "\U0001f600",
    "\ud800",
    "\udfff",
    "\ud83d\ude00",
    "a\nb",
    "line\r\nline",
    "back\\slash",
    "\\u0041",
    "\\U0001f600",
    "\\",
    "\\\\",
    "caf\xe9",
    "caf\xe9 \\ \u20ac",
    "x" * 31 + "\\",
    "x" * 32 + "\n",
    "é" * 100,
    "€" * 100,
    "\U0001f600" * 100,
    "".join(map(chr, range(0x180))),
    "latin1",
    "latin" + str(1),
    "nul\x00in",
    "quote'",
    "tab\t",
    "\x85",
    "\u2028",
    "a" * 100_000,
    ("é" + "a" * 99 + "\n") * 1000,
    ("a" * 99 + "\u20ac\n") * 1000,
]
INTS = [
    sign * (2**bits + delta)
    for bits in (0, 3, 7, 8, 15, 16, 30, 31, 32, 59, 60, 62, 63, 64, 65, 100, 1000)
    for delta in (-2, -1, 0, 1, 2)
    for sign in (1, -1)
] + [
    sign * 10**exponent + delta for exponent in (1, 9, 10, 17, 18, 19, 100) for delta in (-1, 0, 1) for sign in (1, -1)
]
FLOATS = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.1,
    1 / 3,
    100.0,
    123456.789,
    math.inf,
    -math.inf,
    math.nan,
    5e-324,
    2.2250738585072014e-308,
    2.225073858507201e-308,
    sys.float_info.max,
    sys.float_info.epsilon,
    1e15,
    9999999999999998.0,
    1e16,
    1e17,
    1e21,
    1e22,
    1e23,
    9007199254740993.0,
    0.001,
    0.0001,
    0.00012345,
    0.00009999,
    1e-5,
    1.5e-5,
    1e-10,
    1e100,
    1.5e300,
    2**0.5,
    *(2.0**exponent for exponent in range(-1074, 1024, 7)),
    *(10.0**exponent for exponent in range(-320, 309)),
]
BYTES = [b"", b"a", b"\x00", b"\xff", b"\n", b"\\", b"abc", bytes(range(256)), b"x" * 100_000, b"\n" * 1000]
PLAIN = [None, True, False, *TEXTS, *INTS, *FLOATS, *BYTES]


@pytest.mark.parametrize("value", PLAIN, ids=lambda value: repr(value)[:40])
def test_plain_values(value: Any) -> None:
    check(value)
    check([value])
    check({"key": value})
    check((value, value))


def test_every_character() -> None:
    for start in range(0, 0x110000, 0x4000):
        check("".join(map(chr, range(start, start + 0x4000))))
        check([chr(code) for code in range(start, start + 0x4000, 97)])
    check([chr(code) for code in range(0x300)])
    check([bytes([code]) for code in range(0x100)])


def test_containers() -> None:
    for obj in [
        [],
        {},
        (),
        [[]],
        [{}],
        [()],
        ((),),
        {"a": []},
        {(): ()},
        [[], [], []],
        [[]] * 3,
        [{}] * 3,
        [()] * 3,
        tuple(range(1)),
        tuple(range(2)),
        tuple(range(3)),
        tuple(range(4)),
        tuple(range(5)),
        list(range(3000)),
        {index: str(index) for index in range(3000)},
        {None: 1, True: 2, 2: 3, 2.5: 4, "a": 5, b"a": 6, (1, "a"): 7},
        [(1, 2)] * 3,
        [b"x"] * 3,
        [b""] * 3,
        [1.5] * 3,
        ["ab" * 2] * 3,
        [10**30] * 2,
        ["x", b"x", "x", b"x"],
        [b"x", "x"],
        ["latin1", b"xyz", "latin1", b"abc"],
        [b"xyz", "latin1"],
        ["".join(["lat", "in1"]), b"xyz"],
        [b"latin1", "latin1"],
        ["é", b"\xe9", "é"],
        {b"a": "a", "a": b"a"},
        ("latin1",),
        {"latin1": b"latin1"},
        [float("nan"), float("nan")],
        {math.nan: 1},
    ]:
        check(obj)


def test_a_long_text_at_the_beginning() -> None:
    for text in ["a\n" * 50_000, "é\r" * 50_000, "€\n" * 50_000, "\U0001f600\n" * 50_000, "a" * 70_000 + "€"]:
        check(text)
        check((text, 1, text))
        check([text])
        data = pickle.dumps(text, protocol=0)
        assert _native.pickle_loads_all(data + data) == [text, text]
        for damaged in (data[:-2], data.replace(b"\\u", b"\\u0g", 1)):
            check_damaged(damaged)


def test_recursive_lists_and_dicts() -> None:
    items: list[Any] = [1]
    items.append(items)
    check(items)

    mapping: dict[str, Any] = {}
    mapping["self"] = mapping
    mapping["list"] = [mapping, items]
    check(mapping)

    both: list[Any] = [{}]
    both[0]["up"] = both
    check([both, both])


def test_recursive_tuples() -> None:
    inner: list[Any] = []
    recursive = (inner, 1, 2)
    inner.append(recursive)

    check_read(check_written(recursive, fast=False))
    check_read(check_written([recursive, recursive], fast=False))
    check(inner)

    lone: list[Any] = []
    lone.append((lone,))
    check(lone)
    check([lone])

    mapping: dict[str, Any] = {}
    mapping["key"] = ((mapping, "x"), "x")
    check(mapping)


def test_sharing_is_kept() -> None:
    text = "sh" + "ared"
    texts = ["".join(["sha", "red"]) for _ in range(3)]
    shared = [text, (text, [text]), {text: text}, *texts, texts]
    check([shared, shared, [shared], (shared,), {"a": shared}])

    data = pickle.dumps([shared, shared], protocol=0)
    (read,) = _native.pickle_loads(data)
    assert read[0] is read[1]


@pytest.mark.parametrize("key", ["%02d", "field_%02d", "question_%02d_answer_text", "question_answer_text_%02d"])
def test_items_of_one_shape_share_their_keys(key: str) -> None:
    items = [{key % number: number for number in range(10)} for _ in range(20)]
    read = _native.pickle_loads_all(b"".join(pickle.dumps(item, protocol=0) for item in items))
    assert read == items
    # The first may be the only one.
    assert len({id(key) for item in read[1:] for key in item}) == 10


def test_streams_of_items() -> None:
    """One writer and one reader see many items; nothing of one item may show in another."""
    rng = random.Random(3)
    shared = ["shared", ("a", "key")]
    objects: list[Any] = [
        {f"key{number % 3}": number, "key": [shared, "key"], "other": {"key": "value", f"key{number}": b"ab"}}
        for number in range(300)
    ]
    objects += [{"k" * length: {"k" * length: length}} for length in range(40)] * 2
    for _ in range(2000):
        obj = random_object(rng, [], 4)
        if _native.pickle_dumps(obj) is not None:
            objects.append(obj)
    rng.shuffle(objects)
    pickles = [pickle.dumps(obj, protocol=0) for obj in objects]
    data = b"".join(pickles)

    assert _native.pickle_dumps_all(objects) == data
    read = _native.pickle_loads_all(data)
    assert read is not None
    # Not always the same pickles again: an interned 'latin1' is no longer the one that bytes come with.
    again = b"".join(pickle.dumps(pickle.loads(item), protocol=0) for item in pickles)
    assert b"".join(pickle.dumps(obj, protocol=0) for obj in read) == again
    assert _native.pickle_dumps_all(read) == again
    assert _native.pickle_loads_all(data[:-1]) is None
    assert _native.pickle_dumps_all([*objects, bytearray(b"1")]) is None
    assert len(_native.pickle_scan(data)) == len(objects)


def test_an_item_larger_than_what_is_kept() -> None:
    large = [[str(number)] for number in range(100_000)]
    objects = [large, "small", [large[0]] * 2, large]
    data = b"".join(pickle.dumps(obj, protocol=0) for obj in objects)
    assert _native.pickle_dumps_all(objects) == data
    assert _native.pickle_loads_all(data) == objects


class Instance:
    pass


def test_dicts_that_share_their_keys() -> None:
    """Instances of a class share one table of keys, which holds each key once for all their dicts."""

    class Other:
        pass

    instances = [Other() for _ in range(3)]
    for instance in instances:
        for number in range(5):
            # Not through setattr(): the type's method cache would hold the name as well.
            vars(instance)["".join(["attribute_", str(number)])] = number

    check([vars(instance) for instance in instances])
    check([dict(vars(instance)) for instance in instances])
    check([vars(instance).copy() for instance in instances])
    check([{**vars(instance)} for instance in instances])

    combined = {"".join(["k", str(number)]): number for number in range(9)}
    # Python 3.15's.
    if frozendict := getattr(builtins, "frozendict", None):
        check([combined, dict(frozendict(combined)), dict(frozendict(combined))])
        check([dict(frozendict(vars(instance))) for instance in instances])
    check([combined, combined.copy(), dict(combined), {**combined}, combined | {}, dict.fromkeys(combined)])
    del combined["k3"]
    check([combined, combined.copy()])


def test_values_held_in_one_place_only() -> None:
    check(["".join(["x", str(number)]) for number in range(1000)])
    check({"".join(["x", str(number)]): ["".join(["y", str(number)])] for number in range(1000)})
    check(("".join(["x", "y"]), ("".join(["x", "z"]),)))
    # The root is held by its caller alone, and still met twice.
    root: list[Any] = []
    root.append(root)
    held = [root]
    del root
    check(held.pop())


@pytest.mark.parametrize("depth", [1, 50, 198, 199, 200])
@pytest.mark.parametrize(
    "wrap", [lambda obj: [obj], lambda obj: {"a": obj}, lambda obj: (obj,)], ids=["list", "dict", "tuple"]
)
def test_nesting(depth: int, wrap: Any) -> None:
    obj: Any = wrap(1)
    for _ in range(depth):
        obj = wrap(obj)
    check(obj)


@pytest.mark.parametrize(
    "wrap", [lambda obj: [obj], lambda obj: {"a": obj}, lambda obj: (obj,)], ids=["list", "dict", "tuple"]
)
def test_deep_nesting_is_the_c_picklers(wrap: Any) -> None:
    obj: Any = wrap(1)
    for _ in range(201):
        obj = wrap(obj)
    check_read(check_written(obj, fast=False))

    for _ in range(200_000):
        obj = wrap(obj)
    assert _native.pickle_dumps(obj) is None
    with pytest.raises(RecursionError):
        pickle.dumps(obj, protocol=0)


def test_deep_pickles_are_read() -> None:
    data = b"(lp0\n" * 5000 + b"a" * 4999 + b"."
    assert _native.pickle_loads(data.replace(b"p0\n", b"")) is not None
    data = b"(" * 100_000 + b"t" * 100_000 + b"."
    read = _native.pickle_loads(data)
    assert read is not None
    while read:
        read = read[0]


def test_a_deep_key_is_not_hashed() -> None:
    """CPython would run out of C's stack and die."""
    assert _native.pickle_loads(b"(d" + b"(" * 1_000_000 + b"t" * 1_000_000 + b"Ns.") is None
    check({(1, (2, (3, (4, ())))): 5})


class Text(str):
    pass


class Number(int):
    pass


class Mapping(dict):
    pass


Point = namedtuple("Point", "x y")


@pytest.mark.parametrize(
    "obj",
    [
        Text("a"),
        Number(1),
        Mapping(),
        Point(1, 2),
        bytearray(b"a"),
        range(3),
        Counter(a=1),
        Instance,
        len,
        ...,
        NotImplemented,
        type(None),
        object(),
        memoryview(b"").obj.__class__,
    ],
    ids=lambda obj: type(obj).__name__,
)
def test_other_types_are_the_c_picklers(obj: Any) -> None:
    assert _native.pickle_dumps(obj) is None
    assert _native.pickle_dumps([1, ("a", {"b": obj})]) is None
    assert _native.pickle_dumps({obj: 1} if obj.__hash__ else [obj]) is None


def test_the_longest_ints_are_the_c_picklers() -> None:
    """Python 3.12 and later convert them in Python code."""
    check(10**3000)
    check(-(10**3000))
    for digits in (4100, 5000, 20_000):
        assert _native.pickle_dumps(10**digits) is None
        assert _native.pickle_loads(b"L1" + b"0" * digits + b"L\n.") is None


# Random objects


def random_text(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.3:
        return rng.choice(TEXTS[:40])
    if kind < 0.6:
        return "".join(rng.choices("abcdefgh", k=rng.randrange(0, 12)))
    return "".join(map(chr, rng.choices((*range(0x110), 0x20AC, 0xD800, 0x1F600), k=rng.randrange(0, 40))))


def random_float(rng: random.Random) -> float:
    if rng.random() < 0.5:
        return struct.unpack("d", rng.randbytes(8))[0]
    return rng.choice([rng.random(), round(rng.uniform(-1e6, 1e6), rng.randrange(6)), rng.choice(FLOATS)])


def random_atom(rng: random.Random) -> Any:
    kind = rng.randrange(9)
    if kind < 3:
        return random_text(rng)
    if kind == 3:
        return rng.choice(INTS)
    if kind == 4:
        return rng.randrange(-300, 300)
    if kind == 5:
        return random_float(rng)
    if kind == 6:
        return rng.choice([None, True, False])
    return rng.choice([b"", rng.randbytes(1), rng.randbytes(rng.randrange(2, 40)), rng.choice(BYTES[:7])])


def random_key(rng: random.Random) -> Any:
    if rng.random() < 0.2:
        return tuple(random_key(rng) for _ in range(rng.randrange(4)))
    return random_atom(rng)


def random_object(rng: random.Random, known: list[Any], depth: int) -> Any:
    if known and rng.random() < 0.15:
        return rng.choice(known)
    kind = rng.random()
    if depth == 0 or kind < 0.4:
        obj = random_atom(rng)
    elif kind < 0.6:
        obj = tuple(random_object(rng, known, depth - 1) for _ in range(rng.randrange(6)))
    elif kind < 0.8:
        obj = []
        # Known before it is filled: it may come to hold itself.
        known.append(obj)
        obj += [random_object(rng, known, depth - 1) for _ in range(rng.randrange(6))]
    else:
        obj = {}
        known.append(obj)
        for _ in range(rng.randrange(6)):
            obj[random_key(rng)] = random_object(rng, known, depth - 1)
    known.append(obj)
    return obj


def test_random_objects() -> None:
    rng = random.Random(20240501)
    written = read = count = 0
    while count < FUZZ:
        known: list[Any] = []
        obj = random_object(rng, known, rng.randrange(1, 6))
        count += len(known)
        # Without this list, objects may be held in one place only.
        del known
        data = pickle.dumps(obj, protocol=0)
        out = _native.pickle_dumps(obj)
        if out is not None:
            assert out == data
            written += 1
        del obj
        back = _native.pickle_loads(data)
        assert back is not None
        expected = pickle.loads(data)
        assert pickle.dumps(back[0], protocol=0) == pickle.dumps(expected, protocol=0)
        assert _native.pickle_dumps(back[0]) in {None, pickle.dumps(back[0], protocol=0)}
        assert _native.pickle_scan(data) == [len(data)]
        read += 1
    assert written > 0.8 * read


@settings(max_examples=300, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
        lambda children: st.lists(children) | st.lists(children).map(tuple) | st.dictionaries(st.text(), children),
    )
)
def test_any_plain_object(obj: Any) -> None:
    check(obj)


@settings(max_examples=2000, deadline=None)
@given(st.floats())
def test_any_float(value: float) -> None:
    check(value)


# Damaged and unusual pickles


def outcome(data: bytes) -> Any:
    try:
        return pickle.dumps(pickle.loads(data), protocol=0)
    except RecursionError:
        raise
    except Exception:
        return None


def check_damaged(data: bytes) -> bool:
    """What is read from anything at all is what C reads. Whatever C refuses must not be read."""
    read = _native.pickle_loads(data)
    if read is None:
        return False
    assert pickle.dumps(read[0], protocol=0) == outcome(data), data
    return True


def harmless(data: bytes) -> bool:
    """No globals but those that are safe to call with anything."""
    rest = data.replace(b"c_codecs\nencode\n", b"").replace(b"c__builtin__\nbytes\n", b"")
    return (
        b"c" not in rest
        and b"i" not in rest
        and b"\x93" not in rest
        and not any(code in rest for code in b"\x82\x83\x84")
    )


SAMPLES = [
    {"id": 17, "name": "Jos\xe9", "email": "a@b", "score": 2.5, "tags": ["x", "yy", "zz"], "active": True},
    [b"bytes", b"", b"x", "latin1", (), (1, (2, 3)), {(1, 2): None}],
    [["a"] * 3, 10**20, -5, "l\nm\u20ac\U0001f600"],
    [1, 2, 3, "abc"],
    "text",
    (1,),
    {},
]


def test_truncations() -> None:
    for sample in SAMPLES:
        data = pickle.dumps(sample, protocol=0)
        for length in range(len(data)):
            assert _native.pickle_loads(data[:length]) is None
            assert _native.pickle_scan(data[:length]) == []


def damaged(rng: random.Random, pickles: list[bytes]) -> bytes:
    """One of the pickles with a few bytes changed, added or gone, or with the end of another."""
    alphabet = b"(tldsaNpgVIFLbR.0\n0123456789\\u-+e" + bytes([0, 0x80, 0xFF])
    data = bytearray(rng.choice(pickles))
    for _ in range(rng.randrange(1, 4)):
        kind = rng.randrange(4)
        place = rng.randrange(len(data) + 1)
        if kind == 0 and place < len(data):
            data[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[place:place] = bytes(rng.choices(alphabet, k=rng.randrange(1, 5)))
        elif kind == 2:
            del data[place : place + rng.randrange(1, 12)]
        else:
            other = rng.choice(pickles)
            data = data[:place] + other[rng.randrange(len(other)) :]
    return bytes(data)


def count_read(
    seed: int, samples: list[Any], is_harmless: Callable[[bytes], bool], check: Callable[[bytes], bool]
) -> int:
    """Check many damaged pickles. Returns how many of them were read all the same."""
    rng = random.Random(seed)
    pickles = [pickle.dumps(sample, protocol=0) for sample in samples]
    return sum(check(data) for data in (damaged(rng, pickles) for _ in range(FUZZ // 3)) if is_harmless(data))


def test_damage() -> None:
    assert count_read(7, SAMPLES, harmless, check_damaged) > FUZZ // 100


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("before", [0, 3, 100_000])
def test_an_error_has_the_offset_in_the_stream(plain: bool, before: int) -> None:
    # Read ahead, and by the scanner alone.
    item = pickle.dumps({"id": 17, "name": "Jos\xe9"} if plain else {1, 2}, protocol=0)
    stream = item * before

    def offset_of(damaged: bytes) -> int | None:
        with pytest.raises(_native.CodecError) as caught:
            list(_native.read_items([damaged], False, None))
        assert caught.value.kind == "pickle"
        return caught.value.offset

    assert offset_of(stream + b"(I1\n\xff.") == len(stream) + 4
    assert offset_of(stream + b"I1\ns.") == len(stream) + 3
    assert offset_of(stream + b"(I1\n") == len(stream) + 4


def test_an_error_of_a_long_stream_has_its_offset() -> None:
    item = pickle.dumps("x" * 100_000, protocol=0)
    stream = item * 200
    for damage, offset in [(b"I1\ns.", 3), (b"I1\n", 3)]:
        with pytest.raises(_native.CodecError) as caught:
            _native.read_items([stream, damage, *[b"."] * (damage[-1:] == b".")], False, None)
        assert caught.value.offset == len(stream) + offset


def test_an_error_of_a_small_value_has_its_offset() -> None:
    for data, offset in [(b"I1\n.rest", 4), (b"I1\n", 3), (b"I1\n\xff", 3)]:
        with pytest.raises(_native.CodecError) as caught:
            _native.open_pickle(data, False, None, False)
        assert (caught.value.kind, caught.value.offset) == ("pickle", offset)


def test_other_errors_have_no_offset() -> None:
    with pytest.raises(_native.CodecError) as caught:
        list(_native.read_items([b"not compressed"], True, None))
    assert (caught.value.kind, caught.value.offset) == ("zlib", None)


def test_random_opcodes() -> None:
    rng = random.Random(8)
    parts = [
        b"(",
        b"t",
        b"l",
        b"d",
        b"s",
        b"a",
        b"N",
        b"0",
        b".",
        b"R",
        b"p0\n",
        b"p1\n",
        b"p2\n",
        b"p3\n",
        b"g0\n",
        b"g1\n",
        b"g2\n",
        b"p7\n",
        b"I1\n",
        b"I01\n",
        b"Va\n",
        b"Vlatin1\n",
        b"Vb\\u0041\n",
        b"F1.5\n",
        b"(d",
        b"(l",
        b"(t",
        b"(lp0\n",
        b"c_codecs\nencode\n",
        b"c__builtin__\nbytes\n",
        b"(tR",
        b"V\xe9\n",
        b"L12L\n",
        b"I00\n",
        b"1",
        b"2",
        b"(dp0\n",
        b"K\x01",
        b"].",
        b"}",
        b")",
    ]
    read = 0
    for _ in range(FUZZ // 2):
        data = b"".join(rng.choices(parts, k=rng.randrange(1, 15))) + b"."
        read += check_damaged(data)
    assert read > FUZZ // 100


@pytest.mark.parametrize(
    "data",
    [
        b"p99999999999\n.",
        b"Np99999999999999999999\n.",
        b"Np4000000000\n.",
        b"Np1\n.",
        b"g0\n.",
        b".",
        b"",
        b"(",
        b"(.",
        b"t.",
        b"0.",
        b"(lp0\n(lp1\ns.",
        b"(dp0\n(lp1\nI1\ns.",
        b"(d(dNs.",
        b"(d((ltNs.",
        b"I1\nI2\na.",
        b"(I1\nl.",
        b"(I1\nI2\nd.",
        b"I1\nI2\n.",
        b"(I1\n.",
        b"I-0\n.",
        b"I0x10\n.",
        b"I 1\n.",
        b"I1_000\n.",
        b"I\n.",
        b"L0x10L\n.",
        b"L12\n.",
        b"L-0L\n.",
        b"L007L\n.",
        b"F1e999\n.",
        b"F 1.0\n.",
        b"F1_0.0\n.",
        b"Finfinity\n.",
        b"F1.0\x00\n.",
        b"F-nan\n.",
        b"F\n.",
        b"F1.\n.",
        b"F.5\n.",
        b"F1E5\n.",
        b"V\\u12\n.",
        b"V\\\n.",
        b"V\\x41\n.",
        b"V\\\\u0041\n.",
        b"V\\U00110000\n.",
        b"V\\u00e9\n.",
        b"V\\u00E9\n.",
        b"V\\ud83d\\ude00\n.",
        b"c_codecs\nencode\n(V\\u20ac\nVlatin1\ntR.",
        b"c_codecs\nencode\n(Vabc\nVlatin-1\ntR.",
        b"c_codecs\nencode\n(Vabc\ntR.",
        b"c_codecs\nencode\n(Vabc\nVlatin1\nVx\ntR.",
        b"c_codecs\nencode\n(I1\nVlatin1\ntR.",
        b"c_codecs\nencode\n(VVlatin1\ntR.",
        b"c__builtin__\nbytes\n(I1\ntR.",
        b"c__builtin__\nbytes\n(tR.",
        b"c_codecs\nencode\n.",
        b"c__builtin__\nbytes\n.",
        b"NNR.",
        b"c_codecs\nencode\n(V\nVlatin1\ntR.",
        b"cbuiltins\nbytes\n(tR.",
        b'S"a"\n.',
        b"\x80\x02N.",
        b"(N0t.",
        b"N0N.",
        b"(0N.",
        b"(dV\nNs.",
        b"(dVa\nI1\nsVa\nI2\ns.",
        b"(lp0\nNap0\n.",
        b"(lp0\np0\ng0\na.",
        b"(dp0\nVkey\np1\ng1\nsVkey\np2\ng2\ns.",
    ],
)
def test_unusual_pickles(data: bytes) -> None:
    check_damaged(data)


def test_the_collector_is_left_as_it_was() -> None:
    import gc

    long = pickle.dumps("long\n" * 20_000, protocol=0)
    for data in [
        pickle.dumps([1, [2]], protocol=0),
        b"(l(l",
        b"(dNNx",
        long,
        long[:-1],
        b"V" + b"\\" * 70_000 + b"\n.",
    ]:
        _native.pickle_loads(data)
        assert gc.isenabled()
        gc.disable()
        try:
            _native.pickle_loads(data)
            assert not gc.isenabled()
        finally:
            gc.enable()


def test_nothing_leaks() -> None:
    objects = [[1.5, "ab", ("x", [b"yy", b"z", 10**30])], {"k": (1, 2, {})}]
    damaged = [pickle.dumps(objects, protocol=0)[:-2] + b"?", b"(dp0\n(lp1\nNs.", b"(lp0\n(Vab\nt"]
    before = sys.getallocatedblocks()
    for _ in range(2000):
        data = _native.pickle_dumps(objects)
        assert data is not None
        _native.pickle_loads(data)
        for broken in damaged:
            assert _native.pickle_loads(broken) is None
    assert sys.getallocatedblocks() - before < 500


# Where pickles end


def genops_ends(stream: bytes) -> list[int]:
    ends = []
    file = io.BytesIO(stream)
    while file.tell() < len(stream):
        for _ in pickletools.genops(file):
            pass
        ends.append(file.tell())
    return ends


SCANNED = [
    *SAMPLES,
    *PLAIN[::7],
    {1, 2},
    frozenset([1, "a"]),
    bytearray(b"abc"),
    Instance,
    Instance(),
    Point(1, 2),
    1j,
    range(5),
    OrderedDict(a=1),
    len,
    "x" * 300,
    "x" * 70_000,
    b"x" * 300,
    b"x" * 70_000,
    bytearray(70_000),
    2**3000,
    list(range(3000)),
    {str(number): number for number in range(3000)},
    [Instance(), Instance()],
    Text("a"),
    slice,
    pickle.PickleBuffer,
]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_scanner_finds_the_ends(protocol: int) -> None:
    stream = b"".join(pickle.dumps(obj, protocol=protocol) for obj in SCANNED)
    assert _native.pickle_scan(stream) == genops_ends(stream)


@pytest.mark.parametrize(
    "data", [b"\xfe", b"(ldx", b"N\x00.", b"s.", b"Nt.", b".", b"NN\x87.", b"\x8b\xff\xff\xff\xff."]
)
def test_scanner_refuses_what_cannot_be_a_pickle(data: bytes) -> None:
    with pytest.raises(ValueError, match="The pickled data is damaged"):
        _native.pickle_scan(data)
    with pytest.raises(Exception):
        pickle.loads(data)


def test_scanner_refuses_only_what_c_refuses() -> None:
    rng = random.Random(9)
    parts = [
        b"(",
        b"t",
        b"l",
        b"d",
        b"s",
        b"a",
        b"N",
        b"0",
        b"p0\n",
        b"g0\n",
        b"I1\n",
        b"Va\n",
        b"1",
        b"2",
        b"K\x01",
        b"]",
        b"}",
        b")",
        b"e",
        b"u",
        b"\x85",
        b"\x86",
        b"\x87",
        b"\x88",
        b"\x94",
        b"\x8c\x01a",
        b"\x8f",
        b"\x90",
        b"\x91",
        b"X\x02\x00\x00\x00ab",
        b"J\1\2\3\4",
        b"q\x00",
        b"\x8a\x01\x02",
        b"C\x01x",
        b"G" + bytes(8),
        b"\x95" + struct.pack("<Q", 1),
    ]
    for _ in range(FUZZ // 3):
        data = b"".join(rng.choices(parts, k=rng.randrange(1, 12))) + b"."
        try:
            ends = _native.pickle_scan(data)
        except ValueError:
            with pytest.raises(Exception):
                pickle.loads(data)
        else:
            assert all(data[end - 1 : end] == b"." for end in ends)
