"""Builds new messages when the code has not changed since the last build, without dbt's task runner."""

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from dbt.contracts.graph.manifest import Manifest
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from common.settings import Settings
from dbt_project.last_build import LastBuild, manifest_file, manifest_state
from dbt_project.resident import ModelError, ResidentProject
from publishing.dbt_options import target
from publishing.marts import has_artifacts

errors = Console(stderr=True)


@dataclass(frozen=True, slots=True)
class Increment:
    """What a build ran, all of which passed."""

    models: int
    snapshots: int
    tests: int
    seconds: float


def build_increment(settings: Settings, last: LastBuild, variables: Mapping[str, Any]) -> Increment | None:
    """Build what has landed since the last build, which was made from the same code, and test it.

    Returns:
        What was built; None if only `dbt build` can do it or explain it: if anything failed, a table or view is
        missing, or the files of the last build are not there any more.
    """
    if last.manifest is None or last.manifest != manifest_state() or not has_artifacts(target()):
        return None
    started = time.monotonic()
    try:
        with _without_collections(), _progress() as on_node:
            manifest = Manifest.from_msgpack(manifest_file().read_bytes())
            with closing(ResidentProject(settings, variables, manifest, on_node)) as project:
                if not project.is_complete():
                    return None
                build = project.build()
                project.snapshot()
                tests = project.begin_tests()
                project.test(tests, float("inf"))
    except ModelError:
        return None
    if tests.failures or tests.warnings:
        return None
    return Increment(build.models if build else 0, len(project.snapshots), tests.total, time.monotonic() - started)


@contextmanager
def _without_collections() -> Iterator[None]:
    """Collect no garbage: each collection reads the whole parsed project, which takes a quarter of a second."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Show what runs on a terminal, nothing elsewhere."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as progress:
        task = progress.add_task("reading what is new", total=None)
        yield lambda name: progress.update(task, description=name[:40])
