"""The interface of warehouses, in which messages are landed and from which results are emitted."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple, Protocol

from engines.batch import Batch, Positions, TopicIds

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    from engines.recovery import OpenDeadLetters


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """Counts of one stream in the warehouse."""

    landed: int
    newest_landed_at: datetime | None
    """UTC."""
    dead_letters: int | None
    """Open ones, as of the last build; None before the first."""


@dataclass(frozen=True, slots=True)
class UnlistedField:
    """A field, with values of one type, that messages have and their contract does not list."""

    path: str
    type: str
    """string, number, boolean, object or array."""
    example: str
    """A value, with its letters replaced by a and its digits by 9."""
    messages: int


class Sink(Protocol):
    """A warehouse that takes batches."""

    def positions(self, source: str, topic_ids: TopicIds) -> Positions:
        """Next offset to land per partition, of `source` (kafka, spool) and the topics with these ids; empty before the
        first commit."""
        ...

    def session(self) -> AbstractContextManager[None]:
        """A context in which several commits cost less than each by itself. Leave it after a commit that fails."""
        ...

    def commit(self, batches: Sequence[Batch]) -> Mapping[str, int]:
        """Land the batches and their positions in one transaction; returns stream to the number of new rows.

        On BigQuery there is one transaction per stream: after a commit that failed, a retry lands only what is missing.

        Messages below the position of the warehouse were landed by another loader and are skipped.

        Raises:
            WarehouseReplacedError: when the warehouse has less than this sink has read from it or committed to it.
                Nothing is landed: the messages in between must be read again.
        """
        ...

    def verify(self) -> None:
        """Check that the warehouse still has what this sink committed. Called while no messages arrive: cheap if
        nothing has changed, and skipped while another process holds the warehouse.

        Raises:
            WarehouseReplacedError: as for `commit`.
        """
        ...

    def forget(self) -> None:
        """Forget the positions of the replaced warehouse, after a WarehouseReplacedError. Close all sources first."""
        ...

    def create_tables(self) -> None:
        """Create the raw tables and columns that are missing, so that every model has its source."""
        ...

    def status(self) -> dict[str, StreamStatus]: ...

    def unlisted_fields(self, stream: str) -> list[UnlistedField] | None:
        """Rows of field_drift for a stream, most messages first; None until a build has staged a message of it."""
        ...

    def rejected(self, letters: "OpenDeadLetters") -> "Iterator[pa.Table]":
        """A snapshot of the messages of these dead letters in REJECTED_SCHEMA, in the order of landing, in chunks.

        The warehouse is not locked between two chunks.

        Raises:
            UserError: when the mart is not built yet.
        """
        ...

    def land_again(self, stream: str, rows: "pa.Table") -> int:
        """Land recovered messages in one commit; returns their number without those that had landed before.

        Args:
            rows: in BATCH_SCHEMA, for streams whose format is not json also with the columns of DECODED_SCHEMA. The
                source is RECOVER, the message id a `recovered_id`, which no other message of the stream has.
        """
        ...


class Cursor(NamedTuple):
    """A position in the order of emitted results, which is that of these three columns of fct_page_views."""

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
    session_started_at: datetime
    window_end_at: datetime | None
    """None if it is after the year 9999."""

    @property
    def cursor(self) -> Cursor:
        return Cursor(self.session_landed_at, self.session_id, self.sequence_number)


class ResultSource(Protocol):
    """A warehouse from which results can be emitted."""

    def emitting(self) -> AbstractContextManager[None]:
        """A lock for the one command that emits from this warehouse.

        Raises:
            UserError: when another command emits, or the mart is not built yet.
        """
        ...

    def emit_cursor(self, topic: str) -> Cursor:
        """Cursor of the last result that the topic is known to have; FIRST_CURSOR if it has none."""
        ...

    def save_emit_cursor(self, topic: str, cursor: Cursor) -> None: ...

    def count_results(self, after: Cursor) -> int:
        """Number of results after the cursor.

        Raises:
            UserError: when the mart is not built yet.
        """
        ...

    def results(self, after: Cursor, chunk_rows: int) -> Iterator[list[Result]]:
        """A snapshot of the results after the cursor, in its order, in chunks of at most `chunk_rows`.

        The warehouse is not locked between two chunks.
        """
        ...


Arrivals = tuple["npt.NDArray[np.float64]", "npt.NDArray[np.float64]"]
"""Times at which messages were published, and at which they landed, in Unix seconds."""


class FreshnessRow(NamedTuple):
    """A row of the mart stream_freshness: these columns."""

    stream: str
    minute_at: datetime
    messages: int
    p50_seconds: float
    p95_seconds: float
    max_seconds: float
    p95_landing_seconds: float
    p95_waiting_seconds: float
    p95_building_seconds: float
    p95_publishing_seconds: float


class Warehouse(Sink, ResultSource, Protocol):
    """All that the command line needs from a warehouse."""

    def missing_tables(self) -> list[str]:
        """The tables that `create_tables` would create, such as raw.users."""
        ...


def utc_now() -> datetime:
    """The present time in UTC, without a zone."""
    return datetime.now(UTC).replace(tzinfo=None)


def split_by_topic_id(batches: Sequence[Batch]) -> Iterator[list[Batch]]:
    """Split the batches, in order, into groups with one id per topic.

    Messages of a topic and of its successor with the same name can have equal message ids. Only landed_at distinguishes
    them, so they cannot share a commit.
    """
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
"""source, topic, id of the topic or '', partition."""


def positions_of(batch: Batch) -> dict[PartitionKey, int]:
    """The positions of the batch by the keys that warehouses use."""
    return {
        (batch.positions_source, topic, batch.topic_ids.get(topic, ""), partition): next_offset
        for (topic, partition), next_offset in batch.positions.items()
    }


def topic_ids_of(batch: Batch) -> dict[str, str]:
    """The id of each topic of the batch; '' if it has none, as in the spool."""
    return {topic: batch.topic_ids.get(topic, "") for topic, _ in batch.positions}
