"""Checks a sample against a contract before anything lands: `python -m ingest stream check`.

dbt runs the staging model of the stream over a temporary warehouse, so the verdict is that of a build.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import orjson

from common.errors import UserError
from common.settings import Settings
from common.streams import Stream
from contracts.staging import EMBEDDED, stage, staged_table, temporary_warehouse
from engines.duckdb.sink import DuckDBSink
from ingest.landing import land_streams
from ingest.message import value_at
from ingest.producers.spool import SpoolProducer
from ingest.replay import Replay

CHECKED_MESSAGES = 1_000_000
"""Maximum messages that are checked, to bound the disk space."""
SHOWN_CHARACTERS = 60
"""Maximum length of a value in the report."""


@dataclass(frozen=True)
class Rejection:
    """The messages that are rejected for one reason."""

    reason: str
    messages: int
    place: str
    """File and row of the first."""
    detail: str
    """The rejected value; empty if the reason is not a value."""


@dataclass(frozen=True)
class Unlisted:
    """A field that messages have and the contract does not list."""

    path: str
    type: str
    """string, number, boolean, object or array."""
    messages: int
    example: str
    """A value, with its letters replaced by a and its digits by 9."""


@dataclass(frozen=True)
class Verdict:
    """How many messages of a sample staging accepts, and why it rejects the others."""

    messages: int
    accepted: int
    copies: int
    """Accepted messages that repeat an event or version of the sample; facts and histories have it once."""
    rejections: list[Rejection]
    """Most messages first."""
    unlisted: list[Unlisted]
    """Most messages first."""
    is_all: bool
    """Whether the sample has no more messages than were checked."""


def check_sample(settings: Settings, names: Sequence[str], stream: Stream) -> Verdict:
    """Check a sample by the staging model of its stream.

    Args:
        settings: Settings of the project, whose files, warehouse and brokers are not touched.
        names: Files, folders, globs, or `-` for standard input; see `ingest.files.find_files`.
        stream: The stream whose contract is checked.

    Raises:
        UserError: for a file that cannot be read, a sample without a JSON object, or a model that cannot be built.
    """
    replay = Replay(settings.model_copy(update=EMBEDDED), names, stream, force=True)
    with temporary_warehouse(settings) as embedded:
        stop = threading.Event()
        published = 0

        def on_progress(messages: int) -> None:
            nonlocal published
            published += messages
            if published >= CHECKED_MESSAGES:
                stop.set()

        with SpoolProducer(embedded) as producer:
            replay.publish(producer, stop=stop, on_progress=on_progress)
        if replay.unreadable == published:
            found = f"none of {published:,} messages can be read" if published else "there is no message"
            raise UserError(f"{', '.join(names)}: {found}, so there is nothing to check")
        sink = DuckDBSink(embedded.warehouse_path, 0, pseudonym_key=embedded.pseudonym_key)
        # a sample is JSON, whatever its stream is written in
        land_streams(embedded, [stream.model_copy(update={"format": "json"})], sink)
        stage(embedded, stream)
        return _verdict(embedded, stream, replay, is_all=not stop.is_set())


def _verdict(settings: Settings, stream: Stream, replay: Replay, *, is_all: bool) -> Verdict:
    key = "event_key" if stream.kind == "event" else "version_key"
    staged = staged_table(settings, stream)
    with duckdb.connect(str(settings.warehouse_path), read_only=True) as connection:
        rows = connection.sql(
            f"""
            select
                staged.reject_reason,
                count(*),
                count({key}) - count(distinct {key}),
                min_by({{payload: raw.payload, detail: staged.reject_detail}}, raw."offset")
            from {staged} as staged
            inner join raw.{stream.name} as raw using (message_id)
            group by all
            order by count(*) desc, 1
            """  # noqa: S608  the name of a stream, which its contract has checked
        ).fetchall()
        unlisted = connection.sql(
            f"""
            select field.path, field.type, count(*), min(field.example)
            from {staged}
            cross join unnest(
                from_json(unlisted_fields, '[{{"path":"VARCHAR","type":"VARCHAR","example":"VARCHAR"}}]')
            ) as fields (field)
            group by all
            order by count(*) desc, 1, 2
            """  # noqa: S608  the name of a stream, which its contract has checked
        ).fetchall()
    places = replay.places_of({first["payload"] for reason, _, _, first in rows if reason is not None})
    return Verdict(
        messages=sum(messages for _, messages, *_ in rows),
        accepted=sum(messages for reason, messages, *_ in rows if reason is None),
        copies=sum(copies for reason, _, copies, *_ in rows if reason is None),
        rejections=[
            Rejection(
                reason, messages, places.get(first["payload"], ""), _shown(first["detail"], reason, first["payload"])
            )
            for reason, messages, _, first in rows
            if reason is not None
        ],
        unlisted=[Unlisted(*row) for row in unlisted],
        is_all=is_all,
    )


def _shown(detail: str | None, reason: str, payload: bytes) -> str:
    """Return the detail of a rejection, or else the value at the path that the reason names."""
    if detail is None:
        try:
            value = value_at(orjson.loads(payload), reason.partition(":")[2])
        except orjson.JSONDecodeError:
            value = None
        detail = "" if value is None else value if isinstance(value, str) else orjson.dumps(value).decode()
    return detail if len(detail) <= SHOWN_CHARACTERS else f"{detail[:SHOWN_CHARACTERS]}…"
