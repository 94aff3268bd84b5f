"""How single values are read and written: texts, times, amounts, hashes."""

import hashlib
import json
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import Any

EPOCH = datetime(1970, 1, 1)
MICROSECOND = timedelta(microseconds=1)

Body = dict[str, Any]


def read_body(payload: bytes | None) -> Body | None:
    """The JSON object of a payload; None when it is anything else. Of a repeated key the first counts."""
    if payload is None:
        return None

    def first_of_each(pairs: list[tuple[str, Any]]) -> Body:
        return {name: value for place, (name, value) in enumerate(pairs) if name not in dict(pairs[:place])}

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        body = json.loads(payload.decode(), object_pairs_hook=first_of_each, parse_constant=refuse)
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def text(value: Any) -> str | None:
    """Any JSON value as text; an empty one, like a missing one, is None."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


NO_VALUES = ("undefined", "null", "nan", "none", "nil", "(not set)")


def identifier(value: Any) -> str | None:
    """An id as text; blank, or what programs write for no value in whatever case, is None."""
    written = text(value)
    if written is None or written.strip(" \t\n\f\r").lower() in ("", *NO_VALUES):
        return None
    return written


def read_time(written: str | None) -> datetime | None:
    """An ISO 8601 time with or without a zone (a `UTC` after it is one); without, it is UTC. None when it is none."""
    if written is None:
        return None
    try:
        time = datetime.fromisoformat(written.removesuffix(" UTC"))
        return time if time.tzinfo is None else time.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        return None


def read_epoch(written: str | None, units_per_second: int) -> datetime | None:
    """A time from a count of seconds / units_per_second since 1970."""
    try:
        return EPOCH + timedelta(microseconds=int(written or "") * (1_000_000 // units_per_second))
    except (ValueError, OverflowError):
        return None


def read_amount(written: str | None) -> Decimal | None:
    """A number with four decimals, half up, of at most 14 digits before them; None when it is none."""
    try:
        amount = rounded(Decimal(written or ""), 4)
    except InvalidOperation:
        return None
    return amount if amount.is_finite() and abs(amount) < 10**14 else None


def rounded(number: Decimal, places: int) -> Decimal:
    return number.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP)


def seconds_between(first: datetime, last: datetime) -> Decimal:
    """Exact to the microsecond."""
    return Decimal(microseconds(last) - microseconds(first)) / 1_000_000


def microseconds(time: datetime) -> int:
    return (time - EPOCH) // MICROSECOND


def ratio(part: int, whole: int) -> Decimal | None:
    """A share to four decimals; None when there is nothing to divide by."""
    return rounded(Decimal(part) / whole, 4) if whole else None


def hash_of(*texts: str | None) -> str:
    """MD5 of texts, each behind its length, so that no two lists of texts have the same hash by accident."""
    netstrings = ["null" if text is None else f"{len(text)}:{text}" for text in texts]
    return hashlib.md5(",".join(netstrings).encode()).hexdigest()  # noqa: S324  an identity, no secret
