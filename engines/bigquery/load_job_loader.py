"""Lands messages by load jobs, one per raw table and commit."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engines.bigquery.load_jobs import LoadJobs
from engines.bigquery.rows import LandingClock, Load, distinct_rows, new_rows, raw_rows
from engines.bigquery.tables import RawTables
from engines.bigquery.writers import TableState, Writers


@dataclass(slots=True)
class _Sent:
    """A load whose job was requested."""

    load: Load
    name: str
    """Of the load."""
    rows: int
    state: TableState
    """Of the raw table after the job."""
    job: Any
    """None if its id was taken."""


class LoadJobLoader:
    """Loads messages into raw tables, by jobs that run at the same time."""

    def __init__(self, tables: RawTables, jobs: LoadJobs, writers: Writers, clock: LandingClock) -> None:
        self._tables = tables
        self._jobs = jobs
        self._writers = writers
        self._clock = clock

    def land(self, loads: Sequence[Load]) -> Counter[str]:
        """Land what is new of the loads; returns stream to the number of new rows."""
        landed: Counter[str] = Counter()
        states = self._writers.states
        states.update(self._writers.read({load.stream for load in loads} - states.keys()))
        remaining = list(loads)
        while remaining:
            for stream in {load.stream for load in remaining}:
                if states[stream].writer.write_stream:
                    self._writers.take_over(stream, None)
            under_way = [sent for load in remaining if (sent := self._send(load))]
            remaining = []
            for sent in under_way:
                if sent.job is None:
                    if not self._is_landed_by_another(sent):
                        remaining.append(sent.load)
                    continue
                self._jobs.finish(sent.job, sent.name)
                if sent.load.has_offsets:
                    states[sent.load.stream] = sent.state
                landed[sent.load.stream] += sent.rows
        return landed

    def forget(self) -> None:
        """Nothing: all that this loader knows is in the states of `Writers`."""

    def _send(self, load: Load) -> _Sent | None:
        """Start the job that loads what is new; None if nothing is."""
        stream = load.stream
        state = self._writers.states[stream]
        if load.has_offsets:
            rows, after = new_rows(state.positions, load.parts)
            name = self._writers.next_load_name(stream, state)
            state = TableState(after, state.writer)
        else:
            rows = distinct_rows(load.parts)
            messages = sorted(zip(rows["topic"].to_pylist(), rows["message_id"].to_pylist(), strict=True))
            name = self._jobs.load_name(stream, self._tables.created_at[stream], messages)
        if not rows.num_rows:
            return None
        job = self._jobs.start(name, stream, raw_rows(rows, stream, self._clock.now(stream)))
        return _Sent(load, name, rows.num_rows, state, job)

    def _is_landed_by_another(self, sent: _Sent) -> bool:
        """Wait for the other job that has the id of this load; returns whether nothing remains to be done."""
        stream = sent.load.stream
        failed = self._jobs.has_failed(sent.name)
        if not sent.load.has_offsets:
            if failed:
                self._jobs.use_next_id(sent.name)
            return not failed
        before = self._writers.states[stream]
        self._writers.states.update(self._writers.read([stream]))
        if before == self._writers.states[stream]:  # it failed, or its rows were deleted since
            self._jobs.use_next_id(sent.name)
        return False
