"""Answers queries from the datasets of BigQuery, which need no copy."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Never

from common.errors import UserError
from common.settings import Settings
from engines.query import Query, Value
from engines.reader import QueryFailedError, QueryTooLargeError, took_longer

TYPES = {"string": "STRING", "integer": "INT64", "date": "DATE", "timestamp": "TIMESTAMP"}
"""BigQuery's type of each type of a parameter."""


class BigQueryReader:
    """The datasets as they are.

    Args:
        client: a google.cloud.bigquery.Client, which this closes.
        settings: the bounds of an answer.
    """

    def __init__(self, client: Any, settings: Settings) -> None:
        self._client = client
        self._settings = settings

    def describe(self, query: Query) -> list[tuple[str, str]]:
        """By a dry run, which is free."""
        from google.api_core.exceptions import BadRequest
        from google.cloud.bigquery import QueryJobConfig

        from engines.bigquery.client import translate_google_errors

        config = QueryJobConfig(dry_run=True, query_parameters=query_parameters(query, query.values({})))
        with translate_google_errors():
            try:
                schema = self._client.query(query.sql, job_config=config).schema
            except BadRequest as error:
                raise QueryFailedError(str(error).strip().partition("\n")[0]) from error
        return [(field.name, field.field_type) for field in schema]

    def rows(
        self, query: Query, values: Mapping[str, Value], max_rows: int, timeout_seconds: float
    ) -> list[tuple[Any, ...]]:
        from google.api_core.exceptions import GoogleAPICallError
        from google.cloud.bigquery import QueryJobConfig
        from google.cloud.bigquery.retry import DEFAULT_RETRY

        from engines.bigquery.client import translate_google_errors

        max_bytes_billed = self._settings.serve_max_bytes_billed
        config = QueryJobConfig(
            query_parameters=query_parameters(query, values),
            maximum_bytes_billed=max_bytes_billed,
            job_timeout_ms=int(timeout_seconds * 1000),  # also if this process is killed
        )
        retry = DEFAULT_RETRY.with_timeout(timeout_seconds)
        with translate_google_errors():
            try:
                # by default the job would be tried again for ten minutes after `retry` gives up
                job = self._client.query(
                    query.sql, job_config=config, retry=retry, timeout=timeout_seconds, job_retry=None
                )
                try:
                    found = job.result(max_results=max_rows, retry=retry, timeout=timeout_seconds)
                    return [tuple(row.values()) for row in found]
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

    def table(self, sql: str, values: Mapping[str, Value] | None = None, timeout_seconds: float | None = None) -> Never:
        raise UserError("SQL of your own runs on DuckDB only: on BigQuery, use its console or the command bq")

    def close(self) -> None:
        self._client.close()


def query_parameters(query: Query, values: Mapping[str, Value]) -> list[Any]:
    """ScalarQueryParameters of the types that the query declares."""
    from google.cloud.bigquery import ScalarQueryParameter

    return [
        ScalarQueryParameter(
            parameter.name,
            TYPES[parameter.type],
            value.replace(tzinfo=UTC) if isinstance(value := values[parameter.name], datetime) else value,
        )
        for parameter in query.parameters
    ]
