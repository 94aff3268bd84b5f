"""Publishes a build in a separate thread while the next build runs."""

import queue
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import datetime

import structlog

from common.errors import UserError
from common.settings import Settings
from dbt_project.resident import Build
from engines.engine import Engine
from engines.marts import PinnedMarts
from live.freshness import Published
from live.telemetry import PUBLISHES
from publishing.dbt_options import target
from publishing.marts import Artifacts, read_artifacts
from publishing.publish import publish_pinned
from publishing.versions import published_version

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Publication:
    """A version that was published, and what is new in it."""

    version: str
    upper_bounds: Mapping[str, datetime]
    """By stream, the newest landed_at in it."""
    times: Published


@dataclass(frozen=True, slots=True)
class Unpublished:
    """A build that could not be published, for example since the disk was full."""

    build: Build
    reason: str


class Publisher:
    """Publishes one version at a time.

    Args:
        on_published: called in the publisher's thread when a version is visible.
    """

    def __init__(self, settings: Settings, engine: Engine, on_published: Callable[[], None]) -> None:
        self._settings = settings
        self._engine = engine
        self._on_published = on_published
        self._pinned: queue.SimpleQueue[tuple[ExitStack, PinnedMarts, Build]] = queue.SimpleQueue()
        self._is_busy = threading.Event()
        self._has_ended = threading.Event()
        self._artifacts: Artifacts | None = None
        self.results: queue.SimpleQueue[Publication | Unpublished] = queue.SimpleQueue()
        """What became of the builds, until the caller takes it."""

    @property
    def is_busy(self) -> bool:
        return self._is_busy.is_set()

    def publish(self, build: Build) -> None:
        """Fix what is published, the marts as they are now, and write them in the publisher's thread.

        Raises:
            UserError: if the warehouse cannot be read.
        """
        with ExitStack() as opened:
            pinned = opened.enter_context(self._engine.pin())
            self._is_busy.set()
            self._pinned.put((opened.pop_all(), pinned, build))
        if self._has_ended.is_set():
            self._drop()

    def run(self, stop: threading.Event, wake: threading.Event) -> None:
        """Write versions until `stop` is set.

        Args:
            wake: set after each version, so that the next can be pinned.
        """
        while not stop.is_set():
            try:
                opened, pinned, build = self._pinned.get(timeout=1)
            except queue.Empty:
                continue
            try:
                with opened:
                    self.results.put(self._write(pinned, build))
            except UserError as error:
                self.results.put(Unpublished(build, str(error)))
            finally:
                self._is_busy.clear()
                wake.set()
        self._has_ended.set()
        self._drop()

    def _drop(self) -> None:
        """Let go of the marts that will not be published any more."""
        with suppress(queue.Empty):
            while True:
                self._pinned.get_nowait()[0].close()

    def _write(self, pinned: PinnedMarts, build: Build) -> Publication:
        started_at = time.time()
        if self._artifacts is None:  # once: another run of dbt may write its own there
            self._artifacts = read_artifacts(target())
        same_code_as = published_version(self._settings)
        version = publish_pinned(self._settings, self._engine, pinned, self._artifacts, [], same_code_as)
        self._on_published()
        visible_at = time.time()
        PUBLISHES.observe(visible_at - started_at)
        log.info("published", version=version, seconds=round(visible_at - started_at, 3))
        times = Published(build.started_at, build.started_at + build.seconds, visible_at)
        return Publication(version, build.upper_bounds, times)
