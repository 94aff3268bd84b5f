"""Answers from a published copy of a DuckDB warehouse."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from common.settings import Settings
from engines.query import Query, Value
from publishing.engines import describe
from publishing.versions import read_queries
from serve.answers import Answer, QueryFailedError, QueryTooLargeError, bind_limit, took_longer

if TYPE_CHECKING:
    import pyarrow as pa

INTERRUPT_SECONDS = 0.05
"""Time between two attempts to stop a query that takes too long."""


class DuckDBPublished:
    """A published copy of a DuckDB warehouse, open for reading; each query has a cursor of its own.

    Args:
        folder: the published version.
        settings: the bounds of an answer, and the name of the file.
        threads: for one query; all cores unless given.
    """

    def __init__(self, folder: Path, settings: Settings, threads: int | None = None) -> None:
        self.folder = folder
        self.version = folder.name
        self.queries, self.left_out = read_queries(folder)
        self._settings = settings
        options: dict[str, Any] = {"memory_limit": settings.serve_memory_limit}
        if threads is not None:
            options["threads"] = threads
        self._connection = duckdb.connect(str(folder / settings.warehouse_path.name), read_only=True, config=options)
        self._connection.execute("set global TimeZone = 'UTC'")  # loads an extension, so it comes first
        self._connection.execute("set enable_external_access = false")

    def ask(self, query: Query, values: Mapping[str, Value], timeout_seconds: float | None = None) -> Answer:
        if timeout_seconds is None:
            timeout_seconds = self._settings.serve_timeout_seconds
        bound, most = bind_limit(values, self._settings.serve_max_rows)
        started = time.perf_counter()
        try:
            with self._bounded_cursor(timeout_seconds) as cursor:
                # not sql(), which plans twice
                rows = cursor.execute(query.sql, bound).fetchmany(most + 1)
        except duckdb.Error as error:
            raise QueryFailedError(f"{query.name}: {str(error).splitlines()[0]}") from error
        return Answer(rows[:most], len(rows) > most, time.perf_counter() - started, self.version)

    def close(self) -> None:
        self._connection.close()

    def query(
        self, sql: str, values: Mapping[str, Value] | None = None, timeout_seconds: float | None = None
    ) -> "pa.Table":
        """The rows of any query, with bound values ($name); nothing can be written.

        Args:
            timeout_seconds: no limit unless given.

        Raises:
            QueryTimeoutError: when it took longer.
            QueryTooLargeError: when it needs more than SERVE_MEMORY_LIMIT.
            duckdb.Error: when DuckDB cannot run it.
        """
        with self._bounded_cursor(timeout_seconds) as cursor:
            return cursor.sql(sql, params=dict(values or {})).to_arrow_table()

    def describe(self, query: Query) -> list[tuple[str, str]]:
        """Name and DuckDB's type of each column of the answer; the query is planned, not run."""
        with self._connection.cursor() as cursor:
            return describe(cursor, query)

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
