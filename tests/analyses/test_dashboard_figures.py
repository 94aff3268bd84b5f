"""The dashboard of one period: every panel is of the same days of the reporting time zone, and counts what it says."""

import html
import re
from datetime import date
from decimal import Decimal

import pytest

from serve.dashboard.filters import Filters
from serve.dashboard.render import render
from serve.dashboard.values import shown
from specification.rows import Mart
from tests.analyses import definition
from tests.analyses.warehouse import Warehouse

DAYS = [date(2026, 1, 5), date(2026, 3, 28), date(2026, 3, 29)]


def page_of(warehouse: Warehouse, day: date) -> str:
    return render(warehouse.published, Filters.read({"from": str(day), "to": str(day)}), live=True)


def cells(page: str, title: str) -> list[list[str]]:
    """The texts of the table of a panel."""
    panel = page[page.index(f"<h3>{title}</h3>") :].partition("</article>")[0]
    rows = re.findall(r"<tr>(.*?)</tr>", panel.partition("<tbody>")[2], re.DOTALL)
    return [
        [html.unescape(re.sub(r"<[^>]*>", "", cell)) for cell in re.findall(r"<td.*?</td>", row, re.DOTALL)]
        for row in rows
    ]


def figures(page: str) -> dict[str, str]:
    return dict(re.findall(r'<dt><a href="#[^"]*">([^<]*)</a></dt><dd class="total">([^<]*)</dd>', page))


def test_29_march_is_the_same_day_in_every_panel(warehouse: Warehouse) -> None:
    """By UTC the purchase of 7.00 is of this day, by New York that of 100.00."""
    page = page_of(warehouse, date(2026, 3, 29))
    assert "29 Mar 2026 to 29 Mar 2026, days of America/New_York" in page
    assert (figures(page)["Revenue"], figures(page)["Purchases"]) == ("100.00", "1")
    [sales] = cells(page, "Sales by day")
    assert (sales[0], sales[3], sales[5]) == ("29 Mar 2026", "1", "100.00")
    [product] = cells(page, "Top 5 products")
    assert product == ["Lamp of the border", "Border", shown(None), "1", "100.00"]
    [hour] = cells(page, "Hourly events")
    assert hour == ["29 Mar 2026, 23:00", "1", "0", "0", "1"]
    [event] = cells(page, "Recent events")
    assert (event[0], event[2], event[4]) == ("29 Mar 2026, 23:30", "Lamp of the border", "100.00")
    assert cells(page, "Total events") == [["purchase", "purchase: 1 to 1 per hour", "1", "1"]]


@pytest.mark.parametrize("day", DAYS)
def test_figures_equal_those_of_the_facts(warehouse: Warehouse, day: date) -> None:
    page = page_of(warehouse, day)
    facts = warehouse.facts
    events = facts.reported(day, day)
    sessions = [one for one in facts.tables["fct_sessions"] if facts.days.date(one["session_started_at"]) == day]
    buyers = definition.users(of_type(events, "purchase"))
    assert events
    expected = {
        "Events": shown(len(events)),
        "People": shown(definition.users(events)),
        "Sessions": shown(len(sessions)),
        "Checkouts": shown(len(of_type(events, "checkout"))),
        "Purchases": shown(len(of_type(events, "purchase"))),
        "Revenue": shown(definition.revenue(events).quantize(Decimal("0.0001"))),
        "Conversion": shown(definition.ratio(buyers, definition.users(events)), "conversion_rate"),
    }
    left_out = expected.keys() - figures(page).keys()
    assert figures(page) == {name: text for name, text in expected.items() if name not in left_out}
    assert {expected[name] for name in left_out} <= {"0", "0.00", "0.0%"}
    [daily] = cells(page, "Daily figures")
    assert daily[:3] == [shown(day), shown(len(events)), shown(definition.users(events))]
    [sales] = cells(page, "Sales by day")
    assert sales[5] == figures(page)["Revenue"]
    counted = cells(page, "Total events")
    assert {row[0]: row[2:] for row in counted} == {
        type_: [shown(len(found)), shown(definition.users(found))]
        for type_ in {event["event_type"] for event in events}
        if (found := of_type(events, type_))
    }
    assert sum(int(row[1]) for row in cells(page, "Hourly events")) == len(events)
    if sessions:
        assert sum(int(row[1]) for row in cells(page, "Sessions")) == len(sessions)
    viewers = definition.users(of_type(events, "view"))
    assert (f"<span>Viewed a product</span><b>{viewers} (100.0%)</b>" in page) == bool(viewers)


def test_drifting_fields_are_counted_and_listed(warehouse: Warehouse) -> None:
    page = page_of(warehouse, DAYS[0])
    drift = definition.field_drift(warehouse.facts, "all")
    listed = [row[:3] for row in cells(page, "Fields that differ from the contract")]
    assert listed == [list(row[:3]) for row in drift[:100]]
    assert "The first 100 rows; there are more." in page
    counted = {row[0]: row[-1] for row in cells(page, "Accounting")}
    assert counted == {stream: shown(sum(row[0] == stream for row in drift)) for stream in counted}
    assert {"0", "5"} <= set(counted.values())


def of_type(events: Mart, type_: str) -> Mart:
    return [event for event in events if event["event_type"] == type_]
