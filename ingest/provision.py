"""Creates the topics and subscriptions that the streams need."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from common.errors import UserError
from common.settings import Settings
from common.streams import Stream
from ingest.producers import duration

PARTITIONS = 4
DEAD_LETTER_RETENTION = timedelta(days=31)
"""Retention of unacknowledged dead letters: the maximum of Pub/Sub."""
SERVICE_AGENT = "serviceAccount:service-PROJECT_NUMBER@gcp-sa-pubsub.iam.gserviceaccount.com"


@dataclass(frozen=True, slots=True)
class SubscriptionOptions:
    """Options of new Pub/Sub subscriptions."""

    ack_deadline_seconds: int = 60
    ordering: bool = False
    exactly_once: bool = False
    dead_letter_attempts: int | None = None
    """Deliveries after which Pub/Sub moves a message to the topic `<topic>-dead-letter`; None for no dead letters."""
    push_endpoint: str | None = None
    """URL to push to, in which `{stream}` stands for the stream's name; None for a pull subscription."""


DEFAULT_OPTIONS = SubscriptionOptions()


def provision(
    settings: Settings, streams: list[Stream], dry_run: bool = False, options: SubscriptionOptions = DEFAULT_OPTIONS
) -> list[str]:
    """Create the missing topics and subscriptions of these streams. Existing ones are not changed.

    With Kafka, the topic of `emit` is created together with the stream page_views, from which its results come.

    Args:
        dry_run: only report what would be created.

    Returns:
        One line per created resource, existing subscription that differs from the options, existing topic with a
        limited retention, and step that has to be done by hand.

    Raises:
        UserError: if a broker does not answer or rejects a request, the topic of a subscription was deleted, or options
            contradict each other.
    """
    kafka = [settings.topic(stream) for stream in streams if settings.transport(stream) == "kafka"]
    results = [settings.emit_topic for stream in streams if stream.name == "page_views" and settings.has_kafka]
    pubsub = [stream for stream in streams if settings.transport(stream) == "pubsub"]
    # Both checks come first, so that nothing is created if one fails.
    if kafka or results:
        _check_topics(settings, kafka, results)
    if pubsub:
        _check_subscriptions(settings, pubsub)
    return [
        *(_provision_kafka(settings, kafka, results, dry_run=dry_run) if kafka or results else []),
        *(_provision_pubsub(settings, pubsub, options, dry_run=dry_run) if pubsub else []),
    ]


def _check_topics(settings: Settings, landed: list[str], emitted: list[str]) -> None:
    """Raise UserError if topics exist that this client may not describe or read."""
    from ingest.brokers.kafka import KafkaConnection
    from ingest.brokers.kafka_topics import describe_topics, may_read, not_allowed

    connection = KafkaConnection(settings)
    described, hidden = describe_topics(connection, connection.open_admin(), landed + emitted)
    unreadable = {topic for topic in landed if topic in described and not may_read(described[topic])}
    if denied := sorted(hidden | unreadable):
        raise UserError("; ".join(map(not_allowed, denied)))


def _check_subscriptions(settings: Settings, streams: list[Stream]) -> None:
    """Raise UserError if the topic of a subscription was deleted."""
    from google.api_core.exceptions import NotFound

    from ingest.brokers.pubsub import (
        DELETED_TOPIC,
        REQUEST_TIMEOUT_SECONDS,
        open_subscriber,
        topic_deleted,
        translate_errors,
    )

    orphans = []
    with open_subscriber(settings) as subscriber, translate_errors(settings):
        for name in map(settings.subscription, streams):
            try:
                found = subscriber.get_subscription(subscription=name, timeout=REQUEST_TIMEOUT_SECONDS, retry=None)
            except NotFound:
                continue
            if found.topic == DELETED_TOPIC:
                orphans.append(topic_deleted(name))
    if orphans:
        raise UserError("; ".join(orphans))


def _provision_kafka(settings: Settings, landed: list[str], emitted: list[str], *, dry_run: bool) -> list[str]:
    from confluent_kafka import KafkaError, KafkaException
    from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined]

    from ingest.brokers.kafka import REQUEST_TIMEOUT_SECONDS, KafkaConnection
    from ingest.brokers.kafka_topics import retention, topic_configs

    connection = KafkaConnection(settings)
    admin = connection.open_admin()
    with connection.translate_errors(admin):
        existing = admin.list_topics(timeout=REQUEST_TIMEOUT_SECONDS).topics
    missing = [topic for topic in landed + emitted if topic not in existing]
    configs = topic_configs(connection, admin, [topic for topic in landed if topic in existing])
    limited = [
        f"Kafka topic {topic} exists with a limited retention of {duration(limit)}, not changed: Kafka deletes older"
        " messages even if they have not landed"
        for topic, config in configs.items()
        if (limit := retention(config)) is not None
    ]
    if dry_run:
        return [*(f"would create Kafka topic {topic}" for topic in missing), *limited]
    # Unlimited retention for landed topics: retention counts from the time in the message, so a limit would delete
    # replayed history within minutes. The topic of `emit` keeps the default, since results can be emitted again.
    unlimited = {"retention.ms": "-1"}
    default_replicas = -1  # as configured in the brokers
    new_topics = [
        NewTopic(topic, PARTITIONS, default_replicas, config=unlimited if topic in landed else {}) for topic in missing
    ]
    created = admin.create_topics(new_topics) if new_topics else {}
    done = []
    for topic, future in created.items():
        try:
            future.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise UserError(f"Kafka topic {topic}: {error.args[0].str()}") from error
        else:
            done.append(f"created Kafka topic {topic}")
    return [*done, *limited]


def _provision_pubsub(
    settings: Settings, streams: list[Stream], options: SubscriptionOptions, *, dry_run: bool
) -> list[str]:
    from google.api_core.exceptions import AlreadyExists, NotFound

    from ingest.brokers.pubsub import REQUEST_TIMEOUT_SECONDS, open_publisher, open_subscriber, translate_errors

    wanted = [_subscription(settings, stream, options) for stream in streams]
    publisher, subscriber = open_publisher(settings), open_subscriber(settings)
    bounds = {"timeout": REQUEST_TIMEOUT_SECONDS, "retry": None}
    done: list[str] = []

    def ensure(what: str, get: Callable[[], Any], create: Callable[[], object]) -> Any:
        """Create a resource if it is missing. Returns the existing resource, or None if it was missing."""
        try:
            return get()
        except NotFound:
            if dry_run:
                done.append(f"would create {what}")
                return None
            with suppress(AlreadyExists):
                create()
                done.append(f"created {what}")
            return None

    def ensure_topic(name: str) -> None:
        ensure(
            f"topic {name}",
            partial(publisher.get_topic, topic=name, **bounds),
            partial(publisher.create_topic, name=name, **bounds),
        )

    def ensure_subscription(subscription: Any) -> Any:
        return ensure(
            f"subscription {subscription.name}",
            partial(subscriber.get_subscription, subscription=subscription.name, **bounds),
            partial(subscriber.create_subscription, request=subscription, **bounds),
        )

    try:
        with translate_errors(settings):
            for subscription in wanted:
                ensure_topic(subscription.topic)
                if dead_letter_topic := subscription.dead_letter_policy.dead_letter_topic:
                    ensure_topic(dead_letter_topic)
                    ensure_subscription(_dead_letter_subscription(settings, subscription))
                existing = ensure_subscription(subscription)
                if existing is not None:
                    done += _differences(existing, subscription)
                elif dead_letter_topic:
                    done += _grants(subscription.name, dead_letter_topic)
    finally:
        publisher.transport.close()
        subscriber.close()
    return done


def _subscription(settings: Settings, stream: Stream, options: SubscriptionOptions) -> Any:
    """Return the google.pubsub_v1.types.Subscription to create."""
    from google.pubsub_v1.types import DeadLetterPolicy, ExpirationPolicy, PushConfig, Subscription

    topic = f"projects/{settings.pubsub_project}/topics/{settings.topic(stream)}"
    subscription = Subscription(
        name=settings.subscription(stream),
        topic=topic,
        ack_deadline_seconds=options.ack_deadline_seconds,
        enable_message_ordering=options.ordering,
        enable_exactly_once_delivery=options.exactly_once,
        # Never expires: by default Pub/Sub deletes a subscription that had no subscriber for a month.
        expiration_policy=ExpirationPolicy(),
    )
    if options.dead_letter_attempts is not None:
        subscription.dead_letter_policy = DeadLetterPolicy(
            dead_letter_topic=f"{topic}-dead-letter", max_delivery_attempts=options.dead_letter_attempts
        )
    if options.push_endpoint is not None:
        if options.exactly_once:
            raise UserError("--exactly-once needs a pull subscription: omit it or --push-endpoint")
        subscription.push_config = PushConfig(push_endpoint=options.push_endpoint.replace("{stream}", stream.name))
        if settings.push_service_account is not None:
            subscription.push_config.oidc_token = PushConfig.OidcToken(
                service_account_email=settings.push_service_account, audience=settings.push_audience or ""
            )
    return subscription


def _dead_letter_subscription(settings: Settings, subscription: Any) -> Any:
    """Return the subscription to create for a dead letter topic, which would otherwise drop its messages."""
    from google.pubsub_v1.types import ExpirationPolicy, Subscription

    topic = subscription.dead_letter_policy.dead_letter_topic
    return Subscription(
        name=topic.replace("/topics/", "/subscriptions/"),
        topic=topic,
        ack_deadline_seconds=subscription.ack_deadline_seconds,
        # The emulator rejects a retention above the default.
        message_retention_duration=None if settings.pubsub_emulator_host else DEAD_LETTER_RETENTION,
        expiration_policy=ExpirationPolicy(),
    )


def _grants(subscription: str, dead_letter_topic: str) -> list[str]:
    """Return the commands that allow Pub/Sub's service agent to move messages to the dead letter topic."""
    return [
        f"to do by hand: gcloud pubsub topics add-iam-policy-binding {dead_letter_topic}"
        f" --member={SERVICE_AGENT} --role=roles/pubsub.publisher",
        f"to do by hand: gcloud pubsub subscriptions add-iam-policy-binding {subscription}"
        f" --member={SERVICE_AGENT} --role=roles/pubsub.subscriber",
    ]


def _differences(existing: Any, wanted: Any) -> list[str]:
    """Return one line if the existing subscription differs from the requested one, else none."""
    actual, requested = _description(existing), _description(wanted)
    differences = [
        f"{option} {actual[option]}, not {requested[option]}"
        for option in requested
        if actual[option] != requested[option]
    ]
    if not differences:
        return []
    return [f"subscription {existing.name} exists with {' and '.join(differences)}: not changed"]


def _description(subscription: Any) -> dict[str, str]:
    dead_letters, push = subscription.dead_letter_policy, subscription.push_config
    token = push.oidc_token
    return {
        "topic": subscription.topic,
        "ack deadline": f"{subscription.ack_deadline_seconds} s",
        "ordering": "on" if subscription.enable_message_ordering else "off",
        "exactly-once": "on" if subscription.enable_exactly_once_delivery else "off",
        "dead letters": f"to {dead_letters.dead_letter_topic} after {dead_letters.max_delivery_attempts} attempts"
        if dead_letters.dead_letter_topic
        else "off",
        "push endpoint": (push.push_endpoint or "none")
        # Pub/Sub uses the endpoint as the audience if none is set.
        + (f" as {token.service_account_email} for {token.audience or push.push_endpoint}" if token else ""),
    }
