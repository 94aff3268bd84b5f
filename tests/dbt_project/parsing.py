"""Parses the project with dbt: in ten seconds the first time, in one or two while nothing has changed."""

import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from unittest.mock import patch

from dbt.cli.main import dbtRunner
from dbt.contracts.graph.manifest import Manifest


def parsed(project: Path, environment: Mapping[str, str]) -> Manifest:
    """The manifest for the engine of this environment, whatever warehouse it names.

    dbt keeps what it parsed in the project's target/tests; the lock is for tests in several processes.
    """
    folder = project / "target" / "tests" / environment["WAREHOUSE"]
    folder.mkdir(parents=True, exist_ok=True)
    options = [
        *("--project-dir", str(project), "--profiles-dir", str(project)),
        *("--target-path", str(folder), "--log-path", str(folder), "--log-level", "none"),
    ]
    # with another path dbt would parse everything again; nothing is opened
    same_warehouse = {**environment, "WAREHOUSE_PATH": "warehouse.duckdb"}
    with (folder / "lock").open("w") as lock, patch.dict(os.environ, same_warehouse):
        fcntl.flock(lock, fcntl.LOCK_EX)
        outcome = dbtRunner().invoke(["parse", *options])
    assert outcome.success, outcome.exception
    assert isinstance(outcome.result, Manifest)
    return outcome.result
