"""Landing from real brokers while loaders are killed, brokers pause, and partitions and topics change.

`python -m ingest land` runs as a process. Afterwards the warehouse must have each message exactly once.
"""

import itertools
import json
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import duckdb
import pytest
from confluent_kafka import Consumer, ConsumerGroupState, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewPartitions, NewTopic

from common.errors import UserError
from common.settings import Settings
from common.streams import STREAMS
from engines.duckdb.sink import DuckDBSink
from ingest.brokers.pubsub import open_publisher, open_subscriber
from tests.ingest.killed_loader import STEPS
from tools import ROOT
from tools.brokers import KafkaServer, PubSubEmulator
from tools.warehouses.commands import Warehouse

pytestmark = pytest.mark.brokers

ACK_DEADLINE_SECONDS = 10
"""The shortest ack deadline of a subscription."""
# The partitions of a killed member are blocked until its session times out.
KAFKA_PROPERTIES = """\
session.timeout.ms=1500
heartbeat.interval.ms=300
topic.metadata.refresh.interval.ms=500
reconnect.backoff.max.ms=1000
"""
numbers = itertools.count()

Row = tuple[Any, ...]


def wait_for(condition: Callable[[], bool], seconds: float = 180.0, what: str = "it") -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"{what} did not happen in time"
        time.sleep(0.1)


class Landing(Warehouse):
    """A warehouse, and the loader processes that land in it."""

    def rows(self, sql: str) -> list[Row]:
        """Return the rows of a query; wait while a loader holds the file."""
        with DuckDBSink(self.path).connection(read_only=True) as connection:
            return connection.sql(sql).fetchall()

    def payloads(self, stream: str) -> Counter[bytes]:
        if not self.path.exists():
            return Counter()
        return Counter(payload for (payload,) in self.rows(f"select payload from raw.{stream}"))

    @property
    def log(self) -> str:
        """Log of all loaders."""
        return (self.folder / "stderr").read_text()

    def start(self, *command: str) -> "subprocess.Popen[bytes]":
        with (self.folder / "stderr").open("ab") as stderr:
            return subprocess.Popen(
                self.command(*command), cwd=ROOT, env=self.environment, stdout=subprocess.DEVNULL, stderr=stderr
            )

    @contextmanager
    def loader(self, *options: str) -> Iterator["subprocess.Popen[bytes]"]:
        """Run a loader that follows. At the end it must still be running, unless the test ended it."""
        process = self.start("ingest", "land", "--follow", *options)
        try:
            yield process
            assert process.poll() in {None, 0, -signal.SIGKILL}, f"the loader ended by itself:\n{self.log[-3000:]}"
            if process.poll() is None:
                stop(process)
        finally:
            process.kill()
            process.wait()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the DuckDB file, as a long build does."""
        with DuckDBSink(self.path).connection():
            yield


def stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    assert process.wait(120) == 0


def kill(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()


# -- a loader killed at any instant -----------------------------------------------------------------------------------

RANDOM_KILLS = 12
KILLS_AT_EACH_STEP = 2
KILLS_PER_DAYS = 9
"""Number of loaders to kill between two runs of the simulator."""
KAFKA_STREAMS = [stream.name for stream in STREAMS.values() if stream.transport == "kafka"]
PUBSUB_STREAMS = [stream.name for stream in STREAMS.values() if stream.transport == "pubsub"]


@pytest.fixture
def both(kafka_server: KafkaServer, pubsub_emulator: PubSubEmulator, tmp_path: Path) -> Landing:
    """A warehouse with all streams from its own topics. Each Pub/Sub topic has a second subscription, `...-audit`."""
    number = next(numbers)
    topics = {stream: f"kills-{number}-{stream}" for stream in STREAMS}
    (tmp_path / "kafka.properties").write_text(KAFKA_PROPERTIES)
    landing = Landing(
        tmp_path / "landing",
        {
            "KAFKA_BOOTSTRAP_SERVERS": kafka_server.bootstrap_servers,
            "KAFKA_CONFIG_FILE": str(tmp_path / "kafka.properties"),
            "KAFKA_GROUP_ID": f"kills-{number}",
            "PUBSUB_PROJECT": pubsub_emulator.project,
            "PUBSUB_EMULATOR_HOST": pubsub_emulator.host,
            "TOPICS": json.dumps(topics),
        },
    )
    landing.folder.mkdir()
    for stream in PUBSUB_STREAMS:
        subscribe(pubsub_emulator, topics[stream], "landing")
        subscribe(pubsub_emulator, topics[stream], "audit")
    landing.run("ingest", "provision")
    return landing


def subscribe(emulator: PubSubEmulator, topic: str, name: str, **options: Any) -> None:
    """Create the topic if it is missing, and the subscription `<topic>-<name>` to it."""
    settings = emulator_settings(emulator)
    with open_publisher(settings) as publisher, open_subscriber(settings) as subscriber:
        path = f"projects/{emulator.project}/topics/{topic}"
        if path not in {found.name for found in publisher.list_topics(project=f"projects/{emulator.project}")}:
            publisher.create_topic(name=path)
        wanted = {
            "name": f"projects/{emulator.project}/subscriptions/{topic}-{name}",
            "topic": path,
            "ack_deadline_seconds": ACK_DEADLINE_SECONDS,
        }
        subscriber.create_subscription(request=wanted | options)


def emulator_settings(emulator: PubSubEmulator) -> Settings:
    return Settings(_env_file=None, pubsub_project=emulator.project, pubsub_emulator_host=emulator.host)


def published_to_pubsub(emulator: PubSubEmulator, topic: str) -> list[Row]:
    """Return (message id, attributes, payload) of all published messages, from the subscription `<topic>-audit`."""
    subscription = f"projects/{emulator.project}/subscriptions/{topic}-audit"
    published = {}
    with open_subscriber(emulator_settings(emulator)) as subscriber:
        while received := subscriber.pull(
            subscription=subscription, max_messages=1000, return_immediately=True
        ).received_messages:
            for one in received:
                published[one.message.message_id] = (dict(one.message.attributes), one.message.data)
            subscriber.acknowledge(subscription=subscription, ack_ids=[one.ack_id for one in received])
    return [(message_id, *message) for message_id, message in published.items()]


def published_to_kafka(server: KafkaServer, topic: str) -> list[Row]:
    """Return (partition, offset, key, headers, payload) of every message in the topic."""
    consumer = Consumer(
        {"bootstrap.servers": server.bootstrap_servers, "group.id": "audit", "enable.partition.eof": True}
    )
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    published, ends = [], 0
    until = time.monotonic() + 120
    while ends < len(partitions):
        assert time.monotonic() < until
        for message in consumer.consume(1000, 0.2):
            if message.error() is not None:
                ends += 1
                continue
            headers = {name: value.decode() for name, value in message.headers() or ()}
            published.append((message.partition(), message.offset(), message.key(), headers, message.value()))
    consumer.close()
    return published


def content(rows: list[Row]) -> Counter[Row]:
    """Count rows, whose last columns are attributes (JSON text or a dict) and payload."""

    def items(attributes: str | dict[str, str] | None) -> Row:
        return tuple(sorted((json.loads(attributes) if isinstance(attributes, str) else attributes or {}).items()))

    return Counter((*row[:-2], items(row[-2]), row[-1]) for row in rows)


@pytest.mark.timeout(2400)
@pytest.mark.filterwarnings("ignore:The return_immediately flag is deprecated")
def test_a_loader_killed_at_any_step_neither_loses_nor_duplicates_messages(
    both: Landing, kafka_server: KafkaServer, pubsub_emulator: PubSubEmulator, tmp_path: Path
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201  shown when the test fails
    spool = Landing(tmp_path / "spool", {})
    spool.folder.mkdir()
    simulate_and_kill(random.Random(seed), both, spool)

    kafka = {name: published_to_kafka(kafka_server, topic(both, name)) for name in KAFKA_STREAMS}
    pubsub = {name: published_to_pubsub(pubsub_emulator, topic(both, name)) for name in PUBSUB_STREAMS}
    counts = [*map(len, kafka.values()), *map(len, pubsub.values())]
    landed = " union all ".join(
        f"select count(distinct message_id) from raw.{name}" for name in [*KAFKA_STREAMS, *PUBSUB_STREAMS]
    )
    with both.loader():
        wait_for(lambda: [count for (count,) in both.rows(landed)] == counts, what="landing the rest")
    spool.land()

    for name, sent in kafka.items():
        rows = both.rows(f'select "partition", "offset", key, attributes, payload from raw.{name}')
        assert content(rows) == content(sent), name
        spooled = spool.rows(f"select key, attributes, payload from raw.{name}")
        assert content([row[2:] for row in sent]) == content(spooled), name
    redelivered = 0
    for name, sent in pubsub.items():
        rows = both.rows(f"select message_id, attributes, payload from raw.{name}")
        redelivered += len(rows) - len(sent)
        assert content(rows).keys() == content(sent).keys(), name
        spooled = spool.rows(f"select attributes, payload from raw.{name}")
        assert content([row[1:] for row in sent]) == content(spooled), name
    assert redelivered, "no kill came between a commit and its acks"

    both.build()
    spool.build()
    assert both.rows("select count(*) from analytics.landing_reconciliation where not is_balanced") == [(0,)]
    assert both.rows("select count(*) - count(distinct event_key) from analytics.fct_events") == [(0,)]
    for events in (
        # A web event without an event id gets the message id, which differs between the two warehouses.
        "select event_key from analytics.fct_events where stream <> 'web_events'",
        """select event_type, event_at, user_id, product_id, price, country, city, browser, os
        from analytics.fct_events where stream = 'web_events'""",
    ):
        assert Counter(both.rows(events)) == Counter(spool.rows(events))


def simulate_and_kill(draw: random.Random, both: Landing, spool: Landing) -> None:
    """Simulate days into the brokers, and the same days into the spool, while loaders are started and killed."""
    fates = [(step, nth) for step in STEPS for nth in range(1, KILLS_AT_EACH_STEP + 1)]
    fates += [("", 0)] * RANDOM_KILLS
    draw.shuffle(fates)
    simulate = ("ingest", "simulate", "--events-per-day", "3000", "--seed", str(draw.randrange(1000)), "--days")
    killed = Landing(both.folder, both.settings | {"LANDING_MAX_ROWS": "50", "LANDING_MAX_SECONDS": "0.2"})
    publishing: list[subprocess.Popen[bytes]] = []

    def publish() -> None:
        days = str(draw.choice((1, 2)))
        assert all(earlier.wait(240) == 0 for earlier in publishing)
        publishing.append(both.start(*simulate, days))
        spool.run(*simulate, days)

    def wait_for_more(condition: Callable[[], bool], what: str) -> None:
        """Wait for a condition; if no message is left to land, simulate another day."""
        for _ in range(5):
            with suppress(AssertionError):
                return wait_for(condition, 30)
            publish()
        return wait_for(condition, what=what)

    for number, (step, nth) in enumerate(fates):
        if number % KILLS_PER_DAYS == 0:
            publish()
        if step:
            loader = killed.start("tests.ingest.killed_loader", step, str(nth), "land", "--follow")
        else:
            loader = killed.start("ingest", "land", "--follow")
        try:
            if step:
                wait_for_more(lambda: loader.poll() is not None, f"{step}, {nth}")  # noqa: B023  called within this iteration
                # It was killed at the step, and not by another error.
                assert loader.wait() == -signal.SIGKILL, f"{step}, {nth}: {both.log[-3000:]}"
                continue
            if draw.random() < 0.7:
                committed = a_commit(killed, loader)
                wait_for_more(committed, "a commit")
                time.sleep(draw.uniform(0, 0.5))
            else:
                time.sleep(draw.uniform(0, 2))
            assert loader.poll() is None, both.log[-3000:]
        finally:
            kill(loader)
    assert all(earlier.wait(240) == 0 for earlier in publishing)


def topic(landing: Landing, stream: str) -> str:
    return str(json.loads(landing.settings["TOPICS"])[stream])


def a_commit(landing: Landing, loader: "subprocess.Popen[bytes]") -> Callable[[], bool]:
    """Return whether this loader has made a commit, by the times of the file and its log."""

    def changed() -> list[int]:
        times = []
        for path in (landing.path, landing.path.with_suffix(".duckdb.wal")):
            with suppress(FileNotFoundError):
                times.append(path.stat().st_mtime_ns)
        return times

    before = changed()
    return lambda: changed() != before or loader.poll() is not None


# -- brokers, partitions and topics that come and go ------------------------------------------------------------------

STREAM = "ecom_events"


class Topic:
    """A Kafka topic of one test, to which numbers are produced."""

    def __init__(self, server: KafkaServer) -> None:
        self.name = f"topic-{next(numbers)}"
        connection = {"bootstrap.servers": server.bootstrap_servers, "log_level": 0}
        self.admin = AdminClient(connection)
        # Idempotent, so that retries neither duplicate messages nor change their order.
        self.producer = Producer(connection | {"enable.idempotence": True, "reconnect.backoff.max.ms": 1000})
        self.sent: list[int] = []
        self.create()

    def create(self) -> None:
        wait_for(self._is_created, 120, f"creating {self.name}")

    def _is_created(self) -> bool:
        """Create the topic; Kafka rejects this while the old topic of the same name is being deleted."""
        with suppress(KafkaException):
            self.admin.create_topics([NewTopic(self.name, 4, 1)])[self.name].result()
            return True
        return False

    def delete(self) -> None:
        self.admin.delete_topics([self.name])[self.name].result()
        wait_for(lambda: self.name not in self.admin.list_topics(timeout=10).topics, 120, f"deleting {self.name}")

    def send(self, count: int, partitions: tuple[int, ...] = (0, 1, 2, 3), flush: bool = True) -> None:
        """Produce the next numbers, to the partitions in turn."""
        first = len(self.sent)
        for number in range(first, first + count):
            self.producer.produce(self.name, str(number).encode(), partition=partitions[number % len(partitions)])
            self.sent.append(number)
        if flush:
            self.flush()

    def flush(self) -> None:
        assert self.producer.flush(60) == 0

    def wait_for_members(self, count: int, other_than: frozenset[str] = frozenset()) -> frozenset[str]:
        """Wait until the group has this many members with partitions. A killed one stays until its session ends."""
        members: frozenset[str] = frozenset()

        def are_there() -> bool:
            nonlocal members
            group = self.admin.describe_consumer_groups([self.name])[self.name].result()
            members = frozenset(member.member_id for member in group.members if member.assignment.topic_partitions)
            is_stable = group.state == ConsumerGroupState.STABLE
            return is_stable and len(members) == len(group.members) == count and members != other_than

        wait_for(are_there, 120, "sharing the partitions")
        # Members have partitions only after the positions were read.
        self.send(40)
        return members


@pytest.fixture
def sent(kafka_server: KafkaServer) -> Topic:
    return Topic(kafka_server)


@pytest.fixture
def landing(kafka_server: KafkaServer, sent: Topic, tmp_path: Path) -> Landing:
    """A warehouse with one stream, from the topic."""
    (tmp_path / "kafka.properties").write_text(KAFKA_PROPERTIES)
    landing = Landing(
        tmp_path / "landing",
        {
            "KAFKA_BOOTSTRAP_SERVERS": kafka_server.bootstrap_servers,
            "KAFKA_CONFIG_FILE": str(tmp_path / "kafka.properties"),
            "KAFKA_GROUP_ID": sent.name,
            "TOPICS": json.dumps({STREAM: sent.name}),
            "LANDING_MAX_ROWS": "100",
            "LANDING_MAX_SECONDS": "0.2",
        },
    )
    landing.folder.mkdir()
    landing.run("ingest", "land", "--stream", STREAM)
    return landing


def loader(landing: Landing, **settings: str) -> AbstractContextManager["subprocess.Popen[bytes]"]:
    return Landing(landing.folder, landing.settings | settings).loader("--stream", STREAM)


def landed(landing: Landing) -> list[int]:
    return sorted(map(int, landing.payloads(STREAM).elements()))


def wait_until_landed(landing: Landing, sent: Topic, seconds: float = 180.0) -> None:
    """Wait until each produced number and each offset has landed once."""
    with suppress(AssertionError):
        wait_for(lambda: len(landed(landing)) >= len(sent.sent), seconds)
    found = Counter(landed(landing))
    missing = set(sent.sent) - found.keys()
    twice = [number for number, times in found.items() if times > 1]
    assert (len(missing), len(twice)) == (0, 0), f"{sorted(missing)[:9]}, {twice[:9]}: {landing.log[-2000:]}"


def test_a_loader_continues_after_a_broker_was_killed(landing: Landing, sent: Topic, kafka_server: KafkaServer) -> None:
    with loader(landing):
        sent.send(1000)
        wait_until_landed(landing, sent)
        sent.send(1000, flush=False)
        kafka_server.stop()
        kafka_server.start()
        sent.flush()
        wait_until_landed(landing, sent)


def test_a_loader_continues_after_brokers_paused(
    both: Landing, kafka_server: KafkaServer, pubsub_emulator: PubSubEmulator
) -> None:
    """Longer than the session timeout of the group, and until a Pub/Sub pull and the probe after it have failed."""
    sent = [f"{number}".encode() for number in range(3000)]
    producer = Producer({"bootstrap.servers": kafka_server.bootstrap_servers, "enable.idempotence": True})

    def send(some: list[bytes]) -> None:
        for body in some:
            producer.produce(topic(both, STREAM), body)
        publish(pubsub_emulator, topic(both, "clicks"), some)

    with both.loader("--stream", STREAM, "--stream", "clicks"):
        send(sent[:1000])
        wait_for(lambda: len(both.payloads(STREAM)) == 1000)
        send(sent[1000:2000])
        for server in (kafka_server, pubsub_emulator):
            server.pause()
        try:
            wait_for(lambda: "pubsub pull failed" in both.log, what="noticing the pause")
        finally:
            for server in (kafka_server, pubsub_emulator):
                server.resume()
        send(sent[2000:])
        assert producer.flush(60) == 0
        wait_for(lambda: both.payloads("clicks").keys() == set(sent), what="landing from Pub/Sub")
        wait_for(lambda: both.payloads(STREAM) == Counter(sent), what="landing from Kafka")


def test_two_loaders_of_one_group_land_each_offset_once(landing: Landing, sent: Topic) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201  shown when the test fails
    draw = random.Random(seed)
    with ExitStack() as opened:
        loaders = [opened.enter_context(loader(landing)), opened.enter_context(loader(landing))]
        members: frozenset[str] = frozenset()
        for _ in range(6):
            members = sent.wait_for_members(2, members)
            sent.send(400)
            number = draw.randrange(2)
            draw.choice((stop, kill))(loaders[number])
            sent.send(400)
            loaders[number] = opened.enter_context(loader(landing))
        # Before that, a loader that has just started would not end cleanly on a signal.
        sent.wait_for_members(2, members)
        wait_until_landed(landing, sent)


def test_a_late_commit_after_another_loader_took_over_lands_nothing_twice(
    landing: Landing, sent: Topic, tmp_path: Path
) -> None:
    """The paused loader has already fetched messages that the other loader then lands."""
    slow = Landing(tmp_path / "slow", landing.settings | {"WAREHOUSE_PATH": str(landing.path)})
    slow.folder.mkdir()
    with loader(slow, LOCK_TIMEOUT_SECONDS="0.5") as stopped, loader(landing):
        sent.wait_for_members(2)
        wait_until_landed(landing, sent)
        with landing.held():
            sent.send(40)
            wait_for(lambda: "landing waits for the warehouse" in slow.log, 30, "fetching")
            stopped.send_signal(signal.SIGSTOP)
        try:
            wait_until_landed(landing, sent)
        finally:
            stopped.send_signal(signal.SIGCONT)
        sent.wait_for_members(2)
        sent.send(400)
        wait_until_landed(landing, sent)


def test_partitions_can_be_reassigned_while_the_warehouse_is_held(landing: Landing, sent: Topic) -> None:
    """The warehouse is held for longer than LOCK_TIMEOUT_SECONDS, as by a long build."""
    impatient = {"LOCK_TIMEOUT_SECONDS": "0.5"}
    with loader(landing, **impatient) as leaving, loader(landing, **impatient) as staying:
        sent.wait_for_members(2)
        wait_until_landed(landing, sent)
        with landing.held():
            kill(leaving)
            sent.wait_for_members(1)
            time.sleep(2)
        assert staying.poll() is None, landing.log[-2000:]
        sent.send(400)
        wait_until_landed(landing, sent)


def test_an_added_partition_is_landed(landing: Landing, sent: Topic) -> None:
    with loader(landing):
        sent.send(100)
        wait_until_landed(landing, sent)
        sent.admin.create_partitions([NewPartitions(sent.name, 6)])[sent.name].result()
        wait_for(lambda: len(sent.producer.list_topics(sent.name).topics[sent.name].partitions) == 6)
        sent.send(100, (0, 4, 5))
        wait_until_landed(landing, sent)
    assert landing.rows(f'select count(distinct "partition") from raw.{STREAM}') == [(6,)]


@pytest.mark.parametrize("count", [40, 4000])
def test_a_topic_recreated_while_no_loader_runs_is_landed_from_its_start(
    landing: Landing, sent: Topic, count: int
) -> None:
    sent.send(400)
    landing.run("ingest", "land", "--stream", STREAM)
    sent.delete()
    sent.create()
    sent.send(count)
    with loader(landing):
        wait_until_landed(landing, sent)


@pytest.mark.parametrize("count", [40, 4000])
def test_a_topic_recreated_while_a_loader_follows_is_landed_from_its_start(
    landing: Landing, sent: Topic, count: int
) -> None:
    """The loader does not refresh its metadata in between, so it never sees the topic missing."""
    properties = Path(landing.settings["KAFKA_CONFIG_FILE"])
    properties.write_text(f"{KAFKA_PROPERTIES}topic.metadata.refresh.interval.ms=10000\n")
    with loader(landing):
        sent.send(400)
        wait_until_landed(landing, sent)
        sent.delete()
        sent.create()
        sent.send(count)
        wait_until_landed(landing, sent)


def test_messages_deleted_by_retention_are_reported_and_skipped(landing: Landing, sent: Topic) -> None:
    sent.send(40)
    landing.run("ingest", "land", "--stream", STREAM)
    sent.send(40)
    # Offsets 10 to 14 of partitions 0 and 1 never land: the numbers 40, 44, .. 56 and 41, 45, .. 57.
    for future in sent.admin.delete_records(
        [TopicPartition(sent.name, partition, 15) for partition in (0, 1)]
    ).values():
        future.result()
    sent.sent = sorted({*range(80)} - {*range(40, 60, 4)} - {*range(41, 60, 4)})
    with loader(landing):
        wait_until_landed(landing, sent)
    gaps = [json.loads(line) for line in landing.log.splitlines() if "retention" in line]
    assert sorted((gap["topic"], gap["partition"], gap["at_most"], gap["level"]) for gap in gaps) == [
        (sent.name, 0, 5, "error"),
        (sent.name, 1, 5, "error"),
    ]


@pytest.mark.parametrize("how", ["restored", "moved away"])
def test_a_warehouse_replaced_while_following_gets_its_missing_messages(
    landing: Landing, sent: Topic, how: str
) -> None:
    """For all partitions, although only one gets new messages; then for all without any new message."""

    def has_tables() -> bool:
        with suppress(UserError, duckdb.CatalogException):
            return bool(landed(landing))
        return False

    with loader(landing):
        for partitions in ((2,), ()):
            sent.send(400)
            wait_until_landed(landing, sent)
            with landing.held():
                shutil.copyfile(landing.path, landing.path.with_name("backup"))
            sent.send(400)
            wait_until_landed(landing, sent)
            if how == "restored":
                landing.path.with_name("backup").replace(landing.path)
            else:
                landing.path.rename(landing.path.with_name("elsewhere"))
            if partitions:
                sent.send(40, partitions)
            wait_for(has_tables)
            wait_until_landed(landing, sent)
    assert landing.log.count('"the warehouse was replaced') == 2


def test_only_committed_transactions_land(landing: Landing, sent: Topic, kafka_server: KafkaServer) -> None:
    """With committed, aborted and open transactions, no loss is reported, and no missing message counts as waiting."""
    producer = Producer({"bootstrap.servers": kafka_server.bootstrap_servers, "transactional.id": sent.name})
    producer.init_transactions()

    def send(count: int) -> None:
        producer.begin_transaction()
        for number in range(count):
            producer.produce(sent.name, str(len(sent.sent) + number).encode(), partition=number % 4)
        producer.flush()

    def run(command: str) -> str:
        done = landing.run("ingest", command, "--stream", STREAM)
        assert done.stderr == ""  # a loss would be logged to standard error
        return done.stdout.splitlines()[-1]

    send(40)
    producer.commit_transaction()
    sent.sent += range(40)
    assert run("land") == "landed 40 messages"
    assert run("status").split()[2:6] == ["40", "0", "0", "s"]
    send(400)
    assert run("status").split()[2:4] == ["40", "400"]
    assert run("land") == "landed 0 messages"
    producer.abort_transaction()
    assert run("status").split()[2:4] == ["40", "0"]
    assert run("land") == "landed 0 messages"
    for partition in range(4):
        end = TopicPartition(sent.name, partition, -1)
        sent.admin.delete_records([end])[end].result()
    assert [run("land") for _ in range(2)] == ["landed 0 messages"] * 2
    wait_until_landed(landing, sent)


def publish(emulator: PubSubEmulator, topic: str, bodies: list[bytes], **fields: Any) -> list[str]:
    """Publish to Pub/Sub; returns the message ids."""
    path = f"projects/{emulator.project}/topics/{topic}"
    with open_publisher(emulator_settings(emulator)) as publisher:
        return [
            message_id
            for start in range(0, len(bodies), 1000)
            for message_id in publisher.publish(
                topic=path, messages=[{"data": body, **fields} for body in bodies[start : start + 1000]]
            ).message_ids
        ]


# -- leases of Pub/Sub ------------------------------------------------------------------------------------------------

SUBSCRIPTIONS = {
    "clicks": {},
    "checkouts": {"enable_message_ordering": True},
    "web_events": {"enable_exactly_once_delivery": True},
}


@pytest.fixture
def leased(pubsub_emulator: PubSubEmulator, tmp_path: Path) -> Landing:
    """A warehouse with streams from three subscriptions: plain, with ordering, and with exactly-once delivery."""
    number = next(numbers)
    topics = {stream: f"leases-{number}-{stream}" for stream in SUBSCRIPTIONS}
    for stream, options in SUBSCRIPTIONS.items():
        subscribe(pubsub_emulator, topics[stream], "landing", **options)
    landing = Landing(
        tmp_path / "landing",
        {
            "PUBSUB_PROJECT": pubsub_emulator.project,
            "PUBSUB_EMULATOR_HOST": pubsub_emulator.host,
            "TOPICS": json.dumps(topics),
            "LANDING_MAX_SECONDS": "0.2",
            "LOCK_TIMEOUT_SECONDS": "0.5",
        },
    )
    landing.folder.mkdir()
    landing.run("ingest", "provision", *LEASED)
    return landing


LEASED = [argument for stream in SUBSCRIPTIONS for argument in ("--stream", stream)]


def publish_leased(emulator: PubSubEmulator, landing: Landing, count: int) -> set[str]:
    """Publish messages to each of the streams; returns their ids."""
    bodies = [b"%d" % number for number in range(count)]
    return {
        message_id
        for stream, options in SUBSCRIPTIONS.items()
        for message_id in publish(
            emulator, topic(landing, stream), bodies, ordering_key="key" if "enable_message_ordering" in options else ""
        )
    }


def landed_ids(landing: Landing) -> list[str]:
    ids = " union all ".join(f"select message_id from raw.{stream}" for stream in SUBSCRIPTIONS)
    return [message_id for (message_id,) in landing.rows(ids)]


def assert_nothing_comes_again(landing: Landing) -> None:
    before = landed_ids(landing)
    time.sleep(ACK_DEADLINE_SECONDS)  # until Pub/Sub delivers unacknowledged messages again
    landing.run("ingest", "land", *LEASED)
    assert len(landed_ids(landing)) == len(before)


def test_messages_are_not_redelivered_during_a_commit_longer_than_the_ack_deadline(
    leased: Landing, pubsub_emulator: PubSubEmulator
) -> None:
    with leased.loader(*LEASED):
        ids = publish_leased(pubsub_emulator, leased, 5)
        wait_for(lambda: set(landed_ids(leased)) == ids)
        with leased.held():
            ids |= publish_leased(pubsub_emulator, leased, 300)
            time.sleep(ACK_DEADLINE_SECONDS + 3)
        wait_for(lambda: set(landed_ids(leased)) == ids)
    assert_nothing_comes_again(leased)
    assert len(landed_ids(leased)) == len(ids)


def test_committed_but_unacknowledged_messages_are_redelivered_once(
    leased: Landing, pubsub_emulator: PubSubEmulator
) -> None:
    ids = publish_leased(pubsub_emulator, leased, 50)
    killed = leased.start("tests.ingest.killed_loader", "before the ack", "1", "land", "--follow", *LEASED)
    assert killed.wait(180) == -signal.SIGKILL
    committed = landed_ids(leased)
    assert committed
    with leased.loader(*LEASED):
        wait_for(lambda: set(landed_ids(leased)) == ids and len(landed_ids(leased)) == len(ids) + len(committed))
    assert_nothing_comes_again(leased)


# -- bad input --------------------------------------------------------------------------------------------------------

TIMES = {"least": "0001-01-01T00:00:00Z", "most": "9999-12-31T23:59:59.999999Z", "ordinary": "2026-01-05T10:00:00Z"}
MESSAGE_TIMES = {"least": -62_135_596_800_000, "most": 253_402_300_799_999}
"""Times of Kafka messages, in milliseconds since the epoch."""
BODIES: dict[str, dict[str, object]] = {
    "web_events": {"timestamp": "TIME", "event": "view", "product": "p", "event_id": "ID"},
    "page_views": {"ga_event_dtm": "TIME", "session_id": "s", "page_title": "t", "event_id": "ID"},
    "clicks": {"datetime_occured": "TIME", "click_id": "ID", "user_id": 1, "product_id": "p"},
    "checkouts": {"datetime_occured": "TIME", "checkout_id": "ID", "user_id": 1, "product_id": "p"},
    "ecom_events": {"event_time": "TIME", "event_type": "view", "product_id": "p", "user_id": "u", "brand": "ID"},
    "post_events": {"created_at": "TIME", "event_id": "ID", "event_type": "like", "user_id": "u", "post_id": "p"},
    "users": {"updated_at": "TIME", "user_id": "ID", "created_at": "2026-01-01T00:00:00Z"},
    "products": {"updated_at": "TIME", "product_id": "ID"},
    "posts": {"updated_at": "TIME", "post_id": "ID"},
}


def body(stream: str, time_of: str, name: str = "", **more: object) -> bytes:
    named = {"TIME": TIMES[time_of], "ID": name or time_of}
    return json.dumps({field: named.get(str(value), value) for field, value in BODIES[stream].items()} | more).encode()


def test_odd_messages_of_a_broker_are_landed_and_accounted_for(
    both: Landing, kafka_server: KafkaServer, pubsub_emulator: PubSubEmulator
) -> None:
    admin = AdminClient({"bootstrap.servers": kafka_server.bootstrap_servers})
    large = ConfigResource(ConfigResource.Type.TOPIC, topic(both, STREAM), {"max.message.bytes": "30000000"})
    admin.alter_configs([large])[large].result()
    producer = Producer({"bootstrap.servers": kafka_server.bootstrap_servers, "message.max.bytes": 30_000_000})
    sent: dict[str, list[bytes | None]] = {}
    expected: Counter[tuple[str, str | None]] = Counter()

    def send(stream: str, payload: bytes | None, reason: str | None, **options: Any) -> None:
        sent.setdefault(stream, []).append(payload)
        expected[stream, reason] += 1
        producer.produce(topic(both, stream), payload, **options)

    for stream in KAFKA_STREAMS:
        is_entity = stream in {"users", "products", "posts"}
        for time_of, reason in (("least", "invalid:timestamp"), ("most", "invalid:timestamp"), ("ordinary", None)):
            send(stream, body(stream, time_of), reason)
        # Producers can set any time in a message. Compared with one of year 1, all event times are in the future.
        for name, milliseconds in MESSAGE_TIMES.items():
            for time_of in TIMES:
                is_plausible = (name, time_of) == ("most", "ordinary")
                send(
                    stream,
                    body(stream, time_of, name=f"{name}-{time_of}"),
                    None if is_plausible else "invalid:timestamp",
                    timestamp=milliseconds,
                )
            if is_entity:
                send(stream, None, "invalid:timestamp", key=b"k", timestamp=milliseconds)
        send(stream, None, f"missing:{stream[:-1]}_id" if is_entity else "malformed_json")
        send(stream, b"", "malformed_json")
        send(stream, body(stream, "ordinary", name="headers"), None, headers=[("\u00fc", b"\xff\x00"), ("none", None)])
        send(stream, body(stream, "ordinary", name="no key"), None, key=b"")
        send(stream, body(stream, "ordinary", name="large key"), None, key=b"\xff" * 1_000_000)
    send(STREAM, body(STREAM, "ordinary", name="large", more="x" * 20_000_000), None)
    assert producer.flush(60) == 0
    for stream in PUBSUB_STREAMS:
        bodies = {body(stream, time_of): None if time_of == "ordinary" else "invalid:timestamp" for time_of in TIMES}
        bodies |= {b"": "malformed_json", b"\xff\x00": "malformed_json", b"null": "malformed_json"}
        bodies[body(stream, "ordinary", name="large", more="x" * 9_000_000)] = None
        for payload, reason in bodies.items():
            publish(pubsub_emulator, topic(both, stream), [payload], attributes={"\u00fc": "", "long": "y" * 1000})
            sent.setdefault(stream, []).append(payload)
            expected[stream, reason] += 1

    both.land()
    for stream, payloads in sent.items():
        assert both.payloads(stream) == Counter(payloads), stream
    both.build()
    found = both.rows(
        """
        select stream, reason, count(*) from analytics.dead_letters group by all
        union all
        select stream, null, sum(accepted) from analytics.landing_reconciliation group by all
        """
    )
    assert {(stream, reason): count for stream, reason, count in found} == expected
    assert both.rows("select count(*) from analytics.landing_reconciliation where not is_balanced") == [(0,)]
