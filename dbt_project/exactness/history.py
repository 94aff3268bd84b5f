"""What lands and is built, run by run, and how it failed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dbt_project.exactness.message import Message

RUNS = 4
Row = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """Messages that land, and the build after them."""

    messages: tuple[Message, ...]
    only: tuple[str, ...] = ()
    """Models that this run builds, so that some are ahead of others; if empty, all that the mart needs."""


History = tuple[Run, ...]


@dataclass(frozen=True)
class Failure:
    """Rows of only the incremental build, rows of only the full refresh; or a build that failed."""

    history: History
    model: str
    only_incremental: Sequence[Row] = ()
    only_refreshed: Sequence[Row] = ()
    error: str | None = None
