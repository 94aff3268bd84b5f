"""Sessions of page views and of store events."""

from collections.abc import Sequence
from datetime import timedelta

from specification.landed import Settings
from specification.messages import Event
from specification.rows import Mart, Row, grouped, in_order
from specification.values import seconds_between, surrogate_key


def page_views_in_sessions(events: Sequence[Event], settings: Settings) -> Mart:
    """A session is the page views of one key, in order of (event_at, event_id), in which no gap exceeds the limit.

    A gap of exactly the limit does not split.
    """
    gap = timedelta(seconds=settings.session_gap_seconds)
    views = [event for event in events if event.stream == "page_views"]
    rows: Mart = []
    for session_key, of_key in grouped(views, lambda view: getattr(view, settings.session_key)).items():
        sessions: list[list[Event]] = []
        for view in in_order(of_key):
            if not sessions or view.event_at - sessions[-1][-1].event_at > gap:
                sessions.append([])
            sessions[-1].append(view)
        for session in sessions:
            rows.extend(page_view_rows(session_key, session, gap))
    return rows


def page_view_rows(session_key: str, session: list[Event], gap: timedelta) -> Mart:
    """Time on a page runs to the next page view; on the last page it is the engagement time of the event, if any."""
    first, last = session[0], session[-1]
    rows = []
    for place, view in enumerate(session):
        following = session[place + 1] if place + 1 < len(session) else None
        source, seconds = None, None
        if following is not None:
            source, seconds = "next_page", seconds_between(view.event_at, following.event_at)
        elif view.engaged_seconds is not None:
            source, seconds = "engaged_time", view.engaged_seconds
        rows.append(
            {
                "event_key": view.key,
                "event_id": view.event_id,
                "session_id": surrogate_key(session_key, first.key),
                "session_key": session_key,
                "source_session_id": view.source_session_id,
                "user_id": view.user_id,
                "account_number": view.account_number,
                "traffic_source": view.traffic_source,
                "page_title": view.page_title,
                "event_at": view.event_at,
                "event_date": view.event_at.date(),
                "sequence_number": place + 1,
                "previous_event_at": session[place - 1].event_at if place else None,
                "next_event_at": following.event_at if following else None,
                "time_on_page_seconds": seconds,
                "time_on_page_source": source,
                "window_end_at": last.event_at + gap,
                "session_started_at": first.event_at,
                "session_ended_at": last.event_at,
                "session_page_views": len(session),
                "entry_page_title": first.page_title,
                "exit_page_title": last.page_title,
                "session_duration_seconds": seconds_between(first.event_at, last.event_at),
                "message_id": view.message.message_id,
                "landed_at": view.landed_at,
                "session_landed_at": max(one.landed_at for one in session),
            }
        )
    return rows


def session_row(first_view: Row) -> Row:
    """A session, from the row of its first page view."""
    same = (
        "session_id session_key source_session_id user_id account_number traffic_source event_date session_started_at "
        "session_ended_at window_end_at entry_page_title exit_page_title session_landed_at"
    )
    return {
        **{name: first_view[name] for name in same.split()},
        "page_views": first_view["session_page_views"],
        "duration_seconds": first_view["session_duration_seconds"],
        "is_bounce": first_view["session_page_views"] == 1,
    }


def store_sessions(events: Sequence[Event]) -> Mart:
    """The store events of each user_session in order of (event_at, event_id), however far apart."""
    store_events = [event for event in events if event.stream == "ecom_events" and event.source_session_id is not None]
    rows: Mart = []
    for session_id, of_session in grouped(store_events, lambda event: event.source_session_id).items():
        session = in_order(of_session)
        for place, event in enumerate(session):
            previous = session[place - 1] if place else None
            rows.append(
                {
                    "event_key": event.key,
                    "event_id": event.event_id,
                    "source_session_id": session_id,
                    "user_id": event.user_id,
                    "product_id": event.product_id,
                    "event_type": event.event_type,
                    "event_at": event.event_at,
                    "event_date": event.event_at.date(),
                    "session_event_number": place + 1,
                    "seconds_since_previous": seconds_between(previous.event_at, event.event_at) if previous else None,
                    "previous_event_type": previous.event_type if previous else None,
                    "session_started_at": session[0].event_at,
                    "session_ended_at": session[-1].event_at,
                    "session_duration_seconds": seconds_between(session[0].event_at, session[-1].event_at),
                }
            )
    return rows
