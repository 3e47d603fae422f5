"""What MkDocs needs to know of this repository: pages that stand outside docs, and links that lead out of it."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
#: Files of the repository that are pages of the site.
PAGES = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}


def on_config(config: MkDocsConfig) -> None:
    """Leave out of the navigation what isn't there."""
    config.nav = _present(config.nav)


def _present(entries: Any) -> Any:
    if isinstance(entries, list):
        return [kept for entry in entries if (kept := _present(entry))]
    if isinstance(entries, dict):
        return {title: kept for title, below in entries.items() if (kept := _present(below))}
    return entries if "//" in entries or entries in PAGES.values() or (ROOT / "docs" / entries).exists() else None


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the pages that stand outside docs, as if they stood in there."""
    for source, page in PAGES.items():
        # Their links lead from the root.
        text = re.sub(r"\]\((?!\w+:|#)", "](../", (ROOT / source).read_text())
        files.append(File.generated(config, page, content=text.replace("](../docs/", "](")))


def on_page_markdown(markdown: str, config: MkDocsConfig, **_: Any) -> str:
    """Let links out of docs lead to the page that the file is, or to the repository."""

    def lead(link: re.Match[str]) -> str:
        path, anchor = link[1], link[2] or ""
        page = PAGES.get(path) or posixpath.join(config.extra["repository"], "blob/main", path)
        return f"]({page}{anchor})"

    return re.sub(r"\]\(\.\./([^)#]+)(#[^)]*)?\)", lead, markdown)
