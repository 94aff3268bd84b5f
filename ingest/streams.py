"""The streams of the shop: what arrives, by which kind of transport, under which key."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from ingest.errors import UserError

Transport = Literal["pubsub", "kafka"]

STAGING = Path(__file__).parents[1] / "dbt_project" / "models" / "staging"


@dataclass(frozen=True, slots=True)
class Stream:
    """One stream of messages, landed in the raw table of the same name."""

    name: str
    transport: Transport
    """How it arrives in production; without a broker configured, every stream is read from the spool."""
    times: tuple[str, ...]
    """Fields of the body that hold the time of the event or version, in order of preference."""
    required: tuple[str, ...]
    """Fields without which staging rejects the body; `a|b` means a or b."""
    key_field: str | None = None
    """The field of the body whose value is the Kafka message key."""


VERSION_TIMES = ("updated_at", "created_at")
PAGE_VIEW_TIMES = ("ga_event_dtm", "event_timestamp_ms", "timestamp_ms", "event_timestamp")

STREAMS: dict[str, Stream] = {
    stream.name: stream
    for stream in (
        Stream("web_events", "pubsub", ("timestamp",), ("timestamp", "event", "product")),
        Stream(
            "page_views",
            "pubsub",
            PAGE_VIEW_TIMES,
            ("session_id|user_pseudo_id|page_id", "|".join(PAGE_VIEW_TIMES), "page_title|page_id|event_params"),
        ),
        Stream("clicks", "pubsub", ("datetime_occured",), ("click_id", "user_id", "product_id", "datetime_occured")),
        Stream(
            "checkouts", "pubsub", ("datetime_occured",), ("checkout_id", "user_id", "product_id", "datetime_occured")
        ),
        Stream("ecom_events", "kafka", ("event_time",), ("event_time", "event_type", "product_id"), "user_id"),
        Stream(
            "post_events",
            "kafka",
            ("created_at",),
            ("event_id", "user_id", "post_id", "created_at", "event_type"),
            "user_id",
        ),
        Stream("users", "kafka", VERSION_TIMES, ("user_id", "updated_at"), "user_id"),
        Stream("products", "kafka", VERSION_TIMES, ("product_id", "updated_at"), "product_id"),
        Stream("posts", "kafka", VERSION_TIMES, ("post_id", "updated_at"), "post_id"),
    )
}


@cache
def body_fields(stream: Stream) -> tuple[str, ...]:
    """The fields that the stream's staging model reads: the argument of its `parse_json`."""
    from jinja2 import Environment, nodes

    [model] = STAGING.glob(f"*/stg_{stream.name}.sql")
    tree = Environment(extensions=["jinja2.ext.do"]).parse(model.read_text(encoding="utf-8"))  # noqa: S701  parsed, never rendered
    variables = {one.target.name: one.node for one in tree.find_all(nodes.Assign) if isinstance(one.target, nodes.Name)}
    [fields] = [
        call.args[1]
        for call in tree.find_all(nodes.Call)
        if isinstance(call.node, nodes.Name) and call.node.name == "parse_json"
    ]
    constant = variables[fields.name] if isinstance(fields, nodes.Name) else fields
    assert isinstance(constant, nodes.List)  # noqa: S101  a staging model of another shape: a test has all of them
    return tuple(constant.as_const())


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
