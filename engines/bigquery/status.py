"""What `status` and `stream promote` show of the warehouse: landed messages, dead letters and unlisted fields."""

from common.streams import STREAMS
from engines.bigquery.client import Datasets, without_zone
from engines.warehouse import StreamStatus, UnlistedField


def stream_status(datasets: Datasets) -> dict[str, StreamStatus]:
    nothing = {stream: StreamStatus(0, None, None) for stream in STREAMS}
    tables = datasets.tables("raw")
    streams = [stream for stream in STREAMS if stream in tables]
    if not streams:
        return nothing
    built = "dead_letters" in datasets.tables("analytics")
    dead_letters = (
        f"select stream, count(*) as dead_letters from `{datasets.prefix}analytics.dead_letters`"  # noqa: S608  names of ours, DATASET_PREFIX checked
        " where recovered_at is null group by stream"
        if built
        else "select '' as stream, 0 as dead_letters"
    )
    union = " union all ".join(
        f"select '{stream}' as stream, count(*) as landed, max(landed_at) as newest from"  # noqa: S608  names of ours, DATASET_PREFIX checked
        f" `{datasets.prefix}raw.{stream}`"
        for stream in streams
    )
    rows = datasets.query(
        f"select raw.stream, landed, newest, ifnull(dead_letters, 0) from ({union}) as raw"  # noqa: S608  names of ours, DATASET_PREFIX checked
        f" left join ({dead_letters}) as rejected on rejected.stream = raw.stream"
    )
    return nothing | {
        stream: StreamStatus(landed, newest and without_zone(newest), rejected if built else None)
        for stream, landed, newest, rejected in rows
    }


def unlisted_fields(datasets: Datasets, stream: str) -> list[UnlistedField] | None:
    if "field_drift" not in datasets.tables("analytics") or f"stg_{stream}" not in datasets.tables("staging"):
        return None
    is_staged = f"select exists (select 1 from `{datasets.prefix}staging.stg_{stream}`)"  # noqa: S608  names of ours, DATASET_PREFIX checked
    if not next(iter(datasets.query(is_staged)))[0]:
        return None
    found = datasets.query(
        f"select path, type, example, messages from `{datasets.prefix}analytics.field_drift`"  # noqa: S608  names of ours, DATASET_PREFIX checked
        " where stream = @stream and problem = 'unlisted' order by messages desc, path, type",
        stream=stream,
    )
    return [UnlistedField(*row) for row in found]
