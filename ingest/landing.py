"""The pipeline: fetch from the sources, commit to the sink, acknowledge. In this order, nothing is lost."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import structlog

from ingest.errors import WarehouseHeldError
from ingest.message import Batch
from ingest.settings import Settings
from ingest.sinks import Sink
from ingest.sources import Source

log = structlog.get_logger()


@dataclass(slots=True)
class LandingReport:
    """What one call of `land` did."""

    rows: int = 0
    commits: int = 0


def land(
    settings: Settings,
    sources: list[Source],
    sink: Sink,
    *,
    follow: bool = False,
    stop: threading.Event | None = None,
    on_progress: Callable[[int], None] = lambda rows: None,
) -> LandingReport:
    """Land what waits; with `follow`, go on until told to stop.

    A commit is due once there are LANDING_MAX_ROWS or LANDING_MAX_BYTES, when nothing more waits, or after
    LANDING_MAX_SECONDS. A kill at any instant loses nothing: what is not committed is fetched again,
    and what is committed but not acknowledged is known by its offset, or lands again as a counted duplicate.

    Args:
        follow: without it, a source that delivers nothing for its `drained_after_seconds` is done, even
            when more arrives during the commit: a busy stream does not keep landing from ending.
        stop: set it to end after the commit that is under way.
        on_progress: called with the number of rows of each commit.
    """
    report = LandingReport()
    with ThreadPoolExecutor(max_workers=len(sources)) as pool:
        waiting = list(sources)
        while waiting and not (stop and stop.is_set()):
            fetched = pool.map(lambda source: _collect(settings, source, follow), waiting)
            collected = list(zip(waiting, fetched, strict=True))
            batches = [batch for _, found in collected for batch in found.batches]
            if batches:
                started = time.monotonic()
                rows = _commit(sink, batches, wait=lambda: follow and not (stop and stop.is_set()))
                report.rows += rows
                report.commits += 1
                log.debug("committed", rows=rows, seconds=round(time.monotonic() - started, 3))
                for source, found in collected:
                    for batch in found.batches:
                        source.acknowledge(batch)
                on_progress(rows)
            if not follow:
                waiting = [source for source, found in collected if not found.is_drained]
    return report


def _commit(sink: Sink, batches: list[Batch], wait: Callable[[], bool]) -> int:
    """Commit; while `wait` says so, outlast whoever holds the warehouse, such as a long build."""
    while True:
        try:
            return sink.commit(batches)
        except WarehouseHeldError as error:
            if not wait():
                raise
            log.warning("landing waits for the warehouse", reason=str(error))


@dataclass(slots=True)
class _Collected:
    """What one source gave for a commit."""

    batches: list[Batch]
    is_drained: bool = False
    """Nothing more was waiting."""


def _collect(settings: Settings, source: Source, follow: bool) -> _Collected:
    """Batches of one source until a commit is due."""
    deadline = time.monotonic() + settings.landing_max_seconds
    patience = settings.landing_max_seconds if follow else source.drained_after_seconds
    batches: list[Batch] = []
    rows = size = 0
    while rows < settings.landing_max_rows and size < settings.landing_max_bytes:
        remaining = max(0.0, deadline - time.monotonic())
        timeout = min(patience, remaining) if batches else patience
        batch = source.fetch(timeout)
        if batch is None:
            return _Collected(batches, is_drained=timeout == patience)
        batches.append(batch)
        rows += batch.rows
        size += sum(table.nbytes for table in batch.tables.values())
        if not remaining:
            break
    return _Collected(batches)
