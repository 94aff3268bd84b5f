"""Columns of the generated models: names, descriptions and types, from the contract of their stream."""

from collections.abc import Mapping
from typing import Any

from common.streams import VOCABULARY, BodyField, EventType, Stream

TYPES = {"integer": "bigint", "amount": "numeric(18, 4)", "boolean": "boolean", "timestamp": "timestamp"}
"""Maps the type of a field to the type of its column in a mart; all others are string."""


def doc(name: str) -> str:
    """A reference to a description that several models share: a block of models/columns.md."""
    return f'{{{{ doc("{name}") }}}}'


def docs(*names: str) -> dict[str, str]:
    """Columns with their shared descriptions."""
    return {name: doc(name) for name in names}


IDENTITY = docs("stream", "message_id")
LOG_TIMES = docs("published_at", "landed_at")
VALIDATION = docs("reject_reason", "reject_detail", "rejected_payload", "unlisted_fields")


def kept_fields(stream: Stream) -> list[BodyField]:
    """Fields that become columns under their own name. For an entity, its key comes first."""
    renamed = renamed_fields(stream)
    key = [field for field in stream.fields if stream.kind == "entity" and field.in_body == stream.key]
    return key + [field for field in stream.fields if field.in_body not in renamed and field.personal != "drop"]


def renamed_fields(stream: Stream) -> list[str]:
    """Paths of the fields whose column has a standard name instead of theirs.

    These are the id, type and time of an event, and the id and times of a version. An id or type that is a column of
    fct_events, such as user_id, keeps its name.
    """
    of_type = [stream.event_type.field] if isinstance(stream.event_type, EventType) else []
    shared = [field.in_body for field in stream.fields if field.name in VOCABULARY]
    found = [name for name in (*stream.id[:1], *of_type) if name not in shared]
    if stream.kind == "entity":
        found += [*([stream.key] if stream.key else []), *([stream.created] if stream.created else []), *stream.deleted]
    return [*found, *stream.time]


def descriptions(fields: list[BodyField]) -> dict[str, str]:
    """Return the description of each column by its name."""
    return {
        field.name: f"{field.description} As a keyed hash." if field.personal == "hash" else field.description
        for field in fields
    }


def types(fields: list[BodyField]) -> dict[str, str]:
    """Return the type of each column by its name."""
    return {field.name: TYPES.get(field.type, "string") for field in fields}


def described_columns(columns: Mapping[str, str], types: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """Columns as yml lists them.

    Args:
        types: column to type, for a mart; a column that it does not have is a timestamp. None leaves out all types.
    """
    return [
        {
            "name": name,
            "description": description,
            **({} if types is None else {"data_type": types.get(name, "timestamp")}),
        }
        for name, description in columns.items()
    ]
