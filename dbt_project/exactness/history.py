"""The messages and builds of each run, and the failure that they lead to."""

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
    """How a model differs: rows that only the incremental build has and rows that only the full refresh has, or a
    failed build."""

    history: History
    model: str
    only_incremental: Sequence[Row] = ()
    only_refreshed: Sequence[Row] = ()
    error: str | None = None
