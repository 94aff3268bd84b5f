"""Rewrites the file of a warehouse without the space that is no longer used."""

from common.errors import UserError
from engines.duckdb.file import WarehouseFile
from engines.duckdb.mart_tables import current_database, quoted
from engines.duckdb.replacement import replacement

MAX_RATIO = 1.5
"""Size of the file in relation to what it uses, from which on compacting is worth it."""
SMALL_BYTES = 100 * 1024**2
"""Files below this size are not worth it."""


def compact(file: WarehouseFile, memory_limit: str | None) -> tuple[int, int]:
    """Rewrite the file; returns its size before and after, in bytes.

    Raises:
        UserError: as `WarehouseFile`. Then the warehouse is as before.
    """
    if not file.path.exists():
        raise UserError(f"there is no warehouse at {file.path} yet: run `make ingest` first")
    before = file.path.stat().st_size
    with replacement(file, memory_limit) as (connection, new):
        connection.execute(f"copy from database {quoted(current_database(connection))} to {new}")
    return before, file.path.stat().st_size


def advice(file: WarehouseFile) -> str | None:
    """A line that says why to compact the file; None as long as that gains little. Reads no rows."""
    if not file.path.exists():
        return None
    with file.connection(read_only=True) as connection:
        [(total, used)] = connection.execute(
            """
            select block_size * total_blocks, block_size * used_blocks
            from pragma_database_size()
            where database_name = current_database()
            """
        ).fetchall()
    if total < SMALL_BYTES or total <= MAX_RATIO * used:
        return None
    return f"{(total - used) / total:.0%} of {file.path} ({total / 1e6:,.0f} MB) is unused: `make compact` rewrites it"
