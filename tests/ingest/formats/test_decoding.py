"""Messages in Confluent's wire format, landed from the spool with a fake schema registry."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import duckdb
import fastavro
import pytest
from pydantic import ValidationError

from common.errors import UnavailableError, UserError
from common.settings import Settings
from common.streams import STREAMS, Stream
from engines.batch import BATCH_SCHEMA, DECODED_SCHEMA
from engines.duckdb.sink import DuckDBSink
from ingest import cli, formats
from ingest.brokers.kafka_properties import registry_properties
from ingest.landing import LandingReport, land_streams
from ingest.message import Message
from ingest.producers.spool import SpoolProducer
from tests.command_line import run_main
from tools.brokers.local_registry import LocalRegistry

FIRST = {
    "type": "record",
    "name": "Signup",
    "fields": [{"name": "usr", "type": "string"}, {"name": "n", "type": "int"}],
}
SECOND = {
    "type": "record",
    "name": "Signup",
    "fields": [
        {"name": "user_id", "type": "string", "aliases": ["usr"]},
        {"name": "n", "type": "long"},
        {"name": "plan", "type": ["null", "string"], "default": None},
    ],
}
PROTO = 'syntax = "proto3"; message Signup { string user_id = 1; }'


@pytest.fixture
def registry() -> Iterator[LocalRegistry]:
    registry = LocalRegistry()
    yield registry
    registry.close()


@pytest.fixture
def settings(settings: Settings, registry: LocalRegistry) -> Settings:
    return settings.model_copy(update={"schema_registry_url": registry.url})


@pytest.fixture
def contract(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Stream]:
    """Return the contract of a stream `signups` in the given format."""

    def add(of: str) -> Stream:
        fields = [
            {"name": "user_id", "description": "Who."},
            {"name": "time", "required": True, "description": "When."},
        ]
        fields = [{**one, "name": one["name"].replace("time", "happened")} for one in fields]
        stream = Stream.model_validate(
            {"name": "signups", "description": "A test.", "transport": "kafka", "format": of, "kind": "event"}
            | {"event_type": "signup", "time": ["happened"], "fields": fields}
        )
        monkeypatch.setitem(STREAMS, "signups", stream)
        return stream

    return add


def wire(schema_id: int, body: bytes) -> bytes:
    return b"\0" + schema_id.to_bytes(4, "big") + body


def avro(schema_id: int, schema: Any, value: Any) -> bytes:
    stream = BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(schema), value)
    return wire(schema_id, stream.getvalue())


def land(settings: Settings, stream: Stream, *messages: Message | bytes | None) -> LandingReport:
    given = [one if isinstance(one, Message) else Message(one) for one in messages]
    SpoolProducer(settings).produce(stream, given)
    return land_streams(settings, [stream, STREAMS["users"]], DuckDBSink(settings.warehouse_path))


def landed(settings: Settings, columns: str = "schema_id, decoded, decode_error") -> list[tuple[Any, ...]]:
    with duckdb.connect(str(settings.warehouse_path), read_only=True) as connection:
        return connection.execute(f'select {columns} from raw.signups order by "offset"').fetchall()


def test_avro_is_landed_as_json_beside_the_bytes_as_received(
    settings: Settings, registry: LocalRegistry, contract: Callable[[str], Stream]
) -> None:
    first = registry.register("signups-value", json.dumps(FIRST))
    key_id = registry.register("signups-key", '"string"')
    payload = avro(first, FIRST, {"usr": "u1", "n": 1})
    stream = contract("avro")
    land(
        settings,
        stream,
        Message(payload, key=wire(key_id, b"\x04u1")),
        Message(None, key=wire(key_id, b"\x04u2")),
        Message(payload, key=b"plain"),
        Message(payload, key=wire(99, b"\x04u1")),
    )
    body = b'{"usr":"u1","n":1}'
    assert landed(settings, "payload, key, schema_id, decoded, decoded_key, decode_error") == [
        (payload, wire(key_id, b"\x04u1"), first, body, b'"u1"', None),
        (None, wire(key_id, b"\x04u2"), None, None, b'"u2"', None),
        (payload, b"plain", first, body, None, None),
        (payload, wire(99, b"\x04u1"), first, body, None, None),
    ]


def test_a_stream_is_decoded_across_versions_of_its_schema(
    settings: Settings, registry: LocalRegistry, contract: Callable[[str], Stream]
) -> None:
    """A field has its old name until the second version is registered, and then the new one."""
    stream = contract("avro")
    first = registry.register("signups-value", json.dumps(FIRST))
    old = avro(first, FIRST, {"usr": "u1", "n": 1})
    land(settings, stream, old)
    second = registry.register("signups-value", json.dumps(SECOND))
    land(settings, stream, old, avro(second, SECOND, {"user_id": "u2", "n": 2**40, "plan": "team"}), old)
    assert [json.loads(body) for _, body, _ in landed(settings)] == [
        {"usr": "u1", "n": 1},
        {"user_id": "u1", "n": 1},
        {"user_id": "u2", "n": 2**40, "plan": "team"},
        {"user_id": "u1", "n": 1},
    ]


def test_a_schema_version_registered_while_following_renames_later_fields(
    settings: Settings, registry: LocalRegistry, contract: Callable[[str], Stream]
) -> None:
    contract("avro")
    decoder = formats.Decoder(settings, False, lambda: False)
    decoder._schemas["signups", "value"] = {}
    first = registry.register("signups-value", json.dumps(FIRST))
    old = avro(first, FIRST, {"usr": "u1", "n": 1})

    def decode(*payloads: bytes) -> list[Any]:
        column = decoder._decode_column("signups", "value", list(payloads), "avro")
        return [json.loads(body or b"null") for body in column.decoded]

    assert decode(old, old) == [{"usr": "u1", "n": 1}] * 2
    second = registry.register("signups-value", json.dumps(SECOND))
    new = avro(second, SECOND, {"user_id": "u2", "n": 2, "plan": None})
    assert decode(old, new, old) == [
        {"usr": "u1", "n": 1},
        {"user_id": "u2", "n": 2, "plan": None},
        {"user_id": "u1", "n": 1},
    ]
    registry.requests.clear()
    assert decode(*[old, new] * 100) == [{"user_id": "u1", "n": 1}, {"user_id": "u2", "n": 2, "plan": None}] * 100
    assert registry.requests == []


@pytest.mark.parametrize("alike", ["orders-com.shop.Signup", "two"])
def test_the_newest_version_comes_from_the_schemas_subject(
    settings: Settings, registry: LocalRegistry, contract: Callable[[str], Stream], alike: str
) -> None:
    """If the schema is only in one subject of another name, that is used; if it is in several, none is."""
    first = registry.register(alike, json.dumps(FIRST))
    registry.register(alike, json.dumps(SECOND))
    if alike == "two":
        registry._subjects["other"] = [first]
    land(settings, contract("avro"), avro(first, FIRST, {"usr": "u1", "n": 1}))
    assert landed(settings, "decoded") == [(b'{"usr":"u1","n":1}' if alike == "two" else b'{"user_id":"u1","n":1}',)]


def test_without_access_to_subjects_the_schema_of_the_message_is_used(
    settings: Settings, registry: LocalRegistry, contract: Callable[[str], Stream]
) -> None:
    first = registry.register("signups-value", json.dumps(FIRST))
    registry.register("signups-value", json.dumps(SECOND))
    registry.forbidden = ("/subjects/",)
    land(settings, contract("avro"), avro(first, FIRST, {"usr": "u1", "n": 1}))
    assert landed(settings, "decoded") == [(b'{"usr":"u1","n":1}',)]


def test_protobuf_and_json_schema_are_decoded(
    settings: Settings, registry: LocalRegistry, contract: Callable[[str], Stream]
) -> None:
    proto_id = registry.register("signups-value", PROTO, "PROTOBUF")
    json_id = registry.register("signups-value", '{"type": "object"}', "JSON")
    land(settings, contract("protobuf"), wire(proto_id, b"\0\x0a\x02u1"), wire(json_id, b"{}"))
    land(
        settings,
        contract("json_schema"),
        wire(json_id, b'{"user_id": "u2"}'),
        wire(json_id, b"{"),
        wire(proto_id, b"\0"),
    )
    assert landed(settings) == [
        (proto_id, b'{"user_id":"u1"}', None),
        (json_id, None, "not_protobuf"),
        (json_id, b'{"user_id": "u2"}', None),
        (json_id, b"{", None),  # staging rejects it
        (proto_id, None, "not_json_schema"),
    ]


def test_references_of_schemas_are_resolved(
    settings: Settings, registry: LocalRegistry, contract: Callable[[str], Stream], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "SCHEMA_TIMEOUT_SECONDS", 0.0)
    person = {"type": "record", "name": "shop.Person", "fields": [{"name": "name", "type": "string"}]}
    registry.register("person", json.dumps(person))
    reference = {"name": "shop.Person", "subject": "person", "version": 1}
    schema = {"type": "record", "name": "Signup", "fields": [{"name": "who", "type": "shop.Person"}]}
    found = registry.register("signups-value", json.dumps(schema), references=[reference])
    missing = registry.register("signups-value", json.dumps(schema), references=[{**reference, "version": 7}])
    land(settings, contract("avro"), wire(found, b"\x02a"), wire(missing, b"\x02a"))
    assert landed(settings) == [(found, b'{"who":{"name":"a"}}', None), (missing, None, "broken_schema")]


def test_undecodable_messages_are_landed_with_the_reason(
    settings: Settings, registry: LocalRegistry, contract: Callable[[str], Stream], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "SCHEMA_TIMEOUT_SECONDS", 0.0)
    first = registry.register("signups-value", json.dumps(FIRST))
    proto_id = registry.register("other", PROTO, "PROTOBUF")
    broken = registry.register("broken", '{"type": "record"}')
    good = avro(first, FIRST, {"usr": "u1", "n": 1})
    expected = [
        (b'{"usr": "u1"}', None, "no_magic_byte"),
        (b"", None, "no_magic_byte"),
        (b"\0\0\0\0", None, "no_magic_byte"),
        (wire(77, b"x"), 77, "unknown_schema"),
        (wire(0, b"x"), 0, "unknown_schema"),
        (wire(2**32 - 1, b"x"), 2**32 - 1, "unknown_schema"),
        (wire(proto_id, b"\0"), proto_id, "not_avro"),
        (wire(broken, b"\0"), broken, "broken_schema"),
        (wire(first, b""), first, "broken_avro"),
        (good[:-1], first, "broken_avro"),
        (good + b"\0", first, "broken_avro"),
        (wire(first, b"\x02\xff\0"), first, "broken_avro"),
        (None, None, None),
    ]
    # a line of the spool that is not an envelope is its own payload
    assert land(settings, contract("avro"), *(payload for payload, *_ in expected), good).rows == len(expected) + 1
    with (settings.spool_path / "signups" / "0.ndjson").open("a") as log:
        log.write("nonsense\n")
    land(settings, STREAMS["signups"])
    rows = [(*row[:2], row[3]) for row in landed(settings, "payload, schema_id, decoded, decode_error")]
    assert rows == [*expected, (good, first, None), (b"nonsense", None, "no_magic_byte")]
    assert [body for _, body, _ in landed(settings) if body] == [b'{"usr":"u1","n":1}']


# -- a schema that the registry does not have -------------------------------------------------------------------------


class Clock:
    """Replaces the module time; `sleep` returns at once."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.at_seconds: dict[float, Callable[[], object]] = {}
        """Seconds after the start to a function that is called then."""

    @property
    def seconds(self) -> float:
        return self.now - 1_000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for at in [one for one in self.at_seconds if one <= self.seconds]:
            self.at_seconds.pop(at)()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(formats, "time", clock)
    return clock


def test_landing_waits_for_a_schema_that_is_registered_later(
    settings: Settings,
    registry: LocalRegistry,
    contract: Callable[[str], Stream],
    clock: Clock,
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock.at_seconds[40] = lambda: registry.register("signups-value", json.dumps(FIRST))
    land(settings, contract("avro"), b"no", *[avro(1, FIRST, {"usr": "u1", "n": n}) for n in range(3)])
    assert [(error, body) for _, body, error in landed(settings)] == [
        ("no_magic_byte", None),
        *((None, b'{"usr":"u1","n":%d}' % n) for n in range(3)),
    ]
    assert 40 <= clock.seconds < 60
    assert len(registry.requests) < 12  # since pauses grow
    said = capsys.readouterr().out
    assert said.count("landing waits for a schema that the registry does not have") == 1
    assert said.count("the registry has the schema now") == 1


@pytest.mark.parametrize("arrives", [True, False])
def test_landing_waits_for_a_missing_reference(
    settings: Settings, registry: LocalRegistry, contract: Callable[[str], Stream], clock: Clock, arrives: bool
) -> None:
    person = {"type": "record", "name": "shop.Person", "fields": [{"name": "name", "type": "string"}]}
    schema = {"type": "record", "name": "Signup", "fields": [{"name": "who", "type": "shop.Person"}]}
    reference = {"name": "shop.Person", "subject": "person", "version": 1}
    of_value = registry.register("signups-value", json.dumps(schema), references=[reference])
    if arrives:
        clock.at_seconds[20] = lambda: registry.register("person", json.dumps(person))
    stream = contract("avro")
    land(settings, stream, wire(of_value, b"\x02a"))
    body = b'{"who":{"name":"a"}}'
    assert landed(settings) == [(of_value, body, None) if arrives else (of_value, None, "broken_schema")]
    # messages with JSON Schema are decoded without their schema
    json_id = registry.register("other", "{}", "JSON", references=[{**reference, "subject": "nobody"}])
    seconds = clock.seconds
    land(settings, contract("json_schema"), wire(json_id, b"{}"))
    assert landed(settings)[-1] == (json_id, b"{}", None)
    assert clock.seconds == seconds


def test_the_newest_version_is_requested_again_while_a_reference_is_missing(
    settings: Settings, registry: LocalRegistry, contract: Callable[[str], Stream], clock: Clock
) -> None:
    contract("avro")
    plan = {"type": "record", "name": "shop.Plan", "fields": [{"name": "name", "type": "string"}]}
    newest = {**SECOND, "fields": [*SECOND["fields"][:2], {"name": "plan", "type": ["null", "shop.Plan"]}]}
    first = registry.register("signups-value", json.dumps(FIRST))
    reference = {"name": "shop.Plan", "subject": "plan", "version": 1}
    registry.register("signups-value", json.dumps(newest), references=[reference])
    decoder = formats.Decoder(settings, False, lambda: False)

    def decode() -> list[bytes | None]:
        return decoder._decode_column("signups", "value", [avro(first, FIRST, {"usr": "u1", "n": 1})], "avro").decoded

    assert decode() == [b'{"usr":"u1","n":1}']
    registry.register("plan", json.dumps(plan))
    clock.sleep(formats.UNKNOWN_SCHEMA_SECONDS + 1)
    assert decode() == [b'{"user_id":"u1","n":1}']


def test_a_missing_schema_is_waited_for_once_and_requested_again(
    settings: Settings, registry: LocalRegistry, contract: Callable[[str], Stream], clock: Clock
) -> None:
    contract("avro")
    decoder = formats.Decoder(settings, True, lambda: False)
    payload = avro(1, FIRST, {"usr": "u1", "n": 1})

    def errors() -> list[str | None]:
        return decoder._decode_column("signups", "value", [payload] * 3, "avro").errors

    assert errors() == ["unknown_schema"] * 3
    assert clock.seconds == pytest.approx(60)
    asked = len(registry.requests)
    assert errors() == ["unknown_schema"] * 3
    assert len(registry.requests) == asked
    clock.now += 3_600
    assert errors() == ["unknown_schema"] * 3
    assert len(registry.requests) == asked + 1
    assert clock.seconds == pytest.approx(3_660)
    registry.register("signups-value", json.dumps(FIRST))
    clock.now += formats.UNKNOWN_SCHEMA_SECONDS + 1
    assert errors() == [None] * 3


def test_many_unknown_schema_ids_are_landed_after_one_wait(
    settings: Settings, registry: LocalRegistry, contract: Callable[[str], Stream], clock: Clock
) -> None:
    """Landing waits for at most half of the time, whatever the number of ids."""
    payloads = [wire(schema_id, b"x") for schema_id in range(1, 301)]
    assert land(settings, contract("avro"), *payloads).rows == 300
    assert landed(settings) == [(schema_id, None, "unknown_schema") for schema_id in range(1, 301)]
    assert clock.seconds == pytest.approx(60)
    decoder = formats.Decoder(settings, True, lambda: False)
    waited = 0.0
    for number in range(400, 500):
        before = clock.now
        assert decoder._decode_column("signups", "value", [wire(number, b"x")] * 2, "avro").schema_ids == [number] * 2
        waited += clock.now - before
        clock.now += 5
    assert waited <= 60 + 5 * 100
    # an id gets the rest of its waiting time with its next message
    schema_id = 499
    registry._schemas.update({one: {"schema": "{}", "schemaType": "JSON"} for one in range(1, schema_id)})
    clock.now += 1_000
    clock.at_seconds[clock.seconds + 30] = lambda: registry.register("signups-value", json.dumps(FIRST))
    payload = avro(schema_id, FIRST, {"usr": "u1", "n": 1})
    assert decoder._decode_column("signups", "value", [payload], "avro").decoded == [b'{"usr":"u1","n":1}']


def test_landing_waits_for_key_schemas_of_entities_but_not_of_events(
    settings: Settings, registry: LocalRegistry, contract: Callable[[str], Stream], clock: Clock
) -> None:
    of_value = registry.register("signups-value", json.dumps(FIRST))
    payload = avro(of_value, FIRST, {"usr": "u1", "n": 1})
    clock.at_seconds[20] = lambda: registry.register("signups-key", '"string"')
    stream = contract("avro")
    land(settings, stream, Message(payload, key=wire(of_value + 1, b"\x04u1")))
    assert clock.seconds == 0
    entity = stream.model_copy(update={"kind": "entity"})
    SpoolProducer(settings).produce(entity, [Message(None, key=wire(of_value + 1, b"\x04u1"))])
    land_streams(settings, [entity], DuckDBSink(settings.warehouse_path))
    assert landed(settings, "decoded_key") == [(None,), (b'"u1"',)]


def stop_while_the_registry_is_asked(settings: Settings, stream: Stream, registry: LocalRegistry) -> None:
    """Follow the stream until the registry has a request, stop, and check that the loader ends and landed nothing."""
    stop = threading.Event()
    sink = DuckDBSink(settings.warehouse_path)
    thread = threading.Thread(
        target=land_streams, args=(settings, [stream], sink), kwargs={"follow": True, "stop": stop}
    )
    thread.start()
    until = time.monotonic() + 20
    while not registry.requests and time.monotonic() < until:
        time.sleep(0.05)
    stop.set()
    thread.join(5)
    assert registry.requests
    assert not thread.is_alive()
    assert landed(settings) == []


def test_a_wait_for_a_schema_can_be_stopped(
    settings: Settings, registry: LocalRegistry, contract: Callable[[str], Stream]
) -> None:
    stream = contract("avro")
    payload = avro(1, FIRST, {"usr": "u1", "n": 1})
    SpoolProducer(settings).produce(stream, [Message(payload)])
    stop_while_the_registry_is_asked(settings, stream, registry)
    registry.register("signups-value", json.dumps(FIRST))
    land_streams(settings, [stream], DuckDBSink(settings.warehouse_path))
    assert landed(settings) == [(1, b'{"usr":"u1","n":1}', None)]


# -- tables -----------------------------------------------------------------------------------------------------------


def test_an_existing_table_gets_the_columns_and_keeps_its_rows(
    settings: Settings, registry: LocalRegistry, contract: Callable[[str], Stream]
) -> None:
    stream = contract("json")
    land(settings, stream, b'{"user_id": "u1"}')
    with duckdb.connect(str(settings.warehouse_path)) as connection:
        for table in ("signups", "users"):
            for column in DECODED_SCHEMA.names:
                connection.execute(f"alter table raw.{table} drop column {column}")
    first = registry.register("signups-value", json.dumps(FIRST))
    SpoolProducer(settings).produce(contract("avro"), [Message(avro(first, FIRST, {"usr": "u2", "n": 1}))])
    # also a file that was replaced after landing began
    sink = DuckDBSink(settings.warehouse_path)
    decoder = formats.Decoder(settings, False, lambda: False)
    from ingest.sources.spool import SpoolSource

    source = SpoolSource(settings, [stream], lambda ids: sink.positions("spool", ids))
    batch = source.fetch(0)
    assert batch is not None
    sink.commit([decoder.decode(batch)])
    source.close()
    assert landed(settings) == [(None, None, None), (first, b'{"usr":"u2","n":1}', None)]
    land(settings, STREAMS["signups"])
    with duckdb.connect(str(settings.warehouse_path), read_only=True) as connection:
        names = [name for name, *_ in connection.sql("describe raw.users").fetchall()]
    assert names[-4:] == DECODED_SCHEMA.names
    assert set(BATCH_SCHEMA.names) < set(names)


# -- a registry that does not answer ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (503, "does not answer: HTTP 503"),
        (500, "does not answer: HTTP 500"),
        (429, "does not answer: HTTP 429"),
        (404, "has no such path (404): check SCHEMA_REGISTRY_URL"),
        (401, "rejects this client (HTTP 401): see schema.registry.basic.auth.user.info"),
        (403, "rejects this client (HTTP 403)"),
    ],
)
def test_without_follow_a_missing_registry_is_one_line_and_nothing_lands(
    settings: Settings,
    registry: LocalRegistry,
    contract: Callable[[str], Stream],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    status: int,
    expected: str,
) -> None:
    monkeypatch.setattr(formats, "REGISTRY_TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr(formats, "RETRY_SECONDS", 0.1)
    first = registry.register("signups-value", json.dumps(FIRST))
    payload = avro(first, FIRST, {"usr": "u1", "n": 1})
    registry.status = status
    stream = contract("avro")
    with pytest.raises(UnavailableError) as error:
        land(settings, stream, payload)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)
    waits = capsys.readouterr().out.count("landing waits for the schema registry")
    assert waits == (0 if status in (401, 403) else 1)
    assert landed(settings) == []
    registry.status = 200
    assert land(settings, stream, payload).rows == 2
    assert [body for _, body, _ in landed(settings)] == [b'{"usr":"u1","n":1}'] * 2


def test_a_server_that_is_not_a_registry_is_an_error(
    settings: Settings, registry: LocalRegistry, contract: Callable[[str], Stream], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "REGISTRY_TIMEOUT_SECONDS", 0.0)
    for answer in (["no"], "no", None, 7):
        monkeypatch.setattr(registry, "_answer", lambda path, answer=answer: (200, answer))
        with pytest.raises(UnavailableError, match="does not answer like a schema registry"):
            land(settings, contract("avro"), wire(1, b""))


def test_a_follower_waits_until_the_registry_is_back(
    settings: Settings,
    registry: LocalRegistry,
    contract: Callable[[str], Stream],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(formats, "REGISTRY_TIMEOUT_SECONDS", 0.0)
    monkeypatch.setattr(formats, "RETRY_SECONDS", 0.05)
    first = registry.register("signups-value", json.dumps(FIRST))
    stream = contract("avro")
    registry.status = 401
    stop = threading.Event()
    seen: list[int] = []
    SpoolProducer(settings).produce(stream, [Message(avro(first, FIRST, {"usr": "u1", "n": n})) for n in range(3)])
    sink = DuckDBSink(settings.warehouse_path)
    thread = threading.Thread(
        target=land_streams,
        args=(settings, [stream], sink),
        kwargs={"follow": True, "stop": stop, "on_progress": seen.append},
    )
    thread.start()
    until = time.monotonic() + 20
    while len(registry.requests) < 4 and time.monotonic() < until:
        time.sleep(0.05)
    assert seen == []
    registry.status = 200
    while not seen and time.monotonic() < until:
        time.sleep(0.05)
    stop.set()
    thread.join(20)
    assert not thread.is_alive()
    assert [json.loads(body)["n"] for _, body, _ in landed(settings)] == [0, 1, 2]
    said = capsys.readouterr().out
    assert said.count("landing waits for the schema registry") == 1
    assert said.count("the schema registry answers again") == 1


def test_a_follower_that_waits_can_be_stopped(
    settings: Settings, registry: LocalRegistry, contract: Callable[[str], Stream]
) -> None:
    registry.status = 503
    stream = contract("avro")
    SpoolProducer(settings).produce(stream, [Message(wire(1, b""))])
    stop_while_the_registry_is_asked(settings, stream, registry)


def test_a_registry_is_needed_only_by_streams_that_have_schemas(
    settings: Settings, contract: Callable[[str], Stream]
) -> None:
    without = settings.model_copy(update={"schema_registry_url": None})
    land(without, contract("json"), b"{}")
    with pytest.raises(UserError, match=r"signups has the format avro.*set SCHEMA_REGISTRY_URL"):
        land(without, contract("avro"), b"{}")


def test_only_streams_of_kafka_have_a_format(contract: Callable[[str], Stream]) -> None:
    with pytest.raises(ValidationError, match="format: avro needs transport: kafka"):
        Stream.model_validate({**contract("avro").model_dump(), "transport": "pubsub"})


def test_replay_does_not_produce_json_to_a_stream_of_another_format(
    tmp_path: Path, contract: Callable[[str], Stream]
) -> None:
    contract("avro")
    (tmp_path / "signups.ndjson").write_text("{}")
    done = run_main(cli.main, ["replay", str(tmp_path / "signups.ndjson"), "--stream", "signups"], {})
    assert done.returncode == 2
    assert done.stderr == (
        "error: replay can only produce JSON, but the messages of signups are avro: use the application that"
        " writes them\n"
    )


# -- settings ---------------------------------------------------------------------------------------------------------


def test_settings_come_from_the_properties_file(
    tmp_path: Path, settings: Settings, registry: LocalRegistry, contract: Callable[[str], Stream]
) -> None:
    path = tmp_path / "client.properties"
    path.write_text(
        "bootstrap.servers=nowhere:1\n"
        f"schema.registry.url={registry.url}\n"
        "basic.auth.credentials.source=USER_INFO\n"
        "basic.auth.user.info=general:x\n"
        "schema.registry.basic.auth.user.info=key:s3cret\n"
        "schema.registry.ssl.ca.location=/etc/ssl/certs\n"
    )
    alone = settings.model_copy(update={"schema_registry_url": None, "kafka_config_file": path})
    assert registry_properties(alone) == {
        "url": registry.url,
        "basic.auth.user.info": "key:s3cret",
        "ssl.ca.location": "/etc/ssl/certs",
    }
    changed = alone.model_copy(update={"schema_registry_url": "http://other"})
    assert registry_properties(changed)["url"] == "http://other"
    contract("avro")
    first = registry.register("signups-value", json.dumps(FIRST))
    decoder = formats.Decoder(alone, False, lambda: False)
    column = decoder._decode_column("signups", "value", [avro(first, FIRST, {"usr": "u", "n": 1})], "avro")
    assert column.errors == [None]
    assert set(registry.authorizations) == {"Basic a2V5OnMzY3JldA=="}


@pytest.mark.parametrize(
    "lines",
    [
        "schema.registry.url=registry:8081/s3cret",
        "schema.registry.url=http://key:s3cret@127.0.0.1:1\nschema.registry.nonsense=s3cret",
        "schema.registry.url=http://key:s3cret@127.0.0.1:1\nschema.registry.basic.auth.user.info=k:s3cret",
        "schema.registry.url=http://127.0.0.1:1\nschema.registry.basic.auth.user.info=s3cret",
        "schema.registry.url=http://127.0.0.1:1\nschema.registry.ssl.ca.location=/no/such/file",
        "schema.registry.url=http://key:s3cret@127.0.0.1:1",
    ],
)
def test_an_error_shows_no_secret(
    tmp_path: Path, settings: Settings, contract: Callable[[str], Stream], monkeypatch: pytest.MonkeyPatch, lines: str
) -> None:
    monkeypatch.setattr(formats, "REGISTRY_TIMEOUT_SECONDS", 0.0)
    path = tmp_path / "client.properties"
    path.write_text(lines)
    contract("avro")
    wrong = settings.model_copy(update={"schema_registry_url": None, "kafka_config_file": path})
    decoder = formats.Decoder(wrong, False, lambda: False)
    with pytest.raises(UserError) as error:
        decoder._decode_column("signups", "value", [wire(1, b"")], "avro")
    assert "schema registry" in str(error.value)
    assert "s3cret" not in str(error.value)
