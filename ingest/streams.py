"""The streams: each is one contract, the file `streams/<name>.yml`, and nothing else says what a contract says.

A contract says what arrives, by which kind of transport, under which key, and which fields its messages have.
"""

import re
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, Field, StringConstraints, ValidationError, field_validator, model_validator

from ingest.errors import UserError

Transport = Literal["pubsub", "kafka"]
Text = Annotated[str, StringConstraints(min_length=1)]

FOLDER = Path(__file__).parents[1] / "streams"
NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
RESERVED = (
    "all analyse analyze and anti any array as asc asof assert_rows_modified asymmetric at authorization between"
    " binary both by case cast check collate collation column columns concurrently constraint contains create"
    " cross cube current default deferrable define desc distinct do else end enum escape except exclude exists"
    " extract false fetch following for foreign freeze from full generated glob grant group grouping groups hash"
    " having if ignore ilike in initially inner intersect interval into is isnull join lambda lateral leading left"
    " like limit lookup map merge natural new no not notnull null nulls of offset on only or order outer over"
    " overlaps partition pivot pivot_longer pivot_wider placing positional preceding primary proto qualify range"
    " recursive references returning right rollup rows select semi set show similar some struct summarize"
    " symmetric table tablesample then to trailing treat true try_cast tuple unbounded union unique unnest unpack"
    " unpivot using variadic verbose when where window with within"
)
"""Words that DuckDB or GoogleSQL does not take for the name of a table."""


class BodyField(BaseModel, extra="forbid", frozen=True):
    """A field of the body, at its top level."""

    name: Text
    """Its column in staging. One of the names of fct_events, such as user_id or price, goes there too."""
    path: Text | None = None
    """Its name in the body, where that is another."""
    type: Literal["string", "id", "amount", "json"] = "string"
    """id: `undefined`, `null` and the like are null. amount: four decimals. json: an object or a list, as text."""
    required: bool = False
    """Whether staging rejects a body without it."""
    description: Text

    @field_validator("name", "path")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError("expected letters, digits and _, such as user_id")
        return name

    @property
    def in_body(self) -> str:
        """Its name in the body."""
        return self.path or self.name


class EventType(BaseModel, extra="forbid", frozen=True):
    """What kind of event it is, from a field; a value that is not listed rejects the body."""

    field: str
    values: dict[Text, Text]
    """Value of the field to event_type of fct_events."""


class Stream(BaseModel, extra="forbid", frozen=True):
    """The contract of one stream of messages, landed in the raw table of the same name."""

    name: Text
    """The name of the file."""
    description: Text
    transport: Transport
    """How it arrives in production; without a broker configured, every stream is read from the spool."""
    key: str | None = None
    """The field of the body whose value is the Kafka message key."""
    kind: Literal["event", "entity"]
    """entity: the messages are versions of a thing, whose id is the key; a message without a body deletes it."""
    id: tuple[str, ...] = ()
    """Of an event: the field that is its event_id, then those that tell events of one id apart, such as the lines of an
    order. Where it has no value, what the body says identifies the event: its fields, except those of type json."""
    event_type: Text | EventType | None = None
    """Of an event: one for all of them, or from a field."""
    time: Annotated[tuple[str, ...], Field(min_length=1)]
    """Fields that hold the time of the event or version, in order of preference."""
    nulls: tuple[str, ...] = ()
    """Values that mean null, beside the empty text."""
    one_of: tuple[tuple[str, ...], ...] = ()
    """Staging rejects a body that has none of the fields of a group."""
    fields: Annotated[tuple[BodyField, ...], Field(min_length=1)]

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError("expected a name of small letters, digits and _ that begins with a letter")
        if name in RESERVED.split():
            raise ValueError("this is a word of SQL; choose another name")
        return name

    @model_validator(mode="after")
    def _check_fields(self) -> "Stream":
        columns = [field.name for field in self.fields]
        for place, names in {"name": columns, "path": self.body_fields}.items():
            known: dict[str, str] = {}
            for name in names:
                if (other := known.setdefault(name.lower(), name)) != name or names.count(name) > 1:
                    raise ValueError(f"fields: two have the {place} {' and '.join(dict.fromkeys([other, name]))}")
        of_type = [self.event_type.field] if isinstance(self.event_type, EventType) else []
        groups = [name for group in self.one_of for name in group]
        named = {"key": [self.key] if self.key else [], "time": self.time, "one_of": groups, "id": self.id}
        for place, names in {**named, "event_type": of_type}.items():
            for name in names:
                if name not in self.body_fields:
                    raise ValueError(f"{place}: {name} is none of the fields")
        if self.kind == "entity" and self.key is None:
            raise ValueError("key: an entity has one, the field that holds its id")
        if self.kind == "event" and self.event_type is None:
            raise ValueError("event_type: an event has one, such as signup, or a field that holds it")
        required = {name for group in self.required for name in group}
        for name in (*of_type, *self.time[:1]):
            if self.kind == "event" and name not in required:
                raise ValueError(f"fields: {name} has to be required, since it is the type or the time of the event")
        return self

    @property
    def body_fields(self) -> tuple[str, ...]:
        """The names in the body that staging reads, in the order of the contract."""
        return tuple(field.in_body for field in self.fields)

    @property
    def required(self) -> tuple[tuple[str, ...], ...]:
        """Groups of fields: staging rejects a body that has none of a group."""
        return (*((field.in_body,) for field in self.fields if field.required), *self.one_of)


class _Loader(yaml.CSafeLoader):
    """Refuses a key that stands twice, of which YAML would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        known = set()
        for key, _ in node.value:
            if key.value in known:
                raise yaml.MarkedYAMLError(problem=f"{key.value} stands twice", problem_mark=key.start_mark)
            known.add(key.value)
        return super().construct_mapping(node, deep)


def read_contracts(folder: Path) -> dict[str, Stream]:
    """The contracts of a folder by name: events before entities, in the order of their names.

    Raises:
        UserError: naming the file, the place in it and what is expected there.
    """
    if not (files := sorted(folder.glob("*.yml"))):
        raise UserError(f"there is no contract in {folder}: each stream is a file of it, such as clicks.yml")
    streams = [_read(path) for path in files]
    return {stream.name: stream for stream in sorted(streams, key=lambda one: one.kind != "event")}


def _read(path: Path) -> Stream:
    file = f"{path.parent.name}/{path.name}"
    try:
        found = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506  a safe loader
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise UserError(f"{file}: {line}{error.problem}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{file} is no text in UTF-8: {error}") from error
    if not isinstance(found, dict):
        raise UserError(f"{file}: expected keys such as transport, kind and fields")
    try:
        return Stream.model_validate({**found, "name": path.stem})
    except ValidationError as error:
        [first, *_] = error.errors()
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
        expected = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{file}: {place + ': ' if place else ''}{expected}") from error


def _contracts() -> dict[str, Stream]:
    try:
        return read_contracts(FOLDER)
    except UserError as error:  # before any command has begun: all of them need the contracts
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(2) from None


STREAMS = _contracts()


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
