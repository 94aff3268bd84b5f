"""Records what the last successful build was made from, so that a build without changes does nothing.

The warehouse is compared as a file, so that every change counts: by landing, by a build that failed, was killed or had
other options, or by hand. The code is everything else that a build reads.
"""

import hashlib
import os
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from pydantic import BaseModel, ValidationError

from common.settings import Settings
from engines.engine import Engine
from publishing.dbt_options import target
from publishing.versions import CURRENT, published_folder

ROOT = Path(__file__).parents[1]
FOLDERS = ("common", "dbt_project", "snapshots", "analyses", "publishing", "engines")
WRITTEN_BY_DBT = ("target", "logs", "__pycache__")
PACKAGES = ("dbt-core", "dbt-adapters", "dbt-duckdb", "duckdb")


class LastBuild(BaseModel, frozen=True):
    code: str
    version: str
    """Name of the published version."""
    warehouse: tuple[int, ...]
    """`Engine.state` of the warehouse when that version was published."""
    marts: list[str]
    manifest: tuple[str, int, int] | None = None
    """`manifest_state` after that build."""
    retention: tuple[str, int | None, int | None] | None = None
    """`retention_now` at that build."""


def manifest_file() -> Path:
    """The file in which dbt keeps the parsed project for its next run."""
    return target() / "partial_parse.msgpack"


def manifest_state() -> tuple[str, int, int] | None:
    """Path, size and time of the last change (ns) of that file: builds of several warehouses may share it."""
    try:
        stat = manifest_file().stat()
    except OSError:
        return None
    return str(manifest_file()), stat.st_size, stat.st_mtime_ns


def read_last_build(settings: Settings) -> LastBuild | None:
    """Read the record of the last build; None without one."""
    try:
        return LastBuild.model_validate_json(_file(settings).read_bytes())
    except (OSError, ValidationError):
        return None


def write_last_build(settings: Settings, last: LastBuild) -> None:
    """Write the record in one step, so that a reader never finds half of it."""
    new = _file(settings).with_suffix(".new")
    new.write_text(last.model_dump_json())
    new.replace(_file(settings))


def is_built(settings: Settings, engine: Engine, last: LastBuild) -> bool:
    """Whether the warehouse is as the last build left it, and what that build published is still there."""
    is_published = (published_folder(settings) / CURRENT).exists()
    return is_published and last.warehouse == engine.state()


def retention_now(settings: Settings) -> tuple[str, int | None, int | None]:
    """The UTC date, and the days for which messages are kept."""
    today = datetime.now(UTC).date().isoformat()
    return today, settings.retention_raw_days, settings.retention_dead_letter_days


def is_removal_due(settings: Settings, last: LastBuild) -> bool:
    """Whether messages may have become old enough since the last build, which then has to run even if none are new."""
    now = retention_now(settings)
    return any(days is not None for days in now[1:]) and last.retention != now


def code_now(arguments: list[str]) -> str:
    """A hash of the project's files, the arguments, dbt's environment variables and the versions of what runs it."""
    found = hashlib.sha256(repr(arguments).encode())
    environment = sorted((name, value) for name, value in os.environ.items() if name.startswith("DBT_"))
    found.update(repr((environment, [version(package) for package in PACKAGES])).encode())
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and not set(path.relative_to(ROOT).parts) & set(WRITTEN_BY_DBT):
                found.update(f"{path.relative_to(ROOT)}\0{path.stat().st_size}\0".encode())
                found.update(path.read_bytes())
    return found.hexdigest()


def _file(settings: Settings) -> Path:
    return published_folder(settings) / "last_build.json"
