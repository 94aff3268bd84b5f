"""The page as HTML."""

from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from serve.answers import Published
from serve.dashboard.charts import HOUR, plot
from serve.dashboard.filters import ALL, DAY, PERIODS, Filters
from serve.dashboard.page import Page
from serve.dashboard.panels import KEY_PANEL, SECTIONS
from serve.dashboard.values import Row, cell, shown

REFRESHES = {0: "Never", 60: "Every minute", 300: "Every 5 minutes", 3600: "Every hour"}
"""Seconds after which a browser loads the page again."""
LINKED = {"brand": "brand", "category": "category", "product_id": "product_id", "product_name": "product_id"}
"""Column whose cells are links to the filter that the link sets; the column of the filter's name has its value."""
MOST_CHOICES = "1000"
"""Brands and categories that the form offers: those with most revenue."""
STALE = DAY
"""The page warns when the newest event is older."""


def render(published: Published, filters: Filters, *, live: bool, error: str = "", now: datetime | None = None) -> str:
    """The page as self-contained HTML. A panel whose query fails shows the error.

    Args:
        live: with the form and links; otherwise the filters are only stated.
        error: what is wrong with the filters; the page shows it instead of figures.
        now: the time, UTC, at which the page is read.
    """
    page = Page(published, filters)

    def link(row: Row, column: str) -> str:
        """URL of the page filtered by what a cell names; empty if it names nothing."""
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
    """A warning if the newest event or the last landing is old; an event may be dated in the future. Else empty."""
    for what, moment in (("The newest event happened", newest), ("The last message landed", landed)):
        if moment and now - moment > STALE:
            hours = (now - moment) // HOUR
            return f"{what} {f'{hours // 24:,} days' if hours >= 48 else f'{hours} hours'} ago."
    return ""


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
    return environment.get_template("page.html")
