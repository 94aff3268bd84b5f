"""The loop of builds, with a project and a warehouse that are not there."""

import queue
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

import live.builds
from common.settings import Settings
from dbt_project.resident import Build, ModelError
from live.builds import Builds

BUILD = Build({}, 0.0, 0.0, 1)


class Project:
    """Does what its list says, one entry per build."""

    def __init__(self, outcomes: list[Build | ModelError]) -> None:
        self._outcomes = outcomes

    def build(self) -> Build | None:
        if not self._outcomes:
            return None
        outcome = self._outcomes.pop(0)
        if isinstance(outcome, ModelError):
            raise outcome
        return outcome

    def begin_tests(self) -> Any:
        return SimpleNamespace(failures=[])

    def test(self, *_: object) -> bool:
        return True

    def close(self) -> None:
        pass


@pytest.fixture
def outcomes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Build | ModelError]]:
    """What the next builds do."""
    found: list[Build | ModelError] = []
    monkeypatch.setattr(live.builds, "ResidentProject", lambda *_: Project(found))
    monkeypatch.setattr(live.builds, "parsed", lambda *_: None)
    monkeypatch.setattr(live.builds, "RETRY_SECONDS", (1.5, 60.0))
    yield found


def test_nothing_is_published_from_a_failed_build_until_one_succeeds(outcomes: list[Build | ModelError]) -> None:
    """Also not in the pause after the failure, in which nothing runs."""
    outcomes += [ModelError("fct_events: broken"), BUILD]
    seen: list[tuple[str | None, int]] = []
    stop = threading.Event()

    def see(what: str | None) -> None:
        if (what, len(outcomes)) not in seen:
            seen.append((what, len(outcomes)))

    def publish(_: Build) -> None:
        see("published")
        stop.set()

    publisher: Any = SimpleNamespace(is_busy=False, publish=publish, results=queue.SimpleQueue())
    engine: Any = SimpleNamespace(check_open=lambda: None)
    builds = Builds(Settings(_env_file=None), engine, publisher, {}, threading.Event(), see)
    builds._add_unpublished(BUILD)  # waits for the publisher when the next build fails
    timeout = threading.Timer(60, stop.set)
    timeout.start()
    builds.run(stop)
    timeout.cancel()
    assert seen == [("fct_events: broken", 1), ("fct_events: broken", 0), (None, 0), ("published", 0)]
