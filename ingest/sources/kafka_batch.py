"""Turns messages of Kafka into the Arrow tables of a batch."""

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

# Years 1 to 9999 in milliseconds: what a warehouse timestamp can hold. Producers set this field freely.
FIRST_MILLISECOND, LAST_MILLISECOND = -62_135_596_800_000, 253_402_300_799_999
NO_MILLISECOND = FIRST_MILLISECOND - 1
EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  UTC without a zone, as everywhere

Record = Any
"""A confluent_kafka.Message that carries no error, so its topic, partition and offset are not None."""
RECORD: Any = Message
"""The class of records, for its methods."""

log = structlog.get_logger()


class BatchBuilder:
    """Turns messages into columns as they arrive, which is faster than keeping them.

    Args:
        streams: topic to stream name.
    """

    def __init__(self, streams: Mapping[str, str], bounds: BatchBounds) -> None:
        self.size = BatchSize(bounds)
        """Its clock starts with the first message."""
        self.partitions: set[TopicAndPartition] = set()
        self._streams = streams
        self._tables: dict[str, list[pa.Table]] = {}

    def add(self, messages: list[Record]) -> dict[TopicAndPartition, int]:
        """Add messages; returns the next offset of each of their partitions."""
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
        for topic, of_topic in by_topic.items():
            partitions = list(map(RECORD.partition, of_topic))
            offsets = list(map(RECORD.offset, of_topic))
            # Offsets ascend within a partition, so the last one stays.
            ends = dict(zip(partitions, offsets, strict=True))
            positions.update({(topic, partition): offset + 1 for partition, offset in ends.items()})
            table = kafka_table(topic, partitions, offsets, of_topic)
            self.size.add(table.num_rows, table.nbytes)
            self._tables.setdefault(self._streams[topic], []).append(table)
        self.partitions |= positions.keys()
        return positions

    def tables(self) -> dict[str, pa.Table]:
        """Return stream to its messages."""
        return {stream: pa.concat_tables(tables) for stream, tables in self._tables.items()}


def kafka_table(topic: str, partitions: list[int], offsets: list[int], messages: list[Record]) -> pa.Table:
    """Return messages of one topic in BATCH_SCHEMA."""
    # Unbound methods under `map` and Arrow's kernels: at a million messages a second, a comprehension would be the
    # most expensive part of landing.
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
    """Return a message's time in UTC; None outside of the years 1 to 9999."""
    if FIRST_MILLISECOND <= milliseconds <= LAST_MILLISECOND:
        return EPOCH + timedelta(milliseconds=milliseconds)
    return None


def _published_at(timestamps: list[tuple[int, int]]) -> pa.Array:
    """Null for a message without a time, or with one outside of the years 1 to 9999."""
    if TIMESTAMP_NOT_AVAILABLE in set(map(itemgetter(0), timestamps)):
        timestamps = [time if time[0] != TIMESTAMP_NOT_AVAILABLE else (time[0], NO_MILLISECOND) for time in timestamps]
    milliseconds = pa.array(list(map(itemgetter(1), timestamps)), pa.int64())
    is_time = pc.and_(pc.greater_equal(milliseconds, FIRST_MILLISECOND), pc.less_equal(milliseconds, LAST_MILLISECOND))
    return pc.multiply(pc.if_else(is_time, milliseconds, None), 1000).cast(pa.timestamp("us"))


def read_headers(messages: list[Record]) -> list[Any]:
    """Return the headers of each message, without those whose names are not UTF-8."""
    try:
        return list(map(RECORD.headers, messages))
    except (SystemError, UnicodeDecodeError):  # what the client raises for a name that is not UTF-8
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
