"""Results for `emit`: reads fct_page_views from a cursor on, and keeps the cursor of each topic."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from common.errors import UserError
from engines.bigquery.client import (
    JOB_PATIENCE_SECONDS,
    RETRY,
    Datasets,
    translate_google_errors,
    without_zone,
)
from engines.bigquery.tables import RawTables
from engines.warehouse import FIRST_CURSOR, Cursor, Result

# Saves the cursor only if the saved one is the one that this process read or saved last. A request that is repeated
# finds the cursor that it saved itself.
SAVE_EMIT_CURSOR = """
merge {raw}.emit_watermarks` as saved
using (select @topic as topic) as new
on saved.topic = new.topic
when matched and (
    (saved.session_landed_at = @known_landed_at and saved.session_id = @known_id
        and saved.sequence_number = @known_number)
    or (saved.session_landed_at = @session_landed_at and saved.session_id = @session_id
        and saved.sequence_number = @sequence_number)
) then update set
    session_landed_at = @session_landed_at, session_id = @session_id, sequence_number = @sequence_number
when not matched and @is_first then insert (topic, session_landed_at, session_id, sequence_number)
    values (@topic, @session_landed_at, @session_id, @sequence_number)
"""

# The second condition implies the first, which prunes partitions.
RESULTS_AFTER = """
from {analytics}.fct_page_views`
where time_on_page_seconds is not null
    and session_landed_at >= @session_landed_at
    and (
        session_landed_at > @session_landed_at
        or session_id > @session_id
        or (session_id = @session_id and sequence_number > @sequence_number)
    )
"""

RESULTS = f"""
select
    session_landed_at, session_id, sequence_number, source_session_id, page_title, event_at, time_on_page_seconds,
    session_started_at, window_end_at
{RESULTS_AFTER}
order by session_landed_at, session_id, sequence_number
"""


class BigQueryResults:
    """The results of one project: the part of BigQuerySink that is a ResultSource."""

    def __init__(self, datasets: Datasets, tables: RawTables) -> None:
        self._datasets = datasets
        self._tables = tables
        self._cursors: dict[str, Cursor | None] = {}
        """Topic to its cursor as last read or saved; None if none is saved."""

    @contextmanager
    def emitting(self) -> Iterator[None]:
        """BigQuery has no lock: of two commands that emit, one fails when it saves its cursor, at most a chunk
        later."""
        with translate_google_errors():
            self._require_mart()
        yield

    def emit_cursor(self, topic: str) -> Cursor:
        with translate_google_errors():
            rows: list[Any] = []
            if "emit_watermarks" in self._datasets.tables("raw"):
                rows = list(
                    self._datasets.query(
                        f"select {', '.join(Cursor._fields)} from `{self._datasets.prefix}raw.emit_watermarks`"  # noqa: S608  names of ours, DATASET_PREFIX checked
                        " where topic = @topic",
                        topic=topic,
                    )
                )
        saved = Cursor(*map(without_zone, rows[0])) if rows else None
        self._cursors[topic] = saved
        return saved or FIRST_CURSOR

    def save_emit_cursor(self, topic: str, cursor: Cursor) -> None:
        known = self._cursors.get(topic)
        with translate_google_errors():
            self._tables.create()
            job = self._datasets.query_job(
                SAVE_EMIT_CURSOR.format(raw=f"`{self._datasets.prefix}raw"),
                topic=topic,
                **cursor._asdict(),
                known_landed_at=(known or FIRST_CURSOR).session_landed_at,
                known_id=(known or FIRST_CURSOR).session_id,
                known_number=(known or FIRST_CURSOR).sequence_number,
                is_first=known is None,
            )
            job.result(retry=RETRY, timeout=JOB_PATIENCE_SECONDS)
            if not job.num_dml_affected_rows:
                raise UserError(
                    f"another `ingest emit` to {topic} is running on {self._datasets.prefix}analytics: let it finish,"
                    " then run this again"
                )
        self._cursors[topic] = cursor

    def count_results(self, after: Cursor) -> int:
        with translate_google_errors():
            self._require_mart()
            after_cursor = RESULTS_AFTER.format(analytics=f"`{self._datasets.prefix}analytics")
            [(count,)] = self._datasets.query(f"select count(*) {after_cursor}", **after._asdict())
        return int(count)

    def results(self, after: Cursor, chunk_rows: int) -> Iterator[list[Result]]:
        with translate_google_errors():
            self._require_mart()
            job = self._datasets.query_job(
                RESULTS.format(analytics=f"`{self._datasets.prefix}analytics"), **after._asdict()
            )
            # BigQuery keeps the result of a query for a day.
            pages = iter(job.result(page_size=chunk_rows, retry=RETRY, timeout=JOB_PATIENCE_SECONDS).pages)
        while True:
            with translate_google_errors():
                page = next(pages, None)
                chunk = None if page is None else [Result(*map(without_zone, row)) for row in page]
            if chunk is None:
                return
            if chunk:
                yield chunk

    def _require_mart(self) -> None:
        if "fct_page_views" not in self._datasets.tables("analytics"):
            raise UserError(f"{self._datasets.prefix}analytics has no fct_page_views yet: run `make build` first")
