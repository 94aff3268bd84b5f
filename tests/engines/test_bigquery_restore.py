"""A DuckDB warehouse moves to BigQuery: messages, positions, cursors and the key of hashes, in the emulator."""

from datetime import datetime
from pathlib import Path
from uuid import uuid4

import pytest

from common.errors import UserError
from common.settings import Settings
from engines.batch import Batch
from engines.bigquery import restore as bigquery_restore
from engines.bigquery.sink import BigQuerySink
from engines.duckdb.sink import DuckDBSink
from engines.warehouse import Cursor
from tests.engines.test_bigquery import at, offsets, query
from tests.engines.test_duckdb import batch, pulled
from upkeep.backup import back_up
from upkeep.restore import restore

pytestmark = pytest.mark.bigquery_emulator

CURSOR = Cursor(datetime(2026, 1, 1, 12, 0, 0, 1), "s1", 2)
RAW = 'select message_id, "offset", key, attributes, published_at, landed_at, payload from raw.{} order by 1'


def ignore(_: object) -> None:
    pass


@pytest.fixture
def settings(bigquery_emulator: str) -> Settings:
    return at(bigquery_emulator, f"t{uuid4().hex}_")


@pytest.fixture
def duckdb(tmp_path: Path) -> DuckDBSink:
    """A warehouse whose partition ends in offsets without a message, and with one that has no message at all."""
    sink = DuckDBSink(tmp_path / "warehouse.duckdb")
    sink.commit([batch([0, 1, 3], topic_id="one"), pulled("m1", "m2")])
    sink.commit([Batch({}, {("users", 0): 6, ("users", 1): 2}, {"users": "one"}, source="kafka")])
    sink.save_emit_cursor("time_on_page", CURSOR)
    return sink


@pytest.fixture
def folder(duckdb: DuckDBSink, tmp_path: Path) -> Path:
    back_up(Settings(_env_file=None, warehouse_path=tmp_path / "warehouse.duckdb"), tmp_path / "backup", ignore)
    return tmp_path / "backup"


@pytest.mark.parametrize("bytes_per_load", [1, bigquery_restore.BYTES_PER_LOAD])
def test_landing_continues_in_bigquery(
    duckdb: DuckDBSink, folder: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch, bytes_per_load: int
) -> None:
    """In one load job per table, and in one per row."""
    if bytes_per_load == 1:
        monkeypatch.setattr(bigquery_restore, "ROWS_PER_READ", 1)
    monkeypatch.setattr(bigquery_restore, "BYTES_PER_LOAD", bytes_per_load)
    restore(settings, folder, ignore)
    sink = BigQuerySink(settings)
    assert sink.missing_tables() == []
    with duckdb.connection(read_only=True) as connection:
        for stream in ("users", "clicks"):
            select = RAW.format(stream)
            moved = query(sink, select.replace('"offset"', "`offset`").replace("raw.", "{raw}."))
            assert moved == connection.sql(select).fetchall()
        key = connection.sql("from raw.pseudonym_key").fetchall()
    assert query(sink, "select inner_pad, outer_pad from {raw}.pseudonym_key") == key
    assert sink.emit_cursor("time_on_page") == CURSOR
    assert sink.positions("kafka", {"users": "one"}) == {("users", 0): 6, ("users", 1): 2}
    assert sink.positions("kafka", {"users": "another"}) == {}
    sink.commit([batch([6, 7], topic_id="one")])
    assert offsets(sink) == [0, 1, 3, 6, 7]
    assert BigQuerySink(settings).positions("kafka", {"users": "one"}) == {("users", 0): 8, ("users", 1): 2}


def test_a_dataset_with_tables_is_not_loaded_into(folder: Path, settings: Settings) -> None:
    sink = BigQuerySink(settings)
    sink.create_tables()
    with pytest.raises(UserError, match=r"the dataset .*raw has tables: set another DATASET_PREFIX") as told:
        restore(settings, folder, ignore)
    assert "\n" not in str(told.value)
    assert offsets(sink) == []


def test_a_killed_restore_is_landed_again_and_loses_nothing(
    folder: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Positions come last."""
    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        killed.setattr(bigquery_restore, "_positions", lambda manifest: (_ for _ in ()).throw(KeyboardInterrupt))
        restore(settings, folder, ignore)
    assert BigQuerySink(settings).positions("kafka", {"users": "one"}) == {}


def test_backup_and_compact_are_for_duckdb(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="BigQuery has snapshots of tables and time travel"):
        back_up(settings, tmp_path / "backup", ignore)
    assert [*tmp_path.iterdir()] == []
