"""A random message, with the run of the build and the commit in which it arrives."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa

from engines.batch import BATCH_SCHEMA
from engines.recovery import RECOVER


@dataclass(frozen=True, slots=True)
class Message:
    """A message that the loader lands before a run of the build, in one of the commits of that run."""

    run: int
    commit: int
    stream: str
    message_id: str
    published_at: datetime | None
    payload: bytes | None
    key: bytes | None = None
    attributes: str | None = None
    """JSON text, as it is landed."""

    def __str__(self) -> str:
        body = "(no payload)" if self.payload is None else self.payload.decode(errors="backslashreplace")
        if len(body) > 500:
            body = f"{body[:500]}... ({len(body)} characters)"
        attributes = f" attributes {self.attributes}" if self.attributes else ""
        key = "" if self.key is None else f" key {self.key.decode(errors='backslashreplace')}"
        return f"{self.stream} {self.message_id} published {self.published_at}{key}{attributes}: {body}"


def batch_tables(messages: Iterable[Message]) -> dict[str, pa.Table]:
    """The messages of each stream as the loader hands them to the warehouse."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for message in messages:
        row = {
            "source": RECOVER if message.message_id.startswith(f"{RECOVER}/") else "pubsub",
            "topic": message.stream,
            "message_id": message.message_id,
            "key": message.key,
            "attributes": message.attributes,
            "published_at": message.published_at,
            "payload": message.payload,
        }
        rows.setdefault(message.stream, []).append(row)
    return {stream: pa.Table.from_pylist(of_stream, schema=BATCH_SCHEMA) for stream, of_stream in rows.items()}
