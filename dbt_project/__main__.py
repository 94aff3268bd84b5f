"""Runs dbt on the warehouse that the settings name: `python -m dbt_project build [dbt's own options]`.

Exit code 0 when all is well, 1 when a model or a test failed, 2 when dbt could not start.
"""

import os
import sys
from collections import Counter
from contextlib import ExitStack, suppress
from datetime import date
from pathlib import Path
from typing import Any, Literal
from zoneinfo import available_timezones

import yaml
from dbt.artifacts.resources.types import NodeType
from dbt.artifacts.schemas.run import RunExecutionResult
from dbt.cli.main import dbtRunner, dbtRunnerResult
from pydantic import BaseModel, Field, ValidationError, field_validator
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ingest.errors import UserError
from ingest.settings import Settings, load_settings
from ingest.sinks.duckdb import DuckDBSink
from serve.publish import first_paragraph, publish

PROJECT = Path(__file__).parent
PROJECT_OPTIONS = ["--project-dir", str(PROJECT), "--profiles-dir", str(PROJECT)]
SELECTIONS = ("select", "exclude", "selector", "resource_types", "exclude_resource_types")
"""Options of dbt after which it builds a part only."""
output = Console()
errors = Console(stderr=True)


def run(settings: Settings, arguments: list[str]) -> int:
    """Run dbt with these arguments; returns the exit code. A build ends with a table of the marts.

    Raises:
        UserError: when there is no warehouse yet, another process holds it, or a var is none.
    """
    if not arguments or arguments[0].startswith("-"):  # --help and --version
        return 0 if dbtRunner().invoke(arguments).success else 2
    check_vars(arguments)
    os.environ["WAREHOUSE"] = settings.warehouse
    os.environ["WAREHOUSE_PATH"] = str(settings.warehouse_path.absolute())
    if settings.gcp_project is not None:
        os.environ["GCP_PROJECT"] = settings.gcp_project
    os.environ["GCP_LOCATION"] = settings.gcp_location
    os.environ["DATASET_PREFIX"] = settings.dataset_prefix if settings.warehouse == "bigquery" else ""
    sink = None
    with ExitStack() as held:
        if settings.warehouse == "duckdb":
            if not settings.warehouse_path.exists():
                raise UserError(f"there is no warehouse at {settings.warehouse_path} yet: run `make ingest` first")
            # Waits for a loader that is just committing, and names one that stays; then keeps the file until dbt has
            # opened it, which does not wait: pushes commit all the time.
            sink = DuckDBSink(settings.warehouse_path, settings.lock_timeout_seconds)
            held.enter_context(sink.held())
            sink.create_tables()
        result = _invoke([*arguments, *PROJECT_OPTIONS])
        if isinstance(result.exception, KeyboardInterrupt):
            raise result.exception
        if result.exception is not None:
            raise UserError(first_paragraph(result.exception))
        if isinstance(result.result, RunExecutionResult):
            if not any(one.node.resource_type != NodeType.Operation for one in result.result.results):
                raise UserError("the selection matches no model and no test")
            _print_failures(result.result)
            _print_summary(result.result, sink, with_marts=arguments[0] == "build")
            # Marts of which some are older than others are half a build.
            is_whole = arguments[0] == "build" and not any(result.result.args.get(name) for name in SELECTIONS)
            if is_whole and result.success:
                publish(settings, sink, [*_vars_options(arguments), *PROJECT_OPTIONS])
    return 0 if result.success else 1


class Vars(BaseModel, extra="forbid"):
    """The vars of dbt_project.yml, which describes them; dbt itself takes any name and any value."""

    session_gap_seconds: int = Field(ge=0)
    session_key: Literal["source_session_id", "user_id"]
    attribution_window_seconds: int = Field(ge=0)
    reporting_time_zone: str
    earliest_event_at: date
    customer_id_filter: list[str] | None
    allowed_lateness_seconds: int | None = Field(ge=0)
    test_all_partitions: bool
    landing_hold_minutes: int = Field(ge=0)

    @field_validator("reporting_time_zone")
    @classmethod
    def _is_a_time_zone(cls, name: str) -> str:
        if name not in available_timezones():
            raise ValueError("expected an IANA name such as America/New_York")
        return name


def check_vars(arguments: list[str]) -> None:
    """See that every var is one of the project's and has a value that its models can use.

    Raises:
        UserError: naming the first that is not.
    """
    given: Any = {}
    if "--vars" in arguments[:-1]:
        with suppress(yaml.YAMLError):
            given = yaml.safe_load(arguments[arguments.index("--vars") + 1])
        if not isinstance(given, dict):
            raise UserError("vars are given as a mapping, such as VARS='{session_gap_seconds: 1800}'")
    project = yaml.safe_load((PROJECT / "dbt_project.yml").read_text())["vars"]
    try:
        Vars(**{**project, **{str(name): value for name, value in given.items()}})
    except ValidationError as error:
        first = error.errors()[0]
        name = first["loc"][0]
        if first["type"] == "extra_forbidden":
            raise UserError(f"there is no var {name}; the vars are {', '.join(Vars.model_fields)}") from error
        raise UserError(f"var {name}: {first['msg'].removeprefix('Value error, ')}, got {first['input']!r}") from error


def _vars_options(arguments: list[str]) -> list[str]:
    return arguments[arguments.index("--vars") :][:2] if "--vars" in arguments[:-1] else []


def _invoke(arguments: list[str]) -> dbtRunnerResult:
    """dbt behind a progress bar, or with --verbose its own log."""
    if "--verbose" in arguments:
        return dbtRunner().invoke([argument for argument in arguments if argument != "--verbose"])
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as progress:
        task = progress.add_task("starting dbt", total=None)

        def on_event(event: Any) -> None:
            if event.info.name == "ConcurrencyLine":
                progress.update(task, total=event.data.node_count)
            elif event.info.name == "NodeStart":
                progress.update(task, description=event.data.node_info.node_name[:40])
            elif event.info.name == "NodeFinished":
                progress.advance(task)

        return dbtRunner(callbacks=[on_event]).invoke(["--log-level", "none", *arguments])


def _print_failures(run_results: RunExecutionResult) -> None:
    for one in run_results.results:
        if one.status in ("error", "fail", "runtime error", "partial success"):
            errors.print(f"[red]{one.status}[/] {one.node.resource_type} {one.node.name}: ", end="")
            errors.print((one.message or "").strip(), markup=False, highlight=False)
            if one.node.resource_type == NodeType.Test:
                errors.print(f"  its query: {PROJECT / 'target' / 'compiled'}", markup=False, highlight=False)


def _print_summary(run_results: RunExecutionResult, sink: DuckDBSink | None, *, with_marts: bool) -> None:
    counts = Counter(str(one.status) for one in run_results.results)
    marts = sorted(
        one.node.name
        for one in run_results.results
        if one.node.resource_type == NodeType.Model
        and one.node.schema.endswith("analytics")
        and one.status == "success"
    )
    if sink is not None and with_marts and marts:
        table = Table("mart", box=None)
        table.add_column("rows", justify="right")
        for mart, rows in _row_counts(sink, marts):
            table.add_row(mart, f"{rows:,}")
        output.print(table)
    output.print(
        f"{'built' if with_marts else 'done'} in {run_results.elapsed_time:.1f} s: "
        + ", ".join(f"{number} {status}" for status, number in sorted(counts.items()))
    )


def _row_counts(sink: DuckDBSink, marts: list[str]) -> list[tuple[str, int]]:
    counts = " union all ".join(f"select '{mart}', count(*) from analytics.{mart}" for mart in marts)  # noqa: S608
    with sink.connection() as connection:
        return connection.sql(f"{counts} order by 1").fetchall()


def main() -> None:
    """Run the command line."""
    arguments = sys.argv[1:] or ["--help"]
    try:
        sys.exit(run(load_settings(), arguments))
    except KeyboardInterrupt:
        errors.print("interrupted: run it again, it goes on where it stopped", highlight=False)
        sys.exit(130)
    except UserError as error:
        errors.print(f"[red]error:[/] {error}", highlight=False, soft_wrap=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
