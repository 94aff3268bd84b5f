"""The contract of one field of the body, and of the field that distinguishes types of events."""

import re
from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints, field_validator, model_validator

from common.streams.names import PATH, VOCABULARY

Text = Annotated[str, StringConstraints(min_length=1)]
TIME_FORMAT = re.compile(r"(%[YmdHMSfz]|[ T/.:,-])+")


class BodyField(BaseModel, extra="forbid", frozen=True):
    """A field of the body."""

    name: Text
    """Its column in staging. A name of VOCABULARY, such as user_id or price, also fills that column of fct_events; an
    event's other fields, unless personal, go to `properties` of fct_events."""
    path: Text | None = None
    """Its path in the body, such as `props.ref` or `items[0].sku`. By default, its name at the top level."""
    aliases: tuple[Text, ...] = ()
    """Further paths, for older messages. The first path that has a value counts."""
    type: Literal["string", "id", "integer", "amount", "boolean", "timestamp", "json"] = "string"
    """id: text, of which `undefined`, `null` and the like are null. integer: 64 bits. amount: four decimals. boolean:
    true or false, 1 or 0. timestamp: ISO 8601, or as `unit` or `format` say. json: an object or a list, as text."""
    unit: Literal["seconds", "milliseconds", "microseconds"] | None = None
    """For a timestamp that is a number: its unit, counted from 1970."""
    format: str | None = None
    """For a timestamp that is text: %Y, %m, %d, %H, %M, %S, %f, %z, as in `%d.%m.%Y %H:%M`. UTC without %z."""
    required: bool = False
    """Whether staging rejects a body that has no value of it."""
    values: tuple[Text, ...] = ()
    """Its valid values; staging rejects a body with any other. Without them, every value is valid."""
    nulls: tuple[str, ...] = ()
    """Values that mean null, besides the empty text and the stream's own `nulls`."""
    personal: Literal["drop", "hash"] | None = None
    """drop: no model has a column of it. hash: models have a keyed hash of it; equal values have equal hashes."""
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
            raise ValueError(f"type: the column {self.name} of fct_events is {VOCABULARY[self.name]}")
        if self.name in VOCABULARY and self.type not in ("string", "id", "amount"):
            raise ValueError(f"type: the column {self.name} of fct_events is text: use string or id")
        return self

    @property
    def in_body(self) -> str:
        """Its main path in the body, which identifies it in the rest of the contract."""
        return self.path or self.name

    @property
    def paths(self) -> tuple[str, ...]:
        """Its possible paths in the body, in order of preference."""
        return (self.in_body, *self.aliases)


class EventType(BaseModel, extra="forbid", frozen=True):
    """Reads the event_type of fct_events from a field of the body."""

    field: str
    """Main path of the field."""
    values: dict[Text, Text] = Field(default_factory=dict)
    """Maps a value of the field to an event_type."""
    others: Literal["reject", "keep"] = "reject"
    """Whether staging rejects a body with an unlisted value, or keeps the value as the event_type."""

    @model_validator(mode="after")
    def _check_values(self) -> "EventType":
        if not self.values and self.others == "reject":
            raise ValueError("values: list the values, such as {sale: purchase}, or set others: keep")
        return self
