"""Prints queries, answers and metrics on the terminal."""

import json
import sys
from collections.abc import Callable, Iterable
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from common.logs import printable
from engines.query import Query
from serve.answers import Answer
from serve.formats import as_csv, as_json

if TYPE_CHECKING:
    from serve.semantic_layer import Metrics

CUT = "cut: there are more rows; shorten the period, or raise `limit` if the query has it (at most SERVE_MAX_ROWS)"
output = Console(width=None if sys.stdout.isatty() else 1_000_000)  # a row of a table is a line of a file or a pipe
errors = Console(stderr=True)


class Format(StrEnum):
    table = "table"
    csv = "csv"
    json = "json"


def print_queries(queries: Iterable[Query]) -> None:
    table = Table("query", "answer", "parameters", box=None)
    for query in queries:
        table.add_row(query.name, query.description, " ".join(one.name for one in query.parameters))
    output.print(table)


def print_error(what: str, query: Query) -> None:
    for problem in query.problems:
        errors.print(Text.assemble((f"{what}: ", "red"), printable(problem)), highlight=False, soft_wrap=True)


def print_metrics(known: "Metrics") -> None:
    table = Table("metric", "meaning", box=None)
    by: dict[str, list[str]] = {}
    for name, description in known.descriptions.items():
        table.add_row(name, description)
        by.setdefault(", ".join(known.dimensions([name])), []).append(name)
    output.print(table)
    for dimensions, names in by.items():
        output.print(f"\n {', '.join(names)}\n by {dimensions}", highlight=False)


def print_answer(query: Query, answer: Answer, format_: Format) -> None:
    match format_:
        case Format.csv:
            _write(as_csv(query, answer), printable)
        case Format.json:
            _write(as_json(query, answer) + b"\n", _escaped_in_json)
        case Format.table:
            print_table(query, answer)
    if answer.is_cut:
        (output if format_ is Format.table else errors).print(CUT, highlight=False, soft_wrap=True)


def _write(text: bytes, escaped: Callable[[str], str]) -> None:
    """Write text: to a file or a pipe unchanged, to a terminal with control characters escaped."""
    if sys.stdout.isatty():
        text = "\n".join(escaped(line) for line in text.decode().split("\r\n")).encode()
    sys.stdout.buffer.write(text)


def _escaped_in_json(text: str) -> str:
    """Escape what is not printable; in JSON, it can only be inside a string."""
    return "".join(one if one.isprintable() or one == "\n" else json.dumps(one)[1:-1] for one in text)


def print_table(query: Query, answer: Answer) -> None:
    table = Table(box=None)
    for column in query.columns:
        justify: Literal["left", "right"] = "right" if column.type in ("integer", "number") else "left"
        table.add_column(column.name, justify=justify, overflow="fold")
    for row in answer.rows:
        # as Text: rich would interpret [bold] in a page title as markup
        table.add_row(*(Text(_shown(value)) for value in row))
    output.print(table)
    output.print(row_count(answer))


def row_count(answer: Answer) -> str:
    number = len(answer.rows)
    return f"{number:,} row{'' if number == 1 else 's'} in {answer.seconds * 1000:.0f} ms"


def _shown(value: Any) -> str:
    if value is None:
        return ""
    match value:
        case bool():
            return "true" if value else "false"
        case float():
            return f"{value:,.4f}"
        case int() | Decimal():
            return f"{value:,}"
        case _:
            return printable(str(value))
