"""Answers as text, the same from both engines."""

import csv
import io
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson

from engines.query import Query
from serve.answers import Answer


def as_json(query: Query, answer: Answer) -> bytes:
    """{"meta": [{"name", "type"}], "data": [{column: value}], "rows", "truncated", "statistics": {"elapsed"}}.

    Decimals are numbers with all of their digits, times are ISO 8601 with Z.
    """
    names = [column.name for column in query.columns]
    return orjson.dumps(
        {
            "meta": [{"name": column.name, "type": column.type} for column in query.columns],
            "data": [dict(zip(names, row, strict=True)) for row in answer.rows],
            "rows": len(answer.rows),
            "truncated": answer.is_cut,
            "statistics": {"elapsed": round(answer.seconds, 6)},
        },
        default=_decimal,
        option=orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z,
    )


FORMULA = re.compile("[=+\\-@\t\r\n＝＋－＠]")  # noqa: RUF001  spreadsheets accept full-width characters too
"""First character of a text that a spreadsheet would compute."""
NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")


def as_csv(query: Query, answer: Answer) -> bytes:
    """RFC 4180: a header line and a line per row; UTF-8, NULL is empty.

    A text that a spreadsheet would take for a formula begins with an apostrophe, unless it is a plain number.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(column.name for column in query.columns)
    writer.writerows(_texts(row) for row in answer.rows)
    return text.getvalue().encode()


def plain(value: Decimal) -> str:
    """Remove trailing zeros, 12.5 for 12.5000, since the engines differ in them."""
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _decimal(value: Any) -> orjson.Fragment:
    if isinstance(value, Decimal):
        return orjson.Fragment(plain(value))
    raise TypeError(type(value))


def _texts(row: Iterable[Any]) -> Iterable[Any]:
    for value in row:
        match value:
            case bool():
                yield "true" if value else "false"
            case Decimal():
                yield plain(value)
            case datetime():
                yield f"{(value.astimezone(UTC) if value.tzinfo else value).replace(tzinfo=None).isoformat()}Z"
            case str() if FORMULA.match(value) and not NUMBER.fullmatch(value):
                yield f"'{value}"
            case _:
                yield value
