"""Landing from the spool: each message lands exactly once, whatever the sources do and whenever it is killed."""

import json
import os
import random
import resource
import shutil
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pyarrow as pa
import pytest

from common.errors import UnavailableError, UserError
from common.settings import Settings
from common.streams import STREAMS
from engines.batch import BATCH_SCHEMA, Batch, Positions, TopicIds
from engines.duckdb.sink import DuckDBSink
from engines.warehouse import StreamStatus
from ingest import landing
from ingest.landing import land, land_streams
from ingest.message import Message
from ingest.producers.spool import SpoolProducer
from ingest.sources.spool import SpoolSource
from tools.brokers import free_port

from .conftest import Start

SPOOLED = ["users", "posts", "clicks"]


def publish(settings: Settings, numbers: Iterable[int]) -> None:
    """Produce one message per number to three streams."""
    producer = SpoolProducer(settings)
    messages = [Message(b"%d" % number) for number in numbers]
    for stream in SPOOLED:
        producer.produce(STREAMS[stream], messages)


def landed(settings: Settings, stream: str = "users") -> list[int]:
    """Return the landed numbers of a stream, sorted; empty before the first commit."""
    sink = DuckDBSink(settings.warehouse_path)
    if not settings.warehouse_path.exists():
        return []
    with sink.connection(read_only=True) as connection:
        if not connection.execute("select 1 from duckdb_tables() where table_name = ?", [stream]).fetchall():
            return []
        rows = connection.execute(f"select payload from raw.{stream}").fetchall()
    return sorted(int(payload) for (payload,) in rows)


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


# -- the loop ---------------------------------------------------------------------------------------------------------


class Scripted:
    """A source that returns batches of the given numbers of rows; None stands for no waiting message."""

    idle_timeout_seconds = 0.0

    def __init__(self, *script: int | None, seconds: float = 0.0) -> None:
        self._script = deque(script)
        self._seconds = seconds
        self.acknowledged = 0

    def fetch(self, timeout: float) -> Batch | None:
        time.sleep(self._seconds)
        rows = self._script.popleft() if self._script else None
        if rows is None:
            return None
        row = {"source": "kafka", "topic": "users", "message_id": "x", "payload": b"x" * 100}
        return Batch({"users": pa.Table.from_pylist([row] * rows, BATCH_SCHEMA)})

    def acknowledge(self, batch: Batch) -> None:
        self.acknowledged += batch.rows

    def waiting(self) -> dict[str, int | None]:
        return {}

    def close(self) -> None:
        pass


class Commits:
    """A sink that records its commits, and the acknowledgements before each commit."""

    def __init__(self, *sources: Scripted, fails: bool = False) -> None:
        self._sources = sources
        self._fails = fails
        self.rows: list[int] = []
        self.acknowledged: list[int] = []

    def commit(self, batches: Sequence[Batch]) -> dict[str, int]:
        self.acknowledged.append(sum(source.acknowledged for source in self._sources))
        if self._fails:
            raise UserError("held")
        self.rows.append(sum(batch.rows for batch in batches))
        return {"users": self.rows[-1]}

    def verify(self) -> None:
        pass

    def positions(self, source: str, topic_ids: TopicIds) -> Positions:
        return {}

    def status(self) -> dict[str, StreamStatus]:
        return {}


def limits(**changes: Any) -> Settings:
    return Settings(_env_file=None, **changes)


def test_a_commit_is_due_at_rows_or_bytes_or_when_no_message_is_waiting() -> None:
    script = [10, 10, 10, 5, None]
    for changes, expected in (
        ({}, [35]),
        ({"landing_max_rows": 20}, [20, 15]),
        ({"landing_max_rows": 15}, [20, 15]),
        ({"landing_max_rows": 1}, [10, 10, 10, 5]),
        ({"landing_max_bytes": 2_000}, [20, 15]),
    ):
        source = Scripted(*script)
        sink = Commits(source)
        seen: list[int] = []
        report = land(limits(**changes), [source], sink, on_progress=seen.append)
        assert sink.rows == seen == expected
        assert (report.rows, report.commits) == (35, len(expected))


def test_messages_are_acknowledged_only_after_their_commit() -> None:
    source = Scripted(10, 10, None)
    sink = Commits(source)
    land(limits(landing_max_rows=10), [source], sink)
    assert sink.acknowledged == [0, 10]
    assert source.acknowledged == 20

    source = Scripted(10, None)
    with pytest.raises(UserError, match="held"):
        land(limits(), [source], Commits(source, fails=True))
    assert source.acknowledged == 0


def test_sources_share_commits_and_each_ends_when_it_is_drained() -> None:
    sources = [Scripted(1, None), Scripted(10, 10, None), Scripted(None)]
    sink = Commits(*sources)
    land(limits(landing_max_rows=10), list(sources), sink)
    assert sum(sink.rows) == 21
    assert [source.acknowledged for source in sources] == [1, 20, 0]


def test_a_busy_stream_does_not_keep_landing_from_ending() -> None:
    """Messages arrive during each commit, but landing ends once those that were waiting at its start have landed."""
    source = Scripted(*[10, None] * 1_000)
    sink = Commits(source)
    land(limits(), [source], sink)
    assert sink.rows == [10]


def test_a_source_is_not_drained_before_its_idle_timeout() -> None:
    source = Scripted(10, None, 10, None, None, seconds=0.02)
    source.idle_timeout_seconds = 0.2
    sink = Commits(source)
    land(limits(landing_max_seconds=0.1), [source], sink)
    assert sum(sink.rows) == 20


def test_following_commits_after_the_maximum_seconds_and_ends_when_stopped() -> None:
    source = Scripted(*[1] * 1_000, seconds=0.01)
    sink = Commits(source)
    stop = threading.Event()
    thread = threading.Thread(
        target=land, args=(limits(landing_max_seconds=0.2), [source], sink), kwargs={"follow": True, "stop": stop}
    )
    thread.start()
    wait_for(lambda: len(sink.rows) >= 3)
    stop.set()
    thread.join(5)
    assert not thread.is_alive()
    assert all(rows <= 25 for rows in sink.rows)
    assert max(sink.rows) >= 2
    assert source.acknowledged == sum(sink.rows)


# -- the spool and DuckDB ---------------------------------------------------------------------------------------------


def land_spool(settings: Settings) -> int:
    sink = DuckDBSink(settings.warehouse_path)
    source = SpoolSource(settings, list(STREAMS.values()), lambda ids: sink.positions("spool", ids))
    return land(settings, [source], sink).rows


def test_two_concurrent_loaders_land_each_message_once(settings: Settings) -> None:
    settings = settings.model_copy(update={"landing_max_rows": 50})
    publish(settings, range(500))
    counts: list[int] = []
    # In separate processes, since DuckDB shares a file within a process. Both read positions before either lands.
    sinks = [DuckDBSink(settings.warehouse_path) for _ in range(2)]
    sources = [
        SpoolSource(settings, [STREAMS["users"]], lambda ids: sinks[0].positions("spool", ids)) for _ in range(2)
    ]
    while True:
        fetched = [source.fetch(0) for source in sources]
        if fetched == [None, None]:
            break
        counts += [sum(sink.commit([batch]).values()) for sink, batch in zip(sinks, fetched, strict=True) if batch]
    assert landed(settings) == list(range(500))
    assert counts == [50, 0] * 10


def test_landing_again_lands_only_new_messages(settings: Settings) -> None:
    publish(settings, range(100))
    assert land_spool(settings) == 300
    assert land_spool(settings) == 0
    publish(settings, range(100, 110))
    assert land_spool(settings) == 30
    assert landed(settings) == landed(settings, "posts") == landed(settings, "clicks") == list(range(110))


def test_a_kill_at_any_time_neither_loses_nor_duplicates_messages(settings: Settings, start: Start) -> None:
    """Loaders are killed at random times until three were killed after a commit; then one lands the rest."""
    seed = random.randrange(10**9)
    draw = random.Random(seed)
    published = range(10_000)
    publish(settings, published)
    before = 0
    in_the_midst = 0
    while in_the_midst < 3:
        # Hundreds of commits of about 40 ms, so that the kill comes after some and before the last.
        written = _written(settings)
        loader = start("land", LANDING_MAX_ROWS="100")
        wait_for(lambda written=written: _written(settings) != written)
        time.sleep(draw.uniform(0, 0.5))
        loader.kill()
        loader.communicate()
        assert loader.returncode == -signal.SIGKILL, f"seed {seed}: it ended by itself"
        found = sum(len(landed(settings, stream)) for stream in SPOOLED)
        in_the_midst += found > before
        before = found
        for stream in SPOOLED:
            numbers = landed(settings, stream)
            assert numbers == list(range(len(numbers))), f"seed {seed}: {stream} has a hole or a double after a kill"
    loader = start("land")
    out, err = loader.communicate()
    assert (loader.returncode, err) == (0, "")
    assert "landed" in out
    for stream in SPOOLED:
        assert landed(settings, stream) == list(published), f"seed {seed}: {stream}"
    sink = DuckDBSink(settings.warehouse_path)
    with sink.connection(read_only=True) as connection:
        [(distinct, rows)] = connection.sql("select count(distinct message_id), count(*) from raw.users").fetchall()
    assert distinct == rows == len(published)


def _written(settings: Settings) -> int:
    return settings.warehouse_path.stat().st_mtime_ns if settings.warehouse_path.exists() else 0


# -- following --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_following_lands_appended_messages_until_a_signal(
    settings: Settings, start: Start, ending: signal.Signals
) -> None:
    publish(settings, range(10))
    loader = start("land", "--follow", LANDING_MAX_SECONDS="0.2")
    wait_for(lambda: landed(settings, "clicks") == list(range(10)))
    publish(settings, range(10, 20))
    wait_for(lambda: landed(settings, "clicks") == list(range(20)))
    # Send the signal while messages arrive.
    for number in range(20, 60):
        publish(settings, [number])
        if number == 40:
            loader.send_signal(ending)
        time.sleep(0.01)
    out, err = loader.communicate(timeout=20)
    assert loader.returncode == 0
    assert out.startswith("landed ")
    commits = [json.loads(line) for line in err.splitlines()]
    assert {commit["event"] for commit in commits} == {"committed"}
    assert sum(commit["messages"] for commit in commits) == int(out.split()[1])
    kept = {stream: landed(settings, stream) for stream in SPOOLED}
    assert all(numbers == list(range(len(numbers))) and len(numbers) >= 20 for numbers in kept.values())
    assert int(out.split()[1]) == sum(map(len, kept.values()))
    land_spool(settings)
    assert all(landed(settings, stream) == list(range(60)) for stream in SPOOLED)


def test_following_serves_metrics_and_logs_no_payload(settings: Settings, start: Start) -> None:
    port = free_port()
    producer = SpoolProducer(settings)
    message = Message(b"SECRET", b"SECRET", {"SECRET": "SECRET"}, published_at=time.time_ns() // 1000)
    producer.produce(STREAMS["users"], [message] * 10)
    loader = start("land", "--follow", "--metrics-port", str(port), LANDING_MAX_SECONDS="0.2")

    def metrics() -> dict[str, float]:
        try:
            with urlopen(f"http://127.0.0.1:{port}/metrics") as page:
                lines = [line.rpartition(" ") for line in page.read().decode().splitlines() if line[0] != "#"]
        except URLError:
            return {}
        return {name: float(value) for name, _, value in lines}

    wait_for(lambda: metrics().get('landing_messages_total{stream="users"}') == 10)
    assert metrics()["landing_commit_seconds_count"] == 1
    assert 0 <= metrics()['landing_lag_seconds{stream="users"}'] < 60
    second = start("land", "--metrics-port", str(port))
    assert second.communicate(timeout=30) == (
        "",
        f"error: --metrics-port {port} on 127.0.0.1: Address already in use\n",
    )
    assert second.returncode == 2
    loader.terminate()
    out, err = loader.communicate(timeout=20)
    [commit] = [json.loads(line) for line in err.splitlines()]
    assert (commit["messages"], commit["already_landed"]) == (10, 0)
    assert 0 <= commit["lag_seconds"]["users"] < 60
    assert "SECRET" not in out + err


def test_following_releases_the_file_between_commits(settings: Settings, start: Start) -> None:
    """Another process (this test) can write to the warehouse; landing waits meanwhile, and then continues."""
    loader = start("land", "--follow", LANDING_MAX_SECONDS="0.2")
    publish(settings, range(10))
    wait_for(lambda: len(landed(settings)) == 10)
    with DuckDBSink(settings.warehouse_path, lock_timeout_seconds=5).connection() as connection:
        connection.execute("create table mine as select 1 as one")
        publish(settings, range(10, 20))
        time.sleep(1)
        assert loader.poll() is None
        assert connection.sql("select count(*) from raw.users").fetchall() == [(10,)]
    wait_for(lambda: len(landed(settings)) == 20)
    loader.terminate()
    assert loader.wait(20) == 0


def test_following_retries_while_another_process_holds_the_file(settings: Settings, start: Start) -> None:
    loader = start("land", "--follow", LANDING_MAX_SECONDS="0.2", LOCK_TIMEOUT_SECONDS="0.5")
    publish(settings, range(10))
    wait_for(lambda: len(landed(settings)) == 10)
    with DuckDBSink(settings.warehouse_path).connection():
        publish(settings, range(10, 20))
        time.sleep(3)
        assert loader.poll() is None
    wait_for(lambda: len(landed(settings)) == 20)
    loader.terminate()
    _, err = loader.communicate(timeout=20)
    assert loader.returncode == 0
    assert "landing waits for the warehouse" in err
    assert f"PID {os.getpid()}" in err


@pytest.mark.slow
def test_following_waits_for_a_file_that_is_held_at_its_start(settings: Settings, start: Start) -> None:
    publish(settings, range(10))
    land_spool(settings)
    with DuckDBSink(settings.warehouse_path).connection():
        publish(settings, range(10, 20))
        loader = start("land", "--follow", LANDING_MAX_SECONDS="0.2", LOCK_TIMEOUT_SECONDS="0")
        assert loader.stderr is not None
        assert "landing waits" in loader.stderr.readline()
        assert loader.poll() is None
    wait_for(lambda: len(landed(settings)) == 20)
    loader.terminate()
    assert loader.wait(20) == 0


@pytest.mark.slow
def test_stopping_while_the_file_is_held_ends_without_loss(settings: Settings, start: Start) -> None:
    loader = start("land", "--follow", LANDING_MAX_SECONDS="0.2", LOCK_TIMEOUT_SECONDS="1")
    publish(settings, range(10))
    wait_for(lambda: len(landed(settings)) == 10)
    with DuckDBSink(settings.warehouse_path).connection():
        publish(settings, range(10, 20))
        time.sleep(0.5)
        loader.terminate()
        out, err = loader.communicate(timeout=20)
    assert (loader.returncode, out) == (2, "")
    assert err.splitlines()[-1].startswith("error: the warehouse")
    land_spool(settings)
    assert landed(settings) == list(range(20))


def test_stopping_does_not_wait_until_a_commit_is_due() -> None:
    stop = threading.Event()
    timeouts: list[float] = []

    class Stopping(Scripted):
        def fetch(self, timeout: float) -> Batch | None:
            assert not stop.is_set(), "it fetches on"
            timeouts.append(timeout)
            if len(timeouts) == 3:
                stop.set()
            return super().fetch(timeout)

    source = Stopping(10)
    sink = Commits(source)
    land(limits(landing_max_seconds=300), [source], sink, follow=True, stop=stop)
    assert timeouts == [1.0] * 3
    assert (sink.rows, source.acknowledged) == ([10], 10)


def test_following_retries_while_the_warehouse_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same batch is retried with growing pauses."""
    monkeypatch.setattr(landing, "MAX_RETRY_SECONDS", 3.0)
    stop = threading.Event()
    waits: list[float] = []
    monkeypatch.setattr(stop, "wait", lambda seconds: bool(waits.append(seconds)))
    source = Scripted(10)

    class Unavailable(Commits):
        def commit(self, batches: Sequence[Batch]) -> dict[str, int]:
            if len(waits) < 4:
                raise UnavailableError("503")
            stop.set()
            return super().commit(batches)

    sink = Unavailable(source)
    report = land(limits(landing_max_seconds=0.1), [source], sink, follow=True, stop=stop)
    assert waits == [1.0, 2.0, 3.0, 3.0]
    assert (report.rows, sink.rows, source.acknowledged) == (10, [10], 10)


# -- a warehouse that is replaced -------------------------------------------------------------------------------------


def back_up(settings: Settings) -> Path:
    backup = settings.warehouse_path.with_name("backup.duckdb")
    with DuckDBSink(settings.warehouse_path).connection(read_only=True):  # between two commits
        shutil.copyfile(settings.warehouse_path, backup)
    return backup


@pytest.mark.parametrize(
    ("how", "is_idle"),
    [
        pytest.param("restored", True, marks=pytest.mark.slow),
        pytest.param("restored", False, marks=pytest.mark.slow),
        pytest.param("moved away", True, marks=pytest.mark.slow),
        ("moved away", False),
    ],
)
def test_a_warehouse_replaced_while_following_gets_its_missing_messages(
    settings: Settings, start: Start, how: str, is_idle: bool
) -> None:
    """Also for streams without new messages, and if no stream has new messages."""
    loader = start("land", "--follow", LANDING_MAX_SECONDS="0.2")
    publish(settings, range(10))
    wait_for(lambda: landed(settings, "clicks") == list(range(10)))
    backup = back_up(settings)
    publish(settings, range(10, 2_000))
    wait_for(lambda: landed(settings, "clicks") == list(range(2_000)))
    if how == "restored":
        backup.replace(settings.warehouse_path)
    else:
        settings.warehouse_path.rename(settings.warehouse_path.with_name("elsewhere.duckdb"))
    expected = dict.fromkeys(SPOOLED, 2_000)
    if not is_idle:
        SpoolProducer(settings).produce(STREAMS["users"], [Message(b"%d" % number) for number in range(2_000, 2_100)])
        expected["users"] = 2_100
    wait_for(lambda: settings.warehouse_path.exists() and len(landed(settings, "users")) >= expected["users"])
    loader.terminate()
    _, err = loader.communicate(timeout=20)
    assert loader.returncode == 0, err
    for stream, count in expected.items():
        assert landed(settings, stream) == list(range(count)), err
    assert err.count("the warehouse was replaced") == 1
    assert land_spool(settings) == 0


def test_a_warehouse_replaced_while_landing_gets_its_missing_messages(settings: Settings) -> None:
    """Without --follow: it is replaced between the reading of positions and the commit."""
    publish(settings, range(10))
    sink = DuckDBSink(settings.warehouse_path)
    sink.create_tables()
    backup = back_up(settings)
    land_spool(settings)
    publish(settings, range(10, 20))

    def replace(sources: list[Any]) -> None:
        if backup.exists():
            backup.replace(settings.warehouse_path)

    report = land_streams(settings, list(STREAMS.values()), sink, on_open=replace)
    assert report.rows == 60
    assert landed(settings) == landed(settings, "posts") == list(range(20))


# -- a full disk ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_following_retries_while_the_disk_is_full(settings: Settings, start: Start) -> None:
    loader = start("land", "--follow", LANDING_MAX_SECONDS="0.2")
    publish(settings, range(10))
    wait_for(lambda: landed(settings, "clicks") == list(range(10)))
    limit = settings.warehouse_path.stat().st_size + 200_000
    resource.prlimit(loader.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    publish(settings, range(10, 20))
    SpoolProducer(settings).produce(STREAMS["web_events"], [Message(os.urandom(100_000)) for _ in range(100)])
    assert loader.stderr is not None
    while "free some space: nothing is lost" not in (line := loader.stderr.readline()):
        assert line, "it ended"
    assert json.loads(line)["event"] == "landing waits for the warehouse"
    time.sleep(1)
    assert loader.poll() is None
    resource.prlimit(loader.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    wait_for(lambda: landed(settings, "clicks") == list(range(20)))
    loader.terminate()
    _, err = loader.communicate(timeout=20)
    assert loader.returncode == 0, err
    assert DuckDBSink(settings.warehouse_path).status()["web_events"].landed == 100


def test_landing_on_a_full_disk_is_reported_in_one_line(settings: Settings, start: Start) -> None:
    DuckDBSink(settings.warehouse_path).create_tables()
    SpoolProducer(settings).produce(STREAMS["web_events"], [Message(os.urandom(100_000)) for _ in range(100)])
    loader = start("land")
    limit = settings.warehouse_path.stat().st_size + 200_000
    resource.prlimit(loader.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    out, err = loader.communicate(timeout=60)
    assert (loader.returncode, out) == (2, "")
    assert err.startswith("error: cannot read or write the warehouse") and err.count("\n") == 1
    assert land_spool(settings) == 100


def test_a_truncated_log_stops_landing(settings: Settings, start: Start, tmp_path: Path) -> None:
    publish(settings, range(10))
    land_spool(settings)
    log = tmp_path / "spool" / "users" / "0.ndjson"
    log.write_bytes(log.read_bytes()[:-10])
    out, err = start("land").communicate()
    assert out == ""
    assert err.startswith("error: ") and err.count("\n") == 1 and "truncated or replaced" in err
