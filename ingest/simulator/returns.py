"""Returned products: store events of type purchase with a negative price, some days after the purchase.

A return has its own session. The sum of the prices of purchases is therefore net revenue, a return lowers the revenue
of its own day, and a count of purchases includes returns. The website's tracker does not send returns, and checkouts
keep their amount.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from common.streams import STREAMS
from ingest.simulator.draws import (
    DAY,
    HOUR,
    Draft,
    Drawn,
    Ints,
    Purpose,
    Record,
    Span,
    generator,
    hex_digits,
    latency,
    time_texts,
    uuid_text,
)
from ingest.simulator.journeys import Pages
from ingest.simulator.orders import Orders
from ingest.simulator.shop import Shop
from ingest.simulator.store import store_event

RETURNED = 0.09
"""Share of store purchases that are returned."""
RETURN_DAYS = 7
"""Maximum days from the purchase to the return."""


@dataclass(frozen=True, slots=True)
class Sales:
    """The store purchases of a day that will be returned."""

    account: Ints
    user_ids: list[str]
    products: list[Record]
    """Versions of the products at the time of the purchase."""
    returned_at: Ints
    session: str
    """Session id of each return, as 32 hex digits per return."""


def draw_sales(rng: np.random.Generator, day_start: int, pages: Pages, purchases: Orders) -> Sales:
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


def draw_returns(shop: Shop, day: Span, past: Iterable[Sales]) -> Drawn:
    """Draw the returns of a day: products sold in the last RETURN_DAYS days to users who still exist."""
    rng = generator(shop.seed, day.number, Purpose.RETURNS)
    returned = [
        (sales, number, at)
        for sales in past
        for number, (at, is_present) in enumerate(
            zip(sales.returned_at.tolist(), np.isin(sales.account, shop.users.present).tolist(), strict=True)
        )
        if is_present and day.start <= at < day.start + DAY
    ]
    ats = np.array([at for _, _, at in returned], np.int64)

    def build(rows: Ints) -> Iterator[Draft]:
        for row, text in zip(rows.tolist(), time_texts(ats[rows]), strict=True):
            sales, number, _ = returned[row]
            product = sales.products[number]
            session = uuid_text(sales.session, number)
            yield store_event(text, "purchase", product, -product["price"], sales.user_ids[number], session)

    return Drawn(STREAMS["ecom_events"], ats + latency(rng, len(ats)), build)
