"""A copy of this project, for tests that change its files or need its `target` for themselves."""

import shutil
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("common", "engines", "ingest", "dbt_project", "publishing", "contracts", "upkeep", "serve", "live")
"""Folders of the product's Python code."""
FOLDERS = (*PACKAGES, "analyses", "snapshots", "streams")
"""All that a build needs."""


def copy_project(folder: Path, names: Iterable[str] = FOLDERS) -> None:
    """Copy folders of the project there, without what dbt and Python wrote."""
    ignored = shutil.ignore_patterns("target", "logs", "__pycache__")
    for name in names:
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
