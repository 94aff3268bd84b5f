"""The event streams of a day, and the returns of what was sold on the days before.

Everything hangs on the page views of the day's journeys: a product page may be a store view and a click, a store view
may go on to cart and purchase, clicks to a checkout, a post's page to a like. So ids join across the streams.

- Store, website and post events carry a user_id once the visitor is signed in. Clicks carry it for every account, since
  the shop's links know a returning customer by a cookie of their own; guests, who have no account, leave no clicks.
- A purchased product may be given back: some days later the returns desk books a store event of type purchase with the
  negative price that was paid, in a session of its own. So the sum of the prices of purchases is net revenue, and a
  return lowers the revenue of the day on which it is booked. A count of purchases includes returns: what was sold has a
  positive price. The website's tracker sees no returns, and checkouts keep their amount.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ingest.simulator.journeys import (
    CART,
    CATEGORY,
    CHANNELS,
    CHECKOUT,
    COMMUNITY,
    CONTINUOUS_QUERY,
    HOME,
    LINKS,
    OLDER,
    ORDER,
    POST,
    PRODUCT,
    SALE,
    SEARCH,
    SIGN_IN,
    Pages,
    draw_pages,
)
from ingest.simulator.shop import (
    CATEGORIES,
    CATEGORY_IDS,
    DAY,
    HOUR,
    MINUTE,
    SECOND,
    Bools,
    Draft,
    Drawn,
    Ints,
    Purpose,
    Record,
    Shop,
    generator,
    hex_digits,
    is_weekend,
    lognormal,
    spread,
    time_texts,
    uuid_text,
)
from ingest.streams import STREAMS

SHARES = {"ecom_events": 0.22, "web_events": 0.05, "clicks": 0.10, "checkouts": 0.04, "post_events": 0.09}
"""Share of a day's events by stream; the rest are page views."""
WEEKDAY, WEEKEND = 1.03, 0.925
"""Events of such a day, relative to the average of a week."""
PAYMENT_METHODS = ("VISA", "MASTERCARD", "PAYPAL", "AMEX", "TRANSFER")

VIEW, ADD_TO_CART, PURCHASE, REMOVE = range(4)
STORE_EVENT_TYPES = ("view", "cart", "purchase", "remove_from_cart")
WEB_EVENT_TYPES = ("view", "cart", "sale")
CARTS, PURCHASES, REMOVALS = 0.12, 0.056, 0.024
"""Shares of store events; the rest are views."""

RETURNED = 0.09
"""Share of store purchases that are given back."""
RETURN_DAYS = 7
"""A return is booked at most so many days after the purchase."""


@dataclass(frozen=True, slots=True)
class Sales:
    """The store purchases of a day that will be given back."""

    account: Ints
    user_ids: list[str]
    products: list[Record]
    """As they were when they were bought."""
    returned_at: Ints
    session: str
    """32 hex digits each: the session of the return."""


def draw_events(shop: Shop, day: int, day_start: int, events_per_day: int) -> tuple[list[Drawn], Sales]:
    """The event streams of a day, a few events fewer where so short a day has no room for them, and its sales."""
    rng = generator(shop.seed, day, Purpose.VISITS)
    events = max(1, round(events_per_day * (WEEKEND if is_weekend(day_start) else WEEKDAY)))
    counts = {name: round(share * events) for name, share in SHARES.items()}
    pages = draw_pages(rng, shop, day_start, events - sum(counts.values()), events_per_day)
    clicks, checkouts, sold = _clicks_and_checkouts(rng, pages, counts)
    purchased = _sample(rng, np.arange(len(sold.product_page)), round(PURCHASES * counts["ecom_events"]))
    purchases = Orders(sold.product_page[purchased], sold.order_page[purchased])
    store, web = _store_and_web_events(rng, pages, purchases, counts)
    streams = [
        web,
        _page_views(rng, pages),
        clicks,
        checkouts,
        store,
        _post_events(rng, shop, pages, counts["post_events"]),
    ]
    return streams, _sales(generator(shop.seed, day, Purpose.SALES), day_start, pages, purchases)


def _latency(rng: np.random.Generator, count: int) -> Ints:
    """From an event to its publishing: mostly a fraction of a second, at times many."""
    return lognormal(rng, count, median=SECOND // 8, sigma=1.2, least=1_000, most=MINUTE)


def _sample(rng: np.random.Generator, rows: Ints, count: int) -> Ints:
    """Up to `count` different ones of these rows."""
    return np.asarray(rng.choice(rows, min(max(count, 0), len(rows)), replace=False), np.int64)


def _sample_first(rng: np.random.Generator, count: int, *tiers: Ints) -> Ints:
    """Up to `count` rows, those of a later tier only when the earlier ones do not suffice."""
    chosen: list[Ints] = []
    for rows in tiers:
        chosen.append(_sample(rng, rows, count - sum(map(len, chosen))))
    return np.concatenate(chosen)


def _wish(pages: Pages, rows: Ints) -> Ints:
    """A number of journey and product: the same for all pages of one product in one journey."""
    return pages.journey[rows] * 2**24 + pages.product[rows]


def _first_of_each(keys: Ints) -> Ints:
    """Positions of the first occurrence of each key."""
    return np.unique(keys, return_index=True)[1]


def _last_of_each(keys: Ints) -> Ints:
    """Positions of the last occurrence of each key."""
    _, from_the_end = np.unique(keys[::-1], return_index=True)
    return np.asarray(np.sort(len(keys) - 1 - from_the_end), np.int64)


# -- page views -------------------------------------------------------------------------------------------------------

SITE = "https://shop.example"
FIXED_PAGES = {
    HOME: ("Home Page", "/"),
    SALE: ("Sale", "/sale"),
    CART: ("Cart", "/cart"),
    SIGN_IN: ("Sign in", "/account/sign-in"),
    CHECKOUT: ("Checkout", "/checkout"),
    ORDER: ("Order confirmed", "/checkout/confirmation"),
    COMMUNITY: ("Community", "/community"),
}
CATEGORY_PAGES = {
    category.code: (
        f"All {category.noun}{'es' if category.noun.endswith('ch') else 's'}",
        f"/categories/{category.code.replace('.', '/')}",
    )
    for category in CATEGORIES
}


def _page(pages: Pages, kind: int, product: int, post: int) -> tuple[str, str]:
    """Title, and path with the page's own parameters."""
    if kind == PRODUCT:
        record = pages.products[product]
        return record["name"], f"/products/{record['product_id']}"
    if kind == CATEGORY:
        return CATEGORY_PAGES[pages.products[product]["category_code"]]
    if kind == SEARCH:
        category = pages.products[product]["category"]
        return f"Search: {category}", f"/search?q={category}"
    if kind == POST:
        record = pages.posts[post]
        return f"Post: {record['post_text'][:40]}", f"/community/{record['post_id']}"
    return FIXED_PAGES[kind]


def _page_views(rng: np.random.Generator, pages: Pages) -> Drawn:
    count = len(pages.at)
    engaged = np.ceil(pages.time_on_page * rng.uniform(0.5, 1.0, count) / SECOND).astype(np.int64)
    engaged[rng.random(count) >= 0.6] = -1
    is_object = rng.random(count) < 0.15
    is_signed_in = pages.is_signed_in(pages.visit, pages.at)
    devices = pages.words.devices

    def build(rows: Ints) -> Iterator[Draft]:
        ats = pages.at[rows]
        for visit, at, text, kind, link, product, post, seconds, as_object, signed_in in zip(
            pages.visit[rows].tolist(), ats.tolist(), time_texts(ats), pages.kind[rows].tolist(),
            pages.link[rows].tolist(), pages.product[rows].tolist(), pages.post[rows].tolist(), engaged[rows].tolist(),
            is_object[rows].tolist(), is_signed_in[rows].tolist(), strict=True,
        ):  # fmt: skip
            title, path = _page(pages, kind, product, post)
            location = f"{SITE}{path}{LINKS[link]}"
            number = pages.user[visit]
            user_id = pages.users[number]["user_id"] if signed_in else None
            client = pages.client[visit]
            first_seen_at = 1_735_689_600 + client * 7_919 % 31_536_000
            begins_at = pages.begins_at[visit] // SECOND
            channel = CHANNELS[pages.channel[visit]]
            source = channel.traffic_source
            attributes = {"timestamp": f"{text[:19]}Z", "source": "ga4"}
            form = pages.form[visit]
            params: Any
            body: Record
            if form == CONTINUOUS_QUERY:
                if as_object:
                    params = {
                        "page_title": title,
                        "page_location": location,
                        "traffic_source": source,
                        "test_event": False,
                    }
                    if seconds >= 0:
                        params["engaged_time"] = seconds
                else:
                    params = [
                        {"key": "page_title", "value": {"string_value": title}},
                        {"key": "page_location", "value": {"string_value": location}},
                        {"key": "traffic_source", "value": {"string_value": source}},
                        {"key": "test_event", "value": {"string_value": "false"}},
                    ]
                    if seconds >= 0:
                        params.append({"key": "engaged_time", "value": {"int_value": seconds}})
                body = {
                    "session_id": f"{client}.{begins_at}",
                    "page_title": title,
                    "subscriber_number": str(10_000_000 + number) if signed_in else None,
                    "subscriber_lifetime_id": f"sub{number:06x}" if signed_in else None,
                    "account_number": f"ACC{100_000 + number}" if signed_in else None,
                    "digital_id": f"DIG{client}",
                    "single_id": f"SID{number}" if signed_in else None,
                    "user_id": user_id,
                    "user_pseudo_id": f"{client:032x}=.{first_seen_at}",
                    "event_date": text[:10],
                    "event_timestamp_ms": at // 1_000,
                    "ga_event_dtm": f"{text[:19]}Z",
                    "event_name": "page_view",
                    "event_params": params,
                }
            elif form == OLDER:
                params = {
                    "page_title": title,
                    "page_location": location,
                    "traffic_source": source,
                    "test_event": False,
                }
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
                    {"key": "page_location", "value": {"string_value": location}},
                    {"key": "ga_session_id", "value": {"int_value": str(begins_at)}},
                    {"key": "source", "value": {"string_value": channel.source}},
                    {"key": "medium", "value": {"string_value": channel.medium}},
                ]
                if channel.campaign is not None:
                    params.append({"key": "campaign", "value": {"string_value": channel.campaign}})
                if seconds >= 0:
                    params.append({"key": "engagement_time_msec", "value": {"int_value": str(seconds * 1_000)}})
                body = {
                    "event_date": text[:10].replace("-", ""),
                    "event_timestamp": str(at),
                    "event_name": "page_view",
                    "event_params": params,
                    "page_title": title,
                    "user_id": user_id,
                    "user_pseudo_id": f"{client}.{first_seen_at}",
                    "platform": "WEB",
                    "device": {"web_info": {"browser": devices[pages.device[visit]].browser}},
                    "items": [],
                }
            yield None, body, attributes

    return Drawn(STREAMS["page_views"], pages.at + _latency(rng, count), build)


# -- clicks and checkouts ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Orders:
    """Products ordered in visits: the page on which each was seen last, and that of the order; rows of page views."""

    product_page: Ints
    order_page: Ints


def _orders(rng: np.random.Generator, pages: Pages) -> Orders:
    """Of what the visitors who order have seen, most of what they have seen several times."""
    order_page = np.full(int(pages.journey.max(initial=0)) + 1, -1)
    order_pages = pages.rows(ORDER)
    order_page[pages.journey[order_pages]] = order_pages
    seen = pages.rows(PRODUCT)
    seen = seen[seen < order_page[pages.journey[seen]]]
    wishes = _wish(pages, seen)
    last = _last_of_each(wishes)
    distinct, times = np.unique(wishes, return_counts=True)
    times_seen = times[np.searchsorted(distinct, wishes[last])]
    bought = seen[last[rng.random(len(last)) < 1 - 0.45**times_seen]]
    return Orders(bought, order_page[pages.journey[bought]])


def _clicks_and_checkouts(
    rng: np.random.Generator, pages: Pages, counts: dict[str, int]
) -> tuple[Drawn, Drawn, Orders]:
    """Clicks, checkouts, and those checkouts that are orders in visits.

    Most checkouts follow clicks within the hour; some later than any attribution window, some follow no click.
    """
    count = counts["checkouts"]
    by_account = pages.is_account[pages.visit]
    of_accounts = np.flatnonzero(by_account & (pages.kind == PRODUCT))
    # on a day of few visits, products in lists have to do too
    in_lists = np.flatnonzero(by_account & np.isin(pages.kind, (CATEGORY, SEARCH)))
    orders = _orders(rng, pages)
    sold = _sample(rng, np.arange(len(orders.product_page)), round(0.72 * count))
    orders = Orders(orders.product_page[sold], orders.order_page[sold])

    is_tracked = rng.random(len(sold)) < 0.95
    wishes = _wish(pages, of_accounts)
    led = of_accounts[np.isin(wishes, _wish(pages, orders.product_page[is_tracked]))]
    # of a product's clicks the first one is counted, those on links from outside, and some on the shop's own links
    is_counted = (pages.link[led] < len(CHANNELS)) | (rng.random(len(led)) < 0.15)
    is_counted[_first_of_each(_wish(pages, led))] = True
    led = led[is_counted]
    is_other = ~np.isin(wishes, _wish(pages, orders.product_page))
    others = of_accounts[is_other]
    clicked = _sample_first(rng, counts["clicks"], led, others, in_lists)

    clicked_others = np.setdiff1d(clicked, led)
    undecided = clicked_others[_last_of_each(_wish(pages, clicked_others))]
    later = _sample(rng, undecided, round(0.14 * count))
    unclicked = others[~np.isin(_wish(pages, others), _wish(pages, clicked))]
    alone = _sample_first(rng, count - len(sold) - len(later), unclicked, in_lists)
    ordered_at = pages.at[orders.order_page] - rng.integers(SECOND // 5, 3 * SECOND // 2, len(sold))
    later_at = pages.at[later] + rng.integers(HOUR + 2 * SECOND, 6 * HOUR, len(later))
    alone_at = pages.at[alone] + rng.integers(MINUTE, 20 * MINUTE, len(alone))
    return (
        _actions(rng, pages, "clicks", pages.visit[clicked], clicked, pages.at[clicked]),
        _actions(
            rng,
            pages,
            "checkouts",
            pages.visit[np.r_[orders.order_page, later, alone]],
            np.r_[orders.product_page, later, alone],
            np.r_[ordered_at, later_at, alone_at],
        ),
        orders,
    )


def _actions(rng: np.random.Generator, pages: Pages, name: str, visit: Ints, page: Ints, at: Ints) -> Drawn:
    """Clicks or checkouts: both carry who, what and from where. `page` is the row of a product page."""
    count = len(page)
    ids = hex_digits(rng, count)
    is_number = rng.random(count) < 0.5
    quantity = rng.choice([1, 1, 1, 1, 2, 3], count)
    method = rng.integers(len(PAYMENT_METHODS), size=count)
    words, places = pages.words, {place.country_code: place for place in pages.words.places}

    def build(rows: Ints) -> Iterator[Draft]:
        on = page[rows]
        for row, of_visit, number, link, text, as_number, bought, paid_by in zip(
            rows.tolist(), visit[rows].tolist(), pages.product[on].tolist(), pages.link[on].tolist(),
            time_texts(at[rows]), is_number[rows].tolist(), quantity[rows].tolist(), method[rows].tolist(),
            strict=True,
        ):  # fmt: skip
            account = pages.user[of_visit]
            user = pages.users[account]
            product = pages.products[number]
            body: Record = {
                "click_id" if name == "clicks" else "checkout_id": uuid_text(ids, row),
                "user_id": _id(user["user_id"], as_number),
                "product_id": _id(product["product_id"], as_number),
            }
            if name == "clicks":
                body["product"] = product["name"]
                body["price"] = product["price"]
                body["url"] = f"{SITE}/products/{product['product_id']}{LINKS[link]}"
            else:
                addresses = places[user["country_code"]].addresses
                body["payment_method"] = PAYMENT_METHODS[paid_by]
                body["total_amount"] = round(product["price"] * bought, 2)
                body["shipping_address"] = addresses[(account + bought - 1) % len(addresses)]
                body["billing_address"] = addresses[account % len(addresses)]
            body["user_agent"] = words.devices[pages.device[of_visit]].user_agent
            body["ip_address"] = f"10.{account >> 16 & 255}.{account >> 8 & 255}.{account & 255}"
            body["datetime_occured"] = f"{text[:10]} {text[11:23]}"
            yield None, body, {}

    return Drawn(STREAMS[name], at + _latency(rng, count), build)


def _id(text: str, as_number: bool) -> str | int:
    return int(text) if as_number and text.isdecimal() else text


# -- store events, and the site's own tracker of the same ones --------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StoreEvents:
    """Columns."""

    visit: Ints
    product: Ints
    event_type: Ints
    at: Ints
    is_signed_in: Bools


def _store_and_web_events(
    rng: np.random.Generator, pages: Pages, purchases: Orders, counts: dict[str, int]
) -> tuple[Drawn, Drawn]:
    count = counts["ecom_events"]
    # a fifth of the guests refuses the store's cookie, and leaves no events
    refuses = (spread(np.array(pages.client), 4) < 0.2) & ~pages.is_account
    is_seen = ~refuses[pages.visit]
    viewed = np.flatnonzero(is_seen & (pages.kind == PRODUCT))
    in_lists = np.flatnonzero(is_seen & np.isin(pages.kind, (CATEGORY, SEARCH)))
    # a journey carts a product once: a store event is identified by its fields, and its time has seconds only
    wished = viewed[_last_of_each(_wish(pages, viewed))]
    wished = wished[~np.isin(_wish(pages, wished), _wish(pages, purchases.product_page))]
    has_cart = np.zeros(int(pages.journey.max(initial=0)) + 1, np.bool_)
    has_cart[pages.journey[pages.rows(CART)]] = True
    is_likely = has_cart[pages.journey[wished]]
    abandoned = _sample_first(
        rng, round(CARTS * count) - len(purchases.product_page), wished[is_likely], wished[~is_likely]
    )
    removed = _sample(rng, abandoned, round(REMOVALS * count))
    carted = np.r_[purchases.product_page, abandoned]
    views = count - len(carted) - len(purchases.product_page) - len(removed)
    viewed = _sample_first(rng, views, carted, np.setdiff1d(viewed, carted), in_lists)

    to_cart = (pages.time_on_page * rng.uniform(0.3, 0.9, len(pages.at))).astype(np.int64)
    to_removal = lognormal(rng, len(removed), median=90 * SECOND, sigma=0.9, least=5 * SECOND, most=30 * MINUTE)
    visit = pages.visit[np.r_[viewed, carted, purchases.order_page, removed]]
    at = np.r_[
        pages.at[viewed],
        (pages.at + to_cart)[carted],
        pages.at[purchases.order_page],
        (pages.at + to_cart)[removed] + to_removal,
    ]
    events = StoreEvents(
        visit=visit,
        product=pages.product[np.r_[viewed, carted, purchases.product_page, removed]],
        event_type=np.repeat(
            [VIEW, ADD_TO_CART, PURCHASE, REMOVE], [len(viewed), len(carted), len(purchases.order_page), len(removed)]
        ),
        at=at,
        is_signed_in=pages.is_signed_in(visit, at),
    )
    return _store_events(rng, pages, events), _web_events(rng, pages, events, counts["web_events"])


def _store_event(text: str, event_type: str, product: Record, price: float, user_id: str | None, session: str) -> Draft:
    category_code = product["category_code"]
    body = {
        "event_time": f"{text[:10]} {text[11:19]} UTC",
        "event_type": event_type,
        "product_id": product["product_id"],
        "category_id": CATEGORY_IDS[category_code],
        "category_code": category_code,
        "brand": product["brand"],
        "price": f"{price:.2f}",
        "user_id": user_id,
        "user_session": session,
    }
    return None if user_id is None else user_id.encode(), body, {}


def _store_events(rng: np.random.Generator, pages: Pages, events: StoreEvents) -> Drawn:
    is_free = rng.random(len(events.at)) < 0.001  # real histories hold a few prices of zero

    def build(rows: Ints) -> Iterator[Draft]:
        for visit, number, kind, text, free, signed_in in zip(
            events.visit[rows].tolist(), events.product[rows].tolist(), events.event_type[rows].tolist(),
            time_texts(events.at[rows]), is_free[rows].tolist(), events.is_signed_in[rows].tolist(), strict=True,
        ):  # fmt: skip
            product = pages.products[number]
            user_id = pages.users[pages.user[visit]]["user_id"] if signed_in else None
            price = 0.0 if free else product["price"]
            session = uuid_text(pages.session, visit)
            yield _store_event(text, STORE_EVENT_TYPES[kind], product, price, user_id, session)

    return Drawn(STREAMS["ecom_events"], events.at + _latency(rng, len(events.at)), build)


def _web_events(rng: np.random.Generator, pages: Pages, events: StoreEvents, count: int) -> Drawn:
    # the site's tracker sees what the store sees, a few milliseconds apart; it knows no remove_from_cart
    chosen = _sample(rng, np.flatnonzero(events.event_type != REMOVE), count)
    at = events.at[chosen] + rng.integers(1_000, 400_000, len(chosen))
    ids = hex_digits(rng, len(chosen))
    has_id = rng.random(len(chosen)) < 0.9
    has_user = events.is_signed_in[chosen] & (rng.random(len(chosen)) < 0.8)
    activity = rng.integers(len(pages.words.activities), size=len(chosen))
    words, places = pages.words, {place.country_code: place for place in pages.words.places}

    def build(rows: Ints) -> Iterator[Draft]:
        events_of_rows = chosen[rows]
        for row, visit, number, kind, text, with_id, signed_in, with_user, nested in zip(
            rows.tolist(), events.visit[events_of_rows].tolist(), events.product[events_of_rows].tolist(),
            events.event_type[events_of_rows].tolist(), time_texts(at[rows]), has_id[rows].tolist(),
            events.is_signed_in[events_of_rows].tolist(), has_user[rows].tolist(), activity[rows].tolist(),
            strict=True,
        ):  # fmt: skip
            who = pages.user[visit]
            user = pages.users[who] if who >= 0 else None
            place = words.places[who % len(words.places)] if user is None else places[user["country_code"]]
            product = pages.products[number]
            device = words.devices[pages.device[visit]]
            city = place.cities[who % len(place.cities)]
            location = {"objectType": "place", "displayName": city, "country": place.country_code}
            name = user["user_id"] if user and signed_in else f"guest-{pages.client[visit]}"
            body: Record = {
                "timestamp": text,
                "publisher_id": 1 + number % 4,
                "event": WEB_EVENT_TYPES[kind],
                "product": product["product_id"],
                "browser": device.browser,
                "environment": "prod",
                "country": place.country_code,
                "OS": device.system,
                "city": city,
                "price": product["price"],
                "objectType": "web-activity",
                "actor": {
                    "objectType": "person",
                    "id": f"person:shop.example/{name}",
                    "displayName": user["user_name"] if user and signed_in else "guest",
                    "languages": [place.country_code.lower()],
                    "location": location,
                },
                "location": location,
                "generator": {"objectType": "application", "displayName": "shop tag", "userAgent": device.user_agent},
                "object": words.activities[nested],
            }
            if with_id:
                body["event_id"] = uuid_text(ids, row)
            if user and with_user:
                body["user_id"] = user["user_id"]
            yield None, body, {}

    return Drawn(STREAMS["web_events"], at + _latency(rng, len(at)), build)


# -- returns ----------------------------------------------------------------------------------------------------------


def _sales(rng: np.random.Generator, day_start: int, pages: Pages, purchases: Orders) -> Sales:
    count = len(purchases.order_page)
    days = 2 + np.minimum(rng.geometric(0.35, count) - 1, RETURN_DAYS - 2)
    at = day_start + days * DAY + rng.integers(8 * HOUR, 17 * HOUR, count)
    returned = np.flatnonzero(rng.random(count) < RETURNED)
    account = np.array(pages.user, np.int64)[pages.visit[purchases.order_page[returned]]]
    return Sales(
        account=account,
        user_ids=[pages.users[number]["user_id"] for number in account.tolist()],
        products=[pages.products[number] for number in pages.product[purchases.product_page[returned]].tolist()],
        returned_at=at[returned],
        session=hex_digits(rng, len(returned)),
    )


def draw_returns(shop: Shop, day: int, day_start: int, past: Iterable[Sales]) -> Drawn:
    """What people who are still there give back on a day, of the sales of the last RETURN_DAYS days."""
    rng = generator(shop.seed, day, Purpose.RETURNS)
    returned = [
        (sales, number, at)
        for sales in past
        for number, (at, is_present) in enumerate(
            zip(sales.returned_at.tolist(), np.isin(sales.account, shop.users.present).tolist(), strict=True)
        )
        if is_present and day_start <= at < day_start + DAY
    ]
    ats = np.array([at for _, _, at in returned], np.int64)

    def build(rows: Ints) -> Iterator[Draft]:
        for row, text in zip(rows.tolist(), time_texts(ats[rows]), strict=True):
            sales, number, _ = returned[row]
            product = sales.products[number]
            session = uuid_text(sales.session, number)
            yield _store_event(text, "purchase", product, -product["price"], sales.user_ids[number], session)

    return Drawn(STREAMS["ecom_events"], ats + _latency(rng, len(ats)), build)


# -- post events ------------------------------------------------------------------------------------------------------

POSTS_IN_FEED = 5
"""A page of the community shows so many posts, each of which is a view too."""


def _post_events(rng: np.random.Generator, shop: Shop, pages: Pages, count: int) -> Drawn:
    # whoever opens a post, sees it in the feed, or, where these are few, beside any page
    tiers = (pages.rows(POST), np.repeat(pages.rows(COMMUNITY), POSTS_IN_FEED), np.arange(len(pages.at)))
    page = np.concatenate(tiers)
    post = np.r_[pages.post[tiers[0]], shop.posts.choose(rng, len(page) - len(tiers[0]))]
    tier = np.repeat(np.arange(3), [len(rows) for rows in tiers])
    to_view = np.where(tier == 0, 0, (rng.random(len(page)) * pages.time_on_page[page]).astype(np.int64))
    at = pages.at[page] + to_view
    is_signed_in = pages.is_signed_in(pages.visit[page], pages.at[page])
    views = _sample_first(rng, round(0.8 * count), *(np.flatnonzero(is_signed_in & (tier == n)) for n in range(3)))
    likes = _sample(rng, views, count - len(views))
    delay = rng.integers(2 * SECOND, MINUTE, len(likes))
    row = np.r_[views, likes]
    visit, post = pages.visit[page[row]], post[row]
    at = at[row] + np.r_[np.zeros(len(views), np.int64), delay]
    is_like = np.repeat([False, True], [len(views), len(likes)])
    ids = hex_digits(rng, len(row))

    def build(rows: Ints) -> Iterator[Draft]:
        for number, of_visit, of_post, text, liked in zip(
            rows.tolist(), visit[rows].tolist(), post[rows].tolist(), time_texts(at[rows]), is_like[rows].tolist(),
            strict=True,
        ):  # fmt: skip
            user_id = pages.users[pages.user[of_visit]]["user_id"]
            body = {
                "event_id": uuid_text(ids, number),
                "user_id": user_id,
                "post_id": pages.posts[of_post]["post_id"],
                "created_at": f"{text}Z",
                "event_type": "like" if liked else "view",
            }
            yield user_id.encode(), body, {}

    return Drawn(STREAMS["post_events"], at + _latency(rng, len(row)), build)
