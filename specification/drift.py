"""Fields of messages that their contract does not list, and values that do not fit it."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from specification.contracts import Contract
from specification.fields import body_of
from specification.landed import Landed
from specification.messages import Rejected
from specification.values import json_text

MAX_FIELDS = 20
"""Maximum unlisted fields that are reported per message: the first by path."""
SHOWN_CHARACTERS = 40


@dataclass(frozen=True, slots=True)
class Difference:
    """A field of one message that the contract does not list, or whose value does not fit it."""

    stream: str
    path: str
    problem: str
    type: str | None
    example: str | None
    landed_at: datetime


def unlisted_fields(message: Landed, contract: Contract) -> list[dict[str, str]]:
    """Path, type and masked example of each field that has a value and is not listed, sorted by path.

    For an object of which the contract reads fields, and for an unknown object unless it is empty, the fields one level
    below are reported instead. Deeper levels are not.
    """
    if message.payload is None and contract.kind == "entity":  # a tombstone
        return []
    try:
        row: Any = body_of(message, contract)
    except Rejected:
        return []
    if contract.envelope == "debezium":
        payload = row.get("payload")
        row = row["after"] if "after" in row else payload.get("after") if isinstance(payload, dict) else None
        row = row if isinstance(row, dict) else {}
    known, containers, inside = listed(contract)
    found: dict[str, Any] = {}
    for name, value in row.items():
        if name in known or not is_identifier(name):
            continue
        if isinstance(value, dict) and (value or name in containers):
            found |= {f"{name}.{inner}": one for inner, one in value.items() if is_identifier(inner)}
        else:
            found[name] = value
    reported = sorted((path, value) for path, value in found.items() if value is not None and path not in inside)
    return [{"path": path, "type": type_of(value), "example": example(value)} for path, value in reported[:MAX_FIELDS]]


def listed(contract: Contract) -> tuple[set[str], set[str], set[str]]:
    """Names that the contract lists; names of objects of which it lists fields; the paths of these fields."""
    paths = [*contract.ignored, *(path for field in contract.fields.values() for path in field.paths)]
    known = set(OF_CLOUDEVENTS if contract.envelope == "cloudevents" else ())
    inside: set[str] = set()
    for path in paths:
        first, *rest = path.split(".")
        if "[" in first or not rest:  # a list counts as listed as a whole
            known.add(first.split("[")[0])
        else:
            inside.add(f"{first}.{rest[0].split('[')[0]}")
    return known, {path.split(".")[0] for path in inside}, inside


OF_CLOUDEVENTS = ("specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema")


def is_identifier(name: str) -> bool:
    """Whether a name is reported. Other names may be values, such as the id of a person."""
    return re.fullmatch(r"[A-Za-z_][A-Za-z0-9_:$-]{0,62}", name) is not None


def type_of(value: Any) -> str:
    match value:
        case bool():
            return "boolean"
        case str():
            return "string"
        case dict():
            return "object"
        case list():
            return "array"
    return "number"


def example(value: Any) -> str:
    """An example of a value that does not reveal it."""
    match value:
        case dict():
            return "{...}"
        case list():
            return "[...]"
        case str():
            return masked(value)
    return masked(json_text(value))


def masked(written: str) -> str:
    """The beginning of a text: a for each letter, 9 for each digit, ? for what is not ASCII."""
    kinds = {"L": "a", "N": "9"}
    return "".join(
        kinds.get(unicodedata.category(one)[0], one if " " <= one <= "~" else "?") for one in written[:SHOWN_CHARACTERS]
    )


def looks_like(written: str) -> str:
    """The type that a rejected text seems to have."""
    if re.fullmatch(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?", written):
        return "number"
    if written in ("true", "false"):
        return "boolean"
    return "object" if re.fullmatch(r"\{.*\}", written) else "array" if re.fullmatch(r"\[.*\]", written) else "string"


def differences(
    stream: str,
    landed_at: datetime,
    unlisted: Iterable[Mapping[str, str]],
    reason: str | None,
    detail: str | None,
    contract: Contract,
) -> Iterator[Difference]:
    """The unlisted fields of one message, and the value for which it is rejected."""
    for one in unlisted:
        yield Difference(stream, one["path"], "unlisted", one["type"], one["example"], landed_at)
    if reason and reason.startswith("invalid:"):
        path = reason.removeprefix("invalid:")
        if path == "timestamp":
            path = contract.time[0] if contract.time else "ts_ms"
        kind = None if detail is None else looks_like(detail)
        shown = {"object": "{...}", "array": "[...]"}.get(kind or "", masked(detail or "") or None)
        yield Difference(stream, path, "invalid", kind, shown, landed_at)


def field_drift(found: Iterable[Difference]) -> list[dict[str, Any]]:
    """One row per stream, path, problem and type."""
    groups: dict[tuple[str, str, str, str | None], list[Difference]] = defaultdict(list)
    for one in found:
        groups[one.stream, one.path, one.problem, one.type].append(one)
    return [
        {
            "stream": stream,
            "path": path,
            "problem": problem,
            "type": type_,
            "messages": len(group),
            "first_seen_at": min(one.landed_at for one in group),
            "last_seen_at": max(one.landed_at for one in group),
            "example": min((one.example for one in group if one.example is not None), default=None),
        }
        for (stream, path, problem, type_), group in groups.items()
    ]
