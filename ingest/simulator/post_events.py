"""The stream post_events: views and likes of community posts."""

from collections.abc import Iterator

import numpy as np

from common.streams import STREAMS
from ingest.simulator.draws import (
    MINUTE,
    SECOND,
    Draft,
    Drawn,
    Ints,
    hex_digits,
    latency,
    sample,
    sample_first,
    time_texts,
    uuid_text,
)
from ingest.simulator.journeys import Pages
from ingest.simulator.shop import Shop
from ingest.simulator.site import COMMUNITY, POST

POSTS_IN_FEED = 5
"""Posts shown on a community page; each counts as a view."""


def draw_post_events(rng: np.random.Generator, shop: Shop, pages: Pages, count: int) -> Drawn:
    # Views are those of opened posts, then of posts in the feed and, if these are too few, of posts shown on any page.
    tiers = (pages.rows(POST), np.repeat(pages.rows(COMMUNITY), POSTS_IN_FEED), np.arange(len(pages.at)))
    page = np.concatenate(tiers)
    post = np.r_[pages.post[tiers[0]], shop.posts.choose(rng, len(page) - len(tiers[0]))]
    tier = np.repeat(np.arange(3), [len(rows) for rows in tiers])
    to_view = np.where(tier == 0, 0, (rng.random(len(page)) * pages.time_on_page[page]).astype(np.int64))
    at = pages.at[page] + to_view
    is_signed_in = pages.is_signed_in(pages.visit[page], pages.at[page])
    views = sample_first(rng, round(0.8 * count), *(np.flatnonzero(is_signed_in & (tier == n)) for n in range(3)))
    likes = sample(rng, views, count - len(views))
    delay = rng.integers(2 * SECOND, MINUTE, len(likes))
    row = np.r_[views, likes]
    visit, post = pages.visit[page[row]], post[row]
    at = at[row] + np.r_[np.zeros(len(views), np.int64), delay]
    is_like = np.repeat([False, True], [len(views), len(likes)])
    ids = hex_digits(rng, len(row))

    def build(rows: Ints) -> Iterator[Draft]:
        for number, visit_index, post_index, text, liked in zip(
            rows.tolist(), visit[rows].tolist(), post[rows].tolist(), time_texts(at[rows]), is_like[rows].tolist(),
            strict=True,
        ):  # fmt: skip
            user_id = pages.users[pages.user[visit_index]]["user_id"]
            body = {
                "event_id": uuid_text(ids, number),
                "user_id": user_id,
                "post_id": pages.posts[post_index]["post_id"],
                "created_at": f"{text}Z",
                "event_type": "like" if liked else "view",
            }
            yield user_id.encode(), body, {}

    return Drawn(STREAMS["post_events"], at + latency(rng, len(row)), build)
