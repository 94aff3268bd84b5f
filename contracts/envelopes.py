"""Detects messages in the envelope of Debezium or of CloudEvents."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

ABOUT_THE_ENVELOPE = ("specversion", "datacontenttype", "dataschema")
"""Attributes of CloudEvents that describe the envelope, not the event."""


Envelope = Literal["debezium", "cloudevents"]


def guess_envelope(bodies: Sequence[Mapping[str, Any]]) -> Envelope | None:
    """Return the envelope that all of the bodies have; None without one."""
    if all({"specversion", "type", "source", "id", "time"} <= body.keys() for body in bodies):
        return "cloudevents"
    if all(_row(body) or _change(body).get("op") == "d" for body in bodies) and any(map(_row, bodies)):
        return "debezium"
    return None


def unwrap(bodies: list[dict[str, Any]], envelope: Envelope | None) -> list[dict[str, Any]]:
    """Return the parts of the bodies in which a contract's paths begin."""
    if envelope == "debezium":
        return [_row(body) for body in bodies]
    if envelope == "cloudevents":
        return [{name: body[name] for name in body if name not in ABOUT_THE_ENVELOPE} for body in bodies]
    return bodies


def _change(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the change: the body, or its `payload` if the message carries its schema."""
    return body["payload"] if isinstance(body.get("payload"), dict) else body


def _row(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of a change; empty if the body is not a change."""
    change = _change(body)
    row = change.get("after") or change.get("before")
    return row if change.get("op") in ("c", "u", "r", "d") and isinstance(row, dict) else {}
