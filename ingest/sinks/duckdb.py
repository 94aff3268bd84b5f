"""Lands batches in a DuckDB file, which it holds only while it reads or commits."""

import fcntl
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from ingest.errors import UserError, WarehouseHeldError
from ingest.message import BATCH_SCHEMA, Batch, Positions, TopicIds
from ingest.sinks import FIRST_CURSOR, Cursor, Result, StreamStatus, of_one_id_a_topic, topic_ids_of, utc_now
from ingest.streams import STREAMS

RETRY_SECONDS = 0.1

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
    -- half the size of what DuckDB would choose, for less work
    payload blob using compression zstd
)
"""

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


MEMORY_LIMIT = "384 MiB"
"""For a commit: by default DuckDB takes most of the machine where a row group of large messages is rewritten."""
ROWS_PER_CHUNK = 8_192
"""DuckDB reads chunks side by side, and a single one on one core only."""


class DuckDBSink:
    """One DuckDB file. DuckDB lets one process write: a file that another holds is waited for, with a bound.

    Args:
        path: the file, created with its tables by the first commit.
        lock_timeout_seconds: how long to wait for a held file.
        clock: gives the landing time, UTC without a zone.

    Raises:
        UserError: when the file stays held, naming the holder's process id, or cannot be opened or is no
            DuckDB file.
    """

    def __init__(self, path: Path, lock_timeout_seconds: float = 60.0, clock: Callable[[], datetime] = utc_now) -> None:
        self._path = path
        self._lock_timeout_seconds = lock_timeout_seconds
        self._clock = clock
        self._held: duckdb.DuckDBPyConnection | None = None
        self._in_use = threading.Lock()
        """DuckDB refuses to open a file for reading that the same process has open for writing: positions are read
        by the thread that fetches, while another commits."""

    def positions(self, source: str, topic_ids: TopicIds) -> Positions:
        if not self._path.exists():
            return {}
        with self.connection(read_only=True) as connection:
            if ("raw", "landing_offsets") not in _tables(connection):
                return {}
            rows = connection.execute(
                """
                select topic, topic_id, "partition", next_offset from raw.landing_offsets
                where source = ? order by topic_id
                """,
                [source],
            ).fetchall()
        return {
            (topic, partition): next_offset
            for topic, topic_id, partition, next_offset in rows
            # '' is from before the broker had topic ids; a row with the id comes later and replaces it. A log of the
            # spool has its id from the start, or never.
            if topic_id == topic_ids.get(topic, "") or (topic_id == "" and source != "spool")
        }

    def missing_tables(self) -> list[str]:
        """The tables that `create_tables` would create, such as raw.users."""
        wanted = [f"raw.{name}" for name in (*STREAMS, "landing_offsets")]
        if not self._path.exists():
            return wanted
        with self.connection(read_only=True) as connection:
            existing = {".".join(table) for table in _tables(connection)}
        return [table for table in wanted if table not in existing]

    def create_tables(self) -> None:
        """Create the raw tables that are missing, so that every model has its source."""
        with self.connection() as connection:
            _create_tables(connection)

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
        for alike in of_one_id_a_topic(batches):
            try:
                landed.update(self._commit(alike, MEMORY_LIMIT))
            except (duckdb.OutOfMemoryException, duckdb.TransactionException, duckdb.FatalException) as error:
                # a TransactionException where it is the statement `commit` that needed more
                if self._held:
                    if isinstance(error, duckdb.FatalException):
                        raise  # the file must be opened again
                    with suppress(duckdb.TransactionException):  # it may have ended
                        self._held.execute("rollback")
                # Messages of many megabytes need more. If it was the checkpoint behind the commit that failed, these
                # are landed: known by their offsets, or counted as duplicates.
                landed.update(self._commit(alike))
        return landed

    def _commit(self, batches: Sequence[Batch], memory_limit: str | None = None) -> dict[str, int]:
        tables: dict[str, list[pa.Table]] = {}
        topic_ids: dict[str, str] = {}
        positions: dict[tuple[str, str, int], int] = {}
        for batch in batches:
            topic_ids.update(topic_ids_of(batch))
            for stream, table in batch.tables.items():
                tables.setdefault(stream, []).append(table)
            for (topic, partition), next_offset in batch.positions.items():
                # A batch comes from one source, and one with positions has rows.
                source = next(table["source"][0].as_py() for table in batch.tables.values() if table.num_rows)
                positions[source, topic, partition] = next_offset
        with self.connection() as connection:
            if memory_limit:
                connection.execute("set memory_limit = $limit", {"limit": memory_limit})
            else:
                connection.execute("reset memory_limit")
            connection.execute("begin")
            _create_tables(connection)
            landed_at = self._landed_at(connection, list(tables))
            landed = {}
            for stream, parts in tables.items():
                chunks = [chunk for part in parts for chunk in part.to_batches(max_chunksize=ROWS_PER_CHUNK)]
                connection.register("batch", pa.Table.from_batches(chunks, BATCH_SCHEMA))
                land = LAND.format(stream=STREAMS[stream].name)
                parameters = {"landed_at": landed_at, "topic_ids": topic_ids}
                landed[stream] = connection.execute(land, parameters).fetchall()[0][0]
            if positions:
                connection.executemany(
                    """
                    insert into raw.landing_offsets values (?, ?, ?, ?, ?)
                    on conflict do update set next_offset = greatest(next_offset, excluded.next_offset)
                    """,
                    [
                        [source, topic, topic_ids.get(topic, ""), partition, next_offset]
                        for (source, topic, partition), next_offset in positions.items()
                    ],
                )
            connection.execute("commit")
        return landed

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
                    f"another `ingest emit` is under way on the warehouse {self._path}: let it finish, then run this"
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
        # Sorted once, to a file of its own: a query a chunk would read and sort what is left again and again.
        with TemporaryDirectory(prefix="emit-") as folder:
            path = Path(folder) / "results.parquet"
            with self._mart() as connection:
                connection.sql(RESULTS, params=after._asdict()).write_parquet(str(path))
            results = path.open("rb")
        with results:  # has no name any more, so that nothing stays behind a kill
            for batch in pq.ParquetFile(results).iter_batches(chunk_rows):
                yield [Result(*row) for row in zip(*(column.to_pylist() for column in batch.columns), strict=True)]

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
        """The open file; an uncommitted transaction is rolled back when the context ends."""
        if self._held is not None:
            yield self._held
            return
        with self._in_use, closing(self._open(read_only)) as connection:
            yield connection

    def _open(self, read_only: bool) -> duckdb.DuckDBPyConnection:
        deadline = time.monotonic() + self._lock_timeout_seconds
        while True:
            try:
                return duckdb.connect(str(self._path), read_only=read_only)
            except duckdb.Error as error:
                if "Could not set lock" not in str(error):
                    raise UserError(
                        f"cannot open the warehouse {self._path}: {_first_line(error)}; see WAREHOUSE_PATH"
                    ) from error
                if time.monotonic() >= deadline:
                    holder = re.search(r"PID (\d+)", str(error))
                    raise WarehouseHeldError(
                        f"the warehouse {self._path} has been held by another process"
                        f"{f' (PID {holder[1]})' if holder else ''} for {self._lock_timeout_seconds:g} s:"
                        " let it finish or end it, then run this again; nothing is lost"
                    ) from error
            time.sleep(RETRY_SECONDS)


def _create_tables(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("create schema if not exists raw")
    for stream in STREAMS:
        connection.execute(RAW_TABLE.format(stream=stream))
    connection.execute(LANDING_OFFSETS)


def _tables(connection: duckdb.DuckDBPyConnection) -> set[tuple[str, str]]:
    """(schema, name) of all tables and views."""
    return set(connection.execute("select table_schema, table_name from information_schema.tables").fetchall())


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
