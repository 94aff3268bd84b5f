"""Runs `python -m ingest ARGUMENTS`, killed at a step: `python -m tests.ingest.killed_loader STEP NTH ARGUMENTS`."""

import itertools
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import duckdb
from confluent_kafka import Consumer
from google.cloud.pubsub_v1 import SubscriberClient

from ingest.brokers import kafka as brokers_kafka
from ingest.cli import main
from ingest.sources.kafka import KafkaSource
from ingest.sources.pubsub import PubSubSource

STEPS = (
    "after a fetch from Kafka",
    "after a fetch from Pub/Sub",
    "between two inserts",
    "before the commit",
    "after the commit",
    "before the offset commit",
    "after the offset commit",
    "before the ack",
    "amid the acks",
)

times = itertools.count(1)
chosen: tuple[str, int] = ("", 0)


def reach(step: str) -> None:
    """Kill this process if this is the nth call of the given step."""
    if step == chosen[0] and next(times) == chosen[1]:
        os.kill(os.getpid(), signal.SIGKILL)


def killed(method: Callable[..., Any], *, before: str = "", after: str = "") -> Callable[..., Any]:
    """Wrap a method with a step before it, and a step after it if it returned something."""

    def call(*arguments: Any, **options: Any) -> Any:
        reach(before)
        result = method(*arguments, **options)
        if result is not None:
            reach(after)
        return result

    return call


class KilledConsumer(Consumer):
    def commit(self, *arguments: Any, **options: Any) -> Any:
        result = super().commit(*arguments, **options)
        reach("after the offset commit")
        return result


class KilledConnection:
    """A DuckDB connection in which each statement is a step."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._inserts = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, sql: str, *parameters: Any) -> Any:
        if sql.lstrip().startswith("insert into raw."):
            self._inserts += 1
            if self._inserts == 2:
                reach("between two inserts")
        if sql != "commit":
            return self._connection.execute(sql, *parameters)
        reach("before the commit")
        result = self._connection.execute(sql)
        if self._inserts:
            reach("after the commit")
        return result


def prepare() -> None:
    connect = duckdb.connect
    duckdb.connect = lambda *arguments, **options: KilledConnection(connect(*arguments, **options))
    brokers_kafka.Consumer = KilledConsumer
    KafkaSource.fetch = killed(KafkaSource.fetch, after="after a fetch from Kafka")
    KafkaSource.acknowledge = killed(KafkaSource.acknowledge, before="before the offset commit")
    PubSubSource.fetch = killed(PubSubSource.fetch, after="after a fetch from Pub/Sub")
    PubSubSource.acknowledge = killed(PubSubSource.acknowledge, before="before the ack")
    acknowledge = SubscriberClient.acknowledge

    def acknowledge_some(*arguments: Any, **options: Any) -> None:
        acknowledge(*arguments, **options)
        reach("amid the acks")

    SubscriberClient.acknowledge = acknowledge_some


if __name__ == "__main__":
    prepare()
    chosen = (sys.argv[1], int(sys.argv[2]))
    sys.argv[1:] = sys.argv[3:]
    main()
