"""The dashboard without a browser and without a warehouse: filters, days, formats, and pages with nothing on them."""

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import groupby
from pathlib import Path
from typing import Any
from unittest.mock import patch
from zoneinfo import ZoneInfo

import pytest
from starlette.testclient import TestClient
from structlog.testing import capture_logs

from common.errors import UserError
from common.settings import Settings
from engines.query import Column, Parameter, Query, Value
from engines.reader import QueryTimeoutError
from serve.answers import Answer
from serve.dashboard.cached import MOST_PAGES, MOST_ROWS, AnswerMemory, Key, PageMemory
from serve.dashboard.charts import nice_ceiling, plot
from serve.dashboard.filters import Filters, instant
from serve.dashboard.panels import FILE, KEY_PANEL, PANELS, SECTIONS, read_panels
from serve.dashboard.render import render
from serve.dashboard.routes import app
from serve.dashboard.rows import trends
from serve.dashboard.values import change, shown

NEWEST = datetime(2026, 1, 7, 23, 51, 7)
BOUNDS = {"start_time": "timestamp", "end_time": "timestamp", "start_date": "date", "end_date": "date"}
ACCOUNTING = {
    "stream": "page_views",
    "landed": 1_234,
    "accepted": 1_200,
    "duplicates": 30,
    "conflicting": 7,
    "rejected": 3,
    "recovered": 1,
    "mismatched_keys": 5,
    "rejected_share": Decimal("0.0024"),
    "reused_ids": 0,
    "drifting_fields": 2,
    "is_balanced": False,
    "newest_event_at": NEWEST,
    "last_landed_at": NEWEST,
    "worst_p95_latency_seconds": Decimal("3.7"),
    "max_latency_seconds": Decimal("87401.756342"),
    "reporting_time_zone": "UTC",
    "worst_p95_freshness_seconds": None,
}
FIGURES = {
    "events": 120,
    "users": 30,
    "sessions": 40,
    "checkouts": None,
    "purchases": 6,
    "revenue": Decimal("90.5000"),
    "buyers": 3,
    "conversion_rate": Decimal("0.1000"),
}
NOW = datetime(2026, 1, 8, 12)


class Published:
    """Answers queries with no rows, but that of data quality and those in `rows`, and remembers what it was asked.

    Args:
        rows: of a query, a dict per row.
    """

    version = "20260108T120000.000000Z"

    def __init__(
        self,
        *,
        with_events: bool = True,
        without: str = "",
        zone: str = "UTC",
        newest: datetime = NEWEST,
        landed: datetime | None = None,
        rows: Mapping[str, list[dict[str, Any]]] | None = None,
    ) -> None:
        accounting = {
            **ACCOUNTING,
            "reporting_time_zone": zone,
            "newest_event_at": newest,
            "last_landed_at": landed or newest,
        }
        self._rows = {
            "data_quality": [accounting] if with_events else [],
            "key_figures": [FIGURES],
            **(rows or {}),
        }
        names = {panel.query for panel in PANELS.all} | {"events_over_time"}
        self.queries = {
            name: self._query(name) for name in (names | {"brands", "categories", "key_figures"}) - {without}
        }
        self.left_out: dict[str, Query] = {}
        self.asked: list[tuple[str, dict[str, Value]]] = []

    def _query(self, name: str) -> Query:
        types = {**BOUNDS, "limit": "integer"}
        if name in ("event_counts", "top_products", "key_figures"):
            types |= {"brand": "string", "category": "string", "product_id": "string"}
        if name in ("conversion_funnel", "events_over_time"):
            types |= {"per": "string"}
        if name in ("top_values", "arrival_lateness"):
            types |= {"stream": "string", "event_type": "string", "property": "string"}
        defaults = {"string": "all", "integer": "10", "date": "1970-01-01", "timestamp": "1970-01-01"}
        parameters = [
            Parameter.model_validate(
                {
                    "name": one,
                    "type": type_,
                    "default": "9999-12-31" if one.startswith("end_") else defaults[type_],
                    "description": "",
                }
            )
            for one, type_ in types.items()
        ]
        names = next(iter(self._rows.get(name, [])), ACCOUNTING)
        columns = [Column(name=column, type="string", description="") for column in names]
        return Query(name=name, description="", parameters=parameters, columns=columns, sql="")

    def ask(self, query: Query, values: Mapping[str, Value], *_: object) -> Answer:
        self.asked.append((query.name, dict(values)))
        return Answer([tuple(row.values()) for row in self._rows.get(query.name, [])], False, 0.0, self.version)

    def close(self) -> None: ...

    def last_values(self, name: str) -> dict[str, Value]:
        return [values for asked, values in self.asked if asked == name][-1]


@pytest.mark.parametrize(
    ("given", "first", "last"),
    [
        ({}, date(2026, 1, 1), date(2026, 1, 7)),
        ({"period": "1d"}, date(2026, 1, 7), date(2026, 1, 7)),
        ({"period": "24h"}, date(2026, 1, 7), date(2026, 1, 7)),  # as older addresses say
        ({"period": "30d"}, date(2025, 12, 9), date(2026, 1, 7)),
        ({"period": "all"}, None, None),
        ({"period": "all", "from": "2026-01-02", "to": ""}, None, None),
        ({"period": "custom", "from": "2026-01-02", "to": "2026-01-02"}, date(2026, 1, 2), date(2026, 1, 2)),
        ({"period": "custom", "to": "2026-01-02"}, None, date(2026, 1, 2)),
    ],
)
def test_the_period_ends_with_the_day_of_the_newest_event(
    given: dict[str, str], first: date | None, last: date | None
) -> None:
    assert Filters.read(given).days(NEWEST.date()) == (first, last)


@pytest.mark.parametrize(
    ("zone", "day", "start", "end"),
    [
        ("America/Los_Angeles", "2026-03-29", datetime(2026, 3, 29, 7), datetime(2026, 3, 30, 7)),
        ("America/Los_Angeles", "2026-03-08", datetime(2026, 3, 8, 8), datetime(2026, 3, 9, 7)),  # of 23 hours
        ("Asia/Kolkata", "2026-03-29", datetime(2026, 3, 28, 18, 30), datetime(2026, 3, 29, 18, 30)),
        ("Africa/Cairo", "2026-04-24", datetime(2026, 4, 23, 22), datetime(2026, 4, 24, 21)),  # has no midnight
        ("UTC", "2026-03-29", datetime(2026, 3, 29), datetime(2026, 3, 30)),
    ],
)
def test_all_panels_show_the_same_days_of_the_reporting_time_zone(
    zone: str, day: str, start: datetime, end: datetime
) -> None:
    published = Published(zone=zone, newest=datetime(2026, 5, 1))
    page = render(published, Filters.read({"from": day, "to": day}), live=True, now=NOW)
    of_all_time = {panel.query for panel in PANELS.all if panel.is_of_all_time}
    expected = {"start_time": start, "end_time": end, "start_date": date.fromisoformat(day)}
    for name in {panel.query for panel in PANELS.all} - of_all_time:
        values = published.last_values(name)
        assert {key: values[key] for key in expected} == expected, name
        assert values["end_date"] == values["start_date"], name
    [of_the_day, _] = [values for name, values in published.asked if name == "key_figures"]
    assert {key: of_the_day[key] for key in expected} == expected
    assert f"days of {zone}" in page


def test_the_newest_day_is_in_the_reporting_time_zone() -> None:
    published = Published(zone="America/Los_Angeles", newest=datetime(2026, 3, 30, 3))
    page = render(published, Filters.read({"period": "1d"}), live=True, now=NOW)
    assert published.last_values("daily_kpis")["start_date"] == date(2026, 3, 29)
    assert "<dt>Newest event</dt><dd>29 Mar 2026, 20:00</dd>" in page
    assert "Last day: 29 Mar 2026 to 29 Mar 2026, days of America/Los_Angeles" in page


def test_an_event_dated_in_the_future_does_not_move_the_period() -> None:
    published = Published(newest=datetime(2098, 1, 1), landed=NEWEST)
    page = render(published, Filters.read({"period": "1d"}), live=True, now=NOW)
    assert published.last_values("daily_kpis")["start_date"] == NEWEST.date()
    assert "<dt>Newest event</dt><dd>1 Jan 2098, 00:00</dd>" in page


def test_times_are_shown_in_the_reporting_time_zone() -> None:
    rows = [{"event_at": datetime(2026, 3, 30, 3), "landed_at": datetime(2026, 3, 30, 4)}]
    names = "event_type product_name product_id page_title post_id user_id price total_amount".split()  # noqa: SIM905
    rows = [{**row, **dict.fromkeys(names)} for row in rows]
    page = render(Published(zone="America/Los_Angeles", rows={"recent_events": rows}), Filters(), live=True, now=NOW)
    assert '<td class="time">29 Mar 2026, 20:00</td>' in page


class TwoPeriods(Published):
    """Twice as much in the period as in the one before, but no sessions there."""

    def ask(self, query: Query, values: Mapping[str, Value], *_: object) -> Answer:
        answer = super().ask(query, values)
        is_before = query.name == "key_figures" and self.asked.count((query.name, dict(values))) == 1
        if not is_before or len([1 for name, _ in self.asked if name == "key_figures"]) == 1:
            return answer
        before = {**FIGURES, "events": 60, "users": 40, "sessions": 0, "conversion_rate": Decimal("0.1250")}
        return Answer([tuple(before.values())], False, 0.0, self.version)


def figures_of(page: str) -> list[tuple[str, ...]]:
    found = re.findall(
        r'<dt><a href="#[^"]*">([^<]*)</a></dt><dd class="total">([^<]*)</dd><dd class="change">([^<]*)</dd>', page
    )
    return [tuple(one) for one in found]


def test_key_figures_show_their_change_against_the_previous_period() -> None:
    published = TwoPeriods()
    page = render(published, Filters(), live=True, now=NOW)
    assert figures_of(page) == [
        ("Events", "120", "▲ +100.0%"),
        ("People", "30", "▼ -25.0%"),
        ("Sessions", "40", "\N{EN DASH}"),
        ("Checkouts", "\N{EN DASH}", "\N{EN DASH}"),
        ("Purchases", "6", "+0.0%"),
        ("Revenue", "90.50", "+0.0%"),
        ("Conversion", "10.0%", "▼ -2.5 points"),
    ]
    now, before = [values for name, values in published.asked if name == "key_figures"]
    assert (now["start_time"], now["end_time"]) == (datetime(2026, 1, 1), datetime(2026, 1, 8))
    # as much of the last day as there is
    assert before["start_time"] == datetime(2025, 12, 25)
    assert before["end_time"] == datetime(2025, 12, 31, 23, 51, 7, 1)
    assert "Change against 25 Dec 2025 to 31 Dec 2025, 23:51." in page


@pytest.mark.parametrize("given", [{"period": "all"}, {"to": "2026-01-02"}, {"from": "2026-02-02"}])
def test_without_a_previous_period_there_is_no_change(given: dict[str, str]) -> None:
    published = Published()
    page = render(published, Filters.read(given), live=True, now=NOW)
    assert [one[2] for one in figures_of(page)] == ["\N{EN DASH}"] * len(KEY_PANEL.columns)
    assert "There is no period before to compare with." in page
    assert [name for name, _ in published.asked].count("key_figures") == 1


def test_a_past_period_is_compared_with_whole_days() -> None:
    published = Published(zone="America/Los_Angeles")
    render(published, Filters.read({"from": "2025-03-09", "to": "2025-03-10"}), live=True, now=NOW)
    before = published.last_values("key_figures")
    assert before["start_time"] == datetime(2025, 3, 7, 8)
    assert before["end_time"] == datetime(2025, 3, 9, 8)


@pytest.mark.parametrize(
    ("now", "before", "column", "text"),
    [
        (3, 2, "events", "▲ +50.0%"),
        (0, 2, "events", "▼ -100.0%"),
        (Decimal(-5), Decimal(-10), "revenue", "▲ +50.0%"),
        (2, 0, "events", "\N{EN DASH}"),
        (2, None, "events", "\N{EN DASH}"),
        (None, 2, "events", "\N{EN DASH}"),
        (Decimal("0.5"), Decimal(0), "conversion_rate", "▲ +50.0 points"),
    ],
)
def test_a_change_needs_something_to_compare_with(now: Any, before: Any, column: str, text: str) -> None:
    assert change(now, before, column) == text


def test_the_funnel_counts_people_once() -> None:
    row = {"viewers": 659, "users_with_cart": 66, "buyers": 6}
    published = Published(
        rows={"conversion_funnel": [{"category": "shoes", **row, "buyers_per_viewer": Decimal("0.1")}]}
    )
    page = render(published, Filters(), live=True, now=NOW)
    assert {values["per"] for name, values in published.asked if name == "conversion_funnel"} == {"period", "category"}
    panel = page[page.index("<h3>Funnel</h3>") :].partition("</article>")[0]
    steps = re.findall(r"<span>([^<]*)</span><b>([^<]*)</b>", panel)
    assert steps == [
        ("Viewed a product", "659 (100.0%)"),
        ("Put one into the cart", "66 (10.0%)"),
        ("Bought one", "6 (0.9%)"),
    ]
    assert re.findall(r'class="next">([^<]*)<', panel) == ["↓ 10.0% go on, 593 leave", "↓ 9.1% go on, 60 leave"]


PRODUCT = {
    "product_id": "p&1",
    "product_name": "Lamp",
    "brand": "Glow & Co",
    "category": "home.lamp",
    "purchases": 3,
    "revenue": Decimal(3),
}


OF_EACH_SECTION: dict[str, list[dict[str, Any]]] = {
    "top_products": [PRODUCT],
    "top_pages": [
        {
            "page_title": "Home",
            "average_time_on_page_seconds": Decimal(7),
            "time_on_page_seconds": Decimal(14),
            "page_views": 2,
        }
    ],
    "checkouts_by_product": [
        {
            "product_id": "p&1",
            "product_name": "Lamp",
            "checkouts": 4,
            "attributed_share": Decimal("0.75"),
            "amount": Decimal(40),
            "average_seconds_to_checkout": Decimal(90),
        }
    ],
    "creator_leaderboard": [
        {"user_name": "ann", "user_id": "1", "posts": 1, "views": 2, "likes": 0, "is_active": True}
    ],
}
"""Rows of a panel of each section, so that all panels are shown."""


def test_sections_without_rows_are_one_line() -> None:
    published = Published(rows={"top_pages": OF_EACH_SECTION["top_pages"]})
    page = render(published, Filters(), live=True, now=NOW)
    assert re.findall(r"<h2 id=[^>]*>([^<]*)</h2>", page) == ["Events", "Website", "Data quality"]
    assert re.findall(r"Left out, since there are none in this period: ([^.]*)", page) == [
        "view, cart or purchase events of products (Shop), checkouts (Attribution), posts (Community)"
    ]
    assert "Left out" not in render(Published(rows=OF_EACH_SECTION), Filters(), live=True, now=NOW)
    assert "in this period with these filters:" in render(Published(), Filters(brand="x"), live=True, now=NOW)


def test_a_day_without_sales_is_no_sale() -> None:
    names = "views carts purchases purchases_per_view revenue checkouts checkout_amount users events".split()  # noqa: SIM905
    day = {"reporting_date": NEWEST.date(), **dict.fromkeys(names, 0)}
    page = render(Published(rows={"daily_kpis": [day | {"events": 3}]}), Filters(), live=True, now=NOW)
    assert "Sales by day" not in page
    assert '<i style="left:0.0%' in page[page.index("<h3>Daily figures</h3>") :].partition("</article>")[0]
    page = render(Published(rows={"daily_kpis": [day | {"carts": 1}]}), Filters(), live=True, now=NOW)
    assert "Sales by day" in page


def test_a_key_figure_that_is_always_zero_is_left_out() -> None:
    none = {"sessions": 0, "checkouts": 0, "purchases": 0, "revenue": Decimal(0), "conversion_rate": Decimal(0)}
    page = render(Published(rows={"key_figures": [{**FIGURES, **none}]}), Filters(), live=True, now=NOW)
    assert [one[0] for one in figures_of(page)] == ["Events", "People"]
    assert "No sessions, checkouts, purchases, revenue, conversion in this period or the one before." in page


def test_key_figures_link_to_their_panels() -> None:
    page = render(Published(rows=OF_EACH_SECTION), Filters(), live=False, now=NOW)
    targets = re.findall(r'<dt><a href="#([^"]*)">', page)
    assert len(targets) == len(KEY_PANEL.columns)
    assert set(targets) <= set(re.findall(r'<article id="([^"]*)"', page))


PROPERTIES = [
    {
        "property": "id",
        "value": "1",
        "events": 9,
        "users": 9,
        "share_of_events": Decimal("0.1"),
        "distinct_values": 900,
    },
    {
        "property": "plan",
        "value": "pro",
        "events": 8,
        "users": 7,
        "share_of_events": Decimal("0.8"),
        "distinct_values": 2,
    },
]


def test_the_values_of_a_property_are_shown_and_others_can_be_picked() -> None:
    published = Published(rows={"top_values": PROPERTIES})
    page = render(published, Filters.read({"brand": "glow", "event_type": "signup"}), live=True, now=NOW)
    asked = [(values["property"], values["event_type"]) for name, values in published.asked if name == "top_values"]
    # unasked, a property whose values can be compared
    assert set(asked) == {("all", "signup"), ("plan", "signup")}
    assert "<h3>Values of a property: plan</h3>" in page
    assert '<a href="?brand=glow&amp;event_type=signup&amp;property=id#values-of-a-property">id</a>' in page
    form = page[page.index('<form class="choices"') :].partition("</form>")[0]
    assert re.findall(r"<option( selected)?>([^<]*)", form) == [("", "page_views"), ("", "id"), (" selected", "plan")]
    assert re.findall(r'name="(\w+)" value="([^"]*)"', form) == [("brand", "glow"), ("event_type", "signup")]
    assert "Only type signup." in page
    assert "choices" not in render(published, Filters(), live=False, now=NOW).partition("<main")[2]


def test_a_picked_property_is_asked_for_in_its_panel_only() -> None:
    published = Published(rows={"top_values": PROPERTIES})
    page = render(published, Filters.read({"property": "id", "stream": "page_views"}), live=True, now=NOW)
    asked = [(values["property"], values["stream"]) for name, values in published.asked if name == "top_values"]
    assert set(asked) == {("all", "page_views"), ("id", "page_views")}
    assert "<h3>Values of a property: id</h3>" in page
    assert "Only stream page_views, property id." in page
    rows = {name: values for name, values in published.asked if name == "arrival_lateness"}
    assert "page_views" not in rows["arrival_lateness"].values()


def test_events_of_each_type_have_a_small_chart() -> None:
    day = NEWEST.date()
    counts = [{"event_type": "signup", "events": 7, "users": 5}, {"event_type": "<b>", "events": 1, "users": 1}]
    hours = [
        {"reporting_date": day, "reporting_hour_at": datetime(2026, 1, 7, hour), "event_type": type_, "events": number}
        for hour, type_, number in ((23, "signup", 4), (22, "<b>", 1), (20, "signup", 3))
    ]
    published = Published(rows={"event_counts": counts, "events_over_time": [{**row, "users": 1} for row in hours]})
    page = render(published, Filters(), live=True, now=NOW)
    assert published.last_values("events_over_time")["per"] == "hour"
    labels = re.findall(r'<svg class="spark" role="img" aria-label="([^"]*)" viewBox="0 0 (\d+) 20"', page)
    assert labels == [("signup: 0 to 4 per hour", "4"), ("&lt;b&gt;: 0 to 1 per hour", "4")]
    assert '<path d="M0 20V5h1V20h1V20h1V0h1V20z"/>' in page


def test_a_small_chart_of_days_has_the_whole_period() -> None:
    row = {"reporting_date": date(2026, 1, 5), "reporting_hour_at": None, "event_type": "signup", "events": 2}
    assert trends([row], date(2026, 1, 4), date(2026, 1, 7))["signup"]["path"] == "M0 20V20h1V0h1V20h1V20h1V20z"
    assert trends([row], None, None)["signup"]["slots"] == 1
    assert trends([], None, None) == {}


@pytest.mark.parametrize(("given", "per", "first"), [({"period": "30d"}, "day", 30), ({"period": "all"}, "day", 92)])
def test_small_charts_of_long_periods_have_days(given: dict[str, str], per: str, first: int) -> None:
    published = Published(rows={"event_counts": [{"event_type": "signup", "events": 7, "users": 5}]})
    render(published, Filters.read(given), live=True, now=NOW)
    values = published.last_values("events_over_time")
    assert (values["per"], values["start_time"]) == (per, datetime(2026, 1, 8) - timedelta(days=first))


def test_a_path_has_arrows() -> None:
    row = {
        "path": "Home > <b> > Cart",
        "sessions": 2,
        "share_of_sessions": Decimal("0.5"),
        "average_duration_seconds": 3,
    }
    page = render(Published(rows={"session_paths": [row]}), Filters(), live=True, now=NOW)
    panel = page[page.index("<h3>Paths</h3>") :].partition("</article>")[0]
    assert re.findall(r'class="page">([^<]*)<', panel) == ["Home", "&lt;b&gt;", "Cart"]
    assert panel.count('class="then"> → <') == 2


def test_a_stream_that_stopped_is_named_though_others_go_on() -> None:
    rows = [
        {**ACCOUNTING, "stream": "clicks", "last_landed_at": datetime(2026, 1, 4, 12), "newest_event_at": NEWEST},
        {**ACCOUNTING, "stream": "users", "last_landed_at": datetime(2026, 1, 1), "newest_event_at": None},
        {**ACCOUNTING, "last_landed_at": NOW, "newest_event_at": NOW},
    ]
    page = render(Published(rows={"data_quality": rows}), Filters(), live=True, now=NOW)
    assert "Some streams are old. The last message landed: clicks (4 days ago)." in page


def test_a_page_that_is_loaded_again_asks_nothing(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, warehouse_path=tmp_path / "warehouse.duckdb")
    published = Published(rows=OF_EACH_SECTION)
    with patch("serve.dashboard.routes.open_published", lambda *_, **options: published):
        client = TestClient(app(settings), "http://127.0.0.1")
        first = client.get("/").text
        asked = len(published.asked)
        assert client.get("/").text == first
        assert len(published.asked) == asked
        client.get("/?period=1d")
        assert len(published.asked) > asked
        asked = len(published.asked)
        published.version = "20260109T120000.000000Z"  # the next build
        client.get("/?period=1d")
        assert len(published.asked) > asked + 10
        bigquery = TestClient(app(settings.model_copy(update={"warehouse": "bigquery"})), "http://127.0.0.1")
        bigquery.get("/")
        asked = len(published.asked)
        bigquery.get("/")
        assert len(published.asked) > asked, "tables of BigQuery change without a new version"


def test_answers_of_older_versions_are_dropped() -> None:
    """A new version every two seconds, for hours."""
    memory = AnswerMemory()
    for version in range(3):
        for query in range(2):
            memory.put((str(version), str(query), frozenset()), Answer([("row",)], False, 0.0, str(version)))
    memory.put(("1", "late", frozenset()), Answer([("row",)], False, 0.0, "1"))
    assert len(memory._answers) == 2
    assert memory._rows == 4
    assert memory.get(("2", "0", frozenset()))
    assert not memory.get(("1", "0", frozenset())) and not memory.get(("1", "late", frozenset()))


def test_pages_that_reload_leave_most_of_the_time_to_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A render of 2 seconds is shown for 18 more, whatever the number of browsers; other addresses are rendered."""
    now = 0.0
    monkeypatch.setattr("serve.dashboard.cached.time.monotonic", lambda: now)
    rendered = []

    def render_page() -> str:
        nonlocal now
        now += 2
        rendered.append(now)
        return f"page of {now}"

    memory = PageMemory()
    assert memory.get("?refresh=10", render_page) == "page of 2.0"
    now = 19.0
    assert memory.get("?refresh=10", render_page) == "page of 2.0"
    assert memory.get("?refresh=10&period=1d", render_page) == "page of 21.0"
    now = 38.0
    assert memory.get("?refresh=10", render_page) == "page of 2.0"
    now = 39.0
    assert memory.get("?refresh=10", render_page) == "page of 41.0"
    for number in range(2 * MOST_PAGES):
        memory.get(f"?brand={number}", render_page)
    assert len(memory._pages) == MOST_PAGES


def test_only_a_page_that_reloads_may_be_of_an_older_version(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, warehouse_path=tmp_path / "warehouse.duckdb")
    published = Published(rows=OF_EACH_SECTION)
    with (
        patch("serve.dashboard.routes.open_published", lambda *_, **options: published),
        patch("serve.dashboard.cached.REST", 1_000_000),
    ):
        client = TestClient(app(settings), "http://127.0.0.1")
        pages = [client.get(address).text for address in ("/", "/?refresh=10")]
        published.version = "20260109T120000.000000Z"  # the next build
        again = [client.get(address).text for address in ("/", "/?refresh=10")]
    assert "9 Jan 2026, 12:00" in again[0]
    assert "9 Jan 2026, 12:00" not in pages[1] and again[1] == pages[1]


def test_answers_that_are_kept_are_bounded() -> None:
    memory = AnswerMemory()
    keys: list[Key] = [("version", str(number), frozenset()) for number in range(30)]
    for key in keys:
        memory.put(key, Answer([("row",)] * (MOST_ROWS // 10), False, 0.0, "version"))
        memory.get(keys[0])
    kept = [key for key in keys if memory.get(key)]
    assert kept == [keys[0], *keys[-8:]]


def test_names_link_to_the_page_filtered_by_them() -> None:
    rows = [PRODUCT, {**PRODUCT, "product_id": "unknown", "product_name": None}]
    published = Published(rows={"top_products": rows})
    page = render(published, Filters.read({"from": "2026-01-02", "refresh": "60"}), live=True, now=NOW)
    picked = "?period=custom&amp;from=2026-01-02&amp;refresh=60"
    assert f'<a href="{picked}&amp;product_id=p%261">Lamp</a>' in page
    assert f'<a href="{picked}&amp;product_id=unknown">unknown</a>' in page
    assert f'<a href="{picked}&amp;brand=Glow+%26+Co">Glow &amp; Co</a>' in page
    assert f'<a href="{picked}&amp;category=home.lamp">home.lamp</a>' in page
    page = render(published, Filters(product_id="p&1"), live=True, now=NOW)
    assert published.last_values("event_counts")["product_id"] == "p&1"
    assert 'Product: Lamp (<a href="?">every product</a>)' in page
    assert '<input type="hidden" name="product_id" value="p&amp;1">' in page
    assert "Of every product." in page
    assert "<a href=" not in render(published, Filters(), live=False, now=NOW).partition("<main>")[2]


@pytest.mark.parametrize(("given", "is_refreshed"), [({"refresh": "60"}, True), ({"refresh": ""}, False), ({}, False)])
def test_the_page_refreshes_itself_if_asked(given: dict[str, str], is_refreshed: bool) -> None:
    filters = Filters.read(given)
    page = render(Published(), filters, live=True, now=NOW)
    assert ('<meta http-equiv="refresh" content="60">' in page) == is_refreshed
    assert ('<option value="60" selected>Every minute</option>' in page) == is_refreshed
    assert "refresh" not in render(Published(), filters, live=False, now=NOW)


@pytest.mark.parametrize(
    ("newest", "landed", "warning"),
    [
        (datetime(2025, 3, 14, 12), datetime(2026, 1, 8, 11), "The newest event happened 300 days ago."),
        (datetime(2026, 1, 7, 0), datetime(2026, 1, 8, 11), "The newest event happened 36 hours ago."),
        (datetime(9998, 1, 1), datetime(2026, 1, 1, 12), "The last message landed 7 days ago."),
        (datetime(2026, 1, 7, 13), datetime(2026, 1, 8, 11), ""),
    ],
)
@pytest.mark.parametrize("live", [True, False])
def test_the_page_warns_of_old_events(newest: datetime, landed: datetime, warning: str, live: bool) -> None:
    rows = [{**ACCOUNTING, "newest_event_at": newest, "last_landed_at": landed}]
    page = render(Published(rows={"data_quality": rows}), Filters(), live=live, now=NOW)
    assert re.findall(r'class="warning" role="status">(.*? ago\.)', page) == ([warning] if warning else [])


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("is_wide: true", "wide: true", "panels.yml: sections.Events.panels.0.wide: Extra inputs are not permitted"),
        (
            "longest_days: 92",
            "longest_days: a week",
            "panels.yml: sections.Events.panels.1.longest_days: Input should be a valid",
        ),
        ("title: Hourly events", "title: [", "panels.yml: while parsing a flow "),
    ],
)
def test_an_error_in_the_panels_is_one_line(tmp_path: Path, before: str, after: str, message: str) -> None:
    file = tmp_path / FILE.name
    file.write_text(FILE.read_text().replace(before, after, 1))
    with pytest.raises(UserError) as error:
        read_panels(file)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_narrow_panels_come_in_pairs() -> None:
    """Narrow ones come in pairs: there are two in a row."""
    for section in SECTIONS.values():
        runs = [(is_wide, len(list(run))) for is_wide, run in groupby(section.panels, lambda panel: panel.is_wide)]
        assert [number for is_wide, number in runs if not is_wide and number % 2] == []


def test_a_csv_has_the_rows_of_a_panel(tmp_path: Path) -> None:
    rows = [PRODUCT, {**PRODUCT, "product_name": "=1+1"}]
    published = Published(rows={**OF_EACH_SECTION, "top_products": rows})
    client = TestClient(app(Settings(_env_file=None, warehouse_path=tmp_path / "warehouse.duckdb")), "http://127.0.0.1")
    with patch("serve.dashboard.routes.open_published", lambda *_, **options: published):
        page = client.get("/?brand=glow").text
        links = re.findall(r'href="([^"?]*\.csv)\?brand=glow" aria-label="([^"]*) as CSV"', page)
        titles = [panel.title for panel in PANELS.all]
        assert [title for _, title in links] == ["Key figures", *titles]
        assert {client.get(f"/{link}").status_code for link, _ in links} == {200}
        response = client.get("/top-5-products.csv?brand=glow&period=1d")
        wrong = client.get("/top-5-products.csv?brnd=glow")
        missing = client.get("/top-6-products.csv")
    assert response.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert response.headers["Content-Disposition"] == 'attachment; filename="top-5-products.csv"'
    assert response.text.splitlines() == [
        "product_id,product_name,brand,category,purchases,revenue",
        "p&1,Lamp,Glow & Co,home.lamp,3,3",
        "p&1,'=1+1,Glow & Co,home.lamp,3,3",
    ]
    values = published.last_values("top_products")
    assert (values["brand"], values["start_date"], values["limit"]) == ("glow", date(2026, 1, 7), 5)
    assert (wrong.status_code, wrong.text.partition(";")[0]) == (400, "brnd: no such filter")
    assert (missing.status_code, missing.text.partition(";")[0]) == (404, "there is no such panel")
    assert ".csv?" not in render(published, Filters(), live=False, now=NOW)


def test_a_csv_before_the_first_build_is_an_error(tmp_path: Path) -> None:
    client = TestClient(app(Settings(_env_file=None, warehouse_path=tmp_path / "warehouse.duckdb")), "http://127.0.0.1")
    response = client.get("/funnel.csv")
    assert (response.status_code, response.text) == (503, "nothing is published yet: run `make ingest build` first\n")


def test_a_csv_without_a_known_time_zone_is_an_error(tmp_path: Path) -> None:
    client = TestClient(app(Settings(_env_file=None, warehouse_path=tmp_path / "warehouse.duckdb")), "http://127.0.0.1")
    accounting = {name: value for name, value in ACCOUNTING.items() if name != "reporting_time_zone"}
    published = Published(rows={"data_quality": [accounting]})
    with patch("serve.dashboard.routes.open_published", lambda *_, **options: published):
        response = client.get("/funnel.csv")
    message = "the last version was published by another release: run `make build`"
    assert (response.status_code, response.text) == (503, f"{message}\n")
    assert message in render(published, Filters(), live=True, now=NOW)


def test_data_quality_shows_conflicts_and_odd_keys() -> None:
    page = render(Published(), Filters(), live=True, now=NOW)
    panel = page[page.index("<h3>Accounting</h3>") :].partition("</article>")[0]
    headings = re.findall(r"<th[^>]*>([^<]*)</th>", panel)
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", panel)
    shown = dict(zip(headings, cells, strict=True))
    assert shown | {"Of these conflicting": "7", "Of these recovered": "1", "Mismatched keys": "5"} == shown


def test_drifting_fields_of_any_stream_are_listed() -> None:
    def panel(rows: list[dict[str, Any]]) -> str:
        page = render(Published(rows={"field_drift": rows}), Filters(), live=True, now=NOW)
        return page[page.index("<h3>Fields that differ from the contract</h3>") :].partition("</article>")[0]

    row = {
        "stream": "signups",
        "path": "props.ref",
        "problem": "unlisted",
        "type": "string",
        "messages": 1_234,
        "first_seen_at": NEWEST,
        "last_seen_at": NEWEST,
        "example": "<aaa-9>",
    }
    shown_row = re.findall(r"<td[^>]*>([^<]*)</td>", panel([row]))
    time = "7 Jan 2026, 23:51"
    assert shown_row == ["signups", "props.ref", "unlisted", "string", "1,234", time, time, "&lt;aaa-9&gt;"]
    assert "Every message has the fields of its contract, and no other." in panel([])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"brnd": "zara"},
            "brnd: no such filter; the filters are brand, category, product_id, stream, event_type, property, "
            "period, from, to, refresh",
        ),
        ({"period": "8d"}, "period: Input should be '1d', '7d', '30d', 'all' or 'custom'"),
        ({"refresh": "-1"}, "refresh: Input should be greater than or equal to 0"),
        ({"from": "yesterday"}, "from: expected a date such as 2026-01-31, got 'yesterday'"),
        ({"to": "9999-12-31"}, "to: expected a date such as 2026-01-31, got '9999-12-31'"),
        (
            {"period": "custom", "from": "2026-02-01", "to": "2026-01-01"},
            "from: 2026-02-01 is after 2026-01-01; swap the two",
        ),
    ],
)
def test_a_wrong_filter_is_a_one_line_error(given: dict[str, str], message: str) -> None:
    with pytest.raises(UserError) as error:
        Filters.read(given)
    assert str(error.value) == message


def test_queries_get_the_filters_they_take_and_the_page_names_the_others() -> None:
    published = Published(rows=OF_EACH_SECTION)
    page = render(published, Filters.read({"brand": "Zara", "period": "1d"}), live=True)
    assert published.last_values("event_counts") == {
        "start_time": datetime(2026, 1, 7),
        "end_time": datetime(2026, 1, 8),
        "start_date": date(2026, 1, 7),
        "end_date": date(2026, 1, 7),
        "brand": "Zara",
        "category": "all",
        "product_id": "all",
        "limit": 10,
    }
    assert page.count("Of every brand.") == sum(
        "brand" not in {one.name for one in published.queries[panel.query].parameters} for panel in PANELS.all
    )
    assert published.last_values("data_quality")["start_time"] == datetime(1970, 1, 1)


@pytest.mark.parametrize(
    ("given", "start", "end"),
    [
        ({"period": "all"}, datetime(2026, 1, 1), datetime(9999, 12, 31)),  # the default: no end
        ({"period": "30d"}, datetime(2026, 1, 1), datetime(2026, 1, 8)),
        ({"period": "1d"}, datetime(2026, 1, 7), datetime(2026, 1, 8)),
        ({"period": "custom", "to": "2025-06-30"}, datetime(2025, 6, 24), datetime(2025, 7, 1)),
        ({"period": "custom", "from": "2025-01-01", "to": "2030-12-31"}, datetime(2026, 1, 1), datetime(2031, 1, 1)),
    ],
)
def test_a_long_period_shows_its_last_days(given: dict[str, str], start: datetime, end: datetime) -> None:
    published = Published()
    render(published, Filters.read(given), live=True)
    values = published.last_values("hourly_event_counts")
    assert (values["start_time"], values["end_time"]) == (start, end)


def test_an_empty_page_says_what_to_do() -> None:
    page = render(Published(with_events=False), Filters(), live=False)
    assert "There are no events yet. Land some with `make ingest`, then run `make build`." in page
    assert "There is no dead letter." in page
    assert "choose others at the top" in render(Published(), Filters(), live=True)


def test_an_unbalanced_stream_is_marked_with_a_word() -> None:
    assert '<td class="wrong">✗ no</td>' in render(Published(), Filters(), live=True)


def test_a_panel_without_its_query_shows_that_beside_the_other_panels() -> None:
    page = render(Published(without="daily_kpis", rows=OF_EACH_SECTION), Filters(), live=True)
    assert page.count("the published build has no query daily_kpis: run `make build`") == 2
    assert page.count('class="error"') == 2
    assert page.count("<article") == len(PANELS.all)


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (QueryTimeoutError("it took longer"), "it took longer"),
        (ZeroDivisionError("a secret"), "this cannot be shown: see the log"),
    ],
)
def test_a_panel_that_fails_shows_that_beside_the_other_panels(failure: Exception, message: str) -> None:
    class Failing(Published):
        def ask(self, query: Query, values: Mapping[str, Value], *_: object) -> Answer:
            if query.name == "sessions_overview":
                raise failure
            return super().ask(query, values)

    with capture_logs() as lines:
        page = render(Failing(), Filters(), live=True)
    assert page.count(f'<p class="error" role="alert">{message}</p>') == 1
    assert page.count('class="error"') == 1
    assert "secret" not in page + repr(lines)
    assert [line["part"] for line in lines] == ["Sessions"] * isinstance(failure, ZeroDivisionError)


@pytest.mark.parametrize("name", ["brands", "categories", "data_quality", "top_products"])
def test_a_query_of_the_page_itself_that_fails_leaves_the_panels(name: str) -> None:
    class Failing(Published):
        def ask(self, query: Query, values: Mapping[str, Value], *_: object) -> Answer:
            if query.name == name:
                raise ZeroDivisionError("a secret")
            return super().ask(query, values)

    with capture_logs() as lines:
        page = render(Failing(rows=OF_EACH_SECTION), Filters(brand="Glow", product_id="p1"), live=True)
    assert page.count("<article") == len(PANELS.all)
    assert page.count('class="error"') == page.count("this cannot be shown: see the log") <= 3
    assert name in [line["part"] for line in lines]
    assert "secret" not in page + repr(lines)


def test_properties_that_fail_leave_the_other_panels() -> None:
    class Failing(Published):
        def ask(self, query: Query, values: Mapping[str, Value], *_: object) -> Answer:
            if query.name == "top_values":
                raise ZeroDivisionError
            return super().ask(query, values)

    page = render(Failing(), Filters(), live=True)
    of_values = [panel for panel in PANELS.all if panel.query == "top_values"]
    assert page.count("this cannot be shown: see the log") == len(of_values) > 0
    assert page.count('class="error"') == len(of_values)


def test_without_the_newest_event_the_period_ends_with_the_build() -> None:
    class Failing(Published):
        def ask(self, query: Query, values: Mapping[str, Value], *_: object) -> Answer:
            if query.name == "data_quality":
                raise QueryTimeoutError("it took longer")
            return super().ask(query, values)

    published = Failing()
    page = render(published, Filters(period="1d"), live=True)
    assert "so the period ends with the build and its days are those of UTC: it took longer" in page
    assert "There are no events yet" not in page
    values = published.last_values("event_counts")
    assert (values["start_time"], values["end_time"]) == (datetime(2026, 1, 8), datetime(2026, 1, 9))


def test_plots_begin_with_the_oldest_and_a_note_says_that_rows_are_cut() -> None:
    class Hours(Published):
        def ask(self, query: Query, values: Mapping[str, Value], *_: object) -> Answer:
            answer = super().ask(query, values)
            if query.name != "hourly_event_counts":
                return answer
            rows = [(NEWEST - timedelta(hours=hours), hours, 0, 0, 0) for hours in range(3)]
            return Answer(rows, True, 0.0, self.version)

    published = Hours()
    names = ("reporting_hour_at", "events", "views", "carts", "purchases")
    columns = [Column(name=name, type="integer", description="") for name in names]
    query = published.queries["hourly_event_counts"].model_copy(update={"columns": columns})
    published.queries["hourly_event_counts"] = query
    page = render(published, Filters(), live=True)
    panel = page[page.index("<h3>Hourly events</h3>") :].partition("</article>")[0]
    assert "The first 3 rows; there are more." in panel
    assert [panel.index(f"{hour}:51</td>") for hour in (21, 22, 23)] == sorted(
        panel.index(f"{hour}:51</td>") for hour in (21, 22, 23)
    )
    assert page.count("there are more") == 1, "of a panel with a limit of its own the title says it"


def test_requests_of_another_site_are_rejected(tmp_path: Path) -> None:
    client = TestClient(app(Settings(_env_file=None, warehouse_path=tmp_path / "warehouse.duckdb")), "http://127.0.0.1")
    for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
        assert client.get("/", headers=headers).status_code == 403


def test_a_filter_is_text_on_the_page_never_markup() -> None:
    page = render(Published(), Filters(brand="<b>bold", category='"><script>'), live=True)
    assert "<b>bold" not in page
    assert "<script" not in page
    assert "&lt;b&gt;bold" in page


def test_before_the_first_build_the_page_says_what_to_run(tmp_path: Path) -> None:
    client = TestClient(app(Settings(_env_file=None, warehouse_path=tmp_path / "warehouse.duckdb")), "http://127.0.0.1")
    response = client.get("/")
    assert (response.status_code, response.text) == (503, "nothing is published yet: run `make ingest build` first\n")


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("events", 1234567, "1,234,567"),
        ("views", Decimal(1234), "1,234"),
        ("revenue", Decimal("1234.5000"), "1,234.50"),
        ("revenue", Decimal("-31.9"), "-31.90"),
        ("average_page_views", Decimal("3.1266"), "3.13"),
        ("bounce_rate", Decimal("0.4567"), "45.7%"),
        ("purchases_per_view", Decimal(0), "0.0%"),
        ("average_duration_seconds", Decimal("59.6"), "1:00"),
        ("average_seconds_to_checkout", Decimal("772.9253"), "12:53"),
        ("max_latency_seconds", Decimal("87401.756342"), "24:16:42"),
        ("event_at", NEWEST, "7 Jan 2026, 23:51"),
        ("reporting_date", date(2026, 1, 7), "7 Jan 2026"),
        ("user_name", None, "\N{EN DASH}"),
        ("is_active", True, "✓ yes"),
    ],
)
def test_values_are_shown_as_people_read_them(column: str, value: object, text: str) -> None:
    assert shown(value, column) == text


@pytest.mark.parametrize(
    ("value", "ceiling"), [(0, 2), (2, 2), (3, 4), (11, 20), (61, 80), (100, 100), (101, 200), (9_001, 10_000)]
)
def test_the_scale_ends_with_a_round_number(value: int, ceiling: int) -> None:
    assert nice_ceiling(value) == ceiling


def test_bars_keep_their_place_when_hours_are_missing() -> None:
    rows = [
        {"at": datetime(2026, 1, 1, 22), "events": 10},
        {"at": datetime(2026, 1, 2, 1), "events": 5},
    ]
    drawn = plot(rows, "at", "events")
    assert [(bar["left"], bar["height"]) for bar in drawn["bars"]] == [(0, 100), (75, 50)]
    assert (drawn["width"], drawn["scale"], drawn["highest"]) == (25, ["10", "5", "0"], rows[0])
    assert drawn["marks"] == [{"left": 62.5, "text": "00:00"}]
    assert drawn["bars"][1]["title"] == "2 Jan 2026, 01:00: 5"


def test_an_hour_repeated_by_daylight_saving_has_two_bars() -> None:
    zone = ZoneInfo("America/Los_Angeles")
    hours = [(datetime(2025, 11, 2, 7, tzinfo=UTC) + timedelta(hours=hour)).astimezone(zone) for hour in range(25)]
    drawn = plot([{"at": hour, "events": 1} for hour in hours], "at", "events")
    assert [bar["left"] for bar in drawn["bars"]] == [4 * place for place in range(25)]
    assert [bar["title"][-8:-3] for bar in drawn["bars"]][:4] == ["00:00", "01:00", "01:00", "02:00"]
    assert [(mark["left"], mark["text"]) for mark in drawn["marks"]] == [
        (2, "00:00"),
        (30, "06:00"),
        (54, "12:00"),
        (78, "18:00"),
    ]


def test_a_day_begins_at_midnight_of_its_zone() -> None:
    assert instant(date(2026, 3, 29), ZoneInfo("America/Los_Angeles")) == datetime(2026, 3, 29, 7)


def test_a_negative_day_has_no_bar() -> None:
    drawn = plot([{"day": date(2026, 1, 1), "revenue": Decimal(-3)}], "day", "revenue")
    assert [(bar["height"], bar["title"]) for bar in drawn["bars"]] == [(0, "1 Jan 2026: -3")]
