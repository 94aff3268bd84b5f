"""How each engine binds the parameters of a query and describes its answer, without running it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import duckdb

from common.errors import UserError
from common.settings import Settings
from engines.duckdb.sink import DuckDBSink
from engines.query import ColumnType, Query, Value

Described = Callable[[Query], list[tuple[str, str]]]
"""Returns name and the engine's type of each column of the answer."""

COLUMN_TYPES: dict[str, ColumnType] = {
    **dict.fromkeys(("varchar", "STRING"), "string"),
    **dict.fromkeys(("tinyint", "smallint", "integer", "bigint", "hugeint", "INTEGER", "INT64"), "integer"),
    **dict.fromkeys(("decimal", "float", "double", "NUMERIC", "BIGNUMERIC", "FLOAT", "FLOAT64"), "number"),
    **dict.fromkeys(("boolean", "BOOLEAN", "BOOL"), "boolean"),
    **dict.fromkeys(("date", "DATE"), "date"),
    **dict.fromkeys(("timestamp", "timestamp with time zone", "TIMESTAMP"), "timestamp"),
}


def describe(cursor: duckdb.DuckDBPyConnection, query: Query) -> list[tuple[str, str]]:
    """Name and DuckDB's type of each column of the answer; the query is planned, not run.

    Raises:
        duckdb.Error: when it cannot be planned.
    """
    described = cursor.execute(f"describe {query.sql}", query.values({})).fetchall()
    return [(name, type_.partition("(")[0].lower()) for name, type_, *_ in described]


def bigquery_parameters(query: Query, values: Mapping[str, Value]) -> list[Any]:
    """ScalarQueryParameters of the types that the query declares."""
    from google.cloud.bigquery import ScalarQueryParameter

    types = {"string": "STRING", "integer": "INT64", "date": "DATE", "timestamp": "TIMESTAMP"}
    return [
        ScalarQueryParameter(
            parameter.name,
            types[parameter.type],
            value.replace(tzinfo=UTC) if isinstance(value := values[parameter.name], datetime) else value,
        )
        for parameter in query.parameters
    ]


@contextmanager
def describing(settings: Settings, sink: DuckDBSink | None) -> Iterator[Described]:
    """Yields what describes an answer: DuckDB plans the query, BigQuery does a dry run."""
    if sink is not None:
        with sink.connection() as connection, connection.cursor() as cursor:
            yield lambda query: describe(cursor, query)
        return

    from google.api_core.exceptions import BadRequest
    from google.cloud.bigquery import QueryJobConfig

    from engines.bigquery.client import open_client, translate_google_errors

    with translate_google_errors(), open_client(settings) as client:

        def by_bigquery(query: Query) -> list[tuple[str, str]]:
            config = QueryJobConfig(dry_run=True, query_parameters=bigquery_parameters(query, query.values({})))
            try:
                schema = client.query(query.sql, job_config=config).schema
            except BadRequest as error:
                raise UserError(str(error)) from error
            return [(field.name, field.field_type) for field in schema]

        yield by_bigquery
