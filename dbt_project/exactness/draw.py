"""Draws histories: random worlds whose messages arrive over several runs."""

import random
from collections.abc import Sequence

from dbt_project.exactness.checker import Checker
from dbt_project.exactness.history import RUNS, History, Run
from dbt_project.exactness.worlds import draw_world


def draw_history(checker: Checker, seed: str, number: int, windows: Sequence[int]) -> History:
    """The messages of this many worlds, divided into runs, one of which builds only some of the models."""
    rng = random.Random(seed)  # noqa: S311  not used for secrets
    streams = [*checker.streams, *checker.named_streams * 2 * len(checker.streams)]
    messages = [
        message
        for world in range(number)
        for message in draw_world(rng, world, streams, RUNS, windows, checker.literals)
    ]
    history: list[Run] = []
    in_part = rng.randrange(1, RUNS)
    for number_of_run in range(RUNS):
        landed = tuple(message for message in messages if message.run == number_of_run)
        if number_of_run == in_part:
            first = tuple(message for message in landed if message.commit == 0)
            part = tuple(model for model in checker.models if rng.random() < 0.5)
            history.append(Run(first, part or (checker.marts[-1],)))
            landed = tuple(message for message in landed if message.commit)
        history.append(Run(landed))
    return tuple(history)
