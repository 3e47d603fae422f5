"""Reports as text for a terminal."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final

    from fastblets.diagnostics.measure import Measurement
    from fastblets.diagnostics.report import EntryReport, Forgotten, TagReport


#: How many names of classes are printed.
_MOST_NAMES: Final = 30


def describe_missing(looked_for: EntryReport | Forgotten) -> str:
    """Return that there is no entry, and where it was looked for."""
    how = "encrypted: with another AES key it would have another one" if looked_for.encrypted else "not encrypted"

    return f"missing: nothing is stored under {looked_for.full_key} ({how})"


def describe_entry(report: EntryReport) -> Iterator[str]:
    """Yield the lines of a report."""
    yield f"key      {report.full_key}"
    yield f"state    {report.state}{_unless_invalidated(report)}"

    for problem in report.problems:
        yield f"         - {problem}"

    yield f"form     {_form(report)}"

    if report.seal is not None:
        yield f"seal     {report.seal}"

    if report.record is not None:
        yield f"record   {report.record}"

    if report.fresh_until is not None:
        yield f"fresh    until {_time(report.fresh_until)}"

    if report.chunk_count is not None:
        yield f"chunks   {_chunks(report)}"

    if report.stored_bytes is not None:
        yield f"stored   {_number(report.stored_bytes, 'byte')}"

    if report.pickled_bytes is not None:
        ratio = f", {report.ratio:.2f} times what is stored" if report.ratio else ""
        yield f"pickles  {_number(report.pickled_bytes, 'byte')}{ratio}"

    if report.item_count is not None:
        yield f"items    {report.item_count:,}"

    for number, item in enumerate(report.items):
        size = "" if item.size is None else f" ({_number(item.size, 'byte')})"
        yield f"         [{number}] {item.text}{size}"

    if report.expires is not None:
        yield f"expires  {_expires(report.expires)}"

    if report.names:
        more = report.more_names or len(report.names) > _MOST_NAMES
        yield f"names    {', '.join(report.names[:_MOST_NAMES])}{', and more' if more else ''}"

    yield f"took     {report.fetch_seconds * 1e3:.1f} ms to fetch, {report.read_seconds * 1e3:.1f} ms to look through"

    for note in report.notes:
        yield f"note     {note}"


def _unless_invalidated(report: EntryReport) -> str:
    if not report.unknown_tags:
        return ""

    tags = "a tag" if report.unknown_tags == 1 else f"{report.unknown_tags} tags"

    return f", unless it was invalidated: it has {tags} to give as --tag"


def describe_tag(tag: TagReport, record: str | None) -> str:
    """Return the line of a tag.

    Args:
        tag: The tag.
        record: The record of the entry that is being looked at, if it has one.
    """
    if tag.token is None:
        return f"tag      {tag.name}: no token, so that all entries with it are misses"

    known = "" if record is None else ", as in the record" if tag.token in record else ", not as in the record"

    return f"tag      {tag.name}: {tag.token}{known}"


def _expires(expires: str) -> str:
    if expires == "never":
        return expires

    return _time(expires)


def _time(text: str) -> str:
    time = datetime.fromisoformat(text)
    left = round((time - datetime.now(time.tzinfo)).total_seconds())
    distance = f"in {timedelta(seconds=left)}" if left >= 0 else f"{timedelta(seconds=-left)} ago"

    return f"{time:%Y-%m-%d %H:%M:%S} UTC, {distance}"


def _form(report: EntryReport) -> str:
    form = [report.kind or "unknown", _encrypted(report)]

    if report.compressed is not None:
        form.append("compressed" if report.compressed else "not compressed")

    return ", ".join(form)


def _encrypted(report: EntryReport) -> str:
    if report.older_key is not None:
        return f"encrypted {_under(report.older_key)}"

    return "encrypted" if report.encrypted else "not encrypted"


def describe_forgotten(forgotten: Forgotten) -> Iterator[str]:
    """Yield what was removed, for each encryption key under which there was something."""
    for number, each in enumerate((forgotten, *forgotten.older)):
        if each.main or each.chunks:
            main = "the count or value" if each.main else "no count or value"
            under = f" {_under(number)}" if number else ""
            yield f"deleted {main}, {_number(each.chunks, 'chunk')} ({each.full_key}){under}"


def _under(older_key: int) -> str:
    return f"under older key {older_key}"


def _chunks(report: EntryReport) -> str:
    sizes = report.chunk_sizes
    counted = f"{report.chunk_count:,}"

    if not sizes:
        return counted

    *full, last = sizes

    if full and all(size == full[0] for size in full) and full[0] is not None and last is not None:
        times = f"{len(full):,} of " if len(full) > 1 else ""
        return f"{counted}: {times}{full[0]:,} and one of {last:,} bytes"

    shown = ", ".join("missing" if size is None else f"{size:,}" for size in sizes[:10])

    return f"{counted}: {shown}{', …' if len(sizes) > 10 else ''} bytes"


def summarize_entry(report: EntryReport) -> str:
    """Return what a whole entry is."""
    summary = ["small"]

    if report.kind == "large":
        summary = [f"large: {_number(report.chunk_count or 0, 'chunk')}", _number(report.item_count or 0, "item")]

    if report.seal == "valid":
        summary.append("sealed")

    if report.older_key is not None:
        summary.append(_encrypted(report))

    return ", ".join(summary)


def _number(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def describe_measurements(measured: list[Measurement]) -> Iterator[str]:
    """Yield the lines of a table."""
    yield f"{'':<26}{'median':>12}{'MB/s':>10}"

    for row in measured:
        rate = "" if row.megabytes_per_second is None else f"{row.megabytes_per_second:.0f}"
        yield f"{row.name:<26}{row.seconds * 1e3:>9.3f} ms{rate:>10}"
