"""Opens Kafka clients with the configuration in the settings, and translates their errors."""

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
"""Maximum seconds that a broker may take to answer a request."""
DELIVERY_TIMEOUT_SECONDS = 60
"""Maximum seconds until a produced message is delivered, retries included."""
CONSUMER_DEFAULTS = {
    # The partitions of a killed member are assigned to others only after its session times out.
    "session.timeout.ms": 10_000,
    "heartbeat.interval.ms": 2_000,
    # A topic that is created after the subscription is found within this time.
    "topic.metadata.refresh.interval.ms": 30_000,
    # librdkafka reports the end of a partition only after this time; the default is 500.
    "fetch.wait.max.ms": 100,
    # Bounds the memory of messages that librdkafka has fetched ahead, over all partitions.
    "queued.max.messages.kbytes": 32_768,
    "fetch.max.bytes": 16_777_216,
}
"""Consumer properties that KAFKA_CONFIG_FILE can override."""
CONSUMER_REQUIREMENTS = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    # An offset that retention deleted must be counted and logged, so librdkafka may not skip it silently.
    "auto.offset.reset": "error",
    "enable.partition.eof": True,
    # `Assignment.on_assign` expects the whole assignment each time, not increments.
    "group.protocol": "classic",
    "partition.assignment.strategy": "range,roundrobin",
}
"""Consumer properties that KAFKA_CONFIG_FILE cannot override."""
PRODUCER_DEFAULTS = {
    "linger.ms": 20,
    "compression.type": "lz4",
    "batch.size": 1_000_000,
    "queue.buffering.max.messages": 200_000,
    "delivery.timeout.ms": DELIVERY_TIMEOUT_SECONDS * 1000,
    # The hash of the Java client, so that a key goes to the same partition as from other producers.
    "partitioner": "murmur2_random",
}
PRODUCER_REQUIREMENTS = {
    "enable.idempotence": True,
    "acks": "all",
    # Delivery reports for failures only: a callback per message would halve the rate.
    "delivery.report.only.error": True,
}

# Without a logger, librdkafka prints to standard error. Important errors also arrive as events (`_on_error`).
_librdkafka_logger = logging.getLogger("ingest.librdkafka")
_librdkafka_logger.addHandler(logging.NullHandler())
_librdkafka_logger.propagate = False

log = structlog.get_logger()


def client_config(settings: Settings) -> dict[str, Any]:
    """Return librdkafka's configuration: KAFKA_CONFIG_FILE, with the servers of KAFKA_BOOTSTRAP_SERVERS if set.

    Raises:
        UserError: if the file cannot be read or no servers are set. The error never shows the file's contents, which
            may be secret.
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
    """Opens clients with one configuration.

    Args:
        logs_errors: log error events of the clients after the first answer of the brokers.

    Raises:
        UserError: if KAFKA_CONFIG_FILE cannot be read or no brokers are set.
    """

    def __init__(self, settings: Settings, *, logs_errors: bool = False) -> None:
        self.config = client_config(settings)
        self.last_error: str | None = None
        """Text of the last error event of any client."""
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
            UserError: if librdkafka rejects a property.
        """
        return self._open(AdminClient, self.config)

    def open_consumer(self, **options: Any) -> Any:
        """Return a confluent_kafka.Consumer in `consumer_group`; the caller must close it.

        Raises:
            UserError: if librdkafka rejects a property.
        """
        group = {"group.id": self.consumer_group}
        return self._open(Consumer, {**CONSUMER_DEFAULTS, **self.config, **group, **CONSUMER_REQUIREMENTS, **options})

    def open_producer(self, **options: Any) -> Any:
        """Return an idempotent confluent_kafka.Producer.

        Raises:
            UserError: if librdkafka rejects a property.
        """
        return self._open(Producer, {**PRODUCER_DEFAULTS, **self.config, **PRODUCER_REQUIREMENTS, **options})

    def warn_of_ignored_properties(self) -> None:
        """Log the properties of KAFKA_CONFIG_FILE that CONSUMER_REQUIREMENTS overrides."""
        for name, value in CONSUMER_REQUIREMENTS.items():
            if name in self.config and self.config[name].lower() != str(value).lower():
                log.warning(
                    "a property of KAFKA_CONFIG_FILE is ignored: landing needs another value",
                    property=name,
                    value=value,
                )

    @contextmanager
    def translate_errors(self, client: Any = None) -> Iterator[None]:
        """Turn a KafkaException into an UnavailableError that names the servers.

        Args:
            client: an admin client or producer; it is polled for an error event with the cause.
        """
        try:
            yield
        except KafkaException as error:
            if client is not None:
                client.poll(0)
            # Before the first answer, the exception is only a timeout, and the event has the cause.
            reason = None if self._has_answered else self.last_error
            raise self.unreachable(reason or error.args[0].str()) from error
        self._has_answered = True

    def unreachable(self, reason: str) -> UnavailableError:
        return UnavailableError(f"Kafka at {self.servers} does not answer: {reason}")

    def _open(self, kind: type, config: dict[str, Any]) -> Any:
        try:
            return kind({**config, "error_cb": self._on_error, "logger": _librdkafka_logger})
        except KafkaException as error:
            reason = re.sub(r'([Vv]alue) "[^"]*"', r"\1", error.args[0].str())  # the value may be a secret
            raise UserError(f"invalid Kafka configuration: {reason}; see KAFKA_CONFIG_FILE") from None

    def _on_error(self, error: KafkaError) -> None:
        # librdkafka repeats errors several times a second. Before the first answer, `translate_errors` reports them.
        if self._logs_errors and self._has_answered and error.str() != self.last_error:
            log.warning("kafka client error", error=error.str())
        self.last_error = error.str()
