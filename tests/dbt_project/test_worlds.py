"""Random messages are mostly valid by their contract; some are late, duplicate or malformed."""

import json
import random
import re
from collections import Counter
from datetime import date, timedelta
from typing import Any

import pytest

from common.streams import STREAMS, EventType, Stream
from dbt_project.exactness.literals import Literals, code_of
from dbt_project.exactness.message import Message
from dbt_project.exactness.paths import get, put
from dbt_project.exactness.values import SECOND
from dbt_project.exactness.worlds import _World, draw_world, world_of

RUNS = 4
ORDERS = Stream.model_validate(
    {
        "name": "orders",
        "description": "Orders.",
        "transport": "kafka",
        "key": "who.id",
        "envelope": "cloudevents",
        "kind": "event",
        "id": ["id"],
        "event_type": {"field": "type", "values": {"sale": "purchase"}, "others": "keep"},
        "time": ["time"],
        "fields": [
            {"name": "order_id", "path": "id", "type": "id", "required": True, "description": "Id."},
            {"name": "kind", "path": "type", "required": True, "description": "Kind."},
            {"name": "ordered_at", "path": "time", "type": "timestamp", "required": True, "description": "When."},
            {"name": "user_id", "path": "who.id", "type": "id", "required": True, "description": "Who."},
            {"name": "sku", "path": "data.items[1].sku", "required": True, "description": "What."},
            {"name": "color", "path": "data.color", "values": ["red", "blue"], "required": True, "description": "How."},
            {"name": "paid_at", "path": "data.paid", "type": "timestamp", "unit": "seconds", "description": "Paid."},
        ],
    }
)
CUSTOMERS = Stream.model_validate(
    {
        "name": "customers",
        "description": "Customers.",
        "transport": "kafka",
        "key": "id",
        "envelope": "debezium",
        "kind": "entity",
        "fields": [
            {"name": "customer_id", "path": "id", "type": "id", "required": True, "description": "Id."},
            {"name": "born", "type": "timestamp", "format": "%d.%m.%Y", "description": "Born."},
        ],
    }
)


def drawn(streams: list[Stream], worlds: int = 100, seed: int = 1) -> list[Message]:
    rng = random.Random(seed)
    return [message for number in range(worlds) for message in draw_world(rng, number, streams, RUNS)]


def bodies(messages: list[Message]) -> list[Any]:
    found = []
    for message in messages:
        try:
            found.append(json.loads(message.payload or b"null"))
        except ValueError:
            continue
    return found


def test_a_seed_draws_the_same_worlds() -> None:
    streams = [*STREAMS.values()]
    assert drawn(streams) == drawn(streams) != drawn(streams, seed=2)


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_most_bodies_have_what_the_contract_requires_and_some_are_broken(stream: Stream) -> None:
    messages = drawn([stream])
    with_body = [message for message in messages if message.payload is not None]
    whole = [
        body
        for body in bodies(with_body)
        if isinstance(body, dict) and all(any(get(body, path) for path in group) for group in stream.required)
    ]
    assert 0.7 < len(whole) / len(with_body) < 1
    assert 0 < 1 - len(bodies(with_body)) / len(with_body) < 0.2  # malformed
    tombstones = len(messages) - len(with_body)
    assert (tombstones > len(messages) / 20) == (stream.kind == "entity")


def test_messages_are_late_duplicate_and_out_of_order() -> None:
    messages = drawn([STREAMS["clicks"]])
    assert {message.run for message in messages} == {*range(RUNS)}
    ids = Counter(message.message_id for message in messages)
    assert any(count > 1 for count in ids.values())  # redelivered
    contents = Counter(message.payload for message in {message.message_id: message for message in messages}.values())
    assert any(count > 1 for payload, count in contents.items() if payload and len(payload) > 50)  # sent again
    times: dict[int | None, list[Message]] = {}
    for message in messages:
        if message.published_at:
            times.setdefault(world_of(message.message_id), []).append(message)
    delays = [
        one.published_at - other.published_at
        for world in times.values()
        for one in world
        for other in world
        if one.run < other.run and one.published_at and other.published_at
    ]
    for least, most in ((timedelta(0), timedelta(hours=1)), (timedelta(days=1), timedelta(days=9))):
        assert any(least < delay < most for delay in delays)
    assert any(delay > timedelta(days=3000) for delay in delays)


def test_ids_and_days_belong_to_one_world() -> None:
    for number in range(0, 300, 7):
        for message in draw_world(random.Random(number), number, [STREAMS["clicks"]], RUNS):
            assert world_of(message.message_id) == number
            for body in bodies([message]):
                if (
                    isinstance(body, dict)
                    and isinstance(body.get("user_id"), str)
                    and body["user_id"][:1] in ("a", "b")
                ):
                    assert world_of(body["user_id"]) == number


def test_paths_types_and_envelopes_of_a_contract() -> None:
    orders = drawn([ORDERS])
    structured = [body for body in bodies(orders) if isinstance(body, dict) and "specversion" in body]
    assert {get(body, "data.color") for body in structured} >= {"red", "blue"}
    assert any(isinstance(get(body, "data.items[1].sku"), str) for body in structured)
    assert {"sale", "other"} <= {body.get("type") for body in structured if isinstance(body.get("type"), str)}
    assert any(str(get(body, "data.paid")).isdigit() for body in structured)
    binary = [json.loads(message.attributes) for message in orders if message.attributes]
    assert all(attributes["ce_specversion"] == "1.0" for attributes in binary)
    assert any("ce_time" in attributes for attributes in binary)

    changes = [body.get("payload", body) for body in bodies(drawn([CUSTOMERS])) if isinstance(body, dict)]
    changes = [change for change in changes if isinstance(change, dict)]
    assert {change.get("op") for change in changes} >= {"c", "u", "r", "d"}
    assert any(change.get("op") == "d" and change.get("before") and not change.get("after") for change in changes)
    born = [row["born"] for change in changes if isinstance(row := change.get("after"), dict) and row.get("born")]
    assert any(len(str(text)) == len("01.02.2026") for text in born)


def test_put_sets_and_removes_what_is_at_a_path() -> None:
    body: dict[str, Any] = {}
    put(body, "items[1].sku", 3)
    put(body, "a.b", 4)
    put(body, "x.y", ...)
    assert body == {"items": [{}, {"sku": 3}], "a": {"b": 4}}
    put(body, "a.b", ...)
    put(body, "a.b.c", 5)
    assert get(body, "a.b.c") == 5
    put(body, "a.b.c.d", 6)  # inside a number: another field is there
    assert get(body, "a.b.c") == 5
    assert get(body, "items[7].sku") is None


def test_literals_of_sql_are_drawn() -> None:
    own = """select 'o''team', "column", x2, 17.5, 3 -- 'comment' 99
    from a where at >= timestamp '2024-02-29 10:00:00' and b like '%sale%' and c = '$.path' and d < '9999-12-31'"""
    literals = Literals.of(own, "select 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l'")
    assert {*literals.texts} >= {"o'team", "sale", "a", "l"}
    assert not {"comment", "column", "$.path"} & {*literals.texts}
    assert Counter(literals.texts)["sale"] == 3
    assert {*literals.numbers} == {17.5, 3}
    assert {*literals.days} == {date(2024, 2, 29)}
    assert "current_date" not in code_of("select 'current_date', \"current_date\" -- current_date\n/* current_date */")
    rng = random.Random(1)
    found = [message for number in range(100) for message in draw_world(rng, number, [ORDERS], RUNS, (), literals)]
    text = b"\n".join(message.payload or b"" for message in found).decode(errors="replace")
    assert text.count("sale") > 5
    assert "2024-02-29" in text


@pytest.mark.parametrize(
    ("condition", "seconds"),
    [
        ("b.at <= a.at + interval '24 hours'", 86_400),
        ("b.at <= a.at + interval (24) hour", 86_400),
        ("b.at <= a.at + ((interval '1 minute') * (45))", 2700),
        ("date_diff('second', a.at, b.at) <= 5400", 5400),
    ],
)
def test_some_events_are_as_far_apart_as_the_sql_says(condition: str, seconds: int) -> None:
    literals = Literals.of(f"select a.at from a join b on {condition}", "")
    assert seconds in literals.windows
    assert max(literals.windows) <= 4 * 86_400

    def worlds_with_the_step(literals: Literals) -> int:
        rng = random.Random(1)
        worlds = [_World(rng, number, [ORDERS], RUNS, (), literals) for number in range(300)]
        return sum(seconds * SECOND in world.steps for world in worlds)

    assert worlds_with_the_step(literals) > 30
    assert worlds_with_the_step(Literals()) == 0


def test_types_of_events_that_the_sql_names_are_drawn_more_often() -> None:
    clicks = ORDERS.model_copy(
        update={"event_type": EventType(field="type", values={"open": "view", "sale": "purchase", "close": "leave"})}
    )

    def share(literals: Literals) -> float:
        rng = random.Random(1)
        found = [message for number in range(100) for message in draw_world(rng, number, [clicks], RUNS, (), literals)]
        types = Counter(
            match[1] for message in found for match in re.finditer(rb'"type": "(\w+)"', message.payload or b"")
        )
        return types[b"sale"] / sum(types[name] for name in (b"open", b"sale", b"close"))

    assert share(Literals.of("select 1 where event_type = 'purchase'", "")) > 0.6
    assert share(Literals.of("select 1", "")) < 0.4
