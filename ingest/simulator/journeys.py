"""The page views of a day: journeys of one or two visits about the same products.

A journey is a first visit and, for some, a second one within the hour, when a reminder, an ad or their own memory
brings the visitor back to the product or the basket.

Visitors are accounts or guests. Guests never sign in; only their device identifies them from visit to visit. Some
accounts are always signed in, the others sign in during a visit: events before that have no user_id.
"""

from dataclasses import dataclass

import numpy as np

from ingest.simulator.draws import MINUTE, SECOND, Bools, Ints, Record, Span, hex_digits, lognormal
from ingest.simulator.shop import Shop
from ingest.simulator.site import CART, KINDS, LINK_FROM, PLAIN, PRODUCT, TIME_ON_PAGE
from ingest.simulator.visits import NEVER, OTHER, draw_visits
from ingest.simulator.vocabulary import Vocabulary

PAGES_PER_JOURNEY = 5.3
"""Average number, to estimate how many journeys are needed for a number of page views; a bad estimate only costs
time."""


@dataclass(frozen=True, slots=True)
class Pages:
    """The page views of a day and their visits, as columns; and the shop's entities on that day."""

    visit: Ints
    """Visit of each page view. The columns up to `product` have one entry per page view, ordered by journey, visit and
    time."""
    journey: Ints
    at: Ints
    time_on_page: Ints
    """Microseconds on each page, also on the last page of a visit."""
    kind: Ints
    link: Ints
    """Index in LINKS of the link that led to the page."""
    product: Ints
    """Product of a product page; for category and search pages, a product of the category."""
    post: Ints

    user: list[int]
    """Account number of each visit, or -1 minus the number of a guest. The columns below have one entry per visit."""
    client: list[int]
    """Number of the device, the same in all of the device's visits."""
    device: list[int]
    """Index of the browser and operating system in the devices of the vocabulary."""
    form: list[int]
    channel: list[int]
    begins_at: list[int]
    signed_in_at: Ints
    """Instant from which the person is signed in; NEVER if the person does not sign in during this visit."""
    session: str
    """Session id of each visit, as 32 hex digits per visit."""

    users: list[Record]
    products: list[Record]
    posts: list[Record]
    words: Vocabulary

    def rows(self, kind: int) -> Ints:
        return np.flatnonzero(self.kind == kind)

    @property
    def is_account(self) -> Bools:
        """Whether the visitor has an account, per visit."""
        return np.array(self.user) >= 0

    def is_signed_in(self, visit: Ints, at: Ints) -> Bools:
        signed_in: Bools = at >= self.signed_in_at[visit]
        return signed_in


def draw_pages(rng: np.random.Generator, shop: Shop, span: Span, count: int) -> Pages:
    """Draw `count` page views."""
    journeys = 10 + round(1.1 * count / PAGES_PER_JOURNEY)
    while len((visits := draw_visits(rng, shop, span, journeys)).steps.kind) < count:
        journeys *= 2
    visit, kind, slot, step = (column[:count] for column in visits.steps)
    journey = visits.journey[visit]
    is_first = step == 0

    medians, sigmas = (np.array([TIME_ON_PAGE[kind][number] for kind in range(KINDS)]) for number in (0, 1))
    # At least two seconds, since some bodies have whole seconds only, and the second identifies a page view.
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
        # Copies, since a body that is built days later must show the versions of this day.
        users=list(shop.users.records),
        products=list(shop.products.records),
        posts=list(shop.posts.records),
        words=shop.words,
    )


def _links(rng: np.random.Generator, channel: Ints, kind: Ints, is_first: Bools) -> Ints:
    before = np.r_[CART, kind[:-1]][: len(kind)]
    first, count = LINK_FROM[before].T
    own = np.where(kind == PRODUCT, first + (count * rng.random(len(kind)) ** 1.5).astype(np.int64), PLAIN)
    return np.where(is_first, channel, own)


def _products(rng: np.random.Generator, shop: Shop, journey: Ints, visit: Ints, kind: Ints, slot: Ints) -> Ints:
    journeys = int(journey.max(initial=0)) + 1
    # Visitors who leave at once arrived at any product; those who stay look at popular ones.
    stays = np.bincount(journey, minlength=journeys) > 1
    favourite = np.where(stays, shop.products.choose(rng, journeys), rng.choice(shop.products.present, journeys))
    alike = shop.products_like(rng, favourite)
    wanted = np.stack([favourite, alike, shop.products.choose(rng, journeys)], axis=1)
    other = shop.products.choose(rng, len(visit))
    product = np.where(slot == OTHER, other, wanted[journey, np.minimum(slot, OTHER - 1)])
    # A category or search page shows the category of the product that is opened next in the visit.
    rows = np.arange(len(visit))
    is_product = kind == PRODUCT
    following = np.minimum.accumulate(np.where(is_product, rows, len(rows))[::-1])[::-1]
    leads = np.flatnonzero(~is_product & (following < len(rows)))
    leads = leads[visit[following[leads]] == visit[leads]]
    product[leads] = product[following[leads]]
    return product


def wish(pages: Pages, rows: Ints) -> Ints:
    """Return a number for each of these pages, the same for all pages of one product in one journey."""
    return pages.journey[rows] * 2**24 + pages.product[rows]
