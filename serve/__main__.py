"""`python -m serve [query | check | metric | dashboard | report]`: questions over HTTP, one answer, tests of questions,
metrics, all as a page."""

from ingest import interrupts

if __name__ == "__main__":
    interrupts.end_at_once()  # before the other imports

import json
import logging
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ingest.errors import UserError
from ingest.settings import load_settings
from ingest.web import configure_logs, printable, serve_metrics
from serve.formats import as_csv, as_json
from serve.questions import Answer, Column, ColumnType, DuckDBPublished, Question, find_question, open_published

if TYPE_CHECKING:
    import pyarrow as pa

    from serve.semantic_layer import Metrics

app = typer.Typer(
    help="Ask the marts: the questions are the files of analyses/. Settings come from the environment or .env.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
CUT = (
    "cut: there are more rows; ask for a larger limit (at most SERVE_MAX_ROWS, if the question takes one) or a shorter"
    " period"
)
output = Console(width=None if sys.stdout.isatty() else 1_000_000)  # a row of a table is a line of a file or a pipe
errors = Console(stderr=True)


class Format(StrEnum):
    table = "table"
    csv = "csv"
    json = "json"


@app.callback(invoke_without_command=True)
def endpoints(
    context: typer.Context,
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Where to listen; 0 takes a free one and logs it.")
    ] = 8000,
    host: Annotated[
        str, typer.Option(help="The address to listen on; any but loopback needs SERVE_TOKENS.")
    ] = "127.0.0.1",
    metrics_port: Annotated[
        int | None,
        typer.Option("--metrics-port", metavar="PORT", min=1, max=65535, help="Serve Prometheus metrics on this port."),
    ] = None,
) -> None:
    """Answer the questions at http://HOST:PORT/v0/pipes/QUESTION.json?PARAMETER=VALUE and .csv until Ctrl-C or SIGTERM.
    /docs describes them, /healthz tells the version and its age."""
    if context.invoked_subcommand is not None:
        return
    from serve.endpoints import serve

    configure_logs(logging.INFO)
    settings = load_settings()
    serve_metrics(settings, metrics_port)
    serve(settings, host, port)


@app.command()
def dashboard(
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Where to listen; 0 takes a free one and logs it.")
    ] = 8001,
    host: Annotated[str, typer.Option(help="The address to listen on, of loopback.")] = "127.0.0.1",
) -> None:
    """Show the figures as a page at http://HOST:PORT/ until Ctrl-C or SIGTERM."""
    from serve.dashboard import serve

    configure_logs(logging.INFO)
    serve(load_settings(), host, port)


@app.command()
def report(
    filters: Annotated[
        list[str] | None, typer.Argument(metavar="[FILTER=VALUE]...", help="Those of the dashboard's address.")
    ] = None,
    file: Annotated[Path, typer.Option("--file", help="Where to write it.")] = Path("report.html"),
) -> None:
    """Write the dashboard's page to a file that needs nothing else."""
    from serve.dashboard import Filters, render

    read = Filters.read(_given(filters or []))
    with closing(open_published(load_settings())) as published:
        page = render(published, read, live=False)
    try:
        file.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--file {file}: {error.strerror}") from error
    output.print(f"wrote {file}", highlight=False, soft_wrap=True)


@app.command()
def query(
    name: Annotated[str | None, typer.Argument(help="Which question; without one, they are listed.")] = None,
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PARAMETER=VALUE]...",
            help="What the question takes (the list of questions names it); without it, its default.",
        ),
    ] = None,
    format_: Annotated[Format, typer.Option("--format", help="How the answer is printed.")] = Format.table,
) -> None:
    """Print the answer to a question.

    Example: python -m serve query top_products brand=samsung limit=5 --format csv
    """
    published = open_published(load_settings())
    if name is None:
        _print_questions(published.questions.values())
        for question in published.left_out.values():
            _print_error("left out", question)
        return
    question = find_question(published, name)
    answer = published.ask(question, question.values(_given(arguments or [])))
    _print_answer(question, answer, format_)


@app.command()
def check(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Which; all unless given.")] = None,
) -> None:
    """Test the questions of analyses/ as they are now, without a build: compile each, compare it with its yml, and run
    it with its defaults on what was published last. Prints a line per problem; exit code 2 when there are any."""
    from serve.publish import check as check_questions

    has_problems = False
    for question, answer in check_questions(load_settings(), names or []):
        has_problems |= bool(question.problems)
        if question.problems:
            _print_error("problem", question)
        elif answer is not None:
            output.print(f"{question.name}: {_rows(answer)}", highlight=False)
        else:
            output.print(f"{question.name}: compiles", highlight=False)
    if has_problems:
        raise typer.Exit(2)


@app.command()
def metric(
    metrics: Annotated[str, typer.Argument(help="Which, such as events,revenue; without one, they are listed.")] = "",
    by: Annotated[str, typer.Option(help="A row for each, such as metric_time__day,event__brand.")] = "",
    where: Annotated[str, typer.Option(help="Only such as \"{{ Dimension('event__brand') }} = 'acme'\".")] = "",
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many rows.")] = None,
    format_: Annotated[Format, typer.Option("--format", help="How the answer is printed.")] = Format.table,
) -> None:
    """Print metrics of the dbt project, by day or by any other dimension."""
    try:
        from serve.semantic_layer import Metrics
    except ModuleNotFoundError as error:
        raise UserError("MetricFlow is not installed: run `make metric` once, which installs it") from error

    settings = load_settings()
    published = open_published(settings)
    if not isinstance(published, DuckDBPublished):
        raise UserError("metrics are read from DuckDB only: on BigQuery, use the command mf of dbt-metricflow")
    known = Metrics(published, settings)
    if not metrics:
        _print_metrics(known)
        return
    started = time.perf_counter()
    rows, is_cut = known.ask(_names(metrics), _names(by), where or None, limit)
    seconds = time.perf_counter() - started
    columns = [Column(name=one.name, type=_type(one.type), description="") for one in rows.schema]
    asked = Question(name=metrics, description="", parameters=[], columns=columns, sql="")
    found = list(zip(*(column.to_pylist() for column in rows.columns), strict=True))
    _print_answer(asked, Answer(found, is_cut, seconds, published.version), format_)


def _type(type_: "pa.DataType") -> ColumnType:
    """Of MetricFlow's rows: dimensions and measures."""
    import pyarrow as pa

    if pa.types.is_integer(type_):
        return "integer"
    if pa.types.is_decimal(type_) or pa.types.is_floating(type_):
        return "number"
    return "timestamp" if pa.types.is_timestamp(type_) else "string"


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _given(arguments: Iterable[str]) -> dict[str, str]:
    """Parameter to value.

    Raises:
        UserError: for an argument that is no PARAMETER=VALUE, or a parameter that is given more than once.
    """
    given: dict[str, str] = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals:
            raise UserError(f"{argument!r}: arguments are given as PARAMETER=VALUE, such as limit=5")
        if name in given:
            raise UserError(f"{name}: given more than once")
        given[name] = value
    return given


def _print_questions(questions: Iterable[Question]) -> None:
    table = Table("question", "answers", "takes", box=None)
    for question in questions:
        table.add_row(question.name, question.description, " ".join(one.name for one in question.parameters))
    output.print(table)


def _print_error(what: str, question: Question) -> None:
    for problem in question.problems:
        errors.print(Text.assemble((f"{what}: ", "red"), printable(problem)), highlight=False, soft_wrap=True)


def _print_metrics(known: "Metrics") -> None:
    table = Table("metric", "is", box=None)
    by: dict[str, list[str]] = {}
    for name, description in known.descriptions.items():
        table.add_row(name, description)
        by.setdefault(", ".join(known.dimensions([name])), []).append(name)
    output.print(table)
    for dimensions, names in by.items():
        output.print(f"\n {', '.join(names)}\n by {dimensions}", highlight=False)


def _print_answer(question: Question, answer: Answer, format_: Format) -> None:
    match format_:
        case Format.csv:
            _write(as_csv(question, answer), printable)
        case Format.json:
            _write(as_json(question, answer) + b"\n", _escaped_in_json)
        case Format.table:
            _print_table(question, answer)
    if answer.is_cut:
        (output if format_ is Format.table else errors).print(CUT, highlight=False, soft_wrap=True)


def _write(text: bytes, escaped: Callable[[str], str]) -> None:
    """As it is to a file or a pipe; a terminal gets nothing that it would obey."""
    if sys.stdout.isatty():
        text = "\n".join(escaped(line) for line in text.decode().split("\r\n")).encode()
    sys.stdout.buffer.write(text)


def _escaped_in_json(text: str) -> str:
    """The same JSON: what is not printable can only be inside a string."""
    return "".join(one if one.isprintable() or one == "\n" else json.dumps(one)[1:-1] for one in text)


def _print_table(question: Question, answer: Answer) -> None:
    table = Table(box=None)
    for column in question.columns:
        justify: Literal["left", "right"] = "right" if column.type in ("integer", "number") else "left"
        table.add_column(column.name, justify=justify, overflow="fold")
    for row in answer.rows:
        # as text: rich would read [bold] of a page title as its own
        table.add_row(*(Text(_shown(value)) for value in row))
    output.print(table)
    output.print(_rows(answer))


def _rows(answer: Answer) -> str:
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


def main() -> None:
    """Run the command line; an error is one line, with exit code 2."""
    try:
        sys.exit(app(standalone_mode=False))
    except UserError as error:
        message = str(error)
    except typer.TyperException as error:  # a bad option
        message = error.format_message()
    errors.print(Text.assemble(("error: ", "red"), printable(message)), highlight=False, soft_wrap=True)
    sys.exit(2)


if __name__ == "__main__":
    interrupts.run(main)
