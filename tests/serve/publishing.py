"""Publishes at once what takes dbt some seconds to compile: `python -m tests.serve.publishing FOLDER KILLED_AT`."""

import os
import signal
import sys
from pathlib import Path
from unittest.mock import patch

from pydantic import TypeAdapter

from common.settings import Settings
from engines.duckdb.engine import DuckDBEngine
from engines.query import Query
from publishing.publish import publish
from publishing.versions import SEMANTIC_MANIFEST

# As a build that rebuilds every mart.
REBUILD = """
insert into intermediate.rebuilds select distinct node, 'done', '', now()::timestamp from intermediate.watermarks;
insert into intermediate.successful_builds select uuid(), now()::timestamp;
"""


def publish_again(settings: Settings, queries: list[Query], change: str = "", same_code_as: str | None = None) -> None:
    """As a build does, after a change to the warehouse."""
    engine = DuckDBEngine(settings)
    sink = engine.warehouse()
    with sink.session(), patch("publishing.publish.compile_queries", lambda *_: queries):
        if change:
            with sink.connection() as connection:
                connection.execute(change)
                connection.execute(REBUILD)
        target = settings.warehouse_path.parent
        (target / SEMANTIC_MANIFEST).write_text("{}")
        publish(settings, engine, [], target, same_code_as)


def main() -> None:
    """Publish, and be killed where that method of pathlib.Path is called."""
    warehouse, killed_at = Path(sys.argv[1]), sys.argv[2]
    queries = TypeAdapter(list[Query]).validate_json(sys.stdin.read())
    with patch.object(Path, killed_at, lambda *_: os.kill(os.getpid(), signal.SIGKILL)):
        publish_again(Settings(_env_file=None, warehouse_path=warehouse), queries)


if __name__ == "__main__":
    main()
