"""``manage.py fastblets``: looking at entries, removing them, and measuring the cache."""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError

from fastblets.cache.errors import SiteUnavailableError
from fastblets.inspect import forget_entry, inspect_entry
from fastblets.measure import NotStoredError, measure

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Iterator
    from typing import Any, Final

    from fastblets.inspect import EntryReport, Forgotten
    from fastblets.measure import Measurement


#: How many names of classes are printed.
_MOST_NAMES: Final = 30


class Command(BaseCommand):
    """The command. What it does is done in ``fastblets.inspect`` and ``fastblets.measure``."""

    help = "Looks at entries of the cache, verifies or removes them, and measures the cache."

    # Whoever has to look into a cache may have a project that has other worries, too.
    requires_system_checks: tuple[()] = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the subcommands."""
        commands = parser.add_subparsers(dest="subcommand", required=True, metavar="COMMAND")

        inspect = commands.add_parser("inspect", help="say what is stored under a key, without executing a pickle")
        _add_key(inspect)
        _add_form_options(inspect)
        inspect.add_argument("--items", type=int, default=5, metavar="N", help="how many items to show (5)")
        inspect.add_argument("--json", action="store_true", help="print JSON")

        verify = commands.add_parser("verify", help="fail if an entry is damaged or missing")
        _add_key(verify)
        _add_form_options(verify)

        forget = commands.add_parser("forget", help="remove an entry with all its chunks; fail if there is none")
        _add_key(forget)

        bench = commands.add_parser("bench", help="measure the cache, with this project's settings")
        _add_key_options(bench)
        bench.add_argument(
            "--records", type=int, default=20_000, metavar="N", help="how many records a large entry has (20000)"
        )
        bench.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the subcommand."""
        with _clear_errors():
            getattr(self, options["subcommand"])(options)

    def inspect(self, options: dict[str, Any]) -> None:
        """Print what is known of an entry."""
        report = inspect_entry(_key(options), items=options["items"], **_key_options(options), **_form_options(options))

        if options["json"]:
            self._print(json.dumps(report.to_dict(), indent=2))
        elif report.state != "missing":
            self._print("\n".join(_describe(report)))

        if report.state == "missing":
            raise CommandError(_missing(report))

    def verify(self, options: dict[str, Any]) -> None:
        """Print that an entry is whole, and fail unless it is."""
        report = inspect_entry(_key(options), items=0, **_key_options(options), **_form_options(options))

        if report.state == "missing":
            raise CommandError(f"{_name(options)}: {_missing(report)}")

        if report.state == "damaged":
            raise CommandError(f"{_name(options)}: damaged: {'; '.join(report.problems)}")

        self._print(f"{_name(options)}: whole, {_summary(report)}")

    def forget(self, options: dict[str, Any]) -> None:
        """Remove an entry, and print what there was. Fail if there was nothing."""
        forgotten = forget_entry(_key(options), **_key_options(options))
        found = [(0, forgotten), *enumerate(forgotten.older, 1)]

        if not any(each.main or each.chunks for _, each in found):
            raise CommandError(f"{_name(options)}: {_missing(forgotten)}")

        for number, each in found:
            if each.main or each.chunks:
                self._print(f"{_name(options)}: {_deleted(each)}{f' {_under(number)}' if number else ''}")

    def bench(self, options: dict[str, Any]) -> None:
        """Print how fast the cache is."""
        bar = _Progress(sys.stderr if sys.stderr.isatty() else None)

        try:
            measured = measure(records=options["records"], progress=bar.show, **_key_options(options))
        except NotStoredError as e:
            raise CommandError(f"{e} Look at its limits on the size of items and on memory.") from e
        finally:
            bar.clear()

        if options["json"]:
            self._print(json.dumps([row.to_dict() for row in measured], indent=2))
        else:
            self._print("\n".join(_table(measured)))

    def _print(self, text: str) -> None:
        # A terminal may lack some characters, which is no reason to print nothing. Django's wrapper hides its encoding.
        encoding = getattr(getattr(self.stdout, "_out", None), "encoding", None)

        if encoding:
            text = text.encode(encoding, "backslashreplace").decode(encoding)

        self.stdout.write(text)


class _Progress:
    """A bar on a terminal."""

    _WIDTH = 30

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._percent = -1

    def show(self, done: int, total: int, name: str) -> None:
        percent = 100 * done // total

        if self._stream is not None and percent != self._percent:
            self._percent = percent
            filled = self._WIDTH * done // total
            bar = "#" * filled + "." * (self._WIDTH - filled)
            self._stream.write(f"\r\x1b[K[{bar}] {percent:3} % {name}")
            self._stream.flush()

    def clear(self) -> None:
        if self._stream is not None:
            self._stream.write("\r\x1b[K")
            self._stream.flush()


def _add_key(parser: ArgumentParser) -> None:
    parser.add_argument("key", nargs="+", metavar="KEY", help="the key; several are the parts of one key")
    _add_key_options(parser)


def _add_key_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--encrypted",
        action="store_const",
        const=True,
        help="entries are encrypted, with the default key (by default as DJBLETS_CACHE_FORCE_ENCRYPTION says)",
    )


def _add_form_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--plain",
        action="store_const",
        const=True,
        help="its chunks are not compressed (by default they say it themselves)",
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--large", dest="large", action="store_const", const=True, help="it must be a large entry")
    size.add_argument("--small", dest="large", action="store_const", const=False, help="it must be a small one")


def _key(options: dict[str, Any]) -> str | list[str]:
    parts = [_as_typed(part) for part in options["key"]]

    return parts[0] if len(parts) == 1 else parts


def _name(options: dict[str, Any]) -> str:
    return " ".join(map(_as_typed, options["key"]))


def _as_typed(part: str) -> str:
    # What isn't in the locale's encoding arrives as surrogates. In keys it stands for UTF-8.
    try:
        return os.fsencode(part).decode("utf-8")
    except UnicodeError:
        return part


def _key_options(options: dict[str, Any]) -> dict[str, Any]:
    return {"use_encryption": options["encrypted"]}


def _form_options(options: dict[str, Any]) -> dict[str, Any]:
    return {"compressed": False if options["plain"] else None, "large": options["large"]}


@contextmanager
def _clear_errors() -> Iterator[None]:
    try:
        yield
    except CommandError:
        raise
    except (AssertionError, ImproperlyConfigured, SiteUnavailableError, ValueError) as e:
        # An encryption key that is none, another setting, or the database.
        raise CommandError(str(e)) from e
    except Exception as e:
        # Most likely a server that is down: each client has exceptions of its own for it.
        text = f": {e}" if str(e) else ""

        raise CommandError(f"The cache can't be asked: {type(e).__name__}{text}") from e


def _missing(looked_for: EntryReport | Forgotten) -> str:
    how = "encrypted: with another AES key it would have another one" if looked_for.encrypted else "not encrypted"

    return f"missing: nothing is stored under {looked_for.full_key} ({how})"


def _describe(report: EntryReport) -> Iterator[str]:
    yield f"key      {report.full_key}"
    yield f"state    {report.state}"

    for problem in report.problems:
        yield f"         - {problem}"

    yield f"form     {_form(report)}"

    if report.seal is not None:
        yield f"seal     {report.seal}"

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


def _expires(expires: str) -> str:
    if expires == "never":
        return expires

    time = datetime.fromisoformat(expires)
    left = time - datetime.now(time.tzinfo)

    return f"{time:%Y-%m-%d %H:%M:%S} UTC, in {timedelta(seconds=round(left.total_seconds()))}"


def _form(report: EntryReport) -> str:
    form = [report.kind or "unknown", _encrypted(report)]

    if report.compressed is not None:
        form.append("compressed" if report.compressed else "not compressed")

    return ", ".join(form)


def _encrypted(report: EntryReport) -> str:
    if report.older_key is not None:
        return f"encrypted {_under(report.older_key)}"

    return "encrypted" if report.encrypted else "not encrypted"


def _under(older_key: int) -> str:
    return f"under older key {older_key}"


def _deleted(forgotten: Forgotten) -> str:
    main = "the count or value" if forgotten.main else "no count or value"

    return f"deleted {main}, {_number(forgotten.chunks, 'chunk')} ({forgotten.full_key})"


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


def _summary(report: EntryReport) -> str:
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


def _table(measured: list[Measurement]) -> Iterator[str]:
    yield f"{'':<26}{'median':>12}{'MB/s':>10}"

    for row in measured:
        rate = "" if row.megabytes_per_second is None else f"{row.megabytes_per_second:.0f}"
        yield f"{row.name:<26}{row.seconds * 1e3:>9.3f} ms{rate:>10}"
