"""Random messages by the contracts of streams: a few ids, so that rows meet, in whatever order, late, twice, broken.

A world is some messages in days and under ids of its own. So many worlds share a warehouse, and none hides another's
fault: neither by its rows nor by the days that it makes a build read again.
"""

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any, TypeVar

from common.streams import BodyField, EventType, Stream

MOST_WORLDS = 300
"""Of one warehouse: the days for more would be in the future."""
COMMITS = 2
"""Of the loader, per run."""
_T = TypeVar("_T")
_MICROSECOND, _SECOND, _HOUR, _DAY = 1, 1_000_000, 3_600_000_000, 86_400_000_000
_FIRST_DAY, _DAYS = date(2018, 12, 27), 9
"""A world has nine days; the worlds of a warehouse are years in all."""
_EARLIEST, _LAST_DAY = date(2000, 1, 10), date(2025, 6, 1)
"""Of literals that are drawn: what comes days or years later is still before it lands."""
_FIRST_OLD_DAY, _OLD_DAYS = date(2003, 12, 30), 4
"""And four days long before, for what is years late."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message, and when it arrives: before which run of the build, in which commit of the loader."""

    run: int
    commit: int
    stream: str
    message_id: str
    published_at: datetime | None
    payload: bytes | None
    key: bytes | None = None
    attributes: str | None = None
    """JSON text, as it is landed."""

    def __str__(self) -> str:
        body = "(no payload)" if self.payload is None else self.payload.decode(errors="backslashreplace")
        if len(body) > 500:
            body = f"{body[:500]}... ({len(body)} characters)"
        attributes = f" attributes {self.attributes}" if self.attributes else ""
        key = "" if self.key is None else f" key {self.key.decode(errors='backslashreplace')}"
        return f"{self.stream} {self.message_id} published {self.published_at}{key}{attributes}: {body}"


_TOKEN = re.compile(
    r"""--[^\n]*|/\*.*?\*/|"[^"]*"|'(?P<text>(?:[^']|'')*)'"""
    r"""|(?<![\w.])(?P<number>\d{1,12}(?:\.\d{1,4})?)(?![\w.])""",
    re.DOTALL,
)
"""What is not code, and literals."""


@dataclass(frozen=True)
class Literals:
    """What SQL names: a model may keep only rows that have it."""

    texts: Sequence[str] = ()
    numbers: Sequence[float] = ()
    days: Sequence[date] = ()

    @classmethod
    def of(cls, own: str, others: str) -> "Literals":
        """Those of a model, and as often those of what it reads, however many these are."""
        (texts, numbers, days), (more_texts, more_numbers, more_days) = _literals(own), _literals(others)
        return cls(_in_halves(texts, more_texts), _in_halves(numbers, more_numbers), _in_halves(days, more_days))


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


def _in_halves(own: list[_T], others: list[_T]) -> list[_T]:
    return own * max(1, len(others) // max(1, len(own))) + others


def code_of(sql: str) -> str:
    """SQL without comments, texts and quoted names."""
    return _TOKEN.sub(lambda found: found["number"] or " ", sql)


def draw_world(
    rng: random.Random,
    number: int,
    streams: Sequence[Stream],
    runs: int,
    windows: Sequence[int] = (),
    literals: Literals = Literals(),
) -> list[Message]:
    """The messages of one world.

    Args:
        number: which one, from 0 to MOST_WORLDS - 1; its ids and days belong to no other.
        streams: those that may be in it; mostly one to three of them are. One that is given twice comes more often.
        runs: the messages arrive before the runs 0 to runs - 1 of the build.
        windows: in seconds; the time between two events is sometimes one of them to the microsecond.
        literals: values that are drawn now and then.
    """
    return _World(rng, number, streams, runs, windows, literals).messages()


class _World:
    def __init__(
        self,
        rng: random.Random,
        number: int,
        streams: Sequence[Stream],
        runs: int,
        windows: Sequence[int],
        literals: Literals,
    ) -> None:
        self.rng = rng
        self.literals = literals
        self.number = number
        self.runs = runs
        self.streams = self.related(streams)
        self.is_calm = not self.one_in(3)
        """About one person and one product, within hours: only the order in which it arrives is odd."""
        self.ids = [f"a{number}"] if self.is_calm else [f"a{number}", f"b{number}"]
        self.day = datetime.combine(_FIRST_DAY + timedelta(days=_DAYS * number + 4), datetime.min.time())
        self.old_day = datetime.combine(_FIRST_OLD_DAY + timedelta(days=_OLD_DAYS * number), datetime.min.time())
        self.literal_day: datetime | None = None
        """Where a filter of a model may begin, or some days of this world after that."""
        if literals.days:
            day = datetime.combine(rng.choice(literals.days), datetime.min.time())
            self.literal_day = day + timedelta(days=self.any_of(0, _OLD_DAYS * number))
        edge = rng.choice((*windows, 60, 1800, 3600)) * _SECOND
        self.steps = (0, _MICROSECOND, _SECOND, 10 * _SECOND, edge // 2, edge, edge, edge + _MICROSECOND)
        self.far_steps = (6 * _HOUR, _DAY - _SECOND, _DAY, 2 * _DAY, 4 * _DAY)
        self.own_ids = 0

    def related(self, streams: Sequence[Stream]) -> list[Stream]:
        """A stream, alone or with others, mostly such as have ids of the same names."""
        all_of_them = [*{stream.name: stream for stream in streams}.values()]
        if self.one_in(12):
            return all_of_them
        found = [self.rng.choice(streams)]
        for _ in range(self.any_of(0, 0, 1, 1, 2)):
            others = [stream for stream in all_of_them if stream not in found]
            weights = [1 + 4 * len(_id_names(found[0]) & _id_names(stream)) for stream in others]
            found += self.rng.choices(others, weights) if others else []
        return found

    # --- what arrives, and when

    def messages(self) -> list[Message]:
        rng, found = self.rng, list[Message]()
        at = self.any_of(0, -_SECOND, -self.steps[-2] // 2)  # about midnight, where days meet
        for _ in range(rng.choice((3, 4, 5, 6, 8, 10, 12))):
            is_far = self.one_in(20 if self.is_calm else 4)
            at += rng.choice((1, -1)) * rng.choice(self.far_steps if is_far else self.steps)
            at = max(-4 * _DAY, min(at, 4 * _DAY))
            place = len(found)
            if found and self.one_in(5):
                found.append(self.copy(rng.choice(found), place))
            else:
                found.append(self.message(rng.choice(self.streams), at, place))
        return found

    def message(self, stream: Stream, at: int, place: int) -> Message:
        day = self.old_day if self.one_in(10) else self.day
        if self.literal_day is not None and self.one_in(3):
            day = self.literal_day
        time = day + timedelta(microseconds=at)
        body, key = self.entity(stream, time) if stream.kind == "entity" else self.event(stream, time)
        attributes = None
        if stream.envelope == "cloudevents" and self.one_in(2):
            attributes, body = self.binary(stream, body)
        payload: bytes | None = None if body is None else json.dumps(body, ensure_ascii=False).encode()
        if self.one_in(12):
            payload, key = self.broken(stream, body, key)
        return Message(
            run=self.rng.randrange(self.runs),
            commit=self.rng.randrange(COMMITS),
            stream=stream.name,
            message_id=f"w{self.number}.{place}",
            published_at=self.published(time),
            payload=payload,
            key=key,
            attributes=attributes,
        )

    def published(self, time: datetime) -> datetime | None:
        """Mostly soon; sometimes late, not known, before it happened, or so long before that staging rejects it."""
        if not self.one_in(5):
            return time + timedelta(seconds=self.rng.choice((0, 1, 2, 300)))
        delay = self.any_of(timedelta(hours=1), timedelta(days=2), timedelta(days=2000), -timedelta(days=1), None)
        if self.one_in(8):
            delay = -timedelta(days=1, microseconds=1)
        return None if delay is None else time + delay

    def copy(self, message: Message, place: int) -> Message:
        """The same message delivered again; its body sent again; or another body of the same identity."""
        again = replace(message, run=self.rng.randrange(self.runs), commit=self.rng.randrange(COMMITS))
        kind = self.rng.randrange(3)
        if kind == 0:
            return again
        again = replace(again, message_id=f"w{self.number}.{place}")
        return again if kind == 1 else replace(again, payload=self.changed(message.payload))

    def changed(self, payload: bytes | None) -> bytes | None:
        """With another value of one field, which may be that of the id or of the time."""
        try:
            body = json.loads(payload or b"")
        except ValueError:
            return payload
        if not isinstance(body, dict) or not body:
            return payload
        name = self.rng.choice(sorted(body))
        body[name] = self.any_of(self.rng.choice(self.ids), self.word(), self.amount(), self.spelt(self.day, None))
        return json.dumps(body, ensure_ascii=False).encode()

    def broken(self, stream: Stream, body: Any, key: bytes | None) -> tuple[bytes | None, bytes | None]:
        """What staging may have to reject."""
        if body is None:
            return None, self.any_of(None, b"", b"\xff", b"null", b"{")
        if self.one_in(3):
            return self.any_of(b"", b"not json", b"null", b"17", b"[1]", b'{"a": 1', b"\xff\xfe"), key
        body = json.loads(json.dumps(body))
        if not isinstance(body, dict):
            return b"", key
        field = self.rng.choice(stream.fields)
        bad = (..., None, "", "undefined", "soon", "-", "9999-12-31T23:59:59Z", "0001-01-01", {"a": 1}, "x" * 65_537)
        put(body, self.prefix(stream) + field.in_body, self.any_of(*bad))
        return json.dumps(body, ensure_ascii=False).encode(), key

    # --- bodies

    def event(self, stream: Stream, time: datetime) -> tuple[Any, bytes | None]:
        body: dict[str, Any] = {}
        own_id = self.own_id()
        of_type = stream.event_type if isinstance(stream.event_type, EventType) else None
        value: Any
        for field in stream.fields:
            path = field.in_body
            if of_type and path == of_type.field:
                value = self.any_of(*of_type.values, *(["other"] if of_type.others == "keep" else []))
            elif path in stream.time:
                value = self.spelt(time, field) if path == stream.time[0] or self.one_in(4) else ...
            elif path in stream.id[:1]:
                value = own_id if field.required or not self.one_in(3) else ...
            else:
                value = self.value(field, stream, time)
            put(body, self.any_path(field), value)
        self.complete(body, stream, time)
        if stream.envelope == "cloudevents":
            body.setdefault("specversion", "1.0")
        key = None if stream.key is None else get(body, stream.key)
        return body, None if key is None else str(key).encode()

    def entity(self, stream: Stream, time: datetime) -> tuple[Any, bytes | None]:
        """A version, perhaps of something deleted, or a message without a body, which deletes."""
        entity = self.rng.choice(self.ids)
        key = self.written_key(entity, stream.key or "id")
        if self.one_in(6):
            return None, key
        row: dict[str, Any] = {}
        value: Any
        for field in stream.fields:
            path = field.in_body
            if path == stream.key:
                value = entity
            elif path in stream.time:
                value = self.spelt(time, field) if path == stream.time[0] or self.one_in(2) else ...
            elif path == stream.created:
                before = self.any_of(0, 1, 86_400, 4000 * 86_400, -1)
                value = self.any_of(self.spelt(time - timedelta(seconds=before), field), ..., None)
            elif path in stream.deleted and not self.one_in(6):
                value = self.any_of(..., None, *(("false",) if field.type == "boolean" else ()))
            else:
                value = self.value(field, stream, time)
            put(row, self.any_path(field), value)
        self.complete(row, stream, time)
        body: Any = row if stream.envelope != "debezium" else self.change(row, time)
        return body, key

    def change(self, row: dict[str, Any], time: datetime) -> dict[str, Any]:
        """Of a row, as Debezium writes it, with and without a schema."""
        is_deletion = self.one_in(5)
        change = {
            "before": row if is_deletion else None,
            "after": None if is_deletion else row,
            "op": "d" if is_deletion else self.any_of("c", "u", "u", "r"),
            "ts_ms": epoch(time) // 1000 + self.any_of(0, 5),
            "source": {"ts_ms": epoch(time) // 1000},
        }
        return {"schema": {"type": "struct"}, "payload": change} if self.one_in(3) else change

    def prefix(self, stream: Stream) -> str:
        return "after." if stream.envelope == "debezium" else ""

    def binary(self, stream: Stream, body: dict[str, Any]) -> tuple[str, Any]:
        """A CloudEvent in binary mode: what is not its data are attributes, as the transport spells them. Without data
        it has no body."""
        prefix = "ce_" if stream.transport == "kafka" else "ce-"
        given = {name: str(value) for name, value in body.items() if name != "data" and value is not None}
        return json.dumps({f"{prefix}{name}": value for name, value in given.items()}), body.get("data")

    def complete(self, body: dict[str, Any], stream: Stream, time: datetime) -> None:
        """Give each group of fields one of which is required a value."""
        for group in stream.one_of:
            if not any(get(body, path) for path in group):
                [field] = [field for field in stream.fields if field.in_body == group[0]]
                put(body, group[0], self.spelt(time, field) if group[0] in stream.time else self.filled(field, time))

    def any_path(self, field: BodyField) -> str:
        return self.rng.choice(field.aliases) if field.aliases and self.one_in(4) else field.in_body

    # --- values

    def value(self, field: BodyField, stream: Stream, time: datetime) -> Any:
        """... where the body leaves it out."""
        if not field.required and self.one_in(6):
            return self.any_of(..., None, "", *stream.nulls, *field.nulls)
        if (known := BY_HAND.get((stream.name, field.name))) is not None:
            return self.rng.choice(known)
        if not field.required and isinstance(stream.event_type, str) and field.in_body.endswith("event_name"):
            return self.any_of(stream.event_type, ...)
        return self.filled(field, time)

    def filled(self, field: BodyField, time: datetime) -> Any:
        if field.values:
            return self.rng.choice(field.values)
        kind = "id" if _is_id(field) else field.type
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
        """Of this world or of all."""
        if self.literals.texts and self.one_in(3):
            return self.rng.choice(self.literals.texts)
        return self.rng.choice([f"Home {self.number}", f"Señal {self.number}", "ES", "US", "lamp", "x"])

    def amount(self) -> Any:
        return self.any_of(0, 1, 9.99, "12.50", 0.0001, -3, "1e3", 99999999)

    def own_id(self) -> str:
        """Of an event: now and then one that another event has."""
        if not self.own_ids or not self.one_in(8):
            self.own_ids += 1
        return f"e{self.number}.{self.own_ids}"

    def spelt(self, time: datetime, field: BodyField | None) -> Any:
        if field is not None and field.format is not None:
            return time.replace(tzinfo=UTC).strftime(field.format)
        if field is not None and field.unit is not None:
            number = epoch(time) // {"seconds": _SECOND, "milliseconds": 1000, "microseconds": 1}[field.unit]
            return self.any_of(number, str(number))
        return self.rng.choice(SPELLINGS)(time)

    def written_key(self, value: str, field: str) -> bytes:
        """As clients write it."""
        name = field.rpartition(".")[2]
        return self.rng.choice([value, value, json.dumps(value), json.dumps({name: value})]).encode()

    # --- chance

    def one_in(self, number: int) -> bool:
        return self.rng.randrange(number) == 0

    def any_of(self, *values: Any) -> Any:
        return self.rng.choice(values)


def epoch(time: datetime) -> int:
    """In microseconds."""
    return (time - datetime(1970, 1, 1)) // timedelta(microseconds=1)  # noqa: DTZ001  times here are UTC without a zone


def _id_names(stream: Stream) -> set[str]:
    """Of its fields that hold ids of what an event or a version is about."""
    return {field.name for field in stream.fields if _is_id(field) and field.in_body not in stream.id[:1]}


def _is_id(field: BodyField) -> bool:
    return field.type == "id" or (field.type == "string" and re.search(r"(^|_)id$", field.name) is not None)


SPELLINGS: tuple[Callable[[datetime], str], ...] = (
    lambda time: time.isoformat(),
    lambda time: time.isoformat(timespec="microseconds") + "Z",
    lambda time: time.isoformat(sep=" ") + " UTC",
    lambda time: (time + timedelta(hours=5, minutes=30)).isoformat() + "+05:30",
)
BY_HAND: Mapping[tuple[str, str], Sequence[Any]] = {
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
"""Values of the stream that is staged by hand, since its contract does not say what its fields hold."""


def put(body: dict[str, Any], path: str, value: Any) -> None:
    """Set what is at a path such as props.ref or items[0].sku; ... removes it."""
    if value is ... and get(body, path) is None:
        return
    *outer, last = _parts(path)
    inside: Any = body
    for part, after in pairwise([*outer, last]):
        inside = _at(inside, part, [] if isinstance(after, int) else {})
        if not isinstance(inside, dict | list):  # another field says that there is a text
            return
    if isinstance(last, int):
        if isinstance(inside, list) and value is not ...:
            _at(inside, last, None)
            inside[last] = value
    elif isinstance(inside, dict):
        if value is ...:
            inside.pop(last, None)
        else:
            inside[last] = value


def get(body: Any, path: str) -> Any:
    """What is at a path, or None."""
    for part in _parts(path):
        try:
            body = body[part]
        except (KeyError, IndexError, TypeError):
            return None
    return body


def _parts(path: str) -> list[str | int]:
    return [int(index) if index else name for name, index in re.findall(r"([^.\[\]]+)(?!\])|\[([0-9]+)\]", path)]


def _at(inside: Any, part: str | int, empty: Any) -> Any:
    """What is there, made if there is nothing yet."""
    if isinstance(part, int) and isinstance(inside, list):
        inside.extend({} if isinstance(empty, dict) else None for _ in range(part + 1 - len(inside)))
        if inside[part] is None and empty is not None:
            inside[part] = empty
        return inside[part]
    if isinstance(part, str) and isinstance(inside, dict):
        return inside.setdefault(part, empty)
    return None


def world_of(value: Any) -> int | None:
    """The world that an id, a date or a time of a row belongs to."""
    if isinstance(value, str):
        found = re.fullmatch(r"w(\d+)\.\d+|[ab](\d+)|e(\d+)\.\d+|\w+ (\d+)", value)
        return int(next(group for group in found.groups() if group)) if found else None
    if isinstance(value, date):
        day = value.date() if isinstance(value, datetime) else value
        days, of_each = (day - _FIRST_DAY).days, _DAYS
        if days < 0:
            days, of_each = (day - _FIRST_OLD_DAY).days + 2, _OLD_DAYS
        return days // of_each if 0 <= days // of_each < MOST_WORLDS else None
    return None
