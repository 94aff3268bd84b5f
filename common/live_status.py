"""The file in which `live` says what it does, since no other process can open the warehouse meanwhile."""

import os
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ValidationError

FILE = "live.json"


class StreamCounts(BaseModel):
    """Counts of one stream: as `StreamStatus` of engines."""

    landed: int
    newest_landed_at: datetime | None
    dead_letters: int | None


class LiveStatus(BaseModel):
    """What the live process did last."""

    pid: int
    """Process id: the file is out of date unless this process has the warehouse."""
    dashboard: str
    """URL of the dashboard."""
    updated_at: datetime
    published: str | None = None
    """Version that was published last."""
    failure: str | None = None
    """Why nothing is published, in one line; None if all is well."""
    advice: str | None = None
    """Why the warehouse should be compacted; None as long as that gains little."""
    streams: dict[str, StreamCounts] = {}
    """Counts of each stream in the warehouse."""

    def write(self, folder: Path) -> None:
        """Replace the file in one step, so that a reader never finds half of it.

        Args:
            folder: in which builds publish.
        """
        self.updated_at = datetime.now(UTC)
        file = _file(folder)
        file.parent.mkdir(parents=True, exist_ok=True)
        new = file.with_suffix(".new")
        new.write_text(self.model_dump_json())
        new.replace(file)


def read_live_status(folder: Path) -> LiveStatus | None:
    """The status of the live process that publishes in this folder; None if none is running."""
    try:
        status = LiveStatus.model_validate_json(_file(folder).read_bytes())
        os.kill(status.pid, 0)
    except (OSError, ValidationError):
        return None
    return status


def forget_live_status(folder: Path) -> None:
    """Remove the file, when the process ends."""
    _file(folder).unlink(missing_ok=True)


def _file(folder: Path) -> Path:
    return folder / FILE
