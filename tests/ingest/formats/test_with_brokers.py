"""Messages in Confluent's wire format, from Apache Kafka with a schema registry, written by Confluent's serializers."""

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import duckdb
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from confluent_kafka.schema_registry import Schema, SchemaReference, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from common.errors import UnavailableError
from common.settings import Settings
from common.streams import STREAMS, Stream
from engines.duckdb.sink import DuckDBSink
from ingest import formats
from ingest.landing import LandingReport, land_streams
from tools.brokers import KafkaServer, SchemaRegistry

pytestmark = pytest.mark.brokers

numbers = itertools.count()

FIRST = {
    "type": "record",
    "name": "shop.Signup",
    "fields": [
        {"name": "usr", "type": "string"},
        {"name": "visits", "type": "int"},
        {"name": "referrer", "type": "string"},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "born", "type": ["null", {"type": "int", "logicalType": "date"}]},
        {"name": "token", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "plan", "type": {"type": "enum", "name": "Plan", "symbols": ["FREE", "TEAM"]}},
        {"name": "address", "type": ["null", "shop.Address"]},
        {"name": "tags", "type": {"type": "map", "values": "bytes"}},
    ],
}
ADDRESS = {"type": "record", "name": "shop.Address", "fields": [{"name": "city", "type": "string"}]}
SECOND = {
    **FIRST,
    "fields": [
        {"name": "user_id", "type": "string", "aliases": ["usr"]},
        {"name": "visits", "type": "long"},
        {"name": "country", "type": ["null", "string"], "default": None},
        *FIRST["fields"][3:],
    ],
}
SIGNUP = {
    "visits": 3,
    "price": Decimal("-1234567890.10"),
    "at": datetime(2026, 1, 2, 3, 4, 5, 6, UTC),
    "born": date(2000, 2, 29),
    "token": UUID(int=7),
    "plan": "TEAM",
    "address": {"city": "Málaga"},
    "tags": {"a": b"\xff"},
}
LANDED = {
    "visits": 3,
    "price": "-1234567890.10",
    "at": "2026-01-02T03:04:05.000006Z",
    "born": "2000-02-29",
    "token": "00000000-0000-0000-0000-000000000007",
    "plan": "TEAM",
    "address": {"city": "Málaga"},
    "tags": {"a": "/w=="},
}
JSON_SCHEMA = {"title": "Signup", "type": "object", "properties": {"user_id": {"type": "string"}}}
Row = tuple[Any, ...]


class Shop:
    """A topic, its schemas and a warehouse, for one test."""

    def __init__(self, settings: Settings, stream: Stream, registry: SchemaRegistryClient) -> None:
        self.settings = settings
        self.stream = stream
        self.registry = registry
        self.topic = settings.topic(stream)
        self._producer = Producer({"bootstrap.servers": settings.kafka_bootstrap_servers, "log_level": 0})

    def produce(self, *payloads: bytes | None, key: bytes | None = None) -> None:
        for payload in payloads:
            self._producer.produce(self.topic, payload, key, partition=0)
        assert self._producer.flush(30) == 0

    def register(self, subject: str, schema: str, type_: str = "AVRO", *references: SchemaReference) -> int:
        return self.registry.register_schema(subject, Schema(schema, type_, list(references)))

    def avro(self, schema: Any, value: Any) -> bytes:
        reference = SchemaReference("shop.Address", f"{self.topic}-address", 1)
        self.register(f"{self.topic}-address", json.dumps(ADDRESS))
        serializer = AvroSerializer(self.registry, Schema(json.dumps(schema), "AVRO", [reference]))
        written: bytes | None = serializer(value, SerializationContext(self.topic, MessageField.VALUE))
        assert written is not None
        return written

    def land(self) -> LandingReport:
        return land_streams(self.settings, [self.stream], DuckDBSink(self.settings.warehouse_path))

    def landed(self, columns: str = "decoded, decode_error") -> list[Row]:
        with duckdb.connect(str(self.settings.warehouse_path), read_only=True) as connection:
            return connection.execute(f'select {columns} from raw.signups order by "offset"').fetchall()


@pytest.fixture
def shop(
    kafka_server: KafkaServer, schema_registry: SchemaRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Shop]]:
    """Returns a shop whose stream `signups` has the given format."""

    def open_shop(of: str) -> Shop:
        number = next(numbers)
        stream = Stream.model_validate(
            {"name": "signups", "description": "A test.", "transport": "kafka", "format": of, "kind": "event"}
            | {"event_type": "signup", "time": ["happened_at"]}
            | {"fields": [{"name": "happened_at", "required": True, "description": "When."}]}
        )
        monkeypatch.setitem(STREAMS, "signups", stream)
        topic = f"signups-{number}"
        admin = AdminClient({"bootstrap.servers": kafka_server.bootstrap_servers})
        admin.create_topics([NewTopic(topic, 1, 1)])[topic].result()
        config = tmp_path / "client.properties"
        config.write_text(
            # a consumer that waits longer for the registry is removed from its group
            f"max.poll.interval.ms=6000\nsession.timeout.ms=6000\nschema.registry.url={schema_registry.url}\n"
        )
        settings = Settings(
            _env_file=None,
            warehouse_path=tmp_path / "warehouse.duckdb",
            kafka_bootstrap_servers=kafka_server.bootstrap_servers,
            kafka_config_file=config,
            kafka_group_id=f"signups-{number}",
            topics={"signups": topic},
        )
        return Shop(settings, stream, SchemaRegistryClient({"url": schema_registry.url}))

    yield open_shop


def test_avro_of_all_schema_versions_is_decoded(shop: Callable[[str], Shop]) -> None:
    signups = shop("avro")
    first = signups.avro(FIRST, {"usr": "u1", "referrer": "r", **SIGNUP})
    signups.produce(first, key=signups_key(signups, "u1"))
    assert signups.land().rows == 1
    second = signups.avro(SECOND, {"user_id": "u2", "country": "ES", **SIGNUP, "visits": 2**40})
    signups.produce(second, None, first, key=signups_key(signups, "u2"))
    assert signups.land().rows == 3
    rows = signups.landed("payload, decoded, decoded_key, decode_error")
    assert [(payload, key, error) for payload, _, key, error in rows] == [
        (first, b'"u1"', None),
        (second, b'"u2"', None),
        (None, b'"u2"', None),
        (first, b'"u2"', None),
    ]
    assert [body and json.loads(body) for _, body, _, _ in rows] == [
        {"usr": "u1", "referrer": "r", **LANDED},
        {"user_id": "u2", "country": "ES", **LANDED, "visits": 2**40},
        None,
        {"user_id": "u1", "referrer": "r", **LANDED},
    ]


def signups_key(signups: Shop, key: str) -> bytes:
    serializer = AvroSerializer(signups.registry, '"string"')
    written: bytes | None = serializer(key, SerializationContext(signups.topic, MessageField.KEY))
    assert written is not None
    return written


def test_protobuf_with_imports_and_nested_messages_is_decoded(shop: Callable[[str], Shop]) -> None:
    signups = shop("protobuf")
    subject = f"{signups.topic}-address"
    signups.register(subject, 'syntax = "proto3"; package shop; message Address { string city = 1; }', "PROTOBUF")
    schema = """
        syntax = "proto3"; package shop; import "google/protobuf/timestamp.proto"; import "address.proto";
        message Other {}
        message Signup {
          string user_id = 1; google.protobuf.Timestamp at = 2; Address address = 3; int64 visits = 4;
          message Bot { string name = 1; }
        }
    """
    reference = SchemaReference("address.proto", subject, 1)
    schema_id = signups.register(f"{signups.topic}-value", schema, "PROTOBUF", reference)
    header = b"\0" + schema_id.to_bytes(4, "big")
    signups.produce(header + b"\x02\x02\x0a\x02u1\x12\x02\x08\x01\x1a\x03\x0a\x01x", header + b"\x04\x02\x00\x0a\x01b")
    signups.land()
    assert [(json.loads(body), error) for body, error in signups.landed()] == [
        ({"user_id": "u1", "at": "1970-01-01T00:00:01Z", "address": {"city": "x"}, "visits": "0"}, None),
        ({"name": "b"}, None),
    ]


def test_json_schema_is_decoded(shop: Callable[[str], Shop]) -> None:
    signups = shop("json_schema")
    serializer = JSONSerializer(json.dumps(JSON_SCHEMA), signups.registry)
    payload = serializer({"user_id": "u1", "n": 1.5}, SerializationContext(signups.topic, MessageField.VALUE))
    signups.produce(payload)
    signups.land()
    [(body, error)] = signups.landed()
    assert (json.loads(body), error) == ({"user_id": "u1", "n": 1.5}, None)
    assert payload is not None
    assert payload.endswith(body)


def test_undecodable_messages_are_landed_with_the_reason(
    shop: Callable[[str], Shop], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "SCHEMA_TIMEOUT_SECONDS", 1.0)
    signups = shop("avro")
    good = signups.avro(FIRST, {"usr": "u1", "referrer": "r", **SIGNUP})
    of_json = signups.register(f"{signups.topic}-other", json.dumps(JSON_SCHEMA), "JSON")
    other = b"\0" + of_json.to_bytes(4, "big") + b"{}"
    signups.produce(b"{}", b"\0\x00\x98\x96\x80x", good[:-3], other, good)
    assert signups.land().rows == 5
    errors = [error for _, error in signups.landed()]
    assert errors == ["no_magic_byte", "unknown_schema", "broken_avro", "not_avro", None]


@contextmanager
def following(signups: Shop) -> Iterator[list[int]]:
    """Land in a thread while the context is open; yields the number of rows of each commit."""
    stop = threading.Event()
    seen: list[int] = []
    arguments = (signups.settings, [signups.stream], DuckDBSink(signups.settings.warehouse_path))
    options = {"follow": True, "stop": stop, "on_progress": seen.append}
    thread = threading.Thread(target=land_streams, args=arguments, kwargs=options)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()


def test_landing_waits_for_a_registry_that_is_down(
    shop: Callable[[str], Shop],
    schema_registry: SchemaRegistry,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(formats, "REGISTRY_TIMEOUT_SECONDS", 1.0)
    signups = shop("avro")
    payload = signups.avro(FIRST, {"usr": "u1", "referrer": "r", **SIGNUP})
    signups.produce(*[payload] * 100)
    schema_registry.stop()
    try:
        with pytest.raises(UnavailableError, match=r"the schema registry at 127.0.0.1.* does not answer"):
            signups.land()
        assert signups.landed() == []
        capsys.readouterr()
        with following(signups) as seen:
            time.sleep(10)  # longer than max.poll.interval.ms
            assert seen == []
            schema_registry.start()
            signups.produce(payload)
            until = time.monotonic() + 60
            while sum(seen) < 101 and time.monotonic() < until:
                time.sleep(0.2)
    finally:
        if schema_registry.has_ended():
            schema_registry.start()
    assert [(body and json.loads(body)["usr"], error) for body, error in signups.landed()] == [("u1", None)] * 101
    said = capsys.readouterr().out
    assert said.count("landing waits for the schema registry") == 1
    assert said.count("the schema registry answers again") == 1
