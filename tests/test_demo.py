"""The demo runs, checks what it shows, and leaves nothing behind."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.linux("TMPDIR and the signals of POSIX")

DEMO = Path(__file__).parents[1] / "examples" / "demo.py"
NEEDED = {
    "file": (None, "django"),
    "memcached": ("memcached", "pymemcache"),
    "redis": ("redis-server", "redis"),
}


def run_demo(folder: Path, cache: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run it from another folder, with all its temporary files in that folder."""
    return subprocess.run(
        [sys.executable, str(DEMO)],
        cwd=folder,
        env={**os.environ, "CACHE": cache, "TMPDIR": str(folder), **environment},
        capture_output=True,
        text=True,
        timeout=180,
    )


@pytest.mark.slow
@pytest.mark.parametrize("cache", NEEDED)
def test_shows_what_it_says(tmp_path: Path, cache: str) -> None:
    program, client = NEEDED[cache]
    if program and not shutil.which(program):
        pytest.skip(f"{program} is not installed")
    if not importlib.util.find_spec(client):
        pytest.skip(f"{client} is not installed")

    demo = run_demo(tmp_path, cache)

    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert f"fastblets over Django's {cache} cache" in demo.stdout
    assert "no file parsed, the result equal" in demo.stdout
    assert "each item came before the next was begun" in demo.stdout
    assert "a miss, computed again: nothing garbled" in demo.stdout
    assert "1 of 6  computed" in demo.stdout
    if importlib.util.find_spec("djblets"):
        assert demo.stdout.count("3 of 3  nothing computed, equal") == 2
        assert "identical  by both, for the same value" in demo.stdout
    else:
        assert "Left out, as Djblets is not installed" in demo.stdout
    assert demo.stderr == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cache", ["memcached", "redis"])
def test_says_what_to_install(tmp_path: Path, cache: str) -> None:
    demo = run_demo(tmp_path, cache, PATH="")

    assert demo.returncode == 1
    assert f"{NEEDED[cache][0]} is not installed." in demo.stderr
    assert list(tmp_path.iterdir()) == []


def test_refuses_another_cache(tmp_path: Path) -> None:
    demo = run_demo(tmp_path, "carrier-pigeon")

    assert demo.returncode == 1
    assert "CACHE is one of file, memcached, redis" in demo.stderr
