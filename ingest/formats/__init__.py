"""Decodes messages in Confluent's wire format to JSON text before they land, into the columns of DECODED_SCHEMA.

The wire format is a zero byte, a schema id of four bytes, and the value. A message that cannot be decoded is landed
with the reason in `decode_error`, and becomes a dead letter. While the schema registry does not answer, landing waits.
It also waits, for at most a minute, for a schema that the registry does not have yet.
"""

import math
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import structlog

from common.errors import UnavailableError, UserError
from common.settings import Settings
from common.streams import STREAMS, Stream
from engines.batch import DECODED_SCHEMA, Batch
from ingest.brokers.kafka_properties import registry_properties
from ingest.message import HEADER_BYTES

if TYPE_CHECKING:
    from ingest.formats.registry import Registered, Registry

REGISTRY_TIMEOUT_SECONDS = 10.0
"""Maximum seconds to retry a request that the registry does not answer; with `--follow` there is no limit."""
RETRY_SECONDS, MAX_RETRY_SECONDS = 0.5, 15.0
"""First and maximum pause, in seconds, between retries of a request to the registry; the pause doubles each time."""
STOP_CHECK_SECONDS = 0.5
"""Seconds between two checks, during a wait, whether landing was asked to stop."""
SCHEMA_TIMEOUT_SECONDS = 60.0
"""Maximum seconds to wait, in total, for a schema id that the registry does not have: a replica may get it later."""
UNKNOWN_SCHEMA_SECONDS = 10.0
"""Seconds before the registry is asked again for a schema that it did not have."""
MAX_SCHEMAS = 10_000
"""Maximum cached schemas per topic and part: bytes that only look like the wire format can have any schema id."""
TYPES = {"avro": "AVRO", "protobuf": "PROTOBUF", "json_schema": "JSON"}
"""Maps a contract's `format` to the registry's schema type."""
FORMATS = {type_: name for name, type_ in TYPES.items()}

Answer = TypeVar("Answer")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Schema:
    """A cached schema id: how to decode its values, or why that is not possible."""

    id: int
    format: str = ""
    """avro, protobuf or json_schema; empty if unknown."""
    read: Callable[[bytes], bytes] | None = None
    """Decodes a message, header included, to JSON text; None if there is an error."""
    error: str | None = None
    until: float = math.inf
    """Monotonic time, in seconds, at which the cached entry expires and the registry is asked again."""


class _Columns(NamedTuple):
    """The decoded values of one column, one list entry per row."""

    schema_ids: list[int | None]
    decoded: list[bytes | None]
    errors: list[str | None]


def check_registry(settings: Settings, streams: Sequence[Stream]) -> None:
    """Check that a schema registry is configured if a stream needs one.

    Raises:
        UserError: if a stream needs a registry and none is configured.
    """
    for stream in streams:
        if stream.format != "json" and "url" not in registry_properties(settings):
            raise UserError(
                f"stream {stream.name} has the format {stream.format}, but no schema registry is configured: set"
                " SCHEMA_REGISTRY_URL, or schema.registry.url in KAFKA_CONFIG_FILE"
            )


class Decoder:
    """Decodes the batches of one source.

    Args:
        follow: retry until the registry answers, without the limit of REGISTRY_TIMEOUT_SECONDS.
        should_stop: returns whether landing was asked to stop, which ends a wait.
        streams: contracts by stream name; by default those of the project.
    """

    def __init__(
        self,
        settings: Settings,
        follow: bool,
        should_stop: Callable[[], bool],
        streams: Mapping[str, Stream] | None = None,
    ) -> None:
        self._settings = settings
        self._streams = STREAMS if streams is None else streams
        self._follow = follow
        self._should_stop = should_stop
        self._schemas: dict[tuple[str, str], dict[bytes, _Schema]] = {}
        """Cached schemas, by (topic, "key" or "value") and then by message header."""
        self._looked_up: set[tuple[str, str, bytes]] = set()
        """Schemas that were found and can be used: (topic, "key" or "value", header)."""
        self._waited: dict[int, float] = {}
        """Maps a schema id to the seconds already spent waiting for it without success."""
        self._gave_up_at = -math.inf
        """Monotonic time, in seconds, at which the last wait for a missing schema ended without success."""
        self._client: Registry | None = None

    def decode(self, batch: Batch) -> Batch:
        """Return the batch with the columns of DECODED_SCHEMA added to streams whose format is not json.

        Raises:
            UnavailableError: if the registry does not answer. The caller must not land later batches of the source,
                since this one would be skipped.
            UserError: if the registry settings are invalid.
        """
        if all(self._streams[stream].format == "json" for stream in batch.tables):
            return batch
        tables = {stream: self._decode_table(self._streams[stream], table) for stream, table in batch.tables.items()}
        return replace(batch, tables=tables)

    def decode_any(
        self, topic: str, payloads: list[bytes | None], keys: list[bytes | None]
    ) -> tuple[list[bytes | None], list[bytes | None], str]:
        """Decode messages whose format is not known, such as samples of a new topic.

        Returns:
            Payloads and keys, as JSON text where they are in the wire format and unchanged otherwise; and the format
            of the payloads, json if none is in the wire format.

        Raises:
            UnavailableError: if the registry does not answer.
            UserError: if the registry settings are invalid.
        """
        found = "json"
        for part, values in (("value", payloads), ("key", keys)):
            if any(value is not None and value[:1] == b"\0" for value in values):
                decoded = self._decode_column(topic, part, values, None, waits=False).decoded
                values[:] = [text or value for text, value in zip(decoded, values, strict=True)]
                if part == "value":
                    found = next(
                        (schema.format for schema in self._schemas[topic, part].values() if schema.read), found
                    )
        return payloads, keys, found

    def _decode_table(self, stream: Stream, table: pa.Table) -> pa.Table:
        if stream.format == "json" or not table.num_rows:
            return table
        topic = table["topic"][0].as_py()
        values = self._decode_column(topic, "value", table["payload"].to_pylist(), stream.format)
        keys: list[bytes | None] = [None] * table.num_rows
        if pc.any(pc.starts_with(table["key"], pattern="\0")).as_py():
            # Models read the keys of entities only, so a missing schema of an event's key is not worth a wait.
            waits = stream.kind == "entity"
            keys = self._decode_column(topic, "key", table["key"].to_pylist(), None, waits).decoded
        columns = (values.schema_ids, values.decoded, keys, values.errors)
        for field, column in zip(DECODED_SCHEMA, columns, strict=True):
            table = table.append_column(field, pa.array(column, field.type))
        return table

    def _decode_column(
        self, topic: str, part: str, values: list[bytes | None], expected: str | None, waits: bool = True
    ) -> _Columns:
        """Decode the values that have the wire format.

        Args:
            part: "key" or "value".
            expected: the format that the values must have; None allows any.
            waits: whether to wait for schemas that the registry does not have.
        """
        schemas = self._schemas.setdefault((topic, part), {})
        columns = _Columns([], [], [])
        now = time.monotonic()
        for value in values:
            schema_id = decoded = error = None
            if value is not None:
                if len(value) < HEADER_BYTES or value[0]:
                    error = "no_magic_byte"
                else:
                    header = value[:HEADER_BYTES]
                    schema = schemas.get(header)
                    if schema is None or schema.until < now:
                        schema = self._look_up(topic, part, header, expected, waits)
                        now = time.monotonic()
                    schema_id, read, error = schema.id, schema.read, schema.error
                    if read is not None:
                        try:
                            decoded = read(value)
                        except Exception:  # noqa: BLE001  invalid bytes can raise any error in a decoder
                            error = f"broken_{schema.format}"
            columns.schema_ids.append(schema_id)
            columns.decoded.append(decoded)
            columns.errors.append(error)
        return columns

    def _look_up(self, topic: str, part: str, header: bytes, expected: str | None, waits: bool) -> _Schema:
        schemas = self._schemas[topic, part]
        if len(schemas) >= MAX_SCHEMAS:
            schemas.clear()
        found = self._resolve(topic, part, int.from_bytes(header[1:], "big"), expected, waits)
        if found.read is not None and (topic, part, header) not in self._looked_up:
            # A schema that is new to us may be the newest of its subject. Its aliases rename fields of the older
            # schemas, so their cached decoders are discarded.
            self._looked_up.add((topic, part, header))
            schemas.clear()
        schemas[header] = found
        return found

    def _resolve(self, topic: str, part: str, schema_id: int, expected: str | None, waits: bool) -> _Schema:
        if not 0 < schema_id < 2**31:  # registries assign positive 32-bit integers
            return _Schema(schema_id, error="unknown_schema")
        registered = self._fetch_schema(schema_id, topic, waits)
        again = time.monotonic() + UNKNOWN_SCHEMA_SECONDS
        if registered is None:
            return _Schema(schema_id, error="unknown_schema", until=again)
        found = FORMATS.get(registered.type, "")
        if not found or found != (expected or found):
            return _Schema(schema_id, error=f"not_{expected}")
        if found == "json_schema":
            return _Schema(schema_id, found, lambda value: value[HEADER_BYTES:])
        if not registered.is_complete:
            return _Schema(schema_id, found, error="broken_schema", until=again)
        newest = None
        if found == "avro":
            newest = self._call_registry(lambda registry: registry.newest(schema_id, f"{topic}-{part}"))
        read = _make_decoder(registered, newest) or _make_decoder(registered, None)
        until = math.inf if newest is None or newest.is_complete else again
        return _Schema(schema_id, found, read, None if read else "broken_schema", until)

    def _fetch_schema(self, schema_id: int, topic: str, waits: bool) -> "Registered | None":
        """Fetch a schema. With `waits`, wait until the registry has the schema and its references.

        The wait is at most SCHEMA_TIMEOUT_SECONDS per id, and at most as long as landing ran since the last wait, so
        that many unknown ids cannot take more than half of the time.

        Raises:
            UnavailableError: if landing is asked to stop during the wait.
        """
        registered = self._call_registry(lambda registry: registry.schema(schema_id))
        started = time.monotonic()
        timeout = min(SCHEMA_TIMEOUT_SECONDS - self._waited.get(schema_id, 0.0), started - self._gave_up_at)
        if _can_decode(registered) or not waits or timeout <= 0:
            return registered
        log.warning("landing waits for a schema that the registry does not have", schema_id=schema_id, topic=topic)
        pause = RETRY_SECONDS
        while (left := started + timeout - time.monotonic()) > 0:
            self._wait(min(pause, left))
            if self._should_stop():
                raise UnavailableError(f"landing was stopped while it waited for schema {schema_id} of topic {topic}")
            pause = min(2 * pause, MAX_RETRY_SECONDS)
            registered = self._call_registry(lambda registry: registry.schema(schema_id))
            if _can_decode(registered):
                log.info("the registry has the schema now", schema_id=schema_id, topic=topic)
                return registered
        self._gave_up_at = time.monotonic()
        if len(self._waited) >= MAX_SCHEMAS:
            self._waited.clear()
        self._waited[schema_id] = self._waited.get(schema_id, 0.0) + timeout
        log.warning(
            "the registry still does not have the schema: its messages become dead letters", schema_id=schema_id
        )
        return registered

    def _call_registry(self, request: "Callable[[Registry], Answer]") -> Answer:
        """Send a request to the registry, and retry it while the registry does not answer.

        A loop instead of tenacity: the limit depends on the error and on `follow`, and only the first failure and the
        recovery are logged.

        Raises:
            UnavailableError: if the registry does not answer for REGISTRY_TIMEOUT_SECONDS or rejects this client; with
                `follow` only if landing is asked to stop.
            UserError: if the registry settings are invalid.
        """
        from ingest.formats.registry import Registry, RegistryRejectsError

        self._client = self._client or Registry(self._settings)
        started = time.monotonic()
        pause = RETRY_SECONDS
        is_waiting = False
        while True:
            try:
                answer = request(self._client)
            except UnavailableError as error:
                is_over = time.monotonic() - started >= REGISTRY_TIMEOUT_SECONDS or isinstance(
                    error, RegistryRejectsError
                )
                if self._should_stop() or (is_over and not self._follow):
                    raise
                if not is_waiting:
                    log.warning("landing waits for the schema registry", reason=str(error))
                    is_waiting = True
                self._wait(pause)
                pause = min(2 * pause, MAX_RETRY_SECONDS)
            else:
                if is_waiting:
                    log.info("the schema registry answers again", seconds=round(time.monotonic() - started))
                return answer

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self._should_stop():
            time.sleep(min(left, STOP_CHECK_SECONDS))


def _can_decode(registered: "Registered | None") -> bool:
    """Whether the registry has the schema and, unless it is a JSON Schema, all of its references."""
    return registered is not None and (registered.is_complete or registered.type == TYPES["json_schema"])


def _make_decoder(registered: "Registered", newest: "Registered | None") -> Callable[[bytes], bytes] | None:
    """Return a function that decodes messages of a schema; None if the schema is invalid."""
    try:
        if registered.type == "PROTOBUF":
            from ingest.formats.protobuf import protobuf_decoder

            return protobuf_decoder(registered.text, registered.references)
        from ingest.formats.avro import avro_decoder

        if newest is None or newest.type != "AVRO":
            return avro_decoder(registered.text, registered.references)
        return avro_decoder(registered.text, registered.references, newest.text, newest.references)
    except (OSError, MemoryError, subprocess.TimeoutExpired) as error:  # the machine's fault, not the schema's
        raise UnavailableError(f"cannot compile a schema on this machine: {error}") from error
    except Exception as error:  # noqa: BLE001  an invalid schema can raise any error in a parser
        log.debug("a schema of the registry is invalid", reason=str(error))
        return None
