"""The map of the house in CONTRIBUTING.md, and its arrows: compared with what the code imports."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "python" / "fastblets"
CRATE = ROOT / "src"
PAGE = (ROOT / "CONTRIBUTING.md").read_text()


def arrows(language: str) -> list[list[str]]:
    """The rooms in the order of the page, those that stand beside each other together."""
    (line,) = re.findall(rf"^- {language}: (.+?)\n(?=-|\n)", PAGE, re.MULTILINE | re.DOTALL)
    return [re.findall(r"`([\w.]+)`", step) for step in line.split("→")]


def places(language: str) -> dict[str, int]:
    """Each room's place: the higher, the further to the right."""
    found = [(room, place) for place, rooms in enumerate(arrows(language)) for room in rooms]
    assert len(dict(found)) == len(found), "a room stands in one place only"
    return dict(found)


def module_name(path: Path) -> str:
    """`cache.entry` of `cache/entry.py`, `cache` of `cache/__init__.py`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


#: The modules that hold code. The packages beside the outermost have nothing but a docstring.
MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
MODULES = {name: path for name, path in MODULES.items() if name == "__init__" or path.name != "__init__.py"}


def imports(path: Path) -> Iterator[str]:
    """The modules of the package that a file imports, anywhere in it, but for its types only."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            if name.partition(".")[0] == "fastblets":
                yield name.removeprefix("fastblets").removeprefix(".")


def room_of(name: str, rooms: dict[str, int]) -> str:
    """The room that a module, or a name in a module, belongs to."""
    parts = name.split(".")
    found = [room for room in (".".join(parts[:count]) for count in range(len(parts), 0, -1)) if room in rooms]
    assert found, f"{name} has no place in CONTRIBUTING.md"
    return found[0]


#: Where a module's tests are if not in the file with its name, and why.
TESTED_IN: dict[str, tuple[str, str]] = {
    "__init__": ("test_replacement.py", "it holds the version and hands out replace_djblets()"),
    "apps": ("test_checks.py", "the app does nothing but bring the checks"),
    "cache.backend": ("test_memoize.py", "it has the signatures of what cache.memoize does"),
    "cache.batch": ("test_values.py", "the functions for values by hand are its only callers"),
    "cache.classes": ("test_pickle_classes.py", "beside the other tests of pickles"),
    "cache.errors": ("test_failures.py", "classes without code, raised where something fails"),
    "cache.models": ("test_pickle_models.py", "beside the other tests of pickles"),
    "cache.opening": ("test_storage.py", "it builds the entries that those tests use"),
    "cache.stamped": ("test_tags.py", "entries with tags are stored by it"),
    "cache.state": ("test_tags.py", "marks and records are how tags work"),
    "conf": ("test_checks.py", "a list of names, which the checks compare"),
    "diagnostics.fetch": ("test_inspector.py", "the inspector is what damaged entries are fetched for"),
    "diagnostics.report": ("test_inspector.py", "plain data that the inspector fills"),
    "management.commands.fastblets": ("test_command.py", "a command has the name of its app"),
    "secrets.crypto": ("differential/test_crypto.py", "each test compares it with Djblets"),
}


def test_each_module_has_its_tests() -> None:
    tests = ROOT / "tests"
    own = {name: f"test_{name.rpartition('.')[2]}.py" for name in MODULES}
    without = {name for name, file in own.items() if not (tests / file).exists()}
    assert without == TESTED_IN.keys()
    assert [file for file, _ in TESTED_IN.values() if not (tests / file).exists()] == []


def test_what_only_types_need_is_no_arrow(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text(
        "if TYPE_CHECKING:\n    from fastblets.a import b\nelse:\n    import fastblets.c\n"
        "def f():\n    from fastblets import d, e\nimport os\n"
    )
    assert sorted(imports(file)) == ["c", "d", "e"]


def test_each_module_has_a_place() -> None:
    rooms = places("Python")
    assert {room_of(name, rooms) for name in MODULES} == rooms.keys() - {"_native"}


@pytest.mark.parametrize("name", MODULES)
def test_python_imports_to_the_right(name: str) -> None:
    rooms = places("Python")
    room = room_of(name, rooms)
    for imported in imports(MODULES[name]):
        other = room_of(imported, rooms)
        assert other == room or rooms[other] > rooms[room], f"{name} imports {imported}"


#: The files of the crate by their rooms: `pickle/read.rs` is in `pickle`.
SOURCES = {path: path.relative_to(CRATE).parts[0].removesuffix(".rs") for path in sorted(CRATE.rglob("*.rs"))}


def code(path: Path) -> str:
    """A file of Rust without its comments."""
    return re.sub(r"//.*", "", path.read_text())


def used(path: Path) -> set[str]:
    """The rooms that a file of Rust names, by `crate::room` or `crate::{room::…, other}`."""
    text = code(path)
    found = set(re.findall(r"\bcrate::(\w+)", text))
    for group in re.findall(r"\bcrate::\{((?:[^{}]|\{[^{}]*\})*)\}", text):
        found |= set(re.findall(r"(?:^|,)\s*(\w+)", re.sub(r"\{[^{}]*\}", "", group)))
    return found


def test_rust_has_the_rooms_of_the_page() -> None:
    assert set(SOURCES.values()) - {"lib"} == places("Rust").keys()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(CRATE)))
def test_rust_uses_rooms_to_the_right(path: Path) -> None:
    rooms = places("Rust")
    room = SOURCES[path]
    for other in used(path):
        assert other == room or rooms[other] > rooms[room], f"{path.name} uses {other}"


def test_uses_are_found(tmp_path: Path) -> None:
    file = tmp_path / "lib.rs"
    file.write_text(
        "use crate::{chunk::{cut, Cutter}, error::Result,\n    seal};\nuse crate::zlib::inflate;\n// crate::python\n"
    )
    assert used(file) == {"chunk", "error", "seal", "zlib"}


def test_only_the_python_side_names_pyo3_and_only_python_names_django() -> None:
    assert {room for path, room in SOURCES.items() if re.search(r"\bpyo3\b", code(path))} == {"python"}
    assert not [path for path in SOURCES if re.search(r"\bdjango\b", code(path))]


def test_a_name_has_one_import_path() -> None:
    for path in PACKAGE.rglob("__init__.py"):
        tree = ast.parse(path.read_text())
        assert not [node for node in tree.body if isinstance(node, ast.ImportFrom) and "fastblets" in str(node.module)]


def test_the_map_has_all_rooms() -> None:
    table = PAGE.partition("## The map of the house")[2].partition("The arrows")[0]
    rust, python = (
        {name for row in re.findall(r"^\| (`.+?) \|", part, re.MULTILINE) for name in re.findall(r"`(.+?)`", row)}
        for part in (table.partition("| Python, in")[0], table.partition("| Python, in")[2])
    )
    assert {name.strip("/").removesuffix(".rs") for name in rust} == places("Rust").keys()
    assert python == {str(path.relative_to(PACKAGE)) for name, path in MODULES.items() if name != "__init__"}
