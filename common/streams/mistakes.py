"""Describes the mistakes of a contract to whoever wrote it: the place in the file, and what is expected there."""

import difflib
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

from pydantic import BaseModel, ValidationError

from common.streams.contract import Stream
from common.streams.fields import BodyField, EventType

Loc = tuple[int | str, ...]
"""Keys and indexes that lead to a place in a contract."""


def describe_empty(found: dict[str, Any]) -> str | None:
    """Describe the first empty list or mapping of a contract; None without one."""
    for loc in _empty_places(found):
        return f"{_place(loc, found)}: is empty; list something, or leave it out"
    return None


def _empty_places(value: Any, loc: Loc = ()) -> Iterator[Loc]:
    if loc and value in ([], {}):
        yield loc
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield from _empty_places(inner, (*loc, key))


def _place(loc: Loc, found: dict[str, Any]) -> str:
    """Return a place for people, such as `field price: values[0]`. A field without a name is `fields[3]`."""
    match loc:
        case ("fields", int(number), *rest):
            field = found["fields"][number]
            name = field.get("name") if isinstance(field, dict) else None
            first, loc = f"field {name}: " if isinstance(name, str) and name else f"fields[{number}]: ", tuple(rest)
        case _:
            first = ""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")
    return (first + text).removesuffix(": ")


def describe_mistake(error: ValidationError, found: dict[str, Any]) -> str:
    """Describe the first mistake that pydantic found in a contract: its place, and what is expected there."""
    # event_type is a text or a mapping, and pydantic reports a mistake for each: keep that of the one that was given
    other = "constrained-str" if isinstance(found.get("event_type"), dict) else "EventType"
    mistakes = [one for one in error.errors() if not any(other in str(part) for part in one["loc"])] or error.errors()
    # an unknown key comes first: often it is a misspelling of the one that is missing
    first = next((one for one in mistakes if one["type"] == "extra_forbidden"), mistakes[0])
    loc: Loc = tuple(one for one in first["loc"] if one != "constrained-str" and "EventType" not in str(one))
    if first["type"] in ("extra_forbidden", "missing"):
        place = _place(loc[:-1], found)
        problem = f"{loc[-1]} is missing" if first["type"] == "missing" else _unknown_key(loc)
    else:
        place = _place(loc, found)
        problem = _expected(first["type"], first["msg"], first.get("ctx", {}), first["input"])
    return f"{place}: {problem}" if place else problem


def _unknown_key(loc: Loc) -> str:
    models: dict[str, type[BaseModel]] = {"fields": BodyField, "event_type": EventType}
    # `name` is not a key of the file: it is the file's own name
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
"""Maps the type of a pydantic error to what a contract should have there."""


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
