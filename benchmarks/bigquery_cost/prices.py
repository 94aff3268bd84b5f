"""How many bytes each column holds per event, and what BigQuery bills for reading them.

Columns are weighed in seven simulated days that are built on DuckDB, by BigQuery's logical sizes
(https://cloud.google.com/bigquery/pricing#data).
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import duckdb

from benchmarks.bigquery_cost.builds import BEFORE, LANDED, STATE, TOUCHED, UNPARTITIONED, WHOLE, Read
from tools.warehouses.commands import Warehouse

DAYS_OF_HISTORY = 365
SIMULATED_DAYS, SIMULATED_EVENTS = 7, 20_000
MIN_BYTES = 10 * 2**20
"""Minimum bytes billed per table of a query (https://cloud.google.com/bigquery/pricing#on_demand_pricing)."""
DOLLARS_PER_TIB = 6.25
Weights = dict[str, dict[str, float]]
"""Table (`dataset.name`) to column to bytes per event."""


def column_bytes(folder: Path) -> Weights:
    """Bytes of each column per event of the six event streams.

    Without the state of builds, dates and countries, which do not grow with the events.
    """
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
    """Bytes that a build reads."""

    landed: float
    """Per event that has landed since the last build."""
    touched: float
    """Per event of each touched day."""
    whole: float
    """Per event of all days."""


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
    """Bytes billed for a day.

    Every build reads the whole partition that is still growing, and at least MIN_BYTES per table of a query. Users,
    products and posts grow with the events as in the simulated shop.

    Args:
        events: events per day.
        builds: builds per day.
        late_days: days for which each build finds late events.
    """
    total = 0.0
    sizes = [_weight(read, weights) for read in reads]
    for build in range(1, builds + 1):
        share = build / builds
        days = {LANDED: share, TOUCHED: share + late_days, WHOLE: DAYS_OF_HISTORY, UNPARTITIONED: SIMULATED_DAYS}
        total += sum(max(MIN_BYTES, weight * events * days[kind]) for kind, weight in sizes)
    return total


def rounded(number: float) -> str:
    """Two significant digits."""
    if number >= 100:
        digits = len(str(int(number))) - 2
        return f"{round(number, -digits):,.0f}"
    return f"{number:.2g}" if number else "0"
