"""Runs the models of a dbt project again and again in one process, at a fraction of what dbt's own runner costs.

Each model is rendered and materialized by dbt's Jinja, macros and adapter, as in `dbt build`, so every rule has one
owner. Left out is what dbt does per invocation and per node besides: parsing, selecting, creating contexts of macros,
events, artifacts. The parts of dbt that this module calls are not public: dbt-core is pinned exactly, and
tests/dbt_project/test_build.py compares the result with that of `dbt build`.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from graphlib import TopologicalSorter
from typing import Any

import jinja2
from dbt.clients.jinja import MacroGenerator, add_rendered_test_kwargs
from dbt.context.providers import generate_runtime_macro_context, generate_runtime_model_context
from dbt.contracts.graph.manifest import Manifest
from dbt.contracts.graph.nodes import GenericTestNode
from dbt.selected_resources import set_selected_resources
from dbt_common.clients.jinja import get_template, render_template
from dbt_common.exceptions import DbtBaseException

from common.settings import Settings
from dbt_project.repeated_work import repeated_work_left_out
from dbt_project.set_up import set_up
from publishing.dbt_errors import first_paragraph
from publishing.dbt_options import export_environment, target

TEMPLATES = "templates.marshal"
"""File beside dbt's parsed project."""


MACRO_ERRORS = (ArithmeticError, LookupError, TypeError, ValueError, jinja2.TemplateError)
"""What Python raises in a macro and dbt does not translate, such as a date beyond the year 9999."""


class ModelError(Exception):
    """A model, a snapshot or a test could not run; the message says which and why, in one line."""


@dataclass(frozen=True, slots=True)
class Build:
    """What one build read, and how long it took."""

    upper_bounds: Mapping[str, datetime]
    """By stream, the newest landed_at that the marts now have; UTC without a zone. Only streams with new messages."""
    started_at: float
    """Unix time at which the upper bounds were read."""
    seconds: float
    models: int
    """Number of models that ran."""


@dataclass(slots=True)
class _Runnable:
    """A node with what is the same in every run."""

    node: Any
    context: dict[str, Any]
    template: jinja2.Template
    materialization: MacroGenerator


@dataclass(slots=True)
class TestRound:
    """Every data test once, a few at a time between builds."""

    waiting: list[str]
    """Unique ids of the tests that have not run in this round."""
    total: int
    """Number of all tests of the round."""
    started_at: str
    """SQL of the time at which the round began: rows from before are tested by every test."""
    failures: list[str] = field(default_factory=list)
    """One line per failed test."""
    warnings: list[str] = field(default_factory=list)
    """One line per test that found rows, but is configured only to warn."""


class ResidentProject:
    """The project on the warehouse that the settings name, which this process has open (`Engine.kept_open`).

    Not thread-safe: call it from one thread; it runs models in its own threads. Close it before the warehouse.

    Args:
        variables: dbt's vars, as in `--vars`.
        manifest: the project, parsed with these vars.
        on_node: called with the name of each model, snapshot and test before it runs.
    """

    def __init__(
        self,
        settings: Settings,
        variables: Mapping[str, Any],
        manifest: Manifest,
        on_node: Callable[[str], None] = lambda name: None,
    ) -> None:
        export_environment(settings)
        self._manifest = manifest
        self._on_node = on_node
        with ExitStack() as opened:
            opened.enter_context(repeated_work_left_out(target() / TEMPLATES))
            self._config, self._adapter = set_up(manifest, variables)
            self._opened = opened.pop_all()
        self._manifest.build_flat_graph()
        self._graph: dict[str, Any] = self._manifest.flat_graph
        self._hooks: dict[str, MacroGenerator] = {}
        self._runnables: dict[str, _Runnable] = {}
        self._upper_bounds: dict[str, str] = {}
        self._built: dict[str, str] = {}
        """The upper bounds of the last build that succeeded."""
        self._deferred: set[str] = set()
        """Models that have new messages, and run before the next snapshots."""
        self._pool = ThreadPoolExecutor(self._config.threads, thread_name_prefix="model")
        self._is_started = False

    def close(self) -> None:
        """Close the connections to the warehouse."""
        self._pool.shutdown()
        self._opened.close()
        self._adapter.cleanup_connections()

    def build(self) -> Build | None:
        """Run every model that has new messages; None if there are none.

        Raises:
            ModelError: if a model fails. The next build then runs every model.
        """
        started_at = time.time()
        self._graph.pop("new_reporting_dates", None)  # those of the last build
        with self._running():
            if self._is_started:
                self._call("set_upper_bounds")
            else:
                set_selected_resources(set(self._manifest.nodes))
                self._call("start_build")
            self._upper_bounds = dict(self._call("latest_watermarks").get("raw", {}))
            changed = {stream for stream, bound in self._upper_bounds.items() if bound != self._built.get(stream)}
            models = [one for one in self._models if self._has_new_messages(one, changed)]
            self._deferred |= {one for one in models if self._is_deferred(one)}
            models = [one for one in models if one not in self._deferred]
            self._run_models(models)
            self._graph["planned_rebuilds"] = []
            self._is_started = True
        self._built = self._upper_bounds  # not those of a build that failed: its messages are new in the next one
        if not changed:
            return None
        bounds = {stream: datetime.fromisoformat(self._upper_bounds[stream]) for stream in changed}
        return Build(bounds, started_at, time.time() - started_at, len(models))

    def snapshot(self) -> Build:
        """Run every snapshot.

        Runs first the models that count whole days again, which are for operators more than for analysts: those with
        `live: with_snapshots` in their meta. The Build is of these.

        Raises:
            ModelError: if one fails.
        """
        started_at = time.time()
        with self._running():
            self._call("set_change_floor")  # versions were pinned since the last build
            models = [one for one in self._models if one in self._deferred]
            self._run_models(models)
            self._deferred.clear()
            for snapshot in self.snapshots:
                self._run(snapshot)
        return Build({}, started_at, time.time() - started_at, len(models))

    @cached_property
    def snapshots(self) -> Sequence[str]:
        """The ids of the snapshots."""
        return self._nodes("snapshot")

    def begin_tests(self) -> TestRound:
        """Begin to test the partitions that changed since the last successful build.

        Raises:
            ModelError: if the warehouse cannot be used.
        """
        with self._running():
            started_at = str(self._call("pin"))
        tests = self._nodes("test")
        return TestRound(tests, len(tests), started_at)

    def test(self, tests: TestRound, seconds: float) -> bool:
        """Run the next tests of a round for about this many seconds, at least one; returns whether the round is over.

        A round without failures is recorded as a successful build, so that the next one reads only what changes after
        this one began.

        Raises:
            ModelError: if a test cannot run. The round is to be begun again.
        """
        until = time.monotonic() + seconds
        with self._running():
            while tests.waiting:
                self._test(tests.waiting.pop(), tests)
                if time.monotonic() >= until:
                    break
            if not tests.waiting and not tests.failures:
                self._call("record_successful_build", tests.started_at)
        return not tests.waiting

    @cached_property
    def _models(self) -> dict[str, set[str]]:
        """Id of each model that is a table, parents before their children, to those that it reads, directly or not."""
        nodes = self._manifest.nodes
        parents = {
            name: [one for one in getattr(nodes[name].depends_on, "nodes", []) if one in nodes] for name in nodes
        }
        tables = {name for name in self._nodes("model") if nodes[name].config.materialized not in ("view", "ephemeral")}
        read: dict[str, set[str]] = {}
        for name in TopologicalSorter(parents).static_order():
            read[name] = {one for parent in parents[name] for one in {parent} & tables | read[parent]}
        return {name: tables_read for name, tables_read in read.items() if name in tables}

    @cached_property
    def _descendants(self) -> Mapping[str, int]:
        """Id of each model that is a table to the number of those that wait for it: threads idle less if those
        with most run first."""
        return Counter(parent for parents in self._models.values() for parent in parents)

    def _nodes(self, type_: str) -> list[str]:
        return [name for name, node in self._manifest.nodes.items() if node.resource_type == type_]

    def _has_new_messages(self, name: str, changed: set[str]) -> bool:
        """Whether a model may have something to do. An incremental model has if there is a stream that it has not read
        up to the upper bound; what it reads itself cannot be further."""
        if self._manifest.nodes[name].config.materialized != "incremental" or name in self._graph["planned_rebuilds"]:
            return not self._is_started or bool(self._streams(name) & changed)
        read = self._call("latest_watermarks").get(self._manifest.nodes[name].name, {})
        return any(read.get(stream) != self._upper_bounds.get(stream) for stream in self._streams(name))

    def is_complete(self) -> bool:
        """Whether the tables and views of all nodes exist; if not, only `dbt build` creates them."""
        with self._running():
            return all(
                self._adapter.get_relation(node.database, node.schema, node.alias) is not None
                for node in self._manifest.nodes.values()
                if node.is_relational
                and node.resource_type in ("model", "seed", "snapshot")
                and node.config.materialized != "ephemeral"
            )

    def _is_deferred(self, name: str) -> bool:
        meta: dict[str, Any] = self._manifest.nodes[name].config.get("meta") or {}
        return meta.get("live") == "with_snapshots"

    def _streams(self, name: str) -> set[str]:
        return set(self._call("streams_of", name))

    def _run_models(self, models: Collection[str]) -> None:
        """Run models, parents before their children, at most as many at a time as dbt has threads."""
        order = TopologicalSorter({name: self._models[name] & {*models} for name in models})
        order.prepare()
        running: dict[Future[None], str] = {}
        try:
            while order.is_active():
                for name in sorted(order.get_ready(), key=self._descendants.__getitem__, reverse=True):
                    running[self._pool.submit(copy_context().run, self._run_in_thread, name)] = name
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    name = running.pop(future)
                    future.result()
                    order.done(name)
        finally:
            wait(running)

    def _run_in_thread(self, name: str) -> None:
        with self._connected():
            self._run(name)

    def _run(self, name: str) -> None:
        """Render and materialize a model or a snapshot."""
        runnable = self._runnable(name)
        node, context = runnable.node, runnable.context
        self._on_node(node.name)
        try:
            node.compiled_code = render_template(runnable.template, context, node)
            context["sql"] = context["compiled_code"] = node.compiled_code
            relations = runnable.materialization()["relations"]
        except (DbtBaseException, *MACRO_ERRORS) as error:
            raise ModelError(f"{node.name}: {_said(error)}") from error
        for relation in relations:
            self._adapter.cache_added(relation.incorporate(dbt_created=True))

    def _test(self, name: str, tests: TestRound) -> None:
        """Run a test, and add what it found to its round."""
        runnable = self._runnable(name)
        node, context = runnable.node, runnable.context
        self._on_node(node.name)
        try:
            if isinstance(node, GenericTestNode):  # anew, since they name the partitions to test
                add_rendered_test_kwargs(context, node)
            node.compiled_code = render_template(runnable.template, context, node)
            context["sql"] = context["compiled_code"] = node.compiled_code
            runnable.materialization()
        except (DbtBaseException, *MACRO_ERRORS) as error:
            raise ModelError(f"{node.name}: {_said(error)}") from error
        [(failures, should_warn, should_error)] = context["load_result"]("main")["table"].rows
        line = f"{node.name}: {int(failures):,} {'row' if failures == 1 else 'rows'}"
        if should_error and node.config.severity.lower() == "error":
            tests.failures.append(line)
        elif should_warn:
            tests.warnings.append(line)

    def _runnable(self, name: str) -> _Runnable:
        if name not in self._runnables:
            node: Any = self._manifest.nodes[name]
            context = generate_runtime_model_context(node, self._config, self._manifest)
            context["write"] = lambda _: ""  # to the target folder, which nobody reads
            macro: Any = self._manifest.find_materialization_macro_by_name(
                self._config.project_name, node.get_materialization(), self._adapter.type()
            )
            self._runnables[name] = _Runnable(
                node,
                context,
                get_template(node.raw_code, context, node),
                MacroGenerator(macro, context, stack=context["context_macro_stack"]),
            )
        return self._runnables[name]

    def _call(self, name: str, *arguments: Any) -> Any:
        """Call a macro of the project."""
        if name not in self._hooks:
            macro = self._manifest.macros[f"macro.{self._config.project_name}.{name}"]
            context = generate_runtime_macro_context(macro, self._config, self._manifest, self._config.project_name)
            self._hooks[name] = MacroGenerator(macro, context, stack=context.get("context_macro_stack"))
        try:
            return self._hooks[name](*arguments)
        except (DbtBaseException, *MACRO_ERRORS) as error:
            raise ModelError(_said(error)) from error

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Use the connection of this thread; after an error, the next build starts from what the warehouse has."""
        try:
            with self._connected():
                if not self._is_started:
                    relational = [node for node in self._manifest.nodes.values() if node.is_relational]
                    self._adapter.set_relations_cache(relational)
                yield
        except BaseException:
            self._is_started = False
            self._graph.pop("watermarks_of_run", None)
            raise

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """Use the connection of this thread, which stays open, in a transaction if dbt begins one.

        Raises:
            ModelError: if dbt cannot use the warehouse, for example since a full disk does not let it commit.
        """
        connections = self._adapter.connections
        try:
            self._adapter.acquire_connection("resident")
            yield
            if connections.get_thread_connection().transaction_open:
                connections.commit()
        except DbtBaseException as error:
            self._roll_back()
            raise ModelError(first_paragraph(error)) from error
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        with suppress(Exception):  # the first error says more than that of a connection that is broken
            self._adapter.connections.rollback_if_open()


def _said(error: Exception) -> str:
    said = first_paragraph(error)
    return said if isinstance(error, DbtBaseException) else f"{type(error).__name__}: {said}"
