"""Produces messages, for the simulator and `replay`, to the transport that the settings choose for each stream."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from datetime import timedelta
from typing import Any, Protocol, Self

from common.errors import UserError
from common.settings import Settings
from common.streams import Stream
from ingest.message import Message


class MessageTooLargeError(UserError):
    """A message is larger than the broker accepts; `payload` is its body."""

    def __init__(self, text: str, payload: bytes) -> None:
        super().__init__(text)
        self.payload = payload


class Producer(Protocol):
    """Produces to one transport. Leaving its context flushes, unless an exception was raised inside."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...

    def produce(self, stream: Stream, messages: Iterable[Message]) -> int:
        """Queue messages for delivery, in order; returns their number. They are delivered only after `flush`.

        Raises:
            MessageTooLargeError: if one of these messages, or an earlier one, is too large.
            UserError: if these messages, or earlier ones, cannot be delivered.
        """
        ...

    def flush(self) -> None:
        """Wait until all messages produced so far are delivered, so that a kill afterwards loses none.

        Raises:
            UserError: if a message cannot be delivered.
        """
        ...


class RoutingProducer:
    """Produces each stream to its transport. Opens the producer of a transport when a stream first needs it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producers: dict[str, Producer] = {}
        self._opened = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: Any) -> None:
        self._opened.__exit__(*exc)  # closes every producer, even if one raises

    def produce(self, stream: Stream, messages: Iterable[Message]) -> int:
        transport = self._settings.transport(stream)
        if transport not in self._producers:
            self._producers[transport] = self._opened.enter_context(self._open(transport))
        return self._producers[transport].produce(stream, messages)

    def flush(self) -> None:
        for producer in self._producers.values():
            producer.flush()

    def _open(self, transport: str) -> Producer:
        if transport == "kafka":
            from ingest.producers.kafka import KafkaProducer

            return KafkaProducer(self._settings)
        if transport == "pubsub":
            from ingest.producers.pubsub import PubSubProducer

            return PubSubProducer(self._settings)
        from ingest.producers.spool import SpoolProducer

        return SpoolProducer(self._settings)


def retentions(settings: Settings, streams: Sequence[Stream]) -> Mapping[str, timedelta]:
    """Return the retention of streams whose broker deletes messages by the time in the message.

    These are Kafka topics with a limited retention, unless the broker sets the time of a message to that of its
    arrival.

    Raises:
        UserError: if the brokers do not answer.
    """
    topics = {settings.topic(stream): stream.name for stream in streams if settings.transport(stream) == "kafka"}
    if not topics:
        return {}
    from ingest.brokers.kafka import KafkaConnection
    from ingest.brokers.kafka_topics import retention, topic_configs

    connection = KafkaConnection(settings)
    configs = topic_configs(connection, connection.open_admin(), list(topics))
    return {
        topics[topic]: limit
        for topic, config in configs.items()
        if (limit := retention(config)) is not None and config.get("message.timestamp.type") != "LogAppendTime"
    }


def duration(time: timedelta) -> str:
    """Format a duration for people: 7 days, 36 hours, 90 s."""
    seconds = time.total_seconds()
    for unit, name in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit and seconds % unit == 0:
            return f"{seconds // unit:,.0f} {name}"
    return f"{seconds:,.10g} s"
