"""The stream page_views: the page views of a day, in the three forms of body that producers send."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from common.streams import STREAMS
from ingest.simulator.draws import SECOND, Draft, Drawn, Ints, Record, latency, time_texts
from ingest.simulator.journeys import Pages
from ingest.simulator.site import (
    CART,
    CATEGORY,
    CHANNELS,
    CHECKOUT,
    COMMUNITY,
    HOME,
    LINKS,
    ORDER,
    POST,
    PRODUCT,
    SALE,
    SEARCH,
    SIGN_IN,
    SITE,
    Channel,
)
from ingest.simulator.visits import CONTINUOUS_QUERY, OLDER
from ingest.simulator.vocabulary import CATEGORIES

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
    """Return the title and path of a page; the path includes its query string."""
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


class _View(NamedTuple):
    """The values of one page view, from which its body is built."""

    at: int
    text: str
    """The instant of the page view as text."""
    title: str
    location: str
    channel: Channel
    seconds: int
    """Engaged time in seconds; -1 if it is not sent."""
    account: int
    """Number of the account; undefined for a guest, who has no user_id."""
    user_id: str | None
    """User id; None while the visitor is not signed in."""
    client: int
    begins_at: int
    """Start of the visit, in seconds since the epoch."""

    @property
    def first_seen_at(self) -> int:
        """First visit of the device, in seconds since the epoch."""
        return 1_735_689_600 + self.client * 7_919 % 31_536_000


def draw_page_views(rng: np.random.Generator, pages: Pages) -> Drawn:
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
            account = pages.user[visit]
            view = _View(
                at=at,
                text=text,
                title=title,
                location=f"{SITE}{path}{LINKS[link]}",
                channel=CHANNELS[pages.channel[visit]],
                seconds=seconds,
                account=account,
                user_id=pages.users[account]["user_id"] if signed_in else None,
                client=pages.client[visit],
                begins_at=pages.begins_at[visit] // SECOND,
            )
            form = pages.form[visit]
            if form == CONTINUOUS_QUERY:
                body = _continuous_query_body(view, as_object)
            elif form == OLDER:
                body = _older_body(view, pages.session[32 * visit : 32 * visit + 12])
            else:
                body = _export_row(view, devices[pages.device[visit]].browser)
            yield None, body, {"timestamp": f"{text[:19]}Z", "source": "ga4"}

    return Drawn(STREAMS["page_views"], pages.at + latency(rng, count), build)


def _continuous_query_body(view: _View, as_object: bool) -> Record:
    """Return a row of a BigQuery continuous query; with `as_object` its parameters are an object, not a list."""
    params: Any
    if as_object:
        params = _params_object(view)
    else:
        params = [
            {"key": "page_title", "value": {"string_value": view.title}},
            {"key": "page_location", "value": {"string_value": view.location}},
            {"key": "traffic_source", "value": {"string_value": view.channel.traffic_source}},
            {"key": "test_event", "value": {"string_value": "false"}},
        ]
        if view.seconds >= 0:
            params.append({"key": "engaged_time", "value": {"int_value": view.seconds}})
    account, signed_in = view.account, view.user_id is not None
    return {
        "session_id": f"{view.client}.{view.begins_at}",
        "page_title": view.title,
        "subscriber_number": str(10_000_000 + account) if signed_in else None,
        "subscriber_lifetime_id": f"sub{account:06x}" if signed_in else None,
        "account_number": f"ACC{100_000 + account}" if signed_in else None,
        "digital_id": f"DIG{view.client}",
        "single_id": f"SID{account}" if signed_in else None,
        "user_id": view.user_id,
        "user_pseudo_id": f"{view.client:032x}=.{view.first_seen_at}",
        "event_date": view.text[:10],
        "event_timestamp_ms": view.at // 1_000,
        "ga_event_dtm": f"{view.text[:19]}Z",
        "event_name": "page_view",
        "event_params": params,
    }


def _older_body(view: _View, session: str) -> Record:
    """Return the body of an older version of the app, which has no session."""
    return {
        "event_id": f"pv-{session}-{view.at}",
        "user_id": view.user_id,
        "page_id": view.title,
        "timestamp_ms": view.at // 1_000,
        "event_params": _params_object(view),
    }


def _params_object(view: _View) -> Record:
    params: Record = {
        "page_title": view.title,
        "page_location": view.location,
        "traffic_source": view.channel.traffic_source,
        "test_event": False,
    }
    if view.seconds >= 0:
        params["engaged_time"] = view.seconds
    return params


def _export_row(view: _View, browser: str) -> Record:
    """Return a row of GA4's BigQuery export."""
    params: list[Record] = [
        {"key": "page_title", "value": {"string_value": view.title}},
        {"key": "page_location", "value": {"string_value": view.location}},
        {"key": "ga_session_id", "value": {"int_value": str(view.begins_at)}},
        {"key": "source", "value": {"string_value": view.channel.source}},
        {"key": "medium", "value": {"string_value": view.channel.medium}},
    ]
    if view.channel.campaign is not None:
        params.append({"key": "campaign", "value": {"string_value": view.channel.campaign}})
    if view.seconds >= 0:
        params.append({"key": "engagement_time_msec", "value": {"int_value": str(view.seconds * 1_000)}})
    return {
        "event_date": view.text[:10].replace("-", ""),
        "event_timestamp": str(view.at),
        "event_name": "page_view",
        "event_params": params,
        "page_title": view.title,
        "user_id": view.user_id,
        "user_pseudo_id": f"{view.client}.{view.first_seen_at}",
        "platform": "WEB",
        "device": {"web_info": {"browser": browser}},
        "items": [],
    }
