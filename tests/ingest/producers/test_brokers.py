"""KafkaProducer and PubSubProducer against real servers."""

import itertools
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from common.errors import UnavailableError, UserError
from common.settings import Settings
from common.streams import STREAMS
from ingest.brokers import kafka_topics
from ingest.message import Message
from ingest.producers import RoutingProducer, retentions
from ingest.producers import kafka as producers_kafka
from ingest.producers.kafka import KafkaProducer
from ingest.producers.pubsub import PubSubProducer
from ingest.provision import provision
from ingest.replay import Replay
from ingest.simulator import simulate
from ingest.sources.kafka import KafkaSource
from ingest.sources.pubsub import PubSubSource
from tools.brokers import KafkaServer, PubSubEmulator, free_port

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
    with KafkaProducer(settings) as producer:
        assert producer.produce(USERS, iter([*messages, Message(None, b"user-0")])) == 1001
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


def test_kafka_reports_undelivered_messages(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    provision(settings, [USERS])
    producer = KafkaProducer(settings)
    with pytest.raises(UserError, match=settings.topic(USERS)), producer:
        producer.produce(USERS, [Message(b"x" * 2_000_000)])
    elsewhere = settings.model_copy(update={"topics": {"users": "not-there"}})
    with pytest.raises(UserError, match="no topic not-there"), KafkaProducer(elsewhere) as producer:
        producer.produce(USERS, [Message(b"x")])
    narrow = settings.model_copy(update={"topics": {"users": "narrow"}})
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})
    admin.create_topics([NewTopic("narrow", 1, 1, config={"max.message.bytes": "200"})])["narrow"].result()
    with pytest.raises(UserError, match="rejected 3 messages"), KafkaProducer(narrow) as producer:
        producer.produce(USERS, [Message(os.urandom(1000))] * 3)
    monkeypatch.setattr(producers_kafka, "REQUEST_TIMEOUT_SECONDS", 2.0)
    nowhere = settings.model_copy(update={"kafka_bootstrap_servers": f"127.0.0.1:{free_port()}"})
    with pytest.raises(UserError, match="does not answer"):
        KafkaProducer(nowhere)


def test_pubsub_keeps_bodies_and_attributes(settings: Settings) -> None:
    provision(settings, [CLICKS])
    messages = [Message(str(number).encode(), b"key", {"n": str(number), "data": "x"}) for number in range(3000)]
    with PubSubProducer(settings) as producer:
        assert producer.produce(CLICKS, iter(messages)) == 3000
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
        PubSubProducer(settings) as producer,
    ):
        producer.produce(CLICKS, [Message(b"x")])


# -- replaying --------------------------------------------------------------------------------------------------------


def create_topic(settings: Settings, **config: str) -> None:
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})
    name = settings.topic(USERS)
    admin.create_topics([NewTopic(name, 1, 1, config={key.replace("_", "."): value for key, value in config.items()})])[
        name
    ].result()


def in_kafka(settings: Settings) -> int:
    source = KafkaSource(settings, [USERS], dict)
    waiting = source.waiting()["users"]
    source.close()
    assert waiting is not None
    return waiting


def users_file(tmp_path: Path, *bodies: dict[str, Any]) -> str:
    file = tmp_path / "users.ndjson"
    file.write_bytes(
        b"\n".join(orjson.dumps({"user_id": 1, "updated_at": time.time_ns() // 1000} | body) for body in bodies)
    )
    return str(file)


DAY = "86400000"


@pytest.mark.parametrize(
    ("config", "kept"),
    [
        ({}, None),
        ({"retention_ms": "-1"}, None),
        ({"retention_ms": str(2**63 - 1)}, None),
        ({"retention_ms": DAY}, timedelta(days=1)),
        ({"retention_ms": DAY, "cleanup_policy": "compact,delete"}, timedelta(days=1)),
        ({"retention_ms": DAY, "cleanup_policy": "compact"}, None),
        ({"retention_ms": DAY, "message_timestamp_type": "LogAppendTime"}, None),
    ],
)
def test_retention_is_read_from_the_topic(settings: Settings, config: dict[str, str], kept: timedelta | None) -> None:
    assert (
        retentions(settings, [USERS, CLICKS, STREAMS["posts"]]) == {}
    )  # USERS has no topic yet, and clicks are not in Kafka
    create_topic(settings, **config)
    assert retentions(settings, [USERS, CLICKS]) == ({} if kept is None else {"users": kept})


def test_retention_of_brokers_that_do_not_answer_is_an_error(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_topics, "REQUEST_TIMEOUT_SECONDS", 2.0)
    nowhere = settings.model_copy(update={"kafka_bootstrap_servers": f"127.0.0.1:{free_port()}"})
    with pytest.raises(UnavailableError, match="does not answer"):
        retentions(nowhere, [USERS])


def test_history_is_not_replayed_into_a_topic_that_deletes_it(settings: Settings, tmp_path: Path) -> None:
    create_topic(settings, retention_ms=DAY)
    file = users_file(tmp_path, {"updated_at": "2020-01-01"}, {}, {"updated_at": "2020-01-02"})
    with pytest.raises(
        UserError, match=rf"^2 of 3 rows are older than the retention of Kafka topic {settings.topic(USERS)}, 24 hours"
    ):
        Replay(settings, [file], USERS)
    assert in_kafka(settings) == 0
    with RoutingProducer(settings) as producer:
        assert Replay(settings, [file], USERS, force=True).publish(producer) == 3
        assert Replay(settings, [users_file(tmp_path, {})], USERS).publish(producer) == 1


def test_days_are_not_simulated_into_a_topic_that_deletes_them(settings: Settings, tmp_path: Path) -> None:
    create_topic(settings, retention_ms=DAY)
    local = settings.model_copy(update={"spool_path": tmp_path, "pubsub_project": None})
    with (
        RoutingProducer(local) as producer,
        pytest.raises(UserError, match=rf"topic {local.topic(USERS)} has a retention of 24 hours: .* of 2026-01-01"),
    ):
        simulate(local, producer, days=1, seed=1, events_per_day=10)
    assert list(tmp_path.iterdir()) == []
    provision(local, [STREAMS[name] for name in ("ecom_events", "post_events", "products", "posts")])
    today = datetime.now(UTC).date()
    with RoutingProducer(local) as producer:
        assert simulate(local, producer, days=1, seed=1, events_per_day=10, start=today).total > 0


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        (None, "a message of 1,500,0.. bytes is too large for Kafka topic .*: message.max.bytes is 1000000"),
        ("2000000", "rejected 1 message: Broker: Message size too large; the largest has 1,500,0.. bytes"),
    ],
)
def test_a_row_too_large_for_kafka_is_named(settings: Settings, tmp_path: Path, limit: str | None, reason: str) -> None:
    """It is rejected by the client or, if the broker's limit is lower, by the broker."""
    create_topic(settings, max_message_bytes="1048588")
    if limit:
        properties = tmp_path / "kafka.properties"
        properties.write_text(f"message.max.bytes={limit}\ncompression.type=none\nbatch.size=100000\n")
        settings = settings.model_copy(update={"kafka_config_file": properties})
    file = users_file(tmp_path, {}, {}, {"first_name": "x" * 1_500_000}, {})
    replay = Replay(settings, [file], USERS)
    with pytest.raises(UserError, match=rf"^{file}, row 3: .*{reason}"), RoutingProducer(settings) as producer:
        replay.publish(producer)
    assert in_kafka(settings) >= 2


def test_a_row_too_large_for_pubsub_is_named(settings: Settings, tmp_path: Path) -> None:
    provision(settings, [CLICKS])
    file = tmp_path / "clicks.ndjson"
    body = {"click_id": 1, "user_id": 1, "product_id": 1, "datetime_occured": "2026-01-01", "url": ""}
    urls = ["", "x" * 9_998_000, "x" * 9_999_999, ""]
    file.write_bytes(b"\n".join(orjson.dumps(body | {"url": url}) for url in urls))
    replay = Replay(settings, [str(file)], CLICKS)
    reason = rf"^{file}, row 3: a message of 10,000,\d+ bytes is too large for Pub/Sub"
    with PubSubProducer(settings) as producer, pytest.raises(UserError, match=reason):
        replay.publish(producer)
    source = PubSubSource(settings, [CLICKS])
    sizes: list[int] = []
    while len(sizes) < 2 and (batch := source.fetch(5.0)):
        sizes += [len(payload) for payload in batch.tables["clicks"]["payload"].to_pylist()]
        source.acknowledge(batch)
    source.close()
    assert sorted(size > 9_000_000 for size in sizes) == [False, True]
