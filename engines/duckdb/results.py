"""Results for `emit`: reads fct_page_views from a cursor on, and keeps the cursor of each topic."""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from tempfile import TemporaryFile, gettempdir
from typing import IO, Any

import duckdb
import pyarrow.parquet as pq

from common.errors import UserError
from engines.duckdb.file import WarehouseFile
from engines.duckdb.tables import table_names
from engines.warehouse import FIRST_CURSOR, Cursor, Result

EMIT_WATERMARKS = """
create table if not exists raw.emit_watermarks (
    topic varchar primary key,
    session_landed_at timestamp not null,
    session_id varchar not null,
    sequence_number bigint not null
)
"""

# The second condition implies the first, which skips row groups.
RESULTS_AFTER = """
from analytics.fct_page_views
where time_on_page_seconds is not null
    and session_landed_at >= $session_landed_at
    and (session_landed_at, session_id, sequence_number) > ($session_landed_at, $session_id, $sequence_number)
"""

RESULTS = f"""
select
    session_landed_at, session_id, sequence_number, source_session_id, page_title, event_at, time_on_page_seconds,
    session_started_at, case when window_end_at < timestamp '10000-01-01' then window_end_at end as window_end_at
{RESULTS_AFTER}
order by session_landed_at, session_id, sequence_number
"""

RESULT_ROWS = 50_000
"""Results in memory at a time while they are written to a temporary file."""


def write_rows(
    connection: duckdb.DuckDBPyConnection, query: str, parameters: Mapping[str, Any], rows_in_memory: int
) -> IO[bytes]:
    """Write the rows of a query to a Parquet file, so that the warehouse is free while they are read.

    The file has no name, so a killed process leaves nothing. The caller closes it.

    Raises:
        UserError: when a temporary file cannot be written.
    """
    file = TemporaryFile()  # noqa: SIM115  the caller closes it
    try:
        rows = connection.sql(query, params=dict(parameters)).to_arrow_reader(rows_in_memory)
        with pq.ParquetWriter(file, rows.schema) as writer:
            for batch in rows:
                writer.write_batch(batch)
        file.seek(0)
    except OSError as error:
        with suppress(OSError):  # closing writes what is left in the buffer
            file.close()
        reason = os.strerror(error.errno or 0)
        raise UserError(f"cannot write a temporary file in {gettempdir()}: {reason}; see TMPDIR") from error
    return file


class DuckDBResults:
    """The results of one file: the part of DuckDBSink that is a ResultSource."""

    def __init__(self, file: WarehouseFile) -> None:
        self._file = file

    @contextmanager
    def emitting(self) -> Iterator[None]:
        with self._mart():
            pass
        # A separate file: POSIX drops DuckDB's locks on the database when this process closes any other handle of it.
        path = self._file.path.with_name(f"{self._file.path.name}.emit")
        try:
            lock = path.open("ab")
        except OSError as error:
            raise UserError(f"cannot open {path}: {error.strerror}; see WAREHOUSE_PATH") from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(
                    f"another `ingest emit` is running on the warehouse {self._file.path}: let it finish, then run"
                    " this again"
                ) from error
            yield

    def emit_cursor(self, topic: str) -> Cursor:
        if not self._file.path.exists():
            return FIRST_CURSOR
        with self._file.connection(read_only=True) as connection:
            if ("raw", "emit_watermarks") not in table_names(connection):
                return FIRST_CURSOR
            saved = connection.execute(
                f"select {', '.join(Cursor._fields)} from raw.emit_watermarks where topic = ?",  # noqa: S608  names of ours
                [topic],
            ).fetchone()
        return Cursor(*saved) if saved else FIRST_CURSOR

    def save_emit_cursor(self, topic: str, cursor: Cursor) -> None:
        with self._file.connection() as connection:
            connection.execute("create schema if not exists raw")
            connection.execute(EMIT_WATERMARKS)
            connection.execute("insert or replace into raw.emit_watermarks values (?, ?, ?, ?)", [topic, *cursor])

    def count_results(self, after: Cursor) -> int:
        with self._mart() as connection:
            count: int = connection.execute(f"select count(*) {RESULTS_AFTER}", after._asdict()).fetchall()[0][0]
        return count

    def results(self, after: Cursor, chunk_rows: int) -> Iterator[list[Result]]:
        with self._write_results(after) as results:
            for batch in pq.ParquetFile(results).iter_batches(chunk_rows):
                yield [Result(*row) for row in zip(*(column.to_pylist() for column in batch.columns), strict=True)]

    def _write_results(self, after: Cursor) -> IO[bytes]:
        """Sort the results once: a query per chunk would read and sort the rest each time."""
        with self._mart() as connection:
            return write_rows(connection, RESULTS, after._asdict(), RESULT_ROWS)

    @contextmanager
    def _mart(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection to a warehouse that has fct_page_views."""
        if self._file.path.exists():
            with self._file.connection(read_only=True) as connection:
                if ("analytics", "fct_page_views") in table_names(connection):
                    yield connection
                    return
        raise UserError(f"the warehouse {self._file.path} has no fct_page_views yet: run `make build` first")
