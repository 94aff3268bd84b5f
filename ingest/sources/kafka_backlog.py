"""Counts the waiting messages in Kafka, with a consumer that does not join the group."""

import time
from collections.abc import Mapping
from contextlib import closing
from datetime import datetime
from typing import NamedTuple

from confluent_kafka import IsolationLevel, KafkaError, TopicPartition

from ingest.brokers.kafka import REQUEST_TIMEOUT_SECONDS, KafkaConnection
from ingest.brokers.kafka_topics import EARLIEST, LATEST, TopicAndPartition, list_offsets, topic_ids
from ingest.sources import ReadPositions
from ingest.sources.kafka_batch import calendar_time
from ingest.sources.kafka_topics import Topics

COUNTED_MESSAGES = 1_000
"""Waiting messages per partition that are counted exactly. The others are estimated by offsets, some of which have no
message in topics with transactions or compaction."""


class Backlog(NamedTuple):
    """The waiting messages of a stream."""

    messages: int
    oldest: datetime | None
    """Publish time of the oldest waiting message, UTC; None if unknown."""


def read_backlog(
    connection: KafkaConnection, topics: Topics, streams: Mapping[str, str], read_positions: ReadPositions
) -> dict[str, Backlog]:
    """Return the backlog of each stream by name: the messages after the warehouse's position, including those of open
    transactions.

    Args:
        streams: maps a topic to the name of its stream.

    Raises:
        UnavailableError: if the brokers do not answer.
    """
    described = topics.describe(streams)
    partitions = [
        (topic, partition.id) for topic in described.keys() - topics.denied for partition in described[topic].partitions
    ]
    positions = read_positions(topic_ids(described))
    low = list_offsets(connection, topics.admin, partitions, EARLIEST)
    ends = list_offsets(connection, topics.admin, partitions, LATEST)
    # Messages of open transactions are after the end of the committed ones.
    last = list_offsets(connection, topics.admin, partitions, LATEST, IsolationLevel.READ_UNCOMMITTED)
    starts = {one: max(low[one], positions.get(one, 0)) for one in partitions}
    backlogs = {stream: Backlog(0, None) for stream in streams.values()}
    counted = _count(connection, topics, {one: start for one, start in starts.items() if start < ends[one]})
    for one in partitions:
        stream = streams[one[0]]
        read_up_to, found = counted.get(one, (starts[one], Backlog(0, None)))
        in_transactions = max(0, last[one] - max(ends[one], read_up_to))
        uncounted = max(0, ends[one] - read_up_to)
        before = backlogs[stream]
        backlogs[stream] = Backlog(
            before.messages + found.messages + uncounted + in_transactions,
            min(filter(None, (before.oldest, found.oldest)), default=None),
        )
    return backlogs


def _count(
    connection: KafkaConnection, topics: Topics, starts: Mapping[TopicAndPartition, int]
) -> dict[TopicAndPartition, tuple[int, Backlog]]:
    """Count messages from these offsets; returns, per partition, the offset after the last one and the count."""
    counted = {one: (start, Backlog(0, None)) for one, start in starts.items()}
    if not starts:
        return counted
    with closing(connection.open_consumer()) as consumer:
        consumer.assign([TopicPartition(*one, start) for one, start in starts.items()])
        under_way = set(starts)
        until = time.monotonic() + REQUEST_TIMEOUT_SECONDS
        while under_way and time.monotonic() < until:
            for message in consumer.consume(COUNTED_MESSAGES, 0.1):
                one = message.topic(), message.partition()
                if one not in under_way:
                    continue
                _, found = counted[one]
                if message.error() is None:
                    oldest = found.oldest if found.messages else calendar_time(message.timestamp()[1])
                    counted[one] = message.offset() + 1, Backlog(found.messages + 1, oldest)
                elif message.error().code() == KafkaError._PARTITION_EOF:
                    counted[one] = message.offset(), found
                elif message.error().code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                    topics.denied.add(one[0])
                else:
                    continue
                if message.error() is not None or counted[one][1].messages == COUNTED_MESSAGES:
                    under_way.remove(one)
                    consumer.incremental_unassign([TopicPartition(*one)])
    return counted
