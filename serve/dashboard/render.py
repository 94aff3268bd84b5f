"""The page as HTML."""

from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from serve.answers import Published
from serve.dashboard.charts import HOUR, SPARK_HEIGHT, plot
from serve.dashboard.filters import ALL, DAY, PERIODS, Filters
from serve.dashboard.page import Page
from serve.dashboard.panels import KEY_PANEL, PANELS, SECTIONS, Section, anchor
from serve.dashboard.values import Row, cell, shown

REFRESHES = {0: "Never", 10: "Every 10 seconds", 60: "Every minute", 300: "Every 5 minutes", 3600: "Every hour"}
"""Choices for `refresh`: seconds after which a browser loads the page again, and the label."""
LINKED = {
    "brand": "brand",
    "category": "category",
    "product_id": "product_id",
    "product_name": "product_id",
    "event_type": "event_type",
    "property": "property",
}
"""Columns whose cells are links, each with the filter that its link sets. The column named like the filter has the
value."""
PLACES = {"event_type": "#recent-events", "property": "#values-of-a-property"}
"""Maps a filter to the panel that it changes; the other filters change the whole page."""
MOST_CHOICES = "1000"
"""Maximum brands and categories that the form offers: those with the most revenue."""
STALE = DAY
"""The page warns when the newest event, or the last message of a stream of events, is older."""
AT_ONCE = 4
"""Maximum queries that run at the same time for one page."""


def render(
    published: Published,
    filters: Filters,
    *,
    live: bool,
    error: str = "",
    failure: str = "",
    now: datetime | None = None,
) -> str:
    """The page as self-contained HTML. A panel whose query fails shows the error.

    Args:
        live: show forms and links; otherwise, only name the filters.
        error: what is wrong with the filters; the page shows it instead of figures.
        failure: why nothing newer is published.
        now: the time, UTC, at which the page is read.
    """
    page = Page(published, filters)
    now = now or datetime.now(UTC).replace(tzinfo=None)

    def link(row: Row, column: str) -> str:
        """URL of the page filtered by what a cell names; empty if it names nothing."""
        name = LINKED.get(column, "")
        value = row.get(name)
        return filters.url(**{name: value}) + PLACES.get(name, "") if live and value else ""

    with ThreadPoolExecutor(AT_ONCE) as pool:
        product = pool.submit(_product, page)
        brands = pool.submit(_choices, page, "brands", "brand")
        categories = pool.submit(_choices, page, "categories", "category")
        pool.submit(lambda: page.properties).result()  # two panels and a form need them
        key_figures = None if error else pool.submit(page.key_figures)
        sections = {
            title: (section, [pool.submit(page.panel, panel) for panel in section.panels])
            for title, section in ({} if error else SECTIONS).items()
        }
    shown_sections = {title: _panels(section, panels) for title, (section, panels) in sections.items()}
    return _template().render(
        live=live,
        error=error,
        failure=failure,
        filters=filters,
        periods=PERIODS,
        refreshes=dict(
            sorted({**REFRESHES, filters.refresh: REFRESHES.get(filters.refresh, f"{filters.refresh} s")}.items())
        ),
        brands=brands.result(),
        categories=categories.result(),
        product=product.result(),
        streams=sorted({*page.landings, *filters.chosen(["stream"]).values()}),
        properties=[row["property"] for row in page.properties],
        property=page.shown_property,
        newest=page.newest and page.local(page.newest),
        unknown=page.unknown,
        landed=page.landed and page.local(page.landed),
        built=page.local(page.built),
        zone=str(page.zone),
        stale=staleness(page.newest, page.landed, now),
        stale_streams=stale_streams(page.landings, now),
        first=page.first,
        last=page.last,
        link=link,
        key_panel=KEY_PANEL,
        key_figures=key_figures and key_figures.result(),
        sections={title: shown_panels for title, shown_panels in shown_sections.items() if shown_panels},
        empty={title: SECTIONS[title].without for title, shown_panels in shown_sections.items() if not shown_panels},
    )


def staleness(newest: datetime | None, landed: datetime | None, now: datetime) -> str:
    """A warning if the newest event or the last landing is old, else empty. An event may be dated in the future."""
    for what, moment in (("The newest event happened", newest), ("The last message landed", landed)):
        if moment and now - moment > STALE:
            return f"{what} {_ago(now - moment)}."
    return ""


def stale_streams(landings: dict[str, datetime], now: datetime) -> str:
    """The streams of which nothing has landed for a while, and for how long; empty if there are none."""
    return ", ".join(f"{stream} ({_ago(now - at)})" for stream, at in landings.items() if now - at > STALE)


def _ago(age: timedelta) -> str:
    hours = age // HOUR
    return f"{hours // 24:,} days ago" if hours >= 48 else f"{hours} hours ago"


def _panels(section: Section, panels: list[Future[dict[str, Any]]]) -> list[dict[str, Any]]:
    """What the template shows of a section; empty if it has a `without` and all its panels are empty."""
    shown_panels = [panel.result() for panel in panels]
    has_any = not section.without or any(panel["rows"] or panel["error"] for panel in shown_panels)
    return shown_panels if has_any else []


def _product(page: Page) -> str:
    """Name of the picked product, or its id if it has none."""
    picked = page.filters.product_id
    rows = page.rows_or_error("top_products", product_id=picked, limit="1")[0] if picked != ALL else []
    return next((str(row["product_name"]) for row in rows if row.get("product_name")), picked)


def _choices(page: Page, query: str, column: str) -> list[str]:
    """Values that the form offers for a filter, the picked one included."""
    rows = page.rows_or_error(query, limit=MOST_CHOICES)[0]
    picked: str = getattr(page.filters, column)
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
    most_columns = max(len(panel.columns) + bool(panel.trend) for panel in PANELS.all)
    environment.globals |= {
        "most_columns": most_columns,
        "anchor": anchor,
        "cell": cell,
        "plot": plot,
        "spark_height": SPARK_HEIGHT,
    }
    return environment.get_template("page.html")
