"""Publishes files of past events to a stream. All of them are checked before the first row is published."""

import difflib
import json
import re
import shlex
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from itertools import islice
from typing import Any

import orjson
import structlog

from common.errors import UserError
from common.settings import Settings
from common.streams import Stream
from ingest.files import (
    BLOCK_BYTES,
    SAMPLE,
    SHOWN_CHARACTERS,
    CsvHeader,
    EventFile,
    NotJsonError,
    check_distinct,
    csv_body,
    csv_header,
    csv_records,
    find_files,
    json_bodies,
    json_layout,
    parquet_bodies,
    parquet_columns,
)
from ingest.message import Message, value_at
from ingest.producers import MessageTooLargeError, Producer, duration, retentions
from ingest.replay.event_time import event_instant
from ingest.replay.pacing import batches, paced_batches

BEGINNING = 60
"""Bytes that are shown of a file that is not JSON."""
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Part:
    """One file and the function that reads its messages."""

    file: EventFile
    read: Callable[[], Iterator[Message]]
    check: Callable[[], Iterator[object]] | None
    """Reads everything that can make the file invalid, such as an array's last element; None if its lines are
    independent, so that an invalid one is only a dead letter."""


class Replay:
    """Files that were checked against a stream and can be published.

    Args:
        settings: They name the Kafka topic, whose retention is compared with the times of the rows.
        names: Files, folders, globs, or `-` for standard input; see `find_files`.
        stream: The stream to publish to.
        renames: `ours=theirs` each: the column `theirs` of CSV and Parquet files becomes the field `ours`.
        force: Accept files that do not match the stream, and rows older than Kafka's retention.

    Raises:
        UserError: For a file that cannot be read, has a duplicate column, or does not match the stream, and for rows
            older than Kafka's retention.
    """

    def __init__(
        self,
        settings: Settings,
        names: Sequence[str],
        stream: Stream,
        *,
        renames: Sequence[str] = (),
        force: bool = False,
    ) -> None:
        self.unreadable = 0
        """Number of published messages whose row could not be read."""
        self._stream = stream
        self._paths = [path for field in stream.fields for path in field.paths]
        self._fields = {field.in_body: field for field in stream.fields}
        self._renames = _parsed_renames(renames, stream)
        self._force = force
        self._parts = []
        for file in find_files(names):
            with file.reading():
                self._parts.append(self._part(file))
        kept = None if force else retentions(settings, [stream]).get(stream.name)
        self._check_all(kept, settings.topic(stream))

    def publish(
        self,
        producer: Producer,
        *,
        speed: float | None = None,
        stop: threading.Event | None = None,
        on_progress: Callable[[int], None] = lambda messages: None,
    ) -> int:
        """Publish one message per row, in order, with the time of the event as the message's time.

        A row that cannot be read is published as its raw bytes and becomes a dead letter. Empty lines are skipped.

        Args:
            producer: An open producer.
            speed: Multiple of real time, by the times of the events; None publishes without pauses.
            stop: Set it to end after the current batch.
            on_progress: Called after each batch with its number of messages.

        Returns:
            The number of messages that were delivered.

        Raises:
            UserError: For a speed of 0 or less, a message that is too large (naming file and row), or messages that
                are not delivered.
        """
        if speed is not None and not speed > 0:
            raise UserError(f"speed is {speed}; it must be more than 0")
        stop = stop or threading.Event()
        published = self.unreadable = 0
        try:
            messages = self._messages()
            for batch in batches(messages, stop) if speed is None else paced_batches(messages, speed, stop):
                delivered = producer.produce(self._stream, batch)
                published += delivered
                on_progress(delivered)
            producer.flush()
        except MessageTooLargeError as error:
            with suppress(UserError):
                producer.flush()
            place = self.places_of({error.payload}).get(
                error.payload, ", ".join(part.file.name for part in self._parts)
            )
            raise UserError(f"{place}: {error}") from error
        return published

    def _messages(self) -> Iterator[Message]:
        for part in self._parts:
            with part.file.reading():
                yield from part.read()

    def places_of(self, payloads: Collection[bytes]) -> dict[bytes, str]:
        """Find the file and row of messages by reading the files again. The header of a CSV is not a row."""
        places: dict[bytes, str] = {}
        for part in self._parts:
            for row, message in enumerate(part.read(), start=1):
                if message.payload in payloads and message.payload is not None:
                    places.setdefault(message.payload, f"{part.file.name}, row {row:,}")
                    if len(places) == len(payloads):
                        return places
        return places

    # -- checks -------------------------------------------------------------------------------------------------------

    def _part(self, file: EventFile) -> _Part:
        """Detect how to read a file, and check its beginning."""
        if file.format == "json":
            return self._json_part(file)
        if file.format == "parquet":
            columns = self._renamed(file, parquet_columns(file.open_parquet()))
            self._check_columns(file, columns, "")
            bodies = partial(parquet_bodies, file.path, columns)
            return _Part(file, partial(self._json_messages, bodies), bodies)
        with file.open() as text:
            header = csv_header(text, {*self._paths, *self._renames})
        header = replace(header, names=self._renamed(file, header.names))
        self._check_columns(file, header.names, f", separated by {header.delimiter!r}")
        with file.open() as text:
            records = list(islice(csv_records(text, header), SAMPLE))
        if records and not self._force and all(isinstance(record, bytes) for record in records):
            raise UserError(
                f"{file.name}: none of the first rows has {len(header.names)} columns separated by "
                f"{header.delimiter!r}, as the header has; --force produces the rows as dead letters"
            )
        return _Part(file, partial(self._csv_messages, file, header), None if file.is_plain else partial(_blocks, file))

    def _json_part(self, file: EventFile) -> _Part:
        if self._renames:
            raise UserError(f"--map renames columns of CSV and Parquet files, but {file.name} is JSON")
        try:
            layout = json_layout(file)
        except NotJsonError:
            if not self._force:
                raise
            layout = "lines"
        bodies = partial(json_bodies, file, layout)
        if not self._force:
            first, found = b"", dict[str, None]()
            for body in islice(bodies(), SAMPLE):
                first = first or body
                fields = _object(body, self._stream) or {}
                found.update(dict.fromkeys(fields))
                found.update({path: None for path in self._paths if value_at(fields, path) is not None})
            if first and (missing := self._missing(found)):
                if not found:
                    beginning = _shown([first[:BEGINNING].decode("utf-8", "replace")])
                    raise UserError(
                        f"{file.name} has no JSON object with fields in its first rows, but {beginning!r}; nothing was"
                        " published (--force publishes it as it is)"
                    )
                raise UserError(self._mismatch(file, "field", missing, f"fields {_shown([*found])}", []))
        is_independent = layout == "lines" and file.is_plain
        return _Part(file, partial(self._json_messages, bodies), None if is_independent else bodies)

    def _renamed(self, file: EventFile, columns: list[str]) -> list[str]:
        """Apply the renames, and reject duplicate columns."""
        for theirs in self._renames:
            if theirs not in columns:
                raise UserError(f"--map: {file.name} has no column {theirs!r}, but {_shown(columns)}")
        renamed = [self._renames.get(column, column) for column in columns]
        check_distinct(file, renamed)
        return renamed

    def _check_columns(self, file: EventFile, columns: list[str], how: str) -> None:
        """Reject a file without a required column; warn if an optional column may have another name."""
        unread = [column for column in columns if column not in self._paths]
        absent = [field.in_body for field in self._stream.fields if not set(field.paths) & set(columns)]
        if not self._force and (missing := self._missing(columns)):
            advice = []
            if any("\0" in column for column in columns):
                advice.append("If it is UTF-16, save it with a byte order mark")
            elif len(unread) == len(columns):
                advice.append("A file without a header row needs one")
            maps = [f"--map {shlex.quote(f'{ours}={theirs}')}" for ours, theirs in _alike(absent, unread)]
            advice.append(f"Rename columns with {' '.join(maps) or '--map ours=theirs'}")
            found = f"columns {_shown(columns)}{how}"
            raise UserError(self._mismatch(file, "column", missing, found, advice))
        if unread and absent:
            log.warning(
                "some columns are not fields of the stream; --map renames them",
                file=file.name,
                unknown_columns=unread,
                missing_fields=absent,
            )

    def _missing(self, found: Collection[str]) -> list[str]:
        """Return the required fields that are not among those found, by one of their paths."""
        paths = {field.in_body: field.paths for field in self._stream.fields}
        return [
            " or ".join(group)
            for group in self._stream.required
            if not {path for name in group for path in paths[name]} & set(found)
        ]

    def _mismatch(self, file: EventFile, what: str, missing: list[str], found: str, advice: list[str]) -> str:
        sentences = [
            f"{file.name} does not match stream {self._stream.name}: no {what} {', '.join(missing)}",
            f"Found {found}",
            f"Fields of the stream: {', '.join(self._stream.body_fields)}",
            *advice,
            "--force produces the file as it is; nothing was produced",
        ]
        return ". ".join(sentences)

    def _check_all(self, kept: timedelta | None, topic: str) -> None:
        """Read files to their end where an error can follow, or a row older than Kafka's retention.

        Args:
            kept: Kafka's retention by the time of the event; None is unlimited.
            topic: The Kafka topic.
        """
        oldest = 0 if kept is None else time.time_ns() // 1000 - kept // timedelta(microseconds=1)
        rows = old = 0
        for part in self._parts:
            with part.file.reading():
                if kept is not None:
                    for message in part.read():
                        rows += 1
                        old += message.published_at is not None and message.published_at < oldest
                elif part.check is not None:
                    deque(part.check(), maxlen=0)
        if kept is not None and old:
            raise UserError(
                f"{old:,} of {rows:,} rows are older than the retention of Kafka topic {topic}, {duration(kept)}: Kafka"
                " would delete them, landed or not. Nothing was published. Remove the limit with"
                f" `kafka-configs.sh --alter --topic {topic} --add-config retention.ms=-1`, or publish with --force"
            )

    # -- messages -----------------------------------------------------------------------------------------------------

    def _json_messages(self, bodies: Callable[[], Iterator[bytes]]) -> Iterator[Message]:
        for body in bodies():
            fields = _object(body, self._stream)
            if fields is None:
                self.unreadable += 1
                yield Message(body)
            else:
                yield Message(body, self._key(fields, body), {}, self._published_at(fields))

    def _csv_messages(self, file: EventFile, csv: CsvHeader) -> Iterator[Message]:
        # Looked up once, not per row: this loop is most of the cost of a replay.
        body = csv_body(csv.names)
        key_column = self._column(csv.names, self._stream.key)
        times = [(self._column(csv.names, name), self._fields[name]) for name in self._stream.time]
        time_columns = [(column, field) for column, field in times if column is not None]
        with file.open() as text:
            for fields in csv_records(text, csv):
                if isinstance(fields, bytes):
                    self.unreadable += 1
                    yield Message(fields)
                    continue
                key = fields[key_column].encode() if key_column is not None else b""
                published_at = None
                for column, field in time_columns:
                    if (published_at := event_instant(fields[column], field.unit, field.format)) is not None:
                        break
                yield Message(body(fields), key or None, {}, published_at)

    def _column(self, columns: list[str], name: str | None) -> int | None:
        """Return the number of the column that holds a field."""
        paths = self._fields[name].paths if name else ()
        return next((columns.index(path) for path in paths if path in columns), None)

    def _values(self, fields: Mapping[str, Any], name: str) -> Iterator[Any]:
        return (value_at(fields, path) for path in self._fields[name].paths)

    def _key(self, fields: Mapping[str, Any], body: bytes) -> bytes | None:
        if self._stream.key is None:
            return None
        value = next((found for found in self._values(fields, self._stream.key) if found is not None), None)
        if isinstance(value, float):  # orjson's value for an integer of more than 64 bits
            exact = _row(json.loads(body, parse_int=str), self._stream)
            value = next((found for found in self._values(exact, self._stream.key) if found is not None), None)
        if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
            return str(value).encode()
        return None

    def _published_at(self, fields: Mapping[str, Any]) -> int | None:
        """Microseconds since the epoch, from the first readable time field."""
        for name in self._stream.time:
            field = self._fields[name]
            for value in self._values(fields, name):
                if isinstance(value, str | int) and not isinstance(value, bool):
                    instant = event_instant(value, field.unit, field.format)
                    if instant is not None:
                        return instant
        return None


def _parsed_renames(renames: Sequence[str], stream: Stream) -> dict[str, str]:
    """Map their column names to ours."""
    ours_by_theirs: dict[str, str] = {}
    fields = [path for field in stream.fields for path in field.paths]
    for rename in renames:
        ours, equals, theirs = rename.partition("=")
        if not equals or not theirs:
            raise UserError(f"--map {rename}: expected ours=theirs, such as --map {fields[0]}=their_column")
        if ours not in fields:
            raise UserError(f"--map {rename}: {stream.name} has no field {ours!r}; its fields are {', '.join(fields)}")
        if ours_by_theirs.setdefault(theirs, ours) != ours:
            raise UserError(f"--map: column {theirs!r} cannot be both {ours_by_theirs[theirs]} and {ours}")
    return ours_by_theirs


def _alike(ours: Sequence[str], theirs: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Pair fields with columns of similar names."""
    plain = {re.sub(r"\W|_", "", column).lower(): column for column in theirs if column.isprintable()}
    for field in ours:
        for match in difflib.get_close_matches(re.sub(r"\W|_", "", field).lower(), plain, n=1, cutoff=0.75):
            yield field, plain.pop(match)


def _shown(values: Sequence[str]) -> str:
    """Join values for a terminal: without control characters, and cut to SHOWN_CHARACTERS."""
    text = ", ".join(values)[:SHOWN_CHARACTERS]
    printable = "".join(character if character.isprintable() else " " for character in text)
    return printable if len(text) < SHOWN_CHARACTERS else f"{printable}…"


# -- bodies -----------------------------------------------------------------------------------------------------------


def _blocks(file: EventFile) -> Iterator[bytes]:
    with file.open() as text:
        yield from iter(partial(text.read, BLOCK_BYTES), b"")


def _object(body: bytes, stream: Stream) -> dict[str, Any] | None:
    """Return the object that has the stream's fields; None for a body that is not an object."""
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return _row(fields, stream) if isinstance(fields, dict) else None


def _row(fields: dict[str, Any], stream: Stream) -> dict[str, Any]:
    """Return the row inside a change as Debezium writes it, other bodies as they are."""
    if stream.envelope == "debezium":
        change = fields["payload"] if isinstance(fields.get("payload"), dict) else fields
        row = change.get("before" if change.get("op") == "d" else "after")
        return row if isinstance(row, dict) else {}
    return fields
