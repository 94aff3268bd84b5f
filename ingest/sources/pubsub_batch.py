"""Converts the messages of Pub/Sub pulls to the Arrow tables of a batch."""

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
    """The messages of one pull, with a common deadline."""

    stream: str
    ack_ids: list[str]
    table: pa.Table
    expires: float
    """Monotonic time of the deadline, in seconds: if unacknowledged by then, Pub/Sub delivers the messages again."""

    @property
    def rows(self) -> int:
        return len(self.ack_ids)


def to_batch(pulls: list[Pull], *, is_end: bool = False) -> Batch:
    """Return the messages of these pulls as a batch, with each message id once per stream."""
    tables: dict[str, list[pa.Table]] = defaultdict(list)
    for pull in pulls:
        tables[pull.stream].append(pull.table)
    return Batch(
        {name: _deduplicate(pa.concat_tables(parts)) for name, parts in tables.items()},
        acknowledgement=pulls,
        is_end=is_end,
    )


def pulled_table(topic: str, messages: Sequence[Any]) -> pa.Table:
    """Return messages (plain protobuf) of one topic in BATCH_SCHEMA."""
    # Column by column, since creating an object per message would cost as much as reading the message.
    times = [message.publish_time for message in messages]
    attributes: list[Mapping[str, str]] = [message.attributes for message in messages]
    return pubsub_table(
        topic,
        [message.message_id for message in messages],
        [message.ordering_key for message in messages],
        # A shared constant, since reading an empty protobuf map is slow.
        [dict(names) if names else NO_ATTRIBUTES for names in attributes],
        [time.seconds * 1_000_000 + time.nanos // 1000 for time in times],
        [message.data for message in messages],
    )


def _deduplicate(table: pa.Table) -> pa.Table:
    """Return the first row of each message id."""
    if pc.count_distinct(table["message_id"]).as_py() == table.num_rows:
        return table
    first: dict[str, int] = {}
    for index, message_id in enumerate(table["message_id"].to_pylist()):
        first.setdefault(message_id, index)
    return table.take(list(first.values()))
