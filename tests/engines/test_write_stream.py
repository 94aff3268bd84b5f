"""Landing by write streams, as `land --follow` does in BigQuery, against bqemulator: every message lands
once, with kills at any time, and one loader per table at a time."""
# ruff: noqa: F811  fixtures of another file

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from google.api_core import exceptions as api

from common.errors import UnavailableError, UserError, WarehouseReplacedError
from common.settings import Settings
from common.streams import STREAMS
from engines.bigquery import sink as bigquery_sink
from engines.bigquery import write_stream, write_stream_loader
from engines.bigquery.rows import distinct_rows, raw_rows
from engines.bigquery.sink import BigQuerySink
from engines.bigquery.write_stream import WriteStream, finalize
from engines.bigquery.writers import Writers
from ingest.producers import RoutingProducer
from ingest.simulator import simulate
from tests.engines.test_bigquery import (  # noqa: F401  two are fixtures
    PROJECT,
    JobIds,
    KilledError,
    die,
    jobs,
    offsets,
    query,
    settings,
)
from tests.engines.test_duckdb import NOON, batch, new_rows, pulled

pytestmark = pytest.mark.bigquery_emulator

ROOT = Path(__file__).parents[3]
STEPS = ("after the new stream", "after the claim", "after an append", "before an append")
KILLED = """
import os, signal, sys
from engines.bigquery.sink import BigQuerySink
from engines.bigquery.write_stream import WriteStream
from engines.bigquery.writers import Writers
from tests.engines.test_bigquery import at, batch

def killed(method, step):
    def call(*arguments, **options):
        if step == "before an append":
            os.kill(os.getpid(), signal.SIGKILL)
        method(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)
    return call

step = sys.argv[3]
sink = BigQuerySink(at(sys.argv[1], sys.argv[2]), by_streams=True)
sink.commit([batch([0, 1])] if "append" in step else [])
sink.create_tables()
if step == "after the new stream":
    WriteStream.__init__ = killed(WriteStream.__init__, step)
elif step == "after the claim":
    Writers.take_over = killed(Writers.take_over, step)
else:
    WriteStream.append = killed(WriteStream.append, step)
sink.commit([batch([0, 1, 2, 3])])
"""


@pytest.fixture
def sink(settings: Settings) -> BigQuerySink:
    return BigQuerySink(settings, by_streams=True)


def opened(settings: Settings) -> BigQuerySink:
    return BigQuerySink(settings, by_streams=True)


def ids(sink: BigQuerySink, stream: str = "clicks") -> list[str]:
    return [row[0] for row in query(sink, f"select message_id from {{raw}}.{stream} order by 1")]


# -- one stream -------------------------------------------------------------------------------------------------------


def rows_of(*numbers: int) -> pa.Table:
    numbered = batch(list(numbers))
    return raw_rows(distinct_rows([(numbered.tables["users"], numbered)]), "users", NOON)


def test_an_append_retried_at_its_offset_lands_once(sink: BigQuerySink) -> None:
    sink.create_tables()
    table = f"projects/{PROJECT}/datasets/{sink._datasets.prefix.rpartition('.')[2]}raw/tables/users"
    stream = WriteStream(sink._datasets.write_client, table)
    stream.append(rows_of(0, 1))
    stream.append(rows_of(2))
    stream.rows = 2
    with pytest.raises(api.AlreadyExists):
        stream.append(rows_of(2))
    assert offsets(sink) == [0, 1, 2]
    assert finalize(sink._datasets.write_client, stream.name) == finalize(sink._datasets.write_client, stream.name) == 3
    stream.rows = 3
    with pytest.raises(api.GoogleAPICallError):
        stream.append(rows_of(3))
    assert offsets(sink) == [0, 1, 2]
    assert finalize(sink._datasets.write_client, f"{table}/streams/0123456789abcdef") == 0


def test_large_commits_are_split_and_each_request_has_its_positions(
    sink: BigQuerySink,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(write_stream, "APPEND_BYTES", 400)
    assert len(list(write_stream._batches(rows_of(*range(20))))) > 4
    assert new_rows(sink.commit([batch(list(range(20)))])) == 20
    assert offsets(sink) == list(range(20))
    assert query(sink, "select `offset` + 1 - next_offset from {raw}.users group by 1") == [(0,)]
    monkeypatch.setattr(write_stream, "MAX_MESSAGE_BYTES", 10)
    monkeypatch.setattr(write_stream, "APPEND_BYTES", 10)
    with pytest.raises(UserError, match=r"too large for BigQuery's streams .* without --follow"):
        sink.commit([batch([20])])
    assert BigQuerySink(settings).commit([batch([20])]) == {"users": 1}


# -- answers that are lost --------------------------------------------------------------------------------------------


def lose(monkeypatch: pytest.MonkeyPatch, *, appended: bool) -> None:
    """Drop the answer of the next append, which was executed or not."""
    append = WriteStream.append

    def lost(self: WriteStream, rows: pa.Table) -> None:
        monkeypatch.setattr(WriteStream, "append", append)
        if appended:
            known = self.rows
            append(self, rows)
            self.rows = known
        raise api.ServiceUnavailable("reset")

    monkeypatch.setattr(WriteStream, "append", lost)


@pytest.mark.parametrize("appended", [False, True])
def test_an_append_whose_answer_is_lost_lands_once(
    sink: BigQuerySink, monkeypatch: pytest.MonkeyPatch, appended: bool
) -> None:
    sink.commit([batch([0]), pulled("z")])
    lose(monkeypatch, appended=appended)
    assert sink.commit([batch([0, 1, 2])]) == {"users": 2}
    assert not sink._loader._appended_ids.get("users"), "positions tell what landed"
    lose(monkeypatch, appended=appended)
    assert sink.commit([pulled("a", "b")]) == {"clicks": 2}
    assert sink.commit([batch([2, 3]), pulled("c")]) == {"users": 1, "clicks": 1}
    assert offsets(sink) == [0, 1, 2, 3]
    assert ids(sink) == ["a", "b", "c", "z"]


def test_landed_at_is_the_time_after_a_takeover(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise rows could appear below the upper bound of an earlier build, and no later build reads them."""
    now = [NOON]
    sink = BigQuerySink(settings, clock=lambda: now[0], by_streams=True)
    sink.commit([batch([0]), pulled("a")])
    take_over = Writers.take_over

    def slow(*arguments: Any) -> None:
        take_over(*arguments)
        now[0] += timedelta(minutes=16)

    monkeypatch.setattr(Writers, "take_over", slow)
    lose(monkeypatch, appended=False)
    sink.commit([batch([1]), pulled("b")])
    [(users,)] = query(sink, "select max(landed_at) from {raw}.users")
    [(clicks,)] = query(sink, "select max(landed_at) from {raw}.clicks")
    assert users == clicks == NOON + timedelta(minutes=16)


@pytest.mark.parametrize("appended", [False, True])
def test_a_commit_retried_by_its_loader_lands_once(
    sink: BigQuerySink, monkeypatch: pytest.MonkeyPatch, appended: bool
) -> None:
    """BigQuery does not report whether the append was executed."""

    def fail(*arguments: Any) -> int:
        raise api.ServiceUnavailable("reset")

    for batches in ([batch([0, 1])], [pulled("a", "b")]):
        lose(monkeypatch, appended=appended)
        with monkeypatch.context() as patched:
            patched.setattr(write_stream_loader, "finalize", fail)
            for _ in range(2):
                with pytest.raises(UnavailableError, match=r"BigQuery does not answer: .*reset"):
                    sink.commit(batches)
        assert new_rows(sink.commit(batches)) == 2
    assert offsets(sink) == [0, 1]
    assert ids(sink) == ["a", "b"]


def test_a_partly_landed_commit_is_completed(sink: BigQuerySink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_stream, "APPEND_BYTES", 300)
    sink.commit([pulled("z")])
    append = WriteStream.append

    def half(self: WriteStream, rows: pa.Table) -> None:
        monkeypatch.setattr(WriteStream, "append", append)
        first = next(write_stream._batches(rows))
        assert 0 < first.num_rows < rows.num_rows
        known = self.rows
        append(self, pa.Table.from_batches([first]))
        self.rows = known
        raise api.ServiceUnavailable("reset")

    monkeypatch.setattr(WriteStream, "append", half)
    names = [f"m{number:02}" for number in range(12)]
    assert sink.commit([pulled(*names)]) == {"clicks": 12}
    monkeypatch.setattr(WriteStream, "append", half)
    assert sink.commit([batch(list(range(12)))]) == {"users": 12}
    assert ids(sink) == [*names, "z"]
    assert offsets(sink) == list(range(12))


def test_a_finalized_write_stream_is_replaced_by_a_new_one(sink: BigQuerySink) -> None:
    sink.commit([batch([0])])
    finalize(sink._datasets.write_client, sink._loader._open["users"].name)
    assert sink.commit([batch([0, 1])]) == {"users": 1}
    assert offsets(sink) == [0, 1]


@pytest.mark.parametrize("is_recreated", [False, True])
def test_a_dropped_table_is_an_error(sink: BigQuerySink, is_recreated: bool) -> None:
    """Its messages must be landed again."""
    sink.commit([batch([0])])
    sink._datasets.client.delete_table(f"{sink._datasets.prefix}raw.users")
    if is_recreated:
        time.sleep(0.01)  # times of creation are in milliseconds
        sink.create_tables()
    with pytest.raises(WarehouseReplacedError, match=r"raw\.users was created at .* when landing began, and now "):
        sink.commit([batch([1])])
    sink.forget()
    sink.create_tables()
    assert sink.positions("kafka", {}) == {}
    sink.commit([batch([0, 1])])
    assert offsets(sink) == [0, 1]


def test_an_idle_follower_notices_that_its_dataset_was_replaced(
    sink: BigQuerySink, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink.commit([batch([0])])
    sink._datasets.client.delete_dataset(f"{sink._datasets.prefix}raw", delete_contents=True)
    time.sleep(0.01)
    sink.create_tables()
    sink.verify()  # not each second
    monkeypatch.setattr(bigquery_sink, "SECONDS_BETWEEN_CHECKS", 0.0)
    with pytest.raises(WarehouseReplacedError):
        sink.verify()


# -- one loader per table ---------------------------------------------------------------------------------------------


def test_a_new_loader_takes_over_and_its_predecessor_ends(settings: Settings) -> None:
    first, second = opened(settings), opened(settings)
    assert first.commit([batch([0, 1])]) == {"users": 2}
    assert second.commit([batch([0, 1, 2])]) == {"users": 1}
    for _ in range(2):
        with pytest.raises(UserError, match=r"another `ingest land` has taken over .*raw\.users") as caught:
            first.commit([batch([2, 3])])
        assert not isinstance(caught.value, UnavailableError)
    assert first.commit([batch([0], stream="posts")]) == {"posts": 1}
    assert second.commit([batch([3])]) == {"users": 1}
    assert offsets(second) == [0, 1, 2, 3]


def test_a_takeover_rejects_the_running_append_of_the_predecessor(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The killed loader's append arrives after the takeover, and must not land the same messages a second time."""
    first, second = opened(settings), opened(settings)
    first.commit([batch([0])])
    append = WriteStream.append
    late: list[Callable[[], None]] = []

    def delayed(self: WriteStream, rows: pa.Table) -> None:
        late.append(lambda: append(self, rows))
        raise KilledError

    monkeypatch.setattr(WriteStream, "append", delayed)
    with pytest.raises(KilledError):
        first.commit([batch([1, 2])])
    monkeypatch.setattr(WriteStream, "append", append)
    assert second.commit([batch([1])]) == {"users": 1}
    with pytest.raises(api.GoogleAPICallError):
        late[0]()
    assert second.commit([batch([2])]) == {"users": 1}
    assert offsets(second) == [0, 1, 2]


def test_a_takeover_waits_for_the_running_load_job(settings: Settings, jobs: JobIds) -> None:
    BigQuerySink(settings).commit([batch([0])])
    jobs.on_sent = die
    with pytest.raises(KilledError):
        BigQuerySink(settings).commit([batch([0, 1, 2])])
    jobs.on_sent = lambda: None
    assert opened(settings).commit([batch([1, 2, 3])]) == {"users": 1}
    assert jobs.conflicts == 1
    assert offsets(BigQuerySink(settings)) == [0, 1, 2, 3]


def test_load_jobs_and_write_streams_take_over_from_each_other(settings: Settings, jobs: JobIds) -> None:
    loads, other, follows = BigQuerySink(settings), BigQuerySink(settings), opened(settings)
    assert loads.commit([batch([0])]) == {"users": 1}
    assert other.commit([batch([0])]) == {"users": 0}
    assert follows.commit([batch([0, 1])]) == {"users": 1}
    assert loads.commit([batch([1, 2])]) == {"users": 1}
    assert other.commit([batch([1, 2, 3])]) == {"users": 1}
    with pytest.raises(UserError, match="has taken over"):
        follows.commit([batch([3, 4])])
    assert opened(settings).commit([batch([3, 4])]) == {"users": 1}
    assert loads.commit([batch([4, 5])]) == {"users": 1}
    assert offsets(loads) == [0, 1, 2, 3, 4, 5]


def test_positions_and_writer_are_read_in_one_snapshot(
    settings: Settings,
    jobs: JobIds,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Other loaders commit between the two queries of a loader."""
    BigQuerySink(settings).commit([batch([0])])
    loads = BigQuerySink(settings)
    read_positions = loads._writers._read_positions

    def slow(streams: Any) -> Any:
        found = read_positions(streams)
        monkeypatch.setattr(loads._writers, "_read_positions", read_positions)
        opened(settings).commit([batch([1])])
        BigQuerySink(settings).commit([batch([2])])
        return found

    monkeypatch.setattr(loads._writers, "_read_positions", slow)
    assert loads.commit([batch([0, 1, 2, 3])]) == {"users": 1}
    assert offsets(loads) == [0, 1, 2, 3]


# -- kills ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", STEPS)
def test_a_loader_killed_at_any_step_lands_each_message_once(settings: Settings, step: str) -> None:
    arguments = [str(settings.bigquery_emulator_host), settings.dataset_prefix, step]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    sink = opened(settings)
    landed = {"after an append": 4, "before an append": 2}.get(step, 0)
    assert sink.commit([batch([0, 1, 2, 3, 4])]) == {"users": 5 - landed}
    assert offsets(sink) == [0, 1, 2, 3, 4]


def test_followers_killed_at_random_land_each_message_once(settings: Settings, tmp_path: Path) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "WAREHOUSE": "bigquery",
        "GCP_PROJECT": PROJECT,
        "DATASET_PREFIX": settings.dataset_prefix,
        "BIGQUERY_EMULATOR_HOST": str(settings.bigquery_emulator_host),
        "SPOOL_PATH": str(tmp_path / "spool"),
        "LANDING_MAX_SECONDS": "0.1",
    }
    spool = Settings(_env_file=None, spool_path=tmp_path / "spool")
    sink = opened(settings)
    sink.create_tables()
    chance = random.Random(1)

    def landed() -> int:
        return sum(status.landed for status in sink.status().values())

    published = 0
    for last in (False, False, False, True):
        with RoutingProducer(spool) as producer:
            published += simulate(spool, producer, days=1, seed=1, events_per_day=500).total
        before = landed()
        with (tmp_path / "log").open("ab") as log:
            follower = subprocess.Popen(
                [sys.executable, "-m", "ingest", "land", "--follow"], cwd=tmp_path, env=environment, stderr=log
            )
        try:
            until = time.monotonic() + 120
            enough = published if last else before + chance.randint(1, max(1, published - before))
            while landed() < enough:
                assert follower.poll() is None, (tmp_path / "log").read_text()[-2000:]
                assert time.monotonic() < until, (tmp_path / "log").read_text()[-2000:]
                time.sleep(0.1)  # the emulator answers one request at a time
        finally:
            follower.kill()
            follower.wait()
    assert landed() == published
    for stream in STREAMS:
        [(rows, messages)] = query(sink, f"select count(*), count(distinct message_id) from {{raw}}.{stream}")
        assert rows == messages
