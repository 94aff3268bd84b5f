"""The contracts of `streams/`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parents[1] / "streams"


@dataclass(frozen=True, slots=True)
class Field:
    """A field of the body and its column."""

    name: str
    path: str
    paths: tuple[str, ...]
    """The path and the aliases, in order of preference."""
    type: str = "string"
    unit: str | None = None
    format: str | None = None
    is_required: bool = False
    values: tuple[str, ...] = ()
    """Allowed values; empty if any value is allowed."""
    nulls: tuple[str, ...] = ()
    """Texts that mean null: those of the field and those of the contract."""
    personal: str | None = None


@dataclass(frozen=True, slots=True)
class Contract:
    """The fields and rules of a stream. Fields are named by their paths."""

    stream: str
    kind: str
    fields: Mapping[str, Field]
    """By path, in order."""
    key: str | None
    envelope: str | None
    id: tuple[str, ...]
    time: tuple[str, ...]
    created: str | None
    deleted: tuple[str, ...]
    one_of: tuple[tuple[str, ...], ...]
    event_type: str | None
    """The type of all events, if no field holds it."""
    type_field: str | None
    type_values: Mapping[str, str]
    keeps_other_types: bool
    ignored: tuple[str, ...]
    """Paths that are listed but not read."""

    def own(self) -> dict[str, Field]:
        """Fields whose column has their own name, by path."""
        named = {*self.time, self.type_field}
        named |= {self.key, self.created, *self.deleted} if self.kind == "entity" else {*self.id[:1]}
        return {path: field for path, field in self.fields.items() if path not in named}

    def columns(self) -> list[str]:
        """The columns of these fields in staging."""
        return [field.name for field in self.own().values() if field.personal != "drop"]

    @property
    def id_column(self) -> str:
        """The column that holds the id of an entity."""
        assert self.key is not None
        return self.fields[self.key].name


def read_contracts(folder: Path) -> dict[str, Contract]:
    """Stream to contract."""
    return {path.stem: _contract(path.stem, yaml.safe_load(path.read_text())) for path in sorted(folder.glob("*.yml"))}


def _contract(stream: str, given: dict[str, Any]) -> Contract:
    fields = [_field(one, tuple(given.get("nulls", ()))) for one in given["fields"]]
    event_type = given.get("event_type")
    by_field = event_type if isinstance(event_type, dict) else {}
    return Contract(
        stream=stream,
        kind=given["kind"],
        fields={field.path: field for field in fields},
        key=given.get("key"),
        envelope=given.get("envelope"),
        id=tuple(given.get("id", ())),
        time=tuple(given.get("time", ())),
        created=given.get("created"),
        deleted=tuple(given.get("deleted", ())),
        one_of=tuple(tuple(group) for group in given.get("one_of", ())),
        event_type=None if by_field else event_type,
        type_field=by_field.get("field"),
        type_values=by_field.get("values", {}),
        keeps_other_types=by_field.get("others") == "keep",
        ignored=tuple(given.get("ignored", ())),
    )


def _field(given: dict[str, Any], nulls: tuple[str, ...]) -> Field:
    path = given.get("path", given["name"])
    return Field(
        name=given["name"],
        path=path,
        paths=(path, *given.get("aliases", ())),
        type=given.get("type", "string"),
        unit=given.get("unit"),
        format=given.get("format"),
        is_required=given.get("required", False),
        values=tuple(given.get("values", ())),
        nulls=(*given.get("nulls", ()), *nulls),
        personal=given.get("personal"),
    )


CONTRACTS = read_contracts(FOLDER)
"""The contracts of this repository."""
