"""The pages of the shop's site, the probabilities of going from one to another, and the channels that lead to it."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

SITE = "https://shop.example"

HOME, CATEGORY, SEARCH, SALE, PRODUCT, CART, SIGN_IN, CHECKOUT, ORDER, COMMUNITY, POST, EXIT = range(12)
KINDS = EXIT
Ways = Mapping[int, Mapping[int, float]]

FIRST_VISIT: Ways = {
    HOME: {CATEGORY: 0.66, SEARCH: 0.13, PRODUCT: 0.14, SALE: 0.03, COMMUNITY: 0.01},
    CATEGORY: {PRODUCT: 0.76, SEARCH: 0.04, HOME: 0.04},
    SEARCH: {PRODUCT: 0.78, CATEGORY: 0.10},
    SALE: {PRODUCT: 0.52, CATEGORY: 0.34},
    PRODUCT: {PRODUCT: 0.37, CATEGORY: 0.19, SEARCH: 0.04, CART: 0.21, HOME: 0.02},
    CART: {CHECKOUT: 0.54, PRODUCT: 0.22, CATEGORY: 0.10},
    SIGN_IN: {HOME: 0.35, CATEGORY: 0.30, PRODUCT: 0.27},
    CHECKOUT: {ORDER: 0.90, CART: 0.03},
    ORDER: {HOME: 0.05, COMMUNITY: 0.03},
    COMMUNITY: {POST: 0.89, HOME: 0.07},
    POST: {POST: 0.42, COMMUNITY: 0.20, PRODUCT: 0.12},
}
"""Maps a kind of page to the probabilities of the next kind. With the remaining probability, the visitor leaves."""
SECOND_VISIT: Ways = {
    **FIRST_VISIT,
    HOME: {CART: 0.55, PRODUCT: 0.30, CATEGORY: 0.10},
    PRODUCT: {CART: 0.60, PRODUCT: 0.22, CATEGORY: 0.13},
    CART: {CHECKOUT: 0.86, PRODUCT: 0.08},
}
TIME_ON_PAGE: dict[int, tuple[int, float]] = {
    HOME: (11, 0.8),
    CATEGORY: (17, 0.8),
    SEARCH: (14, 0.8),
    SALE: (15, 0.8),
    PRODUCT: (26, 0.6),
    CART: (17, 0.6),
    SIGN_IN: (17, 0.5),
    CHECKOUT: (29, 0.3),
    ORDER: (14, 0.6),
    COMMUNITY: (14, 0.8),
    POST: (30, 0.8),
}
"""Maps a kind of page to the lognormal distribution of the time on it: the median, in seconds, and sigma."""


class Channel(NamedTuple):
    """A marketing channel, through which visitors reach the shop."""

    traffic_source: str
    source: str
    medium: str
    campaign: str | None
    """Value of utm_campaign in its links; None if they have no utm parameters."""
    opens: float
    """Weight of the channel among first visits of journeys."""
    closes: float
    """Weight of the channel among second visits of journeys."""
    bounces: float
    """Share of visits that leave from the first page."""
    landing: dict[int, float]
    """Maps a kind of page to its weight as the first page of a visit."""


CHANNELS = (
    Channel("direct", "(direct)", "(none)", None, 0.25, 0.14, 0.02, {HOME: 0.94, CATEGORY: 0.02, PRODUCT: 0.04}),
    Channel("organic", "google", "organic", None, 0.22, 0.05, 0.47, {PRODUCT: 0.82, CATEGORY: 0.12, HOME: 0.06}),
    Channel("referral", "gadgetpress.example", "referral", None, 0.05, 0.01, 0.48, {PRODUCT: 1.0}),
    Channel("paid", "google", "cpc", "product_search", 0.18, 0.02, 0.47, {PRODUCT: 0.96, CATEGORY: 0.04}),
    Channel("social", "instagram", "social", "new_in", 0.13, 0.01, 0.54, {PRODUCT: 0.85, SALE: 0.03, POST: 0.12}),
    Channel("email", "newsletter", "email", "weekly_picks", 0.13, 0.04, 0.33, {PRODUCT: 0.94, SALE: 0.06}),
    Channel("email", "newsletter", "email", "basket_reminder", 0.00, 0.21, 0.04, {CART: 0.15, PRODUCT: 0.85}),
    Channel("affiliate", "dealfinder", "affiliate", "coupons", 0.04, 0.20, 0.08, {PRODUCT: 0.97, SALE: 0.03}),
    Channel("retargeting", "displaynet", "retargeting", "seen_products", 0.00, 0.33, 0.04, {PRODUCT: 1.0}),
)
DIRECT, SOCIAL, RETARGETING = 0, 4, 8
BY_MAIL = [number for number, one in enumerate(CHANNELS) if one.medium == "email"]

POSITIONS = {"home": 4, "list": 8, "search": 4, "sale": 4, "recommended": 6, "community": 1}
"""Maps a place in the shop, such as a list, to the number of its links to products."""
LINKS = [
    *(
        ""
        if channel.campaign is None
        else f"?utm_source={channel.source}&utm_medium={channel.medium}&utm_campaign={channel.campaign}"
        for channel in CHANNELS
    ),
    *(f"?from={place}&position={position + 1}" for place, count in POSITIONS.items() for position in range(count)),
]
"""Query strings in page addresses, which show how the visitor came: one per channel, then those of the shop's links."""


def _own_links(place: str) -> tuple[int, int]:
    """Return the index of a place's first link in LINKS, and the number of its links."""
    return LINKS.index(f"?from={place}&position=1"), POSITIONS[place]


PLAIN = DIRECT
LINK_FROM = np.array([[PLAIN, 1]] * KINDS)
"""Per kind of page: the index in LINKS of its first link to products, and the number of these links."""
for kind, place in (
    (HOME, "home"),
    (CATEGORY, "list"),
    (SEARCH, "search"),
    (SALE, "sale"),
    (PRODUCT, "recommended"),
    (COMMUNITY, "community"),
    (POST, "community"),
):
    LINK_FROM[kind] = _own_links(place)
