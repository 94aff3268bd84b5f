"""Events of streams that a contract describes."""

from dataclasses import fields
from datetime import datetime
from decimal import Decimal

from specification.contracts import Contract
from specification.fields import (
    Reading,
    body_of,
    check_lengths,
    check_values,
    first_given,
    readings,
    require,
    require_listed,
    require_one_of,
)
from specification.landed import Landed, Settings
from specification.messages import Event, Rejected, plausible_time
from specification.values import microseconds, surrogate_key

VOCABULARY = {one.name for one in fields(Event) if one.type in (str | None, Decimal | None)}
"""Columns of the facts that a field fills if it has their name."""


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
        event_id=own_id or surrogate_key(*identity(contract, given, event_at, secret)),
        event_type=event_type,
        event_at=event_at,
        **shared,
        properties=others or None,
        lines=tuple(given[path].identity for path in contract.id[1:]),
        values={one.field.name: one.column(secret) for one in own} | shared,
    )


def identity(contract: Contract, given: dict[str, Reading], event_at: datetime, secret: bytes) -> list[str | None]:
    """What identifies an event without an id: all its fields except JSON. Its time counts once, at its first path."""
    parts: dict[str, str | None] = {}
    for path, reading in given.items():
        if path in contract.time:
            parts["its time"] = str(microseconds(event_at))
        elif reading.field.type != "json" and path not in contract.id[:1]:
            parts[path] = reading.published_identity(secret)
    return list(parts.values())
