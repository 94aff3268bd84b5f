"""Answers the metrics of dbt_project/models/analytics/_metrics.yml from the published warehouse.

MetricFlow only writes the SQL: without a connection of its own it reads the same published build as every query.
"""

import re
from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

import pyarrow as pa
from metricflow.engine.metricflow_engine import MetricFlowEngine, MetricFlowQueryRequest
from metricflow.protocols.sql_client import SqlClient, SqlEngine
from metricflow.sql.render.duckdb_renderer import DuckDbSqlPlanRenderer
from metricflow_semantics.errors.error_classes import InformativeUserError
from metricflow_semantics.model.dbt_manifest_parser import parse_manifest_from_dbt_generated_manifest
from metricflow_semantics.model.semantic_manifest_lookup import SemanticManifestLookup

from common.errors import UserError
from common.settings import Settings
from engines.reader import QueryFailedError
from publishing.versions import SEMANTIC_MANIFEST
from serve.published import PublishedVersion

DUCKDB = cast(SqlClient, SimpleNamespace(sql_engine_type=SqlEngine.DUCKDB, sql_plan_renderer=DuckDbSqlPlanRenderer()))


class Metrics:
    """The metrics of one published version."""

    def __init__(self, published: PublishedVersion, settings: Settings) -> None:
        self._published = published
        self._settings = settings
        file = published.folder / SEMANTIC_MANIFEST
        if not file.exists():
            raise UserError("metrics need DuckDB: on BigQuery, use the command mf of dbt-metricflow")
        manifest = parse_manifest_from_dbt_generated_manifest(file.read_text())
        self._engine = MetricFlowEngine(SemanticManifestLookup(manifest), DUCKDB)
        self.descriptions = {
            metric.name: metric.description or "" for metric in self._engine.list_metrics(include_dimensions=False)
        }

    def dimensions(self, metrics: Sequence[str]) -> list[str]:
        """Names by which all of these metrics can be grouped, such as metric_time__day and event__brand."""
        found = self._engine.simple_dimensions_for_metrics(list(metrics))
        names = {dimension.dunder_name for dimension in found}
        return sorted(name for name in names if not name.endswith("__reporting_date"))  # the same as metric_time

    def ask(
        self, metrics: Sequence[str], by: Sequence[str] = (), where: str | None = None, limit: int | None = None
    ) -> tuple[pa.Table, bool]:
        """One row per group in the order of the groups, the newest time first; and whether there are more rows.

        Args:
            where: condition in SQL, in which a dimension is written as `{{ Dimension('event__brand') }}`.
            limit: maximum rows, at most SERVE_MAX_ROWS.

        Raises:
            UserError: when there is no such metric, or it does not know a group or dimension.
            QueryTimeoutError: when it takes longer than SERVE_TIMEOUT_SECONDS.
            QueryTooLargeError: when it needs more than SERVE_MEMORY_LIMIT.
        """
        for name in metrics:
            if name not in self.descriptions:
                raise UserError(f"there is no metric {name!r}; the metrics are {', '.join(self.descriptions)}")
        most = min(limit or self._settings.serve_max_rows, self._settings.serve_max_rows)
        request = MetricFlowQueryRequest.create(
            metric_names=metrics,
            group_by_names=by,
            order_by_names=[f"-{name}" if name.startswith("metric_time") else name for name in by],
            where_constraints=None if where is None else [where],
            limit=most + 1,
        )
        try:
            sql = self._engine.explain(request).sql_statement.without_descriptions.sql
        except InformativeUserError as error:
            known = ", ".join(self.dimensions(metrics))
            raise UserError(
                f"{_message(error)}; {', '.join(metrics)} can be grouped and filtered by {known}"
            ) from error
        try:
            rows = self._published.query(sql, timeout_seconds=self._settings.serve_timeout_seconds)
        except QueryFailedError as error:
            raise UserError(f"{where or ', '.join(metrics)}: {str(error).splitlines()[0]}") from error
        return rows.slice(0, most), rows.num_rows > most


def _message(error: InformativeUserError) -> str:
    """The error in one line, without MetricFlow's suggestions and stack."""
    parts = re.split(r"Suggestions:|Common issues|Got exception:|Issue Location:", str(error))
    return " ".join(re.sub(r".*Message:", "", parts[0], flags=re.DOTALL).split()).rstrip(".:")
