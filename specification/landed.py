"""What the marts are made from."""

import re
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
    attributes: str | None = None
    """Kafka's headers or Pub/Sub's attributes, as JSON text."""

    @property
    def log_order(self) -> tuple[datetime, int, int, datetime, str]:
        """The order of the messages of a stream: by commit; within one by partition and offset, which end the id of a
        message from a log; those of Pub/Sub by when they were published."""
        found = re.search(r"/(\d+)/(\d+)$", self.message_id)
        partition, offset = (int(found[1]), int(found[2])) if found else (-1, -1)
        return self.landed_at, partition, offset, self.published_at or self.landed_at, self.message_id


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
