"""One spool, landed by our sinks in DuckDB and in BigQuery and built on both run by run: they hold the same rows.

The shop is simulated with more faults than in life. In one run BigQuery's loader is killed behind some of its load
jobs, which are still under way: the next loader meets them.
"""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from ingest import landing
from ingest.publish import RoutingPublisher
from ingest.settings import Settings as LandingSettings
from ingest.simulator import DEFAULT_START, Faults, simulate
from ingest.sources import open_sources
from ingest.streams import STREAMS
from tests.bigquery.googlesql import GoogleSQL
from tests.bigquery.warehouse import BigQueryProject
from tests.dbt_project.exact.warehouse import ROOT, Project, Warehouse, compare
from tests.oracle import Settings

pytestmark = [pytest.mark.bigquery, pytest.mark.timeout(1800)]

RUNS = 2
EVENTS_PER_DAY = 100
FAULTS = Faults(
    duplicate_message=0.1, duplicate_event=0.1, late=0.3, malformed_json=0.02, invalid_utf8=0.02, missing_field=0.02
)
KILLED_IN_RUN = 1
JOBS_BEFORE_THE_KILL = 4
"""Of at most nine, one a stream."""
POSITION_COLUMNS = ("topic_id", "next_offset")
"""Of BigQuery's raw tables alone."""


class KilledError(BaseException):
    pass


def land(warehouse: Warehouse, spool: LandingSettings, run: int) -> None:
    """Land all that waits, by a loader that has just started; its clock stands at the midnight behind the run's day."""
    warehouse._landing_time = datetime.combine(DEFAULT_START, datetime.min.time()) + timedelta(days=run + 1)
    sink = warehouse.loader()
    with sink.held(), open_sources(spool, list(STREAMS.values()), sink.positions) as sources:
        landing.land(spool, sources, sink)


def kill_loader(project: BigQueryProject, warehouse: Warehouse, spool: LandingSettings, run: int) -> list[str]:
    """Kill a loader that has sent some of its load jobs, and seen none of them end; returns their ids."""
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


def rows(warehouse: Warehouse, relation: str) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in row.items() if name not in POSITION_COLUMNS} for row in warehouse.rows(relation)
    ]


def test_both_engines_hold_the_same_rows(google_sql: GoogleSQL, tmp_path: Path) -> None:
    spool = LandingSettings(_env_file=None, spool_path=tmp_path / "spool")
    (tmp_path / "bigquery").mkdir()
    project = Project(ROOT / "dbt_project", tmp_path)
    duckdb = project.warehouse(tmp_path, Settings())
    bigquery_project = BigQueryProject(ROOT / "dbt_project", tmp_path / "bigquery", google_sql)
    bigquery = bigquery_project.warehouse(tmp_path, Settings())
    relations = [f"raw.{stream}" for stream in STREAMS]
    relations += [f"{node.schema}.{node.name}" for node in project.nodes if node.resource_type in ("model", "seed")]
    sent: list[str] = []
    for run in range(RUNS):
        with RoutingPublisher(spool) as publisher:
            simulate(spool, publisher, days=1, seed=1, events_per_day=EVENTS_PER_DAY, faults=FAULTS)
        if run == KILLED_IN_RUN:
            sent = kill_loader(bigquery_project, bigquery, spool, run)
        for warehouse in (duckdb, bigquery):
            land(warehouse, spool, run)
        for job in bigquery_project.client.loads.values():
            job.done()  # of those too that nobody waits for
        for warehouse in (duckdb, bigquery):
            warehouse.build()
        for relation in relations:
            assert list(compare(relation, rows(bigquery, relation), rows(duckdb, relation))) == []
    assert bigquery_project.client.refused == sent
    # there was something to get wrong
    assert len(sent) == JOBS_BEFORE_THE_KILL
    accounts = duckdb.rows("analytics.landing_reconciliation")
    assert all(sum(account[kind] for account in accounts) for kind in ("accepted", "duplicates", "rejected"))
    newest = max(account["landed_date"] for account in accounts)
    assert any(
        event["landed_at"].date() == newest and event["event_date"] < newest - timedelta(days=1)
        for event in duckdb.rows("analytics.fct_events")
    )
