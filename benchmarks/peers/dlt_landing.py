"""Kafka to DuckDB with dlt: `python dlt_landing.py BOOTSTRAP_SERVERS TOPIC GROUP COUNT DATABASE_FILE`.

Runs in its own environment (requirements-dlt.txt). The source is that of dlt's verified Kafka source, which is not a
package but code that `dlt init` copies: messages become dicts of metadata and text, and dlt's state keeps the offsets.
"""

import json
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import dlt
from confluent_kafka import Consumer, Message, TopicPartition
from dlt.common.time import ensure_pendulum_datetime
from dlt.common.utils import digest128

# As dlt's page on performance recommends: pages instead of rows, larger buffers, files small enough to be normalised by
# several processes, and Parquet for DuckDB instead of `insert` statements.
BATCH = 5_000
SETTINGS = {
    "sources.data_writer.buffer_max_items": 20_000,
    "sources.data_writer.file_max_items": 50_000,
    "normalize.data_writer.buffer_max_items": 20_000,
    "normalize.workers": 2,
    "load.workers": 2,
    "runtime.dlthub_telemetry": False,
}
LOADER_FILE_FORMAT = "parquet"


class Clock:
    first_message = 0.0


def processed(message: Message) -> dict[str, Any]:
    kind, milliseconds = message.timestamp()
    topic, partition = message.topic(), message.partition()
    key = message.key()
    if key is not None:
        key = key.decode()
    return {
        "_kafka": {
            "partition": partition,
            "topic": topic,
            "key": key,
            "offset": message.offset(),
            "ts": {"type": kind, "value": ensure_pendulum_datetime(milliseconds / 1e3)},
            "data": message.value().decode(),
        },
        "_kafka_msg_id": digest128(f"{topic}{partition}{key}"),
    }


@dlt.resource(name="kafka_messages", table_name="events", write_disposition="append")
def kafka_consumer(servers: str, topic: str, group: str, count: int) -> Iterator[list[dict[str, Any]]]:
    consumer = Consumer({"bootstrap.servers": servers, "group.id": group, "auto.offset.reset": "earliest"})
    offsets = dlt.current.resource_state().setdefault("offsets", {})
    partitions = consumer.list_topics(topic).topics[topic].partitions
    consumer.assign([TopicPartition(topic, number, offsets.get(str(number), -1) + 1) for number in partitions])
    with closing(consumer):
        taken = 0
        while taken < count:
            messages = consumer.consume(min(BATCH, count - taken), 3)
            if not messages:
                break
            Clock.first_message = Clock.first_message or time.monotonic()
            batch = []
            for message in messages:
                if message.error():
                    raise SystemExit(message.error().str())
                batch.append(processed(message))
                offsets[str(message.partition())] = message.offset()
            taken += len(batch)
            yield batch


def main(servers: str, topic: str, group: str, count: int, database: Path) -> None:
    for name, value in SETTINGS.items():
        dlt.config[name] = value
    pipeline = dlt.pipeline(
        "landing",
        pipelines_dir=str(database.with_suffix(".pipelines")),
        destination=dlt.destinations.duckdb(str(database)),
        dataset_name="raw",
    )
    pipeline.run(kafka_consumer(servers, topic, group, count), loader_file_format=LOADER_FILE_FORMAT)
    seconds = time.monotonic() - Clock.first_message
    messages = pipeline.last_trace.last_normalize_info.row_counts["events"]
    # of the largest process only, although several run during normalisation
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(json.dumps({"version": dlt.__version__, "messages": messages, "seconds": seconds, "peak_mib": peak // 1024}))


# imported by the processes that normalise
if __name__ == "__main__":
    _, servers, topic, group, count, database = sys.argv
    main(servers, topic, group, int(count), Path(database))
