"""Reduces a failing history to the few messages that still fail."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace

from dbt_project.exactness.checker import Checker
from dbt_project.exactness.history import Failure, History, Run
from dbt_project.exactness.message import Message
from dbt_project.exactness.worlds import world_of

MIN_ATTEMPTS = 40
"""Minimum attempts, made even when the time is over, as on a busy machine: enough to leave out the worlds that do not
differ."""


def shrink(checker: Checker, failure: Failure, from_empty: bool, seconds: float) -> Failure:
    """The smallest failing history found in this time: fewer worlds, then fewer runs, then fewer messages."""
    deadline = time.monotonic() + seconds
    least = MIN_ATTEMPTS if seconds else 0
    tried: set[History] = set()
    smallest = failure

    def fails(history: History) -> Failure | None:
        is_late = time.monotonic() > deadline and len(tried) >= least
        if is_late or history in tried or not any(run.messages for run in history):
            return None
        tried.add(history)
        found = checker.still_fails(history, from_empty)
        is_alike = found is not None and (found.error is None) == (failure.error is None)
        return found if is_alike else None

    while smaller := next(filter(None, map(fails, _smaller(smallest))), None):
        smallest = smaller
    return smallest


def _smaller(failure: Failure) -> Iterator[History]:
    """Smaller histories to try, the smallest first."""
    history = failure.history
    messages = [message for run in history for message in run.messages]
    by_world: dict[int | None, list[Message]] = {}
    for message in messages:
        by_world.setdefault(world_of(message.message_id), []).append(message)
    if len(by_world) > 1:  # worlds of the differing rows: each alone, or with the latest world
        rows = [*failure.only_incremental, *failure.only_refreshed]
        named = {world_of(value) for row in rows[:200] for value in row.values()} & by_world.keys()
        fewest = sorted(named, key=lambda world: len(by_world[world]))[:3]
        newest = max(world for world in by_world if world is not None)
        for kept in (*({world} for world in fewest), *({world, newest} for world in fewest)):
            yield _without(history, [one for world, of_it in by_world.items() if world not in kept for one in of_it])
    if len(history) > 2 or any(run.only for run in history):
        yield (*_joined(history[:-1]), history[-1])
        for place in range(len(history) - 1, 0, -1):
            yield (*history[: place - 1], *_joined(history[place - 1 : place + 1]), *history[place + 1 :])
    for units in (list(by_world.values()), [[message] for message in messages]):
        size = (len(units) + 1) // 2 if len(units) > 1 else 0
        while size:
            for start in range(0, len(units), size):
                yield _without(history, [message for unit in units[start : start + size] for message in unit])
            size //= 2


def _without(history: History, left_out: Iterable[Message]) -> History:
    """The history without some messages, and without runs left empty, except the last.

    Messages are compared by identity, since a redelivered one is equal to the first.
    """
    out = {id(message) for message in left_out}
    kept = [replace(run, messages=tuple(one for one in run.messages if id(one) not in out)) for run in history]
    first, *others = (run for place, run in enumerate(kept) if run.messages or place == len(kept) - 1)
    return (Run(first.messages), *others)  # nothing was built before the first run, so it builds everything


def _joined(runs: History) -> History:
    """Merge the runs into one that builds everything."""
    return (Run(tuple(message for run in runs for message in run.messages)),)
