"""Reads the spool: message logs on disk, `SPOOL_PATH/<stream>/<partition>.ndjson`, one envelope per line.

A log is read by offset, like a Kafka partition. The offset of a message is the byte at which its line starts, so that
landing can continue in the middle of a large log.

A log has an id, like a Kafka topic: the field `log_id` at the beginning of its first line, which
`ingest.producers.spool` writes. A log that is removed and written again has another id, and is read from its start.
Logs of other programs and earlier versions have no id. These are read from the warehouse's position as long as a line
ends there.
"""

import os
import re
import time
from collections.abc import Iterator, Mapping, Set
from contextlib import ExitStack, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
import structlog

from common.errors import UserError
from common.settings import Settings
from common.streams import STREAMS, Stream
from engines.batch import BATCH_SCHEMA, Batch
from ingest.batching import BatchBounds, BatchSize
from ingest.sources import ReadPositions
from ingest.sources.spool_lines import MAX_LINES, parse_lines

NO_LOG = (
    "not landed: the spool holds <stream>/<partition>.ndjson, such as users/0.ndjson; "
    "`python -m ingest replay` produces a file of events"
)
POLL_SECONDS = 0.05
READ_BYTES = 4 * 1024 * 1024
LOG_ID = re.compile(rb'\{"log_id":"([0-9a-f]{32})"')
LineEnds = np.ndarray[tuple[int], np.dtype[np.int64]]
"""Byte offsets of the newlines in a chunk."""
ROWS_PER_CHUNK = 8_192
"""Rows per Arrow chunk; DuckDB parses the chunks in parallel."""

logger = structlog.get_logger()

# A line that is not an envelope is landed whole as the payload, so that staging makes it a dead letter.
# The bounds of published_at are the years 1 to 9999, the range of warehouse timestamps.
PARSE_LINES = """
with bodies as (
    select "offset", line, try(decode(line)) as body from lines
),

typed as (
    select *, try(json_type(body, ['$.key', '$.attributes', '$.published_at', '$.payload'])) as types from bodies
),

parsed as (
    -- `case`, since DuckDB evaluates both sides of an `and`, and json_transform fails on malformed JSON
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

validated as (
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
from validated
"""


def _opened(path: Path) -> BinaryIO:
    """Open a log; raises FileNotFoundError if it was removed since it was listed."""
    try:
        return path.open("rb")
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not path.is_symlink():
            raise
        raise UserError(f"cannot read {path}: {error.strerror}; see SPOOL_PATH") from error


def _log_id(file: BinaryIO) -> str:
    found = LOG_ID.match(os.pread(file.fileno(), 64, 0))
    return found[1].decode() if found else ""


class _Log(NamedTuple):
    """One partition of a stream."""

    stream: str
    partition: int
    path: Path

    @property
    def key(self) -> tuple[str, int]:
        """(topic, partition). The topic is the stream's name, since `TOPICS` applies to brokers only."""
        return self.stream, self.partition


class SpoolSource:
    """Reads the logs of the given streams.

    Raises:
        UserError: if a log cannot be read, or is shorter than the warehouse's position.
    """

    idle_timeout_seconds = 0.0
    problems = ()

    def __init__(self, settings: Settings, streams: list[Stream], read_positions: ReadPositions) -> None:
        self._root = settings.spool_path
        self._bounds = BatchBounds.for_fetch(settings)
        self._streams = [stream.name for stream in streams]
        self._read_positions = read_positions
        self._ids: dict[tuple[str, int], str] = {}
        """The id of each log; '' if it has none."""
        self._next: dict[tuple[str, int], int] = {}
        """Byte offset of the next message of each log."""
        self._turn = 0
        """Index of the log to read next: they take turns, so that a fast-growing log does not delay the others."""
        self._read_to_end: set[tuple[str, int]] = set()
        self._parser = duckdb.connect()
        self._ignored: set[Path] = set()
        """Files about which a warning was logged."""
        for path in sorted(self._root.glob("*")):
            if path.is_dir() and path.name not in {*STREAMS, *self._streams}:
                self._ignore(
                    path,
                    f"not landed: {self._root.name}/{path.name} has no contract in streams/; add a contract, or remove"
                    " the folder",
                )
            elif path.suffix == ".ndjson":
                self._ignore(path, NO_LOG)
        found = {}
        for one in self._logs():
            with suppress(FileNotFoundError), _opened(one.path) as file:
                found[one.key] = _log_id(file)
        self._find_positions(found)

    def fetch(self, timeout: float) -> Batch | None:
        deadline = time.monotonic() + timeout
        while True:
            logs = list(self._logs())
            keys = {log.key for log in logs}
            for index in [*range(self._turn, len(logs)), *range(min(self._turn, len(logs)))]:
                batch = self._read(logs[index], keys)
                if batch is not None:
                    self._turn = index + 1
                    return batch
            if time.monotonic() >= deadline:
                return None
            time.sleep(POLL_SECONDS)

    def acknowledge(self, batch: Batch) -> None:
        """Do nothing, since only the warehouse keeps positions of the spool."""

    def waiting(self) -> dict[str, int | None]:
        counts = dict.fromkeys(self._streams, 0)
        for log in self._logs():
            with suppress(FileNotFoundError), self._open(log) as file:
                counts[log.stream] += sum(chunk.count(b"\n") for chunk in iter(partial(file.read, READ_BYTES), b""))
        return dict(counts)

    def oldest_waiting(self) -> dict[str, datetime | None]:
        oldest: dict[str, datetime | None] = dict.fromkeys(self._streams)
        for log in self._logs():
            line = b""
            with suppress(FileNotFoundError), self._open(log) as file:
                line = file.readline()
            if line.endswith(b"\n"):
                published_at = self._parse(log, bytearray(line), np.array([len(line) - 1]))["published_at"][0].as_py()
                oldest[log.stream] = min(filter(None, (oldest[log.stream], published_at)), default=None)
        return oldest

    def close(self) -> None:
        self._parser.close()

    def _logs(self) -> Iterator[_Log]:
        for stream in self._streams:
            for path in sorted((self._root / stream).glob("*")):
                # Only canonical numbers, so that 0 and 00 are not two files of one partition.
                if path.suffix == ".ndjson" and re.fullmatch(r"0|[1-9][0-9]{0,8}", path.stem):
                    yield _Log(stream, int(path.stem), path)
                else:
                    self._ignore(path, NO_LOG)

    def _ignore(self, path: Path, why: str) -> None:
        """Warn once about a file or folder that is not landed, unless it is hidden."""
        if path not in self._ignored and not path.name.startswith("."):
            self._ignored.add(path)
            logger.warning(why, path=str(path))

    def _find_positions(self, log_ids: Mapping[tuple[str, int], str]) -> None:
        """Read the positions of these logs from the warehouse.

        One call per partition number, since `ReadPositions` takes one id per topic and each log has its own id.
        """
        for partition in {partition for _, partition in log_ids}:
            topic_ids = {stream: log_id for (stream, number), log_id in log_ids.items() if number == partition}
            positions = self._read_positions({stream: log_id for stream, log_id in topic_ids.items() if log_id})
            for stream, log_id in topic_ids.items():
                self._ids[stream, partition] = log_id
                self._next[stream, partition] = positions.get((stream, partition), 0)

    def _open(self, log: _Log) -> BinaryIO:
        """Open a log at the first byte that has not landed."""
        file = _opened(log.path)
        with ExitStack() as closing_on_error:
            closing_on_error.enter_context(file)
            log_id = _log_id(file)
            if self._ids.get(log.key) != log_id:
                self._find_positions({log.key: log_id})
            start = self._next[log.key]
            # The byte before the position must end a line.
            if start and os.pread(file.fileno(), 1, start - 1) != b"\n":
                raise UserError(
                    f"{log.path} has landed up to byte {start}, but no line ends there now: it was truncated or"
                    " replaced. Restore it, or remove it and produce its messages again"
                )
            closing_on_error.pop_all()
        file.seek(start)
        return file

    def _read(self, log: _Log, keys: Set[tuple[str, int]]) -> Batch | None:
        """Read the next messages of a log. `keys` are those of all logs."""
        try:
            with self._open(log) as file:
                chunk, ends, is_all = self._whole_lines(file)
                log_id = _log_id(file)
        except FileNotFoundError:
            return None
        if len(ends) and log_id != self._ids[log.key]:
            return self._read(log, keys)  # the first line was written after the id was read
        if is_all:
            self._read_to_end.add(log.key)
        if not len(ends):
            return None
        parsed = self._parse(log, chunk, ends)
        self._next[log.key] += int(ends[-1]) + 1
        is_end = self._read_to_end >= keys
        topic_ids = {log.stream: log_id} if log_id else {}
        return Batch({log.stream: parsed}, {log.key: self._next[log.key]}, topic_ids, is_end=is_end)

    def _parse(self, log: _Log, chunk: bytearray, ends: LineEnds) -> pa.Table:
        """Parse the lines of a chunk into a table of BATCH_SCHEMA."""
        start = self._next[log.key]
        if len(ends) <= MAX_LINES:
            parsed = parse_lines(log.stream, log.partition, start, chunk, int(ends[-1]) + 1)
            if parsed is not None:
                return parsed
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
        parsed = self._parser.sql(PARSE_LINES, params=parameters).to_arrow_table()
        self._parser.unregister("lines")
        return parsed.cast(BATCH_SCHEMA)

    def _whole_lines(self, file: BinaryIO) -> tuple[bytearray, LineEnds, bool]:
        """Read complete lines, up to LANDING_MAX_ROWS and LANDING_MAX_BYTES. A single line may have more bytes.

        Returns:
            The bytes read, the offset of each newline in them, and whether all complete lines of the file were read.
            An incomplete last line is read once it is complete.
        """
        chunk = bytearray()
        size = BatchSize(self._bounds)
        is_all = False
        while not size.is_full or not size.rows:
            block = file.read(READ_BYTES)
            if not block:
                is_all = True
                break
            chunk += block
            size.add(block.count(b"\n"), len(block))
        ends = np.flatnonzero(np.frombuffer(chunk, dtype=np.uint8) == ord("\n"))
        fitting = self._bounds.fitting_rows(ends)
        return chunk, ends[:fitting], is_all and fitting >= len(ends)
