"""The version that was published last: its queries, and the engine's connection that answers them."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from common.errors import UserError
from common.settings import Settings
from engines.factory import engine_for
from engines.query import Query, Value
from engines.reader import Reader
from publishing.versions import CURRENT, QUERIES, published_folder, read_queries
from serve.answers import Answer, bind_limit

if TYPE_CHECKING:
    import pyarrow as pa


class PublishedVersion:
    """A published version with an open connection.

    Args:
        folder: the folder of the version.
        reader: answers its queries.
        settings: the bounds of an answer.
    """

    def __init__(self, folder: Path, reader: Reader, settings: Settings) -> None:
        self.folder = folder
        self.version = folder.name
        self.queries, self.left_out = read_queries(folder)
        self.reader = reader
        self._settings = settings

    def ask(self, query: Query, values: Mapping[str, Value], timeout_seconds: float | None = None) -> Answer:
        if timeout_seconds is None:
            timeout_seconds = self._settings.serve_timeout_seconds
        bound, most = bind_limit(values, self._settings.serve_max_rows)
        started = time.perf_counter()
        rows = self.reader.rows(query, bound, most + 1, timeout_seconds)
        return Answer(rows[:most], len(rows) > most, time.perf_counter() - started, self.version)

    def query(
        self, sql: str, values: Mapping[str, Value] | None = None, timeout_seconds: float | None = None
    ) -> "pa.Table":
        """The rows of any SQL: see `Reader.table`."""
        return self.reader.table(sql, values, timeout_seconds)

    def close(self) -> None:
        self.reader.close()


def open_published(settings: Settings, threads: int | None = None) -> PublishedVersion:
    """The version that was published last.

    Args:
        threads: DuckDB's threads per query; one per core unless given.

    Raises:
        UserError: when no build has published one yet, or another release of this project has published it.
    """
    engine = engine_for(settings)
    current = published_folder(settings) / CURRENT
    failure: Exception | None = None
    for _ in range(3):
        try:
            folder = current.resolve(strict=True)
            reader = engine.open_reader(folder, threads)
            try:
                return PublishedVersion(folder, reader, settings)
            except BaseException:
                reader.close()
                raise
        except OSError as error:  # builds may just have published newer versions and removed this one
            failure = error
        except ValidationError as error:
            failure = error
            break
    if current.exists() and (isinstance(failure, ValidationError) or not (current / QUERIES).exists()):
        raise UserError("the last version was published by another release: run `make build`") from failure
    raise UserError("nothing is published yet: run `make ingest build` first") from failure
