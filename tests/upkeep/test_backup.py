"""A backup is restored exactly, or not at all."""

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import orjson
import pytest

from common.errors import UserError
from common.settings import Settings
from common.streams import STREAMS
from engines.backup import MANIFEST
from engines.duckdb.engine import DuckDBEngine
from engines.duckdb.sink import DuckDBSink
from tests.engines.test_duckdb import batch, offsets, pulled
from tests.live.checks import check_landed_once
from tests.upkeep.databases import assert_same, catalog, rows
from tools import ROOT
from tools.warehouses.commands import Warehouse
from upkeep.backup import back_up
from upkeep.restore import redelivery_notes, restore

ODD = """
create type analytics.mood as enum ('a', 'b');
create sequence analytics.numbers;
create table analytics."odd/types. and 'names'" (
    id bigint primary key default nextval('analytics.numbers'), huge hugeint, unsigned uhugeint,
    period interval, at_zone timestamptz, clock timetz, nanoseconds timestamp_ns, day date, moment timestamp,
    mood analytics.mood,
    many hugeint[], pair struct(a varchar, "b c" decimal(38, 10)), by_name map(varchar, int[]), body json, payload blob,
    amount decimal(18, 4), ratio double, bits bit, guid uuid, checked int check (checked > 0), unique (guid)
);
insert into analytics."odd/types. and 'names'" values (
    1, 170141183460469231731687303715884105727, 340282366920938463463374607431768211455,
    interval '1 year 2 days 3.123456 seconds', '2026-01-01 00:00:00+01', '12:00:00+02',
    '2026-01-01 00:00:00.123456789', 'infinity', '-infinity', 'b',
    [1, null, -170141183460469231731687303715884105728], {'a': 'null', 'b c': 0.1234567891}, map {'k': [1, 2]},
    '{"a": 1.10, "a": 2}', '\\x00\\xff'::blob, 12345678901234.5678, 'nan', '10101', uuid(), 5
);
insert into analytics."odd/types. and 'names'" (id) values (2);
create view analytics.a_view_of_a_view as select 1 as one;
create view analytics.later as select id, huge from analytics."odd/types. and 'names'";
create or replace view analytics.a_view_of_a_view as select count(*) as ids from analytics.later;
create index by_amount on analytics."odd/types. and 'names'" (amount);
create table staging.empty (n int);
"""


def settings_of(folder: Path) -> Settings:
    return Settings(_env_file=None, warehouse_path=folder / "warehouse.duckdb", pubsub_project="shop")


def ignore(_: object) -> None:
    pass


@pytest.fixture
def made(tmp_path: Path) -> Settings:
    """A warehouse with messages from Kafka and Pub/Sub, and with every type of column."""
    (tmp_path / "made").mkdir()
    settings = settings_of(tmp_path / "made")
    sink = DuckDBSink(settings.warehouse_path)
    sink.commit([batch([0, 1], topic_id="one"), pulled("m1")])
    with sink.connection() as connection:
        connection.execute("create schema analytics; create schema staging")
        connection.execute(ODD)
    return settings


@pytest.fixture
def other(tmp_path: Path) -> Settings:
    """Where there is no warehouse yet."""
    (tmp_path / "other").mkdir()
    return settings_of(tmp_path / "other")


@pytest.fixture
def folder(made: Settings, tmp_path: Path) -> Path:
    """A backup."""
    back_up(made, tmp_path / "backup", ignore)
    return tmp_path / "backup"


def test_a_restored_warehouse_is_the_same(made: Settings, other: Settings, folder: Path) -> None:
    before = rows(made.warehouse_path)
    restore(other, folder, ignore)
    assert_same(made.warehouse_path, other.warehouse_path)
    assert rows(made.warehouse_path) == before
    assert any("170141183460469231731687303715884105727" in row for of_one in before.values() for row in of_one)
    for settings in (made, other):
        assert [path.name for path in settings.warehouse_path.parent.iterdir()] == ["warehouse.duckdb"]
        assert settings.warehouse_path.read_bytes()[12] == 65, "DuckDB 1.2 must be able to read it"


def test_the_manifest_describes_every_file(folder: Path, made: Settings) -> None:
    manifest = orjson.loads((folder / MANIFEST).read_bytes())
    assert {path.name for path in folder.iterdir()} == {MANIFEST, *(table["file"] for table in manifest["tables"])}
    [users] = [table for table in manifest["tables"] if (table["schema"], table["name"]) == ("raw", "users")]
    assert users["rows"] == 2
    assert {"name": "landed_at", "type": "TIMESTAMP"} in users["columns"]
    assert manifest["positions"] == [
        {"source": "kafka", "topic": "users", "topic_id": "one", "partition": 0, "next_offset": 2},
        {"source": "pubsub", "topic": "clicks", "topic_id": "", "partition": 0, "next_offset": 1},
    ]


def test_landing_continues_from_a_restored_warehouse(other: Settings, folder: Path) -> None:
    restore(other, folder, ignore)
    sink = DuckDBSink(other.warehouse_path)
    assert sink.positions("kafka", {"users": "one"}) == {("users", 0): 2}
    sink.commit([batch([0, 1, 2, 3], topic_id="one")])
    assert offsets(other.warehouse_path) == [0, 1, 2, 3]


@pytest.mark.parametrize("is_kept_open", [True, False])
def test_a_backup_holds_one_moment_while_landing_continues(
    made: Settings, other: Settings, tmp_path: Path, is_kept_open: bool
) -> None:
    """In the process that keeps the warehouse open, and from a copy of the file."""
    landed = iter(range(2, 1000))
    engine = DuckDBEngine(made)
    sink = engine.warehouse() if is_kept_open else DuckDBSink(made.warehouse_path)

    def land(_: object) -> None:
        sink.commit([batch([next(landed)], topic_id="one")])

    if is_kept_open:
        (tmp_path / "backup").mkdir()
        with engine.kept_open():
            engine.write_backup(tmp_path / "backup", land)
    else:
        back_up(made, tmp_path / "backup", land)
    restore(other, tmp_path / "backup", ignore)
    assert offsets(other.warehouse_path) == [0, 1]
    assert DuckDBSink(other.warehouse_path).positions("kafka", {"users": "one"}) == {("users", 0): 2}
    assert offsets(made.warehouse_path) == list(range(next(landed)))


# -- the shop ---------------------------------------------------------------------------------------------------------


def test_a_restored_shop_goes_on_as_if_nothing_had_happened(shop: Warehouse, tmp_path: Path) -> None:
    original = shop.copy_to(tmp_path / "original")
    backup = tmp_path / "backup"
    done = original.run("upkeep", "backup", str(backup))
    assert done.stdout.startswith("backed up ")
    restored = Warehouse(tmp_path / "restored")
    shutil.copytree(original.folder / "spool", restored.folder / "spool")
    shutil.copytree(
        original.folder / "warehouse.duckdb.published", restored.folder / "warehouse.duckdb.published", symlinks=True
    )
    done = restored.run("upkeep", "restore", str(backup))
    assert "land and build to continue" in done.stdout
    assert_same(original.path, restored.path)
    done = restored.run("serve", "query", "event_counts", expect=2)
    assert "nothing is published yet" in done.stderr, "what the lost warehouse published is not what this one holds"

    for warehouse in (original, restored):
        warehouse.simulate(1)
        warehouse.land()
        warehouse.build()
    check_landed_once(restored)
    assert original.marts() == restored.marts()
    anew = restored.copy_to(tmp_path / "anew")
    anew.run_models("--full-refresh")
    assert restored.differences(anew) == {}
    published = Warehouse(restored.folder / "warehouse.duckdb.published" / "current")
    assert published.query("select count(*) from analytics.fct_events") == restored.query(
        "select count(*) from analytics.fct_events"
    )


# -- what goes wrong --------------------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from itertools import count
from pathlib import Path
from common.settings import Settings
from upkeep.{module} import {command}

calls = count(1)

def kill(_):
    if next(calls) == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

{command}(Settings(_env_file=None, warehouse_path=Path(sys.argv[1])), Path(sys.argv[2]), kill)
"""


def kill(module: str, command: str, settings: Settings, folder: Path, after: int) -> None:
    """Run a command that is killed after this number of tables."""
    script = KILLED.format(module=module, command=command)
    done = subprocess.run(
        [sys.executable, "-c", script, str(settings.warehouse_path), str(folder), str(after)], cwd=ROOT, check=False
    )
    assert done.returncode == -signal.SIGKILL


def test_a_killed_backup_is_not_taken_for_one(made: Settings, other: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    kill("backup", "back_up", made, folder, after=3)
    assert not folder.exists()
    assert sorted(path.name for path in made.warehouse_path.parent.iterdir()) == ["warehouse.duckdb"]
    with pytest.raises(UserError, match=r"is not a complete backup: it has no manifest.json"):
        restore(other, tmp_path / "backup.partial", ignore)
    back_up(made, folder, ignore)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup", "made", "other"]
    restore(other, folder, ignore)
    assert_same(made.warehouse_path, other.warehouse_path)


@pytest.mark.parametrize("after", [1, 14, 17])
def test_a_killed_restore_can_be_repeated(made: Settings, other: Settings, folder: Path, after: int) -> None:
    """While it verifies, and while it writes."""
    assert len(orjson.loads((folder / MANIFEST).read_bytes())["tables"]) == 13
    kill("restore", "restore", other, folder, after)
    assert not other.warehouse_path.exists() or all(not found for found in rows(other.warehouse_path).values())
    restore(other, folder, ignore)
    assert_same(made.warehouse_path, other.warehouse_path)
    assert [path.name for path in other.warehouse_path.parent.iterdir()] == ["warehouse.duckdb"]


def change_manifest(folder: Path, **values: object) -> None:
    manifest = orjson.loads((folder / MANIFEST).read_bytes())
    (folder / MANIFEST).write_bytes(orjson.dumps(manifest | values))


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (lambda folder: flip_a_bit(folder / "raw.users.parquet"), "raw.users.parquet is damaged: its size or SHA-256"),
        (lambda folder: os.truncate(folder / "raw.users.parquet", 100), "raw.users.parquet is damaged: its size or"),
        (lambda folder: (folder / "raw.users.parquet").unlink(), "cannot read .*users.parquet: No such file"),
        (lambda folder: (folder / MANIFEST).unlink(), "is not a complete backup: it has no manifest.json"),
        (lambda folder: os.truncate(folder / MANIFEST, 200), "manifest.json is damaged: nothing was restored"),
        (lambda folder: change_manifest(folder, tables="none"), "manifest.json is damaged: nothing was restored"),
        (lambda folder: (folder / MANIFEST).write_text("[]"), "manifest.json is damaged: nothing was restored"),
        (lambda folder: change_manifest(folder, format=2), "has the format 2 of release .* restores format 1"),
        (lambda folder: change_manifest(folder, format=0), "has the format 0 of release .* restores format 1"),
        (shutil.rmtree, "is not a complete backup"),
    ],
)
def test_a_damaged_backup_is_not_restored(
    other: Settings, folder: Path, damage: Callable[[Path], None], error: str
) -> None:
    damage(folder)
    with pytest.raises(UserError, match=error) as told:
        restore(other, folder, ignore)
    assert "\n" not in str(told.value)
    assert [*other.warehouse_path.parent.iterdir()] == []


def test_a_warehouse_with_rows_is_not_replaced(made: Settings, folder: Path) -> None:
    DuckDBSink(made.warehouse_path).commit([batch([2], topic_id="one")])
    before = rows(made.warehouse_path)
    with pytest.raises(UserError, match=r"warehouse.duckdb is not empty \(.* has rows\): move the file away") as told:
        restore(made, folder, ignore)
    assert "\n" not in str(told.value)
    assert rows(made.warehouse_path) == before
    assert [path.name for path in made.warehouse_path.parent.iterdir()] == ["warehouse.duckdb"]


def test_a_warehouse_without_rows_is_replaced(made: Settings, other: Settings, folder: Path) -> None:
    DuckDBSink(other.warehouse_path).create_tables()
    restore(other, folder, ignore)
    assert_same(made.warehouse_path, other.warehouse_path)


def test_a_warehouse_that_another_process_holds_is_not_replaced(other: Settings, folder: Path) -> None:
    DuckDBSink(other.warehouse_path).create_tables()
    before = catalog(other.warehouse_path)
    script = f"import duckdb; c = duckdb.connect({str(other.warehouse_path)!r}); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        impatient = other.model_copy(update={"lock_timeout_seconds": 0.2})
        with pytest.raises(UserError, match=rf"has been held by another process \(PID {holder.pid}\)"):
            restore(impatient, folder, ignore)
        with pytest.raises(UserError, match=rf"has been held by another process \(PID {holder.pid}\)"):
            DuckDBEngine(impatient).compact()
        holder.communicate(b"\n")
    assert catalog(other.warehouse_path) == before


@pytest.mark.parametrize("content", ["a file in it", "a file of its name"])
def test_a_folder_that_has_something_is_not_written_to(made: Settings, tmp_path: Path, content: str) -> None:
    folder = tmp_path / "backup"
    if content == "a file in it":
        folder.mkdir()
    mine = folder / "mine" if folder.exists() else folder
    mine.write_text("mine")
    with pytest.raises(UserError, match=f"{folder} exists and is not an empty folder: give another one"):
        back_up(made, folder, ignore)
    assert mine.read_text() == "mine"
    assert not (tmp_path / "backup.partial").exists()


def test_an_empty_folder_is_written_to(made: Settings, tmp_path: Path) -> None:
    (tmp_path / "backup").mkdir()
    back_up(made, tmp_path / "backup", ignore)
    assert (tmp_path / "backup" / MANIFEST).exists()


def test_there_is_no_backup_without_a_warehouse(other: Settings, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no warehouse at .* yet"):
        back_up(other, tmp_path / "backup", ignore)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other"]
    assert [*other.warehouse_path.parent.iterdir()] == []


def test_of_two_backups_to_one_folder_the_second_is_rejected(made: Settings, tmp_path: Path) -> None:
    def again(_: int) -> None:
        with pytest.raises(UserError, match=r"another backup to .* is running"):
            back_up(made, tmp_path / "backup", ignore)

    back_up(made, tmp_path / "backup", again)
    assert (tmp_path / "backup" / MANIFEST).exists()


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file can grow beyond this size, in bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_nothing_of_a_backup(made: Settings, tmp_path: Path) -> None:
    """Where the file is copied, and where Parquet is written."""
    with full_disk(100_000), pytest.raises(UserError, match="cannot copy the warehouse to read it: ") as told:
        back_up(made, tmp_path / "backup", ignore)
    assert "\n" not in str(told.value)
    engine = DuckDBEngine(made)
    (tmp_path / "live").mkdir()
    with (
        engine.kept_open(),
        full_disk(500),
        pytest.raises(UserError, match=r"cannot write the backup to .*/live") as told,
    ):
        engine.write_backup(tmp_path / "live", ignore)
    assert "\n" not in str(told.value)
    assert [*(tmp_path / "live").iterdir()] == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["live", "made"]
    assert [path.name for path in made.warehouse_path.parent.iterdir()] == ["warehouse.duckdb"]
    assert offsets(made.warehouse_path) == [0, 1]


def test_a_full_disk_leaves_nothing_of_a_restore(made: Settings, other: Settings, folder: Path) -> None:
    with full_disk(100_000), pytest.raises(UserError, match="free some space: nothing is lost") as told:
        restore(other, folder, ignore)
    assert "\n" not in str(told.value)
    assert [*other.warehouse_path.parent.iterdir()] == []
    restore(other, folder, ignore)
    assert_same(made.warehouse_path, other.warehouse_path)


def test_a_view_that_reads_what_is_gone_does_not_hinder(made: Settings, other: Settings, tmp_path: Path) -> None:
    with duckdb.connect(str(made.warehouse_path)) as connection:
        connection.execute("create table staging.gone (n int); create view staging.broken as from staging.gone")
        connection.execute("drop table staging.gone")
    back_up(made, tmp_path / "backup", ignore)
    restore(other, tmp_path / "backup", ignore)
    with duckdb.connect(str(made.warehouse_path)) as connection:
        connection.execute("drop view staging.broken")
    assert_same(made.warehouse_path, other.warehouse_path)


def test_pubsub_subscriptions_are_named_with_the_time_to_rewind_to(other: Settings, folder: Path) -> None:
    manifest = restore(other, folder, ignore)
    assert redelivery_notes(other, manifest) == [
        "projects/shop/subscriptions/clicks-landing: the newest landed message is of 2026-01-01 12:00:00 UTC"
    ]
    assert set(manifest.newest_from_pubsub) <= set(STREAMS)
