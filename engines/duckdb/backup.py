"""Writes a warehouse to the files of a backup, and a backup to a new DuckDB file."""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from glob import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import duckdb

from common.errors import UnavailableError, UserError
from common.logs import log
from common.streams import STREAMS
from engines.backup import Column, Manifest, OnTable, Position, Table, checksum, write_manifest
from engines.duckdb.file import WarehouseFile, is_full_disk, literal
from engines.duckdb.mart_tables import current_database, quoted
from engines.duckdb.replacement import replacement

NESTED = ("list", "array", "struct", "map")
KEPT_AS_TEXT = ("hugeint", "uhugeint", "interval", "time with time zone", "union")
"""Types whose values Parquet does not keep exactly: a HUGEINT would become a DOUBLE."""
ROWS_PER_GROUP = 20_480
"""Each thread of DuckDB has a group in memory, and a payload may have many kilobytes."""
WITHOUT_MESSAGES = ("pseudonym_key",)
"""Tables that have rows as soon as they are created."""


@contextmanager
def copied(file: WarehouseFile, memory_limit: str | None) -> Iterator[duckdb.DuckDBPyConnection]:
    """A copy of the warehouse's file, opened for reading, so that others can use the warehouse meanwhile.

    Args:
        memory_limit: of DuckDB, such as 2GiB; None takes its default.

    Raises:
        UserError: as `WarehouseFile`, or when the file cannot be copied.
    """
    copy = file.path.with_name(f"{file.path.name}.backup")
    with duckdb.connect(config={"memory_limit": memory_limit} if memory_limit else {}) as reading:
        with file.connection() as connection:
            connection.execute("checkpoint")  # the write-ahead log is not copied
            try:
                # In another process: closing the file in this one would release DuckDB's lock. `cp` shares blocks
                # where the file system can.
                subprocess.run(["cp", file.path, copy], check=True, capture_output=True, text=True)  # noqa: S603, S607  no shell
                reading.execute(f"attach {literal(copy)} as warehouse (read_only)")
            except subprocess.CalledProcessError as error:
                reason = (error.stderr.strip() or str(error)).splitlines()[-1]
                raise UnavailableError(
                    f"cannot copy the warehouse to read it: {reason}; nothing was written"
                ) from error
            finally:
                copy.unlink(missing_ok=True)  # it stays readable while it is open, and a kill leaves nothing
        reading.execute("use warehouse")
        yield reading


def write_backup(cursor: duckdb.DuckDBPyConnection, folder: Path, on_table: OnTable) -> None:
    """Write every table of the current database, all as one transaction sees them.

    Args:
        cursor: for this alone; other connections may commit meanwhile.
        folder: exists and is empty. After an error it is empty again.

    Raises:
        UserError: when the files cannot be written; UnavailableError while the disk is full.
    """
    memory = f"memory_{uuid4().hex}"
    cursor.execute(f"attach ':memory:' as {memory}")
    try:
        cursor.execute("begin")
        _write(cursor, memory, folder, on_table)
    except BaseException as error:
        for path in folder.glob("*"):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        if isinstance(error, duckdb.FatalException | duckdb.InterruptException):
            raise  # the warehouse, not the backup
        if not isinstance(error, duckdb.Error | OSError):
            raise
        kind = UnavailableError if is_full_disk(error) else UserError
        raise kind(f"cannot write the backup to {folder}: {str(error).splitlines()[0]}") from error
    finally:
        with suppress(duckdb.Error):  # there is no transaction, if DuckDB gave the warehouse up
            cursor.execute("rollback")
            cursor.execute(f"detach {memory}")


def _write(cursor: duckdb.DuckDBPyConnection, memory: str, folder: Path, on_table: OnTable) -> None:
    columns = _columns(cursor)  # the first read fixes what the transaction sees
    created_at = datetime.now(UTC)
    statements = _statements(cursor, memory, folder / "schema")
    tables = []
    for (schema, name), of_table in columns.items():
        tables.append(_write_table(cursor, folder, schema, name, of_table))
        on_table(f"{schema}.{name}")
    positions = []
    if ("raw", "landing_offsets") in columns:
        select = 'select source, topic, topic_id, "partition", next_offset from raw.landing_offsets order by all'
        positions = [Position(*row) for row in cursor.execute(select).fetchall()]
    newest = {
        stream: cursor.execute(f"select max(published_at) from raw.{stream} where source = 'pubsub'").fetchall()[0][0]  # noqa: S608  names of STREAMS
        for stream in STREAMS
        if ("raw", stream) in columns
    }
    manifest = Manifest(
        project_version=version("event-warehouse"),
        duckdb_version=duckdb.__version__,
        created_at=created_at,
        statements=statements,
        tables=tables,
        positions=positions,
        newest_from_pubsub={stream: time.replace(tzinfo=UTC) for stream, time in newest.items() if time},
    )
    write_manifest(folder, manifest)


def _columns(cursor: duckdb.DuckDBPyConnection) -> dict[tuple[str, str], list[Column]]:
    """Schema and name of each table to its columns, in order."""
    found: dict[tuple[str, str], list[Column]] = {}
    for schema, name, column, type_ in cursor.execute(
        """
        select schema_name, table_name, column_name, data_type
        from duckdb_columns()
        semi join duckdb_tables() using (database_oid, table_oid)
        where database_name = current_database()
        order by schema_name, table_name, column_index
        """
    ).fetchall():
        found.setdefault((schema, name), []).append(Column(column, type_))
    return found


def _statements(cursor: duckdb.DuckDBPyConnection, memory: str, folder: Path) -> list[str]:
    """The SQL that creates what is in the catalog. DuckDB writes it when it exports a database: a copy without rows is
    exported."""
    cursor.execute(f"copy from database {quoted(current_database(cursor))} to {memory} (schema)")
    cursor.execute(f"export database {memory} to {literal(folder)} (format parquet)")
    statements = duckdb.extract_statements((folder / "schema.sql").read_text(encoding="utf-8"))
    shutil.rmtree(folder)
    return [statement.query.strip() for statement in statements]


def _write_table(
    cursor: duckdb.DuckDBPyConnection, folder: Path, schema: str, name: str, columns: Sequence[Column]
) -> Table:
    file = ".".join(quote(part, safe="").replace(".", "%2E") for part in (schema, name)) + ".parquet"
    selected = ", ".join(
        f"cast({quoted(one.name)} as varchar) as {quoted(one.name)}" if _is_kept_as_text(one.type) else quoted(one.name)
        for one in columns
    )
    [(rows,)] = cursor.execute(
        f"copy (select {selected} from {quoted(schema)}.{quoted(name)}) to {literal(folder / file)}"  # noqa: S608  quoted names
        f" (format parquet, compression zstd, row_group_size {ROWS_PER_GROUP})"
    ).fetchall()
    return Table(schema, name, columns, rows, file, (folder / file).stat().st_size, checksum(folder / file))


def _is_kept_as_text(type_: str) -> bool:
    """Whether a column of this type, or a part of it, is among KEPT_AS_TEXT."""

    def has_one(found: Any) -> bool:
        parts = [part for _, part in found.children if not isinstance(part, int)] if found.id in NESTED else []
        return found.id in KEPT_AS_TEXT or any(map(has_one, parts))

    return has_one(duckdb.sqltype(type_))


def restore_backup(
    file: WarehouseFile, folder: Path, manifest: Manifest, on_table: OnTable, memory_limit: str | None
) -> None:
    """Replace a missing or empty warehouse by one with the tables of a backup, whose files were verified.

    Raises:
        UserError: when the warehouse has rows, or as `WarehouseFile`. Then it is as before.
    """
    with replacement(file, memory_limit) as (connection, new):
        if holding := _with_rows(connection):
            raise UserError(
                f"the warehouse {file.path} is not empty ({holding} has rows): move the file away, or set another"
                " WAREHOUSE_PATH"
            )
        with connection.cursor() as cursor:
            cursor.execute(f"use {new}")
            _create(cursor, manifest.statements)
            for table in manifest.tables:
                _insert(cursor, folder, table)
                on_table(f"{table.schema}.{table.name}")


def _with_rows(connection: duckdb.DuckDBPyConnection) -> str | None:
    """A table that has rows; None if there is none."""
    for schema, name in _columns(connection):
        exists = f"select exists (from {quoted(schema)}.{quoted(name)})"
        if name not in WITHOUT_MESSAGES and connection.execute(exists).fetchall()[0][0]:
            return f"{schema}.{name}"
    return None


def _create(cursor: duckdb.DuckDBPyConnection, statements: Sequence[str]) -> None:
    """Run the statements. One that needs what another creates, such as a view of a view, runs after it."""
    failed: dict[str, str] = {}
    left = list(statements)
    while left:
        failed = {}
        for statement in left:
            try:
                cursor.execute(statement)
            except duckdb.CatalogException as error:
                failed[statement] = str(error).splitlines()[0]
        if len(failed) == len(left):
            break
        left = list(failed)
    for statement, reason in failed.items():
        if not statement.startswith("CREATE VIEW"):
            raise UserError(f"the backup cannot be restored: {reason}")
        log.warning("a view reads what does not exist: left out", view=statement.split()[2], reason=reason)


def _insert(cursor: duckdb.DuckDBPyConnection, folder: Path, table: Table) -> None:
    values = ", ".join(f"cast({quoted(one.name)} as {one.type})" for one in table.columns)
    [(rows,)] = cursor.execute(
        f"insert into {quoted(table.schema)}.{quoted(table.name)} select {values} from read_parquet(?)",  # noqa: S608  quoted names
        [escape(str(folder / table.file))],
    ).fetchall()
    if rows != table.rows:
        raise UserError(f"{folder / table.file} has {rows} rows instead of {table.rows}: nothing was restored")
