"""`provision` against real brokers: what it creates, what it does not change, and what it reports."""

import itertools
import time
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, ConfigResource, ConfigSource, NewTopic
from google.pubsub_v1.types import Subscription

from common.errors import UserError
from common.settings import Settings
from common.streams import STREAMS
from ingest.brokers.pubsub import open_subscriber
from ingest.message import Message
from ingest.producers.pubsub import PubSubProducer
from ingest.provision import SubscriptionOptions, provision
from tools.brokers import KafkaServer, PubSubEmulator

pytestmark = pytest.mark.brokers

USERS, CLICKS, PAGE_VIEWS = STREAMS["users"], STREAMS["clicks"], STREAMS["page_views"]
WAIT_SECONDS = 30.0
numbers = itertools.count()


@pytest.fixture
def settings(kafka_server: KafkaServer, pubsub_emulator: PubSubEmulator) -> Settings:
    number = next(numbers)
    return Settings(
        _env_file=None,
        kafka_bootstrap_servers=kafka_server.bootstrap_servers,
        pubsub_project=pubsub_emulator.project,
        pubsub_emulator_host=pubsub_emulator.host,
        topics={stream: f"{stream}-provision-{number}" for stream in ("users", "clicks", "page_views")},
        emit_topic=f"results-{number}",
    )


@pytest.fixture
def subscriber(settings: Settings) -> Iterator[Any]:
    client = open_subscriber(settings)
    yield client
    client.close()


def topic(settings: Settings) -> str:
    return f"projects/test-project/topics/{settings.topic(CLICKS)}"


def subscription(settings: Settings) -> str:
    return f"projects/test-project/subscriptions/{settings.topic(CLICKS)}-landing"


def found(subscriber: Any, name: str) -> Subscription:
    result: Subscription = subscriber.get_subscription(subscription=name)
    return result


def test_missing_resources_are_created_once(settings: Settings, subscriber: Any) -> None:
    page_views = settings.topic(PAGE_VIEWS)
    things = [
        f"Kafka topic {settings.topic(USERS)}",
        f"Kafka topic {settings.emit_topic}",
        f"topic {topic(settings)}",
        f"subscription {subscription(settings)}",
        f"topic projects/test-project/topics/{page_views}",
        f"subscription projects/test-project/subscriptions/{page_views}-landing",
    ]
    streams = [USERS, CLICKS, PAGE_VIEWS]
    assert provision(settings, streams, dry_run=True) == [f"would create {thing}" for thing in things]
    assert provision(settings, streams) == [f"created {thing}" for thing in things]
    assert provision(settings, streams) == provision(settings, streams, dry_run=True) == []

    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})
    assert len(admin.list_topics(timeout=10).topics[settings.topic(USERS)].partitions) == 4
    own = {}  # the broker of the tests has unlimited retention, so check who set the value
    for name in (settings.topic(USERS), settings.emit_topic):
        resource = ConfigResource(ConfigResource.Type.TOPIC, name)
        retention = admin.describe_configs([resource])[resource].result()["retention.ms"]
        own[name] = (retention.value, retention.source == ConfigSource.DYNAMIC_TOPIC_CONFIG.value)
    assert own == {settings.topic(USERS): ("-1", True), settings.emit_topic: ("-1", False)}
    made = found(subscriber, subscription(settings))
    assert made.topic == topic(settings)
    assert made.ack_deadline_seconds == 60
    assert not made.expiration_policy.ttl
    assert not (made.enable_message_ordering or made.enable_exactly_once_delivery)
    assert not (made.dead_letter_policy or made.push_config.push_endpoint)


def test_a_limited_retention_is_reported_and_not_changed(settings: Settings) -> None:
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})
    name = settings.topic(USERS)
    topics = [
        NewTopic(name, 1, 1, config={"retention.ms": "604800000"}),
        NewTopic(settings.emit_topic, 1, 1, config={"retention.ms": "1"}),
    ]
    for created in admin.create_topics(topics).values():
        created.result()
    local = settings.model_copy(update={"pubsub_project": None})
    line = (
        f"Kafka topic {name} exists with a limited retention of 7 days, not changed: "
        "Kafka deletes older messages even if they have not landed"
    )
    assert provision(local, [USERS, PAGE_VIEWS], dry_run=True) == provision(local, [USERS, PAGE_VIEWS]) == [line]
    resource = ConfigResource(ConfigResource.Type.TOPIC, name)
    assert admin.describe_configs([resource])[resource].result()["retention.ms"].value == "604800000"


def test_the_topic_of_results_needs_kafka_and_page_views(settings: Settings) -> None:
    nothing = settings.model_copy(update={"pubsub_project": None})
    assert provision(nothing, [CLICKS]) == []
    assert provision(nothing, [PAGE_VIEWS]) == [f"created Kafka topic {settings.emit_topic}"]
    assert provision(nothing.model_copy(update={"kafka_bootstrap_servers": None}), [PAGE_VIEWS]) == []


def test_subscriptions_have_the_requested_options(settings: Settings, subscriber: Any) -> None:
    options = SubscriptionOptions(ack_deadline_seconds=600, ordering=True, exactly_once=True)
    provision(settings, [CLICKS], options=options)
    made = found(subscriber, subscription(settings))
    assert (made.ack_deadline_seconds, made.enable_message_ordering, made.enable_exactly_once_delivery) == (
        600,
        True,
        True,
    )
    assert provision(settings, [CLICKS], options=options) == []


def test_mismatched_subscriptions_are_reported_and_not_changed(settings: Settings, subscriber: Any) -> None:
    provision(settings, [CLICKS], options=SubscriptionOptions(ack_deadline_seconds=10))
    before = found(subscriber, subscription(settings))
    line = f"subscription {subscription(settings)} exists with ack deadline 10 s, not 60 s: not changed"
    assert provision(settings, [CLICKS]) == provision(settings, [CLICKS], dry_run=True) == [line]

    asked = SubscriptionOptions(10, ordering=True, dead_letter_attempts=7, push_endpoint="http://127.0.0.1:1/push")
    [*_, line] = provision(settings, [CLICKS], options=asked)
    assert line == (
        f"subscription {subscription(settings)} exists with ordering off, not on and dead letters off, not to "
        f"{topic(settings)}-dead-letter after 7 attempts and push endpoint none, not http://127.0.0.1:1/push: "
        "not changed"
    )
    [line] = provision(settings, [CLICKS], options=SubscriptionOptions(10, exactly_once=True))
    assert line.endswith("exists with exactly-once off, not on: not changed")
    other = settings.model_copy(
        update={
            "topics": {"clicks": f"{settings.topic(CLICKS)}-2"},
            "subscriptions": {"clicks": before.name.rpartition("/")[2]},
        }
    )
    [created, line] = provision(other, [CLICKS], options=SubscriptionOptions(10))
    assert created == f"created topic {topic(settings)}-2"
    assert line.endswith(f"exists with topic {topic(settings)}, not {topic(settings)}-2: not changed")
    assert found(subscriber, subscription(settings)) == before


def test_a_message_without_attempts_left_is_kept_as_a_dead_letter(settings: Settings, subscriber: Any) -> None:
    options = SubscriptionOptions(dead_letter_attempts=5)
    dead_letters = f"projects/test-project/subscriptions/{settings.topic(CLICKS)}-dead-letter"
    planned = provision(settings, [CLICKS], dry_run=True, options=options)
    done = provision(settings, [CLICKS], options=options)
    assert done[:4] == [
        f"created topic {topic(settings)}",
        f"created topic {topic(settings)}-dead-letter",
        f"created subscription {dead_letters}",
        f"created subscription {subscription(settings)}",
    ]
    assert planned == [line.replace("created", "would create") for line in done]
    publishes, subscribes = done[4:]
    agent = "--member=serviceAccount:service-PROJECT_NUMBER@gcp-sa-pubsub.iam.gserviceaccount.com"
    assert publishes.endswith(
        f"gcloud pubsub topics add-iam-policy-binding {topic(settings)}-dead-letter {agent}"
        " --role=roles/pubsub.publisher"
    )
    assert subscribes.endswith(
        f"gcloud pubsub subscriptions add-iam-policy-binding {subscription(settings)} {agent}"
        " --role=roles/pubsub.subscriber"
    )
    assert provision(settings, [CLICKS], options=options) == []
    made = found(subscriber, dead_letters)
    assert not made.expiration_policy.ttl

    with PubSubProducer(settings) as producer:
        producer.produce(CLICKS, [Message(b"x", attributes={"n": "1"})])
    attempts = 0
    dead: list[Any] = []
    until = time.monotonic() + WAIT_SECONDS
    while not dead:
        assert time.monotonic() < until, f"not moved after {attempts} attempts"
        pulled = subscriber.pull(subscription=subscription(settings), max_messages=1, timeout=5, retry=None)
        for received in pulled.received_messages:
            attempts += 1
            subscriber.modify_ack_deadline(
                subscription=subscription(settings), ack_ids=[received.ack_id], ack_deadline_seconds=0
            )
        if attempts >= 5:
            dead = list(
                subscriber.pull(subscription=dead_letters, max_messages=1, timeout=5, retry=None).received_messages
            )
    assert attempts == 5
    assert dead[0].message.data == b"x"
    assert dead[0].message.attributes["n"] == "1"


def test_a_push_endpoint_is_set_with_its_token(settings: Settings, subscriber: Any) -> None:
    pushed = settings.model_copy(
        update={"push_audience": "warehouse", "push_service_account": "pusher@test.iam.gserviceaccount.com"}
    )
    options = SubscriptionOptions(push_endpoint="https://127.0.0.1:1/push/{stream}")
    provision(pushed, [CLICKS, PAGE_VIEWS], options=options)
    push = found(subscriber, subscription(settings)).push_config
    assert push.push_endpoint == "https://127.0.0.1:1/push/clicks"
    assert push.oidc_token.service_account_email == "pusher@test.iam.gserviceaccount.com"
    assert push.oidc_token.audience == "warehouse"
    assert provision(pushed, [CLICKS], options=options) == []
    [line] = provision(settings, [CLICKS], options=SubscriptionOptions(push_endpoint="https://127.0.0.1:1/push"))
    assert line.endswith(
        "exists with push endpoint https://127.0.0.1:1/push/clicks as pusher@test.iam.gserviceaccount.com for "
        "warehouse, not https://127.0.0.1:1/push: not changed"
    )


def test_contradicting_options_are_rejected_before_anything_is_created(settings: Settings) -> None:
    with pytest.raises(UserError, match="--exactly-once needs a pull subscription"):
        provision(settings, [CLICKS], options=SubscriptionOptions(exactly_once=True, push_endpoint="https://x/push"))
    assert provision(settings, [CLICKS], dry_run=True)[0] == f"would create topic {topic(settings)}"
