"""Metrics against plain SQL over the same published copy."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from common.errors import UserError
from common.settings import Settings
from engines.reader import QueryTimeoutError
from serve.published import PublishedVersion, open_published
from serve.semantic_layer import Metrics
from tools.warehouses.commands import Warehouse


@pytest.fixture(scope="module")
def published(shop: Warehouse) -> Iterator[PublishedVersion]:
    published = open_published(Settings(_env_file=None, warehouse_path=shop.path))
    yield published
    published.close()


@pytest.fixture(scope="module")
def metrics(shop: Warehouse, published: PublishedVersion) -> Metrics:
    return Metrics(published, Settings(_env_file=None, warehouse_path=shop.path))


def rows(table: pa.Table) -> list[tuple[object, ...]]:
    return [tuple(row.values()) for row in table.to_pylist()]


def ask(metrics: Metrics, *names: str, **options: Any) -> list[tuple[object, ...]]:
    """The rows of an answer that is whole."""
    table, is_cut = metrics.ask(names, **options)
    assert not is_cut
    return rows(table)


def test_a_ratio_and_a_distinct_count_with_a_filter(metrics: Metrics, published: PublishedVersion) -> None:
    [(brand, purchases, buyers)] = rows(
        published.query("""
            select brand, count(*) as purchases, count(distinct user_id) as buyers
            from analytics.fct_events where event_type = 'purchase' and brand is not null
            group by brand order by purchases desc limit 1
        """)
    )
    assert purchases != buyers
    where = f"{{{{ Dimension('event__brand') }}}} = '{brand}'"
    found = ask(metrics, "conversion", "users", by=["metric_time__day"], where=where)
    expected = published.query(
        """
        select
            cast(event_date as timestamp) as day,
            count(distinct case when event_type = 'purchase' then user_id end) / count(distinct user_id) as conversion,
            count(distinct user_id) as users
        from analytics.fct_events
        where brand = $brand
        group by day
        order by day desc
        """,
        {"brand": str(brand)},
    )
    assert len(found) == 3
    assert found == rows(expected)


def test_metrics_are_those_of_the_daily_marts(metrics: Metrics, published: PublishedVersion) -> None:
    names = ["events", "users", "views", "carts", "purchases", "revenue", "checkout_amount", "page_views", "sessions"]
    daily = published.query("""
        select
            cast(reporting_date as timestamp),
            events, users, views, carts, purchases, revenue, checkout_amount, page_views,
            (select count(*) from analytics.fct_sessions as sessions where event_date = reporting_date)
        from analytics.agg_events_daily as days
        order by 1 desc
    """)
    assert ask(metrics, *names, by=["metric_time__day"]) == rows(daily)


def test_time_on_page_and_bounce_rate_by_where_the_visit_came_from(
    metrics: Metrics, published: PublishedVersion
) -> None:
    """Some visits come from nowhere known: they are one row, not one a metric."""
    by = "page_view__traffic_source"
    found = ask(metrics, "time_on_page", "bounce_rate", by=[by])
    expected = rows(
        published.query("""
            select traffic_source, avg(time_on_page_seconds), any_value(bounce_rate)
            from analytics.fct_page_views
            inner join (
                select traffic_source as source, avg(is_bounce::int) as bounce_rate
                from analytics.fct_sessions group by source
            ) on traffic_source is not distinct from source
            group by traffic_source
            order by traffic_source
        """)
    )
    assert [row[0] for row in found] == [row[0] for row in expected]
    assert [row[1:] for row in found] == [pytest.approx(row[1:]) for row in expected]


def test_a_metric_by_an_attribute_of_the_user(metrics: Metrics, published: PublishedVersion) -> None:
    expected = published.query("""
        select region, sum(price)
        from analytics.fct_events as events
        left join analytics.dim_users as users using (user_id)
        where event_type = 'purchase'
        group by region
        order by region
    """)
    assert ask(metrics, "revenue", by=["user__region"]) == rows(expected)


def test_a_longer_answer_is_cut_and_keeps_its_newest_rows(
    metrics: Metrics, shop: Warehouse, published: PublishedVersion
) -> None:
    whole = ask(metrics, "events", by=["metric_time__day"])
    assert len(whole) == 3
    for limit in (1, 2, 3, 4):
        table, is_cut = metrics.ask(["events"], by=["metric_time__day"], limit=limit)
        assert (rows(table), is_cut) == (whole[:limit], limit < 3)
    bounded = Metrics(published, Settings(_env_file=None, warehouse_path=shop.path, serve_max_rows=2))
    for limit in (None, 2, 3):
        table, is_cut = bounded.ask(["events"], by=["metric_time__day"], limit=limit)
        assert (rows(table), is_cut) == (whole[:2], True)


def test_a_metric_has_the_timeout_of_a_query(shop: Warehouse, published: PublishedVersion) -> None:
    settings = Settings(_env_file=None, warehouse_path=shop.path, serve_timeout_seconds=0.1)
    hours = "{{ Dimension('event__brand') }} = (select cast(max(i) as varchar) from range(1_000_000_000_000) as t(i))"
    with pytest.raises(QueryTimeoutError, match="SERVE_TIMEOUT_SECONDS"):
        Metrics(published, settings).ask(["events"], by=["metric_time__day"], where=hours)


def test_a_metric_is_answered_while_a_build_writes(shop: Warehouse, tmp_path: Path) -> None:
    copy = shop.copy_to(tmp_path / "copy")
    with duckdb.connect(str(copy.path)):
        done = copy.run("serve", "metric", "events", "--format", "csv")
    [(events,)] = copy.query("select count(*) from analytics.fct_events")
    assert done.stdout.split() == ["events", str(events)]


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ({"metrics": ["sales"]}, "there is no metric 'sales'; the metrics are bounce_rate, "),
        (
            {"metrics": ["events"], "by": ["colour"]},
            r"The given input does not match.*; events can be grouped .*event__brand",
        ),
        ({"metrics": ["events"], "where": "{{ Dimension('event__colour') }} = 1"}, "does not match.*event__brand"),
        ({"metrics": ["events"], "where": "{{ Dim"}, "Error parsing where filter"),
        ({"metrics": ["events"], "where": "colour = 1"}, "^colour = 1: Binder Error"),
    ],
)
def test_an_error_of_a_metric_is_one_line(metrics: Metrics, query: dict[str, list[str]], error: str) -> None:
    with pytest.raises(UserError, match=error) as told:
        metrics.ask(**query)  # type: ignore[arg-type]
    assert "\n" not in str(told.value)
