"""What each message says: an event, a version of an entity, or nothing, with the reason why it is rejected.

A body is rejected for the first reason that holds, in the order in which the functions state them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from tests.oracle.landed import Landed, Settings
from tests.oracle.values import (
    Body,
    hash_of,
    microseconds,
    read_amount,
    read_body,
    read_epoch,
    read_time,
    rounded,
    text,
)

ENTITY_IDS = {"users": "user_id", "products": "product_id", "posts": "post_id"}
ENTITY_TEXTS = {
    "users": ("user_name", "first_name", "last_name", "country_code", "favorite_color"),
    "products": ("name", "category_code", "category", "model", "brand"),
    "posts": ("user_id", "post_text"),
}


class Rejected(Exception):  # noqa: N818  a judgement, not an error
    """Why a message is no event and no version."""

    def __init__(self, reason: str, detail: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What happened; a field that its stream does not have is None."""

    stream: str
    event_id: str
    event_type: str
    event_at: datetime
    message_id: str
    published_at: datetime
    landed_at: datetime
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

    @property
    def key(self) -> str:
        """Identity: stream, id and UTC date. The same id on another day is another event."""
        return hash_of(self.stream, self.event_id, self.event_at.date().isoformat())


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """An entity as of updated_at, or its deletion by a tombstone."""

    stream: str
    id: str
    is_tombstone: bool
    updated_at: datetime
    created_at: datetime | None = None
    deleted_at: datetime | None = None
    message_id: str
    landed_at: datetime
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Identity: the entity, the time, and whether it is a tombstone."""
        kind = "tombstone" if self.is_tombstone else "version"
        return hash_of(self.stream, self.id, str(microseconds(self.updated_at)), kind)


def read(message: Landed, settings: Settings) -> Event | Version:
    """What a message says.

    Raises:
        Rejected: when it is no acceptable event or version.
    """
    if message.stream in ENTITY_IDS:
        return read_version(message, settings)
    body = read_body(message.payload)
    if body is None:
        raise malformed(message)
    return READERS[message.stream](message, body, settings)


def malformed(message: Landed) -> Rejected:
    if message.payload is None:
        return Rejected("malformed_json", "no payload")
    try:
        message.payload.decode()
    except UnicodeDecodeError:
        return Rejected("malformed_json", "not UTF-8")
    return Rejected("malformed_json", "not a JSON object")


def published(message: Landed) -> datetime:
    return message.published_at or message.landed_at


def is_plausible(time: datetime, message: Landed, settings: Settings) -> bool:
    """Not before earliest_event_at, not in the year 9999, and at most a day after the message was published."""
    earliest = datetime.fromisoformat(settings.earliest_event_at)
    return earliest <= time < datetime(9999, 1, 1) and time - published(message) <= timedelta(days=1)


def require(**values: str | None) -> dict[str, str]:
    """The values, none of which is missing."""
    for name, value in values.items():
        if value is None:
            raise Rejected(f"missing:{name}")
    return {name: value for name, value in values.items() if value is not None}


def plausible_time(time: datetime | None, written: str | None, message: Landed, settings: Settings) -> datetime:
    if time is None or not is_plausible(time, message, settings):
        raise Rejected("invalid:timestamp", written)
    return time


def amount(name: str, written: str | None) -> Decimal | None:
    """An optional amount: missing is None, but what is there must be a number."""
    number = read_amount(written)
    if written is not None and number is None:
        raise Rejected(f"invalid:{name}")
    return number


def event(message: Landed, **values: Any) -> Event:
    return Event(
        stream=message.stream,
        message_id=message.message_id,
        published_at=published(message),
        landed_at=message.landed_at,
        **values,
    )


def read_web_event(message: Landed, body: Body, settings: Settings) -> Event:
    """A sale is a purchase. Without an event_id the Pub/Sub message id identifies the event."""
    written, kind, product_id = text(body.get("timestamp")), text(body.get("event")), text(body.get("product"))
    require(timestamp=written, event=kind, product=product_id)
    event_at = plausible_time(read_time(written), written, message, settings)
    if kind not in ("view", "cart", "sale"):
        raise Rejected("invalid:event")
    return event(
        message,
        event_id=text(body.get("event_id")) or message.message_id,
        event_type="purchase" if kind == "sale" else kind,
        event_at=event_at,
        user_id=text(body.get("user_id")),
        product_id=product_id,
        price=amount("price", text(body.get("price"))),
        country=text(body.get("country")),
        city=text(body.get("city")),
        browser=text(body.get("browser")),
        os=text(body.get("OS")),
    )


def read_page_view(message: Landed, body: Body, settings: Settings) -> Event:
    """Three bodies are read: GA4's continuous query, the older one (page_id, timestamp_ms), a row of GA4's export."""
    params = read_params(body.get("event_params"))
    user_id, user_pseudo_id = text(body.get("user_id")), text(body.get("user_pseudo_id"))
    session_id = text(body.get("session_id"))
    if session_id is None and user_pseudo_id is not None and params.get("ga_session_id") is not None:
        session_id = f"{user_pseudo_id}.{params['ga_session_id']}"
    if session_id is None and body.get("page_id") is not None:
        session_id = user_id
    page_title = text(body.get("page_title")) or text(body.get("page_id")) or params.get("page_title")
    written, event_at = page_view_time(body)
    require(session_id=session_id, ga_event_dtm=written, page_title=page_title)
    if settings.session_key == "user_id":
        require(user_id=user_id)
    event_at = plausible_time(event_at, written, message, settings)
    if body.get("event_name", "page_view") not in (None, "page_view"):
        raise Rejected("invalid:event_name")
    engaged_seconds = amount("engaged_time", params.get("engaged_time"))
    if engaged_seconds is None:
        milliseconds = amount("engaged_time", params.get("engagement_time_msec"))
        engaged_seconds = None if milliseconds is None else rounded(milliseconds / 1000, 4)
    if engaged_seconds is not None and not 0 <= engaged_seconds <= 999_999_999_999:
        raise Rejected("invalid:engaged_time")
    if (params.get("test_event") or "").lower() in ("true", "1"):
        raise Rejected("test_event")
    account_number = text(body.get("account_number"))
    if settings.customer_id_filter and account_number not in settings.customer_id_filter:
        raise Rejected("filtered_customer")
    lateness = settings.allowed_lateness_seconds
    if lateness is not None and published(message) > event_at + timedelta(seconds=lateness):
        raise Rejected("too_late")
    own_id = hash_of(session_id, str(microseconds(event_at)), page_title, user_pseudo_id)
    return event(
        message,
        event_id=text(body.get("event_id")) or own_id,
        event_type="page_view",
        event_at=event_at,
        user_id=user_id,
        source_session_id=session_id,
        page_title=page_title,
        url=params.get("page_location"),
        engaged_seconds=engaged_seconds,
        account_number=account_number,
        traffic_source=params.get("traffic_source"),
    )


def read_params(params: Any) -> dict[Any, str | None]:
    """GA4's event_params: a plain object, or a list of key and typed value, of which the first of a key counts."""
    if isinstance(params, dict):
        return {name: text(value) for name, value in params.items()}
    found: dict[Any, str | None] = {}
    for entry in params if isinstance(params, list) else []:
        if isinstance(entry, dict) and isinstance(entry.get("value"), dict):
            typed = [entry["value"].get(f"{kind}_value") for kind in ("string", "int", "double", "float")]
            given = [value for value in typed if value is not None]
            value = text(given[0]) if given else None
            found.setdefault(entry.get("key"), value)
    return found


def page_view_time(body: Body) -> tuple[str | None, datetime | None]:
    """The first of the four spellings that is there, as written and as read."""
    if text(body.get("ga_event_dtm")):
        return text(body["ga_event_dtm"]), read_time(text(body["ga_event_dtm"]))
    for name, units_per_second in (
        ("event_timestamp_ms", 1000),
        ("timestamp_ms", 1000),
        ("event_timestamp", 1_000_000),
    ):
        if text(body.get(name)):
            return text(body[name]), read_epoch(text(body[name]), units_per_second)
    return None, None


def read_click(message: Landed, body: Body, settings: Settings) -> Event:
    values = {name: text(body.get(name)) for name in ("click_id", "user_id", "product_id", "datetime_occured")}
    require(**values)
    written = values["datetime_occured"]
    return event(
        message,
        event_id=values["click_id"],
        event_type="click",
        event_at=plausible_time(read_time(written), written, message, settings),
        user_id=values["user_id"],
        product_id=values["product_id"],
        price=amount("price", text(body.get("price"))),
        url=text(body.get("url")),
    )


def read_checkout(message: Landed, body: Body, settings: Settings) -> Event:
    values = {name: text(body.get(name)) for name in ("checkout_id", "user_id", "product_id", "datetime_occured")}
    require(**values)
    written = values["datetime_occured"]
    return event(
        message,
        event_id=values["checkout_id"],
        event_type="checkout",
        event_at=plausible_time(read_time(written), written, message, settings),
        user_id=values["user_id"],
        product_id=values["product_id"],
        total_amount=amount("total_amount", text(body.get("total_amount"))),
    )


def read_ecom_event(message: Landed, body: Body, settings: Settings) -> Event:
    """All nine fields, as read, are the identity. 'null' is NULL: the bodies come from a CSV."""
    names = ("event_time", "event_type", "product_id", "category_id", "category_code", "brand", "price", "user_id")
    read_text = {name: text(body.get(name)) for name in (*names, "user_session")}
    values = {name: None if value == "null" else value for name, value in read_text.items()}
    written = values["event_time"]
    require(event_time=written, event_type=values["event_type"], product_id=values["product_id"])
    event_at = plausible_time(read_time(written), written, message, settings)
    if values["event_type"] not in ("view", "cart", "purchase", "remove_from_cart"):
        raise Rejected("invalid:event_type")
    price = amount("price", values["price"])
    return event(
        message,
        event_id=hash_of(
            str(microseconds(event_at)),
            values["event_type"],
            values["product_id"],
            values["category_id"],
            values["category_code"],
            values["brand"],
            None if price is None else str(int(price * 10000)),
            values["user_id"],
            values["user_session"],
        ),
        event_type=values["event_type"],
        event_at=event_at,
        user_id=values["user_id"],
        source_session_id=values["user_session"],
        product_id=values["product_id"],
        category_code=values["category_code"],
        brand=values["brand"],
        price=price,
    )


def read_post_event(message: Landed, body: Body, settings: Settings) -> Event:
    names = ("event_id", "user_id", "post_id", "created_at", "event_type")
    values = {name: text(body.get(name)) for name in names}
    require(**values)
    written = values["created_at"]
    event_at = plausible_time(read_time(written), written, message, settings)
    if values["event_type"] not in ("view", "like"):
        raise Rejected("invalid:event_type")
    return event(
        message,
        event_id=values["event_id"],
        event_type=f"post_{values['event_type']}",
        event_at=event_at,
        user_id=values["user_id"],
        post_id=values["post_id"],
    )


READERS: dict[str, Callable[[Landed, Body, Settings], Event]] = {
    "web_events": read_web_event,
    "page_views": read_page_view,
    "clicks": read_click,
    "checkouts": read_checkout,
    "ecom_events": read_ecom_event,
    "post_events": read_post_event,
}


def read_version(message: Landed, settings: Settings) -> Version:
    """A message without a body is a tombstone: its id is the message key, its time published_at."""
    id_name = ENTITY_IDS[message.stream]
    if message.payload is None:
        return read_tombstone(message, settings)
    body = read_body(message.payload)
    if body is None:
        raise malformed(message)
    required = require(**{id_name: text(body.get(id_name)), "updated_at": text(body.get("updated_at"))})
    written = required["updated_at"]
    updated_at = plausible_time(read_time(written), written, message, settings)
    other_times: dict[str, datetime | None] = {}
    for name in ("created_at", "deleted_at"):
        time = other_times[name] = read_time(text(body.get(name)))
        if text(body.get(name)) and (time is None or not is_plausible(time, message, settings)):
            raise Rejected(f"invalid:{name}")
    values: dict[str, Any] = {name: text(body.get(name)) for name in ENTITY_TEXTS[message.stream]}
    if message.stream == "products":
        values["price"] = amount("price", text(body.get("price")))
    return Version(
        stream=message.stream,
        id=required[id_name],
        is_tombstone=False,
        updated_at=updated_at,
        **other_times,
        message_id=message.message_id,
        landed_at=message.landed_at,
        values=values,
    )


def read_tombstone(message: Landed, settings: Settings) -> Version:
    id_name = ENTITY_IDS[message.stream]
    try:
        entity_id = (message.key or b"").decode() or None
    except UnicodeDecodeError:
        entity_id = None
    required = require(**{id_name: entity_id})
    names = (*ENTITY_TEXTS[message.stream], *(("price",) if message.stream == "products" else ()))
    return Version(
        stream=message.stream,
        id=required[id_name],
        is_tombstone=True,
        updated_at=plausible_time(published(message), None, message, settings),
        message_id=message.message_id,
        landed_at=message.landed_at,
        values=dict.fromkeys(names),
    )
