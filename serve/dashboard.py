"""The dashboard: one page of answers to the questions, served live or written to a file.

The page is HTML and CSS alone. Bars are boxes of a given width or height, so that it needs no script, fits any screen,
follows the reader's colours, and is its own report. Its period is whole days of the reporting time zone, the same for
every panel, and its times are of that zone.
"""

import re
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from functools import cache
from math import ceil, floor, log10
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

import structlog
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from pydantic import BaseModel, BeforeValidator, Field, ValidationError, field_validator, model_validator
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from ingest import web
from ingest.errors import UserError
from ingest.settings import Settings
from serve.formats import as_csv
from serve.questions import LIMIT, Answer, Published, Question, find_question, open_published, published_at

log = structlog.get_logger()

Row = dict[str, Any]
"""Column to value."""
ALL = "all"
Period = Literal["1d", "7d", "30d", "all", "custom"]
PERIODS: dict[Period, str] = {
    "1d": "Last day",
    "7d": "Last 7 days",
    "30d": "Last 30 days",
    "all": "All time",
    "custom": "From and to",
}
REFRESHES = {0: "Never", 60: "Every minute", 300: "Every 5 minutes", 3600: "Every hour"}
"""Seconds after which a browser loads the page again."""
PICKS = {"brand": "brand", "category": "category", "product_id": "product"}
"""Filters of events, as URLs and questions name them, and as people do."""
LINKED = {"brand": "brand", "category": "category", "product_id": "product_id", "product_name": "product_id"}
"""Columns whose cells are links, to the filter that the link sets; a column of the filter's name has the value."""
MOST_CHOICES = "1000"
"""Brands and categories that the form offers: those with most revenue."""
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
NOTHING = "\N{EN DASH}"
STALE = DAY
"""Age of the newest event from which on the page warns."""
YEARS = 1970, 9998


class Filters(BaseModel, extra="forbid", frozen=True):
    """What the reader picked, as it stands in the URL."""

    brand: str = ALL
    category: str = ALL
    product_id: str = ALL
    # 24h is what older addresses call 1d
    period: Annotated[Period, BeforeValidator(lambda name: "1d" if name == "24h" else name)] = "7d"
    """Days of the reporting time zone; the last is that of the newest event, or of the last landing if
    that was before."""
    first: date | None = Field(None, alias="from")
    """With the period custom: the first and the last day, both included."""
    last: date | None = Field(None, alias="to")
    refresh: int = Field(0, ge=0, le=86_400)
    """Seconds after which a browser loads the page again; 0: never."""

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
                names = [field.alias or name for name, field in cls.model_fields.items()]
                raise UserError(f"{name}: no such filter; the filters are {', '.join(names)}") from error
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
            raise ValueError(f"{self.first} is after {self.last}; swap the two")
        return self

    @property
    def picked(self) -> dict[str, str]:
        """The filters of events that are not `all`."""
        return {name: value for name in PICKS if (value := getattr(self, name)) != ALL}

    def days(self, newest: date) -> tuple[date | None, date | None]:
        """First and last day, both included; None is no bound. `newest` is the day of the newest event."""
        match self.period:
            case "1d" | "7d" | "30d":
                return newest - (int(self.period.removesuffix("d")) - 1) * DAY, newest
            case "all":
                return None, None
            case "custom":
                return self.first, self.last

    def url(self, path: str = "", **changes: str | int) -> str:
        """Address of the page, or of a path beside it, with these filters and changes; an empty one is left out."""
        given = self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        return f"{path}?{urlencode({name: value for name, value in {**given, **changes}.items() if value != ''})}"


def instant(day: date, zone: tzinfo, at: time = time()) -> datetime:
    """The instant, UTC, at which it is that time of day in the zone."""
    return datetime.combine(day, at, zone).astimezone(UTC).replace(tzinfo=None)


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
    """Plotted column to axis label."""
    fold: Callable[[list[Row]], list[Row]] | None = None
    """Makes the rows of the table of those of the answer."""
    longest_days: int | None = None
    """Of a longer period only the end is shown: more bars could not be told apart."""
    is_of_all_time: bool = False
    """Whether the filter of time is left aside."""
    is_wide: bool = False
    """Whether it has a row of the page to itself."""
    note: str = ""
    """What is counted, and per what, unless the headings say so."""
    empty: str = "Nothing here in this period, brand, category and product: choose others at the top."

    @property
    def file(self) -> str:
        """Name of its CSV file."""
        return f"{self.title.lower().replace(' ', '-')}.csv"


KEY_FIGURES = {
    "events": "Events",
    "users": "People",
    "sessions": "Sessions",
    "checkouts": "Checkouts",
    "purchases": "Purchases",
    "revenue": "Revenue",
    "conversion_rate": "Conversion",
}
KEY_PANEL = Panel(
    "Key figures",
    "key_figures",
    KEY_FIGURES,
    note=(
        "People: distinct, with an event. Purchases: returns are counted too, and subtract from the revenue."
        " Conversion: people with a purchase, of all people."
    ),
)
FUNNEL = {"viewers": "Viewed", "carters": "Then put into the cart", "buyers": "Then bought"}


def _funnel(rows: list[Row]) -> list[Row]:
    """A row per step, of the one row that the question answers."""
    return [
        {"step": step, "people": row[column], "share": Decimal(row[column]) / row["viewers"]}
        for row in rows
        if row["viewers"]
        for column, step in FUNNEL.items()
    ]


SECTIONS: dict[str, list[Panel]] = {
    "Events": [
        Panel(
            "Hourly events",
            "hourly_event_counts",
            {
                "reporting_hour_at": "Hour",
                "events": "Events",
                "views": "Views",
                "carts": "Carts",
                "purchases": "Purchases",
            },
            longest_days=7,
            at="reporting_hour_at",
            plots={"events": "Events per hour"},
        ),
        Panel(
            "Top 5 products",
            "top_products",
            {
                "product_name|product_id": "Product",
                "brand": "Brand",
                "category": "Category",
                "purchases": "Purchases",
                "revenue": "Revenue",
            },
            arguments={"limit": "5"},
            bar="purchases",
            note="Those with most purchases, returns counted too; the revenue is net of returns.",
        ),
        Panel(
            "Total events",
            "event_counts",
            {"event_type": "Event", "events": "Events", "users": "People"},
            total="events",
            bar="events",
            note="People are distinct per event.",
        ),
        Panel(
            "Recent events",
            "recent_events",
            {
                "event_at": "Time",
                "event_type": "Event",
                "product_name|product_id|page_title|post_id": "Product, page or post",
                "user_id": "User",
                "price|total_amount": "Amount",
            },
            arguments={"limit": "10"},
            note="The newest ten.",
        ),
    ],
    "Shop": [
        Panel(
            "Daily figures",
            "daily_kpis",
            {
                "reporting_date": "Day",
                "events": "Events",
                "users": "People",
                "views": "Views",
                "carts": "Carts",
                "purchases": "Purchases",
                "purchases_per_view": "Purchases per view",
                "revenue": "Revenue",
                "checkouts": "Checkouts",
                "checkout_amount": "Checkout amount",
            },
            longest_days=92,
            is_wide=True,
            at="reporting_date",
            note="People are distinct per day. Returns are counted as purchases, and subtract from the revenue.",
            plots={"users": "People per day", "purchases": "Purchases per day", "revenue": "Revenue per day"},
        ),
        Panel(
            "Funnel",
            "conversion_funnel",
            {"step": "Step", "people": "People", "share": "Of viewers"},
            arguments={"per": "period"},
            bar="people",
            fold=_funnel,
            note="Distinct people of the whole period. A step counts after the one before it.",
        ),
        Panel(
            "Funnel by category",
            "conversion_funnel",
            {
                "category": "Category",
                "viewers": "Viewers",
                "carters": "Into the cart",
                "buyers": "Buyers",
                "buyers_per_viewer": "Buyers of viewers",
            },
            arguments={"per": "category"},
            bar="viewers",
            note="Distinct people per category over the whole period; who views two categories counts in both.",
        ),
    ],
    "Website": [
        Panel(
            "Sessions",
            "sessions_overview",
            {
                "reporting_date": "Day",
                "sessions": "Sessions",
                "users": "People",
                "page_views": "Page views",
                "average_page_views": "Pages per session",
                "bounce_rate": "Bounce rate",
                "average_duration_seconds": "Duration (m:ss)",
            },
            total="sessions",
            longest_days=92,
            is_wide=True,
            at="reporting_date",
            note="A session counts on the day on which it starts. People are distinct per day.",
            plots={"sessions": "Sessions per day", "average_duration_seconds": "Average duration (m:ss)"},
        ),
        Panel(
            "Time on page",
            "top_pages",
            {
                "page_title": "Page",
                "average_time_on_page_seconds": "Per view (m:ss)",
                "time_on_page_seconds": "All (h:mm:ss)",
                "page_views": "Page views",
            },
            arguments={"limit": "10"},
            bar="average_time_on_page_seconds",
            note="The ten pages with most time spent on them; the average is per page view whose time is known.",
        ),
        Panel(
            "Paths",
            "session_paths",
            {"path": "Pages in order", "sessions": "Sessions", "average_duration_seconds": "Duration (m:ss)"},
            arguments={"limit": "10"},
            bar="sessions",
            note="Sessions by their first five pages. A page that is viewed several times in a row counts once.",
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
            note="Checkouts by the person's first click on the product in the attribution window; a dash: no click.",
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
            note="Amounts of the checkouts, shared out among all clicks that led to them.",
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
            note="Posts that are not deleted. Views: distinct people per day, added up over the days.",
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
            note=(
                "Posts that are not deleted. Views: distinct people per post and day, added up. Active: an event in the"
                " last 7 days of the period."
            ),
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
                "conflicting": "Of these conflicting",
                "rejected": "Rejected",
                "mismatched_keys": "Mismatched keys",
                "reused_ids": "Reused ids",
                "drifting_fields": "Drifting fields",
            },
            is_wide=True,
            is_of_all_time=True,
            note=(
                "Messages: landed = accepted + duplicates + rejected. A conflicting duplicate says something else than"
                " the one that counts; a mismatched key is not the id in the body. A drifting field differs from the"
                " contract: see below."
            ),
        ),
        Panel(
            "Freshness and lateness",
            "data_quality",
            {
                "stream": "Stream",
                "newest_event_at": "Newest event",
                "last_landed_at": "Last landed",
                "worst_p95_latency_seconds": "95 % within, worst day (m:ss)",
                "max_latency_seconds": "Latest (h:mm:ss)",
            },
            is_wide=True,
            is_of_all_time=True,
            note="Lateness: from when an event happened until it was published.",
        ),
        Panel(
            "Fields that differ from the contract",
            "field_drift",
            {
                "stream": "Stream",
                "path": "Field",
                "problem": "Problem",
                "type": "Type",
                "messages": "Messages",
                "first_seen_at": "First seen",
                "last_seen_at": "Last seen",
                "example": "Example",
            },
            is_wide=True,
            is_of_all_time=True,
            note=(
                "Unlisted: the contract does not list the field, and its values stay in raw. Invalid: the value does"
                " not fit, and the message is a dead letter. In an example a is any letter and 9 any digit."
            ),
            empty="Every message has the fields of its contract, and no other.",
        ),
        Panel(
            "Dead letters by reason",
            "dead_letters_by_reason",
            {
                "reason": "Reason",
                "stream": "Stream",
                "messages": "Messages",
                "last_landed_at": "Last landed",
            },
            total="messages",
            bar="messages",
            is_of_all_time=True,
            empty="No message was rejected.",
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
            longest_days=7,
            bar="share_over_an_hour",
            note="From when an event happened until it was published.",
        ),
    ],
}


class Page:
    """What one version answers to one choice of filters. The same question is asked once.

    Attributes:
        zone: the reporting time zone, of which the days and times of the page are.
        newest: when the newest event happened, UTC; None without events.
        unknown: why neither is known, so that the days are those of UTC and the period ends with the build.
    """

    def __init__(self, published: Published, filters: Filters) -> None:
        self._published = published
        self._answer = cache(self._ask)
        self.filters = filters
        self.built = published_at(published.version).replace(tzinfo=None)
        quality, self.unknown = self.rows_or_error("data_quality")
        if quality and "reporting_time_zone" not in quality[0]:
            self.unknown = "another release published the last version: run `make build`"
        self.zone: tzinfo = ZoneInfo(quality[0]["reporting_time_zone"]) if quality and not self.unknown else UTC
        self.newest = max((row["newest_event_at"] for row in quality if row["newest_event_at"]), default=None)
        self.landed = max((row["last_landed_at"] for row in quality), default=None)
        # an event that a wrong clock dates in the future must not move the default period away from all others
        self.end = self.built if self.unknown else min((at for at in (self.newest, self.landed) if at), default=None)
        self._newest_day = self.local(self.end).date() if self.end else None
        self.first, self.last = filters.days(self._newest_day) if self._newest_day else (None, None)

    def local(self, moment: datetime) -> datetime:
        """A time, UTC, in the reporting time zone."""
        return moment.replace(tzinfo=UTC).astimezone(self.zone)

    def rows_or_error(self, name: str, **arguments: str) -> tuple[list[Row], str]:
        """The rows of a question, or no rows and why."""
        try:
            return self.rows(*self._answer(name, **arguments)), ""
        except UserError as error:
            return [], str(error)

    def rows(self, question: Question, answer: Answer) -> list[Row]:
        columns = [column.name for column in question.columns]
        return [dict(zip(columns, map(_without_zone, row), strict=True)) for row in answer.rows]

    def answer(self, panel: Panel) -> tuple[Question, Answer]:
        """The question of a panel, and its answer.

        Raises:
            UserError: when the question is not there, or has no answer.
        """
        return self._answer(panel.question, **self._arguments(panel, self._since(panel), self.last))

    def panel(self, panel: Panel) -> dict[str, Any]:
        """What the template shows of a panel, the error if its question has no answer."""
        shown_panel = {"panel": panel, "error": "", "rows": [], "numbers": [], "notes": panel.note}
        return shown_panel | self._or_error(panel, lambda: self._shown(panel))

    def csv(self, panel: Panel) -> tuple[bytes, bool]:
        """The rows of a panel's question as CSV, times in UTC, and whether there are more.

        Raises:
            UserError: when the question is not there, or has no answer, or the period is not known.
        """
        if self.unknown:
            raise UserError(self.unknown)
        question, answer = self.answer(panel)
        return as_csv(question, answer), answer.is_cut

    def key_figures(self) -> dict[str, Any]:
        """The figures of the period, and their change against the period before."""
        return {"error": "", "figures": []} | self._or_error(KEY_PANEL, self._key_figures)

    def _or_error(self, panel: Panel, show: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        try:
            return show()
        except UserError as failure:
            return {"error": str(failure)}
        except Exception as failure:  # noqa: BLE001  whatever it is, the other panels can be shown
            log.error("panel failed", panel=panel.title, **web.what_and_where(failure))  # noqa: TRY400
            return {"error": "this panel cannot be shown: see the log"}

    def _shown(self, panel: Panel) -> dict[str, Any]:
        question, answer = self.answer(panel)
        rows = self.rows(question, answer)
        rows = panel.fold(rows) if panel.fold else rows
        if panel.at:
            rows = rows[::-1]  # a question gives the newest first
        rows = [
            {name: self.local(value) if isinstance(value, datetime) else value for name, value in row.items()}
            for row in rows
        ]
        takes = {parameter.name for parameter in question.parameters}
        notes = [panel.note] if panel.note else []
        if panel.is_of_all_time:
            notes.append("Of all time.")
        elif self._since(panel) != self.first:
            notes.append(f"Of the last {panel.longest_days} days at most.")
        if unfiltered := [PICKS[name] for name in self.filters.picked if name not in takes]:
            notes.append(f"Of every {' and '.join(unfiltered)}.")
        if answer.is_cut and LIMIT not in panel.arguments:
            notes.append(f"The first {len(rows):,} rows; there are more.")
        numbers = [columns for columns in panel.columns if any(is_number(cell(row, columns)[1]) for row in rows)]
        return {"rows": rows, "numbers": numbers, "notes": " ".join(notes)}

    def _key_figures(self) -> dict[str, Any]:
        [now] = self.rows(*self.answer(KEY_PANEL))
        before, compared = self._period_before() or (dict.fromkeys(KEY_FIGURES), "")
        figures = [
            (label, column, now[column], change(now[column], before[column], column))
            for column, label in KEY_FIGURES.items()
        ]
        return {"figures": figures, "compared": compared}

    def _period_before(self) -> tuple[Row, str] | None:
        """Key figures of as many days before the period, and which; None if there are none to compare with.

        A last day that is not over is compared with as much of a day.
        """
        last = self.last or self._newest_day
        if not (self.end and self.first and last and self.first <= last):
            return None
        length = last - self.first + DAY
        newest = self.local(self.end).replace(tzinfo=None)
        end = min(datetime.combine(last + DAY, time()), newest + timedelta.resolution)
        if end.date() < self.first or self.first - date(YEARS[0], 1, 1) < length:
            return None
        first, end = self.first - length, end - length
        arguments = self._arguments(KEY_PANEL, first, None)
        arguments["end_time"] = instant(end.date(), self.zone, end.time()).isoformat()
        [before] = self.rows(*self._answer(KEY_PANEL.question, **arguments))
        until = "" if end.time() == time() else f", {end:%H:%M}"
        return before, f"{shown(first)} to {shown(self.first - DAY)}{until}"

    def _since(self, panel: Panel) -> date | None:
        if self._newest_day is None or panel.longest_days is None:
            return self.first
        last = min(self.last or date.max, max(self._newest_day, self.first or date.min))
        return max(self.first or date.min, last - (panel.longest_days - 1) * DAY)

    def _arguments(self, panel: Panel, first: date | None, last: date | None) -> dict[str, str]:
        """Those that the question takes: of the panel, of the filters, and the period in days and in times."""
        given = {**panel.arguments, **self.filters.picked}
        if first and not panel.is_of_all_time:
            given |= {"start_date": str(first), "start_time": instant(first, self.zone).isoformat()}
        if last and not panel.is_of_all_time:
            given |= {"end_date": str(last), "end_time": instant(last + DAY, self.zone).isoformat()}
        takes = {parameter.name for parameter in self._question(panel.question).parameters}
        return {name: value for name, value in given.items() if name in takes}

    def _ask(self, name: str, **arguments: str) -> tuple[Question, Answer]:
        question = self._question(name)
        return question, self._published.ask(question, question.values(arguments))

    def _question(self, name: str) -> Question:
        if name not in {*self._published.questions, *self._published.left_out}:
            raise UserError(f"the published build has no query {name}: run `make build`")
        return find_question(self._published, name)


def render(published: Published, filters: Filters, *, live: bool, error: str = "", now: datetime | None = None) -> str:
    """The page as HTML that refers to nothing outside itself. A panel whose question fails shows the error.

    Args:
        live: with the form of filters and links; without it, what was picked is only stated.
        error: what is wrong with the filters that were given, instead of figures.
        now: the time, UTC, at which the page is read.
    """
    page = Page(published, filters)

    def link(row: Row, column: str) -> str:
        """The page of only what a cell names; empty for any other cell."""
        value = row.get(LINKED.get(column, ""))
        return filters.url(**{LINKED[column]: value}) if live and value else ""

    products: list[Row] = []
    if "product_id" in filters.picked:
        products = page.rows_or_error("top_products", product_id=filters.product_id, limit="1")[0]
    return _template().render(
        live=live,
        error=error,
        filters=filters,
        periods=PERIODS,
        refreshes=dict(
            sorted({**REFRESHES, filters.refresh: REFRESHES.get(filters.refresh, f"{filters.refresh} s")}.items())
        ),
        brands=_choices(page.rows_or_error("brands", limit=MOST_CHOICES)[0], "brand", filters.brand),
        categories=_choices(page.rows_or_error("categories", limit=MOST_CHOICES)[0], "category", filters.category),
        product=next((row["product_name"] for row in products if row.get("product_name")), filters.product_id),
        newest=page.newest and page.local(page.newest),
        unknown=page.unknown,
        landed=page.landed and page.local(page.landed),
        built=page.local(page.built),
        zone=str(page.zone),
        stale=staleness(page.newest, page.landed, now or datetime.now(UTC).replace(tzinfo=None)),
        first=page.first,
        last=page.last,
        link=link,
        key_panel=KEY_PANEL,
        key_figures=None if error else page.key_figures(),
        sections={}
        if error
        else {title: [page.panel(panel) for panel in panels] for title, panels in SECTIONS.items()},
    )


def staleness(newest: datetime | None, landed: datetime | None, now: datetime) -> str:
    """What is old: the newest event, or what landed last (an event may be dated in the future); empty if neither is."""
    for what, moment in (("The newest event happened", newest), ("The last message landed", landed)):
        if moment and now - moment > STALE:
            hours = (now - moment) // HOUR
            return f"{what} {f'{hours // 24:,} days' if hours >= 48 else f'{hours} hours'} ago."
    return ""


def change(now: Any, before: Any, column: str) -> str:
    """From one value to another, in per cent, or in points of a rate; a dash when there is nothing to compare with."""
    if now is None or before is None:
        return NOTHING
    if column.endswith("_rate"):
        return f"{100 * (now - before):+.1f} points"
    return f"{Decimal(now - before) / abs(before):+,.1%}" if before else NOTHING


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
            return NOTHING
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
    zone = getattr(rows[0][at], "tzinfo", None)

    def place(wall: datetime) -> datetime:
        """Where a time or midnight of a day stands: by instants, since a local hour may come twice or never."""
        return wall.replace(tzinfo=zone).astimezone(UTC).replace(tzinfo=None) if zone else wall

    times = [row[at].astimezone(UTC).replace(tzinfo=None) if zone else _without_time(row[at]) for row in rows]
    step = HOUR if isinstance(rows[0][at], datetime) else DAY
    begin, end = times[0], times[-1] + step
    top = nice_ceiling(max(row[column] or 0 for row in rows))
    days = ceil((end - begin) / DAY)
    every, of, form = (6 * HOUR, HOUR, "{:%H:%M}") if days <= 2 else (ceil(days / 7) * DAY, DAY, "{0.day} {0:%b}")

    def across(moment: datetime) -> float:
        return round(100 * ((moment - begin) / (end - begin)), 3)

    first = datetime.combine(rows[0][at], time())
    marks = [first + number * every for number in range(days * DAY // every + 2)]
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
            {"left": left, "text": form.format(mark)}
            for mark in marks
            if 0 <= (left := across(place(mark) + of / 2)) < 97
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
    """The page at /, and each panel's rows at /PANEL.csv, of what was published last when they are loaded."""

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

    def rows(request: Request) -> Response:
        panels = {panel.file: panel for panel in (KEY_PANEL, *(one for some in SECTIONS.values() for one in some))}
        panel = panels.get(f"{request.path_params['panel']}.csv")
        if panel is None:
            raise HTTPException(404, f"there is no such panel; the panels are {', '.join(panels)}")
        try:
            filters = Filters.read(request.query_params)
        except UserError as wrong:
            raise HTTPException(400, str(wrong)) from wrong
        try:
            with closing(open_published(settings)) as published:
                text, is_cut = Page(published, filters).csv(panel)
        except UserError as failure:
            raise HTTPException(503, str(failure)) from failure
        headers = {"Content-Disposition": f'attachment; filename="{panel.file}"'}
        if is_cut:
            headers["X-Truncated"] = "true"
        return Response(text, media_type="text/csv", headers=headers)

    async def refuse(request: Request, error: Exception) -> Response:
        status, detail = (error.status_code, error.detail) if isinstance(error, HTTPException) else (500, "error")
        return PlainTextResponse(f"{detail}\n", status)

    return Starlette(
        routes=[Route("/", page), Route("/{panel}.csv", rows)],
        middleware=[Middleware(web.LocalOnly, refuse=refuse)],
        exception_handlers={HTTPException: refuse},
    )


def serve(settings: Settings, host: str, port: int) -> None:
    """Serve until SIGINT or SIGTERM, on loopback.

    Raises:
        UserError: when the address cannot be listened on, or is not loopback.
    """
    listener = web.listen(host, port, "the page has no authentication; put a proxy that has in front")
    web.run(app(settings), listener, "/", 5)
