"""Opens the warehouse that the settings name."""

from common.settings import Settings
from ingest.sinks import Warehouse
from ingest.sinks.duckdb import DuckDBSink


def open_warehouse(settings: Settings, follow: bool = False) -> Warehouse:
    """Open DuckDB or BigQuery. With `follow`, BigQuery is loaded through write streams instead of load jobs."""
    if settings.warehouse == "bigquery":
        from ingest.sinks.bigquery import BigQuerySink

        return BigQuerySink(settings, by_streams=follow)
    return DuckDBSink(settings.warehouse_path, settings.lock_timeout_seconds, pseudonym_key=settings.pseudonym_key)
