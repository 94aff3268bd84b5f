"""Publishes to Kafka with an idempotent producer."""

from collections.abc import Callable, Iterable
from typing import Any, Self

from confluent_kafka import KafkaError, KafkaException, Producer

from ingest.errors import UserError
from ingest.message import Message
from ingest.settings import Settings
from ingest.sources.kafka import ANSWER_SECONDS, client_config, open_client, unreachable
from ingest.streams import Stream

DELIVERY_SECONDS = 60
POLL_EVERY = 10_000
"""Messages between two looks at delivery reports."""


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
                    if on_too_large is None or error.args[0].code() != KafkaError.MSG_SIZE_TOO_LARGE:
                        raise UserError(f"Kafka topic {topic}: {error.args[0].str()}") from error
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
        if self._failure is not None:
            raise UserError(
                f"Kafka at {self._config['bootstrap.servers']} did not take {self._failed} messages: "
                f"{self._failure.str()}"
            )

    def _on_delivery(self, error: KafkaError | None, _: object) -> None:
        if error is not None:
            self._failed += 1
            self._failure = error

    def _on_error(self, error: KafkaError) -> None:
        self._last_error = error.str()
