"""The texts, numbers, dates and lengths of time that the SQL of models names: its conditions may depend on them."""

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from typing import TypeVar

_T = TypeVar("_T")
_EARLIEST, _LAST_DAY = date(2000, 1, 10), date(2025, 6, 1)
"""Range of the dates that are drawn, so that even a message that is years late is published before it lands."""
_TOKEN = re.compile(
    r"""--[^\n]*|/\*.*?\*/|"[^"]*"|'(?P<text>(?:[^']|'')*)'"""
    r"""|(?<![\w.])(?P<number>\d{1,12}(?:\.\d{1,4})?)(?![\w.])""",
    re.DOTALL,
)
"""Comments, quoted names and literals."""
_UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
_COUNT_OF_UNITS = re.compile(r"'(\d{1,6}) (?:second|minute|hour|day)s?'", re.IGNORECASE)
_LONGEST_WINDOW = 4 * 86_400
"""Seconds. Events of one world are not further apart."""


@dataclass(frozen=True)
class Literals:
    """Literals of SQL."""

    texts: Sequence[str] = ()
    numbers: Sequence[float] = ()
    days: Sequence[date] = ()
    windows: Sequence[int] = ()
    """Seconds of the lengths of time that the model's own SQL may mean: 24 next to `hour`, or 86400."""

    @classmethod
    def of(cls, own: str, others: str) -> "Literals":
        """Literals of a model and of the models that it reads. The model's own are repeated, so that both are drawn
        about as often."""
        (texts, numbers, days), (more_texts, more_numbers, more_days) = _literals(own), _literals(others)
        return cls(
            _in_halves(texts, more_texts),
            _in_halves(numbers, more_numbers),
            _in_halves(days, more_days),
            _windows(own, numbers),
        )


NO_LITERALS = Literals()


def _literals(sql: str) -> tuple[list[str], list[float], list[date]]:
    texts, numbers, days = dict[str, None](), dict[float, None](), dict[date, None]()
    for found in _TOKEN.finditer(sql):
        text = found["number"] or (found["text"] or "").replace("''", "'").strip("%")
        if re.fullmatch(r"-?\d{1,12}(\.\d{1,4})?", text):
            numbers[float(text) if "." in text else int(text)] = None
        if found["text"] and text and len(text) <= 100 and not text.startswith("$"):
            texts[text] = None
        with suppress(ValueError):
            if _EARLIEST <= (day := date.fromisoformat(text[:10])) < _LAST_DAY:
                days[day] = None
    return [*texts], [*numbers], [*days]


def _windows(sql: str, numbers: Sequence[float]) -> list[int]:
    """Seconds of each whole number in each unit of time that the SQL names, or as seconds if it names none."""
    counts = [int(number) for number in numbers if number == int(number)]
    counts += [int(count) for count in _COUNT_OF_UNITS.findall(sql)]
    units = [size for unit, size in _UNITS.items() if re.search(rf"\b{unit}s?\b", sql, re.IGNORECASE)]
    return sorted({count * one for count in counts for one in units or [1] if 1 < count * one <= _LONGEST_WINDOW})


def _in_halves(own: list[_T], others: list[_T]) -> list[_T]:
    return own * max(1, len(others) // max(1, len(own))) + others


def code_of(sql: str) -> str:
    """SQL without comments, texts and quoted names."""
    return _TOKEN.sub(lambda found: found["number"] or " ", sql)
