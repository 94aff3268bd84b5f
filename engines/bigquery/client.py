"""The BigQuery client of a project: timeouts, retries, and Google's errors as ours."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import requests
from google.api_core import exceptions as api
from google.auth import exceptions as auth
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery
from google.cloud.bigquery import ScalarQueryParameter
from google.cloud.bigquery.retry import DEFAULT_RETRY
from google.cloud.bigquery_storage_v1 import BigQueryWriteClient
from google.resumable_media.common import DataCorruption

from common.errors import UnavailableError, UserError
from common.settings import Settings
from engines.bigquery.write_stream import open_write_client

ANSWER_SECONDS = 60.0
"""How long a request is retried before BigQuery counts as unavailable."""
JOB_PATIENCE_SECONDS = 900.0
"""How long to wait for the end of a job."""
RETRY = DEFAULT_RETRY.with_timeout(ANSWER_SECONDS)
CALL: Mapping[str, Any] = {"retry": RETRY, "timeout": ANSWER_SECONDS / 2}
"""Options of a request. By default the client waits forever for an answer on a dead connection."""
TRANSIENT_REASONS = frozenset(
    {"backendError", "internalError", "jobBackendError", "jobInternalError", "quotaExceeded", "rateLimitExceeded"}
    | {"stopped", "timeout", "tableUnavailable"}
)
"""Reasons of errors after which a retry may succeed."""


class Datasets:
    """The datasets <prefix>raw, <prefix>staging and <prefix>analytics of one project.

    Raises:
        UserError: without credentials.
    """

    def __init__(self, settings: Settings) -> None:
        self.prefix = f"{settings.gcp_project}.{settings.dataset_prefix}"
        """Comes before the name of a dataset: f"{prefix}raw.users" is a table."""
        self.location = settings.gcp_location
        self.client = open_client(settings)
        self._emulator = settings.bigquery_emulator_host

    @cached_property
    def write_client(self) -> BigQueryWriteClient:
        return open_write_client(self._emulator)

    def tables(self, dataset: str) -> dict[str, str]:
        """Name of each table and view of the dataset to its creation time; empty if there is no such dataset."""
        try:
            tables = list(self.client.list_tables(f"{self.prefix}{dataset}", **CALL))
        except api.NotFound:
            return {}
        return {table.table_id: table.created.isoformat() for table in tables}

    def query(self, sql: str, **parameters: Any) -> Iterator[tuple[Any, ...]]:
        rows = self.query_job(sql, **parameters).result(retry=RETRY, timeout=JOB_PATIENCE_SECONDS)
        return (row.values() for row in rows)

    def query_job(self, sql: str, **parameters: Any) -> Any:
        """The google.cloud.bigquery.QueryJob of a statement with these named parameters."""
        kinds = {str: "STRING", int: "INT64", bool: "BOOL", datetime: "TIMESTAMP"}
        config = bigquery.QueryJobConfig(
            use_query_cache=False,
            query_parameters=[
                ScalarQueryParameter(
                    name, kinds[type(value)], value.replace(tzinfo=UTC) if isinstance(value, datetime) else value
                )
                for name, value in parameters.items()
            ],
        )
        return self.client.query(sql, job_config=config, job_retry=None, **CALL)


def open_client(settings: Settings) -> Any:
    """A google.cloud.bigquery.Client of the project, or of the emulator.

    Raises:
        UserError: without credentials.
    """
    emulator = settings.bigquery_emulator_host
    with translate_google_errors():
        return bigquery.Client(
            project=settings.gcp_project,
            location=settings.gcp_location,
            credentials=AnonymousCredentials() if emulator else None,
            client_options={"api_endpoint": emulator} if emulator else None,
        )


@contextmanager
def translate_google_errors() -> Iterator[None]:
    """Raises errors of Google's client as UserError or UnavailableError."""
    try:
        yield
    except auth.DefaultCredentialsError as error:
        raise UserError(
            "no Google Cloud credentials: run `gcloud auth application-default login`, or set"
            " GOOGLE_APPLICATION_CREDENTIALS"
        ) from error
    except auth.RefreshError as error:
        raise UserError(
            f"Google Cloud credentials expired or were revoked ({first_line(error)}): run"
            " `gcloud auth application-default login`"
        ) from error
    except (
        api.RetryError,
        api.ServerError,
        api.TooManyRequests,
        api.Aborted,
        api.Cancelled,
        auth.TransportError,
        requests.RequestException,
        ConnectionError,
        TimeoutError,
        DataCorruption,
    ) as error:
        raise UnavailableError(f"BigQuery does not answer: {first_line(error)}") from error
    except api.GoogleAPICallError as error:
        reasons = {detail.get("reason") for detail in error.errors if isinstance(detail, dict)}
        kind = UnavailableError if reasons & TRANSIENT_REASONS else UserError
        raise kind(f"BigQuery refuses: {first_line(error)}; see GCP_PROJECT and DATASET_PREFIX") from error


def first_line(error: object) -> str:
    return str(error).strip().partition("\n")[0]


def without_zone(value: Any) -> Any:
    """Times as UTC without a zone, as everywhere in the warehouse; other values as they are."""
    return value.replace(tzinfo=None) if isinstance(value, datetime) else value
