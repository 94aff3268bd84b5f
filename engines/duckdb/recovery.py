"""Reads dead letters of a DuckDB file, and lands messages again."""

from collections.abc import Iterator
from datetime import datetime

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from common.errors import UserError
from common.streams import STREAMS
from engines.duckdb.file import WarehouseFile
from engines.duckdb.results import write_rows
from engines.duckdb.status import RECOVERED_AT
from engines.duckdb.tables import table_names
from engines.recovery import RECOVER, OpenDeadLetters, in_rejected_schema

# recovered_id in SQL
IS_RECOVERED = f"""
exists (
    select 1 from raw.{{stream}} as recovered
    where recovered.source = '{RECOVER}'
        and recovered.message_id
        = '{RECOVER}/' || strftime(letters.landed_at, '%Y-%m-%dT%H:%M:%S.%f') || '/' || letters.message_id
)
"""  # noqa: S608  names of ours

# in the order of landing, which that of a log's offsets is a part of
REJECTED = f"""
select message.*, letters.reason as reject_reason
from analytics.dead_letters as letters
inner join raw.{{stream}} as message
    on letters.message_id = message.message_id and letters.landed_at = message.landed_at
where letters.stream = $stream and letters.recovered_at is null
    and letters.reason = coalesce(cast($reason as varchar), letters.reason)
    and letters.landed_at >= coalesce(cast($since as timestamp), letters.landed_at)
    and (cast($until as timestamp) is null or letters.landed_at < cast($until as timestamp))
    and not {IS_RECOVERED}
order by letters.landed_at, message."partition", message."offset", letters.message_id
"""  # noqa: S608  names of ours

LAND_AGAIN = f"""
insert into raw.{{stream}} by name
select '{{stream}}' as stream, again.*, cast($landed_at as timestamp) as landed_at
from again
where not exists (
    select 1 from raw.{{stream}} as recovered
    where recovered.source = '{RECOVER}' and recovered.message_id = again.message_id
)
"""  # noqa: S608  names of ours

CHUNK_ROWS = 2_000
"""Messages in memory at a time while they are written to a temporary file, and read from it."""


def read_rejected(file: WarehouseFile, letters: OpenDeadLetters) -> Iterator[pa.Table]:
    """See `Sink.rejected`."""
    if not file.path.exists():
        raise _not_built(file)
    with file.connection(read_only=True) as connection:
        if ("raw", letters.stream) not in table_names(connection) or not connection.execute(RECOVERED_AT).fetchall():
            raise _not_built(file)
        rows = write_rows(
            connection,
            REJECTED.format(stream=STREAMS[letters.stream].name),
            {"stream": letters.stream, "reason": letters.reason, "since": letters.since, "until": letters.until},
            CHUNK_ROWS,
        )
    with rows:
        for batch in pq.ParquetFile(rows).iter_batches(CHUNK_ROWS):
            yield in_rejected_schema(pa.Table.from_batches([batch]))


def insert_again(connection: duckdb.DuckDBPyConnection, stream: str, rows: pa.Table, landed_at: datetime) -> int:
    """Insert the messages that are not in the raw table yet, in an open transaction; returns their number."""
    connection.register("again", rows)
    insert = LAND_AGAIN.format(stream=STREAMS[stream].name)
    inserted: int = connection.execute(insert, {"landed_at": landed_at}).fetchall()[0][0]
    return inserted


def _not_built(file: WarehouseFile) -> UserError:
    return UserError(f"the warehouse {file.path} has no dead letters yet: run `make build` first")
