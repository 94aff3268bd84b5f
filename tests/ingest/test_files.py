"""Files of events: every body byte for byte, and what cannot be read is known before it is used."""

import gzip
import io
import json
import os
import random
import threading
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import structlog

from common.errors import UserError
from ingest.files import EventFile, find_files, json_text
from ingest.files.json_text import NotJsonError, json_documents, json_layout
from ingest.files.parquet import parquet_bodies

EXACT = [
    b'{"id": 123456789012345678901234567890, "f": 1.50, "e": 1E400}',
    b'{"a": 1, "a": 2}',
    b'{ "s": "\\u00e9\\ud83d\\ude00 \xc3\xa9 \xf0\x9f\x98\x80 \\" ] } , [ { \\\\" , "n":[[],{},[1, [2]]] }',
    b'{\n  "pretty": [\n    1,\n    2\n  ]\r\n}',
    b'{"lone": "\\ud800"}',
    b'"text"',
    b"null",
    b"-12.5e-3",
    b"[1, 2]",
    b"123456789012345678901234567890",
]
"""JSON that a parser which hands out values would not give back as it was."""


def event_file(tmp_path: Path, content: bytes, name: str = "a.json") -> EventFile:
    path = tmp_path / name
    path.write_bytes(content)
    return EventFile(name, path)


# -- JSON -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [1, 2, 3, 7, 16, 1_000_000])
def test_elements_of_an_array_keep_every_byte(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    """Whatever place a block of the file ends at."""
    monkeypatch.setattr(json_text, "BLOCK_BYTES", block)
    text = b" \n[" + b" ,\n\t".join(EXACT) + b"\r\n]\n "
    assert list(json_documents(io.BytesIO(text), in_array=True)) == EXACT
    assert list(json_documents(io.BytesIO(b" [ ] "), in_array=True)) == []


@pytest.mark.parametrize("block", [1, 2, 3, 7, 16, 1_000_000])
def test_documents_one_after_the_other_keep_every_byte(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(json_text, "BLOCK_BYTES", block)
    assert list(json_documents(io.BytesIO(b"\n" + b"\n".join(EXACT) + b"\n"))) == EXACT
    objects = [text for text in EXACT if text.startswith(b"{")]
    assert list(json_documents(io.BytesIO(b"".join(objects)))) == objects


def test_any_values_are_split_as_they_were_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    seed = random.randrange(10**9)
    draw = random.Random(seed)

    def value(depth: int) -> Any:
        kind = draw.randrange(7 if depth else 5)
        if kind == 5:
            return [value(depth - 1) for _ in range(draw.randrange(4))]
        if kind == 6:
            return {f"{draw.random()}": value(depth - 1) for _ in range(draw.randrange(4))}
        return [draw.randrange(-(10**30), 10**30), draw.random(), None, True, 'é"\\[{,\u2028\n' * draw.randrange(3)][
            kind
        ]

    for _ in range(50):
        monkeypatch.setattr(json_text, "BLOCK_BYTES", draw.randrange(1, 40))
        indent = draw.choice([None, 1])
        texts = [json.dumps(value(3), indent=indent, ensure_ascii=draw.random() < 0.5).encode() for _ in range(8)]
        assert list(json_documents(io.BytesIO(b"[" + b",".join(texts) + b"]"), in_array=True)) == texts, seed
        assert list(json_documents(io.BytesIO(b"\n".join(texts)))) == texts, seed


@pytest.mark.parametrize("block", [1, 16, 1_000_000])
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b'[{"a": 1},\n{"a": NaN}]', "line 2: NaN is not JSON, in the document that begins here"),
        (b"[-Infinity]", "line 1: -Infinity"),
        (b'[{"a": 1},\n{"a": 2},\n]', "line 3: not JSON: Expecting value"),
        (b'[{"a": 1}\n{"a": 2}]', "line 2: expected , or ]"),
        (b'[{"a": 1},\n\n{"a": 2', "line 3: not JSON"),
        (b'[{"a": 1},\n{"a": 2}', "line 2: the array does not end: was the file cut"),
        (b'[{"a": 1}\n]\n{"a": 2}', "line 3: text after the end of the array"),
        (b'[{"a": "x\ny"}]', "line 1: not JSON: Invalid control character"),
        (b'[{"a": "x}]', "line 1: not JSON: Unterminated string"),
        (b"[{'a': 1}]", "line 1: not JSON"),
        (b"[01]", "line 1: expected , or ]"),
        (b'[{"a": 1},\n{"a": "\xff"}]', "line 2: not UTF-8"),
        (b"[1, " + b"[" * 100_000, "line 1: nested too deeply"),
    ],
)
def test_what_is_not_json_is_an_error_with_its_line(
    monkeypatch: pytest.MonkeyPatch, block: int, text: bytes, reason: str
) -> None:
    monkeypatch.setattr(json_text, "BLOCK_BYTES", block)
    with pytest.raises(NotJsonError) as raised:
        list(json_documents(io.BytesIO(text), in_array=True))
    assert str(raised.value).startswith(reason)


def test_a_broken_place_is_told_without_reading_the_rest() -> None:
    class Endless(io.RawIOBase):
        read_bytes = 0

        def read(self, size: int = -1) -> bytes:
            self.read_bytes += size
            assert self.read_bytes < 20_000_000
            return b'{"a": 1]' + b" " * (size - 8)

    with pytest.raises(NotJsonError, match="line 1: not JSON"):
        next(json_documents(Endless()))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "layout"),
    [
        (b"", "lines"),
        (b'{"a": 1}', "lines"),
        (b'\n\n{"a": 1}\n\n{"a": 2}\n', "lines"),
        (b'{"a": 1}\r\n{"cut"\r\n', "lines"),
        (b'{"cut"\n{"a": 1}\n', "lines"),
        (b'{"cut": \n{"a": 1}\n{"a": 2}\n', "lines"),
        (b'{"a": "' + b"x" * 3_000_000 + b'"}\n{"a": 2}\n', "lines"),
        (b"[1]\n[2]\n", "lines"),
        (b"no json\n", "lines"),
        (b'{\n"a": 1\n}\n', "documents"),
        (b'{\n"a": 1\n}\n{\n"a": 2\n}\n', "documents"),
        (b'{"a": 1}{"a": 2}\n{"a": 3}', "documents"),
        (b'{"a": "' + b"x" * 3_000_000 + b'"}{"a": 2}\n', "documents"),
        (b"[]", "array"),
        (b'[{"a": 1}]\n\n', "array"),
        (b' \n [\n{"a": 1},\n{"a": 2}]', "array"),
        (b'[{"a": 1,\n"price": NaN}\n]', "array"),
        (b'[{"a": "' + b"x" * 3_000_000 + b'"}, {"a": 2}]', "array"),
    ],
)
def test_the_beginning_tells_how_the_bodies_stand(tmp_path: Path, text: bytes, layout: str) -> None:
    assert json_layout(event_file(tmp_path, text)) == layout


@pytest.mark.parametrize("text", [b'{\n"a": NaN\n}\n', b'{"a": 1},\n{"a": 2},\n', b'{\n"a": 1,\n"b":', b'{"cut'])
def test_what_is_neither_is_an_error(tmp_path: Path, text: bytes) -> None:
    file = event_file(tmp_path, text)
    with pytest.raises(NotJsonError, match="line "):
        assert json_layout(file) == "documents"
        with file.open() as opened:
            list(json_documents(opened))


# -- encodings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compress", [lambda content: content, gzip.compress])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be-mark"])
def test_text_is_read_as_utf8(tmp_path: Path, compress: Any, encoding: str) -> None:
    text = 'é\u2028\x0b,"😀\r\n\n' * 100_000
    content = b"\xfe\xff" + text.encode("utf-16-be") if encoding == "utf-16-be-mark" else text.encode(encoding)
    file = event_file(tmp_path, compress(content))
    assert file.is_plain == (compress is not gzip.compress and encoding.startswith("utf-8"))
    with file.open() as opened:
        assert opened.read() == text.encode()
    with file.open() as opened:
        assert list(opened) == io.BytesIO(text.encode()).readlines()


@pytest.mark.parametrize("content", [b"", b"a", b"ab", b"\xef\xbb", b"\x1f"])
def test_short_files_are_read_whole(tmp_path: Path, content: bytes) -> None:
    with event_file(tmp_path, content).open() as opened:
        assert opened.read() == content


# -- which files ------------------------------------------------------------------------------------------------------


def names(found: list[EventFile], tmp_path: Path) -> list[str]:
    return [str(Path(file.name).relative_to(tmp_path)) for file in found]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.csv", "a.ndjson.gz", "day=2/part.parquet", "day=1/x.JSON", ".hidden.csv", "_SUCCESS", "c.tsv.GZ"):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "data"


def test_a_folder_stands_for_all_below_it_by_name(folder: Path) -> None:
    everything = ["a.ndjson.gz", "b.csv", "c.tsv.GZ", "day=1/x.JSON", "day=2/part.parquet"]
    with structlog.testing.capture_logs() as logs:
        assert names(find_files([str(folder)]), folder) == everything
    assert logs == []


def test_globs_and_names_are_taken_in_the_order_given_and_each_once(folder: Path) -> None:
    found = find_files([str(folder / "c.tsv.GZ"), str(folder / "[ab].*"), str(folder / "day*"), str(folder / "b.csv")])
    assert names(found, folder) == ["c.tsv.GZ", "a.ndjson.gz", "b.csv", "day=1/x.JSON", "day=2/part.parquet"]
    assert names(find_files([str(folder / "**" / "*.parquet")]), folder) == ["day=2/part.parquet"]
    (folder / "x[1].csv").touch()
    assert names(find_files([str(folder / "x[1].csv")]), folder) == ["x[1].csv"]


def test_what_is_left_out_of_a_folder_is_said(folder: Path) -> None:
    (folder / "notes.txt").touch()
    with structlog.testing.capture_logs() as logs:
        assert len(find_files([str(folder / "*")])) == 5
    assert [(log["log_level"], log["files"]) for log in logs] == [("warning", [str(folder / "notes.txt")])]


def test_a_folder_without_events_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match=r"contains no file of a known format: \.csv"):
        find_files([str(tmp_path)])


@pytest.mark.parametrize(("content", "kind"), [(b"a,b\n", "csv"), (b' [{"a": 1}]', "json"), (b"PAR1...", "parquet")])
def test_a_pipe_is_copied_and_known_by_its_beginning(tmp_path: Path, content: bytes, kind: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(content,))
    writer.start()
    [file] = find_files([str(tmp_path / "pipe")])
    writer.join()
    assert (file.name, file.format, file.path.read_bytes()) == (str(tmp_path / "pipe"), kind, content)


# -- Parquet ----------------------------------------------------------------------------------------------------------


def test_rows_of_parquet_are_exact(tmp_path: Path) -> None:
    table = pa.table(
        {
            "u64": pa.array([2**64 - 1, None], pa.uint64()),
            "d": pa.array([123456789012345678901234567890, 1], pa.decimal128(38, 0)),
            "price": pa.array(["1.10", "-0.01"]).cast(pa.decimal128(10, 2)),
            "f": [0.1, float("nan")],
            "at": pa.array([1_569_888_000_000_001, 0], pa.timestamp("us")),
            "zoned": pa.array([1_569_888_000_000, 0], pa.timestamp("ms", "Asia/Kolkata")),
            "bytes": [b"caf\xc3\xa9", b""],
            "it's": pa.array([{"a": [1, None]}, None]),
        }
    )
    path = tmp_path / "x[1]*.parquet"  # a glob for DuckDB, were it not escaped
    pq.write_table(table, path)
    first, second = [body.decode() for body in parquet_bodies(path, table.column_names)]
    assert first == (
        '{"u64":18446744073709551615,"d":123456789012345678901234567890,"price":1.1,"f":0.1,'
        '"at":"2019-10-01 00:00:00.000001","zoned":"2019-10-01 00:00:00+00","bytes":"café","it\'s":{"a":[1,null]}}'
    )
    assert orjson.loads(second) == {
        **{"u64": None, "d": 1, "price": -0.01, "f": None, "at": "1970-01-01 00:00:00"},
        **{"zoned": "1970-01-01 00:00:00+00", "bytes": "", "it's": None},
    }


def test_parquet_rows_come_in_order(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": range(50_000)}), tmp_path / "a.parquet", row_group_size=1_000)
    bodies = parquet_bodies(tmp_path / "a.parquet", ["number"])
    assert [orjson.loads(body)["number"] for body in bodies] == list(range(50_000))
