"""The streams: each is one contract, the file `streams/<name>.yml`, and nothing else says what a contract says.

A contract says what arrives, by which kind of transport, under which key, and which fields its messages have.
"""

import difflib
import re
from collections import UserDict
from collections.abc import Iterator, Mapping
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, Field, StringConstraints, ValidationError, field_validator, model_validator

from common.errors import ContractError, UserError

Transport = Literal["pubsub", "kafka"]
Text = Annotated[str, StringConstraints(min_length=1)]

FOLDER = Path(__file__).parents[2] / "streams"
NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
RESERVED = (
    "all analyse analyze and anti any array as asc asof assert_rows_modified asymmetric at authorization between"
    " binary both by case cast check collate collation column columns concurrently constraint contains create"
    " cross cube current default deferrable define desc describe distinct do else end enum escape except exclude exists"
    " extract false fetch following for foreign freeze from full generated glob grant group grouping groups hash"
    " having if ignore ilike in initially inner intersect interval into is isnull join lambda lateral leading left"
    " like limit lookup map merge natural new no not notnull null nulls of offset on only or order outer over"
    " overlaps partition pivot pivot_longer pivot_wider placing positional preceding primary proto qualify range"
    " recursive references returning right rollup rows select semi set show similar some struct summarize"
    " symmetric table tablesample then to trailing treat true try_cast tuple unbounded union unique unnest unpack"
    " unpivot using variadic verbose when where window with within"
)
"""Words that DuckDB or GoogleSQL does not take for the name of a table."""


VOCABULARY: dict[str, Literal["text", "amount"]] = {
    "user_id": "text",
    "source_session_id": "text",
    "product_id": "text",
    "post_id": "text",
    "page_title": "text",
    "category_code": "text",
    "brand": "text",
    "price": "amount",
    "total_amount": "amount",
    "country": "text",
    "city": "text",
    "browser": "text",
    "os": "text",
    "url": "text",
    "engaged_seconds": "amount",
    "account_number": "text",
    "traffic_source": "text",
}
"""The columns of fct_events that say what an event was about. A field of one of these names goes there."""
OWN_COLUMNS = {
    "event": "stream message_id attributes payload body body_text event_key event_id source_event_id event_type"
    " type_text time_text event_at event_date published_at landed_at properties unlisted_fields is_malformed"
    " reject_reason reject_detail rejected_payload decode_error",
    "entity": "stream message_id attributes payload body body_text key key_id op version_key version_number"
    " is_tombstone is_deleted created_at created_text updated_at updated_text deleted_at deleted_text deleted_time"
    " is_deleted_text valid_from valid_to is_current published_at landed_at unlisted_fields is_malformed"
    " is_key_mismatch reject_reason reject_detail rejected_payload decode_error log_number newest_updated_at"
    " newest_tombstone_at tombstones effective_at next_effective_at",
}
"""Columns that staging and histories have of every stream, by its kind, also within their statements."""
OWN_PREFIXES = ("dbt_", "time_text_", "_text_of_")
"""Columns of snapshots and staging begin so."""
OWN_TABLES = ("landing_offsets", "landing_writers", "landing_empty_offsets", "emit_watermarks", "pseudonym_key")
"""Tables beside those of the streams in the schema raw."""
SEGMENT = r"[A-Za-z0-9_@$:/-][A-Za-z0-9_@$:/ -]*"
PATH = re.compile(rf"{SEGMENT}(\.{SEGMENT}|\[[0-9]{{1,4}}\])*")
TIME_FORMAT = re.compile(r"(%[YmdHMSfz]|[ T/.:,-])+")


class BodyField(BaseModel, extra="forbid", frozen=True):
    """A field of the body."""

    name: Text
    """Its column in staging. One of the names of fct_events, such as user_id or price, goes there too, and of an event
    any other that is not personal goes to `properties` of fct_events."""
    path: Text | None = None
    """Where it is in the body, if not at the top level under its name: `props.ref`, `items[0].sku`."""
    aliases: tuple[Text, ...] = ()
    """Other paths, of older messages; the first that has a value counts."""
    type: Literal["string", "id", "integer", "amount", "boolean", "timestamp", "json"] = "string"
    """id: `undefined`, `null` and the like are null. integer: 64 bits. amount: four decimals. boolean: true or false, 1
    or 0. timestamp: ISO 8601, or as unit or format say. json: an object or a list, as text."""
    unit: Literal["seconds", "milliseconds", "microseconds"] | None = None
    """Of a timestamp: a number of these since 1970."""
    format: str | None = None
    """Of a timestamp: such as `%d.%m.%Y %H:%M`, of %Y, %m, %d, %H, %M, %S, %f and %z; UTC without %z."""
    required: bool = False
    """Whether staging rejects a body without it."""
    values: tuple[Text, ...] = ()
    """The values that it may have; any other rejects the body. Without them, any."""
    nulls: tuple[str, ...] = ()
    """Values that mean null, beside the empty text and those of the stream."""
    personal: Literal["drop", "hash"] | None = None
    """drop: no model has a column of it. hash: models have a keyed hash of it, alike for alike values."""
    description: Text

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,62}", name):
            raise ValueError("expected letters, digits and _, such as user_id; use path for its place in the body")
        return name

    @field_validator("path", "aliases")
    @classmethod
    def _check_path(cls, given: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        for path in (given,) if isinstance(given, str) else given or ():
            if not PATH.fullmatch(path):
                raise ValueError("expected names with . between them, such as props.ref or items[0].sku")
        return given

    @model_validator(mode="after")
    def _check_type(self) -> "BodyField":
        if self.type != "timestamp" and (self.unit or self.format is not None):
            raise ValueError(f"{'unit' if self.unit else 'format'} needs the type timestamp")
        if self.unit and self.format is not None:
            raise ValueError("a timestamp has a unit or a format, not both")
        if self.format is not None and (not TIME_FORMAT.fullmatch(self.format) or self.format.count("%Y") != 1):
            raise ValueError("format: expected %Y, %m, %d, %H, %M, %S, %f and %z, such as %d.%m.%Y %H:%M")
        if self.format is not None and len(found := re.findall("%.", self.format)) > len(set(found)):
            raise ValueError("format: %Y, %m and the others may appear only once")
        if self.personal == "hash" and self.type not in ("string", "id"):
            raise ValueError("personal: hash needs the type string or id")
        if self.type == "integer" and (wrong := [one for one in self.values if not re.fullmatch("-?[0-9]+", one)]):
            raise ValueError(f"values: {wrong[0]} is not an integer")
        if self.values and self.type not in ("string", "id", "integer"):
            raise ValueError("values need the type string, id or integer")
        if self.name in VOCABULARY and (self.type == "amount") != (VOCABULARY[self.name] == "amount"):
            raise ValueError(f"type: {self.name} of fct_events is {VOCABULARY[self.name]}")
        if self.name in VOCABULARY and self.type not in ("string", "id", "amount"):
            raise ValueError(f"type: {self.name} of fct_events is text: use string or id")
        return self

    @property
    def in_body(self) -> str:
        """Its path in the body."""
        return self.path or self.name

    @property
    def paths(self) -> tuple[str, ...]:
        """Where it may be in the body, in order of preference."""
        return (self.in_body, *self.aliases)


class EventType(BaseModel, extra="forbid", frozen=True):
    """What kind of event it is, from a field."""

    field: str
    values: dict[Text, Text] = Field(default_factory=dict)
    """Value of the field to event_type of fct_events."""
    others: Literal["reject", "keep"] = "reject"
    """Whether a value that is not listed rejects the body, or is the event_type as it is."""

    @model_validator(mode="after")
    def _check_values(self) -> "EventType":
        if not self.values and self.others == "reject":
            raise ValueError("values: list the values, such as {sale: purchase}, or set others: keep")
        return self


class Stream(BaseModel, extra="forbid", frozen=True):
    """The contract of one stream of messages, landed in the raw table of the same name."""

    name: Text
    """The name of the file."""
    description: Text
    transport: Transport
    """How it arrives in production; without a broker configured, every stream is read from the spool."""
    topic: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._~+%-]{1,249}$")] | None = None
    """The topic, if it is not called like the stream; TOPICS may say otherwise."""
    subscription: Text | None = None
    """Of Pub/Sub: the subscription, if it is not `<topic>-landing`; SUBSCRIPTIONS may say otherwise."""
    format: Literal["json", "avro", "protobuf", "json_schema"] = "json"
    """How Kafka's messages are written. json is text; the others are in Confluent's wire format, with their schemas in
    a schema registry, and landing decodes them."""
    key: str | None = None
    """The field of the body whose value is the Kafka message key."""
    envelope: Literal["debezium", "cloudevents"] | None = None
    """debezium: a change with `before`, `after` and `op`, as Debezium writes it; the fields are those of a row.
    cloudevents: `id`, `type` and `time` are the attributes of CloudEvents, and what happened is below `data`."""
    kind: Literal["event", "entity"]
    """entity: the messages are versions of a thing, whose id is the key; a message without a body deletes it."""
    id: tuple[str, ...] = ()
    """Of an event: the field that is its event_id, then those that tell events of one id apart, such as the lines of an
    order. Where it has no value, what the body says identifies the event: its fields, except those of type json."""
    event_type: Text | EventType | None = None
    """Of an event: one for all of them, or from a field."""
    time: tuple[str, ...] = ()
    """Fields that hold the time of the event or version, in order of preference. Debezium's changes have their own."""
    created: str | None = None
    """Of an entity: the timestamp at which it was created."""
    deleted: tuple[str, ...] = ()
    """Of an entity: a timestamp at which it was deleted, and a boolean that says that it is."""
    nulls: tuple[str, ...] = ()
    """Values that mean null, beside the empty text."""
    one_of: tuple[tuple[str, ...], ...] = ()
    """Staging rejects a body that has none of the fields of a group."""
    fields: Annotated[tuple[BodyField, ...], Field(min_length=1)]
    ignored: tuple[Text, ...] = ()
    """Fields that are known and not read: they are no drift."""

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
                    raise ValueError(f"fields: two have the {place} {' and '.join(dict.fromkeys([other, name]))}")
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
        """A place in the body is one of: a value, an object, a list."""
        shapes: dict[str, tuple[str, str, str]] = {}
        for path, value in values.items():
            steps = re.findall(r"[^.\[]+|\[[0-9]+\]", path)
            # elements of a list have one shape
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
        judged = {name for place in ("id", "time", "event_type", "created", "deleted") for name in self._named[place]}
        own = {name for place in ("time", "event_type", "created", "deleted") for name in self._named[place]}
        for field in self.fields:
            if field.in_body not in {*own, *self.id[:1]}:
                reserved = ((RESERVED, "a reserved word of SQL"), (OWN_COLUMNS[self.kind], "a column of every stream"))
                for words, what in reserved:
                    if field.name.lower() in words.split():
                        raise ValueError(
                            f"fields: {field.name} is {what}; choose another name, and give this as the path"
                        )
                if prefix := next((one for one in OWN_PREFIXES if field.name.lower().startswith(one)), None):
                    raise ValueError(f"fields: {field.name}: names with {prefix} are reserved; choose another")
            if field.personal and field.in_body in judged:
                raise ValueError(f"fields: {field.name} is personal, so it can be neither id, time nor type")
            if field.personal and field.in_body == self.key and self.kind == "entity":
                raise ValueError(f"fields: {field.name} is the id of the entity, so it cannot be personal")
        return self

    @property
    def _named(self) -> dict[str, tuple[str, ...]]:
        """Key of the contract to the fields that it names."""
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
        """The paths in the body that staging reads, in the order of the contract."""
        return tuple(field.in_body for field in self.fields)

    @property
    def required(self) -> tuple[tuple[str, ...], ...]:
        """Groups of fields: staging rejects a body that has none of a group."""
        return (*((field.in_body,) for field in self.fields if field.required), *self.one_of)


class _Loader(yaml.CSafeLoader):
    """Rejects a key that is listed twice, of which YAML would take the last. Reads a date as text, since MySQL's
    0000-00-00 is not a date."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        known = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key has to be a name", problem_mark=key.start_mark)
            if key.value in known:
                raise yaml.MarkedYAMLError(problem=f"{key.value} is listed twice", problem_mark=key.start_mark)
            known.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:timestamp"]
    for first, found in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


def read_contracts(folder: Path) -> dict[str, Stream]:
    """The contracts of a folder by name: events before entities, in the order of their names.

    Raises:
        ContractError: naming the file, the place in it and what is expected there.
    """
    if not (files := sorted(folder.glob("*.yml"))):
        raise ContractError(f"there is no contract in {folder}: each stream is a file of it, such as clicks.yml")
    streams = [_read(path) for path in files]
    owners: dict[tuple[Transport, str], str] = {}
    for path, stream in zip(files, streams, strict=True):
        topic = stream.topic or stream.name
        if (owner := owners.setdefault((stream.transport, topic), stream.name)) != stream.name:
            raise ContractError(
                f"{folder.name}/{path.name}: topic: {topic} is the topic of {owner} too; give each its own"
            )
    return {stream.name: stream for stream in sorted(streams, key=lambda one: one.kind != "event")}


def _read(path: Path) -> Stream:
    file = f"{path.parent.name}/{path.name}"
    try:
        found = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506  a safe loader
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ContractError(f"{file}: {line}{error.problem}") from error
    except OSError as error:
        raise ContractError(f"{file} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ContractError(f"{file} is not UTF-8 text: {error}") from error
    except ValueError as error:  # such as an integer of thousands of digits
        raise ContractError(f"{file}: {error}") from error
    if not isinstance(found, dict):
        raise ContractError(f"{file}: expected keys such as transport, kind and fields")
    for loc in _empty_places(found):
        raise ContractError(f"{file}: {_place(loc, found)}: is empty; list something, or leave it out")
    try:
        return Stream.model_validate({**found, "name": path.stem})
    except ValidationError as error:
        raise ContractError(f"{file}: {_mistake(error, found)}") from error


Loc = tuple[int | str, ...]
"""Keys and indexes that lead to a place in a contract."""


def _empty_places(value: Any, loc: Loc = ()) -> Iterator[Loc]:
    """The lists and mappings without anything in them."""
    if loc and value in ([], {}):
        yield loc
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield from _empty_places(inner, (*loc, key))


def _place(loc: Loc, found: dict[str, Any]) -> str:
    """Such as `field price: values[0]`; a field without a name is `fields[3]`."""
    match loc:
        case ("fields", int(number), *rest):
            field = found["fields"][number]
            name = field.get("name") if isinstance(field, dict) else None
            first, loc = f"field {name}: " if isinstance(name, str) and name else f"fields[{number}]: ", tuple(rest)
        case _:
            first = ""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")
    return (first + text).removesuffix(": ")


def _mistake(error: ValidationError, found: dict[str, Any]) -> str:
    """The first mistake of a contract: its place, and what is expected there."""
    # of the two mistakes of an event_type, a text or a mapping, that of what was given
    other = "constrained-str" if isinstance(found.get("event_type"), dict) else "EventType"
    mistakes = [one for one in error.errors() if not any(other in str(part) for part in one["loc"])] or error.errors()
    # an unknown key is often why another one is missing
    first = next((one for one in mistakes if one["type"] == "extra_forbidden"), mistakes[0])
    loc: Loc = tuple(one for one in first["loc"] if one != "constrained-str" and "EventType" not in str(one))
    if first["type"] in ("extra_forbidden", "missing"):
        place = _place(loc[:-1], found)
        told = f"{loc[-1]} is missing" if first["type"] == "missing" else _unknown_key(loc)
    else:
        place, told = _place(loc, found), _expected(first["type"], first["msg"], first.get("ctx", {}), first["input"])
    return f"{place}: {told}" if place else told


def _unknown_key(loc: Loc) -> str:
    models: dict[str, type[BaseModel]] = {"fields": BodyField, "event_type": EventType}
    # the name of a stream is that of its file
    known = (
        [*models[str(loc[0])].model_fields] if len(loc) > 1 else [one for one in Stream.model_fields if one != "name"]
    )
    close = difflib.get_close_matches(str(loc[-1]), known, 1)
    return f"unknown key {loc[-1]}; " + (f"did you mean {close[0]}?" if close else f"the keys are {', '.join(known)}")


EXPECTED = {
    "tuple_type": "expected a list, such as [a, b]",
    "dict_type": "expected a mapping, such as {sale: purchase}",
    "model_type": "expected a mapping, such as {name: plan, description: The plan.}",
    "string_type": "expected a text",
    "string_too_short": "expected a text that is not empty",
    "string_pattern_mismatch": "expected letters, digits, ., _, ~, +, % and -",
    "bool_type": "expected true or false",
    "bool_parsing": "expected true or false",
}
"""Pydantic's type of a mistake to what a contract should have there."""


def _expected(type_: str, message: str, context: Mapping[str, Any], given: Any) -> str:
    if type_ == "value_error":
        return message.removeprefix("Value error, ")
    expected = f"expected {context['expected']}" if type_ == "literal_error" else EXPECTED.get(type_, message)
    if given is None:
        return f"{expected}; it has no value"
    if not isinstance(given, str | int | float | date) or given == "" or len(str(given)) > 40:
        return expected
    hint = ", in quotes" if type_ == "string_type" else ""
    return f"{expected}{hint}, not {str(given).lower() if isinstance(given, bool) else given}"


class _Contracts(UserDict[str, Stream]):
    """The contracts of the project, read when they are first needed: what reads published marts alone needs none."""

    def __init__(self) -> None:  # without `data`, which the base class would set
        pass

    @cached_property
    def data(self) -> dict[str, Stream]:  # type: ignore[override]
        return read_contracts(FOLDER)


STREAMS = _Contracts()
"""The contracts by name, as of `read_contracts`.

Raises:
    ContractError: at the first use, for a contract with a mistake.
"""


def named(names: list[str] | None) -> list[Stream]:
    """The streams of these names, or all of them.

    Raises:
        UserError: for a name that no stream has.
    """
    if not names:
        return list(STREAMS.values())
    for name in names:
        if name not in STREAMS:
            raise UserError(f"unknown stream {name!r}; the streams are {', '.join(STREAMS)}")
    return [STREAMS[name] for name in dict.fromkeys(names)]
