"""Looks up Kafka topics: their ids, offsets and retention, and what this client may do with them."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import structlog
from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AclOperation, ConfigResource, OffsetSpec  # type: ignore[attr-defined]

from ingest.brokers.kafka import REQUEST_TIMEOUT_SECONDS, KafkaConnection

# confluent_kafka.admin re-exports these classes, and annotates OffsetSpec, only in part: hence the ignores
EARLIEST, LATEST = OffsetSpec.earliest(), OffsetSpec.latest()  # type: ignore[no-untyped-call]
NO_TOPIC_ID = "AAAAAAAAAAAAAAAAAAAAAA"
"""Sixteen zero bytes: what a broker before Kafka 2.8 returns."""
UNREACHABLE = (KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._ALL_BROKERS_DOWN)

TopicAndPartition = tuple[str, int]

log = structlog.get_logger()


def describe_topics(connection: KafkaConnection, admin: Any, topics: Iterable[str]) -> tuple[dict[str, Any], set[str]]:
    """Return topic to its confluent_kafka.admin.TopicDescription, and the topics that ACLs hide. A missing topic is in
    neither.

    Raises:
        UnavailableError: when the brokers do not answer.
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
    """Return whether the client may read the topic. Old brokers do not say: then it is to be tried."""
    return not description.authorized_operations or AclOperation.READ in description.authorized_operations


def not_allowed(topic: str) -> str:
    return (
        f"Kafka topic {topic} may not be read by this client: grant it DESCRIBE and READ on the topic (ACLs), or leave"
        " its stream out of STREAMS"
    )


def topic_ids(described: Mapping[str, Any]) -> dict[str, str]:
    """Return topic to its id, '' for a broker that gives none."""
    ids = {topic: str(description.topic_id) for topic, description in described.items()}
    return {topic: "" if topic_id == NO_TOPIC_ID else topic_id for topic, topic_id in ids.items()}


def list_offsets(
    connection: KafkaConnection,
    admin: Any,
    partitions: Sequence[TopicAndPartition],
    which: OffsetSpec,
    isolation_level: IsolationLevel = IsolationLevel.READ_COMMITTED,
) -> dict[TopicAndPartition, int]:
    """Return the first or the end offset of each partition.

    Raises:
        UnavailableError: when the brokers do not answer.
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
        UnavailableError: when the brokers do not answer.
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
                log.warning("cannot read the kafka topic's retention", topic=resource.name, error=error.args[0].str())
    return configs


def retention(config: Mapping[str, str]) -> timedelta | None:
    """Return the retention of a topic with this configuration; None is unlimited."""
    if "delete" not in config.get("cleanup.policy", "delete"):
        return None
    milliseconds = int(config.get("retention.ms", -1))
    # Kafka's maximum, 292 million years, is more than a timedelta can hold.
    return timedelta(milliseconds=milliseconds) if 0 <= milliseconds < 1000 * 365 * 86_400_000 else None
