"""What a day costs on BigQuery, on paper: `python -m benchmarks.bigquery_cost` writes the tables of docs/bigquery.md.

Two builds of a few messages on known days give the statements that dbt sends; Google's analyzer says which columns and
partitions each reads (tools/googlesql/scans.py). What a column weighs is measured in seven simulated days built on
DuckDB, by BigQuery's logical sizes (https://cloud.google.com/bigquery/pricing#data). Nothing is asked of BigQuery.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
from dbt.artifacts.resources.types import NodeType

from common.streams import STREAMS
from specification import Settings
from tools import ROOT
from tools.googlesql.engine import GoogleSQL, Result
from tools.googlesql.scans import Scan, scans
from tools.warehouses.bigquery import PROJECT, BigQueryProject
from tools.warehouses.commands import Warehouse
from tools.warehouses.in_process import Arrival

DOCUMENT = ROOT / "docs" / "bigquery.md"
MARK = "<!-- benchmarks.bigquery_cost: {} -->"

# The known days. Each day of the history landed when it was over; the last day came together with an event of the 4th.
HISTORY = [date(2027, 3, day) for day in range(1, 8)]
NEW, LATE = date(2027, 3, 8), date(2027, 3, 4)
LANDED_ON = date(2027, 3, 9)
SESSION_OF = date(2027, 3, 2)
"""The new store event continues a session of this day."""

DAYS_OF_HISTORY = 365
SIMULATED_DAYS, SIMULATED_EVENTS = 7, 20_000
LEAST_BYTES = 10 * 2**20
"""What a table costs in a query at least (https://cloud.google.com/bigquery/pricing#on_demand_pricing)."""
DOLLARS_PER_TIB = 6.25
SIZES = {"1M": 10**6, "100M": 10**8, "10B": 10**10}

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
    frozenset({HISTORY[-1], LANDED_ON}): LANDED,  # the day of the watermark and the days since
    frozenset({LANDED_ON}): LANDED,
    frozenset({*HISTORY, LANDED_ON}): WHOLE,
}
Weights = dict[str, dict[str, float]]
"""Table, dataset.name, to column to bytes."""
LAYERS = ("start", "stg", "fct", "int", "agg", "dim", "dead", "landing", "tests")
STATE = ("watermarks", "rebuilds", "touched_partitions", "green_builds")


@dataclass(frozen=True, slots=True)
class Read:
    """A table that a statement reads."""

    statement: int
    node: str
    """model.stg_users, test.accounting_balances, snapshot.users_snapshot, or `start` for dbt's hooks."""
    table: str
    """dataset.name; of a model's own result, the model."""
    columns: frozenset[str]
    rewrites: bool
    days: str
    """Which partitions: LANDED, TOUCHED, ... or the dates, where they are none of these."""
    is_result: bool
    """Whether it is the temporary table from which the model is merged."""


class _Recorder(GoogleSQL):
    """Notes what each statement reads, as the tables are when it comes."""

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
    """What was sent to BigQuery.

    Attributes:
        first: statements of the first build, which has unit tests too.
        second: those of the incremental build.
        reads: what the second build, with its tests, reads.
    """

    project: BigQueryProject
    first: list[str]
    second: list[str]
    reads: list[Read]


def two_builds(work: Path) -> Builds:
    """Build the history and then the new day, in this folder."""
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
    warehouse.run("build", "--exclude-resource-type", "unit_test")
    reads = [
        read
        for number, (statement, found) in enumerate(sql.recorded)
        for read in _reads(number, statement, found, sql.partition_columns)
    ]
    sql.recorded = None
    return Builds(project, project.client.statements[:end_of_first], project.client.statements[end_of_first:], reads)


def _messages(day: date, name: str, session: str) -> list[Arrival]:
    """One of each stream, at noon, and one that is broken."""
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
        Arrival(0, 0, stream, f"{name} {number}", published, payload)
        for number, (stream, payload) in enumerate(payloads)
    ]


def _reads(number: int, sql: str, found: Sequence[Scan], partition_columns: dict[str, str]) -> Iterator[Read]:
    """A table that is scanned twice in a statement is one read, of the columns and days of both. To count all rows of a
    table reads no column, and costs nothing."""
    named = re.search(r'"node_id": "(\w+)\.event_warehouse\.(\w+)', sql)
    node = f"{named[1]}.{named[2]}" if named else "start"
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
            # a result is as large as what is new; of a model that counts days again, as those days
            is_new = is_landing or table == "fct_events" or base not in partition_columns
            kept = LANDED if is_new else TOUCHED
        elif base not in partition_columns:
            kept = UNPARTITIONED
        else:
            kept = (LANDING_DAYS if is_landing else EVENT_DAYS).get(days, ", ".join(map(str, sorted(days))))
        columns = frozenset[str]().union(*(scan.columns for scan in of_table))
        rewrites = any(scan.rewrites for scan in of_table)
        yield Read(number, node, f"{dataset}.{table}", columns, rewrites, kept, base != name)


def _without_suffix(table: str) -> str:
    return re.sub(r"__dbt_tmp\d*$", "", table)


# What is read, by model


def reads_table(reads: Sequence[Read], weights: Weights) -> str:
    """A row a model, or models that read alike. Results and the builds' own state are left out, but weighed."""
    models: dict[str, list[Read]] = defaultdict(list)
    for read in reads:
        models["tests" if read.node.startswith("test.") else read.node.split(".")[-1]].append(read)
    alike: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for model, of_model in models.items():
        if cells := _cells(model, of_model):
            alike[cells].append(model)
    rows = [
        "| model | reads of landed days | of touched days | of all days, or without partitions | rewrites "
        "| bytes, landed | touched | all |",
        "|---|---|---|---|---|--:|--:|--:|",
    ]
    # as the data flows: builds run models side by side, in no order
    for names, cells in sorted(
        ((sorted(names), cells) for cells, names in alike.items()),
        key=lambda row: (LAYERS.index(row[0][0].split("_")[0]), row[0]),
    ):
        total = cost([read for name in names for read in models[name]], weights)
        numbers = (f"{_rounded(number)}" for number in (total.landed, total.touched, total.whole))
        rows.append(f"| {_named(names)} | {' | '.join(cells)} | {' | '.join(numbers)} |")
    return "\n".join(rows)


def _cells(model: str, reads: Iterable[Read]) -> tuple[str, ...]:
    cells: dict[str, dict[str, str]] = {LANDED: {}, TOUCHED: {}, WHOLE: {}}
    rewritten = set()
    for read in reads:
        table = _called(read.table, model)
        if read.is_result or table in STATE:
            continue
        if read.rewrites:
            rewritten.add("all of itself" if read.days == UNPARTITIONED else read.days)
        elif read.days in (LANDED, TOUCHED):
            cells[read.days].setdefault(table, "")
        elif read.days in (WHOLE, UNPARTITIONED):
            cells[WHOLE][table] = ""
        else:
            cells[TOUCHED][table] = f" ({read.days.removeprefix(f'{TOUCHED} ')})"
    found = *map(_listed, cells.values()), ", ".join(sorted(rewritten)) or "-"
    return found if set(found) != {"-"} else ()


def _named(models: Sequence[str]) -> str:
    """Some have a name together."""
    if len(models) == len(STREAMS) and all(model.startswith("stg_") for model in models):
        return "`stg_*`"
    if all(model.endswith("_snapshot") for model in models):
        return "snapshots"
    if all(model.startswith("dim_") for model in models):
        return "`dim_*_history`"
    if len(models) > 1 and all(model.startswith("agg_") for model in models):
        return f"`agg_*`, {len(models)} of them"
    if models[0] in ("start", "tests"):
        return {"start": "start of a build", "tests": "all tests"}[models[0]]
    return ", ".join(f"`{model}`" for model in models)


def _called(table: str, model: str) -> str:
    """A table as seen from a model, so that models of one kind read the same."""
    dataset, name = table.split(".")
    entity = re.sub(r"^(stg|dim)_|_(history|snapshot)$", "", name)
    if name == model:
        return "itself"
    if dataset == "raw" and model == f"stg_{name}":
        return "its raw table"
    if name == f"stg_{entity}" and model == f"dim_{entity}_history":
        return "its staging"
    if name == f"dim_{entity}_history" and model in (f"{entity}_snapshot", f"dim_{entity}_snapshot"):
        return "its history"
    return f"raw.{name}" if dataset == "raw" else name


def _listed(tables: dict[str, str]) -> str:
    """Tables and what is to be said of each."""
    entities = ("users", "products", "posts")
    groups = {
        "raw": {f"raw.{stream}" for stream in STREAMS},
        "all staging": {f"stg_{stream}" for stream in STREAMS},
        "all events' staging": {f"stg_{stream}" for stream in STREAMS if stream not in entities},
        "all `agg_*`": {table for table in tables if table.startswith("agg_")},
        "histories": {f"dim_{entity}_history" for entity in entities},
        "snapshots": {f"{dim}{entity}_snapshot" for entity in entities for dim in ("", "dim_")},
    }
    left = dict(tables)
    listed = []
    for name, members in groups.items():
        if len(members) > 1 and members <= left.keys():
            listed.append(name)
            left = {table: note for table, note in left.items() if table not in members}
    listed += [f"{table if ' ' in table or table == 'itself' else f'`{table}`'}{note}" for table, note in left.items()]
    return ", ".join(sorted(listed)) or "-"


# What it weighs


def column_bytes(folder: Path) -> Weights:
    """What a column weighs for an event (of the six event streams), in bytes. The builds' own state, the dates and the
    countries weigh nothing: they do not grow with the events."""
    warehouse = Warehouse(folder)
    warehouse.simulate(SIMULATED_DAYS, SIMULATED_EVENTS)
    warehouse.land()
    warehouse.build("--exclude-resource-type", "test", "unit_test")
    found: Weights = {}
    with duckdb.connect(str(warehouse.path), read_only=True) as connection:
        [(events,)] = connection.sql("select count(*) from analytics.fct_events").fetchall()
        tables = connection.sql(
            "select table_schema, table_name, list((column_name, data_type)) from information_schema.columns "
            "where table_catalog = current_database() and (table_schema, table_name) in "
            "(select (schema_name, table_name) from duckdb_tables()) group by all order by all"
        ).fetchall()
        for dataset, table, columns in tables:
            if table in (*STATE, "dim_dates", "dim_countries"):
                continue
            sums = ", ".join(f"coalesce(sum({_logical_size(name, type_)}), 0)" for name, type_ in columns)
            [row] = connection.sql(f"select {sums} from {dataset}.{table}").fetchall()  # noqa: S608
            weights = (float(total) / events for total in row)
            found[f"{dataset}.{table}"] = {name: weight for (name, _), weight in zip(columns, weights, strict=True)}
    return found


def _logical_size(column: str, data_type: str) -> str:
    if data_type in ("VARCHAR", "JSON"):
        return f'2 + strlen("{column}")'
    if data_type == "BLOB":
        return f'2 + octet_length("{column}")'
    size = {"BOOLEAN": 1}.get(data_type, 16 if data_type.startswith("DECIMAL") else 8)
    return f'case when "{column}" is not null then {size} end'


@dataclass(frozen=True, slots=True)
class Cost:
    """Bytes."""

    landed: float
    """For an event that has landed since the last build."""
    touched: float
    """For an event of each touched day."""
    whole: float
    """For an event of all days."""


def cost(reads: Iterable[Read], weights: Weights) -> Cost:
    sums: Counter[str] = Counter()
    for read in reads:
        kind, weight = _weight(read, weights)
        sums[kind] += weight  # type: ignore[assignment]
    return Cost(sums[LANDED], sums[TOUCHED], sums[WHOLE])


def _weight(read: Read, weights: Weights) -> tuple[str, float]:
    columns = weights.get(read.table, {})
    weight = sum(columns.get(column, 0) for column in read.columns)
    if read.days in (LANDED, WHOLE, UNPARTITIONED):
        return read.days, weight
    return TOUCHED, weight * (2 if read.days == BEFORE else 1)


def billed(reads: Iterable[Read], weights: Weights, events: int, *, builds: int, late_days: int) -> float:
    """Bytes that a day of so many events is billed, over so many builds, each of which finds late events of so many
    days. A build reads all of a partition that is still growing; each table of a query costs 10 MiB at least. There
    are as many users, products and posts as the simulated shop has, in proportion to the events."""
    total = 0.0
    sizes = [_weight(read, weights) for read in reads]
    for build in range(1, builds + 1):
        share = build / builds
        days = {LANDED: share, TOUCHED: share + late_days, WHOLE: DAYS_OF_HISTORY, UNPARTITIONED: SIMULATED_DAYS}
        total += sum(max(LEAST_BYTES, weight * events * days[kind]) for kind, weight in sizes)
    return total


def sizes_table(reads: Sequence[Read], weights: Weights) -> str:
    """A row for each number of events a day, and what a build costs at least."""
    without = [read for read in reads if "fct_session_event_sequence" not in read.node]
    rows = [
        "| events a day | stored a day | one build a day | its largest query | 24 builds a day | 24, one of them with "
        "`fct_session_event_sequence` | a late day more, each build |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    stored = sum(weight for columns in weights.values() for weight in columns.values())
    for name, events in SIZES.items():
        once, hourly = (billed(reads, weights, events, builds=builds, late_days=0) for builds in (1, 24))
        hourly_without = billed(without, weights, events, builds=24, late_days=0)
        sequence = once - billed(without, weights, events, builds=1, late_days=0)
        late = billed(reads, weights, events, builds=1, late_days=1) - once
        by_query = defaultdict(list)
        for read in reads:
            by_query[read.statement].append(read)
        largest = max(billed(query, weights, events, builds=1, late_days=0) for query in by_query.values())
        cells = [_priced(once), _size(largest), *map(_priced, (hourly, hourly_without + sequence, late))]
        rows.append(f"| {name} | {_size(stored * events)} | {' | '.join(cells)} |")
    queries = len({read.statement for read in reads})
    least = f"{queries} queries of a build read {len(reads)} tables: {_size(len(reads) * LEAST_BYTES)} at least."
    return "\n".join([*rows, "", least])


def _priced(size: float) -> str:
    return f"{_size(size)}, ${_rounded(size / 2**40 * DOLLARS_PER_TIB)}"


def _size(size: float) -> str:
    for unit, power in (("PiB", 50), ("TiB", 40), ("GiB", 30), ("MiB", 20)):
        if size >= 2**power:
            return f"{_rounded(size / 2**power)} {unit}"
    return f"{_rounded(size)} bytes"


def _rounded(number: float) -> str:
    """Two digits that count."""
    if number >= 100:
        digits = len(str(int(number))) - 2
        return f"{round(number, -digits):,.0f}"
    return f"{number:.2g}" if number else "0"


def written(document: str, reads: Sequence[Read], weights: Weights) -> str:
    """The document with its tables written anew."""
    for name, table in (("sizes", sizes_table(reads, weights)), ("reads", reads_table(reads, weights))):
        begin, end = MARK.format(name), MARK.format(f"end of {name}")
        before, _, rest = document.partition(begin)
        _, _, after = rest.partition(end)
        document = f"{before}{begin}\n{table}\n{end}{after}"
    return document


def main() -> None:
    with TemporaryDirectory() as folder:
        reads = two_builds(Path(folder)).reads
        weights = column_bytes(Path(folder))
    DOCUMENT.write_text(written(DOCUMENT.read_text(), reads, weights))


if __name__ == "__main__":
    main()
