"""Offsets without a message, which no row of a raw table can record.

A Kafka partition may end in offsets without a message, such as the marker of a transaction. A range of them in
raw.landing_empty_offsets advances a position that has reached its start. It states a fact about the log, so it needs no
order among the loads, and nothing is lost if it is not written.
"""

import time
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
from google.api_core import exceptions as api

from engines.batch import Batch
from engines.bigquery.client import Datasets
from engines.bigquery.load_jobs import LoadJobs
from engines.bigquery.tables import EMPTY_OFFSETS_SCHEMA, RawTables
from engines.warehouse import PartitionKey, positions_of


class EmptyOffsets:
    """The table raw.landing_empty_offsets, and rows that are not written to it yet."""

    def __init__(self, datasets: Datasets, tables: RawTables, jobs: LoadJobs) -> None:
        self._datasets = datasets
        self._tables = tables
        self._jobs = jobs
        self._pending: list[dict[str, Any]] = []
        self.written_at = time.monotonic()
        """When `write` was last called, in seconds of time.monotonic."""

    def add(self, batches: Iterable[Batch]) -> None:
        self._pending += [row for batch in batches for row in _empty_offsets(batch)]

    def write(self) -> None:
        self.written_at = time.monotonic()
        if self._pending:
            self._tables.create()
            name = f"landing_empty_offsets_{uuid.uuid4().hex}"
            rows = pa.Table.from_pylist(self._pending, EMPTY_OFFSETS_SCHEMA)
            self._jobs.finish(self._jobs.start(name, "landing_empty_offsets", rows), name)
            self._pending = []

    def forget(self) -> None:
        self._pending.clear()

    def advance(self, positions: dict[PartitionKey, int]) -> None:
        """Move the positions past the ranges that begin where they are."""
        for *key, first_offset, next_offset in self._read():
            partition: PartitionKey = tuple(key)
            if first_offset <= positions.get(partition, 0) < next_offset:
                positions[partition] = next_offset

    def _read(self) -> list[tuple[Any, ...]]:
        """Rows of EMPTY_OFFSETS_SCHEMA, in the order of their first offset."""
        try:
            return list(
                self._datasets.query(
                    f"select {', '.join(f'`{name}`' for name in EMPTY_OFFSETS_SCHEMA.names)}"  # noqa: S608  names of ours, DATASET_PREFIX checked
                    f" from `{self._datasets.prefix}raw.landing_empty_offsets` order by first_offset"
                )
            )
        except api.NotFound:
            return []  # the dataset is of an earlier version


def _empty_offsets(batch: Batch) -> Iterator[dict[str, Any]]:
    """Rows of EMPTY_OFFSETS_SCHEMA, for positions that the batch advances without a message."""
    with_rows = {
        (row["topic"], row["partition"])
        for table in batch.tables.values()
        for row in table.group_by(["topic", "partition"]).aggregate([]).to_pylist()
    }
    for (source, topic, topic_id, partition), next_offset in positions_of(batch).items():
        first_offset = batch.starts.get((topic, partition), next_offset)
        if (topic, partition) not in with_rows and first_offset < next_offset:
            row = (source, topic, topic_id, partition, first_offset, next_offset)
            yield dict(zip(EMPTY_OFFSETS_SCHEMA.names, row, strict=True))
