"""How single values are read and written: texts, times, amounts, hashes."""

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import Any

EPOCH = datetime(1970, 1, 1)
MICROSECOND = timedelta(microseconds=1)

Body = Mapping[str, Any]


class JsonObject(dict[str, Any]):
    """A JSON object as written. For a repeated key, the first value counts."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(reversed(pairs))
        self.pairs = pairs


@dataclass(frozen=True, slots=True)
class HugeNumber:
    """A number beyond 64-bit floats, as written."""

    written: str


def read_json(payload: bytes | None) -> Any:
    """Any JSON value.

    Raises:
        ValueError: if it is not JSON by RFC 8259.
    """

    def reject(constant: str) -> None:
        raise ValueError(constant)

    def number(written: str) -> float | HugeNumber:
        return float(written) if abs(float(written)) < float("inf") else HugeNumber(written)

    if payload is None:
        raise ValueError("no payload")
    value = json.loads(payload.decode(), object_pairs_hook=JsonObject, parse_float=number, parse_constant=reject)
    json_text(value).encode()  # raises for an incomplete surrogate pair
    return value


def read_body(payload: bytes | None) -> JsonObject | None:
    """The JSON object of a payload; None for anything else."""
    try:
        body = read_json(payload)
    except ValueError:
        return None
    return body if isinstance(body, JsonObject) else None


def value_at(body: Body, path: str) -> Any:
    """The value at a path such as props.items[0].sku, or None."""
    value: Any = body
    for name, place in re.findall(r"([^.\[\]]+)|\[([0-9]+)\]", path):
        if name:
            value = value.get(name) if isinstance(value, dict) else None
        else:
            value = value[int(place)] if isinstance(value, list) and int(place) < len(value) else None
    return value


def text(value: Any) -> str | None:
    """Any JSON value as text; an empty one, like a missing one, is None."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return repr(value)
    return json_text(value)


def json_text(value: Any) -> str:
    """JSON as DuckDB writes it: objects keep the order of their keys, also repeated ones."""
    if isinstance(value, dict):
        pairs = value.pairs if isinstance(value, JsonObject) else value.items()
        return f"{{{','.join(f'{json_scalar(name)}:{json_text(inner)}' for name, inner in pairs)}}}"
    if isinstance(value, list):
        return f"[{','.join(map(json_text, value))}]"
    return json_scalar(value)


def json_scalar(value: Any) -> str:
    if isinstance(value, float):
        return json_number(value)
    if isinstance(value, Decimal):  # numbers of JSON have at most sixteen digits
        plain = without_zeros(value)
        return json_number(float(plain)) if "." in plain else plain
    if isinstance(value, HugeNumber):
        return value.written
    escaped = json.dumps(value, ensure_ascii=False)
    return re.sub(r"(?<!\\)((?:\\\\)*\\u00)(..)", lambda found: found[1] + found[2].upper(), escaped)


def json_number(value: float) -> str:
    """A number with the fewest digits, and with an exponent above 1e21 or below 1e-6."""
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    assert isinstance(exponent, int)
    if value == 0 or -6 < len(digits) + exponent <= 21:
        plain = f"{Decimal(repr(value)):f}"
        return plain if "." in plain else f"{plain}.0"
    first, *rest = map(str, digits)
    fraction = "." + "".join(rest) if rest else ""
    return f"{'-' if sign else ''}{first}{fraction}e{len(digits) + exponent - 1}"


NO_VALUES = ("undefined", "null", "nan", "none", "nil", "(not set)")


def identifier(value: Any) -> str | None:
    """An id as text; None if it is blank, or in any case one of NO_VALUES, which programs write for a missing value."""
    written = text(value)
    if written is None or written.strip(" \t\n\f\r").lower() in ("", *NO_VALUES):
        return None
    return written


def keyed_hash(key: bytes, written: str) -> str:
    return hmac.new(key, written.encode(), hashlib.sha256).hexdigest()


def read_integer(written: str) -> int | None:
    """An integer of 64 bits, or None."""
    if not re.fullmatch("-?[0-9]+", written):
        return None
    number = int(Decimal(written))
    return number if -(2**63) <= number < 2**63 else None


def read_boolean(written: str) -> bool | None:
    return {"true": True, "1": True, "false": False, "0": False}.get(written.lower())


def read_time(written: str | None) -> datetime | None:
    """An ISO 8601 time, or None. A zone may follow it, also ` UTC`; without one the time is UTC."""
    if written is None:
        return None
    try:
        time = datetime.fromisoformat(written.removesuffix(" UTC"))
        return time if time.tzinfo is None else time.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        return None


def read_epoch(written: str | None, units_per_second: int) -> datetime | None:
    """A time from an integer of units since 1970, or None."""
    number = read_integer(written or "")
    try:
        return None if number is None else EPOCH + timedelta(microseconds=number * (1_000_000 // units_per_second))
    except OverflowError:
        return None


FORMAT_PARTS = {
    "%Y": "(?P<year>[0-9]{4})",
    "%m": "(?P<month>[0-9]{2})",
    "%d": "(?P<day>[0-9]{2})",
    "%H": "(?P<hour>[0-9]{2})",
    "%M": "(?P<minute>[0-9]{2})",
    "%S": "(?P<second>[0-9]{2})",
    "%f": "(?P<fraction>[0-9]{1,6})",
    "%z": "(?P<zone>Z|[+-][0-9]{2}:?[0-9]{2})",
}


def read_formatted(written: str, time_format: str) -> datetime | None:
    """A time in exactly this format, or None. Without a zone it is UTC."""
    parts = re.split("(%.)", time_format)
    found = re.fullmatch("".join(FORMAT_PARTS.get(part) or re.escape(part) for part in parts), written)
    if found is None:
        return None
    given = {"month": "1", "day": "1", "hour": "0", "minute": "0", "second": "0"} | found.groupdict()
    numbers = [int(given[name]) for name in ("year", "month", "day", "hour", "minute", "second")]
    zone = given.get("zone", "Z").replace(":", "")
    offset = timedelta() if zone == "Z" else timedelta(hours=int(zone[1:3]), minutes=int(zone[3:]))
    try:
        time = datetime(*numbers) + timedelta(microseconds=int(given.get("fraction", "0").ljust(6, "0")))  # type: ignore[arg-type]
        return time + offset if zone.startswith("-") else time - offset
    except (ValueError, OverflowError):
        return None


def read_amount(written: str | None) -> Decimal | None:
    """A number rounded half up to four decimals, with at most 14 digits before them, or None."""
    try:
        amount = rounded(Decimal(written or ""), 4)
    except InvalidOperation:
        return None
    return amount if amount.is_finite() and abs(amount) < 10**14 and str(written).isascii() else None


def without_zeros(number: Decimal) -> str:
    """A number as text without trailing zeros after the point."""
    plain = f"{number + 0:f}"
    return plain.rstrip("0").rstrip(".") if "." in plain else plain


def rounded(number: Decimal, places: int) -> Decimal:
    return number.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP)


def seconds_between(first: datetime, last: datetime) -> Decimal:
    """Seconds from one time to another, exact to the microsecond."""
    return Decimal(microseconds(last) - microseconds(first)) / 1_000_000


def microseconds(time: datetime) -> int:
    return (time - EPOCH) // MICROSECOND


def ratio(part: int, whole: int) -> Decimal | None:
    """A share rounded to four decimals; None if the whole is 0."""
    return rounded(Decimal(part) / whole, 4) if whole else None


def surrogate_key(*texts: str | None) -> str:
    """MD5 of texts with their lengths, so that different lists of texts are different inputs."""
    netstrings = ["null" if text is None else f"{len(text)}:{text}" for text in texts]
    return hashlib.md5(",".join(netstrings).encode()).hexdigest()  # noqa: S324  an identity, not a secret
