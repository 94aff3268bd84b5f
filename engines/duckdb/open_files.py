"""The published files that readers of this process have open.

DuckDB locks a file against other processes only: in this one, a file could be written while a reader has it open.
"""

import threading
from collections import Counter
from pathlib import Path

import duckdb

FileId = tuple[int, int]

_lock = threading.Lock()
_closed = threading.Condition(_lock)
_readers: Counter[FileId] = Counter()
"""Open readers by file: a file keeps its id when its folder is renamed."""


def open_for_reading(
    path: Path, options: dict[str, str | bool | int | float | list[str]]
) -> tuple[duckdb.DuckDBPyConnection, FileId]:
    """Open a published file; call `reader_closed` when the connection is closed.

    Raises:
        duckdb.IOException: when there is no such file, or another process is writing it.
    """
    with _lock:
        connection = duckdb.connect(str(path), read_only=True, config=options)
        file = _id(path)
        _readers[file] += 1
    return connection, file


def reader_closed(file: FileId) -> None:
    with _lock:
        _readers[file] -= 1
        if not _readers[file]:
            del _readers[file]
            _closed.notify_all()


def move_unless_open(path: Path, folder: Path, timeout: float) -> bool:
    """Rename the folder of a file unless a reader of this process has the file open; returns whether it did.

    Args:
        timeout: maximum seconds to wait for such readers.
    """
    with _lock:
        if not _closed.wait_for(lambda: _id(path) not in _readers, timeout):
            return False
        path.parent.rename(folder)
        return True


def _id(path: Path) -> FileId:
    # stat opens no descriptor: closing one would drop DuckDB's lock
    stat = path.stat()
    return stat.st_dev, stat.st_ino
