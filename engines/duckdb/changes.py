"""What builds changed in a warehouse since a version was published, by the tables in which builds record it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from uuid import uuid4

import duckdb
from pydantic import BaseModel, ValidationError

STATE_TABLES = ("pins", "rebuilds", "rewritten_rows", "successful_builds", "touched_partitions", "watermarks")
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

    pin: str | None
    """Id of the moment at which they were as published; None if builds have recorded nothing yet."""
    recorded_at: datetime
    """Time of that moment, no earlier than any change before it and earlier than any after it: see `change_time` of the
    dbt project."""
    watermarks: Mapping[str, Mapping[str, datetime]]
    """Model to stream to the last landed_at that it had read."""
    views: Mapping[str, str] = {}
    """Schema and name, with a dot between them, to the statement that creates the view in the warehouse."""
    row_group_rows: int | None = None
    """ROW_GROUP_ROWS of the file; None for DuckDB's default."""


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


def add_pin(cursor: duckdb.DuckDBPyConnection) -> str | None:
    """Record the present moment, while no model runs; returns its id, or None if no build has made the tables."""
    names = cursor.execute("select table_name from duckdb_tables() where schema_name = 'intermediate'").fetchall()
    if not {*STATE_TABLES} <= {name for (name,) in names}:
        return None
    pin = uuid4().hex
    cursor.execute(
        f"""
        insert into intermediate.pins (pin_id, recorded_at)
        select $pin, greatest(
            timezone('UTC', now()),
            (select max(recorded_at) + interval 1 microsecond from intermediate.pins),
            (select max(recorded_at) + interval 1 microsecond from intermediate.successful_builds),
            (select max(recorded_at) from ({RECORDED}))
        )
        """,  # noqa: S608  a constant
        {"pin": pin},
    )
    return pin


def read_state(cursor: duckdb.DuckDBPyConnection, pin: str | None) -> State:
    """The state of a warehouse at a moment, in the transaction that reads its marts."""
    if pin is None:
        return State(pin=None, recorded_at=NEVER, watermarks={})
    found = cursor.execute("select recorded_at from intermediate.pins where pin_id = ?", [pin]).fetchall()
    watermarks: dict[str, dict[str, datetime]] = {}
    for node, stream, upper_bound in cursor.execute(
        "select node, stream, max(upper_bound) from intermediate.watermarks group by all"
    ).fetchall():
        watermarks.setdefault(node, {})[stream] = upper_bound
    return State(pin=pin, recorded_at=found[0][0], watermarks=watermarks)


def load_state(path: Path) -> State | None:
    """The state that a version was published with; None without one."""
    try:
        return State.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def is_known(cursor: duckdb.DuckDBPyConnection, before: State) -> bool:
    """Whether all changes since this state are recorded: dbt keeps those after each pin that it still lists. A
    warehouse that was replaced, or restored from an older copy, does not list the pin."""
    listed = "select exists (from intermediate.pins where pin_id = ? and recorded_at = ?)"
    return before.pin is not None and bool(cursor.execute(listed, [before.pin, before.recorded_at]).fetchall()[0][0])


def changes_between(cursor: duckdb.DuckDBPyConnection, before: State, after: State) -> Changes:
    """What changed since an earlier state for which `is_known` is true."""
    found: dict[str, set[date | None]] = {}
    changed = f"select distinct model, partition_date from ({CHANGES}) where recorded_at > ?"  # noqa: S608  a constant
    for model, day in cursor.execute(changed, [before.recorded_at]).fetchall():
        found.setdefault(model, set()).add(day)
    dates = {model: frozenset(days) for model, days in found.items()}
    return Changes(before.recorded_at, dates, before.watermarks, after.watermarks)
