"""Faults in the messages of events, such as duplicates and broken bodies, each with its own rate."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from common.errors import UserError
from ingest.message import Message
from ingest.simulator.draws import DAY, HOUR, MINUTE, SECOND, Drawn, Ints, Record

CARRIED_DAYS = 4
"""Maximum days from the day of an event to the day on which its message is published: see `Delivery`."""
LATEST = 3 * DAY
"""Maximum delay of a late event."""
ROWS_AT_A_TIME = 8_192


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """Rates of faults, each a share from 0 to 1.

    Raises:
        UserError: if a rate is outside 0 to 1.
    """

    duplicate_message: float = 0.01
    """Share of messages that are sent again unchanged a little later, as by a retry of the producer or broker."""
    duplicate_event: float = 0.005
    """Share of events that are sent again up to an hour later, with fields in another order and attribute `attempt`."""
    late: float = 0.02
    """Share of events and entity versions that are published minutes to three days after they happened."""
    out_of_order: float = 0.02
    """Share of messages that the log has after messages published up to two minutes later."""
    malformed_json: float = 0.001
    """Share of messages whose body is truncated."""
    invalid_utf8: float = 0.0005
    """Share of messages whose body has a byte that is not UTF-8."""
    missing_field: float = 0.001
    """Share of messages in which one required field is missing or empty."""
    test_event: float = 0.002
    """Share of page views that are marked as test_event."""
    literal_null: float = 0.05
    """Share of store events in which brand, category_code or user_session is 'null' or ''."""
    unlisted_field: float = 0.002
    """Share of events and entity versions with a field that the contract does not list, as from a newer producer."""

    def __post_init__(self) -> None:
        for name, rate in self.rates().items():
            if not 0 <= rate <= 1:
                raise UserError(f"fault rate {name} is {rate}; it must be between 0 and 1")

    def rates(self) -> dict[str, float]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def none(cls) -> "Faults":
        """Return the rates of a stream without faults."""
        return cls(**dict.fromkeys((field.name for field in fields(cls)), 0.0))


REQUIRED: dict[str, tuple[tuple[str, ...], ...]] = {
    "web_events": (("timestamp",), ("event",), ("product",)),
    "page_views": (
        ("session_id", "user_id", "user_pseudo_id"),
        ("ga_event_dtm", "event_timestamp_ms", "timestamp_ms", "event_timestamp"),
        ("page_title", "page_id", "event_params"),
    ),
    "clicks": (("click_id",), ("user_id",), ("product_id",), ("datetime_occured",)),
    "checkouts": (("checkout_id",), ("user_id",), ("product_id",), ("datetime_occured",)),
    "ecom_events": (("event_time",), ("event_type",), ("product_id",)),
    "post_events": (("event_id",), ("user_id",), ("post_id",), ("created_at",), ("event_type",)),
    "users": (("user_id",), ("updated_at",)),
    "products": (("product_id",), ("updated_at",)),
    "posts": (("post_id",), ("updated_at",)),
}
"""Required fields of each stream, with all spellings of a field. A message that lacks one of them must be rejected."""

MALFORMED, INVALID_UTF8, MISSING, TEST, NULL, UNLISTED = (1 << bit for bit in range(6))
ORIGINAL, SAME_MESSAGE, SAME_EVENT = range(3)


@dataclass(frozen=True, slots=True)
class Delivery:
    """The messages of the events of one stream and day.

    Most are published on that day. Late messages, and those of visits that end after midnight, are published up to
    CARRIED_DAYS later. So the messages of day d come from the deliveries of days d - CARRIED_DAYS to d. A delivery is
    not stored, since it can be drawn again from (seed, day) and the settings. The next run publishes messages after the
    last day of this one.
    """

    drawn: Drawn
    row: Ints
    """Row of `drawn` per message; duplicates have the same row."""
    published_at: Ints
    position: Ints
    """Sort key of a message in the log: `published_at`, or later if it is out of order."""
    copy: NDArray[np.int8]
    flags: NDArray[np.int8]
    salt: Ints
    """Random number that selects where a body is truncated or which field is missing; equal in duplicates."""

    def between(self, begin: int, end: int) -> Iterator[tuple[int, Message]]:
        """Return the messages published in [begin, end) and their positions, ordered by position."""
        chosen = np.flatnonzero((self.published_at >= begin) & (self.published_at < end))
        chosen = chosen[np.argsort(self.position[chosen], kind="stable")]
        required = REQUIRED[self.drawn.stream.name]
        for start in range(0, len(chosen), ROWS_AT_A_TIME):
            part = chosen[start : start + ROWS_AT_A_TIME]
            for (key, body, attributes), position, published_at, copy, flags, salt in zip(
                self.drawn.build(self.row[part]), self.position[part].tolist(), self.published_at[part].tolist(),
                self.copy[part].tolist(), self.flags[part].tolist(), self.salt[part].tolist(), strict=True,
            ):  # fmt: skip
                payload = None
                if body is not None and (flags or copy == SAME_EVENT):
                    payload = _faulty(body, copy, flags, salt, required)
                elif body is not None:
                    payload = orjson.dumps(body)
                headers = {**attributes, "attempt": "2"} if copy == SAME_EVENT else attributes
                yield position, Message(payload, key, headers, published_at)


def deliver(drawn: Drawn, faults: Faults, day_start: int, rng: np.random.Generator) -> Delivery:
    """Draw the faults of each row. All draws are made even at rate 0, so that rates do not affect each other."""
    count = len(drawn.sent_at)
    hits = {name: rng.random(count) < rate for name, rate in faults.rates().items()}
    delay = np.clip(rng.lognormal(np.log(40 * MINUTE), 2.0, count), 2 * MINUTE, LATEST).astype(np.int64)
    retry_delay = 1_000 + rng.exponential(2 * SECOND, count).astype(np.int64)
    again_delay = np.clip(rng.lognormal(np.log(5 * MINUTE), 1.5, count), SECOND, HOUR).astype(np.int64)
    shift = rng.integers(SECOND, 2 * MINUTE, (3, count))
    salt = rng.integers(2**31, size=count)

    published_at = drawn.sent_at + np.where(hits["late"], delay, 0)
    is_payload_fault = {MALFORMED: "malformed_json", INVALID_UTF8: "invalid_utf8", MISSING: "missing_field"}
    is_event_fault = {UNLISTED: "unlisted_field"}
    is_event_fault |= {TEST: "test_event"} if drawn.stream.name == "page_views" else {}
    is_event_fault |= {NULL: "literal_null"} if drawn.stream.name == "ecom_events" else {}
    message_flags = _flags(hits, is_payload_fault, count)
    event_flags = _flags(hits, is_event_fault, count)

    retried, again = np.flatnonzero(hits["duplicate_message"]), np.flatnonzero(hits["duplicate_event"])
    row = np.r_[np.arange(count), retried, again]
    copy = np.repeat(np.array([ORIGINAL, SAME_MESSAGE, SAME_EVENT], np.int8), [count, len(retried), len(again)])
    published_at = np.r_[
        published_at, published_at[retried] + retry_delay[retried], published_at[again] + again_delay[again]
    ]
    # Bound the delay, since a message after CARRIED_DAYS would be lost. Only extremely long visits reach this bound.
    published_at = np.minimum(published_at, day_start + (CARRIED_DAYS + 1) * DAY - 1)
    position = published_at + np.where(hits["out_of_order"][row], shift[copy, row], 0)
    # The second message of an event is drawn separately, so it does not have the faults of the first.
    flags = event_flags[row] | np.where(copy == SAME_EVENT, 0, message_flags[row]).astype(np.int8)
    return Delivery(drawn, row, published_at, position, copy, flags, salt[row])


def _flags(hits: dict[str, NDArray[np.bool_]], names: dict[int, str], count: int) -> NDArray[np.int8]:
    flags = np.zeros(count, np.int8)
    for flag, name in names.items():
        flags[hits[name]] |= flag
    return flags


def _faulty(body: Record, copy: int, flags: int, salt: int, required: tuple[tuple[str, ...], ...]) -> bytes:
    if flags & TEST:
        body = _as_test(body)
    if flags & NULL:
        body = _with_null(body, salt)
    if flags & UNLISTED:
        body = body | {"app_version": f"2.{salt % 10}.0"}
    if flags & MISSING:
        body = _without(body, required[salt % len(required)], salt)
    payload = orjson.dumps(body, option=orjson.OPT_SORT_KEYS if copy == SAME_EVENT else None)
    if flags & MALFORMED:
        # truncate between characters, since a part of one would be invalid UTF-8
        payload = payload[: 1 + salt % (len(payload) - 1)].decode(errors="ignore").encode()
    if flags & INVALID_UTF8:
        at = 1 + salt % len(payload)
        payload = payload[:at] + b"\xff" + payload[at:]
    return payload


# Each of these functions returns a new body, since messages may share one.


def _as_test(body: Record) -> Record:
    params: Any = body["event_params"]
    if isinstance(params, dict):
        return body | {"event_params": params | {"test_event": True}}
    others = [param for param in params if param["key"] != "test_event"]
    return body | {"event_params": [*others, {"key": "test_event", "value": {"string_value": "true"}}]}


def _with_null(body: Record, salt: int) -> Record:
    field = ("brand", "category_code", "user_session")[salt // 2 % 3]
    return body | {field: ("null", "")[salt % 2]}


def _without(body: Record, spellings: tuple[str, ...], salt: int) -> Record:
    rest = {field: value for field, value in body.items() if field not in spellings}
    first = next(field for field in spellings if field in body)
    return rest | {first: ""} if salt // 64 % 2 else rest
