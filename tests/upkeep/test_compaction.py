"""Compacting keeps every row, and gives back what many small commits and builds leave."""

from pathlib import Path

import duckdb
import pytest

import ingest.cli
from common.settings import Settings
from engines.duckdb import compaction, replacement
from engines.duckdb.engine import DuckDBEngine
from engines.duckdb.sink import DuckDBSink
from tests.command_line import run_main
from tests.engines.test_duckdb import batch, offsets
from tests.upkeep.databases import catalog, rows
from tests.upkeep.test_backup import full_disk, settings_of


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A warehouse of which most is unused."""
    settings = settings_of(tmp_path)
    DuckDBSink(settings.warehouse_path).commit([batch([0])])
    with duckdb.connect(str(settings.warehouse_path)) as connection:
        connection.execute("create view raw.a_view as select count(*) as users from raw.users")
        for name in ("deleted", "kept"):
            connection.execute(f"create table raw.{name} as select range, hash(range) as h from range(1000000)")
            connection.execute("checkpoint")
        connection.execute("drop table raw.deleted")
    return settings


def test_the_file_is_smaller_and_the_same(settings: Settings) -> None:
    path = settings.warehouse_path
    before, size = (catalog(path), rows(path)), path.stat().st_size
    assert DuckDBEngine(settings).compact() == (size, path.stat().st_size)
    assert path.stat().st_size < 0.6 * size
    assert (catalog(path), rows(path)) == before
    assert [found.name for found in path.parent.iterdir()] == [path.name]
    sink = DuckDBSink(path)
    sink.commit([batch([0, 1])])
    assert offsets(path) == [0, 1]


def test_a_loader_that_runs_goes_on(settings: Settings) -> None:
    sink = DuckDBSink(settings.warehouse_path)
    sink.commit([batch([0, 1])])
    DuckDBEngine(settings).compact()
    sink.verify()
    sink.commit([batch([1, 2])])
    assert offsets(settings.warehouse_path) == [0, 1, 2]


def test_a_full_disk_changes_nothing(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replacement, "HANDOVER_SECONDS", 0)
    before = rows(settings.warehouse_path)
    with full_disk(settings.warehouse_path.stat().st_size // 4), pytest.raises(Exception, match="free some space"):
        DuckDBEngine(settings).compact()
    assert rows(settings.warehouse_path) == before
    assert [path.name for path in settings.warehouse_path.parent.iterdir()] == ["warehouse.duckdb"]


def test_an_older_file_keeps_its_storage_version(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    with duckdb.connect() as connection:
        connection.execute(f"attach '{settings.warehouse_path}' as warehouse (storage_version 'v0.10.0')")
    DuckDBSink(settings.warehouse_path).commit([batch([0])])
    DuckDBEngine(settings).compact()
    assert settings.warehouse_path.read_bytes()[12] == 64
    assert offsets(settings.warehouse_path) == [0]


def test_status_says_when_it_is_worth_it(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"WAREHOUSE_PATH": str(settings.warehouse_path), "SPOOL_PATH": str(settings.warehouse_path.parent)}
    line = f"of {settings.warehouse_path} (MB) is unused: `make compact` rewrites it"

    def status() -> str:
        printed = run_main(ingest.cli.main, ["status"], environment).stdout
        return " ".join(word for word in printed.split() if not word.strip("(").isdigit()).replace("MB)", "(MB)")

    assert line not in status(), "it is small"
    monkeypatch.setattr(compaction, "SMALL_BYTES", 0)
    assert line in status()
    DuckDBEngine(settings).compact()
    assert line not in status()
