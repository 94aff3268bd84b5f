"""`python -m serve [query | check | metric | dashboard | report]`: queries over HTTP, one answer, tests of queries,
metrics, the dashboard."""

from common import interrupts

if __name__ == "__main__":
    interrupts.end_at_once()  # before the other imports

import logging
import sys
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.command_line import VERBOSE, finish
from common.errors import UserError
from common.logs import configure_logs
from common.settings import load_settings
from common.telemetry import serve_metrics
from engines.query import Column, ColumnType, Query
from serve.answers import Answer, find_query
from serve.printing import Format, output, print_answer, print_error, print_metrics, print_queries, row_count
from serve.published import open_published

if TYPE_CHECKING:
    import pyarrow as pa


app = typer.Typer(
    help="Answer the queries of analyses/ from the last published build. Settings come from the environment or .env.",
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def endpoints(
    context: typer.Context,
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Port to listen on; 0 takes a free port and logs it.")
    ] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on; any but loopback needs SERVE_TOKENS.")] = "127.0.0.1",
    metrics_port: Annotated[
        int | None,
        typer.Option("--metrics-port", metavar="PORT", min=1, max=65535, help="Serve Prometheus metrics on this port."),
    ] = None,
) -> None:
    """Answer queries at http://HOST:PORT/v0/pipes/QUERY.json?PARAMETER=VALUE and .csv, until Ctrl-C or SIGTERM.

    /docs describes them. /healthz returns the published version and its age.
    """
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
        int, typer.Option(min=0, max=65_535, help="Port to listen on; 0 takes a free port and logs it.")
    ] = 8001,
    host: Annotated[str, typer.Option(help="Loopback address to listen on.")] = "127.0.0.1",
) -> None:
    """Serve the dashboard at http://HOST:PORT/, until Ctrl-C or SIGTERM."""
    from serve.dashboard.routes import serve

    configure_logs(logging.INFO)
    serve(load_settings(), host, port)


@app.command()
def report(
    filters: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FILTER=VALUE]...", help="Filters of the dashboard, such as period=30d."),
    ] = None,
    file: Annotated[Path, typer.Option("--file", help="File to write.")] = Path("report.html"),
) -> None:
    """Write the dashboard to one self-contained HTML file."""
    from serve.dashboard.filters import Filters
    from serve.dashboard.render import render

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
    name: Annotated[str | None, typer.Argument(help="Name of the query; without one, all are listed.")] = None,
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PARAMETER=VALUE]...",
            help="Parameters of the query, as the list of queries shows them; the others keep their defaults.",
        ),
    ] = None,
    format_: Annotated[Format, typer.Option("--format", help="Format of the answer.")] = Format.table,
) -> None:
    """Print the answer to a query.

    Example: python -m serve query top_products brand=samsung limit=5 --format csv
    """
    published = open_published(load_settings())
    if name is None:
        print_queries(published.queries.values())
        for query in published.left_out.values():
            print_error("left out", query)
        return
    query = find_query(published, name)
    answer = published.ask(query, query.values(_given(arguments or [])))
    print_answer(query, answer, format_)


@app.command()
@app.command("query-check", hidden=True)  # `event-warehouse query-check` runs this command
def check(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Queries to check; all unless given.")
    ] = None,
) -> None:
    """Check the queries of analyses/ without a build.

    Compiles each, compares it with its yml, and runs it with its defaults on the last published build. Prints one line
    per problem; exit code 2 if there are any.
    """
    from serve.check import check as check_queries

    has_problems = False
    for query, answer in check_queries(load_settings(), names or []):
        has_problems |= bool(query.problems)
        if query.problems:
            print_error("problem", query)
        elif answer is not None:
            output.print(f"{query.name}: {row_count(answer)}", highlight=False)
        else:
            output.print(f"{query.name}: compiles", highlight=False)
    if has_problems:
        raise typer.Exit(2)


@app.command()
def metric(
    metrics: Annotated[str, typer.Argument(help="Metrics, such as events,revenue; without any, all are listed.")] = "",
    by: Annotated[str, typer.Option(help="Dimensions to group by, such as metric_time__day,event__brand.")] = "",
    where: Annotated[str, typer.Option(help="Filter, such as \"{{ Dimension('event__brand') }} = 'acme'\".")] = "",
    limit: Annotated[int | None, typer.Option(min=1, help="Maximum rows.")] = None,
    format_: Annotated[Format, typer.Option("--format", help="Format of the answer.")] = Format.table,
) -> None:
    """Print metrics of the dbt project, by day or any other dimension."""
    try:
        from serve.semantic_layer import Metrics
    except ModuleNotFoundError as error:
        raise UserError("MetricFlow is not installed: run `make metric` once, which installs it") from error

    settings = load_settings()
    published = open_published(settings)
    known = Metrics(published, settings)
    if not metrics:
        print_metrics(known)
        return
    started = time.perf_counter()
    rows, is_cut = known.ask(_names(metrics), _names(by), where or None, limit)
    seconds = time.perf_counter() - started
    columns = [Column(name=one.name, type=_type(one.type), description="") for one in rows.schema]
    asked = Query(name=metrics, description="", parameters=[], columns=columns, sql="")
    found = list(zip(*(column.to_pylist() for column in rows.columns), strict=True))
    print_answer(asked, Answer(found, is_cut, seconds, published.version), format_)


def _type(type_: "pa.DataType") -> ColumnType:
    """Type of a column of MetricFlow, which is a dimension or a measure."""
    import pyarrow as pa

    if pa.types.is_integer(type_):
        return "integer"
    if pa.types.is_decimal(type_) or pa.types.is_floating(type_):
        return "number"
    return "timestamp" if pa.types.is_timestamp(type_) else "string"


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _given(arguments: Iterable[str]) -> dict[str, str]:
    """Return the values of the parameters by name.

    Raises:
        UserError: for an argument that is not PARAMETER=VALUE, or a parameter that is given more than once.
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


def main() -> None:
    """Run the command line."""
    arguments = [argument for argument in sys.argv[1:] if argument != VERBOSE]
    finish(lambda: app(arguments, standalone_mode=False))


if __name__ == "__main__":
    interrupts.run(main)
