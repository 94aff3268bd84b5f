"""Where messages are landed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from ingest.message import Batch, Positions, TopicIds


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

    def positions(self, source: str, topic_ids: TopicIds) -> Positions:
        """Where landing from `source` (kafka, spool) goes on in the topics of these ids; empty before the first
        commit."""
        ...

    def commit(self, batches: Sequence[Batch]) -> Mapping[str, int]:
        """Land the batches and their positions in one transaction; returns stream to how many rows were new.

        A message below the position that the warehouse holds was landed by another loader and is left out.
        """
        ...

    def status(self) -> dict[str, StreamStatus]: ...
