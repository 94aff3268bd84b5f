"""`make bench` runs every benchmark and writes RESULTS.md; `make bench-quick` prints results for less input."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from time import monotonic
from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown

from benchmarks import report
from benchmarks.first_build import first_builds
from benchmarks.increments import increments
from benchmarks.landing import landing
from benchmarks.live import Phase, live
from benchmarks.measure import processor_times, short_rounds
from benchmarks.report import Section, Table
from benchmarks.startup import startup
from benchmarks.time_on_page import time_on_page

output = Console()
errors = Console(stderr=True)


class Part(StrEnum):
    TIME_ON_PAGE = "time-on-page"
    LANDING = "landing"
    BUILD = "build"
    INCREMENT = "increment"
    LIVE = "live"


@dataclass(frozen=True, slots=True)
class Scale:
    """The input of each part, in days of 100,000 events and in messages."""

    builds: list[int]
    histories: list[int]
    streaming_days: int
    kafka: int
    pubsub: int
    live_days: int
    phases: list[Phase]


FULL = Scale(
    builds=[10, 30, 100],
    histories=[10, 100, 300],
    streaming_days=3,
    kafka=1_000_000,
    pubsub=60_000,
    live_days=100,
    phases=[Phase(200, 1800), Phase(1_000, 600)],
)
QUICK = Scale(
    builds=[2],
    histories=[1, 3],
    streaming_days=1,
    kafka=200_000,
    pubsub=20_000,
    live_days=2,
    phases=[Phase(200, 60), Phase(1_000, 60)],
)


def bench(
    quick: Annotated[
        bool, typer.Option("--quick", help="Use less input and one round, and only print the results.")
    ] = False,
    only: Annotated[list[Part] | None, typer.Option(help="Run only this part; others keep their results.")] = None,
    rounds: Annotated[int, typer.Option(min=1, max=9, help="Runs of each contender.")] = 3,
    folder: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            resolve_path=True,
            help="Folder for warehouses, up to 60 GB; the folder of temporary files unless given.",
        ),
    ] = None,
) -> None:
    """Measure landing, builds, start-up, time on page and live, and write RESULTS.md."""
    scale = QUICK if quick else FULL
    rounds = 1 if quick else rounds
    before, times = report.known_ratios(), processor_times()
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=folder) as name:
        work = Path(name)
        parts: dict[Part, Callable[[], list[Section]]] = {
            Part.TIME_ON_PAGE: lambda: [time_on_page(scale.streaming_days, rounds, work)],
            Part.LANDING: lambda: [landing(scale.kafka, scale.pubsub, rounds)],
            Part.BUILD: lambda: [first_builds(scale.builds, rounds, work)],
            Part.INCREMENT: lambda: _onto_histories(scale.histories, rounds, work),
            Part.LIVE: lambda: [live(scale.live_days, scale.phases, work / "live")],
        }
        command = f"python -m benchmarks --rounds {rounds}" + "".join(f" --only {part}" for part in only or ())
        sections: list[Section] = []
        for part, measure in parts.items():
            if only is None or part in only:
                started = monotonic()
                found = measure()
                errors.print(f"{part} took {monotonic() - started:.0f} s", highlight=False)
                for section in found:
                    output.print(Markdown("\n\n".join([f"## {section.title}", *map(str, section.tables)])))
                sections += found
                if not quick:  # after each part, so that results are kept if a later one fails
                    report.write(sections, command, report.machine(work, times))
        errors.print(report.machine(work, times), highlight=False)
    ratios = [ratio for section in sections for ratio in section.ratios]
    if quick:  # with so little input, ratios are not compared with their limits
        output.print(Markdown(str(Table(["ratio", "measured"], [[one.name, one.figure] for one in ratios]))))
    else:
        output.print(Markdown(str(report.ratio_table(ratios))))
        output.print(Markdown(str(report.compare(ratios, before))))


def _onto_histories(histories: list[int], rounds: int, folder: Path) -> list[Section]:
    """Measure increments, and start-up on the shortest history."""
    section, shortest = increments(histories, rounds, folder)
    return [section, startup(rounds, shortest, histories[0] + short_rounds(rounds), folder)]


if __name__ == "__main__":
    typer.run(bench)
