"""What dbt-bigquery asks of google.cloud.bigquery.Client, answered by GoogleSQL in memory."""

import csv
import io
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, BinaryIO

from google.api_core.exceptions import BadRequest, NotFound
from google.cloud.bigquery import DatasetReference, LoadJobConfig, SchemaField, TableReference
from google.cloud.bigquery import Table as BigQueryTable
from zetasql.wasi._pb2.zetasql.local_service import local_service_pb2 as service
from zetasql.wasi._pb2.zetasql.public import type_pb2

from tests.bigquery.googlesql import GoogleSQL, GoogleSQLError, Result, Table

STANDARD_TYPES = {
    type_pb2.TYPE_STRING: "STRING",
    type_pb2.TYPE_INT64: "INTEGER",
    type_pb2.TYPE_BOOL: "BOOLEAN",
    type_pb2.TYPE_DOUBLE: "FLOAT",
    type_pb2.TYPE_NUMERIC: "NUMERIC",
    type_pb2.TYPE_BIGNUMERIC: "BIGNUMERIC",
    type_pb2.TYPE_BYTES: "BYTES",
    type_pb2.TYPE_DATE: "DATE",
    type_pb2.TYPE_DATETIME: "DATETIME",
    type_pb2.TYPE_TIMESTAMP: "TIMESTAMP",
    type_pb2.TYPE_INTERVAL: "INTERVAL",
    type_pb2.TYPE_JSON: "JSON",
}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass
class Rows:
    schema: list[SchemaField]
    rows: list[dict[str, Any]]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)


@dataclass
class Job:
    """A finished query or load."""

    statement_type: str
    rows: Rows = field(default_factory=lambda: Rows([], []))
    destination: Any = None
    num_dml_affected_rows: int | None = None
    job_id: str = "job"
    project: str | None = None
    location: str | None = None
    total_bytes_processed: int = 0
    total_bytes_billed: int = 0
    slot_millis: int = 0
    state: str = "DONE"
    error_result: None = None

    def result(self, **options: Any) -> Any:
        return self if self.statement_type == "LOAD" else self.rows


class Client:
    """One project. Statements run one at a time: the analyzer lives in one thread's memory."""

    def __init__(self, project: str, sql: GoogleSQL) -> None:
        self.project = project
        self.sql = sql
        self.statements: list[str] = []
        """What was sent, in order."""
        self.failed: list[tuple[str, GoogleSQLError]] = []
        self._lock = threading.Lock()

    def query(self, query: str, job_config: Any = None, **options: Any) -> Job:
        with self._lock:
            self.statements.append(query)
            try:
                result = self.sql.run(query)
            except GoogleSQLError as error:
                self.failed.append((query, error))
                raise BadRequest(str(error), errors=[{"reason": "invalidQuery", "message": str(error)}]) from error
        return self._job(result)

    def _job(self, result: Result) -> Job:
        rows = list(python_rows(result))
        job = Job(result.kind, Rows(_schema(Table(result.columns)), rows))
        if result.kind == "SELECT":
            job.destination = SimpleNamespace(schema=job.rows.schema, num_rows=len(rows))
        elif result.kind == "CREATE_TABLE_AS_SELECT":
            job.destination = SimpleNamespace(schema=[], num_rows=result.affected)
        elif result.kind in ("INSERT", "MERGE", "DELETE", "UPDATE"):
            job.num_dml_affected_rows = result.affected
        return job

    def get_table(self, reference: Any) -> Any:
        if not isinstance(reference, TableReference):
            return reference  # the destination of a job
        name = f"{reference.project}.{reference.dataset_id}.{reference.table_id}"
        if name not in self.sql.tables:
            raise NotFound(f"Not found: Table {name}")
        return _bigquery_table(name, self.sql.tables[name])

    def list_tables(self, dataset: DatasetReference, **options: Any) -> list[Any]:
        prefix = f"{dataset.project}.{dataset.dataset_id}."
        with self._lock:
            return [_bigquery_table(name, table) for name, table in self.sql.tables.items() if name.startswith(prefix)]

    def list_datasets(self, **options: Any) -> list[Any]:
        with self._lock:
            datasets = dict.fromkeys(name.split(".")[1] for name in self.sql.tables)
        return [SimpleNamespace(dataset_id=dataset) for dataset in datasets]

    def delete_table(self, reference: TableReference, not_found_ok: bool = False) -> None:
        with self._lock:
            self.sql.drop(f"{reference.project}.{reference.dataset_id}.{reference.table_id}")

    def update_table(self, table: BigQueryTable, fields: list[str]) -> None:
        """Descriptions, of columns too."""

    def load_table_from_file(
        self, file: BinaryIO, reference: TableReference, job_config: LoadJobConfig, **options: Any
    ) -> Job:
        """A seed: a CSV with a header line, whose columns are of the job's types."""
        lines = list(csv.reader(io.TextIOWrapper(file, encoding="utf-8", newline="")))[1:]
        assert {column.field_type.upper() for column in job_config.schema} == {"STRING"}
        columns = {column.name: type_pb2.TypeProto(type_kind=type_pb2.TYPE_STRING) for column in job_config.schema}
        rows = [make_row(line) for line in lines]
        with self._lock:
            self.sql.tables[f"{reference.project}.{reference.dataset_id}.{reference.table_id}"] = Table(
                columns, rows=rows
            )
        return Job("LOAD")

    def close(self) -> None:
        """Nothing is open."""


def _bigquery_table(name: str, table: Table) -> BigQueryTable:
    made = BigQueryTable(name, schema=_schema(table))
    made._properties["type"] = "VIEW" if table.view else "TABLE"
    made._properties["numRows"] = str(len(table.rows))
    return made


def _schema(table: Table) -> list[SchemaField]:
    return [
        SchemaField(name, STANDARD_TYPES[type_.type_kind], mode="REQUIRED" if name in table.required else "NULLABLE")
        for name, type_ in table.columns.items()
    ]


def python_rows(result: Result) -> Iterator[dict[str, Any]]:
    """The rows of a query as google.cloud.bigquery gives them."""
    for row in result.rows:
        cells = zip(result.columns.items(), row.cell, strict=True)
        yield {name: python_value(type_.type_kind, cell) for (name, type_), cell in cells}


def python_value(kind: int, cell: Any) -> Any:
    if cell.WhichOneof("value") is None:
        return None
    match kind:
        case type_pb2.TYPE_TIMESTAMP:
            return EPOCH + timedelta(
                seconds=cell.timestamp_value.seconds, microseconds=cell.timestamp_value.nanos // 1000
            )
        case type_pb2.TYPE_DATE:
            return date(1970, 1, 1) + timedelta(days=cell.date_value)
        case type_pb2.TYPE_NUMERIC:
            return Decimal(int.from_bytes(cell.numeric_value, "little", signed=True)).scaleb(-9)
        case _:
            return getattr(cell, cell.WhichOneof("value"))


def make_row(values: Any) -> Any:
    """A row of a table from Python's values, of the types below; a datetime is UTC without a zone."""
    row = service.TableData.Row()
    for value in values:
        cell = row.cell.add()
        match value:
            case None:
                pass
            case str():
                cell.string_value = value
            case bytes():
                cell.bytes_value = value
            case bool():
                cell.bool_value = value
            case int():
                cell.int64_value = value
            case Decimal():
                billionths = int(value.scaleb(9))
                cell.numeric_value = billionths.to_bytes(billionths.bit_length() // 8 + 1, "little", signed=True)
            case datetime():
                since = value.replace(tzinfo=UTC) - EPOCH
                cell.timestamp_value.seconds = since.days * 86_400 + since.seconds
                cell.timestamp_value.nanos = since.microseconds * 1000
            case date():
                cell.date_value = (value - EPOCH.date()).days
            case _:
                raise TypeError(type(value))
    return row
