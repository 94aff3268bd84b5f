"""Recovers dead letters: `python -m ingest recover`.

The messages are judged by the staging model of their stream in a temporary warehouse, so the verdict is that of a build
with the present contract. Those that pass are landed again, and the originals stay as they landed.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from common.errors import UserError
from common.settings import Settings
from common.streams import Stream
from contracts.patch import Patch
from contracts.staging import stage, staged_table, temporary_warehouse
from engines.batch import BATCH_SCHEMA, DECODED_SCHEMA, Batch
from engines.duckdb.sink import DuckDBSink
from engines.recovery import RECOVER, OpenDeadLetters, recovered_id
from engines.warehouse import Sink, utc_now
from ingest.batching import BatchBounds, BatchSize
from ingest.formats import Decoder

NO_PAYLOAD = "no payload after the patch"
"""Shown as the reason of messages for which the patch is null or fails."""
UNPATCHED = "unpatched/"
"""Precedes the ids of messages that the temporary warehouse has without the patch too."""
CHUNK_ROWS = 2_000
"""Messages that are read from the temporary warehouse at a time."""

# `offset` numbers the messages in the order of landing
JUDGED = """
select
    message.*,
    message.attributes ->> '$.recovered_from.reason' as reason,
    staged.reject_reason
from raw.{stream} as message
inner join {staged} as staged on message.message_id = staged.message_id and message.landed_at = staged.landed_at
"""

OUTCOMES = f"""
select reason, reject_reason, count(*) as messages
from judged
where starts_with(message_id, '{RECOVER}/')
group by reason, reject_reason
union all
select reason, '{NO_PAYLOAD}', count(*)
from judged
where starts_with(message_id, '{UNPATCHED}')
    and substr(message_id, {len(UNPATCHED) + 1}) not in (select message_id from judged)
group by reason
order by reason, messages desc, reject_reason
"""  # noqa: S608  names of ours

SPOILED = f"""
select count(*), min_by(patched.message_id, patched."offset"), min_by(patched.reject_reason, patched."offset")
from judged as patched
inner join judged as unpatched on unpatched.message_id = '{UNPATCHED}' || patched.message_id
where unpatched.reject_reason is null and patched.reject_reason is not null
"""  # noqa: S608  names of ours


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the dead letters with one reason."""

    reason: str
    messages: int
    recovered: int
    """Messages that pass now; in a dry run they are not landed."""
    rejected: Mapping[str, int]
    """Reason now to the number of messages that are still rejected for it."""


def recover_dead_letters(
    settings: Settings,
    sink: Sink,
    stream: Stream,
    letters: OpenDeadLetters,
    patch: Patch | None = None,
    variables: str | None = None,
    *,
    dry_run: bool = False,
    on_progress: Callable[[int], None] = lambda messages: None,
) -> list[Outcome]:
    """Judge the open dead letters again, and land those that pass. Repeating it lands nothing twice.

    Args:
        letters: of `stream`.
        patch: replaces the payloads before they are judged.
        variables: vars of dbt as YAML, as in `--vars`.
        dry_run: land nothing.
        on_progress: called with numbers of messages as they are read and, unless this is a dry run, landed.

    Returns:
        One outcome per reason; empty if there are no such dead letters.

    Raises:
        UserError: when nothing is built yet, or messages that pass without the patch fail with it.
    """
    with temporary_warehouse(settings) as temporary:
        judge = DuckDBSink(temporary.warehouse_path, 0, pseudonym_key=temporary.pseudonym_key)
        decoder = Decoder(settings, follow=False, should_stop=lambda: False, streams={stream.name: stream})
        now, read = utc_now(), 0
        for rows in sink.rejected(letters):
            again = _again(_decoded(rows, stream, decoder), patch, now, read)
            tables = [again] if patch is None else _with_patch(again, stream, patch)
            judge.commit([Batch({stream.name: table}) for table in tables if table.num_rows])
            read += rows.num_rows
            on_progress(rows.num_rows)
        if not read:
            return []
        stage(temporary, stream, variables)
        with duckdb.connect(str(temporary.warehouse_path), read_only=True) as connection:
            judged = JUDGED.format(stream=stream.name, staged=staged_table(temporary, stream))
            connection.execute(f"create temporary view judged as {judged}")
            if patch is not None:
                _check_patch(connection, patch)
            outcomes = _outcomes(connection)
            if not dry_run:
                for chunk in _passing(connection, stream, settings):
                    sink.land_again(stream.name, chunk)
                    on_progress(chunk.num_rows)
        return outcomes


def _decoded(rows: pa.Table, stream: Stream, decoder: Decoder) -> pa.Table:
    """The messages decoded anew: the registry may have a schema now that it lacked, or the contract another format."""
    if stream.format == "json":
        return rows.drop_columns(DECODED_SCHEMA.names)
    decoded = decoder.decode(Batch({stream.name: rows.select(BATCH_SCHEMA.names)})).tables[stream.name]
    for name in ("landed_at", "reject_reason"):
        decoded = decoded.append_column(rows.schema.field(name), rows[name])
    return decoded


def _again(rows: pa.Table, patch: Patch | None, now: datetime, first_place: int) -> pa.Table:
    """The messages as they are landed again, except that `offset` numbers them."""
    ids, times = rows["message_id"].to_pylist(), rows["landed_at"].to_pylist()
    attributes = []
    for text, message_id, landed_at, reason in zip(
        rows["attributes"].to_pylist(), ids, times, rows["reject_reason"].to_pylist(), strict=True
    ):
        origin = {"message_id": message_id, "landed_at": landed_at.isoformat(), "reason": reason}
        origin |= {"patch": patch.name} if patch else {}
        origin |= {"recovered_at": now.isoformat(timespec="seconds")}
        attributes.append(json.dumps({**json.loads(text or "{}"), "recovered_from": origin}))
    replaced = {
        "source": pa.repeat(RECOVER, rows.num_rows),
        "partition": pa.nulls(rows.num_rows, pa.int32()),
        "offset": pa.array(range(first_place, first_place + rows.num_rows), pa.int64()),
        "message_id": pa.array([recovered_id(*one) for one in zip(times, ids, strict=True)], pa.string()),
        "attributes": pa.array(attributes, pa.string()),
        # a message without a time was published about when it landed first, not now
        "published_at": pc.coalesce(rows["published_at"], rows["landed_at"]),
    }
    schema = pa.schema([field for field in rows.schema if field.name not in ("landed_at", "reject_reason")])
    return pa.table([replaced.get(name, rows[name]) for name in schema.names], schema=schema)


def _with_patch(again: pa.Table, stream: Stream, patch: Patch) -> list[pa.Table]:
    """The messages without the patch, under other ids, and those for which it returns a payload."""
    body = again.schema.get_field_index("payload" if stream.format == "json" else "decoded")
    payloads = patch.apply([_text(value) for value in again.column(body).to_pylist()])
    encoded = pa.array([None if one is None else one.encode() for one in payloads], pa.binary())
    patched = again.set_column(body, again.schema.field(body), encoded).filter(encoded.is_valid())
    place = again.schema.get_field_index("message_id")
    ids = pa.array([UNPATCHED + one for one in again.column(place).to_pylist()], pa.string())
    return [again.set_column(place, again.schema.field(place), ids), patched]


def _text(body: bytes | None) -> str | None:
    try:
        return None if body is None else body.decode()
    except UnicodeDecodeError:
        return None


def _check_patch(connection: duckdb.DuckDBPyConnection, patch: Patch) -> None:
    """
    Raises:
        UserError: when messages that pass without the patch fail with it.
    """
    [(messages, first, reason)] = connection.execute(SPOILED).fetchall()
    if messages:
        raise UserError(
            f"nothing was recovered: with the patch {patch.name} {messages:,} messages are rejected that pass without"
            f" it, such as {first.split('/', 2)[2]} ({reason}); correct it, or recover those first without --patch"
        )


def _outcomes(connection: duckdb.DuckDBPyConnection) -> list[Outcome]:
    counts: dict[str, dict[str | None, int]] = {}
    for reason, now, messages in connection.execute(OUTCOMES).fetchall():
        counts.setdefault(reason, {})[now] = messages
    return [
        Outcome(
            reason, sum(found.values()), found.get(None, 0), {now: n for now, n in found.items() if now is not None}
        )
        for reason, found in counts.items()
    ]


def _passing(connection: duckdb.DuckDBPyConnection, stream: Stream, settings: Settings) -> Iterator[pa.Table]:
    """The messages that pass, in the order of landing, in chunks of the size of a commit."""
    schema = pa.schema([*BATCH_SCHEMA, *(DECODED_SCHEMA if stream.format != "json" else ())])
    columns = ", ".join('null as "offset"' if name == "offset" else f'"{name}"' for name in schema.names)
    passing = f"starts_with(message_id, '{RECOVER}/') and reject_reason is null"
    rows = connection.sql(f'select {columns} from judged where {passing} order by judged."offset"')  # noqa: S608  names of ours
    bounds = BatchBounds.for_commit(settings)
    parts, size = [], BatchSize(bounds)
    for batch in rows.to_arrow_reader(CHUNK_ROWS):
        for start in range(0, batch.num_rows, bounds.rows):
            part = batch.slice(start, bounds.rows)
            parts.append(part)
            size.add(part.num_rows, part.nbytes)
            if size.is_full:
                yield pa.Table.from_batches(parts).cast(schema)
                parts, size = [], BatchSize(bounds)
    if parts:
        yield pa.Table.from_batches(parts).cast(schema)
