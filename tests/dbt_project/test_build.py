"""The main job, as a user does it: simulate, land, build, day after day."""

import json
import os
import random
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from dbt.cli.main import dbtRunnerResult

import dbt_project.__main__ as command
from common.settings import Settings
from engines.duckdb.sink import DuckDBSink
from tests.conftest import SHOP_OUTPUT
from tools import ROOT
from tools.warehouses.commands import Warehouse


@pytest.fixture
def warehouse(shop: Warehouse, tmp_path: Path) -> Warehouse:
    return shop.copy_to(tmp_path / "copy")


def full_refresh_of(warehouse: Warehouse, folder: Path, *arguments: str) -> Warehouse:
    refreshed = warehouse.copy_to(folder)
    refreshed.run_models("--full-refresh", *arguments)
    return refreshed


def test_every_mart_has_rows_and_the_accounting_balances(shop: Warehouse) -> None:
    assert {mart for mart, rows in shop.marts().items() if rows == 0} == {"stream_freshness"}  # only `live` measures it
    assert shop.query("select * from analytics.landing_reconciliation where not is_balanced") == []
    [(landed, rejected)] = shop.query("select sum(landed), sum(rejected) from analytics.landing_reconciliation")
    raw = " union all ".join(
        f"select count(*) as messages from raw.{stream}"
        for (stream,) in shop.query("select distinct stream from analytics.landing_reconciliation")
    )
    assert [(landed,)] == shop.query(f"select sum(messages) from ({raw})")
    assert [(rejected,)] == shop.query("select count(*) from analytics.dead_letters")


def test_a_build_ends_with_the_marts_and_their_rows(shop: Warehouse) -> None:
    lines = (shop.folder / SHOP_OUTPUT).read_text().splitlines()
    rows = {line.split()[0]: line.split()[1] for line in lines[1:-1]}
    assert rows["fct_events"] == f"{shop.marts()['fct_events']:,}"
    assert lines[-1].startswith("built in ")


@pytest.mark.slow
def test_a_day_more_equals_a_full_refresh_even_after_a_kill(warehouse: Warehouse, tmp_path: Path) -> None:
    before = warehouse.marts()
    warehouse.simulate(days=1)
    warehouse.land()
    build = subprocess.Popen(
        warehouse.command("dbt_project", "build"), cwd=ROOT, env=warehouse.environment, stdout=subprocess.DEVNULL
    )
    time.sleep(random.uniform(2, 6))
    build.send_signal(signal.SIGKILL)
    build.wait()
    warehouse.run_models()
    assert warehouse.marts()["fct_events"] > before["fct_events"]
    assert warehouse.differences(full_refresh_of(warehouse, tmp_path / "refreshed")) == {}


@pytest.mark.slow
def test_a_process_tells_how_it_ended_and_leaves_the_warehouse_closed(warehouse: Warehouse) -> None:
    nonsense = "{session_gap_seconds: soon}"
    assert "var session_gap_seconds" in warehouse.run("dbt_project", "build", "--vars", nonsense, expect=2).stderr
    # which publishes nothing, so that only closing it writes all to the file
    warehouse.run("dbt_project", "run", "--full-refresh", "--select", "stg_clicks")
    assert not warehouse.path.with_name(f"{warehouse.path.name}.wal").exists()


@pytest.mark.slow
def test_replayed_store_events_are_accounted_for(tmp_path: Path) -> None:
    header = "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session\n"
    rows = [f"2019-10-01 00:00:{second:02} UTC,view,{second},1,,acme,9.90,7,s\n" for second in range(50)]
    events = tmp_path / "events.csv"
    # two rows again, and a line that was cut
    events.write_text(header + "".join(rows) + rows[0] + rows[1] + "2019-10-01 00:01:00 UTC,view,4460\n")
    warehouse = Warehouse(tmp_path)
    warehouse.run("ingest", "replay", str(events), "--stream", "ecom_events")
    warehouse.land()
    warehouse.run_models()
    accounting = "select landed, accepted, duplicates, rejected, is_balanced from analytics.landing_reconciliation"
    assert warehouse.query(accounting) == [(53, 50, 2, 1, True)]
    assert warehouse.query("select reason from analytics.dead_letters") == [("malformed_json",)]


def test_a_changed_setting_stops_the_build_until_a_full_refresh(warehouse: Warehouse) -> None:
    longer_gap = ("--vars", json.dumps({"session_gap_seconds": 1800}))
    error = warehouse.build(*longer_gap, expect=2).stderr
    assert error.count("\n") == 1
    assert "session_gap_seconds=60, this build has 1800: run `make build FULL_REFRESH=1`" in error


@pytest.mark.slow
def test_a_full_refresh_takes_a_changed_setting(warehouse: Warehouse) -> None:
    longer_gap = ("--vars", json.dumps({"session_gap_seconds": 1800}))
    sessions = warehouse.marts()["fct_sessions"]
    warehouse.run_models("--full-refresh", *longer_gap)
    assert warehouse.marts()["fct_sessions"] < sessions
    warehouse.dbt("run", "--select", "fct_page_views", *longer_gap)
    assert "session_gap_seconds=1800" in warehouse.build(expect=2).stderr


@pytest.mark.slow
def test_days_of_another_time_zone(warehouse: Warehouse) -> None:
    """The hourly = daily = facts test runs within the build; here the days are counted from the facts by hand."""
    kolkata = ("--vars", json.dumps({"reporting_time_zone": "Asia/Kolkata"}))
    warehouse.run_models("--full-refresh", *kolkata)
    warehouse.simulate(days=1)
    warehouse.land()
    warehouse.build("--exclude-resource-type", "unit_test", *kolkata)
    assert warehouse.query(
        "select reporting_date, events from analytics.agg_events_daily order by 1"
    ) == warehouse.query(
        "select cast(event_at + interval 330 minute as date), count(*) from analytics.fct_events group by 1 order by 1"
    )
    starts = warehouse.query("select distinct minute(reporting_hour_at) from analytics.agg_events_hourly")
    assert starts == [(30,)]


@pytest.mark.slow
def test_tests_read_what_was_touched_and_a_failure_stays_until_it_is_mended(warehouse: Warehouse) -> None:
    of_facts = ("test", "--select", "fct_events")
    keys = "select min(event_key), max(event_key) from analytics.fct_events where event_date = "
    first, last = (
        warehouse.query(f"{keys} (select {which}(event_date) from analytics.fct_events)")[0] for which in ("min", "max")
    )
    # two events of one key, in a partition that no build has touched, are found by the sweep
    repeat = "update analytics.fct_events set event_key = '{1}' where event_key = '{0}'"
    warehouse.change(repeat.format(*first))
    warehouse.dbt(*of_facts)
    assert "unique_key_fct_events" in warehouse.dbt(*of_facts, "--vars", SWEEP, expect=1).stderr
    # in one that is touched they are found by tests until a build has passed them all
    warehouse.simulate(days=1)
    warehouse.land()
    warehouse.change(repeat.format(*last))
    warehouse.run_models()  # without tests, so that it says nothing of the marts
    for _ in range(2):
        assert "unique_key_fct_events" in warehouse.dbt(*of_facts, expect=1).stderr
    warehouse.build("--full-refresh", "--exclude-resource-type", "unit_test")
    warehouse.dbt(*of_facts, "--vars", SWEEP)
    warehouse.change(repeat.format(*last))
    warehouse.dbt(*of_facts)


def unit_tests() -> int:
    files = (ROOT / "dbt_project" / "models").rglob("*.yml")
    return sum(len(yaml.safe_load(file.read_text()).get("unit_tests", [])) for file in files)


SWEEP = json.dumps({"test_all_partitions": True})


@pytest.mark.slow
def test_only_what_is_new_is_done(warehouse: Warehouse) -> None:
    def passed() -> int:
        found = re.search(r"(\d+) pass", warehouse.build().stdout)
        assert found, "nothing new"
        return int(found[1])

    nothing_new = "nothing new: "
    tests_and_unit_tests = passed()
    again = warehouse.build().stdout
    assert nothing_new in again
    assert re.search(rf"fct_events +{warehouse.marts()['fct_events']:,}", again)
    warehouse.land()  # nothing waits
    assert nothing_new in warehouse.build().stdout
    queries = Path(f"{warehouse.path}.published/current/queries.json")
    marked = json.dumps(json.loads(queries.read_bytes()))
    queries.write_text(marked)
    # new messages, the same code: its unit tests have passed, and the queries are compiled
    warehouse.simulate(days=1)
    warehouse.land()
    assert tests_and_unit_tests - passed() == unit_tests()
    assert queries.read_text() == marked
    assert nothing_new in warehouse.build().stdout


@pytest.mark.slow
def test_a_lost_message_fails_the_build(warehouse: Warehouse) -> None:
    warehouse.simulate(days=1)
    warehouse.land()
    warehouse.run_models("--select", "staging")
    warehouse.change("delete from staging.stg_clicks where rowid = (select max(rowid) from staging.stg_clicks)")
    current = Path(f"{warehouse.path}.published/current")
    before = current.readlink()
    assert "accounting_balances" in warehouse.build("--exclude-resource-type", "unit_test", expect=1).stderr
    assert current.readlink() == before, "a build that failed publishes nothing"


def test_without_a_warehouse_the_error_says_what_to_run(tmp_path: Path) -> None:
    error = Warehouse(tmp_path).build(expect=2).stderr
    assert error.startswith("error: there is no warehouse at")
    assert "make ingest" in error


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (
            ["--vars", "{sesion_gap_seconds: 1800}"],
            "there is no var sesion_gap_seconds: did you mean session_gap_seconds?",
        ),
        (["--vars", "{session_gap: 1800}"], "there is no var session_gap: did you mean session_gap_seconds?"),
        (["--vars={sesion_gap_seconds: 1800}"], "there is no var sesion_gap_seconds: did you mean "),
        (["--vars", "{session_gap_seconds: abc}"], "var session_gap_seconds: Input should be a valid integer"),
        (["--vars", "{reporting_time_zone: Mars}"], "var reporting_time_zone: expected an IANA name"),
        (["--vars", "abc"], "vars must be a mapping"),
        (["--select", "no_such_model"], "the selection matches no model and no test"),
    ],
)
def test_a_build_that_cannot_mean_anything_is_one_line(warehouse: Warehouse, options: list[str], error: str) -> None:
    told = warehouse.build(*options, expect=2).stderr
    assert told.startswith(f"error: {error}")
    assert told.count("\n") == 1


def test_an_unknown_option_of_dbt_is_one_line(warehouse: Warehouse) -> None:
    error = warehouse.build("--no-such-option", expect=2).stderr
    assert error == "error: No such option '--no-such-option'.\n"


@pytest.mark.parametrize(("warehouse_name", "prefix"), [("bigquery", "dev_"), ("duckdb", "")])
def test_dbt_is_given_the_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, warehouse_name: str, prefix: str
) -> None:
    """The prefix is of BigQuery's datasets only: landing in DuckDB knows none."""
    names = ("WAREHOUSE", "GCP_PROJECT", "GCP_LOCATION", "DATASET_PREFIX", "WAREHOUSE_PATH")
    names = (*names, "BIGQUERY_MAXIMUM_BYTES_BILLED", "BIGQUERY_PRIORITY", "WAREHOUSE_MEMORY_LIMIT")
    for name in names:
        monkeypatch.setenv(name, "before")  # and put back at the end
    path = tmp_path / "warehouse.duckdb"
    if warehouse_name == "duckdb":
        DuckDBSink(path).create_tables()
    given = {"gcp_project": "shop", "gcp_location": "EU", "dataset_prefix": "dev_", "warehouse_path": path}
    limits = {"bigquery_maximum_bytes_billed": 5, "bigquery_priority": "batch", "warehouse_memory_limit": "2GiB"}
    settings = Settings(_env_file=None, warehouse=warehouse_name, **given, **limits)
    seen: list[str] = []

    def invoke(arguments: list[str]) -> dbtRunnerResult:
        seen.extend(os.environ[name] for name in names)
        return dbtRunnerResult(success=True)

    monkeypatch.setattr(command, "_invoke", invoke)
    monkeypatch.setattr("publishing.publish.publish", lambda *arguments: None)
    assert command.run(settings, ["build"]) == 0
    assert seen == [warehouse_name, "shop", "EU", prefix, str(path), "5", "batch", "2GiB"]
    assert path.exists() == (warehouse_name == "duckdb")


@pytest.mark.parametrize(
    ("arguments", "prefix", "expected"),
    [
        ({"which": "build"}, None, True),
        ({"which": "build", "exclude_resource_types": ("unit_test",)}, None, True),
        ({"which": "build", "target": "duckdb"}, None, True),
        ({"which": "run"}, None, False),
        ({"which": "build", "select": ("fct_events+",)}, None, False),
        ({"which": "build", "exclude": ("fct_events",)}, None, False),
        ({"which": "build", "exclude_resource_types": ("test", "unit_test")}, None, False),
        ({"which": "build", "target": "dev"}, None, False),
        ({"which": "build"}, "ann_", False),
    ],
)
def test_only_whole_builds_of_the_shared_marts_are_published(
    arguments: dict[str, object], prefix: str | None, expected: bool
) -> None:
    assert command.is_publishable(Settings(_env_file=None, build_prefix=prefix), arguments) is expected


def test_the_help_of_a_command_needs_no_warehouse(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    settings = Settings(_env_file=None, warehouse_path=tmp_path / "none.duckdb")
    assert command.run(settings, ["docs", "generate", "--help"]) == 0
    assert "Usage: cli docs generate [OPTIONS]" in capfd.readouterr().out


def test_the_help_says_what_is_published(capfd: pytest.CaptureFixture[str]) -> None:
    assert command.run(Settings(_env_file=None), ["--help"]) == 0
    ours, of_dbt = capfd.readouterr().out.split("\nUsage: ")
    assert len(ours.splitlines()) == 2
    assert "publishes" in ours
    assert "--version" in of_dbt


@pytest.mark.slow
def test_new_messages_without_dbts_runner_equal_a_full_refresh(warehouse: Warehouse, tmp_path: Path) -> None:
    warehouse.run("dbt_project", "build")  # the build server does not keep the parsed project
    warehouse.simulate(days=1)
    warehouse.land()
    assert "with new messages" in warehouse.run("dbt_project", "build").stdout
    assert "nothing new: " in warehouse.run("dbt_project", "build").stdout
    warehouse.change(
        "insert into analytics.stream_freshness values ('clicks', timestamp '2026-01-01', 1, 1, 1, 1, 1, 1, 1, 1)"
    )
    refreshed = warehouse.copy_to(tmp_path / "refreshed")
    refreshed.run_models("--full-refresh")
    assert warehouse.differences(refreshed) == {}
    assert refreshed.query("select stream from analytics.stream_freshness") == [("clicks",)], "only `live` knows it"
