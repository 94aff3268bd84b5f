"""PubSubSource against Google's emulator: messages are unchanged, and acknowledged only after their commit."""

import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import orjson
import pytest

from common.errors import UnavailableError, UserError
from common.settings import Settings
from common.streams import STREAMS
from engines.batch import BATCH_SCHEMA, Batch
from ingest.brokers.pubsub import open_publisher, open_subscriber
from ingest.provision import provision
from ingest.sources import pubsub, pubsub_batch
from ingest.sources.pubsub import PubSubSource
from tests.ingest.conftest import Start
from tools.brokers import PubSubEmulator, free_port

pytestmark = pytest.mark.brokers

STREAM = STREAMS["clicks"]
OTHER = STREAMS["checkouts"]
PATIENCE = 4.0
numbers = itertools.count()

OpenSource = Callable[..., PubSubSource]


@pytest.fixture
def settings(pubsub_emulator: PubSubEmulator, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings with topics and subscriptions for one test, as from a `.env` file."""
    monkeypatch.delenv("PUBSUB_EMULATOR_HOST", raising=False)
    monkeypatch.setattr(pubsub, "PULL_SECONDS", 1.5)
    number = next(numbers)
    settings = Settings(
        _env_file=None,
        pubsub_project=pubsub_emulator.project,
        pubsub_emulator_host=pubsub_emulator.host,
        topics={STREAM.name: f"clicks-{number}", OTHER.name: f"checkouts-{number}"},
    )
    provision(settings, [STREAM, OTHER])
    return settings


@pytest.fixture
def publish(settings: Settings) -> Iterator[Callable[..., str]]:
    """Publishes one message and returns its id."""
    client = open_publisher(settings)

    def publish(data: bytes, **attributes: str) -> str:
        topic = f"projects/{settings.pubsub_project}/topics/{settings.topic(STREAM)}"
        return str(client.publish(topic=topic, messages=[{"data": data, "attributes": attributes}]).message_ids[0])

    yield publish
    client.transport.close()


@pytest.fixture
def open_source(settings: Settings) -> Iterator[OpenSource]:
    opened: list[PubSubSource] = []

    def open_source(**changes: object) -> PubSubSource:
        opened.append(PubSubSource(settings.model_copy(update=changes), [STREAM]))
        return opened[-1]

    yield open_source
    for source in opened:
        if not source._is_closed:
            source.close()


def fetch_rows(source: PubSubSource, count: int) -> tuple[list[dict[str, Any]], list[Batch]]:
    """Fetch batches until they have this many rows, or nothing more arrives."""
    rows: list[dict[str, Any]] = []
    batches = []
    while len(rows) < count and (batch := source.fetch(PATIENCE)):
        batches.append(batch)
        assert list(batch.tables) == [STREAM.name]
        assert batch.tables[STREAM.name].schema == BATCH_SCHEMA
        rows += batch.tables[STREAM.name].to_pylist()
    return rows, batches


def payloads(source: PubSubSource, count: int) -> list[bytes]:
    return sorted(row["payload"] for row in fetch_rows(source, count)[0])


def test_messages_arrive_as_they_were_sent(
    settings: Settings, publish: Callable[..., str], open_source: OpenSource
) -> None:
    large = bytes(range(256)) * 4096 * 6  # above gRPC's default limit of 4 MB
    sent = {
        publish(b"\xff\x00"): (b"\xff\x00", None),
        publish(b"", name="Z\u00fcrich"): (b"", {"name": "Z\u00fcrich"}),
        publish(large, a="1", b=""): (large, {"a": "1", "b": ""}),
    }
    rows, _ = fetch_rows(open_source(), 3)
    assert {
        row["message_id"]: (row["payload"], row["attributes"] and orjson.loads(row["attributes"])) for row in rows
    } == sent
    for row in rows:
        assert (row["source"], row["topic"], row["partition"], row["offset"], row["key"]) == (
            "pubsub",
            settings.topic(STREAM),
            None,
            None,
            None,
        )
        assert abs(row["published_at"].timestamp() - time.time()) < 86_400


def test_the_ordering_key_is_the_key_and_times_keep_their_microseconds() -> None:
    message = pubsub_message(b"x", ordering_key="k\u00fc", seconds=1_700_000_000, nanos=123_456_789)
    row = pubsub_batch.pulled_table("topic", [message]).to_pylist()[0]
    assert row["key"] == "k\u00fc".encode()
    assert row["published_at"].isoformat() == "2023-11-14T22:13:20.123456"


def pubsub_message(data: bytes, message_id: str = "1", ordering_key: str = "", seconds: int = 0, nanos: int = 0) -> Any:
    from google.pubsub_v1.types import PubsubMessage

    message = PubsubMessage.pb(PubsubMessage(data=data, message_id=message_id, ordering_key=ordering_key))
    message.publish_time.seconds, message.publish_time.nanos = seconds, nanos
    return message


def test_messages_are_acknowledged_only_after_the_commit(
    settings: Settings, publish: Callable[..., str], open_source: OpenSource
) -> None:
    for number in range(20):
        publish(str(number).encode())
    source = open_source()
    assert len(payloads(source, 20)) == 20
    source.close()  # as after a failed commit: messages are released at once, not at the deadline of 60 s

    source = open_source()
    rows, batches = fetch_rows(source, 20)
    assert len(rows) == 20
    for batch in batches:
        source.acknowledge(batch)
    assert not source._leases, "extends what is acknowledged"
    source.close()
    # Releasing acknowledged messages has no effect; all others would be redelivered at once.
    subscriber = open_subscriber(settings)
    subscription = settings.subscription(STREAM)
    ack_ids = [ack_id for batch in batches for pulled in batch.acknowledgement for ack_id in pulled.ack_ids]
    subscriber.modify_ack_deadline(subscription=subscription, ack_ids=ack_ids, ack_deadline_seconds=0)
    subscriber.close()

    assert open_source().fetch(PATIENCE) is None


def test_unfetched_messages_are_released_at_close(publish: Callable[..., str], open_source: OpenSource) -> None:
    for number in range(30):
        publish(str(number).encode())
    source = open_source(landing_max_rows=10)
    assert 1 <= len(fetch_rows(source, 1)[0]) <= 10
    time.sleep(0.5)
    source.close()
    assert len(payloads(open_source(), 30)) == 30


def test_deadlines_are_extended_during_a_slow_commit(
    settings: Settings, publish: Callable[..., str], open_source: OpenSource
) -> None:
    subscriber = open_subscriber(settings)
    subscription = settings.subscription(STREAM)
    subscriber.delete_subscription(subscription=subscription)
    topic = f"projects/{settings.pubsub_project}/topics/{settings.topic(STREAM)}"
    subscriber.create_subscription(name=subscription, topic=topic, ack_deadline_seconds=10)
    subscriber.close()
    publish(b"once")
    source = open_source()
    rows, batches = fetch_rows(source, 1)
    assert len(rows) == 1
    assert source.fetch(13.0) is None, "delivered again during the commit"
    source.acknowledge(batches[0])


def test_a_message_delivered_twice_in_a_batch_is_landed_once() -> None:
    one, two = pubsub_message(b"x", "1"), pubsub_message(b"y", "2")
    taken = [
        pubsub_batch.Pull(STREAM.name, ack_ids, pubsub_batch.pulled_table("topic", messages), 0.0)
        for ack_ids, messages in ((["a1", "a2"], [one, two]), (["a3", "a4"], [pubsub_message(b"z", "3"), one]))
    ]
    batch = pubsub_batch.to_batch(taken)
    table = batch.tables[STREAM.name]
    assert dict(zip(table["message_id"].to_pylist(), table["payload"].to_pylist(), strict=True)) == {
        "1": b"x",
        "2": b"y",
        "3": b"z",
    }
    assert table.num_rows == 3
    assert batch.acknowledgement == taken


def test_batches_are_bounded(
    publish: Callable[..., str], open_source: OpenSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(12):
        publish(b"x" * 400)
    source = open_source(landing_max_rows=5)
    _, batches = fetch_rows(source, 12)
    assert sum(batch.rows for batch in batches) == 12
    assert max(batch.rows for batch in batches) <= 5
    source.close()
    monkeypatch.setattr(pubsub, "PULL_ROWS", 1)
    source = open_source(landing_max_bytes=1024)
    _, batches = fetch_rows(source, 12)
    assert sum(batch.rows for batch in batches) == 12
    assert max(batch.rows for batch in batches) <= 2


def test_a_fetch_waits_for_its_timeout(publish: Callable[..., str], open_source: OpenSource) -> None:
    publish(b"x")
    source = open_source()
    assert source.waiting() == {STREAM.name: None}
    assert source.fetch(PATIENCE) is not None
    assert source.fetch(PATIENCE) is None
    started = time.monotonic()
    assert source.fetch(0) is None
    assert source.fetch(0.5) is None
    assert time.monotonic() - started >= 0.5


def test_a_failed_acknowledgement_is_not_an_error(
    publish: Callable[..., str], open_source: OpenSource, pubsub_emulator: PubSubEmulator
) -> None:
    publish(b"x")
    source = open_source()
    _, batches = fetch_rows(source, 1)
    [pulled] = batches[0].acknowledgement
    source.acknowledge(Batch(batches[0].tables, acknowledgement=[replace(pulled, ack_ids=["not an ack id"])]))


def test_the_error_of_a_missing_subscription_says_how_to_create_it(settings: Settings) -> None:
    missing = settings.model_copy(update={"subscriptions": {STREAM.name: "not-there"}})
    with pytest.raises(
        UserError, match=r"no projects/test-project/subscriptions/not-there; .*ingest provision"
    ) as error:
        PubSubSource(missing, [STREAM])
    assert "\n" not in str(error.value)


def test_a_subscription_may_be_given_by_its_full_name(
    settings: Settings, publish: Callable[..., str], open_source: OpenSource
) -> None:
    """As shown by Google's console. PUBSUB_PROJECT then applies to the other streams only."""
    publish(b"x")
    full_name = settings.subscription(STREAM)
    assert full_name.startswith("projects/test-project/subscriptions/clicks-")
    source = open_source(subscriptions={STREAM.name: full_name}, pubsub_project="elsewhere")
    assert payloads(source, 1) == [b"x"]


def test_a_subscription_whose_topic_was_deleted_is_named_once_it_is_landed(
    settings: Settings, publish: Callable[..., str], open_source: OpenSource, start: Start
) -> None:
    publish(b"x")
    with open_publisher(settings) as publisher:
        publisher.delete_topic(topic=f"projects/{settings.pubsub_project}/topics/{settings.topic(STREAM)}")
    variables = {
        "PUBSUB_PROJECT": str(settings.pubsub_project),
        "PUBSUB_EMULATOR_HOST": str(settings.pubsub_emulator_host),
        "TOPICS": json.dumps(settings.topics),
        "STREAMS": json.dumps([STREAM.name, OTHER.name]),
    }
    reason = f"the topic of Pub/Sub {settings.subscription(STREAM)} was deleted, so no messages arrive"
    for command, shown in (("land", "landed 1 message\n"), ("status", " clicks "), ("provision", "")):
        out, err = (process := start(command, **variables)).communicate(timeout=120)
        assert (process.returncode, shown in out) == (2, True), (command, out, err)
        assert err.splitlines()[-1].startswith(f"error: {reason}")
    with open_subscriber(settings) as subscriber:
        subscriber.delete_subscription(subscription=settings.subscription(STREAM))
    provision(settings, [STREAM])
    source = open_source()
    assert source.fetch(1.0) is None
    assert source.problems == []


def test_a_topic_that_is_deleted_while_a_source_follows_is_logged(
    settings: Settings,
    open_source: OpenSource,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pubsub, "CHECK_SECONDS", 1.0)
    source = open_source()
    assert source.fetch(0.1) is None
    with open_publisher(settings) as publisher:
        publisher.delete_topic(topic=f"projects/{settings.pubsub_project}/topics/{settings.topic(STREAM)}")
    until = time.monotonic() + 60
    while not source.problems:
        assert source.fetch(1.0) is None
        assert time.monotonic() < until
    assert capsys.readouterr().out.count("was deleted, so no messages arrive") == 1


def test_a_subscription_deleted_while_pulling_is_an_error(settings: Settings, open_source: OpenSource) -> None:
    source = open_source()
    subscriber = open_subscriber(settings)
    name = settings.subscription(STREAM)
    subscriber.delete_subscription(subscription=name)
    with pytest.raises(UserError, match="ingest provision"):
        source.fetch(60.0)
    subscriber.close()


def test_a_deleted_subscription_is_reported_while_others_are_busy(
    settings: Settings, publish: Callable[..., str]
) -> None:
    source = PubSubSource(settings, [STREAM, OTHER])
    publish(b"x")
    assert source.fetch(PATIENCE) is not None
    subscriber = open_subscriber(settings)
    name = settings.subscription(OTHER)
    subscriber.delete_subscription(subscription=name)
    publish(b"x")
    until = time.monotonic() + 120
    while source._error is None or not source._buffer:
        assert time.monotonic() < until
        time.sleep(0.05)
    with pytest.raises(UserError, match="ingest provision"):
        source.fetch(0)
    source.close()
    subscriber.close()


def test_a_hung_server_is_not_taken_for_an_empty_subscription(
    settings: Settings,
    publish: Callable[..., str],
    open_source: OpenSource,
    pubsub_emulator: PubSubEmulator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = open_source()
    assert source.fetch(source.idle_timeout_seconds) is None
    monkeypatch.setattr(pubsub, "REQUEST_TIMEOUT_SECONDS", 2.0)
    publish(b"x")
    pubsub_emulator.pause()
    try:
        monkeypatch.setattr(pubsub, "SILENCE_TIMEOUT_SECONDS", 8.0)
        with pytest.raises(UnavailableError, match=r"Pub/Sub at .* failed"):
            while source.fetch(source.idle_timeout_seconds):  # drain the messages that arrived before the pause
                pass
    finally:
        monkeypatch.undo()
        pubsub_emulator.resume()
    publish(b"y")
    until = time.monotonic() + 60
    while not _fetch_or_none(source):
        assert time.monotonic() < until


def _fetch_or_none(source: PubSubSource) -> Batch | None:
    try:
        return source.fetch(PATIENCE)
    except UnavailableError:  # still failing, or none yet
        return None


def test_an_error_while_extending_deadlines_ends_the_source(
    open_source: OpenSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pubsub, "LEASE_CHECK_SECONDS", 0.1)
    source = open_source()
    with monkeypatch.context() as broken:
        broken.setattr(source._leases, "_request", lambda *_, **__: 1 / 0)
        with pytest.raises(UserError, match=r"extending the deadlines.*ZeroDivisionError"):
            source.fetch(PATIENCE)


def test_a_server_that_does_not_answer_is_an_error() -> None:
    host = f"127.0.0.1:{free_port()}"
    settings = Settings(_env_file=None, pubsub_project="test-project", pubsub_emulator_host=host)
    with pytest.raises(UserError, match=f"Pub/Sub at {host}.*ingest provision") as error:
        PubSubSource(settings, [STREAM, OTHER])
    assert "\n" not in str(error.value)
