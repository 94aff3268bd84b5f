"""Odd values are read alike by DuckDB and by GoogleSQL, so that no message is accepted on one engine only.

The two libraries disagree about many; the macros of `dbt_project/macros/engine` settle what may occur. What is left
stands here by name, seen to differ.
"""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from dbt_project.exactness.message import Message
from specification import Settings
from tools import ROOT
from tools.googlesql.engine import GoogleSQL
from tools.warehouses.bigquery import BigQueryProject
from tools.warehouses.in_process import Project

pytestmark = [pytest.mark.bigquery, pytest.mark.timeout(1800)]

TIMES = (
    """
2026-01-05|2026-1-5|2026-01-05T10|2026-01-05T10:00|2026-01-05T10:00Z|2026-01-05T10:00+05:30|2026-01-05 10:00 UTC
2026-01-05 9:05|2026-1-5 1:2:3|2026-01-05T10:00:00|2026-01-05T10:00:00Z|2026-01-05t10:00:00z|2026-01-05 10:00:00 UTC
2026-01-05 10:00:00UTC|2026-01-05T10:00:00+00|2026-01-05T10:00:00+0530|2026-01-05T10:00:00 +05:30
2026-01-05 10:00:00-8|2026-01-05T10:00-03|2026-01-05T10:00:00+14:00|2026-01-05T10:00:00.1|2026-01-05T10:00:00,5
2026-01-05T10:00:00.1234567|2026-01-05T10:00:00.123456789Z|2026-01-05T10:00:00.9999999Z
2026-01-05T10:00:00.12345678+02:00|2026-01-05T23:59:60Z|2026-01-05T25:00|2026-01-05T10:60|2026-02-30|20260105|2026-01
20260105T100000Z|2026-W02-1|2026-005| 2026-01-05T10:00:00 |2026-01-05T10:00:00Z |2026-01-05T10:00:00 Europe/Madrid
2026-01-05T10:00:00[Europe/Madrid]|01/05/2026|Mon, 05 Jan 2026 10:00:00 GMT|1767607200|now|today|0001-01-01|9999-12-31
2000-01-01T00:00:00|1999-12-31T23:59:59.999999|2026-01-05T10:00:00 EST|2026-01-05T|2026|x
""".strip("\n")
    .replace("\n", "|")
    .split("|")
)
TIMES_THAT_DUCKDB_ALONE_READS = (
    """
2026-01-05  10:00:00|2026/01/05 10:00:00|2026-01-05 10:00:00 utc|2026-01-05T24:00:00|2026-01-05T10:00:00.
2026-01-05T10:00:|2026-01-05T10:00:00+15:00|2026-01-05T10:00:00+05:30:15
""".strip()
    .replace("\n", "|")
    .split("|")
)
AMOUNTS = [
    *("1", "1.5", "-1.5", "+1.5", "1.", "01.5", ".5", "-.5", "1e3", "1E-3", "1,000", "1.99995", "0.00005", "-0.00005"),
    *("0.00004", "99999999999999.9999", "99999999999999.99995", "100000000000000", "1e13", "1e14", "1e400", "1e-400"),
    *(" 1.5 ", "1 5", "NaN", "inf", "-", "0x10", "$5", "1e", "--1", "1" * 40, "1." + "23" * 15),
]
AMOUNTS_THAT_DUCKDB_ALONE_READS = ["1_000"]
EPOCHS = [
    *("1767607200000", "+1767607200000", " 1767607200000", "1.7e12", "1767607200000.0", "0x1", "-1", "1_000"),
    *("-62135596800000", "253402300799000", "9223372036854775807", "9223372036854775808", "00001767607200000"),
]
JSON_VALUES = [
    *("1", "1.50", "1e3", "-0", "12345678901234567890", "123456789012345678901234567890", "1e22", "0.1", "1e-7"),
    *("true", "null", '""', '"null"', '"a\\u0000b"', '"é\\ud83d\\ude00"', '" x "', "9007199254740993"),
    *('[1, 2.5, "é"]', '{"b": 1, "a": 2.0, "n": null}', "{}", "[]", '{"k": "\\/"}'),
]
JSON_VALUES_WRITTEN_OTHERWISE = ["[2.50]", "1e15", '{"k": "\\u2028"}']
BODIES = [
    b"", b" ", b"null", b'"x"', b"[1]", b"{}", b'\xef\xbb\xbf{"click_id": "x"}', b'{"click_id": "x",}',
    b'{"click_id": NaN}', b'{"click_id": "NaN,}"}', b'{"click_id": Infinity}', b'{"click_id": "x"} y',
    b'\x0b{"click_id": "x"}', b'{"click_id": "x"}\x00', b'\x00{"click_id": "x"}', b'\n{"click_id": "x"}\n',
    b'{"click_id": "x", "click_id": "y"}', b'{"click_id": null, "click_id": "y"}', b'{"CLICK_ID": "x"}',
    b'{"click_id": "\xff"}', b'{"click_id": "a\tb"}', b'{"click_id": "\\x"}', b'{"click_id": "\\ud800"}',
    b"{click_id: 1}", b"{'click_id': 1}", b'{"click_id": 1 /* c */}', b'{"click_id": 01}', b'{"click_id": .5}',
    b'{"click_id": "x", "z": ' + b"[" * 200 + b"]" * 200 + b"}",
]  # fmt: skip
BODIES_THAT_DUCKDB_ALONE_READS = [b'{"click_id": 1e400}']
EVENT_PARAMS = [
    "[]", "{}", "null", '"x"', "5", '"[1"', '"{\\"engaged_time\\": 5}"', "[[1]]", "[5, null]",
    '[{"key": "engaged_time", "value": {"int_value": 30}}]',
    '[{"key": "engaged_time", "value": {"double_value": 1.50}}]',
    '[{"key": "engaged_time", "value": null}, {"key": "engaged_time", "value": {"int_value": 3}}]',
    '[{"key": "engaged_time", "value": 5}]', '[5, {"key": "engaged_time", "value": {"int_value": 3}}]',
    '[{"key": "engaged_time", "value": {"string_value": null, "int_value": 3}}]',
    '[{"key": "engaged_time", "value": {"string_value": "", "int_value": 3}}]',
    '[{"key": "test_event", "value": {"string_value": "true"}}]',
    '[{"key": ["engaged_time"], "value": {"int_value": 3}}]',
    '{"engaged_time": null}', '{"engaged_time": {"a": 1}}', '{"engaged_time": [1]}',
    '{"engaged_time": "5", "engaged_time": 6}',
    '{"test_event": true}', '{"test_event": "TRUE"}', '{"test_event": 1}', '{"test_event": 1.0}',
    '{"engagement_time_msec": "1500.5", "engaged_time": ""}', '{"engagement_time_msec": 0.05}',
    '{"engagement_time_msec": 0.4999}', '{"engaged_time": 999999999999.00005}', '{"engaged_time": -0.00001}',
]  # fmt: skip

PUBLISHED_AT = datetime(2026, 1, 6)
CLICK = {"click_id": "c", "user_id": "u", "product_id": "p", "datetime_occured": "2026-01-05"}
PAGE_VIEW = {"session_id": "s", "page_title": "t", "ga_event_dtm": "2026-01-05"}
MODELS = ("stg_clicks", "stg_page_views", "stg_users")


def alike() -> Iterator[Message]:
    yield from (click(datetime_occured=time) for time in TIMES)
    yield from (click(price=amount) for amount in AMOUNTS)
    for epoch in EPOCHS:
        yield message("page_views", {"session_id": "s", "page_title": "t", "event_timestamp_ms": epoch})
        yield message("page_views", {"session_id": "s", "page_title": "t", "event_timestamp": epoch})
    yield from (message("clicks", with_raw(CLICK, "user_id", value)) for value in JSON_VALUES)
    yield from (message("clicks", body) for body in BODIES)
    yield from (message("page_views", with_raw(PAGE_VIEW, "event_params", params)) for params in EVENT_PARAMS)
    for key in (None, b"", b"\xff", b"5", "é".encode()):
        yield Message(0, 0, "users", f"tombstone {key!r}", PUBLISHED_AT, None, key)


def unlike() -> Iterator[Message]:
    yield from (click(datetime_occured=time) for time in TIMES_THAT_DUCKDB_ALONE_READS)
    yield from (click(price=amount) for amount in AMOUNTS_THAT_DUCKDB_ALONE_READS)
    yield from (message("clicks", with_raw(CLICK, "user_id", value)) for value in JSON_VALUES_WRITTEN_OTHERWISE)
    yield from (message("clicks", body) for body in BODIES_THAT_DUCKDB_ALONE_READS)


def click(**values: str) -> Message:
    return message("clicks", {**CLICK, **values})


def message(stream: str, body: dict[str, Any] | bytes) -> Message:
    payload = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
    return Message(0, 0, stream, repr(payload), PUBLISHED_AT, payload)


def with_raw(body: dict[str, Any], name: str, value: str) -> bytes:
    """The body with a value that is already JSON."""
    others = {field: inner for field, inner in body.items() if field != name}
    return f'{json.dumps(others)[:-1]}, "{name}": {value}}}'.encode()


def test_odd_values_are_read_alike(google_sql: GoogleSQL, tmp_path: Path) -> None:
    settings = Settings()
    (tmp_path / "bigquery").mkdir()
    duckdb = Project(ROOT / "dbt_project", tmp_path).warehouse(tmp_path, settings)
    bigquery = BigQueryProject(ROOT / "dbt_project", tmp_path / "bigquery", google_sql).warehouse(tmp_path, settings)
    differing = {message.message_id for message in unlike()}
    for warehouse in (duckdb, bigquery):
        warehouse.land([*alike(), *unlike()], datetime(2026, 1, 6, 1))
        warehouse.build("--select", *MODELS)
    found: dict[str, Any] = {}
    for model in MODELS:
        ours, theirs = (rows_by_message(warehouse.rows(f"staging.{model}")) for warehouse in (bigquery, duckdb))
        assert ours.keys() == theirs.keys()
        for message_id, row in theirs.items():
            if row["reject_reason"] and row["reject_reason"] == ours[message_id]["reject_reason"]:
                continue  # both rejected: the other columns are not used
            unequal = {
                name: (value, ours[message_id][name]) for name, value in row.items() if value != ours[message_id][name]
            }
            if unequal:
                found[message_id] = unequal
    assert {message_id: columns for message_id, columns in found.items() if message_id not in differing} == {}
    assert found.keys() == differing


def rows_by_message(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["message_id"]: row for row in rows}
