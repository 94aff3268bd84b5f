"""dbt by itself, without `make`: where it looks, what it says, and models of one's own beside the project's."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkout import copy_project
from tools.warehouses.commands import Warehouse

OWN = ("WAREHOUSE", "SPOOL_", "DBT_", "BUILD_PREFIX", "DATASET_PREFIX")
DBT = str(Path(sys.executable).with_name("dbt"))


@pytest.fixture
def checkout(shop: Warehouse, tmp_path: Path) -> Path:
    """The project with a built warehouse at its top."""
    copy_project(tmp_path, ("dbt_project", "snapshots", "analyses"))
    (tmp_path / "profiles.yml").symlink_to("dbt_project/profiles.yml")
    shutil.copy(shop.path, tmp_path / "warehouse.duckdb")
    return tmp_path


def dbt(folder: Path, *arguments: str, expect: int = 0, **variables: str) -> str:
    """What plain dbt prints when it is run in a folder."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(OWN)}
    done = subprocess.run(
        [DBT, "--no-use-colors", *arguments],
        cwd=folder,
        env={**inherited, "PWD": str(folder), **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == expect, done.stdout
    return done.stdout


@pytest.mark.slow
def test_one_warehouse_from_wherever_dbt_is_started(checkout: Path) -> None:
    for folder, options in ((checkout, ["--project-dir", "dbt_project"]), (checkout / "dbt_project", [])):
        assert "Completed successfully" in dbt(folder, "run", "--select", "agg_events_daily", *options)
    assert [path.relative_to(checkout) for path in checkout.rglob("*.duckdb")] == [Path("warehouse.duckdb")]


@pytest.mark.slow
def test_without_landed_messages_the_error_says_what_to_run(checkout: Path) -> None:
    (checkout / "warehouse.duckdb").unlink()
    said = dbt(checkout / "dbt_project", "run", expect=2)
    assert re.search(r"there is no table raw\.\w+ in \S*warehouse.duckdb: land messages first \(`make ingest`\)", said)


@pytest.mark.slow
def test_a_target_of_ones_own_leaves_the_shared_marts_alone(checkout: Path) -> None:
    profiles = checkout / "dbt_project" / "profiles.yml"
    mine = "    dev: {type: duckdb, path: ../warehouse.duckdb, schema: dev_ann, settings: {TimeZone: UTC}}\n"
    profiles.write_text(profiles.read_text().replace("  outputs:\n", f"  outputs:\n{mine}"))
    warehouse = Warehouse(checkout)
    before = warehouse.query("select max(recorded_at) from intermediate.watermarks")
    dbt(checkout / "dbt_project", "run", "--target", "dev", "--select", "+fct_events")
    assert warehouse.query("select count(*) from dev_ann_analytics.fct_events") == warehouse.query(
        "select count(*) from analytics.fct_events"
    )
    assert warehouse.query("select max(recorded_at) from intermediate.watermarks") == before


@pytest.mark.slow
def test_a_prefix_for_what_is_built_shares_raw(warehouse_copy: Warehouse) -> None:
    mine = Warehouse(warehouse_copy.folder, {"BUILD_PREFIX": "ann_"})
    said = mine.run("dbt_project", "build", "--select", "+fct_events", "--exclude-resource-type", "test", "unit_test")
    assert re.search(rf"fct_events +{warehouse_copy.marts()['fct_events']:,}", said.stdout)
    facts = "select count(*) from {}analytics.fct_events"
    assert mine.query(facts.format("ann_")) == mine.query(facts.format(""))


def test_vars_of_ones_own_are_left_alone(warehouse_copy: Warehouse) -> None:
    warehouse_copy.dbt("run", "--select", "dim_dates", "--vars", "{my_currency: EUR}")
    error = warehouse_copy.dbt("run", "--vars", "{sesion_gap_seconds: 1800}", expect=2).stderr
    assert error == "error: there is no var sesion_gap_seconds: did you mean session_gap_seconds?\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["ls", "--select", "dim_dates"], "event_warehouse.analytics.dim_dates"),
        (["compile", "--select", "int_users_latest"], "where is_current and not is_tombstone"),
        (["show", "--select", "int_users_latest", "--limit", "1"], "| user_id"),
        (["source", "freshness"], "PASS freshness of raw.clicks"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_commands_that_are_asked_for_their_output_print_it(
    warehouse_copy: Warehouse, arguments: list[str], expected: str
) -> None:
    assert expected in warehouse_copy.dbt(*arguments).stdout


@pytest.fixture
def warehouse_copy(shop: Warehouse, tmp_path: Path) -> Warehouse:
    return shop.copy_to(tmp_path / "copy")


PROTECTED = """
{{ config(materialized='incremental', unique_key='id', incremental_strategy='merge', merge_update_columns=['run']) }}
select 1 as id, '{{ invocation_id }}' as run, '{{ invocation_id }}' as first_run
"""


@pytest.mark.slow
def test_models_of_packages_and_options_of_the_merge_are_dbts_own(checkout: Path) -> None:
    """A column that is protected from the merge stays as it was; the project's own merge would replace the row."""
    package = checkout / "package"
    (package / "models").mkdir(parents=True)
    (package / "dbt_project.yml").write_text("{name: shared, version: '1.0.0', config-version: 2}")
    (package / "models" / "of_a_package.sql").write_text(PROTECTED)
    plain = PROTECTED.replace(", merge_update_columns=['run']", "")
    assert plain != PROTECTED
    (package / "models" / "plain_of_a_package.sql").write_text(plain)
    (checkout / "dbt_project" / "models" / "analytics" / "of_ones_own.sql").write_text(
        PROTECTED.replace("config(", "config(contract={'enforced': false}, ")
    )
    (checkout / "dbt_project" / "packages.yml").write_text("packages: [{local: ../package}]")
    (checkout / "dbt_project" / "dbt_packages").mkdir()
    (checkout / "dbt_project" / "dbt_packages" / "shared").symlink_to(package)  # as `dbt deps` does
    for _ in range(2):
        dbt(checkout / "dbt_project", "run", "--select", "of_a_package", "plain_of_a_package", "of_ones_own")
    warehouse = Warehouse(checkout)
    for model in ("of_a_package", "of_ones_own"):
        assert warehouse.query(f"select count(*) from analytics.{model} where run != first_run") == [(1,)], model
    # here the rows come out alike, whoever merges them
    [sent] = (checkout / "dbt_project" / "target" / "run" / "shared").rglob("plain_of_a_package.sql")
    assert "merge into" in sent.read_text().lower()
