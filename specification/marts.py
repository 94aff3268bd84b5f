"""What each mart holds, given everything that has landed. A mart is a list of rows, a row a dict by column."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from specification.contracts import CONTRACTS, Contract
from specification.drift import Difference, differences, field_drift, unlisted_fields
from specification.landed import Landed, Settings
from specification.messages import Event, Rejected, Version, published
from specification.staging import read
from specification.values import hash_of, json_text, ratio, seconds_between

Row = dict[str, Any]
Mart = list[Row]
Countries = dict[str, tuple[str, str]]
"""country_code to (country_name, region)."""

END_OF_TIME = datetime(9999, 12, 31)
T = TypeVar("T", Event, Version)


def marts(
    messages: Iterable[Landed],
    settings: Settings,
    countries: Countries,
    contracts: Mapping[str, Contract] = CONTRACTS,
    secret: bytes = b"",
) -> dict[str, Mart]:
    """Every mart by name.

    Args:
        contracts: those of the streams, by name.
        secret: the key of the hashes that stand for personal values.
    """
    messages = list(messages)
    accepted: list[Event | Version] = []
    dead_letters: Mart = []
    drift: list[Difference] = []
    for message in messages:
        contract = contracts[message.stream]
        reason, detail = None, None
        try:
            accepted.append(read(message, contract, settings, secret))
        except Rejected as rejected:
            dead_letters.append(dead_letter(message, rejected))
            reason, detail = rejected.reason, rejected.detail
        unlisted = unlisted_fields(message, contract)
        drift += differences(message.stream, message.landed_at, unlisted, reason, detail, contract)

    events = first_copies(one for one in accepted if isinstance(one, Event))
    versions = first_copies(one for one in accepted if isinstance(one, Version))
    entities = {stream: contract for stream, contract in contracts.items() if contract.kind == "entity"}
    histories = {
        stream: history([one for one in versions if one.stream == stream], contract.id_column)
        for stream, contract in entities.items()
    }
    page_views = page_views_in_sessions(events, settings)
    days = Days(settings)
    user_days = user_metrics_daily(events, page_views, days)
    post_days = post_metrics_daily(events, days)
    product_days = product_performance_daily(events, days)
    return {
        "fct_events": [event_row(event) for event in events],
        "fct_page_views": page_views,
        "fct_sessions": [session_row(view) for view in page_views if view["sequence_number"] == 1],
        "fct_session_event_sequence": store_sessions(events),
        "fct_checkout_attribution": checkout_attribution(events, histories["users"], settings),
        "agg_events_daily": events_daily(events, days),
        "agg_events_hourly": events_hourly(events, days),
        "agg_product_events_hourly": product_events_hourly(events, days),
        "agg_product_performance_daily": product_days,
        "agg_category_performance_daily": category_performance_daily(events, days),
        "agg_post_metrics_daily": post_days,
        "agg_user_metrics_daily": user_days,
        "agg_arrival_lateness_daily": arrival_lateness_daily(events, days),
        **{f"dim_{stream}_history": versions_of for stream, versions_of in histories.items()},
        **{
            f"dim_{stream}": current(histories[stream], one.id_column, *one.columns())
            for stream, one in entities.items()
        },
        "dim_users": users(histories["users"], user_days, countries),
        "dim_products": products(histories["products"], product_days),
        "dim_posts": posts(histories["posts"], post_days),
        "dead_letters": dead_letters,
        "field_drift": field_drift(drift),
        "landing_reconciliation": reconciliation(messages, accepted, [*events, *versions], dead_letters),
    }


def staged(
    messages: Iterable[Landed], settings: Settings, contracts: Mapping[str, Contract], secret: bytes = b""
) -> dict[str, Mart]:
    """What staging says of each message of these streams, by the name of its model. Of a rejected one: why it is."""
    found: dict[str, Mart] = {f"stg_{stream}": [] for stream in contracts}
    for message in messages:
        row: Row = {"stream": message.stream, "message_id": message.message_id, "landed_at": message.landed_at}
        row |= dict.fromkeys(("reject_reason", "reject_detail", "rejected_payload"))
        unlisted = unlisted_fields(message, contracts[message.stream])
        row["unlisted_fields"] = json_text(unlisted) if unlisted else None
        try:
            one = read(message, contracts[message.stream], settings, secret)
        except Rejected as rejected:
            row |= {
                "reject_reason": rejected.reason,
                "reject_detail": rejected.detail,
                "rejected_payload": message.payload,
            }
        else:
            row |= one.values | {"published_at": one.published_at}
            if isinstance(one, Event):
                of_type = {"event_type": one.event_type} if contracts[one.stream].type_field else {}
                times = {"event_at": one.event_at, "event_date": one.event_at.date()}
                row |= {"event_key": one.key, "event_id": one.event_id, **of_type, **times}
            else:
                row |= {"version_key": one.key, contracts[one.stream].id_column: one.id}
                row |= {"created_at": one.created_at, "updated_at": one.updated_at, "deleted_at": one.deleted_at}
                row |= {"is_tombstone": one.is_tombstone, "is_key_mismatch": one.has_mismatched_key}
        found[f"stg_{message.stream}"].append(row)
    return found


# --- accepted once, or rejected with a reason


def first_copies(copies: Iterable[T]) -> list[T]:
    """Of accepted copies with one key the first in the log counts, whatever the others say."""
    first: dict[str, T] = {}
    for copy in sorted(copies, key=lambda copy: copy.message.log_order):
        first.setdefault(copy.key, copy)
    return list(first.values())


def event_row(event: Event) -> Row:
    return {
        **event.contents,
        "stream": event.stream,
        "event_id": event.event_id,
        "event_key": event.key,
        "event_date": event.event_at.date(),
        "message_id": event.message.message_id,
        "published_at": event.published_at,
        "landed_at": event.landed_at,
        "latency_seconds": seconds_between(event.event_at, event.published_at),
    }


def dead_letter(message: Landed, rejected: Rejected) -> Row:
    return {
        "message_id": message.message_id,
        "stream": message.stream,
        "reason": rejected.reason,
        "detail": rejected.detail,
        "payload": message.payload,
        "published_at": published(message),
        "landed_at": message.landed_at,
    }


def reconciliation(
    messages: list[Landed], accepted: Sequence[Event | Version], kept: Sequence[Event | Version], dead_letters: Mart
) -> Mart:
    """For every stream and landing date: landed = accepted + duplicates + rejected.

    A copy of an event is conflicting when it says something else than the one that counts. Versions of entities never:
    what they say is a part of their identity.
    """
    names = ("landed", "accepted", "duplicates", "conflicting", "rejected", "mismatched_keys")
    counts: dict[tuple[str, date], dict[str, int]] = defaultdict(lambda: dict.fromkeys(names, 0))
    first = {one.key: one for one in kept}
    for message in messages:
        counts[message.stream, message.landed_at.date()]["landed"] += 1
    for copy in accepted:
        day = counts[copy.stream, copy.landed_at.date()]
        counting = first[copy.key]
        day["accepted" if copy is counting else "duplicates"] += 1
        if isinstance(copy, Event) and isinstance(counting, Event):
            day["conflicting"] += copy.contents != counting.contents
        else:
            day["mismatched_keys"] += isinstance(copy, Version) and copy.has_mismatched_key
    for letter in dead_letters:
        counts[letter["stream"], letter["landed_at"].date()]["rejected"] += 1
    return [
        {"stream": stream, "landed_date": landed_date, **count, "is_balanced": True}
        for (stream, landed_date), count in counts.items()
    ]


# --- sessions of page views


def page_views_in_sessions(events: Sequence[Event], settings: Settings) -> Mart:
    """A session is the page views of one key, in order of (event_at, event_id), in which no gap exceeds the limit.

    A gap of exactly the limit does not split.
    """
    gap = timedelta(seconds=settings.session_gap_seconds)
    views = [event for event in events if event.stream == "page_views"]
    rows: Mart = []
    for session_key, of_key in grouped(views, lambda view: getattr(view, settings.session_key)).items():
        sessions: list[list[Event]] = []
        for view in in_order(of_key):
            if not sessions or view.event_at - sessions[-1][-1].event_at > gap:
                sessions.append([])
            sessions[-1].append(view)
        for session in sessions:
            rows.extend(page_view_rows(session_key, session, gap))
    return rows


def page_view_rows(session_key: str, session: list[Event], gap: timedelta) -> Mart:
    """Time on a page runs to the next page view; on the last page it is the event's own engaged time, if it has one."""
    first, last = session[0], session[-1]
    rows = []
    for place, view in enumerate(session):
        following = session[place + 1] if place + 1 < len(session) else None
        source, seconds = None, None
        if following is not None:
            source, seconds = "next_page", seconds_between(view.event_at, following.event_at)
        elif view.engaged_seconds is not None:
            source, seconds = "engaged_time", view.engaged_seconds
        rows.append(
            {
                "event_key": view.key,
                "event_id": view.event_id,
                "session_id": hash_of(session_key, first.key),
                "session_key": session_key,
                "source_session_id": view.source_session_id,
                "user_id": view.user_id,
                "account_number": view.account_number,
                "traffic_source": view.traffic_source,
                "page_title": view.page_title,
                "event_at": view.event_at,
                "event_date": view.event_at.date(),
                "sequence_number": place + 1,
                "previous_event_at": session[place - 1].event_at if place else None,
                "next_event_at": following.event_at if following else None,
                "time_on_page_seconds": seconds,
                "time_on_page_source": source,
                "window_start_at": first.event_at,
                "window_end_at": last.event_at + gap,
                "session_started_at": first.event_at,
                "session_ended_at": last.event_at,
                "session_page_views": len(session),
                "entry_page_title": first.page_title,
                "exit_page_title": last.page_title,
                "session_duration_seconds": seconds_between(first.event_at, last.event_at),
                "message_id": view.message.message_id,
                "landed_at": view.landed_at,
                "session_landed_at": max(one.landed_at for one in session),
            }
        )
    return rows


def session_row(first_view: Row) -> Row:
    """A session, read off its first page view."""
    same = (
        "session_id session_key source_session_id user_id account_number traffic_source event_date session_started_at "
        "session_ended_at window_end_at entry_page_title exit_page_title session_landed_at"
    )
    return {
        **{name: first_view[name] for name in same.split()},
        "page_views": first_view["session_page_views"],
        "duration_seconds": first_view["session_duration_seconds"],
        "is_bounce": first_view["session_page_views"] == 1,
    }


# --- sessions of the store


def store_sessions(events: Sequence[Event]) -> Mart:
    """The store events of each user_session in order of (event_at, event_id), however far apart."""
    store_events = [event for event in events if event.stream == "ecom_events" and event.source_session_id is not None]
    rows: Mart = []
    for session_id, of_session in grouped(store_events, lambda event: event.source_session_id).items():
        session = in_order(of_session)
        for place, event in enumerate(session):
            previous = session[place - 1] if place else None
            rows.append(
                {
                    "event_key": event.key,
                    "event_id": event.event_id,
                    "source_session_id": session_id,
                    "user_id": event.user_id,
                    "product_id": event.product_id,
                    "event_type": event.event_type,
                    "event_at": event.event_at,
                    "event_date": event.event_at.date(),
                    "session_event_number": place + 1,
                    "seconds_since_previous": seconds_between(previous.event_at, event.event_at) if previous else None,
                    "previous_event_type": previous.event_type if previous else None,
                    "session_started_at": session[0].event_at,
                    "session_ended_at": session[-1].event_at,
                    "session_duration_seconds": seconds_between(session[0].event_at, session[-1].event_at),
                }
            )
    return rows


# --- attribution


def checkout_attribution(events: Sequence[Event], user_history: Mart, settings: Settings) -> Mart:
    """Each checkout with the earliest click of its user on its product in the window before it, both ends included.

    The user's name is the one that was valid at the checkout, by all versions known now.
    """
    window = timedelta(seconds=settings.attribution_window_seconds)
    clicks = grouped((e for e in events if e.stream == "clicks"), lambda click: (click.user_id, click.product_id))
    versions = grouped(user_history, lambda version: version["user_id"])
    rows: Mart = []
    for checkout in (event for event in events if event.stream == "checkouts"):
        of_pair = clicks.get((checkout.user_id, checkout.product_id), [])
        reached = in_order(
            click for click in of_pair if checkout.event_at - window <= click.event_at <= checkout.event_at
        )
        first = reached[0] if reached else None
        names = [
            version["user_name"]
            for version in versions.get(checkout.user_id, [])
            if version["valid_from"] <= checkout.event_at < version["valid_to"]
        ]
        rows.append(
            {
                "event_key": checkout.key,
                "checkout_id": checkout.event_id,
                "checkout_at": checkout.event_at,
                "event_date": checkout.event_at.date(),
                "user_id": checkout.user_id,
                "user_name": names[0] if names else None,
                "product_id": checkout.product_id,
                "total_amount": checkout.total_amount,
                "first_click_id": first.event_id if first else None,
                "first_click_at": first.event_at if first else None,
                "first_click_url": first.url if first else None,
                "seconds_to_checkout": seconds_between(first.event_at, checkout.event_at) if first else None,
                "clicks_in_window": len(reached),
                "is_attributed": first is not None,
            }
        )
    return rows


# --- rollups: every event counts on the day, and in the hour, of the reporting time zone


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
    """By the category that the event carries, however its letters are written: a product that moves later does not
    rewrite the past."""
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
    """A row a user and day with an event. A session counts on the day of its first page view, for who made that one."""
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
    """A percentile is the least lateness that so many of the events do not exceed."""
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
    """The first place, from 0, at or before which at least so many percent stand."""
    return -(-percent * number // 100) - 1


# --- entities


def history(versions: Sequence[Version], id_column: str) -> Mart:
    """Every version with the time that it was valid, from its own time to the next one's, the last for ever.

    A tombstone deletes what is before it in the log, whatever clock those versions had: its time is at least theirs. A
    version after it in the log that is not older brings the entity back: its time is at least the tombstone's. Of those
    that start at one instant the ones after a tombstone come last, then the newer, then the later in the log. The first
    version is valid from its created_at, if that is earlier.
    """
    rows: Mart = []
    for entity_id, of_entity in grouped(versions, lambda version: version.id).items():
        placed: list[tuple[datetime, int, datetime, int, Version]] = []
        in_log = sorted(of_entity, key=lambda version: version.message.log_order)
        newest = in_log[0].updated_at
        tombstones: list[datetime] = []
        deleted_at = newest
        for place_in_log, version in enumerate(in_log):
            newest = max(newest, version.updated_at)
            effective_at = version.updated_at
            if version.is_tombstone:
                tombstones.append(version.updated_at)
                effective_at = deleted_at = newest
            elif tombstones and version.updated_at >= max(tombstones):
                effective_at = max(version.updated_at, deleted_at)
            placed.append((effective_at, len(tombstones), version.updated_at, place_in_log, version))
        placed.sort(key=lambda one: one[:4])
        for number, (effective_at, *_, version) in enumerate(placed, 1):
            following = placed[number][0] if number < len(placed) else None
            valid_from = effective_at
            if number == 1 and version.created_at is not None:
                valid_from = min(version.created_at, effective_at)
            rows.append(
                {
                    "version_key": version.key,
                    **version.values,
                    id_column: entity_id,
                    "version_number": number,
                    "is_tombstone": version.is_tombstone,
                    "is_deleted": version.is_tombstone or version.deleted_at is not None,
                    "created_at": version.created_at,
                    "updated_at": version.updated_at,
                    "deleted_at": version.deleted_at,
                    "valid_from": valid_from,
                    "valid_to": END_OF_TIME if following is None else following,
                    "is_current": following is None,
                    "message_id": version.message.message_id,
                    "published_at": published(version.message),
                    "landed_at": version.landed_at,
                }
            )
    return rows


def current(versions: Mart, *columns: str) -> Mart:
    """The entities that are not deleted, as they are now."""
    living = [version for version in versions if version["is_current"] and not version["is_deleted"]]
    return [{name: version[name] for name in (*columns, "created_at", "updated_at")} for version in living]


def users(versions: Mart, user_days: Mart, countries: Countries) -> Mart:
    by_user = grouped(user_days, lambda row: row["user_id"])
    rows = []
    names = ("user_id", "user_name", "first_name", "last_name", "country_code", "favorite_color")
    for user in current(versions, *names):
        days = by_user.get(user["user_id"], [])
        country_name, region = countries.get(user["country_code"], (None, None))
        rows.append(
            {
                **user,
                "country_name": country_name,
                "region": region,
                **{name: sum(day[name] for day in days) for name in ("events", "sessions", "likes_given")},
                "first_active_date": min((day["reporting_date"] for day in days), default=None),
                "last_active_date": max((day["reporting_date"] for day in days), default=None),
            }
        )
    return rows


def products(versions: Mart, product_days: Mart) -> Mart:
    by_product = grouped(product_days, lambda row: row["product_id"])
    totals = ("views", "carts", "purchases", "revenue")
    return [
        {**product, **{name: sum(day[name] for day in by_product.get(product["product_id"], [])) for name in totals}}
        for product in current(versions, "product_id", "name", "category_code", "category", "model", "brand", "price")
    ]


def posts(versions: Mart, post_days: Mart) -> Mart:
    by_post = grouped(post_days, lambda row: row["post_id"])
    rows = []
    for post in current(versions, "post_id", "user_id", "post_text"):
        days = by_post.get(post["post_id"], [])
        views, likes = sum(day["views"] for day in days), sum(day["likes"] for day in days)
        rows.append({**post, "daily_views": views, "likes": likes, "like_ratio": ratio(likes, views)})
    return rows


# --- helpers


def grouped(items: Iterable[Any], key: Callable[[Any], Any]) -> dict[Any, list[Any]]:
    groups: dict[Any, list[Any]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return dict(groups)


def in_order(events: Iterable[Event]) -> list[Event]:
    """By time; at one instant by event_id."""
    return sorted(events, key=lambda event: (event.event_at, event.event_id))
