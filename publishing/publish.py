"""Publishes the result of a successful build as a version."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pydantic import TypeAdapter

from common.errors import UserError
from common.settings import Settings
from engines.engine import Engine
from engines.marts import STATE, PinnedMarts
from engines.query import Query
from publishing.compile import compile_queries
from publishing.marts import Artifacts, read_artifacts
from publishing.versions import CURRENT, QUERIES, SEMANTIC_MANIFEST, VERSION, published_folder, published_version


def publish(
    settings: Settings, engine: Engine, options: list[str], target: Path, same_code_as: str | None = None
) -> str:
    """Publish what a build left in `target`, where dbt wrote its artifacts: see `publish_pinned`."""
    artifacts = read_artifacts(target) if engine.is_copied else None
    with engine.pin() as pinned:
        return publish_pinned(settings, engine, pinned, artifacts, options, same_code_as)


def publish_pinned(
    settings: Settings,
    engine: Engine,
    pinned: PinnedMarts,
    artifacts: Artifacts | None,
    options: list[str],
    same_code_as: str | None = None,
) -> str:
    """Publish the compiled queries as a version of their own and, on DuckDB, the marts that they read.

    A query that has a problem is left out: `left_out` of versions.py returns these.

    Args:
        engine: the engine of the warehouse.
        pinned: the marts, from `engine.pin`; other connections of this process may commit meanwhile.
        artifacts: of the build; None where the engine copies no marts.
        options: dbt's options that name the project, the profiles and the vars of the build.
        same_code_as: a version built from the same code and vars; if it is the newest, its queries are copied.

    Returns:
        The name of the version.

    Raises:
        UserError: when it cannot be published; the previous version stays.
    """
    folder = published_folder(settings)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            before = published_version(settings)
            spare = _spare(folder, before)
            # also removes the files of a killed build
            _sweep(folder, {before, spare.name if spare else None})
            version = folder / f"{datetime.now(UTC):{VERSION}}"
            try:
                marts = artifacts.marts if artifacts else ()
                pinned.write(version, marts, folder / before if before else None, spare)
                if artifacts:
                    (version / SEMANTIC_MANIFEST).write_bytes(artifacts.semantic_manifest)
                queries = folder / CURRENT / QUERIES
                if before == same_code_as and queries.exists():
                    shutil.copy(queries, version)
                else:
                    _compile(version, engine, options)
                link = folder / f"{CURRENT}.new"
                link.symlink_to(version.name)
                link.replace(folder / CURRENT)
            except BaseException:
                shutil.rmtree(version, ignore_errors=True)
                raise
            # the previous version stays: a reader may be about to open it
            _sweep(folder, {before, version.name})
            return version.name
    except OSError as error:
        reason = str(error)
        raise UserError(
            f"built, but not published in {folder}: {reason.strip().partition(chr(10))[0]}; the last published build"
            " stays. Fix this and build again"
        ) from error


def _compile(version: Path, engine: Engine, options: list[str]) -> None:
    """Describe the queries on what is published, so that one that reads anything else is left out."""
    with closing(engine.open_reader(version)) as reader:
        queries = compile_queries(options, reader.describe)
    (version / QUERIES).write_bytes(TypeAdapter(list[Query]).dump_json(queries, indent=1))


def _spare(folder: Path, current: str | None) -> Path | None:
    """The newest complete version that is not the current one: its folder may become the next version."""
    complete = [path for path in folder.iterdir() if path.name not in (current, CURRENT) and (path / STATE).exists()]
    return max(complete, default=None)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a lock, so that one build publishes at a time: on BigQuery nothing else prevents two."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _sweep(folder: Path, kept: set[str | None]) -> None:
    for path in folder.iterdir():
        if path.is_symlink():
            if path.name != CURRENT:
                path.unlink()
        elif path.name not in kept:
            shutil.rmtree(path, ignore_errors=True)  # the next build removes what a server writes there meanwhile
