"""What two DuckDB files must have in common to be the same warehouse."""

from pathlib import Path
from typing import Any

import duckdb

CATALOG = (
    "select schema_name, table_name, sql from duckdb_tables()",
    "select schema_name, table_name, column_name, column_index, data_type, is_nullable, column_default"
    " from duckdb_columns()",
    "select schema_name, table_name, constraint_type, constraint_text, constraint_column_names"
    " from duckdb_constraints()",
    "select schema_name, view_name from duckdb_views()",
    "select schema_name, sequence_name, start_value, increment_by from duckdb_sequences()",
    "select schema_name, table_name, index_name, sql from duckdb_indexes()",
)


def catalog(path: Path) -> list[list[tuple[Any, ...]]]:
    """Every table, column, constraint, view, sequence and index."""
    with duckdb.connect(str(path), read_only=True) as connection:
        ours = "where database_name = current_database()"
        internal = ("duckdb_columns", "duckdb_views")
        return [
            connection.sql(
                f"{select} {ours}{' and not internal' if any(name in select for name in internal) else ''} order by all"
            ).fetchall()
            for select in CATALOG
        ]


def rows(path: Path) -> dict[str, list[str]]:
    """The rows of every table and view, in order for tables. As text, which Python's values would round."""
    with duckdb.connect(str(path), read_only=True) as connection:
        names = connection.sql(
            "select table_schema, table_name, table_type from information_schema.tables order by all"
        ).fetchall()
        found = {}
        for schema, name, kind in names:
            of_one = [
                repr(row)
                for row in connection.sql(f'select cast(columns(*) as varchar) from "{schema}"."{name}"').fetchall()
            ]
            found[f"{schema}.{name}"] = sorted(of_one) if kind == "VIEW" else of_one
        return found


def assert_same(one: Path, other: Path) -> None:
    assert catalog(one) == catalog(other)
    here, there = rows(one), rows(other)
    assert here.keys() == there.keys()
    assert [name for name in here if here[name] != there[name]] == []
