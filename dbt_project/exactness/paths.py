"""Reads and sets values at paths of JSON bodies, such as props.ref or items[0].sku."""

import re
from itertools import pairwise
from typing import Any


def put(body: dict[str, Any], path: str, value: Any) -> None:
    """Set the value at a path; Ellipsis removes it."""
    if value is ... and get(body, path) is None:
        return
    *outer, last = _parts(path)
    inside: Any = body
    for part, after in pairwise([*outer, last]):
        inside = _at(inside, part, [] if isinstance(after, int) else {})
        if not isinstance(inside, dict | list):  # another field has put a text there
            return
    if isinstance(last, int):
        if isinstance(inside, list) and value is not ...:
            _at(inside, last, None)
            inside[last] = value
    elif isinstance(inside, dict):
        if value is ...:
            inside.pop(last, None)
        else:
            inside[last] = value


def get(body: Any, path: str) -> Any:
    """The value at a path, or None."""
    for part in _parts(path):
        try:
            body = body[part]
        except (KeyError, IndexError, TypeError):
            return None
    return body


def _parts(path: str) -> list[str | int]:
    return [int(index) if index else name for name, index in re.findall(r"([^.\[\]]+)(?!\])|\[([0-9]+)\]", path)]


def _at(inside: Any, part: str | int, empty: Any) -> Any:
    """The value of one part of a path, added if it is missing."""
    if isinstance(part, int) and isinstance(inside, list):
        inside.extend({} if isinstance(empty, dict) else None for _ in range(part + 1 - len(inside)))
        if inside[part] is None and empty is not None:
            inside[part] = empty
        return inside[part]
    if isinstance(part, str) and isinstance(inside, dict):
        return inside.setdefault(part, empty)
    return None
