"""The streams ecom_events and web_events: the store's own events, and the site tracker's copy of some of them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from common.streams import STREAMS
from ingest.simulator.draws import (
    MINUTE,
    SECOND,
    Bools,
    Draft,
    Drawn,
    Ints,
    Record,
    hex_digits,
    last_of_each,
    latency,
    lognormal,
    sample,
    sample_first,
    spread,
    time_texts,
    uuid_text,
)
from ingest.simulator.journeys import Pages, wish
from ingest.simulator.orders import Orders
from ingest.simulator.site import CART, CATEGORY, PRODUCT, SEARCH
from ingest.simulator.vocabulary import CATEGORY_IDS

VIEW, ADD_TO_CART, PURCHASE, REMOVE = range(4)
STORE_EVENT_TYPES = ("view", "cart", "purchase", "remove_from_cart")
WEB_EVENT_TYPES = ("view", "cart", "sale")
CARTS, PURCHASES, REMOVALS = 0.12, 0.056, 0.024
"""Shares of event types among the store events; the rest are views."""


@dataclass(frozen=True, slots=True)
class StoreEvents:
    """Store events, with one array per column."""

    visit: Ints
    product: Ints
    event_type: Ints
    at: Ints
    is_signed_in: Bools


def draw_store_and_web_events(
    rng: np.random.Generator, pages: Pages, purchases: Orders, counts: dict[str, int]
) -> tuple[Drawn, Drawn]:
    count = counts["ecom_events"]
    # A fifth of the guests rejects the store's cookie, and therefore has no store events.
    rejects_cookies = (spread(np.array(pages.client), 4) < 0.2) & ~pages.is_account
    is_seen = ~rejects_cookies[pages.visit]
    viewed = np.flatnonzero(is_seen & (pages.kind == PRODUCT))
    in_lists = np.flatnonzero(is_seen & np.isin(pages.kind, (CATEGORY, SEARCH)))
    # At most one cart event per journey and product: store events have no id and whole seconds, so two could be equal.
    wished = viewed[last_of_each(wish(pages, viewed))]
    wished = wished[~np.isin(wish(pages, wished), wish(pages, purchases.product_page))]
    has_cart = np.zeros(int(pages.journey.max(initial=0)) + 1, np.bool_)
    has_cart[pages.journey[pages.rows(CART)]] = True
    is_likely = has_cart[pages.journey[wished]]
    abandoned = sample_first(
        rng, round(CARTS * count) - len(purchases.product_page), wished[is_likely], wished[~is_likely]
    )
    removed = sample(rng, abandoned, round(REMOVALS * count))
    carted = np.r_[purchases.product_page, abandoned]
    views = count - len(carted) - len(purchases.product_page) - len(removed)
    viewed = sample_first(rng, views, carted, np.setdiff1d(viewed, carted), in_lists)

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


def store_event(text: str, event_type: str, product: Record, price: float, user_id: str | None, session: str) -> Draft:
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
    is_free = rng.random(len(events.at)) < 0.001  # as in real data, a few prices are zero

    def build(rows: Ints) -> Iterator[Draft]:
        for visit, number, kind, text, free, signed_in in zip(
            events.visit[rows].tolist(), events.product[rows].tolist(), events.event_type[rows].tolist(),
            time_texts(events.at[rows]), is_free[rows].tolist(), events.is_signed_in[rows].tolist(), strict=True,
        ):  # fmt: skip
            product = pages.products[number]
            user_id = pages.users[pages.user[visit]]["user_id"] if signed_in else None
            price = 0.0 if free else product["price"]
            session = uuid_text(pages.session, visit)
            yield store_event(text, STORE_EVENT_TYPES[kind], product, price, user_id, session)

    return Drawn(STREAMS["ecom_events"], events.at + latency(rng, len(events.at)), build)


def _web_events(rng: np.random.Generator, pages: Pages, events: StoreEvents, count: int) -> Drawn:
    # The site's tracker sends the same events some milliseconds later, except those of type remove_from_cart.
    chosen = sample(rng, np.flatnonzero(events.event_type != REMOVE), count)
    at = events.at[chosen] + rng.integers(1_000, 400_000, len(chosen))
    ids = hex_digits(rng, len(chosen))
    has_id = rng.random(len(chosen)) < 0.9
    has_user = events.is_signed_in[chosen] & (rng.random(len(chosen)) < 0.8)
    activity = rng.integers(len(pages.words.activities), size=len(chosen))
    words, places = pages.words, {place.country_code: place for place in pages.words.places}

    def build(rows: Ints) -> Iterator[Draft]:
        event_rows = chosen[rows]
        for row, visit, number, kind, text, with_id, signed_in, with_user, nested in zip(
            rows.tolist(), events.visit[event_rows].tolist(), events.product[event_rows].tolist(),
            events.event_type[event_rows].tolist(), time_texts(at[rows]), has_id[rows].tolist(),
            events.is_signed_in[event_rows].tolist(), has_user[rows].tolist(), activity[rows].tolist(),
            strict=True,
        ):  # fmt: skip
            user_number = pages.user[visit]
            user = pages.users[user_number] if user_number >= 0 else None
            place = words.places[user_number % len(words.places)] if user is None else places[user["country_code"]]
            product = pages.products[number]
            device = words.devices[pages.device[visit]]
            city = place.cities[user_number % len(place.cities)]
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

    return Drawn(STREAMS["web_events"], at + latency(rng, len(at)), build)
