"""Reports as text: each line by itself, for entries of every kind."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from fastblets.diagnostics.measure import Measurement
from fastblets.diagnostics.report import EntryReport, Forgotten, ItemReport, TagReport
from fastblets.diagnostics.text import (
    describe_entry,
    describe_forgotten,
    describe_measurements,
    describe_missing,
    describe_tag,
    summarize_entry,
)

WHOLE = EntryReport("the-key", "whole", encrypted=False)


def lines(**known: Any) -> dict[str, str]:
    """The lines of a report by their first words."""
    return {line[:9].strip(): line[9:] for line in describe_entry(replace(WHOLE, **known)) if line[:9].strip()}


@pytest.mark.parametrize(
    ("known", "state"),
    [
        ({}, "whole"),
        ({"unknown_tags": 1}, "whole, unless it was invalidated: it has a tag to give as --tag"),
        ({"unknown_tags": 3}, "whole, unless it was invalidated: it has 3 tags to give as --tag"),
        ({"state": "invalid"}, "invalid"),
    ],
)
def test_the_state(known: dict[str, Any], state: str) -> None:
    assert lines(**known)["state"] == state


@pytest.mark.parametrize(
    ("token", "record", "text"),
    [
        ("abc", None, "tag      user:7: abc"),
        ("abc", "1;;;;abc,def", "tag      user:7: abc, as in the record"),
        ("abc", "1;;;;def", "tag      user:7: abc, not as in the record"),
        (None, "1;;;;def", "tag      user:7: no token, so that all entries with it are misses"),
    ],
)
def test_a_tag(token: str | None, record: str | None, text: str) -> None:
    assert describe_tag(TagReport("user:7", ("key",), token), record) == text


def test_what_is_not_known_has_no_line() -> None:
    assert list(lines()) == ["key", "state", "form", "took"]
    assert lines(fetch_seconds=0.00153, read_seconds=2)["took"] == "1.5 ms to fetch, 2000.0 ms to look through"


@pytest.mark.parametrize(
    ("known", "form"),
    [
        ({}, "unknown, not encrypted"),
        ({"kind": "small", "encrypted": True}, "small, encrypted"),
        ({"kind": "small", "encrypted": True, "older_key": 2}, "small, encrypted under older key 2"),
        ({"kind": "large", "compressed": True}, "large, not encrypted, compressed"),
        ({"kind": "large", "compressed": False}, "large, not encrypted, not compressed"),
    ],
)
def test_the_form(known: dict[str, Any], form: str) -> None:
    assert lines(**known)["form"] == form


@pytest.mark.parametrize(
    ("count", "sizes", "text"),
    [
        (0, (), "0"),
        (1, (12_345,), "1: 12,345 bytes"),
        (2, (1000, 5), "2: 1,000 and one of 5 bytes"),
        (1001, (1000,) * 1000 + (5,), "1,001: 1,000 of 1,000 and one of 5 bytes"),
        (2, (1000, None), "2: 1,000, missing bytes"),
        (3, (1000, 999, 5), "3: 1,000, 999, 5 bytes"),
        (12, (None,) * 12, f"12: {', '.join(['missing'] * 10)}, … bytes"),
    ],
)
def test_the_chunks(count: int, sizes: tuple[int | None, ...], text: str) -> None:
    assert lines(chunk_count=count, chunk_sizes=sizes)["chunks"] == text


def test_bytes_and_items() -> None:
    found = lines(stored_bytes=1, pickled_bytes=2500, item_count=1234)
    assert found["stored"] == "1 byte"
    assert found["pickles"] == "2,500 bytes, 2500.00 times what is stored"
    assert found["items"] == "1,234"
    # Nothing to divide by.
    assert lines(stored_bytes=0, pickled_bytes=0)["pickles"] == "0 bytes"


def test_what_has_several_lines() -> None:
    report = replace(
        WHOLE,
        state="damaged",
        problems=("first", "second"),
        items=(ItemReport(1, "'a'"), ItemReport(None, "<object>")),
        notes=("one", "two"),
    )
    text = list(describe_entry(report))
    assert text[1:4] == ["state    damaged", "         - first", "         - second"]
    assert "         [0] 'a' (1 byte)" in text
    assert "         [1] <object>" in text
    assert text[-2:] == ["note     one", "note     two"]


@pytest.mark.parametrize(
    ("count", "more", "end"), [(30, False, "name29"), (31, False, "name29, and more"), (1, True, "name0, and more")]
)
def test_names_are_cut(count: int, more: bool, end: str) -> None:
    names = lines(names=tuple(f"name{number}" for number in range(count)), more_names=more)["names"]
    assert names.startswith("name0")
    assert names.endswith(end)
    assert names.count("name") == min(count, 30)


def test_when_it_expires() -> None:
    assert lines(expires="never")["expires"] == "never"
    time = datetime.now(timezone.utc) + timedelta(days=2, seconds=0.2)
    assert lines(expires=time.isoformat())["expires"] == f"{time:%Y-%m-%d %H:%M:%S} UTC, in 2 days, 0:00:00"


@pytest.mark.parametrize(
    ("known", "summary"),
    [
        ({"kind": "small"}, "small"),
        (
            {"kind": "small", "seal": "valid", "encrypted": True, "older_key": 1},
            "small, sealed, encrypted under older key 1",
        ),
        ({"kind": "large", "chunk_count": 1, "item_count": 1, "seal": "none"}, "large: 1 chunk, 1 item"),
        ({"kind": "large", "chunk_count": 1200, "item_count": 0}, "large: 1,200 chunks, 0 items"),
    ],
)
def test_the_summary(known: dict[str, Any], summary: str) -> None:
    assert summarize_entry(replace(WHOLE, **known)) == summary


@pytest.mark.parametrize("looked_for", [WHOLE, Forgotten("the-key", main=False, chunks=0)], ids=["report", "forgotten"])
@pytest.mark.parametrize(
    ("encrypted", "how"),
    [(False, "(not encrypted)"), (True, "(encrypted: with another AES key it would have another one)")],
)
def test_a_missing_entry_says_where_it_was_looked_for(looked_for: Any, encrypted: bool, how: str) -> None:
    text = describe_missing(replace(looked_for, encrypted=encrypted))
    assert text == f"missing: nothing is stored under the-key {how}"


def test_what_was_removed() -> None:
    older = (Forgotten("nothing", main=False, chunks=0), Forgotten("older", main=True, chunks=1))
    assert list(describe_forgotten(Forgotten("new", main=False, chunks=2, older=older))) == [
        "deleted no count or value, 2 chunks (new)",
        "deleted the count or value, 1 chunk (older) under older key 2",
    ]
    assert list(describe_forgotten(Forgotten("new", main=False, chunks=0))) == []


def test_measurements_are_a_table() -> None:
    rows = [Measurement("a hit", 3, 0.0012345), Measurement("a miss", 3, 1.5, 12.6)]
    text = list(describe_measurements(rows))
    assert [line.split() for line in text] == [
        ["median", "MB/s"],
        ["a", "hit", "1.234", "ms"],
        ["a", "miss", "1500.000", "ms", "13"],
    ]
    assert len({len(line.rstrip()) for line in (text[0], text[2])}) == 1
