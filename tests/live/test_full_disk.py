"""The disk is full for a while: the process stays, answers continue, and everything recovers when there is room."""

import resource
from pathlib import Path

import pytest

from tests.live.checks import check_landed_once, check_marts, events, produce_view
from tools.warehouses.commands import Warehouse
from tools.warehouses.live import LiveProcess

pytestmark = pytest.mark.slow

UNLIMITED = resource.RLIM_INFINITY


def limit_files(live: LiveProcess, limit: int) -> None:
    """Limit the size of files that the process writes, in bytes: a write beyond it fails, as on a full disk."""
    resource.prlimit(live.running.pid, resource.RLIMIT_FSIZE, (limit, UNLIMITED))


def test_a_full_disk_stops_neither_the_process_nor_its_answers(shop: Warehouse, tmp_path: Path) -> None:
    warehouse = shop.copy_to(tmp_path / "live")
    published = Path(f"{warehouse.path}.published/current").resolve() / warehouse.path.name
    live = LiveProcess(warehouse, "--rate", "50")
    limits = {
        "publishing": published.stat().st_size // 2,
        "the write-ahead log": 300_000,
        "everything": 20_000,
    }
    live.start()
    try:
        live.wait_for(lambda: "built" in live.log_events, "the first build")
        for number, (phase, limit) in enumerate(limits.items()):
            limit_files(live, limit)
            live.wait_for(lambda: live.status and live.status.failure, f"a failure of {phase}")
            assert events(live) > 0
            produce_view(warehouse, f"marker{number}", "2026-01-05 12:00:00 UTC")
            limit_files(live, UNLIMITED)
            live.wait_for(lambda: events(live, brand=f"marker{number}"), f"an answer after {phase}")  # noqa: B023
        live.end()
    finally:
        live.kill()
    assert "Traceback" not in live.log.read_text()
    warehouse.land()
    check_landed_once(warehouse)
    check_marts(warehouse, tmp_path / "anew")
