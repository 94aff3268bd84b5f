"""Replaces the file of a warehouse by a new one in one step, while no other process can open it."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import duckdb

from common.errors import UserError
from engines.duckdb.file import STORAGE_VERSION, WarehouseFile, literal

HANDOVER_SECONDS = 0.5
"""How long the old file stays locked: a process may have opened it just before it was replaced, and must not get its
lock and write to it."""


@contextmanager
def replacement(file: WarehouseFile, memory_limit: str | None) -> Iterator[tuple[duckdb.DuckDBPyConnection, str]]:
    """A new empty file, which replaces that of the warehouse when the context ends without an error.

    Args:
        memory_limit: of DuckDB, such as 2GiB; None leaves it its default.

    Yields:
        A connection to the warehouse, and the name under which the new file is attached to it.

    Raises:
        UserError: as `WarehouseFile`. Then the warehouse is as before.
    """
    is_missing = not file.path.exists()
    if file.is_kept_open:
        raise UserError(f"the warehouse {file.path} is in use by this process")
    with file.connection() as connection:
        if memory_limit:
            connection.execute("set memory_limit = $limit", {"limit": memory_limit})
        connection.execute("checkpoint")  # a write-ahead log that is left would be replayed on the new file
        new = file.path.with_name(f"{file.path.name}.new")
        _remove(new)  # of a killed process
        alias = f"new_{uuid4().hex}"
        connection.execute(f"attach {literal(new)} as {alias} (storage_version '{_storage_version(connection)}')")
        try:
            yield connection, alias
            connection.execute(f"checkpoint {alias}")
            connection.execute(f"detach {alias}")
            new.replace(file.path)
        except BaseException:
            with suppress(duckdb.Error):
                connection.execute(f"detach {alias}")
            _remove(new)
            if is_missing:
                _remove(file.path)
            raise
        time.sleep(HANDOVER_SECONDS)


def _storage_version(connection: duckdb.DuckDBPyConnection) -> str:
    """That of the warehouse's file, such as v1.2.0."""
    [(tag,)] = connection.execute(
        "select tags['storage_version'] from duckdb_databases() where database_name = current_database()"
    ).fetchall()
    found = re.match(r"v[\d.]+", tag or "")
    return found[0] if found else STORAGE_VERSION


def _remove(path: Path) -> None:
    for ending in ("", ".wal"):
        path.with_name(f"{path.name}{ending}").unlink(missing_ok=True)
