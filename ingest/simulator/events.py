"""The event streams of a span of time. All of them follow from its page views, so ids join across the streams.

A product page may cause a store view and a click, a store view a cart and a purchase, a click a checkout, and the page
of a post a like. Store, website and post events have a user_id once the visitor is signed in. Clicks have it for every
account, since the click tracker recognises returning customers by its own cookie; guests have no account and leave no
clicks.
"""

import numpy as np

from ingest.simulator.draws import DAY, Drawn, Purpose, Span, generator, is_weekend, sample
from ingest.simulator.journeys import draw_pages
from ingest.simulator.orders import Orders, draw_clicks_and_checkouts
from ingest.simulator.page_views import draw_page_views
from ingest.simulator.post_events import draw_post_events
from ingest.simulator.returns import Sales, draw_sales
from ingest.simulator.shop import Shop
from ingest.simulator.store import PURCHASES, draw_store_and_web_events

SHARES = {"ecom_events": 0.22, "web_events": 0.05, "clicks": 0.10, "checkouts": 0.04, "post_events": 0.09}
"""Share of each stream in a day's events; the rest are page views."""
WEEKDAY, WEEKEND = 1.03, 0.925
"""Number of events of a weekday and of a weekend day, relative to the average of a week."""


def draw_events(shop: Shop, span: Span) -> tuple[list[Drawn], Sales]:
    """Draw the event streams of a span and its sales. With very few events, some streams may be missing."""
    rng = generator(shop.seed, span.number, Purpose.VISITS)
    pace = (WEEKEND if is_weekend(span.start) else WEEKDAY) if span.has_rhythm else span.length / DAY
    events = max(1, round(span.events_per_day * pace))
    counts = {name: round(share * events) for name, share in SHARES.items()}
    pages = draw_pages(rng, shop, span, events - sum(counts.values()))
    clicks, checkouts, sold = draw_clicks_and_checkouts(rng, pages, counts)
    purchased = sample(rng, np.arange(len(sold.product_page)), round(PURCHASES * counts["ecom_events"]))
    purchases = Orders(sold.product_page[purchased], sold.order_page[purchased])
    store, web = draw_store_and_web_events(rng, pages, purchases, counts)
    streams = [
        web,
        draw_page_views(rng, pages),
        clicks,
        checkouts,
        store,
        draw_post_events(rng, shop, pages, counts["post_events"]),
    ]
    return streams, draw_sales(generator(shop.seed, span.number, Purpose.SALES), span.start, pages, purchases)
