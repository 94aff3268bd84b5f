"""GoogleSQL in memory does what BigQuery does. MERGE and DELETE are implemented in tools/googlesql."""

import pytest

from tools.googlesql.client import python_rows
from tools.googlesql.engine import GoogleSQL, GoogleSQLError

pytestmark = [pytest.mark.bigquery, pytest.mark.timeout(600)]

TARGET = "`p`.`d`.`target`"
MERGE = (
    f"merge into {TARGET} as target using (select * from `p`.`d`.`source`) as source on (source.id = target.id) "
    "when matched and source.kind = 'update' then update set n = source.n, name = upper(source.id) "
    "when not matched and source.kind = 'insert' then insert (`id`, `n`) values (`id`, `n`)"
)


@pytest.fixture
def sql(google_sql: GoogleSQL) -> GoogleSQL:
    google_sql.tables.clear()
    google_sql.run(
        f"create or replace table {TARGET} (id string not null, n int64, name string) as (\n"
        "select 'a' as id, 1 as n, 'one' as name union all select 'b', 2, null);"
    )
    return google_sql


def rows(sql: GoogleSQL) -> list[tuple[object, ...]]:
    return sorted(tuple(row.values()) for row in python_rows(sql.run(f"select * from {TARGET}")))


def create_source(sql: GoogleSQL, query: str) -> None:
    sql.run(f"create or replace table `p`.`d`.`source` as ({query})")


def test_merge_updates_and_inserts_by_its_clauses(sql: GoogleSQL) -> None:
    create_source(
        sql,
        "select 'a' as id, 10 as n, 'update' as kind union all select 'b', 20, 'other' "
        "union all select 'c', 30, 'insert' union all select 'd', 40, 'other'",
    )
    assert sql.run(MERGE).affected == 2
    assert rows(sql) == [("a", 10, "A"), ("b", 2, None), ("c", 30, None)]


def test_merge_rejects_two_source_rows_for_one_target_row(sql: GoogleSQL) -> None:
    create_source(sql, "select 'a' as id, 1 as n, 'update' as kind union all select 'a', 2, 'update'")
    with pytest.raises(GoogleSQLError, match="must match at most one source row"):
        sql.run(MERGE)


def test_delete_keeps_rows_whose_condition_is_null(sql: GoogleSQL) -> None:
    assert sql.run(f"delete from {TARGET} as old where old.name = 'one'").affected == 1
    assert rows(sql) == [("b", 2, None)]


def test_a_view_shows_the_current_rows_of_its_tables(sql: GoogleSQL) -> None:
    sql.run(f"create or replace view `p`.`d`.`counted` as select count(*) as n from {TARGET};")
    counted = "select n from `p`.`d`.`counted`"
    assert list(python_rows(sql.run(counted))) == [{"n": 2}]
    sql.run(f"insert into {TARGET} (id) select 'c'")
    assert list(python_rows(sql.run(counted))) == [{"n": 3}]


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        (f"insert into {TARGET} (n) select 1", "Required field id cannot be null"),
        (f"select id, id from {TARGET}", "Duplicate column names"),
        (f"select\n  nope from {TARGET}", r"Unrecognized name: nope.* \[at 2:3\]\n  nope from"),
        (f"select count(*) filter (where true) from {TARGET}", "Syntax error"),
        ("declare n int64; select 1", "Syntax error: Unexpected keyword DECLARE"),
        ("create schema if not exists d; create schema if not exists e", "Expected end of input"),
        (f"update {TARGET} set n = 1 where true", "UPDATE is analyzed, but cannot be executed here"),
    ],
)
def test_a_statement_is_rejected(sql: GoogleSQL, statement: str, message: str) -> None:
    with pytest.raises(GoogleSQLError, match=message):
        sql.run(statement)
