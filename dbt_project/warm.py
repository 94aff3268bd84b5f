"""dbt in this process, with a project that is parsed once: a build of a few models takes a second instead of six."""

import fcntl
import gc
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dbt.artifacts.resources.types import NodeType
from dbt.artifacts.schemas.run import RunExecutionResult, RunResult
from dbt.cli.main import dbtRunner
from dbt.contracts.graph.manifest import Manifest

from common.errors import UserError
from dbt_project.contracts import parse_changed_contracts


class BuildError(Exception):
    """dbt could not run, or a model failed."""


class WarmProject:
    """A dbt project, with which one builds any number of warehouse files. All of them need one file name, which dbt
    knows as the name of the database."""

    def __init__(self, folder: Path, work: Path) -> None:
        """Parse the project of `folder`; what dbt writes goes to `work`.

        Raises:
            UserError: when the project cannot be parsed.
        """
        self._arguments = [
            *("--project-dir", str(folder), "--profiles-dir", str(folder)),
            *("--target-path", str(work / "target"), "--log-path", str(work / "logs"), "--log-level", "none"),
        ]
        self.manifest = parsed(folder, self._environment(work))
        gc.freeze()  # the manifest stays: to walk it at every collection is a sixth of a build's time
        self.nodes = list(self.manifest.nodes.values())
        self.models = [node.name for node in self.nodes if node.resource_type == NodeType.Model]

    def run(self, warehouse: Path, *arguments: str) -> Any:
        """Run dbt with these arguments on a DuckDB file; returns what dbt does.

        Raises:
            BuildError: when a node fails.
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


def parsed(project: Path, settings: Mapping[str, str]) -> Manifest:
    """The manifest for the engine of these environment variables, whatever warehouse they name: in ten seconds the
    first time, in one or two while nothing has changed.

    dbt keeps what it parsed in the project's target/warm; the lock is for several processes.

    Raises:
        UserError: when dbt cannot parse it.
    """
    folder = project / "target" / "warm" / settings["WAREHOUSE"]
    folder.mkdir(parents=True, exist_ok=True)
    options = [
        *("--project-dir", str(project), "--profiles-dir", str(project)),
        *("--target-path", str(folder), "--log-path", str(folder), "--log-level", "none"),
    ]
    # with another path dbt would parse everything again; nothing is opened
    same_warehouse = {**settings, "WAREHOUSE_PATH": "warehouse.duckdb"}
    with (folder / "lock").open("w") as lock, environment(same_warehouse):
        fcntl.flock(lock, fcntl.LOCK_EX)
        parse_changed_contracts(folder, project)
        outcome = dbtRunner().invoke(["parse", *options])
    if not isinstance(outcome.result, Manifest):
        raise UserError(f"dbt cannot parse the project {project}: {outcome.exception}")
    return outcome.result


@contextmanager
def environment(settings: Mapping[str, str]) -> Iterator[None]:
    """With these environment variables besides those that there are."""
    before = dict(os.environ)
    os.environ.update(settings)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
