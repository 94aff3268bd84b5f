"""Messages for which a model was wrong, or would be if it left out a rule, by the name of the rule."""

import json
from datetime import datetime, timedelta
from typing import Any

from dbt_project.exactness.message import Message

ECOM_EVENT = {"event_time": "2026-01-05 10:00:00 UTC", "event_type": "view", "product_id": "p", "user_session": "s"}
PAGE_VIEW = {"session_id": "s", "page_title": "Home", "ga_event_dtm": "2026-01-05T10:00:00Z"}
WEB_EVENT = {"timestamp": "2026-01-05T10:00:00", "event": "view", "product": "p"}


Body = dict[str, Any] | bytes | None


def example(number: int, *messages: tuple[int, str, Body] | tuple[int, str, Body, int]) -> list[Message]:
    """The messages of one example, from run, stream and body. `%` stands for the example's number in ids and keys, so
    that examples do not share them. A recovered message has the place of its original too."""
    placed = []
    for place, (run, stream, body, *original) in enumerate(messages):
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        payload = None if body is None else text.replace(b"%", str(number).encode())
        published = datetime(2026, 1, 5, 12) + timedelta(minutes=place)
        message_id = f"recover//w{number}.m{original[0]}" if original else f"w{number}.m{place}"
        attributes = json.dumps({"recovered_from": {"patch": f"of run {run}"}}) if original else None
        placed.append(Message(run, 0, stream, message_id, published, payload, f"u{number}".encode(), attributes))
    return placed


def view(at: str) -> dict[str, Any]:
    return {"session_id": "s%", "user_id": "u%", "page_title": "Home", "ga_event_dtm": at}


def click(at: str, click_id: str = "c%") -> dict[str, Any]:
    return {"click_id": click_id, "user_id": "u%", "product_id": "p%", "datetime_occured": at}


def checkout(at: str) -> dict[str, Any]:
    return {"checkout_id": "k%", "user_id": "u%", "product_id": "p%", "total_amount": 5, "datetime_occured": at}


def user(at: str, **values: Any) -> dict[str, Any]:
    return {"user_id": "u%", "user_name": at, "created_at": "2025-02-01", "updated_at": at, **values}


EXAMPLES = {
    "a late first page view takes the session from the next day": (
        (0, "page_views", view("2025-03-02T00:00:20Z")),
        (1, "page_views", view("2025-03-01T23:59:50Z")),
    ),
    "a late page view joins two sessions, a gap of exactly the limit away from both": (
        (0, "page_views", view("2025-04-30T23:59:30Z")),
        (0, "page_views", view("2025-05-01T00:01:30Z")),
        (1, "page_views", view("2025-05-01T00:00:30Z")),
    ),
    "a microsecond more than the limit does not join": (
        (0, "page_views", view("2025-06-01T10:00:00Z")),
        (1, "page_views", view("2025-06-01T10:01:00.000001Z")),
    ),
    "a copy of a page view that names another session leaves its own session whole": (
        (0, "page_views", view("2025-06-15T10:00:00Z")),
        (0, "page_views", {**view("2025-06-15T10:00:30Z"), "event_id": "e%"}),
        (1, "page_views", {**view("2025-06-15T10:00:30Z"), "event_id": "e%", "session_id": "other%"}),
    ),
    "a late click of the day before, at the edge of the window, counts; a microsecond earlier it does not": (
        (0, "checkouts", checkout("2025-07-02 00:30:00")),
        (1, "clicks", click("2025-07-01 23:30:00")),
        (1, "clicks", click("2025-07-01 23:29:59.999999", "early%")),
    ),
    "of two contents under one id the first landed counts, and an id of another day is another event": (
        (0, "clicks", click("2025-08-01 10:00:00")),
        (1, "clicks", click("2025-08-01 09:00:00")),
        (2, "clicks", click("2025-08-02 10:00:00")),
    ),
    "a store session's events of years before are numbered again": (
        (0, "ecom_events", {**ECOM_EVENT, "event_time": "2025-09-01 10:00:00 UTC", "user_session": "s%"}),
        (1, "ecom_events", {**ECOM_EVENT, "event_time": "2005-09-01 10:00:00 UTC", "user_session": "s%"}),
    ),
    "versions arrive in reverse, are deleted, come back, and end with a tombstone": (
        (0, "users", user("2025-10-03")),
        (1, "users", user("2025-10-02", deleted_at="2025-10-02")),
        (1, "users", user("2025-10-01")),
        (2, "users", None),
    ),
    "the first of a repeated field counts": (
        (0, "web_events", b'{"product": "p%", "timestamp": "2025-11-01", "event": "view", "product": "q%"}'),
    ),
    "times beyond the calendar are rejected": (
        (0, "ecom_events", {**ECOM_EVENT, "event_time": "infinity"}),
        (0, "ecom_events", {**ECOM_EVENT, "event_time": "99999-01-01"}),
        (0, "page_views", {**PAGE_VIEW, "ga_event_dtm": "-infinity"}),
        (0, "page_views", {"session_id": "s", "page_title": "Home", "event_timestamp_ms": "9" * 25}),
        (0, "page_views", {"session_id": "s", "page_title": "Home", "event_timestamp": "9223372036854775807"}),
        (0, "users", {"user_id": "u", "updated_at": "infinity"}),
        (0, "users", {"user_id": "u", "updated_at": "2026-01-01", "created_at": "0001-01-01"}),
    ),
    "a price of ten thousand million breaks no build": (
        (0, "ecom_events", {**ECOM_EVENT, "price": "10000000000"}),
        (0, "ecom_events", {**ECOM_EVENT, "price": "99999999999999.9999"}),
        (0, "ecom_events", {**ECOM_EVENT, "price": "100000000000000"}),
    ),
    "an engaged time of a million million seconds breaks no build": (
        (0, "page_views", {**PAGE_VIEW, "event_params": {"engaged_time": "1000000000000"}}),
    ),
    "a comma before the end is no JSON, but may stand in a text": (
        (0, "web_events", b'{"timestamp": "2026-01-05T10:00:00", "event": "view", "product": "p%",}'),
        (0, "web_events", b'{"timestamp": "2026-01-05T10:00:00", "event": "view", "product": "%,}"}'),
    ),
    "NaN is no JSON, but may stand in a text": (
        (0, "web_events", b'{"timestamp": "2026-01-05T10:00:00", "event": "view", "product": "p%", "x": NaN}'),
        (0, "web_events", b'{"timestamp": "2026-01-05T10:00:00", "event": "view", "product": "%NaN", "x": "inf"}'),
    ),
    "an epoch is a whole number": (
        (0, "page_views", {"session_id": "s%", "page_title": "Home", "event_timestamp_ms": "1767607200000.5"}),
        (0, "page_views", {"session_id": "s%", "page_title": "Home", "event_timestamp_ms": "1.7e12"}),
        (0, "page_views", {"session_id": "s%", "page_title": "Home", "event_timestamp_ms": 1767607200000}),
    ),
    "an engaged time that cannot be read is not made up for by another": (
        (0, "page_views", {**PAGE_VIEW, "event_params": {"engaged_time": "x", "engagement_time_msec": 5}}),
    ),
    "a test event is rejected": (
        (0, "page_views", {**PAGE_VIEW, "event_params": {"test_event": "true"}}),
        (0, "page_views", {**PAGE_VIEW, "event_params": [{"key": "test_event", "value": {"int_value": 1}}]}),
        (0, "page_views", {**PAGE_VIEW, "event_params": {"test_event": "false"}}),
    ),
    "of two recoveries of a rejected message the first counts": (
        (0, "clicks", click("yesterday")),
        (1, "clicks", click("2025-08-20 10:00:00"), 0),
        (2, "clicks", click("2025-08-21 10:00:00"), 0),
    ),
    "a message that is recovered and rejected again is another dead letter": (
        (0, "clicks", b"{"),
        (1, "clicks", click("tomorrow"), 0),
    ),
    "a recovered tombstone deletes what came before it in the log": (
        (0, "users", user("2025-10-03")),
        (0, "users", {"user_id": "u%"}),
        (2, "users", None, 1),
    ),
    "a web event is a view, a cart or a sale": ((0, "web_events", {**WEB_EVENT, "event": "purchase"}),),
}


def examples(first_number: int = 0) -> list[list[Message]]:
    """Every example as a world, numbered from `first_number`."""
    return [example(first_number + place, *messages) for place, messages in enumerate(EXAMPLES.values())]
