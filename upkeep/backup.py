"""Backs up a warehouse to a folder. While `live` has the warehouse open, `live` writes the files."""

import fcntl
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import structlog

from common.errors import UnavailableError, UserError, WarehouseReopenError
from common.live_status import read_live_status
from common.settings import Settings
from engines.backup import MANIFEST, Manifest, read_manifest
from engines.engine import Engine
from engines.factory import engine_for

REQUEST = "backup_request"
"""File in the folder in which builds publish: asks `live` for a backup. It holds the path of the folder to write to;
`live` removes it when it has written the backup, or has failed."""
FAILURE = "failure.txt"
"""File in the folder of a backup that `live` could not write: why."""
POLL_SECONDS = 0.5

log = structlog.get_logger()


def back_up(settings: Settings, folder: Path, on_tables: Callable[[int], None]) -> Manifest:
    """Write a backup to a folder that does not exist yet or is empty. The folder appears in one step, complete.

    Args:
        on_tables: called with the number of tables that were written since its last call.

    Raises:
        UserError: when it cannot be written. Then nothing is left of it.
    """
    engine = engine_for(settings)
    with _new_folder(folder.absolute()) as new:
        if engine.is_copied and read_live_status(engine.published_folder):
            _ask_live(engine.published_folder, new, settings.lock_timeout_seconds, on_tables)
        else:
            engine.write_backup(new, lambda _: on_tables(1))
        return read_manifest(new)


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """A folder with another name, which becomes `folder` when the context ends without an error.

    It is locked, so that of two backups to one folder the second fails, and `live` knows whether somebody waits.
    """
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"{folder} exists and is not an empty folder: give another one")
        new = folder.with_name(f"{folder.name}.partial")
        new.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(new, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}") from error
    try:
        if not _lock(descriptor):
            raise UserError(f"another backup to {folder} is running: let it finish, or give another folder")
        try:
            _clear(new)  # of a killed backup
            yield new
            os.sync()  # before the folder gets its name, its files are on the disk
            new.rename(folder)
        except BaseException as error:
            shutil.rmtree(new, ignore_errors=True)
            if isinstance(error, OSError):
                raise UserError(f"cannot write {folder}: {error.strerror}") from error
            raise
    finally:
        os.close(descriptor)


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _lock(descriptor: int) -> bool:
    """Lock a folder until it is closed; returns whether nobody else has it locked."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _ask_live(published: Path, folder: Path, timeout_seconds: float, on_tables: Callable[[int], None]) -> None:
    """Let `live` write the backup, and wait for it.

    Args:
        published: folder in which builds publish.
        timeout_seconds: maximum wait until `live` begins.
    """
    request = published / REQUEST
    try:
        with request.open("x") as file:
            file.write(str(folder))
    except FileExistsError as error:
        raise UserError("`live` writes another backup: let it finish, then run this again") from error
    written = 0
    deadline = time.monotonic() + timeout_seconds
    try:
        while request.exists():
            live = read_live_status(published)
            if live is None:
                raise UserError("`live` ended before the backup was complete: run this again")
            files = list(folder.iterdir())
            if not files and time.monotonic() > deadline:
                raise UnavailableError(f"`live` (PID {live.pid}) does not begin the backup: see its log")
            tables = sum(path.suffix == ".parquet" for path in files)
            on_tables(max(0, tables - written))
            written = max(tables, written)
            time.sleep(POLL_SECONDS)
    finally:
        request.unlink(missing_ok=True)
    if not (folder / MANIFEST).exists():
        reason = "see its log"
        with suppress(OSError):
            reason = (folder / FAILURE).read_text(encoding="utf-8")
        raise UserError(f"`live` could not write the backup: {reason}")


class _NobodyWaitsError(Exception):
    """The process that asked for a backup has ended, or this one ends."""


def answer_requests(engine: Engine, stop: threading.Event) -> None:
    """Write the backups that other processes ask for, until `stop` is set. For a process that keeps the warehouse open.

    Raises:
        WarehouseReopenError: when the warehouse has to be opened again.
    """
    request = engine.published_folder / REQUEST
    while not stop.wait(POLL_SECONDS):
        with suppress(OSError):
            if folder := request.read_text(encoding="utf-8"):
                _answer(engine, request, Path(folder), stop)


def _answer(engine: Engine, request: Path, folder: Path, stop: threading.Event) -> None:
    def check_waiting(_: str = "") -> None:
        if stop.is_set() or not request.exists() or not _is_locked(folder):
            raise _NobodyWaitsError

    failure = "`live` ended"
    try:
        check_waiting()
        started = time.monotonic()
        engine.write_backup(folder, check_waiting)
        log.info("backed up", folder=str(folder), seconds=round(time.monotonic() - started, 3))
        failure = ""
    except _NobodyWaitsError:
        log.warning("a backup was given up: nobody waits for it", folder=str(folder))
    except WarehouseReopenError as error:
        failure = str(error)
        raise
    except (UserError, OSError) as error:
        failure = str(error)
        log.warning("a backup failed", reason=failure)
    finally:
        if failure:
            with suppress(OSError):
                (folder / FAILURE).write_text(failure, encoding="utf-8")
        request.unlink(missing_ok=True)


def _is_locked(folder: Path) -> bool:
    """Whether the process that asked for a backup to this folder still waits for it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return False
    try:
        return not _lock(descriptor)
    finally:
        os.close(descriptor)
