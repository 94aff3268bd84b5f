"""The stream page_views: the page views of a day, in the three forms of body that producers send."""

from collections.abc import Iterator
from typing import Any

import numpy as np

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
)
from ingest.simulator.visits import CONTINUOUS_QUERY, OLDER
from ingest.simulator.vocabulary import CATEGORIES
from ingest.streams import STREAMS

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
    """Title and path of a page; the path includes its own parameters."""
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
            location = f"{SITE}{path}{LINKS[link]}"
            number = pages.user[visit]
            user_id = pages.users[number]["user_id"] if signed_in else None
            client = pages.client[visit]
            first_seen_at = 1_735_689_600 + client * 7_919 % 31_536_000
            begins_at = pages.begins_at[visit] // SECOND
            channel = CHANNELS[pages.channel[visit]]
            source = channel.traffic_source
            attributes = {"timestamp": f"{text[:19]}Z", "source": "ga4"}
            form = pages.form[visit]
            params: Any
            body: Record
            if form == CONTINUOUS_QUERY:
                if as_object:
                    params = {
                        "page_title": title,
                        "page_location": location,
                        "traffic_source": source,
                        "test_event": False,
                    }
                    if seconds >= 0:
                        params["engaged_time"] = seconds
                else:
                    params = [
                        {"key": "page_title", "value": {"string_value": title}},
                        {"key": "page_location", "value": {"string_value": location}},
                        {"key": "traffic_source", "value": {"string_value": source}},
                        {"key": "test_event", "value": {"string_value": "false"}},
                    ]
                    if seconds >= 0:
                        params.append({"key": "engaged_time", "value": {"int_value": seconds}})
                body = {
                    "session_id": f"{client}.{begins_at}",
                    "page_title": title,
                    "subscriber_number": str(10_000_000 + number) if signed_in else None,
                    "subscriber_lifetime_id": f"sub{number:06x}" if signed_in else None,
                    "account_number": f"ACC{100_000 + number}" if signed_in else None,
                    "digital_id": f"DIG{client}",
                    "single_id": f"SID{number}" if signed_in else None,
                    "user_id": user_id,
                    "user_pseudo_id": f"{client:032x}=.{first_seen_at}",
                    "event_date": text[:10],
                    "event_timestamp_ms": at // 1_000,
                    "ga_event_dtm": f"{text[:19]}Z",
                    "event_name": "page_view",
                    "event_params": params,
                }
            elif form == OLDER:
                params = {
                    "page_title": title,
                    "page_location": location,
                    "traffic_source": source,
                    "test_event": False,
                }
                if seconds >= 0:
                    params["engaged_time"] = seconds
                body = {
                    "event_id": f"pv-{pages.session[32 * visit : 32 * visit + 12]}-{at}",
                    "user_id": user_id,
                    "page_id": title,
                    "timestamp_ms": at // 1_000,
                    "event_params": params,
                }
            else:
                params = [
                    {"key": "page_title", "value": {"string_value": title}},
                    {"key": "page_location", "value": {"string_value": location}},
                    {"key": "ga_session_id", "value": {"int_value": str(begins_at)}},
                    {"key": "source", "value": {"string_value": channel.source}},
                    {"key": "medium", "value": {"string_value": channel.medium}},
                ]
                if channel.campaign is not None:
                    params.append({"key": "campaign", "value": {"string_value": channel.campaign}})
                if seconds >= 0:
                    params.append({"key": "engagement_time_msec", "value": {"int_value": str(seconds * 1_000)}})
                body = {
                    "event_date": text[:10].replace("-", ""),
                    "event_timestamp": str(at),
                    "event_name": "page_view",
                    "event_params": params,
                    "page_title": title,
                    "user_id": user_id,
                    "user_pseudo_id": f"{client}.{first_seen_at}",
                    "platform": "WEB",
                    "device": {"web_info": {"browser": devices[pages.device[visit]].browser}},
                    "items": [],
                }
            yield None, body, attributes

    return Drawn(STREAMS["page_views"], pages.at + latency(rng, count), build)
