"""The DuckDB file of a warehouse: opens it only while it is used, waits for its lock, and reports DuckDB's errors."""

import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import duckdb

from common.errors import FULL_DISK, UnavailableError, UserError, WarehouseHeldError, WarehouseReopenError
from common.live_status import read_live_status

RETRY_SECONDS = 0.1
STORAGE_VERSION = "v1.2.0"
"""Format of a new file: the oldest that can compress by ZSTD, so that DuckDB 1.2 and later read it. An existing file
keeps its own."""
NOT_DUCKDB = "it is not a valid DuckDB database file"


def published_folder(path: Path) -> Path:
    """The directory in which builds of this warehouse publish."""
    return path.with_name(f"{path.name}.published")


class WarehouseFile:
    """One DuckDB file. DuckDB lets one process write, so this one waits, with a bound, while another holds the file.

    Args:
        path: the file, created when it is first opened for writing.
        lock_timeout_seconds: how long to wait for a held file.

    Raises:
        WarehouseHeldError: when the file stays held; names the holder's process id.
        UnavailableError: when the disk is full.
        UserError: when the file cannot be opened, is not a DuckDB file, or is damaged.
    """

    def __init__(self, path: Path, lock_timeout_seconds: float) -> None:
        self.path = path
        self._lock_timeout_seconds = lock_timeout_seconds
        self.session_connection: duckdb.DuckDBPyConnection | None = None
        """The open connection, within `session`."""
        self._kept_open: duckdb.DuckDBPyConnection | None = None
        self.has_zstd = True
        """Whether the file that was opened last can compress by ZSTD: those of DuckDB 1.1 and older cannot."""
        self.in_use = threading.Lock()
        """Held while the file is open. DuckDB refuses to open a file for reading that the same process has open for
        writing, and the thread that fetches reads positions while another commits."""

    @property
    def is_kept_open(self) -> bool:
        """Whether this process has the file for itself, within `kept_open`."""
        return self._kept_open is not None

    @contextmanager
    def kept_open(self) -> Iterator[None]:
        """Keep the file open, so that all threads of this process use it at the same time, and no other process can.

        Each `connection` is then a cursor of its own, with its own transaction. dbt shares the file too when it runs in
        this process.

        Raises:
            UserError: as the class says.
        """
        with self.translate_errors(), closing(self.open(False, self._lock_timeout_seconds)) as connection:
            self._kept_open = connection
            try:
                yield
            finally:
                self._kept_open = None

    @contextmanager
    def session(self) -> Iterator[None]:
        """Keep the file open over several commits: opening and closing it takes longer than a small commit."""
        if self._kept_open is not None:
            yield
            return
        with self.connection() as connection:
            self.session_connection = connection
            try:
                yield
            finally:
                self.session_connection = None

    @contextmanager
    def connection(self, read_only: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        """The open file; an uncommitted transaction is rolled back when the context ends.

        Raises:
            UserError: as the class says, wherever it happens in the context.
            KeyboardInterrupt: when Ctrl-C interrupts a statement.
        """
        with self.translate_errors(), self.untranslated_connection(read_only) as connection:
            yield connection

    @contextmanager
    def untranslated_connection(self, read_only: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        """As `connection`, but raises DuckDB's own errors."""
        if self._kept_open is not None:
            with self._kept_open.cursor() as cursor:
                yield cursor
            return
        if self.session_connection is not None:
            yield self.session_connection
            return
        with self.in_use, closing(self.open(read_only, self._lock_timeout_seconds)) as connection:
            yield connection

    def open(self, read_only: bool, timeout_seconds: float) -> duckdb.DuckDBPyConnection:
        """Open the file, for a caller that has `in_use`."""
        # Without tenacity: its form of this loop is no shorter, and the last error names the process with the lock.
        deadline = time.monotonic() + timeout_seconds
        while True:
            try:
                if not read_only:
                    self._create()
                return self._checked(duckdb.connect(str(self.path.absolute()), read_only=read_only))
            except duckdb.Error as error:
                if "Could not set lock" not in str(error):
                    raise self._error("cannot open", error) from error
                holder = re.search(r"PID (\d+)", str(error))
                live = read_live_status(published_folder(self.path)) if holder else None
                if live and holder and live.pid == int(holder[1]):
                    raise UserError(
                        f"`live` (PID {live.pid}) has the warehouse {self.path} open, and itself lands and builds every"
                        f" stream: see {live.dashboard}, or stop it to run this"
                    ) from error
                if time.monotonic() >= deadline:
                    raise WarehouseHeldError(
                        f"the warehouse {self.path} has been held by another process"
                        f"{f' (PID {holder[1]})' if holder else ''} for {timeout_seconds:g} s:"
                        " let it finish or end it, then run this again; nothing is lost"
                    ) from error
            time.sleep(RETRY_SECONDS)

    def state(self) -> tuple[int, ...] | None:
        """A value that changes when the file is written or replaced; None if there is no file."""
        try:
            stat = self.path.stat()
        except OSError:
            return None
        return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns

    @contextmanager
    def translate_errors(self) -> Iterator[None]:
        """Raises DuckDB's errors as UserError, UnavailableError or KeyboardInterrupt."""
        try:
            yield
        except duckdb.FatalException as error:
            translated = self._error("cannot read or write", error)
            raise (WarehouseReopenError(str(translated)) if self.is_kept_open else translated) from error
        except (duckdb.OperationalError, duckdb.InternalError) as error:
            translated = self._error("cannot read or write", error)
            if isinstance(error, duckdb.OutOfMemoryException) and self.is_kept_open:
                translated = UnavailableError(str(translated))  # until a build in this process has ended
            raise translated from error
        except duckdb.InterruptException as error:
            raise KeyboardInterrupt from error
        except duckdb.Error as error:
            if type(error) is not duckdb.Error:  # DuckDB raises the base class for a damaged block
                raise
            raise self._error("cannot read or write", error) from error
        except RuntimeError as error:
            if str(error) != "Query interrupted":
                raise
            raise KeyboardInterrupt from error

    def _create(self) -> None:
        if self.path.exists():
            return
        with closing(duckdb.connect()) as connection:
            connection.execute(f"attach {literal(self.path)} as warehouse (storage_version '{STORAGE_VERSION}')")

    def _checked(self, connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
        """Check that the connection is to a DuckDB file: DuckDB opens a CSV as views of a database in memory.

        (Reading the file's header instead would drop DuckDB's lock, if this process has the file open.)
        """
        [(path, type_, version)] = connection.execute(
            """
            select path, type, tags['storage_version'] from duckdb_databases()
            where database_name = current_database()
            """
        ).fetchall()
        if path is None or type_ != "duckdb":
            connection.close()
            raise duckdb.IOException(NOT_DUCKDB)
        self.has_zstd = tuple(map(int, re.findall(r"\d+", version))) >= (1, 2)
        return connection

    def _error(self, failed: str, error: Exception) -> UserError:
        # DuckDB says this of a CSV that is opened for reading.
        reason = NOT_DUCKDB if "in-memory database in read-only" in str(error) else str(error).splitlines()[0]
        reason = f"{failed} the warehouse {self.path}: {reason}"
        if is_full_disk(error):
            return UnavailableError(f"{reason}; free some space: nothing is lost")
        if "Corrupt" in reason:
            return UserError(f"{reason}; the file is damaged: restore a copy of it")
        return UserError(f"{reason}; see WAREHOUSE_PATH" if failed == "cannot open" else reason)


def literal(path: Path) -> str:
    """The absolute path as a string of SQL."""
    escaped = str(path.absolute()).replace("'", "''")
    return f"'{escaped}'"


def is_full_disk(error: Exception) -> bool:
    return any(os.strerror(number) in str(error) for number in FULL_DISK)
