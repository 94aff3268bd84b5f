"""Moves a warehouse to BigQuery: loads the raw tables and the positions of a backup. A build makes the rest."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from common.errors import UserError
from common.logs import log
from common.settings import Settings
from common.streams import STREAMS
from engines.backup import Manifest, OnTable
from engines.bigquery.client import Datasets, translate_google_errors
from engines.bigquery.load_jobs import LoadJobs
from engines.bigquery.tables import EMIT_WATERMARKS_SCHEMA, EMPTY_OFFSETS_SCHEMA, RAW_SCHEMA, RawTables
from engines.pseudonyms import pads

ROWS_PER_READ = 20_000
"""Rows in memory per batch of a Parquet file."""
BYTES_PER_LOAD = 128 * 1024**2
"""BigQuery takes 1,500 load jobs per table and day."""


def restore(settings: Settings, folder: Path, manifest: Manifest, on_table: OnTable) -> None:
    """Load the raw tables of a backup, whose files were verified, into a dataset without tables.

    Raises:
        UserError: when the dataset has tables, or BigQuery rejects a load; UnavailableError when it does not answer.
    """
    with translate_google_errors():
        datasets = Datasets(settings)
        dataset = f"{datasets.prefix}raw"
        if datasets.tables("raw"):
            raise UserError(
                f"the dataset {dataset} has tables: set another DATASET_PREFIX, or drop it, also after a restore that"
                " failed"
            )
        files = {table.name: folder / table.file for table in manifest.tables if table.schema == "raw"}
        RawTables(datasets, _pads(files)).create()
        jobs = LoadJobs(datasets)
        for name, schema in {**dict.fromkeys(STREAMS, RAW_SCHEMA), "emit_watermarks": EMIT_WATERMARKS_SCHEMA}.items():
            if name in files:
                for rows in _loads(files[name]):
                    _load(jobs, name, _with_schema(rows, schema))
                on_table(f"raw.{name}")
        # Last: without its positions, a dataset that was loaded in part is landed again from the beginning.
        positions = _positions(manifest)
        if positions.num_rows:
            _load(jobs, "landing_empty_offsets", positions)
    for name in files.keys() - {*STREAMS, "emit_watermarks", "pseudonym_key", "landing_offsets"}:
        log.warning("a table of the backup was not loaded: no contract has its name", table=f"raw.{name}")


def _pads(files: dict[str, Path]) -> tuple[bytes, bytes]:
    """The key of the backup, so that equal values of personal fields keep equal hashes."""
    rows = pq.read_table(files["pseudonym_key"]).to_pylist() if "pseudonym_key" in files else []
    return (rows[0]["inner_pad"], rows[0]["outer_pad"]) if rows else pads(None)


def _loads(file: Path) -> Iterator[pa.Table]:
    """The rows of a file, as much as one load job takes at a time."""
    batches: list[Any] = []
    with pq.ParquetFile(file) as reading:
        for batch in reading.iter_batches(ROWS_PER_READ):
            batches.append(batch)
            if sum(one.nbytes for one in batches) >= BYTES_PER_LOAD:
                yield pa.Table.from_batches(batches)
                batches = []
    if batches:
        yield pa.Table.from_batches(batches)


def _with_schema(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """The rows with the columns of a schema; those that they lack are null. Times get a zone."""
    for field in schema:
        if field.name not in rows.column_names:
            rows = rows.append_column(field.name, pa.nulls(rows.num_rows, field.type))
    return rows.select(schema.names).cast(schema)


def _positions(manifest: Manifest) -> pa.Table:
    """Rows of raw.landing_empty_offsets: a range from 0 moves the position of a partition to its end, whichever rows
    there are."""
    rows = [
        (one.source, one.topic, one.topic_id, one.partition, 0, one.next_offset)
        for one in manifest.positions
        if one.source != "pubsub" and one.next_offset
    ]
    names = EMPTY_OFFSETS_SCHEMA.names
    return pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows], EMPTY_OFFSETS_SCHEMA)


def _load(jobs: LoadJobs, table: str, rows: pa.Table) -> None:
    name = f"restore_{table}_{uuid.uuid4().hex}"
    jobs.finish(jobs.start(name, table, rows), name)
