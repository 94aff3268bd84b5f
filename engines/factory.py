"""The engine that WAREHOUSE names."""

from collections.abc import Callable

from common.settings import Settings
from engines.bigquery.engine import BigQueryEngine
from engines.duckdb.engine import DuckDBEngine
from engines.engine import Engine

ENGINES: dict[str, Callable[[Settings], Engine]] = {"duckdb": DuckDBEngine, "bigquery": BigQueryEngine}
"""WAREHOUSE to its engine."""


def engine_for(settings: Settings) -> Engine:
    return ENGINES[settings.warehouse](settings)
