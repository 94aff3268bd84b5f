"""Writes the marts of a warehouse to a file of their own, or brings the file of an earlier version up to date.

docs/architecture.md#publishing says why the result is the same.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import duckdb

from common.logs import log
from engines.duckdb.changes import State, add_pin, changes_between, is_known, load_state, read_state
from engines.duckdb.file import STORAGE_VERSION, literal
from engines.duckdb.mart_tables import current_database, read_views, write_tables, write_views
from engines.duckdb.open_files import move_unless_open
from engines.marts import STATE, Mart

RELEASE_SECONDS = 2.0
"""Maximum seconds to wait for readers of this process, which go on to the last version as soon as they can: to copy a
large file takes longer."""
ROW_GROUP_ROWS = 61_440
"""Rows that DuckDB keeps together in the file, half of its default. Now and then a checkpoint writes several groups of
a table again: with the default, that held up a version of ten million events for three seconds."""


class DuckDBMarts:
    """The marts of a warehouse as they were when this was made: see `PinnedMarts`.

    Args:
        cursor: of the warehouse, for this alone. It is in a transaction until `write` ends.
        file_name: of the file in each version's folder.
    """

    def __init__(self, cursor: duckdb.DuckDBPyConnection, file_name: str) -> None:
        self._cursor = cursor
        self._file_name = file_name
        pin = add_pin(cursor)
        cursor.execute("begin")
        self._state = read_state(cursor, pin)  # the first read fixes what the transaction sees

    def write(self, folder: Path, marts: Sequence[Mart], last: Path | None, spare: Path | None) -> None:
        alias = f"published_{uuid4().hex}"
        try:
            # an error of this one does not end the transaction
            with self._cursor.cursor() as other:
                before = self._attach(other, alias, folder, last, spare)
                try:
                    self._write(other, alias, marts, before)
                finally:
                    with suppress(duckdb.Error):  # it has ended, unless a statement failed
                        self._cursor.execute("rollback")
                    other.execute(f"detach {alias}")
            (folder / STATE).write_text(self._state.model_dump_json())
        except (duckdb.Error, subprocess.CalledProcessError) as error:
            raise OSError(str(getattr(error, "stderr", None) or error)) from error

    def _write(self, other: duckdb.DuckDBPyConnection, alias: str, marts: Sequence[Mart], before: State | None) -> None:
        changes = changes_between(self._cursor, before, self._state) if before else None
        is_other_schema = write_tables(self._cursor, alias, marts, changes)
        names = {(mart.schema, mart.name) for mart in marts}
        found = read_views(self._cursor, current_database(self._cursor))
        views = {name: statement for name, statement in found.items() if name in names}
        self._cursor.execute("commit")
        self._state = self._state.model_copy(
            update={"views": {".".join(name): views[name] for name in views}, "row_group_rows": ROW_GROUP_ROWS}
        )
        # not compared with what the file has: DuckDB adds parentheses each time it writes out a statement
        if is_other_schema or before is None or before.views != self._state.views:
            with other.cursor() as using:
                write_views(using, alias, views)
        other.execute(f"checkpoint {alias}")

    def _attach(
        self, other: duckdb.DuckDBPyConnection, alias: str, folder: Path, last: Path | None, spare: Path | None
    ) -> State | None:
        """Attach the file to write; returns the state of what is in it, None if it is empty."""
        file = folder / self._file_name
        if spare and (state := self._known(spare)) and self._take(other, alias, spare, folder):
            return state
        folder.mkdir()
        state = self._known(last) if last else None
        if last and state:
            # In another process: closing the file in this one would release DuckDB's locks on it. `cp` shares blocks
            # where the file system can.
            command: list[str | Path] = ["cp", last / self._file_name, file]
            subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603  no shell, and only paths of ours
        _attach(other, alias, file)
        return state

    def _known(self, version: Path) -> State | None:
        """The state of a version, if its file can be updated: all changes since it are recorded."""
        state = load_state(version / STATE)
        if state is None or state.row_group_rows != ROW_GROUP_ROWS or not (version / self._file_name).exists():
            return None
        return state if is_known(self._cursor, state) else None

    def _take(self, other: duckdb.DuckDBPyConnection, alias: str, spare: Path, folder: Path) -> bool:
        """Rename the folder of an earlier version, so that nobody opens it by the old name, and attach its file;
        returns whether nobody holds it."""
        if not move_unless_open(spare / self._file_name, folder, RELEASE_SECONDS):
            _warn_held(spare, os.getpid())
            return False
        (folder / STATE).unlink()  # if this process is killed, the file may be half written
        try:
            _attach(other, alias, folder / self._file_name)
        except duckdb.IOException as error:
            if "Could not set lock" not in str(error):
                raise
            holder = re.search(r"PID (\d+)", str(error))
            _warn_held(spare, int(holder[1]) if holder else None)
            shutil.rmtree(folder)
            return False
        return True


def _attach(cursor: duckdb.DuckDBPyConnection, alias: str, file: Path) -> None:
    options = f"storage_version '{STORAGE_VERSION}', row_group_size {ROW_GROUP_ROWS}"
    cursor.execute(f"attach {literal(file)} as {alias} ({options})")


def _warn_held(version: Path, process: int | None) -> None:
    log.warning(
        "a reader still holds an old version: the last one is copied instead", version=version.name, pid=process
    )
