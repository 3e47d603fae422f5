"""Several calls in a row, with any options: the same results, logs, warnings, cache calls and entries."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from django.test import override_settings
from hypothesis import assume, example, given
from hypothesis import strategies as st

from tests.differential import declared_difference, examples, wrong_aes_keys
from tests.parity import Library, Parity

#: Few, so that calls meet each other's entries.
KEYS = ["key", ["a:b", "c"]]
AES_KEYS = [b"k" * 16, b"l" * 32]
ITEMS: list[list[Any]] = [["one"], [1, "two", None], ["x" * 3000] * 400, [b"\0" * 1_500_000]]

expirations = st.sampled_from([None, 1, 60, 60.5, 10**9])
common = {
    "expiration": expirations,
    "force_overwrite": st.booleans(),
    "compress_large_data": st.sampled_from([True, False, 1, 0, None]),
    "use_encryption": st.sampled_from([True, False, None, 1, 0]),
    "encryption_key": st.sampled_from([*AES_KEYS, None, b""]),
}
iter_options = st.fixed_dictionaries({}, optional=common)
value_options = st.fixed_dictionaries(
    {}, optional=common | {"large_data": st.sampled_from([True, False, 1, 0]), "use_generator": st.booleans()}
)
lock_options = st.fixed_dictionaries(
    # Waits for nobody, so that no fault can make it wait for ever.
    {"timeout_secs": st.just(1), "lock_expiration_secs": st.just(2)},
    optional={"key": st.sampled_from(["lock", ["a", "lock"]]), "blocking": st.booleans()},
)


@dataclass(frozen=True)
class Call:
    """One call of one of the functions, and whether it holds a lock that it makes for itself."""

    key: str | list[str]
    items: list[Any]
    is_iter: bool
    options: dict[str, Any]
    lock: dict[str, Any] | None
    positional: bool = False

    def __call__(self, library: Library) -> Any:
        options = dict(self.options)
        if self.lock is not None:
            options["lock"] = library.locks.CacheLock(**self.lock)
        arguments = [options.pop("expiration")] if self.positional and "expiration" in options else []
        if self.is_iter:
            return list(library.backend.cache_memoize_iter(self.key, lambda: iter(self.items), *arguments, **options))
        return library.backend.cache_memoize(self.key, lambda: self.items, *arguments, **options)


calls = st.booleans().flatmap(
    lambda is_iter: st.builds(
        Call,
        st.sampled_from(KEYS),
        st.sampled_from(ITEMS),
        st.just(is_iter),
        iter_options if is_iter else value_options,
        st.none() | lock_options,
    )
)


def mode(call: Call) -> tuple[Any, ...]:
    """What entries depend on beside their key. Reading an entry in another mode is another test's business."""
    options = call.options
    large = call.is_iter or bool(options.get("large_data"))
    encrypted = bool(options.get("use_encryption"))
    return (
        large and (call.is_iter, bool(options.get("compress_large_data", True))),
        encrypted and (options.get("encryption_key") or None),
    )


def kept(options: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name in names}


def in_a_row(calls: list[Call]) -> Any:
    return lambda library: [call(library) for call in calls]


#: Times on the clocks, tokens of locks, and which code a deprecation warning thanks for its wording.
CLOCKS = r"\(monotonic expiration = [^)]*\)"
WORDS = r"RemovedInDjblets80Warning: .*"


#: A lock looks whether it is still the owner's once more before it is touched, and its removal looks like an entry's.
LOOKS = r"(?m:^(?:(?:get|touch|delete) .*\n?)+)"


@examples
@given(st.lists(calls, min_size=1, max_size=4))
def test_calls_in_a_row(both: Parity, calls: list[Call]) -> None:
    # Each key in one mode only.
    modes: dict[str, Any] = {}
    assume(all(modes.setdefault(str(call.key), mode(call)) == mode(call) for call in calls))
    looks = [LOOKS] if any(call.lock for call in calls) else []
    both(in_a_row(calls), ignoring="|".join([CLOCKS, WORDS, *looks]))


@examples
@given(st.lists(calls, min_size=2, max_size=3))
def test_an_entry_read_in_another_mode_is_computed_again(both: Parity, calls: list[Call]) -> None:
    """Djblets may also fail or lose items."""
    calls = [replace(call, key="key", is_iter=True, options=kept(call.options, tuple(common))) for call in calls]
    trial = both.run(both.fastblets, in_a_row(calls))
    assert trial.error is None
    assert all(any(found == call.items for call in calls) for found in trial.value)


@examples
@given(wrong_aes_keys, st.sampled_from(ITEMS), st.booleans())
def test_an_aes_key_of_a_wrong_size(both: Parity, aes_key: bytes, items: list[Any], large: bool) -> None:
    options = {"large_data": large, "use_encryption": True, "encryption_key": aes_key}
    call = Call("key", items, False, options, None)
    if declared_difference(items, large=large, encryption_key=aes_key) is None:
        trial = both(call)
    else:
        trial = both.run(both.fastblets, call)
    assert trial.value == items
    assert not trial.stored


@pytest.mark.parametrize("key", ["key", "a b", ["one:"], ["a:b", "c"], ("a", "b"), []], ids=str)
@pytest.mark.parametrize("encrypted", [False, True], ids=["clear", "encrypted"])
@pytest.mark.parametrize("function", ["cache_memoize", "cache_memoize_iter"])
def test_the_key_that_a_lock_is_given(both: Parity, function: str, encrypted: bool, key: Any) -> None:
    def memoize(library: Library) -> str:
        lock = library.locks.CacheLock(timeout_secs=1)
        found = getattr(library.backend, function)(key, lambda: "items", lock=lock, use_encryption=encrypted)
        assert "".join(found) == "items"
        return str(lock.full_cache_key)

    theirs, ours = (both.run(library, memoize).value for library in both.libraries)
    assert ours == theirs


@pytest.mark.parametrize("is_iter", [False, True])
def test_an_expiration_by_position(both: Parity, is_iter: bool) -> None:
    call = Call("key", ["item"], is_iter, {"expiration": 5}, None, positional=True)
    both(call, ignoring=WORDS)


@pytest.mark.parametrize("expiration", [0, -1])
@pytest.mark.parametrize("is_iter", [False, True])
def test_an_expiration_that_is_over(both: Parity, is_iter: bool, expiration: int) -> None:
    call = Call("key", ["item"], is_iter, {"expiration": expiration}, None)
    trial = both(in_a_row([call, call]))
    assert len(trial.writes) == 2 * len(set(trial.writes))


@pytest.fixture
def djblets_reads_settings_again(both: Parity) -> Iterator[None]:
    """Djblets reads CACHE_EXPIRATION_TIME when it is imported."""
    yield
    importlib.reload(both.djblets.backend)


@pytest.mark.parametrize("is_iter", [False, True])
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("seconds", [None, 5, 86400])
def test_the_expiration_of_the_settings(
    both: Parity, djblets_reads_settings_again: None, seconds: int | None, large: bool, is_iter: bool
) -> None:
    call = Call("key", ["item"], is_iter, {} if is_iter else {"large_data": large}, None)
    with override_settings(CACHE_EXPIRATION_TIME=seconds):
        importlib.reload(both.djblets.backend)
        trial = both(call)
    assert all(write.endswith(f"for {seconds} s") for write in trial.writes if write.startswith("set"))


@examples
@given(st.sampled_from(["1", "0", "", "x", "-1", "1.5", " 1", "1_0", "٣", "9" * 30]) | st.text(max_size=4))
@example("01")
@example("+1")
def test_a_count_that_was_tampered_with(both: Parity, count: str) -> None:
    """Djblets takes whatever int() takes; fastblets what was ever stored. The items arrive in any case."""

    def memoize(library: Library) -> Any:
        key = library.backend.make_cache_key("key")
        library.backend.cache_memoize("key", lambda: count)
        assert key
        return [list(library.backend.cache_memoize_iter("key", ["item"])) for _ in range(2)]

    trial = both.run(both.fastblets, memoize)
    assert trial.value == [["item"]] * 2
