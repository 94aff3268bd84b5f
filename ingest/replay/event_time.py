"""Parses the time of an event, a text or a number; `replay` uses it as the time of the message."""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
LATEST = (datetime.max.replace(tzinfo=UTC) - EPOCH) // MICROSECOND
UNITS = {"seconds": 1_000_000, "milliseconds": 1_000, "microseconds": 1}
"""Maps the name of a unit in a contract to its microseconds."""


@lru_cache(maxsize=4096)  # rows are mostly in the order of time, with many per second
def event_instant(value: str | int, unit: str | None, time_format: str | None) -> int | None:
    """Return a time in microseconds since the epoch; None if the value is not a time from 1970 to 9999.

    Args:
        value: text in ISO 8601 or in `time_format`, or an integer, also as text.
        unit: unit of an integer, a key of UNITS; None infers it from the size.
        time_format: a format of datetime.strptime.
    """
    is_number = isinstance(value, int) or re.fullmatch(r"\d{9,18}", value, re.ASCII) is not None
    if unit or (is_number and time_format is None):
        if not is_number and not re.fullmatch(r"-?\d{1,18}", str(value), re.ASCII):
            return None
        instant = int(value)
        if unit:
            instant *= UNITS[unit]
        # Infer the unit from the size: seconds, milliseconds (from 1973 on) or microseconds.
        elif instant < 10**11:
            instant *= 1_000_000
        elif instant < 10**14:
            instant *= 1_000
    else:
        text = str(value)
        try:
            if time_format is not None:
                moment = datetime.strptime(text, time_format)  # noqa: DTZ007  a format without %z means UTC
            else:
                moment = datetime.fromisoformat(text.removesuffix(" UTC"))
        except ValueError:
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        instant = (moment - EPOCH) // MICROSECOND
    # brokers reject times before the epoch
    return instant if 0 <= instant <= LATEST else None
