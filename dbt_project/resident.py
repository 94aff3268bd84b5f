"""Runs the models of a dbt project again and again in one process, at a fraction of what dbt's own runner costs.

Each model is rendered and materialized by dbt's Jinja, macros and adapter, as in `dbt build`, so every rule has one owner.
Left out is what dbt does per invocation and per node besides: parsing, selecting, creating contexts of macros, events,
artifacts. The parts of dbt that this module calls are not public: dbt-core is pinned exactly, and
tests/dbt_project/test_resident.py compares the result with that of `dbt build`.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import jinja2
import structlog
from dbt.adapters.factory import get_adapter, register_adapter, reset_adapters
from dbt.cli.flags import Flags
from dbt.cli.types import Command
from dbt.clients import jinja
from dbt.clients.jinja import MacroGenerator
from dbt.config.runtime import RuntimeConfig, load_profile, load_project
from dbt.context.providers import generate_runtime_macro_context, generate_runtime_model_context
from dbt.context.query_header import generate_query_header_context
from dbt.contracts.graph.manifest import Manifest
from dbt.contracts.graph.nodes import ManifestNode
from dbt.flags import set_flags
from dbt.mp_context import get_mp_context
from dbt.selected_resources import set_selected_resources
from dbt_common.events.event_manager import EventManager
from dbt_common.events.event_manager_client import ctx_set_event_manager
from dbt_common.exceptions import DbtBaseException
from dbt_common.invocation import reset_invocation_id

from common.settings import Settings
from dbt_project.warm import parsed
from publishing.dbt_errors import first_paragraph
from publishing.dbt_options import PROJECT, export_environment, target

log = structlog.get_logger()


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

    node: ManifestNode
    context: dict[str, Any]
    template: jinja2.Template
    materialization: Any
    streams: frozenset[str]


@dataclass(slots=True)
class TestRound:
    """Every data test once, a few at a time between builds."""

    waiting: list[str]
    """Unique ids of the tests that have not run in this round."""
    started_at: str
    """UTC time of the warehouse's clock at which the round began: rows from before are tested by every test."""
    failures: list[str] = field(default_factory=list)
    """One line per failed test."""


class ResidentProject:
    """The project on the warehouse that the settings name, which this process has open (`Engine.kept_open`).

    Not thread-safe: one thread uses it.

    Args:
        variables: dbt's vars, as in `--vars`.
    """

    def __init__(self, settings: Settings, variables: Mapping[str, Any]) -> None:
        export_environment(settings)
        self._manifest = parsed(PROJECT, {"WAREHOUSE": settings.warehouse}, variables)
        options = {
            "project_dir": str(PROJECT),
            "profiles_dir": str(PROJECT),
            "target_path": str(target()),
            "log_level": "none",
            "log_level_file": "none",
            "vars": dict(variables),
        }
        self._config = _configured(options)
        reset_adapters()
        register_adapter(self._config, get_mp_context())
        self._adapter = get_adapter(self._config)
        self._adapter.set_macro_context_generator(generate_runtime_macro_context)
        self._adapter.set_macro_resolver(self._manifest)
        header = generate_query_header_context(self._config, self._manifest)
        self._adapter.connections.set_query_header(header)
        ctx_set_event_manager(_Silent())
        self._manifest.build_flat_graph()
        self._graph: dict[str, Any] = self._manifest.flat_graph
        self._macros: dict[str, Any] = {}
        self._runnables: dict[str, _Runnable] = {}
        self._is_started = False

    def build(self) -> Build | None:
        """Run every model of a stream with new messages; None if there are none.

        Raises:
            ModelError: if a model fails. The next build runs every model.
        """
