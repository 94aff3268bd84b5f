"""A stand-in for google.cloud.bigquery.Client that runs on GoogleSQL in memory.

It has the methods that dbt-bigquery and BigQuerySink use.
"""

import csv
import io
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from types import SimpleNamespace
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from google.api_core.exceptions import BadRequest, Conflict, NotFound
from google.cloud.bigquery import (
    Dataset,
    DatasetReference,
    LoadJobConfig,
    SchemaField,
    SourceFormat,
    TableReference,
    WriteDisposition,
)
from google.cloud.bigquery import Table as BigQueryTable
from zetasql.wasi._pb2.zetasql.local_service import local_service_pb2 as service
from zetasql.wasi._pb2.zetasql.public import type_pb2

from tools.googlesql.engine import GoogleSQL, GoogleSQLError, Result, Table

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
KINDS = {name: kind for kind, name in STANDARD_TYPES.items()}
PARQUET_TYPES = {
    pa.string(): type_pb2.TYPE_STRING,
    pa.int32(): type_pb2.TYPE_INT64,
    pa.int64(): type_pb2.TYPE_INT64,
    pa.binary(): type_pb2.TYPE_BYTES,
    pa.timestamp("us"): type_pb2.TYPE_DATETIME,
    pa.timestamp("us", "UTC"): type_pb2.TYPE_TIMESTAMP,
}
"""Type of a Parquet column to BigQuery's type when it loads the file."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass
class Rows:
    schema: list[SchemaField]
    rows: list[dict[str, Any]]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)


@dataclass
class Job:
    """A finished query, or a load."""

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
    load: Callable[[], None] | None = None
    """Runs when someone first waits for the job, which is pending until then."""

    def done(self, **options: Any) -> bool:
        load, self.load = self.load, None
        if load:
            load()
        return True

    def result(self, **options: Any) -> Any:
        self.done()
        return self if self.statement_type == "LOAD" else self.rows


class Client:
    """The client of one project. Statements run one at a time: the analyzer is not thread-safe."""

    def __init__(self, project: str, sql: GoogleSQL) -> None:
        self.project = project
        self.sql = sql
        self.statements: list[str] = []
        """Statements that were sent, in order."""
        self.loads: dict[str, Job] = {}
        """Job id to job."""
        self.rejected: list[str] = []
        """Ids of loads that were rejected because a job had the id."""
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

    def get_table(self, reference: Any, **options: Any) -> Any:
        if not isinstance(reference, TableReference | str):
            return reference  # the destination of a job
        name = _name(reference)
        if name not in self.sql.tables:
            raise NotFound(f"Not found: Table {name}")
        return _bigquery_table(name, self.sql.tables[name])

    def get_dataset(self, reference: Any, **options: Any) -> None:
        """Every dataset is missing, so that dbt creates it: datasets are not stored."""
        raise NotFound(f"Not found: Dataset {reference}")

    def create_dataset(self, dataset: Dataset, exists_ok: bool, **options: Any) -> None:
        """Do nothing: datasets are not stored."""

    def create_table(self, table: BigQueryTable, exists_ok: bool, **options: Any) -> None:
        columns = {column.name: type_pb2.TypeProto(type_kind=KINDS[column.field_type]) for column in table.schema}
        required = {column.name for column in table.schema if column.mode == "REQUIRED"}
        with self._lock:
            self.sql.tables.setdefault(_name(table.reference), Table(columns, required))

    def list_tables(self, dataset: DatasetReference | str, **options: Any) -> list[Any]:
        prefix = f"{dataset}." if isinstance(dataset, str) else f"{dataset.project}.{dataset.dataset_id}."
        with self._lock:
            return [_bigquery_table(name, table) for name, table in self.sql.tables.items() if name.startswith(prefix)]

    def list_datasets(self, **options: Any) -> list[Any]:
        with self._lock:
            datasets = dict.fromkeys(name.split(".")[1] for name in self.sql.tables)
        return [SimpleNamespace(dataset_id=dataset) for dataset in datasets]

    def delete_table(self, reference: TableReference, not_found_ok: bool = False) -> None:
        with self._lock:
            self.sql.drop(_name(reference))

    def update_table(self, table: BigQueryTable, fields: list[str]) -> None:
        """Do nothing: only descriptions are updated, which are not stored."""

    def load_table_from_file(
        self,
        file: BinaryIO,
        reference: TableReference | str,
        job_config: LoadJobConfig,
        job_id: str | None = None,
        **options: Any,
    ) -> Job:
        """Load a Parquet file, or a seed: a CSV file with a header line and the columns of the job."""
        name = _name(reference)
        if job_config.write_disposition == WriteDisposition.WRITE_EMPTY:
            load = partial(self._replace, name, _new_table(file))
        elif job_config.source_format == SourceFormat.PARQUET:
            assert job_config.write_disposition == WriteDisposition.WRITE_APPEND
            load = partial(self._append, name, _parquet_rows(file, self.sql.tables[name]))
        else:
            load = partial(self._replace, name, _seed(file, job_config))
        with self._lock:
            job_id = job_id or f"load {len(self.loads)}"
            if job_id in self.loads:
                self.rejected.append(job_id)
                raise Conflict(f"Already Exists: Job {self.project}:{job_id}")
            job = self.loads[job_id] = Job("LOAD", job_id=job_id, load=load)
        return job

    def get_job(self, job_id: str, **options: Any) -> Job:
        return self.loads[job_id]

    def _append(self, name: str, rows: list[Any]) -> None:
        with self._lock:
            self.sql.insert(name, rows)

    def _replace(self, name: str, table: Table) -> None:
        with self._lock:
            self.sql.tables[name] = table

    def close(self) -> None:
        """Do nothing: there is no connection."""


def _name(reference: TableReference | str) -> str:
    return (
        reference if isinstance(reference, str) else f"{reference.project}.{reference.dataset_id}.{reference.table_id}"
    )


def _parquet_rows(file: BinaryIO, table: Table) -> list[Any]:
    """The rows of a file in the order of the table's columns, which must be those of the file."""
    found = pq.read_table(file)
    kinds = {field.name: PARQUET_TYPES[field.type] for field in found.schema}
    assert kinds == {name: type_.type_kind for name, type_ in table.columns.items()}
    return [make_row(row[name] for name in table.columns) for row in found.to_pylist()]


def _new_table(file: BinaryIO) -> Table:
    """A table with the columns and rows of a parquet file."""
    schema = pq.read_schema(file)
    columns = {field.name: type_pb2.TypeProto(type_kind=PARQUET_TYPES[field.type]) for field in schema}
    file.seek(0)
    return Table(columns, rows=_parquet_rows(file, Table(columns)))


def _seed(file: BinaryIO, job_config: LoadJobConfig) -> Table:
    lines = list(csv.reader(io.TextIOWrapper(file, encoding="utf-8", newline="")))[1:]
    assert {column.field_type.upper() for column in job_config.schema} == {"STRING"}
    columns = {column.name: type_pb2.TypeProto(type_kind=type_pb2.TYPE_STRING) for column in job_config.schema}
    return Table(columns, rows=[make_row(line) for line in lines])


def _bigquery_table(name: str, table: Table) -> BigQueryTable:
    made = BigQueryTable(name, schema=_schema(table))
    made._properties["type"] = "VIEW" if table.view else "TABLE"
    made._properties["numRows"] = str(len(table.rows))
    made._properties["creationTime"] = str((table.created - EPOCH) // timedelta(milliseconds=1))
    return made


def _schema(table: Table) -> list[SchemaField]:
    return [
        SchemaField(name, STANDARD_TYPES[type_.type_kind], mode="REQUIRED" if name in table.required else "NULLABLE")
        for name, type_ in table.columns.items()
    ]


def python_rows(result: Result) -> Iterator[dict[str, Any]]:
    """The rows of a query as google.cloud.bigquery returns them."""
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


class Json(str):
    """The text of a value of type JSON."""

    __slots__ = ()


def make_row(values: Any) -> Any:
    """A row of a table from Python values. Datetimes are UTC without a zone."""
    row = service.TableData.Row()
    for value in values:
        cell = row.cell.add()
        match value:
            case None:
                pass
            case Json():
                cell.json_value = value
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
