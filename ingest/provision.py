"""Creates the topics and subscriptions that the streams need."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial

from ingest.errors import UserError
from ingest.settings import Settings
from ingest.streams import Stream

PARTITIONS = 4
ACK_DEADLINE_SECONDS = 60


def provision(settings: Settings, streams: list[Stream], dry_run: bool = False) -> list[str]:
    """Create what is missing on the brokers that these streams arrive by; what exists is left as it is.

    Returns:
        A line for each thing that was created, or with `dry_run` would be.

    Raises:
        UserError: for a broker that does not answer or does not allow it.
    """
    kafka = [stream for stream in streams if settings.transport(stream) == "kafka"]
    pubsub = [stream for stream in streams if settings.transport(stream) == "pubsub"]
    return [
        *(_provision_kafka(settings, kafka, dry_run=dry_run) if kafka else []),
        *(_provision_pubsub(settings, pubsub, dry_run=dry_run) if pubsub else []),
    ]


def _provision_kafka(settings: Settings, streams: list[Stream], *, dry_run: bool) -> list[str]:
    from confluent_kafka import KafkaError, KafkaException
    from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

    from ingest.sources.kafka import ANSWER_SECONDS, client_config, open_client, unreachable

    connection = client_config(settings)
    admin = open_client(AdminClient, connection)
    try:
        existing = admin.list_topics(timeout=ANSWER_SECONDS).topics
    except KafkaException as error:
        raise unreachable(connection, error.args[0].str()) from error
    missing = [topic for topic in map(settings.topic, streams) if topic not in existing]
    if dry_run:
        return [f"would create Kafka topic {topic}" for topic in missing]
    # -1: as many replicas as the brokers are configured for. Retention goes by the message's own time and would
    # delete a replayed history within minutes, landed or not.
    config = {"retention.ms": "-1"}
    wanted = [NewTopic(topic, PARTITIONS, -1, config=config) for topic in missing]
    created = admin.create_topics(wanted) if wanted else {}
    done = []
    for topic, future in created.items():
        try:
            future.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise UserError(f"Kafka topic {topic}: {error.args[0].str()}") from error
        else:
            done.append(f"created Kafka topic {topic}")
    return done


def _provision_pubsub(settings: Settings, streams: list[Stream], *, dry_run: bool) -> list[str]:
    from google.api_core.exceptions import AlreadyExists, GoogleAPICallError, NotFound, RetryError
    from google.auth.exceptions import GoogleAuthError

    from ingest.publish.pubsub import open_publisher
    from ingest.sources.pubsub import ANSWER_SECONDS, open_subscriber, unreachable

    publisher, subscriber = open_publisher(settings), open_subscriber(settings)
    bounds = {"timeout": ANSWER_SECONDS, "retry": None}
    done = []

    def ensure(what: str, get: Callable[[], object], create: Callable[[], object]) -> None:
        try:
            get()
        except NotFound:
            if dry_run:
                done.append(f"would create {what}")
                return
            with suppress(AlreadyExists):
                create()
                done.append(f"created {what}")

    try:
        for stream in streams:
            topic = f"projects/{settings.pubsub_project}/topics/{settings.topic(stream)}"
            subscription = f"projects/{settings.pubsub_project}/subscriptions/{settings.subscription(stream)}"
            wanted = {
                "name": subscription,
                "topic": topic,
                "ack_deadline_seconds": ACK_DEADLINE_SECONDS,
                # A subscription that nobody reads for a month is not to vanish with its messages.
                "expiration_policy": {},
            }
            ensure(
                f"topic {topic}",
                partial(publisher.get_topic, topic=topic, **bounds),
                partial(publisher.create_topic, name=topic, **bounds),
            )
            ensure(
                f"subscription {subscription}",
                partial(subscriber.get_subscription, subscription=subscription, **bounds),
                partial(subscriber.create_subscription, request=wanted, **bounds),
            )
    except (GoogleAPICallError, RetryError, GoogleAuthError) as error:
        raise unreachable(settings, error) from error
    finally:
        publisher.transport.close()
        subscriber.close()
    return done
