"""Builds marts run by run from random messages and compares them with a full refresh, row for row."""

import re
import shutil
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import duckdb
import pyarrow as pa
from dbt.adapters.duckdb.connections import DuckDBConnectionManager
from dbt.artifacts.resources.types import NodeType

from common.errors import UserError
from common.streams import STREAMS, Stream
from dbt_project.exactness.history import Failure, History, Row
from dbt_project.exactness.lineage import is_named, models_behind, upstream_of
from dbt_project.exactness.literals import NO_LITERALS, Literals, code_of
from dbt_project.exactness.message import Message, batch_tables
from dbt_project.exactness.worlds import COMMITS
from dbt_project.warm import BuildError, WarmProject
from engines.batch import Batch
from engines.duckdb.sink import DuckDBSink

FIRST_LANDING = datetime(2027, 3, 1, 10)  # noqa: DTZ001  landing times are UTC without a zone
CHANGING = re.compile(
    r"\b(current_date|current_time|current_timestamp|localtime|localtimestamp)\b"
    r"|\b(now|today|get_current_time|get_current_timestamp|transaction_timestamp|random|rand|uuid|gen_random_uuid)\s*\("
    r"|\bage\s*\([^,()]*\)",  # age(x) counts from midnight of today
    re.IGNORECASE,
)
"""Functions whose result changes without a new message."""


class Checker:
    """Builds marts from random messages, each history of runs in a temporary warehouse."""

    def __init__(self, project: WarmProject, marts: Sequence[str], work: Path) -> None:
        """Find the models and streams that the marts depend on.

        Raises:
            UserError: when there is no such mart.
        """
        self._project = project
        self._work = work
        self._built: dict[tuple[bool, History], Path] = {}
        self._empty: Path | None = None
        self._compiled: list[tuple[str, str]] = []
        self.literals = NO_LITERALS
        """Literals of the SQL, known after `build_empty`."""
        self.with_rows: set[str] = set()
        """Models that had a row in some world."""
        self.on_build: Callable[[], None] = lambda: None
        models = {node.name: node for node in project.nodes if node.resource_type == NodeType.Model}
        for mart in marts:
            if mart not in models:
                meant = get_close_matches(mart, models, n=1)
                raise UserError(f"there is no model {mart}" + (f": did you mean {meant[0]}?" if meant else ""))
        self.marts = marts
        manifest = project.manifest
        upstream = upstream_of(project, [models[mart].unique_id for mart in marts])
        sources = [manifest.sources[id_].name for id_ in upstream if id_ in manifest.sources]
        self.streams: list[Stream] = [STREAMS[name] for name in sources if name in STREAMS]
        self._code = [node for mart in marts for node in models_behind(project, models[mart].unique_id)]
        self.named_streams: list[Stream] = []
        """Streams that the code of the marts names, known after `build_empty`; most messages are of these."""
        self.models = [id_.rpartition(".")[2] for id_ in upstream if id_.startswith("model.")]
        nodes = [models[name] for name in self.models if name in models]
        self._marts = [node for node in nodes if node.name in marts]
        self._tables = [node for node in nodes if node.name in marts or node.config.materialized == "incremental"]

    def build_empty(self) -> None:
        """Build twice before anything has landed: half of the histories start from this warehouse.

        Raises:
            UserError: if dbt cannot build the marts.
        """
        self._empty = self._new_path()
        DuckDBSink(self._empty).create_tables()
        try:
            self._compiled = [*self._build(self._empty), *self._build(self._empty)]  # the second is incremental
        except BuildError as error:
            raise UserError(f"dbt cannot build {', '.join(self.marts)}: {' '.join(str(error).split())}") from error

        own = [sql for name, sql in self._compiled if name in self.marts]
        others = [sql for name, sql in self._compiled if name not in self.marts and not name.startswith("stg_")]
        self.literals = Literals.of("\n".join(own), "\n".join(others))
        # compiled, since macros such as measures name types of events too
        names = {node.name for node in self._code}
        code = [sql for name, sql in self._compiled if name in names]
        code += [f"'{id_.rpartition('.')[2]}'" for node in self._code for id_ in node.depends_on_nodes]
        self.named_streams = [stream for stream in self.streams if is_named(stream, "\n".join(code))]

    def depends_on_time_or_chance(self) -> tuple[str, str] | None:
        """A model and the function that changes its rows without a new message, such as current_date.

        Known after `build_empty`. Two builds within a second would not show the difference.
        """
        for name, sql in self._compiled:
            if found := CHANGING.search(code_of(sql)):
                return name, found[0].partition("(")[0].strip().lower()
        return None

    def first_failure(self, history: History, from_empty: bool) -> Failure | None:
        """Build run by run; after each run that builds everything, compare the mart with a full refresh.

        Args:
            from_empty: start from models that were built before anything landed.
        """
        for number, run in enumerate(history, start=1):
            so_far = history[:number]
            if run.only or (number == 1 and not from_empty):  # this build is itself a full refresh
                continue
            if failure := self._failure(so_far, from_empty, self._marts, self._refreshed):
                return failure
        return None

    def first_model_that_fails(self, failure: Failure, from_empty: bool) -> Failure:
        """The failure of the first model upstream that differs, or else this one."""
        if failure.error:
            return failure
        return self._failure(failure.history, from_empty, self._tables, self._refreshed) or failure

    def still_fails(self, history: History, from_empty: bool) -> Failure | None:
        """Compare with a full refresh of the marts alone, which is faster than one of all models."""
        return self._failure(history, from_empty, self._marts, self._refreshed_alone)

    def _failure(
        self, history: History, from_empty: bool, nodes: Sequence[Any], refresh: Callable[[Path], Path]
    ) -> Failure | None:
        try:
            built = self._incremental(history, from_empty)
            refreshed = refresh(built)
        except BuildError as error:
            return Failure(history, self.marts[-1], error=str(error))
        for node in nodes:
            here, there = (_rows(path, node.relation_name) for path in (built, refreshed))
            if here or there:
                self.with_rows.add(node.name)
            if differing := _differing(here, there):
                return Failure(history, node.name, *differing)
        return None

    def _incremental(self, history: History, from_empty: bool) -> Path:
        """The warehouse after these runs. Earlier ones are cached, so that only the last run is built."""
        if (from_empty, history) in self._built:
            return self._built[from_empty, history]
        path = self._new_path()
        if len(history) > 1:
            shutil.copyfile(self._incremental(history[:-1], from_empty), path)
        elif from_empty:
            if self._empty is None:
                self.build_empty()
            shutil.copyfile(str(self._empty), path)
        else:
            DuckDBSink(path).create_tables()
        _land(path, history[-1].messages, len(history) - 1)
        self._build(path, history[-1].only)
        self._built[from_empty, history] = path
        return path

    def _refreshed(self, built: Path) -> Path:
        """A full refresh: a new warehouse of the same landed messages."""
        path = self._new_path()
        with duckdb.connect(str(path)) as connection:
            connection.execute(f"attach '{built}' as built (read_only)")
            connection.execute("create schema raw")
            tables = connection.execute(
                "select table_name from duckdb_tables() where database_name = 'built' and schema_name = 'raw'"
            ).fetchall()
            for (table,) in tables:
                connection.execute(f'create table raw."{table}" as from built.raw."{table}"')
        self._build(path)
        return path

    def _refreshed_alone(self, built: Path) -> Path:
        """A copy in which only the marts are built again."""
        path = self._new_path()
        shutil.copyfile(built, path)
        self._dbt(path, "run", "--select", *self.marts, "--full-refresh")
        return path

    def _build(self, path: Path, only: Sequence[str] = ()) -> list[tuple[str, str]]:
        """Build the marts and their parents, or only some models; returns name and compiled SQL of each model."""
        select = only or [f"+{mart}" for mart in self.marts]
        done = self._dbt(path, "build", "--select", *select, "--exclude-resource-type", "test", "unit_test")
        models = [one.node for one in done.results if one.node.resource_type == NodeType.Model]
        return [(model.name, model.compiled_code or "") for model in models]

    def _dbt(self, path: Path, *arguments: str) -> Any:
        try:
            done = self._project.run(path, *arguments)
        finally:
            DuckDBConnectionManager.close_all_connections()
        self.on_build()
        return done

    def _new_path(self) -> Path:
        """A path in a new folder: all warehouses share a file name, which dbt uses as the name of the database."""
        return Path(mkdtemp(dir=self._work)) / "warehouse.duckdb"


def _land(path: Path, messages: Iterable[Message], run: int) -> None:
    """Land messages commit by commit. The clocks of streams are days apart, since landed_at orders only messages of one
    stream."""
    for commit in range(COMMITS):
        clocks: dict[int, dict[str, pa.Table]] = {}
        for stream, table in batch_tables(message for message in messages if message.commit == commit).items():
            clocks.setdefault(zlib.crc32(stream.encode()) % 3, {})[stream] = table
        for clock, tables in clocks.items():
            now = FIRST_LANDING + timedelta(hours=7 * run + 3 * commit, days=(0, -3, 2)[clock])
            DuckDBSink(path, clock=partial(_always, now)).commit([Batch(tables)])


def _always(time: datetime) -> datetime:
    return time


def _rows(path: Path, relation: str) -> list[Row]:
    with duckdb.connect(str(path), read_only=True) as connection:
        found = connection.sql(f"select * from {relation}")  # noqa: S608  dbt's own name
        return [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]


def _differing(here: Sequence[Row], there: Sequence[Row]) -> tuple[list[Row], list[Row]] | None:
    """Rows of only one side, counting duplicates. Compared as text, since rows may hold lists."""
    texts = {repr(row): row for row in (*here, *there)}
    counts_here, counts_there = (Counter(map(repr, rows)) for rows in (here, there))
    only_here, only_there = (
        [texts[text] for text in (one - other).elements()]
        for one, other in ((counts_here, counts_there), (counts_there, counts_here))
    )
    return (only_here, only_there) if only_here or only_there else None
