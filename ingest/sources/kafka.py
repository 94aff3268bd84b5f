"""Reads Kafka from where the warehouse says, never from where the consumer group says."""

import logging
import re
import threading
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from operator import itemgetter
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import structlog
from confluent_kafka import (
    OFFSET_BEGINNING,
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from ingest import metrics
from ingest.errors import UnavailableError, UserError
from ingest.message import BATCH_SCHEMA, Batch, TopicIds
from ingest.settings import Settings
from ingest.sources import LONGEST_FETCH_SECONDS, ReadPositions
from ingest.streams import Stream

ANSWER_SECONDS = 10.0
"""How long a broker may take to answer a question before it counts as unreachable."""
PATIENCE_SECONDS = 60.0
"""How long to wait for partitions, or for messages known to be there. The wait for partitions outlasts the
session timeout of a loader that was killed: until then the group waits for the dead member."""
CHUNK_ROWS = 5_000
CHUNK_BYTES = 4 * 1024 * 1024
"""What is taken from librdkafka at a time: enough to amortise the call, and no more than memory is there for."""
# Years 1 to 9999 in milliseconds: what a warehouse timestamp can hold. Producers set this field freely.
FIRST_MILLISECOND, LAST_MILLISECOND = -62_135_596_800_000, 253_402_300_799_999
NO_MILLISECOND = FIRST_MILLISECOND - 1
EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  UTC without a zone, as everywhere
NO_TOPIC_ID = "AAAAAAAAAAAAAAAAAAAAAA"
"""Sixteen zero bytes: what a broker before Kafka 2.8 says."""

# librdkafka prints to standard error unless given a logger. What matters arrives as an error event and is logged
# by `_on_error`; the rest is there for whoever configures this logger.
_librdkafka_logger = logging.getLogger("ingest.librdkafka")
_librdkafka_logger.addHandler(logging.NullHandler())
_librdkafka_logger.propagate = False

log = structlog.get_logger()

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
        config.update(_read_properties(settings.kafka_config_file))
    if settings.kafka_bootstrap_servers is not None:
        config["bootstrap.servers"] = settings.kafka_bootstrap_servers
    if not config.get("bootstrap.servers"):
        raise UserError("no Kafka brokers: set KAFKA_BOOTSTRAP_SERVERS, or bootstrap.servers in KAFKA_CONFIG_FILE")
    return config


def open_client(kind: type, config: dict[str, Any]) -> Any:
    """A client of this kind (Consumer, Producer, AdminClient).

    Raises:
        UserError: for a property that librdkafka does not take.
    """
    try:
        return kind({**config, "logger": _librdkafka_logger})
    except KafkaException as error:
        reason = re.sub(r'([Vv]alue) "[^"]*"', r"\1", error.args[0].str())  # it may be a secret
        raise UserError(f"Kafka configuration: {reason}") from error


def unreachable(config: dict[str, Any], reason: object) -> UnavailableError:
    return UnavailableError(f"Kafka at {config['bootstrap.servers']} does not answer: {reason}")


def _read_properties(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"KAFKA_CONFIG_FILE {path} cannot be read: {error}") from error
    properties = {}
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, equals, value = text.partition("=")
        # The rest of a secret that was broken over two lines may hold an equals sign too.
        if not equals or not re.fullmatch(r"[a-z][a-z0-9._]*", name.strip()):
            raise UserError(f"KAFKA_CONFIG_FILE {path}, line {number}: expected key=value")
        # The files that Confluent Cloud hands out carry their schema registry's settings too.
        if not name.startswith(("schema.registry.", "basic.auth.")):
            properties[name.strip()] = value.strip()
    return properties


class KafkaSource:
    """A consumer that the group gives its partitions, and the warehouse their offsets.

    At every assignment of partitions the warehouse's positions are read again, since another loader may have
    landed from these partitions meanwhile. They are those of the topic's id: a topic that was deleted and created
    again is read from its beginning. librdkafka mostly notices, and has the partitions assigned anew; that it did is
    asked before each batch is handed out. A batch handed out before and not yet committed is not fetched a second
    time: its commit is under way, and the source goes on behind it. So that this is exact:

    - the sink must refuse (or trim) a batch in which an offset lies below the warehouse's position: that is how a
      batch loses against another loader that took over its partition;
    - after a commit that failed or was refused, close this source and open another.

    Offsets committed to Kafka serve lag tools only.
    """

    drained_after_seconds = 0.0  # a partition says where its end is

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
        self._ends: dict[TopicAndPartition, int] = {}
        """Where each partition ended when it was assigned for the first time."""
        self._topic_ids: dict[str, str] = {}
        """Of the assigned topics."""
        self._filling = _Filling(self._streams, self._max_rows, self._max_bytes)
        """What was consumed and not handed out yet: it outlasts a fetch that ends with an error."""
        self._handed_out: dict[tuple[str, str, int], int] = {}
        """(topic, its id, partition) to where its last batch ended."""
        self._lost: dict[tuple[str, str, int], int] = {}
        """(topic, its id, partition) to the offset below which all that is lost has been counted."""
        self._message_bytes = 16_384
        """Size of a message, as those that came last; large until it is known."""
        self._last_error: str | None = None
        self._is_connected = False

        self._config = client_config(settings)
        self._consumer: Any = open_client(
            Consumer,
            {
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
                **self._config,
                "group.id": settings.kafka_group_id,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                # A missing offset is an error to count and log, not to step over in silence.
                "auto.offset.reset": "error",
                "enable.partition.eof": True,
                # `_on_assign` takes the whole assignment each time.
                "group.protocol": "classic",
                "partition.assignment.strategy": "range,roundrobin",
                "error_cb": self._on_error,
                "on_commit": _on_commit,
            },
        )
        self._admin: Any = open_client(AdminClient, self._config)
        try:
            self._existing = self._existing_topics()
        except UserError:
            self._consumer.close()
            raise
        self._is_connected = True
        for topic in self._streams.keys() - self._existing:
            log.warning("kafka topic does not exist (yet); `python -m ingest provision` creates it", topic=topic)
        self._is_subscribed = False

    def fetch(self, timeout: float) -> Batch | None:
        """The next messages; None when every assigned partition stayed at its end for `timeout` seconds.

        While messages are known to be there this waits beyond `timeout` for them, so None is never a slow broker.

        Raises:
            UnavailableError: when the group gives no partitions, or the broker sends nothing for PATIENCE_SECONDS
                though there is something.
            UserError: when the broker refuses, or a partition ends before where the warehouse stands.
        """
        self._subscribe()
        started = time.monotonic()
        has_looked = False
        while True:
            if self._stop.is_set():
                return None
            now = time.monotonic()
            filling = self._filling
            if filling.rows:
                wait = filling.since + self._max_seconds - now
                if filling.is_full or wait <= 0 or self._is_drained():
                    if self._are_created_anew({topic for topic, _ in filling.positions}):
                        continue
                    return self._hand_out(filling)
            elif self._is_drained():
                wait = started + timeout - now
                if wait <= 0 and has_looked:
                    return None
            else:
                wait = started + max(timeout, PATIENCE_SECONDS) - now
                if wait <= 0:
                    raise self._stalled()
            # Short waits: an end of partition may be all that is to come, and being told to stop.
            self._take_more(max(0.0, min(wait, 0.1)))
            has_looked = True

    def _take_more(self, timeout: float) -> None:
        """Consume into `_filling`."""
        generation, filling = self._generation, self._filling
        count = min(CHUNK_ROWS, self._max_rows - filling.rows, max(1, CHUNK_BYTES // self._message_bytes))
        arrived, events = self._consume(count, timeout)
        if arrived:
            self._message_bytes = 1 + sum(map(len, arrived)) // len(arrived)
            ends = filling.add(arrived)
            self._next.update(ends)
            self._at_end -= ends.keys()
        try:
            for event in events:
                if generation == self._generation:
                    self._on_event(event.error(), _partition_of(event), event.offset())
        except UserError:
            self._assign_again()  # librdkafka tells what has happened once only
            raise

    def _subscribe(self) -> None:
        """Join the group; not before the first fetch, so that who only asks for `waiting` takes no partitions from a
        loader that runs."""
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
        """Offsets between the warehouse's position and the end, of all partitions: 0 for a topic that is missing.

        Raises:
            UserError: for brokers that do not answer.
        """
        positions = self._read_positions(self._ids(self._existing))
        waiting: dict[str, int | None] = dict.fromkeys(self._streams.values(), 0)
        for topic in self._existing_topics():
            total = 0
            for partition in self._partitions[topic]:
                low, high = self._watermarks(topic, partition)
                total += max(0, high - max(low, positions.get((topic, partition), low)))
            waiting[self._streams[topic]] = total
        return waiting

    def oldest_waiting(self) -> dict[str, datetime | None]:
        """By the first message that waits in each partition."""
        positions = self._read_positions(self._ids(self._existing))
        behind: dict[TopicAndPartition, int] = {}
        for topic in self._existing:
            for partition in self._partitions[topic]:
                low, high = self._watermarks(topic, partition)
                first = max(low, positions.get((topic, partition), low))
                if first < high:
                    behind[topic, partition] = first
        oldest: dict[str, datetime | None] = dict.fromkeys(self._streams.values())
        self._consumer.assign([TopicPartition(*partition, first) for partition, first in behind.items()])
        until = time.monotonic() + ANSWER_SECONDS
        while behind and time.monotonic() < until:
            for message in self._consumer.consume(len(behind), 0.1):
                partition = _partition_of(message)
                if behind.pop(partition, None) is None or message.error() is not None:
                    continue  # the second of a partition, or an end that aborted transactions moved
                self._consumer.incremental_unassign([TopicPartition(*partition)])
                stream, milliseconds = self._streams[partition[0]], message.timestamp()[1]
                if FIRST_MILLISECOND <= milliseconds <= LAST_MILLISECOND:
                    published_at = EPOCH + timedelta(milliseconds=milliseconds)
                    oldest[stream] = min(filter(None, (oldest[stream], published_at)))
        self._consumer.unassign()
        return oldest

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close()

    def _are_created_anew(self, topics: set[str]) -> bool:
        """Whether one of the topics has another id than when it was assigned; then all are assigned again.

        librdkafka may go on in the new topic where it stood in the old one. An id never comes back: where it is still
        that of the assignment, so is everything consumed since (up to how late one broker hears of it from another).
        """
        # a broker that begins to give ids is no reason
        known = self._topic_ids
        if all(known[topic] in ("", topic_id) or not topic_id for topic, topic_id in self._ids(topics).items()):
            return False
        self._assign_again()
        return True

    def _assign_again(self) -> None:
        """Forget what was consumed and not handed out, and go on from the warehouse's positions."""
        given = self._assigned or self._to_assign
        self._on_revoke(self._consumer, [])
        self._to_assign = given

    def _hand_out(self, filling: "_Filling") -> Batch:
        self._filling = _Filling(self._streams, self._max_rows, self._max_bytes)
        lag: Counter[str] = Counter()
        for topic, partition in self._assigned or ():
            _, high = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)
            lag[self._streams[topic]] += max(0, high - self._next.get((topic, partition), high))
        topic_ids = {topic: self._topic_ids[topic] for topic, _ in filling.positions}
        self._handed_out.update(
            ((topic, topic_ids[topic], partition), end) for (topic, partition), end in filling.positions.items()
        )
        is_end = self._assigned is not None and all(
            partition in self._at_end or self._next.get(partition, 0) >= self._ends[partition]
            for partition in self._assigned
        )
        return filling.batch(topic_ids, self._generation, lag, is_end)

    def _existing_topics(self) -> set[str]:
        try:
            topics = self._consumer.list_topics(timeout=ANSWER_SECONDS).topics
        except KafkaException as error:
            self._consumer.poll(0)  # serves the error event that says why
            raise unreachable(self._config, self._last_error or error.args[0].str()) from error
        self._partitions = {
            topic: sorted(topics[topic].partitions)
            for topic in self._streams
            if topic in topics and topics[topic].error is None
        }
        return set(self._partitions)

    def _ids(self, topics: Iterable[str]) -> dict[str, str]:
        """The ids of those topics that exist."""
        found = {}
        for topic, described in self._admin.describe_topics(
            TopicCollection(sorted(topics)), request_timeout=ANSWER_SECONDS
        ).items():
            try:
                topic_id = str(described.result().topic_id)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise unreachable(self._config, error.args[0].str()) from error
            else:
                found[topic] = "" if topic_id == NO_TOPIC_ID else topic_id
        return found

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
        return self._assigned <= self._at_end

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
        self._filling = _Filling(self._streams, self._max_rows, self._max_bytes)
        self._assigned = None
        self._to_assign = None
        self._at_end.clear()
        self._next.clear()

    def _take_assignment(self, given: set[TopicAndPartition]) -> None:
        """Assign what the group gave, each partition where the warehouse, or the batch under way to it, ends."""
        topic_ids = self._ids({topic for topic, _ in given})
        if any(topic not in topic_ids for topic, _ in given):
            return  # the broker that was asked does not know the topic yet, or not any more: asked again
        self._topic_ids = topic_ids
        positions = self._read_positions(self._topic_ids)
        for topic, partition in given:
            handed_out = self._handed_out.get((topic, self._topic_ids[topic], partition), 0)
            if (topic, partition) in positions or handed_out:
                self._next[topic, partition] = max(positions.get((topic, partition), 0), handed_out)
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
            # Not where messages came behind this end in the same call.
            if offset >= self._next.get(partition, 0):
                self._at_end.add(partition)
        elif error.code() in {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE}:
            self._skip_gap(*partition)
        elif error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            log.debug("kafka topic does not exist", topic=partition[0])  # said at the start
        elif error.fatal() or error.code() in {
            KafkaError.TOPIC_AUTHORIZATION_FAILED,
            KafkaError.GROUP_AUTHORIZATION_FAILED,
        }:
            raise UserError(f"Kafka at {self._config['bootstrap.servers']}: {error.str()}")
        else:
            log.warning("kafka", error=error.str(), topic=partition[0], partition=partition[1])

    def _skip_gap(self, topic: str, partition: int) -> None:
        """Go on at the earliest message there is, after retention deleted the one that was next."""
        if self._are_created_anew({topic}):
            return
        low, high = self._watermarks(topic, partition)
        expected = self._next.get((topic, partition), low)
        if expected > high:
            raise UserError(
                f"Kafka topic {topic}, partition {partition} ends at offset {high}, but the warehouse has landed up "
                f"to {expected}: it lost messages, or was created anew on a broker that gives topics no ids. Give it "
                "another name, and set TOPICS accordingly"
            )
        known = (topic, self._topic_ids[topic], partition)
        # Until something behind the gap is committed, each assignment comes upon it again.
        expected = max(expected, self._lost.get(known, 0))
        if expected < low:
            self._lost[known] = low
            metrics.LOST.labels(self._streams[topic]).inc(low - expected)
            log.error(
                "kafka retention deleted messages before they were landed",
                **{"topic": topic, "partition": partition, "from": expected, "to": low, "count": low - expected},
            )
        self._next[topic, partition] = max(self._next.get((topic, partition), low), low)
        # librdkafka has stopped the partition and takes no seek; assigning all partitions again starts it.
        self._assign(self._assigned or set())

    def _on_error(self, error: KafkaError) -> None:
        # librdkafka repeats itself several times a second. Before the first answer, the exception says it all.
        if self._is_connected and error.str() != self._last_error:
            log.warning("kafka", error=error.str())
        self._last_error = error.str()


def _partition_of(message: Record) -> TopicAndPartition:
    return message.topic(), message.partition()


class _Filling:
    """A batch that is being filled: messages become columns as they come, which is faster than keeping them."""

    def __init__(self, streams: Mapping[str, str], max_rows: int, max_bytes: int) -> None:
        self.rows = 0
        self.since = 0.0
        """Monotonic time of the first message."""
        self.positions: dict[TopicAndPartition, int] = {}
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
        self.positions.update(positions)
        return positions

    def batch(self, topic_ids: TopicIds, acknowledgement: object, lag: Mapping[str, int], is_end: bool) -> Batch:
        tables = {stream: pa.concat_tables(tables) for stream, tables in self._tables.items()}
        return Batch(tables, self.positions, topic_ids, acknowledgement, lag, is_end)


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
