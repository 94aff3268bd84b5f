"""Page views, whose three formats no contract can describe."""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from specification.landed import Landed, Settings
from specification.messages import Event, Rejected, plausible_time, published, require, short
from specification.values import (
    Body,
    identifier,
    microseconds,
    read_amount,
    read_epoch,
    read_time,
    rounded,
    surrogate_key,
    text,
)


def read_page_view(message: Landed, body: Body, settings: Settings) -> Event:
    """Read one of three formats: GA4's continuous query, an older one (page_id, timestamp_ms), or GA4's export.

    A page view without an event_id is identified by its session, time, page, address, and position in GA4's batch.
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
        raise Rejected("invalid:event_name", text(body["event_name"]))
    engaged_seconds = amount("engaged_time", params.get("engaged_time"))
    engaged_text = params.get("engaged_time")
    if engaged_seconds is None:
        engaged_text = params.get("engagement_time_msec")
        milliseconds = amount("engaged_time", engaged_text)
        engaged_seconds = None if milliseconds is None else rounded(milliseconds / 1000, 4)
    if engaged_seconds is not None and not 0 <= engaged_seconds <= 999_999_999_999:
        raise Rejected("invalid:engaged_time", engaged_text)
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
    identity = (session_id, str(microseconds(event_at)), page_title, user_pseudo_id, url, *batch)
    return Event(
        message=message,
        event_id=own_id or surrogate_key(*identity),
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
    """GA4's event_params: an object, or a list of keys and typed values, of which the first value of a key counts."""
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
    """The time in the first of four fields that has one, as text and as a time."""
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


def amount(name: str, written: str | None) -> Decimal | None:
    """An optional amount: None if missing, but a given one must be a number."""
    number = read_amount(written)
    if written is not None and number is None:
        raise Rejected(f"invalid:{name}", written)
    return number


def as_written(value: Any) -> str | None:
    """A value as text, which may be empty."""
    return "" if value == "" else text(value)
