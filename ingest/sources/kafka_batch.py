"""Converts Kafka messages to the Arrow tables of a batch."""

from base64 import b64encode
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import structlog
from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Message

from engines.batch import BATCH_SCHEMA
from ingest.batching import BatchBounds, BatchSize
from ingest.brokers.kafka_topics import TopicAndPartition

# The years 1 to 9999 in milliseconds, the range of warehouse timestamps. Producers can set any time in a message.
FIRST_MILLISECOND, LAST_MILLISECOND = -62_135_596_800_000, 253_402_300_799_999
NO_MILLISECOND = FIRST_MILLISECOND - 1
EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  UTC without a zone, as warehouse timestamps are

Record = Any
"""A confluent_kafka.Message without an error, so that its topic, partition and offset are not None."""
RECORD: Any = Message
"""The class of Record, whose unbound methods are passed to `map`."""

log = structlog.get_logger()


class BatchBuilder:
    """Builds a batch. It converts messages to columns as they arrive, which is faster than keeping message objects.

    Args:
        streams: topic to stream name.
    """

    def __init__(self, streams: Mapping[str, str], bounds: BatchBounds) -> None:
        self.size = BatchSize(bounds)
        """Rows, bytes and seconds of the batch; the seconds count from its first message."""
        self.partitions: set[TopicAndPartition] = set()
        self._streams = streams
        self._tables: dict[str, list[pa.Table]] = {}

    def add(self, messages: list[Record]) -> dict[TopicAndPartition, int]:
        """Add messages; returns, per partition, the offset after its last message."""
        if not self.size.rows:
            self.size.restart_clock()
        by_topic: dict[str, list[Record]] = {}
        topics = list(map(RECORD.topic, messages))
        if len(set(topics)) == 1:
            by_topic[topics[0]] = messages
        else:
            for topic, message in zip(topics, messages, strict=True):
                by_topic.setdefault(topic, []).append(message)
        positions = {}
        for topic, topic_messages in by_topic.items():
            partitions = list(map(RECORD.partition, topic_messages))
            offsets = list(map(RECORD.offset, topic_messages))
            # Offsets ascend within a partition, so `dict` keeps the highest.
            ends = dict(zip(partitions, offsets, strict=True))
            positions.update({(topic, partition): offset + 1 for partition, offset in ends.items()})
            table = kafka_table(topic, partitions, offsets, topic_messages)
            self.size.add(table.num_rows, table.nbytes)
            self._tables.setdefault(self._streams[topic], []).append(table)
        self.partitions |= positions.keys()
        return positions

    def tables(self) -> dict[str, pa.Table]:
        """Return the messages by stream name, in BATCH_SCHEMA."""
        return {stream: pa.concat_tables(tables) for stream, tables in self._tables.items()}


def kafka_table(topic: str, partitions: list[int], offsets: list[int], messages: list[Record]) -> pa.Table:
    """Return messages of one topic in BATCH_SCHEMA."""
    # Uses `map` with unbound methods, and Arrow's kernels: at a million messages per second, a comprehension would be
    # the most expensive part of landing.
    partition, offset = pa.array(partitions, pa.int32()), pa.array(offsets, pa.int64())
    headers = read_headers(messages)
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


def calendar_time(milliseconds: int) -> datetime | None:
    """Return a message's time, in UTC; None if it is outside of the years 1 to 9999."""
    if FIRST_MILLISECOND <= milliseconds <= LAST_MILLISECOND:
        return EPOCH + timedelta(milliseconds=milliseconds)
    return None


def _published_at(timestamps: list[tuple[int, int]]) -> pa.Array:
    """Return the times of messages; null if a message has none, or one outside of the years 1 to 9999."""
    if TIMESTAMP_NOT_AVAILABLE in set(map(itemgetter(0), timestamps)):
        timestamps = [time if time[0] != TIMESTAMP_NOT_AVAILABLE else (time[0], NO_MILLISECOND) for time in timestamps]
    milliseconds = pa.array(list(map(itemgetter(1), timestamps)), pa.int64())
    is_time = pc.and_(pc.greater_equal(milliseconds, FIRST_MILLISECOND), pc.less_equal(milliseconds, LAST_MILLISECOND))
    return pc.multiply(pc.if_else(is_time, milliseconds, None), 1000).cast(pa.timestamp("us"))


def read_headers(messages: list[Record]) -> list[Any]:
    """Return the headers of each message. If a header's name is not UTF-8, a marker replaces all headers of the
    message."""
    try:
        return list(map(RECORD.headers, messages))
    except (SystemError, UnicodeDecodeError):  # raised by the client if a name is not UTF-8
        return [_message_headers(message) for message in messages]


def _message_headers(message: Record) -> Any:
    try:
        return message.headers()
    except (SystemError, UnicodeDecodeError):
        log.warning(
            "cannot read kafka headers: a name is not UTF-8; the message is landed without headers",
            topic=message.topic(),
            partition=message.partition(),
            offset=message.offset(),
        )
        return [("unreadable_headers", b"true")]


def _attributes(headers: Iterable[tuple[str, bytes | None]] | None) -> str | None:
    """Return headers as a JSON object; None if there are none.

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
