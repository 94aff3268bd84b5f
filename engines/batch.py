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
"""Columns of a batch: those of a raw table as received, without `stream` and `landed_at`, which landing adds.

`source` is kafka, pubsub or spool. `partition` and `offset` are null for Pub/Sub. `message_id` is
`topic/partition/offset`, or the Pub/Sub id. `attributes` is JSON text. `published_at` is UTC."""

DECODED_SCHEMA = pa.schema(
    [
        pa.field("schema_id", pa.int64()),
        pa.field("decoded", pa.binary()),
        pa.field("decoded_key", pa.binary()),
        pa.field("decode_error", pa.string()),
    ]
)
"""More columns of a raw table, which a batch has of streams whose format is not json.

`schema_id` is the registry's id of the schema of the payload. `decoded` and `decoded_key` are payload and key as JSON
text, null where they are not in the wire format or cannot be decoded. `decode_error` is why the payload cannot be."""

Positions = Mapping[tuple[str, int], int]
"""(topic, partition) to the offset of the next message to land."""

TopicIds = Mapping[str, str]
"""Topic to the id that Kafka gave it when it was created. A topic that was deleted and created again under its name
has another, and its offsets begin anew. In the spool each log (partition) has its own id. Topics of old brokers and
logs of other programs have no id and are left out."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages fetched together from one source."""

    tables: Mapping[str, pa.Table]
    """Stream name to its messages, in BATCH_SCHEMA, in the order of the source. Those that are decoded have the columns
    of DECODED_SCHEMA too."""
    positions: Positions = field(default_factory=dict)
    """Where each partition goes on once this batch is committed; empty for Pub/Sub. A position may move without a
    message: the offsets of transaction markers, and of what was aborted or compacted away, hold none."""
    topic_ids: TopicIds = field(default_factory=dict)
    """Of the topics in `positions`."""
    acknowledgement: Any = None
    """What the source needs to acknowledge the batch after the commit."""
    lag: Mapping[str, int] = field(default_factory=dict)
    """Stream to the number of messages that wait after this batch, as far as the source knows without asking."""
    is_end: bool = False
    """Whatever waited when landing began is in this batch, or was in those before."""
    starts: Positions = field(default_factory=dict)
    """Where each partition of `positions` went on from, 0 for its beginning. Kafka only."""
    source: str = ""
    """The transport (kafka, spool) of `positions`. Where the batch has rows, these name it."""

    @property
    def rows(self) -> int:
        return sum(table.num_rows for table in self.tables.values())

    @property
    def positions_source(self) -> str:
        return self.source or next(table["source"][0].as_py() for table in self.tables.values() if table.num_rows)
