"""The DuckDB sink: rows and offsets commit atomically, each message lands once, with one writer at a time."""

import os
import re
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from common.errors import UnavailableError, UserError, WarehouseReplacedError
from common.streams import STREAMS
from engines.batch import BATCH_SCHEMA, Batch
from engines.duckdb import sink as duckdb_sink
from engines.duckdb.file import WarehouseFile
from engines.duckdb.sink import DuckDBSink
from engines.warehouse import StreamStatus, UnlistedField
from tools.warehouses.commands import Warehouse

NOON = datetime.fromisoformat("2026-01-01T12:00:00")
MICROSECOND = timedelta(microseconds=1)


def table(offsets: list[int], source: str = "kafka", topic: str = "users", partition: int = 0) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {
                "source": source,
                "topic": topic,
                "partition": partition,
                "offset": offset,
                "message_id": f"{topic}/{partition}/{offset}",
                "key": b"\xff\x00",
                "attributes": '{"a":"\\u0000é"}',
                "published_at": NOON,
                "payload": b"\x00\xff" + str(offset).encode(),
            }
            for offset in offsets
        ],
        BATCH_SCHEMA,
    )


def batch(offsets: list[int], stream: str = "users", topic_id: str = "", **where: Any) -> Batch:
    where = {"topic": stream, "partition": 0} | where
    return Batch(
        {stream: table(offsets, **where)},
        {(where["topic"], where["partition"]): max(offsets) + 1},
        {where["topic"]: topic_id} if topic_id else {},
    )


def pulled(*message_ids: str) -> Batch:
    rows = [
        {"source": "pubsub", "topic": "clicks", "message_id": message_id, "published_at": NOON, "payload": b"x"}
        for message_id in message_ids
    ]
    return Batch({"clicks": pa.Table.from_pylist(rows, BATCH_SCHEMA)})


def new_rows(landed: Mapping[str, int]) -> int:
    return sum(landed.values())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "warehouse.duckdb"


def query(path: Path, sql: str) -> list[tuple[Any, ...]]:
    with DuckDBSink(path).connection(read_only=True) as connection:
        return connection.sql(sql).fetchall()


def offsets(path: Path, stream: str = "users") -> list[int]:
    return [row[0] for row in query(path, f'select "offset" from raw.{stream} order by source, "partition", "offset"')]


# -- rows and positions -----------------------------------------------------------------------------------------------


def test_a_row_is_the_message_with_its_stream_and_landing_time(path: Path) -> None:
    assert new_rows(DuckDBSink(path, clock=lambda: NOON + MICROSECOND).commit([batch([7], topic="shop-users")])) == 1
    names = 'stream, source, topic, partition, "offset", message_id'
    assert query(path, f"select {names} from raw.users") == [
        ("users", "kafka", "shop-users", 0, 7, "shop-users/0/7"),
    ]
    assert query(path, "select key, attributes, published_at, landed_at, payload from raw.users") == [
        (b"\xff\x00", '{"a":"\\u0000é"}', NOON, NOON + MICROSECOND, b"\x00\xff7"),
    ]


def test_positions_are_kept_by_source_topic_and_partition(path: Path) -> None:
    sink = DuckDBSink(path)
    assert sink.positions("kafka", {}) == {}
    assert not path.exists()
    sink.create_tables()
    assert sink.positions("kafka", {}) == {}
    assert (
        new_rows(sink.commit([batch([0, 1]), batch([5], partition=1), batch([100], source="spool"), pulled("a")])) == 5
    )
    assert sink.positions("kafka", {}) == {("users", 0): 2, ("users", 1): 6}
    assert sink.positions("spool", {}) == {("users", 0): 101}
    assert sink.positions("pubsub", {}) == {("clicks", 0): 1}  # how many messages were landed


def test_positions_are_read_after_the_commit_of_another_thread(path: Path) -> None:
    """DuckDB cannot open a file for reading that the same process has open for writing."""
    sink = DuckDBSink(path)
    sink.commit([batch([0, 1])])
    with ThreadPoolExecutor(1) as pool, sink.connection():
        reading = pool.submit(sink.positions, "kafka", {})
        with pytest.raises(TimeoutError):
            reading.result(0.3)
    assert reading.result() == {("users", 0): 2}


def test_messages_below_the_position_are_skipped(path: Path) -> None:
    sink = DuckDBSink(path)
    assert new_rows(sink.commit([batch([0, 1, 2])])) == 3
    assert new_rows(sink.commit([batch([1, 2, 3]), batch([0], partition=1), batch([0], source="spool")])) == 3
    assert offsets(path) == [0, 1, 2, 3, 0, 0]
    assert new_rows(sink.commit([batch([0, 1])])) == 0
    assert sink.positions("kafka", {})["users", 0] == 4


def test_commits_of_one_session_are_separate_transactions(path: Path) -> None:
    sink = DuckDBSink(path)
    with pytest.raises(KeyError), sink.session():
        assert new_rows(sink.commit([pulled("a", "b")])) == 2
        assert new_rows(sink.commit([pulled("b")])) == 1
        sink.commit([pulled("lost"), Batch({"nope": table([0])})])
    assert new_rows(sink.commit([pulled("c")])) == 1
    landed = query(path, "select message_id, dense_rank() over (order by landed_at) from raw.clicks order by 2, 1")
    assert landed == [("a", 1), ("b", 1), ("b", 2), ("c", 3)]


def test_batches_of_one_commit_land_together(path: Path) -> None:
    sink = DuckDBSink(path)
    assert new_rows(sink.commit([batch([0, 1]), batch([2, 3]), batch([4], stream="posts"), pulled("a")])) == 6
    assert offsets(path) == [0, 1, 2, 3]
    assert sink.positions("kafka", {}) == {("users", 0): 4, ("posts", 0): 5}
    assert len(query(path, "select landed_at from raw.users union select landed_at from raw.posts")) == 1


def test_a_recreated_topic_is_read_from_its_beginning(path: Path) -> None:
    """Its offsets begin at 0. The positions of the topic before it stay: a loader may still hold a batch of it."""
    sink = DuckDBSink(path)
    assert new_rows(sink.commit([batch([0, 1, 2], topic_id="old")])) == 3
    assert sink.positions("kafka", {"users": "new"}) == {}
    assert new_rows(sink.commit([batch([2, 3], topic_id="old"), batch([0, 1], topic_id="new")])) == 3
    assert new_rows(sink.commit([batch([3], topic_id="old"), batch([1, 2], topic_id="new")])) == 1
    assert sink.positions("kafka", {"users": "old"}) == {("users", 0): 4}
    assert sink.positions("kafka", {"users": "new"}) == {("users", 0): 3}
    assert offsets(path) == [0, 0, 1, 1, 2, 2, 3]
    assert query(path, "select count(distinct (message_id, landed_at)) from raw.users") == [(7,)]


def test_a_topic_and_a_spool_log_of_one_name_have_positions_of_their_own(path: Path) -> None:
    sink = DuckDBSink(path)
    both = [batch([0, 1], topic_id="id"), batch([7], source="spool")]
    assert new_rows(sink.commit(both)) == 3
    assert sink.positions("kafka", {"users": "id"}) == {("users", 0): 2}
    assert sink.positions("spool", {}) == {("users", 0): 8}
    assert new_rows(sink.commit(both)) == 0


def test_positions_are_kept_when_a_broker_starts_to_give_topic_ids(path: Path) -> None:
    sink = DuckDBSink(path)
    assert new_rows(sink.commit([batch([0, 1, 2])])) == 3
    assert sink.positions("kafka", {"users": "id"}) == {("users", 0): 3}
    assert new_rows(sink.commit([batch([1, 2, 3], topic_id="id")])) == 1
    assert sink.positions("kafka", {"users": "id"}) == {("users", 0): 4}
    assert new_rows(sink.commit([batch([3, 4], topic_id="id")])) == 1


def test_a_redelivery_within_a_commit_is_landed_once(path: Path) -> None:
    sink = DuckDBSink(path)
    assert new_rows(sink.commit([pulled("a", "b", "a"), pulled("b", "c")])) == 3
    assert new_rows(sink.commit([pulled("a")])) == 1  # in another commit staging counts it as a duplicate
    counts = query(path, "select message_id, count(*) from raw.clicks group by all order by all")
    assert counts == [("a", 2), ("b", 1), ("c", 1)]


class BrokenOffError(Exception):
    pass


@pytest.mark.parametrize("statement", range(20))
def test_a_commit_that_fails_at_any_statement_is_rolled_back(
    path: Path, monkeypatch: pytest.MonkeyPatch, statement: int
) -> None:
    """Each statement in turn fails: rows and positions are either all old or all new."""
    DuckDBSink(path).commit([batch([0])])
    sink = DuckDBSink(path)
    executed: list[str] = []

    class Breaking:
        def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
            self._connection = connection

        def __getattr__(self, name: str) -> Any:
            def call(*arguments: Any) -> Any:
                if name.startswith("execute"):
                    if len(executed) == statement:
                        raise BrokenOffError
                    executed.append(arguments[0])
                return getattr(self._connection, name)(*arguments)

            return call

    whole = WarehouseFile.untranslated_connection

    @contextmanager
    def connection(self: WarehouseFile, read_only: bool = False) -> Iterator[Any]:
        with whole(self, read_only) as opened:
            yield opened if read_only else Breaking(opened)

    monkeypatch.setattr(WarehouseFile, "untranslated_connection", connection)
    try:
        sink.commit([batch([1, 2]), batch([0], stream="posts")])
        broke = False
    except BrokenOffError:
        broke = True
    monkeypatch.undo()
    assert broke or executed[-1] == "commit"
    after = [] if broke else [1, 2]
    assert offsets(path) == [0, *after]
    assert offsets(path, "posts") == ([] if broke else [0])
    assert sink.positions("kafka", {}) == {("users", 0): 1} if broke else {("users", 0): 3, ("posts", 0): 1}


def test_positions_move_without_a_message(path: Path) -> None:
    """Past a transaction marker, in a topic with and in one without messages."""
    sink = DuckDBSink(path)
    marker = Batch({}, {("users", 0): 3, ("posts", 1): 7}, {"users": "id"}, source="kafka")
    assert sink.commit([marker]) == {}
    assert sink.positions("kafka", {"users": "id"}) == {("users", 0): 3, ("posts", 1): 7}
    assert sink.commit([batch([1, 2, 3], topic_id="id"), marker]) == {"users": 1}
    assert sink.positions("kafka", {"users": "id"})["users", 0] == 4


# -- a warehouse that was replaced ------------------------------------------------------------------------------------


def replace(path: Path, how: str) -> None:
    """Replace the warehouse by a backup of the first commit, or remove it."""
    backup = path.with_name("backup")
    match how:
        case "backup copied over it":
            shutil.copyfile(backup, path)
        case "backup moved to its place":
            backup.replace(path)
        case "moved away":
            path.rename(path.with_name("elsewhere"))


HOW = ("backup copied over it", "backup moved to its place", "moved away")


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("new", [batch([3]), batch([0], partition=1), pulled("d")])
def test_nothing_is_landed_in_a_replaced_warehouse_until_sources_are_reset(path: Path, how: str, new: Batch) -> None:
    """Whatever the next call is, also from a partition without missing messages."""
    sink = DuckDBSink(path)
    sink.commit([batch([0])])
    shutil.copyfile(path, path.with_name("backup"))
    sink.commit([batch([1, 2])])
    replace(path, how)
    for _ in range(2):  # also for the commit of another source that was already running
        with pytest.raises(WarehouseReplacedError, match=r"in which less is landed: from kafka users/0 "):
            sink.commit([new])
    for look in (sink.verify, lambda: sink.positions("kafka", {})):
        with pytest.raises(WarehouseReplacedError):
            look()
    sink.forget()
    restored = 0 if how == "moved away" else 1
    assert sink.positions("kafka", {}) == ({("users", 0): restored} if restored else {})
    assert sink.commit([batch([0, 1, 2])]) == {"users": 3 - restored}
    assert offsets(path) == [0, 1, 2]


@pytest.mark.parametrize("how", HOW)
def test_a_warehouse_is_verified_when_its_file_has_changed(path: Path, how: str) -> None:
    sink = DuckDBSink(path)
    sink.verify()
    sink.commit([batch([0])])
    shutil.copyfile(path, path.with_name("backup"))
    sink.commit([batch([1, 2])])
    sink.verify()
    DuckDBSink(path).commit([batch([5], partition=1)])  # another loader, or a build
    sink.verify()
    replace(path, how)
    with pytest.raises(WarehouseReplacedError):
        sink.verify()


def test_verifying_neither_opens_an_unchanged_file_nor_waits_for_a_held_one(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = DuckDBSink(path)
    sink.commit([batch([0])])
    opened: list[Any] = []
    connect = duckdb.connect
    monkeypatch.setattr(duckdb, "connect", lambda *given, **options: opened.append(given) or connect(*given, **options))
    sink.verify()
    assert len(opened) == 1
    sink.verify()
    assert len(opened) == 1
    os.utime(path)
    with held(path, 60):
        started = time.monotonic()
        sink.verify()
        assert time.monotonic() - started < 5
    assert len(opened) == 2
    path.write_bytes(b"half of a copy")
    sink.verify()  # as while the file is being copied
    with pytest.raises(UserError, match="cannot open the warehouse"):
        sink.commit([batch([1])])


@pytest.mark.parametrize("how", HOW)
def test_the_count_of_pubsub_messages_reveals_a_replaced_warehouse(path: Path, how: str) -> None:
    """Pub/Sub does not redeliver them, so the error names the topic."""
    sink = DuckDBSink(path)
    sink.commit([pulled("a")])
    shutil.copyfile(path, path.with_name("backup"))
    sink.commit([pulled("b", "c")])
    replace(path, how)
    with pytest.raises(WarehouseReplacedError, match=r"from pubsub clicks up to [01], and 3 was landed"):
        sink.commit([pulled("d")])
    sink.forget()
    assert sink.commit([pulled("d")]) == {"clicks": 1}


# -- landing time -----------------------------------------------------------------------------------------------------


def test_landing_time_increases_even_if_the_clock_goes_back(path: Path) -> None:
    times = iter([NOON, NOON, NOON - timedelta(days=1), NOON + MICROSECOND, NOON + timedelta(hours=1)])
    sink = DuckDBSink(path, clock=lambda: next(times))
    for offset in range(5):
        sink.commit([batch([offset])])
    assert [row[0] for row in query(path, 'select landed_at from raw.users order by "offset"')] == [
        *(NOON + number * MICROSECOND for number in range(4)),
        NOON + timedelta(hours=1),
    ]


def test_landing_time_is_later_than_that_of_every_table_of_the_commit(path: Path) -> None:
    times = iter([NOON, NOON - timedelta(days=1)])
    sink = DuckDBSink(path, clock=lambda: next(times))
    sink.commit([batch([0], stream="posts")])
    sink.commit([batch([0]), batch([1], stream="posts")])
    assert query(path, "select landed_at from raw.users") == [(NOON + MICROSECOND,)]


# -- the file ---------------------------------------------------------------------------------------------------------


def test_a_commit_has_a_memory_limit_unless_its_messages_need_more(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = DuckDBSink(path)

    def memory_limit() -> str:
        with sink.connection() as connection:
            return str(connection.sql("select current_setting('memory_limit')").fetchall()[0][0])

    large = Batch({"clicks": pa.concat_tables([large_pulled(number) for number in range(40)])})
    with sink.session():
        own = memory_limit()
        sink.commit([pulled("a")])
        assert memory_limit() == "384.0 MiB" != own
        monkeypatch.setattr(duckdb_sink, "MEMORY_LIMIT", "16 MiB")
        assert new_rows(sink.commit([large])) == 40
        assert memory_limit() == own
        assert new_rows(sink.commit([pulled("b")])) == 1
    assert new_rows(sink.commit([large])) == 40
    assert query(path, "select count(*), count(distinct landed_at) from raw.clicks") == [(82, 4)]


def large_pulled(number: int) -> pa.Table:
    row = {"source": "pubsub", "topic": "clicks", "message_id": str(number), "payload": os.urandom(1_000_000)}
    return pa.Table.from_pylist([row], BATCH_SCHEMA)


@contextmanager
def held(path: Path, seconds: float) -> Iterator[int]:
    """Hold the file in another process; yields the process id."""
    script = "import duckdb, sys, time; c = duckdb.connect(sys.argv[1]); sys.stdout.write('held\\n')\n"
    script += "sys.stdout.flush(); time.sleep(float(sys.argv[2]))"
    command = [sys.executable, "-c", script, str(path), str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process.pid
        finally:
            process.kill()


@pytest.mark.parametrize("write", [True, False])
def test_a_file_held_longer_than_the_timeout_is_an_error_that_names_the_holder(path: Path, write: bool) -> None:
    DuckDBSink(path).create_tables()
    sink = DuckDBSink(path, lock_timeout_seconds=0.5)
    with held(path, 60) as holder:
        started = time.monotonic()
        with pytest.raises(UserError, match=rf"held by another process \(PID {holder}\) for 0.5 s") as caught:
            sink.commit([batch([0])]) if write else sink.positions("kafka", {})
        assert 0.5 <= time.monotonic() - started < 5
        assert "\n" not in str(caught.value)
    assert new_rows(sink.commit([batch([0])])) == 1


def test_a_held_file_is_waited_for(path: Path) -> None:
    DuckDBSink(path).create_tables()
    with held(path, 1.0):
        started = time.monotonic()
        assert new_rows(DuckDBSink(path, lock_timeout_seconds=30).commit([batch([0])])) == 1
        assert time.monotonic() - started > 0.5
    assert offsets(path) == [0]


@pytest.mark.parametrize("name", ["warehouse.duckdb", "events.csv", "events.json", "events.parquet", "events.txt"])
@pytest.mark.parametrize(
    "content", [b"", b"event_time,event_type\n1,view\n", b'[{"a": 1}]\n', b"PAR1", b"\x00" * 100_000]
)
def test_a_file_that_is_not_a_database_is_an_error(tmp_path: Path, name: str, content: bytes) -> None:
    """DuckDB would open a CSV file as an in-memory database."""
    path = tmp_path / name
    path.write_bytes(content)
    sink = DuckDBSink(path)
    for attempt in (sink.create_tables, sink.status, lambda: sink.commit([batch([0])])):
        with pytest.raises(UserError, match=rf"cannot open the warehouse {re.escape(str(path))}: .+") as caught:
            attempt()
        assert "\n" not in str(caught.value)
    assert path.read_bytes() == content


def test_a_damaged_file_is_an_error(path: Path) -> None:
    DuckDBSink(path).commit([batch([0])])
    content = bytearray(path.read_bytes())
    content[20:40] = b"x" * 20
    path.write_bytes(content)
    with pytest.raises(UserError, match="cannot open the warehouse"):
        DuckDBSink(path).create_tables()


def test_a_damaged_block_is_an_error(path: Path) -> None:
    """For landing as well as for a build."""
    sink = DuckDBSink(path)
    sink.commit([Batch({"clicks": pa.concat_tables([large_pulled(number) for number in range(3)])})])
    content = bytearray(path.read_bytes())
    for start in range(len(content) // 2, len(content), 65_536):
        content[start : start + 100] = os.urandom(100)
    path.write_bytes(content)
    with (
        pytest.raises(UserError, match=r"cannot read or write .*: Corrupt .*; the file is damaged: restore") as caught,
        sink.connection() as connection,
    ):
        connection.execute("select * from raw.clicks").fetchall()
    assert "\n" not in str(caught.value)


def test_ctrl_c_in_a_statement_is_a_keyboard_interrupt(path: Path) -> None:
    """DuckDB raises one of two errors of its own instead."""
    sink = DuckDBSink(path)
    sink.create_tables()
    with pytest.raises(KeyboardInterrupt), sink.connection() as connection:
        threading.Timer(0.2, connection.interrupt).start()
        connection.execute("select count(*) from range(100000000000) where hash(range) = 8").fetchall()
    with pytest.raises(KeyboardInterrupt), sink.connection():
        raise RuntimeError("Query interrupted")
    with pytest.raises(RuntimeError, match="another"), sink.connection():
        raise RuntimeError("another")


@contextmanager
def full_disk(bytes_left: int) -> Iterator[None]:
    """Limit the size of files that this process writes, in bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_waited_for_and_loses_nothing(path: Path) -> None:
    sink = DuckDBSink(path)
    sink.commit([batch([0])])
    large = Batch({"clicks": pa.concat_tables([large_pulled(number) for number in range(3)])})
    with full_disk(1_000_000):
        for _ in range(2):
            with pytest.raises(UnavailableError, match=r"cannot read or write .*; free some space: nothing is lost"):
                sink.commit([large])
        with sink.session(), pytest.raises(UnavailableError):
            sink.commit([large])
    assert sink.commit([large]) == {"clicks": 3}
    assert sink.commit([batch([0, 1])]) == {"users": 1}
    assert query(path, "select count(*), count(distinct message_id) from raw.clicks") == [(3, 3)]


# -- storage versions -------------------------------------------------------------------------------------------------


def storage_version(path: Path) -> int:
    """Return the storage version in the file's header: 64 for DuckDB 0.10 to 1.1, 65 for 1.2."""
    return int.from_bytes(path.read_bytes()[12:20], "little")


def test_duckdb_1_2_can_read_a_new_file(path: Path) -> None:
    sink = DuckDBSink(path)
    sink.commit([batch([0])])
    assert storage_version(path) == 65
    assert query(path, "select compression from pragma_storage_info('raw.users') where column_name = 'payload'")
    with sink.connection() as connection:
        connection.execute("create table marts as select * from range(1000)")
        connection.execute("checkpoint")
    assert storage_version(path) == 65


@pytest.mark.parametrize(("version", "number"), [("v0.10.0", 64), ("v1.1.0", 64), ("v1.5.0", 68)])
def test_an_existing_file_keeps_its_version_and_can_be_landed_in(path: Path, version: str, number: int) -> None:
    with duckdb.connect() as connection:
        connection.execute(f"attach '{path}' as warehouse (storage_version '{version}')")
    sink = DuckDBSink(path)
    assert sink.commit([batch([0, 1]), pulled("a")]) == {"users": 2, "clicks": 1}
    assert offsets(path) == [0, 1]
    assert storage_version(path) == number


@pytest.mark.older_duckdb
def test_duckdb_1_2_reads_what_was_landed_and_built(older_duckdb: Path, shop: Warehouse) -> None:
    """Every table and view, in the warehouse itself and in the copy that is published."""
    script = """
import duckdb, sys
connection = duckdb.connect(sys.argv[1], read_only=True)
for table in sys.argv[2:]:
    print(connection.sql(f"select count(*) from (select distinct * from {table})").fetchall()[0][0])
"""
    current = shop.folder / "warehouse.duckdb.published" / "current" / "warehouse.duckdb"
    for path in (shop.path, current):
        tables = [
            f"{schema}.{table}"
            for schema, table in query(path, "select table_schema, table_name from information_schema.tables")
        ]
        done = subprocess.run([older_duckdb, "-c", script, path, *tables], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert list(map(int, done.stdout.split())) == [
            query(path, f"select count(*) from (select distinct * from {table})")[0][0] for table in tables
        ]


# -- folders ----------------------------------------------------------------------------------------------------------


def test_a_missing_folder_is_an_error_at_once_whatever_its_name(tmp_path: Path) -> None:
    """Even if its name has words of DuckDB's error about a locked file."""
    started = time.monotonic()
    with pytest.raises(UserError, match="No such file or directory; see WAREHOUSE_PATH"):
        DuckDBSink(tmp_path / "lock" / "w.duckdb").create_tables()
    assert time.monotonic() - started < 5


# -- status -----------------------------------------------------------------------------------------------------------


def test_status_counts_what_landed_and_what_the_last_build_rejected(path: Path) -> None:
    sink = DuckDBSink(path, clock=lambda: NOON)
    assert set(sink.status()) == set(STREAMS)
    assert set(sink.status().values()) == {StreamStatus(0, None, None)}
    assert not path.exists()
    sink.commit([batch([0, 1])])
    assert sink.status()["users"] == StreamStatus(2, NOON, None)
    with sink.connection() as connection:
        connection.execute("create schema analytics")
        connection.execute(f"create table analytics.dead_letters as {DEAD_LETTERS}")
    assert sink.status()["users"] == StreamStatus(2, NOON, 3)
    assert sink.status()["posts"] == StreamStatus(0, None, 0)


DEAD_LETTERS = "select 'users' as stream, if(range = 3, timestamp '2026-01-01', null) as recovered_at from range(4)"


def test_status_waits_for_a_build_after_an_upgrade(path: Path) -> None:
    sink = DuckDBSink(path, clock=lambda: NOON)
    sink.commit([batch([0])])
    with sink.connection() as connection:
        connection.execute("create schema analytics; create table analytics.dead_letters as select 'users' as stream")
    assert sink.status()["users"] == StreamStatus(1, NOON, None)


def test_unlisted_fields_are_counted_once_a_stream_is_staged(path: Path) -> None:
    sink = DuckDBSink(path, clock=lambda: NOON)
    assert sink.unlisted_fields("users") is None
    sink.commit([batch([0])])
    assert sink.unlisted_fields("users") is None
    with sink.connection() as connection:
        connection.execute("create schema analytics; create schema staging; create table staging.stg_users (a int)")
        connection.execute(f"create table analytics.field_drift as {DRIFT}")
    assert sink.unlisted_fields("users") is None
    with sink.connection() as connection:
        connection.execute("insert into staging.stg_users values (1)")
    assert sink.unlisted_fields("users") == [
        UnlistedField("b", "string", "aa", 5),
        UnlistedField("a", "number", "9", 3),
    ]
    assert sink.unlisted_fields("posts") is None


DRIFT = """
select 'users' as stream, 'unlisted' as problem, 'a' as path, 'number' as type, '9' as example, 3 as messages
union all select 'users', 'unlisted', 'b', 'string', 'aa', 5
union all select 'users', 'invalid', 'c', 'string', 'aa', 7
union all select 'posts', 'unlisted', 'd', 'string', 'aa', 9
"""


def test_status_works_on_a_warehouse_older_than_a_stream(path: Path) -> None:
    sink = DuckDBSink(path, clock=lambda: NOON)
    sink.commit([batch([0])])
    with sink.connection() as connection:
        connection.execute("drop table raw.posts")
    assert sink.status()["posts"] == StreamStatus(0, None, None)
    assert sink.status()["users"].landed == 1
