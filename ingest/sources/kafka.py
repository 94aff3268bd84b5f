"""Consumes Kafka from the positions in the warehouse, never from the offsets of the consumer group."""

import threading
import time
from collections.abc import Sequence
from datetime import datetime

import structlog
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from common.errors import UnavailableError, UserError
from common.settings import Settings
from common.streams import Stream
from engines.batch import Batch
from ingest.batching import BatchBounds
from ingest.brokers.kafka import KafkaConnection
from ingest.brokers.kafka_topics import TopicAndPartition
from ingest.sources import ReadPositions
from ingest.sources.kafka_assignment import Assignment
from ingest.sources.kafka_backlog import Backlog, read_backlog
from ingest.sources.kafka_batch import RECORD, BatchBuilder, Record
from ingest.sources.kafka_topics import Topics

FETCH_TIMEOUT_SECONDS = 60.0
"""Maximum seconds to wait for partitions, or for messages that are known to exist. It must be longer than the session
timeout of a killed loader, during which the group keeps its partitions."""
CHUNK_ROWS = 5_000
CHUNK_BYTES = 4 * 1024 * 1024
"""Maximum rows and bytes per call of `consume`: enough to amortise the call, small enough to bound memory."""

log = structlog.get_logger()


class KafkaSource:
    """A consumer whose partitions the group assigns, and whose positions are in the warehouse.

    It reads the positions again at every assignment. Offsets are also committed to Kafka, but only for lag tools. Each
    message lands exactly once (docs/architecture.md#landing-from-kafka) under two conditions:

    - The sink rejects or trims a batch that starts below the warehouse's position. So a loader whose partition was
      taken over by another cannot land messages a second time.
    - After a commit that failed or was rejected, the caller closes this source and opens another.
    """

    idle_timeout_seconds = 0.0  # librdkafka reports the end of each partition

    def __init__(
        self,
        settings: Settings,
        streams: Sequence[Stream],
        read_positions: ReadPositions,
        stop: threading.Event | None = None,
    ) -> None:
        """Connect. The consumer joins the group with the first fetch.

        Args:
            stop: set it to end a fetch that is waiting for messages.

        Raises:
            UserError: if librdkafka rejects the configuration, or the brokers do not answer.
        """
        self._streams = {settings.topic(stream): stream.name for stream in streams}
        self._bounds = BatchBounds.for_fetch(settings)
        self._read_positions = read_positions
        self._stop = stop or threading.Event()
        self._discard()
        self._backlog: dict[str, Backlog] | None = None
        """Result of the last call of `waiting`."""
        self._message_bytes = 16_384
        """Mean size, in bytes, of the last consumed messages; at first a high estimate."""
        self._is_subscribed = False

        self._connection = KafkaConnection(settings, logs_errors=True)
        self._connection.warn_of_ignored_properties()
        self._consumer = self._connection.open_consumer(on_commit=_on_commit)
        self._topics = Topics(self._connection)
        try:
            existing = self._topics.describe(self._streams).keys()
        except UserError:
            self._consumer.close()
            raise
        for topic in self._streams.keys() - existing - self._topics.denied:
            log.warning("kafka topic does not exist; `python -m ingest provision` creates it", topic=topic)
        self._assignment = Assignment(
            self._connection,
            self._consumer,
            self._topics,
            self._streams,
            read_positions,
            self._discard,
            has_topics=bool(existing),
        )

    @property
    def problems(self) -> list[str]:
        """One line per topic that this client may not read."""
        return self._topics.problems

    def fetch(self, timeout: float) -> Batch | None:
        """Return the next messages; None if no assigned partition had a message for `timeout` seconds.

        While a partition is known to have messages, it waits longer than `timeout`, so None never means a slow broker.
        A batch without messages advances positions past offsets that have no message.

        Raises:
            UnavailableError: if the group assigns no partitions within FETCH_TIMEOUT_SECONDS, or the broker sends no
                messages for that time although there are some.
            UserError: if the broker rejects the client, or a partition ends before the warehouse's position.
        """
        self._subscribe()
        started = time.monotonic()
        has_polled = False
        while True:
            if self._stop.is_set():
                return None
            now = time.monotonic()
            size = self._builder.size
            if size.rows:
                wait = size.seconds_left
                if size.is_full or wait <= 0 or self._assignment.is_drained:
                    if batch := self._emit_batch():
                        return batch
                    continue
            elif self._assignment.is_drained:
                wait = started + timeout - now
                if wait <= 0 and has_polled:
                    return self._emit_batch() if self._assignment.moved else None
            else:
                wait = started + max(timeout, FETCH_TIMEOUT_SECONDS) - now
                if wait <= 0:
                    raise self._stalled()
            # Wait for a short time only, to notice the end of a partition and `stop`.
            self._poll(max(0.0, min(wait, 0.1)))
            has_polled = True

    def acknowledge(self, batch: Batch) -> None:
        """Commit the batch's positions to Kafka in the background, unless its partitions were revoked meanwhile."""
        if batch.acknowledgement != self._assignment.generation or not batch.positions:
            return
        offsets = [TopicPartition(topic, partition, offset) for (topic, partition), offset in batch.positions.items()]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            _warn_of_failed_commit(error.args[0])

    def waiting(self) -> dict[str, int | None]:
        """Return the number of messages after the warehouse's position, including those of open transactions.

        It is 0 for a missing topic, and None for a topic that this client may not read. The first COUNTED_MESSAGES of a
        partition are counted exactly; the others are estimated by their offsets.

        Raises:
            UserError: if the brokers do not answer.
        """
        self._backlog = self._read_backlog()
        return {
            stream: None if topic in self._topics.denied else self._backlog[stream].messages
            for topic, stream in self._streams.items()
        }

    def oldest_waiting(self) -> dict[str, datetime | None]:
        """Return the publish time of each stream's oldest waiting message, as found by the last `waiting`."""
        backlog = self._backlog or self._read_backlog()
        return {stream: backlog[stream].oldest for stream in self._streams.values()}

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close()

    def _subscribe(self) -> None:
        """Join the group. Called by the first fetch, so that `status` does not steal a running loader's partitions."""
        if not self._is_subscribed:
            self._is_subscribed = True
            on_assign, on_revoke = self._assignment.on_assign, self._assignment.on_revoke
            self._consumer.subscribe(list(self._streams), on_assign=on_assign, on_revoke=on_revoke, on_lost=on_revoke)

    def _read_backlog(self) -> dict[str, Backlog]:
        return read_backlog(self._connection, self._topics, self._streams, self._read_positions)

    def _discard(self) -> None:
        self._builder = BatchBuilder(self._streams, self._bounds)
        """Messages that were consumed but not returned yet; they survive a fetch that raises an error."""

    def _poll(self, timeout: float) -> None:
        """Consume messages into `_builder`, and handle the events that arrive with them."""
        generation, builder = self._assignment.generation, self._builder
        count = min(CHUNK_ROWS, builder.size.rows_left, max(1, CHUNK_BYTES // self._message_bytes))
        arrived, events = self._consume(count, timeout)
        if arrived:
            self._message_bytes = 1 + sum(map(len, arrived)) // len(arrived)
            ends = builder.add(arrived)
            self._assignment.advance(ends)
            self._topics.denied -= {topic for topic, _ in ends}
        try:
            for event in events:
                if generation == self._assignment.generation:
                    self._on_event(event.error(), (event.topic(), event.partition()), event.offset())
        except UserError:
            self._assignment.reset()  # so that librdkafka reports the event again: it does so once per assignment
            raise

    def _consume(self, count: int, timeout: float) -> tuple[list[Record], list[Record]]:
        """Return consumed messages, and events (errors, ends of partitions). Applies a pending assignment first."""
        self._assignment.assign_pending()
        generation = self._assignment.generation
        try:
            messages: list[Record] = self._consumer.consume(count, timeout)
        except KafkaException as error:
            raise UserError(f"Kafka at {self._connection.servers}: {error.args[0].str()}") from error
        if generation != self._assignment.generation:
            # Partitions were revoked during the call. New ones deliver only after `assign_pending`, so all of these
            # messages are from before the revocation.
            return [], []
        if not any(map(RECORD.error, messages)):
            return messages, []
        return (
            [message for message in messages if message.error() is None],
            [message for message in messages if message.error() is not None],
        )

    def _emit_batch(self) -> Batch | None:
        """Return the consumed messages; None if a topic was recreated, so that they must be consumed again."""
        assignment = self._assignment
        if assignment.topic_was_recreated({topic for topic, _ in self._builder.partitions | assignment.moved}):
            return None
        builder = self._builder
        self._discard()
        positions, starts, topic_ids = assignment.emit(builder.partitions)
        return Batch(
            builder.tables(),
            positions,
            topic_ids,
            acknowledgement=assignment.generation,
            lag=assignment.lag(),
            is_end=assignment.has_passed_first_end,
            starts=starts,
            source="kafka",
        )

    def _on_event(self, error: KafkaError, partition: TopicAndPartition, offset: int) -> None:
        if error.code() == KafkaError._PARTITION_EOF:
            self._assignment.reach_end(partition, offset)
        elif error.code() in {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE}:
            self._assignment.skip_gap(*partition)
        elif error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            log.debug("kafka topic does not exist", topic=partition[0])  # `__init__` has logged a warning
        elif error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED and partition[0] in self._streams:
            self._topics.deny(partition[0])
        elif error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
            raise UserError(
                f"Kafka at {self._connection.servers}: this client may not use the consumer group"
                f" {self._connection.consumer_group}: grant it READ on the group (an ACL), or set KAFKA_GROUP_ID"
            )
        elif error.fatal():
            raise UserError(f"Kafka at {self._connection.servers}: {error.str()}")
        else:
            log.warning("kafka consumer error", error=error.str(), topic=partition[0], partition=partition[1])

    def _stalled(self) -> UnavailableError:
        reason = f" ({self._connection.last_error})" if self._connection.last_error else ""
        if self._assignment.partitions is None:
            return UnavailableError(
                f"Kafka at {self._connection.servers} assigned no partitions "
                f"within {FETCH_TIMEOUT_SECONDS:.0f} seconds{reason}"
            )
        behind = ", ".join(f"{topic}/{partition}" for topic, partition in sorted(self._assignment.unfinished))
        return UnavailableError(
            f"Kafka at {self._connection.servers} sent nothing for {FETCH_TIMEOUT_SECONDS:.0f} seconds, "
            f"although there are messages in {behind}{reason}"
        )


def _on_commit(error: KafkaError | None, _: list[TopicPartition]) -> None:
    if error is not None:
        _warn_of_failed_commit(error)


def _warn_of_failed_commit(error: KafkaError) -> None:
    log.warning(
        "cannot commit offsets to kafka; landing does not need them, but lag tools show old values", error=error.str()
    )
