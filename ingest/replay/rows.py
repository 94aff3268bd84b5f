"""Makes a message of each row of a file: its body, its key, and the time of the event as the message's time."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson

from common.streams import Stream
from ingest.files import EventFile
from ingest.files.csv_rows import CsvHeader, csv_body, csv_records
from ingest.message import Message, value_at
from ingest.replay.event_time import event_instant


class RowMessages:
    """Makes the messages of one stream. A row that cannot be read becomes a message of its raw bytes."""

    def __init__(self, stream: Stream) -> None:
        self.unreadable = 0
        """Number of rows that could not be read."""
        self._stream = stream
        self._fields = {field.in_body: field for field in stream.fields}

    def of_json(self, bodies: Callable[[], Iterator[bytes]]) -> Iterator[Message]:
        """Yield the messages of JSON bodies, which stay byte for byte."""
        for body in bodies():
            fields = object_of(body, self._stream)
            if fields is None:
                self.unreadable += 1
                yield Message(body)
            else:
                yield Message(body, self._key(fields, body), {}, self._published_at(fields))

    def of_csv(self, file: EventFile, csv: CsvHeader) -> Iterator[Message]:
        """Yield the messages of a CSV file, each a JSON object of strings."""
        # looked up once, not per row: this loop is most of the cost of a replay
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


def object_of(body: bytes, stream: Stream) -> dict[str, Any] | None:
    """Return the object that has the stream's fields; None for a body that is not an object."""
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return _row(fields, stream) if isinstance(fields, dict) else None


def _row(fields: dict[str, Any], stream: Stream) -> dict[str, Any]:
    """Return the row inside a Debezium change; return any other body unchanged."""
    if stream.envelope == "debezium":
        change = fields["payload"] if isinstance(fields.get("payload"), dict) else fields
        row = change.get("before" if change.get("op") == "d" else "after")
        return row if isinstance(row, dict) else {}
    return fields
