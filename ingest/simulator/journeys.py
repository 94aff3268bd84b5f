"""The page views of a day: who comes to the shop, from where, and which pages they open in which order.

A journey is what one person does about one wish: a first visit and, for some, a second one within the hour, when a
reminder, an ad or their own memory brings them back to the product or the basket. A visit is a walk over kinds of
pages (WAYS). Some channels bring people for the first time, others bring them back: so first-click and last-click
attribution differ.

People are accounts or guests. Guests never sign in, and are known by their device only, visit after visit. Of the
accounts, some are always signed in, the others sign in during a visit: what happens before has no user_id.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ingest.simulator.shop import (
    DAY,
    HOUR,
    MINUTE,
    SECOND,
    Bools,
    Floats,
    Ints,
    Record,
    Shop,
    Vocabulary,
    hex_digits,
    is_weekend,
    lognormal,
    spread,
)

BY_HOUR = np.array(
    [
        [2, 1, 1, 1, 1, 3, 6, 8, 8, 8, 9, 10, 13, 12, 9, 9, 10, 12, 14, 17, 18, 15, 10, 5],
        [5, 3, 2, 1, 1, 1, 2, 3, 6, 10, 13, 14, 13, 12, 12, 12, 12, 12, 13, 14, 15, 13, 9, 5],
    ],
    np.float64,
)
"""How busy each hour (UTC) is: of a weekday, of a day of the weekend."""

# -- kinds of pages ---------------------------------------------------------------------------------------------------

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
"""From a page, the probability of each next page; the rest leave."""
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
"""Median in seconds, and sigma of the lognormal distribution."""
MOST_PAGES = 40
"""Of a visit."""
PAGES_PER_JOURNEY = 5.3
"""On average, to guess how many journeys a number of page views takes; a wrong guess costs time only."""
SECOND_VISITS = 0.65
"""Share of the journeys that looked around, saw a product and ordered nothing."""

# -- channels ---------------------------------------------------------------------------------------------------------


class Channel(NamedTuple):
    """Where a visit comes from."""

    traffic_source: str
    source: str
    medium: str
    campaign: str | None
    """None: its links carry no utm parameters."""
    opens: float
    """Weight among first visits."""
    closes: float
    """Weight among second visits of a journey."""
    bounces: float
    """Share of visits that leave from the first page."""
    landing: dict[int, float]
    """Weights of the first page."""


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
"""How many links to products the shop has in each place."""
LINKS = [
    *(
        ""
        if channel.campaign is None
        else f"?utm_source={channel.source}&utm_medium={channel.medium}&utm_campaign={channel.campaign}"
        for channel in CHANNELS
    ),
    *(f"?from={place}&position={position + 1}" for place, count in POSITIONS.items() for position in range(count)),
]
"""What follows the path in a page's address: how the visitor came to it. The first ones are those of CHANNELS."""


def _own_links(place: str) -> tuple[int, int]:
    """The first link of a place, and how many it has."""
    return LINKS.index(f"?from={place}&position=1"), POSITIONS[place]


PLAIN = DIRECT
LINK_FROM = np.array([[PLAIN, 1]] * KINDS)
"""By the kind of the page before, the links that lead from it to products."""
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

# -- people -----------------------------------------------------------------------------------------------------------

GUESTS = 0.28
"""Share of journeys by people without an account."""
GUESTS_PER_EVENT = 0.5
"""Devices of guests that may come on one day, for each event of a day."""
GUEST_LIFE_DAYS = 30
"""Until a guest's device is not seen any more."""
ALWAYS_SIGNED_IN = 0.62
"""Share of accounts; the other ones sign in during a visit."""
IN_THE_OLDER_APP = 0.08
"""Share of accounts, all of them always signed in: their app sends the older body, without a session."""
EXPORTED = 0.06
"""Share of devices whose page views are rows of GA4's BigQuery export."""
GUESTS_LEAVE = 0.35
"""Probability that a guest leaves rather than go to the sign-in page, or when there."""
SIGNS_IN_EARLY = 0.18
"""Probability, page by page, of signing in before the checkout asks for it."""
COMMUNITY_VISITS = 0.26
"""Share of the journeys of signed-in people that are about posts."""
SECOND_DEVICE = 0.3
"""Share of an account's journeys on the other one of its two devices."""

CONTINUOUS_QUERY, OLDER, EXPORT_ROW = range(3)
"""Forms of a page view's body; a device always sends the same one."""

NEVER = 2**62

FAVOURITE, OTHER = 0, 3
SLOTS = np.cumsum([0.42, 0.20, 0.15, 0.23])
"""Cumulated probabilities that a product page shows the journey's favourite, its second or third, or any product."""


@dataclass(frozen=True, slots=True)
class Pages:
    """The page views of a day and their visits, as columns, and the shop as it was that day."""

    visit: Ints
    """One entry per page view, as in the columns below; ordered by journey, visit and time."""
    journey: Ints
    at: Ints
    time_on_page: Ints
    """Microseconds, of the last page of a visit too."""
    kind: Ints
    link: Ints
    """Number in LINKS."""
    product: Ints
    """The product of a product page, and one of the category of a category or search page."""
    post: Ints

    user: list[int]
    """One entry per visit, as in the columns below. The number of the account, or -1 minus the number of the guest."""
    client: list[int]
    """The device's own number, the same in all its visits."""
    device: list[int]
    """Number in the vocabulary's devices: browser and system."""
    form: list[int]
    channel: list[int]
    begins_at: list[int]
    signed_in_at: Ints
    """Since when the person is signed in; NEVER if not in this visit."""
    session: str
    """32 hex digits per visit."""

    users: list[Record]
    products: list[Record]
    posts: list[Record]
    words: Vocabulary

    def rows(self, kind: int) -> Ints:
        return np.flatnonzero(self.kind == kind)

    @property
    def is_account(self) -> Bools:
        """Per visit."""
        return np.array(self.user) >= 0

    def is_signed_in(self, visit: Ints, at: Ints) -> Bools:
        signed_in: Bools = at >= self.signed_in_at[visit]
        return signed_in


def draw_pages(rng: np.random.Generator, shop: Shop, day_start: int, count: int, events_per_day: int) -> Pages:
    """`count` page views."""
    journeys = 10 + round(1.1 * count / PAGES_PER_JOURNEY)
    while len((visits := _draw_visits(rng, shop, day_start, journeys, events_per_day)).steps.kind) < count:
        journeys *= 2
    visit, kind, slot, step = (column[:count] for column in visits.steps)
    journey = visits.journey[visit]
    is_first = step == 0

    medians, sigmas = (np.array([TIME_ON_PAGE[kind][number] for kind in range(KINDS)]) for number in (0, 1))
    # At least two seconds, since some bodies give the second only, and it is part of a page view's identity.
    time_on_page = lognormal(
        rng, count, median=medians[kind] * SECOND, sigma=sigmas[kind], least=2 * SECOND, most=25 * MINUTE
    )
    ends = np.cumsum(time_on_page)
    length = np.bincount(visit, time_on_page, len(visits.journey)).astype(np.int64)
    elapsed = ends - time_on_page
    elapsed -= np.repeat(elapsed[is_first], np.diff(np.r_[np.flatnonzero(is_first), count]))
    begins_at = visits.begins_at.copy()
    is_second = visits.first_visit >= 0
    begins_at[is_second] += (begins_at + length)[visits.first_visit[is_second]]

    at = begins_at[visit] + elapsed
    signed_in_at = np.full(len(begins_at), NEVER)
    signs_in = step == visits.signs_in_at_step[visit]
    signed_in_at[visit[signs_in]] = at[signs_in]
    return Pages(
        visit=visit,
        journey=journey,
        at=at,
        time_on_page=time_on_page,
        kind=kind,
        link=_links(rng, visits.channel[visit], kind, is_first),
        product=_products(rng, shop, journey, visit, kind, slot),
        post=shop.posts.choose(rng, count),
        user=visits.user.tolist(),
        client=visits.client.tolist(),
        device=(visits.client * 37 % len(shop.words.devices)).tolist(),
        form=visits.form.tolist(),
        channel=visits.channel.tolist(),
        begins_at=begins_at.tolist(),
        signed_in_at=signed_in_at,
        session=hex_digits(rng, len(begins_at)),
        # copies: an event whose body is built days later must not see later versions
        users=list(shop.users.records),
        products=list(shop.products.records),
        posts=list(shop.posts.records),
        words=shop.words,
    )


class Steps(NamedTuple):
    """Pages opened, one entry each."""

    visit: Ints
    kind: Ints
    slot: Ints
    """Of a product page: which of the products that the journey is about."""
    step: Ints
    """Number of the page in its visit, from 0."""


class Visits(NamedTuple):
    """Columns of visits: the first ones of all journeys, then the second ones."""

    journey: Ints
    first_visit: Ints
    """Of a second visit, the visit before; else -1."""
    user: Ints
    client: Ints
    form: Ints
    channel: Ints
    begins_at: Ints
    """Of a second visit: microseconds after the end of the first one."""
    signs_in_at_step: Ints
    """The first step at which the person is signed in; there may be no such step."""
    steps: Steps
    """Ordered by journey, visit and step."""


def _draw_visits(rng: np.random.Generator, shop: Shop, day_start: int, journeys: int, events_per_day: int) -> Visits:
    weights = BY_HOUR[int(is_weekend(day_start))]
    hours = rng.choice(24, journeys, p=weights / weights.sum())
    begins_at = day_start + hours * HOUR + rng.integers(0, HOUR, journeys)

    # Guests come and go: the newest devices come most often, and none after GUEST_LIFE_DAYS.
    devices = max(GUEST_LIFE_DAYS, round(GUESTS_PER_EVENT * events_per_day))
    newest = (day_start // DAY + GUEST_LIFE_DAYS) * devices // GUEST_LIFE_DAYS
    guest = newest - 1 - (devices * rng.random(journeys) ** 2).astype(np.int64)
    account = shop.users.choose(rng, journeys)
    is_guest = (rng.random() + spread(np.arange(journeys), 0)) % 1 < GUESTS  # a few journeys have both kinds too
    user = np.where(is_guest, -1 - guest, account)
    client = np.where(is_guest, 2 * 10**9 + guest, 10**9 + 2 * account + (rng.random(journeys) < SECOND_DEVICE))
    habit = spread(account, 0)
    is_signed_in = ~is_guest & (habit < ALWAYS_SIGNED_IN)
    form = np.where(spread(client, 1) < EXPORTED, EXPORT_ROW, CONTINUOUS_QUERY)
    form[~is_guest & (habit < IN_THE_OLDER_APP)] = OLDER

    channel = _choose(rng, [channel.opens for channel in CHANNELS], journeys)
    channel[is_guest & np.isin(channel, BY_MAIL)] = SOCIAL
    entry = _draw_kinds(rng, LANDINGS, channel)
    is_about_posts = is_signed_in & (rng.random(journeys) < COMMUNITY_VISITS)
    channel[is_about_posts] = DIRECT
    entry[is_about_posts] = COMMUNITY
    first, signs_in_at_step = _walk(rng, FIRST_WAYS, entry, channel, ~is_guest, is_signed_in)

    is_open = np.zeros(journeys, np.bool_)
    is_open[first.visit[first.kind == PRODUCT]] = True
    is_open &= np.bincount(first.visit, minlength=journeys) > 1
    is_open[first.visit[first.kind == ORDER]] = False
    back = np.flatnonzero(is_open & (rng.random(journeys) < SECOND_VISITS))
    is_signed_in[first.visit[first.step >= signs_in_at_step[first.visit]]] = True
    back_channel = _choose(rng, [channel.closes for channel in CHANNELS], len(back))
    # nobody has the address of a guest
    back_channel[is_guest[back] & np.isin(back_channel, BY_MAIL)] = RETARGETING
    second, back_signs_in = _walk(
        rng, SECOND_WAYS, _draw_kinds(rng, LANDINGS, back_channel), back_channel, ~is_guest[back], is_signed_in[back]
    )
    pause = lognormal(rng, len(back), median=13 * MINUTE, sigma=0.6, least=3 * MINUTE, most=40 * MINUTE)

    journey = np.r_[np.arange(journeys), back]
    steps = Steps(
        np.r_[first.visit, journeys + second.visit], *(np.r_[a, b] for a, b in zip(first[1:], second[1:], strict=True))
    )
    order = np.argsort((2 * journey[steps.visit] + (steps.visit >= journeys)) * MOST_PAGES + steps.step)
    return Visits(
        journey=journey,
        first_visit=np.r_[np.full(journeys, -1), back],
        user=user[journey],
        client=client[journey],
        form=form[journey],
        channel=np.r_[channel, back_channel],
        begins_at=np.r_[begins_at, pause],
        signs_in_at_step=np.r_[signs_in_at_step, back_signs_in],
        steps=Steps(*(column[order] for column in steps)),
    )


def _choose(rng: np.random.Generator, weights: list[float], size: int) -> Ints:
    return rng.choice(len(weights), size, p=np.array(weights) / sum(weights))


def _cumulated(ways: Ways) -> Floats:
    """A row per origin, with the cumulated weights of the kinds that may follow; EXIT takes what is left up to 1."""
    weights = np.zeros((len(ways), KINDS + 1))
    for origin, following in ways.items():
        for kind, weight in following.items():
            weights[origin, kind] = weight
        weights[origin, EXIT] = max(0.0, round(1 - sum(following.values()), 6))
    cumulated = np.cumsum(weights, axis=1)
    return (cumulated / cumulated[:, -1:])[:, :EXIT]


LANDINGS = _cumulated({number: one.landing for number, one in enumerate(CHANNELS)})
FIRST_WAYS, SECOND_WAYS = _cumulated(FIRST_VISIT), _cumulated(SECOND_VISIT)


def _draw_kinds(rng: np.random.Generator, cumulated: Floats, origin: Ints) -> Ints:
    kinds: Ints = (rng.random((len(origin), 1)) > cumulated[origin]).sum(axis=1)
    return kinds


def _walk(
    rng: np.random.Generator, ways: Floats, entry: Ints, channel: Ints, has_account: Bools, is_signed_in: Bools
) -> tuple[Steps, Ints]:
    """The pages of each visit, and the step from which the visitor is signed in."""
    signs_in_at_step = np.where(is_signed_in, 0, NEVER)
    is_at_checkout, has_ordered = np.zeros((2, len(entry)), np.bool_)
    has_seen_product = entry == PRODUCT
    visit, kind, slot = np.arange(len(entry)), entry, np.full(len(entry), FAVOURITE)
    steps = [(visit, kind, slot, np.zeros(len(entry), np.int64))]
    bounces = np.array([one.bounces for one in CHANNELS])
    stays = rng.random(len(visit)) >= bounces[channel]
    for step in range(1, MOST_PAGES):
        visit, kind, slot = visit[stays], kind[stays], slot[stays]
        if not len(visit):
            break
        following = _draw_kinds(rng, ways, kind)
        # Guests turn away from the sign-in page, or go on as guests; accounts go on signed in, to the checkout if that
        # is where they were.
        owns = has_account[visit]
        hesitates = ~owns & (rng.random(len(visit)) < GUESTS_LEAVE)
        following[hesitates & ((kind == SIGN_IN) | (following == CHECKOUT))] = EXIT
        signs_in = owns & (kind == SIGN_IN) & (following != EXIT)
        signs_in_at_step[visit[signs_in]] = step
        following[signs_in & is_at_checkout[visit]] = CHECKOUT
        is_signed_out = signs_in_at_step[visit] > step
        must = is_signed_out & (following == CHECKOUT)
        is_at_checkout[visit[must]] = True
        early = rng.random(len(visit)) < SIGNS_IN_EARLY
        may = is_signed_out & owns & early & (following <= PRODUCT)
        following[must | may] = SIGN_IN
        # one order per visit
        has_ordered[visit[following == ORDER]] = True
        following[has_ordered[visit] & (following == CART)] = EXIT

        is_product = following == PRODUCT
        shown = np.searchsorted(SLOTS, rng.random(len(visit)) * SLOTS[-1])
        shown = np.where((kind == PRODUCT) & (shown == slot), (shown + 1) % len(SLOTS), shown)
        slot = np.where(is_product & has_seen_product[visit], shown, FAVOURITE)
        has_seen_product[visit[is_product]] = True
        kind = following
        stays = kind != EXIT
        steps.append((visit[stays], kind[stays], slot[stays], np.full(stays.sum(), step)))
    columns = Steps(*(np.concatenate(column) for column in zip(*steps, strict=True)))
    return columns, signs_in_at_step


def _links(rng: np.random.Generator, channel: Ints, kind: Ints, is_first: Bools) -> Ints:
    before = np.r_[CART, kind[:-1]][: len(kind)]
    first, count = LINK_FROM[before].T
    own = np.where(kind == PRODUCT, first + (count * rng.random(len(kind)) ** 1.5).astype(np.int64), PLAIN)
    return np.where(is_first, channel, own)


def _products(rng: np.random.Generator, shop: Shop, journey: Ints, visit: Ints, kind: Ints, slot: Ints) -> Ints:
    journeys = int(journey.max(initial=0)) + 1
    # A visitor who lands on any product is more likely to leave at once; those who stay want what is popular.
    stays = np.bincount(journey, minlength=journeys) > 1
    favourite = np.where(stays, shop.products.choose(rng, journeys), rng.choice(shop.products.present, journeys))
    alike = shop.products_like(rng, favourite)
    wanted = np.stack([favourite, alike, shop.products.choose(rng, journeys)], axis=1)
    other = shop.products.choose(rng, len(visit))
    product = np.where(slot == OTHER, other, wanted[journey, np.minimum(slot, OTHER - 1)])
    # a category or a search leads to the product that is opened next in the visit
    rows = np.arange(len(visit))
    is_product = kind == PRODUCT
    following = np.minimum.accumulate(np.where(is_product, rows, len(rows))[::-1])[::-1]
    leads = np.flatnonzero(~is_product & (following < len(rows)))
    leads = leads[visit[following[leads]] == visit[leads]]
    product[leads] = product[following[leads]]
    return product
