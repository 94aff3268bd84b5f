"""Reading the spool by offset: every byte is preserved, whatever the log contains."""

import re
import shutil
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import pytest
import structlog

import ingest.sources.spool
from common.errors import UserError
from common.settings import Settings
from common.streams import STREAMS
from engines.batch import Batch
from engines.duckdb.sink import DuckDBSink
from ingest.landing import land
from ingest.message import Message
from ingest.producers.spool import SpoolProducer
from ingest.sources.spool import SpoolSource

USERS, POSTS = STREAMS["users"], STREAMS["posts"]
LINE = b'{"key":null,"attributes":{},"published_at":null,"payload":"YQ=="}\n'


def source(settings: Settings, positions: dict[tuple[str, int], int] | None = None, **changes: Any) -> SpoolSource:
    return SpoolSource(settings.model_copy(update=changes), [USERS, POSTS], lambda _: positions or {})


def write(settings: Settings, content: bytes, name: str = "users/0.ndjson") -> Path:
    path = settings.spool_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as log:
        log.write(content)
    return path


def rows_by_query(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Return the rows as DuckDB parses them, which parses any line."""
    with monkeypatch.context() as patched:
        patched.setattr(ingest.sources.spool, "MAX_LINES", 0)
        return rows(source(settings))


def batches(spool: SpoolSource) -> list[Batch]:
    return list(iter(lambda: spool.fetch(0), None))


def rows(spool: SpoolSource) -> list[dict[str, Any]]:
    return [row for batch in batches(spool) for table in batch.tables.values() for row in table.to_pylist()]


# -- bytes ------------------------------------------------------------------------------------------------------------


NEARLY = [
    b'{"key":null,"attributes":{},"published_at":007,"payload":"YQ=="}',
    b'{"key":null,"attributes":{},"published_at":-7,"payload":"YQ=="}',
    b'{"key":null,"attributes":{},"published_at":99999999999999999,"payload":"YQ=="}',
    b'{"key":null,"attributes":{},"published_at":1,"payload":"YQ="}',
    b'{"key":null,"attributes":{},"published_at":1,"payload":"=YQ="}',
    b'{"key":null,"attributes":{},"published_at":1,"payload":"YQ==="}',
    b'{"key":null,"attributes":{},"published_at":1,"payload":"YQ==YQ=="}',
    b'{"key":"Y","attributes":{},"published_at":1,"payload":"YQ=="}',
    b'{"key":null,"attributes":{"a":"1",},"published_at":1,"payload":"YQ=="}',
    b'{"key":null,"attributes":{"a":"1""b":"2"},"published_at":1,"payload":"YQ=="}',
    b'{"key":null,"attributes":{"a":1},"published_at":1,"payload":"YQ=="}',
    rb'{"key":null,"attributes":{"a":"\u0041"},"published_at":1,"payload":"YQ=="}',
    '{"key":null,"attributes":{"a":"é"},"published_at":1,"payload":"YQ=="}'.encode(),
    b'{"key":null,"attributes":{"a":"\xff"},"published_at":1,"payload":"YQ=="}',
    b'{"key":null,"attributes":{},"published_at":1,"payload":"YQ=="} ',
    b'{"key":null,"attributes":{},"published_at":1,"payload":"YQ=="}x',
    b'{"log_id":"x","key":null,"attributes":{},"published_at":1,"payload":"YQ=="}',
    b"",
]


@pytest.mark.parametrize("line", NEARLY)
def test_a_few_lines_are_parsed_as_many_are(line: bytes, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    messages = [
        Message(b"body", b"key", {"a": "1", "b": ""}, 1_600_000_000_123_456),
        Message(b"", b"", {}, 0),
        Message(None, None, {"a": "'{}[]:,"}, 9_999_999_999_999_999),
    ]
    SpoolProducer(settings).produce(USERS, messages)
    spool = source(settings)
    few = rows(spool)
    write(settings, line + b"\n")
    few += rows(spool)
    write(settings, LINE.replace(b":null,", b":1,"))
    few += rows(spool)
    assert len(few) == 5
    assert few == rows_by_query(settings, monkeypatch)


def test_lines_of_the_producer_need_no_query(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    SpoolProducer(settings).produce(USERS, [Message(b"body", b"key", {"a": "1"}, 1)] * 3)
    spool = source(settings)
    monkeypatch.setattr(ingest.sources.spool, "PARSE_LINES", "this is not a query")
    assert len(rows(spool)) == 3


def test_every_byte_of_a_message_is_preserved(settings: Settings) -> None:
    everything = bytes(range(256))
    messages = [
        Message(everything, everything, {"é": '"\u2028\U0001f600\x00', "": "\\"}, 1_600_000_000_123_456),
        Message(b"", b"", {}, 0),
        Message(None, None, {}, None),
        Message(b"\n\r\n", b"\xff\xfe", {"a": "\n"}, -1),
        Message(b"year 1", None, {}, -62_135_596_800_000_000),
        Message(b"year 9999", None, {}, 253_402_300_799_999_999),
    ]
    SpoolProducer(settings).produce(USERS, messages)
    log = (settings.spool_path / "users" / "0.ndjson").read_bytes()
    starts = [0, *(match.end() for match in re.finditer(b"\n", log))]

    found = rows(source(settings))
    assert [(row["key"], row["payload"]) for row in found] == [(one.key, one.payload) for one in messages]
    assert [row["attributes"] and orjson.loads(row["attributes"]) for row in found] == [
        dict(one.attributes) or None for one in messages
    ]
    assert [row["published_at"] and str(row["published_at"]) for row in found] == [
        "2020-09-13 12:26:40.123456",
        "1970-01-01 00:00:00",
        None,
        "1969-12-31 23:59:59.999999",
        "0001-01-01 00:00:00",
        "9999-12-31 23:59:59.999999",
    ]
    assert [row["offset"] for row in found] == starts[:-1]
    for row in found:
        assert row["message_id"] == f"users/0/{row['offset']}"
        assert (row["source"], row["topic"], row["partition"]) == ("spool", "users", 0)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"no json",
        b"\xff\xfe\x00",
        b"[1]",
        b'"text"',
        b"null",
        b"{}",
        b"[" * 100_000,
        b'{"payload":"YQ=="',
        b'{"payload":"not base64!"}',
        b'{"payload":"YQ"}',
        b'{"payload":1234}',
        b'{"payload":{}}',
        b'{"key":"x","payload":"YQ=="}',
        b'{"key":1234,"payload":"YQ=="}',
        b'{"attributes":"text","payload":"YQ=="}',
        b'{"attributes":["a"],"payload":"YQ=="}',
        b'{"published_at":"1","payload":"YQ=="}',
        b'{"published_at":1.5,"payload":"YQ=="}',
        b'{"published_at":true,"payload":"YQ=="}',
        b'{"published_at":1e30,"payload":"YQ=="}',
        b'{"published_at":-62135596800000001,"payload":"YQ=="}',
        b'{"published_at":253402300800000000,"payload":"YQ=="}',
        b'{"published_at":9223372036854775807,"payload":"YQ=="}',
        b'{"published_at":9223372036854775808,"payload":"YQ=="}',
        b'{"published_at":-9223372036854775808,"payload":"YQ=="}',
        b'{"published_at":99999999999999999999999,"payload":"YQ=="}',
    ],
)
def test_an_invalid_envelope_is_landed_as_the_payload(settings: Settings, line: bytes) -> None:
    write(settings, LINE + line + b"\n" + LINE)
    before, broken, after = rows(source(settings))
    assert before["payload"] == after["payload"] == b"a"
    assert broken["payload"] == line
    assert (broken["key"], broken["attributes"], broken["published_at"]) == (None, None, None)
    assert (broken["offset"], after["offset"]) == (len(LINE), len(LINE) + len(line) + 1)


def test_all_fields_but_the_payload_are_optional(settings: Settings) -> None:
    write(settings, b'{"payload":null}\n{"payload":"YQ==","more":[1]}\r\n')
    assert [row["payload"] for row in rows(source(settings))] == [None, b"a"]


# -- offsets ----------------------------------------------------------------------------------------------------------


def test_positions_are_bytes_and_reading_resumes_there(settings: Settings) -> None:
    SpoolProducer(settings).produce(USERS, (Message(b"x" * number) for number in range(50)))
    size = (settings.spool_path / "users" / "0.ndjson").stat().st_size
    spool = source(settings, landing_max_rows=7)
    found: list[bytes] = []
    positions: dict[tuple[str, int], int] = {}
    while batch := spool.fetch(0):
        found += batch.tables["users"]["payload"].to_pylist()
        positions |= batch.positions
        spool.close()
        spool = source(settings, positions, landing_max_rows=7)
    assert found == [b"x" * number for number in range(50)]
    assert positions == {("users", 0): size}


def test_a_partial_last_line_waits_until_it_is_complete(settings: Settings) -> None:
    write(settings, LINE + LINE[:-1])
    spool = source(settings)
    assert len(rows(spool)) == 1
    assert spool.fetch(0.1) is None
    assert spool.waiting() == {"users": 0, "posts": 0}
    write(settings, b"\n")
    assert spool.waiting() == {"users": 1, "posts": 0}
    [row] = rows(spool)
    assert (row["offset"], row["payload"]) == (len(LINE), b"a")


def test_batches_are_within_the_limits(settings: Settings) -> None:
    write(settings, LINE * 100)
    assert [one.rows for one in batches(source(settings, landing_max_rows=40))] == [40, 40, 20]
    assert [one.rows for one in batches(source(settings, landing_max_bytes=len(LINE) * 30))] == [30, 30, 30, 10]
    assert [one.rows for one in batches(source(settings, landing_max_bytes=len(LINE) * 30 - 1))] == [29] * 3 + [13]


def test_a_line_larger_than_a_batch_is_its_own_batch(settings: Settings) -> None:
    huge = b"x" * 10_000_000
    SpoolProducer(settings).produce(USERS, [Message(b"a"), Message(huge), Message(b"b"), Message(b"c")])
    found = [one.tables["users"]["payload"].to_pylist() for one in batches(source(settings, landing_max_bytes=1024))]
    assert found == [[b"a"], [huge], [b"b", b"c"]]


def test_each_partition_has_its_own_position_and_they_take_turns(settings: Settings) -> None:
    write(settings, LINE * 4)
    write(settings, LINE * 2, "users/10.ndjson")
    write(settings, LINE * 2, "posts/0.ndjson")
    write(settings, LINE, "clicks/0.ndjson")
    spool = source(settings, landing_max_rows=1)
    assert spool.waiting() == {"users": 6, "posts": 2}
    order = [next(iter(batch.positions)) for batch in batches(spool)]
    assert order[:3] == [("users", 0), ("users", 10), ("posts", 0)] == order[3:6]
    assert order[6:] == [("users", 0)] * 2


def test_a_log_that_appears_later_is_read(settings: Settings) -> None:
    spool = source(settings)
    assert spool.fetch(0) is None
    write(settings, LINE)
    assert len(rows(spool)) == 1


# -- the id of a log --------------------------------------------------------------------------------------------------


def open_source(settings: Settings) -> tuple[SpoolSource, DuckDBSink]:
    sink = DuckDBSink(settings.warehouse_path)
    return SpoolSource(settings, [USERS, POSTS], lambda ids: sink.positions("spool", ids)), sink


def land_all(settings: Settings) -> int:
    spool, sink = open_source(settings)
    rows = land(settings, [spool], sink).rows
    assert set(spool.waiting().values()) == {0}
    spool.close()
    return rows


def landed(settings: Settings, stream: str = "users") -> list[bytes]:
    with DuckDBSink(settings.warehouse_path).connection(read_only=True) as connection:
        rows = connection.sql(f"select payload, message_id, landed_at from raw.{stream} order by landed_at").fetchall()
    assert len({row[1:] for row in rows}) == len(rows)
    return [row[0] for row in rows]


def publish(settings: Settings, *payloads: bytes) -> None:
    SpoolProducer(settings).produce(USERS, [Message(payload) for payload in payloads])


def test_a_replaced_log_with_lines_of_the_same_length_is_landed_from_its_start(settings: Settings) -> None:
    expected = []
    for payloads in ([b"a", b"b"], [b"c", b"d"], [b"e", b"f", b"g"]):
        shutil.rmtree(settings.spool_path, ignore_errors=True)
        publish(settings, *payloads)
        assert land_all(settings) == len(payloads)
        assert land_all(settings) == 0
        expected += payloads
    publish(settings, b"h")
    assert land_all(settings) == 1
    assert landed(settings) == [*expected, b"h"]


def test_a_log_that_is_replaced_while_it_is_followed_is_read_from_its_start(settings: Settings) -> None:
    publish(settings, b"a", b"b")
    spool, sink = open_source(settings)
    [first] = batches(spool)
    shutil.rmtree(settings.spool_path)
    assert spool.fetch(0) is None
    publish(settings, b"c", b"d")
    [second] = batches(spool)
    assert (first.positions, first.tables["users"]["message_id"]) == (
        second.positions,
        second.tables["users"]["message_id"],
    )
    assert first.topic_ids != second.topic_ids
    # the message ids of both logs are equal, but landed_at differs
    assert sink.commit([first, second]) == {"users": 4}
    assert landed(settings) == [b"a", b"b", b"c", b"d"]
    # restore the first log
    assert sink.commit([first]) == {"users": 0}


def test_a_first_line_written_while_the_log_is_opened_is_landed_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(settings, b"")
    spool, sink = open_source(settings)
    read_id = ingest.sources.spool._log_id

    def read_id_then_publish(file: BinaryIO) -> str:
        monkeypatch.undo()
        found = read_id(file)
        publish(settings, b"a")
        return found

    monkeypatch.setattr(ingest.sources.spool, "_log_id", read_id_then_publish)
    for _ in range(2):
        sink.commit(batches(spool))
    assert land_all(settings) == 0
    assert landed(settings) == [b"a"]


def test_each_partition_has_its_own_id(settings: Settings) -> None:
    def publish_to(partition: int, *payloads: bytes) -> None:
        """Write a log of any partition, as other producers may."""
        elsewhere = settings.model_copy(update={"spool_path": settings.spool_path.with_name("elsewhere")})
        publish(elsewhere, *payloads)
        (elsewhere.spool_path / "users" / "0.ndjson").rename(settings.spool_path / "users" / f"{partition}.ndjson")

    publish(settings, b"c")
    for partition in (1, 2):
        publish_to(partition, b"a", b"b")
    assert land_all(settings) == 5
    publish_to(2, b"d", b"e")
    assert land_all(settings) == 2
    publish(settings, b"f")
    assert land_all(settings) == 1
    assert sorted(landed(settings)) == [b"a", b"a", b"b", b"b", b"c", b"d", b"e", b"f"]


def test_a_log_without_an_id_continues_at_its_position(settings: Settings) -> None:
    """As in logs of earlier versions. Only a log that replaces it is read from its start."""
    write(settings, LINE * 3)
    assert land_all(settings) == 3
    publish(settings, b"b")
    assert land_all(settings) == 1
    write(settings, LINE)
    assert land_all(settings) == 1
    shutil.rmtree(settings.spool_path)
    publish(settings, *[b"c"] * 10)
    assert land_all(settings) == 10
    assert landed(settings) == [b"a"] * 3 + [b"b", b"a"] + [b"c"] * 10


def test_a_truncated_log_with_an_id_is_an_error(settings: Settings) -> None:
    publish(settings, b"a", b"b", b"c")
    land_all(settings)
    path = settings.spool_path / "users" / "0.ndjson"
    whole = path.read_bytes()
    for content in (whole[:-1], whole[:-20], whole[:50], whole[: whole.index(b"\n") + 1]):
        path.write_bytes(content)
        with pytest.raises(UserError, match="truncated or replaced"):
            land_all(settings)
    path.write_bytes(whole)
    assert land_all(settings) == 0


def test_an_emptied_log_is_treated_like_a_removed_one(settings: Settings) -> None:
    publish(settings, b"a", b"b", b"c")
    land_all(settings)
    (settings.spool_path / "users" / "0.ndjson").write_bytes(b"")
    assert land_all(settings) == 0
    publish(settings, b"d", b"e", b"f")
    assert land_all(settings) == 3


def test_a_log_removed_after_it_was_listed_is_skipped(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(settings, LINE)
    spool = source(settings)
    listed = list(spool._logs())
    monkeypatch.setattr(SpoolSource, "_logs", lambda _: iter(listed))
    path.unlink()
    assert spool.fetch(0) is None
    assert (spool.waiting()["users"], spool.oldest_waiting()["users"]) == (0, None)
    assert source(settings).fetch(0) is None


# -- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", LINE, LINE + LINE[:-1], LINE[:-5] + b"xxxx\n" + LINE * 3, LINE + b"x" * 500])
def test_a_truncated_or_replaced_log_without_an_id_is_an_error(settings: Settings, content: bytes) -> None:
    path = write(settings, LINE * 2)
    spool = source(settings)
    assert len(rows(spool)) == 2
    path.write_bytes(content.replace(LINE, LINE[:-2] + b" }\n", 1))
    with pytest.raises(UserError, match=rf"{path} has landed up to byte {2 * len(LINE)}, .* truncated or replaced"):
        spool.fetch(0)


def test_a_log_that_cannot_be_read_is_an_error(settings: Settings) -> None:
    log = settings.spool_path / "users" / "0.ndjson"
    log.mkdir(parents=True)
    with pytest.raises(UserError, match=r"cannot read .*0.ndjson: Is a directory; see SPOOL_PATH"):
        source(settings).fetch(0)
    log.rmdir()
    log.symlink_to("unmounted")
    with pytest.raises(UserError, match=r"cannot read .*0.ndjson: No such file or directory; see SPOOL_PATH"):
        source(settings).fetch(0)


def test_files_that_are_not_landed_are_reported_once(settings: Settings) -> None:
    write(settings, LINE)
    ignored = [
        "users/00.ndjson",
        "users/events.ndjson",
        "users/1.txt",
        "users/².ndjson",
        "events.ndjson",
        "people/0.ndjson",
    ]
    for name in (*ignored, "clicks/0.ndjson", "simulator.json", "users/.0.ndjson.swp"):
        write(settings, LINE, name)
    with structlog.testing.capture_logs() as logs:
        spool = source(settings)
        assert len(rows(spool)) == 1
        assert spool.waiting() == {"users": 0, "posts": 0}
    warned = [str(Path(log["path"]).relative_to(settings.spool_path)) for log in logs]
    assert sorted(warned) == sorted(name.removesuffix("/0.ndjson") for name in ignored)
    assert {log["log_level"] for log in logs} == {"warning"}
    [of_people] = [log["event"] for log in logs if log["path"].endswith("people")]
    assert of_people == "not landed: spool/people has no contract in streams/; add a contract, or remove the folder"
