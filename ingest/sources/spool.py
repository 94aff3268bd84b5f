"""Reads the spool: message logs on disk, `SPOOL_PATH/<topic>/<partition>.ndjson`, one envelope a line.

A log is read by offset exactly as a Kafka partition is. The offset of a message is the byte at which
its line starts, so that landing goes on in the middle of a large log without reading what stands before.
"""

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from ingest.errors import UserError
from ingest.message import BATCH_SCHEMA, Batch
from ingest.settings import Settings
from ingest.sources import ReadPositions
from ingest.streams import Stream

POLL_SECONDS = 0.05

# A line that is no envelope is landed whole as its own payload: staging rejects it, and nothing is lost.
PARSE_LINES = """
with bodies as (
    select *, try(decode(line)) as body from lines
),

objects as (
    -- case, since both sides of an `and` are evaluated
    select *, case when json_valid(body) then json_type(body) = 'OBJECT' else false end as is_object from bodies
),

envelopes as (
    select
        *,
        if(is_object, json_transform(
            body, '{"key": "VARCHAR", "attributes": "VARCHAR", "published_at": "BIGINT", "payload": "VARCHAR"}'
        ), null) as envelope
    from objects
),

decoded as (
    select *, try(from_base64(envelope.key)) as key, try(from_base64(envelope.payload)) as decoded_payload
    from envelopes
)

select
    'spool' as source,
    $topic as topic,
    cast($partition as integer) as "partition",
    "offset",
    concat_ws('/', $topic, $partition, "offset") as message_id,
    key,
    nullif(envelope.attributes, '{}') as attributes,
    make_timestamp(envelope.published_at) as published_at,
    case
        when not is_object then line
        when decoded_payload is null and coalesce(json_type(body, '$.payload'), 'missing') != 'NULL' then line
        when key is null and envelope.key is not null then line
        else decoded_payload
    end as payload
from decoded
order by "offset"
"""


class SpoolSource:
    """All partitions of the given streams.

    Raises:
        UserError: when a log is shorter than what was landed of it (it was cut or replaced).
    """

    drained_after_seconds = 0.0

    def __init__(self, settings: Settings, streams: list[Stream], read_positions: ReadPositions) -> None:
        self._settings = settings
        self._streams = streams
        self._next = dict(read_positions())
        self._parser = duckdb.connect(config={"threads": 2})

    def fetch(self, timeout: float) -> Batch | None:
        deadline = time.monotonic() + timeout
        while True:
            for stream, topic, partition, path in self._logs():
                batch = self._read(stream, topic, partition, path)
                if batch is not None:
                    return batch
            if time.monotonic() >= deadline:
                return None
            time.sleep(POLL_SECONDS)

    def acknowledge(self, batch: Batch) -> None:
        """Nothing to tell: the warehouse alone knows how far the spool is landed."""

    def waiting(self) -> dict[str, int | None]:
        counts: dict[str, int | None] = {stream.name: 0 for stream in self._streams}
        for stream, topic, partition, path in self._logs():
            lines = 0
            with path.open("rb") as log:
                log.seek(self._next.get((topic, partition), 0))
                for chunk in iter(partial(log.read, 1 << 20), b""):
                    lines += chunk.count(b"\n")
            counts[stream.name] = (counts[stream.name] or 0) + lines
        return counts

    def close(self) -> None:
        self._parser.close()

    def _logs(self) -> Iterator[tuple[Stream, str, int, Path]]:
        for stream in self._streams:
            topic = self._settings.topic(stream)
            for path in sorted((self._settings.spool_path / topic).glob("*.ndjson")):
                if path.stem.isdigit():
                    yield stream, topic, int(path.stem), path

    def _read(self, stream: Stream, topic: str, partition: int, path: Path) -> Batch | None:
        start = self._next.get((topic, partition), 0)
        size = path.stat().st_size
        if size < start:
            raise UserError(
                f"{path} ends at byte {size}, but was landed up to byte {start}: it was cut or replaced."
                " Put it back, or start again with an empty SPOOL_PATH and WAREHOUSE_PATH"
            )
        if size == start:
            return None
        chunk = self._whole_lines(path, start)
        if not chunk:
            return None
        ends = np.flatnonzero(np.frombuffer(chunk, dtype=np.uint8) == ord("\n"))[: self._settings.landing_max_rows]
        starts = np.concatenate(([0], ends + 1)).astype(np.int64)
        lines = pa.table(
            {
                "offset": pa.array(starts[:-1] + start),
                "line": pa.Array.from_buffers(
                    pa.large_binary(), len(ends), [None, pa.py_buffer(starts.tobytes()), pa.py_buffer(chunk)]
                ),
            }
        )
        self._parser.register("lines", lines)
        parsed: pa.Table = self._parser.sql(
            PARSE_LINES, params={"topic": topic, "partition": partition}
        ).to_arrow_table()
        position = start + int(starts[-1])
        self._next[topic, partition] = position
        return Batch({stream.name: parsed.cast(BATCH_SCHEMA)}, {(topic, partition): position})

    def _whole_lines(self, path: Path, start: int) -> bytes:
        """Up to LANDING_MAX_BYTES of whole lines; more only for a single longer line. A torn last line waits."""
        limit = self._settings.landing_max_bytes
        with path.open("rb") as log:
            log.seek(start)
            chunk = log.read(limit)
            while (end := chunk.rfind(b"\n")) < 0:
                more = log.read(limit)
                if not more:
                    return b""
                chunk += more
        return chunk[: end + 1]
