"""The Protobuf decoder: a schema is the text of a .proto file, and a message begins with the path of its type in it."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ingest.formats.protobuf import protobuf_decoder

EVENT = """
syntax = "proto3";
package shop.v1;
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
import "google/type/money.proto";
import "confluent/meta.proto";
import "confluent/type/decimal.proto";
import "shop/person.proto";
message Other { int32 number = 1; message Inner { message Innermost { string name = 1; } } }
message Event {
  string user_id = 1;
  int64 quantity = 2;
  bool isGift = 3;
  google.protobuf.Timestamp occurred_at = 4;
  shop.Person person = 5;
  map<string, int32> counts = 6;
  enum Kind { KIND_UNKNOWN = 0; VIEW = 1; }
  Kind kind = 7;
  optional int32 rank = 8;
  bytes raw = 9;
  google.protobuf.StringValue note = 10;
  oneof place { string city = 11; int32 zip = 12; }
}
"""
REFERENCES = {
    "shop/person.proto": 'syntax = "proto2"; package shop; import "name.proto"; message Person {optional Name n = 1;}',
    "name.proto": 'syntax = "proto2"; package shop; message Name { required string text = 1; }',
}


def decoded(body: bytes) -> Any:
    return json.loads(protobuf_decoder(EVENT, REFERENCES)(b"\0\0\0\0\1" + body))


def test_a_message_is_json_with_the_names_of_the_schema() -> None:
    body = (
        b"\x0a\x02u1\x10\x80\x80\x80\x80\x80\x80\x80\x80\x40\x18\x01\x22\x04\x08\x01\x10\x00\x2a\x05\x0a\x03\x0a\x01n"
    )
    body += b"\x32\x05\x0a\x01a\x10\x07\x38\x01\x40\x00\x4a\x01\xff\x52\x00\x60\x05"
    assert decoded(b"\x02\x02" + body) == {
        "user_id": "u1",
        "quantity": str(2**62),
        "isGift": True,
        "occurred_at": "1970-01-01T00:00:01Z",
        "person": {"n": {"text": "n"}},
        "counts": {"a": 7},
        "kind": "VIEW",
        "rank": 0,
        "raw": "/w==",
        "note": "",
        "zip": 5,
    }


def test_a_field_without_presence_has_its_default() -> None:
    defaults = {"user_id": "", "quantity": "0", "isGift": False, "counts": {}, "kind": "KIND_UNKNOWN", "raw": ""}
    assert decoded(b"\x02\x02") == defaults


def test_a_message_begins_with_the_path_of_its_type() -> None:
    assert decoded(b"\x00\x08\x07") == {"number": 7}  # 0 is short for the path [0]
    assert decoded(b"\x02\x00\x08\x07") == {"number": 7}
    assert decoded(b"\x06\x00\x00\x00\x0a\x01x") == {"name": "x"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x02",
        b"\x02\x04",
        b"\x02\x01",
        b"\x04\x02\x04",
        b"\xff\xff\xff\xff\xff\xff",
        b"\x02\x02\x0a\x05u",
        b"\xfe\x03",
    ],
)
def test_invalid_bytes_are_an_error(body: bytes) -> None:
    with pytest.raises(Exception):  # noqa: B017  of many kinds
        decoded(body)


@pytest.mark.parametrize(
    ("schema", "references"),
    [
        ("message", {}),
        (EVENT, {}),
        (EVENT, {"../person.proto": ""}),
        (EVENT, {"/tmp/person.proto": ""}),  # noqa: S108  never written
    ],
)
def test_a_schema_that_does_not_compile_is_an_error(schema: str, references: dict[str, str]) -> None:
    with pytest.raises(ValueError):  # with the compiler's message
        protobuf_decoder(schema, references)


def test_a_reference_is_never_run_as_python(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    code = f"open({str(ran)!r}, 'w')"
    names = ["grpc_tools/__init__.py", "grpc_tools/protoc.py", "sitecustomize.py", "os.py"]
    with suppress(ValueError):
        protobuf_decoder('syntax = "proto3"; message M {}', dict.fromkeys(names, code))
    assert not ran.exists()
