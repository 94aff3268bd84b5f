"""The writers of each raw table, one after another, and the positions that they have reached.

A raw table is written by load jobs or by one write stream; raw.landing_writers numbers its writers.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa
from google.api_core import exceptions as api

from engines.bigquery.client import Datasets
from engines.bigquery.load_jobs import LoadJobs
from engines.bigquery.rows import TablePositions
from engines.bigquery.tables import WRITERS_SCHEMA, RawTables
from engines.bigquery.write_stream import finalize
from engines.warehouse import PartitionKey


@dataclass(frozen=True, slots=True)
class Writer:
    """The writer of a raw table."""

    generation: int = 0
    write_stream: str | None = None
    """None: load jobs."""


class TableState(NamedTuple):
    """Positions and writer of a raw table at one moment."""

    positions: TablePositions
    writer: Writer


class Writers:
    """Reads the state of raw tables, and makes this loader the writer of one."""

    def __init__(self, datasets: Datasets, tables: RawTables, jobs: LoadJobs) -> None:
        self._datasets = datasets
        self._tables = tables
        self._jobs = jobs
        self.states: dict[str, TableState] = {}
        """Stream to the state of its raw table as last read or written. A load from a stale state is rejected."""

    def next_load_name(self, stream: str, state: TableState) -> str:
        """The name of the load that continues from this state: only one loader gets its job."""
        positions = sorted((*partition, next_offset) for partition, next_offset in state.positions.items())
        return self._jobs.load_name(stream, self._tables.created_at[stream], [state.writer.generation, positions])

    def take_over(self, stream: str, write_stream: str | None) -> None:
        """Become the next writer of a raw table, with this write stream or with load jobs.

        Afterwards no earlier writer can write, and the state in `states` includes all that they wrote.
        """
        while True:
            writer = self.read_writers([stream])[stream]
            if writer.write_stream:
                finalize(self._datasets.write_client, writer.write_stream)
            state = self.read([stream])[stream]
            if state.writer != writer:
                continue
            name = self.next_load_name(stream, state)
            following = Writer(writer.generation + 1, write_stream)
            row = {"stream": stream, "generation": following.generation, "write_stream": write_stream}
            job = self._jobs.start(name, "landing_writers", pa.Table.from_pylist([row], WRITERS_SCHEMA))
            if job is None:
                if self._jobs.has_failed(name) or state == self.read([stream])[stream]:
                    self._jobs.use_next_id(name)
                continue
            self._jobs.finish(job, name)
            self.states[stream] = TableState(state.positions, following)
            return

    def read(self, streams: Collection[str]) -> dict[str, TableState]:
        """Stream to the state of its raw table. The writer is the same before and after the positions are read."""
        writers = self.read_writers(streams)
        while True:
            positions = self._read_positions(streams)
            before, writers = writers, self.read_writers(streams)
            if before == writers:
                return {stream: TableState(positions[stream], writers[stream]) for stream in streams}

    def read_writers(self, streams: Collection[str]) -> dict[str, Writer]:
        """Stream to the latest writer of its raw table."""
        writers = dict.fromkeys(streams, Writer())
        if not writers:
            return writers
        try:
            rows = list(
                self._datasets.query(
                    f"select stream, generation, write_stream from `{self._datasets.prefix}raw.landing_writers`"  # noqa: S608  names of ours, DATASET_PREFIX checked
                )
            )
        except api.NotFound:
            return writers  # the dataset is of an earlier version
        for stream, generation, write_stream in rows:
            if stream in writers and generation > writers[stream].generation:
                writers[stream] = Writer(generation, write_stream)
        return writers

    def _read_positions(self, streams: Collection[str]) -> dict[str, TablePositions]:
        """Stream to the positions of its raw table.

        The query scans five narrow columns of the whole table, so it runs at the start, when partitions are assigned
        and after a conflict, not for every commit.
        """
        found: dict[str, dict[PartitionKey, int]] = {stream: {} for stream in streams}
        if not found:
            return {}
        union = "\nunion all\n".join(
            f"select '{stream}', source, topic, ifnull(topic_id, ''), `partition`, max(next_offset)"  # noqa: S608  names of ours, DATASET_PREFIX checked
            f" from `{self._datasets.prefix}raw.{stream}` where next_offset is not null group by 2, 3, 4, 5"
            for stream in sorted(found)
        )
        for stream, source, topic, topic_id, partition, next_offset in self._datasets.query(union):
            found[stream][source, topic, topic_id, partition] = next_offset
        return dict(found)
