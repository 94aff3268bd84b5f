"""Rows of marts, and grouping and ordering of what they are made from."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from specification.messages import Event

Row = dict[str, Any]
Mart = list[Row]


def grouped(items: Iterable[Any], key: Callable[[Any], Any]) -> dict[Any, list[Any]]:
    groups: dict[Any, list[Any]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return dict(groups)


def in_order(events: Iterable[Event]) -> list[Event]:
    """By time; at one instant by event_id."""
    return sorted(events, key=lambda event: (event.event_at, event.event_id))
