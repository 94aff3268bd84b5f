"""Checkouts with the click that led to them."""

from collections.abc import Sequence
from datetime import timedelta

from specification.landed import Settings
from specification.messages import Event
from specification.rows import Mart, grouped, in_order
from specification.values import seconds_between


def checkout_attribution(events: Sequence[Event], user_history: Mart, settings: Settings) -> Mart:
    """Each checkout with the earliest click of its user on its product in the window before it, both ends included.

    The user's name is the one valid at the checkout, by all versions that have landed.
    """
    window = timedelta(seconds=settings.attribution_window_seconds)
    clicks = grouped((e for e in events if e.stream == "clicks"), lambda click: (click.user_id, click.product_id))
    versions = grouped(user_history, lambda version: version["user_id"])
    rows: Mart = []
    for checkout in (event for event in events if event.stream == "checkouts"):
        of_pair = clicks.get((checkout.user_id, checkout.product_id), [])
        clicks_in_window = in_order(
            click for click in of_pair if checkout.event_at - window <= click.event_at <= checkout.event_at
        )
        first = clicks_in_window[0] if clicks_in_window else None
        names = [
            version["user_name"]
            for version in versions.get(checkout.user_id, [])
            if version["valid_from"] <= checkout.event_at < version["valid_to"]
        ]
        rows.append(
            {
                "event_key": checkout.key,
                "checkout_id": checkout.event_id,
                "checkout_at": checkout.event_at,
                "event_date": checkout.event_at.date(),
                "user_id": checkout.user_id,
                "user_name": names[0] if names else None,
                "product_id": checkout.product_id,
                "total_amount": checkout.total_amount,
                "first_click_id": first.event_id if first else None,
                "first_click_at": first.event_at if first else None,
                "first_click_url": first.url if first else None,
                "seconds_to_checkout": seconds_between(first.event_at, checkout.event_at) if first else None,
                "clicks_in_window": len(clicks_in_window),
                "is_attributed": first is not None,
            }
        )
    return rows
