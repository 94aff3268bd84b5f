"""What the marts are made from."""

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Landed:
    """A message as the warehouse received it. (message_id, landed_at) is its identity. Times are UTC without a zone."""

    stream: str
    message_id: str
    key: bytes | None
    published_at: datetime | None
    """When the broker took it; None where the broker does not say."""
    landed_at: datetime
    """When it was committed to the warehouse: the order of arrival within a stream, never across streams."""
    payload: bytes | None
    """The body as received; None is a Kafka tombstone."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The choices that change rows: vars of dbt_project.yml, by the same names and with the same defaults."""

    session_gap_seconds: int = 60
    session_key: str = "source_session_id"
    attribution_window_seconds: int = 3600
    reporting_time_zone: str = "UTC"
    earliest_event_at: str = "2000-01-01"
    customer_id_filter: tuple[str, ...] | None = None
    allowed_lateness_seconds: int | None = None

    def as_vars(self) -> dict[str, Any]:
        """As dbt takes them."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
