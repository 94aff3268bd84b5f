"""Reads files of events: CSV, NDJSON, JSON and Parquet, gzip-compressed or not. Text may be in UTF-16.

`replay` produces them; `stream add` and `stream check` read them as samples.
"""

import re
from collections.abc import Iterator

from ingest.files.columns import check_distinct
from ingest.files.csv_rows import csv_body, csv_header, csv_records
from ingest.files.event_file import SHOWN_CHARACTERS, EventFile, UnreadableError, find_files
from ingest.files.json_text import json_bodies, json_layout
from ingest.files.parquet import parquet_bodies, parquet_columns

__all__ = ["EventFile", "UnreadableError", "find_files", "read_bodies"]


def read_bodies(file: EventFile) -> Iterator[bytes]:
    """Yield the body of each row, without knowing the stream. For a CSV row that cannot be read, yield the row's bytes.

    Raises:
        UnreadableError: for a file that cannot be read, or a CSV with an unknown delimiter; see `EventFile.reading`.
        UserError: for a file of an unknown format, or with two columns of one name.
    """
    if file.format == "json":
        yield from json_bodies(file, json_layout(file))
    elif file.format == "parquet":
        columns = parquet_columns(file.open_parquet())
        check_distinct(file, columns)
        yield from parquet_bodies(file.path, columns)
    else:
        with file.open() as text:
            header = csv_header(text, ())
        check_distinct(file, header.names)
        if len(header.names) == 1 and re.search(r"[^\w .\[\]-]", header.names[0]):
            raise UnreadableError(
                f"the header has only one column, {header.names[0][:SHOWN_CHARACTERS]!r}: separate columns by a comma,"
                " semicolon, tab or |"
            )
        body = csv_body(header.names)
        with file.open() as text:
            for record in csv_records(text, header):
                yield record if isinstance(record, bytes) else body(record)
