"""The command line: `python -m upkeep COMMAND`."""

from common import interrupts

if __name__ == "__main__":
    interrupts.end_at_once()  # before the other imports

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from common.command_line import VERBOSE, finish
from common.console import count, megabytes, output, progress
from common.logs import configure_logs
from common.settings import load_settings
from engines.factory import engine_for
from upkeep.backup import back_up
from upkeep.restore import redelivery_notes, restore

app = typer.Typer(
    help="Back up, restore, move and compact the warehouse. Settings come from the environment or .env.",
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command("backup")
def backup_command(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder to create; its parent may be another disk.")],
) -> None:
    """Write a consistent backup of a DuckDB warehouse to a folder: Parquet files and manifest.json.

    Landing waits only while the file is copied. While `live` runs, it writes the backup.
    """
    with progress("backing up", None) as advance:
        manifest = back_up(load_settings(), folder, advance)
    size = sum(table.bytes for table in manifest.tables)
    rows = count(sum(table.rows for table in manifest.tables), "row")
    _print(f"backed up {count(len(manifest.tables), 'table')} with {rows} to {folder} ({megabytes(size)})")


@app.command("restore")
def restore_command(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of a backup.")],
) -> None:
    """Fill an empty warehouse from a backup: a DuckDB file, or with WAREHOUSE=bigquery the raw tables of a project.

    The files are verified first. Then land and build as usual: both continue where the backup was made.
    """
    settings = load_settings()
    with progress("restoring", None) as advance:
        manifest = restore(settings, folder, lambda _: advance(1))
    _print(f"restored the backup of {manifest.created_at:%Y-%m-%d %H:%M:%S} UTC: land and build to continue from it")
    if notes := redelivery_notes(settings, manifest):
        _print(
            "Pub/Sub does not deliver again what was acknowledged since: see docs/operations.md#pubsub-after-a-restore"
        )
        for note in notes:
            _print(note)


@app.command("compact")
def compact_command() -> None:
    """Rewrite the DuckDB file without the space that it does not use. `status` says when it is worth it."""
    before, after = engine_for(load_settings()).compact()
    _print(f"compacted the warehouse from {megabytes(before)} to {megabytes(after)}")


def _print(line: str) -> None:
    output.print(line, highlight=False, markup=False, soft_wrap=True)


def main() -> None:
    """Run the command line."""
    arguments = [argument for argument in sys.argv[1:] if argument != VERBOSE]
    configure_logs(logging.INFO)
    finish(lambda: app(arguments or ["--help"], standalone_mode=False))


if __name__ == "__main__":
    interrupts.run(main)
