"""The examples of the README, run as printed."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"

SETUP = """
import django
from django.conf import settings

settings.configure(SECRET_KEY="a-key-for-tests-only-of-at-least-32-characters")
django.setup()
"""


def examples() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)


def test_there_are_examples() -> None:
    assert len(examples()) == 3


@pytest.mark.parametrize("example", examples())
def test_an_example(example: str) -> None:
    if "replace_djblets" in example and find_spec("djblets") is None:
        pytest.skip("Djblets isn't installed")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SETUP + example], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
