"""Produces files of past events to a stream. All files are checked before the first row is produced."""

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from itertools import islice

from common.errors import UserError
from common.settings import Settings
from common.streams import Stream
from ingest.files import EventFile, find_files
from ingest.files.csv_rows import csv_header, csv_records
from ingest.files.event_file import BLOCK_BYTES, SAMPLE
from ingest.files.json_text import NotJsonError, json_bodies, json_layout
from ingest.files.parquet import parquet_bodies, parquet_columns
from ingest.message import Message
from ingest.producers import MessageTooLargeError, Producer, duration, retentions
from ingest.replay.matching import Matcher
from ingest.replay.pacing import batches, paced_batches
from ingest.replay.rows import RowMessages


@dataclass(frozen=True, slots=True)
class _Part:
    """One file and the function that reads its messages."""

    file: EventFile
    read: Callable[[], Iterator[Message]]
    check: Callable[[], Iterator[object]] | None
    """Reads the whole file, to find an error such as an array that is cut off. None if the lines are independent: an
    invalid one then only becomes a dead letter."""


class Replay:
    """Files that were checked against a stream and can be produced to it.

    Args:
        settings: They name the Kafka topic, whose retention is compared with the times of the rows.
        names: Files, folders, globs, or `-` for standard input; see `find_files`.
        stream: The stream to produce to.
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
        self._stream = stream
        self._force = force
        self._matcher = Matcher(stream, renames, force)
        self._rows = RowMessages(stream)
        self._parts = []
        for file in find_files(names):
            with file.reading():
                self._parts.append(self._part(file))
        kept = None if force else retentions(settings, [stream]).get(stream.name)
        self._check_all(kept, settings.topic(stream))

    @property
    def unreadable(self) -> int:
        """Number of published messages whose row could not be read."""
        return self._rows.unreadable

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
            speed: Speed as a multiple of real time, by the times of the events; None publishes without pauses.
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
        published = self._rows.unreadable = 0
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
        """Find the file and row of messages by reading the files again. The header of a CSV does not count as a row."""
        places: dict[bytes, str] = {}
        for part in self._parts:
            for row, message in enumerate(part.read(), start=1):
                if message.payload in payloads and message.payload is not None:
                    places.setdefault(message.payload, f"{part.file.name}, row {row:,}")
                    if len(places) == len(payloads):
                        return places
        return places

    def _part(self, file: EventFile) -> _Part:
        """Detect how to read a file, and check its beginning."""
        if file.format == "json":
            return self._json_part(file)
        if file.format == "parquet":
            columns = self._matcher.rename(file, parquet_columns(file.open_parquet()))
            self._matcher.check_columns(file, columns, "")
            bodies = partial(parquet_bodies, file.path, columns)
            return _Part(file, partial(self._rows.of_json, bodies), bodies)
        with file.open() as text:
            header = csv_header(text, {*self._matcher.paths, *self._matcher.renames})
        header = replace(header, names=self._matcher.rename(file, header.names))
        self._matcher.check_columns(file, header.names, f", separated by {header.delimiter!r}")
        with file.open() as text:
            records = list(islice(csv_records(text, header), SAMPLE))
        if records and not self._force and all(isinstance(record, bytes) for record in records):
            raise UserError(
                f"{file.name}: none of the first rows has {len(header.names)} columns separated by "
                f"{header.delimiter!r}, as the header has; --force produces the rows as dead letters"
            )
        return _Part(file, partial(self._rows.of_csv, file, header), None if file.is_plain else partial(_blocks, file))

    def _json_part(self, file: EventFile) -> _Part:
        if self._matcher.renames:
            raise UserError(f"--map renames columns of CSV and Parquet files, but {file.name} is JSON")
        try:
            layout = json_layout(file)
        except NotJsonError:
            if not self._force:
                raise
            layout = "lines"
        bodies = partial(json_bodies, file, layout)
        self._matcher.check_bodies(file, bodies())
        is_independent = layout == "lines" and file.is_plain
        return _Part(file, partial(self._rows.of_json, bodies), None if is_independent else bodies)

    def _check_all(self, kept: timedelta | None, topic: str) -> None:
        """Read all files that may have an error after their beginning, or a row older than Kafka's retention.

        Args:
            kept: Kafka's retention, which counts from the time of the event; None if it is unlimited.
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


def _blocks(file: EventFile) -> Iterator[bytes]:
    with file.open() as text:
        yield from iter(partial(text.read, BLOCK_BYTES), b"")
