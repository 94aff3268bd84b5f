"""The pipeline: fetch from the sources, commit to the sink, acknowledge. In this order, nothing is lost."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import structlog

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
    on_progress: Callable[[int], None] = lambda rows: None,
) -> LandingReport:
    """Land what waits; with `follow`, go on until interrupted.

    A commit is due at LANDING_MAX_ROWS or LANDING_MAX_BYTES, when nothing more waits, or after
    LANDING_MAX_SECONDS. A kill at any instant loses nothing: what is not committed is fetched again,
    and what is committed but not acknowledged is known by its offset, or lands again as a counted duplicate.

    Args:
        follow: without it, a source that delivers nothing for its `drained_after_seconds` is done.
        on_progress: called with the number of rows of each commit.
    """
    report = LandingReport()
    with ThreadPoolExecutor(max_workers=len(sources)) as pool:
        open_sources = list(sources)
        while open_sources:
            collected = pool.map(lambda source: _collect(settings, source, follow), open_sources)
            pending = [(source, batches) for source, batches in zip(open_sources, collected, strict=True) if batches]
            if pending:
                started = time.monotonic()
                rows = sink.commit([batch for _, batches in pending for batch in batches])
                report.rows += rows
                report.commits += 1
                log.debug("committed", rows=rows, seconds=round(time.monotonic() - started, 3))
                for source, batches in pending:
                    for batch in batches:
                        source.acknowledge(batch)
                on_progress(rows)
            if not follow:
                open_sources = [source for source, _ in pending]
    return report


def _collect(settings: Settings, source: Source, follow: bool) -> list[Batch]:
    """Batches of one source until a commit is due."""
    deadline = time.monotonic() + settings.landing_max_seconds
    patience = settings.landing_max_seconds if follow else source.drained_after_seconds
    batches: list[Batch] = []
    rows = size = 0
    while rows < settings.landing_max_rows and size < settings.landing_max_bytes:
        remaining = max(0.0, deadline - time.monotonic())
        batch = source.fetch(min(patience, remaining) if batches else patience)
        if batch is None:
            break
        batches.append(batch)
        rows += batch.rows
        size += sum(table.nbytes for table in batch.tables.values())
        if not remaining:
            break
    return batches
