"""The tables of the schema raw."""

from collections.abc import Iterable

import duckdb
import pyarrow as pa
from pydantic import SecretStr

from common.streams import STREAMS
from engines.batch import DECODED_SCHEMA
from engines.pseudonyms import pads

RAW_TABLE = """
create table if not exists raw.{stream} (
    stream varchar not null,
    source varchar not null,
    topic varchar not null,
    "partition" integer,
    "offset" bigint,
    message_id varchar not null,
    key blob,
    attributes varchar,
    published_at timestamp,
    landed_at timestamp not null,
    payload blob{compression}{decoded}
)
"""
DECODED_TYPES = {pa.int64(): "bigint", pa.binary(): "blob", pa.string(): "varchar"}
ZSTD = " using compression zstd"
"""Half the size of what DuckDB would choose, for less work. Files of DuckDB 1.1 and older do not have it."""

PSEUDONYM_KEY = "create table if not exists raw.pseudonym_key (inner_pad blob not null, outer_pad blob not null)"

# Pub/Sub has no offsets: next_offset counts the messages that were landed from a topic.
LANDING_OFFSETS = """
create table if not exists raw.landing_offsets (
    source varchar, topic varchar, topic_id varchar, "partition" integer, next_offset bigint not null,
    primary key (source, topic, topic_id, "partition")
)
"""

OTHER_TABLES = ("landing_offsets", "pseudonym_key")
"""Tables that landing needs besides the raw tables of the streams."""


def table_names(connection: duckdb.DuckDBPyConnection) -> set[tuple[str, str]]:
    """(schema, name) of all tables and views."""
    return set(connection.execute("select table_schema, table_name from information_schema.tables").fetchall())


def create_tables(
    connection: duckdb.DuckDBPyConnection, decoded: Iterable[str], pseudonym_key: SecretStr | None, *, has_zstd: bool
) -> None:
    """Create the tables that are missing.

    Args:
        decoded: streams whose raw tables get the columns of decoded messages, which those of an earlier version lack.
            To check the tables of all streams takes longer than a small commit.
        pseudonym_key: of a new warehouse; None takes a random one.
        has_zstd: whether the file can compress by ZSTD.
    """
    compression = ZSTD if has_zstd else ""
    columns = [
        f"{field.name} {DECODED_TYPES[field.type]}{compression if field.name == 'decoded' else ''}"
        for field in DECODED_SCHEMA
    ]
    connection.execute("create schema if not exists raw")
    for stream in STREAMS:
        more = "".join(f",\n    {column}" for column in columns)
        connection.execute(RAW_TABLE.format(stream=stream, compression=compression, decoded=more))
    for stream in decoded:
        for column in columns:
            connection.execute(f"alter table raw.{STREAMS[stream].name} add column if not exists {column}")
    connection.execute(LANDING_OFFSETS)
    connection.execute(PSEUDONYM_KEY)
    connection.execute(
        "insert into raw.pseudonym_key select ?, ? where not exists (from raw.pseudonym_key)",
        pads(pseudonym_key),
    )
