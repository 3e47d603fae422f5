"""The pages for readers: their examples, run as printed, and their links."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from inspect import signature
from pathlib import Path

import pytest

from fastblets.cache.backend import DEFAULT_EXPIRATION_TIME
from fastblets.protect.locks import CacheLock

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
#: What tests/test_scale_out.py and tests/test_operating.py run in their own ways.
RUN_ELSEWHERE = {"operating.md", "scale-out.md"}

SETUP = """
import django
from django.conf import settings

settings.configure(
    SECRET_KEY="a-key-for-tests-only-of-at-least-32-characters",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    CACHES={
        "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
        "archive": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "archive"},
    },
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth"],
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "OPTIONS": {
                "loaders": [
                    ("django.template.loaders.locmem.Loader", {"sidebar.html": "<nav>{{ language }}</nav>"}),
                ],
            },
        }
    ],
)
django.setup()
"""

# The tables of users, for the pages whose examples query them.
TABLES = """
from django.core.management import call_command

call_command("migrate", verbosity=0)
"""

# What the pages show of task queues that aren't installed. A task runs at once, when it is queued.
QUEUES = """
import sys
import types


def _make_task(function):
    function.delay = function.enqueue = function
    return function


for _name, _decorator in {"celery": "shared_task", "django.tasks": "task"}.items():
    sys.modules[_name] = types.ModuleType(_name)
    setattr(sys.modules[_name], _decorator, _make_task)
"""


def blocks(page: Path, language: str = "") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def python_blocks(page: Path) -> list[str]:
    return blocks(page, "python")


WITH_EXAMPLES = [page for page in PAGES if page.name not in RUN_ELSEWHERE and python_blocks(page)]


def test_there_are_examples() -> None:
    assert {page.name for page in WITH_EXAMPLES} >= {"README.md", "getting-started.md", "guide.md", "migrating.md"}
    assert sum(len(python_blocks(page)) for page in WITH_EXAMPLES) >= 20


@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=lambda page: page.stem)
def test_the_examples_of_a_page_in_their_order(page: Path) -> None:
    code = "\n".join(python_blocks(page))
    if "import djblets" in code and find_spec("djblets") is None:
        pytest.skip("Djblets isn't installed")
    setup = SETUP + TABLES * ("django.contrib.auth" in code) + QUEUES * ("import shared_task" in code)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", setup + code], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def anchors(page: Path) -> set[str]:
    """What the headings of a page are called in links, to GitHub and to MkDocs."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


LINKS = [
    pytest.param(page, *found, id=f"{page.name}-{''.join(found)}")
    for page in PAGES
    if page.exists()
    for found in dict.fromkeys(re.findall(r"\]\((?!\w+:)([^)#]*)(#[^)]+)?\)", page.read_text()))
]


@pytest.mark.parametrize(("page", "target", "anchor"), LINKS)
def test_a_link_leads_somewhere(page: Path, target: str, anchor: str) -> None:
    found = page.parent / target if target else page
    assert found.exists()
    assert not anchor or anchor.removeprefix("#") in anchors(found)


def test_nothing_is_fetched_from_elsewhere() -> None:
    images = [image for page in PAGES for image in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.read_text())]
    assert images
    assert not [image for image in images if "//" in image]
    assert not [page.name for page in PAGES if re.search(r"<(img|script|link)\b", page.read_text())]
    site = (ROOT / "mkdocs.yml").read_text()
    assert "font: false" in site
    assert not re.search(r"^(repo_url|extra_css|extra_javascript):", site, re.MULTILINE)


def test_the_settings_page_names_all_settings_that_are_read() -> None:
    code = "".join(path.read_text() for path in (ROOT / "python").rglob("*.py"))
    read = set(re.findall(r'getattr\(\w*settings\S* "(\w+)"', code))
    read |= set(re.findall(r"\bsettings\.([A-Z_]{2,})", code))
    assert len(read) >= 6
    rows = "".join(re.findall(r"^\|.+$", (DOCS / "settings.md").read_text(), re.MULTILINE))
    assert {name for name in read if f"`{name}`" not in rows} == set()
    assert f"| {DEFAULT_EXPIRATION_TIME}: {DEFAULT_EXPIRATION_TIME // 86400} days |" in rows


def test_the_guides_defaults_of_a_lock_are_those_of_the_code() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| (\S+) \|$", (DOCS / "guide.md").read_text(), re.MULTILINE))
    options = {name: option for name, option in signature(CacheLock).parameters.items() if name != "key"}
    assert rows == {name: str(option.default) for name, option in options.items()}
