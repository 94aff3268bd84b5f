"""Publishes to Kafka with an idempotent producer."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Self

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, ConfigResource  # type: ignore[attr-defined]

from ingest.errors import UserError
from ingest.message import Message
from ingest.producers import MessageTooLargeError
from ingest.settings import Settings
from ingest.sources.kafka import ANSWER_SECONDS, client_config, open_client, unreachable
from ingest.streams import Stream

DELIVERY_SECONDS = 60
POLL_EVERY = 10_000
"""Messages between two looks at delivery reports."""
log = structlog.get_logger()


def open_admin(settings: Settings) -> Any:
    """An AdminClient.

    Raises:
        UserError: for a configuration that librdkafka does not take.
    """
    return open_client(AdminClient, client_config(settings))


def topic_configs(settings: Settings, admin: Any, topics: Sequence[str]) -> dict[str, Mapping[str, str]]:
    """Return the effective configuration of each topic that exists and that this user may describe.

    Raises:
        UserError: for brokers that do not answer.
    """
    resources = [ConfigResource(ConfigResource.Type.TOPIC, topic) for topic in topics]
    configs: dict[str, Mapping[str, str]] = {}
    if not resources:
        return configs
    for resource, future in admin.describe_configs(resources, request_timeout=ANSWER_SECONDS).items():
        try:
            configs[resource.name] = {name: entry.value for name, entry in future.result().items()}
        except KafkaException as error:
            code = error.args[0].code()
            if code in (KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._ALL_BROKERS_DOWN):
                raise unreachable(client_config(settings), error.args[0].str()) from error
            if code != KafkaError.UNKNOWN_TOPIC_OR_PART:
                log.warning("cannot read the kafka topic's retention", topic=resource.name, error=error.args[0].str())
    return configs


def retention(config: Mapping[str, str]) -> timedelta | None:
    """The retention of a topic with this configuration; None is unlimited."""
    if "delete" not in config.get("cleanup.policy", "delete"):
        return None
    milliseconds = int(config.get("retention.ms", -1))
    # Kafka's maximum, 292 million years, is more than a timedelta can hold.
    return timedelta(milliseconds=milliseconds) if 0 <= milliseconds < 1000 * 365 * 86_400_000 else None


class KafkaPublisher:
    """Publishes each message once, in order within its key.

    The message's time is `published_at` to the millisecond, or now. A payload of None is a tombstone.
    """

    def __init__(self, settings: Settings) -> None:
        """Connect.

        Raises:
            UserError: for a configuration that librdkafka does not take, or brokers that do not answer.
        """
        self._settings = settings
        self._failed = 0
        self._failure: KafkaError | None = None
        self._largest_failed = b""
        """The largest payload that was not delivered."""
        self._last_error: str | None = None
        self._config = client_config(settings)
        self._producer: Any = open_client(
            Producer,
            {
                "linger.ms": 20,
                "compression.type": "lz4",
                "batch.size": 1_000_000,
                "queue.buffering.max.messages": 200_000,
                "delivery.timeout.ms": DELIVERY_SECONDS * 1000,
                # Java's and Confluent's hash, so that keys meet those of other producers in one partition.
                "partitioner": "murmur2_random",
                **self._config,
                "enable.idempotence": True,
                "acks": "all",
                "error_cb": self._on_error,
                "on_delivery": self._on_delivery,
                # A report only for what failed: a callback a message would halve the rate.
                "delivery.report.only.error": True,
            },
        )
        try:
            self._producer.list_topics(timeout=ANSWER_SECONDS)
        except KafkaException as error:
            self._producer.poll(0)  # serves the error event that says why
            raise unreachable(self._config, self._last_error or error.args[0].str()) from error
        self._known: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self.flush()
        except UserError:
            if not exc or exc[0] is None:
                raise
            # what went wrong first is what to report

    def publish(self, stream: Stream, messages: Iterable[Message]) -> int:
        return self.publish_to(self._settings.topic(stream), messages)

    def publish_to(
        self, topic: str, messages: Iterable[Message], on_too_large: Callable[[Message], None] | None = None
    ) -> int:
        """Publish messages in order; returns how many were handed to the producer.

        A message above the client's `message.max.bytes` is given to `on_too_large` at once, and left out.

        Raises:
            MessageTooLargeError: for a message that is too large, without `on_too_large`.
            UserError: when an earlier message was not delivered, or this one cannot be, or the topic is missing.
        """
        self._require(topic)
        produce, poll = self._producer.produce, self._producer.poll
        taken = left_out = 0
        for taken, message in enumerate(messages, start=1):
            # 0 stands for "now" in librdkafka.
            milliseconds = 0 if message.published_at is None else message.published_at // 1000
            # As bytes: the client cuts text at a NUL.
            headers = [(name, value.encode()) for name, value in message.attributes.items()] or None
            while True:
                try:
                    produce(topic, message.payload, message.key, timestamp=milliseconds, headers=headers)
                    break
                except BufferError:  # the queue is full: wait for deliveries
                    poll(0.1)
                    self._check()
                except KafkaException as error:
                    if error.args[0].code() != KafkaError.MSG_SIZE_TOO_LARGE:
                        raise UserError(f"Kafka topic {topic}: {error.args[0].str()}") from error
                    if on_too_large is None:
                        payload, limit = message.payload or b"", self._config.get("message.max.bytes", 1_000_000)
                        raise MessageTooLargeError(
                            f"{len(payload):,} bytes are too much for one message to Kafka topic {topic}: "
                            f"message.max.bytes is {limit}; KAFKA_CONFIG_FILE can set it",
                            payload,
                        ) from error
                    on_too_large(message)
                    left_out += 1
                    break
            if taken % POLL_EVERY == 0:
                poll(0)
                self._check()
        return taken - left_out

    def flush(self) -> None:
        """Wait for every delivery.

        Raises:
            UserError: when a message was not delivered.
        """
        undelivered = self._producer.flush(DELIVERY_SECONDS + 5)
        self._check()
        if undelivered:
            raise unreachable(self._config, f"{undelivered} messages are not delivered")

    def _require(self, topic: str) -> None:
        """Notice a missing topic at once: librdkafka waits half a minute for it to appear."""
        if topic not in self._known:
            try:
                error = self._producer.list_topics(topic, timeout=ANSWER_SECONDS).topics[topic].error
            except KafkaException as failure:
                raise unreachable(self._config, failure.args[0].str()) from failure
            if error is not None and error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise UserError(f"Kafka has no topic {topic}; create it with `python -m ingest provision`")
            self._known.add(topic)

    def _check(self) -> None:
        if self._failure is None:
            return
        servers, plural = self._config["bootstrap.servers"], "" if self._failed == 1 else "s"
        text = f"Kafka at {servers} did not take {self._failed:,} message{plural}: {self._failure.str()}"
        if self._failure.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            size = f"the largest of them has {len(self._largest_failed):,} bytes, see max.message.bytes of the topic"
            raise MessageTooLargeError(f"{text}; {size}", self._largest_failed)
        raise UserError(text)

    def _on_delivery(self, error: KafkaError | None, message: Any) -> None:
        if error is not None:
            self._failed += 1
            self._failure = error
            self._largest_failed = max(self._largest_failed, message.value() or b"", key=len)

    def _on_error(self, error: KafkaError) -> None:
        self._last_error = error.str()
