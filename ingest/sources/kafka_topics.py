"""Describes topics for landing, and remembers which of them this client may not read."""

from collections.abc import Iterable
from typing import Any

import structlog

from ingest.brokers.kafka import KafkaConnection
from ingest.brokers.kafka_topics import describe_topics, may_read, not_allowed

log = structlog.get_logger()


class Topics:
    """The topics of a source, as an admin client sees them.

    Raises:
        UserError: for a configuration that librdkafka does not take.
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
        """Return topic to its confluent_kafka.admin.TopicDescription, without those that are missing or hidden by ACLs.

        Raises:
            UnavailableError: when the brokers do not answer.
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
