"""What contributors and CI read: every file and command that is named exists."""

import re
from pathlib import Path

import pytest
import yaml

from tools import ROOT

PAGES = ("CONTRIBUTING.md", "SECURITY.md", "AGENTS.md", "docs/deploy.md")
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def named_files(text: str) -> list[str]:
    """Paths in backticks, and targets of links. Of one with a placeholder such as <name>, the folder."""
    found = re.findall(r"`((?:\w[\w.-]*/)+[\w.<>*-]*)`", text)
    found += [one.partition("#")[0] for one in re.findall(r"\]\((?!https?:|#)([^)]+)\)", text)]
    return [re.sub(r"[^/]*[<*].*$", "", one) for one in found]


@pytest.mark.parametrize("page", PAGES)
def test_named_files_exist(page: str) -> None:
    path = ROOT / page
    named = named_files(path.read_text())
    assert [one for one in named if not (ROOT / one).exists() and not (path.parent / one).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_named_targets_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    commands = re.findall(r"`make ([a-z -]+)", text) + re.findall(r"^make ([a-z -]+)", text, re.MULTILINE)
    assert {target for one in commands for target in one.split()} <= TARGETS


def test_contributing_names_files_and_targets() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    assert len(named_files(text)) > 30
    assert len(re.findall("`make ", text)) > 8


def test_pre_commit_runs_the_checks_of_make_lint() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    [of_lint] = re.findall(r"^lint: ([a-z -]+?) ##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert [hook["entry"] for hook in hooks] == [f"make {target}" for target in of_lint.split()]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_only_read_and_pins_its_actions(path: Path) -> None:
    text = path.read_text()
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {"contents": "read"}
    assert all("permissions" not in job for job in workflow["jobs"].values())
    used = re.findall(r"uses: (.+)", text)
    assert used
    for action in used:
        assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v[\d.]+", action)
