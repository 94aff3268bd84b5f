"""While `live` has the warehouse open, it writes the backups that other processes ask for."""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from common.errors import UserError
from common.live_status import LiveStatus, forget_live_status
from common.settings import Settings
from engines.duckdb.engine import DuckDBEngine
from engines.duckdb.sink import DuckDBSink
from tests.engines.test_duckdb import batch, offsets
from tests.live.checks import check_landed_once, check_marts, events
from tests.upkeep.databases import assert_same
from tests.upkeep.test_backup import full_disk, ignore, settings_of
from tools.warehouses.commands import Warehouse
from tools.warehouses.live import LiveProcess
from upkeep import backup
from upkeep.backup import REQUEST, answer_requests, back_up
from upkeep.restore import restore


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "made").mkdir()
    settings = settings_of(tmp_path / "made")
    DuckDBSink(settings.warehouse_path).commit([batch([0])])
    return settings


@pytest.fixture
def published(settings: Settings) -> Iterator[Path]:
    """The folder in which builds publish; its status is that of a live process: this one."""
    folder = DuckDBEngine(settings).published_folder
    LiveStatus(pid=os.getpid(), dashboard="", updated_at=datetime.now(UTC)).write(folder)
    yield folder
    forget_live_status(folder)


@contextmanager
def answering(settings: Settings) -> Iterator[DuckDBEngine]:
    """Answer requests in a thread, as `live` does."""
    engine = DuckDBEngine(settings)
    stop = threading.Event()
    with engine.kept_open():
        thread = threading.Thread(target=answer_requests, args=(engine, stop))
        thread.start()
        try:
            yield engine
        finally:
            stop.set()
            thread.join()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "POLL_SECONDS", 0.01)


def test_live_writes_the_backup(settings: Settings, published: Path, tmp_path: Path) -> None:
    counts: list[int] = []
    with answering(settings) as engine:
        back_up(settings, tmp_path / "backup", counts.append)
        engine.warehouse().commit([batch([0, 1])])
    assert 0 < sum(counts) <= 12
    assert not (published / REQUEST).exists()
    (tmp_path / "other").mkdir()
    other = settings_of(tmp_path / "other")
    restore(other, tmp_path / "backup", ignore)
    assert offsets(other.warehouse_path) == [0]
    assert offsets(settings.warehouse_path) == [0, 1]


def left(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in tmp_path.iterdir())


def test_a_backup_that_live_cannot_write_is_an_error_with_its_reason(
    settings: Settings, published: Path, tmp_path: Path
) -> None:
    with (
        answering(settings) as engine,
        full_disk(500),
        pytest.raises(UserError, match=r"`live` could not write the backup: cannot write .*File too large"),
    ):
        back_up(settings, tmp_path / "backup", ignore)
    assert left(tmp_path) == ["made"]
    assert not (published / REQUEST).exists()
    with answering(settings) as engine:
        assert engine.warehouse().commit([batch([0, 1])]) == {"users": 1}
        back_up(settings, tmp_path / "backup", ignore)


def test_nobody_answers(settings: Settings, published: Path, tmp_path: Path) -> None:
    impatient = settings.model_copy(update={"lock_timeout_seconds": 0.1})
    with pytest.raises(UserError, match=rf"`live` \(PID {os.getpid()}\) does not begin the backup: see its log"):
        back_up(impatient, tmp_path / "backup", ignore)
    assert left(tmp_path) == ["made"]
    assert not (published / REQUEST).exists()


def test_live_ends(settings: Settings, published: Path, tmp_path: Path) -> None:
    threading.Timer(0.1, forget_live_status, [published]).start()
    with pytest.raises(UserError, match="`live` ended before the backup was complete: run this again"):
        back_up(settings, tmp_path / "backup", ignore)
    assert left(tmp_path) == ["made"]


def test_one_backup_at_a_time(settings: Settings, published: Path, tmp_path: Path) -> None:
    (published / REQUEST).write_text(str(tmp_path / "another"))
    with pytest.raises(UserError, match="`live` writes another backup: let it finish, then run this again"):
        back_up(settings, tmp_path / "backup", ignore)
    assert left(tmp_path) == ["made"]
    assert (published / REQUEST).exists()


@pytest.mark.parametrize("prepare", [Path.mkdir, lambda folder: None], ids=["killed", "gone"])
def test_a_request_for_which_nobody_waits_is_given_up(
    settings: Settings, published: Path, tmp_path: Path, prepare: Callable[[Path], None]
) -> None:
    """Its process was killed, with or without a folder. The next backup is written."""
    prepare(tmp_path / "abandoned")
    (published / REQUEST).write_text(str(tmp_path / "abandoned"))
    with answering(settings):
        while (published / REQUEST).exists():
            pass
        back_up(settings, tmp_path / "backup", ignore)
    shutil.rmtree(tmp_path / "abandoned", ignore_errors=True)
    assert left(tmp_path) == ["backup", "made"]


@pytest.mark.slow
def test_a_backup_of_the_live_process_is_restored_and_goes_on(shop: Warehouse, tmp_path: Path) -> None:
    warehouse = shop.copy_to(tmp_path / "live")
    live = LiveProcess(warehouse, "--rate", "50")
    folders = [tmp_path / "first", tmp_path / "second"]
    try:
        live.start()
        live.wait_for_versions(2)
        for folder in folders:
            before = events(live)
            warehouse.run("upkeep", "backup", str(folder))
            live.wait_for(lambda: events(live) > before, "answers go on")  # noqa: B023  called within this iteration
        for command in (("restore", str(folders[0])), ("compact",)):
            done = warehouse.run("upkeep", *command, expect=2)
            assert done.stderr.startswith(f"error: `live` (PID {live.running.pid}) has the warehouse"), done.stderr
        live.end()
    finally:
        live.kill()
    assert "Traceback" not in live.log.read_text()
    assert live.log_events.count("backed up") == 2
    warehouse.land()
    for folder in folders:
        restored = Warehouse(tmp_path / f"restored-{folder.name}")
        shutil.copytree(warehouse.folder / "spool", restored.folder / "spool")
        restored.run("upkeep", "restore", str(folder))
        restored.land()
        check_landed_once(restored)
        check_marts(restored, tmp_path / f"anew-{folder.name}")
        compared = Warehouse(tmp_path / f"compared-{folder.name}")
        compared.folder.mkdir()
        restored.run("upkeep", "backup", str(tmp_path / f"again-{folder.name}"))
        compared.run("upkeep", "restore", str(tmp_path / f"again-{folder.name}"))
        assert_same(restored.path, compared.path)
