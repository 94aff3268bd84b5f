"""Reads Kafka from where the warehouse says, never from where the consumer group says."""

import logging
import re
import threading
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any, NamedTuple

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import structlog
from confluent_kafka import (
    OFFSET_BEGINNING,
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AclOperation, AdminClient, OffsetSpec  # type: ignore[attr-defined]

from ingest import metrics
from ingest.errors import UnavailableError, UserError
from ingest.message import BATCH_SCHEMA, Batch
from ingest.settings import REGISTRY_PREFIXES, Settings, read_properties
from ingest.sources import LONGEST_FETCH_SECONDS, ReadPositions
from ingest.streams import Stream

ANSWER_SECONDS = 10.0
"""How long a broker may take to answer a question before it counts as unreachable."""
PATIENCE_SECONDS = 60.0
"""How long to wait for partitions, or for messages known to be there. The wait for partitions outlasts the
session timeout of a loader that was killed: until then the group waits for the dead member."""
CHUNK_ROWS = 5_000
CHUNK_BYTES = 4 * 1024 * 1024
"""What is taken from librdkafka at a time: enough to amortise the call, small enough to bound memory."""
COUNTED_MESSAGES = 1_000
"""Waiting messages per partition that are counted one by one. Beyond them offsets are counted, some of which hold no
message where there are transactions or compaction."""
# Years 1 to 9999 in milliseconds: what a warehouse timestamp can hold. Producers set this field freely.
FIRST_MILLISECOND, LAST_MILLISECOND = -62_135_596_800_000, 253_402_300_799_999
NO_MILLISECOND = FIRST_MILLISECOND - 1
EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  UTC without a zone, as everywhere
NO_TOPIC_ID = "AAAAAAAAAAAAAAAAAAAAAA"
"""Sixteen zero bytes: what a broker before Kafka 2.8 returns."""
DEFAULTS = {
    # The group waits for a killed member until its session ends.
    "session.timeout.ms": 10_000,
    "heartbeat.interval.ms": 2_000,
    # A topic that is created later is found within this time.
    "topic.metadata.refresh.interval.ms": 30_000,
    # An empty partition announces its end after this time; the default is 500.
    "fetch.wait.max.ms": 100,
    # Of all partitions together: memory that waits to be consumed.
    "queued.max.messages.kbytes": 32_768,
    "fetch.max.bytes": 16_777_216,
}
"""Of the consumer, unless KAFKA_CONFIG_FILE says otherwise."""
NEEDED = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    # A missing offset is an error to count and log, not to step over in silence.
    "auto.offset.reset": "error",
    "enable.partition.eof": True,
    # `_on_assign` takes the whole assignment each time.
    "group.protocol": "classic",
    "partition.assignment.strategy": "range,roundrobin",
}
"""Of the consumer, whatever KAFKA_CONFIG_FILE says."""

# librdkafka prints to standard error unless given a logger. What matters arrives as an error event and is logged
# by `_on_error`; the rest is there for whoever configures this logger.
_librdkafka_logger = logging.getLogger("ingest.librdkafka")
_librdkafka_logger.addHandler(logging.NullHandler())
_librdkafka_logger.propagate = False

log = structlog.get_logger()

EARLIEST, LATEST = OffsetSpec.earliest(), OffsetSpec.latest()  # type: ignore[no-untyped-call]

TopicAndPartition = tuple[str, int]

Record = Any
"""A confluent_kafka.Message that carries no error, so its topic, partition and offset are not None."""
RECORD: Any = Message
"""The class of records, for its methods."""


def client_config(settings: Settings) -> dict[str, Any]:
    """librdkafka's configuration from KAFKA_CONFIG_FILE, in which KAFKA_BOOTSTRAP_SERVERS overrides the servers.

    Raises:
        UserError: for a file that cannot be read. Its contents are secret and never part of the message.
    """
    config: dict[str, Any] = {}
    if settings.kafka_config_file is not None:
        properties = read_properties(settings.kafka_config_file)
        config.update({name: text for name, text in properties.items() if not name.startswith(REGISTRY_PREFIXES)})
    if settings.kafka_bootstrap_servers is not None:
        config["bootstrap.servers"] = settings.kafka_bootstrap_servers
    if not config.get("bootstrap.servers"):
        raise UserError("no Kafka brokers: set KAFKA_BOOTSTRAP_SERVERS, or bootstrap.servers in KAFKA_CONFIG_FILE")
    return config


def _consumer_config(settings: Settings, config: dict[str, Any]) -> dict[str, Any]:
    """What the consumer is configured by, given `client_config`; what landing cannot take over is logged."""
    for name, value in NEEDED.items():
        if name in config and config[name].lower() != str(value).lower():
            log.warning("ignored a property of KAFKA_CONFIG_FILE: landing needs its own", property=name, value=value)
    group = {"group.id": settings.kafka_group_id}
    return {**group, **DEFAULTS, **config, **(group if "kafka_group_id" in settings.model_fields_set else {}), **NEEDED}


def open_client(kind: type, config: dict[str, Any]) -> Any:
    """A client of this kind (Consumer, Producer, AdminClient).

    Raises:
        UserError: for a property that librdkafka does not take.
    """
    try:
        return kind({**config, "logger": _librdkafka_logger})
    except KafkaException as error:
        reason = re.sub(r'([Vv]alue) "[^"]*"', r"\1", error.args[0].str())  # it may be a secret
        raise UserError(f"Kafka configuration: {reason}") from None


def unreachable(config: dict[str, Any], reason: object) -> UnavailableError:
    return UnavailableError(f"Kafka at {config['bootstrap.servers']} does not answer: {reason}")


class _Ahead(NamedTuple):
    """What waits in a stream."""

    messages: int
    oldest: datetime | None
    """When the oldest of them was published, UTC."""


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
        self._max_rows = settings.landing_max_rows
        self._max_bytes = settings.landing_max_bytes
        self._max_seconds = min(settings.landing_max_seconds, LONGEST_FETCH_SECONDS)
        self._read_positions = read_positions
        self._stop = stop or threading.Event()

        self._assigned: set[TopicAndPartition] | None = None
        """None while the group is handing out partitions."""
        self._to_assign: set[TopicAndPartition] | None = None
        """Partitions that the group gave and that wait for their positions."""
        self._generation = 0
        """Counts revocations: what was consumed before one is not to be mixed with what comes after."""
        self._at_end: set[TopicAndPartition] = set()
        self._next: dict[TopicAndPartition, int] = {}
        """Offset of the next message to consume."""
        self._starts: dict[TopicAndPartition, int] = {}
        """Where the next batch of each partition goes on from, if it has a position at all."""
        self._moved: set[TopicAndPartition] = set()
        """Partitions whose position moved past offsets without messages since their last batch."""
        self._ends: dict[TopicAndPartition, int] = {}
        """Where each partition ended when it was assigned for the first time."""
        self._topic_ids: dict[str, str] = {}
        """Of the assigned topics."""
        self._builder = _BatchBuilder(self._streams, self._max_rows, self._max_bytes)
        """What was consumed and not emitted yet: it outlasts a fetch that ends with an error."""
        self._emitted: dict[tuple[str, str, int], int] = {}
        """(topic, its id, partition) to where its last batch ended."""
        self._denied: set[str] = set()
        """Topics that this client may not describe or read."""
        self._ahead: dict[str, _Ahead] | None = None
        """What `waiting` found last."""
        self._lost: dict[tuple[str, str, int], int] = {}
        """(topic, its id, partition) to the offset below which all that is lost has been counted."""
        self._message_bytes = 16_384
        """Size of a message, as those that came last; large until it is known."""
        self._last_error: str | None = None
        self._is_connected = False

        self._config = client_config(settings)
        self._consumer_config = _consumer_config(settings, self._config) | {"error_cb": self._on_error}
        self._consumer: Any = open_client(Consumer, self._consumer_config | {"on_commit": _on_commit})
        self._admin: Any = open_client(AdminClient, self._config | {"error_cb": self._on_error})
        try:
            self._existing = set(self._describe(self._streams))
        except UserError:
            self._consumer.close()
            raise
        self._is_connected = True
        for topic in self._streams.keys() - self._existing - self._denied:
            log.warning("kafka topic does not exist (yet); `python -m ingest provision` creates it", topic=topic)
        self._is_subscribed = False

    @property
    def problems(self) -> list[str]:
        """One line per topic that this client may not read."""
        return [not_allowed(topic) for topic in sorted(self._denied)]

    def fetch(self, timeout: float) -> Batch | None:
        """The next messages; None when every assigned partition stayed at its end for `timeout` seconds.

        While messages are known to be there this waits beyond `timeout` for them, so None is never a slow broker. A
        batch without messages moves positions past offsets that hold none.

        Raises:
            UnavailableError: when the group gives no partitions, or the broker sends nothing for PATIENCE_SECONDS
                though there is something.
            UserError: when the broker rejects the client, or a partition ends before the warehouse's position.
        """
        self._subscribe()
        started = time.monotonic()
        has_looked = False
        while True:
            if self._stop.is_set():
                return None
            now = time.monotonic()
            builder = self._builder
            if builder.rows:
                wait = builder.since + self._max_seconds - now
                if builder.is_full or wait <= 0 or self._is_drained():
                    if batch := self._emit_batch():
                        return batch
                    continue
            elif self._is_drained():
                wait = started + timeout - now
                if wait <= 0 and has_looked:
                    return self._emit_batch() if self._moved else None
            else:
                wait = started + max(timeout, PATIENCE_SECONDS) - now
                if wait <= 0:
                    raise self._stalled()
            # Short waits: an end of partition may be all that is to come, or `stop` be set.
            self._poll(max(0.0, min(wait, 0.1)))
            has_looked = True

    def _poll(self, timeout: float) -> None:
        """Consume into `_builder`."""
        generation, builder = self._generation, self._builder
        count = min(CHUNK_ROWS, self._max_rows - builder.rows, max(1, CHUNK_BYTES // self._message_bytes))
        arrived, events = self._consume(count, timeout)
        if arrived:
            self._message_bytes = 1 + sum(map(len, arrived)) // len(arrived)
            ends = builder.add(arrived)
            self._next.update(ends)
            self._at_end -= ends.keys()
            self._denied -= {topic for topic, _ in ends}
        try:
            for event in events:
                if generation == self._generation:
                    self._on_event(event.error(), _partition_of(event), event.offset())
        except UserError:
            self._assign_again()  # librdkafka reports an event once only
            raise

    def _subscribe(self) -> None:
        """Join the group; not before the first fetch, so that `status` does not steal a running loader's partitions."""
        if not self._is_subscribed:
            self._is_subscribed = True
            self._consumer.subscribe(
                list(self._streams), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke
            )

    def acknowledge(self, batch: Batch) -> None:
        """Commit the batch's positions to Kafka in the background, unless its partitions were taken away since."""
        if batch.acknowledgement != self._generation or not batch.positions:
            return
        offsets = [TopicPartition(topic, partition, offset) for (topic, partition), offset in batch.positions.items()]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            log.warning("kafka offsets not committed; landing does not need them", error=error.args[0].str())

    def waiting(self) -> dict[str, int | None]:
        """Messages from the warehouse's position to the end of each topic, those of open transactions included; 0 for a
        topic that is missing, None for one that may not be read.

        Up to COUNTED_MESSAGES per partition are counted; beyond them, offsets are.

        Raises:
            UserError: for brokers that do not answer.
        """
        self._ahead = self._look_ahead()
        return {
            stream: None if topic in self._denied else self._ahead[stream].messages
            for topic, stream in self._streams.items()
        }

    def oldest_waiting(self) -> dict[str, datetime | None]:
        """By the first message that waits in each partition, as `waiting` found it."""
        ahead = self._ahead or self._look_ahead()
        return {stream: ahead[stream].oldest for stream in self._streams.values()}

    def _look_ahead(self) -> dict[str, _Ahead]:
        """Read what waits, by a consumer that joins no group."""
        described = self._describe(self._streams)
        partitions = [
            (topic, partition.id)
            for topic in described.keys() - self._denied
            for partition in described[topic].partitions
        ]
        positions = self._read_positions(_ids(described))
        low = self._offsets(partitions, EARLIEST)
        ends = self._offsets(partitions, LATEST)
        # Messages of a transaction that is still open lie above the committed end.
        last = self._offsets(partitions, LATEST, IsolationLevel.READ_UNCOMMITTED)
        starts = {one: max(low[one], positions.get(one, 0)) for one in partitions}
        waiting = {stream: _Ahead(0, None) for stream in self._streams.values()}
        counted = self._count({one: start for one, start in starts.items() if start < ends[one]})
        for one in partitions:
            stream = self._streams[one[0]]
            read_up_to, found = counted.get(one, (starts[one], _Ahead(0, None)))
            in_transactions = max(0, last[one] - max(ends[one], read_up_to))
            uncounted = max(0, ends[one] - read_up_to)
            before = waiting[stream]
            waiting[stream] = _Ahead(
                before.messages + found.messages + uncounted + in_transactions,
                min(filter(None, (before.oldest, found.oldest)), default=None),
            )
        return waiting

    def _count(self, starts: Mapping[TopicAndPartition, int]) -> dict[TopicAndPartition, tuple[int, _Ahead]]:
        """Per partition the messages from its start on, and where counting ended."""
        counted = {one: (start, _Ahead(0, None)) for one, start in starts.items()}
        if not starts:
            return counted
        with closing(open_client(Consumer, self._consumer_config)) as consumer:
            consumer.assign([TopicPartition(*one, start) for one, start in starts.items()])
            under_way = set(starts)
            until = time.monotonic() + ANSWER_SECONDS
            while under_way and time.monotonic() < until:
                for message in consumer.consume(COUNTED_MESSAGES, 0.1):
                    one = _partition_of(message)
                    if one not in under_way:
                        continue
                    _, found = counted[one]
                    if message.error() is None:
                        oldest = found.oldest if found.messages else _calendar_time(message.timestamp()[1])
                        counted[one] = message.offset() + 1, _Ahead(found.messages + 1, oldest)
                    elif message.error().code() == KafkaError._PARTITION_EOF:
                        counted[one] = message.offset(), found
                    elif message.error().code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                        self._denied.add(one[0])
                    else:
                        continue
                    if message.error() is not None or counted[one][1].messages == COUNTED_MESSAGES:
                        under_way.remove(one)
                        consumer.incremental_unassign([TopicPartition(*one)])
        return counted

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close()

    def _topic_was_recreated(self, topics: set[str]) -> bool:
        """Whether one of the topics has another id than when it was assigned; then all are assigned again.

        librdkafka may go on in the new topic from the position in the old one. An id never comes back: where it is
        still that of the assignment, so is everything consumed since (up to how late one broker hears of it from
        another).
        """
        # a broker that begins to give ids is no reason
        known = self._topic_ids
        found = _ids(self._describe(topics))
        if all(known[topic] in ("", topic_id) or not topic_id for topic, topic_id in found.items()):
            return False
        self._assign_again()
        return True

    def _assign_again(self) -> None:
        """Forget what was consumed and not emitted, and go on from the warehouse's positions."""
        given = self._assigned or self._to_assign
        self._on_revoke(self._consumer, [])
        self._to_assign = given

    def _emit_batch(self) -> Batch | None:
        """What was consumed; None when all of it is to be read again."""
        if self._topic_was_recreated({topic for topic, _ in self._builder.partitions | self._moved}):
            return None
        builder, self._builder = self._builder, _BatchBuilder(self._streams, self._max_rows, self._max_bytes)
        positions = {partition: self._next[partition] for partition in builder.partitions | self._moved}
        starts = {partition: self._starts.get(partition, 0) for partition in positions}
        self._starts.update(positions)
        self._moved.clear()
        lag: Counter[str] = Counter()
        for topic, partition in self._assigned or ():
            _, high = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)
            lag[self._streams[topic]] += max(0, high - self._next.get((topic, partition), high))
        topic_ids = {topic: self._topic_ids[topic] for topic, _ in positions}
        self._emitted.update(
            ((topic, topic_ids[topic], partition), end) for (topic, partition), end in positions.items()
        )
        is_end = self._assigned is not None and all(
            self._is_at_end(partition) or self._next.get(partition, 0) >= self._ends[partition]
            for partition in self._assigned
        )
        tables = builder.tables()
        return Batch(tables, positions, topic_ids, self._generation, lag, is_end, starts, source="kafka")

    def _describe(self, topics: Iterable[str]) -> dict[str, Any]:
        """Topic to its confluent_kafka.admin.TopicDescription, without those that are missing or hidden by ACLs."""
        try:
            described, hidden = describe_topics(self._admin, topics)
        except KafkaException as error:
            self._admin.poll(0)  # serves the error event that names the cause
            reason = error.args[0].str() if self._is_connected else self._last_error or error.args[0].str()
            raise unreachable(self._config, reason) from error
        readable = {topic for topic, description in described.items() if may(description, AclOperation.READ)}
        for topic in sorted(hidden | (described.keys() - readable)):
            self._deny(topic)
        self._denied -= readable
        return described

    def _deny(self, topic: str) -> None:
        if topic not in self._denied:
            self._denied.add(topic)
            log.error(not_allowed(topic), topic=topic)

    def _offsets(
        self,
        partitions: list[TopicAndPartition],
        which: OffsetSpec,
        isolation_level: IsolationLevel = IsolationLevel.READ_COMMITTED,
    ) -> dict[TopicAndPartition, int]:
        wanted = {TopicPartition(*partition): which for partition in partitions}
        if not wanted:
            return {}
        answers = self._admin.list_offsets(wanted, isolation_level=isolation_level, request_timeout=ANSWER_SECONDS)
        try:
            return {(one.topic, one.partition): answer.result().offset for one, answer in answers.items()}
        except KafkaException as error:
            raise unreachable(self._config, error.args[0].str()) from error

    def _watermarks(self, topic: str, partition: int) -> tuple[int, int]:
        try:
            low, high = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=ANSWER_SECONDS)
        except KafkaException as error:
            raise unreachable(self._config, error.args[0].str()) from error
        return low, high

    def _is_drained(self) -> bool:
        """Whether every assigned partition is consumed to its end."""
        if self._assigned is None:
            # The group hands out nothing while no topic exists.
            return not self._existing and self._to_assign is None
        return all(map(self._is_at_end, self._assigned))

    def _is_at_end(self, partition: TopicAndPartition) -> bool:
        """Whether nothing of it is waited for."""
        return partition in self._at_end or partition[0] in self._denied

    def _stalled(self) -> UnavailableError:
        reason = f" ({self._last_error})" if self._last_error else ""
        if self._assigned is None:
            return UnavailableError(
                f"Kafka at {self._config['bootstrap.servers']} assigned no partitions "
                f"within {PATIENCE_SECONDS:.0f} seconds{reason}"
            )
        behind = ", ".join(f"{topic}/{partition}" for topic, partition in sorted(self._assigned - self._at_end))
        return UnavailableError(
            f"Kafka at {self._config['bootstrap.servers']} sent nothing for {PATIENCE_SECONDS:.0f} seconds, "
            f"though there are messages in {behind}{reason}"
        )

    def _consume(self, count: int, timeout: float) -> tuple[list[Record], list[Record]]:
        """Messages, and events (errors, ends of partitions) that arrived, after taking over a new assignment."""
        if self._to_assign is not None:
            self._take_assignment(self._to_assign)
        generation = self._generation
        try:
            messages: list[Record] = self._consumer.consume(count, timeout)
        except KafkaException as error:
            raise UserError(f"Kafka at {self._config['bootstrap.servers']}: {error.args[0].str()}") from error
        if generation != self._generation:
            # New partitions deliver only once `_take_assignment` ran: all of this is from before the revocation.
            return [], []
        if not any(map(RECORD.error, messages)):
            return messages, []
        return (
            [message for message in messages if message.error() is None],
            [message for message in messages if message.error() is not None],
        )

    def _on_assign(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        # Not the place to read the warehouse: if that failed, librdkafka would go on from the group's offsets.
        # Until the positions are read nothing is assigned.
        self._consumer.assign([])
        self._to_assign = {(given.topic, given.partition) for given in partitions}

    def _on_revoke(self, _: Consumer, __: list[TopicPartition]) -> None:
        self._generation += 1
        self._builder = _BatchBuilder(self._streams, self._max_rows, self._max_bytes)
        self._assigned = None
        self._to_assign = None
        self._at_end.clear()
        self._next.clear()
        self._moved.clear()

    def _take_assignment(self, given: set[TopicAndPartition]) -> None:
        """Assign what the group gave, each partition where the warehouse, or the batch under way to it, ends."""
        topic_ids = _ids(self._describe({topic for topic, _ in given}))
        given = {(topic, partition) for topic, partition in given if topic in topic_ids or topic not in self._denied}
        if any(topic not in topic_ids for topic, _ in given):
            return  # the broker that was asked does not know the topic yet, or not any more: asked again
        self._topic_ids = topic_ids
        positions = self._read_positions(self._topic_ids)
        for topic, partition in given:
            emitted = self._emitted.get((topic, self._topic_ids[topic], partition), 0)
            if (topic, partition) in positions or emitted:
                self._next[topic, partition] = max(positions.get((topic, partition), 0), emitted)
        self._starts = dict(self._next)
        for one in given - self._ends.keys():
            _, self._ends[one] = self._watermarks(*one)
        self._assign(given)
        self._existing |= self._topic_ids.keys()
        self._assigned = given
        self._to_assign = None

    def _assign(self, partitions: set[TopicAndPartition]) -> None:
        self._consumer.assign(
            [TopicPartition(*partition, self._next.get(partition, OFFSET_BEGINNING)) for partition in partitions]
        )

    def _on_event(self, error: KafkaError, partition: TopicAndPartition, offset: int) -> None:
        if error.code() == KafkaError._PARTITION_EOF:
            # Not where messages came after this end in the same call.
            if offset >= self._next.get(partition, 0):
                self._at_end.add(partition)
                self._move(partition, offset)
        elif error.code() in {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE}:
            self._skip_gap(*partition)
        elif error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            log.debug("kafka topic does not exist", topic=partition[0])  # logged at the start
        elif error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED and partition[0] in self._streams:
            self._deny(partition[0])
        elif error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
            group = self._consumer_config["group.id"]
            raise UserError(
                f"Kafka at {self._config['bootstrap.servers']}: this client may not use the consumer group {group}:"
                " grant it READ on the group (an ACL), or set KAFKA_GROUP_ID"
            )
        elif error.fatal():
            raise UserError(f"Kafka at {self._config['bootstrap.servers']}: {error.str()}")
        else:
            log.warning("kafka", error=error.str(), topic=partition[0], partition=partition[1])

    def _move(self, partition: TopicAndPartition, offset: int) -> None:
        """Go on from there: before it, there is no message left to come."""
        if offset > self._next.get(partition, 0):
            self._next[partition] = offset
            self._moved.add(partition)

    def _skip_gap(self, topic: str, partition: int) -> None:
        """Go on at the earliest message there is, after retention deleted the one that was next."""
        if self._topic_was_recreated({topic}):
            return
        low, high = self._watermarks(topic, partition)
        expected = self._next.get((topic, partition), low)
        if expected > high:
            raise UserError(
                f"Kafka topic {topic}, partition {partition} ends at offset {high}, but the warehouse has landed up "
                f"to {expected}: it lost messages, or was created again on a broker without topic ids. Rename it "
                "and set TOPICS"
            )
        known = (topic, self._topic_ids[topic], partition)
        # Until the position after the gap is committed, each assignment comes upon it again.
        expected = max(expected, self._lost.get(known, 0))
        if expected < low:
            self._lost[known] = low
            metrics.LOST.labels(self._streams[topic]).inc(low - expected)
            log.error(
                "kafka retention deleted messages before they were landed",
                **{"topic": topic, "partition": partition, "from": expected, "to": low, "at_most": low - expected},
            )
        self._move((topic, partition), low)
        # librdkafka has stopped the partition and takes no seek; assigning all partitions again starts it.
        self._assign(self._assigned or set())

    def _on_error(self, error: KafkaError) -> None:
        # librdkafka repeats itself several times a second. Before the first answer, the exception says it all.
        if self._is_connected and error.str() != self._last_error:
            log.warning("kafka", error=error.str())
        self._last_error = error.str()


def describe_topics(admin: Any, topics: Iterable[str]) -> tuple[dict[str, Any], set[str]]:
    """Topic to its confluent_kafka.admin.TopicDescription, and the topics that ACLs hide; a missing one is in neither.

    Raises:
        KafkaException: when the brokers do not answer.
    """
    described, hidden = {}, set()
    answers = admin.describe_topics(
        TopicCollection(sorted(topics)), request_timeout=ANSWER_SECONDS, include_authorized_operations=True
    )
    for topic, answer in answers.items():
        try:
            described[topic] = answer.result()
        except KafkaException as error:
            if error.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                hidden.add(topic)
            elif error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise
    return described, hidden


def may(description: Any, operation: AclOperation) -> bool:
    """Whether the client may do this to the topic. Old brokers do not say: then it is to be tried."""
    return not description.authorized_operations or operation in description.authorized_operations


def not_allowed(topic: str) -> str:
    return (
        f"Kafka topic {topic} may not be read by this client: grant it DESCRIBE and READ on the topic (ACLs), or leave"
        " its stream out of STREAMS"
    )


def _ids(described: Mapping[str, Any]) -> dict[str, str]:
    """Topic to its id, '' of a broker that gives none."""
    ids = {topic: str(description.topic_id) for topic, description in described.items()}
    return {topic: "" if topic_id == NO_TOPIC_ID else topic_id for topic, topic_id in ids.items()}


def _calendar_time(milliseconds: int) -> datetime | None:
    return (
        EPOCH + timedelta(milliseconds=milliseconds) if FIRST_MILLISECOND <= milliseconds <= LAST_MILLISECOND else None
    )


def _partition_of(message: Record) -> TopicAndPartition:
    return message.topic(), message.partition()


class _BatchBuilder:
    """Turns messages into columns as they come, which is faster than keeping them."""

    def __init__(self, streams: Mapping[str, str], max_rows: int, max_bytes: int) -> None:
        self.rows = 0
        self.since = 0.0
        """Monotonic time of the first message."""
        self.partitions: set[TopicAndPartition] = set()
        self._streams = streams
        self._max_rows = max_rows
        self._bytes_left = max_bytes
        self._tables: dict[str, list[pa.Table]] = {}

    @property
    def is_full(self) -> bool:
        return self.rows >= self._max_rows or self._bytes_left <= 0

    def add(self, messages: list[Record]) -> dict[TopicAndPartition, int]:
        """Take messages; returns where each of their partitions goes on."""
        self.since = self.since or time.monotonic()
        self.rows += len(messages)
        by_topic: dict[str, list[Record]] = {}
        topics = list(map(RECORD.topic, messages))
        if len(set(topics)) == 1:
            by_topic[topics[0]] = messages
        else:
            for topic, message in zip(topics, messages, strict=True):
                by_topic.setdefault(topic, []).append(message)
        positions = {}
        for topic, of_topic in by_topic.items():
            partitions = list(map(RECORD.partition, of_topic))
            offsets = list(map(RECORD.offset, of_topic))
            # Offsets ascend within a partition, so the last one stays.
            ends = dict(zip(partitions, offsets, strict=True))
            positions.update({(topic, partition): offset + 1 for partition, offset in ends.items()})
            table = _table(topic, partitions, offsets, of_topic)
            self._bytes_left -= table.nbytes
            self._tables.setdefault(self._streams[topic], []).append(table)
        self.partitions |= positions.keys()
        return positions

    def tables(self) -> dict[str, pa.Table]:
        """Stream to its messages."""
        return {stream: pa.concat_tables(tables) for stream, tables in self._tables.items()}


def _table(topic: str, partitions: list[int], offsets: list[int], messages: list[Record]) -> pa.Table:
    # Unbound methods under `map` and Arrow's kernels: a comprehension over a million messages a second is the
    # dearest thing on this path.
    partition, offset = pa.array(partitions, pa.int32()), pa.array(offsets, pa.int64())
    headers = _headers(messages)
    columns = {
        "source": pa.repeat("kafka", len(messages)),
        "topic": pa.repeat(topic, len(messages)),
        "partition": partition,
        "offset": offset,
        "message_id": pc.binary_join_element_wise(topic, partition.cast(pa.string()), offset.cast(pa.string()), "/"),
        "key": pa.array(list(map(RECORD.key, messages)), pa.binary()),
        "attributes": pa.array(list(map(_attributes, headers)), pa.string())
        if any(headers)
        else pa.nulls(len(messages), pa.string()),
        "published_at": _published_at(list(map(RECORD.timestamp, messages))),
        "payload": pa.array(list(map(RECORD.value, messages)), pa.binary()),
    }
    return pa.Table.from_pydict(columns, schema=BATCH_SCHEMA)


def _published_at(timestamps: list[tuple[int, int]]) -> pa.Array:
    """Null for a message without a time, or with one that no calendar has."""
    if TIMESTAMP_NOT_AVAILABLE in set(map(itemgetter(0), timestamps)):
        timestamps = [time if time[0] != TIMESTAMP_NOT_AVAILABLE else (time[0], NO_MILLISECOND) for time in timestamps]
    milliseconds = pa.array(list(map(itemgetter(1), timestamps)), pa.int64())
    is_time = pc.and_(pc.greater_equal(milliseconds, FIRST_MILLISECOND), pc.less_equal(milliseconds, LAST_MILLISECOND))
    return pc.multiply(pc.if_else(is_time, milliseconds, None), 1000).cast(pa.timestamp("us"))


def _headers(messages: list[Record]) -> list[Any]:
    try:
        return list(map(RECORD.headers, messages))
    except (SystemError, UnicodeDecodeError):  # what the client says to a name that is not UTF-8
        return [_headers_of_one(message) for message in messages]


def _headers_of_one(message: Record) -> Any:
    try:
        return message.headers()
    except (SystemError, UnicodeDecodeError):
        log.warning(
            "kafka headers whose names are not UTF-8 cannot be read; the message is landed without them",
            topic=message.topic(),
            partition=message.partition(),
            offset=message.offset(),
        )
        return [("unreadable_headers", b"true")]


def _attributes(headers: Iterable[tuple[str, bytes | None]] | None) -> str | None:
    """Headers as a JSON object.

    A value that is not UTF-8 becomes {"base64": "..."}, and the values of a repeated name become a list.
    """
    if not headers:
        return None
    attributes: dict[str, Any] = {}
    for name, value in headers:
        attributes.setdefault(name, []).append(_header_value(value))
    merged = {name: values[0] if len(values) == 1 else values for name, values in attributes.items()}
    return orjson.dumps(merged).decode()


def _header_value(value: bytes | None) -> str | dict[str, str] | None:
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(value).decode()}


def _on_commit(error: KafkaError | None, _: list[TopicPartition]) -> None:
    if error is not None:
        log.warning("kafka offsets not committed; landing does not need them", error=error.str())
