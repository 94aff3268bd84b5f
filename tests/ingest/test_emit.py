"""`emit`: message bodies, which results are due, and the state of a consumer after corrections and kills."""

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka import Message as Record
from confluent_kafka.admin import AdminClient, NewTopic
from structlog.testing import capture_logs

from common.errors import UserError
from common.settings import Settings
from common.streams import STREAMS
from engines.duckdb.sink import DuckDBSink
from engines.warehouse import FIRST_CURSOR, Cursor, Result
from ingest import emit as emit_module
from ingest.emit import count_due, emit, result_message
from ingest.producers.kafka import KafkaProducer
from ingest.provision import provision
from specification import Landed, marts
from specification import Settings as SpecificationSettings
from tests.engines.test_duckdb import full_disk
from tools.brokers import KafkaServer
from tools.warehouses.commands import Warehouse

from .conftest import Start

WAIT_SECONDS = 120.0
NOW = datetime(2026, 1, 5, 16, 0, 0, 250_000, tzinfo=UTC)
topics = (f"time-on-page-{number}" for number in itertools.count())

SCHEMA = pa.schema(
    [
        ("session_landed_at", pa.timestamp("us")),
        ("session_id", pa.string()),
        ("sequence_number", pa.int64()),
        ("source_session_id", pa.string()),
        ("page_title", pa.string()),
        ("event_at", pa.timestamp("us")),
        ("time_on_page_seconds", pa.decimal128(18, 6)),
        ("session_started_at", pa.timestamp("us")),
        ("window_end_at", pa.timestamp("us")),
    ]
)
LANDED_AT = datetime(2026, 1, 6)
STARTED_AT = datetime(2026, 1, 5, 15, 30)


def result(**changes: Any) -> Result:
    view = {
        "session_landed_at": LANDED_AT,
        "session_id": "hash",
        "sequence_number": 1,
        "source_session_id": "1234567890.1738286883",
        "page_title": "Home Page",
        "event_at": datetime(2025, 1, 30, 15, 30),
        "time_on_page_seconds": Decimal("45.000000"),
        "session_started_at": datetime(2025, 1, 30, 15, 30),
        "window_end_at": datetime(2025, 1, 30, 15, 31, 45),
    }
    return Result(**(view | changes))


def session(number: int, views: int, landed: int) -> list[Result]:
    """Return a session of this many page views, 10 s apart, last changed by the landing of this number."""
    return [
        result(
            session_landed_at=LANDED_AT + timedelta(minutes=landed),
            session_id=f"{number * 7919 % 1000:03}",  # not in the order of the numbers
            sequence_number=place + 1,
            source_session_id=f"source\0-{number}",  # JSON can contain NUL
            page_title=f"Page {place}",
            event_at=STARTED_AT + timedelta(seconds=10 * place),
            time_on_page_seconds=Decimal(10),
            session_started_at=STARTED_AT,
            window_end_at=STARTED_AT + timedelta(seconds=10 * views + 50),
        )
        for place in range(views)
    ]


def write_mart(settings: Settings, rows: list[Result]) -> None:
    with duckdb.connect(str(settings.warehouse_path)) as connection:
        connection.execute("create schema if not exists analytics")
        connection.register("views", pa.Table.from_pylist([row._asdict() for row in rows], SCHEMA))
        connection.execute("create or replace table analytics.fct_page_views as from views")


@pytest.fixture
def sink(settings: Settings) -> DuckDBSink:
    return DuckDBSink(settings.warehouse_path)


# -- bodies -----------------------------------------------------------------------------------------------------------


def test_a_message_equals_the_documented_example() -> None:
    message = result_message(result(), NOW)
    assert message.payload == (
        b'{"session_id":"1234567890.1738286883","page":"Home Page","time_spent_seconds":45,'
        b'"timestamp":"2025-01-30T15:30:45Z","window_start":"2025-01-30T15:30:00Z",'
        b'"window_end":"2025-01-30T15:31:45Z","element_timestamp":"2025-01-30T15:30:00Z"}'
    )
    assert message.key == b"1234567890.1738286883"
    assert message.attributes == {
        "session_id": "1234567890.1738286883",
        "processing_time": "2026-01-05T16:00:00.250000Z",
    }


@pytest.mark.parametrize(
    ("seconds", "number", "timestamp"),
    [
        ("0.000000", "0", "2025-01-30T15:30:00Z"),
        ("100.000000", "100", "2025-01-30T15:31:40Z"),
        ("0.000001", "0.000001", "2025-01-30T15:30:00.000001Z"),
        ("123456789.123456", "123456789.123456", "2028-12-29T13:03:09.123456Z"),
        ("999999999999.999900", "999999999999.9999", None),
    ],
)
def test_numbers_are_exact_and_a_time_after_year_9999_is_null(seconds: str, number: str, timestamp: str) -> None:
    payload = result_message(result(time_on_page_seconds=Decimal(seconds)), NOW).payload
    assert payload is not None
    assert f'"time_spent_seconds":{number},'.encode() in payload
    assert json.loads(payload)["timestamp"] == timestamp


# -- what is due ------------------------------------------------------------------------------------------------------


def test_results_after_the_cursor_are_returned_in_its_order(settings: Settings, sink: DuckDBSink) -> None:
    rows = [row for number in range(40) for row in session(number, views=3, landed=number % 4)]
    unknown = [row._replace(time_on_page_seconds=None) for row in session(40, views=2, landed=0)]  # type: ignore[arg-type]
    write_mart(settings, [*rows[::-1], *unknown])
    in_order = sorted(rows)
    everything = list(sink.results(FIRST_CURSOR, 7))
    assert [len(chunk) for chunk in everything] == [7] * 17 + [1]
    assert list(itertools.chain(*everything)) == in_order
    for place in (0, 1, 29, 30, 118, 119):  # in the middle and at the ends of sessions and landings
        after = in_order[place].cursor
        assert list(itertools.chain(*sink.results(after, 1000))) == in_order[place + 1 :]
        assert sink.count_results(after) == len(in_order) - place - 1


def test_other_processes_can_write_to_the_warehouse_between_two_chunks(settings: Settings, sink: DuckDBSink) -> None:
    write_mart(settings, session(1, views=4, landed=0))
    chunks = sink.results(FIRST_CURSOR, 2)
    first = next(chunks)
    write_mart(settings, [])  # raises an error if the file is still open
    assert [*first, *itertools.chain(*chunks)] == session(1, views=4, landed=0)


def test_a_kill_at_any_time_leaves_no_temporary_file(
    settings: Settings, sink: DuckDBSink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Temporary files have no name, so that none remains after a kill."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    write_mart(settings, session(1, views=4, landed=0))
    mart, names = DuckDBSink._mart, []

    @contextmanager
    def watched(self: DuckDBSink) -> Iterator[Any]:
        with mart(self) as connection:
            yield connection
        names.append([*folder.iterdir()])

    monkeypatch.setattr(DuckDBSink, "_mart", watched)
    for _ in sink.results(FIRST_CURSOR, 2):
        names.append([*folder.iterdir()])
    assert names == [[]] * 3


def test_a_disk_full_of_temporary_files_is_reported_in_one_line(settings: Settings, sink: DuckDBSink) -> None:
    views = session(1, views=1000, landed=0)
    write_mart(settings, [view._replace(page_title=os.urandom(2_000).hex()) for view in views])
    with full_disk(1_000_000), pytest.raises(UserError, match=r"temporary file in .*: File too large; see TMPDIR"):
        next(sink.results(FIRST_CURSOR, 2))


def test_the_end_of_a_window_after_year_9999_is_null(settings: Settings, sink: DuckDBSink) -> None:
    write_mart(settings, session(1, views=1, landed=0))
    with duckdb.connect(str(settings.warehouse_path)) as connection:
        connection.execute("update analytics.fct_page_views set window_end_at = timestamp '10000-01-01'")
    [[read]] = sink.results(FIRST_CURSOR, 10)
    assert read == session(1, views=1, landed=0)[0]._replace(window_end_at=None)


def test_each_topic_has_its_own_cursor(settings: Settings, sink: DuckDBSink) -> None:
    write_mart(settings, [])
    cursor = Cursor(datetime(2026, 1, 6, 1, 2, 3, 456), "b", 2)
    assert sink.emit_cursor("a") == FIRST_CURSOR
    sink.save_emit_cursor("a", cursor)
    sink.save_emit_cursor("b", cursor)
    sink.save_emit_cursor("b", cursor._replace(sequence_number=3))
    assert sink.emit_cursor("a") == cursor
    assert sink.emit_cursor("b") == cursor._replace(sequence_number=3)
    assert sink.emit_cursor("c") == FIRST_CURSOR


def test_a_second_emit_is_rejected_while_one_runs(settings: Settings, sink: DuckDBSink) -> None:
    write_mart(settings, [])
    with sink.emitting(), pytest.raises(UserError, match="another `ingest emit` is running"), sink.emitting():
        pass
    with sink.emitting():
        pass


# -- errors -----------------------------------------------------------------------------------------------------------


def test_errors_say_what_to_do(settings: Settings, sink: DuckDBSink) -> None:
    with pytest.raises(UserError, match=r"KAFKA_BOOTSTRAP_SERVERS.*KAFKA_CONFIG_FILE"):
        emit(settings, sink)
    for due in (lambda: count_due(settings, sink), lambda: sink.emitting().__enter__()):
        with pytest.raises(UserError, match="no fct_page_views yet: run `make build` first"):
            due()
        assert not settings.warehouse_path.exists()
    sink.create_tables()
    with pytest.raises(UserError, match="no fct_page_views yet"):
        count_due(settings, sink)


@pytest.mark.brokers
def test_a_missing_topic_is_reported(settings: Settings, sink: DuckDBSink, kafka_server: KafkaServer) -> None:
    at_kafka = settings.model_copy(
        update={"kafka_bootstrap_servers": kafka_server.bootstrap_servers, "emit_topic": "not-there"}
    )
    with pytest.raises(UserError, match="no fct_page_views yet"):
        emit(at_kafka, sink, from_start=True)
    assert not settings.warehouse_path.exists()
    write_mart(settings, session(1, views=1, landed=0))
    with pytest.raises(UserError, match=r"no topic not-there; .*ingest provision"):
        emit(at_kafka, sink)
    assert count_due(at_kafka, sink) == 1


# -- to Kafka ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def at_kafka(settings: Settings, kafka_server: KafkaServer) -> Settings:
    """A warehouse and a topic with one partition, so that the order of all messages is known."""
    topic = next(topics)
    admin = AdminClient({"bootstrap.servers": kafka_server.bootstrap_servers})
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result()
    return settings.model_copy(update={"kafka_bootstrap_servers": kafka_server.bootstrap_servers, "emit_topic": topic})


class Reader:
    """A plain consumer of all partitions of a topic; `read` returns new messages."""

    def __init__(self, servers: str, topic: str) -> None:
        self._consumer = Consumer({"bootstrap.servers": servers, "group.id": "reader", "enable.auto.commit": False})
        partitions = self._consumer.list_topics(topic, timeout=10).topics[topic].partitions
        self._next = {TopicPartition(topic, partition): 0 for partition in partitions}
        self._consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])

    def end(self) -> int:
        """Number of messages in the topic."""
        return sum(self._consumer.get_watermark_offsets(one, timeout=10)[1] for one in self._next)

    def read(self) -> list[Record]:
        missing = self.end() - sum(self._next.values())
        records: list[Record] = []
        until = time.monotonic() + WAIT_SECONDS
        while len(records) < missing:
            assert time.monotonic() < until, f"{missing - len(records)} messages did not arrive"
            records += self._consumer.consume(missing - len(records), timeout=0.5)
        for record in records:
            assert record.error() is None
            self._next[TopicPartition(record.topic(), record.partition())] += 1  # type: ignore[arg-type]
        return records

    def close(self) -> None:
        self._consumer.close()


@pytest.fixture
def reader(at_kafka: Settings) -> Iterator[Reader]:
    assert at_kafka.kafka_bootstrap_servers
    reader = Reader(at_kafka.kafka_bootstrap_servers, at_kafka.emit_topic)
    yield reader
    reader.close()


def body(record: Record) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(record.value())  # type: ignore[arg-type]
    return found


Key = tuple[str, str, str]


def compacted(records: list[Record]) -> dict[Key, dict[str, Any]]:
    """Return the last body of each key, as after log compaction."""
    bodies = [body(record) for record in records]
    return {(one["session_id"], one["element_timestamp"], one["page"]): one for one in bodies}


def expected(rows: list[Result]) -> dict[Key, dict[str, Any]]:
    messages = [json.loads(result_message(row, NOW).payload or b"") for row in rows]
    return {(one["session_id"], one["element_timestamp"], one["page"]): one for one in messages}


@pytest.mark.brokers
def test_new_results_are_sent_once_and_all_with_from_start(
    at_kafka: Settings, sink: DuckDBSink, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emit_module, "CHUNK_ROWS", 4)
    rows = sorted(row for number in range(5) for row in session(number, views=2, landed=number))
    write_mart(at_kafka, rows)
    progress: list[int] = []
    before = datetime.now(UTC)
    assert count_due(at_kafka, sink) == emit(at_kafka, sink, on_progress=progress.append) == 10
    assert progress == [4, 4, 2]
    records = reader.read()
    assert [body(record) for record in records] == list(expected(rows).values())
    for record in records:
        session_id = body(record)["session_id"].encode()
        headers = dict(record.headers())  # type: ignore[arg-type]
        assert record.key() == headers["session_id"] == session_id
        assert before <= datetime.fromisoformat(headers["processing_time"].decode()) <= datetime.now(UTC)
        assert headers["processing_time"].endswith(b"Z")

    assert count_due(at_kafka, sink) == emit(at_kafka, sink) == 0
    grown = session(2, views=3, landed=9)
    write_mart(at_kafka, [*session(0, views=2, landed=0), *grown, *session(4, views=2, landed=4)])
    assert emit(at_kafka, sink) == 3
    assert [body(record) for record in reader.read()] == list(expected(grown).values())
    assert emit(at_kafka, sink) == 0
    assert reader.read() == []

    assert count_due(at_kafka, sink, from_start=True) == emit(at_kafka, sink, from_start=True) == 7
    assert len(reader.read()) == 7
    assert emit(at_kafka, sink) == 0


@pytest.mark.brokers
def test_undelivered_results_are_sent_by_the_next_run(
    at_kafka: Settings, sink: DuckDBSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if `--from-start` failed before its first chunk was delivered."""

    def undelivered(_: KafkaProducer) -> None:
        raise UserError("Kafka does not answer")

    def fail(**options: bool) -> None:
        with monkeypatch.context() as patch, pytest.raises(UserError, match="does not answer"):
            patch.setattr(KafkaProducer, "flush", undelivered)
            emit(at_kafka, sink, **options)

    monkeypatch.setattr(emit_module, "CHUNK_ROWS", 2)
    write_mart(at_kafka, session(1, views=6, landed=0))
    fail()
    assert emit(at_kafka, sink) == 6
    fail(from_start=True)
    assert emit(at_kafka, sink) == 6


@pytest.mark.brokers
def test_a_result_too_large_for_kafka_does_not_block_the_others(
    at_kafka: Settings, sink: DuckDBSink, reader: Reader
) -> None:
    rows = session(1, views=5, landed=0)
    rows[2] = rows[2]._replace(page_title="SECRET" * 300_000)
    write_mart(at_kafka, rows)
    with capture_logs() as logs:
        assert emit(at_kafka, sink) == 4
    assert [body(record)["page"] for record in reader.read()] == ["Page 0", "Page 1", "Page 3", "Page 4"]
    [line] = logs
    assert (line["log_level"], line["so_far"]) == ("error", 1)
    assert 1_800_000 < line["bytes"] < 1_801_000
    assert "SECRET" not in str(logs)
    assert emit(at_kafka, sink) == 0


@pytest.mark.brokers
def test_the_emit_command(at_kafka: Settings, start: Start) -> None:
    variables = {"KAFKA_BOOTSTRAP_SERVERS": str(at_kafka.kafka_bootstrap_servers), "EMIT_TOPIC": at_kafka.emit_topic}
    topic = at_kafka.emit_topic
    write_mart(at_kafka, [row for number in range(617) for row in session(number, views=2, landed=0)])
    for arguments, said in (
        (["emit", "--dry-run"], f"would emit 1,234 results to {topic}\n"),
        (["emit"], f"emitted 1,234 results to {topic}\n"),
        (["emit"], f"emitted 0 results to {topic}\n"),
        (["emit", "--dry-run", "--from-start"], f"would emit 1,234 results to {topic}\n"),
        (["emit", "--dry-run"], f"would emit 0 results to {topic}\n"),
    ):
        process = start(*arguments, **variables)
        assert (*process.communicate(timeout=60), process.returncode) == (said, "", 0)


@pytest.mark.brokers
def test_kills_leave_no_gap_and_no_outdated_result(at_kafka: Settings, sink: DuckDBSink, reader: Reader) -> None:
    """Five runs are killed. Between runs, a build changes sessions whose results were sent and others."""
    landed = {number: number // 15 for number in range(300)}
    views = dict.fromkeys(landed, 4)

    def build() -> list[Result]:
        rows = sorted(row for number in landed for row in session(number, views[number], landed[number]))
        write_mart(at_kafka, rows)
        return rows

    in_small_chunks = "import sys, ingest.emit as emit, ingest.cli as cli; emit.CHUNK_ROWS = 20; cli.main()"
    command = [sys.executable, "-c", in_small_chunks, "emit"]
    environment = {
        "PYTHONPATH": ":".join(sys.path),
        "WAREHOUSE_PATH": str(at_kafka.warehouse_path),
        "KAFKA_BOOTSTRAP_SERVERS": str(at_kafka.kafka_bootstrap_servers),
        "EMIT_TOPIC": at_kafka.emit_topic,
    }
    records: list[Record] = []
    changed: set[str] = set()
    first_appearances: list[Key] = []
    for run in range(6):
        rows = build()
        cursor = sink.emit_cursor(at_kafka.emit_topic)
        due = [row for row in rows if row.cursor > cursor]
        assert due
        process = subprocess.Popen(command, env=environment)
        if run < 5:
            enough = reader.end() + 90 + 10 * run
            until = time.monotonic() + WAIT_SECONDS
            while reader.end() < enough:
                assert process.poll() is None, "ended before it was killed"
                assert time.monotonic() < until
                time.sleep(0.01)
            time.sleep(0.02 * run)  # to kill at different steps of a chunk
            process.send_signal(signal.SIGKILL)
        assert process.wait(timeout=60) == (-signal.SIGKILL if run < 5 else 0)
        sent = reader.read()
        # A run sends the first results that are due, so repeated results have the same order.
        assert [body(record) for record in sent] == list(expected(due).values())[: len(sent)]
        assert run == 5 or 0 < len(sent) < len(due)
        assert sink.emit_cursor(at_kafka.emit_topic) <= due[len(sent) - 1].cursor
        records += sent
        first_appearances = list(compacted(records))
        for number in (run, 150 + run, 290 + run):  # sent, possibly in flight, and unsent
            if run < 5:
                views[number] += 1
                landed[number] = 100 + run
                changed.add(f"source\0-{number}")
    assert compacted(records) == expected(build())
    unchanged = [key for key in first_appearances if key[0] not in changed]
    assert unchanged == [key for key in expected(build()) if key[0] not in changed]
    assert count_due(at_kafka, sink) == 0


# -- from messages to results -----------------------------------------------------------------------------------------


def page_view(session_id: str, at: str, page: str, engaged: float | None = None) -> dict[str, Any]:
    return {
        "session_id": session_id,
        "ga_event_dtm": f"2026-01-05T{at}Z",
        "page_title": page,
        "event_params": {} if engaged is None else {"engaged_time": engaged},
    }


@pytest.mark.brokers
def test_late_page_views_correct_what_was_emitted(at_kafka: Settings, reader: Reader, tmp_path: Path) -> None:
    """End to end: the consumer's final state equals the definition in plain Python of all messages."""
    warehouse = Warehouse(
        tmp_path,
        {
            "KAFKA_BOOTSTRAP_SERVERS": str(at_kafka.kafka_bootstrap_servers),
            "EMIT_TOPIC": at_kafka.emit_topic,
        },
    )

    def emit_after(views: list[dict[str, Any]]) -> list[Record]:
        file = tmp_path / "views.ndjson"
        file.write_text("".join(json.dumps(view) + "\n" for view in views))
        warehouse.run("ingest", "replay", str(file), "--stream", "page_views")
        warehouse.run("ingest", "land", "--stream", "page_views")  # `land` creates the tables of all streams
        warehouse.run_models("--select", "+fct_page_views")
        warehouse.run("ingest", "emit")
        return reader.read()

    def defined() -> dict[Key, dict[str, Any]]:
        """By the specification: a body for each page view whose time is known."""
        landed = warehouse.query("select stream, message_id, key, published_at, landed_at, payload from raw.page_views")
        views = marts([Landed(*row) for row in landed], SpecificationSettings(), {})["fct_page_views"]  # type: ignore[arg-type]
        bodies = {}
        for view in views:
            if view["time_on_page_seconds"] is not None:
                at = f"{view['event_at'].isoformat()}Z"
                known_at = view["next_event_at"] or view["event_at"] + timedelta(
                    seconds=float(view["time_on_page_seconds"])
                )
                bodies[view["source_session_id"], at, view["page_title"]] = {
                    "session_id": view["source_session_id"],
                    "page": view["page_title"],
                    "time_spent_seconds": float(view["time_on_page_seconds"]),
                    "timestamp": f"{known_at.isoformat()}Z",
                    "window_start": f"{view['session_started_at'].isoformat()}Z",
                    "window_end": f"{view['window_end_at'].isoformat()}Z",
                    "element_timestamp": at,
                }
        return bodies

    records = emit_after(
        [
            page_view("joined", "15:30:00", "Home Page"),
            page_view("joined", "15:30:45", "Shoes"),
            page_view("joined", "15:33:00", "Lämp", engaged=12.5),
            page_view("split", "23:59:50", "Home Page"),
            page_view("split", "23:59:59.5", "Shoes", engaged=3),
            page_view("left alone", "15:30:00", "Home Page"),
            page_view("left alone", "15:30:45", "Shoes"),
            page_view("unknown", "15:30:00", "Home Page"),
            {**page_view("malformed", "15:30:00", "Home Page"), "ga_event_dtm": "soon"},
        ]
    )
    assert compacted(records) == defined()
    assert sorted((body(record)["session_id"], body(record)["page"]) for record in records) == [
        ("joined", "Home Page"),
        ("joined", "Lämp"),
        ("left alone", "Home Page"),
        ("split", "Home Page"),
        ("split", "Shoes"),
    ]
    alone = next(body(record) for record in records if record.key() == b"left alone")
    assert alone == {
        "session_id": "left alone",
        "page": "Home Page",
        "time_spent_seconds": 45,
        "timestamp": "2026-01-05T15:30:45Z",
        "window_start": "2026-01-05T15:30:00Z",
        "window_end": "2026-01-05T15:31:45Z",
        "element_timestamp": "2026-01-05T15:30:00Z",
    }
    warehouse.build()
    warehouse.run("ingest", "emit")
    assert reader.read() == []

    corrections = emit_after(
        [
            page_view("joined", "15:31:40", "Hats"),  # within a minute of the first session, and of ...
            page_view("joined", "15:32:30", "Bags"),  # ... this view, which is within a minute of the second session
            page_view("split", "23:59:55", "Lamps"),
            page_view("left alone", "15:30:45", "Shoes"),  # a duplicate
        ]
    )
    assert compacted([*records, *corrections]) == defined()
    assert sorted((body(record)["session_id"], body(record)["page"]) for record in corrections) == [
        ("joined", "Bags"),
        ("joined", "Hats"),
        ("joined", "Home Page"),
        ("joined", "Lämp"),
        ("joined", "Shoes"),
        ("split", "Home Page"),
        ("split", "Lamps"),
        ("split", "Shoes"),
    ]
    assert set(compacted(records)) < set(compacted([*records, *corrections]))
    assert "emitted 0 results" in warehouse.run("ingest", "emit").stdout


@pytest.mark.brokers
def test_provision_creates_the_topic_of_results(at_kafka: Settings, sink: DuckDBSink) -> None:
    elsewhere = at_kafka.model_copy(update={"emit_topic": next(topics)})
    write_mart(at_kafka, session(1, views=1, landed=0))
    provision(elsewhere, [STREAMS["page_views"]])
    assert emit(elsewhere, sink) == 1
