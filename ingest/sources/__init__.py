"""Reads messages from the transports: spool, Kafka and Pub/Sub."""

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
"""Reads the next offset of each partition from the warehouse; called at every assignment of partitions."""


class Source(Protocol):
    """One connection that fetches the messages of one or more streams."""

    idle_timeout_seconds: float
    """A source that delivers nothing for this time has nothing waiting; 0 where it knows at once."""

    @property
    def problems(self) -> Sequence[str]:
        """Why some streams are not landed, one line each, such as a missing permission. The others are landed."""
        ...

    def fetch(self, timeout: float) -> Batch | None:
        """The next messages, at most `LANDING_MAX_ROWS` and `LANDING_MAX_BYTES`.

        Returns None when nothing was waiting for `timeout` seconds (0: nothing is waiting now).
        A fetch before `acknowledge` goes on after the previous one.
        """
        ...

    def acknowledge(self, batch: Batch) -> None:
        """Report to the broker that the batch is committed in the warehouse. Losing this call loses nothing."""
        ...

    def waiting(self) -> dict[str, int | None]:
        """Messages of each stream that are not landed yet; None where the broker does not report them."""
        ...

    def oldest_waiting(self) -> dict[str, datetime | None]:
        """When the oldest waiting message was published (UTC); None where none waits, or the broker does not report it.

        To be called after `waiting`, before the first fetch.
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
    """One source for each transport that these streams arrive by, closed when the context ends.

    `read_positions` takes the transport's name and the ids of the topics. Set `stop` to end a fetch that waits.

    Raises:
        UserError: for a broker that does not answer, or a stream that it does not have.
    """
    by_transport: dict[str, list[Stream]] = {}
    for stream in streams:
        by_transport.setdefault(settings.transport(stream), []).append(stream)
    with ExitStack() as opened:
        sources: list[Source] = []
        # The brokers' clients take a second to import, which the spool alone does not need.
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
