"""The decoder of Avro: what fastavro wrote comes out as JSON, whatever the schema."""

import json
from datetime import UTC, date, datetime, time
from decimal import Decimal
from io import BytesIO
from typing import Any
from uuid import UUID

import fastavro
import orjson
import pytest

from ingest.formats import JSON_OPTIONS
from ingest.formats.avro import avro_decoder

AT = datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)
MILLIS = {"type": "long", "logicalType": "timestamp-millis"}
MICROS = {"type": "long", "logicalType": "timestamp-micros"}


def record(*fields: tuple[str, Any], name: str = "shop.Event", **more: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": [{"name": one, "type": kind} for one, kind in fields], **more}


def encoded(schema: Any, value: Any) -> bytes:
    stream = BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(schema), value)
    return stream.getvalue()


def decoded(schema: Any, body: bytes, newest: Any = None, **references: Any) -> Any:
    texts = {name.replace("_", "."): json.dumps(one) for name, one in references.items()}
    read = avro_decoder(json.dumps(schema), texts, newest and json.dumps(newest))
    stream = BytesIO(body)
    value = read(stream)
    assert stream.tell() == len(body)
    return json.loads(orjson.dumps(value, None, JSON_OPTIONS))


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("null", None, None),
        ("boolean", True, True),
        ("int", -(2**31), -(2**31)),
        ("long", 2**63 - 1, 2**63 - 1),
        ("double", 0.1, 0.1),
        ("string", "naïve\0", "naïve\0"),
        ("bytes", b"\xff\0", "/wA="),
        ({"type": "fixed", "name": "F", "size": 2}, b"\xff\0", "/wA="),
        ({"type": "enum", "name": "E", "symbols": ["view", "cart"]}, "cart", "cart"),
        (MILLIS, AT, "2026-01-02T03:04:05.678000Z"),
        (MICROS, AT.replace(year=1, microsecond=1), "0001-01-02T03:04:05.000001Z"),
        (MICROS, AT.replace(microsecond=0), "2026-01-02T03:04:05Z"),
        ({"type": "long", "logicalType": "local-timestamp-micros"}, datetime(2026, 1, 2, 3), "2026-01-02T03:00:00"),
        ({"type": "int", "logicalType": "date"}, date(1969, 12, 31), "1969-12-31"),
        ({"type": "int", "logicalType": "time-millis"}, time(1, 2, 3, 4000), "01:02:03.004000"),
        ({"type": "string", "logicalType": "uuid"}, UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        ({"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}, Decimal("31.90"), "31.90"),
        ({"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 4}, Decimal("-0.0500"), "-0.0500"),
        ({"type": "bytes", "logicalType": "decimal", "precision": 9}, Decimal(0), "0"),
        (
            {"type": "bytes", "logicalType": "decimal", "precision": 40, "scale": 20},
            Decimal("12345678901234567890.12345678901234567890"),
            "12345678901234567890.12345678901234567890",
        ),
        (
            {"type": "fixed", "name": "F", "size": 8, "logicalType": "decimal", "precision": 18, "scale": 2},
            Decimal("-1.00"),
            "-1.00",
        ),
        ({"type": "array", "items": MILLIS}, [AT], ["2026-01-02T03:04:05.678000Z"]),
        ({"type": "array", "items": "int"}, [1, 2], [1, 2]),
        ({"type": "map", "values": "bytes"}, {"a": b"\xff"}, {"a": "/w=="}),
        (["null", MILLIS], None, None),
        (["null", MILLIS], AT, "2026-01-02T03:04:05.678000Z"),
        (["null", "string", "bytes", "long", "boolean"], b"\xff", "/w=="),
        (["null", "string", "bytes", "long", "boolean"], True, True),
    ],
    ids=str,
)
def test_a_value_is_json_as_a_field_and_by_itself(kind: Any, value: Any, expected: Any) -> None:
    in_record = record(("before", "string"), ("it", kind), ("after", "string"))
    body = encoded(in_record, {"before": "b", "it": value, "after": "a"})
    assert decoded(in_record, body) == {"before": "b", "it": expected, "after": "a"}
    assert decoded(kind, encoded(kind, value)) == expected


def test_a_time_that_no_calendar_has_stays_a_number() -> None:
    schema = record(("at", MICROS), ("on", {"type": "int", "logicalType": "date"}))
    body = encoded(record(("at", "long"), ("on", "int")), {"at": 2**62, "on": 2**31 - 1})
    assert decoded(schema, body) == {"at": 2**62, "on": 2**31 - 1}


def test_records_are_told_apart_in_a_union_and_found_by_name() -> None:
    inner, other = record(("at", MILLIS), name="shop.Inner"), record(("raw", "bytes"), name="shop.Other")
    schema = record(
        ("one", ["null", inner]),
        ("two", ["shop.Inner", other]),
        ("three", ["null", "Other", "Inner"]),
        ("four", "Inner"),
    )
    at = {"at": AT}
    body = encoded(schema, {"one": at, "two": {"raw": b"\xff"}, "three": at, "four": at})
    expected = {"at": "2026-01-02T03:04:05.678000Z"}
    assert decoded(schema, body) == {"one": expected, "two": {"raw": "/w=="}, "three": expected, "four": expected}
    body = encoded(schema, {"one": None, "two": at, "three": {"raw": b"\xff"}, "four": at})
    assert decoded(schema, body) == {"one": None, "two": expected, "three": {"raw": "/w=="}, "four": expected}


def test_a_schema_refers_to_others() -> None:
    money = record(
        ("value", {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}), name="shop.Money"
    )
    item = record(("price", "shop.Money"), name="shop.Item")
    whole = record(("items", {"type": "array", "items": "shop.Item"}), ("total", ["null", "shop.Money"]))
    flat = record(
        ("items", {"type": "array", "items": record(("price", money), name="shop.Item")}), ("total", ["null", "Money"])
    )
    price = {"value": Decimal("1.50")}
    body = encoded(flat, {"items": [{"price": price}], "total": price})
    assert decoded(whole, body, shop_Money=money, shop_Item=item) == {
        "items": [{"price": {"value": "1.50"}}],
        "total": {"value": "1.50"},
    }
    # several events in one topic: a union of references
    assert decoded(["shop.Item", "shop.Money"], b"\x02\x02\x05", shop_Money=money, shop_Item=item) == {"value": "0.05"}


def test_a_message_keeps_its_fields_and_takes_the_newest_names() -> None:
    """Added, removed, renamed by alias, promoted."""
    first = record(("usr", "string"), ("quantity", "int"), ("gone", MILLIS))
    newest = {
        **record(("user_id", "string"), ("quantity", "long"), ("country", "string")),
        "fields": [
            {"name": "user_id", "type": "string", "aliases": ["customer", "usr"]},
            {"name": "quantity", "type": "long"},
            {"name": "country", "type": "string", "default": "XX"},
        ],
    }
    body = encoded(first, {"usr": "u1", "quantity": 7, "gone": AT})
    assert decoded(first, body, newest) == {"user_id": "u1", "quantity": 7, "gone": "2026-01-02T03:04:05.678000Z"}
    assert decoded(first, body) == {"usr": "u1", "quantity": 7, "gone": "2026-01-02T03:04:05.678000Z"}
    body = encoded(newest, {"user_id": "u2", "quantity": 2**40, "country": "ES"})
    assert decoded(newest, body, newest) == {"user_id": "u2", "quantity": 2**40, "country": "ES"}
    # an alias that the message itself has a field of the newest name beside
    both = record(("usr", "string"), ("user_id", "string"))
    assert decoded(both, encoded(both, {"usr": "a", "user_id": "b"}), newest) == {"usr": "a", "user_id": "b"}


def test_fields_of_records_within_are_renamed_too() -> None:
    first = record(("buyer", record(("nm", "string"), name="shop.Person")), ("seller", "shop.Person"))
    person = {"type": "record", "name": "shop.Human", "aliases": ["Person"], "fields": []}
    person["fields"] = [{"name": "full_name", "type": "string", "aliases": ["nm"]}]
    newest = record(("buyer", person), ("seller", "shop.Human"), name="shop.EventOfNow")
    body = encoded(first, {"buyer": {"nm": "a"}, "seller": {"nm": "b"}})
    assert decoded(first, body, newest) == {"buyer": {"full_name": "a"}, "seller": {"full_name": "b"}}


def test_a_type_within_itself_is_read_however_deep() -> None:
    schema = record(("at", MILLIS), ("next", ["null", "shop.Event"]))
    body = encoded(schema, {"at": AT, "next": {"at": AT, "next": None}})
    at = "2026-01-02T03:04:05.678000Z"
    assert decoded(schema, body) == {"at": at, "next": {"at": at, "next": None}}
    read = avro_decoder(json.dumps(schema), {})
    with pytest.raises(RecursionError):
        read(BytesIO(b"\0\x02" * 1_000_000 + b"\0\0"))
    endless = avro_decoder(json.dumps(record(("next", "shop.Event"))), {})
    with pytest.raises(RecursionError):
        endless(BytesIO(b""))


@pytest.mark.parametrize("body", [b"", b"\x06ab", b"\x01ab", b"\xff" * 20, b"\x02a\x09", b"\x02\xff\0"])
def test_bytes_of_another_schema_are_an_error(body: bytes) -> None:
    read = avro_decoder(json.dumps(record(("name", "string"), ("other", ["null", "string"]))), {})
    with pytest.raises(Exception):  # noqa: B017  of many kinds
        read(BytesIO(body))


@pytest.mark.parametrize("schema", ["{", '{"type": "record"}', '{"type": "array", "items": "shop.Missing"}', "[]x"])
def test_a_text_that_is_no_schema_is_an_error(schema: str) -> None:
    with pytest.raises(Exception):  # noqa: B017  of many kinds
        avro_decoder(schema, {})
