"""Where the generated files are, and how they are marked."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).parents[1]
WRITTEN_BY = "Written by `python -m dbt_project.contracts` from streams/*.yml: change those."
SOURCES = Path("models/staging/_raw__sources.yml")
MACROS = Path("macros/contracts.sql")
FOLDERS = [Path(f"models/{layer}/contracts") for layer in ("staging", "intermediate", "analytics")]
STAGING, INTERMEDIATE, ANALYTICS = FOLDERS
SNAPSHOTS = Path("../snapshots/_snapshots.yml")


def yaml_text(content: dict[str, Sequence[Any]]) -> str:
    """A yml file of dbt."""
    text: str = yaml.safe_dump({"version": 2, **content}, sort_keys=False, allow_unicode=True, width=1000)
    return f"# {WRITTEN_BY}\n{text}"
