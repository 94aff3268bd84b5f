"""KafkaPublisher and PubSubPublisher against real servers."""

import itertools
import os
from typing import Any

import orjson
import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from ingest.errors import UserError
from ingest.message import Message
from ingest.provision import provision
from ingest.publish import kafka as publish_kafka
from ingest.publish.kafka import KafkaPublisher
from ingest.publish.pubsub import PubSubPublisher
from ingest.settings import Settings
from ingest.sources.kafka import KafkaSource
from ingest.sources.pubsub import PubSubSource
from ingest.streams import STREAMS
from tests.brokers import KafkaServer, PubSubEmulator, free_port

pytestmark = pytest.mark.brokers

USERS = STREAMS["users"]
CLICKS = STREAMS["clicks"]
numbers = itertools.count()


@pytest.fixture
def settings(kafka_server: KafkaServer, pubsub_emulator: PubSubEmulator) -> Settings:
    number = next(numbers)
    return Settings(
        _env_file=None,
        kafka_bootstrap_servers=kafka_server.bootstrap_servers,
        kafka_group_id=f"publish-{number}",
        pubsub_project=pubsub_emulator.project,
        pubsub_emulator_host=pubsub_emulator.host,
        topics={"users": f"users-{number}", "clicks": f"clicks-publish-{number}"},
    )


def test_kafka_keeps_order_key_headers_and_time(settings: Settings) -> None:
    provision(settings, [USERS])
    messages = [
        Message(str(number).encode(), f"user-{number % 7}".encode(), {"n": str(number)}, 1_600_000_000_123_456 + number)
        for number in range(1000)
    ]
    with KafkaPublisher(settings) as publisher:
        assert publisher.publish(USERS, iter([*messages, Message(None, b"user-0")])) == 1001
    source = KafkaSource(settings, [USERS], dict)
    rows = [row for batch in iter(lambda: source.fetch(0), None) for row in batch.tables["users"].to_pylist()]
    source.close()

    by_key: dict[bytes, list[bytes | None]] = {}
    partitions: dict[bytes, set[int]] = {}
    for row in rows:
        by_key.setdefault(row["key"], []).append(row["payload"])
        partitions.setdefault(row["key"], set()).add(row["partition"])
        if row["payload"] is not None:
            assert row["attributes"] == f'{{"n":"{int(row["payload"])}"}}'
            assert row["published_at"].isoformat() == "2020-09-13T12:26:40.12" + (
                "3000" if int(row["payload"]) < 544 else "4000"
            )
    expected = {f"user-{k}".encode(): [str(n).encode() for n in range(k, 1000, 7)] for k in range(7)}
    expected[b"user-0"].append(None)  # type: ignore[arg-type]
    assert by_key == expected
    assert all(len(found) == 1 for found in partitions.values())
    assert len(set.union(*partitions.values())) > 1


def test_kafka_reports_what_was_not_delivered(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    provision(settings, [USERS])
    publisher = KafkaPublisher(settings)
    with pytest.raises(UserError, match=settings.topic(USERS)), publisher:
        publisher.publish(USERS, [Message(b"x" * 2_000_000)])
    elsewhere = settings.model_copy(update={"topics": {"users": "not-there"}})
    with pytest.raises(UserError, match="no topic not-there"), KafkaPublisher(elsewhere) as publisher:
        publisher.publish(USERS, [Message(b"x")])
    narrow = settings.model_copy(update={"topics": {"users": "narrow"}})
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})
    admin.create_topics([NewTopic("narrow", 1, 1, config={"max.message.bytes": "200"})])["narrow"].result()
    with pytest.raises(UserError, match="did not take 3 messages"), KafkaPublisher(narrow) as publisher:
        publisher.publish(USERS, [Message(os.urandom(1000))] * 3)
    monkeypatch.setattr(publish_kafka, "ANSWER_SECONDS", 2.0)
    nowhere = settings.model_copy(update={"kafka_bootstrap_servers": f"127.0.0.1:{free_port()}"})
    with pytest.raises(UserError, match="does not answer"):
        KafkaPublisher(nowhere)


def test_pubsub_keeps_bodies_and_attributes(settings: Settings) -> None:
    provision(settings, [CLICKS])
    messages = [Message(str(number).encode(), b"key", {"n": str(number), "data": "x"}) for number in range(3000)]
    with PubSubPublisher(settings) as publisher:
        assert publisher.publish(CLICKS, iter(messages)) == 3000
    source = PubSubSource(settings, [CLICKS])
    rows: list[dict[str, Any]] = []
    while len(rows) < 3000 and (batch := source.fetch(5.0)):
        rows += batch.tables["clicks"].to_pylist()
        source.acknowledge(batch)
    source.close()
    assert sorted(int(row["payload"]) for row in rows) == list(range(3000))
    for row in rows:
        assert orjson.loads(row["attributes"]) == {"n": row["payload"].decode(), "data": "x"}


def test_pubsub_reports_a_missing_topic(settings: Settings) -> None:
    with (
        pytest.raises(UserError, match=r"no projects/test-project/topics/.*ingest provision"),
        PubSubPublisher(settings) as publisher,
    ):
        publisher.publish(CLICKS, [Message(b"x")])
