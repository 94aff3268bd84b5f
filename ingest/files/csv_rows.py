"""Reads the rows of CSV files, and makes JSON bodies of them. A row that cannot be read is passed on as its bytes."""

import csv
import re
import sys
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO

import orjson

from ingest.files.columns import Value, nested
from ingest.files.event_file import BLOCK_BYTES, UnreadableError

DELIMITERS = ",;\t|"
LINES_PER_RECORD = 1_000
"""Maximum lines of one record, so that a quote that never closes does not swallow the rest of the file."""

csv.field_size_limit(sys.maxsize)  # with the default, 128 KiB, longer fields would become dead letters


@dataclass(frozen=True, slots=True)
class CsvHeader:
    """The header row of a CSV."""

    names: list[str]
    delimiter: str
    lines: int
    """Number of lines up to the first record: 2 if Excel's `sep=;` precedes the header."""


def csv_header(file: BinaryIO, known: Collection[str]) -> CsvHeader:
    """Read the header row, with the delimiter that results in the most known names.

    Raises:
        UnreadableError: for a line that cannot be a header.
    """
    line, lines, delimiters = file.readline(BLOCK_BYTES), 1, DELIMITERS
    if named := re.fullmatch(rb'"?sep=(.)"?\r?\n', line):
        line, lines, delimiters = file.readline(BLOCK_BYTES), 2, named[1].decode("latin-1")
    if not line.strip():
        raise UnreadableError("the first line must be a CSV header, but it is empty")
    best: list[str] = []
    failure: Exception | None = None
    for delimiter in delimiters:
        try:
            names = _fields(line, delimiter)
        except (csv.Error, ValueError) as error:
            failure = error
            continue
        if not best or _fit(names, known) > _fit(best, known):
            best, chosen = names, delimiter
    if not best:
        raise UnreadableError(f"the first line is not a CSV header ({failure})")
    return CsvHeader(best, chosen, lines)


def _fit(names: list[str], known: Collection[str]) -> tuple[int, int]:
    return len(set(names).intersection(known)), len(names)


def csv_body(columns: Sequence[str]) -> Callable[[list[str]], bytes]:
    """Return a function that turns the fields of a row into its body, a JSON object of strings."""
    fields = nested(columns)

    def value_of(inner: Value, record: list[str]) -> Any:
        if isinstance(inner, dict):
            return {name: value_of(below, record) for name, below in inner.items()}
        if isinstance(inner, list):
            return [value_of(element, record) for element in inner]
        return None if inner is None else record[inner]

    if len(fields) == len(columns) and all(isinstance(inner, int) for inner in fields.values()):
        return lambda record: orjson.dumps(dict(zip(columns, record, strict=True)))  # a third faster than value_of
    return lambda record: orjson.dumps(value_of(fields, record))


def csv_records(file: BinaryIO, header: CsvHeader) -> Iterator[list[str] | bytes]:
    """Yield the fields of each row, or the row's bytes if it has more or fewer fields than the header.

    Empty lines are skipped.
    """
    lines: Iterator[bytes] = islice(file, header.lines, None)
    width, delimiter = len(header.names), header.delimiter
    # lines that were read ahead for a quoted field that did not close; each is read again on its own
    again: deque[bytes] = deque()
    while line := again.popleft() if again else next(lines, b""):
        if not line.strip():
            continue
        fields: list[str] | None = None
        if b'"' in line:
            fields = _quoted_fields(line, lines, again, width, delimiter)
        else:
            with suppress(UnicodeDecodeError):
                fields = line.rstrip(b"\r\n").decode().split(delimiter)
        yield line.rstrip(b"\r\n") if fields is None or len(fields) != width else fields


def _fields(record: bytes, delimiter: str) -> list[str]:
    """Split one record.

    Raises:
        csv.Error: for a quote that does not close, or text after a closing quote.
    """
    text = record.decode().removesuffix("\n").removesuffix("\r")
    # a single string for the whole record, since a newline within quotes belongs to the field
    return next(csv.reader([text], delimiter=delimiter, strict=True), [])


def _quoted_fields(
    line: bytes, lines: Iterator[bytes], again: deque[bytes], width: int, delimiter: str
) -> list[str] | None:
    """Split the record that begins with this line, reading more lines if a quoted field contains newlines.

    Lines that do not belong to the record are put back into `again`.
    """
    ahead: list[bytes] = []
    # A line with an odd number of quotes is incomplete, unless a quote is inside an unquoted field. So this tries the
    # line alone, then all lines up to the one that makes the number even.
    quotes = line.count(b'"')
    record = line
    while True:
        try:
            fields = _fields(record, delimiter)
        except (csv.Error, UnicodeDecodeError):
            fields = []
        if len(fields) == width:
            return fields
        if quotes % 2 == 0:
            break
        while quotes % 2 and len(ahead) < LINES_PER_RECORD:
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
