"""The bodies of messages and the values of their fields, by the contract of their stream."""

import json
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from specification.contracts import Contract, Field
from specification.landed import Landed
from specification.messages import MAX_CHARACTERS, Rejected, amount_text
from specification.values import (
    Body,
    identifier,
    json_text,
    keyed_hash,
    microseconds,
    read_amount,
    read_body,
    read_boolean,
    read_epoch,
    read_formatted,
    read_integer,
    read_json,
    read_time,
    text,
    value_at,
)

UNITS_PER_SECOND = {"seconds": 1, "milliseconds": 1000, "microseconds": 1_000_000}


def body_of(message: Landed, contract: Contract) -> Body:
    """The JSON object of a message. For a CloudEvent in binary mode: the attributes of the message, with the payload,
    unless it is empty, as `data`."""
    attributes = json.loads(message.attributes) if contract.envelope == "cloudevents" and message.attributes else {}
    for prefix in ("ce_", "ce-"):
        if attributes.get(f"{prefix}specversion"):
            given = {name.removeprefix(prefix): value for name, value in attributes.items()}
            context = {name: given[name] for name in known_attributes(contract) if name in given}
            if not message.payload:
                return context
            try:
                data = read_json(message.payload)
            except ValueError:
                raise malformed(message) from None
            return {**context, "data": data}
    body = read_body(message.payload)
    if body is None:
        raise malformed(message)
    return body


def known_attributes(contract: Contract) -> set[str]:
    """Attributes of CloudEvents that staging reads, and those that the contract names."""
    paths = [path for field in contract.fields.values() for path in field.paths]
    own = {re.split(r"[.\[]", path)[0] for path in paths} - {"data"}
    return {"specversion", "id", "source", "type", "subject", "time"} | own


def malformed(message: Landed) -> Rejected:
    if message.payload is None:
        return Rejected("malformed_json", "no payload")
    try:
        message.payload.decode()
    except UnicodeDecodeError:
        return Rejected("malformed_json", "not UTF-8")
    return Rejected("malformed_json", "not a JSON object")


# --- fields


@dataclass(frozen=True, slots=True)
class Reading:
    """The value of a field in a body."""

    field: Field
    text: str | None = None
    value: Any = None
    """The value in the field's type; None if the text is missing or has another type."""

    @property
    def identity(self) -> str | None:
        """The value as text, as it counts in the identity of an event or a version."""
        match self.value:
            case bool():
                return "true" if self.value else "false"
            case Decimal():
                return amount_text(self.value)
            case datetime():
                return str(microseconds(self.value))
            case int() if self.field.type == "integer":
                return str(self.value)
        return self.text

    def published_identity(self, secret: bytes) -> str | None:
        """The same; for a personal field, its keyed hash."""
        known = self.identity
        return keyed_hash(secret, known) if self.field.personal and known is not None else known

    def column(self, secret: bytes) -> Any:
        """The value in staging."""
        if self.text is not None and self.field.personal == "hash":
            return keyed_hash(secret, self.text)
        return self.text if self.field.type == "json" else self.value

    def property(self, secret: bytes) -> Any:
        """The value in the properties of an event."""
        if isinstance(self.value, datetime):
            return self.value.isoformat(timespec="microseconds") + "Z"
        return self.value if self.field.type == "json" else self.column(secret)


def readings(contract: Contract, body: Body) -> dict[str, Reading]:
    """Path to reading, in the order of the contract."""
    return {path: read_field(field, body) for path, field in contract.fields.items()}


def read_field(field: Field, body: Body) -> Reading:
    """Read the first of the path and the aliases that has a value."""
    for path in field.paths:
        found = value_at(body, path)
        if field.type == "json" and found is not None:
            return Reading(field, json_text(found), found)
        written = identifier(found) if field.type == "id" else text(found)
        if written is not None and written not in field.nulls:
            return Reading(field, written, READERS[field.type](written, field))
    return Reading(field)


def read_timestamp(written: str, field: Field) -> datetime | None:
    if field.unit:
        return read_epoch(written, UNITS_PER_SECOND[field.unit])
    return read_formatted(written, field.format) if field.format else read_time(written)


READERS: dict[str, Callable[[str, Field], Any]] = {
    "string": lambda written, field: written,
    "id": lambda written, field: written,
    "integer": lambda written, field: read_integer(written),
    "amount": lambda written, field: read_amount(written),
    "boolean": lambda written, field: read_boolean(written),
    "timestamp": read_timestamp,
}


# --- validation


def require(given: Iterable[Reading]) -> None:
    for reading in given:
        if reading.text is None:
            raise Rejected(f"missing:{reading.field.path}")


def require_one_of(contract: Contract, given: dict[str, Reading]) -> None:
    for group in contract.one_of:
        if all(given[path].text is None for path in group):
            raise Rejected(f"missing:{group[0]}")


def check_values(given: Iterable[Reading]) -> None:
    """Reject the message if a value has another type than its field, or is not allowed."""
    for reading in given:
        value, values = reading.value, reading.field.values
        is_beyond = isinstance(value, datetime) and value.year > 9998
        if reading.text is not None and (value is None or is_beyond or (values and reading.identity not in values)):
            raise invalid(reading)


def invalid(reading: Reading) -> Rejected:
    """The rejection for a value, which it shows unless it is personal."""
    return Rejected(f"invalid:{reading.field.path}", None if reading.field.personal else reading.text)


def require_listed(reading: Reading, values: Collection[str]) -> None:
    if reading.text is not None and reading.text not in values:
        raise invalid(reading)


def check_lengths(given: Iterable[Reading]) -> None:
    for reading in given:
        is_kept = reading.field.type in ("string", "id", "json") and reading.field.personal != "drop"
        if is_kept and len(reading.text or "") > MAX_CHARACTERS:
            raise Rejected(f"too_long:{reading.field.path}")


def first_given(given: dict[str, Reading], paths: Sequence[str]) -> Reading:
    """The first of these fields that has a text, or else the first field."""
    return next((given[path] for path in paths if given[path].text is not None), given[paths[0]])
