"""Produces the time spent on each page to Kafka, once it is known and again when it is corrected.

A result is a page view of fct_page_views whose time_on_page_seconds is known. Consumers identify it by session_id,
element_timestamp and page. The message key is the session id of the source, also if var `session_key` is `user_id`.

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
"""Results per saved cursor: at most this many are sent twice if a run is killed."""
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
    """Produce the results that changed since the last run; returns their number.

    A result above `message.max.bytes`, for example with a page title of a megabyte, is logged and skipped: otherwise it
    would block all later results.

    The cursor is saved after each delivered chunk. So a killed run leaves no gap: the next one repeats, in the same
    order, what was sent after the last saved cursor.

    Args:
        from_start: produce all results.

    Raises:
        UserError: if Kafka, the topic or the mart is missing; if Kafka or the warehouse does not answer; or if another
            run is active, which could send outdated results after newer ones.
    """
    topic = settings.emit_topic
    emitted = 0
    too_large = itertools.count(1)

    def left_out(message: Message) -> None:
        log.error(
            "a result is too large for Kafka and was skipped", bytes=len(message.payload or b""), so_far=next(too_large)
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
    """Return the number of results that `emit` would produce now.

    Raises:
        UserError: if the mart is not built yet, or the warehouse does not answer.
    """
    return warehouse.count_results(FIRST_CURSOR if from_start else warehouse.emit_cursor(settings.emit_topic))


def result_message(result: Result, processing_time: datetime) -> Message:
    """Return the message of a result. Its `timestamp` is when the time on page became known: at the next page view, or
    at the end of the engaged time."""
    try:
        known_at = result.event_at + int(result.time_on_page_seconds * 1_000_000) * MICROSECOND
    except OverflowError:  # later than the year 9999: staging accepts any engaged time
        known_at = None
    body = {
        "session_id": result.source_session_id,
        "page": result.page_title,
        # exact, without trailing zeros
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
