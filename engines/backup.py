"""A backup of a warehouse: a folder with one Parquet file per table, and manifest.json, which describes them."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import orjson
from pydantic import TypeAdapter, ValidationError

from common.errors import UserError

MANIFEST = "manifest.json"
"""Written last: a folder without it is not a complete backup."""
FORMAT = 1
"""Version of the format. A release restores backups of its own format only."""

OnTable = Callable[[str], None]
"""Called with the name of a table, such as raw.users, when it is done. An exception that it raises ends the work."""


@dataclass(frozen=True)
class Column:
    name: str
    type: str
    """As DuckDB writes it, such as DECIMAL(18,4)."""


@dataclass(frozen=True)
class Table:
    schema: str
    name: str
    columns: Sequence[Column]
    rows: int
    file: str
    """Path of its Parquet file in the folder."""
    bytes: int
    """Size of the file."""
    sha256: str
    """Of the file, in hexadecimal."""


@dataclass(frozen=True)
class Position:
    """The next offset to land of a partition. For Pub/Sub, the number of messages that were landed from a topic."""

    source: str
    topic: str
    topic_id: str
    partition: int
    next_offset: int


@dataclass(frozen=True)
class Manifest:
    project_version: str
    duckdb_version: str
    created_at: datetime
    """UTC."""
    statements: Sequence[str]
    """SQL that creates schemas, tables, views and whatever else DuckDB's catalog has, without rows."""
    tables: Sequence[Table]
    positions: Sequence[Position]
    newest_from_pubsub: Mapping[str, datetime]
    """Stream to the latest publication time of its messages from Pub/Sub, UTC."""
    format: int = FORMAT


_MANIFEST = TypeAdapter(Manifest)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write manifest.json, which makes the backup complete."""
    (folder / MANIFEST).write_bytes(_MANIFEST.dump_json(manifest, indent=1))


def read_manifest(folder: Path) -> Manifest:
    """Read manifest.json.

    Raises:
        UserError: when there is none, it is damaged, or of another format.
    """
    path = folder / MANIFEST
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{folder} is not a complete backup: it has no {MANIFEST}") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    try:
        found = orjson.loads(text)
        format_, release = found["format"], found["project_version"]
        if format_ != FORMAT:
            raise UserError(
                f"{folder} has the format {format_} of release {release}, and this release restores format {FORMAT}:"
                " restore it with that release"
            )
        return _MANIFEST.validate_json(text)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValidationError) as error:
        raise UserError(f"{path} is damaged: nothing was restored") from error


def verify(folder: Path, manifest: Manifest, on_table: OnTable) -> None:
    """Compare each file with its size and checksum.

    Raises:
        UserError: naming the first file that is missing or differs.
    """
    for table in manifest.tables:
        path = folder / table.file
        try:
            is_intact = path.stat().st_size == table.bytes and checksum(path) == table.sha256
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}; nothing was restored") from error
        if not is_intact:
            raise UserError(f"{path} is damaged: its size or SHA-256 is not that of {MANIFEST}; nothing was restored")
        on_table(f"{table.schema}.{table.name}")


def checksum(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
