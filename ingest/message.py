"""The message that producers send, and the conversion of Pub/Sub messages to a table."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson
import pyarrow as pa

from engines.batch import BATCH_SCHEMA


@dataclass(frozen=True, slots=True)
class Message:
    """One message to produce."""

    payload: bytes | None
    """The body; None is a Kafka tombstone."""
    key: bytes | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    published_at: int | None = None
    """Microseconds since the epoch, UTC. The spool keeps it, Kafka only to the millisecond, Pub/Sub not at all."""


HEADER_BYTES = 5
"""Bytes before the value in Confluent's wire format: a zero byte, and the schema id in four bytes."""

NO_ATTRIBUTES: Mapping[str, str] = {}


class PubSubMessage(NamedTuple):
    """One Pub/Sub message; its fields are in the order of the arguments of `pubsub_table`."""

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
    """Return a table in BATCH_SCHEMA of one topic's messages, which are given as columns. Empty attributes and keys
    become null."""
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
