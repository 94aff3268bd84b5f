"""Computes the places of bars over time and the marks of both axes, and small charts without axes."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from math import ceil, floor, log10
from typing import Any

from serve.dashboard.filters import DAY
from serve.dashboard.values import Row, shown

HOUR = timedelta(hours=1)
SPARK_HEIGHT = 20
"""Height of a small chart, in units of its own; a bar is one unit wide."""


def plot(rows: list[Row], at: str, column: str) -> dict[str, Any]:
    """Bars over time: left edge and height of each in per cent of the plot, and the marks of both axes."""
    zone = getattr(rows[0][at], "tzinfo", None)

    def place(wall: datetime) -> datetime:
        """The instant of a local time; a local hour can occur twice or not at all."""
        return wall.replace(tzinfo=zone).astimezone(UTC).replace(tzinfo=None) if zone else wall

    times = [row[at].astimezone(UTC).replace(tzinfo=None) if zone else _without_time(row[at]) for row in rows]
    step = HOUR if isinstance(rows[0][at], datetime) else DAY
    begin, end = times[0], times[-1] + step
    top = nice_ceiling(max(row[column] or 0 for row in rows))
    days = ceil((end - begin) / DAY)
    every, of, form = (6 * HOUR, HOUR, "{:%H:%M}") if days <= 2 else (ceil(days / 7) * DAY, DAY, "{0.day} {0:%b}")

    def across(moment: datetime) -> float:
        return round(100 * ((moment - begin) / (end - begin)), 3)

    first = datetime.combine(rows[0][at], time())
    marks = [first + number * every for number in range(days * DAY // every + 2)]
    return {
        "bars": [
            {
                "left": across(moment),
                "height": round(100 * max(0, float(row[column] or 0)) / top, 2),
                "title": f"{shown(row[at])}: {shown(row[column], column)}",
            }
            for moment, row in zip(times, rows, strict=True)
        ],
        "width": across(begin + step),
        "scale": [shown(top, column), shown(top // 2, column), shown(0, column)],
        "marks": [
            {"left": left, "text": form.format(mark)}
            for mark in marks
            if 0 <= (left := across(place(mark) + of / 2)) < 97
        ],
        "highest": max(rows, key=lambda row: row[column] or 0),
    }


def _without_time(moment: date) -> datetime:
    return moment if isinstance(moment, datetime) else datetime.combine(moment, time())


def nice_ceiling(value: Any) -> int:
    """The smallest of 2, 4, 6, 8, 10, 20, 40 ... that is at least the value; half of it is a whole number, too."""
    magnitude: int = 10 ** floor(log10(max(value, 2)))
    return next(step * magnitude for step in (1, 2, 4, 6, 8, 10) if step * magnitude >= max(value, 2))


def sparkline(values: Sequence[int]) -> str:
    """The outline of bars side by side as the path of an SVG, of which the tallest has the whole height."""
    most = max(*values, 1)
    tops = (f"V{SPARK_HEIGHT - SPARK_HEIGHT * max(value, 0) / most:.3g}h1" for value in values)
    return f"M0 {SPARK_HEIGHT}{''.join(tops)}V{SPARK_HEIGHT}z"
