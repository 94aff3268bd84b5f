"""Load jobs of BigQuery, with ids of our own: a load that is repeated finds its first job instead of loading twice."""

import hashlib
import io
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from google.api_core import exceptions as api
from google.cloud import bigquery

from common.errors import UnavailableError, UserError
from engines.bigquery.client import (
    ANSWER_SECONDS,
    CALL,
    JOB_PATIENCE_SECONDS,
    TRANSIENT_REASONS,
    Datasets,
    first_line,
)

JOB_TIMEOUT_SECONDS = 600
"""After which BigQuery ends a load. Less than the var landing_hold_minutes (15): a build has passed older rows."""
POLL_SECONDS = 0.5


class LoadJobs:
    """Starts load jobs and waits for them. The id of a job is the name of its load and the number of the attempt."""

    def __init__(self, datasets: Datasets) -> None:
        self._datasets = datasets
        self._failed: Counter[str] = Counter()
        """Name of a load to how many of its jobs are known to have failed."""

    def load_name(self, stream: str, created_at: str, identity: Any) -> str:
        """The name of the load into the stream's raw table that `identity`, a JSON value, describes.

        Args:
            created_at: of the raw table: loads into a table that was dropped are not loads into its successor.
        """
        digest = hashlib.sha256(orjson.dumps([created_at, identity])).hexdigest()
        return f"landing_{self._datasets.prefix.rpartition('.')[2]}raw_{stream}_{digest[:40]}"

    def start(self, name: str, table: str, rows: pa.Table) -> Any:
        """Start the job that appends the rows to a table of the dataset raw; None if its id is taken."""
        file = io.BytesIO()
        pq.write_table(rows, file, compression="zstd")
        file.seek(0)
        try:
            return self._datasets.client.load_table_from_file(
                file,
                f"{self._datasets.prefix}raw.{table}",
                job_id=self._job_id(name),
                job_config=bigquery.LoadJobConfig(
                    source_format=bigquery.SourceFormat.PARQUET,
                    write_disposition=bigquery.WriteDisposition.WRITE_APPEND,
                    create_disposition=bigquery.CreateDisposition.CREATE_NEVER,
                    job_timeout_ms=JOB_TIMEOUT_SECONDS * 1000,
                ),
                timeout=ANSWER_SECONDS,
            )
        except api.Conflict:
            return None

    def finish(self, job: Any, name: str) -> None:
        """Wait for the end of a job that this loader started.

        Raises:
            UserError: when it failed; the next attempt has another id.
        """
        if error := wait_for(job):
            self._failed[name] += 1
            raise load_error(error)
        self._failed.pop(name, None)

    def has_failed(self, name: str) -> bool:
        """Wait for the job that has the id of this load, which another loader or an earlier run started."""
        return wait_for(self._datasets.client.get_job(self._job_id(name), **CALL)) is not None

    def use_next_id(self, name: str) -> None:
        self._failed[name] += 1

    def _job_id(self, name: str) -> str:
        return f"{name}_{self._failed[name]}"


def wait_for(job: Any) -> Mapping[str, str] | None:
    """Wait for the end of a job; returns BigQuery's error, with `reason` and `message`, or None."""
    until = time.monotonic() + JOB_PATIENCE_SECONDS
    while not job.done(**CALL):
        if time.monotonic() >= until:
            raise UnavailableError(
                f"BigQuery: the load job {job.job_id} has not ended for {JOB_PATIENCE_SECONDS:.0f} s; nothing is lost,"
                " run this again"
            )
        time.sleep(POLL_SECONDS)
    error: Mapping[str, str] | None = job.error_result
    return error


def load_error(error: Mapping[str, str]) -> UserError:
    kind = UnavailableError if error.get("reason") in TRANSIENT_REASONS else UserError
    return kind(f"BigQuery could not load: {first_line(error.get('message', 'no reason given'))}")
