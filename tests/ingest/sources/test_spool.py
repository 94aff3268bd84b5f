"""Reading the spool: every byte comes back, by offset, whatever stands in the log."""

import re
from pathlib import Path
from typing import Any

import orjson
import pytest

from ingest.errors import UserError
from ingest.message import Batch, Message
from ingest.publish.spool import SpoolPublisher
from ingest.settings import Settings
from ingest.sources.spool import SpoolSource
from ingest.streams import STREAMS

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


def batches(spool: SpoolSource) -> list[Batch]:
    return list(iter(lambda: spool.fetch(0), None))


def rows(spool: SpoolSource) -> list[dict[str, Any]]:
    return [row for batch in batches(spool) for table in batch.tables.values() for row in table.to_pylist()]


# -- bytes ------------------------------------------------------------------------------------------------------------


def test_every_byte_of_a_message_comes_back(settings: Settings) -> None:
    everything = bytes(range(256))
    messages = [
        Message(everything, everything, {"é": '"\u2028\U0001f600\x00', "": "\\"}, 1_600_000_000_123_456),
        Message(b"", b"", {}, 0),
        Message(None, None, {}, None),
        Message(b"\n\r\n", b"\xff\xfe", {"a": "\n"}, -1),
        Message(b"year 1", None, {}, -62_135_596_800_000_000),
        Message(b"year 9999", None, {}, 253_402_300_799_999_999),
    ]
    SpoolPublisher(settings).publish(USERS, messages)
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
def test_a_broken_envelope_is_landed_whole(settings: Settings, line: bytes) -> None:
    write(settings, LINE + line + b"\n" + LINE)
    before, broken, after = rows(source(settings))
    assert before["payload"] == after["payload"] == b"a"
    assert broken["payload"] == line
    assert (broken["key"], broken["attributes"], broken["published_at"]) == (None, None, None)
    assert (broken["offset"], after["offset"]) == (len(LINE), len(LINE) + len(line) + 1)


def test_fields_may_be_missing_but_for_the_payload(settings: Settings) -> None:
    write(settings, b'{"payload":null}\n{"payload":"YQ==","more":[1]}\r\n')
    assert [row["payload"] for row in rows(source(settings))] == [None, b"a"]


# -- offsets ----------------------------------------------------------------------------------------------------------


def test_positions_are_bytes_and_reading_resumes_there(settings: Settings) -> None:
    SpoolPublisher(settings).publish(USERS, (Message(b"x" * number) for number in range(50)))
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


def test_batches_keep_to_the_limits(settings: Settings) -> None:
    write(settings, LINE * 100)
    assert [one.rows for one in batches(source(settings, landing_max_rows=40))] == [40, 40, 20]
    assert [one.rows for one in batches(source(settings, landing_max_bytes=len(LINE) * 30))] == [30, 30, 30, 10]
    assert [one.rows for one in batches(source(settings, landing_max_bytes=len(LINE) * 30 - 1))] == [29] * 3 + [13]


def test_a_line_larger_than_a_batch_is_a_batch_of_its_own(settings: Settings) -> None:
    huge = b"x" * 10_000_000
    SpoolPublisher(settings).publish(USERS, [Message(b"a"), Message(huge), Message(b"b"), Message(b"c")])
    found = [one.tables["users"]["payload"].to_pylist() for one in batches(source(settings, landing_max_bytes=1024))]
    assert found == [[b"a"], [huge], [b"b", b"c"]]


def test_partitions_and_streams_have_positions_of_their_own_and_take_turns(settings: Settings) -> None:
    write(settings, LINE * 4)
    write(settings, LINE * 2, "users/10.ndjson")
    write(settings, LINE * 2, "posts/0.ndjson")
    for ignored in ("users/00.ndjson", "users/².ndjson", "users/x.ndjson", "users/1.txt", "clicks/0.ndjson"):
        write(settings, LINE, ignored)
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


# -- what went wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", LINE, LINE + LINE[:-1], LINE[:-5] + b"xxxx\n" + LINE * 3, LINE + b"x" * 500])
def test_a_log_that_was_cut_or_replaced_is_an_error(settings: Settings, content: bytes) -> None:
    path = write(settings, LINE * 2)
    spool = source(settings)
    assert len(rows(spool)) == 2
    path.write_bytes(content.replace(LINE, LINE[:-2] + b" }\n", 1))
    with pytest.raises(UserError, match=rf"{path} was landed up to byte {2 * len(LINE)}, .* cut or replaced"):
        spool.fetch(0)


def test_a_log_that_cannot_be_read_is_an_error(settings: Settings) -> None:
    (settings.spool_path / "users" / "0.ndjson").mkdir(parents=True)
    with pytest.raises(UserError, match=r"cannot read .*0.ndjson: Is a directory; see SPOOL_PATH"):
        source(settings).fetch(0)
