"""The feed: the shop's events as they happen, at a steady rate."""

import itertools
import re
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from common.settings import Settings
from common.streams import STREAMS
from ingest.producers import RoutingProducer
from ingest.simulator import Faults
from ingest.simulator.feed import FEED_FILE, FIRST_NUMBER, feed
from ingest.sources.spool import SpoolSource
from tests.ingest.simulator.collector import CLEAN, DAY, EVENT_STREAMS, Collector, at, run

SECOND, MINUTE = 1_000_000, 60_000_000
RATE = 20
NOW = at("2026-11-30T23:58:00") / SECOND
"""Two minutes before midnight, in seconds since the epoch."""
TIMES = {
    "web_events": "timestamp", "clicks": "datetime_occured", "checkouts": "datetime_occured",
    "ecom_events": "event_time", "post_events": "created_at",
}  # fmt: skip
IDS = {"clicks": "click_id", "checkouts": "checkout_id", "post_events": "event_id", "web_events": "event_id"}


class Clock(threading.Event):
    """A stop event whose waits only move a clock."""

    def __init__(self, now: float) -> None:
        super().__init__()
        self.now = now

    def wait(self, timeout: float | None = None) -> bool:
        self.now += timeout or 0.0
        return self.is_set()

    def __call__(self) -> float:
        return self.now


def run_feed(folder: Path, seconds: float, now: float = NOW, **changes: Any) -> Collector:
    collector, clock = Collector(), Clock(now)
    options = {"rate": RATE, "stop": clock, "clock": clock, "seconds": seconds, "faults": CLEAN} | changes
    feed(Settings(spool_path=folder), collector, **options)
    return collector


def times(shop: Collector, stream: str) -> list[tuple[int, int]]:
    """Return when each message was published and when its event happened."""
    return [
        (message.published_at or 0, at(body[TIMES[stream]].removesuffix("Z")))
        for message, body in zip(shop.messages[stream], shop.bodies(stream), strict=True)
    ]


def events(shop: Collector) -> list[int]:
    return [message.published_at or 0 for name in EVENT_STREAMS for message in shop.messages[name]]


@pytest.fixture(scope="module")
def five_minutes(tmp_path_factory: pytest.TempPathFactory) -> Collector:
    """Around midnight, without faults."""
    return run_feed(tmp_path_factory.mktemp("feed"), 300)


def test_the_rate_is_right_from_the_first_second_and_past_midnight(five_minutes: Collector) -> None:
    by_ten_seconds = Counter((time - round(NOW * SECOND)) // (10 * SECOND) for time in events(five_minutes))
    assert set(by_ten_seconds) == set(range(30))
    assert all(0.6 * 10 * RATE < count < 1.5 * 10 * RATE for count in by_ten_seconds.values())
    assert 0.95 < len(events(five_minutes)) / (300 * RATE) < 1.05
    assert all(five_minutes.messages[name] for name in STREAMS)


def test_events_happen_just_before_they_are_published(five_minutes: Collector) -> None:
    for stream in TIMES:
        delays = sorted(published_at - happened_at for published_at, happened_at in times(five_minutes, stream))
        assert delays[0] >= 0
        assert delays[len(delays) * 9 // 10] < 3 * SECOND, stream


def test_messages_are_sent_within_a_tick_of_their_time(tmp_path: Path) -> None:
    clock, behind = Clock(NOW), []

    class Watch(Collector):
        def produce(self, stream: Any, messages: Any) -> int:
            messages = list(messages)
            behind.extend(clock.now * SECOND - (message.published_at or 0) for message in messages)
            return super().produce(stream, messages)

    feed(Settings(spool_path=tmp_path), Watch(), rate=RATE, stop=clock, clock=clock, seconds=30)
    assert len(behind) > 20 * RATE
    assert min(behind) > -1
    assert max(behind) < 0.11 * SECOND


def test_late_events_are_minutes_to_days_old(tmp_path: Path) -> None:
    shop = run_feed(tmp_path, 600, faults=Faults(late=0.2))
    delays = [published_at - happened_at for name in TIMES for published_at, happened_at in times_of_valid(shop, name)]
    late = [delay for delay in delays if delay > 2 * MINUTE]
    assert 0.1 < len(late) / len(delays) < 0.25
    assert max(late) > 4 * 60 * MINUTE
    assert max(late) < 4 * DAY
    assert min(delays) >= 0


def times_of_valid(shop: Collector, stream: str) -> list[tuple[int, int]]:
    """Return the times of the messages whose body has no fault."""
    found = []
    for message in shop.messages[stream]:
        one = Collector()
        one.messages[stream].append(message)
        try:
            found += times(one, stream)
        except (ValueError, KeyError):
            continue
    return found


def test_events_name_only_entities_that_were_sent_before(five_minutes: Collector) -> None:
    users = {message.key for message in five_minutes.messages["users"]}
    named = {str(body["user_id"]).encode() for body in five_minutes.bodies("clicks")}
    assert len(named) > 10
    assert named <= users
    first = [name for name, batch in five_minutes.batches if batch][:3]
    assert sorted(first) == ["posts", "products", "users"]


def test_a_restart_continues_the_shop_and_repeats_no_id(tmp_path: Path) -> None:
    first = run_feed(tmp_path, 90)
    second = run_feed(tmp_path, 90, now=NOW + 95)
    for stream, field in IDS.items():
        ids = [
            {body[field] for body in shop.bodies(stream) if field in body}
            for shop in (first, second)
        ]  # fmt: skip
        assert ids[0]
        assert ids[1]
        assert not ids[0] & ids[1], stream
    assert len(second.messages["users"]) < len(first.messages["users"]) / 10
    known = {message.key for shop in (first, second) for message in shop.messages["users"]}
    assert {str(body["user_id"]).encode() for body in second.bodies("clicks")} <= known


def test_a_restart_sends_the_changes_that_a_kill_left_unsent(tmp_path: Path) -> None:
    """The second minute begins, and the run ends before its changes are sent."""
    run_feed(tmp_path, 60.2, rate=100)
    whole = run_feed(tmp_path.with_name("whole"), 120, rate=100)
    rest = run_feed(tmp_path, 0.2, now=NOW + 200, rate=100)
    changes = [
        message.payload
        for message in whole.messages["users"]
        if (message.published_at or 0) >= round(NOW * SECOND) + MINUTE
    ]
    assert len(changes) > 10
    assert set(changes) <= {message.payload for message in rest.messages["users"]}
    numbers = {int(re.sub(r".*\D", "", body["user_name"])) for body in whole.bodies("users")}
    assert min(numbers) == FIRST_NUMBER


def test_the_feed_continues_the_shop_of_simulated_days(tmp_path: Path) -> None:
    days = run(tmp_path, days=2, seed=1)
    shop = run_feed(tmp_path, 60)
    users = {message.key for message in days.messages["users"]}
    named = {str(body["user_id"]).encode() for body in shop.bodies("clicks")}
    assert named
    assert named <= users
    # The days go on as if there were no feed.
    alone = tmp_path.with_name("alone")
    run(alone, days=2, seed=1)
    assert run(tmp_path, seed=1).messages == run(alone, seed=1).messages


def test_events_from_before_a_run_was_prepared_are_left_out(tmp_path: Path) -> None:
    """Sent at once, they would be a burst."""
    clock = Clock(NOW)

    class Slow(Collector):
        def produce(self, stream: Any, messages: Any) -> int:
            if not self.messages["users"]:
                clock.now += 4
            return super().produce(stream, messages)

    shop = Slow()
    feed(Settings(spool_path=tmp_path), shop, rate=RATE, stop=clock, clock=clock, seconds=30)
    assert min(events(shop)) >= (NOW + 4) * SECOND


def test_the_feed_catches_up_after_a_short_pause_and_skips_a_long_one(tmp_path: Path) -> None:
    clock, sent = Clock(NOW), Counter[int]()
    pauses = iter([(NOW + 20, 5.0), (NOW + 40, 3_600.0)])
    next_pause = [next(pauses)]

    class Pausing(Collector):
        def produce(self, stream: Any, messages: Any) -> int:
            if next_pause and clock.now >= next_pause[0][0]:
                clock.now += next_pause[0][1]
                next_pause[:] = itertools.islice(pauses, 1)
            number = super().produce(stream, messages)
            sent[int(clock.now - NOW)] += number
            return number

    shop = Pausing()
    feed(Settings(spool_path=tmp_path), shop, rate=RATE, stop=clock, clock=clock, seconds=3_700, faults=CLEAN)
    since = [(time - round(NOW * SECOND)) // SECOND for time in events(shop)]
    assert sum(20 <= time < 25 for time in since) > 3 * RATE
    assert not [time for time in since if 60 < time < 3_600]
    assert sum(3_650 <= time < 3_690 for time in since) > 30 * RATE


def test_the_feed_ends_when_it_is_told_to_stop(tmp_path: Path) -> None:
    settings, stop, counts = Settings(spool_path=tmp_path), threading.Event(), list[int]()

    def count(messages: int) -> None:
        counts.append(messages)
        if sum(counts[1:]) > RATE:
            stop.set()

    with RoutingProducer(settings) as producer:
        produced = feed(settings, producer, rate=RATE, stop=stop, on_progress=count)
    assert produced == sum(counts)
    source = SpoolSource(settings, list(STREAMS.values()), lambda ids: {})
    assert sum(waiting or 0 for waiting in source.waiting().values()) == produced


def test_a_feed_of_another_seed_and_a_low_rate_are_errors(tmp_path: Path) -> None:
    run_feed(tmp_path, 1)
    with pytest.raises(UserError, match=r"holds a feed of seed 1 .* not of seed 2"):
        run_feed(tmp_path, 1, seed=2)
    with pytest.raises(UserError, match="at least 1 event per second"):
        run_feed(tmp_path, 1, rate=0.5)
    (tmp_path / FEED_FILE).write_text("{}")
    with pytest.raises(UserError, match="cannot be read"):
        run_feed(tmp_path, 1)
