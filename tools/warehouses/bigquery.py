"""The project built for BigQuery, by dbt in this process, with GoogleSQL in memory instead of BigQuery."""

import json
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

from dbt.artifacts.schemas.run import RunResult

from common.settings import Settings as LandingSettings
from common.streams import STREAMS
from dbt_project.exactness.message import Message
from engines.bigquery.sink import BigQuerySink
from specification import Landed, Settings, marts
from specification.rows import Mart
from specification.values import json_text, read_body
from tools.googlesql.client import Client, python_rows
from tools.googlesql.engine import GoogleSQL
from tools.warehouses.in_process import Difference, Project, Warehouse, compare

PROJECT = "project"
POSITION_COLUMNS = ("topic_id", "next_offset")
"""Columns of raw tables that only BigQuery has."""
REJECTED_COLUMNS = (
    *("stream", "message_id", "landed_at", "published_at"),
    *("reject_reason", "reject_detail", "rejected_payload"),
)
"""Columns of a rejected message that are compared. No mart reads the others, which differ: DuckDB has times after the
year 9999."""


class BigQueryProject(Project):
    """The dbt project on target bigquery, with a client that runs in memory."""

    def __init__(self, folder: Path, work: Path, sql: GoogleSQL) -> None:
        self.sql = sql
        self.client = Client(PROJECT, sql)
        super().__init__(folder, work)

    def warehouse(self, folder: Path, settings: Settings) -> "BigQueryWarehouse":
        return BigQueryWarehouse(settings, self)

    def _message(self, failed: RunResult) -> str:
        """The error with its line and column in the compiled code, which is a part of the statement that was sent."""
        code = (getattr(failed.node, "compiled_code", None) or "").strip()
        for statement, error in self.client.failed:
            if code and error.line and f'"node_id": "{failed.node.unique_id}"' in statement and code in statement:
                line = error.line - statement[: statement.index(code)].count("\n")
                place = f"line {line}, column {error.column} of target/compiled"
                return f"{failed.node.name} ({failed.node.original_file_path}, {place}): {error.message}"
        return super()._message(failed)

    def _environment(self, warehouse: Path) -> dict[str, str]:
        return {"WAREHOUSE": "bigquery", "GCP_PROJECT": PROJECT, "DATASET_PREFIX": ""}

    def _invoke(self, warehouse: Path, *arguments: str) -> Any:
        with patch("dbt.adapters.bigquery.connections.create_bigquery_client", lambda credentials: self.client):
            return super()._invoke(warehouse, *arguments)


class BigQueryWarehouse(Warehouse):
    """A warehouse in the memory of the project's client, emptied at the start."""

    _project: BigQueryProject
    _sink: BigQuerySink  # type: ignore[assignment]  # instead of DuckDB's sink

    def __init__(self, settings: Settings, project: BigQueryProject) -> None:
        self._settings = settings
        self._project = project
        self._sql = project.sql
        self._path = Path()
        self._sql.tables.clear()
        self.loader().create_tables()
        self._dbt("seed")

    def loader(self) -> BigQuerySink:  # type: ignore[override]
        """A sink as in a loader that has just started."""
        settings = LandingSettings(_env_file=None, warehouse="bigquery", gcp_project=PROJECT)
        with patch("google.cloud.bigquery.Client", lambda **options: self._project.client):
            return BigQuerySink(settings, clock=self._clock)

    def land(self, messages: Iterable[Message], landing_time: datetime) -> None:
        self._sink = self.loader()  # a new one, as several loaders with different clocks take turns
        super().land(messages, landing_time)

    def differences(self) -> list[Difference]:
        landed = [
            Landed(**{name: row[name] for name in Landed.__slots__})
            for stream in STREAMS
            for row in self.rows(f"raw.{stream}")
        ]
        found: list[Difference] = []
        for mart, defined in marts(landed, self._settings, self._project.countries).items():
            found.extend(compare(mart, in_order_of_names(self.rows(f"analytics.{mart}")), in_order_of_names(defined)))
        return found

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Every row of a table or view, with times as in the specification: UTC without a zone."""
        dataset, identifier = name.split(".")
        result = self._sql.run(f"select * from `{PROJECT}`.`{dataset}`.`{identifier}`")
        return [{name: _without_zone(value) for name, value in row.items()} for row in python_rows(result)]

    def build(self, *options: str) -> None:
        self.run("run", *options)

    def run(self, command: str, *options: str) -> None:
        """Run a command of dbt.

        Raises:
            BuildError: if a node fails.
        """
        # worlds land in the future, where a hold of recent rows would hide all of them
        settings = self._settings.as_vars() | {"landing_hold_minutes": -10_000_000}
        self._dbt(command, "--vars", json.dumps(settings), *options)


class BothEngines(BigQueryProject):
    """The dbt project on BigQuery's target and on DuckDB's."""

    def __init__(self, folder: Path, work: Path, sql: GoogleSQL) -> None:
        super().__init__(folder, work, sql)
        self.duckdb = Project(folder, work / "duckdb")

    def warehouse(self, folder: Path, settings: Settings) -> "WithDuckDB":
        return WithDuckDB(settings, self, self.duckdb.warehouse(folder, settings))


class WithDuckDB(BigQueryWarehouse):
    """A BigQuery warehouse, and one of DuckDB that lands and builds the same."""

    def __init__(self, settings: Settings, project: BigQueryProject, duckdb: Warehouse) -> None:
        super().__init__(settings, project)
        self.duckdb = duckdb
        models = [f"{node.schema}.{node.name}" for node in project.nodes if node.resource_type in ("model", "seed")]
        self._relations = [*(f"raw.{stream}" for stream in STREAMS), *models]
        self._batches: set[tuple[str, frozenset[str]]] = set()

    def land(self, messages: Iterable[Message], landing_time: datetime) -> None:
        """Land messages in both. A batch that is redelivered whole is landed once.

        On BigQuery such a batch has the load job of the first; DuckDB would land it again, as duplicates.
        """
        messages = list(map(self.naming_its_original, messages))
        super().land(messages, landing_time)
        ids: dict[str, set[str]] = {}
        for message in messages:
            ids.setdefault(message.stream, set()).add(message.message_id)
        batches = {(stream, frozenset(of_stream)) for stream, of_stream in ids.items()}
        again = {stream for stream, _ in batches & self._batches}
        self._batches |= batches
        self.duckdb.land([message for message in messages if message.stream not in again], landing_time)

    def build(self, *options: str) -> None:
        super().build(*options)
        self.duckdb.build(*options)

    def differences(self) -> list[Difference]:
        """BigQuery's marts compared with the specification; if equal, all tables and views compared with DuckDB's."""
        return super().differences() or self.unlike(self._relations)

    def unlike(self, relations: Iterable[str]) -> list[Difference]:
        """Rows that only BigQuery has (side `built`), or only DuckDB (side `defined`)."""
        return [
            difference
            for relation in relations
            for difference in compare(
                relation,
                in_order_of_names(_rows(self, relation)),
                in_order_of_names(_rows(self.duckdb, relation)),
            )
        ]


def _rows(warehouse: Warehouse, relation: str) -> list[dict[str, Any]]:
    return [
        {
            name: value
            for name, value in row.items()
            if name not in POSITION_COLUMNS and (row.get("reject_reason") is None or name in REJECTED_COLUMNS)
        }
        for row in warehouse.rows(relation)
    ]


def _without_zone(value: Any) -> Any:
    return value.replace(tzinfo=None) if isinstance(value, datetime) else value


def in_order_of_names(rows: Mart) -> Mart:
    """Rows with the properties of events as BigQuery stores JSON: each name once, sorted."""

    def sorted_value(value: object) -> object:
        if isinstance(value, dict):
            return {name: sorted_value(value[name]) for name in sorted(value)}
        return [sorted_value(one) for one in value] if isinstance(value, list) else value

    return [
        {**row, "properties": json_text(sorted_value(read_body(row["properties"].encode())))}
        if row.get("properties")
        else row
        for row in rows
    ]
