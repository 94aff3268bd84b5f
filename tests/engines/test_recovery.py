"""Dead letters are read as they landed, and each lands again once, on both engines."""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pytest

from common.errors import UserError
from engines.batch import BATCH_SCHEMA
from engines.bigquery.sink import BigQuerySink
from engines.duckdb import sink as duckdb_sink
from engines.duckdb.sink import DuckDBSink
from engines.recovery import REJECTED_SCHEMA, OpenDeadLetters, recovered_id
from engines.warehouse import Warehouse
from tests.engines.test_bigquery import at, query
from tests.engines.test_duckdb import NOON, batch, new_rows

LATER = NOON + timedelta(days=90)
ENGINES = ["duckdb", pytest.param("bigquery", marks=pytest.mark.bigquery_emulator)]
Opened = Callable[[datetime], Warehouse]
"""A sink whose clock stands still."""


@pytest.fixture(params=ENGINES)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Opened:
    if request.param == "duckdb":
        return lambda now: DuckDBSink(tmp_path / "warehouse.duckdb", clock=lambda: now)
    settings = at(request.getfixturevalue("bigquery_emulator"), f"t{uuid4().hex}_")
    return lambda now: BigQuerySink(settings, clock=lambda: now)


def run(sink: Warehouse, sql: str) -> list[tuple[object, ...]]:
    """`sql` with {raw} and {analytics} for the schemas."""
    if isinstance(sink, BigQuerySink):
        return query(sink, sql)
    assert isinstance(sink, DuckDBSink)
    with sink.connection() as connection:
        return connection.execute(sql.format(raw="raw", analytics="analytics")).fetchall()


def reject(sink: Warehouse, *letters: tuple[int, str]) -> None:
    """Make dead letters of these offsets of users, for these reasons."""
    rows = " union all ".join(
        f"select 'users' as stream, 'users/0/{offset}' as message_id, '{reason}' as reason"
        for offset, reason in letters
    )
    run(sink, "create schema {analytics}")
    run(
        sink,
        "create table {analytics}.dead_letters as select letters.stream, letters.message_id, reason, landed_at,"
        " cast(null as timestamp) as recovered_at"
        f" from ({rows}) as letters inner join {{raw}}.users as message on letters.message_id = message.message_id",
    )


def ids(sink: Warehouse, letters: OpenDeadLetters) -> list[str]:
    return [message_id for rows in sink.rejected(letters) for message_id in rows["message_id"].to_pylist()]


def again(*offsets: int) -> pa.Table:
    rows = [
        {"source": "recover", "topic": "users", "message_id": recovered_id(NOON, f"users/0/{offset}"), "payload": b"{}"}
        for offset in offsets
    ]
    return pa.Table.from_pylist(rows, BATCH_SCHEMA)


def test_dead_letters_are_read_as_they_landed(opened: Opened) -> None:
    sink = opened(NOON)
    with pytest.raises(UserError, match="no dead letters yet: run `make build` first"):
        next(sink.rejected(OpenDeadLetters("users")))
    messages = batch([9, 10, 11])
    sink.commit([messages])
    with pytest.raises(UserError, match="no dead letters yet: run `make build` first"):
        next(sink.rejected(OpenDeadLetters("users")))
    reject(sink, (10, "malformed_json"), (9, "missing:user_id"))
    [rows] = sink.rejected(OpenDeadLetters("users"))
    assert rows.schema == REJECTED_SCHEMA
    landed = messages.tables["users"].slice(0, 2)
    assert rows.select(BATCH_SCHEMA.names).to_pylist() == landed.to_pylist()  # in the order of offsets
    assert rows["landed_at"].to_pylist() == [NOON, NOON]
    assert rows["reject_reason"].to_pylist() == ["missing:user_id", "malformed_json"]
    assert rows["decoded"].null_count == 2


def test_dead_letters_are_selected_by_reason_and_landing_time(opened: Opened) -> None:
    opened(NOON).commit([batch([0, 1])])
    sink = opened(LATER)
    sink.commit([batch([2])])
    reject(sink, (0, "a"), (1, "b"), (2, "a"))
    assert ids(sink, OpenDeadLetters("users")) == ["users/0/0", "users/0/1", "users/0/2"]
    assert ids(sink, OpenDeadLetters("users", reason="a")) == ["users/0/0", "users/0/2"]
    assert ids(sink, OpenDeadLetters("users", reason="a", since=LATER)) == ["users/0/2"]
    assert ids(sink, OpenDeadLetters("users", until=LATER)) == ["users/0/0", "users/0/1"]
    assert ids(sink, OpenDeadLetters("posts")) == []


def test_a_message_lands_again_once(opened: Opened) -> None:
    opened(NOON).commit([batch([0, 1, 2])])
    sink = opened(LATER)
    reject(sink, (0, "a"), (1, "a"))
    positions = sink.positions("kafka", {})
    assert sink.land_again("users", again(0)) == 1
    assert sink.land_again("users", again(0)) == 0
    assert ids(sink, OpenDeadLetters("users")) == ["users/0/1"]
    assert opened(LATER).land_again("users", again(0, 1)) == 1
    assert ids(sink, OpenDeadLetters("users")) == []
    assert sink.positions("kafka", {}) == positions
    found = run(sink, "select message_id, source, stream from {raw}.users where source = 'recover' order by 1")
    assert found == [(recovered_id(NOON, f"users/0/{offset}"), "recover", "users") for offset in (0, 1)]
    assert new_rows(sink.commit([batch([3])])) == 1
    assert sink.status()["users"].landed == 6


def test_a_recovered_message_lands_later_than_its_original_even_if_the_clock_went_back(tmp_path: Path) -> None:
    path = tmp_path / "warehouse.duckdb"
    DuckDBSink(path, clock=lambda: NOON).commit([batch([0])])
    sink = DuckDBSink(path, clock=lambda: NOON - timedelta(days=1))
    sink.land_again("users", again(0))
    assert run(sink, "select landed_at > timestamp '2026-01-01 12:00:00' from raw.users where source = 'recover'") == [
        (True,)
    ]


def test_a_commit_that_is_interrupted_lands_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = DuckDBSink(tmp_path / "warehouse.duckdb", clock=lambda: NOON)
    sink.commit([batch([0])])
    insert = duckdb_sink.insert_again

    def insert_and_die(*arguments: object) -> int:
        insert(*arguments)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        killed.setattr(duckdb_sink, "insert_again", insert_and_die)
        sink.land_again("users", again(0))
    assert sink.status()["users"].landed == 1
    assert sink.land_again("users", again(0)) == 1


def test_raw_tables_of_an_earlier_version_can_be_read(tmp_path: Path) -> None:
    sink = DuckDBSink(tmp_path / "warehouse.duckdb", clock=lambda: NOON)
    sink.commit([batch([0])])
    reject(sink, (0, "a"))
    for column in ("schema_id", "decoded", "decoded_key", "decode_error"):
        run(sink, f"alter table raw.users drop column {column}")
    [rows] = sink.rejected(OpenDeadLetters("users"))
    assert rows["decoded"].null_count == 1
    assert sink.land_again("users", again(0)) == 1
