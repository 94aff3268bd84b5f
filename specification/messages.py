"""What a message can be: an event, a version of an entity, or rejected with a reason."""

from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from specification.landed import Landed, Settings
from specification.values import hash_of, json_text, microseconds

MOST_CHARACTERS = 65_536
"""The most that a text of an event or an entity may have."""


class Rejected(Exception):  # noqa: N818  a judgement, not an error
    """Why a message is no event and no version."""

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
    """What happened; a field that its stream does not have is None."""

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
    """All that has no place above; None where the stream has nothing else."""
    lines: tuple[str | None, ...] = ()
    """What tells it from other events of its id, such as the lines of an order."""
    values: dict[str, Any] = field(default_factory=dict)
    """The columns of its own in staging."""

    @property
    def key(self) -> str:
        """Identity: stream, id, UTC date and what tells events of one id apart. The same id on another day is another
        event."""
        return hash_of(self.stream, self.event_id, self.event_at.date().isoformat(), *self.lines)

    @property
    def contents(self) -> dict[str, Any]:
        """What the facts say of it."""
        others = ("message", "event_id", "lines", "values")
        said = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in others}
        return {**said, "properties": None if self.properties is None else json_text(self.properties)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Version(Accepted):
    """An entity as of updated_at, or its deletion by a tombstone."""

    id: str
    is_tombstone: bool
    updated_at: datetime
    created_at: datetime | None = None
    deleted_at: datetime | None = None
    values: dict[str, Any] = field(default_factory=dict)
    """The columns of its own in staging."""
    contents: tuple[str | None, ...] = ()
    """What it says, for its identity."""
    has_mismatched_key: bool = False
    """A version of one entity under the key of another."""

    @property
    def key(self) -> str:
        """Identity: the entity, the time, whether it is a tombstone, and what it says."""
        kind = "tombstone" if self.is_tombstone else "version"
        times = (self.updated_at, self.created_at, self.deleted_at)
        updated, created, deleted = (None if time is None else str(microseconds(time)) for time in times)
        return hash_of(self.stream, self.id, updated, kind, created, deleted, *self.contents)


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
    """None of the values is missing."""
    for name, value in values.items():
        if value is None:
            raise Rejected(f"missing:{name}")


def short(**values: str | None) -> None:
    """None of the texts is too long."""
    for name, value in values.items():
        if value is not None and len(value) > MOST_CHARACTERS:
            raise Rejected(f"too_long:{name}")


def amount_text(amount: Decimal) -> str:
    return str(int(amount * 10000))
