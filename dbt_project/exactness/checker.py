"""Whether marts are exact: random messages are built run by run and compared with a full refresh, row for row."""

import random
import re
import shutil
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
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
from common.streams import STREAMS, EventType, Stream
from dbt_project.exactness.worlds import COMMITS, Literals, Message, code_of, draw_world, world_of
from dbt_project.warm import BuildError, WarmProject
from ingest.message import BATCH_SCHEMA, Batch
from ingest.sinks.duckdb import DuckDBSink

RUNS = 4
FIRST_LANDING = datetime(2027, 3, 1, 10)  # noqa: DTZ001  landing times are UTC without a zone
ROWS_SHOWN = 5
MESSAGES_SHOWN = 12
"""Of a run."""
LEAST_ATTEMPTS = 40
"""Smaller cases that are tried whatever time they take: enough to leave out all worlds but those that differ."""
CHANGING = re.compile(
    r"\b(current_date|current_time|current_timestamp|localtime|localtimestamp)\b"
    r"|\b(now|today|get_current_time|get_current_timestamp|transaction_timestamp|random|rand|uuid|gen_random_uuid)\s*\("
    r"|\bage\s*\([^,()]*\)",  # since midnight of today
    re.IGNORECASE,
)
"""What gives another value at another time."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """What lands, and what is built then."""

    messages: tuple[Message, ...]
    only: tuple[str, ...] = ()
    """Models that this run builds; without any, all that the mart needs. So some models are ahead of others."""


History = tuple[Run, ...]


@dataclass(frozen=True)
class Failure:
    """Rows that a full refresh does not have, and the reverse; or a build that failed."""

    history: History
    model: str
    only_incremental: Sequence[Row] = ()
    only_refreshed: Sequence[Row] = ()
    error: str | None = None


class Checker:
    """Builds histories of marts, each in a warehouse of its own."""

    def __init__(self, project: WarmProject, marts: Sequence[str], work: Path) -> None:
        """Find what the marts are made from.

        Raises:
            UserError: when there is no such mart.
        """
        self._project = project
        self._work = work
        self._built: dict[tuple[bool, History], Path] = {}
        self._empty: Path | None = None
        self._compiled: list[tuple[str, str]] = []
        self.literals = Literals()
        """What the SQL names, once the empty warehouse is built."""
        self.with_rows: set[str] = set()
        """The marts that had a row in a world."""
        self.on_build: Callable[[], None] = lambda: None
        models = {node.name: node for node in project.nodes if node.resource_type == NodeType.Model}
        for mart in marts:
            if mart not in models:
                meant = get_close_matches(mart, models, n=1)
                raise UserError(f"there is no model {mart}" + (f": did you mean {meant[0]}?" if meant else ""))
        self.marts = marts
        manifest = project.manifest
        upstream = _parents_first(project, [models[mart].unique_id for mart in marts])
        sources = [manifest.sources[id_].name for id_ in upstream if id_ in manifest.sources]
        self.streams: list[Stream] = [STREAMS[name] for name in sources if name in STREAMS]
        code = "".join(text for mart in marts for text in _code(project, models[mart].unique_id))
        self.named_streams = [stream for stream in self.streams if _is_named(stream, code)]
        """Those that the text of the marts names; of these come most messages."""
        self.models = [id_.rpartition(".")[2] for id_ in upstream if id_.startswith("model.")]
        nodes = [models[name] for name in self.models if name in models]
        self._marts = [node for node in nodes if node.name in marts]
        self._tables = [node for node in nodes if node.name in marts or node.config.materialized == "incremental"]

    def build_empty(self) -> None:
        """Build a warehouse in which nothing has landed, twice: another start of a history than no warehouse at all.

        Raises:
            UserError: when dbt cannot.
        """
        self._empty = self._new_folder()
        DuckDBSink(self._empty).create_tables()
        try:
            self._compiled = [*self._build(self._empty), *self._build(self._empty)]  # the latter incrementally
        except BuildError as error:
            raise UserError(f"dbt cannot build {', '.join(self.marts)}: {' '.join(str(error).split())}") from error

        own = [sql for name, sql in self._compiled if name in self.marts]
        others = [sql for name, sql in self._compiled if name not in self.marts and not name.startswith("stg_")]
        self.literals = Literals.of("\n".join(own), "\n".join(others))

    def changing_by_itself(self) -> tuple[str, str] | None:
        """A model, and what makes its rows change without a message, such as current_date; known once the empty
        warehouse is built. Builds a second apart would not show it."""
        for name, sql in self._compiled:
            if found := CHANGING.search(code_of(sql)):
                return name, found[0].partition("(")[0].strip().lower()
        return None

    def first_failure(self, history: History, from_empty: bool) -> Failure | None:
        """Build run by run; after each that builds everything compare the mart with a full refresh.

        Args:
            from_empty: begin with models that were built before anything landed.
        """
        for number, run in enumerate(history, start=1):
            so_far = history[:number]
            if run.only or (number == 1 and not from_empty):  # which is a full refresh itself
                continue
            if failure := self._failure(so_far, from_empty, self._marts, self._refreshed):
                return failure
        return None

    def explained(self, failure: Failure, from_empty: bool) -> Failure:
        """The same failure of the first model, among those that the marts are made from, that has one."""
        if failure.error:
            return failure
        return self._failure(failure.history, from_empty, self._tables, self._refreshed) or failure

    def still_fails(self, history: History, from_empty: bool) -> Failure | None:
        """Whether a mart differs from a full refresh of itself alone, which is sooner made."""
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
        """The warehouse after these runs; those before the last are remembered."""
        if (from_empty, history) in self._built:
            return self._built[from_empty, history]
        path = self._new_folder()
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
        """A new warehouse of the same landed messages."""
        path = self._new_folder()
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
        """A copy in which the marts are built again from what they read."""
        path = self._new_folder()
        shutil.copyfile(built, path)
        self._dbt(path, "run", "--select", *self.marts, "--full-refresh")
        return path

    def _build(self, path: Path, only: Sequence[str] = ()) -> list[tuple[str, str]]:
        """Returns the SQL of each model."""
        select = only or [f"+{mart}" for mart in self.marts]
        done = self._dbt(path, "build", "--select", *select, "--exclude-resource-type", "test", "unit_test")
        models = [one.node for one in done.results if one.node.resource_type == NodeType.Model]
        return [(model.name, model.compiled_code or "") for model in models]

    def _dbt(self, path: Path, *arguments: str) -> Any:
        try:
            done = self._project.run(path, *arguments)
        finally:
            DuckDBConnectionManager.close_all_connections()  # type: ignore[no-untyped-call]
        self.on_build()
        return done

    def _new_folder(self) -> Path:
        """dbt knows the name of the file as that of the database."""
        return Path(mkdtemp(dir=self._work)) / "warehouse.duckdb"


def _parents_first(project: WarmProject, unique_ids: Iterable[str]) -> list[str]:
    """These nodes and all that they are made from."""
    found: dict[str, None] = {}

    def visit(unique_id: str) -> None:
        node = project.manifest.nodes.get(unique_id)
        for parent in node.depends_on_nodes if node else ():
            if parent not in found:
                visit(parent)
        found[unique_id] = None

    for unique_id in unique_ids:
        visit(unique_id)
    return list(found)


def _code(project: WarmProject, unique_id: str) -> Iterator[str]:
    """The text of a model, and of what a view reads."""
    if (node := project.manifest.nodes.get(unique_id)) is not None:
        yield node.raw_code
        if node.config.materialized == "view":
            for parent in node.depends_on_nodes:
                yield from _code(project, parent)


def _is_named(stream: Stream, code: str) -> bool:
    types = [stream.event_type] if isinstance(stream.event_type, str) else []
    if isinstance(stream.event_type, EventType):
        types = [*stream.event_type.values.values()]
    return any(f"'{name}'" in code for name in (stream.name, f"stg_{stream.name}", *types))


def _land(path: Path, messages: Iterable[Message], run: int) -> None:
    """In commits. The clocks of the streams' loaders are days apart: landed_at orders messages of one stream only."""
    for commit in range(COMMITS):
        rows: dict[str, list[Row]] = {}
        for message in messages:
            if message.commit == commit:
                rows.setdefault(message.stream, []).append(
                    {
                        "source": "pubsub",
                        "topic": message.stream,
                        "message_id": message.message_id,
                        "key": message.key,
                        "attributes": message.attributes,
                        "published_at": message.published_at,
                        "payload": message.payload,
                    }
                )
        clocks: dict[int, dict[str, pa.Table]] = {}
        for stream, of_stream in rows.items():
            table = pa.Table.from_pylist(of_stream, schema=BATCH_SCHEMA)
            clocks.setdefault(zlib.crc32(stream.encode()) % 3, {})[stream] = table
        for clock, tables in clocks.items():
            now = FIRST_LANDING + timedelta(hours=7 * run + 3 * commit, days=(0, -3, 2)[clock])
            DuckDBSink(path, clock=partial(_same, now)).commit([Batch(tables)])


def _same(time: datetime) -> datetime:
    return time


def _rows(path: Path, relation: str) -> list[Row]:
    with duckdb.connect(str(path), read_only=True) as connection:
        found = connection.sql(f"select * from {relation}")  # noqa: S608  dbt's own name
        return [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]


def _differing(here: Sequence[Row], there: Sequence[Row]) -> tuple[list[Row], list[Row]] | None:
    """Rows of one side only, as often as that side has them more; as text, since lists are no keys."""
    texts = {repr(row): row for row in (*here, *there)}
    counts_here, counts_there = (Counter(map(repr, rows)) for rows in (here, there))
    only_here, only_there = (
        [texts[text] for text in (one - other).elements()]
        for one, other in ((counts_here, counts_there), (counts_there, counts_here))
    )
    return (only_here, only_there) if only_here or only_there else None


def drawn(checker: Checker, seed: str, number: int, windows: Sequence[int]) -> History:
    """So many worlds, cut into runs; one run builds a part of the models only."""
    rng = random.Random(seed)  # noqa: S311  no secret
    streams = [*checker.streams, *checker.named_streams * 2 * len(checker.streams)]
    messages = [
        message
        for world in range(number)
        for message in draw_world(rng, world, streams, RUNS, windows, checker.literals)
    ]
    history: list[Run] = []
    in_part = rng.randrange(1, RUNS)
    for number_of_run in range(RUNS):
        landed = tuple(message for message in messages if message.run == number_of_run)
        if number_of_run == in_part:
            first = tuple(message for message in landed if message.commit == 0)
            part = tuple(model for model in checker.models if rng.random() < 0.5)
            history.append(Run(first, part or (checker.marts[-1],)))
            landed = tuple(message for message in landed if message.commit)
        history.append(Run(landed))
    return tuple(history)


def shrunk(checker: Checker, failure: Failure, from_empty: bool, seconds: float) -> Failure:
    """The smallest failing history that is found in this time: fewer worlds, then fewer runs, then fewer messages.
    LEAST_ATTEMPTS are made on a busy machine too."""
    deadline = time.monotonic() + seconds
    least = LEAST_ATTEMPTS if seconds else 0
    tried: set[History] = set()
    smallest = failure

    def fails(history: History) -> Failure | None:
        is_late = time.monotonic() > deadline and len(tried) >= least
        if is_late or history in tried or not any(run.messages for run in history):
            return None
        tried.add(history)
        found = checker.still_fails(history, from_empty)
        is_alike = found is not None and (found.error is None) == (failure.error is None)
        return found if is_alike else None

    while smaller := next(filter(None, map(fails, _smaller(smallest))), None):
        smallest = smaller
    return smallest


def _smaller(failure: Failure) -> Iterator[History]:
    """Histories to try, those that leave out the most first."""
    history = failure.history
    messages = [message for run in history for message in run.messages]
    by_world: dict[int | None, list[Message]] = {}
    for message in messages:
        by_world.setdefault(world_of(message.message_id), []).append(message)
    if len(by_world) > 1:  # worlds that the differing rows are about: each alone, or with the one of the newest days
        rows = [*failure.only_incremental, *failure.only_refreshed]
        named = {world_of(value) for row in rows[:200] for value in row.values()} & by_world.keys()
        fewest = sorted(named, key=lambda world: len(by_world[world]))[:3]
        newest = max(world for world in by_world if world is not None)
        for kept in (*({world} for world in fewest), *({world, newest} for world in fewest)):
            yield _without(history, [one for world, of_it in by_world.items() if world not in kept for one in of_it])
    if len(history) > 2 or any(run.only for run in history):
        yield (*_joined(history[:-1]), history[-1])
        for place in range(len(history) - 1, 0, -1):
            yield (*history[: place - 1], *_joined(history[place - 1 : place + 1]), *history[place + 1 :])
    for units in (list(by_world.values()), [[message] for message in messages]):
        size = (len(units) + 1) // 2 if len(units) > 1 else 0
        while size:
            for start in range(0, len(units), size):
                yield _without(history, [message for unit in units[start : start + size] for message in unit])
            size //= 2


def _without(history: History, left_out: Iterable[Message]) -> History:
    """Runs in which nothing lands any more are left out, too, except the last. By identity: copies may be equal."""
    out = {id(message) for message in left_out}
    kept = [replace(run, messages=tuple(one for one in run.messages if id(one) not in out)) for run in history]
    first, *others = (run for place, run in enumerate(kept) if run.messages or place == len(kept) - 1)
    return (Run(first.messages), *others)  # a part can be built of what was built before


def _joined(runs: History) -> History:
    """As one run, which builds everything."""
    return (Run(tuple(message for run in runs for message in run.messages)),)


def marts_of(project: WarmProject) -> list[str]:
    """The models of the schema analytics that are made from messages."""
    return [
        node.name
        for node in project.nodes
        if node.resource_type == NodeType.Model
        and node.schema == "analytics"
        and any(id_.startswith("source.") for id_ in _parents_first(project, [node.unique_id]))
    ]


def described(project: WarmProject, failure: Failure, marts: Sequence[str], from_empty: bool) -> Iterator[str]:
    """Lines for a reader: what differs, and the messages that make it so."""
    messages = sum(len(run.messages) for run in failure.history)
    of_what = failure.model if failure.model in marts else f"{failure.model}, which {marts[0]} reads,"
    what = "differs from a full refresh" if failure.error is None else "cannot be built"
    yield f"{of_what} {what}. The smallest case found, {messages} message{'s'[: messages != 1]}:"
    yield ""
    if from_empty:
        yield "run 0 builds an empty warehouse"
    for number, run in enumerate(failure.history, start=1):
        yield f"run {number} lands" + ("" if run.messages else " nothing")
        for message in sorted(run.messages, key=lambda message: message.commit)[:MESSAGES_SHOWN]:
            yield f"  {message}"
        if len(run.messages) > MESSAGES_SHOWN:
            yield f"  and {len(run.messages) - MESSAGES_SHOWN} more; SHRINK_SECONDS=600 looks longer for a smaller case"
        yield f"  and builds {', '.join(run.only) or 'everything'}"
    yield ""
    if failure.error is not None:
        yield f"run {len(failure.history)} fails: {failure.error}"
        return
    yield f"after run {len(failure.history)}:"
    node = next(node for node in project.nodes if node.name == failure.model)
    unique_key = getattr(node.config, "unique_key", None) or []
    yield from _differences(failure, [unique_key] if isinstance(unique_key, str) else unique_key)


def _differences(failure: Failure, unique_key: Sequence[str]) -> Iterator[str]:
    refreshed = {tuple(repr(row.get(name)) for name in unique_key): row for row in failure.only_refreshed}
    lines: list[str] = []
    for row in failure.only_incremental:
        other = refreshed.pop(tuple(repr(row.get(name)) for name in unique_key), None) if unique_key else None
        if other is None:
            lines.append(f"  only incremental: {_text(row)}")
        else:
            names = [name for name in row if repr(row[name]) != repr(other[name])]
            lines.append(
                f"  {_text({name: row[name] for name in unique_key})}: {_text({name: row[name] for name in names})};"
                f" after a full refresh {_text({name: other[name] for name in names})}"
            )
    left = refreshed.values() if unique_key else failure.only_refreshed
    lines += [f"  only after a full refresh: {_text(row)}" for row in left]
    yield from lines[:ROWS_SHOWN]
    if len(lines) > ROWS_SHOWN:
        yield f"  and {len(lines) - ROWS_SHOWN} more rows"


def _text(row: Row) -> str:
    return ", ".join(f"{name}={value}" for name, value in row.items())
