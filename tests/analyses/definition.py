"""What each analysis answers, in plain Python over the facts. A row is a tuple of the columns; rows are in order.

A definition knows no `limit`: an answer has the first rows of it.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from itertools import groupby, pairwise
from operator import itemgetter
from typing import Any

from specification import Settings, drift
from specification.aggregates import Days, distinct, place
from specification.contracts import CONTRACTS
from specification.drift import differences
from specification.rows import Mart, Row, grouped
from specification.values import ratio, rounded, seconds_between

Answer = list[tuple[Any, ...]]
FUNNEL = "view", "cart", "purchase"


@dataclass(frozen=True)
class Facts:
    tables: Mapping[str, Mart]
    settings: Settings

    @property
    def events(self) -> Mart:
        return self.tables["fct_events"]

    @property
    def days(self) -> Days:
        return Days(self.settings)

    @cached_property
    def countries(self) -> dict[str, Row]:
        return {row["country_code"]: row for row in self.tables["dim_countries"]}

    @cached_property
    def products(self) -> dict[str, Row]:
        return self.current("dim_products_history", "product_id")

    def product_name(self, product_id: str | None) -> str | None:
        """As it is now; None if the change log does not know it."""
        product = self.products.get(product_id or "")
        name: str | None = product["name"] if product else None
        return name

    @cached_property
    def versions(self) -> dict[str, Mart]:
        """Of each user."""
        return grouped(self.tables["dim_users_history"], lambda version: version["user_id"])

    def reported(self, start_date: date, end_date: date) -> Mart:
        """Events of these days of the reporting time zone."""
        return [event for event in self.events if start_date <= self.days.date(event["event_at"]) <= end_date]

    def current(self, table: str, id_name: str) -> dict[str, Row]:
        return {row[id_name]: row for row in self.tables[table] if row["is_current"]}


# --- of events in a period, of one brand and category


def event_counts(
    facts: Facts, start_time: datetime, end_time: datetime, brand: str, category: str, product_id: str
) -> Answer:
    chosen = chosen_events(facts, start_time, end_time, brand, category, product_id)
    rows = [
        (type_, len(found), users(found), distinct(event["product_id"] for event in found), *first_and_last(found))
        for type_, found in grouped(chosen, lambda event: event["event_type"]).items()
    ]
    return sorted(rows, key=lambda row: (-row[1], row[0]))


def key_figures(
    facts: Facts, start_time: datetime, end_time: datetime, brand: str, category: str, product_id: str
) -> Answer:
    """Sessions have no brand, category or product, and checkouts no brand and category."""
    chosen = chosen_events(facts, start_time, end_time, brand, category, product_id)
    sessions = len(within(facts.tables["fct_sessions"], start_time, end_time, "session_started_at"))
    is_of_all = brand.lower() == category.lower() == "all"
    buyers = users([event for event in chosen if event["event_type"] == "purchase"])
    return [
        (
            len(chosen),
            users(chosen),
            sessions if is_of_all and product_id.lower() == "all" else None,
            count_of(chosen, "checkout") if is_of_all else None,
            count_of(chosen, "purchase"),
            revenue(chosen),
            buyers,
            ratio(buyers, users(chosen)),
        )
    ]


def product_events(
    facts: Facts, start_time: datetime, end_time: datetime, product_id: str, brand: str, category: str
) -> Answer:
    chosen = with_product(chosen_events(facts, start_time, end_time, brand, category, product_id))
    rows = [
        (*key, len(found), users(found), *first_and_last(found))
        for key, found in grouped(chosen, lambda event: (event["product_id"], event["event_type"])).items()
    ]
    return sorted(rows, key=lambda row: (-row[2], row[0], row[1]))


def top_products(
    facts: Facts, start_time: datetime, end_time: datetime, brand: str, category: str, product_id: str, sort: str
) -> Answer:
    chosen = with_product(chosen_events(facts, start_time, end_time, brand, category, product_id))
    rows = []
    for product, found in grouped(chosen, lambda event: event["product_id"]).items():
        last_brand = max((event["brand"] for event in found if event["brand"] is not None), default=None)
        codes = (event["category_code"] for event in found if event["category_code"] is not None)
        named = product, facts.product_name(product), last_brand, max(codes, default=None)
        rows.append((*named, *shop(found), users(found), revenue(found)))
    first = {"views": 4, "carts": 5, "purchases": 6, "users": 7, "revenue": 8}[sort]
    return sorted(rows, key=lambda row: (-row[first], -row[6], -row[8], row[0]))


def hourly_by_product(
    facts: Facts, start_time: datetime, end_time: datetime, product_id: str, brand: str, category: str
) -> Answer:
    chosen = with_product(chosen_events(facts, start_time, end_time, brand, category, product_id))
    by_hour = grouped(chosen, lambda event: (facts.days.hour(event["event_at"]), event["product_id"]))
    rows = [(*key, len(found), *shop(found), users(found), revenue(found)) for key, found in by_hour.items()]
    return newest_first(sorted(rows, key=lambda row: (-row[2], row[1])))


def brands(facts: Facts, start_time: datetime, end_time: datetime, category: str, sort: str) -> Answer:
    return sellers(of_category(within(facts.events, start_time, end_time), category), "brand", sort)


def categories(facts: Facts, start_time: datetime, end_time: datetime, brand: str, sort: str) -> Answer:
    return sellers(of_brand(within(facts.events, start_time, end_time), brand), "category_code", sort)


def sellers(events: Mart, name: str, sort: str) -> Answer:
    named = [event for event in events if event[name] is not None]
    rows = []
    for value, found in grouped(named, lambda event: event[name].lower()).items():
        rows.append((value, distinct(e["product_id"] for e in found), *shop(found), users(found), revenue(found)))
    first = {"products": 1, "views": 2, "carts": 3, "purchases": 4, "users": 5, "revenue": 6}[sort]
    return sorted(rows, key=lambda row: (-row[first], -row[6], -row[4], -row[2], row[0]))


def conversion_funnel(
    facts: Facts, start_time: datetime, end_time: datetime, brand: str, category: str, product_id: str, per: str
) -> Answer:
    """For each group and person in it: the first view, the first cart from then on, the first purchase from then."""
    chosen = chosen_events(facts, start_time, end_time, brand, category, product_id)
    chosen = [event for event in chosen if event["event_type"] in FUNNEL and event["user_id"] is not None]
    if per == "period":
        groups: dict[Any, Mart] = {(None, None): chosen} if chosen else {}
    else:
        chosen = [event for event in chosen if event["category_code"] is not None]
        days = facts.days if per == "day_and_category" else None
        groups = grouped(chosen, lambda event: (days and days.date(event["event_at"]), event["category_code"].lower()))
    rows = []
    for key, found in groups.items():
        steps = [0, 0, 0]
        for of_user in grouped(found, lambda event: event["user_id"]).values():
            reached = datetime(1, 1, 1)
            for step, type_ in enumerate(FUNNEL):
                times = [e["event_at"] for e in of_user if e["event_type"] == type_ and e["event_at"] >= reached]
                if not times:
                    break
                reached = min(times)
                steps[step] += 1
        viewers, users_with_cart, buyers = steps
        ratios = (ratio(users_with_cart, viewers), ratio(buyers, users_with_cart), ratio(buyers, viewers))
        rows.append((*key, *steps, *ratios))
    if per == "day_and_category":
        return newest_first(sorted(rows, key=lambda row: row[1]))
    return sorted(rows, key=lambda row: (-row[2], row[1]))


def recent_events(
    facts: Facts,
    start_time: datetime,
    end_time: datetime,
    event_type: str,
    brand: str,
    category: str,
    product_id: str,
) -> Answer:
    chosen = chosen_events(facts, start_time, end_time, brand, category, product_id)
    chosen = [event for event in chosen if event_type.lower() in ("all", event["event_type"])]
    chosen.sort(key=lambda event: event["event_key"])
    chosen.sort(key=lambda event: event["event_at"], reverse=True)
    before = ["event_at", "event_type", "stream", "user_id", "product_id"]
    after = ["post_id", "page_title", "brand", "category_code", "price", "total_amount", "country", "landed_at"]
    return [
        (
            *(event[name] for name in before),
            facts.product_name(event["product_id"]),
            *(event[name] for name in after),
        )
        for event in chosen
    ]


def mau_by_region_and_month(facts: Facts, start_time: datetime, end_time: datetime) -> Answer:
    def key(event: Row) -> tuple[date, str]:
        country = country_at(facts, event)
        return facts.days.date(event["event_at"]).replace(day=1), country["region"] if country else "unknown"

    active = [event for event in within(facts.events, start_time, end_time) if event["user_id"] is not None]
    rows = [(*month, users(found), len(found)) for month, found in grouped(active, key).items()]
    return newest_first(sorted(rows, key=lambda row: (-row[2], row[1])))


def mau_by_country_and_month(facts: Facts, start_time: datetime, end_time: datetime, region: str) -> Answer:
    def key(event: Row) -> tuple[date, str, str | None, str]:
        country = country_at(facts, event) or {"country_name": "unknown", "country_code": None, "region": "unknown"}
        month = facts.days.date(event["event_at"]).replace(day=1)
        return month, country["country_name"], country["country_code"], country["region"]

    active = [event for event in within(facts.events, start_time, end_time) if event["user_id"] is not None]
    rows = [(*country, users(found), len(found)) for country, found in grouped(active, key).items()]
    rows = [row for row in rows if region.lower() in ("all", row[3].lower())]
    return newest_first(sorted(rows, key=lambda row: (-row[4], row[1])))


def country_at(facts: Facts, event: Row) -> Row | None:
    """The country in which the user of an event lived when it happened, if it is a known one."""
    for version in facts.versions.get(event["user_id"], []):
        if version["valid_from"] <= event["event_at"] < version["valid_to"]:
            return facts.countries.get(version["country_code"])
    return None


# --- of days of the reporting time zone


def category_performance(facts: Facts, start_date: date, end_date: date, category: str) -> Answer:
    chosen = [e for e in of_category(facts.reported(start_date, end_date), category) if e["category_code"] is not None]
    rows = []
    for key, found in grouped(chosen, lambda e: (facts.days.date(e["event_at"]), e["category_code"].lower())).items():
        views, _, purchases = shop(found)
        rows.append((*key, *shop(found), users(found), revenue(found), ratio(purchases, views)))
    return newest_first(sorted(rows, key=lambda row: (-row[6], row[1])))


def daily_kpis(facts: Facts, start_date: date, end_date: date) -> Answer:
    by_day = grouped(facts.reported(start_date, end_date), lambda event: facts.days.date(event["event_at"]))
    rows = []
    for day, found in sorted(by_day.items()):
        views, _, purchases = shop(found)
        rows.append((day, *kpis(found), ratio(purchases, views)))
    return newest_first(rows)


def hourly_event_counts(
    facts: Facts, start_time: datetime, end_time: datetime, brand: str, category: str, product_id: str
) -> Answer:
    chosen = chosen_events(facts, start_time, end_time, brand, category, product_id)
    by_hour = grouped(chosen, lambda event: facts.days.hour(event["event_at"]))
    return newest_first([(hour, len(found), *shop(found)) for hour, found in by_hour.items()])


def hourly_events(facts: Facts, start_date: date, end_date: date) -> Answer:
    by_hour = grouped(facts.reported(start_date, end_date), lambda event: facts.days.hour(event["event_at"]))
    return newest_first([(hour, *kpis(found)) for hour, found in by_hour.items()])


def kpis(events: Mart) -> tuple[Any, ...]:
    counts = [count_of(events, type_) for type_ in ("page_view", "click", "checkout")]
    amounts = sum((event["total_amount"] or Decimal() for event in events), Decimal())
    return len(events), users(events), *shop(events), *counts, revenue(events), amounts


def arrival_lateness(facts: Facts, start_date: date, end_date: date) -> Answer:
    events = facts.reported(start_date, end_date)
    rows = []
    for key, found in sorted(grouped(events, lambda e: (facts.days.date(e["event_at"]), e["stream"])).items()):
        late = sorted(event["latency_seconds"] for event in found)
        shares = [ratio(sum(seconds > limit for seconds in late), len(late)) for limit in (3600, 86400)]
        rows.append((*key, len(late), late[place(50, len(late))], late[place(95, len(late))], late[-1], *shares))
    return newest_first(rows)


def post_leaderboard(facts: Facts, start_date: date, end_date: date) -> Answer:
    posts, people = facts.current("dim_posts_history", "post_id"), facts.current("dim_users_history", "user_id")
    rows = []
    for post_id, (views, likes) in post_totals(facts, start_date, end_date).items():
        post = posts.get(post_id, {"user_id": None, "post_text": None, "is_deleted": False})
        if not post["is_deleted"]:
            name = people.get(post["user_id"], {"user_name": None})["user_name"]
            rows.append((post_id, post["user_id"], name, post["post_text"], views, likes, ratio(likes, views)))
    return sorted(rows, key=lambda row: (-row[4], -row[5], row[0]))


def creator_leaderboard(facts: Facts, start_date: date, end_date: date, active_days: int) -> Answer:
    people, totals = facts.current("dim_users_history", "user_id"), post_totals(facts, start_date, end_date)
    posts = [post for post in facts.current("dim_posts_history", "post_id").values() if not post["is_deleted"]]
    last: dict[str, date] = {}
    for event in facts.reported(start_date, end_date):
        if event["user_id"] is not None:
            day = facts.days.date(event["event_at"])
            last[event["user_id"]] = max(day, last.get(event["user_id"], day))
    rows = []
    for user_id, written in grouped(posts, lambda post: post["user_id"]).items():
        if user_id is None:
            continue
        views, likes = (sum(totals.get(post["post_id"], (0, 0))[which] for post in written) for which in (0, 1))
        person, last_day = people.get(user_id), last.get(user_id)
        is_active = (
            last_day is not None
            and (max(last.values()) - last_day).days < active_days
            and person is not None
            and not person["is_deleted"]
        )
        name = person["user_name"] if person else None
        rows.append((user_id, name, len(written), views, likes, ratio(likes, views), last_day, is_active))
    return sorted(rows, key=lambda row: (-row[3], -row[4], row[0]))


def post_totals(facts: Facts, start_date: date, end_date: date) -> dict[str, tuple[int, int]]:
    """Views (viewers of each day, summed) and likes by post."""
    events = [event for event in facts.reported(start_date, end_date) if event["post_id"] is not None]
    totals = {}
    for post_id, found in grouped(events, lambda event: event["post_id"]).items():
        viewed = [event for event in found if event["event_type"] == "post_view"]
        viewers = {(facts.days.date(event["event_at"]), event["user_id"]) for event in viewed}
        totals[post_id] = (len(viewers), count_of(found, "post_like"))
    return totals


def weekly_retention(facts: Facts, start_date: date, end_date: date) -> Answer:
    weeks: dict[str, set[date]] = {}
    for event in facts.events:
        if event["user_id"] is not None:
            weeks.setdefault(event["user_id"], set()).add(monday(facts.days.date(event["event_at"])))
    rows = []
    for cohort, members in sorted(grouped(weeks, lambda user: min(weeks[user])).items()):
        if start_date <= cohort <= end_date:
            for week in sorted(set().union(*weeks.values())):
                if week >= cohort:
                    active = sum(week in weeks[user] for user in members)
                    later = (week - cohort).days // 7
                    rows.append((cohort, later, len(members), active, ratio(active, len(members))))
    return newest_first(rows)


def monday(day: date) -> date:
    return day - timedelta(days=day.weekday())


# --- sessions and pages


def session_paths(facts: Facts, start_time: datetime, end_time: datetime, steps: int, min_steps: int) -> Answer:
    paths: dict[str, list[Mart]] = {}
    all_sessions = 0
    for views in grouped(facts.tables["fct_page_views"], lambda view: view["session_id"]).values():
        views.sort(key=lambda view: view["sequence_number"])
        if start_time <= views[0]["event_at"] < end_time:
            all_sessions += 1
            titles = [title for title, _ in groupby(view["page_title"] for view in views)]
            if len(titles) < min_steps:
                continue
            paths.setdefault(" > ".join([*titles[:steps], *(["..."] if titles[steps:] else [])]), []).append(views)
    rows = []
    for path, sessions in paths.items():
        seconds = [seconds_between(views[0]["event_at"], views[-1]["event_at"]) for views in sessions]
        share = ratio(len(sessions), all_sessions)
        rows.append((path, len(sessions), sum(map(len, sessions)), average(seconds), share))
    return sorted(rows, key=lambda row: (-row[1], row[0]))


def sessions_overview(facts: Facts, start_time: datetime, end_time: datetime) -> Answer:
    sessions = within(facts.tables["fct_sessions"], start_time, end_time, "session_started_at")
    rows = []
    for day, found in sorted(grouped(sessions, lambda one: facts.days.date(one["session_started_at"])).items()):
        pages = [session["page_views"] for session in found]
        seconds = average([session["duration_seconds"] for session in found])
        bounces = sum(number == 1 for number in pages)
        shares = ratio(bounces, len(found)), ratio(sum(pages), len(found))
        rows.append((day, len(found), users(found), sum(pages), bounces, *shares, seconds))
    return newest_first(rows)


def entry_pages(facts: Facts, start_time: datetime, end_time: datetime, sort: str) -> Answer:
    sessions = within(facts.tables["fct_sessions"], start_time, end_time, "session_started_at")
    rows = []
    for title, found in grouped(sessions, lambda one: one["entry_page_title"]).items():
        pages = [session["page_views"] for session in found]
        bounces = pages.count(1)
        shares = ratio(bounces, len(found)), ratio(sum(pages), len(found))
        seconds = average([session["duration_seconds"] for session in found])
        rows.append((title, len(found), users(found), bounces, *shares, seconds))
    first = {"sessions": 1, "users": 2, "bounces": 3, "bounce_rate": 4}[sort]
    return sorted(rows, key=lambda row: (-row[first], -row[1], -row[3], row[0]))


def top_pages(facts: Facts, start_time: datetime, end_time: datetime) -> Answer:
    views = within(facts.tables["fct_page_views"], start_time, end_time)
    rows = []
    for title, found in grouped(views, lambda view: view["page_title"]).items():
        seconds = [view["time_on_page_seconds"] for view in found if view["time_on_page_seconds"] is not None]
        entries = sum(view["previous_event_at"] is None for view in found)
        exits = sum(view["next_event_at"] is None for view in found)
        counts = (len(found), distinct(view["session_id"] for view in found), users(found), entries, exits)
        rows.append((title, *counts, len(seconds), sum(seconds, Decimal()), average(seconds)))
    return sorted(rows, key=lambda row: (-row[7], -row[1], row[0]))


# --- attribution


def first_click_by_url(facts: Facts, start_time: datetime, end_time: datetime) -> Answer:
    return first_clicks(facts, start_time, end_time, lambda url: url)


def first_click_by_page(facts: Facts, start_time: datetime, end_time: datetime) -> Answer:
    return first_clicks(facts, start_time, end_time, lambda url: url.split("?")[0].split("#")[0])


def first_clicks(facts: Facts, start_time: datetime, end_time: datetime, page: Callable[[str], str]) -> Answer:
    checkouts = within(facts.tables["fct_checkout_attribution"], start_time, end_time, "checkout_at")

    def key(checkout: Row) -> tuple[str | None, bool]:
        url = checkout["first_click_url"]
        return url if url is None else page(url), checkout["first_click_id"] is not None

    rows = []
    for (url, attributed), found in grouped(checkouts, key).items():
        amount = sum((one["total_amount"] or Decimal() for one in found), Decimal())
        seconds = average([one["seconds_to_checkout"] for one in found if attributed])
        share = ratio(len(found), len(checkouts))
        rows.append((url, attributed, len(found), users(found), amount, share, seconds))
    return sorted(rows, key=lambda row: (-row[2], not row[1], row[0] is None, row[0]))


def attributed_checkouts(facts: Facts, start_time: datetime, end_time: datetime) -> Answer:
    checkouts = within(facts.tables["fct_checkout_attribution"], start_time, end_time, "checkout_at")
    rows = []
    for day, found in grouped(checkouts, lambda one: facts.days.date(one["checkout_at"])).items():
        attributed = [one for one in found if one["first_click_id"] is not None]
        amounts = [sum((one["total_amount"] or Decimal() for one in some), Decimal()) for some in (found, attributed)]
        seconds = average([one["seconds_to_checkout"] for one in attributed])
        rows.append((day, len(found), len(attributed), ratio(len(attributed), len(found)), *amounts, seconds))
    return newest_first(rows)


MODELS = ("first", "last", "linear", "position_based", "time_decay")


def attribution_comparison(facts: Facts, start_time: datetime, end_time: datetime, half_life_seconds: int) -> Answer:
    window = timedelta(seconds=facts.settings.attribution_window_seconds)
    checkouts = [event for event in facts.events if event["stream"] == "checkouts"]
    clicks = [event for event in facts.events if event["stream"] == "clicks"]
    urls: dict[str | None, dict[str, Decimal]] = {}
    for checkout in within(checkouts, start_time, end_time):
        reached = [
            click
            for click in clicks
            if (click["user_id"], click["product_id"]) == (checkout["user_id"], checkout["product_id"])
            and checkout["event_at"] - window <= click["event_at"] <= checkout["event_at"]
        ]
        reached.sort(key=lambda click: (click["event_at"], click["event_id"]))
        for model in MODELS if reached else ():
            weights = weigh(model, reached, half_life_seconds)
            before = before_amount = Decimal()
            for number, click in enumerate(reached, 1):
                until = sum(weights[:number], Fraction()) / sum(weights, Fraction())
                share = rounded(Decimal(until.numerator) / until.denominator, 5)
                amount = rounded((checkout["total_amount"] or Decimal()) * share, 4)
                totals = urls.setdefault(click["url"], dict.fromkeys(columns(), Decimal()))
                totals[f"{model}_checkouts"] += share - before
                totals[f"{model}_amount"] += amount - before_amount
                totals["clicks"] += model == "linear"
                before, before_amount = share, amount
    rows: Answer = [(url, *totals.values()) for url, totals in urls.items()]
    linear = columns().index("linear_amount") + 1, columns().index("linear_checkouts") + 1
    return sorted(rows, key=lambda row: (-row[linear[0]], -row[linear[1]], row[0] is None, row[0]))


def columns() -> list[str]:
    return ["clicks", *(f"{model}_checkouts" for model in MODELS), *(f"{model}_amount" for model in MODELS)]


def weigh(model: str, clicks: Mart, half_life_seconds: int) -> list[Fraction]:
    number = len(clicks)
    match model:
        case "first":
            return [Fraction(place == 0) for place in range(number)]
        case "last":
            return [Fraction(place == number - 1) for place in range(number)]
        case "linear":
            return [Fraction(1, number)] * number
        case "position_based":
            if number <= 2:
                return [Fraction(1, number)] * number
            return [Fraction(2, 5), *[Fraction(1, 5 * (number - 2))] * (number - 2), Fraction(2, 5)]
        case _:
            ages = [seconds_between(click["event_at"], clicks[-1]["event_at"]) for click in clicks]
            return [Fraction(Decimal("0.5") ** (age / half_life_seconds)) for age in ages]


# --- can it be trusted?


def data_quality(facts: Facts, start_date: date, end_date: date) -> Answer:
    landed = [row for row in facts.tables["landing_reconciliation"] if start_date <= row["landed_date"] <= end_date]
    rows = []
    for stream, found in sorted(grouped(landed, lambda row: row["stream"]).items()):
        names = "landed", "accepted", "duplicates", "conflicting", "rejected", "recovered", "mismatched_keys"
        counts = [sum(row[name] for row in found) for name in names]
        of_landed = dict(zip(names, counts, strict=True))
        balanced = counts[0] == sum(of_landed[name] for name in ("accepted", "duplicates", "rejected"))
        late = [row for row in arrival_lateness(facts, start_date, end_date) if row[1] == stream]
        worst = [max((row[place] for row in late), default=None) for place in (4, 5)]
        ids = [
            event["event_id"]
            for event in facts.events
            if event["stream"] == stream and start_date <= event["event_date"] <= end_date
        ]
        staged = [
            message
            for message in facts.tables["int_staged_messages"]
            if message["stream"] == stream and message["landed_at"].date() >= start_date
        ]
        accepted = [one["event_at"] for one in staged if one["reject_reason"] is None and one["event_at"] is not None]
        fresh = max(accepted, default=None), max(message["landed_at"] for message in staged)
        drifting = len(field_drift(facts, stream))
        reused = len(ids) - len(set(ids)) if ids else None
        share, zone = ratio(of_landed["rejected"], counts[0]), facts.settings.reporting_time_zone
        measured_by_live = [None] * 5
        rows.append((stream, *counts, balanced, share, *worst, reused, drifting, *fresh, *measured_by_live, zone))
    return rows


def field_drift(facts: Facts, stream: str) -> Answer:
    """A body tells all its unlisted fields; a rejection the first field that does not fit."""
    found = [
        one
        for message in facts.tables["int_staged_messages"]
        if stream.lower() in ("all", message["stream"])
        for one in differences(
            message["stream"],
            message["landed_at"],
            json.loads(message["unlisted_fields"] or "[]"),
            message["reject_reason"],
            message["reject_detail"],
            CONTRACTS[message["stream"]],
        )
    ]
    rows = [tuple(row.values()) for row in drift.field_drift(found)]
    rows.sort(key=lambda row: (-row[4], row[0], row[1], row[2], row[3] or ""))
    return sorted(rows, key=lambda row: row[6], reverse=True)


def open_letters(facts: Facts) -> Mart:
    return [letter for letter in facts.tables["dead_letters"] if letter["recovered_at"] is None]


def dead_letters_by_reason(facts: Facts, start_time: datetime, end_time: datetime) -> Answer:
    letters = within(open_letters(facts), start_time, end_time, "landed_at")
    rows = []
    for key, found in grouped(letters, lambda letter: (letter["stream"], letter["reason"])).items():
        rows.append((*key, len(found), *first_and_last(found, "landed_at")))
    return sorted(rows, key=lambda row: (-row[2], row[0], row[1]))


def dead_letters(facts: Facts, start_time: datetime, end_time: datetime, stream: str, reason: str) -> Answer:
    names = ("landed_at", "stream", "reason", "message_id", "published_at")
    rows = [
        tuple(letter[name] for name in names)
        for letter in within(open_letters(facts), start_time, end_time, "landed_at")
        if stream.lower() in ("all", letter["stream"]) and reason.lower() in ("all", letter["reason"].lower())
    ]
    return newest_first(sorted(rows, key=lambda row: (row[1], row[3])))


# --- what changed


FIELDS = {
    "user": ("user_name", "first_name", "last_name", "country_code", "favorite_color"),
    "product": ("name", "category_code", "category", "model", "brand", "price"),
    "post": ("user_id", "post_text"),
}


def changes(facts: Facts, start_time: datetime, end_time: datetime, entity: str, id: str, field: str) -> Answer:
    """A tombstone has no values: those before and after it are compared with each other."""
    found = []
    for kind in FIELDS if entity == "all" else (entity,):
        history = grouped(facts.tables[f"dim_{kind}s_history"], itemgetter(f"{kind}_id"))
        for key, versions in history.items():
            versions.sort(key=itemgetter("version_number"))
            told = [version for version in versions if not version["is_tombstone"]]
            for name in FIELDS[kind]:
                found += [(kind, key, name, *pair) for pair in pairwise((v, shown(v[name])) for v in told)]
            marks = ((v, "true" if v["is_deleted"] else "false") for v in versions)
            found += [(kind, key, "is_deleted", *pair) for pair in pairwise(marks)]
    rows = []
    for kind, key, name, (_, old), (version, new) in found:
        is_chosen = id.lower() == "all" or id == key
        if new != old and is_chosen and field.lower() in ("all", name):
            rows.append((version["updated_at"], kind, key, name, old, new, version["version_number"]))
    rows = [row for row in rows if start_time <= row[0] < end_time]
    return [row[:6] for row in newest_first(sorted(rows, key=lambda row: (row[1], row[2], -row[6], row[3])))]


def shown(value: Any) -> str | None:
    """A price as one writes it, 59.9 for 59.9000."""
    if isinstance(value, Decimal):
        text = format(value, "f")
        return text.rstrip("0").rstrip(".") if "." in text else text
    return None if value is None else str(value)


# --- what else events say


def event_properties(
    facts: Facts, start_time: datetime, end_time: datetime, property: str, event_type: str, stream: str
) -> Answer:
    found: dict[str, dict[str | None, Mart]] = {}
    for event in within(facts.events, start_time, end_time):
        if event_type.lower() not in ("all", event["event_type"]) or stream.lower() not in ("all", event["stream"]):
            continue
        for name, value in json.loads(event["properties"] or "{}", parse_int=str, parse_float=str).items():
            if property.lower() in ("all", name.lower()):
                text = {bool: str(value).lower(), dict: "{...}", list: "[...]"}.get(type(value), value)
                found.setdefault(name, {}).setdefault(text, []).append(event)
    rows = []
    for name, values in found.items():
        total = sum(map(len, values.values()))
        rows += [(name, value, len(rs), users(rs), ratio(len(rs), total)) for value, rs in values.items()]
    return sorted(rows, key=lambda row: (-row[2], row[0], row[1] is None, row[1] or ""))


COLUMNS = ("brand", "browser", "category_code", "city", "country", "os", "page_title", "traffic_source")
"""Columns of fct_events that count as properties."""


def top_values(
    facts: Facts,
    start_time: datetime,
    end_time: datetime,
    property: str,
    event_type: str,
    stream: str,
    values_each: int,
) -> Answer:
    found: dict[str, dict[str, Mart]] = {}
    for event in within(facts.events, start_time, end_time):
        if event_type.lower() not in ("all", event["event_type"]) or stream.lower() not in ("all", event["stream"]):
            continue
        properties = json.loads(event["properties"] or "{}", parse_int=str, parse_float=str)
        for name, value in [*properties.items(), *((column, event[column]) for column in COLUMNS)]:
            if value is not None and property.lower() in ("all", name.lower()):
                text = {bool: str(value).lower(), dict: "{...}", list: "[...]"}.get(type(value), value)
                found.setdefault(name, {}).setdefault(text, []).append(event)
    totals = {name: sum(map(len, values.values())) for name, values in found.items()}
    return [
        (name, value, len(events), users(events), ratio(len(events), totals[name]), len(found[name]))
        for name in sorted(found, key=lambda name: (-totals[name], name))
        for value, events in sorted(found[name].items(), key=lambda one: (-len(one[1]), one[0]))[:values_each]
    ]


def events_over_time(
    facts: Facts,
    start_time: datetime,
    end_time: datetime,
    brand: str,
    category: str,
    product_id: str,
    event_type: str,
    per: str,
) -> Answer:
    chosen = chosen_events(facts, start_time, end_time, brand, category, product_id)
    chosen = [event for event in chosen if event_type.lower() in ("all", event["event_type"])]
    groups = grouped(
        chosen,
        lambda event: (
            facts.days.date(event["event_at"]),
            facts.days.hour(event["event_at"]) if per == "hour" else None,
            event["event_type"],
        ),
    )
    rows = [(*key, len(found), users(found)) for key, found in sorted(groups.items(), key=lambda one: one[0][2])]
    return sorted(rows, key=lambda row: row[:2] if per == "hour" else row[:1], reverse=True)


def checkouts_by_product(facts: Facts, start_time: datetime, end_time: datetime, product_id: str) -> Answer:
    checkouts = within(facts.tables["fct_checkout_attribution"], start_time, end_time, "checkout_at")
    products = facts.current("dim_products_history", "product_id")
    rows = []
    for product, found in grouped(checkouts, lambda one: one["product_id"]).items():
        if product_id.lower() not in ("all", product):
            continue
        attributed = [one for one in found if one["is_attributed"]]
        name = products[product]["name"] if product in products else None
        amount = sum((one["total_amount"] or Decimal() for one in found), Decimal())
        seconds = average([one["seconds_to_checkout"] for one in attributed])
        shares = len(found), len(attributed), ratio(len(attributed), len(found))
        rows.append((product, name, *shares, amount, seconds))
    return sorted(rows, key=lambda row: (-row[2], row[0]))


# --- helpers


def newest_first(rows: Answer) -> Answer:
    """By the first column; rows of one time stay in their order."""
    return sorted(rows, key=lambda row: row[0], reverse=True)


def within(rows: Mart, start_time: datetime, end_time: datetime, time: str = "event_at") -> Mart:
    return [row for row in rows if start_time <= row[time] < end_time]


def of_brand(events: Mart, brand: str) -> Mart:
    return [event for event in events if brand.lower() in ("all", (event["brand"] or "").lower())]


def of_category(events: Mart, category: str) -> Mart:
    return [event for event in events if category.lower() in ("all", (event["category_code"] or "").lower())]


def of_product(events: Mart, product_id: str) -> Mart:
    return [event for event in events if product_id.lower() == "all" or event["product_id"] == product_id]


def with_product(events: Mart) -> Mart:
    return [event for event in events if event["product_id"] is not None]


def chosen_events(
    facts: Facts, start_time: datetime, end_time: datetime, brand: str, category: str, product_id: str
) -> Mart:
    events = within(facts.events, start_time, end_time)
    return of_product(of_brand(of_category(events, category), brand), product_id)


def users(rows: Mart) -> int:
    return distinct(row["user_id"] for row in rows)


def count_of(events: Mart, event_type: str) -> int:
    return sum(event["event_type"] == event_type for event in events)


def shop(events: Mart) -> tuple[int, int, int]:
    """Views, carts, purchases."""
    return count_of(events, "view"), count_of(events, "cart"), count_of(events, "purchase")


def revenue(events: Mart) -> Decimal:
    return sum((event["price"] or Decimal() for event in events if event["event_type"] == "purchase"), Decimal())


def average(values: Sequence[Decimal]) -> Decimal | None:
    return rounded(sum(values, Decimal()) / len(values), 4) if values else None


def first_and_last(rows: Iterable[Row], time: str = "event_at") -> tuple[datetime, datetime]:
    times = [row[time] for row in rows]
    return min(times), max(times)


DEFINITIONS: dict[str, Callable[..., Answer]] = {
    function.__name__: function
    for function in (
        arrival_lateness,
        attributed_checkouts,
        attribution_comparison,
        brands,
        categories,
        category_performance,
        changes,
        checkouts_by_product,
        conversion_funnel,
        creator_leaderboard,
        daily_kpis,
        data_quality,
        dead_letters,
        dead_letters_by_reason,
        entry_pages,
        hourly_event_counts,
        event_counts,
        event_properties,
        events_over_time,
        field_drift,
        first_click_by_page,
        first_click_by_url,
        hourly_by_product,
        hourly_events,
        key_figures,
        mau_by_country_and_month,
        mau_by_region_and_month,
        post_leaderboard,
        product_events,
        recent_events,
        session_paths,
        sessions_overview,
        top_values,
        top_pages,
        top_products,
        weekly_retention,
    )
}
