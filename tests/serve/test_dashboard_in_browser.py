"""The dashboard in Chromium: its figures are those of SQL on the warehouse, nothing leaves the machine, and it can be
read on a phone, in the dark, and as a file without a network.
"""

import json
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from serve.dashboard.panels import PANELS, SECTIONS
from serve.dashboard.values import shown
from tools import ROOT
from tools.warehouses.commands import Warehouse

pytestmark = pytest.mark.browser

TITLES = [panel.title for panel in PANELS.all]


@pytest.fixture(scope="module")
def address(shop: Warehouse) -> Iterator[str]:
    process = subprocess.Popen(
        shop.command("serve", "dashboard", "--port", "0"),
        cwd=ROOT,
        env=shop.environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        yield f"http://127.0.0.1:{json.loads(process.stderr.readline())['port']}/"
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 0


@pytest.fixture(scope="module")
def report(shop: Warehouse, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("report") / "report.html"
    shop.run("serve", "report", "period=all", "--file", str(file))
    return file


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium of the system, else that of `playwright install`."""
    installed = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=installed)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that at its end must have asked nobody but this machine, and have complained of nothing."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    asked: list[str] = []
    complaints: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    page = context.new_page()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    context.close()
    assert asked
    assert [url for url in asked if urlsplit(url).scheme != "file" and urlsplit(url).hostname != "127.0.0.1"] == []
    assert complaints == []


def panel(page: Page, title: str) -> list[list[str]]:
    """The texts of the cells of a panel's table."""
    rows: list[list[str]] = (
        page.locator("article")
        .filter(has=page.get_by_role("heading", name=title, exact=True))
        .locator("tbody tr")
        .evaluate_all("rows => rows.map(row => [...row.cells].map(cell => cell.textContent))")
    )
    return rows


def total(page: Page, title: str) -> str:
    article = page.locator("article").filter(has=page.get_by_role("heading", name=title, exact=True))
    return article.locator(".total").inner_text()


def key_figures(page: Page) -> dict[str, str]:
    found = page.locator(".figures div")
    return dict(zip(found.locator("dt").all_inner_texts(), found.locator(".total").all_inner_texts(), strict=True))


def choose(page: Page, **filters: str) -> None:
    """Fill the form as people do, and send it."""
    for name, value in filters.items():
        if name in ("first", "last"):
            page.get_by_label({"first": "From", "last": "To, included"}[name], exact=True).fill(value)
        else:
            page.get_by_role("combobox", name=name.capitalize()).select_option(value)
    page.get_by_role("button", name="Show").click()


def texts(rows: list[tuple[object, ...]]) -> list[list[str]]:
    return [[shown(value) for value in row] for row in rows]


def funnel(shop: Warehouse, where: str) -> list[int]:
    """Viewers, those who then put something into the cart, and buyers by their definition, a person at a time."""
    events = shop.query(
        f"""select user_id, event_type, event_at from analytics.fct_events where user_id is not null and {where}"""
    )
    people = defaultdict(list)
    for user, event_type, at in events:
        people[user].append((event_type, at))
    counts = [0, 0, 0]
    for happened in people.values():
        since = min(at for _, at in happened)
        for step, wanted in enumerate(("view", "cart", "purchase")):
            reached = [at for event_type, at in happened if event_type == wanted and at >= since]
            if not reached:
                break
            counts[step] += 1
            since = min(reached)
    return counts


@pytest.fixture(scope="module")
def wheres(shop: Warehouse) -> dict[str, tuple[dict[str, str], str]]:
    """What people pick, and the same as a condition in SQL."""
    [(newest,)] = shop.query("select max(event_at) from analytics.fct_events")
    [(brand, category)] = shop.query(
        """select lower(brand), lower(category_code) from analytics.fct_events
        where event_type = 'purchase' and brand is not null and category_code is not null
        group by all order by count(*) desc, 1, 2 limit 1"""
    )
    assert isinstance(newest, datetime)
    day = newest.date() - timedelta(days=1)
    last_day = f"event_date = '{newest.date()}'"
    of_brand, of_category = f"lower(brand) = '{brand}'", f"lower(category_code) = '{category}'"
    return {
        "all": ({"period": "all"}, "true"),
        "last day": ({"period": "1d"}, last_day),
        "a day": ({"period": "custom", "first": str(day), "last": str(day)}, f"event_date = '{day}'"),
        "brand": ({"period": "all", "brand": str(brand)}, of_brand),
        "category": ({"period": "all", "category": str(category)}, of_category),
        "all three": (
            {"period": "1d", "brand": str(brand), "category": str(category)},
            f"{last_day} and {of_brand} and {of_category}",
        ),
    }


@pytest.mark.parametrize("picked", ["all", "last day", "a day", "brand", "category", "all three"])
def test_figures_are_those_of_the_warehouse(
    page: Page, address: str, shop: Warehouse, wheres: dict[str, tuple[dict[str, str], str]], picked: str
) -> None:
    filters, where = wheres[picked]
    page.goto(address)
    choose(page, **filters)
    by_type = shop.query(
        f"""select event_type, count(*), count(distinct user_id) from analytics.fct_events where {where}
        group by 1 order by 2 desc, 1"""
    )
    assert by_type
    assert [[row[0], *row[2:]] for row in panel(page, "Total events")] == texts(by_type)
    assert total(page, "Total events") == shown(sum(int(str(row[1])) for row in by_type))
    assert panel(page, "Top 5 products") == texts(
        shop.query(
            f"""with sold as (
                select product_id, max(brand) as brand, max(category_code) as category,
                    count(*) filter (event_type = 'purchase') as purchases,
                    coalesce(sum(price) filter (event_type = 'purchase'), 0) as revenue
                from analytics.fct_events where product_id is not null and {where} group by 1
            )
            select coalesce(products.name, sold.product_id), sold.brand, sold.category, sold.purchases, sold.revenue
            from sold left join analytics.dim_products as products on sold.product_id = products.product_id
            order by purchases desc, sold.revenue desc, sold.product_id limit 5"""
        )
    )
    hourly = shop.query(
        f"""select date_trunc('hour', event_at), count(*), count(*) filter (event_type = 'view'),
            count(*) filter (event_type = 'cart'), count(*) filter (event_type = 'purchase')
        from analytics.fct_events where {where} group by 1 order by 1"""
    )
    assert panel(page, "Hourly events") == texts(hourly)
    bars = page.locator("article").filter(has_text="Hourly events").locator(".bars i")
    assert bars.count() == len(hourly)
    newest = shop.query(f"select event_at from analytics.fct_events where {where} order by 1 desc limit 10")
    assert [row[:1] for row in panel(page, "Recent events")] == texts(newest)
    viewed, carted, bought = funnel(shop, where)
    assert page.locator(".funnel b").all_inner_texts() == [
        f"{count:,} ({count / viewed:.1%})" for count in (viewed, carted, bought)
    ]
    assert page.locator(".funnel .next").all_inner_texts() == [
        f"↓ {after / before:.1%} go on, {before - after:,} {'leaves' if before - after == 1 else 'leave'}"
        for before, after in ((viewed, carted), (carted, bought))
    ]
    by_category = panel(page, "Funnel by category")
    for category, viewers, users_with_cart, _, buyers, *_ in by_category[:2]:
        counts = funnel(shop, f"lower(category_code) = '{category}' and {where}")
        assert [viewers, users_with_cart, buyers] == [f"{n:,}" for n in counts]
    [(people, purchases, revenue)] = shop.query(
        f"""select count(distinct user_id), count(*) filter (event_type = 'purchase'),
            coalesce(sum(price) filter (event_type = 'purchase'), 0)
        from analytics.fct_events where {where}"""
    )
    shown_figures = key_figures(page)
    assert [shown_figures[name] for name in ("People", "Purchases", "Revenue")] == texts(
        [(people, purchases, revenue)]
    )[0]


def test_figures_of_the_site_and_the_community_follow_the_period(page: Page, address: str, shop: Warehouse) -> None:
    [(day,)] = shop.query("select max(event_date) - 1 from analytics.fct_events")
    page.goto(f"{address}?{urlencode({'period': 'custom', 'from': day, 'to': day})}")
    [sessions] = shop.query(
        f"""select count(*), count(distinct user_id), sum(page_views)::bigint from analytics.fct_sessions
        where session_started_at::date = '{day}'"""
    )
    [shown_sessions] = panel(page, "Sessions")
    assert shown_sessions[:4] == [shown(day), *texts([sessions])[0]]
    assert total(page, "Sessions") == shown(sessions[0])
    [daily] = shop.query(
        f"""select count(*), count(distinct user_id), count(*) filter (event_type = 'view'),
            count(*) filter (event_type = 'cart'), count(*) filter (event_type = 'purchase')
        from analytics.fct_events where event_date = '{day}'"""
    )
    assert panel(page, "Daily figures")[0] == [shown(day), *texts([daily[:2]])[0]]
    assert panel(page, "Sales by day")[0][:4] == [shown(day), *texts([daily[2:]])[0]]
    paths = shop.query(
        f"""with pages as (
            select session_id, page_title, sequence_number,
                lag(page_title) over (partition by session_id order by sequence_number) as previous
            from analytics.fct_page_views where session_started_at::date = '{day}'
        ),
        sessions as (
            select list(page_title order by sequence_number)[:5] as path, count(*) > 5 as is_longer
            from pages where previous is distinct from page_title group by session_id
        )
        select array_to_string(if(is_longer, path || ['...'], path), ' → ') as text, count(*) as number,
            count(*) / (select count(*) from sessions)
        from sessions where len(path) > 1 group by 1 order by 2 desc limit 1"""
    )
    assert panel(page, "Paths")[0][1] == shown(paths[0][1])
    assert next(row for row in panel(page, "Paths") if row[0] == paths[0][0])[:3] == [
        *texts([paths[0][:2]])[0],
        shown(paths[0][2], "share"),
    ]
    [(seconds, views)] = shop.query(
        f"""select avg(time_on_page_seconds), count(*) from analytics.fct_page_views
        where event_date = '{day}' and page_title = 'Home Page'"""
    )
    [home] = [row for row in panel(page, "Time on page") if row[0] == "Home Page"]
    assert (home[1], home[3]) == (shown(seconds, "seconds"), shown(views))
    clicked = shop.query(
        f"""select first_click_url, count(*) from analytics.fct_checkout_attribution
        where event_date = '{day}' and is_attributed group by 1"""
    )
    shown_clicks = {row[0]: row[1] for row in panel(page, "First click of each checkout") if row[0] != shown(None)}
    assert shown_clicks
    assert shown_clicks.items() <= {str(url): shown(count) for url, count in clicked}.items()
    liked = shop.query(
        f"""select posts.post_text, count(*) from analytics.fct_events as events
        inner join analytics.dim_posts as posts on events.post_id = posts.post_id
        where event_type = 'post_like' and event_date = '{day}' group by posts.post_id, 1"""
    )
    shown_likes = {(row[0], row[3]) for row in panel(page, "Posts") if row[3] != "0"}
    assert shown_likes
    assert shown_likes <= {(str(text), shown(count)) for text, count in liked}


def test_data_quality_is_of_all_time_whatever_the_period(page: Page, address: str, shop: Warehouse) -> None:
    page.goto(f"{address}?period=1d")
    accounting = shop.query(
        """select stream, sum(landed)::bigint, sum(accepted)::bigint, sum(duplicates)::bigint, sum(conflicting)::bigint,
            sum(rejected)::bigint, sum(recovered)::bigint, sum(mismatched_keys)::bigint
        from analytics.landing_reconciliation group by 1 order by 1"""
    )
    assert [[row[0], *row[2:9]] for row in panel(page, "Accounting")] == texts(accounting)
    assert {row[1] for row in panel(page, "Accounting")} == {"✓ yes"}
    reasons = shop.query(
        "select reason, stream, count(*) from analytics.dead_letters where recovered_at is null group by all"
    )
    assert sorted(row[:3] for row in panel(page, "Dead letters by reason")) == sorted(texts(reasons))
    assert total(page, "Dead letters by reason") == shown(sum(int(str(row[2])) for row in reasons))
    [(newest, landed)] = shop.query("select max(event_at), max(landed_at) from analytics.fct_events")
    header = page.get_by_role("banner").inner_text()
    assert f"Newest event {shown(newest)}" in header.replace("\n", " ")
    assert f"Landed {shown(landed)}" in header.replace("\n", " ")


def test_filters_stay_in_the_address_and_in_the_form(page: Page, address: str) -> None:
    page.goto(address)
    assert not page.get_by_label("From", exact=True).is_visible()
    choose(page, period="custom", first="2026-01-02", last="2026-01-02")
    assert "period=custom&from=2026-01-02&to=2026-01-02" in page.url
    figures = page.locator("main").inner_text()
    page.goto(page.url)
    assert page.locator("main").inner_text() == figures
    assert page.get_by_role("combobox", name="Period").input_value() == "custom"
    assert page.get_by_label("From", exact=True).input_value() == "2026-01-02"


def test_names_are_links_to_the_page_filtered_by_them(page: Page, address: str) -> None:
    page.goto(f"{address}?period=all")
    [product, brand, category, *_] = panel(page, "Top 5 products")[0]
    top = page.locator("article").filter(has=page.get_by_role("heading", name="Top 5 products", exact=True))
    top.get_by_role("link", name=product, exact=True).first.click()
    assert [row[0] for row in panel(page, "Top 5 products")] == [product]
    assert f"Product: {product} (every product)" in page.locator("main").inner_text()
    choose(page, category=category)
    assert "product_id=" in page.url
    page.get_by_role("link", name="every product").click()
    assert "product_id=" not in page.url
    assert {row[2] for row in panel(page, "Top 5 products")} == {category}
    page.goto(f"{address}?period=all")
    top.get_by_role("link", name=brand, exact=True).first.click()
    assert {row[1] for row in panel(page, "Top 5 products")} == {brand}
    assert page.get_by_role("combobox", name="Brand").input_value() == brand.lower()


def test_a_panel_is_downloaded_as_csv(page: Page, address: str) -> None:
    page.goto(f"{address}?period=all")
    with page.expect_download() as download:
        page.get_by_role("link", name="Total events as CSV").click()
    assert download.value.suggested_filename == "total-events.csv"
    lines = download.value.path().read_text().splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == [row[0] for row in panel(page, "Total events")]


def test_the_page_is_loaded_again(page: Page, address: str) -> None:
    page.goto(address)
    choose(page, refresh="60")
    assert "refresh=60" in page.url
    page.goto(f"{address}?refresh=1")
    with page.expect_navigation():  # nobody clicks
        pass
    assert page.get_by_role("combobox", name="Refresh").input_value() == "1"


def test_a_filter_that_nothing_matches_says_what_to_do(page: Page, address: str) -> None:
    page.goto(f"{address}?brand=nobody")
    assert total(page, "Total events") == "0"
    assert panel(page, "Top 5 products") == []
    assert "choose others at the top" in page.locator("article").first.inner_text()
    assert key_figures(page)["Events"] == "0"
    assert page.get_by_role("combobox", name="Brand").input_value() == "nobody"


def test_a_wrong_filter_is_an_error_above_the_form(browser: Browser, address: str) -> None:
    page = browser.new_page()  # it complains of the status
    response = page.goto(f"{address}?period=custom&from=2026-02-01&to=2026-01-01")
    assert response is not None
    assert response.status == 400
    assert page.get_by_role("alert").inner_text() == "from: 2026-02-01 is after 2026-01-01; swap the two"
    assert page.get_by_role("button", name="Show").is_visible()
    assert page.locator("article").count() == 0
    page.close()


@pytest.mark.parametrize("kind", ["live", "report"])
def test_a_phone_shows_it_without_scrolling_sideways(page: Page, address: str, report: Path, kind: str) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(address if kind == "live" else report.as_uri())
    for summary in page.locator("summary").all():
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.locator("article").evaluate_all("all => all.every(one => one.getBoundingClientRect().right <= 390)")
    marks = page.locator(".marks").evaluate_all(
        """all => all.flatMap(one => [...one.children].slice(1).map((mark, place) =>
            mark.getBoundingClientRect().left - one.children[place].getBoundingClientRect().right))"""
    )
    assert min(marks) > 0, "the dates under a chart overlap"
    widths = page.locator(".scroll").evaluate_all("all => all.map(one => [one.scrollWidth, one.clientWidth])")
    assert [(needed, there) for needed, there in widths if needed > there] == [], "a table is cut off"
    texts_outside = page.locator("td, dd, h3, .step, .next").evaluate_all(
        "all => all.filter(one => one.getBoundingClientRect().right > 390).map(one => one.textContent)"
    )
    assert texts_outside == []


def test_a_wide_table_on_a_phone_is_still_a_table(page: Page, address: str) -> None:
    """Its rows are blocks, in which each value has its heading; screen readers get rows and cells."""
    page.goto(address)
    wide = len(panel(page, "Accounting"))
    article = page.locator("#accounting")
    headings = article.get_by_role("columnheader").count()
    page.set_viewport_size({"width": 390, "height": 844})
    assert article.get_by_role("row").count() == wide + 1
    assert article.get_by_role("cell").count() == wide * headings
    assert article.get_by_role("columnheader").count() == headings
    shown_headings = (
        article.locator("tbody tr")
        .first.locator("td")
        .evaluate_all("all => all.map(one => getComputedStyle(one, '::before').content)")
    )
    assert shown_headings[1:] == [f'"{one}"' for one in article.locator("th").all_inner_texts()][1:]
    tops = (
        article.locator("tbody tr")
        .first.locator("td")
        .evaluate_all("all => all.map(one => one.getBoundingClientRect().top)")
    )
    assert tops[0] < tops[1] == tops[2] < tops[-1]


def test_a_figure_leads_to_its_rows(page: Page, address: str) -> None:
    page.goto(f"{address}?period=all")
    page.get_by_role("link", name="Conversion", exact=True).click()
    assert page.locator("#funnel").evaluate("one => one.matches(':target')")
    page.locator("#total-events").get_by_role("link", name="purchase", exact=True).click()
    assert page.url.endswith("?period=all&event_type=purchase#recent-events")
    assert {row[1] for row in panel(page, "Recent events")} == {"purchase"}
    page.locator("#recent-events").get_by_role("link", name="Show all").click()
    assert len({row[1] for row in panel(page, "Recent events")}) > 1


def test_a_property_is_picked_in_its_panel(page: Page, address: str, shop: Warehouse) -> None:
    page.goto(f"{address}?period=all&brand=nobody")
    page.get_by_role("combobox", name="Stream").select_option("page_views")
    page.get_by_role("combobox", name="Property").select_option("traffic_source")
    page.get_by_role("button", name="List values").click()
    assert "brand=nobody" in page.url
    rows = shop.query(
        """select traffic_source, count(*), count(distinct user_id) from analytics.fct_events
        where stream = 'page_views' and traffic_source is not null group by 1 order by 2 desc, 1 limit 10"""
    )
    assert [row[:3] for row in panel(page, "Values of a property: traffic_source")] == texts(rows)


def test_the_grid_has_no_holes(page: Page, address: str) -> None:
    page.goto(f"{address}?period=all")
    rows = page.locator(".panels").evaluate_all(
        """all => all.map(one => {
            const rows = new Map();
            for (const {top, bottom, width} of [...one.children].map(child => child.getBoundingClientRect())) {
                rows.set(top, [...(rows.get(top) ?? []), [width, bottom]]);
            }
            return [one.clientWidth, [...rows.values()]];
        })"""
    )
    assert len(rows) == len(SECTIONS)
    for width, cards in rows:
        for row in cards:
            assert sum(one for one, _ in row) + 16 * (len(row) - 1) == pytest.approx(width, abs=2)
            assert len({round(bottom) for _, bottom in row}) == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_have_enough_contrast(page: Page, address: str, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(address)
    behind = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (luminance(behind) < 0.05) == (scheme == "dark")
    colours = page.evaluate(
        """() => {
            const seen = selector => getComputedStyle(document.querySelector(selector));
            const root = seen(':root');
            const variable = name => {
                document.body.style.outlineColor = root.getPropertyValue(name);
                return getComputedStyle(document.body).outlineColor;
            };
            const [page, card, tint, bar] = ['--page', '--card', '--tint', '--bar'].map(variable);
            return [
                [seen('h1').color, page], [seen('.quiet').color, page], [seen('dt').color, page],
                [seen('td').color, card], [seen('td').color, tint], [seen('th').color, card],
                [seen('.marks').color, card], [seen('button').color, seen('button').backgroundColor],
                [seen('a').color, page], [variable('--wrong'), card],
            ];
        }"""
    )
    contrasts = {pair: contrast(*pair) for pair in map(tuple, colours)}
    assert min(contrasts.values()) >= 4.5, contrasts


def luminance(colour: str) -> float:
    """Relative luminance (WCAG) of rgb(r, g, b)."""
    parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(", ")]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Contrast ratio (WCAG), 1 to 21."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_the_report_is_whole_without_a_network(browser: Browser, report: Path, address: str) -> None:
    context = browser.new_context(offline=True, java_script_enabled=False)
    asked: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    page = context.new_page()
    page.goto(report.as_uri())
    assert asked == [report.as_uri()]
    assert [title.partition(":")[0] for title in page.get_by_role("heading", level=3).all_inner_texts()] == TITLES
    assert page.locator("form, script, iframe, object").count() == 0
    assert page.locator("[src], link:not([href='data:,']), a:not([href^='#'])").count() == 0
    figures = [panel(page, title) for title in TITLES], key_figures(page)
    context.close()
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{address}?period=all")
    assert ([panel(page, title) for title in TITLES], key_figures(page)) == figures
    context.close()


def test_screen_readers_get_the_figures_of_the_bars(page: Page, address: str) -> None:
    page.goto(address)
    assert page.get_by_role("heading", level=1).count() == 1
    assert page.get_by_role("heading", level=2).all_inner_texts() == list(SECTIONS)
    charts = page.get_by_role("img").all()
    small = len(panel(page, "Total events"))
    assert len(charts) == small + sum(len(panel.plots) for panel in PANELS.all)
    for chart in charts:
        assert re.search("the most is| per hour", str(chart.get_attribute("aria-label")))
    page.locator("summary").first.click()
    assert page.locator("details table").first.is_visible()
    assert page.locator("th:not([scope=col])").count() == 0
