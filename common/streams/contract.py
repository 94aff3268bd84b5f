"""The contract of one stream: what arrives, by which transport, under which key, and with which fields."""

import re
from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints, field_validator, model_validator

from common.streams.fields import BodyField, EventType, Text
from common.streams.names import NAME, OWN_COLUMNS, OWN_PREFIXES, OWN_TABLES, PATH, RESERVED

Transport = Literal["pubsub", "kafka"]


class Stream(BaseModel, extra="forbid", frozen=True):
    """The contract of one stream of messages, landed in the raw table of the same name."""

    name: Text
    """Name of the file, without .yml."""
    description: Text
    transport: Transport
    """The broker in production. While that broker is not configured, the stream is read from the spool."""
    topic: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._~+%-]{1,249}$")] | None = None
    """Topic; by default, the name of the stream. The setting TOPICS replaces it."""
    subscription: Text | None = None
    """Pub/Sub subscription; by default, `<topic>-landing`. The setting SUBSCRIPTIONS replaces it."""
    format: Literal["json", "avro", "protobuf", "json_schema"] = "json"
    """Encoding of the messages. All but json need Kafka and a schema registry: they are in Confluent's wire format, and
    landing decodes them to JSON."""
    key: str | None = None
    """Path of the field that is the Kafka message key."""
    envelope: Literal["debezium", "cloudevents"] | None = None
    """debezium: each message is a change with `before`, `after` and `op`; paths begin inside the row.
    cloudevents: `id`, `type` and `time` are the attributes of CloudEvents; the payload is below `data`."""
    kind: Literal["event", "entity"]
    """entity: each message is a version of a thing whose id is `key`; a message without a body deletes the thing."""
    id: tuple[str, ...] = ()
    """For events: the field that becomes event_id, then fields that distinguish events with the same id, such as the
    line number of an order. Without a value, all fields of the body except json ones identify the event."""
    event_type: Text | EventType | None = None
    """For events: one type for all of them, or the field that holds it."""
    time: tuple[str, ...] = ()
    """Fields with the time of the event or version, in order of preference. A change of Debezium has its own time."""
    created: str | None = None
    """For entities: the timestamp of creation."""
    deleted: tuple[str, ...] = ()
    """For entities: a timestamp of deletion, a boolean that marks a deleted thing, or both."""
    nulls: tuple[str, ...] = ()
    """Values that mean null, besides the empty text."""
    one_of: tuple[tuple[str, ...], ...] = ()
    """Groups of fields: staging rejects a body that has no field of a group."""
    fields: Annotated[tuple[BodyField, ...], Field(min_length=1)]
    ignored: tuple[Text, ...] = ()
    """Paths of fields that are known and not read, so field_drift does not report them."""

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError("expected a name of lowercase letters, digits and _ that begins with a letter")
        if name in RESERVED.split():
            raise ValueError("this is a reserved word of SQL; choose another name")
        if name in OWN_TABLES:
            raise ValueError("landing has a table of this name; choose another")
        return name

    @field_validator("ignored")
    @classmethod
    def _check_ignored(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        for path in paths:
            if not PATH.fullmatch(path):
                raise ValueError(f"{path}: expected names with . between them, such as props.ref")
        return paths

    @model_validator(mode="after")
    def _check_descriptions(self) -> "Stream":
        for place, text in {"": self.description, **{field.name: field.description for field in self.fields}}.items():
            if re.search(r"\{[{%#]", text):
                raise ValueError(
                    f"{place + ': ' if place else ''}description: dbt would read {{{{, {{% and {{# as Jinja"
                )
        return self

    @model_validator(mode="after")
    def _check_format(self) -> "Stream":
        if self.format != "json" and self.transport != "kafka":
            raise ValueError(f"format: {self.format} needs transport: kafka")
        if self.subscription and self.transport != "pubsub":
            raise ValueError("subscription: needs transport: pubsub")
        return self

    @model_validator(mode="after")
    def _check_fields(self) -> "Stream":
        paths = [path for field in self.fields for path in field.paths]
        texts = {
            path: "a JSON value" if field.type == "json" else "a value" for field in self.fields for path in field.paths
        }
        for place, names in {"name": [field.name for field in self.fields], "path": paths}.items():
            known: dict[str, str] = {}
            for name in names:
                if (other := known.setdefault(name.lower(), name)) != name or names.count(name) > 1:
                    raise ValueError(
                        f"fields: two fields have the {place} {' and '.join(dict.fromkeys([other, name]))}"
                    )
        self._check_shapes(texts)
        for place, named in self._named.items():
            for name in named:
                if name not in self.body_fields:
                    raise ValueError(f"{place}: {name} is not one of the fields")
        for name in self.id:
            if self.id.count(name) > 1:
                raise ValueError(f"id: {name} is listed twice")
        if self.kind == "entity":
            self._check_entity()
        else:
            self._check_event()
        return self

    def _check_shapes(self, values: dict[str, str]) -> None:
        """Reject paths by which one place in the body would have two shapes, such as a value and an object."""
        shapes: dict[str, tuple[str, str, str]] = {}
        for path, value in values.items():
            steps = re.findall(r"[^.\[]+|\[[0-9]+\]", path)
            # [] for any index: all elements of a list must have one shape
            at = [
                "".join("[]" if step[0] == "[" else f".{step}" for step in steps[:end]) for end in range(len(steps) + 1)
            ]
            for place, following in zip(at, [*steps, ""], strict=True):
                shape = "a list" if following.startswith("[") else "an object" if following else value
                known, written, of = shapes.setdefault(place.lower(), (shape, place, path))
                if written != place:
                    raise ValueError(
                        f"fields: the paths {of} and {path} differ in case only: {written[1:]} and {place[1:]}"
                    )
                if known != shape:
                    raise ValueError(f"fields: {of} and {path} read {place.lstrip('.')} as {known} and as {shape}")

    @model_validator(mode="after")
    def _check_columns(self) -> "Stream":
        own = {name for place in ("time", "event_type", "created", "deleted") for name in self._named[place]}
        identifying = {*own, *self.id}
        for field in self.fields:
            if field.in_body not in {*own, *self.id[:1]}:
                reserved = ((RESERVED, "a reserved word of SQL"), (OWN_COLUMNS[self.kind], "a column of every stream"))
                for words, what in reserved:
                    if field.name.lower() in words.split():
                        raise ValueError(
                            f"fields: {field.name} is {what}; choose another name, and set path: {field.in_body}"
                        )
                if prefix := next((one for one in OWN_PREFIXES if field.name.lower().startswith(one)), None):
                    raise ValueError(f"fields: {field.name}: names with {prefix} are reserved; choose another")
            if field.personal and field.in_body in identifying:
                raise ValueError(f"fields: {field.name} is personal, so it can be neither id, time nor type")
            if field.personal and field.in_body == self.key and self.kind == "entity":
                raise ValueError(f"fields: {field.name} is the id of the entity, so it cannot be personal")
        return self

    @property
    def _named(self) -> dict[str, tuple[str, ...]]:
        """The fields that each key of the contract names, such as `time`."""
        return {
            "key": (self.key,) if self.key else (),
            "time": self.time,
            "one_of": tuple(name for group in self.one_of for name in group),
            "id": self.id,
            "created": (self.created,) if self.created else (),
            "deleted": self.deleted,
            "event_type": (self.event_type.field,) if isinstance(self.event_type, EventType) else (),
        }

    def _check_entity(self) -> None:
        if self.key is None:
            raise ValueError("key: an entity needs one, the field that holds its id")
        if not self.time and self.envelope != "debezium":
            raise ValueError("time: an entity needs one, the field with the time of a version")
        types = {field.in_body: field.type for field in self.fields}
        if types[self.key] not in ("id", "string"):
            raise ValueError(f"key: {self.key} must have the type id or string")
        if self.created and types[self.created] != "timestamp":
            raise ValueError(f"created: {self.created} must be a timestamp")
        for name in self.deleted:
            if types[name] not in ("timestamp", "boolean"):
                raise ValueError(f"deleted: {name} must be a timestamp or a boolean")
        for place in ("id", "event_type"):
            if getattr(self, place):
                raise ValueError(f"{place}: only an event has it; an entity is identified by its key")
        if self.envelope == "cloudevents":
            raise ValueError("envelope: cloudevents needs kind: event; an entity is a change log")

    def _check_event(self) -> None:
        if not self.time:
            raise ValueError("time: an event needs one, the field with the time it happened")
        if self.event_type is None:
            raise ValueError("event_type: an event needs one, such as signup, or a field that holds it")
        if self.envelope == "debezium":
            raise ValueError("envelope: debezium needs kind: entity")
        for place in ("created", "deleted"):
            if getattr(self, place):
                raise ValueError(f"{place}: needs kind: entity")
        required = {name for group in self.required for name in group}
        for name in (*self._named["event_type"], *self.time[:1]):
            if name not in required:
                raise ValueError(f"fields: {name} must be required, since it is the type or the time of the event")

    @property
    def body_fields(self) -> tuple[str, ...]:
        """The main paths of the fields, in the order of the contract."""
        return tuple(field.in_body for field in self.fields)

    @property
    def required(self) -> tuple[tuple[str, ...], ...]:
        """Groups of fields: a body must have at least one field of each group. A required field is a group of its
        own."""
        return (*((field.in_body,) for field in self.fields if field.required), *self.one_of)
