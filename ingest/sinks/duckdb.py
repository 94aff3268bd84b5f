"""Lands batches in a DuckDB file, which it holds only while it reads or commits."""

import errno
import fcntl
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from typing import IO

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import SecretStr

from ingest.errors import UnavailableError, UserError, WarehouseHeldError, WarehouseReplacedError
from ingest.message import DECODED_SCHEMA, Batch, Positions, TopicIds
from ingest.sinks import (
    FIRST_CURSOR,
    Cursor,
    PartitionKey,
    Result,
    StreamStatus,
    UnlistedField,
    positions_of,
    split_by_topic_id,
    topic_ids_of,
    utc_now,
)
from ingest.sinks.pseudonyms import pads
from ingest.streams import STREAMS

RETRY_SECONDS = 0.1
STORAGE_VERSION = "v1.2.0"
"""Format of a new file: the oldest that can compress by ZSTD, so that DuckDB 1.2 and later read it. An existing file
keeps its own."""
NOT_DUCKDB = "it is not a valid DuckDB database file"
FULL_DISK = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))

RAW_TABLE = """
create table if not exists raw.{stream} (
    stream varchar not null,
    source varchar not null,
    topic varchar not null,
    "partition" integer,
    "offset" bigint,
    message_id varchar not null,
    key blob,
    attributes varchar,
    published_at timestamp,
    landed_at timestamp not null,
    payload blob{compression}{decoded}
)
"""
DECODED_TYPES = {pa.int64(): "bigint", pa.binary(): "blob", pa.string(): "varchar"}
ZSTD = " using compression zstd"
"""Half the size of what DuckDB would choose, for less work. Files of DuckDB 1.1 and older do not have it."""

PSEUDONYM_KEY = "create table if not exists raw.pseudonym_key (inner_pad blob not null, outer_pad blob not null)"

# Of Pub/Sub, which has no offsets, next_offset counts the messages that were landed from a topic.
LANDING_OFFSETS = """
create table if not exists raw.landing_offsets (
    source varchar, topic varchar, topic_id varchar, "partition" integer, next_offset bigint not null,
    primary key (source, topic, topic_id, "partition")
)
"""

# A Pub/Sub message has no offset; one that is redelivered within a commit is landed once.
LAND = """
insert into raw.{stream} by name
with known as (
    -- as in `positions`
    select distinct on (source, topic, "partition") source, topic, "partition", next_offset
    from raw.landing_offsets
    where topic_id = ifnull(cast($topic_ids as map(varchar, varchar))[topic], '')
        or (topic_id = '' and source != 'spool')
    order by source, topic, "partition", topic_id desc
),

fresh as (
    select batch.*
    from batch
    left join known using (source, topic, "partition")
    where batch."offset" >= coalesce(next_offset, 0)

    union all

    select distinct on (message_id) * from batch where "offset" is null
)

select '{stream}' as stream, *, cast($landed_at as timestamp) as landed_at from fresh
"""

EMIT_WATERMARKS = """
create table if not exists raw.emit_watermarks (
    topic varchar primary key,
    session_landed_at timestamp not null,
    session_id varchar not null,
    sequence_number bigint not null
)
"""

# The first bound is implied by the second; it is the one that skips row groups.
RESULTS_AFTER = """
from analytics.fct_page_views
where time_on_page_seconds is not null
    and session_landed_at >= $session_landed_at
    and (session_landed_at, session_id, sequence_number) > ($session_landed_at, $session_id, $sequence_number)
"""

RESULTS = f"""
select
    session_landed_at, session_id, sequence_number, source_session_id, page_title, event_at, time_on_page_seconds,
    window_start_at, case when window_end_at < timestamp '10000-01-01' then window_end_at end as window_end_at
{RESULTS_AFTER}
order by session_landed_at, session_id, sequence_number
"""


OTHER_TABLES = ("landing_offsets", "pseudonym_key")
"""Raw tables beside those of the streams that landing needs."""
MEMORY_LIMIT = "384 MiB"
"""For a commit: by default DuckDB takes most of the machine where a row group of large messages is rewritten."""
ROWS_PER_CHUNK = 8_192
"""DuckDB reads chunks side by side, and a single one on one core only."""
RESULT_ROWS = 50_000
"""Results in memory at a time while they are written to a temporary file."""


class DuckDBSink:
    """One DuckDB file. DuckDB lets one process write: a file that another holds is waited for, with a bound.

    Args:
        path: the file, created with its tables by the first commit.
        lock_timeout_seconds: how long to wait for a held file.
        clock: gives the landing time, UTC without a zone.
        pseudonym_key: the key of hashes of a new file; without, a random one.

    Raises:
        WarehouseHeldError: when the file stays held; names the holder's process id.
        UnavailableError: when the disk is full.
        UserError: when the file cannot be opened, is no DuckDB file, or is damaged.
    """

    def __init__(
        self,
        path: Path,
        lock_timeout_seconds: float = 60.0,
        clock: Callable[[], datetime] = utc_now,
        pseudonym_key: SecretStr | None = None,
    ) -> None:
        self._path = path
        self._pseudonym_key = pseudonym_key
        self._lock_timeout_seconds = lock_timeout_seconds
        self._clock = clock
        self._held: duckdb.DuckDBPyConnection | None = None
        self._has_zstd = True
        """Of the file that was opened last: those of DuckDB 1.1 and older do not."""
        self._in_use = threading.Lock()
        """DuckDB refuses to open a file for reading that the same process has open for writing: positions are read
        by the thread that fetches, while another commits."""
        self._seen: dict[PartitionKey, int] = {}
        """The highest positions that were read from the file or committed to it."""
        self._verified: tuple[int, ...] | None = None
        """The state of the file when it was last known to hold these positions."""

    def positions(self, source: str, topic_ids: TopicIds) -> Positions:
        if not self._path.exists():
            self._see({})
            return {}
        with self.connection(read_only=True) as connection:
            positions = _positions(connection)
            self._see(positions)
        return {
            (topic, partition): next_offset
            # '' is from before the broker had topic ids; a row with the id comes later and replaces it. A log of the
            # spool has its id from the start, or never.
            for (of, topic, topic_id, partition), next_offset in sorted(positions.items())
            if of == source and (topic_id == topic_ids.get(topic, "") or (topic_id == "" and source != "spool"))
        }

    def missing_tables(self) -> list[str]:
        """The tables that `create_tables` would create, such as raw.users."""
        if not self._path.exists():
            return [f"raw.{name}" for name in (*STREAMS, *OTHER_TABLES)]
        with self.connection(read_only=True) as connection:
            existing = _tables(connection)
        return [f"raw.{name}" for name in (*STREAMS, *OTHER_TABLES) if ("raw", name) not in existing]

    def create_tables(self) -> None:
        """Create the raw tables and columns that are missing, so that every model has its source."""
        with self.connection() as connection:
            self._create_tables(connection, STREAMS)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the file over several commits: opening and closing it takes longer than a small commit."""
        with self.connection() as connection:
            self._held = connection
            try:
                yield
            finally:
                self._held = None

    def commit(self, batches: Sequence[Batch]) -> Mapping[str, int]:
        landed: Counter[str] = Counter()
        with self._translate_errors():
            for alike in split_by_topic_id(batches):
                try:
                    landed.update(self._commit(alike, MEMORY_LIMIT))
                except (duckdb.OutOfMemoryException, duckdb.TransactionException, duckdb.FatalException) as error:
                    # a TransactionException where it is the statement `commit` that needed more
                    if _is_full_disk(error):
                        raise
                    if self._held:
                        if isinstance(error, duckdb.FatalException):
                            raise  # the file must be opened again
                        with suppress(duckdb.TransactionException):  # it may have ended
                            self._held.execute("rollback")
                    # Messages of many megabytes need more. If it was the checkpoint after the commit that failed, these
                    # are landed: known by their offsets, or counted as duplicates.
                    landed.update(self._commit(alike))
        return landed

    def _commit(self, batches: Sequence[Batch], memory_limit: str | None = None) -> dict[str, int]:
        tables: dict[str, list[pa.Table]] = {}
        topic_ids: dict[str, str] = {}
        positions: dict[PartitionKey, int] = {}
        for batch in batches:
            topic_ids.update(topic_ids_of(batch))
            for stream, table in batch.tables.items():
                tables.setdefault(stream, []).append(table)
            positions.update({key: max(end, positions.get(key, 0)) for key, end in positions_of(batch).items()})
        with self._connection() as connection:
            if memory_limit:
                connection.execute("set memory_limit = $limit", {"limit": memory_limit})
            else:
                connection.execute("reset memory_limit")
            connection.execute("begin")
            self._create_tables(connection, [name for name, parts in tables.items() if _is_decoded(parts[0])])
            known = _positions(connection)
            self._see(known)
            landed_at = self._landed_at(connection, list(tables))
            landed = {}
            for stream, parts in tables.items():
                chunks = [chunk for part in parts for chunk in part.to_batches(max_chunksize=ROWS_PER_CHUNK)]
                connection.register("batch", pa.Table.from_batches(chunks, parts[0].schema))
                land = LAND.format(stream=STREAMS[stream].name)
                parameters = {"landed_at": landed_at, "topic_ids": topic_ids}
                landed[stream] = connection.execute(land, parameters).fetchall()[0][0]
                counted = next((part["topic"][0].as_py() for part in parts if _has_no_offsets(part)), None)
                if counted is not None:
                    key = ("pubsub", counted, "", 0)
                    positions[key] = known.get(key, 0) + landed[stream]
            if positions:
                connection.executemany(
                    """
                    insert into raw.landing_offsets values (?, ?, ?, ?, ?)
                    on conflict do update set next_offset = greatest(next_offset, excluded.next_offset)
                    """,
                    [[*key, next_offset] for key, next_offset in positions.items()],
                )
            connection.execute("commit")
            self._see(known | {key: max(end, known.get(key, 0)) for key, end in positions.items()})
        return landed

    def verify(self) -> None:
        state = self._file_state()
        if self._held or not self._seen or (state is not None and state == self._verified):
            return
        positions: dict[PartitionKey, int] = {}
        with self._in_use:  # until they are compared: another thread may see later ones
            if state is not None:
                try:
                    with self._translate_errors(), closing(self._open(True, 0.0)) as connection:
                        positions = _positions(connection)
                except UserError:
                    return  # it is held or being replaced: looked at again, and the next commit reports what is wrong
            self._see(positions)
        self._verified = state

    def forget(self) -> None:
        self._seen = {}

    def _see(self, positions: Mapping[PartitionKey, int]) -> None:
        """Remember the positions of the file.

        Raises:
            WarehouseReplacedError: when one is below what it was.
        """
        for key, seen in self._seen.items():
            if positions.get(key, 0) < seen:
                source, topic, _, partition = key
                where = topic if source == "pubsub" else f"{topic}/{partition}"
                raise WarehouseReplacedError(
                    f"the warehouse {self._path} was replaced by one in which less is landed: from {source} {where}"
                    f" up to {positions.get(key, 0)}, and {seen} was landed"
                )
        self._seen = dict(positions)

    def _file_state(self) -> tuple[int, ...] | None:
        """What changes when the file is written or replaced; None without a file."""
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns

    def status(self) -> dict[str, StreamStatus]:
        nothing = {stream: StreamStatus(0, None, None) for stream in STREAMS}
        if not self._path.exists():
            return nothing
        with self.connection(read_only=True) as connection:
            tables = _tables(connection)
            built = ("analytics", "dead_letters") in tables
            streams = [stream for stream in STREAMS if ("raw", stream) in tables]
            if not streams:
                return nothing
            dead_letters = (
                dict(connection.sql("select stream, count(*) from analytics.dead_letters group by stream").fetchall())
                if built
                else {}
            )
            union = " union all ".join(
                f"select '{stream}', count(*), max(landed_at) from raw.{stream}"  # noqa: S608  names of STREAMS
                for stream in streams
            )
            return nothing | {
                stream: StreamStatus(landed, newest, dead_letters.get(stream, 0) if built else None)
                for stream, landed, newest in connection.sql(union).fetchall()
            }

    def unlisted_fields(self, stream: str) -> list[UnlistedField] | None:
        if not self._path.exists():
            return None
        with self.connection(read_only=True) as connection:
            if not {("analytics", "field_drift"), ("staging", f"stg_{stream}")} <= _tables(connection):
                return None
            staged = connection.sql(f"select exists (select 1 from staging.stg_{stream})")  # noqa: S608  a stream's name
            if not staged.fetchall()[0][0]:
                return None
            found = connection.execute(
                "select path, type, example, messages from analytics.field_drift"
                " where stream = $stream and problem = 'unlisted' order by messages desc, path, type",
                {"stream": stream},
            )
            return [UnlistedField(*row) for row in found.fetchall()]

    @contextmanager
    def emitting(self) -> Iterator[None]:
        with self._mart():
            pass
        # A file of its own: DuckDB's locks on the database are dropped when anything else of this process closes it.
        path = self._path.with_name(f"{self._path.name}.emit")
        try:
            lock = path.open("ab")
        except OSError as error:
            raise UserError(f"cannot open {path}: {error.strerror}; see WAREHOUSE_PATH") from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(
                    f"another `ingest emit` is running on the warehouse {self._path}: let it finish, then run this"
                    " again"
                ) from error
            yield

    def emit_cursor(self, topic: str) -> Cursor:
        if not self._path.exists():
            return FIRST_CURSOR
        with self.connection(read_only=True) as connection:
            if ("raw", "emit_watermarks") not in _tables(connection):
                return FIRST_CURSOR
            saved = connection.execute(
                f"select {', '.join(Cursor._fields)} from raw.emit_watermarks where topic = ?",  # noqa: S608  names of ours
                [topic],
            ).fetchone()
        return Cursor(*saved) if saved else FIRST_CURSOR

    def save_emit_cursor(self, topic: str, cursor: Cursor) -> None:
        with self.connection() as connection:
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
        """Sort them once, into a Parquet file: a query per chunk would read and sort the rest again and again. The file
        has no name, so that a kill leaves nothing."""
        file = TemporaryFile()  # noqa: SIM115  the caller closes it
        try:
            with self._mart() as connection:
                results = connection.sql(RESULTS, params=after._asdict()).to_arrow_reader(RESULT_ROWS)
                with pq.ParquetWriter(file, results.schema) as writer:
                    for batch in results:
                        writer.write_batch(batch)
            file.seek(0)
        except OSError as error:
            with suppress(OSError):  # what is left in its buffer
                file.close()
            reason = os.strerror(error.errno or 0)
            raise UserError(f"cannot write a temporary file in {gettempdir()}: {reason}; see TMPDIR") from error
        return file

    @contextmanager
    def _mart(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection to a warehouse in which fct_page_views is there."""
        if self._path.exists():
            with self.connection(read_only=True) as connection:
                if ("analytics", "fct_page_views") in _tables(connection):
                    yield connection
                    return
        raise UserError(f"the warehouse {self._path} has no fct_page_views yet: run `make build` first")

    def _landed_at(self, connection: duckdb.DuckDBPyConnection, streams: list[str]) -> datetime:
        """One time a commit, later than every earlier one of these tables even when the clock went back."""
        newest: list[datetime | None] = [
            connection.execute(f"select max(landed_at) from raw.{STREAMS[stream].name}").fetchall()[0][0]  # noqa: S608  names of STREAMS
            for stream in streams
        ]
        return max([self._clock(), *(time + timedelta(microseconds=1) for time in newest if time is not None)])

    @contextmanager
    def connection(self, read_only: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        """The open file; an uncommitted transaction is rolled back when the context ends.

        Raises:
            UserError: as the class says, whatever of it happens in the context.
            KeyboardInterrupt: when Ctrl-C interrupts a statement.
        """
        with self._translate_errors(), self._connection(read_only) as connection:
            yield connection

    @contextmanager
    def _connection(self, read_only: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        if self._held is not None:
            yield self._held
            return
        with self._in_use, closing(self._open(read_only, self._lock_timeout_seconds)) as connection:
            yield connection

    def _open(self, read_only: bool, timeout_seconds: float) -> duckdb.DuckDBPyConnection:
        deadline = time.monotonic() + timeout_seconds
        while True:
            try:
                if not read_only:
                    self._create_file()
                return self._checked(duckdb.connect(str(self._path.absolute()), read_only=read_only))
            except duckdb.Error as error:
                if "Could not set lock" not in str(error):
                    raise self._error("cannot open", error) from error
                if time.monotonic() >= deadline:
                    holder = re.search(r"PID (\d+)", str(error))
                    raise WarehouseHeldError(
                        f"the warehouse {self._path} has been held by another process"
                        f"{f' (PID {holder[1]})' if holder else ''} for {timeout_seconds:g} s:"
                        " let it finish or end it, then run this again; nothing is lost"
                    ) from error
            time.sleep(RETRY_SECONDS)

    def _create_file(self) -> None:
        """Create the file if there is none."""
        if self._path.exists():
            return
        path = str(self._path.absolute()).replace("'", "''")
        with closing(duckdb.connect()) as connection:
            connection.execute(f"attach '{path}' as warehouse (storage_version '{STORAGE_VERSION}')")

    def _checked(self, connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
        """See that it is to a DuckDB file: DuckDB opens a CSV as views in a database in memory, which ends with the
        connection. (Reading the file's header would drop DuckDB's lock on it, if this process has it open.)"""
        [(path, type_, version)] = connection.execute(
            """
            select path, type, tags['storage_version'] from duckdb_databases()
            where database_name = current_database()
            """
        ).fetchall()
        if path is None or type_ != "duckdb":
            connection.close()
            raise duckdb.IOException(NOT_DUCKDB)
        self._has_zstd = tuple(map(int, re.findall(r"\d+", version))) >= (1, 2)
        return connection

    def _create_tables(self, connection: duckdb.DuckDBPyConnection, decoded: Iterable[str]) -> None:
        """Create what is missing; of tables of an earlier version, the columns of decoded messages, where the stream is
        one of `decoded`: to look at all of them takes longer than a small commit."""
        compression = ZSTD if self._has_zstd else ""
        columns = [
            f"{field.name} {DECODED_TYPES[field.type]}{compression if field.name == 'decoded' else ''}"
            for field in DECODED_SCHEMA
        ]
        connection.execute("create schema if not exists raw")
        for stream in STREAMS:
            more = "".join(f",\n    {column}" for column in columns)
            connection.execute(RAW_TABLE.format(stream=stream, compression=compression, decoded=more))
        for stream in decoded:
            for column in columns:
                connection.execute(f"alter table raw.{STREAMS[stream].name} add column if not exists {column}")
        connection.execute(LANDING_OFFSETS)
        connection.execute(PSEUDONYM_KEY)
        connection.execute(
            "insert into raw.pseudonym_key select ?, ? where not exists (from raw.pseudonym_key)",
            pads(self._pseudonym_key),
        )

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except (duckdb.OperationalError, duckdb.FatalException, duckdb.InternalError) as error:
            raise self._error("cannot read or write", error) from error
        except duckdb.InterruptException as error:
            raise KeyboardInterrupt from error
        except duckdb.Error as error:
            if type(error) is not duckdb.Error:  # as for a damaged block
                raise
            raise self._error("cannot read or write", error) from error
        except RuntimeError as error:
            if str(error) != "Query interrupted":
                raise
            raise KeyboardInterrupt from error

    def _error(self, failed: str, error: Exception) -> UserError:
        # said of a CSV that is to be read
        reason = NOT_DUCKDB if "in-memory database in read-only" in str(error) else _first_line(error)
        reason = f"{failed} the warehouse {self._path}: {reason}"
        if _is_full_disk(error):
            return UnavailableError(f"{reason}; free some space: nothing is lost")
        if "Corrupt" in reason:
            return UserError(f"{reason}; the file is damaged: restore a copy of it")
        return UserError(f"{reason}; see WAREHOUSE_PATH" if failed == "cannot open" else reason)


def _tables(connection: duckdb.DuckDBPyConnection) -> set[tuple[str, str]]:
    """(schema, name) of all tables and views."""
    return set(connection.execute("select table_schema, table_name from information_schema.tables").fetchall())


def _positions(connection: duckdb.DuckDBPyConnection) -> dict[PartitionKey, int]:
    select = 'select source, topic, topic_id, "partition", next_offset from raw.landing_offsets'
    try:
        rows = connection.execute(select).fetchall()
    except duckdb.CatalogException:  # to look for the table first would take longer than all else
        return {}
    return {(source, topic, topic_id, partition): end for source, topic, topic_id, partition, end in rows}


def _is_decoded(table: pa.Table) -> bool:
    return DECODED_SCHEMA.names[0] in table.column_names


def _has_no_offsets(table: pa.Table) -> bool:
    """Whether these are messages of Pub/Sub."""
    return bool(table.num_rows and table["offset"].null_count)


def _is_full_disk(error: Exception) -> bool:
    return any(reason in str(error) for reason in FULL_DISK)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
