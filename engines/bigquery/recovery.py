"""Reads dead letters of BigQuery, and lands messages again.

Recovered messages have no offsets. Instead their loads into a table form a chain: the id of each is made of the number
of recovered messages before it. So of all commands that have read the same number, one gets the job; the others wait
for it, see what it landed, and land what is left (docs/architecture.md#landing-in-bigquery).
"""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from common.errors import UserError
from common.streams import STREAMS
from engines.batch import Batch
from engines.bigquery.client import JOB_PATIENCE_SECONDS, RETRY, Datasets, translate_google_errors, without_zone
from engines.bigquery.load_jobs import LoadJobs
from engines.bigquery.rows import LandingClock, distinct_rows, raw_rows
from engines.bigquery.tables import RawTables
from engines.recovery import RECOVER, REJECTED_SCHEMA, OpenDeadLetters, recovered_id

PAGE_ROWS = 2_000
"""Messages in memory at a time while they are read."""


def read_rejected(datasets: Datasets, letters: OpenDeadLetters) -> Iterator[pa.Table]:
    """See `Sink.rejected`."""
    stream = STREAMS[letters.stream].name
    with translate_google_errors():
        if "dead_letters" not in datasets.tables("analytics"):
            raise UserError(f"{datasets.prefix}analytics has no dead letters yet: run `make build` first")
        known = {*_recovered_ids(datasets, stream)}
        # BigQuery keeps the result of a query for a day.
        job = datasets.query_job(_rejected_sql(datasets, letters), **_bounds(letters))
        pages = iter(job.result(page_size=PAGE_ROWS, retry=RETRY, timeout=JOB_PATIENCE_SECONDS).pages)
    while True:
        with translate_google_errors():
            page = next(pages, None)
            rows = [
                dict(zip(REJECTED_SCHEMA.names, map(without_zone, row.values()), strict=True)) for row in page or ()
            ]
        if page is None:
            return
        rows = [row for row in rows if recovered_id(row["landed_at"], row["message_id"]) not in known]
        if rows:
            yield pa.Table.from_pylist(rows, REJECTED_SCHEMA)


def land_again(
    datasets: Datasets, tables: RawTables, jobs: LoadJobs, clock: LandingClock, stream: str, rows: pa.Table
) -> int:
    """Land the messages that are not in the raw table yet; returns their number. See `Sink.land_again`."""
    tables.check({stream})
    while True:
        known = _recovered_ids(datasets, stream)
        is_known = pc.is_in(rows["message_id"], pa.array(known, pa.string()))
        new = rows.filter(pc.invert(is_known))
        if not new.num_rows:
            return 0
        name = jobs.load_name(stream, tables.created_at[stream], [RECOVER, len(known)])
        loaded = raw_rows(distinct_rows([(new, Batch({}))]), stream, clock.now(stream))
        job = jobs.start(name, stream, loaded)
        if job is not None:
            jobs.finish(job, name)
            return int(new.num_rows)
        # the job of another command, or of one that was killed; if it failed or its rows were deleted, its id is spent
        if jobs.has_failed(name) or len(_recovered_ids(datasets, stream)) == len(known):
            jobs.use_next_id(name)


def _recovered_ids(datasets: Datasets, stream: str) -> list[str]:
    """The ids of all recovered messages of a stream."""
    rows = datasets.query(
        f"select message_id from `{datasets.prefix}raw.{stream}` where source = @source",  # noqa: S608  names of ours, DATASET_PREFIX checked
        source=RECOVER,
    )
    return [message_id for (message_id,) in rows]


def _rejected_sql(datasets: Datasets, letters: OpenDeadLetters) -> str:
    columns = [f"message.`{name}`" for name in REJECTED_SCHEMA.names if name != "reject_reason"]
    conditions = ["letters.stream = @stream"]
    conditions += ["letters.reason = @reason"] if letters.reason is not None else []
    # on both tables, so that BigQuery skips partitions of both
    for name, operator in (("since", ">="), ("until", "<")):
        if getattr(letters, name) is not None:
            conditions += [f"{table}.landed_at {operator} @{name}" for table in ("letters", "message")]
    return (
        f"select {', '.join(columns)}, letters.reason"  # noqa: S608  names of ours, DATASET_PREFIX checked
        f" from `{datasets.prefix}analytics.dead_letters` as letters"
        f" inner join `{datasets.prefix}raw.{letters.stream}` as message"
        " on letters.message_id = message.message_id and letters.landed_at = message.landed_at"
        f" where {' and '.join(conditions)}"
        " order by letters.landed_at, message.`partition`, message.`offset`, letters.message_id"
    )


def _bounds(letters: OpenDeadLetters) -> dict[str, Any]:
    given = {"stream": letters.stream, "reason": letters.reason, "since": letters.since, "until": letters.until}
    return {name: value for name, value in given.items() if value is not None}
