"""The partitions that the group assigned to a consumer, and the consumer's position in each."""

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
    """Reads the warehouse's positions at every assignment of partitions, and advances them from there.

    They are read each time, since another loader may have landed from these partitions meanwhile. Positions belong to
    the id of a topic: a topic that was deleted and created again is consumed from its beginning. A batch that was
    returned but is not committed yet is not consumed again: consuming continues after it.

    Args:
        consumer: a confluent_kafka.Consumer.
        streams: maps a topic to the name of its stream.
        discard: called when partitions are revoked, to drop consumed messages that no batch has returned yet.
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
        """The assigned partitions; None while the group is assigning them."""
        self.generation = 0
        """Number of revocations so far. Messages consumed before and after a revocation must not be in the same
        batch."""
        self.moved: set[TopicAndPartition] = set()
        """Partitions whose position has advanced past offsets without messages since their last batch."""
        self.next: dict[TopicAndPartition, int] = {}
        """Offset of the next message to consume, per partition."""
        self._connection = connection
        self._consumer = consumer
        self._topics = topics
        self._streams = streams
        self._read_positions = read_positions
        self._discard = discard
        self._has_topics = has_topics
        self._pending: set[TopicAndPartition] | None = None
        """Partitions that the group has assigned, but whose positions are not read yet."""
        self._at_end: set[TopicAndPartition] = set()
        self._starts: dict[TopicAndPartition, int] = {}
        """Position before the next batch, per partition; missing if the partition has no position yet."""
        self._ends: dict[TopicAndPartition, int] = {}
        """End offset of each partition at its first assignment."""
        self._topic_ids: dict[str, str] = {}
        """Ids of the assigned topics."""
        self._emitted: dict[tuple[str, str, int], int] = {}
        """Position after the last returned batch, by (topic, topic id, partition)."""
        self._lost: dict[tuple[str, str, int], int] = {}
        """Offset below which lost messages have been counted, by (topic, topic id, partition)."""

    # -- what the group assigns and revokes ---------------------------------------------------------------------------

    def on_assign(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        """Remember the partitions; `assign_pending` assigns them."""
        # The positions are not read here: if that failed in this callback, librdkafka would continue from the group's
        # offsets. So nothing is assigned until `assign_pending` has read them.
        self._consumer.assign([])
        self._pending = {(one.topic, one.partition) for one in partitions}

    def on_revoke(self, _: Consumer, __: list[TopicPartition]) -> None:
        """Forget the partitions, and discard their consumed messages that no batch has returned yet."""
        self.generation += 1
        self._discard()
        self.partitions = None
        self._pending = None
        self._at_end.clear()
        self.next.clear()
        self.moved.clear()

    def assign_pending(self) -> None:
        """Assign pending partitions to the consumer, if any. Each starts at the warehouse's position, or after the last
        returned batch if that is further.

        Raises:
            UserError: if the positions cannot be read from the warehouse.
            UnavailableError: if the brokers do not answer.
        """
        if self._pending is None:
            return
        ids = topic_ids(self._topics.describe({topic for topic, _ in self._pending}))
        denied = self._topics.denied
        given = {(topic, partition) for topic, partition in self._pending if topic in ids or topic not in denied}
        if any(topic not in ids for topic, _ in given):
            return  # a broker may not know a new topic yet; the next poll tries again
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
        """Discard consumed messages that no batch has returned yet, and start again at the warehouse's positions."""
        partitions = self.partitions or self._pending
        self.on_revoke(self._consumer, [])
        self._pending = partitions

    def topic_was_recreated(self, topics: set[str]) -> bool:
        """Return whether a topic was deleted and created again since its assignment; if so, assign all partitions
        again.

        librdkafka does not notice this, and may continue in the new topic at the position of the old one. The topic's
        id shows it, as ids are never reused, but only after all brokers have learnt of the new topic.
        """
        found = topic_ids(self._topics.describe(topics))
        # After an upgrade, a broker may assign ids to existing topics.
        if all(self._topic_ids[topic] in ("", topic_id) or not topic_id for topic, topic_id in found.items()):
            return False
        self.reset()
        return True

    # -- how far each partition is consumed ---------------------------------------------------------------------------

    @property
    def is_drained(self) -> bool:
        """Whether every assigned partition has been consumed to its end."""
        if self.partitions is None:
            # While no topic exists, the group assigns nothing, and no message is waiting.
            return not self._has_topics and self._pending is None
        return all(map(self._is_at_end, self.partitions))

    @property
    def has_passed_first_end(self) -> bool:
        """Whether all messages have been consumed that were waiting when the partitions were first assigned."""
        return self.partitions is not None and all(
            self._is_at_end(partition) or self.next.get(partition, 0) >= self._ends[partition]
            for partition in self.partitions
        )

    @property
    def unfinished(self) -> set[TopicAndPartition]:
        """The assigned partitions that have not been consumed to their end."""
        return (self.partitions or set()) - self._at_end

    def advance(self, ends: Mapping[TopicAndPartition, int]) -> None:
        """Record that messages were consumed; `ends` has the next offset per partition."""
        self.next.update(ends)
        self._at_end -= ends.keys()

    def reach_end(self, partition: TopicAndPartition, offset: int) -> None:
        """Record that the partition ends at this offset, unless messages after it have already been consumed."""
        if offset >= self.next.get(partition, 0):
            self._at_end.add(partition)
            self._move(partition, offset)

    def skip_gap(self, topic: str, partition: int) -> None:
        """Continue at the earliest remaining message, after retention deleted the next one; count the lost messages.

        Raises:
            UserError: if the partition ends before the warehouse's position.
            UnavailableError: if the brokers do not answer.
        """
        if self.topic_was_recreated({topic}):
            return
        low, high = self._watermarks(topic, partition)
        expected = self.next.get((topic, partition), low)
        if expected > high:
            raise UserError(
                f"Kafka topic {topic}, partition {partition} ends at offset {high}, but the warehouse has landed up "
                f"to {expected}: the broker lost messages, or the topic was created again on a broker without topic "
                "ids. Rename the topic and set TOPICS"
            )
        known = (topic, self._topic_ids[topic], partition)
        # Each assignment finds the same gap until a position after it is committed: count its messages once.
        expected = max(expected, self._lost.get(known, 0))
        if expected < low:
            self._lost[known] = low
            telemetry.LOST.labels(self._streams[topic]).inc(low - expected)
            log.error(
                "kafka retention deleted messages before they landed",
                **{"topic": topic, "partition": partition, "from": expected, "to": low, "at_most": low - expected},
            )
        self._move((topic, partition), low)
        # librdkafka has stopped the partition and rejects a seek, so all partitions are assigned again.
        self._assign(self.partitions or set())

    def emit(
        self, partitions: Iterable[TopicAndPartition]
    ) -> tuple[dict[TopicAndPartition, int], dict[TopicAndPartition, int], dict[str, str]]:
        """End a batch of these partitions, and of those whose position has advanced without a message.

        Returns:
            The position of each partition after the batch, its position before the batch, and the ids of the topics.
        """
        positions = {partition: self.next[partition] for partition in {*partitions, *self.moved}}
        starts = {partition: self._starts.get(partition, 0) for partition in positions}
        self._starts.update(positions)
        self.moved.clear()
        ids = {topic: self._topic_ids[topic] for topic, _ in positions}
        self._emitted.update(((topic, ids[topic], partition), end) for (topic, partition), end in positions.items())
        return positions, starts, ids

    def lag(self) -> Counter[str]:
        """Return each stream's lag by name: the number of offsets from the next message to the last known high-water
        mark."""
        lag: Counter[str] = Counter()
        for topic, partition in self.partitions or ():
            _, high = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)
            lag[self._streams[topic]] += max(0, high - self.next.get((topic, partition), high))
        return lag

    def _is_at_end(self, partition: TopicAndPartition) -> bool:
        """Whether no further message of the partition is expected."""
        return partition in self._at_end or partition[0] in self._topics.denied

    def _move(self, partition: TopicAndPartition, offset: int) -> None:
        """Advance the position to this offset, since there are no more messages before it."""
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
