"""Versions and deletions of entities, by the contract of their stream."""

import json
import re
from dataclasses import dataclass, replace
from datetime import datetime

from specification.contracts import Contract, Field
from specification.fields import (
    Reading,
    body_of,
    check_lengths,
    check_values,
    first_given,
    invalid,
    read_field,
    readings,
    require,
    require_listed,
    require_one_of,
)
from specification.landed import Landed, Settings
from specification.messages import MAX_CHARACTERS, Rejected, Version, is_plausible, plausible_time, published
from specification.values import Body, identifier, text


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
    if change is None or not change.is_deletion:  # a database may log only the id of a deleted row
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
    """Reject the message if the time at which an entity was created or deleted is not plausible."""
    time = reading.value
    if reading.text is not None and (time is None or not is_plausible(time, message, settings)):
        raise invalid(reading)


@dataclass(frozen=True, slots=True)
class Change:
    """A change of a row in Debezium's format."""

    row: Body
    is_deletion: bool
    time: Reading
    """When the database made the change, or else when Debezium read it."""


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
    """A message without a body, which deletes an entity: its id is in the message key, its time is published_at."""
    assert contract.key is not None
    if not message.key:
        raise Rejected(f"missing:{contract.key}")
    entity_id = key_id(message.key, contract.key)
    if entity_id is None:
        raise Rejected("invalid:key", readable(message.key))
    updated_at = plausible_time(published(message), None, message, settings)
    if len(entity_id) > MAX_CHARACTERS:
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
    """The id in a message key: plain, a JSON string, in an object, or one of these in Kafka Connect's envelope."""
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
    """A key as text, or in hexadecimal if it is not text."""
    try:
        written = key.decode()
    except UnicodeDecodeError:
        return key.hex()
    return key.hex() if re.search(r"[\x00-\x1f\x7f]", written) else written
