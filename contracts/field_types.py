"""Infers the type of a field from its name and its values."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Literal

from contracts.names import snake_case

FieldType = Literal["string", "id", "integer", "amount", "boolean", "timestamp", "json"]


@dataclass(frozen=True)
class SampledField:
    """A field that the messages have."""

    path: str
    present: int
    """Number of messages in which it has a value."""
    texts: tuple[str, ...]
    """Its values, as text."""
    type: FieldType
    unit: str | None = None
    format: str | None = None
    guess: str = ""
    """Why the type is a guess; empty if it is certain."""
    nulls: tuple[str, ...] = ()
    """Texts that mean null, such as `null`, which messages have here. They are not among `texts`."""
    looks_personal: str = ""
    """What its values look like, such as e-mail addresses; empty if they do not look personal."""

    @property
    def words(self) -> list[str]:
        return snake_case(self.path).split("_")

    @property
    def is_unique(self) -> bool:
        return 0 < self.present == len(set(self.texts))


DIGITS_AS_TEXT = {"zip", "zipcode", "postal", "postcode", "code", "phone", "mobile", "isbn", "ean", "sku", "number"}
"""Words in the names of fields whose digits are text, even without a leading zero."""
ID_WORDS = {"id", "ids", "uuid", "guid"}
TIME_WORDS = {"at", "time", "timestamp", "ts", "date", "datetime", "dtm", "when", "ms", "millis", "occurred", "occured"}
ISO_TIME = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?( UTC|Z|[+-]\d\d(:?\d\d)?)?)?")
DAYS = ("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%Y/%m/%d", "%d-%m-%Y", "%Y.%m.%d")
FORMATS = (*(f"{day}{time}" for day in DAYS for time in (" %H:%M:%S", " %H:%M", "")), "%Y-%m-%d %H:%M:%S %z")
DIGIT_FORMATS = ("%Y%m%d%H%M%S", "%Y%m%d")
"""Formats of digits alone, tried only for fields that are named like a time."""
NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,2})?", re.ASCII)
MOST = 0.95
"""Share of the values that must fit a type, if not all do."""
UNITS = {"seconds": 1, "milliseconds": 1_000, "microseconds": 1_000_000}
FIRST_SECOND, LAST_SECOND = 946_684_800, 4_102_444_800
"""2000-01-01 to 2100-01-01, in seconds since 1970."""


def infer_type(found: SampledField) -> SampledField:
    """Return the field with a type that its values fit, and why that is a guess."""
    if found.words[-1] in ID_WORDS or all(map(_is_uuid, found.texts)):
        return replace(found, type="id")
    if all(text.lower() in ("true", "false") for text in found.texts):
        return replace(found, type="boolean")
    return _as_time(found) or _as_number(found) or _as_most(found) or found


def _as_most(found: SampledField) -> SampledField | None:
    """Return the type that nearly all values have; staging rejects messages with the others. For a field that is named
    like a time, more than half of the values are enough."""
    share = MOST
    times = [text for text in found.texts if ISO_TIME.fullmatch(text) and _parses(text)]
    if _is_named_time(found):
        share = 0.5
        formats = {one: [text for text in found.texts if _fits_format([text], one)] for one in FORMATS}
        times = max(times, *formats.values(), key=len)
    for texts in (times, [text for text in found.texts if NUMBER.fullmatch(text)]):
        if share * len(found.texts) < len(texts) < len(found.texts):
            typed = infer_type(replace(found, texts=tuple(texts)))
            if typed.type != "string":
                rejected = (
                    f"{len(found.texts) - len(texts):,} of {len(found.texts):,} values do not fit and are rejected"
                )
                return replace(typed, texts=found.texts, guess=rejected)
        share = MOST
    return None


def _is_named_time(found: SampledField) -> bool:
    return not TIME_WORDS.isdisjoint(found.words)


def _as_time(found: SampledField) -> SampledField | None:
    texts = found.texts
    if all(ISO_TIME.fullmatch(text) and _parses(text) for text in texts):
        return replace(found, type="timestamp")
    is_named_time = _is_named_time(found)
    formats = [one for one in (*FORMATS, *(DIGIT_FORMATS if is_named_time else ())) if _fits_format(texts, one)]
    if formats:
        guess = f"or is it {formats[1]}?" if len(formats) > 1 else f"all of {len(texts):,} fit the format"
        return replace(found, type="timestamp", format=formats[0], guess=guess)
    if is_named_time and all(re.fullmatch(r"[0-9]{9,16}", text) for text in texts):
        for unit, factor in UNITS.items():
            if all(FIRST_SECOND * factor <= int(text) < LAST_SECOND * factor for text in texts):
                return replace(found, type="timestamp", unit=unit, guess=f"as {unit} they are of 2000 to 2100")
    return None


def _as_number(found: SampledField) -> SampledField | None:
    texts = found.texts
    if not all(NUMBER.fullmatch(text) for text in texts):
        return None
    is_whole = all(text.lstrip("-").isdigit() for text in texts)
    numbers = [Decimal(text) for text in texts]
    guess = ""
    if is_whole and (not DIGITS_AS_TEXT.isdisjoint(found.words) or any(re.match(r"-?0[0-9]", text) for text in texts)):
        guess = "digits, but hardly a number to count with"
    elif any(abs(number) >= (2**63 if is_whole else 10**14) for number in numbers):
        guess = "numbers too large for the types integer and amount"
    elif any(int(number.normalize().as_tuple().exponent) < -4 for number in numbers):
        guess = "numbers of more than four decimals, which the type amount rounds"
    if guess:
        return replace(found, guess=guess)
    return replace(found, type="integer" if is_whole else "amount")


def _is_uuid(text: str) -> bool:
    return re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", text) is not None


def _parses(text: str) -> bool:
    try:
        datetime.fromisoformat(text.removesuffix(" UTC"))
    except ValueError:
        return False
    return True


def _fits_format(texts: Iterable[str], time_format: str) -> bool:
    try:  # compared with its own output, since strptime also reads 1.2.2024
        return all(datetime.strptime(text, time_format).strftime(time_format) == text for text in texts)  # noqa: DTZ007
    except ValueError:
        return False
