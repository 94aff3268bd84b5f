"""README and docs: every link leads somewhere, every command exists, and README stays short. No network is needed."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.checkout import PACKAGES

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "benchmarks" / "RESULTS.md"])
README = ROOT / "README.md"


def prose(page: Path) -> str:
    """The text without code blocks and inline code."""
    return re.sub(r"`[^`\n]+`", "", re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL))


def links(page: Path) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", prose(page))


def anchors(page: Path) -> set[str]:
    """The anchors of the headings, as GitHub and the site make them."""
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """A page of docs/ links to other pages of docs/ only: the site has no others."""
    broken = []
    for link in links(page):
        if re.match(r"https?://[^/]+", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        is_in_site = page.parent.name != "docs" or target.is_relative_to(ROOT / "docs")
        if not target.exists() or not is_in_site or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_links_of_error_messages_lead_somewhere() -> None:
    """Code, models and the Makefile name a page of docs/ and, after #, one of its headings."""
    broken = []
    files = [ROOT / "Makefile"]
    for folder in (*PACKAGES, "benchmarks", "specification", "tests", "tools"):
        files += [path for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".sql", ".yml")]
    files = [path for path in files if path.is_file() and "target" not in path.parts]  # dbt writes to target
    for file in files:
        for path, anchor in re.findall(r"\b(docs/\w+\.md)(?:#([\w-]+))?", file.read_text()):
            if not (ROOT / path).exists() or (anchor and anchor not in anchors(ROOT / path)):
                broken.append(f"{file.relative_to(ROOT)}: {path}#{anchor}")
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_a_page_names_exist(page: Path) -> None:
    """A path in backticks, other than those of the examples and what is gone."""
    if page.name == "CHANGELOG.md":
        return
    folders = "|".join(folder.name for folder in ROOT.iterdir() if (folder.is_dir() and folder.name[0] != "."))
    named = set(re.findall(rf"`((?:{folders})/[\w./-]+)`", page.read_text()))
    examples = (
        *("streams/signups.yml", "streams/orders.yml"),
        *("agg_brands_daily.sql", "agg_brands_daily.yml", "agg_users_first_purchase.sql"),
    )
    assert [name for name in sorted(named) if not name.endswith(examples) and not (ROOT / name).exists()] == []


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    navigation = str(tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"])
    pages = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert pages - set(re.findall(r"\w+\.md", navigation)) == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_targets_of_make_exist(page: Path) -> None:
    if page.name == "CHANGELOG.md":  # it also names what is gone
        return
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = [
        word
        for command in re.findall(r"(?:^|`)make ([^`\n#]*)", page.read_text(), re.MULTILINE)
        for word in command.split()[:2]
    ]
    assert {word for word in named if re.fullmatch(r"[a-z-]+", word)} - targets == set()


def test_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 150


def test_ci_runs_the_test_command_of_readme() -> None:
    [command] = re.findall(r"^make (test)\b", README.read_text(), re.MULTILINE)
    script = (ROOT / ".ci" / "run").read_text()
    [targets] = re.findall(r"^make (?:--\S+ |2 )*(.+)$", script, re.MULTILINE)
    assert command in targets.split()


def test_pages_name_no_file_that_git_ignores() -> None:
    """A link to a file that is only here would be broken in a clone."""
    linked = {
        str((page.parent / link.partition("#")[0]).resolve())
        for page in PAGES
        for link in links(page)
        if not link.startswith(("http", "#"))
    }
    ignored = subprocess.run(
        ["git", "check-ignore", *sorted(linked)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ignored.stdout == ""
