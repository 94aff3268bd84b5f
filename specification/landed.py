"""Landed messages, and the settings that change rows."""

import json
import re
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Landed:
    """A message as received, identified by (message_id, landed_at). Times are UTC without a zone."""

    stream: str
    message_id: str
    key: bytes | None
    published_at: datetime | None
    """When the broker received it; None if the broker does not report it."""
    landed_at: datetime
    """When it was committed to the warehouse. Orders the messages of one stream, not those of several."""
    payload: bytes | None
    """The body as received; None is a Kafka tombstone."""
    attributes: str | None = None
    """Kafka's headers or Pub/Sub's attributes, as JSON text."""

    @property
    def original(self) -> tuple[datetime, str] | None:
        """landed_at and message_id of the rejected message that this one recovers; None if it recovers none."""
        found = re.fullmatch(r"recover/(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6})/(.*)", self.message_id, re.DOTALL)
        return (datetime.fromisoformat(found[1]), found[2]) if found else None

    @property
    def recovery_patch(self) -> str | None:
        """The patch with which the message was recovered, if any."""
        origin = json.loads(self.attributes or "{}").get("recovered_from", {})
        patch: str | None = origin.get("patch")
        return patch

    @property
    def log_order(self) -> tuple[datetime, int, int, datetime, str]:
        """Orders the messages of a stream: by commit, then by partition and offset, which end the ids of Kafka and the
        spool. Messages of Pub/Sub, which have no offset, are ordered by when they were published."""
        found = re.search(r"/(\d+)/(\d+)$", self.message_id)
        partition, offset = (int(found[1]), int(found[2])) if found else (-1, -1)
        return self.landed_at, partition, offset, self.published_at or self.landed_at, self.message_id


@dataclass(frozen=True, slots=True)
class Settings:
    """Vars of dbt_project.yml that change rows, with the same names and defaults."""

    session_gap_seconds: int = 60
    session_key: str = "source_session_id"
    attribution_window_seconds: int = 3600
    reporting_time_zone: str = "UTC"
    earliest_event_at: str = "2000-01-01"
    customer_id_filter: tuple[str, ...] | None = None
    allowed_lateness_seconds: int | None = None

    def as_vars(self) -> dict[str, Any]:
        """The settings as vars of dbt."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
