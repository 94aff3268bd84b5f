"""Runs dbt in this process with a project parsed once: a build of a few models takes one second instead of six."""

import fcntl
import gc
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dbt.artifacts.resources.types import NodeType
from dbt.artifacts.schemas.run import RunExecutionResult, RunResult
from dbt.cli.main import dbtRunner
from dbt.contracts.graph.manifest import Manifest

from common.errors import UserError
from dbt_project.contracts import parse_changed_contracts
from publishing.dbt_errors import user_error


class BuildError(Exception):
    """dbt could not run, or a model failed."""


class WarmProject:
    """A parsed dbt project that can build any number of DuckDB files.

    All files need the same name, which dbt uses as the name of the database.
    """

    def __init__(self, folder: Path, work: Path) -> None:
        """Parse the project in `folder`; dbt writes its files to `work`.

        Raises:
            UserError: if the project cannot be parsed.
        """
        self._arguments = [
            *("--project-dir", str(folder), "--profiles-dir", str(folder)),
            *("--target-path", str(work / "target"), "--log-path", str(work / "logs"), "--log-level", "none"),
        ]
        self.manifest = parsed(folder, self._environment(work))
        gc.freeze()  # garbage collections that walk the manifest would take a sixth of a build's time
        self.nodes = list(self.manifest.nodes.values())
        self.models = [node.name for node in self.nodes if node.resource_type == NodeType.Model]

    def run(self, warehouse: Path, *arguments: str) -> Any:
        """Run dbt with these arguments on a DuckDB file; returns dbt's result.

        Raises:
            BuildError: if a node fails.
        """
        return self._invoke(warehouse, *arguments)

    def _message(self, failed: RunResult) -> str:
        return f"{failed.node.name}: {failed.message}"

    def _environment(self, warehouse: Path) -> dict[str, str]:
        return {"WAREHOUSE": "duckdb", "WAREHOUSE_PATH": str(warehouse)}

    def _invoke(self, warehouse: Path, *arguments: str) -> Any:
        with environment(self._environment(warehouse)):
            outcome = dbtRunner(manifest=self.manifest).invoke([*arguments, *self._arguments])
        if not outcome.success:
            failed = outcome.result.results if isinstance(outcome.result, RunExecutionResult) else []
            messages = [self._message(one) for one in failed if one.status in ("error", "fail")]
            raise BuildError("\n".join(messages) or str(outcome.exception))
        return outcome.result


def parsed(project: Path, settings: Mapping[str, str], options: Sequence[str] = ()) -> Manifest:
    """The manifest for the engine in these environment variables. The manifest is the same for every warehouse.

    Args:
        options: more options of dbt, such as `--vars`.

    Takes ten seconds the first time, then one or two while nothing changes: dbt keeps the result in the project's
    target/warm. Several processes may call it at once.

    Raises:
        UserError: if dbt cannot parse the project; UnavailableError while the disk is full.
    """
    folder = project / "target" / "warm" / settings["WAREHOUSE"]
    folder.mkdir(parents=True, exist_ok=True)
    options = [
        *("--project-dir", str(project), "--profiles-dir", str(project)),
        *("--target-path", str(folder), "--log-path", str(folder), "--log-level", "none"),
        *options,
    ]
    # A constant path, which is not opened: with another one dbt would parse everything again.
    same_warehouse = {**settings, "WAREHOUSE_PATH": "warehouse.duckdb"}
    with (folder / "lock").open("w") as lock, environment(same_warehouse):
        fcntl.flock(lock, fcntl.LOCK_EX)
        parse_changed_contracts(folder, project)
        outcome = dbtRunner().invoke(["parse", *options])
    if isinstance(outcome.exception, OSError):
        raise user_error(outcome.exception, folder)
    if not isinstance(outcome.result, Manifest):
        raise UserError(f"dbt cannot parse the project {project}: {outcome.exception}")
    return outcome.result


@contextmanager
def environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Add these environment variables for the block."""
    before = dict(os.environ)
    os.environ.update(settings)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
