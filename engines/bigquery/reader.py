"""Answers from BigQuery, whose datasets need no copy."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.settings import Settings
from engines.query import Query, Value
from publishing.engines import bigquery_parameters
from publishing.versions import read_queries
from serve.answers import Answer, QueryTooLargeError, bind_limit, took_longer


class BigQueryPublished:
    """The queries as they were published, on the datasets as they are.

    Args:
        folder: the published version.
        client: a google.cloud.bigquery.Client.
        settings: the bounds of an answer.
    """

    def __init__(self, folder: Path, client: Any, settings: Settings) -> None:
        self.version = folder.name
        self.queries, self.left_out = read_queries(folder)
        self._client = client
        self._settings = settings

    def ask(self, query: Query, values: Mapping[str, Value], timeout_seconds: float | None = None) -> Answer:
        from google.api_core.exceptions import GoogleAPICallError
        from google.cloud.bigquery import QueryJobConfig
        from google.cloud.bigquery.retry import DEFAULT_RETRY

        from engines.bigquery.client import translate_google_errors

        if timeout_seconds is None:
            timeout_seconds = self._settings.serve_timeout_seconds
        bound, most = bind_limit(values, self._settings.serve_max_rows)
        max_bytes_billed = self._settings.serve_max_bytes_billed
        config = QueryJobConfig(
            query_parameters=bigquery_parameters(query, bound),
            maximum_bytes_billed=max_bytes_billed,
            job_timeout_ms=int(timeout_seconds * 1000),  # also if this process is killed
        )
        retry = DEFAULT_RETRY.with_timeout(timeout_seconds)
        started = time.perf_counter()
        with translate_google_errors():
            try:
                # by default the job would be tried again for ten minutes after `retry` gives up
                job = self._client.query(
                    query.sql, job_config=config, retry=retry, timeout=timeout_seconds, job_retry=None
                )
                try:
                    found = job.result(max_results=most + 1, retry=retry, timeout=timeout_seconds)
                    rows = [tuple(row.values()) for row in found]
                except TimeoutError as error:
                    job.cancel()
                    raise took_longer(timeout_seconds) from error
            except GoogleAPICallError as error:
                reasons = {detail.get("reason") for detail in error.errors if isinstance(detail, dict)}
                if "bytesBilledLimitExceeded" in reasons:
                    raise QueryTooLargeError(
                        f"the answer would read more than SERVE_MAX_BYTES_BILLED ({max_bytes_billed:,}): ask for less,"
                        " such as a shorter period"
                    ) from error
                if reasons & {"stopped", "timeout"}:  # by job_timeout_ms
                    raise took_longer(timeout_seconds) from error
                raise
        return Answer(rows[:most], len(rows) > most, time.perf_counter() - started, self.version)

    def close(self) -> None:
        self._client.close()
