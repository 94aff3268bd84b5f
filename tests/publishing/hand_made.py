"""A warehouse whose builds are made by hand: what dbt's models and macros do to it, in milliseconds."""

import random
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import date, datetime, timedelta
from pathlib import Path
from unittest.mock import patch

import duckdb

from common.settings import Settings
from engines.duckdb.engine import DuckDBEngine
from engines.marts import Mart
from publishing.marts import Artifacts
from publishing.publish import publish
from publishing.versions import CURRENT, SEMANTIC_MANIFEST, published_folder

NOON = datetime(2026, 1, 5, 12)
STREAMS = ("clicks", "views")
FACTS = Mart("analytics", "facts", records_changes=True, partition_by="event_date")
DAILY = Mart(
    "analytics", "daily", records_changes=True, unique_key=("reporting_date", "brand"), partition_by="reporting_date"
)
LETTERS = Mart(
    "analytics",
    "letters",
    records_changes=True,
    unique_key=("stream", "landed_at"),
    partition_by="landed_at",
    unpublished=frozenset({"payload"}),
)
HISTORY = Mart("analytics", "history", records_changes=True, unique_key=("version_key",))
DATES = Mart("analytics", "dates")
LATEST = Mart("intermediate", "latest", is_view=True)
TOTALS = Mart("analytics", "totals", is_view=True)
OF_LATEST = Mart("analytics", "a_view_of_a_view", is_view=True)
MARTS = (FACTS, DAILY, LETTERS, HISTORY, DATES, LATEST, TOTALS, OF_LATEST)
TABLES = tuple(mart for mart in MARTS if not mart.is_view)

CREATE = """
create schema raw; create schema staging; create schema intermediate; create schema analytics; create schema snapshots;
create table raw.clicks (payload blob);
create table staging.stg_clicks as select 'secret' as text;
create table snapshots.seen as select 1 as n;
create table intermediate.watermarks
(node text, stream text, settings text, upper_bound timestamp, recorded_at timestamp);
create table intermediate.rebuilds (model text, step text, code text, recorded_at timestamp);
create table intermediate.touched_partitions (model text, partition_date date, recorded_at timestamp);
create table intermediate.rewritten_rows (model text, row_key text, recorded_at timestamp);
create table intermediate.pins (pin_id text, recorded_at timestamp);
create table intermediate.successful_builds (invocation_id text, recorded_at timestamp);
create table analytics.facts (event_key ubigint, stream text, event_date date, landed_at timestamp, brand text);
create table analytics.daily (reporting_date date, brand text, events bigint, note text);
create table analytics.letters (stream text, landed_at timestamp, reason text, payload blob);
create table analytics.history (version_key text, id int, price double, is_current boolean);
create table analytics.dates as select 1 as n;
create view intermediate.latest as select * from analytics.history where is_current;
create view analytics.totals as select brand, sum(events) as events from analytics.daily group by brand;
create view analytics.a_view_of_a_view as select count(*) as ids from intermediate.latest;
create view analytics.of_staging as select * from staging.stg_clicks;
"""


class HandMade:
    """Its builds are successful unless they say otherwise, and record what they change, as those of dbt do."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.settings = Settings(_env_file=None, warehouse_path=folder / "warehouse.duckdb")
        self.engine = DuckDBEngine(self.settings)
        self.clock = NOON
        self._landed_at = NOON
        self._random = random.Random(seed)
        self._number = 0
        with self.connected() as connection:
            connection.execute(CREATE)
        (folder / SEMANTIC_MANIFEST).write_text("{}")

    @contextmanager
    def connected(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with self.engine.warehouse().connection() as connection:
            yield connection

    def build(self, *, rebuilt: bool = False, successful: bool = True) -> None:
        """Land some messages and build every mart."""
        with self.connected() as connection:
            self.build_on(connection, rebuilt=rebuilt, successful=successful)

    def build_on(
        self, connection: duckdb.DuckDBPyConnection, *, rebuilt: bool = False, successful: bool = True
    ) -> None:
        self.clock += timedelta(seconds=self._random.randrange(1, 90_000))
        # as landing does, even if the clock went back
        self._landed_at = max(self.clock, self._landed_at + timedelta(microseconds=1))
        connection.execute("begin")
        self._facts(connection, rebuilt)
        self._daily(connection, rebuilt)
        self._letters(connection, rebuilt)
        self._history(connection, rebuilt)
        connection.execute(f"create or replace table analytics.dates as select range as n from range({self._draw(3)})")
        if successful:
            self._number += 1
            connection.execute(
                f"insert into intermediate.successful_builds select 'build {self._number}', {self._build_time()}"
            )
            connection.execute(
                "delete from intermediate.pins where recorded_at < (select min(recorded_at) from"
                " (from intermediate.pins order by recorded_at desc limit 20))"
            )
            for name in ("touched_partitions", "rewritten_rows"):
                connection.execute(
                    f"delete from intermediate.{name} where recorded_at < (select min(recorded_at) from"
                    " (select recorded_at from intermediate.pins"
                    " union all select max(recorded_at) from intermediate.successful_builds))"
                )
        connection.execute("commit")

    def publish(self) -> Path:
        """The folder of the new version."""
        with (
            patch("publishing.publish.compile_queries", lambda *_: []),
            patch("publishing.publish.read_artifacts", lambda _: Artifacts(MARTS, b"{}")),
        ):
            publish(self.settings, self.engine, [], self.settings.warehouse_path.parent)
        return self.current()

    def current(self) -> Path:
        return (published_folder(self.settings) / CURRENT).resolve()

    def published(self) -> Path:
        """The file of the current version."""
        return self.current() / self.settings.warehouse_path.name

    def tables(self) -> dict[str, list[tuple[object, ...]]]:
        """What is to be published: the rows of every table and view in some order."""
        with self.connected() as connection:
            return rows(connection)

    def _draw(self, below: int) -> int:
        return self._random.randrange(below)

    def _facts(self, connection: duckdb.DuckDBPyConnection, rebuilt: bool) -> None:
        days = set()
        for stream in STREAMS:
            if self._draw(4) == 0:
                continue
            for _ in range(self._draw(4)):
                day = self.clock.date() - timedelta(days=self._draw(4) * self._draw(9))
                days.add(day)
                connection.execute(
                    "insert into analytics.facts select hash(range, ?), ?, ?, ?, 'brand' || range from range(?)",
                    [self._draw(2**30), stream, day, self._landed_at, self._draw(10)],
                )
            self._watermark(connection, "facts", stream)
        self._record(connection, "facts", days, rebuilt)

    def _daily(self, connection: duckdb.DuckDBPyConnection, rebuilt: bool) -> None:
        days = {self.clock.date() - timedelta(days=self._draw(40)) for _ in range(self._draw(4))}
        for day in days:
            for _ in range(self._draw(5)):
                row = [day, f"brand {self._draw(5)}", self._draw(100), [None, "", "same"][self._draw(3)]]
                connection.execute("delete from analytics.daily where reporting_date = ? and brand = ?", row[:2])
                connection.execute("insert into analytics.daily values (?, ?, ?, ?)", row)
        if rebuilt:
            connection.execute(f"update analytics.daily set events = events + {self._draw(3)}")
        self._record(connection, "daily", days, rebuilt)

    def _letters(self, connection: duckdb.DuckDBPyConnection, rebuilt: bool) -> None:
        if rebuilt or self._draw(3):
            connection.execute(
                "insert into analytics.letters by name select 'clicks' as stream, ? as landed_at,"
                " 'malformed' as reason, 'secret'::blob as payload",
                [self._landed_at],
            )
            self._record(connection, "letters", {self._landed_at.date()}, rebuilt)

    def _history(self, connection: duckdb.DuckDBPyConnection, rebuilt: bool) -> None:
        if self._draw(2):
            id, key = self._draw(8), f"{self._random.getrandbits(60)}"
            connection.execute(
                "create or replace temp table versions as select * replace (false as is_current)"
                f" from analytics.history where id = {id}"
            )
            connection.execute(
                "insert into versions by name select ? as version_key, ? as id, ? as price, true as is_current",
                [key, id, self._draw(9)],
            )
            connection.execute(f"delete from analytics.history where id = {id}")
            connection.execute("insert into analytics.history by name from versions")
            connection.execute(
                "insert into intermediate.rewritten_rows"
                f" select 'history', version_key, {self._change_time()} from versions"
            )
            self._watermark(connection, "history", "clicks")
        self._record(connection, "history", set(), rebuilt)

    def _watermark(self, connection: duckdb.DuckDBPyConnection, model: str, stream: str) -> None:
        connection.execute(
            "insert into intermediate.watermarks values (?, ?, '{}', ?, ?)",
            [model, stream, self._landed_at, self.clock],
        )

    def _record(self, connection: duckdb.DuckDBPyConnection, model: str, days: set[date], rebuilt: bool) -> None:
        for day in [None] if rebuilt else days:
            connection.execute(
                f"insert into intermediate.touched_partitions select ?, ?, {self._change_time()}", [model, day]
            )
        if rebuilt:
            connection.execute(
                f"insert into intermediate.rebuilds select ?, 'done', '', {self._change_time()}", [model]
            )

    def _change_time(self) -> str:
        """As the macro of the dbt project."""
        last = [
            f"(select max(recorded_at) + interval 1 microsecond from intermediate.{name})"
            for name in ("pins", "successful_builds")
        ]
        return f"greatest(timestamp '{self.clock}', {', '.join(last)})"

    def _build_time(self) -> str:
        """As the macro of the dbt project."""
        others = ", ".join(
            f"(select max(recorded_at) from intermediate.{name})"
            for name in ("touched_partitions", "rewritten_rows", "rebuilds")
        )
        return f"greatest({self._change_time()}, {others})"


def rows(connection: duckdb.DuckDBPyConnection) -> dict[str, list[tuple[object, ...]]]:
    """The rows of every table and view that is to be published, in some order."""
    found = {}
    for mart in MARTS:
        relation = connection.sql(f"select * from {mart.schema}.{mart.name}")
        kept = [column for column in relation.columns if column not in mart.unpublished]
        found[mart.name] = sorted(relation.select(*kept).fetchall(), key=repr)
        found[f"columns of {mart.name}"] = [(column,) for column in kept]
    return found


def rows_of(file: Path) -> dict[str, list[tuple[object, ...]]]:
    with closing(duckdb.connect(str(file), read_only=True)) as connection:
        return rows(connection)
