"""Lands batches in BigQuery: with load jobs, or with `--follow` through write streams.

Load jobs are free but limited to 1,500 per table and day, so there is one commit per minute. Write streams are paid by
volume and readable at once. The position of a partition is a column of the rows, so the two cannot diverge.

docs/architecture.md#landing-in-bigquery proves that nothing is lost or loaded twice, whichever loader is killed.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import datetime

import pyarrow as pa

from common.errors import UnavailableError
from common.settings import Settings
from engines.batch import Batch, Positions, TopicIds
from engines.bigquery.client import Datasets, translate_google_errors
from engines.bigquery.empty_offsets import EmptyOffsets
from engines.bigquery.load_job_loader import LoadJobLoader
from engines.bigquery.load_jobs import LoadJobs
from engines.bigquery.recovery import land_again, read_rejected
from engines.bigquery.results import BigQueryResults
from engines.bigquery.rows import LandingClock, split_into_loads
from engines.bigquery.status import stream_status, unlisted_fields
from engines.bigquery.tables import RawTables
from engines.bigquery.write_stream_loader import WriteStreamLoader
from engines.bigquery.writers import Writers
from engines.pseudonyms import pads
from engines.recovery import OpenDeadLetters
from engines.warehouse import StreamStatus, UnlistedField, split_by_topic_id, utc_now

SECONDS_BETWEEN_CHECKS = 60.0
"""How often a follower checks that its tables are still the same, and writes ranges of empty offsets."""


class BigQuerySink(BigQueryResults):
    """The datasets <prefix>raw and <prefix>analytics of one project.

    Args:
        settings: the project, the prefix, the location.
        clock: gives the landing time, UTC without a zone.
        by_streams: use write streams instead of load jobs.

    Raises:
        UserError: without credentials, or when BigQuery rejects a request.
        UnavailableError: when BigQuery does not answer, or a quota is used up.
    """

    def __init__(
        self, settings: Settings, clock: Callable[[], datetime] = utc_now, *, by_streams: bool = False
    ) -> None:
        datasets = Datasets(settings)
        super().__init__(datasets, RawTables(datasets, pads(settings.pseudonym_key)))
        jobs = LoadJobs(self._datasets)
        self._jobs = jobs
        self._clock = LandingClock(clock)
        self._writers = Writers(self._datasets, self._tables, jobs)
        self._by_streams = by_streams
        self._loader: LoadJobLoader | WriteStreamLoader = (
            WriteStreamLoader(self._datasets, self._writers, self._clock)
            if by_streams
            else LoadJobLoader(self._tables, jobs, self._writers, self._clock)
        )
        self._empty_offsets = EmptyOffsets(self._datasets, self._tables, jobs)
        self._verified_at = time.monotonic()

    def positions(self, source: str, topic_ids: TopicIds) -> Positions:
        with translate_google_errors():
            found = self._writers.read(self._tables.existing_streams())
            positions = {key: end for state in found.values() for key, end in state.positions.items()}
            self._empty_offsets.advance(positions)
        if not self._by_streams:  # a loader by write streams already knows the state of the tables that it writes
            self._writers.states.update(found)
        return {
            (topic, partition): next_offset
            for (of, topic, topic_id, partition), next_offset in positions.items()
            if of == source and topic_id == topic_ids.get(topic, "")
        }

    def missing_tables(self) -> list[str]:
        with translate_google_errors():
            return self._tables.missing()

    def create_tables(self) -> None:
        with translate_google_errors():
            self._tables.create()

    def session(self) -> AbstractContextManager[None]:
        """Does nothing: BigQuery takes concurrent commits."""
        return nullcontext()

    def commit(self, batches: Sequence[Batch]) -> Mapping[str, int]:
        landed: Counter[str] = Counter()
        with translate_google_errors():
            for alike in split_by_topic_id(batches):
                landed.update(self._commit(alike))
            self._empty_offsets.add(batches)
            if not self._by_streams or time.monotonic() - self._empty_offsets.written_at >= SECONDS_BETWEEN_CHECKS:
                # The messages have landed; the next commit writes these offsets if this one cannot.
                with suppress(UnavailableError), translate_google_errors():
                    self._empty_offsets.write()
        return landed

    def _commit(self, batches: Sequence[Batch]) -> Mapping[str, int]:
        loads = split_into_loads(batches)
        landed = Counter({load.stream: 0 for load in loads})
        if loads:
            self._tables.check({load.stream for load in loads})
            landed.update(self._loader.land(loads))
        return landed

    def verify(self) -> None:
        if time.monotonic() - self._verified_at < SECONDS_BETWEEN_CHECKS:
            return
        self._verified_at = time.monotonic()
        with suppress(UnavailableError), translate_google_errors():
            self._tables.check(set())
            self._empty_offsets.write()

    def forget(self) -> None:
        self._tables.created_at.clear()
        self._writers.states.clear()
        self._loader.forget()
        self._empty_offsets.forget()

    def status(self) -> dict[str, StreamStatus]:
        with translate_google_errors():
            return stream_status(self._datasets)

    def unlisted_fields(self, stream: str) -> list[UnlistedField] | None:
        with translate_google_errors():
            return unlisted_fields(self._datasets, stream)

    def rejected(self, letters: OpenDeadLetters) -> Iterator[pa.Table]:
        return read_rejected(self._datasets, letters)

    def land_again(self, stream: str, rows: pa.Table) -> int:
        with translate_google_errors():
            return land_again(self._datasets, self._tables, self._jobs, self._clock, stream, rows)
