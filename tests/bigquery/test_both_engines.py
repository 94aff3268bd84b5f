"""DuckDB and BigQuery have the same rows in every raw table, model and seed after landing and building the same worlds.

After each run, the marts are those of the specification and of a full refresh.
"""

import secrets
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from common.settings import Settings as LandingSettings
from common.streams import STREAMS
from dbt_project.exactness.message import Message
from ingest import landing
from ingest.producers import RoutingProducer
from ingest.simulator import DEFAULT_START, Faults, simulate
from ingest.sources import open_sources
from specification import Settings
from tests.dbt_project.exact.check import FIRST_LANDING, check_random_worlds
from tests.dbt_project.exact.examples import examples
from tests.dbt_project.exact.test_random_worlds import EVERYTHING_ELSE
from tools import ROOT
from tools.googlesql.engine import GoogleSQL
from tools.warehouses.bigquery import PROJECT, BothEngines
from tools.warehouses.in_process import Warehouse
from upkeep.backup import back_up
from upkeep.restore import restore

pytestmark = [pytest.mark.bigquery, pytest.mark.timeout(3600)]

WORLDS = 5
RUNS = 2
"""The first and an incremental one: builds for BigQuery take half a minute."""
EVENTS_PER_DAY = 100
FAULTS = Faults(
    duplicate_message=0.1, duplicate_event=0.1, late=0.3, malformed_json=0.02, invalid_utf8=0.02, missing_field=0.02
)
KILLED_IN_RUN = 1
JOBS_BEFORE_THE_KILL = 4
"""Of at most nine, one per stream."""


@pytest.fixture(scope="module")
def project(google_sql: GoogleSQL, tmp_path_factory: pytest.TempPathFactory) -> BothEngines:
    return BothEngines(ROOT / "dbt_project", tmp_path_factory.mktemp("both"), google_sql)


def test_random_worlds_and_all_examples(project: BothEngines) -> None:
    check_random_worlds(project, Settings(), WORLDS, secrets.randbelow(2**31), examples(first_number=WORLDS), RUNS)


@pytest.mark.exact
def test_random_worlds_with_other_settings(project: BothEngines) -> None:
    check_random_worlds(project, EVERYTHING_ELSE, 3 * WORLDS, secrets.randbelow(2**31), runs=RUNS)


def test_a_batch_that_is_redelivered_whole_lands_once(project: BothEngines, tmp_path: Path) -> None:
    """Its load has the id of the first one on BigQuery; in another batch, its messages are duplicates on both."""
    both = project.warehouse(tmp_path, Settings())
    batch = [Message(0, 0, "web_events", f"m{number}", FIRST_LANDING, b"{}") for number in range(2)]
    for minutes, messages in enumerate((batch, batch, batch[:1])):
        both.land(messages, FIRST_LANDING + timedelta(minutes=minutes))
    assert sorted(row["message_id"] for row in both.rows("raw.web_events")) == ["m0", "m0", "m1"]
    assert both.unlike(["raw.web_events"]) == []


def test_a_warehouse_that_moved_to_bigquery_goes_on_with_the_same_rows(project: BothEngines, tmp_path: Path) -> None:
    spool = LandingSettings(_env_file=None, spool_path=tmp_path / "spool", warehouse_path=tmp_path / "warehouse.duckdb")
    both = project.warehouse(tmp_path, Settings())
    with RoutingProducer(spool) as producer:
        simulate(spool, producer, days=1, seed=1, events_per_day=EVENTS_PER_DAY, faults=FAULTS)
    land(both.duckdb, spool, 0)
    back_up(spool, tmp_path / "backup", lambda _: None)
    project.sql.tables.clear()
    with patch("google.cloud.bigquery.Client", lambda **options: project.client):
        there = LandingSettings(_env_file=None, warehouse="bigquery", gcp_project=PROJECT)
        restore(there, tmp_path / "backup", lambda _: None)
    both.run("seed")
    assert both.unlike(f"raw.{stream}" for stream in STREAMS) == []
    for run in range(RUNS):
        if run:
            with RoutingProducer(spool) as producer:
                simulate(spool, producer, days=1, seed=1, events_per_day=EVENTS_PER_DAY, faults=FAULTS)
            for warehouse in (both, both.duckdb):
                land(warehouse, spool, run)
        both.build()
        assert both.unlike(both._relations) == []


class KilledError(BaseException):
    pass


def land(warehouse: Warehouse, spool: LandingSettings, run: int) -> None:
    """Land all waiting messages with a new loader, whose clock shows the midnight after the day of the run."""
    warehouse._landing_time = datetime.combine(DEFAULT_START, datetime.min.time()) + timedelta(days=run + 1)
    sink = warehouse.loader()
    with sink.session(), open_sources(spool, list(STREAMS.values()), sink.positions) as sources:
        landing.land(spool, sources, sink)


def kill_loader(project: BothEngines, warehouse: Warehouse, spool: LandingSettings, run: int) -> list[str]:
    """Kill a loader that has sent some load jobs, before any has ended; returns their ids."""
    sent: list[str] = []
    load_table_from_file = project.client.load_table_from_file

    def send_and_die(*arguments: Any, **options: Any) -> Any:
        job = load_table_from_file(*arguments, **options)
        sent.append(job.job_id)
        if len(sent) == JOBS_BEFORE_THE_KILL:
            raise KilledError
        return job

    with patch.object(project.client, "load_table_from_file", send_and_die), pytest.raises(KilledError):
        land(warehouse, spool, run)
    return sent


def test_after_a_killed_loader_bigquery_has_the_rows_of_duckdb(project: BothEngines, tmp_path: Path) -> None:
    """Its load jobs are still running when the next loader starts."""
    spool = LandingSettings(_env_file=None, spool_path=tmp_path / "spool")
    both = project.warehouse(tmp_path, Settings())
    sent: list[str] = []
    rejected = len(project.client.rejected)
    for run in range(RUNS):
        with RoutingProducer(spool) as producer:
            simulate(spool, producer, days=1, seed=1, events_per_day=EVENTS_PER_DAY, faults=FAULTS)
        if run == KILLED_IN_RUN:
            sent = kill_loader(project, both, spool, run)
        for warehouse in (both, both.duckdb):
            land(warehouse, spool, run)
        for job in project.client.loads.values():
            job.done()  # also those that no loader waits for
        assert both.unlike(f"raw.{stream}" for stream in STREAMS) == []
    assert project.client.rejected[rejected:] == sent
    assert len(sent) == JOBS_BEFORE_THE_KILL
