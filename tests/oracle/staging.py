"""What each message says: an event, a version of an entity, or nothing, with the reason why it is rejected.

A body is rejected for the first reason that holds, in the order in which the functions state them.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from tests.oracle.landed import Landed, Settings
from tests.oracle.values import (
    Body,
    hash_of,
    identifier,
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


MOST_CHARACTERS = 65_536
"""The most that a text of an event or an entity may have."""


class Rejected(Exception):  # noqa: N818  a judgement, not an error
    """Why a message is no event and no version."""

    def __init__(self, reason: str, detail: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What happened; a field that its stream does not have is None."""

    message: Landed
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

    @property
    def stream(self) -> str:
        return self.message.stream

    @property
    def landed_at(self) -> datetime:
        return self.message.landed_at

    @property
    def published_at(self) -> datetime:
        return published(self.message)

    @property
    def key(self) -> str:
        """Identity: stream, id and UTC date; of checkouts, which are lines of an order, the product too. The same id on
        another day is another event."""
        parts = (self.product_id,) if self.stream == "checkouts" else ()
        return hash_of(self.stream, self.event_id, self.event_at.date().isoformat(), *parts)

    @property
    def contents(self) -> dict[str, Any]:
        """What the facts say of it."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name not in ("message", "event_id")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """An entity as of updated_at, or its deletion by a tombstone."""

    message: Landed
    id: str
    is_tombstone: bool
    updated_at: datetime
    created_at: datetime | None = None
    deleted_at: datetime | None = None
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def stream(self) -> str:
        return self.message.stream

    @property
    def landed_at(self) -> datetime:
        return self.message.landed_at

    @property
    def has_mismatched_key(self) -> bool:
        """A version of one entity under the key of another."""
        key = self.message.key
        return key is not None and not self.is_tombstone and key_id(key, ENTITY_IDS[self.stream]) != self.id

    @property
    def key(self) -> str:
        """Identity: the entity, the time, whether it is a tombstone, and what it says."""
        kind = "tombstone" if self.is_tombstone else "version"
        times = (self.updated_at, self.created_at, self.deleted_at)
        updated, created, deleted = (None if time is None else str(microseconds(time)) for time in times)
        contents = [amount_text(value) if isinstance(value, Decimal) else value for value in self.values.values()]
        return hash_of(self.stream, self.id, updated, kind, created, deleted, *contents)


def amount_text(amount: Decimal) -> str:
    return str(int(amount * 10000))


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


def as_written(value: Any) -> str | None:
    """Text that may be empty, too."""
    return "" if value == "" else text(value)


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


def short(**values: str | None) -> None:
    """None of the texts is too long."""
    for name, value in values.items():
        if value is not None and len(value) > MOST_CHARACTERS:
            raise Rejected(f"too_long:{name}")


def read_web_event(message: Landed, body: Body, settings: Settings) -> Event:
    """A sale is a purchase. Without an event_id what it says identifies the event."""
    written, kind, product_id = text(body.get("timestamp")), text(body.get("event")), identifier(body.get("product"))
    required = require(timestamp=written, event=kind, product=product_id)
    event_at = plausible_time(read_time(written), written, message, settings)
    if kind not in ("view", "cart", "sale"):
        raise Rejected("invalid:event")
    price = amount("price", text(body.get("price")))
    own_id, user_id = identifier(body.get("event_id")), identifier(body.get("user_id"))
    names = ("publisher_id", "environment", "country", "city", "browser", "OS")
    publisher, environment, country, city, browser, system = (text(body.get(name)) for name in names)
    short(event_id=own_id, user_id=user_id, product=product_id, country=country, city=city, browser=browser, OS=system)
    contents = (kind, product_id, user_id, publisher, environment, country, city, browser, system)
    price_text = None if price is None else amount_text(price)
    return Event(
        message=message,
        event_id=own_id or hash_of(str(microseconds(event_at)), *contents, price_text),
        event_type="purchase" if kind == "sale" else kind,
        event_at=event_at,
        user_id=user_id,
        product_id=required["product"],
        price=price,
        country=country,
        city=city,
        browser=browser,
        os=system,
    )


def read_page_view(message: Landed, body: Body, settings: Settings) -> Event:
    """Three bodies are read: GA4's continuous query, the older one (page_id, timestamp_ms), a row of GA4's export.

    Without an event_id a page view is known by its session, time, page and address, and by its place in GA4's batch.
    """
    params = read_params(body.get("event_params"))
    user_id, user_pseudo_id = identifier(body.get("user_id")), identifier(body.get("user_pseudo_id"))
    session_id, ga_session_id = identifier(body.get("session_id")), identifier(params.get("ga_session_id"))
    if session_id is None and user_pseudo_id is not None and ga_session_id is not None:
        session_id = f"{user_pseudo_id}.{ga_session_id}"
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
    own_id, account_number = identifier(body.get("event_id")), identifier(body.get("account_number"))
    url, traffic_source = params.get("page_location"), params.get("traffic_source")
    short(event_id=own_id, session_id=session_id, user_id=user_id, user_pseudo_id=user_pseudo_id)
    short(account_number=account_number, page_title=page_title, page_location=url, traffic_source=traffic_source)
    if (params.get("test_event") or "").lower() in ("true", "1"):
        raise Rejected("test_event")
    if settings.customer_id_filter and account_number not in settings.customer_id_filter:
        raise Rejected("filtered_customer")
    lateness = settings.allowed_lateness_seconds
    if lateness is not None and published(message) > event_at + timedelta(seconds=lateness):
        raise Rejected("too_late")
    names = ("event_bundle_sequence_id", "batch_event_index", "batch_page_id", "batch_ordering_id")
    batch = [as_written(body.get(name)) for name in names]
    return Event(
        message=message,
        event_id=own_id or hash_of(session_id, str(microseconds(event_at)), page_title, user_pseudo_id, url, *batch),
        event_type="page_view",
        event_at=event_at,
        user_id=user_id,
        source_session_id=session_id,
        page_title=page_title,
        url=url,
        engaged_seconds=engaged_seconds,
        account_number=account_number,
        traffic_source=traffic_source,
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
    ids = {name: identifier(body.get(name)) for name in ("click_id", "user_id", "product_id")}
    written = text(body.get("datetime_occured"))
    require(**ids, datetime_occured=written)
    event_at = plausible_time(read_time(written), written, message, settings)
    price, url = amount("price", text(body.get("price"))), text(body.get("url"))
    short(**ids, url=url)
    return Event(
        message=message,
        event_id=str(ids["click_id"]),
        event_type="click",
        event_at=event_at,
        user_id=ids["user_id"],
        product_id=ids["product_id"],
        price=price,
        url=url,
    )


def read_checkout(message: Landed, body: Body, settings: Settings) -> Event:
    ids = {name: identifier(body.get(name)) for name in ("checkout_id", "user_id", "product_id")}
    written = text(body.get("datetime_occured"))
    require(**ids, datetime_occured=written)
    event_at = plausible_time(read_time(written), written, message, settings)
    total_amount = amount("total_amount", text(body.get("total_amount")))
    short(**ids)
    return Event(
        message=message,
        event_id=str(ids["checkout_id"]),
        event_type="checkout",
        event_at=event_at,
        user_id=ids["user_id"],
        product_id=ids["product_id"],
        total_amount=total_amount,
    )


def read_ecom_event(message: Landed, body: Body, settings: Settings) -> Event:
    """All nine fields, as read, are the identity. 'null' is NULL: the bodies come from a CSV."""
    texts = {name: text(body.get(name)) for name in ("event_time", "event_type", "category_code", "brand", "price")}
    values = {name: None if value == "null" else value for name, value in texts.items()}
    ids = {name: identifier(body.get(name)) for name in ("product_id", "category_id", "user_id", "user_session")}
    written, event_type = values["event_time"], values["event_type"]
    required = require(event_time=written, event_type=event_type, product_id=ids["product_id"])
    event_at = plausible_time(read_time(written), written, message, settings)
    if event_type not in ("view", "cart", "purchase", "remove_from_cart"):
        raise Rejected("invalid:event_type")
    price = amount("price", values["price"])
    short(product_id=ids["product_id"], category_code=values["category_code"], brand=values["brand"])
    short(user_id=ids["user_id"], user_session=ids["user_session"])
    return Event(
        message=message,
        event_id=hash_of(
            str(microseconds(event_at)),
            event_type,
            ids["product_id"],
            ids["category_id"],
            values["category_code"],
            values["brand"],
            None if price is None else amount_text(price),
            ids["user_id"],
            ids["user_session"],
        ),
        event_type=event_type,
        event_at=event_at,
        user_id=ids["user_id"],
        source_session_id=ids["user_session"],
        product_id=required["product_id"],
        category_code=values["category_code"],
        brand=values["brand"],
        price=price,
    )


def read_post_event(message: Landed, body: Body, settings: Settings) -> Event:
    ids = {name: identifier(body.get(name)) for name in ("event_id", "user_id", "post_id")}
    written, event_type = text(body.get("created_at")), text(body.get("event_type"))
    required = require(**ids, created_at=written, event_type=event_type)
    event_at = plausible_time(read_time(written), written, message, settings)
    if event_type not in ("view", "like"):
        raise Rejected("invalid:event_type")
    short(**ids)
    return Event(
        message=message,
        event_id=required["event_id"],
        event_type=f"post_{event_type}",
        event_at=event_at,
        user_id=ids["user_id"],
        post_id=ids["post_id"],
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
    """A message without a body is a tombstone: its id is in the message key, its time is published_at.

    Debezium's unwrapped deletes say __deleted: "true" and have no time of their own.
    """
    id_name = ENTITY_IDS[message.stream]
    if message.payload is None:
        return read_tombstone(message, settings)
    body = read_body(message.payload)
    if body is None:
        raise malformed(message)
    required = require(**{id_name: identifier(body.get(id_name)), "updated_at": text(body.get("updated_at"))})
    written = required["updated_at"]
    updated_at = plausible_time(read_time(written), written, message, settings)
    other_times: dict[str, datetime | None] = {}
    for name in ("created_at", "deleted_at"):
        time = other_times[name] = read_time(text(body.get(name)))
        if text(body.get(name)) and (time is None or not is_plausible(time, message, settings)):
            raise Rejected(f"invalid:{name}")
    if text(body.get("deleted_at")) is None and (text(body.get("__deleted")) or "").lower() == "true":
        other_times["deleted_at"] = updated_at
    values: dict[str, Any] = {name: text(body.get(name)) for name in ENTITY_TEXTS[message.stream]}
    if message.stream == "posts":
        values["user_id"] = identifier(body.get("user_id"))
    texts = dict(values)
    if message.stream == "products":
        values["price"] = amount("price", text(body.get("price")))
    short(**{id_name: required[id_name]}, **texts)
    return Version(
        message=message,
        id=required[id_name],
        is_tombstone=False,
        updated_at=updated_at,
        **other_times,
        values=values,
    )


def read_tombstone(message: Landed, settings: Settings) -> Version:
    id_name = ENTITY_IDS[message.stream]
    if not message.key:
        raise Rejected(f"missing:{id_name}")
    entity_id = key_id(message.key, id_name)
    if entity_id is None:
        raise Rejected("invalid:key", readable(message.key))
    updated_at = plausible_time(published(message), None, message, settings)
    short(**{id_name: entity_id})
    names = (*ENTITY_TEXTS[message.stream], *(("price",) if message.stream == "products" else ()))
    return Version(message=message, id=entity_id, is_tombstone=True, updated_at=updated_at, values=dict.fromkeys(names))


def key_id(key: bytes, id_name: str) -> str | None:
    """The id in a message key: bare, a JSON string, an object that has it, or one of these in Connect's envelope."""
    try:
        written = key.decode()
    except UnicodeDecodeError:
        return None
    if re.search(r"[\x00-\x1f\x7f]", written):
        return None
    if not written.startswith(("{", '"')):
        return identifier(written)
    try:
        found = json.loads(written)
    except ValueError:
        return None
    payload = found.get("payload") if isinstance(found, dict) else None
    candidates = [found]
    candidates += [found.get(id_name), payload] if isinstance(found, dict) else []
    candidates += [payload.get(id_name)] if isinstance(payload, dict) else []
    scalars = [one for one in candidates if one is not None and not isinstance(one, dict | list)]
    return identifier(scalars[0]) if scalars else None


def readable(key: bytes) -> str:
    """As text, or in hexadecimal where it is none."""
    try:
        written = key.decode()
    except UnicodeDecodeError:
        return key.hex()
    return key.hex() if re.search(r"[\x00-\x1f\x7f]", written) else written
