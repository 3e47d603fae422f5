"""The suite on every supported pair of Python and Django.

``nox`` runs all pairs whose Python is on this machine, ``MATRIX=short nox`` the oldest and the newest.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import nox

# What Django itself supports, from the Python that we support.
PYTHONS = {
    "4.2": ("3.10", "3.11", "3.12"),
    "5.2": ("3.10", "3.11", "3.12", "3.13", "3.14"),
    "6.0": ("3.12", "3.13", "3.14"),
}
# Djblets' requirements pin this one.
DJANGO_OF_DJBLETS = "4.2"

nox.needs_version = ">=2024.4.15"
nox.options.reuse_venv = "yes"
# A machine rarely has them all; nox says which ones it skips.
nox.options.error_on_missing_interpreters = False

pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
os.environ["PATH"] = os.pathsep.join([os.environ["PATH"], *map(str, sorted(pyenv.glob("versions/*/bin")))])


def pairs() -> list[tuple[str, str]]:
    every = [(python, django) for django, pythons in PYTHONS.items() for python in pythons]
    if os.environ.get("MATRIX") != "short":
        return every
    found = [pair for pair in every if shutil.which(f"python{pair[0]}")]
    return [found[0], found[-1]] if found else every


def requirements(django: str) -> list[str]:
    """What the suite wants, without Djblets where it can't be."""
    lines = Path("requirements/dev.txt").read_text().splitlines()
    wanted = [line for line in lines if line and not line.startswith("#")]
    return [line for line in wanted if django == DJANGO_OF_DJBLETS or not line.startswith("djblets")]


@nox.session
@nox.parametrize(("python", "django"), pairs())
def tests(session: nox.Session, django: str) -> None:
    session.install(*requirements(django), f"django~={django}.0")
    # Built anew for each Python; cargo keeps what they share.
    session.install("--no-deps", "--force-reinstall", ".")
    session.run("python", "-m", "pytest", *session.posargs)
