"""How much slower landing is than only taking the messages: `python -m benchmarks.landing [KAFKA] [PUBSUB]`.

Starts Apache Kafka and Google's Pub/Sub emulator, publishes that many messages of 300 bytes to each (0 leaves one out),
and alternates between the bare client and `land` into a new DuckDB file, in a process of its own each. Rates leave out
what comes before the first message: start-up, and joining the group.
"""

import logging
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import structlog
from confluent_kafka import Consumer
from google.pubsub_v1.types import PullResponse

from ingest.landing import land
from ingest.message import Message
from ingest.provision import provision
from ingest.publish import RoutingPublisher
from ingest.settings import Settings
from ingest.sinks.duckdb import DuckDBSink
from ingest.sources import open_sources
from ingest.sources.pubsub import PULLERS_PER_STREAM, open_subscriber
from ingest.streams import STREAMS, Stream
from tests.brokers import KafkaServer, PubSubEmulator, running

BYTES = 300
ROUNDS = 3
KAFKA, PUBSUB = STREAMS["ecom_events"], STREAMS["clicks"]

Rate = tuple[float, int]
"""Messages a second, and peak memory in MiB."""


def consume(settings: Settings, group: str, count: int) -> Rate:
    """Kafka's messages, by the same client, with its own defaults."""
    consumer = Consumer(
        {
            "bootstrap.servers": settings.kafka_bootstrap_servers,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([settings.topic(KAFKA)])
    taken = first = 0
    started = 0.0
    while taken < count:
        taken += len(consumer.consume(5_000, 1.0))
        if not started and taken:
            started, first = time.monotonic(), taken
    rate = (count - first) / (time.monotonic() - started)
    consumer.close()
    return rate, peak_memory()


def pull(settings: Settings, _: str, count: int) -> Rate:
    """Pub/Sub's messages, pulled and acknowledged by as many threads as landing has."""
    client = open_subscriber(settings)
    subscription = f"projects/{settings.pubsub_project}/subscriptions/{settings.subscription(PUBSUB)}"
    taken: list[tuple[float, int]] = []
    started = time.monotonic()

    def pull_some(_: int) -> None:
        while sum(rows for _, rows in taken) < count:
            response = PullResponse.pb(client.pull(subscription=subscription, max_messages=1_000, timeout=10))
            if ack_ids := [one.ack_id for one in response.received_messages]:
                client.acknowledge(subscription=subscription, ack_ids=ack_ids)
                taken.append((time.monotonic(), len(ack_ids)))

    with ThreadPoolExecutor(PULLERS_PER_STREAM) as pool:
        list(pool.map(pull_some, range(PULLERS_PER_STREAM)))
    # not until the threads end, which wait for more
    return count / (taken[-1][0] - started), peak_memory()


def land_all(settings: Settings, group: str, count: int, stream: Stream) -> Rate:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with TemporaryDirectory() as folder:
        settings = settings.model_copy(
            update={"kafka_group_id": group, "warehouse_path": Path(folder) / "warehouse.duckdb"}
        )
        sink = DuckDBSink(settings.warehouse_path)
        sink.create_tables()
        commits: list[tuple[float, int]] = []
        started = time.monotonic()
        with open_sources(settings, [stream], sink.positions) as sources:
            land(settings, sources, sink, on_progress=lambda rows: commits.append((time.monotonic(), rows)))
        landed = sum(rows for _, rows in commits)
        assert landed == count, f"landed {landed} of {count}"  # noqa: S101
        (first_at, first), (last_at, _) = commits[0], commits[-1]
        if stream.transport == "pubsub":  # has nothing to join: counted from the start
            first_at, first = started, 0
        return (count - first) / (last_at - first_at), peak_memory()


def peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def apart(work: Callable[..., Rate], *arguments: object) -> Rate:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def messages(count: int) -> Iterator[Message]:
    """Bodies of 300 bytes, no two alike, that compress about as real ones do."""
    for number in range(count):
        body = f'{{"event_time": "2020-09-24 11:57:06 UTC", "event_type": "view", "product_id": "{number}", '
        body += f'"category_code": "electronics.telephone", "brand": "samsung", "price": "31.90", "id": "{uuid4()}"'
        yield Message(f"{body:{BYTES - 1}}}}".encode(), str(number).encode())


def main(kafka_count: int = 2_000_000, pubsub_count: int = 60_000) -> None:
    with (
        TemporaryDirectory() as folder,
        ExitStack() as opened,
    ):
        settings = Settings(_env_file=None)
        if kafka_count:
            kafka = opened.enter_context(running(KafkaServer(Path(folder))))
            settings.kafka_bootstrap_servers = kafka.bootstrap_servers
            provision(settings, [KAFKA])
            with RoutingPublisher(settings) as publisher:
                publisher.publish(KAFKA, messages(kafka_count))
        if pubsub_count:
            pubsub = opened.enter_context(running(PubSubEmulator(Path(folder))))
            settings.pubsub_project, settings.pubsub_emulator_host = pubsub.project, pubsub.host
            provision(settings, [PUBSUB])
        print(f"{'':8}{'alone/s':>12}{'land/s':>12}{'ratio':>8}{'MiB':>8}")
        for number in range(ROUNDS):
            for name, bare, stream, count in (
                ("kafka", consume, KAFKA, kafka_count),
                ("pubsub", pull, PUBSUB, pubsub_count),
            ):
                if not count:
                    continue
                rates = []
                for work, more in ((bare, ()), (land_all, (stream,))):
                    if stream is PUBSUB:
                        with RoutingPublisher(settings) as publisher:
                            publisher.publish(PUBSUB, messages(pubsub_count))
                    rates.append(apart(work, settings, f"{work.__name__}-{number}", count, *more))
                (alone, _), (landed, memory) = rates
                print(f"{name:8}{alone:12,.0f}{landed:12,.0f}{landed / alone:8.2f}{memory:8}", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
