"""Values of an answer as text on the page."""

import re
from datetime import date, datetime
from decimal import Decimal
from typing import Any

Row = dict[str, Any]
"""The values of a row by column."""
NOTHING = "\N{EN DASH}"


def shown(value: Any, column: str = "") -> str:  # noqa: PLR0911  a return per type of value
    """A value as people read it; the name of its column distinguishes durations and shares from other numbers."""
    match value:
        case None:
            return NOTHING
        case bool():
            return "✓ yes" if value else "✗ no"
        case datetime():
            return f"{value.day} {value:%b %Y, %H:%M}"
        case date():
            return f"{value.day} {value:%b %Y}"
        case str():
            return value
    if re.search(r"(^|_)seconds(_|$)", column):
        minutes, seconds = divmod(round(value), 60)
        return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}" if minutes >= 60 else f"{minutes}:{seconds:02}"
    if re.search(r"(^|_)(share|rate|ratio|per)(_|$)", column):
        return f"{value:.1%}"
    is_whole = isinstance(value, int) or (isinstance(value, Decimal) and value.as_tuple().exponent == 0)
    return f"{value:,}" if is_whole else f"{value:,.2f}"


def change(now: Any, before: Any, column: str) -> str:
    """The change with its direction: in per cent, or in percentage points for a rate; a dash if there is nothing to
    compare with."""
    if now is None or before is None or not (before or column.endswith("_rate")):
        return NOTHING
    difference = now - before
    arrow = "▲ " if difference > 0 else "▼ " if difference < 0 else ""
    if column.endswith("_rate"):
        return f"{arrow}{100 * difference:+.1f} points"
    return f"{arrow}{Decimal(difference) / abs(before):+,.1%}"


def cell(row: Row, columns: str) -> tuple[str, Any]:
    """The first of these columns that has a value, and the value."""
    names = columns.split("|")
    return next(((name, row[name]) for name in names if row[name] is not None), (names[0], None))


def is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)
