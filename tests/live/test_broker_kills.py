"""The live process, Kafka and Pub/Sub are killed or hang at random moments: nothing is lost, nothing counted twice."""

import json
import os
import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from common.streams import STREAMS
from tests.ingest.test_kills import (
    KAFKA_PROPERTIES,
    content,
    published_to_kafka,
    published_to_pubsub,
    subscribe,
)
from tests.live.checks import check_current, check_marts, repeated
from tools import ROOT
from tools.brokers import KafkaServer, PubSubEmulator, running
from tools.warehouses.commands import Warehouse
from tools.warehouses.live import LiveProcess

pytestmark = [pytest.mark.brokers, pytest.mark.timeout(7200)]

KILLS = int(os.environ.get("LIVE_KILLS", "4"))
RATE = 30
KAFKA = [name for name, stream in STREAMS.items() if stream.transport == "kafka"]
PUBSUB = [name for name, stream in STREAMS.items() if stream.transport == "pubsub"]


@pytest.fixture
def kafka(tmp_path: Path) -> Iterator[KafkaServer]:
    """Apache Kafka of this test alone, which kills it."""
    folder = tmp_path / "kafka"
    folder.mkdir()
    with running(KafkaServer(folder)) as server:
        yield server


@contextmanager
def shop_publishes(warehouse: Warehouse) -> Iterator[None]:
    """Publish events of the shop in a separate process, which is restarted if it ends."""
    command = warehouse.command("ingest", "simulate", "--rate", str(RATE))
    log = (warehouse.folder / "simulate.log").open("ab")

    def start() -> "subprocess.Popen[bytes]":
        return subprocess.Popen(command, cwd=ROOT, env=warehouse.environment, stdout=log, stderr=log)

    simulators = [start()]

    def start_again() -> None:
        if simulators[-1].poll() is not None:
            simulators.append(start())

    errors: list[str] = []
    try:
        with repeated(start_again, errors, 1.0):
            yield
        simulators[-1].terminate()
        simulators[-1].wait(60)
    finally:
        simulators[-1].kill()
        simulators[-1].wait()
        log.close()
    assert not errors


@pytest.mark.filterwarnings("ignore:The return_immediately flag is deprecated")
def test_kills_of_the_process_and_the_brokers_lose_nothing(
    kafka: KafkaServer, pubsub_emulator: PubSubEmulator, tmp_path: Path
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201  shown when the test fails
    draw = random.Random(seed)
    topics = {stream: f"live-{seed}-{stream}" for stream in STREAMS}
    (tmp_path / "kafka.properties").write_text(KAFKA_PROPERTIES)
    warehouse = Warehouse(
        tmp_path / "live",
        {
            "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "KAFKA_CONFIG_FILE": str(tmp_path / "kafka.properties"),
            "PUBSUB_PROJECT": pubsub_emulator.project,
            "PUBSUB_EMULATOR_HOST": pubsub_emulator.host,
            "TOPICS": json.dumps(topics),
        },
    )
    warehouse.folder.mkdir()
    for stream in PUBSUB:
        subscribe(pubsub_emulator, topics[stream], "landing")
        subscribe(pubsub_emulator, topics[stream], "audit")
    warehouse.run("ingest", "provision")
    live = LiveProcess(warehouse)
    unreadable: list[str] = []
    live.start()
    try:
        with shop_publishes(warehouse):
            live.wait_for(lambda: live.version, "a first version", 300)
            with repeated(lambda: check_current(warehouse), unreadable, 0.1):
                for number in range(KILLS):
                    time.sleep(draw.uniform(0, 10))
                    assert live.running.poll() is None, live.last_lines
                    kill_and_start(("live", "kafka", "pubsub", "both")[number % 4], live, kafka, pubsub_emulator, draw)
                    live.wait_for_versions(2)
        sent_to_kafka = {stream: published_to_kafka(kafka, topics[stream]) for stream in KAFKA}
        sent_to_pubsub = {stream: published_to_pubsub(pubsub_emulator, topics[stream]) for stream in PUBSUB}
        live.end()
    finally:
        live.kill()
    assert not unreadable
    assert "Traceback" not in live.log.read_text()
    warehouse.land()
    for stream, sent in sent_to_kafka.items():
        rows = warehouse.query(f'select "partition", "offset", key, attributes, payload from raw.{stream}')
        assert content(rows) == content(sent), stream
    for stream, sent in sent_to_pubsub.items():
        rows = warehouse.query(f"select message_id, attributes, payload from raw.{stream}")
        assert content(rows).keys() == content(sent).keys(), stream
    check_marts(warehouse, tmp_path / "anew")
    assert warehouse.query("select count(*) - count(distinct event_key) from analytics.fct_events") == [(0,)]
    assert warehouse.query("select count(*) from analytics.landing_reconciliation where not is_balanced") == [(0,)]


def kill_and_start(
    what: str, live: LiveProcess, kafka: KafkaServer, pubsub: PubSubEmulator, draw: random.Random
) -> None:
    """Kill the live process, Kafka or both, or let Pub/Sub hang, whose messages would be gone; then undo it."""
    if what == "pubsub":
        pubsub.pause()
        time.sleep(draw.uniform(0, 15))
        pubsub.resume()
        return
    if what != "kafka":
        live.kill()
    if what != "live":
        kafka.stop()
        time.sleep(draw.uniform(0, 5))
    if what == "both":
        live.start()
    if what != "live":
        kafka.start()
    if what == "live":
        live.start()
