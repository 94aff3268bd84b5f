"""The Avro decoder: values written by fastavro are decoded to JSON, for all kinds of schemas."""

import itertools
import json
import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from io import BytesIO
from typing import Any
from uuid import UUID

import fastavro
import pytest

from ingest.formats.avro import avro_decoder
from ingest.formats.compiled_avro import compile_decoder

AT = datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)
MILLIS = {"type": "long", "logicalType": "timestamp-millis"}
MICROS = {"type": "long", "logicalType": "timestamp-micros"}


def record(*fields: tuple[str, Any], name: str = "shop.Event", **more: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": [{"name": one, "type": kind} for one, kind in fields], **more}


def encoded(schema: Any, value: Any) -> bytes:
    stream = BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(schema), value)
    return stream.getvalue()


HEADER = b"\0\0\0\0\1"


def decoded(schema: Any, body: bytes, newest: Any = None, **references: Any) -> Any:
    """Return the JSON of a message; both decoders must agree."""
    texts = {name.replace("_", "."): json.dumps(one) for name, one in references.items()}
    newest = newest and json.dumps(newest)
    results = {
        avro_decoder(json.dumps(schema), texts, newest, is_compiled=is_compiled)(HEADER + body)
        for is_compiled in (True, False)
    }
    [result] = results
    return json.loads(result)


def is_compiled(schema: Any) -> bool:
    return compile_decoder(fastavro.parse_schema(schema), lambda _: None) is not None


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
def test_a_value_is_json_as_a_field_and_as_a_whole_message(kind: Any, value: Any, expected: Any) -> None:
    in_record = record(("before", "string"), ("it", kind), ("after", "string"))
    body = encoded(in_record, {"before": "b", "it": value, "after": "a"})
    assert decoded(in_record, body) == {"before": "b", "it": expected, "after": "a"}
    assert decoded(kind, encoded(kind, value)) == expected


def test_a_time_outside_of_years_1_to_9999_stays_a_number() -> None:
    schema = record(("at", MICROS), ("on", {"type": "int", "logicalType": "date"}))
    body = encoded(record(("at", "long"), ("on", "int")), {"at": 2**62, "on": 2**31 - 1})
    assert decoded(schema, body) == {"at": 2**62, "on": 2**31 - 1}


def test_a_union_of_records_is_decoded_by_record_name() -> None:
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


def test_a_schema_can_refer_to_others() -> None:
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


def test_a_message_keeps_its_fields_under_their_newest_names() -> None:
    """Fields are added, removed, renamed by an alias, and change their type."""
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
    # the message already has a field with the newest name
    both = record(("usr", "string"), ("user_id", "string"))
    assert decoded(both, encoded(both, {"usr": "a", "user_id": "b"}), newest) == {"usr": "a", "user_id": "b"}


def test_fields_of_nested_records_are_renamed_too() -> None:
    first = record(("buyer", record(("nm", "string"), name="shop.Person")), ("seller", "shop.Person"))
    person = {"type": "record", "name": "shop.Human", "aliases": ["Person"], "fields": []}
    person["fields"] = [{"name": "full_name", "type": "string", "aliases": ["nm"]}]
    newest = record(("buyer", person), ("seller", "shop.Human"), name="shop.EventOfNow")
    body = encoded(first, {"buyer": {"nm": "a"}, "seller": {"nm": "b"}})
    assert decoded(first, body, newest) == {"buyer": {"full_name": "a"}, "seller": {"full_name": "b"}}


def test_a_recursive_type_is_decoded_unless_nested_too_deep() -> None:
    schema = record(("at", MILLIS), ("next", ["null", "shop.Event"]))
    body = encoded(schema, {"at": AT, "next": {"at": AT, "next": None}})
    at = "2026-01-02T03:04:05.678000Z"
    assert decoded(schema, body) == {"at": at, "next": {"at": at, "next": None}}
    read = avro_decoder(json.dumps(schema))
    with pytest.raises(RecursionError):
        read(HEADER + b"\0\x02" * 1_000_000 + b"\0\0")
    endless = avro_decoder(json.dumps(record(("next", "shop.Event"))))
    with pytest.raises(RecursionError):
        endless(HEADER)


EMPTY: dict[str, tuple[Any, str]] = {
    "null": ("null", "null"),
    "no fields": (record(name="Empty"), "{}"),
    "nothing in it": (
        record(("a", "null"), ("b", record(("c", {"type": "fixed", "name": "F", "size": 0}), name="In")), name="Out"),
        '{"a":null,"b":{"c":""}}',
    ),
}


@pytest.mark.parametrize(("kind", "item"), EMPTY.values(), ids=EMPTY)
def test_a_message_with_more_items_than_bytes_is_rejected(kind: Any, item: str) -> None:
    """Ten bytes can announce 2**60 items that take no bytes."""
    array: Any = {"type": "array", "items": kind}
    in_union: Any = {"type": "map", "values": ["null", array, record(("x", "int"), name="R"), record(name="S")]}
    for schema, before, after in (
        (array, "", ""),
        (record(("it", array), name="Whole"), "", ""),
        (record(("it", in_union), name="Whole"), "020261" + "02", "00"),
        (record(("it", {"type": "array", "items": array}), ("one", "int"), name="Whole"), "04" + "00", "00" + "02"),
    ):
        read = avro_decoder(json.dumps(schema))
        text = read(HEADER + bytes.fromhex(before + "04" + "00" + after)).decode()
        assert f"[{item},{item}]" in text
        assert read(HEADER + bytes.fromhex(before + "03" + "00" + "00" + after)).decode() == text
        number = str(encoded("long", 20_000).hex())
        long_blocks = str(encoded("long", 100).hex()) * 200
        negative = str(encoded("long", -20_000).hex()) + "00"
        for blocks in (number, long_blocks, negative):
            with pytest.raises(ValueError, match="more array items than bytes"):
                read(HEADER + bytes.fromhex(before + blocks + "00" + after))


def test_a_long_array_is_decoded() -> None:
    nulls: Any = {"type": "array", "items": "null"}
    schema = record(("many", {"type": "array", "items": "int"}), ("few", nulls))
    value = {"many": [*range(100_000)], "few": [None] * 100}
    assert decoded(schema, encoded(schema, value)) == value


@pytest.mark.parametrize("is_compiled", [True, False])
def test_a_message_of_another_schema_is_an_error(is_compiled: bool) -> None:
    kinds = ["null", "boolean", "string", "bytes", "int", "long", "double", "float"]
    kinds += [{"type": "enum", "name": "E", "symbols": ["A", "B"]}, {"type": "fixed", "name": "F", "size": 3}]
    schema = record(*((f"f{number}", ["null", kind]) for number, kind in enumerate(kinds[1:])))
    values: list[Any] = [True, "é", b"\xff", -7, 2**63 - 1, 0.5, 1.5, "B", b"abc"]
    body = encoded(schema, {f"f{number}": value for number, value in enumerate(values)})
    read = avro_decoder(json.dumps(schema), is_compiled=is_compiled)
    assert json.loads(read(HEADER + body))["f1"] == "é"
    for wrong in (*(body[:end] for end in range(len(body))), body + b"\0"):
        with pytest.raises(Exception):  # noqa: B017  of many kinds
            read(HEADER + wrong)
    read = avro_decoder(json.dumps(record(("name", "string"), ("kind", kinds[8]))), is_compiled=is_compiled)
    assert read(HEADER + b"\x02a\0") == b'{"name":"a","kind":"A"}'
    for wrong in (b"\x01a\0", b"\x02\xff\0", b"\x02a\x04", b"\xff" * 20):
        with pytest.raises(Exception):  # noqa: B017  of many kinds
            read(HEADER + wrong)


FLAT = [
    "null", "boolean", "int", "long", "double", "float", "string", "bytes", MILLIS, MICROS,
    {"type": "int", "logicalType": "date"},
    {"type": "bytes", "logicalType": "decimal", "precision": 30, "scale": 3},
]  # fmt: skip


def drawn_schema(draw: random.Random, names: Iterator[int], depth: int = 0) -> Any:
    choice = draw.random()
    if choice < 0.5 or depth > 3:
        return draw.choice(FLAT)
    if choice < 0.7:
        inner = drawn_schema(draw, names, depth + 1)
        if isinstance(inner, list) or inner == "null":
            return inner
        return ["null", inner] if draw.random() < 0.5 else [inner, "null"]
    if choice < 0.75:
        return {"type": "enum", "name": f"E{next(names)}", "symbols": ["A", "B", "C"]}
    if choice < 0.8:
        return {"type": "fixed", "name": f"F{next(names)}", "size": draw.randrange(4)}
    fields = [(f"f{number}", drawn_schema(draw, names, depth + 1)) for number in range(draw.randrange(6))]
    return record(*fields, name=f"R{next(names)}")


def drawn_value(draw: random.Random, schema: Any) -> Any:
    if isinstance(schema, list):
        return drawn_value(draw, draw.choice(schema))
    kind = schema if isinstance(schema, str) else schema["type"]
    if kind == "record":
        return {field["name"]: drawn_value(draw, field["type"]) for field in schema["fields"]}
    bits = draw.choice([1, 7, 8, 14, 31])
    number = draw.getrandbits(bits) * draw.choice([1, -1])
    text = "".join(draw.choices('aé"\\\n\x01\u2028😀\x7f/', k=draw.choice([0, 3, 70])))
    logical = {} if isinstance(schema, str) else schema
    special: dict[str, Any] = {
        "date": date(2020, 1, 1) + timedelta(number % 10_000),
        "decimal": Decimal(number).scaleb(-3),
        "timestamp-millis": AT + timedelta(seconds=number),
        "timestamp-micros": AT + timedelta(microseconds=number),
    }
    values: dict[str, Any] = {
        "null": None, "boolean": draw.random() < 0.5, "int": number, "long": number * 2 ** draw.choice([0, 32]),
        "double": number / 3 * 10.0 ** draw.choice([0, 20, -20]), "float": number / 4, "string": text,
        "bytes": text.encode(), "enum": draw.choice("ABC"), "fixed": draw.randbytes(logical.get("size", 0)),
    }  # fmt: skip
    return special.get(logical.get("logicalType", ""), values[kind])


def test_compiled_decoders_give_the_same_results_as_fastavro() -> None:
    draw = random.Random(1)
    for number in range(400):
        names = itertools.count()
        schema = record(*((f"f{n}", drawn_schema(draw, names)) for n in range(draw.randrange(1, 8))))
        assert is_compiled(schema), schema
        for _ in range(3):
            body = encoded(schema, drawn_value(draw, schema))
            decoded(schema, body)
            # both decoders also treat invalid bytes alike
            spoiled = bytearray(body)
            if body:
                spoiled[draw.randrange(len(body))] = draw.randrange(256)
            results = []
            for compile_it in (True, False):
                try:
                    read = avro_decoder(json.dumps(schema), is_compiled=compile_it)
                    results.append(read(HEADER + bytes(spoiled)))
                except Exception:  # noqa: BLE001  of many kinds
                    results.append(b"broken")
            # fastavro accepts a negative branch or symbol, and counts it from the last one
            assert results[0] in (b"broken", results[1]), (number, schema, bytes(spoiled))


def test_only_simple_schemas_are_compiled() -> None:
    assert is_compiled(record(("a", record(("b", ["null", "string"]), name="R")), ("c", ["R", "null"])))
    for kind in ({"type": "array", "items": "int"}, {"type": "map", "values": "int"}, ["int", "string"], "shop.Event"):
        assert not is_compiled(record(("a", ["null", kind] if isinstance(kind, str) else kind)))
    schema: Any = record(("a", "int"), ("b", "int"), name="R")
    for number in range(20):
        schema = record(("a", schema), ("b", schema["name"]), name=f"R{number}")
    assert not is_compiled(schema)  # two million fields


@pytest.mark.parametrize("schema", ["{", '{"type": "record"}', '{"type": "array", "items": "shop.Missing"}', "[]x"])
def test_an_invalid_schema_is_an_error(schema: str) -> None:
    with pytest.raises(Exception):  # noqa: B017  of many kinds
        avro_decoder(schema)
