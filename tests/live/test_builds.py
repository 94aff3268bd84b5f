"""The loop of builds, with a project and a warehouse that are not there."""

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

import live.builds
from common.errors import UnavailableError
from common.settings import Settings
from dbt_project.resident import Build, ModelError
from live.builds import Builds

BUILD = Build({}, 0.0, 0.0, 1)
NOTHING = Build({}, 0.0, 0.0, 0)


@dataclass
class Project:
    """Does what its lists say: one entry per build, per snapshot and per part of a round of tests."""

    builds: list[Build | ModelError] = field(default_factory=list)
    snapshots: list[Build | ModelError] = field(default_factory=list)
    tests: list[ModelError] = field(default_factory=list)

    def build(self) -> Build | None:
        return _next(self.builds) if self.builds else None

    def snapshot(self) -> Build:
        return _next(self.snapshots) if self.snapshots else NOTHING

    def begin_tests(self) -> Any:
        return SimpleNamespace(failures=[], warnings=[])

    def test(self, *_: object) -> bool:
        if self.tests:
            raise self.tests.pop(0)
        return True

    def close(self) -> None:
        pass


def _next(outcomes: list[Build | ModelError]) -> Build:
    outcome = outcomes.pop(0)
    if isinstance(outcome, ModelError):
        raise outcome
    return outcome


@pytest.fixture
def project(monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    found = Project()
    monkeypatch.setattr(live.builds, "ResidentProject", lambda *_: found)
    monkeypatch.setattr(live.builds, "parsed", lambda *_: None)
    monkeypatch.setattr(live.builds, "IDLE_SECONDS", 0.05)
    yield found


class Loop:
    """The loop, until something is published.

    Attributes:
        seen: what it reported and published, each once.
    """

    def __init__(self, snapshot_seconds: float = 300.0) -> None:
        self.seen: list[str | None] = []
        self._stop = threading.Event()
        settings = Settings(_env_file=None).model_copy(update={"live_snapshot_seconds": snapshot_seconds})
        publisher: Any = SimpleNamespace(is_busy=False, publish=self._publish, results=queue.SimpleQueue())
        self.publisher = publisher
        engine: Any = SimpleNamespace(check_open=lambda: None)
        self.builds = Builds(settings, engine, publisher, {}, threading.Event(), self._see)

    def run(self) -> None:
        timeout = threading.Timer(60, self._stop.set)
        timeout.start()
        self.builds.run(self._stop)
        timeout.cancel()

    def _see(self, what: str | None) -> None:
        if what not in self.seen[-1:] and not self._stop.is_set():
            self.seen.append(what)

    def _publish(self, _: Build) -> None:
        self._see("published")
        self._stop.set()


def test_nothing_is_published_from_a_failed_build_until_one_succeeds(project: Project) -> None:
    """Also not in the pause after the failure, in which nothing runs."""
    project.builds += [ModelError("fct_events: broken"), BUILD]
    loop = Loop()
    loop.builds._add_unpublished(BUILD)  # waits for the publisher when the next build fails
    loop.run()
    assert loop.seen == ["fct_events: broken", None, "published"]


@pytest.mark.parametrize("part", ["snapshots", "tests"])
def test_a_part_that_fails_is_tried_again_before_anything_is_published(
    project: Project, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """Builds that succeed meanwhile do not make up for it."""
    errors: list[Any] = [ModelError("users_snapshot: broken"), ModelError("users_snapshot: broken")]
    getattr(project, part).extend(errors)
    loop = Loop(snapshot_seconds=0.0)

    def build() -> Build | None:
        """New messages with each build but the first."""
        return BUILD if len(loop.seen) else None

    monkeypatch.setattr(project, "build", build)
    loop.run()
    assert getattr(project, part) == []
    assert loop.seen[-3:] == ["users_snapshot: broken", None, "published"]
    assert loop.seen.count("published") == 1


def test_what_the_snapshots_build_is_published_without_new_messages(project: Project) -> None:
    project.snapshots.append(BUILD)
    loop = Loop(snapshot_seconds=0.0)
    loop.run()
    assert loop.seen[-1] == "published"


def test_a_version_that_a_full_disk_prevents_is_published_later(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live.builds, "PUBLISH_RETRY_SECONDS", 0.1)
    project.builds.append(BUILD)
    loop = Loop()
    publish: Callable[[Build], None] = loop.publisher.publish
    errors = [UnavailableError("the disk is full")]

    def fail_once(build: Build) -> None:
        if errors:
            raise errors.pop()
        publish(build)

    loop.publisher.publish = fail_once
    loop.run()
    assert loop.seen == [None, "the disk is full", "published"]
