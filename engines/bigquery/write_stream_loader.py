"""Lands messages by write streams, one per raw table, as `land --follow` does."""

from collections import Counter
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
from google.api_core import exceptions as api

from common.errors import UnavailableError, UserError
from engines.bigquery.client import Datasets
from engines.bigquery.rows import LandingClock, Load, distinct_rows, new_rows, raw_rows
from engines.bigquery.write_stream import WriteStream, finalize
from engines.bigquery.writers import TableState, Writers


class WriteStreamLoader:
    """Appends messages. An append that is not answered ends its write stream; the next stream appends what is left."""

    def __init__(self, datasets: Datasets, writers: Writers, clock: LandingClock) -> None:
        self._datasets = datasets
        self._writers = writers
        self._clock = clock
        self._open: dict[str, WriteStream] = {}
        """Stream to its write stream, while every append to it was answered."""
        self._unanswered: dict[str, tuple[WriteStream, pa.Table]] = {}
        """Stream to the write stream that failed, and the rows of the append that was not answered."""
        self._appended_ids: dict[str, set[str]] = {}
        """Stream to the ids of messages without offset that the failed write stream took."""
        self._own: set[str] = set()
        """Names of the write streams that this loader opened."""

    def land(self, loads: Sequence[Load]) -> Counter[str]:
        """Land what is new of the loads; returns stream to the number of new rows."""
        landed: Counter[str] = Counter()
        for stream in {load.stream for load in loads} - self._open.keys():
            landed[stream] += self._open_stream(stream)
        for load in loads:
            landed[load.stream] += self._append(load)
        return landed

    def forget(self) -> None:
        for remembered in (self._open, self._unanswered, self._appended_ids):
            remembered.clear()

    def _append(self, load: Load) -> int:
        """Append what is new, with a second attempt on another write stream; returns how many rows landed."""
        stream = load.stream
        landed = 0
        for is_last in (False, True):
            if stream not in self._open:
                landed += self._open_stream(stream)
            state = self._writers.states[stream]
            if load.has_offsets:
                rows, after = new_rows(state.positions, load.parts)
                state = TableState(after, state.writer)
            else:
                rows = distinct_rows(load.parts)
                appended = pa.array(self._appended_ids.get(stream, ()), pa.string())
                rows = rows.filter(pc.invert(pc.is_in(rows["message_id"], appended)))
            if not rows.num_rows:
                break
            try:
                self._open[stream].append(raw_rows(rows, stream, self._clock.now(stream)))
            except api.GoogleAPICallError:
                self._unanswered[stream] = self._open.pop(stream), rows
                if is_last:
                    raise
                continue
            self._writers.states[stream] = state
            if not load.has_offsets:
                self._appended_ids.pop(stream, None)
            landed += rows.num_rows
            break
        return landed

    def _open_stream(self, stream: str) -> int:
        """Take over a raw table with a new write stream; returns how many unanswered rows have landed."""
        project, _, dataset = f"{self._datasets.prefix}raw".rpartition(".")
        table = f"projects/{project}/datasets/{dataset}/tables/{stream}"
        try:
            opened = WriteStream(self._datasets.write_client, table)
        except api.NotFound as error:  # it was just dropped, or is too new for the Storage Write API to know it
            raise UnavailableError(
                f"BigQuery has no table {self._datasets.prefix}raw.{stream} for a write stream"
            ) from error
        self._own.add(opened.name)
        landed = 0
        if stream in self._unanswered:
            failed, rows = self._unanswered[stream]
            if self._writers.read_writers([stream])[stream].write_stream not in self._own:
                raise UserError(
                    f"another `ingest land` has taken over {self._datasets.prefix}raw.{stream}: run one"
                    " loader per stream"
                )
            landed = max(0, finalize(self._datasets.write_client, failed.name) - failed.rows)
            taken = rows.slice(0, landed)
            taken = taken.filter(pc.is_null(taken["offset"]))
            self._appended_ids.setdefault(stream, set()).update(taken["message_id"].to_pylist())
        self._writers.take_over(stream, opened.name)
        self._unanswered.pop(stream, None)
        self._open[stream] = opened
        return landed
