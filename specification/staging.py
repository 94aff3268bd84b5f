"""What each message says, by the contract of its stream.

A message is rejected for the first reason that applies, in the order in which the functions check them.
"""

from collections.abc import Iterable, Mapping

from specification.contracts import Contract
from specification.drift import unlisted_fields
from specification.events import read_event
from specification.fields import body_of
from specification.landed import Landed, Settings
from specification.messages import Event, Rejected, Version
from specification.page_views import read_page_view
from specification.rows import Mart, Row
from specification.values import json_text
from specification.versions import read_tombstone, read_version


def read(message: Landed, contract: Contract, settings: Settings, secret: bytes = b"") -> Event | Version:
    """The event or version of a message.

    Args:
        secret: key of the hashes that replace personal values.

    Raises:
        Rejected: if the message is not an acceptable event or version.
    """
    if contract.stream == "page_views":
        return read_page_view(message, body_of(message, contract), settings)
    if contract.kind == "event":
        return read_event(message, contract, settings, secret)
    if message.payload is None:
        return read_tombstone(message, contract, settings)
    return read_version(message, contract, settings, secret)


def staged(
    messages: Iterable[Landed], settings: Settings, contracts: Mapping[str, Contract], secret: bytes = b""
) -> dict[str, Mart]:
    """The rows of staging by model: one per message of these streams. A rejected message has only the columns about its
    rejection."""
    found: dict[str, Mart] = {f"stg_{stream}": [] for stream in contracts}
    for message in messages:
        row: Row = {"stream": message.stream, "message_id": message.message_id, "landed_at": message.landed_at}
        row |= dict.fromkeys(("reject_reason", "reject_detail", "rejected_payload"))
        unlisted = unlisted_fields(message, contracts[message.stream])
        row["unlisted_fields"] = json_text(unlisted) if unlisted else None
        try:
            one = read(message, contracts[message.stream], settings, secret)
        except Rejected as rejected:
            row |= {
                "reject_reason": rejected.reason,
                "reject_detail": rejected.detail,
                "rejected_payload": message.payload,
            }
        else:
            row |= one.values | {"published_at": one.published_at}
            if isinstance(one, Event):
                of_type = {"event_type": one.event_type} if contracts[one.stream].type_field else {}
                times = {"event_at": one.event_at, "event_date": one.event_at.date()}
                row |= {"event_key": one.key, "event_id": one.event_id, **of_type, **times}
            else:
                row |= {"version_key": one.key, contracts[one.stream].id_column: one.id}
                row |= {"created_at": one.created_at, "updated_at": one.updated_at, "deleted_at": one.deleted_at}
                row |= {"is_tombstone": one.is_tombstone, "is_key_mismatch": one.has_mismatched_key}
        found[f"stg_{message.stream}"].append(row)
    return found
