"""The live process is killed at random moments: nothing is lost, nothing lands twice, and readers notice nothing."""

import os
import random
import time
from pathlib import Path

import pytest

from tests.live.checks import check_current, check_landed_once, check_marts, repeated
from tools.warehouses.commands import Warehouse
from tools.warehouses.live import LiveProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]

KILLS = int(os.environ.get("LIVE_KILLS", "4"))


def test_kills_lose_nothing_and_land_nothing_twice(shop: Warehouse, tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201  shown when the test fails
    draw = random.Random(seed)
    warehouse = shop.copy_to(tmp_path / "live")
    live = LiveProcess(warehouse, "--rate", "50")
    unreadable: list[str] = []
    try:
        with repeated(lambda: check_current(warehouse), unreadable, 0.1):
            for number in range(KILLS):
                live.start()
                if number % 3:  # else within the start or the first build
                    live.wait_for_versions(draw.choice((2, 3)))
                time.sleep(draw.uniform(0, 5))
                assert live.running.poll() is None, live.last_lines
                live.kill()
            live.start()
            live.wait_for_versions(3)
            live.end()
    finally:
        live.kill()
    assert not unreadable
    assert "Traceback" not in live.log.read_text()
    warehouse.land()  # what the feed produced after landing had ended
    check_landed_once(warehouse)
    check_marts(warehouse, tmp_path / "anew")
