"""Daily and hourly aggregates: each event counts on the day, and in the hour, of the reporting time zone."""

from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from specification.landed import Settings
from specification.messages import Event
from specification.rows import Mart, Row, grouped
from specification.values import ratio, seconds_between


class Days:
    """The calendar of the reporting time zone."""

    def __init__(self, settings: Settings) -> None:
        self._zone = ZoneInfo(settings.reporting_time_zone)

    def local(self, time: datetime) -> datetime:
        return time.replace(tzinfo=ZoneInfo("UTC")).astimezone(self._zone)

    def date(self, time: datetime) -> date:
        return self.local(time).date()

    def hour(self, time: datetime) -> datetime:
        """The UTC instant at which the local hour began."""
        local = self.local(time)
        return time - timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)


def count(events: Sequence[Event], event_type: str) -> int:
    return sum(event.event_type == event_type for event in events)


def revenue(events: Sequence[Event]) -> Decimal:
    return sum((e.price for e in events if e.event_type == "purchase" and e.price is not None), Decimal(0))


def checkout_amount(events: Sequence[Event]) -> Decimal:
    return sum((event.total_amount for event in events if event.total_amount is not None), Decimal(0))


def distinct(values: Iterable[Any]) -> int:
    return len({value for value in values if value is not None})


def shop_metrics(events: Sequence[Event]) -> Row:
    return {
        "events": len(events),
        "views": count(events, "view"),
        "carts": count(events, "cart"),
        "purchases": count(events, "purchase"),
        "users": distinct(event.user_id for event in events),
        "revenue": revenue(events),
    }


def all_metrics(events: Sequence[Event]) -> Row:
    return {
        **shop_metrics(events),
        "page_views": count(events, "page_view"),
        "clicks": count(events, "click"),
        "checkouts": count(events, "checkout"),
        "checkout_amount": checkout_amount(events),
    }


def purchases_per_view(events: Sequence[Event]) -> Decimal | None:
    return ratio(count(events, "purchase"), count(events, "view"))


def events_daily(events: Sequence[Event], days: Days) -> Mart:
    by_day = grouped(events, lambda event: days.date(event.event_at))
    return [{"reporting_date": day, **all_metrics(of_day)} for day, of_day in by_day.items()]


def events_hourly(events: Sequence[Event], days: Days) -> Mart:
    by_hour = grouped(events, lambda event: days.hour(event.event_at))
    return [
        {"reporting_date": days.date(hour), "reporting_hour_at": hour, **all_metrics(of_hour)}
        for hour, of_hour in by_hour.items()
    ]


def product_events_hourly(events: Sequence[Event], days: Days) -> Mart:
    by_product = grouped(
        (event for event in events if event.product_id is not None),
        lambda event: (days.hour(event.event_at), event.product_id),
    )
    return [
        {
            "reporting_date": days.date(hour),
            "reporting_hour_at": hour,
            "product_id": product_id,
            **shop_metrics(of_product),
        }
        for (hour, product_id), of_product in by_product.items()
    ]


def product_performance_daily(events: Sequence[Event], days: Days) -> Mart:
    by_product = grouped(
        (event for event in events if event.product_id is not None),
        lambda event: (days.date(event.event_at), event.product_id),
    )
    rows = []
    for (day, product_id), of_product in by_product.items():
        metrics = all_metrics(of_product)
        del metrics["page_views"]
        per_view = purchases_per_view(of_product)
        rows.append({"reporting_date": day, "product_id": product_id, **metrics, "purchases_per_view": per_view})
    return rows


def category_performance_daily(events: Sequence[Event], days: Days) -> Mart:
    """By the category of the event, in lower case. A later change of a product's category does not change the past."""
    by_category = grouped(
        (event for event in events if event.category_code is not None),
        lambda event: (days.date(event.event_at), str(event.category_code).lower()),
    )
    return [
        {
            "reporting_date": day,
            "category_code": category_code,
            **shop_metrics(of_category),
            "purchases_per_view": purchases_per_view(of_category),
        }
        for (day, category_code), of_category in by_category.items()
    ]


def post_metrics_daily(events: Sequence[Event], days: Days) -> Mart:
    """Views are distinct viewers, likes are events."""
    by_post = grouped(
        (event for event in events if event.post_id is not None),
        lambda event: (days.date(event.event_at), event.post_id),
    )
    rows = []
    for (day, post_id), of_post in by_post.items():
        views = distinct(event.user_id for event in of_post if event.event_type == "post_view")
        likes = count(of_post, "post_like")
        row = {"post_id": post_id, "views": views, "likes": likes, "like_ratio": ratio(likes, views)}
        rows.append({"reporting_date": day, **row})
    return rows


def user_metrics_daily(events: Sequence[Event], page_views: Mart, days: Days) -> Mart:
    """One row per user and day with an event. A session counts on the day, and for the user, of its first page view."""
    by_user = grouped(
        (event for event in events if event.user_id is not None),
        lambda event: (days.date(event.event_at), event.user_id),
    )
    first_views = [view for view in page_views if view["sequence_number"] == 1]
    sessions = grouped(first_views, lambda view: (days.date(view["event_at"]), view["user_id"]))
    return [
        {
            "reporting_date": day,
            "user_id": user_id,
            "events": len(of_user),
            "likes_given": count(of_user, "post_like"),
            "posts_viewed": distinct(event.post_id for event in of_user if event.event_type == "post_view"),
            "sessions": len(sessions.get((day, user_id), [])),
        }
        for (day, user_id), of_user in by_user.items()
    ]


def arrival_lateness_daily(events: Sequence[Event], days: Days) -> Mart:
    """A percentile is the smallest lateness that at least this share of the events does not exceed."""
    by_stream = grouped(events, lambda event: (days.date(event.event_at), event.stream))
    rows = []
    for (day, stream), of_stream in by_stream.items():
        late = sorted(seconds_between(event.event_at, event.published_at) for event in of_stream)
        rows.append(
            {
                "reporting_date": day,
                "stream": stream,
                "events": len(late),
                "p50_latency_seconds": late[place(50, len(late))],
                "p95_latency_seconds": late[place(95, len(late))],
                "max_latency_seconds": late[-1],
                "share_over_an_hour": ratio(sum(seconds > 3600 for seconds in late), len(late)),
                "share_over_a_day": ratio(sum(seconds > 86400 for seconds in late), len(late)),
            }
        )
    return rows


def place(percent: int, number: int) -> int:
    """The index in a sorted list up to which at least this many percent are included."""
    return -(-percent * number // 100) - 1
