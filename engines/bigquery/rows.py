"""Turns the batches of a commit into rows of the raw tables: which messages are new, and in which columns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from engines.batch import DECODED_SCHEMA, Batch
from engines.bigquery.tables import RAW_SCHEMA
from engines.warehouse import PartitionKey

TablePositions = Mapping[PartitionKey, int]
"""Partition to the offset of the next message to land, of one raw table."""


@dataclass(slots=True)
class Load:
    """Messages to land in one raw table."""

    stream: str
    parts: list[tuple[pa.Table, Batch]]
    """Messages in BATCH_SCHEMA, all with offsets or all without, and the batch that they belong to."""
    has_offsets: bool


class LandingClock:
    """Gives landing times that rise within a stream, even if the clock goes back.

    Ask for the time just before the rows are sent: rows that waited for another loader with an earlier time would
    appear below the upper bound of a build that ran meanwhile.
    """

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._last: dict[str, datetime] = {}

    def now(self, stream: str) -> datetime:
        last = self._last.get(stream, datetime.min)  # noqa: DTZ901  UTC without a zone
        self._last[stream] = max(self._clock(), last + timedelta(microseconds=1))
        return self._last[stream]


def split_into_loads(batches: Sequence[Batch]) -> list[Load]:
    """At most two loads per stream: of its messages with offsets, and of those without."""
    loads: dict[tuple[str, bool], Load] = {}
    for batch in batches:
        for stream, table in batch.tables.items():
            for has_offsets in (True, False):
                kept = table.filter(pc.is_valid(table["offset"]) if has_offsets else pc.is_null(table["offset"]))
                if kept.num_rows:
                    load = loads.setdefault((stream, has_offsets), Load(stream, [], has_offsets))
                    load.parts.append((kept, batch))
    return list(loads.values())


def new_rows(positions: TablePositions, parts: list[tuple[pa.Table, Batch]]) -> tuple[pa.Table, TablePositions]:
    """The messages at and above the positions, with `topic_id` and `next_offset`, and the positions after them."""
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


def distinct_rows(parts: list[tuple[pa.Table, Batch]]) -> pa.Table:
    """The first message of each message id, of messages without offsets."""
    table = pa.concat_tables([part for part, _ in parts])
    first: dict[str, int] = {}
    for row, message_id in enumerate(table["message_id"].to_pylist()):
        first.setdefault(message_id, row)
    return _with_place(table.take(list(first.values())), None, [None] * len(first))


def raw_rows(rows: pa.Table, stream: str, landed_at: datetime) -> pa.Table:
    """The rows in RAW_SCHEMA."""
    table = rows.append_column("stream", pa.repeat(stream, rows.num_rows)).append_column(
        "landed_at", pa.repeat(pa.scalar(landed_at, pa.timestamp("us")), rows.num_rows)
    )
    for field in DECODED_SCHEMA:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(rows.num_rows, field.type))
    return table.select(RAW_SCHEMA.names).cast(RAW_SCHEMA)


def _with_place(table: pa.Table, topic_id: str | None, next_offsets: Sequence[int | None]) -> pa.Table:
    topic_ids = pa.repeat(pa.scalar(topic_id, pa.string()), table.num_rows)
    return table.append_column("topic_id", topic_ids).append_column("next_offset", pa.array(next_offsets, pa.int64()))
