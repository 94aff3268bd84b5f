"""Lands batches in a DuckDB file, which it holds only while it reads or commits."""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa

from ingest.errors import UserError
from ingest.message import Batch, Positions
from ingest.sinks import StreamStatus
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
    payload blob
)
"""

LANDING_OFFSETS = """
create table if not exists raw.landing_offsets (
    source varchar, topic varchar, "partition" integer, next_offset bigint not null,
    primary key (source, topic, "partition")
)
"""

# A Pub/Sub message has no offset; one that is redelivered within a commit is landed once.
LAND = """
insert into raw.{stream}
select
    '{stream}', batch.source, batch.topic, batch."partition", batch."offset", batch.message_id,
    batch.key, batch.attributes, batch.published_at, $landed_at, batch.payload
from batch
left join raw.landing_offsets using (source, topic, "partition")
where batch."offset" is null or batch."offset" >= coalesce(next_offset, 0)
qualify batch."offset" is not null or row_number() over (partition by batch.message_id order by batch.published_at) = 1
"""


def utc_now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


class DuckDBSink:
    """One DuckDB file. DuckDB lets one process write: a file that another holds is waited for, with a bound.

    Args:
        path: the file, created with its tables by the first commit.
        lock_timeout_seconds: how long to wait for a held file.
        clock: gives the landing time, UTC without a zone.

    Raises:
        UserError: when the file stays held, naming the holder's process id, or is no DuckDB file.
    """

    def __init__(self, path: Path, lock_timeout_seconds: float = 60.0, clock: Callable[[], datetime] = utc_now) -> None:
        self._path = path
        self._lock_timeout_seconds = lock_timeout_seconds
        self._clock = clock

    def positions(self, source: str) -> Positions:
        if not self._path.exists():
            return {}
        with self.connection(read_only=True) as connection:
            if not _has_table(connection, "raw", "landing_offsets"):
                return {}
            rows = connection.execute(
                'select topic, "partition", next_offset from raw.landing_offsets where source = ?', [source]
            ).fetchall()
        return {(topic, partition): next_offset for topic, partition, next_offset in rows}

    def create_tables(self) -> None:
        """Create the raw tables that are missing, so that every model has its source."""
        with self.connection() as connection:
            _create_tables(connection)

    def commit(self, batches: Sequence[Batch]) -> int:
        tables: dict[str, list[pa.Table]] = {}
        positions: dict[tuple[str, str, int], int] = {}
        for batch in batches:
            for stream, table in batch.tables.items():
                tables.setdefault(stream, []).append(table)
            source = next(iter(batch.tables.values()))["source"][0].as_py() if batch.rows else ""
            for (topic, partition), next_offset in batch.positions.items():
                positions[source, topic, partition] = next_offset
        with self.connection() as connection:
            connection.execute("begin")
            _create_tables(connection)
            landed_at = self._landed_at(connection, list(tables))
            rows = 0
            for stream, parts in tables.items():
                connection.register("batch", pa.concat_tables(parts))
                land = LAND.format(stream=STREAMS[stream].name)
                rows += connection.execute(land, {"landed_at": landed_at}).fetchall()[0][0]
            if positions:
                connection.executemany(
                    """
                    insert into raw.landing_offsets values (?, ?, ?, ?)
                    on conflict do update set next_offset = greatest(next_offset, excluded.next_offset)
                    """,
                    [[*partition, next_offset] for partition, next_offset in positions.items()],
                )
            connection.execute("commit")
        return rows

    def status(self) -> dict[str, StreamStatus]:
        nothing = {stream: StreamStatus(0, None, None) for stream in STREAMS}
        if not self._path.exists():
            return nothing
        with self.connection(read_only=True) as connection:
            if not _has_table(connection, "raw", "landing_offsets"):
                return nothing
            built = _has_table(connection, "analytics", "dead_letters")
            dead_letters = (
                dict(connection.sql("select stream, count(*) from analytics.dead_letters group by stream").fetchall())
                if built
                else {}
            )
            union = " union all ".join(
                f"select '{stream}', count(*), max(landed_at) from raw.{stream}"  # noqa: S608  names of STREAMS
                for stream in STREAMS
            )
            return {
                stream: StreamStatus(landed, newest, dead_letters.get(stream, 0) if built else None)
                for stream, landed, newest in connection.sql(union).fetchall()
            }

    def _landed_at(self, connection: duckdb.DuckDBPyConnection, streams: list[str]) -> datetime:
        """One time a commit, later than every earlier one of these tables even when the clock went back."""
        newest: list[datetime | None] = [
            connection.execute(f"select max(landed_at) from raw.{STREAMS[stream].name}").fetchall()[0][0]  # noqa: S608
            for stream in streams
        ]
        return max([self._clock(), *(time + timedelta(microseconds=1) for time in newest if time is not None)])

    @contextmanager
    def connection(self, read_only: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        """The open file; an uncommitted transaction is rolled back when the context ends."""
        connection = self._open(read_only)
        try:
            yield connection
        finally:
            connection.close()

    def _open(self, read_only: bool) -> duckdb.DuckDBPyConnection:
        deadline = time.monotonic() + self._lock_timeout_seconds
        while True:
            try:
                return duckdb.connect(str(self._path), read_only=read_only)
            except duckdb.IOException as error:
                if "lock" not in str(error):
                    raise UserError(f"cannot open the warehouse {self._path}: {_first_line(error)}") from error
                if time.monotonic() >= deadline:
                    holder = re.search(r"PID (\d+)", str(error))
                    raise UserError(
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


def _has_table(connection: duckdb.DuckDBPyConnection, schema: str, table: str) -> bool:
    found = connection.execute(
        "select 1 from information_schema.tables where table_schema = ? and table_name = ?", [schema, table]
    )
    return bool(found.fetchall())


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
