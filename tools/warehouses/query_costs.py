"""Rows that incremental models read and rewrite, counted by DuckDB's EXPLAIN ANALYZE of the queries that a build
compiled.
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb

from tools import ROOT


def costs(target: Path, warehouse: Path) -> dict[str, tuple[int, int]]:
    """By incremental model: rows read and rows rewritten by the last build.

    Args:
        target: where dbt wrote the artifacts of that build.
    """
    found = {}
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        for model, query in incremental_queries(target):
            reads: Counter[str] = Counter()
            _count_scans(plan_of(connection, query), reads)
            rewritten = connection.sql(f"select count(*) from ({query})").fetchall()[0][0]
            # Histories of entities are small compared with events, and no plan shows which of their rows a join needs.
            read = sum(rows for table, rows in reads.items() if not table.endswith("_history"))
            found[model] = (read, rewritten)
    return found


def incremental_queries(target: Path) -> Iterator[tuple[str, str]]:
    """Name and compiled query of each incremental model."""
    for node in json.loads((target / "manifest.json").read_text())["nodes"].values():
        if node["resource_type"] == "model" and node["config"]["materialized"] == "incremental":
            yield node["name"], (ROOT / "dbt_project" / node["compiled_path"]).read_text()


def plan_of(connection: duckdb.DuckDBPyConnection, query: str) -> Any:
    """The plan of a query that DuckDB ran to count the rows of each operator."""
    explained = connection.execute(f"explain (analyze, format json) {query}").fetchall()[0][1]
    return json.loads(explained)["operator"][0]


def _count_scans(plan: dict[str, Any], reads: Counter[str], passed: int | None = None) -> None:
    """Add the rows of each scan to its table: after the filter right above it, which passes this many rows."""
    rows = plan["intermediate_rows"]
    table = plan["extra_info"].get("Table")
    if table is not None:
        reads[table.split(".")[-1]] += rows if passed is None else min(rows, passed)
    for child in plan.get("children", []):
        _count_scans(child, reads, rows if plan["type"] == "FILTER" else None)
