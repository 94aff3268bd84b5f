"""The dashboard without a browser and without a warehouse: filters, bounds, formats, and pages with nothing on them."""

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from structlog.testing import capture_logs

from ingest.errors import UserError
from ingest.settings import Settings
from serve.dashboard import SECTIONS, Filters, app, nice_ceiling, plot, render, shown
from serve.questions import Answer, Column, Parameter, Question, QuestionTimeoutError, Value

NEWEST = datetime(2026, 1, 7, 23, 51, 7)
BOUNDS = {"start_time": "timestamp", "end_time": "timestamp", "start_date": "date", "end_date": "date"}
ACCOUNTING = {
    "stream": "page_views",
    "landed": 1_234,
    "accepted": 1_200,
    "duplicates": 30,
    "rejected": 3,
    "rejected_share": Decimal("0.0024"),
    "reused_ids": 0,
    "is_balanced": False,
    "newest_event_at": NEWEST,
    "last_landed_at": NEWEST,
    "worst_p95_latency_seconds": Decimal("3.7"),
    "max_latency_seconds": Decimal("87401.756342"),
}


class Published:
    """Answers every question but that of data quality with no rows, and remembers what it was asked."""

    version = "20260108T120000.000000Z"

    def __init__(self, *, with_events: bool = True, without: str = "") -> None:
        names = {panel.question for panels in SECTIONS.values() for panel in panels} | {"brands", "categories"}
        self.questions = {name: self._question(name) for name in names - {without}}
        self.left_out: dict[str, Question] = {}
        self.asked: list[tuple[str, dict[str, Value]]] = []
        self._rows = {"data_quality": [tuple(ACCOUNTING.values())] if with_events else []}

    def _question(self, name: str) -> Question:
        types = {**BOUNDS, "limit": "integer"}
        if name in ("event_counts", "top_products"):
            types |= {"brand": "string", "category": "string"}
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
        columns = [Column(name=column, type="string", description="") for column in ACCOUNTING]
        return Question(name=name, description="", parameters=parameters, columns=columns, sql="")

    def ask(self, question: Question, values: Mapping[str, Value], *_: object) -> Answer:
        self.asked.append((question.name, dict(values)))
        return Answer(self._rows.get(question.name, []), False, 0.0, self.version)

    def close(self) -> None: ...

    def last_values(self, name: str) -> dict[str, Value]:
        return [values for asked, values in self.asked if asked == name][-1]


@pytest.mark.parametrize(
    ("given", "start", "end"),
    [
        ({}, datetime(2026, 1, 1), datetime(2026, 1, 8)),
        ({"period": "24h"}, datetime(2026, 1, 7), datetime(2026, 1, 8)),
        ({"period": "30d"}, datetime(2025, 12, 9), datetime(2026, 1, 8)),
        ({"period": "all"}, None, None),
        ({"period": "all", "from": "2026-01-02", "to": ""}, None, None),
        (
            {"period": "custom", "from": "2026-01-02", "to": "2026-01-02"},
            datetime(2026, 1, 2),
            datetime(2026, 1, 3),
        ),
        ({"period": "custom", "to": "2026-01-02"}, None, datetime(2026, 1, 3)),
    ],
)
def test_the_period_ends_with_the_newest_event(
    given: dict[str, str], start: datetime | None, end: datetime | None
) -> None:
    assert Filters.read(given).bounds(NEWEST) == (start, end)


def test_24_hours_are_whole_hours_up_to_that_of_the_newest_event() -> None:
    bounds = Filters(period="24h").bounds(datetime(2026, 1, 7, 10, 0))
    assert bounds == (datetime(2026, 1, 6, 11), datetime(2026, 1, 7, 11))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"brnd": "zara"}, "brnd: no such filter; they are brand, category, period, from and to"),
        ({"period": "8d"}, "period: Input should be '24h', '7d', '30d', 'all' or 'custom'"),
        ({"from": "yesterday"}, "from: expected a date such as 2026-01-31, got 'yesterday'"),
        ({"to": "9999-12-31"}, "to: expected a date such as 2026-01-31, got '9999-12-31'"),
        (
            {"period": "custom", "from": "2026-02-01", "to": "2026-01-01"},
            "from: 2026-02-01 is after 2026-01-01; exchange the two",
        ),
    ],
)
def test_a_wrong_filter_is_told_in_one_line(given: dict[str, str], message: str) -> None:
    with pytest.raises(UserError) as error:
        Filters.read(given)
    assert str(error.value) == message


def test_questions_get_the_filters_that_they_take_and_the_page_says_which_not() -> None:
    published = Published()
    page = render(published, Filters.read({"brand": "Zara", "period": "24h"}), live=True)
    assert published.last_values("event_counts") == {
        "start_time": datetime(2026, 1, 7),
        "end_time": datetime(2026, 1, 8),
        "start_date": date(2026, 1, 7),
        "end_date": date(9999, 12, 31),  # where the newest event may be of the 8th
        "brand": "Zara",
        "category": "all",
        "limit": 10,
    }
    assert page.count("Of every brand.") == sum(
        "brand" not in {one.name for one in published.questions[panel.question].parameters}
        for panels in SECTIONS.values()
        for panel in panels
    )
    assert published.last_values("data_quality")["start_time"] == datetime(1970, 1, 1)


@pytest.mark.parametrize(
    ("given", "start", "end"),
    [
        ({"period": "all"}, datetime(2026, 1, 1), datetime(9999, 12, 31)),  # the default: no end
        ({"period": "30d"}, datetime(2026, 1, 1), datetime(2026, 1, 8)),
        ({"period": "24h"}, datetime(2026, 1, 7), datetime(2026, 1, 8)),
        ({"period": "custom", "to": "2025-06-30"}, datetime(2025, 6, 24), datetime(2025, 7, 1)),
        ({"period": "custom", "from": "2025-01-01", "to": "2030-12-31"}, datetime(2026, 1, 1), datetime(2031, 1, 1)),
    ],
)
def test_of_a_long_period_the_last_hours_are_drawn(given: dict[str, str], start: datetime, end: datetime) -> None:
    published = Published()
    render(published, Filters.read(given), live=True)
    values = published.last_values("hourly_event_counts")
    assert (values["start_time"], values["end_time"]) == (start, end)


def test_a_page_with_nothing_on_it_says_what_to_do() -> None:
    page = render(Published(with_events=False), Filters(), live=False)
    assert "There are no events yet. Land some with `make ingest`, then run `make build`." in page
    assert "No message was rejected." in page
    assert "choose others at the top" in render(Published(), Filters(), live=True)


def test_a_sum_that_is_off_is_marked_by_a_word_too() -> None:
    assert '<td class="wrong">✗ no</td>' in render(Published(), Filters(), live=True)


def test_a_panel_whose_question_is_not_published_says_so_and_leaves_the_others() -> None:
    page = render(Published(without="top_products"), Filters(), live=True)
    assert page.count("what is published does not know the question top_products: run `make build`") == 1
    assert page.count('class="error"') == 1
    assert page.count("<article>") == sum(map(len, SECTIONS.values()))


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (QuestionTimeoutError("it took longer"), "it took longer"),
        (ZeroDivisionError("a secret"), "this panel cannot be shown: see the log"),
    ],
)
def test_a_panel_that_fails_says_so_and_leaves_the_others(failure: Exception, message: str) -> None:
    class Failing(Published):
        def ask(self, question: Question, values: Mapping[str, Value], *_: object) -> Answer:
            if question.name == "daily_kpis":
                raise failure
            return super().ask(question, values)

    with capture_logs() as lines:
        page = render(Failing(), Filters(), live=True)
    assert page.count(f'<p class="error" role="alert">{message}</p>') == 1
    assert page.count('class="error"') == 1
    assert "secret" not in page + repr(lines)
    assert [line["panel"] for line in lines] == ["Daily figures"] * isinstance(failure, ZeroDivisionError)


def test_without_the_newest_event_the_period_ends_with_the_build() -> None:
    class Failing(Published):
        def ask(self, question: Question, values: Mapping[str, Value], *_: object) -> Answer:
            if question.name == "data_quality":
                raise QuestionTimeoutError("it took longer")
            return super().ask(question, values)

    published = Failing()
    page = render(published, Filters(period="24h"), live=True)
    assert "When the newest event happened is not known, so the period ends with the build: it took longer" in page
    assert "There are no events yet" not in page
    values = published.last_values("event_counts")
    assert (values["start_time"], values["end_time"]) == (datetime(2026, 1, 7, 13), datetime(2026, 1, 8, 13))


def test_plots_begin_with_the_oldest_and_a_cut_is_told() -> None:
    class Hours(Published):
        def ask(self, question: Question, values: Mapping[str, Value], *_: object) -> Answer:
            answer = super().ask(question, values)
            if question.name != "hourly_event_counts":
                return answer
            rows = [(NEWEST - timedelta(hours=hours), hours, 0, 0, 0) for hours in range(3)]
            return Answer(rows, True, 0.0, self.version)

    published = Hours()
    names = ("reporting_hour_at", "events", "views", "carts", "purchases")
    columns = [Column(name=name, type="integer", description="") for name in names]
    question = published.questions["hourly_event_counts"].model_copy(update={"columns": columns})
    published.questions["hourly_event_counts"] = question
    page = render(published, Filters(), live=True)
    panel = page[page.index("<h3>Hourly events</h3>") :].partition("</article>")[0]
    assert "The first 3 rows; there are more." in panel
    assert [panel.index(f"{hour}:51</td>") for hour in (21, 22, 23)] == sorted(
        panel.index(f"{hour}:51</td>") for hour in (21, 22, 23)
    )
    assert page.count("there are more") == 1, "of a panel with a limit of its own the title says it"


def test_another_site_cannot_make_a_browser_ask(tmp_path: Path) -> None:
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
        ("user_name", None, "-"),
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


def test_bars_stand_where_their_hour_does_though_hours_are_missing() -> None:
    rows = [
        {"at": datetime(2026, 1, 1, 22), "events": 10},
        {"at": datetime(2026, 1, 2, 1), "events": 5},
    ]
    drawn = plot(rows, "at", "events")
    assert [(bar["left"], bar["height"]) for bar in drawn["bars"]] == [(0, 100), (75, 50)]
    assert (drawn["width"], drawn["scale"], drawn["highest"]) == (25, ["10", "5", "0"], rows[0])
    assert drawn["marks"] == [{"left": 62.5, "text": "00:00"}]
    assert drawn["bars"][1]["title"] == "2 Jan 2026, 01:00: 5"


def test_a_negative_day_has_no_bar() -> None:
    drawn = plot([{"day": date(2026, 1, 1), "revenue": Decimal(-3)}], "day", "revenue")
    assert [(bar["height"], bar["title"]) for bar in drawn["bars"]] == [(0, "1 Jan 2026: -3")]
