"""Makes the tables and views of a published file equal those of the warehouse, at the cost of what changed."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime

import duckdb

from common.logs import log
from engines.duckdb.changes import REWRITTEN, Changes
from engines.marts import Mart

Name = tuple[str, str]
"""Schema and name."""
Columns = tuple[Name, ...]
"""Name and type of each column, in order."""


def write_tables(cursor: duckdb.DuckDBPyConnection, alias: str, marts: Sequence[Mart], changes: Changes | None) -> bool:
    """Write every table of `marts` that the warehouse has.

    Args:
        cursor: of the warehouse, in a transaction.
        alias: under which the published file is attached.
        changes: since the published file was current; None if that cannot be told.

    Returns:
        Whether a table has other columns than before.
    """
    warehouse = current_database(cursor)
    columns = _columns(cursor, warehouse, alias)
    tables = []
    for mart in marts:
        found = columns.get((warehouse, mart.schema, mart.name), ())
        if found and not mart.is_view:
            kept = tuple(column for column in found if column[0] not in mart.unpublished)
            tables.append(_Table(cursor, warehouse, alias, mart, kept))
    for schema in {mart.schema for mart in marts}:
        cursor.execute(f"create schema if not exists {alias}.{quoted(schema)}")
    wanted = {(table.mart.schema, table.mart.name) for table in tables}
    existing = {(schema, name): kept for (database, schema, name), kept in columns.items() if database == alias}
    for schema, name in existing.keys() - wanted:
        cursor.execute(f"drop table {alias}.{quoted(schema)}.{quoted(name)}")
    others = [table for table in tables if existing.get((table.mart.schema, table.mart.name)) != table.columns]
    for table in tables:
        if table in others or changes is None or not table.update(changes):
            table.replace()
    for table in _with_other_counts(cursor, tables):
        log.warning("a table changed without a record of it: published whole", table=table.mart.name)
        table.replace()
    return bool(others)


class _Table:
    """A table of the warehouse, and the published one."""

    def __init__(
        self, cursor: duckdb.DuckDBPyConnection, warehouse: str, alias: str, mart: Mart, columns: Columns
    ) -> None:
        self._cursor = cursor
        self.mart = mart
        self.columns = columns
        """Those that are published."""
        name = f"{quoted(mart.schema)}.{quoted(mart.name)}"
        self._source = f"{quoted(warehouse)}.{name}"
        self._target = f"{alias}.{name}"
        self._names = [column for column, _ in columns]
        self._columns = ", ".join(map(quoted, self._names))

    def replace(self) -> None:
        self._cursor.execute(f"create or replace table {self._target} as select {self._columns} from {self._source}")

    @property
    def has_equal_count(self) -> str:
        """SQL that compares the numbers of rows, which DuckDB knows without reading any."""
        return f"(select count(*) from {self._source}) = (select count(*) from {self._target})"

    def update(self, changes: Changes) -> bool:
        """Apply what changed; returns whether it can be told."""
        mart = self.mart
        dates = changes.dates.get(mart.name, frozenset())
        before, after = changes.before.get(mart.name, {}), changes.after.get(mart.name, {})
        if not mart.records_changes:
            return self._is_equal()
        if None in dates:
            return False
        if not dates and (mart.partition_by or before == after):
            return True
        where = _in_dates(mart.partition_by, [day for day in dates if day]) if mart.partition_by else "true"
        if not mart.unique_key and {"stream", "landed_at"} <= {*self._names}:
            self._insert(f"{where} and {_landed_after(before, after)}")
        elif not {*mart.unique_key} <= {*self._names} or not mart.unique_key:
            self._cursor.execute(f"delete from {self._target} where {where}")
            self._insert(where)
        elif len(mart.unique_key) == 1 and mart.unique_key[0] != mart.partition_by:
            self._copy_rewritten_rows(where, changes.since)
        else:
            self._copy_different_rows(where)
        return True

    def _is_equal(self) -> bool:
        """Compare all rows, in any order, by the sum of their hashes."""
        total = f"select (count(*), sum(hash({self._columns}))) from"
        return bool(self._value(f"select ({total} {self._source}) = ({total} {self._target})"))

    def _value(self, query: str) -> object:
        return self._cursor.execute(query).fetchall()[0][0]

    def _insert(self, where: str) -> None:
        self._cursor.execute(
            f"insert into {self._target} ({self._columns}) select {self._columns} from {self._source} where {where}"
        )

    def _copy_rewritten_rows(self, where: str, since: datetime) -> None:
        """Copy the rows that builds recorded as rewritten."""
        [key] = map(quoted, self.mart.unique_key)
        self._cursor.execute(f"create or replace temp table rewritten as {REWRITTEN}", [self.mart.name, since])
        is_rewritten = f"{where} and cast({key} as varchar) in (from rewritten)"
        self._cursor.execute(f"delete from {self._target} where {is_rewritten}")
        # by rowid, DuckDB reads the other columns of these rows only
        self._insert(f"rowid in (select rowid from {self._source} where {is_rewritten})")

    def _copy_different_rows(self, where: str) -> None:
        """Copy the rows that differ, found by a hash of 64 bits."""
        key = ", ".join(map(quoted, self.mart.unique_key))
        rows = f"select {key}, rowid as _row, hash({self._columns}) as _hash from"
        [(differing,)] = self._cursor.execute(
            f"""
            create or replace temp table differing as
            select here._row as here, there._row as there
            from ({rows} {self._source} where {where}) as here
            full join ({rows} {self._target} where {where}) as there using ({key})
            where here._hash is distinct from there._hash
            """
        ).fetchall()
        if differing:
            self._cursor.execute(f"delete from {self._target} where rowid in (select there from differing)")
            self._insert("rowid in (select here from differing)")


def _with_other_counts(cursor: duckdb.DuckDBPyConnection, tables: Sequence[_Table]) -> list[_Table]:
    """The tables whose numbers of rows are not those of the warehouse."""
    if not tables:
        return []
    compared = ", ".join(table.has_equal_count for table in tables)
    are_equal = cursor.execute(f"select {compared}").fetchall()[0]
    return [table for table, is_equal in zip(tables, are_equal, strict=True) if not is_equal]


def write_views(cursor: duckdb.DuckDBPyConnection, alias: str, views: Mapping[Name, str]) -> None:
    """Create the views of `views`; one that reads what is not published is left out.

    Args:
        cursor: uses the published file afterwards.
        views: name to the statement that creates it, as DuckDB returns it: without the name of a database.
    """
    cursor.execute(f"use {alias}")
    for schema, name in read_views(cursor, alias):
        cursor.execute(f"drop view {quoted(schema)}.{quoted(name)}")
    failed: dict[Name, str] = {}
    left = dict(views)
    is_stuck = False
    while left and not is_stuck:  # a view may read another
        failed = {}
        for view, statement in left.items():
            try:
                cursor.execute(statement)
            except (duckdb.CatalogException, duckdb.BinderException) as error:
                failed[view] = str(error).splitlines()[0]
        is_stuck = len(failed) == len(left)
        left = {view: left[view] for view in failed}
    for (schema, name), reason in failed.items():
        log.warning("a view reads what is not published: left out", view=f"{schema}.{name}", reason=reason)


def read_views(cursor: duckdb.DuckDBPyConnection, database: str) -> dict[Name, str]:
    """The statements that create the views of a database, by name."""
    found = cursor.execute(
        "select schema_name, view_name, sql from duckdb_views() where not internal and database_name = ?", [database]
    ).fetchall()
    return {(schema, name): statement for schema, name, statement in found}


def _columns(cursor: duckdb.DuckDBPyConnection, *databases: str) -> dict[tuple[str, str, str], Columns]:
    """The columns of each table by database, schema and name."""
    found = cursor.execute(
        """
        select database_name, schema_name, table_name, list((column_name, data_type) order by column_index)
        from duckdb_columns()
        semi join duckdb_tables() using (database_oid, table_oid)
        where list_contains(?, database_name)
        group by all
        """,
        [databases],
    ).fetchall()
    return {(database, schema, name): tuple(columns) for database, schema, name, columns in found}


def current_database(cursor: duckdb.DuckDBPyConnection) -> str:
    return str(cursor.execute("select current_database()").fetchall()[0][0])


def quoted(name: str) -> str:
    """A name as an identifier of SQL."""
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def _in_dates(column: str, dates: Iterable[date]) -> str:
    """A condition by which DuckDB skips blocks of rows, on a column of dates or timestamps."""
    ranges: list[list[date]] = []
    for day in sorted(dates):
        if ranges and (day - ranges[-1][1]).days == 1:
            ranges[-1][1] = day
        else:
            ranges.append([day, day])
    of = quoted(column)
    found = [f"({of} >= date '{first}' and {of} < date '{last}' + 1)" for first, last in ranges]
    whole = f"{of} >= date '{ranges[0][0]}' and {of} < date '{ranges[-1][1]}' + 1"
    return f"{whole} and ({' or '.join(found)})" if len(ranges) > 1 else whole


def _landed_after(before: Mapping[str, datetime], after: Mapping[str, datetime]) -> str:
    """The rows that landed after the watermark of their stream, of the streams whose watermarks differ."""
    conditions = []
    for stream, upper_bound in after.items():
        if stream not in before:
            conditions.append(f"stream = '{stream}'")
        elif upper_bound != before[stream]:
            conditions.append(f"(stream = '{stream}' and landed_at > timestamp '{before[stream]}')")
    return f"({' or '.join(conditions)})" if conditions else "false"
