"""Random values of fields, by the contract of their stream."""

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from common.streams import BodyField, Stream
from dbt_project.exactness.literals import Literals

SECOND = 1_000_000
"""One second in microseconds."""


class Chance:
    """Random choices."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def one_in(self, number: int) -> bool:
        return self.rng.randrange(number) == 0

    def any_of(self, *values: Any) -> Any:
        return self.rng.choice(values)


class Values(Chance):
    """Draws values for the messages of one world."""

    def __init__(self, rng: random.Random, number: int, ids: Sequence[str], literals: Literals) -> None:
        """Prepare the values of world `number`, whose users, products and the like have these ids."""
        super().__init__(rng)
        self.number = number
        self.ids = ids
        self.literals = literals
        self.own_ids = 0

    def value(self, field: BodyField, stream: Stream, time: datetime) -> Any:
        """A value, or Ellipsis if the body has no such field."""
        if not field.required and self.one_in(6):
            return self.any_of(..., None, "", *stream.nulls, *field.nulls)
        if (known := PAGE_VIEW_VALUES.get((stream.name, field.name))) is not None:
            return self.rng.choice(known)
        if not field.required and isinstance(stream.event_type, str) and field.in_body.endswith("event_name"):
            return self.any_of(stream.event_type, ...)
        return self.filled(field, time)

    def filled(self, field: BodyField, time: datetime) -> Any:
        if field.values:
            return self.rng.choice(field.values)
        kind = "id" if is_id(field) else field.type
        if kind == "timestamp":
            return self.spelt(time + timedelta(seconds=self.any_of(0, 60, -3600, 86_400)), field)
        an_id = self.rng.choice(self.ids)
        if self.literals.texts and self.one_in(12):
            an_id = self.rng.choice(self.literals.texts)
        if kind in ("integer", "amount") and self.literals.numbers and self.one_in(3):
            number = self.rng.choice(self.literals.numbers) + self.any_of(0, 0, 1, -1)
            return int(number) if kind == "integer" else number
        drawn: dict[str, Any] = {
            "id": an_id,
            "integer": self.any_of(0, 1, 2, "3", -1, 2**40),
            "amount": self.amount(),
            "boolean": self.any_of(True, False, "true", "FALSE", 1, "0"),
            "json": self.any_of({"a": an_id}, [1, 2.5], {}),
            "string": self.word(),
        }
        return drawn[kind]

    def word(self) -> str:
        """A text that only this world has, or that all worlds share."""
        if self.literals.texts and self.one_in(3):
            return self.rng.choice(self.literals.texts)
        return self.rng.choice([f"Home {self.number}", f"Señal {self.number}", "ES", "US", "lamp", "x"])

    def amount(self) -> Any:
        return self.any_of(0, 1, 9.99, "12.50", 0.0001, -3, "1e3", 99999999)

    def own_id(self) -> str:
        """The id of an event: sometimes that of an earlier event."""
        if not self.own_ids or not self.one_in(8):
            self.own_ids += 1
        return f"e{self.number}.{self.own_ids}"

    def spelt(self, time: datetime, field: BodyField | None) -> Any:
        if field is not None and field.format is not None:
            return time.replace(tzinfo=UTC).strftime(field.format)
        if field is not None and field.unit is not None:
            number = epoch(time) // {"seconds": SECOND, "milliseconds": 1000, "microseconds": 1}[field.unit]
            return self.any_of(number, str(number))
        return self.rng.choice(SPELLINGS)(time)

    def written_key(self, value: str, field: str) -> bytes:
        """A message key, in one of the formats that clients use."""
        name = field.rpartition(".")[2]
        return self.rng.choice([value, value, json.dumps(value), json.dumps({name: value})]).encode()


def epoch(time: datetime) -> int:
    """Microseconds since 1970."""
    return (time - datetime(1970, 1, 1)) // timedelta(microseconds=1)  # noqa: DTZ001  times here are UTC without a zone


def id_names(stream: Stream) -> set[str]:
    """Names of the fields that hold ids of what an event or a version is about, such as user_id."""
    return {field.name for field in stream.fields if is_id(field) and field.in_body not in stream.id[:1]}


def is_id(field: BodyField) -> bool:
    return field.type == "id" or (field.type == "string" and re.search(r"(^|_)id$", field.name) is not None)


SPELLINGS: tuple[Callable[[datetime], str], ...] = (
    lambda time: time.isoformat(),
    lambda time: time.isoformat(timespec="microseconds") + "Z",
    lambda time: time.isoformat(sep=" ") + " UTC",
    lambda time: (time + timedelta(hours=5, minutes=30)).isoformat() + "+05:30",
)
PAGE_VIEW_VALUES: Mapping[tuple[str, str], Sequence[Any]] = {
    ("page_views", "event_params"): (
        {"engaged_time": 5, "traffic_source": "ads"},
        {"engaged_time": 0, "traffic_source": "ads"},
        {"traffic_source": "organic", "ga_session_id": 7},
        {"engaged_time": "1.5", "page_location": "https://shop/a"},
        [{"key": "engagement_time_msec", "value": {"int_value": "1500"}}],
        {"test_event": True},
    ),
    ("page_views", "event_timestamp_ms"): (1735689600000,),
}
"""Values of page_views, whose contract does not describe them: its staging is written by hand."""
