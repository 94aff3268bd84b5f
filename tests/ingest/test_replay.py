"""Replay: files that fit the stream are published row by row, those that do not are rejected before the first."""

import gzip
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import structlog

from common.errors import UserError
from common.settings import Settings
from common.streams import STREAMS, Stream
from ingest import replay as replay_module
from ingest.files import csv_rows
from ingest.message import Message, value_at
from ingest.producers import MessageTooLargeError
from ingest.replay import Replay, pacing

from .conftest import PROJECT, Start

NAMES = "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session"
HEADER = f"{NAMES}\n".encode()
ROW = b"2019-10-01 00:00:00 UTC,view,44600062,2103807459595387724,,shiseido,35.79,541312140,72d76fde\n"
BODY = orjson.dumps(dict(zip(NAMES.split(","), ROW.decode().strip().split(","), strict=True)))
ECOM, CLICKS, USERS, PAGE_VIEWS = (STREAMS[name] for name in ("ecom_events", "clicks", "users", "page_views"))
MIDNIGHT = 1_569_888_000_000_000
"""2019-10-01 in microseconds."""


class Collector:
    """A producer that keeps what it is given."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.batches: list[int] = []
        self.flushed = 0
        """How many messages there were when it was last flushed."""

    def __enter__(self) -> "Collector":
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def flush(self) -> None:
        self.flushed = len(self.messages)

    def produce(self, stream: Stream, messages: Iterable[Message]) -> int:
        batch = list(messages)
        self.messages += batch
        self.batches.append(len(batch))
        return len(batch)


def replayed(names: list[str], stream: Stream = ECOM, **options: Any) -> list[Message]:
    """What is published of the files."""
    collector = Collector()
    count = Replay(Settings(_env_file=None), names, stream, **options).publish(collector)
    assert count == len(collector.messages) == collector.flushed
    return collector.messages


def published(path: Path, content: bytes, stream: Stream = ECOM, **options: Any) -> list[Message]:
    path.write_bytes(content)
    return replayed([str(path)], stream, **options)


def rejection(names: list[str], stream: Stream = ECOM, **options: Any) -> str:
    """The one line that says why nothing is published."""
    collector = Collector()
    with pytest.raises(UserError) as raised:
        Replay(Settings(_env_file=None), names, stream, **options).publish(collector)
    assert collector.messages == []
    assert len(str(raised.value)) < 1_500
    return " ".join(str(raised.value).split())


@pytest.fixture
def csv_file(tmp_path: Path) -> Path:
    return tmp_path / "events.csv"


# -- CSV --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_row_becomes_an_object_of_strings(csv_file: Path, line_end: bytes, mark: bytes) -> None:
    [message] = published(csv_file, mark + (HEADER + ROW).replace(b"\n", line_end))
    assert orjson.loads(message.payload or b"") == {
        "event_time": "2019-10-01 00:00:00 UTC",
        "event_type": "view",
        "product_id": "44600062",
        "category_id": "2103807459595387724",
        "category_code": "",
        "brand": "shiseido",
        "price": "35.79",
        "user_id": "541312140",
        "user_session": "72d76fde",
    }
    assert message.key == b"541312140"
    assert message.published_at == MIDNIGHT


def test_a_row_without_key_or_time_has_neither(csv_file: Path) -> None:
    [message] = published(csv_file, HEADER + ROW.replace(b"541312140", b"").replace(b"2019-10-01", b"some day"))
    assert message.key is None
    assert message.published_at is None


def test_optional_columns_may_lack_and_streams_of_pubsub_have_no_key(csv_file: Path) -> None:
    [message] = published(csv_file, b"click_id,user_id,product_id,datetime_occured\nc1,7,p,\n", CLICKS)
    assert orjson.loads(message.payload or b"") == {
        **{"click_id": "c1", "user_id": "7", "product_id": "p", "datetime_occured": ""}
    }
    assert (message.key, message.published_at) == (None, None)


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(ROW[:40], id="cut"),
        pytest.param(ROW.strip() + b",more", id="too many fields"),
        pytest.param(b'2019,"view,1,2,3,4,5,6,7', id="unbalanced quote"),
        pytest.param(b'2019,"view"x,1,2,3,4,5,6,7', id="text after a quote"),
        pytest.param(b'2019,"view",1', id="quoted and too few fields"),
        pytest.param(ROW.strip().replace(b"shiseido", b"shi\xffeido"), id="no UTF-8"),
        pytest.param(ROW.strip().replace(b"shiseido", b'"shi\xffeido"'), id="no UTF-8, quoted"),
        pytest.param(b'2019,"shi\xffeido', id="no UTF-8, unbalanced"),
    ],
)
def test_a_line_that_is_no_row_is_published_as_its_bytes(csv_file: Path, line: bytes) -> None:
    messages = published(csv_file, HEADER + ROW + line + b"\n" + ROW + b"\n" + ROW)
    assert [message.payload == line.rstrip() for message in messages] == [False, True, False, False]
    assert messages[1] == Message(line.rstrip())
    assert messages[0] == messages[2] == messages[3]


def test_a_cut_last_line_is_published_as_its_bytes(csv_file: Path) -> None:
    messages = published(csv_file, HEADER + ROW + b'2019,"vi')
    assert [message.payload for message in messages[1:]] == [b'2019,"vi']


def test_quoted_fields_hold_commas_quotes_and_newlines(csv_file: Path) -> None:
    quoted = ROW.replace(b"shiseido", b'"a ""big"", \r\n\n, brand"')
    messages = published(csv_file, HEADER + quoted + ROW)
    assert [orjson.loads(message.payload or b"")["brand"] for message in messages] == [
        'a "big", \r\n\n, brand',
        "shiseido",
    ]


def test_a_quote_within_a_bare_field_is_text(csv_file: Path) -> None:
    messages = published(csv_file, HEADER + ROW.replace(b"shiseido", b'5" tube') + ROW)
    assert [orjson.loads(message.payload or b"")["brand"] for message in messages] == ['5" tube', "shiseido"]


def test_two_stray_quotes_do_not_eat_the_rows_between(csv_file: Path) -> None:
    stray = b'2019,"view\n'
    messages = published(csv_file, HEADER + stray + ROW * 3 + stray + ROW * 2)
    raw = [message.payload == stray.strip() for message in messages]
    assert raw == [True, False, False, False, True, False, False]


def test_a_quote_that_never_closes_costs_its_own_line_only(csv_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_rows, "LINES_PER_RECORD", 5)
    messages = published(csv_file, HEADER + b'2019,"view\n' + ROW * 20)
    assert [message.key for message in messages] == [None, *[b"541312140"] * 20]
    # that it does close further on than a record may run makes no difference
    messages = published(csv_file, HEADER + ROW.replace(b"shiseido", b'"a' + b"\n" * 6 + b'b"') + ROW)
    assert (messages[0].payload or b"").endswith(b',"a')


def test_empty_lines_are_skipped(csv_file: Path) -> None:
    assert len(published(csv_file, HEADER + b"\n" + ROW + b"\r\n  \n" + ROW)) == 2


@pytest.mark.parametrize("content", [b"", b"\n1,2\n", b"a,\xff\n1,2\n", b"sep=;\n"])
def test_a_csv_needs_a_header(csv_file: Path, content: bytes) -> None:
    csv_file.write_bytes(content)
    assert "events.csv: the first line" in rejection([str(csv_file)])
    assert "events.csv: the first line" in rejection([str(csv_file)], force=True)


def test_a_long_quoted_field_is_read(csv_file: Path) -> None:
    [message] = published(csv_file, HEADER + ROW.replace(b"shiseido", b'"' + b"x" * 200_000 + b'"'))
    assert len(orjson.loads(message.payload or b"")["brand"]) == 200_000


# -- which CSV --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("first", ["", "sep={}\r\n"])
def test_delimiter_and_encoding_are_detected(csv_file: Path, delimiter: str, encoding: str, first: str) -> None:
    row = ROW.decode().replace(",", delimiter).replace("shiseido", f'"L\'Oréal{delimiter}😀, x"')
    text = first.format(delimiter) + NAMES.replace(",", delimiter) + "\n" + row * 2
    messages = published(csv_file, text.encode(encoding))
    assert [message.key for message in messages] == [b"541312140"] * 2
    expected = orjson.loads(BODY) | {"brand": f"L'Oréal{delimiter}😀, x"}
    assert [orjson.loads(message.payload or b"") for message in messages] == [expected] * 2


@pytest.mark.parametrize(
    ("content", "found"),
    [
        pytest.param(b"a;b;c\n1;2;3\n", r"columns a, b, c, separated by ';'", id="semicolons and other names"),
        pytest.param(
            HEADER.upper() + ROW, r"columns EVENT_TIME, .* --map event_time=EVENT_TIME --map", id="upper case"
        ),
        pytest.param(
            ROW * 3, r"columns 2019-10-01 00:00:00 UTC, view, .* without a header row needs one", id="no header"
        ),
        pytest.param(HEADER.replace(b"product_id", b"product") + ROW, r"--map product_id=product", id="one other name"),
        pytest.param(HEADER.replace(b"event_time", b"time") + ROW, r"no column event_time", id="no time"),
        pytest.param(b"<!DOCTYPE html>\n<html>\n", r"columns <!DOCTYPE html>", id="HTML"),
        pytest.param(b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", r"git-lfs", id="Git LFS"),
        pytest.param(
            NAMES.encode("utf-16-le"), r"columns e v e n t .* If it is UTF-16, save it with", id="UTF-16 without a mark"
        ),
        pytest.param(b"PK\x03\x04\x1b[31m" + b"x" * 5000, r"columns PK \[31mx+…, separated", id="binary"),
    ],
)
def test_a_csv_that_does_not_fit_is_rejected(csv_file: Path, content: bytes, found: str) -> None:
    csv_file.write_bytes(content)
    text = rejection([str(csv_file)])
    assert text.startswith(f"{csv_file} does not match stream ecom_events: no column ")
    assert text.endswith("--force produces the file as it is; nothing was produced")
    assert re.search(found, text)
    assert text.isprintable()
    assert f"Fields of the stream: {NAMES.replace(',', ', ')}." in text


def test_what_does_not_fit_is_published_by_force(csv_file: Path) -> None:
    messages = published(csv_file, b"a;b\n1;2\n3\n", force=True)
    assert [message.payload for message in messages] == [b'{"a":"1","b":"2"}', b"3"]


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("column", [b"price", b"extra", b""])
def test_a_column_that_stands_twice_is_rejected(csv_file: Path, column: bytes, force: bool) -> None:
    names = b",".join([HEADER.strip(), column, column]) if column != b"price" else HEADER.strip() + b",price"
    csv_file.write_bytes(names + b"\n" + ROW.strip() + b",1,2\n")
    assert f"events.csv has 2 columns named {column.decode()!r}" in rejection([str(csv_file)], force=force)


def test_rows_that_are_separated_otherwise_than_the_header_are_rejected(csv_file: Path) -> None:
    csv_file.write_bytes(HEADER + ROW.replace(b",", b";") * 3)
    assert "none of the first rows has 9 columns separated by ',', as the header has" in rejection([str(csv_file)])
    assert len(published(csv_file, HEADER)) == 0
    assert len(published(csv_file, HEADER + ROW.replace(b",", b";"), force=True)) == 1


def test_columns_that_may_be_misspelt_are_said(csv_file: Path) -> None:
    with structlog.testing.capture_logs() as logs:
        published(csv_file, HEADER.replace(b"brand", b"marque") + ROW)
    assert [(log["log_level"], log["unknown_columns"], log["missing_fields"]) for log in logs] == [
        ("warning", ["marque"], ["brand"])
    ]
    with structlog.testing.capture_logs() as logs:
        published(csv_file, HEADER.strip() + b",extra\n" + ROW.strip() + b",1\n")
        published(csv_file, b"event_time,event_type,product_id\n1,view,2\n")
    assert logs == []


def test_columns_are_renamed(csv_file: Path) -> None:
    theirs = "when;what;item;brand;Kunde = Nr"
    maps = ["event_time=when", "event_type=what", "product_id=item", "user_id=Kunde = Nr"]
    row = "2019-10-01;view;1;acme;7"
    [message] = published(csv_file, f"{theirs}\n{row}\n".encode(), renames=maps)
    assert orjson.loads(message.payload or b"") == {
        **{"event_time": "2019-10-01", "event_type": "view", "product_id": "1", "brand": "acme", "user_id": "7"}
    }
    assert (message.key, message.published_at) == (b"7", MIDNIGHT)


@pytest.mark.parametrize(
    ("renames", "reason"),
    [
        (["brand"], "--map brand: expected ours=theirs"),
        (["brand="], "--map brand=: expected ours=theirs"),
        (["colour=brand"], "ecom_events has no field 'colour'; its fields are event_time"),
        (["brand=nothing"], "events.csv has no column 'nothing', but event_time"),
        (["brand=price", "user_id=price"], "column 'price' cannot be both brand and user_id"),
        (["brand=price"], "events.csv has 2 columns named 'brand'"),
    ],
)
def test_a_renaming_that_cannot_be_is_rejected(csv_file: Path, renames: list[str], reason: str) -> None:
    csv_file.write_bytes(HEADER + ROW)
    assert reason in rejection([str(csv_file)], renames=renames)


# -- JSON -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.ndjson", "a.jsonl", "a.json", "A.JSON"])
def test_lines_of_json_are_published_as_they_are(tmp_path: Path, name: str) -> None:
    lines = [
        b'{ "user_id":7,  "event_time": "2019-10-01T00:00:00.5Z", "event_type": "view", "product_id": 1}',
        b'{"cut": ',
        b"[1]",
        b"\xff\xfe",
        b' {"user_id":"","event_time":5}  ',
    ]
    messages = published(tmp_path / name, b"\r\n\n".join(lines))
    assert [message.payload for message in messages] == lines
    assert [message.key for message in messages] == [b"7", None, None, None, None]
    assert [message.published_at for message in messages] == [MIDNIGHT + 500_000, None, None, None, 5_000_000]


EXPORT = b'{\n "event_timestamp": "1611798022695757", "user_pseudo_id": "a", "event_params": [],\n "items": []\n}'


@pytest.mark.parametrize("separator", [b"\n", b"", b"\r\n\r\n"])
def test_documents_over_several_lines_are_a_body_each(tmp_path: Path, separator: bytes) -> None:
    message = Message(EXPORT, published_at=1_611_798_022_695_757)
    assert published(tmp_path / "export.json", b"\n" + EXPORT + b"\n", PAGE_VIEWS) == [message]
    assert published(tmp_path / "export.json", separator.join([EXPORT] * 3), PAGE_VIEWS) == [message] * 3


VIEW = b'{"session_id": "s", "timestamp_ms": 1569888000001, "page_title": "%s"}'


def test_an_array_is_a_body_per_element_byte_for_byte(tmp_path: Path) -> None:
    bodies = [
        VIEW % b"A",
        VIEW.replace(b'"s"', b"123456789012345678901234567890") % b"1.50",
        VIEW.replace(b'"s"', b'"s", "session_id":\n"t"') % b"\\u00e9",
    ]
    messages = published(tmp_path / "views.json", b"[" + b",\n ".join(bodies) + b"]\n", PAGE_VIEWS)
    assert messages == [Message(body, published_at=MIDNIGHT + 1_000) for body in bodies]


@pytest.mark.parametrize("line_end", [b"\n", b""])
def test_an_array_may_be_of_any_size(tmp_path: Path, line_end: bytes) -> None:
    body = line_end.join(
        [b'{"user_id": 7,', b'"updated_at": "2019-10-01",', b'"first_name": "%s"}' % (b"x" * 1_000_000)]
    )
    content = b"[" + line_end + (line_end + b",").join([body] * 66) + line_end + b"]"
    assert published(tmp_path / "users.json", content, USERS) == [Message(body, b"7", {}, MIDNIGHT)] * 66


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'[{"user_id": 1,\n"updated_at": NaN}\n]', "line 1: NaN"),
        (b'[%s,\n{"user_id": 1' % BODY, "line 2: not JSON"),
        (b"[%s,\n%s\n" % (BODY, BODY), "line 3: the array does not end: was the file cut?"),
        (b"[%s,\n]" % BODY, "line 2: not JSON"),
        (b"%s\n%s}\n" % (EXPORT, EXPORT), "line 8: not JSON"),
    ],
)
def test_json_that_cannot_be_read_is_rejected(tmp_path: Path, content: bytes, reason: str, force: bool) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    stream = PAGE_VIEWS if content.startswith(EXPORT) else ECOM
    assert f"{path}: {reason}" in rejection([str(path)], stream, force=force)


def test_a_json_file_whose_first_line_is_broken_is_still_read_by_lines(tmp_path: Path) -> None:
    messages = published(tmp_path / "a.json", b'{"cut"\n%s\n' % BODY)
    assert messages == [Message(b'{"cut"'), Message(BODY, b"541312140", {}, MIDNIGHT)]


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        (
            "a.json",
            b"<!DOCTYPE html>\n<html>\n",
            "no JSON object with fields in its first rows, but '<!DOCTYPE html>",
        ),
        ("a.ndjson", b"version https://git-lfs.github.com/spec/v1\noid\n", "rows, but 'version https://git-lfs"),
        (
            "a.jsonl",
            b'{"userId": 1, "time": 2}\n',
            "no field event_time, event_type, product_id. Found fields userId, time",
        ),
        ("a.ndjson", b'{"event_time": 1, "event_type": "view"}\n', "no field product_id"),
        ("a.json", b'{"data": [%s,\n%s]}' % (BODY, BODY), "Found fields data"),
        ("a.json", b"1\n2\n", "rows, but '1'; nothing was published (--force"),
    ],
)
def test_bodies_that_do_not_fit_are_rejected(tmp_path: Path, name: str, content: bytes, found: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert found in rejection([str(path)])
    assert len(published(path, content, force=True)) >= 1


def test_a_binary_file_is_one_short_line(tmp_path: Path) -> None:
    path = tmp_path / "bin.ndjson"
    path.write_bytes(bytes(range(256)).replace(b"\n", b"") * 20)
    text = rejection([str(path)])
    assert text.isprintable()
    assert len(text) < len(str(path)) + 250


def test_fields_may_be_spread_over_several_bodies(tmp_path: Path) -> None:
    lines = [b'{"event_time": "", "product_id": ""}', b'{"event_type": ""}']
    assert [one.payload for one in published(tmp_path / "a.ndjson", b"\n".join(lines))] == lines


def test_lines_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.ndjson").write_bytes(BODY + b"\n[1]\n{\n" + BODY)
    (tmp_path / "b.csv").write_bytes(HEADER + ROW + b"1,2\n")
    replay = Replay(Settings(_env_file=None), [str(tmp_path)], ECOM)
    for _ in range(2):
        assert (replay.publish(Collector()), replay.unreadable) == (6, 3)


def test_columns_of_a_list_become_a_list(tmp_path: Path) -> None:
    names = "event_time,items[0].sku,items[0].n,items[2].sku,grid[0][1],items.x,huge[1000].y,[0],a[x].y"
    values = "2019-10-01,a,1,b,c,d,e,f,g"
    list_ = {"items": [{"sku": "a", "n": "1"}, None, {"sku": "b"}], "grid": [[None, "c"]], "items.x": "d"}
    flat = {"huge[1000].y": "e", "[0]": "f", "a[x]": {"y": "g"}}
    [message] = published(tmp_path / "a.csv", f"{names}\n{values}\n".encode(), force=True)
    body = orjson.loads(message.payload or b"")
    assert body == {"event_time": "2019-10-01", **list_, **flat}
    assert value_at(body, "items[2].sku") == "b"
    table = pa.table({name: [value] for name, value in zip(names.split(","), values.split(","), strict=True)})
    pq.write_table(table, tmp_path / "a.parquet")
    [message] = replayed([str(tmp_path / "a.parquet")], force=True)
    assert orjson.loads(message.payload or b"") == body


def test_columns_of_json_are_not_renamed(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(BODY)
    assert "a.json is JSON" in rejection([str(tmp_path / "a.json")], renames=["brand=price"])


def test_a_key_beyond_64_bits_is_exact(tmp_path: Path) -> None:
    for content in (
        b'{"user_id": 123456789012345678901234567890, "updated_at": 1}',
        b'{"user_id": 1.5, "updated_at": 1}',
    ):
        keys = [message.key for message in published(tmp_path / "a.json", content, USERS)]
        assert keys == [b"123456789012345678901234567890" if b"123" in content else None]


@pytest.mark.parametrize(
    ("stream", "body", "instant"),
    [
        ("page_views", b'{"ga_event_dtm": "2019-10-01T00:00:01Z", "event_timestamp_ms": 1}', MIDNIGHT + 1_000_000),
        ("page_views", b'{"ga_event_dtm": "", "event_timestamp_ms": 1569888000001}', MIDNIGHT + 1_000),
        ("page_views", b'{"timestamp_ms": 1569888000001}', MIDNIGHT + 1_000),
        ("page_views", b'{"event_timestamp": 1569888000000001}', MIDNIGHT + 1),
        ("web_events", b'{"timestamp": "2019-10-01T00:00:00.000001"}', MIDNIGHT + 1),
        ("clicks", b'{"datetime_occured": "2019-10-01 00:00:00.123"}', MIDNIGHT + 123_000),
        ("checkouts", b'{"datetime_occured": "2019-10-01 02:00:00+02:00"}', MIDNIGHT),
        ("post_events", b'{"created_at": "2019-10-01 00:00:00 UTC"}', MIDNIGHT),
        ("users", b'{"updated_at": "2019-10-01T00:00:00Z", "created_at": "2018-10-01T00:00:00Z"}', MIDNIGHT),
        ("ecom_events", b'{"event_time": 1569888000}', MIDNIGHT),
        ("ecom_events", b'{"event_time": true}', None),
        ("ecom_events", b'{"event_time": "0001-01-01 00:00:00"}', None),
        ("ecom_events", b'{"event_time": 999999999999999999}', None),
        ("ecom_events", b'{"event_time": null, "timestamp": 1569888000}', None),
    ],
)
def test_published_at_is_the_time_of_the_event(tmp_path: Path, stream: str, body: bytes, instant: int | None) -> None:
    [message] = published(tmp_path / "a.ndjson", body, STREAMS[stream], force=True)
    assert message.published_at == instant


# -- gzip, Parquet, several files, standard input ---------------------------------------------------------------------

FILES = {
    "a.csv": HEADER + ROW,
    "a.tsv": (HEADER + ROW).replace(b",", b"\t"),
    "a.ndjson": BODY,
    "a.jsonl": BODY,
    "a.json": b"[" + BODY + b"]",
}


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("name", FILES)
def test_each_format_may_be_compressed(tmp_path: Path, name: str, suffix: str) -> None:
    content = gzip.compress(FILES[name]) if suffix else FILES[name]
    expected = [Message(BODY, b"541312140", {}, MIDNIGHT)]
    assert published(tmp_path / f"{name}{suffix}", content) == expected
    assert published(tmp_path / name, content) == expected


@pytest.mark.parametrize("name", ["a.csv.gz", "a.ndjson.gz", "a.json.gz"])
def test_a_cut_or_damaged_download_is_rejected(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    array = b"[" + b",".join([BODY] * 50_000) + b"]"
    whole = {"a.csv.gz": HEADER + ROW * 50_000, "a.ndjson.gz": (BODY + b"\n") * 50_000, "a.json.gz": array}[name]
    compressed = gzip.compress(whole)
    for content in (compressed[:-100], compressed[:-8] + b"12345678"):
        path.write_bytes(content)
        assert re.match(rf"{path} cannot be (read|decompressed): ", rejection([str(path)], force=True))


def parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_a_row_of_parquet_is_a_body(tmp_path: Path) -> None:
    path = parquet(
        tmp_path / "a.parquet",
        event_time=pa.array([MIDNIGHT, None], pa.timestamp("us")),
        event_type=["view", "cart"],
        item=[1, 2],
        price=pa.array(["1.10", None]).cast(pa.decimal128(9, 2)),
        user_id=pa.array([2**64 - 1, None], pa.uint64()),
    )
    first, second = replayed([str(path)], renames=["product_id=item"])
    assert first == Message(
        b'{"event_time":"2019-10-01 00:00:00","event_type":"view","product_id":1,"price":1.1,'
        b'"user_id":18446744073709551615}',
        b"18446744073709551615",
        {},
        MIDNIGHT,
    )
    assert (orjson.loads(second.payload or b"")["user_id"], second.key, second.published_at) == (None, None, None)


def test_parquet_that_does_not_fit_is_rejected(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", event_time=[1], eventType=["view"], x=[1])
    text = rejection([str(path)])
    assert "no column event_type, product_id. Found columns event_time, eventType, x." in text
    assert "--map event_type=eventType" in text
    assert len(replayed([str(path)], force=True)) == 1
    path.write_bytes(b"PAR1 no more")
    assert f"{path}: not a Parquet file" in rejection([str(path)], force=True)
    pq.write_table(pa.Table.from_arrays([pa.array([1])] * 2, names=["a", "a"]), path)
    assert "has 2 columns named 'a'" in rejection([str(path)], force=True)
    content = parquet(path, event_time=[1] * 9_999, event_type=["view"] * 9_999, product_id=range(9_999)).read_bytes()
    path.write_bytes(content[:4] + b"\xff" * 5_000 + content[5_004:])
    assert str(path) in rejection([str(path)])


def test_compressed_parquet_is_read(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", event_time=["2019-10-01"], event_type=["view"], product_id=[1])
    compressed = tmp_path / "b.parquet.gz"
    compressed.write_bytes(gzip.compress(path.read_bytes()))
    assert replayed([str(compressed)]) == replayed([str(path)])
    assert len(replayed([str(path), str(compressed)])) == 2


# -- contracts with paths ---------------------------------------------------------------------------------------------

SIGNUPS = Stream.model_validate(
    {
        "name": "signups",
        "description": "Sign-ups.",
        "transport": "kafka",
        "key": "user.id",
        "kind": "event",
        "event_type": "signup",
        "time": ["at"],
        "fields": [
            {"name": "user_id", "path": "user.id", "aliases": ["uid"], "required": True, "description": "Who."},
            {"name": "signed_at", "path": "at", "aliases": ["meta.when"], "required": True, "description": "When."},
            {"name": "ref", "path": "refs[1].name", "description": "From where."},
        ],
    }
)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("a", 1),
        ("b.c", 2),
        ("b", {"c": 2, "d": [3, {"e": [[4]]}]}),
        ("b.d[0]", 3),
        ("b.d[1].e[0][0]", 4),
        ("x y.$z", 5),
        ("b.d[2]", None),
        ("b.d.e", None),
        ("b[0]", None),
        ("a.c", None),
        ("a[0]", None),
        ("B.c", None),
        ("nothing.c", None),
    ],
)
def test_a_path_leads_through_objects_and_lists(path: str, value: Any) -> None:
    assert value_at({"a": 1, "b": {"c": 2, "d": [3, {"e": [[4]]}]}, "x y": {"$z": 5}}, path) == value


def with_time(**options: str) -> Stream:
    """SIGNUPS with a time of this unit or format."""
    user, time, ref = SIGNUPS.fields
    typed = time.model_copy(update={"type": "timestamp", **options})
    return SIGNUPS.model_copy(update={"fields": (user, typed, ref)})


@pytest.mark.parametrize(
    ("body", "key"),
    [
        ({"user": {"id": 7}, "at": "2019-10-01"}, b"7"),
        ({"uid": "u", "meta": {"when": "2019-10-01"}}, b"u"),
        ({"user": {"id": 2**64}, "at": "2019-10-01"}, str(2**64).encode()),
        ({"user": {"id": None}, "uid": 8, "at": "2019-10-01"}, b"8"),
    ],
)
def test_the_key_and_the_time_are_found_inside_objects(tmp_path: Path, body: dict[str, Any], key: bytes) -> None:
    [message] = published(tmp_path / "a.ndjson", json.dumps(body).encode(), SIGNUPS)
    assert (message.key, message.published_at) == (key, MIDNIGHT)


def test_a_required_field_may_be_inside_an_object_or_have_another_name(tmp_path: Path) -> None:
    (tmp_path / "a.ndjson").write_bytes(b'{"user": 7, "at": "2019-10-01"}')
    assert "a.ndjson does not match stream signups: no field user.id." in rejection([str(tmp_path)], SIGNUPS)
    (tmp_path / "a.ndjson").write_bytes(b'{"user": {"ID": 7}, "meta": {"when": 1}}')
    assert "no field user.id." in rejection([str(tmp_path)], SIGNUPS)


def test_a_column_with_dots_is_a_field_inside_an_object(csv_file: Path, tmp_path: Path) -> None:
    [message] = published(csv_file, b"user.id,meta.when,meta.x\n7,2019-10-01,y\n", SIGNUPS)
    assert message == Message(b'{"user":{"id":"7"},"meta":{"when":"2019-10-01","x":"y"}}', b"7", {}, MIDNIGHT)
    [message] = published(csv_file, b"Nr,at\n7,2019-10-01\n", SIGNUPS, renames=["user.id=Nr"])
    assert message == Message(b'{"user":{"id":"7"},"at":"2019-10-01"}', b"7", {}, MIDNIGHT)
    path = parquet(tmp_path / "a.parquet", **{"user.id": [7], "at": ["2019-10-01"], "b": [1], "b.c": [2]})
    [message] = replayed([str(path)], SIGNUPS)
    assert message == Message(b'{"user":{"id":7},"at":"2019-10-01","b":1,"b.c":2}', b"7", {}, MIDNIGHT)


@pytest.mark.parametrize(
    ("options", "written"),
    [
        ({"unit": "seconds"}, 1_569_888_000),
        ({"unit": "milliseconds"}, 1_569_888_000_000),
        ({"unit": "microseconds"}, "1569888000000000"),
        ({"format": "%d.%m.%Y"}, "01.10.2019"),
        ({"format": "%Y%m%d"}, "20191001"),
        ({"format": "%Y%m%d%H%M"}, 201910010000),
        ({"format": "%d/%m/%Y %H:%M %z"}, "01/10/2019 02:00 +0200"),
    ],
)
def test_times_are_read_as_the_contract_says(tmp_path: Path, options: dict[str, str], written: Any) -> None:
    line = orjson.dumps({"uid": 1, "at": written})
    [message] = published(tmp_path / "a.ndjson", line, with_time(**options))
    assert message.published_at == MIDNIGHT


def test_a_small_number_is_a_time_where_the_contract_says_so(tmp_path: Path) -> None:
    [message] = published(tmp_path / "a.ndjson", b'{"uid": 1, "at": "5"}', with_time(unit="milliseconds"))
    assert message.published_at == 5_000
    [message] = published(tmp_path / "a.ndjson", b'{"uid": 1, "at": "2019-10-01"}', with_time(unit="milliseconds"))
    assert message.published_at is None


def test_the_key_and_time_of_a_change_of_debezium_are_those_of_its_row(tmp_path: Path) -> None:
    rows = SIGNUPS.model_copy(update={"kind": "entity", "envelope": "debezium"})
    changes = [
        b'{"before": null, "after": {"uid": 7, "at": "2019-10-01"}, "op": "c"}',
        b'{"payload": {"before": {"uid": 8, "at": "2019-10-01"}, "after": null, "op": "d"}}',
    ]
    messages = published(tmp_path / "a.ndjson", b"\n".join(changes), rows)
    assert messages == [
        Message(changes[0], b"7", {}, MIDNIGHT),
        Message(changes[1], b"8", {}, MIDNIGHT),
    ]


def test_files_follow_each_other(tmp_path: Path) -> None:
    for name, seconds in (("b.csv", 2), ("a.csv", 1), ("c.csv", 3)):
        (tmp_path / name).write_bytes(HEADER + ROW.replace(b"00 UTC", b"%02d UTC" % seconds))
    times = [(message.published_at or 0) - MIDNIGHT for message in replayed([str(tmp_path)])]
    assert times == [1_000_000, 2_000_000, 3_000_000]
    given = [str(tmp_path / "c.csv"), str(tmp_path / "[ab].csv")]
    assert [(message.published_at or 0) - MIDNIGHT for message in replayed(given)] == [3_000_000, 1_000_000, 2_000_000]


def test_one_file_that_does_not_fit_keeps_all_from_being_published(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(HEADER + ROW)
    (tmp_path / "b.json").write_bytes(b"[" + BODY)
    assert f"{tmp_path / 'b.json'}: line 1" in rejection([str(tmp_path)])


@pytest.mark.parametrize("compress", [lambda content: content, gzip.compress])
@pytest.mark.parametrize("name", FILES)
def test_standard_input_is_known_by_its_beginning(
    monkeypatch: pytest.MonkeyPatch, name: str, compress: Callable[[bytes], bytes]
) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(compress(FILES[name]))))
    assert replayed(["-"]) == [Message(BODY, b"541312140", {}, MIDNIGHT)]


def test_standard_input_may_be_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = parquet(tmp_path / "a.parquet", event_time=["2019-10-01"], event_type=["view"], product_id=[1])
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(path.read_bytes())))
    assert [message.published_at for message in replayed(["-"])] == [MIDNIGHT]


def test_standard_input_that_does_not_fit_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"a,b\n1,2\n")))
    assert rejection(["-"]).startswith("standard input does not match stream ecom_events: no column")


@pytest.mark.parametrize("name", ["missing.csv", "nothing*.csv", "folder.csv", "events.xlsx"])
def test_what_cannot_be_read_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "events.xlsx").touch()
    assert rejection([str(tmp_path / name)]).startswith(str(tmp_path / name))


# -- what Kafka would not keep or take --------------------------------------------------------------------------------


def test_rows_older_than_kafka_keeps_them_are_counted_and_rejected(
    csv_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    week = timedelta(days=7)
    monkeypatch.setattr(replay_module, "retentions", lambda settings, streams: {streams[0].name: week})
    now = time.time()
    ages = [
        b"2019-10-01",
        b"%d" % (now - week.total_seconds() - 60),
        b"%d" % (now - week.total_seconds() + 60),
        b"no time",
    ]
    csv_file.write_bytes(HEADER + b"".join(ROW.replace(b"2019-10-01 00:00:00 UTC", age) for age in ages))
    text = rejection([str(csv_file)])
    assert text.startswith("2 of 4 rows are older than the retention of Kafka topic ecom_events, 7 days: ")
    assert "retention.ms=-1" in text
    assert len(replayed([str(csv_file)], force=True)) == 4
    csv_file.write_bytes(HEADER + ROW.replace(b"2019-10-01 00:00:00 UTC", ages[2]))
    assert len(replayed([str(csv_file)])) == 1


def test_a_row_that_is_too_large_is_named(tmp_path: Path) -> None:
    class Narrow(Collector):
        def produce(self, stream: Stream, messages: Iterable[Message]) -> int:
            for message in messages:
                if len(message.payload or b"") > 300:
                    raise MessageTooLargeError("301 bytes are too much", message.payload or b"")
                self.messages.append(message)
            return 1

    (tmp_path / "a.csv").write_bytes(HEADER + ROW * 3)
    (tmp_path / "b.csv").write_bytes(HEADER + ROW + b"\n" + ROW.replace(b"shiseido", b"x" * 300) + ROW)
    narrow = Narrow()
    with pytest.raises(UserError) as raised:
        Replay(Settings(_env_file=None), [str(tmp_path)], ECOM).publish(narrow)
    assert str(raised.value) == f"{tmp_path / 'b.csv'}, row 2: 301 bytes are too much"
    assert narrow.flushed == 4


# -- batches, pace, interruptions -------------------------------------------------------------------------------------


def test_large_files_are_published_in_batches_with_progress(csv_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "MESSAGES_PER_PUBLISH", 10)
    csv_file.write_bytes(HEADER + ROW * 25)
    collector, progress = Collector(), list[int]()
    replay = Replay(Settings(_env_file=None), [str(csv_file)], ECOM)
    assert replay.publish(collector, on_progress=progress.append) == 25
    assert collector.batches == progress == [10, 10, 5]


class Clock:
    """Stands in for `time` and for the event that stops: a pause passes at once."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def is_set(self) -> bool:
        return False


def test_speed_paces_by_the_times_of_the_events(csv_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock: Any = Clock()
    monkeypatch.setattr(pacing, "time", clock)
    times = ["00:00:00", "00:00:00", "nothing", "00:01:00", "00:00:30", "00:03:00"]
    rows = [ROW.decode().replace("00:00:00", time).encode() for time in times]
    csv_file.write_bytes(HEADER + b"".join(rows))

    class Timed(Collector):
        def produce(self, stream: Stream, messages: Iterable[Message]) -> int:
            published_at.append(clock.now)
            return super().produce(stream, messages)

    published_at: list[float] = []
    collector = Timed()
    replay = Replay(Settings(_env_file=None), [str(csv_file)], ECOM)
    assert replay.publish(collector, speed=20, stop=clock) == 6
    # 60 s at 20 times real time are 3 s; what lies in the past does not wait
    assert collector.batches == [3, 2, 1]
    assert published_at == [100.0, 103.0, 109.0]
    assert clock.slept == [3.0, 6.0]


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan")])
def test_speed_is_more_than_zero(csv_file: Path, speed: float) -> None:
    csv_file.write_bytes(HEADER)
    with pytest.raises(UserError, match="speed"):
        Replay(Settings(_env_file=None), [str(csv_file)], ECOM).publish(Collector(), speed=speed)


def wait_for_messages(log: Path, count: int) -> None:
    until = time.monotonic() + 60
    while not log.exists() or log.read_bytes().count(b"\n") < count:
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize(("speed", "rows"), [("1000000", 2_000_000), ("1", 2)])
def test_ctrl_c_says_how_many_messages_were_published(
    start: Start, settings: Settings, csv_file: Path, speed: str, rows: int
) -> None:
    """In the midst of publishing, and in the pause of a day before the second row."""
    csv_file.write_bytes(HEADER + ROW + ROW.replace(b"2019-10-01", b"2019-10-02") * (rows - 1))
    log = settings.spool_path / "ecom_events" / "0.ndjson"
    process = start("replay", str(csv_file), "--stream", "ecom_events", "--speed", speed)
    wait_for_messages(log, 1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    lines = log.read_bytes().count(b"\n")
    assert 1 <= lines < rows
    assert out == f"interrupted: produced {lines:,} message{'s' if lines > 1 else ''} to ecom_events\n"
    assert (process.returncode, err) == (130, "")


def test_ctrl_c_before_anything_is_published_says_so(settings: Settings, tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT), "SPOOL_PATH": str(settings.spool_path)}
    process = subprocess.Popen(
        [sys.executable, "-m", "ingest", "replay", "-", "--stream", "ecom_events"],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(HEADER + ROW * 200_000)  # more than a pipe holds: it reads
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, b"interrupted: nothing produced\n", b"")
    assert not settings.spool_path.exists()
