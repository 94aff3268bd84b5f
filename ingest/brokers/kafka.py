"""Opens Kafka clients with one configuration, and translates their errors."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from common.errors import UnavailableError, UserError
from common.settings import Settings
from ingest.brokers.kafka_properties import REGISTRY_PREFIXES, read_properties

REQUEST_TIMEOUT_SECONDS = 10.0
"""How long a broker may take to answer a request before it counts as unreachable."""
DELIVERY_TIMEOUT_SECONDS = 60
"""How long a produced message may take to be delivered."""
CONSUMER_DEFAULTS = {
    # The group waits for a killed member until its session ends.
    "session.timeout.ms": 10_000,
    "heartbeat.interval.ms": 2_000,
    # A topic that is created later is found within this time.
    "topic.metadata.refresh.interval.ms": 30_000,
    # An empty partition announces its end after this time; the default is 500.
    "fetch.wait.max.ms": 100,
    # Of all partitions together: memory that waits to be consumed.
    "queued.max.messages.kbytes": 32_768,
    "fetch.max.bytes": 16_777_216,
}
"""Used unless KAFKA_CONFIG_FILE says otherwise."""
CONSUMER_REQUIREMENTS = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    # A missing offset is an error to count and log, not to step over in silence.
    "auto.offset.reset": "error",
    "enable.partition.eof": True,
    # `Assignment.on_assign` takes the whole assignment each time.
    "group.protocol": "classic",
    "partition.assignment.strategy": "range,roundrobin",
}
"""Used whatever KAFKA_CONFIG_FILE says."""
PRODUCER_DEFAULTS = {
    "linger.ms": 20,
    "compression.type": "lz4",
    "batch.size": 1_000_000,
    "queue.buffering.max.messages": 200_000,
    "delivery.timeout.ms": DELIVERY_TIMEOUT_SECONDS * 1000,
    # Java's and Confluent's hash: a key goes to the same partition as from other producers.
    "partitioner": "murmur2_random",
}
PRODUCER_REQUIREMENTS = {
    "enable.idempotence": True,
    "acks": "all",
    # A callback per message would halve the rate: only failures are reported.
    "delivery.report.only.error": True,
}

# Without a logger librdkafka prints to standard error. What matters arrives as an error event (`_on_error`).
_librdkafka_logger = logging.getLogger("ingest.librdkafka")
_librdkafka_logger.addHandler(logging.NullHandler())
_librdkafka_logger.propagate = False

log = structlog.get_logger()


def client_config(settings: Settings) -> dict[str, Any]:
    """Return librdkafka's configuration: KAFKA_CONFIG_FILE, with the servers of KAFKA_BOOTSTRAP_SERVERS if set.

    Raises:
        UserError: for a file that cannot be read. Its contents are secret and never part of the message.
    """
    config: dict[str, Any] = {}
    if settings.kafka_config_file is not None:
        properties = read_properties(settings.kafka_config_file)
        config.update({name: text for name, text in properties.items() if not name.startswith(REGISTRY_PREFIXES)})
    if settings.kafka_bootstrap_servers is not None:
        config["bootstrap.servers"] = settings.kafka_bootstrap_servers
    if not config.get("bootstrap.servers"):
        raise UserError("no Kafka brokers: set KAFKA_BOOTSTRAP_SERVERS, or bootstrap.servers in KAFKA_CONFIG_FILE")
    return config


class KafkaConnection:
    """One configuration, and the clients opened with it.

    Args:
        logs_errors: log the error events of the clients, once the brokers have answered for the first time.

    Raises:
        UserError: for a KAFKA_CONFIG_FILE that cannot be read, or without brokers.
    """

    def __init__(self, settings: Settings, *, logs_errors: bool = False) -> None:
        self.config = client_config(settings)
        self.last_error: str | None = None
        """The last error event."""
        self._settings = settings
        self._logs_errors = logs_errors
        self._has_answered = False

    @property
    def servers(self) -> str:
        return str(self.config["bootstrap.servers"])

    @property
    def consumer_group(self) -> str:
        if "kafka_group_id" in self._settings.model_fields_set:
            return self._settings.kafka_group_id
        return str(self.config.get("group.id", self._settings.kafka_group_id))

    def open_admin(self) -> Any:
        """Return a confluent_kafka.admin.AdminClient.

        Raises:
            UserError: for a property that librdkafka does not take; so do the other clients.
        """
        return self._open(AdminClient, self.config)

    def open_consumer(self, **options: Any) -> Any:
        """Return a confluent_kafka.Consumer of `consumer_group`, which must be closed."""
        group = {"group.id": self.consumer_group}
        return self._open(Consumer, {**CONSUMER_DEFAULTS, **self.config, **group, **CONSUMER_REQUIREMENTS, **options})

    def open_producer(self, **options: Any) -> Any:
        """Return an idempotent confluent_kafka.Producer."""
        return self._open(Producer, {**PRODUCER_DEFAULTS, **self.config, **PRODUCER_REQUIREMENTS, **options})

    def warn_of_ignored_properties(self) -> None:
        """Log the properties of KAFKA_CONFIG_FILE that landing replaces by its own."""
        for name, value in CONSUMER_REQUIREMENTS.items():
            if name in self.config and self.config[name].lower() != str(value).lower():
                log.warning(
                    "ignored a property of KAFKA_CONFIG_FILE: landing needs its own", property=name, value=value
                )

    @contextmanager
    def translate_errors(self, client: Any = None) -> Iterator[None]:
        """Turn a KafkaException into an UnavailableError that names the servers.

        Args:
            client: an admin client or producer, to be polled for the event that names the cause.
        """
        try:
            yield
        except KafkaException as error:
            if client is not None:
                client.poll(0)
            # Until the brokers have answered, the event says more than the exception.
            reason = None if self._has_answered else self.last_error
            raise self.unreachable(reason or error.args[0].str()) from error
        self._has_answered = True

    def unreachable(self, reason: str) -> UnavailableError:
        return UnavailableError(f"Kafka at {self.servers} does not answer: {reason}")

    def _open(self, kind: type, config: dict[str, Any]) -> Any:
        try:
            return kind({**config, "error_cb": self._on_error, "logger": _librdkafka_logger})
        except KafkaException as error:
            reason = re.sub(r'([Vv]alue) "[^"]*"', r"\1", error.args[0].str())  # it may be a secret
            raise UserError(f"Kafka configuration: {reason}") from None

    def _on_error(self, error: KafkaError) -> None:
        # librdkafka repeats itself several times a second. Before the first answer, the exception says it all.
        if self._logs_errors and self._has_answered and error.str() != self.last_error:
            log.warning("kafka", error=error.str())
        self.last_error = error.str()
