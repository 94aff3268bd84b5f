"""Looks up Kafka topics: ids, offsets, retention and this client's permissions."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import structlog
from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AclOperation, ConfigResource, OffsetSpec  # type: ignore[attr-defined]

from ingest.brokers.kafka import REQUEST_TIMEOUT_SECONDS, KafkaConnection

EARLIEST, LATEST = OffsetSpec.earliest(), OffsetSpec.latest()  # type: ignore[no-untyped-call]
NO_TOPIC_ID = "AAAAAAAAAAAAAAAAAAAAAA"
"""Sixteen zero bytes in base64, which brokers before Kafka 2.8 return as the id of each topic."""
UNREACHABLE = (KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._ALL_BROKERS_DOWN)

TopicAndPartition = tuple[str, int]

log = structlog.get_logger()


def describe_topics(connection: KafkaConnection, admin: Any, topics: Iterable[str]) -> tuple[dict[str, Any], set[str]]:
    """Describe topics.

    Returns:
        The confluent_kafka.admin.TopicDescription of each topic, and the topics that ACLs hide from this client.
        Missing topics are in neither.

    Raises:
        UnavailableError: if the brokers do not answer.
    """
    described, hidden = {}, set()
    with connection.translate_errors(admin):
        answers = admin.describe_topics(
            TopicCollection(sorted(topics)), request_timeout=REQUEST_TIMEOUT_SECONDS, include_authorized_operations=True
        )
        for topic, answer in answers.items():
            try:
                described[topic] = answer.result()
            except KafkaException as error:
                if error.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                    hidden.add(topic)
                elif error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise
    return described, hidden


def may_read(description: Any) -> bool:
    """Return whether this client may read the topic; True for old brokers, which do not report permissions."""
    return not description.authorized_operations or AclOperation.READ in description.authorized_operations


def not_allowed(topic: str) -> str:
    return (
        f"this client may not read Kafka topic {topic}: grant it DESCRIBE and READ on the topic (ACLs), or remove its"
        " stream from STREAMS"
    )


def topic_ids(described: Mapping[str, Any]) -> dict[str, str]:
    """Return a mapping of topic to id; '' if the broker does not assign ids."""
    ids = {topic: str(description.topic_id) for topic, description in described.items()}
    return {topic: "" if topic_id == NO_TOPIC_ID else topic_id for topic, topic_id in ids.items()}


def list_offsets(
    connection: KafkaConnection,
    admin: Any,
    partitions: Sequence[TopicAndPartition],
    which: OffsetSpec,
    isolation_level: IsolationLevel = IsolationLevel.READ_COMMITTED,
) -> dict[TopicAndPartition, int]:
    """Return the earliest or the end offset of each partition.

    Args:
        which: EARLIEST or LATEST.
        isolation_level: READ_COMMITTED ends a partition before the first open transaction.

    Raises:
        UnavailableError: if the brokers do not answer.
    """
    wanted = {TopicPartition(*partition): which for partition in partitions}
    if not wanted:
        return {}
    answers = admin.list_offsets(wanted, isolation_level=isolation_level, request_timeout=REQUEST_TIMEOUT_SECONDS)
    with connection.translate_errors():
        return {(one.topic, one.partition): answer.result().offset for one, answer in answers.items()}


def topic_configs(connection: KafkaConnection, admin: Any, topics: Sequence[str]) -> dict[str, Mapping[str, str]]:
    """Return the effective configuration of each topic that exists and that this client may describe.

    Raises:
        UnavailableError: if the brokers do not answer.
    """
    resources = [ConfigResource(ConfigResource.Type.TOPIC, topic) for topic in topics]
    configs: dict[str, Mapping[str, str]] = {}
    if not resources:
        return configs
    for resource, answer in admin.describe_configs(resources, request_timeout=REQUEST_TIMEOUT_SECONDS).items():
        try:
            configs[resource.name] = {name: entry.value for name, entry in answer.result().items()}
        except KafkaException as error:
            code = error.args[0].code()
            if code in UNREACHABLE:
                raise connection.unreachable(error.args[0].str()) from error
            if code != KafkaError.UNKNOWN_TOPIC_OR_PART:
                log.warning(
                    "cannot read the retention of the kafka topic", topic=resource.name, error=error.args[0].str()
                )
    return configs


def retention(config: Mapping[str, str]) -> timedelta | None:
    """Return the retention of a topic with this configuration; None if unlimited."""
    if "delete" not in config.get("cleanup.policy", "delete"):
        return None
    milliseconds = int(config.get("retention.ms", -1))
    # More than a thousand years counts as unlimited, since a timedelta cannot hold Kafka's maximum.
    return timedelta(milliseconds=milliseconds) if 0 <= milliseconds < 1000 * 365 * 86_400_000 else None
