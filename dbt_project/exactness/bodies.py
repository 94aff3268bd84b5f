"""Random bodies of messages: events, versions of entities, and broken ones, by the contract of their stream."""

import json
from datetime import datetime, timedelta
from typing import Any

from common.streams import BodyField, EventType, Stream
from dbt_project.exactness.paths import get, put
from dbt_project.exactness.values import Chance, Values, epoch


class Bodies(Chance):
    """Draws the bodies and keys of one world's messages."""

    def __init__(self, values: Values, day: datetime) -> None:
        """Prepare to draw bodies; `changed` sets times to this day."""
        super().__init__(values.rng)
        self.values = values
        self.day = day

    def event(self, stream: Stream, time: datetime) -> tuple[Any, bytes | None]:
        body: dict[str, Any] = {}
        own_id = self.values.own_id()
        of_type = stream.event_type if isinstance(stream.event_type, EventType) else None
        value: Any
        for field in stream.fields:
            path = field.in_body
            if of_type and path == of_type.field:
                value = self.type_of_event(of_type)
            elif path in stream.time:
                value = self.values.spelt(time, field) if path == stream.time[0] or self.one_in(4) else ...
            elif path in stream.id[:1]:
                value = own_id if field.required or not self.one_in(3) else ...
            else:
                value = self.values.value(field, stream, time)
            put(body, self.any_path(field), value)
        self.complete(body, stream, time)
        if stream.envelope == "cloudevents":
            body.setdefault("specversion", "1.0")
        key = None if stream.key is None else get(body, stream.key)
        return body, None if key is None else str(key).encode()

    def type_of_event(self, event_type: EventType) -> str:
        """Any type; twice as often one that the SQL names, so that events of two of its types meet."""
        texts = self.values.literals.texts
        named = [value for text in texts for value, known_as in event_type.values.items() if known_as == text]
        if named and not self.one_in(3):
            return self.rng.choice(named)
        return self.rng.choice([*event_type.values, *(["other"] if event_type.others == "keep" else [])])

    def entity(self, stream: Stream, time: datetime) -> tuple[Any, bytes | None]:
        """A version of an entity, perhaps a deleted one, or a tombstone without a body."""
        entity = self.rng.choice(self.values.ids)
        key = self.values.written_key(entity, stream.key or "id")
        if self.one_in(6):
            return None, key
        row: dict[str, Any] = {}
        value: Any
        for field in stream.fields:
            path = field.in_body
            if path == stream.key:
                value = entity
            elif path in stream.time:
                value = self.values.spelt(time, field) if path == stream.time[0] or self.one_in(2) else ...
            elif path == stream.created:
                before = self.any_of(0, 1, 86_400, 4000 * 86_400, -1)
                value = self.any_of(self.values.spelt(time - timedelta(seconds=before), field), ..., None)
            elif path in stream.deleted and not self.one_in(6):
                value = self.any_of(..., None, *(("false",) if field.type == "boolean" else ()))
            else:
                value = self.values.value(field, stream, time)
            put(row, self.any_path(field), value)
        self.complete(row, stream, time)
        body: Any = row if stream.envelope != "debezium" else self.change(row, time)
        return body, key

    def change(self, row: dict[str, Any], time: datetime) -> dict[str, Any]:
        """A change of a row in Debezium's format, with or without a schema."""
        is_deletion = self.one_in(5)
        change = {
            "before": row if is_deletion else None,
            "after": None if is_deletion else row,
            "op": "d" if is_deletion else self.any_of("c", "u", "u", "r"),
            "ts_ms": epoch(time) // 1000 + self.any_of(0, 5),
            "source": {"ts_ms": epoch(time) // 1000},
        }
        return {"schema": {"type": "struct"}, "payload": change} if self.one_in(3) else change

    def prefix(self, stream: Stream) -> str:
        return "after." if stream.envelope == "debezium" else ""

    def binary(self, stream: Stream, body: dict[str, Any]) -> tuple[str, Any]:
        """A CloudEvent in binary mode: its data are the body, and all else are attributes. Without data, it has no
        body."""
        prefix = "ce_" if stream.transport == "kafka" else "ce-"
        given = {name: str(value) for name, value in body.items() if name != "data" and value is not None}
        return json.dumps({f"{prefix}{name}": value for name, value in given.items()}), body.get("data")

    def complete(self, body: dict[str, Any], stream: Stream, time: datetime) -> None:
        """Set a field of each `one_of` group that has no value yet."""
        for group in stream.one_of:
            if not any(get(body, path) for path in group):
                [field] = [field for field in stream.fields if field.in_body == group[0]]
                put(
                    body,
                    group[0],
                    self.values.spelt(time, field) if group[0] in stream.time else self.values.filled(field, time),
                )

    def any_path(self, field: BodyField) -> str:
        return self.rng.choice(field.aliases) if field.aliases and self.one_in(4) else field.in_body

    def changed(self, payload: bytes | None) -> bytes | None:
        """The payload with another value in one field, perhaps in that of the id or the time."""
        try:
            body = json.loads(payload or b"")
        except ValueError:
            return payload
        if not isinstance(body, dict) or not body:
            return payload
        name = self.rng.choice(sorted(body))
        values = self.values
        others = self.rng.choice(values.ids), values.word(), values.amount(), values.spelt(self.day, None)
        body[name] = self.any_of(*others)
        return json.dumps(body, ensure_ascii=False).encode()

    def broken(self, stream: Stream, body: Any, key: bytes | None) -> tuple[bytes | None, bytes | None]:
        """A payload and a key that staging may have to reject."""
        if body is None:
            return None, self.any_of(None, b"", b"\xff", b"null", b"{")
        if self.one_in(3):
            return self.any_of(b"", b"not json", b"null", b"17", b"[1]", b'{"a": 1', b"\xff\xfe"), key
        body = json.loads(json.dumps(body))
        if not isinstance(body, dict):
            return b"", key
        field = self.rng.choice(stream.fields)
        bad = (..., None, "", "undefined", "soon", "-", "9999-12-31T23:59:59Z", "0001-01-01", {"a": 1}, "x" * 65_537)
        put(body, self.prefix(stream) + field.in_body, self.any_of(*bad))
        return json.dumps(body, ensure_ascii=False).encode(), key
