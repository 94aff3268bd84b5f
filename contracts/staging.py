"""Runs the staging model of one stream over a temporary warehouse: its verdict on messages is that of a build."""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.settings import Settings
from common.streams import Stream
from dbt_project.contracts import PROJECT, parse_changed_contracts, write_contracts
from publishing.dbt_options import export_environment, target

NOT_COPIED = shutil.ignore_patterns("target", "logs", "__pycache__")
EMBEDDED: dict[str, Any] = {
    "warehouse": "duckdb",
    "kafka_bootstrap_servers": None,
    "kafka_config_file": None,
    "pubsub_project": None,
}
"""Settings without brokers."""


@contextmanager
def temporary_warehouse(settings: Settings) -> Iterator[Settings]:
    """Yields the settings of an empty DuckDB file and an empty spool, which are removed afterwards.

    One process at a time uses them: their folder is always the same, since dbt caches there what it parsed. A warehouse
    at another path would make it parse the whole project again.
    """
    folder = target() / "check"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            _clear(folder)
            yield settings.model_copy(
                update={**EMBEDDED, "spool_path": folder / "spool", "warehouse_path": folder / "sample.duckdb"}
            )
        finally:
            _clear(folder)


def _clear(folder: Path) -> None:
    for name in ("spool", "project"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for path in folder.glob("sample.duckdb*"):
        path.unlink()


def stage(settings: Settings, stream: Stream, variables: str | None = None) -> None:
    """Run the staging model, in a copy of the project with the present contracts.

    Args:
        settings: of `temporary_warehouse`.
        variables: vars of dbt as YAML, as in `--vars`.

    Raises:
        UserError: if the model cannot be built.
    """
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager
    from dbt.cli.main import dbtRunner

    folder = settings.warehouse_path.parent
    project = folder / "project" / PROJECT.name
    for name in (PROJECT.name, "snapshots", "analyses"):
        shutil.copytree(PROJECT.parent / name, folder / "project" / name, ignore=NOT_COPIED)
    write_contracts(project)
    parse_changed_contracts(folder, project)
    export_environment(settings)
    options = ["--log-level", "none", "--log-level-file", "none", "--target-path", str(folder)]
    options += ["--project-dir", str(project), "--profiles-dir", str(project)]
    options += ["--vars", variables] if variables is not None else []
    try:
        result = dbtRunner().invoke(["--quiet", "run", "--select", f"stg_{stream.name}", *options])
    finally:
        DuckDBConnectionManager.close_all_connections()
    if not result.success:
        failed = [one.message for one in getattr(result.result, "results", ()) if one.message]
        raise UserError(f"the staging model of {stream.name} cannot be built: {result.exception or '; '.join(failed)}")


def staged_table(settings: Settings, stream: Stream) -> str:
    """The name of the table that `stage` writes."""
    return f"{settings.build_prefix or ''}staging.stg_{stream.name}"
