"""Compacting keeps every row, and gives back what many small commits and builds leave."""

import json
from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

import ingest.cli
from common.settings import Settings
from common.streams import STREAMS
from dbt_project.warm import WarmProject
from engines.batch import BATCH_SCHEMA, Batch
from engines.duckdb import compaction, replacement
from engines.duckdb.engine import DuckDBEngine
from engines.duckdb.sink import DuckDBSink
from tests.command_line import run_main
from tests.engines.test_duckdb import batch, offsets
from tests.upkeep.databases import catalog, rows
from tests.upkeep.test_backup import full_disk, settings_of
from tools import ROOT
from tools.warehouses.commands import Warehouse

COMMITS = 500
COMMITS_PER_BUILD = 5
MAX_RATIO = 1.5
"""Size after compacting in relation to that of a fresh full refresh."""


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


def slices(shop: Warehouse, count: int) -> list[Batch]:
    """The messages of the shop in this many batches, each with some of each stream."""
    tables: dict[str, pa.Table] = {}
    with duckdb.connect(str(shop.path), read_only=True) as connection:
        for stream in STREAMS:
            columns = ", ".join(f'"{name}"' for name in BATCH_SCHEMA.names)
            found = connection.sql(f'select {columns} from raw.{stream} order by "offset"').to_arrow_table()
            tables[stream] = found.cast(BATCH_SCHEMA)
    batches = []
    for number in range(count):
        parts, positions = {}, {}
        for stream, table in tables.items():
            first, last = (table.num_rows * at // count for at in (number, number + 1))
            if first < last:
                parts[stream] = table.slice(first, last - first)
                positions[parts[stream]["topic"][0].as_py(), 0] = parts[stream]["offset"][-1].as_py() + 1
        batches.append(Batch(parts, positions))
    return batches


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_after_500_commits_and_100_builds_it_is_as_small_as_after_a_full_refresh(
    shop: Warehouse, tmp_path: Path
) -> None:
    project = WarmProject(ROOT / "dbt_project", tmp_path / "work")
    clock = iter(datetime(2026, 2, 1) + timedelta(minutes=minute) for minute in range(10_000))
    sizes: dict[str, int] = {}
    paths = {name: tmp_path / name / "warehouse.duckdb" for name in ("often", "fresh")}
    for name, path in paths.items():
        path.parent.mkdir()
        sink = DuckDBSink(path, clock=lambda: next(clock))
        for number, one in enumerate(slices(shop, COMMITS if name == "often" else 1), start=1):
            sink.commit([one])
            if name == "fresh" or number % COMMITS_PER_BUILD == 0:
                command = ["build", "--exclude-resource-type", "test", "unit_test"]
                project.run(path, *command, *(["--full-refresh"] if name == "fresh" else []))
        sizes[name] = path.stat().st_size
    engine = DuckDBEngine(Settings(_env_file=None, warehouse_path=paths["often"]))
    before = rows(paths["often"])
    _, compacted = engine.compact()
    assert rows(paths["often"]) == before
    ratios = {name: size / sizes["fresh"] for name, size in {**sizes, "compacted": compacted}.items()}
    print(json.dumps({name: round(ratio, 2) for name, ratio in ratios.items()}))  # noqa: T201  shown with -s
    assert ratios["compacted"] <= MAX_RATIO
