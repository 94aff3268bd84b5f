"""The loop that builds what is new, tests it and has it published."""

import json
import queue
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import replace
from datetime import datetime
from typing import Any

import structlog

from common.settings import Settings
from dbt_project.resident import Build, ModelError, ResidentProject, TestRound
from dbt_project.warm import parsed
from engines.engine import Engine
from live.freshness import Freshness
from live.publisher import Publication, Publisher
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
        self._failed_model: str | None = None
        self._failed_publish: str | None = None
        self._pause = RETRY_SECONDS[0]
        now = time.monotonic()
        self._next_build = now
        self._next_tests = now
        self._next_publish = now
        self._next_snapshots = now + settings.live_snapshot_seconds

    def run(self, stop: threading.Event) -> None:
        """Build until `stop` is set."""
        with closing(self._project):
            self._run(stop)

    def _run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            worked = self._step(time.monotonic())
            is_due = time.monotonic() >= self._next_publish
            if self._unpublished and is_due and not (self._failed or self._publisher.is_busy):
                self._publisher.publish(self._unpublished)
                self._unpublished = None
            self._take_results()
            if not worked:
                self._wake.wait(IDLE_SECONDS)
                self._wake.clear()

    def _step(self, now: float) -> bool:
        """Do what is due; returns whether there may be more to do at once."""
        is_build = now >= self._next_build
        try:
            worked = is_build and self._build(now)
            worked |= self._test(now)
            if now >= self._next_snapshots:
                self._next_snapshots = now + self._settings.live_snapshot_seconds
                self._project.snapshot()
        except ModelError as error:
            self._engine.check_open()
            self._fail_model(str(error))
            return False
        if is_build:  # a pause after a failure ends by a build
            self._fail_model(None)
        return worked

    def _build(self, now: float) -> bool:
        build = self._project.build()
        self._next_build = now + self._settings.live_build_seconds
        if build is None:
            return False
        BUILDS.observe(build.seconds)
        log.info("built", models=build.models, streams=sorted(build.upper_bounds), seconds=round(build.seconds, 3))
        self._add_unpublished(build)
        return True

    def _test(self, now: float) -> bool:
        """Run some tests of a round, or begin a round when it is due; returns whether any ran."""
        if self._tests is None:
            if now < self._next_tests:
                return False
            self._tests = self._project.begin_tests()
        if self._project.test(self._tests, TEST_SECONDS):
            for failure in self._tests.failures:
                log.error("a test failed: nothing is published until it passes", test=failure)
            if self._failed_tests and not self._tests.failures:
                log.info("all tests pass again")
            self._failed_tests = self._tests.failures
            self._tests = None
            self._next_tests = time.monotonic() + self._settings.live_test_seconds
            self._report()
        return True

    def _fail_model(self, reason: str | None) -> None:
        if reason is None:
            self._pause = RETRY_SECONDS[0]
        else:
            log.error("a build failed: nothing is published until one succeeds", reason=reason)
            self._tests = None
            self._next_build = self._next_tests = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, RETRY_SECONDS[1])
        if reason != self._failed_model:
            self._failed_model = reason
            self._report()

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
            self._engine.save_freshness(rows)

    @property
    def _failed(self) -> str | None:
        return self._failed_model or "; ".join(self._failed_tests) or None

    def _report(self) -> None:
        self._on_change(self._failed or self._failed_publish)
