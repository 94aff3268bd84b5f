"""Readers of every kind while the live process publishes: no errors, and no answer mixes two builds."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.live.checks import SUMS, repeated
from tools.environments import environment
from tools.warehouses.commands import Warehouse
from tools.warehouses.live import LiveProcess

pytestmark = [pytest.mark.older_duckdb, pytest.mark.timeout(7200)]

PUBLISHES = int(os.environ.get("LIVE_PUBLISHES", "12"))
DUCKDB = "duckdb==1.5.5"
READER = """
import duckdb, os, sys, time
link, hold_seconds, sums = sys.argv[1], float(sys.argv[2]), sys.argv[3]
reads = 0
while not os.path.exists(sys.argv[4]):
    target = os.readlink(link)
    file = os.path.join(os.path.dirname(link), target, "warehouse.duckdb")
    try:
        connection = duckdb.connect(file, read_only=True)
    except duckdb.IOException:
        if os.readlink(link) == target:
            raise
        continue  # two versions were published meanwhile
    before = connection.execute(sums).fetchall()
    time.sleep(hold_seconds)
    after = connection.execute(sums).fetchall()
    connection.close()
    if before != after or len({*before[0]}) > 1:
        sys.exit(f"{target}: {before}, then {after}")
    reads += 1
print(reads)
"""


@contextmanager
def duckdb_readers(warehouse: Warehouse, *hold_seconds: float) -> Iterator[None]:
    """DuckDB 1.5 in processes of their own, which open `current` again and again and keep it open for a while."""
    python = environment(DUCKDB.replace("==", "-"), [DUCKDB], "import duckdb") / "bin" / "python"
    link = f"{warehouse.path}.published/current"
    stop = warehouse.folder / "stop"
    commands = [[python, "-c", READER, link, str(seconds), SUMS, stop] for seconds in hold_seconds]
    readers = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for command in commands
    ]
    try:
        yield
        stop.touch()
        for reader in readers:
            output, error = reader.communicate(timeout=120)
            assert reader.returncode == 0, error
            assert int(output) > 0
    finally:
        for reader in readers:
            reader.kill()
            reader.communicate()


def check_answers(live: LiveProcess) -> None:
    """Ask two queries, which must agree if one version answered both."""
    before = live.version
    facts = sum(row["events"] for row in live.ask("event_counts"))
    daily = sum(row["events"] for row in live.ask("daily_kpis"))
    again = sum(row["events"] for row in live.ask("event_counts"))
    assert before, "the endpoints have no version"
    if live.version == before:
        assert facts == daily == again, before


def check_page(live: LiveProcess) -> None:
    status, body = live.get("/", live.dashboard_port)
    assert status == 200
    assert b'class="error"' not in body


def test_no_reader_notices_that_versions_are_published(shop: Warehouse, tmp_path: Path) -> None:
    warehouse = shop.copy_to(tmp_path / "live")
    live = LiveProcess(warehouse, "--rate", "50")
    errors: list[str] = []
    live.start()
    try:
        live.wait_for(lambda: live.version, "an answer")
        with ExitStack() as reading:
            reading.enter_context(duckdb_readers(warehouse, 0.0, 15.0))
            reading.enter_context(repeated(lambda: check_answers(live), errors, 0.05))
            reading.enter_context(repeated(lambda: check_page(live), errors, 0.5))
            started = time.monotonic()
            live.wait_for_versions(PUBLISHES, 180.0 + 60.0 * PUBLISHES)
            print(f"{(time.monotonic() - started) / PUBLISHES:.1f} s per version")  # noqa: T201  shown when the test fails
        live.end()
    finally:
        live.kill()
    assert not errors
    assert "Traceback" not in live.log.read_text()
