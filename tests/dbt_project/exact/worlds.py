"""Random small worlds: a few messages about a few people, products, sessions and posts, and when each arrives.

A world is drawn with placeholders: its ids are `Id`s and its times `At`s. `place` gives it a number, with which its ids
begin, and days that no other world has. So a thousand worlds share a warehouse without hiding each other's failures:
neither their rows nor the days that a build recomputes overlap.
"""

import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from common.streams import STREAMS
from dbt_project.exactness.message import Message
from specification import Settings

RUNS = 5
COMMITS_PER_RUN = 3
MICROSECOND, SECOND, HOUR, DAY = 1, 1_000_000, 3_600_000_000, 86_400_000_000
FIRST_DAY = date(2002, 3, 20)  # so that the last world has the autumn of 2026
DAYS_OF_A_WORLD = 9  # four for its distant past, five for the rest
MAX_WORLDS = 1000


@dataclass(frozen=True, slots=True)
class Id:
    """An id that no other world has."""

    name: str
    as_number: bool = False


@dataclass(frozen=True, slots=True)
class At:
    """A time: microseconds from midnight of the world's day, or of its day long before, and its format."""

    offset: int
    is_old: bool = False
    form: str = "T"


@dataclass(frozen=True, slots=True)
class Key:
    """An id as the key of a message, in one of KEY_FORMS."""

    id: Id
    field: str
    form: str


@dataclass(frozen=True, slots=True)
class Draft:
    """A message with placeholders."""

    stream: str
    run: int
    commit: int
    body: dict[str, Any] | bytes | None
    """Values, Ids and Ats; bytes if it is malformed; None for a tombstone."""
    published: At | None
    key: Key | bytes | None = None
    is_of_log: bool = False
    """Its id ends in /partition/offset, as in Kafka and in the spool."""
    redelivers: int | None = None
    """Index of the message of this world that this one redelivers."""
    recovers: int | None = None
    """Index of the message of this world that this one recovers."""
    patch: str | None = None
    """Name of the patch with which it recovers."""


World = tuple[Draft, ...]


def draw_worlds(number: int, settings: Settings, seed: int) -> list[World]:
    """Draw this many worlds.

    Without hypothesis, which returns to earlier and simpler examples, so that worlds vary less, and which cannot shrink
    one world among many.
    """
    rng = random.Random(seed)
    return [Draw(rng, settings).world() for _ in range(number)]


# --- placing


def place(worlds: Sequence[World], settings: Settings, seed: int) -> list[list[Message]]:
    """Replace the placeholders of each world by its number and its days."""
    days = days_apart(len(worlds), settings, random.Random(seed))
    return [place_one(world, number, *days[number]) for number, world in enumerate(worlds)]


def days_apart(number: int, settings: Settings, rng: random.Random) -> list[tuple[date, date]]:
    """The day of each world, if possible the first of a month or one when clocks change, and its day long before."""
    assert number <= MAX_WORLDS
    zone = ZoneInfo(settings.reporting_time_zone)
    slots = [FIRST_DAY + timedelta(days=DAYS_OF_A_WORLD * slot) for slot in range(MAX_WORLDS)]
    rng.shuffle(slots)

    def interest(first_day: date) -> tuple[int, date]:
        inner = [first_day + timedelta(days=shift) for shift in (5, 6)]
        return max((2 * changes_clock(day, zone) + (day.day == 1), day) for day in inner)

    chosen = sorted(slots, key=lambda slot: -interest(slot)[0])[: number * 3 // 4]
    chosen += [slot for slot in slots if slot not in chosen][: number - len(chosen)]
    return [(interest(slot)[1], slot + timedelta(days=1)) for slot in chosen]


def changes_clock(day: date, zone: ZoneInfo) -> bool:
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=zone)
    return noon.utcoffset() != (noon - timedelta(days=1)).utcoffset()


def place_one(world: World, number: int, day: date, old_day: date) -> list[Message]:
    def time(at: At) -> datetime:
        midnight = datetime.combine(old_day if at.is_old else day, datetime.min.time())
        return midnight + timedelta(microseconds=at.offset)

    def placed(value: Any) -> Any:
        if isinstance(value, Id):
            return numeric_id(value, number) if value.as_number else f"w{number}.{value.name}"
        if isinstance(value, At):
            return FORMS[value.form](time(value))
        if isinstance(value, dict):
            return {name: placed(inner) for name, inner in value.items()}
        return [placed(inner) for inner in value] if isinstance(value, list) else value

    messages: list[Message] = []
    for index, draft in enumerate(world):
        if draft.redelivers is not None:
            messages.append(replace(messages[draft.redelivers], run=draft.run, commit=draft.commit))
            continue
        body, key = draft.body, draft.key
        messages.append(
            Message(
                run=draft.run,
                commit=draft.commit,
                stream=draft.stream,
                message_id=f"w{number}.m{index}",
                published_at=time(draft.published) if draft.published else None,
                payload=json.dumps(placed(body)).encode() if isinstance(body, dict) else body,
                key=KEY_FORMS[key.form](placed(key.id), key.field) if isinstance(key, Key) else key,
                attributes=json.dumps({"a": "b", "recovered_from": {"patch": draft.patch}}) if draft.patch else None,
            )
        )
    return with_originals(world, in_logs(world, messages, number))


def with_originals(world: World, messages: list[Message]) -> list[Message]:
    """Give recovered messages the ids of their originals, to which the landing adds the time."""
    found = list(messages)
    for index, draft in enumerate(world):
        of = draft if draft.redelivers is None else world[draft.redelivers]
        if of.recovers is not None:
            found[index] = replace(messages[index], message_id=f"recover//{found[of.recovers].message_id}")
    return found


def in_logs(world: World, messages: list[Message], number: int) -> list[Message]:
    """Give the messages of logs offsets in the order of their commits, with each key in one partition.

    Offsets go from two digits to three, so that their order as numbers differs from their order as text.
    """
    found = list(messages)
    next_offset: dict[tuple[str, int], int] = {}
    for index in sorted(range(len(world)), key=lambda index: (messages[index].run, messages[index].commit, index)):
        if world[index].is_of_log:
            message = messages[index]
            partition = len(message.key or b"") % 2
            log = message.stream, partition
            offset = next_offset[log] = next_offset.get(log, 96) + 1
            found[index] = replace(message, message_id=f"w{number}.{message.stream}/{partition}/{offset}")
    return found


KEY_FORMS: dict[str, Callable[[Any, str], bytes]] = {
    "bare": lambda id_, field: str(id_).encode(),
    "string": lambda id_, field: json.dumps(str(id_)).encode(),
    "object": lambda id_, field: json.dumps({field: id_}).encode(),
    "connect": lambda id_, field: json.dumps({"schema": {"type": "string"}, "payload": id_}).encode(),
    "connect object": lambda id_, field: json.dumps({"schema": None, "payload": {field: id_}}).encode(),
    "other object": lambda id_, field: json.dumps({"other": id_}).encode(),
    "number": lambda id_, field: (7).to_bytes(8, "big"),
}
"""Formats of keys. The last two have no id that can be read."""


def numeric_id(value: Id, number: int) -> int:
    return 1_000_000_000 + number * 1000 + sum(value.name.encode()) % 1000


def epoch(time: datetime) -> int:
    """Microseconds since 1970."""
    return (time.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


FORMS: dict[str, Callable[[datetime], Any]] = {
    "T": lambda time: time.isoformat(),
    "Z": lambda time: time.isoformat(timespec="microseconds") + "Z",
    "space": lambda time: time.isoformat(sep=" "),
    "UTC": lambda time: time.isoformat(sep=" ") + " UTC",
    "offset": lambda time: (time + timedelta(hours=5, minutes=30)).isoformat() + "+05:30",
    "west": lambda time: (time - timedelta(hours=8)).isoformat() + "-08:00",
    "ms": lambda time: epoch(time) // 1000,
    "ms_text": lambda time: str(epoch(time) // 1000),
    "us": epoch,
}


TEXT_FORMS = ("T", "Z", "space", "UTC", "offset", "west")


# --- drawing


class Draw:
    """Draws one world, with few ids and few time steps, so that messages share sessions, days and entities."""

    def __init__(self, rng: random.Random, settings: Settings) -> None:
        self.rng = rng
        self.gap = settings.session_gap_seconds * SECOND
        self.window = settings.attribution_window_seconds * SECOND
        self.calm = not self.one_in(3)
        """Few messages of one person and one session: only their order of arrival is unusual."""
        self.as_numbers = self.one_in(4)
        self.has_logs = self.one_in(2)
        """Streams of Kafka have offsets, and the broker redelivers nothing."""
        self.key_form = self.any_of("bare", "bare", *KEY_FORMS)
        self.first, self.other = "1", "1" if self.calm else "2"
        self.spelling = rng.choice(["query", "query", "object", "older", "export"])
        self.number = 0
        utc, new_york = [0, 0, DAY], [4 * HOUR, 5 * HOUR, DAY + 4 * HOUR, 7 * HOUR]
        self.midnights = utc if settings.reporting_time_zone == "UTC" else utc + new_york
        """Midnights of UTC and of New York, in summer and in winter, and when its clock changes."""

    def one_in(self, number: int) -> bool:
        return self.rng.randrange(number) == 0

    def rarely(self, number: int) -> bool:
        return self.one_in(4 * number if self.calm else number)

    def any_of(self, *values: Any) -> Any:
        return self.rng.choice(values)

    def id(self, letter: str) -> Id:
        """One of at most two ids of this world, mostly the first."""
        return Id(
            letter + self.any_of(self.first, self.first, self.first, self.other),
            as_number=self.as_numbers and letter in "up",
        )

    def own_id(self, letter: str) -> Id:
        """An id of this message, or rarely that of another one."""
        return Id(f"{letter}{1 if self.rarely(8) else self.number}")

    def amount(self) -> Any:
        return self.any_of(12.5, "31.90", 59.9, 7, 0, -3, "0.00005", "1.99995", "9999999.99", None)

    def name(self) -> Any:
        return self.any_of("Ada", "Bo", "Zoë", "null", "", ...)

    def written(self, at: At) -> At:
        return replace(at, form=self.any_of(*TEXT_FORMS))

    def world(self) -> World:
        """One scene of up to fifteen messages; or two calm ones, the second with other ids and long before."""
        drafts: list[Draft] = []
        if self.calm:
            self.scene(drafts, CALM_THEMES, self.rng.randint(2, 6), is_old=False)
            self.first = self.other = "2"
            self.scene(drafts, CALM_THEMES, self.rng.randint(2, 6), is_old=True)
        else:
            self.scene(drafts, THEMES, self.rng.randint(2, 15), is_old=self.one_in(8))
        return tuple(drafts)

    def scene(self, drafts: list[Draft], themes: Sequence[list[str]], number: int, is_old: bool) -> None:
        """Messages, most of one kind, in one to five runs and any order."""
        kinds = self.rng.choice(themes)
        times = self.times(number, kinds, is_old)
        # Clicks of one day with checkouts on the next: a late click then changes a checkout of another day.
        over_midnight = self.calm and kinds == ["clicks", "checkouts"] and self.one_in(2)
        # Page views that land after those of the next day: their session then starts a day earlier.
        backwards = self.calm and kinds == ["page_views"] and self.one_in(2)
        for at, run in zip(times, self.runs(times, backwards=backwards), strict=True):
            self.number += 1
            arrival = {"run": run, "commit": self.rng.randrange(COMMITS_PER_RUN)}
            if drafts and self.rarely(6):
                drafts.append(self.copy(drafts, arrival))
            else:
                kind = self.rng.choice(kinds)
                if over_midnight:
                    kind = "clicks" if at.offset % DAY > DAY // 2 else "checkouts"
                draft = self.message(kind, at, arrival)
                if not self.rarely(12):
                    drafts.append(draft)
                    continue
                drafts.append(self.spoilt(draft))
                if self.one_in(2):
                    drafts.append(self.recovery(draft, len(drafts) - 1))

    def runs(self, times: list[At], *, backwards: bool) -> list[int]:
        """The run of each message: one per day, one per period, or any. With `backwards`, the last day comes first."""
        runs = self.rng.sample(range(RUNS), 2 if self.calm else self.any_of(1, 2, 2, 3, 3, 4, 5))
        if backwards:
            last_day = max(at.offset // DAY for at in times)
            return [min(runs) if at.offset // DAY == last_day else max(runs) for at in times]
        together = self.any_of("days", "days", "stretches", "stretches", "none")
        if together == "days":
            return [runs[at.offset // DAY % len(runs)] for at in times]
        if together == "stretches":
            splits = [self.rng.randint(1, len(times) - 1) for _ in range(self.any_of(1, 2, 2))]
            return [runs[sum(place >= split for split in splits) % len(runs)] for place in range(len(times))]
        return [self.rng.choice(runs) for _ in times]

    def times(self, number: int, kinds: list[str], is_old: bool) -> list[At]:
        """Times around midnight, apart by exactly the gap or window, a little less or more, or nothing."""
        limit = self.gap
        if "checkouts" in kinds:
            limit = self.any_of(self.window, self.window // 2, self.window // 4)
        near = [
            0,
            MICROSECOND,
            limit // 4,
            limit // 2,
            limit // 2,
            limit,
            limit,
            limit - MICROSECOND,
            limit + MICROSECOND,
        ]
        far = [SECOND, limit - SECOND, limit + SECOND, 2 * limit, HOUR, DAY]
        start = self.rng.choice(self.midnights) - self.rng.randint(0, number) * limit // 2
        offset = start
        found = []
        for _ in range(number):
            found.append(At(offset, is_old=is_old != self.rarely(16)))
            step = self.rng.choice(far if self.rarely(6) else near)
            offset += -step if self.rarely(4) else step
            if not -DAY < offset < 2 * DAY:
                offset = start
        return found

    def message(self, stream: str, at: At, arrival: dict[str, int]) -> Draft:
        body, id_ = BODIES[stream](self, at)
        published = at if body is None and self.one_in(2) else self.publication(at)
        is_of_log = self.has_logs and stream in KAFKA_STREAMS
        key = None if id_ is None else Key(self.key_of(id_), f"{stream[:-1]}_id", self.key_form)
        return Draft(stream=stream, body=body, published=published, key=key, is_of_log=is_of_log, **arrival)

    def key_of(self, id_: Id) -> Id:
        """The id in the key; rarely another one than in the body."""
        return replace(id_, name=id_.name[0] + "2") if self.rarely(12) else id_

    def publication(self, at: At) -> At | None:
        """Mostly soon; or hours, days or years late, up to or more than a day before the event, or unknown."""
        soon = [0, 0, SECOND, 2 * SECOND, 300 * SECOND]
        other = [300 * SECOND + MICROSECOND, HOUR, 2 * DAY, -SECOND, -DAY, -DAY - MICROSECOND]
        if self.rarely(20):
            return None
        if at.is_old and self.one_in(2):
            return At(3 * DAY)
        return replace(at, offset=at.offset + self.rng.choice(other if self.rarely(4) else soon))

    def copy(self, drafts: list[Draft], arrival: dict[str, int]) -> Draft:
        """A redelivered message, the same body in another message, or another body with the same id."""
        place = self.rng.randrange(len(drafts))
        original = drafts[place]
        if self.one_in(3) and not original.is_of_log:
            known = place if original.redelivers is None else original.redelivers
            return replace(original, redelivers=known, **arrival)
        copy = replace(original, redelivers=None, recovers=None, patch=None, **arrival)
        if not isinstance(copy.body, dict) or self.one_in(3):
            return copy
        name = self.rng.choice(sorted(copy.body))
        value = copy.body[name]
        if isinstance(value, At):
            shift = self.any_of(MICROSECOND, SECOND, self.gap, -HOUR, DAY)
            value = replace(value, offset=value.offset + shift)
        elif isinstance(value, Id):
            value = replace(value, name=value.name[0] + "2")
        elif name in ("price", "total_amount"):
            value = 77.7
        elif name in ("url", "page_title", "user_name", "post_text", "name", "country", "country_code"):
            value = "changed"
        return replace(copy, body={**copy.body, name: value})

    def spoilt(self, draft: Draft) -> Draft:
        """A message that may have to be rejected: malformed, without a field, or with an invalid value."""
        body = draft.body
        if body is None:
            return replace(draft, key=self.any_of(None, b"", b"\xff", b"undefined", b"{", b"1\n2"))
        if not isinstance(body, dict) or self.one_in(4):
            return replace(draft, body=self.rng.choice(BROKEN))
        changed = dict(body)
        name = self.rng.choice(sorted(changed))
        if self.one_in(3):
            del changed[name]
        elif isinstance(changed[name], At):
            changed[name] = self.rng.choice(BAD_TIMES)
        elif name in ("price", "total_amount"):
            changed[name] = self.rng.choice(BAD_AMOUNTS)
        elif name == "event_params":
            changed[name] = self.rng.choice(BAD_PARAMS)
        else:
            changed[name] = self.any_of(*NO_VALUES, "unknown", "x" * (65_536 + self.one_in(2)))
        return replace(draft, body=changed)

    def recovery(self, sound: Draft, place: int) -> Draft:
        """A message that was spoilt, landed again later: sound now, or rarely as it was but for another commit."""
        run = self.rng.randint(sound.run, RUNS - 1)
        again = self.spoilt(sound) if self.rarely(6) else sound
        patch = self.any_of(None, "fix.sql 0123456789ab")
        commit = self.rng.randrange(COMMITS_PER_RUN)
        return replace(again, run=run, commit=commit, is_of_log=False, recovers=place, patch=patch)

    def page_spelling(self) -> str:
        return self.spelling if not self.rarely(6) else self.any_of("query", "object", "older", "export")


NO_VALUES = (None, "", " ", "null", "undefined", "NaN", "None", " (not set)\t")
KAFKA_STREAMS = [stream.name for stream in STREAMS.values() if stream.transport == "kafka"]
THEMES = (
    ["page_views"],
    ["page_views", "page_views", "post_events", "users"],
    ["clicks", "checkouts"],
    ["clicks", "checkouts", "users"],
    ["ecom_events", "ecom_events", "products"],
    ["post_events", "post_events", "posts"],
    ["users"],
    ["products"],
    ["posts"],
    ["web_events", "web_events", "products"],
    ["web_events", "page_views", "clicks", "checkouts", "ecom_events", "post_events", "users", "products", "posts"],
)
CALM_THEMES = (
    *(["page_views"],) * 8,
    *(["clicks", "checkouts"],) * 8,
    *(["ecom_events"],) * 2,
    ["clicks", "checkouts", "users"],
    ["users"],
    ["products", "web_events"],
    ["posts"],
    ["post_events"],
    ["web_events"],
)
BROKEN = (
    b"", b"not json", b"null", b"17", b'"text"', b"[1]", b'{"a": 1', b'{"a": 1} x', b"\xff\xfe", b"event_time,brand"
)  # fmt: skip
BAD_TIMES = (
    "", None, "null", "soon", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "1999-12-31T23:59:59.999999Z",
    "2000-01-01", "2025-02-30T00:00:00Z", "2049-01-01", "10000-01-01", "infinity",
)  # fmt: skip
BAD_AMOUNTS = ("12,50", "free", "NaN", "1e15", "100000000000000", "null", "")
BAD_PARAMS = (
    {"test_event": True}, {"test_event": "1"}, {"engaged_time": -1}, {"engaged_time": "x"},
    [{"key": "test_event", "value": {"string_value": "true"}}],
)  # fmt: skip


# --- bodies: (body, key) of a message at a time

Drawn = tuple[dict[str, Any] | None, Id | None]


def given(names: dict[str, Any]) -> dict[str, Any]:
    """Remove the fields whose value is `...`."""
    return {name: value for name, value in names.items() if value is not ...}


def web_event(draw: Draw, at: At) -> Drawn:
    body = {
        "timestamp": draw.written(at),
        "publisher_id": 1,
        "event": draw.any_of("view", "cart", "sale"),
        "product": draw.id("p"),
        "browser": "Firefox",
        "environment": "dev",
        "country": "ES",
        "OS": "Windows",
        "city": draw.any_of("Madrid", "", "A Coruña"),
        "event_id": draw.any_of(..., ..., draw.own_id("e"), ""),
        "user_id": draw.any_of(..., draw.id("u")),
        "price": draw.amount(),
        "actor": {"id": draw.any_of("a", "b"), "location": {"x": [1, 2.5]}},
        "location": {},
    }
    return given(body), None


def page_view(draw: Draw, at: At) -> Drawn:
    page = draw.any_of("Home", "Lamps", "Señales")
    engaged = draw.any_of(..., 5, "30", 0, 1.5)
    user_id = ... if draw.rarely(4) else draw.id("u")
    spelling = draw.page_spelling()
    body: dict[str, Any] = {
        "account_number": draw.any_of(..., "A1", "A1", "A1", "A2", "A3", ""),
        "event_id": draw.own_id("e") if draw.one_in(3) else ...,
    }
    if spelling == "older":
        body |= {
            "user_id": draw.id("u"),
            "page_id": page,
            "timestamp_ms": replace(at, form=draw.any_of("ms", "ms_text")),
            "event_params": given({"engaged_time": engaged, "traffic_source": "organic", "test_event": False}),
        }
    elif spelling == "export":
        body |= {
            "event_name": "page_view",
            "event_timestamp": replace(at, form="us"),
            "user_pseudo_id": draw.id("s"),
            "user_id": user_id,
            "batch_event_index": draw.any_of(..., ..., 1, "1", 2),
            "event_params": [
                {"key": "ga_session_id", "value": {"int_value": 1738286883}},
                {"key": "page_title", "value": {"string_value": page}},
                {"key": "page_location", "value": {"string_value": "https://shop/" + draw.any_of(page, page, "?a")}},
                {"key": "engagement_time_msec", "value": {"int_value": "1500"}},
                {"key": "page_title", "value": {"string_value": "a second title"}},
            ],
        }
    else:
        params = given({"engaged_time": engaged, "page_title": page, "traffic_source": "ads", "test_event": "false"})
        typed = [{"key": name, "value": {typed_name(value): value}} for name, value in params.items()]
        body |= {
            "session_id": draw.id("s"),
            "page_title": page,
            "user_id": user_id,
            "user_pseudo_id": draw.any_of(..., draw.id("x")),
            "event_name": "page_view",
            "event_timestamp_ms": replace(at, form="ms"),
            "ga_event_dtm": ... if draw.one_in(8) else draw.written(at),
            "event_params": params if spelling == "object" else typed,
        }
    return given(body), None


def typed_name(value: Any) -> str:
    return {int: "int_value", float: "double_value"}.get(type(value), "string_value")


def click(draw: Draw, at: At) -> Drawn:
    body = {
        "click_id": draw.own_id("c"),
        "user_id": draw.id("u"),
        "product_id": draw.id("p"),
        "product": "lamp",
        "price": draw.amount(),
        "url": draw.any_of("https://shop/a", "https://shop/b", ""),
        "ip_address": "::1",
        "datetime_occured": draw.written(at),
    }
    return body, None


def checkout(draw: Draw, at: At) -> Drawn:
    body = {
        "checkout_id": draw.own_id("k"),
        "user_id": draw.id("u"),
        "product_id": draw.id("p"),
        "payment_method": "VISA",
        "total_amount": draw.amount(),
        "shipping_address": "somewhere",
        "datetime_occured": draw.written(at),
    }
    return body, None


def ecom_event(draw: Draw, at: At) -> Drawn:
    body = {
        "event_time": draw.written(at),
        "event_type": draw.any_of("view", "view", "cart", "purchase", "remove_from_cart"),
        "product_id": draw.id("p"),
        "category_id": "2144415922528452715",
        "category_code": draw.any_of(draw.id("electronics"), draw.id("Electronics"), "null", ""),
        "brand": draw.any_of("null", "acme", ""),
        "price": draw.amount(),
        "user_id": draw.any_of(draw.id("u"), draw.id("u"), "null", ...),
        "user_session": draw.any_of("null", ...) if draw.rarely(4) else draw.id("s"),
    }
    return given(body), None


def post_event(draw: Draw, at: At) -> Drawn:
    body = {
        "event_id": draw.own_id("e"),
        "user_id": draw.id("u"),
        "post_id": draw.id("t"),
        "created_at": draw.written(at),
        "event_type": draw.any_of("view", "view", "like"),
    }
    return body, None


def user(draw: Draw, at: At) -> Drawn:
    names = {"user_name": draw.name(), "first_name": draw.name(), "last_name": "Ito", "favorite_color": "blue"}
    return version(draw, at, "user_id", {**names, "country_code": draw.any_of("ES", "US", "XX", None)})


def product(draw: Draw, at: At) -> Drawn:
    texts = {"name": draw.name(), "category_code": draw.id("electronics"), "category": "shoe", "brand": "acme"}
    return version(draw, at, "product_id", {**texts, "model": "M", "price": draw.amount()})


def post(draw: Draw, at: At) -> Drawn:
    return version(draw, at, "post_id", {"user_id": draw.id("u"), "post_text": draw.name()})


def version(draw: Draw, at: At, id_name: str, values: dict[str, Any]) -> Drawn:
    """An entity, deleted or not, created before, at or after the time of this version; or its tombstone."""
    entity_id = draw.id({"user_id": "u", "product_id": "p", "post_id": "t"}[id_name])
    if draw.one_in(6):
        return None, entity_id
    created = [replace(at, offset=at.offset + shift) for shift in (-DAY, -SECOND, 0, SECOND)]
    body = {
        id_name: entity_id,
        **values,
        "created_at": draw.any_of(*created, At(0, is_old=True), ..., None, ""),
        "updated_at": draw.written(at),
        "deleted_at": draw.any_of(at, ..., None, None, None, ""),
        "__deleted": draw.any_of(*[...] * 9, "true", "false", True),
    }
    return given(body), entity_id


BODIES: dict[str, Callable[[Draw, At], Drawn]] = {
    "web_events": web_event,
    "page_views": page_view,
    "clicks": click,
    "checkouts": checkout,
    "ecom_events": ecom_event,
    "post_events": post_event,
    "users": user,
    "products": product,
    "posts": post,
}


# --- finding a world again


def number_of(value: Any) -> int | None:
    """The number of the world to which an id belongs."""
    if not isinstance(value, str):
        return None
    if found := re.match(r"(?:recover/[^/]*/)*w(\d+)\.", value):
        return int(found[1])
    return (int(value) - 1_000_000_000) // 1000 if re.fullmatch(r"1\d{9}", value) else None
