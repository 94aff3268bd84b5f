"""The interface of a warehouse engine: connect, land, describe, query.

A third engine is a folder with a class that has these attributes and methods, and an entry in factory.py.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from engines.backup import Manifest, OnTable
from engines.marts import PinnedMarts
from engines.reader import Reader
from engines.warehouse import Arrivals, FreshnessRow, Warehouse


class Engine(Protocol):
    """The warehouse that the settings name. Making an engine neither connects nor imports a client."""

    published_folder: Path
    """Directory in which builds publish, one version each: next to the DuckDB file, even with BigQuery."""
    schema_prefix: str
    """Precedes the name of each schema; may be empty."""
    is_copied: bool
    """Whether a published version has its own copy of the marts, so that its answers never change."""
    is_billed: bool
    """Whether a query costs money: then none runs only for a summary or a test."""
    accepts_pushes: bool
    """Whether it can commit once per push."""
    load_seconds: float | None
    """LANDING_MAX_SECONDS of `land` without `--follow`, where the number of loads is limited; None elsewhere."""
    concurrent_queries: int | None
    """How many queries a server runs at one time; None leaves it to Python."""

    def warehouse(self, *, follow: bool = False) -> Warehouse:
        """What lands batches and returns results.

        Args:
            follow: for `land --follow`, which commits often.
        """
        ...

    def kept_open(self) -> AbstractContextManager[None]:
        """Keep the warehouse open, so that threads of this process land, build and publish at the same time.

        Does nothing where any number of processes can do so.

        Raises:
            UserError: when it cannot be opened.
        """
        ...

    def check_open(self) -> None:
        """Check that the warehouse that is kept open can still be used.

        Raises:
            WarehouseReopenError: when it has to be opened again.
        """
        ...

    def arrivals(self, after: Mapping[str, datetime], upto: Mapping[str, datetime]) -> Mapping[str, Arrivals]:
        """When messages were published and landed, by stream, where there are any; without recovered messages.

        Args:
            after, upto: bounds of landed_at by stream; UTC without a zone.
        """
        ...

    def save_freshness(self, rows: Sequence[FreshnessRow]) -> None:
        """Add rows to the mart stream_freshness."""
        ...

    def building(self) -> AbstractContextManager[None]:
        """Prepare the warehouse for dbt and, within the context, keep loaders from opening it before dbt does.

        Raises:
            UserError: when there is no warehouse yet, or another process holds it.
        """
        ...

    def preview(self, sql: str, max_rows: int) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Names of the columns and the first rows of any SQL; nothing where queries are billed or the SQL fails."""
        ...

    def state(self) -> tuple[int, ...] | None:
        """A value that changes when anything is written to the warehouse; None where it cannot be told."""
        ...

    def expect_small_statements(self) -> None:
        """From now on, be fast for many small statements and commits, several at a time."""
        ...

    def memory(self) -> Mapping[str, int]:
        """Bytes of memory that the warehouse takes in this process, by DuckDB's name of their use; none elsewhere."""
        ...

    def checkpoint(self) -> None:
        """Write every commit to the warehouse's file, so that `state` can be told."""
        ...

    def pin(self) -> AbstractContextManager[PinnedMarts]:
        """Fix what is published: the marts as they are now.

        Raises:
            UserError: when the warehouse cannot be opened.
        """
        ...

    def open_reader(self, folder: Path, threads: int | None = None) -> Reader:
        """Open a published version.

        Args:
            folder: of the version.
            threads: per query, where the engine runs in this process; all cores unless given.

        Raises:
            OSError: when the version is not there any more.
            UserError: when it cannot be opened.
        """
        ...

    def write_backup(self, folder: Path, on_table: OnTable) -> None:
        """Write a consistent backup, while others land and build.

        Args:
            folder: exists and is empty. After an error it is empty again.

        Raises:
            UserError: when it cannot be written, or the engine has backups of its own.
        """
        ...

    def restore(self, folder: Path, manifest: Manifest, on_table: OnTable) -> None:
        """Fill an empty warehouse from a backup, whose files were verified.

        Raises:
            UserError: when the warehouse is not empty, or cannot be written.
        """
        ...

    def compact(self) -> tuple[int, int]:
        """Rewrite the warehouse's file without unused space; returns its size before and after, in bytes.

        Raises:
            UserError: when another process holds it, the disk is full, or there is no file.
        """
        ...

    def compaction_advice(self) -> str | None:
        """A line that says why to run `compact`; None as long as that gains little."""
        ...
