"""Rows of an answer, made into what a panel shows: steps of a funnel, and small charts per event type."""

from collections.abc import Iterable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from serve.dashboard.charts import HOUR, sparkline
from serve.dashboard.filters import DAY
from serve.dashboard.values import Row, cell, shown

TREND = "events_over_time"
"""The query of the small charts."""


def funnel_steps(rows: list[Row], steps: Mapping[str, str]) -> list[Row]:
    """Return one row per step, from the only row of the answer; no rows if nobody took the first step.

    Args:
        steps: maps a column to the name of the step that it counts.

    Returns:
        Rows with step, people, left (people who do not take the next step), share (of the people in the first step) and
        of_previous (of those in the step before; null in the first step or after an empty one).
    """
    counts = [row[column] for row in rows for column in steps]
    if not counts or not counts[0]:
        return []
    return [
        {
            "step": name,
            "people": people,
            "share": Decimal(people) / counts[0],
            "of_previous": Decimal(people) / counts[place - 1] if place and counts[place - 1] else None,
            "left": people - counts[place + 1] if place + 1 < len(counts) else None,
        }
        for place, (name, people) in enumerate(zip(steps.values(), counts, strict=True))
    ]


def has_any(rows: Iterable[Row], columns: Iterable[str]) -> bool:
    """Whether one of the columns is neither 0 nor null in some row."""
    return any(row[column] for row in rows for column in columns)


def with_values(rows: list[Row], columns: Mapping[str, str], optional: Iterable[str]) -> dict[str, str]:
    """The columns of a table without the optional ones that have no value in any row."""
    empty = {one for one in optional if all(cell(row, one)[1] is None for row in rows)}
    return {column: heading for column, heading in columns.items() if column not in empty}


def trends(rows: list[Row], first: date | None, last: date | None) -> dict[str, dict[str, Any]]:
    """The small chart of each event type: its events per day, or per hour if the rows are per hour.

    Args:
        rows: the rows of the query events_over_time.
        first: the first day of the charts, that of the first event if None.
        last: the last day, that of the last event if None.
    """
    times = [row["reporting_hour_at"] or _midnight(row["reporting_date"]) for row in rows]
    if not times:
        return {}
    is_hourly = rows[0]["reporting_hour_at"] is not None
    step = HOUR if is_hourly else DAY
    begin, end = min(times), max(times)
    if not is_hourly:
        begin = min(begin, _midnight(first)) if first else begin
        end = max(end, _midnight(last)) if last else end
    slots = (end - begin) // step + 1
    counts: dict[str, list[int]] = {}
    for row, moment in zip(rows, times, strict=True):
        counts.setdefault(row["event_type"], [0] * slots)[(moment - begin) // step] = row["events"]
    unit = "hour" if is_hourly else "day"
    return {
        event_type: {
            "path": sparkline(events),
            "slots": slots,
            "label": f"{event_type}: {shown(min(events))} to {shown(max(events))} per {unit}",
        }
        for event_type, events in counts.items()
    }


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time())
