"""A day of visits: people opening pages, and what they do on them in every event stream.

Each visit is one person in one browser session. Everything else hangs on its page views: a product
page may be a store view and a click, a store view may go on to cart and purchase, a click to a
checkout, a post's page to a like. So ids join across the streams without any bookkeeping.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ingest.simulator.shop import (
    CATEGORY_IDS,
    HOUR,
    MINUTE,
    SECOND,
    Draft,
    Drawn,
    Entities,
    Ints,
    Purpose,
    Record,
    Shop,
    Vocabulary,
    generator,
    hex_digits,
    time_texts,
    uuid_text,
)
from ingest.streams import STREAMS

SHARES = {"ecom_events": 0.22, "web_events": 0.05, "clicks": 0.10, "checkouts": 0.04, "post_events": 0.09}
"""Share of a day's events by stream; the rest are page views."""
PAGES_PER_VISIT = 5
BY_HOUR = np.array([3, 2, 1, 1, 1, 2, 4, 6, 8, 9, 10, 10, 11, 10, 10, 10, 11, 12, 14, 16, 16, 13, 9, 5], np.float64)
"""How busy each hour of the day is."""

HOME, CATEGORY, PRODUCT, POST, CART = range(5)
PAGE_KINDS = (0.08, 0.10, 0.60, 0.18, 0.04)
CONTINUOUS_QUERY, OLDER, EXPORT_ROW = range(3)
PAGE_VIEW_FORMS = (0.90, 0.05, 0.05)
"""Of visits: one browser always sends the same form of body."""
TRAFFIC_SOURCES = ("organic", "direct", "email", "paid", "social", "referral")
PAYMENT_METHODS = ("VISA", "MASTERCARD", "PAYPAL", "AMEX", "TRANSFER")

VIEW, ADD_TO_CART, PURCHASE, REMOVE = range(4)
STORE_EVENT_TYPES = ("view", "cart", "purchase", "remove_from_cart")
WEB_EVENT_TYPES = ("view", "cart", "sale")


@dataclass(frozen=True, slots=True)
class Pages:
    """The page views of a day and their visits, as columns, and the shop as it was that day.

    `visit` is a page view's visit; `user`, `device`, `begins_at`, `form`, `source` and `is_anonymous` are
    columns of visits, `session` holds 32 hex digits a visit.
    """

    visit: Ints
    at: Ints
    kind: Ints
    product: Ints
    post: Ints

    user: list[int]
    device: list[int]
    begins_at: list[int]
    form: list[int]
    source: list[int]
    is_anonymous: list[bool]
    session: str

    users: list[Record]
    products: list[Record]
    posts: list[Record]
    words: Vocabulary

    def rows(self, kind: int) -> Ints:
        return np.flatnonzero(self.kind == kind)


def draw_events(shop: Shop, day: int, day_start: int, events_per_day: int) -> list[Drawn]:
    """The event streams of a day: `events_per_day` events, a few fewer where so short a day has no room for them."""
    rng = generator(shop.seed, day, Purpose.VISITS)
    counts = {name: round(share * events_per_day) for name, share in SHARES.items()}
    pages = _draw_pages(rng, shop, day_start, events_per_day - sum(counts.values()))
    store, web = _store_and_web_events(rng, pages, counts)
    clicks, checkouts = _clicks_and_checkouts(rng, pages, counts)
    return [
        web,
        _page_views(rng, pages),
        clicks,
        checkouts,
        store,
        _post_events(rng, pages, counts["post_events"]),
    ]


def _draw_pages(rng: np.random.Generator, shop: Shop, day_start: int, count: int) -> Pages:
    visits = max(1, round(count / PAGES_PER_VISIT))
    # uneven weights make both one-page visits and long ones
    cumulative = np.cumsum(rng.gamma(1.2, size=visits))
    visit = np.sort(np.searchsorted(cumulative, rng.random(count) * cumulative[-1]))
    begins_at = _by_hour(rng, visits) + day_start
    # seconds to minutes from page to page; at least two seconds, as page views tell the second only
    gaps = _lognormal(rng, count, median=22 * SECOND, sigma=1.1, least=2 * SECOND, most=25 * MINUTE)
    is_first = np.r_[True, visit[1:] != visit[:-1]][:count]
    gaps[is_first] = 0
    elapsed = np.cumsum(gaps)
    elapsed -= np.repeat(elapsed[is_first], np.diff(np.r_[np.flatnonzero(is_first), count]))
    kind = rng.choice(len(PAGE_KINDS), count, p=PAGE_KINDS)
    kind[is_first & (rng.random(count) < 0.3)] = HOME
    # a visitor comes back to the same few products
    wanted = shop.products.choose(rng, 3 * visits).reshape(visits, 3)[visit, rng.integers(3, size=count)]
    product = np.where(rng.random(count) < 0.7, wanted, shop.products.choose(rng, count))
    return Pages(
        visit=visit,
        at=begins_at[visit] + elapsed,
        kind=kind,
        product=product,
        post=shop.posts.choose(rng, count),
        user=shop.users.choose(rng, visits).tolist(),
        device=rng.integers(len(shop.words.devices), size=visits).tolist(),
        begins_at=begins_at.tolist(),
        form=rng.choice(len(PAGE_VIEW_FORMS), visits, p=PAGE_VIEW_FORMS).tolist(),
        source=rng.integers(len(TRAFFIC_SOURCES), size=visits).tolist(),
        is_anonymous=(rng.random(visits) < 0.05).tolist(),
        session=hex_digits(rng, visits),
        users=_known(shop.users),
        products=_known(shop.products),
        posts=_known(shop.posts),
        words=shop.words,
    )


def _known(entities: Entities) -> list[Record]:
    """The records as of this day: an event built days later must not see later versions."""
    return list(entities.records)


def _by_hour(rng: np.random.Generator, count: int) -> Ints:
    hours = rng.choice(24, count, p=BY_HOUR / BY_HOUR.sum())
    return hours * HOUR + rng.integers(0, HOUR, count)


def _lognormal(rng: np.random.Generator, count: int, *, median: int, sigma: float, least: int, most: int) -> Ints:
    return np.clip(rng.lognormal(np.log(median), sigma, count), least, most).astype(np.int64)


def _latency(rng: np.random.Generator, count: int) -> Ints:
    """From an event to its publishing: mostly a fraction of a second, at times many."""
    return _lognormal(rng, count, median=SECOND // 8, sigma=1.2, least=1_000, most=MINUTE)


def _sample(rng: np.random.Generator, rows: Ints, count: int) -> Ints:
    """Up to `count` different ones of these rows."""
    return rng.choice(rows, min(count, len(rows)), replace=False)


def _session(pages: Pages, visit: int) -> str:
    return uuid_text(pages.session, visit)


# -- page views -------------------------------------------------------------------------------------------------------


def _page_views(rng: np.random.Generator, pages: Pages) -> Drawn:
    count = len(pages.at)
    has_engaged = rng.random(count) < 0.6
    engaged = np.where(has_engaged, _lognormal(rng, count, median=15, sigma=0.9, least=1, most=900), -1)
    is_object = rng.random(count) < 0.15
    devices = pages.words.devices

    def build(rows: Ints) -> Iterator[Draft]:
        ats = pages.at[rows]
        for visit, at, text, kind, product, post, seconds, as_object in zip(
            pages.visit[rows].tolist(), ats.tolist(), time_texts(ats), pages.kind[rows].tolist(),
            pages.product[rows].tolist(), pages.post[rows].tolist(), engaged[rows].tolist(), is_object[rows].tolist(),
            strict=True,
        ):  # fmt: skip
            number = pages.user[visit]
            user_id = pages.users[number]["user_id"]
            title = _title(pages, kind, product, post)
            client = 1_000_000_000 + number * 7 + pages.device[visit]
            begins_at = pages.begins_at[visit] // SECOND
            source = TRAFFIC_SOURCES[pages.source[visit]]
            attributes = {"timestamp": f"{text[:19]}Z", "source": "ga4"}
            form = pages.form[visit]
            body: Record
            if form == CONTINUOUS_QUERY:
                params: Any
                if as_object:
                    params = {"page_title": title, "traffic_source": source, "test_event": False}
                    if seconds >= 0:
                        params["engaged_time"] = seconds
                else:
                    params = [
                        {"key": "page_title", "value": {"string_value": title}},
                        {"key": "traffic_source", "value": {"string_value": source}},
                        {"key": "test_event", "value": {"string_value": "false"}},
                    ]
                    if seconds >= 0:
                        params.append({"key": "engaged_time", "value": {"int_value": seconds}})
                body = {
                    "session_id": f"{client}.{begins_at}",
                    "page_title": title,
                    "subscriber_number": str(10_000_000 + number),
                    "subscriber_lifetime_id": f"sub{number:06x}",
                    "account_number": f"ACC{100_000 + number}",
                    "digital_id": f"DIG{number}",
                    "single_id": f"SID{number}",
                    "user_id": None if pages.is_anonymous[visit] else user_id,
                    "user_pseudo_id": f"{client:032x}=.{begins_at}",
                    "event_date": text[:10],
                    "event_timestamp_ms": at // 1_000,
                    "ga_event_dtm": f"{text[:19]}Z",
                    "event_name": "page_view",
                    "event_params": params,
                }
            elif form == OLDER:
                params = {"page_title": title, "traffic_source": source, "test_event": False}
                if seconds >= 0:
                    params["engaged_time"] = seconds
                body = {
                    "event_id": f"pv-{pages.session[32 * visit : 32 * visit + 12]}-{at}",
                    "user_id": user_id,
                    "page_id": title,
                    "timestamp_ms": at // 1_000,
                    "event_params": params,
                }
            else:
                params = [
                    {"key": "page_title", "value": {"string_value": title}},
                    {"key": "ga_session_id", "value": {"int_value": str(begins_at)}},
                    {"key": "source", "value": {"string_value": source}},
                ]
                if seconds >= 0:
                    params.append({"key": "engagement_time_msec", "value": {"int_value": str(seconds * 1_000)}})
                body = {
                    "event_date": text[:10].replace("-", ""),
                    "event_timestamp": str(at),
                    "event_name": "page_view",
                    "event_params": params,
                    "page_title": title,
                    "user_id": user_id,
                    "user_pseudo_id": str(client),
                    "platform": "WEB",
                    "device": {"web_info": {"browser": devices[pages.device[visit]].browser}},
                    "items": [],
                }
            yield None, body, attributes

    return Drawn(STREAMS["page_views"], pages.at + _latency(rng, count), build)


def _title(pages: Pages, kind: int, product: int, post: int) -> str:
    title: str
    if kind == PRODUCT:
        title = pages.products[product]["name"]
    elif kind == CATEGORY:
        title = f"All {pages.products[product]['category']}s"
    elif kind == POST:
        title = f"Post: {pages.posts[post]['post_text'][:40]}"
    else:
        title = "Home Page" if kind == HOME else "Cart"
    return title


# -- store events, and the site's own tracker of the same ones --------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StoreEvents:
    """Columns; `page` is the row of the page view on which it happened."""

    page: Ints
    event_type: Ints
    at: Ints


def _store_and_web_events(rng: np.random.Generator, pages: Pages, counts: dict[str, int]) -> tuple[Drawn, Drawn]:
    count = counts["ecom_events"]
    views = _sample(rng, pages.rows(PRODUCT), round(0.80 * count))
    # a visit carts a product once: the hash of all fields is a store event's identity, and tells seconds only
    first_views = views[np.unique(pages.visit[views] * 2**24 + pages.product[views], return_index=True)[1]]
    carts = _sample(rng, first_views, round(0.12 * count))
    ends = _sample(rng, carts, count - len(views) - len(carts))
    purchases, removals = np.split(ends, [round(0.7 * len(ends))])
    to_cart = np.zeros(len(pages.at), np.int64)
    to_cart[carts] = _lognormal(rng, len(carts), median=25 * SECOND, sigma=0.8, least=3 * SECOND, most=10 * MINUTE)
    to_end = _lognormal(rng, len(ends), median=90 * SECOND, sigma=0.9, least=5 * SECOND, most=30 * MINUTE)

    page = np.r_[views, carts, purchases, removals]
    event_type = np.repeat(
        [VIEW, ADD_TO_CART, PURCHASE, REMOVE], [len(views), len(carts), len(purchases), len(removals)]
    )
    at = pages.at[page] + np.r_[np.zeros(len(views), np.int64), to_cart[carts], to_cart[ends] + to_end]
    events = StoreEvents(page, event_type, at)
    return _store_events(rng, pages, events), _web_events(rng, pages, events, counts["web_events"])


def _store_events(rng: np.random.Generator, pages: Pages, events: StoreEvents) -> Drawn:
    # real histories hold a few prices that are zero or negative
    factor = rng.choice([1.0, 0.0, -1.0], len(events.at), p=[0.998, 0.001, 0.001])

    def build(rows: Ints) -> Iterator[Draft]:
        on = events.page[rows]
        for visit, number, kind, text, times in zip(
            pages.visit[on].tolist(), pages.product[on].tolist(), events.event_type[rows].tolist(),
            time_texts(events.at[rows]), factor[rows].tolist(), strict=True,
        ):  # fmt: skip
            product = pages.products[number]
            user_id = pages.users[pages.user[visit]]["user_id"]
            category_code = product["category_code"]
            body = {
                "event_time": f"{text[:10]} {text[11:19]} UTC",
                "event_type": STORE_EVENT_TYPES[kind],
                "product_id": product["product_id"],
                "category_id": CATEGORY_IDS[category_code],
                "category_code": category_code,
                "brand": product["brand"],
                "price": f"{product['price'] * times:.2f}",
                "user_id": user_id,
                "user_session": _session(pages, visit),
            }
            yield user_id.encode(), body, {}

    return Drawn(STREAMS["ecom_events"], events.at + _latency(rng, len(events.at)), build)


def _web_events(rng: np.random.Generator, pages: Pages, events: StoreEvents, count: int) -> Drawn:
    # the site's tracker sees what the store sees, a few milliseconds apart; it knows no remove_from_cart
    chosen = _sample(rng, np.flatnonzero(events.event_type != REMOVE), count)
    page, event_type = events.page[chosen], events.event_type[chosen]
    at = events.at[chosen] + rng.integers(1_000, 400_000, len(chosen))
    ids = hex_digits(rng, len(chosen))
    has_id, has_user = rng.random(len(chosen)) < 0.9, rng.random(len(chosen)) < 0.8
    activity = rng.integers(len(pages.words.activities), size=len(chosen))
    words, places = pages.words, {place.country_code: place for place in pages.words.places}

    def build(rows: Ints) -> Iterator[Draft]:
        on = page[rows]
        for row, visit, number, kind, text, with_id, with_user, nested in zip(
            rows.tolist(), pages.visit[on].tolist(), pages.product[on].tolist(), event_type[rows].tolist(),
            time_texts(at[rows]), has_id[rows].tolist(), has_user[rows].tolist(), activity[rows].tolist(), strict=True,
        ):  # fmt: skip
            user = pages.users[pages.user[visit]]
            product = pages.products[number]
            device = words.devices[pages.device[visit]]
            country_code = user["country_code"]
            cities = places[country_code].cities
            city = cities[pages.user[visit] % len(cities)]
            location = {"objectType": "place", "displayName": city, "country": country_code}
            body: Record = {
                "timestamp": text,
                "publisher_id": 1 + number % 4,
                "event": WEB_EVENT_TYPES[kind],
                "product": product["product_id"],
                "browser": device.browser,
                "environment": "prod",
                "country": country_code,
                "OS": device.system,
                "city": city,
                "price": product["price"],
                "objectType": "web-activity",
                "actor": {
                    "objectType": "person",
                    "id": f"person:shop.example/{user['user_id']}",
                    "displayName": user["user_name"],
                    "languages": [country_code.lower()],
                    "location": location,
                },
                "location": location,
                "generator": {"objectType": "application", "displayName": "shop tag", "userAgent": device.user_agent},
                "object": words.activities[nested],
            }
            if with_id:
                body["event_id"] = uuid_text(ids, row)
            if with_user:
                body["user_id"] = user["user_id"]
            yield None, body, {}

    return Drawn(STREAMS["web_events"], at + _latency(rng, len(at)), build)


# -- clicks and checkouts ---------------------------------------------------------------------------------------------


def _clicks_and_checkouts(rng: np.random.Generator, pages: Pages, counts: dict[str, int]) -> tuple[Drawn, Drawn]:
    product_pages = pages.rows(PRODUCT)
    clicked = _sample(rng, product_pages, counts["clicks"])
    # most checkouts follow a click within minutes, some later than any attribution window, some follow none
    led = _sample(rng, clicked, round(0.85 * counts["checkouts"]))
    alone = _sample(rng, np.setdiff1d(product_pages, clicked), counts["checkouts"] - len(led))
    within = _lognormal(rng, len(led), median=8 * MINUTE, sigma=0.8, least=20 * SECOND, most=HOUR)
    beyond = rng.integers(HOUR + SECOND, 6 * HOUR, len(led))
    lag = np.where(rng.random(len(led)) < 0.82, within, beyond)
    checked_out_at = np.r_[pages.at[led] + lag, pages.at[alone] + rng.integers(MINUTE, 20 * MINUTE, len(alone))]
    clicked_at = pages.at[clicked] + rng.integers(0, SECOND, len(clicked))
    return (
        _actions(rng, pages, "clicks", clicked, clicked_at),
        _actions(rng, pages, "checkouts", np.r_[led, alone], checked_out_at + SECOND),
    )


def _actions(rng: np.random.Generator, pages: Pages, name: str, page: Ints, at: Ints) -> Drawn:
    """Clicks or checkouts: both say who, what and from where."""
    count = len(page)
    ids = hex_digits(rng, count)
    is_number = rng.random(count) < 0.5
    quantity = rng.choice([1, 1, 1, 1, 2, 3], count)
    method = rng.integers(len(PAYMENT_METHODS), size=count)
    words, places = pages.words, {place.country_code: place for place in pages.words.places}

    def build(rows: Ints) -> Iterator[Draft]:
        on = page[rows]
        for row, visit, number, text, as_number, bought, paid_by in zip(
            rows.tolist(), pages.visit[on].tolist(), pages.product[on].tolist(), time_texts(at[rows]),
            is_number[rows].tolist(), quantity[rows].tolist(), method[rows].tolist(), strict=True,
        ):  # fmt: skip
            who = pages.user[visit]
            user = pages.users[who]
            product = pages.products[number]
            body: Record = {
                "click_id" if name == "clicks" else "checkout_id": uuid_text(ids, row),
                "user_id": _id(user["user_id"], as_number),
                "product_id": _id(product["product_id"], as_number),
            }
            if name == "clicks":
                body["product"] = product["name"]
                body["price"] = product["price"]
                body["url"] = f"https://shop.example/products/{product['product_id']}"
            else:
                addresses = places[user["country_code"]].addresses
                body["payment_method"] = PAYMENT_METHODS[paid_by]
                body["total_amount"] = round(product["price"] * bought, 2)
                body["shipping_address"] = addresses[(who + bought - 1) % len(addresses)]
                body["billing_address"] = addresses[who % len(addresses)]
            body["user_agent"] = words.devices[pages.device[visit]].user_agent
            body["ip_address"] = f"10.{who >> 16 & 255}.{who >> 8 & 255}.{who & 255}"
            body["datetime_occured"] = f"{text[:10]} {text[11:23]}"
            yield None, body, {}

    return Drawn(STREAMS[name], at + _latency(rng, count), build)


def _id(text: str, as_number: bool) -> str | int:
    return int(text) if as_number and text.isdecimal() else text


# -- post events ------------------------------------------------------------------------------------------------------


def _post_events(rng: np.random.Generator, pages: Pages, count: int) -> Drawn:
    views = _sample(rng, pages.rows(POST), round(0.8 * count))
    likes = _sample(rng, views, count - len(views))
    page = np.r_[views, likes]
    delay = rng.integers(2 * SECOND, MINUTE, len(likes))
    at = pages.at[page] + np.r_[np.zeros(len(views), np.int64), delay]
    is_like = np.repeat([False, True], [len(views), len(likes)])
    ids = hex_digits(rng, len(page))

    def build(rows: Ints) -> Iterator[Draft]:
        on = page[rows]
        for row, visit, number, text, liked in zip(
            rows.tolist(), pages.visit[on].tolist(), pages.post[on].tolist(), time_texts(at[rows]),
            is_like[rows].tolist(), strict=True,
        ):  # fmt: skip
            user_id = pages.users[pages.user[visit]]["user_id"]
            body = {
                "event_id": uuid_text(ids, row),
                "user_id": user_id,
                "post_id": pages.posts[number]["post_id"],
                "created_at": f"{text}Z",
                "event_type": "like" if liked else "view",
            }
            yield user_id.encode(), body, {}

    return Drawn(STREAMS["post_events"], at + _latency(rng, len(page)), build)
