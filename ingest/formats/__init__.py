"""Decodes messages in Confluent's wire format, each once, to JSON text: the columns of DECODED_SCHEMA.

The wire format is a zero byte, the id of a schema in four bytes, and the value. A message that cannot be decoded is
landed all the same, with the reason in `decode_error`, and becomes a dead letter. A registry that does not answer is
not such a reason: landing waits for it. It also waits, for a minute at most, for a schema that the registry lacks.
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

PATIENCE_SECONDS = 10.0
"""How long landing waits for the registry, as for brokers; with `--follow` until it answers."""
RETRY_SECONDS, LONGEST_RETRY_SECONDS = 0.5, 15.0
"""Pause before the next request to a registry that does not answer: the first, and the longest of those doubled."""
LOOK_SECONDS = 0.5
"""How often a wait checks whether to stop."""
SCHEMA_PATIENCE_SECONDS = 60.0
"""How long landing waits in all for a schema that the registry lacks: it may be on its way to a replica."""
UNKNOWN_SECONDS = 10.0
"""How long such a schema is not asked for again once landing has given up waiting for it."""
MOST_SCHEMAS = 10_000
"""Maximum ids remembered per topic: bytes that only look like the wire format have any id."""
TYPES = {"avro": "AVRO", "protobuf": "PROTOBUF", "json_schema": "JSON"}
"""Format of a contract to the registry's type of schema."""
FORMATS = {type_: name for name, type_ in TYPES.items()}

Answer = TypeVar("Answer")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Schema:
    """What is known of a schema id."""

    id: int
    format: str = ""
    """avro, protobuf or json_schema."""
    read: Callable[[bytes], bytes] | None = None
    """Takes a message, header included, to JSON text; None where there is an error."""
    error: str | None = None
    until: float = math.inf
    """Monotonic time after which the registry is asked again."""


class _Columns(NamedTuple):
    """What became of the values of a column, row by row."""

    schema_ids: list[int | None]
    decoded: list[bytes | None]
    errors: list[str | None]


def check_registry(settings: Settings, streams: Sequence[Stream]) -> None:
    """Check that a registry is configured if one of the streams needs it.

    Raises:
        UserError: when none is.
    """
    for stream in streams:
        if stream.format != "json" and "url" not in registry_properties(settings):
            raise UserError(
                f"the messages of {stream.name} are {stream.format}, and no schema registry is configured: set"
                " SCHEMA_REGISTRY_URL, or schema.registry.url in KAFKA_CONFIG_FILE"
            )


class Decoder:
    """Decodes the batches of one source.

    Args:
        follow: wait until the registry answers, not only for PATIENCE_SECONDS.
        should_stop: asked during a wait; it then ends.
        streams: the contracts by name, if not those of the project.
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
        """Cached schemas: (topic, key or value) to the header of a message to the schema of that id."""
        self._looked_up: set[tuple[str, str, bytes]] = set()
        """Readable schemas that were looked up before: (topic, key or value, header)."""
        self._waited: dict[int, float] = {}
        """Schema id to the seconds that landing has waited for it in vain."""
        self._gave_up_at = -math.inf
        """Monotonic time at which landing last gave up waiting for a schema."""
        self._client: Registry | None = None

    def decode(self, batch: Batch) -> Batch:
        """The batch, in which streams that are not JSON have the columns of DECODED_SCHEMA too.

        Raises:
            UnavailableError: when the registry does not answer. The source must not go on behind this batch.
            UserError: for settings of the registry that cannot be used.
        """
        if all(self._streams[stream].format == "json" for stream in batch.tables):
            return batch
        tables = {stream: self._decode_table(self._streams[stream], table) for stream, table in batch.tables.items()}
        return replace(batch, tables=tables)

    def decode_any(
        self, topic: str, payloads: list[bytes | None], keys: list[bytes | None]
    ) -> tuple[list[bytes | None], list[bytes | None], str]:
        """Bodies and keys of messages whose format is not known, as JSON text where they are in the wire format; and
        that format, json where no body is.

        Raises:
            UnavailableError: when the registry does not answer.
            UserError: for settings of the registry that cannot be used.
        """
        found = "json"
        for part, values in (("value", payloads), ("key", keys)):
            if any(value is not None and value[:1] == b"\0" for value in values):
                decoded = self._decode_column(topic, part, values, None, is_awaited=False).decoded
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
            # only the key of an entity decides anything, and any bytes may be the key of an event
            is_awaited = stream.kind == "entity"
            keys = self._decode_column(topic, "key", table["key"].to_pylist(), None, is_awaited).decoded
        columns = (values.schema_ids, values.decoded, keys, values.errors)
        for field, column in zip(DECODED_SCHEMA, columns, strict=True):
            table = table.append_column(field, pa.array(column, field.type))
        return table

    def _decode_column(
        self, topic: str, part: str, values: list[bytes | None], wanted: str | None, is_awaited: bool = True
    ) -> _Columns:
        """Decode the values that have the wire format.

        Args:
            part: key or value.
            wanted: the format that they must have; None allows each.
            is_awaited: whether to wait for schemas that the registry lacks.
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
                        schema = self._look_up(topic, part, header, wanted, is_awaited)
                        now = time.monotonic()
                    schema_id, read, error = schema.id, schema.read, schema.error
                    if read is not None:
                        try:
                            decoded = read(value)
                        except Exception:  # noqa: BLE001  whatever bytes make of a decoder
                            error = f"broken_{schema.format}"
            columns.schema_ids.append(schema_id)
            columns.decoded.append(decoded)
            columns.errors.append(error)
        return columns

    def _look_up(self, topic: str, part: str, header: bytes, wanted: str | None, is_awaited: bool) -> _Schema:
        schemas = self._schemas[topic, part]
        if len(schemas) >= MOST_SCHEMAS:
            schemas.clear()
        found = self._find(topic, part, int.from_bytes(header[1:], "big"), wanted, is_awaited)
        if found.read is not None and (topic, part, header) not in self._looked_up:
            # It may be the newest schema of its subject. Aliases in that one rename the fields of older schemas, so
            # the cached decoders of these are made again.
            self._looked_up.add((topic, part, header))
            schemas.clear()
        schemas[header] = found
        return found

    def _find(self, topic: str, part: str, schema_id: int, wanted: str | None, is_awaited: bool) -> _Schema:
        if not 0 < schema_id < 2**31:  # as registries number them
            return _Schema(schema_id, error="unknown_schema")
        registered = self._registered(schema_id, topic, is_awaited)
        again = time.monotonic() + UNKNOWN_SECONDS
        if registered is None:
            return _Schema(schema_id, error="unknown_schema", until=again)
        found = FORMATS.get(registered.type, "")
        if not found or found != (wanted or found):
            return _Schema(schema_id, error=f"not_{wanted}")
        if found == "json_schema":
            return _Schema(schema_id, found, lambda value: value[HEADER_BYTES:])
        if not registered.is_complete:
            return _Schema(schema_id, found, error="broken_schema", until=again)
        newest = None
        if found == "avro":
            newest = self._ask(lambda registry: registry.newest(schema_id, f"{topic}-{part}"))
        read = _reader(registered, newest) or _reader(registered, None)
        until = math.inf if newest is None or newest.is_complete else again
        return _Schema(schema_id, found, read, None if read else "broken_schema", until)

    def _registered(self, schema_id: int, topic: str, is_awaited: bool) -> "Registered | None":
        """The schema of this id. While the registry lacks it or one that it refers to, wait if `is_awaited`: for
        SCHEMA_PATIENCE_SECONDS per id, and no more than half of the time, however many ids the registry lacks.

        Raises:
            UnavailableError: when landing stops meanwhile.
        """
        registered = self._ask(lambda registry: registry.schema(schema_id))
        started = time.monotonic()
        patience = min(SCHEMA_PATIENCE_SECONDS - self._waited.get(schema_id, 0.0), started - self._gave_up_at)
        if _is_whole(registered) or not is_awaited or patience <= 0:
            return registered
        log.warning("landing waits for a schema that the registry lacks", schema_id=schema_id, topic=topic)
        pause = RETRY_SECONDS
        while (left := started + patience - time.monotonic()) > 0:
            self._wait(min(pause, left))
            if self._should_stop():
                raise UnavailableError(f"landing stopped while it waited for the schema {schema_id} of {topic}")
            pause = min(2 * pause, LONGEST_RETRY_SECONDS)
            registered = self._ask(lambda registry: registry.schema(schema_id))
            if _is_whole(registered):
                log.info("the registry has the schema now", schema_id=schema_id, topic=topic)
                return registered
        self._gave_up_at = time.monotonic()
        if len(self._waited) >= MOST_SCHEMAS:
            self._waited.clear()
        self._waited[schema_id] = self._waited.get(schema_id, 0.0) + patience
        log.warning("the registry still lacks a schema: its messages become dead letters", schema_id=schema_id)
        return registered

    def _ask(self, question: "Callable[[Registry], Answer]") -> Answer:
        """Ask the registry, again and again while it does not answer.

        Raises:
            UnavailableError: when it has not answered for PATIENCE_SECONDS, or at once when it rejects this client;
                with `follow` only when landing stops.
            UserError: for settings that cannot be used.
        """
        from ingest.formats.registry import Registry, RegistryRejectsError

        self._client = self._client or Registry(self._settings)
        started = time.monotonic()
        pause = RETRY_SECONDS
        is_waiting = False
        while True:
            try:
                answer = question(self._client)
            except UnavailableError as error:
                is_over = time.monotonic() - started >= PATIENCE_SECONDS or isinstance(error, RegistryRejectsError)
                if self._should_stop() or (is_over and not self._follow):
                    raise
                if not is_waiting:
                    log.warning("landing waits for the schema registry", reason=str(error))
                    is_waiting = True
                self._wait(pause)
                pause = min(2 * pause, LONGEST_RETRY_SECONDS)
            else:
                if is_waiting:
                    log.info("the schema registry answers again", seconds=round(time.monotonic() - started))
                return answer

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self._should_stop():
            time.sleep(min(left, LOOK_SECONDS))


def _is_whole(registered: "Registered | None") -> bool:
    return registered is not None and (registered.is_complete or registered.type == TYPES["json_schema"])


def _reader(registered: "Registered", newest: "Registered | None") -> Callable[[bytes], bytes] | None:
    """What reads the values of a schema; None when it is not one."""
    try:
        if registered.type == "PROTOBUF":
            from ingest.formats.protobuf import protobuf_decoder

            return protobuf_decoder(registered.text, registered.references)
        from ingest.formats.avro import avro_decoder

        if newest is None or newest.type != "AVRO":
            return avro_decoder(registered.text, registered.references)
        return avro_decoder(registered.text, registered.references, newest.text, newest.references)
    except (OSError, MemoryError, subprocess.TimeoutExpired) as error:  # of this machine, not of the schema
        raise UnavailableError(f"a schema cannot be compiled here: {error}") from error
    except Exception as error:  # noqa: BLE001  whatever a text makes of a parser
        log.debug("a schema cannot be read", reason=str(error))
        return None
