"""Describes the topics of a Kafka source, and records which of them this client may not read."""

from collections.abc import Iterable
from typing import Any

import structlog

from ingest.brokers.kafka import KafkaConnection
from ingest.brokers.kafka_topics import describe_topics, may_read, not_allowed

log = structlog.get_logger()


class Topics:
    """Describes topics with an admin client.

    Raises:
        UserError: if librdkafka rejects the configuration.
    """

    def __init__(self, connection: KafkaConnection) -> None:
        self.admin = connection.open_admin()
        self.denied: set[str] = set()
        """Topics that this client may not describe or read."""
        self._connection = connection

    @property
    def problems(self) -> list[str]:
        """One line per topic that this client may not read."""
        return [not_allowed(topic) for topic in sorted(self.denied)]

    def describe(self, topics: Iterable[str]) -> dict[str, Any]:
        """Return the confluent_kafka.admin.TopicDescription of each topic, without missing topics and those that ACLs
        hide.

        Raises:
            UnavailableError: if the brokers do not answer.
        """
        described, hidden = describe_topics(self._connection, self.admin, topics)
        readable = {topic for topic, description in described.items() if may_read(description)}
        for topic in sorted(hidden | (described.keys() - readable)):
            self.deny(topic)
        self.denied -= readable
        return described

    def deny(self, topic: str) -> None:
        """Record that this client may not read the topic, and log it once."""
        if topic not in self.denied:
            self.denied.add(topic)
            log.error(not_allowed(topic), topic=topic)
