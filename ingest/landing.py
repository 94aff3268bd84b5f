"""The landing pipeline: fetch from the sources, decode, commit to the warehouse, acknowledge.

Messages are acknowledged only after their commit, so that a kill at any step loses none.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import pyarrow.compute as pc
import structlog

from common.errors import UnavailableError, WarehouseHeldError, WarehouseReplacedError
from common.settings import Settings
from common.streams import Stream
from engines.batch import Batch
from engines.warehouse import Sink
from ingest import telemetry
from ingest.batching import BatchBounds, BatchSize
from ingest.formats import Decoder, check_registry
from ingest.sources import Source, open_sources

STOP_CHECK_SECONDS = 1.0
"""Maximum seconds of a fetch with `follow`: between two fetches, landing checks whether to stop."""
RETRY_SECONDS = 1.0
"""First pause, in seconds, before a request to a broker or a commit is retried."""
MAX_RETRY_SECONDS = 60.0
"""Maximum pause, in seconds, between retries of a commit: each may count against an exhausted quota."""

log = structlog.get_logger()


@dataclass(slots=True)
class LandingReport:
    """Counts of a landing run."""

    rows: int = 0
    commits: int = 0
    problems: list[str] = field(default_factory=list)
    """One line per stream that was not landed, with the reason."""


def land_streams(
    settings: Settings,
    streams: list[Stream],
    sink: Sink,
    *,
    follow: bool = False,
    stop: threading.Event | None = None,
    log_level: int = logging.INFO,
    on_open: Callable[[list[Source]], None] = lambda sources: None,
    on_progress: Callable[[int], None] = lambda rows: None,
) -> LandingReport:
    """Open the sources of these streams and `land` from them.

    If the warehouse file or dataset was replaced, for example by a backup, the sources are opened again and landing
    continues from the positions of the new one.

    Args:
        log_level: of the line per commit, with `follow`.
        on_open: called with the sources before the first fetch.

    Raises:
        UserError: if a broker or the warehouse cannot be used. With `follow`, a missing answer is not an error: landing
            retries.
    """
    check_registry(settings, streams)
    report = LandingReport()
    stop = stop or threading.Event()
    while True:
        try:
            sink.create_tables()
            with open_sources(settings, streams, sink.positions, stop) as sources:
                on_open(sources)
                contracts = {stream.name: stream for stream in streams}
                land(
                    settings,
                    sources,
                    sink,
                    follow=follow,
                    stop=stop,
                    log_level=log_level,
                    on_progress=on_progress,
                    report=report,
                    streams=contracts,
                )
                report.problems = [problem for source in sources for problem in source.problems]
                return report
        except WarehouseReplacedError as error:
            accept_replacement(sink, error)
        except UnavailableError as error:
            if not follow or stop.is_set():
                raise
            log.warning("landing waits", reason=str(error))
            stop.wait(RETRY_SECONDS)


def accept_replacement(sink: Sink, error: WarehouseReplacedError) -> None:
    """Log that the warehouse was replaced, and make the sink read positions from the new one."""
    log.error(
        "the warehouse was replaced: Kafka and the spool are read again from the positions in the new one. Pub/Sub does"
        " not redeliver acknowledged messages: see docs/operations.md#pubsub-after-a-restore",
        reason=str(error),
    )
    sink.forget()


def land(
    settings: Settings,
    sources: list[Source],
    sink: Sink,
    *,
    follow: bool = False,
    stop: threading.Event | None = None,
    log_level: int = logging.INFO,
    on_progress: Callable[[int], None] = lambda rows: None,
    report: LandingReport | None = None,
    streams: Mapping[str, Stream] | None = None,
) -> LandingReport:
    """Land the messages that are waiting in the sources; with `follow`, continue until `stop` is set.

    A commit is due at LANDING_MAX_ROWS, LANDING_MAX_BYTES or LANDING_MAX_SECONDS, or when nothing more is waiting.
    During a commit, each source fetches only its next batch. A kill at any time loses nothing: uncommitted
    messages are fetched again. Committed but unacknowledged ones are skipped by their offset; those of Pub/Sub land
    again, and are counted as duplicates.

    Args:
        follow: retry while a broker, the schema registry or the warehouse does not answer, a disk is full, or another
            process holds the warehouse. Without it, a source is finished once the messages that were waiting at the
            start have landed, or once it delivers nothing for its `idle_timeout_seconds`. So landing also ends on a
            stream that never pauses.
        stop: set it to end after the running commit.
        log_level: of the line per commit, with `follow`.
        on_progress: called with the number of rows after each commit.
        report: add the counts to this report.
        streams: contracts by stream name; by default those of the project.

    Raises:
        WarehouseReplacedError: if the warehouse was replaced. Close these sources and open new ones.
    """
    report = report or LandingReport()
    stop = stop or threading.Event()
    failed = threading.Event()

    def is_ending() -> bool:
        return stop.is_set() or failed.is_set()

    # one decoder per source, since each source has its own thread
    decoders = {id(source): Decoder(settings, follow, is_ending, streams) for source in sources}
    with ThreadPoolExecutor(max_workers=len(sources)) as pool:

        def fetch(source: Source) -> None:
            fetching[pool.submit(_collect, settings, source, decoders[id(source)], follow, stop, failed)] = source

        fetching: dict[Future[_Collected], Source] = {}
        try:
            for source in sources:
                fetch(source)
            while fetching:
                done, _ = wait(fetching, return_when=FIRST_COMPLETED)
                collected = [(fetching.pop(future), future.result()) for future in done]
                for source, found in collected:
                    if not stop.is_set() and (follow or not found.is_drained):
                        fetch(source)
                batches = [batch for _, found in collected for batch in found.batches]
                if batches:
                    if follow:
                        rows = _commit_with_retry(sink, batches, stop, log_level)
                    else:
                        rows = commit(sink, batches, logging.DEBUG)
                    report.rows += rows
                    report.commits += 1
                    for source, found in collected:
                        for batch in found.batches:
                            source.acknowledge(batch)
                    on_progress(rows)
                elif follow:
                    sink.verify()
        except BaseException:
            failed.set()  # ends the fetches of the other sources, for which the pool waits
            raise
    return report


def commit(sink: Sink, batches: Sequence[Batch], log_level: int = logging.INFO) -> int:
    """Commit the batches, update the telemetry and log the commit. Returns the number of new messages."""
    started = time.monotonic()
    landed = sink.commit(batches)
    seconds = time.monotonic() - started
    rows = sum(landed.values())
    telemetry.COMMITS.observe(seconds)
    telemetry.COMMIT_MESSAGES.observe(rows)
    lags = _lag_seconds(batches)
    for stream, new in landed.items():
        telemetry.MESSAGES.labels(stream).inc(new)
    for stream, lag in lags.items():
        telemetry.LAG_SECONDS.labels(stream).set(lag)
    waiting: dict[str, int] = {}
    for batch in batches:
        waiting.update(batch.lag)
        for stream, table in batch.tables.items():
            telemetry.BYTES.labels(stream).inc(table.nbytes)
    for stream, messages in waiting.items():
        telemetry.LAG_MESSAGES.labels(stream).set(messages)
    log.log(
        log_level if any(batch.rows for batch in batches) else logging.DEBUG,  # a commit of positions only
        "committed",
        messages=rows,
        already_landed=sum(batch.rows for batch in batches) - rows,
        bytes=sum(table.nbytes for batch in batches for table in batch.tables.values()),
        seconds=round(seconds, 3),
        lag_messages=waiting,
        lag_seconds={stream: round(lag, 1) for stream, lag in lags.items()},
    )
    return rows


def _lag_seconds(batches: Sequence[Batch]) -> Mapping[str, float]:
    """Return the age of each stream's newest message, in seconds."""
    newest: dict[str, int] = {}
    for batch in batches:
        for stream, table in batch.tables.items():
            microseconds = pc.max(table["published_at"]).cast("int64").as_py()
            if microseconds is not None:
                newest[stream] = max(microseconds, newest.get(stream, microseconds))
    return {stream: time.time() - microseconds / 1e6 for stream, microseconds in newest.items()}


def _commit_with_retry(sink: Sink, batches: Sequence[Batch], stop: threading.Event, log_level: int) -> int:
    """Retry the commit until it succeeds or `stop` is set.

    It is retried while the warehouse does not answer, its disk is full, or another process, such as a build, holds it.
    A loop instead of tenacity, since the pause grows only for some errors: a held file costs no quota.
    """
    pause = RETRY_SECONDS
    while True:
        try:
            return commit(sink, batches, log_level)
        except UnavailableError as error:
            if stop.is_set():
                raise
            log.warning("landing waits for the warehouse", reason=str(error))
            stop.wait(pause)
            if not isinstance(error, WarehouseHeldError):
                pause = min(2 * pause, MAX_RETRY_SECONDS)


@dataclass(slots=True)
class _Collected:
    """The batches of one source for the next commit."""

    batches: list[Batch]
    is_drained: bool = False
    """Whether all messages that were waiting when landing began have been fetched."""


def _collect(
    settings: Settings,
    source: Source,
    decoder: Decoder,
    follow: bool,
    stop: threading.Event,
    failed: threading.Event,
) -> _Collected:
    """Fetch and decode batches of one source until a commit is due, `stop` is set, or another source failed."""
    bounds = BatchBounds.for_commit(settings)
    size = BatchSize(bounds)
    idle_timeout = bounds.seconds if follow else source.idle_timeout_seconds
    batches: list[Batch] = []
    while not size.is_full:
        remaining = max(0.0, size.seconds_left)
        if batches and not remaining:
            break
        timeout = min(idle_timeout, remaining) if batches else idle_timeout
        if follow:
            timeout = min(timeout, STOP_CHECK_SECONDS)
        try:
            batch = source.fetch(timeout)
        except UnavailableError as error:
            if batches or stop.is_set():
                break  # land the batches that were fetched; the next fetch raises the error again
            if not follow:
                raise
            log.warning("landing waits", reason=str(error))
            stop.wait(RETRY_SECONDS)
            return _Collected([])
        if batch is None:
            if batches and remaining and follow and not (stop.is_set() or failed.is_set()):
                continue
            return _Collected(batches, is_drained=timeout == idle_timeout)
        try:
            batch = decoder.decode(batch)
        except UnavailableError:
            # The source would continue after this batch and skip it, so landing must end without another fetch.
            if follow and (stop.is_set() or failed.is_set()):
                return _Collected(batches)
            raise
        batches.append(batch)
        if batch.is_end and not follow:
            return _Collected(batches, is_drained=True)
        size.add(batch.rows, sum(table.nbytes for table in batch.tables.values()))
        if stop.is_set() or failed.is_set():
            break
    return _Collected(batches)
