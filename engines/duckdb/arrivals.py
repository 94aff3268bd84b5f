"""When messages were published and landed, and the mart that keeps how fresh the answers were."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import duckdb

from common.streams import STREAMS
from engines.recovery import RECOVER
from engines.warehouse import Arrivals, FreshnessRow

KEPT_DAYS = 7
"""Days of stream_freshness that are kept."""


def read_arrivals(
    connection: duckdb.DuckDBPyConnection, after: Mapping[str, datetime], upto: Mapping[str, datetime]
) -> dict[str, Arrivals]:
    """See `Engine.arrivals`."""
    found: dict[str, Arrivals] = {}
    for stream, bound in upto.items():
        columns = connection.execute(
            f"""
            select epoch_us(published_at) / 1e6 as published_at, epoch_us(landed_at) / 1e6 as landed_at
            from raw.{STREAMS[stream].name}
            where landed_at > $after and landed_at <= $upto and published_at is not null
                and source != '{RECOVER}'
            """,  # noqa: S608  names of STREAMS
            {"after": after[stream], "upto": bound},
        ).fetchnumpy()
        if len(columns["published_at"]):
            found[stream] = (columns["published_at"], columns["landed_at"])
    return found


def save_freshness(connection: duckdb.DuckDBPyConnection, rows: Sequence[FreshnessRow]) -> None:
    """See `Engine.save_freshness`."""
    names = FreshnessRow._fields
    connection.execute("begin")
    connection.executemany(
        f"insert into analytics.stream_freshness ({', '.join(names)}) values ({', '.join('?' for _ in names)})",  # noqa: S608  names of ours
        [list(row) for row in rows],
    )
    is_old = "minute_at < $newest - to_days($days)"
    period = {"newest": max(row.minute_at for row in rows), "days": KEPT_DAYS}
    # so that publishing knows which days change: later than every pin, as the dbt project's change_time
    connection.execute(
        f"""
        insert into intermediate.touched_partitions (model, partition_date, recorded_at)
        select
            'stream_freshness',
            cast(minute_at as date),
            greatest(
                timezone('UTC', now()), (select max(recorded_at) + interval 1 microsecond from intermediate.pins)
            )
        from analytics.stream_freshness
        where minute_at >= $first or {is_old}
        group by 2
        """,  # noqa: S608  a constant
        {"first": min(row.minute_at for row in rows), **period},
    )
    connection.execute(f"delete from analytics.stream_freshness where {is_old}", period)  # noqa: S608  a constant
    connection.execute("commit")
