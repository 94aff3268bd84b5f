"""Puts the parts of the live process together, and opens the warehouse again after an error that only this helps."""

import json
import logging
import os
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import structlog

from common import web
from common.errors import FULL_DISK, UnavailableError, UserError, WarehouseReopenError
from common.live_status import LiveStatus, StreamCounts, forget_live_status
from common.settings import Settings
from dbt_project.__main__ import run as run_dbt
from engines.engine import Engine
from engines.factory import engine_for
from ingest import push
from ingest.emit import CHUNK_ROWS, emit
from ingest.landing import land_streams
from ingest.producers import RoutingProducer
from ingest.simulator.feed import feed
from live.builds import Builds
from live.publisher import Publisher
from live.telemetry import FAILING, MEMORY
from live.workers import Workers
from publishing.versions import published_version
from serve.dashboard.routes import app as dashboard_app
from serve.endpoints import Endpoints
from upkeep.backup import answer_requests

HOST = "127.0.0.1"
LOOPBACK_ONLY = "run `serve` or `dashboard` beside it for other addresses"
FIRST_BUILD_RETRY_SECONDS = 30.0
"""Pause after the first build failed."""
FEED_RETRY_SECONDS = 5.0
"""Pause after the simulated events could not be delivered."""
EMIT_PAUSE_SECONDS = 5.0
"""Pause after each full chunk of results, which takes a second: those of a long history shall not hold up builds."""
RETRY_SECONDS = (1.0, 60.0)
"""First and longest pause before the warehouse is opened again."""
STATUS_SECONDS = 10.0
"""Seconds between two writes of the status."""
SHUTDOWN_SECONDS = 5
"""Seconds beyond SERVE_TIMEOUT_SECONDS that the last answers may take at shutdown."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Options:
    """The options of the command line."""

    port: int
    dashboard_port: int
    push_port: int | None
    rate: float
    """Events per second of the simulator; 0 without it."""
    variables: Mapping[str, Any]


class Live:
    """The live process.

    Args:
        stop: set to end it.
    """

    def __init__(self, settings: Settings, options: Options, stop: threading.Event) -> None:
        self._settings = settings
        self._options = options
        self._stop = stop
        self._engine: Engine = engine_for(settings)
        self._endpoints = Endpoints(settings)
        self._wake = threading.Event()
        self._folder = self._engine.published_folder
        self._status = LiveStatus(pid=os.getpid(), dashboard="", updated_at=datetime.now(UTC))
        self._writing = threading.Lock()
        self._is_written = True
        self._sink = self._engine.warehouse(follow=True)

    def run(self) -> None:
        """Run until `stop` is set.

        Raises:
            UserError: if an address or the warehouse cannot be used.
        """
        with ExitStack() as closing:
            sites = self._sites(closing)
            self._status.dashboard = web.url_of(sites[1].listener, "/")
            with self._engine.kept_open():
                pass  # before anything else starts, report what the user has to mend
            closing.callback(forget_live_status, self._folder)
            timeout = int(self._settings.serve_timeout_seconds) + SHUTDOWN_SECONDS
            with Workers(self._stop) as servers:
                servers.start("serve", lambda stop: web.serve_all(sites, stop, timeout))
                if self._options.rate:
                    servers.start("feed", self._feed)
                self._keep_running(servers.stop)

    def _sites(self, closing: ExitStack) -> list[web.Site]:
        """Listen on every address, before the warehouse is opened."""
        settings, options = self._settings, self._options
        sites = [
            web.Site(self._endpoints.app(), web.listen(HOST, options.port, LOOPBACK_ONLY), "/"),
            web.Site(dashboard_app(settings), web.listen(HOST, options.dashboard_port, LOOPBACK_ONLY), "/"),
        ]
        if options.push_port is not None:
            listener = push.listen(settings, HOST, options.push_port)
            committer = push.Committer(self._sink, settings, is_shared=True)
            closing.callback(committer.close)
            sites.append(web.Site(push.app(settings, committer), listener, push.PATH))
        return sites

    def _feed(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                with RoutingProducer(self._settings) as producer:
                    feed(self._settings, producer, rate=self._options.rate, stop=stop)
            except UnavailableError as error:
                log.warning("the feed waits", reason=str(error), seconds=FEED_RETRY_SECONDS)
                stop.wait(FEED_RETRY_SECONDS)

    def _keep_running(self, stop: threading.Event) -> None:
        """Land and build until `stop` is set. What needs no warehouse, such as answers, continues between attempts."""
        pause = RETRY_SECONDS[0]
        while not stop.is_set():
            started_at = time.monotonic()
            try:
                with self._engine.kept_open(), Workers(stop) as workers:
                    self._start(workers)
                    workers.stop.wait()
            except (UserError, OSError) as error:
                if not _is_temporary(error):
                    raise
                log.error("opening the warehouse again", reason=str(error), seconds=pause)  # noqa: TRY400  one line
                self._report(str(error))
                stop.wait(pause)
                has_run = time.monotonic() - started_at > RETRY_SECONDS[1]
                pause = RETRY_SECONDS[0] if has_run else min(2 * pause, RETRY_SECONDS[1])

    def _start(self, workers: Workers) -> None:
        workers.start("land", self._land)
        if not self._engine.is_billed:
            workers.start("status", self._write_status)
        if self._settings.has_kafka:
            workers.start("emit", self._emit)
        if not self._engine.is_copied:
            workers.start("build", self._build_by_dbt)
            return
        workers.start("backup", lambda stop: answer_requests(self._engine, stop))
        publisher = Publisher(self._settings, self._engine, self._endpoints.on_published)
        workers.start("publish", lambda stop: publisher.run(stop, self._wake))
        workers.start("build", lambda stop: self._build(stop, publisher))

    def _land(self, stop: threading.Event) -> None:
        def on_progress(rows: int) -> None:
            self._wake.set()

        land_streams(
            self._settings,
            self._settings.selected(),
            self._sink,
            follow=True,
            stop=stop,
            log_level=logging.DEBUG,  # there are several commits per second
            on_progress=on_progress,
        )

    def _build(self, stop: threading.Event, publisher: Publisher) -> None:
        """Build everything once by dbt, as `make build` does, and then what is new."""
        while not stop.is_set() and not self._built_by_dbt():
            stop.wait(FIRST_BUILD_RETRY_SECONDS)
        if not stop.is_set():
            self._engine.expect_small_statements()
            builds = Builds(self._settings, self._engine, publisher, self._options.variables, self._wake, self._report)
            builds.run(stop)

    def _build_by_dbt(self, stop: threading.Event) -> None:
        """Build everything at the interval of LIVE_BUILD_SECONDS."""
        while not stop.is_set():
            next_at = time.monotonic() + self._settings.live_build_seconds
            self._built_by_dbt()
            stop.wait(max(0.0, next_at - time.monotonic()))

    def _built_by_dbt(self) -> bool:
        """Run `dbt build` with all its tests; returns whether its result is published."""
        before = published_version(self._settings)
        try:
            variables = ["--vars", json.dumps(self._options.variables)] if self._options.variables else []
            exit_code = run_dbt(self._settings, ["build", *variables])
        except (UserError, OSError) as error:
            self._report(str(error))
            log.error("the build failed: nothing is published until one succeeds", reason=str(error))  # noqa: TRY400  one line
            return False
        version = published_version(self._settings)
        # exit code 1 also stands for a query that was left out of what is published
        is_published = exit_code == 0 or version != before
        self._report(None if is_published else "the build failed: see the log")
        if is_published:
            self._endpoints.on_published()
        return is_published

    def _emit(self, stop: threading.Event) -> None:
        """Emit results at the interval of LIVE_EMIT_SECONDS."""

        def pause(results: int) -> None:
            if results == CHUNK_ROWS:
                stop.wait(EMIT_PAUSE_SECONDS)

        while not stop.wait(self._settings.live_emit_seconds):
            try:
                emit(self._settings, self._sink, on_progress=pause)
            except UserError as error:
                log.warning("not emitted", reason=str(error))

    def _write_status(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                self._status.streams = {name: StreamCounts(**asdict(one)) for name, one in self._sink.status().items()}
                self._status.advice = self._engine.compaction_advice()
                for use, taken in self._engine.memory().items():
                    MEMORY.labels(use).set(taken)
            except WarehouseReopenError:
                raise
            except UserError as error:
                log.warning("the messages cannot be counted", reason=str(error))
            self._write()
            stop.wait(STATUS_SECONDS)

    def _report(self, failure: str | None) -> None:
        """Show why nothing is published, or that all is well."""
        FAILING.set(failure is not None)
        self._status.failure = failure
        self._write()

    def _write(self) -> None:
        with self._writing:
            self._status.published = published_version(self._settings)
            try:
                self._status.write(self._folder)
            except OSError as error:
                if self._is_written:
                    log.warning("the status cannot be written", reason=error.strerror)
                self._is_written = False
            else:
                self._is_written = True


def _is_temporary(error: UserError | OSError) -> bool:
    """Whether opening the warehouse again may help, now or when there is room on the disk."""
    if isinstance(error, OSError):
        return error.errno in FULL_DISK
    return isinstance(error, UnavailableError | WarehouseReopenError)
