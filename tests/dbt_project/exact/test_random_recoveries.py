"""Dead letters of random worlds are recovered with a patch, by commands that are killed between their commits."""

import json
import random
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from dbt.adapters.duckdb.connections import DuckDBConnectionManager

from common.settings import Settings as LandingSettings
from common.streams import STREAMS, Stream
from contracts.patch import Patch
from contracts.recover import recover_dead_letters
from engines.duckdb.sink import DuckDBSink
from engines.recovery import OpenDeadLetters
from specification import Settings
from tests.dbt_project.exact.check import FIRST_LANDING, commits, together
from tests.dbt_project.exact.worlds import RUNS, draw_worlds, place
from tools.warehouses.in_process import Project

WORLDS = 1000
LATER = FIRST_LANDING + timedelta(days=400)
SOUND = {
    **{"price": 1, "total_amount": 1, "event": "view", "event_type": "view", "page_title": "Home"},
    **{"user_id": "u", "product_id": "p", "product": "p", "post_id": "t", "session_id": "s", "event_id": "e"},
    **{"click_id": "c", "checkout_id": "k", "event_params": {"engaged_time": 5}, "__deleted": None},
}
"""Values that every contract accepts. Times stay as they are, and so do bodies that are no JSON."""
ENVIRONMENT = (
    *("WAREHOUSE", "WAREHOUSE_PATH", "GCP_LOCATION", "DATASET_PREFIX"),
    *("BIGQUERY_MAXIMUM_BYTES_BILLED", "BIGQUERY_PRIORITY"),
)
"""Variables that a run of the staging model sets."""


class KilledError(BaseException):
    pass


class Killed(DuckDBSink):
    """A sink of a command that is killed after this many commits."""

    def __init__(self, path: Path, after: int) -> None:
        super().__init__(path, clock=lambda: LATER)
        self._left = after

    def land_again(self, stream: str, rows: pa.Table) -> int:
        if not self._left:
            raise KilledError
        self._left -= 1
        return super().land_again(stream, rows)


def recover(settings: LandingSettings, sink: DuckDBSink, stream: Stream, patch: Patch) -> int:
    """Recover what can be; returns how many messages."""
    found = recover_dead_letters(settings, sink, stream, OpenDeadLetters(stream.name), patch)
    return sum(one.recovered for one in found)


@pytest.mark.exact
@pytest.mark.timeout(3600)
def test_killed_recoveries_lose_nothing_and_land_nothing_twice(
    project: Project, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ENVIRONMENT:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("DBT_TARGET_PATH", str(tmp_path / "target"))
    rng = random.Random(seed)
    warehouse = project.warehouse(tmp_path, Settings())
    messages = together(place(draw_worlds(WORLDS, Settings(), seed), Settings(), seed))
    for run in range(RUNS):
        for landing_time, commit in commits([one for one in messages if one.run == run], run, seed):
            warehouse.land(commit, landing_time)
    warehouse.build()
    DuckDBConnectionManager.close_all_connections()
    path = tmp_path / "warehouse.duckdb"
    settings = LandingSettings(_env_file=None, warehouse_path=path, landing_max_rows=2)
    file = tmp_path / "sound.sql"
    file.write_text(f"json_merge_patch(payload, '{json.dumps(SOUND)}')")
    passed = 0
    with closing(Patch(file)) as patch:
        for stream in STREAMS.values():
            with suppress(KilledError):  # a stream may have too few
                recover(settings, Killed(path, rng.randrange(3)), stream, patch)
            passed += recover(settings, DuckDBSink(path, clock=lambda: LATER), stream, patch)
            assert recover(settings, DuckDBSink(path, clock=lambda: LATER), stream, patch) == 0
    warehouse.build()
    counted = {"rejected": 0, "recovered": 0}
    for row in warehouse.rows("analytics.landing_reconciliation"):
        assert row["is_balanced"]
        counted = {name: count + row[name] for name, count in counted.items()}
    assert passed > WORLDS / 20
    assert passed < counted["recovered"] < counted["rejected"]  # some were landed by the killed commands, or are drawn
    assert warehouse.differences() == [], f"EXACT_SEED={seed}"
    warehouse.build("--full-refresh")
    assert warehouse.differences() == [], f"EXACT_SEED={seed}"
