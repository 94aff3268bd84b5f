"""Where messages are landed."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from ingest.message import Batch, Positions


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """What the warehouse knows of one stream."""

    landed: int
    newest_landed_at: datetime | None
    """UTC."""
    dead_letters: int | None
    """As of the last build; None before the first."""


class Sink(Protocol):
    """A warehouse that takes batches."""

    def positions(self, source: str) -> Positions:
        """Where landing from `source` (kafka, spool) goes on; empty before the first commit."""
        ...

    def held(self) -> AbstractContextManager[None]:
        """Several commits in this context are cheaper than each by itself; after one that fails it must end."""
        ...

    def commit(self, batches: Sequence[Batch]) -> int:
        """Land the batches and their positions in one transaction; returns how many rows were new.

        A message below the position that the warehouse holds was landed by another loader and is left out.
        """
        ...

    def status(self) -> dict[str, StreamStatus]: ...
