"""What a message becomes: an event, a version of an entity, or a rejection with its reason."""

from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from specification.landed import Landed, Settings
from specification.values import json_text, microseconds, surrogate_key

MAX_CHARACTERS = 65_536
"""Maximum characters of a text of an event or an entity."""


class Rejected(Exception):  # noqa: N818  an outcome, not an error
    """The message is rejected, for this reason."""

    def __init__(self, reason: str, detail: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """An accepted message."""

    message: Landed

    @property
    def stream(self) -> str:
        return self.message.stream

    @property
    def landed_at(self) -> datetime:
        return self.message.landed_at

    @property
    def published_at(self) -> datetime:
        return published(self.message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event(Accepted):
    """An event; fields that its stream does not have are None."""

    event_id: str
    event_type: str
    event_at: datetime
    user_id: str | None = None
    source_session_id: str | None = None
    product_id: str | None = None
    post_id: str | None = None
    page_title: str | None = None
    category_code: str | None = None
    brand: str | None = None
    price: Decimal | None = None
    total_amount: Decimal | None = None
    country: str | None = None
    city: str | None = None
    browser: str | None = None
    os: str | None = None
    url: str | None = None
    engaged_seconds: Decimal | None = None
    account_number: str | None = None
    traffic_source: str | None = None
    properties: dict[str, Any] | None = None
    """Fields without a place above; None if there are none."""
    lines: tuple[str | None, ...] = ()
    """What distinguishes it from other events with its id, such as the lines of an order."""
    values: dict[str, Any] = field(default_factory=dict)
    """Columns of staging with the names of its fields."""

    @property
    def key(self) -> str:
        """Identity: stream, id, UTC date, and what distinguishes events with one id. The same id on another day is
        another event."""
        return surrogate_key(self.stream, self.event_id, self.event_at.date().isoformat(), *self.lines)

    @property
    def contents(self) -> dict[str, Any]:
        """Its columns in the facts, except those of the message and its id."""
        others = ("message", "event_id", "lines", "values")
        columns = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in others}
        return {**columns, "properties": None if self.properties is None else json_text(self.properties)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Version(Accepted):
    """An entity as of updated_at, or its deletion by a tombstone."""

    id: str
    is_tombstone: bool
    updated_at: datetime
    created_at: datetime | None = None
    deleted_at: datetime | None = None
    values: dict[str, Any] = field(default_factory=dict)
    """Columns of staging with the names of its fields."""
    contents: tuple[str | None, ...] = ()
    """Its fields, as they count in its identity."""
    has_mismatched_key: bool = False
    """Whether the key of the message is that of another entity."""

    @property
    def key(self) -> str:
        """Identity: the entity, its times, whether it is a tombstone, and its contents."""
        kind = "tombstone" if self.is_tombstone else "version"
        times = (self.updated_at, self.created_at, self.deleted_at)
        updated, created, deleted = (None if time is None else str(microseconds(time)) for time in times)
        return surrogate_key(self.stream, self.id, updated, kind, created, deleted, *self.contents)


def published(message: Landed) -> datetime:
    return message.published_at or message.landed_at


def is_plausible(time: datetime, message: Landed, settings: Settings) -> bool:
    """Not before earliest_event_at, not in the year 9999, and at most a day after the message was published."""
    earliest = datetime.fromisoformat(settings.earliest_event_at)
    return earliest <= time < datetime(9999, 1, 1) and time - published(message) <= timedelta(days=1)


def plausible_time(time: datetime | None, written: str | None, message: Landed, settings: Settings) -> datetime:
    if time is None or not is_plausible(time, message, settings):
        raise Rejected("invalid:timestamp", written)
    return time


def require(**values: str | None) -> None:
    """Reject the message if a value is missing."""
    for name, value in values.items():
        if value is None:
            raise Rejected(f"missing:{name}")


def short(**values: str | None) -> None:
    """Reject the message if a text is too long."""
    for name, value in values.items():
        if value is not None and len(value) > MAX_CHARACTERS:
            raise Rejected(f"too_long:{name}")


def amount_text(amount: Decimal) -> str:
    return str(int(amount * 10000))
