"""Statements read the columns and partitions that BigQuery's documentation says."""

from collections import defaultdict
from datetime import date

import pytest

from tools.googlesql.engine import GoogleSQL
from tools.googlesql.scans import scans

pytestmark = [pytest.mark.bigquery, pytest.mark.timeout(600)]

EVENTS, LANDED, IDS, VIEW = (f"`p`.`d`.`{name}`" for name in ("events", "landed", "ids", "view"))
ON_TWO_DAYS = "event_date in (date '2026-01-02', date '2026-01-04')"
DAYS = [date(2026, 1, day) for day in range(1, 6)]


@pytest.fixture
def sql(google_sql: GoogleSQL) -> GoogleSQL:
    google_sql.tables.clear()
    google_sql.run(f"create table {EVENTS} (id string, event_date date, price int64)")
    google_sql.run(f"create table {LANDED} (id string, landed_at timestamp)")
    google_sql.run(f"create table {IDS} (id string)")
    google_sql.run(
        f"create view {VIEW} as select id, price * 2 as double_price, event_date as day from {EVENTS} "
        "union all select id, null, null from `p`.`d`.`ids`"
    )
    return google_sql


def read(sql: GoogleSQL, statement: str) -> dict[str, tuple[str, str]]:
    """Table to the columns and days of January that are read; all days for a table without partitions."""
    partitions = {"p.d.events": "event_date", "p.d.landed": "landed_at"}
    columns, days = defaultdict(set), defaultdict(set)
    for scan in scans(sql, statement, partitions.get):
        if any(map(scan.reads, DAYS)):
            name = scan.table.removeprefix("p.d.")
            columns[name] |= scan.columns
            days[name] |= {str(day.day) for day in filter(scan.reads, DAYS)}
    return {name: (" ".join(sorted(columns[name])), "".join(sorted(days[name]))) for name in columns}


CASES = {
    "constants prune": (f"select id from {EVENTS} where {ON_TWO_DAYS}", {"events": ("event_date id", "24")}),
    "a range of times prunes whole days only": (
        f"select id from {LANDED} "
        "where landed_at > timestamp '2026-01-02 12:00:00' and landed_at < timestamp '2026-01-04'",
        {"landed": ("id landed_at", "23")},
    ),
    "OR prunes where it names the partition column only": (
        f"select id from {EVENTS} where {ON_TWO_DAYS} or event_date < date '2026-01-02' or event_date is null",
        {"events": ("event_date id", "124")},
    ),
    "else OR prunes nothing": (
        f"select id from {EVENTS} where {ON_TWO_DAYS} or (id = 'a' and event_date = date '2026-01-01')",
        {"events": ("event_date id", "12345")},
    ),
    "a function of the column prunes nothing": (
        f"select 1 as one from {LANDED} where cast(landed_at as date) = date '2026-01-02'",
        {"landed": ("landed_at", "12345")},
    ),
    "a subquery prunes nothing": (
        f"select 1 as one from {EVENTS} where event_date in (select date '2026-01-02' from {IDS} where id = 'a')",
        {"events": ("event_date", "12345"), "ids": ("id", "12345")},
    ),
    "no day is null": (f"select id from {EVENTS} where event_date is null", {}),
    "through a view and its union, by another name": (
        f"select id from {VIEW} where day = date '2026-01-02'",
        {"events": ("event_date id", "2"), "ids": ("id", "12345")},
    ),
    "a computed column reads what it is made of": (
        f"select double_price from {VIEW}", {"events": ("price", "12345"), "ids": ("", "12345")}
    ),
    "through a CTE that is read twice": (
        f"with e as (select * from {EVENTS}) select id from e where event_date = date '2026-01-01' "
        "union all select id from e where event_date = date '2026-01-05'",
        {"events": ("event_date id", "15")},
    ),
    "not through a window": (
        f"select id from (select *, row_number() over (partition by id order by price) as n from {EVENTS}) as e "
        f"where {ON_TWO_DAYS}",
        {"events": ("event_date id", "12345")},
    ),
    "by the condition of a join, only the side that it names": (
        f"select e.id from {IDS} as i left join {EVENTS} as e on e.id = i.id and e.event_date = date '2026-01-03'",
        {"events": ("event_date id", "3"), "ids": ("id", "12345")},
    ),
    "not the left side of a left join": (
        f"select e.id from {EVENTS} as e left join {IDS} as i on e.id = i.id and e.event_date = date '2026-01-03'",
        {"events": ("event_date id", "12345"), "ids": ("id", "12345")},
    ),
    "nothing without columns": (
        f"select * from (select id, count(*) as n from {EVENTS} group by id) where false", {}
    ),
    "a correlated subquery prunes itself": (
        f"select id from {IDS} where not exists (select 1 from {EVENTS} as e where e.{ON_TWO_DAYS} and e.id = ids.id)",
        {"ids": ("id", "12345"), "events": ("event_date id", "24")},
    ),
    "MERGE rewrites all columns of the days of its condition": (
        f"merge into {EVENTS} as t "
        f"using (select id, event_date from {EVENTS} where event_date = date '2026-01-05') as s "
        f"on t.{ON_TWO_DAYS} and t.id = s.id when matched then update set id = s.id",
        {"events": ("event_date id price", "245")},
    ),
    "INSERT reads its query only": (
        f"insert into {EVENTS} (id, event_date) select id, date '2026-01-01' from {IDS}",
        {"ids": ("id", "12345")},
    ),
    "DELETE rewrites": (
        f"delete from {EVENTS} where {ON_TWO_DAYS}", {"events": ("event_date id price", "24")}
    ),
}  # fmt: skip


@pytest.mark.parametrize(("statement", "expected"), CASES.values(), ids=CASES.keys())
def test_reads(sql: GoogleSQL, statement: str, expected: dict[str, tuple[str, str]]) -> None:
    assert read(sql, statement) == expected
