"""Consumes messages from the transports: spool, Kafka and Pub/Sub."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime
from functools import partial
from typing import Protocol

from common.settings import Settings
from common.streams import Stream
from engines.batch import Batch, Positions, TopicIds

ReadPositions = Callable[[TopicIds], Positions]
"""Reads the positions of topics from the warehouse, given their ids; called at every assignment of partitions."""


class Source(Protocol):
    """A connection to one transport that fetches the messages of one or more streams."""

    idle_timeout_seconds: float
    """Seconds without a message after which the source counts as drained; 0 if it knows this at once."""

    @property
    def problems(self) -> Sequence[str]:
        """One line per stream that cannot be landed, with the reason, such as a missing permission."""
        ...

    def fetch(self, timeout: float) -> Batch | None:
        """Return the next messages, at most LANDING_MAX_ROWS and LANDING_MAX_BYTES.

        Returns None if no message arrived for `timeout` seconds, or with 0 if none is waiting now. It continues after
        the previous fetch, even if that batch is not acknowledged yet.
        """
        ...

    def acknowledge(self, batch: Batch) -> None:
        """Report to the broker that the warehouse has committed the batch. If this call is lost, no message is lost."""
        ...

    def waiting(self) -> dict[str, int | None]:
        """Return the number of messages of each stream that have not landed; None if the broker does not report it."""
        ...

    def oldest_waiting(self) -> dict[str, datetime | None]:
        """Return the publish time (UTC) of each stream's oldest waiting message.

        None if no message is waiting, or the broker does not report it. Call this after `waiting` and before the first
        fetch.
        """
        ...

    def close(self) -> None: ...


@contextmanager
def open_sources(
    settings: Settings,
    streams: list[Stream],
    read_positions: Callable[[str, TopicIds], Positions],
    stop: threading.Event | None = None,
) -> Iterator[list[Source]]:
    """Open one source per transport of these streams; they are closed when the context ends.

    Args:
        read_positions: reads positions from the warehouse, given the transport's name and the ids of the topics.
        stop: set it to end a fetch that is waiting for messages.

    Raises:
        UserError: if a broker does not answer, or does not have a stream's subscription.
    """
    by_transport: dict[str, list[Stream]] = {}
    for stream in streams:
        by_transport.setdefault(settings.transport(stream), []).append(stream)
    with ExitStack() as opened:
        sources: list[Source] = []
        # Imported only if used, since the clients of the brokers take a second to import.
        if "spool" in by_transport:
            from ingest.sources.spool import SpoolSource

            spool = SpoolSource(settings, by_transport["spool"], partial(read_positions, "spool"))
            sources.append(opened.enter_context(closing(spool)))
        if "kafka" in by_transport:
            from ingest.sources.kafka import KafkaSource

            kafka = KafkaSource(settings, by_transport["kafka"], partial(read_positions, "kafka"), stop)
            sources.append(opened.enter_context(closing(kafka)))
        if "pubsub" in by_transport:
            from ingest.sources.pubsub import PubSubSource

            sources.append(opened.enter_context(closing(PubSubSource(settings, by_transport["pubsub"]))))
        yield sources
