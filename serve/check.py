"""Tests the queries of analyses/ without a build, against the version that was published last."""

from collections.abc import Iterator, Sequence
from contextlib import closing

from common.errors import UserError
from common.settings import Settings
from engines.factory import engine_for
from engines.query import Query
from publishing.compile import compile_queries
from publishing.dbt_options import PROJECT, PROJECT_OPTIONS, export_environment
from publishing.parameters import template_error
from serve.answers import Answer
from serve.published import open_published


def check(settings: Settings, names: Sequence[str] = ()) -> Iterator[tuple[Query, Answer | None]]:
    """Every analysis with its problems, tested against the version that was published last: planned and, on DuckDB, run
    with the defaults of its parameters. One without problems comes with its answer (None on BigQuery, where a dry run
    has no answer).

    Args:
        names: the analyses to check; all unless given.

    Raises:
        UserError: when nothing is published, dbt cannot read the project, or there is no analysis of that name.
    """
    files = sorted((PROJECT.parent / "analyses").rglob("*.sql"))
    if unknown := sorted(set(names) - {file.stem for file in files}):
        raise UserError(f"there is no analyses/{unknown[0]}.sql")
    # check the templates here: dbt would report only one broken template at a time
    if unreadable := [query for file in files if (query := template_error(file, PROJECT.parent))]:
        yield from ((query, None) for query in unreadable)
        return
    export_environment(settings)
    engine = engine_for(settings)
    with closing(open_published(settings)) as published:
        for query in compile_queries(PROJECT_OPTIONS, published.reader.describe, names):
            answer = None
            problems = list(query.problems)
            if not problems and not engine.is_billed:
                try:
                    answer = published.ask(query, query.values({}))
                except UserError as error:
                    problems.append(f"with its defaults: {error}")
            yield query.model_copy(update={"problems": problems}), answer
