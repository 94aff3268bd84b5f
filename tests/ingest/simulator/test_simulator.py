"""The simulator: deterministic, resumable, with streams that join, and with exactly the requested faults."""

import base64
import itertools
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import orjson
import pytest

from common.errors import UserError
from common.settings import Settings
from common.streams import STREAMS
from ingest.producers.spool import SpoolProducer
from ingest.simulator import Faults, simulate, simulated_days
from ingest.simulator.events import WEEKDAY
from ingest.simulator.faults import CARRIED_DAYS, REQUIRED
from ingest.simulator.returns import RETURN_DAYS
from ingest.simulator.vocabulary import LOCALES
from tests.ingest.simulator.collector import CLEAN, DAY, EVENT_STREAMS, EVENTS, FIRST, START, Collector, at, run

PROJECT = Path(__file__).parents[3]


def clicks_of_the_first_day(shop: Collector) -> list[str]:
    return sorted(body["click_id"] for body in shop.bodies("clicks") if at(body["datetime_occured"]) < FIRST + DAY)


class Undelivered(Collector):
    """A broker that accepts messages and loses them."""

    def flush(self) -> None:
        raise UserError("not delivered")


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Collector:
    return run(tmp_path_factory.mktemp("clean"), days=2)


def spooled(folder: Path) -> dict[str, bytes]:
    """Return the bytes of each log, without its random id."""
    return {
        str(path.relative_to(folder)): re.sub(rb'^\{"log_id":"\w+",', b"{", path.read_bytes())
        for path in sorted(folder.rglob("*.ndjson"))
    }


def into_spool(folder: Path, **changes: Any) -> dict[str, bytes]:
    run(folder, SpoolProducer(Settings(spool_path=folder)), **changes)
    return spooled(folder)


# -- determinism and resuming -----------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    first = into_spool(tmp_path / "a", faults=Faults())
    assert first == into_spool(tmp_path / "b", faults=Faults())
    other = into_spool(tmp_path / "c", faults=Faults(), seed=8)
    assert all(first[name] != other[name] for name in first)
    assert set(first) == {f"{name}/0.ndjson" for name in STREAMS}


def test_a_day_counts_as_published_only_once_it_is_delivered(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not delivered"):
        run(tmp_path, Undelivered(), days=2)
    assert simulated_days(Settings(spool_path=tmp_path)) == 0
    assert run(tmp_path).messages == run(tmp_path / "other").messages


def test_another_process_gives_the_same_bytes(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from ingest.producers.spool import SpoolProducer
from common.settings import Settings
from ingest.simulator import simulate
settings = Settings(spool_path=Path(sys.argv[1]))
simulate(settings, SpoolProducer(settings), days=1, seed=7, events_per_day=1000)
"""
    spools = []
    for hash_seed in ("1", "2"):  # it determines the order of sets
        folder = tmp_path / hash_seed
        environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(PROJECT)}
        subprocess.run([sys.executable, "-c", script, str(folder)], env=environment, check=True)
        spools.append(spooled(folder))
    assert len(spools[0]) == len(STREAMS)
    assert spools[0] == spools[1]


def test_runs_of_one_day_equal_one_run(tmp_path: Path) -> None:
    faults = Faults(late=0.3)
    whole = into_spool(tmp_path / "whole", days=7, events_per_day=300, faults=faults)
    for _ in range(7):
        parts = into_spool(tmp_path / "parts", days=1, events_per_day=300, faults=faults)
    assert parts == whole


def test_returns_of_earlier_days_are_the_same_in_runs_of_one_day(tmp_path: Path) -> None:
    days = RETURN_DAYS + CARRIED_DAYS
    whole = run(tmp_path / "whole", days=days)
    parts = Collector()
    for _ in range(days):
        run(tmp_path / "parts", parts)
    assert parts.messages["ecom_events"] == whole.messages["ecom_events"]
    returns = [body for body in whole.bodies("ecom_events") if float(body["price"]) < 0]
    assert len(returns) > days


def test_late_messages_are_as_drawn_on_the_day_of_their_events(clean: Collector, tmp_path: Path) -> None:
    shop = run(tmp_path, days=1, faults=replace(CLEAN, late=1.0))
    run(tmp_path, shop, days=CARRIED_DAYS, events_per_day=100, faults=CLEAN)
    assert clicks_of_the_first_day(shop) == clicks_of_the_first_day(clean)


def test_a_killed_run_publishes_its_day_again(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", days=2, faults=Faults())
    broken = run(tmp_path / "broken", days=1, faults=Faults())
    broken.dies_after = sum(map(len, broken.messages.values())) + 900
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", broken, faults=Faults())
    second_try = run(tmp_path / "broken", faults=Faults())
    for name in STREAMS:
        day_one = [message for message in whole.messages[name] if (message.published_at or 0) >= FIRST + DAY]
        assert second_try.messages[name] == day_one
        torn = broken.messages[name]
        assert torn == whole.messages[name][: len(torn)]


def test_the_report_and_progress_count_what_was_published(tmp_path: Path) -> None:
    progress: list[tuple[int, int]] = []
    settings, producer = Settings(spool_path=tmp_path), Collector()
    assert simulated_days(settings) == 0
    run(tmp_path, days=1)
    assert simulated_days(settings) == 1
    report = simulate(
        settings,
        producer,
        days=2,
        seed=7,
        events_per_day=EVENTS,
        start=START,
        faults=CLEAN,
        on_progress=lambda *values: progress.append(values),
    )
    assert (report.first_day, report.last_day) == (date(2026, 1, 2), date(2026, 1, 3))
    assert report.messages == {name: len(messages) for name, messages in producer.messages.items()}
    assert [day for day, _ in progress] == [1, 2]
    assert progress[-1][1] == report.total > progress[0][1] > 0


@pytest.mark.parametrize("changes", [{"seed": 8}, {"start": date(2026, 1, 2)}])
def test_another_seed_or_start_in_the_same_spool_is_rejected(tmp_path: Path, changes: dict[str, Any]) -> None:
    run(tmp_path)
    with pytest.raises(UserError, match="SPOOL_PATH") as raised:
        run(tmp_path, **changes)
    assert "\n" not in str(raised.value)


def test_a_spool_of_an_earlier_version_of_the_simulator_is_rejected(tmp_path: Path) -> None:
    run(tmp_path)
    state_path = tmp_path / "simulator.json"
    state = orjson.loads(state_path.read_bytes())
    for other in ({**state, "world": state["world"] - 1}, {name: state[name] for name in state if name != "world"}):
        state_path.write_bytes(orjson.dumps(other))
        with pytest.raises(UserError, match=r"earlier version.*SPOOL_PATH") as raised:
            run(tmp_path)
        assert "\n" not in str(raised.value)


def test_an_unreadable_state_is_reported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "simulator.json").write_text('{"seed": 7, "start"')
    with pytest.raises(UserError, match=r"simulator\.json cannot be read"):
        run(tmp_path)


@pytest.mark.parametrize("changes", [{"days": 0}, {"events_per_day": 0}, {"seed": -1}, {"days": 10**7}])
def test_values_out_of_range_are_rejected(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        run(tmp_path, **changes)


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_fault_rates_outside_0_to_1_are_rejected(rate: float) -> None:
    with pytest.raises(UserError, match="late"):
        Faults(late=rate)


# -- one shop ---------------------------------------------------------------------------------------------------------


def test_a_day_has_the_events_that_were_asked_for(clean: Collector) -> None:
    days = [0, 0]
    for name in EVENT_STREAMS:
        for message in clean.messages[name]:
            days[((message.published_at or 0) - FIRST) // DAY] += 1
    # some visits end after midnight, so the first day has too few events, and the last day is not complete
    asked = EVENTS * WEEKDAY
    assert 0.97 * asked <= days[0] <= asked
    assert 0.98 * asked <= days[1] <= 1.02 * asked
    assert {name: len(clean.messages[name]) > 0 for name in STREAMS} == dict.fromkeys(STREAMS, True)


def test_ids_join_across_streams(clean: Collector) -> None:
    users = {body["user_id"] for body in clean.bodies("users")}
    products = {body["product_id"] for body in clean.bodies("products")}
    posts = {body["post_id"] for body in clean.bodies("posts")}
    for name in EVENT_STREAMS:
        known = {str(body["user_id"]) for body in clean.bodies(name) if body.get("user_id") is not None}
        assert len(known) > 5
        assert known <= users, name
    for name, id_field in [("web_events", "product"), *((n, "product_id") for n in ("clicks", "checkouts"))]:
        assert {str(body[id_field]) for body in clean.bodies(name)} <= products, name
    assert {body["product_id"] for body in clean.bodies("ecom_events")} <= products
    assert {body["post_id"] for body in clean.bodies("post_events")} <= posts
    assert {body["user_id"] for body in clean.bodies("posts")} <= users
    assert {body["country_code"] for body in clean.bodies("users")} <= set(LOCALES)


def test_entities_are_created_changed_and_deleted_both_ways(tmp_path: Path) -> None:
    shop = run(tmp_path, days=6, events_per_day=20_000)
    for name, stream in [(name, STREAMS[name]) for name in ("users", "products", "posts")]:
        messages, bodies = shop.messages[name], shop.bodies(name)
        assert any(message.payload is None for message in messages), name
        assert any(body["deleted_at"] for body in bodies), name
        assert len({body["updated_at"] for body in bodies if body["updated_at"] != body["created_at"]}) > 5, name
        assert max(at(body["created_at"]) for body in bodies) > FIRST + DAY, name
        for message in messages:
            if message.payload is not None:
                assert message.key == orjson.loads(message.payload)[stream.key].encode()
        versions = Counter((body[str(stream.key)], body["updated_at"]) for body in bodies)
        assert max(versions.values()) == 1


def test_users_have_no_events_before_creation_or_after_deletion(tmp_path: Path) -> None:
    shop = run(tmp_path, days=6, events_per_day=5_000)
    created = {body["user_id"]: at(body["created_at"]) for body in shop.bodies("users")}
    deleted = {body["user_id"]: at(body["deleted_at"]) for body in shop.bodies("users") if body["deleted_at"]}
    assert deleted
    for body in shop.bodies("ecom_events"):
        if body["user_id"] is None:
            continue
        began = at(body["event_time"])
        assert created[body["user_id"]] <= began
        # a visit that began the evening before may end after the deletion, by hours at most
        assert began < deleted.get(body["user_id"], began + 1) + DAY // 4


def test_a_visit_is_one_person_with_pages_seconds_to_minutes_apart(clean: Collector) -> None:
    sessions: dict[str, list[dict[str, Any]]] = {}
    for body in clean.bodies("page_views"):
        if "session_id" in body:
            sessions.setdefault(body["session_id"], []).append(body)
    assert all(len({body["user_pseudo_id"] for body in views}) == 1 for views in sessions.values())
    gaps = []
    for views in sessions.values():
        times = sorted(body["event_timestamp_ms"] for body in views)
        gaps += [later - earlier for earlier, later in itertools.pairwise(times)]
    assert min(gaps) >= 2_000  # two page views never share a second, since the second identifies them
    split = sum(gap > 60_000 for gap in gaps) / len(gaps)
    assert 0.03 < split < 0.3
    store = [(body["user_session"], body["user_id"]) for body in clean.bodies("ecom_events") if body["user_id"]]
    assert len({session for session, _ in store}) == len(set(store))


def test_checkouts_follow_clicks_in_time_late_or_never(clean: Collector) -> None:
    clicks: dict[tuple[str, str], list[int]] = {}
    for body in clean.bodies("clicks"):
        pair = (str(body["user_id"]), str(body["product_id"]))
        clicks.setdefault(pair, []).append(at(body["datetime_occured"]))
    within = beyond = never = 0
    for body in clean.bodies("checkouts"):
        happened = at(body["datetime_occured"])
        before = [t for t in clicks.get((str(body["user_id"]), str(body["product_id"])), []) if t <= happened]
        if not before:
            never += 1
        elif happened - max(before) <= 3_600_000_000:
            within += 1
        else:
            beyond += 1
    assert within > beyond > 0
    assert never > 0


def test_visits_depend_on_the_hour(clean: Collector) -> None:
    hours = Counter(at(body["event_time"]) % DAY // 3_600_000_000 for body in clean.bodies("ecom_events"))
    assert sum(hours[hour] for hour in (18, 19, 20)) > 4 * sum(hours[hour] for hour in (2, 3, 4))


# -- bodies -----------------------------------------------------------------------------------------------------------

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-a[0-9a-f]{3}-[0-9a-f]{12}")
PAGE_VIEW = {
    "session_id", "page_title", "subscriber_number", "subscriber_lifetime_id", "account_number", "digital_id",
    "single_id", "user_id", "user_pseudo_id", "event_date", "event_timestamp_ms", "ga_event_dtm", "event_name",
    "event_params",
}  # fmt: skip
ACTION = {"user_id", "product_id", "user_agent", "ip_address", "datetime_occured"}
FIELDS = {
    "clicks": ACTION | {"click_id", "product", "price", "url"},
    "checkouts": ACTION | {"checkout_id", "payment_method", "total_amount", "shipping_address", "billing_address"},
    "ecom_events": {
        "event_time", "event_type", "product_id", "category_id", "category_code", "brand", "price", "user_id",
        "user_session",
    },
    "post_events": {"event_id", "user_id", "post_id", "created_at", "event_type"},
    "users": {
        "user_id", "user_name", "first_name", "last_name", "country_code", "favorite_color", "created_at",
        "updated_at", "deleted_at",
    },
    "products": {
        "product_id", "name", "category_code", "category", "model", "brand", "price", "created_at", "updated_at",
        "deleted_at",
    },
    "posts": {"post_id", "user_id", "post_text", "created_at", "updated_at", "deleted_at"},
}  # fmt: skip


@pytest.mark.parametrize("name", FIELDS)
def test_bodies_have_the_fields_of_the_contract(clean: Collector, name: str) -> None:
    assert {frozenset(body) for body in clean.bodies(name)} == {frozenset(FIELDS[name])}


@pytest.mark.parametrize("name", STREAMS)
def test_a_clean_stream_has_every_required_field(clean: Collector, name: str) -> None:
    bodies = clean.bodies(name)
    assert bodies
    for body in bodies:
        for spellings in REQUIRED[name]:
            assert any(body.get(spelling) not in (None, "") for spelling in spellings)
    key_field = STREAMS[name].key
    for message in clean.messages[name]:
        if message.payload is None:
            assert message.key
            continue
        value = None if key_field is None else orjson.loads(message.payload)[key_field]
        # store events of people who are not signed in have no user_id, and so no key
        assert value is not None or key_field is None or name == "ecom_events"
        assert message.key == (None if value is None else value.encode())


def test_without_faults_no_event_occurs_twice(clean: Collector) -> None:
    identities = {
        "clicks": lambda body: body["click_id"],
        "checkouts": lambda body: body["checkout_id"],
        "post_events": lambda body: body["event_id"],
        "ecom_events": lambda body: tuple(body.values()),
        "web_events": lambda body: body.get("event_id") or body["timestamp"],
        "page_views": lambda body: (
            body.get("session_id") or body.get("event_id") or body["event_timestamp"],
            body.get("ga_event_dtm"),
            body.get("page_title"),
        ),
    }
    for name, identity in identities.items():
        assert max(Counter(map(identity, clean.bodies(name))).values()) == 1, name


def test_store_events_are_text_with_a_funnel(clean: Collector) -> None:
    bodies = clean.bodies("ecom_events")
    assert {type(value) for body in bodies for field, value in body.items() if field != "user_id"} == {str}
    assert all(re.fullmatch(r"2026-01-0\d \d\d:\d\d:\d\d UTC", body["event_time"]) for body in bodies)
    counts = Counter(body["event_type"] for body in bodies)
    assert set(counts) == {"view", "cart", "purchase", "remove_from_cart"}
    assert counts["view"] > counts["cart"] > counts["purchase"] > counts["remove_from_cart"]
    carts = Counter((body["user_session"], body["product_id"]) for body in bodies if body["event_type"] == "cart")
    assert max(carts.values()) == 1
    assert not {"null", ""} & {value for body in bodies for value in body.values()}


def test_web_events_are_large_and_nested(clean: Collector) -> None:
    sizes = [len(message.payload or b"") for message in clean.messages["web_events"]]
    assert min(sizes) > 4_500
    assert max(sizes) < 21_000
    bodies = clean.bodies("web_events")
    assert {body["event"] for body in bodies} == {"view", "cart", "sale"}
    assert {"event_id" in body for body in bodies} == {"user_id" in body for body in bodies} == {True, False}
    assert all({"actor", "location", "generator", "object"} <= set(body) for body in bodies)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}", body["timestamp"]) for body in bodies)


def test_page_views_have_all_three_forms_of_body(clean: Collector) -> None:
    forms: Counter[str] = Counter()
    for body in clean.bodies("page_views"):
        params = body["event_params"]
        if "session_id" in body:
            assert set(body) == PAGE_VIEW
            assert body["event_timestamp_ms"] // 1000 * 1_000_000 == at(body["ga_event_dtm"])
            forms["object" if isinstance(params, dict) else "list"] += 1
        elif "page_id" in body:
            assert isinstance(body["timestamp_ms"], int)
            assert isinstance(params, dict)
            forms["older"] += 1
        else:
            assert body["event_timestamp"].isdecimal()
            assert {"ga_session_id", "page_title"} <= {param["key"] for param in params}
            forms["export"] += 1
        assert "true" not in orjson.dumps(params).decode()
    assert forms["list"] > forms["object"] > 0
    assert forms["older"] > 0
    assert forms["export"] > 0
    assert all(set(message.attributes) == {"timestamp", "source"} for message in clean.messages["page_views"])


def test_ids_of_clicks_and_checkouts_are_numbers_or_text(clean: Collector) -> None:
    for name in ("clicks", "checkouts"):
        assert {type(body["user_id"]) for body in clean.bodies(name)} == {int, str}
        assert {type(body["product_id"]) for body in clean.bodies(name)} == {int, str}
    assert all(UUID.fullmatch(body["click_id"]) for body in clean.bodies("clicks"))


# -- order, lateness and faults ---------------------------------------------------------------------------------------


def test_each_day_is_published_within_the_day_and_in_order(tmp_path: Path) -> None:
    shop = run(tmp_path, days=3, faults=Faults(out_of_order=0))
    for number, (_, batch) in enumerate(shop.batches):
        times = [message.published_at or 0 for message in batch]
        assert times == sorted(times)
        day = FIRST + number // len(STREAMS) * DAY
        assert all(day <= moment < day + DAY for moment in times)


def lateness(shop: Collector) -> list[float]:
    """Return the seconds from each event to its publishing."""
    return [
        ((message.published_at or 0) - at(orjson.loads(message.payload or b"")["datetime_occured"])) / 1_000_000
        for message in shop.messages["clicks"]
    ]


def test_messages_are_published_soon_unless_late(clean: Collector, tmp_path: Path) -> None:
    assert min(lateness(clean)) > 0
    assert max(lateness(clean)) < 62
    late = run(tmp_path, days=1 + CARRIED_DAYS, faults=replace(CLEAN, late=1.0))
    seconds = lateness(late)
    assert min(seconds) > 119
    assert max(seconds) > 86_400
    # every late click of the first day has arrived by now, once
    assert clicks_of_the_first_day(late) == clicks_of_the_first_day(clean)


def test_a_late_event_has_the_values_of_when_it_happened(tmp_path: Path) -> None:
    soon = run(tmp_path / "soon", days=1 + CARRIED_DAYS)
    late = run(tmp_path / "late", days=1 + CARRIED_DAYS, faults=replace(CLEAN, late=1.0))
    for name, time_field in [("clicks", "datetime_occured"), ("ecom_events", "event_time")]:
        first_day: list[set[bytes | None]] = [
            {
                message.payload
                for message in shop.messages[name]
                if at(orjson.loads(message.payload or b"")[time_field]) < FIRST + DAY
            }
            for shop in (soon, late)
        ]
        assert first_day[0] == first_day[1]
        assert len(first_day[0]) > 100


def test_a_late_version_is_published_after_a_newer_one(tmp_path: Path) -> None:
    shop = run(tmp_path, days=5, events_per_day=10_000, faults=replace(CLEAN, late=0.5))
    newest: dict[str, str] = {}
    overtaken = 0
    for body in shop.bodies("products"):
        overtaken += body["updated_at"] < newest.get(body["product_id"], "")
        newest[body["product_id"]] = max(body["updated_at"], newest.get(body["product_id"], ""))
    assert overtaken > 0


def test_duplicate_message(clean: Collector, tmp_path: Path) -> None:
    shop = run(tmp_path, faults=replace(CLEAN, duplicate_message=1.0), days=2)
    for name in STREAMS:
        copies: dict[tuple[Any, ...], list[int]] = {}
        for message in shop.messages[name]:
            if message.payload is not None:
                same = (message.payload, message.key, tuple(message.attributes.items()))
                copies.setdefault(same, []).append(message.published_at or 0)
        # only messages of the last instant before midnight have no duplicate yet
        assert sum(len(times) == 2 for times in copies.values()) >= 0.95 * len(copies), name
        assert all(0 < max(times) - min(times) < 60_000_000 for times in copies.values() if len(times) == 2)
    assert {message.payload for message in clean.messages["clicks"]} == {
        message.payload for message in shop.messages["clicks"]
    }


def test_duplicate_event(tmp_path: Path) -> None:
    shop = run(tmp_path, faults=replace(CLEAN, duplicate_event=1.0))
    firsts = {body["click_id"]: body for body in shop.bodies("clicks")}
    again = [message for message in shop.messages["clicks"] if message.attributes.get("attempt") == "2"]
    assert len(again) >= 0.9 * len(firsts)
    for message in again:
        body = orjson.loads(message.payload or b"")
        assert body == firsts[body["click_id"]]
    payloads = [message.payload for message in shop.messages["clicks"]]
    assert len(set(payloads)) == len(payloads)


def test_out_of_order(tmp_path: Path) -> None:
    shop = run(tmp_path, faults=replace(CLEAN, out_of_order=1.0))
    for name in STREAMS:
        times = [message.published_at or 0 for message in shop.messages[name]]
        back = [earlier - later for earlier, later in itertools.pairwise(times) if later < earlier]
        assert back, name
        assert max(back) <= 120_000_000


def test_malformed_json(tmp_path: Path) -> None:
    for message in payloads(run(tmp_path, faults=replace(CLEAN, malformed_json=1.0))):
        with pytest.raises(orjson.JSONDecodeError):
            orjson.loads(message)
        message.decode()


def test_invalid_utf8(tmp_path: Path) -> None:
    for message in payloads(run(tmp_path, faults=replace(CLEAN, invalid_utf8=1.0))):
        with pytest.raises(UnicodeDecodeError):
            message.decode()


def payloads(shop: Collector) -> list[bytes]:
    return [m.payload for messages in shop.messages.values() for m in messages if m.payload is not None]


@pytest.mark.parametrize("name", STREAMS)
def test_missing_field(tmp_path: Path, name: str) -> None:
    shop = run(tmp_path, faults=replace(CLEAN, missing_field=1.0))
    missed = set()
    for body in shop.bodies(name):
        lacking = [
            spellings for spellings in REQUIRED[name] if all(body.get(field) in (None, "") for field in spellings)
        ]
        assert len(lacking) == 1
        missed.add((lacking[0], any(body.get(field) == "" for field in lacking[0])))
    # each required field is both missing and empty in some messages
    assert missed == {(spellings, empty) for spellings in REQUIRED[name] for empty in (True, False)}


def test_test_event(tmp_path: Path) -> None:
    for body in run(tmp_path, faults=replace(CLEAN, test_event=1.0)).bodies("page_views"):
        params = body["event_params"]
        if isinstance(params, dict):
            assert params["test_event"] is True
        else:
            values = [param["value"] for param in params if param["key"] == "test_event"]
            assert values == [{"string_value": "true"}]


def test_literal_null(tmp_path: Path) -> None:
    nulls = Counter()
    for body in run(tmp_path, faults=replace(CLEAN, literal_null=1.0)).bodies("ecom_events"):
        found = [(name, value) for name, value in body.items() if value in ("null", "")]
        assert len(found) == 1
        nulls.update(found)
    assert set(nulls) == {
        (name, value) for name in ("brand", "category_code", "user_session") for value in ("null", "")
    }


@pytest.mark.parametrize("name", STREAMS)
def test_unlisted_field(tmp_path: Path, name: str) -> None:
    """A second message of an event has the field, too."""
    shop = run(tmp_path, faults=replace(CLEAN, unlisted_field=0.5, duplicate_event=1.0))
    assert "app_version" not in {*STREAMS[name].ignored, *(field.name for field in STREAMS[name].fields)}
    versions: dict[str, set[str | None]] = {}
    for body in shop.bodies(name):
        version = body.pop("app_version", None)
        versions.setdefault(orjson.dumps(body, option=orjson.OPT_SORT_KEYS).decode(), set()).add(version)
    assert {len(found) for found in versions.values()} == {1}
    with_field = sum(found != {None} for found in versions.values()) / len(versions)
    assert 0.3 < with_field < 0.7


def test_each_default_fault_occurs_but_rarely(tmp_path: Path) -> None:
    shop = run(tmp_path, events_per_day=20_000, faults=Faults())
    broken = 0
    for payload in payloads(shop):
        try:
            orjson.loads(payload)
        except orjson.JSONDecodeError:
            broken += 1
    assert 5 <= broken <= 100


def test_the_bodies_are_in_the_spool(tmp_path: Path) -> None:
    lines = into_spool(tmp_path / "spool")["clicks/0.ndjson"].splitlines()
    collected = run(tmp_path / "collected").messages["clicks"]
    assert [base64.b64decode(orjson.loads(line)["payload"]) for line in lines] == [m.payload for m in collected]
