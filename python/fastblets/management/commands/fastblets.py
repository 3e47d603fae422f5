"""``manage.py fastblets``: looking at entries, removing them, and measuring the cache."""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError

from fastblets.cache.errors import CacheRefusedError, SiteUnavailableError
from fastblets.diagnostics.forget import forget_entry
from fastblets.diagnostics.inspector import inspect_entry
from fastblets.diagnostics.measure import NotStoredError, measure
from fastblets.diagnostics.tags import inspect_tag
from fastblets.diagnostics.text import (
    describe_entry,
    describe_forgotten,
    describe_measurements,
    describe_missing,
    describe_tag,
    summarize_entry,
)

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Iterator
    from typing import Any

    from fastblets.diagnostics.report import EntryReport, TagReport


class Command(BaseCommand):
    """The command. ``fastblets.diagnostics`` does the work."""

    help = "Looks at entries of the cache, verifies or removes them, and measures the cache."

    # Whoever has to look into a cache may have a project that has other worries, too.
    requires_system_checks: tuple[()] = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the subcommands."""
        commands = parser.add_subparsers(dest="subcommand", required=True, metavar="COMMAND")

        inspect = commands.add_parser("inspect", help="say what is stored under a key, without executing a pickle")
        _add_key(inspect, "*")
        _add_tags(inspect)
        _add_form_options(inspect)
        inspect.add_argument("--items", type=int, default=5, metavar="N", help="how many items to show (5)")
        inspect.add_argument("--json", action="store_true", help="print JSON")

        verify = commands.add_parser("verify", help="fail if an entry is damaged, missing or invalid")
        _add_key(verify)
        _add_tags(verify)
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
        """Print what is known of an entry, and of tags."""
        tags = [inspect_tag(tag, cache=options["cache"]) for tag in _tags(options)]

        if not options["key"]:
            if not tags:
                raise CommandError("Give a KEY, or a --tag.")

            self._print_tags(tags, None, options)

            return

        report = _inspect(options, items=options["items"])

        if options["json"]:
            self._print(json.dumps({**report.to_dict(), **_tags_to_dict(tags)}, indent=2))
        else:
            if report.state != "missing":
                self._print("\n".join(describe_entry(report)))

            self._print_tags(tags, report.record, options)

        if report.state == "missing":
            raise CommandError(describe_missing(report))

    def _print_tags(self, tags: list[TagReport], record: str | None, options: dict[str, Any]) -> None:
        if options["json"]:
            self._print(json.dumps(_tags_to_dict(tags), indent=2))
        elif tags:
            self._print("\n".join(describe_tag(tag, record) for tag in tags))

    def verify(self, options: dict[str, Any]) -> None:
        """Print that an entry is whole, and fail unless it is."""
        report = _inspect(options, items=0)

        if report.state == "missing":
            raise CommandError(f"{_name(options)}: {describe_missing(report)}")

        if report.problems:
            raise CommandError(f"{_name(options)}: {report.state}: {'; '.join(report.problems)}")

        self._print(f"{_name(options)}: whole, {summarize_entry(report)}")

    def forget(self, options: dict[str, Any]) -> None:
        """Remove an entry, and print what there was. Fail if there was nothing."""
        forgotten = forget_entry(_key(options), **_key_options(options))
        removed = list(describe_forgotten(forgotten))

        if not removed:
            raise CommandError(f"{_name(options)}: {describe_missing(forgotten)}")

        for line in removed:
            self._print(f"{_name(options)}: {line}")

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
            self._print("\n".join(describe_measurements(measured)))

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


def _tags_to_dict(tags: list[TagReport]) -> dict[str, Any]:
    return {"tags": [tag.to_dict() for tag in tags]} if tags else {}


def _add_tags(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--tag",
        dest="tags",
        action="append",
        nargs="+",
        default=[],
        metavar="TAG",
        help="a tag of the entry, to see whether it is valid; several are the parts of one tag",
    )


def _add_key(parser: ArgumentParser, nargs: str = "+") -> None:
    parser.add_argument("key", nargs=nargs, metavar="KEY", help="the key; several are the parts of one key")
    _add_key_options(parser)


def _add_key_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--encrypted",
        action="store_const",
        const=True,
        help="entries are encrypted, with the default key (by default as DJBLETS_CACHE_FORCE_ENCRYPTION says)",
    )
    parser.add_argument("--cache", metavar="ALIAS", help="which cache of CACHES it is (default)")


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
    return _join(options["key"])


def _join(parts: list[str]) -> str | list[str]:
    """Return a key, or a tag, of its parts."""
    typed = [_as_typed(part) for part in parts]

    return typed[0] if len(typed) == 1 else typed


def _name(options: dict[str, Any]) -> str:
    return " ".join(map(_as_typed, options["key"]))


def _as_typed(part: str) -> str:
    # What isn't in the locale's encoding arrives as surrogates. In keys it stands for UTF-8.
    try:
        return os.fsencode(part).decode("utf-8")
    except UnicodeError:
        return part


def _key_options(options: dict[str, Any]) -> dict[str, Any]:
    return {"use_encryption": options["encrypted"], "cache": options["cache"]}


def _inspect(options: dict[str, Any], items: int) -> EntryReport:
    return inspect_entry(
        _key(options), items=items, tags=_tags(options), **_key_options(options), **_form_options(options)
    )


def _tags(options: dict[str, Any]) -> list[str | list[str]]:
    return [_join(parts) for parts in options["tags"]]


def _form_options(options: dict[str, Any]) -> dict[str, Any]:
    return {"compressed": False if options["plain"] else None, "large": options["large"]}


@contextmanager
def _clear_errors() -> Iterator[None]:
    try:
        yield
    except CommandError:
        raise
    except (AssertionError, CacheRefusedError, ImproperlyConfigured, SiteUnavailableError, ValueError) as e:
        # An encryption key that is none, another setting, the database, or one of several servers.
        raise CommandError(str(e)) from e
    except Exception as e:
        # Most likely a server that is down: each client has exceptions of its own for it.
        text = f": {e}" if str(e) else ""

        raise CommandError(f"The cache can't be asked: {type(e).__name__}{text}") from e
