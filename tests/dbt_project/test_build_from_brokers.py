"""The main job from real brokers: what the spool gives is what Kafka and Pub/Sub give."""

import json
from pathlib import Path

import pytest

from common.streams import STREAMS
from tools.brokers import KafkaServer, PubSubEmulator
from tools.warehouses.commands import Warehouse

pytestmark = pytest.mark.brokers

ACCOUNTING = """
    select stream, sum(landed), sum(accepted), sum(duplicates), sum(rejected), bool_and(is_balanced)
    from analytics.landing_reconciliation group by stream order by stream
"""


def test_brokers_and_spool_give_the_same_accounting(
    kafka_server: KafkaServer, pubsub_emulator: PubSubEmulator, tmp_path: Path
) -> None:
    from_spool = Warehouse(tmp_path / "from_spool")
    from_brokers = Warehouse(
        tmp_path / "from_brokers",
        {
            "KAFKA_BOOTSTRAP_SERVERS": kafka_server.bootstrap_servers,
            "PUBSUB_PROJECT": pubsub_emulator.project,
            "PUBSUB_EMULATOR_HOST": pubsub_emulator.host,
            "TOPICS": json.dumps({stream: f"build-{stream}" for stream in STREAMS}),
        },
    )
    for warehouse in (from_spool, from_brokers):
        warehouse.folder.mkdir()
        warehouse.run("ingest", "provision")
        for _ in range(2):
            warehouse.simulate(days=1, events_per_day=1_000)
            warehouse.land()
        warehouse.run_models()
    assert from_brokers.query(ACCOUNTING) == from_spool.query(ACCOUNTING)
    assert from_brokers.query(
        "select distinct source from raw.users union all select distinct source from raw.clicks"
    ) == [
        ("kafka",),
        ("pubsub",),
    ]
    waiting = [line.split()[3] for line in from_brokers.run("ingest", "status").stdout.splitlines() if "kafka" in line]
    assert waiting == ["0"] * 5
