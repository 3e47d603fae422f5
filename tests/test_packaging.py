"""The package's metadata: each fact stands once, or agrees with the place where it stands."""

from __future__ import annotations

import re
import shutil
from importlib.metadata import metadata, version

import pytest
from tools import licences
from tools.licences import NOTICES, ROOT
from tools.matrix import DJANGOS

CARGO = (ROOT / "Cargo.toml").read_text()
PROJECT = (ROOT / "pyproject.toml").read_text()


def classified(pattern: str) -> set[str]:
    return {found[1] for text in metadata("fastblets").get_all("Classifier", []) if (found := re.search(pattern, text))}


def test_the_version_stands_in_cargo_toml_and_opens_the_changelog() -> None:
    (stated,) = re.findall(r'^version = "(.+)"$', CARGO, re.MULTILINE)
    assert version("fastblets") == stated
    assert 'dynamic = ["version"]' in PROJECT
    assert not re.search(r"^version\b", PROJECT, re.MULTILINE)
    assert re.findall(r"^## (\S+?),? ", (ROOT / "CHANGELOG.md").read_text() + " ", re.MULTILINE)[0] == stated


def test_the_classifiers_name_what_is_tested() -> None:
    assert classified(r"^Framework :: Django :: (\d+\.\d+)$") == DJANGOS.keys()
    oldest = tuple(int(part) for part in metadata("fastblets")["Requires-Python"].removeprefix(">=").split("."))
    newest = max(last for _, last in DJANGOS.values())
    pythons = {f"3.{minor}" for minor in range(oldest[1], newest[1] + 1)}
    assert classified(r"^Programming Language :: Python :: (\d+\.\d+)$") == pythons


def test_the_licences_are_those_of_what_is_linked_in() -> None:
    assert set(metadata("fastblets").get_all("License-File", [])) == {"LICENSE", NOTICES.name}
    if shutil.which("cargo") is None:
        pytest.skip("Cargo isn't installed")
    assert licences.notices() == NOTICES.read_text(), "make licences"


def test_each_direct_dependency_is_linked_in() -> None:
    if shutil.which("cargo") is None:
        pytest.skip("Cargo isn't installed")
    table = CARGO.partition("\n[dependencies]\n")[2].partition("\n[")[0]
    direct = set(re.findall(r"^([\w-]+) =", table, re.MULTILINE))
    assert direct
    assert direct <= {crate.name for crate in licences.linked()}


def test_workflows_hooks_and_pages_call_targets_that_are_there() -> None:
    rules = re.findall(r"^([\w -]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    targets = {target for rule in rules for target in rule.split()}
    files = [*(ROOT / ".github" / "workflows").glob("*.yml"), ROOT / ".pre-commit-config.yaml"]
    files += [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    called = {name for file in files for name in re.findall(r"(?:`|entry: |run: )make ([\w-]+)", file.read_text())}
    matrix = re.search(r"target: \[(.+)\]", (ROOT / ".github" / "workflows" / "test.yml").read_text())
    assert matrix
    called |= {target.split()[0] for target in matrix[1].split(", ")}
    assert {"lint", "test", "docs", "matrix", "wheels", "lint-rust"} <= called
    assert called - targets == set()
