"""What a build publishes: the marts as their models describe them, and what an engine needs to write them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

STATE = "marts.json"
"""File of a version that is complete: what its marts were made from. Only such a version may become a new one."""


@dataclass(frozen=True)
class Mart:
    """A table or view to publish."""

    schema: str
    name: str
    is_view: bool = False
    records_changes: bool = False
    """Whether builds record what they change in it, as incremental models of this project do."""
    unique_key: tuple[str, ...] = ()
    """Columns that identify a row, never null. Without them such a model only adds rows."""
    partition_by: str | None = None
    """A column of dates or timestamps: builds record the dates that they changed."""
    unpublished: frozenset[str] = frozenset()
    """Columns that are left out."""


class PinnedMarts(Protocol):
    """The marts as they were at one moment, whatever builds and loaders commit meanwhile."""

    def write(self, folder: Path, marts: Sequence[Mart], last: Path | None, spare: Path | None) -> None:
        """Write the marts as a version; may be called once, in any thread.

        Args:
            folder: of the version; does not exist yet.
            last: folder of the version that was published last; is only read.
            spare: folder of an earlier complete version. It becomes `folder`, or stays if it cannot be used.

        Raises:
            OSError: when they cannot be written.
        """
        ...
