"""What is published on DuckDB: the marts and nothing else, equal to the warehouse after any history of builds."""

import os
import random
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from unittest.mock import patch

import duckdb
import pytest
from structlog.testing import capture_logs

from common.errors import UserError
from engines.duckdb import mart_tables, marts
from engines.duckdb.marts import DuckDBMarts
from engines.marts import STATE
from publishing.versions import CURRENT, published_folder
from tests.publishing.hand_made import MARTS, HandMade, rows, rows_of

HELD = "a reader still holds an old version: the last one is copied instead"


@pytest.fixture
def made(tmp_path: Path) -> HandMade:
    """A warehouse of which three builds are published, so that an earlier version can be brought up to date."""
    made = HandMade(tmp_path)
    for _ in range(3):
        made.build()
        made.publish()
    return made


def versions(made: HandMade) -> set[str]:
    return {path.name for path in published_folder(made.settings).iterdir()} - {CURRENT}


@contextmanager
def whole_tables() -> Iterator[list[str]]:
    """Collects the names of the tables that are written whole."""
    found: list[str] = []
    replace = mart_tables._Table.replace

    def counted(table: mart_tables._Table) -> None:
        found.append(table.mart.name)
        replace(table)

    with patch.object(mart_tables._Table, "replace", counted):
        yield found


def spare(made: HandMade) -> Path:
    """The folder of the version before the last."""
    [name] = versions(made) - {made.current().name}
    return published_folder(made.settings) / name


def inode(path: Path) -> int:
    return path.stat().st_ino


# -- what is in it ----------------------------------------------------------------------------------------------------


def test_only_marts_are_published(made: HandMade) -> None:
    with duckdb.connect(str(made.published()), read_only=True) as connection:
        found = connection.sql("select table_schema, table_name from information_schema.tables").fetchall()
        schemas = connection.sql("select distinct schema_name from duckdb_schemas() where not internal").fetchall()
    assert {*found} == {(mart.schema, mart.name) for mart in MARTS}
    assert {name for (name,) in schemas} - {"main"} == {"analytics", "intermediate"}


def test_no_byte_of_an_unpublished_column_is_published(made: HandMade) -> None:
    made.build(rebuilt=True)
    assert b"secret" in made.settings.warehouse_path.read_bytes()
    assert b"malformed" in made.publish().joinpath(made.published().name).read_bytes()
    assert b"secret" not in made.published().read_bytes()


def test_the_file_is_complete_and_of_an_older_storage_version(made: HandMade) -> None:
    assert {path.name for path in made.current().iterdir()} == {
        made.published().name,
        STATE,
        "queries.json",
        "semantic_manifest.json",
    }
    assert made.published().read_bytes()[12] == 65  # v1.2.0


def test_views_work_whatever_the_file_is_called(made: HandMade, tmp_path: Path) -> None:
    renamed = tmp_path / "renamed.duckdb"
    shutil.copy(made.published(), renamed)
    assert rows_of(renamed) == made.tables()


def test_a_view_that_reads_an_unpublished_column_is_left_out(made: HandMade) -> None:
    with made.connected() as connection:
        connection.execute("create or replace view analytics.totals as select payload from analytics.letters")
    with capture_logs() as logs:
        made.publish()
    assert [(one["view"], "payload" in one["reason"]) for one in logs] == [("analytics.totals", True)]
    with duckdb.connect(str(made.published()), read_only=True) as connection:
        assert connection.sql("select count(*) from analytics.daily").fetchall()[0][0]
        with pytest.raises(duckdb.CatalogException):
            connection.sql("from analytics.totals")


# -- exactness --------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """As if the process were killed there."""


def killed_publish(made: HandMade, rng: random.Random) -> None:
    """Stop somewhere, and leave the files as they are then."""
    place = rng.choice(["_write", "_attach", "_take"])
    real = getattr(DuckDBMarts, place)
    is_before = rng.random() < 0.5

    def killed(*arguments: object) -> None:
        if not is_before:
            real(*arguments)
        raise Killed

    with (
        patch.object(DuckDBMarts, place, killed),
        patch("publishing.publish.shutil.rmtree"),
        pytest.raises(Killed),
    ):
        made.publish()


def restored(made: HandMade, backup: Path, rng: random.Random) -> None:
    """Take a backup of the warehouse, or restore it."""
    if backup.exists() and rng.random() < 0.5:
        shutil.copy(backup, made.settings.warehouse_path)
    else:
        shutil.copy(made.settings.warehouse_path, backup)


def altered(made: HandMade, rng: random.Random) -> None:
    """Add a column, as dbt does."""
    with made.connected() as connection:
        connection.execute(f"alter table analytics.history add column if not exists c{rng.randrange(3)} int")
        connection.execute(
            "create or replace view intermediate.latest as select * from analytics.history where is_current"
        )


def with_another_view(made: HandMade, rng: random.Random) -> None:
    with made.connected() as connection:
        connection.execute(
            f"create or replace view analytics.totals as select brand, sum(events) + {rng.randrange(3)} as events"
            " from analytics.daily group by brand"
        )


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 12))])
def test_what_is_published_equals_the_warehouse(tmp_path: Path, seed: int) -> None:
    """After builds that succeed or fail, rebuilds, killed publications, backups and readers; the clock may go back."""
    rng = random.Random(seed)
    made = HandMade(tmp_path, seed)
    readers = []
    for _ in range(20):
        for _ in range(rng.choice([0, 0, 0, 1, 2, 25 * (rng.random() < 0.2)])):
            with made.engine.pin():
                pass
            made.build(rebuilt=rng.random() < 0.05, successful=rng.random() < 0.8)
        if rng.random() < 0.2:
            rng.choice(
                [altered, with_another_view, killed_publish, lambda *_: restored(made, tmp_path / "backup", rng)]
            )(made, rng)
        if rng.random() < 0.1:
            made.clock -= timedelta(days=rng.randrange(3))
        made.build()
        made.publish()
        assert rows_of(made.published()) == made.tables()
        assert len(versions(made)) <= 2
        if rng.random() < 0.2:
            readers.append((made.engine.open_reader(made.current()), made.tables()["daily"]))
        if readers and rng.random() < 0.3:
            reader, before = readers.pop(rng.randrange(len(readers)))
            found = reader.table("from analytics.daily").to_pylist()
            assert sorted((tuple(row.values()) for row in found), key=repr) == before
            reader.close()


def test_only_what_changed_is_written(made: HandMade) -> None:
    file = inode(made.published())
    made.build()
    made.publish()
    with whole_tables() as whole:
        for _ in range(9):
            made.build()
            made.publish()
    assert {*whole} <= {"dates"}
    assert inode(made.published()) == file, "the version before the last became the new one"
    assert rows_of(made.published()) == made.tables()


@pytest.mark.parametrize("days", [1, 3])
def test_a_clock_that_goes_back_hides_no_change(made: HandMade, days: int) -> None:
    made.clock -= timedelta(days=days)
    with whole_tables() as whole:
        for _ in range(4):
            made.build()
            made.publish()
            assert rows_of(made.published()) == made.tables()
    assert {*whole} <= {"dates"}


def test_a_version_of_too_many_pins_ago_is_not_used(made: HandMade) -> None:
    for _ in range(25):
        made.build()
        with made.engine.pin():
            pass
    made.build()
    with whole_tables() as whole:
        made.publish()
    assert len(whole) == 5
    assert rows_of(made.published()) == made.tables()


def test_a_file_with_other_row_groups_is_written_anew(made: HandMade, monkeypatch: pytest.MonkeyPatch) -> None:
    """DuckDB takes their size when it opens a file, and fails if a group of an earlier size is larger."""
    monkeypatch.setattr(marts, "ROW_GROUP_ROWS", 122_880)
    for _ in range(2):  # both folders
        made.build()
        made.publish()
    monkeypatch.undo()
    made.build()
    with whole_tables() as written:
        made.publish()
    assert {*written} == {mart.name for mart in MARTS if not mart.is_view}
    assert rows_of(made.published()) == made.tables()


def test_a_full_refresh_writes_whole_tables(made: HandMade) -> None:
    made.build(rebuilt=True)
    with whole_tables() as whole:
        made.publish()
    assert {"facts", "daily", "letters", "history"} <= {*whole}
    assert rows_of(made.published()) == made.tables()


def test_another_warehouse_is_published_whole(made: HandMade, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = HandMade(tmp_path / "other", seed=1)
    for _ in range(3):
        other.build()
    shutil.copy(other.settings.warehouse_path, made.settings.warehouse_path)
    with whole_tables() as whole:
        made.publish()
    assert len(whole) == 5
    assert rows_of(made.published()) == made.tables()


def test_rows_that_nothing_recorded_are_noticed(made: HandMade) -> None:
    with made.connected() as connection:
        connection.execute("delete from analytics.facts where rowid = (select min(rowid) from analytics.facts)")
    with capture_logs() as logs:
        made.publish()
    assert [one["table"] for one in logs] == ["facts"]
    assert rows_of(made.published()) == made.tables()


# -- while others go on -----------------------------------------------------------------------------------------------


def test_what_is_committed_after_the_pin_is_not_published(made: HandMade) -> None:
    """As in a process that builds the next batch in one thread and publishes the last in another."""
    with made.connected() as connection:
        made.build_on(connection)
        with connection.cursor() as pinned_cursor:
            pinned = DuckDBMarts(pinned_cursor, made.settings.warehouse_path.name)
            expected = rows(connection)
            made.build_on(connection, rebuilt=True)
            connection.execute("drop table analytics.dates; create table analytics.dates as select 'other' as n")
            connection.execute("drop view analytics.totals; create view analytics.totals as select 1 as n")
            assert rows(connection) != expected
            folder = published_folder(made.settings)
            version = folder / "29990101T000000.000000Z"
            thread = threading.Thread(target=pinned.write, args=(version, MARTS, made.current(), spare(made)))
            thread.start()
            made.build_on(connection)
            thread.join()
        assert rows_of(version / made.published().name) == expected
        assert connection.sql("select database_name from duckdb_databases() where not internal").fetchall() == [
            ("warehouse",)
        ]


HOLD = """
import duckdb, sys
connection = duckdb.connect(sys.argv[1], read_only=True)
read = lambda: print(connection.sql("select count(*), sum(events) from analytics.daily").fetchall(), flush=True)
read(); sys.stdin.readline(); read()
"""


def test_a_reader_of_another_process_keeps_its_version_and_is_named(made: HandMade) -> None:
    held = made.published()
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, held], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdin and reader.stdout
        answer = reader.stdout.readline()
        told = []
        for _ in range(4):
            made.build()
            with capture_logs() as logs:
                made.publish()
            told += [(one["event"], one["pid"], one["version"]) for one in logs]
            assert rows_of(made.published()) == made.tables()
        assert told == [(HELD, reader.pid, held.parent.name)], "once: its folder is removed"
        assert not held.exists()
        assert len(versions(made)) == 2
        reader.stdin.write("\n")
        reader.stdin.flush()
        assert reader.stdout.readline() == answer


def test_a_reader_of_this_process_keeps_its_version(made: HandMade, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marts, "RELEASE_SECONDS", 0.01)
    held = made.current()
    reader, other = made.engine.open_reader(held), made.engine.open_reader(held)
    other.close()
    answer = reader.table("from analytics.daily")
    told = []
    for _ in range(4):
        made.build()
        with capture_logs() as logs:
            made.publish()
        told += [(one["event"], one["pid"]) for one in logs]
        assert rows_of(made.published()) == made.tables()
    assert told == [(HELD, os.getpid())]
    assert reader.table("from analytics.daily") == answer
    reader.close()


def test_a_reader_of_this_process_that_is_about_to_close_is_waited_for(made: HandMade) -> None:
    """Endpoints that go on to the last version a moment later shall not cost a copy of it."""
    file = inode(made.published())
    made.build()
    made.publish()
    reader = made.engine.open_reader(spare(made))
    made.build()
    closing = threading.Timer(0.3, reader.close)
    closing.start()
    with capture_logs() as logs:
        made.publish()
    closing.join()
    assert logs == []
    assert inode(made.published()) == file
    assert rows_of(made.published()) == made.tables()


def test_a_version_whose_reader_has_closed_it_is_used_again(made: HandMade) -> None:
    file = inode(made.published())
    made.engine.open_reader(made.current()).close()
    for _ in range(2):
        made.build()
        made.publish()
    assert inode(made.published()) == file


# -- failures ---------------------------------------------------------------------------------------------------------


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file can grow beyond this size, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_one_line_and_leaves_the_last_version_and_the_warehouse(made: HandMade) -> None:
    before, published = made.current(), rows_of(made.published())
    with made.engine.warehouse().session(), made.connected() as connection:
        made.build_on(connection)
        connection.execute(
            "create or replace table analytics.dates as select (hash(range) // 2)::bigint as n from range(200000)"
        )
        error = "^built, but not published in .*: File too large; the last published build stays"
        with full_disk(made.published().stat().st_size), pytest.raises(UserError, match=error) as told:
            made.publish()
        assert "\n" not in str(told.value)
        assert (made.current(), versions(made)) == (before, {before.name})
        assert rows_of(made.published()) == published
        made.build_on(connection)
        made.publish()
        assert rows_of(made.published()) == rows(connection)


Break = Callable[[Path], None]


@pytest.mark.parametrize(
    "break_it",
    [
        pytest.param(lambda version: (version / STATE).write_text("{"), id="its state cannot be read"),
        pytest.param(lambda version: (version / STATE).unlink(), id="another release published it"),
        pytest.param(lambda version: (version / "warehouse.duckdb").unlink(), id="its file is gone"),
    ],
)
def test_a_version_that_cannot_be_used_is_published_anew(made: HandMade, break_it: Break) -> None:
    for name in versions(made):
        break_it(published_folder(made.settings) / name)
    made.build()
    with whole_tables() as whole:
        made.publish()
    assert len(whole) == 5
    assert rows_of(made.published()) == made.tables()
