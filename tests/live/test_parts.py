"""The parts of the live process that need no warehouse."""

import threading
import time
from datetime import datetime

import numpy as np
import pytest
from prometheus_client import REGISTRY

from live.freshness import Freshness, Published
from live.workers import Workers

MINUTE = datetime(2026, 1, 5, 12).timestamp() // 60 * 60
TIMES = Published(build_started_at=MINUTE + 11, build_ended_at=MINUTE + 12, visible_at=MINUTE + 12.5)


def test_seconds_are_split_into_steps() -> None:
    freshness = Freshness()
    arrivals = {"clicks": (np.array([MINUTE + 10.0, MINUTE + 9.0]), np.array([MINUTE + 10.25, MINUTE + 10.5]))}
    assert freshness.add(arrivals, TIMES) == []

    later = Published(MINUTE + 71, MINUTE + 72, MINUTE + 73)
    [row] = freshness.add({}, later)

    assert (row.stream, row.messages, row.max_seconds, row.p50_seconds) == ("clicks", 2, 3.5, 3.0)
    assert row.p95_landing_seconds == pytest.approx(1.4375, abs=0.001)
    assert row.p95_waiting_seconds == pytest.approx(0.7375, abs=0.001)
    assert (row.p95_building_seconds, row.p95_publishing_seconds) == (1.0, 0.5)


def test_a_minute_without_messages_has_no_row() -> None:
    freshness = Freshness()
    freshness.add({}, TIMES)
    assert freshness.add({}, Published(MINUTE + 71, MINUTE + 72, MINUTE + 73)) == []


def test_a_clock_that_differs_gives_no_negative_seconds() -> None:
    freshness = Freshness()
    freshness.add({"clicks": (np.array([MINUTE + 100.0]), np.array([MINUTE + 100.0]))}, TIMES)
    [row] = freshness.add({}, Published(MINUTE + 71, MINUTE + 72, MINUTE + 73))
    assert row.max_seconds == 0


def test_the_histogram_counts_every_message() -> None:
    labels = {"stream": "posts", "step": "total"}
    arrivals = {"posts": (np.array([MINUTE + 10.0] * 3), np.array([MINUTE + 10.0] * 3))}
    Freshness().add(arrivals, TIMES)
    assert REGISTRY.get_sample_value("live_freshness_seconds_count", labels) == 3
    assert REGISTRY.get_sample_value("live_freshness_seconds_sum", labels) == pytest.approx(7.5)


def test_workers_end_together_when_the_process_is_asked_to() -> None:
    outer = threading.Event()
    ended = []
    with Workers(outer) as workers:
        for name in ("one", "two"):
            workers.start(name, lambda stop, name=name: ended.append((name, stop.wait(30))))
        outer.set()
        assert workers.stop.wait(5)
    assert sorted(ended) == [("one", True), ("two", True)]


def test_the_first_error_ends_all_workers_and_is_raised() -> None:
    def fail(_: threading.Event) -> None:
        raise ValueError("first")

    ended = []
    with pytest.raises(ValueError, match="first"), Workers(threading.Event()) as workers:
        workers.start("waits", lambda stop: ended.append(stop.wait(30)))
        workers.start("fails", fail)
        assert workers.stop.wait(5)
        time.sleep(0.01)
    assert ended == [True]
