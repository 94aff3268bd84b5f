"""Deduplication of accepted messages, dead letters, and the counts of all messages."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from typing import TypeVar

from specification.landed import Landed
from specification.messages import Event, Rejected, Version, published
from specification.rows import Mart, Row
from specification.values import seconds_between

T = TypeVar("T", Event, Version)


def first_copies(copies: Iterable[T]) -> list[T]:
    """Of accepted copies with the same key, the first in the log counts, whatever the others contain."""
    first: dict[str, T] = {}
    for copy in sorted(copies, key=lambda copy: copy.message.log_order):
        first.setdefault(copy.key, copy)
    return list(first.values())


def event_row(event: Event) -> Row:
    return {
        **event.contents,
        "stream": event.stream,
        "event_id": event.event_id,
        "event_key": event.key,
        "event_date": event.event_at.date(),
        "message_id": event.message.message_id,
        "published_at": event.published_at,
        "landed_at": event.landed_at,
        "latency_seconds": seconds_between(event.event_at, event.published_at),
    }


def first_recoveries(messages: Iterable[Landed]) -> dict[tuple[str, datetime, str], Landed]:
    """The message that recovers a rejected one, by stream, landed_at and message_id of the latter. The first counts."""
    found: dict[tuple[str, datetime, str], Landed] = {}
    for message in sorted(messages, key=lambda message: message.landed_at):
        if message.original:
            found.setdefault((message.stream, *message.original), message)
    return found


def dead_letter(message: Landed, rejected: Rejected, recovery: Landed | None) -> Row:
    """A rejected message. One that was recovered stays, with the time and the patch of its recovery."""
    return {
        "message_id": message.message_id,
        "stream": message.stream,
        "reason": rejected.reason,
        "detail": rejected.detail,
        "payload": message.payload,
        "published_at": published(message),
        "landed_at": message.landed_at,
        "recovered_at": recovery.landed_at if recovery else None,
        "recovery_patch": recovery.recovery_patch if recovery else None,
    }


def reconciliation(
    messages: list[Landed], accepted: Sequence[Event | Version], kept: Sequence[Event | Version], dead_letters: Mart
) -> Mart:
    """For every stream and landing date: landed = accepted + duplicates + rejected.

    A rejected message that was recovered stays rejected, on its own date; the message that recovers it counts too.

    A copy of an event is conflicting if its contents differ from the copy that counts. Versions of entities never are,
    as their contents are a part of their identity.
    """
    names = ("landed", "accepted", "duplicates", "conflicting", "rejected", "recovered", "mismatched_keys")
    counts: dict[tuple[str, date], dict[str, int]] = defaultdict(lambda: dict.fromkeys(names, 0))
    last_landed_at: dict[tuple[str, date], datetime] = {}
    newest_event_at: dict[tuple[str, date], datetime] = {}
    first = {one.key: one for one in kept}
    for message in messages:
        of = message.stream, message.landed_at.date()
        counts[of]["landed"] += 1
        last_landed_at[of] = max(message.landed_at, last_landed_at.get(of, message.landed_at))
    for copy in accepted:
        of = copy.stream, copy.landed_at.date()
        if isinstance(copy, Event):
            newest_event_at[of] = max(copy.event_at, newest_event_at.get(of, copy.event_at))
        day = counts[of]
        kept_copy = first[copy.key]
        day["accepted" if copy is kept_copy else "duplicates"] += 1
        if isinstance(copy, Event) and isinstance(kept_copy, Event):
            day["conflicting"] += copy.contents != kept_copy.contents
        else:
            day["mismatched_keys"] += isinstance(copy, Version) and copy.has_mismatched_key
    for letter in dead_letters:
        day = counts[letter["stream"], letter["landed_at"].date()]
        day["rejected"] += 1
        day["recovered"] += letter["recovered_at"] is not None
    return [
        {
            "stream": of[0],
            "landed_date": of[1],
            **count,
            "is_balanced": True,
            "newest_event_at": newest_event_at.get(of),
            "last_landed_at": last_landed_at[of],
        }
        for of, count in counts.items()
    ]
