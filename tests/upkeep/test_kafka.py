"""A warehouse is backed up, destroyed and restored while Kafka keeps receiving: equal to one that never stopped."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from common.streams import STREAMS
from tests.ingest.test_kills import (
    KAFKA_PROPERTIES,
    KAFKA_STREAMS,
    PUBSUB_STREAMS,
    Landing,
    content,
    kill,
    published_to_kafka,
    wait_for,
)
from tools.brokers import KafkaServer

pytestmark = [pytest.mark.brokers, pytest.mark.timeout(2400)]

EVENTS_PER_DAY = "2000"
BY_ARRIVAL = ("landed_at", "message_id", "published_at", "latency_seconds", "session_landed_at", "landed_date")
"""Columns that differ between two warehouses with other commits: which copy of an event came first, and when."""
NOT_COMPARED = (
    *("stream_freshness", "agg_arrival_lateness_daily", "landing_reconciliation", "dead_letters"),
    "field_drift",  # an example of each field
)
"""Marts about arrival, which are compared as far as they count messages."""


@pytest.fixture
def landings(kafka_server: KafkaServer, tmp_path: Path) -> tuple[Landing, Landing]:
    """Two warehouses that land the same topics, and the same spool for the streams of Pub/Sub."""
    (tmp_path / "kafka.properties").write_text(KAFKA_PROPERTIES)
    found = []
    for name in ("lost", "steady"):
        settings = {
            "KAFKA_BOOTSTRAP_SERVERS": kafka_server.bootstrap_servers,
            "KAFKA_CONFIG_FILE": str(tmp_path / "kafka.properties"),
            "KAFKA_GROUP_ID": f"restored-{name}",
            "SPOOL_PATH": str(tmp_path / "spool"),
            "TOPICS": json.dumps({stream: f"restored-{stream}" for stream in STREAMS}),
        }
        found.append(Landing(tmp_path / name, settings))
        found[-1].folder.mkdir()
    found[0].run("ingest", "provision")
    return found[0], found[1]


def landed(warehouse: Landing) -> int:
    counts = " union all ".join(f"select count(*) as n from raw.{stream}" for stream in STREAMS)
    return int(warehouse.rows(f"select sum(n) from ({counts})")[0][0])


def test_a_restored_warehouse_equals_one_that_never_stopped(
    landings: tuple[Landing, Landing], kafka_server: KafkaServer, tmp_path: Path
) -> None:
    lost, steady = landings
    simulate = ("ingest", "simulate", "--events-per-day", EVENTS_PER_DAY, "--days")
    lost.run(*simulate, "7")
    lost.land()
    lost.build()
    with steady.loader():
        receiving = lost.start(*simulate, "2")
        try:
            with lost.loader() as loader:
                before = landed(lost)
                wait_for(lambda: landed(lost) > before, what="landing more than a week")
                lost.run("upkeep", "backup", str(tmp_path / "backup"))
                at_backup = landed(lost)
                assert receiving.wait(300) == 0
                receiving = lost.start(*simulate, "2")
                wait_for(lambda: landed(lost) > at_backup, what="landing after the backup")
                kill(loader)
            destroyed_with = landed(lost)
            for path in lost.folder.glob("warehouse.duckdb*"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            lost.run("upkeep", "restore", str(tmp_path / "backup"))
            assert before <= landed(lost) < destroyed_with
            assert receiving.wait(300) == 0
        finally:
            receiving.kill()
            receiving.wait()
    for warehouse in landings:
        warehouse.land()
        warehouse.build()

    for stream in KAFKA_STREAMS:
        sent = content(published_to_kafka(kafka_server, f"restored-{stream}"))
        select = f'select "partition", "offset", key, attributes, payload from raw.{stream}'
        assert content(lost.rows(select)) == sent == content(steady.rows(select)), stream
    for stream in PUBSUB_STREAMS:
        select = f'select "partition", "offset", key, attributes, payload from raw.{stream}'
        assert content(lost.rows(select)) == content(steady.rows(select)), stream
    for mart in lost.marts().keys() - {*NOT_COMPARED}:
        columns = [
            f'"{name}"'
            for (name,) in lost.query(
                "select column_name from duckdb_columns()"
                f" where schema_name = 'analytics' and table_name = '{mart}' and not internal"
            )
            if name not in BY_ARRIVAL
        ]
        select = f"select {', '.join(columns)} from analytics.{mart}"
        assert Counter(lost.rows(select)) == Counter(steady.rows(select)), mart
    for counts in (
        "select stream, sum(landed), sum(accepted), sum(duplicates), sum(rejected), bool_and(is_balanced)"
        " from analytics.landing_reconciliation group by 1 order by 1",
        "select stream, reason, count(*) from analytics.dead_letters group by all order by all",
    ):
        assert lost.rows(counts) == steady.rows(counts)
