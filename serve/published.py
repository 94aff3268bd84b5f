"""Opens the version that was published last."""

import duckdb
from pydantic import ValidationError

from common.errors import UserError
from common.settings import Settings
from engines.bigquery.reader import BigQueryPublished
from engines.duckdb.reader import DuckDBPublished
from publishing.versions import CURRENT, published_folder
from serve.answers import Published


def open_published(settings: Settings, threads: int | None = None) -> Published:
    """The version that was published last.

    Args:
        threads: of DuckDB, per query; all cores unless given.

    Raises:
        UserError: when no build has published one yet, or another release of this project has published it.
    """
    failure: Exception | None = None
    for _ in range(3):
        try:
            folder = (published_folder(settings) / CURRENT).resolve(strict=True)
            if settings.warehouse == "bigquery":
                from engines.bigquery.client import open_client

                return BigQueryPublished(folder, open_client(settings), settings)
            return DuckDBPublished(folder, settings, threads)
        except (OSError, duckdb.IOException) as error:  # builds may just have published newer ones and removed this one
            failure = error
        except ValidationError as error:
            raise UserError("another release published the last version: run `make build`") from error
    raise UserError("nothing is published yet: run `make ingest build` first") from failure
