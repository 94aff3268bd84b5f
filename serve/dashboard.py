"""The dashboard: one page of answers to the questions, served live or written to a file.

The page is HTML and CSS alone. Bars are boxes of a given width or height, so that it needs no script, fits any screen,
follows the reader's colours, and is its own report.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import cache
from math import ceil, floor, log10
from pathlib import Path
from typing import Any, Literal, Self

import structlog
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from ingest import web
from ingest.errors import UserError
from ingest.settings import Settings
from serve.questions import LIMIT, Published, find_question, open_published, published_at

log = structlog.get_logger()

Row = dict[str, Any]
"""Column to value."""
ALL = "all"
Period = Literal["24h", "7d", "30d", "all", "custom"]
PERIODS: dict[Period, str] = {
    "24h": "Last 24 hours",
    "7d": "Last 7 days",
    "30d": "Last 30 days",
    "all": "All time",
    "custom": "From and to",
}
MOST_CHOICES = "1000"
"""Brands and categories that the form offers: those with most revenue."""
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
YEARS = 1970, 9998


class Filters(BaseModel, extra="forbid", frozen=True):
    """What the reader picked, as it stands in the URL."""

    brand: str = ALL
    category: str = ALL
    period: Period = "7d"
    """Whole hours and days, of UTC; the last is that of the newest event."""
    first: date | None = Field(None, alias="from")
    """With the period custom: the first and the last day, both included, UTC."""
    last: date | None = Field(None, alias="to")

    @classmethod
    def read(cls, given: Mapping[str, str]) -> Self:
        """Read the filters; an empty one is one left out, since forms send those too.

        Raises:
            UserError: naming the first that is unknown or cannot be read.
        """
        try:
            chosen = {name: value for name, value in given.items() if value}
            if "period" not in chosen and chosen.keys() & {"from", "to"}:
                chosen["period"] = "custom"
            return cls.model_validate(chosen)
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0]) if first["loc"] else "from"
            if first["type"] == "extra_forbidden":
                raise UserError(f"{name}: no such filter; they are brand, category, period, from and to") from error
            raise UserError(f"{name}: {first['msg'].removeprefix('Value error, ')}") from error

    @field_validator("first", "last", mode="before")
    @classmethod
    def _is_a_date(cls, text: str) -> date:
        try:
            read = date.fromisoformat(text)
        except ValueError:
            read = date.min
        if not YEARS[0] <= read.year <= YEARS[1]:  # at the ends of the calendar there is no day before or after
            raise ValueError(f"expected a date such as 2026-01-31, got {text!r}")
        return read

    @model_validator(mode="after")
    def _is_in_order(self) -> Self:
        if self.period == "custom" and self.first and self.last and self.first > self.last:
            raise ValueError(f"{self.first} is after {self.last}; exchange the two")
        return self

    def bounds(self, newest: datetime) -> tuple[datetime | None, datetime | None]:
        """Start and end (exclusive), UTC; None is no bound. `newest` is when the newest event happened."""
        midnight = datetime.combine(newest, time()) + DAY
        match self.period:
            case "24h":
                hour = newest.replace(minute=0, second=0, microsecond=0) + HOUR
                return hour - DAY, hour
            case "7d" | "30d":
                return midnight - timedelta(days=int(self.period.removesuffix("d"))), midnight
            case "all":
                return None, None
            case "custom":
                return (
                    datetime.combine(self.first, time()) if self.first else None,
                    datetime.combine(self.last, time()) + DAY if self.last else None,
                )


@dataclass(frozen=True)
class Panel:
    """One question, and how its answer is shown: as a number, as bars over time, as a table."""

    title: str
    question: str
    columns: dict[str, str]
    """Of the table: column to heading. `a|b` shows the first of the two that has a value."""
    arguments: dict[str, str] = field(default_factory=dict)
    total: str | None = None
    """The column whose sum is shown large."""
    bar: str | None = None
    """The column of the table that is drawn as bars, too."""
    at: str = ""
    """The column of hours or days that the plots stand on."""
    plots: dict[str, str] = field(default_factory=dict)
    """Columns over time: to what their axis says."""
    fold: Callable[[list[Row]], list[Row]] | None = None
    """Sums rows up, where the question is finer than the panel."""
    longest: timedelta | None = None
    """Of a longer period only the end is shown: more bars could not be told apart."""
    is_of_all_time: bool = False
    """Whether the filter of time is left aside."""
    note: str = ""
    empty: str = "Nothing here in this period, brand and category: choose others at the top."


FUNNEL = {"viewers": "Viewed", "carters": "Then put into the cart", "buyers": "Then bought"}


def _funnel(rows: list[Row]) -> list[Row]:
    people = {column: sum(row[column] for row in rows) for column in FUNNEL}
    if not people["viewers"]:
        return []
    return [
        {"step": step, "people": people[column], "share": Decimal(people[column]) / people["viewers"]}
        for column, step in FUNNEL.items()
    ]


def _funnel_by_category(rows: list[Row]) -> list[Row]:
    people: dict[str, Counter[str]] = {}
    for row in rows:
        people.setdefault(row["category"], Counter()).update({column: row[column] for column in FUNNEL})
    return [
        {"category": category, **counts, "share": Decimal(counts["buyers"]) / counts["viewers"]}
        for category, counts in sorted(people.items(), key=lambda one: (-one[1]["viewers"], one[0]))
        if counts["viewers"]
    ]


SECTIONS: dict[str, list[Panel]] = {
    "Events": [
        Panel(
            "Total events",
            "event_counts",
            {"event_type": "Event", "events": "Events", "users": "Users"},
            total="events",
            bar="events",
        ),
        Panel(
            "Top 5 products",
            "top_products",
            {"product_id": "Product", "brand": "Brand", "purchases": "Purchases", "revenue": "Revenue"},
            arguments={"limit": "5"},
            bar="purchases",
        ),
        Panel(
            "Hourly events",
            "hourly_event_counts",
            {
                "reporting_hour_at": "Hour (UTC)",
                "events": "Events",
                "views": "Views",
                "carts": "Carts",
                "purchases": "Purchases",
            },
            longest=timedelta(days=7),
            at="reporting_hour_at",
            plots={"events": "Events an hour (UTC)"},
        ),
        Panel(
            "Recent events",
            "recent_events",
            {
                "event_at": "Time (UTC)",
                "event_type": "Event",
                "product_id|page_title|post_id": "Product, page or post",
                "user_id": "User",
                "price|total_amount": "Amount",
            },
            arguments={"limit": "10"},
        ),
    ],
    "Shop": [
        Panel(
            "Daily figures",
            "daily_kpis",
            {
                "reporting_date": "Day",
                "events": "Events",
                "users": "Users",
                "views": "Views",
                "carts": "Carts",
                "purchases": "Purchases",
                "purchases_per_view": "Purchases per view",
                "revenue": "Revenue",
                "checkouts": "Checkouts",
                "checkout_amount": "Checkout amount",
            },
            longest=timedelta(days=92),
            at="reporting_date",
            note="Days of the reporting time zone.",
            plots={"users": "Users a day", "purchases": "Purchases a day", "revenue": "Revenue a day"},
        ),
        Panel(
            "Funnel",
            "conversion_funnel",
            {"step": "Step", "people": "People", "share": "Of viewers"},
            bar="people",
            fold=_funnel,
            note="A person counts once a day and category, and a step only after the one before it.",
        ),
        Panel(
            "Funnel by category",
            "conversion_funnel",
            {
                "category": "Category",
                "viewers": "Viewers",
                "carters": "Into the cart",
                "buyers": "Buyers",
                "share": "Buyers of viewers",
            },
            bar="viewers",
            fold=_funnel_by_category,
        ),
    ],
    "Website": [
        Panel(
            "Sessions",
            "sessions_overview",
            {
                "reporting_date": "Day",
                "sessions": "Sessions",
                "users": "Users",
                "page_views": "Page views",
                "average_page_views": "Pages a session",
                "bounce_rate": "Bounce rate",
                "average_duration_seconds": "Duration (m:ss)",
            },
            total="sessions",
            longest=timedelta(days=92),
            at="reporting_date",
            note="Days of the reporting time zone.",
            plots={"sessions": "Sessions a day", "average_duration_seconds": "Average duration (m:ss)"},
        ),
        Panel(
            "Time on page",
            "top_pages",
            {
                "page_title": "Page",
                "average_time_on_page_seconds": "Average (m:ss)",
                "time_on_page_seconds": "All (h:mm:ss)",
                "page_views": "Page views",
            },
            arguments={"limit": "10"},
            bar="average_time_on_page_seconds",
            note="The pages with most time spent on them.",
        ),
        Panel(
            "Paths",
            "session_paths",
            {"path": "Pages in order", "sessions": "Sessions", "average_duration_seconds": "Duration (m:ss)"},
            arguments={"limit": "10"},
            bar="sessions",
        ),
    ],
    "Attribution": [
        Panel(
            "First click of each checkout",
            "first_click_by_url",
            {
                "first_click_url": "Address of the click",
                "checkouts": "Checkouts",
                "share_of_checkouts": "Share",
                "amount": "Amount",
                "average_seconds_to_checkout": "To checkout (m:ss)",
            },
            arguments={"limit": "10"},
            bar="checkouts",
            note="Without an address: no click of the same user on the same product led to the checkout.",
        ),
        Panel(
            "Models compared",
            "attribution_comparison",
            {
                "url": "Address of the click",
                "first_amount": "First click",
                "last_amount": "Last click",
                "linear_amount": "Linear",
                "position_based_amount": "Position",
                "time_decay_amount": "Time decay",
            },
            arguments={"limit": "10"},
            note="Amounts of the checkouts, shared out among the clicks that led to them.",
        ),
    ],
    "Community": [
        Panel(
            "Posts",
            "post_leaderboard",
            {
                "post_text": "Post",
                "user_name": "By",
                "views": "Views",
                "likes": "Likes",
                "like_ratio": "Likes per view",
            },
            arguments={"limit": "5"},
            bar="views",
        ),
        Panel(
            "Creators",
            "creator_leaderboard",
            {
                "user_name|user_id": "Creator",
                "posts": "Posts",
                "views": "Views",
                "likes": "Likes",
                "is_active": "Active",
            },
            bar="views",
        ),
    ],
    "Data quality": [
        Panel(
            "Accounting",
            "data_quality",
            {
                "stream": "Stream",
                "is_balanced": "Balances",
                "landed": "Landed",
                "accepted": "Accepted",
                "duplicates": "Duplicates",
                "rejected": "Rejected",
                "reused_ids": "Reused ids",
            },
            is_of_all_time=True,
            note="Landed = accepted + duplicates + rejected.",
        ),
        Panel(
            "Dead letters by reason",
            "dead_letters_by_reason",
            {
                "reason": "Reason",
                "stream": "Stream",
                "messages": "Messages",
                "last_landed_at": "Last landed (UTC)",
            },
            total="messages",
            bar="messages",
            is_of_all_time=True,
            empty="No message was rejected.",
        ),
        Panel(
            "Freshness and lateness",
            "data_quality",
            {
                "stream": "Stream",
                "newest_event_at": "Newest event (UTC)",
                "last_landed_at": "Last landed (UTC)",
                "worst_p95_latency_seconds": "95 % within, worst day (m:ss)",
                "max_latency_seconds": "Latest (h:mm:ss)",
            },
            is_of_all_time=True,
        ),
        Panel(
            "Lateness by day",
            "arrival_lateness",
            {
                "reporting_date": "Day",
                "stream": "Stream",
                "events": "Events",
                "p50_latency_seconds": "Half within (m:ss)",
                "p95_latency_seconds": "95 % within (m:ss)",
                "max_latency_seconds": "Latest (h:mm:ss)",
                "share_over_an_hour": "Over an hour",
            },
            longest=timedelta(days=7),
            bar="share_over_an_hour",
            note="From when an event happened until it was published.",
        ),
    ],
}


class _Asked:
    """The answers of one version; the same question is asked once."""

    def __init__(self, published: Published) -> None:
        self._published = published
        self.rows = cache(self._rows)

    def takes(self, name: str) -> set[str]:
        """The parameters of a question.

        Raises:
            UserError: when there is none of this name.
        """
        if name not in {*self._published.questions, *self._published.left_out}:
            raise UserError(f"what is published does not know the question {name}: run `make build`")
        return {parameter.name for parameter in find_question(self._published, name).parameters}

    def rows_or_error(self, name: str, **arguments: str) -> tuple[list[Row], str]:
        """The rows, or no rows and why."""
        try:
            return self.rows(name, **arguments)[0], ""
        except UserError as error:
            return [], str(error)

    def _rows(self, name: str, **arguments: str) -> tuple[list[Row], bool]:
        """The rows, and whether there are more."""
        question = find_question(self._published, name)
        columns = [column.name for column in question.columns]
        answer = self._published.ask(question, question.values(arguments))
        return [dict(zip(columns, map(_without_zone, row), strict=True)) for row in answer.rows], answer.is_cut


def render(published: Published, filters: Filters, *, live: bool, error: str = "") -> str:
    """The page as HTML that refers to nothing outside itself. A panel whose question fails shows the error.

    Args:
        live: with the form of filters; without it, what was picked is only stated.
        error: what is wrong with the filters that were given, instead of figures.
    """
    asked = _Asked(published)
    quality, quality_error = asked.rows_or_error("data_quality")
    built = published_at(published.version).replace(tzinfo=None)
    newest = max((row["newest_event_at"] for row in quality if row["newest_event_at"]), default=None)
    period_end = built if quality_error else newest
    start, end = filters.bounds(period_end) if period_end else (None, None)
    picked = {name: value for name in ("brand", "category") if (value := getattr(filters, name)) != ALL}

    def answered(panel: Panel) -> dict[str, Any]:
        try:
            return answer(panel)
        except UserError as failure:
            reason = str(failure)
        except Exception as failure:  # noqa: BLE001  whatever it is, the other panels can be shown
            log.error("panel failed", panel=panel.title, **web.what_and_where(failure))  # noqa: TRY400
            reason = "this panel cannot be shown: see the log"
        return {"panel": panel, "error": reason, "rows": [], "numbers": [], "notes": panel.note}

    def answer(panel: Panel) -> dict[str, Any]:
        since = start
        if period_end and panel.longest:
            until = min(end or datetime.max, datetime.combine(period_end, time()) + DAY)  # noqa: DTZ901
            since = max(start or datetime.min, until - panel.longest)  # noqa: DTZ901
        bounds: dict[str, str] = {}
        if since and not panel.is_of_all_time:
            bounds |= {"start_time": since.isoformat(), "start_date": str(since.date())}
        if end and not panel.is_of_all_time:
            bounds["end_time"] = end.isoformat()
            if filters.period == "custom":  # the others end with the newest event, whose day may be the next one there
                bounds["end_date"] = str((end - timedelta.resolution).date())
        takes = asked.takes(panel.question)
        arguments = {**panel.arguments, **picked, **bounds}
        rows, is_cut = asked.rows(panel.question, **{name: value for name, value in arguments.items() if name in takes})
        notes = [panel.note] if panel.note else []
        if panel.is_of_all_time:
            notes.append("Of all time.")
        elif since != start and panel.longest:
            notes.append(f"Of the last {panel.longest.days} days at most.")
        if unfiltered := picked.keys() - takes:
            notes.append(f"Of every {' and '.join(sorted(unfiltered))}.")
        if filters.period == "24h" and "start_date" in takes and not panel.is_of_all_time:
            notes.append("Whole days.")
        if is_cut and LIMIT not in panel.arguments:
            notes.append(f"The first {len(rows):,} rows; there are more.")
        rows = panel.fold(rows) if panel.fold else rows
        if panel.at:
            rows = sorted(rows, key=lambda row: row[panel.at])  # a question gives the newest first
        numbers = [columns for columns in panel.columns if any(is_number(cell(row, columns)[1]) for row in rows)]
        return {"panel": panel, "error": "", "rows": rows, "numbers": numbers, "notes": " ".join(notes)}

    return _template().render(
        live=live,
        error=error,
        filters=filters,
        periods=PERIODS,
        brands=_choices(asked.rows_or_error("brands", limit=MOST_CHOICES)[0], "brand", filters.brand),
        categories=_choices(asked.rows_or_error("categories", limit=MOST_CHOICES)[0], "category", filters.category),
        newest=newest,
        quality_error=quality_error,
        landed=max((row["last_landed_at"] for row in quality), default=None),
        built=built,
        start=start,
        last=end and end - timedelta.resolution,
        sections={} if error else {title: [answered(panel) for panel in panels] for title, panels in SECTIONS.items()},
    )


def _without_zone(value: Any) -> Any:
    """All times are UTC; only some engines say so."""
    return value.replace(tzinfo=None) if isinstance(value, datetime) else value


def _choices(rows: list[Row], column: str, picked: str) -> list[str]:
    return sorted({row[column] for row in rows} | ({picked.lower()} - {ALL}))


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"shown": shown}
    environment.globals |= {"cell": cell, "plot": plot}
    return environment.get_template("dashboard.html")


def cell(row: Row, columns: str) -> tuple[str, Any]:
    """The first of these columns that has a value, and the value."""
    names = columns.split("|")
    return next(((name, row[name]) for name in names if row[name] is not None), (names[0], None))


def is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def shown(value: Any, column: str = "") -> str:  # noqa: PLR0911
    """A value as people read it; the name of its column tells durations and shares from other numbers."""
    match value:
        case None:
            return "-"
        case bool():
            return "✓ yes" if value else "✗ no"
        case datetime():
            return f"{value.day} {value:%b %Y, %H:%M}"
        case date():
            return f"{value.day} {value:%b %Y}"
        case str():
            return value
    if re.search(r"(^|_)seconds(_|$)", column):
        minutes, seconds = divmod(round(value), 60)
        return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}" if minutes >= 60 else f"{minutes}:{seconds:02}"
    if re.search(r"(^|_)(share|rate|ratio|per)(_|$)", column):
        return f"{value:.1%}"
    is_whole = isinstance(value, int) or (isinstance(value, Decimal) and value.as_tuple().exponent == 0)
    return f"{value:,}" if is_whole else f"{value:,.2f}"


def plot(rows: list[Row], at: str, column: str) -> dict[str, Any]:
    """Bars over time: where each begins and how high it is, in per cent of the plot, and the marks of both axes."""
    times = [_without_time(row[at]) for row in rows]
    step = HOUR if isinstance(rows[0][at], datetime) else DAY
    begin, end = times[0], times[-1] + step
    top = nice_ceiling(max(row[column] or 0 for row in rows))
    days = ceil((end - begin) / DAY)
    every, of, form = (6 * HOUR, HOUR, "{:%H:%M}") if days <= 2 else (ceil(days / 7) * DAY, DAY, "{0.day} {0:%b}")

    def across(moment: datetime) -> float:
        return round(100 * ((moment - begin) / (end - begin)), 3)

    first = datetime.combine(begin, time())
    marks = [first + number * every for number in range(ceil((end - first) / every))]
    return {
        "bars": [
            {
                "left": across(moment),
                "height": round(100 * max(0, float(row[column] or 0)) / top, 2),
                "title": f"{shown(row[at])}: {shown(row[column], column)}",
            }
            for moment, row in zip(times, rows, strict=True)
        ],
        "width": across(begin + step),
        "scale": [shown(top, column), shown(top // 2, column), shown(0, column)],
        "marks": [
            {"left": place, "text": form.format(mark)} for mark in marks if 0 <= (place := across(mark + of / 2)) < 97
        ],
        "highest": max(rows, key=lambda row: row[column] or 0),
    }


def _without_time(moment: date) -> datetime:
    return moment if isinstance(moment, datetime) else datetime.combine(moment, time())


def nice_ceiling(value: Any) -> int:
    """The least of 2, 4, 6, 8, 10, 20, 40 ... that is not less: half of it is a whole number, too."""
    magnitude: int = 10 ** floor(log10(max(value, 2)))
    return next(step * magnitude for step in (1, 2, 4, 6, 8, 10) if step * magnitude >= max(value, 2))


def app(settings: Settings) -> Starlette:
    """The page at /, of what was published last when it is loaded."""

    def page(request: Request) -> Response:
        filters, error = Filters(), ""
        try:
            filters = Filters.read(request.query_params)
        except UserError as wrong:
            error = str(wrong)
        try:
            with closing(open_published(settings)) as published:
                return HTMLResponse(render(published, filters, live=True, error=error), 400 if error else 200)
        except UserError as missing:
            return PlainTextResponse(f"{missing}\n", 503)

    async def refuse(request: Request, error: HTTPException) -> Response:
        return PlainTextResponse(f"{error.detail}\n", error.status_code)

    return Starlette(routes=[Route("/", page)], middleware=[Middleware(web.LocalOnly, refuse=refuse)])


def serve(settings: Settings, host: str, port: int) -> None:
    """Serve until SIGINT or SIGTERM, on loopback.

    Raises:
        UserError: when the address cannot be listened on, or is not loopback.
    """
    listener = web.listen(host, port, "the page asks nobody who they are; put a proxy that does in front")
    web.run(app(settings), listener, "/", 5)
