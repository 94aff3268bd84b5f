"""Publishes the result of a successful build as a version."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pydantic import TypeAdapter

from common.errors import UserError
from common.settings import Settings
from engines.engine import Engine
from engines.query import Query
from publishing.compile import compile_queries
from publishing.versions import CURRENT, QUERIES, SEMANTIC_MANIFEST, VERSION, published_folder, published_version


def publish(
    settings: Settings, engine: Engine, options: list[str], target: Path, same_code_as: str | None = None
) -> str:
    """Publish the compiled queries as a version of their own and, on DuckDB, a copy of the warehouse.

    A query that has a problem is left out: `left_out` of versions.py returns these.

    Args:
        engine: the engine of the warehouse, which the caller holds.
        options: dbt's options that name the project, the profiles and the vars of the build.
        target: where dbt wrote the artifacts of the build.
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
            version = folder / f"{datetime.now(UTC):{VERSION}}"
            # also removes the files of a killed build
            _sweep(folder, {before})
            try:
                version.mkdir()
                queries = folder / CURRENT / QUERIES
                if before == same_code_as and queries.exists():
                    shutil.copy(queries, version)
                else:
                    _compile(version, engine, options)
                if engine.is_copied:
                    shutil.copy(target / SEMANTIC_MANIFEST, version)
                    engine.copy(version)
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
    with engine.describing() as describe:
        queries = compile_queries(options, describe)
    (version / QUERIES).write_bytes(TypeAdapter(list[Query]).dump_json(queries, indent=1))


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
