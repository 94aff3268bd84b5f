"""What each mart holds, given all messages that have landed. A mart is a list of rows; a row is a dict by column."""

from collections.abc import Iterable, Mapping

from specification.accounting import dead_letter, event_row, first_copies, first_recoveries, reconciliation
from specification.aggregates import (
    Days,
    arrival_lateness_daily,
    category_performance_daily,
    events_daily,
    events_hourly,
    post_metrics_daily,
    product_events_hourly,
    product_performance_daily,
    user_metrics_daily,
)
from specification.attribution import checkout_attribution
from specification.contracts import CONTRACTS, Contract
from specification.drift import Difference, differences, field_drift, unlisted_fields
from specification.entities import Countries, current, history, posts, products, users
from specification.landed import Landed, Settings
from specification.messages import Event, Rejected, Version
from specification.rows import Mart
from specification.sessions import page_views_in_sessions, session_row, store_sessions
from specification.staging import read


def marts(
    messages: Iterable[Landed],
    settings: Settings,
    countries: Countries,
    contracts: Mapping[str, Contract] = CONTRACTS,
    secret: bytes = b"",
) -> dict[str, Mart]:
    """Every mart by name.

    Args:
        contracts: stream to contract.
        secret: key of the hashes that replace personal values.
    """
    messages = list(messages)
    accepted: list[Event | Version] = []
    dead_letters: Mart = []
    drift: list[Difference] = []
    recoveries = first_recoveries(messages)
    for message in messages:
        contract = contracts[message.stream]
        reason, detail = None, None
        try:
            accepted.append(read(message, contract, settings, secret))
        except Rejected as rejected:
            recovery = recoveries.get((message.stream, message.landed_at, message.message_id))
            dead_letters.append(dead_letter(message, rejected, recovery))
            reason, detail = rejected.reason, rejected.detail
        unlisted = unlisted_fields(message, contract)
        drift += differences(message.stream, message.landed_at, unlisted, reason, detail, contract)

    events = first_copies(one for one in accepted if isinstance(one, Event))
    versions = first_copies(one for one in accepted if isinstance(one, Version))
    entities = {stream: contract for stream, contract in contracts.items() if contract.kind == "entity"}
    histories = {
        stream: history([one for one in versions if one.stream == stream], contract.id_column)
        for stream, contract in entities.items()
    }
    page_views = page_views_in_sessions(events, settings)
    days = Days(settings)
    user_days = user_metrics_daily(events, page_views, days)
    post_days = post_metrics_daily(events, days)
    product_days = product_performance_daily(events, days)
    return {
        "fct_events": [event_row(event) for event in events],
        "fct_page_views": page_views,
        "fct_sessions": [session_row(view) for view in page_views if view["sequence_number"] == 1],
        "fct_session_event_sequence": store_sessions(events),
        "fct_checkout_attribution": checkout_attribution(events, histories["users"], settings),
        "agg_events_daily": events_daily(events, days),
        "agg_events_hourly": events_hourly(events, days),
        "agg_product_events_hourly": product_events_hourly(events, days),
        "agg_product_performance_daily": product_days,
        "agg_category_performance_daily": category_performance_daily(events, days),
        "agg_post_metrics_daily": post_days,
        "agg_user_metrics_daily": user_days,
        "agg_arrival_lateness_daily": arrival_lateness_daily(events, days),
        "stream_freshness": [],  # `live` adds the rows
        **{f"dim_{stream}_history": versions_of for stream, versions_of in histories.items()},
        **{
            f"dim_{stream}": current(histories[stream], one.id_column, *one.columns())
            for stream, one in entities.items()
        },
        "dim_users": users(histories["users"], user_days, countries),
        "dim_products": products(histories["products"], product_days),
        "dim_posts": posts(histories["posts"], post_days),
        "dead_letters": dead_letters,
        "field_drift": field_drift(drift),
        "landing_reconciliation": reconciliation(messages, accepted, [*events, *versions], dead_letters),
    }
