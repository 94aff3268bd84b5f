"""Finds and removes the files of landing and builds, at the paths in the settings."""

import os
import shutil
from pathlib import Path

from common.errors import UserError
from common.settings import Settings
from common.streams import STREAMS
from engines.factory import engine_for
from ingest.simulator import STATE_FILE
from ingest.simulator.feed import FEED_FILE

ROOT = Path(__file__).parents[1]
WAREHOUSE_ENDINGS = ("", ".wal", ".tmp", ".emit", ".backup", ".new", ".new.wal")
"""Endings of the warehouse file and of the files that DuckDB, `emit` and a killed `backup`, `restore` or `compact`
leave next to it."""


def found(settings: Settings) -> list[Path]:
    """Find what `clean` would remove: the DuckDB file and the files next to it, published versions, the logs of the
    spool, dbt's artifacts and logs, and report.html. BigQuery's datasets stay.

    Raises:
        UserError: if the file at WAREHOUSE_PATH is not a DuckDB file.
    """
    warehouse = settings.warehouse_path
    if warehouse.exists():
        _check_warehouse(warehouse)
    spool = settings.spool_path
    target = Path(os.environ.get("DBT_TARGET_PATH", ROOT / "dbt_project" / "target"))
    candidates = [
        *(warehouse.with_name(f"{warehouse.name}{ending}") for ending in WAREHOUSE_ENDINGS),
        engine_for(settings).published_folder,
        *(spool / stream for stream in STREAMS if any((spool / stream).glob("[0-9]*.ndjson"))),
        spool / STATE_FILE,
        spool / FEED_FILE,
        *([target] if (target / "manifest.json").exists() else []),
        *Path(os.environ.get("DBT_LOG_PATH", ROOT / "dbt_project" / "logs")).glob("dbt.log*"),
        Path("report.html"),
    ]
    return [path for path in candidates if path.exists()]


def _check_warehouse(path: Path) -> None:
    try:
        with path.open("rb") as file:
            header = file.read(12)
    except OSError as error:
        raise UserError(f"nothing was removed: {path} cannot be read: {error.strerror}; see WAREHOUSE_PATH") from error
    if header and header[8:] != b"DUCK":
        raise UserError(f"nothing was removed: {path} is not a DuckDB file; see WAREHOUSE_PATH")


def remove(paths: list[Path], settings: Settings) -> None:
    """Remove these paths, and then the folder of the spool if it is empty.

    Raises:
        UserError: naming the first path that cannot be removed.
    """
    for path in paths:
        try:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        except OSError as error:
            raise UserError(f"cannot remove {path}: {error.strerror}") from error
    if settings.spool_path.is_dir() and not any(settings.spool_path.iterdir()):
        settings.spool_path.rmdir()
