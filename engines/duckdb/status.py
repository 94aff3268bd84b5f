"""What commands report of the warehouse: landed messages, dead letters and unlisted fields."""

from common.streams import STREAMS
from engines.duckdb.file import WarehouseFile
from engines.duckdb.tables import table_names
from engines.warehouse import StreamStatus, UnlistedField

# the mart of an earlier version of this project lacks the column, until it is built again
RECOVERED_AT = """
select 1 from duckdb_columns()
where schema_name = 'analytics' and table_name = 'dead_letters' and column_name = 'recovered_at'
"""


def stream_status(file: WarehouseFile) -> dict[str, StreamStatus]:
    nothing = {stream: StreamStatus(0, None, None) for stream in STREAMS}
    if not file.path.exists():
        return nothing
    with file.connection(read_only=True) as connection:
        tables = table_names(connection)
        built = bool(connection.execute(RECOVERED_AT).fetchall())
        streams = [stream for stream in STREAMS if ("raw", stream) in tables]
        if not streams:
            return nothing
        dead_letters = (
            dict(
                connection.sql(
                    "select stream, count(*) from analytics.dead_letters where recovered_at is null group by stream"
                ).fetchall()
            )
            if built
            else {}
        )
        union = " union all ".join(
            f"select '{stream}', count(*), max(landed_at) from raw.{stream}"  # noqa: S608  names of STREAMS
            for stream in streams
        )
        return nothing | {
            stream: StreamStatus(landed, newest, dead_letters.get(stream, 0) if built else None)
            for stream, landed, newest in connection.sql(union).fetchall()
        }


def unlisted_fields(file: WarehouseFile, stream: str) -> list[UnlistedField] | None:
    if not file.path.exists():
        return None
    with file.connection(read_only=True) as connection:
        if not {("analytics", "field_drift"), ("staging", f"stg_{stream}")} <= table_names(connection):
            return None
        staged = connection.sql(f"select exists (select 1 from staging.stg_{stream})")  # noqa: S608  a stream's name
        if not staged.fetchall()[0][0]:
            return None
        found = connection.execute(
            "select path, type, example, messages from analytics.field_drift"
            " where stream = $stream and problem = 'unlisted' order by messages desc, path, type",
            {"stream": stream},
        )
        return [UnlistedField(*row) for row in found.fetchall()]
