"""A message to produce, and the messages of Pub/Sub as a table of a batch."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson
import pyarrow as pa

from engines.batch import BATCH_SCHEMA


@dataclass(frozen=True, slots=True)
class Message:
    """One message to publish."""

    payload: bytes | None
    """The body; None is a Kafka tombstone."""
    key: bytes | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    published_at: int | None = None
    """Microseconds since the epoch, UTC; kept where the transport lets it be set (Kafka to the millisecond)."""


HEADER_BYTES = 5
"""Size of what Confluent's wire format puts before a value: a zero byte, and the id of its schema."""

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
