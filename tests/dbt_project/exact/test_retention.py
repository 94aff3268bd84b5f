"""Retention: with old messages removed from raw and staging, marts are as specified by all that ever landed."""

import json
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from dbt.adapters.duckdb.connections import DuckDBConnectionManager

from common.settings import Settings as LandingSettings
from common.streams import STREAMS
from dbt_project.exactness.message import Message
from dbt_project.resident import ResidentProject
from dbt_project.warm import BuildError, environment, parsed
from engines.recovery import recovered_id
from specification import Landed, Settings, marts
from tests.dbt_project.exact import check
from tests.dbt_project.exact.conftest import REPOSITORY
from tests.dbt_project.exact.examples import examples
from tools.warehouses.in_process import Difference, Project, Warehouse, compare

FIRST_LANDING = datetime(2026, 3, 1, 10)
"""In the past: retention counts from the present."""
WORLDS = 40
LANDING_DAYS = 8
"""Within which all messages land."""
MADE_FROM_MESSAGES = [
    *("config.schema:staging", "fct_events", "dead_letters", "landing_reconciliation", "int_field_drift_daily"),
    *(f"dim_{stream}_history" for stream, contract in STREAMS.items() if contract.kind == "entity"),
]
"""As dbt selects them."""


class Retained(Warehouse):
    """A warehouse in which each build removes messages that are older than a random number of days."""

    def __init__(self, folder: Path, settings: Settings, project: "RetainedProject") -> None:
        super().__init__(folder, settings, project)
        self.rng = project.rng
        self.ever: dict[tuple[str, str, datetime], Landed] = {}
        """Every message that landed."""
        self.kept_from: dict[str, date] = {}
        """By setting, the first date from which everything is kept."""
        self.variables = json.dumps(settings.as_vars())

    def land(self, messages: Iterable[Message], landing_time: datetime) -> None:
        super().land(messages, landing_time)
        for one in self.raw():
            self.ever[one.stream, one.message_id, one.landed_at] = one

    def raw(self) -> list[Landed]:
        columns = ", ".join(Landed.__slots__)
        with self._sink.connection() as connection:
            return [
                Landed(*row)
                for stream in STREAMS
                for row in connection.sql(f"select {columns} from raw.{stream}").fetchall()
            ]

    def build(self, *options: str) -> None:
        """Build as `make build` does, so that what passed every test is removed."""
        if "--select" in options:  # builds of a part remove nothing
            super().build(*options)
            return
        if "--full-refresh" in options:
            self.refresh()
            return
        for name in ("RETENTION_RAW_DAYS", "RETENTION_DEAD_LETTER_DAYS"):
            if self.rng.random() < 0.7:
                kept_from = FIRST_LANDING.date() + timedelta(days=self.rng.randint(-2, LANDING_DAYS))
                self.kept_from[name] = max(kept_from, self.kept_from.get(name, kept_from))
        today = datetime.now(UTC).date()
        with environment({name: str((today - kept).days) for name, kept in self.kept_from.items()}):
            self._dbt("build", "--vars", self.variables, "--exclude-resource-type", "unit_test")

    def refresh(self) -> None:
        """Rebuild what is made from the facts. What is made from messages would lose those that are gone."""
        if len(self.raw()) < len(self.ever):
            with pytest.raises(BuildError, match=r"a rebuild of \w+ would lose \d+ messages"):
                super().build("--full-refresh")
        super().build("--full-refresh", "--exclude", *MADE_FROM_MESSAGES)

    def differences(self) -> list[Difference]:
        removed = """
            select stream, max(removed_before) from intermediate.removed_messages
            where kind = 'rejected' group by stream
        """
        removed_before = dict(self.query(removed))
        found: list[Difference] = []
        for mart, defined in marts(self.ever.values(), self._settings, self._project.countries).items():
            if mart == "dead_letters":
                defined = [  # noqa: PLW2901
                    row for row in defined if row["landed_at"] >= removed_before.get(row["stream"], row["landed_at"])
                ]
            found.extend(compare(mart, self.rows(f"analytics.{mart}"), defined))
        return found

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with self._sink.connection() as connection:
            return connection.sql(sql).fetchall()


class RetainedProject(Project):
    """The project, with warehouses that remove old messages."""

    rng: Random

    def warehouse(self, folder: Path, settings: Settings) -> Retained:
        return Retained(folder, settings, self)


@pytest.fixture(scope="module")
def retained(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RetainedProject]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check, "FIRST_LANDING", FIRST_LANDING)
        yield RetainedProject(REPOSITORY / "dbt_project", tmp_path_factory.mktemp("retained"))


@pytest.mark.slow
def test_marts_have_all_messages_that_ever_landed(retained: RetainedProject, seed: int) -> None:
    retained.rng = Random(seed)
    check.check_random_worlds(retained, Settings(), WORLDS, seed, examples(first_number=WORLDS), runs=4)


CLICK = {"click_id": "c", "user_id": "u", "product_id": "p", "datetime_occured": "2026-01-02 10:00:00", "price": 1}


def clicks(*ids: str, run: int = 0) -> list[Message]:
    """A click for each id; for `broken`, a message that is rejected."""
    return [
        Message(run, 0, "clicks", f"m-{id_}-{run}", FIRST_LANDING, b"{" if id_ == "broken" else body(id_))
        for id_ in ids
    ]


def body(id_: str) -> bytes:
    return json.dumps({**CLICK, "click_id": id_}).encode()


KEPT_FROM = FIRST_LANDING.date() + timedelta(days=2)


@pytest.fixture
def three_days(retained: RetainedProject, tmp_path: Path) -> Retained:
    """Clicks that landed on three days and are built, before anything is removed."""
    retained.rng = Random(0)
    warehouse = retained.warehouse(tmp_path, Settings())
    for day in range(3):
        warehouse.land(clicks(f"c{day}", f"d{day}", "broken", run=day), FIRST_LANDING + timedelta(days=day))
    Warehouse.build(warehouse)
    return warehouse


def build(warehouse: Retained, *options: str, **kept_from: date) -> None:
    """Run `dbt build` with these dates from which messages are kept."""
    today = datetime.now(UTC).date()
    with environment({name: str((today - kept).days) for name, kept in kept_from.items()}):
        warehouse._dbt("build", "--vars", warehouse.variables, "--exclude-resource-type", "unit_test", *options)


COUNTS = """
    select (select count(*) from raw.clicks), (select count(*) from staging.stg_clicks),
        (select count(*) from analytics.dead_letters), (select count(*) from analytics.fct_events)
"""


def test_each_kind_is_kept_for_its_own_time(three_days: Retained) -> None:
    assert three_days.query(COUNTS) == [(9, 9, 3, 6)]
    build(three_days, RETENTION_RAW_DAYS=KEPT_FROM)
    assert three_days.query(COUNTS) == [(5, 5, 3, 6)], "dead letters stay"
    build(three_days, RETENTION_RAW_DAYS=KEPT_FROM, RETENTION_DEAD_LETTER_DAYS=KEPT_FROM - timedelta(days=1))
    assert three_days.query(COUNTS) == [(4, 4, 2, 6)]
    build(three_days)
    assert three_days.query(COUNTS) == [(4, 4, 2, 6)], "without the settings, nothing more is removed"
    tomorrow = datetime.now(UTC).date() + timedelta(days=1)
    build(three_days, RETENTION_RAW_DAYS=tomorrow - timedelta(days=2), RETENTION_DEAD_LETTER_DAYS=KEPT_FROM)
    assert three_days.query(COUNTS) == [(3, 3, 1, 6)], "the date of the newest message stays"


def test_a_copy_of_a_removed_event_is_a_duplicate(three_days: Retained) -> None:
    build(three_days, RETENTION_RAW_DAYS=KEPT_FROM)
    three_days.land(clicks("c0", "new", run=3), FIRST_LANDING + timedelta(days=3))
    build(three_days, RETENTION_RAW_DAYS=KEPT_FROM)
    assert three_days.differences() == []
    duplicates = "select sum(duplicates), sum(accepted) from analytics.landing_reconciliation where stream = 'clicks'"
    assert three_days.query(duplicates) == [(1, 7)]


def test_a_dead_letter_of_a_removed_date_can_be_recovered(three_days: Retained) -> None:
    build(three_days, RETENTION_RAW_DAYS=KEPT_FROM)
    again = Message(3, 0, "clicks", recovered_id(FIRST_LANDING, "m-broken-0"), FIRST_LANDING, body("mended"))
    three_days.land([again], FIRST_LANDING + timedelta(days=3))
    build(three_days, RETENTION_RAW_DAYS=KEPT_FROM)
    assert three_days.differences() == []
    [of_the_date] = [
        (row["landed"], row["rejected"], row["recovered"])
        for row in three_days.rows("analytics.landing_reconciliation")
        if row["landed_date"] == FIRST_LANDING.date()
    ]
    assert of_the_date == (3, 1, 1)


def test_a_removal_that_was_killed_is_completed(three_days: Retained) -> None:
    """It was begun, and raw but not staging was deleted from."""
    with three_days._sink.connection() as connection:
        until = f"timestamp '{KEPT_FROM}'"
        connection.execute(
            f"insert into intermediate.removed_messages select 'clicks', 'accepted', 'begun', {until}, {until}"
        )
        connection.execute(f"delete from raw.clicks where landed_at < {until} and message_id like 'm-c%'")
    build(three_days, RETENTION_RAW_DAYS=KEPT_FROM)
    assert three_days.query(COUNTS) == [(5, 5, 3, 6)]


def test_a_failing_build_removes_nothing(three_days: Retained) -> None:
    with three_days._sink.connection() as connection:
        connection.execute("update analytics.landing_reconciliation set is_balanced = false where stream = 'clicks'")
    with pytest.raises(BuildError, match="accounting_balances"):
        build(three_days, RETENTION_RAW_DAYS=KEPT_FROM)
    assert three_days.query(COUNTS) == [(9, 9, 3, 6)]


def test_a_rebuild_loses_removed_messages_only_when_confirmed(three_days: Retained) -> None:
    build(three_days, RETENTION_RAW_DAYS=KEPT_FROM)
    with pytest.raises(BuildError, match=r"a rebuild of \w+ would lose 4 messages that retention has removed .*clicks"):
        build(three_days, "--full-refresh")
    with pytest.raises(BuildError, match="would lose 4 messages"):
        build(three_days, "--full-refresh", "--select", "fct_events+")
    build(three_days, "--full-refresh", "--select", "agg_events_daily")
    three_days.variables = json.dumps({**Settings().as_vars(), "lose_removed_messages": True})
    with pytest.raises(BuildError, match="rebuild everything"):
        build(three_days, "--full-refresh", "--select", "fct_events+")
    assert three_days.query(COUNTS) == [(5, 5, 3, 6)]
    build(three_days, "--full-refresh")
    assert three_days.query(COUNTS) == [(5, 5, 3, 2)]
    kept = {(one.stream, one.message_id, one.landed_at) for one in three_days.raw()}
    three_days.ever = {key: one for key, one in three_days.ever.items() if key in kept}
    assert three_days.differences() == []


def test_builds_without_dbts_runner_remove_messages_too(three_days: Retained) -> None:
    """As `live` and increments of `make build` do, after a round of tests."""
    build(three_days)  # creates the snapshots
    DuckDBConnectionManager.close_all_connections()
    settings = LandingSettings(
        _env_file=None,
        warehouse_path=three_days._path,
        retention_raw_days=(datetime.now(UTC).date() - KEPT_FROM).days,
    )
    engine = {"WAREHOUSE": "duckdb", "WAREHOUSE_PATH": str(three_days._path)}
    with (
        environment(engine),
        closing(
            ResidentProject(settings, json.loads(three_days.variables), parsed(REPOSITORY / "dbt_project", engine))
        ) as project,
    ):
        for run in (3, 4):
            three_days.land(clicks(f"new{run}", run=run), FIRST_LANDING + timedelta(days=run))
            project.build()
            project.snapshot()
            tests = project.begin_tests()
            project.test(tests, float("inf"))
            assert tests.failures == []
    assert three_days.query(COUNTS) == [(7, 7, 3, 8)]
    assert three_days.differences() == []
