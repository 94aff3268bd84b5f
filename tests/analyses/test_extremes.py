"""Values at the edge of what staging accepts go through every query, metric and panel."""

import csv
import io
import json
import re
from datetime import datetime
from decimal import Decimal

import pytest

from serve.dashboard.filters import Filters
from serve.dashboard.panels import PANELS
from serve.dashboard.render import render
from serve.formats import as_csv, as_json
from serve.semantic_layer import Metrics
from tests.analyses.arguments import arguments_of
from tests.analyses.test_answers import NAMES
from tests.analyses.warehouse import Warehouse

MOST = Decimal("99999999999999.9999")


def test_the_facts_hold_them(warehouse: Warehouse) -> None:
    facts = warehouse.facts.tables
    attributed = [one["total_amount"] for one in facts["fct_checkout_attribution"] if one["clicks_in_window"] > 1]
    prices = [event["price"] for event in facts["fct_events"] if event["price"] is not None]
    for amounts in (attributed, prices):
        assert {MOST, -MOST, Decimal(10**9), Decimal("0.0001")} <= set(amounts)
    years = {event["event_at"].year for event in facts["fct_events"]}
    assert {2000, 2026, 9998} <= years
    assert max(event["engaged_seconds"] or 0 for event in facts["fct_events"]) == 999_999_999_999
    assert max(event["latency_seconds"] for event in facts["fct_events"]) > 7_998 * 365 * 86_400
    assert max(len(event["url"] or "") for event in facts["fct_events"]) > 40_000


@pytest.mark.parametrize("name", NAMES)
def test_every_answer_can_be_written(warehouse: Warehouse, name: str) -> None:
    query = warehouse.published_query(name)
    for arguments in arguments_of(query):
        answer = warehouse.answer(name, arguments)
        written = json.loads(as_json(query, answer), parse_float=Decimal)["data"]
        lines = list(csv.DictReader(io.StringIO(as_csv(query, answer).decode(), newline="")))
        assert len(written) == len(lines) == len(answer.rows)
        for place, column in enumerate(query.columns):
            values = [row[place] for row in answer.rows]
            if column.type in ("integer", "number"):
                assert [row[column.name] for row in written] == values
                assert [Decimal(line[column.name]) if line[column.name] else None for line in lines] == values
            elif column.type == "string":
                assert [row[column.name] for row in written] == values
                assert [line[column.name].removeprefix("'") for line in lines] == [
                    (value or "").removeprefix("'") for value in values
                ]


def test_every_metric_is_answered_by_everything(warehouse: Warehouse) -> None:
    metrics = Metrics(warehouse.published, warehouse.settings)
    assert metrics.descriptions
    for name in metrics.descriptions:
        by = [one for one in metrics.dimensions([name]) if one != "metric_time__day"]
        rows, _ = metrics.ask([name], by=["metric_time__day", *by])
        days = rows.column("metric_time__day").to_pylist()
        assert (days[0].year, days[-1].year) == (9998, 1999)  # of New York
    [revenue] = metrics.ask(["revenue"])[0].to_pylist()
    purchases = [event for event in warehouse.facts.events if event["event_type"] == "purchase"]
    assert revenue["revenue"] == sum(event["price"] or Decimal() for event in purchases)


@pytest.mark.parametrize(
    "filters",
    [
        {},
        {"period": "1d"},
        {"period": "all"},
        {"period": "custom", "from": "2000-01-01", "to": "2000-01-01"},
        {"period": "custom", "from": "1970-01-01", "to": "9998-12-31"},
        {"period": "custom", "from": "2026-01-05", "to": "2026-01-05", "category": "\ufffd"},
    ],
)
def test_every_panel_has_figures(warehouse: Warehouse, filters: dict[str, str]) -> None:
    page = render(warehouse.published, Filters.read(filters), live=True)
    assert re.findall(r'class="error".*', page) == []
    assert 0 < page.count("<article") <= len(PANELS.all)


def test_the_newest_event_is_of_the_last_year_there_is(warehouse: Warehouse) -> None:
    names = [column.name for column in warehouse.published_query("data_quality").columns]
    rows = [dict(zip(names, row, strict=True)) for row in warehouse.ask("data_quality", {})]
    assert max(row["newest_event_at"] for row in rows if row["newest_event_at"]) >= datetime(9998, 12, 31)
