"""The loop that builds what is new, tests it and has it published."""

import gc
import json
import queue
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import structlog

from common.errors import UnavailableError
from common.settings import Settings
from dbt_project.resident import Build, ModelError, ResidentProject, TestRound
from dbt_project.warm import parsed
from engines.engine import Engine
from live.freshness import Freshness
from live.publisher import Publication, Publisher, Unpublished
from live.telemetry import BUILDS
from publishing.dbt_options import PROJECT

IDLE_SECONDS = 1.0
"""Maximum seconds between two looks for something to do: messages that landed wake the loop at once."""
TEST_SECONDS = 0.15
"""Seconds of tests between two builds."""
RETRY_SECONDS = (1.0, 60.0)
"""First and longest pause after a model failed."""
PUBLISH_RETRY_SECONDS = 5.0
"""Pause after a version could not be published."""

log = structlog.get_logger()


@dataclass(slots=True)
class _Part:
    """A part of the loop: when it is due, and whether it failed when it last ran."""

    name: str
    next_at: float
    failure: str | None = None
    """Why it could not run; None once it has run to its end."""
    pause: float = RETRY_SECONDS[0]
    """Seconds until it is tried again after its next failure."""

    def fail(self, reason: str) -> None:
        self.failure = reason
        self.next_at = time.monotonic() + self.pause
        self.pause = min(2 * self.pause, RETRY_SECONDS[1])

    def succeed(self, next_at: float) -> None:
        """It ran to its end."""
        self.failure = None
        self.pause = RETRY_SECONDS[0]
        self.next_at = next_at


class Builds:
    """Builds in the thread that calls `run`.

    Args:
        variables: dbt's vars.
        wake: set when messages have landed, or a version was published.
        on_change: called when what fails has changed, with a line or None.
    """

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        publisher: Publisher,
        variables: Mapping[str, Any],
        wake: threading.Event,
        on_change: Callable[[str | None], None],
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._publisher = publisher
        self._wake = wake
        self._on_change = on_change
        options = ["--vars", json.dumps(variables)] if variables else []
        self._project = ResidentProject(
            settings, variables, parsed(PROJECT, {"WAREHOUSE": settings.warehouse}, options)
        )
        self._freshness = Freshness()
        self._measured: dict[str, datetime] = {}
        self._unpublished: Build | None = None
        self._tests: TestRound | None = None
        self._failed_tests: list[str] = []
        self._failed_publish: str | None = None
        now = time.monotonic()
        self._building = _Part("a build", now)
        self._testing = _Part("a test", now)
        self._snapshots = _Part("a snapshot", now + settings.live_snapshot_seconds)
        self._next_publish = now

    def run(self, stop: threading.Event) -> None:
        """Build until `stop` is set."""
        with closing(self._project):
            self._step()
            gc.collect()
            gc.freeze()  # each collection would read the whole parsed project: a quarter of a second every few seconds
            try:
                self._run(stop)
            finally:
                gc.unfreeze()

    def _run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            worked = self._step()
            self._publish()
            self._take_results()
            if not worked:
                self._wake.wait(IDLE_SECONDS)
                self._wake.clear()

    def _step(self) -> bool:
        """Do what is due; returns whether there may be more to do at once."""
        worked = self._try(self._building, self._build)
        self._publish()
        worked |= self._try(self._testing, self._test)
        self._try(self._snapshots, self._snapshot)
        return worked

    def _try(self, part: _Part, work: Callable[[], bool]) -> bool:
        """Run a part of the loop if it is due; returns what it returns."""
        if time.monotonic() < part.next_at:
            return False
        before, worked = part.failure, False
        error: str | None = None
        try:
            worked = work()
        except ModelError as raised:
            error = str(raised)
        if error is not None:
            self._engine.check_open()
            part.fail(error)
            log.error(f"{part.name} failed: nothing is published until it succeeds", reason=error)
            self._tests = None
            if part is self._building:  # tests would find models that are ahead of others
                self._testing.next_at = max(self._testing.next_at, part.next_at)
        if part.failure != before:
            self._report()
        return worked

    def _build(self) -> bool:
        started_at = time.monotonic()
        build = self._project.build()
        self._building.succeed(started_at + self._settings.live_build_seconds)
        if build is None:
            return False
        self._add_built(build)
        return True

    def _test(self) -> bool:
        """Run some tests of a round, or begin one."""
        if self._tests is None:
            self._tests = self._project.begin_tests()
        if self._project.test(self._tests, TEST_SECONDS):
            for failure in self._tests.failures:
                log.error("a test failed: nothing is published until it passes", test=failure)
            for warning in self._tests.warnings:
                log.warning("a test found rows", test=warning)
            if self._failed_tests and not self._tests.failures:
                log.info("all tests pass again")
            self._failed_tests = self._tests.failures
            self._tests = None
            self._testing.succeed(time.monotonic() + self._settings.live_test_seconds)
            self._report()
        return True

    def _snapshot(self) -> bool:
        build = self._project.snapshot()
        self._snapshots.succeed(time.monotonic() + self._settings.live_snapshot_seconds)
        if build.models:
            self._add_built(build)
        return True

    def _publish(self) -> None:
        """Have published what is not, unless something fails or the publisher is not done with the last version."""
        is_due = time.monotonic() >= self._next_publish
        if self._unpublished and is_due and not (self._failed or self._publisher.is_busy):
            build, self._unpublished = self._unpublished, None
            try:
                self._publisher.publish(build)
            except UnavailableError as error:
                self._engine.check_open()
                self._publisher.results.put(Unpublished(build, str(error)))

    def _add_built(self, build: Build) -> None:
        BUILDS.observe(build.seconds)
        log.info("built", models=build.models, streams=sorted(build.upper_bounds), seconds=round(build.seconds, 3))
        self._add_unpublished(build)

    def _add_unpublished(self, build: Build) -> None:
        """Add a build to what is to be published next. The version's times are those of the latest build in it."""
        if self._unpublished is not None:
            build = replace(build, upper_bounds={**self._unpublished.upper_bounds, **build.upper_bounds})
        self._unpublished = build

    def _take_results(self) -> None:
        with suppress(queue.Empty):
            while True:
                result = self._publisher.results.get_nowait()
                if isinstance(result, Publication):
                    self._measure(result)
                    self._failed_publish = None
                else:
                    log.error("not published", reason=result.reason)
                    self._failed_publish = result.reason
                    self._next_publish = time.monotonic() + PUBLISH_RETRY_SECONDS
                    later = self._unpublished or result.build
                    bounds = {**result.build.upper_bounds, **later.upper_bounds}
                    self._unpublished = replace(later, upper_bounds=bounds)
                self._report()

    def _measure(self, published: Publication) -> None:
        """Measure how fresh the messages are that a version is the first to have."""
        known = {stream: bound for stream, bound in published.upper_bounds.items() if stream in self._measured}
        rows = self._freshness.add(self._engine.arrivals(self._measured, known), published.times)
        self._measured.update(published.upper_bounds)
        if rows:
            try:
                self._engine.save_freshness(rows)
            except UnavailableError as error:
                self._engine.check_open()
                log.warning("a minute of freshness is not saved", reason=str(error))

    @property
    def _failed(self) -> str | None:
        failures = [part.failure for part in (self._building, self._testing, self._snapshots) if part.failure]
        return "; ".join(failures + self._failed_tests) or None

    def _report(self) -> None:
        self._on_change(self._failed or self._failed_publish)
