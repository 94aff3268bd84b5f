"""Publishes the time spent on each page to Kafka, once it is known and again when it was corrected.

A result is a page view of fct_page_views whose time_on_page_seconds is known. Consumers identify it by session_id,
element_timestamp and page. The message key is the source's own session id, also with var `session_key: user_id`.

docs/architecture.md#emitting-results shows why no result is missed while builds run.
"""

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import orjson
import structlog

from common.settings import Settings
from engines.warehouse import FIRST_CURSOR, Result, ResultSource
from ingest.message import Message
from ingest.producers.kafka import KafkaProducer

CHUNK_ROWS = 50_000
"""Results published between two saved cursors: what a killed run sends twice at most."""
MICROSECOND = timedelta(microseconds=1)
log = structlog.get_logger()
JSON_TIMES = orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z


def emit(
    settings: Settings,
    warehouse: ResultSource,
    *,
    from_start: bool = False,
    on_progress: Callable[[int], None] = lambda results: None,
) -> int:
    """Publish the results that are new since the last run, all of them with `from_start`; returns how many.

    One that is too large for Kafka (`message.max.bytes` of KAFKA_CONFIG_FILE), as by a page title of a megabyte, is
    logged and left out, since it would keep all that lie behind it from ever being sent.

    The cursor is saved after each chunk is delivered: a run that is killed leaves no gap, and the next one sends
    again, in the same order, what was under way.

    Raises:
        UserError: without Kafka, its topic or the mart; when Kafka or the warehouse is not to be had; when another
            run is under way, since it could overtake this one with what has become outdated.
    """
    topic = settings.emit_topic
    emitted = 0
    too_large = itertools.count(1)

    def left_out(message: Message) -> None:
        log.error(
            "a result is too large for Kafka and left out", bytes=len(message.payload or b""), so_far=next(too_large)
        )

    with KafkaProducer(settings) as producer, warehouse.emitting():
        cursor = warehouse.emit_cursor(topic)
        if from_start:
            cursor = FIRST_CURSOR
            warehouse.save_emit_cursor(topic, cursor)
        for results in warehouse.results(cursor, CHUNK_ROWS):
            processing_time = datetime.now(UTC)
            messages = (result_message(result, processing_time) for result in results)
            emitted += producer.produce_to(topic, messages, left_out)
            producer.flush()
            warehouse.save_emit_cursor(topic, results[-1].cursor)
            on_progress(len(results))
    return emitted


def count_due(settings: Settings, warehouse: ResultSource, *, from_start: bool = False) -> int:
    """How many results `emit` would publish now.

    Raises:
        UserError: when the mart is not built yet, or the warehouse is not to be had.
    """
    return warehouse.count_results(FIRST_CURSOR if from_start else warehouse.emit_cursor(settings.emit_topic))


def result_message(result: Result, processing_time: datetime) -> Message:
    """The message of a result. `timestamp` is when the time on the page became known: the next page view, or the end
    of the engaged time."""
    try:
        known_at = result.event_at + int(result.time_on_page_seconds * 1_000_000) * MICROSECOND
    except OverflowError:  # engaged for thousands of years, which staging takes: beyond the year 9999
        known_at = None
    body = {
        "session_id": result.source_session_id,
        "page": result.page_title,
        # Exact, and 45 instead of 45.000000.
        "time_spent_seconds": orjson.Fragment(f"{result.time_on_page_seconds.normalize():f}"),
        "timestamp": known_at,
        "window_start": result.session_started_at,
        "window_end": result.window_end_at,
        "element_timestamp": result.event_at,
    }
    headers = {
        "session_id": result.source_session_id,
        "processing_time": processing_time.isoformat().replace("+00:00", "Z"),
    }
    return Message(orjson.dumps(body, option=JSON_TIMES), result.source_session_id.encode(), headers)
