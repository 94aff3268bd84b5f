"""Runs dbt on the warehouse that the settings name: `python -m dbt_project build [dbt's own options]`.

Exit code 0 when all is well, 1 when a model or a test failed or a query of analyses/ could not be published, 2 when
dbt could not start.
"""

from __future__ import annotations

from common import interrupts

if __name__ == "__main__":
    interrupts.end_at_once()  # before the other imports

import atexit
import gc
import os
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from datetime import date
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal
from zoneinfo import available_timezones

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from common.command_line import finish
from common.console import count
from common.errors import UserError
from common.logs import printable
from common.settings import Settings, load_settings
from dbt_project.contracts import parse_changed_contracts, write_contracts
from dbt_project.last_build import (
    LastBuild,
    code_now,
    is_built,
    is_removal_due,
    manifest_state,
    read_last_build,
    retention_now,
    write_last_build,
)
from engines.engine import Engine
from engines.factory import engine_for
from publishing.dbt_errors import user_error
from publishing.dbt_options import PROJECT, PROJECT_OPTIONS, export_environment, target
from publishing.versions import published_version

if TYPE_CHECKING:  # imported on first use: the import takes most of the time of a build with nothing to do
    from dbt.artifacts.schemas.run import RunExecutionResult
    from dbt.cli.main import dbtRunnerResult

SELECTIONS = ("select", "exclude", "selector", "resource_types", "exclude_resource_types")
"""Options of dbt that limit a build to a part of the project."""
SUMMARIZED = ("build", "run", "test", "seed", "snapshot", "retry", "docs")
"""Commands whose results are printed as a summary."""
FAILING_ROWS = 3
"""Maximum rows of a failing test to print."""
HELP = """\
`python -m dbt_project build` builds and tests the warehouse that the settings name, and publishes it for the queries,
the dashboard and HTTP. A build with --select or the like publishes nothing. Other commands and options are dbt's:"""
output = Console()
errors = Console(stderr=True)


def run(settings: Settings, arguments: list[str]) -> int:
    """Run dbt with these arguments; returns the exit code. A build ends with a table of the marts.

    Raises:
        UserError: when there is no warehouse yet, another process holds it, or a var is invalid.
    """
    if not arguments or arguments[0].startswith("-") or {"--help", "-h"} & {*arguments}:
        return _print_help(arguments)
    engine = engine_for(settings)
    write_contracts()
    parse_changed_contracts(target())
    arguments = [part for argument in arguments for part in _apart(argument)]
    check_vars(arguments)
    # only a build of everything is recorded as the last build
    is_plain = settings.build_prefix is None and arguments == ["build", *_vars_options(arguments)]
    code = code_now(arguments) if is_plain else ""
    # nothing is published after a restore: then the record is of another warehouse
    last = read_last_build(settings) if is_plain and published_version(settings) else None
    same_code_as = None
    known_code: list[str] = []
    if last and last.code == code:
        same_code_as = last.version
        if is_built(settings, engine, last) and not is_removal_due(settings, last):
            _print_marts(engine, last.marts)
            output.print("nothing new: the last build, which passed every test, is up to date")
            return 1 if _print_left_out(settings) else 0
        known_code = ["--exclude-resource-type", "unit_test"]  # unit tests depend on the code alone
        with engine.building():
            if engine.is_copied and _build_increment(settings, engine, last, arguments):
                return 1 if _print_left_out(settings) else 0
    from dbt.artifacts.schemas.run import RunExecutionResult

    export_environment(settings)
    is_query_left_out = False
    with engine.building():
        result = _invoke([*arguments, *known_code, *PROJECT_OPTIONS])
        from publishing.publish import publish

        # after Ctrl-C, dbt may only report errors, of the statements that it cancelled
        if interrupts.is_interrupted or isinstance(result.exception, KeyboardInterrupt):
            raise KeyboardInterrupt
        if result.exception is not None:
            raise user_error(result.exception, target())
        if isinstance(result.result, RunExecutionResult):
            _print_results(result.result, engine, with_marts=arguments[0] == "build")
            if result.success and is_publishable(settings, result.result.args):
                options = [*_vars_options(arguments), *PROJECT_OPTIONS]
                version = publish(settings, engine, options, target(), same_code_as)
                is_query_left_out = _print_left_out(settings)
                if code and _has_passed(result.result):
                    _record_last_build(settings, engine, code, version, _built_marts(result.result))
    if arguments[:2] == ["docs", "generate"] and result.success:
        page = target() / ("static_index.html" if "--static" in arguments else "index.html")
        output.print(f"docs: {os.path.relpath(page)}", soft_wrap=True)
    return 0 if result.success and not is_query_left_out else 1


def _build_increment(settings: Settings, engine: Engine, last: LastBuild, arguments: list[str]) -> bool:
    """Build what is new by the code of the last build, and publish it; returns whether that could be done."""
    from dbt_project.increment import build_increment

    options = _vars_options(arguments)
    increment = build_increment(settings, last, yaml.safe_load(options[1]) if options else {})
    if interrupts.is_interrupted:
        raise KeyboardInterrupt
    if increment is None:
        return False
    from publishing.publish import publish

    version = publish(settings, engine, [*options, *PROJECT_OPTIONS], target(), last.version)
    _record_last_build(settings, engine, last.code, version, last.marts)
    _print_marts(engine, last.marts)
    output.print(
        f"built in {increment.seconds:.1f} s: {count(increment.models, 'model')} with new messages,"
        f" {count(increment.snapshots, 'snapshot')}, {count(increment.tests, 'test')} passed",
        highlight=False,
    )
    return True


def _record_last_build(settings: Settings, engine: Engine, code: str, version: str, marts: list[str]) -> None:
    """Record a successful build, while the warehouse is held: so the recorded state is the one that was built."""
    engine.checkpoint()
    state = engine.state()
    if state is not None:
        last = LastBuild(
            code=code,
            version=version,
            warehouse=state,
            marts=marts,
            manifest=manifest_state(),
            retention=retention_now(settings),
        )
        write_last_build(settings, last)


def _print_help(arguments: list[str]) -> int:
    """Print the answer to --help or --version; returns the exit code."""
    from dbt.cli.main import dbtRunner

    if "--help" in arguments or "-h" in arguments:
        output.print(HELP, highlight=False, soft_wrap=True)
    return 0 if dbtRunner().invoke(arguments).success else 2


def is_publishable(settings: Settings, arguments: Mapping[str, Any]) -> bool:
    """Whether dbt, with these arguments, builds and tests all marts that others read.

    Args:
        arguments: dbt's own names and values, such as {"which": "build", "select": ("fct_events",)}.
    """
    selections = {name: arguments.get(name) for name in SELECTIONS}
    selections["exclude_resource_types"] = set(selections["exclude_resource_types"] or ()) - {"unit_test"}
    is_shared = settings.build_prefix is None and arguments.get("target") in (None, settings.warehouse)
    return arguments.get("which") == "build" and is_shared and not any(selections.values())


class Vars(BaseModel, extra="ignore"):
    """The vars that the models use, as dbt_project.yml describes them. dbt does not check their values. Other vars are
    allowed: they may belong to a package or to models that somebody has added."""

    session_gap_seconds: int = Field(ge=0)
    session_key: Literal["source_session_id", "user_id"]
    attribution_window_seconds: int = Field(ge=0)
    reporting_time_zone: str
    earliest_event_at: date
    customer_id_filter: list[str] | None
    allowed_lateness_seconds: int | None = Field(ge=0)
    test_all_partitions: bool
    lose_removed_messages: bool
    landing_hold_minutes: int = Field(ge=0)

    @field_validator("reporting_time_zone")
    @classmethod
    def _is_a_time_zone(cls, name: str) -> str:
        if name not in available_timezones():
            raise ValueError("expected an IANA name such as America/New_York")
        return name


def check_vars(arguments: list[str]) -> None:
    """Check the values of the vars that the project's models use.

    Raises:
        UserError: for an invalid value, or an unknown name that is close to one of these vars.
    """
    given: Any = {}
    if "--vars" in arguments[:-1]:
        with suppress(yaml.YAMLError):
            given = yaml.safe_load(arguments[arguments.index("--vars") + 1])
        if not isinstance(given, dict):
            raise UserError("vars must be a mapping, such as VARS='{session_gap_seconds: 1800}'")
    project = yaml.safe_load((PROJECT / "dbt_project.yml").read_text())["vars"]
    values = {**project, **{str(name): value for name, value in given.items()}}
    for name in values.keys() - Vars.model_fields.keys():
        meant = [known for known in Vars.model_fields if known.startswith(f"{name}_")]
        if meant := meant or get_close_matches(name, Vars.model_fields, n=1, cutoff=0.85):
            raise UserError(f"there is no var {name}: did you mean {meant[0]}?")
    try:
        Vars(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = first["loc"][0]
        raise UserError(f"var {name}: {first['msg'].removeprefix('Value error, ')}, got {first['input']!r}") from error


def _apart(argument: str) -> list[str]:
    """Split `--vars=X` into two arguments."""
    return ["--vars", argument.removeprefix("--vars=")] if argument.startswith("--vars=") else [argument]


def _vars_options(arguments: list[str]) -> list[str]:
    return arguments[arguments.index("--vars") :][:2] if "--vars" in arguments[:-1] else []


def _invoke(arguments: list[str]) -> dbtRunnerResult:
    """Run dbt with a progress bar; with --verbose, or for a command such as `show`, with its own output."""
    from dbt.cli.main import dbtRunner

    if "--verbose" in arguments or arguments[0] not in SUMMARIZED:
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
            elif event.info.name in ("JinjaLogInfo", "JinjaLogWarning"):  # logged by macros/rebuilds.sql
                errors.print(event.data.msg.strip(), markup=False, highlight=False, soft_wrap=True)

        return dbtRunner(callbacks=[on_event]).invoke(["--log-level", "none", *arguments])


def _print_results(run_results: RunExecutionResult, engine: Engine, *, with_marts: bool) -> None:
    if not any(one.node.resource_type.value != "operation" for one in run_results.results):
        raise UserError("the selection matches no model and no test")
    _print_failures(run_results, engine)
    _print_summary(run_results, engine, with_marts=with_marts)


def _print_failures(run_results: RunExecutionResult, engine: Engine) -> None:
    for one in run_results.results:
        if one.status in ("error", "fail", "runtime error", "partial success"):
            errors.print(f"[red]{one.status}[/] {one.node.resource_type} {one.node.name}: ", end="")
            errors.print((one.message or "").strip(), markup=False, highlight=False)
            if one.node.resource_type.value == "test":
                if one.status == "fail":
                    _print_failing_rows(engine, str(getattr(one.node, "compiled_code", "")))
                errors.print(f"  its SQL: {target() / 'compiled'}", markup=False, highlight=False)


def _print_failing_rows(engine: Engine, query: str) -> None:
    """Print the first rows that a failing test found."""
    names, rows = engine.preview(f"select * from ({query}) limit {FAILING_ROWS}", FAILING_ROWS)  # noqa: S608  dbt's own query
    for row in rows:
        shown = ", ".join(f"{name}={value}" for name, value in zip(names, row, strict=True))
        errors.print(f"  {shown}", markup=False, highlight=False, soft_wrap=True)


def _print_left_out(settings: Settings) -> bool:
    """Print why queries of analyses/ are left out of the published version; returns whether there are any."""
    from publishing.versions import left_out

    found = left_out(settings)
    for query in found:
        for problem in query.problems:
            line = Text.assemble(("left out: ", "red"), printable(problem))
            errors.print(line, highlight=False, soft_wrap=True)
    if found:
        errors.print("published without these queries: test one with `make query-check Q=NAME`", highlight=False)
    return bool(found)


def _has_passed(run_results: RunExecutionResult) -> bool:
    return all(one.status in ("success", "pass", "no-op") for one in run_results.results)


def _built_marts(run_results: RunExecutionResult) -> list[str]:
    """Return the built marts as `schema.name`, sorted."""
    return sorted(
        f"{one.node.schema}.{one.node.name}"
        for one in run_results.results
        if one.node.resource_type.value == "model" and one.node.schema.endswith("analytics") and one.status == "success"
    )


def _print_summary(run_results: RunExecutionResult, engine: Engine, *, with_marts: bool) -> None:
    counts = Counter(str(one.status) for one in run_results.results)
    if with_marts:
        _print_marts(engine, _built_marts(run_results))
    output.print(
        f"{'built' if with_marts else 'done'} in {run_results.elapsed_time:.1f} s: "
        + ", ".join(f"{number} {status}" for status, number in sorted(counts.items()))
    )


def _print_marts(engine: Engine, marts: list[str]) -> None:
    """Print the number of rows of each mart, or nothing where queries are billed."""
    counts = " union all ".join(f"select '{mart}', count(*) from {mart}" for mart in marts)  # noqa: S608
    rows = engine.preview(f"{counts} order by 1", len(marts))[1] if marts else []
    if not rows:
        return
    table = Table("mart", box=None)
    table.add_column("rows", justify="right")
    for mart, number in rows:
        table.add_row(mart.partition(".")[2], f"{number:,}")
    output.print(table)


def main() -> None:
    """Run the command line."""
    gc.disable()  # dbt keeps nearly all objects: collecting garbage takes a sixth of a build and frees little
    arguments = sys.argv[1:] or ["--help"]
    status = 1

    def leave() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    # Exit without freeing memory, which takes Python a second. Registered first, so that it runs last.
    atexit.register(leave)
    try:
        finish(lambda: run(load_settings(), arguments))
    except KeyboardInterrupt:
        errors.print("interrupted: run it again to continue where it stopped", highlight=False)
        status = 130
        sys.exit(status)
    except SystemExit as end:
        status = int(end.code or 0)
        raise


if __name__ == "__main__":
    interrupts.run(main)
