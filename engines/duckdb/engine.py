"""The engine of WAREHOUSE=duckdb."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb

from common.errors import UserError
from common.settings import Settings
from engines.backup import Manifest, OnTable
from engines.duckdb.arrivals import read_arrivals, save_freshness
from engines.duckdb.backup import copied, restore_backup, write_backup
from engines.duckdb.compaction import advice, compact
from engines.duckdb.file import published_folder
from engines.duckdb.marts import DuckDBMarts
from engines.duckdb.reader import DuckDBReader
from engines.duckdb.sink import DuckDBSink
from engines.warehouse import Arrivals, FreshnessRow


class DuckDBEngine:
    """One DuckDB file, of whose marts each published version has a copy: see `Engine`."""

    is_copied = True
    is_billed = False
    accepts_pushes = True
    load_seconds: float | None = None
    schema_prefix = ""
    concurrent_queries: int | None = os.cpu_count()

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._path = settings.warehouse_path
        self.published_folder = published_folder(self._path)
        self._sink = DuckDBSink(self._path, settings.lock_timeout_seconds, pseudonym_key=settings.pseudonym_key)

    def warehouse(self, *, follow: bool = False) -> DuckDBSink:
        return self._sink

    def kept_open(self) -> AbstractContextManager[None]:
        return self._sink.kept_open()

    def check_open(self) -> None:
        with self._sink.connection() as connection:
            connection.execute("select 1")

    def arrivals(self, after: Mapping[str, datetime], upto: Mapping[str, datetime]) -> Mapping[str, Arrivals]:
        with self._sink.connection() as connection:
            return read_arrivals(connection, after, upto)

    def save_freshness(self, rows: Sequence[FreshnessRow]) -> None:
        with self._sink.connection() as connection:
            save_freshness(connection, rows)

    @contextmanager
    def building(self) -> Iterator[None]:
        if not self._path.exists():
            raise UserError(f"there is no warehouse at {self._path} yet: run `make ingest` first")
        # Waits for a loader that is committing, and reports one that holds the file for long. The file is held until
        # dbt has opened it, since dbt does not wait and pushes commit all the time.
        with self._sink.session():
            self._sink.create_tables()
            yield

    def preview(self, sql: str, max_rows: int) -> tuple[list[str], list[tuple[Any, ...]]]:
        with self._sink.connection() as connection, connection.cursor() as cursor, suppress(duckdb.Error):
            found = cursor.execute(sql)
            return [column[0] for column in found.description], found.fetchmany(max_rows)
        return [], []

    def state(self) -> tuple[int, ...] | None:
        """Size and time of the last change (ns) of the file; None while a commit is not in it yet, or without one.

        None too while the file is kept open: landing may have written to it since a build read it.
        """
        if self._sink.is_kept_open or self._path.with_name(f"{self._path.name}.wal").exists():
            return None
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            return None
        return stat.st_size, stat.st_mtime_ns

    def expect_small_statements(self) -> None:
        # Each statement runs on its caller's thread and on those of DuckDB, which all statements share. With one of
        # DuckDB's threads per core, small statements wait for it: on two cores a build took 1.4 times as long.
        with self._sink.connection() as connection:
            connection.execute(f"set threads = {max(1, len(os.sched_getaffinity(0)) - 1)}")
            # A checkpoint holds up all commits for half a second or more: write one in a minute, not every few seconds.
            connection.execute("set checkpoint_threshold = '64MiB'")

    def memory(self) -> Mapping[str, int]:
        with self._sink.connection() as connection:
            return dict(connection.execute("select lower(tag), memory_usage_bytes from duckdb_memory()").fetchall())

    def checkpoint(self) -> None:
        with self._sink.connection() as connection:
            connection.execute("checkpoint")

    @contextmanager
    def pin(self) -> Iterator[DuckDBMarts]:
        with self._sink.connection() as connection, connection.cursor() as cursor:
            yield DuckDBMarts(cursor, self._path.name)

    def write_backup(self, folder: Path, on_table: OnTable) -> None:
        file = self._sink.file
        if not self._path.exists():
            raise UserError(f"there is no warehouse at {self._path} yet: nothing to back up")
        with file.translate_errors(), ExitStack() as opened:
            if file.is_kept_open:
                cursor = opened.enter_context(file.connection())
            else:
                cursor = opened.enter_context(copied(file, self._settings.warehouse_memory_limit))
            write_backup(cursor, folder, on_table)

    def restore(self, folder: Path, manifest: Manifest, on_table: OnTable) -> None:
        restore_backup(self._sink.file, folder, manifest, on_table, self._settings.warehouse_memory_limit)

    def compact(self) -> tuple[int, int]:
        return compact(self._sink.file, self._settings.warehouse_memory_limit)

    def compaction_advice(self) -> str | None:
        return advice(self._sink.file)

    def open_reader(self, folder: Path, threads: int | None = None) -> DuckDBReader:
        try:
            return DuckDBReader(folder / self._path.name, self._settings, threads)
        except duckdb.IOException as error:
            raise OSError(str(error)) from error
