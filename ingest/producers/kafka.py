"""Produces to Kafka with an idempotent producer."""

from collections.abc import Callable, Iterable
from typing import Any, Self

from confluent_kafka import KafkaError, KafkaException

from common.errors import UserError
from common.settings import Settings
from common.streams import Stream
from ingest.brokers.kafka import DELIVERY_TIMEOUT_SECONDS, REQUEST_TIMEOUT_SECONDS, KafkaConnection
from ingest.message import Message
from ingest.producers import MessageTooLargeError

POLL_EVERY = 10_000
"""Messages to produce between two checks for failed deliveries."""


class KafkaProducer:
    """Produces each message once, in order per key.

    The time of the message is `published_at` to the millisecond, or the current time. A payload of None is a tombstone.
    """

    def __init__(self, settings: Settings) -> None:
        """Connect.

        Raises:
            UserError: if librdkafka rejects the configuration, or the brokers do not answer.
        """
        self._settings = settings
        self._failed = 0
        self._failure: KafkaError | None = None
        self._largest_failed = b""
        """The largest payload that was not delivered."""
        self._connection = KafkaConnection(settings)
        self._producer = self._connection.open_producer(on_delivery=self._on_delivery)
        with self._connection.translate_errors(self._producer):
            self._producer.list_topics(timeout=REQUEST_TIMEOUT_SECONDS)
        self._known: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self.flush()
        except UserError:
            if not exc or exc[0] is None:
                raise
            # Report the first error, not the one of `flush`, which follows from it.

    def produce(self, stream: Stream, messages: Iterable[Message]) -> int:
        return self.produce_to(self._settings.topic(stream), messages)

    def produce_to(
        self, topic: str, messages: Iterable[Message], on_too_large: Callable[[Message], None] | None = None
    ) -> int:
        """Produce messages in order; returns how many were queued.

        Args:
            on_too_large: called at once with each message above the client's `message.max.bytes`, which is skipped.

        Raises:
            MessageTooLargeError: if a message is too large and there is no `on_too_large`.
            UserError: if the topic is missing, or this message or an earlier one cannot be delivered.
        """
        self._require_topic(topic)
        produce, poll = self._producer.produce, self._producer.poll
        count = skipped = 0
        for count, message in enumerate(messages, start=1):
            # 0 means "now" in librdkafka.
            milliseconds = 0 if message.published_at is None else message.published_at // 1000
            # Bytes, since the client truncates text at a NUL character.
            headers = [(name, value.encode()) for name, value in message.attributes.items()] or None
            while True:
                try:
                    produce(topic, message.payload, message.key, timestamp=milliseconds, headers=headers)
                    break
                except BufferError:  # the queue is full; this loop must poll, so tenacity does not fit
                    poll(0.1)
                    self._raise_failure()
                except KafkaException as error:
                    if error.args[0].code() != KafkaError.MSG_SIZE_TOO_LARGE:
                        raise UserError(f"Kafka topic {topic}: {error.args[0].str()}") from error
                    if on_too_large is None:
                        payload = message.payload or b""
                        limit = self._connection.config.get("message.max.bytes", 1_000_000)
                        raise MessageTooLargeError(
                            f"a message of {len(payload):,} bytes is too large for Kafka topic {topic}: "
                            f"message.max.bytes is {limit}; KAFKA_CONFIG_FILE can set it",
                            payload,
                        ) from error
                    on_too_large(message)
                    skipped += 1
                    break
            if count % POLL_EVERY == 0:
                poll(0)
                self._raise_failure()
        return count - skipped

    def flush(self) -> None:
        """Wait until all messages are delivered.

        Raises:
            UserError: if a message cannot be delivered.
        """
        undelivered = self._producer.flush(DELIVERY_TIMEOUT_SECONDS + 5)
        self._raise_failure()
        if undelivered:
            raise self._connection.unreachable(f"{undelivered} messages were not delivered")

    def _require_topic(self, topic: str) -> None:
        """Raise UserError at once if the topic is missing: librdkafka would wait half a minute for it."""
        if topic not in self._known:
            with self._connection.translate_errors():
                error = self._producer.list_topics(topic, timeout=REQUEST_TIMEOUT_SECONDS).topics[topic].error
            if error is not None and error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise UserError(f"Kafka has no topic {topic}; create it with `python -m ingest provision`")
            self._known.add(topic)

    def _raise_failure(self) -> None:
        """Raise an error if a delivery has failed."""
        if self._failure is None:
            return
        servers, plural = self._connection.servers, "" if self._failed == 1 else "s"
        text = f"Kafka at {servers} rejected {self._failed:,} message{plural}: {self._failure.str()}"
        if self._failure.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            size = f"the largest has {len(self._largest_failed):,} bytes, see max.message.bytes of the topic"
            raise MessageTooLargeError(f"{text}; {size}", self._largest_failed)
        raise UserError(text)

    def _on_delivery(self, error: KafkaError | None, message: Any) -> None:
        if error is not None:
            self._failed += 1
            self._failure = error
            self._largest_failed = max(self._largest_failed, message.value() or b"", key=len)
