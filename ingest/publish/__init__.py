"""Where the simulator and `replay` write to: the transport that the settings choose for a stream."""

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any, Protocol, Self

from ingest.message import Message
from ingest.settings import Settings
from ingest.streams import Stream


class Publisher(Protocol):
    """Publishes to one transport. Leaving its context flushes, unless an exception is on its way."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...

    def publish(self, stream: Stream, messages: Iterable[Message]) -> int:
        """Hand messages over for delivery, in order; returns how many. Only `flush` says that they are delivered.

        Raises:
            UserError: when the transport did not take these or earlier ones.
        """
        ...

    def flush(self) -> None:
        """Wait until everything published so far is delivered: a kill afterwards loses none of it.

        Raises:
            UserError: when something was not delivered.
        """
        ...


class RoutingPublisher:
    """Publishes each stream to its own transport, opened when first needed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._publishers: dict[str, Publisher] = {}
        self._opened = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: Any) -> None:
        self._opened.__exit__(*exc)  # closes every publisher, even after one that raises

    def publish(self, stream: Stream, messages: Iterable[Message]) -> int:
        transport = self._settings.transport(stream)
        if transport not in self._publishers:
            self._publishers[transport] = self._opened.enter_context(self._open(transport))
        return self._publishers[transport].publish(stream, messages)

    def flush(self) -> None:
        for publisher in self._publishers.values():
            publisher.flush()

    def _open(self, transport: str) -> Publisher:
        if transport == "kafka":
            from ingest.publish.kafka import KafkaPublisher

            return KafkaPublisher(self._settings)
        if transport == "pubsub":
            from ingest.publish.pubsub import PubSubPublisher

            return PubSubPublisher(self._settings)
        from ingest.publish.spool import SpoolPublisher

        return SpoolPublisher(self._settings)
