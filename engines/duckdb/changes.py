"""What builds changed in a warehouse since a version was published, by the tables in which builds record it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

import duckdb
from pydantic import BaseModel, ValidationError

STATE_TABLES = ("rebuilds", "rewritten_rows", "successful_builds", "touched_partitions", "watermarks")
NEVER = datetime(2000, 1, 1)  # noqa: DTZ001  UTC, as in the warehouse
CHANGES = (
    "select model, partition_date, recorded_at from intermediate.touched_partitions"
    " union all select model, null, recorded_at from intermediate.rebuilds"
)
"""A null date stands for the whole table."""
RECORDED = f"select recorded_at from ({CHANGES}) union all select recorded_at from intermediate.rewritten_rows"  # noqa: S608
REWRITTEN = "select row_key from intermediate.rewritten_rows where model = ? and recorded_at > ?"
"""Keys of the rows that a model rewrote since a time; some may be there more than once."""


class State(BaseModel, frozen=True):
    """What the marts of a version were made from."""

    build: str | None
    """The last successful build; None if there was none, or if anything changed after it: then the changes since this
    version cannot be told."""
    recorded_at: datetime
    """When that build ended: no earlier than the changes before, and earlier than those after (`change_time` of the dbt
    project)."""
    watermarks: Mapping[str, Mapping[str, datetime]]
    """Model to stream to the last landed_at that it had read."""


@dataclass(frozen=True)
class Changes:
    """What changed between two states of one warehouse."""

    since: datetime
    """Later than every change up to the earlier state, and earlier than every change after it."""

    dates: Mapping[str, frozenset[date | None]]
    """Model to the dates of the partitions that changed; None if it may have changed anywhere."""
    before: Mapping[str, Mapping[str, datetime]]
    """Watermarks of the earlier state."""
    after: Mapping[str, Mapping[str, datetime]]


def read_state(cursor: duckdb.DuckDBPyConnection) -> State:
    """The state of a warehouse, which need not have been built yet."""
    names = cursor.execute("select table_name from duckdb_tables() where schema_name = 'intermediate'").fetchall()
    if not {*STATE_TABLES} <= {name for (name,) in names}:
        return State(build=None, recorded_at=NEVER, watermarks={})
    build = cursor.execute(
        "select invocation_id, recorded_at from intermediate.successful_builds order by recorded_at desc limit 1"
    ).fetchone()
    if build and _exists(cursor, f"from ({RECORDED}) where recorded_at > ?", build[1]):
        build = None
    watermarks: dict[str, dict[str, datetime]] = {}
    for node, stream, upper_bound in cursor.execute(
        "select node, stream, max(upper_bound) from intermediate.watermarks group by all"
    ).fetchall():
        watermarks.setdefault(node, {})[stream] = upper_bound
    invocation_id, recorded_at = build or (None, NEVER)
    return State(build=invocation_id, recorded_at=recorded_at, watermarks=watermarks)


def load_state(path: Path) -> State | None:
    """The state that a version was published with; None without one."""
    try:
        return State.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def is_known(cursor: duckdb.DuckDBPyConnection, before: State) -> bool:
    """Whether all changes since this state are recorded: dbt keeps those after each build that it still lists. A
    warehouse that was replaced, or restored from an older copy, does not list the build."""
    listed = "from intermediate.successful_builds where invocation_id = ? and recorded_at = ?"
    return before.build is not None and _exists(cursor, listed, before.build, before.recorded_at)


def changes_between(cursor: duckdb.DuckDBPyConnection, before: State, after: State) -> Changes:
    """What changed since an earlier state for which `is_known` is true."""
    found: dict[str, set[date | None]] = {}
    changed = f"select distinct model, partition_date from ({CHANGES}) where recorded_at > ?"  # noqa: S608  a constant
    for model, day in cursor.execute(changed, [before.recorded_at]).fetchall():
        found.setdefault(model, set()).add(day)
    dates = {model: frozenset(days) for model, days in found.items()}
    return Changes(before.recorded_at, dates, before.watermarks, after.watermarks)


def _exists(cursor: duckdb.DuckDBPyConnection, rows: str, *values: object) -> bool:
    found = cursor.execute(f"select exists ({rows})", values).fetchall()[0][0]
    return bool(found)
