"""The tables of the dataset raw: their columns, how they are created, and whether they are still the same tables."""

import io
import uuid
from collections.abc import Collection, Sequence

import pyarrow as pa
import pyarrow.parquet as pq
from google.api_core import exceptions as api
from google.cloud import bigquery
from google.cloud.bigquery import SchemaField

from common.errors import WarehouseReplacedError
from common.streams import STREAMS
from engines.batch import BATCH_SCHEMA, DECODED_SCHEMA
from engines.bigquery.client import ANSWER_SECONDS, CALL, Datasets
from engines.bigquery.load_jobs import load_error, wait_for

RAW_SCHEMA = pa.schema(
    [
        pa.field("stream", pa.string(), nullable=False),
        *(field for field in BATCH_SCHEMA if field.name not in ("published_at", "payload")),
        # without a zone it would be a DATETIME
        pa.field("published_at", pa.timestamp("us", "UTC")),
        pa.field("landed_at", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("payload", pa.binary()),
        pa.field("topic_id", pa.string()),
        pa.field("next_offset", pa.int64()),
        *DECODED_SCHEMA,
    ]
)
"""Columns of the raw tables: those of DuckDB, and two that DuckDB has in raw.landing_offsets. `topic_id` distinguishes
the offsets of a recreated topic; `next_offset` is the position of the partition after the row."""

BIGQUERY_TYPES = {
    pa.string(): "STRING",
    pa.int32(): "INTEGER",
    pa.int64(): "INTEGER",
    pa.binary(): "BYTES",
    pa.timestamp("us", "UTC"): "TIMESTAMP",
}

WRITERS_SCHEMA = pa.schema(
    [
        pa.field("stream", pa.string(), nullable=False),
        pa.field("generation", pa.int64(), nullable=False),
        pa.field("write_stream", pa.string()),
    ]
)
"""The writers of each raw table, in the order of `generation`. `write_stream` is null for load jobs, which are also the
writer of a table that has no row here."""

EMPTY_OFFSETS_SCHEMA = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("topic", pa.string(), nullable=False),
        pa.field("topic_id", pa.string(), nullable=False),
        pa.field("partition", pa.int64(), nullable=False),
        pa.field("first_offset", pa.int64(), nullable=False),
        pa.field("next_offset", pa.int64(), nullable=False),
    ]
)
"""Ranges of offsets that hold no message, from first_offset to before next_offset."""

EMIT_WATERMARKS_SCHEMA = pa.schema(
    [
        pa.field("topic", pa.string(), nullable=False),
        pa.field("session_landed_at", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("session_id", pa.string(), nullable=False),
        pa.field("sequence_number", pa.int64(), nullable=False),
    ]
)
"""The cursor of each topic to which results are emitted."""


def columns_of(schema: pa.Schema) -> list[SchemaField]:
    return [
        SchemaField(field.name, BIGQUERY_TYPES[field.type], "NULLABLE" if field.nullable else "REQUIRED")
        for field in schema
    ]


OTHER_TABLES: dict[str, Sequence[SchemaField]] = {
    "landing_writers": columns_of(WRITERS_SCHEMA),
    "landing_empty_offsets": columns_of(EMPTY_OFFSETS_SCHEMA),
    "emit_watermarks": columns_of(EMIT_WATERMARKS_SCHEMA),
    "pseudonym_key": [SchemaField(name, "BYTES") for name in ("inner_pad", "outer_pad")],
}
"""Tables of the dataset raw that are not raw tables of streams."""


class RawTables:
    """The tables of the dataset raw.

    Args:
        pads: the key of a new dataset: see `engines.pseudonyms`.
    """

    def __init__(self, datasets: Datasets, pads: tuple[bytes, bytes]) -> None:
        self._datasets = datasets
        self._pads = pads
        self.created_at: dict[str, str] = {}
        """Stream to the creation time of the raw table in which this loader lands."""

    def existing_streams(self) -> list[str]:
        """The streams that have a raw table."""
        existing = self._datasets.tables("raw")
        return [stream for stream in STREAMS if stream in existing]

    def missing(self) -> list[str]:
        """The tables that `create` would create, such as raw.users."""
        existing = self._datasets.tables("raw")
        return [f"raw.{name}" for name in (*STREAMS, *OTHER_TABLES) if name not in existing]

    def create(self) -> None:
        """Create the dataset, the tables and the columns that are missing."""
        self._add_columns()
        if not self.missing():
            return
        client, prefix = self._datasets.client, self._datasets.prefix
        dataset = bigquery.Dataset(f"{prefix}raw")
        dataset.location = self._datasets.location
        try:  # creating an existing dataset takes a permission that the account of `land` need not have
            client.get_dataset(dataset.reference, **CALL)
        except api.NotFound:
            client.create_dataset(dataset, exists_ok=True, **CALL)
        # The key comes before the raw tables: after a kill in between, these are missing and all this runs again.
        key_table = f"{prefix}raw.pseudonym_key"
        client.create_table(bigquery.Table(key_table, OTHER_TABLES["pseudonym_key"]), exists_ok=True, **CALL)
        if not list(self._datasets.query(f"select 1 from `{key_table}` limit 1")):  # noqa: S608  the name of a table
            self._load_pseudonym_key()
        for stream in STREAMS:
            table = bigquery.Table(f"{prefix}raw.{stream}", columns_of(RAW_SCHEMA))
            table.time_partitioning = bigquery.TimePartitioning(field="landed_at")
            table.clustering_fields = ["message_id"]
            client.create_table(table, exists_ok=True, **CALL)
        for name, columns in OTHER_TABLES.items():
            client.create_table(bigquery.Table(f"{prefix}raw.{name}", columns), exists_ok=True, **CALL)

    def check(self, streams: Collection[str]) -> None:
        """Check that the raw tables are those in which this loader landed, and remember those of these streams.

        Raises:
            WarehouseReplacedError: when a raw table was dropped or recreated.
        """
        created_at = self._datasets.tables("raw")
        for stream in streams - created_at.keys():
            if stream not in self.created_at:
                self.create()
                created_at = self._datasets.tables("raw")
                break
        for stream in {*streams, *self.created_at}:
            now = created_at.get(stream, "never")
            if now != self.created_at.setdefault(stream, now):
                raise WarehouseReplacedError(
                    f"{self._datasets.prefix}raw.{stream} was created at {self.created_at[stream]} when landing began,"
                    f" and now {now}"
                )

    def _load_pseudonym_key(self) -> None:
        """Load the key, unless another loader was first: BigQuery rejects such a load into a table with rows."""
        file = io.BytesIO()
        inner, outer = self._pads
        pq.write_table(pa.table({"inner_pad": [inner], "outer_pad": [outer]}), file)
        file.seek(0)
        job = self._datasets.client.load_table_from_file(
            file,
            f"{self._datasets.prefix}raw.pseudonym_key",
            job_config=bigquery.LoadJobConfig(
                source_format=bigquery.SourceFormat.PARQUET,
                write_disposition=bigquery.WriteDisposition.WRITE_EMPTY,
                create_disposition=bigquery.CreateDisposition.CREATE_NEVER,
            ),
            job_id=f"landing_{self._datasets.prefix.rpartition('.')[2]}raw_pseudonym_key_{uuid.uuid4().hex}",
            timeout=ANSWER_SECONDS,
        )
        if (error := wait_for(job)) and error.get("reason") != "duplicate":
            raise load_error(error)

    def _add_columns(self) -> None:
        """Add the columns of decoded messages to raw tables of an earlier version."""
        columns = columns_of(DECODED_SCHEMA)
        for stream in self.existing_streams():
            name = f"{self._datasets.prefix}raw.{stream}"
            existing = {column.name for column in self._datasets.client.get_table(name, **CALL).schema}
            for column in columns:
                if column.name not in existing:
                    add = f"add column if not exists {column.name} {column.field_type}"
                    list(self._datasets.query(f"alter table `{name}` {add}"))
