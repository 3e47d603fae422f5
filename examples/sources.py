"""The data: Python's own standard library, parsed with `ast`."""

from __future__ import annotations

import ast
import sysconfig
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypedDict

STDLIB = Path(sysconfig.get_path("stdlib"))
PACKAGES = (
    'asyncio', 'ctypes', 'email', 'encodings', 'importlib', 'multiprocessing', 'unittest', 'xml',
)  # fmt: skip
TOP_LEVEL = ""
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)

#: Every file parsed by this process so far: a report from the cache leaves it as it was.
parsed: list[Path] = []


class Definition(TypedDict):
    name: str
    kind: str
    line: int
    docstring: str


class Module(TypedDict):
    path: str
    lines: int
    source: str
    definitions: list[Definition]


def parse_modules(folders: Sequence[str] = (TOP_LEVEL, *PACKAGES)) -> Iterator[Module]:
    for folder in folders:
        for path in sorted((STDLIB / folder).glob("*.py")):
            yield parse_module(path)


def parse_module(path: Path) -> Module:
    parsed.append(path)
    with tokenize.open(path) as file:
        source = file.read()
    return {
        "path": path.relative_to(STDLIB).as_posix(),
        "lines": source.count("\n"),
        "source": source,
        "definitions": [define(node) for node in ast.walk(ast.parse(source)) if isinstance(node, DEFINITIONS)],
    }


def define(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> Definition:
    return {
        "name": node.name,
        "kind": "class" if isinstance(node, ast.ClassDef) else "function",
        "line": node.lineno,
        "docstring": ast.get_docstring(node) or "",
    }
