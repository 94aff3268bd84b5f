"""The simulated shop is plausible: journeys, campaigns, sign-ins, returns, busy hours and trends."""

import itertools
import re
from collections import Counter, defaultdict
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from common.settings import Settings
from ingest.simulator import simulate
from ingest.simulator.draws import Span
from ingest.simulator.events import draw_events
from ingest.simulator.returns import RETURN_DAYS, draw_returns
from ingest.simulator.shop import Shop
from tests.ingest.simulator.collector import CLEAN, DAY, EVENT_STREAMS, FIRST, START, Collector, at

DAYS, EVENTS = 14, 4_000
HOUR = DAY // 24
MINUTE = HOUR // 60
OPENING, CLOSING = ("product_search", "new_in", "weekly_picks"), ("seen_products", "basket_reminder", "coupons")
Bodies = list[dict[str, Any]]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Collector:
    """Two weeks without faults."""
    collector = Collector()
    settings = Settings(spool_path=tmp_path_factory.mktemp("shop"))
    simulate(settings, collector, days=DAYS, seed=7, events_per_day=EVENTS, start=START, faults=CLEAN)
    return collector


def param(body: dict[str, Any], name: str) -> Any:
    params = body["event_params"]
    if isinstance(params, dict):
        return params.get(name)
    return next((one["value"].get("string_value") for one in params if one["key"] == name), None)


@pytest.fixture(scope="module")
def visits(shop: Collector) -> list[Bodies]:
    """Return the page views of each visit in order, from the bodies that have a session."""
    sessions = defaultdict(list)
    for body in shop.bodies("page_views"):
        if "session_id" in body:
            sessions[body["session_id"]].append(body)
    return [sorted(views, key=lambda body: body["event_timestamp_ms"]) for views in sessions.values()]


def query(address: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}


def share(flags: list[bool]) -> float:
    return sum(flags) / len(flags)


# -- addresses and campaigns ------------------------------------------------------------------------------------------


def test_first_and_last_clicks_are_of_different_campaigns(shop: Collector) -> None:
    clicks = defaultdict(list)
    for body in shop.bodies("clicks"):
        pair = (str(body["user_id"]), str(body["product_id"]))
        clicks[pair].append((at(body["datetime_occured"]), body["url"]))
    firsts: Counter[str | None] = Counter()
    lasts: Counter[str | None] = Counter()
    counts, distinct = [], []
    for body in shop.bodies("checkouts"):
        checked_out_at = at(body["datetime_occured"])
        led = sorted(
            click
            for click in clicks[str(body["user_id"]), str(body["product_id"])]
            if checked_out_at - HOUR <= click[0] <= checked_out_at
        )
        if led:
            firsts[query(led[0][1]).get("utm_campaign")] += 1
            lasts[query(led[-1][1]).get("utm_campaign")] += 1
            counts.append(len(led))
            distinct.append(len({url for _, url in led}))
    attributed = len(counts) / len(shop.bodies("checkouts"))
    assert 0.5 < attributed < 0.85
    several = [count > 1 for count in counts]
    assert 0.2 < share(several) < 0.6
    assert max(counts) >= 4
    assert share([urls > 1 for urls, many in zip(distinct, several, strict=True) if many]) > 0.8
    assert {*OPENING, *CLOSING, None} == set(firsts) | set(lasts)
    for campaign in OPENING:
        assert firsts[campaign] > 1.3 * lasts[campaign], campaign
    for campaign in CLOSING:
        assert lasts[campaign] > 1.3 * firsts[campaign], campaign
    assert lasts["seen_products"] > 5 * firsts["seen_products"]


def test_a_product_is_reached_at_many_addresses(shop: Collector) -> None:
    addresses = defaultdict(set)
    clicks: Counter[str] = Counter()
    for body in shop.bodies("clicks"):
        product = str(body["product_id"])
        assert urlsplit(body["url"]).path == f"/products/{product}" or urlsplit(body["url"]).path.startswith("/cat")
        addresses[product].add(body["url"])
        clicks[product] += 1
    [(popular, _)] = clicks.most_common(1)
    assert len(addresses[popular]) > 8
    queries = [query(url) for url in addresses[popular]]
    assert {} in queries
    assert {"list", "search", "recommended"} <= {one.get("from") for one in queries}
    assert len({one.get("utm_campaign") for one in queries}) > 4


def test_page_views_carry_their_address_and_a_source_that_fits(shop: Collector) -> None:
    sources = defaultdict(set)
    mediums = defaultdict(set)
    for body in shop.bodies("page_views"):
        location = param(body, "page_location")
        assert location.startswith("https://shop.example/")
        campaign = query(location).get("utm_campaign")
        if campaign is None:
            continue
        sources[campaign].add(param(body, "traffic_source"))
        if "event_timestamp" in body:  # a row of GA4's export has the parts of the campaign
            assert param(body, "campaign") == campaign
            assert param(body, "source") == query(location)["utm_source"]
            mediums[campaign].add(param(body, "medium"))
    expected = {
        "product_search": "paid",
        "new_in": "social",
        "weekly_picks": "email",
        "basket_reminder": "email",
        "coupons": "affiliate",
        "seen_products": "retargeting",
    }
    assert {name: found - {None} for name, found in sources.items()} == {
        name: {source} for name, source in expected.items()
    }
    assert mediums["product_search"] == {"cpc"}


def test_campaign_parameters_are_of_the_first_page_only_and_the_source_is_of_the_visit(visits: list[Bodies]) -> None:
    with_campaign = 0
    for views in visits:
        assert len({param(body, "traffic_source") for body in views}) == 1
        campaigns = ["utm_campaign" in param(body, "page_location") for body in views]
        assert not any(campaigns[1:])
        with_campaign += campaigns[0]
    assert 0.2 < with_campaign / len(visits) < 0.8


# -- paths ------------------------------------------------------------------------------------------------------------


def kinds(views: Bodies) -> list[str]:
    paths = [urlsplit(param(body, "page_location")).path for body in views]
    return [path.split("/")[-1] if path.startswith("/checkout/") else path.split("/")[1] for path in paths]


def test_pages_of_a_visit_follow_each_other_plausibly(visits: list[Bodies]) -> None:
    following: dict[str, Counter[str]] = defaultdict(Counter)
    entries: Counter[str] = Counter()
    for views in visits:
        path = [*kinds(views), "exit"]
        entries[path[0]] += 1
        for page, then in itertools.pairwise(path):
            following[page][then] += 1
    assert {"", "products", "categories", "sale", "community", "cart"} == set(entries)
    assert entries["products"] > entries[""] > entries["cart"]

    def goes(page: str, then: str) -> float:
        return following[page][then] / following[page].total()

    assert goes("categories", "products") > 0.5
    assert goes("products", "products") > 0.2
    assert goes("products", "categories") > 0.1
    assert goes("products", "cart") > 0.1
    assert goes("", "categories") + goes("", "search") > 0.3
    assert goes("checkout", "confirmation") > 0.7
    assert following["products"]["checkout"] == following[""]["confirmation"] == 0
    before_checkout = {page for page in following if following[page]["checkout"]}
    assert before_checkout == {"cart", "account"}
    again = [
        earlier["page_title"] == later["page_title"]
        for views in visits
        for earlier, later in itertools.pairwise(views)
        if "Post: " not in later["page_title"]
    ]
    assert share(again) < 0.02


@pytest.mark.parametrize("gap_seconds", [60, 1800])
def test_a_third_to_a_half_of_the_sessions_are_bounces(visits: list[Bodies], gap_seconds: int) -> None:
    lengths: Counter[int] = Counter()
    for views in visits:
        times = [body["event_timestamp_ms"] for body in views]
        gaps = [later - earlier > 1_000 * gap_seconds for earlier, later in itertools.pairwise(times)]
        breaks = [0, *(number + 1 for number, is_break in enumerate(gaps) if is_break), len(times)]
        lengths.update(end - begin for begin, end in itertools.pairwise(breaks))
    sessions = lengths.total()
    assert 0.28 < lengths[1] / sessions < 0.5
    assert 2.5 < sum(pages * count for pages, count in lengths.items()) / sessions < 5
    assert max(lengths) > 12


def test_time_on_page_depends_on_the_page(visits: list[Bodies]) -> None:
    seconds = defaultdict(list)
    for views in visits:
        for kind, (earlier, later) in zip(kinds(views), itertools.pairwise(views), strict=False):
            seconds[kind].append((later["event_timestamp_ms"] - earlier["event_timestamp_ms"]) / 1_000)
    median = {kind: float(np.median(found)) for kind, found in seconds.items()}
    assert median[""] < median["categories"] < median["products"] < 40
    assert median["cart"] < median["checkout"] < 60
    every = [one for found in seconds.values() for one in found]
    assert 15 < np.median(every) < 30


def test_titles_are_those_of_the_products_and_of_their_categories(shop: Collector, visits: list[Bodies]) -> None:
    names = defaultdict(set)
    nouns = {}
    for body in shop.bodies("products"):
        names[body["product_id"]].add(body["name"])
        nouns[body["name"]] = body["category"]
    leads = []
    for views in visits:
        for body in views:
            path = urlsplit(param(body, "page_location")).path
            if path.startswith("/products/"):
                assert body["page_title"] in names[path.removeprefix("/products/")]
        for earlier, later in itertools.pairwise(views):
            list_page = re.match(r"(?:All|Search:) ([a-z]+?)(?:e?s)?$", earlier["page_title"])
            if list_page and later["page_title"] in nouns:
                leads.append(nouns[later["page_title"]].startswith(list_page[1].removesuffix("e")))
    assert len(leads) > 100
    assert all(leads)


def test_people_come_back_to_the_basket(shop: Collector) -> None:
    """A person puts a product into the cart and buys it in different sessions within an hour."""
    carts = {}
    for body in shop.bodies("ecom_events"):
        if body["event_type"] == "cart" and body["user_id"]:
            carts[body["user_id"], body["product_id"], body["event_time"][:10]] = body
    came_back = [
        cart["user_session"] != body["user_session"]
        for body in shop.bodies("ecom_events")
        if body["event_type"] == "purchase"
        and float(body["price"]) > 0
        and (cart := carts.get((body["user_id"], body["product_id"], body["event_time"][:10])))
        and 0 < at(body["event_time"]) - at(cart["event_time"]) < HOUR
    ]
    assert len(came_back) > 100
    assert 0.05 < share(came_back) < 0.6


# -- identities -------------------------------------------------------------------------------------------------------


def test_people_sign_in_during_a_visit_and_stay_signed_in(visits: list[Bodies]) -> None:
    anonymous, signed_in, during = 0, 0, 0
    for views in visits:
        has_user = [body["user_id"] is not None for body in views]
        assert has_user == sorted(has_user)
        assert len({body["user_id"] for body in views} - {None}) <= 1
        for body in views:
            for name in ("account_number", "subscriber_number", "subscriber_lifetime_id", "single_id"):
                assert (body[name] is None) == (body["user_id"] is None), "nothing else identifies an anonymous person"
        anonymous += not has_user[-1]
        signed_in += has_user[0]
        during += has_user[-1] and not has_user[0]
    assert 0.2 < anonymous / len(visits) < 0.6
    assert 0.3 < signed_in / len(visits) < 0.7
    assert 0.04 < during / len(visits) < 0.3


def test_a_device_keeps_its_pseudo_id_and_guests_come_back(visits: list[Bodies]) -> None:
    users = defaultdict(set)
    devices = defaultdict(set)
    days = defaultdict(set)
    for views in visits:
        [pseudo_id] = {body["user_pseudo_id"] for body in views}
        days[pseudo_id].add(views[0]["event_date"])
        for body in views:
            users[pseudo_id].add(body["user_id"])
            devices[body["user_id"]].add(pseudo_id)
    assert max(len(found - {None}) for found in users.values()) == 1
    assert max(len(found) for user, found in devices.items() if user is not None) == 2
    linked = [device for device, found in users.items() if len(found) == 2]
    assert len(linked) > 0.1 * len(users), "seen without a user and with one"
    guests = [len(days[device]) for device, found in users.items() if found == {None}]
    assert 0.1 < share([count > 1 for count in guests]) < 0.9


def test_store_events_have_no_user_until_the_visitor_signs_in(shop: Collector) -> None:
    sessions = defaultdict(list)
    for body in sorted(shop.bodies("ecom_events"), key=lambda body: body["event_time"]):
        sessions[body["user_session"]].append(body["user_id"])
        if body["event_type"] == "purchase":
            assert body["user_id"], "only accounts buy"
    during = 0
    for users in sessions.values():
        has_user = [user is not None for user in users]
        assert has_user == sorted(has_user)
        during += has_user[-1] and not has_user[0]
    assert during > 0.02 * len(sessions)
    known = share([body["user_id"] is not None for body in shop.bodies("ecom_events")])
    assert 0.4 < known < 0.8
    for message in shop.messages["ecom_events"]:
        assert (message.key is None) == (b'"user_id":null' in (message.payload or b""))


# -- returns ----------------------------------------------------------------------------------------------------------


def test_products_are_returned_at_the_price_that_was_paid(shop: Collector) -> None:
    sold: dict[tuple[str, str, float], list[int]] = defaultdict(list)
    sales, returns = [], []
    sessions: Counter[str] = Counter()
    for body in shop.bodies("ecom_events"):
        sessions[body["user_session"]] += 1
        price = float(body["price"])
        assert price >= 0 or body["event_type"] == "purchase"
        if body["event_type"] == "purchase" and price > 0:
            sold[body["user_id"], body["product_id"], price].append(at(body["event_time"]))
            sales.append(price)
        elif body["event_type"] == "purchase" and price < 0:
            returns.append(body)
    assert 0.02 < len(returns) / len(sales) < 0.15
    days = set()
    for body in returns:
        returned_at = at(body["event_time"])
        bought = sold[body["user_id"], body["product_id"], -float(body["price"])]
        assert any(DAY < returned_at - moment < (RETURN_DAYS + 1) * DAY for moment in bought)
        assert sessions[body["user_session"]] == 1
        days.add(returned_at // DAY)
    assert len(days) > DAYS // 2
    revenue = dict.fromkeys(range(DAYS), 0.0)
    for body in shop.bodies("ecom_events"):
        if body["event_type"] == "purchase":
            revenue[(at(body["event_time"]) - FIRST) // DAY] += float(body["price"])
    assert all(amount > 0 for amount in revenue.values())
    assert 0.8 * sum(sales) < sum(revenue.values()) < sum(sales)


def test_deleted_users_return_nothing() -> None:
    shop = Shop(seed=7)
    sales = []
    for day in range(RETURN_DAYS):
        span = Span(day, FIRST + day * DAY, EVENTS)
        shop.advance(span)
        sales.append(draw_events(shop, span)[1])
    returns = draw_returns(shop, span, sales)
    rows = np.arange(len(returns.sent_at))
    users = [body["user_id"] for _, body, _ in returns.build(rows) if body]
    assert len(set(users)) > 1
    is_there = [shop.users.records[number]["user_id"] != users[0] for number in shop.users.present.tolist()]
    shop.users.present = shop.users.present[np.array(is_there)]
    remaining = draw_returns(shop, span, sales)
    assert len(remaining.sent_at) == len(users) - users.count(users[0])


# -- rhythm and trends ------------------------------------------------------------------------------------------------


def test_weekends_are_quieter_and_later_in_the_morning(shop: Collector) -> None:
    by_day: Counter[int] = Counter()
    hours = {True: Counter[int](), False: Counter[int]()}
    for name in EVENT_STREAMS:
        for message in shop.messages[name]:
            moment = (message.published_at or 0) - FIRST
            by_day[moment // DAY] += 1
            hours[(moment // DAY + 3) % 7 >= 5][moment % DAY // HOUR] += 1
    is_weekend = {day: (day + 3) % 7 >= 5 for day in range(DAYS)}  # the shop begins on a Thursday
    weekend = [by_day[day] for day in range(1, DAYS - 1) if is_weekend[day]]
    weekdays = [by_day[day] for day in range(1, DAYS - 1) if not is_weekend[day]]
    assert max(weekend) < 0.95 * min(weekdays)
    assert 0.97 < sum(by_day.values()) / (DAYS * EVENTS) < 1.03

    def early(counts: Counter[int]) -> float:
        return sum(counts[hour] for hour in range(6, 9)) / counts.total()

    assert early(hours[False]) > 1.4 * early(hours[True])


def test_a_few_products_trend() -> None:
    shop = Shop(seed=7)
    shares = defaultdict(list)
    for day in range(30):
        shop.advance(Span(day, FIRST + day * DAY, 2_000))
        weights = shop.products.weights / shop.products.weights.sum()
        for number, weight in zip(shop.products.present.tolist(), weights.tolist(), strict=True):
            shares[number].append(weight)
    trending = [max(found) > 5 * float(np.median(found)) for found in shares.values() if len(found) == 30]
    assert 0.02 < share(trending) < 0.2
