"""The engine of WAREHOUSE=bigquery.

Google's clients are imported in the methods: the embedded default has none installed.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.settings import Settings
from engines.backup import Manifest, OnTable
from engines.bigquery.reader import BigQueryReader
from engines.marts import Mart
from engines.warehouse import Arrivals, FreshnessRow, Warehouse

LOAD_SECONDS = 60.0
"""Between two commits by load jobs, of which BigQuery takes 1,500 per table and day."""
CONCURRENT_QUERIES = 16
"""Threads of a server that wait for BigQuery."""


class BigQueryEngine:
    """The datasets of a project. Published queries run on them as they are, without a copy: see `Engine`."""

    is_copied = False
    is_billed = True
    accepts_pushes = False
    load_seconds: float | None = LOAD_SECONDS
    concurrent_queries: int | None = CONCURRENT_QUERIES

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.schema_prefix = settings.dataset_prefix
        name = f"{settings.gcp_project}.{settings.dataset_prefix}analytics.published"
        self.published_folder = settings.warehouse_path.with_name(name)

    def warehouse(self, *, follow: bool = False) -> Warehouse:
        from engines.bigquery.sink import BigQuerySink

        return BigQuerySink(self._settings, by_streams=follow)

    def kept_open(self) -> AbstractContextManager[None]:
        return nullcontext()

    def check_open(self) -> None:
        """Does nothing: BigQuery is not opened."""

    def arrivals(self, after: Mapping[str, datetime], upto: Mapping[str, datetime]) -> Mapping[str, Arrivals]:
        """Nothing: it would cost a query per build."""
        return {}

    def save_freshness(self, rows: Sequence[FreshnessRow]) -> None:
        """Does nothing: there are no rows."""

    @contextmanager
    def building(self) -> Iterator[None]:
        import dbt.adapters.bigquery  # noqa: F401  dbt would not say which package is missing

        yield

    def preview(self, sql: str, max_rows: int) -> tuple[list[str], list[tuple[Any, ...]]]:
        return [], []

    def state(self) -> None:
        return None

    def expect_small_statements(self) -> None:
        """Does nothing: statements run elsewhere."""

    def memory(self) -> Mapping[str, int]:
        return {}

    def checkpoint(self) -> None:
        """Does nothing: there is no file."""

    @contextmanager
    def pin(self) -> Iterator["BigQueryMarts"]:
        yield BigQueryMarts()

    def write_backup(self, folder: Path, on_table: OnTable) -> None:
        raise UserError(
            "`backup` is for DuckDB: BigQuery has snapshots of tables and time travel; see docs/operations.md#back-up"
        )

    def restore(self, folder: Path, manifest: Manifest, on_table: OnTable) -> None:
        from engines.bigquery.restore import restore

        restore(self._settings, folder, manifest, on_table)

    def compact(self) -> tuple[int, int]:
        raise UserError("`compact` is for DuckDB: BigQuery needs none")

    def compaction_advice(self) -> None:
        return None

    def open_reader(self, folder: Path, threads: int | None = None) -> BigQueryReader:
        return self._open()

    def _open(self) -> BigQueryReader:
        from engines.bigquery.client import open_client

        return BigQueryReader(open_client(self._settings), self._settings)


class BigQueryMarts:
    """Published queries run on the datasets: see `PinnedMarts`."""

    def write(self, folder: Path, marts: Sequence[Mart], last: Path | None, spare: Path | None) -> None:
        folder.mkdir()
