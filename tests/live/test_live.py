"""The live process from outside: its answers, commands beside it, a kill, and a test that fails."""

import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.live.checks import check_landed_once, check_marts, events, produce_view
from tools.warehouses.commands import Warehouse
from tools.warehouses.live import LiveProcess

DAY = "2026-01-05"
"""A day on which the shop has no events."""


@pytest.fixture
def warehouse(shop: Warehouse, tmp_path: Path) -> Warehouse:
    """Three days of the shop, built and published."""
    return shop.copy_to(tmp_path / "live")


@pytest.fixture
def live(warehouse: Warehouse) -> Iterator[LiveProcess]:
    """The live process with a feed, not started; killed at the end."""
    process = LiveProcess(warehouse, "--rate", "50")
    yield process
    process.kill()


@pytest.fixture
def quiet_live(warehouse: Warehouse) -> Iterator[LiveProcess]:
    """The live process without a feed, not started; killed at the end."""
    process = LiveProcess(warehouse, "--rate", "0")
    yield process
    process.kill()


def test_answers_grow_commands_beside_it_are_rejected_and_a_kill_loses_nothing(
    warehouse: Warehouse, live: LiveProcess, tmp_path: Path
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201  shown when the test fails
    live.start()
    live.wait_for(lambda: live.version and live.status is not None, "opening the warehouse")
    before = events(live)
    for command in (("ingest", "land"), ("live", "--port", "0", "--dashboard-port", "0")):
        done = warehouse.run(*command, expect=2)
        last = done.stderr.splitlines()[-1]
        assert last.startswith(f"error: `live` (PID {live.running.pid}) has the warehouse"), done.stderr
        assert "Traceback" not in done.stderr
    live.wait_for_versions(2)
    produce_view(warehouse, "marker", f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC")
    live.wait_for(lambda: events(live, brand="marker") == 1, "the marker in an answer")
    assert events(live) > before
    printed = warehouse.run("ingest", "status").stdout
    assert f"`live` (PID {live.running.pid}) lands, builds and publishes" in printed
    assert live.metric("live_failing") == 0

    time.sleep(random.Random(seed).uniform(0, 5))
    live.kill()
    live.start()
    live.wait_for_versions(2)
    assert events(live, brand="marker") == 1
    live.end()
    assert "Traceback" not in live.log.read_text()

    warehouse.land()  # what the feed produced after landing had ended
    check_landed_once(warehouse)
    check_marts(warehouse, tmp_path / "anew")


def test_nothing_is_published_while_a_test_fails(warehouse: Warehouse, quiet_live: LiveProcess) -> None:
    """An hour that no event explains differs from the facts of its day until an event in it replaces its row."""
    live = quiet_live
    warehouse.change(
        "insert into analytics.agg_events_hourly"
        f" select * replace (timestamp '{DAY} 03:00:00' as reporting_hour_at, date '{DAY}' as reporting_date)"
        " from analytics.agg_events_hourly limit 1"
    )
    live.start()
    live.wait_for(lambda: "built" in live.log_events, "the end of the first build, which would fail too")
    produce_view(warehouse, "first", f"{DAY} 12:00:00 UTC")
    live.wait_for(lambda: live.status and live.status.failure, "a failing test")
    failing_since = live.version
    assert live.metric("live_failing") == 1
    done = warehouse.run("ingest", "status", expect=2)
    assert done.stderr.startswith("error: nothing new is published: hourly_equals_daily_equals_facts: 1 row")

    landed = live.status.streams["ecom_events"].landed
    produce_view(warehouse, "second", f"{DAY} 12:00:00 UTC")
    live.wait_for(lambda: live.status.streams["ecom_events"].landed > landed, "landing goes on")
    assert live.version == failing_since
    assert events(live, brand="second") == 0

    produce_view(warehouse, "cure", f"{DAY} 03:00:00 UTC")
    live.wait_for(lambda: events(live, brand="cure"), "publishing again")
    assert events(live, brand="second") == 1
    assert live.metric("live_failing") == 0
    warehouse.run("ingest", "status")
    live.end()
