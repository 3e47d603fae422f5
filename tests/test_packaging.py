"""The package's metadata: each fact stands once, or agrees with the place where it stands."""

from __future__ import annotations

import re
import shutil
from importlib.metadata import metadata, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from tools import licences, matrix
from tools.licences import NOTICES, ROOT

CARGO = (ROOT / "Cargo.toml").read_text()
PROJECT = (ROOT / "pyproject.toml").read_text()

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PYTHONS = {python.name for python in matrix.supported()}
WITH_GIL = {python.name for python in matrix.supported() if not python.without_gil}


def classified(pattern: str) -> set[str]:
    return {found[1] for text in metadata("fastblets").get_all("Classifier", []) if (found := re.search(pattern, text))}


def test_the_version_stands_in_cargo_toml_and_opens_the_changelog() -> None:
    (stated,) = re.findall(r'^version = "(.+)"$', CARGO, re.MULTILINE)
    assert version("fastblets") == stated
    assert 'dynamic = ["version"]' in PROJECT
    assert not re.search(r"^version\b", PROJECT, re.MULTILINE)
    assert re.findall(r"^## (\S+?),? ", (ROOT / "CHANGELOG.md").read_text() + " ", re.MULTILINE)[0] == stated


def test_the_classifiers_name_what_is_tested() -> None:
    assert classified(r"^Framework :: Django :: (\d+\.\d+)$") == matrix.DJANGOS.keys()
    oldest = tuple(int(part) for part in metadata("fastblets")["Requires-Python"].removeprefix(">=").split("."))
    assert oldest == matrix.OLDEST_PYTHON
    assert classified(r"^Programming Language :: Python :: (\d+\.\d+)$") == WITH_GIL


def test_the_oracle_runs_on_the_django_that_it_asks_for() -> None:
    pytest.importorskip("djblets", reason="Djblets isn't installed")
    asked = [Requirement(text) for text in metadata("djblets").get_all("Requires-Dist", [])]
    (django,) = [requirement.specifier for requirement in asked if requirement.name.lower() == "django"]
    assert [name for name in matrix.DJANGOS if django.contains(f"{name}.99")] == [matrix.DJANGO_OF_DJBLETS]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_names_each_action_by_its_commit(workflow: Path) -> None:
    used = re.findall(r"uses: (.+)", workflow.read_text())
    assert used
    for action in used:
        # With the release that it is, which is what people read.
        assert re.fullmatch(r"[\w/.-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", action)


def test_each_job_of_the_workflows_has_all_pythons() -> None:
    text = "".join(workflow.read_text() for workflow in WORKFLOWS)
    for_make = [block.split() for block in re.findall(r"python-version: \|\n((?: +3\.\d+t?\n)+)", text)]
    on_musl = [found.replace("python", "").split() for found in re.findall(r"--interpreter\n +(python3\..+)", text)]
    elsewhere = [re.findall(r"3\.\d+t?", found) for found in re.findall(r"python: \[(.+)\]", text)]
    assert [len(for_make), len(on_musl), len(elsewhere)] == [2, 1, 1]
    for names in (*for_make, *on_musl, *elsewhere):
        assert sorted(names) == sorted(PYTHONS)
    (in_alpine,) = re.findall(r"for version in (.+); do", text)
    assert sorted(in_alpine.split()) == sorted(WITH_GIL)


def test_what_windows_lacks_is_marked_where_it_is_used() -> None:
    # These two only name it.
    files = {*(ROOT / "tests").glob("test_*.py")} - {Path(__file__), ROOT / "tests" / "test_portability.py"}
    for path in sorted(files):
        text = path.read_text()
        lacking = re.findall(r"\bos\.(?:fork|register_at_fork)\b|\bSIG(?:ALRM|KILL|STOP|CONT|USR1|USR2)\b|/proc/", text)
        lacking += re.findall(r"\b(?:import|from) (?:resource|fcntl|pwd|grp)\b|\bAF_UNIX\b", text)
        assert not lacking or "pytest.mark.linux(" in text, (path.name, lacking)


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
    files = [*WORKFLOWS, ROOT / ".pre-commit-config.yaml"]
    files += [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    called = {name for file in files for name in re.findall(r"(?:`|entry: |run: )make ([\w-]+)", file.read_text())}
    matrix = re.search(r"target: \[(.+)\]", (ROOT / ".github" / "workflows" / "test.yml").read_text())
    assert matrix
    called |= {target.split()[0] for target in matrix[1].split(", ")}
    assert {"lint", "test", "docs", "matrix", "wheels", "lint-rust"} <= called
    assert called - targets == set()
