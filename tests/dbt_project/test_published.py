"""What builds publish equals the warehouse, however the warehouse changes: through dbt."""

from pathlib import Path

import duckdb
import pytest

from tools.warehouses.commands import Warehouse

BUILD = ("--exclude-resource-type", "unit_test")  # they test the code alone


def check_published(warehouse: Warehouse) -> int:
    """Compare every published table and view with that of the warehouse; returns how many there are."""
    path = Path(f"{warehouse.path}.published/current").resolve() / warehouse.path.name
    with duckdb.connect() as connection:
        connection.execute(f"attach '{warehouse.path}' as built (read_only)")
        connection.execute(f"attach '{path}' as published (read_only)")
        tables = connection.sql(
            "select schema_name, table_name, string_agg(column_name, ', ' order by column_index) from duckdb_columns()"
            " where database_name = 'published' and not internal group by all"
        ).fetchall()
        for schema, table, columns in tables:
            one, other = (f"(select {columns} from {name}.{schema}.{table})" for name in ("built", "published"))
            differing = f"({one} except all {other}) union all ({other} except all {one})"
            assert connection.sql(differing).fetchall() == [], table
    return len(tables)


@pytest.mark.slow
def test_published_marts_equal_the_warehouse_after_each_build(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path)
    warehouse.simulate(days=2, events_per_day=600)
    warehouse.land()
    for days, options in ((3, ()), (4, ()), (5, ("--full-refresh",)), (6, ()), (7, ())):
        warehouse.build(*BUILD, *options)
        assert check_published(warehouse) > 25
        warehouse.simulate(days=days, events_per_day=600)
        warehouse.land()
    # what builds of a part change is published with the next whole build
    warehouse.build("--select", "+fct_page_views", *BUILD)
    warehouse.change("drop table analytics.agg_events_daily")
    warehouse.build(*BUILD)
    check_published(warehouse)
