"""The package's metadata: each fact stands once, or agrees with the place where it stands."""

from __future__ import annotations

import re
import shutil
from importlib.metadata import metadata, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import fastblets
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
    assert version("fastblets") == fastblets.__version__ == stated
    with pytest.raises(AttributeError, match="no attribute '__versions__'"):
        fastblets.__versions__  # type: ignore[attr-defined]  # noqa: B018
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
    files = {*(ROOT / "tests").rglob("test_*.py")} - {Path(__file__), ROOT / "tests" / "test_portability.py"}
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


MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = {target for rule in re.findall(r"^([a-z][a-z -]*):(?!=)", MAKEFILE, re.MULTILINE) for target in rule.split()}
CI = set(re.findall(r"^make ([a-z-]+)", (ROOT / ".ci" / "run").read_text(), re.MULTILINE))
TEST_WORKFLOW = (ROOT / ".github" / "workflows" / "test.yml").read_text()


def workflow_targets() -> set[str]:
    """What the test workflow makes, in a job for each."""
    (listed,) = re.findall(r"target: \[(.+)\]", TEST_WORKFLOW)
    return {target.split()[0] for target in listed.split(", ")} | called(TEST_WORKFLOW)


def recipe(target: str) -> str:
    """The commands of a target."""
    (found,) = re.findall(rf"^{target}:.*\n((?:\t.+\n)+)", MAKEFILE, re.MULTILINE)
    return found


def called(text: str) -> set[str]:
    """The targets that a page, a workflow or a hook makes."""
    lines = re.findall(r"(?:`|entry: |run: )make ((?:[a-z-]+ ?)+)", text)
    return {target for line in lines for target in line.split()}


def test_workflows_hooks_and_pages_call_targets_that_are_there() -> None:
    files = [*WORKFLOWS, ROOT / ".pre-commit-config.yaml", *(ROOT / "docs").glob("*.md")]
    files += [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
    names = CI | workflow_targets()
    names |= {name for file in files for name in called(file.read_text())}
    assert {"lint", "test", "test-all", "docs", "matrix", "wheels", "lint-rust"} <= names
    assert names - TARGETS == set()


def test_ci_runs_what_people_run() -> None:
    # Every pair instead of the two at the corners.
    assert {"matrix" if name == "matrix-short" else name for name in CI} <= workflow_targets()
    assert {"lint", "test-all"} <= CI
    named = (ROOT / "README.md").read_text()
    assert "make test-all" in named
    assert "make lint" in named
    # All of what `make test` runs, and more: the same commands, but for what they leave out.
    everyday, all_tests = (recipe(target) for target in ("test", "test-all"))
    for left_out in (' -m "not slow"', "FASTBLETS_BACKENDS=locmem "):
        everyday = everyday.replace(left_out, "")
    everyday = everyday.replace("EVERYDAY_WAYS", "BOTH_WAYS")
    assert all_tests == everyday
    assert re.search(r"^EVERYDAY_WAYS := \$\(filter .*,\$\(BOTH_WAYS\)\)$", MAKEFILE, re.MULTILINE)


def test_help_lists_the_targets_that_people_are_told_of() -> None:
    listed = set(re.findall(r"^([\w-]+):.* ## ", MAKEFILE, re.MULTILINE))
    told = called((ROOT / "README.md").read_text() + (ROOT / "CONTRIBUTING.md").read_text())
    assert (told | CI) - listed == {"help"}
    # But for parts of others, and what others need.
    assert TARGETS - listed == {"help", "lint-rust", "lint-python"}
