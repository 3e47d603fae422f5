"""docs/operating.md, followed word by word in a new project."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "operating.md"

#: What stands between two fences, and the language behind the first.
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


SETUP = """
import os, django
os.environ["DJANGO_SETTINGS_MODULE"] = "mysite.settings"
django.setup()
"""


def blocks() -> list[tuple[str, str]]:
    return BLOCK.findall(PAGE.read_text())


class Project:
    """What `startproject` makes, with a cache in files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = folder / "mysite" / "settings.py"
        self.run("-m", "django", "startproject", "mysite", ".")
        cache = {"BACKEND": "django.core.cache.backends.filebased.FileBasedCache", "LOCATION": str(folder / "cache")}
        self.add(f'\nCACHES = {{"default": {cache!r}}}\n')

    def add(self, settings: str) -> None:
        with self.settings.open("a") as file:
            file.write(settings)

    def run(self, *command: str, stdin: str | None = None) -> str:
        """What is printed, and behind it what stands in the error output."""
        environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
        done = subprocess.run(
            [sys.executable, *command],
            cwd=self.folder,
            env=environment | {"PYTHONIOENCODING": "utf-8", "PYTHONWARNINGS": "error"},
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            timeout=120,
        )
        return done.stdout + done.stderr


def follow(folder: Path) -> list[tuple[str, str, str]]:
    """Each command of the page, what the page says that it prints, and what it prints."""
    project = Project(folder)
    commands = []
    for language, text in blocks():
        if language == "console":
            first, _, expected = text.partition("\n")
            assert first.startswith("$ python "), first
            commands.append((first, expected, project.run(*first.removeprefix("$ python ").split())))
        elif re.search(r"^[A-Z]\w+ \+?= ", text, re.MULTILINE):
            project.add(text)
        elif "replace_djblets" not in text:
            (folder / "example.py").write_text(SETUP + text)
            output = project.run("example.py")
            assert "Traceback" not in output, output
    return commands


def comparable(output: str) -> str:
    """Without what depends on the machine."""
    kept = []
    for line in output.strip().splitlines():
        # Times, and the table of `bench`.
        if line.startswith(("took ", "expires ")) or re.search(r" ms *\d*$", line):
            line = re.sub(r"[\d.:]+|-\d+", "N", " ".join(line.split()))
        kept.append(line.rstrip())
    return "\n".join(kept)


@pytest.mark.slow
def test_the_page(tmp_path: Path) -> None:
    commands = follow(tmp_path)
    assert len(commands) == 9
    for command, expected, printed in commands:
        assert comparable(printed) == comparable(expected), command


def test_what_it_needs_is_said(tmp_path: Path) -> None:
    assert blocks()[0] == ("python", 'INSTALLED_APPS += ["fastblets"]\n')


def messages() -> list[str]:
    return re.findall(r"^\| `([A-Z][^`]+)` \|", PAGE.read_text(), re.MULTILINE)


def test_there_are_messages() -> None:
    assert len(messages()) > 15


@pytest.mark.parametrize("message", messages())
def test_a_message_to_watch_is_logged(message: str) -> None:
    sources = [path.read_text() for path in (ROOT / "python" / "fastblets").glob("*/*.py")]
    assert any(re.search(rf"""["']{re.escape(message)}""", source) for source in sources)


def test_all_that_is_logged_as_a_warning_is_on_the_page() -> None:
    call = re.compile(r"""(?:logger\.(?:warning|error)\(|log_failure\(logger, \w+,)\s*f?["'](\w+(?: \w+)?)""")
    for path in (ROOT / "python" / "fastblets").glob("*/*.py"):
        for begins in call.findall(path.read_text()):
            assert any(message.startswith(begins) for message in messages()), (path, begins)
