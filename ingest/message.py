"""What crosses the edges of the package: a message to publish, a batch to land."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson
import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Message:
    """One message to publish."""

    payload: bytes | None
    """The body; None is a Kafka tombstone."""
    key: bytes | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    published_at: int | None = None
    """Microseconds since the epoch, UTC; kept where the transport lets it be set (Kafka to the millisecond)."""


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

HEADER_BYTES = 5
"""Size of what Confluent's wire format puts before a value: a zero byte, and the id of its schema."""

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


NO_ATTRIBUTES: Mapping[str, str] = {}


class PubSubMessage(NamedTuple):
    """One message of Pub/Sub: the columns of `pubsub_table`."""

    message_id: str
    ordering_key: str
    """Empty where there is none."""
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
    """Messages of one topic in BATCH_SCHEMA, from the columns of PubSubMessage; no attributes and no ordering key are
    null."""
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
        "attributes": pa.array([orjson.dumps(some).decode() if some else None for some in attributes], pa.string()),
        "published_at": pa.array(published_at, pa.timestamp("us")),
        "payload": pa.array(payloads, pa.binary()),
    }
    return pa.Table.from_pydict(columns, schema=BATCH_SCHEMA)


STEP = re.compile(r"([^.\[\]]+)|\[([0-9]+)\]")
"""A name or an index of a path."""


def value_at(body: Any, path: str) -> Any:
    """Return the value at a path of a contract, such as `props.ref` or `items[0].sku`; None where there is none."""
    if type(body) is dict and path in body:  # a path of one name, as most are
        return body[path]
    for name, index in STEP.findall(path):
        if index:
            body = body[int(index)] if isinstance(body, list) and int(index) < len(body) else None
        else:
            body = body.get(name) if isinstance(body, dict) else None
    return body
