"""Sets dbt up in this process, without its command line, for `dbt_project.resident`."""

import os
from collections.abc import Mapping
from typing import Any

from dbt.adapters.factory import get_adapter, register_adapter, reset_adapters
from dbt.cli.flags import Flags
from dbt.cli.types import Command
from dbt.config.runtime import RuntimeConfig, load_profile, load_project
from dbt.context.providers import generate_runtime_macro_context
from dbt.context.query_header import generate_query_header_context
from dbt.contracts.graph.manifest import Manifest
from dbt.flags import set_flags
from dbt.mp_context import get_mp_context
from dbt_common.context import set_invocation_context
from dbt_common.events.event_manager import EventManager
from dbt_common.events.event_manager_client import ctx_set_event_manager
from dbt_common.invocation import reset_invocation_id

from publishing.dbt_options import PROJECT, target


def set_up(manifest: Manifest, variables: Mapping[str, Any]) -> tuple[RuntimeConfig, Any]:
    """Returns dbt's configuration and its adapter of the warehouse that the environment names.

    Args:
        manifest: the project, parsed with these vars.
        variables: dbt's vars, as in `--vars`.
    """
    ctx_set_event_manager(_Silent())
    config = _configured(
        {
            "project_dir": str(PROJECT),
            "profiles_dir": str(PROJECT),
            "target_path": str(target()),
            "log_level": "none",
            "log_level_file": "none",
            "vars": dict(variables),
        }
    )
    reset_adapters()
    register_adapter(config, get_mp_context())
    adapter: Any = get_adapter(config)
    adapter.set_macro_context_generator(generate_runtime_macro_context)
    adapter.set_macro_resolver(manifest)
    adapter.connections.set_query_header(generate_query_header_context(config, manifest))
    return config, adapter


class _Silent(EventManager):
    """Drops dbt's events, most of which a cycle would make for nobody."""

    def fire_event(self, *_: Any, **__: Any) -> None:
        pass


def _configured(options: Mapping[str, Any]) -> RuntimeConfig:
    set_invocation_context(os.environ)
    flags = Flags.from_dict(Command.BUILD, dict(options))
    set_flags(flags)
    reset_invocation_id()
    profile = load_profile(str(PROJECT), flags.VARS)
    project = load_project(str(PROJECT), False, profile, flags.VARS)
    return RuntimeConfig.from_parts(project, profile, flags)
