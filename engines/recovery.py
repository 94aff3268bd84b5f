"""Recovery of dead letters: which of them are read, and the id by which a recovered message names its original."""

from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa

from engines.batch import BATCH_SCHEMA, DECODED_SCHEMA

RECOVER = "recover"
"""Value of `source` of recovered messages in the raw tables."""

REJECTED_SCHEMA = pa.schema(
    [
        *BATCH_SCHEMA,
        *DECODED_SCHEMA,
        pa.field("landed_at", pa.timestamp("us"), nullable=False),
        pa.field("reject_reason", pa.string(), nullable=False),
    ]
)
"""A rejected message as it landed, with the reason. Times are UTC."""


@dataclass(frozen=True, slots=True)
class OpenDeadLetters:
    """The dead letters of a stream that are not recovered yet, as of the last build."""

    stream: str
    reason: str | None = None
    """Only those with this reason; None for every reason."""
    since: datetime | None = None
    """Only those that landed at this time or later; UTC without a zone."""
    until: datetime | None = None
    """Only those that landed before this time; UTC without a zone."""


def recovered_id(landed_at: datetime, message_id: str) -> str:
    """The message id under which a message is landed again: `recover/<landed_at>/<message_id>`.

    It names the original, so that no message is recovered twice; int_recoveries reads it.

    Args:
        landed_at: of the original, UTC without a zone.
        message_id: of the original.
    """
    return f"{RECOVER}/{landed_at.isoformat(timespec='microseconds')}/{message_id}"


def in_rejected_schema(rows: pa.Table) -> pa.Table:
    """The rows in REJECTED_SCHEMA. Raw tables of an earlier version lack the columns of decoded messages."""
    columns = [
        rows[field.name].cast(field.type) if field.name in rows.column_names else pa.nulls(rows.num_rows, field.type)
        for field in REJECTED_SCHEMA
    ]
    return pa.Table.from_arrays(columns, schema=REJECTED_SCHEMA)
