"""Google's analyzer accepts every query with its parameters, and gives the answer of DuckDB on the same rows."""

import json
import os
from datetime import datetime
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pytest
from zetasql.wasi._pb2.zetasql.public import type_pb2

from engines.query import ParameterType, Query
from publishing.compile import compile_queries
from tests.analyses.arguments import arguments_of
from tests.analyses.test_answers import NAMES
from tests.analyses.warehouse import SETTINGS, Warehouse, build, opened
from tests.conftest import Shared
from tools import ROOT
from tools.googlesql.client import Client, Json, make_row, python_rows
from tools.googlesql.engine import GoogleSQL, GoogleSQLError, Table
from tools.googlesql.trees import TABLE_NAME
from tools.warehouses.bigquery import PROJECT

pytestmark = [pytest.mark.bigquery, pytest.mark.timeout(1800)]

PARAMETER_KINDS: dict[ParameterType, int] = {
    "string": type_pb2.TYPE_STRING,
    "integer": type_pb2.TYPE_INT64,
    "date": type_pb2.TYPE_DATE,
    "timestamp": type_pb2.TYPE_TIMESTAMP,
}


def kind(type_: pa.DataType) -> int:
    if pa.types.is_decimal(type_):
        return type_pb2.TYPE_NUMERIC
    kinds = {
        pa.string(): type_pb2.TYPE_STRING,
        pa.int64(): type_pb2.TYPE_INT64,
        pa.bool_(): type_pb2.TYPE_BOOL,
        pa.date32(): type_pb2.TYPE_DATE,
        pa.timestamp("us"): type_pb2.TYPE_TIMESTAMP,
        pa.binary(): type_pb2.TYPE_BYTES,
    }
    return kinds[type_]


@pytest.fixture(scope="module")
def warehouse(shared: Shared) -> Warehouse:
    return opened(shared("analyses", build))


@pytest.fixture(scope="module")
def queries(warehouse: Warehouse, google_sql: GoogleSQL, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Query]:
    """The queries compiled for BigQuery, with DuckDB's rows in the tables that they read."""
    client = Client(PROJECT, google_sql)
    google_sql.tables.clear()
    work = tmp_path_factory.mktemp("bigquery")
    options = [
        *("--project-dir", str(ROOT / "dbt_project"), "--profiles-dir", str(ROOT / "dbt_project")),
        *("--target-path", str(work / "target"), "--log-path", str(work / "logs")),
        *("--vars", json.dumps(SETTINGS.as_vars())),
    ]

    def described(query: Query) -> list[tuple[str, str]]:
        return [(column.name, "varchar") for column in warehouse.published_query(query.name).columns]

    with (
        patch.dict(os.environ, {"WAREHOUSE": "bigquery", "GCP_PROJECT": PROJECT, "DATASET_PREFIX": ""}),
        patch("dbt.adapters.bigquery.connections.create_bigquery_client", lambda credentials: client),
    ):
        found = {query.name: query for query in compile_queries(options, described)}
    for query in found.values():
        for project, dataset, name in TABLE_NAME.findall(query.sql):
            if f"{project}.{dataset}.{name}" not in google_sql.tables:
                rows = warehouse.table(f"{dataset}.{name}")
                kinds = {field.name: kind(field.type) for field in rows.schema}
                found_rows = rows.to_pylist()
                if "properties" in kinds:  # DuckDB returns JSON as text
                    kinds["properties"] = type_pb2.TYPE_JSON
                    for row in found_rows:
                        row["properties"] = row["properties"] and Json(row["properties"])
                google_sql.tables[f"{project}.{dataset}.{name}"] = Table(
                    {column: type_pb2.TypeProto(type_kind=one) for column, one in kinds.items()},
                    rows=[make_row(row.values()) for row in found_rows],
                )
    return found


def answer(google_sql: GoogleSQL, query: Query, arguments: dict[str, str]) -> list[dict[str, Any]]:
    values = query.values(arguments)
    parameters = {
        one.name: (type_pb2.TypeProto(type_kind=PARAMETER_KINDS[one.type]), make_row([values[one.name]]).cell[0])
        for one in query.parameters
    }
    return list(python_rows(google_sql.run(query.sql, parameters)))


@pytest.mark.parametrize("name", NAMES)
def test_bigquery_gives_the_answer_of_duckdb(
    warehouse: Warehouse, queries: dict[str, Query], google_sql: GoogleSQL, name: str
) -> None:
    query = queries[name]
    for arguments in arguments_of(query):
        rows = answer(google_sql, query, arguments)
        assert list(rows[0]) == [column.name for column in warehouse.published_query(name).columns]
        assert [tuple(map(_without_zone, row.values())) for row in rows] == warehouse.ask(name, arguments), arguments


def test_an_undeclared_parameter_is_rejected(queries: dict[str, Query], google_sql: GoogleSQL) -> None:
    with pytest.raises(GoogleSQLError, match="Query parameter 'start_date' not found"):
        google_sql.run(queries["daily_kpis"].sql)


def _without_zone(value: Any) -> Any:
    return value.replace(tzinfo=None) if isinstance(value, datetime) else value
