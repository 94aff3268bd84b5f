"""KafkaSource against a real Kafka: it returns the produced messages, starting at the warehouse's positions."""

import itertools
import json
import time
import traceback
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)
from prometheus_client import REGISTRY

from common.errors import UnavailableError, UserError
from common.settings import Settings
from common.streams import STREAMS, Stream
from engines.batch import BATCH_SCHEMA, Batch, Positions, TopicIds
from engines.warehouse import utc_now
from ingest.brokers import kafka_topics
from ingest.brokers.kafka import client_config
from ingest.provision import provision
from ingest.sources import kafka, kafka_backlog, kafka_batch
from ingest.sources.kafka import KafkaSource
from tests.ingest.conftest import Start
from tools.brokers import KafkaServer, free_port

pytestmark = pytest.mark.brokers

STREAM = STREAMS["ecom_events"]
numbers = itertools.count()


class Warehouse:
    """A minimal sink in memory: rows, and the positions committed with them."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.ends: dict[tuple[str, int], int] = {}

    def positions(self, _: TopicIds) -> Positions:
        return dict(self.ends)

    def commit(self, batch: Batch) -> None:
        for table in batch.tables.values():
            assert table.schema == BATCH_SCHEMA
            # Like a sink, skip messages that another loader has landed from this partition.
            self.rows += [
                row for row in table.to_pylist() if row["offset"] >= self.ends.get((row["topic"], row["partition"]), 0)
            ]
        for partition, end in batch.positions.items():
            self.ends[partition] = max(end, self.ends.get(partition, 0))

    def drain(self, source: KafkaSource) -> None:
        while batch := source.fetch(0):
            self.commit(batch)
            source.acknowledge(batch)


@pytest.fixture
def admin(kafka_server: KafkaServer) -> AdminClient:
    return AdminClient({"bootstrap.servers": kafka_server.bootstrap_servers})


@pytest.fixture
def settings(kafka_server: KafkaServer, admin: AdminClient) -> Settings:
    """Settings with a topic and a consumer group for one test."""
    number = next(numbers)
    topic = f"source-{number}"
    admin.create_topics([NewTopic(topic, 4, 1)])[topic].result()
    return Settings(
        _env_file=None,
        kafka_bootstrap_servers=kafka_server.bootstrap_servers,
        kafka_group_id=f"group-{number}",
        topics={STREAM.name: topic},
    )


@pytest.fixture
def producer(kafka_server: KafkaServer) -> Iterator[Producer]:
    producer = Producer(
        {
            "bootstrap.servers": kafka_server.bootstrap_servers,
            "message.max.bytes": 10_000_000,
            "enable.idempotence": True,  # so that retries keep the order
        }
    )
    yield producer
    assert producer.flush(60) == 0


@pytest.fixture
def open_source() -> Iterator[Any]:
    opened: list[KafkaSource] = []

    def open_source(settings: Settings, warehouse: Warehouse, streams: tuple[Stream, ...] = (STREAM,)) -> KafkaSource:
        opened.append(KafkaSource(settings, streams, warehouse.positions))
        return opened[-1]

    yield open_source
    for source in opened:
        source.close()


def topic_of(settings: Settings) -> str:
    return settings.topic(STREAM)


def produce(producer: Producer, topic: str, values: range, partitions: int = 4) -> None:
    send(producer, topic, values, partitions)
    assert producer.flush(30) == 0


def values(warehouse: Warehouse) -> list[int]:
    return sorted(int(row["payload"]) for row in warehouse.rows)


def test_messages_arrive_as_they_were_sent(settings: Settings, producer: Producer, open_source: Any) -> None:
    topic = topic_of(settings)
    large = bytes(range(256)) * 4096
    producer.produce(topic, None, b"tombstone", partition=0, timestamp=1_600_000_000_123)
    producer.produce(topic, b"", None, partition=0)
    producer.produce(
        topic, b"\xff\x00", b"\xfe", partition=0, headers=[("plain", "Z\u00fcrich"), ("raw", b"\xff"), ("none", None)]
    )
    producer.produce(topic, large, b"", partition=0, headers=[("twice", "a"), ("twice", "b")])
    # A time outside of years 1 to 9999, as from a producer that sends nanoseconds instead of milliseconds.
    producer.produce(topic, b"far", partition=0, timestamp=1_700_000_000_000_000_000)
    producer.flush(30)
    warehouse = Warehouse()
    warehouse.drain(open_source(settings, warehouse))

    rows = warehouse.rows
    assert [row["payload"] for row in rows] == [None, b"", b"\xff\x00", large, b"far"]
    assert [row["key"] for row in rows] == [b"tombstone", None, b"\xfe", b"", None]
    assert [row["message_id"] for row in rows] == [f"{topic}/0/{offset}" for offset in range(5)]
    assert {(row["source"], row["topic"], row["partition"]) for row in rows} == {("kafka", topic, 0)}
    assert [row["offset"] for row in rows] == list(range(5))
    assert [row["attributes"] and orjson.loads(row["attributes"]) for row in rows] == [
        None,
        None,
        {"plain": "Z\u00fcrich", "raw": {"base64": "/w=="}, "none": None},
        {"twice": ["a", "b"]},
        None,
    ]
    assert rows[0]["published_at"].isoformat() == "2020-09-13T12:26:40.123000"
    assert abs(rows[1]["published_at"].timestamp() - time.time()) < 86_400
    assert rows[4]["published_at"] is None
    assert warehouse.ends == {(topic, 0): 5}


def test_consuming_starts_at_the_warehouses_positions(settings: Settings, producer: Producer, open_source: Any) -> None:
    produce(producer, topic_of(settings), range(40))
    first = Warehouse()
    source = open_source(settings, first)
    first.drain(source)
    assert values(first) == list(range(40))
    source.close()

    # The group's offsets are at the end. An empty warehouse gets all messages; one at offset 5 continues there.
    empty, behind = Warehouse(), Warehouse()
    behind.ends = {(topic_of(settings), partition): 5 for partition in range(4)}
    for warehouse, expected in ((empty, range(40)), (behind, range(20, 40))):
        source = open_source(settings, warehouse)
        warehouse.drain(source)
        assert values(warehouse) == list(expected)
        source.close()


def test_acknowledged_offsets_are_committed_to_kafka(
    settings: Settings, producer: Producer, open_source: Any, admin: AdminClient
) -> None:
    produce(producer, topic_of(settings), range(8))

    def committed() -> dict[int, int]:
        request = ConsumerGroupTopicPartitions(settings.kafka_group_id)
        group = admin.list_consumer_group_offsets([request])[settings.kafka_group_id].result()
        return {partition.partition: partition.offset for partition in group.topic_partitions}

    warehouse = Warehouse()
    source = open_source(settings, warehouse)
    batch = source.fetch(0)
    assert batch.rows == 8
    source.close()
    assert committed() == {}
    source = open_source(settings, warehouse)
    warehouse.drain(source)
    source.close()
    assert committed() == {0: 2, 1: 2, 2: 2, 3: 2}


def test_a_topic_is_drained_in_bounded_batches(settings: Settings, producer: Producer, open_source: Any) -> None:
    produce(producer, topic_of(settings), range(5000))
    warehouse = Warehouse()
    source = open_source(settings.model_copy(update={"landing_max_rows": 999}), warehouse)
    assert source.waiting() == {STREAM.name: 5000}
    sizes = []
    while batch := source.fetch(0):
        sizes.append(batch.rows)
        warehouse.commit(batch)
    assert sizes == [999] * 5 + [5]
    assert values(warehouse) == list(range(5000))
    assert source.waiting() == {STREAM.name: 0}
    started = time.monotonic()
    assert source.fetch(0) is None
    assert source.fetch(1.0) is None
    assert time.monotonic() - started >= 1.0
    produce(producer, topic_of(settings), range(5000, 5010))
    late = source.fetch(60.0)
    assert late is not None and 1 <= late.rows <= 10


def test_a_batch_is_full_once_it_reaches_the_bytes(
    settings: Settings, producer: Producer, open_source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "CHUNK_ROWS", 1)
    sizes = [400] * 5 + [5000] * 2 + [10]
    for size in sizes:
        producer.produce(topic_of(settings), b"x" * size, partition=0)
    producer.flush(10)
    source = open_source(settings.model_copy(update={"landing_max_bytes": 1024}), Warehouse())
    batches = [batch.tables[STREAM.name] for batch in iter(lambda: source.fetch(0), None)]
    assert [size for batch in batches for size in map(len, batch["payload"].to_pylist())] == sizes
    assert [batch.num_rows for batch in batches] == [3, 3, 1, 1]


def test_messages_deleted_by_retention_are_counted_and_skipped(
    settings: Settings, producer: Producer, open_source: Any, admin: AdminClient
) -> None:
    topic = topic_of(settings)
    produce(producer, topic, range(40))
    warehouse = Warehouse()
    warehouse.drain(open_source(settings, warehouse))
    produce(producer, topic, range(40, 80))
    # Offsets 10 to 14 of partitions 0 and 1 never land: the numbers 40, 44, .. 56 and 41, 45, .. 57.
    deleted = admin.delete_records([TopicPartition(topic, partition, 15) for partition in (0, 1)])
    for future in deleted.values():
        future.result()
    before = lost()
    warehouse.drain(open_source(settings.model_copy(update={"kafka_group_id": f"{topic}-later"}), warehouse))
    assert lost() - before == 10
    assert values(warehouse) == sorted({*range(80)} - {*range(40, 60, 4)} - {*range(41, 60, 4)})


def test_offsets_without_messages_are_neither_waiting_nor_lost(
    settings: Settings, kafka_server: KafkaServer, open_source: Any, admin: AdminClient
) -> None:
    """Transaction markers at the end and after an abort, also after retention has deleted them."""
    topic = topic_of(settings)
    before = lost()
    warehouse = Warehouse()

    def land() -> None:
        with closing(KafkaSource(settings, [STREAM], warehouse.positions)) as source:
            warehouse.drain(source)
            assert source.waiting() == {STREAM.name: 0}

    with transactions(kafka_server) as producer:
        producer.begin_transaction()
        send(producer, topic, range(10), partitions=2)
        producer.commit_transaction()
        land()
        assert warehouse.ends == {(topic, 0): 6, (topic, 1): 6}
        producer.begin_transaction()
        send(producer, topic, range(200), partitions=2)
        producer.flush()
        producer.abort_transaction()
        assert open_source(settings, warehouse).waiting() == {STREAM.name: 0}
        land()
        assert warehouse.ends == {(topic, 0): 107, (topic, 1): 107}
    for partition in (0, 1):
        admin.delete_records([TopicPartition(topic, partition, -1)])[TopicPartition(topic, partition, -1)].result()
    land()
    assert values(warehouse) == list(range(10))
    assert lost() == before


def test_a_position_advances_past_deleted_offsets_without_a_message(
    settings: Settings, producer: Producer, open_source: Any, admin: AdminClient
) -> None:
    """So that a loss is reported once, by the first loader."""
    topic = topic_of(settings)
    produce(producer, topic, range(40))
    for partition in range(4):
        admin.delete_records([TopicPartition(topic, partition, 10)])[TopicPartition(topic, partition, 10)].result()
    warehouse = Warehouse()
    warehouse.ends = {(topic, partition): 3 for partition in range(3)}
    before = lost()
    for _ in range(2):
        with closing(KafkaSource(settings, [STREAM], warehouse.positions)) as source:
            warehouse.drain(source)
    assert lost() - before == 3 * 7
    assert warehouse.ends == {(topic, partition): 10 for partition in range(4)}


def test_messages_of_an_open_transaction_are_waiting(
    settings: Settings, kafka_server: KafkaServer, open_source: Any, producer: Producer
) -> None:
    topic = topic_of(settings)
    produce(producer, topic, range(4))
    warehouse = Warehouse()
    with transactions(kafka_server) as transaction:
        transaction.begin_transaction()
        send(transaction, topic, range(4, 10))
        transaction.flush()
        source = open_source(settings, warehouse)
        assert source.waiting() == {STREAM.name: 10}
        warehouse.drain(source)
        assert values(warehouse) == list(range(4))
        assert source.waiting() == {STREAM.name: 6}
        transaction.commit_transaction()
    while len(warehouse.rows) < 10 and (batch := source.fetch(10.0)):
        warehouse.commit(batch)
    warehouse.drain(source)
    assert values(warehouse) == list(range(10))
    assert source.waiting() == {STREAM.name: 0}


def test_compacted_messages_are_neither_waiting_nor_lost(
    settings: Settings, kafka_server: KafkaServer, open_source: Any, admin: AdminClient, producer: Producer
) -> None:
    topic = f"{topic_of(settings)}-compacted"
    compaction = {"cleanup.policy": "compact", "segment.ms": "100", "min.cleanable.dirty.ratio": "0.001"}
    admin.create_topics([NewTopic(topic, 1, 1, config=compaction)])[topic].result()
    settings = settings.model_copy(update={"topics": {STREAM.name: topic}})
    warehouse = Warehouse()

    def send_versions(values: range) -> None:
        for value in values:
            producer.produce(topic, str(value).encode(), key=b"key")
        assert producer.flush(30) == 0

    def wait_until_compacted() -> None:
        """Kafka never compacts the newest segment, so a message after 100 ms closes it."""
        time.sleep(0.3)
        send_versions(range(999, 1000))
        until = time.monotonic() + 120
        while open_source(settings, Warehouse()).waiting()[STREAM.name] > 2:
            assert time.monotonic() < until
            time.sleep(0.3)

    before = lost()
    send_versions(range(100))
    warehouse.commit(open_source(settings.model_copy(update={"landing_max_rows": 50}), warehouse).fetch(0))
    assert warehouse.ends == {(topic, 0): 50}
    wait_until_compacted()
    source = open_source(settings.model_copy(update={"kafka_group_id": topic}), warehouse)
    waiting = source.waiting()[STREAM.name]
    warehouse.drain(source)
    assert waiting == len(warehouse.rows) - 50 <= 2
    assert source.waiting() == {STREAM.name: 0}
    assert lost() == before


def test_the_backlog_beyond_the_counted_messages_is_estimated_by_offsets(
    settings: Settings, producer: Producer, open_source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_backlog, "COUNTED_MESSAGES", 3)
    produce(producer, topic_of(settings), range(40))
    source = open_source(settings, Warehouse())
    assert source.waiting() == {STREAM.name: 40}
    [oldest] = source.oldest_waiting().values()
    assert 0 <= (utc_now() - oldest).total_seconds() < 60


@contextmanager
def transactions(server: KafkaServer) -> Iterator[Producer]:
    producer = Producer({"bootstrap.servers": server.bootstrap_servers, "transactional.id": f"id-{next(numbers)}"})
    producer.init_transactions()
    yield producer
    producer.flush()


def send(producer: Producer, topic: str, values: range, partitions: int = 4) -> None:
    """Produce without waiting for the delivery."""
    for value in values:
        producer.produce(topic, str(value).encode(), partition=value % partitions)


def lost() -> float:
    return REGISTRY.get_sample_value("landing_lost_messages_total", {"stream": STREAM.name}) or 0.0


@pytest.mark.parametrize("is_counted", [False, True])
def test_an_error_at_a_gap_is_retried_and_the_gap_counted_once(
    settings: Settings,
    producer: Producer,
    open_source: Any,
    admin: AdminClient,
    monkeypatch: pytest.MonkeyPatch,
    is_counted: bool,
) -> None:
    """A retry reads the warehouse's positions again, as each assignment of partitions does."""
    topic = topic_of(settings)
    produce(producer, topic, range(40))
    warehouse = Warehouse()
    first = open_source(settings, warehouse)
    warehouse.commit(first.fetch(0))
    first.close()
    produce(producer, topic, range(40, 80))
    admin.delete_records([TopicPartition(topic, 0, 15)])[TopicPartition(topic, 0, 15)].result()
    source = open_source(settings, warehouse)
    skip, away = source._assignment.skip_gap, [UnavailableError("away")] * 2

    before = lost()

    def skip_gap(*partition: Any) -> None:
        if is_counted:
            skip(*partition)
        if away:
            raise away.pop()
        skip(*partition)

    monkeypatch.setattr(source._assignment, "skip_gap", skip_gap)
    for _ in range(2):
        with pytest.raises(UnavailableError):
            warehouse.drain(source)
    warehouse.drain(source)
    assert lost() - before == 5
    assert values(warehouse) == sorted({*range(80)} - {*range(40, 60, 4)})


def test_a_topic_that_a_broker_does_not_know_yet_is_requested_again(
    settings: Settings, producer: Producer, open_source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    produce(producer, topic_of(settings), range(40))
    warehouse = Warehouse()
    source = open_source(settings, warehouse)
    describe, ignorant = source._topics.describe, [{}, {}]
    monkeypatch.setattr(source._topics, "describe", lambda topics: ignorant.pop() if ignorant else describe(topics))
    warehouse.drain(source)
    assert not ignorant
    assert values(warehouse) == list(range(40))


def test_the_end_of_a_busy_topic_is_where_it_was_at_the_start(
    settings: Settings, producer: Producer, open_source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`is_end` marks the batch that completes the messages waiting at the start, although more keep arriving."""
    topic = topic_of(settings)
    produce(producer, topic, range(4000))
    warehouse = Warehouse()
    source = open_source(settings.model_copy(update={"landing_max_seconds": 0.2, "landing_max_rows": 999}), warehouse)
    on_event = source._on_event

    def on_event_but_no_end(error: Any, *of_partition: Any) -> None:
        if error.code() != KafkaError._PARTITION_EOF:
            on_event(error, *of_partition)

    monkeypatch.setattr(source, "_on_event", on_event_but_no_end)
    ends = []
    for produced in range(4000, 12_000, 1000):  # more messages with each batch, as in a busy topic
        batch = source.fetch(0)
        warehouse.commit(batch)
        ends.append(batch.is_end)
        assert batch.is_end == (set(values(warehouse)) >= set(range(4000)))
        produce(producer, topic, range(produced, produced + 1000))
        if batch.is_end:
            break
    assert ends[0] is False
    assert ends[-1] is True


def test_headers_with_invalid_names_do_not_stop_landing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulates confluent-kafka's error for a name that is not UTF-8, which its own producer cannot send."""

    class Message:
        def __init__(self, headers: Any) -> None:
            self._headers = headers

        def headers(self) -> Any:
            if self._headers is None:
                raise SystemError("<method 'headers'> returned a result with an exception set")
            return self._headers

        def topic(self) -> str:
            return "users"

        partition = offset = lambda self: 0

    monkeypatch.setattr(kafka_batch, "RECORD", Message)
    readable = [("a", b"1")]
    assert kafka_batch.read_headers([Message(readable), Message(None), Message([])]) == [
        readable,
        [("unreadable_headers", b"true")],
        [],
    ]


def test_a_topic_that_ends_before_the_position_is_an_error(
    settings: Settings, producer: Producer, open_source: Any
) -> None:
    produce(producer, topic_of(settings), range(8))
    warehouse = Warehouse()
    warehouse.ends = {(topic_of(settings), 0): 1000}
    source = open_source(settings, warehouse)
    with pytest.raises(UserError, match="created again"):
        warehouse.drain(source)


def test_a_rebalance_neither_loses_nor_duplicates_messages(
    settings: Settings, producer: Producer, open_source: Any
) -> None:
    topic = topic_of(settings)
    produce(producer, topic, range(2000))
    warehouse = Warehouse()
    # With a bound on bytes, consumed messages remain for the next batch. They must not survive their assignment.
    small = settings.model_copy(update={"landing_max_bytes": 1024})
    one = open_source(small, warehouse)
    under_way = [one.fetch(0)]
    two = open_source(small, warehouse)
    fetched = {one: 0, two: 0}
    ids: dict[KafkaSource, list[str]] = {one: under_way[0].tables[STREAM.name]["message_id"].to_pylist(), two: []}
    produced = 2000
    until = time.monotonic() + 120
    while time.monotonic() < until and not (len(warehouse.rows) == produced == 4000):
        for source in (two, one):
            # Not `fetch`: it would wait for the other consumer, which waits for this thread.
            if batch := _fetch_without_waiting(source):
                fetched[source] += batch.rows
                ids[source] += batch.tables[STREAM.name]["message_id"].to_pylist()
                # The first consumer's commits are slow: they come after the second has taken over and landed.
                under_way.append(batch)
                if source is two or fetched[two] > 500:
                    commit_now = under_way if fetched[two] > 500 else [under_way.pop()]
                    for ready in commit_now:
                        warehouse.commit(ready)
                    under_way = under_way if commit_now is not under_way else []
                    source.acknowledge(batch)
        if len(warehouse.rows) == produced < 4000:
            produce(producer, topic, range(produced, produced + 400))
            produced += 400
    assert min(fetched.values()) > 0, "both consumers had partitions"
    assert values(warehouse) == list(range(produced))
    # Neither consumer fetched a message twice, although positions were read during a commit.
    assert all(len(set(fetched_ids)) == len(fetched_ids) for fetched_ids in ids.values())


def _fetch_without_waiting(source: KafkaSource) -> Batch | None:
    patience, kafka.FETCH_TIMEOUT_SECONDS = kafka.FETCH_TIMEOUT_SECONDS, 0.2
    try:
        return source.fetch(0)
    except UserError:
        return None
    finally:
        kafka.FETCH_TIMEOUT_SECONDS = patience


def test_positions_are_read_at_every_assignment(settings: Settings, producer: Producer, open_source: Any) -> None:
    """Another loader took over, landed more messages and left: these are not fetched again."""
    topic = topic_of(settings)
    produce(producer, topic, range(400))
    warehouse = Warehouse()
    source = open_source(settings, warehouse)
    warehouse.drain(source)
    other = open_source(settings, warehouse)
    until = time.monotonic() + 120
    while len(source._assignment.partitions or ()) != 2 or len(other._assignment.partitions or ()) != 2:
        assert time.monotonic() < until
        assert _fetch_without_waiting(source) is _fetch_without_waiting(other) is None
    taken_over = other._assignment.partitions
    produce(producer, topic, range(400, 800))
    warehouse.ends = {(topic, partition): 190 for partition in range(4)}
    other.close()
    regained = []
    while batch := source.fetch(3.0):
        for row in batch.tables[STREAM.name].to_pylist():
            if (topic, row["partition"]) in taken_over:
                regained.append(row["offset"])
    assert sorted(regained) == sorted([*range(190, 200)] * 2)


def test_consuming_continues_after_a_restart_of_the_broker(
    settings: Settings, producer: Producer, open_source: Any, kafka_server: KafkaServer
) -> None:
    produce(producer, topic_of(settings), range(100))
    warehouse = Warehouse()
    source = open_source(settings, warehouse)
    warehouse.drain(source)
    kafka_server.stop()
    assert source.fetch(0.5) is None
    kafka_server.start()
    produce(producer, topic_of(settings), range(100, 200))
    until = time.monotonic() + 120
    while len(warehouse.rows) < 200 and time.monotonic() < until:
        if batch := source.fetch(1.0):
            warehouse.commit(batch)
            source.acknowledge(batch)
    assert values(warehouse) == list(range(200))


def test_a_missing_topic_is_not_waited_for(settings: Settings, producer: Producer, open_source: Any) -> None:
    produce(producer, topic_of(settings), range(4))
    posts = STREAMS["posts"]
    both = settings.model_copy(update={"topics": {**settings.topics, "posts": "not-there"}})
    warehouse = Warehouse()
    source = open_source(both, warehouse, (STREAM, posts))
    warehouse.drain(source)
    assert values(warehouse) == [0, 1, 2, 3]
    assert source.waiting() == {STREAM.name: 0, "posts": 0}
    source.close()
    alone = open_source(both, warehouse, (posts,))
    assert alone.fetch(0) is None


# -- what is not allowed ----------------------------------------------------------------------------------------------


@pytest.fixture
def restricted(settings: Settings, kafka_server: KafkaServer, tmp_path: Path) -> Settings:
    """Settings of a user whose ACLs allow the group, READ of ecom_events and DESCRIBE of posts, and hide users."""
    (tmp_path / "reader.properties").write_text(
        "".join(f"{name}={value}\n" for name, value in kafka_server.restricted.items())
    )
    topics = {name: f"{topic_of(settings)}-{name}" for name in ("users", "posts")}
    admin = AdminClient({"bootstrap.servers": kafka_server.bootstrap_servers})
    for created in admin.create_topics([NewTopic(topic, 1, 1) for topic in topics.values()]).values():
        created.result()
    allow(admin, ResourceType.GROUP, settings.kafka_group_id, AclOperation.READ)
    allow(admin, ResourceType.TOPIC, topic_of(settings), AclOperation.READ)
    allow(admin, ResourceType.TOPIC, topics["posts"], AclOperation.DESCRIBE)
    return settings.model_copy(
        update={
            "kafka_bootstrap_servers": None,
            "kafka_config_file": tmp_path / "reader.properties",
            "topics": {**settings.topics, **topics},
        }
    )


def allow(admin: AdminClient, kind: ResourceType, name: str, operation: AclOperation) -> None:
    allowed = AclBinding(
        kind, name, ResourcePatternType.LITERAL, "User:reader", "*", operation, AclPermissionType.ALLOW
    )
    admin.create_acls([allowed])[allowed].result()


ALL_THREE = (STREAM, STREAMS["users"], STREAMS["posts"])


def test_topics_without_permission_are_named_and_the_others_landed(
    restricted: Settings, producer: Producer, open_source: Any, admin: AdminClient
) -> None:
    produce(producer, topic_of(restricted), range(40))
    warehouse = Warehouse()
    source = open_source(restricted, warehouse, ALL_THREE)
    users, posts = (restricted.topic(stream) for stream in ALL_THREE[1:])
    problems = [f"this client may not read Kafka topic {topic}: grant it " for topic in (posts, users)]
    assert source.waiting() == {STREAM.name: 40, "users": None, "posts": None}
    warehouse.drain(source)
    assert values(warehouse) == list(range(40))
    assert [problem.startswith(expected) for problem, expected in zip(source.problems, problems, strict=True)]

    # A topic that becomes readable is landed without a restart.
    for topic in (users, posts):
        allow(admin, ResourceType.TOPIC, topic, AclOperation.READ)
        produce(producer, topic, range(40, 44), partitions=1)
    until = time.monotonic() + 120
    while len(warehouse.rows) < 48 and time.monotonic() < until:
        if batch := source.fetch(1.0):
            warehouse.commit(batch)
    assert len(values(warehouse)) == 48
    assert source.problems == []


def test_a_topic_without_permission_exits_2(
    restricted: Settings, producer: Producer, start: Start, admin: AdminClient
) -> None:
    produce(producer, topic_of(restricted), range(40))
    settings = {
        "KAFKA_CONFIG_FILE": str(restricted.kafka_config_file),
        "KAFKA_GROUP_ID": restricted.kafka_group_id,
        "TOPICS": json.dumps(restricted.topics),
        "STREAMS": json.dumps([stream.name for stream in ALL_THREE]),
    }
    topics = [restricted.topic(STREAMS[name]) for name in ("posts", "users")]
    for command, shown in (("land", "landed 40 messages"), ("status", " users "), ("provision", "")):
        out, err = (process := start(command, **settings)).communicate(timeout=60)
        assert process.returncode == 2, command
        assert shown in out
        assert all(f"may not read Kafka topic {topic}" in err.splitlines()[-1] for topic in topics)
    out, err = (process := start("land", **settings | {"KAFKA_GROUP_ID": "other"})).communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert "may not use the consumer group other: grant it READ on the group" in err.splitlines()[-1]
    with pytest.raises(
        UserError, match=f"may not read Kafka topic {topics[0]}.*; .*may not read Kafka topic {topics[1]}"
    ):
        provision(restricted, list(ALL_THREE))
    # The client has the permissions for the remaining stream.
    process = start("land", **settings | {"STREAMS": json.dumps([STREAM.name])})
    assert process.communicate(timeout=60) == ("landed 0 messages\n", "")
    assert process.returncode == 0


def test_brokers_that_do_not_answer_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_topics, "REQUEST_TIMEOUT_SECONDS", 2.0)
    server = f"127.0.0.1:{free_port()}"
    settings = Settings(_env_file=None, kafka_bootstrap_servers=server)
    with pytest.raises(UserError, match=f"Kafka at {server} does not answer: .*") as error:
        KafkaSource(settings, [STREAM], dict)
    assert "\n" not in str(error.value)


def test_after_a_warehouse_error_consuming_starts_at_the_same_position(settings: Settings, producer: Producer) -> None:
    produce(producer, topic_of(settings), range(40))
    warehouse = Warehouse()
    fails = [UserError("locked")]

    def read_positions(ids: TopicIds) -> Positions:
        if fails:
            raise fails.pop()
        return warehouse.positions(ids)

    source = KafkaSource(settings, [STREAM], read_positions)
    with pytest.raises(UserError, match="locked"):
        source.fetch(0)
    warehouse.drain(source)
    assert values(warehouse) == list(range(40))
    source.close()


def test_kafka_group_id_overrides_the_group_of_the_properties_file(
    tmp_path: Path, settings: Settings, producer: Producer, admin: AdminClient, capsys: pytest.CaptureFixture[str]
) -> None:
    produce(producer, topic_of(settings), range(8))
    path = tmp_path / "client.properties"
    # with a byte order mark, as written by editors on Windows
    path.write_text("group.id=from-file\nenable.auto.commit=true\nauto.offset.reset=error\n", encoding="utf-8-sig")
    given = settings.model_dump(include={"kafka_bootstrap_servers", "topics"})
    for changes, group in (({}, "from-file"), ({"kafka_group_id": "set"}, "set")):
        warehouse = Warehouse()
        source = KafkaSource(Settings(_env_file=None, kafka_config_file=path, **given, **changes), [STREAM], dict)
        batch = source.fetch(0)
        warehouse.commit(batch)
        source.acknowledge(batch)
        source.close()
        [described] = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)]).values()
        assert {partition.topic for partition in described.result().topic_partitions} == {topic_of(settings)}
    ignored = [line for line in capsys.readouterr().out.splitlines() if "is ignored" in line]
    assert len(ignored) == 2
    assert all("enable.auto.commit" in line for line in ignored)


def test_a_librdkafka_properties_file_is_read(tmp_path: Path, settings: Settings) -> None:
    path = tmp_path / "client.properties"
    path.write_text(
        "# Confluent\n\nbootstrap.servers = nowhere:1\nsasl.password=a=b#c\nschema.registry.url=https://x\n"
    )
    with_file = settings.model_copy(update={"kafka_config_file": path})
    assert client_config(with_file) == {
        "bootstrap.servers": settings.kafka_bootstrap_servers,
        "sasl.password": "a=b#c",
    }
    alone = with_file.model_copy(update={"kafka_bootstrap_servers": None})
    assert client_config(alone)["bootstrap.servers"] == "nowhere:1"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("sasl.password s3cret", "line 1: expected key=value"),
        ("no.such.thing=s3cret", 'No such configuration property: "no.such.thing"'),
        ("sasl.password=x\nMIIEs3cret=", "line 2: expected key=value"),
        ("session.timeout.ms=s3cret", 'Invalid value for configuration property "session.timeout.ms"'),
    ],
)
def test_the_error_of_an_invalid_properties_file_shows_no_secret(
    tmp_path: Path, settings: Settings, content: str, message: str
) -> None:
    path = tmp_path / "client.properties"
    path.write_text(content)
    with pytest.raises(UserError, match=message) as error:
        KafkaSource(settings.model_copy(update={"kafka_config_file": path}), [STREAM], dict)
    assert "s3cret" not in "".join(traceback.format_exception(error.value))
