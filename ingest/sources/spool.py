"""Reads the spool: message logs on disk, `SPOOL_PATH/<stream>/<partition>.ndjson`, one envelope a line.

A log is read by offset exactly as a Kafka partition is. The offset of a message is the byte at which
its line starts, so that landing goes on in the middle of a large log without reading what stands before.
"""

import os
import re
import time
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa

from ingest.errors import UserError
from ingest.message import BATCH_SCHEMA, Batch
from ingest.settings import Settings
from ingest.sources import ReadPositions
from ingest.streams import Stream

POLL_SECONDS = 0.05
READ_BYTES = 4 * 1024 * 1024
LineEnds = np.ndarray[tuple[int], np.dtype[np.int64]]
"""Places of newlines in what was read."""
ROWS_PER_CHUNK = 8_192
"""DuckDB parses chunks side by side, and a single one on one core only."""

# A line that is no envelope is landed whole as its own payload: staging rejects it, and nothing is lost.
# The bounds of published_at are the years 1 to 9999: what every warehouse and Python can hold.
PARSE_LINES = """
with bodies as (
    select "offset", line, try(decode(line)) as body from lines
),

typed as (
    select *, try(json_type(body, ['$.key', '$.attributes', '$.published_at', '$.payload'])) as types from bodies
),

parsed as (
    -- case, since both sides of an `and` are evaluated
    select
        *,
        case
            when
                coalesce(types[1], 'NULL') in ('VARCHAR', 'NULL')
                and coalesce(types[2], 'NULL') in ('OBJECT', 'NULL')
                and coalesce(types[3], 'NULL') in ('BIGINT', 'UBIGINT', 'NULL')
                and types[4] in ('VARCHAR', 'NULL')
                then json_transform(
                    body, '{"key": "VARCHAR", "attributes": "VARCHAR", "published_at": "BIGINT", "payload": "VARCHAR"}'
                )
        end as envelope
    from typed
),

decoded as (
    select *, try(from_base64(envelope.key)) as key, try(from_base64(envelope.payload)) as payload from parsed
),

judged as (
    select
        *,
        envelope is not null
        and (key is null) = (envelope.key is null)
        and (payload is null) = (envelope.payload is null)
        and coalesce(
            envelope.published_at between -62135596800000000 and 253402300799999999,
            coalesce(types[3], 'NULL') = 'NULL'
        ) as is_envelope
    from decoded
)

select
    'spool' as source,
    $topic as topic,
    cast($partition as integer) as "partition",
    "offset",
    concat_ws('/', $topic, $partition, "offset") as message_id,
    case when is_envelope then key end as key,
    case when is_envelope then nullif(envelope.attributes, '{}') end as attributes,
    case when is_envelope then try(make_timestamp(envelope.published_at)) end as published_at,
    -- the line without the newline that ends it
    case when is_envelope then payload else line[:-2] end as payload
from judged
"""


class _Log(NamedTuple):
    """One partition of a stream."""

    stream: str
    partition: int
    path: Path

    @property
    def key(self) -> tuple[str, int]:
        """The name of a topic is that of its stream: `TOPICS` names those of the brokers."""
        return self.stream, self.partition


class SpoolSource:
    """All partitions of the given streams.

    Raises:
        UserError: when a log cannot be read, or is not what was landed of it (it was cut or replaced).
    """

    idle_timeout_seconds = 0.0
    problems = ()

    def __init__(self, settings: Settings, streams: list[Stream], read_positions: ReadPositions) -> None:
        self._root = settings.spool_path
        self._max_rows = settings.landing_max_rows
        self._max_bytes = settings.landing_max_bytes
        self._streams = [stream.name for stream in streams]
        self._next = dict(read_positions({}))
        """Byte at which the next message of each log starts."""
        self._turn = 0
        """Index of the log to read first, so that one which keeps growing does not hold up the others."""
        self._read_to_end: set[tuple[str, int]] = set()
        self._parser = duckdb.connect()

    def fetch(self, timeout: float) -> Batch | None:
        deadline = time.monotonic() + timeout
        while True:
            logs = list(self._logs())
            for index in [*range(self._turn, len(logs)), *range(min(self._turn, len(logs)))]:
                batch = self._read(logs[index])
                if batch is not None:
                    self._turn = index + 1
                    return batch
            if time.monotonic() >= deadline:
                return None
            time.sleep(POLL_SECONDS)

    def acknowledge(self, batch: Batch) -> None:
        """Nothing to tell: the warehouse alone knows how far the spool is landed."""

    def waiting(self) -> dict[str, int | None]:
        counts = dict.fromkeys(self._streams, 0)
        for log in self._logs():
            with self._open(log) as file:
                counts[log.stream] += sum(chunk.count(b"\n") for chunk in iter(partial(file.read, READ_BYTES), b""))
        return dict(counts)

    def oldest_waiting(self) -> dict[str, datetime | None]:
        oldest: dict[str, datetime | None] = dict.fromkeys(self._streams)
        for log in self._logs():
            with self._open(log) as file:
                line = file.readline()
            if line.endswith(b"\n"):
                published_at = self._parse(log, bytearray(line), np.array([len(line) - 1]))["published_at"][0].as_py()
                oldest[log.stream] = min(filter(None, (oldest[log.stream], published_at)), default=None)
        return oldest

    def close(self) -> None:
        self._parser.close()

    def _logs(self) -> Iterator[_Log]:
        for stream in self._streams:
            for path in sorted((self._root / stream).glob("*.ndjson")):
                # one file a partition: neither 00 nor ²
                if re.fullmatch(r"0|[1-9][0-9]{0,8}", path.stem):
                    yield _Log(stream, int(path.stem), path)

    def _open(self, log: _Log) -> BinaryIO:
        """The file, at the first byte that is not landed."""
        start = self._next.get(log.key, 0)
        try:
            file = log.path.open("rb")
        except OSError as error:
            raise UserError(f"cannot read {log.path}: {error.strerror}; see SPOOL_PATH") from error
        # The byte before must end a line. A log that ends there and one that is shorter both have none behind.
        if start and os.pread(file.fileno(), 1, start - 1) != b"\n":
            file.close()
            raise UserError(
                f"{log.path} was landed up to byte {start}, and no line ends there now: it was cut or replaced."
                " Put it back, or start again: `make clean`"
            )
        file.seek(start)
        return file

    def _read(self, log: _Log) -> Batch | None:
        with self._open(log) as file:
            chunk, ends, is_all = self._whole_lines(file)
        if is_all:
            self._read_to_end.add(log.key)
        if not len(ends):
            return None
        parsed = self._parse(log, chunk, ends)
        self._next[log.key] = self._next.get(log.key, 0) + int(ends[-1]) + 1
        is_end = self._read_to_end >= {log.key for log in self._logs()}
        return Batch({log.stream: parsed}, {log.key: self._next[log.key]}, is_end=is_end)

    def _parse(self, log: _Log, chunk: bytearray, ends: LineEnds) -> pa.Table:
        """The messages of these lines, in BATCH_SCHEMA."""
        start = self._next.get(log.key, 0)
        starts = np.concatenate(([0], ends + 1)).astype(np.int64)
        lines = pa.table(
            {
                "offset": pa.array(starts[:-1] + start),
                "line": pa.Array.from_buffers(
                    pa.large_binary(), len(ends), [None, pa.py_buffer(starts.tobytes()), pa.py_buffer(chunk)]
                ),
            }
        )
        self._parser.register("lines", pa.Table.from_batches(lines.to_batches(max_chunksize=ROWS_PER_CHUNK)))
        parameters = {"topic": log.stream, "partition": log.partition}
        parsed: pa.Table = self._parser.sql(PARSE_LINES, params=parameters).to_arrow_table()
        self._parser.unregister("lines")
        return parsed.cast(BATCH_SCHEMA)

    def _whole_lines(self, file: BinaryIO) -> tuple[bytearray, LineEnds, bool]:
        """What is read, where its whole lines end (without a torn last line: it waits until it is complete), and
        whether that is all there is.

        Up to LANDING_MAX_ROWS and LANDING_MAX_BYTES; more bytes only for a single longer line.
        """
        chunk = bytearray()
        rows = 0
        is_all = False
        while rows < self._max_rows and (len(chunk) < self._max_bytes or not rows):
            block = file.read(READ_BYTES)
            if not block:
                is_all = True
                break
            chunk += block
            rows += block.count(b"\n")
        ends = np.flatnonzero(np.frombuffer(chunk, dtype=np.uint8) == ord("\n"))
        fitting = min(self._max_rows, max(1, int(np.searchsorted(ends, self._max_bytes))))
        return chunk, ends[:fitting], is_all and fitting >= len(ends)
