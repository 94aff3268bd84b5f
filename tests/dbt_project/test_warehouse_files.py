"""Which files a build takes for a warehouse, and what it makes of streams that are switched off."""

import json
from pathlib import Path

import duckdb
import pytest

from tools.warehouses.commands import Warehouse


@pytest.mark.slow
def test_a_linked_file_of_an_older_duckdb_with_some_streams_is_built_and_asked(tmp_path: Path) -> None:
    """The link has another name than the file, by which DuckDB names the database."""
    file, link = tmp_path / "shop.duckdb", tmp_path / "warehouse.duckdb"
    link.symlink_to(file)
    with duckdb.connect() as connection:
        connection.execute(f"attach '{file}' as warehouse (storage_version 'v0.10.0')")
    warehouse = Warehouse(tmp_path, {"STREAMS": '["page_views", "ecom_events", "users"]'})
    warehouse.simulate(1, 200)
    warehouse.land()
    warehouse.run("dbt_project", "build")  # a warm one knows the project of another name
    assert file.read_bytes()[12] == 64
    accounts = warehouse.query(
        "select stream, sum(landed), bool_and(is_balanced) from analytics.landing_reconciliation group by 1 order by 1"
    )
    assert {stream for stream, landed, _ in accounts if landed} == {"page_views", "ecom_events", "users"}
    assert all(is_balanced for *_, is_balanced in accounts)
    answer = json.loads(warehouse.run("serve", "query", "event_counts", "--format", "json").stdout)
    assert answer["rows"] > 0


@pytest.mark.slow
def test_a_file_that_is_no_warehouse_is_neither_landed_in_nor_built(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text("event_time,event_type\n2026-01-01,view\n")
    warehouse = Warehouse(tmp_path, {"WAREHOUSE_PATH": str(path)})
    warehouse.simulate(1, 20)
    for command in (("ingest", "land"), ("ingest", "status"), ("dbt_project", "build")):
        done = warehouse.run(*command, expect=2)
        assert done.stdout == ""
        assert "not a valid DuckDB database" in done.stderr
        assert done.stderr.count("\n") == 1
    assert path.read_text() == "event_time,event_type\n2026-01-01,view\n"
    assert not [*tmp_path.glob("*.published")]
