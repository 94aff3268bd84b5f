"""How fast landing is, compared with only consuming the messages and with other ways to land them.

Apache Kafka and Google's Pub/Sub emulator hold messages of 300 bytes. Contenders take turns, each in its own process
and into a new DuckDB file, which must then hold all messages. Time is measured from the first messages consumed to the
last commit, without start-up and joining the consumer group.
"""

import json
import logging
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any
from unittest.mock import patch
from uuid import uuid4

import duckdb
import fastavro
import structlog
from confluent_kafka import Consumer
from google.pubsub_v1.types import PullResponse

from benchmarks.measure import Figure, in_process, peer_python, short_rounds
from benchmarks.report import Plot, Ratio, Section, Table, file_system
from common.settings import Settings
from common.streams import STREAMS, Stream
from engines.duckdb.sink import DuckDBSink
from ingest.brokers.pubsub import open_subscriber
from ingest.landing import land
from ingest.message import Message
from ingest.producers import RoutingProducer
from ingest.provision import provision
from ingest.sources import kafka_batch, open_sources, pubsub
from tools.brokers import KafkaServer, PubSubEmulator, running
from tools.brokers.local_registry import LocalRegistry

PEERS = Path(__file__).parent / "peers"

BYTES = 300
KAFKA, PUBSUB = STREAMS["ecom_events"], STREAMS["clicks"]
# Messages for the slower peers, which take about ten seconds for them.
DLT_COUNT, LOOP_COUNT, ONE_INSERT_COUNT = 200_000, 10_000, 500_000

AVRO = KAFKA.model_copy(update={"format": "avro"})
AVRO_TOPIC = "ecom_events_avro"
AVRO_SCHEMA = {
    "type": "record",
    "name": "EcomEvent",
    "fields": [
        {"name": "event_time", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "event_type", "type": {"type": "enum", "name": "Kind", "symbols": ["view", "cart"]}},
        {"name": "product_id", "type": "string"},
        {"name": "category_code", "type": ["null", "string"]},
        {"name": "brand", "type": ["null", "string"]},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}},
        {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
    ],
}
"""The same fields as in the JSON messages."""

BROKER_ROUNDS = 3
"""Rounds with brokers per round of the other parts: their times vary more."""

ONE_INSERT = "plain loop, one insert a batch"
DLT_VERSION = next(
    line.partition("==")[2]
    for line in (PEERS / "requirements-dlt.txt").read_text().splitlines()
    if line.startswith("dlt[")
)

Rate = tuple[float, int]
"""Messages per second, and peak memory in MiB."""


def consume(settings: Settings, group: str, count: int) -> Rate:
    """Consume from Kafka with landing's client library and its defaults."""
    consumer = Consumer(
        {
            "bootstrap.servers": settings.kafka_bootstrap_servers,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([settings.topic(KAFKA)])
    taken = 0
    started = 0.0
    while taken < count:
        taken += len(consumer.consume(5_000, 1.0))
        if not started and taken:
            started = time.monotonic()
    rate = count / (time.monotonic() - started)
    consumer.close()
    return rate, peak_memory()


def pull(settings: Settings, _: str, count: int) -> Rate:
    """Pull and acknowledge messages of Pub/Sub in as many threads as landing uses."""
    client = open_subscriber(settings)
    subscription = settings.subscription(PUBSUB)
    arrivals: list[float] = []
    taken: list[tuple[float, int]] = []

    def pull_some(_: int) -> None:
        while sum(rows for _, rows in taken) < count:
            response = PullResponse.pb(client.pull(subscription=subscription, max_messages=1_000, timeout=10))
            if ack_ids := [one.ack_id for one in response.received_messages]:
                arrivals.append(time.monotonic())
                client.acknowledge(subscription=subscription, ack_ids=ack_ids)
                taken.append((time.monotonic(), len(ack_ids)))

    with ThreadPoolExecutor(pubsub.PULLERS_PER_STREAM) as pool:
        list(pool.map(pull_some, range(pubsub.PULLERS_PER_STREAM)))
    # measured to the last messages, not to the end of the threads, which wait for more
    return count / (taken[-1][0] - arrivals[0]), peak_memory()


def land_all(settings: Settings, group: str, count: int, stream: Stream) -> Rate:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    module, name = {"kafka": (kafka_batch, "kafka_table"), "pubsub": (pubsub, "pulled_table")}[stream.transport]
    to_table = getattr(module, name)
    arrivals: list[float] = []

    def timed(*arguments: object) -> object:
        """Called by the sources with the messages that the client has just returned."""
        arrivals.append(time.monotonic())
        return to_table(*arguments)

    with TemporaryDirectory() as folder:
        settings = settings.model_copy(
            update={"kafka_group_id": group, "warehouse_path": Path(folder) / "warehouse.duckdb"}
        )
        sink = DuckDBSink(settings.warehouse_path)
        sink.create_tables()
        commits: list[tuple[float, int]] = []
        with patch.object(module, name, timed), open_sources(settings, [stream], sink.positions) as sources:
            land(settings, sources, sink, on_progress=lambda rows: commits.append((time.monotonic(), rows)))
        memory = peak_memory()
        landed = sum(rows for _, rows in commits)
        assert landed == count, f"landed {landed} of {count}"  # noqa: S101
        check(settings.warehouse_path, f"raw.{stream.name}", "message_id", count)
        if stream.format != "json":
            check(settings.warehouse_path, f"raw.{stream.name} where decoded is not null", "message_id", count)
        return count / (commits[-1][0] - arrivals[0]), memory


def land_avro(settings: Settings, group: str, count: int) -> Rate:
    STREAMS[AVRO.name] = AVRO  # in this process only
    return land_all(settings.model_copy(update={"topics": {AVRO.name: AVRO_TOPIC}}), group, count, AVRO)


def run_peer(command: list[str], table: str, key: str, settings: Settings, group: str, count: int) -> Rate:
    """Run the script of a peer, which measures its own time."""
    with TemporaryDirectory() as folder:
        database = Path(folder) / "peer.duckdb"
        where = [settings.kafka_bootstrap_servers or "", settings.topic(KAFKA), group, str(count), str(database)]
        result = subprocess.run([*command, *where], cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
        reported = json.loads(result.stdout.splitlines()[-1])
        in_process(check, database, table, key, count)
        return count / reported["seconds"], reported["peak_mib"]


def check(database: Path, table: str, key: str, count: int) -> None:
    """Check that the table holds this many messages, each once."""
    with duckdb.connect(str(database), read_only=True) as connection:
        query = f"select count(*), count(distinct ({key})) from {table}"  # noqa: S608  names of ours
        rows, different = connection.execute(query).fetchall()[0]
    assert rows == different == count, f"{table} holds {rows} rows, {different} different, of {count}"  # noqa: S101


def peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def messages(count: int) -> Iterator[Message]:
    """Different bodies of 300 bytes that compress about as well as real ones."""
    for number in range(count):
        body = f'{{"event_time": "2020-09-24 11:57:06 UTC", "event_type": "view", "product_id": "{number}", '
        body += f'"category_code": "electronics.telephone", "brand": "samsung", "price": "31.90", "id": "{uuid4()}"'
        yield Message(f"{body:{BYTES - 1}}}}".encode(), str(number).encode())


def avro_messages(count: int, schema_id: int) -> Iterator[Message]:
    """The same events in Confluent's wire format."""
    schema = fastavro.parse_schema(AVRO_SCHEMA)
    event = {"event_type": "view", "category_code": "electronics.telephone", "brand": "samsung"}
    fixed = {"event_time": datetime(2020, 9, 24, 11, 57, 6, tzinfo=UTC), "price": Decimal("31.90"), **event}
    for number in range(count):
        stream = BytesIO()
        stream.write(b"\0" + schema_id.to_bytes(4, "big"))
        fastavro.schemaless_writer(stream, schema, {**fixed, "product_id": str(number), "id": str(uuid4())})
        yield Message(stream.getvalue(), str(number).encode())


def publish(settings: Settings, stream: Stream, count: int) -> None:
    with RoutingProducer(settings) as producer:
        producer.produce(stream, messages(count))


def publish_avro(settings: Settings, count: int, schema_id: int) -> None:
    with RoutingProducer(settings.model_copy(update={"topics": {AVRO.name: AVRO_TOPIC}})) as producer:
        producer.produce(AVRO, avro_messages(count, schema_id))


def measure_kafka(count: int, rounds: int, dlt_python: Path) -> dict[str, list[Rate]]:
    """Contender to its rate in each round."""
    contenders: dict[str, tuple[int, Callable[[Settings, str, int], Rate]]] = {
        "consume only": (count, partial(in_process, consume)),
        "land": (count, lambda *arguments: in_process(land_all, *arguments, KAFKA)),
        "land, Avro": (count, partial(in_process, land_avro)),
    }
    dlt = [str(dlt_python), str(PEERS / "dlt_landing.py")]
    contenders["dlt"] = (DLT_COUNT, partial(run_peer, dlt, "raw.events", "_kafka__partition, _kafka__offset"))
    plain = [sys.executable, str(PEERS / "plain_landing.py")]
    for name, command, wanted in (
        ("plain loop", plain, LOOP_COUNT),
        (ONE_INSERT, [*plain, "--one-insert"], ONE_INSERT_COUNT),
    ):
        contenders[name] = (wanted, partial(run_peer, command, "events", '"partition", "offset"'))
    rates: dict[str, list[Rate]] = {name: [] for name in contenders}
    with TemporaryDirectory() as folder, running(KafkaServer(Path(folder))) as server, LocalRegistry() as registry:
        settings = Settings(
            _env_file=None, kafka_bootstrap_servers=server.bootstrap_servers, schema_registry_url=registry.url
        )
        provision(settings, [KAFKA])
        in_process(publish, settings, KAFKA, count)
        provision(settings.model_copy(update={"topics": {AVRO.name: AVRO_TOPIC}}), [AVRO])
        schema_id = registry.register(f"{AVRO_TOPIC}-value", json.dumps(AVRO_SCHEMA))
        in_process(publish_avro, settings, count, schema_id)
        for number in range(rounds):
            for name, (wanted, measure) in contenders.items():
                os.sync()  # so that commits wait for their own writes only, not for earlier ones
                rates[name].append(measure(settings, f"{name}-{number}", min(wanted, count)))
    return rates


def measure_pubsub(count: int, rounds: int) -> dict[str, list[Rate]]:
    """Contender to its rate in each round."""
    contenders: dict[str, tuple[Any, ...]] = {"pull only": (pull,), "land": (land_all, PUBSUB)}
    rates: dict[str, list[Rate]] = {name: [] for name in contenders}
    with TemporaryDirectory() as folder, running(PubSubEmulator(Path(folder))) as emulator:
        for number in range(-1, rounds):
            # alternate the order: the emulator gets slower with every message
            for name, (work, *more) in list(contenders.items())[:: -1 if number % 2 else 1]:
                # one topic per run, so that no messages are left from an earlier one
                settings = Settings(
                    _env_file=None,
                    pubsub_project=emulator.project,
                    pubsub_emulator_host=emulator.host,
                    topics={PUBSUB.name: f"{name.replace(' ', '-')}-{number}"},
                )
                provision(settings, [PUBSUB])
                in_process(publish, settings, PUBSUB, count)
                os.sync()
                rate = in_process(work, settings, "", count, *more)
                if number >= 0:  # the first round is a warm-up of the emulator, whose code is compiled while it runs
                    rates[name].append(rate)
    return rates


def landing(kafka_count: int, pubsub_count: int, rounds: int) -> Section:
    """Measure landing of this many messages from Kafka and from each topic of Pub/Sub."""
    from_kafka = measure_kafka(kafka_count, short_rounds(rounds, BROKER_ROUNDS), peer_python("dlt"))
    from_pubsub = measure_pubsub(pubsub_count, short_rounds(rounds, BROKER_ROUNDS))
    tables = []
    for transport, rates in (("Kafka", from_kafka), ("Pub/Sub emulator", from_pubsub)):
        first = next(iter(rates))
        tables.append(
            Table(
                [f"from {transport}", "messages a second", f"share of {first}", "peak MiB"],
                [
                    [
                        name,
                        Figure([rate for rate, _ in of_rounds]),
                        Figure(_ratios(rates, name, first)),
                        max(memory for _, memory in of_rounds),
                    ]
                    for name, of_rounds in rates.items()
                ],
            )
        )
    ratios = [
        Ratio("Kafka: land / consume only", _ratios(from_kafka, "land", "consume only"), at_least=0.55),
        Ratio("Kafka: land Avro / land JSON", _ratios(from_kafka, "land, Avro", "land"), at_least=0.5),
        Ratio("Kafka: land / dlt", _ratios(from_kafka, "land", "dlt")),
        Ratio("Kafka: land / plain loop", _ratios(from_kafka, "land", "plain loop")),
        Ratio("Kafka: land / plain loop, one insert a batch", _ratios(from_kafka, "land", ONE_INSERT)),
        Ratio("Pub/Sub emulator: land / pull only", _ratios(from_pubsub, "land", "pull only"), at_least=0.7),
        Ratio("Kafka: peak GiB of land", [memory / 1024 for _, memory in from_kafka["land"]], at_most=1.0),
    ]
    bars = {f"Kafka, {name}": rates for name, rates in from_kafka.items()} | {
        f"Pub/Sub emulator, {name}": rates for name, rates in from_pubsub.items()
    }
    return Section(
        "Landing",
        f"Messages of 300 bytes, {kafka_count:,} of them in 4 partitions of Kafka and {pubsub_count:,} in a"
        " subscription of the emulator, which is slower with a longer backlog. Brokers run on the same cores. In Avro,"
        " with a registry, the same events have 100 bytes. dlt and the loops are slower and land fewer messages. What"
        " is landed is counted. Brokers and warehouses are in the folder of temporary"
        f" files, on {file_system(Path(gettempdir()))}, whose speed matters to a loop that commits each batch.",
        tables,
        ratios,
        [
            Plot(
                "landing",
                "Messages landed",
                "messages a second",
                {name: {"": Figure([rate for rate, _ in rates]).median} for name, rates in bars.items()},
            )
        ],
        {
            "dlt": f"{DLT_VERSION}, the loop of its Kafka source into DuckDB by Parquet, with larger buffers and two"
            " workers (benchmarks/peers/dlt_landing.py)",
            "plain loop": "consume 1,000, json.loads, `executemany` in one transaction, commit the offsets; with one"
            " insert a batch, DuckDB parses the texts of a batch (benchmarks/peers/plain_landing.py)",
        },
    )


def _ratios(rates: dict[str, list[Rate]], one: str, other: str) -> list[float]:
    return [a / b for (a, _), (b, _) in zip(rates[one], rates[other], strict=True)]
