"""The fields of a new contract: gives each a name and a type that contracts allow, and marks the personal ones."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Literal

from common.streams import VOCABULARY
from contracts.field_types import NUMBER, SampledField
from contracts.names import reserved_names, snake_case, valid_name
from contracts.personal import why_personal


@dataclass
class Line:
    """A field of the contract."""

    field: SampledField
    name: str
    guesses: list[str]
    """What is guessed about it, one phrase each."""
    personal: Literal["drop", "hash"] | None = None

    @property
    def path(self) -> str:
        return self.field.path


def name_by_vocabulary(lines: list[Line]) -> None:
    """Name an inner field such as `props.price` after the column of fct_events, unless another field has that name."""
    last = [snake_case(line.path.rpartition(".")[2]) for line in lines]
    names = {line.name for line in lines}
    for line, name in zip(lines, last, strict=True):
        is_one = name in VOCABULARY and name not in names and last.count(name) == 1
        if "." in line.path and is_one and line.field.type != "json":
            line.guesses.append(f"{name} of fct_events by its name")
            line.name = name


def mark_personal(lines: list[Line], identifying: Collection[str]) -> None:
    """Mark fields that look personal.

    Args:
        identifying: Paths that cannot be personal, because they identify a message or say what it is.
    """
    for line in lines:
        why = why_personal(line.name, line.field.looks_personal)
        if not why or line.path in identifying or line.field.type == "boolean":
            continue
        can_hash = line.name in VOCABULARY and line.field.type in ("string", "id")
        line.personal = "hash" if can_hash else "drop"
        line.guesses.append(f"personal by {why}")


def make_valid(
    lines: list[Line], kind: Literal["event", "entity"], identifying: Collection[str], exempt: Collection[str]
) -> None:
    """Give each field a valid name and type.

    Args:
        identifying: Paths whose names are kept before those of other fields.
        exempt: Paths that may have reserved names, because staging names their columns itself.
    """
    reserved = reserved_names(kind)
    for line in lines:
        _fit_vocabulary(line)
    taken: set[str] = set()
    # a name that is the path as it is comes before one that was made from a path
    for line in sorted(lines, key=lambda line: (line.path not in identifying, line.path != line.name)):
        is_reserved = line.name in reserved and line.path not in exempt
        line.name = valid_name(line.name, taken, is_reserved=is_reserved)
        taken.add(line.name)


def _fit_vocabulary(line: Line) -> None:
    """Give a field that is named like a column of fct_events the type of the column, or else another name."""
    kind, column = line.field.type, VOCABULARY.get(line.name)
    if column == "text" and kind in ("integer", "amount", "boolean", "timestamp"):
        line.field = replace(line.field, type="string", unit=None, format=None)
        line.guesses = []
    elif column == "amount" and all(map(NUMBER.fullmatch, line.field.texts)) and kind != "json":
        line.field = replace(line.field, type="amount", unit=None, format=None)
    elif column == "amount" or (column == "text" and kind == "json"):
        line.guesses.append(f"not {line.name} of fct_events, which is {column}")
        line.name = f"body_{line.name}"
