"""The streams of the shop: what arrives, by which kind of transport, under which key."""

from dataclasses import dataclass
from typing import Literal

from ingest.errors import UserError

Transport = Literal["pubsub", "kafka"]


@dataclass(frozen=True, slots=True)
class Stream:
    """One stream of messages, landed in the raw table of the same name."""

    name: str
    transport: Transport
    """How it arrives in production; without a broker configured, every stream is read from the spool."""
    key_field: str | None = None
    """The field of the body whose value is the Kafka message key."""


STREAMS: dict[str, Stream] = {
    stream.name: stream
    for stream in (
        Stream("web_events", "pubsub"),
        Stream("page_views", "pubsub"),
        Stream("clicks", "pubsub"),
        Stream("checkouts", "pubsub"),
        Stream("ecom_events", "kafka", "user_id"),
        Stream("post_events", "kafka", "user_id"),
        Stream("users", "kafka", "user_id"),
        Stream("products", "kafka", "product_id"),
        Stream("posts", "kafka", "post_id"),
    )
}


def named(names: list[str] | None) -> list[Stream]:
    """The streams of these names, or all of them.

    Raises:
        UserError: for a name that no stream has.
    """
    if not names:
        return list(STREAMS.values())
    for name in names:
        if name not in STREAMS:
            raise UserError(f"unknown stream {name!r}; the streams are {', '.join(STREAMS)}")
    return [STREAMS[name] for name in dict.fromkeys(names)]
