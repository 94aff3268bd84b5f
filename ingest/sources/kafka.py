"""Reads Kafka from where the warehouse says, never from where the consumer group says."""

import threading
import time
from collections.abc import Sequence
from datetime import datetime

import structlog
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from common.errors import UnavailableError, UserError
from common.settings import Settings
from common.streams import Stream
from ingest.batching import BatchBounds
from ingest.brokers.kafka import KafkaConnection
from ingest.brokers.kafka_topics import TopicAndPartition
from ingest.message import Batch
from ingest.sources import ReadPositions
from ingest.sources.kafka_assignment import Assignment
from ingest.sources.kafka_backlog import Backlog, read_backlog
from ingest.sources.kafka_batch import RECORD, BatchBuilder, Record
from ingest.sources.kafka_topics import Topics

FETCH_TIMEOUT_SECONDS = 60.0
"""How long to wait for partitions, or for messages known to be there. The wait for partitions outlasts the
session timeout of a loader that was killed: until then the group waits for the dead member."""
CHUNK_ROWS = 5_000
CHUNK_BYTES = 4 * 1024 * 1024
"""What is taken from librdkafka at a time: enough to amortise the call, small enough to bound memory."""

log = structlog.get_logger()


class KafkaSource:
    """A consumer whose partitions the group assigns, and whose offsets the warehouse keeps.

    At every assignment it reads the warehouse's positions again. Offsets committed to Kafka serve lag tools only. To be
    exact (docs/architecture.md#landing-from-kafka) it needs two things:

    - the sink rejects (or trims) a batch with an offset below the warehouse's position, so that it loses against
      another loader that took over its partition;
    - after a commit that failed or was rejected, close this source and open another.
    """

    idle_timeout_seconds = 0.0  # the end of a partition is an event

    def __init__(
        self,
        settings: Settings,
        streams: Sequence[Stream],
        read_positions: ReadPositions,
        stop: threading.Event | None = None,
    ) -> None:
        """Connect; the group is joined with the first fetch. Once `stop` is set, a fetch that waits ends.

        Raises:
            UserError: for a configuration that librdkafka does not take, or brokers that do not answer.
        """
        self._streams = {settings.topic(stream): stream.name for stream in streams}
        self._bounds = BatchBounds.for_fetch(settings)
        self._read_positions = read_positions
        self._stop = stop or threading.Event()
        self._discard()
        self._backlog: dict[str, Backlog] | None = None
        """What `waiting` found last."""
        self._message_bytes = 16_384
        """Mean size of the messages that came last; large until it is known."""
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
            log.warning("kafka topic does not exist (yet); `python -m ingest provision` creates it", topic=topic)
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
        """The next messages; None when every assigned partition stayed at its end for `timeout` seconds.

        While messages are known to be there this waits beyond `timeout` for them, so None is never a slow broker. A
        batch without messages moves positions past offsets that hold none.

        Raises:
            UnavailableError: when the group gives no partitions, or the broker sends nothing for FETCH_TIMEOUT_SECONDS
                though there is something.
            UserError: when the broker rejects the client, or a partition ends before the warehouse's position.
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
            # Short waits: an end of partition may be all that is to come, or `stop` be set.
            self._poll(max(0.0, min(wait, 0.1)))
            has_polled = True

    def acknowledge(self, batch: Batch) -> None:
        """Commit the batch's positions to Kafka in the background, unless its partitions were taken away since."""
        if batch.acknowledgement != self._assignment.generation or not batch.positions:
            return
        offsets = [TopicPartition(topic, partition, offset) for (topic, partition), offset in batch.positions.items()]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            _warn_of_failed_commit(error.args[0])

    def waiting(self) -> dict[str, int | None]:
        """Messages from the warehouse's position to the end of each topic, those of open transactions included; 0 for a
        topic that is missing, None for one that may not be read.

        Up to COUNTED_MESSAGES per partition are counted; beyond them, offsets are.

        Raises:
            UserError: for brokers that do not answer.
        """
        self._backlog = self._read_backlog()
        return {
            stream: None if topic in self._topics.denied else self._backlog[stream].messages
            for topic, stream in self._streams.items()
        }

    def oldest_waiting(self) -> dict[str, datetime | None]:
        """By the first message that waits in each partition, as `waiting` found it."""
        backlog = self._backlog or self._read_backlog()
        return {stream: backlog[stream].oldest for stream in self._streams.values()}

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close()

    def _subscribe(self) -> None:
        """Join the group; not before the first fetch, so that `status` does not steal a running loader's partitions."""
        if not self._is_subscribed:
            self._is_subscribed = True
            on_assign, on_revoke = self._assignment.on_assign, self._assignment.on_revoke
            self._consumer.subscribe(list(self._streams), on_assign=on_assign, on_revoke=on_revoke, on_lost=on_revoke)

    def _read_backlog(self) -> dict[str, Backlog]:
        return read_backlog(self._connection, self._topics, self._streams, self._read_positions)

    def _discard(self) -> None:
        self._builder = BatchBuilder(self._streams, self._bounds)
        """What was consumed and not emitted yet: it outlasts a fetch that ends with an error."""

    def _poll(self, timeout: float) -> None:
        """Consume into `_builder`."""
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
            self._assignment.reset()  # librdkafka reports an event once only
            raise

    def _consume(self, count: int, timeout: float) -> tuple[list[Record], list[Record]]:
        """Messages, and events (errors, ends of partitions) that arrived, after taking over a new assignment."""
        self._assignment.assign_pending()
        generation = self._assignment.generation
        try:
            messages: list[Record] = self._consumer.consume(count, timeout)
        except KafkaException as error:
            raise UserError(f"Kafka at {self._connection.servers}: {error.args[0].str()}") from error
        if generation != self._assignment.generation:
            # New partitions deliver only after `Assignment.assign_pending`: all of this is from before the revocation.
            return [], []
        if not any(map(RECORD.error, messages)):
            return messages, []
        return (
            [message for message in messages if message.error() is None],
            [message for message in messages if message.error() is not None],
        )

    def _emit_batch(self) -> Batch | None:
        """Return what was consumed; None when all of it is to be read again."""
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
            log.debug("kafka topic does not exist", topic=partition[0])  # logged at the start
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
            log.warning("kafka", error=error.str(), topic=partition[0], partition=partition[1])

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
            f"though there are messages in {behind}{reason}"
        )


def _on_commit(error: KafkaError | None, _: list[TopicPartition]) -> None:
    if error is not None:
        _warn_of_failed_commit(error)


def _warn_of_failed_commit(error: KafkaError) -> None:
    log.warning("kafka offsets not committed; landing does not need them", error=error.str())
