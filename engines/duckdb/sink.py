"""Lands batches in a DuckDB file, which is open only while it is read or written."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, suppress
from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import SecretStr

from common.errors import UserError, WarehouseReplacedError
from common.streams import STREAMS
from engines.batch import DECODED_SCHEMA, Batch, Positions, TopicIds
from engines.duckdb.file import WarehouseFile, is_full_disk
from engines.duckdb.recovery import insert_again, read_rejected
from engines.duckdb.results import DuckDBResults
from engines.duckdb.status import stream_status, unlisted_fields
from engines.duckdb.tables import OTHER_TABLES, create_tables, table_names
from engines.recovery import OpenDeadLetters
from engines.warehouse import (
    PartitionKey,
    StreamStatus,
    UnlistedField,
    positions_of,
    split_by_topic_id,
    topic_ids_of,
    utc_now,
)

LAND = (
    "insert into raw.{stream} by name select '{stream}' as stream, *, cast($landed_at as timestamp) as landed_at {rows}"
)
# A Pub/Sub message has no offset; one that is redelivered within a commit is landed once.
DISTINCT = """
from (
    from batch where "offset" is not null
    union all
    select distinct on (message_id) * from batch where "offset" is null
)
"""
SAVE_POSITIONS = """
insert into raw.landing_offsets values {rows}
on conflict do update set next_offset = greatest(next_offset, excluded.next_offset)
"""

MEMORY_LIMIT = "384 MiB"
"""For a commit: by default DuckDB takes most of the machine to rewrite a row group of large messages."""
ROWS_PER_CHUNK = 8_192
"""DuckDB reads chunks in parallel, and a single chunk on one core only."""


class DuckDBSink(DuckDBResults):
    """One DuckDB file. DuckDB lets one process write, so the sink waits, with a bound, while another holds the file.

    Args:
        path: the file, created with its tables by the first commit.
        lock_timeout_seconds: how long to wait for a held file.
        clock: gives the landing time, UTC without a zone.
        pseudonym_key: the key of hashes of a new file; None takes a random one.

    Raises:
        WarehouseHeldError: when the file stays held; names the holder's process id.
        UnavailableError: when the disk is full.
        UserError: when the file cannot be opened, is not a DuckDB file, or is damaged.
    """

    def __init__(
        self,
        path: Path,
        lock_timeout_seconds: float = 60.0,
        clock: Callable[[], datetime] = utc_now,
        pseudonym_key: SecretStr | None = None,
    ) -> None:
        super().__init__(WarehouseFile(path, lock_timeout_seconds))
        self._path = path
        self._pseudonym_key = pseudonym_key
        self._clock = clock
        self._seen: dict[PartitionKey, int] = {}
        """The highest positions that were read from the file or committed to it."""
        self._committing = threading.Lock()
        self._verified: tuple[int, ...] | None = None
        """The state of the file when it was last known to have these positions."""

    @property
    def file(self) -> WarehouseFile:
        """The file in which this sink lands."""
        return self._file

    def connection(self, read_only: bool = False) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
        """The open file; an uncommitted transaction is rolled back when the context ends.

        Raises:
            UserError: as the class says, wherever it happens in the context.
            KeyboardInterrupt: when Ctrl-C interrupts a statement.
        """
        return self._file.connection(read_only)

    def session(self) -> AbstractContextManager[None]:
        return self._file.session()

    @property
    def is_kept_open(self) -> bool:
        """Whether this process has the file for itself, within `kept_open`."""
        return self._file.is_kept_open

    def kept_open(self) -> AbstractContextManager[None]:
        """See `WarehouseFile.kept_open`."""
        return self._file.kept_open()

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
        if not self._path.exists():
            return [f"raw.{name}" for name in (*STREAMS, *OTHER_TABLES)]
        with self.connection(read_only=True) as connection:
            existing = table_names(connection)
        return [f"raw.{name}" for name in (*STREAMS, *OTHER_TABLES) if ("raw", name) not in existing]

    def create_tables(self) -> None:
        with self.connection() as connection:
            create_tables(connection, STREAMS, self._pseudonym_key, has_zstd=self._file.has_zstd)

    def commit(self, batches: Sequence[Batch]) -> Mapping[str, int]:
        landed: Counter[str] = Counter()
        with self._file.translate_errors():
            for alike in split_by_topic_id(batches):
                try:
                    landed.update(self._commit(alike, MEMORY_LIMIT))
                except (duckdb.OutOfMemoryException, duckdb.TransactionException, duckdb.FatalException) as error:
                    # DuckDB raises a TransactionException when it is the statement `commit` that needed more memory.
                    if is_full_disk(error):
                        raise
                    if self._file.session_connection:
                        if isinstance(error, duckdb.FatalException):
                            raise  # the file must be opened again
                        with suppress(duckdb.TransactionException):  # it may have ended
                            self._file.session_connection.execute("rollback")
                    # Messages of many megabytes need more. If the checkpoint after the commit failed, these messages
                    # are landed: they are known by their offsets, or counted as duplicates.
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
        # one commit at a time, so that landing times grow in the order of the commits
        with self._committing, self._file.untranslated_connection() as connection:
            if self._file.is_kept_open:
                pass  # the limit would be that of the builds in this process too
            elif memory_limit:
                connection.execute("set memory_limit = $limit", {"limit": memory_limit})
            else:
                connection.execute("reset memory_limit")
            now = self._clock()
            try:
                return self._land(connection, tables, topic_ids, positions, now)
            except (duckdb.CatalogException, duckdb.BinderException):
                # A table or column is missing, as in a new file. To look first would take longer than a small commit.
                connection.execute("rollback")
                decoded = [name for name, parts in tables.items() if _is_decoded(parts[0])]
                create_tables(connection, decoded, self._pseudonym_key, has_zstd=self._file.has_zstd)
                return self._land(connection, tables, topic_ids, positions, now)

    def _land(
        self,
        connection: duckdb.DuckDBPyConnection,
        tables: Mapping[str, list[pa.Table]],
        topic_ids: TopicIds,
        positions: Mapping[PartitionKey, int],
        now: datetime,
    ) -> dict[str, int]:
        """Commit these tables and positions in one transaction. Returns stream to the number of new rows."""
        connection.execute("begin")
        known = _positions(connection)
        self._see(known)
        positions = dict(positions)
        landed_at = _landed_at(connection, list(tables), now)
        landed = {}
        for stream, parts in tables.items():
            fresh = [_unlanded(part, known, topic_ids) for part in parts]
            chunks = [chunk for part in fresh for chunk in part.to_batches(max_chunksize=ROWS_PER_CHUNK)]
            landed[stream] = _insert(connection, stream, pa.Table.from_batches(chunks, parts[0].schema), landed_at)
            counted = next((part["topic"][0].as_py() for part in parts if _has_no_offsets(part)), None)
            if counted is not None:
                key = ("pubsub", counted, "", 0)
                positions[key] = known.get(key, 0) + landed[stream]
        if positions:
            values = [value for key, next_offset in positions.items() for value in (*key, next_offset)]
            rows = ", ".join(["(?, ?, ?, ?, ?)"] * len(positions))
            connection.execute(SAVE_POSITIONS.format(rows=rows), values)
        connection.execute("commit")
        self._see(known | {key: max(end, known.get(key, 0)) for key, end in positions.items()})
        return landed

    def verify(self) -> None:
        state = self._file.state()
        if self._file.session_connection or self._file.is_kept_open or not self._seen:
            return
        if state is not None and state == self._verified:
            return
        positions: dict[PartitionKey, int] = {}
        with self._file.in_use:  # until they are compared: another thread may see later ones
            if state is not None:
                try:
                    with self._file.translate_errors(), closing(self._file.open(True, 0.0)) as connection:
                        positions = _positions(connection)
                except UserError:
                    return  # it is held or being replaced: the next check or commit reports what is wrong
            self._see(positions)
        self._verified = state

    def forget(self) -> None:
        self._seen = {}

    def _see(self, positions: Mapping[PartitionKey, int]) -> None:
        """Remember the positions of the file.

        Raises:
            WarehouseReplacedError: when one is lower than before.
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

    def status(self) -> dict[str, StreamStatus]:
        return stream_status(self._file)

    def unlisted_fields(self, stream: str) -> list[UnlistedField] | None:
        return unlisted_fields(self._file, stream)

    def rejected(self, letters: OpenDeadLetters) -> Iterator[pa.Table]:
        return read_rejected(self._file, letters)

    def land_again(self, stream: str, rows: pa.Table) -> int:
        with self._committing, self._file.connection() as connection:
            if _is_decoded(rows):
                create_tables(connection, [stream], self._pseudonym_key, has_zstd=self._file.has_zstd)
            connection.execute("begin")
            landed_at = _landed_at(connection, [stream], self._clock())
            landed = insert_again(connection, stream, rows, landed_at)
            connection.execute("commit")
        return landed


def _positions(connection: duckdb.DuckDBPyConnection) -> dict[PartitionKey, int]:
    select = 'select source, topic, topic_id, "partition", next_offset from raw.landing_offsets'
    try:
        rows = connection.execute(select).fetchall()
    except duckdb.CatalogException:  # looking for the table first would take longer than all else
        return {}
    return {(source, topic, topic_id, partition): end for source, topic, topic_id, partition, end in rows}


def _landed_at(connection: duckdb.DuckDBPyConnection, streams: list[str], now: datetime) -> datetime:
    """One time per commit, later than every earlier one of these tables even if the clock went back."""
    if not streams:
        return now
    times = " union all ".join(f"select landed_at from raw.{STREAMS[stream].name}" for stream in streams)  # noqa: S608  names of STREAMS
    # Only times from now on are looked for, so that DuckDB skips all row groups with earlier ones.
    newest = f"select max(landed_at) from ({times}) where landed_at >= $now"  # noqa: S608
    [(time,)] = connection.execute(newest, {"now": now}).fetchall()
    return now if time is None else max(now, time + timedelta(microseconds=1))


def _insert(connection: duckdb.DuckDBPyConnection, stream: str, batch: pa.Table, landed_at: datetime) -> int:
    """Insert the messages into the stream's table; returns their number."""
    connection.register("batch", batch)
    rows = DISTINCT if _has_no_offsets(batch) else "from batch"
    land = LAND.format(stream=STREAMS[stream].name, rows=rows)
    inserted: int = connection.execute(land, {"landed_at": landed_at}).fetchall()[0][0]
    return inserted


def _unlanded(table: pa.Table, known: Mapping[PartitionKey, int], topic_ids: TopicIds) -> pa.Table:
    """The messages at or above the positions of the warehouse; another loader landed the others. Messages without an
    offset stay."""
    partitions = table.group_by(["source", "topic", "partition"], use_threads=False).aggregate([("offset", "min")])
    for of, topic, partition, first in zip(*(column.to_pylist() for column in partitions.columns), strict=True):
        next_offset = known.get((of, topic, topic_ids.get(topic, ""), partition), 0)
        if not next_offset and of != "spool":  # as in `positions`
            next_offset = known.get((of, topic, "", partition), 0)
        if first is not None and first < next_offset:
            is_landed = (
                (pc.field("source") == of)
                & (pc.field("topic") == topic)
                & (pc.field("partition") == partition)
                & (pc.field("offset") < next_offset)
            )
            table = table.filter(is_landed.is_null() | ~is_landed)
    return table


def _is_decoded(table: pa.Table) -> bool:
    return DECODED_SCHEMA.names[0] in table.column_names


def _has_no_offsets(table: pa.Table) -> bool:
    """Whether these are messages of Pub/Sub."""
    return bool(table.num_rows and table["offset"].null_count)
