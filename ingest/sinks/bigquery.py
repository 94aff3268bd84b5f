"""Lands batches in BigQuery: with load jobs, or with `--follow` through write streams.

Load jobs are free but limited to 1,500 per table and day, so there is one commit per minute. Write streams are paid by
volume and readable at once. The position of a partition is a column of the rows, so the two cannot diverge.

docs/architecture.md#landing-in-bigquery proves that nothing is lost or loaded twice, whichever loader is killed.
"""

import hashlib
import io
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, NamedTuple

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import requests
from google.api_core import exceptions as api
from google.auth import exceptions as auth
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery
from google.cloud.bigquery import ScalarQueryParameter, SchemaField
from google.cloud.bigquery.retry import DEFAULT_RETRY
from google.cloud.bigquery_storage_v1 import BigQueryWriteClient
from google.resumable_media.common import DataCorruption

from ingest.errors import UnavailableError, UserError, WarehouseReplacedError
from ingest.message import BATCH_SCHEMA, DECODED_SCHEMA, Batch, Positions, TopicIds
from ingest.settings import Settings
from ingest.sinks import (
    FIRST_CURSOR,
    Cursor,
    PartitionKey,
    Result,
    StreamStatus,
    UnlistedField,
    positions_of,
    split_by_topic_id,
    utc_now,
)
from ingest.sinks.pseudonyms import pads
from ingest.sinks.write_stream import WriteStream, finalize, open_write_client
from ingest.streams import STREAMS

ANSWER_SECONDS = 60.0
"""How long a request is tried again before BigQuery counts as unavailable."""
JOB_TIMEOUT_SECONDS = 600
"""BigQuery ends a load that takes longer: a row must not appear below the cut of a build, which is held back by the
var landing_hold_minutes (15)."""
JOB_PATIENCE_SECONDS = 900.0
"""How long to wait for the end of a job."""
POLL_SECONDS = 0.5
SECONDS_BETWEEN_CHECKS = 60.0
"""How often a follower sees whether its tables are still the same, and writes ranges of empty offsets."""
RETRY = DEFAULT_RETRY.with_timeout(ANSWER_SECONDS)
CALL: Mapping[str, Any] = {"retry": RETRY, "timeout": ANSWER_SECONDS / 2}
"""Options of a request. By default the client would wait for ever for an answer on a connection that is dead."""
PASSING_REASONS = frozenset(
    {"backendError", "internalError", "jobBackendError", "jobInternalError", "quotaExceeded", "rateLimitExceeded"}
    | {"stopped", "timeout", "tableUnavailable"}
)
"""Reasons of an error after which the same may succeed later."""

RAW_SCHEMA = pa.schema(
    [
        pa.field("stream", pa.string(), nullable=False),
        *(field for field in BATCH_SCHEMA if field.name not in ("published_at", "payload")),
        # without a zone it would be a DATETIME
        pa.field("published_at", pa.timestamp("us", "UTC")),
        pa.field("landed_at", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("payload", pa.binary()),
        pa.field("topic_id", pa.string()),
        pa.field("next_offset", pa.int64()),
        *DECODED_SCHEMA,
    ]
)
"""The raw tables' columns: DuckDB's, and what it has in raw.landing_offsets. `topic_id` tells the offsets of a topic
that was created anew; `next_offset` is where the partition goes on behind the row."""

BIGQUERY_TYPES = {
    pa.string(): "STRING",
    pa.int32(): "INTEGER",
    pa.int64(): "INTEGER",
    pa.binary(): "BYTES",
    pa.timestamp("us", "UTC"): "TIMESTAMP",
}

WRITERS_SCHEMA = pa.schema(
    [
        pa.field("stream", pa.string(), nullable=False),
        pa.field("generation", pa.int64(), nullable=False),
        pa.field("write_stream", pa.string()),
    ]
)
"""Of each raw table who has been writing it, one after the other: load jobs (null, as before the first row), or who
follows, by a write stream."""

EMPTY_OFFSETS_SCHEMA = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("topic", pa.string(), nullable=False),
        pa.field("topic_id", pa.string(), nullable=False),
        pa.field("partition", pa.int64(), nullable=False),
        pa.field("first_offset", pa.int64(), nullable=False),
        pa.field("next_offset", pa.int64(), nullable=False),
    ]
)
"""Ranges of offsets that hold no message, from first_offset to before next_offset."""

EMIT_WATERMARKS = (
    SchemaField("topic", "STRING", "REQUIRED"),
    SchemaField("session_landed_at", "TIMESTAMP", "REQUIRED"),
    SchemaField("session_id", "STRING", "REQUIRED"),
    SchemaField("sequence_number", "INTEGER", "REQUIRED"),
)

# Saved only by who has read or saved what stands there. A repeated request finds what it saved itself.
SAVE_EMIT_CURSOR = """
merge {raw}.emit_watermarks` as saved
using (select @topic as topic) as new
on saved.topic = new.topic
when matched and (
    (saved.session_landed_at = @known_landed_at and saved.session_id = @known_id
        and saved.sequence_number = @known_number)
    or (saved.session_landed_at = @session_landed_at and saved.session_id = @session_id
        and saved.sequence_number = @sequence_number)
) then update set
    session_landed_at = @session_landed_at, session_id = @session_id, sequence_number = @sequence_number
when not matched and @is_first then insert (topic, session_landed_at, session_id, sequence_number)
    values (@topic, @session_landed_at, @session_id, @sequence_number)
"""

# The first bound is implied by the second; it is the one that prunes.
RESULTS_AFTER = """
from {analytics}.fct_page_views`
where time_on_page_seconds is not null
    and session_landed_at >= @session_landed_at
    and (
        session_landed_at > @session_landed_at
        or session_id > @session_id
        or (session_id = @session_id and sequence_number > @sequence_number)
    )
"""

RESULTS = f"""
select
    session_landed_at, session_id, sequence_number, source_session_id, page_title, event_at, time_on_page_seconds,
    window_start_at, window_end_at
{RESULTS_AFTER}
order by session_landed_at, session_id, sequence_number
"""

TablePositions = Mapping[PartitionKey, int]
"""Partition to the offset of the next message to land, of one raw table."""


@dataclass(frozen=True, slots=True)
class _Writer:
    """Who writes a raw table."""

    generation: int = 0
    write_stream: str | None = None
    """None: load jobs."""


class _Known(NamedTuple):
    """Of a raw table."""

    positions: TablePositions
    writer: _Writer
    """Who was it before and after these positions were read: they are of its time."""


@dataclass(slots=True)
class _Load:
    """What is to be loaded into one raw table."""

    stream: str
    parts: list[tuple[pa.Table, Batch]]
    """Messages in BATCH_SCHEMA, all with offsets or all without, and the batch that they are of."""
    has_offsets: bool


@dataclass(slots=True)
class _Sent:
    """A load whose job has the given id."""

    load: _Load
    name: str
    """The job's id without the number of the attempt."""
    rows: int
    known: _Known
    """Once it is done."""
    job: Any
    """None when the id was taken."""


class BigQuerySink:
    """The datasets <prefix>raw and <prefix>analytics of one project.

    Args:
        settings: the project, the prefix, the location.
        clock: gives the landing time, UTC without a zone.
        by_streams: write streams instead of load jobs.

    Raises:
        UserError: without credentials, or when BigQuery refuses.
        UnavailableError: when it does not answer, or a quota is used up.
    """

    def __init__(
        self, settings: Settings, clock: Callable[[], datetime] = utc_now, *, by_streams: bool = False
    ) -> None:
        self._location = settings.gcp_location
        self._pseudonym_key = settings.pseudonym_key
        self._dataset = f"{settings.gcp_project}.{settings.dataset_prefix}"
        self._clock = clock
        self._last_landed_at: dict[str, datetime] = {}
        self._known: dict[str, _Known] = {}
        """By stream, as last read or written; a load that goes on from what is out of date is told."""
        self._created_at: dict[str, str] = {}
        """Stream to when its raw table was created: the loads of a table that was dropped are not those of the next."""
        self._attempts: Counter[str] = Counter()
        """The name of a load to how many of its jobs are known to have failed."""
        self._emit_cursors: dict[str, Cursor | None] = {}
        """Topic to what stands in the warehouse; None: nothing."""
        self._emulator = settings.bigquery_emulator_host
        self._client = open_client(settings)
        self._by_streams = by_streams
        self._open: dict[str, WriteStream] = {}
        """Stream to its write stream, while all that was appended to it is answered."""
        self._unsure: dict[str, tuple[WriteStream, pa.Table]] = {}
        """Stream to the write stream that failed, and the rows of which nobody knows how many it took."""
        self._settled: dict[str, set[str]] = {}
        """Stream to the ids of messages without offset that such a write stream took."""
        self._own: set[str] = set()
        """Names of the write streams of this loader."""
        self._empty_offsets: list[dict[str, Any]] = []
        """Rows of EMPTY_OFFSETS_SCHEMA that are not written yet."""
        self._written_at = self._verified_at = time.monotonic()
        """When such rows were written last, and when the tables were verified."""

    def positions(self, source: str, topic_ids: TopicIds) -> Positions:
        with told():
            found = self._read(self._existing_streams())
            positions = {key: end for known in found.values() for key, end in known.positions.items()}
            for *key, first_offset, next_offset in self._read_empty_offsets():
                partition: PartitionKey = tuple(key)
                if first_offset <= positions.get(partition, 0) < next_offset:
                    positions[partition] = next_offset
        if not self._by_streams:  # those of its open streams it knows better
            self._known.update(found)
        return {
            (topic, partition): next_offset
            for (of, topic, topic_id, partition), next_offset in positions.items()
            if of == source and topic_id == topic_ids.get(topic, "")
        }

    def missing_tables(self) -> list[str]:
        """The tables that `create_tables` would create, such as raw.users."""
        with told():
            existing = self._tables("raw")
        return [f"raw.{name}" for name in (*STREAMS, *OTHER_TABLES) if name not in existing]

    def create_tables(self) -> None:
        """Create the dataset, the raw tables and the columns that are missing, so that every model has its source."""
        with told():
            self._add_columns()
            if not self.missing_tables():
                return
            dataset = bigquery.Dataset(f"{self._dataset}raw")
            dataset.location = self._location
            try:  # to create one that exists takes a permission that the account of `land` need not have
                self._client.get_dataset(dataset.reference, **CALL)
            except api.NotFound:
                self._client.create_dataset(dataset, exists_ok=True, **CALL)
            # with its key before the raw tables: after a kill in between, one of these is missing and this is run again
            key_table = f"{self._dataset}raw.pseudonym_key"
            self._client.create_table(bigquery.Table(key_table, OTHER_TABLES["pseudonym_key"]), exists_ok=True, **CALL)
            if not list(self._query(f"select 1 from `{key_table}` limit 1")):  # noqa: S608  the name of a table
                self._load_pseudonym_key()
            for stream in STREAMS:
                table = bigquery.Table(f"{self._dataset}raw.{stream}", _columns(RAW_SCHEMA))
                table.time_partitioning = bigquery.TimePartitioning(field="landed_at")
                table.clustering_fields = ["message_id"]
                self._client.create_table(table, exists_ok=True, **CALL)
            for name, columns in OTHER_TABLES.items():
                self._client.create_table(bigquery.Table(f"{self._dataset}raw.{name}", columns), exists_ok=True, **CALL)

    def _load_pseudonym_key(self) -> None:
        """Of two loaders that begin at one time the first gives the key: a load into a table with rows is refused."""
        file = io.BytesIO()
        inner, outer = pads(self._pseudonym_key)
        pq.write_table(pa.table({"inner_pad": [inner], "outer_pad": [outer]}), file)
        file.seek(0)
        job = self._client.load_table_from_file(
            file,
            f"{self._dataset}raw.pseudonym_key",
            job_config=bigquery.LoadJobConfig(
                source_format=bigquery.SourceFormat.PARQUET,
                write_disposition=bigquery.WriteDisposition.WRITE_EMPTY,
                create_disposition=bigquery.CreateDisposition.CREATE_NEVER,
            ),
            job_id=f"landing_{self._dataset.rpartition('.')[2]}raw_pseudonym_key_{uuid.uuid4().hex}",
            timeout=ANSWER_SECONDS,
        )
        if (error := _end(job)) and error.get("reason") != "duplicate":
            raise _job_error(error)

    def _add_columns(self) -> None:
        """Give the raw tables of an earlier version the columns of decoded messages."""
        columns = _columns(DECODED_SCHEMA)
        for stream in self._existing_streams():
            table = self._client.get_table(f"{self._dataset}raw.{stream}", **CALL)
            known = {column.name for column in table.schema}
            for column in columns:
                if column.name not in known:
                    add = f"add column if not exists {column.name} {column.field_type}"
                    list(self._query(f"alter table `{self._dataset}raw.{stream}` {add}"))

    def held(self) -> AbstractContextManager[None]:
        """Nothing is held: BigQuery takes commits side by side."""
        return nullcontext()

    def commit(self, batches: Sequence[Batch]) -> Mapping[str, int]:
        landed: Counter[str] = Counter()
        with told():
            for alike in split_by_topic_id(batches):
                landed.update(self._commit(alike))
            self._empty_offsets += [row for batch in batches for row in _empty_offsets(batch)]
            if not self._by_streams or time.monotonic() - self._written_at >= SECONDS_BETWEEN_CHECKS:
                with suppress(UnavailableError), told():  # the messages have landed; the next commit writes them too
                    self._write_empty_offsets()
        return landed

    def verify(self) -> None:
        if time.monotonic() - self._verified_at < SECONDS_BETWEEN_CHECKS:
            return
        self._verified_at = time.monotonic()
        with suppress(UnavailableError), told():
            self._check_tables(set())
            self._write_empty_offsets()

    def forget(self) -> None:
        for remembered in (self._known, self._created_at, self._open, self._unsure, self._settled):
            remembered.clear()
        self._empty_offsets.clear()

    def _check_tables(self, streams: Collection[str]) -> None:
        """See that the raw tables are those that this loader landed in, and remember those of these streams."""
        created_at = self._tables("raw")
        for stream in streams - created_at.keys():
            if stream not in self._created_at:
                self.create_tables()
                created_at = self._tables("raw")
                break
        for stream in {*streams, *self._created_at}:
            now = created_at.get(stream, "never")
            if now != self._created_at.setdefault(stream, now):
                raise WarehouseReplacedError(
                    f"{self._dataset}raw.{stream} was created at {self._created_at[stream]} when landing began, and now"
                    f" {now}"
                )

    def _commit(self, batches: Sequence[Batch]) -> Mapping[str, int]:
        loads = list(_loads(batches))
        landed = Counter({load.stream: 0 for load in loads})
        if loads:
            self._check_tables({load.stream for load in loads})
        if self._by_streams:
            for stream in {load.stream for load in loads} - self._open.keys():
                landed[stream] += self._open_stream(stream)
            for load in loads:
                landed[load.stream] += self._append(load)
            return landed
        self._known.update(self._read({load.stream for load in loads} - self._known.keys()))
        while loads:
            for stream in {load.stream for load in loads}:
                if self._known[stream].writer.write_stream:
                    self._take_over(stream, None)
            under_way = [sent for load in loads if (sent := self._send(load))]
            loads = []
            for sent in under_way:
                if sent.job is None:
                    if not self._is_landed_by_another(sent):
                        loads.append(sent.load)
                    continue
                self._see_end(sent.job, sent.name)
                if sent.load.has_offsets:
                    self._known[sent.load.stream] = sent.known
                landed[sent.load.stream] += sent.rows
        return landed

    def _next_landed_at(self, stream: str) -> datetime:
        """Just before rows are sent: while a load waits, for another loader or for the loads before it, a build may go
        by. Ordered within a stream."""
        last = self._last_landed_at.get(stream, datetime.min)  # noqa: DTZ901  UTC without a zone
        self._last_landed_at[stream] = max(self._clock(), last + timedelta(microseconds=1))
        return self._last_landed_at[stream]

    def _send(self, load: _Load) -> _Sent | None:
        """Start the job that loads what is new; None when nothing is."""
        stream = load.stream
        known = self._known[stream]
        if load.has_offsets:
            rows, after = _above(known.positions, load.parts)
            name = self._name_behind(stream, known)
            known = _Known(after, known.writer)
        else:
            rows = _each_once(load.parts)
            name = self._name(
                stream, sorted(zip(rows["topic"].to_pylist(), rows["message_id"].to_pylist(), strict=True))
            )
        if not rows.num_rows:
            return None
        job = self._start(name, stream, _raw_rows(rows, stream, self._next_landed_at(stream)))
        return _Sent(load, name, rows.num_rows, known, job)

    def _name_behind(self, stream: str, known: _Known) -> str:
        """Of the one job that goes on from here."""
        positions = sorted((*partition, next_offset) for partition, next_offset in known.positions.items())
        return self._name(stream, [known.writer.generation, positions])

    def _name(self, stream: str, identity: Any) -> str:
        digest = hashlib.sha256(orjson.dumps([self._created_at[stream], identity])).hexdigest()
        return f"landing_{self._dataset.rpartition('.')[2]}raw_{stream}_{digest[:40]}"

    def _start(self, name: str, table: str, rows: pa.Table) -> Any:
        """The job that loads the rows; None when its id is taken."""
        file = io.BytesIO()
        pq.write_table(rows, file, compression="zstd")
        file.seek(0)
        try:
            return self._client.load_table_from_file(
                file,
                f"{self._dataset}raw.{table}",
                job_id=f"{name}_{self._attempts[name]}",
                job_config=bigquery.LoadJobConfig(
                    source_format=bigquery.SourceFormat.PARQUET,
                    write_disposition=bigquery.WriteDisposition.WRITE_APPEND,
                    create_disposition=bigquery.CreateDisposition.CREATE_NEVER,
                    job_timeout_ms=JOB_TIMEOUT_SECONDS * 1000,
                ),
                timeout=ANSWER_SECONDS,
            )
        except api.Conflict:
            return None

    def _see_end(self, job: Any, name: str) -> None:
        """Wait for the end of a job of ours."""
        if error := _end(job):
            self._attempts[name] += 1
            raise _job_error(error)
        self._attempts.pop(name, None)

    def _has_failed(self, name: str) -> bool:
        """Wait for the job that has the id."""
        return _end(self._client.get_job(f"{name}_{self._attempts[name]}", **CALL)) is not None

    def _is_landed_by_another(self, sent: _Sent) -> bool:
        """Wait for the job that has the id of this load; whether nothing is left to do."""
        stream = sent.load.stream
        failed = self._has_failed(sent.name)
        if not sent.load.has_offsets:
            self._attempts[sent.name] += failed
            return not failed
        before = self._known[stream]
        self._known.update(self._read([stream]))
        # It failed, or somebody has deleted since what it landed.
        self._attempts[sent.name] += before == self._known[stream]
        return False

    def _append(self, load: _Load) -> int:
        """Append what is new, or once more on a new stream what is left; returns how many rows landed."""
        stream = load.stream
        landed = 0
        for is_last in (False, True):
            if stream not in self._open:
                landed += self._open_stream(stream)
            known = self._known[stream]
            if load.has_offsets:
                rows, after = _above(known.positions, load.parts)
                known = _Known(after, known.writer)
            else:
                rows = _each_once(load.parts)
                settled = pa.array(self._settled.get(stream, ()), pa.string())
                rows = rows.filter(pc.invert(pc.is_in(rows["message_id"], settled)))
            if not rows.num_rows:
                break
            try:
                self._open[stream].append(_raw_rows(rows, stream, self._next_landed_at(stream)))
            except api.GoogleAPICallError:
                self._unsure[stream] = self._open.pop(stream), rows
                if is_last:
                    raise
                continue
            self._known[stream] = known
            if not load.has_offsets:
                self._settled.pop(stream, None)
            landed += rows.num_rows
            break
        return landed

    def _open_stream(self, stream: str) -> int:
        """Take a raw table over with a write stream of its own; returns how many of the rows that nobody was sure of
        have landed."""
        project, _, dataset = f"{self._dataset}raw".rpartition(".")
        table = f"projects/{project}/datasets/{dataset}/tables/{stream}"
        try:
            opened = WriteStream(self._write_client, table)
        except api.NotFound as error:  # it was just dropped, or is so new that streams do not know of it yet
            raise UnavailableError(f"BigQuery has no table {self._dataset}raw.{stream} for a write stream") from error
        self._own.add(opened.name)
        landed = 0
        if stream in self._unsure:
            failed, rows = self._unsure[stream]
            if self._read_writers([stream])[stream].write_stream not in self._own:
                raise UserError(
                    f"another `ingest land` has taken over {self._dataset}raw.{stream}: run one loader per stream"
                )
            landed = max(0, finalize(self._write_client, failed.name) - failed.rows)
            taken = rows.slice(0, landed)
            taken = taken.filter(pc.is_null(taken["offset"]))
            self._settled.setdefault(stream, set()).update(taken["message_id"].to_pylist())
        self._take_over(stream, opened.name)
        self._unsure.pop(stream, None)
        self._open[stream] = opened
        return landed

    def _take_over(self, stream: str, write_stream: str | None) -> None:
        """Be the next writer of a raw table, by this write stream or by load jobs. When it returns, nobody before can
        write any more, and the positions are those behind all that they wrote."""
        while True:
            writer = self._read_writers([stream])[stream]
            if writer.write_stream:
                finalize(self._write_client, writer.write_stream)
            known = self._read([stream])[stream]
            if known.writer != writer:
                continue
            name = self._name_behind(stream, known)
            following = _Writer(writer.generation + 1, write_stream)
            row = {"stream": stream, "generation": following.generation, "write_stream": write_stream}
            job = self._start(name, "landing_writers", pa.Table.from_pylist([row], WRITERS_SCHEMA))
            if job is None:
                failed = self._has_failed(name)
                self._attempts[name] += failed or known == self._read([stream])[stream]
                continue
            self._see_end(job, name)
            self._known[stream] = _Known(known.positions, following)
            return

    @cached_property
    def _write_client(self) -> BigQueryWriteClient:
        return open_write_client(self._emulator)

    def _read(self, streams: Collection[str]) -> dict[str, _Known]:
        writers = self._read_writers(streams)
        while True:
            positions = self._read_positions(streams)
            before, writers = writers, self._read_writers(streams)
            if before == writers:
                return {stream: _Known(positions[stream], writers[stream]) for stream in streams}

    def _read_writers(self, streams: Collection[str]) -> dict[str, _Writer]:
        writers = dict.fromkeys(streams, _Writer())
        if not writers:
            return writers
        try:
            rows = list(
                self._query(
                    f"select stream, generation, write_stream from `{self._dataset}raw.landing_writers`"  # noqa: S608  names of ours, DATASET_PREFIX checked
                )
            )
        except api.NotFound:
            return writers  # the tables are of before there were any
        for stream, generation, write_stream in rows:
            if stream in writers and generation > writers[stream].generation:
                writers[stream] = _Writer(generation, write_stream)
        return writers

    def _read_positions(self, streams: Collection[str]) -> dict[str, TablePositions]:
        """Stream to the positions of its raw table. Reads five narrow columns of all of it: at the start, when
        partitions are assigned and after a conflict, not at every commit."""
        found: dict[str, dict[tuple[str, str, str, int], int]] = {stream: {} for stream in streams}
        if not found:
            return {}
        union = "\nunion all\n".join(
            f"select '{stream}', source, topic, ifnull(topic_id, ''), `partition`, max(next_offset)"  # noqa: S608  names of ours, DATASET_PREFIX checked
            f" from `{self._dataset}raw.{stream}` where next_offset is not null group by 2, 3, 4, 5"
            for stream in sorted(found)
        )
        for stream, source, topic, topic_id, partition, next_offset in self._query(union):
            found[stream][source, topic, topic_id, partition] = next_offset
        return dict(found)

    def _read_empty_offsets(self) -> list[tuple[Any, ...]]:
        """In the order of their first offset."""
        try:
            return list(
                self._query(
                    f"select {', '.join(f'`{name}`' for name in EMPTY_OFFSETS_SCHEMA.names)}"  # noqa: S608  names of ours, DATASET_PREFIX checked
                    f" from `{self._dataset}raw.landing_empty_offsets` order by first_offset"
                )
            )
        except api.NotFound:
            return []  # the tables are of before there were any

    def _write_empty_offsets(self) -> None:
        self._written_at = time.monotonic()
        if self._empty_offsets:
            self.create_tables()
            name = f"landing_empty_offsets_{uuid.uuid4().hex}"
            rows = pa.Table.from_pylist(self._empty_offsets, EMPTY_OFFSETS_SCHEMA)
            self._see_end(self._start(name, "landing_empty_offsets", rows), name)
            self._empty_offsets = []

    def status(self) -> dict[str, StreamStatus]:
        nothing = {stream: StreamStatus(0, None, None) for stream in STREAMS}
        with told():
            streams = self._existing_streams()
            if not streams:
                return nothing
            built = "dead_letters" in self._tables("analytics")
            dead_letters = (
                f"select stream, count(*) as dead_letters from `{self._dataset}analytics.dead_letters` group by stream"  # noqa: S608  names of ours, DATASET_PREFIX checked
                if built
                else "select '' as stream, 0 as dead_letters"
            )
            union = " union all ".join(
                f"select '{stream}' as stream, count(*) as landed, max(landed_at) as newest from"  # noqa: S608  names of ours, DATASET_PREFIX checked
                f" `{self._dataset}raw.{stream}`"
                for stream in streams
            )
            rows = self._query(
                f"select raw.stream, landed, newest, ifnull(dead_letters, 0) from ({union}) as raw"  # noqa: S608  names of ours, DATASET_PREFIX checked
                f" left join ({dead_letters}) as rejected on rejected.stream = raw.stream"
            )
            return nothing | {
                stream: StreamStatus(landed, newest and _without_zone(newest), rejected if built else None)
                for stream, landed, newest, rejected in rows
            }

    def unlisted_fields(self, stream: str) -> list[UnlistedField] | None:
        with told():
            if "field_drift" not in self._tables("analytics") or f"stg_{stream}" not in self._tables("staging"):
                return None
            is_staged = f"select exists (select 1 from `{self._dataset}staging.stg_{stream}`)"  # noqa: S608  names of ours, DATASET_PREFIX checked
            if not next(iter(self._query(is_staged)))[0]:
                return None
            found = self._query(
                f"select path, type, example, messages from `{self._dataset}analytics.field_drift`"  # noqa: S608  names of ours, DATASET_PREFIX checked
                " where stream = @stream and problem = 'unlisted' order by messages desc, path, type",
                stream=stream,
            )
            return [UnlistedField(*row) for row in found]

    @contextmanager
    def emitting(self) -> Iterator[None]:
        """BigQuery has no lock: a second `emit` is found out where one of the two saves its cursor, at most a chunk
        later."""
        with told():
            self._see_mart()
        yield

    def emit_cursor(self, topic: str) -> Cursor:
        with told():
            rows: list[Any] = []
            if "emit_watermarks" in self._tables("raw"):
                rows = list(
                    self._query(
                        f"select {', '.join(Cursor._fields)} from `{self._dataset}raw.emit_watermarks`"  # noqa: S608  names of ours, DATASET_PREFIX checked
                        " where topic = @topic",
                        topic=topic,
                    )
                )
        saved = Cursor(*map(_without_zone, rows[0])) if rows else None
        self._emit_cursors[topic] = saved
        return saved or FIRST_CURSOR

    def save_emit_cursor(self, topic: str, cursor: Cursor) -> None:
        known = self._emit_cursors.get(topic)
        with told():
            self.create_tables()
            job = self._query_job(
                SAVE_EMIT_CURSOR.format(raw=f"`{self._dataset}raw"),
                topic=topic,
                **cursor._asdict(),
                known_landed_at=(known or FIRST_CURSOR).session_landed_at,
                known_id=(known or FIRST_CURSOR).session_id,
                known_number=(known or FIRST_CURSOR).sequence_number,
                is_first=known is None,
            )
            job.result(retry=RETRY, timeout=JOB_PATIENCE_SECONDS)
            if not job.num_dml_affected_rows:
                raise UserError(
                    f"another `ingest emit` to {topic} is running on {self._dataset}analytics: let it finish, then"
                    " run this again"
                )
        self._emit_cursors[topic] = cursor

    def count_results(self, after: Cursor) -> int:
        with told():
            self._see_mart()
            after_cursor = RESULTS_AFTER.format(analytics=f"`{self._dataset}analytics")
            [(count,)] = self._query(f"select count(*) {after_cursor}", **after._asdict())
        return int(count)

    def results(self, after: Cursor, chunk_rows: int) -> Iterator[list[Result]]:
        with told():
            self._see_mart()
            job = self._query_job(RESULTS.format(analytics=f"`{self._dataset}analytics"), **after._asdict())
            # BigQuery keeps what the query found for a day.
            pages = iter(job.result(page_size=chunk_rows, retry=RETRY, timeout=JOB_PATIENCE_SECONDS).pages)
        while True:
            with told():
                page = next(pages, None)
                chunk = None if page is None else [Result(*map(_without_zone, row)) for row in page]
            if chunk is None:
                return
            if chunk:
                yield chunk

    def _see_mart(self) -> None:
        if "fct_page_views" not in self._tables("analytics"):
            raise UserError(f"{self._dataset}analytics has no fct_page_views yet: run `make build` first")

    def _existing_streams(self) -> list[str]:
        existing = self._tables("raw")
        return [stream for stream in STREAMS if stream in existing]

    def _tables(self, dataset: str) -> dict[str, str]:
        """Name of each table and view to when it was created; none when there is no such dataset."""
        try:
            tables = list(self._client.list_tables(f"{self._dataset}{dataset}", **CALL))
        except api.NotFound:
            return {}
        return {table.table_id: table.created.isoformat() for table in tables}

    def _query(self, sql: str, **parameters: Any) -> Iterator[tuple[Any, ...]]:
        rows = self._query_job(sql, **parameters).result(retry=RETRY, timeout=JOB_PATIENCE_SECONDS)
        return (row.values() for row in rows)

    def _query_job(self, sql: str, **parameters: Any) -> Any:
        kinds = {str: "STRING", int: "INT64", bool: "BOOL", datetime: "TIMESTAMP"}
        config = bigquery.QueryJobConfig(
            use_query_cache=False,
            query_parameters=[
                ScalarQueryParameter(
                    name, kinds[type(value)], value.replace(tzinfo=UTC) if isinstance(value, datetime) else value
                )
                for name, value in parameters.items()
            ],
        )
        return self._client.query(sql, job_config=config, job_retry=None, **CALL)


def _loads(batches: Sequence[Batch]) -> Iterator[_Load]:
    """At most two a stream: its messages with offsets, and those without."""
    loads: dict[tuple[str, bool], _Load] = {}
    for batch in batches:
        for stream, table in batch.tables.items():
            for has_offsets in (True, False):
                kept = table.filter(pc.is_valid(table["offset"]) if has_offsets else pc.is_null(table["offset"]))
                if kept.num_rows:
                    load = loads.setdefault((stream, has_offsets), _Load(stream, [], has_offsets))
                    load.parts.append((kept, batch))
    yield from loads.values()


def _empty_offsets(batch: Batch) -> Iterator[dict[str, Any]]:
    """Rows of EMPTY_OFFSETS_SCHEMA: where the batch moves a position and has no row that could say so."""
    with_rows = {
        (row["topic"], row["partition"])
        for table in batch.tables.values()
        for row in table.group_by(["topic", "partition"]).aggregate([]).to_pylist()
    }
    for (source, topic, topic_id, partition), next_offset in positions_of(batch).items():
        first_offset = batch.starts.get((topic, partition), next_offset)
        if (topic, partition) not in with_rows and first_offset < next_offset:
            row = (source, topic, topic_id, partition, first_offset, next_offset)
            yield dict(zip(EMPTY_OFFSETS_SCHEMA.names, row, strict=True))


def _above(positions: TablePositions, parts: list[tuple[pa.Table, Batch]]) -> tuple[pa.Table, TablePositions]:
    """The messages at and above the positions, with `topic_id` and `next_offset`, and the positions behind them."""
    after = dict(positions)
    kept = [_with_place(parts[0][0].slice(0, 0), None, [])]
    for table, batch in parts:
        for partition in table.group_by(["source", "topic", "partition"]).aggregate([]).to_pylist():
            source, topic, number = partition["source"], partition["topic"], partition["partition"]
            topic_id = batch.topic_ids.get(topic, "")
            key = (source, topic, topic_id, number)
            is_new = pc.greater_equal(table["offset"], after.get(key, 0))
            for name, value in partition.items():
                is_new = pc.and_(is_new, pc.equal(table[name], value))
            new = table.filter(is_new)
            if new.num_rows:
                after[key] = batch.positions[topic, number]
                kept.append(_with_place(new, topic_id or None, [*new["offset"].to_pylist()[1:], after[key]]))
    return pa.concat_tables(kept), after


def _each_once(parts: list[tuple[pa.Table, Batch]]) -> pa.Table:
    """The first of each message id."""
    table = pa.concat_tables([part for part, _ in parts])
    first: dict[str, int] = {}
    for row, message_id in enumerate(table["message_id"].to_pylist()):
        first.setdefault(message_id, row)
    return _with_place(table.take(list(first.values())), None, [None] * len(first))


def _with_place(table: pa.Table, topic_id: str | None, next_offsets: Sequence[int | None]) -> pa.Table:
    topic_ids = pa.repeat(pa.scalar(topic_id, pa.string()), table.num_rows)
    return table.append_column("topic_id", topic_ids).append_column("next_offset", pa.array(next_offsets, pa.int64()))


def _raw_rows(rows: pa.Table, stream: str, landed_at: datetime) -> pa.Table:
    """In RAW_SCHEMA."""
    table = rows.append_column("stream", pa.repeat(stream, rows.num_rows)).append_column(
        "landed_at", pa.repeat(pa.scalar(landed_at, pa.timestamp("us")), rows.num_rows)
    )
    for field in DECODED_SCHEMA:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(rows.num_rows, field.type))
    return table.select(RAW_SCHEMA.names).cast(RAW_SCHEMA)


def _columns(schema: pa.Schema) -> list[SchemaField]:
    return [
        SchemaField(field.name, BIGQUERY_TYPES[field.type], "NULLABLE" if field.nullable else "REQUIRED")
        for field in schema
    ]


OTHER_TABLES: dict[str, Sequence[SchemaField]] = {
    "landing_writers": _columns(WRITERS_SCHEMA),
    "landing_empty_offsets": _columns(EMPTY_OFFSETS_SCHEMA),
    "emit_watermarks": EMIT_WATERMARKS,
    "pseudonym_key": [SchemaField(name, "BYTES") for name in ("inner_pad", "outer_pad")],
}
"""Tables of the dataset raw beside those of the streams."""


def _end(job: Any) -> Mapping[str, str] | None:
    """Wait for the end of a job; returns why it failed, or None."""
    until = time.monotonic() + JOB_PATIENCE_SECONDS
    while not job.done(**CALL):
        if time.monotonic() >= until:
            raise UnavailableError(
                f"BigQuery: the load job {job.job_id} has not ended for {JOB_PATIENCE_SECONDS:.0f} s; nothing is lost,"
                " run this again"
            )
        time.sleep(POLL_SECONDS)
    error: Mapping[str, str] | None = job.error_result
    return error


def _job_error(error: Mapping[str, str]) -> UserError:
    kind = UnavailableError if error.get("reason") in PASSING_REASONS else UserError
    return kind(f"BigQuery could not load: {_first_line(error.get('message', 'no reason given'))}")


def open_client(settings: Settings) -> Any:
    """A google.cloud.bigquery.Client of the project, or of the emulator.

    Raises:
        UserError: without credentials.
    """
    emulator = settings.bigquery_emulator_host
    with told():
        return bigquery.Client(
            project=settings.gcp_project,
            location=settings.gcp_location,
            credentials=AnonymousCredentials() if emulator else None,
            client_options={"api_endpoint": emulator} if emulator else None,
        )


@contextmanager
def told() -> Iterator[None]:
    """What Google's client raises, as UserError or UnavailableError."""
    try:
        yield
    except auth.DefaultCredentialsError as error:
        raise UserError(
            "no Google Cloud credentials: run `gcloud auth application-default login`, or set"
            " GOOGLE_APPLICATION_CREDENTIALS"
        ) from error
    except auth.RefreshError as error:
        raise UserError(
            f"Google Cloud credentials expired or were revoked ({_first_line(error)}): run"
            " `gcloud auth application-default login`"
        ) from error
    except (
        api.RetryError,
        api.ServerError,
        api.TooManyRequests,
        api.Aborted,
        api.Cancelled,
        auth.TransportError,
        requests.RequestException,
        ConnectionError,
        TimeoutError,
        DataCorruption,
    ) as error:
        raise UnavailableError(f"BigQuery does not answer: {_first_line(error)}") from error
    except api.GoogleAPICallError as error:
        reasons = {detail.get("reason") for detail in error.errors if isinstance(detail, dict)}
        kind = UnavailableError if reasons & PASSING_REASONS else UserError
        raise kind(f"BigQuery refuses: {_first_line(error)}; see GCP_PROJECT and DATASET_PREFIX") from error


def _without_zone(value: Any) -> Any:
    """UTC without a zone, as all times of the warehouse."""
    return value.replace(tzinfo=None) if isinstance(value, datetime) else value


def _first_line(error: object) -> str:
    return str(error).strip().partition("\n")[0]
