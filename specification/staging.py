"""What each message says, by the contract of its stream.

A body is rejected for the first reason that holds, in the order in which the functions state them.
"""

import json
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from specification.contracts import Contract, Field
from specification.landed import Landed, Settings
from specification.messages import (
    MOST_CHARACTERS,
    Event,
    Rejected,
    Version,
    amount_text,
    is_plausible,
    plausible_time,
    published,
)
from specification.page_views import read_page_view
from specification.values import (
    Body,
    hash_of,
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

VOCABULARY = {one.name for one in fields(Event) if one.type in (str | None, Decimal | None)}
"""The columns of the facts that a field goes to by its name."""
UNITS_PER_SECOND = {"seconds": 1, "milliseconds": 1000, "microseconds": 1_000_000}


def read(message: Landed, contract: Contract, settings: Settings, secret: bytes = b"") -> Event | Version:
    """What a message says.

    Args:
        secret: the key of the hashes that stand for personal values.

    Raises:
        Rejected: when it is no acceptable event or version.
    """
    if contract.stream == "page_views":
        return read_page_view(message, body_of(message, contract), settings)
    if contract.kind == "event":
        return read_event(message, contract, settings, secret)
    if message.payload is None:
        return read_tombstone(message, contract, settings)
    return read_version(message, contract, settings, secret)


# --- bodies


def body_of(message: Landed, contract: Contract) -> Body:
    """The JSON object of a message. Of a CloudEvent in binary mode the attributes are those of the message, and the
    payload, unless it is empty, is its data."""
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
    """Those of CloudEvents that staging reads, and those that the contract does."""
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
    """What a body says in a field."""

    field: Field
    text: str | None = None
    value: Any = None
    """Of the field's type; None also where the text is no such value."""

    @property
    def identity(self) -> str | None:
        """As it counts in the identity of an event or a version."""
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
        """The same, of a personal field as its keyed hash."""
        known = self.identity
        return keyed_hash(secret, known) if self.field.personal and known is not None else known

    def column(self, secret: bytes) -> Any:
        """As staging has it."""
        if self.text is not None and self.field.personal == "hash":
            return keyed_hash(secret, self.text)
        return self.text if self.field.type == "json" else self.value

    def property(self, secret: bytes) -> Any:
        """As it is in the properties of an event."""
        if isinstance(self.value, datetime):
            return self.value.isoformat(timespec="microseconds") + "Z"
        return self.value if self.field.type == "json" else self.column(secret)


def readings(contract: Contract, body: Body) -> dict[str, Reading]:
    """By path, in order of the contract."""
    return {path: read_field(field, body) for path, field in contract.fields.items()}


def read_field(field: Field, body: Body) -> Reading:
    """Of the path and the aliases the first that has a value counts."""
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


# --- judgement


def require(given: Iterable[Reading]) -> None:
    for reading in given:
        if reading.text is None:
            raise Rejected(f"missing:{reading.field.path}")


def require_one_of(contract: Contract, given: dict[str, Reading]) -> None:
    for group in contract.one_of:
        if all(given[path].text is None for path in group):
            raise Rejected(f"missing:{group[0]}")


def check_values(given: Iterable[Reading]) -> None:
    """What is there is of its type, and one of the values that it may have."""
    for reading in given:
        value, values = reading.value, reading.field.values
        is_beyond = isinstance(value, datetime) and value.year > 9998
        if reading.text is not None and (value is None or is_beyond or (values and reading.identity not in values)):
            raise invalid(reading)


def invalid(reading: Reading) -> Rejected:
    """The value is told, unless it is personal."""
    return Rejected(f"invalid:{reading.field.path}", None if reading.field.personal else reading.text)


def require_listed(reading: Reading, values: Collection[str]) -> None:
    if reading.text is not None and reading.text not in values:
        raise invalid(reading)


def check_lengths(given: Iterable[Reading]) -> None:
    for reading in given:
        is_kept = reading.field.type in ("string", "id", "json") and reading.field.personal != "drop"
        if is_kept and len(reading.text or "") > MOST_CHARACTERS:
            raise Rejected(f"too_long:{reading.field.path}")


def first_given(given: dict[str, Reading], paths: Sequence[str]) -> Reading:
    """The first that has a text, if one has."""
    return next((given[path] for path in paths if given[path].text is not None), given[paths[0]])


# --- events


def read_event(message: Landed, contract: Contract, settings: Settings, secret: bytes) -> Event:
    given = readings(contract, body_of(message, contract))
    require(reading for reading in given.values() if reading.field.is_required)
    require_one_of(contract, given)
    time = first_given(given, contract.time)
    event_at = plausible_time(time.value, time.text, message, settings)
    event_type = contract.event_type
    if contract.type_field:
        written = given[contract.type_field].text
        assert written is not None
        event_type = contract.type_values.get(written, written if contract.keeps_other_types else None)
    if event_type is None:
        raise Rejected(f"invalid:{contract.type_field}", written)
    if contract.type_field and (listed := contract.fields[contract.type_field].values):
        require_listed(given[contract.type_field], listed)
    check_values(given[path] for path in (*contract.id[:1], *contract.own()))
    of_type = [contract.type_field] if contract.type_field else []
    check_lengths(given[path] for path in (*contract.id[:1], *of_type, *contract.own()))

    own_id = given[contract.id[0]].text if contract.id else None
    kept = [reading for reading in given.values() if reading.field.personal != "drop"]
    shared = {one.field.name: one.column(secret) for one in kept if one.field.name in VOCABULARY}
    own = [one for one in kept if one.field.path in contract.own()]
    others = {one.field.name: one.property(secret) for one in own if one.field.name not in VOCABULARY}
    return Event(
        message=message,
        event_id=own_id or hash_of(*identity(contract, given, event_at, secret)),
        event_type=event_type,
        event_at=event_at,
        **shared,
        properties=others or None,
        lines=tuple(given[path].identity for path in contract.id[1:]),
        values={one.field.name: one.column(secret) for one in own} | shared,
    )


def identity(contract: Contract, given: dict[str, Reading], event_at: datetime, secret: bytes) -> list[str | None]:
    """What an event without an id is known by: all that it says, but JSON. Its time counts once, in the first place."""
    parts: dict[str, str | None] = {}
    for path, reading in given.items():
        if path in contract.time:
            parts["its time"] = str(microseconds(event_at))
        elif reading.field.type != "json" and path not in contract.id[:1]:
            parts[path] = reading.published_identity(secret)
    return list(parts.values())


# --- versions of entities


def read_version(message: Landed, contract: Contract, settings: Settings, secret: bytes) -> Version:
    assert contract.key is not None
    body = body_of(message, contract)
    change = read_change(body) if contract.envelope == "debezium" else None
    row = change.row if change else body
    given = readings(contract, row)
    id_ = read_field(replace(contract.fields[contract.key], type="id"), row)
    is_of_change = change is not None and (change.is_deletion or not contract.time)
    time = change.time if change and is_of_change else first_given(given, contract.time)
    require([id_, time])
    if change is None or not change.is_deletion:  # of a deleted row a database may log no more than the id
        require(reading for reading in given.values() if reading.field.is_required)
        require_one_of(contract, given)
    updated_at = plausible_time(time.value, time.text, message, settings)
    for path in (contract.created, *contract.deleted):
        if path and given[path].field.type == "timestamp":
            check_plausible(given[path], message, settings)
    check_values(given[path] for path in contract.deleted if given[path].field.type == "boolean")
    if id_.field.values:
        require_listed(id_, id_.field.values)
    check_values(given[path] for path in contract.own())
    check_lengths([id_, *(given[path] for path in contract.own())])

    deletions = [given[path].value for path in contract.deleted]
    deleted_at = next((value for value in deletions if isinstance(value, datetime)), None)
    if deleted_at is None and True in deletions:
        deleted_at = updated_at
    if change and change.is_deletion:
        deleted_at = updated_at
    own = [given[path] for path in contract.own()]
    return Version(
        message=message,
        id=str(id_.text),
        is_tombstone=False,
        updated_at=updated_at,
        created_at=given[contract.created].value if contract.created else None,
        deleted_at=deleted_at,
        values={one.field.name: one.column(secret) for one in own if one.field.personal != "drop"},
        contents=tuple(one.published_identity(secret) for one in own),
        has_mismatched_key=message.key is not None and key_id(message.key, contract.key) != id_.text,
    )


def check_plausible(reading: Reading, message: Landed, settings: Settings) -> None:
    """A time at which an entity was created or deleted."""
    time = reading.value
    if reading.text is not None and (time is None or not is_plausible(time, message, settings)):
        raise invalid(reading)


@dataclass(frozen=True, slots=True)
class Change:
    """A change of a row, as Debezium writes it."""

    row: Body
    is_deletion: bool
    time: Reading
    """When the database made it, or else when Debezium saw it."""


def read_change(body: Body) -> Change:
    change = body["payload"] if isinstance(body.get("payload"), dict) else body
    op = text(change.get("op"))
    if op is None:
        raise Rejected("missing:op")
    if op not in ("c", "u", "r", "d"):
        raise Rejected("invalid:op", op)
    row = change.get("before" if op == "d" else "after")
    return Change(row if isinstance(row, dict) else {}, op == "d", read_field(CHANGE_TIME, change))


CHANGE_TIME = Field("ts_ms", "ts_ms", ("source.ts_ms", "ts_ms"), type="timestamp", unit="milliseconds")


def read_tombstone(message: Landed, contract: Contract, settings: Settings) -> Version:
    """A message without a body deletes an entity: its id is in the message key, its time is published_at."""
    assert contract.key is not None
    if not message.key:
        raise Rejected(f"missing:{contract.key}")
    entity_id = key_id(message.key, contract.key)
    if entity_id is None:
        raise Rejected("invalid:key", readable(message.key))
    updated_at = plausible_time(published(message), None, message, settings)
    if len(entity_id) > MOST_CHARACTERS:
        raise Rejected(f"too_long:{contract.key}")
    return Version(
        message=message,
        id=entity_id,
        is_tombstone=True,
        updated_at=updated_at,
        values=dict.fromkeys(contract.columns()),
        contents=(None,) * len(contract.own()),
    )


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
