"""A resident project whose warehouse fails."""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from dbt_common.exceptions import DbtRuntimeError

from dbt_project.resident import ModelError, ResidentProject


def test_a_commit_that_fails_is_a_failed_build() -> None:
    """A full disk is often noticed by the commit. The next build starts from what the warehouse has."""

    def commit() -> None:
        raise DbtRuntimeError("Could not write file\nmore")

    project = ResidentProject.__new__(ResidentProject)
    adapter: Any = SimpleNamespace(
        acquire_connection=lambda name: None,
        connections=SimpleNamespace(
            get_thread_connection=lambda: SimpleNamespace(transaction_open=True),
            commit=commit,
            rollback_if_open=lambda: None,
        ),
    )
    project._adapter = adapter
    project._is_started = True
    project._graph = {"watermarks_of_run": {}}
    with pytest.raises(ModelError, match="Could not write file"), project._running():
        pass
    assert not project._is_started
    assert project._graph == {}


def test_the_messages_of_a_failed_build_are_new_in_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise they would be built, but not published until further ones land."""
    monkeypatch.setattr(ResidentProject, "_running", lambda _: nullcontext())
    monkeypatch.setattr(ResidentProject, "_call", lambda *_: {"raw": {"clicks": "2026-01-05 10:00:00"}})
    monkeypatch.setattr(ResidentProject, "_models", {})
    errors = [ModelError("fct_events: broken")]

    def run_models(*_: object) -> None:
        if errors:
            raise errors.pop()

    monkeypatch.setattr(ResidentProject, "_run_models", run_models)
    project = ResidentProject.__new__(ResidentProject)
    project._graph, project._is_started, project._deferred, project._built = {}, True, set(), {}
    with pytest.raises(ModelError):
        project.build()
    build = project.build()
    assert build and [*build.upper_bounds] == ["clicks"]
    assert project.build() is None


def test_an_error_of_python_in_a_macro_is_a_failed_build() -> None:
    """Otherwise a time that no date can hold would end `live`."""

    def overflows() -> None:
        raise OverflowError("date value out of range")

    project = ResidentProject.__new__(ResidentProject)
    project._hooks = {"set_upper_bounds": overflows}  # type: ignore[dict-item]  # dbt's macros are callables too
    with pytest.raises(ModelError, match=r"^OverflowError: date value out of range$"):
        project._call("set_upper_bounds")
