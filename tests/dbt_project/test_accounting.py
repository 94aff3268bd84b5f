"""Whatever goes missing between raw and the marts fails the build, also where no message is new."""

import json
from pathlib import Path
from typing import Any

import pytest

from common.settings import Settings
from common.streams import STREAMS
from ingest.message import Message
from ingest.producers.spool import SpoolProducer
from tools.warehouses.commands import Warehouse

ACCOUNTED = "every_message_is_accounted_for"


@pytest.fixture
def warehouse(shop: Warehouse, tmp_path: Path) -> Warehouse:
    return shop.copy_to(tmp_path / "copy")


def publish(warehouse: Warehouse, stream: str, *bodies: dict[str, Any]) -> None:
    messages = [Message(json.dumps(body).encode()) for body in bodies]
    SpoolProducer(Settings(_env_file=None, spool_path=warehouse.folder / "spool")).produce(STREAMS[stream], messages)


def land_a_click(warehouse: Warehouse, click_id: str) -> None:
    click = {"click_id": click_id, "user_id": "u", "product_id": "p", "datetime_occured": "2026-01-02 10:00:00"}
    publish(warehouse, "clicks", click)
    warehouse.land()


def has_click(warehouse: Warehouse, click_id: str) -> bool:
    return warehouse.query(f"select count(*) from analytics.fct_events where event_id = '{click_id}'") == [(1,)]


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["build"], id="build"),
        pytest.param(["run"], marks=pytest.mark.slow, id="run"),
        pytest.param(["run", "--full-refresh"], marks=pytest.mark.slow, id="full refresh"),
    ],
)
def test_a_run_that_reads_no_rows_is_refused_and_changes_nothing(warehouse: Warehouse, command: list[str]) -> None:
    """It would pass messages over, leave views without rows, and tell snapshots that everything was deleted."""
    land_a_click(warehouse, "waiting")
    before = warehouse.path.read_bytes()
    error = warehouse.dbt(*command, "--empty", expect=2).stderr
    assert error.startswith("error: --empty and --sample cannot be used here: ")
    assert error.count("\n") == 1
    assert warehouse.path.read_bytes() == before
    assert not has_click(warehouse, "waiting")
    if command == ["build"]:  # once is enough: the file is the same byte for byte in every case
        warehouse.dbt("run", "--select", "stg_clicks", "fct_events")
        assert has_click(warehouse, "waiting")


MISSING = {
    "raw.clicks": "delete from raw.clicks where landed_at = (select min(landed_at) from raw.clicks)",
    "staging.stg_users": "delete from staging.stg_users where user_id = (select min(user_id) from staging.stg_users)",
    "analytics.fct_events": "delete from analytics.fct_events where event_type = 'click'",
    "analytics.dim_posts_history": "delete from analytics.dim_posts_history where version_number > 1",
    "analytics.dead_letters": "delete from analytics.dead_letters where stream = 'page_views'",
    "raw.checkouts": "delete from analytics.landing_reconciliation where stream = 'checkouts'",
    "raw.signups, which has no contract: bring back streams/signups.yml, or drop it and build with FULL_REFRESH=1": (
        "create table raw.signups as select * from raw.clicks"
    ),
}
"""Where the test says that rows are missing or too many, and what made it so."""


@pytest.mark.parametrize(("relation", "change"), MISSING.items(), ids=MISSING.keys())
def test_rows_that_are_missing_anywhere_fail_the_build(warehouse: Warehouse, relation: str, change: str) -> None:
    """Though no message is new, so that no date is counted again."""
    warehouse.change(change)
    error = warehouse.dbt("test", "--select", ACCOUNTED, expect=1).stderr
    assert f"relation={relation}" in error


def test_messages_that_never_reached_staging_fail_the_build(warehouse: Warehouse) -> None:
    """Watermarks that moved without their messages being read, as an empty run once did."""
    warehouse.change(
        "insert into intermediate.watermarks by name"
        " select * replace (timestamp '2999-01-01' as upper_bound) from intermediate.watermarks where stream = 'clicks'"
    )
    land_a_click(warehouse, "unread")
    warehouse.dbt("run", "--select", "stg_clicks", "fct_events", "landing_reconciliation")
    assert not has_click(warehouse, "unread")
    assert "relation=raw.clicks, found=" in warehouse.dbt("test", "--select", ACCOUNTED, expect=1).stderr


EARLIER = {
    "as the version before left it": "alter table intermediate.watermarks rename column upper_bound to upto;"
    "alter table intermediate.successful_builds rename to green_builds",
    "killed between the renames": "alter table intermediate.successful_builds rename to green_builds",
    "the version before ran again": "create table intermediate.green_builds (invocation_id text)",
}
"""State of a warehouse to the SQL that makes it so."""


@pytest.mark.parametrize("change", EARLIER.values(), ids=EARLIER.keys())
def test_a_build_migrates_the_state_of_an_earlier_version(warehouse: Warehouse, change: str) -> None:
    read = "select node, stream, max(upper_bound) from intermediate.watermarks group by all order by all"
    passed = "select * from intermediate.successful_builds"
    before = warehouse.query(read), warehouse.query(passed)
    warehouse.change(change)
    warehouse.dbt("run", "--select", "stg_clicks")
    assert (warehouse.query(read), warehouse.query(passed)) == before
    tables = warehouse.query("select table_name from information_schema.tables where table_schema = 'intermediate'")
    assert ("green_builds",) not in tables


@pytest.mark.slow
def test_a_build_of_some_models_is_no_gap(warehouse: Warehouse) -> None:
    """What one model has read and another has not is left for the next build."""
    land_a_click(warehouse, "new")
    warehouse.dbt("run", "--select", "stg_clicks", "fct_events")
    warehouse.dbt("test", "--select", ACCOUNTED)
    warehouse.dbt("run")
    warehouse.dbt("test", "--select", ACCOUNTED)


def test_conflicting_copies_are_counted_beside_true_ones(warehouse: Warehouse) -> None:
    click = {"click_id": "c", "user_id": "u", "product_id": "p", "datetime_occured": "2026-01-02 10:00:00", "price": 1}
    publish(warehouse, "clicks", click, click, {**click, "price": 2})
    [before] = warehouse.query(COUNTS)
    warehouse.land()
    warehouse.dbt("run", "--select", "stg_clicks", "fct_events", "dead_letters", "landing_reconciliation")
    [after] = warehouse.query(COUNTS)
    assert [new - old for old, new in zip(before, after, strict=True)] == [3, 1, 2, 1]


COUNTS = """
    select sum(landed), sum(accepted), sum(duplicates), sum(conflicting)
    from analytics.landing_reconciliation where stream = 'clicks'
"""


def test_a_full_refresh_does_not_lose_what_is_gone_from_raw(warehouse: Warehouse) -> None:
    events = warehouse.marts()["fct_events"]
    warehouse.change("delete from raw.clicks where landed_at = (select min(landed_at) from raw.clicks)")
    error = warehouse.dbt("build", "--full-refresh", expect=2).stderr
    assert error.startswith("error: raw.clicks has 0 of the ")
    assert error.count("\n") == 1
    assert warehouse.marts()["fct_events"] == events


@pytest.mark.slow
def test_without_the_accounting_a_full_refresh_takes_what_is_there(warehouse: Warehouse) -> None:
    events = warehouse.marts()["fct_events"]
    warehouse.change("delete from raw.clicks where landed_at = (select min(landed_at) from raw.clicks)")
    warehouse.change("drop table analytics.landing_reconciliation")
    warehouse.run_models("--full-refresh")
    assert warehouse.marts()["fct_events"] < events


def test_a_rebuild_of_one_model_reaches_what_is_made_from_it(warehouse: Warehouse) -> None:
    """As when a rule of a staging model was mended: what it rejected before is accepted now."""
    purchases = "select sum(purchases) from analytics.agg_events_daily"
    right = warehouse.query(purchases)
    warehouse.change(
        "update staging.stg_ecom_events set reject_reason = 'invalid:price', event_key = null"
        " where event_type = 'purchase'"
    )
    made_from_it = ("run", "--select", "fct_events", "agg_events_daily")
    warehouse.dbt(*made_from_it, "--full-refresh")
    assert warehouse.query(purchases) < right
    warehouse.dbt("run", "--full-refresh", "--select", "stg_ecom_events")
    assert "fct_events is rebuilt because stg_ecom_events was rebuilt" in warehouse.dbt(*made_from_it).stderr
    assert warehouse.query(purchases) == right
    rebuilds = warehouse.query("select count(*) from intermediate.rebuilds")
    assert warehouse.dbt(*made_from_it).stderr == ""
    assert warehouse.query("select count(*) from intermediate.rebuilds") == rebuilds, "once is enough"


def test_a_model_without_a_table_rebuilds_what_is_made_from_it(warehouse: Warehouse) -> None:
    warehouse.change("drop table staging.stg_clicks")
    built = warehouse.dbt("run", "--select", "stg_clicks", "fct_events", "agg_events_daily")
    assert "fct_events is rebuilt because stg_clicks did not exist" in built.stderr
    assert "agg_events_daily is rebuilt because fct_events was rebuilt" in built.stderr


def test_a_new_stream_rebuilds_nothing(warehouse: Warehouse) -> None:
    """Its messages are new to everything that reads it."""
    clicks = """
        select count(*), (select count(*) from intermediate.rebuilds)
        from analytics.fct_events where stream = 'clicks'
    """
    [(events, rebuilds)] = warehouse.query(clicks)
    warehouse.change(
        "drop table staging.stg_clicks; delete from intermediate.watermarks where stream = 'clicks' and node != 'raw';"
        "delete from intermediate.rebuilds where model = 'stg_clicks';"
        "delete from analytics.fct_events where stream = 'clicks'"
    )
    for _ in range(2):
        assert warehouse.dbt("run", "--select", "stg_clicks", "fct_events", "agg_events_daily").stderr == ""
    assert warehouse.query(clicks) == [(events, rebuilds)], "only stg_clicks, which had been forgotten"


def test_a_model_whose_code_changed_is_named(warehouse: Warehouse) -> None:
    warehouse.change("update intermediate.rebuilds set code = 'another' where model = 'fct_events'")
    said = warehouse.dbt("run", "--select", "fct_events", "agg_events_daily").stderr
    assert said.startswith("fct_events has changed since its rows were built")
    assert said.count("\n") == 1
