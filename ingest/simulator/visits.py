"""The visits of a day: who comes to the shop, through which channel, and which kinds of pages they open in which order.

A visit is a random walk over kinds of pages. Some channels bring people for the first time and others bring them back,
so that first-click and last-click attribution differ.
"""

from typing import NamedTuple

import numpy as np

from ingest.simulator.draws import DAY, HOUR, MINUTE, Bools, Floats, Ints, Span, is_weekend, lognormal, spread
from ingest.simulator.shop import Shop
from ingest.simulator.site import (
    BY_MAIL,
    CART,
    CHANNELS,
    CHECKOUT,
    COMMUNITY,
    DIRECT,
    EXIT,
    FIRST_VISIT,
    KINDS,
    ORDER,
    PRODUCT,
    RETARGETING,
    SECOND_VISIT,
    SIGN_IN,
    SOCIAL,
    Ways,
)

BY_HOUR = np.array(
    [
        [2, 1, 1, 1, 1, 3, 6, 8, 8, 8, 9, 10, 13, 12, 9, 9, 10, 12, 14, 17, 18, 15, 10, 5],
        [5, 3, 2, 1, 1, 1, 2, 3, 6, 10, 13, 14, 13, 12, 12, 12, 12, 12, 13, 14, 15, 13, 9, 5],
    ],
    np.float64,
)
"""Relative number of visits per hour (UTC), on weekdays and on weekend days."""
MAX_PAGES = 40
"""Maximum pages of a visit."""
SECOND_VISITS = 0.65
"""Share of journeys with a second visit, among those with several pages, at least one product page, and no order."""
GUESTS = 0.28
"""Share of journeys by people without an account."""
GUESTS_PER_EVENT = 0.5
"""Guest devices that can visit on one day, as a multiple of events_per_day."""
GUEST_LIFE_DAYS = 30
"""Days after which the device of a guest no longer visits."""
ALWAYS_SIGNED_IN = 0.62
"""Share of accounts that are always signed in; the others sign in during a visit."""
IN_THE_OLDER_APP = 0.08
"""Share of accounts with an older version of the app, which sends no session; they are always signed in."""
EXPORTED = 0.06
"""Share of devices whose page views are rows of GA4's BigQuery export."""
GUESTS_LEAVE = 0.35
"""Probability that a guest leaves the shop at the sign-in page, or instead of going there."""
SIGNS_IN_EARLY = 0.18
"""Probability per page that an account signs in before the checkout requires it."""
COMMUNITY_VISITS = 0.26
"""Share of journeys to community posts among the journeys of signed-in people."""
SECOND_DEVICE = 0.3
"""Share of an account's journeys on the second of its two devices."""
CONTINUOUS_QUERY, OLDER, EXPORT_ROW = range(3)
"""Forms of a page view's body; a device always sends the same one."""
NEVER = 2**62
FAVOURITE, OTHER = 0, 3
SLOTS = np.cumsum([0.42, 0.20, 0.15, 0.23])
"""Cumulative probabilities of a product page's product: the journey's first, second or third choice, or any product."""


class Steps(NamedTuple):
    """Opened pages, with one array per column."""

    visit: Ints
    kind: Ints
    slot: Ints
    """Index in SLOTS of a product page's product."""
    step: Ints
    """Number of the page within its visit, from 0."""


class Visits(NamedTuple):
    """Visits, with one array per column: the first visits of all journeys, then the second visits."""

    journey: Ints
    first_visit: Ints
    """Index of the first visit, for a second visit; -1 for a first visit."""
    user: Ints
    client: Ints
    form: Ints
    channel: Ints
    begins_at: Ints
    """Start of the visit: an instant for a first visit; microseconds after the end of the first for a second visit."""
    signs_in_at_step: Ints
    """First step at which the person is signed in; it may be after the last step."""
    steps: Steps
    """Opened pages, ordered by journey, visit and step."""


def draw_visits(rng: np.random.Generator, shop: Shop, span: Span, journeys: int) -> Visits:
    if span.has_rhythm:
        weights = BY_HOUR[int(is_weekend(span.start))]
        hours = rng.choice(24, journeys, p=weights / weights.sum())
        begins_at = span.start + hours * HOUR + rng.integers(0, HOUR, journeys)
    else:
        begins_at = span.start + rng.integers(0, span.length, journeys)

    # The newer a guest device, the more often it visits; none visits after GUEST_LIFE_DAYS.
    devices = max(GUEST_LIFE_DAYS, round(GUESTS_PER_EVENT * span.events_per_day))
    newest = (span.start // DAY + GUEST_LIFE_DAYS) * devices // GUEST_LIFE_DAYS
    guest = newest - 1 - (devices * rng.random(journeys) ** 2).astype(np.int64)
    account = shop.users.choose(rng, journeys)
    # `spread` instead of independent draws, so that even a few journeys have both guests and accounts.
    is_guest = (rng.random() + spread(np.arange(journeys), 0)) % 1 < GUESTS
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
    # The shop does not know the mail addresses of guests.
    back_channel[is_guest[back] & np.isin(back_channel, BY_MAIL)] = RETARGETING
    second, back_signs_in = _walk(
        rng, SECOND_WAYS, _draw_kinds(rng, LANDINGS, back_channel), back_channel, ~is_guest[back], is_signed_in[back]
    )
    pause = lognormal(rng, len(back), median=13 * MINUTE, sigma=0.6, least=3 * MINUTE, most=40 * MINUTE)

    journey = np.r_[np.arange(journeys), back]
    steps = Steps(
        np.r_[first.visit, journeys + second.visit], *(np.r_[a, b] for a, b in zip(first[1:], second[1:], strict=True))
    )
    order = np.argsort((2 * journey[steps.visit] + (steps.visit >= journeys)) * MAX_PAGES + steps.step)
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
    """Return, per kind of page, the cumulative probabilities of the next kinds. EXIT has the remaining probability."""
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
    """Draw the pages of each visit, and the step from which the visitor is signed in."""
    signs_in_at_step = np.where(is_signed_in, 0, NEVER)
    is_at_checkout, has_ordered = np.zeros((2, len(entry)), np.bool_)
    has_seen_product = entry == PRODUCT
    visit, kind, slot = np.arange(len(entry)), entry, np.full(len(entry), FAVOURITE)
    steps = [(visit, kind, slot, np.zeros(len(entry), np.int64))]
    bounces = np.array([one.bounces for one in CHANNELS])
    stays = rng.random(len(visit)) >= bounces[channel]
    for step in range(1, MAX_PAGES):
        visit, kind, slot = visit[stays], kind[stays], slot[stays]
        if not len(visit):
            break
        following = _draw_kinds(rng, ways, kind)
        # At the sign-in page, guests leave or continue as guests. Accounts continue signed in, and return to the
        # checkout if they came from there.
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
