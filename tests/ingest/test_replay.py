"""Replay: every line of a file becomes a message, those that cannot be read as they are."""

from collections.abc import Iterable
from pathlib import Path

import orjson
import pytest

from ingest import replay as replay_module
from ingest.errors import UserError
from ingest.message import Message
from ingest.replay import replay
from ingest.settings import Settings
from ingest.streams import STREAMS, Stream

HEADER = b"event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session\n"
ROW = b"2019-10-01 00:00:00 UTC,view,44600062,2103807459595387724,,shiseido,35.79,541312140,72d76fde\n"
ECOM = STREAMS["ecom_events"]
MIDNIGHT = 1_569_888_000_000_000
"""2019-10-01 in microseconds."""


class Collector:
    """A publisher that keeps what it is given."""

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

    def publish(self, stream: Stream, messages: Iterable[Message]) -> int:
        batch = list(messages)
        self.messages += batch
        self.batches.append(len(batch))
        return len(batch)


def published(path: Path, content: bytes, stream: Stream = ECOM) -> list[Message]:
    path.write_bytes(content)
    collector = Collector()
    assert replay(Settings(), collector, path, stream, speed=None, on_progress=None) == len(collector.messages)
    assert collector.flushed == len(collector.messages)
    return collector.messages


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


def test_columns_may_lack_and_streams_of_pubsub_have_no_key(csv_file: Path) -> None:
    [message] = published(csv_file, b"click_id,user_id\nc1,7\n", STREAMS["clicks"])
    assert (message.payload, message.key, message.published_at) == (b'{"click_id":"c1","user_id":"7"}', None, None)


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
    monkeypatch.setattr(replay_module, "LINES_A_RECORD", 5)
    messages = published(csv_file, HEADER + b'2019,"view\n' + ROW * 20)
    assert [message.key for message in messages] == [None, *[b"541312140"] * 20]
    # that it does close further on than a record may run makes no difference
    messages = published(csv_file, HEADER + ROW.replace(b"shiseido", b'"a' + b"\n" * 6 + b'b"') + ROW)
    assert (messages[0].payload or b"").endswith(b',"a')


def test_empty_lines_are_skipped(csv_file: Path) -> None:
    assert len(published(csv_file, HEADER + b"\n" + ROW + b"\r\n  \n" + ROW)) == 2


@pytest.mark.parametrize("content", [b"", b"\n1,2\n", b"a,\xff\n1,2\n"])
def test_a_csv_needs_a_header(csv_file: Path, content: bytes) -> None:
    with pytest.raises(UserError, match=r"events\.csv: the first line"):
        published(csv_file, content)


# -- JSON -------------------------------------------------------------------------------------------------------------

PAGE_VIEWS = STREAMS["page_views"]


@pytest.mark.parametrize("name", ["a.ndjson", "a.jsonl", "a.json", "A.JSON"])
def test_lines_of_json_are_published_as_they_are(tmp_path: Path, name: str) -> None:
    lines = [
        b'{ "user_id":7,  "event_time": "2019-10-01T00:00:00.5Z"}',
        b'{"cut": ',
        b"[1]",
        b"\xff\xfe",
        b' {"user_id":"","event_time":5}  ',
    ]
    messages = published(tmp_path / name, b"\r\n\n".join(lines))
    assert [message.payload for message in messages] == lines
    assert [message.key for message in messages] == [b"7", None, None, None, None]
    assert [message.published_at for message in messages] == [MIDNIGHT + 500_000, None, None, None, 5_000_000]


def test_one_document_over_several_lines_is_one_body(tmp_path: Path) -> None:
    document = b'{\n "event_timestamp": "1611798022695757",\n "items": []\n}'
    [message] = published(tmp_path / "export.json", b"\n" + document + b"\n", PAGE_VIEWS)
    assert message == Message(document, published_at=1_611_798_022_695_757)


def test_an_array_is_a_body_an_element(tmp_path: Path) -> None:
    messages = published(tmp_path / "views.json", b'[{"page_title": "A"},\n {"page_title": "B"}]', PAGE_VIEWS)
    assert [message.payload for message in messages] == [b'{"page_title":"A"}', b'{"page_title":"B"}']


def test_a_json_file_whose_first_line_is_broken_is_still_read_by_lines(tmp_path: Path) -> None:
    messages = published(tmp_path / "a.json", b'{"cut"\n{"user_id": "1"}\n')
    assert [message.payload for message in messages] == [b'{"cut"', b'{"user_id": "1"}']


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
    [message] = published(tmp_path / "a.ndjson", body, STREAMS[stream])
    assert message.published_at == instant


# -- batches, pace, errors --------------------------------------------------------------------------------------------


def test_large_files_are_published_in_batches_with_progress(csv_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_module, "MESSAGES_A_PUBLISH", 10)
    csv_file.write_bytes(HEADER + ROW * 25)
    collector, progress = Collector(), list[int]()
    assert replay(Settings(), collector, csv_file, ECOM, speed=None, on_progress=progress.append) == 25
    assert collector.batches == [10, 10, 5]
    assert progress == [10, 20, 25]


class Clock:
    """Stands in for `time`: sleeping passes the time at once."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def test_speed_paces_by_the_times_of_the_events(csv_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(replay_module, "time", clock)
    times = ["00:00:00", "00:00:00", "nothing", "00:01:00", "00:00:30", "00:03:00"]
    rows = [ROW.decode().replace("00:00:00", time).encode() for time in times]
    csv_file.write_bytes(HEADER + b"".join(rows))

    class Timed(Collector):
        def publish(self, stream: Stream, messages: Iterable[Message]) -> int:
            published_at.append(clock.now)
            return super().publish(stream, messages)

    published_at: list[float] = []
    collector = Timed()
    assert replay(Settings(), collector, csv_file, ECOM, speed=20, on_progress=None) == 6
    # 60 s at 20 times real time are 3 s; what lies in the past does not wait
    assert collector.batches == [3, 2, 1]
    assert published_at == [100.0, 103.0, 109.0]
    assert clock.slept == [3.0, 6.0]


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan")])
def test_speed_is_more_than_zero(csv_file: Path, speed: float) -> None:
    csv_file.write_bytes(HEADER)
    with pytest.raises(UserError, match="speed"):
        replay(Settings(), Collector(), csv_file, ECOM, speed=speed, on_progress=None)


@pytest.mark.parametrize("name", ["missing.csv", "folder.csv", "events.xlsx"])
def test_what_cannot_be_read_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "events.xlsx").touch()
    with pytest.raises(UserError, match=name) as raised:
        replay(Settings(), Collector(), tmp_path / name, ECOM, speed=None, on_progress=None)
    assert "\n" not in str(raised.value)
