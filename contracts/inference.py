"""Infers the fields of messages: their paths, and how many messages have a value of each."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from common.streams.names import PATH
from contracts.field_types import FieldType, SampledField, infer_type
from contracts.personal import looks_personal
from contracts.samples import Number

MOST_KEYS = 100
"""An inner object with more keys than this is a map, such as one of counts by user, and becomes a json field."""
DEEPEST = 6
"""Objects nested deeper than this become json fields."""
NULLS = {"null", "NULL", "None", "N/A", "n/a", "nan", "NaN", "\\N", "(null)", "(not set)", "undefined"}
"""What programs write for a missing value. NA is not one of them: it is the code of Namibia."""


@dataclass
class _Node:
    """Counts and values of one path."""

    objects: int = 0
    others: int = 0
    """Number of lists, and of objects that are not looked into."""
    texts: list[str] = field(default_factory=list)
    """Its values, as text."""
    strings: int = 0
    """Number of values that are JSON strings."""
    inner: dict[str, "_Node"] = field(default_factory=dict)
    is_map: bool = False

    @property
    def present(self) -> int:
        return self.objects + self.others + len(self.texts)

    def add(self, value: Any, depth: int = 0) -> None:
        if isinstance(value, dict) and depth <= DEEPEST:
            self.objects += 1
            for name, inner in () if self.is_map else value.items():
                self.inner.setdefault(name, _Node()).add(inner, depth + 1)
            if depth and len(self.inner) > MOST_KEYS:
                self.is_map = True
                self.inner.clear()
        elif isinstance(value, dict | list):
            self.others += 1
        elif isinstance(value, bool):
            self.texts.append("true" if value else "false")
        elif isinstance(value, str) and value:
            self.strings += not isinstance(value, Number) and value not in NULLS
            self.texts.append(str(value))


def infer_fields(bodies: Iterable[dict[str, Any]]) -> tuple[list[SampledField], list[str]]:
    """Infer the fields of bodies, in the order of their first appearance.

    Returns:
        The fields, and the paths that no contract can name, each with the reason.
    """
    root = _Node()
    for body in bodies:
        root.add(body)
    left_out: list[str] = []
    return list(_fields("", root, left_out)), left_out


def _fields(prefix: str, node: _Node, left_out: list[str]) -> Iterator[SampledField]:
    names: dict[str, str] = {}
    for name, inner in node.inner.items():  # of names that differ in case only, a contract can read one
        other = names.get(name.lower())
        if other is None or inner.present > node.inner[other].present:
            names[name.lower()] = name
    for name, inner in node.inner.items():
        path = f"{prefix}{name}"
        if names[name.lower()] != name:
            left_out.append(f"{path} (differs from {names[name.lower()]} in case only)")
        elif not PATH.fullmatch(name) or "." in name or "[" in name:
            left_out.append(f"{path} (a path has only ASCII letters, digits, spaces and _@$:/-)")
        elif inner.inner and not inner.is_map and not inner.others and not inner.texts:
            yield from _fields(f"{path}.", inner, left_out)
        else:
            yield _field(path, inner)


def _field(path: str, node: _Node) -> SampledField:
    texts = tuple(text for text in node.texts if text not in NULLS)
    nulls = tuple(dict.fromkeys(text for text in node.texts if text in NULLS))
    found = SampledField(path, node.present - len(node.texts) + len(texts), texts, "string", nulls=nulls)
    if node.objects or node.others:
        guess = "objects of many keys" if node.is_map else "lists, or objects and other values" if node.texts else ""
        return replace(found, type="json", guess=guess)
    if not texts:
        kind: FieldType = "timestamp" if found.words[-1] == "at" else "boolean" if "is" in found.words[:1] else "string"
        return replace(found, type=kind, guess="no message of the sample has a value")
    typed = infer_type(found)
    if typed.type in ("integer", "amount", "boolean") and node.strings and not typed.guess:
        typed = replace(typed, guess=f"all of {len(texts):,} texts could be this")
    return replace(typed, looks_personal=looks_personal(texts))
