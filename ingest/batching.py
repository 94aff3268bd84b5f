"""The bounds of a batch (LANDING_MAX_ROWS, LANDING_MAX_BYTES, LANDING_MAX_SECONDS), and a batch's size compared with
them."""

import time
from bisect import bisect_left
from dataclasses import dataclass
from typing import Protocol, Self

from common.settings import Settings

MAX_FETCH_SECONDS = 1.0
"""Maximum seconds of a fetch that has messages: between two fetches the loader checks whether to stop."""


class _ByteOffsets(Protocol):
    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> int: ...


@dataclass(frozen=True, slots=True)
class BatchBounds:
    """The bounds of a batch: rows, bytes and seconds. A batch is complete once it reaches one of them."""

    rows: int
    bytes: int
    seconds: float

    @classmethod
    def for_commit(cls, settings: Settings) -> Self:
        return cls(settings.landing_max_rows, settings.landing_max_bytes, settings.landing_max_seconds)

    @classmethod
    def for_fetch(cls, settings: Settings) -> Self:
        """The bounds of a commit, but at most MAX_FETCH_SECONDS."""
        seconds = min(settings.landing_max_seconds, MAX_FETCH_SECONDS)
        return cls(settings.landing_max_rows, settings.landing_max_bytes, seconds)

    def fitting_rows(self, ends: _ByteOffsets) -> int:
        """Return how many rows fit into one batch, but at least one, so that no row is too large to land.

        Args:
            ends: the byte offset at which each row ends, ascending.
        """
        return min(self.rows, max(1, bisect_left(ends, self.bytes)))


class BatchSize:
    """Rows and bytes of a batch, or of a buffer of batches, compared with its bounds."""

    def __init__(self, bounds: BatchBounds) -> None:
        self.rows = 0
        self.bytes = 0
        self._bounds = bounds
        self._started_at = time.monotonic()

    @property
    def rows_left(self) -> int:
        return self._bounds.rows - self.rows

    @property
    def bytes_left(self) -> int:
        """Bytes until the bound; negative if a single row or pull exceeded it."""
        return self._bounds.bytes - self.bytes

    @property
    def seconds_left(self) -> float:
        """Seconds until the batch is due; negative afterwards."""
        return self._started_at + self._bounds.seconds - time.monotonic()

    @property
    def is_full(self) -> bool:
        """Whether the bound of rows or of bytes is reached, whatever the bound of seconds."""
        return self.rows_left <= 0 or self.bytes_left <= 0

    def fits(self, rows: int, size: int) -> bool:
        """Return whether this many more rows and bytes fit within the bounds. Anything fits into an empty batch."""
        return not self.rows or (rows <= self.rows_left and size <= self.bytes_left)

    def add(self, rows: int, size: int) -> None:
        self.rows += rows
        self.bytes += size

    def remove(self, rows: int, size: int) -> None:
        self.add(-rows, -size)

    def restart_clock(self) -> None:
        """Count the seconds from now, for a batch that was created before its first row."""
        self._started_at = time.monotonic()
