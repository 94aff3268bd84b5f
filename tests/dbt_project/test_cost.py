"""A run costs what it touches: counted in rows, not in seconds.

The same one-day increment is built onto 10 and onto 100 days of history. Each incremental model reads about as many
rows in both cases, and rewrites about as many. Rows are counted after the filters on the scans
(tools/warehouses/query_costs.py).
"""

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from common.settings import Settings
from common.streams import STREAMS
from engines.duckdb.sink import DuckDBSink
from ingest.landing import land
from ingest.message import Message
from ingest.producers.spool import SpoolProducer
from ingest.sources import open_sources
from tools.warehouses.commands import Warehouse
from tools.warehouses.query_costs import costs, incremental_queries, plan_of

EVENTS_PER_DAY = 200


def land_at(warehouse: Warehouse, landed_at: datetime) -> None:
    settings = Settings(spool_path=warehouse.folder / "spool", warehouse_path=warehouse.path)
    sink = DuckDBSink(warehouse.path, clock=lambda: landed_at)
    with open_sources(settings, list(STREAMS.values()), sink.positions) as sources:
        land(settings, sources, sink)


def cost_of_a_day(folder: Path, days_of_history: int) -> dict[str, tuple[int, int]]:
    """By incremental model: rows read and rows rewritten."""
    folder.mkdir()
    warehouse = Warehouse(folder)
    warehouse.simulate(days_of_history, EVENTS_PER_DAY, "--late", "0")
    land_at(warehouse, datetime(2026, 8, 1))
    warehouse.run_models()
    warehouse.simulate(1, EVENTS_PER_DAY, "--late", "0")
    land_at(warehouse, datetime(2026, 8, 2))
    warehouse.run_models()
    return costs(folder / "target", warehouse.path)


@pytest.mark.slow
def test_a_day_costs_the_same_on_a_short_and_a_long_history(tmp_path: Path) -> None:
    short, long = cost_of_a_day(tmp_path / "short", 10), cost_of_a_day(tmp_path / "long", 100)
    assert len(short) == 28
    for model, (read, rewritten) in short.items():
        longer_read, longer_rewritten = long[model]
        assert longer_read <= 1.25 * read + 20, f"{model} reads {read} rows, and {longer_read} on the longer history"
        assert longer_rewritten <= 1.25 * rewritten + 20, f"{model} rewrites {rewritten} rows, then {longer_rewritten}"


def test_a_first_build_writes_replaced_rows_by_date(shop: Warehouse) -> None:
    """Otherwise no row group can be skipped and a day reads their whole history, which the counts above do not show."""
    nodes = json.loads((shop.folder / "target" / "manifest.json").read_text())["nodes"]
    replaced = {
        node["name"]: (node["schema"], node["config"]["partition_by"]["field"])
        for node in nodes.values()
        if node["config"].get("unique_key") and (node["config"].get("partition_by") or {}).get("data_type") == "date"
    }
    assert len(replaced) == 13
    with duckdb.connect(str(shop.path), read_only=True) as connection:
        for model, (schema, date) in replaced.items():
            dates = [row[0] for row in connection.sql(f"select {date} from {schema}.{model}").fetchall()]
            assert dates == sorted(dates), model


def rows_handled(plan: dict[str, Any]) -> int:
    """The rows that all operators of a plan pass on."""
    return int(plan["intermediate_rows"]) + sum(map(rows_handled, plan.get("children", [])))


@pytest.mark.slow
def test_a_busy_key_costs_its_rows_and_not_their_pairs(tmp_path: Path) -> None:
    """A bot or a shared id: 1,500 clicks and as many checkouts of one user and product, and as many page views of one
    session, within a minute. A join by key and time would pair each with all others: millions of rows."""
    warehouse = Warehouse(tmp_path)
    settings = Settings(_env_file=None, spool_path=tmp_path / "spool")
    noon, number = datetime(2026, 1, 5, 12), 1_500
    for half in range(2):
        times = [noon + timedelta(milliseconds=40 * place + half) for place in range(0, number, 2)]
        who = {"user_id": "u", "product_id": "p"}
        bodies = {
            "clicks": [{**who, "click_id": f"c{at}", "url": "x" * 1_000, "datetime_occured": f"{at}"} for at in times],
            "checkouts": [{**who, "checkout_id": f"o{at}", "datetime_occured": f"{at}"} for at in times],
            "page_views": [{"session_id": "s", "page_title": f"{at}", "ga_event_dtm": f"{at}"} for at in times],
        }
        for stream, of_stream in bodies.items():
            messages = [Message(json.dumps(body).encode()) for body in of_stream]
            SpoolProducer(settings).produce(STREAMS[stream], messages)
        land_at(warehouse, datetime(2026, 1, 6 + half))
        warehouse.run_models()
    [(attributed,)] = warehouse.query("select sum(clicks_in_window) from analytics.fct_checkout_attribution")
    assert attributed == number * (number + 1) / 2, "every click before a checkout is in its window"
    with duckdb.connect(str(warehouse.path), read_only=True) as connection:
        for model, query in incremental_queries(warehouse.folder / "target"):
            handled = rows_handled(plan_of(connection, query))
            assert handled <= 50 * number, f"{model} handles {handled} rows"
