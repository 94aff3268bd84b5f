"""Builds worlds run by run, finds one that differs from the specification, and reduces it to a few messages."""

import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from common.streams import STREAMS
from dbt_project.exactness.message import Message
from dbt_project.warm import BuildError
from specification import Settings
from tests.dbt_project.exact.worlds import COMMITS_PER_RUN, RUNS, draw_worlds, number_of, place
from tools.warehouses.in_process import Difference, Project

FIRST_LANDING = datetime(2027, 3, 1, 10)
LOADERS = 3
SHRINK_SECONDS = float(os.environ.get("EXACT_SHRINK_SECONDS", "240"))
DIFFERENCES_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Failure:
    """Marts that differ from the specification, or a build that failed."""

    when: str
    differences: Sequence[Difference] = ()
    error: str | None = None

    def __str__(self) -> str:
        shown = [str(difference) for difference in self.differences[:DIFFERENCES_SHOWN]]
        left = len(self.differences) - len(shown)
        return "\n".join([self.when, *shown, *([f"... and {left} more"] if left else []), *filter(None, [self.error])])


def check_random_worlds(
    project: Project,
    settings: Settings,
    number: int,
    seed: int,
    examples: Sequence[list[Message]] = (),
    runs: int = RUNS,
) -> None:
    """Build random worlds and examples in one warehouse. Fail with the smallest part of a world that still fails.

    Args:
        runs: maximum runs of the build; messages of later runs come with the last.
    """
    placed = [*place(draw_worlds(number, settings, seed), settings, seed), *examples]
    placed = [[replace(message, run=min(message.run, runs - 1)) for message in world] for world in placed]
    failure = first_failure(project, settings, seed, together(placed))
    if failure is None:
        return
    if not SHRINK_SECONDS:
        raise AssertionError(f"EXACT_SEED={seed} {settings}: {failure}")
    world = failing_world(project, settings, seed, placed, failure)
    if world is None:
        raise AssertionError(f"EXACT_SEED={seed} {settings}: {number} worlds together, none alone: {failure}")
    small = shrink(world, lambda part: first_failure(project, settings, seed, part) is not None)
    raise AssertionError(
        f"EXACT_SEED={seed} EXACT_WORLDS={number} {settings}\n{described(small)}\n"
        f"{first_failure(project, settings, seed, small)}"
    )


def together(worlds: Sequence[Sequence[Message]]) -> list[Message]:
    return [message for world in worlds for message in world]


def first_failure(project: Project, settings: Settings, seed: int, messages: Sequence[Message]) -> Failure | None:
    """Land and build run by run in a new warehouse, and compare the marts with the specification.

    Within a run, some models may be built after a part of its messages only. The last build is a full refresh.
    """
    rng = random.Random(seed)
    when = "before the first run"
    last_run = max((message.run for message in messages), default=0)
    with TemporaryDirectory(prefix="exact-") as folder:
        warehouse = project.warehouse(Path(folder), settings)
        try:
            for run in range(last_run + 1):
                halfway = rng.choice([None, rng.randrange(COMMITS_PER_RUN * LOADERS)])
                for place, (landing_time, commit) in enumerate(
                    commits([a for a in messages if a.run == run], run, seed)
                ):
                    warehouse.land(commit, landing_time)
                    if run and place == halfway:
                        when = f"in run {run}, built in part"
                        warehouse.build("--select", *sorted(model for model in project.models if rng.random() < 0.5))
                when = f"after run {run}"
                warehouse.build()
                if differences := warehouse.differences():
                    return Failure(when, differences)
            when = "after a full refresh"
            warehouse.build("--full-refresh")
            if differences := warehouse.differences():
                return Failure(when, differences)
        except BuildError as error:
            return Failure(when, error=str(error))
    return None


def commits(messages: Sequence[Message], run: int, seed: int) -> list[tuple[datetime, list[Message]]]:
    """The commits of a run, by loaders whose clocks are days apart: landed_at orders one stream only."""
    rng = random.Random(seed)
    loader_of = {stream: rng.randrange(LOADERS) for stream in STREAMS}
    clock_of = [timedelta(), timedelta(days=-3, hours=rng.randrange(24)), timedelta(days=rng.randrange(1, 4))]
    steps = [rng.choice([1e-6, 1.0, 1200.0, 32400.0, 82800.0]) for _ in range(RUNS * COMMITS_PER_RUN)]
    rng.shuffle(clock_of)
    found = []
    for commit in range(COMMITS_PER_RUN):
        now = FIRST_LANDING + timedelta(seconds=sum(steps[: run * COMMITS_PER_RUN + commit]))
        for loader, clock in enumerate(clock_of):
            of_loader = [a for a in messages if a.commit == commit and loader_of[a.stream] == loader]
            found.append((now + clock, of_loader))
    return found


def failing_world(
    project: Project, settings: Settings, seed: int, placed: list[list[Message]], failure: Failure
) -> list[Message] | None:
    """A world that fails alone: found by ids in the differing rows, or else by halving."""
    values = [value for difference in failure.differences for value in difference.row.values()]
    named = {number for number in map(number_of, values) if number is not None}
    for number in sorted(named, key=lambda number: len(placed[number]))[:3]:
        if first_failure(project, settings, seed, placed[number]):
            return placed[number]
    part = placed
    while len(part) > 1:
        half = len(part) // 2
        failing = [one for one in (part[:half], part[half:]) if first_failure(project, settings, seed, together(one))]
        if not failing:
            return None
        part = failing[0]
    return part[0]


def shrink(world: list[Message], fails: Callable[[list[Message]], bool]) -> list[Message]:
    """Leave out messages, runs and commits as long as the rest still fails."""
    deadline = time.monotonic() + SHRINK_SECONDS
    small = world
    while time.monotonic() < deadline:
        smaller = next((part for part in parts(small) if time.monotonic() < deadline and fails(part)), None)
        if smaller is None:
            break
        small = smaller
    return small


def parts(world: list[Message]) -> list[list[Message]]:
    """The world without some messages, or with fewer runs or commits: the smallest parts first."""
    found: list[list[Message]] = []
    size = len(world) // 2
    while size:
        found += [world[:start] + world[start + size :] for start in range(0, len(world), size)]
        size //= 2
    for run in range(max(message.run for message in world), 0, -1):
        found.append([replace(message, run=message.run - (message.run >= run)) for message in world])
    for commit in range(max(message.commit for message in world), 0, -1):
        found.append([replace(message, commit=message.commit - (message.commit >= commit)) for message in world])
    return [part for part in found if part]


def described(world: Sequence[Message]) -> str:
    """One line per message, ordered by run, in the form that examples.py uses."""
    return "\n".join(
        f"    {message!r}," for message in sorted(world, key=lambda message: (message.run, message.commit))
    )
