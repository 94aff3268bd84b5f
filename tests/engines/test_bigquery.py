"""The BigQuery sink against bqemulator: every message lands once, with kills at any time and with concurrent loaders.

The emulator does not keep the ids that a client gives its uploads, and never answers 409. So the tests of conflicts put
`JobIds` between the sink and the emulator: the client, with the one rule of BigQuery that matters there.
"""

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock
from uuid import uuid4

import pyarrow as pa
import pytest
import requests
from google.api_core.exceptions import Conflict, Forbidden, NotFound, ServiceUnavailable
from google.auth.exceptions import DefaultCredentialsError
from google.cloud import bigquery

from common.errors import UnavailableError, UserError, WarehouseReplacedError
from common.settings import Settings
from common.streams import STREAMS
from engines.batch import BATCH_SCHEMA, DECODED_SCHEMA, Batch
from engines.bigquery import client as bigquery_client
from engines.bigquery import sink as bigquery_sink
from engines.bigquery.client import without_zone
from engines.bigquery.load_jobs import LoadJobs
from engines.bigquery.sink import BigQuerySink
from engines.bigquery.tables import OTHER_TABLES, RAW_SCHEMA, columns_of
from engines.warehouse import FIRST_CURSOR, Cursor, Result, StreamStatus, UnlistedField
from tests.engines.test_duckdb import MICROSECOND, NOON, batch, new_rows, pulled

pytestmark = pytest.mark.bigquery_emulator

PROJECT = "test-project"
KILLED = """
import os, signal, sys
import requests.adapters
from tests.engines.test_bigquery import at, batch, BigQuerySink

send = requests.adapters.HTTPAdapter.send

def send_and_die(self, request, **options):
    response = send(self, request, **options)
    if "/upload/" in request.url and request.method == "PUT":
        os.kill(os.getpid(), signal.SIGKILL)
    return response

sink = BigQuerySink(at(sys.argv[1], sys.argv[2]))
sink.create_tables()
requests.adapters.HTTPAdapter.send = send_and_die
sink.commit([batch([0, 1, 2])])
"""


def at(emulator: str, prefix: str) -> Settings:
    return Settings(
        _env_file=None,
        warehouse="bigquery",
        gcp_project=PROJECT,
        dataset_prefix=prefix,
        bigquery_emulator_host=emulator,
    )


@pytest.fixture
def settings(bigquery_emulator: str) -> Settings:
    return at(bigquery_emulator, f"t{uuid4().hex}_")


@pytest.fixture
def sink(settings: Settings) -> BigQuerySink:
    return BigQuerySink(settings)


Opened = Callable[..., BigQuerySink]


@pytest.fixture(params=["by load jobs", "by streams"])
def opened(request: pytest.FixtureRequest, settings: Settings) -> Opened:
    """Opens a sink: with load jobs and with write streams."""
    return partial(BigQuerySink, settings, by_streams=request.param == "by streams")


def query(sink: BigQuerySink, sql: str) -> list[tuple[Any, ...]]:
    """`sql` with {raw}, {analytics} and {staging} for the datasets of the test; times in UTC without a zone."""
    datasets = {name: f"`{sink._datasets.prefix}{name}`" for name in ("raw", "analytics", "staging")}
    rows = sink._datasets.client.query(sql.format(**datasets)).result()
    return [tuple(map(without_zone, row.values())) for row in rows]


def offsets(sink: BigQuerySink, stream: str = "users") -> list[int]:
    sql = f"select `offset` from {{raw}}.{stream} order by source, `partition`, `offset`"
    return [row[0] for row in query(sink, sql)]


# -- tables -----------------------------------------------------------------------------------------------------------


def test_the_pseudonym_key_is_loaded_once_even_after_a_kill(
    sink: BigQuerySink, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        killed.setattr(sink._tables, "_load_pseudonym_key", Mock(side_effect=KeyboardInterrupt))
        sink.create_tables()
    sink.create_tables()
    key = query(sink, "select inner_pad, outer_pad from {raw}.pseudonym_key")
    assert [list(map(len, row)) for row in key] == [[64, 64]]
    sink._datasets.client.delete_table(f"{sink._datasets.prefix}raw.posts")  # as after an upgrade that adds a stream
    sink.create_tables()
    assert query(sink, "select inner_pad, outer_pad from {raw}.pseudonym_key") == key


def test_tables_are_created_once(sink: BigQuerySink) -> None:
    assert sink.missing_tables() == [f"raw.{name}" for name in (*STREAMS, *OTHER_TABLES)]
    sink.create_tables()
    assert sink.missing_tables() == []
    sink.commit([batch([0])])
    sink._datasets.client.delete_table(f"{sink._datasets.prefix}raw.posts")
    sink.create_tables()
    assert sink.missing_tables() == []
    assert offsets(sink) == [0]
    table = sink._datasets.client.get_table(f"{sink._datasets.prefix}raw.users")
    assert (table.time_partitioning.type_, table.time_partitioning.field) == ("DAY", "landed_at")
    assert table.clustering_fields == ["message_id"]
    assert {column.name: column.field_type for column in table.schema} == {
        "stream": "STRING",
        "source": "STRING",
        "topic": "STRING",
        "partition": "INTEGER",
        "offset": "INTEGER",
        "message_id": "STRING",
        "key": "BYTES",
        "attributes": "STRING",
        "published_at": "TIMESTAMP",
        "landed_at": "TIMESTAMP",
        "payload": "BYTES",
        "topic_id": "STRING",
        "next_offset": "INTEGER",
        "schema_id": "INTEGER",
        "decoded": "BYTES",
        "decoded_key": "BYTES",
        "decode_error": "STRING",
    }


def test_tables_are_created_in_a_dataset_of_another_account(
    sink: BigQuerySink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the permission to create datasets, which BigQuery asks for even where there is one."""
    sink._datasets.client.create_dataset(bigquery.Dataset(f"{sink._datasets.prefix}raw"))

    def forbid(*_: object, **__: object) -> None:
        raise Forbidden("bigquery.datasets.create")

    monkeypatch.setattr(sink._datasets.client, "create_dataset", forbid)
    sink.create_tables()
    assert sink.missing_tables() == []


# -- rows and positions -----------------------------------------------------------------------------------------------


def test_an_existing_table_gets_the_columns_of_decoded_messages_and_keeps_its_rows(settings: Settings) -> None:
    sink = BigQuerySink(settings)
    sink.create_tables()
    names = [field.name for field in RAW_SCHEMA if field.name not in DECODED_SCHEMA.names]
    query(sink, "drop table {raw}.users")
    columns = [column for column in columns_of(RAW_SCHEMA) if column.name in names]
    sink._datasets.client.create_table(bigquery.Table(f"{sink._datasets.prefix}raw.users", columns))
    query(
        sink,
        "insert into {raw}.users (stream, source, topic, message_id, landed_at)"
        " values ('users', 'pubsub', 'users', 'old', timestamp '2026-01-01')",
    )
    sink = BigQuerySink(settings)
    sink.create_tables()
    given = batch([0])
    values = [[7], [b'{"a":1}'], [b'"k"'], ["broken_avro"]]
    table = given.tables["users"]
    for column, value in zip(DECODED_SCHEMA, values, strict=True):
        table = table.append_column(column, pa.array(value, column.type))
    sink.commit([replace(given, tables={"users": table})])
    sink.commit([batch([1])])
    assert query(
        sink, f"select {', '.join(DECODED_SCHEMA.names)} from {{raw}}.users order by source = 'kafka', `offset`"
    ) == [(None,) * 4, tuple(value for [value] in values), (None,) * 4]


def test_a_row_is_the_message_with_its_stream_and_landing_time(opened: Opened) -> None:
    sink = opened(clock=lambda: NOON + MICROSECOND)
    assert new_rows(sink.commit([batch([7], topic="shop-users", topic_id="id")])) == 1
    names = "stream, source, topic, `partition`, `offset`, message_id, topic_id"
    assert query(sink, f"select {names} from {{raw}}.users") == [
        ("users", "kafka", "shop-users", 0, 7, "shop-users/0/7", "id"),
    ]
    assert query(sink, "select key, attributes, published_at, landed_at, payload from {raw}.users") == [
        (b"\xff\x00", '{"a":"\\u0000é"}', NOON, NOON + MICROSECOND, b"\x00\xff7"),
    ]


def test_positions_are_kept_by_source_topic_and_partition(opened: Opened) -> None:
    sink = opened()
    assert sink.positions("kafka", {}) == {}
    assert len(sink.missing_tables()) == len(STREAMS) + 4
    landed = sink.commit([batch([0, 1]), batch([5], partition=1), batch([100], source="spool"), pulled("a")])
    assert landed == {"users": 4, "clicks": 1}
    assert sink.positions("kafka", {}) == {("users", 0): 2, ("users", 1): 6}
    assert sink.positions("spool", {}) == {("users", 0): 101}
    assert sink.positions("pubsub", {}) == {}


def test_the_next_offset_is_the_one_of_the_batch(opened: Opened) -> None:
    """A spool's offsets are bytes, and a Kafka transaction ends with an offset that carries no message."""
    sink = opened()
    bytes_of_lines = Batch(batch([0, 70]).tables, {("users", 0): 145})
    assert sink.commit([bytes_of_lines]) == {"users": 2}
    for loader in (sink, opened()):
        assert loader.positions("kafka", {}) == {("users", 0): 145}
        assert loader.commit([bytes_of_lines]) == {"users": 0}


def test_offsets_without_messages_move_the_position(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after aborted transactions: at the start of a partition, after messages, and twice in a row."""
    monkeypatch.setattr(bigquery_sink, "SECONDS_BETWEEN_CHECKS", 0.0)
    sink = opened()

    def empty(first: int, end: int, partition: int = 0) -> Batch:
        users = ("users", partition)
        return Batch({}, {users: end}, {"users": "id"}, starts={users: first}, source="kafka")

    assert sink.commit([empty(0, 3), empty(0, 5, partition=1)]) == {}
    assert sink.positions("kafka", {"users": "id"}) == {("users", 0): 3, ("users", 1): 5}
    assert sink.commit([batch([3, 4], topic_id="id")]) == {"users": 2}
    sink.commit([empty(7, 9), empty(5, 7)])
    for loader in (sink, opened()):
        assert loader.positions("kafka", {"users": "id"}) == {("users", 0): 9, ("users", 1): 5}
        assert loader.positions("kafka", {"users": "recreated"}) == {}
        assert loader.positions("spool", {}) == {}
    assert opened().commit([batch([4, 9], topic_id="id")]) == {"users": 1}
    assert offsets(sink) == [3, 4, 9]
    query(sink, "delete from {raw}.users where true")
    assert opened().positions("kafka", {"users": "id"}) == {("users", 0): 3, ("users", 1): 5}


def test_a_commit_whose_offsets_without_messages_cannot_be_written_has_landed(
    sink: BigQuerySink, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are written with the next commit. If this one were retried, messages without offsets would land twice."""
    start = LoadJobs.start

    def fail(self: LoadJobs, name: str, table: str, *arguments: Any) -> Any:
        if table == "landing_empty_offsets":
            raise ServiceUnavailable("reset")
        return start(self, name, table, *arguments)

    users = ("users", 0)
    empty = Batch({}, {users: 9}, {"users": "id"}, starts={users: 2}, source="kafka")
    with monkeypatch.context() as patched:
        patched.setattr(LoadJobs, "start", fail)
        assert sink.commit([empty, pulled("a")]) == {"clicks": 1}
    assert sink.commit([batch([0, 1], topic_id="id")]) == {"users": 2}
    assert BigQuerySink(settings).positions("kafka", {"users": "id"}) == {users: 9}


def test_a_dataset_recreated_between_two_loads_is_an_error(settings: Settings) -> None:
    sink = BigQuerySink(settings)
    sink.commit([batch([0, 1])])
    sink._datasets.client.delete_dataset(f"{sink._datasets.prefix}raw", delete_contents=True)
    time.sleep(0.01)  # times of creation are in milliseconds
    BigQuerySink(settings).create_tables()
    with pytest.raises(WarehouseReplacedError, match=r"raw\.users was created at"):
        sink.commit([batch([2])])
    sink.forget()
    assert sink.positions("kafka", {}) == {}
    assert sink.commit([batch([0, 1, 2])]) == {"users": 3}


def test_messages_below_the_position_are_skipped(opened: Opened) -> None:
    sink = opened()
    assert new_rows(sink.commit([batch([0, 1, 2])])) == 3
    assert new_rows(sink.commit([batch([1, 2, 3]), batch([0], partition=1), batch([0], source="spool")])) == 3
    assert offsets(sink) == [0, 1, 2, 3, 0, 0]
    for loader in (sink, opened()):
        assert loader.commit([batch([0, 1])]) == {"users": 0}
    assert sink.positions("kafka", {})["users", 0] == 4


def test_batches_of_one_commit_land_together(opened: Opened) -> None:
    sink = opened()
    assert new_rows(sink.commit([batch([0, 1]), batch([2, 3]), batch([4], stream="posts"), pulled("a")])) == 6
    assert offsets(sink) == [0, 1, 2, 3]
    assert sink.positions("kafka", {}) == {("users", 0): 4, ("posts", 0): 5}
    assert query(sink, "select count(distinct landed_at) from {raw}.users") == [(1,)]


def test_a_recreated_topic_is_read_from_its_beginning(opened: Opened) -> None:
    """Its offsets begin at 0. The positions of the topic before it stay: a loader may still hold a batch of it."""
    sink = opened()
    assert new_rows(sink.commit([batch([0, 1, 2], topic_id="old")])) == 3
    assert sink.positions("kafka", {"users": "new"}) == {}
    assert new_rows(sink.commit([batch([2, 3], topic_id="old"), batch([0, 1], topic_id="new")])) == 3
    assert new_rows(sink.commit([batch([3], topic_id="old"), batch([1, 2], topic_id="new")])) == 1
    assert sink.positions("kafka", {"users": "old"}) == {("users", 0): 4}
    assert sink.positions("kafka", {"users": "new"}) == {("users", 0): 3}
    assert offsets(sink) == [0, 0, 1, 1, 2, 2, 3]
    assert query(sink, "select count(distinct concat(message_id, cast(landed_at as string))) from {raw}.users") == [
        (7,)
    ]


def test_a_redelivery_within_a_commit_is_landed_once(opened: Opened) -> None:
    sink = opened()
    assert new_rows(sink.commit([pulled("a", "b", "a"), pulled("b", "c")])) == 3
    assert new_rows(sink.commit([pulled("a")])) == 1  # in another commit staging counts it as a duplicate
    counts = query(sink, "select message_id, count(*) from {raw}.clicks group by 1 order by 1")
    assert counts == [("a", 2), ("b", 1), ("c", 1)]


def test_landing_time_increases_even_if_the_clock_goes_back(opened: Opened) -> None:
    times = iter([NOON, NOON, NOON - timedelta(days=1), NOON + timedelta(hours=1)])
    sink = opened(clock=lambda: next(times))
    for offset in range(4):
        sink.commit([batch([offset])])
    assert [row[0] for row in query(sink, "select landed_at from {raw}.users order by `offset`")] == [
        *(NOON + number * MICROSECOND for number in range(3)),
        NOON + timedelta(hours=1),
    ]


def test_each_load_job_has_the_time_at_which_it_is_sent(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [NOON]
    sink = BigQuerySink(settings, clock=lambda: now[0])
    start = LoadJobs.start

    def slow(*arguments: Any) -> Any:
        now[0] += timedelta(minutes=16)
        return start(*arguments)

    monkeypatch.setattr(LoadJobs, "start", slow)
    sink.commit([batch([0]), pulled("a")])
    [(users,)] = query(sink, "select landed_at from {raw}.users")
    [(clicks,)] = query(sink, "select landed_at from {raw}.clicks")
    assert (users, clicks) == (NOON, NOON + timedelta(minutes=16))


def test_a_loader_killed_after_its_load_has_landed_it(settings: Settings) -> None:
    """The loader is killed after the upload succeeded and before it reads the answer."""
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(settings.bigquery_emulator_host), settings.dataset_prefix],
        cwd=Path(__file__).parents[3],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    sink = BigQuerySink(settings)
    assert sink.commit([batch([0, 1])]) == {"users": 0}
    assert sink.commit([batch([1, 2, 3])]) == {"users": 1}
    assert offsets(sink) == [0, 1, 2, 3]


# -- job ids ----------------------------------------------------------------------------------------------------------


@dataclass
class Job:
    """A load job that is executed when its result is requested, as if it had been running until then."""

    job_id: str
    load: Callable[[], Any]
    failure: dict[str, str] | None = None
    error_result: dict[str, str] | None = None
    is_done: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def done(self, **options: Any) -> bool:
        with self.lock:
            if not self.is_done:
                if self.failure is None:
                    self.load()
                self.error_result = self.failure
                self.is_done = True
        return True


class JobIds:
    """The existing jobs. As in BigQuery, a second job with the same id is rejected."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.conflicts = 0
        self.failures: list[dict[str, str]] = []
        """Errors with which the next jobs end."""
        self.on_sent: Callable[[], None] = lambda: None
        self._lock = threading.Lock()

    def client(self, **options: Any) -> Any:
        jobs = self

        class Client(bigquery.Client):  # type: ignore[misc]
            def load_table_from_file(self, *arguments: Any, job_id: str, **options: Any) -> Job:
                load = super().load_table_from_file
                if "pseudonym_key" in job_id:  # one job per warehouse
                    return load(*arguments, job_id=job_id, **options)
                with jobs._lock:
                    if job_id in jobs.jobs:
                        jobs.conflicts += 1
                        raise Conflict(f"Already Exists: Job {job_id}")
                    failure = jobs.failures.pop(0) if jobs.failures else None
                    jobs.jobs[job_id] = Job(job_id, lambda: load(*arguments, **options).result(), failure)
                jobs.on_sent()
                return jobs.jobs[job_id]

            def get_job(self, job_id: str, **options: Any) -> Job:
                if job_id not in jobs.jobs:
                    raise NotFound(job_id)
                return jobs.jobs[job_id]

        return Client(**options)


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Iterator[JobIds]:
    jobs = JobIds()
    original = bigquery.Client
    monkeypatch.setattr(bigquery_client, "bigquery", _With(bigquery, Client=jobs.client))
    yield jobs
    assert bigquery.Client is original


class _With:
    """A module with some of its names replaced."""

    def __init__(self, module: Any, **names: Any) -> None:
        self._module = module
        self.__dict__.update(names)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


class KilledError(BaseException):
    pass


def die() -> None:
    raise KilledError


def lose_answer() -> None:
    raise requests.ConnectionError("reset")


def test_a_load_from_the_same_position_waits_for_the_running_job(settings: Settings, jobs: JobIds) -> None:
    """The first loader was killed after its request. The next one reads the positions before the job has ended, and
    divides its batches differently."""
    jobs.on_sent = die
    with pytest.raises(KilledError):
        BigQuerySink(settings).commit([batch([0, 1, 2])])
    jobs.on_sent = lambda: None
    sink = BigQuerySink(settings)
    assert sink.positions("kafka", {}) == {}
    assert sink.commit([batch([0, 1, 2, 3, 4]), batch([0], partition=1)]) == {"users": 3}
    assert jobs.conflicts == 1
    assert offsets(sink) == [0, 1, 2, 3, 4, 0]
    assert sink.commit([batch([5])]) == {"users": 1}
    assert jobs.conflicts == 1


def test_a_loader_with_stale_positions_lands_only_new_messages(settings: Settings, jobs: JobIds) -> None:
    first, second = BigQuerySink(settings), BigQuerySink(settings)
    assert first.commit([batch([0])]) == {"users": 1}
    assert second.commit([batch([0, 1, 2])]) == {"users": 2}
    assert first.commit([batch([1, 2, 3])]) == {"users": 1}
    assert first.commit([batch([4])]) == {"users": 1}
    assert second.commit([batch([3], partition=1)]) == {"users": 1}
    assert jobs.conflicts == 2
    assert offsets(first) == [0, 1, 2, 3, 4, 3]


def test_concurrent_loaders_land_each_message_once(settings: Settings, jobs: JobIds) -> None:
    BigQuerySink(settings).create_tables()

    def load(seed: int) -> int:
        chance = random.Random(seed)
        sink = BigQuerySink(settings)
        landed = 0
        while (next_offset := sink.positions("kafka", {}).get(("users", 0), 0)) < 40:
            sink_offsets = range(next_offset, min(40, next_offset + chance.randint(1, 12)))
            landed += new_rows(sink.commit([batch(list(sink_offsets))]))
        return landed

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(load, range(4))) == 40
    assert offsets(BigQuerySink(settings)) == list(range(40))


def test_a_load_whose_answer_is_lost_lands_once(settings: Settings, jobs: JobIds) -> None:
    sink = BigQuerySink(settings)
    batches = [batch([0, 1]), pulled("a", "b"), batch([0], stream="posts")]
    for _ in range(3):  # one answer per stream
        jobs.on_sent = lose_answer
        with pytest.raises(UnavailableError, match="BigQuery does not answer: reset"):
            sink.commit(batches)
    jobs.on_sent = lambda: None
    sink.commit(batches)
    assert offsets(sink) == [0, 1]
    assert offsets(sink, "posts") == [0]
    assert query(sink, "select message_id from {raw}.clicks order by 1") == [("a",), ("b",)]


def test_a_redelivered_pubsub_batch_finds_its_first_job(settings: Settings, jobs: JobIds) -> None:
    """In any order, and by any loader."""
    assert BigQuerySink(settings).commit([pulled("a", "b")]) == {"clicks": 2}
    assert BigQuerySink(settings).commit([pulled("b", "a")]) == {"clicks": 0}
    assert BigQuerySink(settings).commit([pulled("b", "c")]) == {"clicks": 2}
    assert query(BigQuerySink(settings), "select count(*) from {raw}.clicks") == [(4,)]


@pytest.mark.parametrize("batches", [[batch([0, 1])], [pulled("a", "b")]])
@pytest.mark.parametrize("again", ["the same loader", "another"])
def test_a_job_that_failed_is_followed_by_the_next_attempt(
    settings: Settings, jobs: JobIds, batches: list[Any], again: str
) -> None:
    sink = BigQuerySink(settings)
    jobs.failures = [{"reason": "quotaExceeded", "message": "exceeded quota\nmore"}, {"reason": "backendError"}]
    for message in ("exceeded quota", "no reason given"):
        with pytest.raises(UnavailableError, match=f"^BigQuery could not load: {message}$"):
            sink.commit(batches)
    if again == "another":
        sink = BigQuerySink(settings)
    assert new_rows(sink.commit(batches)) == 2
    assert [name[-2:] for name in jobs.jobs] == ["_0", "_1", "_2"]
    assert jobs.conflicts == (0 if again == "the same loader" else 2)
    stream = next(iter(batches[0].tables))
    assert query(sink, f"select count(*) from {{raw}}.{stream}") == [(2,)]


def test_a_load_that_can_never_succeed_is_a_user_error(settings: Settings, jobs: JobIds) -> None:
    jobs.failures = [{"reason": "invalid", "message": "Provided Schema does not match"}]
    with pytest.raises(UserError, match="Provided Schema does not match") as caught:
        BigQuerySink(settings).commit([batch([0])])
    assert not isinstance(caught.value, UnavailableError)


def test_rows_deleted_by_hand_land_again(settings: Settings, jobs: JobIds) -> None:
    """Positions go back with the deleted rows, and jobs of a dropped table do not count for its successor."""
    sink = BigQuerySink(settings)
    sink.commit([batch([0, 1]), pulled("a")])
    query(sink, "delete from {raw}.users where true")
    assert BigQuerySink(settings).commit([batch([0, 1])]) == {"users": 2}
    sink._datasets.client.delete_table(f"{sink._datasets.prefix}raw.users")
    sink._datasets.client.delete_table(f"{sink._datasets.prefix}raw.clicks")
    again = BigQuerySink(settings)
    again.create_tables()
    assert again.commit([batch([0, 1]), pulled("a")]) == {"users": 2, "clicks": 1}
    assert offsets(again) == [0, 1]


def recovered(*message_ids: str) -> pa.Table:
    rows = [{"source": "recover", "topic": "users", "message_id": one, "payload": b"{}"} for one in message_ids]
    return pa.Table.from_pylist(rows, BATCH_SCHEMA)


def recovered_rows(sink: BigQuerySink) -> list[tuple[Any, ...]]:
    return query(sink, "select message_id from {raw}.users where source = 'recover' order by 1")


def test_a_killed_recovery_is_waited_for_by_the_next(settings: Settings, jobs: JobIds) -> None:
    """The next command reads the table before the job of the first has ended, and divides the messages differently."""
    jobs.on_sent = die
    with pytest.raises(KilledError):
        BigQuerySink(settings).land_again("users", recovered("a", "b"))
    jobs.on_sent = lambda: None
    assert BigQuerySink(settings).land_again("users", recovered("b", "c")) == 1
    assert jobs.conflicts == 1
    assert BigQuerySink(settings).land_again("users", recovered("c", "a", "d")) == 1
    assert recovered_rows(BigQuerySink(settings)) == [("a",), ("b",), ("c",), ("d",)]


def test_a_recovery_whose_job_failed_or_whose_rows_were_deleted_lands(settings: Settings, jobs: JobIds) -> None:
    jobs.failures = [{"reason": "backendError"}]
    with pytest.raises(UnavailableError, match="BigQuery could not load"):
        BigQuerySink(settings).land_again("users", recovered("a"))
    sink = BigQuerySink(settings)
    assert sink.land_again("users", recovered("a")) == 1
    query(sink, "delete from {raw}.users where true")
    assert BigQuerySink(settings).land_again("users", recovered("a")) == 1
    assert recovered_rows(sink) == [("a",)]


def test_concurrent_recoveries_land_each_message_once(settings: Settings, jobs: JobIds) -> None:
    BigQuerySink(settings).create_tables()
    messages = [f"m{number:02}" for number in range(24)]

    def land(seed: int) -> int:
        chance = random.Random(seed)
        sink = BigQuerySink(settings)
        return sum(sink.land_again("users", recovered(*chance.sample(messages, 12))) for _ in range(3))

    with ThreadPoolExecutor(3) as pool:
        landed = sum(pool.map(land, range(3)))
    found = [message_id for (message_id,) in recovered_rows(BigQuerySink(settings))]
    assert len(found) == landed == len({*found})


def test_job_ids_are_valid_in_bigquery(settings: Settings, jobs: JobIds) -> None:
    sink = BigQuerySink(settings)
    sink.commit([batch([0], topic="a.b/c", topic_id="x+/="), pulled("ü ä")])
    for name in jobs.jobs:
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
        assert settings.dataset_prefix in name
        assert len(name) <= 1024


# -- status and results -----------------------------------------------------------------------------------------------


def test_status_counts_what_landed_and_what_the_last_build_rejected(settings: Settings) -> None:
    sink = BigQuerySink(settings, clock=lambda: NOON)
    assert set(sink.status()) == set(STREAMS)
    assert set(sink.status().values()) == {StreamStatus(0, None, None)}
    sink.commit([batch([0, 1])])
    assert sink.status()["users"] == StreamStatus(2, NOON, None)
    query(sink, "create schema {analytics}")
    query(
        sink,
        "create table {analytics}.dead_letters as select 'users' as stream,"
        " if(number = 4, timestamp '2026-01-01', null) as recovered_at from unnest([1, 2, 3, 4]) as number",
    )
    assert sink.status()["users"] == StreamStatus(2, NOON, 3)
    assert sink.status()["posts"] == StreamStatus(0, None, 0)


def test_unlisted_fields_are_counted_once_a_stream_is_staged(settings: Settings) -> None:
    sink = BigQuerySink(settings, clock=lambda: NOON)
    assert sink.unlisted_fields("users") is None
    query(sink, "create schema {analytics}")
    query(sink, "create schema {staging}")
    query(
        sink,
        "create table {analytics}.field_drift as"
        " select 'users' as stream, 'unlisted' as problem, 'a' as path, 'number' as type, '9' as example, 3 as messages"
        " union all select 'users', 'unlisted', 'b', 'string', 'aa', 5"
        " union all select 'users', 'invalid', 'c', 'string', 'aa', 7",
    )
    query(sink, "create table {staging}.stg_users (a int64)")
    assert sink.unlisted_fields("users") is None
    query(sink, "insert into {staging}.stg_users values (1)")
    assert sink.unlisted_fields("users") == [
        UnlistedField("b", "string", "aa", 5),
        UnlistedField("a", "number", "9", 3),
    ]


def test_results_after_the_cursor_are_returned_in_its_order(sink: BigQuerySink) -> None:
    with pytest.raises(UserError, match="has no fct_page_views yet: run `make build` first"), sink.emitting():
        pass
    with pytest.raises(UserError, match="has no fct_page_views yet"):
        sink.count_results(FIRST_CURSOR)
    expected = [
        Result(NOON + minute * timedelta(minutes=1), session, number, "s", "home", NOON, Decimal(2), NOON, NOON)
        for minute in range(2)
        for session in ("a", "b")
        for number in (1, 2)
    ]
    query(sink, "create schema {analytics}")
    times = ("session_landed_at", "event_at", "session_started_at", "window_end_at")
    rows = [
        ", ".join(
            f"timestamp '{value}' as {name}"
            if name in times
            else f"{'numeric ' if isinstance(value, Decimal) else ''}'{value}' as {name}"
            if not isinstance(value, int)
            else f"{value} as {name}"
            for name, value in result._asdict().items()
        )
        for result in reversed(expected)
    ]
    unknown = rows[0].replace("numeric '2'", "cast(null as numeric)")
    selects = " union all ".join(f"select {row}" for row in [*rows, unknown])
    query(sink, f"create table {{analytics}}.fct_page_views as {selects}")
    for number in range(len(expected) + 1):
        after = expected[number - 1].cursor if number else FIRST_CURSOR
        chunks = list(sink.results(after, 3))
        assert [result for chunk in chunks for result in chunk] == expected[number:]
        assert all(len(chunk) <= 3 for chunk in chunks)
        assert sink.count_results(after) == len(expected) - number
    with sink.emitting():
        pass


def test_each_topic_has_its_own_cursor_and_a_second_emit_is_rejected(settings: Settings) -> None:
    first, second = BigQuerySink(settings), BigQuerySink(settings)
    assert first.emit_cursor("a") == FIRST_CURSOR
    cursor, later = Cursor(NOON, "s", 3), Cursor(NOON, "s", 4)
    first.save_emit_cursor("a", cursor)
    assert first.emit_cursor("b") == FIRST_CURSOR
    assert second.emit_cursor("a") == cursor
    first.save_emit_cursor("a", later)
    first.save_emit_cursor("a", later)
    with pytest.raises(UserError, match="another `ingest emit` to a is running"):
        second.save_emit_cursor("a", Cursor(NOON, "t", 1))
    assert second.emit_cursor("a") == later
    second.save_emit_cursor("a", FIRST_CURSOR)
    assert first.emit_cursor("a") == FIRST_CURSOR


# -- errors -----------------------------------------------------------------------------------------------------------


def test_missing_credentials_are_an_error_that_says_how_to_get_them(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def default(*arguments: Any, **options: Any) -> Any:
        raise DefaultCredentialsError("no\ncredentials")

    monkeypatch.setattr("google.auth.default", default)
    with pytest.raises(UserError, match=r"^no Google Cloud credentials: run `gcloud auth .*$") as caught:
        BigQuerySink(settings.model_copy(update={"bigquery_emulator_host": None}))
    assert not isinstance(caught.value, UnavailableError)


@pytest.mark.parametrize("is_listening", [False, True])
def test_a_bigquery_that_does_not_answer_is_unavailable(monkeypatch: pytest.MonkeyPatch, is_listening: bool) -> None:
    """No server listens, or a server listens and never answers."""
    retry = bigquery_client.RETRY.with_timeout(0.5)
    monkeypatch.setattr(bigquery_client, "RETRY", retry)
    monkeypatch.setattr(bigquery_client, "CALL", {"retry": retry, "timeout": 0.2})
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        if not is_listening:
            server.close()
        sink = BigQuerySink(at(f"http://127.0.0.1:{port}", "t_"))
        for attempt in (
            sink.create_tables,
            sink.status,
            lambda: sink.positions("kafka", {}),
            lambda: sink.save_emit_cursor("results", FIRST_CURSOR),
        ):
            with pytest.raises(UnavailableError, match=r"^BigQuery does not answer: "):
                attempt()


@pytest.mark.parametrize(("reason", "passes"), [("quotaExceeded", True), ("accessDenied", False)])
def test_a_rejected_request_is_transient_or_not(
    sink: BigQuerySink, monkeypatch: pytest.MonkeyPatch, reason: str, passes: bool
) -> None:
    def refuse(*arguments: Any, **options: Any) -> Any:
        raise Forbidden("no\nway", errors=[{"reason": reason}])

    monkeypatch.setattr(sink._datasets.client, "list_tables", refuse)
    with pytest.raises(UserError, match=r"BigQuery refuses: .*no") as caught:
        sink.status()
    assert isinstance(caught.value, UnavailableError) == passes
    assert "\n" not in str(caught.value)


# -- the command line -------------------------------------------------------------------------------------------------


def test_the_command_line_lands_in_bigquery(settings: Settings, tmp_path: Path) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(Path(__file__).parents[3]),
        "WAREHOUSE": "bigquery",
        "GCP_PROJECT": PROJECT,
        "DATASET_PREFIX": settings.dataset_prefix,
        "BIGQUERY_EMULATOR_HOST": str(settings.bigquery_emulator_host),
        "SPOOL_PATH": str(tmp_path / "spool"),
    }

    def ingest(*arguments: str) -> str:
        command = [sys.executable, "-m", "ingest", *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "created table raw.users" in ingest("provision")
    published = ingest("simulate", "--days", "1", "--events-per-day", "300").split()[1]
    assert ingest("land") == f"landed {published} messages\n"
    assert ingest("land") == "landed 0 messages\n"
    landed = BigQuerySink(settings).status()
    assert sum(status.landed for status in landed.values()) == int(published.replace(",", ""))
    shown = ingest("status")
    assert all(f"{landed[stream].landed:,}" in shown for stream in STREAMS)
    assert not (tmp_path / "warehouse.duckdb").exists()


def test_landing_times_are_utc(sink: BigQuerySink) -> None:
    before = datetime.now(UTC).replace(tzinfo=None)
    sink.commit([batch([0])])
    newest = sink.status()["users"].newest_landed_at
    assert newest is not None
    assert before <= newest <= datetime.now(UTC).replace(tzinfo=None)
