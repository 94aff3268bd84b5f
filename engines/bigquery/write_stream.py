"""A write stream of BigQuery's Storage Write API: appended rows are in the table once BigQuery answers.

An append has the offset of its rows in the stream, so no row is written twice. A finalized stream rejects appends and
reports its number of rows: this tells a loader whether an append without an answer succeeded, and stops a loader that
was killed or replaced.
"""

from collections.abc import Iterator
from urllib.parse import urlsplit

import grpc  # type: ignore[import-untyped]
import pyarrow as pa
from google.api_core import exceptions as api
from google.api_core.retry import Retry
from google.cloud.bigquery_storage_v1 import BigQueryWriteClient
from google.cloud.bigquery_storage_v1.services.big_query_write.transports import BigQueryWriteGrpcTransport
from google.cloud.bigquery_storage_v1.types import AppendRowsRequest
from google.cloud.bigquery_storage_v1.types import WriteStream as Created

from common.errors import UserError

ANSWER_SECONDS = 60.0
"""Timeout of an append. Its stream is then finalized, which reports whether the append succeeded."""
RETRY = Retry(timeout=ANSWER_SECONDS)
APPEND_BYTES = 8 * 1024 * 1024
"""Maximum size of a request, unless it has a single message: BigQuery accepts 10 MB."""
MAX_MESSAGE_BYTES = 9_900_000


def open_write_client(emulator: str | None) -> BigQueryWriteClient:
    """A client of BigQuery, or of the emulator.

    Args:
        emulator: URL of its REST API. Its gRPC port is ten above, the default of emulators.
    """
    if emulator is None:
        return BigQueryWriteClient()
    url = urlsplit(emulator)
    channel = grpc.insecure_channel(f"{url.hostname}:{(url.port or 80) + 10}")
    return BigQueryWriteClient(transport=BigQueryWriteGrpcTransport(channel=channel))


class WriteStream:
    """A new stream of one table, of type "committed": its rows are readable at once.

    Args:
        table: projects/PROJECT/datasets/DATASET/tables/TABLE.
    """

    def __init__(self, client: BigQueryWriteClient, table: str) -> None:
        self._client = client
        self.name: str = client.create_write_stream(
            parent=table,
            write_stream=Created(type_=Created.Type.COMMITTED),
            retry=RETRY,
            timeout=ANSWER_SECONDS,
        ).name
        self.rows = 0
        """Number of rows that are known to be in it."""

    def append(self, rows: pa.Table) -> None:
        """Append the rows, in atomic requests. BigQuery accepts none of them without those before it.

        Raises:
            UserError: for a message that is too large for BigQuery's streams; nothing is appended.
            GoogleAPICallError: part of the rows may be appended. Finalize the stream to learn how many.
        """
        offset = self.rows
        requests = []
        for batch in _batches(rows):
            request = AppendRowsRequest(write_stream=self.name, offset=offset)
            request.arrow_rows.writer_schema.serialized_schema = rows.schema.serialize().to_pybytes()
            request.arrow_rows.rows.serialized_record_batch = batch.serialize().to_pybytes()
            requests.append(request)
            offset += batch.num_rows
        if not requests:
            return
        answers = self._client.append_rows(
            iter(requests),
            retry=None,
            timeout=ANSWER_SECONDS,
            metadata=[("x-goog-request-params", f"write_stream={self.name}")],
        )
        taken = 0
        for answer in answers:
            if answer.error.code:
                raise api.from_grpc_status(answer.error.code, answer.error.message)
            taken += 1
        if taken < len(requests):
            raise api.Aborted("the connection was closed before all was answered")
        self.rows = offset


def finalize(client: BigQueryWriteClient, name: str) -> int:
    """End a stream; returns its number of rows, 0 if BigQuery no longer has the stream."""
    try:
        return int(client.finalize_write_stream(name=name, retry=RETRY, timeout=ANSWER_SECONDS).row_count)
    except api.NotFound:
        return 0


def _batches(rows: pa.Table) -> Iterator[pa.RecordBatch]:
    if not rows.num_rows:
        return
    if rows.nbytes <= APPEND_BYTES or (rows.num_rows == 1 and rows.nbytes <= MAX_MESSAGE_BYTES):
        yield rows.combine_chunks().to_batches()[0]
    elif rows.num_rows == 1:
        raise UserError(
            f"a message of {rows.nbytes:,} bytes is too large for BigQuery's streams ({MAX_MESSAGE_BYTES:,}): run"
            " `python -m ingest land` without --follow once: it uses a load job"
        )
    else:
        half = rows.num_rows // 2
        yield from _batches(rows.slice(0, half))
        yield from _batches(rows.slice(half))
