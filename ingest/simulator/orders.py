"""The streams clicks and checkouts, and the orders that visitors place."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from common.streams import STREAMS
from ingest.simulator.draws import (
    HOUR,
    MINUTE,
    SECOND,
    Draft,
    Drawn,
    Ints,
    Record,
    first_of_each,
    hex_digits,
    last_of_each,
    latency,
    sample,
    sample_first,
    time_texts,
    uuid_text,
)
from ingest.simulator.journeys import Pages, wish
from ingest.simulator.site import CATEGORY, CHANNELS, LINKS, ORDER, PRODUCT, SEARCH, SITE

PAYMENT_METHODS = ("VISA", "MASTERCARD", "PAYPAL", "AMEX", "TRANSFER")


@dataclass(frozen=True, slots=True)
class Orders:
    """Ordered products, as rows of Pages: the last page view of each product, and the page on which it was ordered."""

    product_page: Ints
    order_page: Ints


def _orders(rng: np.random.Generator, pages: Pages) -> Orders:
    """Draw the products that visitors order: mostly those that they have seen several times."""
    order_page = np.full(int(pages.journey.max(initial=0)) + 1, -1)
    order_pages = pages.rows(ORDER)
    order_page[pages.journey[order_pages]] = order_pages
    seen = pages.rows(PRODUCT)
    seen = seen[seen < order_page[pages.journey[seen]]]
    wishes = wish(pages, seen)
    last = last_of_each(wishes)
    distinct, times = np.unique(wishes, return_counts=True)
    times_seen = times[np.searchsorted(distinct, wishes[last])]
    bought = seen[last[rng.random(len(last)) < 1 - 0.45**times_seen]]
    return Orders(bought, order_page[pages.journey[bought]])


def draw_clicks_and_checkouts(
    rng: np.random.Generator, pages: Pages, counts: dict[str, int]
) -> tuple[Drawn, Drawn, Orders]:
    """Draw clicks and checkouts, and return with them the checkouts that become orders.

    Most checkouts follow a click within the hour. Some come after any attribution window, and some without a click.
    """
    count = counts["checkouts"]
    by_account = pages.is_account[pages.visit]
    account_pages = np.flatnonzero(by_account & (pages.kind == PRODUCT))
    # On a day with few visits, products in lists are clicked too, so that there are enough clicks.
    in_lists = np.flatnonzero(by_account & np.isin(pages.kind, (CATEGORY, SEARCH)))
    orders = _orders(rng, pages)
    sold = sample(rng, np.arange(len(orders.product_page)), round(0.72 * count))
    orders = Orders(orders.product_page[sold], orders.order_page[sold])

    is_tracked = rng.random(len(sold)) < 0.95
    wishes = wish(pages, account_pages)
    led = account_pages[np.isin(wishes, wish(pages, orders.product_page[is_tracked]))]
    # The first view of a product, links from other sites, and some of the shop's own links are recorded as clicks.
    is_counted = (pages.link[led] < len(CHANNELS)) | (rng.random(len(led)) < 0.15)
    is_counted[first_of_each(wish(pages, led))] = True
    led = led[is_counted]
    is_other = ~np.isin(wishes, wish(pages, orders.product_page))
    others = account_pages[is_other]
    clicked = sample_first(rng, counts["clicks"], led, others, in_lists)

    clicked_others = np.setdiff1d(clicked, led)
    undecided = clicked_others[last_of_each(wish(pages, clicked_others))]
    later = sample(rng, undecided, round(0.14 * count))
    unclicked = others[~np.isin(wish(pages, others), wish(pages, clicked))]
    alone = sample_first(rng, count - len(sold) - len(later), unclicked, in_lists)
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
    """Build clicks or checkouts, which have many fields in common. `page` has the product page of each click or
    checkout, as a row of Pages."""
    count = len(page)
    ids = hex_digits(rng, count)
    is_number = rng.random(count) < 0.5
    quantity = rng.choice([1, 1, 1, 1, 2, 3], count)
    method = rng.integers(len(PAYMENT_METHODS), size=count)
    words, places = pages.words, {place.country_code: place for place in pages.words.places}

    def build(rows: Ints) -> Iterator[Draft]:
        on = page[rows]
        for row, visit_index, number, link, text, as_number, bought, paid_by in zip(
            rows.tolist(), visit[rows].tolist(), pages.product[on].tolist(), pages.link[on].tolist(),
            time_texts(at[rows]), is_number[rows].tolist(), quantity[rows].tolist(), method[rows].tolist(),
            strict=True,
        ):  # fmt: skip
            account = pages.user[visit_index]
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
            body["user_agent"] = words.devices[pages.device[visit_index]].user_agent
            body["ip_address"] = f"10.{account >> 16 & 255}.{account >> 8 & 255}.{account & 255}"
            body["datetime_occured"] = f"{text[:10]} {text[11:23]}"
            yield None, body, {}

    return Drawn(STREAMS[name], at + latency(rng, count), build)


def _id(text: str, as_number: bool) -> str | int:
    return int(text) if as_number and text.isdecimal() else text
