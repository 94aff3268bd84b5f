"""Random small worlds: a few messages about a few people, products, sessions and posts, and when each arrives.

A world is drawn without a place: its ids are `Id`s and its times `At`s. `place` gives it a number: ids that begin with
that number, and days that no other world has. So a thousand worlds share a warehouse and none can hide another's
fault, neither by its rows nor by the days that it makes a build touch.
"""

import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

from tests.dbt_project.exact.warehouse import Arrival
from tests.oracle import Settings

RUNS = 5
COMMITS_PER_RUN = 3
MICROSECOND, SECOND, DAY = 1, 1_000_000, 86_400_000_000
FIRST_DAY = date(2002, 3, 20)  # so that the last world has the autumn of 2026
DAYS_OF_A_WORLD = 9  # four for its distant past, five for the rest
MOST_WORLDS = 1000


@dataclass(frozen=True, slots=True)
class Id:
    """An id of this world's own."""

    name: str
    as_number: bool = False


@dataclass(frozen=True, slots=True)
class At:
    """Microseconds from midnight of the world's day, or of its day in the distant past, and how to write them."""

    offset: int
    is_old: bool = False
    form: str = "T"


@dataclass(frozen=True, slots=True)
class Draft:
    """A message without a place."""

    stream: str
    run: int
    commit: int
    body: dict[str, Any] | bytes | None
    """Values, Ids and Ats; bytes when it is broken; None for a tombstone."""
    published: At | None
    key: Id | bytes | None = None
    redelivers: int | None = None
    """The place of the message in the world that this one is, once more."""


World = tuple[Draft, ...]


# --- placing


def place(worlds: Sequence[World], settings: Settings, seed: int) -> list[list[Arrival]]:
    """Every world under its number, in days of its own."""
    days = days_apart(len(worlds), settings, random.Random(seed))  # noqa: S311
    return [place_one(world, number, *days[number]) for number, world in enumerate(worlds)]


def days_apart(number: int, settings: Settings, rng: random.Random) -> list[tuple[date, date]]:
    """For each world its day, at the end of a month or with a change of the clock if possible, and its distant past."""
    assert number <= MOST_WORLDS
    zone = ZoneInfo(settings.reporting_time_zone)
    slots = [FIRST_DAY + timedelta(days=DAYS_OF_A_WORLD * slot) for slot in range(MOST_WORLDS)]
    rng.shuffle(slots)

    def interest(first_day: date) -> tuple[int, date]:
        inner = [first_day + timedelta(days=shift) for shift in (5, 6)]
        return max((2 * changes_clock(day, zone) + ((day + timedelta(days=1)).day == 1), day) for day in inner)

    chosen = sorted(slots, key=lambda slot: -interest(slot)[0])[: number * 3 // 4]
    chosen += [slot for slot in slots if slot not in chosen][: number - len(chosen)]
    return [(interest(slot)[1], slot + timedelta(days=1)) for slot in chosen]


def changes_clock(day: date, zone: ZoneInfo) -> bool:
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=zone)
    return noon.utcoffset() != (noon - timedelta(days=1)).utcoffset()


def place_one(world: World, number: int, day: date, old_day: date) -> list[Arrival]:
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

    arrivals: list[Arrival] = []
    for index, draft in enumerate(world):
        if draft.redelivers is not None:
            arrivals.append(replace(arrivals[draft.redelivers], run=draft.run, commit=draft.commit))
            continue
        body = draft.body
        arrivals.append(
            Arrival(
                run=draft.run,
                commit=draft.commit,
                stream=draft.stream,
                message_id=f"w{number}.m{index}",
                published_at=time(draft.published) if draft.published else None,
                payload=json.dumps(placed(body)).encode() if isinstance(body, dict) else body,
                key=str(placed(draft.key)).encode() if isinstance(draft.key, Id) else draft.key,
            )
        )
    return arrivals


def numeric_id(value: Id, number: int) -> int:
    return 1_000_000_000 + number * 1000 + sum(value.name.encode()) % 1000


def epoch(time: datetime) -> int:
    """In microseconds."""
    return (time.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


FORMS: dict[str, Callable[[datetime], Any]] = {
    "T": lambda time: time.isoformat(),
    "Z": lambda time: time.isoformat(timespec="microseconds") + "Z",
    "space": lambda time: time.isoformat(sep=" "),
    "UTC": lambda time: time.isoformat(sep=" ") + " UTC",
    "offset": lambda time: (time + timedelta(hours=5, minutes=30)).isoformat() + "+05:30",
    "behind": lambda time: (time - timedelta(hours=8)).isoformat() + "-08:00",
    "ms": lambda time: epoch(time) // 1000,
    "ms_text": lambda time: str(epoch(time) // 1000),
    "us": epoch,
}


TEXT_FORMS = st.sampled_from(["T", "Z", "space", "UTC", "offset", "behind"])


# --- drawing


@st.composite
def worlds(draw: st.DrawFn, settings: Settings) -> World:
    """Two to fifteen messages, most of one kind, so that they meet."""
    kinds = draw(st.sampled_from(THEMES))
    runs = sorted(draw(st.sets(st.integers(0, RUNS - 1), min_size=1)))
    as_numbers = draw(st.booleans())
    offsets = draw(times(settings))
    drafts: list[Draft] = []
    for offset in offsets:
        arrival = {"run": draw(st.sampled_from(runs)), "commit": draw(st.integers(0, COMMITS_PER_RUN - 1))}
        if drafts and draw(one_in(5)):
            index = draw(st.integers(0, len(drafts) - 1))
            drafts.append(draw(copies(drafts[index], index, arrival)))
            continue
        at = At(offset, is_old=draw(one_in(8)))
        stream = draw(st.sampled_from(kinds))
        body, key = draw(BODIES[stream](at, as_numbers))
        published = draw(publications(at))
        if body is None and published is not None:
            published = replace(published, offset=at.offset, is_old=at.is_old)  # a tombstone has no other time
        draft = Draft(stream=stream, body=body, published=published, key=key, **arrival)
        drafts.append(draw(spoilt(draft)) if draw(one_in(8)) else draft)
    return tuple(drafts)


THEMES = (
    ["page_views"],
    ["page_views"],
    ["page_views", "page_views", "users"],
    ["clicks", "checkouts"],
    ["clicks", "checkouts", "users"],
    ["ecom_events"],
    ["post_events", "posts"],
    ["users"],
    ["products", "ecom_events"],
    ["posts"],
    ["web_events"],
    ["web_events", "page_views", "clicks", "checkouts", "ecom_events", "post_events", "users", "products", "posts"],
)


def one_in(number: int) -> st.SearchStrategy[bool]:
    return st.integers(1, number).map(lambda drawn: drawn == number)


@st.composite
def times(draw: st.DrawFn, settings: Settings) -> list[int]:
    """Steps back and forth from a time near midnight: exactly the gap or window, a little less or more, or none."""
    gap, window = settings.session_gap_seconds * SECOND, settings.attribution_window_seconds * SECOND
    edges = [edge + shift for edge in (gap, window) for shift in (-SECOND, -MICROSECOND, 0, MICROSECOND, SECOND)]
    near = st.sampled_from([0, MICROSECOND, SECOND, gap // 2, gap, gap, gap, *edges, 2 * gap])
    steps = st.lists(st.one_of(near, near, near, st.sampled_from([3600 * SECOND, DAY])), min_size=1, max_size=14)
    hour = 3600 * SECOND
    offset = draw(
        st.sampled_from([0, -gap, -MICROSECOND, 5 * hour - gap, 5 * hour, 7 * hour, DAY - gap, DAY, DAY + window])
    )
    offsets = [offset]
    for step in draw(steps):
        offset = offset + (-step if draw(one_in(3)) else step)
        if not -DAY < offset < 2 * DAY:
            offset = 0
        offsets.append(offset)
    return draw(st.permutations(offsets)) if draw(st.booleans()) else offsets


@st.composite
def publications(draw: st.DrawFn, at: At) -> At | None:
    """Mostly at once; up to a day before, exactly a day before or a little more, days late, years late, or unknown."""
    delays = [
        0,
        0,
        SECOND,
        300 * SECOND,
        300 * SECOND + MICROSECOND,
        3600 * SECOND,
        2 * DAY,
        -SECOND,
        -DAY,
        -DAY - MICROSECOND,
    ]
    delay = draw(st.sampled_from(delays))
    if draw(one_in(10)):
        return None
    if at.is_old and draw(st.booleans()):
        return At(0)
    return replace(at, offset=at.offset + delay)


@st.composite
def copies(draw: st.DrawFn, original: Draft, index: int, arrival: dict[str, int]) -> Draft:
    """The same message again; the same body again; or another body under the same id."""
    if draw(st.booleans()):
        return replace(
            original, redelivers=original.redelivers if original.redelivers is not None else index, **arrival
        )
    copy = replace(original, redelivers=None, **arrival)
    if not isinstance(copy.body, dict) or draw(st.booleans()):
        return copy
    changed = dict(copy.body)
    name = draw(st.sampled_from(sorted(changed)))
    if isinstance(changed[name], At):
        shift = draw(st.sampled_from([MICROSECOND, SECOND, 60 * SECOND, -3600 * SECOND, DAY]))
        changed[name] = replace(changed[name], offset=changed[name].offset + shift)
    elif isinstance(changed[name], Id):
        changed[name] = replace(changed[name], name=changed[name].name[0] + "2")
    elif name in ("price", "total_amount"):
        changed[name] = 77.7
    elif name in ("url", "page_title", "user_name", "post_text", "name", "country", "country_code"):
        changed[name] = "changed"
    return replace(copy, body=changed)


BROKEN = st.sampled_from(
    [
        b"",
        b"not json",
        b"null",
        b"17",
        b'"text"',
        b"[1]",
        b'{"a": 1',
        b'{"a": 1} x',
        b"\xff\xfe",
        b"event_time,event_type",
    ]
)
BAD_TIMES = st.sampled_from(
    ["", None, "null", "soon", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "1999-12-31T23:59:59.999999Z",
     "2000-01-01", "2025-02-30T00:00:00Z", "2049-01-01", "10000-01-01"]
)  # fmt: skip
BAD_AMOUNTS = st.sampled_from(["12,50", "free", "NaN", "1e15", "100000000000000", "null", ""])


@st.composite
def spoilt(draw: st.DrawFn, draft: Draft) -> Draft:
    """A message that may have to be rejected: broken, without a field, or with a value that is none."""
    body = draft.body
    if body is None:
        return replace(draft, key=draw(st.sampled_from([None, b"", b"\xff"])))
    if not isinstance(body, dict) or draw(one_in(4)):
        return replace(draft, body=draw(BROKEN))
    changed = dict(body)
    name = draw(st.sampled_from(sorted(changed)))
    if draw(st.booleans()):
        del changed[name]
    elif isinstance(changed[name], At):
        changed[name] = draw(BAD_TIMES)
    elif name in ("price", "total_amount"):
        changed[name] = draw(BAD_AMOUNTS)
    elif name == "event_params":
        bad = draw(
            st.sampled_from([{"test_event": True}, {"test_event": "1"}, {"engaged_time": -1}, {"engaged_time": "x"}])
        )
        changed[name] = bad
    else:
        changed[name] = draw(st.sampled_from([None, "", "null", "unknown"]))
    return replace(draft, body=changed)


# --- bodies: (body, key) of a message at a time

Drawn = tuple[dict[str, Any] | None, Id | None]
AMOUNTS = st.sampled_from([12.5, "31.90", 0, -3, "0.00005", "1.99995", 7, "9999999.99", None, 59.9])


def ids(letter: str, as_number: bool = False) -> st.SearchStrategy[Id]:
    """One of two; the first more often."""
    return st.sampled_from(["1", "1", "2"]).map(lambda number: Id(letter + number, as_number))


def given(names: dict[str, Any]) -> dict[str, Any]:
    """Without the fields that a body leaves out."""
    return {name: value for name, value in names.items() if value is not ...}


@st.composite
def web_event(draw: st.DrawFn, at: At, as_number: bool) -> Drawn:
    body = {
        "timestamp": replace(at, form=draw(TEXT_FORMS)),
        "publisher_id": 1,
        "event": draw(st.sampled_from(["view", "cart", "sale"])),
        "product": draw(ids("p", as_number)),
        "browser": "Firefox",
        "environment": "dev",
        "country": "ES",
        "OS": "Windows",
        "city": draw(st.sampled_from(["Madrid", "", "A Coruña"])),
        "event_id": draw(st.one_of(st.just(...), ids("e"), st.just(""))),
        "user_id": draw(st.one_of(st.just(...), ids("u", as_number))),
        "price": draw(AMOUNTS),
        "actor": {"id": "a", "location": {"x": [1, 2.5]}},
        "location": {},
    }
    return given(body), None


@st.composite
def page_view(draw: st.DrawFn, at: At, as_number: bool) -> Drawn:
    page = draw(st.sampled_from(["Home", "Lamps", "Señales"]))
    engaged = draw(st.sampled_from([..., 5, "30", 0, 1.5]))
    user_id = draw(st.one_of(st.just(...), ids("u", as_number), ids("u", as_number)))
    account = draw(st.sampled_from([..., "A1", "A1", "A2", "A3", ""]))
    event_id = draw(st.one_of(st.just(...), st.just(...), ids("e")))
    spelling = draw(st.sampled_from(["query", "query", "object", "older", "export"]))
    if spelling == "older":
        body = {
            "user_id": draw(ids("u", as_number)),
            "page_id": page,
            "timestamp_ms": replace(at, form=draw(st.sampled_from(["ms", "ms_text"]))),
            "event_params": given({"engaged_time": engaged, "traffic_source": "organic", "test_event": False}),
        }
    elif spelling == "export":
        body = {
            "event_name": "page_view",
            "event_timestamp": replace(at, form="us"),
            "user_pseudo_id": draw(ids("s")),
            "user_id": user_id,
            "event_params": [
                {"key": "ga_session_id", "value": {"int_value": 1738286883}},
                {"key": "page_title", "value": {"string_value": page}},
                {"key": "page_location", "value": {"string_value": "https://shop/" + page}},
                {"key": "engagement_time_msec", "value": {"int_value": "1500"}},
                {"key": "page_title", "value": {"string_value": "a second title"}},
            ],
        }
    else:
        params = given(
            {"engaged_time": engaged, "page_title": page, "traffic_source": "organic", "test_event": "false"}
        )
        typed = [{"key": name, "value": {typed_name(value): value}} for name, value in params.items()]
        body = {
            "session_id": draw(ids("s")),
            "page_title": page,
            "user_id": user_id,
            "user_pseudo_id": draw(st.one_of(st.just(...), ids("x"))),
            "event_name": "page_view",
            "event_timestamp_ms": replace(at, form="ms"),
            "ga_event_dtm": replace(at, form=draw(TEXT_FORMS)),
            "event_params": params if spelling == "object" else typed,
        }
        if draw(one_in(6)):
            del body["ga_event_dtm"]
    return given({"account_number": account, "event_id": event_id, **body}), None


def typed_name(value: Any) -> str:
    return {int: "int_value", float: "double_value"}.get(type(value), "string_value")


@st.composite
def click(draw: st.DrawFn, at: At, as_number: bool) -> Drawn:
    body = {
        "click_id": draw(st.sampled_from(["c1", "c2", "c3", "c4", "c5"]).map(Id)),
        "user_id": draw(ids("u", as_number)),
        "product_id": draw(ids("p", as_number)),
        "product": "lamp",
        "price": draw(AMOUNTS),
        "url": draw(st.sampled_from(["https://shop/a", "https://shop/b", ""])),
        "ip_address": "::1",
        "datetime_occured": replace(at, form=draw(TEXT_FORMS)),
    }
    return body, None


@st.composite
def checkout(draw: st.DrawFn, at: At, as_number: bool) -> Drawn:
    body = {
        "checkout_id": draw(st.sampled_from(["k1", "k2", "k3"]).map(Id)),
        "user_id": draw(ids("u", as_number)),
        "product_id": draw(ids("p", as_number)),
        "payment_method": "VISA",
        "total_amount": draw(AMOUNTS),
        "shipping_address": "somewhere",
        "datetime_occured": replace(at, form=draw(TEXT_FORMS)),
    }
    return body, None


@st.composite
def ecom_event(draw: st.DrawFn, at: At, as_number: bool) -> Drawn:
    body = {
        "event_time": replace(at, form=draw(TEXT_FORMS)),
        "event_type": draw(st.sampled_from(["view", "cart", "purchase", "remove_from_cart"])),
        "product_id": draw(ids("p", as_number)),
        "category_id": "2144415922528452715",
        "category_code": draw(st.one_of(ids("electronics"), st.just("null"), st.just(""))),
        "brand": draw(st.sampled_from(["null", "acme", ""])),
        "price": draw(AMOUNTS),
        "user_id": draw(st.one_of(ids("u", as_number), st.just("null"), st.just(...))),
        "user_session": draw(st.one_of(ids("s"), ids("s"), ids("s"), st.just("null"), st.just(...))),
    }
    return given(body), None


@st.composite
def post_event(draw: st.DrawFn, at: At, as_number: bool) -> Drawn:
    body = {
        "event_id": draw(st.sampled_from(["e1", "e2", "e3", "e4", "e5", "e6"]).map(Id)),
        "user_id": draw(ids("u", as_number)),
        "post_id": draw(ids("t")),
        "created_at": replace(at, form=draw(TEXT_FORMS)),
        "event_type": draw(st.sampled_from(["view", "view", "like"])),
    }
    return body, None


def entity(
    id_field: str, letter: str, values: dict[str, st.SearchStrategy[Any]]
) -> Callable[..., st.SearchStrategy[Drawn]]:
    """A version, deleted or not, or a tombstone. Entities are created before, at or even after their first version."""

    @st.composite
    def version(draw: st.DrawFn, at: At, as_number: bool) -> Drawn:
        entity_id = draw(ids(letter, as_number))
        if draw(one_in(5)):
            return None, entity_id
        created = st.sampled_from([-DAY, -SECOND, 0, SECOND]).map(lambda shift: replace(at, offset=at.offset + shift))
        body = {
            id_field: entity_id,
            **{name: draw(value) for name, value in values.items()},
            "created_at": draw(st.one_of(st.just(At(0, is_old=True)), created, st.sampled_from([..., None, ""]))),
            "updated_at": replace(at, form=draw(TEXT_FORMS)),
            "deleted_at": draw(st.one_of(st.sampled_from([..., None, None, ""]), st.just(at))),
        }
        return given(body), entity_id

    return version


NAMES = st.sampled_from(["Ada", "Bo", "", "Zoë", "null", ...])

BODIES: dict[str, Callable[..., st.SearchStrategy[Drawn]]] = {
    "web_events": web_event,
    "page_views": page_view,
    "clicks": click,
    "checkouts": checkout,
    "ecom_events": ecom_event,
    "post_events": post_event,
    "users": entity(
        "user_id",
        "u",
        {"user_name": NAMES, "first_name": NAMES, "country_code": st.sampled_from(["ES", "US", "XX", None])},
    ),
    "products": entity("product_id", "p", {"name": NAMES, "category": st.just("shoe"), "price": AMOUNTS}),
    "posts": entity("post_id", "t", {"user_id": ids("u"), "post_text": NAMES}),
}


# --- finding a world again


def number_of(value: Any) -> int | None:
    """The world that an id belongs to."""
    if not isinstance(value, str):
        return None
    if found := re.match(r"w(\d+)\.", value):
        return int(found[1])
    return (int(value) - 1_000_000_000) // 1000 if re.fullmatch(r"1\d{9}", value) else None
