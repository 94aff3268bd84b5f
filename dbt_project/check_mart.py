"""`python -m dbt_project.check_mart NAME`: checks that a mart is exact, with random messages.

Lands random messages in a temporary warehouse and builds the mart, run by run. After each run its rows must be those of
a full refresh. dbt_project/exactness has the parts.
"""

from __future__ import annotations

from common import interrupts

if __name__ == "__main__":
    interrupts.end_at_once()  # before the other imports

import atexit
import gc
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer
import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from common.command_line import finish

if TYPE_CHECKING:  # importing dbt takes two seconds
    from dbt_project.warm import WarmProject

PROJECT = Path(__file__).parent
WORLDS_TOGETHER = 150
"""Worlds (sets of random messages) that share a warehouse."""
output = Console(soft_wrap=True, highlight=False, markup=False)
errors = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")


@app.command()
def main(
    mart: Annotated[
        str, typer.Argument(help="Name of the mart, such as agg_events_daily; without one, all marts.")
    ] = "",
    worlds: Annotated[int, typer.Option(min=1, help="Random worlds to draw, each with a few messages.")] = 300,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the worlds; every check prints its seed.", show_default="random")
    ] = None,
    shrink_seconds: Annotated[float, typer.Option(min=0, help="Maximum time to shrink a failure, in seconds.")] = 60,
    project_dir: Annotated[Path, typer.Option(help="Folder of the dbt project.", show_default="this one")] = PROJECT,
) -> None:
    """Check that a mart is exact: after each run it has the rows of a full refresh.

    Draws random messages from the contracts of the streams that the mart reads: late by seconds to years, duplicate,
    out of order, broken, versions and deletions of entities, some with the texts, numbers and dates of the mart's SQL.
    Lands them in a temporary warehouse in several runs, and builds the mart and its parents after each. Your own
    warehouse is not touched, and no expected result is needed.

    If a row differs, the messages are reduced to the few that still show it, and printed by run with the rows that
    differ. Usual reasons: the model finds new rows by event time, such as the last three days, and misses late ones
    (use is_new() and new_event_dates()); it does not recompute every row that a new message changes; it adds to old
    sums. Times are drawn around the vars of dbt_project.yml that end in _seconds, not around numbers in the SQL. A
    model whose SQL has current_date, now(), random() or the like fails at once. docs/your_own_mart.md shows a model
    that is exact.

    Exit codes: 0 if all worlds agree; 1 if one differs, or the mart never had a row; 2 if there is no such model, or
    dbt cannot build it.
    """
    raise typer.Exit(run(mart, worlds, seed, shrink_seconds, project_dir))


def run(mart: str, worlds: int, seed: int | None, shrink_seconds: float, project_dir: Path) -> int:
    """Check one mart, or all without a name; returns the exit code.

    Raises:
        UserError: when there is no such mart, or dbt cannot build it.
    """
    from dbt_project.contracts import write_contracts
    from dbt_project.exactness.lineage import marts_of
    from dbt_project.warm import WarmProject

    if project_dir.resolve() == PROJECT.resolve():  # another project has other contracts than streams/
        write_contracts()
    for name in ("BUILD_PREFIX", "DATASET_PREFIX"):  # they are for the user's own warehouse
        os.environ.pop(name, None)
    seed = secrets.randbelow(2**31) if seed is None else seed
    variables = yaml.safe_load((project_dir / "dbt_project.yml").read_text()).get("vars", {})
    windows = [value for name, value in variables.items() if name.endswith("_seconds") and isinstance(value, int)]
    with TemporaryDirectory(prefix="check-mart-") as work:
        project = WarmProject(project_dir.absolute(), Path(work))
        return check(project, [mart] if mart else marts_of(project), worlds, seed, shrink_seconds, windows)


def check(
    project: WarmProject, marts: Sequence[str], worlds: int, seed: int, shrink_seconds: float, windows: Sequence[int]
) -> int:
    """Check marts of a parsed project and print the result; returns the exit code.

    Raises:
        UserError: when there is no such mart, or dbt cannot build it.
    """
    from dbt_project.exactness.checker import Checker
    from dbt_project.exactness.draw import draw_history
    from dbt_project.exactness.history import RUNS
    from dbt_project.exactness.report import describe
    from dbt_project.exactness.shrink import shrink

    started = time.monotonic()
    with TemporaryDirectory(prefix="check-mart-") as folder:
        checker = Checker(project, marts, Path(folder))
        of_what = f"{len(marts)} marts" if len(marts) > 1 else marts[0]
        if not checker.streams:
            output.print(f"{of_what} reads no stream: nothing that arrives can change it")
            return 0
        packs = [min(WORLDS_TOGETHER, worlds - start) for start in range(0, worlds, WORLDS_TOGETHER)]
        messages = 0
        failure = None
        with _progress(f"checking {of_what}", 2 + len(packs) * (2 * RUNS + 1)) as (advance, rename):
            checker.on_build = advance
            checker.build_empty()
            if changing := checker.depends_on_time_or_chance():
                model, what = changing
                of_model = model if model in marts else f"{model}, which {marts[0]} reads,"
                output.print(
                    f"{of_model} uses {what}, so that its rows change without a message and differ from a full refresh:"
                    " use event_at or landed_at, or compute it in the query that reads the mart"
                )
                return 1
            for pack, number in enumerate(packs):
                from_empty = bool(pack % 2)
                history = draw_history(checker, f"{seed} {pack}", number, windows)
                messages += sum(len(run.messages) for run in history)
                if failure := checker.first_failure(history, from_empty):
                    failure = checker.first_model_that_fails(failure, from_empty)
                    rename(f"reducing the failure of {failure.model}")
                    of_this = Checker(project, [failure.model], Path(folder))
                    failure = shrink(of_this, failure, from_empty, shrink_seconds)
                    break
        if failure is None and (empty := [name for name in checker.marts if name not in checker.with_rows]):
            output.print(
                f"{', '.join(empty)} never had a row in {worlds} worlds: nothing was compared. Does it keep only rows"
                " with values that neither a contract nor its SQL names? Otherwise try more worlds, such as"
                f" WORLDS={worlds * 10}"
            )
            return 1
        if failure is None:
            output.print(
                f"{of_what} {'equal' if len(marts) > 1 else 'equals'} a full refresh after each run: {worlds} worlds,"
                f" {messages:,} messages of {', '.join(stream.name for stream in checker.streams)} (seed {seed},"
                f" {time.monotonic() - started:.0f} s)"
            )
            return 0
        output.print("\n".join(describe(project, failure, marts, from_empty)))
        named = f" MART={marts[0]}" if len(marts) == 1 else ""
        output.print(f"to see it again: make check-mart{named} SEED={seed} WORLDS={worlds}")
        return 1


@contextmanager
def _progress(description: str, total: int) -> Iterator[tuple[Callable[[], None], Callable[[str], None]]]:
    """Show progress: a bar on a terminal, elsewhere one line per 10 %.

    Yields a function that advances it by one step, and one that changes its description.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as progress:
        task = progress.add_task(description, total=total)
        shown = 0

        def advance() -> None:
            nonlocal shown
            progress.advance(task)
            done = progress.tasks[0]
            tenths = int(done.completed * 10 // total)
            if progress.disable and done.total is not None and tenths > shown:
                shown = tenths
                errors.print(f"{done.description}: {shown * 10} %")

        def rename(new: str) -> None:
            progress.update(task, description=new, total=None)
            if progress.disable:
                errors.print(new)

        yield advance, rename


def command() -> None:
    """Run the command line."""
    finish(lambda: app(standalone_mode=False))


def _leave(status: list[int]) -> None:
    """Exit without freeing memory, which takes Python seconds. Registered first, so that it runs last."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status[0])


def run_and_leave() -> None:
    """Run the command line, and exit without freeing memory."""
    gc.disable()  # dbt keeps nearly all objects: collecting garbage frees little
    status = [1]
    atexit.register(_leave, status)
    try:
        command()
    except SystemExit as end:
        status[0] = int(end.code or 0)
        raise
    except KeyboardInterrupt:
        status[0] = 130
        raise


if __name__ == "__main__":
    interrupts.run(run_and_leave)
