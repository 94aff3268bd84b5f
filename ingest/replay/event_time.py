"""Reads the time of an event from text or a number, since it becomes the time of the replayed message."""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
LATEST = (datetime.max.replace(tzinfo=UTC) - EPOCH) // MICROSECOND
UNITS = {"seconds": 1_000_000, "milliseconds": 1_000, "microseconds": 1}
"""Microseconds per unit of a contract."""


@lru_cache(maxsize=4096)  # rows are mostly in order, with many per second
def event_instant(value: str | int, unit: str | None, time_format: str | None) -> int | None:
    """Microseconds since the epoch; None for a value that is not a time from 1970 to 9999.

    Args:
        value: Text in ISO 8601 or `time_format`, or a number as an integer or its digits.
        unit: Unit of a number, a key of UNITS; None derives it from the size.
        time_format: A format of datetime.strptime.
    """
    is_number = isinstance(value, int) or re.fullmatch(r"\d{9,18}", value, re.ASCII) is not None
    if unit or (is_number and time_format is None):
        if not is_number and not re.fullmatch(r"-?\d{1,18}", str(value), re.ASCII):
            return None
        instant = int(value)
        if unit:
            instant *= UNITS[unit]
        # the size tells the unit: seconds, milliseconds (from 1973 on) or microseconds since the epoch.
        elif instant < 10**11:
            instant *= 1_000_000
        elif instant < 10**14:
            instant *= 1_000
    else:
        text = str(value)
        try:
            if time_format is not None:
                moment = datetime.strptime(text, time_format)  # noqa: DTZ007  UTC without %z
            else:
                moment = datetime.fromisoformat(text.removesuffix(" UTC"))
        except ValueError:
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        instant = (moment - EPOCH) // MICROSECOND
    # brokers reject times before the epoch
    return instant if 0 <= instant <= LATEST else None
