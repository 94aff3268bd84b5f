"""Answers queries from a published copy of a DuckDB warehouse."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from common.settings import Settings
from engines.duckdb.open_files import open_for_reading, reader_closed
from engines.query import Query, Value
from engines.reader import QueryFailedError, QueryTooLargeError, took_longer

if TYPE_CHECKING:
    import pyarrow as pa

INTERRUPT_SECONDS = 0.05
"""Time between two attempts to stop a query that takes too long."""


class DuckDBReader:
    """A published copy of a DuckDB warehouse, open for reading; each query has a cursor of its own.

    Args:
        path: the copy.
        settings: the bounds of an answer.
        threads: for one query; all cores unless given.

    Raises:
        duckdb.IOException: when there is no such file.
    """

    def __init__(self, path: Path, settings: Settings, threads: int | None = None) -> None:
        self._settings = settings
        options: dict[str, Any] = {"memory_limit": settings.serve_memory_limit}
        if threads is not None:
            options["threads"] = threads
        self._connection, self._file = open_for_reading(path, options)
        self._connection.execute("set global TimeZone = 'UTC'")  # loads an extension, so it comes first
        self._connection.execute("set enable_external_access = false")
        self._statements: dict[str, duckdb.Statement] = {}
        """Maps the SQL of a published query to the parsed statement: parsing takes a fifth of a small query's time."""

    def describe(self, query: Query) -> list[tuple[str, str]]:
        with self._connection.cursor() as cursor:
            return describe(cursor, query)

    def rows(
        self, query: Query, values: Mapping[str, Value], max_rows: int, timeout_seconds: float
    ) -> list[tuple[Any, ...]]:
        try:
            with self._bounded_cursor(timeout_seconds) as cursor:
                # not sql(), which plans twice
                return cursor.execute(self._statement(query.sql), values).fetchmany(max_rows)
        except duckdb.Error as error:
            raise QueryFailedError(f"{query.name}: {str(error).splitlines()[0]}") from error

    def table(
        self, sql: str, values: Mapping[str, Value] | None = None, timeout_seconds: float | None = None
    ) -> "pa.Table":
        try:
            with self._bounded_cursor(timeout_seconds) as cursor:
                return cursor.sql(sql, params=dict(values or {})).to_arrow_table()
        except duckdb.Error as error:
            raise QueryFailedError(str(error)) from error

    def close(self) -> None:
        self._connection.close()
        reader_closed(self._file)

    def _statement(self, sql: str) -> duckdb.Statement:
        """The parsed statement; executing it copies it, so threads may share it."""
        if sql not in self._statements:
            [self._statements[sql]] = self._connection.extract_statements(sql)
        return self._statements[sql]

    @contextmanager
    def _bounded_cursor(self, timeout_seconds: float | None) -> Iterator[duckdb.DuckDBPyConnection]:
        with self._connection.cursor() as cursor, _interrupted(cursor, timeout_seconds):
            try:
                yield cursor
            except duckdb.OutOfMemoryException as error:
                raise QueryTooLargeError(
                    f"the answer would need more memory than SERVE_MEMORY_LIMIT ({self._settings.serve_memory_limit}):"
                    " ask for less, such as a shorter period"
                ) from error


@contextmanager
def _interrupted(cursor: duckdb.DuckDBPyConnection, timeout_seconds: float | None) -> Iterator[None]:
    """Raise QueryTimeoutError when the body runs longer."""
    if timeout_seconds is None:
        yield
        return

    ended = threading.Event()

    def interrupt() -> None:
        # repeated, since DuckDB forgets an interrupt that comes before the query begins
        with suppress(duckdb.Error):  # the query has just ended
            while not ended.is_set():
                cursor.interrupt()
                ended.wait(INTERRUPT_SECONDS)

    timer = threading.Timer(timeout_seconds, interrupt)
    timer.start()
    try:
        yield
    except duckdb.InterruptException as error:
        raise took_longer(timeout_seconds) from error
    finally:
        timer.cancel()
        ended.set()


def describe(cursor: duckdb.DuckDBPyConnection, query: Query) -> list[tuple[str, str]]:
    """Name and DuckDB's type of each column of the answer; the query is planned, not run.

    Raises:
        QueryFailedError: when it cannot be planned, with the line of SQL that DuckDB quotes.
    """
    try:
        described = cursor.execute(f"describe {query.sql}", query.values({})).fetchall()
    except duckdb.Error as error:
        lines = str(error).strip().splitlines()
        quoted = [line.strip() for line in lines[1:] if line.startswith("LINE ")]
        raise QueryFailedError(" ".join([lines[0], *quoted])) from error
    return [(name, type_.partition("(")[0].lower()) for name, type_, *_ in described]
