"""Every analysis, compiled for BigQuery, is read by Google's analyzer with its declared parameters, and its reference
implementation gives on the same rows what DuckDB does."""

import json
import os
from datetime import datetime
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pytest
from zetasql.wasi._pb2.zetasql.public import type_pb2

from publishing.compile import compile_questions
from publishing.questions import ParameterType, Question
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
def questions(
    warehouse: Warehouse, google_sql: GoogleSQL, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Question]:
    """Compiled for BigQuery, where the tables that they name have DuckDB's rows."""
    client = Client(PROJECT, google_sql)
    google_sql.tables.clear()
    work = tmp_path_factory.mktemp("bigquery")
    options = [
        *("--project-dir", str(ROOT / "dbt_project"), "--profiles-dir", str(ROOT / "dbt_project")),
        *("--target-path", str(work / "target"), "--log-path", str(work / "logs")),
        *("--vars", json.dumps(SETTINGS.as_vars())),
    ]

    def described(question: Question) -> list[tuple[str, str]]:
        return [(column.name, "varchar") for column in warehouse.question(question.name).columns]

    with (
        patch.dict(os.environ, {"WAREHOUSE": "bigquery", "GCP_PROJECT": PROJECT, "DATASET_PREFIX": ""}),
        patch("dbt.adapters.bigquery.connections.create_bigquery_client", lambda credentials: client),
    ):
        found = {question.name: question for question in compile_questions(options, described)}
    for question in found.values():
        for project, dataset, name in TABLE_NAME.findall(question.sql):
            if f"{project}.{dataset}.{name}" not in google_sql.tables:
                rows = warehouse.table(f"{dataset}.{name}")
                kinds = {field.name: kind(field.type) for field in rows.schema}
                found_rows = rows.to_pylist()
                if "properties" in kinds:  # DuckDB hands JSON over as text
                    kinds["properties"] = type_pb2.TYPE_JSON
                    for row in found_rows:
                        row["properties"] = row["properties"] and Json(row["properties"])
                google_sql.tables[f"{project}.{dataset}.{name}"] = Table(
                    {column: type_pb2.TypeProto(type_kind=one) for column, one in kinds.items()},
                    rows=[make_row(row.values()) for row in found_rows],
                )
    return found


def ask(google_sql: GoogleSQL, question: Question, arguments: dict[str, str]) -> list[dict[str, Any]]:
    values = question.values(arguments)
    parameters = {
        one.name: (type_pb2.TypeProto(type_kind=PARAMETER_KINDS[one.type]), make_row([values[one.name]]).cell[0])
        for one in question.parameters
    }
    return list(python_rows(google_sql.run(question.sql, parameters)))


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_is_that_of_duckdb(
    warehouse: Warehouse, questions: dict[str, Question], google_sql: GoogleSQL, name: str
) -> None:
    question = questions[name]
    for arguments in arguments_of(question):
        rows = ask(google_sql, question, arguments)
        assert list(rows[0]) == [column.name for column in warehouse.question(name).columns]
        assert [tuple(map(_without_zone, row.values())) for row in rows] == warehouse.ask(name, arguments), arguments


def test_a_parameter_that_is_not_declared_is_refused(questions: dict[str, Question], google_sql: GoogleSQL) -> None:
    with pytest.raises(GoogleSQLError, match="Query parameter 'start_date' not found"):
        google_sql.run(questions["daily_kpis"].sql)


def _without_zone(value: Any) -> Any:
    return value.replace(tzinfo=None) if isinstance(value, datetime) else value
