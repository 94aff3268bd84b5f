"""The published versions, one directory each, and the symbolic link that names the newest.

DuckDB does not let one process read a file while another writes it, so a version has a copy of the marts. The link is
replaced in one step, so a reader sees one whole build or the next, and no build waits for a reader. BigQuery needs no
copy: the queries run on its datasets.
"""

from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from pydantic import TypeAdapter

from common.settings import Settings
from engines.factory import engine_for
from engines.query import Query

CURRENT = "current"
"""Name of the link."""
VERSION = "%Y%m%dT%H%M%S.%fZ"
"""Format of a version's name, which is the time at which it was published."""
QUERIES = "queries.json"
SEMANTIC_MANIFEST = "semantic_manifest.json"


def published_folder(settings: Settings) -> Path:
    """Where builds publish, one directory per version."""
    return engine_for(settings).published_folder


def published_version(settings: Settings) -> str | None:
    """The name of the version published last, None without one. Costs a single system call."""
    try:
        return (published_folder(settings) / CURRENT).readlink().name
    except OSError:
        return None


def published_at(version: str) -> datetime:
    """When a version was published, UTC."""
    return datetime.strptime(version, VERSION).replace(tzinfo=UTC)


def left_out(settings: Settings) -> list[Query]:
    """The queries that the version published last cannot answer; their `problems` say why."""
    return list(read_queries(published_folder(settings) / CURRENT)[1].values())


def read_queries(folder: Path) -> tuple[dict[str, Query], dict[str, Query]]:
    """The published queries, and the queries that were left out, by name."""
    found = _parsed((folder / QUERIES).read_bytes())
    askable = {query.name: query for query in found if not query.problems}
    return askable, {query.name: query for query in found if query.problems}


@lru_cache(maxsize=1)
def _parsed(text: bytes) -> list[Query]:
    """Cached, since most versions have the queries of the version before."""
    return TypeAdapter(list[Query]).validate_json(text)
