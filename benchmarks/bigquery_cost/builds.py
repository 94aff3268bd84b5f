"""Two builds of a few messages on known days, and what the statements of the second read."""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

from dbt.artifacts.resources.types import NodeType

from common.streams import STREAMS
from dbt_project.exactness.message import Message
from specification import Settings
from tools import ROOT
from tools.googlesql.engine import GoogleSQL, Result
from tools.googlesql.scans import Scan, scans
from tools.warehouses.bigquery import PROJECT, BigQueryProject

# The known days. Each day of the history landed when it was over. The new day landed with a late event of the 4th.
HISTORY = [date(2027, 3, day) for day in range(1, 8)]
NEW, LATE = date(2027, 3, 8), date(2027, 3, 4)
LANDED_ON = date(2027, 3, 9)
SESSION_OF = date(2027, 3, 2)
"""The new store event continues a session of this day."""

LANDED = "landed days"
TOUCHED = "touched days"
BEFORE = "touched days and those before"
SESSIONS = "touched days and those of their sessions"
WHOLE = "all days"
UNPARTITIONED = "no days"
EVENT_DAYS = {
    frozenset({LATE, NEW}): TOUCHED,
    frozenset({LATE, NEW, LATE - timedelta(days=1), NEW - timedelta(days=1)}): BEFORE,
    frozenset({LATE, NEW, SESSION_OF}): SESSIONS,
    frozenset({*HISTORY, NEW}): WHOLE,
}
LANDING_DAYS = {
    frozenset({HISTORY[-1], LANDED_ON}): LANDED,  # from the day of the watermark on
    frozenset({LANDED_ON}): LANDED,
    frozenset({*HISTORY, LANDED_ON}): WHOLE,
}
STATE = ("watermarks", "rebuilds", "removed_messages", "touched_partitions", "successful_builds", "pins")


@dataclass(frozen=True, slots=True)
class Read:
    """A table that a statement reads."""

    statement: int
    node: str
    """model.stg_users, test.accounting_balances, snapshot.users_snapshot, or `start` for dbt's hooks."""
    table: str
    """dataset.name; for the temporary table of a model's result, that of the model."""
    columns: frozenset[str]
    rewrites: bool
    days: str
    """Partitions that are read: LANDED, TOUCHED and so on, or the dates if they are another set."""
    is_result: bool
    """Whether it is the temporary table that is merged into the model."""


class _Recorder(GoogleSQL):
    """Records what each statement reads when it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.partition_columns: dict[str, str] = {}
        self.recorded: list[tuple[str, list[Scan]]] | None = None

    def run(self, sql: str, parameters: Mapping[str, tuple[Any, Any]] | None = None) -> Result:
        if self.recorded is not None:
            self.recorded.append((sql, scans(self, sql, self._partition_column)))
        return super().run(sql, parameters)

    def _partition_column(self, table: str) -> str | None:
        return self.partition_columns.get(_without_suffix(table))


@dataclass(frozen=True, slots=True)
class Builds:
    """Statements of two builds.

    Attributes:
        first: statements of the first build, with unit tests.
        second: statements of the incremental build.
        reads: what the second build reads, with its tests.
    """

    project: BigQueryProject
    first: list[str]
    second: list[str]
    reads: list[Read]


def two_builds(work: Path) -> Builds:
    """Build the history, then the new day, in this folder."""
    sql = _Recorder()
    project = BigQueryProject(ROOT / "dbt_project", work, sql)
    warehouse = project.warehouse(Path(), Settings())
    for day in HISTORY:
        warehouse.land(_messages(day, f"day {day.day}", str(day.day)), datetime.combine(day, time(23)))
    warehouse.run("build")
    end_of_first = len(project.client.statements)
    new = _messages(NEW, "new", str(SESSION_OF.day)) + _messages(LATE, "late", str(LATE.day))
    warehouse.land(new, datetime.combine(LANDED_ON, time(1)))
    sql.partition_columns = {f"{PROJECT}.raw.{stream}": "landed_at" for stream in STREAMS} | {
        f"{PROJECT}.{node.schema}.{node.name}": node.config.get("partition_by")["field"]
        for node in project.nodes
        if node.resource_type == NodeType.Model and node.config.get("partition_by")
    }
    sql.recorded = []
    # With more threads, the rollups that start together would all ask which dates are new; which ones is chance.
    warehouse.run("build", "--threads", "1", "--exclude-resource-type", "unit_test")
    reads = [
        read
        for number, (statement, found) in enumerate(sql.recorded)
        for read in _reads(number, statement, found, sql.partition_columns)
    ]
    sql.recorded = None
    return Builds(project, project.client.statements[:end_of_first], project.client.statements[end_of_first:], reads)


def _messages(day: date, name: str, session: str) -> list[Message]:
    """One message per stream at noon, and a malformed one."""
    at = f"{day}T12:00:00Z"
    times = {"created_at": "2027-01-01", "updated_at": at}
    user, product, post = {"user_id": "u"}, {"product_id": "p"}, {"post_id": "t"}
    bodies: dict[str, dict[str, Any]] = {
        "web_events": {"timestamp": at, "event": "sale", "product": "p", "event_id": name, "price": 5, **user},
        "page_views": {"session_id": name, "page_title": "Home", "ga_event_dtm": at, **user},
        "clicks": {"click_id": name, "datetime_occured": at, **user, **product},
        "checkouts": {"checkout_id": name, "total_amount": 5, "datetime_occured": at, **user, **product},
        "ecom_events": {"event_time": at, "event_type": "view", "category_code": "c", "user_session": session}
        | {**user, **product},
        "post_events": {"event_id": name, "created_at": at, "event_type": "like", **user, **post},
        "users": {"user_name": name, **times, **user},
        "products": {"name": name, **times, **product},
        "posts": {"post_text": name, **times, **user, **post},
    }
    payloads = [(stream, json.dumps(body).encode()) for stream, body in bodies.items()] + [("clicks", b"{")]
    published = datetime.combine(day, time(12, 1))
    return [
        Message(0, 0, stream, f"{name} {number}", published, payload)
        for number, (stream, payload) in enumerate(payloads)
    ]


def _reads(number: int, sql: str, found: Sequence[Scan], partition_columns: dict[str, str]) -> Iterator[Read]:
    """What a statement reads. Several scans of a table are one read of the columns and days of all.

    Counting all rows of a table reads no column, and costs nothing.
    """
    in_comment = re.search(r'"node_id": "(\w+)\.event_warehouse\.(\w+)', sql)
    node = f"{in_comment[1]}.{in_comment[2]}" if in_comment else "start"
    tables = defaultdict(list)
    for scan in found:
        if scan.columns or scan.rewrites:
            tables[scan.table].append(scan)
    for name, of_table in tables.items():
        base = _without_suffix(name)
        dataset, table = base.split(".")[1:]
        is_landing = partition_columns.get(base, "") in ("landed_at", "landed_date")
        existing = {*HISTORY, LANDED_ON} if is_landing else {*HISTORY, NEW}
        days = frozenset(day for day in existing if any(scan.reads(day) for scan in of_table))
        if not days:
            continue
        if base != name:
            # the result of a model is as large as the new messages; of an aggregate, as the days that it recomputes
            is_new = is_landing or table == "fct_events" or base not in partition_columns
            read_days = LANDED if is_new else TOUCHED
        elif base not in partition_columns:
            read_days = UNPARTITIONED
        else:
            read_days = (LANDING_DAYS if is_landing else EVENT_DAYS).get(days, ", ".join(map(str, sorted(days))))
        columns = frozenset[str]().union(*(scan.columns for scan in of_table))
        rewrites = any(scan.rewrites for scan in of_table)
        yield Read(number, node, f"{dataset}.{table}", columns, rewrites, read_days, base != name)


def _without_suffix(table: str) -> str:
    return re.sub(r"__dbt_tmp\d*$", "", table)
