"""Answers to queries, the published version that gives them, and the errors of queries without an answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Protocol

from common.errors import UserError
from engines.query import LIMIT, Query, Value


@dataclass(frozen=True)
class Answer:
    rows: list[tuple[Any, ...]]
    """One value per column of the query. Timestamps are UTC, with or without a zone."""
    is_cut: bool
    """Whether there are more rows than the parameter `limit` or SERVE_MAX_ROWS allows."""
    seconds: float
    """Execution time in the warehouse."""
    version: str
    """The build that answered."""


class Published(Protocol):
    """One published version. Thread-safe."""

    version: str
    queries: dict[str, Query]
    left_out: dict[str, Query]
    """Queries that this version cannot answer: their `problems` say why."""

    def ask(self, query: Query, values: Mapping[str, Value], timeout_seconds: float | None = None) -> Answer:
        """Run the query with bound values.

        Args:
            timeout_seconds: SERVE_TIMEOUT_SECONDS unless given.

        Raises:
            QueryTimeoutError: when the query takes longer than that; it is stopped first.
            QueryTooLargeError, QueryFailedError: as `Reader.rows`.
        """

    def close(self) -> None: ...


def find_query(published: Published, name: str) -> Query:
    """The query of this name.

    Raises:
        UserError: when there is none, or this version left it out; the message says which.
    """
    if name in published.queries:
        return published.queries[name]
    if name in published.left_out:
        raise UserError(why_left_out(published.left_out[name]))
    if meant := get_close_matches(name, published.queries, n=1, cutoff=0.8):
        raise UserError(f"there is no query {name!r}; did you mean {meant[0]}?")
    raise UserError(f"there is no query {name!r}; the queries are {', '.join(published.queries)}")


def why_left_out(query: Query) -> str:
    return f"{query.name} is left out of what is published: {'; '.join(query.problems)}"


def bind_limit(values: Mapping[str, Value], max_rows: int) -> tuple[dict[str, Value], int]:
    """The values to bind, and the maximum rows of the answer.

    A parameter `limit` is bound to one more row, which is not returned: it shows whether the answer is cut.
    """
    limit = values.get(LIMIT)
    if not isinstance(limit, int):
        return dict(values), max_rows
    most = min(limit, max_rows)
    return {**values, LIMIT: most + 1}, most
