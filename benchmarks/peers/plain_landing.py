"""Kafka to DuckDB in a loop written by hand:
`python plain_landing.py [--one-insert] BOOTSTRAP_SERVERS TOPIC GROUP COUNT DATABASE_FILE`.

Consumes a batch, parses it, inserts its rows with `executemany` in one transaction, and then commits the offsets.
DuckDB runs one statement per row, which is slow. With --one-insert, one statement inserts a batch and DuckDB parses the
texts, which is how DuckDB's documentation recommends to insert.
"""

import json
import resource
import sys
import time
from typing import Any

import duckdb
from confluent_kafka import Consumer

BATCH = 1_000
FIELDS = ("event_time", "event_type", "product_id", "category_code", "brand", "price", "id")

TABLE = f'create table events ("partition" integer, "offset" bigint, {", ".join(f"{name} varchar" for name in FIELDS)})'
INSERT_ROW = f"insert into events values ({', '.join('?' * (2 + len(FIELDS)))})"  # noqa: S608  places only
INSERT_BATCH = f"""
insert into events
select "partition", "offset", {", ".join(f"event ->> '{name}'" for name in FIELDS)}
from (select unnest(?) as "partition", unnest(?) as "offset", cast(unnest(?) as json) as event)
"""  # noqa: S608  names of ours


def insert_rows(connection: duckdb.DuckDBPyConnection, messages: list[Any]) -> None:
    rows = []
    for message in messages:
        event = json.loads(message.value())
        rows.append([message.partition(), message.offset(), *(event[name] for name in FIELDS)])
    connection.execute("begin")  # otherwise each row is a transaction
    connection.executemany(INSERT_ROW, rows)
    connection.execute("commit")


def insert_batch(connection: duckdb.DuckDBPyConnection, messages: list[Any]) -> None:
    columns = zip(*((one.partition(), one.offset(), one.value().decode()) for one in messages), strict=True)
    connection.execute(INSERT_BATCH, list(map(list, columns)))


def main(servers: str, topic: str, group: str, count: int, database: str, one_insert: bool) -> None:
    insert = insert_batch if one_insert else insert_rows
    connection = duckdb.connect(database)
    connection.execute(TABLE)
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([topic])
    landed = 0
    started = 0.0
    while landed < count:
        messages: list[Any] = consumer.consume(min(BATCH, count - landed), 1.0)
        if not messages:
            continue
        started = started or time.monotonic()
        if errors := [message.error() for message in messages if message.error()]:
            raise SystemExit(errors[0].str())
        insert(connection, messages)
        consumer.commit(asynchronous=False)
        landed += len(messages)
    seconds = time.monotonic() - started
    consumer.close()
    connection.close()
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"version": duckdb.__version__, "messages": landed, "seconds": seconds, "peak_mib": peak_mib}))


if __name__ == "__main__":
    *options, servers, topic, group, count, database = sys.argv[1:]
    main(servers, topic, group, int(count), database, "--one-insert" in options)
