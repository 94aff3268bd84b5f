"""What answers queries on a published version, and why there may be no answer."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from common.errors import UserError
from engines.query import ColumnType, Query, Value

if TYPE_CHECKING:
    import pyarrow as pa

Describe = Callable[[Query], list[tuple[str, str]]]
"""Returns the name and the engine's type of each column of the answer, without running the query.

Raises QueryFailedError when the engine rejects the query, and another UserError when the engine cannot be asked."""

COLUMN_TYPES: dict[str, ColumnType] = {
    **dict.fromkeys(("varchar", "STRING"), "string"),
    **dict.fromkeys(("tinyint", "smallint", "integer", "bigint", "hugeint", "INTEGER", "INT64"), "integer"),
    **dict.fromkeys(("decimal", "float", "double", "NUMERIC", "BIGNUMERIC", "FLOAT", "FLOAT64"), "number"),
    **dict.fromkeys(("boolean", "BOOLEAN", "BOOL"), "boolean"),
    **dict.fromkeys(("date", "DATE"), "date"),
    **dict.fromkeys(("timestamp", "timestamp with time zone", "TIMESTAMP"), "timestamp"),
}
"""The engines' types of columns that an answer may have, and their names in an answer."""


class QueryTimeoutError(UserError):
    """An answer took longer than SERVE_TIMEOUT_SECONDS."""


class QueryTooLargeError(UserError):
    """An answer would need more than SERVE_MEMORY_LIMIT, or read more than SERVE_MAX_BYTES_BILLED."""


class QueryFailedError(UserError):
    """The engine rejects the query, or could not compute the answer; the message may quote values of the warehouse."""


class Reader(Protocol):
    """An open connection to one published version. Thread-safe."""

    def describe(self, query: Query) -> list[tuple[str, str]]:
        """As `Describe`."""
        ...

    def rows(
        self, query: Query, values: Mapping[str, Value], max_rows: int, timeout_seconds: float
    ) -> list[tuple[Any, ...]]:
        """Run the query with bound values; returns at most `max_rows` rows. Timestamps are UTC, with or without a zone.

        Raises:
            QueryTimeoutError: when it took longer; by then it no longer runs.
            QueryTooLargeError: when it needs more than SERVE_MEMORY_LIMIT (DuckDB), or reads more than
                SERVE_MAX_BYTES_BILLED (BigQuery).
            QueryFailedError: when the engine cannot compute it.
        """
        ...

    def table(
        self, sql: str, values: Mapping[str, Value] | None = None, timeout_seconds: float | None = None
    ) -> "pa.Table":
        """The rows of any SQL, such as that of a metric or a notebook; nothing can be written.

        Args:
            values: of its parameters ($name).
            timeout_seconds: no limit unless given.

        Raises:
            UserError: on an engine that runs published queries only, or as `rows`.
        """
        ...

    def close(self) -> None: ...


def took_longer(seconds: float) -> QueryTimeoutError:
    return QueryTimeoutError(
        f"the answer took longer than {seconds:.3g} s (SERVE_TIMEOUT_SECONDS): ask for less, such as a shorter period"
    )
