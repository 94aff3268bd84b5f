"""`python -m serve query top_products brand=nike limit=5`, `python -m serve metric revenue --by metric_time__month`."""

import csv
import sys
import time
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import pyarrow as pa
import typer
from rich.console import Console
from rich.table import Table

from ingest.errors import UserError
from ingest.settings import load_settings
from serve.questions import Answer, DuckDBPublished, Question, open_published

if TYPE_CHECKING:
    from serve.metrics import Metrics

app = typer.Typer(
    help="Ask the marts: the questions are the files of analyses/. Settings come from the environment or .env.",
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
)
output = Console(width=None if sys.stdout.isatty() else 160)
errors = Console(stderr=True)


class Format(StrEnum):
    table = "table"
    csv = "csv"
    json = "json"


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
    _print_answer(answer, format_)


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
        from serve.metrics import Metrics
    except ModuleNotFoundError as error:
        raise UserError("MetricFlow is not installed: run `make metric` once, which installs it") from error

    published = open_published(load_settings())
    if not isinstance(published, DuckDBPublished):
        raise UserError("metrics are read from DuckDB only: on BigQuery, use the command mf of dbt-metricflow")
    known = Metrics(published)
    if not metrics:
        _print_metrics(known)
        return
    started = time.perf_counter()
    rows = known.ask(_names(metrics), _names(by), where or None, limit)
    _print_answer(Answer(rows, time.perf_counter() - started, published.version), format_)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


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


def _print_metrics(known: "Metrics") -> None:
    table = Table("metric", "is", box=None)
    by: dict[str, list[str]] = {}
    for name, description in known.descriptions.items():
        table.add_row(name, description)
        by.setdefault(", ".join(known.dimensions([name])), []).append(name)
    output.print(table)
    for dimensions, names in by.items():
        output.print(f"\n {', '.join(names)}\n by {dimensions}", highlight=False)


def _print_answer(answer: Answer, format_: Format) -> None:
    match format_:
        case Format.csv:
            writer = csv.writer(sys.stdout)
            writer.writerow(answer.rows.column_names)
            writer.writerows(zip(*(column.to_pylist() for column in answer.rows.columns), strict=True))
        case Format.json:
            print(orjson.dumps(answer.rows.to_pylist(), default=str).decode())  # noqa: T201
        case Format.table:
            _print_table(answer)


def _print_table(answer: Answer) -> None:
    table = Table(box=None)
    for field in answer.rows.schema:
        is_text = pa.types.is_string(field.type) or pa.types.is_temporal(field.type)
        table.add_column(field.name, justify="left" if is_text else "right")
    for row in zip(*(column.to_pylist() for column in answer.rows.columns), strict=True):
        table.add_row(*map(_shown, row))
    output.print(table)
    output.print(f"{answer.rows.num_rows} rows in {answer.seconds * 1000:.0f} ms")


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.4f}"
    return f"{value:,}" if isinstance(value, int | Decimal) else str(value)


def main() -> None:
    """Run the command line."""
    try:
        app()
    except UserError as error:
        errors.print(f"[red]error:[/] {error}", highlight=False, soft_wrap=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
