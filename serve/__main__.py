"""`python -m serve [query | dashboard | report]`: the questions over HTTP, one answer, the figures as a page."""

import logging
import sys
from contextlib import closing
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ingest.errors import UserError
from ingest.settings import load_settings
from ingest.web import configure_logs, serve_metrics
from serve.formats import as_csv, as_json
from serve.questions import Answer, Question, open_published

app = typer.Typer(
    help="Ask the marts: the questions are the files of analyses/. Settings come from the environment or .env.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
output = Console(width=None if sys.stdout.isatty() else 160)
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

    read = Filters.read(dict(_split(one) for one in filters or []))
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
    arguments: Annotated[list[str] | None, typer.Argument(metavar="[PARAMETER=VALUE]...")] = None,
    format_: Annotated[Format, typer.Option("--format", help="How the answer is printed.")] = Format.table,
) -> None:
    """Print the answer to a question."""
    published = open_published(load_settings())
    if name is None:
        _print_questions(list(published.questions.values()))
        return
    question = published.questions.get(name)
    if question is None:
        raise UserError(f"there is no question {name!r}; they are {', '.join(published.questions)}")
    given = dict(_split(argument) for argument in arguments or [])
    answer = published.ask(question, question.values(given))
    match format_:
        case Format.csv:
            sys.stdout.buffer.write(as_csv(question, answer))
        case Format.json:
            sys.stdout.buffer.write(as_json(question, answer) + b"\n")
        case Format.table:
            _print_answer(question, answer)


def _split(argument: str) -> tuple[str, str]:
    name, equals, value = argument.partition("=")
    if not equals:
        raise UserError(f"{argument!r}: arguments are given as PARAMETER=VALUE, such as limit=5")
    return name, value


def _print_questions(questions: list[Question]) -> None:
    table = Table("question", "answers", "takes", box=None)
    for question in questions:
        table.add_row(question.name, question.description, " ".join(one.name for one in question.parameters))
    output.print(table)


def _print_answer(question: Question, answer: Answer) -> None:
    table = Table(box=None)
    for column in question.columns:
        table.add_column(column.name, justify="right" if column.type in ("integer", "number") else "left")
    for row in answer.rows:
        table.add_row(*map(_shown, row))
    output.print(table)
    output.print(f"{len(answer.rows)} rows in {answer.seconds * 1000:.0f} ms")


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int | Decimal) else str(value)


def main() -> None:
    """Run the command line; an error is one line, with exit code 2."""
    try:
        sys.exit(app(standalone_mode=False))
    except UserError as error:
        message = str(error)
    except typer.TyperException as error:  # a bad option
        message = error.format_message()
    errors.print(Text.assemble(("error: ", "red"), message), highlight=False, soft_wrap=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
