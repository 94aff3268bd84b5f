"""The types that modules of this package exchange: a message to produce, and a batch of messages to land."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson
import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Message:
    """One message to produce."""

    payload: bytes | None
    """The body; None is a Kafka tombstone."""
    key: bytes | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    published_at: int | None = None
    """Microseconds since the epoch, UTC. The spool keeps it, Kafka only to the millisecond, Pub/Sub not at all."""


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
"""Further columns of a raw table, filled for streams whose format is not json.

`schema_id` is the registry's id of the payload's schema. `decoded` and `decoded_key` are payload and key as JSON text,
null if they are not in Confluent's wire format or cannot be decoded. `decode_error` is the reason for the payload."""

HEADER_BYTES = 5
"""Bytes before the value in Confluent's wire format: a zero byte, and the schema id in four bytes."""

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


NO_ATTRIBUTES: Mapping[str, str] = {}


class PubSubMessage(NamedTuple):
    """One Pub/Sub message, in the order of the arguments of `pubsub_table`."""

    message_id: str
    ordering_key: str
    """Empty if the message has no ordering key."""
    attributes: Mapping[str, str]
    published_at: int | None
    """Microseconds since the epoch, UTC."""
    payload: bytes


def pubsub_table(
    topic: str,
    message_ids: Sequence[str],
    ordering_keys: Sequence[str],
    attributes: Sequence[Mapping[str, str]],
    published_at: Sequence[int | None],
    payloads: Sequence[bytes],
) -> pa.Table:
    """Return messages of one topic in BATCH_SCHEMA, given as columns. Empty attributes and keys become null."""
    rows = len(message_ids)
    columns = {
        "source": pa.repeat("pubsub", rows),
        "topic": pa.repeat(topic, rows),
        "partition": pa.nulls(rows, pa.int32()),
        "offset": pa.nulls(rows, pa.int64()),
        "message_id": pa.array(message_ids, pa.string()),
        "key": pa.array([key.encode() or None for key in ordering_keys], pa.binary())
        if any(ordering_keys)
        else pa.nulls(rows, pa.binary()),
        "attributes": pa.array([orjson.dumps(names).decode() if names else None for names in attributes], pa.string()),
        "published_at": pa.array(published_at, pa.timestamp("us")),
        "payload": pa.array(payloads, pa.binary()),
    }
    return pa.Table.from_pydict(columns, schema=BATCH_SCHEMA)


STEP = re.compile(r"([^.\[\]]+)|\[([0-9]+)\]")
"""One step of a path: a field name, or an index in brackets."""


def value_at(body: Any, path: str) -> Any:
    """Return the value at a path of a contract, such as `props.ref` or `items[0].sku`; None if the body has none."""
    if type(body) is dict and path in body:  # fast path: most paths are a single name
        return body[path]
    for name, index in STEP.findall(path):
        if index:
            body = body[int(index)] if isinstance(body, list) and int(index) < len(body) else None
        else:
            body = body.get(name) if isinstance(body, dict) else None
    return body
