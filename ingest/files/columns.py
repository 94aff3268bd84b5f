"""Turns columns of CSV and Parquet files, such as `props.ref`, into nested objects and lists."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import TypeAlias

from common.errors import UserError
from ingest.files.event_file import EventFile


def check_distinct(file: EventFile, columns: Sequence[str]) -> None:
    """Reject a file with two columns of one name.

    Raises:
        UserError: naming file and column.
    """
    column, times = Counter(columns).most_common(1)[0] if columns else ("", 0)
    if times > 1:
        raise UserError(f"{file.name} has {times} columns named {column!r}; remove or rename all but one")


Value: TypeAlias = "int | dict[str, Value] | list[Value] | None"
"""The index of a column, or an object or list of Values; None for an element of a list that no column fills."""
_Steps = dict[str | int, "int | _Steps"]
"""A Value while it is built, with lists as mappings of index to element."""
MOST_ELEMENTS = 1_000
"""Maximum elements of a list, so that a column `items[999999999]` does not fill the memory."""


def nested(columns: Sequence[str]) -> dict[str, Value]:
    """Nest columns by their names: `props.ref` is the field `ref` of the object `props`, `items[0].sku`
    the field `sku` of the first element of the list `items`.

    A name that cannot be a path is kept whole, such as `a..b`, or `props.ref` if there also is a column `props` or
    `props[0]`.
    """
    flat = set(columns)
    fields: _Steps = {}
    for number, column in enumerate(columns):
        steps = _steps(column)
        if any(column[: place.start()] in flat for place in re.finditer(r"[.\[]", column)) or not _fits(steps, fields):
            steps = [column]
        inner = fields
        for step in steps[:-1]:
            below = inner.setdefault(step, {})
            assert not isinstance(below, int)  # noqa: S101  as _fits has checked
            inner = below
        inner[steps[-1]] = number
    return {str(name): _with_lists(inner) for name, inner in fields.items()}


def _steps(column: str) -> list[str | int]:
    """Split a column into names and indexes: `items[0].sku` into items, 0, sku."""
    steps: list[str | int] = []
    for part in column.split("."):
        indexed = re.fullmatch(r"([^\[\]]+)((?:\[[0-9]{1,9}\])+)", part)
        if not part or (indexed is None and not part.strip("[]")):
            return [column]
        if indexed is None:
            steps.append(part)
        else:
            steps += [indexed[1], *map(int, re.findall("[0-9]+", indexed[2]))]
    return steps


def _fits(steps: Sequence[str | int], fields: _Steps) -> bool:
    """Whether the steps can be added to the fields, with each place only an object, only a list or only a value."""
    inner: int | _Steps = fields
    for step in steps:
        is_index = isinstance(step, int)
        if isinstance(step, int) and step >= MOST_ELEMENTS:
            return False
        if isinstance(inner, int) or any(isinstance(other, int) != is_index for other in inner):
            return False
        inner = inner.get(step, {})
    return inner == {}


def _with_lists(inner: "int | _Steps") -> Value:
    if isinstance(inner, int):
        return inner
    if places := [step for step in inner if isinstance(step, int)]:
        return [_with_lists(inner[place]) if place in inner else None for place in range(max(places) + 1)]
    return {str(name): _with_lists(below) for name, below in inner.items()}
