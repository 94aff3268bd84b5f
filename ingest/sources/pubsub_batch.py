"""Turns the messages of Pub/Sub pulls into the Arrow tables of a batch."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from engines.batch import Batch
from ingest.message import NO_ATTRIBUTES, pubsub_table


@dataclass(slots=True, eq=False)
class Pull:
    """The messages of one pull: they wait in the buffer, then for their commit. Leased as a whole."""

    stream: str
    ack_ids: list[str]
    table: pa.Table
    expires: float
    """The monotonic time at which the deadline passes."""

    @property
    def rows(self) -> int:
        return len(self.ack_ids)


def to_batch(pulls: list[Pull], *, is_end: bool = False) -> Batch:
    """Return the messages of these pulls, each message id once per stream."""
    tables: dict[str, list[pa.Table]] = defaultdict(list)
    for pull in pulls:
        tables[pull.stream].append(pull.table)
    return Batch(
        {name: _without_repetitions(pa.concat_tables(parts)) for name, parts in tables.items()},
        acknowledgement=pulls,
        is_end=is_end,
    )


def pulled_table(topic: str, messages: Sequence[Any]) -> pa.Table:
    """Return messages (plain protobuf) of one topic in BATCH_SCHEMA."""
    # Column by column: an object per message would cost as much as reading it.
    times = [message.publish_time for message in messages]
    attributes: list[Mapping[str, str]] = [message.attributes for message in messages]
    return pubsub_table(
        topic,
        [message.message_id for message in messages],
        [message.ordering_key for message in messages],
        # An empty map of a protobuf is slow to read.
        [dict(some) if some else NO_ATTRIBUTES for some in attributes],
        [time.seconds * 1_000_000 + time.nanos // 1000 for time in times],
        [message.data for message in messages],
    )


def _without_repetitions(table: pa.Table) -> pa.Table:
    """The first row of each message id."""
    if pc.count_distinct(table["message_id"]).as_py() == table.num_rows:
        return table
    first: dict[str, int] = {}
    for place, message_id in enumerate(table["message_id"].to_pylist()):
        first.setdefault(message_id, place)
    return table.take(list(first.values()))
