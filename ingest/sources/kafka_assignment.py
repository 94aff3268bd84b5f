"""The partitions that the group assigned to a consumer, and the offset from which each goes on."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from common.errors import UserError
from ingest import telemetry
from ingest.brokers.kafka import REQUEST_TIMEOUT_SECONDS, KafkaConnection
from ingest.brokers.kafka_topics import TopicAndPartition, topic_ids
from ingest.sources import ReadPositions
from ingest.sources.kafka_topics import Topics

log = structlog.get_logger()


class Assignment:
    """Reads the warehouse's positions at every assignment of partitions, and tracks them from there.

    The positions are read again each time, since another loader may have landed from these partitions meanwhile. They
    belong to a topic's id: a topic that was deleted and created again is read from its beginning. A batch that was
    emitted and not yet committed is not fetched a second time: its commit is under way, and consuming goes on after it.

    Args:
        consumer: a confluent_kafka.Consumer.
        streams: topic to stream name.
        discard: called when partitions are revoked: what was consumed from them and not emitted will be read again.
        has_topics: whether any of the topics exists.
    """

    def __init__(
        self,
        connection: KafkaConnection,
        consumer: Any,
        topics: Topics,
        streams: Mapping[str, str],
        read_positions: ReadPositions,
        discard: Callable[[], None],
        *,
        has_topics: bool,
    ) -> None:
        self.partitions: set[TopicAndPartition] | None = None
        """None while the group is assigning partitions."""
        self.generation = 0
        """Counts revocations: messages consumed before one must not be mixed with those after it."""
        self.moved: set[TopicAndPartition] = set()
        """Partitions whose position moved past offsets without messages since their last batch."""
        self.next: dict[TopicAndPartition, int] = {}
        """Offset of the next message to consume."""
        self._connection = connection
        self._consumer = consumer
        self._topics = topics
        self._streams = streams
        self._read_positions = read_positions
        self._discard = discard
        self._has_topics = has_topics
        self._pending: set[TopicAndPartition] | None = None
        """Partitions that the group gave and whose positions are not read yet."""
        self._at_end: set[TopicAndPartition] = set()
        self._starts: dict[TopicAndPartition, int] = {}
        """Where the next batch of each partition goes on from, if it has a position at all."""
        self._ends: dict[TopicAndPartition, int] = {}
        """Where each partition ended when it was assigned for the first time."""
        self._topic_ids: dict[str, str] = {}
        """Of the assigned topics."""
        self._emitted: dict[tuple[str, str, int], int] = {}
        """(topic, its id, partition) to where its last batch ended."""
        self._lost: dict[tuple[str, str, int], int] = {}
        """(topic, its id, partition) to the offset below which all lost messages have been counted."""

    # -- what the group assigns and revokes ---------------------------------------------------------------------------

    def on_assign(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        """Remember the partitions; `assign_pending` assigns them."""
        # Not the place to read the warehouse: if that failed, librdkafka would go on from the group's offsets.
        # Until the positions are read nothing is assigned.
        self._consumer.assign([])
        self._pending = {(given.topic, given.partition) for given in partitions}

    def on_revoke(self, _: Consumer, __: list[TopicPartition]) -> None:
        """Forget the partitions, and what was consumed from them and not emitted."""
        self.generation += 1
        self._discard()
        self.partitions = None
        self._pending = None
        self._at_end.clear()
        self.next.clear()
        self.moved.clear()

    def assign_pending(self) -> None:
        """Assign what the group gave, if anything: each partition where the warehouse, or the batch under way to it,
        ends.

        Raises:
            UserError: as `ReadPositions` does.
            UnavailableError: when the brokers do not answer.
        """
        if self._pending is None:
            return
        ids = topic_ids(self._topics.describe({topic for topic, _ in self._pending}))
        denied = self._topics.denied
        given = {(topic, partition) for topic, partition in self._pending if topic in ids or topic not in denied}
        if any(topic not in ids for topic, _ in given):
            return  # the broker that was asked does not know the topic yet, or not any more: asked again
        self._topic_ids = ids
        positions = self._read_positions(ids)
        for topic, partition in given:
            emitted = self._emitted.get((topic, ids[topic], partition), 0)
            if (topic, partition) in positions or emitted:
                self.next[topic, partition] = max(positions.get((topic, partition), 0), emitted)
        self._starts = dict(self.next)
        for one in given - self._ends.keys():
            _, self._ends[one] = self._watermarks(*one)
        self._assign(given)
        self._has_topics |= bool(ids)
        self.partitions = given
        self._pending = None

    def reset(self) -> None:
        """Forget what was consumed and not emitted, and go on from the warehouse's positions."""
        given = self.partitions or self._pending
        self.on_revoke(self._consumer, [])
        self._pending = given

    def topic_was_recreated(self, topics: set[str]) -> bool:
        """Return whether one of the topics has another id than when it was assigned; then all are assigned again.

        librdkafka may go on in the new topic from the position in the old one. An id never comes back: while it is the
        same as at the assignment, so is the topic (but for the time until one broker hears of it from another).
        """
        found = topic_ids(self._topics.describe(topics))
        # A broker that begins to give ids has not recreated the topic.
        if all(self._topic_ids[topic] in ("", topic_id) or not topic_id for topic, topic_id in found.items()):
            return False
        self.reset()
        return True

    # -- how far each partition is consumed ---------------------------------------------------------------------------

    @property
    def is_drained(self) -> bool:
        """Whether every assigned partition is consumed to its end."""
        if self.partitions is None:
            # The group assigns nothing while no topic exists.
            return not self._has_topics and self._pending is None
        return all(map(self._is_at_end, self.partitions))

    @property
    def has_passed_first_end(self) -> bool:
        """Whether whatever waited when the partitions were assigned for the first time is consumed."""
        return self.partitions is not None and all(
            self._is_at_end(partition) or self.next.get(partition, 0) >= self._ends[partition]
            for partition in self.partitions
        )

    @property
    def unfinished(self) -> set[TopicAndPartition]:
        """The assigned partitions that are not consumed to their end."""
        return (self.partitions or set()) - self._at_end

    def advance(self, ends: Mapping[TopicAndPartition, int]) -> None:
        """Record messages consumed up to these offsets."""
        self.next.update(ends)
        self._at_end -= ends.keys()

    def reach_end(self, partition: TopicAndPartition, offset: int) -> None:
        """Record that the partition ends at this offset, unless messages after it are consumed already."""
        if offset >= self.next.get(partition, 0):
            self._at_end.add(partition)
            self._move(partition, offset)

    def skip_gap(self, topic: str, partition: int) -> None:
        """Go on at the earliest message there is, after retention deleted the next one.

        Raises:
            UserError: when the partition ends before the warehouse's position.
            UnavailableError: when the brokers do not answer.
        """
        if self.topic_was_recreated({topic}):
            return
        low, high = self._watermarks(topic, partition)
        expected = self.next.get((topic, partition), low)
        if expected > high:
            raise UserError(
                f"Kafka topic {topic}, partition {partition} ends at offset {high}, but the warehouse has landed up "
                f"to {expected}: it lost messages, or was created again on a broker without topic ids. Rename it "
                "and set TOPICS"
            )
        known = (topic, self._topic_ids[topic], partition)
        # Until the position after the gap is committed, each assignment meets the gap again.
        expected = max(expected, self._lost.get(known, 0))
        if expected < low:
            self._lost[known] = low
            telemetry.LOST.labels(self._streams[topic]).inc(low - expected)
            log.error(
                "kafka retention deleted messages before they were landed",
                **{"topic": topic, "partition": partition, "from": expected, "to": low, "at_most": low - expected},
            )
        self._move((topic, partition), low)
        # librdkafka has stopped the partition and takes no seek; assigning all partitions again starts it.
        self._assign(self.partitions or set())

    def emit(
        self, partitions: Iterable[TopicAndPartition]
    ) -> tuple[dict[TopicAndPartition, int], dict[TopicAndPartition, int], dict[str, str]]:
        """End a batch of these partitions, and of those whose position moved without a message.

        Returns:
            The position of each partition after the batch, that before it, and the ids of their topics.
        """
        positions = {partition: self.next[partition] for partition in {*partitions, *self.moved}}
        starts = {partition: self._starts.get(partition, 0) for partition in positions}
        self._starts.update(positions)
        self.moved.clear()
        ids = {topic: self._topic_ids[topic] for topic, _ in positions}
        self._emitted.update(((topic, ids[topic], partition), end) for (topic, partition), end in positions.items())
        return positions, starts, ids

    def lag(self) -> Counter[str]:
        """Return stream to the messages between the next one to consume and the last known high-water mark."""
        lag: Counter[str] = Counter()
        for topic, partition in self.partitions or ():
            _, high = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)
            lag[self._streams[topic]] += max(0, high - self.next.get((topic, partition), high))
        return lag

    def _is_at_end(self, partition: TopicAndPartition) -> bool:
        """Whether no message of it is expected."""
        return partition in self._at_end or partition[0] in self._topics.denied

    def _move(self, partition: TopicAndPartition, offset: int) -> None:
        """Go on from this offset: no message before it is left to come."""
        if offset > self.next.get(partition, 0):
            self.next[partition] = offset
            self.moved.add(partition)

    def _assign(self, partitions: set[TopicAndPartition]) -> None:
        self._consumer.assign(
            [TopicPartition(*partition, self.next.get(partition, OFFSET_BEGINNING)) for partition in partitions]
        )

    def _watermarks(self, topic: str, partition: int) -> tuple[int, int]:
        with self._connection.translate_errors():
            low, high = self._consumer.get_watermark_offsets(
                TopicPartition(topic, partition), timeout=REQUEST_TIMEOUT_SECONDS
            )
        return low, high
