"""Publishes a file of past events, CSV or JSON, to a stream."""

import csv
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from ingest.errors import UserError
from ingest.message import Message
from ingest.publish import Publisher
from ingest.settings import Settings
from ingest.streams import Stream

TIME_FIELDS: dict[str, tuple[str, ...]] = {
    "web_events": ("timestamp",),
    "page_views": ("ga_event_dtm", "event_timestamp_ms", "timestamp_ms", "event_timestamp"),
    "clicks": ("datetime_occured",),
    "checkouts": ("datetime_occured",),
    "ecom_events": ("event_time",),
    "post_events": ("created_at",),
    "users": ("updated_at", "created_at"),
    "products": ("updated_at", "created_at"),
    "posts": ("updated_at", "created_at"),
}
"""Where the time of an event or a version stands, the first that is readable."""

MESSAGES_A_PUBLISH = 1_000
"""Few enough to stay in the processor's cache: with ten times as many the spool takes a third fewer a second."""
LINES_A_RECORD = 1_000
"""A quoted field may run over this many lines; a quote that opens and never closes must not eat the file."""
DOCUMENT_BYTES = 64 * 1024 * 1024
"""A .json file larger than this is taken for one body a line without a look at the whole."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def replay(
    settings: Settings,
    publisher: Publisher,
    path: Path,
    stream: Stream,
    *,
    speed: float | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> int:
    """Publish the rows of a file in its order, as messages published at the time of their event.

    A row that cannot be read is published as its raw bytes and becomes a dead letter. Empty lines are skipped.

    Args:
        settings: Unused as yet; the publisher knows its transport.
        publisher: An open publisher.
        path: `.csv` with a header row (a row becomes a JSON object of strings), or `.ndjson`, `.jsonl` or
            `.json` with one body a line, published byte for byte. A `.json` file of one document over
            several lines is one body.
        stream: The stream to publish to.
        speed: How many times real time, by the times of the events; None is as fast as possible.
        on_progress: Called now and then, and at the end, with the messages published so far.

    Returns:
        How many messages were published.

    Raises:
        UserError: for a file that cannot be read, has an unknown extension or no header, a speed of 0 or less, or
            messages that are not delivered.
    """
    if speed is not None and not speed > 0:
        raise UserError(f"speed is {speed}; it must be more than 0")
    readers = {".csv": _csv_messages, ".ndjson": _line_messages, ".jsonl": _line_messages, ".json": _json_messages}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"{path}: replay reads {', '.join(readers)} files")
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    published = 0
    with file:
        if file.peek(3).startswith(BYTE_ORDER_MARK):
            file.seek(3)
        messages = reader(file, stream)
        for batch in _batches(messages) if speed is None else _paced(messages, speed):
            published += publisher.publish(stream, batch)
            if on_progress is not None:
                on_progress(published)
    publisher.flush()
    return published


def _batches(messages: Iterator[Message]) -> Iterator[Iterable[Message]]:
    """Each batch must be used up before the next: a message is made only when the publisher takes it."""
    for message in messages:
        yield chain((message,), islice(messages, MESSAGES_A_PUBLISH - 1))


def _paced(messages: Iterator[Message], speed: float) -> Iterator[Iterable[Message]]:
    """What is due by now, then a pause until the next is."""
    started = time.monotonic()
    first: int | None = None
    batch: list[Message] = []
    for message in messages:
        if message.published_at is not None:
            first = message.published_at if first is None else first
            due = started + (message.published_at - first) / 1_000_000 / speed
            if due > time.monotonic():
                if batch:
                    yield batch
                    batch = []
                # publishing took its time too: only what is left of the pause
                time.sleep(max(0.0, due - time.monotonic()))
        batch.append(message)
        if len(batch) >= MESSAGES_A_PUBLISH:
            yield batch
            batch = []
    if batch:
        yield batch


# -- JSON -------------------------------------------------------------------------------------------------------------


def _line_messages(lines: Iterable[bytes], stream: Stream) -> Iterator[Message]:
    for line in lines:
        if line.strip():
            yield _json_message(line.rstrip(b"\r\n"), stream)


def _json_messages(file: BinaryIO, stream: Stream) -> Iterator[Message]:
    """One body a line, unless the whole file is one document: a body, or an array of bodies."""
    begin = file.tell()
    document = file.read(DOCUMENT_BYTES + 1)
    if len(document) <= DOCUMENT_BYTES:
        with suppress(orjson.JSONDecodeError):
            parsed = orjson.loads(document)
            bodies = [orjson.dumps(body) for body in parsed] if isinstance(parsed, list) else [document.strip()]
            yield from (_json_message(body, stream) for body in bodies)
            return
    file.seek(begin)
    yield from _line_messages(file, stream)


def _json_message(body: bytes, stream: Stream) -> Message:
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        fields = None
    if not isinstance(fields, dict):
        return Message(body)
    return Message(body, key=_key(fields, stream), published_at=_published_at(fields, stream))


# -- CSV --------------------------------------------------------------------------------------------------------------


def _csv_messages(file: BinaryIO, stream: Stream) -> Iterator[Message]:
    lines: Iterator[bytes] = iter(file)
    try:
        header = _fields(next(lines, b""))
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{file.name}: the first line is no CSV header ({error})") from error
    if not any(header):
        raise UserError(f"{file.name}: the first line must be a CSV header, and is empty")
    width = len(header)
    # looked up once, not in each row: this loop is the cost of a replay
    key_column = header.index(stream.key_field) if stream.key_field in header else None
    time_columns = [header.index(name) for name in TIME_FIELDS[stream.name] if name in header]
    # lines that were read ahead for a quoted field that did not close, to be read again by themselves
    again: deque[bytes] = deque()
    while line := again.popleft() if again else next(lines, b""):
        if not line.strip():
            continue
        fields: list[str] | None = None
        if b'"' in line:
            fields = _quoted_fields(line, lines, again, width)
        else:
            with suppress(UnicodeDecodeError):
                fields = line.rstrip(b"\r\n").decode().split(",")
        if fields is None or len(fields) != width:
            yield Message(line.rstrip(b"\r\n"))
            continue
        key = fields[key_column].encode() if key_column is not None else b""
        published_at = None
        for column in time_columns:
            if (published_at := _instant(fields[column])) is not None:
                break
        yield Message(orjson.dumps(dict(zip(header, fields, strict=True))), key or None, {}, published_at)


def _fields(record: bytes) -> list[str]:
    """The fields of one record.

    Raises:
        csv.Error: for a quote that does not close, or text after a closing quote.
    """
    text = record.decode().removesuffix("\n").removesuffix("\r")
    # one string, not its lines: a newline within quotes belongs to the field
    return next(csv.reader([text], strict=True), [])


def _quoted_fields(line: bytes, lines: Iterator[bytes], again: deque[bytes], width: int) -> list[str] | None:
    """The fields of the record that begins with this line, with the following lines if a quoted field runs on.

    Lines that turn out not to belong to the record are put back into `again`.
    """
    ahead: list[bytes] = []
    # an odd number of quotes is no whole record, unless one stands in the midst of a bare field: so the line
    # is tried by itself first, then up to where the quotes are even
    quotes = line.count(b'"')
    record = line
    while True:
        try:
            fields = _fields(record)
        except (csv.Error, UnicodeDecodeError):
            fields = []
        if len(fields) == width:
            return fields
        if quotes % 2 == 0:
            break
        while quotes % 2 and len(ahead) < LINES_A_RECORD:
            following = again.popleft() if again else next(lines, b"")
            if not following:
                break
            ahead.append(following)
            quotes += following.count(b'"')
        if quotes % 2:
            break
        record = b"".join((line, *ahead))
    again.extendleft(reversed(ahead))
    return None


# -- key and time -----------------------------------------------------------------------------------------------------


def _key(fields: dict[str, Any], stream: Stream) -> bytes | None:
    value = None if stream.key_field is None else fields.get(stream.key_field)
    if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
        return str(value).encode()
    return None


def _published_at(fields: dict[str, Any], stream: Stream) -> int | None:
    """Microseconds since the epoch, from the first time field that is readable."""
    for name in TIME_FIELDS[stream.name]:
        value = fields.get(name)
        if isinstance(value, str | int) and not isinstance(value, bool):
            instant = _instant(value)
            if instant is not None:
                return instant
    return None


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
LATEST = (datetime.max.replace(tzinfo=UTC) - EPOCH) // MICROSECOND


@lru_cache(maxsize=4096)  # the rows of a history come in order, many in one second
def _instant(value: str | int) -> int | None:
    if isinstance(value, int) or re.fullmatch(r"\d{9,18}", value, re.ASCII):
        instant = int(value)
        # by its size: seconds, milliseconds (from 1973 on) or microseconds since the epoch
        if instant < 10**11:
            instant *= 1_000_000
        elif instant < 10**14:
            instant *= 1_000
    else:
        try:
            moment = datetime.fromisoformat(value.removesuffix(" UTC"))
        except ValueError:
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        instant = (moment - EPOCH) // MICROSECOND
    # no broker takes a time before the epoch
    return instant if 0 <= instant <= LATEST else None
