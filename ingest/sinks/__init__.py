"""Where messages are landed."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import NamedTuple, Protocol

from ingest.message import Batch, Positions, TopicIds


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """What the warehouse knows of one stream."""

    landed: int
    newest_landed_at: datetime | None
    """UTC."""
    dead_letters: int | None
    """As of the last build; None before the first."""


@dataclass(frozen=True, slots=True)
class UnlistedField:
    """A field that messages have and their contract does not list; of one type."""

    path: str
    type: str
    """string, number, boolean, object or array."""
    example: str
    """A value with a for each letter and 9 for each digit."""
    messages: int


class Sink(Protocol):
    """A warehouse that takes batches."""

    def positions(self, source: str, topic_ids: TopicIds) -> Positions:
        """Where landing from `source` (kafka, spool) goes on in the topics of these ids; empty before the first
        commit."""
        ...

    def session(self) -> AbstractContextManager[None]:
        """A context in which several commits cost less than each by itself. Leave it after a commit that fails."""
        ...

    def commit(self, batches: Sequence[Batch]) -> Mapping[str, int]:
        """Land the batches and their positions in one transaction; returns stream to the number of new rows.

        On BigQuery there is one transaction per stream: when the commit fails, what landed of it is left out of its
        repetition.

        A message below the position that the warehouse holds was landed by another loader and is left out.

        Raises:
            WarehouseReplacedError: when the warehouse holds less than this sink has read from it or committed to it.
                Nothing is landed: the messages in between must be read again.
        """
        ...

    def verify(self) -> None:
        """Check that the warehouse still holds what this sink committed. Called while nothing arrives; cheap while
        nothing changes, and skipped while another process holds the warehouse.

        Raises:
            WarehouseReplacedError: as for `commit`.
        """
        ...

    def forget(self) -> None:
        """Go by what the warehouse holds now, after a WarehouseReplacedError. Before, close all sources."""
        ...

    def create_tables(self) -> None:
        """Create the raw tables and columns that are missing, so that every model has its source."""
        ...

    def status(self) -> dict[str, StreamStatus]: ...

    def unlisted_fields(self, stream: str) -> list[UnlistedField] | None:
        """What field_drift has of a stream, most messages first; None until a build has staged one."""
        ...


class Cursor(NamedTuple):
    """A place in the order in which results are emitted: that of these three columns of fct_page_views."""

    session_landed_at: datetime
    session_id: str
    sequence_number: int


FIRST_CURSOR = Cursor(datetime.min, "", 0)  # noqa: DTZ901  UTC without a zone, as all times of the warehouse
"""Before every result."""


class Result(NamedTuple):
    """A page view whose time on page is known: these columns of fct_page_views, times in UTC without a zone."""

    session_landed_at: datetime
    session_id: str
    sequence_number: int
    source_session_id: str
    page_title: str
    event_at: datetime
    time_on_page_seconds: Decimal
    window_start_at: datetime
    window_end_at: datetime | None
    """None where it lies beyond the year 9999."""

    @property
    def cursor(self) -> Cursor:
        return Cursor(self.session_landed_at, self.session_id, self.sequence_number)


class ResultSource(Protocol):
    """A warehouse whose results can be emitted."""

    def emitting(self) -> AbstractContextManager[None]:
        """Held by the one command that emits from this warehouse.

        Raises:
            UserError: when another one does, or the mart is not built yet.
        """
        ...

    def emit_cursor(self, topic: str) -> Cursor:
        """Behind the last result that this topic is known to have; FIRST_CURSOR when it has none."""
        ...

    def save_emit_cursor(self, topic: str, cursor: Cursor) -> None: ...

    def count_results(self, after: Cursor) -> int:
        """How many results lie behind the cursor.

        Raises:
            UserError: when the mart is not built yet.
        """
        ...

    def results(self, after: Cursor, chunk_rows: int) -> Iterator[list[Result]]:
        """The results behind the cursor in its order, as they were at one moment, in chunks of at most this many.

        Nothing of the warehouse is held between two chunks.
        """
        ...


class Warehouse(Sink, ResultSource, Protocol):
    """All that the command line asks of a warehouse."""

    def missing_tables(self) -> list[str]:
        """The tables that `create_tables` would create, such as raw.users."""
        ...


def utc_now() -> datetime:
    """Without a zone."""
    return datetime.now(UTC).replace(tzinfo=None)


def split_by_topic_id(batches: Sequence[Batch]) -> Iterator[list[Batch]]:
    """Runs of batches with one id per topic. A message id names a partition and an offset, so that of a topic and its
    successor under the same name only landed_at tells the messages apart: they cannot share a commit."""
    alike: list[Batch] = []
    topic_ids: dict[str, str] = {}
    for batch in batches:
        if any(topic_ids.get(topic, topic_id) != topic_id for topic, topic_id in topic_ids_of(batch).items()):
            yield alike
            alike, topic_ids = [], {}
        alike.append(batch)
        topic_ids.update(topic_ids_of(batch))
    if alike:
        yield alike


PartitionKey = tuple[str, str, str, int]
"""source, topic, its id or '', partition."""


def positions_of(batch: Batch) -> dict[PartitionKey, int]:
    """The batch's positions, by what a warehouse knows them by."""
    return {
        (batch.positions_source, topic, batch.topic_ids.get(topic, ""), partition): next_offset
        for (topic, partition), next_offset in batch.positions.items()
    }


def topic_ids_of(batch: Batch) -> dict[str, str]:
    """The id of each topic of the batch; '' for one that has none, such as the spool's."""
    return {topic: batch.topic_ids.get(topic, "") for topic, _ in batch.positions}
