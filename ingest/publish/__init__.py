"""Where the simulator and `replay` write to: the transport that the settings choose for a stream."""

from collections.abc import Iterable
from typing import Protocol, Self

from ingest.message import Message
from ingest.settings import Settings
from ingest.streams import Stream


class Publisher(Protocol):
    """Publishes to one transport. Leaving its context waits until everything is delivered."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...

    def publish(self, stream: Stream, messages: Iterable[Message]) -> int:
        """Publish messages in order; returns how many.

        Raises:
            UserError: when the broker does not take them.
        """
        ...


class RoutingPublisher:
    """Publishes each stream to its own transport, opened when first needed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._publishers: dict[str, Publisher] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for publisher in self._publishers.values():
            publisher.__exit__(*exc)

    def publish(self, stream: Stream, messages: Iterable[Message]) -> int:
        transport = self._settings.transport(stream)
        if transport not in self._publishers:
            self._publishers[transport] = self._open(transport).__enter__()
        return self._publishers[transport].publish(stream, messages)

    def _open(self, transport: str) -> Publisher:
        if transport == "kafka":
            from ingest.publish.kafka import KafkaPublisher

            return KafkaPublisher(self._settings)
        if transport == "pubsub":
            from ingest.publish.pubsub import PubSubPublisher

            return PubSubPublisher(self._settings)
        from ingest.publish.spool import SpoolPublisher

        return SpoolPublisher(self._settings)
