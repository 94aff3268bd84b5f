"""Rows of marts, and how events are grouped and ordered."""

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
    """Sorted by time, then by event_id."""
    return sorted(events, key=lambda event: (event.event_at, event.event_id))
