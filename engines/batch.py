"""Batches: messages fetched together from one source, as a warehouse lands them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

BATCH_SCHEMA = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("topic", pa.string(), nullable=False),
        pa.field("partition", pa.int32()),
        pa.field("offset", pa.int64()),
        pa.field("message_id", pa.string(), nullable=False),
        pa.field("key", pa.binary()),
        pa.field("attributes", pa.string()),
        pa.field("published_at", pa.timestamp("us")),
        pa.field("payload", pa.binary()),
    ]
)
"""Columns of a batch: those of a raw table, without `stream` and `landed_at`, which the commit adds.

`source` is kafka, pubsub, spool or recover. `partition` and `offset` are null for Pub/Sub and recovered messages.
`message_id` is `topic/partition/offset`, the Pub/Sub id, or a `recovered_id`. `attributes` is JSON text. `published_at`
is UTC."""

DECODED_SCHEMA = pa.schema(
    [
        pa.field("schema_id", pa.int64()),
        pa.field("decoded", pa.binary()),
        pa.field("decoded_key", pa.binary()),
        pa.field("decode_error", pa.string()),
    ]
)
"""Further columns of a raw table, filled for streams whose format is not json.

`schema_id` is the registry's id of the payload's schema. `decoded` and `decoded_key` are payload and key as JSON text,
null if they are not in Confluent's wire format or cannot be decoded. `decode_error` is the reason for the payload."""

Positions = Mapping[tuple[str, int], int]
"""Maps (topic, partition) to the offset of the next message to land."""

TopicIds = Mapping[str, str]
"""Maps a topic to the id that Kafka assigned when it was created. A topic that is deleted and created again has another
id, and its offsets start at 0. In the spool each log (partition) has an id. Topics of brokers before Kafka 2.8 and logs
of other programs have no id, and are not in the mapping."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages fetched together from one source."""

    tables: Mapping[str, pa.Table]
    """Stream name to its messages in BATCH_SCHEMA, in the order of the source. Decoded messages also have the columns
    of DECODED_SCHEMA."""
    positions: Positions = field(default_factory=dict)
    """Position of each partition after this batch; empty for Pub/Sub. It can advance without a message, past offsets of
    transaction markers and of aborted or compacted messages."""
    topic_ids: TopicIds = field(default_factory=dict)
    """Ids of the topics in `positions`."""
    acknowledgement: Any = None
    """Data that the source needs to acknowledge the batch after the commit."""
    lag: Mapping[str, int] = field(default_factory=dict)
    """Stream name to the number of messages waiting after this batch, if the source knows it without a request."""
    is_end: bool = False
    """Whether this batch completes the messages that were waiting when landing began."""
    starts: Positions = field(default_factory=dict)
    """Position of each partition in `positions` before this batch; 0 for the beginning. Kafka only."""
    source: str = ""
    """Transport (kafka, spool) of `positions`, for a batch without rows; rows have it in the column `source`."""

    @property
    def rows(self) -> int:
        return sum(table.num_rows for table in self.tables.values())

    @property
    def positions_source(self) -> str:
        return self.source or next(table["source"][0].as_py() for table in self.tables.values() if table.num_rows)
